"""Row 49: what denies a request with websockets denies it with picows, and both refuse improper requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from iogate import Server
from iogate.asgi import SocketIOApp
from iogate.asgi_types import ASGIApp, Receive, Scope, Send
from iogate.transports.application import unwrapped, why_unknown
from tests import servers
from tests.attacks.raw import HANDSHAKE, TARGET, request, wire
from tests.attacks.showing import assert_undisturbed, victim
from tests.conformance.conftest import echo_server
from tests.conformance.wire import WEBSOCKET, client, enter, refused, websocket
from tests.servers import make_server, serve

IMPLEMENTATIONS: tuple[servers.Kind, ...] = ("uvicorn", "uvicorn-websockets", "uvicorn-picows")


async def deny(scope: Scope, receive: Receive, send: Send) -> None:
    """Deny a request."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
    else:
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Subclass(SocketIOApp):
    """An application that is one, and yet denies everything."""

    __slots__ = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (super().__call__ if scope["type"] == "lifespan" else deny)(scope, receive, send)


class InnerSubclass(SocketIOApp):
    """An application that denies where it would serve."""

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await deny(scope, receive, send)


class Denying:
    """Middleware that denies everything."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.app if scope["type"] == "lifespan" else deny)(scope, receive, send)


class Delegating(Denying):
    """Middleware that has every attribute of what it wraps."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)


class Claiming(Delegating):
    """Middleware that says that it is a `SocketIOApp`."""

    __class__ = SocketIOApp  # type: ignore[assignment]


class DenyingProxies(ProxyHeadersMiddleware):
    """Middleware that is uvicorn's, and yet denies everything."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await (self.app if scope["type"] == "lifespan" else deny)(scope, receive, send)


def subclassed(io: Server) -> ASGIApp:
    return Subclass(io)


def subclassed_inside(io: Server) -> ASGIApp:
    return InnerSubclass(io)


def changed_class(io: Server) -> ASGIApp:
    app = io.asgi()
    app.__class__ = Subclass
    return app


def wrapped(io: Server) -> ASGIApp:
    return Denying(io.asgi())


def delegating(io: Server) -> ASGIApp:
    return Delegating(io.asgi())


def claiming(io: Server) -> ASGIApp:
    return Claiming(io.asgi())


def attributed(io: Server) -> ASGIApp:
    app = Denying(io.asgi())
    app.server_of_picows = app.server = io  # type: ignore[attr-defined]
    return app


def in_uvicorns(io: Server) -> ASGIApp:
    return ProxyHeadersMiddleware(Delegating(io.asgi()))  # type: ignore[arg-type,return-value]


def subclass_of_uvicorns(io: Server) -> ASGIApp:
    return DenyingProxies(io.asgi())  # type: ignore[arg-type]


def in_starlette(io: Server) -> ASGIApp:
    return Starlette(routes=[Mount("/", io.asgi())], middleware=[Middleware(Denying)])


def function(io: Server) -> ASGIApp:
    app = io.asgi()

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await (app if scope["type"] == "lifespan" else deny)(scope, receive, send)

    return call


WRAPPERS: list[Callable[[Server], ASGIApp]] = [
    *(subclassed, subclassed_inside, changed_class, wrapped, delegating, claiming, attributed, in_uvicorns),
    *(subclass_of_uvicorns, in_starlette, function),
]


async def assert_denied(app: ASGIApp, io: Server, kind: servers.Kind) -> None:
    """Make sure that nobody gets a session, by either transport."""
    async with serve(app, kind) as url:
        assert (await refused(url, WEBSOCKET)).status_code == 403
        async with wire(url) as mallory:
            await mallory.send(request("polling"))
            assert await mallory.status() == 403
        assert not io._core.sessions.table
    await io.shutdown()


@pytest.mark.parametrize("kind", IMPLEMENTATIONS)
@pytest.mark.parametrize("wrap", WRAPPERS, ids=lambda wrap: wrap.__name__)
async def test_whoever_stands_in_front_decides(wrap: Callable[[Server], ASGIApp], kind: servers.Kind) -> None:
    """Row 49: a subclass or a middleware that denies is asked by every one, whatever attributes it has."""
    io = make_server()
    await assert_denied(wrap(io), io, kind)


@pytest.mark.parametrize("kind", IMPLEMENTATIONS)
@pytest.mark.parametrize("method", ["__call__", "_serve", "_websocket"])
async def test_a_patched_application_decides(method: str, kind: servers.Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 49: also where the class itself was patched, as tools that trace requests do."""
    original: Any = getattr(SocketIOApp, method)
    asked = []

    async def patched(self: SocketIOApp, first: Any, second: Any, third: Any, *rest: Any) -> None:
        asked.append(first)
        await original(self, first, second, third, *rest)

    monkeypatch.setattr(SocketIOApp, method, patched)
    async with serve(echo_server(), kind) as url, websocket(url) as alice:
        await enter(alice)
        assert asked


