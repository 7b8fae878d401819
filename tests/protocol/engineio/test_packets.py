"""An Engine.IO packet is a digit and a body, byte by byte as the protocol has it."""

from __future__ import annotations

import json

import pytest

from iogate.protocol.engineio import packets
from iogate.protocol.engineio.packets import Encoded, OpenPacket, PacketType

from ..peers import OPEN


@pytest.mark.parametrize(
    ("type_", "digit"),
    [
        (PacketType.OPEN, 0),
        (PacketType.CLOSE, 1),
        (PacketType.PING, 2),
        (PacketType.PONG, 3),
        (PacketType.MESSAGE, 4),
        (PacketType.UPGRADE, 5),
        (PacketType.NOOP, 6),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_type_has_the_digit_that_the_protocol_gives_it(type_: PacketType, digit: int) -> None:
    assert type_ == digit


def test_there_are_seven_types() -> None:
    assert len(PacketType) == 7


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (packets.CLOSE, b"1"),
        (packets.PING, b"2"),
        (packets.PONG, b"3"),
        (packets.PROBE, b"2probe"),
        (packets.PROBE_ANSWER, b"3probe"),
        (packets.UPGRADE, b"5"),
        (packets.NOOP, b"6"),
    ],
)
def test_a_packet_without_data_is_these_bytes(packet: Encoded, text: bytes) -> None:
    assert packet.text == text
    assert packet.string == text.decode()
    assert list(packet.attachments) == []
    assert packet.size == len(text)


def test_a_message_begins_with_4_and_the_revision_is_4() -> None:
    assert packets.MESSAGE_DIGIT == b"4"
    assert packets.REVISION == "4"


def test_open_is_the_bytes_of_the_published_example() -> None:
    assert OPEN.encode().text == (
        b'0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,'
        b'"maxPayload":1000000}'
    )


def test_open_has_five_members_and_no_other_also_without_upgrades() -> None:
    packet = OpenPacket(sid="é", upgrades=(), ping_interval=1, ping_timeout=2, max_payload=3).encode()
    assert json.loads(packet.string[1:]) == {
        "sid": "é",
        "upgrades": [],
        "pingInterval": 1,
        "pingTimeout": 2,
        "maxPayload": 3,
    }


def test_open_cannot_be_changed_once_it_is_made() -> None:
    with pytest.raises(AttributeError):
        OPEN.sid = "another"  # type: ignore[misc]


def test_the_size_of_a_packet_is_that_of_its_text_and_its_attachments_in_bytes() -> None:
    assert Encoded("4é".encode()).size == 3
    assert Encoded(b"4", [b"12", b"", b"345"]).size == 6


def test_the_text_is_decoded_once_for_all_recipients() -> None:
    packet = Encoded("4grüße an alle".encode())
    assert packet.string == "4grüße an alle"
    assert packet.string is packet.string


def test_a_repr_says_how_large_a_packet_is_and_not_what_is_in_it() -> None:
    assert repr(Encoded(b'40{"token":"secret"}', [b"secret"])) == "<Encoded 26 bytes, 1 attachments>"
