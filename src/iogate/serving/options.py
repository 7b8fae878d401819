"""The options of `iogate.run`, and the checks of whether they go together."""

from __future__ import annotations

import math
import sys
from typing import Literal, get_args

import msgspec

from iogate.errors import ConfigurationError

WebSockets = Literal["picows", "websockets"]
LogLevel = Literal["critical", "error", "warning", "info", "debug"]

_SEPARATE = """\
{workers} workers are {workers} servers that do not know of each other:
  - emit(), also to a room, reaches the sockets of its own worker only;
  - revoke() ends those only, and the others go on accepting the token (with SQLiteRevocations until they restart);
  - Limits are counted by each worker for itself.
Take one worker; or, if your application lives with that, say so: --separate-workers (separate_workers=True)."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `iogate.run`, whose docstring explains each of them."""

    host: str
    port: int
    ws: str
    workers: int
    separate_workers: bool
    sticky_proxy: bool
    worker_timeout: float
    root_path: str
    ssl_certfile: str | None
    ssl_keyfile: str | None
    forwarded_allow_ips: str | None
    access_log: bool
    log_level: str

    def check(self, app: object) -> None:
        """Check the options for an application.

        Args:
            app: the argument `app` of `iogate.run`.

        Raises:
            ConfigurationError: an option is not valid, or two do not go together.
        """
        if not self.host:
            raise ConfigurationError('host is empty: write "127.0.0.1", or "0.0.0.0" for every address of the machine')
        if type(self.port) is not int or not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port is {self.port!r}: it is a whole number from 0, a free one, to 65535")
        if self.ws not in get_args(WebSockets):
            raise ConfigurationError(f'ws is {self.ws!r}: write "picows" or "websockets"')
        if self.log_level not in get_args(LogLevel):
            raise ConfigurationError(f"log_level is {self.log_level!r}: write one of {', '.join(get_args(LogLevel))}")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ConfigurationError(f'root_path is {self.root_path!r}: write it like "/chat"')
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ConfigurationError("ssl_keyfile is the key of a certificate: give ssl_certfile too")
        self._check_workers(app)

    def _check_workers(self, app: object) -> None:
        if type(self.workers) is not int or self.workers < 1:
            raise ConfigurationError(f"workers is {self.workers!r}: it is a whole number, at least 1")
        timeout = self.worker_timeout
        if type(timeout) not in (int, float) or not (timeout == 0 or 1 <= timeout < math.inf):
            raise ConfigurationError(
                f"worker_timeout is {timeout!r}: it is a number of seconds, at least 1; 0 turns it off"
            )
        if self.workers == 1:
            if self.sticky_proxy:
                raise ConfigurationError("sticky_proxy is for several workers, and there is one: set workers too")
            return
        if sys.platform == "win32":
            raise ConfigurationError("there is one worker on Windows: leave workers out")
        if not isinstance(app, str):
            raise ConfigurationError(
                'each worker imports the application for itself: name it, iogate.run("module:app", workers=...)'
            )
        if not self.separate_workers:
            raise ConfigurationError(_SEPARATE.format(workers=self.workers))
        if self.sticky_proxy and self.port + self.workers - 1 > 65535:
            raise ConfigurationError(f"{self.workers} workers need a port each: from {self.port} there are too few")
