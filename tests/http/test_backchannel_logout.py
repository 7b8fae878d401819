"""Back-channel logout over real HTTP: a good request ends the sockets it means, and any other ends nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import fastapi
import httpx
import pytest
import starlette.applications
import starlette.routing
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from iogate import BackChannelLogout, ConfigurationError, JWTAuth, MemoryRevocations, Revocation, Server
from iogate.auth.logout import LOGOUT_EVENT
from iogate.http.logout import MAX_BODY, MAX_FIELDS
from tests import refusals
from tests.conformance.conftest import echo_server
from tests.conformance.wire import Session, client, echoes, enter, said, session, within
from tests.servers import SECRET, make_token, serve

ISSUER = "https://id.example.com"
CLIENT = "chat"
PATH = "/backchannel-logout"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
NOT_VALID = {"error": "invalid_request", "error_description": "the logout token is not valid"}

_numbers = iter(range(1_000_000))


def logout_token(*, header: dict[str, Any] | None = None, secret: str = SECRET, **claims: Any) -> str:
    """Sign a logout token that says nothing of whom; None leaves a claim out."""
    now = int(time.time())
    body: dict[str, Any] = {
        "sub": None,
        "iss": ISSUER,
        "aud": CLIENT,
        "iat": now,
        "exp": now + 120,
        "jti": f"logout-{next(_numbers)}",
        "events": {LOGOUT_EVENT: {}},
    }
    return make_token(secret=secret, header=header or {"alg": "HS256", "typ": "logout+jwt"}, **(body | claims))


def make_logout(io: Server, **settings: Any) -> BackChannelLogout:
    return BackChannelLogout(io, **{"issuer": ISSUER, "audience": CLIENT} | settings)


@contextlib.asynccontextmanager
async def served(io: Server, **settings: Any) -> AsyncIterator[str]:
    """Serve a server with the endpoint beside it."""
    try:
        async with serve(io.asgi(make_logout(io, **settings))) as url:
            yield url
    finally:
        await io.shutdown(timeout=1.0)


@pytest.fixture
def io() -> Server:
    return echo_server()


@pytest.fixture
async def url(io: Server) -> AsyncIterator[str]:
    async with served(io) as url:
        yield url


async def post(url: str, token: str) -> httpx.Response:
    """Send a logout token as a provider does."""
    async with client(url) as http:
        return await http.post(PATH, data={"logout_token": token})


async def sign_in(session: Session, **claims: Any) -> None:
    """Enter with an access token of the provider, issued a while ago."""
    signed: dict[str, Any] = {"iss": ISSUER, "iat": int(time.time()) - 10} | claims
    await enter(session, **signed)


async def is_revoked(session: Session) -> None:
    """Make sure that the server tells why, and ends the session."""
    packets = [str(packet) for packet in await said(session)]
    assert packets[-1] == "41"
    event, told = json.loads(packets[-2].removeprefix("42"))
    assert (event, told["data"]) == ("unauthorized", refusals.REVOKED["data"])


def is_refusal(answer: httpx.Response, status: int = 400) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error", "error_description"}


# Whom it ends.


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_logout_by_sid_ends_that_session_and_no_other(url: str, transport: str) -> None:
    """All sockets of it, and neither another session of the same person nor another issuer's of the same name."""
    async with contextlib.AsyncExitStack() as stack:
        tab, other_tab, phone, bob, foreign = [
            await stack.enter_async_context(session(url, transport)) for _ in range(5)
        ]
        await sign_in(tab, sid="s1")
        await sign_in(other_tab, sid="s1", jti="t2")
        await sign_in(phone, sid="s2")
        await sign_in(bob, sub="bob", sid="s3")
        await sign_in(foreign, sid="s1", iss="https://other.example.com")
        answer = await post(url, logout_token(sid="s1", sub="ann"))
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["cache-control"] == "no-store"
        await is_revoked(tab)
        await is_revoked(other_tab)
        for untouched in (phone, bob, foreign):
            await echoes(untouched)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_logout_by_sub_ends_all_of_that_person(url: str, transport: str) -> None:
    """Every session, also those that have no `sid`, and nobody else's."""
    async with contextlib.AsyncExitStack() as stack:
        tab, phone, bob, foreign = [await stack.enter_async_context(session(url, transport)) for _ in range(4)]
        await sign_in(tab, sid="s1")
        await sign_in(phone)
        await sign_in(bob, sub="bob", sid="s3")
        await sign_in(foreign, iss="https://other.example.com")
        assert (await post(url, logout_token(sub="ann"))).status_code == 200
        await is_revoked(tab)
        await is_revoked(phone)
        await echoes(bob)
        await echoes(foreign)


