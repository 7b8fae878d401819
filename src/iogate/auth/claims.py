"""The rules for the claims of a token with a valid signature (RFC 7519, section 4.1).

Each check is a separate method, so that `iogate token show` can report them one by one. `principal` runs all of them,
and checks the expiry last: `TokenExpired` means that the token is otherwise valid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from iogate.auth.principal import Principal
from iogate.errors import InvalidToken, TokenExpired

ID_TOKEN = "id_token"  # noqa: S105
"""The value in `token_types` that allows OpenID Connect ID tokens, which have no media type of their own."""

ACCESS_TOKEN_CLAIMS = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")
"""The required claims of access tokens in the profile of RFC 9068, section 2.2."""

_ID_TOKEN_CLAIMS = frozenset(("at_hash", "c_hash"))
"""Claims that only ID tokens have (OpenID Connect Core 1.0, sections 3.1.3.6 and 3.3.2.11)."""

_OTHER_USES = ("Refresh", "Offline", "Logout")
"""Values of Keycloak's claim `typ`, other than `ID` and `Bearer`. The `typ` in the header is JWT for all of them."""

_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

YEAR_10000 = 253_402_300_800
"""Dates must be earlier than this Unix time, so that sums are exact and conversion to a calendar date is possible."""


class ClaimRules(msgspec.Struct, frozen=True):
    """Check claims against what the server expects, and build the `Principal` from them.

    Args:
        issuers: the accepted issuers, or None for any.
        audiences: the names of this server, one of which must be in `aud`; or a mapping from each issuer to the names
            of this server there. None: `aud` is not compared.
        require: claims that the token must have, with a value other than null.
        leeway: seconds by which the clocks of issuer and server may differ.
        max_age: seconds since `iat` for which a token is accepted, or None.
        max_lifetime: seconds by which `exp` may be later than now, and later than `iat` if the token has one.
        id_tokens: if True, ID tokens are accepted.
        bound_tokens: if True, tokens that are bound to a key by `cnf` are accepted as bearer tokens.
    """

    issuers: frozenset[str] | None = None
    audiences: frozenset[str] | Mapping[str, frozenset[str]] | None = None
    require: tuple[str, ...] = ()
    leeway: float = 0
    max_age: float | None = None
    max_lifetime: float = 366 * 86400
    id_tokens: bool = False
    bound_tokens: bool = False

    def principal(
        self, claims: dict[str, Any], now: float, key_id: str | None = None, thumbprint: str | None = None
    ) -> Principal:
        """Check all claims, and return their identity.

        Args:
            claims: the decoded claims of a token with a valid signature.
            now: Unix time in seconds.
            key_id: the `kid` in the header of the token.
            thumbprint: the thumbprint (RFC 7638) of the key that signed the token.

        Raises:
            TokenExpired: the token has expired but is otherwise valid.
            InvalidToken: the token is invalid for any other reason.
        """
        self.check_required(claims)
        self.check_use(claims)
        self.check_binding(claims)
        subject = self.check_subject(claims)
        issuer = self.check_issuer(claims)
        audience = self.check_audience(claims)
        issued_at = self.check_start(claims, now)
        expires_at = self.check_lifetime(claims, now)
        token_id = _text(claims, "jti")
        session_id = _text(claims, "sid")
        scopes = _scopes(claims)
        self.check_expiry(expires_at, now)
        return Principal(
            subject,
            issuer,
            audience,
            scopes,
            token_id,
            session_id,
            issued_at,
            expires_at,
            MappingProxyType(claims),
            key_id,
            thumbprint,
        )

    def end(self, principal: Principal) -> float | None:
        """Return the Unix time in seconds at which an identity ends, or None.

        It is the expiry or the maximum age of the token, whichever is earlier, plus `leeway`.
        """
        ends = [] if principal.expires_at is None else [principal.expires_at]
        if self.max_age is not None and principal.issued_at is not None:
            ends.append(principal.issued_at + self.max_age)
        return min(ends) + self.leeway if ends else None

    def accepted_until(self, issued_by: float) -> float:
        """Return the Unix time after which no token that was issued until a given time is accepted.

        It is infinity if there is no such time. Only `iat` says when a token was issued. A token without `iat` whose
        `exp` is too far away now may be accepted at any later time, so the result is finite only if `iat` and `exp` are
        required or `max_age` is set, which requires `iat`.

        Args:
            issued_by: the latest `iat`, Unix time in seconds.
        """
        lives = []
        if self.max_age is not None:
            lives.append(self.max_age)
        if "exp" in self.require and ("iat" in self.require or self.max_age is not None):
            lives.append(self.max_lifetime)
        return issued_by + min(lives, default=math.inf) + self.leeway

    def check_required(self, claims: dict[str, Any]) -> None:
        """Raise `InvalidToken` if a required claim is missing."""
        for name in self.require:
            if claims.get(name) is None:
                raise InvalidToken(f"the claim {name!r} is required")

    def check_use(self, claims: dict[str, Any]) -> None:
        """Raise `InvalidToken` if the token is not an access token (RFC 8725, section 3.12)."""
        use = claims.get("typ")
        if use in _OTHER_USES:
            raise InvalidToken("the claim 'typ' names another use")
        if not self.id_tokens and (use == "ID" or not _ID_TOKEN_CLAIMS.isdisjoint(claims)):
            raise InvalidToken("an ID token is no access token")
        events = claims.get("events")
        if isinstance(events, dict) and _LOGOUT_EVENT in events:
            raise InvalidToken("a logout token is no access token")

    def check_binding(self, claims: dict[str, Any]) -> None:
        """Raise `InvalidToken` if the token is bound to a key (RFC 7800, 8705, 9449), whatever its `cnf` contains.

        The issuer of such a token requires a proof that the client has the key. iogate does not check such proofs.
        """
        if not self.bound_tokens and "cnf" in claims:
            raise InvalidToken("the token is bound to a key by 'cnf', and accept_bound_tokens=True is not set")

    def check_subject(self, claims: dict[str, Any]) -> str:
        """Return the subject; empty if the token has none."""
        if "sub" not in claims:
            return ""
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject or "\0" in subject:
            raise InvalidToken("sub is not a string with something in it")
        return subject

    def check_issuer(self, claims: dict[str, Any]) -> str | None:
        """Return the issuer, or raise `InvalidToken` if it is not accepted."""
        issuer = _text(claims, "iss")
        if self.issuers is not None and issuer not in self.issuers:
            raise InvalidToken("iss is not an accepted issuer")
        return issuer

    def check_audience(self, claims: dict[str, Any]) -> tuple[str, ...]:
        """Return the audience, or raise `InvalidToken` if it does not name this server (RFC 7519, section 4.1.3)."""
        value = claims.get("aud", [])
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidToken("aud is neither a string nor a list of strings")
        audience = tuple(names)
        expected = self.audiences
        if isinstance(expected, Mapping):
            # The name of this server at one issuer may be the name of another server at another issuer.
            expected = expected.get(_text(claims, "iss") or "", frozenset())
        if expected is not None and expected.isdisjoint(audience):
            raise InvalidToken("aud does not name this server")
        return audience

    def check_start(self, claims: dict[str, Any], now: float) -> float | None:
        """Return `iat`, or raise `InvalidToken` if `nbf` or `iat` is in the future, or the token is too old."""
        not_before = _date(claims, "nbf")
        if not_before is not None and not_before > now + self.leeway:
            raise InvalidToken("nbf is in the future")
        issued_at = _date(claims, "iat")
        if issued_at is not None and issued_at > now + self.leeway:
            raise InvalidToken("iat is in the future")
        if self.max_age is not None and (issued_at is None or now - issued_at > self.max_age + self.leeway):
            raise InvalidToken("the token is older than max_age, or has no iat")
        return issued_at

    def check_lifetime(self, claims: dict[str, Any], now: float) -> float | None:
        """Return `exp`, or raise `InvalidToken` if it is later than `max_lifetime` allows."""
        expires_at = _date(claims, "exp")
        if expires_at is None:
            return None
        if expires_at - now > self.max_lifetime:
            raise InvalidToken("exp is farther away than max_lifetime")
        # Without this, a token that lives longer would be rejected at first, and accepted near the end of its life.
        issued_at = _date(claims, "iat")
        if issued_at is not None and expires_at - issued_at > self.max_lifetime:
            raise InvalidToken("exp is farther from iat than max_lifetime")
        return expires_at

    def check_expiry(self, expires_at: float | None, now: float) -> None:
        """Raise `TokenExpired` at and after the expiry plus `leeway` (RFC 7519, section 4.1.4)."""
        if expires_at is not None and expires_at + self.leeway <= now:
            raise TokenExpired("exp has passed")


def _date(claims: dict[str, Any], name: str) -> float | None:
    """Return a NumericDate (RFC 7519, section 2): a number of seconds since 1970, not a string or a boolean."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not 0 <= value < YEAR_10000:
        raise InvalidToken(f"{name} is not a date in seconds")
    return float(value)


def _text(claims: dict[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidToken(f"{name} is not a string")
    return value


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """Return the scopes of a token: the union of `scope` (RFC 8693, section 4.2), `scp` and `permissions`.

    Each claim may be a list or a string with spaces. Values of other types are ignored, which only removes permissions.
    """
    found: set[str] = set()
    for name in ("scope", "scp", "permissions"):
        value = claims.get(name)
        if isinstance(value, str):
            found.update(value.split(" "))
        elif isinstance(value, list):
            found.update(item for item in value if isinstance(item, str))
    found.discard("")
    return frozenset(found)
