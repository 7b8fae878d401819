"""uvicorn's WebSockets, with the limits that an application asks for, and more that hold before it is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import websockets.http11
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from iogate.asgi_types import MESSAGE_LIMIT
from iogate.server.session.heads import LINGER, MAX_HEAD
from iogate.server.session.reasons import CloseReason
from iogate.transports.application import heads, is_proxy
from iogate.transports.websocket import MAX_FRAGMENTS

_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_SLICE = 4096
"""Bytes that are parsed at a time."""
_FRAMES_AT_ONCE = 256
"""Frames that are handled in one turn of the event loop, and those of one slice more: others are served in between."""

# `websockets` parses the head again, after it was parsed within `MAX_HEAD`. Without this, it would not answer a head
# with a line of more than 8 KiB, for example with a long token. Its setting for that is an environment variable,
# WEBSOCKETS_MAX_LINE_LENGTH, which it reads on import.
websockets.http11.MAX_LINE_LENGTH = max(websockets.http11.MAX_LINE_LENGTH, MAX_HEAD)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The protocol of a connection that requests a WebSocket: `uvicorn.Config(app, ws=WebSocketProtocol)`.

    It does not negotiate compression: limits count bytes on the wire, before the verdict and after. The application
    finds `MESSAGE_LIMIT` among the extensions in its scope. No frame is read before the application waits for its first
    event, so its limit applies from the first frame.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.conn.available_extensions = []
        self.close_timeout = LINGER
        self._extensions: dict[str, Any] = {}  # Of the scope.
        self._limit: Callable[[], tuple[int, bool]] | None = None  # Asks the application (`MESSAGE_LIMIT`).
        self._handled = 0  # Frames of this turn.
        self._rest = b""  # What has been read, and is parsed in later turns.
        self._pong = b""  # The answer to the last ping, which the client has no room for.

    def data_received(self, data: bytes) -> None:
        """Parse the data. If the client is not admitted, it may have to wait for its turn."""
        if self._rest:
            self._rest += data
        elif self._limit is None or self._limit()[1] or (quota := heads(self.config).quota).take():
            self._parse(data)
        else:
            self._rest = data
            self.transport.pause_reading()
            quota.later(self._parse_rest)

    def _parse(self, data: bytes) -> None:
        """Parse data; with very many frames, the rest of them in later turns of the event loop."""
        self._handled = 0
        for start in range(0, len(data), _SLICE):
            if self.transport.is_closing():
                return
            if self._handled > _FRAMES_AT_ONCE:
                self._rest = data[start:]
                self.transport.pause_reading()
                self.loop.call_soon(self._parse_rest)
                return
            if self._limit is not None:
                self.conn.max_message_size, _ = self._limit()
            super().data_received(data[start : start + _SLICE])

    def _parse_rest(self) -> None:
        rest, self._rest = self._rest, b""
        self._parse(rest)
        if not (self._rest or self.read_paused or self.transport.is_closing()):
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """Return the next event for the application."""
        event = await super().receive()
        if self._rest and not self.transport.is_closing():
            self.transport.pause_reading()
        return event

    def handle_events(self) -> None:
        """Take the frames that have been parsed."""
        self._handled += len(self.conn.events)
        super().handle_events()

    def handle_connect(self, event: Request) -> None:
        """Start the application."""
        super().handle_connect(event)
        if self.handshake_complete:  # It has been refused already.
            self._linger()
            return
        # Lower-case, as ASGI wants them: a head that comes from `PicowsProtocol` has not been through uvicorn's HTTP.
        self.scope["headers"] = [(name.lower(), value) for name, value in self.scope["headers"]]
        self._extensions = cast("dict[str, Any]", self.scope["extensions"])
        self._extensions[MESSAGE_LIMIT] = self._set_limit
        self.read_paused = True
        self.transport.pause_reading()

    def handle_cont(self, event: Frame) -> None:
        """Take a further frame of a message."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.frames = []
            self.conn.fail(CloseReason.TOO_LARGE.code, f"more than {MAX_FRAGMENTS} frames of one message")
            self.handle_parser_exception()

    def handle_ping(self) -> None:
        """Answer a ping (RFC 6455, section 5.5.3); a client that does not read is owed the answer to its last one."""
        if self.writable.is_set() or self.conn.state is not State.OPEN:
            super().handle_ping()
        elif pongs := self.conn.data_to_send():
            self._pong = pongs[-1]

    def resume_writing(self) -> None:
        """Let the application send again."""
        super().resume_writing()
        pong, self._pong = self._pong, b""
        if pong and not (self.close_sent or self.transport.is_closing()):
            self.transport.write(pong)

    def handle_parser_exception(self) -> None:
        """Answer a request that cannot be parsed, or close the WebSocket."""
        if self.handshake_initiated:
            super().handle_parser_exception()
            return
        self.handshake_complete = self.close_sent = True
        self.transport.write(_BAD_REQUEST)
        self.transport.close()
        self._linger()

    async def run_asgi(self) -> None:
        """Run the application; the connection ends with it, whether its client reads the last of it or not."""
        await super().run_asgi()
        self._linger()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application."""
        heads(self.config).close(self.transport)
        self._rest = b""
        super().connection_lost(exc)
        # Each of these refers back to this protocol: do not keep reference cycles.
        self._limit = None
        self.conn.parser.close()
        self.conn.parser_exc = None
        self._extensions.pop(MESSAGE_LIMIT, None)

    def _linger(self) -> None:
        if not self.disconnected:
            peer = self.client[0] if self.client else None
            heads(self.config).linger(self.transport, peer, is_proxy=is_proxy(self.config, peer))

    def _set_limit(self, limit: Callable[[], tuple[int, bool]]) -> None:
        self._limit = limit
