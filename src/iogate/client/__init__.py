"""Clients for Python that keep their token fresh: python-socketio's, with somebody behind who sees to it.

    async def get_token(reason):                  # "connect", "reconnect", "expiring", "expired" or "login"
        return await my_identity_provider.access_token()

    client = AsyncClient(get_token=get_token)
    await client.connect("https://chat.example.com")
    await client.emit("message", "hello")

Everything else is python-socketio's own: `on`, `event`, `emit`, `call`, namespaces. `Client` is the same for threads.

What they do about a token, and when they stop, is decided in `policy.py`, for both.
"""

from __future__ import annotations

try:
    import socketio as _socketio  # noqa: F401
except ImportError as error:
    raise ImportError("iogate.client needs python-socketio: pip install 'iogate[client]'") from error

from iogate.client.asynchronous import AsyncClient
from iogate.client.policy import Reason, Refusal
from iogate.client.refused import ConnectionRefused
from iogate.client.threaded import Client

__all__ = ["AsyncClient", "Client", "ConnectionRefused", "Reason", "Refusal"]
