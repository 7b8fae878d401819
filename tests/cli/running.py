"""`iogate run` as a process of its own, for the tests."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from tests.conformance.wire import WebSocket, enter, session, within
from tests.servers import SECRET

STARTS_WITHIN = 15.0
ENDS_WITHIN = 5.0

SERVER = f"""
from iogate import AuthPayload, BearerHeader, JWTAuth, Query, Server

sources = (AuthPayload(), BearerHeader(), Query("token"))
io = Server(auth=JWTAuth(secret="{SECRET}", algorithms=["HS256"], sources=sources))
io.on("echo", lambda socket, text: socket.emit("echo", text))
"""
AROUND = """
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")
"""


class Run:
    """`iogate run`, while it runs and after."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.urls: list[str] = []
        self.expected: list[str] = []  # Errors that the test has looked at.
        self._folder = folder

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.urls[0]

    @property
    def output(self) -> str:
        """All that it has written, to both streams."""
        return "".join((self._folder / name).read_text() for name in ("stdout", "stderr"))

    @property
    def errors(self) -> list[str]:
        """The lines that tell of an error."""
        return [
            line for line in self.output.splitlines() if re.search(r"ERROR|CRITICAL|Traceback|never retrieved", line)
        ]

    async def says(self, text: str) -> None:
        """Wait until it has written something."""
        async with asyncio.timeout(STARTS_WITHIN):
            while text not in self.output:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def started(self) -> None:
        """Wait until it says where it listens."""
        async with asyncio.timeout(STARTS_WITHIN):
            while (found := re.search(r"running on (http\S+(, http\S+)*) \(", self.output)) is None:
                assert self.process.returncode is None, self.output
                await asyncio.sleep(0.02)
        self.urls = found[1].split(", ")

    async def ended(self) -> int:
        """Wait until it has ended, and return its exit code."""
        async with asyncio.timeout(ENDS_WITHIN):
            return await self.process.wait()

    async def terminate(self) -> None:
        """Send SIGTERM, and wait until it has ended, well and in time."""
        self.process.send_signal(signal.SIGTERM)
        assert await self.ended() in (0, -signal.SIGTERM)


@asynccontextmanager
async def python(folder: Path, *command: str) -> AsyncIterator[Run]:
    """Run Python in a folder. Its output goes to files: a full pipe would stop it."""
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = await _start(folder, command, out, err)
        try:
            yield Run(process, folder)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def iogate_run(folder: Path, *arguments: str) -> AbstractAsyncContextManager[Run]:
    """Run `iogate run` in a folder."""
    return python(folder, "-m", "iogate", "run", *arguments)


async def _start(folder: Path, command: tuple[str, ...], out: BinaryIO, err: BinaryIO) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *command),
        cwd=folder,
        stdout=out,
        stderr=err,
        start_new_session=True,  # CTRL+C is a signal to all processes of a group: `os.killpg`.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
    )


@asynccontextmanager
async def serving(folder: Path, source: str, *arguments: str) -> AsyncIterator[Run]:
    """Serve the `app` of a module with this source, and end it with SIGTERM."""
    (folder / "chat.py").write_text(source)
    async with iogate_run(folder, "chat:app", "--port", "0", *arguments) as run:
        await run.started()
        yield run
        if run.process.returncode is None:
            await run.terminate()
        assert run.errors == run.expected


async def serves(run: Run) -> None:
    """Make sure that an event is answered, on both transports."""
    for transport in ("polling", "websocket"):
        async with session(run.url, transport) as wire:
            await enter(wire)
            await wire.send('42["echo","here"]')
            assert await within(wire.receive()) == '42["echo","here"]'
            await wire.send("1")


async def close_code(wire: WebSocket) -> int | None:
    """Wait until a WebSocket is closed, and say with which code."""
    await within(wire.connection.wait_closed())
    return wire.connection.close_code
