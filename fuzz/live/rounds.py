"""Rounds of strangers, with a good client in each that must be served all the time."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from typing import Literal, NamedTuple

import httpx

from fuzz.live.guests import crowd
from fuzz.live.house import GOOD, House
from fuzz.live.left import Log, Rest
from fuzz.live.wire import PATIENCE
from iogate.protocol.socketio.packets import Packet, PacketType
from tests.conformance.wire import Closed, Polling, Session, websocket
from tests.servers import Kind, make_token, serve

ACT_EVERY = 5
"""Steps of strangers for one thing that the operator does."""


class Scene(NamedTuple):
    """A server that strangers come to.

    Args:
        kind: how it is served.
        parser: how it writes packets.
    """

    kind: Kind
    parser: Literal["json", "msgpack"]

    def __str__(self) -> str:
        return f"{'picows' if self.kind == 'uvicorn-picows' else 'websockets'}, {self.parser}"


SCENES = (Scene("uvicorn-picows", "json"), Scene("uvicorn", "json"), Scene("uvicorn-picows", "msgpack"))


class Finding(Exception):
    """Something that must not be."""


class GoodClient:
    """Somebody who has a good token and does everything right.

    Args:
        house: where he is.
        session: how he talks.
    """

    def __init__(self, house: House, session: Session) -> None:
        self._house = house
        self._session = session
        self._awaited = "nothing"
        self._heard = asyncio.Event()
        self._sending = asyncio.Lock()
        self._number = 0
        self.ended: str | None = None
        self._reading = asyncio.ensure_future(self._read())

    async def enter(self) -> None:
        """Come in."""
        now = int(self._house.clock.wall())
        await self._say(PacketType.CONNECT, {"token": make_token(sub=GOOD, iat=now, exp=now + 3000)}, '"sid"')

    async def echoes(self) -> None:
        """Make sure that he is served."""
        self._number += 1
        text = f"still here ({self._number})"
        await self._say(PacketType.EVENT, ["echo", text], text)

    async def leave(self) -> None:
        """Stop listening."""
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading

    async def _say(self, type_: PacketType, data: object, awaited: str) -> None:
        self._awaited = awaited
        self._heard.clear()
        encoded = self._house.io._core.sessions.parser.encode(Packet(type_, "/", data))
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._send(*([encoded.text.decode()] if encoded.text else []), *encoded.attachments)
                await self._heard.wait()
        if self.ended is not None or not self._heard.is_set():
            raise Finding(f"a good client is not served on {type(self._session).__name__}: {self.ended or 'silence'}")

    async def _send(self, *packets: str | bytes) -> None:
        async with self._sending:  # There is one POST at a time.
            await self._session.send(*packets)

    async def _read(self) -> None:
        try:
            while True:
                packet = await self._session.receive_any()
                if packet == "2":
                    await self._send("3")
                    continue
                text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else packet
                if self._awaited.strip('"') in text:
                    self._heard.set()
        except Closed as closed:
            self.ended = str(closed) or "closed"
        except httpx.HTTPError as error:
            self.ended = repr(error)
        finally:
            self._heard.set()


@asynccontextmanager
async def good_clients(house: House, url: str) -> AsyncIterator[list[GoodClient]]:
    """Have one on each transport, from an address that is nobody else's."""
    address = {"X-Forwarded-For": "192.0.2.1"}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=PATIENCE, headers=address))
        polling = Polling(http)
        await polling.open()
        sessions: list[Session] = [polling, await stack.enter_async_context(websocket(url, **address))]
        clients = [GoodClient(house, session) for session in sessions]
        for client in clients:
            stack.push_async_callback(client.leave)
            await client.enter()
        yield clients


class Fuzz:
    """A server that is served, and rounds of strangers.

    Args:
        house: the server.
        url: where it is served.
    """

    def __init__(self, house: House, url: str, log: Log) -> None:
        self._house = house
        self._url = url
        self._log = log
        self.rest = Rest(house)

    async def round(self, seed: str, steps: int) -> None:
        """Let strangers do so many things; have good clients among them; and look at what is left.

        Raises:
            Finding: something that must not be.
        """
        loop = asyncio.get_running_loop()
        house = self._house
        house.begin(Random(seed))  # noqa: S311
        found: list[str] = []
        looking = asyncio.Lock()
        try:
            async with good_clients(house, self._url) as clients:

                async def look() -> None:
                    async with looking:
                        await house.act()
                        for client in clients:
                            await client.echoes()

                async def after(step: int) -> None:
                    if step % ACT_EVERY == 0:
                        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(look(), loop))

                port = int(self._url.rpartition(":")[2])
                # In a thread of their own: they do not wait until the server has done what it does.
                await asyncio.to_thread(
                    asyncio.run, crowd(seed, steps, port, house.io._core.sessions.parser, house.clock, after)
                )
                await look()
        except ExceptionGroup as group:
            found += [_told(error) for error in group.exceptions]
        except Exception as error:
            found.append(_told(error))
        found += await self.rest.left()
        found += self._log.found
        if found:
            raise Finding("\n".join(found))


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, Finding) else "".join(traceback.format_exception(error))


@asynccontextmanager
async def fuzzing(scene: Scene) -> AsyncIterator[Fuzz]:
    """Serve a server for rounds of strangers."""
    house = House(scene.parser)
    with Log() as log:
        async with serve(house.io, scene.kind) as url:
            yield Fuzz(house, url, log)
