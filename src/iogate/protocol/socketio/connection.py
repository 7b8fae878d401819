"""One side of a Socket.IO connection, without I/O: the namespaces it is in, and which packet may come for each.

A client asks for a namespace with CONNECT; the server accepts it or refuses it, and until then nothing else may come
for that namespace. Whether to accept is for the owner of this object to say: `receive` hands out the CONNECT packet
with whatever credential is in it, `accept` and `refuse` take the verdict (protocol section "Connection to a
namespace").

The tables are the whole grammar: a packet that has no row is an error, which ends the connection.
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
"""Namespaces that one connection may be in, or have been sent out of."""


class State(enum.Enum):
    """What a connection is to one namespace."""

    NONE = enum.auto()
    PENDING = enum.auto()
    """CONNECT has been said, the verdict has not."""
    CONNECTED = enum.auto()
    LEFT = enum.auto()
    """This side has left. What the peer sent before it knew is dropped."""


_SERVER, _CLIENT = Role.SERVER, Role.CLIENT
_NONE, _CONNECTED, _EVENT = State.NONE, State.CONNECTED, PacketType.EVENT

TRANSITIONS: dict[tuple[Role, State, PacketType], State] = {
    (_SERVER, State.NONE, PacketType.CONNECT): State.PENDING,
    (_SERVER, State.LEFT, PacketType.CONNECT): State.PENDING,
    (_SERVER, State.LEFT, PacketType.EVENT): State.LEFT,
    (_SERVER, State.LEFT, PacketType.ACK): State.LEFT,
    (_SERVER, State.LEFT, PacketType.DISCONNECT): State.NONE,
    (_SERVER, State.PENDING, PacketType.DISCONNECT): State.NONE,
    # The official JavaScript client asks again, without a word, when it is told to disconnect and connect at once.
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
        role: which side this is.
        parser: how packets are written and read.
        max_attachments: how many attachments the peer may announce for one packet.
        max_connect: bytes that a CONNECT may have.

    The owner sets `admitted`: as long as it is False, all that the peer sends is bounded like a CONNECT. A client
    trusts the server that it chose, so it starts with True.
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
        """Whether attachments are announced that have not come."""
        return self._decoder.waiting

    def state(self, namespace: str) -> State:
        """Return what the connection is to this namespace."""
        return self._states.get(namespace, State.NONE)

    def receive(self, frame: bytes, *, binary: bool = False, start: int = 0) -> Packet | None:
        """Take one Engine.IO message; return the packet that it completes, if any.

        Args:
            frame: the message.
            binary: whether it came as a binary one: an attachment.
            start: where the packet begins in a text message.

        Raises:
            ProtocolError: it is no packet, breaks a limit, or may not come now.
        """
        if binary:
            packet = self._decoder.binary(frame, admitted=self.admitted)
            if packet is None:
                return None
        else:
            packet = self._decoder.text(frame, start, admitted=self.admitted)
        # Asked of the head already: who is in no namespace cannot make the server wait for attachments.
        before = self._states.get(packet.namespace, _NONE)
        if before is _CONNECTED and packet.type is _EVENT:  # Nearly all there is; the table says the same.
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
        """Say yes to a CONNECT; return the packet that tells the client the id of its socket."""
        self._move(namespace, State.CONNECTED)
        return self.encode(Packet(PacketType.CONNECT, namespace, {"sid": sid}))

    def refuse(self, namespace: str, payload: dict[str, Any]) -> Encoded:
        """Say no to a CONNECT; return the packet that tells the client why."""
        self._move(namespace, State.NONE)
        return self.encode(Packet(PacketType.CONNECT_ERROR, namespace, payload))

    def connect(self, namespace: str, payload: dict[str, Any] | None = None) -> Encoded:
        """Ask for a namespace, as a client; return the packet that says so."""
        self._move(namespace, State.PENDING)
        return self.encode(Packet(PacketType.CONNECT, namespace, payload))

    def disconnect(self, namespace: str) -> Encoded:
        """Leave a namespace from this side; return the packet that says so."""
        self._move(namespace, State.LEFT)
        return self.encode(Packet(PacketType.DISCONNECT, namespace))

    def _move(self, namespace: str, state: State) -> None:
        if state is State.NONE:
            self._states.pop(namespace, None)
            return
        if namespace not in self._states and len(self._states) >= MAX_NAMESPACES:
            raise ProtocolError(f"more than {MAX_NAMESPACES} namespaces on one connection")
        self._states[namespace] = state
