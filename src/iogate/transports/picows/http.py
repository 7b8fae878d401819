"""The shortest way to picows: a protocol for uvicorn's `http` setting.

uvicorn parses every request, writes the head of one that asks for a WebSocket down anew, and hands that to the
WebSocket protocol, which parses it once more; and what did so first is left for the garbage collector. Here the first
request of a connection is looked at: one that plainly asks for a Socket.IO WebSocket goes to picows as it came.
Everything else, and whatever is in any way out of the ordinary, is uvicorn's.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from iogate.server.session.addresses import peer_of
from iogate.server.session.heads import MAX_FIELDS, MAX_HEAD
from iogate.transports.application import heads_of, is_proxy, unwrapped
from iogate.transports.picows.upgrade import PicowsProtocol
from iogate.transports.uvicorn_http import HTTPProtocol

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

_HEAD = re.compile(
    rb"GET (/[!-~]*) HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+\r\n"
)
"""A whole head and nothing after it, of one line a field (RFC 9112, section 3 and RFC 9110, section 5)."""
_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r\n", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection:(?:[^\r\n]*,)?[ \t]*upgrade[ \t]*(?:,[^\r\n]*)?\r\n", re.IGNORECASE)
_WORK = 1
"""What a request takes of the `WORK_PER_TURN`."""
_BODY = re.compile(rb"\r\n(?:content-length|transfer-encoding|expect):", re.IGNORECASE)


class PicowsHTTP(asyncio.Protocol):
    """What uvicorn makes of a connection: `uvicorn.Config(app, http=PicowsHTTP, ws=PicowsProtocol)`.

    Args:
        config: uvicorn's configuration.
        server_state: uvicorn's state.
        app_state: the state of the application's lifespan.
    """

    __slots__ = ("_app_state", "_config", "_heads", "_known", "_state", "_transport")

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], **_: object) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._known = unwrapped(config.loaded_app)
        self._heads = heads_of(self._known[0], config)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request, and count the connection until it arrives."""
        self._transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]
        peer = peer_of(transport)
        self._heads.open(transport, peer, is_proxy=is_proxy(self._config, peer))

    def data_received(self, data: bytes) -> None:
        """Hand the connection over: at once, or in a later turn if many others begin in this one."""
        if self._heads.quota.take(_WORK):
            self._begin(data)
        else:
            self._transport.pause_reading()
            self._heads.quota.later(partial(self._begin_later, data), _WORK)

    def _begin_later(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._begin(data)

    def _begin(self, data: bytes) -> None:
        self._state.connections.discard(self)
        transport: Any = self._transport
        if self._is_for_picows(data):
            self._heads.done(self._transport)
            websocket = PicowsProtocol(self._config, self._state, self._app_state, self._known)
            websocket.connection_made(transport)
            transport.set_protocol(websocket)
            websocket.data_received(data)
        else:
            http = HTTPProtocol(self._config, self._state, self._app_state)
            http.connection_made(transport)
            transport.set_protocol(http)
            http.parse(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a client that has asked for nothing."""
        self._state.connections.discard(self)
        self._heads.close(self._transport)

    def shutdown(self) -> None:
        """Close the connection, for uvicorn."""
        self._transport.close()

    def _is_for_picows(self, data: bytes) -> bool:
        core = self._known[0]
        if core is None or self._config.ws_protocol_class is not PicowsProtocol:
            return False
        path = core.settings.path.encode()
        return (
            len(data) <= MAX_HEAD
            and data.startswith((b"GET %b?" % path, b"GET %b/?" % path))
            and data.count(b"\r\n") <= MAX_FIELDS + 2
            and _HEAD.fullmatch(data) is not None
            and _UPGRADE.search(data) is not None
            and _CONNECTION.search(data) is not None
            and _BODY.search(data) is None
        )
