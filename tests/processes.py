"""Processes that a test runs to their end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any


async def run(*command: str | Path, within: float, **details: Any) -> tuple[int, str]:
    """Return the exit code of a process, and all that it has written to both streams.

    Args:
        command: the program and its arguments.
        within: seconds until the process is killed and the test fails.
        details: of `asyncio.create_subprocess_exec`, such as `cwd` and `env`.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        **details,
    )
    try:
        async with asyncio.timeout(within):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode()
