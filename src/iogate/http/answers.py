"""The response to a rejected request: RFC 6750, section 3, with the same body that a rejected socket receives."""

from __future__ import annotations

import re

import msgspec

from iogate.errors import (
    AuthError,
    CredentialsBadFormat,
    CredentialsBadScheme,
    CredentialsRequired,
    InsufficientScope,
    Refused,
)
from iogate.http.body import SlowBody
from iogate.http.guard import CrossSite, Guard
from iogate.server.requests import RETRY_AFTER

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""A valid scope (RFC 6749, section 3.3). Others are not put into the header: they could end the quoted string."""


class Answer(msgspec.Struct, frozen=True):
    """An HTTP response.

    Args:
        status: its status.
        headers: its headers, without Content-Length.
        content: its body, which is encoded as JSON.
    """

    status: int
    headers: dict[str, str]
    content: object

    @property
    def body(self) -> bytes:
        """The encoded body."""
        return msgspec.json.encode(self.content)


def answer_to(refused: Refused, guard: Guard) -> Answer:
    """Return the response to a rejected request.

    Args:
        refused: the reason for the rejection.
        guard: the guard that rejected the request.
    """
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    if not isinstance(refused, AuthError):  # The token is valid, but the application rejects its user.
        return Answer(403, headers, refused.payload())
    status = 400 if isinstance(refused, CredentialsBadFormat) else refused.status
    if status in {429, 503}:
        headers["retry-after"] = str(RETRY_AFTER)
    elif not isinstance(refused, CrossSite | SlowBody):
        headers["www-authenticate"] = _challenge(refused, guard.realm)
    return Answer(status, headers, refused.data)


def _challenge(refused: AuthError, realm: str) -> str:
    parts = [f'realm="{realm}"']
    # A request without a token, or with another scheme, receives no error code (section 3.1).
    if not isinstance(refused, CredentialsRequired | CredentialsBadScheme):
        error = "invalid_request" if isinstance(refused, CredentialsBadFormat) else "invalid_token"
        parts += [f'error="{"insufficient_scope" if isinstance(refused, InsufficientScope) else error}"']
        parts += [f'error_description="{refused.message}"']
    if isinstance(refused, InsufficientScope) and all(map(_SCOPE.fullmatch, refused.required)):
        parts.append(f'scope="{" ".join(refused.required)}"')
    return "Bearer " + ", ".join(parts)
