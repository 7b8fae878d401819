"""The error of a client that was refused."""

from __future__ import annotations

from typing import Any

from socketio import exceptions

from iogate.client.policy import Refusal


class ConnectionRefused(exceptions.ConnectionError):  # type: ignore[misc]
    """The server refused the client, and there is nothing more that the client can do about it by itself.

    Args:
        refusal: what the server said.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal

    @property
    def data(self) -> Any:
        """What the server gave as `data`."""
        return self.refusal.data

    @property
    def retry(self) -> str:
        """What the server said that the client should do: "refresh", "login", "later" or "never"."""
        return self.refusal.retry
