"""uvicorn's WebSockets, with the limits that an application sets."""

from __future__ import annotations

from typing import Any

import websockets.http11
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from iogate.asgi_types import MESSAGE_LIMIT
from iogate.server.heads import MAX_HEAD

_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

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

    def handle_connect(self, event: Request) -> None:
        """Start the application."""
        super().handle_connect(event)
        if not self.handshake_complete:  # It has not already been refused.
            # In lower case, as ASGI requires: uvicorn's HTTP has not seen a head that comes from the fast lane.
            self.scope["headers"] = [(name.lower(), value) for name, value in self.scope["headers"]]
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[MESSAGE_LIMIT] = self._limit
            self.read_paused = True
            self.transport.pause_reading()

    def handle_parser_exception(self) -> None:
        """Answer a request that cannot be parsed, or close the WebSocket."""
        if self.handshake_initiated:
            super().handle_parser_exception()
            return
        self.handshake_complete = self.close_sent = True
        self.transport.write(_BAD_REQUEST)
        self.transport.close()

    def _limit(self, size: int) -> None:
        self.conn.max_message_size = size
