"""What senders without a good token may cost an HTTP endpoint: log lines, bodies that do not come, readings of keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import Depends, FastAPI

from iogate import BodyField, Clock, JWTAuth, Server
from iogate.auth.logout import LOGOUT_EVENT
from iogate.errors import AuthUnavailable, InvalidToken, RevokedToken, TokenExpired
from iogate.http import Admitted, Guard, HTTPRequest, wsgi
from iogate.http.asgi import JWTMiddleware
from iogate.http.fastapi import require
from iogate.http.limits import BadRequests, Displaced, OpenRequests
from iogate.http.logout import BAD_ALLOWED
from iogate.http.refusals import MAX_LINES, WINDOW, RefusalLog
from iogate.server.session.handshake import Handshake
from iogate.testing import FakeClock
from tests.conformance.wire import WITHIN, client, within
from tests.gate.support import make_auth
from tests.http.test_backchannel_logout import FORM, PATH, logout_token, make_logout, post
from tests.keys.fixtures import issuer, server
from tests.keys.keyserver import KEYS, KeyServer, failure
from tests.keys.support import Issuer, jwk, key_set_url
from tests.servers import SECRET, make_server, make_token, serve

__all__ = ["issuer", "server"]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "iogate"]


async def until(happened: Callable[[], bool]) -> None:
    """Wait for what only the server sees, but not for ever."""
    async with asyncio.timeout(WITHIN):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def served(io: Server | None = None, **settings: Any) -> AsyncIterator[str]:
    """Serve an endpoint for logouts beside a server."""
    io = io or make_server()
    async with serve(io.asgi(make_logout(io, **settings))) as url:
        yield url


class Still(Clock):
    """A clock by which nothing is forgiven while a test runs."""

    def monotonic(self) -> float:
        return 1000.0


class Slow:
    """A request whose body does not come to its end."""

    def __init__(self, url: str) -> None:
        self.url = urlsplit(url)

    async def __aenter__(self) -> Slow:
        self.reader, self.writer = await asyncio.open_connection(self.url.hostname, self.url.port)
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM['Content-Type']}\r\ncontent-length: 1000\r\n\r\n"
        )
        self.writer.write(head.encode() + b"logout_token=x")
        await self.writer.drain()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def answer(self) -> str:
        """Return all of the answer: the server closes the connection."""
        return bytes(await within(self.reader.read())).decode()


# Back-channel logout.


async def test_an_address_that_sends_many_bad_logouts_is_told_to_wait_and_a_good_one_counts() -> None:
    """Row 42: whatever others at the address of the provider do, its token ends the session at once."""
    io = make_server(auth=make_auth(clock=Still()))
    async with served(io) as url, client(url) as http:
        answers = [await http.post(PATH, data={"logout_token": "x"}) for _ in range(BAD_ALLOWED + 10)]
        assert [answer.status_code for answer in answers] == [400] * BAD_ALLOWED + [429] * 10
        assert int(answers[-1].headers["retry-after"]) > 0
        assert (await http.post(PATH, data={"other": "x"})).status_code == 429
        assert (await http.get(PATH)).status_code == 429
        assert (await post(url, logout_token(sub="ann"))).status_code == 200
        assert len(io._core.revocations) == 1  # type: ignore[arg-type]


async def test_a_flood_of_bad_logouts_is_a_few_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The first with its reason, and the others as a count."""
    caplog.set_level(logging.INFO, "iogate")
    io = make_server()
    logout = make_logout(io)
    async with serve(io.asgi(logout)) as url, client(url) as http:
        for _ in range(100):
            await http.post(PATH, data={"logout_token": "x"})
        await http.post(PATH, data={"token": "x"})
    refused = [line for line in lines(caplog) if "back-channel" in line]
    assert len(refused) == 2
    assert refused[0].startswith("back-channel logout refused: invalid_token: ")
    assert refused[0].endswith("from 127.0.0.1")
    logout._log.flush()
    assert "back-channel logout: 99 more refused in the last minute; 99 of them with invalid_token" in caplog.text


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it has one deadline, whether or not some comes now and then."""
    monkeypatch.setattr("iogate.http.logout.BODY_TIMEOUT", 0.05)
    async with served() as url, Slow(url) as slow:
        answer = await slow.answer()
        assert answer.startswith("HTTP/1.1 408 ")
        assert "connection: close" in answer.lower()


async def test_when_too_many_are_open_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that requests that are held open lock no provider out."""
    io = make_server()
    logout = make_logout(io)
    logout._open = OpenRequests(2)
    async with serve(io.asgi(logout)) as url, Slow(url) as first:
        await until(lambda: len(logout._open) == 1)
        async with Slow(url) as second:
            await until(lambda: len(logout._open) == 2)
            assert (await post(url, logout_token(sub="ann"))).status_code == 200
            answer = await first.answer()
            assert answer.startswith("HTTP/1.1 429 ")
            assert "retry-after" in answer.lower()
            assert len(logout._open) == 1
            second.writer.close()
            await until(lambda: not logout._open)


