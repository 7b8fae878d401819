"""Packets are written and read byte by byte as the protocol has it; every limit holds, and nothing but it is raised."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iogate.errors import ProtocolError
from iogate.protocol.socketio.json import Decoder, decode_event, encode
from iogate.protocol.socketio.packets import (
    MAX_ATTACHMENTS,
    MAX_DEPTH,
    MAX_ID_DIGITS,
    MAX_NAMESPACE,
    RESERVED_EVENTS,
    Packet,
    PacketType,
)

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR = list(PacketType)[:5]

PLACEHOLDER = b'{"_placeholder":true,"num":%d}'
ONE, TWO = PLACEHOLDER % 0, PLACEHOLDER % 1


def decode(text: bytes, *attachments: bytes, decoder: Decoder | None = None) -> Packet:
    """Return the packet that these frames are, all of which are needed."""
    decoder = decoder or Decoder()
    packet = decoder.text(text)
    for number, data in enumerate(attachments, 1):
        assert decoder.waiting
        found = decoder.binary(data)
        assert (found is packet) is (number == len(attachments))
    assert not decoder.waiting
    return packet


def refuse(text: bytes, *attachments: bytes) -> str:
    """Return why these frames are refused, which must be at the last of them."""
    decoder = Decoder()
    *before, last = [partial(decoder.text, text), *(partial(decoder.binary, data) for data in attachments)]
    for step in before:
        step()
    with pytest.raises(ProtocolError) as error:
        last()
    return str(error.value)


PUBLISHED = [
    (b"0", [], Packet(CONNECT)),
    (b'0{"sid":"wZX3oN0bSVIhsaknAAAI"}', [], Packet(CONNECT, data={"sid": "wZX3oN0bSVIhsaknAAAI"})),
    (b"0/admin,", [], Packet(CONNECT, "/admin")),
    (b'0/admin,{"token":"123"}', [], Packet(CONNECT, "/admin", {"token": "123"})),
    (b'0/admin,{"sid":"oSO0OpakMV_3jnilAAAA"}', [], Packet(CONNECT, "/admin", {"sid": "oSO0OpakMV_3jnilAAAA"})),
    (b'4{"message":"Not authorized"}', [], Packet(CONNECT_ERROR, data={"message": "Not authorized"})),
    (
        b'4/random,{"message":"Invalid namespace"}',
        [],
        Packet(CONNECT_ERROR, "/random", {"message": "Invalid namespace"}),
    ),
    (b'2["foo"]', [], Packet(EVENT, data=["foo"])),
    (b'2/admin,["bar"]', [], Packet(EVENT, "/admin", ["bar"])),
    (b'2["hey","Jude"]', [], Packet(EVENT, data=["hey", "Jude"])),
    (b'2["message",1,"2",{"3":[true]}]', [], Packet(EVENT, data=["message", 1, "2", {"3": [True]}])),
    (b'51-["baz",%b]' % ONE, [b"\1\2\3\4"], Packet(EVENT, data=["baz", b"\1\2\3\4"])),
    (
        b'52-/admin,["baz",%b,%b]' % (ONE, TWO),
        [b"\1\2", b"\3\4"],
        Packet(EVENT, "/admin", ["baz", b"\1\2", b"\3\4"]),
    ),
    (b'212["foo"]', [], Packet(EVENT, data=["foo"], id=12)),
    (b"312[]", [], Packet(ACK, data=[], id=12)),
    (b'2/admin,13["foo"]', [], Packet(EVENT, "/admin", ["foo"], 13)),
    (b'3/admin,13["bar"]', [], Packet(ACK, "/admin", ["bar"], 13)),
    (b'51-14["foo",%b]' % ONE, [b"\1\2\3\4"], Packet(EVENT, data=["foo", b"\1\2\3\4"], id=14)),
    (b'314["bar"]', [], Packet(ACK, data=["bar"], id=14)),
    (b'215["foo"]', [], Packet(EVENT, data=["foo"], id=15)),
    (b'61-15["bar",%b]' % ONE, [b"\1\2\3\4"], Packet(ACK, data=["bar", b"\1\2\3\4"], id=15)),
    (b"1", [], Packet(DISCONNECT)),
    (b"1/admin,", [], Packet(DISCONNECT, "/admin")),
    # The same rules, where the document has no example.
    (b'20["foo"]', [], Packet(EVENT, data=["foo"], id=0)),
    ('2/grüße,["€","\U0001f600"]'.encode(), [], Packet(EVENT, "/grüße", ["€", "\U0001f600"])),
    (b"61-/admin,0[%b]" % ONE, [b""], Packet(ACK, "/admin", [b""], 0)),
    (b'51-["a",{"b":[{"c":%b}]}]' % ONE, [b"x"], Packet(EVENT, data=["a", {"b": [{"c": b"x"}]}])),
    (b'2["a",null,{},[],""]', [], Packet(EVENT, data=["a", None, {}, [], ""])),
]


@pytest.mark.parametrize(("text", "attachments", "packet"), PUBLISHED)
def test_a_packet_is_written_as_the_published_bytes(text: bytes, attachments: list[bytes], packet: Packet) -> None:
    encoded = encode(packet)
    assert encoded.text == b"4" + text
    assert list(encoded.attachments) == attachments


@pytest.mark.parametrize(("text", "attachments", "packet"), PUBLISHED)
def test_the_published_bytes_are_read_as_their_packet(text: bytes, attachments: list[bytes], packet: Packet) -> None:
    assert decode(text, *attachments) == packet


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        pytest.param(b"0/admin", Packet(CONNECT, "/admin"), id="a namespace without its comma"),
        pytest.param(b"1/admin", Packet(DISCONNECT, "/admin"), id="a namespace without its comma, leaving"),
        pytest.param(b"0/,", Packet(CONNECT, "/"), id="the root by its name"),
        pytest.param(b'2/,["a"]', Packet(EVENT, "/", ["a"]), id="the root by its name, an event"),
        pytest.param(b"0null", Packet(CONNECT), id="a payload that is none"),
        pytest.param(b"1null", Packet(DISCONNECT), id="a payload that is none, leaving"),
        pytest.param(b'4"Not authorized"', Packet(CONNECT_ERROR, data="Not authorized"), id="an error of version 4"),
        pytest.param(b'2 [ "a" , 1 ] ', Packet(EVENT, data=["a", 1]), id="blanks in the JSON"),
        pytest.param(b'2007["a"]', Packet(EVENT, data=["a"], id=7), id="an id with zeros in front"),
        pytest.param(b'2[1,"a"]', Packet(EVENT, data=["1", "a"]), id="a number as name"),
        pytest.param(b"2/b,[-1]", Packet(EVENT, "/b", ["-1"]), id="a number as name in a namespace"),
        pytest.param(b'50-["a"]', Packet(EVENT, data=["a"]), id="a binary event without attachments"),
        pytest.param(b"60-1[]", Packet(ACK, data=[], id=1), id="a binary ack without attachments"),
        pytest.param(b'2["a",1,1]', Packet(EVENT, data=["a", 1, 1]), id="an argument twice"),
        pytest.param(b'2["a",{"b":1,"b":2}]', Packet(EVENT, data=["a", {"b": 2}]), id="the last of equal members"),
        pytest.param(b'2["\\u0000\\ud83d\\ude00"]', Packet(EVENT, data=["\0\U0001f600"]), id="escapes"),
        pytest.param(b'2["Connect"]', Packet(EVENT, data=["Connect"]), id="a name that only looks reserved"),
        pytest.param(b'2[""]', Packet(EVENT, data=[""]), id="an empty name"),
    ],
)
def test_what_is_not_written_by_us_but_means_the_same_is_read(text: bytes, packet: Packet) -> None:
    assert decode(text) == packet


@pytest.mark.parametrize(("text", "attachments", "packet"), PUBLISHED)
def test_a_packet_is_read_from_where_it_begins_in_the_frame(
    text: bytes, attachments: list[bytes], packet: Packet
) -> None:
    decoder = Decoder()
    found = decoder.text(b"4" + text, 1)
    for data in attachments:
        assert decoder.binary(data) in (None, found)
    assert found == packet


@pytest.mark.parametrize("data", [b'["a",1]', b"[7]", b'["a",[{}]]'])
def test_the_short_way_of_an_event_in_the_root_reads_what_the_long_way_reads(data: bytes) -> None:
    assert decode(b"2" + data) == decode(b"2/," + data)


@pytest.mark.parametrize("data", [b"[]", b'["connect"]', b"[null]", b'["a"', b'["a"]]', b'["\xff"]', b"[" * 200])
def test_the_short_way_of_an_event_in_the_root_refuses_what_the_long_way_refuses(data: bytes) -> None:
    assert refuse(b"2" + data) == refuse(b"2/," + data)


# Round trips.

NAMESPACES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=","), max_size=60).map("/".__add__)
IDS = st.none() | st.integers(0, 10**MAX_ID_DIGITS - 1)
KEYS = st.text(max_size=8).filter(lambda key: key != "_placeholder")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["[", "{", "-", ",", '"', "\\", "\x1e", "/a,1[", "_placeholder"])
)


def json_of(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=MAX_ATTACHMENTS,
    )


NAMES = st.text(max_size=20).filter(lambda name: name not in RESERVED_EVENTS)
BYTES = st.binary(max_size=20)
DATA = json_of(SCALARS | BYTES)


def same(left: Any, right: Any) -> bool:
    """Say whether two values are equal and of the same types: for Python 1, 1.0 and True are equal."""
    return left == right and repr(left) == repr(right)


def sent(packet: Packet) -> Packet:
    """Return a packet as its receiver sees it."""
    encoded = encode(packet)
    assert len(encoded.attachments) <= MAX_ATTACHMENTS
    assert encoded.string.encode() == encoded.text
    return decode(encoded.text[1:], *encoded.attachments)


@given(NAMES, DATA, NAMESPACES, IDS)
def test_an_event_arrives_as_it_was_sent(name: str, data: Any, namespace: str, id_: int | None) -> None:
    assert same(sent(Packet(EVENT, namespace, [name, data], id_)), Packet(EVENT, namespace, [name, data], id_))


@given(DATA, NAMESPACES, st.integers(0, 10**MAX_ID_DIGITS - 1))
def test_an_acknowledgement_arrives_as_it_was_sent(data: Any, namespace: str, id_: int) -> None:
    assert same(sent(Packet(ACK, namespace, [data], id_)), Packet(ACK, namespace, [data], id_))


@given(st.none() | st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=5), max_size=4), NAMESPACES)
def test_a_connect_and_its_refusal_arrive_as_they_were_sent(payload: dict[str, Any] | None, namespace: str) -> None:
    assert same(sent(Packet(CONNECT, namespace, payload)), Packet(CONNECT, namespace, payload))
    refusal = {"message": "no", "data": payload}
    assert same(sent(Packet(CONNECT_ERROR, namespace, refusal)), Packet(CONNECT_ERROR, namespace, refusal))


@given(NAMESPACES)
def test_a_disconnect_arrives_as_it_was_sent(namespace: str) -> None:
    assert sent(Packet(DISCONNECT, namespace)) == Packet(DISCONNECT, namespace)


@given(st.integers(1, MAX_DEPTH - 1), st.booleans(), SCALARS)
def test_data_arrives_at_any_depth_up_to_the_limit(depth: int, in_lists: bool, data: Any) -> None:
    """Bytes leave an object behind, which is one level more."""
    for _ in range(depth):
        data = [data] if in_lists else {"a": data}
    assert same(sent(Packet(EVENT, data=["deep", data])), Packet(EVENT, data=["deep", data]))


def test_bytes_of_every_kind_are_attachments_and_a_tuple_is_a_list() -> None:
    encoded = encode(Packet(EVENT, data=("a", bytearray(b"1"), [memoryview(b"2")], (b"3",), {"b": (b"4",)})))
    assert encoded.text == b'454-["a",%b,[%b],[%b],{"b":[%b]}]' % tuple(PLACEHOLDER % number for number in range(4))
    assert list(encoded.attachments) == [b"1", b"2", b"3", b"4"]
    assert all(type(data) is bytes for data in encoded.attachments)


def test_writing_a_packet_leaves_its_data_as_it_was() -> None:
    packet = Packet(EVENT, data=["a", {"b": [b"1"]}])
    encode(packet)
    assert packet == Packet(EVENT, data=["a", {"b": [b"1"]}])


def test_data_without_a_json_of_its_own_is_the_error_of_who_sends_it() -> None:
    with pytest.raises(TypeError):
        encode(Packet(EVENT, data=["a", object()]))
    with pytest.raises(TypeError):
        encode(Packet(EVENT, data=["a", b"1", object()]))
    with pytest.raises(UnicodeEncodeError):
        encode(Packet(EVENT, data=["\ud800"]))
    with pytest.raises(UnicodeEncodeError):
        encode(Packet(EVENT, "/\ud800", ["a"]))


def test_a_number_that_json_does_not_have_is_null() -> None:
    assert encode(Packet(EVENT, data=["a", math.nan, math.inf])).text == b'42["a",null,null]'


# Attachments.


def test_attachments_come_back_in_the_order_of_their_numbers() -> None:
    assert decode(b'52-["a",%b,[%b]]' % (TWO, ONE), b"first", b"second").data == ["a", b"second", [b"first"]]


def test_a_placeholder_is_data_where_no_attachment_was_announced() -> None:
    held = {"_placeholder": True, "num": 0}
    assert decode(b'2["a",%b]' % ONE).data == ["a", held]
    assert decode(b'50-["a",%b]' % ONE).data == ["a", held]


@pytest.mark.parametrize("value", [b"false", b"1", b'"true"', b"null", b"[true]"])
def test_only_true_makes_a_placeholder(value: bytes) -> None:
    text = b'51-["a",%b,{"_placeholder":%b,"num":0}]' % (ONE, value)
    name, data, kept = decode(text, b"x").data
    assert (name, data) == ("a", b"x")
    assert kept["num"] == 0


@pytest.mark.parametrize(
    "number", [b"1", b"-1", b"10", b"true", b"false", b"0.0", b'"0"', b"null", b"[]", b"{}", b"9" * 400]
)
def test_a_placeholder_with_a_number_of_no_attachment_is_refused(number: bytes) -> None:
    assert "placeholder" in refuse(b'51-["a",{"_placeholder":true,"num":%b}]' % number, b"x")


def test_a_placeholder_without_a_number_is_refused() -> None:
    assert "placeholder" in refuse(b'51-["a",{"_placeholder":true}]', b"x")


def test_an_attachment_that_two_placeholders_name_is_refused() -> None:
    assert "placeholder" in refuse(b'51-["a",%b,%b]' % (ONE, ONE), b"x")


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.lists(st.binary(max_size=9), min_size=1, max_size=4))
def test_a_packet_that_is_sent_on_is_not_larger_than_it_came(numbers: list[int], data: list[bytes]) -> None:
    # Else a thousand placeholders for one megabyte would be a gigabyte for each recipient.
    head = b'5%d-["a",' % len(data) + b",".join(PLACEHOLDER % number for number in numbers) + b"]"
    decoder = Decoder()
    packet = decoder.text(head)
    try:
        for attachment in data:
            decoder.binary(attachment)
    except ProtocolError:
        return
    assert encode(packet).size <= 1 + len(head) + sum(map(len, data))


def test_an_attachment_that_no_placeholder_names_is_dropped() -> None:
    assert decode(b'51-["a"]', b"x").data == ["a"]
    assert decode(b'52-["a",%b]' % TWO, b"x", b"y").data == ["a", b"y"]


def test_while_attachments_are_due_no_packet_may_come() -> None:
    for text in (b'2["b"]', b"1", b'51-["b",%b]' % ONE, b"", b"x"):
        decoder = Decoder()
        assert not decoder.waiting
        decoder.text(b'52-["a",%b,%b]' % (ONE, TWO))
        with pytest.raises(ProtocolError, match="where an attachment was announced"):
            decoder.text(text)
        assert decoder.binary(b"x") is None
        with pytest.raises(ProtocolError, match="where an attachment was announced"):
            decoder.text(text)


def test_an_attachment_that_was_not_announced_is_refused() -> None:
    decoder = Decoder()
    with pytest.raises(ProtocolError, match="no packet announced"):
        decoder.binary(b"x")
    decode(b'51-["a",%b]' % ONE, b"x", decoder=decoder)
    with pytest.raises(ProtocolError, match="no packet announced"):
        decoder.binary(b"x")
    decode(b'50-["a"]', decoder=decoder)
    with pytest.raises(ProtocolError, match="no packet announced"):
        decoder.binary(b"x")


def test_packets_with_attachments_follow_each_other_and_do_not_mix() -> None:
    decoder = Decoder()
    for number in range(3):
        data = b"%d" % number
        assert decode(b'51-["a",%b]' % ONE, data, decoder=decoder).data == ["a", data]
        assert decode(b'2["b"]', decoder=decoder).data == ["b"]


# Limits: at each, and one beyond.


def test_a_packet_announces_as_many_attachments_as_the_limit_says_and_not_one_more() -> None:
    held = b",".join(PLACEHOLDER % number for number in range(MAX_ATTACHMENTS))
    data = [b"%d" % number for number in range(MAX_ATTACHMENTS)]
    assert decode(b'5%d-["a",%b]' % (MAX_ATTACHMENTS, held), *data).data == ["a", *data]
    assert "attachments announced" in refuse(b'5%d-["a"]' % (MAX_ATTACHMENTS + 1))
    assert "attachments announced" in refuse(b"6%d-1[]" % (MAX_ATTACHMENTS + 1))


def test_the_limit_of_attachments_can_be_set() -> None:
    assert decode(b'51-["a",%b]' % ONE, b"x", decoder=Decoder(1)).data == ["a", b"x"]
    with pytest.raises(ProtocolError, match="more than 1 attachments"):
        Decoder(1).text(b'52-["a",%b,%b]' % (ONE, TWO))
    with pytest.raises(ProtocolError, match="more than 0 attachments"):
        Decoder(0).text(b'51-["a",%b]' % ONE)
    assert Decoder(0).text(b'50-["a"]').data == ["a"]


def test_more_attachments_than_announced_are_refused() -> None:
    decoder = Decoder()
    decode(b'51-["a",%b]' % ONE, b"x", decoder=decoder)
    with pytest.raises(ProtocolError):
        decoder.binary(b"y")


def test_an_announcement_is_looked_for_in_seven_digits_and_not_further() -> None:
    assert decode(b'50000001-["a",%b]' % ONE, b"x").data == ["a", b"x"]
    assert "does not say how many" in refuse(b'500000001-["a",%b]' % ONE)


def test_an_announcement_of_a_thousand_million_is_refused() -> None:
    assert "attachments" in refuse(b'51000000000-["a"]')
    assert "attachments" in refuse(b'59999999-["a"]')


def test_an_acknowledgement_id_has_as_many_digits_as_the_limit_says_and_not_one_more() -> None:
    for digit in (b"1", b"9", b"0"):
        digits = digit * MAX_ID_DIGITS
        assert decode(b'2%b["a"]' % digits).id == int(digits)
        assert decode(b"3/a,%b[]" % digits).id == int(digits)
        for text in (b'2%b["a"]', b"3%b[]", b"3/a,%b[]", b"2%b"):
            assert "digits" in refuse(text % (digits + digit))


def test_the_largest_id_that_a_javascript_client_counts_to_is_taken() -> None:
    assert decode(b'2%d["a"]' % 2**53).id == 2**53


def test_the_name_of_a_namespace_is_as_long_as_the_limit_says_and_not_a_byte_longer() -> None:
    name = "/" + "a" * (MAX_NAMESPACE - 1)
    for text in (name, name + ","):
        assert decode(b"0" + text.encode()).namespace == name
        assert "longer than" in refuse(b"0/a" + text[1:].encode())
    assert decode(f'2{name},["a"]'.encode()).namespace == name
    assert "longer than" in refuse(f'2{name}a,["a"]'.encode())


def test_the_name_of_a_namespace_is_measured_in_bytes() -> None:
    assert decode(b"0" + ("/ü" * (MAX_NAMESPACE // 3)).encode()).namespace == "/ü" * (MAX_NAMESPACE // 3)
    assert "longer than" in refuse(("0/" + "ü" * (MAX_NAMESPACE // 2)).encode())


def test_lists_and_objects_are_within_each_other_as_deep_as_the_limit_says_and_not_deeper() -> None:
    for left, right in ((b"[", b"]"), (b'{"a":', b"}")):
        inside = MAX_DEPTH - 1
        for head, tail in ((b'2["a",', b"]"), (b'2/b,7["a",', b"]"), (b"37[", b"]"), (b'0{"a":', b"}")):
            taken = head + left * inside + b"0" + right * inside + tail
            assert decode(taken).data
            deeper = head + left * (inside + 1) + b"0" + right * (inside + 1) + tail
            assert refuse(deeper) == f"JSON nested deeper than {MAX_DEPTH}"


def test_at_the_limit_of_depth_other_brackets_do_no_harm() -> None:
    deep = b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)
    assert decode(b'2["a",%b,[],{},"[{"]' % deep).data[2:] == [[], {}, "[{"]
    assert "nested deeper" in refuse(b'2["a",[%b],[],{},"[{"]' % deep)


def test_brackets_that_do_not_nest_are_not_counted() -> None:
    many = MAX_DEPTH * 3
    assert decode(b'2["a"%b]' % (b",[],{}" * many)).data == ["a", *[[], {}] * many]
    assert decode(b'2["a","%b"]' % (b"[{" * many)).data == ["a", "[{" * many]
    assert decode(b'4"%b"' % (b"[" * many)).data == "[" * many


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"2" + b"[" * 1_000_000, id="opening brackets"),
        pytest.param(b"2" + b"[" * 500_000 + b"]" * 500_000, id="brackets that fit"),
        pytest.param(b'2["a",' + b'{"a":' * 200_000, id="objects"),
        pytest.param(b"2" + b"]" * 1_000_000, id="closing brackets"),
        pytest.param(b"2" + b"1" * 1_000_000, id="digits of an id"),
        pytest.param(b"3/a," + b"0" * 1_000_000, id="zeros of an id"),
        pytest.param(b"5" + b"1" * 1_000_000, id="digits of an announcement"),
        pytest.param(b"5" + b"1" * 1_000_000 + b"-", id="digits of an announcement and its end"),
        pytest.param(b"5" + b"-" * 1_000_000, id="ends of an announcement"),
        pytest.param(b"0/" + b"a" * 1_000_000, id="a namespace"),
        pytest.param(b"0/" + b"a" * 1_000_000 + b",", id="a namespace and its end"),
        pytest.param(b"2" + b"," * 1_000_000, id="commas"),
        pytest.param(b"0" + b"/" * 1_000_000, id="slashes"),
        pytest.param(b'2["a",' + b"9" * 1_000_000 + b"]", id="digits of a number"),
        pytest.param(b"2[" + b"9" * 1_000_000 + b"]", id="digits of a name"),
        pytest.param(b'2["' + b"\\" * 1_000_001, id="backslashes"),
        pytest.param(b'2["' + b"a" * 1_000_000, id="a string without an end"),
        pytest.param(b"2 " + b" " * 1_000_000, id="blanks"),
        pytest.param(b"\x1e" * 1_000_000, id="separators"),
        pytest.param(b"\xff" * 1_000_000, id="no text"),
    ],
)
def test_a_megabyte_of_it_is_refused(text: bytes) -> None:
    assert len(refuse(text)) < 100


# The grammar.


@pytest.mark.parametrize(
    "text", [b"", b"7", b"8", b"9", b'9["a"]', b"/", b":", b"a", b"abc", b" 0", b"-1", b"\xff", b"\0"]
)
def test_a_message_without_a_type_is_refused(text: bytes) -> None:
    assert refuse(text) == "a message without a packet type"


def test_a_start_behind_the_end_of_the_frame_is_refused() -> None:
    with pytest.raises(ProtocolError, match="without a packet type"):
        Decoder().text(b"4", 1)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"2", id="nothing"),
        pytest.param(b"27", id="an id alone"),
        pytest.param(b"2/a,", id="a namespace alone"),
        pytest.param(b"2/a", id="a namespace without its comma"),
        pytest.param(b"2null", id="null"),
        pytest.param(b"2{}", id="an object"),
        pytest.param(b'2"a"', id="a string"),
        pytest.param(b"2[]", id="an empty list"),
        pytest.param(b"2[null]", id="null as name"),
        pytest.param(b"2[true]", id="true as name"),
        pytest.param(b"2[1.5]", id="a fraction as name"),
        pytest.param(b'2[["a"]]', id="a list as name"),
        pytest.param(b'2[{"a":1}]', id="an object as name"),
        pytest.param(b"51-[%b]" % ONE, id="an attachment as name"),
    ],
)
def test_an_event_without_a_name_is_refused(text: bytes) -> None:
    assert refuse(text) == "an EVENT is a list with a name that is not reserved"


@pytest.mark.parametrize("name", sorted(RESERVED_EVENTS))
def test_an_event_with_a_reserved_name_is_refused_however_it_is_written(name: str) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
    for text in (f'2["{name}"]', f'2/a,7["{name}",1]', f'50-["{name}"]', f'2["{escaped}"]', f'51-["{name}",{{}}]'):
        assert refuse(text.encode()) == "an EVENT is a list with a name that is not reserved"


@pytest.mark.parametrize("text", [b"37", b"37null", b"37{}", b'37"a"', b"3/a,7true", b"60-7{}", b"3", b"3/a,"])
def test_an_acknowledgement_that_is_no_list_is_refused(text: bytes) -> None:
    assert refuse(text) == "an ACK is a list"


@pytest.mark.parametrize("text", [b"3[]", b'3/a,["a"]', b"60-[]", b"61-[%b]" % ONE])
def test_an_acknowledgement_without_an_id_is_refused(text: bytes) -> None:
    assert refuse(text) == "ACK and an acknowledgement id do not fit"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"07", "CONNECT"),
        (b"0/a,7{}", "CONNECT"),
        (b"17", "DISCONNECT"),
        (b"1/a,7", "DISCONNECT"),
        (b"47{}", "CONNECT_ERROR"),
        (b'4/a,7"a"', "CONNECT_ERROR"),
    ],
)
def test_an_id_where_nothing_is_acknowledged_is_refused(text: bytes, name: str) -> None:
    assert refuse(text) == f"{name} and an acknowledgement id do not fit"


@pytest.mark.parametrize("text", [b"0[]", b'0"a"', b"0true", b'0/a,["a"]', b"0-1", b"00"])
def test_a_connect_whose_payload_is_no_object_is_refused(text: bytes) -> None:
    refuse(text)


@pytest.mark.parametrize("text", [b"4", b"4null", b"4[]", b"4true", b"4/a,", b"4/a,[]"])
def test_a_refusal_without_a_payload_is_refused(text: bytes) -> None:
    assert refuse(text) == "the payload of CONNECT_ERROR is an object or a string"


@pytest.mark.parametrize("text", [b"1{}", b"1[]", b'1"a"', b"1false", b"1/a,{}"])
def test_a_disconnect_with_a_payload_is_refused(text: bytes) -> None:
    assert refuse(text) == "a DISCONNECT has no payload"


@pytest.mark.parametrize(
    "head", [b"", b"-", b"x-", b"1", b"1_", b" 1-", b"+1-", b"-1-", b"1.0-", b"1e0-", b"0x1-", b"\xd9\xa1-", b"/a,1-"]
)
def test_a_binary_packet_that_does_not_say_how_many_attachments_it_has_is_refused(head: bytes) -> None:
    for type_ in (b"5", b"6"):
        assert refuse(type_ + head + b'["a"]') == "a binary packet that does not say how many attachments it has"


@pytest.mark.parametrize("text", [b"0/\xff,", b"0/\xff", b'2/\xed\xa0\x80,["a"]', b"0/\xc0\xaf,", b"0/\xf5,"])
def test_the_name_of_a_namespace_that_is_no_utf_8_is_refused(text: bytes) -> None:
    assert refuse(text) == "the name of a namespace is not UTF-8"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'["a"', id="no end"),
        pytest.param(b'["a"]]', id="one end too many"),
        pytest.param(b'["a"]["b"]', id="two"),
        pytest.param(b'["a"]\x00', id="a NUL at the end"),
        pytest.param(b'["a",]', id="a comma too many"),
        pytest.param(b"['a']", id="other quotes"),
        pytest.param(b'["a",NaN]', id="NaN"),
        pytest.param(b'["a",Infinity]', id="Infinity"),
        pytest.param(b'["a",1e400]', id="a number without an end"),
        pytest.param(b'["a",01]', id="a zero in front"),
        pytest.param(b'["a",+1]', id="a plus"),
        pytest.param(b'["a",{b:1}]', id="a member without quotes"),
        pytest.param(b'["a",{"b"}]', id="a member without a value"),
        pytest.param(b'["a\n"]', id="a line end in a string"),
        pytest.param(b'["\\x41"]', id="an unknown escape"),
        pytest.param(b'["\\ud800"]', id="half a surrogate pair, escaped"),
        pytest.param(b'["\xed\xa0\x80"]', id="half a surrogate pair"),
        pytest.param(b'["\xff"]', id="not UTF-8"),
        pytest.param(b'["a",{"\xff":1}]', id="not UTF-8 in a member"),
        pytest.param(b'\xef\xbb\xbf["a"]', id="a byte order mark"),
        pytest.param('["a"]'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'["a"]//', id="a comment"),
        pytest.param(b"abc", id="no JSON"),
    ],
)
def test_broken_json_is_refused_and_its_content_is_not_in_the_error(data: bytes) -> None:
    for head in (b"2", b"2/b,", b"37", b"0", b"1", b"4", b"50-"):
        assert refuse(head + data) == "broken JSON"


def test_an_error_of_the_json_parser_is_not_chained_because_it_may_quote_the_peer() -> None:
    with pytest.raises(ProtocolError) as error:
        Decoder().text(b'0{"token":"secret"')
    assert error.value.__suppress_context__


# Whatever comes.

PIECES = st.lists(
    st.sampled_from(
        [
            *b'0 1 2 3 4 5 6 9 - / /a, , [ ] { } " "a" ["a" {"a": : null 1- 10-'.split(),
            *(b" ", b"\\", b"\xff", b"\xc3\xbc", ONE, TWO),
        ]
    ),
    max_size=12,
).map(b"".join)


@given(st.lists(st.tuples(st.binary(max_size=40) | PIECES, st.booleans()), max_size=8), st.integers(0, 3))
def test_any_frames_are_read_or_refused_and_raise_nothing_else(
    received: list[tuple[bytes, bool]], max_attachments: int
) -> None:
    decoder = Decoder(max_attachments)
    for frame, is_binary in received:
        try:
            packet = decoder.binary(frame) if is_binary else decoder.text(frame)
        except ProtocolError:
            continue
        if packet is not None and not decoder.waiting:
            assert same(sent(packet), packet)


@given(PIECES, st.integers(0, 20))
def test_a_start_anywhere_reads_what_the_rest_of_the_frame_reads(frame: bytes, start: int) -> None:
    def read(*arguments: Any) -> Packet | str:
        try:
            return Decoder().text(*arguments)
        except ProtocolError as error:
            return str(error)

    assert read(frame, start) == read(frame[start:])


# The short way, of events in the root namespace, when they come on a WebSocket.


def by_the_long_way(frame: bytes) -> tuple[list[Any], int | None] | None:
    """Return what `Decoder.text` says of an Engine.IO message: the data and the id, or None where it raises."""
    decoder = Decoder()
    try:
        packet = decoder.text(frame, 1)
    except ProtocolError:
        return None
    assert (packet.type, packet.namespace, decoder.waiting) == (EVENT, "/", False)
    return packet.data, packet.id


def agree(frame: bytes) -> bool:
    """Say whether the short way takes a frame. If it does, it must say the same as the long way, type by type."""
    short = decode_event(frame)
    assert short is None or same(short, by_the_long_way(frame)), frame
    return short is not None


NINES = b"9" * MAX_ID_DIGITS
DEEPEST = MAX_DEPTH - 1  # Within the list that the event is.


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b'42["a"]', id="a name alone"),
        pytest.param(b'42["a",1,"2",{"3":[true,null]}]', id="arguments"),
        pytest.param(b'427["a"]', id="an id"),
        pytest.param(b'420["a"]', id="the id 0"),
        pytest.param(b'42007["a"]', id="an id with zeros in front"),
        pytest.param(b"42" + NINES + b'["a"]', id="the longest id"),
        pytest.param(b'42[ "a" , 1 ] ', id="blanks in the JSON"),
        pytest.param(b'42[""]', id="an empty name"),
        pytest.param(b'42["Connect"]', id="a name that only looks reserved"),
        pytest.param(b'42["authenticate",{"token":"a"}]', id="an event of the gate"),
        pytest.param(b'42["a","%b"]' % (b"[" * 50), id="brackets in a string"),
        pytest.param(b'42["a",%b%b]' % (b"[" * DEEPEST, b"]" * DEEPEST), id="as deep as the limit says"),
        pytest.param(b'42["a",%b%b]' % (b'{"b":' * DEEPEST + b"1", b"}" * DEEPEST), id="objects as deep as that"),
        pytest.param(b'42["a",{"_placeholder":true,"num":0}]', id="a placeholder where nothing was announced"),
    ],
)
def test_an_event_of_the_root_is_read_by_the_short_way(frame: bytes) -> None:
    assert agree(frame)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"42" + NINES + b'9["a"]', id="a digit more than an id may have"),
        pytest.param(b"42" + b"0" * MAX_ID_DIGITS + b'1["a"]', id="a digit more, though the number is small"),
        pytest.param(b'42["a",%b%b]' % (b"[" * MAX_DEPTH, b"]" * MAX_DEPTH), id="deeper than the limit"),
        pytest.param(b'42["a",%b%b]' % (b'{"b":' * MAX_DEPTH + b"1", b"}" * MAX_DEPTH), id="objects deeper than that"),
        pytest.param(b'42["a",' + b"[" * 100_000, id="so deep that the stack ends"),
        pytest.param(b"42[]", id="no name"),
        pytest.param(b"42", id="nothing"),
        pytest.param(b"427", id="an id alone"),
        pytest.param(b'42"a"', id="no list"),
        pytest.param(b'42{"a":["b"]}', id="an object with a list in it"),
        pytest.param(b"42[null]", id="a name that is none"),
        pytest.param(b'42[true,"a"]', id="true as a name"),
        pytest.param(b'42[1.5,"a"]', id="a fraction as a name"),
        pytest.param(b'42[["a"]]', id="a list as a name"),
        pytest.param(b'42["a"', id="an end too soon"),
        pytest.param(b'42["a"]]', id="an end too late"),
        pytest.param(b'42["a"]b', id="something behind the end"),
        pytest.param(b'42["\xff"]', id="no UTF-8"),
        pytest.param(b'42-7["a"]', id="a sign before the id"),
        pytest.param(b'42+7["a"]', id="another sign before the id"),
        pytest.param(b'42 7["a"]', id="a blank before the id"),
        pytest.param(b'421_0["a"]', id="an id as Python writes numbers"),
        pytest.param('42\u0667["a"]'.encode(), id="a digit of another script"),
        pytest.param(b'421-["a"]', id="an announcement of attachments"),
        pytest.param(b'42,["a"]', id="a comma without a namespace"),
        *(pytest.param(b'42["%b"]' % name.encode(), id=name) for name in sorted(RESERVED_EVENTS)),
        pytest.param(b'42["\\u0063onnect"]', id="a reserved name in escapes"),
    ],
)
def test_what_the_long_way_refuses_is_not_taken_by_the_short_way(frame: bytes) -> None:
    assert by_the_long_way(frame) is None
    assert decode_event(frame) is None


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b'42[1,"a"]', id="a number as a name"),
        pytest.param(b'42/,["a"]', id="the root by its name"),
        pytest.param(b'427 ["a"]', id="a blank behind the id"),
        pytest.param(b'42 ["a"]', id="a blank before the JSON"),
        pytest.param(b'42["a","%b"]' % (b"[{" * MAX_DEPTH), id="many brackets in a string"),
        pytest.param(b'42["a"%b]' % (b",[]" * MAX_DEPTH), id="many lists beside each other"),
    ],
)
def test_what_needs_a_closer_look_is_left_to_the_long_way(frame: bytes) -> None:
    assert by_the_long_way(frame) is not None
    assert decode_event(frame) is None


@pytest.mark.parametrize("frame", [b'42/a,["b"]', b'42/,7["b"]', b'42/1["b"]', b'42/a[7,["b"]', b"42/["])
def test_an_event_of_another_namespace_is_left_to_the_long_way(frame: bytes) -> None:
    assert decode_event(frame) is None


@given(NAMES, DATA.filter(lambda data: encode(Packet(EVENT, data=["a", data])).attachments == []), IDS)
def test_any_event_of_the_root_is_read_as_it_was_sent(name: str, data: Any, id_: int | None) -> None:
    frame = encode(Packet(EVENT, data=[name, data], id=id_)).text
    assert agree(frame)
    assert same(decode_event(frame), ([name, data], id_))


PARTS = st.sampled_from(
    [b"[", b"]", b'"a"', b'"connect"', b",", b"{", b"}", b":", b"0", b"7", b"-", b"/", b" ", b"null", b"1.5", b"\xff"]
)
TAILS = (
    st.binary(max_size=30)
    | st.lists(PARTS, max_size=12).map(b"".join)
    | st.tuples(
        st.text("0123456789", max_size=MAX_ID_DIGITS + 2),
        st.lists(st.sampled_from(['"a"', "1", '"connect"', "null", "[]", "{}"]), max_size=4),
        st.sampled_from(["]", "", "]]"]),
    ).map(lambda made: (made[0] + "[" + ",".join(made[1]) + made[2]).encode())
)


@given(TAILS)
@example(b"[" * 300)
@example(b"[" + b'{"a":' * MAX_DEPTH)
def test_whatever_comes_the_short_way_takes_nothing_that_the_long_way_reads_otherwise(tail: bytes) -> None:
    """Nor does it raise anything. What is in another namespace it leaves alone."""
    frame = b"42" + tail
    if decode_event(frame) is not None:
        assert agree(frame)


@given(st.integers(90, 110), st.booleans(), st.integers(0, 60))
def test_the_short_way_goes_as_deep_as_the_long_way(depth: int, in_lists: bool, beside: int) -> None:
    """Or less deep, where brackets stand beside each other too."""
    opening, closing = (b"[", b"]") if in_lists else (b'{"a":', b"}")
    frame = b'42["a"%b,%b1%b]' % (b",[]" * beside, opening * (depth - 1), closing * (depth - 1))
    taken = agree(frame)
    assert taken is (depth + beside <= MAX_DEPTH)
    assert (by_the_long_way(frame) is not None) is (depth <= MAX_DEPTH)
