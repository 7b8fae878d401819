"""Finds out whether uvicorn serves a `Server` directly, without other code in front of it that could deny a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from uvicorn.middleware.message_logger import MessageLoggerMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from iogate.asgi import SocketIOApp
from iogate.clock import SYSTEM
from iogate.server.core import Core
from iogate.server.session.addresses import Proxies
from iogate.server.session.deadlines import Deadlines
from iogate.server.session.heads import HEAD_TIMEOUT, Heads
from iogate.server.session.pending import PendingLimiter
from iogate.server.settings import Limits

if TYPE_CHECKING:
    from uvicorn.config import Config

_OF_UVICORN: dict[type[Any], object] = {
    kind: kind.__call__ for kind in (ProxyHeadersMiddleware, MessageLoggerMiddleware)
}
"""The middleware that uvicorn itself puts around an application, with its original code."""


def _code() -> tuple[object, ...]:
    return SocketIOApp.__call__, SocketIOApp._serve, SocketIOApp._websocket


_CODE = _code()


Unwrapped = tuple[Core | None, ProxyHeadersMiddleware | None]


def unwrapped(app: Any) -> Unwrapped:
    """Return the server of the application, and uvicorn's middleware that reads the headers of proxies.

    The server is None unless the application is exactly a `SocketIOApp`, with only uvicorn's own middleware around it:
    a subclass, another middleware or a patched method may deny a request that the server would serve. Types are
    compared by identity, because an object in front can fake any attribute.
    """
    proxies = None
    while _OF_UVICORN.get(type(app)) is type(app).__call__:
        if type(app) is ProxyHeadersMiddleware:
            if proxies is not None:
                return None, proxies  # The second would see the address that the first has set.
            proxies = app
        app = app.app
    known = type(app) is SocketIOApp and _code() == _CODE
    return (app.core if known else None), proxies


def why_unknown(app: Any) -> str | None:
    """Return why `unwrapped` does not know the server, for the log; None if it does."""
    if unwrapped(app)[0] is not None:
        return None
    if type(app) is SocketIOApp:
        return "SocketIOApp has been patched"
    return f"the application is a {type(app).__module__}.{type(app).__qualname__}, and not what io.asgi() returns"


_HEADS: WeakKeyDictionary[Config, Heads] = WeakKeyDictionary()


def heads(config: Config) -> Heads:
    """Return the `Heads` that count the connections of this application: its server's, or one per configuration."""
    return heads_of(unwrapped(config.loaded_app)[0], config)


def heads_of(core: Core | None, config: Config) -> Heads:
    """Return the same where the server is known already."""
    if core is not None:
        return core.heads
    found = _HEADS.get(config)
    if found is None:
        found = _HEADS[config] = Heads(PendingLimiter(Limits()), Deadlines(SYSTEM), HEAD_TIMEOUT, Proxies(()))
    return found


def is_proxy(config: Config, peer: str | None) -> bool:
    """Return True if uvicorn trusts the forwarding headers of this peer (`forwarded_allow_ips`)."""
    app = config.loaded_app
    return type(app) is ProxyHeadersMiddleware and peer in app.trusted_hosts
