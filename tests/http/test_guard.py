"""What a guard is made of, and what is particular to one framework."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import flask
import httpx
import pytest
import socketio
import websockets
from a2wsgi import WSGIMiddleware
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from iogate import (
    AuthPayload,
    BearerHeader,
    BodyField,
    ConfigurationError,
    Cookie,
    CredentialsRequired,
    Header,
    JWTAuth,
    Principal,
    Query,
    RevokedToken,
    Server,
)
from iogate.http import asgi, wsgi
from iogate.http import django as iogate_django
from iogate.http.answers import answer_to
from iogate.http.fastapi import require
from iogate.http.flask import require as flask_require
from iogate.http.guard import DoubleSubmit, Guard, HTTPRequest
from iogate.http.starlette import JWTBackend
from iogate.integrations import protect
from iogate.server.session.handshake import Handshake
from tests import refusals
from tests.conformance.wire import WEBSOCKET, enter, raw_websocket, websocket, within
from tests.gate.houses import serve_on_threads
from tests.gate.support import make_auth
from tests.http.frameworks import of_django_asgi, of_django_wsgi
from tests.servers import make_token, serve

AUTH = make_auth()
GUARD = Guard(AUTH)
WRITER = require(AUTH, scopes="chat:write")
GOOD = {"authorization": f"Bearer {make_token()}"}


class Mine:
    """A gatekeeper of the application's own."""

    sources = ()
    verify_async = None


