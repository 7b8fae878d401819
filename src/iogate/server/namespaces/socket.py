"""A socket: one client in one namespace, as the application sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

from iogate.auth import Principal
from iogate.errors import AckTimeout, Disconnected, InsufficientScope, NotAuthenticated
from iogate.printable import printable
from iogate.protocol.engineio.packets import Encoded
from iogate.protocol.socketio.packets import Packet, PacketType
from iogate.server.identity import Identity
from iogate.server.namespaces.emitter import ACK_TIMEOUT, Broadcast, event_data
from iogate.server.namespaces.rooms import check_joinable
from iogate.server.namespaces.scopes import Scopes, parse_scopes
from iogate.server.session.eager import Rest
from iogate.server.session.handshake import Handshake
from iogate.server.session.sessions import Sessions

if TYPE_CHECKING:
    from iogate.server.namespaces.namespace import Namespace


class SocketConnection(Protocol):
    """What a socket and its handlers need of their connection."""

    @property
    def sessions(self) -> Sessions[Any]:
        """The sessions of the server."""

    @property
    def context(self) -> Context:
        """The context of the connection. Code for its client runs in copies of it."""

    def send(self, packet: Encoded, *, volatile: bool = False) -> None:
        """Send a packet."""

    def send_event(self, namespace: str, event: str, payload: object) -> None:
        """Send an event of the server itself."""

    def resume(self, rest: Rest, work: Coroutine[Any, Any, None]) -> None:
        """Continue a handler that waits."""

    def disconnect(self, socket: Socket, *, close: bool) -> None:
        """Disconnect a socket, or close the whole connection."""


class Socket:
    """One client in one namespace.

    Connect middleware gets it before the client is admitted. Middleware can read its attributes, store values in
    `data`, and join rooms, which takes effect on admission. Events that are emitted to it before admission, or after
    its end, are dropped.
    """

    __slots__ = (
        "_acks",
        "_connection",
        "_data",
        "_identity",
        "_payload_size",
        "_rooms",
        "_scoped",
        "connected",
        "handshake",
        "id",
        "namespace",
    )

    def __init__(
        self,
        id: str,  # noqa: A002
        namespace: Namespace,
        connection: SocketConnection,
        handshake: Handshake,
        identity: Identity | None,
    ) -> None:
        self.id = id
        self.namespace = namespace
        self._connection = connection
        self.handshake = handshake
        self.connected = False
        self._identity = identity
        self._scoped: dict[str, frozenset[str]] | None = None  # The rooms that require scopes.
        self._rooms: tuple[str, ...] = ()  # The rooms that it joined before admission.
        self._data: dict[str, Any] | None = None
        self._acks: dict[int, asyncio.Future[Any]] | None = None
        self._payload_size = 0  # Bytes of the CONNECT payload, which `handshake.auth` keeps.

    # The identity.

    @property
    def authenticated(self) -> bool:
        """True if the socket has an identity. A guest has none, and no client of a server with `auth=None` has one."""
        return self._identity is not None

    @property
    def principal(self) -> Principal:
        """The verified identity.

        Raises:
            NotAuthenticated: the socket has no identity. Check `authenticated` first.
        """
        if self._identity is None:
            raise NotAuthenticated("this socket has no identity: check socket.authenticated first")
        return self._identity.principal

    @property
    def claims(self) -> Mapping[str, Any]:
        """The claims of its token; empty for a guest."""
        return self._identity.principal.claims if self._identity is not None else {}

    @property
    def user(self) -> Any:
        """The user object that `load_user` returned for the claims; None without `load_user`, and for a guest."""
        return self._identity.user if self._identity is not None else None

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of its token; empty for a guest."""
        return self._identity.principal.scopes if self._identity is not None else frozenset()

    @property
    def data(self) -> dict[str, Any]:
        """A dict for values of the application, as long as the socket exists."""
        if self._data is None:
            self._data = {}
        return self._data

    # Rooms.

    @property
    def rooms(self) -> frozenset[str]:
        """Its rooms: the room of its id, the room of its user (`Server.user_room`), and the rooms that it joined."""
        return self.namespace.adapter.rooms_of(self)

    def join(self, *rooms: str, scopes: Scopes = ()) -> None:
        """Join rooms. This does nothing after the socket has disconnected.

        Args:
            rooms: the names, of at most 256 characters. The rooms of users and of socket ids cannot be joined, because
                a name may come from a client that wants to eavesdrop. A socket is always in its own.
            scopes: scopes that its token must have as long as it is in the rooms. If a refresh removes one of them, the
                socket leaves the rooms, and packets that are queued for these rooms are dropped.

        Raises:
            ConfigurationError: a name is not a string, is too long, or is reserved.
            InsufficientScope: the token lacks a scope.
        """
        check_joinable(rooms)
        needed = parse_scopes(scopes)
        if not needed <= self.scopes:
            raise InsufficientScope(needed)
        if needed:
            self._scoped = {**(self._scoped or {}), **dict.fromkeys(rooms, needed)}
        if self.connected:
            self.namespace.adapter.join(self, rooms)
        else:
            self._rooms += rooms

    def leave(self, *rooms: str) -> None:
        """Leave rooms.

        Raises:
            ConfigurationError: a name is not a string, is too long, or is reserved.
        """
        check_joinable(rooms)
        for room in rooms:
            (self._scoped or {}).pop(room, None)
        if self.connected:
            self.namespace.adapter.leave(self, rooms)
        else:
            self._rooms = tuple(room for room in self._rooms if room not in rooms)

    # To this client.

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to this client. It never waits.

        Raises:
            ConfigurationError: the name is reserved.
            TypeError: an argument cannot be encoded.
        """
        data = event_data(event, args)
        if self.connected:
            self._connection.send(self.namespace.encode(Packet(PacketType.EVENT, self.namespace.name, data)))

    def send(self, *args: Any) -> None:
        """Emit `message`."""
        self.emit("message", *args)

    async def call(self, event: str, *args: Any, timeout: float = ACK_TIMEOUT) -> Any:
        """Send an event and return what the client acknowledged: None, one value, or a tuple of several.

        Args:
            event: the name of the event.
            args: its arguments.
            timeout: seconds to wait.

        Raises:
            AckTimeout: the client did not acknowledge in time.
            Disconnected: the client has disconnected, or disconnected before it acknowledged.
        """
        data = event_data(event, args)
        if not self.connected:
            raise Disconnected(f"{event!r} cannot be acknowledged: the socket is not connected")
        id_ = self.namespace.adapter.new_ack_id()
        answer = self._expect(id_)
        try:
            self._connection.send(self.namespace.encode(Packet(PacketType.EVENT, self.namespace.name, data, id_)))
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise AckTimeout(f"{event!r} was not acknowledged in {timeout} s") from None
        finally:
            self._stop_expecting(id_)

    @property
    def volatile(self) -> Broadcast:
        """Only this client; an event that it cannot take at once is dropped."""
        return self.namespace.to(self.id).volatile

    # To other clients.

    @property
    def broadcast(self) -> Broadcast:
        """All sockets of the namespace except this one."""
        return self.namespace.except_(self.id)

    @property
    def local(self) -> Broadcast:
        """All sockets of the namespace on this server except this one."""
        return self.broadcast.local

    def to(self, *rooms: str) -> Broadcast:
        """All sockets in any of these rooms except this one."""
        return self.broadcast.to(*rooms)

    def except_(self, *rooms: str) -> Broadcast:
        """All sockets of the namespace except this one and those in these rooms."""
        return self.broadcast.except_(*rooms)

    def disconnect(self, close: bool = False) -> None:
        """Disconnect the client from the namespace. Its handlers get the reason `server namespace disconnect`.

        Args:
            close: close the whole connection, with its sockets in other namespaces.
        """
        self._connection.disconnect(self, close=close)

    # For the connection, the adapter and the gate. Middleware has this object before the verdict, so nothing here is
    # public.

    def _enter(self, identity: Identity | None) -> None:
        """Join the namespace and the rooms, with the current identity of the connection."""
        self.connected = True
        self.namespace.adapter.add(self)
        self.namespace.adapter.join(self, self._rooms)
        self._rooms = ()
        if identity is not None:  # It may be newer than the identity that middleware saw, and have fewer scopes.
            self._set_identity(identity)

    def _set_identity(self, identity: Identity) -> bool:
        """Replace the identity, and leave the rooms that it does not allow. Return True if there were any."""
        self._identity = identity
        self.namespace.adapter.join(self, self._own_rooms())
        lost = [room for room, needed in (self._scoped or {}).items() if not needed <= identity.principal.scopes]
        self.leave(*lost)
        return bool(lost)

    def _lost_access_to(self, packet: Encoded) -> bool:
        """Return True if a packet was sent to rooms, and the socket is in none of them now."""
        return (
            packet.audience is not None and self._is_in_namespace_of(packet) and self.rooms.isdisjoint(packet.audience)
        )

    def _is_in_namespace_of(self, packet: Encoded) -> bool:
        """Return True if a packet is for the namespace of this socket."""
        return packet.namespace == self.namespace.name

    def _own_rooms(self) -> tuple[str, ...]:
        if self._identity is None or not self._identity.principal.subject:
            return ()
        return (self.namespace.users.room_of(self._identity.principal),)

    def _exit(self) -> None:
        """Leave the namespace and the rooms, and end the calls that wait for an acknowledgement."""
        self.connected = False
        self.namespace.adapter.remove(self)
        for answer in (self._acks or {}).values():
            if not answer.done():
                answer.set_exception(Disconnected("the client disconnected before it acknowledged"))

    def _expect(self, id_: int) -> asyncio.Future[Any]:
        """Return a future for the acknowledgement with this id. `_stop_expecting` must follow."""
        if self._acks is None:
            self._acks = {}
        answer = self._acks[id_] = asyncio.get_running_loop().create_future()
        return answer

    def _stop_expecting(self, id_: int) -> None:
        if self._acks is not None:
            self._acks.pop(id_, None)

    def _acknowledged(self, id_: int, args: list[Any]) -> None:
        """Handle an acknowledgement of the client. It is ignored if no call waits for it."""
        answer = self._acks.get(id_) if self._acks else None
        if answer is not None and not answer.done():
            answer.set_result(None if not args else args[0] if len(args) == 1 else tuple(args))

    def __repr__(self) -> str:
        subject = self._identity.principal.subject if self._identity is not None else None
        return f"<Socket {self.id} in {printable(self.namespace.name)} of {printable(repr(subject))}>"
