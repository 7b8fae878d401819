"""The types and extensions of the ASGI interface that iogate uses (https://asgi.readthedocs.io/en/latest/specs/)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

DENIAL = "websocket.http.response"
"""The ASGI extension for an HTTP response to a WebSocket request, and the prefix of its message types."""
MESSAGE_LIMIT = "iogate.message_limit"
"""The extension by which an application limits the messages of one WebSocket.

Its value in the scope is a function. The application passes it a function that the server calls whenever data arrives.
That function returns the largest message in bytes, and whether the client is admitted: until then, its data waits for
a turn among that of other clients.

uvicorn has one limit for all applications that it serves; `transports/uvicorn_websocket.py` has one per WebSocket.
"""
