"""Many sockets whose tokens end in the same second.

    python -m benchmarks.expiry                    # 10 000 sockets, under a minute
    python -m benchmarks.expiry --sockets 500      # a try
    python -m benchmarks.expiry --json expiry.json

Every socket is a WebSocket over loopback with a token of its own. What is looked at: how the calls to refresh are
spread over their window; whether all sockets end within a second of `exp`, none before, and how long the server was
busy with that; what is left of them in the server's tables and memory.
"""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.machine import conclude, describe, memory, quantile
from benchmarks.served import Heart, served, swarm
from iogate import Limits, Server
from iogate.server.namespaces.adapter import LocalAdapter
from iogate.testing import TokenFactory

REFRESH_BEFORE = 8.0
"""Seconds before the end at which the calls to refresh may begin; they are spread over the first half of that."""
CONNECTS = 700
"""Clients that surely can connect in a second."""
BIN = 0.5
"""Seconds of a bar of the histogram."""
CLOCKS = 0.05
"""Seconds by which two clocks may differ: the server's deadlines go by the monotonic one, `exp` and clients do not."""


async def measure(sockets: int, connects: float) -> dict[str, Any]:
    """Return what was measured."""
    factory = TokenFactory(lifetime=3600)
    io = Server(
        auth=factory.auth(refresh_before=REFRESH_BEFORE),
        limits=Limits(pending=100_000, pending_per_address=100_000),
        ping_interval=60,
        ping_timeout=60,
    )
    io.on("connect", lambda socket: socket.join("everybody"))
    io.of("/").on("disconnect", lambda socket, reason: None)
    async with served(io) as port, swarm(port, sockets) as clients:
        sockets = min(sockets, clients.files)
        fresh = memory()
        # A rehearsal: an allocator keeps some of the room that once was needed, more of it or less. A leak would be
        # what the second crowd needs on top of the first.
        await clients("connect", group="rehearsal", tokens=factory.many(*names(sockets)))
        rehearsed = memory()
        await clients("leave", group="rehearsal")
        await _until(lambda: not io._core.sessions.table, 20)
        await asyncio.sleep(0.5)
        before = memory()
        # So late that all are in before half of the life of their tokens is over, and the window is the same for all.
        exp = math.ceil(time.time() + sockets / connects + 2 + 2 * REFRESH_BEFORE)
        tokens = factory.many(*names(sockets), exp=exp)
        heart = Heart()
        connected = await clients("connect", group="all", tokens=tokens)
        del tokens
        in_time = exp - time.time() >= 2 * REFRESH_BEFORE
        tables_with, stalls = tables(io), {"connecting": heart.reset()}
        during = memory()
        await asyncio.sleep(2 * Heart.INTERVAL)
        heart.reset()  # Collecting the garbage took a while too.
        await asyncio.sleep(exp - time.time() - REFRESH_BEFORE / 4)
        stalls["calling to refresh"] = heart.reset()
        await asyncio.sleep(exp - time.time() + 5)
        stalls["ending"] = heart.reset()
        heart.stop()
        seen = await clients("report", group="all")
        await asyncio.sleep(0.5)
        return {
            "sockets": sockets,
            "connected": connected["connected"],
            "connected in": round(connected["seconds"], 2),
            "all before the window": in_time,
            "notices": spread(seen["notices"], exp),
            "ends": lateness(seen["ends"], exp),
            "told why": len(seen["refusals"]),
            "stalls of the event loop": {name: round(value, 3) for name, value in stalls.items()},
            "tables with": tables_with,
            "tables after": tables(io),
            "memory": {"fresh": fresh, "rehearsed": rehearsed, "before": before, "with": during, "after": memory()},
        }


def names(number: int) -> list[str]:
    """Return as many subjects."""
    return [f"user-{index}" for index in range(number)]


def spread(notices: list[float], exp: float) -> dict[str, Any]:
    """Return how the calls to refresh lie in their window."""
    first, last = exp - REFRESH_BEFORE, exp - REFRESH_BEFORE / 2
    bars = [0] * round((last - first) / BIN)
    outside = sum(not first - CLOCKS <= moment <= last + CLOCKS for moment in notices)
    for moment in notices:
        bars[min(max(math.floor((moment - first) / BIN), 0), len(bars) - 1)] += 1
    mean = len(notices) / (last - first)
    seconds = [sum(bars[index : index + round(1 / BIN)]) for index in range(0, len(bars), round(1 / BIN))]
    return {
        "number": len(notices),
        "window": f"{-REFRESH_BEFORE:+.1f} s to {-REFRESH_BEFORE / 2:+.1f} s",
        "outside": outside,
        f"in each {BIN} s": bars,
        "mean in a second": round(mean, 1),
        "most in a second": max(seconds, default=0),
        "most over mean": round(max(seconds, default=0) / mean, 2) if mean else None,
    }


