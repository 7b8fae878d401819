"""The gate on the wire: who is refused is told exactly what the contract says, and gets nothing else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from iogate import AuthPayload, BearerHeader, Cookie, JWTAuth, Query, Refused, Server, Socket
from tests.conformance.conftest import echo_server
from tests.conformance.wire import (
    POLLING,
    WEBSOCKET,
    Polling,
    WebSocket,
    client,
    echoes,
    ends,
    enter,
    polling,
    raw_websocket,
    said,
    session,
    websocket,
    within,
)
from tests.refusals import BAD_FORMAT, BAD_SCHEME, EXPIRED, INVALID, REQUIRED, UNAVAILABLE
from tests.servers import SECRET, make_token, serve

LONG_AGO = 1_700_000_000
GOOD = make_token()


def written(payload: Any, namespace: str = "") -> str:
    """Return a CONNECT_ERROR as it stands on the wire."""
    prefix = f"{namespace}," if namespace else ""
    return f"44{prefix}" + json.dumps(payload, separators=(",", ":"))


# All that can be wrong with a token is in tests/attacks: here it is "garbage".
BAD_PAYLOADS = {
    "nothing": ("", REQUIRED),
    "empty object": ("{}", REQUIRED),
    "null": ('{"token":null}', REQUIRED),
    "another member": ('{"jwt":"x"}', REQUIRED),
    "scheme": ('{"token":"Basic eDp5"}', BAD_SCHEME),
    "digest": ('{"token":"Digest x"}', BAD_SCHEME),
    "number": ('{"token":1}', BAD_FORMAT),
    "true": ('{"token":true}', BAD_FORMAT),
    "list": ('{"token":["' + GOOD + '"]}', BAD_FORMAT),
    "object": ('{"token":{}}', BAD_FORMAT),
    "empty": ('{"token":""}', BAD_FORMAT),
    "scheme alone": ('{"token":"Bearer "}', BAD_FORMAT),
    "two in one": ('{"token":"Bearer ' + GOOD + " " + GOOD + '"}', BAD_FORMAT),
    "garbage": ('{"token":"garbage"}', INVALID),
    "expired": (f'{{"token":"{make_token(exp=LONG_AGO)}"}}', EXPIRED),
}


@pytest.mark.parametrize(("payload", "refusal"), BAD_PAYLOADS.values(), ids=BAD_PAYLOADS)
async def test_a_bad_payload_is_refused_to_the_byte_and_the_transport_is_closed(
    io: Server, url: str, transport: str, payload: str, refusal: dict[str, Any]
) -> None:
    ran: list[Any] = []
    io.on("connect", ran.append)
    async with session(url, transport) as opened:
        await opened.send("40" + payload)
        assert await said(opened) == [written(refusal)]
    assert ran == []
    assert await io.fetch_sockets() == []


async def test_a_refusal_names_the_namespace(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await opened.send('40/other,{"token":"bad"}')
        assert await said(opened) == [written(INVALID, "/other")]


async def test_without_an_identity_an_unknown_namespace_looks_like_any_other(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await opened.send("40/nope,")
        assert await said(opened) == [written(REQUIRED, "/nope")]


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        ("Basic eDp5", BAD_SCHEME),
        ("Bearer", BAD_FORMAT),
        (GOOD, BAD_FORMAT),
        (f"Bearer {GOOD} x", BAD_FORMAT),
        ("Bearer garbage", INVALID),
        (f"Bearer {make_token(exp=LONG_AGO)}", EXPIRED),
    ],
    ids=["scheme", "alone", "no scheme", "more", "garbage", "expired"],
)
async def test_a_bad_header_is_refused(url: str, transport: str, header: str, refusal: dict[str, Any]) -> None:
    opening = polling if transport == "polling" else websocket
    opened: Polling | WebSocket
    async with opening(url, Authorization=header) as opened:
        await opened.send("40")
        assert await said(opened) == [written(refusal)]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_scheme_in_any_case_is_taken_in_header_and_payload(url: str, transport: str, scheme: str) -> None:
    opening = polling if transport == "polling" else websocket
    opened: Polling | WebSocket
    async with opening(url, Authorization=f"{scheme} {GOOD}") as opened:
        await opened.send("40")
        assert str(await within(opened.receive())).startswith('40{"sid":"')
    async with session(url, transport) as plain:
        await plain.send("40" + json.dumps({"token": f"{scheme} {GOOD}"}))
        assert str(await within(plain.receive())).startswith('40{"sid":"')


async def test_two_tokens_are_refused_even_if_they_are_the_same(url: str, transport: str) -> None:
    opening = polling if transport == "polling" else websocket
    opened: Polling | WebSocket
    async with opening(url, Authorization=f"Bearer {GOOD}") as opened:
        await opened.send("40" + json.dumps({"token": GOOD}))
        assert await said(opened) == [written(BAD_FORMAT)]


async def test_a_header_that_comes_twice_is_refused(url: str) -> None:
    async with client(url) as http:
        opened = Polling(http)
        answer = await http.get(
            "/socket.io/",
            params=POLLING,
            headers=[("Authorization", f"Bearer {GOOD}"), ("Authorization", f"Bearer {GOOD}")],
        )
        opened.handshake = json.loads(answer.text[1:])
        await opened.send("40")
        assert await said(opened) == [written(BAD_FORMAT)]


async def test_a_token_in_the_query_is_taken_where_that_is_enabled(transport: str) -> None:
    enabled = JWTAuth(
        secret=SECRET, algorithms=["HS256"], sources=(AuthPayload("token"), BearerHeader(), Query("token"))
    )
    async with serve(echo_server(auth=enabled)) as url:
        for token, expected in ((GOOD, '40{"sid":"'), ("bad", written(INVALID)), ("", written(BAD_FORMAT))):
            if transport == "polling":
                async with client(url) as http:
                    opened = Polling(http)
                    answer = await http.get("/socket.io/", params={**POLLING, "token": token})
                    opened.handshake = json.loads(answer.text[1:])
                    await opened.send("40")
                    assert str(await within(opened.receive())).startswith(expected)
            else:
                async with raw_websocket(url, {**WEBSOCKET, "token": token}) as connection:
                    over = WebSocket(connection)
                    await over.open()
                    await over.send("40")
                    assert str(await within(over.receive())).startswith(expected)


async def test_a_token_in_a_cookie_is_taken_from_the_pages_that_may(transport: str) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"], sources=(Cookie("session"),))
    page = "https://app.example.com"
    opening = polling if transport == "polling" else websocket
    opened: Polling | WebSocket
    async with serve(echo_server(auth=auth, cors_allowed_origins=[page])) as url:
        async with opening(url, Cookie=f"a=b; session={GOOD}; c=d", Origin=page) as opened:
            await opened.send("40")
            assert str(await within(opened.receive())).startswith('40{"sid":"')
        async with opening(url, Cookie=f"session={GOOD}x", Origin=page) as opened:
            await opened.send("40")
            assert await said(opened) == [written(INVALID)]


async def test_a_middleware_refuses_with_its_own_words(io: Server, url: str, transport: str) -> None:
    @io.use
    async def closed(socket: Socket) -> None:
        raise Refused("closed", data={"code": "closed"})

    async with session(url, transport) as opened:
        await opened.send("40" + json.dumps({"token": GOOD}))
        assert await said(opened) == ['44{"message":"closed","data":{"code":"closed"}}']


async def test_a_refusal_without_data_has_none(io: Server, url: str, transport: str) -> None:
    @io.use
    def closed(socket: Socket) -> None:
        raise Refused("closed")

    async with session(url, transport) as opened:
        await opened.send("40" + json.dumps({"token": GOOD}))
        assert await said(opened) == ['44{"message":"closed"}']


@pytest.mark.parametrize(
    "error", [ValueError("hunter2"), KeyError("hunter2"), asyncio.CancelledError(), TimeoutError()], ids=repr
)
async def test_a_middleware_that_fails_refuses_and_tells_nothing(
    io: Server, url: str, transport: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    @io.use
    async def broken(socket: Socket) -> None:
        raise error

    async with session(url, transport) as opened:
        await opened.send("40" + json.dumps({"token": GOOD}))
        assert await said(opened) == [written(UNAVAILABLE)]
    assert await io.fetch_sockets() == []
    assert GOOD not in caplog.text


async def test_a_loader_that_finds_nobody_refuses(transport: str) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])

    @auth.load_user
    def nobody(claims: Any) -> None:
        return None

    async with serve(echo_server(auth=auth)) as url, session(url, transport) as opened:
        await opened.send("40" + json.dumps({"token": GOOD}))
        assert await said(opened) == [written(INVALID)]


async def test_a_loader_that_fails_refuses_and_tells_nothing(transport: str) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])

    @auth.load_user
    async def broken(claims: Any) -> Any:
        raise LookupError("hunter2")

    async with serve(echo_server(auth=auth)) as url, session(url, transport) as opened:
        await opened.send("40" + json.dumps({"token": GOOD}))
        assert await said(opened) == [written(UNAVAILABLE)]


async def test_a_verdict_that_does_not_come_is_a_refusal_at_the_deadline(transport: str) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])
    cancelled = asyncio.Event()

    @auth.load_user
    async def stuck(claims: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    io = echo_server(auth=auth, connect_timeout=0.3)
    async with serve(io) as url, session(url, transport) as opened:
        await opened.send("40" + json.dumps({"token": GOOD}))
        assert await said(opened) == [written(UNAVAILABLE)]
        await within(cancelled.wait())
        assert await io.fetch_sockets() == []


async def test_a_guest_needs_no_token_but_a_bad_one_is_refused(transport: str) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"], guests=True)
    async with serve(echo_server(auth=auth)) as url:
        for payload in ("", "{}"):
            async with session(url, transport) as opened:
                await opened.send("40" + payload)
                assert str(await within(opened.receive())).startswith('40{"sid":"')
        for name, (payload, refusal) in BAD_PAYLOADS.items():
            if refusal is REQUIRED:
                continue
            async with session(url, transport) as opened:
                await opened.send("40" + payload)
                assert await said(opened) == [written(refusal)], name


async def test_nothing_reaches_a_client_before_the_verdict_nor_anything_from_it(transport: str) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])
    asked, release = asyncio.Event(), asyncio.Event()

    @auth.load_user
    async def slow(claims: Any) -> Any:
        asked.set()
        await release.wait()
        return claims

    io = echo_server(auth=auth)
    async with serve(io) as url, session(url, transport) as opened:
        await opened.send("40" + json.dumps({"token": GOOD}))
        await within(asked.wait())
        io.emit("secret", 1)
        io.to("user:ann").emit("secret", 2)
        assert await io.fetch_sockets() == []
        release.set()
        assert str(await within(opened.receive())).startswith('40{"sid":"')
        io.emit("news")
        assert await within(opened.receive()) == '42["news"]'


async def test_who_leaves_while_the_verdict_is_pending_leaves_nothing_behind(transport: str) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])
    asked, ended = asyncio.Event(), asyncio.Event()

    @auth.load_user
    async def slow(claims: Any) -> Any:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    io = echo_server(auth=auth)
    async with serve(io) as url, session(url, transport) as opened:
        await opened.send("40" + json.dumps({"token": GOOD}))
        await within(asked.wait())
        await opened.send("1")
        await within(ended.wait())
        assert await io.fetch_sockets() == []
        assert io._core.sessions.table == {}


async def test_a_transport_with_an_identity_may_fail_three_times(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await enter(opened)
        for _ in range(2):
            await opened.send('40/other,{"token":"bad"}')
            assert await within(opened.receive()) == written(INVALID, "/other")
            await echoes(opened)
        await opened.send('40/other,{"token":"bad"}')
        assert await said(opened) == [written(INVALID, "/other")]


async def test_a_connection_belongs_to_one_person(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await enter(opened)
        await opened.send("40/other," + json.dumps({"token": make_token(sub="bob")}))
        assert await within(opened.receive()) == written(INVALID, "/other")
        await echoes(opened)


async def test_the_identity_of_the_first_namespace_stands_for_the_next(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await enter(opened)
        await opened.send("40/other,")
        assert str(await within(opened.receive())).startswith('40/other,{"sid":"')


async def test_who_leaves_his_last_namespace_is_closed_in_time(transport: str) -> None:
    io = echo_server(connect_timeout=0.4, ping_interval=0.1, ping_timeout=0.1)
    async with serve(io) as url, session(url, transport) as opened:
        await enter(opened)
        await opened.send("41")
        await ends(opened)
        assert io._core.sessions.table == {}


async def test_who_is_let_in_stays_beyond_the_deadline(transport: str) -> None:
    io = echo_server(connect_timeout=0.2, ping_interval=0.15, ping_timeout=0.15)
    async with serve(io) as url, session(url, transport) as opened:
        await enter(opened)
        for _ in range(4):
            assert await within(opened.receive_any()) == "2"
            await opened.send("3")
        await echoes(opened)
