"""Everything that happens to a connection, in every order: the server beside the model, step by step.

A story is a list of things that happen, made by chance from a seed. It is told to a real `Server`, in memory, and to
the `World` of model.py; after each thing the two must agree in all that can be seen: what every client has been sent,
who is in which namespace and room and as whom, what the handlers have been called for. The hooks of the application
(load_user, connect middleware) return when the story says so, which lets anything happen in between. At the end
everybody leaves, and nothing may be left in any table of the server.

A story that fails is told again with as little as possible, and printed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import MutableMapping
from typing import Any

import pytest

from iogate import Socket
from iogate.server.session.handshake import Handshake
from iogate.server.session.reasons import CloseReason
from iogate.transports.websocket import WebSocketTransport
from tests.gate.model import ROOT, STAFF, Rules
from tests.gate.scenes import NONE, SCENES
from tests.gate.stage import Hook, Peer, Stage, Wire, acting
from tests.gate.stories import RULES, Happening, failure, shortest, story, tell
from tests.gate.storm import rage
from tests.gate.support import compact
from tests.server.left import leftovers
from tests.servers import connection_of, make_token


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("seeds", [range(start, start + 16) for start in range(0, 80, 16)], ids=str)
def test_the_server_does_what_the_model_says_and_forgets_everybody(rules: Rules, seeds: range) -> None:
    """No divergence in any order of events, and no entry in any table after everyone left."""
    for seed in seeds:
        things = story(seed)
        if failure(rules, things) is not None:
            least = shortest(rules, things)
            told = "\n".join(f"  {thing}" for thing in least)
            raise AssertionError(f"seed {seed}: {failure(rules, least)}\n{told}")


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_whoever_is_faster_nobody_is_in_who_may_not_be_and_nothing_is_left(rules: Rules) -> None:
    """The same stories without a pause, over transports that send a turn of the event loop later."""
    for seed in range(1000, 1050):
        try:
            asyncio.run(rage(rules, seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize(("rules", "things"), SCENES.values(), ids=SCENES)
async def test_the_server_does_what_the_model_says_in_every_scene(rules: Rules, things: list[Happening]) -> None:
    """Short stories of their own, for what chance brings about too seldom."""
    await tell(rules, things)


# Handlers that do things of their own while the gate is at work.


async def enters(stage: Stage, *namespaces: str, peer: Peer | None = None, **claims: Any) -> Peer:
    """Let a client in, with a token that has these claims."""
    peer = peer or stage.open(polls=False)
    token = make_token(**{"exp": stage.clock.wall() + 90, "iat": stage.clock.wall() - 9, **claims})
    with acting(peer, Hook(NONE)):
        for namespace in namespaces:
            peer.send("0", namespace, {"token": token})
    await stage.settle()
    return peer


async def refreshes(stage: Stage, peer: Peer, **claims: Any) -> None:
    """Let a client show a newer token."""
    token = make_token(**{"exp": stage.clock.wall() + 90, "iat": stage.clock.wall(), **claims})
    with acting(peer, Hook(NONE)):
        peer.send("2", ROOT, ["authenticate", {"token": token}])
    await stage.settle()


async def test_a_disconnect_handler_may_end_the_connection_that_a_refresh_narrows() -> None:
    """The refresh is forgotten with it: no deadline and no subject is counted for a connection that has gone."""
    stage = Stage(RULES["two of a subject"])
    peer = await enters(stage, ROOT, STAFF, scope="staff")
    stage.react = lambda socket: connection_of(socket).close(CloseReason.SERVER_DISCONNECT)
    await refreshes(stage, peer)
    assert peer.calls[-2:] == [
        ("disconnect", STAFF, "insufficient scope"),
        ("disconnect", ROOT, "server namespace disconnect"),
    ]
    assert await stage.end() == {}


async def test_a_refresh_handler_may_end_the_connection_that_a_connect_gives_a_newer_token() -> None:
    """The CONNECT that brought the token does not let anybody in on a connection that has gone."""
    stage = Stage(RULES["token at connect"])
    peer = await enters(stage, ROOT)
    stage.react = lambda socket: socket.disconnect(close=True)
    await enters(stage, STAFF, peer=peer, scope="staff", iat=stage.clock.wall())
    assert not stage.io.of(STAFF).sockets
    assert await stage.end() == {}


async def test_a_disconnect_handler_may_send_away_the_other_sockets_of_its_connection() -> None:
    """Each is sent away once, whoever is first."""
    stage = Stage(RULES["token at connect"])
    stage.io.of("/boss", scopes="staff").on("disconnect", stage._disconnected)
    peer = await enters(stage, ROOT, STAFF, scope="staff")
    await enters(stage, "/boss", peer=peer, scope="staff")

    def react(socket: Socket) -> None:
        for other in list(connection_of(socket).sockets.values()):
            other.disconnect()

    stage.react = react
    await refreshes(stage, peer)
    said = [packet for packet in peer.wire.received if packet[0] == "disconnect"]
    assert sorted(said) == [("disconnect", ROOT), ("disconnect", "/boss"), ("disconnect", STAFF)]
    assert await stage.end() == {}


async def test_a_disconnect_handler_may_send_away_the_others_when_the_transport_has_gone() -> None:
    """Nobody stays behind because somebody else was quicker."""
    stage = Stage(RULES["token at connect"])
    peer = await enters(stage, ROOT, STAFF, scope="staff")
    stage.react = lambda socket: stage.io.of(STAFF).disconnect_sockets()
    peer.connection.close(CloseReason.TRANSPORT_CLOSE)
    assert [call[1] for call in peer.calls if call[0] == "disconnect"] == [ROOT, STAFF]
    assert await stage.end() == {}


async def test_the_oldest_of_a_subject_may_take_the_newest_with_it() -> None:
    """A disconnect handler that ends everybody ends the newcomer too, who is not let in."""
    stage = Stage(RULES["the two newest of a subject"])
    for _ in range(2):
        await enters(stage, ROOT)

    def react(socket: Socket) -> None:
        for peer in stage.peers:
            peer.connection.close(CloseReason.NOT_ADMITTED)

    stage.react = react
    await enters(stage, ROOT)
    assert not stage.io.of(ROOT).sockets
    assert await stage.end() == {}


async def test_nobody_who_is_not_let_in_leaves_a_dynamic_namespace_behind() -> None:
    """Whoever waits outside, or is refused for a scope, has only asked for a name."""
    stage = Stage(RULES["in band"])
    stage.io.of(re.compile("/room-.*"), scopes="staff")
    peer = stage.open(polls=False)
    for number in range(5):
        peer.send("0", f"/room-{number}", {})
    await stage.settle()
    await enters(stage, *[f"/room-{number}" for number in range(2)], peer=peer)
    assert leftovers(stage.io).get("dynamic namespaces") is None
    assert await stage.end() == {}


# A WebSocket in the middle of sending, when what is left to be sent must not be sent any more.


class SlowClient:
    """The `send` of an ASGI server whose client reads only when it is told to."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message.get("text") or f"{message['type']} {message.get('bytes', b'')!r}")
        await self.reads.wait()


