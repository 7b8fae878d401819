"""Protected servers in several processes, with python-socketio's Redis managers and a real Redis."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.conformance.wire import Session, enter, session, within
from tests.gate.support import connect, hear
from tests.integrations.clustered import SLOW

ROOT = Path(__file__).parents[2]
WITHIN = 15.0  # seconds in which a process must have started


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[str]:
    """Run a Redis that keeps nothing, and give its URL."""
    program = shutil.which("redis-server")
    assert program is not None, "Redis is not on the PATH: run the tests with `make test`"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WITHIN):
            while b"eady to accept connections" not in (line := await process.stdout.readline()):
                assert line, "Redis did not start"
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        await process.communicate()


@asynccontextmanager
async def server(kind: str, url: str) -> AsyncIterator[str]:
    """Run one process, and give its URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integrations.clustered", kind),
        cwd=ROOT,
        env={**os.environ, "REDIS_URL": url, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WITHIN):
            line = await process.stdout.readline()
        assert line, "the process did not start"
        yield line.decode().strip()
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.parametrize("kind", ["AsyncServer", "Server"])
async def test_what_goes_through_redis_reaches_who_is_let_in_and_nobody_else(kind: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(redis(tmp_path))
        here, there = [await stack.enter_async_context(server(kind, url)) for _ in range(2)]
        ann = await stack.enter_async_context(session(here, "websocket"))
        bob = await stack.enter_async_context(session(there, "websocket"))
        await enter(ann)
        sid = await enter(bob, sub="bob")
        await _until_they_hear_each_other(ann, bob)
        slow = await stack.enter_async_context(session(there, "websocket"))
        await slow.send(connect(sub=SLOW))
        await ann.send('42["tell","user:bob","for bob"]', '42["tell",null,"for all"]')
        assert [await _told(bob) for _ in range(2)] == ["for bob", "for all"]
        assert await _told(ann) == "for all"
        await bob.send('42["open"]')
        assert str(await within(slow.receive())).startswith('40{"sid":')
        await ann.send(f'42["throw_out","{sid}"]')
        while (packet := await within(bob.receive())) != "41":
            assert str(packet).startswith('42["told"')


async def _until_they_hear_each_other(ann: Session, bob: Session) -> None:
    """Say something until it comes out on the other side: the processes subscribe when their first client comes."""
    for speaker, listener in ((ann, bob), (bob, ann)):
        heard = asyncio.create_task(hear(listener))
        while not heard.done():
            await speaker.send('42["tell",null,"hello"]')
            await asyncio.wait({heard}, timeout=0.1)


async def _told(client: Session) -> str:
    """Return the next thing that somebody was told, but for greetings that come late."""
    while True:
        name, text = await hear(client)
        assert name == "told", name
        if text != "hello":
            return str(text)
