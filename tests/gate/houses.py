"""The same small application on every kind of server that the gate stands in front of.

Each answers `echo` with an event and an acknowledgement, has an event `secret` for who has the scope `admin`, a
namespace `/other`, and a namespace `/staff` for who has the scope `staff`. What happens when somebody comes to `/` is
up to the test: in connect middleware on iogate's own server, in the connect handler on the others.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import flask
import flask_socketio
import socketio
from werkzeug.serving import make_server as make_wsgi_server

from iogate import JWTAuth, Refused, Server, Socket
from iogate.integrations import protect
from tests.gate.support import make_auth
from tests.servers import Kind, serve

Decide = Callable[[], object]
CLOSED = {"message": "closed", "data": {"code": "closed"}}
NEWCOMER = {"message": "Connection rejected by server"}


@asynccontextmanager
async def serve_on_threads(app: Any) -> AsyncIterator[str]:
    """Serve a WSGI application, each request on a thread, and give its URL."""
    server = make_wsgi_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


class House(ABC):
    """A server and its application.

    Args:
        auth: what verifies; the tests' secret unless given.
        settings: of the gate.
    """

    closed: type[Exception]
    """What an application raises to turn somebody away."""
    io: Server
    """Where the gate is."""

    def __init__(self, auth: JWTAuth | None = None, **settings: Any) -> None:
        self.ran: list[tuple[Any, ...]] = []
        self.decide: Decide = lambda: None
        self.shut = False
        self.reached = asyncio.Event()
        self._opened = threading.Event()
        self._loop = asyncio.get_running_loop()
        self.build(auth or make_auth(), settings)

    @abstractmethod
    def build(self, auth: JWTAuth, settings: dict[str, Any]) -> None:
        """Make the server and its handlers."""

    @abstractmethod
    def serve(self) -> AbstractAsyncContextManager[str]:
        """Serve, and give the URL."""

    @abstractmethod
    async def emit(self, event: str, *args: Any, room: str | None = None) -> None:
        """Send an event to everybody in the root namespace, or in a room of it."""

    @abstractmethod
    def members(self, namespace: str = "/") -> list[str]:
        """Return the ids of the sockets that the application sees."""

    async def revoke(self, **what: Any) -> None:
        """Revoke tokens."""
        await self.io.revoke(**what)

    def open_the_door(self) -> None:
        """Let those in who wait."""
        self._opened.set()

    async def newcomer(self) -> object:
        """Do what the test has said about somebody who comes to the root namespace."""
        self.ran.append(("comes",))
        if self.shut:
            self.reached.set()
            await asyncio.to_thread(self._opened.wait, 10)
        return self.decide()

    def newcomer_on_a_thread(self) -> object:
        """Do the same on a thread of the server."""
        self.ran.append(("comes",))
        if self.shut:
            self._loop.call_soon_threadsafe(self.reached.set)
            self._opened.wait(10)
        return self.decide()


class Own(House):
    """iogate's own server."""

    closed = Refused

    def build(self, auth: JWTAuth, settings: dict[str, Any]) -> None:
        self.io = io = Server(auth=auth, **settings)
        io.of("/other")
        io.of("/staff", scopes="staff")

        @io.use
        async def newcomer(socket: Socket) -> None:
            await self.newcomer()

        @io.on("echo")
        async def echo(socket: Socket, *args: Any) -> tuple[Any, ...]:
            self.ran.append(("echo", *args))
            socket.emit("echo", *args)
            return args

        io.on("secret", lambda socket: self.ran.append(("secret",)), scopes="admin")
        io.on("disconnect", lambda socket, reason: self.ran.append(("disconnect",)))

    def serve(self) -> AbstractAsyncContextManager[str]:
        return serve(self.io, self.ws)

    ws: Kind = "uvicorn"

    async def emit(self, event: str, *args: Any, room: str | None = None) -> None:
        (self.io if room is None else self.io.to(room)).emit(event, *args)

    def members(self, namespace: str = "/") -> list[str]:
        return list(self.io.of(namespace).sockets)


class OwnPicows(Own):
    """iogate's own server, on picows."""

    ws = "uvicorn-picows"


