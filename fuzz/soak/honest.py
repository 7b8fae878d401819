"""Honest clients, who must not notice any of it: never refused, never disconnected, never kept waiting for long."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random

import httpx

from fuzz.live.house import House
from fuzz.live.rounds import Finding, GoodClient
from fuzz.soak.attacks import addresses
from iogate.protocol.socketio.packets import PacketType
from tests.conformance.wire import Polling, Session, websocket
from tests.servers import make_token

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # Else each client reads all certificates of the machine.

LIFETIME = 30
"""Seconds of an honest client's token."""


SHARED = addresses("bad tokens")
"""Addresses that a quarter of the honest clients share with attackers, as behind a NAT."""


class Waits:
    """How long honest clients have waited, by what for, in seconds.

    Args:
        bound: seconds in which a client must be let in, be answered, be refreshed; and a revoked one be out.
    """

    def __init__(self, bound: float) -> None:
        self._bound = bound
        self.number: dict[str, int] = {}
        self.longest: dict[str, float] = {}

    @asynccontextmanager
    async def wait(self, what: str) -> AsyncIterator[None]:
        """Measure.

        Raises:
            Finding: it took too long.
        """
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        self.number[what] = self.number.get(what, 0) + 1
        self.longest[what] = max(took, self.longest.get(what, 0.0))
        if took > self._bound:
            raise Finding(f"an honest client waited {took:.1f} s: {what}")


class Honest(GoodClient):
    """A client that refreshes its token.

    Args:
        house: where it is.
        session: how it talks.
        subject: who it is.
    """

    def __init__(self, house: House, session: Session, subject: str) -> None:
        super().__init__(house, session)
        self._subject = subject

    def token(self) -> str:
        """Return a new token."""
        now = int(self._house.clock.wall())
        return make_token(sub=self._subject, sid=self._subject, iat=now, exp=now + LIFETIME)

    async def enter(self, token: str | None = None) -> None:
        """Come in."""
        await self._say(PacketType.CONNECT, {"token": token or self.token()}, '"sid"')

    async def refresh(self) -> None:
        """Present a new token."""
        await self._say(PacketType.EVENT, ["authenticate", {"token": self.token()}], "authenticated")

    async def gone(self) -> None:
        """Wait until the server has ended the session."""
        with suppress(asyncio.CancelledError):
            await self._reading


@asynccontextmanager
async def honest(house: House, url: str, subject: str, waits: Waits, chance: Random) -> AsyncIterator[Honest]:
    """Have a client, on either transport, which leaves without a word."""
    own = f"192.0.2.{chance.randrange(1, 25)}"  # A few: addresses of revoked clients that try again are remembered.
    address = {"X-Forwarded-For": chance.choice([own, own, own, chance.choice(SHARED)])}

    async with AsyncExitStack() as stack:
        session: Session
        async with waits.wait("open a transport"):
            if chance.random() < 0.5:
                session = await stack.enter_async_context(websocket(url, **address))
            else:
                # A connection for each request: the server closes one that is idle, perhaps just when it is used again.
                limits = httpx.Limits(max_keepalive_connections=0)
                http = httpx.AsyncClient(base_url=url, timeout=60.0, headers=address, verify=_NO_TLS, limits=limits)
                session = polling = Polling(await stack.enter_async_context(http))
                await polling.open()
        client = Honest(house, session, subject)
        stack.push_async_callback(client.leave)
        yield client


async def live(house: House, url: str, name: str, waits: Waits, chance: Random, over: Callable[[], bool]) -> None:
    """Come, stay a while, refresh, leave, and come again."""
    number = 0
    while not over():
        number += 1
        async with honest(house, url, f"{name}-{number}", waits, chance) as client:
            async with waits.wait("be let in"):
                await client.enter()
            leave = time.monotonic() + chance.uniform(2, 3 * LIFETIME)
            refresh = time.monotonic() + LIFETIME / 2
            while not over() and time.monotonic() < leave:
                async with waits.wait("an echo"):
                    await client.echoes()
                if time.monotonic() > refresh:
                    refresh += LIFETIME / 2
                    async with waits.wait("a refresh"):
                        await client.refresh()
                await asyncio.sleep(chance.uniform(0.1, 0.5))


async def be_revoked(house: House, url: str, name: str, waits: Waits, chance: Random, over: Callable[[], bool]) -> None:
    """Come, have the session revoked, be gone in time, and be refused with the same token; then come as another."""
    number = 0
    while not over():
        number += 1
        subject = f"{name}-{number}"
        async with honest(house, url, subject, waits, chance) as client:
            token = client.token()
            await client.enter(token)
            async with waits.wait("a revocation"):
                await house.io.revoke(session_id=subject)
                await client.gone()
        async with honest(house, url, subject, waits, chance) as again:
            try:
                await again.enter(token)
            except Finding:
                pass
            else:
                raise Finding("a revoked token was let in")
        await asyncio.sleep(chance.uniform(0.5, 2.0))
