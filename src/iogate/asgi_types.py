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
"""The scope extension by which an application limits a message of this WebSocket: a function that returns the bytes.

uvicorn has one limit for all applications that it serves; `transports/uvicorn_websocket.py` has one for each.
"""
