"""uvicorn's HTTP, with limits on what a client may send before the application sees it.

uvicorn itself accepts heads of any size, waits for them for ever, and does not count connections without one.
"""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from iogate.server.session.heads import MAX_FIELDS, MAX_HEAD, WITH_BODY
from iogate.transports.application import heads, is_proxy

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

MAX_PIPELINED = 32
"""Requests of a connection that may wait for the answer to one before them (RFC 9112, section 9.3.2)."""


class _Refused(Exception):
    """The data of the client is not read any further."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class HTTPProtocol(HttpToolsProtocol):
    """The protocol of a connection: `uvicorn.Config(app, http=HTTPProtocol)`.

    Args:
        config: uvicorn's configuration.
        server_state: uvicorn's state.
        app_state: the state of the application's lifespan.
    """

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], **_: object) -> None:
        super().__init__(config, server_state, app_state)
        self._heads = heads(config)
        self._refused = False  # The answer is written; further data is discarded.
        self._waiting = True  # For a request; the application has none to answer.
        self._timed = True  # The deadline of the head has started.
        self._running: RequestResponseCycle | None = None  # The request that the application has last been given.
        self._in_head = True
        self._size = 0  # Bytes of the head at most; or of what came since the last piece of a body.
        self._progress = False  # A piece of a body has come.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection until its first request arrives."""
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else None
        self._is_proxy = is_proxy(self.config, self._peer)
        self._heads.open(transport, self._peer, is_proxy=self._is_proxy)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting the connection."""
        self._heads.close(self.transport)
        self._unset_keepalive_if_required()  # Else its timer would keep all of this for another five seconds.
        if self._running is not None:  # uvicorn tells only the last of the requests that have been read.
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """Count a connection whose client does not read what it is answered, and look after it."""
        super().pause_writing()
        if not self.transport.is_closing():  # Else it has a deadline already.
            self._heads.unread(self.transport, self._peer, is_proxy=self._is_proxy)

    def resume_writing(self) -> None:
        """Count it no more, unless a request is awaited."""
        super().resume_writing()
        self._heads.read(self.transport)
        if not (self._waiting or self.transport.is_closing()):
            self._heads.done(self.transport)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which no request comes."""
        super().timeout_keep_alive_handler()
        self._linger()

    def shutdown(self) -> None:
        """Close the connection when what it is asked now has been answered, for uvicorn."""
        super().shutdown()
        if self.transport.is_closing():
            self._linger()

    def _count(self) -> None:
        self._heads.wait(self.transport, self._peer, is_proxy=self._is_proxy)

    def _linger(self) -> None:
        """Give a client `DRAIN_TIMEOUT` seconds to read the rest, and in TLS to say that it has (`close_notify`)."""
        self._heads.linger(self.transport, self._peer, is_proxy=self._is_proxy)

    def data_received(self, data: bytes) -> None:
        """Parse the data, within the limits; in a later turn if many other requests begin in this one."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        if self._waiting and not self._heads.quota.take():
            self.flow.pause_reading()
            self._heads.quota.later(partial(self._parse_later, data))
        else:
            self.parse(data)

    def _parse_later(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.parse(data)

    def parse(self, data: bytes) -> None:
        """Parse the data at once, within the limits."""
        try:
            # In pieces: of what follows the end of a request, its size is not known before the next piece.
            for start in range(0, len(data), MAX_HEAD):
                if not self._feed(data[start : start + MAX_HEAD]):
                    break
        except _Refused as refused:
            self._refuse(refused.status, refused.reason)
            return
        if self._waiting and not self._timed:
            self._timed = True
            self._heads.begin(self.transport)

    def _feed(self, data: bytes) -> bool:
        """Parse a piece; return whether the next one is to be parsed too.

        Raises:
            _Refused: the client is not read any further.
        """
        self._size += len(data)
        self._progress = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            return False  # No other protocol is spoken here; the request has been taken as one without `Upgrade`.
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _Refused):
                raise error.__context__ from None
            raise _Refused(HTTPStatus.BAD_REQUEST, "it is not HTTP/1.1") from None
        if not self._in_head and self._progress:
            self._size = 0
        elif self._size > MAX_HEAD:
            what = "its head" if self._in_head else "its trailer section, or the extension of a chunk,"
            raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"{what} has more than {MAX_HEAD} bytes")
        return True

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, unless an answer is on its way."""
        if self._is_answering():
            raise _Refused(HTTPStatus.BAD_REQUEST, "it asks for a WebSocket before the last answer")
        super().handle_websocket_upgrade()
        # It refers to this protocol, and both would stay until the garbage collector comes.
        self.parser = None  # type: ignore[assignment]

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request.
        return cycle is not None and not cycle.response_complete

    def _get_upgrade(self) -> bytes | None:
        if self.parser.get_http_version() == "1.0":  # RFC 9110, section 7.8
            return None
        # `Connection` is one list, in however many fields it comes (RFC 9110, sections 5.3 and 7.6.1).
        lines = [value for name, value in self.headers if name == b"connection"]
        if b"upgrade" not in [token.strip().lower() for line in lines for token in line.split(b",")]:
            return None
        return next((value.lower() for name, value in self.headers if name == b"upgrade"), None)

    # Callbacks of the parser.

    def on_headers_complete(self) -> None:
        """Check the size of a head; the application gets it only within the limits."""
        if len(self.headers) > MAX_FIELDS:
            raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"it has more than {MAX_FIELDS} header fields")
        if self._length_of_head() > MAX_HEAD:
            raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"its head has more than {MAX_HEAD} bytes")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS, f"more than {MAX_PIPELINED} requests wait for an answer")
        if (
            self.parser.should_upgrade()
            and any(name in WITH_BODY for name, _ in self.headers)
            and self._should_upgrade()
        ):
            raise _Refused(HTTPStatus.BAD_REQUEST, "it asks for a WebSocket and has a body")
        self._in_head = False
        self._size = 0
        if self._waiting:
            self._waiting = self._timed = False
            self._heads.done(self.transport)
            if self.flow.write_paused:
                self._count()
        super().on_headers_complete()
        if "path" in self.scope:  # It is not an upgrade.
            self.headers = []  # Trailers are not headers (RFC 9110, section 6.5.1): the application does not get them.

    def _length_of_head(self) -> int:
        line = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n\r\n")
        return line + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        """Handle a piece of a body."""
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the head of the next request, which may already have been read."""
        self._in_head = True
        self._size = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Count the connection again if the application has no more requests to answer."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._linger()
        elif self.timeout_keep_alive_task is not None:
            self._waiting = True
            self.scope = self.cycle.scope = {}  # type: ignore[typeddict-item]  # Its headers are not needed any more.
            self._count()

    # Refusals.

    def send_400_response(self, msg: str) -> None:
        """Refuse a request."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        if self.transport.is_closing():
            return
        self._refused = True
        self._heads.refused(self._peer, status, reason)
        if self._is_answering():
            if self._in_head or self.pipeline or self.cycle.response_started:
                self.transport.abort()  # An earlier request must be answered first.
                return
            self.cycle.disconnected = True  # The body of this request is wrong: the application sees a disconnect.
            self.cycle.message_event.set()
        body = f"{status} {status.phrase}: {reason}".encode()
        head = (
            f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._linger()
        if self.transport.can_write_eof():
            self.transport.write_eof()
