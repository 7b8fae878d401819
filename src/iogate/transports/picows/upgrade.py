"""The handshake of WebSockets on picows: a protocol for uvicorn's `ws` setting.

picows serves Socket.IO's WebSockets if only uvicorn's own middleware is between uvicorn and the `SocketIOApp`. All
other WebSockets are handed to `WebSocketProtocol`, unchanged.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from picows import WSProtocolError, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string, is_ssl

from iogate.printable import printable
from iogate.server.core import Core
from iogate.server.requests import Answer, Headers, admit_request, is_for, upgrade_target
from iogate.server.session.addresses import peer_of
from iogate.server.session.heads import WITH_BODY
from iogate.server.session.reasons import CloseReason
from iogate.transports.application import Unwrapped, is_proxy, unwrapped
from iogate.transports.picows.transport import PicowsTransport
from iogate.transports.uvicorn_websocket import WebSocketProtocol

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
    from uvicorn.server import ServerState

    from iogate.asgi_types import Scope

HANDSHAKE_TIMEOUT = 5.0
"""Seconds in which the handshake of the WebSocket itself must be done. All of it has come already."""
READ_BUFFER = 2048
"""Initial bytes of the read buffer of a connection, which grows with the frames."""
CUT_OFF_AFTER = 0.5
"""Seconds that a client whose frame is too large has to read the close frame before the connection is cut."""
UNVERIFIED_READ = 16_384
"""Bytes that are read at a time from a client that is not admitted."""
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
"""16 bytes in Base64 (RFC 6455, section 4.1)."""
_ONCE = {b"upgrade", b"connection", b"sec-websocket-version", b"sec-websocket-key"}
_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: -\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
)
"""The request that picows gets: only the header fields that it checks, since everything else has been decided.

