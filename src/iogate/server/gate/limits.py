"""Limits of bad credentials per address, and of connections per subject."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from iogate.auth import Principal
from iogate.clock import Clock, chance
from iogate.errors import BAD_CREDENTIALS, TokenExpired, TooManyAttempts, TooManyConnections
from iogate.server.session.addresses import source_of
from iogate.server.session.reasons import CloseReason
from iogate.server.settings import Limits

if TYPE_CHECKING:
    from iogate.server.gate.connection import Connection

logger = logging.getLogger("iogate")

REFILL = 1.0
"""Bad credentials per second that are forgiven."""
LONGEST_BLOCK = 60.0
"""The longest time after a bad credential, in seconds, for which its address counts as over the limit."""
AT_A_TIME = 10
"""Verifications that run at the same time for an address that has shown too many bad credentials."""
WAITING = 100
"""Tokens of such an address that wait to be verified."""
MAX_ADDRESSES = 10_000
"""Addresses whose bad credentials are remembered; who has been quiet for longest is forgotten first."""


class SubjectLimiter:
    """The connections of each subject, where their number is limited.

    Args:
        limits: how many there may be.
    """

    __slots__ = ("_connections", "_ends_oldest", "_limit")

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.connections_per_subject
        self._ends_oldest = limits.when_full == "end_oldest"
        # A dict and not a set, for the order: the oldest comes first.
        self._connections: dict[tuple[str | None, str], dict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def check(self, connection: Connection, principal: Principal) -> None:
        """See whether a subject may have one more connection.

        Raises:
            TooManyConnections: it may not, and its oldest is not to be ended for the new one.
        """
        others = self._connections.get(_person(principal), {})
        if self._limit is None or self._ends_oldest or not principal.subject or connection in others:
            return
        if len(others) >= self._limit:
            raise TooManyConnections("the subject has too many: Limits(connections_per_subject=...)")

    def add(self, connection: Connection, principal: Principal) -> None:
        """Count a connection until `discard`; end the subject's oldest if there are too many now."""
        if self._limit is None or not principal.subject:  # Who has no subject is nobody else's equal.
            return
        connections = self._connections.setdefault(_person(principal), {})
        connections.setdefault(connection)
        while len(connections) > self._limit:
            oldest = next(iter(connections))
            oldest.terminate(TooManyConnections("the subject has a newer connection"), CloseReason.TOO_MANY_CONNECTIONS)
            connections.pop(oldest, None)

    def discard(self, connection: Connection, principal: Principal) -> None:
        """Count it no more."""
        connections = self._connections.get(_person(principal), {})
        connections.pop(connection, None)
        if not connections:
            self._connections.pop(_person(principal), None)


def _person(principal: Principal) -> tuple[str | None, str]:
    return principal.issuer, principal.subject


class _Record(msgspec.Struct):
    failures: float
    seen: float
    blocked_until: float = 0.0
    unlogged: int = 0
    turns: _Turns | None = None


class FailureLimiter:
    """Counts the bad credentials of each address, and knows which addresses have sent too many.

    Such an address is not locked out: other clients may share it, behind a proxy or a NAT gateway, and their good
    tokens are accepted. But only a few of its tokens are verified at a time, and each bad one is answered `too_many`.

    Args:
        limit: bad credentials that an address may send.
        clock: measures their age.
        what: their name in the log.
    """

    __slots__ = ("_clock", "_limit", "_records", "_what")

    def __init__(self, limit: int, clock: Clock, what: str = "bad credentials") -> None:
        self._limit = limit
        self._clock = clock
        self._what = what
        self._records: OrderedDict[str | None, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def exceeded(self, address: str | None) -> bool:
        """Return True if an address has recently sent too many."""
        return self._exceeded(address) is not None

    async def verified(self, address: str | None, verification: Coroutine[Any, Any, Principal]) -> Principal:
        """Return the result of a verification.

        For an address with too many bad credentials, the verification waits until fewer than `AT_A_TIME` others run. It
        runs to its end even if the client leaves, so a client that reconnects repeatedly does not cause more of them.

        Raises:
            TooManyAttempts: the credential is bad, and the address has sent too many.
            AuthError: what the verification raises, for any other address.
        """
        record = self._exceeded(address)
        if record is None:
            return await verification
        try:
            turns = _turns(record)
            await turns.acquire()
        except BaseException:
            verification.close()
            raise
        try:
            # Keep the task in no variable here: its exception refers to them, which would be a reference cycle.
            return await asyncio.shield(_begun(verification, turns))
        except TokenExpired:
            raise
        except BAD_CREDENTIALS:
            self.add(address)
            raise TooManyAttempts(
                f"a bad credential from an address with too many {self._what}: Limits(failures_per_address=...)"
            ) from None

    def add(self, address: str | None) -> None:
        """Count a bad credential."""
        now = self._clock.monotonic()
        address = source_of(address)
        record = self._records.pop(address, None) or _Record(0.0, now)
        # Time spent over the limit does not count as quiet time.
        quiet = max(0.0, now - max(record.seen, record.blocked_until))
        record.failures = max(0.0, record.failures - quiet * REFILL) + 1
        record.seen = now
        over = record.failures - self._limit
        if over > 0:
            if record.blocked_until > now:
                record.unlogged += 1
            else:
                self._log(address, record)
            record.blocked_until = now + min(2.0 ** min(over, 16.0), LONGEST_BLOCK)
        self._records[address] = record
        if len(self._records) > MAX_ADDRESSES:
            self._records.popitem(last=False)

    def _exceeded(self, address: str | None) -> _Record | None:
        record = self._records.get(source_of(address))
        return record if record is not None and record.blocked_until > self._clock.monotonic() else None

    def _log(self, address: str | None, record: _Record) -> None:
        # Log once each time the limit is passed: a flood of bad tokens must not flood the log.
        more = f"; {record.unlogged} more since the last such line" if record.unlogged else ""
        logger.warning("too many %s from %s: each further one is answered too_many%s", self._what, address, more)
        record.unlogged = 0


class _Turns:
    """Lets `AT_A_TIME` verifications run at a time; of those that wait, chance chooses the next.

    In the order of their arrival a flood would be before everybody else. At most `WAITING` wait: for one more, chance
    chooses which of them is refused.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._running = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def acquire(self) -> None:
        """Wait for a turn.

        Raises:
            TooManyAttempts: too many wait, and chance has chosen this one.
        """
        if self._running < AT_A_TIME:
            self._running += 1
            return
        turn = self.loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) > WAITING:
            refusal = TooManyAttempts("too many tokens of an address with many bad ones wait to be verified")
            self._any().set_exception(refusal)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release()  # Its turn has come, and nobody uses it.
            raise

    def release(self) -> None:
        """Give the turn to another."""
        if self._waiting:
            self._any().set_result(None)
        else:
            self._running -= 1

    def _any(self) -> asyncio.Future[None]:
        return self._waiting.pop(int(chance() * len(self._waiting)))


def _turns(record: _Record) -> _Turns:
    if record.turns is None or record.turns.loop is not asyncio.get_running_loop():
        record.turns = _Turns()  # A guard of HTTP endpoints may run on another loop.
    return record.turns


def _begun(verification: Coroutine[Any, Any, Principal], turns: _Turns) -> asyncio.Task[Principal]:
    """Return a verification's task, which gives its turn back."""

    def ended(task: asyncio.Task[Principal]) -> None:
        turns.release()
        if not task.cancelled():
            task.exception()  # Retrieve it: the client that waited may have left.

    task = asyncio.ensure_future(verification)
    task.add_done_callback(ended)
    return task
