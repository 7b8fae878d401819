"""Keys that are made for one run, and the tokens that they sign: each connection gets one of its own."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, RSAKey

ISSUER = "https://issuer.example"
AUDIENCE = "benchmark"
LIFETIME = 6 * 3600
"""Seconds: longer than any run, so that no server is busy with tokens that end."""
ALGORITHMS = ("HS256", "RS256", "ES256")


@dataclass(frozen=True)
class Signer:
    """A key, and what the servers must know of it.

    Args:
        algorithm: such as "RS256".
        key: what signs.
        verification: the secret, or the public key as PEM.
    """

    algorithm: str
    key: Key
    verification: str

    @classmethod
    def new(cls, algorithm: str) -> Signer:
        """Make a key for an algorithm."""
        if algorithm == "HS256":
            secret = secrets.token_urlsafe(48)
            return cls(algorithm, OctKey.import_key(secret), secret)
        key = RSAKey.generate_key(2048) if algorithm == "RS256" else ECKey.generate_key("P-256")
        return cls(algorithm, key, key.as_pem(private=False).decode())

    def token(self, number: int, **claims: Any) -> str:
        """Sign a token for a user, as an identity provider would.

        Args:
            number: which user.
            claims: what is different about it; None leaves one out.
        """
        now = int(time.time())
        body = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": f"user-{number}",
            "iat": now,
            "exp": now + LIFETIME,
            "jti": secrets.token_hex(8),
            **claims,
        }
        body = {name: value for name, value in body.items() if value is not None}
        return jwt.encode({"alg": self.algorithm, "typ": "JWT"}, body, self.key, algorithms=[self.algorithm])

    def environment(self) -> dict[str, str]:
        """Return what a server is told."""
        return {
            "BENCH_ALGORITHM": self.algorithm,
            "BENCH_KEY": self.verification,
            "BENCH_ISSUER": ISSUER,
            "BENCH_AUDIENCE": AUDIENCE,
        }

    def write(self, path: Path, number: int) -> Path:
        """Write as many tokens, one a line, to a file that only its owner reads."""
        path.touch(mode=0o600)
        with path.open("w") as file:
            file.writelines(self.token(index) + "\n" for index in range(number))
        return path
