"""What all tests share."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Iterator

import pytest
import uvloop

from tests import servers

TRANSPORTS = (["polling"], ["websocket"], ["polling", "websocket"])
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller choose the event loop. uvloop is what `iogate run` and uvicorn take where it is installed."""
    parser.addoption("--loop", choices=list(LOOPS), default="uvloop", help="the event loop of the tests")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the event loop in which a test runs."""
    name = config.getoption("--loop")
    return {name: LOOPS[name]}


@pytest.fixture(params=TRANSPORTS, ids="+".join)
def transports(request: pytest.FixtureRequest) -> list[str]:
    """Each way in which a client can reach the server: polling, WebSocket, and the upgrade from one to the other."""
    chosen: list[str] = request.param
    return chosen


@pytest.fixture(params=["polling", "websocket", "picows"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each transport by itself: `polling`, or `websocket` with either implementation."""
    if request.param != "picows":
        return str(request.param)
    monkeypatch.setattr(servers, "WS", "uvicorn-picows")
    return "websocket"


@pytest.fixture(params=["uvicorn", "uvicorn-picows"], ids=["websockets", "picows"])
def ws(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each WebSocket implementation, for tests that are about WebSockets and polling at once."""
    monkeypatch.setattr(servers, "WS", request.param)
    return str(request.param)


@pytest.fixture(autouse=True)
def no_error_of_the_event_loop(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if the event loop logged an error: an exception in a callback, or in a task that nobody awaited."""
    yield
    if request.node.get_closest_marker("loop_errors"):
        return
    records = [record for when in ("setup", "call") for record in caplog.get_records(when)]
    errors = [record for record in records if record.name == "asyncio" and record.levelno >= logging.ERROR]
    # hypercorn cancels the tasks of its connections when it ends, which asyncio's streams log.
    assert not [record.getMessage() for record in errors if "hypercorn" not in _files(record)]


def _files(record: logging.LogRecord) -> str:
    """Return the names of the files that the exception of a log record has passed."""
    trace = record.exc_info[2] if record.exc_info else None
    return " ".join(frame.filename for frame in traceback.extract_tb(trace))
