"""The MessagePack parser: a packet is one binary message, a map of `type`, `data`, `nsp` and an optional `id`.

This is the format of the npm package `socket.io-msgpack-parser`, which encodes with `notepack.io`. Bytes are part of
the data, so there are no attachments, and no types BINARY_EVENT and BINARY_ACK. Three kinds of JavaScript values are
sent as extension type 0. They are decoded to the values that the JSON parser would return, so that handlers do not
depend on the parser of a client:

| JavaScript | on the wire | decoded as |
|---|---|---|
| `undefined` | fixext 1 | None; a member of an object that is `undefined` is left out |
| a `Date` | fixext 8, milliseconds | the text of its `toJSON()` |
| an `ArrayBuffer` or its views, in Node | ext 8, 16 or 32 | bytes |
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from iogate.errors import ProtocolError
from iogate.protocol.engineio.packets import Encoded
from iogate.protocol.socketio.packets import (
    MAX_ATTACHMENTS,
    MAX_CONNECT_BYTES,
    MAX_DEPTH,
    MAX_ID_DIGITS,
    MAX_NAMESPACE,
    MAX_UNVERIFIED_DEPTH,
    MAX_UNVERIFIED_VALUES,
    Oversized,
    Packet,
    PacketType,
    Parser,
    TooManyValues,
    checked,
)

MAX_PIECES = 50_000
"""Maximum number of values in one packet that are decoded one by one, because bytes or extensions are among them."""

_BYTES: Final = (bytes, bytearray, memoryview)
_PLAIN_DEPTH: Final = 6
_FIXEXT: Final = range(0xD4, 0xD9)
_FIXEXT_1: Final = 0xD4
_FIXEXT_8: Final = 0xD7
_EXT_LENGTH: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}  # By header: the bytes of the length of an extension.
_LONG: Final = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # By header: the bytes of the length of a list or map.
_UNDEFINED: Final = b"\xd4\0"
_LISTS: Final = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})
_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_MAX_DATE: Final = 8_640_000_000_000_000
"""Milliseconds from 1970 to the last date that JavaScript supports."""
_400_YEARS: Final = timedelta(days=146_097)


class _Message(msgspec.Struct):
    """A packet on the wire. Other members are ignored, e.g. `options`, which the official client adds."""

    type: int
    nsp: str
    # `Raw` only skips the data, which checks every length in its headers against the frame. When the data is decoded
    # later, no header can allocate more memory than the size of the frame justifies.
    data: msgspec.Raw = msgspec.Raw(b"\xc0")
    id: int | None = None


def _nested(depth: int) -> Any:
    """Return the type of data without bytes and extensions, with at most this depth.

    Its keys must be strings. Without a type, msgspec accepts any key, including lists. An attacker can create thousands
    of lists with the same hash, so that a few hundred kilobytes keep a dict busy for minutes. (A type in msgspec cannot
    allow both strings and bytes.)
    """
    scalar = int | float | str | bool | None
    nested: Any = scalar
    for _ in range(depth):
        nested = scalar | list[nested] | dict[str, nested]
    return nested


_encode: Final = msgspec.msgpack.Encoder().encode
_read_message: Final = msgspec.msgpack.Decoder(_Message).decode
_read_plain: Final = msgspec.msgpack.Decoder(_nested(_PLAIN_DEPTH)).decode
_read_flat: Final = msgspec.msgpack.Decoder(_nested(1)).decode
_read_single: Final = msgspec.msgpack.Decoder().decode
_split_list: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_split_map: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode


def encode(packet: Packet) -> Encoded:
    """Encode a packet as a binary Engine.IO message.

    Values without a JSON type (a date, a UUID, a dataclass, a number as key) are encoded as the JSON parser encodes
    them. Bytes, NaN and infinities are preserved.

    Raises:
        TypeError: the data contains a value that MessagePack cannot represent.
        ValueError: a string in the data contains a lone surrogate, or an integer has more than 64 bits.
        RecursionError: the data is nested too deep, or contains itself.
    """
    message: dict[str, Any] = {"type": packet.type.value}
    # Omit the member instead of sending null, which the official decoder rejects in packets without data.
    if packet.data is not None:
        try:
            message["data"] = msgspec.to_builtins(packet.data, builtin_types=_BYTES, str_keys=True)
        except TypeError:
            # msgspec before 0.23 rejects bytes as a key if bytes are allowed as a value.
            message["data"] = _with_str_keys(msgspec.to_builtins(packet.data, builtin_types=_BYTES))
    message["nsp"] = packet.namespace
    if packet.id is not None:
        message["id"] = packet.id
    try:
        return Encoded(b"", (_encode(message),), packet.namespace)
    except OverflowError:
        raise ValueError("an integer of more than 64 bits has no MessagePack") from None


class Decoder:
    """A decoder for the packets of one peer.

    Args:
        max_attachments: not used, because bytes are part of the packet, whose size is limited.
        max_connect: maximum size of a CONNECT in bytes.
    """

    __slots__ = ("_max_connect",)

    def __init__(self, max_attachments: int = MAX_ATTACHMENTS, max_connect: int = MAX_CONNECT_BYTES) -> None:
        self._max_connect = max_connect

    @property
    def waiting(self) -> bool:
        """Always False: every packet is complete."""
        return False

    def text(self, frame: bytes, start: int = 0, *, admitted: bool = True) -> Packet:
        """Reject a text frame.

        Raises:
            ProtocolError: always.
        """
        raise ProtocolError("a text message, where packets are MessagePack: the client uses another parser")

    def binary(self, frame: bytes, *, admitted: bool = True) -> Packet:
        """Decode a packet.

        Args:
            frame: the packet.
            admitted: True if the peer is admitted. If not, the number and depth of values are limited as in a CONNECT.

        Raises:
            ProtocolError: the frame is not a packet, or exceeds a limit.
        """
        try:
            message = _read_message(frame)
        except msgspec.ValidationError:
            raise ProtocolError(
                "a packet is a map with an integer `type`, a string `nsp`, and perhaps an `id`"
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _broken(error) from None
        if not PacketType.CONNECT <= message.type <= PacketType.CONNECT_ERROR:
            raise ProtocolError("a packet type that is not one of 0 to 4")
        type_, namespace, id_ = PacketType(message.type), message.nsp, message.id
        # The JSON parser cannot represent a name with a comma, so other code relies on names without commas.
        if not namespace.startswith("/") or "," in namespace:
            raise ProtocolError("the name of a namespace begins with a slash and has no comma")
        if len(namespace.encode()) > MAX_NAMESPACE:
            raise ProtocolError(f"the name of a namespace is longer than {MAX_NAMESPACE} bytes")
        if id_ is not None and not 0 <= id_ < 10**MAX_ID_DIGITS:
            raise ProtocolError(f"an acknowledgement id that is negative or has more than {MAX_ID_DIGITS} digits")
        if (id_ is None) if type_ is PacketType.ACK else (id_ is not None and type_ is not PacketType.EVENT):
            raise ProtocolError(f"{type_.name} and an acknowledgement id do not fit")
        if type_ is PacketType.CONNECT:
            data = self._connect(frame, message.data)
        else:
            data = _data(message.data, admitted=admitted)
        return Packet(type_, namespace, checked(type_, data), id_)

    def _connect(self, frame: bytes, piece: msgspec.Raw) -> Any:
        if len(frame) > self._max_connect:
            return Oversized(f"the payload of CONNECT has more than {self._max_connect} bytes")
        try:
            return _data(piece, admitted=False)
        except TooManyValues as error:
            return Oversized(f"the payload of CONNECT: {error}")


MSGPACK: Final = Parser(encode, Decoder)


def _with_str_keys(data: Any) -> Any:
    """Convert each key as the JSON parser does, and keep bytes that are values."""
    if isinstance(data, dict):
        return {
            next(iter(msgspec.to_builtins({key: None}, str_keys=True))): _with_str_keys(child)
            for key, child in data.items()
        }
    return [_with_str_keys(child) for child in data] if isinstance(data, list | tuple) else data


def _broken(error: Exception) -> ProtocolError:
    # Omit the type of the exception, which depends on the version of msgspec, and its text, which may quote the peer.
    return ProtocolError("MessagePack nested too deep" if isinstance(error, RecursionError) else "broken MessagePack")


def _data(piece: msgspec.Raw, *, admitted: bool) -> Any:
    try:
        if not admitted:
            return _Pieces(MAX_UNVERIFIED_VALUES, each=True).read(piece, MAX_UNVERIFIED_DEPTH)
        return _read(piece)
    except msgspec.ValidationError:
        raise ProtocolError("a map with a key that is not a string") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(error) from None


def _read(piece: msgspec.Raw) -> Any:
    try:
        return _read_plain(piece)  # Fast path for most data.
    except msgspec.ValidationError:
        pass
    return _Pieces(MAX_PIECES).read(piece, MAX_DEPTH)


class _Pieces:
    """A decoder that reads the data of one packet value by value, if it has bytes, extensions or many levels.

    Each value is scanned again by every list and map around it, and becomes an object, which takes about a microsecond.
    `_read_plain` takes some nanoseconds. Therefore the number of values is limited.

    Args:
        most: maximum number of values.
        each: if True, all values count; otherwise only those that are decoded one by one.
    """

    __slots__ = ("_each", "_left", "_most")

    def __init__(self, most: int, *, each: bool = False) -> None:
        self._most = self._left = most
        self._each = each

    def read(self, piece: msgspec.Raw, room: int) -> Any:
        """Decode one value.

        Args:
            piece: the bytes of the value. The lengths in its headers have been checked.
            room: maximum depth of nested lists and maps.
        """
        view = memoryview(piece)
        head = view[0]
        is_list = head in _LISTS
        if not is_list and head not in _MAPS:
            return _extension(view) if head in _FIXEXT or head in _EXT_LENGTH else _read_single(piece)
        if not room:
            raise TooManyValues(f"MessagePack nested deeper than {MAX_UNVERIFIED_DEPTH if self._each else MAX_DEPTH}")
        if not self._each:
            try:
                return _read_flat(piece)
            except msgspec.ValidationError:
                pass
        self._count(_length(view), len(view))
        if is_list:
            return [self.read(item, room - 1) for item in _split_list(piece)]
        return {
            key: self.read(member, room - 1)
            for key, member in _split_map(piece).items()
            if memoryview(member)[:2].tobytes() != _UNDEFINED
        }

    def _count(self, pieces: int, size: int) -> None:
        # Scanning 512 bytes takes about as long as decoding one value.
        self._left -= pieces + size // 512
        if self._left < 0:
            raise TooManyValues(f"more than {self._most} values{'' if self._each else ' beside bytes or extensions'}")


def _length(view: memoryview) -> int:
    """Return the number of items of a list or of members of a map, from its header."""
    head = view[0]
    if head in _LONG:
        return int.from_bytes(view[1 : 1 + _LONG[head]])
    return head & 0x0F


def _extension(view: memoryview) -> Any:
    head = view[0]
    length = _EXT_LENGTH.get(head, 0)
    if view[1 + length] == 0:
        if length:
            return bytes(view[2 + length :])
        if head == _FIXEXT_1:
            return None
        if head == _FIXEXT_8:
            return _date(int.from_bytes(view[2:], signed=True))
    raise ProtocolError("an extension that is not one of the Socket.IO parser")


def _date(milliseconds: int) -> str:
    """Return a date in the format of JavaScript's `toJSON()` (ECMA-262, section "Date Time String Format")."""
    if abs(milliseconds) > _MAX_DATE:
        raise ProtocolError("a date that JavaScript does not have")
    # `datetime` does not support all years of JavaScript. The calendar repeats every 400 years, so shift the year.
    cycles, rest = divmod(timedelta(milliseconds=milliseconds), _400_YEARS)
    date = datetime(1970, 1, 1, tzinfo=UTC) + rest
    year = date.year + 400 * cycles
    years = f"{year:04}" if 0 <= year <= 9999 else f"{year:+07}"
    return f"{years}-{date:%m-%dT%H:%M:%S}.{date.microsecond // 1000:03}Z"
