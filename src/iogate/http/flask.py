"""Authentication of requests as a decorator of Flask views."""

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
    """Return a decorator for a view that rejects requests without a valid token.

        @app.post("/messages")
        @require(auth, scopes="chat:write")
        def post(): ...

    Put it below `@app.post`, directly above the view: Flask registers the function that is below `@app.post`. The
    identity is in `g.principal`, and the user that `load_user` returned is in `g.user`. Both are None for a request
    without a token, where that is allowed. The view may be `async def`.

    Args:
        auth: a `JWTAuth`, a `Server`, or a `Guard`.
        settings: the other arguments of `Guard`.
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
    # Flask caches the body, so the view can read it too.
    fields = fields_of(handshake, request.get_data()) if guard.length_to_read(handshake) else {}
    return HTTPRequest(handshake, request.method, fields)
