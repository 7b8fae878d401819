"""Engine.IO: the payload of a polling request, and what each of its packets means to either side."""

from __future__ import annotations

from iogate.errors import ProtocolError
from iogate.protocol.engineio.connection import (
    PROBE_TRANSITIONS,
    Connection,
    Event,
    Probe,
    Role,
    State,
    Upgrade,
    parse_open,
)
from iogate.protocol.engineio.packets import Encoded, PacketType
from iogate.protocol.engineio.payload import Frame, decode_payload, encode_payload

MAX_PACKETS = 16
"""So few that an input of a few kilobytes may have more."""


def engineio(data: bytes) -> bool:
    """Take any bytes for the body of a polling request."""
    try:
        frames = decode_payload(data, max_packets=MAX_PACKETS)
    except ProtocolError:
        return False
    assert 0 < len(frames) <= MAX_PACKETS
    assert sum(len(frame.data) for frame in frames) <= len(data)
    packets = [Encoded(b"", (frame.data,)) if frame.binary else Encoded(frame.data) for frame in frames]
    assert decode_payload(encode_payload(packets)) == frames
    server = _session(Connection(Role.SERVER), frames)
    client = _session(Connection(Role.CLIENT), frames)
    return _upgrade(frames) or server or client


def _session(connection: Connection, frames: list[Frame]) -> bool:
    accepted = False
    for frame in frames:
        closed = connection.state is State.CLOSED
        try:
            event = connection.receive(frame.data, binary=frame.binary)
        except ProtocolError:
            assert connection.state is State.CLOSED
            continue
        assert not closed
        assert len(event.data) + (not event.binary) == len(frame.data)
        assert event.type in (PacketType.MESSAGE, PacketType.OPEN) or not event.data
        accepted = True
        _open(event)
    return accepted


def _open(event: Event) -> None:
    try:
        packet = parse_open(event)
    except ProtocolError:
        return
    assert parse_open(Event(PacketType.OPEN, packet.encode().text[1:])) == packet


def _upgrade(frames: list[Frame]) -> bool:
    upgrade = Upgrade(Role.SERVER)
    for frame in frames:
        before = upgrade.state
        try:
            after = upgrade.receive(frame.data, binary=frame.binary)
        except ProtocolError:
            assert upgrade.state is before
            continue
        assert not frame.binary
        assert after is upgrade.state is PROBE_TRANSITIONS[Role.SERVER, before, frame.data]
    return upgrade.state is Probe.DONE
