"""A WebSocket or a streamed response behind a guard ends with the identity that it was let in with."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.responses import StreamingResponse as StarletteStreamingResponse
from starlette.routing import Route, WebSocketRoute

from iogate import KeySetFile, MemoryRevocations, Principal, Revocation, Server, background
from iogate.asgi_types import Message, Receive, Scope, Send
from iogate.http import Guard
from iogate.http.asgi import JWTMiddleware
from iogate.http.fastapi import require
from iogate.http.starlette import JWTBackend
from iogate.http.streams import STREAM, Stream, StreamEnded, StreamMiddleware
from tests.conformance.wire import within
from tests.gate.support import SteppedClock, StoppedWallClock, make_auth
from tests.keys.support import Issuer
from tests.keys.test_file import write
from tests.servers import Kind, make_token, serve


class Application:
    """What stands behind the guard: a WebSocket that repeats, and says how it ended."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.sent_late: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        self.ended.set_result((message["code"], message["reason"]))
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except OSError as error:
            self.sent_late.set_result(error)
            raise
        self.sent_late.set_result(None)

    async def starlette(self, websocket: WebSocket, principal: Any = None) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as end:
            self.ended.set_result((end.code, end.reason))
        try:
            await websocket.send_text("too late")
        except WebSocketDisconnect as error:
            self.sent_late.set_result(error)


def of_asgi(app: Application, auth: Any) -> Any:
    return JWTMiddleware(app.asgi, auth)


def of_starlette(app: Application, auth: Any) -> Any:
    backend = JWTBackend(auth)
    middleware = [
        Middleware(StreamMiddleware),
        Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error),
    ]
    return Starlette(routes=[WebSocketRoute("/own", app.starlette)], middleware=middleware)


def of_fastapi(app: Application, auth: Any) -> Any:
    web = FastAPI()
    web.websocket("/own", dependencies=[Depends(require(auth))])(app.starlette)
    return web


def of_fastapi_with_an_argument(app: Application, auth: Any) -> Any:
    web, user = FastAPI(), require(auth)

    @web.websocket("/own")
    async def own(websocket: WebSocket, principal: Any = Depends(user)) -> None:  # noqa: B008
        await app.starlette(websocket)

    return web


Guarded = Callable[[Application, Any], Any]
GUARDED: list[Guarded] = [of_asgi, of_starlette, of_fastapi, of_fastapi_with_an_argument]


@pytest.fixture(params=GUARDED, ids=lambda made: made.__name__)
def guarded(request: pytest.FixtureRequest) -> Guarded:
    """Each way in which a plain WebSocket can be guarded."""
    made: Guarded = request.param
    return made


@pytest.fixture(params=["uvicorn", "uvicorn-wsproto", "uvicorn-picows", "hypercorn"])
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@asynccontextmanager
async def connected(app: Any, io: Server, kind: Kind = "uvicorn", **claims: Any) -> AsyncIterator[Any]:
    """Serve an application beside Socket.IO, and open its WebSocket."""
    async with serve(io.asgi(app), kind) as url:
        headers = {"authorization": f"Bearer {make_token(**claims)}"}
        address = url.replace("http", "ws") + "/own"
        async with websockets.connect(address, additional_headers=headers, proxy=None) as peer:
            await peer.send("hello")
            assert await within(peer.recv()) == "hello"
            yield peer


async def is_closed(peer: Any, reason: str, code: int = 1008) -> None:
    """Make sure that the client is told why, and gets nothing else."""
    with pytest.raises(websockets.ConnectionClosed):
        await within(peer.recv())
    assert (peer.close_code, peer.close_reason) == (code, reason)


# WebSockets.


