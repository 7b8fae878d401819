"""A worker: `python -m iogate.serving.worker FD`, which the supervisor starts.

FD is one end of a pair of sockets. The supervisor writes one line, the order; the worker writes one byte when it lets
clients in. When the supervisor has gone, whichever way, the pair says so, and the worker ends as if told to.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

import msgspec

from iogate.asgi import SocketIOApp
from iogate.errors import ConfigurationError
from iogate.serving.logs import configure_logging
from iogate.serving.options import Options
from iogate.serving.process import load, serve


class Order(msgspec.Struct, frozen=True):
    """What a worker is to do.

    Args:
        app: the name of the application, `"module:app"`.
        options: how to serve it.
        path: where Python finds modules.
        listener: the file descriptor of the bound socket to listen on.
    """

    app: str
    options: Options
    path: list[str]
    listener: int


def main(descriptor: int) -> None:
    """Take the order from the supervisor and carry it out."""
    supervisor = socket.socket(fileno=descriptor)
    with supervisor.makefile("rb") as lines:
        order = msgspec.json.decode(lines.readline(), type=Order)
    sys.path[:] = order.path
    configure_logging(order.options.log_level)
    if not order.options.sticky_proxy:
        SocketIOApp.polling = False
    try:
        app = load(order.app)
    except ConfigurationError as error:
        sys.exit(f"Error: {error}")

    def ready() -> None:
        supervisor.send(b"\n")
        asyncio.get_running_loop().add_reader(supervisor, _supervisor_gone, supervisor)

    serve(app, order.options, socket.socket(fileno=order.listener), ready)


def _supervisor_gone(supervisor: socket.socket) -> None:
    asyncio.get_running_loop().remove_reader(supervisor)
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    main(int(sys.argv[1]))
