"""Logging of a server process."""

from __future__ import annotations

import copy
import logging
import logging.config

import uvicorn.config

from iogate.printable import SafeRecords


class _NotRefusals(logging.Filter):
    """A filter that drops records which are logged as errors but do not report errors.

    uvicorn logs an error when a WebSocket request was correctly answered with 400 or 403. Starlette logs a traceback
    when a start was cancelled, for example by a signal.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        return message != "ASGI callable returned without completing handshake." and not message.rstrip().endswith(
            "asyncio.exceptions.CancelledError"
        )


def configure_logging(level: str) -> None:
    """Set up logging as uvicorn does, for uvicorn and for iogate. The log does not contain tokens.

    At `debug`, uvicorn would log requests as they arrived, with the tokens in them, so uvicorn stays at `info`.

    Args:
        level: the lowest level to log.
    """
    config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    config["filters"] = {"refusals": {"()": _NotRefusals}, "safe": {"()": SafeRecords}}
    config["handlers"]["default"]["filters"] = ["refusals", "safe"]
    config["handlers"]["access"]["filters"] = ["safe"]
    config["loggers"]["iogate"] = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    quiet = "INFO" if level == "debug" else level.upper()
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        config["loggers"][name]["level"] = quiet
    logging.config.dictConfig(config)
