"""What attacks by clients without a good token cost the users who are in.

    python -m benchmarks.unauthenticated                         # about fifteen minutes
    python -m benchmarks.unauthenticated --only "bad tokens" --ws websockets

The server is a process of its own on a core of its own, as `iogate run` serves it. Users and attackers share the other
core; the attackers run only while no user needs it. The time that a user's events take is measured at rest and under
attack, in turn, and the server's resident memory is read. The median of several rounds counts.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.compare.processes import choose_cores, start
from benchmarks.machine import allow_files, conclude, describe
from benchmarks.unauthenticated.attacks import ATTACKS

TIMES = 3.0
"""What the 99th percentile may be under an attack, as a multiple of what it is at rest ..."""
MORE_MS = 2.0
"""... or so many milliseconds more, whichever is larger."""
BASE_MIB = 24.0
"""MiB that the server may take more under an attack, whatever it is ..."""
PER_CONNECTION_KIB = 160.0
"""... and KiB for each connection that the attack has open."""
CORES = choose_cores()
ROOT = Path(__file__).parents[2]


class Served:
    """A server in a process of its own, and a user of it.

    Args:
        ws: what serves its WebSockets.
        parser: its parser.
    """

    def __init__(self, ws: str, parser: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        run = [
            "-c",
            "from iogate.cli import main; main()",
            "run",
            "benchmarks.unauthenticated.app:app",
        ]
        self._server = _started(
            [*run, "--port", str(self.port), "--ws", ws, "--log-level", "error"], CORES.server, {"PARSER": parser}
        )
        _until_it_listens(self.port)
        users = ["-m", "benchmarks.unauthenticated.users", str(self.port), parser]
        self._users = _started(users, CORES.load, {})
        assert self._users.stdout is not None  # noqa: S101
        if self._users.stdout.readline() != b"ready\n":
            raise RuntimeError("the user was not let in")

    def latencies(self, seconds: float) -> dict[str, float]:
        """Return how long a user's events take, in milliseconds."""
        assert self._users.stdin is not None  # noqa: S101
        assert self._users.stdout is not None  # noqa: S101
        self._users.stdin.write(f"{seconds}\n".encode())
        self._users.stdin.flush()
        taken = sorted(json.loads(self._users.stdout.readline()))
        return {"p50": statistics.median(taken), "p99": taken[int(len(taken) * 0.99)], "events": len(taken)}

    def memory(self) -> float:
        """Return the resident memory of the server in MiB."""
        status = Path(f"/proc/{self._server.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def attack(self, name: str, seconds: float) -> subprocess.Popen[bytes]:
        """Begin an attack."""
        attack = ["-m", "benchmarks.unauthenticated.attacks", name, str(self.port), str(seconds)]
        return _started(attack, CORES.load, {})

    def end(self) -> None:
        """End both processes."""
        for process in (self._users, self._server):
            process.kill()
            process.communicate()


def _started(arguments: list[str], core: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return start([sys.executable, *arguments], core, environment=environment, folder=ROOT, errors=subprocess.DEVNULL)


def _until_it_listens(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server does not listen")


@contextmanager
def _watched(served: Served) -> Iterator[list[float]]:
    """Read the memory of the server again and again."""
    readings: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            readings.append(served.memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield readings
    finally:
        over.set()
        watcher.join()


def measure(name: str, ws: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Make one attack on a new server, several times, and return what was measured."""
    plan = ATTACKS[name]
    served = Served(ws, plan.parser)
    rest, under, attempts = [], [], 0
    try:
        served.latencies(0.5)
        before = served.memory()
        with _watched(served) as readings:
            for _ in range(rounds):
                rest.append(served.latencies(seconds))
                attack = served.attack(name, seconds + 2.5)
                time.sleep(1.5)  # An attack takes a while to begin.
                under.append(served.latencies(seconds))
                output, _ = attack.communicate()
                attempts += int(output)
        return {
            "attack": name,
            "ws": ws,
            "at rest": _medians(rest),
            "under attack": _medians(under),
            "memory at rest": round(before, 1),
            "memory under attack": round(max(readings), 1),
            "connections": plan.at_once,
            "attempts": attempts,
        }
    finally:
        served.end()


def _medians(seen: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(figures[name] for figures in seen) for name in seen[0]}


def allowed(seen: dict[str, Any]) -> tuple[float, float]:
    """Return what the 99th percentile may be under this attack, in milliseconds, and the memory, in MiB."""
    quiet = seen["at rest"]["p99"]
    memory = seen["memory at rest"] + BASE_MIB + seen["connections"] * PER_CONNECTION_KIB / 1024
    return max(TIMES * quiet, quiet + MORE_MS), memory


def wrong(seen: dict[str, Any]) -> list[str]:
    """Return what is not as it must be."""
    latency, memory = allowed(seen)
    found = []
    if seen["under attack"]["p99"] > latency:
        found.append(f"{seen['attack']} on {seen['ws']}: the 99th percentile is above {latency:.2f} ms")
    if seen["memory under attack"] > memory:
        found.append(f"{seen['attack']} on {seen['ws']}: the server takes more than {memory:.0f} MiB")
    if not seen["attempts"]:
        found.append(f"{seen['attack']} on {seen['ws']}: no attempt was made")
    return found


def show(console: Console, results: list[dict[str, Any]]) -> None:
    """Print the results."""
    table = Table("attack", "ws", "p50, ms", "p99, ms", "allowed", "memory, MiB", "allowed", "attempts")
    for seen in results:
        latency, memory = allowed(seen)
        rest, under = seen["at rest"], seen["under attack"]
        table.add_row(
            seen["attack"],
            seen["ws"],
            f"{rest['p50']:.2f} -> {under['p50']:.2f}",
            f"{rest['p99']:.2f} -> {under['p99']:.2f}",
            f"{latency:.2f}",
            f"{seen['memory at rest']:.0f} -> {seen['memory under attack']:.0f}",
            f"{memory:.0f}",
            str(seen["attempts"]),
        )
    console.print(table)


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--ws", "libraries", multiple=True, default=["picows", "websockets"], help="What serves WebSockets.")
@click.option("--only", "names", multiple=True, default=list(ATTACKS), show_default=False, help="The attacks to make.")
@click.option("--seconds", default=2.0, help="How long each measurement takes.")
@click.option("--rounds", default=3, help="How often each is made.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where to write the result.")
def main(libraries: tuple[str, ...], names: tuple[str, ...], seconds: float, rounds: int, file: Path | None) -> None:
    """Measure, print, and end with 1 if something is not as it must be."""
    console = Console(width=max(120, Console().width))
    allow_files(1000)
    os.sched_setaffinity(0, {CORES.load})
    results = []
    for ws in libraries:
        for name in names:
            results.append(measure(name, ws, seconds, rounds))
            console.print(f"{ws}: {name}")
    show(console, results)
    problems = [problem for seen in results for problem in wrong(seen)]
    conclude(console, {"machine": describe(), "results": results}, problems, file)


if __name__ == "__main__":
    main()
