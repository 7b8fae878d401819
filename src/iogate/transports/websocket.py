"""WebSocket over ASGI: for any server that speaks it. One frame is one packet or one attachment."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from iogate.asgi_types import Message, Receive, Send
from iogate.errors import ProtocolError
from iogate.protocol.engineio.connection import Probe, Role, Upgrade
from iogate.protocol.engineio.packets import PROBE_ANSWER, Encoded
from iogate.server.connection import TOO_LARGE, Connection
from iogate.transports.polling import PollingTransport

CLOSE_CODES = {"server shutting down": 1001, "parse error": 1002, TOO_LARGE: 1009}
"""Close codes (RFC 6455, section 7.4.1) by the reason that a connection ends for; 1000 for all others."""
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
        "_reading",
        "_send",
        "_task",
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
            self._drains = self._connection.server.spawn(self._drain())

    def close(self, reason: str) -> None:
        """Send the rest and a close frame; a client that does not take it within `LINGER` seconds is cut off."""
        self._close_code = self._close_code or CLOSE_CODES.get(reason, 1000)
        self._connection.server.linger_due.start(self)
        self.flush()

    def abort(self) -> None:
        """End the task that serves the WebSocket; the ASGI server then closes it."""
        self._aborted = True
        self._connection.server.linger_due.stop(self)
        if self._drained is not None:
            self._drained.set()
        tasks, self._drains = (self._task, self._drains), None  # Its exception will refer to this one.
        for task in tasks:
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    async def closed(self) -> None:
        """Return when the close frame has been handed to the ASGI server, or nothing will be any more."""
        while self._close_code is not None and not self._aborted:
            self._drained = asyncio.Event()
            await self._drained.wait()

    async def run(self, receive: Receive) -> None:
        """Serve the WebSocket until it is closed."""
        connection = self._connection
        self._task = asyncio.current_task()
        try:
            while True:
                await self._drain()
                self._reading = False
                if connection.busy:
                    await connection.ready()
                message = await receive()
                self._reading = True
                if message["type"] == "websocket.disconnect":
                    break
                self._receive(message)
        except asyncio.CancelledError:
            if connection.open:
                raise  # It is the ASGI server that wants the end, and not `abort`.
        finally:
            self._task = None
            connection.close("transport close", abort=True)
            connection.leave()
            self.abort()

    def _receive(self, message: Message) -> None:
        text = message.get("text")
        self._connection.receive(message["bytes"] if text is None else text.encode(), binary=text is None)

    async def _drain(self) -> None:
        if self._draining:
            return
        self._draining = True
        try:
            while (packet := self._connection.take_one()) is not None:
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
            self._connection.close("transport close", abort=True)
        finally:
            self._draining = False
            if self._drained is not None:
                self._drained.set()


async def upgrade(connection: Connection, receive: Receive, send: Send) -> None:
    """Move a session from polling to this WebSocket, and serve it.

    The session stays on polling, undisturbed, until the client has said `upgrade`; if it says anything else, or takes
    longer than `connect_timeout`, only the WebSocket is closed.
    """
    probe, polling = Upgrade(Role.SERVER), connection.transport
    assert isinstance(polling, PollingTransport)  # noqa: S101
    polling.candidate = asyncio.current_task()
    try:
        async with asyncio.timeout(connection.server.settings.connect_timeout):
            while probe.state is not Probe.DONE:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    return
                if probe.receive((message.get("text") or "").encode()) is Probe.PROBED:
                    polling.upgrading = True
                    await _try(send, {"type": "websocket.send", "text": PROBE_ANSWER.string})
    except (TimeoutError, ProtocolError):
        await _try(send, {"type": "websocket.close", "code": CLOSE_CODES["parse error"]})
        return
    except asyncio.CancelledError:
        if connection.open:
            raise  # It is the ASGI server that wants the end, and not the session.
    finally:
        polling.upgrading = False
        polling.candidate = None
    if not connection.open:
        # The session ended while its client moved, and it polls no more: what it was told last goes here.
        if probe.state is Probe.DONE:
            await WebSocketTransport(connection, send)._drain()
        await _try(send, {"type": "websocket.close", "code": 1000})
        return
    transport = WebSocketTransport(connection, send)
    connection.transport = transport
    await transport.run(receive)


async def _try(send: Send, message: Message) -> None:
    """Send something to a client that may have gone: if it has, the next `receive` tells."""
    with suppress(Exception):  # Each ASGI server has one of its own for that.
        await send(message)
