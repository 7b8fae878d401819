"""Limits of the transports without a verdict and of the TCP connections without a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from iogate.errors import TooManyConnections
from iogate.server.session.addresses import source_of
from iogate.server.session.reasons import CloseReason
from iogate.server.settings import Limits

if TYPE_CHECKING:
    from iogate.server.session.session import Session


class PendingLimiter:
    """Counts the transports without a verdict, and the TCP connections without a request, per address.

    If a limit is reached, the oldest one that has not asked for anything is closed: a connection without a request, or
    a session without a CONNECT, whichever are more. A new transport is rejected only if there is none.

    Args:
        limits: the limits.
    """

    __slots__ = (
        "_by_address",
        "_limits",
        "_quiet",
        "_quiet_by_address",
        "_sessions",
        "_silent",
        "_silent_by_address",
        "evict",
        "evict_session",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sessions: set[Session] = set()
        self._by_address: dict[str | None, int] = {}
        # Dicts because they are ordered: the oldest comes first.
        self._silent: dict[asyncio.Transport, str | None] = {}  # TCP connections without a request.
        self._silent_by_address: dict[str, dict[asyncio.Transport, None]] = {}
        self._quiet: dict[Session, None] = {}  # Sessions without a CONNECT.
        self._quiet_by_address: dict[str | None, dict[Session, None]] = {}
        self.evict: Callable[[asyncio.Transport], None] = _abort
        self.evict_session: Callable[[Session], None] = _close

    def __len__(self) -> int:
        return len(self._sessions)

    def check(self, address: str | None) -> None:
        """Make sure that an address may open one more transport. If necessary, close the oldest quiet one for it.

        Raises:
            TooManyConnections: the limit is reached by transports that have sent CONNECT.
        """
        source = source_of(address)
        self._make_room(source)
        if len(self._sessions) >= self._limits.pending:
            raise TooManyConnections("too many transports wait for a verdict: Limits(pending=...)")
        if self._by_address.get(source, 0) >= self._limits.pending_per_address:
            raise TooManyConnections("too many transports of one address wait: Limits(pending_per_address=...)")

    def add(self, session: Session) -> None:
        """Count a session until `discard`."""
        if session not in self._sessions:
            self._sessions.add(session)
            address = source_of(session.handshake.address)
            self._by_address[address] = self._by_address.get(address, 0) + 1
            self._quiet[session] = None
            self._quiet_by_address.setdefault(address, {})[session] = None

    def asked(self, session: Session) -> None:
        """Record that a client has sent CONNECT: its session is no longer closed for a new one."""
        if session in self._quiet:
            del self._quiet[session]
            address = source_of(session.handshake.address)
            others = self._quiet_by_address[address]
            del others[session]
            if not others:
                del self._quiet_by_address[address]

    def discard(self, session: Session) -> None:
        """Stop counting a session: its client is admitted, or its transport has ended."""
        if session in self._sessions:
            self.asked(session)
            self._sessions.remove(session)
            address = source_of(session.handshake.address)
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def add_silent(self, transport: asyncio.Transport, address: str | None, *, accepted: bool = False) -> None:
        """Count a TCP connection without a request until `discard_silent`. If a limit is reached, close the oldest.

        Args:
            transport: the connection. It becomes the newest one, even if it is counted already.
            address: the address of its client; None if it is not known yet: then it counts towards the total only.
            accepted: True if it is new. A connection that is kept alive does not cause a session to be closed, because
                it may belong to a session that polls.
        """
        self.discard_silent(transport)
        source = source_of(address)
        self._make_room(source, sessions=accepted)
        if source is not None:
            self._silent_by_address.setdefault(source, {})[transport] = None
        self._silent[transport] = source

    def discard_silent(self, transport: asyncio.Transport) -> None:
        """Stop counting a TCP connection: its request has arrived, or it is closed."""
        source = self._silent.pop(transport, None)
        if source is not None:
            others = self._silent_by_address[source]
            del others[transport]
            if not others:
                del self._silent_by_address[source]

    def is_silent(self, transport: asyncio.Transport) -> bool:
        """Return True if a connection is counted as one without a request."""
        return transport in self._silent

    def _make_room(self, source: str | None, *, sessions: bool = True) -> None:
        """If a limit is reached, close the oldest that has not asked for anything, in total or of this address."""
        if len(self._sessions) + len(self._silent) >= self._limits.pending:
            self._evict_oldest(self._silent, self._quiet if sessions else {})
        silent = self._silent_by_address.get(source, {}) if source is not None else {}
        if self._by_address.get(source, 0) + len(silent) >= self._limits.pending_per_address:
            self._evict_oldest(silent, self._quiet_by_address.get(source, {}) if sessions else {})

    def _evict_oldest(self, silent: Mapping[asyncio.Transport, object], quiet: Mapping[Session, object]) -> None:
        if len(silent) >= len(quiet):
            for oldest in silent:
                self.discard_silent(oldest)
                self.evict(oldest)
                return
        for session in quiet:
            self.discard(session)
            self.evict_session(session)
            return


def _close(session: Session) -> None:
    session.close(CloseReason.EVICTED)


def _abort(transport: asyncio.Transport) -> None:
    transport.abort()
