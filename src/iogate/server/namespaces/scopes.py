"""Scopes as an application writes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from iogate.errors import ConfigurationError

Scopes = str | Iterable[str]
"""One scope, several with spaces between them (RFC 6749, section 3.3), or a list. All of them are required."""

_WRONG = 'scopes are names without spaces: write scopes="chat:write" or scopes=["a", "b"]'


def parse_scopes(scopes: Scopes) -> frozenset[str]:
    """Return the scopes that are meant.

    Raises:
        ConfigurationError: one of a list is no scope, or a text has none in it: who writes that means to protect
            something, and `""` would not.
    """
    given: Any = scopes  # What an application gives need not be what it should.
    if callable(given):
        raise ConfigurationError('scopes come between parentheses: write @require() or @require("chat:write")')
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise ConfigurationError(_WRONG)
    names = given.split() if isinstance(given, str) else list(given)
    if isinstance(given, str) and not names:
        raise ConfigurationError(_WRONG)
    if not all(isinstance(name, str) and name.split() == [name] for name in names):
        raise ConfigurationError(_WRONG)
    return frozenset(names)
