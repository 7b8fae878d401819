"""`iogate run --workers N`: real processes that share the load, are replaced when they end, and end together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import iogate
from iogate import ConfigurationError
from iogate.serving.listeners import bind
from tests.cli.running import SERVER, STARTS_WITHIN, Run, close_code, iogate_run, serving
from tests.conformance.wire import (
    POLLING,
    WebSocket,
    echoes,
    ends,
    enter,
    polling,
    websocket,
    within,
)
from tests.servers import make_token

WORKERS = SERVER + 'import os\nio.on("pid", lambda socket: os.getpid())\napp = io.asgi()\n'
IN_SQLITE = 'sources=sources), revocations=SQLiteRevocations("revoked.db")'
REVOKING = f"""
from iogate import SQLiteRevocations
{WORKERS.replace("sources=sources)", IN_SQLITE)}

@io.on("revoke")
async def revoke(socket, token_id):
    await io.revoke(token_id=token_id)
    return "done"
"""
TWO = ("--workers", "2", "--separate-workers")
MANY = 64  # connections that cannot all be one worker's by chance


class Crowd:
    """Clients, and the workers that serve them."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.of: dict[int, list[WebSocket]] = {}
        self._url = url
        self._stack = stack

    async def join(self, **claims: Any) -> int:
        """Connect one more, and return the process id of its worker."""
        wire = await self._stack.enter_async_context(websocket(self._url))
        await enter(wire, **claims)
        pid = await worker_of(wire)
        self.of.setdefault(pid, []).append(wire)
        return pid

    async def fill(self, workers: int) -> None:
        """Connect clients until each worker has some."""
        while len(self.of) < workers:
            await self.join()
            assert self.size < MANY

    @property
    def size(self) -> int:
        return sum(map(len, self.of.values()))

    @property
    def wires(self) -> list[WebSocket]:
        return [wire for wires in self.of.values() for wire in wires]


@asynccontextmanager
async def crowd(run: Run, workers: int = 2) -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as stack:
        clients = Crowd(run.url, stack)
        await clients.fill(workers)
        yield clients


async def worker_of(wire: WebSocket) -> int:
    """Return the process id of the worker that serves a client."""
    await wire.send('421["pid"]')
    answer = str(await within(wire.receive()))
    assert answer.startswith("431")
    pid: int = json.loads(answer[3:])[0]
    return pid


# What they share.


@pytest.mark.parametrize("ws", ["picows", "websockets"])
async def test_the_workers_share_a_port_and_the_load(tmp_path: Path, ws: str) -> None:
    async with serving(tmp_path, WORKERS, "--workers", "3", "--separate-workers", "--ws", ws) as run:
        assert len(run.urls) == 1
        async with crowd(run, workers=3) as clients:
            for wire in clients.wires:
                await echoes(wire)
            assert run.process.pid not in clients.of
        assert run.output.count("workers running on") == 1


async def test_a_worker_that_is_killed_is_replaced_and_nobody_else_notices(tmp_path: Path) -> None:
    async with serving(tmp_path, WORKERS, *TWO) as run, crowd(run) as clients:
        before = set(clients.of)
        victim, survivor = before
        os.kill(victim, signal.SIGKILL)
        for wire in clients.of[victim]:
            await ends(wire)
        while await clients.join() in before:  # Whoever comes meanwhile is served, by one or by the other.
            assert clients.size < 2 * MANY
        for wire in clients.of[survivor]:
            await echoes(wire)
        run.expected = [f"ERROR:    Worker [{victim}] ended (SIGKILL): another takes its place."]


async def test_a_revocation_in_sqlite_is_known_to_a_worker_that_starts_after_it(tmp_path: Path) -> None:
    """And to the others it is not, as the refusal to start without --separate-workers says."""
    async with serving(tmp_path, REVOKING, *TWO) as run, crowd(run) as clients:
        first, other = clients.of
        await clients.of[first][0].send('421["revoke","stolen"]')
        assert await within(clients.of[first][0].receive()) == '431["done"]'
        verdicts = await _verdicts(clients, first, other)
        assert verdicts == {first: False, other: True}
        os.kill(other, signal.SIGTERM)
        for wire in clients.of[other]:
            assert await close_code(wire) == 1001
        while (new := await clients.join()) in (first, other):
            assert clients.size < 2 * MANY
        assert await _verdicts(clients, first, new) == {first: False, new: False}
        run.expected = [f"ERROR:    Worker [{other}] ended (SIGTERM): another takes its place."]


