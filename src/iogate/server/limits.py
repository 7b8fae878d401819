"""What somebody without an identity may cost: connections that wait for a verdict, and bad credentials."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from iogate.auth import Principal
from iogate.clock import Clock, chance
from iogate.errors import BAD_CREDENTIALS, ConfigurationError, TokenExpired, TooManyAttempts, TooManyConnections
from iogate.server.reasons import CloseReason

if TYPE_CHECKING:
    from iogate.server.connection import Connection

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


SUBJECT = "connections_per_subject"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a server bears of those whom it does not know, and of one whom it does.

    Args:
        pending: transports without a verdict and connections without a request, in all. With that many the oldest
            that has said nothing is closed for a new one; if there is none, a new transport is answered 429.
        pending_per_address: the same for one address.
        failures_per_address: bad credentials that an address may send. For a time after that, which doubles with each
            further one up to a minute, its bad credentials are answered `too_many`, and at most 10 of its tokens are
            verified at a time; good ones are accepted. An attempt that the client abandons during verification counts.
            A token that has only expired does not. One is forgiven per quiet second. In IPv6 a network of 64 bits
            counts as one address.
        missing_per_address: the same for CONNECTs without a token where one is required.
        connections_per_subject: connections that one subject may have; None: any number.
        when_full: whether one more connection of a subject is refused (`"reject"`) or ends its oldest
            (`"end_oldest"`).

    Raises:
        ConfigurationError: a number is none, or less than one, or `when_full` is something else.
    """

    pending: int = 10_000
    pending_per_address: int = 1000
    failures_per_address: int = 100
    missing_per_address: int = 1000
    connections_per_subject: int | None = None
    when_full: Literal["reject", "end_oldest"] = "reject"

    def __post_init__(self) -> None:
        for name in ("pending", "pending_per_address", "failures_per_address", "missing_per_address", SUBJECT):
            value = getattr(self, name)
            if value is None and name == SUBJECT:
                continue
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"Limits({name}=...) is a whole number, at least 1")
        if self.when_full not in ("reject", "end_oldest"):
            raise ConfigurationError('Limits(when_full=...) is "reject" or "end_oldest"')


