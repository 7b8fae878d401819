"""WebSockets and streamed responses that end when their identity ends, as sockets do.

A `Watch` checks whether identities are still valid: when the token expires, when a server revokes tokens or removes
keys, and before every message. A `Stream` sits between an ASGI server and an application, and stops the messages
between them when an identity ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from iogate.asgi_types import ASGIApp, Message, Receive, Scope, Send
from iogate.auth import Principal
from iogate.errors import AuthError, TokenExpired
from iogate.http.guard import Guard

logger = logging.getLogger("iogate")

T = TypeVar("T")

STREAM = "iogate.stream"
"""The key of the `Stream` in the scope of a request, by which all guards of the request share it."""
POLICY_VIOLATION = 1008
"""The close code of a WebSocket that is rejected, or whose identity ends (RFC 6455, section 7.4.1)."""
CLOSE_TIMEOUT = 1.0
"""Seconds to send the close frame, or the end of a response, to the client."""
EVENT_STREAM = b"text/event-stream"


class StreamEnded(OSError):
    """The identity of a stream has ended: messages of the application no longer reach the client."""


class Watch:
    """Check whether the identities of a request are still valid.

    Subclasses define in `_ended` what happens when one is no longer valid.
    """

    __slots__ = ("_identities", "_loop", "_timer", "_watching", "refusal")

    def __init__(self) -> None:
        self.refusal: AuthError | None = None
        """Why the request has ended; None while it has not."""
        self._identities: list[tuple[Guard, Principal, float]] = []
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._watching = False

    def bind(self, guard: Guard, principal: Principal) -> None:
        """End the request when this identity ends, in addition to those bound before."""
        self._identities.append((guard, principal, guard.deadline(principal)))
        if self._watching:
            self.watch()

    def watch(self) -> None:
        """Start the checks."""
        self._watching = True
        for guard, _, _ in self._identities:
            guard.watchers.add(self._changed)
        self._arm()

    def unwatch(self) -> None:
        """Stop the checks: the request is over."""
        self._watching = False
        for guard, _, _ in self._identities:
            guard.watchers.discard(self._changed)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> bool:
        """Check now, and return True if an identity has ended."""
        if self._watching and self.refusal is None:
            for guard, principal, deadline in self._identities:
                if deadline <= guard.auth.clock.monotonic():
                    self.refusal = TokenExpired("the token expired while the connection was open")
                else:
                    self.refusal = guard.refusal(principal)
                if self.refusal is not None:
                    logger.info("disconnected %s from a WebSocket or stream: %s", principal.subject[:100], self.refusal)
                    self.unwatch()
                    self._ended()
                    break
        return self.refusal is not None

    def _changed(self) -> None:
        if asyncio.get_running_loop() is self._loop:
            self.look()
        else:  # The revoking server runs on another event loop.
            self._loop.call_soon_threadsafe(self.look)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = [
            min(deadline - guard.auth.clock.monotonic(), guard.look_every) for guard, _, deadline in self._identities
        ]
        wait = min(left, default=math.inf)
        self._timer = self._loop.call_later(max(wait, 0), self._due) if wait < math.inf else None

    def _due(self) -> None:
        self._timer = None
        if not self.look():
            self._arm()

    def _ended(self) -> None:
        raise NotImplementedError


class TaskWatch(Watch):
    """Cancel the task that serves a WebSocket when its identity ends, if the WebSocket has no `Stream`.

    Args:
        task: the task.
    """

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[object]) -> None:
        super().__init__()
        self._task = task
        task.add_done_callback(lambda _: self.unwatch())

    def _ended(self) -> None:
        self._task.cancel()


class Stream(Watch):
    """A request or a WebSocket between the ASGI server and the application.

    When the identity ends, the client of a WebSocket receives a close frame (1008, with the message of the rejection),
    the application receives `websocket.disconnect`, and its `send` raises `StreamEnded`, an `OSError`. A response ends
    only if it is a stream: one that is sent in several parts without a Content-Length. An event stream is completed, so
    that the browser reconnects. Any other stream is aborted, so that the client does not mistake it for a complete one.

    Args:
        kind: the type of the scope: "http" or "websocket".
        receive: the `receive` function of the ASGI server.
        send: the `send` function of the ASGI server.
        begun: True if the first message of the WebSocket has already been received.
    """

    __slots__ = ("_begun", "_closing", "_event_stream", "_kind", "_receive", "_send", "_waiting")

    def __init__(self, kind: str, receive: Receive, send: Send, *, begun: bool = False) -> None:
        super().__init__()
        self._kind = kind
        self._receive = receive
        self._send = send
        self._begun = begun  # The application always gets the first message of a WebSocket, `websocket.connect`.
        self._event_stream: bool | None = None  # None: the response is not a stream.
        self._waiting: set[asyncio.Timeout] = set()
        self._closing: asyncio.Task[None] | None = None
        if kind == "websocket":
            self.watch()

    async def receive(self) -> Message:
        """Return the next message for the application (ASGI)."""
        if not self._begun and self._kind == "websocket":
            self._begun = True
            return await self._receive()
        if not self.look():
            with suppress(StreamEnded):
                message = await self._unless_ended(self._receive())
                if not self.look():
                    return message
        await self._closed()
        if self._kind == "http":
            return {"type": "http.disconnect"}
        return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": self._reason}

    async def send(self, message: Message) -> None:
        """Send a message of the application (ASGI).

        Raises:
            StreamEnded: the identity has ended, and the message is not `websocket.close`.
        """
        if self._kind == "http" and not self._watching and self.refusal is None:
            self._begin_response(message)
        if not self.look():
            with suppress(StreamEnded):
                await self._unless_ended(self._send(message))
                return
        await self._closed()
        if message["type"] != "websocket.close":
            raise StreamEnded(self._reason)

    def _begin_response(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message.get("headers", ())}
            if b"content-length" not in headers:
                self._event_stream = headers.get(b"content-type", b"").lower().startswith(EVENT_STREAM)
        elif self._event_stream is not None and message.get("more_body", False):
            self.watch()

    async def _unless_ended(self, work: Awaitable[T]) -> T:
        """Await something, unless the stream ends first.

        Raises:
            StreamEnded: the stream ended first.
        """
        deadline = asyncio.timeout(None)
        self._waiting.add(deadline)
        try:
            async with deadline:
                return await work
        except TimeoutError:
            if not deadline.expired():
                raise  # Something else timed out.
            raise StreamEnded(self._reason) from None
        finally:
            self._waiting.discard(deadline)

    def _ended(self) -> None:
        for deadline in self._waiting:  # Stop everything that waits for the client.
            deadline.reschedule(0)
        self._closing = self._loop.create_task(self._close())

    async def _close(self) -> None:
        end: Message = {"type": "websocket.close", "code": POLICY_VIOLATION, "reason": self._reason}
        if self._kind == "http":
            if not self._event_stream:
                return
            end = {"type": "http.response.body", "body": b""}
        with suppress(Exception):  # Each ASGI server raises a different exception if the client has gone.
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._send(end)

    async def _closed(self) -> None:
        """Wait until the end was sent to the client: otherwise the ASGI server might close without sending it."""
        if self._closing is not None:
            await asyncio.wait([self._closing])

    @property
    def _reason(self) -> str:
        return self.refusal.message if self.refusal is not None else ""


class StreamMiddleware:
    """Let the guards behind it end WebSockets and streamed responses.

    `JWTMiddleware` does not need it, and neither does `require` for WebSockets of FastAPI. It is needed for streamed
    responses, such as server-sent events, of endpoints with FastAPI's `require`. It is also needed for everything that
    Starlette's `AuthenticationMiddleware` guards with a `JWTBackend`: put it in front of that.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] not in {"http", "websocket"} or STREAM in scope:
            await self._app(scope, receive, send)
            return
        # Store it in the scope itself, not in a copy: guards redact the URL in the scope for the log of the ASGI
        # server.
        stream = scope[STREAM] = Stream(scope["type"], receive, send)
        try:
            await self._app(scope, stream.receive, stream.send)
        except Exception as error:
            # `StreamEnded` only informs the application of the end; it is not an error of the application.
            if stream.refusal is None or not _tells_of_an_end(error):
                raise
        finally:
            stream.unwatch()
            scope.pop(STREAM, None)  # Avoid a reference cycle with the ASGI server's objects.
            await stream._closed()


def _tells_of_an_end(error: BaseException) -> bool:
    """Return True for an error that `Stream.send` raised, or that a framework raised because of it."""
    return isinstance(error, StreamEnded) or isinstance(error.__cause__ or error.__context__, StreamEnded)