def logout_of(issuer: Issuer, algorithm: str, kid: str | None = None, **claims: Any) -> str:
    now = int(issuer.clock.wall())
    more = {"aud": "chat", "iat": now, "exp": now + 60, "jti": f"{algorithm} {kid}", "events": {LOGOUT_EVENT: {}}}
    return issuer.token(algorithm, kid, **more | claims)


async def test_a_logout_token_with_an_invented_key_delays_no_access_token_of_a_new_key(
    server: KeyServer, issuer: Issuer
) -> None:
    """The one reading per cooldown is for them."""
    server.publish(jwk("ES256"))
    auth = issuer.auth(key_set_url(server, issuer))
    io = make_server(auth=auth)
    async with served(io, issuer=issuer.name) as url:
        assert (await post(url, logout_of(issuer, "ES256", "invented"))).status_code == 400
        assert server.count() == 2
        server.publish(jwk("ES256"), jwk("ES384"))
        assert (await auth.verify_async(issuer.token("ES384"))).subject == "alice"
        assert server.count() == 3


async def test_a_logout_token_of_a_new_key_counts_after_one_with_an_invented_key(
    server: KeyServer, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the next reading, which all share."""
    monkeypatch.setattr("iogate.http.logout.KEY_PAUSE", 0.1)
    server.publish(jwk("ES256"))
    io = make_server(auth=issuer.auth(key_set_url(server, issuer)))
    async with served(io, issuer=issuer.name) as url:
        bad = [post(url, logout_of(issuer, "ES256", f"invented {number}")) for number in range(10)]
        assert {answer.status_code for answer in await asyncio.gather(*bad)} == {400}
        assert server.count() <= 3
        server.publish(jwk("ES256"), jwk("ES384"))
        assert (await post(url, logout_of(issuer, "ES384"))).status_code == 200


async def test_invented_keys_cause_one_reading_in_so_many_seconds(
    server: KeyServer, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the next one too long is told to come again."""
    monkeypatch.setattr("iogate.http.logout.KEY_PAUSE", 60)
    monkeypatch.setattr("iogate.http.logout.VERIFY_TIMEOUT", 0.5)
    server.publish(jwk("ES256"))
    io = make_server(auth=issuer.auth(key_set_url(server, issuer)))
    async with served(io, issuer=issuer.name) as url:
        assert (await post(url, logout_of(issuer, "ES256", "invented"))).status_code == 400
        assert (await post(url, logout_of(issuer, "ES256", "invented too"))).status_code == 503
        assert server.count() == 2
        assert (await post(url, logout_of(issuer, "ES256"))).status_code == 200


async def test_where_the_keys_cannot_be_read_the_provider_is_told_to_come_again(
    server: KeyServer, issuer: Issuer
) -> None:
    """400 would make it give up."""
    server.publish(jwk("ES256"))
    io = make_server(auth=issuer.auth(key_set_url(server, issuer)))
    async with served(io, issuer=issuer.name) as url:
        server.answers[KEYS] = failure(500)
        answer = await post(url, logout_of(issuer, "ES384"))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0


# Guards.


async def test_a_flood_of_refused_requests_is_a_few_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """And what of a request is in the line is escaped and not long."""
    caplog.set_level(logging.INFO, "iogate")
    guard = Guard(make_auth())
    for number in range(200):
        head = [(b"authorization", b"Bearer x")]
        request = HTTPRequest(Handshake(head, path=f"/\n{number}" + "x" * 10_000, address=f"2001:db8::{number}"), "GET")
        with pytest.raises(InvalidToken):
            await guard.check(request)
    (line,) = lines(caplog)
    assert line.startswith(r"GET /\n0xxx")
    assert len(line) < 600


async def test_a_hook_that_fails_for_every_request_is_one_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """A stranger may be able to make it fail."""

    def find(request: Any) -> str:
        raise ValueError("the inside")

    guard = Guard(make_auth(), sources=[find])
    for _ in range(10):
        with pytest.raises(AuthUnavailable):
            await guard.check(HTTPRequest(Handshake(address="192.0.2.1"), "GET"))
    assert caplog.text.count("Traceback") == 1


@pytest.mark.parametrize("framework", ["ASGI", "FastAPI"])
async def test_a_body_with_a_token_that_does_not_come_is_not_waited_for(
    framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is answered 408, and the connection closed."""
    monkeypatch.setattr("iogate.http.body.BODY_TIMEOUT", 0.05)

    async def nobody(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    web = FastAPI()
    web.post(PATH, dependencies=[Depends(require(make_auth(), sources=[BodyField("t")]))])(lambda: "in")
    app = JWTMiddleware(nobody, make_auth(), sources=[BodyField("t")]) if framework == "ASGI" else web
    async with serve(make_server().asgi(app)) as url, Slow(url) as slow:
        answer = await slow.answer()
        assert answer.startswith("HTTP/1.1 408 ")
        assert "www-authenticate" not in answer.lower()


# What they are made of.


async def test_the_first_of_each_source_and_code_is_logged_and_the_others_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a minute; a network of 64 bits is one source, and there are not more lines than that however many send."""
    caplog.set_level(logging.INFO, "iogate")
    clock = FakeClock()
    log = RefusalLog("tests", clock)
    for address in ("192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2", None):
        log.add(address, "bad", "refused: %s", address)
    log.add("192.0.2.1", "worse", "refused: %s", "again")
    assert lines(caplog) == [
        "refused: 192.0.2.1",
        "refused: 2001:db8::1",
        "refused: 192.0.2.2",
        "refused: None",
        "refused: again",
    ]
    caplog.clear()
    for number in range(300):
        log.add(f"10.0.{number % 200}.{number}", "bad", "refused")
    assert len(lines(caplog)) == MAX_LINES - 5
    caplog.clear()
    log._due()
    assert not lines(caplog)
    clock.advance(WINDOW)
    log._due()
    (line,) = lines(caplog)
    assert line.startswith("tests: 207 more refused in the last minute; 1 of them with bad, from 192.0.2.1")
    caplog.clear()
    log.add("192.0.2.1", "bad", "refused")
    assert lines(caplog) == ["refused"]


def test_bad_requests_are_forgiven_with_time() -> None:
    """Each source has its own count, and not more sources are remembered than that."""
    clock = FakeClock()
    bad = BadRequests(2, 0.5, clock, sources=3)
    assert [bad.add("192.0.2.1") for _ in range(4)] == [False, False, True, True]
    assert not bad.add("192.0.2.2")
    clock.advance(2)
    assert [bad.add("192.0.2.1") for _ in range(2)] == [False, True]
    for number in range(10):
        bad.add(f"2001:db8:{number}::1")
    assert len(bad) == 3


async def test_the_source_with_the_most_open_requests_makes_room() -> None:
    """One that is slow by itself is not the victim of those that are many."""
    open_requests, reached = OpenRequests(3), asyncio.Event()

    async def hold(address: str) -> str:
        try:
            async with open_requests.open(address, 5):
                await reached.wait()
        except Displaced:
            return "displaced"
        return "done"

    addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.3"]
    tasks = [asyncio.create_task(hold(address)) for address in addresses]
    assert await within(tasks[1]) == "displaced"
    reached.set()
    assert await within(asyncio.gather(*tasks)) == ["done", "displaced", "done", "done"]
    assert len(open_requests) == 0


async def test_a_deadline_that_passes_is_no_displacement() -> None:
    open_requests = OpenRequests(1)
    with pytest.raises(TimeoutError):
        async with open_requests.open(None, 0.001):
            await asyncio.Event().wait()
    assert len(open_requests) == 0


# G11: after a wait, the identity is checked again before code of the application runs for it.


async def test_load_user_does_not_run_for_a_token_that_is_revoked_while_a_verifier_waits() -> None:
    """Row 43: a verifier of the application's may wait after it has verified."""
    loaded: list[str] = []

    class Waits(JWTAuth):
        async def verify_async(self, token: str) -> Any:
            principal = await super().verify_async(token)
            clock.advance(7200)
            return principal

    clock = FakeClock()
    auth = Waits(secret=SECRET, algorithms=["HS256"], clock=clock)

    @auth.load_user
    def load(claims: Mapping[str, Any]) -> str:
        loaded.append(claims["sub"])
        return "ann"

    head = [(b"authorization", b"Bearer " + make_token(exp=clock.wall() + 3600).encode())]
    with pytest.raises(TokenExpired):
        await Guard(auth).check(HTTPRequest(Handshake(head), "GET"))
    assert not loaded


async def test_a_token_revoked_while_its_key_is_fetched_loads_no_user(server: KeyServer, issuer: Issuer) -> None:
    """Row 43: nor does the endpoint run."""
    loaded: list[str] = []
    server.publish(jwk("ES256"))
    auth = issuer.auth(key_set_url(server, issuer))

    @auth.load_user
    def load(claims: Mapping[str, Any]) -> str:
        loaded.append(claims["sub"])
        return "ann"

    io = make_server(auth=auth)
    head = [(b"authorization", b"Bearer " + issuer.token().encode())]
    checking = asyncio.create_task(Guard(io).check(HTTPRequest(Handshake(head), "GET")))
    await asyncio.sleep(0)
    await io.revoke(subject="alice", issued_before=issuer.clock.wall() + 60)
    with pytest.raises(RevokedToken):
        await within(checking)
    assert not loaded


def test_a_token_revoked_while_the_thread_waits_for_the_verdict_is_refused() -> None:
    """Row 43: under WSGI the verdict comes from the event loop of another thread, and is looked at again."""
    io = make_server()

    class Slow(Guard):
        async def check(self, request: HTTPRequest) -> Admitted | None:
            admitted = await super().check(request)
            await io.revoke(subject="ann")
            return admitted

    head = [(b"authorization", b"Bearer " + make_token().encode())]
    with pytest.raises(RevokedToken):
        wsgi.check(Slow(io), HTTPRequest(Handshake(head), "GET"))