async def test_a_revocation_closes_a_websocket_and_nothing_more_is_sent(
    guarded: Guarded, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """The application gets `websocket.disconnect`, its next send raises, and the ASGI server logs no traceback."""
    auth, app = make_auth(), Application()
    io = Server(auth=auth)
    async with connected(guarded(app, auth), io, kind) as peer:
        assert len(auth.watchers) == 1
        await io.revoke(subject="ann")
        await is_closed(peer, "The token has been revoked")
        assert await within(app.ended) == (1008, "The token has been revoked")
        assert isinstance(await within(app.sent_late), OSError | WebSocketDisconnect)
    assert not auth.watchers
    assert not [record for record in caplog.records if record.exc_info]


async def test_at_the_end_of_its_token_a_websocket_is_closed(guarded: Guarded, kind: Kind) -> None:
    """Also if it is idle."""
    clock, app = StoppedWallClock(), Application()
    auth = make_auth(clock=clock)
    async with connected(guarded(app, auth), Server(auth=auth), kind, exp=clock.now + 1) as peer:
        await is_closed(peer, "jwt expired")
        assert await within(app.ended) == (1008, "jwt expired")
    assert not auth.watchers


async def test_a_revocation_of_somebody_else_leaves_a_websocket_alone(guarded: Guarded) -> None:
    """And so does the end of a client that leaves by itself."""
    auth, app = make_auth(), Application()
    io = Server(auth=auth)
    async with connected(guarded(app, auth), io) as peer:
        await io.revoke(subject="bob")
        await peer.send("still here")
        assert await within(peer.recv()) == "still here"
        await peer.close(1000, "bye")
        assert (await within(app.ended))[0] == 1000
    assert not auth.watchers


async def test_any_server_that_shares_the_auth_ends_it(guarded: Guarded) -> None:
    """Also where the guard was given another server, or the auth alone."""
    auth, app = make_auth(), Application()
    first, second = Server(auth=auth), Server(auth=auth, path="/second")
    async with connected(guarded(app, first), first) as peer:
        await second.revoke(subject="ann")
        await is_closed(peer, "The token has been revoked")


async def test_a_server_on_another_event_loop_ends_it(guarded: Guarded) -> None:
    """Such as one of `protect` for threads."""
    asyncio.get_running_loop().set_debug(True)  # Then it objects to calls from another thread.
    auth, app = make_auth(), Application()
    io = Server(auth=auth)
    async with connected(guarded(app, auth), Server(auth=None)) as peer:
        await asyncio.to_thread(background.run, io.revoke(subject="ann"))
        await is_closed(peer, "The token has been revoked")


async def test_a_removed_key_ends_it(guarded: Guarded, tmp_path: Path) -> None:
    """Where `revoke_removed` says so, and no other key's."""
    path, app = tmp_path / "jwks.json", Application()
    write(path, "ES256", "ES384")
    keys, issuer = KeySetFile(path, revoke_removed=True), Issuer("https://id.example.com")
    auth = issuer.auth(keys)
    io = Server(auth=auth)
    async with serve(io.asgi(guarded(app, auth))) as url:
        headers = {"authorization": f"Bearer {issuer.token('ES256')}"}
        async with websockets.connect(
            url.replace("http", "ws") + "/own", additional_headers=headers, proxy=None
        ) as peer:
            write(path, "ES256")
            await keys.refresh()
            await peer.send("hello")
            assert await within(peer.recv()) == "hello"
            write(path, "ES384")
            await keys.refresh()
            await is_closed(peer, "invalid token")


async def test_without_a_server_a_store_is_asked_again_by_itself(guarded: Guarded) -> None:
    """A store of the guard's own cannot tell; an idle WebSocket ends within a second all the same."""
    auth, app, store = make_auth(), Application(), MemoryRevocations()
    guard = Guard(auth, revocations=store)
    async with connected(guarded(app, guard), Server(auth=None)) as peer:
        store.add(Revocation(subject="ann", until=time.time() + 60), time.time())
        await is_closed(peer, "The token has been revoked")


async def test_a_websocket_under_starlettes_middleware_alone_ends_too() -> None:
    """Nothing there hands over its messages: its task is cancelled, so that the close frame is the ASGI server's."""
    auth, app = make_auth(), Application()
    backend, io = JWTBackend(auth), Server(auth=auth)
    middleware = [Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)]
    web = Starlette(routes=[WebSocketRoute("/own", app.starlette)], middleware=middleware)
    async with connected(web, io) as peer:
        await io.revoke(subject="ann")
        with pytest.raises(websockets.ConnectionClosed):
            await within(peer.recv())
    assert not auth.watchers


