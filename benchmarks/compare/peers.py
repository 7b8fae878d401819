"""The servers that are compared, as real programs."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

from benchmarks.compare.errors import MeasurementError
from benchmarks.compare.processes import start, stop
from benchmarks.compare.programs import PEERS, ROOT, Programs

START_WITHIN = 20.0
"""Seconds that a server has until it listens."""


@dataclass(frozen=True)
class Peer:
    """One server.

    Args:
        name: what it is called on the command line.
        title: what it is called in tables.
        echo: the event that it is asked to echo.
        verifies: whether it looks at tokens at all.
    """

    name: str
    title: str
    echo: str = "echo"
    verifies: bool = True


NODE = Peer("node", "Node socket.io")
PYTHON_SOCKETIO = Peer("python-socketio", "python-socketio")
FLOOR = Peer("floor", "floor (C)", verifies=False)
IOGATE = Peer("iogate", "iogate")
WEBSOCKETS = Peer("iogate-websockets", "iogate, websockets")
PLAIN = Peer("iogate-plain", "iogate, plain handler", echo="plain")
ALL = (NODE, PYTHON_SOCKETIO, FLOOR, IOGATE, WEBSOCKETS, PLAIN)


@dataclass(frozen=True)
class Running:
    """A server that is up."""

    peer: Peer
    pid: int
    port: int


def command(peer: Peer, port: int, programs: Programs) -> list[str]:
    """Return how a server is started.

    Raises:
        MeasurementError: what runs it is not there.
    """
    if peer is FLOOR:
        return [str(programs.floor), str(port)]
    if peer is NODE:
        node = shutil.which("node")
        if node is None or not (PEERS / "node" / "node_modules").is_dir():
            raise MeasurementError("Node's server is not installed: run it by `make bench`, or leave it out by --peers")
        return [node, str(PEERS / "node" / "server.mjs")]
    if peer is PYTHON_SOCKETIO:
        return [sys.executable, "-m", "benchmarks.peers.python_socketio"]
    ws = "websockets" if peer is WEBSOCKETS else "picows"
    program = "from iogate.cli import main; main()"
    options = ["--port", str(port), "--ws", ws, "--log-level", "warning"]
    return [sys.executable, "-c", program, "run", "benchmarks.peers.iogate_app:app", *options]


@contextmanager
def running(peer: Peer, core: int, programs: Programs, environment: Mapping[str, str]) -> Iterator[Running]:
    """Have a server listen on 127.0.0.1, on one core.

    Raises:
        MeasurementError: it does not start, or has ended before its time.
    """
    port = _free_port()
    with tempfile.TemporaryFile() as log:
        process = start(
            command(peer, port, programs),
            core,
            environment={**environment, "BENCH_PORT": str(port), "NODE_ENV": "production"},
            folder=ROOT,
            output=log,
            errors=subprocess.STDOUT,
        )
        try:
            _wait_until_it_listens(process, port)
            yield Running(peer, process.pid, port)
            if process.poll() is not None:
                raise MeasurementError("the server ended before its time")
        except MeasurementError as error:
            log.seek(0)
            said = log.read().decode(errors="replace").strip()[-2000:]
            raise MeasurementError(f"{error}\n{said}".strip()) from error
        finally:
            stop(process)


def versions(programs: Programs) -> dict[str, str]:
    """Return the versions of what the peers run on, of those that are there."""
    found = {"compiler": programs.compiler}
    for name in ("python-socketio", "PyJWT"):
        found[name] = version(name)
    node = shutil.which("node")
    if node is not None:
        found["node"] = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    for name in ("socket.io", "jsonwebtoken", "ws"):
        package = PEERS / "node" / "node_modules" / name / "package.json"
        if package.exists():
            found[name] = json.loads(package.read_text())["version"]
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    latest = time.monotonic() + START_WITHIN
    while time.monotonic() < latest:
        if process.poll() is not None:
            raise MeasurementError(f"the server ended with status {process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise MeasurementError(f"the server does not listen after {START_WITHIN:.0f} s")
