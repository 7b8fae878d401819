"""Engine.IO v4 packets: a type digit, then the body. Binary messages have no digit on WebSocket, `b` on polling.

https://github.com/socketio/engine.io-protocol, section "Protocol"
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

REVISION = "4"
"""The value of the `EIO` query parameter that this implementation speaks."""


class PacketType(enum.IntEnum):
    """The packet types, by the digit that stands on the wire."""

    OPEN = 0
    CLOSE = 1
    PING = 2
    PONG = 3
    MESSAGE = 4
    UPGRADE = 5
    NOOP = 6


class Encoded(msgspec.Struct, eq=False, gc=False):
    """One packet as it goes on the wire: a text frame, then its binary attachments.

    It is made once and shared by every recipient of a broadcast, so what a transport derives from it is kept here
    too. It refers to nothing that could refer to it (the garbage collector does not look into it).

    Args:
        text: the text frame, Engine.IO digit included, UTF-8; empty if there is none, where a packet is all binary.
        attachments: the binary frames that follow it.
        namespace: the Socket.IO namespace that it belongs to; None for a packet of Engine.IO's own.
        audience: a mark that the sender may leave on it, to find it again while it waits to be sent: the rooms that
            it is for.
        frames: the WebSocket frames, if picows has made them.
        decoded: the text frame as `str`, if `string` has been asked for.
    """

    text: bytes
    attachments: Sequence[bytes] = ()
    namespace: str | None = None
    audience: tuple[str, ...] | None = None
    frames: bytes | None = None
    decoded: str | None = None

    @property
    def string(self) -> str:
        """The text frame as `str`, decoded once."""
        if self.decoded is None:
            self.decoded = self.text.decode()
        return self.decoded

    @property
    def size(self) -> int:
        """Bytes of its frames."""
        return len(self.text) + sum(map(len, self.attachments))

    def __repr__(self) -> str:
        return f"<Encoded {self.size} bytes, {len(self.attachments)} attachments>"


CLOSE = Encoded(b"1")
PING = Encoded(b"2")
PONG = Encoded(b"3")
PROBE = Encoded(b"2probe")
PROBE_ANSWER = Encoded(b"3probe")
UPGRADE = Encoded(b"5")
NOOP = Encoded(b"6")

MESSAGE_DIGIT = b"4"


class OpenPacket(msgspec.Struct, frozen=True, rename="camel"):
    """What the server tells a client when a session begins. These five members and no other.

    Args:
        sid: the id of the session.
        upgrades: the transports that the client may move to.
        ping_interval: milliseconds between two pings of the server.
        ping_timeout: milliseconds in which a pong must come.
        max_payload: bytes that a payload or frame may have.
    """

    sid: str
    upgrades: Sequence[str]
    ping_interval: int
    ping_timeout: int
    max_payload: int

    def encode(self) -> Encoded:
        """Return the OPEN packet."""
        return Encoded(b"0" + msgspec.json.encode(self))
