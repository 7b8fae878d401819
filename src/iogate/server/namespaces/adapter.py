"""The adapter of a namespace: its sockets, their rooms, and the operations on many sockets at once.

The emitters (`io.to(...).emit(...)`) call the adapter and nothing else, so a cluster can replace it: everything that
crosses this interface is a name, a packet's data or a number, and not an object of this process. `LocalAdapter` serves
one process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from iogate.protocol.engineio.packets import Encoded
from iogate.protocol.socketio.packets import Encode, Packet, PacketType
from iogate.server.namespaces.rooms import Rooms

if TYPE_CHECKING:
    from iogate.server.namespaces.remote import RemoteSocket
    from iogate.server.namespaces.socket import Socket


class Selection(msgspec.Struct, frozen=True):
    """Which sockets of a namespace a broadcast is for, and how it is sent.

    Args:
        rooms: the sockets in any of these rooms, so an empty tuple selects none; None selects all.
        excluded: the sockets in any of these rooms are left out.
        volatile: drop the packet for a client that cannot take it at once.
        local: select only sockets of this server.
    """

    rooms: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    volatile: bool = False
    local: bool = False


EVERYBODY = Selection()


class Answers(msgspec.Struct, frozen=True):
    """The acknowledgements of a broadcast.

    Args:
        values: what the clients acknowledged, in no particular order: None, one value, or a tuple of several each.
        missing: how many sockets did not acknowledge in time. Sockets that disconnected meanwhile do not count.
        asked: how many sockets were asked.
    """

    values: list[Any]
    missing: int
    asked: int


class Adapter(Protocol):
    """The interface of an adapter. Methods that are not coroutines return at once and do not wait for other servers."""

    @property
    def sockets(self) -> Mapping[str, Socket]:
        """The sockets of this server by id, to be read only."""

    def add(self, socket: Socket) -> None:
        """Add a socket of this server. From now on it is in the room of its id."""

    def remove(self, socket: Socket) -> None:
        """Remove a socket of this server, and take it out of all rooms."""

    def join(self, socket: Socket, rooms: Iterable[str]) -> None:
        """Put a socket of this server into rooms. The socket must have been added."""

    def leave(self, socket: Socket, rooms: Iterable[str]) -> None:
        """Take a socket of this server out of rooms. A socket cannot leave the room of its id."""

    def rooms_of(self, socket: Socket) -> frozenset[str]:
        """Return the rooms of a socket of this server, including the room of its id; none if it is not here."""

    def new_ack_id(self) -> int:
        """Return an id for a packet that clients acknowledge, unique among those of this adapter."""

    def broadcast(self, data: list[Any], selection: Selection) -> None:
        """Send an event to the selected sockets. Any thread may call it.

        Args:
            data: the name of the event and its arguments.
            selection: the recipients.

        Raises:
            TypeError: the data cannot be encoded.
        """

    async def call(self, data: list[Any], selection: Selection, timeout: float) -> Answers:
        """Send an event to the selected sockets, and return their acknowledgements.

        Args:
            data: the name of the event and its arguments.
            selection: the recipients. `volatile` is ignored.
            timeout: seconds to wait for the acknowledgements.

        Raises:
            TypeError: the data cannot be encoded.
        """

    async def fetch(self, selection: Selection) -> list[Socket | RemoteSocket]:
        """Return the selected sockets, as they are now."""

    def join_selected(self, selection: Selection, rooms: tuple[str, ...]) -> None:
        """Put the selected sockets into rooms."""

    def leave_selected(self, selection: Selection, rooms: tuple[str, ...]) -> None:
        """Take the selected sockets out of rooms."""

    def disconnect(self, selection: Selection, *, close: bool) -> None:
        """Disconnect the selected sockets.

        Args:
            selection: the sockets.
            close: close their connections, with their sockets in other namespaces.
        """


class Adapters(Protocol):
    """The interface of what makes the adapters of a server, and holds what they share."""

    def create(self, namespace: str, encode: Encode) -> Adapter:
        """Return the adapter of a new namespace.

        Args:
            namespace: the name of the namespace.
            encode: encodes packets.
        """

    async def start(self) -> None:
        """Start. The server awaits this before it accepts clients, in `Server.ready`."""

    async def stop(self) -> None:
        """Stop. The server awaits this after its clients are disconnected, in `Server.shutdown`."""


class LocalAdapter(Rooms):
    """The adapter of a namespace whose sockets are all on this server.

    Args:
        namespace: the name of the namespace.
        encode: encodes packets.
    """

    __slots__ = ("_encode", "_last_ack", "_namespace")

    def __init__(self, namespace: str, encode: Encode) -> None:
        super().__init__()
        self._namespace = namespace
        self._encode = encode
        self._last_ack = 0

    def new_ack_id(self) -> int:
        """Return an id for a packet that clients acknowledge."""
        self._last_ack += 1
        return self._last_ack

    def broadcast(self, data: list[Any], selection: Selection) -> None:
        """Encode an event once, and send it to the selected sockets, on their event loop."""
        packet = self._event(data, selection)
        if self.loop is None or self.loop is _running_loop():
            self._send(packet, selection)
        else:
            self.loop.call_soon_threadsafe(self._send, packet, selection)

    async def call(self, data: list[Any], selection: Selection, timeout: float) -> Answers:
        """Encode an event once, send it to the selected sockets with one id, and return their acknowledgements."""
        id_ = self.new_ack_id()
        packet = self._event(data, selection, id_)
        sockets = self._select(selection)
        expected = [socket._expect(id_) for socket in sockets]
        try:
            for socket in sockets:
                socket._connection.send(packet)
            async with asyncio.timeout(timeout):
                await asyncio.gather(*expected, return_exceptions=True)
        except TimeoutError:
            pass
        finally:
            for socket in sockets:
                socket._stop_expecting(id_)
        values = [answer.result() for answer in expected if not (answer.cancelled() or answer.exception())]
        return Answers(values, sum(answer.cancelled() for answer in expected), len(sockets))

    async def fetch(self, selection: Selection) -> list[Socket | RemoteSocket]:
        """Return the selected sockets, as they are now."""
        return [*self._select(selection)]

    def join_selected(self, selection: Selection, rooms: tuple[str, ...]) -> None:
        """Put the selected sockets into rooms."""
        for socket in self._select(selection):
            socket.join(*rooms)

    def leave_selected(self, selection: Selection, rooms: tuple[str, ...]) -> None:
        """Take the selected sockets out of rooms."""
        for socket in self._select(selection):
            socket.leave(*rooms)

    def disconnect(self, selection: Selection, *, close: bool) -> None:
        """Disconnect the selected sockets."""
        for socket in self._select(selection):
            socket.disconnect(close=close)

    def _select(self, selection: Selection) -> list[Socket]:
        return self.select(selection.rooms, selection.excluded)

    def _event(self, data: list[Any], selection: Selection, ack_id: int | None = None) -> Encoded:
        packet = self._encode(Packet(PacketType.EVENT, self._namespace, data, ack_id))
        if selection.rooms is not None:
            packet.audience = selection.rooms
        return packet

    def _send(self, packet: Encoded, selection: Selection) -> None:
        for socket in self._select(selection):
            socket._connection.send(packet, volatile=selection.volatile)


class LocalAdapters:
    """Makes a `LocalAdapter` for every namespace. They share nothing."""

    def create(self, namespace: str, encode: Encode) -> Adapter:
        """Return the adapter of a new namespace."""
        return LocalAdapter(namespace, encode)

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
