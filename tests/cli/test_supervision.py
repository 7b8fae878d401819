"""Workers that end again and again, that hang, or do not end; and what is left when the supervisor itself goes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from iogate.serving import supervisor as supervision
from iogate.serving.listeners import bind
from iogate.serving.options import Options
from iogate.serving.supervisor import Place, Supervisor
from iogate.serving.worker import READY, Order
from tests.cli.running import STARTS_WITHIN, serving
from tests.cli.test_workers import MANY, TWO, WORKERS, Crowd, crowd
from tests.conformance.wire import echoes, ends, enter, websocket, within

SLEEPING = WORKERS + 'import time\nio.on("sleep", lambda socket: time.sleep(3600))\n'
AFTER_THE_FIRST = """
import os, pathlib
starts = pathlib.Path(__file__).with_name("starts")
with starts.open("a") as file:
    file.write(".")
number = len(starts.read_text())
"""
SOON = "io.start = lambda: __import__('threading').Timer(0.1, os._exit, [7]).start()\n"
OPTIONS = Options(
    host="127.0.0.1",
    port=0,
    ws="picows",
    workers=2,
    separate_workers=True,
    sticky_proxy=False,
    worker_timeout=30.0,
    root_path="",
    ssl_certfile=None,
    ssl_keyfile=None,
    forwarded_allow_ips=None,
    access_log=False,
    log_level="info",
)


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """A supervisor of two workers that has little patience."""
    monkeypatch.setattr(supervision, "PAUSES", (0.0, 0.05))
    monkeypatch.setattr(supervision, "MANY", 3)
    monkeypatch.setattr(supervision, "ENDS_WITHIN", 0.5)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return Supervisor("chat:app", OPTIONS, bind("127.0.0.1", 0, 2, one_port=True))


@asynccontextmanager
async def supervised(supervisor: Supervisor) -> AsyncIterator[str]:
    """Run a supervisor, give the URL, and end it well."""
    url = f"http://127.0.0.1:{supervisor._places[0].listener.getsockname()[1]}"
    running = asyncio.create_task(supervisor.run())
    try:
        yield url
    finally:
        supervisor.end()
        async with asyncio.timeout(STARTS_WITHIN):
            assert await running == 0
    assert supervisor._workers == set()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event."""
    async with asyncio.timeout(2 * STARTS_WITHIN):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


# Workers that end again and again.


async def test_if_all_workers_end_again_and_again_the_service_ends(tmp_path: Path, supervisor: Supervisor) -> None:
    """They start well, and end soon after."""
    (tmp_path / "chat.py").write_text(WORKERS + AFTER_THE_FIRST + SOON)
    async with asyncio.timeout(4 * STARTS_WITHIN):
        assert await supervisor.run() == 7
    assert len((tmp_path / "starts").read_text()) >= 6


async def test_if_no_replacement_can_start_the_service_ends(tmp_path: Path, supervisor: Supervisor) -> None:
    source = AFTER_THE_FIRST + "if number > 2: os._exit(5)\n" + WORKERS + SOON
    (tmp_path / "chat.py").write_text(source)
    async with asyncio.timeout(4 * STARTS_WITHIN):
        assert await supervisor.run() == 5


@pytest.mark.parametrize("fault", ["os._exit(5)", SOON.strip()], ids=["no start", "no stay"])
async def test_one_worker_that_ends_again_and_again_does_not_end_the_others(
    tmp_path: Path, supervisor: Supervisor, fault: str
) -> None:
    """It is tried again, more often than would end the service if all did so."""
    source = WORKERS + AFTER_THE_FIRST + "io.on('die', lambda socket: os._exit(7))\n" + f"if number > 2: {fault}"
    (tmp_path / "chat.py").write_text(source)
    async with supervised(supervisor) as url, AsyncExitStack() as stack:
        await until(lambda: len(supervisor._workers) == 2)
        clients = Crowd(url, stack)
        await clients.fill(2)
        victim, survivor = clients.of
        await clients.of[victim][0].send('42["die"]')
        await until(lambda: len((tmp_path / "starts").read_text()) > 3 * supervision.MANY)
        for wire in clients.of[survivor]:
            await echoes(wire)


