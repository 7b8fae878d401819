"""Which web pages may connect: an allow-list of origins, and the page's own server if there is none.

A browser tells the origin of the page with every WebSocket and every cross-origin request, and a page cannot forge
it (RFC 6454, section 7). A client that is no browser sends none, and is not refused for that: it could send any.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from iogate.errors import ConfigurationError

ANY = "*"

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"https?://[^/?#@*\s]*[^/?#@*\s:]")


class Origins:
    """The origins that may connect.

    Args:
        allowed: origins such as `https://app.example.com`, or `["*"]` for any. None in the list: the same origin only.

    Raises:
        ConfigurationError: one is no origin.
    """

    __slots__ = ("allowed", "any")

    def __init__(self, allowed: Collection[str]) -> None:
        if not isinstance(allowed, Collection):
            raise ConfigurationError('the allowed origins are a list, like ["https://app.example.com"]')
        if isinstance(allowed, str):
            raise ConfigurationError(f'the allowed origins are a list: write ["{allowed}"]')
        self.any = ANY in allowed
        self.allowed = frozenset(_checked(origin) for origin in allowed if origin != ANY)

    @property
    def listed(self) -> bool:
        """Whether the origins that may connect are named, one by one."""
        return bool(self.allowed) and not self.any

    def allow(self, origin: str, *, host: str, secure: bool) -> bool:
        """Say whether a page of this origin may connect.

        Args:
            origin: the `Origin` header.
            host: the `Host` header of the same request.
            secure: whether the request came over TLS.
        """
        if self.any or origin in self.allowed:
            return True
        own = f"{'https' if secure else 'http'}://{host}"
        return not self.allowed and _parts(origin) is not None and _parts(origin) == _parts(own)


def _checked(origin: object) -> str:
    text = origin if isinstance(origin, str) and _ORIGIN.fullmatch(origin) else ""
    parts = _parts(text)
    # A browser writes no default port: with one the origin would never match.
    if parts is None or text != text.lower() or text.endswith(f":{_DEFAULT_PORTS[parts[0]]}"):
        raise ConfigurationError(
            f"{origin!r} is no origin: write scheme and host in lower case, and the port unless it is the default,"
            ' without a path, like "https://app.example.com"'
        )
    return text


def _parts(origin: str) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(origin)
        port = _DEFAULT_PORTS.get(parts.scheme) if parts.port is None else parts.port
    except ValueError:
        return None
    if not parts.hostname or port is None or parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return parts.scheme, parts.hostname, port
