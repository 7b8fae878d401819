"""Which pages may connect, and what their browsers are told. Those that may not are in tests/attacks."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import echo_server
from tests.conformance.wire import POLLING, WEBSOCKET, client, enter, polling, raw_websocket, websocket
from tests.servers import serve

pytestmark = pytest.mark.usefixtures("ws")

PAGE = "https://app.example.com"


async def test_a_page_of_the_same_origin_may_connect(url: str) -> None:
    async with polling(url, Origin=url) as one, websocket(url, Origin=url) as two:
        await enter(one)
        await enter(two)


async def test_a_client_that_is_no_browser_may_connect(url: str) -> None:
    async with polling(url) as one, websocket(url) as two:
        await enter(one)
        await enter(two)


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
