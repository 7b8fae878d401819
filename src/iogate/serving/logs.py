"""The log of a process that serves."""

from __future__ import annotations

import copy
import logging
import logging.config

import uvicorn.config

from iogate.printable import SafeRecords


class _NotRefusals(logging.Filter):
    """Drops lines that are logged as errors but are not.

    uvicorn logs an error when a WebSocket request was correctly answered with 400 or 403. Starlette logs a start that
    was cancelled, for example by a signal.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        return message != "ASGI callable returned without completing handshake." and not message.rstrip().endswith(
            "asyncio.exceptions.CancelledError"
        )


def configure_logging(level: str) -> None:
    """Set up logging as uvicorn does, including iogate's own lines. No line contains a token.

    At `debug` uvicorn would log requests as they arrived, so uvicorn stays at `info`.

    Args:
        level: the least level to log.
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
