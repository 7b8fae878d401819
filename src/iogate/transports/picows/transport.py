"""The transport of a WebSocket on picows, which passes frames directly to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from iogate.protocol.engineio.packets import PROBE_ANSWER, Encoded
from iogate.protocol.websocket import frames
from iogate.server.core import Core
from iogate.server.gate.connection import Connection
from iogate.server.session.handshake import Handshake
from iogate.server.session.reasons import CloseReason
from iogate.server.session.upgrade import Upgrade
from iogate.transports.websocket import MAX_FRAGMENTS

MAX_PENDING = 64
"""Packets that wait for the end of a turn of the event loop; with more, what the client does not take must show."""
LARGE = 16_384
"""Bytes of a packet that does not wait for the end of a turn: so what waits is at most 1 MiB."""

TEXT, BINARY, CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
CLOSE, PING_FRAME = WSMsgType.CLOSE, WSMsgType.PING


class PicowsTransport(WSListener):
    """The transport of a session on picows, or of one that may be upgraded to it.

    Args:
        core: the parts of the server.
        handshake: the request.
        target: the session that the WebSocket is to take over; None for one of its own.
    """

    __slots__ = (
        "_backlog",
        "_close_code",
        "_closing",
        "_connection",
        "_core",
        "_count",
        "_fragmented",
        "_fragments",
        "_full",
        "_handshake",
        "_held",
        "_pending",
        "_ping",
        "_upgrade",
        "_write",
        "_ws",
        "congested",
    )

    name = "websocket"
    upgradable = False
    lingers = True

    def __init__(self, core: Core, handshake: Handshake, target: Connection | None) -> None:
        self._core = core
        self._handshake = handshake
        self._connection = target
        self._upgrade: Upgrade | None = None  # Until it has taken the session over.
        self._ws: WSTransport
        self._fragments: bytearray | None = None  # Of the message that is coming in several frames.
        self._fragmented = TEXT
        self._count = 0  # Of its fragments.
        self._held = False  # Reading waits for handlers to finish.
        self._backlog: list[tuple[bytes, bool]] = []  # What had been read already by then.
        self._ping: bytes | None = None  # The last one that has not been answered.
        self._close_code = 0
        self._closing = False
        self._write: Callable[[bytes], None] = _drop
        self._pending: list[bytes] = []  # What was written in this turn of the event loop.
        self._full = False  # The buffer of the socket is; what more there is, waits.
        self.congested = False  # It is still full when the client has had its chance to read.

    @property
    def admitted(self) -> bool:
        """Whether the client is admitted, so that its frames may be as large as the server allows."""
        return self._connection is not None and self._connection.socketio.admitted

    @property
    def max_frame(self) -> int:
        """Bytes that a message of the client may have now."""
        return self._connection.max_frame if self._connection is not None else self._core.settings.max_unverified

    @property
    def writable(self) -> bool:
        """Whether nothing waits for the client to read."""
        return not self.congested

    # What the connection asks for.

    def write(self, packet: Encoded) -> bool:
        """Hand a packet to the socket, unless it is full."""
        if self._full:
            return False
        pending = self._pending
        data = frames(packet)
        pending.append(data)
        if len(pending) == 1:
            self._core.sessions.turn.add(self._write_pending)
        if len(pending) > MAX_PENDING or len(data) > LARGE:
            if self._ws.underlying_transport.is_closing():
                self._write = _drop  # It broke in this turn, and asyncio would log each further attempt.
            self._write_pending()
        return True

    def flush(self) -> None:
        """Hand over what waits, until the socket is full. During an upgrade, it is for the polling transport."""
        connection = self._connection if self._upgrade is None else None
        while not self._full and connection is not None and (packet := connection.take_one()) is not None:
            self.write(packet)
            connection.sent(packet)

    def close(self, reason: CloseReason) -> None:
        """Send the rest and a close frame; a client that does not take it within `DRAIN_TIMEOUT` seconds is cut off."""
        self._close_code = self._close_code or reason.code
        self._core.sessions.drain_timeout.start(self)
        self.flush()
        self._write_pending()
        if not self._full:
            self._end(self._close_code)

    def abort(self) -> None:
        """Cut the connection."""
        self._core.sessions.drain_timeout.stop(self)
        self._pending.clear()
        self._write = _drop
        self._ws.disconnect(graceful=False)

    async def closed(self) -> None:
        """Return when what was written has been handed to the kernel: at the end of this turn of the loop."""
        await asyncio.sleep(0)

    # What picows tells.

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begin: with a session of its own, or with waiting for the probe."""
        self._ws = transport
        # picows keeps both as long as the connection lives, and they are a fifth of what it takes.
        transport.request.headers.clear()
        transport.response.headers.clear()
        # Not `transport.send`, which frames anew for every recipient and makes a system call for every frame.
        self._write = transport.underlying_transport.write
        if self._connection is None:
            self._connection = self._core.open(self._handshake)
            self._connection.begin(self)
        else:
            self._upgrade = Upgrade(self._connection, self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame."""
        type_ = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:  # No extension has been negotiated (RFC 6455, section 5.2).
            self._fail(CloseReason.PARSE_ERROR)
        elif type_ is TEXT and frame.fin and self._upgrade is None and self._fragments is None and not self._held:
            connection = self._connection
            connection.receive(frame.get_payload_as_bytes())  # type: ignore[union-attr]
            if connection.reading_paused:  # type: ignore[union-attr]
                self._hold()
        elif type_ is PING_FRAME:
            if self._ping is None:
                self._core.sessions.turn.add(self._write_pong)
            self._ping = frame.get_payload_as_bytes()
        elif type_ is CLOSE:
            self._closed_by_peer()
        elif type_ is TEXT or type_ is BINARY or type_ is CONTINUATION:
            self._assemble(type_, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Take note that the client has gone."""
        self._write = _drop
        self._closing = True
        self._core.sessions.drain_timeout.stop(self)
        if self._upgrade is not None:
            self._upgrade.stop()
        elif self._connection is not None:
            self._connection.close(CloseReason.TRANSPORT_CLOSE)
            self._connection.drop_transport()

    def pause_writing(self) -> None:
        """Keep what is to be sent from here on."""
        self._full = True
        asyncio.get_running_loop().call_soon(self._look_again)

    def _look_again(self) -> None:
        self.congested = self._full

    def resume_writing(self) -> None:
        """Send what was kept."""
        self._full = self.congested = False
        self._write_pong()
        if not self._closing:
            self.flush()
            self._write_pending()
            if self._close_code and not self._full:
                self._end(self._close_code)

    def end(self, reason: CloseReason) -> None:
        """End the session, or the attempt to take one over."""
        if self._upgrade is None and self._connection is not None:
            self._connection.close(reason)
        else:
            self.close(reason)

    # What an upgrade asks for.

    def answer_probe(self) -> None:
        """Send the answer to a probe."""
        self.write(PROBE_ANSWER)

    def take_over(self) -> None:
        """Serve the session from now on."""
        self._upgrade = None
        self.flush()

    # Inside.

    def _write_pending(self) -> None:
        pending = self._pending
        if pending:
            data = pending[0] if len(pending) == 1 else b"".join(pending)
            pending.clear()
            self._write(data)

    def _write_pong(self) -> None:
        """Answer the last ping (RFC 6455, section 5.5.3), once a turn; a client that does not read is owed it."""
        if self._ping is not None and not self._full:
            if not (self._closing or self._ws.underlying_transport.is_closing()):
                self._ws.send_pong(self._ping)
            self._ping = None

    def _assemble(self, type_: WSMsgType, frame: WSFrame) -> None:
        """Put a message together that came in several frames, and take it when it is whole."""
        if (type_ is CONTINUATION) is (self._fragments is None):
            self._fail(CloseReason.PARSE_ERROR)
            return
        payload = frame.get_payload_as_bytes()
        if self._fragments is None:
            self._fragmented = type_
            if frame.fin:
                self._take(payload, binary=type_ is BINARY)
                return
            self._fragments = bytearray()
            self._count = 0
        # In place, and not as a list: what a fragment costs, in time and in bytes, must not be more than it is long.
        self._fragments += payload
        self._count += 1
        if len(self._fragments) > self.max_frame or self._count > MAX_FRAGMENTS:
            self._fail(CloseReason.TOO_LARGE)
        elif frame.fin:
            message, self._fragments = bytes(self._fragments), None
            self._take(message, binary=self._fragmented is BINARY)

    def _take(self, message: bytes, *, binary: bool) -> None:
        connection = self._connection
        assert connection is not None  # noqa: S101
        if self._held:
            self._backlog.append((message, binary))
            return
        if self._upgrade is not None:
            self._upgrade.receive(message, binary=binary)
            return
        connection.receive(message, binary=binary)
        if connection.reading_paused:
            self._hold()

    def _fail(self, reason: CloseReason) -> None:
        self._fragments = None
        if self._upgrade is not None:
            self._upgrade.fail()
        elif self._connection is not None and self._connection.open:
            self._connection.close(reason)
        else:
            self._end(reason.code)

    def _hold(self) -> None:
        self._held = True
        self._ws.underlying_transport.pause_reading()
        assert self._connection is not None  # noqa: S101
        self._core.sessions.spawn(self._read_on(self._connection))

    async def _read_on(self, connection: Connection) -> None:
        await connection.wait_until_readable()
        # What had been read when reading was paused comes first.
        for message, binary in self._backlog:
            connection.receive(message, binary=binary)
            if connection.reading_paused:
                await connection.wait_until_readable()
        self._backlog.clear()
        self._held = False
        if not self._ws.underlying_transport.is_closing():
            self._ws.underlying_transport.resume_reading()

    def _end(self, code: int) -> None:
        if self._closing:
            return
        self._closing = True
        self._write_pending()
        self._write = _drop  # Nothing follows a close frame (RFC 6455, section 5.5.1).
        self._core.sessions.drain_timeout.start(self)
        self._ws.send_close(WSCloseCode(code))

    def _closed_by_peer(self) -> None:
        if not self._closing:
            self._closing = True
            self._ws.send_close(WSCloseCode.OK)
        self._write = _drop
        self._ws.disconnect()


def _drop(_: bytes) -> None:
    """Be what writes where nothing may be written: before the handshake, after a close frame."""
