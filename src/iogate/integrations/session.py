"""One client of another Socket.IO server, at iogate's gate.

The gate, its deadlines and its answers are those of iogate's own server: a `Session` is a `Connection` whose bytes the
other server's Engine.IO moves, and whose events the other server's handlers take. Here is what that makes different:
which packets go on to the other server, and which of its packets may go out. The other server gets packets as the gate
has decoded them, never frames: so two decoders cannot disagree about a frame.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
from engineio.packet import PING
from engineio.packet import Packet as EnginePacket

from iogate.errors import ProtocolError, Refused
from iogate.integrations.engine import EngineTransport, namespace_of
from iogate.integrations.incoming import has_large_integer
from iogate.protocol.socketio.packets import Packet, PacketType
from iogate.server.connection import AUTHENTICATE, EVENT, Connection
from iogate.server.handshake import Handshake
from iogate.server.reasons import CloseReason
from iogate.server.server import Server
from iogate.server.socket import Socket

MAX_HELD = 1000
"""Packets that are kept for a client while the other server's connect handler decides on it."""
REJECTED = "Connection rejected by server"
"""The message of a refusal that has none, as python-socketio words it."""


CATCH_ALL = "*"
"""The event for which python-socketio has handlers of all events. It leaves its name out of what these are given."""

_last = threading.local()
"""The namespace of the text frame that a thread sent last: the attachments that follow name none."""


class Decision(msgspec.Struct, eq=False):
    """One socket that the other server's connect handler decides on.

    Args:
        socket_id: its id, there and here.
        held: the packets that were meant for it meanwhile.
        refusal: what it was refused with, if it was.
        work: the call of the handler, and of what the server does around it.
    """

    socket_id: str
    held: list[Any] = msgspec.field(default_factory=list)
    refusal: Refused | None = None
    work: asyncio.Future[Any] | None = None

    def refuse(self, reason: object = None) -> None:
        """Take note of a refusal.

        Args:
            reason: what python-socketio would send: a message, or an object with `message` and perhaps `data`.
        """
        details = reason if isinstance(reason, dict) else {"message": reason}
        message = details.get("message")
        self.refusal = Refused(message if isinstance(message, str) else REJECTED, data=details.get("data"))


class Session(Connection):
    """One client.

    Args:
        server: iogate's server, whose gate this is.
        sid: the id of the Engine.IO session.
        handshake: the request that opened it.
    """

    __slots__ = ("_forwarded", "_text", "connecting", "deciding")

    transport: EngineTransport

    def __init__(self, server: Server, sid: str, handshake: Handshake) -> None:
        super().__init__(server, sid, handshake)
        self.connecting = asyncio.Lock()  # One connect handler at a time, as in python-socketio.
        self.deciding: dict[str, Decision] = {}
        self._forwarded: Packet | None = None
        self._text = ""

    # In.

    def read(self, data: str | bytes) -> Packet | None:
        """Take a message that the other server's Engine.IO has read; return the packet that it must handle, if any."""
        if not self.open:
            return None
        self._text = data if isinstance(data, str) else self._text
        self.receive(b"4" + data.encode() if isinstance(data, str) else data, binary=isinstance(data, bytes))
        if not self.socketio.waiting:
            self._text = ""
        packet, self._forwarded = self._forwarded, None
        return packet

    def _choose_direct(self) -> None:
        """Leave events to the other server."""

    def _handle(self, packet: Packet) -> None:
        event = packet.data[0] if packet.type is EVENT else None
        if packet.type not in {EVENT, PacketType.ACK} or packet.namespace not in self.sockets or event == AUTHENTICATE:
            super()._handle(packet)
        elif event == CATCH_ALL:
            raise ProtocolError("an event with the name of the handler of all events")
        elif has_large_integer(self._text, packet.data):
            raise ProtocolError("an integer of more than 99 digits")
        else:
            self._forwarded = packet

    # Out.

    def put(self, packet: Any) -> None:
        """Queue a packet of the other server, if it may go out: nothing can change that in between."""
        with self.transport.lock:
            if self._lets_out(packet):
                self.transport.put(packet)

    def _lets_out(self, packet: Any) -> bool:
        """Say whether a packet of the other server, as its Engine.IO has it, may go out now.

        Only who has been let in hears anything. What is meant for somebody who is being decided on is kept.
        """
        if isinstance(packet.data, str):
            _last.namespace = namespace_of(packet.data)
        if not self.open:
            return False
        decision = self.deciding.get(_last.namespace)
        if decision is None:
            return _last.namespace in self.sockets
        if len(decision.held) < MAX_HELD:
            decision.held.append(packet)
        else:
            decision.refuse()
        return False

    def ping(self) -> None:
        """Send a ping as a packet of Engine.IO, not as a message."""
        with self.transport.lock:
            self.transport.put(EnginePacket(PING))

    def enter(self, socket: Socket) -> None:
        """Register a socket. From now on the client may send larger messages."""
        super().enter(socket)
        self.transport.limit(self.max_body)

    def dismiss(self, socket: Socket, reason: CloseReason) -> None:
        """Send a socket out of its namespace; what was queued for it there is not sent."""
        name = socket.namespace.name
        with self.transport.lock:  # What another thread emits comes before all of it, or is not sent.
            self.transport.drop(name)
            super().dismiss(socket, reason)

    def expel(self, refusal: Refused, reason: CloseReason) -> None:
        """End the session of somebody who was let in, and tell why. Nothing that was queued before is sent."""
        with self.transport.lock:
            self.transport.drop()
            super().expel(refusal, reason)

    def leave(self) -> None:
        """Keep the transport: the other server may still have packets for it, which it drops."""
        self.server.pending.discard(self)
