"""Authentication of requests as an authentication backend of Starlette."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.requests import HTTPConnection
from starlette.responses import Response

from iogate.errors import ConfigurationError, Refused
from iogate.http.answers import Answer, answer_to
from iogate.http.asgi import handshake_of, method_of, state_of
from iogate.http.guard import HTTPRequest, guard_of
from iogate.http.streams import STREAM, TaskWatch, Watch
from iogate.http.users import Credentials, TokenUser


class JWTUser(TokenUser, BaseUser):
    """`request.user` of a request with a valid token."""


class JWTBackend(AuthenticationBackend):
    """Authenticate requests for Starlette. Its `@requires("chat:write")` then checks the scopes of the token.

        backend = JWTBackend(auth, optional=True)
        app.add_middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)
        app.add_middleware(StreamMiddleware)  # of iogate.http.streams

    With `StreamMiddleware` in front, a WebSocket is closed with the code 1008 when its token expires or is revoked, and
    a streamed response ends. Without it, the task that serves the WebSocket is cancelled instead, and streamed
    responses do not end early.

    Args:
        auth: a `JWTAuth`, a `Server`, or a `Guard`.
        settings: the other arguments of `Guard`. With `optional=True`, requests without a token are left to
            `@requires`.

    Raises:
        ConfigurationError: an argument is not valid, or the token may be in the body, which Starlette does not pass on.
    """

    def __init__(self, auth: Any, **settings: Any) -> None:
        self._guard = guard_of(auth, settings)
        if self._guard.reads_body:
            raise ConfigurationError("Starlette authenticates without the body: use JWTMiddleware for a BodyField")

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return the verified identity of a request; None for a request without a token, where that is allowed."""
        try:
            request = HTTPRequest(handshake_of(self._guard, conn.scope), method_of(conn.scope))
            admitted = await self._guard.check(request)
        except Refused as refused:
            raise _Refusal(answer_to(refused, self._guard)) from None
        for name, value in state_of(admitted).items():
            setattr(conn.state, name, value)
        if admitted is None:
            return None
        watch: Watch | None = conn.scope.get(STREAM)
        task = asyncio.current_task()
        if watch is None and task is not None and conn.scope["type"] == "websocket":
            watch = TaskWatch(task)
            watch.watch()
        if watch is not None:
            watch.bind(self._guard, admitted.principal)
        return AuthCredentials(Credentials(admitted).scopes), JWTUser(admitted)

    @staticmethod
    def on_error(conn: HTTPConnection, exc: Exception) -> Response:
        """Return the response to a rejected request."""
        if not isinstance(exc, _Refusal):
            raise exc
        return Response(exc.answer.body, exc.answer.status, exc.answer.headers)


class _Refusal(AuthenticationError):
    """A rejection, with its response."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("refused")
        self.answer = answer
