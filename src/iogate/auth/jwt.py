"""The authenticator for JSON Web Tokens: one call checks the whole token, and raises if anything is wrong."""

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

    Exactly one of `secret`, `public_key`, `jwks`, `jwks_url`, `discover` and `keys` is required: it is the source of
    the keys. All arguments are checked here, and the error messages say what to write instead.

    Args:
        secret: the shared secret of the HS algorithms: at least as many bytes as the output of the hash (32, 48, 64).
        public_key: the issuer's public key: PEM, or a JWK as a mapping or as JSON text.
        jwks: the issuer's public keys, a JWK set as a mapping or as JSON text.
        jwks_url: the https URL of the issuer's JWK set, which is refreshed regularly. It requires `issuer`. It is the
            same as `keys=KeySetURL(jwks_url)`, which has more settings.
        discover: the issuer, an https URL that publishes its configuration (OpenID Connect Discovery 1.0). It is the
            same as `keys=Discovery(discover)`, which has more settings.
        keys: a `KeySetFile`, `KeySetURL` or `Discovery`; a mapping from issuers to these or to JWK sets, in which the
            `iss` of a token selects the keys; or a function that takes the header and the claims of a token, both NOT
            verified, and returns its key (a secret, a PEM or a JWK) or None. The function may be `async def`.
        algorithms: the accepted algorithms, by exact name. They are never taken from the token. With `secret` or
            `public_key`, the key must fit all of them; with key sets, none may be an HS algorithm.
        issuer: the accepted `iss`, one or several. None: the issuers of the keys if they are known; otherwise `iss` is
            not checked and may be missing.
        audience: the names of this server, one or several; `aud` must contain one of them. None: `aud` is not checked,
            so a token that was issued for another service is accepted too. Set it if the issuer serves several
            services. With several issuers, it may be a mapping from each issuer to the names of this server there.
        profile: "access-token" to accept only JWT access tokens that conform to RFC 9068: `typ` is required and must be
            `at+jwt`, and all claims of section 2.2 are required. It requires `issuer` and `audience`.
        require: the claims that a token must have. Without "exp" in it, a token may be valid for ever; without "sub",
            `Principal.subject` may be empty.
        leeway: seconds by which the clocks of issuer and server may differ, at most 300.
        max_age: seconds since `iat` for which a token is accepted; `iat` is then required. An older token is invalid,
            not expired, so the client is told to sign in again.
        max_lifetime: seconds by which `exp` may be later than now, and later than `iat` if the token has one. With
            "exp" and "iat" in `require`, or with `max_age`, revocations are remembered for a limited time; otherwise
            for ever.
        token_types: the accepted values of `typ` in the header; a token without `typ` is accepted. ID tokens
            (recognised by `at_hash`, `c_hash` or Keycloak's `typ` claim) are rejected unless "id_token" is one of them.
        accept_bound_tokens: accept tokens that are bound to a key (`cnf`; RFC 7800, DPoP, mTLS) like any other token. A
            copy of such a token then works too: iogate does not check a proof of possession.
        max_token_bytes: size in bytes above which a token is rejected without being parsed, from 256 to 65536.
        sources: where a client may put its token. All of them are read; a request with two tokens is rejected.
        authenticate_within: seconds from the opening of a connection in which a client without a token may send the
            event `authenticate`; it is not in any namespace until then. None: CONNECT must contain the token.
        guests: admit clients without a token, as guests. A bad token is still rejected.
        refresh_before: seconds before the end of a socket at which its client is sent `token_expiring`. The exact time
            is random, between that and half of it, and never before half of the remaining time is over.
        expiry_grace: seconds after the expiry of a token (plus `leeway`) until its sockets are disconnected, at most
            3600.
        clock: the clock that tokens are checked against.

    Raises:
        ConfigurationError: an argument, or a combination of arguments, is not valid.
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
    """The requirements for tokens, parsed from the arguments. Read-only."""
    revocations: list[Revoked]
    """The stores of revoked tokens. Every server adds its own, so that HTTP endpoints reject those tokens too."""
    keys: Keys
    """The source of the keys. Read-only."""
    watchers: set[Changed]
    """Functions that a server calls after a revocation or a removal of keys. HTTP guards then check open streams."""

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
        # The only import of a higher layer, for `JWTAuth(jwks_url=...)`. It is in this function to avoid a cycle.
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
        # Servers only call `verify_async`, so a check that a subclass adds to `verify` alone would never run.
        if "verify" in vars(cls) and "verify_async" not in vars(cls):
            raise ConfigurationError(f"{cls.__name__} overrides verify; servers ask verify_async: override that too")

    def __repr__(self) -> str:
        algorithms = sorted(self.policy.algorithms)
        return f"JWTAuth({algorithms=}, keys={self.keys!r}, sources={self.sources}, guests={self.guests})"

    @property
    def issuers(self) -> frozenset[str] | None:
        """The accepted issuers; None if neither `issuer` nor the keys name any, so issuers are not distinguished."""
        return self.policy.rules.issuers

    @property
    def max_token_bytes(self) -> int:
        """The size in bytes above which a token is rejected without being parsed."""
        return self.policy.max_token_bytes

    @property
    def uses_cookies(self) -> bool:
        """True if one of the sources is a cookie. The server then requires a list of allowed origins."""
        return any(isinstance(source, Cookie) for source in self.sources)

    def credential(self, request: CredentialRequest) -> str | None:
        """Return the token of a request, or None if it has none.

        Every source is read, so that two tokens are always rejected, even if they are equal. Choosing one of them would
        be a guess.

        Raises:
            CredentialsBadScheme: a credential has a scheme other than Bearer.
            CredentialsBadFormat: a credential is not a string or is empty, or there are two.
        """
        return the_one([source.read(request) for source in self.sources])

    def verify(self, token: str) -> Principal:
        """Verify the signature and all claims of `token`, and return its identity.

        This uses only the keys that are already loaded. Servers call `verify_async`, which can also fetch a key.

        Raises:
            CredentialsBadFormat: the token is not a string, is empty, or is larger than `max_token_bytes`.
            TokenExpired: the token has expired but is otherwise valid.
            AuthUnavailable: the key of the token is not loaded.
            InvalidToken: the token is invalid for any other reason. This method raises no other exceptions; an
                unexpected one becomes the `__cause__`.
        """
        with _failing_closed():
            compact, algorithm = self.policy.open(token)
            key = self.keys.find(compact, algorithm)
            if key is None:
                raise AuthUnavailable("the key is not at hand: await verify_async, which goes for it")
            return self._principal(compact, algorithm, key)

    async def verify_async(self, token: str) -> Principal:
        """Verify `token` like `verify`, and fetch its key if it is not loaded.

        Raises:
            CredentialsBadFormat: the token is not a string, is empty, or is larger than `max_token_bytes`.
            TokenExpired: the token has expired but is otherwise valid.
            AuthUnavailable: the key of the token cannot be fetched, so it is not known whether the token is valid.
            InvalidToken: the token is invalid for any other reason. This method raises no other exceptions, except for
                a cancellation.
        """
        with _failing_closed():
            compact, algorithm = self.policy.open(token)
            key = self.keys.find(compact, algorithm)
            if key is None:
                self._check_unproven(compact)
                key = await self.keys.fetch(compact, algorithm)
            return self._principal(compact, algorithm, key)

    def end(self, principal: Principal) -> float | None:
        """Return the Unix time in seconds at which a socket with this identity must be disconnected, or None."""
        end = self.policy.rules.end(principal)
        return None if end is None else end + self.policy.expiry_grace

    def revocation_end(self, now: float, issued_before: float | None, key_id: str | None) -> float:
        """Return the Unix time in seconds until which a revocation must be remembered; infinity means for ever.

        See `Policy.revocation_end`. A subclass that accepts more tokens than this class must return a later time.
        """
        return self.policy.revocation_end(now, issued_before, key_id)

    def recheck(self, principal: Principal) -> None:
        """Check again whether an identity has expired and whether its key is still valid.

        Raises:
            TokenExpired: its token has expired since it was verified.
            InvalidToken: the key that signed it was removed, and the key set has `revoke_removed=True`.
        """
        end = self.policy.rules.end(principal)
        if end is not None and end <= self.clock.wall():
            raise TokenExpired("the token expired while the connection was being decided on")
        if not self.keys.holds(principal):
            raise InvalidToken("the key that signed the token was removed")

    def start(self, changed: Changed) -> None:
        """Start to refresh the keys on the running event loop. A server calls this when it starts.

        Args:
            changed: called when a key was removed. Call `recheck` to find the identities that are no longer valid.
        """
        self.keys.start(changed)

    async def ready(self) -> None:
        """Wait until keys are loaded. Return immediately for keys that are not read over the network.

        Raises:
            AuthUnavailable: no keys are loaded after `start_within` seconds. If that is None, this does not wait.
        """
        await self.keys.ready()

    async def stop(self, changed: Changed) -> None:
        """Stop what `start` started. A server calls this when it stops."""
        await self.keys.stop(changed)

    def load_user(self, loader: _Loader) -> _Loader:
        """Register the function that turns the claims of a verified token into the application's user object.

        The function takes the claims, which are read-only. It may be `async def`. If it returns None or raises, the
        connection is rejected.

        Raises:
            ConfigurationError: a function is already registered.
        """
        if self.user_loader is not None:
            raise ConfigurationError("load_user has a function already: one loads the user, so do all of it there")
        self.user_loader = loader
        return loader

    async def user_for(self, principal: Principal) -> object:
        """Return the application's user object for `principal`, or None if there is no loader.

        Raises:
            InvalidToken: the loader returned None. Exceptions of the loader are not caught.
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
        """Verify only the signature of a token, and return its claims, which are NOT checked.

        This is for tokens that are not access tokens, e.g. logout tokens.

        Args:
            token: the token.
            types: the accepted values of `typ` in the header, in lower case.
            fetch: if True, fetch a key that has not been read yet.

        Raises:
            CredentialsBadFormat: the token is not a string, is empty, or is larger than `max_token_bytes`.
            AuthUnavailable: the key cannot be read, or has not been read yet and `fetch` is False.
            InvalidToken: the format, the header or the signature of the token is wrong.
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
        """Reject a token that would be rejected with any key, before its key is fetched.

        Its claims are NOT verified, so they can only cause a rejection. An expired token passes: the signature decides
        whether the client is told to refresh the token or to sign in.
        """
        claims = jws.members(compact.payload, "claims")
        with suppress(TokenExpired):
            self.policy.rules.principal(claims, self.clock.wall())

    def _principal(self, compact: jws.Compact, algorithm: str, key: Key) -> Principal:
        claims = _claims(compact, algorithm, key)
        return self.policy.rules.principal(claims, self.clock.wall(), compact.header.get("kid"), key.thumbprint)


def _claims(compact: jws.Compact, algorithm: str, key: Key) -> dict[str, Any]:
    """Verify the signature, then parse and return the claims."""
    if not key.verifiers[algorithm](compact.signing_input, compact.signature):
        raise InvalidToken("the signature is wrong")
    return jws.members(compact.payload, "claims")


@contextmanager
def _failing_closed() -> Iterator[None]:
    """Turn an unexpected exception into an `InvalidToken`, so that the token is rejected."""
    try:
        yield
    except (InvalidToken, CredentialsBadFormat, AuthUnavailable):
        raise
    except Exception as error:
        raise InvalidToken("checking the token failed unexpectedly") from error
