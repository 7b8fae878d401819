"""A page of another site that starts something with the visitor's cookie gets nowhere, whatever it starts."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import WebSocketRoute

from iogate import AuthError, BearerHeader, Cookie, Server
from iogate.http import asgi
from iogate.http.fastapi import require
from iogate.http.guard import WEBSOCKET, CrossSite, DoubleSubmit, Guard, HTTPRequest
from iogate.http.starlette import JWTBackend
from iogate.server.session.handshake import Handshake
from tests.gate.support import make_auth
from tests.servers import make_token, serve

OURS, THEIRS = "https://app.example", "https://evil.example"


async def _greet(connection: WebSocket) -> None:
    await connection.accept()
    await connection.send_text(connection.state.principal.subject)
    await connection.close()


def asgi_app(**settings: Any) -> Any:
    inner = Starlette(routes=[WebSocketRoute("/own", _greet)])
    return asgi.JWTMiddleware(inner, make_auth(), **settings)


def starlette_app(**settings: Any) -> Any:
    backend = JWTBackend(make_auth(), **settings)
    middleware = [Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)]
    return Starlette(routes=[WebSocketRoute("/own", _greet)], middleware=middleware)


def fastapi_app(**settings: Any) -> Any:
    app, user = FastAPI(), require(make_auth(), **settings)

    @app.websocket("/own")
    async def own(connection: WebSocket, principal: Any = Depends(user)) -> None:  # noqa: B008
        await _greet(connection)

    return app


@asynccontextmanager
async def opened(app: Any, **details: Any) -> Any:
    async with serve(Server(auth=None).asgi(app)) as url:
        own = url.replace("http", "ws") + "/own"
        headers = {"cookie": f"t={make_token()}"}
        async with websockets.connect(own, additional_headers=headers, proxy=None, **details) as peer:
            yield peer


@pytest.mark.parametrize("make", [asgi_app, starlette_app, fastapi_app])
@pytest.mark.parametrize("optional", [False, True])
async def test_a_websocket_that_another_site_opens_with_the_cookie_is_refused(
    make: Callable[..., Any], optional: bool
) -> None:
    settings: dict[str, Any] = {"sources": [Cookie("t")], "origins": [OURS], "optional": optional}
    async with opened(make(**settings), origin=OURS) as peer:
        assert await peer.recv() == "ann"
    for origin in (THEIRS, "null", None):
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with opened(make(**settings), origin=origin):
                pass
        assert caught.value.response.status_code == 403


async def test_a_websocket_shows_no_second_cookie_so_that_it_takes_an_origin() -> None:
    guard = Guard(make_auth(), sources=[Cookie("t")], csrf=DoubleSubmit())
    handshake = Handshake([(b"cookie", f"t={make_token()}; __Host-csrf=abc".encode())])
    with pytest.raises(CrossSite):
        await guard.check(HTTPRequest(handshake, WEBSOCKET))


async def test_a_server_that_any_page_may_connect_to_says_nothing_about_whose_page_it_is() -> None:
    io = Server(auth=make_auth(), cors_allowed_origins=["*"])
    for auth in (io, make_auth()):
        guard = Guard(auth, sources=[Cookie("t")], csrf=DoubleSubmit())
        head = [(b"cookie", f"t={make_token()}".encode()), (b"host", b"app.example")]
        for origin in (THEIRS, "http://app.example"):  # The second is of this host, but was not listed.
            with pytest.raises(CrossSite):
                await guard.check(HTTPRequest(Handshake([*head, (b"origin", origin.encode())]), "POST"))


class Own:
    """A source of the application's own making."""

    def read(self, request: Any) -> Any:
        return request.cookies.get("t")


async def _found(request: Any) -> Any:
    return request.cookies.get("t")


@pytest.mark.parametrize(
    "source", [lambda request: request.cookies.get("t"), lambda request: request.headers["cookie"][2:], _found, Own()]
)
@pytest.mark.parametrize("method", ["POST", WEBSOCKET])
async def test_a_function_that_takes_the_token_from_a_cookie_is_no_way_around_it(source: Any, method: str) -> None:
    head = [(b"cookie", f"t={make_token()}".encode())]
    ours, theirs = (Handshake([*head, (b"origin", origin.encode())]) for origin in (OURS, THEIRS))
    cases: list[tuple[dict[str, Any], Handshake]] = [({}, ours), ({"origins": [OURS]}, theirs)]
    for settings, handshake in cases:
        with pytest.raises(CrossSite):
            await Guard(make_auth(), sources=[source], **settings).check(HTTPRequest(handshake, method))
    guard = Guard(make_auth(), sources=[source], origins=[OURS])
    assert await guard.check(HTTPRequest(ours, method)) is not None
    assert await guard.check(HTTPRequest(Handshake(head), "GET")) is not None


async def test_a_token_that_a_function_takes_out_of_what_a_cookie_holds_is_one_of_a_cookie() -> None:
    guard = Guard(make_auth(), sources=[lambda request: b64decode(request.cookies["session"]).decode()])
    session = b"session=" + b64encode(make_token().encode())
    with pytest.raises(CrossSite):
        await guard.check(HTTPRequest(Handshake([(b"cookie", session)]), "POST"))


async def test_a_function_that_takes_the_token_from_outside_of_the_cookies_needs_no_origin() -> None:
    token, theme = make_token(), (b"cookie", b"theme=dark")
    shown = {
        "header": Handshake([(b"x-token", f"v1.{token}".encode()), theme]),
        "query": Handshake([theme], {"token": f"v1.{token}"}),
        "field": Handshake([theme]),
        "header, encoded, from who has no cookies": Handshake([(b"x-token", b64encode(token.encode()))]),
    }
    for where, handshake in shown.items():
        guard = Guard(make_auth(), sources=[lambda request: token])
        request = HTTPRequest(handshake, "POST", {"token": token} if where == "field" else {"tags": ["a", "b"]})
        assert await guard.check(request) is not None, where


async def test_the_token_of_a_cookie_is_one_of_a_cookie_also_if_it_stands_elsewhere_too() -> None:
    token = make_token()
    guard = Guard(make_auth(), sources=[Cookie("t")], origins=[OURS])
    handshake = Handshake([(b"cookie", f"t={token}".encode()), (b"x-token", token.encode())])
    with pytest.raises(CrossSite):
        await guard.check(HTTPRequest(handshake, "POST"))


async def test_a_header_counts_also_if_the_same_token_is_in_a_cookie_that_nobody_reads() -> None:
    token = make_token()
    handshake = Handshake([(b"cookie", f"t={token}".encode()), (b"authorization", f"Bearer {token}".encode())])
    assert await Guard(make_auth(), sources=[BearerHeader()]).check(HTTPRequest(handshake, "POST")) is not None


async def test_a_header_beside_the_cookie_of_another_site_is_no_way_around_it() -> None:
    guard = Guard(make_auth(), sources=[BearerHeader(), Cookie("t")], origins=[OURS])
    handshake = Handshake([(b"cookie", f"t={make_token()}".encode()), (b"authorization", b"Bearer x")])
    with pytest.raises(AuthError):
        await guard.check(HTTPRequest(handshake, "POST"))
