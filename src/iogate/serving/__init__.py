"""Serving an application in one process or several: `iogate.run`, which the command `iogate run` calls too.

Dependencies such as uvicorn are imported only when it runs, so an application under another server does not need them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from iogate.serving.options import LogLevel, Options, WebSockets

if TYPE_CHECKING:
    from iogate.asgi_types import ASGIApp
    from iogate.server.server import Server

__all__ = ["run"]


def run(
    app: ASGIApp | Server | str,
    *,
    host: str = "127.0.0.1",
    port: int = 3000,
    ws: WebSockets | str = "picows",
    workers: int = 1,
    separate_workers: bool = False,
    sticky_proxy: bool = False,
    worker_timeout: float = 30.0,
    root_path: str = "",
    ssl_certfile: str | None = None,
    ssl_keyfile: str | None = None,
    forwarded_allow_ips: str | None = None,
    access_log: bool = False,
    log_level: LogLevel | str = "info",
) -> None:
    """Serve an application with uvicorn until a signal arrives.

    SIGINT makes this function return; SIGTERM ends the process. Before that, clients are disconnected, and handlers
    have a few seconds to finish. A signal during the start cancels the start; the lifespan of the application then has
    one second to clean up. Use this function only in a process that does nothing else: it sets up logging, handles
    signals, and tunes the garbage collector for many connections.

    Args:
        app: the return value of `io.asgi()`, a `Server`, any ASGI application around it, or the name of one of these,
            `"module:app"`. Several workers need the name.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        ws: the library that serves Socket.IO's WebSockets: `"picows"`, where it can be imported, or `"websockets"`, as
            uvicorn's setting of the same name.
        workers: the number of processes that share the port. More than one serve WebSockets only, unless
            `sticky_proxy` is True.
        separate_workers: True confirms that the application works with workers that share no state: each worker has
            its own broadcasts, rooms, revocations and limits.
        sticky_proxy: True if a proxy in front sends all requests of a client to the same worker. Each worker then
            listens on its own port, `port`, `port + 1` and so on, and serves long-polling too.
        worker_timeout: seconds, at least 1, after which a worker whose event loop does not answer is killed and
            replaced; 0 turns this off, for example for a debugger. It has no effect with one worker, which has no
            supervisor. A worker that is still starting has no time limit.
        root_path: the path that a proxy in front has removed from the URLs, such as `"/chat"`.
        ssl_certfile: file with the certificate for TLS and the intermediate certificates, in PEM format. A client has
            `connect_timeout` seconds for the TLS handshake and the head of its first request together.
        ssl_keyfile: file with the private key, if it is not in the same file. It must not be encrypted.
        forwarded_allow_ips: addresses of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted,
            separated by commas. By default no proxy is trusted.
        access_log: True to log every HTTP request. The log does not contain tokens.
        log_level: the lowest level to log.

    Raises:
        ConfigurationError: the arguments do not go together, `app` does not name an application, the certificate or its
            key cannot be used, or, with several workers, the port is not available.
        SystemExit: the server could not start, or its workers end again and again; the log says why.
    """
    options = Options(
        host=host,
        port=port,
        ws=ws,
        workers=workers,
        separate_workers=separate_workers,
        sticky_proxy=sticky_proxy,
        worker_timeout=worker_timeout,
        root_path=root_path,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        forwarded_allow_ips=forwarded_allow_ips,
        access_log=access_log,
        log_level=log_level,
    )
    options.check(app)
    from iogate.serving.logs import configure_logging
    from iogate.serving.process import choose_websockets, load, serve
    from iogate.serving.supervisor import supervise
    from iogate.serving.tls import check_tls

    check_tls(options.ssl_certfile, options.ssl_keyfile)
    configure_logging(options.log_level)
    options = choose_websockets(options)
    with suppress(KeyboardInterrupt):
        if isinstance(app, str) and options.workers > 1:
            supervise(app, options)
        else:
            serve(load(app), options)
