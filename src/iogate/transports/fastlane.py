"""The fast WebSocket lane: frames go straight from picows to the connection, with no ASGI between.

A protocol for uvicorn's `ws` setting. Socket.IO's WebSockets take this lane if nothing but uvicorn's own middleware
stands between uvicorn and the `SocketIOApp`; all others are handed to uvicorn's ordinary implementation, untouched.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]
from uvicorn.middleware.message_logger import MessageLoggerMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string, is_ssl
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from iogate.errors import ProtocolError
from iogate.protocol.engineio.connection import Probe, Role, Upgrade
from iogate.protocol.engineio.packets import PROBE_ANSWER, Encoded
from iogate.protocol.websocket import frames
from iogate.server.connection import Connection
from iogate.server.handshake import Handshake
from iogate.server.requests import Answer, examine, is_for, upgrade_target
from iogate.server.server import Server
from iogate.transports.polling import PollingTransport
from iogate.transports.websocket import CLOSE_CODES, TOO_LARGE

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from iogate.asgi_types import Scope

HANDSHAKE_TIMEOUT = 5.0
"""Seconds in which the handshake of the WebSocket itself must be done. All of it has come already."""
READ_BUFFER = 2048
"""Bytes that a connection reads into at first; it grows with what comes, and shrinks again."""

MAX_PENDING = 64
"""Packets that wait for the end of a turn of the event loop; with more, what the client does not take must show."""

TEXT, BINARY, CONTINUATION, CLOSE = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION, WSMsgType.CLOSE


class _Silent(logging.LoggerAdapter[logging.Logger]):
    """The logger of picows: what peers do wrong is no error of ours, and of a `Logger` it would make one each time."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return False


_SILENT = _Silent(logging.getLogger("iogate"))
_uvicorn = logging.getLogger("uvicorn.error")


