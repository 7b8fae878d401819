"""From an event of a client to its handler and back, over real transports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from iogate import Event, Refused, Server, Socket
from iogate.server.namespaces.handlers import GATE_EVENTS, CallNext
from tests.conformance.wire import ends, polling, websocket, within
from tests.server.left import until
from tests.server.talk import Client, client, clients
from tests.servers import make_server, make_token, serve

FAILED = [{"error": {"code": "internal_error", "message": "The event could not be handled"}}]
BAD_ARGUMENTS = [{"error": {"code": "bad_arguments", "message": "The event does not take these arguments"}}]


@pytest.fixture
def io() -> Server:
    return make_server()


@pytest.fixture
def failures(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged as an error."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# What a handler gets, and what it returns.


RESULTS: list[tuple[Any, list[Any]]] = [
    (None, []),
    ("one", ["one"]),
    (0, [0]),
    ([], [[]]),
    ([1, 2], [[1, 2]]),
    ({"a": [True, None]}, [{"a": [True, None]}]),
    ((), []),
    (("one", 2), ["one", 2]),
    ((None,), [None]),
]


@pytest.mark.parametrize(("result", "arguments"), RESULTS)
async def test_what_a_handler_returns_is_the_acknowledgement(
    io: Server, transport: str, result: Any, arguments: list[Any]
) -> None:
    @io.on("waiting")
    async def waiting(socket: Socket) -> Any:
        return result

    io.on("plain", lambda socket: result)
    async with client(io, transport) as ann:
        assert await ann.ask("waiting") == arguments
        assert await ann.ask("plain") == arguments


async def test_a_handler_gets_the_arguments_one_by_one(io: Server, transport: str) -> None:
    @io.on("message")
    async def message(socket: Socket, *args: Any) -> Any:
        return socket.id, list(args)

    async with client(io, transport) as ann:
        assert await ann.ask("message") == [ann.id, []]
        assert await ann.ask("message", 1, "two", [3], {"four": None}) == [ann.id, [1, "two", [3], {"four": None}]]


async def test_binary_arguments_and_results_are_bytes(io: Server, transport: str) -> None:
    heard: list[Any] = []

    @io.on("upload")
    async def upload(socket: Socket, name: str, data: bytes) -> Any:
        heard.append((name, data))
        return data[::-1]

    async with client(io, transport) as ann:
        await ann.wire.send('451-7["upload","a",{"_placeholder":true,"num":0}]', b"\x00\x01\xff")
        assert await ann.receive() == '461-7[{"_placeholder":true,"num":0}]'
        assert await within(ann.wire.receive()) == b"\xff\x01\x00"
    assert heard == [("a", b"\x00\x01\xff")]


async def test_an_event_without_an_acknowledgement_is_not_answered(io: Server, transport: str) -> None:
    io.on("message", lambda socket: "nobody asked")
    async with client(io, transport) as ann:
        await ann.emit("message")
        await ann.hears_nothing_before(io)


async def test_an_event_without_a_handler_is_not_answered(io: Server, transport: str) -> None:
    async with client(io, transport) as ann:
        await ann.wire.send('427["nobody handles this"]')
        await ann.hears_nothing_before(io)


async def test_each_namespace_has_handlers_of_its_own(io: Server, transport: str) -> None:
    io.on("where", lambda socket: "root")
    io.of("/admin").on("where", lambda socket: socket.namespace.name)
    async with client(io, transport) as ann, client(io, transport, "/admin") as bob:
        assert await ann.ask("where") == ["root"]
        assert await bob.ask("where") == ["/admin"]


# Failures.


@pytest.mark.parametrize("result", [object(), {1, object()}, "\ud800", {object(): 1}, lambda: None])
async def test_a_result_that_has_no_json_is_answered_generically(
    io: Server, transport: str, result: Any, failures: Callable[[], list[str]]
) -> None:
    """Nothing of it reaches the client, all of it the log, and the connection goes on."""
    io.on("plain", lambda socket: result)

    @io.on("waiting")
    async def waiting(socket: Socket) -> Any:
        return result

    async with client(io, transport) as ann:
        assert await ann.ask("plain") == FAILED
        assert await ann.ask("waiting") == FAILED
    assert failures() == ["an event handler of / failed"] * 2


async def test_a_result_that_contains_itself_is_answered_generically(io: Server, transport: str) -> None:
    endless: list[Any] = []
    endless.append(endless)
    io.on("endless", lambda socket: endless)
    io.on("fine", lambda socket: "fine")
    async with client(io, transport) as ann:
        assert await ann.ask("endless") == FAILED
        assert await ann.ask("fine") == ["fine"]


async def test_a_handler_that_raises_is_logged_and_answered_generically(
    io: Server, transport: str, caplog: pytest.LogCaptureFixture, failures: Callable[[], list[str]]
) -> None:
    @io.on("waiting")
    async def waiting(socket: Socket) -> None:
        raise ValueError("the inside of waiting")

    @io.on("plain")
    def plain(socket: Socket) -> None:
        raise KeyError("the inside of plain")

    async with client(io, transport) as ann:
        assert await ann.ask("waiting") == FAILED
        assert await ann.ask("plain") == FAILED
        await ann.emit("plain")
        await ann.hears_nothing_before(io)
    assert failures() == ["an event handler of / failed"] * 3
    assert "the inside of waiting" in caplog.text
    assert "the inside of plain" in caplog.text


async def test_a_handler_that_awaits_what_was_cancelled_has_failed(
    io: Server, transport: str, failures: Callable[[], list[str]]
) -> None:
    """`CancelledError` of its own making is a failure like others: the client is answered, its connection goes on."""

    def cancelled() -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        return future

    io.on("plain", lambda socket: cancelled().result())

    @io.on("waiting")
    async def waiting(socket: Socket) -> None:
        await cancelled()

    async with client(io, transport) as ann:
        assert await ann.ask("plain") == FAILED
        assert await ann.ask("waiting") == FAILED
    assert failures() == ["an event handler of / failed"] * 2


async def test_a_handler_that_refuses_says_why(io: Server, transport: str, failures: Callable[[], list[str]]) -> None:
    @io.on("waiting")
    async def waiting(socket: Socket) -> None:
        raise Refused("not now", data={"code": "later"})

    @io.on("plain")
    def plain(socket: Socket) -> None:
        raise Refused("never")

    async with client(io, transport) as ann:
        assert await ann.ask("waiting") == [{"error": {"message": "not now", "data": {"code": "later"}}}]
        assert await ann.ask("plain") == [{"error": {"message": "never"}}]
    assert failures() == []


async def test_too_few_or_too_many_arguments_are_answered_and_not_passed_on(
    io: Server, transport: str, failures: Callable[[], list[str]]
) -> None:
    """A client cannot fill the log with tracebacks."""
    io.on("plain", lambda socket, a, b=None: "taken")

    @io.on("waiting")
    async def waiting(socket: Socket, a: Any) -> Any:
        return "taken"

    async with client(io, transport) as ann:
        for wrong in (["plain"], ["plain", 1, 2, 3], ["waiting"], ["waiting", 1, 2]):
            assert await ann.ask(*wrong) == BAD_ARGUMENTS
        for right in (["plain", 1], ["plain", 1, 2], ["waiting", 1]):
            assert await ann.ask(*right) == ["taken"]
        await ann.emit("plain")
        await ann.hears_nothing_before(io)
    assert failures() == []


# The handler for all others.


async def test_the_catch_all_gets_what_has_no_handler_with_its_name(io: Server, transport: str) -> None:
    io.on("known", lambda socket, *args: "known")
    io.on("*", lambda socket, event, *args: ["any", event, *args])
    async with client(io, transport) as ann:
        assert await ann.ask("known", 1) == ["known"]
        assert await ann.ask("other", 1, 2) == [["any", "other", 1, 2]]
        assert await ann.ask("") == [["any", ""]]
        assert await ann.ask(5, 1) == [["any", "5", 1]]


@pytest.mark.parametrize("through_middleware", [False, True])
async def test_what_belongs_to_the_gate_never_reaches_the_catch_all(
    io: Server, transport: str, through_middleware: bool
) -> None:
    """It may hold a token; nor can it be smuggled in as the argument of an event that is named like the catch-all."""
    heard: list[Any] = []
    io.on("*", lambda socket, event, *args: heard.append(event))
    if through_middleware:
        io.use_event(_pass_on)
    async with client(io, transport) as ann:
        for event in sorted(GATE_EVENTS - {"authenticate"}):  # That one is answered, by the gate.
            await ann.emit(event, {"token": "a"})
        await ann.ask("*", "authenticate", {"token": "a"})
    assert heard == ["*"]


# Order.


async def test_handlers_begin_in_the_order_of_the_events(io: Server, transport: str) -> None:
    """Those that are `async def`, too: what they do before they wait is done before the next packet is looked at."""
    order: list[str] = []

    @io.on("plain")
    def plain(socket: Socket, name: str) -> None:
        order.append(name)

    @io.on("waiting")
    async def waiting(socket: Socket, name: str) -> None:
        order.append(name)

    io.on("end", lambda socket: list(order))
    async with client(io, transport) as ann:
        names = [f"plain {number}" for number in range(100)]
        await ann.wire.send('42["waiting","first"]', *(f'42["plain","{name}"]' for name in names))
        await ann.wire.send('42["waiting","last"]')
        (seen,) = await ann.ask("end")
        assert seen == ["first", *names, "last"]


async def test_acknowledgements_go_to_the_event_that_asked_for_them(io: Server, transport: str) -> None:
    """Whatever the order in which handlers end."""
    gates = [asyncio.Event() for _ in range(3)]

    @io.on("wait")
    async def wait(socket: Socket, number: int) -> int:
        await gates[number].wait()
        return number * 10

    async with client(io, transport) as ann:
        await ann.wire.send(*(f'42{number}["wait",{number}]' for number in range(3)))
        for number in (2, 0, 1):
            gates[number].set()
            assert await ann.receive() == f"43{number}[{number * 10}]"


async def test_who_has_gone_is_not_answered(io: Server, transport: str) -> None:
    reached, opened = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    @io.on("wait")
    async def wait(socket: Socket) -> str:
        reached.set()
        await opened.wait()
        socket.emit("late")
        ended.append(str(socket.connected))
        return "late"

    async with client(io, transport) as ann:
        await ann.wire.send('427["wait"]')
        await within(reached.wait())
        await ann.wire.send("41")
        await until(lambda: not io.of("/").sockets)
        opened.set()
        await until(lambda: ended)
        await ann.enter()
        await ann.hears_nothing_before(io)
    assert ended == ["False"]


# Event middleware.


async def _pass_on(socket: Socket, event: Event, call_next: CallNext) -> Any:
    return await call_next(event)


async def test_event_middleware_runs_in_order_around_every_handler(io: Server, transport: str) -> None:
    order: list[str] = []

    def named(name: str) -> Callable[[Socket, Event, CallNext], Any]:
        async def middleware(socket: Socket, event: Event, call_next: CallNext) -> Any:
            order.append(f"{name} before {event.name}{event.args}")
            result = await call_next(event)
            order.append(f"{name} after")
            return f"{name}({result})"

        return middleware

    io.use_event(named("first"))
    io.use_event(named("second"))

    @io.on("plain")
    def plain(socket: Socket, a: int) -> str:
        order.append("handler")
        return "done"

    @io.on("waiting")
    async def waiting(socket: Socket, a: int) -> str:
        order.append("handler")
        return "done"

    async with client(io, transport) as ann:
        for event in ("plain", "waiting"):
            assert await ann.ask(event, 1) == ["first(second(done))"]
            assert order == [
                f"first before {event}(1,)",
                f"second before {event}(1,)",
                "handler",
                "second after",
                "first after",
            ]
            order.clear()


async def test_event_middleware_may_change_the_event(io: Server, transport: str) -> None:
    @io.use_event
    async def upper(socket: Socket, event: Event, call_next: CallNext) -> Any:
        event.args = tuple(str(arg).upper() for arg in event.args)
        return await call_next(event)

    @io.use_event
    async def renamed(socket: Socket, event: Event, call_next: CallNext) -> Any:
        return await call_next(Event("new", (*event.args, "more")) if event.name == "old" else event)

    io.on("new", lambda socket, *args: list(args))
    async with client(io, transport) as ann:
        assert await ann.ask("old", "a", "b") == [["A", "B", "more"]]
        assert await ann.ask("new", "a") == [["A"]]


async def test_event_middleware_may_answer_without_the_handler(io: Server, transport: str) -> None:
    ran: list[str] = []

    @io.use_event
    async def cached(socket: Socket, event: Event, call_next: CallNext) -> Any:
        return ("from", "the cache")

    io.on("message", lambda socket: ran.append("handler"))
    async with client(io, transport) as ann:
        assert await ann.ask("message") == ["from", "the cache"]
    assert ran == []


async def test_event_middleware_may_refuse(io: Server, transport: str, failures: Callable[[], list[str]]) -> None:
    ran: list[str] = []

    @io.use_event
    async def limited(socket: Socket, event: Event, call_next: CallNext) -> Any:
        raise Refused("too many events", data={"code": "too_many"})

    io.on("message", lambda socket: ran.append("handler"))
    async with client(io, transport) as ann:
        assert await ann.ask("message") == [{"error": {"message": "too many events", "data": {"code": "too_many"}}}]
        await ann.emit("message")
        await ann.hears_nothing_before(io)
    assert ran == []
    assert failures() == []


async def test_event_middleware_that_fails_is_a_failure_of_the_event(
    io: Server, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []

    @io.use_event
    async def broken(socket: Socket, event: Event, call_next: CallNext) -> Any:
        raise ValueError("the inside")

    io.on("message", lambda socket: ran.append("handler"))
    async with client(io, transport) as ann:
        assert await ann.ask("message") == FAILED
    assert ran == []
    assert "the inside" in caplog.text


async def test_event_middleware_sees_what_handlers_raise(io: Server, transport: str) -> None:
    @io.use_event
    async def softened(socket: Socket, event: Event, call_next: CallNext) -> Any:
        try:
            return await call_next(event)
        except ValueError:
            return "softened"

    @io.on("message")
    def message(socket: Socket) -> None:
        raise ValueError

    async with client(io, transport) as ann:
        assert await ann.ask("message") == ["softened"]
        assert await ann.ask("message", "too many") == BAD_ARGUMENTS
        assert await ann.ask("nobody handles this") == []


async def test_event_middleware_is_for_its_namespace_and_not_for_connect_and_disconnect(
    io: Server, transport: str
) -> None:
    seen: list[str] = []
    admin = io.of("/admin")

    @admin.use_event
    async def watched(socket: Socket, event: Event, call_next: CallNext) -> Any:
        seen.append(event.name)
        return await call_next(event)

    for namespace in (io, admin):
        namespace.on("connect", lambda socket: seen.append("connect"))
        namespace.on("disconnect", lambda socket, reason: seen.append("disconnect"))
        namespace.on("message", lambda socket: None)
    async with client(io, transport) as ann, client(io, transport, "/admin") as bob:
        await ann.ask("message")
        await bob.ask("message")
        await bob.wire.send("41/admin,")
        await until(lambda: "disconnect" in seen)
        assert seen == ["connect", "connect", "message", "disconnect"]


# Connect and disconnect.


async def test_the_connect_handler_runs_once_and_what_it_emits_comes_after_the_acceptance(
    io: Server, transport: str
) -> None:
    ran: list[str] = []

    @io.on("connect")
    async def greet(socket: Socket) -> None:
        ran.append(socket.principal.subject)
        socket.emit("hello", socket.claims["name"])

    async with serve(io) as url, (polling if transport == "polling" else websocket)(url) as wire:
        ann = Client(wire)
        await ann.enter(sub="ann", name="Ann")
        assert await ann.hear() == ["hello", "Ann"]
    assert ran == ["ann"]


async def _refuse_to_greet(socket: Socket) -> None:
    raise ValueError("the inside")


def _refuse_plainly(socket: Socket) -> None:
    raise Refused("not you")


async def _await_what_was_cancelled(socket: Socket) -> None:
    raise asyncio.CancelledError


def _take_what_was_cancelled(socket: Socket) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "handler", [_refuse_to_greet, _refuse_plainly, _await_what_was_cancelled, _take_what_was_cancelled]
)
async def test_a_connect_handler_that_raises_disconnects_the_socket(
    io: Server, transport: str, handler: Callable[[Socket], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody stays connected in a state that nobody meant; the rest of the connection goes on."""
    reasons: list[str] = []
    io.of("/admin").on("connect", handler)
    io.of("/admin").on("disconnect", lambda socket, reason: reasons.append(reason))
    async with client(io, transport) as ann:
        await ann.wire.send(f'40/admin,{{"token":"{make_token()}"}}')
        assert (await ann.receive()).startswith('40/admin,{"sid":')
        assert await ann.receive() == "41/admin,"
        assert dict(io.of("/admin").sockets) == {}
        await ann.hears_nothing_before(io)
    assert reasons == ["server namespace disconnect"]
    assert f"the handler {handler.__name__} of /admin failed" in caplog.text


