"""What a connection asks of the thing that moves its bytes."""

from __future__ import annotations

from typing import Protocol

from iogate.protocol.engineio.packets import Encoded
from iogate.server.session.reasons import CloseReason


class Transport(Protocol):
    """What moves the bytes of a connection. It decides nothing."""

    @property
    def name(self) -> str:
        """The name that Engine.IO has for it."""

    @property
    def upgradable(self) -> bool:
        """Whether a WebSocket may ask to take its place."""

    @property
    def lingers(self) -> bool:
        """Whether it keeps a connection after `close`. It then counts in `Server.pending` until that has ended."""

    @property
    def writable(self) -> bool:
        """Whether a packet would leave at once."""

    @property
    def congested(self) -> bool:
        """Whether the client does not take what is being sent to it."""

    def write(self, packet: Encoded) -> bool:
        """Send a packet at once, if that can be done: then there is no need to keep it."""

    def flush(self) -> None:
        """Send what `Connection.take` or `take_one` gives, now or as soon as it can be sent. It never waits."""

    def close(self, reason: CloseReason) -> None:
        """Send what there is, then close."""

    def abort(self) -> None:
        """Close now, whatever has not been sent."""

    async def closed(self) -> None:
        """Return when nothing more will be sent, after `close` or `abort`."""


class NoTransport:
    """A transport that sends nothing, for a session whose own transport has ended."""

    name = ""
    upgradable = lingers = writable = congested = False

    def write(self, packet: Encoded) -> bool:
        """Refuse the packet."""
        return False

    def flush(self) -> None:
        """Do nothing."""

    def close(self, reason: CloseReason) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""

    async def closed(self) -> None:
        """Return at once."""


NONE = NoTransport()
