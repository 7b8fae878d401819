"""The request that opens a connection: its query, its header fields, and the token that may be in any of them.

An input is the query string in the first line, and a header field (`name: value`) in each further one. A line
`payload: ...` is the payload of CONNECT, in JSON.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from iogate import Cookie, JWTAuth, Query, Server
from iogate.auth import AuthPayload, BearerHeader
from iogate.errors import CredentialsBadFormat, CredentialsBadScheme
from iogate.printable import TOKEN_NAMES, redact
from iogate.server.gate.attempts import CredentialRequest
from iogate.server.requests import Answer, admit_request, is_for
from iogate.server.session.handshake import MAX_QUERY_FIELDS, Handshake
from tests.auth.tokens import SECRET

_AUTH = JWTAuth(
    secret=SECRET, algorithms=["HS256"], sources=[AuthPayload("token"), BearerHeader(), Query("token"), Cookie("token")]
)
_SERVER = Server(auth=_AUTH, cors_allowed_origins=["https://app.example"], trusted_proxies=["10.0.0.0/8"])
_STATUSES = {204, 400, 403, 429, 503}
_REDACTED = "REDACTED"


def handshake(data: bytes) -> bool:
    """Take any bytes for a request, on polling and on WebSocket."""
    query, *lines = data.split(b"\n")
    fields = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    headers = [(name, value) for name, value in fields if name != b"payload"]
    if not any(name == b"host" for name, _ in headers):  # Without it a request is refused before anything is read.
        headers.insert(0, (b"host", b"app.example"))
    payload = next((value for name, value in fields if name == b"payload"), b"null")
    accepted = False
    for scope in ({"type": "http", "method": "GET"}, {"type": "http", "method": "POST"}, {"type": "websocket"}):
        whole: dict[str, Any] = {
            **scope,
            "path": "/socket.io/",
            "query_string": query,
            "headers": headers,
            "client": ("10.0.0.1", 1234),
            "scheme": "http",
        }
        assert is_for(_SERVER._core, whole)
        found = admit_request(_SERVER._core, whole)
        _check_redacted(whole["query_string"])
        if isinstance(found, Answer):
            assert found.status in _STATUSES
            assert all(b"\n" not in value and b"\r" not in value for _, value in found.headers)
        else:
            accepted = True
            assert len(found.handshake.query) <= MAX_QUERY_FIELDS
            _credential(found.handshake, payload)
    return accepted


def _check_redacted(logged: bytes) -> None:
    """In what may be logged no parameter holds a token, whichever reader of the query string reads it."""
    shown = parse_qsl(logged.decode("latin-1"), keep_blank_values=True)
    assert all(value.startswith(_REDACTED) for name, value in shown if name.lower() in TOKEN_NAMES and value)
    assert redact(logged.decode("latin-1")) == logged.decode("latin-1")


def _credential(handshake: Handshake, payload: bytes) -> None:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        value = None
    request = CredentialRequest(handshake, value)
    given = [source for source in _AUTH.sources if _gives(source, request)]
    try:
        token = _AUTH.credential(request)
    except (CredentialsBadFormat, CredentialsBadScheme) as error:
        assert len(str(error)) < 200  # noqa: PT017 - and nothing of what was sent is in it
        assert given
        return
    assert (token is None) is (not given)
    if token is not None:
        assert token
        assert len(given) == 1


def _gives(source: Any, request: CredentialRequest) -> bool:
    try:
        return source.read(request) is not None
    except (CredentialsBadFormat, CredentialsBadScheme):
        return True
