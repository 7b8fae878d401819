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
FRAMEWORKS = [(title, code) for title, code in BLOCKS if title != "A cookie"]
ON_THREADS = {"Flask", "Any WSGI application", "Django"}


def test_all_of_it_is_tried() -> None:
    assert len(BLOCKS) == GUIDE.read_text().count("```python") == len(FRAMEWORKS) + 1
    assert len(FRAMEWORKS) == len(frameworks.FRAMEWORKS) - 1  # Django is there twice.


@pytest.mark.parametrize(("title", "code"), FRAMEWORKS, ids=[title for title, _ in FRAMEWORKS])
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


async def test_a_cookie_that_is_set_as_printed_is_taken_from_the_page_alone() -> None:
    names: dict[str, Any] = {"auth": make_auth(), "__name__": "guide"}
    exec(compile(dict(BLOCKS)["A cookie"], str(GUIDE), "exec"), names)  # noqa: S102
    async with serve(names["app"]) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        answer = await http.post("/sign-in", json={"token": make_token()})
        for cookie in answer.headers.get_list("set-cookie"):
            assert {"Secure", "Path=/"} <= set(cookie.split("; "))
            assert "Domain" not in cookie
        # A client does not send them over plain HTTP.
        cookies = dict(answer.cookies.items())
        header = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        page = header | {"x-csrf-token": cookies["__Host-csrf"]}
        for headers, status in ((page, 200), (header, 403), ({}, 401)):
            assert (await http.post("/messages", params={"text": "hello"}, headers=headers)).status_code == status
