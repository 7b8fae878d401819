"""Both WebSocket libraries behave alike behind proxies, TLS and middleware; and every way to choose one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.attacks.raw import wire
from tests.cli.certificates import write_certificate
from tests.cli.running import ENDS_WITHIN, SERVER, Run, close_code, python, serves, serving
from tests.conformance.wire import (
    POLLING,
    WEBSOCKET,
    WITHIN,
    Polling,
    Session,
    WebSocket,
    client,
    echoes,
    enter,
    polling,
    raw_websocket,
    refused,
    websocket,
    within,
)
from tests.servers import make_token

SEEN = f"""{SERVER}
import asyncio, os
io.on("seen", lambda socket: (socket.handshake.address, socket.handshake.secure, socket.handshake.path))
io.on("pid", lambda socket: os.getpid())
io.on("disconnect", lambda socket, reason: print("left:", reason, flush=True))

@io.on("flood")
async def flood(socket):
    for _ in range(1000):  # More than the buffers of the kernel hold.
        socket.emit("news", "x" * 100_000)
        await asyncio.sleep(0)

app = io.asgi()
"""
OPENED = "connection open"
"""What uvicorn writes down of every WebSocket on websockets, and of none on picows."""
NO_PICOWS = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "picows":
            raise ImportError("no picows in this test")

sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(params=["picows", "websockets"])
def ws(request: pytest.FixtureRequest) -> str:
    """Each implementation."""
    return str(request.param)


@asynccontextmanager
async def seeing(folder: Path, ws: str, *options: str) -> AsyncIterator[Run]:
    """Serve what tells of its clients, and make sure that it is the one that was asked for."""
    async with serving(folder, SEEN, "--ws", ws, *options) as run:
        yield run
    assert (OPENED in run.output) == (ws == "websockets")


async def seen(session: Session) -> list[Any]:
    """Return a client's address as the server sees it, whether it came over TLS, and the path."""
    await enter(session)
    await session.send('421["seen"]')
    answer = str(await within(session.receive()))
    assert answer.startswith("431")
    told: list[Any] = json.loads(answer[3:])
    return told


# TLS.


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The files of a certificate for this machine, and of its key."""
    return write_certificate(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def wss(url: str, context: ssl.SSLContext) -> AsyncIterator[WebSocket]:
    address = httpx.URL(url.replace("http", "ws", 1) + "/socket.io/", params=WEBSOCKET)
    async with connect(str(address), ssl=context, compression=None, max_size=None, proxy=None) as connection:
        wire = WebSocket(connection)
        await wire.open()
        yield wire


@pytest.mark.parametrize("workers", [(), ("--workers", "2", "--separate-workers")], ids=["alone", "with workers"])
async def test_over_tls(tmp_path: Path, ws: str, workers: tuple[str, ...], certificate: tuple[str, str]) -> None:
    """Events go both ways, a client that does not read is disconnected, and at the end clients are told."""
    chain, key = certificate
    context = ssl.create_default_context(cafile=chain)
    options = (*workers, "--ssl-certfile", chain, "--ssl-keyfile", key)
    async with seeing(tmp_path, ws, *options) as run:
        assert run.url.startswith("https://")
        async with wss(run.url, context) as ann, wss(run.url, context) as slow:
            assert await seen(ann) == ["127.0.0.1", True, "/socket.io/"]
            await echoes(ann, "x" * 900_000)
            await enter(slow)
            slow.connection.transport.pause_reading()
            await slow.connection.send('42["flood"]')
            await run.says("left: slow consumer")
            slow.connection.transport.abort()  # Else uvicorn waits for it at the end, with websockets.
            await echoes(ann)
            if not workers:
                async with httpx.AsyncClient(base_url=run.url, verify=context, timeout=WITHIN) as http:
                    polled = Polling(http)
                    await polled.open()
                    assert await seen(polled) == ["127.0.0.1", True, "/socket.io/"]
            run.process.send_signal(signal.SIGTERM)
            assert await close_code(ann) == 1001
            await run.ended()


# Behind a proxy.


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address", "secure"),
    [
        (None, "203.0.113.9", "127.0.0.1", False),
        ("10.0.0.1", "203.0.113.9", "127.0.0.1", False),
        ("127.0.0.1", "203.0.113.9", "203.0.113.9", True),
        ("127.0.0.1", "1.2.3.4, 203.0.113.9", "203.0.113.9", True),
        ("127.0.0.0/8,10.0.0.1", "1.2.3.4, 203.0.113.9, 10.0.0.1", "203.0.113.9", True),
        ("*", "203.0.113.9, 10.0.0.1", "203.0.113.9", True),
    ],
)
async def test_what_a_proxy_says_is_believed_if_the_proxy_is(
    tmp_path: Path, ws: str, trusted: str | None, forwarded: str, address: str, secure: bool
) -> None:
    """Of the client's address, and of TLS: so also whether a page is of the same origin."""
    options = () if trusted is None else ("--forwarded-allow-ips", trusted)
    headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https"}
    async with seeing(tmp_path, ws, *options) as run:
        for opened in (polling, websocket):
            async with opened(run.url, **headers) as wire:
                assert await seen(wire) == [address, secure, "/socket.io/"]
        headers["Origin"] = run.url.replace("http", "https", 1)
        if secure:
            for opened in (polling, websocket):
                async with opened(run.url, **headers) as wire:
                    await enter(wire)
        else:
            assert (await refused(run.url, WEBSOCKET, **headers)).status_code == 403
            async with client(run.url) as http:
                assert (await http.get("/socket.io/", params=POLLING, headers=headers)).status_code == 403


