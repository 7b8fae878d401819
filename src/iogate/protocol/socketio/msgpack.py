"""The MessagePack parser: a packet is one binary message, a map of `type`, `data`, `nsp` and, where there is one, `id`.

It is the format of the npm package `socket.io-msgpack-parser`, which writes MessagePack by way of `notepack.io`.
Bytes stand where they belong, so there are no attachments, and no types BINARY_EVENT and BINARY_ACK. Three things of
JavaScript have no MessagePack of their own and travel as extension type 0. They are read as what the JSON parser would
make of them, so that handlers need not know which parser their clients use:

| JavaScript | on the wire | read as |
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
"""Values that may have to be looked at one by one, because there are bytes or extensions among them, in one packet."""

_BYTES: Final = (bytes, bytearray, memoryview)
_PLAIN_DEPTH: Final = 6
_FIXEXT: Final = range(0xD4, 0xD9)
_FIXEXT_1: Final = 0xD4
_FIXEXT_8: Final = 0xD7
_EXT_LENGTH: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}  # Bytes that say how long an extension is, by its header.
_LONG: Final = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # How many bytes hold the length of a list or map, by its header.
_UNDEFINED: Final = b"\xd4\0"
_LISTS: Final = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})
_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_MAX_DATE: Final = 8_640_000_000_000_000
"""Milliseconds from 1970 to the last date that JavaScript has."""
_400_YEARS: Final = timedelta(days=146_097)


class _Message(msgspec.Struct):
    """What is on the wire. The official client adds `options`, which are not for the peer: all else is passed over."""

    type: int
    nsp: str
    # Only skipped at first. After that every count in it is known to be true, and no header can ask for more memory
    # than the frame itself has taken.
    data: msgspec.Raw = msgspec.Raw(b"\xc0")
    id: int | None = None


def _nested(depth: int) -> Any:
    """Return the type of data without bytes and extensions, that deep at most.

    Its keys are strings. Without a type msgspec takes any key, a list too; and of those one can make thousands with
    the same hash, so that a few hundred kilobytes keep a dict busy for minutes. (A type cannot allow both strings and
    bytes.)
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
    """Write a packet, as a binary Engine.IO message.

    What JSON has no type for (a date, a UUID, a dataclass, a number as key) is written as the JSON parser writes it;
    bytes, NaN and the infinities stay what they are.

    Raises:
        TypeError: the data holds something that has no MessagePack.
        ValueError: a string in it is no Unicode text (a lone surrogate), or an integer has more than 64 bits.
        RecursionError: it is nested too deep, or contains itself.
    """
    message: dict[str, Any] = {"type": packet.type.value}
    # The official decoder refuses a null where it wants nothing.
    if packet.data is not None:
        try:
            message["data"] = msgspec.to_builtins(packet.data, builtin_types=_BYTES, str_keys=True)
        except TypeError:
            # Before 0.23 msgspec rejects bytes as a key if bytes are allowed as a value.
            message["data"] = _with_str_keys(msgspec.to_builtins(packet.data, builtin_types=_BYTES))
    message["nsp"] = packet.namespace
    if packet.id is not None:
        message["id"] = packet.id
    try:
        return Encoded(b"", (_encode(message),), packet.namespace)
    except OverflowError:
        raise ValueError("an integer of more than 64 bits has no MessagePack") from None


class Decoder:
    """Reads packets from frames.

    Args:
        max_attachments: of no meaning here: bytes stand in the packet itself, whose size has a limit.
        max_connect: bytes that a CONNECT may have.
    """

    __slots__ = ("_max_connect",)

    def __init__(self, max_attachments: int = MAX_ATTACHMENTS, max_connect: int = MAX_CONNECT_BYTES) -> None:
        self._max_connect = max_connect

    @property
    def waiting(self) -> bool:
        """Never: every packet is complete."""
        return False

    def text(self, frame: bytes, start: int = 0, *, admitted: bool = True) -> Packet:
        """Refuse a text frame.

        Raises:
            ProtocolError: always.
        """
        raise ProtocolError("a text message, where packets are MessagePack: the client uses another parser")

    def binary(self, frame: bytes, *, admitted: bool = True) -> Packet:
        """Read a packet.

        Args:
            frame: the packet.
            admitted: whether the peer is admitted; if not, the data is bounded like that of a CONNECT.

        Raises:
            ProtocolError: it is none, or breaks a limit.
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
        # JSON cannot write a name with a comma: whatever handles names may rely on there being none.
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
    """Write each key as the JSON parser does, and keep bytes that are values."""
    if isinstance(data, dict):
        return {
            next(iter(msgspec.to_builtins({key: None}, str_keys=True))): _with_str_keys(child)
            for key, child in data.items()
        }
    return [_with_str_keys(child) for child in data] if isinstance(data, list | tuple) else data


def _broken(error: Exception) -> ProtocolError:
    # Not the type of the error, which depends on the release of msgspec; not its text, which may quote the peer.
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
        return _read_plain(piece)  # Nearly all there is.
    except msgspec.ValidationError:
        pass
    return _Pieces(MAX_PIECES).read(piece, MAX_DEPTH)


class _Pieces:
    """Reads the data of one packet piece by piece, where there are bytes, extensions or many levels in it.

    Every level is gone through by each of the lists and maps around it, and every piece is an object: a microsecond,
    where the other way takes some nanoseconds. Hence the limit.

    Args:
        most: the limit.
        each: whether every value counts, or only those that are looked at one by one.
    """

    __slots__ = ("_each", "_left", "_most")

    def __init__(self, most: int, *, each: bool = False) -> None:
        self._most = self._left = most
        self._each = each

    def read(self, piece: msgspec.Raw, room: int) -> Any:
        """Read a piece.

        Args:
            piece: the bytes of one value. All the counts in it are true.
            room: how many lists and maps may be within each other.
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
        # To pass over 512 bytes takes about as long as to read one piece.
        self._left -= pieces + size // 512
        if self._left < 0:
            raise TooManyValues(f"more than {self._most} values{'' if self._each else ' beside bytes or extensions'}")


def _length(view: memoryview) -> int:
    """Return how many items a list or members a map has, by its header."""
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
    """Return what `toJSON()` of a JavaScript date returns (ECMA-262, section "Date Time String Format")."""
    if abs(milliseconds) > _MAX_DATE:
        raise ProtocolError("a date that JavaScript does not have")
    # The calendar repeats every 400 years, and `datetime` does not have all the years that JavaScript has.
    cycles, rest = divmod(timedelta(milliseconds=milliseconds), _400_YEARS)
    date = datetime(1970, 1, 1, tzinfo=UTC) + rest
    year = date.year + 400 * cycles
    years = f"{year:04}" if 0 <= year <= 9999 else f"{year:+07}"
    return f"{years}-{date:%m-%dT%H:%M:%S}.{date.microsecond // 1000:03}Z"
