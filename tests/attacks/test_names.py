"""Names that are made to be taken for others or to write into logs, and tokens where a URL is logged."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from hypothesis import given, strategies

from iogate import (
    BackChannelLogout,
    BearerHeader,
    ConfigurationError,
    Event,
    Handshake,
    Query,
    Refused,
    Server,
    Socket,
)
from iogate.auth import AuthPayload
from iogate.printable import MAX_ARGUMENT, MAX_TRACEBACK, SafeRecords, redact
from iogate.server.namespaces.rooms import MAX_ROOM, is_socket_id, new_socket_id, room_of_user
from tests.cli.running import SERVER, serving
from tests.conformance.wire import POLLING, WEBSOCKET, client, refused, session, within
from tests.gate.support import make_auth
from tests.integrations.both import Both
from tests.server.talk import Client
from tests.servers import make_server, make_token, serve

HERE, THERE = "https://here.example", "https://there.example"

# Rooms.


@asynccontextmanager
async def connected(io: Server, transport: str, *people: dict[str, Any]) -> AsyncIterator[list[Client]]:
    """Serve, with a client for each of these claims."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(io))
        found = [Client(await stack.enter_async_context(session(url, transport))) for _ in people]
        for one, claims in zip(found, people, strict=True):
            await one.enter(**claims)
        yield found


def joining_server(**settings: Any) -> Server:
    """Return a server whose clients say which rooms they join, leave and talk to."""
    io = make_server(**settings)

    def tried(method: Callable[..., None], *rooms: Any) -> str:
        try:
            method(*rooms)
        except ConfigurationError as error:
            return str(error)
        return "done"

    io.on("join", lambda socket, room: tried(socket.join, room))
    io.on("leave", lambda socket, room: tried(socket.leave, room))
    io.on("all join", lambda socket, room: tried(io.sockets_join, room))
    io.on("all leave", lambda socket, room: tried(io.sockets_leave, room))
    return io


@pytest.mark.parametrize("verb", ["join", "leave", "all join", "all leave"])
async def test_nobody_joins_or_leaves_the_rooms_of_others(transport: str, verb: str) -> None:
    """Row 47: a name from a client that is a user's room or a socket's id, also one that has gone, opens no room."""
    io = joining_server()
    async with connected(io, transport, {"sub": "bob"}, {"sub": "mallory"}, {"sub": "gone"}) as (bob, mallory, gone):
        io.of("/").sockets[gone.id].disconnect()
        for name in ("user:bob", "user:", "user:nobody", bob.id, mallory.id, gone.id, new_socket_id()):
            (answer,) = await mallory.ask(verb, name)
            assert "cannot be joined or left" in answer
        (answer,) = await mallory.ask(verb, "x" * (MAX_ROOM + 1))
        assert f"at most {MAX_ROOM} characters" in answer
        assert len(answer) < 300
        (answer,) = await mallory.ask(verb, ["user:bob"])
        assert "is a string" in answer
        assert io.of("/").sockets[bob.id].rooms == {bob.id, "user:bob"}
        io.to("user:bob").emit("to the user")
        io.to(bob.id).emit("to the socket")
        io.to(gone.id).emit("to nobody")
        assert [await bob.hear(), await bob.hear()] == [["to the user"], ["to the socket"]]
        await mallory.hears_nothing_before(io)
        assert await mallory.ask(verb, "x" * MAX_ROOM) == ["done"]


async def test_connect_middleware_does_not_join_the_rooms_of_others_either(transport: str) -> None:
    """Row 47: before the verdict a socket may choose rooms, but not such rooms."""
    io = make_server()
    refusals: list[str] = []

    @io.use
    def join(socket: Socket) -> None:
        socket.join("news")
        try:
            socket.join("user:bob")
        except ConfigurationError as error:
            refusals.append(str(error))

    async with connected(io, transport, {"sub": "mallory"}) as (mallory,):
        assert io.of("/").sockets[mallory.id].rooms == {mallory.id, "user:mallory", "news"}
    assert len(refusals) == 1


