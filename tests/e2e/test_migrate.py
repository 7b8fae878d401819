"""The how-to guide for who comes from something else, as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import refusals
from tests.conformance.wire import enter, said, session, within
from tests.gate.houses import serve_on_threads
from tests.gate.support import authenticate, compact, connect, hear
from tests.servers import SECRET, make_token, serve

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "migrate.md"
BLOCKS = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", GUIDE.read_text(), re.M | re.S)
CLAIMS: dict[str, Any] = {"aud": "chat", "type": "access"}


@pytest.fixture(params=BLOCKS, ids=[title for title, _ in BLOCKS])
def names(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Run what is printed, and return what it has defined."""
    title, code = request.param
    names: dict[str, Any] = {"SECRET": SECRET, "__name__": "guide", "title": title}
    exec(compile(code, str(GUIDE), "exec"), names)  # noqa: S102
    return names


def served(names: dict[str, Any]) -> Any:
    """Serve it."""
    if "Flask" in names["title"]:
        return serve_on_threads(names["app"])
    return serve(names.get("app") or names["io"])


def test_all_of_it_is_tried() -> None:
    assert len(BLOCKS) == GUIDE.read_text().count("```python") == GUIDE.read_text().count("\n## ")


async def test_sockets_are_let_in_with_a_good_token_only(names: dict[str, Any], transport: str) -> None:
    bad = connect(make_token(secret="x" * 40, **CLAIMS))
    async with served(names) as url:
        async with session(url, transport) as client:
            await client.send(bad)
            assert await said(client) == ["44" + compact(refusals.INVALID)]
        async with session(url, transport) as client:
            await enter(client, **CLAIMS)


async def test_endpoints_are_open_with_a_good_token_only(names: dict[str, Any]) -> None:
    if "/me" not in GUIDE.read_text().split(f"## {names['title']}")[1].split("\n## ")[0]:
        return
    async with served(names) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert (await http.get("/me")).status_code == 401
        for claims, status in (
            (CLAIMS, 200),
            (CLAIMS | {"type": "refresh"}, 403 if "Flask" in names["title"] else 200),
        ):
            answer = await http.get("/me", headers={"authorization": f"Bearer {make_token(**claims)}"})
            assert answer.status_code == status


async def test_a_client_of_socketio_jwt_authenticates_as_it_did() -> None:
    code = dict(BLOCKS)["From Node's socketio-jwt"]
    names: dict[str, Any] = {"SECRET": SECRET}
    exec(compile(code, str(GUIDE), "exec"), names)  # noqa: S102
    async with serve(names["io"]) as url, session(url, "websocket") as client:
        await client.send("40")
        await within(client.receive())
        await client.send(authenticate())
        assert (await hear(client))[0] == "authenticated"
