"""Socket.IO: what a client says in a session, with either parser."""

from __future__ import annotations

from typing import Any

from iogate.errors import ProtocolError
from iogate.protocol.engineio.connection import Role
from iogate.protocol.engineio.packets import Encoded
from iogate.protocol.socketio import msgpack
from iogate.protocol.socketio.connection import MAX_NAMESPACES, Connection, State
from iogate.protocol.socketio.json import JSON, Decoder, decode_event
from iogate.protocol.socketio.msgpack import MSGPACK
from iogate.protocol.socketio.packets import (
    MAX_DEPTH,
    MAX_ID_DIGITS,
    MAX_NAMESPACE,
    Oversized,
    Packet,
    PacketType,
    Parser,
)

SEPARATOR = b"\x1e"
"""What stands between two messages of one input, as in a payload; a binary one begins with `b`."""
MAX_ATTACHMENTS = 3
_NO_LIMIT = 10**9
EVENT = b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x92\xa1a"
"""The beginning of an event in MessagePack; its one argument is what follows."""


def socketio_json(data: bytes) -> bool:
    """Take any bytes for what one client says: CONNECT, events, and the attachments that follow them.

    It is accepted if all of it is.
    """
    connection = Connection(Role.SERVER, max_attachments=MAX_ATTACHMENTS)
    accepted = False
    for message in data.split(SEPARATOR):
        binary = message.startswith(b"b")
        frame = message[1:] if binary else message
        if not binary:
            _same_by_the_short_way(frame)
        try:
            packet = connection.receive(frame, binary=binary)
        except ProtocolError:
            return False  # A server closes the connection.
        if packet is not None:
            accepted = True
            _check(packet, JSON)
            assert not binary or not _holds_placeholder(packet.data)
            _answer(connection, packet)
        assert len(connection._states) <= MAX_NAMESPACES
    return accepted


def _answer(connection: Connection, packet: Packet) -> None:
    """Let it in, or out: most of what a client may say it may say only then."""
    if packet.type is PacketType.CONNECT:
        connection.accept(packet.namespace, "sid")
        connection.admitted = True
        assert connection.state(packet.namespace) is State.CONNECTED
    elif packet.type is PacketType.EVENT and packet.data[0] == "leave":
        connection.disconnect(packet.namespace)


def _same_by_the_short_way(frame: bytes) -> None:
    """`decode_event` takes only what the general way takes, and reads the same in it."""
    event = decode_event(b"4" + frame) if frame.startswith(b"2") else None
    if event is not None:
        packet = Decoder().text(frame)
        assert (packet.type, packet.namespace) == (PacketType.EVENT, "/")
        assert repr(event) == repr((packet.data, packet.id))


def socketio_msgpack(data: bytes) -> bool:
    """Take any bytes for a packet in MessagePack; and for the argument of an event, in a packet that is a good one."""
    accepted = _msgpack(data)
    _msgpack(EVENT + data)
    return accepted


def _msgpack(message: bytes) -> bool:
    try:
        packet = msgpack.Decoder().binary(message)
    except ProtocolError:
        return False
    _check(packet, MSGPACK)
    return True


def _check(packet: Packet, parser: Parser) -> None:
    """Make sure that a packet that was accepted is within the limits, and means the same when it is sent on."""
    assert packet.namespace.startswith("/")
    assert len(packet.namespace.encode()) <= MAX_NAMESPACE
    assert packet.id is None or 0 <= packet.id < 10**MAX_ID_DIGITS
    if isinstance(packet.data, Oversized):
        return  # The payload of CONNECT was not read: it was refused by its size.
    assert _depth(packet.data) <= MAX_DEPTH
    assert parser is not JSON or _attachments(packet.data) <= MAX_ATTACHMENTS
    # As text: NaN is not equal to itself, True is equal to 1.
    assert repr(_decoded(parser, parser.encode(packet))) == repr(packet)


def _decoded(parser: Parser, encoded: Encoded) -> Packet | None:
    # A payload may be longer as we write it than as it came: its size is not what this compares.
    decoder = parser.decoder(MAX_ATTACHMENTS, _NO_LIMIT)
    packet = decoder.text(encoded.text, 1) if encoded.text else None
    for attachment in encoded.attachments:
        packet = decoder.binary(attachment)
    return packet


def _children(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [child for parent in level for child in _children(parent)]:
        depth += 1
    return depth


def _attachments(value: Any) -> int:
    return int(isinstance(value, bytes)) + sum(map(_attachments, _children(value)))


def _holds_placeholder(value: Any) -> bool:
    return (isinstance(value, dict) and value.get("_placeholder") is True) or any(
        map(_holds_placeholder, _children(value))
    )
