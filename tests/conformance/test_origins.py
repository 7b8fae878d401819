"""Which pages may connect: the same check on polling and on WebSocket, with and without a session."""

from __future__ import annotations

import json

import pytest

from tests.conformance.conftest import echo_server
from tests.conformance.wire import POLLING, WEBSOCKET, client, enter, polling, raw_websocket, refused, websocket
from tests.servers import serve

pytestmark = pytest.mark.usefixtures("lane")

FORBIDDEN = {"code": 4, "message": "Forbidden"}
PAGE = "https://app.example.com"

NEARLY = [
    "https://app.example.com.evil.test",
    "https://evil-app.example.com",
    "https://evil.test/https://app.example.com",
    "https://app.example.co",
    "https://example.com",
    "https://sub.app.example.com",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com/",
    "https://app.example.com@evil.test",
    "https://user@app.example.com",
    "https://APP.example.com",
    "HTTPS://app.example.com",
    "https://app.example.com https://evil.test",
    "https://app.example.com, https://evil.test",
    "https://app\u0435xample.com".encode().decode("latin-1"),
    "null",
    "file://",
    "*",
]


async def test_a_page_of_the_same_origin_may_connect(url: str) -> None:
    async with polling(url, Origin=url) as one, websocket(url, Origin=url) as two:
        await enter(one)
        await enter(two)


async def test_a_client_that_is_no_browser_may_connect(url: str) -> None:
    async with polling(url) as one, websocket(url) as two:
        await enter(one)
        await enter(two)


@pytest.mark.parametrize(
    "variant",
    [
        "https://{host}:{port}",
        "http://{host}",
        "http://{host}:1{port}",
        "http://{host}:{port}.evil.test",
        "http://evil.{host}:{port}",
        "http://localhost:{port}",
        "http://{host}:{port}/",
        "http://{host}:{port}@evil.test",
        "null",
        "https://evil.test",
    ],
)
async def test_a_page_of_another_origin_may_not_connect_by_default(url: str, variant: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    await nobody_connects(url, variant.format(host=host, port=port))


@pytest.mark.parametrize("origin", NEARLY)
async def test_an_origin_that_looks_like_an_allowed_one_is_refused(origin: str) -> None:
    async with serve(echo_server(cors_allowed_origins=[PAGE])) as url:
        await nobody_connects(url, origin)


async def nobody_connects(url: str, origin: str) -> None:
    """Make sure that this origin is refused, before a session and within one."""
    header = origin.encode("latin-1")
    async with polling(url) as opened, client(url) as http:
        for answer in (
            await http.get("/socket.io/", params=POLLING, headers={b"Origin": header}),
            await http.get("/socket.io/", params=opened.query, headers={b"Origin": header}),
            await http.post("/socket.io/", params=opened.query, headers={b"Origin": header}, content="40"),
        ):
            assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
            assert "access-control-allow-origin" not in answer.headers
        for query in (WEBSOCKET, {**WEBSOCKET, "sid": opened.handshake["sid"]}):
            told = await refused(url, query, Origin=origin)
            assert (told.status_code, json.loads(told.body)) == (403, FORBIDDEN)
        # And the session that it tried to reach is as it was.
        await enter(opened)


async def test_an_allowed_page_may_connect_and_is_named_in_the_answers() -> None:
    async with serve(echo_server(cors_allowed_origins=[PAGE, "http://localhost:5173"])) as url:
        for origin in (PAGE, "http://localhost:5173"):
            async with polling(url, Origin=origin) as opened, websocket(url, Origin=origin) as over:
                await enter(opened)
                await enter(over)
                async with client(url) as http:
                    for answer in (
                        await http.get("/socket.io/", params=POLLING, headers={"Origin": origin}),
                        await http.post(
                            "/socket.io/", params=opened.query, headers={"Origin": origin}, content='42["echo"]'
                        ),
                        await http.get("/socket.io/", params={"EIO": "3"}, headers={"Origin": origin}),
                    ):
                        assert answer.headers["access-control-allow-origin"] == origin
                        assert answer.headers["access-control-allow-credentials"] == "true"
                        assert "origin" in answer.headers["vary"].lower()


async def test_a_preflight_is_answered_for_the_pages_that_may_connect() -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with serve(echo_server(cors_allowed_origins=[PAGE])) as url, client(url) as http:
        answer = await http.options("/socket.io/", params=POLLING, headers={"Origin": PAGE, **asked})
        assert answer.status_code in {200, 204}
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert "POST" in answer.headers["access-control-allow-methods"]
        allowed = answer.headers["access-control-allow-headers"].lower()
        assert "authorization" in allowed
        assert "content-type" in allowed

        answer = await http.options("/socket.io/", params=POLLING, headers={"Origin": f"{PAGE}.evil.test", **asked})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


async def test_a_server_for_every_page_says_so() -> None:
    async with serve(echo_server(cors_allowed_origins=["*"])) as url:
        async with polling(url, Origin="https://anything.test") as opened:
            await enter(opened)
        async with raw_websocket(url, WEBSOCKET, Origin="null"):
            pass
        async with client(url) as http:
            answer = await http.get("/socket.io/", params=POLLING, headers={"Origin": "https://anything.test"})
        # With credentials the wildcard would be refused by the browser; without them it gives nothing away.
        allowed = answer.headers["access-control-allow-origin"]
        assert allowed in {"*", "https://anything.test"}
        assert (allowed == "*") == ("access-control-allow-credentials" not in answer.headers)
