"""The gate's connection to a client of a protected python-socketio server.

The gate, its deadlines and its answers are those of iogate's own server. A `Session` is a `Connection` whose bytes the
protected server's Engine.IO transports, and whose events the protected server's handlers process. This module has the
differences: which packets are passed to the protected server, and which of its packets may be sent. That server gets
packets that the gate has decoded, never frames, so two decoders cannot disagree about a frame.
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
from iogate.server.gate.connection import AUTHENTICATE, EVENT, Connection
from iogate.server.gate.gate import Gate
from iogate.server.namespaces.socket import Socket
from iogate.server.session.handshake import Handshake
from iogate.server.session.reasons import CloseReason

MAX_HELD = 1000
"""The number of packets that are held for a client while the protected server's connect handler decides on it."""
REJECTED = "Connection rejected by server"
"""The message of a rejection without one, the same as python-socketio's."""


CATCH_ALL = "*"
"""The name with which python-socketio registers handlers for all events. A client must not send an event of this name:
python-socketio would call these handlers without the event's name as an argument."""

_last = threading.local()
"""The namespace of the last text frame that a thread sent. The attachments that follow it do not name a namespace."""


class Decision(msgspec.Struct, eq=False):
    """A socket that the protected server's connect handler has not decided on yet.

    Args:
        socket_id: the id of the socket, the same at the gate and in the protected server.
        held: the packets for the socket, which are sent when it is admitted.
        refusal: the rejection, if the socket was rejected.
        work: the call of the server's `_handle_connect`, which calls the connect handler.
    """

    socket_id: str
    held: list[Any] = msgspec.field(default_factory=list)
    refusal: Refused | None = None
    work: asyncio.Future[Any] | None = None

    def refuse(self, reason: object = None) -> None:
        """Record a rejection.

        Args:
            reason: the data that python-socketio would send: a message, or an object with `message` and perhaps `data`.
        """
        details = reason if isinstance(reason, dict) else {"message": reason}
        message = details.get("message")
        self.refusal = Refused(message if isinstance(message, str) else REJECTED, data=details.get("data"))


class Session(Connection):
    """A connection to one client.

    Args:
        gate: the gate of iogate's server.
        sid: the id of the Engine.IO session.
        handshake: the request that opened the session.
    """

    __slots__ = ("_forwarded", "_text", "connecting", "deciding")

    transport: EngineTransport

    def __init__(self, gate: Gate, sid: str, handshake: Handshake) -> None:
        super().__init__(gate, sid, handshake)
        self.connecting = asyncio.Lock()  # One connect handler at a time, as in python-socketio.
        self.deciding: dict[str, Decision] = {}
        self._forwarded: Packet | None = None
        self._text = ""

    # Packets from the client.

    def read(self, data: str | bytes) -> Packet | None:
        """Process a message that the protected server's Engine.IO has read.

        Returns:
            The packet that the protected server must handle, or None.
        """
        if not self.open:
            return None
        self._text = data if isinstance(data, str) else self._text
        self.receive(b"4" + data.encode() if isinstance(data, str) else data, binary=isinstance(data, bytes))
        if not self.socketio.waiting:
            self._text = ""
        packet, self._forwarded = self._forwarded, None
        return packet

    def update_fast_path(self) -> None:
        """Do nothing: the fast path is only for iogate's own handlers."""

    def handle(self, packet: Packet) -> None:
        """Let the gate handle a packet, or keep it for the protected server."""
        event = packet.data[0] if packet.type is EVENT else None
        if packet.type not in {EVENT, PacketType.ACK} or packet.namespace not in self.sockets or event == AUTHENTICATE:
            super().handle(packet)
        elif event == CATCH_ALL:
            raise ProtocolError("an event with the name of the handler of all events")
        elif has_large_integer(self._text, packet.data):
            raise ProtocolError("an integer of more than 99 digits")
        else:
            self._forwarded = packet

    # Packets to the client.

    def put(self, packet: Any) -> None:
        """Queue a packet of the protected server, if it may be sent. The lock keeps that decision valid meanwhile."""
        with self.transport.lock:
            if self._lets_out(packet):
                self.transport.put(packet)

    def _lets_out(self, packet: Any) -> bool:
        """Return True if an Engine.IO packet of the protected server may be sent now.

        Packets are sent only to admitted sockets. While the connect handler decides on a socket, they are held.
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
        """Send a ping as an Engine.IO packet, not as a message."""
        with self.transport.lock:
            self.transport.put(EnginePacket(PING))

    def enter(self, socket: Socket) -> None:
        """Register a socket. From now on the client may send larger messages."""
        super().enter(socket)
        self.transport.limit(self.max_body)

    def leave_namespace(self, socket: Socket, reason: CloseReason) -> None:
        """Disconnect a socket from its namespace, and drop the messages that were queued for it."""
        name = socket.namespace.name
        with self.transport.lock:  # No other thread may queue a packet for the socket between the two calls.
            self.transport.drop(name)
            super().leave_namespace(socket, reason)

    def terminate(self, refusal: Refused, reason: CloseReason) -> None:
        """End the session of an admitted client, send it the reason, and drop the messages that were queued before."""
        with self.transport.lock:
            self.transport.drop()
            super().terminate(refusal, reason)

    def drop_transport(self) -> None:
        """Keep the transport, to which the protected server may still send packets. They are dropped."""
        self.sessions.pending.discard(self)
