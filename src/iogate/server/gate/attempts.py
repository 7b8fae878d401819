"""The attempts at the gate: CONNECT, `authenticate` after it, and `authenticate` again to refresh.

An attempt has the client's credential and delivers the verdict to the client. `Gate` decides the verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from iogate.auth import Auth, AuthPayload
from iogate.errors import BAD_CREDENTIALS, AuthUnavailable, Refused
from iogate.protocol.socketio.packets import Packet, PacketType
from iogate.server.namespaces.rooms import new_socket_id
from iogate.server.namespaces.socket import Socket
from iogate.server.session.handshake import Handshake
from iogate.server.session.reasons import CloseReason

if TYPE_CHECKING:
    from iogate.server.gate.connection import Connection

MAX_REJECTIONS = 3
"""Bad credentials per transport. Then it is closed, or, if a refresh was rejected, no more tokens are verified."""

HELD_FRAMES = 4
"""CONNECT payloads that are held per connection, in frames of the maximum size before the verdict."""

IN_BAND = AuthPayload("token")
"""The place of the token in the argument of `authenticate`."""


class CredentialRequest:
    """The places where the sources of `auth` look for a token: the request of the handshake, the payload of CONNECT."""

    __slots__ = ("handshake", "payload")

    def __init__(self, handshake: Handshake, payload: object = None) -> None:
        self.handshake = handshake
        self.payload = payload

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields of the request."""
        return self.handshake.headers

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of its URL."""
        return self.handshake.query

    @property
    def cookies(self) -> Mapping[str, str]:
        """Its cookies."""
        return self.handshake.cookies


class Attempt:
    """A request to the gate for one namespace.

    Args:
        connection: the connection of the client.
        namespace: the name of the namespace.
    """

    __slots__ = ("connection", "namespace", "task")

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace
        self.task: asyncio.Task[None] | None = None  # The task of the verdict, if it has had to wait.

    @property
    def pending(self) -> bool:
        """True until the verdict, the end of the deadline, or the departure of the client."""
        return self.connection.attempts.get(self.namespace) is self

    def cancel(self) -> None:
        """Cancel the task of the verdict."""
        task, self.task = self.task, None  # Its exception refers to this attempt: a reference cycle.
        if task is not None:
            task.cancel()

    def time_out(self) -> None:
        """Reject the attempt because its deadline has passed. The server was too slow, so the client may retry."""
        self.cancel()
        self.reject(AuthUnavailable("no verdict before the deadline: a hook or the key source is slow"))

    def credential(self, auth: Auth) -> str | None:
        """Return the token of the attempt, or None.

        Raises:
            AuthError: there is a credential, but it is not a token.
        """
        raise NotImplementedError

    def reject(self, refusal: Refused) -> None:
        """Send the negative verdict to the client."""
        raise NotImplementedError

    def count(self, refusal: Refused) -> None:
        """Finish the attempt, and count its credential if that was bad."""
        self.connection.attempt_finished(self)
        self.connection.rejections += isinstance(refusal, BAD_CREDENTIALS)


class Admission(Attempt):
    """An attempt that creates a socket if it succeeds.

    Args:
        payload: the payload of CONNECT.
        socket_id: the id of the future socket.
    """

    __slots__ = ("payload", "socket_id")

    def __init__(self, connection: Connection, namespace: str, payload: Any, socket_id: str) -> None:
        super().__init__(connection, namespace)
        self.payload = payload
        self.socket_id = socket_id

    @property
    def size(self) -> int:
        """The size of the payload as JSON, in bytes."""
        return payload_size(self.payload)

    def accept(self, socket: Socket) -> None:
        """Register the socket, and send the positive verdict."""
        raise NotImplementedError


class Connect(Admission):
    """A CONNECT packet."""

    __slots__ = ()

    def __init__(self, connection: Connection, namespace: str, payload: Any) -> None:
        super().__init__(connection, namespace, payload, new_socket_id())

    def credential(self, auth: Auth) -> str | None:
        """Return the token in the handshake or the payload."""
        return auth.credential(CredentialRequest(self.connection.handshake, self.payload))

    def accept(self, socket: Socket) -> None:
        """Register the socket, and answer CONNECT."""
        connection = self.connection
        connection.attempt_finished(self)
        connection.enter(socket)
        connection.send(connection.socketio.accept(self.namespace, socket.id))

    def defer(self) -> None:
        """Answer CONNECT without registering a socket: the client must authenticate in band."""
        connection = self.connection
        connection.attempt_finished(self)
        connection.waiting[self.namespace] = self
        connection.send(connection.socketio.accept(self.namespace, self.socket_id))

    def reject(self, refusal: Refused) -> None:
        """Answer CONNECT_ERROR. If the connection has no other socket or attempt, or too many rejections, close it.

        The check for others runs at the end of the event loop iteration, because clients send the CONNECTs for all
        their namespaces together.
        """
        connection = self.connection
        self.count(refusal)
        connection.send(connection.socketio.refuse(self.namespace, refusal.payload()))
        if connection.rejections >= MAX_REJECTIONS:
            connection.close(CloseReason.NOT_ADMITTED)
        else:
            connection.sessions.turn.add(connection.close_if_empty)


class InBandLogin(Admission):
    """The `authenticate` event of a client whose CONNECT was accepted without a token.

    Args:
        first: the CONNECT.
        message: the argument of `authenticate`.
        ack_id: the id of the acknowledgement that the client asks for, or None.
    """

    __slots__ = ("_ack_id", "_message")

    def __init__(self, first: Connect, message: object, ack_id: int | None) -> None:
        super().__init__(first.connection, first.namespace, first.payload, first.socket_id)
        self._message = message
        self._ack_id = ack_id

    def credential(self, auth: Auth) -> str | None:
        """Return the token in the argument."""
        return _in_band(self.connection, self._message)

    def accept(self, socket: Socket) -> None:
        """Register the socket, and send `authenticated`."""
        self.connection.attempt_finished(self)
        self.connection.enter(socket)
        _authenticated(self, self._ack_id)

    def reject(self, refusal: Refused) -> None:
        """Send `unauthorized`, and end the login."""
        self.count(refusal)
        _acknowledge(self, self._ack_id, {"error": refusal.data})
        self.connection.reject_in_band(self.namespace, refusal)


class Refresh(Attempt):
    """The `authenticate` event of an admitted client: a new token for its connection.

    Args:
        message: the argument of `authenticate`.
        ack_id: the id of the acknowledgement that the client asks for, or None.
    """

    __slots__ = ("_ack_id", "_message")

    def __init__(self, connection: Connection, namespace: str, message: object, ack_id: int | None) -> None:
        super().__init__(connection, namespace)
        self._message = message
        self._ack_id = ack_id

    def credential(self, auth: Auth) -> str | None:
        """Return the token in the argument."""
        return _in_band(self.connection, self._message)

    def accept(self) -> None:
        """Send `authenticated`, unless the new token does not allow the namespace."""
        self.connection.attempt_finished(self)
        if self.namespace in self.connection.sockets:
            _authenticated(self, self._ack_id)

    def reject(self, refusal: Refused) -> None:
        """Send `unauthorized`. The socket keeps its identity."""
        self.count(refusal)
        if self.namespace in self.connection.sockets:
            self.connection.send_event(self.namespace, "unauthorized", unauthorized(refusal))
            _acknowledge(self, self._ack_id, {"error": refusal.data})


def payload_size(payload: Any) -> int:
    """Return the size of a CONNECT payload as JSON, in bytes."""
    return len(msgspec.json.encode(payload)) if payload else 0


def unauthorized(refusal: Refused) -> dict[str, Any]:
    """Return the argument of `unauthorized` in the format of Node's `socketio-jwt`."""
    return {"message": refusal.message, "inner": {"message": refusal.message}, "data": refusal.data}


def _in_band(connection: Connection, message: object) -> str | None:
    return IN_BAND.read(CredentialRequest(connection.handshake, message))


def _authenticated(attempt: InBandLogin | Refresh, ack_id: int | None) -> None:
    identity = attempt.connection.identity
    assert identity is not None  # noqa: S101
    answer = {"sub": identity.principal.subject, "exp": identity.principal.claims.get("exp")}
    attempt.connection.send_event(attempt.namespace, "authenticated", answer)
    _acknowledge(attempt, ack_id, answer)


def _acknowledge(attempt: InBandLogin | Refresh, ack_id: int | None, answer: object) -> None:
    if ack_id is not None:
        connection = attempt.connection
        connection.send(connection.socketio.encode(Packet(PacketType.ACK, attempt.namespace, [answer], ack_id)))
