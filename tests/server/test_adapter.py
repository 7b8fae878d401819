"""The seam for a cluster: two servers whose adapters are connected in memory."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from iogate import AckTimeout, ConfigurationError, Disconnected, NotAuthenticated, Server, Socket
from iogate.protocol.engineio.packets import Encoded
from iogate.protocol.socketio.json import JSON
from iogate.protocol.socketio.packets import Encode, Packet
from iogate.server.namespaces.adapter import Adapter, Answers, LocalAdapter, Selection
from iogate.server.namespaces.emitter import Broadcast
from iogate.server.namespaces.remote import RemoteSocket
from tests.conformance.wire import session, within
from tests.server.left import assert_nothing_left, until
from tests.server.talk import Client, clients
from tests.servers import make_server, serve


class Connected(LocalAdapter):
    """An adapter that also reaches the sockets of other servers."""

    def __init__(self, namespace: str, encode: Encode, others: list[Connected]) -> None:
        super().__init__(namespace, encode)
        self._others = others

    def _reached(self, selection: Selection) -> list[Connected]:
        return [] if selection.local else [other for other in self._others if other is not self]

    def broadcast(self, data: list[Any], selection: Selection) -> None:
        super().broadcast(data, selection)
        for other in self._reached(selection):
            LocalAdapter.broadcast(other, data, selection)

    async def call(self, data: list[Any], selection: Selection, timeout: float) -> Answers:
        calls = [LocalAdapter.call(other, data, selection, timeout) for other in self._reached(selection)]
        own, *theirs = await asyncio.gather(super().call(data, selection, timeout), *calls)
        values = [value for answers in (own, *theirs) for value in answers.values]
        missing, asked = (sum(getattr(answers, name) for answers in (own, *theirs)) for name in ("missing", "asked"))
        return Answers(values, missing, asked)

    async def fetch(self, selection: Selection) -> list[Socket | RemoteSocket]:
        found = await super().fetch(selection)
        for other in self._reached(selection):
            for socket in other.select(selection.rooms, selection.excluded):
                principal = socket.principal if socket.authenticated else None
                found.append(RemoteSocket(socket.id, self._namespace, principal, socket.rooms, socket.data, self))
        return found

    def join_selected(self, selection: Selection, rooms: tuple[str, ...]) -> None:
        for adapter in (self, *self._reached(selection)):
            LocalAdapter.join_selected(adapter, selection, rooms)

    def leave_selected(self, selection: Selection, rooms: tuple[str, ...]) -> None:
        for adapter in (self, *self._reached(selection)):
            LocalAdapter.leave_selected(adapter, selection, rooms)

    def disconnect(self, selection: Selection, *, close: bool) -> None:
        for adapter in (self, *self._reached(selection)):
            LocalAdapter.disconnect(adapter, selection, close=close)


class InMemory:
    """Makes the adapters of servers in one process, and records when they are started and stopped."""

    def __init__(self) -> None:
        self.adapters: dict[str, list[Connected]] = {}
        self.happened: list[str] = []

    def create(self, namespace: str, encode: Encode) -> Adapter:
        others = self.adapters.setdefault(namespace, [])
        others.append(Connected(namespace, encode, others))
        return others[-1]

    async def start(self) -> None:
        self.happened.append("started")

    async def stop(self) -> None:
        self.happened.append("stopped")


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Server, Client, Client]]:
    """Ann's server, ann, and bob, who is on another server. Both are in the room `news`."""
    adapters = InMemory()
    first, second = make_server(adapters=adapters), make_server(adapters=adapters)
    for io in (first, second):
        io.on("connect", lambda socket: socket.join("news"))
    async with clients(first, "websocket", "ann") as [ann], clients(second, "websocket", "bob") as [bob]:
        yield first, ann, bob
    await assert_nothing_left(first)
    await assert_nothing_left(second)


async def answer(client: Client, event: str, value: object) -> None:
    """Acknowledge the event that comes next."""
    called = re.fullmatch(r'42(\d+)\["(\w+)".*\]', await client.receive())
    assert called is not None
    assert called[2] == event
    await client.wire.send(f"43{called[1]}{json.dumps([value])}")


async def fetch_bob(io: Server, bob: Client) -> RemoteSocket:
    """Return the socket of bob, as ann's server sees it."""
    (found,) = await io.to(bob.id).fetch_sockets()
    assert isinstance(found, RemoteSocket)
    return found


async def test_a_broadcast_reaches_both_servers() -> None:
    async with two() as (io, ann, bob):
        io.to("news").emit("hello", "x", 1)
        io.local.emit("here")
        io.except_(ann.id).emit("there")
        assert [await ann.hear(), await ann.hear()] == [["hello", "x", 1], ["here"]]
        assert [await bob.hear(), await bob.hear()] == [["hello", "x", 1], ["there"]]