async def over_websocket(stage: Stage, **claims: Any) -> tuple[Peer, SlowClient]:
    """Let a client in over the transport that a real WebSocket has."""
    client = SlowClient()
    connection = stage.io._core.open(Handshake(address="192.0.2.1"))
    transport = WebSocketTransport(connection, client)
    peer = Peer(connection, Wire(connection, polls=False))
    stage.peers.append(peer)
    stage._of[connection] = peer
    connection.begin(transport)
    incoming: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    stage.io._core.sessions.spawn(transport.run(incoming.get))
    await enters(stage, ROOT, peer=peer, **claims)
    client.sent.clear()
    return peer, client


async def test_g6_of_what_a_slow_websocket_waits_to_send_nothing_is_for_a_room_that_is_lost() -> None:
    """Only the frame that is on its way to the client already arrives."""
    stage = Stage(RULES["token at connect"])
    peer, client = await over_websocket(stage, scope="moderate")
    client.reads.clear()
    for number in range(10):
        stage.io.to("door").emit("news", number)
    await stage.settle()
    await refreshes(stage, peer)
    client.reads.set()
    await stage.settle()
    assert client.sent == ['42["news",0]', f'42["authenticated",{compact(identity_of(peer))}]']
    assert await stage.end() == {}


async def test_g5_of_what_a_slow_websocket_waits_to_send_nothing_is_sent_after_revoke() -> None:
    """Not even the attachments of a packet that has begun."""
    stage = Stage(RULES["token at connect"])
    _, client = await over_websocket(stage, jti="t1")
    client.reads.clear()
    stage.io.emit("news", b"first", b"second")
    stage.io.emit("news", 2)
    await stage.settle()
    await stage.io.revoke(token_id="t1")
    client.reads.set()
    await stage.settle()
    assert len(client.sent) == 1
    assert client.sent[0].startswith("452-")
    assert await stage.end() == {}


async def test_g4_of_what_a_slow_websocket_waits_to_send_nothing_is_sent_after_the_end_of_its_token() -> None:
    """It is cut off: whoever does not read is not told why either."""
    stage = Stage(RULES["token at connect"])
    _, client = await over_websocket(stage, exp=stage.clock.wall() + 5)
    client.reads.clear()
    for number in range(10):
        stage.io.emit("news", number)
    await stage.settle()
    stage.clock.now += 5.0
    stage.run()
    stage.run()
    client.reads.set()
    await stage.settle()
    assert client.sent == ['42["news",0]']
    assert await stage.end() == {}


def identity_of(peer: Peer) -> dict[str, Any]:
    """Return what the client is told of itself."""
    identity = peer.connection.identity
    assert identity is not None
    return {"sub": identity.principal.subject, "exp": identity.principal.claims["exp"]}
