"""The how-to guide about REST endpoints, as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from iogate import Server
from iogate.http import django as iogate_django
from tests.gate.houses import serve_on_threads
from tests.gate.support import make_auth
from tests.http import frameworks
from tests.servers import make_token, serve

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "rest.md"
BLOCKS = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", GUIDE.read_text(), re.M | re.S)
ON_THREADS = {"Flask", "Any WSGI application", "Django"}


def test_all_of_it_is_tried() -> None:
    assert len(BLOCKS) == GUIDE.read_text().count("```python") == len(frameworks.FRAMEWORKS) - 1


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
async def test_what_is_printed_works(title: str, code: str) -> None:
    names: dict[str, Any] = {"auth": make_auth(), "__name__": "guide"}
    exec(compile(code, str(GUIDE), "exec"), names)  # noqa: S102
    details: dict[str, Any] = {"ROOT_URLCONF": type("urls", (), {"urlpatterns": names.get("urlpatterns")})}
    details["IOGATE"] = {"auth": names["auth"], "optional": True}
    iogate_django.guard.cache_clear()
    with override_settings(**details):
        app = names.get("app") or WSGIHandler()
        if title == "Any ASGI application":
            app = Server(auth=None).asgi(app)  # The one in the guide knows no lifespan.
        async with (serve_on_threads if title in ON_THREADS else serve)(app) as url, httpx.AsyncClient() as http:
            for scope, status in (("chat:write", 200), ("chat:read", 403), (None, 401)):
                headers = {"authorization": f"Bearer {make_token(scope=scope)}"} if scope else {}
                answer = await http.post(f"{url}/messages?text=hello", headers=headers)
                refused = 403 if title == "Starlette" and scope is None else status  # By Starlette's own `requires`.
                assert answer.status_code == refused
                assert status != 200 or "ann" in answer.text
