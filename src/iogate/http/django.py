"""Authentication of requests in Django, under ASGI and WSGI."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from iogate.errors import AuthError, ConfigurationError, CredentialsRequired, InsufficientScope, Refused
from iogate.http.answers import answer_to
from iogate.http.asgi import handshake_of as handshake_of_scope
from iogate.http.body import fields_of
from iogate.http.guard import Admitted, Guard, HTTPRequest, guard_of
from iogate.http.users import TokenUser
from iogate.http.wsgi import check, handshake_of
from iogate.server.namespaces.scopes import Scopes, parse_scopes

View = TypeVar("View", bound=Callable[..., Any])

SESSION_MIDDLEWARES = {
    f"django.contrib.auth.middleware.{name}"
    for name in ("AuthenticationMiddleware", "RemoteUserMiddleware", "PersistentRemoteUserMiddleware")
}
"""Middleware that sets `request.user`, by name: importing it would require the models of Django's users."""


class JWTMiddleware:
    """Set `request.principal`, and `request.user` to the user that `load_user` returns.

    A request with a token belongs to the token's user, never to the session's user. `request.user` and `await
    request.auser()` are the value that `load_user` returned. Without `load_user`, they are a `TokenUser`, which is
    authenticated and has no permissions. The admin, and views that need a database row, need a `load_user` that returns
    one of Django's users.

    Put this middleware after Django's `AuthenticationMiddleware` and `RemoteUserMiddleware`, if you use them: otherwise
    they would set `request.user` to the session's user again.

    In the settings, `auth` is a `JWTAuth`, a `Server` or a `Guard`, or the dotted name of one. All other keys are
    arguments of `Guard`:

        MIDDLEWARE = [..., "iogate.http.django.JWTMiddleware"]
        IOGATE = {"auth": "chat.auth.auth", "optional": True}

    Without `"optional": True`, requests without a token are rejected. With it, such a request has `request.principal`
    None and keeps the session's user in `request.user`, and `@require()` rejects it. Django's own CSRF protection
    checks every POST: put `@csrf_exempt` on views that expect tokens in headers.

    Args:
        get_response: the next middleware, or the view.

    Raises:
        ConfigurationError: the settings are not valid, or a middleware that sets `request.user` comes after this one.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[..., Any]) -> None:
        self._get_response = get_response
        self._guard = guard()
        _check_order(type(self))
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request."""
        if iscoroutinefunction(self):
            return self._serve(request)
        try:
            _tell(request, check(self._guard, _request_of(self._guard, request)))
        except Refused as refused:
            return _response(refused, self._guard)
        return self._get_response(request)

    async def _serve(self, request: HttpRequest) -> Any:
        try:
            _tell(request, await self._guard.check(_request_of(self._guard, request)))
        except Refused as refused:
            return _response(refused, self._guard)
        return await self._get_response(request)


def require(scopes: Scopes = ()) -> Callable[[View], View]:
    """Return a decorator for a view that rejects requests without a valid token or without the required scopes.

    `JWTMiddleware` must be installed.

    Args:
        scopes: the scopes that the token must have, all of them.
    """
    needed = parse_scopes(scopes)

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refused = _refusal(request, needed)
            return view(request, *args, **kwargs) if refused is None else _response(refused, guard())

        @functools.wraps(view)
        async def guarded_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refused = _refusal(request, needed)
            return await view(request, *args, **kwargs) if refused is None else _response(refused, guard())

        return guarded_async if iscoroutinefunction(view) else guarded  # type: ignore[return-value]

    return decorate


@functools.cache
def guard() -> Guard:
    """Return the guard that the settings configure.

    Raises:
        ConfigurationError: the settings are missing or not valid.
    """
    found = getattr(settings, "IOGATE", None)
    if not isinstance(found, dict) or "auth" not in found:
        raise ConfigurationError('settings.IOGATE says what verifies tokens: IOGATE = {"auth": "chat.auth.auth"}')
    details = dict(found)
    auth = details.pop("auth")
    try:
        return guard_of(import_string(auth) if isinstance(auth, str) else auth, details)
    except (ImportError, TypeError, ConfigurationError) as error:
        raise ConfigurationError(f"settings.IOGATE: {error}") from error


def _refusal(request: HttpRequest, needed: frozenset[str]) -> Refused | None:
    try:
        principal = request.principal
    except AttributeError:
        raise ConfigurationError(
            'nobody has looked for a token: put "iogate.http.django.JWTMiddleware" into settings.MIDDLEWARE'
        ) from None
    if principal is None:
        return CredentialsRequired()
    try:
        guard().ensure_still_valid(
            principal
        )  # Code between the middleware and the view may have waited, so check again.
    except AuthError as refusal:
        return refusal
    return None if needed <= principal.scopes else InsufficientScope(needed)


def _tell(request: HttpRequest, admitted: Admitted | None) -> None:
    request.principal = admitted and admitted.principal
    if admitted is not None:
        user = request.user = TokenUser(admitted) if admitted.user is None else admitted.user

        async def auser() -> Any:
            return user

        request.auser = auser


def _check_order(own: type) -> None:
    """Raise if a middleware of Django's comes after this one and would set `request.user` to the session's user."""
    middlewares = [import_string(name) for name in settings.MIDDLEWARE]
    if own not in middlewares:  # It was not loaded from the settings, so their order does not matter.
        return
    for name, middleware in zip(reversed(settings.MIDDLEWARE), reversed(middlewares), strict=True):
        if middleware is own:
            return
        for base in getattr(middleware, "__mro__", ()):
            if f"{base.__module__}.{base.__qualname__}" in SESSION_MIDDLEWARES:
                raise ConfigurationError(
                    f"settings.MIDDLEWARE: {name!r} comes after iogate's JWTMiddleware, and would give a request"
                    " with a token the user of the session: put JWTMiddleware after it"
                )


def _request_of(guard: Guard, request: HttpRequest) -> HTTPRequest:
    scope = getattr(request, "scope", None)
    handshake = handshake_of(request.META) if scope is None else handshake_of_scope(guard, scope)
    fields = fields_of(handshake, request.body) if guard.length_to_read(handshake) else {}
    return HTTPRequest(handshake, request.method or "GET", fields)


def _response(refused: Refused, guard: Guard) -> HttpResponse:
    answer = answer_to(refused, guard)
    return HttpResponse(answer.body, status=answer.status, headers=answer.headers)