async def test_a_websocket_without_a_token_is_nobodys_and_stays() -> None:
    """Where a token is optional."""
    auth, app = make_auth(), Application()
    io = Server(auth=auth)
    async with (
        serve(io.asgi(JWTMiddleware(app.asgi, auth, optional=True))) as url,
        websockets.connect(url.replace("http", "ws") + "/own", proxy=None) as peer,
    ):
        await io.revoke(subject="ann")
        await peer.send("hello")
        assert await within(peer.recv()) == "hello"


async def test_two_guards_end_the_same_websocket() -> None:
    """Each with its own identity: the first that ends counts."""
    first, second, app = make_auth(), make_auth(), Application()
    io = Server(auth=second)
    web = JWTMiddleware(JWTMiddleware(app.asgi, second), first)
    async with connected(web, io) as peer:
        assert (len(first.watchers), len(second.watchers)) == (1, 1)
        await io.revoke(subject="ann")
        await is_closed(peer, "The token has been revoked")
    assert not first.watchers | second.watchers


# What is under way when it ends.


class Wire:
    """The ASGI server's side of one WebSocket, by hand: what is sent waits until the client reads."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reached = asyncio.Event()
        self.sent: list[Message] = []
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()

    async def send(self, message: Message) -> None:
        self.reached.set()
        await self.reads.wait()
        self.sent.append(message)


def make_stream(guard: Guard, wire: Wire, **claims: Any) -> Stream:
    """Return a WebSocket that the guard has let in."""
    stream = Stream("websocket", wire.incoming.get, wire.send, begun=True)
    stream.bind(guard, guard.auth.verify(make_token(**claims)))  # type: ignore[attr-defined]
    return stream


async def test_what_waits_for_a_slow_client_is_not_sent_after_a_revocation() -> None:
    """When `revoke` has returned, the message that the ASGI server had not taken yet is dropped."""
    auth, wire = make_auth(), Wire()
    io = Server(auth=auth)
    stream = make_stream(Guard(auth), wire)
    sending = asyncio.create_task(stream.send({"type": "websocket.send", "text": "secret"}))
    await within(wire.reached.wait())
    await io.revoke(subject="ann")
    wire.reads.set()
    with pytest.raises(StreamEnded):
        await within(sending)
    assert [message["type"] for message in wire.sent] == ["websocket.close"]


async def test_what_comes_after_a_revocation_does_not_reach_the_application() -> None:
    """Row 43: also from a store that nobody tells of: the identity is checked after every wait."""
    store, wire = MemoryRevocations(), Wire()
    stream = make_stream(Guard(make_auth(), revocations=store), wire)
    wire.reads.set()
    receiving = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    store.add(Revocation(subject="ann", until=time.time() + 60), time.time())
    wire.incoming.put_nowait({"type": "websocket.receive", "text": "delete everything"})
    assert (await within(receiving))["type"] == "websocket.disconnect"


async def test_a_wall_clock_that_is_set_back_gives_no_longer_life() -> None:
    """And one that is set forward takes nothing: the end of the token is a deadline of the monotonic clock."""

    class Stepped(SteppedClock):
        ahead = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead

    clock = Stepped()
    stream = make_stream(Guard(make_auth(clock=clock, expiry_grace=30)), Wire(), exp=int(time.time()) + 60)
    clock.step = 3600
    assert not stream.look()
    clock.step = -3600
    clock.ahead = 89
    assert not stream.look()
    clock.ahead = 91
    assert stream.look()


async def test_a_client_that_does_not_read_holds_nobody_up() -> None:
    """The application is told after a second, whether or not the client has taken the close frame."""
    io = Server(auth=(auth := make_auth()))
    stream = make_stream(Guard(auth), Wire())
    await io.revoke(subject="ann")
    assert (await within(stream.receive()))["type"] == "websocket.disconnect"
    await stream.send({"type": "websocket.close"})  # What an application says at its end is no error.


async def test_a_websocket_that_ends_before_it_is_accepted_is_refused_as_asgi_has_it() -> None:
    """The application gets `websocket.connect` all the same, and learns of the end from what it sends."""
    io, wire = Server(auth=(auth := make_auth())), Wire()
    wire.reads.set()
    stream = Stream("websocket", wire.incoming.get, wire.send)
    stream.bind(Guard(auth), auth.verify(make_token()))
    wire.incoming.put_nowait({"type": "websocket.connect"})
    await io.revoke(subject="ann")
    assert (await within(stream.receive()))["type"] == "websocket.connect"
    with pytest.raises(StreamEnded):
        await stream.send({"type": "websocket.accept"})
    assert [message["type"] for message in wire.sent] == ["websocket.close"]


async def test_a_store_that_fails_ends_a_websocket(caplog: pytest.LogCaptureFixture) -> None:
    """Whether the token was revoked is then not known; the client is told to come again later."""

    class Broken(MemoryRevocations):
        def revoked(self, principal: Principal, now: float) -> bool:
            raise ConnectionError("the inside")

    wire = Wire()
    wire.reads.set()
    stream = make_stream(Guard(make_auth(), revocations=Broken()), wire)
    with pytest.raises(StreamEnded):
        await stream.send({"type": "websocket.send", "text": "secret"})
    assert [(message["type"], message["reason"]) for message in wire.sent] == [
        ("websocket.close", "Authentication is unavailable")
    ]
    assert "the inside" in caplog.text


async def test_a_timeout_of_the_servers_own_is_not_taken_for_an_end() -> None:
    """What the ASGI server raises passes through."""

    async def send(message: Message) -> None:
        raise TimeoutError

    stream = Stream("websocket", Wire().incoming.get, send, begun=True)
    with pytest.raises(TimeoutError):
        await stream.send({"type": "websocket.send", "text": ""})


# Streamed responses.


class Source:
    """A streamed response, one part for each that the test puts."""

    def __init__(self, media_type: str, headers: dict[str, str] | None = None) -> None:
        self.parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.media_type = media_type
        self.headers = headers or {}

    async def body(self) -> AsyncIterator[bytes]:
        while (part := await self.parts.get()) is not None:
            yield part

    def starlette(self, auth: Any) -> Any:
        async def endpoint(request: Request) -> Any:
            return StarletteStreamingResponse(self.body(), media_type=self.media_type, headers=self.headers)

        backend = JWTBackend(auth)
        middleware = [
            Middleware(StreamMiddleware),
            Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error),
        ]
        return Starlette(routes=[Route("/", endpoint)], middleware=middleware)

    def fastapi(self, auth: Any) -> Any:
        app = FastAPI(dependencies=[Depends(require(auth))])
        app.add_middleware(StreamMiddleware)

        @app.get("/")
        async def endpoint() -> StreamingResponse:
            return StreamingResponse(self.body(), media_type=self.media_type, headers=self.headers)

        return app

    def asgi(self, auth: Any) -> Any:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                raise NotImplementedError
            headers = {"content-type": self.media_type} | self.headers
            fields = [(name.encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            while (part := await self.parts.get()) is not None:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        return JWTMiddleware(app, auth)


@pytest.fixture(params=["asgi", "starlette", "fastapi"])
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@asynccontextmanager
async def streamed(app: Any, io: Server, kind: Kind = "uvicorn", **claims: Any) -> AsyncIterator[Any]:
    headers = {"authorization": f"Bearer {make_token(**claims)}"}
    async with (
        serve(io.asgi(app), kind) as url,
        httpx.AsyncClient(trust_env=False) as http,
        http.stream("GET", url, headers=headers) as answer,
    ):
        yield answer.aiter_bytes()


@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn"])
async def test_an_event_stream_ends_at_a_revocation(framework: str, kind: Kind) -> None:
    """It is completed, so that the browser reconnects, and is then told that the token is no longer good."""
    auth, source = make_auth(), Source("text/event-stream")
    io = Server(auth=auth)
    async with streamed(getattr(source, framework)(auth), io, kind) as parts:
        source.parts.put_nowait(b"data: 1\n\n")
        assert await within(anext(parts)) == b"data: 1\n\n"
        await io.revoke(subject="ann")
        source.parts.put_nowait(b"data: secret\n\n")
        with pytest.raises(StopAsyncIteration):
            await within(anext(parts))
        source.parts.put_nowait(None)
    assert not auth.watchers


async def test_an_event_stream_ends_with_its_token(framework: str) -> None:
    """Also if nothing is sent."""
    clock, source = StoppedWallClock(), Source("text/event-stream")
    auth = make_auth(clock=clock)
    async with streamed(getattr(source, framework)(auth), Server(auth=auth), exp=clock.now + 1) as parts:
        source.parts.put_nowait(b"data: 1\n\n")
        assert await within(anext(parts)) == b"data: 1\n\n"
        with pytest.raises(StopAsyncIteration):
            await within(anext(parts))
        source.parts.put_nowait(b"data: secret\n\n")
        source.parts.put_nowait(None)


async def test_any_other_stream_is_broken_off(framework: str) -> None:
    """So that nobody takes half an export for a whole one."""
    auth, source = make_auth(), Source("text/csv")
    io = Server(auth=auth)
    async with streamed(getattr(source, framework)(auth), io) as parts:
        source.parts.put_nowait(b"1,2\n")
        assert await within(anext(parts)) == b"1,2\n"
        await io.revoke(subject="ann")
        source.parts.put_nowait(b"secret\n")
        with pytest.raises(httpx.RemoteProtocolError):
            await within(anext(parts))
        source.parts.put_nowait(None)


async def test_a_response_that_says_how_long_it_is_is_completed(framework: str) -> None:
    """A download that has begun does not fail because its token expires in the middle."""
    auth, source = make_auth(), Source("text/csv", {"content-length": "6"})
    io = Server(auth=auth)
    async with streamed(getattr(source, framework)(auth), io) as parts:
        source.parts.put_nowait(b"1,2")
        assert await within(anext(parts)) == b"1,2"
        await io.revoke(subject="ann")
        source.parts.put_nowait(b"3,4")
        source.parts.put_nowait(None)
        assert await within(anext(parts)) == b"3,4"


@pytest.mark.parametrize("sized", [True, False])
async def test_a_request_that_revokes_its_own_token_is_answered(sized: bool) -> None:
    """Such as the one by which a person signs out."""
    auth = make_auth()
    io = Server(auth=auth)

    async def sign_out(request: Request) -> Any:
        await io.revoke(subject=request.state.principal.subject)
        return JSONResponse({"signed": "out"}) if sized else _answer

    async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"signed": "out"}'})

    app = JWTMiddleware(Starlette(routes=[Route("/", sign_out, methods=["POST"])]), auth)
    headers = {"authorization": f"Bearer {make_token()}"}
    async with serve(io.asgi(app)) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert (await http.post("/", headers=headers)).json() == {"signed": "out"}
        assert (await http.post("/", headers=headers)).status_code == 401


async def test_what_an_application_raises_itself_is_not_hidden() -> None:
    """Only what told it of the end is."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("of its own")

    async def nothing() -> Message:
        raise AssertionError

    async def nowhere(message: Message) -> None:
        raise AssertionError

    scope: Scope = {"type": "http"}
    with pytest.raises(ValueError, match="of its own"):
        await StreamMiddleware(app)(scope, nothing, nowhere)
    assert STREAM not in scope


async def test_the_log_says_who_was_disconnected_and_why(caplog: pytest.LogCaptureFixture) -> None:
    """Row 47: with the subject escaped and not the token."""
    caplog.set_level(logging.INFO, "iogate")
    io = Server(auth=(auth := make_auth()))
    wire = Wire()
    wire.reads.set()
    make_stream(Guard(auth), wire, sub="ann\nroot")
    await io.revoke(subject="ann\nroot")
    assert r"disconnected ann\nroot from a WebSocket or stream: revoked_token" in caplog.text