class Reasons:
    """Notes why sockets of a server are disconnected, and what they were at that moment."""

    def __init__(self, io: Server) -> None:
        self.seen: list[str] = []
        io.on("disconnect", self.note)

    async def note(self, socket: Socket, reason: str) -> None:
        assert not socket.connected
        assert socket.rooms == frozenset()
        assert socket.principal.subject == "ann"
        self.seen.append(reason)

    async def are(self, *expected: str) -> None:
        """Wait for them."""
        await until(lambda: len(self.seen) >= len(expected))
        assert tuple(self.seen) == expected


async def test_a_client_that_leaves_the_namespace(io: Server, transport: str) -> None:
    reasons = Reasons(io)
    async with client(io, transport) as ann:
        await ann.wire.send("41")
        await reasons.are("client namespace disconnect")
    await reasons.are("client namespace disconnect")


async def test_a_client_that_closes_its_session(io: Server, transport: str) -> None:
    reasons = Reasons(io)
    async with client(io, transport) as ann:
        await ann.wire.send("1")
        await reasons.are("transport close")


async def test_a_websocket_that_is_closed(io: Server) -> None:
    reasons = Reasons(io)
    async with client(io, "websocket"):
        pass
    await reasons.are("transport close")


async def test_a_websocket_that_is_cut(io: Server) -> None:
    reasons = Reasons(io)
    async with serve(io) as url, websocket(url) as wire:
        await Client(wire).enter()
        wire.connection.transport.abort()
        await reasons.are("transport close")


