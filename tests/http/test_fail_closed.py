"""What goes wrong on the way to the verdict over a request is a refusal, and takes nothing else along."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

import httpx
import pytest
from fastapi import Body, Depends, FastAPI, Form
from starlette.authentication import AuthenticationError
from starlette.requests import HTTPConnection

from iogate import (
    AuthUnavailable,
    BodyField,
    InvalidToken,
    JWTAuth,
    Limits,
    Refused,
    RevokedToken,
    Server,
    TokenExpired,
    TooManyAttempts,
    background,
)
from iogate.http.asgi import JWTMiddleware
from iogate.http.body import MAX_BODY, MAX_FIELDS, fields_of, length_with_fields
from iogate.http.fastapi import require
from iogate.http.guard import Guard, HTTPRequest
from iogate.http.starlette import JWTBackend
from iogate.http.wsgi import check
from iogate.server.session.handshake import Handshake
from tests import refusals
from tests.conformance.wire import polling, within
from tests.gate.support import SteppedClock, make_auth
from tests.http.frameworks import FRAMEWORKS, Made
from tests.servers import make_token, serve

GOOD = {"authorization": f"Bearer {make_token()}"}


def request_with(token: str | None = None) -> HTTPRequest:
    """Return a request with a token: a good one unless another is given."""
    return HTTPRequest(
        Handshake([(b"authorization", f"Bearer {token or make_token()}".encode())], address="::1"), "GET"
    )


def auth_with(load: Callable[[Any], Any], **settings: Any) -> JWTAuth:
    """Return a verifier whose users are loaded so."""
    auth = make_auth(**settings)
    auth.load_user(load)
    return auth


# While a user is loaded.


async def test_a_token_that_is_revoked_while_its_user_is_loaded_is_refused() -> None:
    async def load(claims: Mapping[str, Any]) -> str:
        await io.revoke(subject=claims["sub"])
        return "ann"

    io = Server(auth=auth_with(load))
    for guard in (Guard(io), Guard(io._core.auth)):  # type: ignore[arg-type]
        with pytest.raises(RevokedToken):
            await guard.check(request_with())


async def test_a_token_that_expires_while_its_user_is_loaded_is_refused() -> None:
    clock = SteppedClock()

    def load(claims: Mapping[str, Any]) -> str:
        clock.step = 7200
        return "ann"

    with pytest.raises(TokenExpired):
        await Guard(auth_with(load, clock=clock)).check(request_with())


async def test_who_is_no_user_counts_against_the_address_as_on_sockets() -> None:
    io = Server(auth=auth_with(lambda claims: None), limits=Limits(failures_per_address=1))
    with pytest.raises(InvalidToken):
        await Guard(io).check(request_with())
    assert len(io._core.gate.failures) == 1


async def test_behind_a_trusted_proxy_it_is_the_client_that_is_turned_away() -> None:
    io = Server(auth=make_auth(), limits=Limits(failures_per_address=1), trusted_proxies=["10.0.0.0/8"])
    guard = Guard(io)

    def of(client: str, token: str) -> HTTPRequest:
        head = [(b"authorization", f"Bearer {token}".encode()), (b"x-forwarded-for", client.encode())]
        return HTTPRequest(Handshake(head, address="10.0.0.1"), "GET")

    for expected in (InvalidToken, InvalidToken, TooManyAttempts):
        with pytest.raises(expected):
            await guard.check(of("192.0.2.1", "x"))
    assert await guard.check(of("192.0.2.1", make_token())) is not None
    with pytest.raises(InvalidToken):
        await guard.check(of("192.0.2.2", "x"))


async def test_a_hook_that_does_not_end_is_no_verdict() -> None:
    guard = Guard(auth_with(lambda claims: asyncio.Event().wait()), timeout=0.01)
    with pytest.raises(AuthUnavailable):
        await within(guard.check(request_with()))


# What hooks may raise.


class _Odd(BaseException): ...


@pytest.mark.parametrize("error", [asyncio.CancelledError(), _Odd(), GeneratorExit(), ValueError("the inside")])
async def test_whatever_a_hook_raises_is_a_refusal(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    def load(claims: Mapping[str, Any]) -> Any:
        raise error

    with pytest.raises(AuthUnavailable, match="the verdict failed"):
        await Guard(auth_with(load)).check(request_with())
    assert type(error).__name__ in caplog.text
    with pytest.raises(AuthUnavailable, match="the verdict failed"):
        await asyncio.to_thread(check, Guard(auth_with(load)), request_with())


async def test_a_request_whose_client_has_gone_is_cancelled_and_not_refused() -> None:
    reached = asyncio.Event()

    async def load(claims: Mapping[str, Any]) -> Any:
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Guard(auth_with(load)).check(request_with()))
    await within(reached.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_hook_that_exits_does_not_take_the_loop_of_the_others_along(caplog: pytest.LogCaptureFixture) -> None:
    def load(claims: Mapping[str, Any]) -> Any:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        background.run(Guard(auth_with(load)).check(request_with()), timeout=5)
    assert background.run(Guard(make_auth()).check(request_with()), timeout=5) is not None
    assert "goes on" in caplog.text


@pytest.mark.parametrize("make", FRAMEWORKS.values(), ids=FRAMEWORKS)
async def test_a_refusal_that_has_no_json_is_one_all_the_same(make: Callable[..., Made]) -> None:
    def load(claims: Mapping[str, Any]) -> Any:
        raise Refused("no", data=object())

    async with make(auth_with(load)) as url, httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(url, headers=GOOD)
    assert answer.status_code == 503
    assert answer.json().get("detail", answer.json()) == refusals.UNAVAILABLE["data"]


async def test_a_function_that_raises_where_the_token_is_looked_for_lets_nobody_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def find(request: Any) -> str:
        raise ValueError("the inside")

    auth = make_auth(sources=[find])
    with pytest.raises(AuthUnavailable):
        await Guard(auth).check(request_with())
    async with serve(Server(auth=auth)) as url, polling(url) as client:
        await client.send("40")  # A request with the id of a session, whose credential is looked at.
        answer = await within(client.receive())
    assert isinstance(answer, str)
    assert json.loads(answer.removeprefix("44")) == refusals.UNAVAILABLE
    assert "the inside" in caplog.text


# FastAPI reads bodies before it asks for dependencies.


async def test_a_field_of_a_body_that_fastapi_has_read_already_is_found() -> None:
    app = FastAPI()
    user = require(make_auth(), sources=[BodyField("token")])

    @app.post("/form")
    async def form(text: Annotated[str, Form()], principal: Any = Depends(user)) -> str:  # noqa: B008
        return f"{principal.subject}: {text}"

    @app.post("/json")
    async def json_(text: Annotated[str, Body(embed=True)], principal: Any = Depends(user)) -> str:  # noqa: B008
        return f"{principal.subject}: {text}"

    fields = {"token": make_token(), "text": "hello"}
    async with serve(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert (await http.post("/form", data=fields)).json() == "ann: hello"
        assert (await http.post("/json", json=fields)).json() == "ann: hello"
        assert (await http.post("/form", data={"text": "hello"})).status_code == 401
        twice = await http.post("/form", data={"token": [make_token(), make_token(sub="bob")], "text": "hello"})
        assert twice.status_code == 400


# Bodies that are not what was said.


@pytest.mark.parametrize(
    "sent",
    [
        [{"type": "http.request", "body": b" " * (MAX_BODY + 1)}],
        [{"type": "http.request", "body": b" " * MAX_BODY, "more_body": True}] * 2,
        [{"type": "http.request", "body": b"text=a", "more_body": True}, {"type": "http.disconnect"}],
    ],
    ids=["longer than it says", "longer than it says, in parts", "broken off"],
)
async def test_a_body_that_is_not_what_its_head_says_is_refused(sent: list[dict[str, Any]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it was let through")

    answers: list[Any] = []
    parts = iter(sent)

    async def receive() -> Any:
        return next(parts)

    async def send(message: Any) -> None:
        answers.append(message)

    head = [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"6")]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": head}
    guarded = JWTMiddleware(app, make_auth(), sources=[BodyField("token")], optional=True)
    await guarded(scope, receive, send)
    assert answers[0]["status"] == 400


@pytest.mark.parametrize(
    "said", ["", "x", "-1", "+1", "1.0", "5, 5", "\N{ARABIC-INDIC DIGIT THREE}", "\N{SUPERSCRIPT TWO}"]
)
def test_a_body_that_does_not_say_how_long_it_is_is_not_read(said: str) -> None:
    handshake = Handshake([(b"content-type", b"application/json")])
    handshake.headers = {**handshake.headers, "content-length": said}
    assert length_with_fields(handshake) == 0


async def test_what_is_neither_a_request_nor_the_life_of_the_server_comes_to_no_application() -> None:
    came: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        came.append(scope["type"])

    guarded, nobody = JWTMiddleware(app, make_auth()), cast("Any", None)
    await guarded({"type": "lifespan"}, nobody, nobody)
    with pytest.raises(KeyError):
        await guarded({"type": "of another time"}, nobody, nobody)
    assert came == ["lifespan"]


def test_a_form_with_too_many_fields_has_none() -> None:
    form = Handshake([(b"content-type", b"application/x-www-form-urlencoded")])
    body = "&".join(f"a{number}=1" for number in range(MAX_FIELDS))
    assert len(fields_of(form, body.encode())) == MAX_FIELDS
    assert fields_of(form, f"{body}&token=x".encode()) == {}


def test_starlette_answers_nothing_that_is_not_of_the_gate() -> None:
    with pytest.raises(AuthenticationError, match="somebody else"):
        JWTBackend.on_error(HTTPConnection({"type": "http"}), AuthenticationError("somebody else's"))
