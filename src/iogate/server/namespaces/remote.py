"""A socket of another server in the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iogate.auth import Principal
from iogate.errors import AckTimeout, Disconnected, NotAuthenticated
from iogate.server.namespaces.adapter import Adapter, Selection
from iogate.server.namespaces.emitter import ACK_TIMEOUT, event_data
from iogate.server.namespaces.rooms import check_joinable


class RemoteSocket:
    """A socket of another server, as `fetch_sockets` returns it. Its attributes are those at the time of that call.

    Args:
        id: the id of the socket.
        namespace: the name of its namespace.
        principal: its verified identity; None if it has none.
        rooms: the rooms of the socket.
        data: what the application has stored in `Socket.data`.
        adapter: the adapter of the namespace on this server.
    """

    __slots__ = ("_adapter", "_principal", "_selection", "data", "id", "namespace", "rooms")

    def __init__(
        self,
        id: str,  # noqa: A002
        namespace: str,
        principal: Principal | None,
        rooms: frozenset[str],
        data: Mapping[str, Any],
        adapter: Adapter,
    ) -> None:
        self.id = id
        self.namespace = namespace
        self.rooms = rooms
        self.data = data
        self._adapter = adapter
        self._principal = principal
        self._selection = Selection(rooms=(id,))

    @property
    def authenticated(self) -> bool:
        """Whether the socket has an identity. False for a guest."""
        return self._principal is not None

    @property
    def principal(self) -> Principal:
        """The verified identity.

        Raises:
            NotAuthenticated: the socket has no identity. Check `authenticated` first.
        """
        if self._principal is None:
            raise NotAuthenticated("this socket has no identity: check socket.authenticated first")
        return self._principal

    @property
    def claims(self) -> Mapping[str, Any]:
        """The claims of its token; empty for a guest."""
        return self._principal.claims if self._principal is not None else {}

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of its token; empty for a guest."""
        return self._principal.scopes if self._principal is not None else frozenset()

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to this client. It does nothing if the client has disconnected.

        Raises:
            ConfigurationError: the name is reserved.
            TypeError: an argument cannot be encoded.
        """
        self._adapter.broadcast(event_data(event, args), self._selection)

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
            Disconnected: the client has disconnected.
        """
        answers = await self._adapter.call(event_data(event, args), self._selection, timeout)
        if answers.missing:
            raise AckTimeout(f"{event!r} was not acknowledged in {timeout} s")
        if not answers.values:
            raise Disconnected(f"{event!r} cannot be acknowledged: the socket is not connected")
        return answers.values[0]

    def join(self, *rooms: str) -> None:
        """Put the socket into rooms.

        Raises:
            ConfigurationError: a room cannot be joined by name; see `Socket.join`.
        """
        check_joinable(rooms)
        self._adapter.join_selected(self._selection, rooms)

    def leave(self, *rooms: str) -> None:
        """Take the socket out of rooms.

        Raises:
            ConfigurationError: a room cannot be left by name; see `Socket.leave`.
        """
        check_joinable(rooms)
        self._adapter.leave_selected(self._selection, rooms)

    def disconnect(self, close: bool = False) -> None:
        """Disconnect the socket.

        Args:
            close: close its connection, with its sockets in other namespaces.
        """
        self._adapter.disconnect(self._selection, close=close)

    def __repr__(self) -> str:
        return f"<RemoteSocket {self.id} in {self.namespace}>"
