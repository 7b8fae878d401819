"""Stories: lists of things that happen, and who tells them to the server on its stage and to the model beside it."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Any

from iogate import Socket
from iogate.server.gate.connection import Connection
from iogate.server.session.reasons import CloseReason
from tests.gate.model import ROOT, STAFF, Client, Revoked, Rules, Token, World
from tests.gate.stage import Hook, Peer, Stage, acting
from tests.servers import SECRET, make_token

CLIENTS = 10
STEPS = 120
TICK = 0.0137  # Seconds that pass with each thing that happens: no two deadlines fall together.

Happening = tuple[Any, ...]

RULES = {
    "token at connect": Rules(),
    "in band": Rules(authenticate_within=6.0),
    "guests": Rules(guests=True),
    "two of a subject": Rules(authenticate_within=6.0, per_subject=2),
    "the two newest of a subject": Rules(per_subject=2, ends_oldest=True),
}

SCOPES = ["", "staff", "speak moderate", "staff moderate", *["staff speak moderate"] * 4]
CAST = ["ann", "ann", "ann", "bob"]


def story(seed: int, steps: int = STEPS) -> list[Happening]:
    """Return what happens. Each thing makes sense, or does nothing, whatever is left out before it."""
    chance = random.Random(seed)  # noqa: S311
    # Few clients meet more often; sometimes all of them are there.
    number = chance.choice([2, 3, CLIENTS])

    def who() -> int:
        return chance.randrange(number)

    def where() -> str:
        return chance.choice([ROOT, ROOT, STAFF])

    def token() -> tuple[Any, ...] | None:
        kind = chance.choices(["new", "again", "none"], [9, 3, 1])[0]
        if kind == "none":
            return None
        if kind == "again":
            return "again", chance.randrange(1000)
        # Its age, how long it lives, its scopes, and what is wrong with it.
        return (
            "new",
            chance.choice(CAST),
            chance.choice([0, 0, 0, 4, 9]),
            chance.choice([3, 20, 40, 90]),
            chance.choice(SCOPES),
            chance.choices(["good", "expired", "forged"], [24, 1, 1])[0],
        )

    def holds() -> frozenset[str]:
        return frozenset(stage for stage in ("user", "middleware") if chance.random() < 0.3)

    def connects() -> Happening:
        return "connect", who(), where(), token(), holds(), chance.random() < 0.5

    things: list[tuple[float, Callable[[], Happening]]] = [
        (20, connects),
        (20, lambda: ("authenticate", who(), where(), token(), holds(), chance.random() < 0.5)),
        (16, lambda: ("release", chance.randrange(1000), chance.random() < 0.85)),
        (5, lambda: ("leave", who(), where())),
        (4, lambda: ("hang up", who())),
        (4, lambda: ("kick", who(), where(), chance.random() < 0.3)),
        (4, lambda: ("goodbye", who(), where())),
        (6, lambda: ("mods", who())),
        (4, lambda: ("speak", who())),
        (5, lambda: ("stall", who())),
        (4, lambda: ("unstall", who())),
        (3, lambda: ("revoke", chance.choice(["jti", "jti", "jti", "sid", "sub", "before"]), chance.randrange(1000))),
        (14, lambda: ("emit", where(), chance.choice([None, "mods", "door", "user:ann", "user:bob"]))),
        (8, lambda: ("time", chance.choice([0.3, 0.9, 1.1, 1.1, 3.0, 7.0]))),
    ]
    weights = [weight for weight, _ in things]
    opening = [connects() for _ in range(number)]
    return opening + [chance.choices(things, weights)[0][1]() for thing in range(steps)]


class Teller:
    """Tells a story to the server, and, if it is there, to the model."""

    def __init__(self, stage: Stage, world: World) -> None:
        self.stage = stage
        self.world = world
        self.tokens: list[tuple[Token, str]] = []
        self.slots: dict[int, int] = {}  # Which of the transports is the client's present one.
        self.hooks: dict[int, Hook] = {}
        self._acks = 100
        self._news = 0

    def client(self, number: int) -> tuple[Client, Peer] | None:
        """Return who is there under a number, if anybody is."""
        if number not in self.slots:
            return None
        index = self.slots[number]
        return self.world.clients[index], self.stage.peers[index]

    def token(self, spec: tuple[Any, ...] | None) -> tuple[Token, str] | None:
        """Return the token that is shown: a new one, or one that there was."""
        if spec is None or (spec[0] == "again" and not self.tokens):
            return None
        if spec[0] == "again":
            back: int = spec[1] % min(len(self.tokens), 8)
            return self.tokens[-1 - back]
        _, sub, age, life, scopes, kind = spec
        now = math.floor(self.stage.clock.wall())
        number = len(self.tokens)
        exp = now - 0.5 if kind == "expired" else now + life + 0.5
        made = Token(
            jti=f"t{number}",
            sub=sub,
            sid=f"{sub}{number % 2}",
            iat=float(now - age),
            exp=exp,
            scopes=frozenset(scopes.split()),
            forged=kind == "forged",
        )
        text = make_token(
            secret="x" * 40 if made.forged else SECRET,
            sub=sub,
            jti=made.jti,
            sid=made.sid,
            iat=made.iat,
            exp=exp,
            scope=scopes,
        )
        self.tokens.append((made, text))
        return made, text

    def hook(self, attempt: Any, holds: frozenset[str]) -> Hook:
        """Return how the hooks behave for an attempt."""
        hook = Hook(holds)
        if attempt is not None:
            self.hooks[attempt.number] = hook
        return hook

    async def tell(self, thing: Happening) -> None:
        """Let one thing happen to both, and wait until both have done what they do about it."""
        await self.pass_time(TICK)
        getattr(self, "on_" + thing[0].replace(" ", "_"))(*thing[1:])
        await self.stage.settle()

    async def pass_time(self, seconds: float) -> None:
        clock = self.stage.clock
        until = clock.now + seconds
        while True:
            dues = [due for due in (self.stage.due(), self.world.next()) if due is not None and due <= until]
            if not dues:
                break
            # Both reckon the same moment, by another way: they may differ by a rounding error.
            first = min(dues)
            clock.now = max([due for due in dues if due - first < 1e-5] + [clock.now])
            self.stage.run()
            self.world.run(clock.now)
            await self.stage.settle()
        clock.now = self.world.now = until

    # What happens.

    def on_connect(
        self, number: int, namespace: str, spec: tuple[Any, ...] | None, holds: frozenset[str], polls: bool
    ) -> None:
        found = self.client(number)
        if found is None or found[0].closed:
            self.slots[number] = len(self.stage.peers)
            found = self.world.open(polls), self.stage.open(polls)
        client, peer = found
        token = self.token(spec)
        attempt = self.world.connect(client, namespace, token and token[0], holds)
        with acting(peer, self.hook(attempt, holds)):
            peer.send("0", namespace, {"token": token[1]} if token else {})

    def on_authenticate(
        self, number: int, namespace: str, spec: tuple[Any, ...] | None, holds: frozenset[str], asks: bool
    ) -> None:
        found = self.client(number)
        if found is None or found[0].closed or not found[0].speaks(namespace):
            return
        client, peer = found
        token = self.token(spec)
        self._acks += 1
        ack = self._acks if asks else None
        attempt = self.world.authenticate(client, namespace, token and token[0], ack, holds)
        with acting(peer, self.hook(attempt, holds)):
            peer.send("2", namespace, ["authenticate", {"token": token[1]} if token else {}], ack)

    def on_release(self, which: int, well: bool) -> None:
        held = [attempt for attempt in self.world.held if attempt.stage]
        if held:
            attempt = held[which % len(held)]
            self.world.release(attempt, well=well)
            self.hooks[attempt.number].release(well=well)

    def on_leave(self, number: int, namespace: str) -> None:
        found = self.client(number)
        if found is not None and not found[0].closed:
            client, peer = found
            attempt = client.attempts.get(namespace)
            if client.speaks(namespace) or (attempt is not None and attempt.kind == "connect"):
                self.world.leave(client, namespace)
                peer.send("1", namespace)

    def on_hang_up(self, number: int) -> None:
        found = self.client(number)
        if found is not None:
            self.world.hang_up(found[0])
            found[1].connection.close(CloseReason.TRANSPORT_CLOSE)

    def on_kick(self, number: int, namespace: str, close: bool) -> None:
        found = self.client(number)
        if found is not None:
            self.world.kick(found[0], namespace, close)
            socket = found[1].connection.sockets.get(namespace)
            if socket is not None:
                socket.disconnect(close=close)

    def on_goodbye(self, number: int, namespace: str) -> None:
        found = self.client(number)
        if found is not None and namespace in found[0].rejected:
            self.world.goodbye(found[0], namespace)
            found[1].send("3", namespace, [], 1)

    def on_mods(self, number: int) -> None:
        found = self.client(number)
        if found is not None and ROOT in found[0].sockets:
            self._acks += 1
            self.world.enter_room(found[0], "mods", self._acks)
            found[1].send("2", ROOT, ["mods"], self._acks)

    def on_speak(self, number: int) -> None:
        found = self.client(number)
        if found is not None and ROOT in found[0].sockets:
            self._acks += 1
            self.world.speak(found[0], self._acks)
            found[1].send("2", ROOT, ["speak"], self._acks)

    def on_stall(self, number: int) -> None:
        found = self.client(number)
        if found is not None and not found[0].closed:
            self.world.stall(found[0])
            found[1].wire.stalled = True

    def on_unstall(self, number: int) -> None:
        found = self.client(number)
        if found is not None:
            self.world.unstall(found[0])
            found[1].wire.stalled = False
            found[1].wire.move()

    def on_revoke(self, by: str, which: int) -> None:
        if not self.tokens:
            return
        token, _ = self.tokens[which % len(self.tokens)]
        wall = self.stage.clock.wall()
        choices: dict[str, tuple[Revoked, dict[str, Any]]] = {
            "jti": (Revoked(jti=token.jti), {"token_id": token.jti}),
            "sid": (Revoked(sid=token.sid), {"session_id": token.sid}),
            "sub": (Revoked(sub=token.sub, before=wall), {"subject": token.sub}),
            "before": (Revoked(before=wall - 8), {"issued_before": wall - 8}),
        }
        revoked, criteria = choices[by]
        self.world.revoke(revoked)
        self.stage.io._core.sessions.spawn(self.stage.io.revoke(**criteria))

    def on_emit(self, namespace: str, room: str | None) -> None:
        self._news += 1
        self.world.emit(namespace, room, self._news)
        target = self.stage.io.of(namespace)
        (target if room is None else target.to(room)).emit("news", self._news)

    # What is compared.

    def compare(self) -> None:
        """Make sure that both agree.

        Raises:
            AssertionError: they do not.
        """
        for index, (client, peer) in enumerate(zip(self.world.clients, self.stage.peers, strict=True)):
            connection, wire = peer.connection, peer.wire
            seen: dict[str, Any] = {
                "received": [packet for packet in wire.received if packet[2:3] != ("token_expiring",)],
                "calls": peer.calls,
                "closed": not connection.open,
                "gone": wire.gone,
                "in": {name: room_names(socket) for name, socket in connection.sockets.items()},
                "listed": {name for name in (ROOT, STAFF) if self.is_listed(connection, name)},
                "at the gate": {name: self.stage_of(connection, name) for name in connection.attempts},
                "waiting": set(connection.waiting),
                "being told": set(connection.rejected),
                "as": connection.identity.principal.token_id if connection.identity is not None else None,
            }
            expected: dict[str, Any] = {
                "received": client.received,
                "calls": client.calls,
                "closed": client.closed,
                "gone": client.gone,
                "in": client.sockets,
                "listed": set(client.sockets),
                "at the gate": {name: attempt.stage for name, attempt in client.attempts.items()},
                "waiting": set(client.waiting),
                "being told": set(client.rejected),
                "as": client.identity.jti if client.identity is not None else None,
            }
            for name, value in expected.items():
                assert seen[name] == value, f"{name}, of the transport {index}"
            for socket in connection.sockets.values():
                assert socket._identity is connection.identity, f"a socket of the transport {index} is somebody else"
            if client.closed:
                assert connection not in self.stage.io._core.sessions.pending._sessions

    def is_listed(self, connection: Connection, namespace: str) -> bool:
        members = self.stage.io.of(namespace).sockets.values()
        return any(socket._connection is connection for socket in members)

    def stage_of(self, connection: Connection, namespace: str) -> str:
        attempt = self.world.clients[self.stage.peers.index(self.stage._of[connection])].attempts.get(namespace)
        return self.hooks[attempt.number].stage if attempt is not None else "?"


def room_names(socket: Socket) -> set[str]:
    return set(socket.rooms) - {socket.id}


async def tell(rules: Rules, things: list[Happening]) -> None:
    """Tell a story to a new server and a new model.

    Raises:
        AssertionError: they do not agree, or something is left when everybody has gone.
    """
    stage = Stage(rules)
    world = World(rules, stage.clock.now, stage.clock.wall())
    teller = Teller(stage, world)
    for thing in things:
        if thing[0] == "time":
            await teller.pass_time(thing[1])
        else:
            await teller.tell(thing)
        teller.compare()
    left = await stage.end()
    assert left == {}, "something is left"


def failure(rules: Rules, things: list[Happening]) -> str | None:
    """Tell a story; return how it failed, if it did."""
    try:
        asyncio.run(tell(rules, things))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def shortest(rules: Rules, things: list[Happening]) -> list[Happening]:
    """Return as little of a story that fails as still fails."""
    size = len(things) // 2
    while size:
        index = 0
        while index < len(things):
            less = things[:index] + things[index + size :]
            if failure(rules, less) is not None:
                things = less
            else:
                index += size
        size //= 2
    return things
