"""`socketio.AsyncServer` behind the gate: both run on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from iogate.asgi_types import Receive, Scope, Send
from iogate.integrations.engine import EngineTransport, check_packet
from iogate.integrations.glue import Glue
from iogate.server.handshake import hide
from iogate.server.scopes import Scopes
from iogate.server.server import Server

T = TypeVar("T")


class AsyncGlue(Glue):
    """The gate in front of an `AsyncServer`. Its arguments are explained in `Glue`."""

    def __init__(self, sio: Any, io: Server, scopes: Mapping[str, Scopes]) -> None:
        super().__init__(sio, io, scopes)
        if sio.async_mode == "asgi" and io.hidden_parameters:
            self._translate = sio.eio._async["translate_request"]
            sio.eio._async = {**sio.eio._async, "translate_request": self._translate_request}

    async def _translate_request(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Take the token out of the URL in the scope, for whoever logs it. The server has read it then."""
        environ = await self._translate(scope, receive, send)
        hide(scope, self.io.hidden_parameters)
        return environ

    async def _call(self, name: str, *args: Any) -> Any:
        return await self._original[name](*args)

    async def _result(self, work: asyncio.Future[Any]) -> Any:
        return await work

    def at_the_gate(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the event loop of the gate."""
        return function(*args)

    def finish(self, work: Coroutine[Any, Any, None]) -> Any:
        """Return what the application gets of a coroutine of the gate."""
        return work

    async def _end(self, socket: Any) -> None:
        await socket.close(wait=False, abort=True)
        self.sio.eio.sockets.pop(socket.sid, None)

    def _transport(self, socket: Any) -> EngineTransport:
        transport = EngineTransport(self.io, socket, self._end, _cut)
        poll, receive, close = socket.poll, socket.receive, socket.close
        get, serve = socket.handle_get_request, socket._websocket_handler

        async def taken() -> list[Any]:
            with transport.writer():
                return transport.taken(await poll())

        async def received(packet: Any) -> None:
            check_packet(packet)
            await receive(packet)

        async def closed(wait: bool = True, **details: Any) -> None:
            await close(wait=False, **details)  # Else for ever, if nobody fetches what is queued.

        async def got(environ: dict[str, Any]) -> Any:
            with transport.turn(environ) as free:
                return await get(environ) if free else self.sio.eio._bad_request()

        async def served(websocket: Any) -> Any:
            with self._reading(socket.sid), transport.websocket(websocket):
                return await serve(websocket)

        socket.poll, socket.receive, socket.close = taken, received, closed
        socket.handle_get_request, socket._websocket_handler = got, served
        return transport

    async def engine_connected(self, sid: str, environ: dict[str, Any]) -> Any:
        """Take a new Engine.IO session."""
        return self._open(sid, environ) or await self._original["_handle_eio_connect"](sid, environ)

    async def engine_message(self, sid: str, data: Any) -> None:
        """Take a frame."""
        for frame in self._read(sid, data):
            await self._original["_handle_eio_message"](sid, frame)

    async def engine_disconnected(self, sid: str, reason: str) -> None:
        """Take note of the end of an Engine.IO session."""
        try:
            await self._original["_handle_eio_disconnect"](sid, reason)
        finally:
            self.sio.environ.pop(sid, None)
            self._close(sid)

    async def send_packet(self, sid: str, packet: Any) -> None:
        """Stand in for `_send_packet`."""
        self._send(sid, packet)

    async def send_eio_packet(self, sid: str, packet: Any) -> None:
        """Stand in for `_send_eio_packet`."""
        self._put(sid, packet)

    async def trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        """Stand in for `_trigger_event`."""
        with self._serving(event, args):
            return await self._original["_trigger_event"](event, namespace, *args)

    async def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """Stand in for the method of that name."""
        self._refuse_if_undecided(sid, namespace)
        await self._original["disconnect"](sid, namespace, ignore_queue)

    async def shutdown(self) -> None:
        """Stand in for the method of that name."""
        await self.io.shutdown()
        await self._original["shutdown"]()


async def _cut(websocket: Any) -> None:
    await websocket.close()
