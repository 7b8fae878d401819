"""The gate as a decorator of Flask's views."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Response, current_app, g, request

from iogate.errors import Refused
from iogate.http.answers import answer_to
from iogate.http.body import fields_of
from iogate.http.guard import Guard, HTTPRequest, guard_of
from iogate.http.wsgi import check, handshake_of

View = TypeVar("View", bound=Callable[..., Any])


def require(auth: Any, **settings: Any) -> Callable[[View], View]:
    """Return a decorator that lets requests through to a view whose token is good.

        @app.post("/messages")
        @require(auth, scopes="chat:write")
        def post(): ...

    It stands below `@app.post`, next to the view: Flask serves what it finds there. Who it is is in `g.principal`, and
    what `load_user` made of that in `g.user`; both are None for who came without a token where that is allowed. The
    view may be `async def`.

    Args:
        auth: a `JWTAuth`, a `Server`, or a `Guard`.
        settings: of `Guard`.
    """
    guard = guard_of(auth, settings)

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                admitted = check(guard, _request_of(guard))
            except Refused as refused:
                answer = answer_to(refused, guard)
                return Response(answer.body, answer.status, answer.headers)
            g.principal = admitted and admitted.principal
            g.user = admitted and admitted.user
            return current_app.ensure_sync(view)(*args, **kwargs)

        return guarded  # type: ignore[return-value]

    return decorate


def _request_of(guard: Guard) -> HTTPRequest:
    handshake = handshake_of(request.environ)
    # Flask keeps the body for the view.
    fields = fields_of(handshake, request.get_data()) if guard.length_to_read(handshake) else {}
    return HTTPRequest(handshake, request.method, fields)
