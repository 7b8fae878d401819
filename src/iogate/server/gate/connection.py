"""A connection: a session whose client has sockets in namespaces, attempts at the gate, and perhaps an identity."""

from __future__ import annotations

import asyncio
import functools
import hmac
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from iogate.errors import AuthTimeout, ProtocolError, Refused
from iogate.printable import printable
from iogate.protocol.engineio.packets import Encoded
from iogate.protocol.socketio.json import JSON
from iogate.protocol.socketio.packets import ROOT, Packet, PacketType
from iogate.server.gate.attempts import (
    MAX_REJECTIONS,
    Admission,
    Attempt,
    Connect,
    InBandLogin,
    Refresh,
    unauthorized,
)
from iogate.server.identity import Identity
from iogate.server.namespaces import dispatch
from iogate.server.namespaces.socket import Socket
from iogate.server.session.handshake import Handshake
from iogate.server.session.reasons import CloseReason
from iogate.server.session.session import Session

if TYPE_CHECKING:
    from iogate.server.gate.gate import Gate

REJECTION_ACK_ID = 1
"""The id of the acknowledgement with which a client confirms that it has read the rejection."""
MAX_CONNECTS = 100
"""CONNECTs of a connection between two heartbeats: one for each namespace that it may be in."""

AUTHENTICATE = "authenticate"
EVENT = PacketType.EVENT


