"""The parts of a server, behind the object that users see. Transports, integrations and HTTP guards use it."""

from __future__ import annotations

from iogate.auth import Auth, JWTAuth, Query
from iogate.auth.interface import Changed, is_auth
from iogate.auth.sources import BodyField, may_read_cookies
from iogate.clock import Clock
from iogate.errors import ConfigurationError
from iogate.printable import TOKEN_NAMES
from iogate.protocol.socketio.packets import Parser
from iogate.revocation import Revocation, Revocations
from iogate.server.gate.connection import Connection
from iogate.server.gate.expirations import call_watchers, end_invalid, revoke
from iogate.server.gate.gate import Gate
from iogate.server.namespaces.adapter import Adapters
from iogate.server.namespaces.namespace import Namespaces
from iogate.server.namespaces.users import Users
from iogate.server.origins import Origins
from iogate.server.session.addresses import Proxies
from iogate.server.session.handshake import Handshake
from iogate.server.session.heads import Heads
from iogate.server.session.sessions import Sessions
from iogate.server.settings import Limits, Settings


class Core:
    """The parts of a server.

    Args:
        auth: verifies tokens, or None.
        settings: the settings.
        parser: encodes and decodes packets.
        origins: the origins of pages that may connect.
        limits: the limits of clients.
        revocations: the store of revoked tokens.
        proxies: the trusted proxies.
        adapters: creates the adapters of the namespaces.
        clock: the time of deadlines.

    Raises:
        ConfigurationError: `auth` is not usable, or is not safe with these origins.
    """

    def __init__(
        self,
        *,
        auth: Auth | None,
        settings: Settings,
        parser: Parser,
        origins: Origins,
        limits: Limits,
        revocations: Revocations,
        proxies: Proxies,
        adapters: Adapters,
        clock: Clock,
    ) -> None:
        _check_auth(auth, origins)
        self.auth = auth
        self.settings = settings
        self.origins = origins
        self.proxies = proxies
        self.hidden_parameters = TOKEN_NAMES.union(
            source.name for source in (auth.sources if auth is not None else ()) if isinstance(source, Query)
        )
        self.users = Users(getattr(auth, "issuers", None))  # An application's own `auth` may not have this.
        self.namespaces = Namespaces(parser.encode, adapters, self.users)
        self.revocations = revocations
        if isinstance(auth, JWTAuth):  # For HTTP endpoints, which only know the auth.
            auth.revocations.append(revocations)
        self.watchers: set[Changed] = auth.watchers if isinstance(auth, JWTAuth) else set()
        self.sessions: Sessions[Connection] = Sessions(settings, parser, limits, clock, self._start_auth)
        self.gate = Gate(auth, self.sessions, self.namespaces, revocations, limits)
        self.heads = Heads(
            self.sessions.pending, self.sessions.deadlines, settings.connect_timeout, proxies, self.sessions.prepare
        )

    def open(self, handshake: Handshake) -> Connection:
        """Return a new connection, and start its pings. `Session.begin` then gives it its transport."""
        connection = self.gate.open(handshake)
        self.sessions.ping_timer.start(connection)
        return connection

    def start(self) -> None:
        """Accept clients, and start to refresh the keys."""
        self.revocations.open()
        self.sessions.closing = False
        self._start_auth()

    async def ready(self) -> None:
        """Wait until clients can be served. `Server.ready` documents it."""
        await self.namespaces.adapters.start()
        if self.auth is not None:
            await self.auth.ready()

    async def stop(self, timeout: float) -> None:
        """Close all connections. `Server.shutdown` documents it."""
        try:
            await self.sessions.close(timeout)
        finally:
            if self.auth is not None:
                await self.auth.stop(self._keys_changed)
            await self.namespaces.adapters.stop()

    async def revoke(self, revocation: Revocation, now: float) -> None:
        """Revoke tokens, and close the connections with such tokens.

        Args:
            revocation: which tokens.
            now: Unix time in seconds.
        """
        await revoke(revocation, self.revocations, self.sessions.all(), now, self.watchers)

    def _start_auth(self) -> None:
        if self.auth is not None:
            self.auth.start(self._keys_changed)

    def _keys_changed(self) -> None:
        end_invalid(self.auth, self.sessions.all())
        call_watchers(self.watchers)


def _check_auth(auth: Auth | None, origins: Origins) -> None:
    if auth is None:
        return
    if not is_auth(auth):
        raise ConfigurationError("auth is JWTAuth(...), or None for a server that is open to everybody")
    if all(isinstance(source, BodyField) for source in auth.sources):
        raise ConfigurationError(
            'sockets have no body: add where they have the token, sources=[AuthPayload("token"), ...]'
        )
    if auth.uses_cookies and not origins.listed:
        raise ConfigurationError(
            "with a Cookie source any page could act for its visitor: list the pages that may connect,"
            ' cors_allowed_origins=["https://app.example.com"]'
        )
    if origins.any and any(map(may_read_cookies, auth.sources)):
        raise ConfigurationError(
            'a source of your own may find the token in a cookie, which with cors_allowed_origins=["*"] any page'
            ' could send for its visitor: list the pages that may connect, ["https://app.example.com"]'
        )
