"""What a refused request is answered: RFC 6750, section 3, with the body that refused sockets get too."""

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
"""What a scope may be made of (RFC 6749, section 3.3). Of another kind none can be told: it may end the quotation."""


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer.

    Args:
        status: its status.
        headers: its header fields, but for the length.
        content: its body, to be written as JSON.
    """

    status: int
    headers: dict[str, str]
    content: object

    @property
    def body(self) -> bytes:
        """Its body."""
        return msgspec.json.encode(self.content)


def answer_to(refused: Refused, guard: Guard) -> Answer:
    """Return the answer to a request that was refused.

    Args:
        refused: why.
        guard: by whom.
    """
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    if not isinstance(refused, AuthError):  # By the application: a good token of somebody whom it does not want.
        return Answer(403, headers, refused.payload())
    status = 400 if isinstance(refused, CredentialsBadFormat) else refused.status
    if status in {429, 503}:
        headers["retry-after"] = str(RETRY_AFTER)
    elif not isinstance(refused, CrossSite | SlowBody):
        headers["www-authenticate"] = _challenge(refused, guard.realm)
    return Answer(status, headers, refused.data)


def _challenge(refused: AuthError, realm: str) -> str:
    parts = [f'realm="{realm}"']
    # Who gave nothing, or something of another scheme, is only told what to give (section 3.1).
    if not isinstance(refused, CredentialsRequired | CredentialsBadScheme):
        error = "invalid_request" if isinstance(refused, CredentialsBadFormat) else "invalid_token"
        parts += [f'error="{"insufficient_scope" if isinstance(refused, InsufficientScope) else error}"']
        parts += [f'error_description="{refused.message}"']
    if isinstance(refused, InsufficientScope) and all(map(_SCOPE.fullmatch, refused.required)):
        parts.append(f'scope="{" ".join(refused.required)}"')
    return "Bearer " + ", ".join(parts)
