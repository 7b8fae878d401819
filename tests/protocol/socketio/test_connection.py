"""A connection takes, for each namespace, what may come now; what may not come is an error."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate.errors import ProtocolError
from iogate.protocol.engineio.connection import Role
from iogate.protocol.engineio.packets import Encoded
from iogate.protocol.socketio.connection import MAX_NAMESPACES, Connection, State
from iogate.protocol.socketio.json import encode
from iogate.protocol.socketio.packets import Packet, PacketType

from ..peers import Peer, pair

SERVER, CLIENT = Role.SERVER, Role.CLIENT
CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR = list(PacketType)[:5]
SID = "wZX3oN0bSVIhsaknAAAI"
ONE = b'{"_placeholder":true,"num":0}'

TEXTS = {
    CONNECT: b"0/a,",
    DISCONNECT: b"1/a,",
    EVENT: b'2/a,["foo"]',
    ACK: b"3/a,7[]",
    CONNECT_ERROR: b'4/a,{"message":"no"}',
}

# What each side may say in a namespace, told once more and apart from the table that is tested.
ALLOWED: dict[tuple[Role, State], dict[PacketType, State]] = {
    (SERVER, State.NONE): {CONNECT: State.PENDING},
    (SERVER, State.PENDING): {CONNECT: State.PENDING, DISCONNECT: State.NONE},
    (SERVER, State.CONNECTED): {
        CONNECT: State.PENDING,
        EVENT: State.CONNECTED,
        ACK: State.CONNECTED,
        DISCONNECT: State.NONE,
    },
    (SERVER, State.LEFT): {CONNECT: State.PENDING, EVENT: State.LEFT, ACK: State.LEFT, DISCONNECT: State.NONE},
    (CLIENT, State.NONE): {},
    (CLIENT, State.PENDING): {CONNECT: State.CONNECTED, CONNECT_ERROR: State.NONE},
    (CLIENT, State.CONNECTED): {EVENT: State.CONNECTED, ACK: State.CONNECTED, DISCONNECT: State.NONE},
    (CLIENT, State.LEFT): {
        CONNECT: State.LEFT,
        CONNECT_ERROR: State.NONE,
        EVENT: State.LEFT,
        ACK: State.LEFT,
        DISCONNECT: State.NONE,
    },
}


def connection(role: Role, state: State, namespace: str = "/a") -> Connection:
    """Return a connection that is in that state to that namespace."""
    made = Connection(role)
    if state is not State.NONE:
        if role is SERVER:
            made.receive(f"0{namespace},".encode())
        else:
            made.connect(namespace)
    if state in (State.CONNECTED, State.LEFT):
        if role is SERVER:
            made.accept(namespace, SID)
        else:
            made.receive(f'0{namespace},{{"sid":"{SID}"}}'.encode())
    if state is State.LEFT:
        made.disconnect(namespace)
    assert made.state(namespace) is state
    return made


@pytest.mark.parametrize(("role", "state"), list(itertools.product(Role, State)))
@pytest.mark.parametrize("type_", list(TEXTS))
def test_each_packet_in_each_state_has_its_effect_or_is_an_error(role: Role, state: State, type_: PacketType) -> None:
    side = connection(role, state)
    expected = ALLOWED[role, state].get(type_)
    if expected is None:
        with pytest.raises(ProtocolError, match=f"{type_.name} may not come in state {state.name}"):
            side.receive(TEXTS[type_])
        assert side.state("/a") is state
        return
    packet = side.receive(TEXTS[type_])
    assert side.state("/a") is expected
    if state is State.LEFT and expected is not State.PENDING:
        assert packet is None
    else:
        assert packet is not None
        assert (packet.type, packet.namespace) == (type_, "/a")


@pytest.mark.parametrize(("role", "state"), list(itertools.product(Role, State)))
def test_a_namespace_is_nothing_to_another(role: Role, state: State) -> None:
    side = connection(role, state)
    for other in ("/", "/A", "/a/", "/ab"):
        assert side.state(other) is State.NONE
        with pytest.raises(ProtocolError, match="EVENT may not come in state NONE"):
            side.receive(f'2{other},["foo"]'.encode())
    assert side.state("/a") is state


def test_a_connection_knows_which_side_it_is() -> None:
    assert Connection(SERVER).role is SERVER
    assert Connection(CLIENT).role is CLIENT


@pytest.mark.parametrize(
    ("say", "text"),
    [
        (lambda side: side.connect("/"), b"40"),
        (lambda side: side.connect("/", {"token": "123"}), b'40{"token":"123"}'),
        (lambda side: side.connect("/admin"), b"40/admin,"),
        (lambda side: side.accept("/", "wZX3"), b'40{"sid":"wZX3"}'),
        (lambda side: side.accept("/admin", "wZX3"), b'40/admin,{"sid":"wZX3"}'),
        (lambda side: side.refuse("/", {"message": "Not authorized"}), b'44{"message":"Not authorized"}'),
        (lambda side: side.refuse("/nope", {"message": "no"}), b'44/nope,{"message":"no"}'),
        (lambda side: side.disconnect("/"), b"41"),
        (lambda side: side.disconnect("/admin"), b"41/admin,"),
    ],
)
def test_what_a_side_says_is_these_bytes(say: Callable[[Connection], Encoded], text: bytes) -> None:
    packet = say(Connection(SERVER))
    assert packet.text == text
    assert list(packet.attachments) == []


def test_a_packet_is_read_from_where_it_begins_in_the_frame() -> None:
    assert Connection(SERVER).receive(b'40{"token":"123"}', start=1) == Packet(CONNECT, data={"token": "123"})


# By conversation, on both transports.

Way = Callable[..., list[Packet]]


@pytest.fixture(params=["websocket", "polling"])
def talk(request: pytest.FixtureRequest) -> tuple[Peer, Peer, Way, Way]:
    """Return a client, a server, and how to hand a packet to each."""
    client, server = pair()
    return client, server, getattr(client, request.param), getattr(server, request.param)


Talk = tuple[Peer, Peer, Way, Way]


def join(talk: Talk, namespace: str = "/") -> None:
    """Bring the client into a namespace."""
    client, server, to_client, to_server = talk
    assert to_server(client.namespaces.connect(namespace)) == [Packet(CONNECT, namespace)]
    assert to_client(server.namespaces.accept(namespace, SID)) == [Packet(CONNECT, namespace, {"sid": SID})]
    assert server.namespaces.state(namespace) is client.namespaces.state(namespace) is State.CONNECTED


def test_the_server_is_handed_the_credential_and_the_client_the_id_of_its_socket(talk: Talk) -> None:
    client, server, to_client, to_server = talk
    asked = to_server(client.namespaces.connect("/admin", {"token": "123"}))
    assert asked == [Packet(CONNECT, "/admin", {"token": "123"})]
    assert server.namespaces.state("/admin") is client.namespaces.state("/admin") is State.PENDING
    assert to_client(server.namespaces.accept("/admin", SID)) == [Packet(CONNECT, "/admin", {"sid": SID})]
    assert server.namespaces.state("/admin") is client.namespaces.state("/admin") is State.CONNECTED


def test_a_client_that_is_refused_may_ask_again(talk: Talk) -> None:
    client, server, to_client, to_server = talk
    for _ in range(3):
        to_server(client.namespaces.connect("/", {"token": "bad"}))
        payload = {"message": "invalid token", "data": {"code": "invalid_token"}}
        assert to_client(server.namespaces.refuse("/", payload)) == [Packet(CONNECT_ERROR, "/", payload)]
        assert server.namespaces.state("/") is client.namespaces.state("/") is State.NONE
    join(talk)


@pytest.mark.parametrize(
    "text", [b'2["foo"]', b"37[]", b'21["foo"]', b'51-["foo",%b]' % ONE, b"1", b'4{"message":"a"}']
)
def test_before_connect_nothing_else_may_come(text: bytes) -> None:
    server = Connection(SERVER)
    with pytest.raises(ProtocolError, match="may not come in state NONE"):
        server.receive(text)
    assert server.state("/") is State.NONE


@pytest.mark.parametrize("text", [b'2["foo"]', b"37[]", b'21["foo"]', b'51-["foo",%b]' % ONE])
def test_before_the_verdict_nothing_comes_in(text: bytes) -> None:
    server = Connection(SERVER)
    server.receive(b"0")
    with pytest.raises(ProtocolError, match="may not come in state PENDING"):
        server.receive(text)
    assert server.state("/") is State.PENDING


@pytest.mark.parametrize("namespace", ["/", "/admin", "/grüße"])
def test_events_and_acknowledgements_go_both_ways(talk: Talk, namespace: str) -> None:
    _, _, to_client, to_server = talk
    join(talk, namespace)
    for take in (to_server, to_client):
        for packet in (
            Packet(EVENT, namespace, ["hey", "Jude", {"a": [1, None]}]),
            Packet(EVENT, namespace, ["hey"], 12),
            Packet(ACK, namespace, [], 12),
            Packet(ACK, namespace, ["bar", 1], 13),
        ):
            assert take(encode(packet)) == [packet]


@pytest.mark.parametrize("namespace", ["/", "/admin"])
def test_binary_events_and_acknowledgements_go_both_ways(talk: Talk, namespace: str) -> None:
    client, server, to_client, to_server = talk
    join(talk, namespace)
    for take in (to_server, to_client):
        for packet in (
            Packet(EVENT, namespace, ["baz", b"\1\2", {"deep": [b"", b"\x1e"]}]),
            Packet(EVENT, namespace, ["baz", b"4"], 14),
            Packet(ACK, namespace, [b"\xff" * 1_000], 14),
        ):
            assert take(encode(packet)) == [packet]
    assert not server.namespaces.waiting
    assert not client.namespaces.waiting


def test_packets_that_are_sent_at_once_come_in_their_order(talk: Talk) -> None:
    client, _, _, to_server = talk
    join(talk)
    packets = [Packet(EVENT, data=["n", number, b"%d" % number][: 2 + number % 2]) for number in range(20)]
    assert to_server(*map(encode, packets)) == packets
    assert client.namespaces.state("/") is State.CONNECTED


def test_namespaces_share_a_connection_and_are_apart(talk: Talk) -> None:
    client, server, to_client, to_server = talk
    for namespace in ("/", "/a", "/b"):
        join(talk, namespace)
    assert to_server(client.namespaces.disconnect("/a")) == [Packet(DISCONNECT, "/a")]
    assert to_server(encode(Packet(EVENT, "/b", ["still"]))) == [Packet(EVENT, "/b", ["still"])]
    assert to_client(encode(Packet(EVENT, "/", ["here"]))) == [Packet(EVENT, "/", ["here"])]
    with pytest.raises(ProtocolError, match="EVENT may not come in state NONE"):
        to_server(encode(Packet(EVENT, "/a", ["gone"])))
    assert server.namespaces.state("/b") is State.CONNECTED


def test_a_client_leaves_and_what_was_on_its_way_to_it_is_dropped(talk: Talk) -> None:
    client, server, to_client, to_server = talk
    join(talk)
    on_the_way = [
        encode(Packet(EVENT, data=["late"])),
        encode(Packet(EVENT, data=["late", b"binary"])),
        encode(Packet(ACK, data=[], id=1)),
    ]
    left = client.namespaces.disconnect("/")
    assert left.text == b"41"
    assert to_client(*on_the_way) == []
    assert to_server(left) == [Packet(DISCONNECT)]
    assert server.namespaces.state("/") is State.NONE
    assert client.namespaces.state("/") is State.LEFT
    join(talk)


def test_a_client_is_sent_out_and_what_was_on_its_way_from_it_is_dropped(talk: Talk) -> None:
    client, server, to_client, to_server = talk
    join(talk)
    on_the_way = [
        encode(Packet(EVENT, data=["late"], id=1)),
        encode(Packet(EVENT, data=["late", b"binary"])),
        encode(Packet(ACK, data=[b"late"], id=1)),
    ]
    out = server.namespaces.disconnect("/")
    assert to_server(*on_the_way) == []
    assert to_client(out) == [Packet(DISCONNECT)]
    assert client.namespaces.state("/") is State.NONE
    assert server.namespaces.state("/") is State.LEFT
    join(talk)


def test_both_sides_leave_at_once_and_can_meet_again(talk: Talk) -> None:
    client, server, to_client, to_server = talk
    join(talk)
    from_client, from_server = client.namespaces.disconnect("/"), server.namespaces.disconnect("/")
    assert to_server(from_client) == []
    assert to_client(from_server) == []
    assert server.namespaces.state("/") is client.namespaces.state("/") is State.NONE
    join(talk)


def test_a_client_that_left_and_comes_back_before_it_knew_that_it_was_sent_out_is_in(talk: Talk) -> None:
    client, server, to_client, to_server = talk
    join(talk)
    from_server = server.namespaces.disconnect("/")
    from_client = client.namespaces.disconnect("/")
    assert to_client(from_server) == []
    assert to_server(from_client, client.namespaces.connect("/")) == [Packet(CONNECT)]
    assert to_client(server.namespaces.accept("/", SID)) == [Packet(CONNECT, data={"sid": SID})]


def test_a_client_that_leaves_before_the_verdict_is_in_nothing(talk: Talk) -> None:
    client, server, _, to_server = talk
    assert to_server(client.namespaces.connect("/"), client.namespaces.disconnect("/")) == [
        Packet(CONNECT),
        Packet(DISCONNECT),
    ]
    assert server.namespaces.state("/") is State.NONE


def test_a_client_that_leaves_while_the_yes_is_on_its_way_drops_it(talk: Talk) -> None:
    client, server, to_client, to_server = talk
    to_server(client.namespaces.connect("/"))
    accepted, left = server.namespaces.accept("/", SID), client.namespaces.disconnect("/")
    assert to_client(accepted, encode(Packet(EVENT, data=["welcome"]))) == []
    assert to_server(left) == [Packet(DISCONNECT)]
    assert server.namespaces.state("/") is State.NONE


def test_a_client_that_leaves_while_the_no_is_on_its_way_drops_it(talk: Talk) -> None:
    client, server, to_client, to_server = talk
    to_server(client.namespaces.connect("/"))
    refused = server.namespaces.refuse("/", {"message": "no"})
    client.namespaces.disconnect("/")
    assert to_client(refused) == []
    assert client.namespaces.state("/") is State.NONE


# Attachments and states.


def test_who_is_in_no_namespace_cannot_make_the_server_wait_for_attachments() -> None:
    for state in (State.NONE, State.PENDING):
        with pytest.raises(ProtocolError, match="EVENT may not come"):
            connection(SERVER, state).receive(b'51-/a,["foo",%b]' % ONE)


def test_a_packet_is_handed_out_when_its_last_attachment_has_come() -> None:
    server = connection(SERVER, State.CONNECTED)
    assert server.receive(b'51-/a,["foo",%b]' % ONE) is None
    assert server.waiting
    assert server.receive(b"x", binary=True) == Packet(EVENT, "/a", ["foo", b"x"])
    assert not server.waiting


def test_a_packet_whose_attachments_come_after_the_server_has_left_is_dropped() -> None:
    server = connection(SERVER, State.CONNECTED)
    server.receive(b'52-/a,["foo",%b,{"_placeholder":true,"num":1}]' % ONE)
    assert server.receive(b"x", binary=True) is None
    server.disconnect("/a")
    assert server.receive(b"y", binary=True) is None
    assert not server.waiting
    assert server.state("/a") is State.LEFT


def test_an_attachment_that_was_not_announced_is_an_error_in_every_state() -> None:
    for role, state in itertools.product(Role, State):
        with pytest.raises(ProtocolError, match="no packet announced"):
            connection(role, state).receive(b"x", binary=True)


def test_the_limit_of_attachments_can_be_set() -> None:
    server = Connection(SERVER, max_attachments=1)
    server.receive(b"0")
    server.accept("/", SID)
    assert server.receive(b'51-["foo",%b]' % ONE) is None
    assert server.receive(b"x", binary=True) == Packet(EVENT, data=["foo", b"x"])
    with pytest.raises(ProtocolError, match="more than 1 attachments"):
        server.receive(b'52-["foo"]')


# The limit of namespaces.


def test_a_connection_is_in_as_many_namespaces_as_the_limit_says_and_not_in_one_more() -> None:
    server = Connection(SERVER)
    for number in range(MAX_NAMESPACES):
        assert server.receive(b"0/%d," % number) is not None
        if number % 2:
            server.accept(f"/{number}", SID)
    with pytest.raises(ProtocolError, match=f"more than {MAX_NAMESPACES} namespaces"):
        server.receive(b"0/one-more,")
    assert server.state("/one-more") is State.NONE
    assert server.receive(b'2/1,["foo"]') == Packet(EVENT, "/1", ["foo"])


def test_a_client_does_not_ask_for_more_namespaces_than_the_limit() -> None:
    client = Connection(CLIENT)
    for number in range(MAX_NAMESPACES):
        client.connect(f"/{number}")
    with pytest.raises(ProtocolError, match=f"more than {MAX_NAMESPACES} namespaces"):
        client.connect("/one-more")


@pytest.mark.parametrize("way", ["refused", "left before the verdict", "left"])
def test_a_namespace_that_is_left_makes_room_for_another(way: str) -> None:
    server = Connection(SERVER)
    for number in range(MAX_NAMESPACES * 3):
        server.receive(b"0/%d," % number)
        if way == "refused":
            server.refuse(f"/{number}", {"message": "no"})
            continue
        if way == "left":
            server.accept(f"/{number}", SID)
        server.receive(b"1/%d," % number)


def test_a_namespace_that_the_client_was_sent_out_of_counts_until_it_says_that_it_knows() -> None:
    server = Connection(SERVER)
    for number in range(MAX_NAMESPACES):
        server.receive(b"0/%d," % number)
        server.accept(f"/{number}", SID)
        server.disconnect(f"/{number}")
    with pytest.raises(ProtocolError, match="namespaces"):
        server.receive(b"0/one-more,")
    assert server.receive(b"0/0,") == Packet(CONNECT, "/0")
    assert server.receive(b"1/1,") is None
    assert server.receive(b"0/one-more,") == Packet(CONNECT, "/one-more")


# Whatever comes.

MOVES = st.sampled_from(["accept", "refuse", "disconnect"])
RECEIVED = st.tuples(
    st.binary(max_size=30)
    | st.builds(
        lambda kind, namespace, data: kind + namespace + data,
        st.sampled_from([b"0", b"1", b"2", b"3", b"4", b"50-", b"51-", b"61-", b"9"]),
        st.sampled_from([b"", b"/a,", b"/b,"]),
        st.sampled_from([b"", b'["foo"]', b"7[]", b'["foo",%b]' % ONE, b'{"message":""}', b"["]),
    ),
    st.booleans(),
)


@given(st.sampled_from(Role), st.lists(RECEIVED | MOVES, max_size=20))
def test_any_frames_are_taken_or_refused_and_raise_nothing_else(role: Role, steps: list[Any]) -> None:
    side = Connection(role)
    for step in steps:
        if isinstance(step, str):
            if side.state("/a") is State.PENDING and role is SERVER and step != "disconnect":
                getattr(side, step)("/a", SID if step == "accept" else {"message": "no"})
            elif side.state("/a") is State.CONNECTED:
                side.disconnect("/a")
            continue
        frame, binary = step
        try:
            packet = side.receive(frame, binary=binary)
        except ProtocolError:
            continue
        if packet is not None and packet.type in (EVENT, ACK):
            assert side.state(packet.namespace) is State.CONNECTED