picows itself would reject heads of 16 KiB and more, and lists of tokens in `Connection`. It would accept versions
before RFC 6455, and read only the first of several fields with the same name.
"""


class _Reticent(logging.LoggerAdapter[logging.Logger]):
    """The logger of picows. What peers do wrong is no error of ours; of what is one, picows speaks to nobody else.

    It is no `Logger`, for of such picows makes another for each connection.
    """

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log nothing. picows calls this twice for each connection."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return level >= logging.ERROR

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        error = sys.exception()
        if level >= logging.ERROR and error is not None and not isinstance(error, WSProtocolError):
            self.logger.error("a WebSocket is closed: it could not be served", exc_info=error)


_RETICENT = _Reticent(logging.getLogger("iogate"))
_uvicorn = logging.getLogger("uvicorn.error")


class PicowsProtocol(WSProtocol):  # type: ignore[misc]
    """What uvicorn makes of an HTTP connection that asks for a WebSocket: `uvicorn.Config(app, ws=PicowsProtocol)`.

    Args:
        config: uvicorn's configuration.
        server_state: uvicorn's state.
        app_state: the state of the application's lifespan.
        known: what `unwrapped` has said of the application, if the caller has asked already.
    """

    __slots__ = ("_app_state", "_asyncio", "_config", "_proxies", "_socketio", "_state", "_verdict", "_websockets")

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], known: Unwrapped | None = None
    ) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._socketio, self._proxies = unwrapped(config.loaded_app) if known is None else known
        self._websockets: WebSocketProtocol | None = None
        self._verdict = _Verdict()
        max_frame = config.ws_max_size if self._socketio is None else self._socketio.settings.max_payload
        super().__init__(
            host_port=None,
            ws_path=None,
            is_client_side=False,
            ws_listener_factory=self._verdict.listener,
            logger=_RETICENT,
            disconnect_on_exception=True,
            websocket_handshake_timeout=HANDSHAKE_TIMEOUT,
            enable_auto_ping=False,
            auto_ping_idle_timeout=None,
            auto_ping_reply_timeout=None,
            auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
            enable_auto_pong=False,  # It answers every ping at once, also to a client that reads nothing.
            max_frame_size=max_frame,
            extra_headers=None,
            read_buffer_init_size=READ_BUFFER,
        )

    # uvicorn makes a connection, hands over the head of the request, and then the connection itself.

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Keep the connection until the head of the request tells what serves it."""
        self._asyncio = transport

    def data_received(self, head: bytes) -> None:
        """Take the head of the request, and decide."""
        scope = self._scope(head) if head.startswith(b"GET ") and head.isascii() else None
        key = _key(scope["headers"]) if scope is not None else None
        if scope is None or key is None or self._socketio is None or not is_for(self._socketio, scope):
            self._use_websockets(head)
            return
        if self._proxies is not None:
            _apply(self._proxies, scope)
        self._state.connections.add(self)
        decision = self._verdict.decision = _decide(self._socketio, scope)
        if self._config.access_log:
            outcome = "[accepted]" if isinstance(decision, PicowsTransport) else decision.status
            address = printable(get_client_addr(scope))  # type: ignore[arg-type]  # A proxy may send any text.
            _uvicorn.info('%s - "WebSocket %s" %s', address, get_path_with_query_string(scope), outcome)  # type: ignore[arg-type]
        super().connection_made(self._asyncio)
        handshake = _HANDSHAKE % key
        super().get_buffer(len(handshake))[: len(handshake)] = handshake
        self.buffer_updated(len(handshake))
        if self._asyncio.is_closing():  # Refused. In TLS the client is waited for, which says that it has read why.
            peer = peer_of(self._asyncio)
            self._socketio.heads.linger(self._asyncio, peer, is_proxy=is_proxy(self._config, peer))

    def get_buffer(self, size_hint: int) -> memoryview:
        """Return the buffer for the next bytes. That of picows grows until a frame is complete; here it is limited.

        Once the client is admitted, this is picows' own method again, without extra cost.
        """
        view: memoryview = super().get_buffer(size_hint)
        decision = self._verdict.decision
        if not isinstance(decision, PicowsTransport):
            return view
        if decision.admitted:
            self.__class__ = _Admitted
            self._asyncio.set_protocol(self)  # Otherwise the event loop keeps the methods of the previous class.
            return view
        if len(view) <= UNVERIFIED_READ:
            return view
        if len(view) > _largest_buffer(decision.max_frame):
            self.__class__ = _TooLarge
            self._asyncio.set_protocol(self)
            return _DISCARDED
        return view[:UNVERIFIED_READ]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever has the connection."""
        self._state.connections.discard(self)
        if self._websockets is not None:
            self._websockets.connection_lost(exc)
        else:
            if self._socketio is not None and not isinstance(self._verdict.decision, PicowsTransport):
                self._socketio.heads.close(self._asyncio)
            super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the connection, for uvicorn; `iogate run` has ended it before."""
        self._end(CloseReason.SERVER_SHUTDOWN)

    def _end(self, reason: CloseReason) -> None:
        if isinstance(self._verdict.decision, PicowsTransport):
            self._verdict.decision.end(reason)

    def _use_websockets(self, head: bytes) -> None:
        self._websockets = websockets = WebSocketProtocol(self._config, self._state, self._app_state)
        websockets.connection_made(self._asyncio)
        websockets.data_received(head)
        # This protocol is put in place as soon as this returns; until it is exchanged nothing may be read.
        self._asyncio.pause_reading()
        asyncio.get_running_loop().call_soon(self._hand_over, websockets)

    def _hand_over(self, websockets: WebSocketProtocol) -> None:
        if not self._asyncio.is_closing():
            self._asyncio.set_protocol(websockets)
            if not websockets.read_paused:  # Else it reads when the application asks for something.
                self._asyncio.resume_reading()

    def _scope(self, head: bytes) -> Scope:
        """Return the ASGI scope of a request, as far as it is looked at here."""
        request, *lines = head.split(b"\r\n")
        path, _, query_string = request.split(b" ")[1].partition(b"?")
        root = self._config.root_path
        peer = self._asyncio.get_extra_info("peername")
        fields = (line.partition(b":") for line in lines if line)
        return {
            "type": "websocket",
            "scheme": "wss" if is_ssl(self._asyncio) else "ws",
            "client": (peer[0], peer[1]) if isinstance(peer, tuple) else None,
            "root_path": root,
            "path": root + unquote(path.decode("ascii")),
            "raw_path": root.encode() + path,
            "query_string": query_string,
            "headers": [(name.lower(), value.strip(b" \t")) for name, _, value in fields],
        }


