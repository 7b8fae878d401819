"""The ASGI interface, as far as it is used here (https://asgi.readthedocs.io/en/latest/specs/)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

DENIAL = "websocket.http.response"
"""The extension by which a WebSocket is answered as a request is, and how its messages begin."""
MESSAGE_LIMIT = "iogate.message_limit"
"""The extension by which an application says how many bytes a message of this WebSocket may have: a function that takes
a function which returns them, and is asked whenever something comes.

uvicorn has one limit for all applications that it serves; `transports/uvicorn_websocket.py` has one for each.
"""
