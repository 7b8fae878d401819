"""The same endpoint in every framework: it says who is asking, and gives back the body."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import django
import flask
from django.conf import settings as django_settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, JsonResponse
from django.urls import path
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from iogate import Principal, Server
from iogate.asgi_types import Receive, Scope, Send
from iogate.http import asgi, wsgi
from iogate.http import django as iogate_django
from iogate.http.fastapi import require as fastapi_require
from iogate.http.flask import require as flask_require
from iogate.http.starlette import JWTBackend
from iogate.http.users import TokenUser
from tests.gate.houses import serve_on_threads
from tests.servers import serve

Made = AbstractAsyncContextManager[str]
METHODS = ["GET", "POST", "PUT", "DELETE"]


def said(principal: Principal | None, user: Any, body: bytes | str) -> dict[str, Any]:
    """Return what the endpoint says."""
    text = body.decode() if isinstance(body, bytes) else body
    return {"sub": principal and principal.subject, "user": user, "body": text}


def of_asgi(auth: Any, **settings: Any) -> Made:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        state = scope["state"]
        answer = json.dumps(said(state["principal"], state["user"], body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})

    return serve(asgi.JWTMiddleware(app, auth, **settings))


def of_starlette(auth: Any, **settings: Any) -> Made:
    backend = JWTBackend(auth, **settings)

    async def endpoint(request: StarletteRequest) -> JSONResponse:
        assert request.user.is_authenticated is (request.state.principal is not None)
        return JSONResponse(said(request.state.principal, request.state.user, await request.body()))

    middleware = [Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)]
    return serve(Starlette(routes=[Route("/", endpoint, methods=METHODS)], middleware=middleware))


def of_fastapi(auth: Any, **settings: Any) -> Made:
    app = FastAPI()
    guard = fastapi_require(auth, **settings)

    @app.api_route("/", methods=METHODS)
    async def endpoint(request: Request, principal: Any = Depends(guard)) -> Any:  # noqa: B008
        assert request.state.principal is principal
        return said(principal, request.state.user, await request.body())

    return serve(app)


def of_wsgi(auth: Any, **settings: Any) -> Made:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("200 OK", [("content-type", "application/json")])
        return [json.dumps(said(environ[wsgi.PRINCIPAL], environ[wsgi.USER], body)).encode()]

    return serve_on_threads(wsgi.JWTMiddleware(app, auth, **settings))


def of_flask(auth: Any, *, asynchronous: bool = False, **settings: Any) -> Made:
    app = flask.Flask("app")

    @app.route("/", methods=METHODS)
    @flask_require(auth, **settings)
    def endpoint() -> Any:
        return said(flask.g.principal, flask.g.user, flask.request.get_data())

    return serve_on_threads(app)


django_settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=["iogate.http.django.JWTMiddleware"], SECRET_KEY="x" * 50
)
django.setup()


def _django_view(request: HttpRequest) -> JsonResponse:
    user = getattr(request, "user", None)
    return JsonResponse(said(request.principal, None if isinstance(user, TokenUser) else user, request.body))


async def _django_view_async(request: HttpRequest) -> JsonResponse:
    return _django_view(request)


urlpatterns = [
    path("", _django_view),
    path("async", _django_view_async),
    path("staff", iogate_django.require("staff")(_django_view)),
    path("staff-async", iogate_django.require("staff")(_django_view_async)),
]


def _configure_django(auth: Any, settings: dict[str, Any]) -> None:
    django_settings.IOGATE = {"auth": auth, **settings}
    iogate_django.guard.cache_clear()


def of_django_wsgi(auth: Any, **settings: Any) -> Made:
    _configure_django(auth, settings)
    return serve_on_threads(WSGIHandler())


def of_django_asgi(auth: Any, **settings: Any) -> Made:
    _configure_django(auth, settings)
    # Django knows no lifespan; what it stands beside here does.
    return serve(Server(auth=None).asgi(ASGIHandler()))


FRAMEWORKS: dict[str, Callable[..., Made]] = {
    "ASGI": of_asgi,
    "Starlette": of_starlette,
    "FastAPI": of_fastapi,
    "WSGI": of_wsgi,
    "Flask": of_flask,
    "Django, WSGI": of_django_wsgi,
    "Django, ASGI": of_django_asgi,
}
