"""`iogate run`, as a process of its own: what it serves, what it says when it cannot, and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.cli.running import AROUND, ENDS_WITHIN, SERVER, STARTS_WITHIN, close_code, iogate_run, serves, serving
from tests.conformance.wire import (
    POLLING,
    WEBSOCKET,
    WebSocket,
    enter,
    polling,
    raw_websocket,
    refused,
    websocket,
    within,
)
from tests.servers import make_token

CLIENTS = 1000
IMPLEMENTATIONS = ("picows", "websockets")


# What it serves.


async def test_it_serves_a_server(tmp_path: Path) -> None:
    async with serving(tmp_path, SERVER + "app = io") as run:
        await serves(run)


async def test_it_serves_what_asgi_returned(tmp_path: Path) -> None:
    async with serving(tmp_path, SERVER + "app = io.asgi()") as run:
        await serves(run)
        async with httpx.AsyncClient(base_url=run.url) as http:
            assert (await http.get("/hello")).status_code == 404


async def test_it_serves_an_application_beside_the_server(tmp_path: Path) -> None:
    source = SERVER + AROUND + 'app = io.asgi(Starlette(routes=[Route("/hello", hello)]))'
    async with serving(tmp_path, source) as run:
        await serves(run)
        async with httpx.AsyncClient(base_url=run.url) as http:
            assert (await http.get("/hello")).text == "hello"


async def test_it_serves_an_application_around_the_server(tmp_path: Path) -> None:
    source = SERVER + AROUND + 'app = Starlette(routes=[Route("/hello", hello), Mount("/", io.asgi())])'
    async with serving(tmp_path, source) as run:
        await serves(run)
        async with httpx.AsyncClient(base_url=run.url) as http:
            assert (await http.get("/hello")).text == "hello"


async def test_it_finds_the_module_where_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.py").write_text(SERVER)
    async with iogate_run(tmp_path, "other:io", "--app-dir", "elsewhere", "--port", "0") as run:
        await run.started()
        await serves(run)
        await run.terminate()


# What it says when it cannot.


@pytest.mark.parametrize(
    ("target", "source", "says"),
    [
        ("chat", "", "'chat' does not say what to serve: write \"module:app\""),
        (":app", "", "':app' does not say what to serve: write \"module:app\""),
        ("nowhere:app", "", "there is no module 'nowhere' here (see --app-dir)"),
        ("nowhere.at.all:app", "", "there is no module 'nowhere.at.all' here (see --app-dir)"),
        ("chat:nothing", "", "chat has no application 'nothing': write app = io.asgi() there"),
        ("chat:app", "app = 5", "chat has no application 'app': write app = io.asgi() there"),
        (
            "chat:app",
            "from iogate import JWTAuth\nJWTAuth(algorithms=['HS256'])",
            "chat: give exactly one key: secret= for HS256",
        ),
    ],
)
async def test_a_mistake_is_told_in_one_line(tmp_path: Path, target: str, source: str, says: str) -> None:
    (tmp_path / "chat.py").write_text(source)
    async with iogate_run(tmp_path, target, "--port", "0") as run:
        async with asyncio.timeout(STARTS_WITHIN):
            assert await run.process.wait() in (1, 2)
    assert f"Error: {says}" in run.output
    assert "Traceback" not in run.output


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("from iogate import Sever", "ImportError: cannot import name 'Sever'"),
    ],
)
async def test_what_is_wrong_inside_the_module_is_shown_with_its_place(tmp_path: Path, source: str, says: str) -> None:
    (tmp_path / "chat.py").write_text(f"\n{source}\n")
    async with iogate_run(tmp_path, "chat:app", "--port", "0") as run:
        async with asyncio.timeout(STARTS_WITHIN):
            assert await run.process.wait() != 0
    assert says in run.output
    assert 'chat.py", line 2' in run.output


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path, SERVER + "app = io") as first:
        port = first.url.rpartition(":")[2]
        (tmp_path / "second").mkdir()
        (tmp_path / "second" / "chat.py").write_text(SERVER + "app = io")
        async with iogate_run(tmp_path / "second", "chat:app", "--port", port) as second:
            async with asyncio.timeout(STARTS_WITHIN):
                assert await second.process.wait() not in (0, None)
        assert "address already in use" in second.output.lower()
        assert "Traceback" not in second.output


# How it ends.


async def test_a_thousand_clients_are_told_and_the_end_is_quick_and_quiet(tmp_path: Path) -> None:
    async with serving(tmp_path, SERVER + "app = io.asgi()") as run, AsyncExitStack() as stack:
        token = make_token()

        async def connect() -> WebSocket:
            wire = await stack.enter_async_context(websocket(run.url))
            await wire.send(f'40{{"token":"{token}"}}')
            assert str(await wire.receive()).startswith('40{"sid":')
            return wire

        wires: list[WebSocket] = []
        for _ in range(CLIENTS // 50):
            wires += await asyncio.gather(*(connect() for _ in range(50)))
        loop = asyncio.get_running_loop()
        began = loop.time()
        run.process.send_signal(signal.SIGTERM)
        codes = await asyncio.gather(*(close_code(wire) for wire in wires))
        assert await run.ended() in (0, -signal.SIGTERM)
        assert loop.time() - began < ENDS_WITHIN
        assert set(codes) == {1001}
        assert len(codes) == CLIENTS


async def test_a_poll_that_waits_is_answered_at_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path, SERVER + "app = io") as run, polling(run.url) as wire:
        await enter(wire)
        await wire.send('42["echo","before"]')
        assert await within(wire.receive()) == '42["echo","before"]'
        poll = asyncio.create_task(wire.get())
        async with polling(run.url) as other:  # The poll has come before this one.
            await enter(other)
        run.process.send_signal(signal.SIGTERM)
        answer = await within(poll)
        assert (answer.status_code, answer.text) == (200, "1")
        assert await run.ended() in (0, -signal.SIGTERM)


async def test_handlers_have_a_few_seconds_to_finish(tmp_path: Path) -> None:
    source = (
        SERVER
        + """
