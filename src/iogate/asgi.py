"""The ASGI application: requests for the Socket.IO path go to the transports, all others to another application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from iogate.asgi_types import DENIAL, MESSAGE_LIMIT, ASGIApp, Message, Receive, Scope, Send
from iogate.protocol.engineio.handshake import RequestError
from iogate.server.compression import CompressionWarning
from iogate.server.core import Core
from iogate.server.requests import JSON, Answer, Request, admit_request, is_for, upgrade_target
from iogate.server.server import Server, core_of
from iogate.server.session.handshake import Handshake, hidden_from_log, hide
from iogate.server.session.reasons import CloseReason
from iogate.transports.polling import PollingTransport, TooLarge
from iogate.transports.websocket import WebSocketTransport

if TYPE_CHECKING:
    from iogate.server.gate.connection import Connection

TEXT = (b"content-type", b"text/plain; charset=UTF-8")
GOING_AWAY_TIMEOUT = 1.0
"""Seconds to send the close frame to a client when the ASGI server cancels the task of its WebSocket."""
WEBSOCKET_ONLY = b'{"code":0,"message":"Transport unknown: only websocket is served here"}'
"""The response body for polling requests where long-polling is off, with the error code of the reference server."""


class SocketIOApp:
    """A server as an ASGI application.

    Args:
        server: the server.
        other: the application that receives all requests for other paths; None answers them with 404.
    """

    __slots__ = ("_compression", "_other", "_termination", "server")

    polling: ClassVar[bool] = True
    """True if long-polling is served. A worker that shares its port receives only some of a client's requests."""

    def __init__(self, server: Server, other: ASGIApp | None = None) -> None:
        self.server = server
        self._other = other
        self._compression = CompressionWarning()
        self._termination: asyncio.Task[None] | None = None

    @property
    def core(self) -> Core:
        """The parts of the server."""
        return core_of(self.server)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif is_for(self.core, scope):
            await self._serve(scope, receive, send)
        elif self._other is not None:
            await self._other(hidden_from_log(scope, self.core.hidden_parameters), receive, send)
        else:
            # A request for a wrong path may still contain a token in its URL, which the ASGI server logs.
            hide(scope, self.core.hidden_parameters)
            await _answer(scope, send, Answer(404, b"Not Found", [TEXT]))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._watch_termination(send)
        request = admit_request(self.core, scope)
        if isinstance(request, Answer):
            await _answer(scope, send, request)
        elif scope["type"] == "websocket":
            try:
                await self._websocket(request.handshake, scope, receive, send)
            except asyncio.CancelledError:
                # The ASGI server is shutting down. Without this, hypercorn would close with an internal error (1011).
                with suppress(Exception):
                    async with asyncio.timeout(GOING_AWAY_TIMEOUT):
                        await send({"type": "websocket.close", "code": CloseReason.SERVER_SHUTDOWN.code})
                raise
        elif not self.polling:
            await _answer(scope, send, Answer(400, WEBSOCKET_ONLY, [JSON, *request.cors]))
        else:
            await _answer(scope, send, await self._polling(request, scope["method"], receive))

    def _watch_termination(self, send: Send) -> None:
        """Shut the server down as soon as hypercorn begins to shut down.

        hypercorn sends `lifespan.shutdown` only after all requests have ended or its `graceful_timeout` has passed and
        they were cancelled. Since Python 3.12, it also waits until all clients have disconnected.
        """
        wait, watching = _termination_of(send), self._termination
        if wait is None or (
            watching is not None and not watching.done() and watching.get_loop() is asyncio.get_running_loop()
        ):
            return

        async def shutdown() -> None:
            await wait()
            await self.server.shutdown()

        self._termination = asyncio.create_task(shutdown())

    async def _polling(self, request: Request, method: str, receive: Receive) -> Answer:
        transport = self._polled(request.handshake)
        if isinstance(transport, RequestError):
            return Answer.to(transport, request.cors)
        if method == "GET":
            payload = await transport.get(receive)
            if payload is not None:
                return Answer(200, payload, [TEXT, *request.cors])
        else:
            try:
                if await transport.post(receive):
                    return Answer(200, b"ok", [TEXT, *request.cors])
            except TooLarge:
                return Answer(413, headers=request.cors)
        return Answer.to(RequestError.BAD_REQUEST, request.cors)

    def _polled(self, handshake: Handshake) -> PollingTransport | RequestError:
        """Return the transport for a polling request. A request without a session id opens a new session."""
        sid = handshake.query.get("sid")
        if sid is None:
            connection = self.core.open(handshake)
            polling = PollingTransport(connection)
            connection.begin(polling, upgrades=["websocket"])
            return polling
        found = self.core.sessions.find(sid)
        if found is None:
            return RequestError.UNKNOWN_SID
        transport = found.transport
        return transport if isinstance(transport, PollingTransport) else RequestError.BAD_REQUEST

    async def _websocket(self, handshake: Handshake, scope: Scope, receive: Receive, send: Send) -> None:
        self._compression.check(scope, receive)
        connection: Connection | None = None

        def limit() -> tuple[int, bool]:
            if connection is None:
                return self.core.settings.max_unverified, False
            return connection.max_frame, connection.socketio.admitted

        scope.get("extensions", {}).get(MESSAGE_LIMIT, lambda _: None)(limit)
        await receive()  # websocket.connect
        polled = upgrade_target(self.core, handshake)
        if isinstance(polled, Answer):
            await _answer(scope, send, polled)
            return
        await send({"type": "websocket.accept"})
        if polled is not None:
            if isinstance(upgrade_target(self.core, handshake), Answer):  # Another upgrade won.
                await send({"type": "websocket.close", "code": CloseReason.PARSE_ERROR.code})
            else:
                connection = polled
                transport = WebSocketTransport(polled, send)
                transport.upgrade()
                await transport.run(receive)
        elif self.core.sessions.closing:  # The server began to close meanwhile, so it would miss this connection.
            await send({"type": "websocket.close", "code": CloseReason.SERVER_SHUTDOWN.code})
        else:
            connection = self.core.open(handshake)
            transport = WebSocketTransport(connection, send)
            connection.begin(transport)
            await transport.run(receive)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        first: Message | None = None

        async def received() -> Message:
            nonlocal first
            message = await receive()
            first = first or message
            if message["type"] == "lifespan.startup":
                self._compression.check(scope, receive)
                try:
                    self.server.start()
                    await self.server.ready()
                except Exception as error:
                    await self.server.shutdown()
                    # Send the failure too: on an exception alone, servers assume that the application has no lifespan.
                    await sent({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            elif message["type"] == "lifespan.shutdown":
                if self._termination is not None:
                    self._termination.cancel()
                await self.server.shutdown()
            return message

        answered = False

        async def sent(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        if self._other is not None:
            try:
                await self._other(scope, received, sent)
            except Exception:
                if answered:
                    raise
            if answered:
                return
        # There is no other application, or it does not support the lifespan protocol.
        if first is None:
            await received()
        await send({"type": "lifespan.startup.complete"})
        await received()
        await send({"type": "lifespan.shutdown.complete"})


def _termination_of(send: Send) -> Callable[[], Awaitable[object]] | None:
    """Return a function that waits until hypercorn begins to shut down; None for any other ASGI server."""
    stream = getattr(send, "__self__", None)
    if not type(stream).__module__.startswith("hypercorn."):
        return None
    event = getattr(getattr(stream, "context", None), "terminated", None)
    wait: Callable[[], Awaitable[object]] | None = getattr(event, "wait", None)
    return wait


async def _answer(scope: Scope, send: Send, answer: Answer) -> None:
    """Answer an HTTP request, or reject a WebSocket with this answer if the ASGI server supports that."""
    prefix = "http.response"
    if scope["type"] == "websocket":
        if DENIAL not in scope.get("extensions", {}):
            await send({"type": "websocket.close"})  # The ASGI server answers 403.
            return
        prefix = DENIAL
    fields = [*answer.headers, (b"content-length", b"%d" % len(answer.body)), (b"cache-control", b"no-store")]
    await send({"type": f"{prefix}.start", "status": answer.status, "headers": fields})
    await send({"type": f"{prefix}.body", "body": answer.body})
