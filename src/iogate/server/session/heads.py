"""Limits of TCP connections without a request: the size of the head, the time that it may take, their number.

The protocols of `iogate run` (`transports/uvicorn_http.py`, `picows/http.py` and `uvicorn_tls.py`) report their
connections here. Other ASGI servers do not: they have their own limits, or none.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from iogate.clock import Clock
from iogate.server.session.addresses import Proxies, peer_of
from iogate.server.session.deadlines import Deadlines
from iogate.server.session.pending import PendingLimiter
from iogate.server.session.reasons import CloseReason

if TYPE_CHECKING:
    from iogate.server.session.session import Session

logger = logging.getLogger("iogate")

MAX_HEAD = 32 * 1024
"""Bytes of a request line and header fields, and of a trailer section; the default of nginx (4 * 8 KiB).

A token of `max_token_bytes` in a header, cookies, and the headers of proxies fit in it.
"""
MAX_FIELDS = 100
"""Header fields of a request; as many as Apache httpd allows."""
WITH_BODY = frozenset((b"content-length", b"transfer-encoding"))
"""Header fields that announce a body. A request for a WebSocket that has one is not understood alike everywhere."""
HEAD_TIMEOUT = 10.0
"""Seconds that a request head may take if there is no `Server` with a `connect_timeout`."""
LINGER = 2.0
"""Seconds for a client to read why its request was refused. What it sends meanwhile is discarded.

A connection that is closed with unread input is reset, and the answer is lost with it (RFC 9112, section 9.6).
"""
READ_RATE = 1024
"""Bytes per second at which a client must read an answer that is larger than what may wait for it."""
WORK_PER_TURN = 2
"""The work for clients that are not admitted yet, in one turn of the event loop.

A request that picows serves is 1. A request that uvicorn parses, or the data of a WebSocket that it parses, is 2:
each takes some tenths of a millisecond.
"""
LOG_LINES = 20
"""Log lines that clients can cause in `LOG_PERIOD` seconds; further ones are counted."""
LOG_PERIOD = 60.0


_REASONS = {
    "HTTP_REQUEST": "the client speaks plain HTTP, and this is https",
    "WRONG_VERSION_NUMBER": "what the client sent is not TLS",
    "UNEXPECTED_EOF_WHILE_READING": "the client left in the middle of it",
}
"""Explanations of some of OpenSSL's reasons."""


class BoundedLog:
    """Log lines that any client can cause: the first `LOG_LINES` of a period, then how many were left out.

    Args:
        clock: measures the period.
    """

    __slots__ = ("_clock", "_ends", "_lines")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends = 0.0
        self._lines = 0

    def info(self, message: str, *args: object) -> None:
        """Log a line, or count it."""
        now = self._clock.monotonic()
        if now >= self._ends:
            if self._lines > LOG_LINES:
                logger.info("%d more lines like the next one were left out", self._lines - LOG_LINES)
            self._ends, self._lines = now + LOG_PERIOD, 0
        self._lines += 1
        if self._lines <= LOG_LINES:
            logger.info(message, *args)


