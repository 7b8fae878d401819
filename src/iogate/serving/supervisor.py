"""The supervisor: a process that starts the workers, replaces those that end, and shuts them all down.

uvicorn's supervisor (`uvicorn.supervisors.Multiprocess`) does not suit connections that live for hours. Its workers
share one listening socket. It restarts a worker for ever even if the application cannot be imported, and it waits
without a limit for a worker that does not end. Workers keep running when their supervisor is killed. And its server
cannot ask the application to close its connections first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress

import msgspec

from iogate.serving.listeners import bind, take_out, url
from iogate.serving.options import Options
from iogate.serving.process import STARTUP_FAILURE
from iogate.serving.worker import ENDS_WITHIN, QUESTION, READY, Order

PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Seconds before a worker is replaced: after the first failure in a row, the second, and so on. The last repeats."""
MANY = 6
"""The number of failures in a row from which a place is failing. If all places are failing, the supervisor gives up.

The end of a worker that has lasted counts as the first failure of a new row.
"""
LASTED = 30.0
"""Seconds after which a worker has lasted: the reason for its end is not one that ends every worker at its start."""
QUESTIONS = 10
"""The number of unanswered questions in a row after which a worker is killed."""
BACKLOG = 2048
"""The number of clients that may wait for a worker that is not ready, the same as uvicorn's default."""

logger = logging.getLogger("iogate")


class _Worker:
    """A worker process, from its start to its end.

    Args:
        process: the process.
        pair: the supervisor's end of the pair of sockets that connects it to the worker.
        timeout: seconds without an answer after which the worker is killed; 0 for never.
    """

    def __init__(self, process: asyncio.subprocess.Process, pair: socket.socket, timeout: float) -> None:
        self.process = process
        self._pair = pair
        self._ready = asyncio.Event()
        self._heard = False
        self._answered = False
        self._timeout = timeout
        asyncio.get_running_loop().add_reader(pair, self._read)
        self._watching = asyncio.create_task(self._watch())

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ready(self) -> bool:
        """Wait until clients can connect to the worker, and return True, or False if it ended before that."""
        either = [asyncio.ensure_future(self._ready.wait()), asyncio.ensure_future(self.process.wait())]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in either:
                waiting.cancel()
        return self._ready.is_set()

    async def ended(self) -> int:
        """Wait until the worker has ended, and return its exit code, or the negative number of the signal."""
        code = await self.process.wait()
        self._watching.cancel()
        asyncio.get_running_loop().remove_reader(self._pair)
        self._pair.close()
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to the worker, if it is still running."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def end(self) -> None:
        """Ask the worker to end (SIGTERM). It need not answer questions any more: its shutdown may take long."""
        self._watching.cancel()
        self.send_signal(signal.SIGTERM)

    def _read(self) -> None:
        try:
            said = self._pair.recv(4096)
        except OSError:
            said = b""
        if not said:
            asyncio.get_running_loop().remove_reader(self._pair)
        self._heard = self._answered = True
        if READY in said:
            self._ready.set()

    async def _watch(self) -> None:
        """Kill the worker when it does not answer.

        This counts questions, not time, because a supervisor that was itself suspended, for example on a laptop that
        slept, has asked no questions meanwhile. Questions before the first answer do not count, because the worker's
        Python interpreter must start first.
        """
        unanswered = 0
        while self._timeout and unanswered < QUESTIONS:
            self._answered = False
            with suppress(OSError):  # The worker has ended, or does not read.
                self._pair.send(QUESTION)
            await asyncio.sleep(self._timeout / QUESTIONS)
            unanswered = unanswered + 1 if self._heard and not self._answered else 0
        if self._timeout:
            logger.error(
                "Worker [%d] has not answered for %g s (its event loop is blocked, or it is stopped): it is killed.",
                self.pid,
                self._timeout,
            )
            self.send_signal(signal.SIGKILL)


class Place:
    """A place for one worker: a listener, and the workers that serve it one after another.

    Args:
        listener: the bound socket.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self._failures = 0
        self._began: float | None = None

    def ready(self, now: float) -> None:
        """Record that clients can connect to the worker since `now`, seconds on the event loop's clock."""
        self._began = now

    def ended(self, now: float) -> float:
        """Record that the worker has ended, and return the seconds to wait before the next one starts."""
        self._failures = 1 if self._lasts(now) else self._failures + 1
        self._began = None
        return PAUSES[min(self._failures, len(PAUSES)) - 1]

    def fails(self, now: float) -> bool:
        """Return True if the workers of this place end again and again."""
        return self._failures >= MANY and not self._lasts(now)

    def _lasts(self, now: float) -> bool:
        return self._began is not None and now - self._began > LASTED


