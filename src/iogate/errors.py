"""Every error that iogate raises, in one tree.

    IogateError
    ├── ConfigurationError          the server was put together wrongly; says what to write instead
    ├── ProtocolError               a peer broke the grammar or a limit; its connection is closed
    ├── Refused                     a connection or an event is refused; the client is told `message` and `data`
    │   └── AuthError               the refusals of the gate, each with a `code` for programs
    │       ├── CredentialsRequired     credentials_required      there is no token
    │       ├── CredentialsBadScheme    credentials_bad_scheme    a scheme that is not Bearer
    │       ├── CredentialsBadFormat    credentials_bad_format    not a string, too large, or two tokens
    │       ├── InvalidToken            invalid_token             anything that is wrong with a token
    │       │   └── TokenExpired        invalid_token             expired, and nothing else wrong with it
    │       ├── RevokedToken            revoked_token             revoked before its time
    │       ├── InsufficientScope       insufficient_scope        a good token that does not allow this
    │       ├── TooManyConnections      too_many                  a limit of connections is reached
    │       ├── TooManyAttempts         too_many                  a limit of attempts is reached
    │       ├── AuthTimeout             timeout                   no verdict before the deadline
    │       └── AuthUnavailable         unavailable               the verdict could not be reached
    ├── NotAuthenticated            the identity of a socket that has none (a guest) was asked for
    ├── Disconnected                an acknowledgement was awaited from a socket that has gone
    └── AckTimeout                  an acknowledgement did not come in time

`code`, `message` and `retry` of the refusals are part of the wire contract: clients act on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

Retry = Literal["refresh", "login", "later", "never"]
"""What a refused client should do: get a new token and come back at once, ask the person, back off, or stop."""


class IogateError(Exception):
    """Base of every error that iogate raises."""


class ConfigurationError(IogateError, ValueError):
    """Something was put together wrongly. Raised when the object is made, never while it serves."""


class ProtocolError(IogateError):
    """A peer sent what the protocol or a limit forbids. Its connection is closed; nobody else notices."""


class Refused(IogateError):
    """Refuse a connection (from connect middleware) or an event (from event middleware).

    Args:
        message: what the client reads as `err.message`.
        data: what the client reads as `err.data`; anything the parser can encode. Left out when None.
    """

    def __init__(self, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def payload(self) -> dict[str, Any]:
        """Return the body of the CONNECT_ERROR packet: `message`, and `data` if there is any."""
        if self.data is None:
            return {"message": self.message}
        return {"message": self.message, "data": self.data}


class AuthError(Refused):
    """A refusal of the gate, in the shape that clients of Node's `socketio-jwt` know.

    Args:
        reason: why, for the operator's log. It never reaches the client and never holds a secret.
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
    """There is no token where one is required."""

    code = "credentials_required"
    text = "No authorization token was found"
    retry = "login"


class CredentialsBadScheme(AuthError):
    """A credential of another scheme than Bearer was given."""

    code = "credentials_bad_scheme"
    text = "Format is Authorization: Bearer [token]"
    retry = "never"


class CredentialsBadFormat(AuthError):
    """A credential is not a string, is too large, or came in two ways at once."""

    code = "credentials_bad_format"
    text = "Format is Authorization: Bearer [token]"
    retry = "never"


class InvalidToken(AuthError):
    """Something is wrong with the token. One message for everything, so that it is no oracle."""

    code = "invalid_token"
    text = "invalid token"
    retry: ClassVar[Retry] = "login"


class TokenExpired(InvalidToken):
    """The token has expired, and nothing else is wrong with it."""

    text = "jwt expired"
    retry = "refresh"


class RevokedToken(AuthError):
    """The token was revoked before its time."""

    code = "revoked_token"
    text = "The token has been revoked"
    retry = "login"


class InsufficientScope(AuthError):
    """The token is good, but does not allow this.

    Args:
        required: the scopes that are needed, all of them.
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
    """Too many bad credentials came from one transport or one address."""

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
    """The verdict could not be reached: a hook failed, or something it needs is down."""

    code = "unavailable"
    text = "Authentication is unavailable"
    retry = "later"
    status = 503


class NotAuthenticated(IogateError):
    """The identity of a socket that has none was asked for. See `Socket.authenticated`."""


class Disconnected(IogateError):
    """The socket has gone, or went before it answered."""


class AckTimeout(IogateError, TimeoutError):
    """An acknowledgement did not come in time.

    Args:
        message: what was awaited, and for how long.
        responses: what the other recipients of a broadcast answered in time.
    """

    def __init__(self, message: str, responses: list[Any] | None = None) -> None:
        super().__init__(message)
        self.responses = responses or []


BAD_CREDENTIALS = (CredentialsBadScheme, CredentialsBadFormat, InvalidToken, RevokedToken)
"""The refusals that are about what the client has shown, and not about the server or what the client may do."""
