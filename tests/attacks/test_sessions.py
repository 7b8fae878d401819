"""Row 28: the id of somebody else's session.

It is a secret of 120 bits, known to the client alone. Who has come by it all the same, and shows who he is, gets
nothing; who shows nothing cannot be told from the owner, whose browser sends no header with a WebSocket either.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from iogate import AuthPayload, BearerHeader, Cookie, Query, Server
from iogate.testing import settle
from tests.attacks.showing import assert_undisturbed
from tests.conformance.conftest import echo_server
from tests.conformance.wire import (
    POLLING,
    WEBSOCKET,
    Session,
    WebSocket,
    client,
    echoes,
    polling,
    probe,
    raw_websocket,
    refused,
    said,
    websocket,
    within,
)
from tests.gate.support import connect, make_auth
from tests.servers import make_token, serve

pytestmark = pytest.mark.usefixtures("ws")

FORBIDDEN = {"code": 4, "message": "Forbidden"}
UNKNOWN = {"code": 1, "message": "Session ID unknown"}
ALICE = make_token(sub="alice", iss="https://id.example")


def careful_server() -> Server:
    """Return a server that takes tokens from everywhere."""
    sources = (AuthPayload(), BearerHeader(), Cookie("token"), Query("token"))
    return echo_server(auth=make_auth(sources=sources), cors_allowed_origins=["https://app.example.com"])


def shown(way: str, token: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters and the header fields of a request that shows a token in this way."""
    if way == "query":
        return {"token": token}, {}
    return {}, {"Cookie": f"token={token}"} if way == "cookie" else {"Authorization": f"Bearer {token}".strip()}


async def answers(url: str, sid: str, way: str, token: str) -> list[tuple[int, Any]]:
    """Use the id of a session for a poll, a post and an upgrade, and return what is answered."""
    parameters, headers = shown(way, token)
    query = {**POLLING, **parameters, "sid": sid}
    async with client(url) as http:
        got = await http.get("/socket.io/", params=query, headers=headers)
        posted = await http.post("/socket.io/", params=query, headers=headers, content='42["echo","stolen"]')
    upgraded = await refused(url, {**query, "transport": "websocket"}, **headers)
    return [(one.status_code, one.json()) for one in (got, posted)] + [
        (upgraded.status_code, json.loads(upgraded.body))
    ]


async def is_in(alice: Session) -> None:
    """Make sure that the owner of a session has been let in."""
    assert str(await within(alice.receive())).startswith('40{"sid":')


OTHERS = {
    "another subject": make_token(sub="mallory", iss="https://id.example"),
    "the same name at another issuer": make_token(sub="alice", iss="https://evil.test"),
    "the same name without issuer": make_token(sub="alice"),
    "the issuer without a name": make_token(sub=None, iss="https://id.example"),
    "no token": "x",
    "a token that is empty": "",
    "another scheme": "Basic YWxpY2U6YWxpY2U=",
}


@pytest.mark.parametrize("way", ["header", "cookie", "query"])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("kind", ["polling", "websocket"])
async def test_a_session_of_somebody_else(kind: str, way: str, other: str) -> None:
    """Row 28: to poll, to post and to move is forbidden; its owner does not notice."""
    io = careful_server()
    async with serve(io) as url, polling(url) if kind == "polling" else websocket(url) as alice:
        await alice.send(connect(ALICE))
        await is_in(alice)
        assert await answers(url, alice.handshake["sid"], way, other) == [(403, FORBIDDEN)] * 3
        await assert_undisturbed(io, alice)


@pytest.mark.parametrize("way", ["header", "cookie"])
async def test_a_session_whose_owner_has_not_been_let_in_yet(way: str) -> None:
    """Row 28: it is of whom its first request has shown."""
    io = careful_server()
    async with serve(io) as url, polling(url, **shown(way, ALICE)[1]) as alice:
        for other in (OTHERS["another subject"], OTHERS["no token"]):
            assert await answers(url, alice.handshake["sid"], way, other) == [(403, FORBIDDEN)] * 3
        await alice.send("40")
        await is_in(alice)
        await assert_undisturbed(io, alice)


async def test_the_last_words_of_a_session_of_somebody_else() -> None:
    """Row 28: what a session that has ended still has to fetch is its owner's."""
    io = careful_server()
    async with serve(io) as url, polling(url) as alice:
        await alice.send(connect(ALICE))
        await is_in(alice)
        io.emit("secret")
        io.disconnect_sockets(close=True)
        sid = alice.handshake["sid"]
        assert (await answers(url, sid, "header", OTHERS["another subject"]))[:2] == [(403, FORBIDDEN)] * 2
        assert await said(alice) == ['42["secret"]', "41"]


async def test_a_poll_that_waits_is_not_ended_by_somebody_else() -> None:
    """Row 28: two polls at once would end the session, if the second were not forbidden before."""
    io = careful_server()
    async with serve(io) as url, polling(url) as alice:
        await alice.send(connect(ALICE))
        await is_in(alice)
        waiting = asyncio.create_task(alice.receive())
        await settle()
        assert await answers(url, alice.handshake["sid"], "cookie", OTHERS["another subject"]) == [(403, FORBIDDEN)] * 3
        io.emit("news")
        assert await within(waiting) == '42["news"]'
        await echoes(alice)


@pytest.mark.parametrize("way", ["header", "cookie", "query"])
async def test_a_session_of_ones_own(way: str) -> None:
    """Row 28: its owner may use it with the token that it has, with another of the same person, and without any."""
    io = careful_server()
    newer = make_token(sub="alice", iss="https://id.example", jti="newer")
    async with serve(io) as url, polling(url, **shown("header", ALICE)[1]) as alice:
        await alice.send("40")
        await is_in(alice)
        sid = alice.handshake["sid"]
        async with client(url) as http:
            for token in (ALICE, newer, None):
                parameters, headers = shown(way, token) if token else ({}, {})
                query = {**POLLING, **parameters, "sid": sid}
                sent = await http.post("/socket.io/", params=query, headers=headers, content='42["echo","mine"]')
                assert sent.status_code == 200
                heard = await http.get("/socket.io/", params=query, headers=headers)
                assert heard.text == '42["echo","mine"]'
        parameters, headers = shown(way, newer)
        async with raw_websocket(url, {**WEBSOCKET, **parameters, "sid": sid}, **headers) as moved:
            await probe(moved)
            await moved.send("5")
            await echoes(WebSocket(moved))


async def test_a_guest_is_nobody_whom_another_could_be() -> None:
    """Row 28: a session that has shown nothing may begin to show something."""
    io = echo_server(auth=make_auth(guests=True))
    async with serve(io) as url, polling(url) as guest:
        await guest.send("40")
        await is_in(guest)
        async with client(url) as http:
            query = {**POLLING, "sid": guest.handshake["sid"]}
            headers = shown("header", ALICE)[1]
            assert (await http.post("/socket.io/", params=query, headers=headers, content="3")).status_code == 200
        await echoes(guest)


async def test_an_id_that_others_know() -> None:
    """Row 28: the id of a socket, which the others in its rooms may be told, is not that of its session."""
    io = careful_server()
    async with serve(io) as url, polling(url) as alice:
        await alice.send(connect(ALICE))
        public = json.loads(str(await within(alice.receive()))[2:])["sid"]
        for guess in (public, public.upper(), alice.handshake["sid"][:-1], alice.handshake["sid"] + "x", "*", ""):
            answered = await answers(url, guess, "header", ALICE)
            assert [status for status, _ in answered] == [400, 400, 400], guess
            assert answered[0][1] == UNKNOWN
        await assert_undisturbed(io, alice)
