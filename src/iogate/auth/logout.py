"""Logout tokens: the rules of OpenID Connect Back-Channel Logout 1.0, for tokens with a valid signature.

The same issuer signs logout tokens and access tokens, so neither must be accepted in place of the other (section 4.1 of
the specification). `JWTAuth.verify` rejects logout tokens, and `LogoutRules` rejects all other tokens.
"""

from __future__ import annotations

import hashlib
import heapq
from typing import Any

import msgspec

from iogate.auth.claims import ClaimRules
from iogate.errors import ConfigurationError, InvalidToken

LOGOUT_TYPES = frozenset(("logout+jwt", "jwt"))
"""The accepted values of `typ` in the header of a logout token. Older issuers use JWT instead of `logout+jwt`."""

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

MAX_AGE = 600
"""Seconds since `iat` for which a logout token is accepted. The specification recommends two minutes for `exp`."""

_MAX_LEEWAY = 300
_MAX_LIFETIME = 86400


class Logout(msgspec.Struct, frozen=True):
    """The logout that a valid logout token requests. It has a subject, a session id, or both."""

    issuer: str
    """The issuer: the `iss` claim."""
    subject: str | None
    """The user whose sessions end: the `sub` claim. Without `session_id`, all sessions of the user end."""
    session_id: str | None
    """The session that ends: the `sid` claim."""
    token_id: str
    """The id of the token: the `jti` claim. `Replays` uses it to reject a token that was used before."""
    counts_until: float
    """Unix time in seconds after which the token is no longer accepted."""


class LogoutRules:
    """Check the claims of logout tokens (section 2.6, steps 3 to 7).

    Args:
        issuer: the one accepted `iss`.
        audience: the client id of this server at the issuer; `aud` must contain it.
        leeway: seconds by which the clocks of issuer and server may differ, at most 300.
        require_exp: if True, `exp` is required, as in the specification since its errata of 2023. The lifetime of a
            token without `exp` depends only on `iat`.

    Raises:
        ConfigurationError: an argument is not valid.
    """

    __slots__ = ("_issuer", "_rules")

    def __init__(self, issuer: str, audience: str, *, leeway: float = 30, require_exp: bool = True) -> None:
        names: dict[str, Any] = {"issuer": issuer, "audience": audience}
        for name, value in names.items():
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"{name} is one text, as the logout tokens have it: write {name}=")
        if type(leeway) not in (int, float) or not 0 <= leeway <= _MAX_LEEWAY:
            raise ConfigurationError(f"leeway is a number of seconds from 0 to {_MAX_LEEWAY}")
        self._issuer = issuer
        self._rules = ClaimRules(
            issuers=frozenset((issuer,)),
            audiences=frozenset((audience,)),
            require=("iss", "aud", "iat", *(("exp",) if require_exp else ()), "jti", "events"),
            leeway=leeway,
            max_age=MAX_AGE,
            max_lifetime=_MAX_LIFETIME,
        )

    def check(self, claims: dict[str, Any], now: float) -> Logout:
        """Check the claims of a logout token, and return the logout that they request.

        Args:
            claims: the claims of a token with a valid signature.
            now: Unix time in seconds.

        Raises:
            TokenExpired: the token has expired.
            InvalidToken: the claims are not those of a valid logout token for this server.
        """
        rules = self._rules
        rules.check_required(claims)
        rules.check_issuer(claims)
        rules.check_audience(claims)
        rules.check_start(claims, now)
        expires_at = rules.check_lifetime(claims, now)
        rules.check_expiry(expires_at, now)
        events = claims["events"]
        if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
            raise InvalidToken("events does not have the event of a logout, with an object")
        if "nonce" in claims:
            # `nonce` is forbidden, so that a logout token cannot be used as an ID token (section 2.4).
            raise InvalidToken("a logout token has no nonce")
        subject, session_id = (_name(claims, name) if name in claims else None for name in ("sub", "sid"))
        if subject is None and session_id is None:
            raise InvalidToken("neither sub nor sid says who is logged out")
        ends = [claims["iat"] + MAX_AGE, *([] if expires_at is None else [expires_at])]
        return Logout(self._issuer, subject, session_id, _name(claims, "jti"), min(ends) + rules.leeway)


class Replays:
    """A cache of used logout tokens, which remembers each one until it expires.

    When the cache is full, it forgets the token that expires first. It does not reject new tokens, because a logout
    that is carried out twice does less harm than one that is not carried out.

    Args:
        size: maximum number of tokens; one takes about 250 bytes.
    """

    __slots__ = ("_ends", "_known", "_size")

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._known: set[bytes] = set()
        self._ends: list[tuple[float, bytes]] = []  # A heap: the token that expires first is on top.

    def __len__(self) -> int:
        return len(self._ends)

    def check(self, logout: Logout) -> None:
        """Check that a logout token is not replayed.

        Raises:
            InvalidToken: the token was used before.
        """
        if _digest(logout.token_id) in self._known:
            raise InvalidToken("the logout token was used before")

    def add(self, logout: Logout, now: float) -> None:
        """Remember a logout that was carried out at `now`, Unix time in seconds."""
        while self._ends and (self._ends[0][0] < now or len(self._ends) >= self._size):
            self._known.discard(heapq.heappop(self._ends)[1])
        digest = _digest(logout.token_id)
        if digest not in self._known:
            self._known.add(digest)
            heapq.heappush(self._ends, (logout.counts_until, digest))


def _digest(token_id: str) -> bytes:
    # Store a hash, because the `jti` may be as long as a token.
    return hashlib.sha256(token_id.encode()).digest()


def _name(claims: dict[str, Any], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not value:
        raise InvalidToken(f"{name} is not a string with something in it")
    return value
