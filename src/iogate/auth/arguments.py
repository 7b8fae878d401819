"""Checks of configuration arguments. Each error message says what to write instead."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from iogate.auth.sources import Function, Source
from iogate.errors import ConfigurationError


def names(argument: str, value: object, example: str, *, empty: bool = False) -> list[str]:
    """Return a list of names. Reject a plain string, because iterating over it would return its characters."""
    if isinstance(value, str) or not isinstance(value, Collection):
        raise ConfigurationError(f"{argument} is a list of names: write {argument}={example}")
    found = list(value)
    if not (found or empty) or not all(isinstance(name, str) and name for name in found):
        raise ConfigurationError(f"{argument} has no name, or one that is no text: write {argument}={example}")
    return found


def one_or_more(argument: str, value: object) -> frozenset[str]:
    """Return the names in a list, or the one name of a plain string."""
    return frozenset(
        names(argument, [value] if isinstance(value, str) else value, f'"..." or {argument}=["...", "..."]')
    )


def seconds(argument: str, value: Any, least: float, most: float = float("inf")) -> float:
    """Return a number of seconds, or raise `ConfigurationError` if it is not from `least` to `most`."""
    if type(value) not in (int, float) or not least <= value <= most or value == float("inf"):
        limit = "" if most == float("inf") else f" to {most}"
        raise ConfigurationError(f"{argument} is a number of seconds from {least}{limit}")
    return float(value)


def audiences_of(value: object, issuers: frozenset[str] | None) -> frozenset[str] | Mapping[str, frozenset[str]] | None:
    """Return the names of this server, or a mapping from each issuer to its names there, or None."""
    if not isinstance(value, Mapping):
        return None if value is None else one_or_more("audience", value)
    if frozenset(value) != issuers:
        raise ConfigurationError("audience is a mapping: it has each of the accepted issuers, and no other")
    return {issuer: one_or_more("audience", found) for issuer, found in value.items()}


def sources_of(value: object, *, asynchronous: bool = False) -> tuple[Source, ...]:
    """Return the sources of tokens, with functions wrapped in `Function`.

    Args:
        value: sources, and functions that return the token of a request.
        asynchronous: if True, such a function may be `async def`.
    """
    if isinstance(value, str) or not isinstance(value, Collection) or not value:
        raise ConfigurationError(
            'sources is a list of ways to give a token: write sources=[AuthPayload("token"), BearerHeader()]'
        )
    sources = tuple(Function(source) if inspect.isroutine(source) else source for source in value)
    for index, source in enumerate(sources):
        if isinstance(source, Function) and source.is_async and not asynchronous:
            raise ConfigurationError(
                "the sources of JWTAuth are read while a client connects, and do not wait: make the function a plain"
                " one, or give it to what guards your HTTP endpoints, sources=[...]"
            )
        if isinstance(source, type) or not callable(getattr(source, "read", None)):
            raise ConfigurationError('sources has what is no source: write AuthPayload("token") or BearerHeader()')
        if source in sources[:index]:
            raise ConfigurationError(f"sources has {source!r} twice: its token would always count as two")
    return sources


def types_of(value: object, profile: object, issuers: object, audiences: object) -> list[str]:
    """Return the accepted values of `typ`: the given ones, or the one of the profile."""
    types = names("token_types", value, '("JWT", "at+jwt")')
    if profile is None:
        return types
    if profile != "access-token":
        raise ConfigurationError(f'profile is {profile!r}: write profile="access-token", or leave it out')
    if issuers is None or audiences is None:
        raise ConfigurationError('profile="access-token" compares issuer and audience: give both')
    if types != ["JWT", "at+jwt"]:
        raise ConfigurationError('profile="access-token" accepts at+jwt alone: leave token_types out')
    return ["at+jwt"]
