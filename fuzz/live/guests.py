"""Strangers: they open transports, talk, poll, move, break off in the middle, and come back as somebody else."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from random import Random

from fuzz.live import wire
from fuzz.live.wire import Wire, frame, request
from fuzz.live.words import ADDRESSES, Message, Words
from iogate import Clock
from iogate.protocol.socketio.packets import Parser

AT_ONCE = 8
"""Strangers who are there at a time."""
STEPS_A_LIFE = 25
MAX_PAYLOAD = 100_000
"""Bytes that the server takes at once; strangers try with more."""


class Stranger:
    """Somebody with a few connections, who does one thing after another.

    Args:
        chance: where all of its choices come from: what it does depends on nothing else, but for the ids that the
            server chooses.
        port: where the server is.
        parser: how the server writes packets.
        clock: what its tokens are dated by.
    """

    def __init__(self, chance: Random, port: int, parser: Parser, clock: Clock) -> None:
        self._chance = chance
        self._port = port
        self._words = Words(chance, parser, clock)
        self._wires: list[Wire] = []
        self._socket: Wire | None = None
        self._sid: str | None = None
        self._posted: Wire | None = None
        self._polling: Wire | None = None
        self._address = chance.choice(ADDRESSES)
        self._kinds: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
            (4, self._open_websocket),
            (3, self._open_polling),
            (60, self._talk),
            (12, self._poll),
            (6, self._move),
            (2, self._break_framing),
            (2, self._ask_nonsense),
            (2, self._stall),
            (2, self._hang_up),
        )

    async def step(self) -> None:
        """Do one thing."""
        [(_, kind)] = self._chance.choices(self._kinds, [weight for weight, _ in self._kinds])
        await kind()
        if self._chance.random() < 0.5:
            await asyncio.sleep(0)

    async def leave(self) -> None:
        """Hang up, in whatever way, and return when all connections are gone."""
        for connection in self._wires:
            self._end(connection)
        await asyncio.sleep(0)
        for connection in self._wires:  # Whose server does not read would never be rid of the rest.
            await connection.drop()

    # What it does.

    async def _open_websocket(self) -> None:
        if self._socket is not None and not self._socket.gone:
            return await self._talk()
        self._socket = connection = await self._connect()
        head = request("GET", self._query("websocket"), {**wire.UPGRADE, **self._headers()})
        if self._chance.random() < 0.1:
            connection.send(self._words.spoiled(head))
            return None
        connection.send(head)
        if self._chance.random() < 0.9:
            await connection.answer()
        connection.send(b"".join(self._frames(self._words.begin())))
        return None

    async def _open_polling(self) -> None:
        connection = await self._connect()
        connection.send(request("GET", self._query("polling"), self._headers()))
        self._sid = await connection.sid()
        if self._sid is not None:
            await self._post(self._words.begin())

    async def _talk(self) -> None:
        if self._posted is not None and self._posted.refused:
            self._sid = self._posted = None
        said = self._words.said()
        if self._socket is not None and not self._socket.gone:
            self._socket.send(b"".join(self._frames(said)))
        elif self._sid is not None:
            await self._post(said)
        else:
            await self._chance.choice([self._open_websocket, self._open_polling])()

    async def _post(self, said: list[Message]) -> None:
        body = b"\x1e".join(b"b" + base64.b64encode(data) if binary else data for data, binary in said)
        headers = self._headers() | {"Content-Type": "text/plain;charset=UTF-8"}
        match self._chance.randrange(100):
            case 0:
                body = b"4" + bytes(MAX_PAYLOAD + 1)
            case 1:
                body = self._words.spoiled(body)
            case 2:  # It never comes.
                headers["Content-Length"] = str(len(body) + 10)
            case 3:
                headers["Content-Length"] = self._chance.choice(["-1", "x", "1" * 30, "2, 2"])
            case 4:
                headers |= {"Content-Length": "", "Transfer-Encoding": "chunked"}
        self._posted = connection = await self._connect()
        connection.send(request("POST", self._query("polling", self._known_sid()), headers, body))
        if self._chance.random() < 0.1:
            self._end(connection)
        elif self._chance.random() < 0.9:
            await connection.pause()  # A second POST at a time ends the session.

    async def _poll(self) -> None:
        for _ in range(self._chance.choice([1] * 9 + [2])):
            if self._polling is not None and not self._polling.answered and self._chance.random() < 0.9:
                return  # A second GET at a time ends the session.
            self._polling = connection = await self._connect()
            connection.send(request("GET", self._query("polling", self._known_sid()), self._headers()))
            if self._chance.random() < 0.1:
                self._end(connection)

    async def _move(self) -> None:
        """Move from polling to a WebSocket, or leave off on the way."""
        if self._sid is None:
            await self._open_polling()
        connection = await self._connect()
        query = self._query("websocket", self._known_sid())
        connection.send(request("GET", query, {**wire.UPGRADE, **self._headers()}))
        await connection.answer()
        words = [b"2probe", b"5"]
        match self._chance.randrange(12):
            case 0:
                words = words[:1]
            case 1:
                words = [b"5", b"2probe"]
            case 2:
                words = [self._words.spoiled(word) for word in words]
            case 3:
                self._end(connection)
        for word in words:
            connection.send(frame(word))
            await asyncio.sleep(0)
        if self._socket is None or self._socket.gone or self._chance.random() < 0.5:
            self._socket = connection

    async def _break_framing(self) -> None:
        if self._socket is None:
            return await self._open_websocket()
        broken = [
            frame(b"x", self._chance.choice([3, 7, 11, 15])),
            frame(b"42", rsv=self._chance.randint(1, 7)),
            frame(b"4", wire.CONTINUATION),
            frame(b"4", fin=False) + frame(b"4", fin=False),
            frame(b"2" * 126, wire.PING),
            frame(b"2", wire.PING, fin=False),
            frame(b"2", wire.PING) * 50,
            frame(b"2", wire.PONG),
            frame(b"4", length=2**40),
            frame(b"4", length=2**63 + 1),
            frame(b"4" + bytes(MAX_PAYLOAD)),
            b"".join(frame(bytes(1000), 2 if not number else 0, fin=False) for number in range(110)),
            frame(b"", wire.CLOSE),
            frame(b"\x03", wire.CLOSE),
            frame(self._chance.choice([b"\x03\xe8", b"\x03\xed", b"\x00\x00", b"\x03\xe8\xff"]), wire.CLOSE)
            + frame(b"3"),
            b"\x81\x01\x33",  # without a mask
            self._chance.randbytes(40),
        ]
        self._socket.send(self._chance.choice(broken))
        return None

    async def _ask_nonsense(self) -> None:
        connection = await self._connect()
        good = request("GET", self._query("polling"), self._headers())
        asked = [
            request(self._chance.choice(["PUT", "HEAD", "OPTIONS", "POST", "GET"]), {"EIO": "4"}, self._headers()),
            request("GET", self._query("polling") | {"EIO": "3"}, self._headers()),
            request("GET", self._query("pigeon"), self._headers()),
            request("GET", self._query("polling", "nobody"), self._headers()),
            request("GET", self._query("polling"), self._headers() | {"Origin": "https://evil.test"}),
            request("GET", self._query("polling"), {f"X-{number}": "x" for number in range(200)}),
            request("GET", {}, {}, path="/elsewhere"),
            self._words.spoiled(good),
            good[: self._chance.randrange(len(good))],
            good * 3,
            self._chance.randbytes(200),
        ]
        connection.send(self._chance.choice(asked))

    async def _stall(self) -> None:
        """Ask for much, and read nothing of it; or read on."""
        if self._socket is not None and self._socket.stalled:
            self._socket.read_on()
        elif self._socket is not None:
            self._socket.stall()
            self._socket.send(b"".join(self._frames(self._words.flood())))

    async def _hang_up(self) -> None:
        if self._wires:
            self._end(self._chance.choice(self._wires))

    # How.

    async def _connect(self) -> Wire:
        connection = await Wire.open(self._port)
        self._wires.append(connection)
        return connection

    def _end(self, connection: Wire) -> None:
        match self._chance.randrange(4):
            case 0:
                connection.reset()
            case 1:
                connection.half_close()
                connection.close()
            case 2:
                connection.send(frame(b"1"))
                connection.close()
            case _:
                connection.close()

    def _query(self, transport: str, sid: str | None = None) -> dict[str, str]:
        query = {"EIO": "4", "transport": transport}
        if sid is not None:
            query["sid"] = sid
        elif self._chance.random() < 0.03:
            query["token"] = self._short_token()
        return query

    def _headers(self) -> dict[str, str]:
        headers = {"X-Forwarded-For": self._address}
        match self._chance.randrange(60):
            case 0:
                headers["Authorization"] = f"Bearer {self._short_token()}"
            case 1:
                headers["Authorization"] = self._chance.choice(["Basic YTpi", "Bearer", "Bearer  x", ""])
            case 2:
                headers["X-Forwarded-For"] = self._chance.choice(["", "unknown", f"1.2.3.4, {self._address}", "::1"])
        return headers

    def _short_token(self) -> str:
        # uvicorn's WebSockets do not answer a request with a line of more than 8 KiB, and do not hang up either.
        return self._words.token()[:4096]

    def _known_sid(self) -> str:
        return "nobody" if self._sid is None or self._chance.random() < 0.05 else self._sid

    def _frames(self, said: list[Message]) -> list[bytes]:
        frames = []
        for data, binary in said:
            opcode = wire.BINARY if binary else wire.TEXT
            cut = self._chance.randint(0, len(data)) if self._chance.random() < 0.1 else None
            if cut is None:
                frames.append(frame(data, opcode))
            else:
                frames += [frame(data[:cut], opcode, fin=False), frame(data[cut:], wire.CONTINUATION)]
        if self._chance.random() < 0.02:
            frames.append(frames.pop()[:-1])  # The rest of it never comes, or something else comes for it.
        return frames


async def crowd(
    seed: str, steps: int, port: int, parser: Parser, clock: Clock, after: Callable[[int], Awaitable[None]]
) -> None:
    """Let strangers come and go.

    Args:
        seed: what their choices begin with.
        steps: how many things they do, all together; and a few more, for nobody leaves in the middle.
        port: where the server is.
        parser: how the server writes packets.
        clock: what their tokens are dated by.
        after: awaited after each of their steps, with its number.
    """
    done = 0

    async def place(number: int) -> None:
        nonlocal done
        life = 0
        while done < steps:
            life += 1
            chance = Random(json.dumps([seed, number, life]))  # noqa: S311
            stranger = Stranger(chance, port, parser, clock)
            try:
                for _ in range(chance.randint(1, STEPS_A_LIFE)):
                    done += 1
                    await stranger.step()
                    await after(done)
            finally:
                await stranger.leave()

    async with asyncio.TaskGroup() as places:
        for number in range(AT_ONCE):
            places.create_task(place(number))
