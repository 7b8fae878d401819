"""The small examples, started as their first lines say, with the official JavaScript client and an HTTP client."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.official import call, connect, emit, events, of, run_client, wait, wait_event
from tests.refusals import INVALID
from tests.servers import SECRET, make_token

ROOT = Path(__file__).parents[2]
WITHIN = 15.0  # seconds in which an example must have started
COMMANDS = {
    "fastapi": "iogate run examples.fastapi.app:app",
    "flask": "flask --app examples.flask.app run",
    "django": "iogate run examples.django.app:app",
}


@asynccontextmanager
async def started(name: str) -> AsyncIterator[str]:
    """Start an example, and give its URL."""
    assert f"`JWT_SECRET=... {COMMANDS[name]}`" in (ROOT / "examples" / name / "app.py").read_text()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *COMMANDS[name].split(), "--port", "0"),
        cwd=ROOT,
        env={**os.environ, "JWT_SECRET": SECRET, "PYTHONUNBUFFERED": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = ""
    try:
        async with asyncio.timeout(WITHIN):
            while (found := re.search(r"[Rr]unning on (http://[\d.:]+)", said)) is None:
                line = await process.stdout.readline()
                assert line, said
                said += line.decode()
        yield found[1]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_message_by_rest_or_by_socket_reaches_who_is_let_in(name: str) -> None:
    writer, reader = make_token(scope="chat:write"), make_token(scope="chat:read")
    async with started(name) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        # The server's answer to a socket is the sign to begin: what is posted before, nobody hears.
        lines = await run_client(
            url, connect(auth={"token": writer}), wait("connect"), emit("message", "hello"), wait_event("message")
        )
        assert events(lines, "message") == [[{"from": "ann", "text": "hello"}]]
        listening = asyncio.create_task(
            run_client(url, connect(auth={"token": reader}), wait("connect"), wait_event("message"))
        )
        while not listening.done():
            headers = {"authorization": f"Bearer {writer}"}
            posted = await http.post("/messages", params={"text": "hello"}, headers=headers)
            assert posted.status_code == 200
            await asyncio.sleep(0.02)
        assert events(await listening, "message")[0] == [{"from": "ann", "text": "hello"}]
        for token, status in ((None, 401), ("x", 401), (reader, 403)):
            headers = {"authorization": f"Bearer {token}"} if token else {}
            assert (await http.post("/messages", params={"text": "x"}, headers=headers)).status_code == status
        lines = await run_client(
            url,
            connect(auth={"token": reader}),
            wait("connect"),
            call("message", "x"),
            connect(auth={"token": "x"}, name="bad", forceNew=True),
            wait("connect_error", "bad"),
        )
        assert events(lines, "forbidden")[0][0]["required"] == ["chat:write"]
        assert of(lines, "connect_error", "bad")[0]["data"] == INVALID["data"]
