"""The system's Chromium, headless, for the tests that need a real page; and what a page heard and complained about."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Error,
    Page,
    Request,
    Response,
    WebSocket,
    async_playwright,
    expect,
)

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A page that asks for anything from elsewhere does not get it: what we serve works without the internet.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PATIENCE = 10_000  # milliseconds that a page has for what is expected of it

expect.set_options(timeout=PATIENCE)


def chromium_path() -> str:
    """Return where the browser is: `CHROMIUM`, or one on the PATH. Fails the test when there is none."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail(
            f"this test needs a browser: install the package `chromium` (one of {', '.join(NAMES)} on the PATH), "
            "or set CHROMIUM to the path of one",
            pytrace=False,
        )
    return path


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the browser, and end it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=list(FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


class Witness:
    """Notes what a page receives, asks for and complains about, from its first request on."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.too_late: list[str] = []
        """The browser's own lines about what it sent to a session that the server had just ended, as with a refusal."""
        self.refreshed = asyncio.Semaphore(0)
        """Goes up by one with each token that the page refreshes on a live connection."""
        self.connections = 0
        """How many WebSockets it opened."""
        self.hosts: set[str] = set()
        self._heard: list[str] = []
        self._reading: set[asyncio.Task[None]] = set()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._request)
        page.on("response", self._response)
        page.on("websocket", self._websocket)

    async def heard(self) -> str:
        """Return all that came from the server: the frames of all WebSockets, the bodies of all answers but files."""
        while self._reading:
            await asyncio.wait(set(self._reading), timeout=PATIENCE / 1000)
        return "\n".join(self._heard)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            line = f"{message.text} {message.location['url']}"
            ended = (
                ("/socket.io/" in line and "sid=" in line and " 400" in line)
                or ("/api/sessions/refresh" in line and " 401" in line)
                or "WebSocket is already in CLOSING or CLOSED state" in line
            )
            (self.too_late if ended else self.complaints).append(line)

    def _request(self, request: Request) -> None:
        self.hosts.add(urlsplit(request.url).netloc)

    def _websocket(self, websocket: WebSocket) -> None:
        self.hosts.add(urlsplit(websocket.url).netloc)
        self.connections += 1
        websocket.on("framereceived", self._frame)

    def _frame(self, payload: str | bytes) -> None:
        text = _text(payload)
        self._heard.append(text)
        if text.startswith('42["token",'):
            self.refreshed.release()

    def _response(self, response: Response) -> None:
        if response.request.resource_type in ("fetch", "xhr"):
            task = asyncio.ensure_future(self._body(response))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _body(self, response: Response) -> None:
        try:
            self._heard.append(_text(await response.body()))
        except Error:  # Cut off, by the page or with it: there is no body.
            self._heard.append("")


def _text(payload: str | bytes) -> str:
    return payload if isinstance(payload, str) else payload.decode("utf-8", "replace")