async def test_a_room_name_of_twenty_characters_is_nothing_special() -> None:
    """Row 47: ids of sockets are known by what is in them, so a name that merely looks like one stays free."""
    ids = {new_socket_id() for _ in range(1000)}
    assert len(ids) == 1000
    for one in ids:
        assert re.fullmatch("[A-Za-z0-9_-]{20}", one)
        assert is_socket_id(one)
    for name in ("general-discussion-1", "-NqFd3kq9VqR0yvB8xWc", "é" * 20, "=" * 20, "", "a" * 1_000_000):
        assert not is_socket_id(name)


@given(*[strategies.text("ab:/%25.é", max_size=6)] * 4)
def test_no_two_users_have_one_room(issuer: str, subject: str, other_issuer: str, other_subject: str) -> None:
    """Row 47: whatever separators are in subjects and issuers, another pair has another room."""
    same = (issuer, subject) == (other_issuer, other_subject)
    assert (room_of_user(subject, issuer) == room_of_user(other_subject, other_issuer)) is same
    assert (room_of_user(subject, None) == room_of_user(other_subject, None)) is (subject == other_subject)


async def test_users_of_two_issuers_with_one_name_are_two(transport: str) -> None:
    """Row 47: a subject of one issuer gets and loses nothing of its namesake at another."""
    io = joining_server(auth=make_auth(issuer=[HERE, THERE]))
    people = [{"sub": "bob", "iss": HERE, "sid": "1"}, {"sub": "bob", "iss": THERE, "sid": "1"}]
    async with connected(io, transport, *people) as (here, there):
        assert io.of("/").sockets[here.id].rooms == {here.id, io.user_room("bob", HERE)}
        io.to("user:bob").emit("to whom?")
        io.to(io.user_room("bob", THERE)).emit("to there")
        assert await there.hear() == ["to there"]
        await here.hears_nothing_before(io)
        assert "cannot be joined" in (await here.ask("join", io.user_room("bob", THERE)))[0]

        which: list[dict[str, Any]] = [{"subject": "bob"}, {"session_id": "1"}, {"token_id": "1"}]
        for what in which:
            with pytest.raises(ConfigurationError, match=rf"revoke\(\.\.\., issuer=\.\.\.\), with one of '{HERE}'"):
                await io.revoke(**what)
        for what in (*which, {"issued_before": 1.0}, {"key_id": "1"}):
            with pytest.raises(ConfigurationError, match="does not accept"):
                await io.revoke(**what, issuer="https://else.example")
        await io.revoke(subject="bob", issuer=HERE)
        assert [socket.id for socket in await io.fetch_sockets()] == [there.id]


def test_the_room_of_a_user_is_named_by_the_server() -> None:
    """Row 47: its issuer is needed where there are several, and an unknown one is an error."""
    several = make_server(auth=make_auth(issuer=[HERE, THERE]))
    assert several.user_room("a:b", HERE) == "user:https%3A%2F%2Fhere.example:a:b"
    with pytest.raises(ConfigurationError, match="add the issuer"):
        several.user_room("bob")
    for io in (several, make_server(auth=make_auth(issuer=HERE))):
        with pytest.raises(ConfigurationError, match=f"which auth does not accept: give '{HERE}'"):
            io.user_room("bob", "https://else.example")
    one = make_server(auth=make_auth(issuer=HERE))
    assert one.user_room("bob") == one.user_room("bob", HERE) == "user:bob"
    any_issuer = make_server()
    assert any_issuer.user_room("bob") == any_issuer.user_room("bob", HERE) == "user:bob"
    with pytest.raises(ConfigurationError, match="named by the sub"):
        any_issuer.user_room("")


async def test_with_one_issuer_a_revocation_means_that_one() -> None:
    """Row 47: the store may be one for several servers, so it is told whose the subject is."""
    io = make_server(auth=make_auth(issuer=HERE))
    await io.revoke(subject="bob", until=2e9)
    now = 1e9
    mine, other = (make_auth().verify(make_token(sub="bob", iss=issuer)) for issuer in (HERE, THERE))
    assert io._core.revocations.revoked(mine, now)
    assert not io._core.revocations.revoked(other, now)


