"""A socket: one client in one namespace, as the application sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from iogate.auth import Principal
from iogate.errors import AckTimeout, Disconnected, InsufficientScope, NotAuthenticated
from iogate.printable import printable
from iogate.protocol.engineio.packets import Encoded
from iogate.protocol.socketio.packets import Packet, PacketType
from iogate.server.emitter import ACK_TIMEOUT, Broadcast, event_data
from iogate.server.handshake import Handshake
from iogate.server.identity import Identity
from iogate.server.rooms import check_joinable
from iogate.server.scopes import Scopes, parse_scopes

if TYPE_CHECKING:
    from iogate.server.connection import Connection
    from iogate.server.namespace import Namespace


class Socket:
    """One client in one namespace.

    Connect middleware sees it before it is let in: it can read everything and keep things in `data`, and rooms that
    it joins count from the moment it is let in. What is emitted to it before is dropped, as it is after it has gone.
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
        connection: Connection,
        handshake: Handshake,
        identity: Identity | None,
    ) -> None:
        self.id = id
        self.namespace = namespace
        self._connection = connection
        self.handshake = handshake
        self.connected = False
        self._identity = identity
        self._scoped: dict[str, frozenset[str]] | None = None  # The rooms that depend on scopes.
        self._rooms: tuple[str, ...] = ()  # What was joined before it was let in.
        self._data: dict[str, Any] | None = None
        self._acks: dict[int, asyncio.Future[Any]] | None = None
        self._payload_size = 0  # Bytes of the CONNECT payload that is kept.

    # Who it is.

    @property
    def authenticated(self) -> bool:
        """Whether it has an identity: False for a guest, and for everybody on a server without `auth`."""
        return self._identity is not None

    @property
    def principal(self) -> Principal:
        """The verified identity.

        Raises:
            NotAuthenticated: it has none; `authenticated` says so beforehand.
        """
        if self._identity is None:
            raise NotAuthenticated("this socket has no identity: ask socket.authenticated first")
        return self._identity.principal

    @property
    def claims(self) -> Mapping[str, Any]:
        """The claims of its token; none for a guest."""
        return self._identity.principal.claims if self._identity is not None else {}

    @property
    def user(self) -> Any:
        """What `load_user` made of the claims; None if there is no such function, and for a guest."""
        return self._identity.user if self._identity is not None else None

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of its token; none for a guest."""
        return self._identity.principal.scopes if self._identity is not None else frozenset()

    @property
    def data(self) -> dict[str, Any]:
        """A place for what the application wants to keep with it."""
        if self._data is None:
            self._data = {}
        return self._data

    # Rooms.

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms that it is in: that of its id, that of its user (`Server.user_room`), and those it joined."""
        return self.namespace.adapter.rooms_of(self)

    def join(self, *rooms: str, scopes: Scopes = ()) -> None:
        """Enter rooms. Nothing happens once it has gone.

        Args:
            rooms: their names, of at most 256 characters. Rooms of users and ids of sockets cannot be joined, because
                a name may come from a client that wants to listen in. A socket is always in its own.
            scopes: scopes that its token must have, all of them, as long as it is there: a refresh that takes one
                away takes it out of the rooms, and what was queued for them is not sent.

        Raises:
            ConfigurationError: one is not a string, is too long, or is reserved.
            InsufficientScope: its token lacks one.
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
            ConfigurationError: one is not a string, is too long, or is reserved.
        """
        check_joinable(rooms)
        for room in rooms:
            (self._scoped or {}).pop(room, None)
        if self.connected:
            self.namespace.adapter.leave(self, rooms)
        else:
            self._rooms = tuple(room for room in self._rooms if room not in rooms)

    # To itself.

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to this client. It never waits.

        Raises:
            ConfigurationError: the name is reserved.
            TypeError: an argument has no JSON.
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
            event: its name.
            args: its arguments.
            timeout: seconds to wait.

        Raises:
            AckTimeout: no answer in time.
            Disconnected: the client has gone, or went before it answered.
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
        """Only this client, but what is sent is dropped if it cannot take it at once."""
        return self.namespace.to(self.id).volatile

    # To the others.

    @property
    def broadcast(self) -> Broadcast:
        """Everybody in the namespace but this socket."""
        return self.namespace.except_(self.id)

    @property
    def local(self) -> Broadcast:
        """Everybody in the namespace on this server but this socket."""
        return self.broadcast.local

    def to(self, *rooms: str) -> Broadcast:
        """Everybody in any of these rooms but this socket."""
        return self.broadcast.to(*rooms)

    def except_(self, *rooms: str) -> Broadcast:
        """Everybody in none of these rooms, and not this socket."""
        return self.broadcast.except_(*rooms)

    def disconnect(self, close: bool = False) -> None:
        """Tell the client to leave the namespace; its handlers see the reason `server namespace disconnect`.

        Args:
            close: end the whole connection, with its sockets in other namespaces.
        """
        self._connection.disconnect(self, close=close)

    # For the connection and the gate. Nothing here is public, because middleware has this object before the verdict.

    def _enter(self, identity: Identity | None) -> None:
        """Be let in, with the identity that the connection has now: appear in the namespace and in the rooms."""
        self.connected = True
        self.namespace.adapter.add(self)
        self.namespace.adapter.join(self, self._rooms)
        self._rooms = ()
        if identity is not None:  # It may be a newer one than middleware has seen, and give less.
            self._set_identity(identity)

    def _set_identity(self, identity: Identity) -> bool:
        """Take another identity, and leave the rooms that it does not give; say whether there were any."""
        self._identity = identity
        self.namespace.adapter.join(self, self._own_rooms())
        lost = [room for room, needed in (self._scoped or {}).items() if not needed <= identity.principal.scopes]
        self.leave(*lost)
        return bool(lost)

    def _lost_access_to(self, packet: Encoded) -> bool:
        """Say whether a packet was meant for rooms of which it is in none any more."""
        return (
            packet.audience is not None and self._is_in_namespace_of(packet) and self.rooms.isdisjoint(packet.audience)
        )

    def _is_in_namespace_of(self, packet: Encoded) -> bool:
        """Say whether a packet is for its namespace."""
        return packet.namespace == self.namespace.name

    def _own_rooms(self) -> tuple[str, ...]:
        if self._identity is None or not self._identity.principal.subject:
            return ()
        return (self._connection.server._room_of(self._identity.principal),)

    def _exit(self) -> None:
        """Be gone: from the namespace, the rooms, and for whoever waits for an answer."""
        self.connected = False
        self.namespace.adapter.remove(self)
        for answer in (self._acks or {}).values():
            if not answer.done():
                answer.set_exception(Disconnected("the client went before it answered"))

    def _expect(self, id_: int) -> asyncio.Future[Any]:
        """Return the answer to a packet with this id, when it comes. `_stop_expecting` must follow."""
        if self._acks is None:
            self._acks = {}
        answer = self._acks[id_] = asyncio.get_running_loop().create_future()
        return answer

    def _stop_expecting(self, id_: int) -> None:
        if self._acks is not None:
            self._acks.pop(id_, None)

    def _acknowledged(self, id_: int, args: list[Any]) -> None:
        """Take the client's answer to a `call`. One that nobody waits for is dropped."""
        answer = self._acks.get(id_) if self._acks else None
        if answer is not None and not answer.done():
            answer.set_result(None if not args else args[0] if len(args) == 1 else tuple(args))

    def __repr__(self) -> str:
        subject = self._identity.principal.subject if self._identity is not None else None
        return f"<Socket {self.id} in {printable(self.namespace.name)} of {printable(repr(subject))}>"
