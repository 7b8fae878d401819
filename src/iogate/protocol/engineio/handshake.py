"""What an HTTP request of Engine.IO must say, and the errors that answer it when it does not.

https://github.com/socketio/engine.io-protocol, section "Handshake"; the error codes are those of the reference
server, which its clients know.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from iogate.protocol.engineio.packets import REVISION

TRANSPORTS = ("polling", "websocket")


class RequestError(enum.Enum):
    """Why a request is refused: the code and the message of the JSON answer, and its HTTP status."""

    UNKNOWN_TRANSPORT = (0, "Transport unknown", 400)
    UNKNOWN_SID = (1, "Session ID unknown", 400)
    BAD_METHOD = (2, "Bad handshake method", 400)
    BAD_REQUEST = (3, "Bad request", 400)
    FORBIDDEN = (4, "Forbidden", 403)
    UNSUPPORTED_VERSION = (5, "Unsupported protocol version", 400)

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return self.value[2]

    @property
    def body(self) -> bytes:
        """The JSON body of the answer."""
        code, message, _ = self.value
        return msgspec.json.encode({"code": code, "message": message})


def check_request(method: str, query: Mapping[str, str], *, websocket: bool) -> RequestError | None:
    """Say what is wrong with a request, or None.

    Whether its session exists is for the caller to see.

    Args:
        method: the HTTP method, in upper case.
        query: the parameters of the URL.
        websocket: whether the request asks for a WebSocket.
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
