"""The sockets that workers listen on: one each, bound by the supervisor and kept by it."""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack, suppress

from iogate.errors import ConfigurationError


def bind(host: str, port: int, workers: int, *, one_port: bool) -> list[socket.socket]:
    """Bind a socket for each worker.

    On one port they have a socket each too, with SO_REUSEPORT: Linux then deals out new connections evenly. With one
    socket for all, whichever worker is idle first takes everything that waits, and connections that live for hours
    would stay that unevenly spread. Other systems do not deal, and there the workers do share one socket.

    The supervisor keeps them open: clients that come while a worker is replaced wait for the next one.

    Args:
        host: the address.
        port: the port, or the first; 0 takes free ones.
        workers: how many.
        one_port: whether all are on the same port, or each on the next.

    Raises:
        ConfigurationError: the port is taken, or the address is none of this machine.
    """
    with ExitStack() as opened:
        if one_port and sys.platform == "linux":
            with _bind(host, port) as probe:
                # Only after the bind: before, it would join another supervisor's workers instead of failing.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                port = probe.getsockname()[1]
                # Bind the chosen port by its number: `take_out` would lose a port that the system has chosen.
                listeners = [opened.enter_context(_bind(host, port, shared=True)) for _ in range(workers)]
        elif one_port:
            listeners = [opened.enter_context(_bind(host, port))] * workers
        else:
            listeners = [opened.enter_context(_bind(host, port and port + number)) for number in range(workers)]
        opened.pop_all()
    return listeners


def take_out(listener: socket.socket) -> None:
    """Stop listening on a shared port until the next call of `listen`: new clients then connect to the other workers.

    Clients that wait to be accepted are disconnected. This is for Linux, which has a socket per worker on one port; on
    other systems the workers share one socket, so the other workers accept these clients.
    """
    if sys.platform == "linux" and listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        with suppress(OSError):  # It does not listen yet: the worker ended before that.
            listener.shutdown(socket.SHUT_RD)


def url(listener: socket.socket, *, tls: bool) -> str:
    """Return the URL of what listens there."""
    host, port = listener.getsockname()[:2]
    return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def _bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    try:
        family, type_, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, type_, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(f"{host}:{port} cannot be listened on: {error.strerror}") from None
    return listener
