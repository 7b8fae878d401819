"""`socketio.Server` behind the gate: handlers run on threads, the gate on an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket as sockets
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from iogate import background
from iogate.integrations.engine import EngineTransport, check_packet
from iogate.integrations.glue import Glue
from iogate.server.scopes import Scopes
from iogate.server.server import Server

T = TypeVar("T")

MAX_THREADS = 64
"""Threads on which connect and disconnect handlers run."""


class ThreadedGlue(Glue):
    """The gate in front of a `Server`. Its arguments are explained in `Glue`."""

    def __init__(self, sio: Any, io: Server, scopes: Mapping[str, Scopes]) -> None:
        super().__init__(sio, io, scopes)
        self._threads = _threads()

    async def _call(self, name: str, *args: Any) -> Any:
        context = contextvars.copy_context()
        return await asyncio.wrap_future(self._threads.submit(context.run, self._original[name], *args))

    async def _result(self, work: asyncio.Future[Any]) -> Any:
        return await asyncio.shield(work)  # A thread cannot be cancelled.

    def at_the_gate(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the event loop of the gate."""
        return background.call(function, *args)

    def finish(self, work: Coroutine[Any, Any, None]) -> Any:
        """Return what the application gets of a coroutine of the gate."""
        return background.run(work)

    async def _end(self, socket: Any) -> None:
        await asyncio.wrap_future(self._threads.submit(socket.close, wait=False, abort=True))
        self.sio.eio.sockets.pop(socket.sid, None)

    def _transport(self, socket: Any) -> EngineTransport:
        transport = EngineTransport(self.io, socket, self._end, _cut)
        poll, receive, close = socket.poll, socket.receive, socket.close
        get, serve = socket.handle_get_request, socket._websocket_handler

        def taken() -> list[Any]:
            with transport.writer():
                return transport.taken(poll())

        def received(packet: Any) -> None:
            check_packet(packet)
            receive(packet)

        def closed(wait: bool = True, **details: Any) -> None:
            close(wait=False, **details)  # Else for ever, if nobody fetches what is queued.

        def got(environ: dict[str, Any], start_response: Any) -> Any:
            with transport.turn(environ) as free:
                return get(environ, start_response) if free else self.sio.eio._bad_request()

        def served(websocket: Any) -> Any:
            with self._reading(socket.sid), transport.websocket(websocket):
                return serve(websocket)

        socket.poll, socket.receive, socket.close = taken, received, closed
        socket.handle_get_request, socket._websocket_handler = got, served
        return transport

    def engine_connected(self, sid: str, environ: dict[str, Any]) -> Any:
        """Take a new Engine.IO session."""
        return self.at_the_gate(self._open, sid, environ) or self._original["_handle_eio_connect"](sid, environ)

    def engine_message(self, sid: str, data: Any) -> None:
        """Take a frame."""
        for frame in self.at_the_gate(self._read, sid, data):
            self._original["_handle_eio_message"](sid, frame)

    def engine_disconnected(self, sid: str, reason: str) -> None:
        """Take note of the end of an Engine.IO session."""
        try:
            self._original["_handle_eio_disconnect"](sid, reason)
        finally:
            self.sio.environ.pop(sid, None)
            self.at_the_gate(self._close, sid)

    def send_packet(self, sid: str, packet: Any) -> None:
        """Stand in for `_send_packet`."""
        self._send(sid, packet)

    def send_eio_packet(self, sid: str, packet: Any) -> None:
        """Stand in for `_send_eio_packet`."""
        self._put(sid, packet)

    def trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        """Stand in for `_trigger_event`."""
        with self._serving(event, args):
            return self._original["_trigger_event"](event, namespace, *args)

    def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """Stand in for the method of that name."""
        self._refuse_if_undecided(sid, namespace)
        self._original["disconnect"](sid, namespace, ignore_queue)

    def shutdown(self) -> None:
        """Stand in for the method of that name."""
        background.run(self.io.shutdown())
        running, self._threads = self._threads, _threads()  # python-engineio may still end a connection or two.
        running.shutdown()
        self._original["shutdown"]()


async def _cut(websocket: Any) -> None:
    with contextlib.suppress(OSError):
        # A close frame wakes no thread before the client answers it. And `SSLSocket.shutdown` would first take TLS away
        # from a thread that writes.
        sockets.socket.shutdown(websocket.ws.sock, sockets.SHUT_RDWR)


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="iogate")
