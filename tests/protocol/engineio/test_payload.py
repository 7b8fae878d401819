"""A payload is packets with separators between them, binary ones as base64; everything else is refused."""

from __future__ import annotations

import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate.errors import ProtocolError
from iogate.protocol.engineio.packets import NOOP, PING, Encoded
from iogate.protocol.engineio.payload import MAX_PACKETS, SEPARATOR, Frame, decode_payload, encode_payload

from ..peers import frames

TEXT = st.builds(lambda text: b"4" + text.replace(SEPARATOR, b""), st.binary(max_size=50))
PACKETS = st.lists(st.builds(Encoded, TEXT, st.lists(st.binary(max_size=50), max_size=4)), min_size=1, max_size=40)


def text(data: bytes) -> Frame:
    return Frame(data, binary=False)


def binary(data: bytes) -> Frame:
    return Frame(data, binary=True)


PUBLISHED = [
    (b"2", [PING], [text(b"2")]),
    (b"6", [NOOP], [text(b"6")]),
    (b"4hello", [Encoded(b"4hello")], [text(b"4hello")]),
    (
        b"4hello\x1e2\x1e4world",
        [Encoded(b"4hello"), PING, Encoded(b"4world")],
        [text(b"4hello"), text(b"2"), text(b"4world")],
    ),
    (
        b"4test1\x1e4test2\x1e4test3",
        [Encoded(b"4test1"), Encoded(b"4test2"), Encoded(b"4test3")],
        [text(b"4test1"), text(b"4test2"), text(b"4test3")],
    ),
    (b"4hello\x1ebAQIDBA==", [Encoded(b"4hello", [b"\1\2\3\4"])], [text(b"4hello"), binary(b"\1\2\3\4")]),
    ("4€".encode(), [Encoded("4€".encode())], [text("4€".encode())]),
]


@pytest.mark.parametrize(("body", "packets", "_"), PUBLISHED)
def test_packets_are_written_as_the_published_bytes(body: bytes, packets: list[Encoded], _: object) -> None:
    assert encode_payload(packets) == body


@pytest.mark.parametrize(("body", "_", "expected"), PUBLISHED)
def test_the_published_bytes_are_read_as_their_packets(body: bytes, _: object, expected: list[Frame]) -> None:
    assert decode_payload(body) == expected


def test_attachments_follow_their_own_packet_in_their_order() -> None:
    packets = [Encoded(b"4a", [b"1", b"2"]), Encoded(b"4b"), Encoded(b"4c", [b"3"])]
    assert encode_payload(packets) == b"4a\x1ebMQ==\x1ebMg==\x1e4b\x1e4c\x1ebMw=="


def test_a_packet_that_is_binary_alone_has_no_text_before_it() -> None:
    """So does the MessagePack parser of Socket.IO write them."""
    assert encode_payload([Encoded(b"", [b"1"]), Encoded(b"4b")]) == b"bMQ==\x1e4b"


def test_an_empty_attachment_travels_as_the_letter_alone() -> None:
    assert encode_payload([Encoded(b"4", [b""])]) == b"4\x1eb"
    assert decode_payload(b"4\x1eb") == [text(b"4"), binary(b"")]


def test_all_bytes_survive_base64() -> None:
    data = bytes(range(256)) * 3
    assert decode_payload(encode_payload([Encoded(b"4", [data])]))[1] == binary(data)


@given(PACKETS)
def test_what_is_written_is_read_back(packets: list[Encoded]) -> None:
    assert decode_payload(encode_payload(packets)) == frames(packets)


@given(st.one_of(st.binary(), st.lists(st.sampled_from([b"b", b"4", b"=", b"A", SEPARATOR])).map(b"".join)))
def test_any_body_is_read_or_refused_and_raises_nothing_else(body: bytes) -> None:
    try:
        found = decode_payload(body)
    except ProtocolError:
        return
    assert len(found) == body.count(SEPARATOR) + 1
    assert sum(len(frame.data) for frame in found) <= len(body)


@pytest.mark.parametrize("body", [b"", b"\x1e", b"4\x1e", b"\x1e4", b"4\x1e\x1e4"])
def test_an_empty_packet_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="an empty packet"):
        decode_payload(body)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"bA", id="a single character"),
        pytest.param(b"bAQIDBA", id="without padding"),
        pytest.param(b"bAQIDBA=", id="too little padding"),
        pytest.param(b"bAQIDBA===", id="too much padding"),
        pytest.param(b"bAQ==IDBA", id="padding in the middle"),
        pytest.param(b"b====", id="padding alone"),
        pytest.param(b"b_-A=", id="the URL alphabet"),
        pytest.param(b"bAQID BA==", id="a blank"),
        pytest.param(b"bAQIDBA==\n", id="a line end"),
        pytest.param(b"bAQID\xffBA==", id="not ASCII"),
        pytest.param(b"bbAQIDBA==", id="two letters"),
    ],
)
def test_broken_base64_is_refused_wherever_it_stands(packet: bytes) -> None:
    for body in (packet, b"4\x1e" + packet, packet + b"\x1e4"):
        with pytest.raises(ProtocolError, match="broken base64"):
            decode_payload(body)


def test_broken_base64_keeps_its_cause_for_the_log() -> None:
    with pytest.raises(ProtocolError) as error:
        decode_payload(b"b!")
    assert isinstance(error.value.__cause__, binascii.Error)


def test_a_payload_holds_as_many_packets_as_the_limit_says_and_not_one_more() -> None:
    assert len(decode_payload(b"\x1e".join([b"2"] * MAX_PACKETS))) == MAX_PACKETS
    with pytest.raises(ProtocolError, match=f"more than {MAX_PACKETS} packets"):
        decode_payload(b"\x1e".join([b"2"] * (MAX_PACKETS + 1)))


def test_the_limit_of_packets_can_be_set() -> None:
    assert decode_payload(b"2\x1e3", max_packets=2) == [text(b"2"), text(b"3")]
    with pytest.raises(ProtocolError, match="more than 2 packets"):
        decode_payload(b"2\x1e3\x1e2", max_packets=2)


def test_ten_thousand_packets_are_refused_before_the_first_is_looked_at() -> None:
    with pytest.raises(ProtocolError, match="more than"):
        decode_payload(b"b!" + b"\x1e2" * 9_999)


def test_a_megabyte_of_separators_is_refused_by_its_count() -> None:
    with pytest.raises(ProtocolError, match="more than"):
        decode_payload(SEPARATOR * 1_000_000)


def test_a_megabyte_of_broken_base64_is_refused() -> None:
    with pytest.raises(ProtocolError, match="broken base64"):
        decode_payload(b"b" + b"=" * 1_000_000)
