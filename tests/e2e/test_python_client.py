"""python-socketio's client against a real server: a second implementation of the protocol, on every transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import aiohttp
import pytest
import socketio

from iogate import AckTimeout, Refused, Server, Socket
from tests.refusals import EXPIRED, INVALID, REQUIRED
from tests.servers import make_server, make_token, serve

WITHIN = 5  # seconds


@asynccontextmanager
async def unconnected() -> AsyncIterator[socketio.AsyncClient]:
    """Make a client.

    It gets an HTTP session from outside, because one of its own it does not always close; and one that reads every
    answer to its end, because the client leaves some of them lying about.
    """
    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(_read_all)
    async with aiohttp.ClientSession(trace_configs=[trace]) as http:
        peer = socketio.AsyncClient(reconnection=False, http_session=http)
        try:
            yield peer
        finally:
            if peer.connected:
                # If it is still sending when it is told to leave, it forgets to tell the server.
                await peer.eio.queue.join()
            await peer.shutdown()


async def _read_all(_session: Any, _context: Any, request: aiohttp.TraceRequestEndParams) -> None:
    if request.response.status != HTTPStatus.SWITCHING_PROTOCOLS:
        await request.response.read()


@asynccontextmanager
async def client(url: str, transports: list[str], **options: Any) -> AsyncIterator[socketio.AsyncClient]:
    """Connect with a good token, unless another `auth` is given, and leave at the end."""
    options.setdefault("auth", {"token": make_token(name="Ann")})
    async with unconnected() as peer:
        await peer.connect(url, transports=transports, wait_timeout=WITHIN, **options)
        assert peer.transport() == transports[-1]
        yield peer


async def refusal_of(url: str, transports: list[str], auth: Any, namespace: str = "/") -> Any:
    """Return the payload of the CONNECT_ERROR with which the server answers."""
    told: list[Any] = []
    async with unconnected() as peer:
        peer.on("connect_error", told.append, namespace=namespace)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await peer.connect(url, transports=transports, auth=auth, namespaces=[namespace], wait_timeout=WITHIN)
    [payload] = told
    return payload


def echo_server() -> Server:
    """Return a server that says back what it hears, as an event and as the acknowledgement."""
    io = make_server()

    @io.on("echo")
    async def echo(socket: Socket, *args: Any) -> tuple[Any, ...]:
        socket.emit("echo", *args)
        return args

    return io


async def test_a_good_token_is_greeted_by_name(transports: list[str]) -> None:
    io = make_server()
    gone: asyncio.Queue[str] = asyncio.Queue()
    heard: asyncio.Queue[Any] = asyncio.Queue()

    @io.on("hello")
    async def hello(socket: Socket) -> None:
        socket.emit("greeting", f"Hello {socket.claims['name']}!")

    @io.on("disconnect")
    async def leave(socket: Socket, reason: str) -> None:
        gone.put_nowait(reason)

    async with serve(io) as url, asyncio.timeout(2 * WITHIN):
        async with client(url, transports) as peer:
            peer.on("greeting", heard.put_nowait)
            await peer.emit("hello")
            assert await heard.get() == "Hello Ann!"
        assert await gone.get() in {"client namespace disconnect", "transport close"}


@pytest.mark.parametrize(
    ("auth", "refusal"),
    [
        (None, REQUIRED),
        ({"token": "no.jwt.atall"}, INVALID),
        ({"token": make_token(exp=1_700_000_000)}, EXPIRED),
    ],
    ids=["none", "garbage", "expired"],
)
async def test_a_bad_token_is_refused_with_the_data_of_the_contract(
    transports: list[str], auth: Any, refusal: dict[str, Any]
) -> None:
    async with serve(make_server()) as url:
        assert await refusal_of(url, transports, auth) == refusal


async def test_a_middleware_refuses_with_its_own_data(transports: list[str]) -> None:
    io = make_server()

    @io.of("/admin").use
    async def closed(socket: Socket) -> None:
        raise Refused("closed", data={"code": "closed"})

    async with serve(io) as url:
        refusal = await refusal_of(url, transports, {"token": make_token()}, "/admin")
    assert refusal == {"message": "closed", "data": {"code": "closed"}}


async def test_events_come_back_unchanged_with_and_without_bytes(transports: list[str]) -> None:
    heard: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
    messages: list[tuple[Any, ...]] = [
        (),
        ("ünïcödé 漢字 🚀",),
        (1, None, {"a": [True, 1.5]}),
        (b"\x00\xff",),
        ({"file": b"one", "more": [b"two", "three"]}, b""),
    ]
    async with serve(echo_server()) as url, client(url, transports) as peer, asyncio.timeout(WITHIN):
        peer.on("echo", lambda *args: heard.put_nowait(args))
        for message in messages:
            await peer.emit("echo", message)
        assert [await heard.get() for _ in messages] == messages


async def test_acknowledgements_work_in_both_directions(transports: list[str]) -> None:
    io = echo_server()
    answers: asyncio.Queue[Any] = asyncio.Queue()

    @io.on("ask me")
    async def ask(socket: Socket) -> None:
        answers.put_nowait(await socket.call("question", 1, b"two", timeout=WITHIN))
        try:
            await socket.call("silent", timeout=0.2)
        except AckTimeout as error:
            answers.put_nowait(type(error))

    async with serve(io) as url, client(url, transports) as peer, asyncio.timeout(2 * WITHIN):

        async def stay_silent() -> None:
            await asyncio.Event().wait()

        peer.on("question", lambda number, data: {"number": number, "data": data})
        peer.on("silent", stay_silent)
        assert await peer.call("echo", "one") == "one"
        assert await peer.call("echo", ("one", b"two")) == ("one", b"two")
        assert await peer.call("echo") is None
        await peer.emit("ask me")
        assert await answers.get() == {"number": 1, "data": b"two"}
        assert await answers.get() is AckTimeout


async def test_two_namespaces_share_one_transport_and_keep_apart(transports: list[str]) -> None:
    io = make_server()
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    @io.of("/admin").on("all")
    async def everyone(socket: Socket) -> None:
        io.of("/admin").emit("news", "for admins")
        io.emit("news", "for all")

    async with (
        serve(io) as url,
        client(url, transports, namespaces=["/", "/admin"]) as peer,
        asyncio.timeout(WITHIN),
    ):
        peer.on("news", lambda text: heard.put_nowait(("/", text)))
        peer.on("news", lambda text: heard.put_nowait(("/admin", text)), namespace="/admin")
        await peer.emit("all", namespace="/admin")
        assert {await heard.get(), await heard.get()} == {("/", "for all"), ("/admin", "for admins")}


async def test_a_disconnect_by_the_server_reaches_the_client(transports: list[str]) -> None:
    io = make_server()
    gone: asyncio.Queue[str] = asyncio.Queue()
    told: asyncio.Queue[str] = asyncio.Queue()

    @io.on("kick me")
    async def kick(socket: Socket) -> None:
        socket.disconnect(close=True)

    @io.on("disconnect")
    async def leave(socket: Socket, reason: str) -> None:
        gone.put_nowait(reason)

    async with serve(io) as url, client(url, transports) as peer, asyncio.timeout(WITHIN):
        peer.on("disconnect", told.put_nowait)
        await peer.emit("kick me")
        assert await gone.get() == "server namespace disconnect"
        assert await told.get() == "server disconnect"
