"""What uvicorn serves: a `Server` with nothing in front of it that could decide otherwise, or something unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from uvicorn.middleware.message_logger import MessageLoggerMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from iogate.asgi import SocketIOApp
from iogate.clock import SYSTEM
from iogate.server.deadlines import Deadlines
from iogate.server.heads import HEAD_TIMEOUT, Heads
from iogate.server.limits import Limits, Pending, Proxies
from iogate.server.server import Server

if TYPE_CHECKING:
    from uvicorn.config import Config

_OF_UVICORN: dict[type[Any], object] = {
    kind: kind.__call__ for kind in (ProxyHeadersMiddleware, MessageLoggerMiddleware)
}
"""The middleware that uvicorn itself puts around an application, with its code as it was imported."""


def _code() -> tuple[object, ...]:
    return SocketIOApp.__call__, SocketIOApp._serve, SocketIOApp._websocket


_CODE = _code()


def unwrapped(app: Any) -> tuple[Server | None, ProxyHeadersMiddleware | None]:
    """Return the server that the application is, and uvicorn's middleware that reads the headers of proxies.

    The server is None unless the application is exactly a `SocketIOApp`, with nothing around it but uvicorn's own
    middleware: a subclass, another middleware or a patched method may deny what the server would serve. They are
    compared by identity, since whatever stands in front can claim any attribute.
    """
    proxies = None
    while _OF_UVICORN.get(type(app)) is type(app).__call__:
        if type(app) is ProxyHeadersMiddleware:
            if proxies is not None:
                return None, proxies  # The second one would be asked about what the first one says.
            proxies = app
        app = app.app
    known = type(app) is SocketIOApp and _code() == _CODE
    return (app.server if known else None), proxies


def why_unknown(app: Any) -> str | None:
    """Return what stands between a client and the server, in words for the log; None if nothing does."""
    if unwrapped(app)[0] is not None:
        return None
    if type(app) is SocketIOApp:
        return "SocketIOApp has been patched"
    return f"the application is a {type(app).__module__}.{type(app).__qualname__}, and not what io.asgi() returns"


_HEADS: WeakKeyDictionary[Config, Heads] = WeakKeyDictionary()


def heads(config: Config) -> Heads:
    """Return where the connections of this application are counted: its server's place, or else one for all of them."""
    server, _ = unwrapped(config.loaded_app)
    if server is not None:
        return server.heads
    found = _HEADS.get(config)
    if found is None:
        found = _HEADS[config] = Heads(Pending(Limits()), Deadlines(SYSTEM), HEAD_TIMEOUT, Proxies(()))
    return found


def is_proxy(config: Config, peer: str | None) -> bool:
    """Return True if uvicorn believes what this peer says of its clients (`forwarded_allow_ips`)."""
    app = config.loaded_app
    return type(app) is ProxyHeadersMiddleware and peer in app.trusted_hosts
