"""HTTP long-polling: a GET waits for output, a POST brings input.

A session has one GET and one POST at a time (Engine.IO protocol, section "HTTP long-polling"); a client that begins a
second one has lost track, and its session is closed.
"""

from __future__ import annotations

import asyncio
import logging

from iogate.asgi_types import Receive
from iogate.errors import ProtocolError
from iogate.protocol.engineio.packets import CLOSE, NOOP, Encoded
from iogate.protocol.engineio.payload import decode_payload, encode_payload
from iogate.server.gate.connection import Connection
from iogate.server.session.reasons import CloseReason
from iogate.server.session.upgrade import Upgrade

logger = logging.getLogger("iogate")


class TooLarge(Exception):
    """A body has more bytes than `max_payload`."""


class HungUp(Exception):
    """The client went in the middle of a request."""


class PollingTransport:
    """The transport of a session that polls.

    Args:
        connection: the session.
    """

    __slots__ = ("_body", "_broken", "_connection", "_ended", "_poll", "_posting", "_upgrading", "upgrade")

    name = "polling"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._poll: asyncio.Future[None] | None = None
        self._posting = False
        self._body: asyncio.Task[bytes] | None = None
        self.upgrade: Upgrade | None = None  # The attempt of a WebSocket to take its place.
        self._upgrading = False
        self._broken = False
        self._ended = False

    @property
    def upgradable(self) -> bool:
        """Whether a WebSocket may ask to take its place: one at a time."""
        return self.upgrade is None

    @property
    def lingers(self) -> bool:
        """Whether something waits for a last GET."""
        return self._connection.sid in self._connection.sessions.draining

    @property
    def writable(self) -> bool:
        """Whether a GET waits, or is about to take what there is."""
        return self._poll is not None

    @property
    def congested(self) -> bool:
        """Never: what is not fetched stays where it can be taken back."""
        return False

    @property
    def upgrading(self) -> bool:
        """Whether the client is about to move to another transport; its GETs are answered at once then."""
        return self._upgrading

    @upgrading.setter
    def upgrading(self, value: bool) -> None:
        self._upgrading = value
        if value:
            self._wake()

    def write(self, packet: Encoded) -> bool:
        """Do nothing: what is to be sent waits for a GET."""
        return False

    def flush(self) -> None:
        """Let the waiting GET, if there is one, take what there is once all that is said now has been said."""
        self._wake()

    def close(self, reason: CloseReason) -> None:
        """Let the waiting GET carry the rest and a CLOSE, or the next one if it comes within `DRAIN_TIMEOUT` seconds.

        For a client that broke the rules nothing is kept.
        """
        connection = self._connection
        self._broken = reason.is_violation
        if not (self.writable or self._broken):
            connection.sessions.draining[connection.sid] = connection
            connection.sessions.drain_timeout.start(self)
        self._end()

    def abort(self) -> None:
        """End both requests."""
        self._broken = True
        self._linger_no_more()
        self._end()

    async def closed(self) -> None:
        """Return when the GET that waited has taken the rest."""
        while self._poll is not None:  # noqa: ASYNC110
            await asyncio.sleep(0)  # A matter of one or two turns of the loop.

    async def get(self, receive: Receive) -> bytes | None:
        """Answer a GET: return the payload, or None if it may not be asked for now.

        Args:
            receive: of the request; it tells when the client hangs up.
        """
        connection = self._connection
        if self._poll is not None:
            connection.close(CloseReason.TRANSPORT_ERROR)
            return None
        if not (connection.has_output or self._upgrading or self._ended):
            self._poll = asyncio.get_running_loop().create_future()
            gone = asyncio.ensure_future(_gone(receive))
            try:
                await asyncio.wait({self._poll, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not self._poll.done():
                    connection.close(CloseReason.TRANSPORT_CLOSE)
                self._poll = None
                gone.cancel()
        return self._take()

    async def post(self, receive: Receive) -> bool:
        """Take what a POST brings; return False if it is refused.

        Raises:
            TooLarge: the body is larger than `max_payload`.
        """
        if self._ended:  # Nothing would end the request any more.
            return False
        if self._posting:
            self._connection.close(CloseReason.TRANSPORT_ERROR)
            return False
        self._posting = True
        try:
            return await self._post(receive)
        finally:
            self._posting = False

    async def _post(self, receive: Receive) -> bool:
        connection = self._connection
        self._body = asyncio.ensure_future(_read(receive, connection.max_body))
        try:
            body = await self._body
        except TooLarge:
            logger.info("closed: a polling payload of more than %d bytes", connection.max_body)
            connection.close(CloseReason.TOO_LARGE)
            raise
        except HungUp:
            connection.close(CloseReason.TRANSPORT_CLOSE)
            return False
        except asyncio.CancelledError:
            if self._ended and self._body.cancelled():
                return False  # The session ended while its client was still talking.
            self._body.cancel()
            raise
        finally:
            self._body = None
        try:
            frames = decode_payload(body)
        except ProtocolError as error:
            connection.fail(error)
            return False
        for frame in frames:
            if not connection.open:
                break
            connection.receive(frame.data, binary=frame.binary)
            await connection.wait_until_readable()
        return not self._broken

    def _linger_no_more(self) -> None:
        connection = self._connection
        connection.sessions.draining.pop(connection.sid, None)
        connection.drop_transport()

    def _wake(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def _end(self) -> None:
        self._ended = True
        self._wake()
        if self._body is not None and self._body is not asyncio.current_task():
            self._body.cancel()
        # A client whose probe was answered polls no longer: it moves first, and gets the rest there.
        if self.upgrade is not None and (self._broken or not self._upgrading):
            self.upgrade.cancel()

    def _take(self) -> bytes:
        packets = self._connection.take()
        for packet in packets:
            self._connection.sent(packet)
        if self._ended:
            self._linger_no_more()
            self._connection.sessions.drain_timeout.stop(self)
            packets.append(CLOSE)
        return encode_payload(packets or [NOOP])


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HungUp
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLarge
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