class Connection(Session):
    """The connection of one client.

    Args:
        gate: the gate of the server.
        sid: the id of the session.
        handshake: the request that opened the session.
    """

    __slots__ = (
        "_auth_deadline_passed",
        "_verifications",
        "_verifying",
        "abandoned",
        "attempts",
        "candidate",
        "connects",
        "expires",
        "gate",
        "identity",
        "rejected",
        "rejections",
        "sockets",
        "waiting",
    )

    def __init__(self, gate: Gate, sid: str, handshake: Handshake) -> None:
        super().__init__(gate.sessions, sid, handshake)
        self.gate = gate
        self.identity: Identity | None = None
        self.candidate: Identity | None = None  # Verified, but the middleware has not decided yet.
        self.expires = 0.0  # When the identity ends, on the monotonic clock; valid once `token_expiring` was sent.
        self.sockets: dict[str, Socket] = {}
        self.attempts: dict[str, Attempt] = {}
        self.waiting: dict[str, Connect] = {}  # Accepted on the wire only, until they authenticate.
        self.rejected: dict[str, None] = {}  # Rejected in band, and not confirmed by the client yet.
        self.rejections = 0  # Bad credentials.
        self.abandoned = 0  # Verdicts that the client has not waited for since it was admitted last.
        self.connects = 0  # CONNECTs since the last heartbeat.
        self._auth_deadline_passed = False  # From then on, attempts are not answered.
        self._verifications = 0
        self._verifying: asyncio.Lock | None = None

    # Input.

    handle_fast = staticmethod(dispatch.dispatch_fast)  # Not a method that calls it: this saves a call per event.

    def update_fast_path(self) -> None:
        """Use the fast path for events of the root namespace if the parser is JSON."""
        usable = self.sessions.parser is JSON and not self.socketio.waiting and self.open
        self._fast = self.sockets.get(ROOT) if usable else None

    def check_attachments(self) -> None:
        """Raise `ProtocolError` if the client is not in a namespace."""
        if not self.sockets:
            raise ProtocolError("attachments of a client that is not in a namespace")

    def heartbeat(self) -> None:
        """Reset the counters of what a client may do between two heartbeats."""
        self.connects = 0
        if self.sockets:
            self.abandoned = 0

    def handle(self, packet: Packet) -> None:
        """Handle a packet: an attempt at the gate, or data for a socket that is admitted."""
        name = packet.namespace
        socket = self.sockets.get(name)
        if packet.type is EVENT:
            if packet.data[0] == AUTHENTICATE:
                self._authenticate(name, socket, packet)
            elif socket is not None:
                dispatch.dispatch(socket, packet.data, packet.id)
        elif packet.type is PacketType.ACK:
            if socket is not None and packet.id is not None:
                socket._acknowledged(packet.id, packet.data)
            elif name in self.rejected:
                self.finish_rejection(name)
        elif packet.type is PacketType.CONNECT:
            self._connect(name, socket, packet.data)
        elif socket is not None:
            self._remove(socket, CloseReason.CLIENT_DISCONNECT)
        else:
            self._abandon(name)

    def _connect(self, name: str, socket: Socket | None, payload: Any) -> None:
        if socket is not None:
            self._remove(socket, CloseReason.CLIENT_DISCONNECT)
        self._abandon(name)  # A new CONNECT replaces the previous attempt.
        self.connects += 1
        self.sessions.pending.asked(self)
        if self.connects > MAX_CONNECTS:
            raise ProtocolError(f"more than {MAX_CONNECTS} CONNECTs between two heartbeats")
        if self._auth_deadline_passed or (self.abandoned >= MAX_REJECTIONS and not self.sockets):
            self.close(CloseReason.NOT_ADMITTED)
        elif self.open:
            attempt = Connect(self, name, payload)
            self._try(attempt, self.gate.admit(attempt))

    # Attempts at the gate.

    @property
    def payload_bytes(self) -> int:
        """Bytes of the CONNECT payloads that are held for this connection; those of sockets without their tokens."""
        held = (*self.attempts.values(), *self.waiting.values())
        return sum(attempt.size for attempt in held if isinstance(attempt, Admission)) + sum(
            socket._payload_size for socket in self.sockets.values()
        )

    def _authenticate(self, name: str, socket: Socket | None, packet: Packet) -> None:
        if name in self.attempts:
            return  # One at a time: the answer to the first one follows.
        message = packet.data[1] if len(packet.data) > 1 else None
        if socket is not None:
            refresh = Refresh(self, name, message, packet.id)
            self._try(refresh, self.gate.refresh(refresh))
        elif name in self.waiting:
            login = InBandLogin(self.waiting.pop(name), message, packet.id)
            self._try(login, self.gate.admit(login))

    def _try(self, attempt: Attempt, verdict: Coroutine[Any, Any, None]) -> None:
        self.attempts[attempt.namespace] = attempt
        try:
            rest = self.sessions.eager.begin(verdict, self.context)
        except asyncio.CancelledError:
            return  # Raised by a hook: the gate has rejected the attempt.
        if rest is not None:
            attempt.task = self.sessions.resume(rest)
            if attempt.pending:
                self.gate.decision_timeout.start(attempt)
            else:  # A hook has ended the connection, and waits for something else now.
                attempt.cancel()

    def attempt_finished(self, attempt: Attempt) -> None:
        """Record that an attempt has its verdict, or no longer needs one."""
        self.attempts.pop(attempt.namespace, None)
        self.gate.decision_timeout.stop(attempt)

    def _abandon(self, name: str) -> None:
        """Cancel the attempt at a namespace, because the client no longer waits for its verdict."""
        if self._cancel_attempt(name):
            self.abandoned += 1
            self.gate.count_abandoned(self)

    def _cancel_attempt(self, name: str) -> bool:
        """Drop what is pending for a namespace. Return True if a verdict was pending."""
        attempt = self.attempts.get(name)
        if attempt is not None:
            attempt.cancel()
            self.attempt_finished(attempt)
        self.waiting.pop(name, None)
        if name in self.rejected:  # Anything that the client sends confirms the rejection.
            del self.rejected[name]
            self.gate.rejection_ack_timeout.stop((self, name))
            self.close_if_empty()
        return attempt is not None

    def authentication_timed_out(self) -> None:
        """End a connection that is not admitted in time, whether it has sent an attempt or not."""
        if not self.sockets:
            self._auth_deadline_passed = True
            for attempt in list(self.attempts.values()):
                if attempt.pending:
                    attempt.time_out()
        for name in list(self.waiting):
            self.reject_in_band(name, AuthTimeout("no token before the deadline"))
        self.close_if_empty()

    def reject_in_band(self, namespace: str, refusal: Refused) -> None:
        """Send `unauthorized` to a client that was accepted on the wire only; `finish_rejection` follows."""
        self.waiting.pop(namespace, None)
        self.rejected[namespace] = None
        self.gate.rejection_ack_timeout.start((self, namespace))
        self.send_event(namespace, "unauthorized", unauthorized(refusal), REJECTION_ACK_ID)

    def finish_rejection(self, namespace: str) -> None:
        """Disconnect a namespace whose rejection the client has confirmed, or has had the time to read."""
        if namespace in self.rejected:
            del self.rejected[namespace]
            self.gate.rejection_ack_timeout.stop((self, namespace))
            self.send(self.socketio.disconnect(namespace))
            self.close_if_empty()

    def close_if_empty(self) -> None:
        """Close the connection if it has no socket, no attempt, and no rejection that the client must read."""
        if not (self.sockets or self.attempts or self.waiting or self.rejected):
            self.close(CloseReason.NOT_ADMITTED)

    # The identity.

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
        """Return the identity that the token with this digest has proven on this connection, or None."""
        for identity in (self.identity, self.candidate):
            if identity is not None and hmac.compare_digest(identity.digest, digest):
                return identity
        return None

    def enter(self, socket: Socket) -> None:
        """Register a socket. Only `Gate.admit` causes this, after a positive verdict. No application code runs here."""
        if not self.waiting:  # If the client must still authenticate in another namespace, its deadline stays.
            self.gate.authentication_timeout.stop(self)
        self.sessions.pending.discard(self)
        self.socketio.admitted = True
        self.abandoned = 0
        self.sockets[socket.namespace.name] = socket
        self.update_fast_path()
        socket._enter(self.identity)

    def set_identity(self, identity: Identity | None) -> Callable[[], None]:
        """Replace the identity of all sockets at once, before the next packet.

        Returns:
            A function for the remaining work: it disconnects the sockets that the new identity does not allow, closes
            the subject's oldest connection if there are too many, and calls the refresh handlers. They are application
            code, which may do anything, for example end this connection.
        """
        old = self.identity
        if identity is None or identity is old:
            return _nothing
        self.identity, self.candidate = identity, None
        self.rejections = 0
        sockets = list(self.sockets.values())
        for socket in sockets:
            if socket._set_identity(identity):
                self.drop_output(socket._lost_access_to)
        return functools.partial(self._identity_changed, old, identity, sockets)

    def _identity_changed(self, old: Identity | None, identity: Identity, sockets: list[Socket]) -> None:
        for socket in sockets:
            if not socket.namespace.allows(identity.principal) and socket.connected:
                self.drop_output(socket._is_in_namespace_of)
                self.leave_namespace(socket, CloseReason.INSUFFICIENT_SCOPE)
        if self.open:
            self.gate.identity_changed(self)
        for socket in sockets:
            if socket.connected:
                dispatch.refreshed(socket, old.principal if old is not None else None, identity.principal)

    # The end.

    def disconnect(self, socket: Socket, *, close: bool) -> None:
        """Disconnect a socket, or close the whole connection."""
        if not socket.connected:
            return
        for other in list(self.sockets.values()) if close else [socket]:
            self.leave_namespace(other, CloseReason.SERVER_DISCONNECT)
        if close:
            self.close(CloseReason.SERVER_DISCONNECT)

    def leave_namespace(self, socket: Socket, reason: CloseReason) -> None:
        """Disconnect a socket."""
        self.send(self.socketio.disconnect(socket.namespace.name))
        self._remove(socket, reason)

    def terminate(self, refusal: Refused, reason: CloseReason) -> None:
        """Close the connection of an admitted client, and tell the client why.

        Packets that were queued before are dropped. If the client does not read, the connection is aborted.

        Args:
            refusal: the reason for the client.
            reason: the reason for the `disconnect` handlers.
        """
        self.drop_output(_always)
        for name in [*self.sockets, *self.waiting]:
            self.send_event(name, "unauthorized", unauthorized(refusal))
            self.send(self.socketio.disconnect(name))
        self.close(reason, abort=self.transport.congested)

    def closing(self) -> None:
        """Cancel the attempts, and forget the identity's deadlines."""
        names = {*self.attempts, *self.waiting, *self.rejected}
        cancelled = [name for name in names if self._cancel_attempt(name)]
        if cancelled:  # Count once per connection, however many namespaces an honest client was asking for.
            self.gate.count_abandoned(self)
        self.gate.forget(self)

    def ended(self, reason: CloseReason) -> None:
        """Remove the sockets, and call their disconnect handlers."""
        for socket in list(self.sockets.values()):
            self._remove(socket, reason)

    def _remove(self, socket: Socket, reason: CloseReason) -> None:
        if self.sockets.pop(socket.namespace.name, None) is not socket:
            return  # The disconnect handler of another socket has disconnected it.
        self.update_fast_path()
        socket._exit()
        socket.namespace.remove_if_empty()
        if not self.sockets and self.open:
            self.gate.authentication_timeout.start(self)  # Without a namespace, it has as long as a new connection.
        dispatch.disconnected(socket, reason)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {printable(self.handshake.address)} in {len(self.sockets)} namespaces>"


def _always(_: Encoded) -> bool:
    """Select every packet."""
    return True


def _nothing() -> None:
    """Do nothing: the remaining work of `set_identity` if nothing has changed."""
