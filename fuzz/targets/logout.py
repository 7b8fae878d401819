"""Back-channel logout: any body for a form, and any header and claims in a logout token with a good signature.

An input that begins with `{` is a header in the first line and claims after it; anything else is a form.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

from iogate import BackChannelLogout, JWTAuth, MemoryRevocations, Server
from iogate.auth.logout import LOGOUT_EVENT, MAX_AGE
from iogate.errors import AuthError
from iogate.http.logout import FORM, MAX_BODY
from tests.auth.tokens import CLOCK, NOW, SECRET, forge

ISSUER = "https://id.example"
LEEWAY = 30

_AUTH = JWTAuth(secret=SECRET, algorithms=["HS256"], require=[], clock=CLOCK)
_SERVER = Server(auth=_AUTH)
_SCOPE = {"type": "http", "method": "POST", "headers": [(b"content-type", FORM.encode())]}


def logout(data: bytes) -> bool:
    """Take any bytes for a logout request; say whether somebody was signed out by it."""
    if not data.startswith(b"{"):
        return _posted(data) == 200
    header, _, body = data.partition(b"\n")
    token = forge(body, header)
    status = _posted(f"logout_token={token}".encode())
    if status != 200:
        return False
    claims = json.loads(body)
    assert claims["iss"] == ISSUER
    assert claims["aud"] == "me" or "me" in claims["aud"]
    assert NOW - MAX_AGE - LEEWAY <= claims["iat"] <= NOW + LEEWAY
    assert claims["exp"] > NOW - LEEWAY
    assert isinstance(claims["events"][LOGOUT_EVENT], dict)
    assert "nonce" not in claims
    assert claims["jti"]
    assert claims.get("sid") or claims["sub"]
    # Neither may pass for the other.
    try:
        _AUTH.verify(token)
    except AuthError:
        return True
    raise AssertionError("a logout token that is an access token")


def _posted(body: bytes) -> int:
    """Return the status that a request is answered with, by an endpoint that has been asked nothing before."""
    _SERVER._core.revocations = revocations = MemoryRevocations()
    endpoint = BackChannelLogout(_SERVER, issuer=ISSUER, audience="me", leeway=LEEWAY)
    half = len(body) // 2
    parts: list[dict[str, Any]] = [{"body": body[:half], "more_body": True}, {"body": body[half:]}]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", **parts.pop(0)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(endpoint(_SCOPE, receive, send))
    start, end = sent
    status: int = start["status"]
    assert status in (200, 400, 413)
    assert (status == 413) is (len(body) > MAX_BODY)
    assert end.get("body", b"") == b"" or json.loads(end["body"])["error"] == "invalid_request"
    assert len(revocations) == (status == 200) == len(endpoint._replays)
    return status
