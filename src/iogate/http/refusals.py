"""Log lines about rejected requests, in a limited number, so that bad requests cannot fill the log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from iogate.clock import Clock
from iogate.printable import printable
from iogate.server.session.addresses import source_of

logger = logging.getLogger("iogate")

WINDOW = 60.0
"""Length of a window in seconds. Within it, further rejections of the same source and code are only counted."""
MAX_LINES = 100
"""Rejections that have their own log line within a window; all others are counted together."""


class RefusalLog:
    """Log the first rejection of each source and code, and count the others until the end of a minute.

    A source is an IPv4 address or an IPv6 network of 64 bits. At the end of the minute, one line says how many others
    there were, and which source and code had the most.

    Args:
        what: a name for the rejected requests, for the line with the counts.
        clock: measures the minute.
    """

    __slots__ = ("_clock", "_counts", "_ends", "_uncounted", "_what")

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._clock = clock
        self._ends = 0.0
        self._counts: dict[tuple[str | None, str], int] = {}
        self._uncounted = 0

    def add(
        self, address: str | None, code: str, message: str, *args: object, error: BaseException | None = None
    ) -> None:
        """Log a rejection, or count it.

        Args:
            address: the address of the client.
            code: the code of the rejection, or another short name for it, which the client cannot choose.
            message: the log line for the first rejection.
            args: the arguments of the line.
            error: an exception whose traceback is logged too.
        """
        now = self._clock.monotonic()
        if now >= self._ends:
            self.flush()
            self._ends = now + WINDOW
            asyncio.get_running_loop().call_later(WINDOW, self._due)
        key = (source_of(address), code)
        if key in self._counts:
            self._counts[key] += 1
        elif len(self._counts) >= MAX_LINES:
            self._uncounted += 1
        else:
            self._counts[key] = 0
            logger.log(logging.INFO if error is None else logging.ERROR, message, *args, exc_info=error)

    def flush(self) -> None:
        """Log the counts, and start new ones."""
        counts, self._counts = self._counts, {}
        others, self._uncounted = self._uncounted, 0
        more = sum(counts.values()) + others
        if more:
            (source, code), most = max(counts.items(), key=lambda item: item[1])
            logger.info(
                "%s: %d more refused in the last minute; %d of them with %s, from %s",
                self._what,
                more,
                most,
                code,
                shown(source),
            )

    def _due(self) -> None:
        if self._clock.monotonic() >= self._ends:
            self.flush()


def shown(text: Any) -> str:
    """Return a text from a client, such as an address or a path, escaped and bounded for the log."""
    return printable(text) if text is not None else "a Unix socket"
