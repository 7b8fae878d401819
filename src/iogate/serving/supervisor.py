"""The process that starts the workers, puts another in the place of one that ends, and ends them all.

uvicorn has one (`uvicorn.supervisors.Multiprocess`), which is not enough for connections that live for hours: its
workers share one listening socket, a worker that cannot even be imported is started again for ever, one that does not
end is waited for without a bound, workers stay behind when their supervisor is killed, and the server that it runs
cannot ask the application to end its connections first.
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

from iogate.serving.listeners import bind, url
from iogate.serving.options import Options
from iogate.serving.process import STARTUP_FAILURE
from iogate.serving.worker import Order

PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds before a worker that did not last is replaced, the first time, the second ...; then all is given up."""
LASTED = 30.0
"""Seconds after which a worker has lasted: what ended it is nothing that ends every worker at once."""
ENDS_WITHIN = 10.0
"""Seconds that workers have to end: twice the shutdown of the application (uvicorn waits once more), and some."""
BACKLOG = 2048
"""Clients that may wait for a worker that is not ready: what uvicorn has too."""

logger = logging.getLogger("iogate")


class _Worker:
    """A worker, from its start to its end.

    Args:
        process: its process.
        pair: our end of the pair of sockets; the other is the worker's.
    """

    def __init__(self, process: asyncio.subprocess.Process, pair: socket.socket) -> None:
        self.process = process
        self._pair = pair

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ready(self) -> bool:
        """Wait until it lets clients in; False if it has ended before."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._pair, 1) != b""
        except OSError:
            return False

    async def ended(self) -> int:
        """Wait until it has ended, and return its exit code, or the negative number of the signal."""
        code = await self.process.wait()
        self._pair.close()
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)


class Supervisor:
    """Keeps a worker running for every listener.

    Args:
        app: the name of the application, `"module:app"`.
        options: how to serve it.
        listeners: the bound sockets, one for each worker. They are closed at the end.
    """

    def __init__(self, app: str, options: Options, listeners: list[socket.socket]) -> None:
        self._app = app
        self._options = options
        self._listeners = listeners
        self._workers: set[_Worker] = set()
        self._ending = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """Run the workers until `end` is called or one cannot be kept running, and return the exit code.

        The first worker must start before the others do, so that a mistake in the application is told once.
        """
        first, *others = self._listeners
        async with asyncio.TaskGroup() as group:
            if await self._begin(group, first):
                for listener in others:
                    listener.listen(BACKLOG)  # Or all who come before the others are ready would be the first one's.
                started = await asyncio.gather(*(self._begin(group, listener) for listener in others))
                if all(started):
                    self._tell()
            await self._ending.wait()
            await self._end_workers()
        return self._code

    def end(self, code: int = 0) -> None:
        """Let nobody in any more, and tell the workers to end.

        Args:
            code: the exit code.
        """
        if self._ending.is_set():
            return
        self._code = code
        self._ending.set()
        for listener in self._listeners:
            listener.close()
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Cut the workers off."""
        for worker in self._workers:
            worker.send_signal(signal.SIGKILL)

    async def _begin(self, group: asyncio.TaskGroup, listener: socket.socket) -> bool:
        """Start a worker, and keep one there if this one starts; if not, nothing can be served: end."""
        if self._ending.is_set():
            return False
        worker = await self._start(listener)
        if await worker.ready():
            group.create_task(self._keep(worker, listener))
            return True
        self.end(_exit_code(await self._gone(worker)))
        return False

    async def _keep(self, worker: _Worker, listener: socket.socket) -> None:
        """Put another worker in the place of one that ends, unless they end again and again."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        failures = 0
        while True:
            code = await self._gone(worker)
            if self._ending.is_set():
                return
            failures = 1 if loop.time() - began > LASTED else failures + 1
            if failures > len(PAUSES):
                logger.error("Worker [%d] ended too (%s): giving up.", worker.pid, _how(code))
                self.end(_exit_code(code))
                return
            logger.error("Worker [%d] ended (%s): another takes its place.", worker.pid, _how(code))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), PAUSES[failures - 1])
            if self._ending.is_set():
                return
            worker = await self._start(listener)
            await worker.ready()
            began = loop.time()

    async def _start(self, listener: socket.socket) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        order = Order(self._app, self._options, sys.path, listener.fileno())
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "iogate.serving.worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(), listener.fileno()),
            )
        worker = _Worker(process, ours)
        self._workers.add(worker)
        with suppress(OSError):  # It has ended already: `ready` will say so.
            await asyncio.get_running_loop().sock_sendall(ours, msgspec.json.encode(order) + b"\n")
        if self._ending.is_set():
            worker.send_signal(signal.SIGTERM)
        return worker

    async def _gone(self, worker: _Worker) -> int:
        code = await worker.ended()
        self._workers.discard(worker)
        return code

    async def _end_workers(self) -> None:
        """Wait for the workers, but not for ever."""
        endings = [asyncio.ensure_future(worker.process.wait()) for worker in self._workers]
        if not endings:
            return
        _, late = await asyncio.wait(endings, timeout=ENDS_WITHIN)
        if late:
            logger.error("%d workers have not ended within %g seconds: they are killed.", len(late), ENDS_WITHIN)
            self.kill()
            await asyncio.wait(late)

    def _tell(self) -> None:
        """Say what is served, and where."""
        options = self._options
        urls = [url(listener, tls=options.ssl_certfile is not None) for listener in self._listeners]
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
    """Serve an application by several processes until a signal comes.

    Args:
        app: its name, `"module:app"`.
        options: how to serve it.

    Raises:
        ConfigurationError: the port cannot be had.
        SystemExit: the workers do not start, or end again and again.
    """
    listeners = bind(options.host, options.port, options.workers, one_port=not options.sticky_proxy)
    logger.info("Started supervisor process [%d]", os.getpid())
    code, number = asyncio.run(_until_signal(app, options, listeners))
    if number == signal.SIGTERM:
        # As uvicorn does: whoever sent it sees that it was this that ended the process.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    if code:
        raise SystemExit(code)


async def _until_signal(app: str, options: Options, listeners: list[socket.socket]) -> tuple[int, int | None]:
    """Return the exit code, and the signal that asked for the end if there was one."""
    supervisor = Supervisor(app, options, listeners)
    signals: list[int] = []

    def received(number: int) -> None:
        if signals and number == signal.SIGINT:
            supervisor.kill()  # CTRL+C again: do not wait any more.
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
