"""The README's first page, as it is printed."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE_MODULES = Path(__file__).parent / "js/node_modules"
WITHIN = 20.0  # seconds


def block(language: str) -> str:
    """Return the first code block of the README in this language."""
    found = re.search(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"the README has no {language} block"
    return found[1]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, str], int]]:
    """The README's server, run by the README's command on a free port."""
    (tmp_path / "chat.py").write_text(block("python"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "JWT_SECRET": secrets.token_urlsafe(64), "PYTHONUNBUFFERED": "1"}
    run = re.search(r"^iogate (run .*)$", block("sh"), re.MULTILINE)
    make = re.search(r"^export TOKEN=\$\(iogate (token make .*)\)$", block("sh"), re.MULTILINE)
    assert run is not None
    assert make is not None
    iogate = [sys.executable, "-m", "iogate"]
    maker = await asyncio.create_subprocess_exec(*iogate, *make[1].split(), env=environment, stdout=subprocess.PIPE)
    environment["TOKEN"] = (await maker.communicate())[0].decode().strip()
    command = [*iogate, *run[1].replace("3000", str(port)).split()]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(WITHIN):
        while b"running on" not in await process.stderr.readline():
            assert process.returncode is None, "the server has not started"
    yield process, environment, port
    process.terminate()
    await process.wait()


async def test_the_first_page_of_the_readme_runs_as_printed(
    served: tuple[asyncio.subprocess.Process, dict[str, str], int], tmp_path: Path
) -> None:
    """A good token is greeted by name, and a bad one is told `invalid_token`, by the official JavaScript client."""
    server, environment, port = served
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / "client.mjs").write_text(block("js").replace("localhost:3000", f"127.0.0.1:{port}"))
    node = shutil.which("node")
    assert node is not None, "Node is missing: run the tests by `make test`"
    client = await asyncio.create_subprocess_exec(
        node, "client.mjs", cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert client.stdout is not None
    assert server.stdout is not None
    said = ""
    async with asyncio.timeout(WITHIN):
        while not ("received:" in said and "}" in said):
            said += (await client.stdout.readline()).decode()
        greeting = (await server.stdout.readline()).decode()
    client.kill()
    await client.wait()
    assert "received: hello" in said
    assert re.search(r"refused: invalid token \{[^}]*code: 'invalid_token'", said)
    assert greeting == "Hello Alice!\n"