def test_a_logout_at_an_issuer_that_the_server_does_not_know_is_a_mistake_in_the_settings() -> None:
    """Row 47: it would end no socket."""
    auth = make_auth()
    BackChannelLogout(make_server(auth=make_auth(issuer=[HERE, THERE])), issuer=HERE, audience="me", auth=auth)
    with pytest.raises(ConfigurationError, match="would end no socket"):
        BackChannelLogout(make_server(auth=make_auth(issuer=THERE)), issuer=HERE, audience="me", auth=auth)


@pytest.mark.parametrize("threaded", [False, True], ids=["AsyncServer", "Server"])
async def test_behind_protect_the_rooms_are_kept_apart_too(threaded: bool) -> None:
    """Row 47: python-socketio's own methods join nobody to the room of another, and namesakes are two."""
    both = Both(threaded=threaded, auth=make_auth(issuer=[HERE, THERE]))
    async with both.serve() as url, session(url, "websocket") as one, session(url, "websocket") as two:
        here, there = Client(one), Client(two)
        await here.enter(sub="bob", iss=HERE)
        await there.enter(sub="bob", iss=THERE)
        room = both.gate.user_room("bob", THERE)
        for name in (room, "user:bob", there.id):
            for method, args in (
                ("enter_room", (here.id, name)),
                ("leave_room", (there.id, name)),
                ("close_room", (name,)),
            ):
                with pytest.raises(ConfigurationError, match="cannot be joined or left"):
                    await both.do(method, *args)
        await both.do("enter_room", here.id, "news")
        await both.do("enter_room", here.id, 7)  # python-socketio takes any value.
        await both.do("emit", "to there", room=room)
        await both.do("emit", "to news", room="news")
        assert await there.hear() == ["to there"]
        assert await here.hear() == ["to news"]
        await both.do("leave_room", here.id, "news")
        await both.do("close_room", 7)


# An empty selection.

NOBODY: dict[str, Callable[[Server, Socket], Any]] = {
    "to": lambda io, _: io.to(),
    "in": lambda io, _: io.in_(*[]),
    "of a namespace": lambda io, _: io.of("/").to(*[]),
    "of namespaces": lambda io, _: io.of(re.compile("/x")).to(*[]),
    "of a socket": lambda _, socket: socket.to(*[]),
    "twice": lambda io, _: io.to(*[]).to(*[]),
    "but nobody": lambda io, _: io.to(*[]).except_(*[]),
    "nobody of those left": lambda io, _: io.except_("muted").to(*[]),
    "volatile": lambda io, _: io.volatile.to(*[]).local,
}


@pytest.mark.parametrize("choice", NOBODY)
async def test_an_empty_selection_selects_nobody(transport: str, choice: str) -> None:
    """Row 47: a list of rooms that turns out to be empty sends nothing, moves nobody and ends nobody."""
    io = make_server()
    async with connected(io, transport, {"sub": "ann"}, {"sub": "bob"}) as (ann, bob):
        chosen = NOBODY[choice](io, io.of("/").sockets[ann.id])
        assert await chosen.fetch_sockets() == []
        assert await within(chosen.call("question")) == []
        chosen.emit("hello")
        chosen.send("hello")
        chosen.sockets_join("news")
        chosen.disconnect_sockets()
        io.sockets_join("all")
        chosen.sockets_leave("all")
        assert {socket.id for socket in await io.to("all").fetch_sockets()} == {ann.id, bob.id}
        assert await io.to("news").fetch_sockets() == []
        await ann.hears_nothing_before(io)
        await bob.hears_nothing_before(io)


async def test_an_empty_selection_takes_nothing_from_another_one() -> None:
    """Row 47: beside rooms that were chosen, no room adds nobody; and to leave out nobody leaves out nobody."""
    io = make_server()
    async with connected(io, "websocket", {"sub": "ann"}, {"sub": "bob"}) as (ann, bob):
        io.of("/").sockets[ann.id].join("a")
        for one in (io.to("a").to(*[]), io.to(*[]).to("a"), io.to("a").except_(*[])):
            assert [socket.id for socket in await one.fetch_sockets()] == [ann.id]
        for everybody in (io.except_(*[]), io.local, io.volatile.except_()):
            assert {socket.id for socket in await everybody.fetch_sockets()} == {ann.id, bob.id}


