"""The servers that bad tokens are shown to: what each expects, and a token that it accepts."""

from __future__ import annotations

from typing import Any, NamedTuple

from iogate import JWTAuth
from tests.auth.tokens import CLOCK, GOOD, NOW, SECRET, forge, key_for, public_pem, sign

ISSUER = "https://id.example"

STRICT: dict[str, Any] = GOOD | {"iss": ISSUER, "aud": ["mail", "chat"], "iat": NOW}
"""The claims of a token for the server that compares issuer and audience."""


class Door(NamedTuple):
    """A verifier, and a good token for it: without one, a server that refuses everybody would pass every test."""

    auth: JWTAuth
    good: str


def door(name: str) -> Door:
    """Make a verifier: by the names of its algorithms, or `strict`, `roomy` or `patient`, which take HS256."""
    if name == "strict":
        return Door(_shared(issuer=ISSUER, audience="chat"), forge(STRICT))
    if name == "roomy":
        return Door(_shared(max_token_bytes=65536), forge())
    if name == "patient":
        return Door(_shared(max_lifetime=1e40), forge())
    if name == "HS256":
        return Door(_shared(), forge())
    algorithms = name.split()
    key = key_for(algorithms[0])
    auth = JWTAuth(public_key=public_pem(key), algorithms=algorithms, clock=CLOCK)
    return Door(auth, sign(algorithms[-1], key))


def _shared(**settings: Any) -> JWTAuth:
    return JWTAuth(secret=SECRET, algorithms=["HS256"], clock=CLOCK, **settings)
