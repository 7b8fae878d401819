"""Engine.IO v4: the handshake, and what is answered to a request that is not one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iogate import Server
from tests.conformance.conftest import echo_server
from tests.conformance.wire import POLLING, WEBSOCKET, client, polling, refused, session, websocket
from tests.servers import serve

pytestmark = pytest.mark.usefixtures("ws")

UNKNOWN_TRANSPORT = {"code": 0, "message": "Transport unknown"}
UNKNOWN_SID = {"code": 1, "message": "Session ID unknown"}
BAD_METHOD = {"code": 2, "message": "Bad handshake method"}
BAD_REQUEST = {"code": 3, "message": "Bad request"}
UNSUPPORTED_VERSION = {"code": 5, "message": "Unsupported protocol version"}


async def test_the_handshake_has_five_members_in_milliseconds_and_bytes(transport: str) -> None:
    settings = {"ping_interval": 1.5, "ping_timeout": 0.75, "max_payload": 12_345}
    async with serve(echo_server(**settings)) as url, session(url, transport) as opened:
        handshake = opened.handshake
    sid = handshake.pop("sid")
    assert isinstance(sid, str)
    assert len(sid) >= 20
    assert handshake == {
        "upgrades": ["websocket"] if transport == "polling" else [],
        "pingInterval": 1500,
        "pingTimeout": 750,
        "maxPayload": 12_345,
    }
    assert all(type(handshake[name]) is int for name in ("pingInterval", "pingTimeout", "maxPayload"))


async def test_the_defaults_of_the_handshake_are_those_of_the_reference(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        assert opened.handshake["pingInterval"] == 25_000
        assert opened.handshake["pingTimeout"] == 20_000
        assert opened.handshake["maxPayload"] == 1_000_000


async def test_no_two_sessions_have_the_same_id(url: str) -> None:
    async with polling(url) as one, polling(url) as two, websocket(url) as three:
        assert len({one.handshake["sid"], two.handshake["sid"], three.handshake["sid"]}) == 3


async def test_the_handshake_over_polling_is_plain_text_that_nobody_stores(url: str) -> None:
    async with client(url) as http:
        answer = await http.get("/socket.io/", params=POLLING)
    assert answer.headers["content-type"].lower().replace(" ", "") == "text/plain;charset=utf-8"
    assert "\x1e" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"transport": "polling"}, UNSUPPORTED_VERSION),
        ({"EIO": "3", "transport": "polling"}, UNSUPPORTED_VERSION),
        ({"EIO": "abc", "transport": "polling"}, UNSUPPORTED_VERSION),
        ({"EIO": "4"}, UNKNOWN_TRANSPORT),
        ({"EIO": "4", "transport": "abc"}, UNKNOWN_TRANSPORT),
        ({"EIO": "4", "transport": "constructor"}, UNKNOWN_TRANSPORT),
        ({"EIO": "4", "transport": ""}, UNKNOWN_TRANSPORT),
        ({"EIO": "4", "transport": "webtransport"}, UNKNOWN_TRANSPORT),
        ({**POLLING, "sid": "abc"}, UNKNOWN_SID),
        ({**POLLING, "sid": ""}, UNKNOWN_SID),
        (WEBSOCKET, BAD_REQUEST),
    ],
)
async def test_a_wrong_request_is_told_why(url: str, query: dict[str, str], error: dict[str, Any]) -> None:
    async with client(url) as http:
        answer = await http.get("/socket.io/", params=query)
    assert (answer.status_code, answer.json()) == (400, error)
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD"])
async def test_only_get_begins_a_session(url: str, method: str) -> None:
    async with client(url) as http:
        answer = await http.request(method, "/socket.io/", params=POLLING)
    assert answer.status_code == 400
    if method != "HEAD":
        assert answer.json() == BAD_METHOD


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_a_session_is_spoken_to_with_get_and_post_only(url: str, method: str) -> None:
    async with polling(url) as opened:
        answer = await opened.http.request(method, "/socket.io/", params=opened.query)
        assert answer.status_code == 400


async def test_a_post_to_an_unknown_session_is_refused(url: str) -> None:
    async with client(url) as http:
        answer = await http.post("/socket.io/", params={**POLLING, "sid": "abc"}, content="40")
    assert (answer.status_code, answer.json()) == (400, UNKNOWN_SID)


async def test_a_session_on_websocket_is_not_reached_by_polling(url: str) -> None:
    async with websocket(url) as opened, client(url) as http:
        query = {**POLLING, "sid": opened.handshake["sid"]}
        for answer in (await http.get("/socket.io/", params=query), await http.post("/socket.io/", params=query)):
            assert (answer.status_code, answer.json()) == (400, BAD_REQUEST)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"transport": "websocket"}, UNSUPPORTED_VERSION),
        ({"EIO": "3", "transport": "websocket"}, UNSUPPORTED_VERSION),
        ({"EIO": "4"}, UNKNOWN_TRANSPORT),
        ({"EIO": "4", "transport": "abc"}, UNKNOWN_TRANSPORT),
        ({**WEBSOCKET, "sid": "abc"}, UNKNOWN_SID),
        (POLLING, BAD_REQUEST),
    ],
)
async def test_a_wrong_websocket_request_is_told_why(url: str, query: dict[str, str], error: dict[str, Any]) -> None:
    answer = await refused(url, query)
    assert (answer.status_code, json.loads(answer.body)) == (400, error)


RFC_6455 = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.mark.parametrize(
    "fields",
    [
        {"Connection": "keep-alive, Upgrade"},  # as Firefox says it
        {"Connection": "upgrade ,keep-alive"},
        {"Connection": "UPGRADE", "Upgrade": "WebSocket"},
        {"Cookie": "name=\xe9"},
    ],
    ids=str,
)
async def test_a_handshake_as_rfc_6455_allows_it_is_taken(url: str, fields: dict[str, str]) -> None:
    headers = {name.encode(): value.encode("latin-1") for name, value in {**RFC_6455, **fields}.items()}
    async with client(url) as http, http.stream("GET", "/socket.io/", params=WEBSOCKET, headers=headers) as answer:
        assert answer.status_code == 101


async def test_a_handshake_with_two_connection_fields_is_taken(url: str) -> None:
    headers = [("Connection", "keep-alive"), *RFC_6455.items()]
    async with client(url) as http, http.stream("GET", "/socket.io/", params=WEBSOCKET, headers=headers) as answer:
        assert answer.status_code == 101


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Version", "14"),
        ("Sec-WebSocket-Version", ""),
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Key", "AAAA"),
    ],
)
async def test_a_handshake_that_breaks_rfc_6455_is_refused(url: str, header: str, value: str) -> None:
    headers = {**RFC_6455, header: value}
    async with client(url) as http, http.stream("GET", "/socket.io/", params=WEBSOCKET, headers=headers) as answer:
        assert answer.status_code == 400
    async with websocket(url) as opened:
        assert opened.handshake["sid"]


async def test_a_parameter_that_comes_twice_does_not_count(url: str) -> None:
    async with client(url) as http:
        answer = await http.get("/socket.io/?EIO=4&transport=polling&transport=polling")
        assert (answer.status_code, answer.json()) == (400, UNKNOWN_TRANSPORT)


async def test_the_path_can_be_chosen_and_is_the_only_one() -> None:
    io: Server = echo_server(path="/chat/io")
    async with serve(io) as url, client(url) as http:
        assert (await http.get("/chat/io/", params=POLLING)).status_code == 200
        assert (await http.get("/socket.io/", params=POLLING)).status_code == 404
