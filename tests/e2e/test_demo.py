"""The chat demo as a person meets it: served by the command of the README, seen in a real browser."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import socketio
from playwright.async_api import Browser, Locator, Page, expect

from tests.e2e.browser import Witness, chromium
from tests.servers import make_token

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "examples/chat/node_modules/socket.io-client"
SECRET = "the-secret-of-the-demo-while-it-is-tested"
START_WITHIN = 20  # seconds
STOP_WITHIN = 5  # seconds
PASSWORD = "correct horse"
BRIEF = 3  # seconds that a token lives where a test waits for its end
COOKIE = "iogate-chat-session"


class Demo:
    """The demo in a process of its own, as `iogate run` starts it."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.database = folder / "chat.db"
        self._folder = folder
        self._settings = {name: str(value) for name, value in settings.items()}
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, secret: str = SECRET) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "iogate", "run", "examples.chat.app:app", "--port", str(self._port)]
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("TOKEN_LIFETIME", "REFRESH_GRACE")},
            **self._settings,
            "JWT_SECRET": secret,
            "DATABASE_URL": f"sqlite:///{self.database}",
            "PORT": str(self._port),
            "PYTHONUNBUFFERED": "1",
        }
        with self._file("stdout") as stdout, self._file("stderr") as stderr:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )
        until = time.monotonic() + START_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                pytest.fail(f"the demo did not start:\n{self.said('stdout')}\n{self.said('stderr')}", pytrace=False)

    def stop(self) -> None:
        """End it as a service manager does, and wait until it has gone."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"the demo did not stop within {STOP_WITHIN} s of SIGTERM", pytrace=False)

    def said(self, stream: str) -> str:
        """Return what it wrote to `stdout` or `stderr` until now."""
        return (self._folder / stream).read_text()

    def _file(self, stream: str) -> IO[bytes]:
        return (self._folder / stream).open("ab")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                pass
            return httpx.get(self.url, timeout=5).status_code == 200
        except (OSError, httpx.TransportError):
            # Nobody listens yet; a bounded wait that ends at once when the process has gone.
            assert self._process is not None
            try:
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                return False
            return False


@pytest.fixture
def settings() -> dict[str, object]:
    """Those of the demo: its own, unless a test says otherwise."""
    return {}


@pytest.fixture
def demo(tmp_path: Path, settings: dict[str, object]) -> Iterator[Demo]:
    if not CLIENT.is_dir():
        pytest.fail("the page's Socket.IO client is missing: run `npm ci` in examples/chat", pytrace=False)
    running = Demo(tmp_path, **settings)
    running.start()
    yield running
    running.stop()
    log = running.said("stderr")
    assert "Traceback" not in log, log
    assert "eyJ" not in log, "a token was logged"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


async def tab(browser: Browser, url: str, token: str | None = None) -> tuple[Page, Witness]:
    """Open a tab of somebody new: its own storage, its own cookies. It may have a token before the page runs."""
    page = await (await browser.new_context()).new_page()
    if token is not None:
        await page.add_init_script(f"sessionStorage.setItem('token', {json.dumps(token)})")
    witness = Witness(page)
    await page.goto(url)
    return page, witness


async def another_tab(page: Page, url: str) -> tuple[Page, Witness]:
    """Open another tab of the same browser: the cookies are shared, the storage of the tab is its own."""
    other = await page.context.new_page()
    witness = Witness(other)
    await other.goto(url)
    return other, witness


async def sign_up(page: Page, name: str) -> None:
    await page.get_by_role("button", name="Create account").first.click()
    await fill(page, name, PASSWORD)
    await expect(page.locator("#chat")).to_be_visible()


async def fill(page: Page, name: str, password: str) -> None:
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Password", exact=True).fill(password)
    await page.locator("#submit").click()


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.get_by_role("button", name="Send").click()


async def sign_out(page: Page, how: str = "Sign out") -> None:
    await page.get_by_role("button", name=how, exact=True).click()
    await expect(page.get_by_role("button", name="Sign in").first).to_be_visible()
    await expect(page.locator("#refusal")).to_be_hidden()


async def token_of(page: Page) -> str:
    return str(await page.evaluate("() => sessionStorage.getItem('token')"))


async def refresh_token_of(page: Page) -> str:
    """Read what only the browser itself can."""
    (cookie,) = [cookie for cookie in await page.context.cookies() if cookie.get("name") == COOKIE]
    return str(cookie.get("value"))


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims


def here(page: Page) -> Locator:
    return page.locator("#people .name")


def said(page: Page) -> Locator:
    return page.locator("#log .bubble")


async def refused(page: Page, title: str, code: str) -> None:
    """Wait until the page says that it is not let in, and check that it shows nothing of the chat."""
    await expect(page.get_by_role("alert").filter(has_text=title)).to_be_visible()
    await expect(page.locator("#refusal-code")).to_contain_text(code)
    await expect(page.locator("#chat")).to_be_hidden()
    await expect(page.locator("#people li, #log li")).to_have_count(0)


# In the browser


async def test_two_people_sign_up_see_each_other_and_chat_both_ways(demo: Demo, browser: Browser) -> None:
    ann, ann_heard = await tab(browser, demo.url)
    await sign_up(ann, "Ann")
    await expect(here(ann)).to_have_text(["Ann"])
    ben, ben_heard = await tab(browser, demo.url)
    await sign_up(ben, "Ben")
    await expect(here(ann)).to_have_text(["Ann", "Ben"])
    await expect(here(ben)).to_have_text(["Ann", "Ben"])
    await expect(ann.locator("#log .notice")).to_have_text(["Ben came in"])
    await expect(ann.get_by_role("status")).to_have_text("Connected · WebSocket")

    await say(ann, "Hello Ben")
    await expect(said(ben)).to_have_text(["Hello Ben"])
    await expect(ben.locator("#log .message .head .name")).to_have_text(["Ann"])
    await say(ben, "<b>Hello</b> Ann")
    for page in (ann, ben):
        await expect(said(page)).to_have_text(["Hello Ben", "<b>Hello</b> Ann"])
        await expect(page.locator("#log b")).to_have_count(0)

    await sign_out(ben)
    await expect(said(ben)).to_have_count(0)
    assert await ben.evaluate("() => sessionStorage.length") == 0
    await expect(here(ann)).to_have_text(["Ann"])
    await expect(ann.locator("#log .notice").last).to_have_text("Ben left")

    await fill(ben, "ben", PASSWORD)  # and in again: what was said is there, and the capitals of the name are kept
    await expect(here(ann)).to_have_text(["Ann", "Ben"])
    await expect(said(ben)).to_have_text(["Hello Ben", "<b>Hello</b> Ann"])
    for witness in (ann_heard, ben_heard):
        assert witness.complaints + witness.too_late == []
        assert witness.hosts == {demo.url.removeprefix("http://")}


async def test_a_tab_without_a_token_is_told_so_and_gets_nothing(demo: Demo, browser: Browser) -> None:
    ann, ann_heard = await tab(browser, demo.url)
    await sign_up(ann, "Ann")
    ben, ben_heard = await tab(browser, demo.url)
    await sign_up(ben, "Ben")
    await say(ann, "said before she came")
    await expect(said(ben)).to_have_text(["said before she came"])

    eve, eve_heard = await tab(browser, f"{demo.url}/#chat")
    await refused(eve, "You are not signed in", "credentials_required")
    await say(ann, "said while she knocks")
    await expect(said(ben)).to_have_text(["said before she came", "said while she knocks"])
    await eve.goto("about:blank")  # So that the page is loaded anew: from itself, only its fragment would change.
    await eve.goto(f"{demo.url}/#chat")
    await say(ben, "said when she knocks again")
    await expect(said(ann)).to_contain_text(["said when she knocks again"])
    await refused(eve, "You are not signed in", "credentials_required")

    assert "said when she knocks again" in await ben_heard.heard(), "the witness hears nothing at all"
    heard = await eve_heard.heard()
    assert '"code":"credentials_required"' in heard
    for secret in ("said before", "said while", "said when", "Ann", "Ben"):
        assert secret not in heard
        assert secret not in await eve.inner_text("body")
    await expect(here(ann)).to_have_text(["Ann", "Ben"])
    assert ann_heard.complaints + ben_heard.complaints + eve_heard.complaints == []


async def test_a_tab_with_a_changed_token_is_told_so_and_gets_nothing(demo: Demo, browser: Browser) -> None:
    ann, _ = await tab(browser, demo.url)
    await sign_up(ann, "Ann")
    header, claims, signature = (await token_of(ann)).split(".")
    changed = f"{header}.{claims}.{signature[::-1]}"
    eve, eve_heard = await tab(browser, demo.url, changed)
    await refused(eve, "Your token was not accepted", "invalid_token")
    await say(ann, "said while she knocks")
    await expect(said(ann)).to_have_text(["said while she knocks"])
    heard = await eve_heard.heard()
    assert '"message":"invalid token"' in heard
    assert "said while" not in heard
    assert "welcome" not in heard
    assert await eve.evaluate("() => sessionStorage.length") == 0, "the page keeps a token that is worth nothing"
    assert eve_heard.complaints == []


async def test_a_tab_whose_token_has_expired_is_asked_to_sign_in_again(demo: Demo, browser: Browser) -> None:
    then = int(time.time()) - 3600
    claims = {"iss": "iogate-chat", "aud": "iogate-chat", "name": "Ann", "sid": "s", "jti": "t"}
    token = make_token(secret=SECRET, header=None, **claims, iat=then - 60, exp=then)
    page, witness = await tab(browser, demo.url, token)
    await refused(page, "Your sign-in has run out", "no_token")
    assert '"message":"jwt expired"' in await witness.heard()
    assert witness.complaints == []


async def test_the_page_can_show_the_refusals_of_the_server(demo: Demo, browser: Browser) -> None:
    page, witness = await tab(browser, demo.url)
    await page.get_by_text("Try to get in without it").click()
    for button, shown, code in (
        ("No token", "→ CONNECT\n", "credentials_required"),
        ("A changed token", '→ CONNECT { token: "eyJhbGciOiJI', "invalid_token"),
        ("An unsigned token", '→ CONNECT { token: "eyJhbGciOiJu', "invalid_token"),
    ):
        await page.get_by_role("button", name=button).click()
        answer = page.locator("#answer")
        await expect(answer).to_contain_text(re.compile(re.escape(shown)))
        await expect(answer).to_contain_text(f'"code": "{code}"')
        await expect(answer).to_contain_text("Events of the chat received: 0")
    assert witness.complaints == []


async def test_a_person_with_two_tabs_is_there_once_until_both_are_closed(demo: Demo, browser: Browser) -> None:
    ann, _ = await tab(browser, demo.url)
    await sign_up(ann, "Ann")
    ben, _ = await tab(browser, demo.url)
    await sign_up(ben, "Ben")
    second, _ = await another_tab(ben, demo.url)
    await expect(here(second)).to_have_text(["Ann", "Ben"])
    await say(second, "from the other tab")
    await expect(said(ben)).to_have_text(["from the other tab"])
    await ben.close()
    await say(second, "still here")
    await expect(said(ann)).to_have_text(["from the other tab", "still here"])
    await expect(here(ann)).to_have_text(["Ann", "Ben"])
    await second.close()
    await expect(here(ann)).to_have_text(["Ann"])
    await expect(ann.locator("#log .notice")).to_have_text(["Ben came in", "Ben left"])


async def test_a_page_comes_back_after_a_restart_for_as_long_as_it_has_a_session(demo: Demo, browser: Browser) -> None:
    page, _ = await tab(browser, demo.url)
    await sign_up(page, "Ann")
    demo.stop()
    await expect(page.get_by_role("status")).to_contain_text("Trying again")
    await expect(page.get_by_role("button", name="Send")).to_be_disabled()
    demo.start()
    await expect(page.get_by_role("status")).to_contain_text("Connected")
    await say(page, "back again")
    await expect(said(page)).to_have_text(["back again"])
    demo.stop()
    await expect(page.get_by_role("status")).to_contain_text("Trying again")
    demo.start(secret=SECRET[::-1])  # The token of the page is worth nothing now; its session gives it another.
    await expect(page.get_by_role("status")).to_contain_text("Connected")
    await page.context.clear_cookies()
    demo.stop()
    demo.start()
    await refused(page, "Your token was not accepted", "invalid_token")


async def test_the_form_says_what_is_wrong(demo: Demo, browser: Browser) -> None:
    page, _ = await tab(browser, demo.url)
    error = page.locator("#sign-error")
    await fill(page, "Nobody", PASSWORD)
    await expect(error).to_have_text("The name or the password is wrong.")
    await page.get_by_role("button", name="Create account").first.click()
    await fill(page, "Ann", "short")
    await expect(error).to_have_text("A password has 8 to 256 characters.")
    await expect(page.locator("#chat")).to_be_hidden()


# A session


@pytest.mark.parametrize("settings", [{"TOKEN_LIFETIME": BRIEF}])
async def test_nobody_leaves_the_chat_in_five_lifetimes_of_a_token(demo: Demo, browser: Browser) -> None:
    ann, ann_heard = await tab(browser, demo.url)
    await sign_up(ann, "Ann")
    await expect(ann.locator("#life")).to_contain_text(re.compile(r"^\s*Token good for [1-3] s · since "))
    second, second_heard = await another_tab(ann, demo.url)
    await expect(here(second)).to_have_text(["Ann"])
    ben, ben_heard = await tab(browser, demo.url)
    await sign_up(ben, "Ben")
    tabs = ((ann, ann_heard), (second, second_heard), (ben, ben_heard))
    for page, _ in tabs:
        await page.evaluate(
            "window.states = []; new MutationObserver(() => states.push(state.dataset.state))"
            ".observe(state, { attributes: true })"
        )
    first = claims_of(await token_of(ann))["exp"]
    messages: list[str] = []
    async with asyncio.timeout(60):
        while claims_of(await token_of(ann))["exp"] < first + 5 * BRIEF:
            messages.append(f"message {len(messages) + 1}")
            await say(ben if len(messages) % 2 else ann, messages[-1])
            for page, heard in tabs:
                await expect(said(page)).to_have_text(messages)
                await heard.refreshed.acquire()
    await expect(ann.locator("#life")).to_contain_text(re.compile(r"Token good for [1-3] s · refreshed "))
    for page, heard in tabs:
        assert heard.connections == 1
        assert "waiting" not in await page.evaluate("states"), "the page was disconnected"
        assert '42["unauthorized"' not in await heard.heard()
        assert heard.complaints + heard.too_late == []
    await expect(ben.locator("#log .notice")).to_have_count(0)


async def test_a_sign_out_ends_all_tabs_of_that_browser_and_no_other(demo: Demo, browser: Browser) -> None:
    ann, _ = await tab(browser, demo.url)
    await sign_up(ann, "Ann")
    second, heard = await another_tab(ann, demo.url)
    elsewhere, _ = await tab(browser, demo.url)
    await fill(elsewhere, "Ann", PASSWORD)
    await expect(here(elsewhere)).to_have_text(["Ann"])
    await expect(here(second)).to_have_text(["Ann"])
    token = await token_of(second)

    await sign_out(ann)
    await expect(second.locator("#refusal")).to_be_visible(timeout=1000)
    await refused(second, "You have been signed out", "revoked_token")
    await say(elsewhere, "said afterwards")
    await expect(said(elsewhere)).to_have_text(["said afterwards"])
    assert "said afterwards" not in await heard.heard()
    assert heard.complaints == []
    await second.reload()
    await expect(second.get_by_role("button", name="Sign in").first).to_be_visible()
    thief, _ = await tab(browser, demo.url, token)  # A copy of a token that has not expired does not help either.
    await refused(thief, "You have been signed out", "revoked_token")


async def test_a_sign_out_everywhere_ends_every_browser_and_nobody_else(demo: Demo, browser: Browser) -> None:
    ann, _ = await tab(browser, demo.url)
    await sign_up(ann, "Ann")
    elsewhere, _ = await tab(browser, demo.url)
    await fill(elsewhere, "Ann", PASSWORD)
    await expect(here(elsewhere)).to_have_text(["Ann"])
    ben, _ = await tab(browser, demo.url)
    await sign_up(ben, "Ben")
    await sign_out(ann, "Sign out everywhere")
    await refused(elsewhere, "You have been signed out", "revoked_token")
    await expect(here(ben)).to_have_text(["Ben"])
    await fill(ann, "Ann", PASSWORD)  # Her next token is good, although she has just been thrown out.
    await expect(here(ann)).to_have_text(["Ann", "Ben"])
    await elsewhere.reload()
    await expect(elsewhere.get_by_role("button", name="Sign in").first).to_be_visible()


async def test_a_tab_stays_signed_in_when_it_is_reloaded(demo: Demo, browser: Browser) -> None:
    page, heard = await tab(browser, demo.url)
    await sign_up(page, "Ann")
    await page.reload()
    await expect(here(page)).to_have_text(["Ann"])
    await page.evaluate("sessionStorage.clear()")
    await page.goto(demo.url)
    await expect(here(page)).to_have_text(["Ann"])
    then = int(time.time()) - 3600
    old = make_token(secret=SECRET, **{**claims_of(await token_of(page)), "iat": then, "exp": then + 60})
    await page.evaluate("old => sessionStorage.setItem('token', old)", old)
    await page.reload()
    await expect(here(page)).to_have_text(["Ann"])
    assert '"message":"jwt expired"' in await heard.heard()
    assert heard.complaints == []


async def test_a_tab_does_not_become_somebody_else_who_signs_in_in_the_same_browser(
    demo: Demo, browser: Browser
) -> None:
    ann, _ = await tab(browser, demo.url)
    ben, _ = await another_tab(ann, demo.url)
    await sign_up(ann, "Ann")
    anns = await refresh_token_of(ann)
    await sign_up(ben, "Ben")
    await refused(ann, "Ben has signed in", "revoked_token")
    await expect(here(ben)).to_have_text(["Ben"])
    assert refresh(demo, anns).status_code == 401, "a session goes on that no browser has"
    await ann.reload()
    await expect(ann.locator("#you-name")).to_have_text("Ben")


@pytest.mark.parametrize("settings", [{"TOKEN_LIFETIME": BRIEF, "REFRESH_GRACE": 0}])
async def test_a_stolen_refresh_token_that_is_used_twice_ends_the_thief_and_the_owner(
    demo: Demo, browser: Browser
) -> None:
    elsewhere, _ = await tab(browser, demo.url)
    await sign_up(elsewhere, "Ann")
    ann, _ = await tab(browser, demo.url)
    await fill(ann, "Ann", PASSWORD)
    await expect(here(ann)).to_have_text(["Ann"])
    # At once: soon the page uses this token itself.
    stolen = refresh(demo, await refresh_token_of(ann))
    assert stolen.status_code == 200
    ended: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    thief = socketio.AsyncClient(reconnection=False)
    thief.on("unauthorized", ended.put)
    await thief.connect(demo.url, auth={"token": stolen.json()["token"]}, wait_timeout=5)

    # The page refreshes by itself, with the token that the thief has used: which of the two is Ann, nobody can tell.
    await refused(ann, "You have been signed out", "revoked_token")
    async with asyncio.timeout(5):
        assert (await ended.get())["data"]["code"] == "revoked_token"
        await thief.wait()
    assert refresh(demo, stolen.cookies[COOKIE]).status_code == 401
    await expect(here(elsewhere)).to_have_text(["Ann"])  # Another session of hers has nothing to do with it.


# Over the socket


async def test_the_plain_official_client_chats_and_refreshes_on_the_live_connection(
    demo: Demo, browser: Browser
) -> None:
    page, heard = await tab(browser, demo.url)
    made = post(demo, "/api/accounts", username="Ann", password=PASSWORD)
    newer = refresh(demo, made.cookies[COOKIE]).json()["token"]
    answers = await page.evaluate(
        """async ([token, newer]) => {
            const { io } = await import("/static/socket.io.js");
            const socket = io({ auth: { token } });
            const event = (name) => new Promise((resolve) => socket.once(name, resolve));
            const { you } = await event("welcome");
            const id = socket.id;
            const lives = event("token");
            const authenticated = await socket.timeout(5000).emitWithAck("authenticate", { token: newer });
            const said = event("message");
            await socket.timeout(5000).emitWithAck("message", "still here");
            const answers = { you, authenticated, lives: await lives, said: await said, same: socket.id === id };
            socket.disconnect();
            return answers;
        }""",
        [made.json()["token"], newer],
    )
    claims = claims_of(newer)
    assert answers["authenticated"] == {"sub": claims["sub"], "exp": claims["exp"]}
    assert answers["you"] == {"id": claims["sub"], "name": "Ann"}
    assert answers["said"]["text"] == "still here"
    assert answers["same"]
    assert 0 < answers["lives"]["left"] <= 60
    assert heard.complaints == []


async def test_only_a_text_of_a_sensible_length_is_passed_on_and_its_sender_is_the_token(demo: Demo) -> None:
    token = post(demo, "/api/accounts", username="Ann", password=PASSWORD).json()["token"]
    got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    async with socketio.AsyncSimpleClient() as client:
        await client.connect(demo.url, auth={"token": token}, wait_timeout=5)
        client.client.on("message", got.put)
        for wrong in ("", "   ", "x" * 2001, 7, None, {"text": "hello", "from": {"name": "Zoe"}}, ["hello"]):
            assert "error" in await client.call("message", wrong, timeout=5), wrong
        answer = await client.call("message", "x" * 2000, timeout=5)
        async with asyncio.timeout(5):
            message = await got.get()
    assert message["id"] == answer["id"]
    assert message["from"]["name"] == "Ann"
    assert message["text"] == "x" * 2000
    assert got.empty(), "a refused message was passed on"


# Over HTTP


def post(demo: Demo, path: str, **credentials: str) -> httpx.Response:
    return httpx.post(demo.url + path, json=credentials)


def refresh(demo: Demo, token: str) -> httpx.Response:
    return httpx.post(f"{demo.url}/api/sessions/refresh", headers={"Cookie": f"{COOKIE}={token}"})


def me(demo: Demo, token: str) -> httpx.Response:
    return httpx.get(f"{demo.url}/api/me", headers={"Authorization": f"Bearer {token}"})


def test_an_account_gives_a_token_that_lives_a_minute(demo: Demo) -> None:
    answer = post(demo, "/api/accounts", username="Ann", password=PASSWORD)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    again = post(demo, "/api/sessions", username="ANN", password=PASSWORD)
    assert again.status_code == 200
    shown = me(demo, again.json()["token"])
    assert shown.status_code == 200
    assert shown.json()["name"] == "Ann"
    assert 50 < shown.json()["expires_at"] - time.time() <= 60
    claims = claims_of(again.json()["token"])
    assert claims["sid"] != claims_of(answer.json()["token"])["sid"]
    assert claims["jti"] != claims_of(answer.json()["token"])["jti"]


def test_a_refresh_token_is_for_the_browser_alone_and_the_database_does_not_have_it(demo: Demo) -> None:
    made = post(demo, "/api/accounts", username="Ann", password=PASSWORD)
    name, *attributes = made.headers["set-cookie"].split("; ")
    assert name.startswith(f"{COOKIE}=")
    assert {attribute.lower() for attribute in attributes} == {
        "httponly",
        "samesite=strict",
        "path=/api",
        "max-age=604800",
    }
    newer = refresh(demo, made.cookies[COOKIE])
    assert newer.status_code == 200
    family, first = made.cookies[COOKIE].split(".")
    same, second = newer.cookies[COOKIE].split(".")
    assert family == same
    assert first != second
    assert claims_of(newer.json()["token"])["sid"] == claims_of(made.json()["token"])["sid"]
    kept = demo.database.read_bytes()
    assert claims_of(made.json()["token"])["sid"].encode() in kept
    for secret in (family, first, second):
        assert len(secret) == 43
        assert secret.encode() not in kept


def test_a_refresh_token_is_good_once_more_for_a_moment_and_an_older_one_ends_the_session(demo: Demo) -> None:
    first = post(demo, "/api/accounts", username="Ann", password=PASSWORD).cookies[COOKIE]
    second = refresh(demo, first)  # Its answer is lost on the way: so it is asked for again.
    third = refresh(demo, first)
    assert (second.status_code, third.status_code) == (200, 200)
    fourth = refresh(demo, third.cookies[COOKIE])
    assert me(demo, fourth.json()["token"]).status_code == 200
    late = refresh(demo, second.cookies[COOKIE])  # It was not lost.
    assert late.status_code == 401
    assert late.headers["set-cookie"].startswith(f'{COOKIE}="";')
    for answer in (second, third, fourth):
        refused_ = me(demo, answer.json()["token"])
        assert (refused_.status_code, refused_.json()["code"]) == (401, "revoked_token")
        assert refresh(demo, answer.cookies[COOKIE]).status_code == 401


async def test_tabs_that_refresh_at_the_same_moment_all_get_a_token(demo: Demo) -> None:
    first = post(demo, "/api/accounts", username="Ann", password=PASSWORD).cookies[COOKIE]
    async with httpx.AsyncClient(headers={"Cookie": f"{COOKIE}={first}"}) as client:
        answers = await asyncio.gather(*(client.post(f"{demo.url}/api/sessions/refresh") for _ in range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.cookies[COOKIE] for answer in answers}) == 8


def test_a_made_up_refresh_token_is_refused(demo: Demo) -> None:
    real = post(demo, "/api/accounts", username="Ann", password=PASSWORD).cookies[COOKIE]
    for cookie in ("", ".", "x", "x.y", "\xe4.\xf6", "." * 3000, real[1:], real.replace(".", "")):
        headers = {b"Cookie": f"{COOKIE}={cookie}".encode("latin-1")}
        for method, path, status in (("POST", "/refresh", 401), ("DELETE", "", 401), ("DELETE", "/current", 204)):
            answer = httpx.request(method, f"{demo.url}/api/sessions{path}", headers=headers)
            assert answer.status_code == status, (cookie, method, path)
    assert refresh(demo, real).status_code == 200
    assert httpx.post(f"{demo.url}/api/sessions/refresh").status_code == 204, "nobody is signed in: that is no error"


def test_a_session_ends_after_a_week_without_a_refresh_and_after_a_month_in_any_case(demo: Demo) -> None:
    day = 86400
    first = post(demo, "/api/accounts", username="Ann", password=PASSWORD).cookies[COOKIE]
    age_sessions(demo, 6 * day)
    second = refresh(demo, first)
    assert second.status_code == 200
    age_sessions(demo, 7 * day)
    assert refresh(demo, second.cookies[COOKIE]).status_code == 401
    assert me(demo, second.json()["token"]).json()["code"] == "revoked_token"

    busy = post(demo, "/api/sessions", username="Ann", password=PASSWORD)
    for _ in range(5):
        age_sessions(demo, 6 * day - 60)
        busy = refresh(demo, busy.cookies[COOKIE])
        assert busy.status_code == 200
    age_sessions(demo, 300)
    assert refresh(demo, busy.cookies[COOKIE]).status_code == 401


def age_sessions(demo: Demo, seconds: float) -> None:
    """Make as if the sessions had begun, and been used, so much earlier."""
    database = sqlite3.connect(demo.database)
    with database:
        database.execute(
            "UPDATE sessions SET created_at = created_at - ?1, refreshed_at = refreshed_at - ?1, "
            "expires_at = expires_at - ?1",
            (seconds,),
        )
    database.close()


def test_who_signs_out_everywhere_may_sign_in_within_the_same_second(demo: Demo) -> None:
    made = post(demo, "/api/accounts", username="Ann", password=PASSWORD)
    for _ in range(5):
        cookie = {"Cookie": f"{COOKIE}={made.cookies[COOKIE]}"}
        assert httpx.delete(f"{demo.url}/api/sessions", headers=cookie).status_code == 204
        assert me(demo, made.json()["token"]).json()["code"] == "revoked_token"
        made = post(demo, "/api/sessions", username="Ann", password=PASSWORD)
        assert me(demo, made.json()["token"]).status_code == 200


def test_a_sign_out_survives_a_restart(demo: Demo) -> None:
    ann = post(demo, "/api/accounts", username="Ann", password=PASSWORD)
    ben = post(demo, "/api/accounts", username="Ben", password=PASSWORD)
    cookie = {"Cookie": f"{COOKIE}={ann.cookies[COOKIE]}"}
    assert httpx.delete(f"{demo.url}/api/sessions/current", headers=cookie).status_code == 204
    demo.stop()
    demo.start()
    assert me(demo, ann.json()["token"]).json()["code"] == "revoked_token"
    assert refresh(demo, ann.cookies[COOKIE]).status_code == 401
    assert me(demo, ben.json()["token"]).status_code == 200
    assert refresh(demo, ben.cookies[COOKIE]).status_code == 200


def test_a_database_of_a_version_without_sessions_goes_on(demo: Demo) -> None:
    post(demo, "/api/accounts", username="Ann", password=PASSWORD)
    demo.stop()
    database = sqlite3.connect(demo.database)
    database.execute("DROP TABLE sessions")
    database.close()
    demo.start()
    answer = post(demo, "/api/sessions", username="Ann", password=PASSWORD)
    assert answer.status_code == 200
    assert refresh(demo, answer.cookies[COOKIE]).status_code == 200


def test_no_page_of_another_site_signs_anybody_in_or_out(demo: Demo) -> None:
    made = post(demo, "/api/accounts", username="Ann", password=PASSWORD)
    cookie = {"Cookie": f"{COOKIE}={made.cookies[COOKIE]}"}
    body = json.dumps({"username": "Ann", "password": PASSWORD})
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1", "", f"{demo.url}.example"):
        for method, path in (
            ("POST", "accounts"),
            ("POST", "sessions"),
            ("POST", "sessions/refresh"),
            ("DELETE", "sessions/current"),
            ("DELETE", "sessions"),
        ):
            headers = {"Origin": origin, **cookie}
            answer = httpx.request(method, f"{demo.url}/api/{path}", headers=headers, content=body)
            assert answer.status_code == 403, (origin, method, path)
            assert "set-cookie" not in answer.headers
    assert me(demo, made.json()["token"]).status_code == 200
    for headers in (cookie, {"Origin": demo.url, **cookie}):
        assert httpx.post(f"{demo.url}/api/sessions/refresh", headers=headers).status_code == 200


def test_the_rest_endpoint_refuses_in_the_words_of_the_contract(demo: Demo) -> None:
    token = post(demo, "/api/accounts", username="Ann", password=PASSWORD).json()["token"]
    bearer = f"Bearer {token}"
    cases: list[tuple[list[tuple[str, str]], str, str, str]] = [
        ([], "credentials_required", "No authorization token was found", "login"),
        ([("Authorization", f"{bearer[:-8]}AAAAAAAA")], "invalid_token", "invalid token", "login"),
        (
            [("Authorization", f"Basic {token}")],
            "credentials_bad_scheme",
            "Format is Authorization: Bearer [token]",
            "never",
        ),
        ([("Authorization", bearer)] * 2, "credentials_bad_format", "Format is Authorization: Bearer [token]", "never"),
    ]
    for headers, code, message, retry in cases:
        answer = httpx.get(f"{demo.url}/api/me", headers=headers)
        assert answer.status_code == 401, code
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert answer.json() == {"message": message, "code": code, "type": "UnauthorizedError", "retry": retry}


def test_a_wrong_password_and_an_unknown_name_get_the_same_answer_and_are_limited(demo: Demo) -> None:
    post(demo, "/api/accounts", username="Ann", password=PASSWORD)
    wrong = post(demo, "/api/sessions", username="Ann", password="wrong horse")
    unknown = post(demo, "/api/sessions", username="Zoe", password="wrong horse")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()
    answers = [post(demo, "/api/sessions", username="ann", password="wrong horse") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    # The right password does not help now, or guessing would only have to be patient until it is right.
    assert post(demo, "/api/sessions", username="Ann", password=PASSWORD).status_code == 429


def test_a_name_that_nobody_can_have_is_answered_like_any_other(demo: Demo) -> None:
    for username in ("", "a b", "an\0n", "n" * 3000):
        answer = post(demo, "/api/sessions", username=username, password=PASSWORD)
        assert answer.status_code == 401
        assert answer.json() == {"message": "The name or the password is wrong."}


def test_a_name_is_taken_whatever_its_capitals(demo: Demo) -> None:
    assert post(demo, "/api/accounts", username="Ann", password=PASSWORD).status_code == 201
    assert post(demo, "/api/accounts", username="aNN", password="another horse").status_code == 409


def test_a_name_or_password_out_of_bounds_is_refused(demo: Demo) -> None:
    for username, password in (
        *((username, PASSWORD) for username in ("A", "A" * 33, "a b", "<b>")),
        *(("Ann", password) for password in ("short", "x" * 257)),
    ):
        answer = post(demo, "/api/accounts", username=username, password=password)
        assert answer.status_code == 400, (username, password)
        assert answer.json()["message"]


def test_a_body_that_is_too_large_or_not_what_was_asked_for_is_refused(demo: Demo) -> None:
    sessions = f"{demo.url}/api/sessions"
    assert httpx.post(sessions, content=b" " * 5000).status_code == 413
    assert httpx.post(sessions, content=(b" " * 1000 for _ in range(5))).status_code == 413
    for content in (b"", b"[]", b"{", b"\xff", b"[" * 4000, b'{"username": "Ann"}', b'{"username": 1, "password": 2}'):
        assert httpx.post(sessions, content=content).status_code == 400, content


def test_the_page_allows_nothing_from_elsewhere(demo: Demo) -> None:
    page = httpx.get(demo.url)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'self' 'sha256-[\w+/=]+';", policy), "only the import map is inline"
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"""(?:src|href|action)=["']?(?:https?:)?//""", page.text)


def test_it_says_where_it_is_and_prints_a_command_that_works(demo: Demo) -> None:
    printed = demo.said("stdout")
    port = demo.url.rpartition(":")[2]
    assert f"http://localhost:{port}\n" in printed
    command = re.search(r'curl -H "(Authorization): (Bearer [^"]+)" http://localhost:\d+(/api/me)', printed)
    assert command is not None, printed
    answer = httpx.get(demo.url + command[3], headers={command[1]: command[2]})
    assert answer.status_code == 200
    assert SECRET not in printed + demo.said("stderr")