class FastLane(WSProtocol):  # type: ignore[misc]
    """What uvicorn makes of an HTTP connection that asks for a WebSocket: `uvicorn.Config(app, ws=FastLane)`.

    Args:
        config: uvicorn's configuration.
        server_state: uvicorn's state.
        app_state: the state of the application's lifespan.
    """

    __slots__ = ("_app_state", "_asyncio", "_config", "_ordinary", "_proxies", "_socketio", "_state", "_verdict")

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._socketio, self._proxies = unwrapped(config.loaded_app)
        self._ordinary: WebSocketsSansIOProtocol | None = None
        self._verdict = _Verdict()
        max_frame = config.ws_max_size if self._socketio is None else self._socketio.settings.max_payload
        super().__init__(
            host_port=None,
            ws_path=None,
            is_client_side=False,
            ws_listener_factory=self._verdict.listener,
            logger=_SILENT,
            disconnect_on_exception=True,
            websocket_handshake_timeout=HANDSHAKE_TIMEOUT,
            enable_auto_ping=False,
            auto_ping_idle_timeout=None,
            auto_ping_reply_timeout=None,
            auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
            enable_auto_pong=True,
            max_frame_size=max_frame,
            extra_headers=None,
            read_buffer_init_size=READ_BUFFER,
        )

    # uvicorn makes a connection, hands over the head of the request, and then the connection itself.

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Keep the connection until the head of the request tells which lane it takes."""
        self._asyncio = transport

    def data_received(self, head: bytes) -> None:
        """Take the head of the request, and decide."""
        scope = self._scope(head)
        if self._socketio is None or not is_for(self._socketio, scope):
            self._go_the_ordinary_way(head)
            return
        if self._proxies is not None:
            _apply(self._proxies, scope)
        self._state.connections.add(self)
        decision = self._verdict.decision = _decide(self._socketio, scope)
        if self._config.access_log:
            outcome = "[accepted]" if isinstance(decision, FastTransport) else decision.status
            _uvicorn.info('%s - "WebSocket %s" %s', get_client_addr(scope), get_path_with_query_string(scope), outcome)  # type: ignore[arg-type]
        super().connection_made(self._asyncio)
        view = self.get_buffer(len(head))
        while len(view) < len(head):  # It grows by what is read, and this is no read.
            view[:] = head[: len(view)]
            head = head[len(view) :]
            self.buffer_updated(len(view))
            view = self.get_buffer(len(head))
        view[: len(head)] = head
        self.buffer_updated(len(head))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever has the connection."""
        self._state.connections.discard(self)
        if self._ordinary is not None:
            self._ordinary.connection_lost(exc)
        else:
            super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the connection, for uvicorn; `iogate run` has ended it before."""
        if isinstance(self._verdict.decision, FastTransport):
            self._verdict.decision.end("server shutting down")

    def _go_the_ordinary_way(self, head: bytes) -> None:
        self._ordinary = ordinary = WebSocketsSansIOProtocol(self._config, self._state, self._app_state)
        ordinary.connection_made(self._asyncio)
        ordinary.data_received(head)
        # This protocol is put in place as soon as this returns; until it is exchanged nothing may be read.
        self._asyncio.pause_reading()
        asyncio.get_running_loop().call_soon(self._hand_over, ordinary)

    def _hand_over(self, ordinary: WebSocketsSansIOProtocol) -> None:
        if not self._asyncio.is_closing():
            self._asyncio.set_protocol(ordinary)
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


class _Verdict:
    """What is answered to the request. It stands alone, so that a connection that has gone leaves no cycle behind."""

    __slots__ = ("decision",)

    def __init__(self) -> None:
        self.decision: FastTransport | Answer | None = None

    def listener(self, _: WSUpgradeRequest) -> FastTransport | WSUpgradeResponseWithListener | None:
        """Return it in the terms of picows."""
        answer = self.decision
        if not isinstance(answer, Answer):
            return answer
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
        headers |= {"cache-control": "no-store", "connection": "close"}  # picows adds the length of the body.
        response = WSUpgradeResponse.create_error_response(answer.status, answer.body, headers)
        return WSUpgradeResponseWithListener(response, None)


def _decide(server: Server, scope: Scope) -> FastTransport | Answer:
    request = examine(server, scope)
    if isinstance(request, Answer):
        return request
    target = upgrade_target(server, request.handshake)
    return target if isinstance(target, Answer) else FastTransport(server, request.handshake, target)


class FastTransport(WSListener):
    """The transport of a session that is on the fast lane, and before that of one that may move to it.

    Args:
        server: the server.
        handshake: the request.
        target: the session that the WebSocket is to take over; None for one of its own.
    """

    __slots__ = (
        "_backlog",
        "_close_code",
        "_closing",
        "_connection",
        "_fragmented",
        "_fragments",
        "_full",
        "_handshake",
        "_held",
        "_pending",
        "_probe",
        "_probe_timer",
        "_server",
        "_write",
        "_ws",
        "congested",
    )

    name = "websocket"
    upgradable = False

    def __init__(self, server: Server, handshake: Handshake, target: Connection | None) -> None:
        self._server = server
        self._handshake = handshake
        self._connection = target
        self._probe = Upgrade(Role.SERVER) if target is not None else None
        self._probe_timer: asyncio.TimerHandle | None = None
        self._ws: WSTransport
        self._fragments: bytearray | None = None  # Of the message that is coming in several frames.
        self._fragmented = TEXT
        self._held = False  # Reading waits for handlers to finish.
        self._backlog: list[tuple[bytes, bool]] = []  # What had been read already by then.
        self._close_code = 0
        self._closing = False
        self._write: Callable[[bytes], None] = _drop
        self._pending: list[bytes] = []  # What was written in this turn of the event loop.
        self._full = False  # The buffer of the socket is; what more there is, waits.
        self.congested = False  # It is still full when the client has had its chance to read.

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
        pending.append(frames(packet))
        if len(pending) == 1:
            self._server.turn.add(self._write_pending)
        elif len(pending) > MAX_PENDING:
            self._write_pending()
        return True

    def flush(self) -> None:
        """Hand over what waits, until the socket is full."""
        connection = self._connection
        while not self._full and connection is not None and (packet := connection.take_one()) is not None:
            self.write(packet)
            connection.sent(packet)

    def close(self, reason: str) -> None:
        """Send the rest and a close frame; a client that does not take it within `LINGER` seconds is cut off."""
        self._close_code = self._close_code or CLOSE_CODES.get(reason, 1000)
        self._server.linger_due.start(self)
        self.flush()
        self._write_pending()
        if not self._full:
            self._end(self._close_code)

    def abort(self) -> None:
        """Cut the connection."""
        self._server.linger_due.stop(self)
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
            self._connection = self._server.open(self._handshake)
            self._connection.begin(self)
        else:
            polling = self._connection.transport
            assert isinstance(polling, PollingTransport)  # noqa: S101
            polling.candidate = self
            timeout = self._server.settings.connect_timeout
            self._probe_timer = asyncio.get_running_loop().call_later(timeout, self._give_up)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame."""
        type_ = frame.msg_type
        if type_ is TEXT and frame.fin and self._probe is None and self._fragments is None and not self._held:
            connection = self._connection
            connection.receive(frame.get_payload_as_bytes())  # type: ignore[union-attr]
            if connection.busy:  # type: ignore[union-attr]
                self._hold()
        elif type_ is CLOSE:
            self._closed_by_peer()
        elif type_ is TEXT or type_ is BINARY or type_ is CONTINUATION:
            self._assemble(type_, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Take note that the client has gone."""
        self._write = _drop
        self._closing = True
        self._server.linger_due.stop(self)
        self._leave_polling()
        connection, self._connection = self._connection, None  # It refers to this one: together they would stay.
        if self._probe is None and connection is not None:
            connection.close("transport close", abort=True)

    def pause_writing(self) -> None:
        """Keep what is to be sent from here on."""
        self._full = True
        asyncio.get_running_loop().call_soon(self._look_again)

    def _look_again(self) -> None:
        self.congested = self._full

    def resume_writing(self) -> None:
        """Send what was kept."""
        self._full = self.congested = False
        if self._probe is None and not self._closing:
            self.flush()
            self._write_pending()
            if self._close_code and not self._full:
                self._end(self._close_code)

    def end(self, reason: str) -> None:
        """End the session, or the attempt to take one over."""
        if self._probe is None and self._connection is not None:
            self._connection.close(reason)
        else:
            self._end(CLOSE_CODES.get(reason, 1000))

    def cancel(self) -> None:
        """Give up taking over a session that has ended."""
        self._end(1000)

    # Inside.

    def _write_pending(self) -> None:
        pending = self._pending
        if pending:
            data = pending[0] if len(pending) == 1 else b"".join(pending)
            pending.clear()
            self._write(data)

    def _assemble(self, type_: WSMsgType, frame: WSFrame) -> None:
        """Put a message together that came in several frames, and take it when it is whole."""
        if (type_ is CONTINUATION) is (self._fragments is None):
            self._fail(CLOSE_CODES["parse error"])
            return
        payload = frame.get_payload_as_bytes()
        if self._fragments is None:
            self._fragmented = type_
            if frame.fin:
                self._take(payload, binary=type_ is BINARY)
                return
            self._fragments = bytearray()
        # In place, and not as a list: what a fragment costs, in time and in bytes, must not be more than it is long.
        self._fragments += payload
        if len(self._fragments) > self._server.settings.max_payload:
            self._fail(TOO_LARGE)
        elif frame.fin:
            message, self._fragments = bytes(self._fragments), None
            self._take(message, binary=self._fragmented is BINARY)

    def _take(self, message: bytes, *, binary: bool) -> None:
        connection = self._connection
        assert connection is not None  # noqa: S101
        if self._held:
            self._backlog.append((message, binary))
            return
        if self._probe is None:
            connection.receive(message, binary=binary)
            if connection.busy:
                self._hold()
            return
        try:
            state = self._probe.receive(message, binary=binary)
        except ProtocolError:
            self._give_up()
            return
        if state is Probe.PROBED:
            polling = connection.transport
            if isinstance(polling, PollingTransport):
                polling.upgrading = True
            self.write(PROBE_ANSWER)
        elif state is Probe.DONE:
            self._leave_polling()
            self._probe = None
            if connection.open:
                connection.transport = self
                self.flush()
            else:
                self._end(1000)

    def _leave_polling(self) -> None:
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None
        polling = self._connection.transport if self._connection is not None else None
        if isinstance(polling, PollingTransport) and polling.candidate is self:
            polling.candidate = None
            polling.upgrading = False

    def _give_up(self) -> None:
        self._leave_polling()
        self._end(CLOSE_CODES["parse error"])

    def _fail(self, code: int) -> None:
        self._fragments = None
        if self._probe is None and self._connection is not None and self._connection.open:
            self._close_code = code
            self._connection.close("parse error")
        else:
            self._give_up()

    def _hold(self) -> None:
        self._held = True
        self._ws.underlying_transport.pause_reading()
        self._server.spawn(self._read_on())

    async def _read_on(self) -> None:
        connection = self._connection
        assert connection is not None  # noqa: S101
        await connection.ready()
        # What had been read when reading was paused comes first.
        for message, binary in self._backlog:
            connection.receive(message, binary=binary)
            if connection.busy:
                await connection.ready()
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
        self._server.linger_due.start(self)
        self._ws.send_close(WSCloseCode(code))

    def _closed_by_peer(self) -> None:
        if not self._closing:
            self._ws.send_close(WSCloseCode.OK)
        self._write = _drop
        self._ws.disconnect()


def _drop(_: bytes) -> None:
    """Be what writes where nothing may be written: before the handshake, after a close frame."""


def unwrapped(app: Any) -> tuple[Server | None, ProxyHeadersMiddleware | None]:
    """Return the server behind uvicorn's own middleware, if there is nothing else in front of it."""
    proxies = None
    while isinstance(app, ProxyHeadersMiddleware | MessageLoggerMiddleware):
        if isinstance(app, ProxyHeadersMiddleware):
            proxies = app
        app = app.app
    return getattr(app, "fast_lane_server", None), proxies


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
