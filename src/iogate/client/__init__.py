"""Socket.IO clients for Python that keep their token fresh, based on python-socketio.

    async def get_token(reason):                  # "connect", "reconnect", "expiring", "expired" or "login"
        return await my_identity_provider.access_token()

    client = AsyncClient(get_token=get_token)
    await client.connect("https://chat.example.com")
    await client.emit("message", "hello")

Everything else works as in python-socketio: `on`, `event`, `emit`, `call`, namespaces. `Client` is the same for
threads.

For both clients, `policy.py` decides when to request a token, when to reconnect, and when to give up.
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