async def _verdicts(clients: Crowd, *workers: int) -> dict[int, bool]:
    """Show the stolen token to each of these workers, and return which take it."""
    verdicts: dict[int, bool] = {}
    while len(verdicts) < len(workers):
        pid = await clients.join(sub="mallory")
        wire = clients.of[pid][-1]
        token = make_token(sub="mallory", jti="stolen")
        await wire.send(f'42["authenticate",{{"token":"{token}"}}]')
        verdicts[pid] = str(await within(wire.receive())).startswith('42["authenticated"')
    assert set(verdicts) == set(workers)
    return verdicts


# Long-polling.


async def test_without_a_sticky_proxy_there_is_no_polling_and_the_start_says_so(tmp_path: Path) -> None:
    source = WORKERS.replace("io = Server(", 'io = Server(cors_allowed_origins=["https://app.example"], ')
    async with serving(tmp_path, source, *TWO) as run, httpx.AsyncClient(base_url=run.url) as http:
        assert "They serve WebSockets only" in run.output
        headers = {"origin": "https://app.example"}
        session = {**POLLING, "sid": "any"}
        for method, query in (("GET", POLLING), ("GET", session), ("POST", session)):
            answer = await http.request(method, "/socket.io/", params=query, headers=headers, content="40")
            assert answer.status_code == 400
            assert answer.json() == {"code": 0, "message": "Transport unknown: only websocket is served here"}
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
        foreign = await http.get("/socket.io/", params=POLLING, headers={"origin": "https://evil.example"})
        assert foreign.status_code == 403
        async with websocket(run.url) as wire:
            assert wire.handshake["upgrades"] == []


async def test_polling_is_refused_too_where_the_server_is_mounted(tmp_path: Path) -> None:
    source = WORKERS + (
        "from starlette.applications import Starlette\nfrom starlette.routing import Mount\n"
        'app = Starlette(routes=[Mount("/", io.asgi())])'
    )
    async with serving(tmp_path, source, *TWO) as run, httpx.AsyncClient(base_url=run.url) as http:
        assert (await http.get("/socket.io/", params=POLLING)).status_code == 400
        async with crowd(run) as clients:
            await echoes(clients.wires[0])


async def test_behind_a_sticky_proxy_each_worker_has_a_port_and_serves_polling(tmp_path: Path) -> None:
    async with serving(tmp_path, WORKERS, *TWO, "--sticky-proxy") as run, AsyncExitStack() as stack:
        assert len(set(run.urls)) == 2
        pids, anns = set(), []
        for url in run.urls:
            ann = await stack.enter_async_context(polling(url))
            await enter(ann)
            await echoes(ann)
            assert ann.handshake["upgrades"] == ["websocket"]
            anns.append(ann)
            bob = await stack.enter_async_context(websocket(url))
            await enter(bob)
            pids.add(await worker_of(bob))
        assert len(pids) == 2
        # A session is its worker's: what a proxy that is not sticky would do to it.
        async with httpx.AsyncClient(base_url=run.urls[0]) as http:
            assert (await http.get("/socket.io/", params=anns[1].query)).json()["message"] == "Session ID unknown"


async def test_a_worker_that_is_replaced_keeps_its_port(tmp_path: Path) -> None:
    async with serving(tmp_path, WORKERS, *TWO, "--sticky-proxy") as run:
        async with websocket(run.urls[1]) as wire:
            await enter(wire)
            victim = await worker_of(wire)
            os.kill(victim, signal.SIGKILL)
            await ends(wire)
        async with polling(run.urls[1]) as again:
            await enter(again)
            await again.send('421["pid"]')
            assert await within(again.receive()) != f"431[{victim}]"
        run.expected = [f"ERROR:    Worker [{victim}] ended (SIGKILL): another takes its place."]


def test_with_a_sticky_proxy_the_ports_follow_each_other() -> None:
    port, listeners = _two_in_a_row()
    assert [listener.getsockname()[1] for listener in listeners] == [port, port + 1]
    for listener in listeners:
        listener.close()


def _two_in_a_row() -> tuple[int, list[socket.socket]]:
    while True:
        with bind("127.0.0.1", 0, 1, one_port=True)[0] as free:
            port = free.getsockname()[1]
        with suppress(ConfigurationError, OverflowError):  # The next one is somebody's, or there is none.
            return port, bind("127.0.0.1", port, 2, one_port=False)


# How they end.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_all_clients_are_told_and_the_exit_code_is_that_of_one_process(tmp_path: Path, number: int) -> None:
    async with serving(tmp_path, WORKERS, *TWO) as run, crowd(run) as clients:
        run.process.send_signal(number)
        codes = await asyncio.gather(*(close_code(wire) for wire in clients.wires))
        assert set(codes) == {1001}
        assert await run.ended() == (-number if number == signal.SIGTERM else 0)
        await nobody_listens(run.url)


