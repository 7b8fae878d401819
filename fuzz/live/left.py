"""What must be so when the strangers have gone: nothing is left of them, and nothing unforeseen has happened."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import traceback
from collections import Counter
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fuzz.live.house import MAX_LIFETIME, House, Planned
from fuzz.live.words import ADDRESSES
from iogate.revocation.memory import FORGOTTEN_AT_ONCE
from iogate.server.gate.attempts import Attempt
from iogate.server.gate.connection import Connection
from iogate.server.identity import Identity
from iogate.server.namespaces.socket import Socket
from iogate.server.session.addresses import source_of
from iogate.server.session.handshake import Handshake
from iogate.transports.picows.http import PicowsHTTP
from iogate.transports.picows.transport import PicowsTransport
from iogate.transports.picows.upgrade import PicowsProtocol
from iogate.transports.polling import PollingTransport
from iogate.transports.websocket import WebSocketTransport
from tests.server.left import leftovers

THINGS = (
    *(Attempt, Connection, Handshake, Identity, Socket),
    *(PicowsHTTP, PicowsProtocol, PicowsTransport, PollingTransport, WebSocketTransport),
)
"""What there is of a client: when it has gone, none of these."""
MARGIN = 3000
"""Blocks of memory that there may be more of, from one rest to another, for what Python and libraries keep; a
connection takes more than twenty, and there are hundreds in a round."""
_CACHES: tuple[Any, ...] = (urlsplit, source_of)
"""What remembers addresses and URLs, so many of them and no more."""
MOST_ADDRESSES = 100
"""Addresses that bad credentials may have come from: strangers also say that they are somewhere else."""
_BEGINNING = "eyJhbGci"
"""How a token begins."""
_TOLD_BY_UVICORN = (
    "Invalid HTTP request received.",
    "Unsupported upgrade request.",
    "Invalid UTF-8 sequence received from client.",
    "ASGI callable returned without completing handshake.",  # It says so of every WebSocket that is answered 4xx.
)
"""What uvicorn says of what strangers do, and not of the server."""
SETTLED_WITHIN = 30.0
"""Seconds in which what happens at once must have happened. A bound, and nothing that is measured."""


class Log(logging.Handler):
    """Keeps what was logged that should not have been: errors but for the planned ones, and tokens."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a record. Only its text is kept: the traceback would keep alive what is to be gone."""
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage()
        if record.name == "iogate" and _BEGINNING in text:
            self.found.append(f"a token is in the log: {text}")
        elif record.levelno >= logging.WARNING and not isinstance(error, Planned) and not _is_expected(text):
            trace = traceback.format_exception(error) if error is not None else traceback.format_stack(limit=12)[:-4]
            told = f"{record.name} {record.levelname}: {text}\n{''.join(trace)}"
            if told not in self.found:
                self.found.append(told)

    def unraisable(self, unraisable: Any) -> None:
        """Take note of what could not be raised, such as a coroutine that nobody awaited (`sys.unraisablehook`)."""
        self.found.append(f"{unraisable.err_msg or 'unraisable'}: {unraisable.exc_value!r} in {unraisable.object!r}")

    def unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take note of an exception that nobody has caught (`loop.set_exception_handler`)."""
        error = context.get("exception")
        trace = "".join(traceback.format_exception(error)) if error is not None else ""
        self.found.append(f"asyncio: {context['message']}\n{trace}")

    def __enter__(self) -> Log:
        self._hook = sys.unraisablehook
        sys.unraisablehook = self.unraisable
        asyncio.get_running_loop().set_exception_handler(self.unhandled)
        # Alone: others, such as pytest's, keep the records.
        root = logging.getLogger()
        self._before = root.handlers, root.level
        root.handlers = [self]
        root.setLevel(logging.INFO)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        sys.unraisablehook = self._hook
        asyncio.get_running_loop().set_exception_handler(None)
        root = logging.getLogger()
        root.handlers, level = self._before
        root.setLevel(level)


def _is_expected(text: str) -> bool:
    if text.startswith("too many "):  # Of an address that attacks: an operator is to see that once.
        return True
    # That it writes to a connection that broke a moment ago it does not notice, and asyncio says so.
    writing = text.startswith("socket.send() raised")
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_stack(None)] if writing else []
    return text in _TOLD_BY_UVICORN or any(file.endswith("websockets_sansio_impl.py") for file in files)


class Rest:
    """A server at rest: made before the first stranger comes, it says afterwards what is left of them."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._tasks = asyncio.all_tasks()
        self._files = _files()
        self._alive = _alive()
        self.blocks: list[int] = []
        """How many blocks of memory there were, after each round. Libraries fill their caches in the first."""

    async def left(self) -> list[str]:
        """Wait until everything has come to rest, and return what is left all the same."""
        try:
            async with asyncio.timeout(SETTLED_WITHIN):
                await self._house.rest()
                while self._unsettled():  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        except TimeoutError:
            return [f"left: {name}: {what!r:.1000}" for name, what in self._unsettled().items()] or ["it never rests"]
        return [*await self._forgotten(), *self._collected()]

    def _unsettled(self) -> dict[str, object]:
        io = self._house.io
        spare = io._core.sessions.eager._spare.task if io._core.sessions.eager._spare is not None else None
        tasks = asyncio.all_tasks() - self._tasks - {spare, asyncio.current_task()}
        files = _files() - self._files
        return {
            **leftovers(io),
            **({"tasks of the event loop": tasks} if tasks else {}),
            **({"open files": files} if files > 0 else {}),
        }

    async def _forgotten(self) -> list[str]:
        """Look at the tables that remember those who have gone, on purpose and for a time."""
        io = self._house.io
        found = []
        if len(io._core.gate.failures) > MOST_ADDRESSES:
            found.append(f"bad credentials of {len(io._core.gate.failures)} addresses are remembered")
        found += [
            f"{address} still counts as one with bad tokens"
            for address in ADDRESSES
            if io._core.gate.failures.exceeded(address)
        ]
        for _ in range(1 + len(io._core.revocations) // FORGOTTEN_AT_ONCE):  # type: ignore[arg-type]
            await io.revoke(session_id="nobody's", until=self._house.clock.wall() + MAX_LIFETIME)
        if len(io._core.revocations) != 1:  # type: ignore[arg-type]
            found.append(f"{len(io._core.revocations)} revocations are remembered")  # type: ignore[arg-type]
        return found

    def _collected(self) -> list[str]:
        """Look at the memory."""
        _forget_timers()
        for cache in _CACHES:
            cache.cache_clear()
        alive = _alive() - self._alive
        self.blocks.append(sys.getallocatedblocks())
        grown = self.blocks[-1] - self.blocks[0]
        return [
            *(f"not freed: {number} {name}" for name, number in alive.items()),
            *([f"{grown} more blocks of memory than after the first round"] if grown > MARGIN else []),
        ]


def _files() -> int:
    return len(os.listdir("/dev/fd"))


def _alive() -> Counter[str]:
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects() if issubclass(type(thing), THINGS))


def _forget_timers() -> None:
    """Stop the timers by which uvicorn ends idle connections, where the connection has gone: it does not itself."""
    for thing in gc.get_objects():
        if type(thing) is HttpToolsProtocol and thing.transport.is_closing():
            thing._unset_keepalive_if_required()
