"""Authentication of requests as a dependency of FastAPI."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import HTTPException, Security, WebSocketException
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.openapi.models import SecurityBase as SchemeModel
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket, WebSocketState

from iogate.asgi_types import DENIAL, Scope
from iogate.auth import BearerHeader, Cookie, Header, Principal, Query, Source
from iogate.errors import Refused
from iogate.http.answers import answer_to
from iogate.http.asgi import ends_connection, handshake_of, method_of, replace_user, state_of
from iogate.http.body import body_in_time, by_name, fields_of
from iogate.http.guard import Guard, HTTPRequest, guard_of
from iogate.http.streams import POLICY_VIOLATION, STREAM, Stream
from iogate.server.session.handshake import Handshake


def require(auth: Any, **settings: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a dependency that provides the verified identity of a request, or rejects the request.

        user: Annotated[Principal, Depends(require(auth, scopes="chat:write"))]

    The identity is also in `request.state.principal`, and the user that `load_user` returned is in
    `request.state.user`. The OpenAPI schema of the application documents where the token goes. With `optional=True`,
    the dependency provides None for a request without a token.

    When the token expires or is revoked, a WebSocket is closed with the code 1008. A streamed response, such as
    server-sent events, ends too if the application has `iogate.http.streams.StreamMiddleware`:
    `app.add_middleware(StreamMiddleware)`.

    Args:
        auth: a `JWTAuth`, a `Server`, or a `Guard`.
        settings: the other arguments of `Guard`.
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
            if ends_connection(connection.scope, answer):
                headers["connection"] = "close"
            raise HTTPException(answer.status, answer.content, headers) from None
        for name, value in state_of(admitted).items():
            setattr(connection.state, name, value)
        if admitted is None:
            return None
        replace_user(connection.scope, admitted)
        stream = _stream_of(connection)
        if stream is not None:
            stream.bind(guard, admitted.principal)
        return admitted.principal

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
    """A place for the token, for the OpenAPI schema. The guard itself checks whether there is a token."""

    def __init__(self, model: SchemeModel, scheme_name: str) -> None:
        self.model = model
        self.scheme_name = scheme_name

    async def __call__(self) -> None:
        return None


def _scheme(source: Source) -> _Scheme | None:
    """Return the OpenAPI scheme for a source; None for a body field or a function, which OpenAPI cannot describe."""
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


def _stream_of(connection: HTTPConnection) -> Stream | None:
    """Return the `Stream` of a request or WebSocket; None for an HTTP request without `StreamMiddleware`."""
    stream: Stream | None = connection.scope.get(STREAM)
    if stream is None and isinstance(connection, WebSocket):
        begun = connection.client_state is not WebSocketState.CONNECTING
        stream = connection.scope[STREAM] = Stream("websocket", connection._receive, connection._send, begun=begun)
        # FastAPI passes the same object to the endpoint.
        connection._receive, connection._send = stream.receive, stream.send
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(functools.partial(_finish, stream, connection.scope))
    return stream


def _finish(stream: Stream, scope: Scope, _task: object) -> None:
    stream.unwatch()
    scope.pop(STREAM, None)  # Avoid a reference cycle with the ASGI server's objects.


async def _fields_of(request: Request, handshake: Handshake) -> Mapping[str, object]:
    try:
        async with body_in_time():
            return fields_of(handshake, await request.body())
    except RuntimeError:  # For an endpoint with `Form()`, FastAPI has parsed the body, and keeps only the form.
        return by_name((await request.form()).multi_items())
