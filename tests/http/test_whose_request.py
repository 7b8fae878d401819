"""A request with a token is the token's: nobody that a framework has found by other means is taken for its user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import override_settings
from django.urls import path
from django.utils.functional import SimpleLazyObject
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from iogate import ConfigurationError, Server
from iogate.http import asgi
from iogate.http import django as iogate_django
from iogate.http.fastapi import require
from iogate.http.guard import Admitted
from iogate.http.starlette import JWTBackend
from iogate.http.users import TokenUser
from tests.gate.houses import serve_on_threads
from tests.gate.support import make_auth
from tests.http import frameworks
from tests.servers import make_token, serve

assert frameworks.FRAMEWORKS  # The module configures Django, once for all tests.
ALICE = {"authorization": f"Bearer {make_token(sub='alice', scope='chat:write')}"}

# Django.


class SessionUser:
    """A user of Django's, as its session has it."""

    is_authenticated = True
    is_staff = True

    def get_username(self) -> str:
        return "admin"


class SessionMiddleware:
    """What Django's own does, without a database: the session is the admin's, lazily."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        request.user = SimpleLazyObject(SessionUser)

        async def auser() -> SessionUser:
            return SessionUser()

        request.auser = auser
        return self.get_response(request)


# As a subclass of it would be found.
SessionMiddleware.__module__, SessionMiddleware.__qualname__ = (
    "django.contrib.auth.middleware",
    "AuthenticationMiddleware",
)


class Derived(SessionMiddleware):
    """An application's own."""


def _view(request: HttpRequest) -> JsonResponse:
    return JsonResponse(
        {
            "principal": request.principal and request.principal.subject,
            "user": request.user.get_username(),
            "staff": request.user.is_staff,
            "authenticated": request.user.is_authenticated,
        }
    )


