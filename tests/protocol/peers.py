"""Two cores that talk to each other: what one says becomes bytes, and the other reads those."""

from __future__ import annotations

from collections.abc import Iterable

from iogate.protocol.engineio import connection as engineio
from iogate.protocol.engineio.packets import Encoded, OpenPacket, PacketType
from iogate.protocol.engineio.payload import Frame, decode_payload, encode_payload
from iogate.protocol.socketio import connection as socketio
from iogate.protocol.socketio.packets import Packet

OPEN = OpenPacket(
    sid="lv_VI97HAXpY6yYWAAAC", upgrades=["websocket"], ping_interval=25_000, ping_timeout=20_000, max_payload=1_000_000
)


def frames(packets: Iterable[Encoded]) -> list[Frame]:
    """Return what WebSocket carries for these packets."""
    found = []
    for packet in packets:
        found.append(Frame(packet.text, binary=False))
        found.extend(Frame(data, binary=True) for data in packet.attachments)
    return found


class Peer:
    """Both cores of one side, as a transport sees them."""

    def __init__(self, role: engineio.Role) -> None:
        self.engine = engineio.Connection(role)
        self.namespaces = socketio.Connection(role)

    def websocket(self, *packets: Encoded) -> list[Packet]:
        """Take packets as WebSocket brings them, a frame at a time; return those for the owner."""
        return self._receive(frames(packets))

    def polling(self, *packets: Encoded) -> list[Packet]:
        """Take packets as one payload brings them; return those for the owner."""
        return self._receive(decode_payload(encode_payload(packets)))

    def _receive(self, received: Iterable[Frame]) -> list[Packet]:
        packets = []
        for frame in received:
            event = self.engine.receive(frame.data, binary=frame.binary)
            if event.type is PacketType.MESSAGE:
                packet = self.namespaces.receive(event.data, binary=event.binary)
                if packet is not None:
                    packets.append(packet)
        return packets


def pair() -> tuple[Peer, Peer]:
    """Return a client and a server that have opened a session."""
    client, server = Peer(engineio.Role.CLIENT), Peer(engineio.Role.SERVER)
    client.websocket(OPEN.encode())
    return client, server
