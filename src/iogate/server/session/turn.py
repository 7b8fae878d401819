"""What is done at the end of a turn of the event loop, once for all that was asked for in it.

A turn takes what has come for many clients. To answer each frame on its own would be a system call a frame, which costs
more than everything else that is done for it; at the end of the turn it is one a client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

logger = logging.getLogger("iogate")


class Turn:
    """The work that waits for the end of a turn."""

    __slots__ = ("_loop", "_work")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: list[Callable[[], object]] = []

    def prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use this event loop from now on."""
        self._loop, self._work = loop, []

    def add(self, work: Callable[[], object]) -> None:
        """Let something be done at the end of this turn, after what was said before."""
        if not self._work:
            assert self._loop is not None  # Nobody comes here before there are connections.  # noqa: S101
            self._loop.call_soon(self._end)
        self._work.append(work)

    def _end(self) -> None:
        ended, self._work = self._work, []
        for work in ended:
            try:
                work()
            except Exception:
                logger.exception("at the end of a turn")
