"""One Engine.IO session on the server: what comes in goes to sockets, what goes out waits for the transport.

The session outlives its transport: it may begin with polling and move to a WebSocket. It ends once, in `close`.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any

from iogate.errors import AuthTimeout, ProtocolError, Refused
from iogate.printable import printable
from iogate.protocol.engineio import connection as engineio
from iogate.protocol.engineio.packets import MESSAGE_DIGIT, PING, Encoded, OpenPacket, PacketType
from iogate.protocol.socketio import connection as socketio
from iogate.protocol.socketio import packets
from iogate.protocol.socketio.json import JSON
from iogate.protocol.socketio.packets import ROOT
from iogate.server import dispatch
from iogate.server.attempts import MAX_REFUSALS, Attempt, Connect, Entry, InBand, Refresh, unauthorized
from iogate.server.eager import Rest
from iogate.server.handshake import Handshake
from iogate.server.identity import Identity
from iogate.server.reasons import CloseReason
from iogate.server.transport import NONE, Transport

if TYPE_CHECKING:
    from iogate.server.server import Server
    from iogate.server.socket import Socket

logger = logging.getLogger("iogate")

MAX_RUNNING = 1000
"""Handlers of one connection that may run at a time; with that many, nothing more is read from it."""
BURST = 4
"""Multiple of `max_buffered` that may wait for a client within one turn of the event loop, in which it cannot read."""
VOLATILE_BUFFERED = 65_536
"""Bytes that may wait for a client before volatile packets for it are dropped."""
GOODBYE = 1
"""The id of the acknowledgement by which a client says that it has read why it is turned away."""

UNVERIFIED_FRAMES = 2
"""Frames of the largest size that may come in one polling payload before the client has been let in."""
MAX_CONNECTS = 100
"""CONNECTs of a connection between two heartbeats: one for each namespace that it may be in."""

AUTHENTICATE = "authenticate"
DIRECT = b"42"
"""How an event of the root namespace begins; and one of another namespace, which is left alone then."""
EVENT = packets.PacketType.EVENT


class Connection:
    """One client's session.

    Args:
        server: the server.
        sid: its id, known to the client alone.
        handshake: the request that opened it.
    """

    __slots__ = (
        "_closed",
        "_direct",
        "_engine",
        "_idle",
        "_late",
        "_outbox",
        "_running",
        "_verifications",
        "_verifying",
        "abandoned",
        "attempts",
        "buffered",
        "busy",
        "candidate",
        "connects",
        "context",
        "end_due",
        "goodbyes",
        "handshake",
        "identity",
        "refusals",
        "server",
        "sid",
        "socketio",
        "sockets",
        "transport",
        "waiting",
    )

    def __init__(self, server: Server, sid: str, handshake: Handshake) -> None:
        self.server = server
        self.sid = sid
        self.handshake = handshake
        self.context: Context  # Set by `Server.take`; all code for this client runs in a copy of it.
        self.transport: Transport  # From `begin` until `leave`.
        self.identity: Identity | None = None
        self.candidate: Identity | None = None  # Verified but not adopted yet: middleware is still deciding.
        self.end_due = 0.0  # When the identity ends, on the monotonic clock, once its client has been told to refresh.
        self.sockets: dict[str, Socket] = {}
        self.attempts: dict[str, Attempt] = {}
        self.waiting: dict[str, Connect] = {}  # Let in on the wire only, until they authenticate.
        self.goodbyes: dict[str, None] = {}  # Turned away, and given a moment to say that they have read why.
        self.refusals = 0
        self.abandoned = 0  # Verdicts that the client has not waited for since it was let in last.
        self.connects = 0  # CONNECTs since the last heartbeat.
        self.buffered = 0
        self.busy = False  # So many of its handlers are running that nothing more may be read from the client for now.
        self.socketio = socketio.Connection(
            engineio.Role.SERVER,
            parser=server.parser,
            max_attachments=server.settings.max_attachments,
            max_connect=server.max_unverified,
        )
        self._engine = engineio.Connection(engineio.Role.SERVER)
        self._outbox: deque[Encoded] | None = None  # Made when it is needed: most connections never need it.
        self._closed = False
        self._direct: Socket | None = None  # The one in the root namespace, if its events can be handled directly.
        self._late = False  # The deadline has passed: nothing that is asked for now is answered.
        self._running = 0
        self._idle: asyncio.Event | None = None
        self._verifications = 0
        self._verifying: asyncio.Lock | None = None

    def begin(self, transport: Transport, upgrades: Sequence[str] = ()) -> None:
        """Tell the client about its session, on the transport that it came by.

        Args:
            transport: that transport.
            upgrades: the names of those that it may move to.
        """
        self.transport = transport
        settings = self.server.settings
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
        """Whether the session goes on."""
        return not self._closed

    @property
    def max_frame(self) -> int:
        """Bytes that a frame of the client may have: few until it is admitted."""
        return self.server.settings.max_payload if self.socketio.admitted else self.server.max_unverified

    @property
    def max_body(self) -> int:
        """Bytes that a polling payload may have: few until the client is admitted."""
        return min(self.server.settings.max_payload, UNVERIFIED_FRAMES * self.max_frame)

    # In.

    def receive(self, frame: bytes, *, binary: bool = False) -> None:
        """Take one frame from the transport. What breaks the grammar or a limit closes the connection."""
        if self._direct is not None and frame[:2] == DIRECT and not binary and dispatch.direct(self._direct, frame):
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
                if not self.sockets:
                    raise ProtocolError("attachments of a client that has not been let in")
                self.server.attachments_due.start(self)
                self._direct = None
            elif binary:
                self.server.attachments_due.stop(self)
                self._choose_direct()
            if packet is not None:
                self._handle(packet)
        except ProtocolError as error:
            self.fail(error)

    def _choose_direct(self) -> None:
        """Say whose events need no look at the grammar: the general way and `dispatch.direct` must not differ."""
        short = self.server.parser is JSON and not (self.socketio.waiting or self._closed)
        self._direct = self.sockets.get(ROOT) if short else None

    def fail(self, error: ProtocolError) -> None:
        """End the session because of what its client sent."""
        logger.info("closed: %s", error)
        self.close(CloseReason.PARSE_ERROR)

    def _control(self, frame: bytes) -> None:
        event = self._engine.receive(frame)
        if event.type is PacketType.PONG:
            self.server.pong_received(self)
        elif event.type is PacketType.CLOSE:
            self.close(CloseReason.CLOSE_PACKET)

    def _handle(self, packet: packets.Packet) -> None:
        name = packet.namespace
        socket = self.sockets.get(name)
        if packet.type is EVENT:
            if packet.data[0] == AUTHENTICATE:
                self._authenticate(name, socket, packet)
            elif socket is not None:
                dispatch.dispatch(socket, packet.data, packet.id)
        elif packet.type is packets.PacketType.ACK:
            if socket is not None and packet.id is not None:
                socket._acknowledged(packet.id, packet.data)
            elif name in self.goodbyes:
                self.part(name)
        elif packet.type is packets.PacketType.CONNECT:
            if socket is not None:
                self._forget(socket, CloseReason.CLIENT_DISCONNECT)
            self._give_up(name)  # A client that asks anew has given up what it asked for before.
            self.connects += 1
            self.server.pending.asked(self)
            if self.connects > MAX_CONNECTS:
                raise ProtocolError(f"more than {MAX_CONNECTS} CONNECTs between two heartbeats")
            if self._late or (self.abandoned >= MAX_REFUSALS and not self.sockets):
                self.close(CloseReason.NOT_ADMITTED)
            elif not self._closed:
                attempt = Connect(self, name, packet.data)
                self._try(attempt, self.server.gate.admit(attempt))
        elif socket is not None:
            self._forget(socket, CloseReason.CLIENT_DISCONNECT)
        else:
            self._give_up(name)

    # At the gate.

    @property
    def payload_bytes(self) -> int:
        """Bytes of the payloads of CONNECTs that are held for this connection; of sockets without their tokens."""
        held = [
            attempt.size for attempt in (*self.attempts.values(), *self.waiting.values()) if isinstance(attempt, Entry)
        ]
        return sum(held) + sum(socket._payload_size for socket in self.sockets.values())

    def _authenticate(self, name: str, socket: Socket | None, packet: packets.Packet) -> None:
        if name in self.attempts:
            return  # One at a time; the answer to the first is on its way.
        message = packet.data[1] if len(packet.data) > 1 else None
        if socket is not None:
            refresh = Refresh(socket, message, packet.id)
            self._try(refresh, self.server.gate.refresh(refresh))
        elif name in self.waiting:
            entry = InBand(self.waiting.pop(name), message, packet.id)
            self._try(entry, self.server.gate.admit(entry))

    def _try(self, attempt: Attempt, verdict: Coroutine[Any, Any, None]) -> None:
        self.attempts[attempt.namespace] = attempt
        try:
            rest = self.server.eager.begin(verdict, self.context)
        except asyncio.CancelledError:
            return  # By a hook that was called for it: the gate has refused it.
        if rest is not None:
            attempt.task = self.server.go_on(rest)
            if attempt.pending:
                self.server.verdict_due.start(attempt)
            else:  # A hook has ended the connection, and waits for something else now.
                attempt.cancel()

    def decided(self, attempt: Attempt) -> None:
        """Take note that there is a verdict on an attempt, or that none is waited for any more."""
        self.attempts.pop(attempt.namespace, None)
        self.server.verdict_due.stop(attempt)

    def _give_up(self, name: str) -> None:
        """Take note that the client does not ask for a namespace any more."""
        if self._withdraw(name):
            self.abandoned += 1
            self._count_abandoned()

    def _withdraw(self, name: str) -> bool:
        """Stop what is done for a namespace; return True if a verdict was being made."""
        attempt = self.attempts.get(name)
        if attempt is not None:
            attempt.cancel()
            self.decided(attempt)
        self.waiting.pop(name, None)
        if name in self.goodbyes:  # Whatever it says now, it knows that it is turned away.
            del self.goodbyes[name]
            self.server.goodbye_due.stop((self, name))
            self.close_if_empty()
        return attempt is not None

    def _count_abandoned(self) -> None:
        """Count a verdict that its client has not waited for: it has cost what a bad token costs."""
        if self.identity is None and self.server.auth is not None and not self.server.closing:
            self.server.failures.add(self.handshake.address)

    def identity_timed_out(self) -> None:
        """End a connection that has been let in nowhere in time, whether it ever asked or not."""
        if not self.sockets:
            self._late = True
            for attempt in list(self.attempts.values()):
                if attempt.pending:
                    attempt.time_out()
        for name in list(self.waiting):
            self.turn_away(name, AuthTimeout("no token before the deadline"))
        self.close_if_empty()

    def turn_away(self, namespace: str, refusal: Refused) -> None:
        """Tell a client that is in on the wire only that it is not let in, and part when it has read that."""
        self.waiting.pop(namespace, None)
        self.goodbyes[namespace] = None
        self.server.goodbye_due.start((self, namespace))
        self.tell(namespace, "unauthorized", unauthorized(refusal), GOODBYE)

    def part(self, namespace: str) -> None:
        """Send a client that was turned away out of the namespace, and close a transport that is nowhere else."""
        if namespace in self.goodbyes:
            del self.goodbyes[namespace]
            self.server.goodbye_due.stop((self, namespace))
            self.send(self.socketio.disconnect(namespace))
            self.close_if_empty()

    def close_if_empty(self) -> None:
        """Close a transport on which nobody is let in, asks to be, or is being told why not."""
        if not (self.sockets or self.attempts or self.waiting or self.goodbyes):
            self.close(CloseReason.NOT_ADMITTED)

    def tell(self, namespace: str, event: str, payload: object, ack_id: int | None = None) -> None:
        """Send an event of the gate's own."""
        self.send(self.socketio.encode(packets.Packet(EVENT, namespace, [event, payload], ack_id)))

    # Who it is.

    def lock_verification(self) -> asyncio.Lock:
        """Return the lock that lets one token be verified at a time; `unlock_verification` must follow."""
        self._verifications += 1
        self._verifying = self._verifying or asyncio.Lock()
        return self._verifying

    def unlock_verification(self) -> None:
        """Drop the lock if no verification needs it."""
        self._verifications -= 1
        if not self._verifications:
            self._verifying = None

    def verified(self, digest: bytes) -> Identity | None:
        """Return the identity that the token with this digest has proven on this connection, if any."""
        for identity in (self.identity, self.candidate):
            if identity is not None and hmac.compare_digest(identity.digest, digest):
                return identity
        return None

    def enter(self, socket: Socket) -> None:
        """Register a socket. Only a positive verdict of the gate calls this; no application code runs in it."""
        if not self.waiting:  # For whoever still waits in another namespace the deadline stays.
            self.server.identity_due.stop(self)
        self.server.pending.discard(self)
        self.socketio.admitted = True
        self.abandoned = 0
        self.sockets[socket.namespace.name] = socket
        self._choose_direct()
        socket._enter(self.identity)

    def adopt(self, identity: Identity | None) -> Callable[[], None]:
        """Replace the identity, for all sockets at once and before the next packet.

        Returns:
            A function for the rest: it ends the sockets and connections that the new identity does not allow, and
            calls the refresh handlers. They are application code, which may do anything, for example end this very
            connection.
        """
        old = self.identity
        if identity is None or identity is old:
            return _nothing
        self.identity, self.candidate = identity, None
        self.refusals = 0
        sockets = list(self.sockets.values())
        for socket in sockets:
            if socket._set_identity(identity):
                self._drop_output(socket._lost_access_to)
        return functools.partial(self._adopted, old, identity, sockets)

    def _adopted(self, old: Identity | None, identity: Identity, sockets: list[Socket]) -> None:
        for socket in sockets:
            if not socket.namespace.allows(identity.principal) and socket.connected:
                self._drop_output(socket._is_in_namespace_of)
                self.dismiss(socket, CloseReason.INSUFFICIENT_SCOPE)
        if not self._closed:
            self.server.identified(self)
        for socket in sockets:
            if socket.connected:
                dispatch.refreshed(socket, old.principal if old is not None else None, identity.principal)

    # Out.

    @property
    def has_output(self) -> bool:
        """Whether something waits for the transport."""
        return bool(self._outbox)

    def send(self, packet: Encoded, *, volatile: bool = False) -> None:
        """Hand a packet to the transport. A consumer that leaves more than `max_buffered` bytes unread is closed."""
        if self._closed or (not self._outbox and self.transport.write(packet)):
            return
        writable = self.transport.writable
        if volatile and not (writable and self.buffered < min(VOLATILE_BUFFERED, self.server.settings.max_buffered)):
            return
        # Only packets that the client had a chance to read count, so one large packet does not end the connection. A
        # higher limit bounds what one turn of the event loop may queue, before the client has that chance.
        most = self.server.settings.max_buffered
        if self.buffered > most and (not writable or self.buffered > BURST * most):
            self.close(CloseReason.SLOW_CONSUMER)
            return
        self.buffered += packet.size
        self._keep(packet)
        self.transport.flush()

    def _keep(self, packet: Encoded) -> None:
        if self._outbox is None:
            self._outbox = deque()
        self._outbox.append(packet)

    def take(self) -> list[Encoded]:
        """Return all that is to be sent, for a transport that sends it at once. It calls `sent` for each."""
        taken, self._outbox = self._outbox, None
        return list(taken or ())

    def take_one(self) -> Encoded | None:
        """Return the next packet, for a transport that waits between them: the others can still be dropped."""
        return self._outbox.popleft() if self._outbox else None

    def sent(self, packet: Encoded) -> None:
        """Take note that a packet has left."""
        self.buffered -= packet.size

    def ping(self) -> None:
        """Send a ping."""
        self.send(PING)

    def _drop_output(self, condition: Callable[[Encoded], bool]) -> None:
        for packet in self.take():
            if condition(packet):
                self.buffered -= packet.size
            else:
                self._keep(packet)

    # The end.

    def disconnect(self, socket: Socket, *, close: bool) -> None:
        """Send a socket out of its namespace, or end the whole connection."""
        if not socket.connected:
            return
        for gone in list(self.sockets.values()) if close else [socket]:
            self.dismiss(gone, CloseReason.SERVER_DISCONNECT)
        if close:
            self.close(CloseReason.SERVER_DISCONNECT)

    def dismiss(self, socket: Socket, reason: CloseReason) -> None:
        """Send a socket out of its namespace."""
        self.send(self.socketio.disconnect(socket.namespace.name))
        self._forget(socket, reason)

    def expel(self, refusal: Refused, reason: CloseReason) -> None:
        """End the session of somebody who was let in, and tell why.

        Nothing that was queued before is sent. Who does not even take the refusal is cut off without it.

        Args:
            refusal: why, for the client.
            reason: why, for the `disconnect` handlers.
        """
        self._drop_output(lambda _: True)
        for name in [*self.sockets, *self.waiting]:
            self.tell(name, "unauthorized", unauthorized(refusal))
            self.send(self.socketio.disconnect(name))
        self.close(reason, abort=self.transport.congested)

    def close(self, reason: CloseReason, *, abort: bool = False) -> None:
        """End the session: its sockets, the verdicts that are pending, its transport, its deadlines.

        Args:
            reason: why.
            abort: cut the transport off, also for a reason that lets it send the rest.
        """
        if self._closed:
            return
        self._closed = True
        self._direct = None
        self.busy = False
        self._engine.close()
        withdrawn = [name for name in {*self.attempts, *self.waiting, *self.goodbyes} if self._withdraw(name)]
        if withdrawn:  # Once for the transport, however many namespaces an honest client was asking for.
            self._count_abandoned()
        self.server.forget(self)
        if self._idle is not None:
            self._idle.set()
        if abort or not reason.flush:
            self._outbox = None
            self.transport.abort()
        else:
            self.transport.close(reason)
        if not self.transport.lingers:
            self.leave()
        for socket in list(self.sockets.values()):
            self._forget(socket, reason)

    def leave(self) -> None:
        """Drop the transport, which no longer serves this session."""
        self.server.pending.discard(self)
        self.transport = NONE  # They refer to each other: a reference cycle.

    def _forget(self, socket: Socket, reason: CloseReason) -> None:
        if self.sockets.pop(socket.namespace.name, None) is not socket:
            return  # The disconnect handler of another one has sent it away.
        self._choose_direct()
        socket._exit()
        socket.namespace.release()
        if not self.sockets and not self._closed:
            self.server.identity_due.start(self)  # In no namespace: it has as long as a new connection to find one.
        dispatch.disconnected(socket, reason)

    # The work it causes.

    def go_on(self, rest: Rest, work: Coroutine[Any, Any, None]) -> None:
        """Go on with a handler that waits, in a task that counts as this connection's.

        Args:
            rest: what is left of the handler.
            work: awaits it, and does what is to be done with its result.
        """
        self._running += 1
        self.busy = self._running >= MAX_RUNNING and not self._closed
        self.server.go_on(rest, work, self._finished)

    def _finished(self) -> None:
        self._running -= 1
        self.busy = self._running >= MAX_RUNNING and not self._closed
        if self._idle is not None and not self.busy:
            self._idle.set()
            self._idle = None

    async def ready(self) -> None:
        """Return when more may be read from the client."""
        if self.busy:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()

    def __repr__(self) -> str:
        return f"<Connection of {printable(self.handshake.address)} in {len(self.sockets)} namespaces>"


def _nothing() -> None:
    """Do nothing: the rest of `adopt` if nothing has changed."""
