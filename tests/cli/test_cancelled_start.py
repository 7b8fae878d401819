"""A signal while the application still starts: the start ends, whatever it waits for, and nobody is served."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import iogate_run
from tests.cli.test_workers import TWO

LIFESPAN = """
import asyncio, contextlib, time
from starlette.applications import Starlette

@contextlib.asynccontextmanager
async def lifespan(app):
    print("starting", flush=True)
    try:
        {wait}
        yield
    finally:
        print("cleaned up", flush=True)

app = Starlette(lifespan=lifespan)
"""
STARTS = {
    "keys": """
from iogate import JWTAuth, KeySetURL, Server
keys = KeySetURL("http://127.0.0.1:{port}/keys", network="loopback")
auth = JWTAuth(keys=keys, algorithms=["RS256"], issuer="x", audience="y")
app = Server(auth=auth).asgi()
print("starting", flush=True)
""",
    "the application": LIFESPAN.replace("{wait}", "await asyncio.Event().wait()"),
    "an import": 'import time\nprint("starting", flush=True)\ntime.sleep(3600)\n',
    "blocking code": LIFESPAN.replace("{wait}", "time.sleep(3600)"),
}
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
PROCESSES = pytest.mark.parametrize("options", [(), TWO], ids=["one process", "workers"])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server for keys that accepts connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@SIGNALS
@PROCESSES
@pytest.mark.parametrize("start", STARTS)
async def test_a_signal_cancels_the_start(
    tmp_path: Path, silent_port: int, start: str, options: tuple[str, ...], number: int
) -> None:
    (tmp_path / "chat.py").write_text(STARTS[start].replace("{port}", str(silent_port)))
    async with iogate_run(tmp_path, "chat:app", "--port", "0", *options) as run:
        await run.says("starting")
        run.process.send_signal(number)
        blocked = start == "blocking code" and not options  # Only the default action of the signal ends that.
        assert await run.ended() == (-number if number == signal.SIGTERM or blocked else 0)
    assert "Traceback" not in run.output
    assert "running on" not in run.output
    assert run.errors == []
    if start == "the application":
        assert "cleaned up" in run.output


@PROCESSES
@pytest.mark.parametrize("start", ["keys", "the application", "an import"])
async def test_control_c_reaches_all_processes_and_ends_them_quietly(
    tmp_path: Path, silent_port: int, start: str, options: tuple[str, ...]
) -> None:
    (tmp_path / "chat.py").write_text(STARTS[start].replace("{port}", str(silent_port)))
    async with iogate_run(tmp_path, "chat:app", "--port", "0", *options) as run:
        await run.says("starting")
        os.killpg(run.process.pid, signal.SIGINT)
        assert await run.ended() == 0
    assert "Traceback" not in run.output
    assert run.errors == []
    assert ("cleaned up" in run.output) is (start == "the application")
