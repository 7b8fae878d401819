"""The gate as a dependency of FastAPI."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import HTTPException, Security, WebSocketException
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.openapi.models import SecurityBase as SchemeModel
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection, Request

from iogate.asgi_types import DENIAL
from iogate.auth import BearerHeader, Cookie, Header, Principal, Query, Source
from iogate.errors import Refused
from iogate.http.answers import answer_to
from iogate.http.asgi import handshake_of, method_of, state_of
from iogate.http.body import by_name, fields_of
from iogate.http.guard import Guard, HTTPRequest, guard_of
from iogate.server.handshake import Handshake

POLICY_VIOLATION = 1008
"""The code with which a WebSocket of FastAPI is closed that is refused (RFC 6455, section 7.4.1)."""


def require(auth: Any, **settings: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a dependency that gives the verified identity of a request, or refuses it.

        user: Annotated[Principal, Depends(require(auth, scopes="chat:write"))]

    It is in `request.state.principal` too, with what `load_user` made of it in `request.state.user`. The schema of the
    API says where the token goes. With `optional=True` it gives None for who has no token.

    Args:
        auth: a `JWTAuth`, a `Server`, or a `Guard`.
        settings: of `Guard`.
    """
    guard = guard_of(auth, settings)

    async def principal(connection: HTTPConnection, **_: None) -> Principal | None:
        try:
            admitted = await guard.check(await _request_of(guard, connection))
        except Refused as refused:
            answer = answer_to(refused, guard)
            if connection.scope["type"] == "websocket" and DENIAL not in connection.scope.get("extensions", {}):
                raise WebSocketException(POLICY_VIOLATION, refused.message) from None
            headers = {name: value for name, value in answer.headers.items() if name != "content-type"}
            raise HTTPException(answer.status, answer.content, headers) from None
        for name, value in state_of(admitted).items():
            setattr(connection.state, name, value)
        return admitted.principal if admitted is not None else None

    schemes = [scheme for source in guard.sources if (scheme := _scheme(source)) is not None]
    keyword = inspect.Parameter.KEYWORD_ONLY
    principal.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("connection", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=HTTPConnection),
            *(
                inspect.Parameter(f"_{number}", keyword, annotation=None, default=Security(scheme))
                for number, scheme in enumerate(schemes)
            ),
        ]
    )
    return principal


class _Scheme(SecurityBase):
    """A way to give the token, for the schema. Whether it was given is the guard's to see."""

    def __init__(self, model: SchemeModel, scheme_name: str) -> None:
        self.model = model
        self.scheme_name = scheme_name

    async def __call__(self) -> None:
        return None


def _scheme(source: Source) -> _Scheme | None:
    """Return what OpenAPI has for a source; it has nothing for a field of the body, and for a function."""
    if isinstance(source, BearerHeader):
        return _Scheme(HTTPBearer(bearerFormat="JWT"), "bearer")
    places = {Header: APIKeyIn.header, Query: APIKeyIn.query, Cookie: APIKeyIn.cookie}
    for kind, place in places.items():
        if isinstance(source, kind):
            name: str = source.name
            return _Scheme(APIKey(**{"in": place}, name=name), f"{place.value} {name}")
    return None


async def _request_of(guard: Guard, connection: HTTPConnection) -> HTTPRequest:
    handshake, method = handshake_of(guard, connection.scope), method_of(connection.scope)
    if not (isinstance(connection, Request) and guard.length_to_read(handshake)):
        return HTTPRequest(handshake, method)
    return HTTPRequest(handshake, method, await _fields_of(connection, handshake))


async def _fields_of(request: Request, handshake: Handshake) -> Mapping[str, object]:
    try:
        return fields_of(handshake, await request.body())
    except RuntimeError:  # FastAPI has made a form of it, for an endpoint with `Form()`, and keeps that alone.
        return by_name((await request.form()).multi_items())
