"""The gate in front of a `socketio.AsyncServer`. Both run on the same event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from engineio.exceptions import EngineIOError

from iogate.asgi_types import Message, Receive, Scope, Send
from iogate.errors import ProtocolError
from iogate.integrations.engine import EngineTransport
from iogate.integrations.glue import Glue
from iogate.integrations.incoming import content_length, read_payload
from iogate.integrations.session import Session
from iogate.protocol.socketio.packets import PacketType
from iogate.server.namespaces.scopes import Scopes
from iogate.server.server import Server
from iogate.server.session.handshake import hide
from iogate.server.session.reasons import CloseReason

T = TypeVar("T")

_LAST = [(b"content-length", b"0"), (b"connection", b"close")]


class AsyncGlue(Glue):
    """The gate in front of an `AsyncServer`. See `Glue` for the arguments."""

    def __init__(self, sio: Any, io: Server, scopes: Mapping[str, Scopes]) -> None:
        super().__init__(sio, io, scopes)
        if sio.async_mode == "asgi":
            self._translate = sio.eio._async["translate_request"]
            sio.eio._async = {**sio.eio._async, "translate_request": self._translate_request}
            self._serve = sio.eio.handle_request
            sio.eio.handle_request = self._handle_request

    async def _handle_request(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve a request, or answer 408 if its body does not begin in time.

        python-engineio waits for the body before anything else. A client that disconnects before it sends a body is
        not an error, and does not cause a traceback.
        """
        try:
            return await self._serve(scope, receive, send)
        except _NoBody:
            await send({"type": "http.response.start", "status": 408, "headers": _LAST})
            await send({"type": "http.response.body"})

    async def _translate_request(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Translate a request for python-engineio, then hide the token in the URL of the scope from logs.

        The translated request still contains the token, for the gate.

        Raises:
            _NoBody: the body does not begin within `connect_timeout`, or the client has disconnected.
        """

        async def received() -> Message:
            try:
                async with asyncio.timeout(self.core.settings.connect_timeout):
                    message = await receive()
            except TimeoutError:
                raise _NoBody from None
            if message["type"] == "http.disconnect":
                raise _NoBody
            return message

        environ = await self._translate(scope, received if scope["type"] == "http" else receive, send)
        hide(scope, self.core.hidden_parameters)
        return environ

    async def _call(self, check: Callable[[], None], name: str, *args: Any) -> Any:
        check()
        return await self._original[name](*args)

    def at_the_gate(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the event loop of the gate."""
        return function(*args)

    def finish(self, work: Coroutine[Any, Any, None]) -> Any:
        """Return the coroutine itself, which the application awaits."""
        return work

    async def _end(self, socket: Any) -> None:
        await socket.close(wait=False, abort=True)
        self.sio.eio.sockets.pop(socket.sid, None)

    def _transport(self, session: Session, socket: Any) -> EngineTransport:
        transport = EngineTransport(self.core, socket, self._end, _cut)
        poll, close, get, serve = socket.poll, socket.close, socket.handle_get_request, socket._websocket_handler

        async def taken() -> list[Any]:
            with transport.writer():
                return transport.taken(await poll())

        async def closed(wait: bool = True, **details: Any) -> None:
            await close(wait=False, **details)  # Waiting would never end if the client does not fetch the queue.

        async def got(environ: dict[str, Any]) -> Any:
            with transport.turn(environ) as free:
                return await get(environ) if free else self.sio.eio._bad_request()

        async def posted(environ: dict[str, Any]) -> None:
            with transport.post() as free:
                packets = await self._posted(session, transport, environ) if free else None
                for packet in packets or ():
                    await socket.receive(packet)
            if packets is None and socket.sid in self.sio.eio.sockets:
                raise EngineIOError  # python-engineio then ends the session, and answers 400.

        async def served(websocket: Any) -> Any:
            wait = websocket.wait

            async def waited() -> Any:
                message = await wait()
                if message is not None:
                    self._check(session, socket, message)
                return message

            websocket.wait = waited
            with self._reading(socket.sid), transport.websocket(websocket):
                return await serve(websocket)

        # The gate sends pings and waits for pongs. python-engineio would use one task per client for it.
        socket.last_ping = None
        socket.schedule_ping = lambda: self.core.sessions.pong_received(session)
        socket.poll, socket.close = taken, closed
        socket.handle_get_request, socket.handle_post_request, socket._websocket_handler = got, posted, served
        return transport

    async def _posted(self, session: Session, transport: EngineTransport, environ: dict[str, Any]) -> list[Any] | None:
        """Return the packets of a POST request, or None if it violates the protocol or takes too long."""
        try:
            length = content_length(environ, session.max_body)
            reading = asyncio.ensure_future(environ["wsgi.input"].read(length))
            try:
                with transport.body(reading.cancel):
                    await asyncio.wait([reading])
            finally:
                reading.cancel()
            if not reading.cancelled():
                return read_payload(reading.result())
        except ProtocolError as error:
            self._fail(session, error)
        except _NoBody:
            session.close(CloseReason.TRANSPORT_ERROR, abort=True)
        return None

    async def engine_connected(self, sid: str, environ: dict[str, Any]) -> Any:
        """Handle a new Engine.IO session. A return value other than None or True rejects it."""
        return self._open(sid, environ) or await self._original["_handle_eio_connect"](sid, environ)

    async def engine_message(self, sid: str, data: Any) -> None:
        """Handle a message of a client."""
        packet = self._read(sid, data)
        if packet is not None:
            name = "_handle_event" if packet.type is PacketType.EVENT else "_handle_ack"
            await self._original[name](sid, packet.namespace, packet.id, packet.data)

    async def engine_disconnected(self, sid: str, reason: str) -> None:
        """Handle the end of an Engine.IO session."""
        session = self._sessions.get(sid)
        try:
            if session is not None:
                await self._start(session, "_handle_eio_disconnect", sid, reason)
        finally:
            self.sio.environ.pop(sid, None)
            self._close(sid)

    async def send_packet(self, sid: str, packet: Any) -> None:
        """Replace the server's `_send_packet`."""
        self._send(sid, packet)

    async def send_eio_packet(self, sid: str, packet: Any) -> None:
        """Replace the server's `_send_eio_packet`."""
        self._put(sid, packet)

    async def trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        """Replace the server's `_trigger_event`."""
        if self._is_over(event, args):
            return self.sio.not_handled
        with self._serving(event, args):
            return await self._original["_trigger_event"](event, namespace, *args)

    async def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """Replace the server's `disconnect`."""
        self._refuse_if_undecided(sid, namespace)
        await self._original["disconnect"](sid, namespace, ignore_queue)

    async def shutdown(self) -> None:
        """Replace the server's `shutdown`."""
        await self.io.shutdown()
        await self._original["shutdown"]()


class _NoBody(Exception):
    """The body of a request does not arrive."""


async def _cut(websocket: Any) -> None:
    await websocket.close()