async def test_the_tokens_of_a_session_that_was_logged_out_are_refused(url: str) -> None:
    """The answer 200 promises it; a new session is let in."""
    assert (await post(url, logout_token(sid="s1"))).status_code == 200
    async with session(url, "websocket") as again:
        await again.send("40" + json.dumps({"token": make_token(iss=ISSUER, sid="s1")}))
        refusal = str(await within(again.receive()))
        assert json.loads(refusal.removeprefix("44")) == refusals.REVOKED
    async with session(url, "websocket") as new:
        await enter(new, iss=ISSUER, sid="s2")
        await echoes(new)


async def test_who_is_not_here_is_logged_out_too(url: str) -> None:
    """A provider tells everybody; where the person has no socket there is nothing to complain of."""
    assert (await post(url, logout_token(sub="nobody"))).status_code == 200


async def test_without_sessions_in_access_tokens_the_person_is_ended(io: Server) -> None:
    """A token with both ends the person; one with `sid` alone cannot be carried out, and is not answered as if."""
    async with served(io, sessions=False) as url, session(url, "websocket") as ann:
        await sign_in(ann)
        is_refusal(await post(url, logout_token(sid="s1")))
        await echoes(ann)
        assert (await post(url, logout_token(sid="s1", sub="ann"))).status_code == 200
        await is_revoked(ann)


@pytest.mark.parametrize(
    "header",
    [{"typ": "logout+jwt"}, {"typ": "application/Logout+JWT"}, {"typ": "JWT"}, {}, {"typ": "JWT", "kid": "k1"}],
)
async def test_the_types_that_providers_write_are_accepted(url: str, header: dict[str, Any]) -> None:
    """The one of the specification, the plain one, and none."""
    assert (await post(url, logout_token(header={"alg": "HS256"} | header, sub="nobody"))).status_code == 200


# What is refused.

BAD: dict[str, Callable[[], str]] = {
    "an access token": lambda: make_token(iss=ISSUER, aud=CLIENT, iat=int(time.time()), jti="t1", sid="s1"),
    "another key": lambda: logout_token(sid="s1", secret="another-secret-that-is-also-long-enough"),
    "no signature": lambda: logout_token(sid="s1").rpartition(".")[0] + ".",
    "algorithm none": lambda: logout_token(sid="s1", header={"alg": "none", "typ": "logout+jwt"}),
    "another algorithm": lambda: logout_token(sid="s1", header={"alg": "HS512", "typ": "logout+jwt"}),
    "tampered": lambda: _swapped(logout_token(sid="s2"), logout_token(sid="s1")),
    "another type": lambda: logout_token(sid="s1", header={"alg": "HS256", "typ": "at+jwt"}),
    "a security event": lambda: logout_token(sid="s1", header={"alg": "HS256", "typ": "secevent+jwt"}),
    "crit": lambda: logout_token(sid="s1", header={"alg": "HS256", "typ": "logout+jwt", "crit": ["x"], "x": 1}),
    "another issuer": lambda: logout_token(sid="s1", iss="https://other.example.com"),
    "another client": lambda: logout_token(sid="s1", aud="other"),
    "no issuer": lambda: logout_token(sid="s1", iss=None),
    "no audience": lambda: logout_token(sid="s1", aud=None),
    "no iat": lambda: logout_token(sid="s1", iat=None),
    "too old": lambda: logout_token(sid="s1", iat=int(time.time()) - 700),
    "in the future": lambda: logout_token(sid="s1", iat=int(time.time()) + 60),
    "expired": lambda: logout_token(sid="s1", exp=int(time.time()) - 60),
    "no exp": lambda: logout_token(sid="s1", exp=None),
    "no jti": lambda: logout_token(sid="s1", jti=None),
    "no events": lambda: logout_token(sid="s1", events=None),
    "another event": lambda: logout_token(sid="s1", events={"urn:example:other": {}}),
    "no object": lambda: logout_token(sid="s1", events={LOGOUT_EVENT: "yes"}),
    "a nonce": lambda: logout_token(sid="s1", nonce="n"),
    "nobody": lambda: logout_token(),
    "a number": lambda: logout_token(sid=1),
    "no token": lambda: "not.a.token",
    "nothing": lambda: "",
    "white space": lambda: " " + logout_token(sid="s1"),
    "five parts": lambda: "a.b.c.d.e",
    "too large": lambda: logout_token(sid="s1", padding="x" * 8000),
    "a great many dots": lambda: "." * (MAX_BODY - 100),
}


