"""What an application may register, what it is told when it may not, and how a handler is seen."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import pytest

from iogate import ConfigurationError, Event, Server, Socket
from iogate.protocol.socketio.packets import RESERVED_EVENTS
from iogate.server.namespaces.handlers import GATE_EVENTS, CallNext, Handler, Handlers


@pytest.fixture
def handlers() -> Handlers:
    return Handlers("/chat")


def plain(socket: Any, text: str, times: int = 1) -> None:
    """One argument, or two."""


async def waiting(socket: Any, text: str, times: int = 1) -> None:
    """The same, asynchronous."""


class Room:
    """Handlers that are not functions."""

    def plain(self, socket: Any, text: str, times: int = 1) -> None:
        """A bound method."""

    async def waiting(self, socket: Any, text: str, times: int = 1) -> None:
        """An asynchronous one."""

    @staticmethod
    async def static(socket: Any, text: str, times: int = 1) -> None:
        """One without a self."""

    @classmethod
    async def of_class(cls, socket: Any, text: str, times: int = 1) -> None:
        """One of the class."""


class Plain:
    def __call__(self, socket: Any, text: str, times: int = 1) -> None:
        """An object that can be called."""


class Waiting:
    async def __call__(self, socket: Any, text: str, times: int = 1) -> None:
        """An object that can be called and awaited."""


async def injected(database: Any, socket: Any, text: str, times: int = 1) -> None:
    """One with something of the application's own in front."""


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (plain, False),
        (lambda socket, text, times=1: None, False),
        (Room().plain, False),
        (Plain(), False),
        (functools.partial(plain), False),
        (waiting, True),
        (Room().waiting, True),
        (Room.static, True),
        (Room.of_class, True),
        (Waiting(), True),
        (functools.partial(waiting), True),
        (functools.partial(injected, object()), True),
        (functools.partial(functools.partial(injected, object())), True),
        (functools.partial(Waiting()), True),
    ],
)
def test_every_kind_of_callable_is_seen_for_what_it_is(function: Callable[..., Any], is_async: bool) -> None:
    handler = Handler(function)
    assert handler.is_async is is_async
    assert [count for count in range(6) if handler.takes(count)] == [2, 3]


@pytest.mark.parametrize(
    ("function", "counts"),
    [
        (lambda socket: None, [1]),
        (lambda socket, *args: None, [1, 2, 3, 4]),
        (lambda *args: None, [0, 1, 2, 3, 4]),
        (lambda socket, a, b=1, *args: None, [2, 3, 4]),
        (lambda socket, a=1, /, b=2: None, [1, 2, 3]),
        (lambda socket, *, at_least=1: None, [1]),
        (lambda socket, **kwargs: None, [1]),
        (functools.partial(plain, times=2), [2]),
        (print, [0, 1, 2, 3, 4]),
        (dict, [0, 1, 2, 3, 4]),  # Its signature cannot be known: it is for the call to say.
    ],
)
def test_a_handler_takes_as_many_arguments_as_its_function(function: Callable[..., Any], counts: list[int]) -> None:
    handler = Handler(function)
    assert [count for count in range(5) if handler.takes(count)] == counts


def test_a_handler_shows_the_name_of_its_function(handlers: Handlers) -> None:
    assert repr(Handler(Room().waiting)) == "Room.waiting"
    assert "partial" in repr(Handler(functools.partial(plain)))


# Registering.


def test_on_returns_the_function_itself() -> None:
    io = Server(auth=None)
    assert io.on("a")(plain) is plain
    assert io.on("b", plain) is plain
    assert io.of("/admin").on("a")(waiting) is waiting
    assert io.of(re.compile("/room-.*")).on("a")(waiting) is waiting


def test_use_and_use_event_return_the_function_itself() -> None:
    io = Server(auth=None)

    async def middleware(socket: Socket) -> None:
        """Let everybody pass."""

    async def around(socket: Socket, event: Event, call_next: CallNext) -> Any:
        return await call_next(event)

    assert io.use(middleware) is middleware
    assert io.use_event(around) is around
    assert io.handlers.connect_middleware == [middleware]
    assert io.handlers.event_middleware == [around]


def test_what_is_registered_for_the_server_is_for_the_root_namespace_alone() -> None:
    io = Server(auth=None)
    io.on("a", plain)
    assert io.of("/").handlers is io.handlers
    assert io.of("/admin").handlers.find("a") == (None, True)


@pytest.mark.parametrize("event", sorted(GATE_EVENTS | RESERVED_EVENTS - {"connect", "disconnect"}))
def test_a_reserved_event_has_no_handler_and_is_not_emitted(event: str) -> None:
    io = Server(auth=None)
    message = f"the event '{event}' is reserved; choose another name for yours"
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        io.on(event, lambda socket, *args: None)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        io.emit(event)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        io.of("/admin").to("room").volatile.emit(event, 1)


