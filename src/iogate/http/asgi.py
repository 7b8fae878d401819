"""Authentication of requests to any ASGI application."""

from __future__ import annotations

from typing import Any

from iogate.asgi_types import DENIAL, ASGIApp, Message, Receive, Scope, Send
from iogate.errors import CredentialsBadFormat, Refused
from iogate.http.answers import Answer, answer_to
from iogate.http.body import MAX_BODY, SlowBody, body_in_time, fields_of, may_say_close
from iogate.http.guard import WEBSOCKET, Admitted, Guard, HTTPRequest, guard_of
from iogate.http.streams import STREAM, Stream, StreamMiddleware
from iogate.http.users import Credentials, TokenUser
from iogate.printable import TOKEN_NAMES
from iogate.server.session.handshake import Handshake, hidden_from_log, hide, hide_parameters


class JWTMiddleware:
    """Reject HTTP requests and WebSockets of an ASGI application that have no valid token.

    The application finds the identity in the state of the request: `request.state.principal` and `request.state.user`.
    Both are None for a request without a token, where that is allowed. If another authentication middleware in front of
    this one has set `request.user`, the token's identity replaces that user.

    When the token expires or is revoked, or its key is removed, a WebSocket is closed with the code 1008, and a
    streamed response ends (`iogate.http.streams.Stream`). CORS preflight requests carry no token: answer them in front
    of this middleware. Do not put it in front of Socket.IO: sockets have their own gate, and they can refresh their
    tokens.

    Args:
        app: the application.
        auth: a `JWTAuth`, a `Server`, or a `Guard`.
        settings: the other arguments of `Guard`.
    """

    def __init__(self, app: ASGIApp, auth: Any, **settings: Any) -> None:
        self._app = app
        self._guard = guard_of(auth, settings)
        self._hidden = TOKEN_NAMES | self._guard.hidden_parameters
        self._guarded = StreamMiddleware(self._serve)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        await self._guarded(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request, receive = await request_of(self._guard, scope, receive)
            admitted = await self._guard.check(request)
        except Refused as refused:
            hide(scope, self._hidden)
            await _refuse(scope, receive, send, answer_to(refused, self._guard))
            return
        scope = hidden_from_log(scope, self._hidden)
        scope = {**scope, "state": {**scope.get("state", {}), **state_of(admitted)}}
        if admitted is not None:
            replace_user(scope, admitted)
            stream: Stream = scope[STREAM]
            stream.bind(self._guard, admitted.principal)
        await self._app(scope, receive, send)


def replace_user(scope: Scope, admitted: Admitted) -> None:
    """Replace the identity that another authentication has found, for example a session, by the token's identity."""
    if "user" in scope:
        scope["user"] = TokenUser(admitted)
    if "auth" in scope:
        scope["auth"] = Credentials(admitted)


def state_of(admitted: Admitted | None) -> dict[str, Any]:
    """Return the identity as the application finds it in the state of the request."""
    return {"principal": admitted and admitted.principal, "user": admitted and admitted.user}


async def request_of(guard: Guard, scope: Scope, receive: Receive) -> tuple[HTTPRequest, Receive]:
    """Return the request for a guard, and the `receive` function for the application.

    If the guard needs the body, this reads it; the returned `receive` then delivers it again.

    Raises:
        CredentialsBadFormat: the URL has too many parameters, the body is larger than the limit for bodies with a
            token, or the client disconnected before the body was complete.
        SlowBody: the body did not arrive within `BODY_TIMEOUT` seconds.
    """
    handshake, method = handshake_of(guard, scope), method_of(scope)
    if scope["type"] != "http" or not guard.length_to_read(handshake):
        return HTTPRequest(handshake, method), receive
    async with body_in_time():
        body, receive = await _read(receive)
    return HTTPRequest(handshake, method, fields_of(handshake, body)), receive


def method_of(scope: Scope) -> str:
    """Return the method of an HTTP request, or `WEBSOCKET` for a WebSocket."""
    method: str = WEBSOCKET if scope["type"] == "websocket" else scope["method"]
    return method


def handshake_of(guard: Guard, scope: Scope) -> Handshake:
    """Return the head of a request. In its scope, redact URL parameters that may contain a token, for logs.

    Raises:
        CredentialsBadFormat: the URL has too many parameters.
    """
    hide_parameters(scope, guard.hidden_parameters)
    try:
        return Handshake.of_scope(scope)
    except ValueError:
        raise CredentialsBadFormat("the URL has too many parameters") from None


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """Read a body. Return it, and a `receive` function that delivers it again."""
    body, read = bytearray(), False
    while not read:
        message = await receive()
        if message["type"] != "http.request":
            raise CredentialsBadFormat("the client has gone before the body was complete")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:  # More than the Content-Length. The ASGI server should have prevented that.
            raise CredentialsBadFormat("the body is longer than its Content-Length")
        read = not message.get("more_body", False)
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    return bytes(body), again


def ends_connection(scope: Scope, answer: Answer) -> bool:
    """Return True if a response must close the connection, because the body was not read completely."""
    return answer.status == SlowBody.status and may_say_close(scope)


async def _refuse(scope: Scope, receive: Receive, send: Send, answer: Answer) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if DENIAL not in scope.get("extensions", {}):
            await send({"type": "websocket.close"})  # The ASGI server answers 403.
            return
        kind = DENIAL
    headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
    headers.append((b"content-length", b"%d" % len(answer.body)))
    if ends_connection(scope, answer):
        headers.append((b"connection", b"close"))
    await send({"type": f"{kind}.start", "status": answer.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": answer.body})
