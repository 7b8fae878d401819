"""Packets are written and read as `socket.io-msgpack-parser` has them, limits hold, and nothing but they is raised."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import itertools
import math
import tracemalloc
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate.errors import ProtocolError
from iogate.protocol.socketio import json
from iogate.protocol.socketio.msgpack import MAX_PIECES, Decoder, encode
from iogate.protocol.socketio.packets import (
    MAX_DEPTH,
    MAX_ID_DIGITS,
    MAX_NAMESPACE,
    RESERVED_EVENTS,
    Packet,
    PacketType,
)

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR = list(PacketType)[:5]

UNDEFINED = b"\xd4\0\0"


def mp(value: Any) -> bytes:
    """Write MessagePack, by the library."""
    return msgspec.msgpack.encode(value)


def frame(data: bytes | None, type_: bytes = b"\2", nsp: bytes = b"\xa1/", id_: bytes | None = None) -> bytes:
    """Put a packet together from members that are MessagePack already. None leaves one out."""
    members = {"type": type_, "data": data, "nsp": nsp, "id": id_}
    there = {name: value for name, value in members.items() if value is not None}
    return bytes([0x80 + len(there)]) + b"".join(mp(name) + value for name, value in there.items())


def array(*items: bytes) -> bytes:
    """Write a list of values that are MessagePack already."""
    return b"\xdd" + len(items).to_bytes(4) + b"".join(items)


def event(*args: bytes) -> bytes:
    """Write an event `a` whose arguments are MessagePack already."""
    return frame(array(b"\xa1a", *args))


def decode(message: bytes) -> Packet:
    decoder = Decoder(0)
    packet = decoder.binary(message)
    assert not decoder.waiting
    return packet


def arguments(*args: bytes) -> Any:
    """Return the arguments of an event, as they are read."""
    name, *found = decode(event(*args)).data
    assert name == "a"
    return found


def refuse(message: bytes) -> str:
    with pytest.raises(ProtocolError) as error:
        Decoder().binary(message)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None or error.value.__suppress_context__, "the peer may be quoted there"
    return str(error.value)


def written(packet: Packet) -> bytes:
    """Return the only frame of a packet."""
    encoded = encode(packet)
    assert encoded.text == b""
    [data] = encoded.attachments
    assert encoded.size == len(data)
    return data


def same(left: Any, right: Any) -> bool:
    """Say whether two values are equal and of the same types: for Python 1, 1.0 and True are equal."""
    return left == right and repr(left) == repr(right)


# What these tests hold for right was written by socket.io-msgpack-parser 3.0.2 with notepack.io 2.2.0, in Node.

BOTH_WAYS: list[Any] = [
    pytest.param(
        bytes.fromhex("82a47479706500a36e7370a12f"),
        Packet(CONNECT),
        id="CONNECT without payload",
    ),
    pytest.param(
        bytes.fromhex("83a47479706500a46461746181a5746f6b656ea3616263a36e7370a62f61646d696e"),
        Packet(CONNECT, "/admin", {"token": "abc"}),
        id="CONNECT with a token",
    ),
    pytest.param(
        bytes.fromhex("83a47479706500a46461746181a3736964b4775a58336f4e30625356496873616b6e41414149a36e7370a12f"),
        Packet(CONNECT, data={"sid": "wZX3oN0bSVIhsaknAAAI"}),
        id="CONNECT with a sid",
    ),
    pytest.param(
        bytes.fromhex(
            "83a47479706504a46461746182a76d657373616765a26e6fa46461746181a4636f6465a178a36e7370a62f61646d696e"
        ),
        Packet(CONNECT_ERROR, "/admin", {"message": "no", "data": {"code": "x"}}),
        id="CONNECT_ERROR",
    ),
    pytest.param(
        bytes.fromhex("82a47479706501a36e7370a62f61646d696e"),
        Packet(DISCONNECT, "/admin"),
        id="DISCONNECT",
    ),
    pytest.param(
        bytes.fromhex("83a47479706502a46461746192a3686579a44a756465a36e7370a12f"),
        Packet(EVENT, data=["hey", "Jude"]),
        id="EVENT",
    ),
    pytest.param(
        bytes.fromhex("84a47479706502a46461746194a3666f6f01a13281a13391c3a36e7370a62f61646d696ea269640d"),
        Packet(EVENT, "/admin", ["foo", 1, "2", {"3": [True]}], 13),
        id="EVENT with an id",
    ),
    pytest.param(
        bytes.fromhex("84a47479706503a46461746190a36e7370a12fa26964cd012c"),
        Packet(ACK, data=[], id=300),
        id="ACK",
    ),
    pytest.param(
        bytes.fromhex("84a47479706502a46461746194a162c400c40301020381a16691c40178a36e7370a12fa2696400"),
        Packet(EVENT, data=["b", b"", b"\1\2\3", {"f": [b"x"]}], id=0),
        id="EVENT with bytes",
    ),
    pytest.param(
        bytes.fromhex("84a47479706503a46461746191c4020102a36e7370a12fa2696407"),
        Packet(ACK, data=[b"\1\2"], id=7),
        id="ACK with bytes",
    ),
    pytest.param(
        bytes.fromhex("83a47479706502a46461746196a173c0c3c2a0a9c3a9e282acf09f9880a36e7370a82f6772c3bcc39f65"),
        Packet(EVENT, "/grüße", ["s", None, True, False, "", "é€😀"]),
        id="scalars",
    ),
    pytest.param(
        bytes.fromhex(
            "83a47479706502a46461746192bf78787878787878787878787878787878787878787878787878787878787878d920787878"
            "7878787878787878787878787878787878787878787878787878787878a36e7370a12f"
        ),
        Packet(EVENT, data=["x" * 31, "x" * 32]),
        id="strings by length",
    ),
    pytest.param(
        bytes.fromhex(
            "83a47479706502a4646174619ba12b007fcc80ccffcd0100cdffffce00010000ceffffffffcf0000000100000000cf001fff"
            "ffffffffffa36e7370a12f"
        ),
        Packet(EVENT, data=["+", 0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53 - 1]),
        id="positive integers",
    ),
    pytest.param(
        bytes.fromhex(
            "83a47479706502a4646174619ba12dffe0d0dfd080d1ff7fd18000d2ffff7fffd280000000d3ffffffff7fffffffd3ffe000"
            "0000000001a36e7370a12f"
        ),
        Packet(EVENT, data=["-", -1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, 1 - 2**53]),
        id="negative integers",
    ),
    pytest.param(
        bytes.fromhex(
            "83a47479706502a46461746195a166cb3ff8000000000000cbbfb999999999999acb7ff0000000000000cbfff00000000000"
            "00a36e7370a12f"
        ),
        Packet(EVENT, data=["f", 1.5, -0.1, math.inf, -math.inf]),
        id="fractions",
    ),
    pytest.param(
        bytes.fromhex(
            "83a47479706502a46461746195a1639080dc001001010101010101010101010101010101de0010a16100a16200a16300a164"
            "00a16500a16600a16700a16800a16900a16a00a16b00a16c00a16d00a16e00a16f00a17000a36e7370a12f"
        ),
        Packet(EVENT, data=["c", [], {}, [1] * 16, dict.fromkeys("abcdefghijklmnop", 0)]),
        id="lists and objects",
    ),
]

ONE_WAY: list[Any] = [
    pytest.param(
        bytes.fromhex("83a47479706500a464617461d40000a36e7370a12f"),
        Packet(CONNECT),
        id="CONNECT, the auth of which is undefined",
    ),
    pytest.param(
        bytes.fromhex("83a47479706500a46461746181a5746f6b656ed40000a36e7370a12f"),
        Packet(CONNECT, data={}),
        id="CONNECT with an undefined token",
    ),
    pytest.param(
        bytes.fromhex(
            "85a47479706502a46461746192a3686579a44a756465a76f7074696f6e7381a8636f6d7072657373c3a2696400a36e7370a12f"
        ),
        Packet(EVENT, data=["hey", "Jude"], id=0),
        id="EVENT with the options of the client",
    ),
    pytest.param(
        bytes.fromhex("83a47479706502a46461746194a175d4000092d400000182a161d40000a16201a36e7370a12f"),
        Packet(EVENT, data=["u", None, [None, 1], {"b": 1}]),
        id="undefined",
    ),
    pytest.param(
        bytes.fromhex("83a47479706502a46461746193a161c7010000c708000102030405060708a36e7370a12f"),
        Packet(EVENT, data=["a", b"\0", b"\1\2\3\4\5\6\7\x08"]),
        id="ArrayBuffers and views",
    ),
    pytest.param(
        bytes.fromhex("83a47479706502a46461746193a1690100a36e7370a12f"),
        Packet(EVENT, data=["i", 1, 0]),
        id="integers as fractions",
    ),
    pytest.param(
        bytes.fromhex(
            "83a47479706502a46461746195a167cf0000000000000000cf0000000000000000cf8000000000000000d380000000000000"
            "00a36e7370a12f"
        ),
        Packet(EVENT, data=["g", 0, 0, 2**63, -(2**63)]),
        id="integers that the package cuts to 64 bits",
    ),
]
DATES: list[tuple[str, str]] = [
    ("d7000000000000000000", "1970-01-01T00:00:00.000Z"),
    ("d7000000018bcfe5687b", "2023-11-14T22:13:20.123Z"),
    ("d700ffffffffffffffff", "1969-12-31T23:59:59.999Z"),
    ("d7000000e677d21fdbff", "9999-12-31T23:59:59.999Z"),
    ("d7000000e677d21fdc00", "+010000-01-01T00:00:00.000Z"),
    ("d700001eb208c2dc0000", "+275760-09-13T00:00:00.000Z"),
    ("d700ffffc77590fba000", "0000-01-01T00:00:00.000Z"),
    ("d700ffffc77590fb9fff", "-000001-12-31T23:59:59.999Z"),
    ("d700ffffc76e394a73ff", "-000002-12-31T23:59:59.999Z"),
    ("d700ffe14df73d240000", "-271821-04-20T00:00:00.000Z"),
    ("d700000000dd9aa6e000", "2000-02-29T00:00:00.000Z"),
    ("d700fffff4e2f964ac00", "1582-10-15T00:00:00.000Z"),
]


@pytest.mark.parametrize(("message", "packet"), BOTH_WAYS)
def test_a_packet_is_written_as_the_npm_package_writes_it(message: bytes, packet: Packet) -> None:
    assert written(packet) == message


@pytest.mark.parametrize(("message", "packet"), BOTH_WAYS + ONE_WAY)
def test_what_the_npm_package_writes_is_read(message: bytes, packet: Packet) -> None:
    assert same(decode(message), packet)


@pytest.mark.parametrize(("extension", "text"), DATES)
def test_a_date_is_read_as_its_to_json(extension: str, text: str) -> None:
    assert arguments(bytes.fromhex(extension)) == [text]


# Written by MsgPackPacket of python-socketio 5.18.1 with msgpack 1.2.4.
BY_PYTHON: list[Any] = [
    pytest.param(
        bytes.fromhex("83a47479706500a46461746181a5746f6b656ea3616263a36e7370a12f"),
        Packet(CONNECT, data={"token": "abc"}),
        id="CONNECT with a token",
    ),
    pytest.param(
        bytes.fromhex("83a47479706500a46461746180a36e7370a62f61646d696e"),
        Packet(CONNECT, "/admin", {}),
        id="CONNECT without one",
    ),
    pytest.param(
        bytes.fromhex("83a47479706501a464617461c0a36e7370a12f"),
        Packet(DISCONNECT),
        id="DISCONNECT with a null",
    ),
    pytest.param(
        bytes.fromhex("84a47479706502a46461746194a3686579a44a756465c402010291cb3ff0000000000000a36e7370a12fa2696401"),
        Packet(EVENT, data=["hey", "Jude", b"\1\2", [1.0]], id=1),
        id="EVENT",
    ),
    pytest.param(bytes.fromhex("84a47479706503a46461746190a36e7370a12fa2696401"), Packet(ACK, data=[], id=1), id="ACK"),
]


@pytest.mark.parametrize(("message", "packet"), BY_PYTHON)
def test_what_python_socketio_writes_is_read(message: bytes, packet: Packet) -> None:
    assert same(decode(message), packet)


@pytest.mark.parametrize(
    ("message", "packet"),
    [
        pytest.param(frame(None, b"\0"), Packet(CONNECT), id="no payload"),
        pytest.param(frame(UNDEFINED, b"\1"), Packet(DISCONNECT), id="a payload that is undefined"),
        pytest.param(frame(mp("no"), b"\4"), Packet(CONNECT_ERROR, data="no"), id="an error of version 4"),
        pytest.param(frame(array(b"\xa1a"), id_=b"\xc0"), Packet(EVENT, data=["a"]), id="an id that is null"),
        pytest.param(frame(array(b"\7")), Packet(EVENT, data=["7"]), id="a number as name"),
        pytest.param(
            frame(array(b"\xdb\0\0\0\1a")), Packet(EVENT, data=["a"]), id="a length in more bytes than needed"
        ),
        pytest.param(frame(array(b"\xa1a", b"\xca\x3f\xc0\0\0")), Packet(EVENT, data=["a", 1.5]), id="a float 32"),
        pytest.param(frame(array(b"\xa0")), Packet(EVENT, data=[""]), id="an empty name"),
        pytest.param(
            b"\x85\xa4type\1\xa4data\xc0\xa4type\2\xa4data\x91\xa1a\xa3nsp\xa1/",
            Packet(EVENT, data=["a"]),
            id="the last of equal members of the packet",
        ),
        pytest.param(event(b"\x82\xa1b\1\xa1b\2"), Packet(EVENT, data=["a", {"b": 2}]), id="the last of equal members"),
        pytest.param(
            event(b"\x82\xa1b\xc0\xa1b\xc4\0"), Packet(EVENT, data=["a", {"b": b""}]), id="the last of them, bytes"
        ),
    ],
)
def test_what_is_not_written_by_them_but_means_the_same_is_read(message: bytes, packet: Packet) -> None:
    assert same(decode(message), packet)


# Round trips.

NAMESPACES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=","), max_size=60).map("/".__add__)
IDS = st.integers(0, 10**MAX_ID_DIGITS - 1)
NAMES = st.text(max_size=20).filter(lambda name: name not in RESERVED_EVENTS)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=40)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=8), inner, max_size=20)
    )


DATA = nested(SCALARS | st.binary(max_size=40))


@given(NAMES, DATA, NAMESPACES, st.none() | IDS)
def test_an_event_arrives_as_it_was_sent(name: str, data: Any, namespace: str, id_: int | None) -> None:
    packet = Packet(EVENT, namespace, [name, data], id_)
    assert repr(decode(written(packet))) == repr(packet)


@given(DATA, NAMESPACES, IDS)
def test_an_acknowledgement_arrives_as_it_was_sent(data: Any, namespace: str, id_: int) -> None:
    packet = Packet(ACK, namespace, [data], id_)
    assert repr(decode(written(packet))) == repr(packet)


SMALL = SCALARS | st.binary(max_size=40) | st.lists(SCALARS, max_size=5)
"""A few of these are within what a CONNECT may have."""


@given(st.none() | st.dictionaries(st.text(max_size=8), SMALL, max_size=4), NAMESPACES)
def test_all_else_arrives_as_it_was_sent(payload: dict[str, Any] | None, namespace: str) -> None:
    for packet in (
        Packet(CONNECT, namespace, payload),
        Packet(CONNECT_ERROR, namespace, {"message": "no", "data": payload}),
        Packet(DISCONNECT, namespace),
    ):
        assert repr(decode(written(packet))) == repr(packet)


@given(st.integers(1, MAX_DEPTH - 1), st.booleans(), SCALARS | st.binary(max_size=9))
def test_data_arrives_at_any_depth_up_to_the_limit(depth: int, in_lists: bool, data: Any) -> None:
    for _ in range(depth):
        data = [data] if in_lists else {"a": data}
    packet = Packet(EVENT, data=["deep", data])
    assert repr(decode(written(packet))) == repr(packet)


@given(nested(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=40)))
def test_a_handler_sees_what_it_would_see_with_the_json_parser(data: Any) -> None:
    packet = Packet(EVENT, data=["a", data])
    text = json.encode(packet).text
    assert text is not None
    assert same(decode(written(packet)), json.Decoder().text(text, 1))


# What is sent.


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2020, 2, 29, 12, tzinfo=dt.UTC),
        dt.date(2020, 2, 29),
        uuid.UUID(int=1),
        PacketType.ACK,
        Point(1),
        {1},
        (1, (2,)),
        {1: "a", 1.5: "b", "c": "d"},
    ],
    ids=repr,
)
def test_what_json_has_no_type_for_is_written_as_the_json_parser_writes_it(value: Any) -> None:
    packet = Packet(EVENT, data=["a", value])
    text = json.encode(packet).text
    assert text is not None
    assert same(decode(written(packet)), json.Decoder().text(text, 1))


class Color(enum.Enum):
    RED = "red"
    RGB = b"\xff\0\0"


@dataclasses.dataclass
class Palette:
    colors: dict[Any, int]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (b"a", "YQ=="),
        (memoryview(b"a"), "YQ=="),
        (Color.RED, "red"),
        (Color.RGB, "/wAA"),
        (PacketType.ACK, "3"),
        (1, "1"),
        (dt.date(2020, 2, 29), "2020-02-29"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
    ids=[
        "bytes",
        "memoryview",
        "string enumeration",
        "bytes enumeration",
        "integer enumeration",
        "integer",
        "date",
        "UUID",
    ],
)
def test_a_key_is_written_alike_by_both_parsers_and_with_every_release_of_msgspec(key: Any, name: str) -> None:
    packet = Packet(EVENT, data=["a", {key: 1}, [{key: 1}], {"b": ({key: 1},)}, Palette({key: 1}), b"c"])
    object_ = {name: 1}
    expected = ["a", object_, [object_], {"b": [object_]}, {"colors": object_}, b"c"]
    assert decode(written(packet)).data == expected
    encoded = json.encode(packet)
    assert encoded.text is not None
    decoder = json.Decoder()
    decoder.text(encoded.text, 1)
    [attachment] = encoded.attachments
    read = decoder.binary(attachment)
    assert read is not None
    assert read.data == expected


@pytest.mark.parametrize("key", [None, True, (1, 2), 1j, frozenset([1]), Point], ids=str)
def test_a_key_that_json_does_not_have_is_the_error_of_who_sends_it_with_both_parsers(key: Any) -> None:
    for data in (["a", {key: 1}], ["a", {key: b"1"}], ["a", {b"b": 1}, {key: 1}]):
        for parser in (encode, json.encode):
            with pytest.raises(TypeError):
                parser(Packet(EVENT, data=data))


def test_bytes_of_every_kind_stay_bytes() -> None:
    data = ("a", bytearray(b"1"), [memoryview(b"2")], {"b": (b"3",)})
    assert decode(written(Packet(EVENT, data=data))).data == ["a", b"1", [b"2"], {"b": [b"3"]}]


def test_what_is_not_there_is_left_out_and_not_null() -> None:
    # The official decoder takes no null for the payload of DISCONNECT, and none for an id.
    assert b"data" not in written(Packet(DISCONNECT))
    assert b"id" not in written(Packet(EVENT, data=["a"]))


def test_writing_a_packet_leaves_its_data_as_it_was() -> None:
    packet = Packet(EVENT, data=["a", {"b": (b"1", {2: 3})}])
    encode(packet)
    assert packet == Packet(EVENT, data=["a", {"b": (b"1", {2: 3})}])


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (object(), TypeError),
        (1j, TypeError),
        ({None: 1}, TypeError),
        ({(1, 2): 1}, TypeError),
        ("\ud800", UnicodeEncodeError),
        ({"\ud800": 1}, UnicodeEncodeError),
    ],
    ids=[
        "object",
        "complex",
        "None as a name",
        "tuple as a name",
        "surrogate",
        "surrogate as a name",
    ],
)
def test_data_without_a_messagepack_of_its_own_is_the_error_of_who_sends_it(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode(Packet(EVENT, data=["a", value]))


def test_a_namespace_that_is_no_text_is_the_error_of_who_sends_it() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode(Packet(EVENT, "/\ud800", ["a"]))


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**5000], ids=["large", "small", "huge"])
def test_an_integer_of_more_than_64_bits_is_the_error_of_who_sends_it(number: int) -> None:
    with pytest.raises(ValueError, match="an integer of more than 64 bits has no MessagePack"):
        encode(Packet(EVENT, data=["a", number]))


def test_data_that_contains_itself_is_the_error_of_who_sends_it() -> None:
    data: list[Any] = ["a"]
    data.append(data)
    with pytest.raises(RecursionError):
        encode(Packet(EVENT, data=data))


# Numbers.


def test_a_number_that_json_does_not_have_arrives() -> None:
    nan, positive, negative = arguments(mp(math.nan), mp(math.inf), mp(-math.inf))
    assert math.isnan(nan)
    assert (positive, negative) == (math.inf, -math.inf)


def test_integers_arrive_whole_up_to_64_bits() -> None:
    assert arguments(mp(2**53 + 1), mp(2**64 - 1), mp(-(2**63))) == [2**53 + 1, 2**64 - 1, -(2**63)]


# Extensions.


@pytest.mark.parametrize("header", [b"\xc7\5", b"\xc8\0\5", b"\xc9\0\0\0\5"], ids=["8", "16", "32"])
def test_an_array_buffer_of_any_length_is_bytes(header: bytes) -> None:
    assert arguments(header + b"\0bytes") == [b"bytes"]


def test_an_array_buffer_is_not_taken_for_what_is_as_long() -> None:
    assert arguments(b"\xc7\1\0\0", b"\xc7\x08\0" + bytes(8)) == [b"\0", bytes(8)]
    assert arguments(b"\xc7\0\0") == [b""]


@pytest.mark.parametrize(
    "extension",
    [
        pytest.param(b"\xd4\1\0", id="another type, 1 byte"),
        pytest.param(b"\xd5\0\0\0", id="2 bytes"),
        pytest.param(b"\xd6\0" + bytes(4), id="4 bytes"),
        pytest.param(b"\xd7\1" + bytes(8), id="another type, 8 bytes"),
        pytest.param(b"\xd8\0" + bytes(16), id="16 bytes"),
        pytest.param(b"\xd6\xff" + bytes(4), id="a timestamp of 32 bits"),
        pytest.param(b"\xd7\xff" + bytes(8), id="a timestamp of 64 bits"),
        pytest.param(b"\xc7\x0c\xff" + bytes(12), id="a timestamp of 96 bits"),
        pytest.param(b"\xc7\x03\1abc", id="another type"),
        pytest.param(b"\xc8\0\3\x7fabc", id="another type, 16 bits"),
        pytest.param(b"\xc9\0\0\0\3\x80abc", id="another type, 32 bits"),
    ],
)
def test_an_extension_that_the_npm_package_does_not_write_is_refused(extension: bytes) -> None:
    for message in (event(extension), event(b"\x81\xa1a" + extension), event(array(extension))):
        assert refuse(message) == "an extension that is not one of the Socket.IO parser"


@pytest.mark.parametrize("milliseconds", [8_640_000_000_000_001, -8_640_000_000_000_001, 2**63 - 1, -(2**63)])
def test_a_date_that_javascript_does_not_have_is_refused(milliseconds: int) -> None:
    assert refuse(event(b"\xd7\0" + milliseconds.to_bytes(8, signed=True))) == "a date that JavaScript does not have"


# Limits: at each, and one beyond.


@pytest.mark.parametrize(
    "leaf", [b"\1", b"\xc4\0", UNDEFINED, b"\x80", b"\x90"], ids=["int", "bytes", "undefined", "{}", "[]"]
)
def test_lists_and_maps_are_within_each_other_as_deep_as_the_limit_says_and_not_deeper(leaf: bytes) -> None:
    inside = MAX_DEPTH - 1 - (leaf in {b"\x80", b"\x90"})
    for opened in (b"\x91", b"\x81\xa1a", b"\x92\1"):
        assert arguments(opened * inside + leaf)
        assert refuse(event(opened * (inside + 1) + leaf)) == f"MessagePack nested deeper than {MAX_DEPTH}"
    for message in (b"\x91" * MAX_DEPTH, b"\x81\xa1a" * MAX_DEPTH):
        assert refuse(frame(message + b"\x90", b"\2")) == f"MessagePack nested deeper than {MAX_DEPTH}"


@pytest.mark.parametrize("opened", [b"\x91", b"\x81\xa1a"], ids=["lists", "maps"])
def test_no_depth_is_too_much_for_the_stack(opened: bytes) -> None:
    for depth in range(MAX_DEPTH, 1100):
        assert len(refuse(event(opened * depth + b"\xc4\0"))) < 100
        assert len(refuse(frame(None, nsp=opened * depth + b"\1"))) < 100


LYING = [
    b"\xdd\xff\xff\xff\xff", b"\xdd\x7f\xff\xff\xff", b"\xdc\xff\xff", b"\x9f", b"\xdf\xff\xff\xff\xff",
    b"\xde\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\0",
    b"\xdf\0\0\0\1\xdd\xff\xff\xff\xff",
]  # fmt: skip


@pytest.mark.parametrize("header", LYING, ids=bytes.hex)
def test_a_count_that_is_not_true_is_refused_without_memory_for_it(header: bytes) -> None:
    for message in (
        event(header),
        event(header + b"\1" * 10),
        event(header * 90),
        event(b"\xc4\0", header),
        frame(header),
        frame(header, b"\0"),
        frame(None, nsp=header),
        frame(None, type_=header),
        header,
        b"\x83" + header,
    ):
        tracemalloc.start()
        try:
            refuse(message)
            assert tracemalloc.get_traced_memory()[1] < 200_000
        finally:
            tracemalloc.stop()


def test_bytes_beside_many_values_are_read_up_to_the_limit_and_not_one_more() -> None:
    # Two are the name and the list; to pass over 512 bytes counts as one more.
    for leaf in (b"\xc4\0", UNDEFINED, b"\x91\xc4\0"):
        pieces = MAX_PIECES // 2 - 2000
        assert len(arguments(array(*[leaf] * pieces))[0]) == pieces
        assert refuse(event(array(*[leaf] * (MAX_PIECES + 1)))) == (
            f"more than {MAX_PIECES} values beside bytes or extensions"
        )
        members = b"".join(mp(f"{number}") + leaf for number in range(MAX_PIECES + 1))
        assert "beside bytes" in refuse(event(b"\xdf" + (MAX_PIECES + 1).to_bytes(4) + members))


def test_many_levels_around_much_data_are_not_gone_through_again_and_again() -> None:
    much = array(*[b"\1"] * 900_000)
    assert arguments(b"\x92" * 10 + much + b"\xc0" * 10)
    assert "beside bytes" in refuse(event(b"\x92" * 90 + much + b"\xc0" * 90))


def test_values_without_bytes_have_no_limit_but_the_size_of_the_frame() -> None:
    many = array(*[b"\1"] * (2 * MAX_PIECES))
    assert arguments(many) == [[1] * 2 * MAX_PIECES]
    # Nor have those that only stand in the same packet.
    assert arguments(many, b"\xc4\1a", b"\x81\xa1a" + many) == [
        [1] * 2 * MAX_PIECES,
        b"a",
        {"a": [1] * 2 * MAX_PIECES},
    ]


def test_a_megabyte_of_bytes_is_one_value() -> None:
    data = bytes(1_000_000)
    assert arguments(mp(data), mp([data, {"a": data}])) == [data, [data, {"a": data}]]


def test_an_id_has_as_many_digits_as_the_limit_says_and_not_one_more() -> None:
    largest = 10**MAX_ID_DIGITS - 1
    assert decode(frame(array(b"\xa1a"), id_=mp(largest))).id == largest
    assert decode(frame(b"\x90", b"\3", id_=mp(0))).id == 0
    for id_ in (largest + 1, 2**64 - 1, -1, -(2**63)):
        for message in (frame(array(b"\xa1a"), id_=mp(id_)), frame(b"\x90", b"\3", id_=mp(id_))):
            assert refuse(message) == f"an acknowledgement id that is negative or has more than {MAX_ID_DIGITS} digits"


def test_the_name_of_a_namespace_is_as_long_as_the_limit_says_in_bytes_and_not_longer() -> None:
    for longest in ("/" + "a" * (MAX_NAMESPACE - 1), "/a" + "ü" * (MAX_NAMESPACE // 2 - 1)):
        assert decode(frame(None, b"\0", mp(longest))).namespace == longest
        assert "longer than" in refuse(frame(None, b"\0", mp(longest + "a")))


# The grammar.


@pytest.mark.parametrize("text", [b"", b"2", b'2["a"]', b"0", b'0{"token":"x"}', frame(None, b"\0")])
def test_a_text_message_is_refused(text: bytes) -> None:
    for start in (0, 1):
        with pytest.raises(ProtocolError, match="a text message, where packets are MessagePack"):
            Decoder().text(text, start)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\xc0", id="null"),
        pytest.param(b"\2", id="a number"),
        pytest.param(mp('2["a"]'), id="a string"),
        pytest.param(b"\x80", id="an empty map"),
        pytest.param(mp([2, "/", ["a"]]), id="a list"),
        pytest.param(mp({"nsp": "/", "data": ["a"]}), id="no type"),
        pytest.param(mp({"type": 2, "data": ["a"]}), id="no namespace"),
        pytest.param(mp({1: 2, "type": 2, "nsp": "/"}), id="a key that is a number"),
        pytest.param(mp({b"type": 2, "nsp": "/"}), id="a key that is bytes"),
        pytest.param(mp({"type": 2, "nsp": "/", (1, 2): 3}), id="a key that is a list"),
        *(
            pytest.param(frame(b"\x91\xa1a", **{name: value}), id=f"{name} {value.hex()}")
            for name, values in {
                "type_": (b"\xc0", b"\xc3", b"\xa12", mp(2.5), mp(math.nan), b"\x90", UNDEFINED, mp(b"2")),
                "nsp": (b"\xc0", b"\1", b"\xc2", b"\x90", b"\x80", mp(b"/"), UNDEFINED),
                "id_": (b"\xc3", b"\xa11", mp(1.5), b"\x90", b"\x80", UNDEFINED),
            }.items()
            for value in values
        ),
    ],
)
def test_a_message_that_is_no_packet_is_refused(message: bytes) -> None:
    assert refuse(message) == "a packet is a map with an integer `type`, a string `nsp`, and perhaps an `id`"


@pytest.mark.parametrize("type_", [-1, 5, 6, 7, 255, -(2**63), 2**64 - 1])
def test_a_packet_of_an_unknown_type_is_refused(type_: int) -> None:
    assert refuse(frame(array(b"\xa1a"), mp(type_), id_=b"\1")) == "a packet type that is not one of 0 to 4"


@pytest.mark.parametrize("name", ["", "a", " /", "admin", "\0/", ",", "/,", "/a,b"])
def test_a_namespace_without_a_slash_or_with_a_comma_is_refused(name: str) -> None:
    assert refuse(frame(None, b"\0", mp(name))) == "the name of a namespace begins with a slash and has no comma"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(None, id="nothing"),
        pytest.param(b"\xc0", id="null"),
        pytest.param(UNDEFINED, id="undefined"),
        pytest.param(b"\x80", id="a map"),
        pytest.param(b"\xa1a", id="a string"),
        pytest.param(b"\xc4\1a", id="bytes"),
        pytest.param(b"\x90", id="an empty list"),
        pytest.param(array(b"\xc0"), id="null as name"),
        pytest.param(array(b"\xc3"), id="true as name"),
        pytest.param(array(mp(1.5)), id="a fraction as name"),
        pytest.param(array(b"\x90"), id="a list as name"),
        pytest.param(array(b"\x80"), id="a map as name"),
        pytest.param(array(b"\xc4\1a"), id="bytes as name"),
        pytest.param(array(UNDEFINED), id="undefined as name"),
        *(pytest.param(array(mp(name)), id=name) for name in sorted(RESERVED_EVENTS)),
        *(pytest.param(array(mp(name), b"\xc4\0"), id=f"{name} and bytes") for name in sorted(RESERVED_EVENTS)),
    ],
)
def test_an_event_without_a_name_of_its_own_is_refused(data: bytes | None) -> None:
    assert refuse(frame(data)) == "an EVENT is a list with a name that is not reserved"


@pytest.mark.parametrize("data", [None, b"\xc0", UNDEFINED, b"\x80", b"\xa1a", b"\xc4\1a"])
def test_an_acknowledgement_that_is_no_list_is_refused(data: bytes | None) -> None:
    assert refuse(frame(data, b"\3", id_=b"\1")) == "an ACK is a list"


@pytest.mark.parametrize(
    ("type_", "data", "id_"),
    [
        (ACK, [], None),
        (CONNECT, {}, 7),
        (DISCONNECT, None, 7),
        (CONNECT_ERROR, {"message": "no"}, 0),
    ],
)
def test_an_id_where_none_belongs_or_none_where_one_does_is_refused(
    type_: PacketType, data: Any, id_: int | None
) -> None:
    message = frame(mp(data), mp(type_), id_=None if id_ is None else mp(id_))
    assert refuse(message) == f"{type_.name} and an acknowledgement id do not fit"


@pytest.mark.parametrize("data", [b"\x90", b"\xa1a", b"\xc3", b"\1", b"\xc4\0", b"\xd7\0" + bytes(8)])
def test_a_connect_or_disconnect_with_a_payload_of_another_kind_is_refused(data: bytes) -> None:
    assert refuse(frame(data, b"\0")) == "the payload of CONNECT is an object"
    assert refuse(frame(data, b"\1")) == "a DISCONNECT has no payload"


@pytest.mark.parametrize("data", [None, b"\xc0", b"\x90", b"\xc3", UNDEFINED])
def test_a_refusal_without_a_payload_is_refused(data: bytes | None) -> None:
    assert refuse(frame(data, b"\4")) == "the payload of CONNECT_ERROR is an object or a string"


KEYS = [b"\1", b"\xc0", b"\xc3", b"\xc4\1b", b"\x90", b"\x91\1", b"\xdc\0\2\1\2", b"\x80", mp(1.5), UNDEFINED]


@pytest.mark.parametrize("key", KEYS, ids=bytes.hex)
@pytest.mark.parametrize("leaf", [b"\1", b"\xc4\0"], ids=["int", "bytes"])
def test_a_map_with_a_key_that_is_not_a_string_is_refused(key: bytes, leaf: bytes) -> None:
    map_ = b"\x82\xa1a\1" + key + leaf
    for message in (event(map_), event(b"\x91" * 20 + map_), event(b"\x81\xa1a" * 90 + map_), frame(map_, b"\0")):
        assert refuse(message) == "a map with a key that is not a string"


def test_keys_that_all_have_the_same_hash_are_refused_before_they_are_in_a_dict() -> None:
    # To Python -1 and -2 have the same hash, and so have all lists of them, as tuples.
    keys = list(itertools.islice(itertools.product((-1, -2), repeat=15), 16_000))
    assert len(set(map(hash, keys))) == 1
    members = b"".join(b"\x9f" + bytes(0x100 + number for number in key) + b"\0" for key in keys)
    assert refuse(event(b"\xde" + len(keys).to_bytes(2) + members)) == "a map with a key that is not a string"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(event()[:-1], id="no end"),
        pytest.param(event() + b"\0", id="a byte too many"),
        pytest.param(event() + event(), id="two"),
        pytest.param(event(b"\xc1"), id="a byte that MessagePack does not have"),
        pytest.param(event(b"\xc4\0", b"\xc1"), id="a byte that MessagePack does not have, after bytes"),
        pytest.param(event(b"\xa1\xff"), id="not UTF-8"),
        pytest.param(event(b"\xa3\xed\xa0\x80"), id="half a surrogate pair"),
        pytest.param(event(b"\xc4\0", b"\xa1\xff"), id="not UTF-8, after bytes"),
        pytest.param(event(b"\x81\xa1\xff\1"), id="not UTF-8 in a key"),
        pytest.param(event(b"\x81\xa1\xff\xc4\0"), id="not UTF-8 in a key to bytes"),
        pytest.param(frame(None, b"\0", b"\xa2/\xff"), id="not UTF-8 in a namespace"),
        pytest.param(b"\x83\xa1\xff\1" + frame(None)[1:], id="not UTF-8 in a member"),
        pytest.param(b"\x91" * 1_000_000, id="lists"),
        pytest.param(b"\x83\xa1a" + b"\x91" * 1_000_000, id="lists in a member that is passed over"),
        pytest.param(event(b"\x81\xa1a" * 300_000), id="maps"),
        pytest.param(event(b"\xdd\xff\xff\xff\xff" * 200_000), id="lists that lie"),
    ],
)
def test_broken_messagepack_is_refused_and_its_content_is_not_in_the_error(message: bytes) -> None:
    assert refuse(message) in {
        "broken MessagePack",
        "MessagePack nested too deep",
        "a packet is a map with an integer `type`, a string `nsp`, and perhaps an `id`",
        "an EVENT is a list with a name that is not reserved",
    }


# Whatever comes.

PIECES = st.lists(
    st.sampled_from(
        [
            *(b"\x80", b"\x81", b"\x82", b"\x83", b"\x84", b"\x90", b"\x91", b"\x92", b"\xdc", b"\xdd", b"\xdf"),
            *(b"\xc0", b"\xc1", b"\xc3", b"\0", b"\1", b"\2", b"\xff", b"\xa1a", b"\xa1/", b"\xc4\1a", b"\xcb"),
            *(UNDEFINED, b"\xd7\0" + bytes(8), b"\xc7\1\0a", b"\xa4type", b"\xa4data", b"\xa3nsp", b"\xa2id"),
        ]
    ),
    max_size=14,
).map(b"".join)


@given(st.binary(max_size=60) | PIECES | PIECES.map(frame) | PIECES.map(event))
def test_any_message_is_read_or_refused_and_raises_nothing_else(message: bytes) -> None:
    try:
        packet = Decoder().binary(message)
    except ProtocolError:
        return
    assert repr(decode(written(packet))) == repr(packet)


@given(DATA, st.data())
def test_a_packet_of_which_some_bytes_are_others_is_read_or_refused(data: Any, draw: st.DataObject) -> None:
    message = bytearray(written(Packet(EVENT, data=["a", data])))
    for _ in range(draw.draw(st.integers(1, 3))):
        message[draw.draw(st.integers(0, len(message) - 1))] = draw.draw(st.integers(0, 255))
    try:
        packet = Decoder().binary(bytes(message))
    except ProtocolError:
        return
    assert repr(decode(written(packet))) == repr(packet)
