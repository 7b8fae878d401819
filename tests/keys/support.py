"""An issuer of the tests with keys that can be changed, and a verifier that gets them from a key server."""

from __future__ import annotations

from typing import Any

from iogate import Discovery, JWTAuth, KeySetURL
from iogate.testing import FakeClock
from tests.auth.tokens import ec_key, public_jwk, sign
from tests.keys.keyserver import KeyServer

CURVES = {"ES256": "P-256", "ES384": "P-384"}
"""Two keys are enough for every story, and making one takes time: each algorithm has its own."""
ALGORITHMS = list(CURVES)


def jwk(algorithm: str, kid: str | None = None) -> dict[str, Any]:
    """Return the public key that this algorithm's tokens are signed for, under the algorithm's name or another."""
    return public_jwk(ec_key(CURVES[algorithm]), kid=kid or algorithm)


class Issuer:
    """Signs tokens, and knows what time it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.clock = FakeClock()

    def token(self, algorithm: str = "ES256", kid: str | None = None, **claims: Any) -> str:
        """Return a token that is good if its key is known."""
        body = {"sub": "alice", "exp": self.clock.wall() + 10**6, "iss": self.name} | claims
        return sign(algorithm, ec_key(CURVES[algorithm]), body, kid=kid or algorithm)

    def auth(self, keys: Any, **settings: Any) -> JWTAuth:
        """Return a verifier with keys from somewhere."""
        defaults: dict[str, Any] = {"algorithms": ALGORITHMS, "issuer": self.name, "clock": self.clock}
        return JWTAuth(keys=keys, **defaults | settings)


def key_set_url(server: KeyServer, issuer: Issuer, **settings: Any) -> KeySetURL:
    """Return the keys at the address of a key set."""
    return KeySetURL(server.jwks_url, **_defaults(issuer) | settings)


def discovery(server: KeyServer, issuer: Issuer, **settings: Any) -> Discovery:
    """Return the keys that a discovery leads to."""
    return Discovery(server.url, **_defaults(issuer) | settings)


def _defaults(issuer: Issuer) -> dict[str, Any]:
    return {"network": "loopback", "clock": issuer.clock}
