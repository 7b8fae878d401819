"""Saying something to many sockets: who hears it, who does not, and what a call collects."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from iogate import AckTimeout, ConfigurationError, Disconnected, Refused, Server, Socket
from iogate.protocol.engineio.packets import Encoded
from iogate.server.namespaces.emitter import Broadcast
from tests.conformance.wire import ends, said, session, within
from tests.server.left import assert_nothing_left, until
from tests.server.talk import Client, client, clients
from tests.servers import connection_of, make_server, make_token, serve

Choose = Callable[[Server, dict[str, Socket]], Broadcast]


@pytest.fixture
def io() -> Server:
    return make_server()


@asynccontextmanager
async def four(io: Server, transport: str) -> AsyncIterator[tuple[dict[str, Client], dict[str, Socket]]]:
    """Four clients: ann and bob read the news, bob and eve the sport, and joe reads nothing."""
    names = ("ann", "bob", "eve", "joe")
    async with clients(io, transport, *names) as found:
        by_name = dict(zip(names, found, strict=True))
        sockets = {name: io.of("/").sockets[client.id] for name, client in by_name.items()}
        for name in ("ann", "bob"):
            sockets[name].join("news")
        for name in ("bob", "eve"):
            sockets[name].join("sport", "news from abroad")
        yield by_name, sockets


async def hear(io: Server, listeners: dict[str, Client], expected: str) -> None:
    """Make sure that the named ones, and no others, are sent one `hello`."""
    heard = []
    for name, listener in listeners.items():
        io.in_(listener.id).emit("end")
        if (data := await listener.hear()) == ["hello", 1]:
            heard.append(name)
            data = await listener.hear()
        assert data == ["end"]
    assert " ".join(heard) == expected


CHOICES: dict[str, tuple[Choose, str]] = {
    "everybody": (lambda io, _: io.local, "ann bob eve joe"),
    "to a room": (lambda io, _: io.to("news"), "ann bob"),
    "in a room": (lambda io, _: io.in_("news"), "ann bob"),
    "several rooms": (lambda io, _: io.to("news", "sport"), "ann bob eve"),
    "one room after the other": (lambda io, _: io.to("news").to("sport"), "ann bob eve"),
    "a room where nobody is": (lambda io, _: io.to("weather"), ""),
    "a room and one where nobody is": (lambda io, _: io.to("weather", "news"), "ann bob"),
    "an id": (lambda io, sockets: io.to(sockets["joe"].id), "joe"),
    "an id and a room": (lambda io, sockets: io.to(sockets["joe"].id, "news"), "ann bob joe"),
    "a person": (lambda io, _: io.to("user:eve"), "eve"),
    "all but a room": (lambda io, _: io.except_("news"), "eve joe"),
    "all but rooms": (lambda io, _: io.except_("news", "sport"), "joe"),
    "all but an id": (lambda io, sockets: io.except_(sockets["ann"].id), "bob eve joe"),
    "a room but not another": (lambda io, _: io.to("news").except_("sport"), "ann"),
    "but not another in a room": (lambda io, _: io.except_("sport").to("news"), "ann"),
    "but not one nor the other": (lambda io, _: io.except_("sport").except_("news"), "joe"),
    "volatile": (lambda io, _: io.to("news").volatile.local, "ann bob"),
    "the others": (lambda _, sockets: sockets["ann"].broadcast, "bob eve joe"),
    "the others here": (lambda _, sockets: sockets["ann"].local, "bob eve joe"),
    "the others in a room": (lambda _, sockets: sockets["ann"].to("news"), "bob"),
    "the others in rooms": (lambda _, sockets: sockets["ann"].to("news", "sport"), "bob eve"),
    "others than a room": (lambda _, sockets: sockets["ann"].except_("sport"), "joe"),
    "the others of the same person": (lambda _, sockets: sockets["ann"].to("user:ann"), ""),
    "itself": (lambda _, sockets: sockets["ann"].volatile, "ann"),
}


@pytest.mark.parametrize("choice", CHOICES)
async def test_a_choice_is_heard_by_the_chosen_and_by_nobody_else(io: Server, choice: str) -> None:
    choose, expected = CHOICES[choice]
    async with four(io, "websocket") as (listeners, sockets):
        chosen = choose(io, sockets)
        assert sorted(socket.principal.subject for socket in await chosen.fetch_sockets()) == expected.split()
        chosen.emit("hello", 1)
        await hear(io, listeners, expected)


async def test_choices_are_the_same_over_polling(io: Server) -> None:
    async with four(io, "polling") as (listeners, sockets):
        io.to("news").emit("hello", 1)
        await hear(io, listeners, "ann bob")
        sockets["bob"].broadcast.emit("hello", 1)
        await hear(io, listeners, "ann eve joe")


async def test_a_choice_can_be_kept_and_is_not_changed_by_narrowing_it(io: Server) -> None:
    async with four(io, "websocket") as (listeners, _):
        news = io.to("news")
        news.except_("sport").emit("hello", 1)
        await hear(io, listeners, "ann")
        news.emit("hello", 1)
        await hear(io, listeners, "ann bob")


async def test_a_choice_is_made_when_it_is_emitted(io: Server) -> None:
    async with four(io, "websocket") as (listeners, sockets):
        news = io.to("news")
        sockets["ann"].leave("news")
        sockets["joe"].join("news")
        news.emit("hello", 1)
        await hear(io, listeners, "bob joe")


async def test_a_broadcast_stays_in_its_namespace(io: Server, transport: str) -> None:
    io.of("/admin")
    async with client(io, transport) as ann, client(io, transport, "/admin") as bob:
        io.emit("root")
        io.of("/admin").emit("admin")
        io.of("/admin").to("user:ann").send("a message")
        assert await ann.hear() == ["root"]
        assert await bob.hear() == ["admin"]
        assert await bob.hear() == ["message", "a message"]
        await ann.hears_nothing_before(io)


async def test_what_is_emitted_to_several_rooms_is_heard_once(io: Server, transport: str) -> None:
    async with client(io, transport) as ann:
        io.of("/").sockets[ann.id].join("a", "b")
        io.to("a", "b", "user:ann", ann.id).emit("hello")
        assert await ann.hear() == ["hello"]
        await ann.hears_nothing_before(io)


async def test_binary_data_is_heard_by_all_of_them(io: Server, transport: str) -> None:
    async with clients(io, transport, "ann", "bob") as listeners:
        io.emit("picture", {"data": b"\x00\xff", "name": "a"})
        for listener in listeners:
            assert await listener.receive() == '451-["picture",{"data":{"_placeholder":true,"num":0},"name":"a"}]'
            assert await within(listener.wire.receive()) == b"\x00\xff"


async def test_what_has_no_json_is_the_emitters_error_and_nobody_hears_anything(io: Server, transport: str) -> None:
    async with client(io, transport) as ann:
        socket = io.of("/").sockets[ann.id]
        for emitter in (io, io.to("user:ann"), socket):
            with pytest.raises(TypeError):
                emitter.emit("hello", object())
        with pytest.raises(TypeError):
            await socket.call("hello", object())
        await ann.hears_nothing_before(io)


# Volatile.


async def test_a_volatile_event_is_dropped_for_who_cannot_take_it_at_once(io: Server) -> None:
    """Over polling: for who has no poll waiting. All else arrives."""
    async with client(io, "polling") as ann:
        socket = io.of("/").sockets[ann.id]
        io.volatile.emit("dropped")
        socket.volatile.emit("dropped")
        socket.emit("kept")
        io.volatile.emit("dropped")
        assert await ann.hear() == ["kept"]
        heard = asyncio.create_task(ann.hear())
        await until(lambda: connection_of(socket).transport.writable)
        io.volatile.emit("taken")
        assert await heard == ["taken"]


# Calls.


async def test_a_call_returns_what_the_client_answers(io: Server, transport: str) -> None:
    async with client(io, transport) as ann:
        socket = io.of("/").sockets[ann.id]
        for answer, expected in (("[]", None), ("[5]", 5), ('["a",[1]]', ("a", [1])), ("[null]", None)):
            call = asyncio.create_task(socket.call("question", "x", timeout=5))
            packet = await ann.receive()
            assert packet.endswith('["question","x"]')
            await ann.wire.send("43" + packet.removeprefix("42").removesuffix('["question","x"]') + answer)
            assert await within(call) == expected
        assert not socket._acks


async def test_a_call_collects_the_answers_of_all(io: Server, transport: str) -> None:
    async with clients(io, transport, "ann", "bob", "eve") as listeners:
        call = asyncio.create_task(io.except_("user:eve").call("question", timeout=5))
        for number, listener in enumerate(listeners[:2]):
            assert await listener.receive() == '421["question"]'
            await listener.wire.send(f"431[{number}]")
        assert sorted(await within(call)) == [0, 1]
        await listeners[2].hears_nothing_before(io)


async def test_a_call_to_nobody_has_no_answers(io: Server) -> None:
    assert await io.call("question") == []
    assert await io.to("nobody").call("question", timeout=0.001) == []


async def test_a_call_that_is_not_answered_by_all_says_what_the_others_answered(io: Server, transport: str) -> None:
    async with clients(io, transport, "ann", "bob", "eve") as listeners:
        call = asyncio.create_task(io.call("question", timeout=0.3))
        for listener in listeners:
            assert await listener.receive() == '421["question"]'
        await listeners[0].wire.send('431["in time"]')
        with pytest.raises(AckTimeout, match=r"2 of 3 sockets did not acknowledge in 0.3 s") as caught:
            await within(call)
        assert caught.value.responses == ["in time"]
        assert isinstance(caught.value, TimeoutError)
        # What comes late is dropped, and harms nobody.
        await listeners[1].wire.send('431["late"]')
        await listeners[1].hears_nothing_before(io)
        assert not any(socket._acks for socket in io.of("/").sockets.values())


async def test_a_call_to_one_that_does_not_answer_times_out(io: Server, transport: str) -> None:
    async with client(io, transport) as ann:
        socket = io.of("/").sockets[ann.id]
        with pytest.raises(AckTimeout, match=r"'question' was not acknowledged in 0.01 s"):
            await socket.call("question", timeout=0.01)
        assert not socket._acks


async def test_a_call_ends_when_its_client_goes(io: Server, transport: str) -> None:
    async with clients(io, transport, "ann", "bob") as (ann, bob):
        socket = io.of("/").sockets[ann.id]
        one = asyncio.create_task(socket.call("question", timeout=60))
        all_ = asyncio.create_task(io.call("question", timeout=60))
        assert await bob.receive() == '422["question"]'  # Ids count per namespace.
        await bob.wire.send('432["bob"]')
        await ann.wire.send("41")
        with pytest.raises(Disconnected, match="the client disconnected before it acknowledged"):
            await within(one)
        assert await within(all_) == ["bob"]
        with pytest.raises(Disconnected, match="'question' cannot be acknowledged: the socket is not connected"):
            await socket.call("question")


@pytest.mark.parametrize("answer", ["430[]", "435[1]", "439999999999999999[1]"])
async def test_an_answer_that_nobody_waits_for_is_dropped(io: Server, transport: str, answer: str) -> None:
    async with client(io, transport) as ann:
        await ann.wire.send(answer)
        await ann.hears_nothing_before(io)


async def test_one_client_cannot_answer_for_another(io: Server, transport: str) -> None:
    async with clients(io, transport, "ann", "bob") as (ann, bob):
        call = asyncio.create_task(io.of("/").sockets[ann.id].call("question", timeout=5))
        assert await ann.receive() == '421["question"]'
        await bob.wire.send('431["bob"]')
        await bob.hears_nothing_before(io)
        await ann.wire.send('431["ann"]')
        assert await within(call) == "ann"


async def test_a_second_answer_is_dropped(io: Server, transport: str) -> None:
    async with client(io, transport) as ann:
        call = asyncio.create_task(io.of("/").sockets[ann.id].call("question", timeout=5))
        assert await ann.receive() == '421["question"]'
        await ann.wire.send('431["first"]', '431["second"]')
        assert await within(call) == "first"
        await ann.hears_nothing_before(io)


async def test_a_handler_may_call_its_own_client(io: Server, transport: str) -> None:
    @io.on("order")
    async def order(socket: Socket) -> str:
        return f"{await socket.call('how many?', timeout=5)} it is"

    async with client(io, transport) as ann:
        await ann.wire.send('427["order"]')
        assert await ann.receive() == '421["how many?"]'
        await ann.wire.send("431[3]")
        assert await ann.receive() == '437["3 it is"]'


# Whole rooms.


async def test_sockets_of_a_room_join_and_leave_others(io: Server) -> None:
    async with four(io, "websocket") as (listeners, sockets):
        io.in_("news").sockets_join("a", "b")
        assert {"a", "b"} <= sockets["ann"].rooms & sockets["bob"].rooms
        assert not {"a", "b"} & (sockets["eve"].rooms | sockets["joe"].rooms)
        io.in_("sport").sockets_leave("a", "news", "never joined")
        assert sockets["bob"].rooms == {sockets["bob"].id, "user:bob", "sport", "news from abroad", "b"}
        io.to("a").emit("hello", 1)
        await hear(io, listeners, "ann")


async def test_sockets_of_a_room_are_disconnected(io: Server, transport: str) -> None:
    async with four(io, transport) as (listeners, sockets):
        io.in_("news").disconnect_sockets()
        for name in ("ann", "bob"):
            assert await listeners[name].receive() == "41"
            assert not sockets[name].connected
            assert sockets[name].rooms == frozenset()
        assert len(io._core.sessions.table) == 4  # They may ask again.
        assert len(await io.fetch_sockets()) == 2
        io.emit("hello", 1)
        del listeners["ann"], listeners["bob"]
        await hear(io, listeners, "eve joe")


async def test_connections_of_a_room_are_ended(io: Server, transport: str) -> None:
    async with four(io, transport) as (listeners, _):
        io.in_("news").disconnect_sockets(close=True)
        assert len(io._core.sessions.table) == 2
        for name in ("ann", "bob"):
            await ends(listeners.pop(name).wire)
        io.emit("hello", 1)
        await hear(io, listeners, "eve joe")


async def test_everybody_may_be_disconnected_while_handlers_run_for_each(io: Server) -> None:
    """The list is worked through although every step changes the tables."""
    io.on("disconnect", lambda socket, reason: io.disconnect_sockets(close=True))
    async with four(io, "websocket"):
        io.disconnect_sockets(close=True)
        assert dict(io.of("/").sockets) == {}
        assert not io._core.sessions.table


async def test_a_socket_that_has_gone_does_nothing(io: Server, transport: str) -> None:
    async with client(io, transport) as ann:
        socket = io.of("/").sockets[ann.id]
        socket.disconnect()
        socket.join("news")
        socket.leave("news")
        socket.emit("hello")
        socket.send("hello")
        socket.volatile.emit("hello")
        socket.disconnect(close=True)
        assert (socket.connected, socket.rooms, await io.in_("news").fetch_sockets()) == (False, frozenset(), [])
        assert await ann.receive() == "41"
        assert len(io._core.sessions.table) == 1


# From other threads, and from elsewhere.


async def test_an_event_may_be_emitted_from_another_thread(io: Server, transport: str) -> None:
    """Such as that of a plain `def` endpoint: the order is kept, and all of it happens on the loop of the sockets."""
    threads: set[int] = set()

    async with client(io, transport) as ann:
        connection = connection_of(io.of("/").sockets[ann.id])
        flush = connection.transport.flush

        class Watched:
            """Notes in which thread the transport is used."""

            def __getattr__(self, name: str) -> Any:
                return getattr(transport_, name)

            def write(self, packet: Encoded) -> bool:
                threads.add(threading.get_ident())
                return transport_.write(packet)

            def flush(self) -> None:
                threads.add(threading.get_ident())
                flush()

        transport_ = connection.transport
        connection.transport = Watched()

        def elsewhere() -> None:
            for number in range(50):
                io.emit("number", number)
                io.to("user:ann").except_("nobody").emit("again", number)

        await asyncio.to_thread(elsewhere)
        connection.transport = transport_
        transport_.flush()
        for number in range(50):
            assert await ann.hear() == ["number", number]
            assert await ann.hear() == ["again", number]
    assert threads == {threading.get_ident()}


async def test_an_emit_from_another_thread_is_checked_there(io: Server) -> None:
    async with client(io, "websocket") as ann:
        with pytest.raises(TypeError):
            await asyncio.to_thread(io.emit, "hello", object())
        with pytest.raises(ConfigurationError):
            await asyncio.to_thread(io.emit, "connect")
        await ann.hears_nothing_before(io)


def test_an_event_may_be_emitted_when_nobody_is_connected_and_no_loop_runs(io: Server) -> None:
    io.emit("hello")
    io.to("news").emit("hello")


def test_an_event_may_be_emitted_after_the_loop_of_the_sockets_has_ended(io: Server) -> None:
    """A server that is a global of its module outlives many an event loop in a test suite."""

    async def come_and_go() -> None:
        async with client(io, "websocket"):
            pass
        await assert_nothing_left(io)

    async def emit() -> None:
        io.emit("hello")

    asyncio.run(come_and_go())
    io.emit("hello")
    asyncio.run(emit())
    asyncio.run(come_and_go())


# Dynamic namespaces.


async def test_a_dynamic_namespace_is_there_while_somebody_is_in_it(io: Server, transport: str) -> None:
    rooms = io.of(re.compile(r"/room-\d+"))
    rooms.on("name", lambda socket: socket.namespace.name)
    async with serve(io) as url, session(url, transport) as wire, session(url, transport) as other:
        ann, bob, eve = Client(wire, "/room-1"), Client(other, "/room-1"), Client(other, "/room-22")
        for each in (ann, bob, eve):
            await each.enter()
        assert sorted(rooms.children) == ["/room-1", "/room-22"]
        assert len(rooms.children["/room-1"].sockets) == 2
        assert await ann.ask("name") == ["/room-1"]
        assert await eve.ask("name") == ["/room-22"]
        rooms.emit("all of you")
        for each in (ann, bob, eve):
            assert await each.hear() == ["all of you"]
        rooms.children["/room-1"].to(ann.id).emit("only you")
        assert await ann.hear() == ["only you"]
        assert len(await rooms.fetch_sockets()) == 3
        await ann.wire.send("41/room-1,")
        await until(lambda: len(rooms.children["/room-1"].sockets) == 1)
        await bob.wire.send("41/room-1,")
        await until(lambda: list(rooms.children) == ["/room-22"])
        await bob.enter()
        assert await bob.ask("name") == ["/room-1"]
        await other.send("1")
        await until(lambda: not rooms.children)


async def test_two_who_ask_for_a_dynamic_namespace_meet_there(io: Server, transport: str) -> None:
    rooms = io.of(re.compile("/room-.*"))
    rooms.on("say", lambda socket, text: socket.broadcast.emit("said", text))
    async with clients(io, transport, "ann", "bob", namespace="/room-a") as (ann, bob):
        await ann.emit("say", "hello")
        assert await bob.hear() == ["said", "hello"]


async def test_who_is_refused_leaves_no_dynamic_namespace_behind(io: Server, transport: str) -> None:
    """Otherwise a stranger could fill the memory with names."""
    rooms = io.of(re.compile("/room-.*"))
    seen: list[int] = []

    @rooms.use
    async def closed(socket: Socket) -> None:
        seen.append(len(rooms.children))
        raise Refused("closed")

    async with serve(io) as url, session(url, transport) as wire:
        await wire.send(f'40/room-1,{{"token":"{make_token()}"}}')
        assert await said(wire) == ['44/room-1,{"message":"closed"}']
        assert seen == [1]
        assert rooms.children == {}


async def test_who_leaves_at_the_door_leaves_no_dynamic_namespace_behind(io: Server, transport: str) -> None:
    rooms = io.of(re.compile("/room-.*"))
    reached = asyncio.Event()

    @rooms.use
    async def slow(socket: Socket) -> None:
        reached.set()
        await asyncio.get_running_loop().create_future()

    async with client(io, transport) as ann:
        await ann.wire.send(f'40/room-1,{{"token":"{make_token()}"}}')
        await within(reached.wait())
        assert list(rooms.children) == ["/room-1"]
        await ann.wire.send("41/room-1,")
        await until(lambda: not rooms.children)
        await ann.hears_nothing_before(io)


async def test_a_dynamic_namespace_stays_while_somebody_waits_at_its_door(io: Server, transport: str) -> None:
    """Who is let in later is in the same namespace as who comes then."""
    rooms = io.of(re.compile("/room-.*"))
    reached, opened = asyncio.Event(), asyncio.Event()

    @rooms.use
    async def slow(socket: Socket) -> None:
        if socket.principal.subject == "bob":
            reached.set()
            await opened.wait()

    async with serve(io) as url, session(url, transport) as wire, session(url, transport) as other:
        ann, bob = Client(wire, "/room-1"), Client(other, "/room-1")
        await ann.enter()
        waiting = asyncio.create_task(bob.enter(sub="bob"))
        await within(reached.wait())
        child = rooms.children["/room-1"]
        await ann.wire.send("41/room-1,")
        await until(lambda: not child.sockets)
        assert rooms.children == {"/room-1": child}
        await ann.enter()
        opened.set()
        await within(waiting)
        rooms.emit("hello")
        assert await ann.hear() == await bob.hear() == ["hello"]


async def test_a_namespace_that_is_named_comes_before_those_that_match(io: Server, transport: str) -> None:
    io.of("/room-1").on("which", lambda socket: "named")
    io.of(lambda name: name.startswith("/room-")).on("which", lambda socket: "first")
    io.of(re.compile("/.*")).on("which", lambda socket: "second")
    async with client(io, transport, "/room-1") as ann:
        assert await ann.ask("which") == ["named"]
    async with client(io, transport, "/room-2") as ann:
        assert await ann.ask("which") == ["first"]
    async with client(io, transport, "/other") as ann:
        assert await ann.ask("which") == ["second"]


@pytest.mark.parametrize("name", ["/room-", "/room-1x", "/xroom-1", "/room-1/room-1", "/ROOM-1"])
async def test_a_pattern_must_match_the_whole_name(io: Server, transport: str, name: str) -> None:
    rooms = io.of(re.compile(r"/room-\d"))
    async with serve(io) as url, session(url, transport) as wire:
        await wire.send(f'40{name},{{"token":"{make_token()}"}}')
        assert await said(wire) == [f'44{name},{{"message":"Invalid namespace"}}']
    assert rooms.children == {}


async def test_a_predicate_lets_in_by_true_and_by_nothing_else(io: Server, transport: str) -> None:
    """What merely counts as true, such as a coroutine that nobody awaited, is no yes."""
    io.of(lambda name: "yes")  # type: ignore[arg-type, return-value]
    async with serve(io) as url, session(url, transport) as wire:
        await wire.send(f'40/any,{{"token":"{make_token()}"}}')
        assert await said(wire) == ['44/any,{"message":"Invalid namespace"}']
