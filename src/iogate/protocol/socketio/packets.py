"""Socket.IO v5 packets, whatever parser they are written with.

https://github.com/socketio/socket.io-protocol, section "Packet types"
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from iogate.protocol.engineio.packets import Encoded

ROOT = "/"
"""The namespace that a packet without one belongs to."""

MAX_ATTACHMENTS = 10
"""Attachments of one packet, unless the server is told otherwise; what the reference implementation allows."""
MAX_ID_DIGITS = 16
"""Digits of an acknowledgement id: 2^53 has as many, and a JavaScript client cannot count further."""
MAX_NAMESPACE = 256
"""Bytes of the name of a namespace."""
MAX_DEPTH = 100
"""Lists and objects within each other. Far below what the interpreter's stack bears."""


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

Encode = Callable[[Packet], Encoded]


class Decoder(Protocol):
    """Reads packets from the messages of one peer."""

    @property
    def waiting(self) -> bool:
        """Whether a packet has begun that is not complete."""

    def text(self, frame: bytes, start: int = 0) -> Packet:
        """Read a packet from a text message. Raises `ProtocolError`."""

    def binary(self, frame: bytes) -> Packet | None:
        """Take a binary message; return the packet that it is, or completes. Raises `ProtocolError`."""


class Parser(NamedTuple):
    """How packets are written and read.

    Args:
        encode: writes one.
        decoder: returns what reads those of one peer; it is told how many attachments a packet may announce.
    """

    encode: Encode
    decoder: Callable[[int], Decoder]
