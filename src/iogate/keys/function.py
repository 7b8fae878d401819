"""Keys from a function of the application, which returns the key of each token."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from iogate.auth import jws
from iogate.auth.jws import Compact
from iogate.auth.keys import ALGORITHMS, Verifier, from_public_key, from_secret
from iogate.auth.keyset import Key
from iogate.errors import AuthUnavailable, InvalidToken
from iogate.keys.fixed import NO_KEY, Fixed
from iogate.keys.refreshed import TIMEOUT

logger = logging.getLogger("iogate")

KeyFunction = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
"""Takes the header and the claims of a token, both NOT verified; returns a secret, a PEM, a JWK, or None."""


class FunctionKeys(Fixed):
    """A source that calls a function for the key of each token.

    The function only selects the key. The token is verified as usual, and the key must be strong enough and fit the
    algorithm of the token. If the function raises, returns a value that is not a key, or is `async def` and takes
    longer than five seconds, an error is logged and the token is rejected as `unavailable`. If it raises `InvalidToken`
    or `AuthUnavailable`, that is the reason for the rejection, and no error is logged.

    Args:
        function: the function; it may be `async def`.
    """

    __slots__ = ("_asynchronous", "_function")

    def __init__(self, function: KeyFunction) -> None:
        self._function = function
        call = getattr(function, "__call__", None)  # noqa: B004  # an object's `__call__` may be `async def` too
        self._asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)

    def find(self, token: Compact, algorithm: str) -> Key | None:
        """Return the key of the token, or None if the function is `async def`."""
        if self._asynchronous:
            return None
        arguments = _arguments(token)
        try:
            value = self._function(*arguments)
        except Exception as error:
            raise _refusal(error) from None
        if inspect.iscoroutine(value):
            # The function is, for example, a lambda that calls an `async def`. Await its result from now on.
            value.close()
            self._asynchronous = True
            return None
        return _key(value, algorithm)

    async def fetch(self, token: Compact, algorithm: str) -> Key:
        """Await the function, and return the key of the token."""
        arguments = _arguments(token)
        try:
            async with asyncio.timeout(TIMEOUT):
                value = await self._function(*arguments)
        except Exception as error:
            raise _refusal(error) from None
        return _key(value, algorithm)

    def __repr__(self) -> str:
        return f"<keys of {getattr(self._function, '__qualname__', type(self._function).__name__)}>"


def _arguments(token: Compact) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return MappingProxyType(token.header), MappingProxyType(jws.members(token.payload, "claims"))


def _refusal(error: Exception) -> Exception:
    if isinstance(error, (InvalidToken, AuthUnavailable)):
        return error
    logger.error("the key function failed", exc_info=error)
    return AuthUnavailable("the key function failed")


def _key(value: object, algorithm: str) -> Key:
    if value is None:
        raise InvalidToken(NO_KEY)
    try:
        # Creating a verifier takes as long as using it, so cache it. A JWK is a mapping, which cannot be hashed.
        make = _verifiers if isinstance(value, (str, bytes)) else _verifiers.__wrapped__
        return Key(make(value, algorithm))
    except Exception as error:
        logger.error("the key function returned what is no key for %s: %s", algorithm, error)
        raise AuthUnavailable("the key function returned what is no key") from None


@lru_cache(maxsize=256)
def _verifiers(value: Any, algorithm: str) -> dict[str, Verifier]:
    if ALGORITHMS[algorithm].family == "secret":
        return from_secret(value, [algorithm])
    return from_public_key(value, [algorithm])
