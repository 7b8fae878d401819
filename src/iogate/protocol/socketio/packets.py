"""Socket.IO v5 packets, whatever parser they are written with.

https://github.com/socketio/socket.io-protocol, section "Packet types"
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from iogate.errors import ProtocolError
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
MAX_CONNECT_BYTES = 32_768
"""Bytes of a CONNECT packet, unless the owner of the connection sets another limit."""
MAX_UNVERIFIED_VALUES = 256
"""Values in a CONNECT packet, and in any packet of a peer that is not admitted. The peer is not authenticated yet, so
the packet must be cheap to decode and small to keep. Values are counted by their commas and opening brackets, including
those in strings."""
MAX_UNVERIFIED_DEPTH = 10
"""Levels of nested lists and objects in such a packet."""


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


class Oversized(msgspec.Struct, frozen=True):
    """Replaces the payload of a CONNECT that breaks a limit, so that the peer can be told which.

    Args:
        reason: the limit, in words.
    """

    reason: str


class TooManyValues(ProtocolError):
    """The data of a peer that is not admitted has too many values or levels."""


RESERVED_EVENTS = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)
"""Names that stand for something in the life of a socket, on one side or the other: no packet may carry them."""


def checked_event(data: Any) -> list[Any]:
    """Return the data of an EVENT packet as it is handled: a list, the name first. Raises `ProtocolError`."""
    if type(data) is list and data:
        name = data[0]
        if type(name) is int:  # To a JavaScript emitter 1 and "1" are the same name.
            name = data[0] = str(name)
        if type(name) is str and name not in RESERVED_EVENTS:
            return data
    raise ProtocolError("an EVENT is a list with a name that is not reserved")


def _ack(data: Any) -> list[Any]:
    if type(data) is list:
        return data
    raise ProtocolError("an ACK is a list")


def _connect(data: Any) -> dict[str, Any] | Oversized | None:
    if data is None or type(data) is dict or type(data) is Oversized:
        return data
    raise ProtocolError("the payload of CONNECT is an object")


def _connect_error(data: Any) -> Any:
    if type(data) is dict or type(data) is str:
        return data
    raise ProtocolError("the payload of CONNECT_ERROR is an object or a string")


def _disconnect(data: Any) -> None:
    if data is not None:
        raise ProtocolError("a DISCONNECT has no payload")


_CHECKED: Final = {
    PacketType.CONNECT: _connect,
    PacketType.DISCONNECT: _disconnect,
    PacketType.EVENT: checked_event,
    PacketType.ACK: _ack,
    PacketType.CONNECT_ERROR: _connect_error,
}


def checked(type_: PacketType, data: Any) -> Any:
    """Return the data of a packet that has been read, whatever parser has read it.

    Raises:
        ProtocolError: such a packet has no such data.
    """
    return _CHECKED[type_](data)


Encode = Callable[[Packet], Encoded]


class Decoder(Protocol):
    """Reads packets from the messages of one peer."""

    @property
    def waiting(self) -> bool:
        """Whether a packet has begun that is not complete."""

    def text(self, frame: bytes, start: int = 0, *, admitted: bool = True) -> Packet:
        """Read a packet from a text message. Raises `ProtocolError`."""

    def binary(self, frame: bytes, *, admitted: bool = True) -> Packet | None:
        """Take a binary message; return the packet that it is, or completes. Raises `ProtocolError`."""


class Parser(NamedTuple):
    """How packets are written and read.

    Args:
        encode: writes one.
        decoder: returns the decoder for one peer; its arguments are how many attachments a packet may announce, and
            how many bytes a CONNECT may have.
    """

    encode: Encode
    decoder: Callable[[int, int], Decoder]
