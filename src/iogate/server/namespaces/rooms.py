"""The rooms of sockets, and the reserved rooms.

Rooms are indexed both ways, so that the cost of leaving depends on a socket's own rooms, not on all rooms. Two kinds
are reserved: `user:...`, which contains the sockets of one user, and the id of each socket. A name that came from a
client must not lead into either, so no socket can join or leave them by name.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

from iogate.errors import ConfigurationError
from iogate.printable import printable

if TYPE_CHECKING:
    from iogate.server.namespaces.socket import Socket

Names = Collection[str]

MAX_ROOM = 256
"""Characters of the name of a room that can be joined."""
USER = "user:"
"""The prefix of the names of users' rooms."""
_ID_BYTES = 12
"""Random bytes in the id of a socket."""
_MARK_BYTES = 3
"""Bytes by which the id of a socket is recognised. One in 16 million other names of that length looks like one."""


def room_of_user(subject: str, issuer: str | None) -> str:
    """Return the name of the room that contains all sockets of a user.

    Args:
        subject: the `sub` of the user's tokens.
        issuer: the `iss` of the user's tokens, if the server accepts several issuers. It is percent-encoded, so the
            first colon after it is always the separator.
    """
    return USER + subject if issuer is None else f"{USER}{quote(issuer, safe='', errors='surrogatepass')}:{subject}"


def new_socket_id() -> str:
    """Return a new id for a socket: 20 characters that `is_socket_id` recognises."""
    random = secrets.token_bytes(_ID_BYTES)
    return urlsafe_b64encode(random + _mark(random)).decode()


def is_socket_id(name: str) -> bool:
    """Return True if a name is the id of a socket, of this server or another, connected or not."""
    if len(name) != (_ID_BYTES + _MARK_BYTES) // 3 * 4:
        return False
    try:
        octets = urlsafe_b64decode(name)
    except (binascii.Error, ValueError):
        return False
    return octets[_ID_BYTES:] == _mark(octets[:_ID_BYTES])


def _mark(random: bytes) -> bytes:
    return hashlib.sha256(b"socket" + random).digest()[:_MARK_BYTES]


def check_names(rooms: Iterable[object]) -> None:
    """Raise unless these can be names of rooms.

    Raises:
        ConfigurationError: one is not a string.
    """
    for room in rooms:
        if not isinstance(room, str):
            raise ConfigurationError(
                f'the name of a room is a string, and not {printable(repr(room))}: write to("a", "b"), or to(*names)'
            )


def check_joinable(rooms: Collection[str]) -> None:
    """Raise unless a socket may join and leave these rooms by name.

    Raises:
        ConfigurationError: one is not a string, is longer than `MAX_ROOM`, or is reserved.
    """
    check_names(rooms)
    for room in rooms:
        if len(room) > MAX_ROOM:
            raise ConfigurationError(f"the name of a room has at most {MAX_ROOM} characters: {printable(room, 50)}")
        check_not_own(room)


def check_not_own(room: str) -> None:
    """Raise if a room is reserved.

    Raises:
        ConfigurationError: it is.
    """
    if room.startswith(USER):
        raise ConfigurationError(
            f"{printable(repr(room))} is the room of a user: all sockets of the user are in it, and no others, so it"
            ' cannot be joined or left. Send to it with io.to(io.user_room("bob")), and name rooms of yours otherwise'
        )
    if is_socket_id(room):
        raise ConfigurationError(
            f"{room!r} is the id of a socket: only that socket is in the room, so it cannot be joined or left. Send to"
            " it with io.to(id), and name rooms of yours otherwise"
        )


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

    def rooms_of(self, socket: Socket) -> frozenset[str]:
        """Return the rooms that a socket is in, its own included."""
        if socket.id not in self.sockets:
            return frozenset()
        return frozenset(self._rooms.get(socket, ())) | {socket.id}

    def select(self, rooms: Names | None = None, excluded: Names = ()) -> list[Socket]:
        """Return the sockets that are in any of these rooms and in none of the excluded.

        It is a list of its own: sockets may go while it is worked through.

        Args:
            rooms: the names; None selects all sockets, an empty collection none.
            excluded: names of rooms whose sockets are left out.
        """
        if rooms is None:
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
