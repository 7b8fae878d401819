"""The numbers of a server, and their ranges."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from iogate.errors import ConfigurationError

UNVERIFIED_TOKENS = 4
"""The maximum size of a frame of a client that is not admitted, in tokens of `max_token_bytes`."""

_SUBJECT = "connections_per_subject"


class Settings(msgspec.Struct, frozen=True):
    """The settings of a server. `Server` documents each; `max_unverified` is derived from them.

    Args:
        max_token_bytes: the maximum size of a token in bytes.
    """

    path: str
    ping_interval: float
    ping_timeout: float
    connect_timeout: float
    max_payload: int
    max_buffered: int
    max_attachments: int
    max_token_bytes: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(/[^/?#\s]+)+", self.path):
            raise ConfigurationError(f'path is {self.path!r}: write it like "/socket.io", without a slash at the end')
        for name in ("ping_interval", "ping_timeout", "connect_timeout"):
            if type(getattr(self, name)) not in (int, float) or not 0 < getattr(self, name) <= 3600:
                raise ConfigurationError(f"{name} is a number of seconds, more than 0 and at most 3600")
        for name, least in (("max_payload", 1024), ("max_buffered", 1024), ("max_attachments", 0)):
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                raise ConfigurationError(f"{name} is a whole number, at least {least}")

    @property
    def max_unverified(self) -> int:
        """Bytes of a frame of a client that is not admitted, and of every CONNECT."""
        return min(self.max_payload, UNVERIFIED_TOKENS * self.max_token_bytes)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits for clients that are not authenticated, and for the connections of one subject.

    Args:
        pending: transports without a verdict and connections without a request, in total. If the limit is reached, the
            oldest one without a CONNECT is closed for a new one; if there is none, a new transport is answered 429.
        pending_per_address: the same per address.
        failures_per_address: bad credentials that an address may send. For a time after that, which doubles with each
            further one up to a minute, its bad credentials are answered `too_many`, and at most 10 of its tokens are
            verified at a time; valid tokens are accepted. An attempt that the client abandons during verification
            counts. A token that is only expired does not count. One is forgiven per quiet second. An IPv6 /64 network
            counts as one address.
        missing_per_address: the same for CONNECTs without a token where one is required.
        connections_per_subject: connections that one subject may have; None: any number.
        when_full: what happens to one more connection of a subject: it is rejected (`"reject"`), or it ends the
            subject's oldest connection (`"end_oldest"`).

    Raises:
        ConfigurationError: a value is not a whole number of at least 1, or `when_full` is something else.
    """

    pending: int = 10_000
    pending_per_address: int = 1000
    failures_per_address: int = 100
    missing_per_address: int = 1000
    connections_per_subject: int | None = None
    when_full: Literal["reject", "end_oldest"] = "reject"

    def __post_init__(self) -> None:
        for name in ("pending", "pending_per_address", "failures_per_address", "missing_per_address", _SUBJECT):
            value = getattr(self, name)
            if value is None and name == _SUBJECT:
                continue
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"Limits({name}=...) is a whole number, at least 1")
        if self.when_full not in ("reject", "end_oldest"):
            raise ConfigurationError('Limits(when_full=...) is "reject" or "end_oldest"')
