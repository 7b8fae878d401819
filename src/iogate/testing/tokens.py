"""Tokens for tests: valid tokens, and invalid ones of every kind."""

from __future__ import annotations

import json
import secrets
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import serialize_compact

from iogate.auth.jwt import JWTAuth
from iogate.auth.keys import ALGORITHMS
from iogate.clock import SYSTEM, Clock
from iogate.errors import ConfigurationError


class TokenFactory:
    """Create tokens with a new random key, and a `JWTAuth` that accepts them.

    A valid token has `sub`, `iat`, `exp` and a unique `jti`. All methods accept claims by name, which take precedence
    over these; None removes a claim.

    Args:
        algorithm: such as "HS256", "RS256", "ES256" or "Ed25519": any that `JWTAuth` supports.
        clock: the clock that sets the times in the tokens, and that `auth()` verifies them with.
        lifetime: seconds from `iat` to `exp`.
        key_id: the `kid` in the header; None for no `kid`.
        claims: claims of every token, such as `iss="https://issuer.example"`.

    Raises:
        ConfigurationError: the algorithm is not supported.
    """

    def __init__(
        self,
        algorithm: str = "HS256",
        *,
        clock: Clock = SYSTEM,
        lifetime: float = 300,
        key_id: str | None = None,
        **claims: Any,
    ) -> None:
        if algorithm not in ALGORITHMS:
            raise ConfigurationError(f"algorithm is one of {', '.join(ALGORITHMS)}")
        self.algorithm = algorithm
        self.clock = clock
        self.lifetime = lifetime
        self.key_id = key_id
        self._claims = claims
        self._key = _generate(algorithm)
        self._wrong_key = _generate(algorithm)

    def auth(self, **settings: Any) -> JWTAuth:
        """Return a `JWTAuth` that accepts the valid tokens.

        Args:
            settings: further arguments of `JWTAuth`, such as `issuer=` or `guests=True`.
        """
        settings.setdefault("clock", self.clock)
        return JWTAuth(secret=self.secret, public_key=self.public_key, algorithms=[self.algorithm], **settings)

    @property
    def secret(self) -> str | None:
        """The shared secret of the HS algorithms, for an application that creates its own `JWTAuth`; None otherwise."""
        return self._key.raw_value.decode() if isinstance(self._key, OctKey) else None

    @property
    def public_key(self) -> Mapping[str, Any] | None:
        """The public key as a JWK; None for the HS algorithms."""
        return None if isinstance(self._key, OctKey) else self._key.as_dict(private=False)

    # Valid tokens.

    def good(self, **claims: Any) -> str:
        """Return a valid token."""
        return self._sign(self._body(claims))

    def many(self, *subjects: str, **claims: Any) -> list[str]:
        """Return a valid token for each subject."""
        return [self.good(sub=subject, **claims) for subject in subjects]

    # Invalid tokens.

    def expired(self, by: float = 60, **claims: Any) -> str:
        """Return a token that is valid except that it has expired.

        Args:
            by: seconds since it expired.
            claims: further claims.
        """
        end = self.clock.wall() - by
        return self.good(**{"iat": int(end - self.lifetime), "exp": int(end), **claims})

    def not_yet_valid(self, within: float = 60, **claims: Any) -> str:
        """Return a token that is not valid yet.

        Args:
            within: seconds until it is valid, at least.
            claims: further claims.
        """
        return self.good(**{"nbf": int(self.clock.wall() + within) + 1, **claims})

    def without(self, *names: str, **claims: Any) -> str:
        """Return a token that lacks claims, such as "exp".

        Args:
            names: the names of the missing claims.
            claims: further claims.
        """
        return self.good(**claims, **dict.fromkeys(names))

    def wrong_key(self, **claims: Any) -> str:
        """Return a token that is signed with another key, for the same algorithm."""
        return self._sign(self._body(claims), key=self._wrong_key)

    def none_algorithm(self, **claims: Any) -> str:
        """Return a token without a signature, whose `alg` is "none"."""
        return f"{_encode({'alg': 'none', 'typ': 'JWT'})}.{_encode(self._body(claims))}."

    def tampered(self, **claims: Any) -> str:
        """Return a token that was changed after it was signed: its `sub`, unless other claims are given."""
        head, _, signature = self.good().split(".")
        return f"{head}.{_encode(self._body(claims or {'sub': 'mallory'}))}.{signature}"

    def of_type(self, typ: str, **claims: Any) -> str:
        """Return a token for another purpose, such as "logout+jwt", according to the `typ` in its header."""
        return self._sign(self._body(claims), typ=typ)

    def bad(self) -> dict[str, str]:
        """Return an invalid token of each kind, by the name of the kind. A server must reject all of them."""
        return {
            "expired": self.expired(),
            "not yet valid": self.not_yet_valid(),
            "without exp": self.without("exp"),
            "without sub": self.without("sub"),
            "wrong key": self.wrong_key(),
            "none algorithm": self.none_algorithm(),
            "tampered": self.tampered(),
            "of another type": self.of_type("logout+jwt"),
            "no token at all": "not.a.token",
        }

    def _body(self, claims: dict[str, Any]) -> dict[str, Any]:
        now = int(self.clock.wall())
        body = {"sub": "alice", "iat": now, "exp": int(now + self.lifetime), "jti": secrets.token_hex(8)}
        return {name: value for name, value in (body | self._claims | claims).items() if value is not None}

    def _sign(self, body: dict[str, Any], *, key: Key | None = None, typ: str = "JWT") -> str:
        header = {"alg": self.algorithm, "typ": typ}
        if self.key_id is not None:
            header["kid"] = self.key_id
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joserfc warns about EdDSA, the older name of Ed25519.
            return serialize_compact(header, json.dumps(body), key or self._key, algorithms=[self.algorithm])

    def __repr__(self) -> str:
        return f"TokenFactory({self.algorithm!r})"


def _generate(algorithm: str) -> Key:
    wanted = ALGORITHMS[algorithm]
    match wanted.family:
        case "secret":
            return OctKey.import_key(secrets.token_urlsafe(64))
        case "RSA":
            return RSAKey.generate_key(2048)
        case "EC":
            return ECKey.generate_key(wanted.curve)
        case _:
            return OKPKey.generate_key("Ed25519")


def _encode(part: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
