"""The JavaScript client `iogate-client`: its own tests in Node, its types, and the package in a page in Chromium."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.e2e.browser import Witness, chromium
from tests.processes import run

PACKAGE = Path(__file__).parents[2] / "clients/js"
SOURCES = PACKAGE.parents[1] / "src"
WITHIN = 100.0  # seconds for one file of tests
GONE_WITHIN = 10.0  # seconds
START_WITHIN = 20.0  # seconds
TESTS = ("connect", "refresh", "in-band", "users", "requests", "process")
ENVIRONMENT = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(SOURCES)}


@pytest.fixture(autouse=True)
def installed() -> None:
    if not (PACKAGE / "node_modules").is_dir():
        pytest.fail("what the JavaScript client is tested with is missing: run `npm ci` in clients/js", pytrace=False)


async def node(*arguments: str | Path) -> None:
    """Run Node in the package, and fail with what it said if it fails."""
    path = shutil.which("node")
    assert path is not None, "Node is missing: run the tests by `make test`"
    status, said = await run(path, *arguments, within=WITHIN, cwd=PACKAGE, env=ENVIRONMENT)
    if status != 0:
        pytest.fail(said, pytrace=False)


@pytest.mark.parametrize("name", TESTS)
async def test_the_tests_of_the_package_pass_in_node(name: str) -> None:
    await node("--test", f"test/{name}.test.js")


def test_every_test_file_of_the_package_is_run() -> None:
    assert {file.name for file in PACKAGE.glob("test/*.test.js")} == {f"{name}.test.js" for name in TESTS}


async def test_the_types_of_the_package_hold() -> None:
    await node("node_modules/typescript/bin/tsc", "--project", ".")


# In Chromium


class Served:
    """The server of the package's tests, seen from here."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self._http = http

    async def tell(self, path: str, sub: str) -> Any:
        answer = await self._http.post(f"{self.url}{path}", json={"sub": sub})
        return answer.raise_for_status().json()

    async def until_gone(self, sub: str) -> None:
        """Wait until the server has no socket of this subject any more."""
        async with asyncio.timeout(GONE_WITHIN):
            while True:
                seen = await self.tell("/seen", sub)
                if seen["connects"] and len(seen["gone"]) == seen["connects"]:
                    return
                await asyncio.sleep(0.05)


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        PACKAGE / "test/server.py",
        env=ENVIRONMENT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_WITHIN):
            port = int(await process.stdout.readline())
        async with httpx.AsyncClient() as http:
            yield Served(f"http://127.0.0.1:{port}", http)
        process.stdin.close()
        async with asyncio.timeout(START_WITHIN):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


async def tab(browser: Browser, url: str, sub: str, *, first: float, others: float) -> tuple[Page, Witness]:
    """Open the page of the package's tests. Its tokens live so many seconds."""
    page = await browser.new_page()
    witness = Witness(page)
    await page.goto(f"{url}/#{sub},{first},{others}")
    await both(page, "connect")
    return page, witness


def lines(page: Page, text: str) -> Locator:
    return page.locator("#log li").filter(has_text=text)


async def both(page: Page, event: str, times: int = 1) -> None:
    """Wait until both namespaces have heard an event so many times."""
    for namespace in ("/ ", "/other "):
        found = page.locator("#log li").filter(has_text=namespace).filter(has_text=event)
        await expect(found.nth(times - 1)).to_be_attached()


async def test_a_page_lives_through_its_tokens_with_one_question_for_all_namespaces(
    server: Served, browser: Browser
) -> None:
    page, witness = await tab(browser, server.url, "ann", first=1, others=1)
    await both(page, "token_refreshed", times=3)
    await expect(lines(page, "disconnect")).to_have_count(0)
    assert await lines(page, "asked connect").count() == 1
    assert await lines(page, "asked expiring").count() <= 4
    seen = await server.tell("/seen", "ann")
    assert (seen["connects"], seen["gone"]) == (2, [])
    assert witness.complaints == []


async def test_a_page_that_slept_past_the_end_of_its_token_comes_back(server: Served, browser: Browser) -> None:
    page, _ = await tab(browser, server.url, "ben", first=1.5, others=300)
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Debugger.enable")
    await devtools.send("Debugger.pause")
    await server.until_gone("ben")
    await devtools.send("Debugger.resume")
    await both(page, "connect", times=2)
    await expect(lines(page, "login_required")).to_have_count(0)


async def test_a_page_that_was_offline_past_the_end_of_its_token_comes_back(server: Served, browser: Browser) -> None:
    page, _ = await tab(browser, server.url, "cyd", first=2, others=300)
    await page.context.set_offline(True)
    await both(page, "disconnect")
    await page.wait_for_function("() => Date.now() / 1000 > window.keptUntil")
    await page.context.set_offline(False)
    await both(page, "connect", times=2)
    await expect(lines(page, "asked expired")).to_have_count(1)


async def test_a_page_is_told_when_the_person_has_to_sign_in_again(server: Served, browser: Browser) -> None:
    page, _ = await tab(browser, server.url, "dan", first=300, others=300)
    await server.tell("/revoke", "dan")
    await both(page, "login_required revoked_token")
    assert await lines(page, "asked").all_inner_texts() == ["asked connect", "asked login"]


async def test_a_page_with_a_queue_of_events_shows_nothing_of_its_first_user_for_the_second(
    server: Served, browser: Browser
) -> None:
    page, _ = await tab(browser, server.url, "eve", first=300, others=300)
    answer = await page.evaluate(
        """async () => {
          const { connect } = await import("iogate-client");
          let user = "fay";
          const getToken = async () =>
            (await fetch("/token", { method: "POST", body: JSON.stringify({ sub: user, life: 300 }) })).json();
          const socket = connect("/switch", { getToken, inBand: true, path: "/in-band", retries: 3, ackTimeout: 6e4 });
          const entered = () => new Promise((resolve) => socket.once("authenticated", resolve));
          socket.emit("unanswered");
          const told = new Promise((resolve) => socket.emit("note", "of Fay", (error) => resolve(error.message)));
          await entered();
          user = "gus";
          socket.disconnect().connect();
          const { sub } = await entered();
          return [sub, await told, await socket.emitWithAck("who")];
        }"""
    )
    assert answer == ["gus", "socket has been disconnected", "gus"]
    assert (await server.tell("/seen", "fay"))["connects"] == 1
    assert (await server.tell("/seen", "gus"))["notes"] == []
