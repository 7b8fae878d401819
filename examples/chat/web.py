"""The HTTP half of the demo: the page, its scripts, the endpoints, and the rules that hold for all of them."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api import Api, Problem

HERE = Path(__file__).parent
PAGE = HERE / "static/index.html"
CLIENT = HERE / "node_modules/socket.io-client/dist/socket.io.esm.min.js"
IOGATE_CLIENT = HERE.parents[1] / "clients/js/src"


def _import_map_hash() -> str:
    """Return what lets the page's import map through: browsers take one only if it is inline."""
    found = re.search(rb'<script type="importmap">(.*?)</script>', PAGE.read_bytes(), re.DOTALL)
    assert found is not None  # noqa: S101
    return base64.b64encode(hashlib.sha256(found[1]).digest()).decode()


# `'self'` in connect-src covers the WebSocket to the same host. Nothing else on the page is inline, or from elsewhere.
POLICY = (
    f"default-src 'none'; script-src 'self' 'sha256-{_import_map_hash()}'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class SentHeaders:
    """ASGI middleware: the headers that every answer of the demo carries."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cross-Origin-Opener-Policy"] = "same-origin"
                # Answers hold tokens; files may be kept, but are asked about each time.
                headers["Cache-Control"] = "no-store" if scope["path"].startswith("/api/") else "no-cache"
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class SameOrigin:
    """ASGI middleware: no other site's page changes anything here, be it a sign-in or a sign-out.

    The browser does not send the cookie from there, and this is the second lock. A client that is no browser sends no
    origin, and is not refused for that: it has no cookie of somebody else's either.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            headers = Headers(scope=scope)
            own = f"{scope['scheme']}://{headers.get('host', '')}"
            if headers.get("origin", own).lower() != own.lower():
                app = JSONResponse({"message": "Only pages of this site may ask for that."}, 403)
        await app(scope, receive, send)


def website(api: Api, lifespan: Any) -> Starlette:
    """Return the application that answers everything but `/socket.io/`."""

    async def page(request: Request) -> Response:
        return FileResponse(PAGE)

    async def client(request: Request) -> Response:
        return FileResponse(CLIENT, media_type="text/javascript")

    async def problem(request: Request, error: Exception) -> Response:
        return error.response if isinstance(error, Problem) else Response(status_code=500)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/accounts", api.create_account, methods=["POST"]),
            Route("/api/sessions", api.create_session, methods=["POST"]),
            Route("/api/sessions", api.end_sessions, methods=["DELETE"]),
            Route("/api/sessions/current", api.end_session, methods=["DELETE"]),
            Route("/api/sessions/refresh", api.refresh_session, methods=["POST"]),
            Route("/api/me", api.me),
            Route("/static/socket.io.js", client),
            Mount("/static/iogate-client", StaticFiles(directory=IOGATE_CLIENT)),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(SentHeaders), Middleware(SameOrigin)],
        exception_handlers={Problem: problem},
        lifespan=lifespan,
    )
