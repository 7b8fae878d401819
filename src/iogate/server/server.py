"""The server: its settings, its namespaces, and the table of its connections."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Any, Literal, overload

import msgspec

from iogate.auth import Auth, JWTAuth, Principal, Query
from iogate.auth.interface import is_auth
from iogate.auth.policy import MAX_TOKEN_BYTES
from iogate.auth.sources import BodyField, may_read_cookies
from iogate.clock import SYSTEM, Clock
from iogate.errors import ConfigurationError
from iogate.printable import TOKEN_NAMES, printable
from iogate.protocol.socketio.json import JSON
from iogate.protocol.socketio.msgpack import MSGPACK
from iogate.protocol.socketio.packets import MAX_ATTACHMENTS, ROOT, Parser
from iogate.revocation import MemoryRevocations, Revocation, Revocations
from iogate.server.adapter import Adapters, LocalAdapters
from iogate.server.attempts import Attempt
from iogate.server.connection import Connection
from iogate.server.deadlines import Deadlines
from iogate.server.eager import Eager, Rest
from iogate.server.emitter import Broadcast, Emitter
from iogate.server.gate import Gate
from iogate.server.handlers import Registers
from iogate.server.handshake import Handshake
from iogate.server.heads import Heads
from iogate.server.lifetimes import Lifetimes, call_watchers, expel_unproven, revoke
from iogate.server.limits import Failures, Limits, Pending, Proxies, Subjects
from iogate.server.namespace import DynamicNamespace, Namespace, Namespaces, Predicate
from iogate.server.origins import Origins
from iogate.server.reasons import CloseReason
from iogate.server.rooms import room_of_user
from iogate.server.scopes import Scopes, parse_scopes
from iogate.server.transport import Transport
from iogate.server.turn import Turn
from iogate.server.upgrade import Upgrade

if TYPE_CHECKING:
    from iogate.asgi import SocketIOApp
    from iogate.asgi_types import ASGIApp

logger = logging.getLogger("iogate")

PARSERS: dict[str, Parser] = {"json": JSON, "msgpack": MSGPACK}

UNVERIFIED_TOKENS = 4
"""The size of a frame before the client is admitted, in tokens of the largest size."""
GOODBYE_TIMEOUT = 1.0
"""Seconds that a client has to say that it has read why it is turned away; it is a figure of the wire contract."""
LINGER = 5.0
"""Seconds that a closed connection has to fetch what was written to it before it is cut off."""
SHUTDOWN_TIMEOUT = 3.0
"""Seconds that a shutdown waits for clients and handlers unless it is told otherwise."""


class Settings(msgspec.Struct, frozen=True):
    """The numbers of a server. `Server` explains each."""

    path: str
    ping_interval: float
    ping_timeout: float
    connect_timeout: float
    max_payload: int
    max_buffered: int
    max_attachments: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(/[^/?#\s]+)+", self.path):
            raise ConfigurationError(f'path is {self.path!r}: write it like "/socket.io", without a slash at the end')
        for name in ("ping_interval", "ping_timeout", "connect_timeout"):
            if type(getattr(self, name)) not in (int, float) or not 0 < getattr(self, name) <= 3600:
                raise ConfigurationError(f"{name} is a number of seconds, more than 0 and at most 3600")
        for name, least in (("max_payload", 1024), ("max_buffered", 1024), ("max_attachments", 0)):
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                raise ConfigurationError(f"{name} is a whole number, at least {least}")


class Server(Registers, Emitter):
    """A Socket.IO server. Everything that a `Namespace` has (`on`, `use`, `emit`, `to`, ...) it has for `/`.

    Args:
        auth: what verifies the token of every connection, such as `JWTAuth(...)`. There is no default: a server
            that is open to everybody must say `auth=None`.
        parser: how packets are written: `"json"`, which is every client's default, or `"msgpack"`, for clients with
            the parser of `socket.io-msgpack-parser`.
        path: where it is served. A client's default is `/socket.io`.
        cors_allowed_origins: the origins of the pages that may connect, such as `["https://app.example.com"]`.
            Empty: pages of the same origin only. `["*"]`: every page.
        ping_interval: seconds between two pings of a connection.
        ping_timeout: seconds in which the pong must come.
        connect_timeout: seconds from the opening of a transport to the verdict of the gate. A transport that is let
            in nowhere by then is closed, whatever it sends.
        max_payload: bytes that a frame or a polling payload may have. Before a client is admitted, a frame may
            have four times the bytes of the largest token (32 KiB by default); a CONNECT is always limited to that.
        max_buffered: bytes that may wait for a slow client before it is disconnected; up to four times as many within
            one turn of the event loop, in which the client cannot read.
        max_attachments: binary attachments that one packet may announce.
        limits: how much is borne of clients that have no identity yet, and of one subject.
        revocations: where revoked tokens are remembered; in memory unless said otherwise.
        trusted_proxies: networks of proxies whose `X-Forwarded-For` is believed, such as `["10.0.0.0/8"]`.
        adapters: makes the adapter of each namespace, which holds its rooms and delivers its broadcasts. By default
            they are those of one process.
        clock: what time is taken from.

    Raises:
        ConfigurationError: the arguments do not make a safe server.
    """

    def __init__(
        self,
        *,
        auth: Auth | None,
        parser: Literal["json", "msgpack"] = "json",
        path: str = "/socket.io",
        cors_allowed_origins: Collection[str] = (),
        ping_interval: float = 25.0,
        ping_timeout: float = 20.0,
        connect_timeout: float = 10.0,
        max_payload: int = 1_000_000,
        max_buffered: int = 1_048_576,
        max_attachments: int = MAX_ATTACHMENTS,
        limits: Limits | None = None,
        revocations: Revocations | None = None,
        trusted_proxies: Collection[str] = (),
        adapters: Adapters | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.settings = Settings(
            path, ping_interval, ping_timeout, connect_timeout, max_payload, max_buffered, max_attachments
        )
        self.origins = Origins(cors_allowed_origins)
        if auth is not None and not is_auth(auth):
            raise ConfigurationError("auth is JWTAuth(...), or None for a server that is open to everybody")
        if auth is not None and all(isinstance(source, BodyField) for source in auth.sources):
            raise ConfigurationError(
                'sockets have no body: add where they have the token, sources=[AuthPayload("token"), ...]'
            )
        if auth is not None and auth.uses_cookies and not self.origins.listed:
            raise ConfigurationError(
                "with a Cookie source any page could act for its visitor: list the pages that may connect,"
                ' cors_allowed_origins=["https://app.example.com"]'
            )
        if auth is not None and self.origins.any and any(map(may_read_cookies, auth.sources)):
            raise ConfigurationError(
                'a source of your own may find the token in a cookie, which with cors_allowed_origins=["*"] any page'
                ' could send for its visitor: list the pages that may connect, ["https://app.example.com"]'
            )
        self.hidden_parameters = TOKEN_NAMES.union(
            source.name for source in (auth.sources if auth is not None else ()) if isinstance(source, Query)
        )
        tokens = auth.max_token_bytes if auth is not None else MAX_TOKEN_BYTES
        self.max_unverified = min(max_payload, UNVERIFIED_TOKENS * tokens)
        """Bytes of a frame of a client that is not admitted, and of every CONNECT."""
        self.connections: dict[str, Connection] = {}
        self.closing = False
        self.lingering: dict[str, Connection] = {}  # Closed, but with something that its client may still fetch.
        if parser not in PARSERS:
            raise ConfigurationError(f"parser is one of {', '.join(map(repr, PARSERS))}, and not {parser!r}")
        self.parser = PARSERS[parser]
        self._adapters = adapters or LocalAdapters()
        self._namespaces = Namespaces(self.parser.encode, self._adapters)
        self._root = self._namespaces.of(ROOT)
        self.handlers = self._root.handlers
        self._loop: asyncio.AbstractEventLoop | None = None
        self.eager = Eager()
        self.turn = Turn()
        self._tasks: dict[asyncio.Task[None], Callable[[], None] | None] = {}
        self.auth = auth
        self._issuers = getattr(auth, "issuers", None)  # An application's own `auth` may not have this.
        self._several_issuers = self._issuers is not None and len(self._issuers) > 1
        self.proxies = Proxies(trusted_proxies)
        limits = limits or Limits()
        self.pending = Pending(limits)
        self.failures = Failures(limits.failures_per_address, clock)
        self._missing = Failures(limits.missing_per_address, clock, "CONNECTs without a token")
        self.subjects = Subjects(limits)
        self.revocations = revocations if revocations is not None else MemoryRevocations()
        if isinstance(auth, JWTAuth):  # For HTTP endpoints, which know the auth alone.
            auth.revocations.append(self.revocations)
        self.watchers = auth.watchers if isinstance(auth, JWTAuth) else set()
        self.gate = Gate(auth, self._namespaces, self.revocations, self.failures, self._missing)
        self._deadlines = deadlines = Deadlines(clock)
        self._lifetimes = Lifetimes(auth, deadlines)
        in_band = auth.authenticate_within if auth is not None else None
        self.identity_due = deadlines.queue(in_band or connect_timeout, Connection.identity_timed_out)
        self.verdict_due = deadlines.queue(connect_timeout, _verdict_timed_out)
        self.goodbye_due = deadlines.queue(GOODBYE_TIMEOUT, _part)
        self.attachments_due = deadlines.queue(ping_timeout, _attachments_timed_out)
        self._ping_due = deadlines.queue(ping_interval, self._ping)
        self._pong_due = deadlines.queue(ping_timeout, _pong_timed_out)
        self.linger_due = deadlines.queue(LINGER, _abort)
        self.upgrade_due = deadlines.queue(connect_timeout, Upgrade.fail)
        self.heads = Heads(self.pending, deadlines, connect_timeout, self.proxies, self.prepare)

    # The application's side.

    @property
    def _all(self) -> Broadcast:
        return self._root._all

    @overload
    def of(self, name: str, *, scopes: Scopes = ()) -> Namespace: ...
    @overload
    def of(self, name: re.Pattern[str] | Predicate, *, scopes: Scopes = ()) -> DynamicNamespace: ...
    def of(self, name: str | re.Pattern[str] | Predicate, *, scopes: Scopes = ()) -> Namespace | DynamicNamespace:
        """Return a namespace, or all namespaces whose names match.

        Args:
            name: its name (`"/admin"`); or a pattern that the whole name must match, or a predicate that is given
                it and returns True.
            scopes: scopes that a token must have to be let in, all of them: a name, several with spaces between
                them, or a list. They add to those given before.

        Raises:
            ConfigurationError: it cannot be the name of a namespace.
        """
        found: Namespace | DynamicNamespace
        if isinstance(name, str):
            found = self._namespaces.of(name)
        elif isinstance(name, re.Pattern) or callable(name):
            found = self._namespaces.matching(name)
        else:
            raise ConfigurationError(f"{name!r} is neither a name, a compiled pattern nor a predicate")
        found.scopes |= parse_scopes(scopes)
        return found

    def user_room(self, subject: str, issuer: str | None = None) -> str:
        """Return the name of the room that contains all sockets of a user: `io.to(io.user_room("bob")).emit(...)`.

        It is `user:<subject>`. With several issuers the name includes the issuer, because each may have a user with
        that subject.

        Args:
            subject: the `sub` of the user's tokens.
            issuer: the `iss` of the user's tokens. It may be left out unless `auth` accepts several issuers.

        Raises:
            ConfigurationError: the issuer is missing, or is not accepted.
        """
        if not subject:
            raise ConfigurationError('a user is named by the sub of the tokens: write io.user_room("bob")')
        issuer = self._the_issuer(issuer, "user_room")
        return room_of_user(subject, issuer if self._several_issuers else None)

    def _room_of(self, principal: Principal) -> str:
        """Return the name of the user's room for a verified identity, which has a subject."""
        return room_of_user(principal.subject, (principal.issuer or "") if self._several_issuers else None)

    def _the_issuer(self, issuer: str | None, method: str) -> str | None:
        """Return the issuer that is meant; None if issuers are not told apart and none is given."""
        known = self._issuers
        if known is None:
            return issuer
        names = ", ".join(printable(repr(name)) for name in sorted(known))
        if issuer is None and len(known) > 1:
            raise ConfigurationError(
                f"auth accepts several issuers, and each may have such a user, session or token: say whose it is,"
                f" {method}(..., issuer=...), with one of {names}"
            )
        if issuer is not None and issuer not in known:
            raise ConfigurationError(f"issuer is {printable(repr(issuer))}, which auth does not accept: give {names}")
        return issuer if issuer is not None else next(iter(known), None)

    def asgi(self, other: ASGIApp | None = None) -> SocketIOApp:
        """Return the ASGI application.

        Args:
            other: your own application, which gets every request that is not for `path`.
        """
        # The one import that goes upwards: it is here so that `io.asgi()` can be written.
        from iogate.asgi import SocketIOApp

        return SocketIOApp(self, other)

    def start(self) -> None:
        """Let clients in. The ASGI lifespan calls it; without one, the first client does."""
        self.revocations.open()
        self.closing = False
        if self.auth is not None:
            self.auth.start(self._keys_changed)

    async def ready(self) -> None:
        """Return when clients can be served: the adapters have started, and there are keys to verify tokens with.

        The ASGI lifespan waits for it.

        Raises:
            AuthUnavailable: there are no keys, and the configuration says not to start without.
        """
        await self._adapters.start()
        if self.auth is not None:
            await self.auth.ready()

    async def revoke(
        self,
        *,
        token_id: str | None = None,
        subject: str | None = None,
        session_id: str | None = None,
        key_id: str | None = None,
        issuer: str | None = None,
        issued_before: float | None = None,
        until: float | None = None,
    ) -> None:
        """Revoke tokens before their time, and end the sockets that came with them.

        What is said of the tokens holds together: `subject` with `key_id` means those of one person that one key
        signed. When it returns, nothing more is sent to those sockets, what was queued for them is dropped, and such
        a token is refused wherever it is shown.

        Args:
            token_id: their `jti`.
            subject: their `sub`. Tokens that the person gets from now on are good again, unless `issued_before` says
                otherwise.
            session_id: their `sid`.
            key_id: the `kid` of the key that signed them.
            issuer: their `iss`. With several issuers it is required with `subject`, `session_id` and `token_id`,
                because another issuer may use the same names; with one issuer it is that one.
            issued_before: Unix time in seconds until which they were issued.
            until: Unix time in seconds after which this is forgotten. By default it is remembered for as long as a
                token that it means can be accepted. That is for ever if `key_id` is given without `issued_before`, and
                also unless tokens must have `exp` and `iat` (`JWTAuth(require=["exp", "sub", "iat"])`) or `max_age` is
                set. If you give an `until` before the `exp` + `leeway` of a token, it is accepted again after that.

        Raises:
            ConfigurationError: no argument selects tokens, the issuer is missing or not accepted, or the server has no
                `auth`.
        """
        if self.auth is None:
            raise ConfigurationError("there is no token to revoke on a server with auth=None")
        if issuer is not None or not (subject is None and session_id is None and token_id is None):
            issuer = self._the_issuer(issuer, "revoke")
        now = self.auth.clock.wall()
        if subject is not None and issued_before is None:
            issued_before = now + self.auth.leeway  # The issuer's clock may be that far ahead.
        revocation = Revocation(
            token_id=token_id,
            subject=subject,
            session_id=session_id,
            key_id=key_id,
            issuer=issuer,
            issued_before=issued_before,
            until=self.auth.revocation_end(now, issued_before, key_id) if until is None else until,
        )
        connections = [*self.connections.values(), *self.lingering.values()]
        await revoke(revocation, self.revocations, connections, now, self.watchers)

    async def shutdown(self, timeout: float = SHUTDOWN_TIMEOUT) -> None:
        """Close every connection, and return when the clients have been told and the handlers have ended.

        Clients see a transport that closes, and come back to whatever serves the address next. Nobody new is let in.

        Args:
            timeout: seconds to wait at most; what is not done by then is cut off.
        """
        self.closing = True
        transports = [connection.transport for connection in self.connections.values()]
        for connection in list(self.connections.values()):
            connection.close(CloseReason.SERVER_SHUTDOWN)
        try:
            async with asyncio.timeout(timeout):
                while tasks := self._tasks.keys() - {asyncio.current_task()}:  # A handler may be who asks for the end.
                    await asyncio.wait(tasks)
        except TimeoutError:
            for transport in transports:
                transport.abort()
            for task in self._tasks.keys() - {asyncio.current_task()}:
                task.cancel()
        finally:
            if self.auth is not None:
                await self.auth.stop(self._keys_changed)
            await self._adapters.stop()

    # The transports' side.

    def open(self, handshake: Handshake) -> Connection:
        """Begin a session, and its deadlines; `Connection.begin` then gives it its transport."""
        connection = Connection(self, secrets.token_urlsafe(15), handshake)
        self.take(connection)
        self._ping_due.start(connection)
        return connection

    def take(self, connection: Connection) -> None:
        """Begin the deadlines of a session whose pings are somebody else's."""
        self.prepare()
        connection.context = self.eager.context_of_caller()
        self.connections[connection.sid] = connection
        self.identity_due.start(connection)
        self.pending.add(connection)

    def prepare(self) -> None:
        """Use the running event loop from now on."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # The first one, or the one before has ended, as in one test after another.
            self._loop = loop
            for part in (self._deadlines, self.eager, self.turn):
                part.prepare(loop)
            if self.auth is not None:
                self.auth.start(self._keys_changed)

    def transport(self, sid: str) -> Transport | None:
        """Return the transport of a session, or of one that has ended and still has something to fetch."""
        connection = self.connections.get(sid) or self.lingering.get(sid)
        return connection.transport if connection is not None else None

    # The connections' side.

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in a task that a shutdown waits for."""
        return self._keep(asyncio.create_task(work))

    def go_on(
        self,
        rest: Rest,
        work: Coroutine[Any, Any, None] | None = None,
        finished: Callable[[], None] | None = None,
    ) -> asyncio.Task[None]:
        """Go on with what `eager.begin` has begun, in a task that a shutdown waits for.

        Args:
            rest: what it returned.
            work: what the task is to do, if it is more than to await `rest`.
            finished: called when it has ended.
        """
        return self._keep(self.eager.go_on(rest, work), finished)

    def _keys_changed(self) -> None:
        expel_unproven(self.auth, [*self.connections.values(), *self.lingering.values()])
        call_watchers(self.watchers)

    def _keep(self, task: asyncio.Task[None], finished: Callable[[], None] | None = None) -> asyncio.Task[None]:
        self._tasks[task] = finished
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        finished = self._tasks.pop(task, None)
        if finished is not None:
            finished()

    def forget(self, connection: Connection) -> None:
        """Take a closed connection out of every table."""
        self.connections.pop(connection.sid, None)
        for queue in (self.identity_due, self.attachments_due, self._ping_due, self._pong_due):
            queue.stop(connection)
        self._lifetimes.stop(connection)
        if connection.identity is not None:
            self.subjects.discard(connection, connection.identity.principal)

    def identified(self, connection: Connection) -> None:
        """Take note of the identity that a connection has from now on."""
        if connection.identity is not None:
            self._lifetimes.begin(connection)
            self.subjects.add(connection, connection.identity.principal)  # The last: it may call handlers.

    def pong_received(self, connection: Connection) -> None:
        """Take note that a client lives. A pong that nobody asked for counts for nothing."""
        if self._pong_due.stop(connection):
            connection.connects = 0
            if connection.sockets:
                connection.abandoned = 0
            self._ping_due.start(connection)

    def _ping(self, connection: Connection) -> None:
        self._pong_due.start(connection)
        connection.ping()

    def __repr__(self) -> str:
        return f"<Server on {self.settings.path} with {len(self.connections)} connections>"


def _abort(transport: Transport) -> None:
    transport.abort()


def _pong_timed_out(connection: Connection) -> None:
    connection.close(CloseReason.PING_TIMEOUT)


def _attachments_timed_out(connection: Connection) -> None:
    logger.info("closed: announced attachments did not come")
    connection.close(CloseReason.PARSE_ERROR)


def _verdict_timed_out(attempt: Attempt) -> None:
    attempt.time_out()


def _part(turned_away: tuple[Connection, str]) -> None:
    connection, namespace = turned_away
    connection.part(namespace)
