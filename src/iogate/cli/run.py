"""`iogate run module:app`: `iogate.run` from the command line."""

from __future__ import annotations

import sys
from typing import Any

import click

from iogate.errors import ConfigurationError
from iogate.serving import run as serve


@click.command()
@click.argument("target", metavar="MODULE:APP")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=3000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--app-dir", default=".", show_default=True, type=click.Path(file_okay=False), help="Where MODULE is found."
)
@click.option("--ssl-certfile", metavar="FILE", help="Certificate in PEM format, for TLS.")
@click.option("--ssl-keyfile", metavar="FILE", help="Its private key in PEM format, not encrypted.")
@click.option(
    "--forwarded-allow-ips",
    metavar="IPS",
    help="Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed. None, unless you say so.",
)
@click.option(
    "--ws",
    default="picows",
    show_default=True,
    type=click.Choice(["picows", "websockets"]),
    help="The library that serves Socket.IO's WebSockets. picows is faster.",
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes that share the port.")
@click.option(
    "--separate-workers",
    is_flag=True,
    help="The application lives with workers that share no broadcasts, rooms, revocations or limits.",
)
@click.option(
    "--sticky-proxy",
    is_flag=True,
    help="A proxy in front keeps each client on one worker: they listen on PORT, PORT + 1 ..., and serve polling too.",
)
@click.option(
    "--worker-timeout",
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="A worker that does not answer for this long is killed and replaced; 0 turns this off.",
)
@click.option("--root-path", default="", metavar="PATH", help="What a proxy in front has taken away from the URLs.")
@click.option("--access-log/--no-access-log", default=False, show_default=True, help="Log every request.")
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["critical", "error", "warning", "info", "debug"]),
    help="The least level to log.",
)
def run(target: str, app_dir: str, **options: Any) -> None:
    """Serve MODULE:APP (what `io.asgi()` returned, a Server, or any ASGI application around it).

    SIGTERM and SIGINT end it: clients are disconnected, and handlers have a few seconds to finish. During the start
    they cancel the start.
    """
    sys.path.insert(0, app_dir)
    try:
        serve(target, **options)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None
