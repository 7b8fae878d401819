"""The load generator against real servers: what it counts is what it was to do."""

from __future__ import annotations

import base64
import hashlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.compare.credentials import Signer
from benchmarks.compare.errors import MeasurementError
from benchmarks.compare.loads import Load
from benchmarks.compare.peers import FLOOR, IOGATE, Peer, Running, running
from benchmarks.compare.processes import choose_cores
from benchmarks.compare.programs import Programs
from benchmarks.compare.verdicts import check

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the load generator needs epoll")


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer.new("HS256")


@pytest.fixture(scope="module", params=[FLOOR, IOGATE], ids=lambda peer: peer.name)
def server(request: pytest.FixtureRequest, programs: Programs, signer: Signer) -> Iterator[Running]:
    peer: Peer = request.param
    with running(peer, choose_cores().server, programs, signer.environment()) as server:
        yield server


@pytest.fixture
def load(programs: Programs) -> Load:
    return Load(programs.load, choose_cores().load)


@pytest.fixture
def tokens(signer: Signer, tmp_path: Path) -> Path:
    return signer.write(tmp_path / "tokens", 40)


def run(load: Load, server: Running, tokens: Path, mode: str, **options: Any) -> dict[str, Any]:
    # The time is only a bound: the count ends it.
    result = load.run(mode, port=server.port, tokens=tokens, warm=0, seconds=30, **options)
    assert (result["errors"], result["first_error"]) == (0, "")
    return result


def test_five_connects(load: Load, server: Running, tokens: Path) -> None:
    assert run(load, server, tokens, "connects", connections=1, count=5)["count"] == 5


def test_connects_end_when_each_token_has_been_shown_once(load: Load, server: Running, tokens: Path) -> None:
    result = run(load, server, tokens, "connects", connections=3)
    assert 37 <= result["count"] <= 40  # The last ones may be under way when the measurement ends.


@pytest.mark.parametrize("mode", ["echo", "ack", "binary"])
def test_twenty_events(load: Load, server: Running, tokens: Path, mode: str) -> None:
    result = run(load, server, tokens, mode, connections=1, window=1, count=20, event=mode, payload=300)
    assert result["count"] == 20


def test_twenty_events_at_a_fixed_rate(load: Load, server: Running, tokens: Path) -> None:
    result = run(load, server, tokens, "paced", connections=1, window=1, count=20, event="echo", payload=300)
    assert result["count"] >= 20  # They do not wait for each other: the last answers may come together.


def test_a_broadcast_reaches_all_and_a_room_its_members(load: Load, server: Running, tokens: Path) -> None:
    assert run(load, server, tokens, "broadcast", connections=20, window=1, count=60)["count"] >= 60
    assert run(load, server, tokens, "rooms", connections=20, window=1, count=60, event="room")["count"] >= 60


def test_connections_stay_until_they_are_told_to_leave(load: Load, server: Running, tokens: Path) -> None:
    with load.hold(port=server.port, tokens=tokens, connections=20) as held:
        assert held.leave() >= 0


def test_good_tokens_are_let_in_and_no_others(load: Load, server: Running, signer: Signer, tmp_path: Path) -> None:
    check(load, server, signer, tmp_path)


def test_a_server_that_refuses_good_tokens_is_not_measured(load: Load, server: Running, tmp_path: Path) -> None:
    other = Signer.new("HS256")
    if server.peer.verifies:
        with pytest.raises(MeasurementError, match="refuses a good token"):
            check(load, server, other, tmp_path)
    else:
        check(load, server, other, tmp_path)


def test_the_upgrade_of_the_floor_is_one(programs: Programs, signer: Signer) -> None:
    key = "AQIDBAUGBwgJCgsMDQ4PEA=="
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    with (
        running(FLOOR, choose_cores().server, programs, signer.environment()) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as client,
    ):
        client.sendall(f"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        assert f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n".encode() in client.recv(4096)
