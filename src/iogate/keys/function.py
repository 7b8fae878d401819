"""Keys from a function of the application: for each token it says with which key it is to be checked."""

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
"""Takes the header and the claims of a token, both NOT proven; returns a secret, a PEM, a JWK, or None."""


class FunctionKeys(Fixed):
    """Ask a function for the key of each token.

    The function decides which key a token is checked with; whether the token is good is decided here, as ever: the
    key must be a sound one that goes with an accepted algorithm. A function that raises, takes longer than five
    seconds or returns what is no key has refused, as `unavailable`; that is logged.

    Args:
        function: the function; it may be `async def`.
    """

    __slots__ = ("_asynchronous", "_function")

    def __init__(self, function: KeyFunction) -> None:
        self._function = function
        call = getattr(function, "__call__", None)  # noqa: B004  # of an object, which may be `async def` too
        self._asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)

    def find(self, token: Compact, algorithm: str) -> Key | None:
        """Return the key that the function names, if it says so at once."""
        if self._asynchronous:
            return None
        arguments = _arguments(token)
        try:
            value = self._function(*arguments)
        except Exception as error:
            raise _refusal(error) from None
        if inspect.iscoroutine(value):
            # Such as a lambda that calls an `async def`: from now on it is known to be one.
            value.close()
            self._asynchronous = True
            return None
        return _key(value, algorithm)

    async def fetch(self, token: Compact, algorithm: str) -> Key:
        """Return the key that the function names."""
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
        # Making a verifier takes as long as using it, so that a key which comes again is kept.
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
