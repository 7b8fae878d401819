"""A WebSocket that takes the place of a session's polling (Engine.IO protocol, section "Upgrade").

The session stays on polling, undisturbed, until its client has sent `upgrade` on the WebSocket. If the client sends
anything else, or takes longer than `connect_timeout`, only the WebSocket is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from iogate.errors import ProtocolError
from iogate.protocol.engineio.connection import Probe, Role
from iogate.protocol.engineio.connection import Upgrade as ProbeState
from iogate.server.session.reasons import CloseReason
from iogate.server.session.transport import Transport

if TYPE_CHECKING:
    from iogate.server.session.session import Session


class UpgradingTransport(Transport, Protocol):
    """A WebSocket that has no session of its own yet."""

    def answer_probe(self) -> None:
        """Send the answer to a probe."""

    def take_over(self) -> None:
        """Serve the session from now on, beginning with what it has to send."""


class PolledTransport(Transport, Protocol):
    """A transport that a WebSocket may take the place of."""

    upgrade: Upgrade | None
    upgrading: bool


class Upgrade:
    """One attempt of a WebSocket to take over a session.

    Args:
        session: the session, whose transport is upgradable.
        websocket: the WebSocket.
    """

    __slots__ = ("_polling", "_probe", "_session", "_websocket")

    def __init__(self, session: Session, websocket: UpgradingTransport) -> None:
        self._session = session
        self._polling = polling = cast("PolledTransport", session.transport)
        self._websocket = websocket
        self._probe = ProbeState(Role.SERVER)
        polling.upgrade = self
        session.sessions.upgrade_timeout.start(self)

    def receive(self, message: bytes, *, binary: bool) -> None:
        """Handle a message of the client on the WebSocket. Messages after `stop` are ignored."""
        if self._polling.upgrade is not self:
            return
        try:
            state = self._probe.receive(message, binary=binary)
        except ProtocolError:
            self.fail()
            return
        if state is Probe.PROBED:
            self._polling.upgrading = True
            self._websocket.answer_probe()
            return
        self.stop()
        session = self._session
        if session.open:
            session.transport = self._websocket
        # A session that ended meanwhile sends its last packets here: its client polls no longer.
        self._websocket.take_over()
        if not session.open:
            self._websocket.close(CloseReason.NOT_ADMITTED)

    def fail(self) -> None:
        """Close the WebSocket because its client broke the protocol or was too slow."""
        self.stop()
        self._websocket.close(CloseReason.PARSE_ERROR)

    def cancel(self) -> None:
        """Close the WebSocket because the session has ended."""
        self.stop()
        self._websocket.close(CloseReason.NOT_ADMITTED)

    def stop(self) -> None:
        """Leave the session to its polling."""
        self._session.sessions.upgrade_timeout.stop(self)
        if self._polling.upgrade is self:
            self._polling.upgrade = None
            self._polling.upgrading = False
