"""WebSocket frames of a server (RFC 6455, section 5.2): unmasked and unfragmented."""

from __future__ import annotations

from typing import Final

from iogate.protocol.engineio.packets import Encoded

_TEXT: Final = 0x81
"""FIN and the opcode for text."""
_BINARY: Final = 0x82
"""FIN and the opcode for binary data."""
_SHORT: Final = 126
"""The length of shorter payloads, in bytes, is in the second byte of the frame."""

_SHORT_TEXT: Final = [bytes((_TEXT, length)) for length in range(_SHORT)]


def frames(packet: Encoded) -> bytes:
    """Return the frames of a packet. They are built once: all recipients of a broadcast receive the same bytes."""
    made, text = packet.frames, packet.text
    if made is not None:
        return made
    if text and not packet.attachments:
        length = len(text)
        made = (_SHORT_TEXT[length] if length < _SHORT else _head(_TEXT, length)) + text
    else:
        parts = [_head(_TEXT, len(text)), text] if text else []
        for data in packet.attachments:
            parts += _head(_BINARY, len(data)), data
        made = b"".join(parts)
    packet.frames = made
    return made


def _head(first: int, length: int) -> bytes:
    if length < _SHORT:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, _SHORT)) + length.to_bytes(2, "big")
    return bytes((first, _SHORT + 1)) + length.to_bytes(8, "big")