@pytest.mark.parametrize("name", [None, 7, b"a", ["a"], ("a", "b")])
def test_what_is_no_name_of_a_room_is_refused(name: Any) -> None:
    """Row 47: a list in the place of its names is a mistake that is told, and no room of another kind."""
    io = make_server()
    for method in (io.to, io.in_, io.except_, io.sockets_join, io.sockets_leave):
        with pytest.raises(ConfigurationError, match=r"is a string, and not .*: write to"):
            method(name)


# What is logged.

EVIL = "/a\r\nCRITICAL: nobody\x1b[2J\x9b31m\u202e\u2066\u2028\x00\x7f"
"""A name that would begin a new line, clear the screen, colour it and turn the direction of writing."""
LONG = "z" * 20_000


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What has been logged by iogate and by uvicorn, each record of which is looked at."""
    for name in ("iogate", "uvicorn", "uvicorn.access", "uvicorn.error"):
        caplog.set_level(logging.DEBUG if name == "iogate" else logging.INFO, logger=name)

    def read() -> str:
        texts = []
        for record in caplog.records:
            if record.name.partition(".")[0] not in ("iogate", "uvicorn"):
                continue
            message = record.getMessage()
            assert message.isprintable(), ascii(message)
            assert len(message) < 3 * MAX_ARGUMENT
            traceback = record.exc_text or ""
            assert len(traceback) < 2 * MAX_TRACEBACK
            for line in traceback.split("\n"):
                assert line.isprintable(), ascii(line)
                assert not line or line.startswith("  "), line
            texts.append(f"{message}\n{traceback}")
        return "\n".join(texts)

    return read


def hostile_server(**settings: Any) -> Server:
    """Return a server on which everything fails, each with what the client has said in its exception."""
    sources = (AuthPayload(), BearerHeader(), Query("jwt"))
    io = make_server(auth=make_auth(sources=sources), **settings)
    everywhere = io.of(lambda name: True)

    @everywhere.use
    def look(socket: Socket) -> None:
        if socket.claims["fate"] == "fail":
            raise ValueError(f"{socket.principal.subject} {socket!r}")
        if socket.claims["fate"] == "refuse":
            raise Refused(socket.principal.subject)

    def fail(socket: Socket, *args: Any) -> None:
        raise RuntimeError(f"{args} {args[0] if args else ''} in {socket.namespace.name} of {socket.principal.subject}")

    def arrive(socket: Socket) -> None:
        if socket.claims["fate"] == "late":
            fail(socket)

    everywhere.on("connect", arrive)
    everywhere.on("event", fail)
    everywhere.on("disconnect", fail)

    @everywhere.use_event
    async def around(socket: Socket, event: Event, call_next: Any) -> Any:
        if event.name != "event":
            raise KeyError(f"{event.name}: {event!r}")
        return await call_next(event)

    return io


def encoded(parser: str, kind: int, namespace: str, data: Any) -> str | bytes:
    """Return a packet of this type as a client with that parser sends it."""
    if parser == "msgpack":
        return msgspec.msgpack.encode({"type": kind, "nsp": namespace, "data": data, "id": 7 if kind == 2 else None})
    return f"4{kind}{namespace},{7 if kind == 2 else ''}" + json.dumps(data)


FATES = ("fail", "refuse", "late", "enter")


@pytest.mark.parametrize("parser", ["json", "msgpack"])
@pytest.mark.parametrize("name", [EVIL, "/" + LONG[:250]], ids=["evil", "long"])
async def test_names_from_clients_are_logged_on_one_line_and_bounded(
    transport: str, parser: Any, name: str, log: Callable[[], str]
) -> None:
    """Row 47: namespaces, events, subjects, issuers and texts of exceptions, with JSON and with MessagePack."""
    io = hostile_server(parser=parser)
    subject = f"{EVIL} {LONG[:3000]}".replace("\0", "")
    token = {fate: make_token(sub=subject, iss=EVIL, fate=fate) for fate in FATES}
    async with serve(io) as url:
        for fate in FATES:
            async with session(url, transport) as wire:
                await wire.send(encoded(parser, 0, name, {"token": token[fate]}))
                await within(wire.receive())
                if fate == "enter":
                    (socket,) = io._core.namespaces.find(name).sockets.values()  # type: ignore[union-attr]
                    shown = [socket, socket.namespace, socket.principal, socket._identity, socket._connection]
                    for event in ("event", EVIL, LONG[:3000]):
                        shown.append(Event(event, (EVIL,)))
                        await wire.send(encoded(parser, 2, name, [event, EVIL, LONG[:3000]]))
                        await within(wire.receive())
                    for one in map(repr, shown):
                        assert one.isprintable(), ascii(one)
                        assert len(one) < 1000
                    assert "\n" not in str(socket.principal.__rich_repr__()) + str(socket.handshake)
    written = log()
    assert "the handler" in written  # The connect and disconnect handlers have failed,
    assert "an event handler of" in written
    assert "refused: the verdict failed" in written  # and middleware.
    assert written.count("RuntimeError") >= 3


@pytest.mark.parametrize("name", ["sub", "iss", "sid", "jti", "aud", "kid", "typ", "alg", "scope"])
async def test_what_an_unproven_token_says_is_in_no_line_as_it_came(
    transport: str, name: str, log: Callable[[], str]
) -> None:
    """Row 47: a token that is refused, with the evil name in each claim and header, also where several are known."""
    header = {"alg": "HS256", "typ": "JWT"} | ({name: EVIL + LONG[:3000]} if name in ("kid", "typ", "alg") else {})
    claims = {"iss": HERE, name: EVIL + LONG[:3000]}
    tokens = [make_token(header=header, **claims), make_token(secret="x" * 40, header=header, **claims)]
    io = make_server(auth=make_auth(issuer=[HERE, THERE], audience="chat"))
    async with serve(io) as url:
        for token in tokens:
            async with session(url, transport) as wire:
                await wire.send("40" + json.dumps({"token": token}))
                assert str(await within(wire.receive())).startswith("44")
    assert log().count("refused: ") == 2


async def test_a_request_that_is_refused_is_logged_on_one_line(transport: str, log: Callable[[], str]) -> None:
    """Row 47: origins, paths, parameters, agents and the address that a trusted proxy passes on."""
    io = hostile_server(trusted_proxies=["127.0.0.0/8"])
    evil = "evil\x1b]0;title\x07\x9b"
    async with serve(io) as url:
        heads = [
            {"Origin": f"https://{LONG[:3000]}"},
            {"User-Agent": LONG[:3000]},
            {"X-Forwarded-For": f"fe80::1%{LONG[:99]}"},
        ]
        for head in heads:
            query = {**(POLLING if transport == "polling" else WEBSOCKET), "x": evil, "EIO": "9"}
            if transport == "polling":
                async with client(url) as http:
                    for path in ("/socket.io/", f"/{quote(evil)}/"):
                        assert (await http.get(path, params=query, headers=head)).status_code in (400, 403, 404)
            else:
                for path in ("/socket.io/", f"/{quote(evil)}/"):
                    assert (await refused(url, query, path=path, **head)).status_code in (400, 403, 404)
    shown = repr(Handshake((), {}, EVIL + LONG, EVIL + LONG))
    assert shown.isprintable()
    assert len(shown) < 600
    assert "/socket.io/" in log()


def test_every_kind_of_log_line_is_made_safe() -> None:
    """Row 47: lines with and without arguments, with a mapping, with objects; long tracebacks keep their ends."""

    def logged(message: str, *arguments: Any, error: Exception | None = None) -> str:
        exception = None if error is None else (type(error), error, None)
        record = logging.LogRecord("iogate", logging.INFO, "", 0, message, arguments, exception)
        for _ in range(2):  # A line may pass the filter of its logger, and that of a handler.
            assert SafeRecords().filter(record)
        return logging.Formatter().format(record)

    assert logged("of %s", EVIL[:6]) == "of /a\\r\\nCR"
    assert logged("of %s", ValueError(f"\x1b {TOKEN}")) == "of \\x1b REDACTED"
    assert logged("%d of %g, %r", 7, 0.5, None) == "7 of 0.5, None"
    assert logged("of %(name)s", {"name": EVIL[:4]}) == "of /a\\r\\n"
    assert logged("a line\nand another\n") == "a line\n  and another"
    assert logged("of %s", LONG) == f"of {LONG[:MAX_ARGUMENT]}... ({len(LONG)} characters)"
    line = logged("failed", error=ValueError(f"begins\r\n{TOKEN}\x1b{LONG}\nends"))
    assert line.startswith("failed\n  ValueError: begins\\r\n  REDACTED\\x1b")
    assert line.endswith("\n  ends")
    assert " characters left out " in line
    assert len(line) < 1.1 * MAX_TRACEBACK


# Tokens in URLs.

TOKEN = make_token(sub="secret")
OPAQUE = "0paque-v4lue"


def fully(text: str) -> str:
    """Percent-encode every character."""
    return "".join(f"%{ord(character):02x}" for character in text)


URLS: dict[str, str] = {
    "a parameter": "?token={token}",
    "another parameter": "?x=1&whatever={token}&y=2",
    "a name": "?{token}",
    "a capital": "?x=1&Token={opaque}&y=2",
    "after a semicolon": "?x=1;token={opaque}",
    "with a semicolon in it": "?access_token={opaque};{opaque}&y=2",
    "as HTML": "?x=1&amp;token={opaque}",
    "an encoded name": "?x=1&tok%65n={opaque}",
    "an encoded separator": "?x=1%26token%3D{opaque}",
    "encoded twice": "?x=%2526TOKEN%253D{opaque}",
    "an encoded token": "?x={encoded}",
    "a token encoded twice": "?x={twice}",
    "after other text": "?x=Bearer%20{token}",
    "in the path": "/a/{token}/b",
    "encoded in the path": "/a/{encoded}",
    "in the path as a parameter": "/a;token={opaque}/b",
    "in the path as a part of a name": "/reset-{token}",
    "without its signature": "?x={unsigned}",
}


def url_with_a_token(shape: str) -> str:
    """Return the path and query of a request, with a token in it."""
    words = {"token": TOKEN, "opaque": OPAQUE, "encoded": fully(TOKEN), "twice": quote(fully(TOKEN))}
    return URLS[shape].format(**words, unsigned=TOKEN.rpartition(".")[0])


def assert_without_tokens(text: str) -> None:
    """Make sure that no part of the token is in a text, whichever way it is spelled."""
    secrets = [*TOKEN.split("."), OPAQUE]
    for secret in secrets:
        for spelled in (secret, fully(secret), quote(fully(secret)), fully(secret).upper()):
            assert spelled not in text
            assert spelled[2:-2] not in text


@pytest.mark.parametrize("shape", URLS)
def test_a_token_is_taken_out_of_a_text_and_what_is_around_it_is_not(shape: str) -> None:
    """Row 48: wherever it stands in a URL or in a line with one."""
    for text in (url_with_a_token(shape), f'GET /x{url_with_a_token(shape)} HTTP/1.1" 404'):
        redacted = redact(text)
        assert_without_tokens(redacted)
        assert "REDACTED" in redacted
        for kept in ("x=1", "y=2", "/b", "HTTP/1.1"):
            if kept in text and f"{OPAQUE}{kept}" not in text and "a;token" not in text:
                assert kept in redacted


@pytest.mark.parametrize(
    "text",
    [
        "EIO=4&transport=websocket&sid=lv_VI97HAXpY6yYWAAAC&t=P4x5ey9",
        "/static/keys/they-are-eyewitnesses.0123456789abcdef.js?tokens=1&my_token=2",
        "100% of token = nothing",
        "a=%e9%zz%",
    ],
)
def test_what_is_no_token_stays(text: str) -> None:
    """Row 48: a log is still worth reading."""
    assert redact(text) == text


@given(strategies.text("eyJwA0k%2567.=-_;&token", max_size=200))
def test_redaction_ends_and_can_be_repeated(text: str) -> None:
    """Row 48: what has been redacted once has nothing more to redact."""
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "piece", ["eyJ", "ey", "eyJa.", "%65", "%25", "%2565", "&token", "a;", "token=", "=.eyJaaaaaaaaaaaaaaa"]
)
def test_the_time_of_redaction_grows_with_the_text_and_not_with_its_square(piece: str) -> None:
    """Row 48: a text of a megabyte of half-tokens is done with in the time of the test; it would take hours else."""
    redact(piece * (1_000_000 // len(piece)))


@pytest.mark.parametrize("source", [True, False], ids=["source on", "source off"])
@pytest.mark.parametrize("shape", URLS)
async def test_no_token_of_a_url_is_logged(transport: str, source: bool, shape: str, log: Callable[[], str]) -> None:
    """Row 48: on the server's path, on another, and beside an application, which gets what the client has sent."""
    sources = (AuthPayload(), Query("token")) if source else (AuthPayload(),)
    io = make_server(auth=make_auth(sources=sources))
    got: list[tuple[bytes, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.append((scope["query_string"], scope["path"]))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})

    url = url_with_a_token(shape)
    query = url.partition("?")[2]
    paths = ["/socketio" + url] + ([f"/socket.io/?EIO=4&transport={transport}&{query}"] if query else [])
    for served in (io.asgi(), io.asgi(app)):
        async with serve(served) as address:
            for path in paths:
                await ask(address + path, transport)
        await io.shutdown(timeout=1)
    seen = httpx.URL("http://x/socketio" + url)
    assert got[-1] == (seen.query, seen.path)
    assert_without_tokens(log())
    assert log().count("REDACTED") >= len(paths) * 2