async def test_a_poll_that_is_hung_up(io: Server) -> None:
    reasons = Reasons(io)
    async with serve(io) as url, polling(url) as wire:
        await Client(wire).enter()
        poll = asyncio.create_task(wire.get())
        await until(lambda: all(connection.transport.writable for connection in io._core.sessions.table.values()))
        poll.cancel()
        await reasons.are("transport close")


async def test_a_client_that_stays_silent(transport: str) -> None:
    io = make_server(ping_interval=0.1, ping_timeout=0.1)
    reasons = Reasons(io)
    async with client(io, transport):
        await reasons.are("ping timeout")


async def test_a_client_that_breaks_the_grammar(io: Server, transport: str) -> None:
    reasons = Reasons(io)
    async with client(io, transport) as ann:
        await ann.wire.send("4this is no packet")
        await reasons.are("parse error")


async def test_two_polls_at_once(io: Server) -> None:
    reasons = Reasons(io)
    async with serve(io) as url, polling(url) as wire:
        await Client(wire).enter()
        answers = await asyncio.gather(wire.get(), wire.get())
        assert sorted(answer.status_code for answer in answers) == [200, 400]
        await reasons.are("transport error")


async def test_a_socket_that_the_server_sends_away(io: Server, transport: str) -> None:
    reasons = Reasons(io)
    async with client(io, transport) as ann:
        io.of("/").sockets[ann.id].disconnect()
        await reasons.are("server namespace disconnect")
        assert await ann.receive() == "41"
        assert len(io._core.sessions.table) == 1


