"""What a client sends reaches python-socketio as the gate has read it, and what is not a packet ends the session."""

from __future__ import annotations

import json
from typing import Any

import pytest
import socketio
from engineio.packet import Packet as EnginePacket
from hypothesis import given, settings
from hypothesis import strategies as st

from iogate.errors import ProtocolError
from iogate.integrations.incoming import has_large_integer
from iogate.protocol.socketio.json import Decoder
from iogate.protocol.socketio.packets import Packet, PacketType
from tests.conformance.wire import Session, ends, enter, polling, session, within
from tests.gate.support import connect
from tests.integrations.both import Behind
from tests.server.left import until

# What python-socketio would have understood.

_NUMBERS = st.one_of(
    st.integers(),
    st.integers(10**95, 10**105),
    st.integers(-(10**105), -(10**95)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
)
_SCALARS = st.one_of(st.none(), st.booleans(), _NUMBERS, st.text(max_size=8))
_PLACEHOLDERS = st.builds(
    lambda placeholder, number: {"_placeholder": placeholder, "num": number},
    st.sampled_from([True, False, 1, "yes", None]),
    st.sampled_from([0, 1, 2, -1, 0.0, True, "0", None]),
)
_VALUES = st.recursive(
    st.one_of(_SCALARS, _PLACEHOLDERS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=8,
)
_JSON = st.one_of(
    st.lists(_VALUES, max_size=3).map(json.dumps),
    st.builds(lambda name, rest: json.dumps([name, *rest]), st.text(max_size=5), st.lists(_VALUES, max_size=3)),
    st.sampled_from(
        ["", "[]", '["x",1e400]', '["x",-0]', '["x",1E+2]', '["\\ud800"]', '["x",NaN]', '["x","a","x"]', '[1,"x"]', "5"]
    ),
    st.sampled_from(['["x",{"a":1,"a":2}]', ' ["x"]', '["x"] ', "\ufeff[]", '["x",01]', '["x",1.]', '["x",Infinity]']),
)
_FRAMES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from("0123456"),
        st.sampled_from(["", "", "0-", "1-", "2-", "00-", "01-", "-", "1", "11-", "\u0661-"]),
        st.sampled_from(["", "", "/", "/a,", "/a?b,", "/a-1,", "/a", "/\u00e9,", "a,"]),
        st.sampled_from(["", "", "0", "1", "00", "17", "9" * 16, "9" * 17, "\u0661"]),
        _JSON,
    ),
)
_ATTACHMENTS = st.lists(st.binary(max_size=3), max_size=3)


def read_by_the_gate(text: str, attachments: list[bytes]) -> Packet | None:
    """Return the packet of a client that is let in which goes on to python-socketio; None if there is none."""
    decoder = Decoder()
    try:
        packet: Packet | None = decoder.text(text.encode())
        for attachment in attachments if decoder.waiting else ():
            packet = decoder.binary(attachment)
    except (ProtocolError, UnicodeEncodeError):
        return None
    if packet is None or decoder.waiting or has_large_integer(text, packet.data):
        return None
    return packet if packet.type in {PacketType.EVENT, PacketType.ACK} else None


def read_by_python_socketio(text: str, attachments: list[bytes]) -> Any:
    """Return what python-socketio would have read: a packet that is complete; or None."""
    engine = EnginePacket(encoded_packet="4" + text)
    packet = socketio.packet.Packet(encoded_packet=engine.data)
    if packet.packet_type < socketio.packet.BINARY_EVENT:
        return packet
    return packet if [packet.add_attachment(one) for one in attachments][-1:] == [True] else None


@settings(max_examples=3000, deadline=None)
@given(_FRAMES, _ATTACHMENTS)
def test_what_goes_on_is_what_python_socketio_would_have_read(text: str, attachments: list[bytes]) -> None:
    """It is equal, or else python-socketio could not have read it, or not without stumbling over a placeholder."""
    ours = read_by_the_gate(text, attachments)
    if ours is None:
        return
    try:
        theirs = read_by_python_socketio(text, attachments)
    except (ValueError, TypeError, IndexError):  # It stumbles: over no attachments at all, or a place for none.
        assert text[0] in "56" or ours.data[0].lstrip("-").isdigit()  # The name of an event is a text for everybody.
        return
    if theirs is None or "_placeholder" in text:
        return
    assert theirs.packet_type % 3 == ours.type % 3
    assert (theirs.namespace or "/").partition("?")[0] == ours.namespace.partition("?")[0]
    assert theirs.id == ours.id
    expected = theirs.data
    if ours.type is PacketType.EVENT and type(expected[0]) is int:
        expected = [str(expected[0]), *expected[1:]]
    assert ours.data == expected
    assert repr(ours.data) == repr(expected)  # 1, 1.0 and True are equal.


