"""One Engine.IO session: it reads frames from its transport, and queues packets for it.

A session outlives its transport: it may begin with polling and move to a WebSocket. It ends once, in `close`. It knows
the protocol and nothing else. A subclass decides what a packet means (`gate/connection.py`); it implements the methods
that raise `NotImplementedError`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any

from iogate.errors import ProtocolError
from iogate.printable import printable
from iogate.protocol.engineio import connection as engineio
from iogate.protocol.engineio.packets import MESSAGE_DIGIT, PING, Encoded, OpenPacket, PacketType
from iogate.protocol.socketio import connection as socketio
from iogate.protocol.socketio.packets import Packet
from iogate.protocol.socketio.packets import PacketType as SocketPacketType
from iogate.server.session.eager import Rest
from iogate.server.session.handshake import Handshake
from iogate.server.session.reasons import CloseReason
from iogate.server.session.transport import NONE, Transport

if TYPE_CHECKING:
    from iogate.server.session.sessions import Sessions

logger = logging.getLogger("iogate")

MAX_RUNNING = 1000
"""Handlers of one session that may run at a time. At this number, iogate stops reading from the client."""
BURST = 4
"""Multiple of `max_buffered` that may be queued in one iteration of the event loop, in which the client cannot read."""
VOLATILE_BUFFERED = 65_536
"""Bytes that may be queued for a client before volatile packets for it are dropped."""
UNVERIFIED_FRAMES = 2
"""Frames of the maximum size in one polling payload of a client that is not admitted."""

FAST_PREFIX = b"42"
"""The first bytes of an event of the root namespace. (An event of another namespace continues with `/`.)"""


class Session:
    """The session of one client.

    Args:
        sessions: the sessions of the server.
        sid: its id, a secret between client and server.
        handshake: the request that opened it.
    """

    __slots__ = (
        "_closed",
        "_engine",
        "_fast",
        "_idle",
        "_outbox",
        "_running",
        "buffered",
        "context",
        "handshake",
        "reading_paused",
        "sessions",
        "sid",
        "socketio",
        "transport",
    )

    def __init__(self, sessions: Sessions[Any], sid: str, handshake: Handshake) -> None:
        self.sessions = sessions
        self.sid = sid
        self.handshake = handshake
        self.context: Context  # Set by `Sessions.add`. All code for this client runs in a copy of it.
        self.transport: Transport  # From `begin` to `drop_transport`.
        self.buffered = 0  # Bytes that are queued for the client.
        self.reading_paused = False  # So many handlers run that no more frames must be read from the client.
        settings = sessions.settings
        self.socketio = socketio.Connection(
            engineio.Role.SERVER,
            parser=sessions.parser,
            max_attachments=settings.max_attachments,
            max_connect=sessions.max_unverified,
        )
        self._engine = engineio.Connection(engineio.Role.SERVER)
        self._outbox: deque[Encoded] | None = None  # Most sessions never need one.
        self._closed = False
        self._fast: Any = None  # The first argument of `handle_fast`. None: all frames take the general path.
        self._running = 0
        self._idle: asyncio.Event | None = None

    # What a subclass implements.

    handle_fast: Callable[[Any, bytes], bool]
    """A function that handles a text frame that begins with `FAST_PREFIX`, given `_fast` and the frame. It returns
    False if the frame must take the general path."""

    def handle(self, packet: Packet) -> None:
        """Handle a Socket.IO packet of the client.

        Raises:
            ProtocolError: the client must not send this packet now.
        """
        raise NotImplementedError

    def heartbeat(self) -> None:
        """Record that the client has answered a ping."""
        raise NotImplementedError

    def update_fast_path(self) -> None:
        """Set `_fast`. Both paths must have the same result for every frame."""
        raise NotImplementedError

    def check_attachments(self) -> None:
        """Raise `ProtocolError` if the client must not send attachments now."""
        raise NotImplementedError

    def closing(self) -> None:
        """Drop what belongs to the session. `close` calls this first."""
        raise NotImplementedError

    def ended(self, reason: CloseReason) -> None:
        """Run application code for the end. `close` calls this last."""
        raise NotImplementedError

    # Opening.

    def begin(self, transport: Transport, upgrades: Sequence[str] = ()) -> None:
        """Send the client the OPEN packet of its session.

        Args:
            transport: the transport on which the client opened the session.
            upgrades: the names of the transports to which the client may upgrade.
        """
        self.transport = transport
        settings = self.sessions.settings
        opening = OpenPacket(
            sid=self.sid,
            upgrades=upgrades,
            ping_interval=round(settings.ping_interval * 1000),
            ping_timeout=round(settings.ping_timeout * 1000),
            max_payload=settings.max_payload,
        )
        self.send(opening.encode())

    @property
    def open(self) -> bool:
        """True until `close`."""
        return not self._closed

    @property
    def max_frame(self) -> int:
        """The maximum size of a frame of the client in bytes. It is small until the client is admitted."""
        sessions = self.sessions
        return sessions.settings.max_payload if self.socketio.admitted else sessions.max_unverified

    @property
    def max_body(self) -> int:
        """The maximum size of a polling payload in bytes. It is small until the client is admitted."""
        return min(self.sessions.settings.max_payload, UNVERIFIED_FRAMES * self.max_frame)

    # Input.

    def receive(self, frame: bytes, *, binary: bool = False) -> None:
        """Handle a frame of the client. An invalid frame, or one above a limit, closes the session."""
        receiver = self._fast
        if receiver is not None and frame[:2] == FAST_PREFIX and not binary and self.handle_fast(receiver, frame):
            return
        if self._closed:
            return
        if len(frame) > self.max_frame:
            logger.info("closed: a frame of %d bytes, and %d are allowed", len(frame), self.max_frame)
            self.close(CloseReason.TOO_LARGE)
            return
        try:
            if binary:
                packet = self.socketio.receive(frame, binary=True)
            elif frame.startswith(MESSAGE_DIGIT):
                packet = self.socketio.receive(frame, start=1)
            else:
                self._control(frame)
                return
            if self.socketio.waiting:
                self.check_attachments()
                self.sessions.attachment_timeout.start(self)
                self._fast = None
            elif binary:
                self.sessions.attachment_timeout.stop(self)
                self.update_fast_path()
            if packet is not None:
                self.handle(packet)
        except ProtocolError as error:
            self.fail(error)

    def fail(self, error: ProtocolError) -> None:
        """Close the session because its client violated the protocol."""
        logger.info("closed: %s", error)
        self.close(CloseReason.PARSE_ERROR)

    def _control(self, frame: bytes) -> None:
        event = self._engine.receive(frame)
        if event.type is PacketType.PONG:
            self.sessions.pong_received(self)
        elif event.type is PacketType.CLOSE:
            self.close(CloseReason.CLOSE_PACKET)

    # Output.

    @property
    def has_output(self) -> bool:
        """True if packets are queued for the transport."""
        return bool(self._outbox)

    def send(self, packet: Encoded, *, volatile: bool = False) -> None:
        """Send a packet, or queue it. If more than `max_buffered` bytes are queued, the session is closed.

        Args:
            packet: the packet.
            volatile: drop the packet if the client cannot take it at once.
        """
        if self._closed or (not self._outbox and self.transport.write(packet)):
            return
        writable = self.transport.writable
        if volatile and not (writable and self.buffered < min(VOLATILE_BUFFERED, self.sessions.settings.max_buffered)):
            return
        # Only packets that the client had a chance to read count, so one large packet does not end the session. A
        # higher limit applies to what one iteration of the event loop may queue, before the client has that chance.
        most = self.sessions.settings.max_buffered
        if self.buffered > most and (not writable or self.buffered > BURST * most):
            self.close(CloseReason.SLOW_CONSUMER)
            return
        self.buffered += packet.size
        self._keep(packet)
        self.transport.flush()

    def send_event(self, namespace: str, event: str, payload: object, ack_id: int | None = None) -> None:
        """Send an event of the server itself."""
        self.send(self.socketio.encode(Packet(SocketPacketType.EVENT, namespace, [event, payload], ack_id)))

    def take(self) -> list[Encoded]:
        """Remove all queued packets and return them, for a transport that sends them at once.

        The transport must call `sent` for each.
        """
        taken, self._outbox = self._outbox, None
        return list(taken or ())

    def take_one(self) -> Encoded | None:
        """Remove and return the next packet, for a transport that waits between packets. The others can be dropped."""
        return self._outbox.popleft() if self._outbox else None

    def sent(self, packet: Encoded) -> None:
        """Record that a packet was sent."""
        self.buffered -= packet.size

    def ping(self) -> None:
        """Send a ping."""
        self.send(PING)

    def drop_output(self, condition: Callable[[Encoded], bool]) -> None:
        """Drop the queued packets that fulfil a condition."""
        for packet in self.take():
            if condition(packet):
                self.buffered -= packet.size
            else:
                self._keep(packet)

    def _keep(self, packet: Encoded) -> None:
        if self._outbox is None:
            self._outbox = deque()
        self._outbox.append(packet)

    # The end.

    def close(self, reason: CloseReason, *, abort: bool = False) -> None:
        """End the session and its transport.

        Args:
            reason: why.
            abort: abort the transport, even if the reason lets it send what is queued.
        """
        if self._closed:
            return
        self._closed = True
        self._fast = None
        self.reading_paused = False
        self._engine.close()
        self.closing()
        self.sessions.remove(self)
        if self._idle is not None:
            self._idle.set()
        if abort or not reason.flush:
            self._outbox = None
            self.transport.abort()
        else:
            self.transport.close(reason)
        if not self.transport.lingers:
            self.drop_transport()
        self.ended(reason)

    def drop_transport(self) -> None:
        """Drop the transport, which no longer serves this session."""
        self.sessions.pending.discard(self)
        self.transport = NONE  # They refer to each other: a reference cycle.

    # Handlers that wait.

    def resume(self, rest: Rest, work: Coroutine[Any, Any, None]) -> None:
        """Continue a handler that waits, in a task that counts for this session.

        Args:
            rest: the rest of the handler.
            work: awaits it and uses its result.
        """
        self._running += 1
        self.reading_paused = self._running >= MAX_RUNNING and not self._closed
        self.sessions.resume(rest, work, self._handler_finished)

    def _handler_finished(self) -> None:
        self._running -= 1
        self.reading_paused = self._running >= MAX_RUNNING and not self._closed
        if self._idle is not None and not self.reading_paused:
            self._idle.set()
            self._idle = None

    async def wait_until_readable(self) -> None:
        """Return when more frames may be read from the client."""
        if self.reading_paused:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {printable(self.handshake.address)}>"
