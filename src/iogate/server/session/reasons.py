"""Why connections and sockets end."""

from __future__ import annotations

import enum


class CloseReason(enum.Enum):
    """Why a connection or a socket ends.

    Attributes:
        text: what `disconnect` handlers get. Where the official servers have the same reason, it is their text.
        code: the close code of the WebSocket (RFC 6455, section 7.4.1).
        flush: whether the connection sends what is queued before it closes. Otherwise it is cut off.
    """

    CLIENT_DISCONNECT = "client namespace disconnect", 1000, True
    SERVER_DISCONNECT = "server namespace disconnect", 1000, True
    SERVER_SHUTDOWN = "server shutting down", 1001, True
    TRANSPORT_CLOSE = "transport close", 1000, False
    CLOSE_PACKET = "transport close", 1000, True
    TRANSPORT_ERROR = "transport error", 1002, True
    PARSE_ERROR = "parse error", 1002, True
    TOO_LARGE = "parse error", 1009, True
    PING_TIMEOUT = "ping timeout", 1000, False
    SLOW_CONSUMER = "slow consumer", 1000, False
    NOT_ADMITTED = "forced close", 1000, True
    EVICTED = "forced close", 1000, False
    TOKEN_EXPIRED = "token expired", 1000, True
    TOKEN_REVOKED = "token revoked", 1000, True
    KEY_REMOVED = "key removed", 1000, True
    INSUFFICIENT_SCOPE = "insufficient scope", 1000, True
    TOO_MANY_CONNECTIONS = "too many connections", 1000, True

    def __init__(self, text: str, code: int, flush: bool) -> None:
        self.text = text
        self.code = code
        self.flush = flush

    @property
    def is_violation(self) -> bool:
        """Return True if the client broke the protocol or a limit."""
        return self.code in {1002, 1009}
