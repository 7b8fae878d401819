"""Saying something to many sockets at once: `io.to("news").except_("muted").volatile.emit("headline", text)`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from iogate.errors import AckTimeout, ConfigurationError
from iogate.protocol.socketio.packets import RESERVED_EVENTS
from iogate.server.namespaces.adapter import EVERYBODY, Adapter, Selection
from iogate.server.namespaces.handlers import GATE_EVENTS
from iogate.server.namespaces.rooms import check_joinable, check_names

if TYPE_CHECKING:
    from iogate.server.namespaces.remote import RemoteSocket
    from iogate.server.namespaces.socket import Socket

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


class Emitter:
    """The ways to choose and to address many sockets, the same on a server, a namespace and a broadcast."""

    __slots__ = ()

    @property
    def _all(self) -> Broadcast:
        """A broadcast to all sockets of this object."""
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
        chosen = self._all
        return chosen._with(rooms=(chosen._selection.rooms or ()) + rooms)

    def in_(self, *rooms: str) -> Broadcast:
        """Do the same as `to`, for where it reads better."""
        return self.to(*rooms)

    def except_(self, *rooms: str) -> Broadcast:
        """Leave out the sockets that are in any of these rooms. Without a room it leaves out none.

        Raises:
            ConfigurationError: one is not a string.
        """
        check_names(rooms)
        chosen = self._all
        return chosen._with(excluded=chosen._selection.excluded + rooms)

    @property
    def volatile(self) -> Broadcast:
        """The same sockets, but what is sent is dropped for those that cannot take it at once."""
        return self._all._with(volatile=True)

    @property
    def local(self) -> Broadcast:
        """The same sockets, as far as they are on this server."""
        return self._all._with(local=True)

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
        data = event_data(event, args)
        chosen = self._all
        for adapter in chosen._adapters:
            adapter.broadcast(data, chosen._selection)

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
        data = event_data(event, args)
        chosen = self._all
        calls = [adapter.call(data, chosen._selection, timeout) for adapter in chosen._adapters]
        answers = await asyncio.gather(*calls)
        values = [value for answer in answers for value in answer.values]
        missing = sum(answer.missing for answer in answers)
        if missing:
            asked = sum(answer.asked for answer in answers)
            raise AckTimeout(f"{missing} of {asked} sockets did not acknowledge in {timeout} s", values)
        return values

    async def fetch_sockets(self) -> list[Socket | RemoteSocket]:
        """Return the chosen sockets, as they are now. In a cluster, those of other servers are `RemoteSocket`s."""
        chosen = self._all
        found = [await adapter.fetch(chosen._selection) for adapter in chosen._adapters]
        return [socket for sockets in found for socket in sockets]

    def sockets_join(self, *rooms: str) -> None:
        """Put every chosen socket into rooms.

        Raises:
            ConfigurationError: one cannot be joined by name; see `Socket.join`. Then no socket has joined any.
        """
        check_joinable(rooms)
        chosen = self._all
        for adapter in chosen._adapters:
            adapter.join_selected(chosen._selection, rooms)

    def sockets_leave(self, *rooms: str) -> None:
        """Take every chosen socket out of rooms.

        Raises:
            ConfigurationError: one cannot be left by name; see `Socket.leave`. Then no socket has left any.
        """
        check_joinable(rooms)
        chosen = self._all
        for adapter in chosen._adapters:
            adapter.leave_selected(chosen._selection, rooms)

    def disconnect_sockets(self, close: bool = False) -> None:
        """Disconnect every chosen socket.

        Args:
            close: end the whole connection, with its sockets in other namespaces.
        """
        chosen = self._all
        for adapter in chosen._adapters:
            adapter.disconnect(chosen._selection, close=close)


class Broadcast(Emitter):
    """Some of the sockets, chosen by `to`, `except_`, `volatile` and `local`. It can be kept and used again.

    Args:
        find: returns the adapters of its namespaces. It is called each time, because namespaces come and go.
        selection: which sockets of them.
    """

    __slots__ = ("_find", "_selection")

    def __init__(self, find: Callable[[], list[Adapter]], selection: Selection = EVERYBODY) -> None:
        self._find = find
        self._selection = selection

    @property
    def _all(self) -> Broadcast:
        return self

    @property
    def _adapters(self) -> list[Adapter]:
        return self._find()

    def _with(self, **changes: Any) -> Broadcast:
        return Broadcast(self._find, msgspec.structs.replace(self._selection, **changes))
