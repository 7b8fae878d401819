"""Each ASGI server that users choose, with the user's own application beside iogate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import websockets
from fastapi import FastAPI, WebSocket

from iogate import Server, Socket
from tests.conformance.wire import WITHIN, ends, enter, polling, websocket, within
from tests.e2e.official import call, connect, emit, events, of, run_client, wait, wait_event
from tests.refusals import INVALID
from tests.servers import KINDS, Kind, make_server, make_token, serve


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each server on which iogate must run."""
    chosen: Kind = request.param
    return chosen


def chat_server() -> Server:
    """Return the chat of the README."""
    io = make_server()

    @io.on("connect")
    async def greet(socket: Socket) -> None:
        socket.emit("greeting", f"Hello {socket.claims['name']}!")

    @io.on("message")
    async def relay(socket: Socket, text: str) -> str:
        io.emit("message", text)
        return "relayed"

    return io


async def test_people_chat_on_every_transport(kind: Kind, transports: list[str]) -> None:
    upgraded = [wait("upgrade")] if len(transports) > 1 else []
    async with serve(chat_server(), kind) as url:
        lines = await run_client(
            url,
            connect(name="ann", auth={"token": make_token(name="Ann")}),
            wait("connect", "ann"),
            *upgraded,
            connect(name="bob", forceNew=True, auth={"token": make_token(name="Bob", sub="bob")}),
            wait("connect", "bob"),
            *upgraded,
            wait_event("greeting", "bob"),
            emit("message", "good morning 👋", on="ann"),
            wait_event("message", "ann"),
            wait_event("message", "bob"),
            call("message", b"\x00\x01", on="bob"),
            wait_event("message", "ann"),
            connect(name="eve", forceNew=True, auth={"token": "forged"}),
            wait("connect_error", "eve"),
            transports=transports,
        )
    assert events(lines, "greeting") == [["Hello Ann!"], ["Hello Bob!"]]
    assert events(lines, "message", "ann") == [["good morning 👋"], [b"\x00\x01"]]
    assert of(lines, "ack")[0]["args"] == ["relayed"]
    assert of(lines, "connect_error")[0]["data"] == INVALID["data"]
    assert events(lines, "message", "eve") == []


async def test_the_applications_own_routes_and_lifespan_work_beside(kind: Kind) -> None:
    lived: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        lived.append("started")
        yield
        lived.append("stopped")

    api = FastAPI(lifespan=lifespan)

    @api.get("/hello")
    async def hello() -> dict[str, str]:
        return {"hello": "from the application"}

    @api.websocket("/own")
    async def own(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"own: {await websocket.receive_text()}")
        await websocket.close()

    async with serve(chat_server().asgi(api), kind) as url:
        async with httpx.AsyncClient(base_url=url) as http, asyncio.timeout(5):
            answer = await http.get("/hello")
            assert (answer.status_code, answer.json()) == (200, {"hello": "from the application"})
            assert lived == ["started"]
            assert (await http.get("/nothing-here")).status_code == 404
            # Only the path itself is iogate's, not what merely begins like it.
            assert (await http.get("/socket.iox/")).status_code == 404

            async with websockets.connect(f"{url.replace('http', 'ws', 1)}/own") as websocket:
                await websocket.send("hello")
                assert await websocket.recv() == "own: hello"

        lines = await run_client(
            url,
            connect(auth={"token": make_token(name="Ann")}),
            wait("connect"),
            wait("upgrade"),
            wait_event("greeting"),
        )
        assert events(lines, "greeting") == [["Hello Ann!"]]
    assert lived == ["started", "stopped"]


async def test_alone_it_answers_404_outside_its_path(kind: Kind) -> None:
    async with serve(chat_server(), kind) as url, httpx.AsyncClient(base_url=url) as http:
        for path in ("/", "/hello", "/socket.iox/"):
            assert (await http.get(path)).status_code == 404


async def test_clients_of_hypercorn_are_told_that_it_goes_away(caplog: pytest.LogCaptureFixture) -> None:
    """When it begins to end, as at SIGTERM: 1001, at once, and no traceback; a poll that waits is answered."""
    reasons: list[str] = []
    io = make_server()
    io.on("disconnect")(lambda socket, reason: reasons.append(reason))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(AsyncExitStack())
        url = await server.enter_async_context(serve(io.asgi(), "hypercorn"))
        entered, waiting = [await stack.enter_async_context(websocket(url)) for _ in range(2)]
        polled = await stack.enter_async_context(polling(url))
        await enter(entered)
        await enter(polled)
        poll = asyncio.create_task(ends(polled))
        async with asyncio.timeout(WITHIN):
            while not io._core.sessions.table[polled.handshake["sid"]].transport.writable:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await server.aclose()
        for client in (entered, waiting):
            assert (await ends(client)).code == 1001
        await within(poll)
    assert reasons == ["server shutting down"] * 2
    assert not [record for record in caplog.records if record.exc_info]


async def test_clients_of_hypercorn_are_told_also_where_a_middleware_hides_that_it_ends() -> None:
    """Then when hypercorn cancels what has not ended by itself."""
    app = make_server().asgi()

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            await send(message)

        await app(scope, receive, sent)

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(AsyncExitStack())
        url = await server.enter_async_context(serve(wrapped, "hypercorn"))
        client = await stack.enter_async_context(websocket(url))
        await enter(client)
        await server.aclose()
        assert (await ends(client)).code == 1001
