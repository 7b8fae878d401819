"""HTTP endpoints: endpoints of the application with the same authentication as sockets, and back-channel logout.

The integration with a framework is in the module with its name, for example `iogate.http.fastapi`.
"""

from __future__ import annotations

from iogate.http.guard import Admitted, DoubleSubmit, Guard, HTTPRequest
from iogate.http.logout import BackChannelLogout

__all__ = ["Admitted", "BackChannelLogout", "DoubleSubmit", "Guard", "HTTPRequest"]
