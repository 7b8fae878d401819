"""The wire, spelled out: sessions over polling and WebSocket that send and show exactly what is said."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.servers import make_token

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # Else each client reads all certificates of the machine.

WITHIN = 5.0  # seconds in which whatever is awaited must have happened

PATH = "/socket.io/"
POLLING = {"EIO": "4", "transport": "polling"}
WEBSOCKET = {"EIO": "4", "transport": "websocket"}


class Closed(Exception):
    """The server has ended the session."""

    def __init__(self, how: str, code: int | None = None) -> None:
        super().__init__(how)
        self.code = code


class Session(Protocol):
    """A session on either transport."""

    @property
    def handshake(self) -> dict[str, Any]:
        """The object in the OPEN packet."""

    async def send(self, *packets: str | bytes) -> None:
        """Send packets; bytes are a binary message. What the server answers to that is not looked at."""

    async def receive(self) -> str | bytes:
        """Return the next packet but for pings (which are answered), or raise `Closed`."""

    async def receive_any(self) -> str | bytes:
        """Return the next packet, pings too, or raise `Closed`."""


class Polling:
    """A session over HTTP long-polling."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.handshake: dict[str, Any] = {}
        self._inbox: list[str | bytes] = []

    @property
    def query(self) -> dict[str, str]:
        """The parameters of every request of the session."""
        return {**POLLING, "sid": self.handshake["sid"]}

    async def open(self, **headers: str) -> None:
        """Shake hands."""
        answer = await self.http.get("/socket.io/", params=POLLING, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.text.startswith("0{")
        self.handshake = json.loads(answer.text[1:])

    async def get(self) -> httpx.Response:
        """Poll once."""
        return await self.http.get("/socket.io/", params=self.query)

    async def post(self, body: str | bytes) -> httpx.Response:
        """Post a payload as it is."""
        headers = {"Content-Type": "text/plain;charset=UTF-8"}
        return await self.http.post("/socket.io/", params=self.query, content=body, headers=headers)

    async def send(self, *packets: str | bytes) -> None:
        await self.post("\x1e".join(_polled(packet) for packet in packets))

    async def receive_any(self) -> str | bytes:
        while not self._inbox:
            answer = await self.get()
            if answer.status_code != 200:
                raise Closed(answer.text)
            self._inbox = [_unpolled(packet) for packet in answer.text.split("\x1e")]
        packet = self._inbox.pop(0)
        if packet == "1":
            raise Closed("a close packet")
        return packet

    async def receive(self) -> str | bytes:
        return await _skip_pings(self)


class WebSocket:
    """A session over WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.handshake: dict[str, Any] = {}

    async def open(self) -> None:
        """Read the OPEN packet."""
        packet = await self.receive_any()
        assert isinstance(packet, str)
        assert packet.startswith("0{")
        self.handshake = json.loads(packet[1:])

    async def send(self, *packets: str | bytes) -> None:
        try:
            for packet in packets:
                await self.connection.send(packet)
        except ConnectionClosed:
            pass  # For `receive` to tell.

    async def receive_any(self) -> str | bytes:
        try:
            packet = await self.connection.recv()
        except ConnectionClosed as error:
            raise Closed(str(error), error.rcvd.code if error.rcvd else None) from None
        if packet == "1":
            raise Closed("a close packet")
        return packet

    async def receive(self) -> str | bytes:
        return await _skip_pings(self)


def client(url: str) -> httpx.AsyncClient:
    """Return an HTTP client for requests that are no session's."""
    return httpx.AsyncClient(base_url=url, timeout=WITHIN, verify=_NO_TLS)


@asynccontextmanager
async def polling(url: str, **headers: str) -> AsyncIterator[Polling]:
    """Open a session over polling; it is left without a word."""
    async with client(url) as http:
        session = Polling(http)
        await session.open(**headers)
        yield session


@asynccontextmanager
async def websocket(url: str, **headers: str) -> AsyncIterator[WebSocket]:
    """Open a session over WebSocket."""
    async with raw_websocket(url, WEBSOCKET, **headers) as connection:
        session = WebSocket(connection)
        await session.open()
        yield session


@asynccontextmanager
async def raw_websocket(
    url: str, query: dict[str, str], *, path: str = PATH, **headers: str
) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket with exactly these parameters."""
    address = httpx.URL(url.replace("http", "ws", 1) + path, params=query)
    async with connect(
        str(address),
        additional_headers=headers,
        compression=None,
        max_size=None,
        ping_interval=None,
        proxy=None,
        close_timeout=0.2,
    ) as connection:
        yield connection


@asynccontextmanager
async def session(url: str, transport: str) -> AsyncIterator[Session]:
    """Open a session over the transport of this name."""
    async with polling(url) if transport == "polling" else websocket(url) as opened:
        yield opened


async def refused(url: str, query: dict[str, str], *, path: str = PATH, **headers: str) -> websockets.Response:
    """Return the HTTP answer to a WebSocket that is not accepted."""
    try:
        async with raw_websocket(url, query, path=path, **headers):
            raise AssertionError("the WebSocket was accepted")
    except InvalidStatus as error:
        return error.response


async def enter(session: Session, namespace: str = "", **claims: Any) -> str:
    """Enter a namespace with a good token and return the id of the socket."""
    prefix = f"{namespace}," if namespace else ""
    await session.send(f"40{prefix}" + json.dumps({"token": make_token(**claims)}))
    answer = await within(session.receive())
    assert isinstance(answer, str)
    assert answer.startswith(f"40{prefix}" + '{"sid":"'), answer
    sid: str = json.loads(answer[2 + len(prefix) :])["sid"]
    return sid


async def probe(connection: ClientConnection) -> None:
    """Begin the upgrade of a session: send the probe on its WebSocket, and wait for the answer."""
    await connection.send("2probe")
    assert await within(connection.recv()) == "3probe"


async def ends(session: Session) -> Closed:
    """Wait until the server has ended the session, whatever it still says; say how it ended."""
    try:
        async with asyncio.timeout(WITHIN):
            while True:
                await session.receive_any()
    except Closed as closed:
        return closed


async def said(session: Session) -> list[str | bytes]:
    """Return everything that the server still says until it ends the session, but for pings and noops."""
    packets: list[str | bytes] = []
    try:
        async with asyncio.timeout(WITHIN):
            while True:
                packet = await session.receive()
                if packet != "6":
                    packets.append(packet)
    except Closed:
        return packets


async def echoes(session: Session, text: str = "still here") -> None:
    """Make sure that a session that is in the root namespace is served, by its `echo` handler."""
    await session.send("42" + json.dumps(["echo", text]))
    answer = await within(session.receive())
    assert isinstance(answer, str)
    assert json.loads(answer.removeprefix("42")) == ["echo", text]


async def within(awaitable: Any) -> Any:
    """Wait for something, but not for ever."""
    async with asyncio.timeout(WITHIN):
        return await awaitable


async def _skip_pings(session: Session) -> str | bytes:
    while (packet := await session.receive_any()) == "2":
        await session.send("3")
    return packet


def _polled(packet: str | bytes) -> str:
    if isinstance(packet, str):
        return packet
    return "b" + base64.b64encode(packet).decode()


def _unpolled(packet: str) -> str | bytes:
    return base64.b64decode(packet[1:], validate=True) if packet.startswith("b") else packet