import asyncio

@io.on("disconnect")
async def goodbye(socket, reason):
    await asyncio.sleep(0.2)
    print("goodbye:", reason, flush=True)

app = io.asgi()
"""
    )
    async with serving(tmp_path, source) as run, websocket(run.url) as wire:
        await enter(wire)
        await run.terminate()
    assert "goodbye: server shutting down" in run.output


async def test_control_c_ends_it_too(tmp_path: Path) -> None:
    async with serving(tmp_path, SERVER + "app = io.asgi()") as run, websocket(run.url) as wire:
        await enter(wire)
        run.process.send_signal(signal.SIGINT)
        assert await close_code(wire) == 1001
        await run.ended()


# What it writes down.


@pytest.mark.parametrize("ws", IMPLEMENTATIONS)
@pytest.mark.parametrize("level", ["info", "debug"])
async def test_no_token_is_in_its_logs(tmp_path: Path, ws: str, level: str) -> None:
    """Good or bad, in an address that is well formed or not, accepted or refused."""
    good, bad = make_token(), make_token(secret="x" * 40)
    options = ("--access-log", "--log-level", level, "--ws", ws)
    async with serving(tmp_path, SERVER + "app = io.asgi()", *options) as run:
        async with httpx.AsyncClient(base_url=run.url, timeout=5) as http:
            for token in (good, bad):
                assert (await http.get("/socket.io/", params={**POLLING, "token": token})).status_code == 200
                for wrong in ({"EIO": "3"}, {"transport": "smoke"}, {"sid": "unknown"}):
                    answer = await http.get("/socket.io/", params={**POLLING, **wrong, "token": token})
                    assert answer.status_code == 400
                many = "&".join(f"a{number}=" for number in range(100))
                assert (await http.get(f"/socket.io/?{many}&token={token}")).status_code == 400
                headers = {"Origin": "https://evil.example"}
                answer = await http.get("/socket.io/", params={**POLLING, "token": token}, headers=headers)
                assert answer.status_code == 403
                assert (await http.get("/socketio/", params={**POLLING, "token": token})).status_code == 404
                for wrong in ({"EIO": "3"}, {"transport": "smoke"}, {"sid": "unknown"}):
                    await refused(run.url, {**WEBSOCKET, **wrong, "token": token})
                await refused(run.url, {**WEBSOCKET, "token": token}, path="/socketio/")
                await refused(run.url, {**WEBSOCKET, "token": token}, Origin="https://evil.example")
                async with raw_websocket(run.url, {**WEBSOCKET, "token": token}) as connection:
                    assert str(await within(connection.recv())).startswith("0{")
        async with websocket(run.url) as wire:
            await enter(wire)
    assert "GET /socket.io/?EIO=4&transport=polling&token=REDACTED" in run.output
    assert "GET /socketio/?EIO=4&transport=polling&token=REDACTED" in run.output
    for outcome in ("[accepted]", "400", "403"):
        assert re.search(
            rf'"WebSocket /socket.io/\?EIO=.&transport=\S+&token=REDACTED" {re.escape(outcome)}', run.output
        )
    for token in (good, bad):
        assert token not in run.output
        assert token.split(".")[2] not in run.output


async def test_without_being_told_to_it_logs_no_http_requests(tmp_path: Path) -> None:
    async with serving(tmp_path, SERVER + "app = io.asgi()") as run:
        await serves(run)
    assert "GET /socket.io/" not in run.output
    assert "POST /socket.io/" not in run.output
