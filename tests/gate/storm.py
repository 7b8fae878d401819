"""Stories without a pause: what must hold whoever is faster."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from iogate import Socket
from iogate.protocol.socketio.connection import State
from iogate.server.session.reasons import CloseReason
from tests.gate.model import ROOM_NEEDS, ROOT, STAFF, Revoked, Rules, World
from tests.gate.stage import Hook, Peer, Stage, acting
from tests.gate.stories import STEPS, Happening, Teller, story
from tests.servers import connection_of


class Storm:
    """A story that happens all at once: the server is not left in peace between one thing and the next.

    What comes of it depends on who is faster, so there is no model. But whoever is faster: a socket that is listed is
    one of an open connection and has its identity, it is in no room that its token does not give, and nothing of the
    application reaches a client outside or after a revocation.
    """

    def __init__(self, rules: Rules) -> None:
        self.stage = Stage(rules, lazy=True)
        self.teller = Teller(self.stage, World(rules, self.stage.clock.now, self.stage.clock.wall()))
        self.hooks: list[Hook] = []
        self.revocations: list[asyncio.Task[None]] = []
        self.silent: dict[Peer, int] = {}  # What they had received when `revoke` returned.
        self._ack = 100

    async def tell(self, things: list[Happening], chance: random.Random) -> None:
        self.stage.react = lambda socket: self.react(socket, chance)
        for thing in things:
            if thing[0] == "time":
                await self.pass_time(thing[1])
            else:
                getattr(self, "on_" + thing[0].replace(" ", "_"), self.shared)(*thing)
            for _ in range(chance.choice([0, 0, 0, 1, 2, 5])):
                await asyncio.sleep(0)
                self.check()
        await self.stage.settle()
        self.check()
        await asyncio.gather(*self.revocations)

    async def pass_time(self, seconds: float) -> None:
        clock = self.stage.clock
        until = clock.now + seconds
        while (due := self.stage.due()) is not None and due <= until:
            clock.now = max(due, clock.now)
            self.stage.run()
            self.check()
        clock.now = until

    def peer(self, number: int) -> Peer | None:
        index = self.teller.slots.get(number)
        return None if index is None else self.stage.peers[index]

    def act(self, peer: Peer, holds: frozenset[str], function: Callable[[], None]) -> None:
        hook = Hook(holds)
        self.hooks.append(hook)
        with acting(peer, hook):
            function()

    # What happens.

    def on_connect(self, _: str, number: int, namespace: str, spec: Any, holds: frozenset[str], polls: bool) -> None:
        peer = self.peer(number)
        if peer is None or not peer.connection.open:
            self.teller.slots[number] = len(self.stage.peers)
            peer = self.stage.open(polls)
        client, token = peer, self.teller.token(spec)
        self.act(client, holds, lambda: client.send("0", namespace, {"token": token[1]} if token else {}))

    def on_authenticate(self, _: str, number: int, namespace: str, spec: Any, holds: frozenset[str], ask: bool) -> None:
        peer = self.peer(number)
        if peer is not None and peer.connection.socketio.state(namespace) is State.CONNECTED:
            client, token, self._ack = peer, self.teller.token(spec), self._ack + 1
            message = ["authenticate", {"token": token[1]} if token else {}]
            self.act(client, holds, lambda: client.send("2", namespace, message, self._ack if ask else None))

    def on_release(self, _: str, which: int, well: bool) -> None:
        held = [hook for hook in self.hooks if hook.stage]
        if held:
            held[which % len(held)].release(well=well)

    def on_leave(self, _: str, number: int, namespace: str) -> None:
        peer = self.peer(number)
        if peer is not None and peer.connection.socketio.state(namespace) in {State.CONNECTED, State.PENDING}:
            peer.send("1", namespace)

    def on_goodbye(self, _: str, number: int, namespace: str) -> None:
        peer = self.peer(number)
        if peer is not None and peer.connection.socketio.state(namespace) is State.CONNECTED:
            peer.send("3", namespace, [], 1)

    def on_mods(self, event: str, number: int) -> None:
        peer = self.peer(number)
        if peer is not None and peer.connection.socketio.state(ROOT) is State.CONNECTED:
            peer.send("2", ROOT, [event], 1)

    on_speak = on_mods

    def on_hang_up(self, _: str, number: int) -> None:
        peer = self.peer(number)
        if peer is not None:
            peer.connection.close(CloseReason.TRANSPORT_CLOSE)

    def on_stall(self, _: str, number: int) -> None:
        peer = self.peer(number)
        if peer is not None:
            peer.wire.stalled = True

    def on_unstall(self, _: str, number: int) -> None:
        peer = self.peer(number)
        if peer is not None:
            peer.wire.stalled = False
            peer.wire.flush()

    def on_kick(self, _: str, number: int, namespace: str, close: bool) -> None:
        peer = self.peer(number)
        socket = None if peer is None else peer.connection.sockets.get(namespace)
        if socket is not None:
            socket.disconnect(close=close)

    def on_revoke(self, _: str, by: str, which: int) -> None:
        if self.teller.tokens:
            token, _text = self.teller.tokens[which % len(self.teller.tokens)]
            revoked = Revoked(jti=token.jti) if by == "jti" else Revoked(sid=token.sid)
            self.revocations.append(self.stage.io._core.sessions.spawn(self._revoke(revoked)))

    async def _revoke(self, revoked: Revoked) -> None:
        # Who has been sent away before gets the rest of what was said to him until then.
        there = [peer for peer in self.stage.peers if peer.connection.open]
        await self.stage.io.revoke(token_id=revoked.jti, session_id=revoked.sid)
        tokens = {token.jti: token for token, _ in self.teller.tokens}
        for peer in there:
            identity = peer.connection.identity
            if identity is not None and revoked.means(tokens[identity.principal.token_id or ""]):
                assert not peer.connection.open
                self.silent.setdefault(peer, len(peer.wire.received))

    def on_emit(self, _: str, namespace: str, room: str | None) -> None:
        self.teller.on_emit(namespace, room)

    def shared(self, *thing: Any) -> None:
        raise AssertionError(f"nobody knows what this is: {thing}")

    def react(self, socket: Socket, chance: random.Random) -> None:
        """Do what a handler may do: not even the connection that it is called for need be there afterwards."""
        if chance.random() > 0.3:
            return
        others = self.stage.io.of(chance.choice([ROOT, STAFF])).in_(chance.choice(["user:ann", "user:bob", "mods"]))
        deeds: list[Callable[[], object]] = [
            socket.disconnect,
            lambda: socket.disconnect(close=True),
            lambda: others.disconnect_sockets(close=chance.random() < 0.5),
            lambda: others.emit("news", 0),
            lambda: socket.join("anywhere"),
            lambda: socket.leave("door", "mods"),
        ]
        chance.choice(deeds)()

    # What holds.

    def check(self) -> None:
        for name in (ROOT, STAFF):
            for socket in self.stage.io.of(name).sockets.values():
                connection = connection_of(socket)
                assert connection.open, "listed, on a connection that is closed"
                assert connection.sockets.get(name) is socket
                assert socket._identity is connection.identity
                for room in socket.rooms:
                    assert ROOM_NEEDS.get(room, frozenset()) <= socket.scopes, f"in {room} without the scope for it"
                assert name != STAFF or "staff" in socket.scopes
        for peer, length in self.silent.items():
            late = {packet[:1] if packet[0] == "disconnect" else packet[2:3] for packet in peer.wire.received[length:]}
            assert late <= {("disconnect",), ("unauthorized",), ()}, "something was received after revoke"
            assert peer.wire.polls or not late, "something was received after revoke"

    def check_transcripts(self) -> None:
        """Make sure that nothing of the application has reached anybody outside."""
        for peer in self.stage.peers:
            inside = set()
            for packet in peer.wire.received:
                if packet[0] == "connect":
                    inside.add(packet[1])  # Perhaps it waits outside: `check` sees to that.
                elif packet[0] == "disconnect":
                    inside.discard(packet[1])
                elif packet[2:3] == ("news",):
                    assert packet[1] in inside, f"{packet} outside"


async def rage(rules: Rules, seed: int) -> None:
    """Let a storm pass, and look at what is left.

    Raises:
        AssertionError: something did not hold.
    """
    storm = Storm(rules)
    await storm.tell(story(seed, 2 * STEPS), random.Random(seed))  # noqa: S311
    storm.check_transcripts()
    assert await storm.stage.end() == {}
