"""The shortest way from a frame to its handler and the general way are told apart by nobody.

The same conversations are held with a server that takes the short way where it can, and with one that never does:
what the client hears, what the handlers are called for and what is logged must be the same.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from iogate import Event, Refused, Server, Socket
from iogate.protocol.engineio.packets import Encoded
from iogate.protocol.socketio.packets import MAX_DEPTH, MAX_ID_DIGITS, RESERVED_EVENTS
from iogate.server.gate.connection import Connection
from iogate.server.namespaces import dispatch
from iogate.server.namespaces.handlers import CallNext
from iogate.server.session.handshake import Handshake
from iogate.server.session.reasons import CloseReason
from iogate.testing.time import settle
from tests.gate.support import make_auth
from tests.server.left import leftovers
from tests.servers import connection_of, make_server, make_token


class Recorder:
    """A transport that takes everything at once, and notes it."""

    name = "memory"
    upgradable = False
    lingers = False
    writable = True
    congested = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.heard: list[str] = []

    def write(self, packet: Encoded) -> bool:
        text = re.sub(r'"sid":"[^"]+"', '"sid":"..."', packet.string)
        self.heard += [text, *map(repr, packet.attachments)]
        return True

    def flush(self) -> None:
        for packet in self._connection.take():
            self.write(packet)
            self._connection.sent(packet)

    def close(self, reason: CloseReason) -> None:
        self.flush()
        self.heard.append(f"closed: {reason.text}")

    def abort(self) -> None:
        self.heard.append("cut")

    async def closed(self) -> None:
        return


class Application:
    """Handlers of every kind, and what they are called for."""

    def __init__(self, io: Server) -> None:
        self.calls: list[Any] = []
        for namespace in (io.of("/"), io.of("/admin")):
            on = namespace.on
            on("connect", lambda socket: self.calls.append(("connect", socket.namespace.name)))
            on("disconnect", lambda socket, reason: self.calls.append(("disconnect", socket.namespace.name, reason)))
            on("plain", lambda socket, *args: self.note("plain", *args))
            on("exact", self.exact)
            on("at once", self.at_once)
            on("later", self.later)
            on("hidden", lambda socket, *args: self.later(socket, *args))
            on("partial", functools.partial(self.with_first, "first"))
            on("async partial", functools.partial(self.later))
            on("object", self)
            on("nothing", lambda socket: None)
            on("several", lambda socket: ("one", 2))
            on("no json", lambda socket: object())
            on("binary", lambda socket: b"\x01")
            on("raises", self.raises)
            on("raises later", self.raises_later)
            on("refuses", self.refuses)
            on("cancelled", self.cancelled)
            on("scoped", lambda socket, *args: self.note("scoped", *args), scopes="write")
            on("emits", lambda socket: socket.emit("said"))
            on("refresh", lambda socket, old, new: self.note("refresh", old, new))
            on("leaves", lambda socket: socket.disconnect())
            on("leaves later", self.leaves_later)
            on("ends", lambda socket: socket.disconnect(close=True))

    def note(self, *call: Any) -> list[Any]:
        self.calls.append(call)
        return list(call)

    def exact(self, socket: Socket, a: Any, b: Any = 2) -> Any:
        return self.note("exact", a, b)

    async def at_once(self, socket: Socket, *args: Any) -> Any:
        return self.note("at once", *args)

    async def later(self, socket: Socket, *args: Any) -> Any:
        self.note("begun", *args)
        await asyncio.sleep(0)
        return self.note("later", *args)

    def with_first(self, first: str, socket: Socket, *args: Any) -> Any:
        return self.note(first, *args)

    async def __call__(self, socket: Socket, *args: Any) -> Any:
        return self.note("object", *args)

    async def leaves_later(self, socket: Socket) -> None:
        await asyncio.sleep(0)
        socket.disconnect()

    def raises(self, socket: Socket) -> None:
        raise ValueError("the inside")

    async def raises_later(self, socket: Socket) -> None:
        await asyncio.sleep(0)
        raise ValueError("the inside")

    def refuses(self, socket: Socket) -> None:
        raise Refused("not now", data={"code": "later"})

    async def cancelled(self, socket: Socket) -> None:
        raise asyncio.CancelledError


def connect(namespace: str = "", scope: str = "") -> str:
    """Return a CONNECT, in which a token with these scopes is yet to be put."""
    return f'40{namespace}{{"token":"<{scope}>"}}'


def _with_token(frame: str) -> bytes:
    return re.sub("<(.*)>", lambda found: _token(found[1]), frame).encode()


@functools.cache
def _token(scope: str) -> str:
    """Return the same token each time: one of the next second would be another identity."""
    return make_token(scope=scope)


def catch_all(io: Server, application: Application) -> None:
    io.on("*", lambda socket, event, *args: application.note("*", event, *args))


def event_middleware(io: Server, application: Application) -> None:
    @io.use_event
    async def middleware(socket: Socket, event: Event, call_next: CallNext) -> Any:
        application.note("before", event.name, event.args)
        return await call_next(event)


def nothing_more(io: Server, application: Application) -> None:
    pass


MORE = [nothing_more, catch_all, event_middleware]
"""What is registered after the handlers."""

NINES = "9" * MAX_ID_DIGITS
DEEP = "[" * MAX_DEPTH + "]" * MAX_DEPTH
ENTER = connect()

KINDS = ["plain", "at once", "later", "hidden", "partial", "async partial", "object"]

SETTLED = ""
"""Not a frame: everything happens that happens at once."""

# The frames, and how many of them the short way takes where neither middleware nor anything else forbids it.
CONVERSATIONS: dict[str, tuple[Sequence[str | bytes], int]] = {
    "every kind of handler": ([ENTER, *(f'42["{kind}",1,"two",{{}}]' for kind in KINDS)], 7),
    "every kind, answered": ([ENTER, *(f'42{n}["{kind}",{n}]' for n, kind in enumerate(KINDS))], 7),
    "every kind in another namespace": (
        [connect("/admin,"), *(f'42/admin,{n}["{kind}",{n}]' for n, kind in enumerate(KINDS))],
        0,
    ),
    "another namespace beside the root": (
        [ENTER, connect("/admin,"), '42/admin,["plain"]', '42["plain"]', '42/admin,1["plain"]', '421["plain"]'],
        2,
    ),
    "a namespace that it is not in": ([ENTER, '42["plain"]', '42/admin,["plain"]', '42["plain"]'], 1),
    "results": ([ENTER, *(f'42{n}["{e}"]' for n, e in enumerate(("nothing", "several", "no json", "binary")))], 4),
    "failures": (
        [ENTER, *(f'42{n}["{e}"]' for n, e in enumerate(("raises", "raises later", "refuses", "cancelled")))],
        4,
    ),
    "failures that nobody asked for": ([ENTER, '42["raises"]', '42["raises later"]', '42["refuses"]'], 3),
    "the smallest and the largest id": ([ENTER, '420["plain"]', f'42{NINES}["plain"]', f'42{NINES}["later"]'], 3),
    "an id with zeros in front": ([ENTER, '42007["plain"]'], 1),
    "an id that is too long": ([ENTER, f'42{NINES}9["plain"]', '42["plain"]'], 0),
    "too few arguments": ([ENTER, '421["exact"]', '42["exact"]', '422["exact",1]'], 1),
    "too many arguments": ([ENTER, '421["exact",1,2,3]', '42["exact",1,2,3]', '422["exact",1,3]'], 1),
    "a scope that it has": ([connect(scope="read write"), '421["scoped",1]', '42["scoped"]'], 0),
    "a scope that it lacks": ([connect(scope="read"), '421["scoped",1]', '42["scoped"]', '422["plain"]'], 1),
    "names that nobody handles": ([ENTER, '421["nobody"]', '422["*"]', '423["refresh"]', '42[""]', '425["plain"]'], 1),
    "names of what the life of a socket calls": ([ENTER, '421["refresh",1,2]', '422["*","a"]', '423["plain"]'], 1),
    "names of the gate": ([ENTER, *(f'42["{name}",{{"token":"a"}}]' for name in ("authenticated", "forbidden"))], 0),
    "authenticate": ([ENTER, '421["authenticate",{"token":"no token"}]', '42["plain"]'], 1),
    "a number as a name": ([ENTER, '421[5,"a"]', '42["plain"]'], 1),
    **{f"the reserved name {name}": ([ENTER, f'42["{name}"]', '42["plain"]'], 0) for name in sorted(RESERVED_EVENTS)},
    "emitting": ([ENTER, '421["emits"]', '42["emits"]'], 2),
    "leaving by a handler": ([ENTER, '421["leaves"]', '422["plain"]', '42["plain"]'], 1),
    "ending by a handler": ([ENTER, '421["ends"]', '422["plain"]', '42["plain"]'], 1),
    "leaving": ([ENTER, "41", '42["plain"]'], 0),
    "leaving another namespace": ([ENTER, connect("/admin,"), "41/admin,", '421["plain"]', '42/admin,["plain"]'], 1),
    "leaving and coming back": ([ENTER, "41", ENTER, '421["plain"]'], 1),
    "asking anew": ([ENTER, '421["plain"]', ENTER, '422["plain"]'], 2),
    "asking anew with a token that is none": ([ENTER, '40{"token":"no token"}', '422["plain"]'], 0),
    "after the end": ([ENTER, "1", '421["plain"]', '42["later"]'], 0),
    "before it has asked": (['42["plain"]', ENTER, '42["plain"]'], 0),
    "attachments": ([ENTER, '451-1["plain",{"_placeholder":true,"num":0}]', b"\x01", '422["plain"]'], 1),
    "an event while an attachment is awaited": (
        [ENTER, '451-1["plain",{"_placeholder":true,"num":0}]', '422["plain"]', b"\x01"],
        0,
    ),
    "an event while the second attachment is awaited": (
        [
            ENTER,
            '452-1["plain",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
            b"\x01",
            '422["plain"]',
        ],
        0,
    ),
    "an event while an attachment is awaited, and another namespace has been left": (
        [
            ENTER,
            connect("/admin,"),
            '42/admin,["leaves later"]',
            '451-1["plain",{"_placeholder":true,"num":0}]',
            SETTLED,
            '422["plain"]',
        ],
        0,
    ),
    "an event in binary": ([ENTER, b'42["plain"]'], 0),
    "a placeholder": ([ENTER, '421["plain",{"_placeholder":true,"num":0}]'], 1),
    "too deep": ([ENTER, f'42["plain",{DEEP}]'], 0),
    "as deep as that": ([ENTER, f'421["plain",{DEEP[1:-1]}]'], 1),
    **{
        f"junk: {junk}": ([ENTER, junk, '42["plain"]'], 0)
        for junk in ("42", "42[]", "42x", '42["plain"', '42["plain"]]', '42-1["plain"]', "42null", '42 1["plain"]')
    },
    "blanks": ([ENTER, '421[ "plain" , 1 ] ', '42 ["plain"]'], 1),
    "an answer that nobody waits for": ([ENTER, "437[]", '42["plain"]'], 1),
}


class Told:
    """What came of a conversation."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.calls: list[Any] = []
        self.logged: list[str] = []
        self.short = 0

    def same_as(self, other: Told) -> bool:
        """Say whether nobody could tell it from another one."""
        return (self.heard, self.calls, self.logged) == (other.heard, other.calls, other.logged)

    def __repr__(self) -> str:
        return f"\nheard {self.heard}\ncalls {self.calls}\nlogged {self.logged}"


