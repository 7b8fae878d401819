"""The how-to guide, as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests import refusals
from tests.conformance.wire import enter, said, session, within
from tests.gate.houses import serve_on_threads
from tests.gate.support import compact, connect
from tests.servers import SECRET, make_token, serve

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "python-socketio.md"
BLOCKS = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", GUIDE.read_text(), re.M | re.S)


def test_all_of_it_is_tried() -> None:
    assert len(BLOCKS) == GUIDE.read_text().count("```python") == 3


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
async def test_what_is_printed_works(title: str, code: str) -> None:
    names: dict[str, Any] = {"SECRET": SECRET, "__name__": "guide"}
    exec(compile(code, str(GUIDE), "exec"), names)  # noqa: S102
    async with (serve if "asyncio" in title else serve_on_threads)(names["app"]) as url:
        async with session(url, "websocket") as client:
            await client.send(connect(make_token(secret="x" * 40)))
            assert await said(client) == ["44" + compact(refusals.INVALID)]
        async with session(url, "websocket") as client:
            await enter(client, sub="bob", scope="chat:write")
            if "message" in names:
                await client.send('42["message","hello"]')
                assert "hello" in str(await within(client.receive()))
