"""What an application registers: event handlers, connect middleware, event middleware."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from iogate.errors import ConfigurationError
from iogate.printable import printable
from iogate.protocol.socketio.packets import RESERVED_EVENTS
from iogate.server.namespaces.scopes import Scopes, parse_scopes

if TYPE_CHECKING:
    from iogate.server.namespaces.socket import Socket

CONNECT, DISCONNECT, REFRESH, ANY = "connect", "disconnect", "refresh", "*"

GATE_EVENTS = frozenset({"authenticate", "authenticated", "unauthorized", "token_expiring", "forbidden"})
"""Events that belong to the gate: an application neither handles nor emits them."""

LIFECYCLE = frozenset({CONNECT, DISCONNECT, REFRESH})
"""Handlers that the life of a socket calls, and no packet."""
NOT_FOR_CLIENTS = LIFECYCLE | {ANY}

GIVEN = {
    DISCONNECT: ("socket", "reason"),
    REFRESH: ("socket", "old", "new"),
    ANY: ("socket", "event"),
}
"""What a handler is given, where that is not `socket` and the arguments of the event."""

F = TypeVar("F", bound=Callable[..., Any])


class Event:
    """An event that a client sent, as event middleware sees it.

    Args:
        name: its name.
        args: its arguments; a middleware may pass others on.
    """

    __slots__ = ("args", "name")

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name = name
        self.args = args

    def __repr__(self) -> str:
        return f"<Event {printable(repr(self.name))}, {len(self.args)} arguments>"


ConnectMiddleware = Callable[["Socket"], Awaitable[None] | None]
CallNext = Callable[[Event], Awaitable[Any]]
EventMiddleware = Callable[["Socket", Event, CallNext], Awaitable[Any]]


class Handler:
    """A function, and what the dispatcher needs to know of it without looking each time."""

    __slots__ = ("function", "is_async", "lacks", "least", "most", "scopes")

    def __init__(self, function: Callable[..., Any], scopes: frozenset[str] = frozenset()) -> None:
        self.function = function
        self.scopes = scopes
        self.is_async = _is_async(function)
        self.least, self.most, self.lacks = _arguments(function)

    def takes(self, count: int) -> bool:
        """Say whether the function can be called with this many arguments."""
        return self.least <= count <= self.most

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


class Handlers:
    """The handlers and middleware of a namespace, or of all namespaces that match a pattern.

    `direct` has those events that need no more than a call: no scopes to look at, and no middleware to go through.
    """

    __slots__ = ("connect_middleware", "direct", "event_middleware", "events", "namespace")

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.events: dict[str, Handler] = {}
        self.direct: dict[str, Handler] = {}
        self.connect_middleware: list[ConnectMiddleware] = []
        self.event_middleware: list[EventMiddleware] = []

    def add(self, event: str, function: Callable[..., Any], scopes: Scopes = ()) -> None:
        """Register the handler of an event, for sockets whose tokens have these scopes.

        Raises:
            ConfigurationError: the event is reserved, has a handler already, or the function cannot be called with
                what a handler of it is given.
        """
        if not callable(function):
            raise ConfigurationError(f"what is registered for {event!r} is no function")
        if event in GATE_EVENTS or (event in RESERVED_EVENTS and event not in (CONNECT, DISCONNECT)):
            raise ConfigurationError(f"the event {event!r} is reserved; choose another name for yours")
        if event in self.events:
            raise ConfigurationError(
                f"{event!r} in {self.namespace} has the handler {self.events[event]!r}: do both things in one"
            )
        handler = Handler(function, parse_scopes(scopes))
        if handler.scopes and event in LIFECYCLE:
            raise ConfigurationError(f"{event!r} is no event of clients: scopes belong to io.of(name, scopes=...)")
        given = GIVEN.get(event, ("socket",))
        if handler.most < len(given) or (event in LIFECYCLE and not handler.takes(len(given))):
            raise ConfigurationError(f"the handler {handler!r} of {event!r} must take ({', '.join(given)})")
        if handler.lacks is not None:
            raise ConfigurationError(f"nobody gives the handler {handler!r} of {event!r} a {handler.lacks!r}")
        self.events[event] = handler
        if not (handler.scopes or self.event_middleware or event in NOT_FOR_CLIENTS):
            self.direct[event] = handler

    def surround(self, middleware: EventMiddleware) -> None:
        """Register event middleware."""
        self.event_middleware.append(middleware)
        self.direct.clear()

    def find(self, event: str) -> tuple[Handler | None, bool]:
        """Return the handler of an event that a client sent, and whether it is the one for all others."""
        handler = self.events.get(event)
        if handler is not None and event not in NOT_FOR_CLIENTS:
            return handler, False
        # What belongs to the gate may hold a token: it does not end in a handler that logs whatever comes.
        return (None if event in GATE_EVENTS else self.events.get(ANY)), True


class Registers:
    """The registration methods that a server and its namespaces share."""

    __slots__ = ()

    handlers: Handlers
    """What has been registered."""

    @overload
    def on(self, event: str, *, scopes: Scopes = ()) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, handler: F, *, scopes: Scopes = ()) -> F: ...
    def on(self, event: str, handler: F | None = None, *, scopes: Scopes = ()) -> F | Callable[[F], F]:
        """Register a handler, as a decorator (`@io.on("message")`) or by a call (`io.on("message", relay)`).

        - `connect`: `handler(socket)`, once, when the gate has let the socket in and the client has been told.
          Events of the client may be handled while it still waits: what they rely on belongs in middleware (`use`).
          If it raises, the socket is disconnected.
        - `disconnect`: `handler(socket, reason)`, once.
        - `refresh`: `handler(socket, old, new)`, when another token has taken the place of the one there was: the two
          principals. `old` is None for what was a guest. The `connect` handler does not run again.
        - `*`: `handler(socket, event, *args)`, for every event without a handler of its own.
        - any other name: `handler(socket, *args)`. What it returns is the acknowledgement, if the client asked for
          one: None has no arguments, a tuple has several.

        A handler is `async def`, or a plain function, which runs on the event loop and must not block. One that
        raises is logged, and the client's acknowledgement says no more than that it failed.

        Args:
            event: the name.
            handler: the function.
            scopes: scopes that the token of the sender must have, all of them: a name, several with spaces between
                them, or a list. Who lacks one is sent `forbidden`, and the handler is not run.

        Raises:
            ConfigurationError: the name is reserved or taken, or the handler takes other arguments.
        """
        if not isinstance(event, str):
            raise ConfigurationError('a handler is registered by the name of its event: write @io.on("message")')
        if handler is not None:
            self.handlers.add(event, handler, scopes)
            return handler

        def decorate(function: F) -> F:
            self.handlers.add(event, function, scopes)
            return function

        return decorate

    def use(self, middleware: F) -> F:
        """Register connect middleware: `middleware(socket)`, sync or async, in the order of registration.

        It runs after the verdict on the token and before the client is let in. It lets pass by returning, and
        refuses by raising `Refused(message, data)`, which the client reads in `connect_error`; any other exception
        refuses too, and tells the client nothing.

        Raises:
            ConfigurationError: it is no function.
        """
        if not callable(middleware):
            raise ConfigurationError("connect middleware is a function: it takes (socket)")
        self.handlers.connect_middleware.append(middleware)
        return middleware

    def use_event(self, middleware: F) -> F:
        """Register event middleware: `async def middleware(socket, event, call_next)`, around every handler.

        It returns the acknowledgement, as a rule `await call_next(event)`. Raising `Refused(message, data)` answers
        the acknowledgement with `{"error": {"message", "data"}}`; the handler is not run unless `call_next` was.
        `call_next` raises `Disconnected` if the client has left, expired or been revoked meanwhile.

        Raises:
            ConfigurationError: it is not `async def`.
        """
        if not _is_async(middleware):
            raise ConfigurationError("event middleware is async def: it awaits call_next(event)")
        self.handlers.surround(middleware)
        return middleware


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _arguments(function: Callable[..., Any]) -> tuple[int, float, str | None]:
    """Return how many positional arguments a function takes, at least and at most, and a named one it insists on."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # Some functions written in C do not tell.
        return 0, float("inf"), None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    least = sum(1 for p in positional if p.default is p.empty)
    lacks = next((p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty), None)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return least, float("inf"), lacks
    return least, len(positional), lacks
