"""What a refused client is told: the rows of the wire contract, as the body of the CONNECT_ERROR packet."""

from __future__ import annotations

from typing import Any


def _refusal(code: str, message: str, retry: str) -> dict[str, Any]:
    data = {"message": message, "code": code, "type": "UnauthorizedError", "retry": retry}
    return {"message": message, "data": data}


REQUIRED = _refusal("credentials_required", "No authorization token was found", "login")
BAD_SCHEME = _refusal("credentials_bad_scheme", "Format is Authorization: Bearer [token]", "never")
BAD_FORMAT = _refusal("credentials_bad_format", "Format is Authorization: Bearer [token]", "never")
EXPIRED = _refusal("invalid_token", "jwt expired", "refresh")
INVALID = _refusal("invalid_token", "invalid token", "login")
TIMEOUT = _refusal("timeout", "Authentication timed out", "login")
UNAVAILABLE = _refusal("unavailable", "Authentication is unavailable", "later")
REVOKED = _refusal("revoked_token", "The token has been revoked", "login")
SCOPE = _refusal("insufficient_scope", "Insufficient scope", "never")
CONNECTIONS = _refusal("too_many", "Too many connections", "later")
ATTEMPTS = _refusal("too_many", "Too many attempts", "later")