async def _never(request: Any) -> None: ...


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Guard(None), "takes JWTAuth"),  # type: ignore[arg-type]
        (lambda: Guard(Server(auth=None)), "takes JWTAuth"),
        (lambda: Guard(Mine()), "give the Server"),  # type: ignore[arg-type]
        (lambda: Guard(AUTH, optional=True, scopes="x"), "leave out optional=True"),
        (lambda: Guard(AUTH, realm='a"b'), "realm"),
        (lambda: Guard(AUTH, realm=""), "realm"),
        (lambda: Guard(AUTH, scopes=""), "scopes"),
        (lambda: Guard(AUTH, timeout=0), "timeout"),
        (lambda: Guard(AUTH, csrf=True), r"csrf=DoubleSubmit\(\)"),  # type: ignore[arg-type]
        (lambda: Guard(AUTH, csrf=DoubleSubmit), r"csrf=DoubleSubmit\(\)"),  # type: ignore[arg-type]
        (lambda: Guard(AUTH, sources=[AuthPayload("token")]), r"sources=\[BearerHeader\(\)\]"),
        (lambda: Guard(AUTH, origins="https://app.example"), r'write \["https://app.example"\]'),
        (lambda: iogate_django.require(_never), r"write @require\(\)"),  # type: ignore[arg-type]
        (lambda: Server(auth=make_auth(sources=[BodyField("t")])), "sockets have no body"),
        (lambda: Guard(AUTH, sources=[Cookie("t")]), "origins="),
        (lambda: Guard(AUTH, sources=[Cookie("t")], origins=["*"]), "origins="),
        (lambda: DoubleSubmit(cookie="csrf"), "__Host-"),
        (lambda: asgi.JWTMiddleware(_never, GUARD, scopes="x"), "has its settings already"),  # type: ignore[arg-type]
        (lambda: JWTBackend(AUTH, sources=[BodyField("t")]), "JWTMiddleware"),
        (lambda: make_auth(sources=[_never]), "make the function a plain one"),
        (lambda: make_auth(sources=[Header("")]), "Header takes the name"),
        (lambda: make_auth(sources=[BodyField("")]), "BodyField takes the name"),
    ],
)
def test_what_is_not_sound_does_not_start(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_a_server_with_listed_origins_brings_them_along() -> None:
    auth = make_auth(sources=[Cookie("t")])
    io = Server(auth=auth, cors_allowed_origins=["https://app.example"])
    assert Guard(io).sources == (Cookie("t"),)


async def test_a_cookie_is_looked_at_also_beside_a_request_without_origin_header() -> None:
    guard = Guard(AUTH, sources=[Cookie("t")], origins=["https://app.example"])
    handshake = Handshake([(b"cookie", b"t=" + make_token().encode())])
    assert await guard.check(HTTPRequest(handshake, "GET")) is not None
    with pytest.raises(Exception, match="not started by this site"):
        await guard.check(HTTPRequest(handshake, "POST"))


async def test_a_store_of_its_own_is_asked_too() -> None:
    class All:
        def revoked(self, principal: Principal, now: float) -> bool:
            return principal.token_id == "1"

    guard = Guard(AUTH, revocations=All())
    first, second = (
        HTTPRequest(Handshake([(b"authorization", f"Bearer {make_token(jti=token_id)}".encode())]), "GET")
        for token_id in "12"
    )
    with pytest.raises(RevokedToken):
        await guard.check(first)
    assert await guard.check(second) is not None


# FastAPI.


def schema(**settings: Any) -> tuple[Any, Any]:
    """Return the security schemes of an API with one endpoint, and what that one asks for."""
    app = FastAPI()
    guard = require(AUTH, **settings)

    @app.get("/")
    async def endpoint(user: Any = Depends(guard)) -> None: ...  # noqa: B008

    found = app.openapi()
    operation = found["paths"]["/"]["get"]
    assert "parameters" not in operation
    return found["components"]["securitySchemes"], operation["security"]


def test_the_schema_of_fastapi_says_where_the_token_goes() -> None:
    assert schema() == (
        {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        [{"bearer": []}],
    )
    sources = [BearerHeader(), Header("X-Token"), Query("t"), Cookie("c"), BodyField("b")]
    schemes, needed = schema(sources=sources, origins=["https://app.example"])
    assert schemes["header X-Token"] == {"type": "apiKey", "in": "header", "name": "X-Token"}
    assert schemes["query t"] == {"type": "apiKey", "in": "query", "name": "t"}
    assert schemes["cookie c"] == {"type": "apiKey", "in": "cookie", "name": "c"}
    assert len(schemes) == len(needed) == 4


def make_everything() -> tuple[Any, Server]:
    """Return sockets, REST and a WebSocket of its own, in one application."""
    web, auth = FastAPI(), make_auth()
    io = Server(auth=auth)
    user = require(io)

    @web.get("/me")
    async def me(principal: Any = Depends(user)) -> str:  # noqa: B008
        return str(principal.subject)

    @web.websocket("/own")
    async def own(connection: WebSocket, principal: Any = Depends(user)) -> None:  # noqa: B008
        await connection.accept()
        await connection.send_text(f"hello {principal.subject}")
        await connection.close()

    return io.asgi(web), io


@pytest.mark.usefixtures("ws")
async def test_sockets_rest_and_a_websocket_of_its_own_are_one_application() -> None:
    app, io = make_everything()
    ann = {"authorization": f"Bearer {make_token(jti='1')}"}
    async with serve(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        own = url.replace("http", "ws") + "/own"
        async with websocket(url) as client:
            await enter(client, jti="1")
            assert (await http.get("/me", headers=ann)).json() == "ann"
            async with websockets.connect(own, additional_headers=ann, proxy=None) as peer:
                assert await peer.recv() == "hello ann"
            await io.revoke(token_id="1")
        assert (await http.get("/me", headers=ann)).status_code == 401
        for headers, refusal in ((ann, refusals.REVOKED), ({}, refusals.REQUIRED)):
            with pytest.raises(websockets.InvalidStatus) as caught:
                await websockets.connect(own, additional_headers=headers, proxy=None)
            assert caught.value.response.status_code == 401
            assert json.loads(caught.value.response.body) == {"detail": refusal["data"]}
            assert caught.value.response.headers["www-authenticate"].startswith("Bearer ")


async def test_a_websocket_is_refused_also_by_a_server_that_cannot_say_more_than_that() -> None:
    app, _ = make_everything()

    async def without(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "extensions": {}}, receive, send)

    async with serve(without) as url:
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(url.replace("http", "ws") + "/own", proxy=None)
        assert caught.value.response.status_code == 403


def test_annotated_dependencies_work_as_the_readme_has_it() -> None:
    app = FastAPI()

    @app.get("/")
    async def endpoint(user: Annotated[Principal, Depends(WRITER)]) -> str:
        return user.subject

    async def ask(scope: str) -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.get("/", headers={"authorization": f"Bearer {make_token(scope=scope)}"})

    assert asyncio.run(ask("chat:write")).json() == "ann"
    assert asyncio.run(ask("chat:read")).status_code == 403


# Starlette.


async def test_starlettes_own_requires_compares_with_the_scopes_of_the_token() -> None:
    backend = JWTBackend(AUTH, optional=True)

    @requires("chat:write")
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.user.display_name} {request.user.identity}")

    middleware = [Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)]
    app = Starlette(routes=[Route("/", endpoint)], middleware=middleware)
    async with serve(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        writer = {"authorization": f"Bearer {make_token(scope='chat:write')}"}
        assert (await http.get("/", headers=writer)).text == "ann ann"
        assert (await http.get("/", headers=GOOD)).status_code == 403
        assert (await http.get("/")).status_code == 403


# ASGI.


@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn"])
async def test_a_websocket_is_guarded_by_the_middleware_too(kind: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": scope["state"]["principal"].subject})
            await send({"type": "websocket.close"})

    async with serve(Server(auth=None).asgi(asgi.JWTMiddleware(app, AUTH)), kind) as url:
        own = url.replace("http", "ws") + "/own"
        async with websockets.connect(own, additional_headers=GOOD, proxy=None) as peer:
            assert await peer.recv() == "ann"
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(own, proxy=None)
    assert caught.value.response.status_code in {401, 403}


# Flask.


async def test_a_view_of_flask_may_be_async() -> None:
    pytest.importorskip("asgiref")
    app = flask.Flask("app")

    @app.get("/")
    @flask_require(AUTH)
    async def endpoint() -> str:
        await asyncio.sleep(0)
        return str(flask.g.principal.subject)

    async with serve_on_threads(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert (await http.get("/", headers=GOOD)).text == "ann"
        assert (await http.get("/")).status_code == 401


@pytest.mark.usefixtures("ws")
async def test_flask_beside_sockets_is_one_application() -> None:
    auth = make_auth()
    io = Server(auth=auth)
    flask_app: Any = flask.Flask("app")
    flask_app.add_url_rule("/me", view_func=flask_require(auth)(lambda: str(flask.g.principal.subject)))
    ann = {"authorization": f"Bearer {make_token(jti='1')}"}
    async with (
        serve(io.asgi(WSGIMiddleware(flask_app))) as url,  # type: ignore[arg-type]  # It names the types of ASGI anew.
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
        websocket(url) as client,
    ):
        await enter(client, jti="1")
        assert (await http.get("/me", headers=ann)).text == "ann"
        await io.revoke(token_id="1")
        assert (await http.get("/me", headers=ann)).status_code == 401


@pytest.mark.parametrize("protected", [False, True])
async def test_a_token_in_the_url_is_found_also_behind_a_guard_that_has_hidden_it(protected: bool) -> None:
    auth = make_auth(sources=[Query("token")])
    sio = socketio.AsyncServer(async_mode="asgi")
    if protected:
        protect(sio, auth)
    sockets = socketio.ASGIApp(sio) if protected else Server(auth=auth).asgi()
    query = {**WEBSOCKET, "token": make_token()}
    async with serve(asgi.JWTMiddleware(sockets, auth)) as url, raw_websocket(url, query) as peer:
        assert str(await within(peer.recv())).startswith("0{")
        await peer.send("40")
        assert str(await within(peer.recv())).startswith("40{")


# Django.


@pytest.mark.parametrize("make", [of_django_wsgi, of_django_asgi])
@pytest.mark.parametrize("path", ["/staff", "/staff-async"])
async def test_a_view_of_django_may_require_scopes(make: Any, path: str) -> None:
    async with make(AUTH, optional=True) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert (await http.get("/")).json()["sub"] is None
        assert (await http.get("/async", headers=GOOD)).json()["sub"] == "ann"
        nobody = await http.get(path)
        assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, 'Bearer realm="api"')
        assert (await http.get(path, headers=GOOD)).status_code == 403
        staff = {"authorization": f"Bearer {make_token(scope='staff')}"}
        assert (await http.get(path, headers=staff)).json()["sub"] == "ann"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (None, "settings.IOGATE says what verifies tokens"),
        ({"optional": True}, "settings.IOGATE says what verifies tokens"),
        ({"auth": "nowhere.auth"}, "settings.IOGATE: .*nowhere"),
        ({"auth": "tests.http.test_guard.NOTHING"}, "settings.IOGATE: .*NOTHING"),
        ({"auth": AUTH, "optinal": True}, "settings.IOGATE: .*optinal"),
        ({"auth": AUTH, "realm": '"'}, "settings.IOGATE: realm"),
    ],
)
def test_what_is_wrong_in_the_settings_of_django_is_said_with_their_name(settings: Any, says: str) -> None:
    iogate_django.guard.cache_clear()
    with override_settings(IOGATE=settings), pytest.raises(ConfigurationError, match=says):
        iogate_django.guard()


