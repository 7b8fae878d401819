"""The state of one side of an Engine.IO session, without I/O: which packets are allowed in which state.

A session opens, carries messages and heartbeats, and closes. A client that starts with polling may upgrade to
WebSocket: it opens a WebSocket, sends a probe, waits for the response, and then sends UPGRADE. Until then the session
stays on polling (protocol section "Upgrade mechanism"). In version 4 the server sends pings, and the client pongs.

The tables below are the complete grammar. A packet without a row is an error, which closes the session.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, NoReturn

import msgspec

from iogate.errors import ProtocolError
from iogate.protocol.engineio.packets import OpenPacket, PacketType


class Role(enum.Enum):
    """Which side of the session this is."""

    SERVER = enum.auto()
    CLIENT = enum.auto()


class State(enum.Enum):
    """The state of a session."""

    OPENING = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class Probe(enum.Enum):
    """The state of an upgrade to another transport."""

    WAITING = enum.auto()
    PROBED = enum.auto()
    DONE = enum.auto()


TRANSITIONS: dict[tuple[Role, State, PacketType], State] = {
    (Role.SERVER, State.OPEN, PacketType.PONG): State.OPEN,
    (Role.SERVER, State.OPEN, PacketType.MESSAGE): State.OPEN,
    (Role.SERVER, State.OPEN, PacketType.CLOSE): State.CLOSED,
    (Role.CLIENT, State.OPENING, PacketType.OPEN): State.OPEN,
    (Role.CLIENT, State.OPEN, PacketType.PING): State.OPEN,
    (Role.CLIENT, State.OPEN, PacketType.MESSAGE): State.OPEN,
    (Role.CLIENT, State.OPEN, PacketType.NOOP): State.OPEN,
    (Role.CLIENT, State.OPEN, PacketType.CLOSE): State.CLOSED,
}

PROBE_TRANSITIONS: dict[tuple[Role, Probe, bytes], Probe] = {
    (Role.SERVER, Probe.WAITING, b"2probe"): Probe.PROBED,
    (Role.SERVER, Probe.PROBED, b"5"): Probe.DONE,
    (Role.CLIENT, Probe.WAITING, b"3probe"): Probe.DONE,
}


class Event(NamedTuple):
    """A received packet: its type and its body."""

    type: PacketType
    data: bytes = b""
    binary: bool = False


class Connection:
    """The state of one session.

    Args:
        role: the side of the session. A server's session is open from the start, a client's when it receives OPEN.
    """

    __slots__ = ("role", "state")

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = State.OPEN if role is Role.SERVER else State.OPENING

    def receive(self, frame: bytes, *, binary: bool = False) -> Event:
        """Parse one frame from the transport, and return its packet.

        Raises:
            ProtocolError: the frame is not a packet, or the packet is not allowed in this state. The session is closed.
        """
        event = Event(PacketType.MESSAGE, frame, binary=True) if binary else self._parse(frame)
        state = TRANSITIONS.get((self.role, self.state, event.type))
        if state is None:
            self._fail(f"{event.type.name} may not come in state {self.state.name}")
        self.state = state
        return event

    def close(self) -> None:
        """Close the session from this side."""
        self.state = State.CLOSED

    def _parse(self, frame: bytes) -> Event:
        digit = frame[0] - 0x30 if frame else -1
        if not 0 <= digit <= PacketType.NOOP:
            self._fail("a frame without a packet type")
        type_ = PacketType(digit)
        if type_ is not PacketType.MESSAGE and type_ is not PacketType.OPEN and len(frame) > 1:
            self._fail(f"{type_.name} has a body")
        return Event(type_, frame[1:])

    def _fail(self, reason: str) -> NoReturn:
        self.state = State.CLOSED
        raise ProtocolError(reason)


class Upgrade:
    """The state of an upgrade, as seen on the new transport.

    Args:
        role: the side of the session.
    """

    __slots__ = ("role", "state")

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = Probe.WAITING

    def receive(self, frame: bytes, *, binary: bool = False) -> Probe:
        """Process one frame from the new transport, and return the new state of the upgrade.

        Raises:
            ProtocolError: the frame is not allowed in this state. The session itself does not change.
        """
        state = None if binary else PROBE_TRANSITIONS.get((self.role, self.state, frame))
        if state is None:
            raise ProtocolError(f"not what an upgrade in state {self.state.name} waits for")
        self.state = state
        return state


def parse_open(event: Event) -> OpenPacket:
    """Return the handshake data of an OPEN packet.

    Raises:
        ProtocolError: the packet is not OPEN, or its body is not a handshake object.
    """
    if event.type is not PacketType.OPEN:
        raise ProtocolError(f"OPEN was expected, {event.type.name} came")
    try:
        return msgspec.json.decode(event.data, type=OpenPacket)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("OPEN without a handshake object") from error
