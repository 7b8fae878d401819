"""The official JavaScript client and python-socketio's own, against python-socketio's servers behind the gate."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests import refusals
from tests.e2e.official import call, connect, emit, events, of, run_client, wait, wait_event
from tests.e2e.test_python_client import client, refusal_of
from tests.gate.houses import HOUSES, House
from tests.gate.support import StoppedWallClock, make_auth, unauthorized
from tests.server.left import until
from tests.servers import make_token

OTHERS = ["AsyncServer", "Server", "Flask-SocketIO"]


@pytest.fixture(params=OTHERS)
def build(request: pytest.FixtureRequest) -> Callable[..., House]:
    return HOUSES[request.param]


async def test_the_javascript_client_is_let_in_or_told_why_not(
    build: Callable[..., House], transports: list[str]
) -> None:
    house = build()
    async with house.serve() as url:
        lines = await run_client(
            url,
            connect(auth={"token": make_token()}),
            wait("connect"),
            call("echo", {"bytes": b"\x00\x01"}, "two"),
            connect("/other", auth={"token": make_token()}),
            wait("connect", "/other"),
            connect("/staff", auth={"token": make_token()}),
            wait("connect_error", "/staff"),
            transports=transports,
        )
        bad = await run_client(
            url, connect(auth={"token": "no.token.atall"}), wait("connect_error"), transports=transports
        )
        await until(lambda: not house.members())
    assert [line["args"] for line in of(lines, "ack")] == [[{"bytes": b"\x00\x01"}, "two"]]
    assert of(lines, "connect_error", "/staff")[0]["message"] == refusals.SCOPE["message"]
    assert of(bad, "connect_error")[0]["data"] == refusals.INVALID["data"]


async def test_the_javascript_client_is_told_that_its_token_has_expired(
    build: Callable[..., House], transports: list[str]
) -> None:
    clock = StoppedWallClock()
    house = build(make_auth(refresh_before=0, clock=clock))
    async with house.serve() as url:
        lines = await run_client(
            url,
            connect(auth={"token": make_token(exp=clock.now + 1)}, reconnection=False),
            wait("connect"),
            wait("disconnect"),
            transports=transports,
        )
        await until(lambda: not house.members())
    if transports != ["polling"]:  # Over polling alone the client hears of the end first, on iogate's own server too.
        assert events(lines, "unauthorized") == [[unauthorized(refusals.EXPIRED)]]


async def test_the_javascript_client_authenticates_in_band_and_refreshes(
    build: Callable[..., House], transports: list[str]
) -> None:
    house = build(make_auth(authenticate_within=10))
    now = int(time.time())
    async with house.serve() as url:
        lines = await run_client(
            url,
            connect(),
            wait("connect"),
            emit("authenticate", {"token": make_token(exp=now + 60, iat=now - 5)}),
            wait_event("authenticated"),
            emit("authenticate", {"token": make_token(exp=now + 600, iat=now)}),
            wait_event("authenticated"),
            call("echo", 1),
            transports=transports,
        )
    assert events(lines, "authenticated") == [[{"sub": "ann", "exp": now + 60}], [{"sub": "ann", "exp": now + 600}]]


async def test_the_python_client_is_let_in_or_told_why_not(build: Callable[..., House], transports: list[str]) -> None:
    house = build()
    async with house.serve() as url:
        async with client(url, transports) as peer:
            assert await peer.call("echo", ("one", b"two"), timeout=5) == ("one", b"two")
        assert await refusal_of(url, transports, {"token": make_token(exp=1)}) == refusals.EXPIRED
        assert await refusal_of(url, transports, None) == refusals.REQUIRED
        await until(lambda: not house.members())