async def ask(url: str, transport: str) -> None:
    """Send a request for exactly this URL, whatever the answer is."""
    host, _, target = url.removeprefix("http://").partition("/")
    upgrade = (
        "Connection: close\r\n"
        if transport == "polling"
        else "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
    )
    reader, writer = await asyncio.open_connection(*host.split(":"))
    writer.write(f"GET /{target} HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\n".encode())
    assert (await within(reader.readuntil(b"\r\n"))).startswith(b"HTTP/1.1 ")
    writer.close()
    await writer.wait_closed()


AROUND = f"""{SERVER}
import logging
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

async def fail(request):
    raise RuntimeError(f"{{request.headers['referer']}} {{request.query_params}}")

async def hello(request):
    logging.getLogger("iogate").info("visited from %s by %s", request.headers["referer"], request.headers["user-agent"])
    return PlainTextResponse(request.scope["path"] + " " + request.scope["query_string"].decode())

app = Starlette(routes=[Route("/fail", fail), Mount("/chat", io.asgi()), Route("/{{rest:path}}", hello)])
"""


@pytest.mark.parametrize("ws", ["picows", "websockets"])
async def test_under_iogate_run_no_token_is_logged_whatever_serves_the_request(tmp_path: Path, ws: str) -> None:
    """Row 48: the log of the process, also where applications stand around the server, fail, and log what they get."""
    async with serving(tmp_path, AROUND, "--access-log", "--ws", ws) as run:
        async with client(run.url) as http:
            for shape in URLS:
                url = url_with_a_token(shape)
                query = "?" + url.partition("?")[2]
                agent = f"\x9b31m {TOKEN}".encode("latin-1")
                headers = {b"referer": f"http://else{url}".encode(), b"user-agent": agent, b"connection": b"close"}
                answer = await http.get(f"/page{url}", headers=headers)
                seen = httpx.URL(f"http://x/page{url}")
                assert answer.text == f"{seen.path} {seen.query.decode()}"
                assert (await http.get(f"/fail{query}", headers=headers)).status_code == 500
                await http.get(f"/chat/socket.io/{query}", headers=headers)
                await ask(f"{run.url}/chat/socket.io/{query}", "websocket")
        run.expected = run.errors  # Those of /fail.
    assert_without_tokens(run.output)
    assert run.output.count("REDACTED") > 3 * len(URLS)
    assert "RuntimeError: http://else" in run.output
    assert "\x9b" not in run.output
