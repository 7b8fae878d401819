"""The default parser: JSON, with binary data as attachments.

The format of a packet is `<type>[<attachments>-][<namespace>,][<id>]<json>`. Each `bytes` object in the data is
replaced by a placeholder and sent as a separate frame (protocol section "Packet encoding"). Every number that the peer
chooses has a limit, which is checked before the items that it counts are processed.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from iogate.errors import ProtocolError
from iogate.protocol.engineio.packets import MESSAGE_DIGIT, Encoded
from iogate.protocol.socketio.packets import (
    MAX_ATTACHMENTS,
    MAX_CONNECT_BYTES,
    MAX_DEPTH,
    MAX_ID_DIGITS,
    MAX_NAMESPACE,
    MAX_UNVERIFIED_DEPTH,
    MAX_UNVERIFIED_VALUES,
    RESERVED_EVENTS,
    ROOT,
    Oversized,
    Packet,
    PacketType,
    Parser,
    TooManyValues,
    checked,
    checked_event,
)

_EVENT: Final = PacketType.EVENT
_ACK: Final = PacketType.ACK
_LEADING_DIGITS: Final = re.compile(rb"[0-9]{0,%d}" % (MAX_ID_DIGITS + 1)).match
_CONTAINERS: Final = (list, dict, tuple)
_BYTES: Final = (bytes, bytearray, memoryview)
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_BINARY: Final = {
    PacketType.BINARY_EVENT: PacketType.EVENT,
    PacketType.BINARY_ACK: PacketType.ACK,
}
_AS_BINARY: Final = {plain: binary for binary, plain in _BINARY.items()}
_encode_json: Final = msgspec.json.Encoder().encode
_decode_json: Final = msgspec.json.Decoder().decode


def encode(packet: Packet) -> Encoded:
    """Encode a packet as an Engine.IO message.

    Raises:
        TypeError: the data contains a value that JSON cannot represent.
        ValueError: a string in the data contains a lone surrogate, or an integer has thousands of digits.
        RecursionError: the data is nested too deep, or contains itself.
    """
    type_, data = packet.type, packet.data
    if (type_ is _EVENT or type_ is _ACK) and packet.namespace == ROOT and _is_flat(data):  # Most packets.
        head = b"42" if type_ is _EVENT else b"43"
        if packet.id is not None:
            head += b"%d" % packet.id
        return Encoded(head + _encode_json(data), (), ROOT)
    attachments: list[bytes] = []
    if type_ in _AS_BINARY and _holds_bytes(data):
        data = _take_out(data, attachments)
        type_ = _AS_BINARY[type_]
    head = b"%b%d" % (MESSAGE_DIGIT, type_)
    if attachments:
        head += b"%d-" % len(attachments)
    if packet.namespace != ROOT:
        head += packet.namespace.encode() + b","
    if packet.id is not None:
        head += b"%d" % packet.id
    if data is not None:
        try:
            head += _encode_json(data)
        except TypeError:
            # msgspec's encoder rejects some keys that its `to_builtins` accepts; which ones depends on the release.
            head += _encode_json(msgspec.to_builtins(data, str_keys=True))
    return Encoded(head, attachments, packet.namespace)


def decode_event(frame: bytes) -> tuple[list[Any], int | None] | None:
    """Decode an event of the root namespace: a fast path for most packets.

    Args:
        frame: an Engine.IO message that starts with `42`.

    Returns:
        The data and the id that `Decoder.text` would return. None if the caller must use `Decoder.text` instead, which
        may raise.
    """
    if len(frame) > 2 * MAX_DEPTH and frame.count(b"[") + frame.count(b"{") > MAX_DEPTH:
        return None
    start = frame.find(b"[", 2, 3 + MAX_ID_DIGITS)
    if start < 0 or (start > 2 and not frame[2:start].isdigit()):
        return None
    try:
        data: list[Any] = _decode_json(frame[start:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not data or data[0].__class__ is not str or data[0] in RESERVED_EVENTS:
        return None
    return data, int(frame[2:start]) if start > 2 else None


class Decoder:
    """A decoder for the packets of one peer. It stores a packet until its attachments have arrived.

    Args:
        max_attachments: maximum number of attachments that a packet may announce.
        max_connect: maximum size of the payload of a CONNECT in bytes.
    """

    __slots__ = ("_attachments", "_expected", "_max_attachments", "_max_connect", "_packet", "waiting")

    def __init__(self, max_attachments: int = MAX_ATTACHMENTS, max_connect: int = MAX_CONNECT_BYTES) -> None:
        self._max_attachments = max_attachments
        self._max_connect = max_connect
        self._packet: Packet | None = None
        self._expected = 0
        self._attachments: list[bytes] = []
        self.waiting = False  # True until all announced attachments have arrived.

    def text(self, frame: bytes, start: int = 0, *, admitted: bool = True) -> Packet:
        """Decode a packet from a text frame.

        If `waiting` is True after that, the caller must not use the data until the attachments have arrived.

        Args:
            frame: the frame.
            start: the index at which the packet starts.
            admitted: True if the peer is admitted. If not, the number and depth of values are limited as in a CONNECT.

        Raises:
            ProtocolError: the frame is not a packet, exceeds a limit, or arrives instead of an attachment.
        """
        if self._packet is not None:
            raise ProtocolError("a packet where an attachment was announced")
        if admitted and frame.startswith(b"2[", start):  # Fast path: an event in the root namespace without an id.
            return Packet(_EVENT, ROOT, checked_event(_decode(frame, start + 1)))
        digit = frame[start] - 0x30 if len(frame) > start else -1
        if not 0 <= digit <= PacketType.BINARY_ACK:
            raise ProtocolError("a message without a packet type")
        type_ = PacketType(digit)
        start += 1
        announced = 0
        if type_ in _BINARY:
            announced, start = self._announced(frame, start)
            type_ = _BINARY[type_]
        namespace, start = _namespace(frame, start)
        id_, start = _id(frame, start)
        if start >= len(frame):
            data = None
        elif type_ is PacketType.CONNECT:
            data = self._connect(frame, start)
        else:
            data = _decode(frame, start) if admitted else _decode_unverified(frame, start)
        packet = Packet(type_, namespace, checked(type_, data), id_)
        if (type_ is PacketType.ACK and id_ is None) or (id_ is not None and type_ not in _AS_BINARY):
            raise ProtocolError(f"{type_.name} and an acknowledgement id do not fit")
        if announced:
            self._packet, self._expected, self.waiting = packet, announced, True
        return packet

    def binary(self, frame: bytes, *, admitted: bool = True) -> Packet | None:
        """Add an attachment. Return the packet if this was the last one, or None.

        Args:
            frame: the attachment.
            admitted: not used, because the packet that announced the attachment was already checked.

        Raises:
            ProtocolError: no attachment was announced, or the placeholders do not match the attachments.
        """
        packet = self._packet
        if packet is None:
            raise ProtocolError("an attachment that no packet announced")
        self._attachments.append(frame)
        if len(self._attachments) < self._expected:
            return None
        attachments, self._attachments = self._attachments, []
        self._packet, self.waiting = None, False
        packet.data = _put_back(packet.data, dict(enumerate(attachments)))
        return packet

    def _connect(self, frame: bytes, start: int) -> Any:
        if len(frame) - start > self._max_connect:
            return Oversized(f"the payload of CONNECT has more than {self._max_connect} bytes")
        try:
            return _decode_unverified(frame, start)
        except TooManyValues as error:
            return Oversized(f"the payload of CONNECT: {error}")

    def _announced(self, frame: bytes, start: int) -> tuple[int, int]:
        end = frame.find(b"-", start, start + 8)
        digits = frame[start:end]
        if end < 0 or not digits.isdigit():
            raise ProtocolError("a binary packet that does not say how many attachments it has")
        count = int(digits)
        if count > self._max_attachments:
            raise ProtocolError(f"more than {self._max_attachments} attachments announced")
        return count, end + 1


JSON: Final = Parser(encode, Decoder)


def _namespace(frame: bytes, start: int) -> tuple[str, int]:
    if not frame.startswith(b"/", start):
        return ROOT, start
    end = frame.find(b",", start, start + MAX_NAMESPACE + 1)
    if end < 0:
        end = len(frame)
    if end - start > MAX_NAMESPACE:
        raise ProtocolError(f"the name of a namespace is longer than {MAX_NAMESPACE} bytes")
    try:
        return frame[start:end].decode(), end + 1
    except UnicodeDecodeError as error:
        raise ProtocolError("the name of a namespace is not UTF-8") from error


def _id(frame: bytes, start: int) -> tuple[int | None, int]:
    digits = _LEADING_DIGITS(frame, start)
    assert digits is not None  # The pattern also matches zero digits.  # noqa: S101
    end = digits.end()
    if end - start > MAX_ID_DIGITS:
        raise ProtocolError(f"an acknowledgement id of more than {MAX_ID_DIGITS} digits")
    return (int(frame[start:end]) if end > start else None), end


def _decode(frame: bytes, start: int) -> Any:
    try:
        data = _decode_json(frame[start:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Omit the type of the error, which depends on the version of msgspec, and its text, which may quote the peer.
        raise ProtocolError("JSON nested too deep" if isinstance(error, RecursionError) else "broken JSON") from None
    # Each level takes two brackets, so short data or data with few opening brackets cannot be too deep. Brackets in
    # strings are counted too, so a high count needs an exact check.
    if (
        len(frame) > 2 * MAX_DEPTH
        and frame.count(b"[") + frame.count(b"{") > MAX_DEPTH
        and _deeper_than(data, MAX_DEPTH)
    ):
        raise ProtocolError(f"JSON nested deeper than {MAX_DEPTH}")
    return data


def _decode_unverified(frame: bytes, start: int) -> Any:
    """Decode the data of an unauthenticated peer. Values are counted before decoding, which limits its cost."""
    opened = frame.count(b"[", start) + frame.count(b"{", start)
    if opened + frame.count(b",", start) > MAX_UNVERIFIED_VALUES:
        raise TooManyValues(f"more than {MAX_UNVERIFIED_VALUES} values")
    data = _decode(frame, start)
    if opened > MAX_UNVERIFIED_DEPTH and _deeper_than(data, MAX_UNVERIFIED_DEPTH):
        raise TooManyValues(f"JSON nested deeper than {MAX_UNVERIFIED_DEPTH}")
    return data


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _deeper_than(data: Any, depth: int) -> bool:
    level = [data] if isinstance(data, _CONTAINERS) else []
    for _ in range(depth):
        level = [child for value in level for child in _children(value) if isinstance(child, _CONTAINERS)]
        if not level:
            return False
    return True


def _is_flat(data: list[Any]) -> bool:
    for child in data:  # noqa: SIM110
        if child.__class__ not in _SCALARS:
            return False
    return True


def _holds_bytes(data: Any) -> bool:
    # Search level by level instead of recursively: most data is flat, and a list of scalars costs one comprehension.
    level, seen = [data], {id(data)}
    while level:
        rest = [child for value in level for child in _children(value) if child.__class__ not in _SCALARS]
        if any(isinstance(child, _BYTES) for child in rest):
            return True
        # Visit each container once, so that data that contains itself does not loop. The encoder rejects such data.
        level = list(
            {id(child): child for child in rest if isinstance(child, _CONTAINERS) and id(child) not in seen}.values()
        )
        seen.update(map(id, level))
    return False


def _take_out(value: Any, attachments: list[bytes]) -> Any:
    if isinstance(value, _BYTES):
        attachments.append(bytes(value))
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(value, dict):
        return {key: _take_out(child, attachments) for key, child in value.items()}
    if isinstance(value, _CONTAINERS):
        return [_take_out(child, attachments) for child in value]
    return value


def _put_back(value: Any, attachments: dict[int, bytes]) -> Any:
    if type(value) is list:
        return [_put_back(child, attachments) for child in value]
    if type(value) is not dict:
        return value
    if value.get("_placeholder") is not True:
        return {key: _put_back(child, attachments) for key, child in value.items()}
    number = value.get("num")
    if type(number) is not int or number not in attachments:
        raise ProtocolError("a placeholder for an attachment that is not there, or has its place already")
    # Use each attachment once: many placeholders for one attachment would become many attachments in a broadcast.
    return attachments.pop(number)