@pytest.mark.parametrize(
    ("number", "large"),
    [("9" * 99, False), ("1" + "0" * 99, True), ("-1" + "0" * 99, True), ("9" * 4300, True), ("0." + "1" * 200, False)],
)
@pytest.mark.parametrize("before", range(17))
def test_an_integer_is_found_wherever_it_stands(number: str, large: bool, before: int) -> None:
    """No integer of a hundred digits or more goes on; texts and fractions of that length do."""
    text = '2["x",' + " " * before + number + ',{"a":[' + number + "]}]"
    packet = read_by_the_gate(text, [])
    assert (packet is None) == large
    assert read_by_the_gate('2["x","' + number + '"]', []) is not None


# On the wire.

GOES_ON: list[tuple[str, list[Any]]] = [
    ('50-["keep","x"]', ["x"]),
    ('50-["keep",{"_placeholder":true,"num":0}]', [{"_placeholder": True, "num": 0}]),
    ('2["keep","' + "9" * 300 + '"]', ["9" * 300]),
    ('2["keep",' + "9" * 99 + "]", [int("9" * 99)]),
    ('2["keep",0.' + "3" * 300 + "]", [float("0." + "3" * 300)]),
    ('2["keep",{"_placeholder":1,"num":0}]', [{"_placeholder": 1, "num": 0}]),
    ('2["keep",-0,1e2,1.0]', [0, 100.0, 1.0]),
    ('2["keep",{"a":1,"a":2}]', [{"a": 2}]),
]


@pytest.mark.parametrize(("frame", "args"), GOES_ON, ids=[frame[:40] for frame, _ in GOES_ON])
async def test_what_the_gate_has_read_is_what_the_handler_gets(
    kind: str, way: str, frame: str, args: list[Any]
) -> None:
    """A packet that python-socketio would wait for, raise for or misread is handled as the gate has read it."""
    behind, kept = Behind(kind), []
    behind.on("keep", lambda *given: kept.append(list(given)))
    behind.on("echo", _echo(behind))
    async with behind.serve() as url, session(url, way) as client:
        await enter(client)
        await client.send("4" + frame)
        await until(lambda: kept)
        assert kept == [args]
        await answers(client)


NOT_PACKETS: list[tuple[str | bytes, ...]] = [
    ("0",),
    ('0{"sid":"x"}',),
    ("2",),
    ("2probe",),
    ("5",),
    ("6",),
    ("7",),
    ("8x",),
    ("9",),
    ("x",),
    ("\u0661",),
    ("3x",),
    ("4",),
    ("4" + "[" * 30_000,),
    ('4{"a":1}',),
    ('4"2[\\"echo\\"]"',),
    ("4\u00b2[]",),
    ("4null",),
    ("47",),
    ("44{}",),
    ("42",),
    ("42[]",),
    ('42[""',),
    ("42[[]]",),
    ("42[null]",),
    ('42["connect"]',),
    ('42["*","x"]',),
    ('42["x",' + "9" * 100 + "]",),
    ('42["x",' + "9" * 4300 + "]",),
    ('42["x",' + "9" * 5000 + "]",),
    ('42["x",1e400]',),
    ('42["x",NaN]',),
    ('42["x","\\ud800"]',),
    ('42["x",' + "[" * 200 + "]" * 200 + "]",),
    ('42["x",' + '{"a":' * 5000 + "1" + "}" * 5000 + "]",),
    ('42\u0661["x"]',),
    ("42" + "9" * 17 + '["x"]',),
    ("43[]",),
    ("430{}",),
    ('451-["seen"]', b"1", b"2"),
    ('451-["x",{"_placeholder":true,"num":1}]', b"1"),
    ('451-["x",{"_placeholder":true,"num":-1}]', b"1"),
    ('452-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]', b"1", b"2"),
    ('451-["x"]', '42["x"]'),
    ('4511-["x"]',),
    ('45-1-["x"]',),
    ('45["x"]',),
    (b"1",),
    (b"",),
]


