"""Bad tokens are shown: to the verifier itself, and to a running server that has somebody else in."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from iogate import Limits, Server
from iogate.errors import AuthError
from tests.attacks.doors import Door, door
from tests.attacks.tokens import Bad
from tests.conformance.conftest import echo_server
from tests.conformance.wire import Session, echoes, said, session, within
from tests.gate.support import compact, hear
from tests.servers import make_token, serve

VERIFIER = "JWTAuth.verify"

UNHEARD = Limits(failures_per_address=1_000_000)
"""So that every token is judged, and none refused for those before it."""

_numbers = count()


async def assert_refused(place: str, attempts: Iterable[Bad]) -> None:
    """Show tokens, and make sure that each is refused as it must be, and nothing else happens.

    Args:
        place: `JWTAuth.verify`, or the transport to show them on.
        attempts: the tokens.
    """
    by_door: dict[str, list[Bad]] = defaultdict(list)
    for bad in attempts:
        by_door[bad.door].append(bad)
    assert by_door
    wrong: dict[str, Any] = {}
    for name, tokens in by_door.items():
        wrong |= _verified(door(name), tokens) if place == VERIFIER else await _served(door(name), tokens, place)
    assert not wrong, f"what was answered instead: {wrong}"


def _verified(door: Door, tokens: list[Bad]) -> dict[str, Any]:
    assert door.auth.verify(door.good).subject == "alice"
    answers = {bad.name: (_judgement(door, bad.token), bad.error) for bad in tokens}
    return {name: answer for name, (answer, right) in answers.items() if answer is not right}


def _judgement(door: Door, token: str) -> Any:
    try:
        return door.auth.verify(token)
    except AuthError as error:
        # What has a cause was refused by the net under the checks, and by none of them.
        return error.__cause__ or type(error)


async def _served(door: Door, tokens: list[Bad], transport: str) -> dict[str, Any]:
    entered: list[str] = []
    io = echo_server(auth=door.auth, limits=UNHEARD)
    io.on("connect", lambda socket: entered.append(socket.id))
    wrong: dict[str, Any] = {}
    async with victim(io, transport, door.good) as (url, alice):
        for bad in tokens:
            async with session(url, transport) as mallory:
                await mallory.send(connect(bad.token))
                told = await said(mallory)
            # What is larger than a client may send before the verdict ends the connection unread.
            unread = len(bad.token.encode("utf-8", "surrogatepass")) > io._core.settings.max_unverified
            if told != ([] if unread else ["44" + compact(bad.refusal)]):
                wrong[bad.name] = told
        await assert_undisturbed(io, alice)
        assert len(entered) == len(await io.fetch_sockets()) == 1
    return wrong


@asynccontextmanager
async def victim(io: Server, transport: str, token: str | None = None) -> AsyncIterator[tuple[str, Session]]:
    """Serve, and have somebody connected who must not notice what others do; give the URL and the session."""
    async with serve(io) as url, session(url, transport) as alice:
        await alice.send(connect(token or make_token(sub="alice")))
        assert str(await within(alice.receive())).startswith('40{"sid":')
        yield url, alice


async def assert_undisturbed(io: Server, alice: Session) -> None:
    """Make sure that somebody still sends and gets events, and has got no others."""
    await echoes(alice)
    number = next(_numbers)
    io.emit("news", number)
    assert await hear(alice) == ("news", number)


def connect(token: object) -> str:
    """Return a CONNECT with this token, whatever it is."""
    return "40" + json.dumps({"token": token})
