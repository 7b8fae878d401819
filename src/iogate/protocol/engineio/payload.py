"""Engine.IO v4 payloads: several packets in the body of one polling request.

A record separator separates the packets. A binary message is encoded as `b` and its base64 (protocol section "HTTP
long-polling", "Packet encoding").
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from typing import NamedTuple

from iogate.errors import ProtocolError
from iogate.protocol.engineio.packets import Encoded

SEPARATOR = b"\x1e"

MAX_PACKETS = 4096
"""Maximum number of packets in a payload. It is large because a client that was offline sends its backlog at once."""


class Frame(NamedTuple):
    """One unit of a transport: a message on WebSocket, or one packet of a payload with polling."""

    data: bytes
    binary: bool


def encode_payload(packets: Iterable[Encoded]) -> bytes:
    """Return the body with these packets."""
    frames: list[bytes] = []
    for packet in packets:
        if packet.text:
            frames.append(packet.text)
        frames.extend(b"b" + binascii.b2a_base64(data, newline=False) for data in packet.attachments)
    return SEPARATOR.join(frames)


def decode_payload(body: bytes, *, max_packets: int = MAX_PACKETS) -> list[Frame]:
    """Split a body into its frames.

    Args:
        body: the body of a POST. The caller must have checked its size.
        max_packets: maximum number of packets. They are counted before the body is split.

    Raises:
        ProtocolError: the body has an empty packet, too many packets, or invalid base64.
    """
    if body.count(SEPARATOR) >= max_packets:
        raise ProtocolError(f"more than {max_packets} packets in one payload")
    return [_frame(packet) for packet in body.split(SEPARATOR)]


def _frame(packet: bytes) -> Frame:
    if not packet:
        raise ProtocolError("an empty packet in a payload")
    if packet[0] != 0x62:  # "b"
        return Frame(packet, binary=False)
    try:
        return Frame(binascii.a2b_base64(packet[1:], strict_mode=True), binary=True)
    except binascii.Error as error:
        raise ProtocolError("broken base64 in a payload") from error
