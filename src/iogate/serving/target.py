"""What `module:app` names: the module is imported, as Python imports any."""

from __future__ import annotations

import importlib
from typing import Any

from iogate.errors import ConfigurationError


class NoTarget(ConfigurationError):
    """There is nothing under the name that was given."""


def named(name: str) -> Any:
    """Return what a name of the form `module:app` names.

    Raises:
        NoTarget: it has another form, or there is no such module, or nothing of this name in it.
        ConfigurationError: the module is there, and is not configured well.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise NoTarget(f'{name!r} does not say what to serve: write "module:app"')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.split(".")[0] and error.name != module_name:
            raise  # The module is there, and imports one that is not.
        raise NoTarget(f"there is no module {module_name!r} here (see --app-dir)") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{module_name}: {error}") from None
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise NoTarget(f"{module_name} has no application {attribute!r}: write app = io.asgi() there") from None
