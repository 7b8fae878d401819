"""The gate for HTTP endpoints: finds the token of a request, verifies it, and checks the scopes.

The same code verifies tokens of sockets (`verify_token` in `server/gate/gate.py`). The integration with a framework
(its requests, its responses, where it stores the identity) is in the module with its name.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from iogate.auth import Auth, Cookie, JWTAuth, Principal, Source
from iogate.auth.arguments import seconds, sources_of
from iogate.auth.interface import Changed, Revoked, is_auth
from iogate.auth.sources import AuthPayload, BodyField, Function, Query, may_read_cookies, the_one
from iogate.errors import (
    AuthError,
    AuthUnavailable,
    ConfigurationError,
    CredentialsRequired,
    InsufficientScope,
    Refused,
    RevokedToken,
    TokenExpired,
)
from iogate.http.body import length_with_fields
from iogate.http.refusals import RefusalLog, shown
from iogate.server.gate.attempts import CredentialRequest
from iogate.server.gate.gate import ensure_still_valid, is_bad_credential, json_safe, verify_token
from iogate.server.gate.limits import FailureLimiter
from iogate.server.namespaces.scopes import Scopes, parse_scopes
from iogate.server.origins import Origins
from iogate.server.server import Server, core_of
from iogate.server.session.addresses import Proxies
from iogate.server.session.handshake import Handshake

SAFE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Methods that change nothing (RFC 9110, section 9.2.1), so another site gains nothing by sending such a request."""
WEBSOCKET = "WEBSOCKET"
"""The method of a WebSocket request. Any page can open a WebSocket with a GET, but its messages may change data."""
HOST_ONLY = "__Host-"
"""The prefix of a cookie that no other host, for example a subdomain, can set (RFC 6265bis, section 4.1.3.2)."""
_REALM = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")
"""Text that may appear in a quoted string without escaping (RFC 9110, section 5.6.4)."""
LOOK_EVERY = 1.0
"""Seconds between checks of an open stream if no server notifies the guard of revocations and removed keys."""


class CrossSite(AuthError):
    """The token is in a cookie, and the request does not prove that a page of the application sent it."""

    code = "cross_site"
    text = "The request was not started by this site"
    retry = "never"
    status = 403


class DoubleSubmit(msgspec.Struct, frozen=True):
    """CSRF protection with a second cookie, which proves that a page of this host sent the request.

    The application sets the cookie to a value that cannot be guessed (`secrets.token_urlsafe()`), without `HttpOnly`.
    Its pages copy the value into the header. Pages of other sites cannot read it.

    Args:
        cookie: the name of the cookie. It must begin with `__Host-`: a subdomain could set any other cookie.
        header: the name of the header.
    """

    cookie: str = "__Host-csrf"
    header: str = "x-csrf-token"

    def __post_init__(self) -> None:
        if not self.cookie.startswith(HOST_ONLY):
            raise ConfigurationError(
                f'the cookie of DoubleSubmit begins with "{HOST_ONLY}", as "__Host-csrf" does: any other could be set'
                " by a page of another host"
            )

    def shown(self, request: HTTPRequest) -> bool:
        """Return True if a request has the cookie, and the same value in the header."""
        cookie, header = request.cookies.get(self.cookie, ""), request.headers.get(self.header.lower(), "")
        return bool(cookie) and hmac.compare_digest(cookie.encode(), header.encode())


class HTTPRequest(CredentialRequest):
    """The request that a guard checks.

    Args:
        handshake: the head of the request.
        method: its method; `WEBSOCKET` for a WebSocket.
        fields: the fields of its body, if the guard reads the body.
    """

    __slots__ = ("fields", "method")

    def __init__(self, handshake: Handshake, method: str, fields: Mapping[str, object] | None = None) -> None:
        super().__init__(handshake)
        self.method = method
        self.fields: Mapping[str, object] = fields or {}


class Admitted(msgspec.Struct, frozen=True):
    """The verified identity of a request.

    Args:
        principal: the principal, the same as `socket.principal`.
        user: the user that `load_user` returned for its claims; None if there is no such function.
    """

    principal: Principal
    user: Any