def _swapped(one: str, other: str) -> str:
    """Return a token with the claims of another."""
    head, _, signature = one.split(".")
    return f"{head}.{other.split('.')[1]}.{signature}"


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_logout_token_ends_nobody(url: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """One answer for all, so that it is no oracle; the log has the reason, and never the token."""
    caplog.set_level(logging.DEBUG)
    token = BAD[kind]()
    async with session(url, "websocket") as ann:
        await sign_in(ann, sid="s1")
        answer = await post(url, token)
        is_refusal(answer)
        assert answer.json() == NOT_VALID
        await echoes(ann)
    lines = [record.getMessage() for record in caplog.records if record.name == "iogate"]
    assert any(line.startswith("back-channel logout refused: ") for line in lines)
    assert not token.strip() or token.strip() not in caplog.text


async def test_a_logout_token_is_carried_out_once(url: str) -> None:
    """Whoever got hold of one cannot throw the person out again."""
    token = logout_token(sub="ann")
    assert (await post(url, token)).status_code == 200
    async with session(url, "websocket") as ann:
        await sign_in(ann, iat=time.time())
        answer = await post(url, token)
        is_refusal(answer)
        assert answer.json() == NOT_VALID
        await echoes(ann)


async def test_the_same_token_twice_at_the_same_moment_does_no_harm(url: str) -> None:
    """A provider that is impatient gets two answers, of which at least one says that it is done."""
    token = logout_token(sub="ann")
    answers = await asyncio.gather(*(post(url, token) for _ in range(5)))
    assert {answer.status_code for answer in answers} <= {200, 400}
    assert any(answer.status_code == 200 for answer in answers)
    is_refusal(await post(url, token))


# The request.


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_only_post_is_allowed(url: str, method: str) -> None:
    """A token in a URL is not even looked at."""
    async with client(url) as http:
        answer = await http.request(method, PATH, params={"logout_token": logout_token(sid="s1")})
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Content-Type", "application/json")],
        [("Content-Type", "multipart/form-data; boundary=x")],
        [("Content-Type", "text/plain")],
        [("Content-Type", "application/x-www-form-urlencoded-not")],
        [("Content-Type", FORM["Content-Type"]), ("Content-Type", FORM["Content-Type"])],
    ],
)
async def test_only_forms_are_read(url: str, headers: list[tuple[str, str]]) -> None:
    """Also no request that a page can send without asking, as text/plain."""
    async with client(url) as http:
        answer = await http.post(PATH, headers=headers, content=urlencode({"logout_token": logout_token(sid="s1")}))
    is_refusal(answer, 415)


async def test_the_content_type_may_have_parameters_and_any_case(url: str) -> None:
    """As HTTP says."""
    async with client(url) as http:
        answer = await http.post(
            PATH,
            headers={"Content-Type": "Application/X-WWW-Form-Urlencoded ; charset=UTF-8"},
            content=urlencode({"logout_token": logout_token(sub="nobody")}),
        )
    assert answer.status_code == 200


async def test_other_parameters_are_ignored(url: str) -> None:
    """A request may have them (section 2.5)."""
    async with client(url) as http:
        answer = await http.post(PATH, data={"a": "", "logout_token": logout_token(sub="nobody"), "b": "1"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        "",
        "&&",
        "logout_token",
        "token={}",
        "LOGOUT_TOKEN={}",
        "logout_token={}&logout_token={}",
        "logout_token={}&%6Cogout_token={}",
        "logout_token={}&broken",
        "logout_token={}&a=%FF",
        "logout_token={}&a=\xff",
        "logout_token={}" + "&a=1" * MAX_FIELDS,
    ],
)
async def test_a_form_without_exactly_one_logout_token_is_refused(url: str, body: str) -> None:
    """Which of two counts must never be a guess."""
    token = logout_token(sid="s1")
    async with session(url, "websocket") as ann, client(url) as http:
        await sign_in(ann, sid="s1")
        is_refusal(await http.post(PATH, headers=FORM, content=body.replace("{}", token).encode("latin-1")))
        await echoes(ann)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_is_not_read(url: str, chunked: bool) -> None:
    """Whether its length is announced or not; one of just the right size is."""
    start = urlencode({"logout_token": logout_token(sub="nobody"), "a": ""})

    def body(size: int) -> Iterator[bytes]:
        yield start.encode()
        yield b"x" * (size - len(start))

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for chunk in body(size):
            yield chunk

    async with client(url) as http:
        for size, status in ((MAX_BODY + 1, 413), (MAX_BODY, 200), (1_000_000, 413)):
            content = chunks(size) if chunked else b"".join(body(size))
            try:
                answer = await http.post(PATH, headers=FORM, content=content)
            except httpx.WriteError:
                assert size == 1_000_000  # The server had answered, and was not listening any more.
                continue
            assert answer.status_code == status