@pytest.mark.parametrize("kind", IMPLEMENTATIONS)
async def test_a_server_that_is_exchanged_is_the_one_that_decides(kind: servers.Kind) -> None:
    """Row 49."""
    first, second = make_server(), make_server(cors_allowed_origins=["https://chat.example"])
    app = first.asgi()
    async with serve(app, kind) as url:
        app.server = second
        async with websocket(url, Origin="https://chat.example") as alice:
            await enter(alice)
            assert not first._core.sessions.table
            assert len(second._core.sessions.table) == 1
        app.server = first
        assert (await refused(url, WEBSOCKET, Origin="https://chat.example")).status_code == 403
    await second.shutdown()


@pytest.mark.parametrize("kind", IMPLEMENTATIONS)
async def test_middleware_of_uvicorn_that_is_there_twice_is_asked_twice(kind: servers.Kind) -> None:
    """Row 49: the address is the same with all."""
    io = echo_server()
    app = ProxyHeadersMiddleware(io.asgi(), trusted_hosts="192.0.2.1")  # type: ignore[arg-type]
    async with serve(app, kind) as url, websocket(url, **{"X-Forwarded-For": "192.0.2.9, 192.0.2.1"}):
        (connection,) = io._core.sessions.table.values()
        assert connection.handshake.address == "192.0.2.9"
    await io.shutdown()


def test_what_is_known_is_known_exactly() -> None:
    """Row 49: the application of a server, alone or in the middleware that uvicorn itself puts around it."""
    io = make_server()
    assert unwrapped(io.asgi())[0] is unwrapped(ProxyHeadersMiddleware(io.asgi()))[0] is io._core  # type: ignore[arg-type]
    assert why_unknown(io.asgi()) is None
    for wrap in WRAPPERS:
        assert unwrapped(wrap(io))[0] is None
        assert "not what io.asgi() returns" in str(why_unknown(wrap(io)))


# Requests that are none.

BOTH = ("polling", "websocket")
HOSTS = {
    "missing": [],
    "twice": ["Host: chat.example", "Host: evil.example"],
    "twice the same": ["Host: chat.example", "Host: chat.example"],
    "empty": ["Host:"],
    "with a space": ["Host: chat.example evil.example"],
    "with a comma and a space": ["Host: chat.example, evil.example"],
    "with a user": ["Host: chat.example@evil.example"],
    "with a path": ["Host: chat.example/evil"],
    "with a bad port": ["Host: chat.example:evil"],
    "with half an address": ["Host: [::1"],
}


@pytest.mark.parametrize("kind", [*IMPLEMENTATIONS, "hypercorn"])
@pytest.mark.parametrize("transport", BOTH)
@pytest.mark.parametrize("host", HOSTS)
async def test_a_host_that_is_none(host: str, transport: str, kind: servers.Kind) -> None:
    """Row 49: missing, doubled or invalid (RFC 9112, section 3.2), it is answered 400."""
    io = echo_server()
    async with serve(io, kind) as url, wire(url) as mallory:
        await mallory.send(request(transport, *HOSTS[host], without="Host"))
        assert await mallory.status() == 400
        assert not io._core.sessions.table


@pytest.mark.parametrize("kind", IMPLEMENTATIONS)
@pytest.mark.parametrize("transport", BOTH)
@pytest.mark.parametrize("host", ["chat.example", "chat.example:3000", "[2001:db8::1]:3000", "192.0.2.1", "a_b:"])
async def test_a_host_that_is_one(host: str, transport: str, kind: servers.Kind) -> None:
    """Row 49: a name or an address, with a port or without, is served."""
    async with serve(echo_server(), kind) as url, wire(url) as alice:
        await alice.send(request(transport, f"Host: {host}", without="Host"))
        assert await alice.status() in (101, 200)


GET = f"GET {TARGET}%s HTTP/1.1"
POST = f"POST {TARGET}%s HTTP/1.1"
KEY = f"Sec-WebSocket-Key: {HANDSHAKE['Sec-WebSocket-Key']}"