class Pending:
    """Counts the transports without a verdict, and the TCP connections without a request, by address.

    If there are too many, the oldest that has said nothing makes room: a connection without a request, or a transport
    without a CONNECT, whichever are more. Only if there is none is a new transport refused.

    Args:
        limits: how many there may be.
    """

    __slots__ = (
        "_by_address",
        "_connections",
        "_limits",
        "_quiet",
        "_quiet_by_address",
        "_silent",
        "_silent_by_address",
        "evict",
        "evict_transport",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connections: set[Connection] = set()
        self._by_address: dict[str | None, int] = {}
        # Dicts for the order: the oldest comes first.
        self._silent: dict[asyncio.Transport, str | None] = {}
        self._silent_by_address: dict[str, dict[asyncio.Transport, None]] = {}
        self._quiet: dict[Connection, None] = {}
        self._quiet_by_address: dict[str | None, dict[Connection, None]] = {}
        self.evict: Callable[[asyncio.Transport], None] = _abort
        self.evict_transport: Callable[[Connection], None] = _close

    def __len__(self) -> int:
        return len(self._connections)

    def check(self, address: str | None) -> None:
        """Return if there is room for one more transport; the oldest that has said nothing is closed for it.

        Raises:
            TooManyConnections: transports that have asked for something take all the room.
        """
        source = source_of(address)
        self._make_room(source)
        if len(self._connections) >= self._limits.pending:
            raise TooManyConnections("too many transports wait for a verdict: Limits(pending=...)")
        if self._by_address.get(source, 0) >= self._limits.pending_per_address:
            raise TooManyConnections("too many transports of one address wait: Limits(pending_per_address=...)")

    def add(self, connection: Connection) -> None:
        """Count a transport until `discard`."""
        if connection not in self._connections:
            self._connections.add(connection)
            address = source_of(connection.handshake.address)
            self._by_address[address] = self._by_address.get(address, 0) + 1
            self._quiet[connection] = None
            self._quiet_by_address.setdefault(address, {})[connection] = None

    def asked(self, connection: Connection) -> None:
        """Take note that a transport has sent CONNECT: it does not make room for others any more."""
        if connection in self._quiet:
            del self._quiet[connection]
            address = source_of(connection.handshake.address)
            others = self._quiet_by_address[address]
            del others[connection]
            if not others:
                del self._quiet_by_address[address]

    def discard(self, connection: Connection) -> None:
        """Count it no more: it has its verdict, or has gone."""
        if connection in self._connections:
            self.asked(connection)
            self._connections.remove(connection)
            address = source_of(connection.handshake.address)
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def add_silent(self, transport: asyncio.Transport, address: str | None, *, accepted: bool = False) -> None:
        """Count a connection without a request until `discard_silent`; if there are too many, the oldest is closed.

        Args:
            transport: the connection. It becomes the newest, also if it is counted already.
            address: its client's; None if that is not known yet, and it counts towards the total only.
            accepted: whether it is new. One that is kept alive may belong to a transport that polls, and ends none.
        """
        self.discard_silent(transport)
        source = source_of(address)
        self._make_room(source, transports=accepted)
        if source is not None:
            self._silent_by_address.setdefault(source, {})[transport] = None
        self._silent[transport] = source

    def discard_silent(self, transport: asyncio.Transport) -> None:
        """Stop counting a connection: its request has arrived, or it is closed."""
        source = self._silent.pop(transport, None)
        if source is not None:
            others = self._silent_by_address[source]
            del others[transport]
            if not others:
                del self._silent_by_address[source]

    def is_silent(self, transport: asyncio.Transport) -> bool:
        """Return True if a connection is counted as one without a request."""
        return transport in self._silent

    def _make_room(self, source: str | None, *, transports: bool = True) -> None:
        """Close the oldest that has said nothing, of the server or of an address, if there is no room."""
        if len(self._connections) + len(self._silent) >= self._limits.pending:
            self._evict_oldest(self._silent, self._quiet if transports else {})
        silent = self._silent_by_address.get(source, {}) if source is not None else {}
        if self._by_address.get(source, 0) + len(silent) >= self._limits.pending_per_address:
            self._evict_oldest(silent, self._quiet_by_address.get(source, {}) if transports else {})

    def _evict_oldest(self, silent: Mapping[asyncio.Transport, object], quiet: Mapping[Connection, object]) -> None:
        if len(silent) >= len(quiet):
            for oldest in silent:
                self.discard_silent(oldest)
                self.evict(oldest)
                return
        for connection in quiet:
            self.discard(connection)
            self.evict_transport(connection)
            return


def _close(connection: Connection) -> None:
    connection.close(CloseReason.EVICTED)


def _abort(transport: asyncio.Transport) -> None:
    transport.abort()


class Subjects:
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
            oldest.expel(TooManyConnections("the subject has a newer connection"), CloseReason.TOO_MANY_CONNECTIONS)
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


class Failures:
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


class Proxies:
    """The proxies in front whose word about the address of a client is believed.

    Args:
        trusted: their addresses or networks, such as `["10.0.0.0/8"]`.

    Raises:
        ConfigurationError: one is neither.
    """

    __slots__ = ("networks",)

    def __init__(self, trusted: Collection[str]) -> None:
        try:
            self.networks = [ipaddress.ip_network(network) for network in trusted]
        except ValueError as error:
            raise ConfigurationError(f'trusted_proxies is a list of networks, like ["10.0.0.0/8"]: {error}') from None

    def client(self, peer: str | None, headers: Mapping[str, str]) -> str | None:
        """Return the address of the client behind trusted proxies, or that of the peer.

        `X-Forwarded-For` is read from its end: what stands before the first address that is no trusted proxy's may
        have been made up by the client.
        """
        if not self.networks:
            return peer
        address = peer
        hops = headers.get("x-forwarded-for", "").split(",")
        while self.trusts(address) and hops:
            hop = hops.pop().strip()
            if not _is_address(hop):
                break
            address = hop
        return address

    def trusts(self, address: str | None) -> bool:
        """Return True if this is the address of a trusted proxy."""
        if not self.networks:
            return False
        if address is None or not _is_address(address):
            return False
        ip = _unmapped(ipaddress.ip_address(address))
        return any(ip in network for network in self.networks)


@lru_cache(maxsize=MAX_ADDRESSES)
def source_of(address: str | None) -> str | None:
    """Return what counts as one address: of IPv6 the first 64 bits, the rest is for the client to choose."""
    if address is None or not _is_address(address):
        return address
    ip = _unmapped(ipaddress.ip_address(address))
    return str(ip if ip.version == 4 else ipaddress.ip_network((int(ip) >> 64 << 64, 64)))


def _unmapped(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 socket gives as `::ffff:192.0.2.1` (RFC 4291, section 2.5.5.2)."""
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