@pytest.mark.parametrize("packets", NOT_PACKETS, ids=[ascii(packets[0])[1:25] for packets in NOT_PACKETS])
async def test_what_is_not_a_packet_ends_the_session(
    kind: str, way: str, packets: tuple[str | bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """It is not left as it is, and nothing is logged as an error, or with a traceback."""
    behind, ran = Behind(kind), []
    behind.on("x", lambda *args: ran.append(args))
    behind.on("*", lambda *args: ran.append(args))
    behind.on("seen", lambda *args: None)
    async with behind.serve() as url, session(url, way) as client:
        await enter(client)
        await client.send(*packets)
        await ends(client)
        await until(lambda: not behind.sio.eio.sockets and not behind.glue._sessions)
    assert ran == []
    assert complaints(caplog) == []


BODIES = [
    b"\xff",
    b"4\xff",
    b"d=",
    b"d=4",
    b"\x1e",
    b"3\x1e",
    b"\x1e".join([b"3"] * 17),
    b"b!!!!",
    b"bA",
    b"b\xff",
    b"4" + b"[" * 900_000,
]


@pytest.mark.parametrize("body", BODIES, ids=[ascii(body[:10]) for body in BODIES])
async def test_a_body_that_is_not_a_payload_ends_the_session(
    kind: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """python-engineio answers 200 to it, writes a traceback, and goes on."""
    behind = Behind(kind)
    async with behind.serve() as url, polling(url) as client:
        await enter(client)
        assert (await client.post(body)).status_code == 400
        await until(lambda: not behind.sio.eio.sockets and not behind.glue._sessions)
    assert complaints(caplog) == []


async def test_an_empty_body_is_an_empty_payload(kind: str) -> None:
    behind = Behind(kind)
    behind.on("echo", _echo(behind))
    async with behind.serve() as url, polling(url) as client:
        await enter(client)
        assert (await client.post(b"")).status_code == 200
        await answers(client)


async def test_attachments_that_come_late_are_attached(kind: str, way: str) -> None:
    """Whatever comes between: python-socketio keeps nothing of a packet that is not complete."""
    behind, kept = Behind(kind), []
    behind.on("keep", lambda *args: kept.append(args))
    async with behind.serve() as url, session(url, way) as client:
        await enter(client)
        await client.send('452-["keep",{"_placeholder":true,"num":1},[{"_placeholder":true,"num":0}]]')
        await client.send(b"one")
        assert behind.sio._binary_packet == {}
        await client.send(b"two")
        await until(lambda: kept)
    assert kept == [(b"two", [b"one"])]


async def test_a_client_that_is_not_let_in_sends_nothing_on(
    kind: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither an event, nor an acknowledgement, nor the head of a binary packet."""
    for frame in ('42["x"]', '42/a,["x"]', "431[]", '451-["x",{"_placeholder":true,"num":0}]'):
        behind = Behind(kind)
        ran: list[Any] = []
        behind.on("x", lambda *args, ran=ran: ran.append(args))
        async with behind.serve() as url, session(url, way) as client:
            await client.send(frame)
            await ends(client)
        assert ran == []
    assert complaints(caplog) == []


async def test_a_connect_is_read_once(kind: str, way: str) -> None:
    """The payload of CONNECT too is what the gate has read."""
    behind = Behind(kind)
    behind.on("echo", _echo(behind), "/a")
    async with behind.serve() as url, session(url, way) as client:
        await client.send(connect(namespace="/a"))
        assert str(await within(client.receive())).startswith("40/a,{")
        await client.send('42/a,7["echo"]')
        assert await within(client.receive()) == "43/a,7[]"


def _echo(behind: Behind) -> Any:
    return lambda *args: list(args) or None


async def answers(client: Session) -> None:
    """Make sure that a session is served, by its handler `echo`."""
    await client.send('427["echo","still here"]')
    assert await within(client.receive()) == '437[["still here"]]'


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as an error, or with a traceback; but not what is logged once, or of Werkzeug's own."""
    return [
        record.getMessage()
        for record in caplog.records
        if (record.levelname == "ERROR" or record.exc_info)
        and record.name != "werkzeug"
        and "further occurrences" not in record.getMessage()
    ]
