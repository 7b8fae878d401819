"""The key server of the tests: it does what it is told, as httpx sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.conformance.wire import client
from tests.keys import keyserver
from tests.keys.keyserver import CONFIGURATION, KEYS, KeyServer, key_server, not_found

MB = 1_000_000
KEY = {"kty": "oct", "kid": "one", "k": "c2VjcmV0"}


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with key_server() as server:
        yield server


@pytest.fixture
async def http(server: KeyServer) -> AsyncIterator[httpx.AsyncClient]:
    async with client(server.url) as http:
        yield http


async def test_it_serves_keys_and_says_where_they_are(server: KeyServer, http: httpx.AsyncClient) -> None:
    server.publish(KEY, cache_control="max-age=60", age="7")
    configuration = (await http.get(CONFIGURATION)).json()
    assert configuration == {"issuer": server.url, "jwks_uri": server.jwks_url}
    for times in (1, 2):
        answer = await http.get(configuration["jwks_uri"])
        assert answer.json() == {"keys": [KEY]}
        assert (answer.headers["cache-control"], answer.headers["age"]) == ("max-age=60", "7")
        assert server.count() == times
    assert server.count(CONFIGURATION) == 1
    assert server.asked[0].headers["host"] == server.url.removeprefix("http://")
    assert (await http.get("/elsewhere")).status_code == 404


async def test_it_can_name_another_issuer(server: KeyServer, http: httpx.AsyncClient) -> None:
    server.publish(KEY, issuer="https://other.example.com")
    assert (await http.get(CONFIGURATION)).json()["issuer"] == "https://other.example.com"


async def test_who_has_the_keys_already_is_told_so(server: KeyServer, http: httpx.AsyncClient) -> None:
    server.publish(KEY, etag='"1"')
    assert (await http.get(KEYS)).headers["etag"] == '"1"'
    unchanged = await http.get(KEYS, headers={"If-None-Match": '"1"'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (await http.get(KEYS, headers={"If-None-Match": '"2"'})).status_code == 200


async def test_killed_it_refuses_connections_and_can_come_back(server: KeyServer, http: httpx.AsyncClient) -> None:
    server.publish(KEY)
    await http.get(KEYS)
    await server.kill()
    for _ in range(2):  # On the connection that was open, and on a new one.
        with pytest.raises(httpx.TransportError):
            await http.get(KEYS)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", httpx.URL(server.url).port)
    await server.start()
    assert (await http.get(KEYS)).status_code == 200


async def test_a_request_is_held_until_the_test_lets_go(server: KeyServer, http: httpx.AsyncClient) -> None:
    server.answers[KEYS] = server.held
    asking = asyncio.create_task(http.get(KEYS))
    await server.was_asked()
    assert not asking.done()
    server.let_go()
    assert (await asking).status_code == 503
    asking = asyncio.create_task(http.get(KEYS))
    await server.was_asked(2)
    assert not asking.done()
    await server.close()
    with pytest.raises(httpx.RemoteProtocolError):
        await asking


async def test_a_document_may_stop_half_way(server: KeyServer, http: httpx.AsyncClient) -> None:
    server.answers[KEYS] = server.stalled({"keys": [KEY]})
    async with http.stream("GET", KEYS) as answer:
        pieces = answer.aiter_raw()
        half = await anext(pieces)
        assert b"".join([half]).startswith(b'{"keys"')
        assert not half.endswith(b"}")
        server.let_go()
        assert b"".join([half, *[piece async for piece in pieces]]).endswith(b"}")


async def test_it_fails_and_crashes_and_redirects(server: KeyServer, http: httpx.AsyncClient) -> None:
    server.answers[KEYS] = keyserver.failure()
    answer = await http.get(KEYS)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html")
    server.answers[KEYS] = keyserver.redirect("https://example.com/keys", 307)
    answer = await http.get(KEYS)
    assert (answer.status_code, answer.headers["location"]) == (307, "https://example.com/keys")
    server.answers[KEYS] = keyserver.text("no JSON")
    assert (await http.get(KEYS)).text == "no JSON"
    server.answers[KEYS] = keyserver.crash
    with pytest.raises(httpx.TransportError):
        await http.get(KEYS)


@pytest.mark.parametrize("answer", [keyserver.large(100 * MB), keyserver.endless()], ids=["large", "endless"])
async def test_a_large_body_is_sent_only_as_far_as_it_is_read(
    server: KeyServer, http: httpx.AsyncClient, answer: keyserver.Answer
) -> None:
    server.answers[KEYS] = answer
    async with http.stream("GET", KEYS) as response:
        size = 0
        async for piece in response.aiter_raw():
            size += len(piece)
            if size > MB:
                break
    [exchange] = server.asked
    assert MB < exchange.sent < 20 * MB


async def test_a_large_body_is_as_large_as_it_says(server: KeyServer, http: httpx.AsyncClient) -> None:
    server.answers[KEYS] = keyserver.large(MB, {"keys": [KEY]})
    answer = await http.get(KEYS)
    assert (len(answer.content), answer.json()) == (MB, {"keys": [KEY]})


@pytest.mark.parametrize("layers", [1, 2])
async def test_a_bomb_is_small_until_it_is_unpacked(server: KeyServer, http: httpx.AsyncClient, layers: int) -> None:
    server.answers[KEYS] = keyserver.bomb(10 * MB, layers)
    answer = await http.get(KEYS)
    assert answer.json() == {"keys": []}
    assert len(answer.content) > 10 * MB
    assert answer.num_bytes_downloaded < MB / 10


async def test_lengths_may_be_wrong(server: KeyServer, http: httpx.AsyncClient) -> None:
    server.answers[KEYS] = keyserver.truncated({"keys": [KEY]})
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(KEYS)
    server.answers[KEYS] = keyserver.too_long({"keys": [KEY]})
    with pytest.raises(ValueError, match=r"delimiter|Unterminated"):
        (await http.get(KEYS)).json()


async def test_a_dripping_answer_is_never_silent_and_never_done(server: KeyServer, http: httpx.AsyncClient) -> None:
    server.answers[KEYS] = keyserver.dripping(0.001)
    async with http.stream("GET", KEYS) as answer:
        pieces = answer.aiter_raw()
        for _ in range(5):
            assert (await anext(pieces)).strip() == b""


async def test_nothing_is_found_by_default(server: KeyServer, http: httpx.AsyncClient) -> None:
    assert (await http.get(KEYS)).status_code == 404
    server.publish(KEY)
    server.answers[KEYS] = not_found
    assert (await http.get(KEYS)).status_code == 404
