"""The exception for a rejected client."""

from __future__ import annotations

from typing import Any

from socketio import exceptions

from iogate.client.policy import Refusal


class ConnectionRefused(exceptions.ConnectionError):  # type: ignore[misc]
    """The server rejected the client, and the client cannot resolve this by itself.

    Args:
        refusal: the rejection.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal

    @property
    def data(self) -> Any:
        """The `data` of the rejection."""
        return self.refusal.data

    @property
    def retry(self) -> str:
        """What the client should do according to the server: "refresh", "login", "later" or "never"."""
        return self.refusal.retry