async def test_a_provider_that_leaves_in_the_middle_is_forgotten(io: Server) -> None:
    """Half a request is none: nothing is answered, and nobody is ended."""
    half = b"logout_token=" + logout_token(sid="s1").encode()
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": half, "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        pytest.fail(f"somebody was answered who has gone: {message}")

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", FORM["Content-Type"].encode())]}
    await make_logout(io)(scope, receive, send)
    assert isinstance(io._core.revocations, MemoryRevocations)
    assert len(io._core.revocations) == 0


async def test_a_websocket_is_not_served(url: str) -> None:
    """It is refused, without an error in the log."""
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(url.replace("http", "ws", 1) + PATH, proxy=None):
            pass
    assert refusal.value.response.status_code == 403


async def test_a_lifespan_is_left_to_others(io: Server) -> None:
    """As ASGI wants it said: by an exception."""

    async def nothing(*_: Any) -> Any:
        pytest.fail("nothing is received or sent")

    with pytest.raises(NotImplementedError):
        await make_logout(io)({"type": "lifespan"}, nothing, nothing)


# When the revocation cannot be kept.


class FullDisk(MemoryRevocations):
    """Revocations that cannot be saved at first."""

    __slots__ = ("full",)

    def __init__(self) -> None:
        super().__init__()
        self.full = True

    async def save(self, revocation: Revocation) -> None:
        if self.full:
            raise OSError("no space left on the device")


async def test_a_revocation_that_cannot_be_kept_is_asked_for_again() -> None:
    """The sockets end all the same, the provider is told to come again, and its token still counts when it does."""
    revocations = FullDisk()
    io = echo_server(revocations=revocations)
    token = logout_token(sid="s1")
    async with served(io) as url, session(url, "websocket") as ann:
        await sign_in(ann, sid="s1")
        answer = await post(url, token)
        is_refusal(answer, 503)
        assert answer.json()["error"] == "server_error"
        assert int(answer.headers["retry-after"]) > 0
        assert "space" not in answer.text
        await is_revoked(ann)
        revocations.full = False
        assert (await post(url, token)).status_code == 200
        is_refusal(await post(url, token))


# How it is put together.


def _starlette(logout: BackChannelLogout) -> Any:
    return starlette.applications.Starlette(routes=[starlette.routing.Route(PATH, logout)])


def _fastapi(logout: BackChannelLogout) -> Any:
    web = fastapi.FastAPI()
    web.routes.append(starlette.routing.Route(PATH, logout))
    return web


@pytest.mark.parametrize("mount", [_starlette, _fastapi])
async def test_it_is_mounted_as_its_docstring_says(io: Server, mount: Callable[[BackChannelLogout], Any]) -> None:
    """Under one path of a web application, beside which Socket.IO is served."""
    async with serve(io.asgi(mount(make_logout(io)))) as url, session(url, "websocket") as ann:
        await sign_in(ann, sid="s1")
        async with client(url) as http:
            assert (await http.post("/elsewhere", data={"logout_token": logout_token(sid="s1")})).status_code == 404
            assert (await http.get(PATH)).status_code == 405
        await echoes(ann)
        assert (await post(url, logout_token(sid="s1"))).status_code == 200
        await is_revoked(ann)


async def test_a_verifier_of_its_own_checks_the_logout_tokens(io: Server) -> None:
    """Where the provider signs them with another key than access tokens."""
    secret = "the-secret-for-logout-tokens-and-nothing-else"
    async with served(io, auth=JWTAuth(secret=secret, algorithms=["HS256"])) as url:
        is_refusal(await post(url, logout_token(sub="ann")))
        assert (await post(url, logout_token(sub="ann", secret=secret))).status_code == 200


async def test_a_provider_that_writes_no_exp_is_borne_if_that_is_said(io: Server) -> None:
    """Providers of before 2023 may."""
    async with served(io, require_exp=False, leeway=0) as url:
        assert (await post(url, logout_token(sub="ann", exp=None))).status_code == 200


def test_without_a_verifier_it_cannot_be_made() -> None:
    """Nor with an issuer or a client id that is none."""
    with pytest.raises(ConfigurationError, match="auth="):
        make_logout(Server(auth=None))
    for wrong in ({"issuer": ""}, {"audience": None}, {"leeway": -1}):
        with pytest.raises(ConfigurationError):
            make_logout(echo_server(), **wrong)