class Supervisor:
    """A supervisor that keeps one worker running per listener.

    Args:
        app: the name of the application, `"module:app"`.
        options: the options of `iogate.run`.
        listeners: the bound sockets, one per worker. They are closed at the end.
    """

    def __init__(self, app: str, options: Options, listeners: list[socket.socket]) -> None:
        self._app = app
        self._options = options
        self._places = [Place(listener) for listener in listeners]
        self._workers: set[_Worker] = set()
        self._ending = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """Run the workers until `end` is called or all places are failing, and return the exit code.

        The first worker must start before the others do, so that an error in the application is logged only once.
        """
        first, *others = self._places
        async with asyncio.TaskGroup() as group:
            if await self._begin(group, first):
                for place in others:
                    # Otherwise the first worker would get all clients that connect before the others are ready.
                    place.listener.listen(BACKLOG)
                started = await asyncio.gather(*(self._begin(group, place) for place in others))
                if all(started):
                    self._tell()
            await self._ending.wait()
            await self._end_workers()
        return self._code

    def end(self, code: int = 0) -> None:
        """Stop listening, and ask the workers to end.

        Args:
            code: the exit code.
        """
        if self._ending.is_set():
            return
        self._code = code
        self._ending.set()
        for place in self._places:
            place.listener.close()
        for worker in self._workers:
            worker.end()

    def kill(self) -> None:
        """Kill the workers."""
        for worker in self._workers:
            worker.send_signal(signal.SIGKILL)

    async def _begin(self, group: asyncio.TaskGroup, place: Place) -> bool:
        """Start the first worker of a place, and return True, or shut down and return False if it does not start."""
        if self._ending.is_set():
            return False
        worker = await self._start(place.listener)
        if await worker.ready():
            group.create_task(self._keep(worker, place))
            return True
        self.end(_exit_code(await self._gone(worker)))
        return False

    async def _keep(self, worker: _Worker, place: Place) -> None:
        """Replace the worker of a place whenever it ends, until all places are failing."""
        loop = asyncio.get_running_loop()
        place.ready(loop.time())
        while True:
            code = await self._gone(worker)
            if self._ending.is_set():
                return
            pause = place.ended(loop.time())
            if all(each.fails(loop.time()) for each in self._places):
                logger.error("Worker [%d] ended too (%s): giving up.", worker.pid, _how(code))
                self.end(_exit_code(code))
                return
            when = f" in {pause:g} s" if pause else ""
            logger.error("Worker [%d] ended (%s): another takes its place%s.", worker.pid, _how(code), when)
            if pause:
                take_out(place.listener)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), pause)
            if self._ending.is_set():
                return
            worker = await self._start(place.listener)
            if await worker.ready():
                place.ready(loop.time())

    async def _start(self, listener: socket.socket) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        order = Order(self._app, self._options, sys.path, listener.fileno())
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "iogate.serving.worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(), listener.fileno()),
            )
        worker = _Worker(process, ours, self._options.worker_timeout)
        self._workers.add(worker)
        with suppress(OSError):  # The worker has ended already: `ready` will return False.
            await asyncio.get_running_loop().sock_sendall(ours, msgspec.json.encode(order) + b"\n")
        if self._ending.is_set():
            worker.end()
        return worker

    async def _gone(self, worker: _Worker) -> int:
        code = await worker.ended()
        self._workers.discard(worker)
        return code

    async def _end_workers(self) -> None:
        """Wait until the workers have ended, and kill those that do not end in time."""
        endings = [asyncio.ensure_future(worker.process.wait()) for worker in self._workers]
        if not endings:
            return
        _, late = await asyncio.wait(endings, timeout=ENDS_WITHIN)
        if late:
            logger.error("%d workers have not ended within %g seconds: they are killed.", len(late), ENDS_WITHIN)
            self.kill()
            await asyncio.wait(late)

    def _tell(self) -> None:
        """Log the URLs of the workers."""
        options = self._options
        urls = [url(place.listener, tls=options.ssl_certfile is not None) for place in self._places]
        count = len(urls)
        if options.sticky_proxy:
            logger.info("%d workers running on %s (Press CTRL+C to quit)", count, ", ".join(urls))
            logger.info("The proxy must send all requests of a client to the same one of them.")
        else:
            logger.info("%d workers running on %s (Press CTRL+C to quit)", count, urls[0])
            logger.info(
                "They serve WebSockets only: long-polling needs a proxy that is sticky (--sticky-proxy)."
                ' A JavaScript client is told so by transports: ["websocket"].'
            )


def supervise(app: str, options: Options) -> None:
    """Serve an application with several worker processes until a signal arrives.

    Args:
        app: the name of the application, `"module:app"`.
        options: the options of `iogate.run`.

    Raises:
        ConfigurationError: the port is not available.
        SystemExit: the workers do not start, or end again and again.
    """
    listeners = bind(options.host, options.port, options.workers, one_port=not options.sticky_proxy)
    logger.info("Started supervisor process [%d]", os.getpid())
    code, number = asyncio.run(_until_signal(app, options, listeners))
    if number == signal.SIGTERM:
        # End the process by the signal, as uvicorn does, so that the parent process sees the reason.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    if code:
        raise SystemExit(code)


async def _until_signal(app: str, options: Options, listeners: list[socket.socket]) -> tuple[int, int | None]:
    """Run the supervisor, and return the exit code and the first signal that arrived, or None."""
    supervisor = Supervisor(app, options, listeners)
    signals: list[int] = []

    def received(number: int) -> None:
        if signals and number == signal.SIGINT:
            supervisor.kill()  # A second CTRL+C: stop waiting for the workers.
        signals.append(number)
        supervisor.end()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, received, number)
    code = await supervisor.run()
    return code, signals[0] if signals else None


def _exit_code(code: int) -> int:
    return code if code > 0 else STARTUP_FAILURE


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
