"""Socket.IO v5 packets, whatever parser they are written with.

https://github.com/socketio/socket.io-protocol, section "Packet types"
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

ROOT = "/"
"""The namespace that a packet without one belongs to."""


class PacketType(enum.IntEnum):
    """The packet types, by the digit that stands on the wire."""

    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


class Packet(msgspec.Struct):
    """One packet.

    Args:
        type: EVENT or ACK also for what travels as BINARY_EVENT or BINARY_ACK: whether there are attachments is the
            parser's affair.
        namespace: the namespace, with its leading slash.
        data: EVENT: a list, the name first. ACK: a list. CONNECT: the payload. CONNECT_ERROR: an object.
        id: the acknowledgement that is asked for (EVENT) or given (ACK).
    """

    type: PacketType
    namespace: str = ROOT
    data: Any = None
    id: int | None = None


RESERVED_EVENTS = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)
"""Names that stand for something in the life of a socket, on one side or the other: no packet may carry them."""
