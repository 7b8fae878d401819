"""What a client said when its connection began."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from iogate.printable import is_harmless, printable, redact, redact_parameters

GIVEN = "iogate.query_string"
"""Where a scope has its query string as it came, once something was taken out of it."""
MAX_QUERY_FIELDS = 64
"""Parameters that the URL of a handshake may have."""
MAX_SHOWN = 4096
"""Characters of a path or of a query string that remain for the ASGI server's log."""

_KNOWN = {
    name.encode(): name
    for name in (
        *("accept", "accept-encoding", "accept-language", "authorization", "cache-control", "connection", "cookie"),
        *("host", "origin", "pragma", "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-version"),
        *("upgrade", "user-agent", "x-forwarded-for", "x-forwarded-proto"),
    )
}
"""Names that nearly all clients send: one string for all of them, and not one for each."""

_USUAL_QUERY = b"EIO=4&transport=websocket"
"""What the official clients ask for with a WebSocket."""

_NONE: Mapping[str, str] = {}
_OF_HEADERS = {"cookie": "; "}
"""What joins the values of a header that came twice, where that is no comma (RFC 9113, section 8.2.3)."""
_OF_A_HEADER = ("HTTP_", "CONTENT_TYPE", "CONTENT_LENGTH")
"""How the names of headers begin in the environment of WSGI (RFC 3875, sections 4.1.2, 4.1.3 and 4.1.18)."""


class Handshake:
    """The request that opened a connection, and the payload of the CONNECT that asked for a socket.

    A name that came twice (a header, a parameter, a cookie) has its values joined by `, `: no reader can be fooled
    about which one counts, and a credential that came twice is none.

    Args:
        headers: the header fields of the request, as ASGI gives them: lower-case names, bytes.
        query: the parameters of its URL.
        path: the path of its URL.
        address: the peer's address, as the ASGI server tells it; None on a Unix socket.
        secure: whether the request came over TLS.
        auth: the payload of CONNECT without the credential.
    """

    __slots__ = ("address", "auth", "headers", "path", "query", "secure")

    def __init__(
        self,
        headers: Iterable[tuple[bytes, bytes]] = (),
        query: Mapping[str, str] | None = None,
        path: str = "/",
        address: str | None = None,
        *,
        secure: bool = False,
        auth: Any = None,
    ) -> None:
        # Lower-case names, values decoded as Latin-1 (RFC 9110, section 5.5).
        self.headers: Mapping[str, str] = _joined(
            [(_KNOWN.get(name) or name.decode("latin-1"), value.decode("latin-1")) for name, value in headers],
            _OF_HEADERS,
        )
        self.query: Mapping[str, str] = query or {}
        self.path = path
        self.address = address
        self.secure = secure
        self.auth = auth

    @classmethod
    def of_scope(cls, scope: Mapping[str, Any]) -> Handshake:
        """Return the handshake of an ASGI connection scope (HTTP or WebSocket), also where `hide` was called for it.

        Raises:
            ValueError: its URL has too many parameters.
        """
        client = scope.get("client")
        return cls(
            scope["headers"],
            parse_query(scope.get(GIVEN) or scope.get("query_string") or b""),
            scope["path"],
            client[0] if client else None,
            secure=scope.get("scheme") in {"https", "wss"},
        )

    @classmethod
    def of_environ(cls, environ: Mapping[str, Any]) -> Handshake:
        """Return the handshake of a WSGI request (PEP 3333).

        Raises:
            ValueError: its URL has too many parameters.
        """
        headers = [
            (name.removeprefix("HTTP_").replace("_", "-").lower().encode(), value.encode("latin-1"))
            for name, value in environ.items()
            if name.startswith(_OF_A_HEADER) and isinstance(value, str)
        ]
        query = parse_query(environ.get("QUERY_STRING", "").encode("latin-1"))
        secure = environ.get("wsgi.url_scheme") in {"https", "wss"}
        return cls(headers, query, environ.get("PATH_INFO", "/"), environ.get("REMOTE_ADDR"), secure=secure)

    def with_auth(self, auth: Any) -> Handshake:
        """Return the same handshake with the payload of another CONNECT."""
        handshake = Handshake((), self.query, self.path, self.address, secure=self.secure, auth=auth)
        handshake.headers = self.headers
        return handshake

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies of the request (RFC 6265, section 4.2)."""
        pairs = (pair.partition("=") for pair in self.headers.get("cookie", "").split(";"))
        # Spaces and tabs alone: a browser takes all else for a part of the name, and a prefix is then none.
        return _joined((name.strip(" \t"), value.strip(" \t").strip('"')) for name, equals, value in pairs if equals)

    def __repr__(self) -> str:
        # Headers, parameters and payload may hold credentials.
        return f"<Handshake {printable(self.path)} from {printable(self.address)}>"


def parse_query(query_string: bytes) -> dict[str, str]:
    """Return the parameters of a URL.

    Raises:
        ValueError: there are more than `MAX_QUERY_FIELDS`.
    """
    if query_string == _USUAL_QUERY:
        return {"EIO": "4", "transport": "websocket"}
    pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    return _joined(pairs)


def hide(scope: MutableMapping[str, Any], hidden: frozenset[str]) -> None:
    """Redact every token in the URL of an ASGI scope, for logs of it, and bound the URL.

    Use it for a request that iogate answers itself: an application behind would not get the original URL.

    Args:
        scope: of an HTTP request or a WebSocket.
        hidden: the names of parameters that may contain a token.
    """
    query, path = _query(scope), scope["path"]
    url = f"{path}?{query}"
    if len(url) <= MAX_SHOWN and is_harmless(url, hidden):
        return
    _show(scope, redact(_bounded(query), hidden))
    scope["path"] = redact(_bounded(path), hidden)
    if raw_path := scope.get("raw_path"):
        scope["raw_path"] = redact(_bounded(raw_path.decode("latin-1")), hidden).encode("latin-1")


def hidden_from_log(scope: MutableMapping[str, Any], hidden: frozenset[str]) -> MutableMapping[str, Any]:
    """Call `hide` for a request that goes on to an application, and return a scope with the original URL for that.

    The ASGI server logs the scope that it has made itself. If there is nothing to hide, that scope is returned.
    """
    given = dict(scope)
    hide(scope, hidden)
    return scope if scope == given else given


def hide_parameters(scope: MutableMapping[str, Any], hidden: frozenset[str]) -> None:
    """Redact the values of parameters in the URL of an ASGI scope, for logs of it. Nothing else changes.

    Args:
        scope: of an HTTP request or a WebSocket.
        hidden: the names of the parameters.
    """
    _show(scope, redact_parameters(_query(scope), hidden))


def _query(scope: Mapping[str, Any]) -> str:
    query: bytes = scope.get("query_string") or b""
    return query.decode("latin-1")


def _show(scope: MutableMapping[str, Any], query: str) -> None:
    if query != _query(scope):
        scope.setdefault(GIVEN, scope["query_string"])
        scope["query_string"] = query.encode("latin-1")


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _joined(pairs: Iterable[tuple[str, str]], separators: Mapping[str, str] = _NONE) -> dict[str, str]:
    result: dict[str, str] = {}
    for name, value in pairs:
        result[name] = f"{result[name]}{separators.get(name, ', ')}{value}" if name in result else value
    return result
