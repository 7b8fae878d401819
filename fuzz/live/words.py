"""What strangers say: packets that are right, packets that are nearly right, and the inputs of the other fuzzers."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from fuzz.targets import CORPUS
from iogate import Clock
from iogate.protocol.socketio.packets import Packet, PacketType, Parser
from tests.servers import make_token

Message = tuple[bytes, bool]
"""A frame or a packet of a payload, and whether it is binary."""

SUBJECTS = ("ann", "bob", "cat", "dan", "eve", "fay", "gus")
NAMESPACES = ("/", "/", "/", "/staff", "/room-1", "/room-2", "/nowhere")
ROOMS = ("hall", "kitchen", "attic")
EVENTS = ("echo", "join", "leave", "shout", "hold", "fail", "ask", "kick", "flood", "blob", "nobody-handles-this")
ADDRESSES = tuple(f"198.51.100.{number}" for number in range(12))
"""Where strangers say they come from, to a server that believes a proxy: so the good client is nobody's neighbour."""

MOST = 1100
"""Events in one go: more than the handlers of one connection that may run at a time."""

FLOODS = 10

_PIECES = (
    *(
        b"",
        b"\x00",
        b"\xff\xfe",
        b"\x1e",
        b"b",
        b"4",
        b"40",
        b"42",
        b"451-",
        b"461-",
        b"459-",
        b"43",
        b"41",
        b"44",
        b"2probe",
    ),
    *(b"/staff,", b"/a,", b"[", b"]", b"{", b"}", b'"', b",", b"[" * 200, b"9" * 20, b"-1", b"1e999", b"\\ud800"),
    *(b'{"_placeholder":true,"num":0}', b'{"_placeholder":true,"num":7}', b'"authenticate"', b'"disconnect"', b"null"),
)


def _corpus(*names: str) -> tuple[Message, ...]:
    found = []
    for path in sorted(path for name in names for path in (CORPUS / name).iterdir()):
        for message in path.read_bytes().split(b"\x1e"):
            binary = message.startswith(b"b") or "msgpack" in path.parent.name
            found.append((message.removeprefix(b"b") if binary else b"4" + message, binary))
    return tuple(found)


_CORPUS = _corpus("socketio_json", "socketio_msgpack")
_ENGINE = tuple(
    (message, False) for path in sorted((CORPUS / "engineio").iterdir()) for message in path.read_bytes().split(b"\x1e")
)


