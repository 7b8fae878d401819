"""Socket.IO v5 packets, independent of the parser.

See https://github.com/socketio/socket.io-protocol, section "Packet types".
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from iogate.errors import ProtocolError
from iogate.protocol.engineio.packets import Encoded

ROOT = "/"
"""The root namespace: the default of packets without a namespace."""

MAX_ATTACHMENTS = 10
"""Default of the maximum number of attachments of one packet, the same as in the reference implementation."""
MAX_ID_DIGITS = 16
"""Maximum number of digits of an acknowledgement id: 2^53 has 16, and JavaScript clients cannot count further."""
MAX_NAMESPACE = 256
"""Maximum size of the name of a namespace in bytes."""
MAX_DEPTH = 100
"""Maximum depth of nested lists and objects, which is far below the recursion limit of the interpreter."""
MAX_CONNECT_BYTES = 32_768
"""Default of the maximum size of a CONNECT in bytes: of its payload in JSON, or of the whole MessagePack packet."""
MAX_UNVERIFIED_VALUES = 256
"""Maximum number of values in a CONNECT packet, and in any packet of a peer that is not admitted.

The peer is not authenticated yet, so the packet must be cheap to decode and small to store. The JSON parser counts
commas and opening brackets, including those in strings.
"""
MAX_UNVERIFIED_DEPTH = 10
"""Maximum depth of nested lists and objects in such a packet."""


class PacketType(enum.IntEnum):
    """The packet types. The value is the digit on the wire."""

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
        type: the type. It is EVENT or ACK even if the packet is sent as BINARY_EVENT or BINARY_ACK: only the parser
            handles attachments.
        namespace: the namespace, with its leading slash.
        data: for EVENT, a list that starts with the name; for ACK, a list; for CONNECT, the payload; for CONNECT_ERROR,
            an object or a string.
        id: the id of the acknowledgement that an EVENT requests or an ACK sends; None if there is none.
    """

    type: PacketType
    namespace: str = ROOT
    data: Any = None
    id: int | None = None


class Oversized(msgspec.Struct, frozen=True):
    """The replacement for the payload of a CONNECT that exceeds a limit, so that the peer can receive the reason.

    Args:
        reason: a description of the limit.
    """

    reason: str


class TooManyValues(ProtocolError):
    """The data of a packet has too many values or levels."""


RESERVED_EVENTS = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)
"""Event names that clients or servers use for events of the socket itself, so no packet may contain them."""


def checked_event(data: Any) -> list[Any]:
    """Check the data of an EVENT packet, and return it as a list that starts with the name as a string.

    Raises:
        ProtocolError: the data is not such a list, or the name is reserved.
    """
    if type(data) is list and data:
        name = data[0]
        if type(name) is int:  # For a JavaScript emitter, 1 and "1" are the same name.
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
    """Check the data of a received packet, and return it. This does not depend on the parser.

    Raises:
        ProtocolError: a packet of this type must not have such data.
    """
    return _CHECKED[type_](data)


Encode = Callable[[Packet], Encoded]


class Decoder(Protocol):
    """A decoder for the packets of one peer."""

    @property
    def waiting(self) -> bool:
        """True if the decoder waits for attachments of a packet."""

    def text(self, frame: bytes, start: int = 0, *, admitted: bool = True) -> Packet:
        """Decode a packet from a text message, which starts at `start`. Raises `ProtocolError`."""

    def binary(self, frame: bytes, *, admitted: bool = True) -> Packet | None:
        """Decode a binary message, and return the packet that it is or completes, if any. Raises `ProtocolError`."""


class Parser(NamedTuple):
    """A parser: functions that encode and decode packets.

    Args:
        encode: encodes a packet.
        decoder: returns the decoder for one peer. It takes the maximum number of attachments of a packet, and the
            maximum size of a CONNECT in bytes.
    """

    encode: Encode
    decoder: Callable[[int, int], Decoder]
