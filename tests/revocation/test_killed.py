"""A server that is killed the moment a revocation has been promised keeps the promise when it is started again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import refusals
from tests.conformance.wire import client, enter, said, session, within
from tests.processes import run
from tests.revocation.stores import everything
from tests.servers import SECRET, make_token

WITHIN = 20.0  # seconds in which a server has started
ISSUER = "https://id.example.com"
APPLICATION = """
import os
from iogate import BackChannelLogout, JWTAuth, Server, SQLiteRevocations

io = Server(
    auth=JWTAuth(secret=os.environ["JWT_SECRET"], algorithms=["HS256"]),
    revocations=SQLiteRevocations("revocations.db"),
)

@io.on("revoke")
async def revoke(socket, criteria):
    await io.revoke(**criteria)
    return "done"

app = io.asgi(BackChannelLogout(io, issuer="https://id.example.com", audience="chat"))
"""
MOUNTED = """
from starlette.applications import Starlette
from starlette.routing import Mount
from chat import io

app = Starlette(routes=[Mount("/", app=io.asgi())])  # Starlette tells what is mounted nothing of its start.
"""


@asynccontextmanager
async def running(folder: Path, target: str = "chat:app") -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run the application by the command, in a process of its own that dies by SIGKILL; give its URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "iogate", "run", target, "--port", "0"),
        cwd=folder,
        env={**os.environ, "JWT_SECRET": SECRET},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(WITHIN):
            while (
                found := re.search(rb"running on (http://[0-9.:]+)", line := await process.stderr.readline())
            ) is None:
                assert line, "the server has not started"
        yield found[1].decode(), process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "chat.py").write_text(APPLICATION)
    (tmp_path / "mounted.py").write_text(MOUNTED)
    return tmp_path


async def refusal_of(url: str, token: str) -> Any:
    """Show a token, and return what the client reads as the error."""
    async with session(url, "websocket") as opened:
        await opened.send("40" + json.dumps({"token": token}))
        answer = str(await within(opened.receive()))
        assert answer.startswith("44"), answer
        return json.loads(answer[2:])


async def is_let_in(url: str, **claims: Any) -> None:
    async with session(url, "websocket") as opened:
        await enter(opened, **claims)


@pytest.mark.parametrize("target", ["chat:app", "mounted:app"])
async def test_what_a_handler_has_revoked_is_revoked_after_kill_9(folder: Path, target: str) -> None:
    """The process dies with the acknowledgement; the next one refuses each of the tokens, and lets in the others."""
    now = int(time.time())
    revoked: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"token_id": "t1"}, {"sub": "eve", "jti": "t1"}),
        ({"session_id": "s1", "issuer": ISSUER}, {"sub": "eve", "sid": "s1", "iss": ISSUER}),
        ({"subject": "mallory"}, {"sub": "mallory", "iat": now - 10}),
    ]
    async with running(folder) as (url, process):
        async with session(url, "websocket") as admin:
            await enter(admin, sub="admin")
            for number, (criteria, _) in enumerate(revoked):
                await admin.send(f"42{number}" + json.dumps(["revoke", criteria]))
                assert await within(admin.receive()) == f'43{number}["done"]'
            process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
    async with running(folder, target) as (url, _):
        for _, claims in revoked:
            assert await refusal_of(url, make_token(**claims)) == refusals.REVOKED
        await is_let_in(url, sub="eve", jti="t2", sid="s1", iss="https://other.example.com")
        await is_let_in(url, sub="mallory", iat=time.time())


async def test_a_logout_from_the_provider_holds_after_kill_9(folder: Path) -> None:
    """The process dies with the answer 200; its sockets had been told before."""
    now = int(time.time())
    event: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
    logout = make_token(iss=ISSUER, aud="chat", iat=now, exp=now + 60, jti="l1", sub=None, sid="s1", events=event)
    token = make_token(sid="s1", iss=ISSUER)
    async with running(folder) as (url, process):
        async with session(url, "websocket") as ann, client(url) as http:
            await ann.send("40" + json.dumps({"token": token}))
            assert str(await within(ann.receive())).startswith('40{"sid"')
            answer = await http.post("/backchannel-logout", data={"logout_token": logout})
            process.send_signal(signal.SIGKILL)
            assert answer.status_code == 200
            assert [str(packet)[:2] for packet in await said(ann)] == ["42", "41"]
        await process.wait()
    async with running(folder) as (url, _):
        assert await refusal_of(url, token) == refusals.REVOKED
        await is_let_in(url, sid="s2", iss=ISSUER)


async def test_many_revocations_at_once_are_all_there_after_kill_9(folder: Path) -> None:
    """Those that were promised; the process dies while others are still being written."""
    async with running(folder) as (url, process):
        async with session(url, "websocket") as admin:
            await enter(admin, sub="admin")
            await admin.send(
                *(f"42{number}" + json.dumps(["revoke", {"token_id": f"t{number}"}]) for number in range(200))
            )
            promised = [str(await within(admin.receive())) for _ in range(100)]
            process.send_signal(signal.SIGKILL)
        await process.wait()
    numbers = [int(packet.removeprefix("43").partition("[")[0]) for packet in promised]
    async with running(folder) as (url, _):
        for number in numbers:
            assert await refusal_of(url, make_token(sub="eve", jti=f"t{number}")) == refusals.REVOKED


async def test_a_server_whose_file_is_broken_does_not_start(folder: Path) -> None:
    """It would let in who has been thrown out."""
    (folder / "revocations.db").write_text("this is no database, but it is long enough to be one" * 100)
    command = (sys.executable, "-m", "iogate", "run", "chat:app", "--port", "0")
    status, said = await run(*command, within=WITHIN, cwd=folder, env={**os.environ, "JWT_SECRET": SECRET})
    assert status == 3
    assert "revocations.db cannot be read" in said


WRITER = """
import asyncio
import sys
from iogate import Revocation, SQLiteRevocations

async def write(first):
    store = SQLiteRevocations("revocations.db")
    store.open()
    for number in range(first, first + 10_000, 20):
        for each in range(number, number + 20):
            revocation = Revocation(token_id=f"t{each}", until=2e9)
            store.add(revocation, 1e9)
        await store.save(revocation)
        print(number + 20, flush=True)

asyncio.run(write(int(sys.argv[1])))
"""


async def test_a_process_that_is_killed_in_the_middle_of_a_write_leaves_a_good_file(tmp_path: Path) -> None:
    """Again and again: everything that was promised is in it, and the next start is not refused."""
    first = 0
    for lines in (1, 2, 3, 5, 8):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITER, str(first)), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(lines):
            first = int(await asyncio.wait_for(process.stdout.readline(), WITHIN))
        process.kill()
        await process.communicate()
        kept = {each.token_id for each in everything(tmp_path / "revocations.db")}
        assert {f"t{number}" for number in range(first)} <= kept
