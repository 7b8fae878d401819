"""Checks a request for the server's path before a transport gets it: origin, grammar, session, limits.

All HTTP and WebSocket implementations call `admit_request`, so these rules are in one place.
"""

from __future__ import annotations

import re

import msgspec

from iogate.asgi_types import Scope
from iogate.auth import Auth
from iogate.errors import AuthError
from iogate.protocol.engineio.handshake import RequestError, check_request
from iogate.server.core import Core
from iogate.server.gate.attempts import CredentialRequest
from iogate.server.gate.connection import Connection
from iogate.server.identity import unverified_subject
from iogate.server.session.handshake import Handshake, hide

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]+)(?::[0-9]*)?")
"""The name or address of a host, and perhaps its port (RFC 3986, section 3.2.2, and RFC 9110, section 7.2)."""
RETRY_AFTER = 5
"""Seconds after which a client may retry if too many transports wait for a verdict."""


class Answer(msgspec.Struct, frozen=True):
    """An HTTP response to a request that no transport gets.

    Args:
        status: the status code.
        body: the body.
        headers: the header fields, in the format of ASGI.
    """

    status: int
    body: bytes = b""
    headers: Headers = []

    @classmethod
    def to(cls, error: RequestError, headers: Headers | None = None) -> Answer:
        """Return the response to a request that violates the rules of Engine.IO."""
        return cls(error.status, error.body, [JSON, *(headers or [])])


class Request(msgspec.Struct, frozen=True):
    """A request that a transport may process.

    Args:
        handshake: the request's data.
        cors: the header fields that allow a page of another origin to read the response.
    """

    handshake: Handshake
    cors: Headers


def is_for(core: Core, scope: Scope) -> bool:
    """Return True if a request is for the server's path, also if the application is mounted below another path."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.removesuffix("/") == core.settings.path


def admit_request(core: Core, scope: Scope) -> Request | Answer:
    """Return the request if a transport may process it; otherwise the response to it.

    Args:
        core: the parts of the server.
        scope: an HTTP or WebSocket scope (ASGI). Credentials are removed from its query string, because the ASGI
            server may log it.
    """
    hide(scope, core.hidden_parameters)
    try:
        handshake = Handshake.of_scope(scope)
    except ValueError:
        return Answer.to(RequestError.BAD_REQUEST)
    if not _has_one_host(handshake, scope.get("http_version", "1.1")):
        return Answer.to(RequestError.BAD_REQUEST)
    handshake.address = core.proxies.client(handshake.address, handshake.headers)
    cors = _cors(core, handshake)
    if cors is None:
        return Answer.to(RequestError.FORBIDDEN)
    if scope.get("method") == "OPTIONS":
        return Answer(204, headers=cors + _preflight(handshake))
    error = check_request(scope.get("method", "GET"), handshake.query, websocket=scope["type"] == "websocket")
    if error is not None:
        return Answer.to(error, cors)
    if _is_session_hijack(core, handshake):
        return Answer.to(RequestError.FORBIDDEN, cors)
    return _check_capacity(core, handshake, cors) or Request(handshake, cors)


def _has_one_host(handshake: Handshake, version: str) -> bool:
    """Return False if `Host` is missing, invalid or duplicated, which joins its values (RFC 9112, section 3.2)."""
    host = handshake.headers.get("host")
    return version == "1.0" if host is None else _HOST.fullmatch(host) is not None


def upgrade_target(core: Core, handshake: Handshake) -> Connection | Answer | None:
    """Return the session that a WebSocket upgrades; None if the WebSocket opens a new session."""
    sid = handshake.query.get("sid")
    if sid is None:
        return None
    connection = core.sessions.table.get(sid)
    if connection is None:
        return Answer.to(RequestError.UNKNOWN_SID)
    return connection if connection.transport.upgradable else Answer.to(RequestError.BAD_REQUEST)


def _is_session_hijack(core: Core, handshake: Handshake) -> bool:
    """Return True if a request for a session has the credential of another user than the session's.

    A request without a credential is accepted: a browser sends no header with a WebSocket, so the session's id, which
    is secret, is all that it has. Therefore no token is verified here: a token that only names the right user gains
    nothing over no token.
    """
    sid = handshake.query.get("sid")
    if sid is None or core.auth is None:
        return False
    connection = core.sessions.find(sid)
    if connection is None:
        return False
    sent, first = _credential_of(core.auth, handshake), _credential_of(core.auth, connection.handshake)
    if sent is None or sent == first:
        return False
    if connection.identity is not None:
        return not (isinstance(sent, str) and connection.identity.may_own(sent))
    return isinstance(first, str) and not (
        isinstance(sent, str) and unverified_subject(sent) == unverified_subject(first)
    )


def _credential_of(auth: Auth, handshake: Handshake) -> str | type[Exception] | None:
    """Return the token of a request, or the type of the error that its credential causes."""
    try:
        return auth.credential(CredentialRequest(handshake, None))
    except Exception as error:  # A source may be a function of the application. The gate reports its error.
        return type(error)


def _check_capacity(core: Core, handshake: Handshake, cors: Headers) -> Answer | None:
    """Return the response to a new transport if the server is shutting down, or too many transports wait."""
    if "sid" in handshake.query:
        return None
    if core.sessions.closing:
        return Answer(503, headers=cors)
    try:
        core.sessions.pending.check(handshake.address)
    except AuthError as refusal:
        retry = (b"retry-after", b"%d" % RETRY_AFTER)
        return Answer(refusal.status, msgspec.json.encode(refusal.data), [JSON, retry, *cors])
    return None


def _cors(core: Core, handshake: Handshake) -> Headers | None:
    """Return the CORS header fields of the response; None if the origin is not allowed."""
    origin = handshake.headers.get("origin")
    if origin is None:
        return []
    if not core.origins.allow(origin, host=handshake.headers.get("host", ""), secure=handshake.secure):
        return None
    if core.origins.any:
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
