"""The gatekeeper for JSON Web Tokens: one call that checks all of a token, or raises."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Container, Mapping
from typing import Any, TypeVar

from iogate.auth import jws
from iogate.auth.claims import ID_TOKEN, ClaimRules
from iogate.auth.interface import UserLoader
from iogate.auth.keys import from_public_key, from_secret
from iogate.auth.principal import Principal
from iogate.auth.sources import AuthPayload, BearerHeader, Cookie, CredentialRequest, Source
from iogate.clock import SYSTEM, Clock
from iogate.errors import ConfigurationError, CredentialsBadFormat, InvalidToken, TokenExpired

_Loader = TypeVar("_Loader", bound=UserLoader)

_MAX_LEEWAY = 300
_LARGEST_TOKEN = 65536


class JWTAuth:
    """Verify JSON Web Tokens (RFC 7519) as RFC 8725 recommends, with one fixed key.

    Exactly one of `secret` and `public_key` is given. All that can be wrong with the arguments is refused here, with a
    message that says what to write instead; a server that starts is one that is put together soundly.

    Args:
        secret: the shared secret of the HS algorithms, at least as many bytes as the hash has (32, 48, 64).
        public_key: the issuer's public key: PEM, or a JWK as a mapping or as JSON text.
        algorithms: the accepted algorithms, by exact name; all of the family of the key. Never taken from the token.
        issuer: the accepted `iss`, one or several. None: any, or none.
        audience: the names of this server, one or several; `aud` must have one of them. None: `aud` is not compared,
            so that a token issued for another service is accepted too. Set it where the issuer serves several.
        require: the claims a token must have. Without "exp" in it a token may be valid for ever; without "sub"
            `Principal.subject` may be empty.
        leeway: seconds by which the clocks of issuer and server may differ, at most 300.
        max_age: seconds since `iat` for which a token is accepted; `iat` is then required. A token older than that
            is an invalid one, not an expired one: the person is to sign in again.
        max_lifetime: seconds from now within which `exp` must lie.
        token_types: the accepted `typ` of the header; a token without `typ` is accepted. ID tokens (recognised by
            `at_hash`, `c_hash` or Keycloak's `typ` claim) are refused unless "id_token" is in it.
        max_token_bytes: the size above which a token is not even looked at.
        sources: where a client may put its token. All of them are read; two tokens are refused.
        authenticate_within: seconds from the opening of a connection in which a client that gave no token may send
            the event `authenticate`; it waits outside until then. None: a token has to come with CONNECT.
        guests: let in who gives no token at all, as a guest. A bad token is refused all the same.
        refresh_before: seconds before the end of its token at which a client is sent `token_expiring`, spread by
            chance over half of them; never before half of the token's remaining life is over.
        expiry_grace: seconds that a socket is left after its token has expired.
        clock: the clock that tokens are judged by.

    Raises:
        ConfigurationError: an argument, or their combination, is not sound.
    """

    __slots__ = (
        "_grace",
        "_max_bytes",
        "_rules",
        "_types",
        "_verifiers",
        "authenticate_within",
        "clock",
        "guests",
        "leeway",
        "max_lifetime",
        "refresh_before",
        "sources",
        "user_loader",
    )

    sources: tuple[Source, ...]
    guests: bool
    user_loader: UserLoader | None
    clock: Clock

    def __init__(
        self,
        *,
        secret: str | bytes | None = None,
        public_key: str | bytes | Mapping[str, Any] | None = None,
        algorithms: Collection[str] = (),
        issuer: str | Collection[str] | None = None,
        audience: str | Collection[str] | None = None,
        require: Collection[str] = ("exp", "sub"),
        leeway: float = 0,
        max_age: float | None = None,
        max_lifetime: float = 366 * 86400,
        token_types: Collection[str] = ("JWT", "at+jwt"),
        max_token_bytes: int = 8192,
        sources: Collection[Source] = (AuthPayload("token"), BearerHeader()),
        authenticate_within: float | None = None,
        guests: bool = False,
        refresh_before: float = 60,
        expiry_grace: float = 0,
        clock: Clock = SYSTEM,
    ) -> None:
        if secret is not None and public_key is None:
            self._verifiers = from_secret(secret, algorithms)
        elif public_key is not None and secret is None:
            self._verifiers = from_public_key(public_key, algorithms)
        else:
            raise ConfigurationError(
                "give exactly one key: secret= for HS256, HS384, HS512, or public_key= for the others"
                " (is the environment variable it comes from set?)"
            )
        types = _names("token_types", token_types, '("JWT", "at+jwt")')
        self._types = frozenset(jws.media_type(name) for name in types)
        self._rules = ClaimRules(
            issuers=None if issuer is None else frozenset(_one_or_more("issuer", issuer)),
            audiences=None if audience is None else frozenset(_one_or_more("audience", audience)),
            require=tuple(_names("require", require, '("exp", "sub")', empty=True)),
            leeway=_seconds("leeway", leeway, 0, _MAX_LEEWAY),
            max_age=None if max_age is None else _seconds("max_age", max_age, 1),
            max_lifetime=_seconds("max_lifetime", max_lifetime, 1),
            id_tokens=ID_TOKEN in types,
        )
        if type(max_token_bytes) is not int or not 256 <= max_token_bytes <= _LARGEST_TOKEN:
            raise ConfigurationError(f"max_token_bytes is a number of bytes from 256 to {_LARGEST_TOKEN}")
        if not isinstance(guests, bool):
            raise ConfigurationError("guests is True or False")
        self._max_bytes = max_token_bytes
        self.sources = _sources(sources)
        self.guests = guests
        self.authenticate_within = (
            None if authenticate_within is None else _seconds("authenticate_within", authenticate_within, 0.01, 3600)
        )
        self.refresh_before = _seconds("refresh_before", refresh_before, 0)
        self.max_lifetime = self._rules.max_lifetime
        self.leeway = self._rules.leeway
        self._grace = _seconds("expiry_grace", expiry_grace, 0, 3600)
        self.clock = clock
        self.user_loader = None

    def __repr__(self) -> str:
        return f"JWTAuth(algorithms={sorted(self._verifiers)}, sources={self.sources}, guests={self.guests})"

    @property
    def uses_cookies(self) -> bool:
        """Whether one of the sources is a cookie: the server then insists on a list of allowed origins."""
        return any(isinstance(source, Cookie) for source in self.sources)

    def credential(self, request: CredentialRequest) -> str | None:
        """Return the one token that a request carries, or None if it carries none.

        Every source is read: which of two tokens counts must never be a guess, not even when they are the same.

        Raises:
            CredentialsBadScheme: a credential of another scheme than Bearer was given.
            CredentialsBadFormat: a credential is not a string or is empty, or there are two.
        """
        found = [token for source in self.sources if (token := source.read(request)) is not None]
        if len(found) > 1:
            raise CredentialsBadFormat("there are tokens in two places of one request")
        return found[0] if found else None

    def verify(self, token: str) -> Principal:
        """Return the identity that `token` proves: its signature and all its claims are checked, always both.

        Raises:
            CredentialsBadFormat: it is not a string, is empty, or is larger than `max_token_bytes`.
            TokenExpired: it has expired, and nothing else is wrong with it.
            InvalidToken: anything else. No other exception leaves this method; one that should not have happened
                is the `__cause__`.
        """
        try:
            return self._verify(token)
        except (InvalidToken, CredentialsBadFormat):
            raise
        except Exception as error:
            raise InvalidToken("checking the token failed unexpectedly") from error

    def end(self, principal: Principal) -> float | None:
        """Return when a socket with this identity is to be ended, Unix time in seconds; None: never."""
        end = self._rules.end(principal)
        return None if end is None else end + self._grace

    def check_expiry(self, principal: Principal) -> None:
        """Look once more at the time, for an identity that was verified a while ago.

        Raises:
            TokenExpired: its token has expired meanwhile.
        """
        end = self._rules.end(principal)
        if end is not None and end <= self.clock.wall():
            raise TokenExpired("the token expired while the connection was being decided on")

    def load_user(self, loader: _Loader) -> _Loader:
        """Register the function that turns the claims of a verified token into the application's user object.

        It takes the claims, read-only, and may be `async def`. If it returns None or raises, the connection is refused.

        Raises:
            ConfigurationError: there is one already.
        """
        if self.user_loader is not None:
            raise ConfigurationError("load_user has a function already: one loads the user, so do all of it there")
        self.user_loader = loader
        return loader

    async def user_for(self, principal: Principal) -> object:
        """Return the application's user object for `principal`, or None if there is no loader.

        Raises:
            InvalidToken: the loader returned None. What it raises itself passes through.
        """
        if self.user_loader is None:
            return None
        user = self.user_loader(principal.claims)
        if inspect.isawaitable(user):
            user = await user
        if user is None:
            raise InvalidToken("load_user returned None")
        return user

    def signed(self, token: object, types: Container[str] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the header and the claims of a token whose signature is good. The claims are NOT checked.

        It is for tokens that are no access tokens, such as a logout token; `verify` is for all others.

        Args:
            token: what was given as one.
            types: the accepted `typ` of the header, in lower case; None: those of access tokens.

        Raises:
            CredentialsBadFormat: it is not a string, is empty, or is larger than `max_token_bytes`.
            InvalidToken: its form, its header or its signature is wrong.
        """
        # The order matters: what is cheap and bounded comes first, cryptography only for what is well formed, and no
        # claim is read before the signature is good.
        if not isinstance(token, str) or not token:
            raise CredentialsBadFormat("the token is not a string with something in it")
        if len(token) > self._max_bytes:
            raise CredentialsBadFormat("the token is larger than max_token_bytes")
        header, payload, signing_input, signature = jws.split(token)
        algorithm = jws.check_algorithm(header, self._verifiers)
        jws.check_parameters(header)
        jws.check_type(header, self._types if types is None else types)
        if not self._verifiers[algorithm](signing_input, signature):
            raise InvalidToken("the signature is wrong")
        return header, jws.members(payload, "claims")

    def _verify(self, token: object) -> Principal:
        header, claims = self.signed(token)
        return self._rules.principal(claims, self.clock.wall(), header.get("kid"))


def _names(argument: str, value: object, example: str, *, empty: bool = False) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Collection):
        raise ConfigurationError(f"{argument} is a list of names: write {argument}={example}")
    names = list(value)
    if not (names or empty) or not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(f"{argument} has no name, or one that is no text: write {argument}={example}")
    return names


def _one_or_more(argument: str, value: str | Collection[str]) -> list[str]:
    return _names(argument, [value] if isinstance(value, str) else value, f'"..." or {argument}=["...", "..."]')


def _seconds(argument: str, value: Any, least: float, most: float = float("inf")) -> float:
    if type(value) not in (int, float) or not least <= value <= most or value == float("inf"):
        limit = "" if most == float("inf") else f" to {most}"
        raise ConfigurationError(f"{argument} is a number of seconds from {least}{limit}")
    return float(value)


def _sources(value: object) -> tuple[Source, ...]:
    if isinstance(value, str) or not isinstance(value, Collection) or not value:
        raise ConfigurationError('sources is a list of ways to give a token: write sources=[AuthPayload("token")]')
    sources = tuple(value)
    for index, source in enumerate(sources):
        if isinstance(source, type) or not callable(getattr(source, "read", None)):
            raise ConfigurationError('sources has what is no source: write AuthPayload("token") or BearerHeader()')
        if source in sources[:index]:
            raise ConfigurationError(f"sources has {source!r} twice: its token would always count as two")
    return sources
