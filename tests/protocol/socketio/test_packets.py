"""The types of packets, the namespace that needs no name, and the names that no event may have."""

from __future__ import annotations

import pytest

from iogate.protocol.socketio.packets import RESERVED_EVENTS, ROOT, Packet, PacketType


@pytest.mark.parametrize(
    ("type_", "digit"),
    [
        (PacketType.CONNECT, 0),
        (PacketType.DISCONNECT, 1),
        (PacketType.EVENT, 2),
        (PacketType.ACK, 3),
        (PacketType.CONNECT_ERROR, 4),
        (PacketType.BINARY_EVENT, 5),
        (PacketType.BINARY_ACK, 6),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_type_has_the_digit_that_the_protocol_gives_it(type_: PacketType, digit: int) -> None:
    assert type_ == digit


def test_there_are_seven_types() -> None:
    assert len(PacketType) == 7


def test_a_packet_belongs_to_the_root_and_holds_nothing_unless_it_says_so() -> None:
    packet = Packet(PacketType.CONNECT)
    assert (packet.namespace, packet.data, packet.id) == (ROOT, None, None)
    assert ROOT == "/"


def test_packets_are_equal_when_all_that_they_say_is() -> None:
    packet = Packet(PacketType.EVENT, "/admin", ["foo"], 13)
    assert packet == Packet(PacketType.EVENT, "/admin", ["foo"], 13)
    assert packet != Packet(PacketType.ACK, "/admin", ["foo"], 13)
    assert packet != Packet(PacketType.EVENT, "/", ["foo"], 13)
    assert packet != Packet(PacketType.EVENT, "/admin", ["bar"], 13)
    assert packet != Packet(PacketType.EVENT, "/admin", ["foo"], None)


def test_the_reserved_events_are_those_of_the_reference_implementation() -> None:
    assert set(RESERVED_EVENTS) == {
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
    }
