"""The official JavaScript client against a real server, on every transport."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from iogate import (
    AckTimeout,
    AuthPayload,
    BearerHeader,
    JWTAuth,
    NotAuthenticated,
    Query,
    Refused,
    Server,
    Socket,
)
from tests.e2e.official import (
    Step,
    answer,
    call,
    connect,
    disconnect,
    drop,
    emit,
    events,
    of,
    reconnect,
    run_client,
    wait,
    wait_event,
)
from tests.e2e.relay import relay
from tests.refusals import BAD_FORMAT, BAD_SCHEME, EXPIRED, INVALID, REQUIRED, UNAVAILABLE
from tests.servers import SECRET, make_server, make_token, serve

SHAPES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    9007199254740991,
    "",
    "plain",
    'quotes " and \\ and \n',
    "ünïcödé, 漢字, 👩🏽‍🚀 \u2028\u0000\u001e",
    [],
    {},
    [[], [[]], [{}]],
    {"a": [1, {"b": None}], "": "empty", "ключ": "значение"},
    {"_placeholder": "not one"},
]


def joined(transports: list[str], **options: Any) -> list[Step]:
    """Connect with a good token, and see the upgrade through where there is one."""
    options.setdefault("auth", {"token": make_token(name="Ann")})
    steps = [connect(**options), wait("connect")]
    return [*steps, wait("upgrade")] if len(transports) > 1 else steps


def echo_server(**settings: Any) -> Server:
    """Return a server that says back what it hears, as an event and as the acknowledgement."""
    io = make_server(**settings)

    @io.on("echo")
    async def echo(socket: Socket, *args: Any) -> tuple[Any, ...]:
        socket.emit("echo", *args)
        return args

    return io


async def test_a_good_token_is_greeted_by_name(transports: list[str]) -> None:
    io = make_server()

    @io.on("connect")
    async def greet(socket: Socket) -> None:
        socket.emit("greeting", f"Hello {socket.claims['name']}!", socket.principal.subject, socket.id)

    async with serve(io) as url:
        lines = await run_client(url, *joined(transports), wait_event("greeting"), transports=transports)

    [connected] = of(lines, "connect")
    assert connected["transport"] in transports
    assert events(lines, "greeting") == [["Hello Ann!", "ann", connected["id"]]]
    assert [line["transport"] for line in of(lines, "upgrade")] == transports[1:]
    assert not of(lines, "connect_error")


@pytest.mark.parametrize(
    ("auth", "refusal"),
    [
        ({}, REQUIRED),
        ({"token": "Basic dXNlcjpwYXNz"}, BAD_SCHEME),
        ({"token": 17}, BAD_FORMAT),
        ({"token": "x" * 30_000}, BAD_FORMAT),
        ({"token": "no.jwt.atall"}, INVALID),
        ({"token": make_token(secret="another-secret-that-is-also-long-enough")}, INVALID),
        ({"token": make_token()[:-2]}, INVALID),
        ({"token": make_token(sub=None)}, INVALID),
        ({"token": make_token(exp=None)}, INVALID),
        ({"token": make_token(exp=1_700_000_000)}, EXPIRED),
    ],
    ids=["none", "basic", "number", "huge", "garbage", "other key", "truncated", "no sub", "no exp", "expired"],
)
async def test_a_bad_token_is_refused_with_the_data_of_the_contract(
    transports: list[str], auth: dict[str, Any], refusal: dict[str, Any]
) -> None:
    io = make_server()
    ran: list[Socket] = []
    io.on("connect")(ran.append)

    async with serve(io) as url:
        lines = await run_client(url, connect(auth=auth), wait("connect_error"), transports=transports)

    [error] = of(lines, "connect_error")
    assert {"message": error["message"], "data": error["data"]} == refusal
    assert not of(lines, "connect")
    assert not ran


async def test_a_hook_that_fails_refuses_and_says_nothing_of_the_inside(transports: list[str]) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])

    @auth.load_user
    async def load(claims: Any) -> None:
        raise LookupError("the password of the database is hunter2")

    async with serve(make_server(auth=auth)) as url:
        lines = await run_client(
            url, connect(auth={"token": make_token()}), wait("connect_error"), transports=transports
        )

    [error] = of(lines, "connect_error")
    assert {"message": error["message"], "data": error["data"]} == UNAVAILABLE


async def test_a_hook_that_never_returns_is_refused_at_the_deadline(transports: list[str]) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])

    @auth.load_user
    async def load(claims: Any) -> None:
        await asyncio.Event().wait()

    async with serve(make_server(auth=auth, connect_timeout=0.5)) as url:
        lines = await run_client(
            url, connect(auth={"token": make_token()}), wait("connect_error"), transports=transports
        )

    error = of(lines, "connect_error")[0]
    assert {"message": error["message"], "data": error["data"]} == UNAVAILABLE


async def test_a_guest_connects_without_a_token_and_a_bad_token_is_still_refused(transports: list[str]) -> None:
    io = make_server(auth=JWTAuth(secret=SECRET, algorithms=["HS256"], guests=True))

    @io.on("who")
    async def who(socket: Socket) -> tuple[bool, Any, bool]:
        try:
            named = bool(socket.principal)
        except NotAuthenticated:
            named = False
        return socket.authenticated, socket.claims, named

    async with serve(io) as url:
        lines = await run_client(url, *joined(transports, auth={}), call("who"), transports=transports)
        assert of(lines, "ack")[0]["args"] == [False, {}, False]

        lines = await run_client(url, connect(auth={"token": "bad"}), wait("connect_error"), transports=transports)
        assert of(lines, "connect_error")[0]["data"] == INVALID["data"]


async def test_events_of_every_json_shape_come_back_unchanged(transports: list[str]) -> None:
    async with serve(echo_server()) as url:
        lines = await run_client(
            url,
            *joined(transports),
            emit("echo"),
            *(emit("echo", shape) for shape in SHAPES),
            emit("echo", *SHAPES),
            *(wait_event("echo") for _ in range(len(SHAPES) + 2)),
            transports=transports,
        )
    assert events(lines, "echo") == [[], *([shape] for shape in SHAPES), SHAPES]


async def test_bytes_come_back_unchanged_alone_nested_and_several_at_once(transports: list[str]) -> None:
    every_byte = bytes(range(256))
    messages: list[list[Any]] = [
        [every_byte],
        [b""],
        [{"file": {"name": "ü.bin", "parts": [every_byte, {"last": b"\x00\xff"}]}}],
        [b"one", "text", b"two", [b"three"]],
        [b"x" * 200_000],
    ]
    async with serve(echo_server()) as url:
        lines = await run_client(
            url,
            *joined(transports),
            *(emit("echo", *message) for message in messages),
            *(wait_event("echo") for _ in messages),
            call("echo", b"ack", {"nested": b"bytes"}),
            wait("ack"),
            transports=transports,
        )
    assert events(lines, "echo")[: len(messages)] == messages
    assert of(lines, "ack")[0]["args"] == [b"ack", {"nested": b"bytes"}]


async def test_what_a_handler_returns_is_the_acknowledgement(transports: list[str]) -> None:
    io = make_server()
    released = asyncio.Event()

    @io.on("nothing")
    async def nothing(socket: Socket) -> None: ...

    @io.on("one")
    def one(socket: Socket, number: int) -> dict[str, int]:
        return {"double": 2 * number}

    @io.on("several")
    async def several(socket: Socket) -> tuple[int, str, None]:
        return 1, "two", None

    @io.on("late")
    async def late(socket: Socket) -> None:
        await released.wait()

    async with serve(io) as url:
        lines = await run_client(
            url,
            *joined(transports),
            call("nothing"),
            call("one", 21),
            call("several"),
            call("late", timeout_ms=200),
            transports=transports,
        )
        released.set()
    assert [line["args"] for line in of(lines, "ack")] == [[], [{"double": 42}], [1, "two", None]]
    assert len(of(lines, "ack_timeout")) == 1


async def test_the_server_awaits_the_acknowledgement_of_the_client(transports: list[str]) -> None:
    io = make_server()

    @io.on("ask me")
    async def ask(socket: Socket) -> None:
        answers = [await socket.call(question, "why", timeout=5) for question in ("none", "one", "several")]
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
            answer("several", 1, "two"),
            emit("ask me"),
            wait_event("asked"),
            transports=transports,
        )
    [[answers]] = events(lines, "asked")
    assert answers == [None, {"bytes": b"\x00\x01"}, [1, "two"], "AckTimeout"]


async def test_two_namespaces_share_one_transport_and_keep_apart(transports: list[str]) -> None:
    io = make_server()
    token = make_token()

    @io.on("who")
    async def who(socket: Socket) -> str:
        return socket.namespace.name

    @io.of("/admin").on("who")
    async def who_admin(socket: Socket) -> str:
        return f"admin of {socket.namespace.name}"

    @io.of("/admin").on("all")
    async def everyone(socket: Socket) -> None:
        io.of("/admin").emit("news", "for admins")
        io.emit("news", "for all")

    async with serve(io) as url:
        lines = await run_client(
            url,
            *joined(transports, auth={"token": token}),
            connect("/admin", auth={"token": token}),
            wait("connect", "/admin"),
            call("who"),
            call("who", on="/admin"),
            emit("all", on="/admin"),
            wait_event("news", "/admin"),
            wait_event("news"),
            disconnect("/admin"),
            call("who"),
            transports=transports,
        )
    assert [line["args"] for line in of(lines, "ack")] == [["/"], ["admin of /admin"], ["/"]]
    assert events(lines, "news", "/admin") == [["for admins"]]
    assert events(lines, "news", "/") == [["for all"]]
    ids = [line["id"] for line in of(lines, "connect")]
    assert len(set(ids)) == 2


async def test_a_client_that_forces_a_new_connection_has_a_transport_of_its_own() -> None:
    io = make_server()
    io.of("/shared")
    io.of("/own")
    token = make_token()

    @io.of("/own").on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        io.emit("gone", len(io._core.sessions.table))

    @io.on("how many")
    async def how_many(socket: Socket) -> int:
        return len(io._core.sessions.table)

    async with serve(io) as url:
        lines = await run_client(
            url,
            connect(auth={"token": token}),
            wait("connect"),
            connect("/shared", auth={"token": token}),
            wait("connect", "/shared"),
            call("how many"),
            connect("/own", forceNew=True, auth={"token": token}),
            wait("connect", "/own"),
            call("how many"),
            drop("/own"),
            wait("disconnect", "/own"),
            wait_event("gone"),
            reconnection=False,
            transports=["websocket"],
        )
    assert [line["args"] for line in of(lines, "ack")] == [[1], [2]]
    assert events(lines, "gone") == [[1]]
    assert [(line["as"], line["reason"]) for line in of(lines, "disconnect")] == [("/own", "forced close")]


async def test_a_middleware_refuses_with_its_own_message_and_data(transports: list[str]) -> None:
    io = make_server()
    order: list[str] = []

    @io.use
    async def first(socket: Socket) -> None:
        order.append(f"first sees {socket.principal.subject}")

    @io.use
    async def second(socket: Socket) -> None:
        order.append("second")
        raise Refused("closed at weekends", data={"code": "closed", "until": [1, None]})

    @io.use
    async def third(socket: Socket) -> None:
        order.append("third")

    async with serve(io) as url:
        lines = await run_client(
            url, connect(auth={"token": make_token()}), wait("connect_error"), transports=transports
        )
    [error] = of(lines, "connect_error")
    assert (error["message"], error["data"]) == ("closed at weekends", {"code": "closed", "until": [1, None]})
    assert order == ["first sees ann", "second"]


async def test_an_unknown_namespace_is_refused_and_the_others_live_on(transports: list[str]) -> None:
    async with serve(echo_server()) as url:
        lines = await run_client(
            url,
            *joined(transports),
            connect("/nope"),
            wait("connect_error", "/nope"),
            call("echo", "alive"),
            transports=transports,
        )
    [error] = of(lines, "connect_error")
    assert (error["message"], error["data"]) == ("Invalid namespace", None)
    assert of(lines, "ack")[0]["args"] == ["alive"]


async def test_dynamic_namespaces_answer_by_pattern_and_by_predicate(transports: list[str]) -> None:
    io = make_server()
    token = make_token()

    @io.of(re.compile(r"^/room-\d+$")).on("who")
    async def by_pattern(socket: Socket) -> str:
        return f"pattern {socket.namespace.name}"

    def is_even(name: str) -> bool:
        return name.startswith("/even-")

    @io.of(is_even).on("who")
    async def by_predicate(socket: Socket) -> str:
        return f"predicate {socket.namespace.name}"

    names = ("/room-1", "/room-22", "/even-two")
    async with serve(io) as url:
        lines = await run_client(
            url,
            *joined(transports, auth={"token": token}),
            *(
                step
                for name in names
                for step in (
                    connect(name, auth={"token": token}),
                    wait("connect", name),
                    call("who", on=name),
                )
            ),
            connect("/room-x", auth={"token": token}),
            wait("connect_error", "/room-x"),
            transports=transports,
        )
    assert [line["args"] for line in of(lines, "ack")] == [
        ["pattern /room-1"],
        ["pattern /room-22"],
        ["predicate /even-two"],
    ]
    assert of(lines, "connect_error")[0]["message"] == "Invalid namespace"


async def test_a_room_hears_what_is_sent_to_it_and_nobody_else_does(transports: list[str]) -> None:
    io = make_server()

    @io.on("join")
    async def join(socket: Socket, room: str) -> list[str]:
        socket.join(room)
        return sorted(room for room in socket.rooms if room != socket.id)

    @io.on("leave")
    async def leave(socket: Socket, room: str) -> None:
        socket.leave(room)

    @io.on("tell")
    async def tell(socket: Socket, room: str, text: str) -> None:
        socket.to(room).emit("told", text, "by another")
        io.to(room).except_(socket.id).emit("told", text, "by the server, but not the teller")
        io.to(f"user:{socket.principal.subject}").emit("told", text, "by identity")
        socket.broadcast.emit("broadcast", text)
        socket.emit("done")

    def member(name: str, subject: str) -> list[Step]:
        token = make_token(sub=subject)
        return [connect(name=name, forceNew=True, auth={"token": token}), wait("connect", name)]

    async with serve(io) as url:
        lines = await run_client(
            url,
            *member("ann", "ann"),
            *member("bob", "bob"),
            *member("cy", "cy"),
            call("join", "red", on="ann"),
            call("join", "red", on="bob"),
            call("join", "blue", on="cy"),
            emit("tell", "red", "hello", on="ann"),
            wait_event("done", "ann"),
            wait_event("broadcast", "bob"),
            wait_event("broadcast", "cy"),
            call("leave", "red", on="bob"),
            emit("tell", "red", "again", on="ann"),
            wait_event("done", "ann"),
            wait_event("broadcast", "bob"),
            wait_event("broadcast", "cy"),
            transports=transports,
        )
    acks = {line["as"]: line["args"] for line in reversed(of(lines, "ack"))}
    assert acks == {"ann": [["red", "user:ann"]], "bob": [["red", "user:bob"]], "cy": [["blue", "user:cy"]]}
    assert events(lines, "told", "bob") == [
        ["hello", "by another"],
        ["hello", "by the server, but not the teller"],
    ]
    assert events(lines, "told", "ann") == [["hello", "by identity"], ["again", "by identity"]]
    assert events(lines, "told", "cy") == []
    assert events(lines, "broadcast", "cy") == [["hello"], ["again"]]
    assert events(lines, "broadcast", "ann") == []


async def test_a_volatile_event_reaches_a_client_that_keeps_up(transports: list[str]) -> None:
    io = make_server()

    @io.on("ask")
    async def ask(socket: Socket) -> None:
        socket.volatile.emit("maybe", 1)

    async with serve(io) as url:
        lines = await run_client(url, *joined(transports), emit("ask"), wait_event("maybe"), transports=transports)
    assert events(lines, "maybe") == [[1]]


async def test_a_volatile_event_is_dropped_for_a_client_that_does_not_keep_up() -> None:
    io = make_server(max_buffered=10_000)

    @io.on("burst")
    async def burst(socket: Socket) -> None:
        for number in range(1000):
            socket.volatile.emit("maybe", number, "x" * 1000)
        assert socket.connected

    @io.on("alive")
    async def alive(socket: Socket) -> bool:
        return True

    async with serve(io) as url:
        lines = await run_client(
            url, *joined(["polling"]), emit("burst"), wait_event("maybe"), call("alive"), transports=["polling"]
        )
    assert of(lines, "ack")[0]["args"] == [True]
    assert 0 < len(events(lines, "maybe")) < 1000
    assert not of(lines, "disconnect")


@pytest.mark.parametrize("close", [False, True], ids=["namespace", "transport"])
async def test_a_disconnect_by_the_server_has_a_reason_on_both_sides(transports: list[str], close: bool) -> None:
    io = make_server()
    reasons: asyncio.Queue[str] = asyncio.Queue()

    @io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        reasons.put_nowait(reason)

    @io.on("kick me")
    async def kick(socket: Socket) -> None:
        socket.disconnect(close=close)

    async with serve(io) as url:
        lines = await run_client(
            url,
            *joined(transports),
            emit("kick me"),
            wait("disconnect"),
            transports=transports,
            reconnection=False,
        )
        async with asyncio.timeout(5):
            assert await reasons.get() == "server namespace disconnect"
    # Over polling DISCONNECT and CLOSE come in one payload, and this client handles the CLOSE first.
    alone = close and transports == ["polling"]
    assert of(lines, "disconnect")[0]["reason"] == ("transport close" if alone else "io server disconnect")


async def test_a_disconnect_by_the_client_has_a_reason_on_both_sides_and_it_may_come_back(
    transports: list[str],
) -> None:
    io = make_server()
    io.of("/other")
    reasons: asyncio.Queue[str] = asyncio.Queue()
    token = make_token()

    @io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        reasons.put_nowait(reason)

    async with serve(io) as url:
        # A second namespace keeps the transport open.
        lines = await run_client(
            url,
            *joined(transports, auth={"token": token}),
            connect("/other", auth={"token": token}),
            wait("connect", "/other"),
            disconnect(),
            wait("disconnect"),
            reconnect(),
            wait("connect"),
            transports=transports,
        )
        async with asyncio.timeout(5):
            assert await reasons.get() == "client namespace disconnect"
    assert of(lines, "disconnect")[0]["reason"] == "io client disconnect"
    [first, second] = of(lines, "connect", "/")
    assert first["id"] != second["id"]


async def test_a_client_that_goes_away_is_noticed(transports: list[str]) -> None:
    io = make_server()
    reasons: asyncio.Queue[str] = asyncio.Queue()

    @io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        reasons.put_nowait(reason)

    async with serve(io) as url:
        await run_client(
            url, *joined(transports), drop(), wait("disconnect"), transports=transports, reconnection=False
        )
        async with asyncio.timeout(5):
            assert await reasons.get() == "transport close"
        assert await io.fetch_sockets() == []


async def test_a_client_whose_wire_is_cut_comes_back_with_the_same_token(transports: list[str]) -> None:
    io = make_server(ping_interval=0.5, ping_timeout=0.5)
    greeted: list[str] = []
    reasons: asyncio.Queue[str] = asyncio.Queue()

    @io.on("connect")
    async def greet(socket: Socket) -> None:
        greeted.append(socket.claims["name"])
        socket.emit("greeting")

    @io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        reasons.put_nowait(reason)

    @io.on("cut")
    async def cut(socket: Socket) -> None:
        wire.cut()

    async with serve(io) as url, relay(url) as wire:
        lines = await run_client(
            wire.url,
            *joined(transports),
            wait_event("greeting"),
            emit("cut"),
            wait("disconnect"),
            wait("connect"),
            wait_event("greeting"),
            transports=transports,
        )
        async with asyncio.timeout(5):
            assert await reasons.get() in {"transport close", "transport error", "ping timeout"}
    [first, second] = of(lines, "connect")
    assert first["id"] != second["id"]
    assert of(lines, "disconnect")[0]["reason"] in {"transport close", "transport error"}
    assert greeted == ["Ann", "Ann"]


async def test_a_client_comes_back_after_a_restart_of_the_server(transports: list[str]) -> None:
    before, after = make_server(), make_server()
    came = asyncio.Event()

    @before.on("here I am")
    async def note(socket: Socket) -> None:
        came.set()

    @after.on("connect")
    async def greet(socket: Socket) -> None:
        socket.emit("greeting")

    async with serve(after) as new_url, serve(before) as old_url, relay(old_url) as wire:
        client = asyncio.create_task(
            run_client(
                wire.url,
                *joined(transports),
                emit("here I am"),
                wait_event("greeting"),
                transports=transports,
            )
        )
        async with asyncio.timeout(10):
            await came.wait()
        wire.turn(new_url)
        await before.shutdown(timeout=1.0)
        wire.cut()
        lines = await client
    assert len(of(lines, "connect")) == 2


async def test_a_bearer_header_opens_the_gate(transports: list[str]) -> None:
    async with serve(echo_server()) as url:
        lines = await run_client(
            url,
            *joined(transports, auth={}, extraHeaders={"Authorization": f"bearer {make_token()}"}),
            call("echo", "in"),
            transports=transports,
        )
    assert of(lines, "ack")[0]["args"] == ["in"]


async def test_a_token_in_the_query_counts_only_where_that_is_enabled(transports: list[str]) -> None:
    token = make_token(name="Ann")
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"], sources=(AuthPayload("token"), BearerHeader(), Query("token")))
    async with serve(echo_server(auth=auth)) as url:
        lines = await run_client(
            url, *joined(transports, auth={}, query={"token": token}), call("echo", 1), transports=transports
        )
        assert of(lines, "ack")[0]["args"] == [1]

    async with serve(echo_server()) as url:
        lines = await run_client(url, connect(query={"token": token}), wait("connect_error"), transports=transports)
        assert of(lines, "connect_error")[0]["data"] == REQUIRED["data"]


async def test_two_tokens_are_refused_even_if_both_are_good(transports: list[str]) -> None:
    token = make_token()
    async with serve(make_server()) as url:
        lines = await run_client(
            url,
            connect(auth={"token": token}, extraHeaders={"Authorization": f"Bearer {token}"}),
            wait("connect_error"),
            transports=transports,
        )
    [error] = of(lines, "connect_error")
    assert {"message": error["message"], "data": error["data"]} == BAD_FORMAT


async def test_messages_keep_their_order_through_an_upgrade() -> None:
    io = make_server()
    heard: list[int] = []

    @io.on("connect")
    async def talk(socket: Socket) -> None:
        for number in range(200):
            socket.emit("count", number)
            if number % 10 == 0:
                await asyncio.sleep(0)

    @io.on("count")
    async def count(socket: Socket, number: int) -> None:
        heard.append(number)
        socket.emit("count", 200 + number)

    async with serve(io) as url:
        lines = await run_client(
            url,
            connect(auth={"token": make_token()}),
            wait("connect"),
            emit("count", "$n", times=200),
            wait("upgrade"),
            *(wait_event("count") for _ in range(400)),
        )
    assert heard == list(range(200))
    counted = [args[0] for args in events(lines, "count")]
    assert [number for number in counted if number < 200] == list(range(200))
    assert [number for number in counted if number >= 200] == list(range(200, 400))


async def test_a_token_that_expires_soon_is_still_good_now() -> None:
    async with serve(make_server()) as url:
        lines = await run_client(url, *joined(["websocket"], auth={"token": make_token(exp=int(time.time()) + 30)}))
    assert of(lines, "connect")
