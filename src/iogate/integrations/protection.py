"""`protect`: one call that puts the gate in front of a server of python-socketio or Flask-SocketIO."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from iogate.auth import Auth, Principal
from iogate.auth.interface import is_auth
from iogate.auth.sources import may_read_cookies
from iogate.clock import SYSTEM, Clock
from iogate.errors import ConfigurationError, NotAuthenticated
from iogate.integrations.asynchronous import AsyncGlue
from iogate.integrations.glue import Glue, current
from iogate.integrations.layout import check
from iogate.integrations.threaded import ThreadedGlue
from iogate.revocation import Revocations
from iogate.server.namespaces.dispatch import forbid
from iogate.server.namespaces.scopes import Scopes, parse_scopes
from iogate.server.namespaces.socket import Socket
from iogate.server.origins import ANY
from iogate.server.server import Server, core_of
from iogate.server.settings import Limits

logger = logging.getLogger("iogate")

MAX_PING = 3600
"""Seconds: the longest `ping_interval` and `ping_timeout` that the gate uses, even if the server has longer ones."""

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Protection:
    """The application's interface to the gate in front of its server.

    Args:
        glue: the connection between the gate and the server.
        served: returns the `sid` of the client whose event is being handled; None where handlers receive the `sid`.
    """

    def __init__(self, glue: Glue, served: Callable[[], str] | None = None) -> None:
        self._glue = glue
        self._served = served

    def principal(self, sid: str | None = None) -> Principal:
        """Return the verified identity of a client, also in its connect and disconnect handlers.

        Args:
            sid: the id that handlers receive. In Flask-SocketIO, where handlers receive none, it may be left out: the
                default is the client whose event is being handled.

        Raises:
            NotAuthenticated: the client is a guest, or has disconnected.
            ConfigurationError: `sid` is left out, and the server is not a Flask-SocketIO server.
        """
        return self._socket(sid).principal

    def user(self, sid: str | None = None) -> Any:
        """Return the user object of a client, from `load_user`, or None without such a function and for a guest.

        Args:
            sid: the id of the client, as in `principal`.

        Raises:
            NotAuthenticated: the client has disconnected.
            ConfigurationError: `sid` is left out, and the server is not a Flask-SocketIO server.
        """
        return self._socket(sid).user

    def user_room(self, subject: str, issuer: str | None = None) -> str:
        """Return the name of the room that contains all sockets of a user: see `iogate.Server.user_room`.

        `sio.emit("message", text, room=gate.user_room("bob"))` sends a message to all of them.
        """
        return self._glue.io.user_room(subject, issuer)

    def revoke(self, **what: Any) -> Any:
        """Revoke tokens, and disconnect the sockets that use them: see `iogate.Server.revoke` for the arguments.

        With an `AsyncServer`, await it: `await gate.revoke(subject="ann")`. With the other servers, it returns when
        the revocation is in effect.
        """
        return self._glue.finish(self._glue.io.revoke(**what))

    def requires(self, scopes: Scopes) -> Callable[[Handler], Handler]:
        """Run an event handler only for clients whose token has these scopes. Others receive the event `forbidden`.

        Put it below the decorator that registers the handler:

            @sio.on("message")
            @gate.requires("chat:write")
            async def message(sid, text): ...

        Args:
            scopes: the scopes that are all required: one name, several names separated by spaces, or a list.
        """
        needed = parse_scopes(scopes)

        def decorate(handler: Handler) -> Handler:
            @functools.wraps(handler)
            def guarded(*args: Any, **kwargs: Any) -> Any:
                socket = self._caller()
                if socket is None or not needed <= socket.scopes:
                    return self._forbid(socket, needed)
                return handler(*args, **kwargs)

            @functools.wraps(handler)
            async def guarded_async(*args: Any, **kwargs: Any) -> Any:
                socket = self._caller()
                if socket is None or not needed <= socket.scopes:
                    return self._forbid(socket, needed)
                return await handler(*args, **kwargs)

            return guarded_async if asyncio.iscoroutinefunction(handler) else guarded  # type: ignore[return-value]

        return decorate

    def _socket(self, sid: str | None) -> Socket:
        if sid is None and self._served is None:
            raise ConfigurationError("which client? Give the sid that the handler got: principal(sid)")
        try:
            return self._glue.sockets[self._served() if sid is None and self._served is not None else str(sid)]
        except KeyError:
            raise NotAuthenticated("there is no client with this sid (any more)") from None

    def _caller(self) -> Socket | None:
        """Return the socket that sent the current event.

        The arguments of the handler do not identify it, because a client may send another client's id.
        """
        _, sid = current.get()
        return self._glue.sockets.get(sid)

    def _forbid(self, socket: Socket | None, needed: frozenset[str]) -> dict[str, Any] | None:
        event, _ = current.get()
        return None if socket is None else self._glue.at_the_gate(forbid, socket, event, needed)

    @property
    def __iogate__(self) -> Server:
        return self._glue.io  # For `iogate doctor` and `iogate token show`.

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {type(self._glue.sio).__name__}>"


def _of_flask() -> str:
    import flask

    return str(flask.request.sid)  # type: ignore[attr-defined]  # Flask-SocketIO sets this attribute.


def _origins(allowed: Any) -> Collection[str]:
    """Return the origins that python-engineio allows, as `cors_allowed_origins` of iogate's server.

    python-engineio checks origins itself; the gate uses them only where tokens may come from cookies. An empty list
    turns python-engineio's check off, and the results of a function are not known in advance, so both allow any origin.
    """
    if allowed is None:
        return ()
    if isinstance(allowed, str):
        return [allowed]
    return [ANY] if callable(allowed) or not allowed else allowed


def protect(
    server: Any,
    auth: Auth,
    *,
    scopes: Mapping[str, Scopes] | None = None,
    connect_timeout: float = 10.0,
    limits: Limits | None = None,
    revocations: Revocations | None = None,
    trusted_proxies: Collection[str] = (),
    clock: Clock = SYSTEM,
) -> Protection:
    """Put the gate in front of a python-socketio server, so that only clients it admits reach the server's handlers.

    The handlers do not change.

    Args:
        server: a `socketio.AsyncServer`, a `socketio.Server` with `async_mode="threading"`, or a
            `flask_socketio.SocketIO` with such a server, after `init_app`. No client may be connected to it yet.
        auth: the authenticator that verifies the token of every connection, such as `JWTAuth(...)`.
        scopes: the scopes that a token must have to enter a namespace, by the name of the namespace.
        connect_timeout: seconds from the opening of a transport to the verdict.
        limits: the limits for clients that have no identity yet, and per subject.
        revocations: the store of revoked tokens; by default in memory.
        trusted_proxies: networks of proxies whose `X-Forwarded-For` is trusted, such as `["10.0.0.0/8"]`.
        clock: the clock of the gate.

    Returns:
        An object that returns the identity of a client, requires scopes and revokes tokens.

    Raises:
        ConfigurationError: the gate cannot protect this server: it is of another kind or version, its methods were
            changed, a client is connected already, or an argument is not valid.
    """
    flask_extension = any(base.__module__.partition(".")[0] == "flask_socketio" for base in type(server).__mro__)
    sio = server.server if flask_extension else server
    threaded = check(sio, flask_extension=flask_extension)
    if not is_auth(auth):
        raise ConfigurationError("auth is JWTAuth(...): a server that is open to everybody needs no protection")
    if not isinstance(scopes or {}, Mapping):
        raise ConfigurationError('scopes are those of namespaces: write scopes={"/staff": "staff"}')
    io = Server(
        auth=auth,
        cors_allowed_origins=_origins(sio.eio.cors_allowed_origins) if any(map(may_read_cookies, auth.sources)) else (),
        connect_timeout=connect_timeout,
        ping_interval=min(sio.eio.ping_interval, MAX_PING),
        ping_timeout=min(sio.eio.ping_timeout, MAX_PING),
        max_payload=sio.eio.max_http_buffer_size,
        limits=limits,
        revocations=revocations,
        trusted_proxies=trusted_proxies,
        clock=clock,
    )
    core_of(io).revocations.open()  # Raise now if the revocations cannot be read.
    glue: Glue = (ThreadedGlue if threaded else AsyncGlue)(sio, io, scopes or {})
    if flask_extension:
        server.init_app = functools.partial(_init_app, server)
    return Protection(glue, _of_flask if flask_extension else None)


def _init_app(extension: Any, *args: Any, **kwargs: Any) -> None:
    """Replace the extension's `init_app`. The new server that it makes rejects every client until `protect` runs."""
    type(extension).init_app(extension, *args, **kwargs)
    extension.server.eio.on("connect", _unprotected)


def _unprotected(sid: str, environ: Any) -> str:
    logger.error("refused: this SocketIO was given another application, so call protect again after init_app")
    return "Unauthorized"
