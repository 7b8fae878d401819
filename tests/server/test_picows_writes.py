"""How picows writes: once a turn for all that was said in it, no more than the client takes, nothing too late.

The network is played here: a socket whose buffer is as large as the test says, and is read when the test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from picows import WSCloseCode, WSMsgType
from websockets.frames import Opcode

from iogate import Server, Socket
from iogate.protocol.engineio.packets import PING
from iogate.server.gate.connection import Connection
from iogate.server.session.handshake import Handshake
from iogate.server.session.reasons import CloseReason
from iogate.server.session.session import BURST, VOLATILE_BUFFERED
from iogate.testing.time import settle
from iogate.transports.picows.transport import MAX_PENDING, PicowsTransport
from iogate.transports.polling import PollingTransport
from tests.protocol.test_websocket import read
from tests.servers import make_server, make_token

LARGE = "x" * 100_000
MAX_BUFFERED = 300_000


class Frame:
    """A frame from the client, as picows gives it."""

    rsv1 = rsv2 = rsv3 = 0

    def __init__(self, payload: bytes, msg_type: WSMsgType = WSMsgType.TEXT) -> None:
        self.msg_type = msg_type
        self.fin = True
        self._payload = payload

    def get_payload_as_bytes(self) -> bytes:
        return self._payload


class Network:
    """The client's end of a connection on picows, and the network between.

    Args:
        io: the server.
        target: a session on polling that it is to take over; None for one of its own.
    """

    def __init__(self, io: Server, target: Connection | None = None) -> None:
        self.room = 1_000_000_000  # What the buffer of the socket takes before it says that it is full.
        self.writes: list[bytes] = []
        self.pongs: list[bytes] = []
        self.closed: list[int] = []
        self.cut = False
        self.reading = True
        self._unread = 0
        self.request = SimpleNamespace(headers={})
        self.response = SimpleNamespace(headers={})
        self.transport = PicowsTransport(io._core, Handshake(address="192.0.2.1"), target)
        self.transport.on_ws_connected(self)  # type: ignore[arg-type]
        own = (made for made in io._core.sessions.table.values() if made.transport is self.transport)
        self.connection = target or next(own)

    # What the transport asks of picows, and of asyncio's transport under it.

    @property
    def underlying_transport(self) -> Network:
        return self

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self._unread += len(data)
        if self._unread > self.room:
            self.transport.pause_writing()

    def send_close(self, code: WSCloseCode) -> None:
        if not (self.closed or self.cut):  # picows sees to it that there is one at most.
            self.closed.append(code.value)

    def send_pong(self, message: bytes) -> None:
        self.pongs.append(message)

    def disconnect(self, graceful: bool = True) -> None:
        self.cut = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.cut

    # What the client does.

    def say(self, *frames: str) -> None:
        """Let the server read these frames at once."""
        for frame in frames:
            self.transport.on_ws_frame(self, Frame(frame.encode()))  # type: ignore[arg-type]

    def say_pings(self, *payloads: bytes) -> None:
        """Let the server read these pings of the WebSocket at once."""
        for payload in payloads:
            self.transport.on_ws_frame(self, Frame(payload, WSMsgType.PING))  # type: ignore[arg-type]

    def say_goodbye(self) -> None:
        self.transport.on_ws_frame(self, Frame(b"", WSMsgType.CLOSE))  # type: ignore[arg-type]

    def go(self) -> None:
        """Be gone."""
        self.cut = True
        self.transport.on_ws_disconnected(self)  # type: ignore[arg-type]

    def fill(self) -> None:
        """Fill the buffer of the socket, to the last byte and one more."""
        self.room = self._unread - 1
        self.transport.pause_writing()

    def read(self, room: int = 1_000_000_000) -> None:
        """Read all that has been written, and have room for so much more."""
        self.room, self._unread = room, 0
        self.transport.resume_writing()

    def heard(self) -> list[str]:
        """Return the packets that were written since it was asked last."""
        frames = read(b"".join(self.writes))
        self.writes.clear()
        assert all(opcode is Opcode.TEXT for opcode, _ in frames)
        return [data.decode() for _, data in frames]


async def turn() -> None:
    await asyncio.sleep(0)


@pytest.fixture
def io() -> Server:
    made = make_server(max_buffered=MAX_BUFFERED)
    made.on("echo", lambda socket, value: value)
    return made


async def _entered(io: Server, **claims: Any) -> Network:
    """Return a client that is in, and has read what it was told so far."""
    network = Network(io)
    network.say(f'40{{"token":"{make_token(**claims)}"}}')
    await settle()
    assert [packet[:2] for packet in network.heard()] == ["0{", "40"]
    assert socket_of(network).connected
    return network


def socket_of(network: Network) -> Socket:
    return network.connection.sockets["/"]


# One write a turn.


async def test_several_answers_to_one_read_are_one_write(io: Server) -> None:
    ann = await _entered(io)
    ann.say(*(f'42{number}["echo",{number}]' for number in range(5)))
    assert ann.writes == []
    await turn()
    assert len(ann.writes) == 1
    assert ann.heard() == [f"43{number}[{number}]" for number in range(5)]


async def test_whatever_is_said_in_a_turn_goes_with_it_in_order(io: Server) -> None:
    ann = await _entered(io)
    ann.say('421["echo",1]')
    io.emit("news")
    socket_of(ann).emit("hello")
    ann.connection.ping()
    await turn()
    assert len(ann.writes) == 1
    assert ann.heard() == ["431[1]", '42["news"]', '42["hello"]', "2"]


async def test_every_turn_has_a_write_of_its_own(io: Server) -> None:
    ann = await _entered(io)
    for number in range(3):
        ann.say(f'42{number}["echo",{number}]')
        await turn()
        assert ann.heard() == [f"43{number}[{number}]"]


async def test_what_is_pending_within_a_turn_is_bounded(io: Server) -> None:
    """A client that does not read must show before the turn has ended."""
    ann = await _entered(io)
    for number in range(MAX_PENDING):
        socket_of(ann).emit("news", number)
    assert ann.writes == []
    socket_of(ann).emit("news", MAX_PENDING)
    assert len(ann.writes) == 1
    for number in range(MAX_PENDING + 1, 3 * MAX_PENDING):
        socket_of(ann).emit("news", number)
    await turn()
    assert len(ann.writes) == 3
    assert ann.heard() == [f'42["news",{number}]' for number in range(3 * MAX_PENDING)]


async def test_attachments_follow_their_packet_in_the_same_write(io: Server) -> None:
    ann = await _entered(io)
    socket_of(ann).emit("data", b"\x01", b"\x02")
    socket_of(ann).emit("text")
    await turn()
    assert len(ann.writes) == 1
    assert [opcode for opcode, _ in read(ann.writes[0])] == [Opcode.TEXT, Opcode.BINARY, Opcode.BINARY, Opcode.TEXT]


# Pongs of the WebSocket.


async def test_of_several_pings_in_a_turn_the_last_is_answered(io: Server) -> None:
    """RFC 6455, section 5.5.3."""
    ann = await _entered(io)
    ann.say_pings(b"1", b"2", b"3")
    await turn()
    assert ann.pongs == [b"3"]
    ann.say_pings(b"4")
    await turn()
    assert ann.pongs == [b"3", b"4"]


async def test_a_client_that_does_not_read_is_kept_no_more_than_one_pong(io: Server) -> None:
    ann = await _entered(io)
    ann.fill()
    for number in range(100):
        ann.say_pings(b"%d" % number)
        await turn()
    assert ann.pongs == []
    ann.read()
    await turn()
    assert ann.pongs == [b"99"]


@pytest.mark.parametrize("end", ["by the server", "by the client", "broken"])
async def test_no_ping_is_answered_after_the_end(io: Server, end: str) -> None:
    ann = await _entered(io)
    ann.say_pings(b"1")
    if end == "by the server":
        ann.connection.close(CloseReason.SERVER_SHUTDOWN)
    elif end == "by the client":
        ann.say_goodbye()
    else:
        ann.cut = True
    ann.say_pings(b"2")
    await turn()
    assert ann.pongs == []


# The end.


async def test_what_was_said_before_the_end_is_written_before_the_close_frame(io: Server) -> None:
    ann = await _entered(io)
    ann.say('421["echo",1]')
    socket_of(ann).disconnect(close=True)
    assert ann.heard() == ["431[1]", "41"]
    assert ann.closed == [1000]


@pytest.mark.parametrize("end", ["by the server", "by the client"])
async def test_nothing_is_written_after_a_close_frame(io: Server, end: str) -> None:
    """RFC 6455, section 5.5.1. Neither at once, nor at the end of the turn, nor when the client reads again."""
    ann = await _entered(io)
    if end == "by the server":
        ann.connection.close(CloseReason.SERVER_SHUTDOWN)
        assert ann.closed == [1001]
    else:
        ann.say('421["echo",1]')
        ann.say_goodbye()
        assert ann.closed == [1000]
    ann.transport.write(PING)
    for _ in range(MAX_PENDING):
        ann.transport.write(PING)
    await turn()
    ann.transport.pause_writing()
    ann.transport.resume_writing()
    ann.transport.close(CloseReason.SERVER_SHUTDOWN)
    await turn()
    assert ann.writes == []
    assert len(ann.closed) == 1


async def test_a_connection_that_is_cut_is_written_nothing_more(io: Server) -> None:
    ann = await _entered(io)
    ann.say('421["echo",1]')
    ann.transport.abort()
    assert ann.cut
    ann.transport.write(PING)
    ann.transport.close(CloseReason.SERVER_SHUTDOWN)
    await turn()
    assert ann.writes == []


async def test_a_connection_that_breaks_within_a_turn_is_not_tried_again_and_again(io: Server) -> None:
    """It is known to be broken only in the next turn, and asyncio logs a warning for each write until then."""
    ann = await _entered(io)
    ann.cut = True
    for number in range(10 * MAX_PENDING):
        socket_of(ann).emit("news", number)
    await turn()
    assert ann.writes == []


async def test_of_what_was_pending_when_it_was_cut_nothing_is_kept(io: Server) -> None:
    """A broadcast to many who are about to be cut would be held for as long as the turn is."""
    ann = await _entered(io)
    socket_of(ann).emit("news", LARGE)
    ann.transport.abort()
    assert ann.transport._pending == []


async def test_a_client_that_has_gone_is_written_nothing_more(io: Server) -> None:
    reasons: list[str] = []
    io.on("disconnect", lambda socket, reason: reasons.append(reason))
    ann = await _entered(io)
    ann.say('421["echo",1]')
    ann.go()
    await turn()
    assert ann.writes == []
    assert reasons == ["transport close"]


async def test_a_full_socket_is_closed_when_the_rest_has_been_read(io: Server) -> None:
    ann = await _entered(io)
    ann.fill()
    socket_of(ann).emit("last")
    ann.connection.close(CloseReason.SERVER_SHUTDOWN)
    assert (ann.writes, ann.closed) == ([], [])
    ann.read()
    assert ann.heard() == ['42["last"]']
    assert ann.closed == [1001]


async def test_a_socket_that_the_last_words_fill_is_closed_when_they_have_been_read(io: Server) -> None:
    """A close frame behind them would not be waited for."""
    ann = await _entered(io)
    ann.room = 1000
    socket_of(ann).emit("large", LARGE)
    ann.connection.close(CloseReason.SERVER_SHUTDOWN)
    assert ann.heard() == [f'42["large","{LARGE}"]']
    assert ann.closed == []
    ann.read()
    assert ann.closed == [1001]


# A session that moves here from polling.


def _moving(io: Server) -> Network:
    """Return a WebSocket that is about to take over a session."""
    connection = io._core.open(Handshake(address="192.0.2.1"))
    connection.begin(PollingTransport(connection))
    return Network(io, connection)


async def test_what_waited_on_polling_follows_the_answer_to_the_probe(io: Server) -> None:
    ann = _moving(io)
    ann.say("2probe")
    await turn()
    assert ann.heard() == ["3probe"]
    ann.connection.ping()
    await turn()
    assert ann.writes == []
    ann.say("5")
    ann.connection.ping()
    await turn()
    assert len(ann.writes) == 1
    assert [packet[0] for packet in ann.heard()] == ["0", "2", "2"]
    assert ann.connection.transport is ann.transport


async def test_the_answer_to_the_probe_is_written_before_a_close_frame(io: Server) -> None:
    ann = _moving(io)
    ann.say("2probe", "no upgrade")
    assert ann.heard() == ["3probe"]
    assert ann.closed == [1002]
    await turn()
    assert ann.writes == []
    assert ann.connection.open


async def test_a_client_that_has_gone_while_it_moved_is_written_nothing_more(io: Server) -> None:
    ann = _moving(io)
    ann.say("2probe")
    ann.go()
    await turn()
    assert ann.writes == []
    assert ann.connection.open


# A client that does not read.


async def test_a_socket_is_congested_if_it_is_full_for_one_more_turn(io: Server) -> None:
    """Before that the client has had no chance to read."""
    ann = await _entered(io)
    assert ann.transport.writable
    ann.fill()
    assert ann.transport.writable
    assert not ann.transport.congested
    await turn()
    assert ann.transport.congested
    assert not ann.transport.writable
    ann.read()
    assert ann.transport.writable
    assert not ann.transport.congested


async def test_a_socket_that_is_read_within_the_turn_is_not_congested(io: Server) -> None:
    ann = await _entered(io)
    ann.fill()
    ann.read()
    await turn()
    assert not ann.transport.congested


async def test_a_full_socket_is_written_nothing_until_the_client_reads(io: Server) -> None:
    ann = await _entered(io)
    ann.fill()
    socket_of(ann).emit("first")
    await turn()
    socket_of(ann).emit("second")
    await turn()
    assert ann.writes == []
    assert ann.connection.buffered == len('42["first"]42["second"]')
    ann.read()
    assert ann.heard() == ['42["first"]', '42["second"]']
    assert ann.connection.buffered == 0


async def test_packets_keep_their_order_however_the_client_reads(io: Server) -> None:
    """Whether they were pending, or waited, or were said while the client began to read again."""
    ann = await _entered(io)
    sent: list[str] = []
    heard: list[str] = []
    number, waited = 0, False
    for room in (0, 50, 500, 5_000, 0, 1, 1_000_000):
        for count in (1, MAX_PENDING, 3 * MAX_PENDING):
            for _ in range(count):
                number += 1
                sent.append(f'42["news",{number}]')
                socket_of(ann).emit("news", number)
            waited = waited or ann.connection.has_output
            ann.read(room)
            number += 1
            sent.append(f'42["news",{number}]')
            socket_of(ann).emit("news", number)
            await turn()
            heard += ann.heard()
    assert waited
    ann.read()
    await turn()
    assert heard + ann.heard() == sent


async def test_a_reader_with_little_room_gets_the_rest_bit_by_bit(io: Server) -> None:
    """When it reads again, no more is handed over than the socket takes: the rest can still be taken back."""
    ann = await _entered(io)
    ann.fill()
    for _ in range(2):
        socket_of(ann).emit("large", LARGE)
    for _ in range(10 * MAX_PENDING):
        socket_of(ann).emit("small")
    ann.read(room=1000)
    assert ann.connection.has_output
    assert len(ann.heard()) <= MAX_PENDING + 1


async def test_a_volatile_event_is_dropped_once_a_client_does_not_read(io: Server) -> None:
    ann = await _entered(io)
    ann.fill()
    await turn()
    socket_of(ann).volatile.emit("dropped")
    io.volatile.emit("dropped")
    socket_of(ann).emit("kept")
    assert not ann.transport.writable
    ann.read()
    assert ann.heard() == ['42["kept"]']
    socket_of(ann).volatile.emit("heard")
    await turn()
    assert ann.heard() == ['42["heard"]']


async def test_volatile_events_that_wait_are_bounded_before_it_is_known_whether_the_client_reads(io: Server) -> None:
    ann = await _entered(io)
    ann.fill()
    for _ in range(10):
        socket_of(ann).volatile.emit("large", LARGE[: VOLATILE_BUFFERED // 2])
    assert ann.connection.buffered <= 2 * VOLATILE_BUFFERED


async def test_a_burst_in_one_turn_may_be_larger_than_what_may_wait(io: Server) -> None:
    """A client that reads had no chance to until the turn is over."""
    ann = await _entered(io)
    ann.room = 65_536
    burst = BURST * MAX_BUFFERED // len(LARGE)
    for number in range(burst):
        socket_of(ann).emit("large", number, LARGE)
    assert ann.connection.buffered > (BURST - 1) * MAX_BUFFERED
    for _ in range(20):
        assert ann.connection.open
        ann.read(room=65_536)
        socket_of(ann).emit("more")
        await turn()
    ann.read()
    assert [packet for packet in ann.heard() if "large" in packet] == [
        f'42["large",{number},"{LARGE}"]' for number in range(burst)
    ]
    assert ann.connection.open


async def test_a_burst_in_one_turn_has_a_limit(io: Server) -> None:
    """What a handler emits at once takes no more memory than a few times what may wait, and ends the client then."""
    ann = await _entered(io)
    ann.room = 65_536
    for _ in range(1000):
        socket = ann.connection.sockets.get("/")
        if socket is None:
            break
        socket.emit("large", LARGE)
        held = ann.connection.buffered + sum(map(len, ann.transport._pending))
        assert held <= BURST * MAX_BUFFERED + 2 * len(LARGE)
    assert not ann.connection.open
    assert ann.cut


async def test_a_consumer_that_does_not_read_is_ended(io: Server) -> None:
    reasons: list[str] = []
    io.on("disconnect", lambda socket, reason: reasons.append(reason))
    ann = await _entered(io)
    ann.room = 65_536
    for _ in range(4):
        socket_of(ann).emit("large", LARGE)
    await turn()
    await turn()
    assert ann.connection.open
    assert ann.connection.buffered <= MAX_BUFFERED + 100
    written = len(ann.writes)
    while ann.connection.open:
        socket_of(ann).emit("large", LARGE)
        assert ann.connection.buffered <= MAX_BUFFERED + len(LARGE) + 100
        await turn()
    assert reasons == ["slow consumer"]
    assert ann.cut
    assert not ann.connection.has_output
    await turn()
    assert len(ann.writes) == written


# Revoked.


@pytest.mark.parametrize("full", [False, True])
async def test_a_revoked_client_is_told_why(io: Server, full: bool) -> None:
    """At the end of what was written already; what waited is dropped. If the socket is full, when it is read."""
    ann = await _entered(io, jti="t1")
    if full:
        ann.fill()
        socket_of(ann).emit("secret")
    await io.revoke(token_id="t1")
    if full:
        assert (ann.writes, ann.closed) == ([], [])
        ann.read()
    refusal, goodbye = ann.heard()
    assert refusal.startswith('42["unauthorized",')
    assert "revoked" in refusal
    assert goodbye == "41"
    assert len(ann.closed) == 1


async def test_a_revoked_client_that_does_not_read_is_cut_off(io: Server) -> None:
    ann = await _entered(io, jti="t1")
    ann.fill()
    socket_of(ann).emit("secret")
    await turn()
    await io.revoke(token_id="t1")
    assert ann.cut
    assert ann.writes == []


# Reading.


async def test_what_was_read_when_handlers_became_too_many_is_handled_in_order(
    io: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iogate.server.session.session.MAX_RUNNING", 1)
    opened = asyncio.Event()

    @io.on("wait")
    async def wait(socket: Socket, number: int) -> int:
        await opened.wait()
        return number

    ann = await _entered(io)
    ann.say('421["wait",1]', '422["echo",2]', '423["wait",3]', '424["echo",4]')
    assert not ann.reading
    await turn()
    assert ann.writes == []
    opened.set()
    async with asyncio.timeout(5):
        while not ann.reading:
            await turn()
    await turn()
    assert ann.heard() == ["431[1]", "432[2]", "433[3]", "434[4]"]


async def test_a_client_that_goes_as_handlers_become_too_many_leaves_no_error(
    io: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a connection that broke while it was answered comes before what waits for its handlers has begun."""
    monkeypatch.setattr("iogate.server.session.session.MAX_RUNNING", 1)
    opened = asyncio.Event()
    io.on("wait", lambda socket: opened.wait())
    ann = await _entered(io)
    ann.say('42["wait"]')
    [reading] = (task for task in io._core.sessions._tasks if "_read_on" in repr(task))
    ann.go()
    async with asyncio.timeout(5):
        await reading
    opened.set()


@pytest.fixture(autouse=True)
async def _leave(io: Server) -> AsyncIterator[None]:
    yield
    for connection in list(io._core.sessions.table.values()):
        connection.close(CloseReason.TRANSPORT_CLOSE)
    io._core.sessions.deadlines.stop()
