"""What the tests of the gate share: a door that holds clients up, clocks, and the gate's own events."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from iogate import Clock, JWTAuth, Principal, Socket
from tests.conformance.wire import Session, within
from tests.servers import SECRET, make_token


class Door:
    """Connect middleware that holds everybody up until it is opened, and says when somebody stands there."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.left = asyncio.Event()
        self.sockets: list[Socket] = []

    async def __call__(self, socket: Socket) -> None:
        self.sockets.append(socket)
        self.reached.set()
        try:
            await self.opened.wait()
        finally:
            self.left.set()


class SteppedClock(Clock):
    """The clocks of the machine; the wall clock can be set forward and back."""

    __slots__ = ("step",)

    def __init__(self) -> None:
        self.step = 0.0

    def wall(self) -> float:
        return super().wall() + self.step


class CountingAuth(JWTAuth):
    """Counts how many tokens have been verified."""

    verified = 0

    async def verify_async(self, token: str) -> Principal:
        self.verified += 1
        return await super().verify_async(token)


class StoppedWallClock(Clock):
    """A wall clock that stands still.

    A token that expires a second later is good for a whole second from the moment when it is taken, however long the
    client needs to send it.
    """

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = int(super().wall())

    def wall(self) -> float:
        return self.now


def make_auth(**settings: Any) -> JWTAuth:
    """Return a verifier of the tests' tokens. The settings are those of `JWTAuth`."""
    return JWTAuth(secret=SECRET, algorithms=["HS256"], **settings)


def connect(token: str | None = None, namespace: str = "", **claims: Any) -> str:
    """Return a CONNECT packet with a token: a good one unless another is given."""
    payload = json.dumps({"token": token or make_token(**claims)})
    return f"40{namespace}{',' if namespace else ''}{payload}"


def authenticate(token: object = None, ack: int | str = "", **claims: Any) -> str:
    """Return an `authenticate` event with a token: a good one unless another is given."""
    return f"42{ack}" + json.dumps(["authenticate", {"token": token if token is not None else make_token(**claims)}])


async def hear(session: Session) -> tuple[str, Any]:
    """Return the next event: its name and its argument. Packets that are no event are returned as they are."""
    packet = str(await within(session.receive()))
    if not packet.startswith("42"):
        return packet, None
    name, *args = json.loads(packet[packet.index("[") :])
    return name, args[0] if args else None


def unauthorized(refusal: dict[str, Any]) -> dict[str, Any]:
    """Return the argument of `unauthorized` for a row of the contract."""
    return {"message": refusal["message"], "inner": {"message": refusal["message"]}, "data": refusal["data"]}


def farewell(refusal: dict[str, Any], namespace: str = "") -> list[str]:
    """Return what somebody is told whose identity has ended."""
    prefix = f"{namespace}," if namespace else ""
    return [f"42{prefix}" + compact(["unauthorized", unauthorized(refusal)]), f"41{prefix}"]


def compact(value: Any) -> str:
    """Return JSON as the server writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
