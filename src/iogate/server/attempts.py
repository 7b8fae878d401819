"""The ways to come to the gate: CONNECT with a token, `authenticate` afterwards, `authenticate` once more.

An attempt knows what was shown and how the verdict is told to the client. What the verdict is, the gate decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from iogate.auth import Auth, AuthPayload
from iogate.errors import BAD_CREDENTIALS, AuthUnavailable, Refused
from iogate.protocol.socketio.packets import Packet, PacketType
from iogate.server.handshake import Handshake
from iogate.server.reasons import CloseReason
from iogate.server.rooms import new_socket_id

if TYPE_CHECKING:
    from iogate.server.connection import Connection
    from iogate.server.socket import Socket

MAX_REFUSALS = 3
"""Credentials that a transport may be refused for: then it is closed, or, if a refresh is refused, heard no more."""

HELD_FRAMES = 4
"""How much of the payloads of CONNECTs is held for one connection, in frames of the largest size before the verdict."""

IN_BAND = AuthPayload("token")
"""Where the argument of `authenticate` has the token."""


class CredentialRequest:
    """Where the sources of `auth` look for a token: the request of the handshake, and the payload of CONNECT."""

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
    """Somebody at the gate of a namespace.

    Args:
        connection: whose.
        namespace: the name of the namespace.
    """

    __slots__ = ("connection", "namespace", "task")

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace
        self.task: asyncio.Task[None] | None = None  # The verdict in the making, once it has had to wait.

    @property
    def pending(self) -> bool:
        """Whether its verdict is still waited for: it is not once the client has gone or the deadline has passed."""
        return self.connection.attempts.get(self.namespace) is self

    def cancel(self) -> None:
        """Stop whatever is still done for its verdict."""
        task, self.task = self.task, None  # Its exception refers to this attempt: a reference cycle.
        if task is not None:
            task.cancel()

    def time_out(self) -> None:
        """Refuse it because its deadline has passed. The client is not at fault: the server was too slow."""
        self.cancel()
        self.refuse(AuthUnavailable("no verdict before the deadline: a hook or the key source is slow"))

    def credential(self, auth: Auth) -> str | None:
        """Return the token that was shown, or None. Raises `AuthError` for what was meant as one and is none."""
        raise NotImplementedError

    def refuse(self, refusal: Refused) -> None:
        """Tell the client no."""
        raise NotImplementedError


class Entry(Attempt):
    """An attempt that ends with a socket.

    Args:
        payload: what came with CONNECT.
        socket_id: the id that the socket will have.
    """

    __slots__ = ("payload", "socket_id")

    def __init__(self, connection: Connection, namespace: str, payload: Any, socket_id: str) -> None:
        super().__init__(connection, namespace)
        self.payload = payload
        self.socket_id = socket_id

    @property
    def size(self) -> int:
        """Bytes of the payload, written as JSON."""
        return payload_size(self.payload)

    def accept(self, socket: Socket) -> None:
        """Let the socket in, and tell the client."""
        raise NotImplementedError


class Connect(Entry):
    """A CONNECT packet."""

    __slots__ = ()

    def __init__(self, connection: Connection, namespace: str, payload: Any) -> None:
        super().__init__(connection, namespace, payload, new_socket_id())

    def credential(self, auth: Auth) -> str | None:
        """Return the token in the handshake or the payload."""
        return auth.credential(CredentialRequest(self.connection.handshake, self.payload))

    def accept(self, socket: Socket) -> None:
        """Answer CONNECT."""
        connection = self.connection
        connection.decided(self)
        connection.enter(socket)
        connection.send(connection.socketio.accept(self.namespace, socket.id))

    def wait(self) -> None:
        """Answer CONNECT too, but leave the client outside until it authenticates."""
        connection = self.connection
        connection.decided(self)
        connection.waiting[self.namespace] = self
        connection.send(connection.socketio.accept(self.namespace, self.socket_id))

    def refuse(self, refusal: Refused) -> None:
        """Answer CONNECT_ERROR. A transport that is let in nowhere is closed after that, as is one that goes on.

        Not at once: clients ask for all their namespaces together, and the next one may have come already.
        """
        connection = self.connection
        connection.decided(self)
        connection.refusals += isinstance(refusal, BAD_CREDENTIALS)
        connection.send(connection.socketio.refuse(self.namespace, refusal.payload()))
        if connection.refusals >= MAX_REFUSALS:
            connection.close(CloseReason.NOT_ADMITTED)
        else:
            connection.server.turn.add(connection.close_if_empty)


class InBand(Entry):
    """The `authenticate` of a client whose CONNECT was accepted without a token.

    Args:
        first: the CONNECT.
        message: the argument of `authenticate`.
        ack_id: the acknowledgement that was asked for, if one was.
    """

    __slots__ = ("_ack_id", "_message")

    def __init__(self, first: Connect, message: object, ack_id: int | None) -> None:
        super().__init__(first.connection, first.namespace, first.payload, first.socket_id)
        self._message = message
        self._ack_id = ack_id

    def credential(self, auth: Auth) -> str | None:
        """Return the token in the argument."""
        return _in_band(self)

    def accept(self, socket: Socket) -> None:
        """Send `authenticated`."""
        connection = self.connection
        connection.decided(self)
        connection.enter(socket)
        _authenticated(self, self._ack_id)

    def refuse(self, refusal: Refused) -> None:
        """Send `unauthorized`, and end the socket."""
        self.connection.decided(self)
        self.connection.refusals += isinstance(refusal, BAD_CREDENTIALS)
        _acknowledge(self, self._ack_id, {"error": refusal.data})
        self.connection.turn_away(self.namespace, refusal)


class Refresh(Attempt):
    """The `authenticate` of a socket that has been let in: another token in the place of the one it has.

    Args:
        socket: the socket that says so.
        message: the argument of `authenticate`.
        ack_id: the acknowledgement that was asked for, if one was.
    """

    __slots__ = ("_ack_id", "_message")

    def __init__(self, socket: Socket, message: object, ack_id: int | None) -> None:
        super().__init__(socket._connection, socket.namespace.name)
        self._message = message
        self._ack_id = ack_id

    def credential(self, auth: Auth) -> str | None:
        """Return the token in the argument."""
        return _in_band(self)

    def accept(self) -> None:
        """Send `authenticated`, unless the new token does not give the namespace any more."""
        self.connection.decided(self)
        if self.namespace in self.connection.sockets:
            _authenticated(self, self._ack_id)

    def refuse(self, refusal: Refused) -> None:
        """Send `unauthorized`; the socket stays what it is."""
        self.connection.decided(self)
        self.connection.refusals += isinstance(refusal, BAD_CREDENTIALS)
        if self.namespace in self.connection.sockets:
            self.connection.tell(self.namespace, "unauthorized", unauthorized(refusal))
            _acknowledge(self, self._ack_id, {"error": refusal.data})


def payload_size(payload: Any) -> int:
    """Return how many bytes the payload of a CONNECT has, written as JSON."""
    return len(msgspec.json.encode(payload)) if payload else 0


def unauthorized(refusal: Refused) -> dict[str, Any]:
    """Return the argument of `unauthorized`, as clients of `socketio-jwt` know it."""
    return {"message": refusal.message, "inner": {"message": refusal.message}, "data": refusal.data}


def _in_band(attempt: InBand | Refresh) -> str | None:
    return IN_BAND.read(CredentialRequest(attempt.connection.handshake, attempt._message))


def _authenticated(attempt: InBand | Refresh, ack_id: int | None) -> None:
    identity = attempt.connection.identity
    assert identity is not None  # noqa: S101
    answer = {"sub": identity.principal.subject, "exp": identity.principal.claims.get("exp")}
    attempt.connection.tell(attempt.namespace, "authenticated", answer)
    _acknowledge(attempt, ack_id, answer)


def _acknowledge(attempt: InBand | Refresh, ack_id: int | None, answer: object) -> None:
    if ack_id is not None:
        attempt.connection.send(
            attempt.connection.socketio.encode(Packet(PacketType.ACK, attempt.namespace, [answer], ack_id))
        )
