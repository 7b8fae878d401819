"""The checks of Engine.IO HTTP requests, and the error responses.

See https://github.com/socketio/engine.io-protocol, section "Handshake". The error codes are those of the reference
server, which official clients expect.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from iogate.protocol.engineio.packets import REVISION

TRANSPORTS = ("polling", "websocket")


class RequestError(enum.Enum):
    """A reason to reject a request: the code and the message of the JSON response, and its HTTP status."""

    UNKNOWN_TRANSPORT = (0, "Transport unknown", 400)
    UNKNOWN_SID = (1, "Session ID unknown", 400)
    BAD_METHOD = (2, "Bad handshake method", 400)
    BAD_REQUEST = (3, "Bad request", 400)
    FORBIDDEN = (4, "Forbidden", 403)
    UNSUPPORTED_VERSION = (5, "Unsupported protocol version", 400)

    @property
    def status(self) -> int:
        """The HTTP status of the response."""
        return self.value[2]

    @property
    def body(self) -> bytes:
        """The JSON body of the response."""
        code, message, _ = self.value
        return msgspec.json.encode({"code": code, "message": message})


def check_request(method: str, query: Mapping[str, str], *, websocket: bool) -> RequestError | None:
    """Return the error of a request, or None if the request is valid.

    This does not check whether the session of the request exists. The caller must check it.

    Args:
        method: the HTTP method, in upper case.
        query: the query parameters of the URL.
        websocket: True if the request is a WebSocket handshake.
    """
    transport = query.get("transport")
    if transport not in TRANSPORTS:
        return RequestError.UNKNOWN_TRANSPORT
    if query.get("EIO") != REVISION:
        return RequestError.UNSUPPORTED_VERSION
    if websocket != (transport == "websocket"):
        return RequestError.BAD_REQUEST
    if method != "GET" and (method != "POST" or "sid" not in query):
        return RequestError.BAD_METHOD
    return None
