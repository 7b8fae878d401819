"""The chat demo's files are private, and `typing` and sign-ins are limited per person and per network."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import socketio
from examples.chat.accounts import Accounts
from examples.chat.api import Api
from examples.chat.attempts import source
from examples.chat.database import Base, connect, revocations_file
from examples.chat.sessions import Sessions
from examples.chat.tokens import Mint
from examples.chat.web import website
from sqlalchemy import text
from starlette.applications import Starlette

from iogate import JWTAuth, MemoryRevocations, Server
from tests.e2e.test_demo import PASSWORD, SECRET, Demo, post

SIDE_FILES = ("-journal", "-wal", "-shm")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def no_umask() -> Iterator[None]:
    """Let every new file be readable and writable for everybody, unless its maker says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    running.start()
    yield running
    running.stop()
    assert "Traceback" not in running.said("stderr")


# Row 19: the files.


@pytest.mark.usefixtures("no_umask")
@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("existing", [False, True])
def test_only_the_user_of_the_server_can_read_the_database_and_the_files_beside_it(
    tmp_path: Path, journal: str, existing: bool
) -> None:
    path = tmp_path / "chat.db"
    if existing:
        path.touch(0o666)
        assert mode(path) == 0o666
    engine = connect(f"sqlite:///{path}")
    assert mode(path) == 0o600
    with engine.connect() as connection:
        connection.execute(text(f"PRAGMA journal_mode={journal}"))
        connection.execute(text("CREATE TABLE secrets (secret)"))
        connection.execute(text("INSERT INTO secrets VALUES (1)"))
        made = [tmp_path / f"chat.db{suffix}" for suffix in SIDE_FILES if (tmp_path / f"chat.db{suffix}").exists()]
        assert made
        assert {mode(file) for file in (path, *made)} == {0o600}
    engine.dispose()


@pytest.mark.usefixtures("no_umask")
def test_files_beside_the_database_that_an_earlier_process_left_are_closed_to_others(tmp_path: Path) -> None:
    files = [tmp_path / f"chat.db{suffix}" for suffix in SIDE_FILES]
    for file in files:
        file.touch(0o666)
    connect(f"sqlite:///{tmp_path}/chat.db").dispose()
    assert {mode(file) for file in files} == {0o600}


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql://user:word@localhost/chat"])
def test_a_database_that_is_no_file_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    if url.startswith("sqlite"):
        connect(url).dispose()
    assert revocations_file(url) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_umask")
async def test_the_running_demo_has_no_file_that_others_can_read(demo: Demo) -> None:
    for name in ("Ann", "Bea"):
        assert post(demo, "/api/accounts", username=name, password=PASSWORD).status_code == 201
        files = sorted(demo.database.parent.glob("chat*"))
        assert {"chat.db", "chat.revocations.db"} <= {file.name for file in files}
        assert {file.name: mode(file) for file in files} == {file.name: 0o600 for file in files}
        demo.stop()
        for file in demo.database.parent.glob("chat*"):
            file.chmod(0o666)  # As an earlier version left them.
        demo.start()


# Row 19: `typing`.


async def test_typing_is_limited_per_person_on_all_their_connections_and_everybody_else_is_heard(demo: Demo) -> None:
    ann, bea, cleo = (
        post(demo, "/api/accounts", username=name, password=PASSWORD).json()["token"] for name in ("Ann", "Bea", "Cleo")
    )
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def on_typing(person: dict[str, Any]) -> None:
        await heard.put(("typing", person["name"]))

    async def on_message(message: dict[str, Any]) -> None:
        await heard.put(("message", message["text"]))

    async with (
        socketio.AsyncSimpleClient() as listener,
        socketio.AsyncSimpleClient() as one,
        socketio.AsyncSimpleClient() as two,
        socketio.AsyncSimpleClient() as other,
    ):
        await listener.connect(demo.url, auth={"token": bea}, wait_timeout=5)
        listener.client.on("typing", on_typing)
        listener.client.on("message", on_message)
        await one.connect(demo.url, auth={"token": ann}, wait_timeout=5)
        await two.connect(demo.url, auth={"token": ann}, wait_timeout=5)
        await other.connect(demo.url, auth={"token": cleo}, wait_timeout=5)
        for _ in range(100):
            await one.emit("typing")
            await two.emit("typing")
        # Who types too much is not told, and stays connected. The answer says that all before it was handled.
        assert "id" in await one.call("message", "one", timeout=5)
        assert "id" in await two.call("message", "two", timeout=5)
        await other.emit("typing")
        assert "id" in await other.call("message", "three", timeout=5)
        got: list[tuple[str, str]] = []
        async with asyncio.timeout(10):
            while not got or got[-1] != ("message", "three"):
                got.append(await heard.get())
    # Volatile events may be left out, but not with a listener that reads.
    assert 1 <= got.count(("typing", "Ann")) <= 10
    assert got.count(("typing", "Cleo")) == 1


# Row 19: addresses.


@pytest.mark.parametrize(
    ("host", "counts_as"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_a_client_is_an_ipv4_address_or_a_network_of_64_bits(host: str, counts_as: str) -> None:
    assert source(host) == counts_as


@asynccontextmanager
async def no_lifespan(_: Starlette) -> AsyncIterator[None]:
    yield


async def sign_in(app: Starlette, host: str) -> int:
    """Return the status that a client at this address gets for a request without credentials."""
    transport = httpx.ASGITransport(app, client=(host, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://chat") as client:
        return (await client.post("/api/sessions", json={})).status_code


@pytest.mark.parametrize(
    ("hosts", "same", "other"),
    [
        ([f"2001:db8:1:2::{n:x}" for n in range(30)], "2001:db8:1:2:ffff::", "2001:db8:1:3::"),
        (["203.0.113.9"] * 30, "::ffff:203.0.113.9", "203.0.113.10"),
    ],
    ids=["IPv6", "IPv4"],
)
async def test_sign_ins_are_limited_by_network_and_not_by_address(
    tmp_path: Path, hosts: list[str], same: str, other: str
) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])
    engine = connect(f"sqlite:///{tmp_path}/chat.db")
    Base.metadata.create_all(engine)
    app = website(
        Api(
            Server(auth=auth),
            auth,
            MemoryRevocations(),
            Accounts(engine),
            Sessions(engine, grace=1),
            Mint(SECRET, 60),
        ),
        no_lifespan,
    )
    assert [await sign_in(app, host) for host in hosts] == [400] * 30
    assert await sign_in(app, same) == 429
    assert await sign_in(app, other) == 400
    engine.dispose()
