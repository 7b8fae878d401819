"""The access tokens of the demo: short-lived, signed with the secret that the gate verifies with."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from joserfc import jwt
from joserfc.jwk import OctKey

from .sessions import Session

ALGORITHM = "HS256"
ISSUER = "iogate-chat"
AUDIENCE = "iogate-chat"


@dataclass(frozen=True, slots=True)
class Token:
    """A signed token and the Unix time at which it expires."""

    text: str
    expires_at: float

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at})"


class Mint:
    """Makes tokens. It lives on the server only: whoever has the secret can be anybody.

    Args:
        secret: signs the tokens.
        lifetime: seconds that a token is good for.
    """

    def __init__(self, secret: str, lifetime: float) -> None:
        self._key = OctKey.import_key(secret)
        self._lifetime = lifetime

    def token(self, session: Session, now: float, lifetime: float | None = None) -> Token:
        """Return a token that says who somebody is.

        Args:
            session: the session that it belongs to.
            now: when it is asked for, Unix time in seconds; before its session was looked at. A sign-out between the
                two revokes it then: what is issued until the sign-out is revoked.
            lifetime: seconds, if it is to be other than those of all tokens.
        """
        expires_at = now + (lifetime or self._lifetime)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": session.person.id,
            "name": session.person.name,
            "sid": session.id,
            "jti": uuid.uuid4().hex,
            # With the fraction of the second: who signs out everywhere may sign in again within it.
            "iat": now,
            "exp": expires_at,
        }
        text = jwt.encode({"alg": ALGORITHM, "typ": "JWT"}, claims, self._key, algorithms=[ALGORITHM])
        return Token(text, expires_at)
