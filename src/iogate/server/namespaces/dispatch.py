"""From an EVENT packet to the application's handler, and from its result to the acknowledgement.

A handler begins at once, also an `async def` one, which gets a task if it has to wait (`eager.py`). Each runs in a
copy of the context of its connection, so no other client's code sees the context variables that it sets. Without
middleware there is no cost for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from iogate.auth import Principal
from iogate.errors import Disconnected, InsufficientScope, Refused
from iogate.protocol.socketio.json import decode_event
from iogate.protocol.socketio.packets import Packet, PacketType
from iogate.server.namespaces.handlers import CONNECT, DISCONNECT, REFRESH, CallNext, Event, EventMiddleware, Handler
from iogate.server.session.eager import Rest
from iogate.server.session.reasons import CloseReason

if TYPE_CHECKING:
    from iogate.server.namespaces.socket import Socket

logger = logging.getLogger("iogate")

FAILURES = (Exception, asyncio.CancelledError)
"""How a handler fails. Cancelled is also who takes the result of what somebody else has cancelled."""
FAILED = {"error": {"code": "internal_error", "message": "The event could not be handled"}}
"""The acknowledgement of an event whose handler failed. It says nothing of the inside."""
BAD_ARGUMENTS = {"error": {"code": "bad_arguments", "message": "The event does not take these arguments"}}
"""The acknowledgement of an event with too few or too many arguments."""


def dispatch_fast(socket: Socket, frame: bytes) -> bool:
    """Handle an event of the root namespace in the shortest way there is.

    Nearly all events are such. `Connection.receive` and `dispatch` do the same by way of packets and states, for a
    third more of what an event costs.

    Args:
        socket: who sent it.
        frame: a text frame that begins with `42`.

    Returns:
        False if it is left to the general way: what is broken, refused, or handled by something that has no name.
    """
    event = decode_event(frame)
    if event is None:
        return False
    args, ack_id = event
    handler = socket.namespace.handlers.direct.get(args[0])
    if handler is None or not handler.least <= len(args) <= handler.most:
        return False
    args[0] = socket
    _handle(socket, handler, args, ack_id)
    return True


def dispatch(socket: Socket, data: list[Any], ack_id: int | None) -> None:
    """Handle an event.

    Args:
        socket: who sent it.
        data: the name, then the arguments.
        ack_id: the acknowledgement that is asked for, if one is.
    """
    handlers = socket.namespace.handlers
    if handlers.event_middleware:
        event = Event(data[0], tuple(data[1:]))
        _handle(socket, _THROUGH_MIDDLEWARE, [socket, event], ack_id)
        return
    handler, catch_all = handlers.find(data[0])
    if handler is None:
        return
    args = [socket, *data] if catch_all else [socket, *data[1:]]
    if handler.scopes and not handler.scopes <= socket.scopes:
        _acknowledge(socket, ack_id, forbid(socket, data[0], handler.scopes))
    elif not handler.takes(len(args)):
        _acknowledge(socket, ack_id, BAD_ARGUMENTS)
    else:
        _handle(socket, handler, args, ack_id)


def connected(socket: Socket) -> None:
    """Run the connect handler. If it fails, the socket does not stay in a state that nobody meant."""
    _run(socket, CONNECT, (), socket.disconnect)


def disconnected(socket: Socket, reason: CloseReason) -> None:
    """Run the disconnect handler."""
    _run(socket, DISCONNECT, (reason.text,), lambda: None)


def refreshed(socket: Socket, old: Principal | None, new: Principal) -> None:
    """Run the refresh handler."""
    _run(socket, REFRESH, (old, new), lambda: None)


def _run(socket: Socket, event: str, args: tuple[Any, ...], on_failure: Callable[[], None]) -> None:
    handler = socket.namespace.handlers.events.get(event)
    if handler is None:
        return
    try:
        result = _begin(socket, handler, [socket, *args])
    except FAILURES as error:
        _log(socket, handler, error)
        on_failure()
    else:
        if result.__class__ is Rest:
            socket._connection.resume(result, _awaited(socket, handler, result, on_failure))


async def _awaited(socket: Socket, handler: Handler, result: Awaitable[Any], on_failure: Callable[[], None]) -> None:
    try:
        await result
    except FAILURES as error:
        on_failure()
        if _is_cancelled():
            raise
        _log(socket, handler, error)


def _log(socket: Socket, handler: Handler, error: BaseException) -> None:
    logger.error("the handler %r of %s failed", handler, socket.namespace.name, exc_info=error)


def _handle(socket: Socket, handler: Handler, args: list[Any], ack_id: int | None) -> None:
    try:
        if handler.is_async:
            result = _begin(socket, handler, args)
        else:  # What `_begin` does, without a call: nearly all plain handlers come here.
            result = socket._connection.context.copy().run(handler.function, *args)
            if result.__class__ is CoroutineType:
                result = socket._connection.sessions.eager.begin(result, socket._connection.context)
    except FAILURES as error:
        _failed(socket, ack_id, error)
    else:
        if result.__class__ is Rest:
            socket._connection.resume(result, _answered(socket, result, ack_id))
        elif ack_id is not None:
            _acknowledge(socket, ack_id, result)


def _begin(socket: Socket, handler: Handler, args: list[Any]) -> Any:
    """Call a handler; return its result, or a `Rest` if it has to wait."""
    connection = socket._connection
    if handler.is_async:
        return connection.sessions.eager.begin(_coroutine(handler.function(*args)), connection.context)
    result = connection.context.copy().run(handler.function, *args)
    if result.__class__ is CoroutineType:  # Some return a coroutine without `async def`, for example a lambda.
        return connection.sessions.eager.begin(result, connection.context)
    return result


def _coroutine(awaitable: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    return awaitable if isinstance(awaitable, CoroutineType) else _result(awaitable)


async def _result(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _answered(socket: Socket, handling: Awaitable[Any], ack_id: int | None) -> None:
    try:
        result = await handling
    except FAILURES as error:
        if _is_cancelled():
            raise
        _failed(socket, ack_id, error)
    else:
        _acknowledge(socket, ack_id, result)


def _is_cancelled() -> bool:
    """Say whether it is this very task that somebody wants the end of."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _through_middleware(socket: Socket, event: Event) -> Any:
    chain: CallNext = _Innermost(socket)
    for middleware in reversed(socket.namespace.handlers.event_middleware):
        chain = _Around(socket, middleware, chain)
    return await chain(event)


