"""Authentication of requests to any WSGI application."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from iogate import background
from iogate.errors import CredentialsBadFormat, Refused
from iogate.http.answers import answer_to
from iogate.http.body import fields_of
from iogate.http.guard import Admitted, Guard, HTTPRequest, guard_of
from iogate.server.session.handshake import Handshake

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

PRINCIPAL = "iogate.principal"
USER = "iogate.user"


class JWTMiddleware:
    """Reject requests of a WSGI application that have no valid token.

    The application finds the identity in `environ["iogate.principal"]` and `environ["iogate.user"]`. Both are None for
    a request without a token, where that is allowed.

    Args:
        app: the application.
        auth: a `JWTAuth`, a `Server`, or a `Guard`.
        settings: the other arguments of `Guard`.
    """

    def __init__(self, app: WSGIApp, auth: Any, **settings: Any) -> None:
        self._app = app
        self._guard = guard_of(auth, settings)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        try:
            admitted = check(self._guard, request_of(self._guard, environ))
        except Refused as refused:
            answer = answer_to(refused, self._guard)
            headers = [*answer.headers.items(), ("content-length", str(len(answer.body)))]
            start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]
        environ[PRINCIPAL] = admitted and admitted.principal
        environ[USER] = admitted and admitted.user
        return self._app(environ, start_response)


def check(guard: Guard, request: HTTPRequest) -> Admitted | None:
    """Check a request from a thread. The guard's keys and hooks run on the background event loop.

    Raises:
        Refused: the request is rejected.
    """
    admitted = background.run(guard.check(request))
    if admitted is not None:
        guard.ensure_still_valid(admitted.principal)  # The thread may have resumed long after the verdict.
    return admitted


def request_of(guard: Guard, environ: Environ) -> HTTPRequest:
    """Return the request for a guard. If the guard needs the body, read it so that the application can read it again.

    Raises:
        CredentialsBadFormat: the URL has too many parameters, or the body is larger than the limit for bodies with a
            token.
    """
    handshake, method = handshake_of(environ), environ["REQUEST_METHOD"]
    if not (length := guard.length_to_read(handshake)):
        return HTTPRequest(handshake, method)
    body = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(body)
    return HTTPRequest(handshake, method, fields_of(handshake, body))


def handshake_of(environ: Environ) -> Handshake:
    """Return the head of a request.

    Raises:
        CredentialsBadFormat: the URL has too many parameters.
    """
    try:
        return Handshake.of_environ(environ)
    except ValueError:
        raise CredentialsBadFormat("the URL has too many parameters") from None
