"""Rows 38, 41 and 42: what a client without a verdict costs, and what its failures cost others at its address."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from iogate import JWTAuth, Limits, Socket
from iogate.protocol.socketio.packets import MAX_UNVERIFIED_DEPTH, MAX_UNVERIFIED_VALUES
from iogate.server.gate.attempts import HELD_FRAMES
from iogate.server.gate.connection import MAX_CONNECTS
from iogate.server.gate.limits import AT_A_TIME
from iogate.testing import advance
from iogate.transports.polling import PollingTransport
from tests import refusals
from tests.attacks.bounds import SMALL, peak_below
from tests.attacks.places import HELD, Place, enters, in_band
from tests.attacks.showing import assert_undisturbed, victim
from tests.conformance.conftest import echo_server
from tests.conformance.wire import Session, WebSocket, echoes, ends, polling, said, session, within
from tests.gate.support import authenticate, connect, hear, make_auth
from tests.server.left import until
from tests.servers import SECRET, make_token, serve

BAD = make_token(secret="x" * 40)

# Row 38: payloads.

LIMIT = 4 * 8192  # Four of the largest tokens.


def deep(levels: int) -> Any:
    """Return lists within each other."""
    data: list[Any] = []
    for _ in range(levels):
        data = [data]
    return data


OVERSIZED: dict[str, Any] = {
    "many values": [1] * (MAX_UNVERIFIED_VALUES + 1),
    "many empty lists": [[]] * MAX_UNVERIFIED_VALUES,
    "many members": {str(number): 1 for number in range(MAX_UNVERIFIED_VALUES + 1)},
    "many levels": deep(MAX_UNVERIFIED_DEPTH + 1),
    "as many as fit": [1] * (LIMIT // 2 - 100),
    "as deep as the stack bears": deep(90),
}
LARGE: dict[str, Any] = {
    "a long text": "x" * (LIMIT + 1),
    "a longer text": "x" * 900_000,
    "a megabyte of small values": [[]] * 300_000,
    "a megabyte, ninety levels deep": [deep(88)] * 5000,
}


def packet(parser: str, data: Any, kind: int = 0, namespace: str = "/") -> str | bytes:
    """Return a packet."""
    if parser == "msgpack":
        return msgspec.msgpack.encode({"type": kind, "nsp": namespace, "data": data})
    return f"4{kind}{'' if namespace == '/' else namespace + ','}" + msgspec.json.encode(data).decode()


def refusal(parser: str, answer: str | bytes) -> Any:
    """Return what a CONNECT was refused with."""
    if isinstance(answer, bytes):
        message = msgspec.msgpack.decode(answer)
        assert (parser, message["type"]) == ("msgpack", 4)
        return message["data"]
    assert answer.startswith("44")
    return json.loads(answer[answer.index("{") :])


def data_of(event: str | bytes) -> Any:
    """Return the data of an event."""
    return msgspec.msgpack.decode(event)["data"] if isinstance(event, bytes) else json.loads(event.removeprefix("42"))


@pytest.fixture(params=["json", "msgpack"])
def parser(request: pytest.FixtureRequest) -> str:
    """Each parser."""
    chosen: str = request.param
    return chosen


@pytest.mark.parametrize("payload", OVERSIZED.values(), ids=OVERSIZED)
async def test_a_payload_with_more_than_a_client_may_send_before_the_verdict(
    transport: str, parser: str, payload: Any
) -> None:
    """Row 38: it is refused with the reason that a client may know, and without being decoded or kept."""
    io = echo_server(parser=parser)
    async with victim(echo_server(), transport) as (_, alice), AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(io))
        mallory = await stack.enter_async_context(session(url, transport))
        shown = packet(parser, {"token": make_token(), "more": payload})
        with peak_below(SMALL):
            await mallory.send(shown)
            (answer,) = await said(mallory)
        assert refusal(parser, answer) == refusals.BAD_FORMAT
        assert not io._core.sessions.table
        await echoes(alice)


@pytest.mark.parametrize("payload", LARGE.values(), ids=LARGE)
async def test_a_payload_larger_than_a_client_may_send_before_the_verdict(
    transport: str, parser: str, payload: Any
) -> None:
    """Row 38: it ends the connection, and the server has not decoded it."""
    io = echo_server(parser=parser)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(io))
        mallory = await stack.enter_async_context(session(url, transport))
        await mallory.send(packet(parser, {"token": make_token(), "more": payload}))
        await ends(mallory)
        await until(lambda: not io._core.sessions.table)


async def test_a_payload_that_is_just_small_enough(transport: str, parser: str) -> None:
    """Row 38: a client with much to say in its CONNECT is let in, up to the limits."""
    io = echo_server(parser=parser)
    payloads: list[Any] = []
    io.on("connect", lambda socket: payloads.append(socket.handshake.auth))
    values = [1] * (MAX_UNVERIFIED_VALUES - 6)
    nested = deep(MAX_UNVERIFIED_DEPTH - 3)
    for more in (values, nested, "x" * (LIMIT - 1000)):
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(serve(io))
            client = await stack.enter_async_context(session(url, transport))
            await client.send(packet(parser, {"token": make_token(), "more": more}))
            await until(lambda: len(payloads) > 0)
            assert payloads.pop() == {"more": more}


async def test_payloads_of_many_namespaces_on_one_connection(transport: str) -> None:
    """Row 38: what is kept of them is bounded for all of them together, as long as they wait and afterwards."""
    io = echo_server(auth=make_auth(authenticate_within=10))
    io.of(re.compile("/room-.*"))
    async with victim(io, transport) as (url, alice), session(url, transport) as mallory:
        answer = ""
        for number in range(25):
            await mallory.send(f"40/room-{number}," + json.dumps({"more": "x" * 20_000}))
            answer = str(await within(mallory.receive()))
            assert answer.startswith("40" if number < HELD_FRAMES * LIMIT // 20_000 else "44"), number
        assert json.loads(answer.partition(",")[2]) == refusals.ATTEMPTS
        await assert_undisturbed(io, alice)


async def test_tokens_of_many_namespaces_at_once(transport: str) -> None:
    """Row 38: an honest client that asks for many namespaces with a large token is let into all of them."""
    place = Counted("user")
    place.io.of(re.compile("/room-.*"))
    token = make_token(sub="mallory", more="x" * 2500)
    async with victim(place.io, transport) as (url, alice), session(url, transport) as bob:
        for number in range(25):
            await bob.send(connect(token, f"/room-{number}"))
        await until(lambda: len(place.io._core.gate.decision_timeout) == 25)
        place.opened.set()
        assert all([str(await within(bob.receive())).startswith("40/room-") for _ in range(25)])
        await assert_undisturbed(place.io, alice)


async def test_very_many_small_connects(transport: str) -> None:
    """Row 38: a client asks a hundred times between two heartbeats; that is one for each namespace it may be in."""
    io = echo_server(auth=make_auth(authenticate_within=10))
    async with victim(io, transport) as (url, alice), session(url, transport) as mallory:
        await mallory.send(*["40"] * 101)
        assert sum(str(packet).startswith("40") for packet in await said(mallory)) <= MAX_CONNECTS
        await assert_undisturbed(io, alice)


async def test_a_body_for_a_session_that_has_ended(transport: str) -> None:
    """Row 38: it is refused at once; nothing would end the request any more."""
    io = echo_server()
    async with victim(io, transport) as (url, alice), polling(url) as mallory:
        polled = io._core.sessions.table[mallory.handshake["sid"]].transport
        assert isinstance(polled, PollingTransport)
        await mallory.send("1")
        assert not await polled.post(never)
        await assert_undisturbed(io, alice)


async def never() -> Any:
    """Be a request whose body does not come."""
    await asyncio.Event().wait()


async def test_a_guest_may_send_much_but_not_in_a_connect(transport: str, parser: str) -> None:
    """Row 38: a guest has been let in; what is kept of its CONNECT payload is bounded all the same."""
    io = echo_server(auth=make_auth(guests=True), parser=parser)
    async with serve(io) as url, session(url, transport) as guest:
        await guest.send(packet(parser, {}))
        await within(guest.receive())
        text = "x" * 500_000
        await guest.send(packet(parser, ["echo", text], 2))
        assert data_of(await within(guest.receive())) == ["echo", text]
        await guest.send(packet(parser, {"more": text}, namespace="/other"))
        assert refusal(parser, await within(guest.receive())) == refusals.BAD_FORMAT
        await guest.send(packet(parser, ["echo", "hello"], 2))
        assert data_of(await within(guest.receive())) == ["echo", "hello"]


async def test_an_event_of_a_client_that_waits_outside(transport: str) -> None:
    """Row 38: `authenticate` is bounded like CONNECT, and whatever else comes before it too."""
    io = echo_server(auth=make_auth(authenticate_within=10))
    for event in (["authenticate", [1] * 1000], ["echo", deep(50)], ["x" * (LIMIT + 1)]):
        async with victim(io, transport) as (url, alice), session(url, transport) as mallory:
            await mallory.send("40")
            assert str(await within(mallory.receive())).startswith("40")
            await mallory.send("42" + json.dumps(event))
            await ends(mallory)
            await assert_undisturbed(io, alice)


async def test_a_message_in_many_fragments(transport: str) -> None:
    """Row 38: the parts of a message count together; over polling, those of a body."""
    io = echo_server()
    async with victim(io, transport) as (url, alice), session(url, transport) as mallory:
        if isinstance(mallory, WebSocket):
            await mallory.connection.send(["x" * 1000] * 900)
        else:
            await mallory.send(*["3"] * 50_000)
        await ends(mallory)
        await assert_undisturbed(io, alice)


# Row 41: attempts that are given up.


class Counted:
    """A server whose key function, `load_user` and middleware wait, and count how often they are called."""

    def __init__(self, stage: str, **auth: Any) -> None:
        self.calls = 0
        self.opened = asyncio.Event()
        self._stage = stage
        self.limits: dict[str, Any] = {}
        verifier = JWTAuth(keys=self._key, algorithms=["HS256"], **auth)
        verifier.load_user(self._user)
        self.io = echo_server(auth=verifier, limits=Limits(failures_per_address=5))
        self.io.use(self._middleware)

    async def _key(self, header: Any, claims: Mapping[str, Any]) -> str:
        await self._wait("key", claims)
        return SECRET

    async def _user(self, claims: Mapping[str, Any]) -> Any:
        await self._wait("user", claims)
        return claims

    async def _middleware(self, socket: Socket) -> None:
        await self._wait("middleware", socket.claims)

    async def _wait(self, stage: str, claims: Mapping[str, Any]) -> None:
        if stage == self._stage and claims["sub"] == "mallory":
            self.calls += 1
            await self.opened.wait()


async def asks_again(mallory: Session, ask: str) -> None:
    """Send CONNECT after CONNECT."""
    await mallory.send(ask)


async def asks_and_leaves(mallory: Session, ask: str) -> None:
    """Send pairs of CONNECT and DISCONNECT."""
    await mallory.send(ask, "41")


@pytest.mark.parametrize("stage", ["key", "user", "middleware"])
@pytest.mark.parametrize("trick", [asks_again, asks_and_leaves], ids=lambda trick: trick.__name__)
async def test_attempts_that_are_given_up_count(
    transport: str, stage: str, trick: Callable[[Session, str], Awaitable[None]]
) -> None:
    """Row 41: each has cost what a bad token costs: after three the transport is closed."""
    place = Counted(stage)
    async with victim(place.io, transport) as (url, alice), session(url, transport) as mallory:
        for number in range(50):
            await trick(mallory, connect(sub="mallory", jti=str(number)))
        await ends(mallory)
        await until(lambda: len(place.io._core.sessions.table) == 1 and len(place.io._core.gate.decision_timeout) == 0)
        assert 1 <= place.calls <= 4
        await assert_undisturbed(place.io, alice)


@pytest.mark.parametrize("stage", ["key", "user"])
async def test_transports_that_leave_while_they_wait_count(transport: str, stage: str) -> None:
    """Row 41: they count as bad credentials of their address, and then few are verified at a time."""
    place = Counted(stage)
    async with victim(place.io, transport) as (url, alice):
        for number in range(8):
            async with session(url, transport) as mallory:
                await mallory.send(connect(sub="mallory", jti=str(number)))
                await until(lambda: place.calls == number + 1)  # noqa: B023
                await mallory.send("1")
                await ends(mallory)
        assert place.io._core.gate.failures.exceeded("127.0.0.1")
        await assert_undisturbed(place.io, alice)


async def test_verifications_of_an_address_with_many_failures_are_few_at_a_time(transport: str) -> None:
    """Row 41: a client that leaves does not make room for another call of a key function that is still at work."""
    place = Counted("key")
    for _ in range(6):
        place.io._core.gate.failures.add("127.0.0.1")
    async with victim(place.io, transport) as (url, alice):
        for number in range(AT_A_TIME + 5):
            async with session(url, transport) as mallory:
                await mallory.send(connect(sub="mallory", jti=str(number)))
                await until(lambda: len(place.io._core.gate.decision_timeout) == 1)
                await mallory.send("1")
                await ends(mallory)
        assert place.calls == AT_A_TIME
        place.opened.set()
        await assert_undisturbed(place.io, alice)


async def test_a_guest_that_gives_up_keeps_what_it_has(transport: str) -> None:
    """Row 41: it is refused in the namespace that it did not wait for, until the next heartbeat."""
    io = echo_server(auth=make_auth(guests=True))
    io.of("/slow").use(lambda socket: asyncio.Event().wait())
    async with victim(io, transport) as (url, alice), session(url, transport) as guest:
        await guest.send("40")
        assert str(await within(guest.receive())).startswith("40")
        for _ in range(3):
            await guest.send("40/slow,", "41/slow,")
        await guest.send("40/slow,")
        answer = str(await within(guest.receive()))
        assert json.loads(answer.removeprefix("44/slow,")) == refusals.ATTEMPTS
        await echoes(guest)
        await assert_undisturbed(io, alice)


async def test_a_transport_that_leaves_counts_once(transport: str) -> None:
    """Row 41: a page that is closed while it waits for many namespaces is not taken for an attack."""
    place = Counted("user")
    place.io.of(re.compile("/room-.*"))
    async with victim(place.io, transport) as (url, alice), session(url, transport) as bob:
        for number in range(50):
            await bob.send(connect(sub="mallory", namespace=f"/room-{number}"))
        await until(lambda: len(place.io._core.gate.decision_timeout) == 50)
        await bob.send("1")
        await ends(bob)
        await until(lambda: len(place.io._core.sessions.table) == 1)
        assert not place.io._core.gate.failures.exceeded("127.0.0.1")
        await assert_undisturbed(place.io, alice)


async def test_many_tokens_at_once_on_one_transport(transport: str) -> None:
    """Row 41: they are verified one after another, however many namespaces they are for."""
    place = Counted("key")
    place.io.of(re.compile("/room-.*"))
    async with victim(place.io, transport) as (url, alice), session(url, transport) as mallory:
        for number in range(50):
            await mallory.send(connect(BADS[number], f"/room-{number}"))
        await until(lambda: len(place.io._core.gate.decision_timeout) == 50)
        assert place.calls == 1
        place.opened.set()
        refused = [answer for answer in await said(mallory) if "invalid_token" in str(answer)]
        assert len(refused) == 3
        assert place.calls == 3
        await assert_undisturbed(place.io, alice)


BADS = [make_token(secret="x" * 40, sub="mallory", jti=str(number)) for number in range(50)]


async def test_an_honest_client_may_ask_for_many_namespaces_at_once(transport: str) -> None:
    """Row 41: one token is verified once, and its user loaded once, for all that ask with it."""
    place = Counted("user")
    place.io.of(re.compile("/room-.*"))
    async with victim(place.io, transport) as (url, alice), session(url, transport) as bob:
        token = make_token(sub="mallory")
        for number in range(20):
            await bob.send(connect(token, f"/room-{number}"))
        await until(lambda: len(place.io._core.gate.decision_timeout) == 20)
        place.opened.set()
        answers = [str(await within(bob.receive())) for _ in range(20)]
        assert all(answer.startswith("40/room-") for answer in answers)
        assert place.calls == 1
        await assert_undisturbed(place.io, alice)


# Row 42: an address with bad tokens.


@pytest.mark.parametrize("way", ["CONNECT", "authenticate"])
async def test_a_good_token_from_an_address_with_bad_ones(transport: str, way: str) -> None:
    """Row 42: it gets in at once, whatever others behind the same address do."""
    io = echo_server(auth=make_auth(**in_band(way)), limits=Limits(failures_per_address=3))
    async with victim(io, transport) as (url, alice):
        for _ in range(200):
            io._core.gate.failures.add("127.0.0.1")
        async with session(url, transport) as mallory, session(url, transport) as bob:
            for shown, token in ((mallory, BAD), (bob, make_token(sub="bob"))):
                if way == "authenticate":
                    await shown.send("40")
                    assert str(await within(shown.receive())).startswith("40")
                await shown.send(connect(token) if way == "CONNECT" else authenticate(token))
            assert "Too many attempts" in str(await within(mallory.receive()))
            assert str(await within(bob.receive())).startswith("40" if way == "CONNECT" else '42["authenticated"')
            await echoes(bob)
        await assert_undisturbed(io, alice)


async def test_a_good_token_waits_its_turn_where_verification_takes_time(transport: str) -> None:
    """Row 42: with a slow key function it gets in as soon as one of those before it is done."""
    place = Counted("key")
    for _ in range(6):
        place.io._core.gate.failures.add("127.0.0.1")
    async with victim(place.io, transport) as (url, alice), AsyncExitStack() as stack:
        for number in range(AT_A_TIME):
            mallory = await stack.enter_async_context(session(url, transport))
            await mallory.send(connect(BADS[number]))
        await until(lambda: place.calls == AT_A_TIME)
        bob = await stack.enter_async_context(session(url, transport))
        await bob.send(connect(sub="bob"))
        await until(lambda: len(place.io._core.gate.decision_timeout) == AT_A_TIME + 1)
        place.opened.set()
        assert str(await within(bob.receive())).startswith("40")
        await assert_undisturbed(place.io, alice)


async def test_a_deadline_that_passes_while_the_server_is_slow_is_no_reason_to_sign_in(transport: str) -> None:
    """Row 42: the client has done its part, so it is told to come later."""
    place = Place()
    door = place.hold("load_user")
    async with victim(place.io, transport) as (url, alice), session(url, transport) as mallory:
        await mallory.send(connect(place.token(jti=HELD)))
        await within(door.reached.wait())
        await advance(place.io, 10.0)
        assert json.loads(str((await said(mallory))[0])[2:]) == refusals.UNAVAILABLE
        await assert_undisturbed(place.io, alice)


async def test_the_log_of_a_flood_is_one_line(transport: str, caplog: pytest.LogCaptureFixture) -> None:
    """Row 42: an operator reads once that an address shows bad tokens, and not once for each of them."""
    io = echo_server(limits=Limits(failures_per_address=3))
    async with victim(io, transport) as (url, alice):
        with caplog.at_level("INFO", "iogate"):
            for _ in range(20):
                async with session(url, transport) as mallory:
                    await mallory.send(connect(BAD))
                    await within(mallory.receive())
        lines = [line for line in caplog.messages if "invalid" in line or "too many" in line.lower()]
        assert len(lines) == 4 + 1
        assert sum("too many bad credentials from 127.0.0.1" in line for line in lines) == 1
        await enters_as(url, transport)
        await assert_undisturbed(io, alice)


async def enters_as(url: str, transport: str) -> None:
    """See that a good token is let in."""
    async with session(url, transport) as bob:
        await enters(bob, make_token(sub="bob"))
        await bob.send('42["echo","here"]')
        assert (await hear(bob))[0] == "echo"
