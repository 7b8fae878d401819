"""A server process: load the application, configure uvicorn, serve, and shut down the application first."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

import msgspec
import uvicorn

from iogate.asgi import SocketIOApp
from iogate.asgi_types import ASGIApp
from iogate.errors import ConfigurationError
from iogate.server.server import SHUTDOWN_TIMEOUT, Server
from iogate.serving.options import Options
from iogate.serving.target import named

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes: the largest message on a WebSocket that does not belong to Socket.IO. This is uvicorn's default."""
STARTUP_FAILURE = 3
"""The exit code of a server that could not start, the same as uvicorn's."""
CANCEL_WITHIN = 1.0
"""Seconds that a start may take to end after a signal."""

logger = logging.getLogger("iogate")


class _Uvicorn(uvicorn.Server):
    """uvicorn's server with a different start and a different shutdown.

    uvicorn waits for the application to start, even after a signal; here a signal cancels the start. uvicorn also
    closes connections before it shuts the application down; here the application shuts down first.

    Args:
        config: uvicorn's configuration.
        server: the server in the application, if it is known.
        ready: called when clients can connect.
        supervised: True if the supervisor handles CTRL+C.
    """

    def __init__(
        self, config: uvicorn.Config, server: Server | None, ready: Callable[[], None], *, supervised: bool
    ) -> None:
        super().__init__(config)
        self._server = server
        self._ready = ready
        self._supervised = supervised
        self._starting: asyncio.Task[Any] | None = None
        self._patience: threading.Timer | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.should_exit:
            return
        self._starting = starting = asyncio.current_task()
        try:
            await self._listen(sockets)
        except asyncio.CancelledError:
            if not self.should_exit or starting is None:
                raise
            starting.uncancel()
            await self._cancel_startup()
        finally:
            self._starting = None
            if self._patience is not None:
                self._patience.cancel()
        if self.started:
            self._ready()

    async def _cancel_startup(self) -> None:
        """Let the application clean up after its start was cancelled."""
        logger.info("The start is cancelled by %s.", signal.Signals(self._captured_signals[0]).name)
        self.lifespan.startup_failed = True  # Otherwise uvicorn assumes an application without a lifespan.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=CANCEL_WITHIN)
        if self._server is not None:
            await self._server.shutdown(CANCEL_WITHIN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT and self._supervised:
            return
        if self._starting is not None and self.should_exit:  # The event loop is blocked, or this is a second signal.
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        super().handle_exit(sig, frame)
        if self._starting is not None:
            self._starting.get_loop().call_soon_threadsafe(self._cancel)
            if sys.platform != "win32":
                again = (threading.get_ident(), sig)  # Signal handlers run in the main thread, so this is its ID.
                self._patience = threading.Timer(2 * CANCEL_WITHIN, signal.pthread_kill, again)
                self._patience.daemon = True
                self._patience.start()

    def _cancel(self) -> None:
        if self._starting is not None:
            self._starting.cancel()

    async def _listen(self, sockets: list[socket.socket] | None) -> None:
        context, self.config.ssl = self.config.ssl, None  # The listener accepts plain TCP; TLS starts in the protocol.
        if context is not None:
            from iogate.transports.uvicorn_tls import TLSProtocol

            http: Any = self.config.http_protocol_class
            self.config.http_protocol_class = partial(TLSProtocol, context, http)  # type: ignore[assignment]
        self._context = context
        await super().startup(sockets)

    def _log_started_message(self, listeners: Sequence[socket.SocketType]) -> None:
        self.config.ssl = self._context  # The logged URL depends on it.
        super()._log_started_message(listeners)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        if self._server is not None:
            await self._server.shutdown(SHUTDOWN_TIMEOUT)
        await super().shutdown(sockets)


def load(app: ASGIApp | Server | str) -> ASGIApp:
    """Return the ASGI application for the argument `app` of `iogate.run`.

    Args:
        app: the application, a `Server`, or the name of one of these, `"module:app"`.

    Raises:
        ConfigurationError: the name does not exist, it is not an application, or iogate rejects its configuration.
    """
    found = _named(app) if isinstance(app, str) else app
    if isinstance(found, Server):
        return found.asgi()
    if not callable(found):
        raise ConfigurationError(f"{found!r} is no application: give what io.asgi() returns")
    application: ASGIApp = found
    return application


def _named(name: str) -> Any:
    found = named(name)
    if not isinstance(found, Server) and not callable(found):
        module, _, attribute = name.partition(":")
        raise ConfigurationError(f"{module} has no application {attribute!r}: write app = io.asgi() there")
    return found


def choose_websockets(options: Options) -> Options:
    """Return the options with `websockets`, and log a warning, if they ask for picows and it cannot be imported."""
    if options.ws == "picows":
        try:
            import iogate.transports.picows.upgrade  # noqa: F401
        except ImportError as error:
            logger.warning("picows cannot be imported (%s): websockets serves the WebSockets", error)
            return msgspec.structs.replace(options, ws="websockets")
    return options


def serve(
    app: ASGIApp,
    options: Options,
    listener: socket.socket | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve an application until a signal arrives.

    Args:
        app: the application.
        options: the options of `iogate.run`.
        listener: the bound socket to listen on; None binds `options.host` and `options.port`.
        ready: called in the event loop when clients can connect.

    Raises:
        KeyboardInterrupt: SIGINT ended the server normally; uvicorn raises the signal again at the end.
        SystemExit: the server could not start; the log says why.
    """
    server = app.server if isinstance(app, SocketIOApp) else None
    # The loaded modules stay, so the collector skips them. Connections leave no reference cycles behind, so collections
    # may be rare: each one traverses the objects of all new connections, and every client waits meanwhile.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)
    uvicorn_ = _Uvicorn(_config(app, options), server, ready, supervised=listener is not None)
    uvicorn_.run(None if listener is None else [listener])
    if not uvicorn_.started:
        raise SystemExit(STARTUP_FAILURE)


def _config(app: ASGIApp, options: Options) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        workers=1,  # By default, uvicorn reads a number from the environment.
        **_protocols(app, options),
        ws_max_size=MAX_MESSAGE,  # For other WebSockets of the application; Socket.IO's limit is `max_payload`.
        ws_ping_interval=None,  # Engine.IO has its own pings.
        ws_per_message_deflate=False,
        root_path=options.root_path,
        proxy_headers=options.forwarded_allow_ips is not None,
        forwarded_allow_ips=options.forwarded_allow_ips,
        ssl_certfile=options.ssl_certfile,
        ssl_keyfile=options.ssl_keyfile,
        access_log=options.access_log,
        log_config=None,
        timeout_graceful_shutdown=round(SHUTDOWN_TIMEOUT),
    )


def _protocols(app: ASGIApp, options: Options) -> dict[str, Any]:
    from iogate.transports.application import why_unknown
    from iogate.transports.uvicorn_http import HTTPProtocol
    from iogate.transports.uvicorn_websocket import WebSocketProtocol

    websockets = {"http": HTTPProtocol, "ws": WebSocketProtocol}
    if options.ws == "websockets":
        return websockets
    why = why_unknown(app)
    if why is not None:
        logger.info("websockets serves the WebSockets, not picows: %s", why)
        return websockets
    from iogate.transports.picows.http import PicowsHTTP
    from iogate.transports.picows.upgrade import PicowsProtocol

    return {"http": PicowsHTTP, "ws": PicowsProtocol}