async def test_who_shows_a_token_to_django_is_who_the_token_says_for_plain_and_for_async_views() -> None:
    auth = make_auth()
    auth.load_user(lambda claims: f"the user {claims['sub']}")
    request = HttpRequest()
    request.META |= {"HTTP_AUTHORIZATION": GOOD["authorization"], "QUERY_STRING": ""}
    request.user = "who has the session"

    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"{request.user}, {await request.auser()}")

    iogate_django.guard.cache_clear()
    with override_settings(IOGATE={"auth": auth}):
        answer = await iogate_django.JWTMiddleware(view)(request)
    assert answer.content == b"the user ann, the user ann"


async def test_too_many_parameters_are_a_bad_request() -> None:
    query = "&".join(f"a{number}=1" for number in range(100))
    for made in (of_django_wsgi(AUTH), of_django_asgi(AUTH)):
        async with made as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
            assert (await http.get(f"/?{query}", headers=GOOD)).status_code == 400


def test_keys_that_are_fetched_are_fetched_on_the_loop_in_the_background() -> None:
    def key_of(header: Any, claims: Any) -> Any:
        return asyncio.sleep(0, result="a-secret-for-the-tests-that-is-long-enough")

    app = flask.Flask("app")
    app.add_url_rule("/", view_func=flask_require(JWTAuth(keys=key_of, algorithms=["HS256"]))(lambda: "in"))
    for _ in range(2):
        assert app.test_client().get("/", headers=GOOD).text == "in"


