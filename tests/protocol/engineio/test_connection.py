"""A session takes what may come now, and ends with anything else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate.errors import ProtocolError
from iogate.protocol.engineio import packets
from iogate.protocol.engineio.connection import Connection, Event, Probe, Role, State, Upgrade, parse_open
from iogate.protocol.engineio.packets import Encoded, OpenPacket, PacketType

from ..peers import OPEN

SERVER, CLIENT = Role.SERVER, Role.CLIENT

FRAMES = {
    PacketType.OPEN: OPEN.encode().text,
    PacketType.CLOSE: b"1",
    PacketType.PING: b"2",
    PacketType.PONG: b"3",
    PacketType.MESSAGE: b"4hello",
    PacketType.UPGRADE: b"5",
    PacketType.NOOP: b"6",
}

# What the protocol lets each side say, told once more and apart from the table that is tested.
ALLOWED: dict[tuple[Role, State], dict[bytes, State]] = {
    (SERVER, State.OPEN): {b"1": State.CLOSED, b"3": State.OPEN, b"4": State.OPEN},
    (CLIENT, State.OPENING): {b"0": State.OPEN},
    (CLIENT, State.OPEN): {b"1": State.CLOSED, b"2": State.OPEN, b"4": State.OPEN, b"6": State.OPEN},
}


def connection(role: Role, state: State = State.OPEN) -> Connection:
    """Return a session in that state."""
    made = Connection(role)
    if role is CLIENT and state is not State.OPENING:
        made.receive(FRAMES[PacketType.OPEN])
    if state is State.CLOSED:
        made.close()
    assert made.state is state
    return made


STATES = [(SERVER, State.OPEN), (SERVER, State.CLOSED), *itertools.product([CLIENT], State)]


@pytest.mark.parametrize(("role", "state"), STATES)
@pytest.mark.parametrize("type_", list(PacketType))
def test_each_packet_in_each_state_has_its_effect_or_ends_the_session(
    role: Role, state: State, type_: PacketType
) -> None:
    session, frame = connection(role, state), FRAMES[type_]
    expected = ALLOWED.get((role, state), {}).get(frame[:1])
    if expected is None:
        with pytest.raises(ProtocolError, match=f"{type_.name} may not come in state {state.name}"):
            session.receive(frame)
        assert session.state is State.CLOSED
    else:
        assert session.receive(frame) == Event(type_, frame[1:])
        assert session.state is expected


def test_a_session_of_a_server_is_never_opening() -> None:
    assert Connection(SERVER).state is State.OPEN
    assert Connection(CLIENT).state is State.OPENING


@pytest.mark.parametrize(("role", "state"), STATES)
def test_a_binary_frame_is_a_message_and_comes_when_a_message_may(role: Role, state: State) -> None:
    session = connection(role, state)
    if state is State.OPEN:
        assert session.receive(b"2\x00\xff", binary=True) == Event(PacketType.MESSAGE, b"2\x00\xff", binary=True)
        assert session.state is State.OPEN
    else:
        with pytest.raises(ProtocolError, match="MESSAGE may not come"):
            session.receive(b"\x00", binary=True)
        assert session.state is State.CLOSED


@pytest.mark.parametrize(
    "body", [b"", b"hello", "€".encode(), b"4", b"\x1e", b"\xff", pytest.param(b"a" * 1_000_000, id="a megabyte")]
)
def test_the_body_of_a_message_is_handed_out_as_it_came(body: bytes) -> None:
    assert connection(SERVER).receive(b"4" + body) == Event(PacketType.MESSAGE, body)


@pytest.mark.parametrize("frame", [b"1", b"2", b"3", b"5", b"6"])
@pytest.mark.parametrize("body", [b" ", b"probe", b"\n", b"\x00"])
def test_a_packet_that_has_no_body_is_refused_with_one(frame: bytes, body: bytes) -> None:
    for role in Role:
        session = connection(role)
        with pytest.raises(ProtocolError, match="has a body"):
            session.receive(frame + body)
        assert session.state is State.CLOSED


@pytest.mark.parametrize(
    "frame", [b"", b"7", b"8", b"9", b"/", b":", b"a", b"abc", b"b", b"bAQID", b" 4", b"-1", b"\x00", b"\xff", b"\x04"]
)
def test_a_frame_without_a_type_is_refused(frame: bytes) -> None:
    for role in Role:
        session = connection(role)
        with pytest.raises(ProtocolError, match="without a packet type"):
            session.receive(frame)
        assert session.state is State.CLOSED


def test_a_megabyte_of_digits_is_refused() -> None:
    with pytest.raises(ProtocolError):
        connection(SERVER).receive(b"3" * 1_000_000)


def test_after_an_error_nothing_is_taken_any_more() -> None:
    session = connection(SERVER)
    with pytest.raises(ProtocolError):
        session.receive(b"2")
    for frame in FRAMES.values():
        with pytest.raises(ProtocolError, match="in state CLOSED"):
            session.receive(frame)


def test_closing_twice_is_closing() -> None:
    session = connection(SERVER)
    session.close()
    session.close()
    assert session.state is State.CLOSED


@given(
    role=st.sampled_from(Role),
    sent=st.lists(st.tuples(st.binary(max_size=20) | st.sampled_from(list(FRAMES.values())), st.booleans())),
)
def test_any_frames_are_taken_or_refused_and_raise_nothing_else(role: Role, sent: list[tuple[bytes, bool]]) -> None:
    session = Connection(role)
    for frame, binary in sent:
        try:
            event = session.receive(frame, binary=binary)
        except ProtocolError:
            assert session.state is State.CLOSED
        else:
            assert event.binary is binary
            assert event.data == (frame if binary else frame[1:])


# By conversation.


def say(packet: Encoded, to: Connection) -> Event:
    return to.receive(packet.text)


def test_a_session_opens_beats_carries_messages_and_is_closed_by_the_server() -> None:
    server, client = Connection(SERVER), Connection(CLIENT)
    assert parse_open(say(OPEN.encode(), client)) == OPEN
    for _ in range(3):
        assert say(packets.PING, client).type is PacketType.PING
        assert say(packets.PONG, server).type is PacketType.PONG
    assert say(Encoded(b"4hello"), server).data == b"hello"
    assert say(Encoded(b"4world"), client).data == b"world"
    assert say(packets.NOOP, client).type is PacketType.NOOP
    server.close()
    assert say(packets.CLOSE, client).type is PacketType.CLOSE
    assert server.state is client.state is State.CLOSED


def test_a_session_is_closed_by_the_client() -> None:
    server, client = Connection(SERVER), Connection(CLIENT)
    say(OPEN.encode(), client)
    client.close()
    assert say(packets.CLOSE, server).type is PacketType.CLOSE
    assert server.state is client.state is State.CLOSED


def test_a_client_opens_once() -> None:
    client = connection(CLIENT)
    with pytest.raises(ProtocolError, match="OPEN may not come in state OPEN"):
        say(OPEN.encode(), client)


# OPEN.


def test_the_handshake_object_is_read_back_with_members_to_come() -> None:
    event = Event(PacketType.OPEN, OPEN.encode().text[1:-1] + b',"new":[{}]}')
    assert parse_open(event) == OpenPacket(
        sid="lv_VI97HAXpY6yYWAAAC",
        upgrades=["websocket"],
        ping_interval=25_000,
        ping_timeout=20_000,
        max_payload=1_000_000,
    )


@pytest.mark.parametrize("type_", [type_ for type_ in PacketType if type_ is not PacketType.OPEN])
def test_a_packet_that_is_not_open_has_no_handshake_object(type_: PacketType) -> None:
    with pytest.raises(ProtocolError, match=f"OPEN was expected, {type_.name} came"):
        parse_open(Event(type_, OPEN.encode().text[1:]))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="no members"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"sid":"x"', id="cut off"),
        pytest.param(b'{"sid":1,"upgrades":[],"pingInterval":1,"pingTimeout":1,"maxPayload":1}', id="a number as sid"),
        pytest.param(b'{"sid":"x","upgrades":[1],"pingInterval":1,"pingTimeout":1,"maxPayload":1}', id="a number"),
        pytest.param(b'{"sid":"x","upgrades":[],"pingInterval":"1","pingTimeout":1,"maxPayload":1}', id="a string"),
        pytest.param(b'{"sid":"x","upgrades":[],"pingInterval":1,"pingTimeout":1}', id="a member is missing"),
        pytest.param(b'{"sid":"\xff"}', id="not UTF-8"),
        pytest.param(b'{"new":' + b"[" * 1_000_000, id="a megabyte of brackets"),
        pytest.param(b'{"sid":"x","upgrades":[],"pingInterval":' + b"9" * 1_000_000, id="a megabyte of digits"),
    ],
)
def test_a_body_that_is_no_handshake_object_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="OPEN without a handshake object"):
        parse_open(Event(PacketType.OPEN, body))


# The upgrade.

PROBE_ALLOWED: dict[tuple[Role, Probe], dict[bytes, Probe]] = {
    (SERVER, Probe.WAITING): {b"2probe": Probe.PROBED},
    (SERVER, Probe.PROBED): {b"5": Probe.DONE},
    (CLIENT, Probe.WAITING): {b"3probe": Probe.DONE},
}
PROBE_FRAMES = [*FRAMES.values(), b"2probe", b"3probe", b"2PROBE", b"2probe ", b"2probes", b"5probe", b"", b"\xff"]


def upgrade(role: Role, state: Probe) -> Upgrade:
    """Return the move to another transport, in that state."""
    made = Upgrade(role)
    for frame in {Probe.WAITING: [], Probe.PROBED: [b"2probe"], Probe.DONE: [b"2probe", b"5"]}[state]:
        made.receive(frame if role is SERVER else b"3probe")
    assert made.state is state
    return made


@pytest.mark.parametrize("frame", PROBE_FRAMES, ids=lambda frame: repr(frame[:8]))
@pytest.mark.parametrize(
    ("role", "state"),
    [(SERVER, Probe.WAITING), (SERVER, Probe.PROBED), (SERVER, Probe.DONE), (CLIENT, Probe.WAITING)],
)
def test_each_frame_moves_the_upgrade_on_or_is_refused(role: Role, state: Probe, frame: bytes) -> None:
    move = upgrade(role, state)
    expected = PROBE_ALLOWED.get((role, state), {}).get(frame)
    if expected is None:
        with pytest.raises(ProtocolError, match=f"state {state.name}"):
            move.receive(frame)
        assert move.state is state
    else:
        assert move.receive(frame) is expected
        assert move.state is expected


@pytest.mark.parametrize("frame", PROBE_FRAMES, ids=lambda frame: repr(frame[:8]))
def test_a_client_that_has_its_answer_waits_for_nothing_more(frame: bytes) -> None:
    move = Upgrade(CLIENT)
    assert move.receive(b"3probe") is Probe.DONE
    with pytest.raises(ProtocolError, match="state DONE"):
        move.receive(frame)


@pytest.mark.parametrize("frame", [b"2probe", b"3probe", b"5"])
def test_a_binary_frame_is_no_part_of_an_upgrade(frame: bytes) -> None:
    for role, state in ((SERVER, Probe.WAITING), (SERVER, Probe.PROBED), (CLIENT, Probe.WAITING)):
        move = upgrade(role, state)
        with pytest.raises(ProtocolError):
            move.receive(frame, binary=True)
        assert move.state is state


def test_a_session_moves_to_websocket_and_goes_on_there() -> None:
    server, client = Connection(SERVER), connection(CLIENT)
    at_server, at_client = Upgrade(SERVER), Upgrade(CLIENT)
    assert at_server.receive(packets.PROBE.text) is Probe.PROBED
    assert say(Encoded(b"4meanwhile"), client).data == b"meanwhile"
    assert say(packets.NOOP, client).type is PacketType.NOOP
    assert at_client.receive(packets.PROBE_ANSWER.text) is Probe.DONE
    assert at_server.receive(packets.UPGRADE.text) is Probe.DONE
    assert say(Encoded(b"4here"), server).data == b"here"
    assert say(Encoded(b"4there"), client).data == b"there"


def test_a_failed_upgrade_leaves_the_session_where_it_was() -> None:
    server, move = Connection(SERVER), Upgrade(SERVER)
    with pytest.raises(ProtocolError):
        move.receive(packets.UPGRADE.text)
    assert say(Encoded(b"4hello"), server).data == b"hello"


@given(role=st.sampled_from(Role), sent=st.lists(st.tuples(st.binary() | st.sampled_from(PROBE_FRAMES), st.booleans())))
def test_any_frames_of_an_upgrade_are_taken_or_refused(role: Role, sent: list[tuple[bytes, bool]]) -> None:
    move = Upgrade(role)
    for frame, binary in sent:
        before = move.state
        try:
            assert move.receive(frame, binary=binary) is not before
        except ProtocolError:
            assert move.state is before
