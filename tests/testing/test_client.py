"""The in-memory client: what it says, hears, and is refused, as a client over a network would be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from iogate import AckTimeout, Disconnected, ProtocolError, Refused, Server, Socket
from iogate.asgi_types import Receive, Scope, Send
from iogate.testing import ConnectRefused, InMemoryClient, Received, TokenFactory, settle

TOKENS = TokenFactory()


def echo_server(**settings: Any) -> Server:
    io = Server(auth=TOKENS.auth(), **settings)

    @io.on("echo")
    async def echo(socket: Socket, *args: Any) -> tuple[Any, ...]:
        socket.emit("echo", *args)
        return args

    @io.on("whoami")
    def whoami(socket: Socket) -> str:
        return socket.principal.subject

    return io


async def test_a_good_token_is_let_in_and_can_talk() -> None:
    async with InMemoryClient(echo_server(), token=TOKENS.good(sub="ann")) as client:
        id_ = await client.connect()
        assert id_
        assert client.connected()
        assert await client.call("whoami") == "ann"


async def test_the_handshake_is_what_the_server_said() -> None:
    io = echo_server(ping_interval=7)
    async with InMemoryClient(io) as client:
        assert client.handshake is not None
        assert client.handshake.ping_interval == 7000
        assert client.handshake.sid in io._core.sessions.table


@pytest.mark.parametrize("kind", list(TOKENS.bad()))
async def test_a_bad_token_is_refused_with_the_data_of_the_contract(kind: str) -> None:
    async with InMemoryClient(echo_server(), token=TOKENS.bad()[kind]) as client:
        with pytest.raises(ConnectRefused) as refused:
            await client.connect()
        assert refused.value.code == "invalid_token"
        assert refused.value.retry == ("refresh" if kind == "expired" else "login")
        assert client.refusals == [refused.value]
        await client.closed()
        assert not client.connected()


async def test_a_token_can_be_given_to_one_connect() -> None:
    async with InMemoryClient(echo_server(), token=TOKENS.expired()) as client:
        await client.connect(token=TOKENS.good(sub="ben"))
        assert await client.call("whoami") == "ben"


async def test_no_token_is_a_refusal_too() -> None:
    async with InMemoryClient(echo_server()) as client:
        with pytest.raises(ConnectRefused) as refused:
            await client.connect()
        assert refused.value.code == "credentials_required"


async def test_the_refusal_of_a_middleware_has_its_own_data() -> None:
    io = echo_server()

    @io.use
    async def closed(socket: Socket) -> None:
        raise Refused("closed", data={"code": "closed"})

    async with InMemoryClient(io, token=TOKENS.good()) as client:
        with pytest.raises(ConnectRefused, match="closed") as refused:
            await client.connect()
        assert (refused.value.data, refused.value.retry) == ({"code": "closed"}, None)


async def test_a_refusal_without_data_has_no_code() -> None:
    async with InMemoryClient(echo_server(), token=TOKENS.good()) as client:
        with pytest.raises(ConnectRefused, match="Invalid namespace") as refused:
            await client.connect("/nowhere")
        assert (refused.value.data, refused.value.code, refused.value.status) == (None, None, None)


async def test_events_and_acks_carry_all_that_the_protocol_can() -> None:
    async with InMemoryClient(echo_server(), token=TOKENS.good()) as client:
        await client.connect()
        args = ("ünïcödé 🚀", 1, None, {"a": [True, 1.5, b"\x00\xff"]}, b"two")
        assert await client.call("echo", *args) == args
        assert await client.receive("echo") == args
        assert await client.call("echo") is None
        assert await client.call("echo", 1) == 1


async def test_emit_returns_when_the_server_has_dealt_with_it() -> None:
    async with InMemoryClient(echo_server(), token=TOKENS.good()) as client:
        await client.connect()
        await client.emit("echo", 1)
        await client.emit("unknown")
        assert client.received == [Received("echo", (1,))]


async def test_receive_waits_for_what_is_still_to_come() -> None:
    io = echo_server()
    async with InMemoryClient(io, token=TOKENS.good()) as client:
        await client.connect()
        waiting = asyncio.create_task(client.receive("news"))
        await settle()
        assert not waiting.done()
        io.emit("news", "late")
        assert await waiting == ("late",)


async def test_receive_gives_each_event_once_and_in_order() -> None:
    io = echo_server()
    async with InMemoryClient(io, token=TOKENS.good()) as client:
        await client.connect()
        for number in range(3):
            io.emit("number", number)
            io.emit("other")
        assert [await client.receive("number") for _ in range(3)] == [(0,), (1,), (2,)]
        with pytest.raises(TimeoutError, match="other"):
            await client.receive("number", timeout=0.01)
        assert len(client.received) == 6


async def test_receive_in_one_namespace_hears_nothing_of_another() -> None:
    io = echo_server()
    admin = io.of("/admin")
    async with InMemoryClient(io, token=TOKENS.good()) as client:
        await client.connect()
        await client.connect("/admin")
        io.emit("news", "all")
        admin.emit("news", "admins")
        assert await client.receive("news", namespace="/admin") == ("admins",)
        assert await client.receive("news", namespace="/") == ("all",)


async def test_the_server_can_call_the_client() -> None:
    io = echo_server()
    async with InMemoryClient(io, token=TOKENS.good()) as client:

        @client.on("add")
        def add(one: int, two: int) -> int:
            return one + two

        @client.on("later")
        async def later() -> tuple[int, int]:
            await asyncio.sleep(0)
            return 1, 2

        await client.connect()
        [socket] = await io.fetch_sockets()
        assert await socket.call("add", 1, 2) == 3
        assert await socket.call("later") == (1, 2)
        with pytest.raises(AckTimeout):
            await socket.call("unheard", timeout=0.01)


async def test_an_error_in_a_handler_of_the_client_reaches_the_test() -> None:
    io = echo_server()
    async with InMemoryClient(io, token=TOKENS.good()) as client:

        @client.on("news")
        def fail() -> None:
            raise AssertionError("not this")

        await client.connect()
        io.emit("news")
        with pytest.raises(AssertionError, match="not this"):
            await client.call("whoami")


async def test_a_call_that_is_not_acknowledged_times_out() -> None:
    async with InMemoryClient(echo_server(), token=TOKENS.good()) as client:
        await client.connect()
        with pytest.raises(AckTimeout, match="unheard"):
            await client.call("unheard", timeout=0.01)


async def test_a_disconnect_by_the_server_is_an_event() -> None:
    io = echo_server()

    @io.on("kick")
    def kick(socket: Socket, close: bool) -> None:
        socket.disconnect(close=close)

    async with InMemoryClient(io, token=TOKENS.good()) as client:
        await client.connect()
        await client.emit("kick", False)
        assert await client.receive("disconnect") == ("io server disconnect",)
        assert not client.connected()
        assert client.open
        await client.connect()
        await client.emit("kick", True)
        assert await client.receive("disconnect") == ("io server disconnect",)
        assert not client.open
        assert client.close_code == 1000


async def test_a_transport_that_is_closed_is_the_end_of_all_sockets() -> None:
    io = echo_server()
    io.of("/admin")
    async with InMemoryClient(io, token=TOKENS.good()) as client:
        await client.connect()
        await client.connect("/admin")
        await io.shutdown()
        assert client.received == [Received("disconnect", ("transport close",), name) for name in ("/", "/admin")]
        assert client.close_code == 1001


async def test_after_the_end_nothing_can_be_said_or_heard() -> None:
    io = echo_server()
    async with InMemoryClient(io, token=TOKENS.good()) as client:
        with pytest.raises(Disconnected):
            await client.emit("echo")
        await client.connect()
        io.disconnect_sockets(close=True)
        await client.closed()
        with pytest.raises(Disconnected):
            await client.call("echo")
        with pytest.raises(Disconnected):
            await client.connect()
        with pytest.raises(Disconnected, match="disconnect"):
            await client.receive("echo")


async def test_a_call_whose_answer_the_end_forestalls_says_so() -> None:
    io = echo_server()

    @io.on("end")
    def end(socket: Socket) -> None:
        socket.disconnect(close=True)
        raise Refused("no answer")

    async with InMemoryClient(io, token=TOKENS.good()) as client:
        await client.connect()
        with pytest.raises(Disconnected, match="acknowledged"):
            await client.call("end")


async def test_leaving_a_namespace_and_the_transport_reach_the_server() -> None:
    io = echo_server()
    reasons: list[str] = []
    io.on("disconnect")(lambda socket, reason: reasons.append(reason))
    async with InMemoryClient(io, token=TOKENS.good()) as client:
        await client.connect()
        await client.disconnect()
        assert reasons == ["client namespace disconnect"]
        await client.connect()
    assert reasons == ["client namespace disconnect", "transport close"]
    assert not io._core.sessions.table


async def test_the_client_sees_no_disconnect_when_it_goes_by_itself() -> None:
    async with InMemoryClient(echo_server(), token=TOKENS.good()) as client:
        await client.connect()
    assert client.received == []
    assert not client.open


async def test_what_the_handshake_says_of_the_client_is_as_given() -> None:
    io = Server(auth=None, path="/live")
    seen: list[Any] = []

    @io.on("connect")
    def greet(socket: Socket) -> None:
        handshake = socket.handshake
        seen.append((handshake.headers["x-tab"], handshake.query["room"], handshake.address, handshake.secure))
        seen.append(handshake.auth)

    async with InMemoryClient(
        io, headers={"X-Tab": "7"}, query={"room": "a b"}, address="203.0.113.9", secure=True
    ) as client:
        await client.connect(auth={"color": "red"})
    assert seen == [("7", "a b", "203.0.113.9", True), {"color": "red"}]


async def test_a_foreign_origin_is_refused_before_the_transport_opens() -> None:
    with pytest.raises(ConnectRefused, match="Forbidden") as refused:
        async with InMemoryClient(echo_server(), headers={"Origin": "https://evil.example"}):
            pass
    assert refused.value.status == 403


@pytest.mark.parametrize("body", [(b"Not", b" Found"), (b'"\xff', b'"')], ids=["no JSON", "not UTF-8"])
async def test_a_refusal_of_the_request_without_json_has_a_status(body: tuple[bytes, bytes]) -> None:
    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
        await send({"type": "websocket.http.response.body", "body": body[0], "more_body": True})
        await send({"type": "websocket.http.response.body", "body": body[1]})

    with pytest.raises(ConnectRefused, match="HTTP 404") as refused:
        async with InMemoryClient(nothing):
            pass
    assert (refused.value.status, refused.value.data) == (404, None)


async def test_an_application_that_closes_without_an_answer_counts_as_forbidden() -> None:
    async def close(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close"})

    with pytest.raises(ConnectRefused) as refused:
        async with InMemoryClient(close):
            pass
    assert refused.value.status == 403


async def test_an_application_that_raises_raises_in_the_test() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        async with InMemoryClient(broken):
            pass


async def test_the_server_is_found_in_an_application_and_under_a_mount() -> None:
    io = echo_server()
    mounted = Starlette(routes=[Mount("/app", app=io.asgi())])
    for app, path in ((io.asgi(Starlette()), None), (mounted, "/app/socket.io")):
        async with InMemoryClient(app, path=path, token=TOKENS.good()) as client:
            await client.connect()
            assert await client.call("whoami") == "alice"


async def test_a_server_that_breaks_the_protocol_is_told_on() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "2"})
        await receive()

    with pytest.raises(ProtocolError, match="PING"):
        async with InMemoryClient(broken):
            pass


async def test_two_clients_hear_each_other_through_the_server() -> None:
    io = Server(auth=TOKENS.auth())

    @io.on("message")
    def relay(socket: Socket, text: str) -> None:
        io.emit("message", socket.principal.subject, text)

    ann, ben = (InMemoryClient(io, token=token) for token in TOKENS.many("ann", "ben"))
    async with ann, ben:
        await ann.connect()
        await ben.connect()
        await ann.emit("message", "hi")
        assert await ben.receive("message") == ("ann", "hi")
        assert ann.received == [Received("message", ("ann", "hi"))]


async def test_no_token_is_in_its_repr() -> None:
    token = TOKENS.good()
    async with InMemoryClient(echo_server(), token=token) as client:
        await client.connect()
        assert token not in repr(client)
        assert "open, in ['/']" in repr(client)