_THROUGH_MIDDLEWARE = Handler(_through_middleware)


class _Around:
    """One middleware, with what comes after it."""

    __slots__ = ("_inner", "_middleware", "_socket")

    def __init__(self, socket: Socket, middleware: EventMiddleware, inner: CallNext) -> None:
        self._socket, self._middleware, self._inner = socket, middleware, inner

    def __call__(self, event: Event) -> Awaitable[Any]:
        _ensure_connected(self._socket, event)
        return self._middleware(self._socket, event, self._inner)


class _Innermost:
    """The handler, as the last middleware sees it."""

    __slots__ = ("_socket",)

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    async def __call__(self, event: Event) -> Any:
        _ensure_connected(self._socket, event)
        handler, catch_all = self._socket.namespace.handlers.find(event.name)
        if handler is None:
            return None
        args = (event.name, *event.args) if catch_all else event.args
        if not handler.scopes <= self._socket.scopes:
            raise _Forbidden(event.name, handler.scopes)
        if not handler.takes(1 + len(args)):
            return BAD_ARGUMENTS
        result = handler.function(self._socket, *args)
        return await result if handler.is_async or type(result) is CoroutineType else result


def _ensure_connected(socket: Socket, event: Event) -> None:
    """Raise `Disconnected` if the client left, expired or was revoked while middleware waited."""
    if not socket.connected:
        raise Disconnected(f"{event.name!r} is not handled: its sender was disconnected while middleware waited")


class _Forbidden(InsufficientScope):
    """An event that came through middleware, and that the sender's token does not allow."""

    def __init__(self, event: str, required: frozenset[str]) -> None:
        super().__init__(required)
        self.event = event


def forbid(socket: Socket, event: str, required: frozenset[str]) -> dict[str, Any]:
    """Tell a client that its token does not allow an event, and return what the acknowledgement is to say."""
    notice = {"event": event, "code": InsufficientScope.code, "required": sorted(required)}
    socket._connection.send_event(socket.namespace.name, "forbidden", notice)
    return {"error": notice}


def _failed(socket: Socket, ack_id: int | None, error: BaseException) -> None:
    if isinstance(error, _Forbidden):
        _acknowledge(socket, ack_id, forbid(socket, error.event, frozenset(error.required)))
        return
    if isinstance(error, Disconnected) and not socket.connected:
        logger.info("%s", error)
        return
    if isinstance(error, Refused):
        _acknowledge(socket, ack_id, {"error": error.payload()})
        return
    logger.error("an event handler of %s failed", socket.namespace.name, exc_info=error)
    _acknowledge(socket, ack_id, FAILED)


def _acknowledge(socket: Socket, ack_id: int | None, result: Any) -> None:
    if ack_id is None or not socket.connected:
        return
    data = [] if result is None else list(result) if isinstance(result, tuple) else [result]
    try:
        packet = socket.namespace.encode(Packet(PacketType.ACK, socket.namespace.name, data, ack_id))
    except Exception as error:  # It has no JSON, for one of many reasons.
        _failed(socket, ack_id, error)
    else:
        socket._connection.send(packet)
