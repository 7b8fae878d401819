"""A request is let through or refused in the same way in every framework: status, headers and body."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
import pytest

from iogate import (
    AuthPayload,
    BearerHeader,
    BodyField,
    Cookie,
    Header,
    JWTAuth,
    KeySetURL,
    Limits,
    Principal,
    Query,
    Refused,
    Server,
)
from iogate.http.guard import DoubleSubmit
from tests import refusals
from tests.gate.support import make_auth
from tests.http.frameworks import FRAMEWORKS, Made
from tests.servers import SECRET, make_token

Make = Callable[..., Made]
ORIGIN = "https://app.example"


@pytest.fixture(params=FRAMEWORKS)
def make(request: pytest.FixtureRequest) -> Make:
    return FRAMEWORKS[request.param]


@pytest.fixture(params=[name for name in FRAMEWORKS if name != "Starlette"])
def with_body(request: pytest.FixtureRequest) -> Make:
    """All but Starlette, which hands no body to who authenticates: there a BodyField is refused (test_guard.py)."""
    return FRAMEWORKS[request.param]


async def ask(made: Made, method: str = "GET", **details: Any) -> httpx.Response:
    """Serve, and send one request."""
    async with made as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        return await http.request(method, "/", **details)


def bearer(token: str | None = None, **claims: Any) -> dict[str, str]:
    """Return the header with a token: a good one unless another is given."""
    return {"authorization": f"Bearer {token or make_token(**claims)}"}


def content(answer: httpx.Response) -> Any:
    """Return what was refused with: FastAPI wraps that."""
    found = answer.json()
    return found.get("detail", found)


def assert_refused(answer: httpx.Response, status: int, refusal: Mapping[str, Any], challenge: str | None) -> None:
    """Compare all of an answer."""
    assert (answer.status_code, content(answer)) == (status, refusal["data"])
    assert answer.headers.get("www-authenticate") == challenge
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"


async def test_a_good_token_is_let_through(make: Make) -> None:
    answer = await ask(make(make_auth()), headers=bearer())
    assert (answer.status_code, answer.json()) == (200, {"sub": "ann", "user": None, "body": ""})


CHALLENGE = 'Bearer realm="api"'
INVALID = CHALLENGE + ', error="invalid_token", error_description="{}"'
REQUEST = CHALLENGE + ', error="invalid_request", error_description="Format is Authorization: Bearer [token]"'
ROWS: dict[str, tuple[dict[str, str], int, dict[str, Any], str]] = {
    "missing": ({}, 401, refusals.REQUIRED, CHALLENGE),
    "of another scheme": ({"authorization": "Basic YTpi"}, 401, refusals.BAD_SCHEME, CHALLENGE),
    "malformed": (bearer("x y"), 400, refusals.BAD_FORMAT, REQUEST),
    "too large": (bearer("x" * 9000), 400, refusals.BAD_FORMAT, REQUEST),
    "not a token": (bearer("x"), 401, refusals.INVALID, INVALID.format("invalid token")),
    "expired": (bearer(exp=1, aud="chat"), 401, refusals.EXPIRED, INVALID.format("jwt expired")),
    "of another secret": (bearer(make_token(secret="z" * 40)), 401, refusals.INVALID, INVALID.format("invalid token")),
    "for another audience": (bearer(aud="mail"), 401, refusals.INVALID, INVALID.format("invalid token")),
}


@pytest.mark.parametrize("row", ROWS)
async def test_a_token_that_is(make: Make, row: str) -> None:
    headers, status, refusal, challenge = ROWS[row]
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"], audience="chat")
    assert_refused(await ask(make(auth), headers=headers), status, refusal, challenge)
    assert (await ask(make(auth), headers=bearer(aud="chat"))).status_code == 200


async def test_a_token_without_the_scope(make: Make) -> None:
    challenge = (
        CHALLENGE + ', error="insufficient_scope", error_description="Insufficient scope", scope="chat:read chat:write"'
    )
    made = make(make_auth(), scopes="chat:write chat:read")
    assert_refused(await ask(made, headers=bearer(scope="chat:read")), 403, refusals.SCOPE, challenge)
    made = make(make_auth(), scopes="chat:write chat:read")
    assert (await ask(made, headers=bearer(scope="chat:write chat:read x"))).status_code == 200


@pytest.mark.parametrize("scope", ['a",b="c', "l\xe4sa", "\N{RIGHTWARDS ARROW}"])
async def test_a_scope_that_no_header_can_hold_is_not_told(make: Make, scope: str) -> None:
    answer = await ask(make(make_auth(), scopes=scope), headers=bearer())
    challenge = CHALLENGE + ', error="insufficient_scope", error_description="Insufficient scope"'
    assert_refused(answer, 403, refusals.SCOPE, challenge)


async def test_a_token_that_a_server_has_revoked(make: Make) -> None:
    auth = make_auth()
    io = Server(auth=auth)
    await io.revoke(token_id="1")
    answer = await ask(make(auth), headers=bearer(jti="1"))
    assert_refused(answer, 401, refusals.REVOKED, INVALID.format("The token has been revoked"))
    assert (await ask(make(io), headers=bearer(jti="1"))).status_code == 401
    assert (await ask(make(auth), headers=bearer(jti="2"))).status_code == 200


async def test_no_token_where_it_is_optional(make: Make) -> None:
    answer = await ask(make(make_auth(), optional=True))
    assert answer.json() == {"sub": None, "user": None, "body": ""}
    assert (await ask(make(make_auth(), optional=True), headers=bearer())).json()["sub"] == "ann"
    answer = await ask(make(make_auth(), optional=True), headers=bearer("x"))
    assert_refused(answer, 401, refusals.INVALID, INVALID.format("invalid token"))


async def test_two_tokens(make: Make) -> None:
    sources = [BearerHeader(), Query("token")]
    answer = await ask(make(make_auth(), sources=sources), headers=bearer(), params={"token": make_token()})
    assert_refused(answer, 400, refusals.BAD_FORMAT, REQUEST)


@pytest.mark.parametrize("keys", ["cannot be read", "are elsewhere", "raise"])
async def test_a_verdict_that_cannot_be_reached(make: Make, keys: str, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(JWTAuth):
        async def verify_async(self, token: str) -> Principal:
            raise RuntimeError("the inside")

    async def away(header: Any, claims: Any) -> None:
        raise ConnectionError("the inside")

    broken = Broken(secret=SECRET, algorithms=["HS256"])
    nobody_there = KeySetURL("http://127.0.0.1:1/jwks.json", network="loopback", cooldown=1)
    auth = {
        "raise": broken,
        "cannot be read": JWTAuth(keys=away, algorithms=["HS256"]),
        "are elsewhere": JWTAuth(keys=nobody_there, algorithms=["ES256"], issuer="somebody"),
    }[keys]
    elsewhere: dict[str, Any] = {"header": {"alg": "ES256", "typ": "JWT"}, "iss": "somebody"}
    token = make_token(**elsewhere) if keys == "are elsewhere" else make_token()
    answer = await ask(make(auth), headers=bearer(token))
    assert_refused(answer, 503, refusals.UNAVAILABLE, None)
    assert answer.headers["retry-after"] == "5"
    assert "the inside" not in answer.text


async def test_the_user_that_is_loaded(make: Make) -> None:
    auth = make_auth()

    @auth.load_user
    async def load(claims: Mapping[str, Any]) -> object:
        if claims["sub"] == "nobody":
            return None
        if claims["sub"] == "banned":
            raise Refused("You are banned", data={"code": "banned"})
        if claims["sub"] == "broken":
            raise ConnectionError("the inside")
        return {"name": claims["sub"].title()}

    assert (await ask(make(auth), headers=bearer())).json()["user"] == {"name": "Ann"}
    answer = await ask(make(auth), headers=bearer(sub="nobody"))
    assert_refused(answer, 401, refusals.INVALID, INVALID.format("invalid token"))
    answer = await ask(make(auth), headers=bearer(sub="banned"))
    assert (answer.status_code, content(answer)) == (403, {"message": "You are banned", "data": {"code": "banned"}})
    assert_refused(await ask(make(auth), headers=bearer(sub="broken")), 503, refusals.UNAVAILABLE, None)


async def test_bad_tokens_of_an_address_with_too_many_are_answered_as_on_sockets(make: Make) -> None:
    """A good one from the same address is accepted."""
    io = Server(auth=make_auth(), limits=Limits(failures_per_address=1))
    for _ in range(5):
        io._core.gate.failures.add("127.0.0.1")
    answer = await ask(make(io), headers=bearer("x"))
    assert_refused(answer, 429, refusals.ATTEMPTS, None)
    assert (await ask(make(io), headers=bearer())).status_code == 200
    io = Server(auth=make_auth())
    await ask(make(io), headers=bearer("x"))
    assert len(io._core.gate.failures) == 1


# Where the token may be.


async def test_every_source_is_read(make: Make) -> None:
    token = make_token()

    async def found(request: Any) -> str | None:
        value = request.headers.get("x-found")
        return str(value) if value else None

    def found_plainly(request: Any) -> str | None:
        return request.headers.get("x-plain") or None

    cases: list[tuple[Any, dict[str, Any]]] = [
        (Header("X-Token"), {"headers": {"x-token": token}}),
        (Header("Authorization", scheme="JWT"), {"headers": {"authorization": f"jwt {token}"}}),
        (Query("t"), {"params": {"t": token}}),
        (found, {"headers": {"x-found": token}}),
        (found_plainly, {"headers": {"x-plain": token}}),
    ]
    sources = [AuthPayload(), *(source for source, _ in cases)]
    async with make(make_auth(), sources=sources) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        for source, details in cases:
            answer = await http.get("/", **details)
            assert (answer.status_code, answer.json().get("sub")) == (200, "ann"), source
        bad = await http.get("/", headers={"authorization": f"Bearer {token}"})
        assert bad.status_code == 401
        for two in (
            {"params": {"t": token}, "headers": {"x-plain": token}},
            {"params": {"t": [token, token]}},
            {"headers": [("x-token", token), ("x-token", token)]},
        ):
            assert (await http.get("/", **two)).status_code == 400, two


@pytest.mark.parametrize("kind", ["form", "json"])
async def test_a_token_in_the_body_is_read_and_the_body_left_as_it_was(with_body: Make, kind: str) -> None:
    fields = {"token": make_token(), "text": "hällo"}
    made = with_body(make_auth(), sources=[BodyField("token")])
    answer = await ask(made, "POST", **({"data": fields} if kind == "form" else {"json": fields}))
    assert (answer.status_code, answer.json()["sub"]) == (200, "ann")
    assert "h" in answer.json()["body"]
    assert fields["token"] in answer.json()["body"]


@pytest.mark.parametrize(
    ("details", "status"),
    [
        ({"data": {"token": "x"}}, 401),
        ({"content": "token=a&token=b", "headers": {"content-type": "application/x-www-form-urlencoded"}}, 400),
        ({"content": '{"token":"a","token":"b"}', "headers": {"content-type": "application/json"}}, 401),
        ({"content": '["x"]', "headers": {"content-type": "application/json"}}, 401),
        ({"content": "{", "headers": {"content-type": "application/json"}}, 401),
        ({"json": {"token": 1}}, 400),
        ({"json": {"token": ""}}, 400),
        ({"json": {"text": "x" * 70_000}}, 400),
        ({"content": f"token={make_token()}", "headers": {"content-type": "text/plain"}}, 401),
    ],
)
async def test_a_body_without_a_good_token(with_body: Make, details: dict[str, Any], status: int) -> None:
    answer = await ask(with_body(make_auth(), sources=[BodyField("token")]), "POST", **details)
    assert answer.status_code == status


@pytest.mark.parametrize("optional", [False, True])
async def test_a_form_may_have_several_values_for_a_field_but_one_token(with_body: Make, optional: bool) -> None:
    form: dict[str, Any] = {"token": make_token(), "tag": ["a", "b"]}
    settings: dict[str, Any] = {"sources": [BodyField("token")], "optional": optional}
    assert (await ask(with_body(make_auth(), **settings), "POST", data=form)).json()["sub"] == "ann"
    twice = {"token": [make_token(), make_token(sub="bob")]}
    answer = await ask(with_body(make_auth(), **settings), "POST", data=twice)
    assert_refused(answer, 400, refusals.BAD_FORMAT, REQUEST)


async def test_a_body_of_unknown_length_is_left_alone(with_body: Make) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield json.dumps({"token": make_token()}).encode()

    made = with_body(make_auth(), sources=[BodyField("token")])
    answer = await ask(made, "POST", content=body(), headers={"content-type": "application/json"})
    assert answer.status_code == 401


# Cookies.


def cookie(**more: str) -> dict[str, str]:
    pairs = {"__Host-token": make_token(), **more}
    return {"cookie": "; ".join(f"{name}={value}" for name, value in pairs.items())}


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("POST", {}, 403),
        ("DELETE", {}, 403),
        ("POST", {"origin": ORIGIN}, 200),
        ("POST", {"origin": "https://app.example.evil"}, 403),
        ("POST", {"origin": "null"}, 403),
    ],
)
async def test_a_cookie_counts_if_the_page_may_send_it(
    make: Make, method: str, headers: dict[str, str], status: int
) -> None:
    made = make(make_auth(), sources=[Cookie("__Host-token")], origins=[ORIGIN])
    answer = await ask(made, method, headers=cookie() | headers)
    assert answer.status_code == status
    if status == 403:
        assert content(answer)["code"] == "cross_site"
        assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("sent", "header", "status"),
    [("abc", "abc", 200), ("abc", "abd", 403), ("abc", "", 403), ("", "", 403), ("", "abc", 403)],
)
async def test_a_cookie_counts_if_another_one_is_sent_twice(make: Make, sent: str, header: str, status: int) -> None:
    made = make(make_auth(), sources=[Cookie("__Host-token")], csrf=DoubleSubmit())
    headers = cookie(**({"__Host-csrf": sent} if sent else {})) | ({"x-csrf-token": header} if header else {})
    assert (await ask(made, "POST", headers=headers)).status_code == status


async def test_a_token_in_a_header_needs_no_such_thing(make: Make) -> None:
    made = make(make_auth(), sources=[Cookie("__Host-token"), BearerHeader()], origins=[ORIGIN])
    assert (await ask(made, "POST", headers=bearer())).status_code == 200


async def test_nothing_of_a_token_is_told_or_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="iogate")
    tokens = [make_token(secret="z" * 40), make_token(exp=1)]
    for token in tokens:
        answer = await ask(make(make_auth()), headers=bearer(token))
        told = answer.text + json.dumps(dict(answer.headers))
        assert token.split(".")[-1] not in told + caplog.text


@pytest.fixture(params=[name for name in FRAMEWORKS if name not in ("WSGI", "Flask", "Django, WSGI")])
def on_asgi(request: pytest.FixtureRequest) -> Make:
    """All but those under WSGI, whose servers log a request before anybody can change it."""
    return FRAMEWORKS[request.param]


async def test_a_token_in_the_url_is_not_in_the_log_of_the_asgi_server(
    on_asgi: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="uvicorn.access")
    settings = {"sources": [Query("t")]}
    for token, status in ((make_token(), 200), (make_token(exp=1), 401)):
        answer = await ask(on_asgi(make_auth(), **settings), params={"t": token, "text": "hello"})
        assert answer.status_code == status
        assert token.split(".")[-1] not in caplog.text
    assert caplog.text.count("text=hello") == 2  # The log was on.
