"""The gate for the Socket.IO servers that people already run: python-socketio and Flask-SocketIO."""

from __future__ import annotations

from iogate.integrations.protection import Protection, protect

__all__ = ["Protection", "protect"]
