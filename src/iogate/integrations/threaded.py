"""The gate in front of a `socketio.Server`. Handlers run on threads, the gate on its own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import socket as sockets
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from engineio.exceptions import EngineIOError

from iogate import background
from iogate.errors import ProtocolError
from iogate.integrations.engine import EngineTransport
from iogate.integrations.glue import Glue
from iogate.integrations.incoming import content_length, read_payload
from iogate.integrations.session import Session
from iogate.protocol.socketio.packets import PacketType
from iogate.server.namespaces.scopes import Scopes
from iogate.server.server import Server
from iogate.server.session.reasons import CloseReason

T = TypeVar("T")

MAX_THREADS = 64
"""The number of threads per pool: one pool is for connect and disconnect handlers, one for ending Engine.IO sockets."""


class ThreadedGlue(Glue):
    """The gate in front of a `Server`. See `Glue` for the arguments."""

    def __init__(self, sio: Any, io: Server, scopes: Mapping[str, Scopes]) -> None:
        super().__init__(sio, io, scopes)
        self._threads = _threads()
        self._ends = _threads()  # Separate, so that disconnect handlers do not wait for slow connect handlers.
        self._free = asyncio.Semaphore(MAX_THREADS)
        websocket = functools.partial(sio.eio._async["websocket"], thread_class=_Reader)
        sio.eio._async = {**sio.eio._async, "websocket": websocket}

    async def _call(self, check: Callable[[], None], name: str, *args: Any) -> Any:
        async with self._free:  # A client that disconnects while it waits here does not use a thread.
            check()
            context = contextvars.copy_context()
            running = asyncio.wrap_future(self._threads.submit(context.run, self._original[name], *args))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])  # A thread cannot be cancelled.
                raise

    def at_the_gate(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the event loop of the gate."""
        return background.call(function, *args)

    def finish(self, work: Coroutine[Any, Any, None]) -> Any:
        """Run a coroutine on the event loop of the gate, and return its result."""
        return background.run(work)

    async def _end(self, socket: Any) -> None:
        await asyncio.wrap_future(self._ends.submit(socket.close, wait=False, abort=True))
        self.sio.eio.sockets.pop(socket.sid, None)

    def _transport(self, session: Session, socket: Any) -> EngineTransport:
        transport = EngineTransport(self.core, socket, self._end, _cut, _limit)
        poll, close, get, serve = socket.poll, socket.close, socket.handle_get_request, socket._websocket_handler

        def taken() -> list[Any]:
            with transport.writer():
                return transport.taken(poll())

        def closed(wait: bool = True, **details: Any) -> None:
            close(wait=False, **details)  # Waiting would never end if the client does not fetch the queue.

        def got(environ: dict[str, Any], start_response: Any) -> Any:
            environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)  # No compression: a small message could become huge.
            with transport.turn(environ) as free:
                return get(environ, start_response) if free else self.sio.eio._bad_request()

        def posted(environ: dict[str, Any]) -> None:
            with transport.post() as free:
                packets = self._posted(session, transport, environ) if free else None
                for packet in packets or ():
                    socket.receive(packet)
            if packets is None:
                raise EngineIOError  # python-engineio then ends the session, and answers 400.

        def served(websocket: Any) -> Any:
            wait = websocket.wait

            def waited() -> Any:
                message = wait()
                if message is not None:
                    self._check(session, socket, message)
                return message

            websocket.wait = waited
            with self._reading(socket.sid), transport.websocket(websocket):
                return serve(websocket)

        # The gate sends pings and waits for pongs. python-engineio would use one thread per client for it.
        socket.last_ping = None
        socket.schedule_ping = lambda: self.at_the_gate(self.core.sessions.pong_received, session)
        socket.poll, socket.close = taken, closed
        socket.handle_get_request, socket.handle_post_request, socket._websocket_handler = got, posted, served
        return transport

    def _posted(self, session: Session, transport: EngineTransport, environ: dict[str, Any]) -> list[Any] | None:
        """Return the packets of a POST request, or None if it violates the protocol or takes too long."""
        try:
            length = content_length(environ, session.max_body)
            sock = environ.get("werkzeug.socket") or environ.get("gunicorn.socket")
            with transport.body(functools.partial(_shut, sock)):
                body = environ["wsgi.input"].read(length)
            if len(body) < length:
                raise ProtocolError("a body that has ended early")
            return read_payload(body)
        except ProtocolError as error:
            self.at_the_gate(self._fail, session, error)
        except OSError:
            self.at_the_gate(functools.partial(session.close, CloseReason.TRANSPORT_ERROR, abort=True))
        return None

    def engine_connected(self, sid: str, environ: dict[str, Any]) -> Any:
        """Handle a new Engine.IO session. A return value other than None or True rejects it."""
        return self.at_the_gate(self._open, sid, environ) or self._original["_handle_eio_connect"](sid, environ)

    def engine_message(self, sid: str, data: Any) -> None:
        """Handle a message of a client."""
        packet = self.at_the_gate(self._read, sid, data)
        if packet is not None:
            name = "_handle_event" if packet.type is PacketType.EVENT else "_handle_ack"
            self._original[name](sid, packet.namespace, packet.id, packet.data)

    def engine_disconnected(self, sid: str, reason: str) -> None:
        """Handle the end of an Engine.IO session."""
        session = self._sessions.get(sid)
        try:
            if session is not None:
                session.context.copy().run(self._original["_handle_eio_disconnect"], sid, reason)
        finally:
            self.sio.environ.pop(sid, None)
            self.at_the_gate(self._close, sid)

    def send_packet(self, sid: str, packet: Any) -> None:
        """Replace the server's `_send_packet`."""
        self._send(sid, packet)

    def send_eio_packet(self, sid: str, packet: Any) -> None:
        """Replace the server's `_send_eio_packet`."""
        self._put(sid, packet)

    def trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        """Replace the server's `_trigger_event`."""
        if self._is_over(event, args):
            return self.sio.not_handled
        # Run in a copy of the context, because the WSGI server's thread serves other clients afterwards.
        return contextvars.copy_context().run(self._trigger, event, namespace, *args)

    def _trigger(self, event: str, namespace: str, *args: Any) -> Any:
        with self._serving(event, args):
            return self._original["_trigger_event"](event, namespace, *args)

    def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """Replace the server's `disconnect`."""
        self._refuse_if_undecided(sid, namespace)
        self._original["disconnect"](sid, namespace, ignore_queue)

    def shutdown(self) -> None:
        """Replace the server's `shutdown`."""
        background.run(self.io.shutdown())
        # Replace the pools before shutting them down: python-engineio may still end connections.
        running, self._threads, self._ends = (self._threads, self._ends), _threads(), _threads()
        for threads in running:
            threads.shutdown()
        self._original["shutdown"]()


class _Reader(threading.Thread):
    """The reading thread of simple-websocket. When it ends, it wakes the thread that waits for a message."""

    def __init__(self, target: Callable[[], None]) -> None:
        super().__init__(target=target, name="simple-websocket (_thread)")
        self._websocket: Any = getattr(target, "__self__", None)

    def run(self) -> None:
        """Read until the connection ends or a message is too large; simple-websocket does not report the latter."""
        try:
            super().run()
        finally:
            self._websocket.connected = False
            self._websocket.event.set()


async def _cut(websocket: Any) -> None:
    _shut(websocket.ws.sock)  # A close frame would wake the threads only when the client answers it.


def _shut(sock: Any) -> None:
    with contextlib.suppress(OSError):
        if sock is not None:  # `SSLSocket.shutdown` would first remove TLS while another thread may write.
            sockets.socket.shutdown(sock, sockets.SHUT_RDWR)


def _limit(websocket: Any, most: int) -> None:
    # Without a limit, simple-websocket buffers the fragments of a message without end.
    websocket.ws.max_message_size = most


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="iogate")