async def test_nobody_is_connected_to_a_worker_that_is_not_there(
    tmp_path: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is waited for a longer time, the others get all new clients."""
    monkeypatch.setattr(supervision, "PAUSES", (3600.0,))
    (tmp_path / "chat.py").write_text(AFTER_THE_FIRST + WORKERS + f"if number == 2: {SOON}")
    async with supervised(supervisor) as url, AsyncExitStack() as stack:
        await until(lambda: len(supervisor._workers) == 2)
        await until(lambda: len(supervisor._workers) == 1)
        clients = Crowd(url, stack)
        for _ in range(MANY):
            await clients.join()
        assert set(clients.of) == {worker.pid for worker in supervisor._workers}


@pytest.mark.parametrize("number", [1, 2])
async def test_a_worker_that_comes_after_a_pause_gets_clients_again(
    tmp_path: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(supervision, "PAUSES", (0.05,))
    (tmp_path / "chat.py").write_text(AFTER_THE_FIRST + WORKERS + f"if number == {number}: {SOON}")
    async with supervised(supervisor) as url, AsyncExitStack() as stack:
        await until(lambda: len(supervisor._workers) == 2)
        await until(lambda: len(supervisor._workers) == 1)
        clients = Crowd(url, stack)
        while len(clients.of) < 2:
            await clients.join()
            assert clients.size < 10 * MANY


def test_the_pauses_grow_up_to_a_minute_and_begin_anew_after_a_worker_that_lasted() -> None:
    listener = socket.socket()
    place = Place(listener)
    listener.close()
    place.ready(0.0)
    assert [place.ended(1.0) for _ in range(10)] == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert place.fails(1.0)
    place.ready(100.0)
    assert place.fails(130.0)
    assert not place.fails(130.1)
    assert place.ended(130.1) == 0
    assert [place.fails(130.2), *(place.ended(131.0) for _ in range(4)), place.fails(131.0)] == [
        False,
        1,
        2,
        4,
        8,
        False,
    ]
    assert (place.ended(131.0), place.fails(131.0)) == (16, True)


# Workers that hang.


@pytest.mark.parametrize("how", ["blocked", "stopped"])
async def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, how: str) -> None:
    async with serving(tmp_path, SLEEPING, *TWO, "--worker-timeout", "2") as run, crowd(run) as clients:
        victim, survivor = clients.of
        if how == "blocked":
            await clients.of[victim][0].send('42["sleep"]')
        else:
            os.kill(victim, signal.SIGSTOP)
        await run.says(f"Worker [{victim}] ended")
        for wire in clients.of[victim]:
            await ends(wire)
        while await clients.join() in (victim, survivor):
            assert clients.size < 2 * MANY
        for wire in clients.of[survivor]:
            await echoes(wire)
        run.expected = [
            f"ERROR:    Worker [{victim}] has not answered for 2 s"
            " (its event loop is blocked, or it is stopped): it is killed.",
            f"ERROR:    Worker [{victim}] ended (SIGKILL): another takes its place.",
        ]


async def test_a_supervisor_that_was_stopped_does_not_take_it_for_a_fault_of_the_workers(tmp_path: Path) -> None:
    """As on a laptop that sleeps. `serving` makes sure that no worker was killed."""
    loop = asyncio.get_running_loop()
    async with serving(tmp_path, WORKERS, *TWO, "--worker-timeout", "2") as run, crowd(run) as clients:
        run.process.send_signal(signal.SIGSTOP)
        began = loop.time()
        while loop.time() < began + 2.5:  # Longer than a worker may be silent.
            for wire in clients.wires:
                await echoes(wire)
        run.process.send_signal(signal.SIGCONT)
        for wire in clients.wires:
            await echoes(wire)


async def test_a_start_may_take_longer_than_a_worker_may_be_silent(tmp_path: Path) -> None:
    source = "import time\ntime.sleep(2.5)\n" + WORKERS
    async with serving(tmp_path, source, *TWO, "--worker-timeout", "2") as run, crowd(run) as clients:
        await echoes(clients.wires[0])


async def test_python_itself_may_take_longer_to_start_than_a_worker_may_be_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that has much to do: here a module is slow that Python imports before all others."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\nif 'iogate.serving.worker' in sys.orig_argv: time.sleep(2.5)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    async with serving(tmp_path, WORKERS, *TWO, "--worker-timeout", "2") as run, crowd(run) as clients:
        await echoes(clients.wires[0])


async def test_a_worker_that_does_not_end_is_killed(tmp_path: Path, supervisor: Supervisor) -> None:
    (tmp_path / "chat.py").write_text(SLEEPING)
    async with supervised(supervisor) as url:
        await until(lambda: len(supervisor._workers) == 2)
        async with websocket(url) as wire:
            await enter(wire)
            await wire.send('42["sleep"]', '421["pid"]')
            supervisor.end()
            await ends(wire)


# The supervisor goes.


@asynccontextmanager
async def orphan(folder: Path, source: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, socket.socket, str]]:
    """Start a worker; give its process, the supervisor's end of the pair, and the URL."""
    (folder / "chat.py").write_text(source)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    [listener] = bind("127.0.0.1", 0, 1, one_port=True)
    impatient = f"from iogate.serving import worker; worker.ENDS_WITHIN = 0.2; worker.main({theirs.fileno()})"
    with ours, listener:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", impatient), pass_fds=(theirs.fileno(), listener.fileno())
        )
        theirs.close()
        order = Order("chat:app", OPTIONS, [str(folder), *sys.path], listener.fileno())
        await asyncio.get_running_loop().sock_sendall(ours, msgspec.json.encode(order) + b"\n")
        try:
            yield process, ours, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def test_a_worker_that_hangs_ends_too_when_the_supervisor_goes(tmp_path: Path) -> None:
    async with orphan(tmp_path, SLEEPING) as (process, pair, url):
        assert await within(asyncio.get_running_loop().sock_recv(pair, 1)) == READY
        async with websocket(url) as wire:
            await enter(wire)
            await wire.send('42["sleep"]')
            pair.close()
            await ends(wire)
        assert await within(process.wait()) == -signal.SIGKILL


async def test_a_worker_that_still_starts_ends_too_when_the_supervisor_goes(tmp_path: Path) -> None:
    source = "import pathlib, time\npathlib.Path(__file__).with_name('starts').touch()\ntime.sleep(3600)\n"
    async with orphan(tmp_path, source) as (process, pair, _):
        await until((tmp_path / "starts").exists)
        pair.close()
        assert await within(process.wait()) == -signal.SIGTERM
