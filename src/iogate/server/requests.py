"""What a request for the server's path may do, before a transport takes it: origin, grammar, whose session, limits.

Every HTTP and WebSocket implementation asks here, so one place decides.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from iogate.asgi_types import Scope
from iogate.auth import Auth
from iogate.errors import AuthError
from iogate.protocol.engineio.handshake import RequestError, check_request
from iogate.server.attempts import CredentialRequest
from iogate.server.handshake import Handshake, hide
from iogate.server.identity import named_in

if TYPE_CHECKING:
    from iogate.server.connection import Connection
    from iogate.server.server import Server

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]+)(?::[0-9]*)?")
"""The name or address of a host, and perhaps its port (RFC 3986, section 3.2.2, and RFC 9110, section 7.2)."""
RETRY_AFTER = 5
"""Seconds after which a client may come again for which there was no room."""


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer that is known without a transport.

    Args:
        status: the status.
        body: the body.
        headers: the header fields, as ASGI writes them.
    """

    status: int
    body: bytes = b""
    headers: Headers = []

    @classmethod
    def to(cls, error: RequestError, headers: Headers | None = None) -> Answer:
        """Return the answer to a request that breaks the rules of Engine.IO."""
        return cls(error.status, error.body, [JSON, *(headers or [])])


class Request(msgspec.Struct, frozen=True):
    """A request that a transport may take.

    Args:
        handshake: what the client said.
        cors: the header fields that let a page of another origin read the answer.
    """

    handshake: Handshake
    cors: Headers


def is_for(server: Server, scope: Scope) -> bool:
    """Say whether a request is for the server's path, also where it is mounted below another."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.removesuffix("/") == server.settings.path


def examine(server: Server, scope: Scope) -> Request | Answer:
    """Return the request if a transport may take it, or else the answer to it.

    Args:
        server: the server.
        scope: of an HTTP request or a WebSocket (ASGI). Credentials in its query string are taken out, for whoever
            logs it.
    """
    hide(scope, server.hidden_parameters)
    try:
        handshake = Handshake.of_scope(scope)
    except ValueError:
        return Answer.to(RequestError.BAD_REQUEST)
    if not _has_one_host(handshake, scope.get("http_version", "1.1")):
        return Answer.to(RequestError.BAD_REQUEST)
    handshake.address = server.proxies.client(handshake.address, handshake.headers)
    cors = _cors(server, handshake)
    if cors is None:
        return Answer.to(RequestError.FORBIDDEN)
    if scope.get("method") == "OPTIONS":
        return Answer(204, headers=cors + _preflight(handshake))
    error = check_request(scope.get("method", "GET"), handshake.query, websocket=scope["type"] == "websocket")
    if error is not None:
        return Answer.to(error, cors)
    if _is_of_somebody_else(server, handshake):
        return Answer.to(RequestError.FORBIDDEN, cors)
    return _no_room(server, handshake, cors) or Request(handshake, cors)


def _has_one_host(handshake: Handshake, version: str) -> bool:
    """Return False if `Host` is missing, invalid or duplicated, which joins its values (RFC 9112, section 3.2)."""
    host = handshake.headers.get("host")
    return version == "1.0" if host is None else _HOST.fullmatch(host) is not None


def upgrade_target(server: Server, handshake: Handshake) -> Connection | Answer | None:
    """Return the session that a WebSocket is to take over; None if it begins one of its own."""
    sid = handshake.query.get("sid")
    if sid is None:
        return None
    connection = server.connections.get(sid)
    if connection is None:
        return Answer.to(RequestError.UNKNOWN_SID)
    return connection if connection.transport.upgradable else Answer.to(RequestError.BAD_REQUEST)


def _is_of_somebody_else(server: Server, handshake: Handshake) -> bool:
    """Say whether a request for a session brings the credential of another person than whose session it is.

    One that brings none is not refused: a browser sends no header with a WebSocket, and the session's id, which is
    secret, is what it has. So nobody gains anything by a token that only names the right person: none is verified here.
    """
    sid = handshake.query.get("sid")
    if sid is None or server.auth is None:
        return False
    connection = server.connections.get(sid) or server.lingering.get(sid)
    if connection is None:
        return False
    shown, first = _shown(server.auth, handshake), _shown(server.auth, connection.handshake)
    if shown is None or shown == first:
        return False
    if connection.identity is not None:
        return not (isinstance(shown, str) and connection.identity.is_named_in(shown))
    return isinstance(first, str) and not (isinstance(shown, str) and named_in(shown) == named_in(first))


def _shown(auth: Auth, handshake: Handshake) -> str | type[Exception] | None:
    """Return the token of a request, or what is wrong with what it has in its place."""
    try:
        return auth.credential(CredentialRequest(handshake, None))
    except Exception as error:  # A source may be a function of the application's; the gate will say what it thinks.
        return type(error)


def _no_room(server: Server, handshake: Handshake, cors: Headers) -> Answer | None:
    if "sid" in handshake.query:
        return None
    if server.closing:
        return Answer(503, headers=cors)
    try:
        server.pending.check(handshake.address)
    except AuthError as refusal:
        retry = (b"retry-after", b"%d" % RETRY_AFTER)
        return Answer(refusal.status, msgspec.json.encode(refusal.data), [JSON, retry, *cors])
    return None


def _cors(server: Server, handshake: Handshake) -> Headers | None:
    origin = handshake.headers.get("origin")
    if origin is None:
        return []
    if not server.origins.allow(origin, host=handshake.headers.get("host", ""), secure=handshake.secure):
        return None
    if server.origins.any:
        return [(b"access-control-allow-origin", b"*")]
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"vary", b"Origin"),
    ]


def _preflight(handshake: Handshake) -> Headers:
    requested = handshake.headers.get("access-control-request-headers", "")
    return [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", requested.encode("latin-1")),
        (b"access-control-max-age", b"600"),
    ]
