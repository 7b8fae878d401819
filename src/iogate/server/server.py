"""The server, as users see it. Its parts are in `core.py`."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal, overload

from iogate.auth import Auth
from iogate.auth.policy import MAX_TOKEN_BYTES
from iogate.clock import SYSTEM, Clock
from iogate.errors import ConfigurationError
from iogate.protocol.socketio.json import JSON
from iogate.protocol.socketio.msgpack import MSGPACK
from iogate.protocol.socketio.packets import MAX_ATTACHMENTS, ROOT, Parser
from iogate.revocation import MemoryRevocations, Revocation, Revocations
from iogate.server.core import Core
from iogate.server.namespaces.adapter import Adapters, LocalAdapters
from iogate.server.namespaces.emitter import Broadcast, Emitter
from iogate.server.namespaces.handlers import Registers
from iogate.server.namespaces.namespace import DynamicNamespace, Namespace, Predicate
from iogate.server.namespaces.scopes import Scopes, parse_scopes
from iogate.server.origins import Origins
from iogate.server.session.addresses import Proxies
from iogate.server.settings import Limits, Settings

if TYPE_CHECKING:
    from iogate.asgi import SocketIOApp
    from iogate.asgi_types import ASGIApp

PARSERS: dict[str, Parser] = {"json": JSON, "msgpack": MSGPACK}

SHUTDOWN_TIMEOUT = 3.0
"""The default number of seconds that `shutdown` waits for clients and handlers."""


class Server(Registers, Emitter):
    """A Socket.IO server. All methods of a `Namespace` (`on`, `use`, `emit`, `to`, ...) apply to the namespace `/`.

    Args:
        auth: verifies the token of every connection: `JWTAuth(...)`. There is no default: for a server that is open to
            everybody, write `auth=None`.
        parser: the encoding of packets: `"json"`, the default of every client, or `"msgpack"`, for clients with
            `socket.io-msgpack-parser`.
        path: the path of the URL. The default of clients is `/socket.io`.
        cors_allowed_origins: the origins of pages that may connect, such as `["https://app.example.com"]`. Empty:
            only pages of the same origin. `["*"]`: every page.
        ping_interval: seconds between two pings of a connection.
        ping_timeout: seconds in which the client must answer a ping.
        connect_timeout: seconds from the opening of a transport to the verdict of the gate. A transport that is not
            admitted to any namespace by then is closed, whatever its client sends.
        max_payload: the maximum size of a frame or a polling payload in bytes. Until a client is admitted, a frame may
            have four times the bytes of the largest token (32 KiB by default). That is also the limit of every CONNECT.
        max_buffered: bytes that may be queued for a slow client before it is disconnected. Within one iteration of the
            event loop, in which the client cannot read, up to four times as many.
        max_attachments: binary attachments that one packet may have.
        limits: limits for clients that are not authenticated, and for the connections of one subject.
        revocations: the store of revoked tokens. By default, it is in memory.
        trusted_proxies: networks of proxies whose `X-Forwarded-For` header is trusted, such as `["10.0.0.0/8"]`.
        adapters: creates the adapter of each namespace, which has its rooms and delivers its broadcasts. The default
            adapters serve one process.
        clock: the time of deadlines.

    Raises:
        ConfigurationError: an argument, or a combination of arguments, is not valid or not safe.
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
        if parser not in PARSERS:
            raise ConfigurationError(f"parser is one of {', '.join(map(repr, PARSERS))}, and not {parser!r}")
        self._core = Core(
            auth=auth,
            settings=Settings(
                path,
                ping_interval,
                ping_timeout,
                connect_timeout,
                max_payload,
                max_buffered,
                max_attachments,
                getattr(auth, "max_token_bytes", MAX_TOKEN_BYTES),
            ),
            parser=PARSERS[parser],
            origins=Origins(cors_allowed_origins),
            limits=limits or Limits(),
            revocations=revocations if revocations is not None else MemoryRevocations(),
            proxies=Proxies(trusted_proxies),
            adapters=adapters or LocalAdapters(),
            clock=clock,
        )
        self._root = self._core.namespaces.of(ROOT)
        self.handlers = self._root.handlers

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
            name: its name (`"/admin"`); or a pattern that must match the whole name; or a predicate that is called with
                the name, and returns True if the namespace exists.
            scopes: scopes that a token must have, all of them: one name, several separated by spaces, or a list. They
                are added to those of previous calls.

        Raises:
            ConfigurationError: a namespace cannot have this name.
        """
        found: Namespace | DynamicNamespace
        if isinstance(name, str):
            found = self._core.namespaces.of(name)
        elif isinstance(name, re.Pattern) or callable(name):
            found = self._core.namespaces.matching(name)
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
        return self._core.users.room(subject, issuer)

    def asgi(self, other: ASGIApp | None = None) -> SocketIOApp:
        """Return the ASGI application.

        Args:
            other: your own application. It gets every request whose path is not `path`.
        """
        # The one import that goes upwards: it is here so that `io.asgi()` can be written.
        from iogate.asgi import SocketIOApp

        return SocketIOApp(self, other)

    def start(self) -> None:
        """Accept clients. The ASGI lifespan calls this. Without a lifespan, the first client causes it."""
        self._core.start()

    async def ready(self) -> None:
        """Wait until clients can be served: the adapters have started, and there are keys to verify tokens with.

        The ASGI lifespan awaits this.

        Raises:
            AuthUnavailable: there are no keys, and the configuration requires them at startup.
        """
        await self._core.ready()

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
        """Revoke tokens before they expire, and close the connections of clients with such tokens.

        A token must match all arguments that are given: `subject` with `key_id` matches the tokens of one user that one
        key signed. When this returns, nothing more is sent to those clients, packets that were queued for them are
        dropped, and such a token is rejected everywhere.

        Args:
            token_id: their `jti`.
            subject: their `sub`. Tokens that are issued to the user from now on are valid, unless `issued_before` says
                otherwise.
            session_id: their `sid`.
            key_id: the `kid` of the key that signed them.
            issuer: their `iss`. With several issuers it is required with `subject`, `session_id` and `token_id`,
                because another issuer may use the same names. With one issuer, that is the default.
            issued_before: the latest time at which they were issued, Unix time in seconds.
            until: the time until which the revocation is remembered, Unix time in seconds. By default it is remembered
                for as long as a matching token can be accepted. That is for ever if `key_id` is given without
                `issued_before`, and also unless tokens must have `exp` and `iat`
                (`JWTAuth(require=["exp", "sub", "iat"])`) or `max_age` is set. If you give an `until` before the `exp`
                + `leeway` of a token, the token is accepted again after that time.

        Raises:
            ConfigurationError: no argument selects tokens, the issuer is missing or not accepted, or the server has no
                `auth`.
        """
        auth = self._core.auth
        if auth is None:
            raise ConfigurationError("a server with auth=None has no tokens to revoke")
        if issuer is not None or not (subject is None and session_id is None and token_id is None):
            issuer = self._core.users.issuer(issuer, "revoke")
        now = auth.clock.wall()
        if subject is not None and issued_before is None:
            issued_before = now + auth.leeway  # The issuer's clock may be that far ahead.
        revocation = Revocation(
            token_id=token_id,
            subject=subject,
            session_id=session_id,
            key_id=key_id,
            issuer=issuer,
            issued_before=issued_before,
            until=auth.revocation_end(now, issued_before, key_id) if until is None else until,
        )
        await self._core.revoke(revocation, now)

    async def shutdown(self, timeout: float = SHUTDOWN_TIMEOUT) -> None:
        """Close every connection, and return when clients have been told and handlers have ended.

        Clients see a transport that closes, and reconnect. New clients are not accepted.

        Args:
            timeout: seconds to wait at most. Then transports are aborted, and handlers are cancelled.
        """
        await self._core.stop(timeout)

    def __repr__(self) -> str:
        return f"<Server on {self._core.settings.path} with {len(self._core.sessions.table)} connections>"


def core_of(server: Server) -> Core:
    """Return the parts of a server. Only iogate's own modules use this."""
    return server._core