class Quota:
    """Work of which only a part is done in one turn of the event loop, so that admitted clients wait little.

    Args:
        size: the work that is done in one turn.
    """

    __slots__ = ("_left", "_loop", "_size", "_waiting")

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[tuple[Callable[[], None], int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, work: int = WORK_PER_TURN) -> bool:
        """Return True if a piece of work of this size may be done at once. Otherwise call `later`."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # The first one, or the one before has ended.
            self._loop, self._left = loop, self._size
            self._waiting.clear()
        if self._left <= 0:
            return False
        if self._left == self._size:
            loop.call_soon(self._renew)
        self._left -= work
        return True

    def later(self, piece: Callable[[], None], work: int = WORK_PER_TURN) -> None:
        """Do a piece of work of this size in one of the next turns, after those that wait already."""
        self._waiting.append((piece, work))

    def _renew(self) -> None:
        self._left = self._size
        while self._waiting and self.take(self._waiting[0][1]):
            piece, _ = self._waiting.popleft()
            try:
                piece()
            except Exception:
                logger.exception("a request could not be begun")


class Heads:
    """The TCP connections that wait for a request.

    A connection counts in `pending` from the moment it is accepted until the head of its request is complete, and
    again once that request is answered. Its deadline starts when it is accepted, and for each later request with the
    first byte that does not complete a head. No traffic extends it. While a client leaves so much unread that nothing
    more is written to it, its connection counts too, and is closed unless `READ_RATE` is kept.

    Args:
        pending: counts them.
        deadlines: has their deadlines.
        timeout: seconds that a head may take.
        proxies: the proxies, whose connections count only towards the total.
        prepare: called before a connection is counted; it makes `deadlines` use the running event loop.
    """

    __slots__ = (
        "_below",
        "_due",
        "_linger_due",
        "_log",
        "_pending",
        "_prepare",
        "_proxies",
        "_unread",
        "_unread_due",
        "quota",
        "timeout",
    )

    def __init__(
        self,
        pending: PendingLimiter,
        deadlines: Deadlines,
        timeout: float,
        proxies: Proxies,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._pending = pending
        self._proxies = proxies
        self._prepare = prepare
        self.timeout = timeout
        self.quota = Quota(WORK_PER_TURN)
        self._due = deadlines.queue(timeout, self._timed_out)
        self._linger_due = deadlines.queue(LINGER, _abort)
        self._unread_due = deadlines.queue(timeout, self._look_at_unread)
        self._unread: dict[asyncio.Transport, int] = {}  # Bytes that waited when it was looked at last.
        self._below: dict[asyncio.Transport, asyncio.Transport] = {}  # Of TLS: what is counted until the first head.
        self._log = BoundedLog(deadlines.clock)
        pending.evict = self._evicted
        pending.evict_session = self._evicted_session

    def open(self, transport: asyncio.Transport, peer: str | None, *, is_proxy: bool = False) -> None:
        """Count a connection that has just been accepted, and start its deadline.

        Args:
            transport: the connection. If it is counted already, it keeps its place and its deadline.
            peer: the address of its other end.
            is_proxy: whether that is a proxy in front that the `Server` does not know.
        """
        if not self._pending.is_silent(self._below.get(transport, transport)):
            self._prepare()
            self._count(transport, peer, is_proxy=is_proxy, accepted=True)
            self._due.start(transport)

    def secured(self, transport: asyncio.Transport, secure: asyncio.Transport) -> None:
        """Let a connection keep its place and its deadline when TLS is spoken on it: `secure` stands for it now."""
        self._below[secure] = transport

    def wait(self, transport: asyncio.Transport, peer: str | None, *, is_proxy: bool = False) -> None:
        """Count a connection whose last request has been answered. It has no deadline until something comes."""
        self._count(transport, peer, is_proxy=is_proxy)

    def _count(self, transport: asyncio.Transport, peer: str | None, *, is_proxy: bool, accepted: bool = False) -> None:
        # A proxy has the connections of many clients: until a head says whose this one is, it counts in total only.
        shared = is_proxy or peer is None or self._proxies.trusts(peer)
        self._pending.add_silent(transport, None if shared else peer, accepted=accepted)

    def begin(self, transport: asyncio.Transport) -> None:
        """Start the deadline: a part of a head has arrived, but not all of it."""
        self._due.start(transport)

    def done(self, transport: asyncio.Transport) -> None:
        """Count a connection no more: the head is complete, and what follows has limits of its own."""
        counted = self._below.pop(transport, transport)
        self._pending.discard_silent(counted)
        self._due.stop(counted)

    def unread(self, transport: asyncio.Transport, peer: str | None, *, is_proxy: bool = False) -> None:
        """Count a connection whose client leaves too much unread, until `read`, and look after it."""
        self.wait(transport, peer, is_proxy=is_proxy)
        self._unread[transport] = transport.get_write_buffer_size()
        self._unread_due.start(transport)

    def read(self, transport: asyncio.Transport) -> None:
        """Look after a connection no more: its client has read enough. It still counts until `done`."""
        if self._unread.pop(transport, None) is not None:
            self._unread_due.stop(transport)

    def close(self, transport: asyncio.Transport) -> None:
        """Forget a connection that is closed."""
        self.done(transport)
        self.read(transport)
        self._linger_due.stop(transport)

    def linger(self, transport: asyncio.Transport, peer: str | None, *, is_proxy: bool = False) -> None:
        """Close a connection in `LINGER` seconds, unless its client closes it earlier; it may be evicted meanwhile."""
        self.close(transport)
        self.wait(transport, peer, is_proxy=is_proxy)
        self._linger_due.start(transport)

    def refused(self, peer: str | None, status: int, reason: str) -> None:
        """Log that a request was refused before the application saw it."""
        self._log.info("refused a request from %s with %d: %s", peer, status, reason)

    def handshake_failed(self, peer: str | None, error: OSError) -> None:
        """Log that a TLS handshake did not succeed."""
        reason = getattr(error, "reason", None) or type(error).__name__
        self._log.info("closed a connection from %s: no TLS handshake: %s", peer, _REASONS.get(reason, reason))

    def _evicted(self, transport: asyncio.Transport) -> None:
        self._drop(transport, "its place was needed, and it was the oldest without a request (Limits)")

    def _evicted_session(self, session: Session) -> None:
        self._log.info(
            "closed a transport of %s: its place was needed, and it was the oldest without a CONNECT (Limits)",
            session.handshake.address,
        )
        session.close(CloseReason.EVICTED)

    def _timed_out(self, transport: asyncio.Transport) -> None:
        self._drop(transport, f"no complete request head within {self.timeout:g} s")

    def _look_at_unread(self, transport: asyncio.Transport) -> None:
        waiting = transport.get_write_buffer_size()
        if waiting > self._unread[transport] - READ_RATE * self.timeout:
            self._drop(transport, f"it reads less than {READ_RATE} bytes of its answer per second")
        else:
            self._unread[transport] = waiting
            self._unread_due.start(transport)

    def _drop(self, transport: asyncio.Transport, reason: str) -> None:
        self._log.info("closed a connection from %s: %s", peer_of(transport), reason)
        self.close(transport)
        transport.abort()


def _abort(transport: asyncio.Transport) -> None:
    transport.abort()