def lateness(ends: list[float], exp: float) -> dict[str, Any]:
    """Return how many seconds after `exp` the transports were closed, as the clients saw it."""
    late = [moment - exp for moment in ends]
    return {
        "number": len(late),
        "early": sum(value < 0 for value in late),
        "first": round(min(late, default=math.nan), 3),
        "p50": round(quantile(late, 0.5), 3),
        "p99": round(quantile(late, 0.99), 3),
        "last": round(max(late, default=math.nan), 3),
    }


def tables(io: Server) -> dict[str, int]:
    """Return how many entries the tables of the server have."""
    adapter = io.of("/").adapter
    if not isinstance(adapter, LocalAdapter):
        raise TypeError(f"{adapter!r} is not a LocalAdapter")
    counted = {
        "connections": len(io._core.sessions.table),
        "sockets": len(adapter.sockets),
        "rooms": len(adapter._members) + len(adapter._rooms),
        "pending": len(io._core.sessions.pending),
        "failures": len(io._core.gate.failures),
        "subjects": len(io._core.gate.subjects),
        "lingering": len(io._core.sessions.draining),
        "tasks": len(io._core.sessions._tasks),
    }
    for number, queue in enumerate(io._core.sessions.deadlines._queues):
        counted[f"deadlines {number}"] = len(queue)
        counted[f"heap {number}"] = len(getattr(queue, "_heap", ()))
    return {name: number for name, number in counted.items() if number}


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the result."""
    notices, ends = result["notices"], result["ends"]
    table = Table("what", "measured", title=f"{result['connected']} of {result['sockets']} sockets, one exp for all")
    table.add_row("connected in", f"{result['connected in']} s")
    table.add_row("token_expiring", f"{notices['number']}, {notices['outside']} outside {notices['window']}")
    table.add_row("", f"{notices['mean in a second']} a second, at most {notices['most in a second']}")
    table.add_row("ended", f"{ends['number']}, {ends['early']} early; told why: {result['told why']}")
    table.add_row("seconds after exp", f"p50 {ends['p50']}, p99 {ends['p99']}, last {ends['last']}")
    for name, value in result["stalls of the event loop"].items():
        table.add_row(f"longest stall, {name}", f"{value * 1000:.0f} ms")
    for name, value in result["memory"].items():
        table.add_row(f"memory {name}", f"{value['resident MiB']} MiB, {value['objects']} objects")
    table.add_row("left in tables", str(result["tables after"] or "nothing"))
    console.print(table)
    bars = notices[f"in each {BIN} s"]
    for index, count in enumerate(bars):
        console.print(f"{index * BIN - REFRESH_BEFORE:+6.1f} s {count:6} " + "#" * round(50 * count / max(*bars, 1)))


def verdict(result: dict[str, Any]) -> list[str]:
    """Return what should be otherwise."""
    ends, notices = result["ends"], result["notices"]
    wrong = {
        "not every client connected": result["connected"] < result["sockets"],
        "some connected after the window had begun: lower --connects": not result["all before the window"],
        "not one call to refresh for each": notices["number"] != result["connected"],
        "calls to refresh outside their window": notices["outside"] > 0,
        "a second with more than 1.5 times the mean of calls": (notices["most over mean"] or 0) > 1.5,
        "sockets that did not end": ends["number"] != result["connected"],
        "sockets that ended early": ends["early"] > 0,
        "sockets that ended more than a second late": ends["last"] > 1,
        "entries left in tables": bool(result["tables after"]),
        "10 % more memory than at the rehearsal, or objects left": _grown(result["memory"]),
    }
    return [text for text, is_so in wrong.items() if is_so]


def _grown(measured: dict[str, dict[str, float]]) -> bool:
    more = measured["with"]["resident MiB"] > 1.1 * measured["rehearsed"]["resident MiB"]
    return more or measured["after"]["objects"] > 1.01 * measured["before"]["objects"]


async def _until(condition: Any, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--sockets", default=10_000, help="How many.")
@click.option("--connects", default=float(CONNECTS), help="Clients that surely can connect in a second.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where to write the result.")
def main(sockets: int, connects: float, file: Path | None) -> None:
    """Measure, print, and end with 1 if something is not as it should be."""
    console = Console()
    result = {"machine": describe(), **uvloop.run(measure(sockets, connects))}
    if result["sockets"] < sockets:
        console.print(f"[bold]The system allows {result['sockets']} sockets only[/bold]: raise `ulimit -n`.")
    show(console, result)
    conclude(console, result, verdict(result), file)


if __name__ == "__main__":
    main()
