"""Engine.IO v4 packets: a digit for the type, then the body.

Binary messages have no digit. With polling they have the prefix `b` instead.

See https://github.com/socketio/engine.io-protocol, section "Protocol".
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

REVISION = "4"
"""The supported value of the query parameter `EIO`."""


class PacketType(enum.IntEnum):
    """The packet types. The value is the digit on the wire."""

    OPEN = 0
    CLOSE = 1
    PING = 2
    PONG = 3
    MESSAGE = 4
    UPGRADE = 5
    NOOP = 6


class Encoded(msgspec.Struct, eq=False, gc=False):
    """One encoded packet: a text frame, then its binary attachments.

    A packet is encoded once and shared by all recipients of a broadcast, so it also caches what transports derive from
    it. It must not be part of a reference cycle, because the garbage collector does not track it.

    Args:
        text: the text frame in UTF-8, including the Engine.IO digit; empty if the packet has only binary frames.
        attachments: the binary frames after the text frame.
        namespace: the Socket.IO namespace of the packet; None for a packet of Engine.IO itself.
        audience: the rooms that the packet is for, or None. The sender may set it to find queued packets again.
        frames: the WebSocket frames, if they have been built.
        decoded: the text frame as `str`, if `string` has been read.
    """

    text: bytes
    attachments: Sequence[bytes] = ()
    namespace: str | None = None
    audience: tuple[str, ...] | None = None
    frames: bytes | None = None
    decoded: str | None = None

    @property
    def string(self) -> str:
        """The text frame as `str`. It is decoded once."""
        if self.decoded is None:
            self.decoded = self.text.decode()
        return self.decoded

    @property
    def size(self) -> int:
        """The size of the packet in bytes: the text frame and all attachments."""
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
    """The handshake data that the server sends at the start of a session. It has exactly these five members.

    Args:
        sid: the id of the session.
        upgrades: the transports that the client may upgrade to.
        ping_interval: milliseconds between two pings of the server.
        ping_timeout: milliseconds within which the client must answer a ping.
        max_payload: maximum size of a payload or frame in bytes.
    """

    sid: str
    upgrades: Sequence[str]
    ping_interval: int
    ping_timeout: int
    max_payload: int

    def encode(self) -> Encoded:
        """Return the OPEN packet."""
        return Encoded(b"0" + msgspec.json.encode(self))