def _key(headers: Headers) -> bytes | None:
    """Return the key of a usual request for a WebSocket, or None if the request is unusual.

    Unusual requests are left to `WebSocketProtocol`, so that both implementations answer them alike.
    """
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in WITH_BODY or name in fields:
            return None
        if name in _ONCE:
            fields[name] = value
    connection = [token.strip(b" \t") for token in fields.get(b"connection", b"").lower().split(b",")]
    key = fields.get(b"sec-websocket-key", b"")
    is_usual = (
        b"upgrade" in connection
        and fields.get(b"upgrade", b"").lower() == b"websocket"
        and fields.get(b"sec-websocket-version") == b"13"
        and _KEY.fullmatch(key)
    )
    return key if is_usual else None


class _Admitted(PicowsProtocol):
    """A connection whose client is admitted."""

    __slots__ = ()
    get_buffer = WSProtocol.get_buffer


_DISCARDED = memoryview(bytearray(UNVERIFIED_READ))
"""Where the rest of a frame is read to that is too large. Nobody looks at it."""


class _TooLarge(PicowsProtocol):
    """A connection whose client is not admitted and sends a frame that is larger than it may be.

    It is refused with the next bytes, and not in `get_buffer`: libuv calls a null pointer if reading stops in there.
    """

    __slots__ = ()

    def get_buffer(self, size_hint: int) -> memoryview:
        """Return a buffer for the rest of the frame."""
        return _DISCARDED

    def buffer_updated(self, nbytes: int) -> None:
        """End the connection. Neither the rest of the frame nor a close frame is read, so cut it off later."""
        self._asyncio.pause_reading()
        self._end(CloseReason.TOO_LARGE)
        asyncio.get_running_loop().call_later(CUT_OFF_AFTER, self._asyncio.abort)


@lru_cache
def _largest_buffer(max_frame: int) -> int:
    """Return an upper bound of picows' buffer for a frame of so many bytes: it doubles when it is 90 % full."""
    size = READ_BUFFER
    while 0.9 * size < max_frame + UNVERIFIED_READ:
        size *= 2
    return size


class _Verdict:
    """What is answered to the request. It stands alone, so that a connection that has gone leaves no cycle behind."""

    __slots__ = ("decision",)

    def __init__(self) -> None:
        self.decision: PicowsTransport | Answer | None = None

    def listener(self, _: WSUpgradeRequest) -> PicowsTransport | WSUpgradeResponseWithListener | None:
        """Return it in the terms of picows."""
        answer = self.decision
        if not isinstance(answer, Answer):
            return answer
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
        headers |= {"cache-control": "no-store", "connection": "close"}  # picows adds the length of the body.
        response = WSUpgradeResponse.create_error_response(answer.status, answer.body, headers)
        return WSUpgradeResponseWithListener(response, None)


def _decide(core: Core, scope: Scope) -> PicowsTransport | Answer:
    request = admit_request(core, scope)
    if isinstance(request, Answer):
        return request
    target = upgrade_target(core, request.handshake)
    return target if isinstance(target, Answer) else PicowsTransport(core, request.handshake, target)


async def _nothing(*_: Any) -> None:
    """Be the application at the end of a chain that is run for what it does to the scope."""


def _apply(proxies: ProxyHeadersMiddleware, scope: Scope) -> None:
    """Let uvicorn's middleware write the client's address and scheme into the scope. It awaits nothing on the way."""
    alone = copy.copy(proxies)
    alone.app = _nothing
    try:
        alone(scope, None, None).send(None)  # type: ignore[arg-type]
    except StopIteration:
        return