class Foreign(House):
    """A server of python-socketio."""

    closed = socketio.exceptions.ConnectionRefusedError
    sio: Any

    def members(self, namespace: str = "/") -> list[str]:
        return [sid for sid, _ in self.sio.manager.get_participants(namespace, None)]


class Async(Foreign):
    """`socketio.AsyncServer`."""

    def build(self, auth: JWTAuth, settings: dict[str, Any]) -> None:
        self.sio = sio = socketio.AsyncServer(async_mode="asgi", namespaces=["/", "/other", "/staff"])
        self.gate = protect(sio, auth, scopes={"/staff": "staff"}, **settings)
        self.io = self.gate._glue.io

        @sio.event
        async def connect(sid: str, environ: Any, auth: Any) -> object:
            return await self.newcomer()

        @sio.event
        async def echo(sid: str, *args: Any) -> tuple[Any, ...]:
            self.ran.append(("echo", *args))
            await sio.emit("echo", args, to=sid)
            return args

        @sio.event
        @self.gate.requires("admin")
        async def secret(sid: str) -> None:
            self.ran.append(("secret",))

        @sio.event
        async def disconnect(sid: str, reason: str) -> None:
            self.ran.append(("disconnect",))

    def serve(self) -> AbstractAsyncContextManager[str]:
        return serve(socketio.ASGIApp(self.sio))

    async def emit(self, event: str, *args: Any, room: str | None = None) -> None:
        await self.sio.emit(event, args, room=room)


class Threaded(Foreign):
    """`socketio.Server`, on threads."""

    app: Any

    def build(self, auth: JWTAuth, settings: dict[str, Any]) -> None:
        self.sio = sio = socketio.Server(async_mode="threading", namespaces=["/", "/other", "/staff"])
        self.gate = protect(sio, auth, scopes={"/staff": "staff"}, **settings)
        self.io = self.gate._glue.io
        self.app = socketio.WSGIApp(sio)

        @sio.event
        def connect(sid: str, environ: Any, auth: Any) -> object:
            return self.newcomer_on_a_thread()

        @sio.event
        def echo(sid: str, *args: Any) -> tuple[Any, ...]:
            self.ran.append(("echo", *args))
            sio.emit("echo", args, to=sid)
            return args

        @sio.event
        @self.gate.requires("admin")
        def secret(sid: str) -> None:
            self.ran.append(("secret",))

        @sio.event
        def disconnect(sid: str, reason: str) -> None:
            self.ran.append(("disconnect",))

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        async with serve_on_threads(self.app) as url:
            yield url
            self._opened.set()
            await asyncio.to_thread(self.sio.shutdown)

    async def emit(self, event: str, *args: Any, room: str | None = None) -> None:
        await asyncio.to_thread(self.sio.emit, event, args, room=room)

    async def revoke(self, **what: Any) -> None:
        await asyncio.to_thread(lambda: self.gate.revoke(**what))


class Flask(Threaded):
    """Flask-SocketIO."""

    def build(self, auth: JWTAuth, settings: dict[str, Any]) -> None:
        self.app = flask.Flask("house")
        extension = flask_socketio.SocketIO(self.app, async_mode="threading", namespaces=["/", "/other", "/staff"])
        self.sio = extension.server
        self.gate = protect(extension, auth, scopes={"/staff": "staff"}, **settings)
        self.io = self.gate._glue.io

        @extension.on("connect")
        def connect(auth: Any) -> object:
            return self.newcomer_on_a_thread()

        @extension.on("echo")
        def echo(*args: Any) -> tuple[Any, ...]:
            self.ran.append(("echo", *args))
            flask_socketio.emit("echo", args)
            return args

        @extension.on("secret")
        @self.gate.requires("admin")
        def secret() -> None:
            self.ran.append(("secret",))

        @extension.on("disconnect")
        def disconnect(reason: str) -> None:
            self.ran.append(("disconnect",))


HOUSES: dict[str, type[House]] = {
    "iogate": Own,
    "iogate, picows": OwnPicows,
    "AsyncServer": Async,
    "Server": Threaded,
    "Flask-SocketIO": Flask,
}
