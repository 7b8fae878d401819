"""The end of identities: expiry of tokens, the request to refresh them, removed keys, and revocation."""

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
from iogate.server.session.deadlines import Deadlines
from iogate.server.session.reasons import CloseReason

if TYPE_CHECKING:
    from iogate.server.gate.connection import Connection

logger = logging.getLogger("iogate")

FLUSH_TIMEOUT = 1.0
"""Seconds in which revoked clients can read the reason. Then their connections are aborted."""


class Expirations:
    """Ends connections when their identities end.

    When a token is accepted, its remaining lifetime is converted to a deadline on the monotonic clock. A later change
    of the wall clock does not move that deadline.

    Args:
        auth: knows when an identity ends; None on a server without identities.
        deadlines: has the deadlines.
    """

    __slots__ = ("_auth", "_clock", "_due")

    def __init__(self, auth: Auth | None, deadlines: Deadlines) -> None:
        self._auth = auth
        self._due = deadlines.appointments(self._reached)
        self._clock = deadlines.clock

    def __len__(self) -> int:
        return len(self._due)

    def start(self, connection: Connection) -> None:
        """Set the deadlines for the identity of a connection. They replace those of its previous identity."""
        if self._auth is None or connection.identity is None:
            return
        end = self._auth.end(connection.identity.principal)
        if end is None:
            self._due.stop(connection)
            return
        now = self._clock.monotonic()
        left = end - self._auth.clock.wall()
        connection.expires = now + left
        # Not before half of the remaining time is over: otherwise a client with short tokens would always refresh.
        # Random, so that clients whose tokens expire together do not refresh together.
        ahead = min(self._auth.refresh_before, left / 2)
        notice = now + left - ahead + chance() * ahead / 2
        self._due.start(connection, notice if ahead > 0 else connection.expires)

    def stop(self, connection: Connection) -> None:
        """Remove the deadline of a closed connection."""
        self._due.stop(connection)

    def _reached(self, connection: Connection) -> None:
        if self._clock.monotonic() < connection.expires:
            self._due.start(connection, connection.expires)
            self._request_refresh(connection)
        else:
            expired = TokenExpired("the token expired while the socket was connected")
            connection.terminate(expired, CloseReason.TOKEN_EXPIRED)

    def _request_refresh(self, connection: Connection) -> None:
        if self._auth is None or connection.identity is None:
            return
        principal = connection.identity.principal
        end = self._auth.end(principal)
        if end is not None:
            notice = {"expires_at": principal.claims.get("exp"), "refresh_by": math.floor(end)}
            for name in list(connection.sockets):  # Sending may close the connection of a slow consumer.
                connection.send_event(name, "token_expiring", notice)


def end_invalid(auth: Auth | None, connections: list[Connection]) -> None:
    """Close the connections whose identities are no longer valid, because keys were removed.

    Args:
        auth: checks the identities.
        connections: the connections that are open, or whose clients can still fetch packets.
    """
    for connection in connections:
        if auth is not None and connection.identity is not None:
            try:
                auth.recheck(connection.identity.principal)
            except AuthError as refusal:
                connection.terminate(refusal, CloseReason.KEY_REMOVED)


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
    """Remember a revocation, and close the connections that it matches.

    When this returns, not one more byte is sent to them, and the store has saved the revocation.

    Args:
        revocation: which tokens are revoked.
        revocations: the store.
        connections: the connections that are open, or whose clients can still fetch packets.
        now: Unix time in seconds.
        watchers: called when the revocation is in force.
    """
    # First of all: attempts that are pending now are rejected from here on.
    revocations.add(revocation, now)
    ended = []
    for connection in connections:
        if connection.identity is not None and revocation.matches(connection.identity.principal):
            ended.append(connection.transport)  # `terminate` drops the connection's reference to it.
            connection.terminate(RevokedToken(), CloseReason.TOKEN_REVOKED)
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