@pytest.mark.parametrize("event", ["connect", "disconnect"])
def test_connect_and_disconnect_have_handlers_and_are_not_emitted(event: str) -> None:
    io = Server(auth=None)
    io.on(event, lambda *args: None)
    with pytest.raises(ConfigurationError, match="is reserved"):
        io.emit(event)


def test_an_event_has_one_handler(handlers: Handlers) -> None:
    handlers.add("a", plain)
    with pytest.raises(ConfigurationError, match=r"'a' in /chat has the handler plain: do both things in one"):
        handlers.add("a", waiting)
    assert handlers.events["a"].function is plain


@pytest.mark.parametrize(
    ("event", "function", "arguments"),
    [
        ("message", lambda: None, "(socket)"),
        ("*", lambda: None, "(socket, event)"),
        ("*", lambda socket: None, "(socket, event)"),
        ("connect", lambda: None, "(socket)"),
        ("connect", lambda socket, more: None, "(socket)"),
        ("disconnect", lambda socket: None, "(socket, reason)"),
        ("disconnect", lambda socket, reason, more: None, "(socket, reason)"),
    ],
)
def test_a_handler_that_could_never_be_called_is_refused(
    handlers: Handlers, event: str, function: Callable[..., Any], arguments: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"of '{event}' must take {arguments}")):
        handlers.add(event, function)
    assert handlers.events == {}


@pytest.mark.parametrize("event", ["message", "connect"])
def test_a_handler_with_an_argument_that_nobody_gives_is_refused(handlers: Handlers, event: str) -> None:
    async def function(socket: Any, *, database: Any) -> None:
        """Nobody passes `database`."""

    with pytest.raises(ConfigurationError, match="'database'"):
        handlers.add(event, function)


@pytest.mark.parametrize("handler", ["relay", 1, object()])
def test_a_handler_that_cannot_be_called_is_refused(handlers: Handlers, handler: Any) -> None:
    with pytest.raises(ConfigurationError, match="'message' is no function"):
        handlers.add("message", handler)


def test_a_decorator_without_the_name_of_the_event_is_refused() -> None:
    """`@io.on` alone would register nothing, and nobody would notice."""
    io = Server(auth=None)
    with pytest.raises(ConfigurationError, match=re.escape('write @io.on("message")')):
        io.on(plain)  # type: ignore[call-overload]


@pytest.mark.parametrize("middleware", ["closed", None, 1])
def test_middleware_that_cannot_be_called_is_refused(middleware: Any) -> None:
    with pytest.raises(ConfigurationError, match="middleware"):
        Server(auth=None).use(middleware)


@pytest.mark.parametrize("middleware", [lambda socket, event, call_next: None, Plain(), "timed", None])
def test_event_middleware_that_cannot_await_is_refused(middleware: Any) -> None:
    io = Server(auth=None)
    with pytest.raises(ConfigurationError, match=r"event middleware is async def: it awaits call_next\(event\)"):
        io.use_event(middleware)
    assert io.handlers.event_middleware == []


def test_event_middleware_may_be_any_callable_that_can_be_awaited() -> None:
    class Timed:
        async def __call__(self, socket: Socket, event: Event, call_next: CallNext) -> Any:
            return await call_next(event)

    io = Server(auth=None)
    middleware: list[Callable[..., Any]] = [Timed(), Timed().__call__, functools.partial(Timed())]
    for each in middleware:
        assert io.use_event(each) is each
    assert io.handlers.event_middleware == middleware


# Finding.


def test_a_handler_is_found_by_name_and_the_catch_all_for_the_rest(handlers: Handlers) -> None:
    assert handlers.find("a") == (None, True)
    handlers.add("*", lambda socket, event, *args: None)
    handlers.add("a", plain)
    assert handlers.find("a") == (handlers.events["a"], False)
    assert handlers.find("b") == (handlers.events["*"], True)
    assert handlers.find("") == (handlers.events["*"], True)


@pytest.mark.parametrize("event", sorted(GATE_EVENTS))
def test_the_catch_all_does_not_see_what_belongs_to_the_gate(handlers: Handlers, event: str) -> None:
    handlers.add("*", lambda socket, event, *args: None)
    assert handlers.find(event) == (None, True)


def test_an_event_named_like_the_catch_all_is_given_to_it_with_its_name(handlers: Handlers) -> None:
    """Otherwise a client could make it take its first argument for the name of the event."""
    handlers.add("*", lambda socket, event, *args: None)
    assert handlers.find("*") == (handlers.events["*"], True)


def test_an_event_shows_no_arguments() -> None:
    assert repr(Event("login", ("ann", "a password"))) == "<Event 'login', 2 arguments>"