async def test_a_connection_that_the_server_ends(io: Server, transport: str) -> None:
    reasons = Reasons(io)
    async with client(io, transport) as ann:
        io.of("/").sockets[ann.id].disconnect(close=True)
        await reasons.are("server namespace disconnect")
        await ends(ann.wire)
        assert not io._core.sessions.table


async def test_a_server_that_is_shut_down(io: Server, transport: str) -> None:
    reasons = Reasons(io)
    async with client(io, transport):
        await io.shutdown(timeout=1)
        await reasons.are("server shutting down")


async def test_disconnecting_twice_runs_the_handler_once(io: Server, transport: str) -> None:
    reasons = Reasons(io)
    async with client(io, transport) as ann:
        socket = io.of("/").sockets[ann.id]
        socket.disconnect()
        socket.disconnect()
        socket.disconnect(close=True)
        assert await ann.receive() == "41"
        await ann.wire.send("1")
        await until(lambda: not io._core.sessions.table)
    await reasons.are("server namespace disconnect")


async def test_every_namespace_of_a_connection_hears_of_its_end_once(io: Server, transport: str) -> None:
    seen: list[str] = []
    for name in ("/", "/a", "/b"):
        io.of(name).on("disconnect", lambda socket, reason: seen.append(f"{socket.namespace.name} {reason}"))
    async with client(io, transport) as ann:
        for name in ("/a", "/b"):
            other = Client(ann.wire, name)
            await other.enter()
        await ann.wire.send("1")
        await until(lambda: not io._core.sessions.table)
    assert sorted(seen) == ["/ transport close", "/a transport close", "/b transport close"]