async def test_two_guards_of_one_request_find_the_same_token_in_its_url() -> None:
    app = FastAPI(dependencies=[Depends(require(AUTH, sources=[Query("a"), Query("t")]))])
    user = require(AUTH, sources=[Query("t")], scopes="chat:write")

    @app.get("/")
    async def endpoint(text: str, principal: Any = Depends(user)) -> str:  # noqa: B008
        return f"{principal.subject}: {text}"

    async with serve(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        answer = await http.get("/", params={"t": make_token(scope="chat:write"), "text": "hello"})
        assert answer.json() == "ann: hello"
        assert (await http.get("/", params={"t": make_token(), "text": "hello"})).status_code == 403


def test_what_is_taken_out_of_a_url_is_kept_for_the_guards_that_follow() -> None:
    scope = {"type": "http", "query_string": b"a=1&x=0&t=2", "headers": [], "path": "/"}
    first, second = (Guard(AUTH, sources=[Query(name)]) for name in "at")
    for guard in (first, second, first, second):
        assert asgi.handshake_of(guard, scope).query == {"a": "1", "x": "0", "t": "2"}
    assert scope["query_string"] == b"a=REDACTED&x=0&t=REDACTED"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_under_wsgi_a_refusal_is_what_the_standard_asks_for(method: str) -> None:
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        started.append((status, dict(headers)["content-length"]))
        return lambda data: None

    environ: dict[str, Any] = {"REQUEST_METHOD": method, "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    answer: Any = validator(wsgi.JWTMiddleware(lambda environ, start_response: [], AUTH))(environ, start_response)
    body = b"".join(answer)
    answer.close()
    expected = answer_to(CredentialsRequired(), GUARD).body
    assert started == [("401 Unauthorized", str(len(expected)))]
    assert body == (expected if method == "GET" else b"")
