"""When identities end: the expiry of tokens, the call to refresh them, and revocation."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Collection
from typing import TYPE_CHECKING

from iogate.auth import Auth
from iogate.auth.interface import Changed
from iogate.clock import chance
from iogate.errors import AuthError, RevokedToken, TokenExpired
from iogate.revocation import Revocation, Revocations
from iogate.server.deadlines import Deadlines
from iogate.server.reasons import CloseReason

if TYPE_CHECKING:
    from iogate.server.connection import Connection

logger = logging.getLogger("iogate")

FLUSH_TIMEOUT = 1.0
"""Seconds that `revoke` waits for revoked clients to take the refusal before they are cut off without it."""


class Lifetimes:
    """Ends connections when their identities end.

    A token's life is turned into a deadline on the monotonic clock once, when the token is taken: a step of the wall
    clock afterwards gives nobody a longer life, and takes nothing from anybody.

    Args:
        auth: what knows when an identity ends; None where there are none.
        deadlines: where the ends go.
    """

    __slots__ = ("_auth", "_deadlines", "_ends")

    def __init__(self, auth: Auth | None, deadlines: Deadlines) -> None:
        self._auth = auth
        self._ends = deadlines.appointments(self._due)
        self._deadlines = deadlines

    def __len__(self) -> int:
        return len(self._ends)

    def begin(self, connection: Connection) -> None:
        """Set the deadlines of the identity that a connection has now, in the place of those it had."""
        if self._auth is None or connection.identity is None:
            return
        end = self._auth.end(connection.identity.principal)
        if end is None:
            self._ends.stop(connection)
            return
        left = end - self._auth.clock.wall()
        now = self._deadlines.clock.monotonic()
        connection.end_due = now + left
        # Half of what is left at the earliest, or a client with short tokens would do nothing but refresh; spread by
        # chance, or all whose tokens end together would come for new ones together.
        ahead = min(self._auth.refresh_before, left / 2)
        notice = now + left - ahead + chance() * ahead / 2
        self._ends.start(connection, notice if ahead > 0 else connection.end_due)

    def stop(self, connection: Connection) -> None:
        """Forget a connection that has gone."""
        self._ends.stop(connection)

    def _due(self, connection: Connection) -> None:
        if self._deadlines.clock.monotonic() < connection.end_due:
            self._ends.start(connection, connection.end_due)
            self._call_to_refresh(connection)
        else:
            expired = TokenExpired("the token expired while the socket was connected")
            connection.expel(expired, CloseReason.TOKEN_EXPIRED)

    def _call_to_refresh(self, connection: Connection) -> None:
        if self._auth is None or connection.identity is None:
            return
        principal = connection.identity.principal
        end = self._auth.end(principal)
        if end is not None:
            notice = {"expires_at": principal.claims.get("exp"), "refresh_by": math.floor(end)}
            for name in list(connection.sockets):  # A slow consumer is closed by what it is told.
                connection.tell(name, "token_expiring", notice)


def expel_unproven(auth: Auth | None, connections: list[Connection]) -> None:
    """End the connections whose identity does not hold any more, as the keys have changed.

    Args:
        auth: what knows.
        connections: all that are open, and those that have something left to fetch.
    """
    for connection in connections:
        if auth is not None and connection.identity is not None:
            try:
                auth.recheck(connection.identity.principal)
            except AuthError as refusal:
                connection.expel(refusal, CloseReason.KEY_REMOVED)


def call_watchers(watchers: Collection[Changed]) -> None:
    """Make the HTTP guards with the same `auth` check their open streams."""
    for watcher in list(watchers):
        try:
            watcher()
        except Exception:
            logger.exception("an HTTP guard could not check a stream")


async def revoke(
    revocation: Revocation,
    revocations: Revocations,
    connections: list[Connection],
    now: float,
    watchers: Collection[Changed] = (),
) -> None:
    """Remember a revocation, and end the connections that it means.

    When it returns, not one more byte is sent to them, and the store has kept the revocation.

    Args:
        revocation: what is revoked.
        revocations: where it is remembered.
        connections: all that are open, and those that have something left to fetch.
        now: Unix time in seconds.
        watchers: called when the revocation is in force.
    """
    # First of all: whoever is at the gate right now is refused from here on.
    revocations.add(revocation, now)
    ended = []
    for connection in connections:
        if connection.identity is not None and revocation.matches(connection.identity.principal):
            ended.append(connection.transport)  # The connection lets it go.
            connection.expel(RevokedToken(), CloseReason.TOKEN_REVOKED)
    call_watchers(watchers)
    saving = asyncio.ensure_future(revocations.save(revocation))
    try:
        async with asyncio.timeout(FLUSH_TIMEOUT):
            for transport in ended:
                await transport.closed()
    except TimeoutError:
        for transport in ended:
            transport.abort()
    finally:
        await saving
