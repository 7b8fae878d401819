"""Both kinds of python-socketio's servers behind the gate, with the differences between them out of the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import flask
import flask_socketio
import socketio

from iogate import JWTAuth, Limits
from iogate.integrations import Protection, protect
from tests.gate.houses import serve_on_threads
from tests.gate.support import make_auth
from tests.servers import serve


class _Protected:
    """What the classes below share: a server that runs on threads or an event loop."""

    threaded: bool
    sio: Any
    gate: Protection
    app: Any

    async def do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the server."""
        method = getattr(self.sio, name)
        return await (asyncio.to_thread(method, *args, **kwargs) if self.threaded else method(*args, **kwargs))

    async def revoke(self, **what: Any) -> None:
        """Revoke tokens."""
        await (asyncio.to_thread(lambda: self.gate.revoke(**what)) if self.threaded else self.gate.revoke(**what))

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve, and give the URL."""
        async with serve_on_threads(self.app) if self.threaded else serve(self.app) as url:
            yield url
            await self.do("shutdown")


class Both(_Protected):
    """A server of either kind, with the differences between them out of the way."""

    def __init__(self, *, threaded: bool, auth: JWTAuth | None = None, **settings: Any) -> None:
        kind = socketio.Server if threaded else socketio.AsyncServer
        self.threaded = threaded
        self.sio = kind(async_mode="threading" if threaded else "asgi", **settings)
        limits = Limits(pending_per_address=3)
        self.gate = protect(self.sio, auth or make_auth(), limits=limits, scopes={"/staff": "staff"})
        self.app = socketio.WSGIApp(self.sio) if threaded else socketio.ASGIApp(self.sio)

    def on(self, event: str, handler: Callable[..., Any], namespace: str = "/") -> None:
        """Register a plain function, as the server wants it."""
        if not self.threaded:
            plain = handler

            async def handler(*args: Any) -> Any:
                answer = plain(*args)
                return await answer if asyncio.iscoroutine(answer) else answer

        self.sio.on(event, handler, namespace=namespace)

    def members(self, namespace: str = "/") -> list[str]:
        """Return who is in a namespace."""
        return [sid for sid, _ in self.sio.manager.get_participants(namespace, None)]


class Behind(_Protected):
    """A server of any of the three kinds behind the gate, whose handlers are plain functions that get no `sid`.

    Args:
        kind: `"AsyncServer"`, `"Server"` or `"Flask-SocketIO"`.
        auth: what verifies; the tests' secret unless given.
        limits: of the gate.
        settings: of the server.
    """

    def __init__(
        self, kind: str, *, auth: JWTAuth | None = None, limits: Limits | None = None, **settings: Any
    ) -> None:
        self.kind = kind
        self.threaded = kind != "AsyncServer"
        settings.setdefault("namespaces", "*")
        if kind == "Flask-SocketIO":
            self.app = flask.Flask("behind")
            self.extension = flask_socketio.SocketIO(self.app, async_mode="threading", **settings)
            self.sio = self.extension.server
            self.gate = protect(self.extension, auth or make_auth(), limits=limits)
        elif kind == "Server":
            self.sio = socketio.Server(async_mode="threading", **settings)
            self.gate = protect(self.sio, auth or make_auth(), limits=limits)
            self.app = socketio.WSGIApp(self.sio)
        else:
            self.sio = socketio.AsyncServer(async_mode="asgi", **settings)
            self.gate = protect(self.sio, auth or make_auth(), limits=limits)
            self.app = socketio.ASGIApp(self.sio)
        self.glue = self.gate._glue
        self.io = self.glue.io

    def on(self, event: str, handler: Callable[..., Any], namespace: str = "/") -> None:
        """Register a handler: of an event, it gets what the client sent; of connect and disconnect, nothing."""
        if self.kind == "Flask-SocketIO":
            of_flask = (lambda *_: handler()) if event in ("connect", "disconnect") else handler
            self.extension.on_event(event, of_flask, namespace=namespace)
            return

        def plain(sid: str, *args: Any) -> Any:
            return handler() if event in ("connect", "disconnect") else handler(*args)

        async def of_asyncio(sid: str, *args: Any) -> Any:
            answer = plain(sid, *args)
            return await answer if asyncio.iscoroutine(answer) else answer

        self.sio.on(event, plain if self.threaded else of_asyncio, namespace=namespace)
