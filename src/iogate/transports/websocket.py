"""WebSocket over ASGI: for any server that speaks it. One frame is one packet or one attachment."""

from __future__ import annotations

import asyncio

from iogate.asgi_types import Message, Receive, Send
from iogate.protocol.engineio.packets import PROBE_ANSWER, Encoded
from iogate.server.gate.connection import Connection
from iogate.server.session.reasons import CloseReason
from iogate.server.session.upgrade import Upgrade

MAX_FRAGMENTS = 1000
"""Frames of which one message may consist. Empty ones cost time and add nothing to its size."""


class WebSocketTransport:
    """The transport of a session that is on a WebSocket.

    Args:
        connection: the session.
        send: of the WebSocket.
    """

    __slots__ = (
        "_aborted",
        "_close_code",
        "_connection",
        "_drained",
        "_draining",
        "_drains",
        "_probed",
        "_reading",
        "_send",
        "_task",
        "_upgrade",
    )

    name = "websocket"
    upgradable = False
    lingers = True

    def __init__(self, connection: Connection, send: Send) -> None:
        self._connection = connection
        self._send = send
        self._task: asyncio.Task[None] | None = None
        self._close_code: int | None = None
        self._aborted = False
        self._drained: asyncio.Event | None = None
        self._draining = False
        self._drains: asyncio.Task[None] | None = None
        self._upgrade: Upgrade | None = None  # Until it has taken its session over.
        self._probed = False  # The answer to a probe is to be sent.
        self._reading = True  # What is written before `run` begins, and while it handles a frame, `run` sends.

    @property
    def writable(self) -> bool:
        """Whether nothing waits for the client to read."""
        return not self._draining

    @property
    def congested(self) -> bool:
        """Whether a frame waits for the client to read."""
        return self._draining

    def write(self, packet: Encoded) -> bool:
        """Do nothing: to send is to await here."""
        return False

    def flush(self) -> None:
        """Send what there is, in a task unless one is at it or `run` is about to."""
        begun = self._drains is not None and not self._drains.done()
        if not (self._reading or self._draining or begun):
            self._drains = self._connection.sessions.spawn(self._drain())

    def close(self, reason: CloseReason) -> None:
        """Send the rest and a close frame; a client that does not take it within `DRAIN_TIMEOUT` seconds is cut off."""
        self._close_code = self._close_code or reason.code
        self._connection.sessions.drain_timeout.start(self)
        self.flush()

    def abort(self) -> None:
        """End the task that serves the WebSocket; the ASGI server then closes it."""
        self._aborted = True
        self._connection.sessions.drain_timeout.stop(self)
        if self._drained is not None:
            self._drained.set()
        tasks, self._drains = (self._task, self._drains), None  # Its exception refers to this: a reference cycle.
        for task in tasks:
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    async def closed(self) -> None:
        """Return when the close frame has been handed to the ASGI server, or nothing will be any more."""
        while self._close_code is not None and not self._aborted:
            self._drained = asyncio.Event()
            await self._drained.wait()

    def upgrade(self) -> None:
        """Wait until the client moves its session here."""
        self._upgrade = Upgrade(self._connection, self)

    def answer_probe(self) -> None:
        """Send the answer to a probe."""
        self._probed = True
        self.flush()

    def take_over(self) -> None:
        """Serve the session from now on."""
        self._upgrade = None
        self.flush()

    async def run(self, receive: Receive) -> None:
        """Serve the WebSocket until it is closed."""
        connection = self._connection
        self._task = asyncio.current_task()
        try:
            while True:
                await self._drain()
                self._reading = False
                if connection.reading_paused and self._upgrade is None:  # An upgrade need not wait for handlers.
                    await connection.wait_until_readable()
                message = await receive()
                self._reading = True
                if message["type"] == "websocket.disconnect":
                    break
                self._receive(message)
        except asyncio.CancelledError:
            if not self._aborted:
                raise  # It is the ASGI server that wants the end, and not `abort`.
        finally:
            self._task = None
            if self._upgrade is None:
                connection.close(CloseReason.TRANSPORT_CLOSE)
                connection.drop_transport()
            else:
                self._upgrade.stop()
            self.abort()

    def _receive(self, message: Message) -> None:
        text = message.get("text")
        data = message["bytes"] if text is None else text.encode()
        if self._upgrade is None:
            self._connection.receive(data, binary=text is None)
        else:
            self._upgrade.receive(data, binary=text is None)

    async def _drain(self) -> None:
        if self._draining:
            return
        self._draining = True
        try:
            if self._probed:
                self._probed = False
                await self._send({"type": "websocket.send", "text": PROBE_ANSWER.string})
            while self._upgrade is None and (packet := self._connection.take_one()) is not None:
                if packet.text:
                    await self._send({"type": "websocket.send", "text": packet.string})
                for data in packet.attachments:
                    if self._aborted:
                        return
                    await self._send({"type": "websocket.send", "bytes": data})
                self._connection.sent(packet)
                if self._aborted:
                    return
            if self._close_code is not None:
                await self._send({"type": "websocket.close", "code": self._close_code})
                self._close_code = None
        except Exception:  # Each ASGI server has one of its own for a client that has gone.
            if self._upgrade is None:
                self._connection.close(CloseReason.TRANSPORT_CLOSE)
        finally:
            self._draining = False
            if self._drained is not None:
                self._drained.set()
