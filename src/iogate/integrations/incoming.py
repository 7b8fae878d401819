"""Checks of data from clients before the protected server's python-engineio parses it.

python-engineio parses anything that looks like JSON, decodes base64 leniently, logs a traceback for a packet of an
unknown type, and continues to read from that client. Here, as on iogate's own server, data that is not a packet ends
the session, and data that is larger than the client may send is not parsed.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from engineio.packet import CLOSE, MESSAGE, PONG
from engineio.packet import Packet as EnginePacket
from engineio.payload import Payload

from iogate.errors import ProtocolError
from iogate.protocol.engineio.payload import Frame, decode_payload

MAX_INTEGER = 10**99
"""python-socketio raises for integers of more than 100 characters, and applications rely on that."""

_STRIDE = 16
_LONG_NUMBER = re.compile(r"[0-9]{100}").search
_PERHAPS = re.compile(r"[0-9]{6}").search

_PACKETS = frozenset({"1", "3"})
_OF_AN_UPGRADE = frozenset({"2probe", "5"})
_TYPES = frozenset("0123456")


def wants_websocket(environ: dict[str, Any]) -> bool:
    """Return True if a request opens a WebSocket, False if it is a polling request.

    Raises:
        ValueError: the request is a mixture of both, or an invalid WebSocket handshake (RFC 6455, section 4.2.1).
            python-engineio would treat it as a polling request, or raise.
    """
    connection = [token.strip() for token in environ.get("HTTP_CONNECTION", "").lower().split(",")]
    wanted = "upgrade" in connection and environ.get("HTTP_UPGRADE", "").lower() == "websocket"
    scope = environ.get("asgi.scope")
    if scope is not None:  # The ASGI server has checked the handshake.
        if wanted != (scope["type"] == "websocket"):
            raise ValueError("not a WebSocket of the ASGI server")
    elif wanted:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""), validate=True)
        if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13" or len(key) != 16:
            raise ValueError("not a handshake of WebSocket")
    return wanted


def check_message(message: str | bytes, most: int, *, upgrading: bool) -> None:
    """Check a WebSocket message.

    Args:
        message: the message.
        most: the largest size that is allowed, in bytes.
        upgrading: True if a session is being upgraded to this WebSocket.

    Raises:
        ProtocolError: the message is too large, or not a packet that a client may send.
    """
    _check_size(len(message), most)
    if isinstance(message, bytes) or (message[:1] == "4" and message[1:2] in _TYPES):
        return
    if message not in _PACKETS and not (upgrading and message in _OF_AN_UPGRADE):
        raise ProtocolError("not a packet that a client may send")


def content_length(environ: dict[str, Any], most: int) -> int:
    """Return the size of the body of a request in bytes, from its Content-Length.

    Args:
        environ: the WSGI environment of the request.
        most: the largest size that is allowed, in bytes.

    Raises:
        ProtocolError: the length is not written in plain digits, or is too large.
    """
    length = environ.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit() and len(length) < 16):
        raise ProtocolError("a Content-Length that is not a number")
    _check_size(int(length), most)
    return int(length)


def read_payload(body: bytes) -> list[EnginePacket]:
    """Return the packets in the body of a polling request.

    Raises:
        ProtocolError: the body contains too many packets, or data that is not a packet that a client may send.
    """
    return [_packet(frame) for frame in decode_payload(body, max_packets=Payload.max_decode_packets)] if body else []


def _packet(frame: Frame) -> EnginePacket:
    if frame.binary:
        return EnginePacket(MESSAGE, frame.data)
    try:
        text = frame.data.decode()
    except UnicodeDecodeError:
        raise ProtocolError("a packet that is not UTF-8") from None
    check_message(text, len(text), upgrading=False)
    return EnginePacket(MESSAGE, text[1:]) if text[0] == "4" else EnginePacket({"1": CLOSE, "3": PONG}[text])


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise ProtocolError(f"{size} bytes, of {most} at most")


def has_large_integer(text: str, data: Any) -> bool:
    """Return True if a packet contains an integer that python-socketio would reject.

    Args:
        text: the text of the packet.
        data: the data that was decoded from it.
    """
    # Checking every sixteenth character is enough to rule out a large integer, at a tenth of the cost.
    if len(text) < 100 or not _PERHAPS(text[::_STRIDE]) or not _LONG_NUMBER(text):
        return False
    level = [data]
    while level:
        if any(type(value) is int and abs(value) >= MAX_INTEGER for value in level):
            return True
        level = [child for value in level if isinstance(value, list | dict) for child in _children(value)]
    return False


def _children(value: list[Any] | dict[str, Any]) -> Any:
    return value.values() if isinstance(value, dict) else value
