"""HTTP endpoints that stand beside the server, to be mounted in the application."""

from __future__ import annotations

from iogate.http.logout import BackChannelLogout

__all__ = ["BackChannelLogout"]
