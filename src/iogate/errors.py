"""The exceptions that iogate raises, in one hierarchy.

    IogateError
    ├── ConfigurationError          a wrong configuration; the message says what to write instead
    ├── ProtocolError               a peer broke the protocol or a limit; its connection is closed
    ├── Refused                     a connection or an event is rejected; the client receives `message` and `data`
    │   └── AuthError               a rejection by the gate, with a machine-readable `code`
    │       ├── CredentialsRequired     credentials_required      there is no token
    │       ├── CredentialsBadScheme    credentials_bad_scheme    a scheme other than Bearer
    │       ├── CredentialsBadFormat    credentials_bad_format    not a string, too large, or two tokens
    │       ├── InvalidToken            invalid_token             the token is invalid for any reason
    │       │   └── TokenExpired        invalid_token             the token has expired but is otherwise valid
    │       ├── RevokedToken            revoked_token             the token was revoked before it expired
    │       ├── InsufficientScope       insufficient_scope        a valid token without the required scopes
    │       ├── TooManyConnections      too_many                  a limit of connections is reached
    │       ├── TooManyAttempts         too_many                  a limit of attempts is reached
    │       ├── AuthTimeout             timeout                   no verdict before the deadline
    │       └── AuthUnavailable         unavailable               the verdict could not be reached
    ├── NotAuthenticated            the identity of an unauthenticated socket (a guest) was requested
    ├── Disconnected                the socket is disconnected, or was before it sent an acknowledgement
    └── AckTimeout                  an acknowledgement did not arrive in time

`code`, `message` and `retry` of rejections are part of the wire contract: clients depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

Retry = Literal["refresh", "login", "later", "never"]
"""What a rejected client should do: get a new token and retry at once, ask the user to sign in, back off, or stop."""


class IogateError(Exception):
    """Base class of all exceptions that iogate raises."""


class ConfigurationError(IogateError, ValueError):
    """A wrong configuration. It is raised when an object is created, never while the server handles requests."""


class ProtocolError(IogateError):
    """A peer broke the protocol or exceeded a limit. Its connection is closed; other connections are not affected."""


class Refused(IogateError):
    """Reject a connection (raised in connect middleware) or an event (raised in event middleware).

    Args:
        message: the text that the client receives as `err.message`.
        data: the value that the client receives as `err.data`: anything that the parser can encode; omitted if None.
    """

    def __init__(self, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def payload(self) -> dict[str, Any]:
        """Return the body of the CONNECT_ERROR packet: `message`, and `data` if it is not None."""
        if self.data is None:
            return {"message": self.message}
        return {"message": self.message, "data": self.data}


class AuthError(Refused):
    """A rejection by the gate, in the format that clients of the Node.js package `socketio-jwt` expect.

    Args:
        reason: the reason for the server's log. The client never receives it. It must not contain secrets.
    """

    code: ClassVar[str]
    text: ClassVar[str]
    retry: ClassVar[Retry]
    status: ClassVar[int] = 401

    def __init__(self, reason: str = "") -> None:
        data: Mapping[str, str] = {
            "message": self.text,
            "code": self.code,
            "type": "UnauthorizedError",
            "retry": self.retry,
        }
        super().__init__(self.text, data)
        self.reason = reason or self.text

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


class CredentialsRequired(AuthError):
    """A token is required, and there is none."""

    code = "credentials_required"
    text = "No authorization token was found"
    retry = "login"


class CredentialsBadScheme(AuthError):
    """The credential has a scheme other than Bearer."""

    code = "credentials_bad_scheme"
    text = "Format is Authorization: Bearer [token]"
    retry = "never"


class CredentialsBadFormat(AuthError):
    """The credential is not a string, is too large, or was sent in two places at once."""

    code = "credentials_bad_format"
    text = "Format is Authorization: Bearer [token]"
    retry = "never"


class InvalidToken(AuthError):
    """The token is invalid. The message is the same for every reason but expiry, so an attacker learns nothing."""

    code = "invalid_token"
    text = "invalid token"
    retry: ClassVar[Retry] = "login"


class TokenExpired(InvalidToken):
    """The token has expired but is otherwise valid."""

    text = "jwt expired"
    retry = "refresh"


class RevokedToken(AuthError):
    """The token was revoked before it expired."""

    code = "revoked_token"
    text = "The token has been revoked"
    retry = "login"


class InsufficientScope(AuthError):
    """The token is valid but does not have the required scopes.

    Args:
        required: the scopes that are required, all of them.
    """

    code = "insufficient_scope"
    text = "Insufficient scope"
    retry = "never"
    status = 403

    def __init__(self, required: Iterable[str]) -> None:
        self.required = sorted(required)
        super().__init__(f"the token lacks one of the scopes {self.required}")


class TooManyConnections(AuthError):
    """A limit of connections is reached: of one subject, or of those that wait for a verdict."""

    code = "too_many"
    text = "Too many connections"
    retry = "later"
    status = 429


class TooManyAttempts(AuthError):
    """Too many attempts, or too many with a bad or missing credential, came from one transport or one address."""

    code = "too_many"
    text = "Too many attempts"
    retry = "later"
    status = 429


class AuthTimeout(AuthError):
    """The deadline passed before there was a verdict."""

    code = "timeout"
    text = "Authentication timed out"
    retry = "login"


class AuthUnavailable(AuthError):
    """The verdict could not be reached: a hook failed, or a service that it needs is down."""

    code = "unavailable"
    text = "Authentication is unavailable"
    retry = "later"
    status = 503


class NotAuthenticated(IogateError):
    """The identity of a socket that has none was requested. See `Socket.authenticated`."""


class Disconnected(IogateError):
    """The socket is disconnected, or was disconnected before it sent an acknowledgement."""


class AckTimeout(IogateError, TimeoutError):
    """An acknowledgement did not arrive in time.

    Args:
        message: what was awaited, and for how many seconds.
        responses: the acknowledgements of a broadcast that other recipients sent in time.
    """

    def __init__(self, message: str, responses: list[Any] | None = None) -> None:
        super().__init__(message)
        self.responses = responses or []


BAD_CREDENTIALS = (CredentialsBadScheme, CredentialsBadFormat, InvalidToken, RevokedToken)
"""Rejections caused by the credential itself, not by the server or by missing permissions."""