class Guard:
    """Admit requests with a valid token that has the required scopes, and reject all others.

    Args:
        auth: verifies the tokens, for example the `JWTAuth` of your server. Or the `Server` itself: then the bad tokens
            of an address are counted together for sockets and requests, too many are answered 429, and `origins`
            defaults to the server's `cors_allowed_origins`.
        scopes: the scopes that a token must have, all of them.
        optional: if True, admit requests without a token, without an identity. A bad token is still rejected.
        sources: where a request may have its token; by default the sources of `auth`. `BodyField` and your own
            functions, also `async def`, can be among them.
        origins: the origins of the pages that may send requests with a token in a cookie.
        csrf: the other way to protect requests with a token in a cookie. If both are set, a request needs to pass only
            one of them.
        revocations: where to look up revoked tokens, in addition to the servers that use `auth`.
        realm: the realm in the `WWW-Authenticate` header.
        timeout: seconds within which a verdict must be reached, including `load_user`, your own functions and the
            fetching of keys.

    Raises:
        ConfigurationError: an argument is not valid, or a token may be in a cookie and neither `origins` nor `csrf` is
            set.
    """

    def __init__(
        self,
        auth: Auth | Server,
        *,
        scopes: Scopes = (),
        optional: bool = False,
        sources: Collection[Any] | None = None,
        origins: Collection[str] = (),
        csrf: DoubleSubmit | None = None,
        revocations: Revoked | None = None,
        realm: str = "api",
        timeout: float = 10.0,
    ) -> None:
        core = core_of(auth) if isinstance(auth, Server) else None
        found = core.auth if core is not None else auth
        if not is_auth(found):
            raise ConfigurationError("a guard takes JWTAuth(...), or a Server that has one")
        if core is None and not isinstance(found, JWTAuth):
            raise ConfigurationError(
                "give the Server that uses this gatekeeper: what was revoked there is to be refused here too"
            )
        self.auth: Auth = found  # type: ignore[assignment]
        self.scopes = parse_scopes(scopes)
        if optional and self.scopes:
            raise ConfigurationError("who needs scopes needs a token: leave out optional=True, or scopes")
        if not _REALM.fullmatch(str(realm)):
            raise ConfigurationError("realm is plain text without quotation marks")
        if not isinstance(csrf, DoubleSubmit | None):
            raise ConfigurationError("csrf is an object: write csrf=DoubleSubmit()")
        self.optional = optional
        self.realm = realm
        self._timeout = seconds("timeout", timeout, 0.01)
        self.sources: tuple[Source, ...] = (
            self.auth.sources if sources is None else sources_of(sources, asynchronous=True)
        )
        if all(isinstance(source, AuthPayload) for source in self.sources):
            raise ConfigurationError(
                "AuthPayload is in the CONNECT of a socket, and requests have none: add sources=[BearerHeader()]"
            )
        self._origins = Origins(origins) if origins or core is None else core.origins
        self._csrf = csrf
        own = core.revocations if core is not None else None
        self._stores: list[Revoked] = [store for store in (revocations, own) if store is not None]
        self._failures: FailureLimiter | None = core.gate.failures if core is not None else None
        self._proxies: Proxies | None = core.proxies if core is not None else None
        self._log = RefusalLog("requests", self.auth.clock)
        self._has_own_store = revocations is not None
        self.watchers: set[Changed] = core.watchers if core is not None else self.auth.watchers  # type: ignore[attr-defined]
        if any(isinstance(source, Cookie) for source in self.sources) and not (self._origins.listed or csrf):
            raise ConfigurationError(
                "with a Cookie source any page could act for its visitor: say which pages may,"
                ' origins=["https://app.example.com"], or use csrf=DoubleSubmit()'
            )

    @property
    def hidden_parameters(self) -> frozenset[str]:
        """The URL parameters that may contain a token, so that logs must not show them."""
        return frozenset(source.name for source in self.sources if isinstance(source, Query))

    @property
    def reads_body(self) -> bool:
        """True if the token may be in the body, so that the body must be read before `check`."""
        return any(isinstance(source, BodyField) for source in self.sources)

    def length_to_read(self, handshake: Handshake) -> int:
        """Return how many bytes of the body of a request to read before `check`; 0 for none.

        Raises:
            CredentialsBadFormat: the body is larger than the limit for bodies with a token.
        """
        return length_with_fields(handshake) if self.reads_body else 0

    async def check(self, request: HTTPRequest) -> Admitted | None:
        """Return the verified identity of a request; None for a request without a token, where that is allowed.

        Raises:
            AuthError: the request is rejected.
            Refused: the application's `load_user` rejects the request.
        """
        address, where = request.handshake.address, (request.method, shown(request.handshake.path))
        try:
            if self._proxies is not None:
                address = self._proxies.client(address, request.headers)
            async with asyncio.timeout(self._timeout):
                return await self._check(request, address)
        except Refused as refused:
            refusal = json_safe(refused)
            code, reason = (
                (refusal.code, refusal) if isinstance(refusal, AuthError) else ("refused", "by the application")
            )
            self._log.add(address, code, "%s %s of %s refused: %s", *where, shown(address), reason)
            if self._failures is not None and is_bad_credential(refusal):
                self._failures.add(address)
            raise refusal from None
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # The client has disconnected. If a hook raised it, the request is rejected below.
            name = type(error).__name__
            self._log.add(address, name, "%s %s refused: the verdict failed", *where, error=error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise  # The process must end.
            raise AuthUnavailable("the verdict failed") from None

    async def _check(self, request: HTTPRequest, address: str | None) -> Admitted | None:
        token = await self._token(request)
        if token is None:
            if self.optional:
                return None
            raise CredentialsRequired
        verification = verify_token(token, self.auth, self)
        if self._failures is not None:
            principal = await self._failures.verified(address, verification)
        else:
            principal = await verification
        self.ensure_still_valid(principal)  # An `auth` of the application may have waited.
        user = await self.auth.user_for(principal)
        if not self.scopes <= principal.scopes:
            raise InsufficientScope(self.scopes)
        self.ensure_still_valid(principal)
        return Admitted(principal, user)

    def ensure_still_valid(self, principal: Principal) -> None:
        """Check an identity again, after a wait and before application code runs for it.

        Raises:
            TokenExpired: the token has expired meanwhile.
            InvalidToken: the token's key was removed, and `revoke_removed` is set.
            RevokedToken: the token was revoked.
        """
        ensure_still_valid(principal, self.auth, self)

    def deadline(self, principal: Principal) -> float:
        """Return when a stream with this identity must end, in seconds of the monotonic clock; infinity for never."""
        end, clock = self.auth.end(principal), self.auth.clock
        return math.inf if end is None else clock.monotonic() + end - clock.wall()

    def refusal(self, principal: Principal) -> AuthError | None:
        """Return why an open stream with this identity must end, apart from its `deadline`; None if it need not."""
        try:
            self.auth.recheck(principal)
        except TokenExpired:
            pass  # `deadline` covers this: it includes `expiry_grace`, and does not depend on the wall clock.
        except AuthError as refusal:
            return refusal
        try:
            return RevokedToken() if self.revoked(principal, self.auth.clock.wall()) else None
        except Exception as error:
            self._log.add(None, type(error).__name__, "disconnected: revocations could not be read", error=error)
            return AuthUnavailable("revocations could not be read")

    @property
    def look_every(self) -> float:
        """Seconds between checks of an open stream; infinity if a server notifies the guard of all changes."""
        server_tells = bool(self.auth.revocations) if isinstance(self.auth, JWTAuth) else True
        return math.inf if server_tells and not self._has_own_store else LOOK_EVERY

    def revoked(self, principal: Principal, now: float) -> bool:
        """Return True if the token of an identity was revoked, by a server or in the guard's own store."""
        of_servers = self.auth.revocations if isinstance(self.auth, JWTAuth) else ()
        return any(store.revoked(principal, now) for store in (*of_servers, *self._stores))

    async def _token(self, request: HTTPRequest) -> str | None:
        found = []
        for source in self.sources:
            token = await source.read_async(request) if isinstance(source, Function) else source.read(request)
            if token is not None and may_read_cookies(source) and _may_be_of_a_cookie(source, token, request):
                self._keep_other_sites_out(request)
            found.append(token)
        return the_one(found)

    def _keep_other_sites_out(self, request: HTTPRequest) -> None:
        if request.method in SAFE:
            return
        handshake, origin = request.handshake, request.headers.get("origin")
        host = request.headers.get("host", "")
        if (
            origin is not None
            and self._origins.listed
            and self._origins.allow(origin, host=host, secure=handshake.secure)
        ):
            return
        if self._csrf is None or not self._csrf.shown(request):
            raise CrossSite("the token came in a cookie, and the request was not started by this site: origins=, csrf=")


def _may_be_of_a_cookie(source: Source, token: str, request: HTTPRequest) -> bool:
    """Return True if a token may have come from a cookie.

    It is not known which part of the request a function of the application reads, or what it decodes. But if the token
    also appears in the request outside its cookies, the client that sent the request knows the token.
    """
    if isinstance(source, Cookie):
        return True
    if "cookie" not in request.headers:
        return False
    elsewhere = [value for name, value in request.headers.items() if name != "cookie"]
    texts = (*elsewhere, *request.query.values(), *request.fields.values())
    return not any(isinstance(text, str) and token in text for text in texts)


def guard_of(auth: Any, settings: dict[str, Any]) -> Guard:
    """Return a guard for the arguments of a framework integration.

    Raises:
        ConfigurationError: the arguments are not valid, or `auth` is a `Guard` and there are further settings.
    """
    if not isinstance(auth, Guard):
        return Guard(auth, **settings)
    if settings:
        raise ConfigurationError("a Guard has its settings already: give it alone")
    return auth