class Ways:
    """Counts what the short way takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._direct = dispatch.dispatch_fast
        self._taken = 0
        monkeypatch.setattr(Connection, "handle_fast", staticmethod(self._counted))

    def _counted(self, socket: Socket, frame: bytes) -> bool:
        taken = self._direct(socket, frame)
        self._taken += taken
        return taken

    async def tell(
        self,
        frames: Sequence[str | bytes],
        more: Callable[[Server, Application], None],
        *,
        short: bool,
        at_once: bool = False,
        **settings: Any,
    ) -> Told:
        """Hold a conversation with a new server."""
        io = make_server(**settings)
        application = Application(io)
        more(io, application)
        if not short:
            for name in ("/", "/admin"):
                io.of(name).handlers.direct.clear()
        self._caplog.clear()
        self._taken = 0
        connection = io._core.open(Handshake(address="192.0.2.1"))
        transport = Recorder(connection)
        connection.begin(transport)
        await settle()
        for frame in frames:
            if frame == SETTLED:
                await settle()
                continue
            data = _with_token(frame) if isinstance(frame, str) else frame
            connection.receive(data, binary=isinstance(frame, bytes))
            if not at_once or data.startswith(b"40"):
                await settle()
        await settle()
        told = Told()
        told.short = self._taken
        if connection.open:
            connection.close(CloseReason.CLOSE_PACKET)
            await settle()
        assert leftovers(io).keys() <= {f"deadlines of {io._core.sessions.drain_timeout.interval} s ({_number(io)})"}
        io._core.sessions.deadlines.stop()
        told.heard, told.calls = transport.heard, application.calls
        told.logged = [record.getMessage() for record in self._caplog.records]
        return told


def _number(io: Server) -> int:
    return io._core.sessions.deadlines._queues.index(io._core.sessions.drain_timeout)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Ways:
    caplog.set_level(logging.INFO)
    return Ways(monkeypatch, caplog)


@pytest.mark.parametrize("more", MORE, ids=lambda more: more.__name__.replace("_", " "))
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize(("frames", "taken"), CONVERSATIONS.values(), ids=CONVERSATIONS)
async def test_both_ways_do_the_same(
    ways: Ways,
    frames: Sequence[str | bytes],
    taken: int,
    more: Callable[[Server, Application], None],
    at_once: bool,
) -> None:
    short = await ways.tell(frames, more, short=True, at_once=at_once)
    long = await ways.tell(frames, more, short=False, at_once=at_once)
    assert short.same_as(long), f"{short}{long}"
    assert long.short == 0
    assert short.short == (0 if more is event_middleware else taken)


@pytest.mark.parametrize("authenticate_within", [None, 5.0])
@pytest.mark.parametrize("short", [False, True])
async def test_who_is_not_let_in_is_handled_nothing(ways: Ways, short: bool, authenticate_within: float | None) -> None:
    """Whether it has said nothing yet, is refused, or waits outside."""
    frames = ["40", '42["plain"]', '421["later"]']
    told = await ways.tell(frames, nothing_more, short=short, auth=make_auth(authenticate_within=authenticate_within))
    assert told.calls == []
    assert told.short == 0
    assert not any(packet.startswith("43") for packet in told.heard)


@pytest.mark.parametrize("short", [False, True])
async def test_an_event_before_the_verdict_is_an_error(ways: Ways, short: bool) -> None:
    opened = asyncio.Event()

    def door(io: Server, application: Application) -> None:
        io.use(lambda socket: opened.wait())

    told = await ways.tell([ENTER, '42["plain"]'], door, short=short)
    assert told.calls == []
    assert told.heard[1:] == ["closed: parse error"]


@pytest.mark.parametrize("short", [False, True])
async def test_an_event_while_an_attachment_is_awaited_is_an_error(ways: Ways, short: bool) -> None:
    frames, _ = CONVERSATIONS["an event while an attachment is awaited"]
    told = await ways.tell(frames, nothing_more, short=short)
    assert told.heard[-1] == "closed: parse error"
    assert told.calls == [("connect", "/"), ("disconnect", "/", "parse error")]


async def test_an_event_in_json_is_no_event_where_another_parser_is_spoken(ways: Ways) -> None:
    """Nor does the short way take it: it reads JSON only."""
    entry = {"type": 0, "nsp": "/", "data": {"token": make_token()}}
    told = await ways.tell([msgspec.msgpack.encode(entry), '42["plain"]'], nothing_more, short=True, parser="msgpack")
    assert told.calls == [("connect", "/"), ("disconnect", "/", "parse error")]
    assert told.heard[-1] == "closed: parse error"


@pytest.mark.parametrize("short", [False, True])
async def test_nothing_is_handled_once_the_connection_ends(ways: Ways, short: bool) -> None:
    """Not even in the middle of it, while disconnect handlers run and the root namespace has its socket still."""

    def more(io: Server, application: Application) -> None:
        def say_more(socket: Socket, reason: str) -> None:
            application.note(reason)
            connection_of(socket).receive(b'42["plain","too late"]')

        io.of("/other").on("disconnect", say_more)

    told = await ways.tell([connect("/other,"), ENTER, "1"], more, short=short)
    assert told.calls == [("connect", "/"), ("transport close",), ("disconnect", "/", "transport close")]


@pytest.mark.parametrize("short", [False, True])
async def test_a_failure_is_logged_once_and_tells_the_client_nothing(ways: Ways, short: bool) -> None:
    told = await ways.tell([ENTER, '421["raises"]', '422["cancelled"]'], nothing_more, short=short)
    assert told.heard[2:4] == [
        f'43{id_}[{{"error":{{"code":"internal_error","message":"The event could not be handled"}}}}]' for id_ in (1, 2)
    ]
    assert told.logged == ["an event handler of / failed"] * 2