async def test_a_call_collects_the_acknowledgements_of_both() -> None:
    async with two() as (io, ann, bob):
        call = asyncio.create_task(io.call("sum", 1))
        await answer(ann, "sum", 2)
        await answer(bob, "sum", 3)
        assert sorted(await within(call)) == [2, 3]
        call = asyncio.create_task(io.call("sum", 1, timeout=0.1))
        await answer(bob, "sum", 3)
        with pytest.raises(AckTimeout, match=r"1 of 2 sockets did not acknowledge in 0\.1 s") as caught:
            await within(call)
        assert caught.value.responses == [3]


async def test_a_call_is_encoded_once_and_has_one_id(monkeypatch: pytest.MonkeyPatch) -> None:
    io = make_server()
    encoded: list[Packet] = []

    def encode(packet: Packet) -> Encoded:
        encoded.append(packet)
        return JSON.encode(packet)

    monkeypatch.setattr(io.of("/").adapter, "_encode", encode)
    async with clients(io, "websocket", "ann", "bob", "eve") as listeners:
        own = asyncio.create_task(io.of("/").sockets[listeners[0].id].call("own"))
        await answer(listeners[0], "own", 0)
        assert await within(own) == 0
        call = asyncio.create_task(io.call("sum"))
        for number, listener in enumerate(listeners):
            await answer(listener, "sum", number)
        assert sorted(await within(call)) == [0, 1, 2]
    assert len(encoded) == 1


async def test_a_remote_socket() -> None:
    async with two() as (io, _, bob):
        remote = await fetch_bob(io, bob)
        assert (remote.id, remote.namespace, remote.rooms) == (bob.id, "/", frozenset({bob.id, "news", "user:bob"}))
        assert remote.authenticated
        assert (remote.principal.subject, remote.claims["sub"], remote.scopes) == ("bob", "bob", frozenset())
        assert repr(remote) == f"<RemoteSocket {bob.id} in />"
        remote.emit("hello", 1)
        remote.send("hi")
        assert [await bob.hear(), await bob.hear()] == [["hello", 1], ["message", "hi"]]
        call = asyncio.create_task(remote.call("sum", 1))
        await answer(bob, "sum", 2)
        assert await within(call) == 2
        remote.join("sport")
        assert "sport" in (await fetch_bob(io, bob)).rooms
        remote.leave("sport")
        assert "sport" not in (await fetch_bob(io, bob)).rooms
        for method, name in ((remote.join, "user:ann"), (remote.leave, bob.id), (remote.emit, "connect")):
            with pytest.raises(ConfigurationError):
                method(name)
        with pytest.raises(AckTimeout):
            await remote.call("sum", timeout=0.01)
        assert (await bob.receive()).startswith("42")
        remote.disconnect()
        assert await bob.receive() == "41"
        remote.emit("hello")
        with pytest.raises(Disconnected):
            await remote.call("sum")


async def test_a_remote_guest() -> None:
    guest = RemoteSocket("id", "/", None, frozenset(), {}, LocalAdapter("/", JSON.encode))
    assert (guest.authenticated, guest.claims, guest.scopes) == (False, {}, frozenset())
    with pytest.raises(NotAuthenticated):
        guest.principal  # noqa: B018


async def test_adapters_start_before_clients_and_stop_after_them() -> None:
    adapters = InMemory()
    io = make_server(adapters=adapters)
    io.on("connect", lambda socket: adapters.happened.append("connected"))
    io.on("disconnect", lambda socket, reason: adapters.happened.append("disconnected"))
    async with clients(io, "websocket", "ann"):
        await io.shutdown()
    assert adapters.happened[:4] == ["started", "connected", "disconnected", "stopped"]


async def test_a_broadcast_that_is_kept_finds_a_namespace_that_came_again() -> None:
    """It holds the name of the namespace, which ends with its last socket if a pattern has made it."""
    io = make_server()
    io.of(lambda name: name == "/lobby")
    kept: list[Broadcast] = []
    async with serve(io) as url:
        for _ in range(2):
            async with session(url, "websocket") as wire:
                listener = Client(wire, "/lobby")
                await listener.enter(sub="ann")
                (connection,) = io._core.sessions.table.values()
                kept.append(connection.sockets["/lobby"].namespace.to("user:ann"))
                kept[0].emit("hello")
                assert await listener.hear() == ["hello"]
            await until(lambda: not io._core.sessions.table)
        assert await kept[0].fetch_sockets() == []