class Words:
    """What one stranger says.

    Args:
        chance: where all of its choices come from.
        parser: how the server writes packets.
        clock: what its tokens are dated by.
    """

    def __init__(self, chance: Random, parser: Parser, clock: Clock) -> None:
        self._chance = chance
        self._parser = parser
        self._clock = clock
        self._inside = {"/"}  # The namespaces that it has asked for in this session.
        self._subject = chance.choice(SUBJECTS)
        self._kinds: tuple[tuple[int, Callable[[], list[Message]]], ...] = (
            (4, self._connect),
            (20, self._event),
            (4, self._authenticate),
            (4, self._ack),
            (1, self._leave),
            (3, self._engine),
            (2, self._attachments),
            (2, self._many),
            (1, self._from_the_corpus),
        )

    def begin(self) -> list[Message]:
        """Return the first thing it says in a session: without a CONNECT hardly anything else is looked at."""
        self._inside = {"/"}
        return self._connect("/")

    def token(self) -> str:
        """Return a token, mostly a good one; its claims also say what the middleware of the server is to do with it."""
        chance = self._chance
        lifetime = chance.choice([*[5, 60, 600, 3000] * 5, -1])
        claims: dict[str, Any] = {
            "sub": self._subject if chance.random() < 0.9 else chance.choice(["", *SUBJECTS]),
            "sid": f"s{chance.randrange(1000)}",
            "jti": f"{chance.getrandbits(32):x}",
            "exp": int(self._clock.wall()) + lifetime,
            "iat": int(self._clock.wall()),
            "scope": chance.choice(["staff", "staff kitchen", ""]),
            "door": chance.choice([""] * 12 + ["wait", "refuse", "fail", "disconnect"]),
        }
        token = make_token(**claims)
        match chance.randrange(20):
            case 0:
                return make_token(secret="of-somebody-else-" * 3, **claims)
            case 1:
                return chance.choice(["", "a.b.c", token[:-3], token + "A", token.replace(".", "", 1), "x" * 9000])
            case _:
                return token

    def flood(self) -> list[Message]:
        """Ask for more than the buffers of the machine take."""
        return self._packet(PacketType.EVENT, ["flood"], where="/") * FLOODS

    def said(self) -> list[Message]:
        """Return the next things it says: a packet with its attachments, right or not."""
        chance = self._chance
        [(_, kind)] = chance.choices(self._kinds, [weight for weight, _ in self._kinds])
        messages = kind()
        if chance.random() < 0.05:
            place = chance.randrange(len(messages))
            data, binary = messages[place]
            messages[place] = (self.spoiled(data), binary is (chance.random() < 0.9))
        if len(messages) > 1 and chance.random() < 0.03:
            chance.shuffle(messages)
        return messages

    def spoiled(self, data: bytes) -> bytes:
        """Return something that is nearly the same."""
        chance = self._chance
        for _ in range(chance.choice([1, 1, 2, 3])):
            start = chance.randint(0, len(data))
            end = min(len(data), start + chance.choice([0, 1, 1, 2, 8, 64]))
            middle = data[start:end]
            match chance.randrange(5):
                case 0:
                    middle = b""
                case 1:
                    middle = middle * chance.choice([2, 3, 50])
                case 2:
                    middle = bytes(byte ^ 1 << chance.randrange(8) for byte in middle)
                case 3:
                    middle = chance.choice(_PIECES)
                case _:
                    middle = chance.randbytes(len(middle) + 1)
            data = data[:start] + middle + data[end:]
        return data

    # The kinds.

    def _packet(self, type_: PacketType, data: Any = None, id_: int | None = None, where: str = "") -> list[Message]:
        if not where:  # Where it is not inside, a packet ends its session.
            among = sorted(self._inside) if self._chance.random() < 0.97 else NAMESPACES
            where = self._chance.choice(among)
        encoded = self._parser.encode(Packet(type_, where, data, id_))
        text = [(encoded.text, False)] if encoded.text else []
        return [*text, *((data, True) for data in encoded.attachments)]

    def _connect(self, where: str = "") -> list[Message]:
        payload = self._chance.choice([{"token": self.token()}] * 12 + [None, {}, {"token": 7}, {"token": None}])
        where = where or self._chance.choice(NAMESPACES)
        self._inside.add(where)
        return self._packet(PacketType.CONNECT, payload, where=where)

    def _event(self) -> list[Message]:
        args = [self._value() for _ in range(self._chance.choice([0, 1, 1, 2]))]
        return self._packet(PacketType.EVENT, [self._chance.choice(EVENTS), *args], self._id())

    def _authenticate(self) -> list[Message]:
        message = self._chance.choice([{"token": self.token()}] * 5 + [None, self.token(), {}])
        return self._packet(PacketType.EVENT, ["authenticate", message], self._id())

    def _ack(self) -> list[Message]:
        # The server numbers its questions from 1; a goodbye is acknowledged with 1 too.
        id_ = self._chance.choice([1, 1, 2, 3, 0, 10**15])
        return self._packet(PacketType.ACK, [self._value() for _ in range(self._chance.choice([0, 1, 2]))], id_)

    def _leave(self) -> list[Message]:
        return self._packet(PacketType.DISCONNECT)

    def _engine(self) -> list[Message]:
        words = [*[b"3"] * 20, b"2", b"2probe", b"3probe", b"5", b"6", b"1", b"0{}", b"7", b"", b"3x"]
        return [(self._chance.choice(words), False)]

    def _attachments(self) -> list[Message]:
        """Say an event with attachments in it, and then too few of them, or too many, or something else between."""
        chance = self._chance
        count = chance.choice([1, 2, 3, 10, 11, 60])
        holes = [{"_placeholder": True, "num": chance.choice([number, number, 0])} for number in range(count)]
        text = b"45%d-%s" % (count, json.dumps(["echo", *holes]).encode())
        sent = chance.choice([count, count, count - 1, count + 1])
        messages: list[Message] = [(text, False), *((chance.randbytes(5), True) for _ in range(sent))]
        if chance.random() < 0.2:
            messages.insert(1, (b'42["echo","in between"]', False))
        return messages

    def _many(self) -> list[Message]:
        """Say something often and at once."""
        often = self._chance.choice([20, 200, MOST])
        return (
            self._packet(PacketType.EVENT, [self._chance.choice(["echo", "hold", "ask", "shout"]), 1], where="/")
            * often
        )

    def _from_the_corpus(self) -> list[Message]:
        return [self._chance.choice(_CORPUS if self._chance.random() < 0.8 else _ENGINE)]

    def _id(self) -> int | None:
        return self._chance.choice([None, None, 0, 7, 10**15])

    def _value(self) -> Any:
        chance = self._chance
        values: list[Any] = [
            *ROOMS,
            1,
            -1.5,
            True,
            None,
            [],
            {},
            b"\x00\xff",
            {"a": [b"1", b"2"]},
            "x" * 100,
            "x" * 70_000,
        ]
        return chance.choice(values)
