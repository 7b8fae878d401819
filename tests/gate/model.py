"""What a server with a gate does, said once more: from the wire contract and the invariants, not from the code.

A `World` is told what happens, in the order in which it happens, and knows at any time who is in which namespace and
room, with which token, what each client has been sent, and what the handlers of the application have been called for.
It has no event loop: a hook of the application that takes its time is an attempt that stands at a `stage`, until
somebody says that the hook has returned. Time is a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

ROOT, STAFF = "/", "/staff"
NEEDS = {ROOT: frozenset[str](), STAFF: frozenset({"staff"})}
ROOM_NEEDS = {"mods": frozenset({"moderate"}), "door": frozenset({"moderate"})}
"""The middleware of the application puts whoever may be there into `door`, an event into `mods`."""

GOODBYE = 1.0
ATTEMPTS = 3

REQUIRED = ("credentials_required", "No authorization token was found")
INVALID = ("invalid_token", "invalid token")
EXPIRED = ("invalid_token", "jwt expired")
REVOKED = ("revoked_token", "The token has been revoked")
SCOPE = ("insufficient_scope", "Insufficient scope")
TIMEOUT = ("timeout", "Authentication timed out")
SLOW = ("unavailable", "Authentication is unavailable")
"""A deadline passes while the server is at work, and not because the client has said nothing."""
FULL = ("too_many", "Too many connections")
TRIED = ("too_many", "Too many attempts")
CLOSED_TODAY = ("closed", "closed today")
"""What the middleware of the application refuses with."""

BAD_CREDENTIALS = (INVALID, EXPIRED, REVOKED)
"""What is held against a transport: not what the server or the application has to answer for."""

Kind = Literal["connect", "in band", "refresh"]


@dataclass(frozen=True)
class Token:
    """A token, as far as the gate cares."""

    jti: str
    sub: str
    sid: str
    iat: float
    exp: float
    scopes: frozenset[str]
    forged: bool = False

    def older_than(self, other: Token) -> bool:
        """Say whether the other one is at least as new."""
        return self.iat <= other.iat


@dataclass
class Attempt:
    """Somebody at the gate."""

    number: int
    client: Client
    namespace: str
    kind: Kind
    token: Token | None
    ack: int | None
    due: float
    holds: frozenset[str]
    stage: str = ""
    known: Token | None = None  # The identity of the connection when it was asked who this is.
    identity: Token | None = None
    door: bool = False
    queued: bool = False  # Another token of the same client is being verified, and has the turn.
    turn: bool = False


@dataclass
class Said:
    """A packet to a client, and for which rooms it was meant."""

    packet: tuple[Any, ...]
    rooms: frozenset[str] | None = None


@dataclass
class Client:
    """One transport."""

    number: int
    polls: bool
    opened: float
    identity_due: float | None
    identity: Token | None = None
    candidate: Token | None = None  # Verified, and not adopted yet.
    end: float | None = None
    sockets: dict[str, set[str]] = field(default_factory=dict)  # The rooms, by namespace.
    attempts: dict[str, Attempt] = field(default_factory=dict)
    waiting: dict[str, None] = field(default_factory=dict)
    rejected: dict[str, float] = field(default_factory=dict)
    refusals: int = 0
    abandoned: int = 0
    late: bool = False
    closed: bool = False
    stalled: bool = False
    gone: bool = False  # Nothing more will be sent: the transport has ended.
    outbox: list[Said] = field(default_factory=list)
    received: list[tuple[Any, ...]] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def verifies(self) -> bool:
        """Whether a token of it is being verified, or waits to be."""
        return any((attempt.turn and attempt.stage == "user") or attempt.queued for attempt in self.attempts.values())

    @property
    def nobody(self) -> bool:
        """Whether it is in nowhere, asks for nothing, and is being told nothing."""
        return not (self.sockets or self.attempts or self.waiting or self.rejected)

    def speaks(self, namespace: str) -> bool:
        """Say whether its client may send events in a namespace, by the grammar of Socket.IO."""
        attempt = self.attempts.get(namespace)
        return (
            namespace in self.sockets
            or namespace in self.waiting
            or namespace in self.rejected
            or (attempt is not None and attempt.kind == "in band")
        )


@dataclass(frozen=True)
class Rules:
    """How the server is set up."""

    guests: bool = False
    authenticate_within: float | None = None
    connect_timeout: float = 10.0
    per_subject: int | None = None
    ends_oldest: bool = False


@dataclass(frozen=True)
class Revoked:
    """What is revoked: all that is said holds together."""

    jti: str | None = None
    sub: str | None = None
    sid: str | None = None
    before: float | None = None

    def means(self, token: Token) -> bool:
        return (
            self.jti in {None, token.jti}
            and self.sub in {None, token.sub}
            and self.sid in {None, token.sid}
            and (self.before is None or token.iat <= self.before)
        )


class World:
    """The server and all of its clients.

    Args:
        rules: how the server is set up.
        now: seconds, of the monotonic clock.
        wall: Unix time at that moment.
    """

    def __init__(self, rules: Rules, now: float, wall: float) -> None:
        self.rules = rules
        self.now = now
        self._wall_ahead = wall - now
        self.clients: list[Client] = []
        self.revoked: list[Revoked] = []
        self._by_subject: dict[str, list[Client]] = {}
        self._attempts = 0

    @property
    def wall(self) -> float:
        return self.now + self._wall_ahead

    @property
    def held(self) -> list[Attempt]:
        """The attempts that stand at a hook of the application."""
        return [attempt for client in self.clients for attempt in client.attempts.values()]

    # What clients do.

    def open(self, polls: bool) -> Client:
        client = Client(len(self.clients), polls, self.now, self.now + self._interval)
        self.clients.append(client)
        return client

    def connect(self, client: Client, namespace: str, token: Token | None, holds: frozenset[str]) -> Attempt | None:
        if namespace in client.sockets:
            self._leave(client, namespace, "client namespace disconnect")
        self._withdraw(client, namespace)
        if client.late or (client.abandoned >= ATTEMPTS and not client.sockets):
            self._close(client, "forced close")
        if client.closed:
            return None
        attempt = self._try(client, namespace, "connect", token, None, holds)
        self._verify_next(client)
        return attempt

    def authenticate(
        self, client: Client, namespace: str, token: Token | None, ack: int | None, holds: frozenset[str]
    ) -> Attempt | None:
        if namespace in client.attempts:
            return None
        if namespace in client.sockets:
            return self._try(client, namespace, "refresh", token, ack, holds)
        if namespace in client.waiting:
            del client.waiting[namespace]
            return self._try(client, namespace, "in band", token, ack, holds)
        return None

    def leave(self, client: Client, namespace: str) -> None:
        if namespace in client.sockets:
            self._leave(client, namespace, "client namespace disconnect")
        else:
            self._withdraw(client, namespace)
            self._verify_next(client)

    def goodbye(self, client: Client, namespace: str) -> None:
        """The client has read why it is turned away."""
        if client.rejected.pop(namespace, None) is not None:
            self._say(client, ("disconnect", namespace))
            self._close_if_nobody(client)

    def hang_up(self, client: Client) -> None:
        self._close(client, "transport close", abort=True)

    def stall(self, client: Client) -> None:
        client.stalled = True

    def unstall(self, client: Client) -> None:
        client.stalled = False
        self._flush(client)

    def enter_room(self, client: Client, room: str, ack: int) -> None:
        """The client sends an event whose handler joins a room."""
        if ROOM_NEEDS[room] <= _scopes(client.identity):
            client.sockets[ROOT].add(room)
            self._say(client, ("ack", ROOT, ack, "ok"))
        else:
            self._say(client, ("ack", ROOT, ack, SCOPE[0]))

    def speak(self, client: Client, ack: int) -> None:
        """The client sends an event that needs the scope `speak`."""
        if "speak" in _scopes(client.identity):
            client.calls.append(("speak",))
            self._say(client, ("ack", ROOT, ack, "ok"))
        else:
            self._say(client, ("event", ROOT, "forbidden", SCOPE[0]))
            self._say(client, ("ack", ROOT, ack, SCOPE[0]))

    # What the application does.

    def kick(self, client: Client, namespace: str, close: bool) -> None:
        if namespace not in client.sockets:
            return
        for gone in list(client.sockets) if close else [namespace]:
            self._say(client, ("disconnect", gone))
            self._leave(client, gone, "server namespace disconnect")
        if close:
            self._close(client, "server namespace disconnect")

    def emit(self, namespace: str, room: str | None, number: int) -> None:
        for client in self.clients:
            rooms = client.sockets.get(namespace)
            if rooms is not None and (room is None or room in rooms):
                meant = None if room is None else frozenset({room})
                self._say(client, ("event", namespace, "news", number), meant)

    def revoke(self, revoked: Revoked) -> None:
        self.revoked.append(revoked)
        for client in self.clients:
            if client.identity is not None and not client.closed and revoked.means(client.identity):
                self._expel(client, REVOKED, "token revoked")

    def release(self, attempt: Attempt, *, well: bool) -> None:
        """The hook that an attempt stands at returns: well, or not."""
        stage, attempt.stage = attempt.stage, ""
        if stage == "user":
            if not well:
                self._refuse(attempt, INVALID)
            else:
                attempt.identity = attempt.client.candidate = attempt.token
                self._loaded(attempt)
            self._verify_next(attempt.client)
        elif not well:
            self._refuse(attempt, CLOSED_TODAY)
        else:
            self._conclude(attempt)

    # Time.

    def next(self) -> float | None:
        """Return when something happens by itself."""
        return min((due for due, _ in self._dues()), default=None)

    def run(self, now: float) -> None:
        """Let happen what is due."""
        self.now = now
        while True:
            due = min(self._dues(), key=lambda entry: entry[0], default=None)
            if due is None or due[0] > now:
                return
            self._keep(due[1])

    def _dues(self) -> Iterator[tuple[float, tuple[str, Client, str]]]:
        for client in self.clients:
            if client.closed:
                continue
            if client.identity_due is not None:
                yield client.identity_due, ("identity", client, "")
            if client.end is not None:
                yield client.end, ("end", client, "")
            for attempt in client.attempts.values():
                yield attempt.due, ("verdict", client, attempt.namespace)
            for namespace, due in client.rejected.items():
                yield due, ("goodbye", client, namespace)

    def _keep(self, what: tuple[str, Client, str]) -> None:
        kind, client, namespace = what
        if kind == "end":
            self._expel(client, EXPIRED, "token expired")
        elif kind == "verdict":
            self._refuse(client.attempts[namespace], SLOW)
            self._verify_next(client)
        elif kind == "goodbye":
            self.goodbye(client, namespace)
        else:
            client.identity_due = None
            if not client.sockets:
                client.late = True
                for attempt in list(client.attempts.values()):
                    if client.attempts.get(attempt.namespace) is attempt:
                        self._refuse(attempt, SLOW)
            for waiting in list(client.waiting):
                self._turn_away(client, waiting, TIMEOUT)
            self._close_if_nobody(client)

    # The gate.

    @property
    def _interval(self) -> float:
        return self.rules.authenticate_within or self.rules.connect_timeout

    def _try(
        self, client: Client, namespace: str, kind: Kind, token: Token | None, ack: int | None, holds: frozenset[str]
    ) -> Attempt:
        self._attempts += 1
        due = self.now + self.rules.connect_timeout
        attempt = Attempt(self._attempts, client, namespace, kind, token, ack, due, holds)
        client.attempts[namespace] = attempt
        self._identify(attempt)
        return attempt

    def _identify(self, attempt: Attempt) -> None:
        client, token = attempt.client, attempt.token
        attempt.known = attempt.identity = known = client.identity
        if attempt.kind == "connect" and client.abandoned >= ATTEMPTS:
            self._refuse(attempt, TRIED)
        elif token is None:
            if attempt.kind != "connect":
                self._refuse(attempt, REQUIRED)
            elif known is not None or self.rules.guests:
                self._loaded(attempt)
            elif self.rules.authenticate_within is not None:
                del client.attempts[attempt.namespace]
                client.waiting[attempt.namespace] = None
                self._say(client, ("connect", attempt.namespace))
            else:
                self._refuse(attempt, REQUIRED)
        elif known is None and client.verifies and not self._recognise(attempt, token):
            attempt.queued = True
        else:
            attempt.turn = known is None
            self._verify(attempt, token)

    def _recognise(self, attempt: Attempt, token: Token) -> bool:
        """Take the identity of a token that the client has shown before; return False if it has not."""
        client = attempt.client
        known = next((one for one in (client.identity, client.candidate) if one and one.jti == token.jti), None)
        attempt.identity = known or attempt.identity
        return known is not None

    def _verify_next(self, client: Client) -> None:
        while not any(attempt.turn and attempt.stage == "user" for attempt in client.attempts.values()):
            queued = [attempt for attempt in client.attempts.values() if attempt.queued]
            if not queued:
                return
            attempt = min(queued, key=lambda attempt: attempt.number)
            attempt.queued, attempt.turn = False, True
            assert attempt.token is not None
            self._verify(attempt, attempt.token)

    def _verify(self, attempt: Attempt, token: Token) -> None:
        client, known = attempt.client, attempt.client.identity
        if self._recognise(attempt, token):
            self._loaded(attempt)
        elif client.refusals >= ATTEMPTS:
            self._refuse(attempt, TRIED)
        elif token.forged:
            self._refuse(attempt, INVALID)
        elif token.exp <= self.wall:
            self._refuse(attempt, EXPIRED)
        elif self._is_revoked(token):
            self._refuse(attempt, REVOKED)
        elif known is not None and known.sub != token.sub:
            self._refuse(attempt, INVALID)
        elif "user" in attempt.holds:
            attempt.stage = "user"
        else:
            attempt.identity = client.candidate = token
            self._loaded(attempt)

    def _loaded(self, attempt: Attempt) -> None:
        identity = attempt.identity
        if attempt.kind == "refresh":
            self._conclude(attempt)
        elif identity is not None and identity.exp <= self.wall:
            self._refuse(attempt, EXPIRED)
        elif identity is not None and self._is_revoked(identity):
            self._refuse(attempt, REVOKED)
        elif not NEEDS[attempt.namespace] <= _scopes(attempt.identity):
            self._refuse(attempt, SCOPE)
        else:
            attempt.door = ROOM_NEEDS["door"] <= _scopes(attempt.identity)
            if "middleware" in attempt.holds:
                attempt.stage = "middleware"
            else:
                self._conclude(attempt)

    def _conclude(self, attempt: Attempt) -> None:
        client, identity, current = attempt.client, attempt.identity, attempt.client.identity
        # What the connection has become meanwhile counts for whoever came with nothing newer of his own.
        if identity is attempt.known:
            identity = current
        if identity is not None:
            if current is not None and current.sub != identity.sub:
                return self._refuse(attempt, INVALID)
            if current is not None and not current.older_than(identity):
                if attempt.kind == "refresh":
                    return self._refuse(attempt, INVALID)
                identity = current
            if identity.exp <= self.wall:
                return self._refuse(attempt, EXPIRED)
            if self._is_revoked(identity):
                return self._refuse(attempt, REVOKED)
            if self._is_full(client, identity):
                return self._refuse(attempt, FULL)
        if attempt.kind != "refresh" and not NEEDS[attempt.namespace] <= _scopes(identity):
            return self._refuse(attempt, SCOPE)
        old, before = client.identity, list(client.sockets)
        self._adopt(client, identity)
        if attempt.kind != "refresh":
            self._accept(attempt)
        self._settle(client, old, before)
        if attempt.kind == "refresh":
            self._accept(attempt)
        else:
            client.calls.append(("connect", attempt.namespace))
        return None

    def _accept(self, attempt: Attempt) -> None:
        client, namespace = attempt.client, attempt.namespace
        client.attempts.pop(namespace, None)
        if attempt.kind == "refresh":
            if namespace in client.sockets:
                self._authenticated(attempt)
            return
        rooms = client.sockets[namespace] = set()
        client.abandoned = 0
        if client.identity is not None:
            rooms.add(f"user:{client.identity.sub}")
        if attempt.door and ROOM_NEEDS["door"] <= _scopes(client.identity):
            rooms.add("door")
        if not client.waiting:
            client.identity_due = None
        if attempt.kind == "connect":
            self._say(client, ("connect", namespace))
        else:
            self._authenticated(attempt)

    def _authenticated(self, attempt: Attempt) -> None:
        subject = attempt.client.identity.sub if attempt.client.identity is not None else None
        self._say(attempt.client, ("event", attempt.namespace, "authenticated", subject))
        if attempt.ack is not None:
            self._say(attempt.client, ("ack", attempt.namespace, attempt.ack, subject))

    def _refuse(self, attempt: Attempt, why: tuple[str, str]) -> None:
        client, namespace = attempt.client, attempt.namespace
        del client.attempts[namespace]
        client.refusals += why in BAD_CREDENTIALS
        if attempt.kind == "connect":
            self._say(client, ("refused", namespace, *why))
            if client.refusals >= ATTEMPTS:
                self._close(client, "forced close")
            else:
                self._close_if_nobody(client)
        elif attempt.kind == "in band":
            if attempt.ack is not None:
                self._say(client, ("ack", namespace, attempt.ack, why[0]))
            self._turn_away(client, namespace, why)
        elif namespace in client.sockets:
            self._say(client, ("event", namespace, "unauthorized", *why))
            if attempt.ack is not None:
                self._say(client, ("ack", namespace, attempt.ack, why[0]))

    def _turn_away(self, client: Client, namespace: str, why: tuple[str, str]) -> None:
        client.waiting.pop(namespace, None)
        client.rejected[namespace] = self.now + GOODBYE
        self._say(client, ("event", namespace, "unauthorized", *why))

    def _adopt(self, client: Client, identity: Token | None) -> None:
        """Take the new identity. No handler runs, and nobody's connection ends."""
        if identity is None or identity is client.identity:
            return
        client.identity, client.candidate = identity, None
        client.refusals = 0
        for namespace, rooms in client.sockets.items():
            rooms.add(f"user:{identity.sub}")
            lost = {room for room in rooms if not ROOM_NEEDS.get(room, frozenset()) <= identity.scopes}
            rooms -= lost
            if lost:
                client.outbox = [said for said in client.outbox if not _misses(said, namespace, rooms)]

    def _settle(self, client: Client, old: Token | None, before: list[str]) -> None:
        """Do what follows from a new identity: ends, and calls of handlers."""
        identity = client.identity
        if identity is None or identity is old:
            return
        client.end = self.now + (identity.exp - self.wall)
        for namespace in before:
            if not NEEDS[namespace] <= identity.scopes:
                client.outbox = [said for said in client.outbox if said.packet[1] != namespace]
                self._say(client, ("disconnect", namespace))
                self._leave(client, namespace, "insufficient scope")
        self._count(client, identity)
        for namespace in before:
            if namespace in client.sockets:
                client.calls.append(("refresh", namespace, old.jti if old is not None else None, identity.jti))

    def _count(self, client: Client, identity: Token) -> None:
        if self.rules.per_subject is None:
            return
        theirs = self._by_subject.setdefault(identity.sub, [])
        if client not in theirs:
            theirs.append(client)
        while len(theirs) > self.rules.per_subject:
            self._expel(theirs[0], FULL, "too many connections")

    def _is_full(self, client: Client, identity: Token) -> bool:
        theirs = self._by_subject.get(identity.sub, [])
        limit = self.rules.per_subject
        return limit is not None and not self.rules.ends_oldest and client not in theirs and len(theirs) >= limit

    def _is_revoked(self, token: Token) -> bool:
        return any(revoked.means(token) for revoked in self.revoked)

    # Ends.

    def _withdraw(self, client: Client, namespace: str) -> None:
        if client.attempts.pop(namespace, None) is not None:
            client.abandoned += 1
        client.waiting.pop(namespace, None)
        if client.rejected.pop(namespace, None) is not None:
            self._close_if_nobody(client)

    def _leave(self, client: Client, namespace: str, reason: str) -> None:
        del client.sockets[namespace]
        if not client.sockets and not client.closed:
            client.identity_due = self.now + self._interval
        client.calls.append(("disconnect", namespace, reason))

    def _expel(self, client: Client, why: tuple[str, str], reason: str) -> None:
        client.outbox.clear()
        for namespace in [*client.sockets, *client.waiting]:
            self._say(client, ("event", namespace, "unauthorized", *why))
            self._say(client, ("disconnect", namespace))
        self._close(client, reason, abort=client.stalled and not client.polls)

    def _close_if_nobody(self, client: Client) -> None:
        if client.nobody:
            self._close(client, "forced close")

    def _close(self, client: Client, reason: str, *, abort: bool = False) -> None:
        if client.closed:
            return
        client.closed = True
        client.attempts.clear()
        client.waiting.clear()
        client.rejected.clear()
        if client.identity is not None and client in self._by_subject.get(client.identity.sub, []):
            self._by_subject[client.identity.sub].remove(client)
        if abort:
            client.outbox.clear()
            client.gone = True
        self._flush(client)
        for namespace in list(client.sockets):
            self._leave(client, namespace, reason)

    # The wire.

    def _say(self, client: Client, packet: tuple[Any, ...], rooms: frozenset[str] | None = None) -> None:
        if not client.closed:
            client.outbox.append(Said(packet, rooms))
            self._flush(client)

    def _flush(self, client: Client) -> None:
        if not client.stalled and not client.gone:
            client.received += [said.packet for said in client.outbox]
            client.outbox.clear()
            client.gone = client.closed


def _scopes(identity: Token | None) -> frozenset[str]:
    return identity.scopes if identity is not None else frozenset()


def _misses(said: Said, namespace: str, rooms: set[str]) -> bool:
    return said.packet[1] == namespace and said.rooms is not None and said.rooms.isdisjoint(rooms)
