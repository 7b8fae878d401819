"""Tokens for tests: good ones, and every kind of bad one."""

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
    """Makes tokens with a fresh random key, and the `JWTAuth` that accepts them.

    A good token has `sub`, `iat`, `exp` and a `jti` of its own. Every method takes claims by name, which win over
    these; None leaves one out.

    Args:
        algorithm: such as "HS256", "RS256", "ES256", "Ed25519": any that `JWTAuth` knows.
        clock: the clock that the tokens are dated by, and judged by in `auth()`.
        lifetime: seconds from `iat` to `exp`.
        key_id: the `kid` in the header; None: none.
        claims: claims that every token has, such as `iss="https://issuer.example"`.

    Raises:
        ConfigurationError: there is no such algorithm.
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
        """Return a `JWTAuth` that accepts the good tokens.

        Args:
            settings: more arguments for it, such as `issuer=` or `guests=True`.
        """
        settings.setdefault("clock", self.clock)
        return JWTAuth(secret=self.secret, public_key=self.public_key, algorithms=[self.algorithm], **settings)

    @property
    def secret(self) -> str | None:
        """The shared secret of the HS algorithms, for an application that reads its own; None for the others."""
        return self._key.raw_value.decode() if isinstance(self._key, OctKey) else None

    @property
    def public_key(self) -> Mapping[str, Any] | None:
        """The public key as a JWK; None for the HS algorithms."""
        return None if isinstance(self._key, OctKey) else self._key.as_dict(private=False)

    # Good.

    def good(self, **claims: Any) -> str:
        """Return a token that is accepted."""
        return self._sign(self._body(claims))

    def many(self, *subjects: str, **claims: Any) -> list[str]:
        """Return a good token for each of these people."""
        return [self.good(sub=subject, **claims) for subject in subjects]

    # Bad.

    def expired(self, by: float = 60, **claims: Any) -> str:
        """Return a token that expired some seconds ago; nothing else is wrong with it."""
        end = self.clock.wall() - by
        return self.good(**{"iat": int(end - self.lifetime), "exp": int(end), **claims})

    def not_yet_valid(self, within: float = 60, **claims: Any) -> str:
        """Return a token that is good only in some seconds."""
        return self.good(**{"nbf": int(self.clock.wall() + within) + 1, **claims})

    def without(self, *names: str, **claims: Any) -> str:
        """Return a token that lacks claims, such as "exp"."""
        return self.good(**claims, **dict.fromkeys(names))

    def wrong_key(self, **claims: Any) -> str:
        """Return a token that somebody else signed, with the same algorithm."""
        return self._sign(self._body(claims), key=self._wrong_key)

    def none_algorithm(self, **claims: Any) -> str:
        """Return a token that says it needs no signature, and has none."""
        return f"{_encode({'alg': 'none', 'typ': 'JWT'})}.{_encode(self._body(claims))}."

    def tampered(self, **claims: Any) -> str:
        """Return a token that was changed after it had been signed: its `sub`, unless other claims are given."""
        head, _, signature = self.good().split(".")
        return f"{head}.{_encode(self._body(claims or {'sub': 'mallory'}))}.{signature}"

    def of_type(self, typ: str, **claims: Any) -> str:
        """Return a token made for another use, such as "logout+jwt", by the `typ` in its header."""
        return self._sign(self._body(claims), typ=typ)

    def bad(self) -> dict[str, str]:
        """Return a token of every bad kind, by the name of the kind: no server should let one in."""
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
            warnings.simplefilter("ignore")  # about EdDSA, the older name of Ed25519
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
