"""The sessions of a server: their table, their timers, and the tasks of their handlers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from iogate.clock import Clock
from iogate.protocol.socketio.packets import Parser
from iogate.server.session.deadlines import Deadlines
from iogate.server.session.eager import Eager, Rest
from iogate.server.session.pending import PendingLimiter
from iogate.server.session.reasons import CloseReason
from iogate.server.session.session import Session
from iogate.server.session.transport import Transport
from iogate.server.session.turn import Turn
from iogate.server.session.upgrade import Upgrade
from iogate.server.settings import Limits, Settings

logger = logging.getLogger("iogate")

DRAIN_TIMEOUT = 5.0
"""Seconds in which the client of a closed session can still fetch its last packets. Then the transport is aborted."""

S = TypeVar("S", bound=Session)


class Sessions(Generic[S]):
    """The open sessions of a server, and what they share.

    Args:
        settings: the settings of the server.
        parser: encodes and decodes packets.
        limits: the limits of sessions without a verdict.
        clock: the time of the timers.
        started: called when the server runs on a new event loop.
    """

    __slots__ = (
        "_loop",
        "_pong_timeout",
        "_started",
        "_tasks",
        "attachment_timeout",
        "closing",
        "deadlines",
        "drain_timeout",
        "draining",
        "eager",
        "max_unverified",
        "parser",
        "pending",
        "ping_timer",
        "settings",
        "table",
        "turn",
        "upgrade_timeout",
    )

    def __init__(
        self,
        settings: Settings,
        parser: Parser,
        limits: Limits,
        clock: Clock,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.max_unverified = settings.max_unverified
        self.parser = parser
        self.table: dict[str, S] = {}  # Open sessions by id.
        self.draining: dict[str, S] = {}  # Closed sessions whose clients can still fetch packets.
        self.closing = False
        self.pending = PendingLimiter(limits)
        self.eager = Eager()
        self.turn = Turn()
        self._started = started
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[asyncio.Task[None], Callable[[], None] | None] = {}
        self.deadlines = deadlines = Deadlines(clock)
        self.ping_timer = deadlines.queue(settings.ping_interval, self._ping)
        self._pong_timeout = deadlines.queue(settings.ping_timeout, _pong_timed_out)
        self.attachment_timeout = deadlines.queue(settings.ping_timeout, _attachments_timed_out)
        self.drain_timeout = deadlines.queue(DRAIN_TIMEOUT, _abort)
        self.upgrade_timeout = deadlines.queue(settings.connect_timeout, Upgrade.fail)

    def prepare(self) -> None:
        """Use the running event loop from now on."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # The first one, or the previous one has ended, as between two tests.
            self._loop = loop
            for part in (self.deadlines, self.eager, self.turn):
                part.prepare(loop)
            self._started()

    def add(self, session: S) -> None:
        """Register a new session. The caller starts its pings."""
        self.prepare()
        session.context = self.eager.context_of_caller()
        self.table[session.sid] = session
        self.pending.add(session)

    def remove(self, session: Session) -> None:
        """Remove a closed session, and stop its timers."""
        self.table.pop(session.sid, None)
        for queue in (self.attachment_timeout, self.ping_timer, self._pong_timeout):
            queue.stop(session)

    def find(self, sid: str) -> S | None:
        """Return the session with this id, if it is open or its client can still fetch packets."""
        return self.table.get(sid) or self.draining.get(sid)

    def all(self) -> list[S]:
        """Return all sessions that are open, or whose clients can still fetch packets."""
        return [*self.table.values(), *self.draining.values()]

    def pong_received(self, session: Session) -> None:
        """Record that a client answered a ping. A pong without a ping is ignored."""
        if self._pong_timeout.stop(session):
            session.heartbeat()
            self.ping_timer.start(session)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task that `close` waits for."""
        return self._keep(asyncio.create_task(work))

    def resume(
        self,
        rest: Rest,
        work: Coroutine[Any, Any, None] | None = None,
        finished: Callable[[], None] | None = None,
    ) -> asyncio.Task[None]:
        """Continue a coroutine that `eager.begin` started, in a task that `close` waits for.

        Args:
            rest: the result of `eager.begin`.
            work: a coroutine that awaits `rest` and uses its result; None: only await `rest`.
            finished: called when the task has ended.
        """
        return self._keep(self.eager.go_on(rest, work), finished)

    async def close(self, timeout: float) -> None:
        """Close all sessions, and wait until their handlers have ended.

        Args:
            timeout: seconds after which transports are aborted, and the tasks of handlers are cancelled.
        """
        self.closing = True
        transports: list[Transport] = [session.transport for session in self.table.values()]
        for session in list(self.table.values()):
            session.close(CloseReason.SERVER_SHUTDOWN)
        try:
            async with asyncio.timeout(timeout):
                while tasks := self._tasks.keys() - {asyncio.current_task()}:  # A handler may have called `shutdown`.
                    await asyncio.wait(tasks)
        except TimeoutError:
            for transport in transports:
                transport.abort()
            for task in self._tasks.keys() - {asyncio.current_task()}:
                task.cancel()

    def _keep(self, task: asyncio.Task[None], finished: Callable[[], None] | None = None) -> asyncio.Task[None]:
        self._tasks[task] = finished
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        finished = self._tasks.pop(task, None)
        if finished is not None:
            finished()

    def _ping(self, session: Session) -> None:
        self._pong_timeout.start(session)
        session.ping()


def _abort(transport: Transport) -> None:
    transport.abort()


def _pong_timed_out(session: Session) -> None:
    session.close(CloseReason.PING_TIMEOUT)


def _attachments_timed_out(session: Session) -> None:
    logger.info("closed: announced attachments did not come")
    session.close(CloseReason.PARSE_ERROR)
