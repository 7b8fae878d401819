"""The gate for existing servers that use python-socketio or Flask-SocketIO."""

from __future__ import annotations

from iogate.integrations.protection import Protection, protect

__all__ = ["Protection", "protect"]
