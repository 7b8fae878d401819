"""The gatekeeper for JSON Web Tokens: one call that checks all of a token, or raises."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from iogate.auth import jws
from iogate.auth.arguments import audiences_of, names, one_or_more, seconds, sources_of, types_of
from iogate.auth.claims import ACCESS_TOKEN_CLAIMS, ID_TOKEN, ClaimRules
from iogate.auth.interface import Changed, Keys, Revoked, UserLoader
from iogate.auth.keyset import Key
from iogate.auth.policy import MAX_TOKEN_BYTES, TOKEN_TYPES, Policy
from iogate.auth.principal import Principal
from iogate.auth.sources import AuthPayload, BearerHeader, Cookie, CredentialRequest, Source, the_one
from iogate.clock import SYSTEM, Clock
from iogate.errors import AuthUnavailable, ConfigurationError, CredentialsBadFormat, InvalidToken, TokenExpired

if TYPE_CHECKING:
    from iogate.keys import KeysArgument

_Loader = TypeVar("_Loader", bound=UserLoader)

_MAX_LEEWAY = 300
_LARGEST_TOKEN = 65536


class JWTAuth:
    """Verify JSON Web Tokens (RFC 7519) as RFC 8725 recommends.

    Exactly one of `secret`, `public_key`, `jwks`, `jwks_url`, `discover` and `keys` says where the keys come from. All
    that can be wrong with the arguments is refused here, with a message that says what to write instead; a server that
    starts is one that is put together soundly.

    Args:
        secret: the shared secret of the HS algorithms, at least as many bytes as the hash has (32, 48, 64).
        public_key: the issuer's public key: PEM, or a JWK as a mapping or as JSON text.
        jwks: the issuer's public keys, a JWK set as a mapping or as JSON text.
        jwks_url: the https address of the issuer's JWK set, which is kept fresh. `issuer` is then needed. The same as
            `keys=KeySetURL(jwks_url)`, which has settings.
        discover: the issuer, an https address at which it tells of its keys (OpenID Connect Discovery 1.0). The same
            as `keys=Discovery(discover)`, which has settings.
        keys: a `KeySetFile`, `KeySetURL` or `Discovery`; a mapping from issuers to these, or to JWK sets, where a
            token's `iss` selects; or a function of yours, called with the header and the claims of a token, both NOT
            proven, that returns the key for it (a secret, a PEM or a JWK) or None. It may be `async def`.
        algorithms: the accepted algorithms, by exact name; all of the family of the key. Never taken from the token.
        issuer: the accepted `iss`, one or several. None: those that the keys are known to be of; else any, or none.
        audience: the names of this server, one or several; `aud` must have one of them. None: `aud` is not compared,
            so that a token issued for another service is accepted too. Set it where the issuer serves several. With
            several issuers, a mapping from each to the names that this server has there.
        profile: "access-token" for JWT access tokens after RFC 9068 and nothing else: `typ` must be there and be
            `at+jwt`, with all the claims that section 2.2 asks for. `issuer` and `audience` are then needed.
        require: the claims a token must have. Without "exp" in it a token may be valid for ever; without "sub"
            `Principal.subject` may be empty.
        leeway: seconds by which the clocks of issuer and server may differ, at most 300.
        max_age: seconds since `iat` for which a token is accepted; `iat` is then required. A token older than that
            is an invalid one, not an expired one: the person is to sign in again.
        max_lifetime: seconds by which `exp` may be later than now, and later than `iat` if the token has one. With
            "iat" in `require`, or with `max_age`, it limits how long revocations are remembered; otherwise for ever.
        token_types: the accepted `typ` of the header; a token without `typ` is accepted. ID tokens (recognised by
            `at_hash`, `c_hash` or Keycloak's `typ` claim) are refused unless "id_token" is in it.
        accept_bound_tokens: accept tokens that are bound to a key (`cnf`; RFC 7800, DPoP, mTLS) like any other. A copy
            of such a token then works too: iogate does not check a proof of possession.
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
        "authenticate_within",
        "clock",
        "guests",
        "keys",
        "leeway",
        "max_lifetime",
        "policy",
        "refresh_before",
        "revocations",
        "sources",
        "user_loader",
        "watchers",
    )

    sources: tuple[Source, ...]
    guests: bool
    user_loader: UserLoader | None
    clock: Clock
    policy: Policy
    """What is asked of a token, to be read: the arguments as they were understood."""
    revocations: list[Revoked]
    """Who may have revoked its tokens: every server adds its own, so that HTTP endpoints refuse them too."""
    keys: Keys
    """Where the keys come from, to be read."""
    watchers: set[Changed]
    """Functions that a server calls after a revocation or a removal of keys: HTTP guards then check open streams."""

    def __init__(
        self,
        *,
        secret: str | bytes | None = None,
        public_key: str | bytes | Mapping[str, Any] | None = None,
        jwks: str | bytes | Mapping[str, Any] | None = None,
        jwks_url: str | None = None,
        discover: str | None = None,
        keys: KeysArgument | None = None,
        algorithms: Collection[str] = (),
        issuer: str | Collection[str] | None = None,
        audience: str | Collection[str] | Mapping[str, str | Collection[str]] | None = None,
        profile: Literal["access-token"] | None = None,
        require: Collection[str] = ("exp", "sub"),
        leeway: float = 0,
        max_age: float | None = None,
        max_lifetime: float = 366 * 86400,
        token_types: Collection[str] = TOKEN_TYPES,
        accept_bound_tokens: bool = False,
        max_token_bytes: int = MAX_TOKEN_BYTES,
        sources: Collection[Source] = (AuthPayload("token"), BearerHeader()),
        authenticate_within: float | None = None,
        guests: bool = False,
        refresh_before: float = 60,
        expiry_grace: float = 0,
        clock: Clock = SYSTEM,
    ) -> None:
        # The one import that goes upwards: it is here so that `JWTAuth(jwks_url=...)` can be written.
        from iogate.keys import choose

        issuers = None if issuer is None else one_or_more("issuer", issuer)
        self.keys = choose(
            {
                "secret": secret,
                "public_key": public_key,
                "jwks": jwks,
                "jwks_url": jwks_url,
                "discover": discover,
                "keys": keys,
            },
            algorithms,
            issuers,
        )
        required = tuple(names("require", require, '("exp", "sub")', empty=True))
        known = issuers if issuers is not None else self.keys.issuers
        audiences = audiences_of(audience, known)
        types = types_of(token_types, profile, known, audiences)
        rules = ClaimRules(
            issuers=known,
            audiences=audiences,
            require=required if profile is None else (*ACCESS_TOKEN_CLAIMS, *required),
            leeway=seconds("leeway", leeway, 0, _MAX_LEEWAY),
            max_age=None if max_age is None else seconds("max_age", max_age, 1),
            max_lifetime=seconds("max_lifetime", max_lifetime, 1),
            id_tokens=ID_TOKEN in types,
            bound_tokens=accept_bound_tokens,
        )
        if type(max_token_bytes) is not int or not 256 <= max_token_bytes <= _LARGEST_TOKEN:
            raise ConfigurationError(f"max_token_bytes is a number of bytes from 256 to {_LARGEST_TOKEN}")
        for name, value in (("guests", guests), ("accept_bound_tokens", accept_bound_tokens)):
            if not isinstance(value, bool):
                raise ConfigurationError(f"{name} is True or False")
        self.policy = Policy(
            algorithms=frozenset(algorithms),
            rules=rules,
            types=frozenset(map(jws.media_type, types)),
            type_required=profile is not None,
            max_token_bytes=max_token_bytes,
            expiry_grace=seconds("expiry_grace", expiry_grace, 0, 3600),
        )
        self.sources = sources_of(sources)
        self.guests = guests
        self.authenticate_within = (
            None if authenticate_within is None else seconds("authenticate_within", authenticate_within, 0.01, 3600)
        )
        self.refresh_before = seconds("refresh_before", refresh_before, 0)
        self.max_lifetime = rules.max_lifetime
        self.leeway = rules.leeway
        self.clock = clock
        self.user_loader = None
        self.revocations = []
        self.watchers = set()

    def __init_subclass__(cls) -> None:
        # A check that was added to the one and not to the other would not be made.
        if "verify" in vars(cls) and "verify_async" not in vars(cls):
            raise ConfigurationError(f"{cls.__name__} overrides verify; servers ask verify_async: override that too")

    def __repr__(self) -> str:
        algorithms = sorted(self.policy.algorithms)
        return f"JWTAuth({algorithms=}, keys={self.keys!r}, sources={self.sources}, guests={self.guests})"

    @property
    def issuers(self) -> frozenset[str] | None:
        """The accepted issuers; None if neither `issuer` nor the keys name any, so that they are not told apart."""
        return self.policy.rules.issuers

    @property
    def max_token_bytes(self) -> int:
        """The size in bytes above which a token is rejected unread."""
        return self.policy.max_token_bytes

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
        return the_one([source.read(request) for source in self.sources])

    def verify(self, token: str) -> Principal:
        """Return the identity that `token` proves: its signature and all its claims are checked, always both.

        It uses the keys that are at hand. A server asks `verify_async`, which also goes for a key that is not.

        Raises:
            CredentialsBadFormat: it is not a string, is empty, or is larger than `max_token_bytes`.
            TokenExpired: it has expired, and nothing else is wrong with it.
            AuthUnavailable: the key for it is not at hand.
            InvalidToken: anything else. No other exception leaves this method; one that should not have happened
                is the `__cause__`.
        """
        with _failing_closed():
            compact, algorithm = self.policy.open(token)
            key = self.keys.find(compact, algorithm)
            if key is None:
                raise AuthUnavailable("the key is not at hand: await verify_async, which goes for it")
            return self._principal(compact, algorithm, key)

    async def verify_async(self, token: str) -> Principal:
        """Return the identity that `token` proves, as `verify` does; a key that is not at hand is gone for.

        Raises:
            CredentialsBadFormat: it is not a string, is empty, or is larger than `max_token_bytes`.
            TokenExpired: it has expired, and nothing else is wrong with it.
            AuthUnavailable: the key for it cannot be had: whether the token is good is not known.
            InvalidToken: anything else. No other exception leaves this method, but for a cancellation.
        """
        with _failing_closed():
            compact, algorithm = self.policy.open(token)
            key = self.keys.find(compact, algorithm)
            if key is None:
                self._check_unproven(compact)
                key = await self.keys.fetch(compact, algorithm)
            return self._principal(compact, algorithm, key)

    def end(self, principal: Principal) -> float | None:
        """Return when a socket with this identity is to be ended, Unix time in seconds; None: never."""
        end = self.policy.rules.end(principal)
        return None if end is None else end + self.policy.expiry_grace

    def revocation_end(self, now: float, issued_before: float | None, key_id: str | None) -> float:
        """Return until when a revocation must be remembered, as Unix time in seconds; infinity means for ever.

        See `Policy.revocation_end`. A subclass that accepts more tokens than this class must return a later time.
        """
        return self.policy.revocation_end(now, issued_before, key_id)

    def recheck(self, principal: Principal) -> None:
        """Look once more at the time and at the keys, for an identity that was verified a while ago.

        Raises:
            TokenExpired: its token has expired meanwhile.
            InvalidToken: the key that signed it was removed, and the configuration says that this ends its sockets.
        """
        end = self.policy.rules.end(principal)
        if end is not None and end <= self.clock.wall():
            raise TokenExpired("the token expired while the connection was being decided on")
        if not self.keys.holds(principal):
            raise InvalidToken("the key that signed the token was removed")

    def start(self, changed: Changed) -> None:
        """Begin to keep the keys fresh, on the event loop that runs. A server does it when it starts.

        Args:
            changed: called when a key was removed that ends sockets: `recheck` tells which.
        """
        self.keys.start(changed)

    async def ready(self) -> None:
        """Return when there are keys to verify with; at once, where they do not come from elsewhere.

        Raises:
            AuthUnavailable: there are none after `start_within` seconds.
        """
        await self.keys.ready()

    async def stop(self, changed: Changed) -> None:
        """End what `start` began. A server does it when it ends."""
        await self.keys.stop(changed)

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

    async def signed(self, token: object, types: Container[str], *, fetch: bool = True) -> dict[str, Any]:
        """Return the claims of a token whose signature is good, NOT checked: for tokens of another use.

        Args:
            token: what was given as one.
            types: the accepted `typ` of the header, in lower case.
            fetch: whether to fetch a key that has not been read yet.

        Raises:
            CredentialsBadFormat: it is not a string, is empty, or is larger than `max_token_bytes`.
            AuthUnavailable: the key cannot be read, or has not been read yet and `fetch` is False.
            InvalidToken: its form, its header or its signature is wrong.
        """
        with _failing_closed():
            compact, algorithm = self.policy.open(token, types, required=False)
            key = self.keys.find(compact, algorithm)
            if key is None:
                if not fetch:
                    raise AuthUnavailable("the key has not been read yet")
                key = await self.keys.fetch(compact, algorithm)
            return _claims(compact, algorithm, key)

    def _check_unproven(self, compact: jws.Compact) -> None:
        """Refuse a token that would be rejected with any key, before a key is fetched for it.

        Its claims are NOT verified, so they can only cause a rejection. An expired token passes: the signature decides
        whether its client is told to refresh it or to sign in.
        """
        claims = jws.members(compact.payload, "claims")
        with suppress(TokenExpired):
            self.policy.rules.principal(claims, self.clock.wall())

    def _principal(self, compact: jws.Compact, algorithm: str, key: Key) -> Principal:
        claims = _claims(compact, algorithm, key)
        return self.policy.rules.principal(claims, self.clock.wall(), compact.header.get("kid"), key.thumbprint)


def _claims(compact: jws.Compact, algorithm: str, key: Key) -> dict[str, Any]:
    """Check the signature, and only then read the claims."""
    if not key.verifiers[algorithm](compact.signing_input, compact.signature):
        raise InvalidToken("the signature is wrong")
    return jws.members(compact.payload, "claims")


@contextmanager
def _failing_closed() -> Iterator[None]:
    """Turn what should not have happened into a refusal."""
    try:
        yield
    except (InvalidToken, CredentialsBadFormat, AuthUnavailable):
        raise
    except Exception as error:
        raise InvalidToken("checking the token failed unexpectedly") from error