async def test_below_a_root_path(tmp_path: Path, ws: str) -> None:
    """The proxy takes it away; who comes past the proxy and leaves it there finds nothing."""
    async with seeing(tmp_path, ws, "--root-path", "/chat") as run:
        for opened in (polling, websocket):
            async with opened(run.url) as wire:
                assert await seen(wire) == ["127.0.0.1", False, "/chat/socket.io/"]
        assert (await refused(run.url, WEBSOCKET, path="/chat/socket.io/")).status_code == 404
        async with client(run.url) as http:
            assert (await http.get("/chat/socket.io/", params=POLLING)).status_code == 404


# Choosing one.


@pytest.mark.parametrize("workers", [(), ("--workers", "2", "--separate-workers")], ids=["alone", "with workers"])
async def test_without_picows_websockets_is_used_and_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_PICOWS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    async with serving(tmp_path, SEEN, *workers) as run, websocket(run.url) as wire:
        await enter(wire)
        await echoes(wire)
        line = "picows cannot be imported (no picows in this test): websockets serves the WebSockets"
        assert run.output.count(line) == 1
        assert OPENED in run.output


WRAPPED = f"""{SEEN}
class Middleware:
    def __init__(self, app):
        self.app = app

    def __getattr__(self, name):
        return getattr(self.app, name)

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)

app = Middleware(app)
"""


async def test_a_wrapped_application_takes_websockets_and_a_line_says_why(tmp_path: Path) -> None:
    """Once, at the start: whoever asked for picows can see what stands in its way."""
    async with serving(tmp_path, WRAPPED) as run:
        await serves(run)
        await serves(run)
        line = "not picows: the application is a chat.Middleware, and not what io.asgi() returns"
        assert run.output.count(line) == 1
        assert OPENED in run.output


@pytest.mark.parametrize("size", [40_000, 100_000_000])
async def test_a_head_without_end(tmp_path: Path, ws: str, size: int) -> None:
    """It is answered, a line says so, and the process does not keep it: also on the event loop of `iogate run`."""
    async with seeing(tmp_path, ws) as run:
        async with wire(run.url) as mallory:
            await mallory.send(b"GET / HTTP/1.1\r\nHost: x\r\nA: ")
            for _ in range(size // 20_000):
                if mallory.closed:
                    break
                await mallory.send(b"a" * 20_000)
            assert await mallory.status() == 431
        await run.says("refused a request from 127.0.0.1 with 431")
        await serves(run)


async def test_uvicorn_takes_picows_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(SEEN)
    command = ("-m", "uvicorn", "chat:app", "--port", "0", "--ws", "iogate.transports.picows.upgrade:PicowsProtocol")
    async with python(tmp_path, *command) as run:
        await run.started()
        await serves(run)
        token = make_token()
        async with raw_websocket(run.url, {**WEBSOCKET, "token": token}) as connection, client(run.url) as http:
            await within(connection.recv())
            await http.get("/socket.io/", params={**POLLING, "token": token})
        async with websocket(run.url) as wire:
            await enter(wire)
            run.process.send_signal(signal.SIGTERM)
            assert await close_code(wire) == 1001
            await run.ended()
        assert run.errors == []
        assert run.output.count("token=REDACTED") == 2
        assert token not in run.output
        assert OPENED not in run.output


@pytest.mark.parametrize("what", ["io", "io.asgi()", '"chat:app"'])
async def test_a_script_serves_with_either(tmp_path: Path, ws: str, what: str) -> None:
    (tmp_path / "chat.py").write_text(SEEN)
    (tmp_path / "serve.py").write_text(f"import iogate\nfrom chat import io\niogate.run({what}, port=0, ws={ws!r})")
    async with python(tmp_path, "serve.py") as run:
        await run.started()
        await serves(run)
        await run.terminate()
        assert run.errors == []
        assert (OPENED in run.output) == (ws == "websockets")


async def test_a_script_serves_by_workers_that_find_the_module_where_it_does(tmp_path: Path) -> None:
    """Without asking whether it is `__main__`: workers do not run the script again."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/chat.py").write_text(SEEN)
    (tmp_path / "scripts/serve.py").write_text(
        'import iogate\niogate.run("chat:app", port=0, workers=2, separate_workers=True)\nprint("it has returned")'
    )
    async with python(tmp_path, "scripts/serve.py") as run:
        await run.started()
        async with websocket(run.url) as wire:
            await enter(wire)
            await echoes(wire)
            run.process.send_signal(signal.SIGINT)
            assert await close_code(wire) == 1001
        async with asyncio.timeout(ENDS_WITHIN):
            assert await run.ended() == 0
        assert "it has returned" in run.output
