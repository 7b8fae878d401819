"""A worker process, which the supervisor starts with `python -m iogate.serving.worker FD`.

FD is one end of a pair of sockets. The supervisor writes one line, the order, and then one byte at intervals, which
the worker answers. The worker writes another byte when clients can connect. When the supervisor ends, for any reason,
the pair closes, and the worker ends as after a SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

import msgspec

from iogate.asgi import SocketIOApp
from iogate.errors import ConfigurationError
from iogate.serving.logs import configure_logging
from iogate.serving.options import Options
from iogate.serving.process import load, serve
from iogate.serving.tls import check_tls

QUESTION = b"?"
"""The byte that the supervisor sends at intervals, to check that the worker responds."""
ANSWER = b"."
"""The worker's answer to `QUESTION`."""
READY = b"!"
"""The byte that a worker sends when clients can connect."""
ENDS_WITHIN = 10.0
"""Seconds in which workers must end: twice `SHUTDOWN_TIMEOUT`, because uvicorn waits as long again, plus a reserve."""


class Order(msgspec.Struct, frozen=True):
    """The instructions for a worker, sent as one line of JSON.

    Args:
        app: the name of the application, `"module:app"`.
        options: the options of `iogate.run`.
        path: the value for `sys.path`.
        listener: the file descriptor of the bound socket to listen on.
    """

    app: str
    options: Options
    path: list[str]
    listener: int


def main(descriptor: int) -> None:
    """Read the order from the supervisor, and serve the application.

    Args:
        descriptor: the file descriptor of the worker's end of the pair of sockets.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # CTRL+C reaches all processes; the supervisor ends this one.
    pair = socket.socket(fileno=descriptor)
    with pair.makefile("rb") as lines:
        order = msgspec.json.decode(lines.readline(), type=Order)
    supervisor = _Supervisor(pair)
    sys.path[:] = order.path
    configure_logging(order.options.log_level)
    if not order.options.sticky_proxy:
        SocketIOApp.polling = False
    try:
        check_tls(order.options.ssl_certfile, order.options.ssl_keyfile)
        app = load(order.app)
    except ConfigurationError as error:
        sys.exit(f"Error: {error}")
    serve(app, order.options, socket.socket(fileno=order.listener), supervisor.ready)


class _Supervisor:
    """The supervisor, as a worker sees it.

    A thread reads the supervisor's messages, so that a worker whose event loop is blocked, or does not run yet, still
    notices that the supervisor has ended. While the worker serves, the answers come from the event loop, so a blocked
    event loop does not answer. Before that the thread answers, because a start may take long.

    Args:
        pair: the worker's end of the pair of sockets.
    """

    def __init__(self, pair: socket.socket) -> None:
        self._pair = pair
        self._loop: asyncio.AbstractEventLoop | None = None
        threading.Thread(target=self._read, name="supervisor", daemon=True).start()

    def ready(self) -> None:
        """Tell the supervisor that clients can connect. Call this in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._say(READY)

    def _say(self, what: bytes) -> None:
        with suppress(OSError):  # The supervisor has ended.
            self._pair.send(what)

    def _read(self) -> None:
        while self._asks():
            if self._loop is None:
                self._say(ANSWER)
            else:
                with suppress(RuntimeError):  # The event loop is closed: the process is about to end.
                    self._loop.call_soon_threadsafe(self._say, ANSWER)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(ENDS_WITHIN)
        os.kill(os.getpid(), signal.SIGKILL)

    def _asks(self) -> bool:
        try:
            return self._pair.recv(4096) != b""
        except OSError:
            return False


if __name__ == "__main__":
    main(int(sys.argv[1]))
