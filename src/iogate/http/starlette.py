"""The gate as an authentication backend of Starlette."""

from __future__ import annotations

from typing import Any

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.requests import HTTPConnection
from starlette.responses import Response

from iogate.auth import Principal
from iogate.errors import ConfigurationError, Refused
from iogate.http.answers import Answer, answer_to
from iogate.http.asgi import handshake_of, method_of, state_of
from iogate.http.guard import Admitted, HTTPRequest, guard_of


class JWTUser(BaseUser):
    """`request.user`: who has shown a good token.

    Args:
        admitted: who.
    """

    def __init__(self, admitted: Admitted) -> None:
        self.principal: Principal = admitted.principal
        self.user: Any = admitted.user

    @property
    def is_authenticated(self) -> bool:
        """True."""
        return True

    @property
    def display_name(self) -> str:
        """The subject."""
        return self.principal.subject

    @property
    def identity(self) -> str:
        """The subject."""
        return self.principal.subject


class JWTBackend(AuthenticationBackend):
    """Tell Starlette who a request is of. Its `@requires("chat:write")` then compares with the scopes of the token.

        backend = JWTBackend(auth, optional=True)
        app.add_middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)

    Args:
        auth: a `JWTAuth`, a `Server`, or a `Guard`.
        settings: of `Guard`. With `optional=True` who has no token is left to `@requires`.

    Raises:
        ConfigurationError: an argument is not sound, or the token may be in the body, which is not handed over.
    """

    def __init__(self, auth: Any, **settings: Any) -> None:
        self._guard = guard_of(auth, settings)
        if self._guard.reads_body:
            raise ConfigurationError("Starlette authenticates without the body: use JWTMiddleware for a BodyField")

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return who a request is of; None: nobody."""
        try:
            request = HTTPRequest(handshake_of(self._guard, conn.scope), method_of(conn.scope))
            admitted = await self._guard.check(request)
        except Refused as refused:
            raise _Refusal(answer_to(refused, self._guard)) from None
        for name, value in state_of(admitted).items():
            setattr(conn.state, name, value)
        if admitted is None:
            return None
        return AuthCredentials(["authenticated", *sorted(admitted.principal.scopes)]), JWTUser(admitted)

    @staticmethod
    def on_error(conn: HTTPConnection, exc: Exception) -> Response:
        """Answer a request that was refused."""
        if not isinstance(exc, _Refusal):
            raise exc
        return Response(exc.answer.body, exc.answer.status, exc.answer.headers)


class _Refusal(AuthenticationError):
    """A refusal, with what is to be answered."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("refused")
        self.answer = answer
