"""Saying something to many sockets at once: `io.to("news").except_("muted").volatile.emit("headline", text)`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from iogate.errors import AckTimeout, ConfigurationError, Disconnected
from iogate.protocol.engineio.packets import Encoded
from iogate.protocol.socketio.packets import RESERVED_EVENTS, Packet, PacketType
from iogate.server.handlers import GATE_EVENTS
from iogate.server.rooms import check_joinable, check_names

if TYPE_CHECKING:
    from iogate.server.namespace import Namespace
    from iogate.server.socket import Socket

_NOT_YOURS = RESERVED_EVENTS | GATE_EVENTS

ACK_TIMEOUT = 10.0
"""Seconds that `call` waits for an acknowledgement unless it is told otherwise."""


def event_data(event: str, args: tuple[Any, ...]) -> list[Any]:
    """Return the data of an EVENT packet.

    Raises:
        ConfigurationError: the name belongs to the protocol or to the gate.
    """
    if event in _NOT_YOURS:
        raise ConfigurationError(f"the event {event!r} is reserved; choose another name for yours")
    return [event, *args]


class Target(msgspec.Struct, frozen=True):
    """Whom a broadcast is for, and how.

    Args:
        namespaces: where.
        rooms: the sockets in any of these rooms, so an empty set selects none; None selects all.
        excluded: but nobody who is in one of these.
        volatile: drop it for a client that cannot take it at once.
        local: keep it on this server. A server that stands alone has no other.
    """

    namespaces: tuple[Namespace, ...]
    rooms: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    volatile: bool = False
    local: bool = False

    def sockets(self) -> list[Socket]:
        """Return the sockets that it is for, as they are now."""
        first, *rest = self.namespaces or (None,)
        if first is None:
            return []
        found = first.members.select(self.rooms, self.excluded)
        for namespace in rest:
            found += namespace.members.select(self.rooms, self.excluded)
        return found


def _deliver(namespace: Namespace, target: Target, packet: Encoded) -> None:
    for socket in namespace.members.select(target.rooms, target.excluded):
        socket._connection.send(packet, volatile=target.volatile)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Emitter:
    """The ways to choose and to address many sockets, the same on a server, a namespace and a broadcast."""

    __slots__ = ()

    @property
    def _target(self) -> Target:
        raise NotImplementedError

    def to(self, *rooms: str) -> Broadcast:
        """Add the sockets that are in any of these rooms to those chosen before.

        Without a room it adds none: `io.to(*[]).emit(...)` sends nothing.

        Args:
            rooms: names of rooms, ids of sockets, and what `Server.user_room` returns.

        Raises:
            ConfigurationError: one is not a string.
        """
        check_names(rooms)
        target = self._target
        return Broadcast(msgspec.structs.replace(target, rooms=(target.rooms or ()) + rooms))

    def in_(self, *rooms: str) -> Broadcast:
        """Do the same as `to`, for where it reads better."""
        return self.to(*rooms)

    def except_(self, *rooms: str) -> Broadcast:
        """Leave out the sockets that are in any of these rooms. Without a room it leaves out none.

        Raises:
            ConfigurationError: one is not a string.
        """
        check_names(rooms)
        target = self._target
        return Broadcast(msgspec.structs.replace(target, excluded=target.excluded + rooms))

    @property
    def volatile(self) -> Broadcast:
        """The same sockets, but what is sent is dropped for those that cannot take it at once."""
        return Broadcast(msgspec.structs.replace(self._target, volatile=True))

    @property
    def local(self) -> Broadcast:
        """The same sockets, as far as they are on this server."""
        return Broadcast(msgspec.structs.replace(self._target, local=True))

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to every chosen socket. It is written once and never waits.

        It may be called from any thread, such as that of a plain `def` endpoint.

        Args:
            event: its name.
            args: what has a JSON, and `bytes`, in lists and dicts as deep as you like.

        Raises:
            ConfigurationError: the name is reserved.
            TypeError: an argument has no JSON.
        """
        target = self._target
        data = event_data(event, args)
        for namespace in target.namespaces:
            packet = namespace.encode(Packet(PacketType.EVENT, namespace.name, data))
            if target.rooms is not None:
                packet.audience = target.rooms
            loop = namespace.members.loop
            if loop is None or loop is _running_loop():
                _deliver(namespace, target, packet)
            else:
                loop.call_soon_threadsafe(_deliver, namespace, target, packet)

    def send(self, *args: Any) -> None:
        """Emit `message`."""
        self.emit("message", *args)

    async def call(self, event: str, *args: Any, timeout: float = ACK_TIMEOUT) -> list[Any]:
        """Send an event to every chosen socket and return what they acknowledged, in no particular order.

        Args:
            event: its name.
            args: its arguments.
            timeout: seconds to wait for all of them.

        Raises:
            AckTimeout: some did not answer in time; `responses` holds the others. One that left meanwhile is not
                waited for.
        """
        calls = [asyncio.ensure_future(socket.call(event, *args, timeout=timeout)) for socket in self._target.sockets()]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        responses = [answer for answer in answers if not isinstance(answer, BaseException)]
        for error in failed:
            if not isinstance(error, AckTimeout | Disconnected):
                raise error
        late = sum(isinstance(error, AckTimeout) for error in failed)
        if late:
            raise AckTimeout(f"{late} of {len(calls)} sockets did not acknowledge in {timeout} s", responses)
        return responses

    async def fetch_sockets(self) -> list[Socket]:
        """Return the chosen sockets, as they are now."""
        return self._target.sockets()

    def sockets_join(self, *rooms: str) -> None:
        """Put every chosen socket into rooms.

        Raises:
            ConfigurationError: one cannot be joined by name; see `Socket.join`. Then no socket has joined any.
        """
        check_joinable(rooms)
        for socket in self._target.sockets():
            socket.join(*rooms)

    def sockets_leave(self, *rooms: str) -> None:
        """Take every chosen socket out of rooms.

        Raises:
            ConfigurationError: one cannot be left by name; see `Socket.leave`. Then no socket has left any.
        """
        check_joinable(rooms)
        for socket in self._target.sockets():
            socket.leave(*rooms)

    def disconnect_sockets(self, close: bool = False) -> None:
        """Disconnect every chosen socket.

        Args:
            close: end the whole connection, with its sockets in other namespaces.
        """
        for socket in self._target.sockets():
            socket.disconnect(close=close)


class Broadcast(Emitter):
    """Some of the sockets, chosen by `to`, `except_`, `volatile` and `local`. It can be kept and used again."""

    __slots__ = ("_chosen",)

    def __init__(self, target: Target) -> None:
        self._chosen = target

    @property
    def _target(self) -> Target:
        return self._chosen