async def _view_async(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    assert user.get_username() == request.user.get_username()
    return _view(request)


@iogate_django.require()
def _guarded(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


urlpatterns = [path("", _view), path("async", _view_async), path("guarded", _guarded)]
JWT = "iogate.http.django.JWTMiddleware"
SESSION = f"{__name__}.SessionMiddleware"


def configured(auth: Any, *middlewares: str, **settings: Any) -> Any:
    iogate_django.guard.cache_clear()
    return override_settings(
        ROOT_URLCONF=__name__, MIDDLEWARE=list(middlewares), IOGATE={"auth": auth, "optional": True, **settings}
    )


@pytest.fixture(params=["WSGI", "ASGI"])
def served(request: pytest.FixtureRequest) -> Any:
    """Django under WSGI and under ASGI."""
    if request.param == "WSGI":
        return lambda: serve_on_threads(WSGIHandler())
    return lambda: serve(Server(auth=None).asgi(ASGIHandler()))


@pytest.mark.parametrize("view", ["/", "/async"])
async def test_a_request_with_a_token_is_not_the_sessions_in_django(served: Any, view: str) -> None:
    """Without `load_user`: on `request.user` and on `request.auser()`, in plain and in async views."""
    with configured(make_auth(), SESSION, JWT):
        async with served() as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
            answer = await http.get(view, headers=ALICE)
            assert answer.json() == {"principal": "alice", "user": "alice", "staff": False, "authenticated": True}


@pytest.mark.parametrize("view", ["/", "/async"])
async def test_what_load_user_returns_is_djangos_user(served: Any, view: str) -> None:
    """As before, and not the session's either."""

    class Loaded(SessionUser):
        def get_username(self) -> str:
            return "the user alice"

    auth = make_auth()

    @auth.load_user
    def load(claims: Mapping[str, Any]) -> Loaded:
        return Loaded()

    with configured(auth, SESSION, JWT):
        async with served() as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
            assert (await http.get(view, headers=ALICE)).json()["user"] == "the user alice"


async def test_a_request_without_a_token_stays_the_sessions_where_that_is_allowed(served: Any) -> None:
    """It has no principal, and what asks for a token refuses it; a bad token is refused and not the session's."""
    with configured(make_auth(), SESSION, JWT):
        async with served() as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
            answer = (await http.get("/")).json()
            assert (answer["principal"], answer["user"]) == (None, "admin")
            assert (await http.get("/guarded")).status_code == 401
            assert (await http.get("/", headers={"authorization": "Bearer x"})).status_code == 401


@pytest.mark.parametrize("later", ["SessionMiddleware", "Derived"])
def test_a_middleware_that_would_bring_the_session_back_does_not_start(later: str) -> None:
    """Also one that is derived from Django's; the message says what to do."""
    wrong = configured(make_auth(), JWT, f"{__name__}.{later}")
    with wrong, pytest.raises(ConfigurationError, match="put JWTMiddleware after it"):
        iogate_django.JWTMiddleware(_view)
    with configured(make_auth(), f"{__name__}.{later}", JWT):
        iogate_django.JWTMiddleware(_view)


async def test_a_token_that_is_revoked_on_the_way_to_the_view_does_not_reach_it() -> None:
    """Row 43: `@require` checks the identity again, as other middlewares may have waited."""
    io = Server(auth=(auth := make_auth()))
    with configured(auth, JWT):

        async def waits(request: HttpRequest) -> HttpResponse:
            await io.revoke(subject="alice")
            return _guarded(request)

        request = HttpRequest()
        request.META |= {"HTTP_AUTHORIZATION": ALICE["authorization"], "QUERY_STRING": ""}
        assert (await iogate_django.JWTMiddleware(waits)(request)).status_code == 401


def test_the_user_behind_a_token_has_no_permissions_and_no_row() -> None:
    """What asks for one fails, and never finds another user's."""
    user = TokenUser(Admitted(make_auth().verify(make_token(sub="alice")), None))
    assert (str(user), user.is_superuser, user.is_anonymous, user.is_active) == ("alice", False, False, True)
    assert [user.has_perm("x"), user.has_perms(["x"]), user.has_module_perms("x")] == [False] * 3
    assert not hasattr(user, "pk")
    assert not hasattr(user, "id")


async def test_nor_in_async_code() -> None:
    user = TokenUser(Admitted(make_auth().verify(make_token(sub="alice")), None))
    assert [await user.ahas_perm("x"), await user.ahas_perms(["x"]), await user.ahas_module_perms("x")] == [False] * 3


# Starlette, FastAPI and any ASGI application.


class SessionBackend(AuthenticationBackend):
    """Everybody has the session of the admin."""

    async def authenticate(self, conn: HTTPConnection) -> Any:
        return AuthCredentials(["authenticated", "admin"]), SimpleUser("admin")


SESSIONS = Middleware(AuthenticationMiddleware, backend=SessionBackend())


async def who(request: Request) -> JSONResponse:
    principal = request.state.principal
    return JSONResponse([principal and principal.subject, request.user.display_name, request.auth.scopes])


@requires("admin")
async def only_admins(request: Request) -> JSONResponse:
    return JSONResponse("in")


def _starlette(auth: Any) -> Any:
    backend = JWTBackend(auth, optional=True)
    middleware = [SESSIONS, Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)]
    return Starlette(routes=[Route("/", who), Route("/admin", only_admins)], middleware=middleware)


def _asgi(auth: Any) -> Any:
    made: Any = asgi.JWTMiddleware
    middleware = [SESSIONS, Middleware(made, auth=auth, optional=True)]
    return Starlette(routes=[Route("/", who), Route("/admin", only_admins)], middleware=middleware)


def _fastapi(auth: Any) -> Any:
    app = FastAPI(middleware=[SESSIONS], dependencies=[Depends(require(auth, optional=True))])
    app.get("/")(_fastapi_who)
    app.get("/admin")(_fastapi_admin)
    return app


async def _fastapi_who(request: Request) -> Any:
    return await who(request)


@requires("admin")
async def _fastapi_admin(request: Request) -> Any:
    return JSONResponse("in")


@pytest.mark.parametrize("make", [_starlette, _asgi, _fastapi])
async def test_a_request_with_a_token_is_not_the_sessions(make: Any) -> None:
    """`request.user` and `request.auth` are the token's, so that the rights of the session are not added to it."""
    async with serve(make(make_auth())) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        answer = await http.get("/", headers=ALICE)
        assert answer.json() == ["alice", "alice", ["authenticated", "chat:write"]]
        assert (await http.get("/admin", headers=ALICE)).status_code == 403


@pytest.mark.parametrize("make", [_asgi, _fastapi])
async def test_a_request_without_a_token_stays_the_sessions(make: Any) -> None:
    """Where a token is optional: it has no principal."""
    async with serve(make(make_auth())) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert (await http.get("/")).json()[:2] == [None, "admin"]
        assert (await http.get("/", headers={"authorization": "Bearer x"})).status_code == 401
