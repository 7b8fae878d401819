"""Revoking the tokens of a subject that has many busy sockets.

    python -m benchmarks.revocation                              # 1000 sockets, 100 messages a second each, 20 rounds
    python -m benchmarks.revocation --sockets 50 --rounds 3      # a try
    python -m benchmarks.revocation --json revocation.json

Each round is another subject. Its sockets are WebSockets over loopback that receive numbered messages, as bystanders
of another subject do; after a while `await io.revoke(subject=...)` is called, while the messages go on. What is looked
at: how long the call takes, and what the clients receive once it has returned: messages with later numbers, and
bytes. A byte that had left the server when the call returned may be read a little later, for the clients have a queue
in the system, and as many as these do not always keep up; so the bytes are counted twice: by the clock, and from the
moment at which the clients have read an order that was sent to them when the call had returned.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.machine import conclude, describe, quantile
from benchmarks.served import Heart, served, swarm
from iogate import Limits, Server
from iogate.testing import TokenFactory

TEXT = "x" * 32
BUSY = 2.0
"""Seconds of messages before the call."""


class News:
    """Emits numbered messages to whoever is there, so many a second.

    Args:
        io: the server.
        room: the room of those who are to be revoked.
        rate: messages a second.
    """

    def __init__(self, io: Server, room: str, rate: float) -> None:
        self._io = io
        self._room = room
        self._rate = rate
        self.number = 0
        self._task = asyncio.create_task(self._emit())

    async def stop(self) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _emit(self) -> None:
        due = time.monotonic()
        while True:
            # To the room of the subject and to everybody in turns: both ways must end.
            target = self._io.to(self._room) if self.number % 2 else self._io
            target.emit("news", self.number, TEXT)
            self.number += 1
            # What could not be kept up with is not made up for: the server would do nothing else.
            due = max(due + 1 / self._rate, time.monotonic())
            await asyncio.sleep(due - time.monotonic())


async def measure(sockets: int, bystanders: int, rate: float, rounds: int) -> dict[str, Any]:
    """Return what was measured."""
    factory = TokenFactory(lifetime=3600)
    io = Server(
        auth=factory.auth(),
        limits=Limits(pending=100_000, pending_per_address=100_000),
        ping_interval=60,
        ping_timeout=60,
    )
    async with served(io) as port, swarm(port, sockets + bystanders) as clients:
        sockets = min(sockets, clients.files - bystanders)
        await clients("connect", group="bystanders", tokens=[factory.good(sub="bystander")], number=bystanders)
        results = [await one(io, clients, factory, sockets, rate, f"ann-{number}") for number in range(rounds)]
        others = await clients("report", group="bystanders")
        return {
            "sockets": sockets,
            "bystanders": bystanders,
            "asked for": f"{rate} messages a second to each socket",
            "revoke ms": {
                "p50": round(1000 * quantile([result["call"] for result in results], 0.5), 2),
                "p99": round(1000 * quantile([result["call"] for result in results], 0.99), 2),
                "most": round(1000 * max(result["call"] for result in results), 2),
            },
            "bystanders ended": len(others["ends"]),
            "revocations remembered": len(io._core.revocations),  # type: ignore[arg-type]
            "connections left": len(io._core.sessions.table) - bystanders,
            "rounds": results,
        }


async def one(io: Server, clients: Any, factory: TokenFactory, sockets: int, rate: float, sub: str) -> dict[str, Any]:
    """Return what one round came to."""
    connected = await clients("connect", group=sub, tokens=[factory.good(sub=sub)], number=sockets)
    news = News(io, f"user:{sub}", rate)
    heart = Heart()
    began, first = time.monotonic(), news.number
    await asyncio.sleep(BUSY)
    emitted, took = news.number - first, time.monotonic() - began
    heart.reset()
    start = time.monotonic()
    await io.revoke(subject=sub)
    returned, number = time.monotonic(), news.number
    marked = await clients("mark", group=sub, after=returned)
    await news.stop()
    heart.stop()
    await clients("leave", group=sub)
    return {
        "subject": sub,
        "connected": connected["connected"],
        "call": returned - start,
        "emitted a second": round(emitted / took, 1),
        "number at the return": number,
        **{name: round(value, 4) if isinstance(value, float) else value for name, value in marked.items()},
    }


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the result."""
    calls = result["revoke ms"]
    # "By the clock": read after the call had returned. "Read up": when what had been sent until then was read.
    table = Table(title=f"{result['sockets']} sockets of a subject, {result['asked for']}")
    for name in (
        "round",
        "msg/s",
        "revoke ms",
        "later numbers",
        "bytes by the clock",
        "read up ms",
        "bytes after that",
    ):
        table.add_column(name, justify="right")
    for number, one in enumerate(result["rounds"]):
        table.add_row(
            str(number),
            f"{one['emitted a second']}",
            f"{1000 * one['call']:.1f}",
            str(max(0, one["highest"] - one["number at the return"] + 1)),
            str(one["bytes since"]),
            f"{1000 * one['drained after']:.0f}",
            str(one["bytes after drained"]),
        )
    console.print(table)
    console.print(
        f"await io.revoke(subject=...): p50 {calls['p50']} ms, p99 {calls['p99']} ms, most {calls['most']} ms"
    )


def verdict(result: dict[str, Any]) -> list[str]:
    """Return what should be otherwise."""
    rounds = result["rounds"]
    wrong = {
        "not every client connected": any(one["connected"] < result["sockets"] for one in rounds),
        "no messages were received at all": any(not one["messages"] for one in rounds),
        "a message that was emitted after the return": any(
            one["highest"] >= one["number at the return"] for one in rounds
        ),
        "bytes after the clients had read up": any(one["bytes after drained"] for one in rounds),
        "sockets that did not end": any(one["ended"] < one["connected"] for one in rounds),
        "sockets of others that ended": result["bystanders ended"] > 0,
        "connections left": result["connections left"] != 0,
    }
    return [text for text, is_so in wrong.items() if is_so]


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--sockets", default=1000, help="Of the subject.")
@click.option("--bystanders", default=20, help="Sockets of somebody else.")
@click.option("--rate", default=100.0, help="Messages a second to each socket.")
@click.option("--rounds", default=20, help="Subjects, one after the other.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where to write the result.")
def main(sockets: int, bystanders: int, rate: float, rounds: int, file: Path | None) -> None:
    """Measure, print, and end with 1 if something is not as it should be."""
    console = Console()
    result = {"machine": describe(), **uvloop.run(measure(sockets, bystanders, rate, rounds))}
    show(console, result)
    conclude(console, result, verdict(result), file)


if __name__ == "__main__":
    main()
