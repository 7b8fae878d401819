"""The sockets that workers listen on. The supervisor binds one per worker and keeps them open."""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack, suppress

from iogate.errors import ConfigurationError


def bind(host: str, port: int, workers: int, *, one_port: bool) -> list[socket.socket]:
    """Bind a socket for each worker, and return the sockets.

    On Linux, workers on one port have one socket each too, with SO_REUSEPORT: the kernel then distributes new
    connections evenly. With a single socket, the first idle worker would accept all waiting connections, and
    connections that live for hours would stay unevenly distributed. Other systems do not distribute connections, so
    their workers share one socket.

    The supervisor keeps the sockets open, so clients that connect while a worker is replaced wait for the next worker.

    Args:
        host: the address.
        port: the port, or the first of them; 0 takes free ones.
        workers: the number of workers.
        one_port: True if all workers use the same port, False if each uses the next port.

    Raises:
        ConfigurationError: the port is in use, or the host is not an address of this machine.
    """
    with ExitStack() as opened:
        if one_port and sys.platform == "linux":
            with _bind(host, port) as probe:
                # Set the option after the bind. Before it, the bind would succeed beside another supervisor's workers.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                port = probe.getsockname()[1]
                # Bind the chosen port by its number: `take_out` would lose a port that the system chose for port 0.
                listeners = [opened.enter_context(_bind(host, port, shared=True)) for _ in range(workers)]
        elif one_port:
            listeners = [opened.enter_context(_bind(host, port))] * workers
        else:
            listeners = [opened.enter_context(_bind(host, port and port + number)) for number in range(workers)]
        opened.pop_all()
    return listeners


def take_out(listener: socket.socket) -> None:
    """Stop listening on a shared port until the next call of `listen`: new clients then connect to the other workers.

    Clients that wait to be accepted are disconnected. This has an effect only on Linux, where each worker has its own
    socket on the port. On other systems the workers share one socket, so the other workers accept these clients.
    """
    if sys.platform == "linux" and listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        with suppress(OSError):  # It raises if the worker ended before it listened.
            listener.shutdown(socket.SHUT_RD)


def url(listener: socket.socket, *, tls: bool) -> str:
    """Return the URL of a listener."""
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
