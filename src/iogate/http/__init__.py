"""HTTP endpoints beside the server: those of the application behind the same gate, and one for an identity provider.

What a framework has for it is in the module of its name, such as `iogate.http.fastapi`.
"""

from __future__ import annotations

from iogate.http.guard import Admitted, DoubleSubmit, Guard, HTTPRequest
from iogate.http.logout import BackChannelLogout

__all__ = ["Admitted", "BackChannelLogout", "DoubleSubmit", "Guard", "HTTPRequest"]
