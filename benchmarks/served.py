"""A server as `iogate run` serves it, in this process, and a swarm of clients in another: each on a core of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from benchmarks.compare.processes import choose_cores
from benchmarks.machine import allow_files
from iogate import Server
from iogate.transports.picows.http import PicowsHTTP
from iogate.transports.picows.upgrade import PicowsProtocol

CORES = choose_cores()
"""Chosen before anything is pinned: what is chosen from is where this process may run."""


@asynccontextmanager
async def served(io: Server) -> AsyncIterator[int]:
    """Serve; give the port."""
    os.sched_setaffinity(0, {CORES.server})
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    config = uvicorn.Config(
        io.asgi(),
        http=PicowsHTTP,
        ws=PicowsProtocol,
        ws_max_size=io._core.settings.max_payload,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        proxy_headers=False,
        access_log=False,
        log_config=None,
        lifespan="on",
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield listener.getsockname()[1]
    finally:
        await io.shutdown(timeout=3.0)
        await server.shutdown(sockets=[listener])


class Clients:
    """The swarm, from here.

    Args:
        process: its process.
        files: how many clients it can have.
    """

    def __init__(self, process: asyncio.subprocess.Process, files: int) -> None:
        self._process = process
        self.files = files

    async def __call__(self, order: str, **details: Any) -> dict[str, Any]:
        """Let it do something; return its answer.

        Raises:
            RuntimeError: it has ended.
        """
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(json.dumps({"do": order, **details}).encode() + b"\n")
        return await read_answer(self._process)


@asynccontextmanager
async def swarm(port: int, number: int) -> AsyncIterator[Clients]:
    """Have a swarm that can have this many clients, if the limits of the system allow it."""
    files = allow_files(number)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.swarm",
        str(port),
        str(number),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
        limit=2**26,
    )
    os.sched_setaffinity(process.pid, {CORES.load})
    try:
        yield Clients(process, min(files, (await read_answer(process))["files"]))
    finally:
        process.kill()
        await process.wait()


async def read_answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Return the next answer of the swarm.

    Raises:
        RuntimeError: it has ended.
    """
    assert process.stdout is not None  # noqa: S101
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("the swarm has ended; its own message is above")
    answer: dict[str, Any] = json.loads(line)
    return answer


class Heart:
    """Beats a hundred times a second, and knows when it could not: how long the event loop was busy with one thing."""

    INTERVAL = 0.01

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = asyncio.create_task(self._beat())

    def reset(self) -> float:
        """Return the longest wait since the last time, in seconds, and begin anew."""
        longest, self.longest = self.longest, 0.0
        return longest

    def stop(self) -> None:
        """Stop."""
        self._task.cancel()

    async def _beat(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(self.INTERVAL)
            self.longest = max(self.longest, time.monotonic() - began - self.INTERVAL)
