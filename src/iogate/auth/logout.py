"""Logout tokens: the rules of OpenID Connect Back-Channel Logout 1.0, for a token whose signature is good.

A logout token is to an access token what a notice of termination is to a key: the same issuer signs both, and neither
may pass for the other (section 4.1 there). `JWTAuth.verify` refuses logout tokens, and this refuses everything else.
"""

from __future__ import annotations

import hashlib
import heapq
from typing import Any

import msgspec

from iogate.auth.claims import ClaimRules
from iogate.errors import ConfigurationError, InvalidToken

LOGOUT_TYPES = frozenset(("logout+jwt", "jwt"))
"""The `typ` that a logout token may have in its header, if it has one: issuers older than the first still say JWT."""

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

MAX_AGE = 600
"""Seconds since `iat` for which a logout token counts. The specification wishes for two minutes in `exp`."""

_MAX_LEEWAY = 300
_MAX_LIFETIME = 86400


class Logout(msgspec.Struct, frozen=True):
    """What a good logout token asks for."""

    issuer: str
    """Who says so: the `iss` claim."""
    subject: str | None
    """Whose sessions end: the `sub` claim. There without a session: all of them."""
    session_id: str | None
    """The one session that ends: the `sid` claim. One of the two is there."""
    token_id: str
    """The `jti` claim: the same request is not carried out twice."""
    counts_until: float
    """Unix time in seconds after which this token is refused anyway."""


class LogoutRules:
    """Check the claims of logout tokens (section 2.6, steps 3 to 7).

    Args:
        issuer: the one accepted `iss`.
        audience: the client id that this server has at the issuer; `aud` must have it.
        leeway: seconds by which the clocks of issuer and server may differ, at most 300.
        require_exp: whether `exp` must be there, as the specification says since its errata of 2023. Without, `iat`
            alone says how long a token counts.

    Raises:
        ConfigurationError: an argument is not sound.
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
        """Return what the claims of a logout token ask for.

        Args:
            claims: of a token whose signature is good.
            now: Unix time in seconds.

        Raises:
            InvalidToken: they are not those of a logout token that counts here and now.
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
            # What has one could have been made to pass for an ID token (section 2.4).
            raise InvalidToken("a logout token has no nonce")
        subject, session_id = (_name(claims, name) if name in claims else None for name in ("sub", "sid"))
        if subject is None and session_id is None:
            raise InvalidToken("neither sub nor sid says who is logged out")
        ends = [claims["iat"] + MAX_AGE, *([] if expires_at is None else [expires_at])]
        return Logout(self._issuer, subject, session_id, _name(claims, "jti"), min(ends) + rules.leeway)


class Replays:
    """Remember which logout tokens were carried out, for as long as they would be accepted again.

    When it is full, the one is forgotten that would be refused first: a logout that is carried out twice does less
    harm than one that is not carried out.

    Args:
        size: how many are remembered; one takes about 250 bytes.
    """

    __slots__ = ("_ends", "_known", "_size")

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._known: set[bytes] = set()
        self._ends: list[tuple[float, bytes]] = []  # A heap, the first to be forgotten on top.

    def __len__(self) -> int:
        return len(self._ends)

    def check(self, logout: Logout) -> None:
        """Refuse what was carried out before.

        Raises:
            InvalidToken: it was.
        """
        if _digest(logout.token_id) in self._known:
            raise InvalidToken("the logout token was used before")

    def add(self, logout: Logout, now: float) -> None:
        """Remember a logout that has been carried out at `now`, Unix time in seconds."""
        while self._ends and (self._ends[0][0] < now or len(self._ends) >= self._size):
            self._known.discard(heapq.heappop(self._ends)[1])
        digest = _digest(logout.token_id)
        if digest not in self._known:
            self._known.add(digest)
            heapq.heappush(self._ends, (logout.counts_until, digest))


def _digest(token_id: str) -> bytes:
    # An issuer may write as much as fits into a token.
    return hashlib.sha256(token_id.encode()).digest()


def _name(claims: dict[str, Any], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not value:
        raise InvalidToken(f"{name} is not a string with something in it")
    return value
