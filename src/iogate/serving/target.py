"""Importing the object that `module:app` names."""

from __future__ import annotations

import importlib
from typing import Any

from iogate.errors import ConfigurationError


class NoTarget(ConfigurationError):
    """The name has the wrong form, or there is no such module or attribute."""


def named(name: str) -> Any:
    """Import the object that a name of the form `module:app` refers to, and return it.

    Raises:
        NoTarget: the name has another form, there is no such module, or the module does not have this attribute.
        ConfigurationError: the module exists, and iogate rejects its configuration.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise NoTarget(f'{name!r} does not say what to serve: write "module:app"')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.split(".")[0] and error.name != module_name:
            raise  # The module exists, but imports one that does not.
        raise NoTarget(f"there is no module {module_name!r} here (see --app-dir)") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{module_name}: {error}") from None
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise NoTarget(f"{module_name} has no application {attribute!r}: write app = io.asgi() there") from None
