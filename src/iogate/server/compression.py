"""A warning where an ASGI server decompresses WebSocket messages (permessage-deflate, RFC 7692).

It does so before the application can look at a message: 20 KB from a client without a token become hundreds of MB,
and other clients wait meanwhile. An application cannot turn it off; the settings of the server can, if it has any.
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
    """The warning of one application: it is logged once, at the start or with the first WebSocket that shows it."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = False

    def check(self, scope: Scope, receive: Receive) -> None:
        """Log the warning if it can be seen that the server compresses. uvicorn and hypercorn are recognized.

        Args:
            scope: of the lifespan or of a WebSocket (ASGI).
            receive: of the same call, as the server gave it.
        """
        if self._done:
            return
        server = _compressing(receive)
        if server is not None:
            logger.warning(_DANGER, server, _ADVICE[server])
        # The lifespan may have been called by a framework, which hides the server: a WebSocket shows it then.
        self._done = server is not None or scope["type"] == "websocket"


def _compressing(receive: Receive) -> str | None:
    """Return the name of the server, if it is one that negotiates compression and has not been told not to."""
    owner: Any = getattr(receive, "__self__", None)
    if _package(type(owner)) == "uvicorn":
        config: Any = getattr(owner, "config", None)
        protocol = getattr(config, "ws_protocol_class", None)
        compresses = getattr(config, "ws_per_message_deflate", False) and protocol is not None
        return "uvicorn" if compresses and _package(protocol) != "iogate" else None
    # hypercorn's lifespan is an object of its own; a WebSocket of it has only a queue.
    in_hypercorn = isinstance(owner, asyncio.Queue) and "hypercorn.asyncio.task_group" in sys.modules
    return "hypercorn" if in_hypercorn or _package(type(owner)) == "hypercorn" else None


def _package(kind: Any) -> str:
    return str(kind.__module__).partition(".")[0]
