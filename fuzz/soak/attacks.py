"""The attackers, in a process of their own: `python -m fuzz.soak.attacks PORT PARSER SEED AHEAD`, until it is killed.

Each attack is tried again and again, from a few addresses of its own. The strangers of `fuzz.live` come too,
slowed down. The process writes a line when it begins; when its standard input ends, it writes how often each attack was
tried, and ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

from fuzz.live.guests import crowd
from fuzz.live.wire import BINARY, TEXT, UPGRADE, Wire, frame, request
from fuzz.soak.clock import RunningClock
from iogate.protocol.socketio.packets import Packet, PacketType, Parser
from iogate.server.server import PARSERS
from tests.servers import make_token

WEBSOCKET = {"EIO": "4", "transport": "websocket"}
LARGE = 900_000
"""Bytes of a payload that a server with the default settings reads."""
DEPTH = 90
STRANGERS_PAUSE = 0.05
"""Seconds after each step of a stranger: they are to be there, and not to take the machine."""
ANSWER_WITHIN = 5.0
"""Seconds that an attacker waits for an answer, which may never come."""


class Attack(NamedTuple):
    """Something to do again and again.

    Args:
        run: does it once, on a connection that is open; the attacker then leaves.
        period: seconds between two of them, on average.
        at_once: how many attackers do it.
        headers: further fields of the request for the WebSocket; None sends no request at all.
    """

    run: Callable[[Attackers, Wire, bytes], Awaitable[None]]
    period: float
    at_once: int = 1
    headers: Mapping[str, str] | None = MappingProxyType({})


class Attackers:
    """What all of them need.

    Args:
        port: where the server is.
        parser: how it writes packets.
        seed: what their choices begin with.
        clock: the server's.
    """

    def __init__(self, port: int, parser: Parser, seed: str, clock: RunningClock) -> None:
        self.port = port
        self.seed = seed
        self.parser = parser
        self.clock = clock
        self.chance = Random(seed)  # noqa: S311
        self.done: Counter[str] = Counter()
        nested: Any = 0
        for _ in range(DEPTH):
            nested = [nested]
        self.large = [
            self.connect({"token": "x" * LARGE}),
            self.connect({"token": 1, "values": [1, "a"] * (LARGE // 8)}),
            self.connect({"token": 1, "nested": [nested] * (LARGE // (2 * DEPTH + 2))}),
        ]

    def packet(self, type_: PacketType, data: Any = None) -> bytes:
        """Return the frames of a packet in the root namespace."""
        encoded = self.parser.encode(Packet(type_, "/", data))
        text = frame(encoded.text, TEXT) if encoded.text else b""
        return text + b"".join(frame(attachment, BINARY) for attachment in encoded.attachments)

    def connect(self, payload: Any) -> bytes:
        """Return a CONNECT."""
        return self.packet(PacketType.CONNECT, payload)

    def token(self, **claims: Any) -> str:
        """Return a good token."""
        now = int(self.clock.wall())
        return make_token(
            **{"sub": "mallory", "iat": now, "exp": now + 600, "jti": str(self.chance.random()), **claims}
        )

    async def repeat(self, name: str, attack: Attack) -> None:
        """Attack for ever."""
        while True:
            with suppress(OSError, TimeoutError):
                await self._once(attack, self.chance.choice(addresses(name)))
            self.done[name] += 1
            await asyncio.sleep(self.chance.uniform(0, 2 * attack.period))

    async def _once(self, attack: Attack, address: str) -> None:
        wire = await Wire.open(self.port)
        try:
            answer = b""
            if attack.headers is not None:
                fields = {**UPGRADE, "X-Forwarded-For": address, **attack.headers}
                wire.send(request("GET", WEBSOCKET, fields))
                async with asyncio.timeout(ANSWER_WITHIN):
                    answer = await wire.answer()
            await attack.run(self, wire, answer)
        finally:
            if self.chance.random() < 0.5:
                wire.reset()
            await wire.drop()

    async def settle(self, wire: Wire) -> None:
        """Wait until the server has closed the connection, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.chance.uniform(0.0, 2.0)):
                while not wire.gone:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)


async def _large_payload(attackers: Attackers, wire: Wire, _: bytes) -> None:
    wire.send(attackers.chance.choice(attackers.large))
    await attackers.settle(wire)


async def _connect_again(attackers: Attackers, wire: Wire, _: bytes) -> None:
    pair = attackers.connect({"token": attackers.token(door="wait")}) + attackers.packet(PacketType.DISCONNECT)
    wire.send(pair * 100)
    wire.send(attackers.connect({"token": attackers.token(sub="fay")}) * 100)
    await attackers.settle(wire)


