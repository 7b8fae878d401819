"""JSON Web Tokens: any text for one, and any header and claims in one whose signature is good."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from iogate import JWTAuth
from iogate.auth import jws
from iogate.errors import CredentialsBadFormat, InvalidToken, TokenExpired
from tests.auth.tokens import CLOCK, NOW, SECRET, forge

MAX_BYTES = 2048
LEEWAY = 30
MAX_AGE = 600

_PLAIN = JWTAuth(secret=SECRET, algorithms=["HS256", "HS512"], max_token_bytes=MAX_BYTES, clock=CLOCK)
_STRICT = JWTAuth(
    secret=SECRET,
    algorithms=["HS256"],
    issuer=["https://id.example", "joe"],
    audience="me",
    require=["exp", "sub", "iat"],
    max_age=MAX_AGE,
    leeway=LEEWAY,
    max_token_bytes=MAX_BYTES,
    clock=CLOCK,
)
_LAX = JWTAuth(
    secret=SECRET,
    algorithms=["HS256"],
    require=[],
    token_types=["JWT", "at+jwt", "id_token"],
    max_token_bytes=MAX_BYTES,
    clock=CLOCK,
)
_HASHES = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}


def token(data: bytes) -> bool:
    """Take any text for a token."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        compact = jws.split(text)
    except InvalidToken:
        pass
    else:
        parts = (*compact.signing_input.split(b"."), urlsafe_b64encode(compact.signature).rstrip(b"="))
        assert b".".join(parts).decode() == text  # There is one text of a token.
        assert urlsafe_b64encode(compact.payload).rstrip(b"=") == parts[1]
    verdicts = [_verified(auth, text) for auth in (_PLAIN, _STRICT, _LAX)]
    return any(verdicts)


def claims(data: bytes) -> bool:
    """Take the first line for a header, and all after it for claims, in a token with a good signature."""
    header, _, body = data.partition(b"\n")
    return token(forge(body, header).encode())


def _verified(auth: JWTAuth, text: str) -> bool:
    """Verify a token, and say whether it is good; hold the verdict against what can be said without the verifier."""
    try:
        principal = auth.verify(text)
    except CredentialsBadFormat:
        assert not text or len(text) > MAX_BYTES
        return False
    except InvalidToken as error:
        assert error.__cause__ is None, "something unexpected"  # noqa: PT017
        assert len(str(error)) < 200  # noqa: PT017 - and nothing of the token is in it
        assert not isinstance(error, TokenExpired) or _is_expired(text)  # noqa: PT017
        return False
    assert len(text) <= MAX_BYTES
    head, body, _ = text.split(".")
    header, members = _strict(head), _strict(body)
    signature = hmac.digest(SECRET.encode(), f"{head}.{body}".encode(), _HASHES[header["alg"]])
    assert text == f"{head}.{body}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert header.get("typ", "JWT").lower().removeprefix("application/") in ("jwt", "at+jwt")
    assert not header.keys() & {"crit", "b64", "zip", "cty", "jwk", "jku", "x5u", "x5c"}
    assert principal.claims == members
    assert principal.subject == members.get("sub", "")
    assert principal.issuer == members.get("iss")
    assert principal.expires_at is None or principal.expires_at + auth.leeway > NOW
    assert principal.expires_at is not None or auth is _LAX
    assert principal.subject or auth is _LAX
    assert members.get("nbf", 0) <= NOW + auth.leeway
    assert not any(not scope or " " in scope for scope in principal.scopes) or members.keys() & {"scp", "permissions"}
    if auth is _STRICT:
        assert principal.issuer in ("https://id.example", "joe")
        assert "me" in principal.audience
        assert principal.issued_at is not None
        assert NOW - MAX_AGE - LEEWAY <= principal.issued_at <= NOW + LEEWAY
    return True


def _strict(segment: str) -> Any:
    """Read JSON with another reader, which minds names that come twice."""
    return json.loads(urlsafe_b64decode(segment + "=="), object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def _is_expired(text: str) -> bool:
    return bool(_strict(text.split(".")[1])["exp"] <= NOW)
