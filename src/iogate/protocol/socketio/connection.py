"""The state of one side of a Socket.IO connection, without I/O: its namespaces, and the packets allowed in each.

A client requests a namespace with CONNECT, and the server accepts or rejects it. Until then the client may only send
CONNECT again or DISCONNECT for that namespace. The owner of this object decides: `receive` returns the CONNECT packet
with its credential, and `accept` or `refuse` applies the verdict (protocol section "Connection to a namespace").

The table is the complete grammar. A packet without a row is an error, which closes the connection.
"""

from __future__ import annotations

import enum
from typing import Any

from iogate.errors import ProtocolError
from iogate.protocol.engineio.connection import Role
from iogate.protocol.engineio.packets import Encoded
from iogate.protocol.socketio.json import JSON
from iogate.protocol.socketio.packets import MAX_ATTACHMENTS, MAX_CONNECT_BYTES, Packet, PacketType, Parser

MAX_NAMESPACES = 100
"""Maximum number of namespaces of one connection that are pending, connected or left."""


class State(enum.Enum):
    """The state of a connection in one namespace."""

    NONE = enum.auto()
    PENDING = enum.auto()
    """CONNECT has been sent, and there is no verdict yet."""
    CONNECTED = enum.auto()
    LEFT = enum.auto()
    """This side has left the namespace. Packets that the peer sent before it received DISCONNECT are dropped."""


_SERVER, _CLIENT = Role.SERVER, Role.CLIENT
_NONE, _CONNECTED, _EVENT = State.NONE, State.CONNECTED, PacketType.EVENT

TRANSITIONS: dict[tuple[Role, State, PacketType], State] = {
    (_SERVER, State.NONE, PacketType.CONNECT): State.PENDING,
    (_SERVER, State.LEFT, PacketType.CONNECT): State.PENDING,
    (_SERVER, State.LEFT, PacketType.EVENT): State.LEFT,
    (_SERVER, State.LEFT, PacketType.ACK): State.LEFT,
    (_SERVER, State.LEFT, PacketType.DISCONNECT): State.NONE,
    (_SERVER, State.PENDING, PacketType.DISCONNECT): State.NONE,
    # If the application calls `disconnect()` and then `connect()` immediately, the official JavaScript client sends
    # CONNECT again without DISCONNECT.
    (_SERVER, State.PENDING, PacketType.CONNECT): State.PENDING,
    (_SERVER, State.CONNECTED, PacketType.CONNECT): State.PENDING,
    (_SERVER, State.CONNECTED, PacketType.EVENT): State.CONNECTED,
    (_SERVER, State.CONNECTED, PacketType.ACK): State.CONNECTED,
    (_SERVER, State.CONNECTED, PacketType.DISCONNECT): State.NONE,
    (_CLIENT, State.PENDING, PacketType.CONNECT): State.CONNECTED,
    (_CLIENT, State.PENDING, PacketType.CONNECT_ERROR): State.NONE,
    (_CLIENT, State.CONNECTED, PacketType.EVENT): State.CONNECTED,
    (_CLIENT, State.CONNECTED, PacketType.ACK): State.CONNECTED,
    (_CLIENT, State.CONNECTED, PacketType.DISCONNECT): State.NONE,
    (_CLIENT, State.LEFT, PacketType.CONNECT): State.LEFT,
    (_CLIENT, State.LEFT, PacketType.CONNECT_ERROR): State.NONE,
    (_CLIENT, State.LEFT, PacketType.EVENT): State.LEFT,
    (_CLIENT, State.LEFT, PacketType.ACK): State.LEFT,
    (_CLIENT, State.LEFT, PacketType.DISCONNECT): State.NONE,
}


class Connection:
    """The namespaces of one connection.

    Args:
        role: the side of the connection.
        parser: encodes and decodes packets.
        max_attachments: maximum number of attachments that the peer may announce for one packet.
        max_connect: maximum size of a CONNECT in bytes.

    The owner sets `admitted`. While it is False, all packets of the peer are limited to the number and depth of values
    that a CONNECT may have. For a client, which trusts its server, it is True from the start.
    """

    __slots__ = ("_decoder", "_states", "admitted", "encode", "role")

    def __init__(
        self,
        role: Role,
        *,
        parser: Parser = JSON,
        max_attachments: int = MAX_ATTACHMENTS,
        max_connect: int = MAX_CONNECT_BYTES,
    ) -> None:
        self.role = role
        self.encode = parser.encode
        self.admitted = role is Role.CLIENT
        self._decoder = parser.decoder(max_attachments, max_connect)
        self._states: dict[str, State] = {}

    @property
    def waiting(self) -> bool:
        """True if announced attachments have not arrived yet."""
        return self._decoder.waiting

    def state(self, namespace: str) -> State:
        """Return the state of the connection in this namespace."""
        return self._states.get(namespace, State.NONE)

    def receive(self, frame: bytes, *, binary: bool = False, start: int = 0) -> Packet | None:
        """Process one Engine.IO message, and return the packet that it completes, or None.

        Args:
            frame: the message.
            binary: True if it is a binary message: an attachment, or a packet of a binary parser.
            start: the index at which the packet starts in a text message.

        Raises:
            ProtocolError: the message is not a packet, exceeds a limit, or is not allowed in this state.
        """
        if binary:
            packet = self._decoder.binary(frame, admitted=self.admitted)
            if packet is None:
                return None
        else:
            packet = self._decoder.text(frame, start, admitted=self.admitted)
        # Check the state before attachments arrive: a peer without a namespace cannot make the server wait for them.
        before = self._states.get(packet.namespace, _NONE)
        if before is _CONNECTED and packet.type is _EVENT:  # Fast path for most packets; same as the table.
            return None if self._decoder.waiting else packet
        after = TRANSITIONS.get((self.role, before, packet.type))
        if after is None:
            raise ProtocolError(f"{packet.type.name} may not come in state {before.name}")
        if self._decoder.waiting:
            return None
        if after is not before:
            self._move(packet.namespace, after)
        if after is State.LEFT or (before is State.LEFT and after is State.NONE):
            return None
        return packet

    def accept(self, namespace: str, sid: str) -> Encoded:
        """Accept a CONNECT, and return the packet that contains the id of the socket."""
        self._move(namespace, State.CONNECTED)
        return self.encode(Packet(PacketType.CONNECT, namespace, {"sid": sid}))

    def refuse(self, namespace: str, payload: dict[str, Any]) -> Encoded:
        """Reject a CONNECT, and return the packet that contains the reason."""
        self._move(namespace, State.NONE)
        return self.encode(Packet(PacketType.CONNECT_ERROR, namespace, payload))

    def connect(self, namespace: str, payload: dict[str, Any] | None = None) -> Encoded:
        """Request a namespace as a client, and return the CONNECT packet."""
        self._move(namespace, State.PENDING)
        return self.encode(Packet(PacketType.CONNECT, namespace, payload))

    def disconnect(self, namespace: str) -> Encoded:
        """Leave a namespace from this side, and return the DISCONNECT packet."""
        self._move(namespace, State.LEFT)
        return self.encode(Packet(PacketType.DISCONNECT, namespace))

    def _move(self, namespace: str, state: State) -> None:
        if state is State.NONE:
            self._states.pop(namespace, None)
            return
        if namespace not in self._states and len(self._states) >= MAX_NAMESPACES:
            raise ProtocolError(f"more than {MAX_NAMESPACES} namespaces on one connection")
        self._states[namespace] = state