async def _leave_pending(attackers: Attackers, wire: Wire, _: bytes) -> None:
    wire.send(attackers.connect({"token": attackers.token(door="wait")}))
    await asyncio.sleep(attackers.chance.uniform(0.0, 0.1))


async def _bad_tokens(attackers: Attackers, wire: Wire, _: bytes) -> None:
    bad = [attackers.token(secret="somebody-else's" * 4), "a.b.c", "x" * 8000, attackers.token(exp=1), None, 7]
    for token in attackers.chance.choices(bad, k=3):
        wire.send(attackers.connect({"token": token}))
    await attackers.settle(wire)


async def _silence(attackers: Attackers, _: Wire, __: bytes) -> None:
    await asyncio.sleep(attackers.chance.uniform(0.0, 8.0))


async def _half_a_head(attackers: Attackers, wire: Wire, _: bytes) -> None:
    head = request("GET", WEBSOCKET, {**UPGRADE, "X-Padding": "x" * 2000})
    wire.send(head[: attackers.chance.randrange(len(head) - 2)])
    await asyncio.sleep(attackers.chance.uniform(0.0, 8.0))


async def _large_head(attackers: Attackers, wire: Wire, __: bytes) -> None:
    wire.send(b"GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: x\r\nX-Padding: ")
    for _ in range(20):
        if wire.gone:
            break
        wire.send(b"x" * 50_000)
        await asyncio.sleep(0)
    await attackers.settle(wire)


async def _deflate(attackers: Attackers, wire: Wire, answer: bytes) -> None:
    compressor = zlib.compressobj(wbits=-15)
    bomb = compressor.compress(bytes(4_000_000)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    # Whether it was accepted or not: without the extension a frame with this bit is an error.
    wire.send(frame(bomb.removesuffix(b"\0\0\xff\xff"), TEXT, rsv=4))
    await attackers.settle(wire)


ATTACKS = {
    "large and deep CONNECT payloads": Attack(_large_payload, 1.0),
    "CONNECT again and again": Attack(_connect_again, 0.5),
    "leaving while pending": Attack(_leave_pending, 0.05, 2),
    "bad tokens": Attack(_bad_tokens, 0.1, 2),
    "silent connections": Attack(_silence, 0.1, 20, None),
    "silent WebSockets": Attack(_silence, 0.1, 20),
    "half heads": Attack(_half_a_head, 0.1, 20, None),
    "large heads": Attack(_large_head, 2.0, 1, None),
    "deflate bombs": Attack(_deflate, 1.0, 1, {"Sec-WebSocket-Extensions": "permessage-deflate"}),
}


def addresses(name: str) -> list[str]:
    """Return the addresses of an attack: so few that the server does not forget any of them."""
    return [f"198.18.{list(ATTACKS).index(name)}.{number}" for number in range(1, 5)]


@asynccontextmanager
async def _standard_input() -> AsyncIterator[asyncio.StreamReader]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        yield reader
    finally:
        transport.close()


async def attack(port: int, parser: Parser, seed: str, ahead: float) -> Counter[str]:
    """Attack until standard input ends, and return how often each attack was tried."""
    clock = RunningClock(ahead)
    attackers = Attackers(port, parser, seed, clock)

    async def slowly(_: int) -> None:
        attackers.done["steps of strangers"] += 1
        await asyncio.sleep(STRANGERS_PAUSE)

    async with _standard_input() as orders:
        attacks = [
            *(attackers.repeat(name, attack) for name, attack in ATTACKS.items() for _ in range(attack.at_once)),
            crowd(seed, sys.maxsize, port, parser, clock, slowly),
        ]
        running: list[asyncio.Future[Any]] = [asyncio.ensure_future(each) for each in attacks]
        print("attacking", flush=True)
        end: asyncio.Future[Any] = asyncio.ensure_future(orders.read())
        done, _ = await asyncio.wait([end, *running], return_when=asyncio.FIRST_COMPLETED)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for task in done - {end}:
            task.result()  # It raises what ended an attack, which is a mistake of the attack.
    return attackers.done


def main() -> None:
    """Read the arguments, attack, and write the numbers as JSON."""
    port, parser, seed, ahead = sys.argv[1:]
    print(json.dumps(asyncio.run(attack(int(port), PARSERS[parser], seed, float(ahead)))))


if __name__ == "__main__":
    main()
