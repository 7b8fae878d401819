"""A warning where an ASGI server decompresses WebSocket messages (permessage-deflate, RFC 7692).

It does so before the application sees a message: 20 KB from a client without a token become hundreds of MB, and other
clients wait meanwhile. An application cannot turn it off; only a setting of the server can, if there is one.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from iogate.asgi_types import Receive, Scope

logger = logging.getLogger("iogate")

_DANGER = (
    "%s decompresses WebSocket messages (permessage-deflate) before their size can be checked, also for clients"
    " without a token: 20 KB can become hundreds of MB. %s, or serve with `iogate run`."
)
_ADVICE = {
    "uvicorn": "Turn it off: uvicorn --ws-per-message-deflate false, or uvicorn.Config(ws_per_message_deflate=False)",
    "hypercorn": (
        "hypercorn has no setting for it. Let a proxy in front remove the request header Sec-WebSocket-Extensions"
        ' (nginx: proxy_set_header Sec-WebSocket-Extensions "")'
    ),
}


class CompressionWarning:
    """The warning of one application. It is logged once, at the start or with the first WebSocket."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = False

    def check(self, scope: Scope, receive: Receive) -> None:
        """Log the warning if the server is one that compresses. uvicorn and hypercorn are recognised.

        Args:
            scope: the scope of the lifespan or of a WebSocket (ASGI).
            receive: the `receive` of the same call, from the server.
        """
        if self._done:
            return
        server = _compressing(receive)
        if server is not None:
            logger.warning(_DANGER, server, _ADVICE[server])
        # A framework may have called the lifespan, which hides the server: a WebSocket shows it then.
        self._done = server is not None or scope["type"] == "websocket"


def _compressing(receive: Receive) -> str | None:
    """Return the name of the server, if it negotiates compression and that has not been turned off."""
    owner: Any = getattr(receive, "__self__", None)
    if _package(type(owner)) == "uvicorn":
        config: Any = getattr(owner, "config", None)
        protocol = getattr(config, "ws_protocol_class", None)
        compresses = getattr(config, "ws_per_message_deflate", False) and protocol is not None
        return "uvicorn" if compresses and _package(protocol) != "iogate" else None
    # The `receive` of hypercorn's lifespan is a method of its own class; that of a WebSocket is a queue's.
    in_hypercorn = isinstance(owner, asyncio.Queue) and "hypercorn.asyncio.task_group" in sys.modules
    return "hypercorn" if in_hypercorn or _package(type(owner)) == "hypercorn" else None


def _package(kind: Any) -> str:
    return str(kind.__module__).partition(".")[0]