@pytest.mark.parametrize("close", [False, True])
async def test_a_disconnect_handler_may_disconnect_the_other_sockets_of_its_person(
    io: Server, transport: str, close: bool, failures: Callable[[], list[str]]
) -> None:
    """Those of the same connection as well, which are about to go anyway."""
    seen: list[str] = []

    def everywhere(socket: Socket, reason: str) -> None:
        seen.append(socket.namespace.name)
        for name in ("/", "/a", "/b"):
            io.of(name).in_("user:ann").disconnect_sockets(close)

    for name in ("/", "/a", "/b"):
        io.of(name).on("disconnect", everywhere)
    async with client(io, transport) as ann:
        for name in ("/a", "/b"):
            await Client(ann.wire, name).enter()
        await ann.wire.send("1")
        await until(lambda: not io._core.sessions.table)
        await until(lambda: len(seen) == 3)
    assert sorted(seen) == ["/", "/a", "/b"]
    assert failures() == []


@pytest.mark.parametrize("error", [ValueError("the inside"), asyncio.CancelledError("the inside")], ids=repr)
async def test_a_disconnect_handler_that_fails_harms_nobody(
    io: Server, transport: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """The other sockets of the connection are gone too."""

    def broken(socket: Socket, reason: str) -> None:
        raise error

    for name in ("/", "/a"):
        io.of(name).on("disconnect", broken)
    async with client(io, transport) as ann:
        await Client(ann.wire, "/a").enter()
        await ann.wire.send("1")
        await until(lambda: not io._core.sessions.table)
        assert dict(io.of("/").sockets) == dict(io.of("/a").sockets) == {}
    assert caplog.text.count("the handler test_a_disconnect_handler_that_fails_harms_nobody.<locals>.broken of") == 2


async def test_connect_and_disconnect_are_told_of_every_socket(io: Server, transport: str) -> None:
    here: set[str] = set()
    io.on("connect", lambda socket: here.add(socket.principal.subject))
    io.on("disconnect", lambda socket, reason: here.remove(socket.principal.subject))
    async with clients(io, transport, "ann", "bob", "eve") as (_, bob, _):
        assert here == {"ann", "bob", "eve"}
        await bob.wire.send("41")
        await until(lambda: here == {"ann", "eve"})
    assert here == set()


async def test_a_plain_function_that_returns_a_coroutine_is_awaited(io: Server, transport: str) -> None:
    """A lambda, or a decorator that hides the `async def`, is no reason to lose the handler."""

    async def answer(socket: Socket) -> str:
        return "awaited"

    io.on("ask", lambda socket: answer(socket))
    async with client(io, transport) as ann:
        assert await ann.ask("ask") == ["awaited"]
