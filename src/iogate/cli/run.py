"""`iogate run module:app`: serve an application with uvicorn, and end it so that clients notice nothing worse."""

from __future__ import annotations

import copy
import gc
import importlib
import logging
import socket
import sys
from typing import Any

import click
import uvicorn

from iogate.asgi import SocketIOApp
from iogate.asgi_types import ASGIApp
from iogate.errors import ConfigurationError
from iogate.server.server import SHUTDOWN_TIMEOUT, Server

ORDINARY = "websockets-sansio"
MAX_FRAME = 16 * 1024 * 1024
"""Bytes of a WebSocket frame where the application is not iogate's own: what uvicorn allows too."""


class _Uvicorn(uvicorn.Server):
    """uvicorn, which closes connections before it tells the application; here the application is asked first."""

    def __init__(self, config: uvicorn.Config, server: Server | None) -> None:
        super().__init__(config)
        self._server = server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        if self._server is not None:
            await self._server.shutdown(SHUTDOWN_TIMEOUT)
        await super().shutdown(sockets)


class _NotRefusals(logging.Filter):
    """Drops a line that uvicorn logs as an error when a WebSocket has properly been answered with a 400 or 403."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.msg != "ASGI callable returned without completing handshake."


def _log_config(level: str) -> dict[str, Any]:
    """Return uvicorn's configuration of logging, with iogate's own lines in it.

    At `debug` uvicorn would write down requests as they came, tokens included: it stays at `info`.
    """
    config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    config["filters"] = {"refusals": {"()": _NotRefusals}}
    config["handlers"]["default"]["filters"] = ["refusals"]
    config["loggers"]["iogate"] = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    quiet = "INFO" if level == "debug" else level.upper()
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        config["loggers"][name]["level"] = quiet
    return config


def _fast_lane() -> Any:
    try:
        from iogate.transports.fastlane import FastLane
    except ImportError as error:
        click.echo(f"The fast WebSocket lane is not there ({error}); the ordinary one is used.", err=True)
        return ORDINARY
    return FastLane


def load(target: str) -> tuple[ASGIApp, Server | None]:
    """Return the ASGI application that `module:attribute` names, and the server in it if it is one of ours.

    Raises:
        click.UsageError: there is no such thing, or it is no application.
    """
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise click.UsageError(f'{target!r} does not say what to serve: write "module:app"')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.split(".")[0] and error.name != module_name:
            raise  # The module is there, and imports one that is not.
        raise click.UsageError(f"there is no module {module_name!r} here (see --app-dir)") from None
    except ConfigurationError as error:
        raise click.ClickException(f"{module_name}: {error}") from None
    found = getattr(module, attribute, None)
    if isinstance(found, Server):
        found = found.asgi()
    if not callable(found):
        raise click.UsageError(f"{module_name} has no application {attribute!r}: write app = io.asgi() there")
    return found, found.server if isinstance(found, SocketIOApp) else None


@click.command()
@click.argument("target", metavar="MODULE:APP")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=3000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--app-dir", default=".", show_default=True, type=click.Path(file_okay=False), help="Where MODULE is found."
)
@click.option("--ssl-certfile", type=click.Path(exists=True, dir_okay=False), help="Certificate, for TLS.")
@click.option("--ssl-keyfile", type=click.Path(exists=True, dir_okay=False), help="Its private key.")
@click.option(
    "--forwarded-allow-ips",
    metavar="IPS",
    help="Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed. None, unless you say so.",
)
@click.option(
    "--lane",
    default="fast",
    show_default=True,
    type=click.Choice(["fast", "ordinary"]),
    help="What serves Socket.IO's WebSockets: picows, or uvicorn's own implementation.",
)
@click.option("--access-log/--no-access-log", default=False, show_default=True, help="Log every request.")
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["critical", "error", "warning", "info", "debug"]),
    help="The least level to log.",
)
def run(
    target: str,
    host: str,
    port: int,
    app_dir: str,
    ssl_certfile: str | None,
    ssl_keyfile: str | None,
    forwarded_allow_ips: str | None,
    lane: str,
    access_log: bool,
    log_level: str,
) -> None:
    """Serve MODULE:APP (what `io.asgi()` returned, a Server, or any ASGI application around it).

    SIGTERM and SIGINT end it: clients are told, and handlers have a few seconds to finish.
    """
    sys.path.insert(0, app_dir)
    app, server = load(target)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        ws=_fast_lane() if lane == "fast" else ORDINARY,
        ws_max_size=server.settings.max_payload if server is not None else MAX_FRAME,
        ws_ping_interval=None,  # Engine.IO has pings of its own.
        ws_per_message_deflate=False,
        proxy_headers=forwarded_allow_ips is not None,
        forwarded_allow_ips=forwarded_allow_ips,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        access_log=access_log,
        log_config=_log_config(log_level),
        timeout_graceful_shutdown=round(SHUTDOWN_TIMEOUT),
    )
    # What has been loaded stays; and a connection is a few dozen objects that no cycle holds: the default of a
    # collection every 700 new ones would look at all connections again and again while they come.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    uvicorn_ = _Uvicorn(config, server)
    uvicorn_.run()
    if not uvicorn_.started:
        raise SystemExit(3)