async def test_workers_do_not_stay_behind_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    async with serving(tmp_path, WORKERS, *TWO) as run, crowd(run) as clients:
        run.process.kill()
        codes = await asyncio.gather(*(close_code(wire) for wire in clients.wires))
        assert set(codes) == {1001}
        await nobody_listens(run.url)


async def nobody_listens(url: str) -> None:
    """Wait until a port is closed: the last who had it may be about to end."""
    address = httpx.URL(url)
    async with asyncio.timeout(STARTS_WITHIN):
        while True:
            try:
                _, writer = await asyncio.open_connection(address.host, address.port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.02)


# What is wrong is told, once.


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ("from iogate import JWTAuth\nJWTAuth(algorithms=['HS256'])", 1, "Error: chat: give exactly one key"),
        ("", 1, "Error: chat has no application 'app'"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("import os\nos._exit(7)", 7, "Started supervisor process"),
        (
            "from iogate import Server, SQLiteRevocations\n"
            "app = Server(auth=None, revocations=SQLiteRevocations('nowhere/revoked.db'))",
            3,
            "Application startup failed. Exiting.",
        ),
    ],
)
async def test_a_mistake_in_the_application_is_told_once(tmp_path: Path, source: str, code: int, says: str) -> None:
    (tmp_path / "chat.py").write_text(source)
    async with iogate_run(tmp_path, "chat:app", "--port", "0", "--workers", "3", "--separate-workers") as run:
        async with asyncio.timeout(STARTS_WITHIN):
            assert await run.process.wait() == code
    assert run.output.count(says) == 1
    assert "workers running" not in run.output


async def test_without_being_told_that_the_application_lives_with_it_they_do_not_start(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(WORKERS)
    async with iogate_run(tmp_path, "chat:app", "--port", "0", "--workers", "4") as run:
        async with asyncio.timeout(STARTS_WITHIN):
            assert await run.process.wait() == 1
    for part in ("4 workers", "emit()", "revoke()", "SQLiteRevocations", "Limits", "--separate-workers"):
        assert part in run.output
    assert "Traceback" not in run.output


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    """Also if it is other workers that have it, with whom this one could share it."""
    async with serving(tmp_path, WORKERS, *TWO) as first:
        (tmp_path / "second").mkdir()
        port = first.url.rpartition(":")[2]
        async with iogate_run(tmp_path / "second", "chat:app", *TWO, "--port", port) as second:
            async with asyncio.timeout(STARTS_WITHIN):
                assert await second.process.wait() == 1
        assert f"Error: 127.0.0.1:{port} cannot be listened on: Address already in use" in second.output


@pytest.mark.parametrize(
    ("app", "settings", "says"),
    [
        ("chat:app", {"workers": 0}, "workers is 0: it is a whole number, at least 1"),
        ("chat:app", {"workers": "2"}, "workers is '2': it is a whole number, at least 1"),
        ("chat:app", {"workers": 2}, "2 workers are 2 servers that do not know of each other"),
        (None, {"workers": 2, "separate_workers": True}, "each worker imports the application for itself: name it"),
        ("chat:app", {"sticky_proxy": True}, "sticky_proxy is for several workers, and there is one"),
        ("chat:app", {"worker_timeout": None}, "worker_timeout is None: it is a number of seconds, at least 1"),
        ("chat:app", {"worker_timeout": 0.5}, "worker_timeout is 0.5: it is a number of seconds, at least 1"),
        ("chat:app", {"worker_timeout": -1}, "worker_timeout is -1: it is a number of seconds, at least 1"),
        ("chat:app", {"worker_timeout": float("nan")}, "worker_timeout is nan: it is a number of seconds, at least 1"),
        ("chat:app", {"worker_timeout": float("inf")}, "worker_timeout is inf: it is a number of seconds, at least 1"),
        ("chat:app", {"worker_timeout": True}, "worker_timeout is True: it is a number of seconds, at least 1"),
        (
            "chat:app",
            {"workers": 3, "separate_workers": True, "sticky_proxy": True, "port": 65534},
            "3 workers need a port each",
        ),
        ("chat:app", {"port": 65536}, "port is 65536: it is a whole number from 0, a free one, to 65535"),
        ("chat:app", {"host": ""}, "host is empty"),
        ("chat:app", {"ws": "slow"}, 'ws is \'slow\': write "picows" or "websockets"'),
        ("chat:app", {"log_level": "loud"}, "log_level is 'loud': write one of critical, error"),
        ("chat:app", {"root_path": "chat/"}, "root_path is 'chat/': write it like \"/chat\""),
        ("chat:app", {"ssl_keyfile": "key.pem"}, "ssl_keyfile is the key of a certificate: give ssl_certfile too"),
    ],
)
def test_what_does_not_go_together_is_told(app: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        iogate.run(app, **settings)
    assert says in str(raised.value)
