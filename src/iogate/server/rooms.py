"""Who is in which room. Indexed both ways, so that leaving costs a socket's own rooms and not all rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iogate.server.socket import Socket

Names = Collection[str]


class Rooms:
    """The sockets of one namespace and their rooms.

    The room that every socket is in by its own id is not stored: it is the socket's entry itself.
    """

    __slots__ = ("_members", "_rooms", "loop", "sockets")

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None  # The one that the sockets live on.
        self.sockets: dict[str, Socket] = {}
        self._members: dict[str, set[Socket]] = {}
        self._rooms: dict[Socket, set[str]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, socket: Socket) -> None:
        """Take a socket in; from here on it is in its own room."""
        self.sockets[socket.id] = socket
        if self.loop is None:
            self.loop = asyncio.get_running_loop()

    def remove(self, socket: Socket) -> None:
        """Take a socket out of everything."""
        self.sockets.pop(socket.id, None)
        for room in self._rooms.pop(socket, ()):
            self._drop(room, socket)
        if not self.sockets:
            self.loop = None

    def join(self, socket: Socket, rooms: Iterable[str]) -> None:
        """Put a socket that has been added into rooms."""
        own = self._rooms.setdefault(socket, set())
        for room in rooms:
            if room != socket.id:
                own.add(room)
                self._members.setdefault(room, set()).add(socket)

    def leave(self, socket: Socket, rooms: Iterable[str]) -> None:
        """Take a socket out of rooms. Its own room cannot be left."""
        own = self._rooms.get(socket, set())
        for room in rooms:
            if room in own:
                own.remove(room)
                self._drop(room, socket)

    def of(self, socket: Socket) -> frozenset[str]:
        """Return the rooms that a socket is in, its own included."""
        if socket.id not in self.sockets:
            return frozenset()
        return frozenset(self._rooms.get(socket, ())) | {socket.id}

    def select(self, rooms: Names = (), excluded: Names = ()) -> list[Socket]:
        """Return the sockets that are in any of these rooms (no room: all of them) and in none of the excluded.

        It is a list of its own: sockets may go while it is worked through.
        """
        if not rooms:
            found = list(self.sockets.values())
        elif len(rooms) == 1:
            found = list(self._in(*rooms))
        else:
            # A dict and not a set: the order of a broadcast is the same in every run.
            found = list(dict.fromkeys(socket for room in rooms for socket in self._in(room)))
        if excluded:
            without = {socket for room in excluded for socket in self._in(room)}
            found = [socket for socket in found if socket not in without]
        return found

    def _in(self, room: str) -> Iterable[Socket]:
        own = self.sockets.get(room)
        members = self._members.get(room, ())
        return members if own is None else {own, *members}

    def _drop(self, room: str, socket: Socket) -> None:
        members = self._members[room]
        members.remove(socket)
        if not members:
            del self._members[room]