# What is asked, and the statuses on polling and on WebSocket; None where it is no matter of that transport.
ODD: dict[str, tuple[Callable[[str], bytes], int | None, int | None]] = {
    "two lengths": (lambda t: request(t, "Content-Length: 1", "Content-Length: 2") + b"ab", 400, 400),
    "the same length twice": (lambda t: request(t, "Content-Length: 1", "Content-Length: 1") + b"a", 400, 400),
    "a length and chunks": (
        lambda t: request(t, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        400,
        400,
    ),
    "an unknown encoding": (
        lambda t: request(t, "Transfer-Encoding: identity", first=POST % t) + b"0\r\n\r\n",
        400,
        400,
    ),
    "a WebSocket with a body": (lambda t: request(t, "Content-Length: 1") + b"a", None, 400),
    "a WebSocket with chunks": (lambda t: request(t, "Transfer-Encoding: chunked") + b"0\r\n\r\n", None, 400),
    "bare line feeds": (lambda t: request(t).replace(b"\r\n", b"\n"), 400, 400),
    "one bare line feed": (lambda t: request(t).replace(b"example\r\n", b"example\n"), 400, 400),
    "a folded line": (lambda t: request(t, "A: b\r\n c"), 400, 400),
    "a space before the colon": (lambda t: request(t, "A : b"), 400, 400),
    "no name": (lambda t: request(t, ": b"), 400, 400),
    "no colon": (lambda t: request(t, "A"), 400, 400),
    "a NUL": (lambda t: request(t, "A: \x00"), 400, 400),
    "an absolute target": (lambda t: request(t, first=f"GET http://chat.example{TARGET}{t} HTTP/1.1"), 200, 404),
    "a target that is not ASCII": (lambda t: request(t, first=f"GET {TARGET}{t}&\xe9 HTTP/1.1"), 400, 400),
    "a lower-case method": (lambda t: request(t, first=f"get {TARGET}{t} HTTP/1.1"), 400, 400),
    "a WebSocket by POST": (lambda t: request(t, first=POST % t), None, 405),
    "HTTP/1.0": (lambda t: request(t, first=f"GET {TARGET}{t} HTTP/1.0"), 200, 400),
    "two keys": (lambda t: request(t, KEY), None, 400),
    "no key": (lambda t: request(t, without="Sec-WebSocket-Key"), None, 400),
    "a short key": (lambda t: request(t, "Sec-WebSocket-Key: AAAA", without="Sec-WebSocket-Key"), None, 400),
    "two versions": (lambda t: request(t, "Sec-WebSocket-Version: 13"), None, 400),
    "another version": (
        lambda t: request(t, "Sec-WebSocket-Version: 8", without="Sec-WebSocket-Version"),
        None,
        400,
    ),
    "no version": (lambda t: request(t, without="Sec-WebSocket-Version"), None, 400),
    "two upgrades": (lambda t: request(t, "Upgrade: websocket"), None, 426),
    "a list of upgrades": (lambda t: request(t, "Upgrade: websocket, h2c", without="Upgrade"), None, 400),
    "two fields for the connection": (lambda t: request(t, "Connection: keep-alive"), 200, 101),
    "another origin, in an odd request": (lambda t: request(t, "Origin: http://evil.example", "A: \xe9"), 403, 403),
}


@pytest.mark.parametrize("pieces", ["at once", "in pieces"])
@pytest.mark.parametrize("kind", ["uvicorn-websockets", "uvicorn-picows"])
@pytest.mark.parametrize("transport", BOTH)
@pytest.mark.parametrize("what", ODD)
async def test_an_odd_request_has_one_answer(
    what: str, transport: str, kind: servers.Kind, pieces: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 49: both libraries of `iogate run` understand it alike, however it arrives, and serve others meanwhile."""
    make, *statuses = ODD[what]
    status = statuses[BOTH.index(transport)]
    if status is None:
        return
    monkeypatch.setattr(servers, "WS", kind)
    io = echo_server()
    data = make(transport)
    cut = len(data) // 2 if pieces == "in pieces" else 0
    async with victim(io, "polling") as (url, alice), wire(url) as mallory:
        if cut:
            await mallory.send(data[:cut])
            await assert_undisturbed(io, alice)
        await mallory.send(data[cut:])
        assert await mallory.status() == status
        await assert_undisturbed(io, alice)


async def test_a_websocket_that_is_switched_off_is_off_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 49: `ws="none"` of uvicorn holds where picows looks at requests first."""
    monkeypatch.setitem(servers.PROTOCOLS["uvicorn-picows"], "ws", "none")
    async with serve(echo_server(), "uvicorn-picows") as url, wire(url) as alice:
        await alice.send(request("websocket"))
        assert await alice.status() == 400
        async with client(url) as http:
            assert (await http.get(TARGET + "polling")).status_code == 200
