"""The MessagePack parser: the official JavaScript client with `socket.io-msgpack-parser`, and python-socketio's.

A server speaks one parser. A client with the other is refused, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import aiohttp
import msgspec
import pytest
import socketio

from iogate import AckTimeout, Refused, Server, Socket
from iogate.protocol.socketio.msgpack import Decoder, encode
from iogate.protocol.socketio.packets import Packet, PacketType
from tests.conformance.wire import ends, session, within
from tests.e2e.official import (
    Step,
    answer,
    call,
    connect,
    disconnect,
    emit,
    events,
    of,
    reconnect,
    run_client,
    wait,
    wait_event,
)
from tests.gate.support import StoppedWallClock, make_auth
from tests.refusals import EXPIRED, INVALID, REQUIRED
from tests.servers import make_server, make_token, serve

pytestmark = pytest.mark.usefixtures("ws")

WITHIN = 5  # seconds

UNDEFINED = {"$undefined": True}
DATE = {"$date": "2020-02-29T12:00:00.123Z"}
BUFFER = {"$buffer": base64.b64encode(b"\0" * 8).decode()}


def joined(transports: list[str], **options: Any) -> list[Step]:
    """Connect with a good token, and see the upgrade through where there is one."""
    options.setdefault("auth", {"token": make_token(name="Ann")})
    steps = [connect(**options), wait("connect")]
    return [*steps, wait("upgrade")] if len(transports) > 1 else steps


def echo_server(parser: str = "msgpack") -> Server:
    """Return a server that says back what it hears, as an event and as the acknowledgement."""
    io = make_server(parser=parser)

    @io.on("echo")
    async def echo(socket: Socket, *args: Any) -> tuple[Any, ...]:
        socket.emit("echo", *args)
        return args

    return io


@pytest.mark.parametrize(
    ("auth", "refusal"),
    [
        ({}, REQUIRED),
        (UNDEFINED, REQUIRED),
        ({"token": UNDEFINED}, REQUIRED),
        ({"token": "no.jwt.atall"}, INVALID),
        ({"token": make_token(exp=1_700_000_000)}, EXPIRED),
    ],
    ids=["none", "undefined", "undefined token", "garbage", "expired"],
)
async def test_a_bad_token_is_refused_with_the_data_of_the_contract(
    transports: list[str], auth: dict[str, Any], refusal: dict[str, Any]
) -> None:
    io = make_server(parser="msgpack")
    ran: list[Socket] = []
    io.on("connect")(ran.append)
    async with serve(io) as url:
        lines = await run_client(
            url, connect(auth=auth), wait("connect_error"), transports=transports, parser="msgpack"
        )
    [error] = of(lines, "connect_error")
    assert {"message": error["message"], "data": error["data"]} == refusal
    assert not of(lines, "connect")
    assert not ran


async def test_a_good_token_is_greeted_by_name(transports: list[str]) -> None:
    io = make_server(parser="msgpack")

    @io.on("connect")
    async def greet(socket: Socket) -> None:
        socket.emit("greeting", f"Hello {socket.claims['name']}!", socket.id)

    async with serve(io) as url:
        lines = await run_client(
            url, *joined(transports), wait_event("greeting"), transports=transports, parser="msgpack"
        )
    [connected] = of(lines, "connect")
    assert events(lines, "greeting") == [["Hello Ann!", connected["id"]]]
    assert [line["transport"] for line in of(lines, "upgrade")] == transports[1:]


async def test_events_and_acknowledgements_come_back_unchanged_with_and_without_bytes(transports: list[str]) -> None:
    every_byte = bytes(range(256))
    messages: list[list[Any]] = [
        [],
        [None, True, 0, -1, 1.5, 2**53 - 1, "", "ünïcödé, 漢字, 👩🏽‍🚀 \u2028\u0000\u001e"],
        [[[], [[]], [{}]], {"a": [1, {"b": None}], "": "empty", "ключ": "значение"}],
        [every_byte],
        [{"file": {"name": "ü.bin", "parts": [every_byte, {"last": b"\x00\xff"}]}}, b"", "text"],
        [b"x" * 200_000, list(range(1000))],
    ]
    async with serve(echo_server()) as url:
        lines = await run_client(
            url,
            *joined(transports),
            *(call("echo", *message) for message in messages),
            transports=transports,
            parser="msgpack",
        )
    assert events(lines, "echo") == messages
    assert [line["args"] for line in of(lines, "ack")] == messages


async def test_what_is_only_javascripts_is_read_as_with_the_json_parser(transports: list[str]) -> None:
    heard: list[list[tuple[Any, ...]]] = []
    parsers: list[dict[str, Any]] = [{}, {"parser": "msgpack"}]
    for parser in parsers:
        io = make_server(**parser)
        here: list[tuple[Any, ...]] = []

        @io.on("tell")
        async def tell(socket: Socket, *args: Any, here: list[tuple[Any, ...]] = here) -> None:
            here.append(args)

        async with serve(io) as url:
            await run_client(
                url,
                *joined(transports),
                call("tell", UNDEFINED, [UNDEFINED, 1], {"a": UNDEFINED, "b": DATE}, DATE, BUFFER),
                transports=transports,
                **parser,
            )
        heard.append(here)
    assert heard[0] == heard[1] == [(None, [None, 1], {"b": DATE["$date"]}, DATE["$date"], bytes(8))]


async def test_the_server_awaits_the_acknowledgement_of_the_client(transports: list[str]) -> None:
    io = make_server(parser="msgpack")

    @io.on("ask me")
    async def ask(socket: Socket) -> None:
        answers = [await socket.call(question, b"why", timeout=5) for question in ("none", "one", "several")]
        try:
            await socket.call("silent", timeout=0.2)
        except AckTimeout as error:
            answers.append(type(error).__name__)
        socket.emit("asked", answers)

    async with serve(io) as url:
        lines = await run_client(
            url,
            *joined(transports),
            answer("none"),
            answer("one", {"bytes": b"\x00\x01"}),
            answer("several", 1, UNDEFINED),
            emit("ask me"),
            wait_event("asked"),
            transports=transports,
            parser="msgpack",
        )
    assert events(lines, "asked") == [[[None, {"bytes": b"\x00\x01"}, [1, None], "AckTimeout"]]]


async def test_rooms_and_namespaces_hear_what_is_for_them(transports: list[str]) -> None:
    io = make_server(parser="msgpack")
    token = make_token(name="Ann")

    @io.on("join")
    async def join(socket: Socket, room: str) -> None:
        socket.join(room)

    @io.on("tell")
    async def tell(socket: Socket, room: str, data: Any) -> None:
        io.to(room).emit("told", data)
        io.of("/news").emit("told", "news")
        io.emit("done")

    io.of("/news")

    @io.of("/closed").use
    async def closed(socket: Socket) -> None:
        raise Refused("closed at weekends", data={"until": [1, None]})

    async with serve(io) as url:
        lines = await run_client(
            url,
            *joined(transports, auth={"token": token}),
            connect("/news", auth={"token": token}),
            wait("connect", "/news"),
            connect("/closed", auth={"token": token}),
            wait("connect_error", "/closed"),
            connect("/nowhere", auth={"token": token}),
            wait("connect_error", "/nowhere"),
            connect(name="bob", forceNew=True, auth={"token": make_token(sub="bob")}),
            wait("connect", "bob"),
            call("join", "red", on="bob"),
            emit("tell", "red", b"hello"),
            wait_event("done"),
            wait_event("done", "bob"),
            wait_event("told", "/news"),
            transports=transports,
            parser="msgpack",
        )
    assert events(lines, "told", "bob") == [[b"hello"]]
    assert events(lines, "told", "/") == []
    assert events(lines, "told", "/news") == [["news"]]
    assert [(line["message"], line["data"]) for line in of(lines, "connect_error")] == [
        ("closed at weekends", {"until": [1, None]}),
        ("Invalid namespace", None),
    ]


async def test_who_leaves_or_is_sent_away_knows_it_and_may_come_back(transports: list[str]) -> None:
    io = make_server(parser="msgpack")
    io.of("/other")  # Keeps the transport open.
    reasons: asyncio.Queue[str] = asyncio.Queue()
    token = make_token()

    @io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        reasons.put_nowait(reason)

    @io.on("kick me")
    async def kick(socket: Socket) -> None:
        socket.disconnect()

    async with serve(io) as url:
        lines = await run_client(
            url,
            *joined(transports, auth={"token": token}),
            connect("/other", auth={"token": token}),
            wait("connect", "/other"),
            disconnect(),
            wait("disconnect"),
            reconnect(),
            wait("connect"),
            emit("kick me"),
            wait("disconnect"),
            transports=transports,
            parser="msgpack",
        )
        async with asyncio.timeout(WITHIN):
            assert await reasons.get() == "client namespace disconnect"
            assert await reasons.get() == "server namespace disconnect"
    assert [line["reason"] for line in of(lines, "disconnect")][:2] == ["io client disconnect", "io server disconnect"]


async def test_a_socket_ends_when_its_token_does(transports: list[str]) -> None:
    clock = StoppedWallClock()
    io = make_server(parser="msgpack", auth=make_auth(clock=clock))
    token = make_token(exp=clock.now + 1)
    # Over polling the farewell and CLOSE come in one payload, and this client handles the CLOSE first.
    farewell = [] if transports == ["polling"] else [wait_event("unauthorized")]
    async with serve(io) as url:
        lines = await run_client(
            url,
            connect(auth={"token": token}),
            wait("connect"),
            *farewell,
            wait("disconnect"),
            transports=transports,
            parser="msgpack",
            reconnection=False,
        )
        assert not await io.fetch_sockets()
    assert [told["data"] for [told] in events(lines, "unauthorized")] == [EXPIRED["data"]] * len(farewell)


# The other parser.


@pytest.mark.parametrize("parser", ["json", "msgpack"])
async def test_a_client_with_the_other_parser_is_refused_and_the_others_live_on(
    transports: list[str], parser: str
) -> None:
    ours, theirs = ({}, {"parser": "msgpack"}) if parser == "json" else ({"parser": "msgpack"}, {})
    async with serve(echo_server(parser)) as url:
        lines = await run_client(
            url,
            connect(auth={"token": make_token()}, **ours),
            wait("connect"),
            connect(name="other", forceNew=True, auth={"token": make_token()}, reconnection=False, **theirs),
            wait("closed", "other"),
            call("echo", b"alive"),
            transports=transports,
        )
    assert not of(lines, "connect", "other")
    assert [line["args"] for line in of(lines, "ack")] == [[b"alive"]]


@pytest.mark.parametrize("parser", ["json", "msgpack"])
@pytest.mark.parametrize("inside", [False, True], ids=["before it is let in", "after it was"])
async def test_a_message_of_the_other_parser_closes_its_connection_alone(
    transport: str, parser: str, inside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "iogate")
    token = make_token()

    def connecting(parser: str) -> str | bytes:
        if parser == "json":
            return f'40{{"token":"{token}"}}'
        return msgspec.msgpack.encode({"type": 0, "nsp": "/", "data": {"token": token}})

    io = echo_server(parser)
    other = "json" if parser == "msgpack" else "msgpack"
    async with serve(io) as url, session(url, transport) as good, session(url, transport) as bad:
        await good.send(connecting(parser))
        await within(good.receive())
        if inside:
            await bad.send(connecting(parser))
            await within(bad.receive())
        await bad.send(connecting(other))
        closed = await ends(bad)
        assert transport == "polling" or closed.code == 1002
        assert len(io._core.sessions.table) == 1
        [line] = [record.message for record in caplog.records if record.message.startswith("closed: ")]
        assert line == (
            "closed: an attachment that no packet announced"
            if parser == "json"
            else "closed: a text message, where packets are MessagePack: the client uses another parser"
        )
        if parser == "msgpack":
            await good.send(*encode(Packet(PacketType.EVENT, data=["echo", b"x"])).attachments)
            message = await within(good.receive())
            assert isinstance(message, bytes)
            assert Decoder().binary(message).data == ["echo", b"x"]
        else:
            await good.send('42["echo",1]')
            assert await within(good.receive()) == '42["echo",1]'


# The client of python-socketio.


async def test_the_client_of_python_socketio_understands_it_too(transports: list[str]) -> None:
    io = echo_server()

    @io.on("ask me")
    async def ask(socket: Socket) -> None:
        socket.emit("asked", await socket.call("question", b"two", timeout=WITHIN))

    @io.on("kick me")
    async def kick(socket: Socket) -> None:
        socket.disconnect()

    io.of("/admin")
    heard: asyncio.Queue[Any] = asyncio.Queue()
    async with serve(io) as url, aiohttp.ClientSession() as http, asyncio.timeout(2 * WITHIN):
        peer = socketio.AsyncClient(reconnection=False, http_session=http, serializer="msgpack")
        peer.on("question", lambda data: {"was": data})
        peer.on("asked", heard.put_nowait)
        peer.on("disconnect", heard.put_nowait)
        await peer.connect(
            url, transports=transports, auth={"token": make_token()}, namespaces=["/", "/admin"], wait_timeout=WITHIN
        )
        assert await peer.call("echo", ("one", b"two", {"three": [3.0, None]})) == (
            "one",
            b"two",
            {"three": [3.0, None]},
        )
        assert await peer.call("echo") is None
        await peer.emit("ask me")
        assert await heard.get() == {"was": b"two"}
        await peer.emit("kick me")
        assert await heard.get() == "server disconnect"
        await peer.shutdown()


async def test_the_client_of_python_socketio_is_told_why_it_is_refused(transports: list[str]) -> None:
    told: list[Any] = []
    async with serve(echo_server()) as url, aiohttp.ClientSession() as http:
        peer = socketio.AsyncClient(reconnection=False, http_session=http, serializer="msgpack")
        peer.on("connect_error", told.append)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await peer.connect(url, transports=transports, auth={"token": "bad"}, wait_timeout=WITHIN)
        await peer.shutdown()
    assert told == [INVALID]
