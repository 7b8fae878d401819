"""What somebody without an identity may cost, and how many connections one subject may have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.protocol import State

from iogate import Clock, ConfigurationError, Limits, Server, Socket
from iogate.errors import TooManyConnections
from iogate.server.gate.limits import LONGEST_BLOCK, MAX_ADDRESSES, FailureLimiter
from iogate.server.session.addresses import Proxies
from iogate.server.session.handshake import Handshake
from tests import refusals
from tests.conformance.wire import (
    POLLING,
    WEBSOCKET,
    Session,
    client,
    echoes,
    ends,
    enter,
    polling,
    probe,
    raw_websocket,
    refused,
    said,
    session,
    websocket,
    within,
)
from tests.gate.support import authenticate, compact, connect, hear, make_auth, unauthorized
from tests.server.left import until
from tests.servers import Kind, make_server, make_token, serve

FULL = {"message": "Too many connections", "code": "too_many", "type": "UnauthorizedError", "retry": "later"}


class Standing(Clock):
    """A clock whose monotonic half stands still until it is moved."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Ahead(Clock):
    """The clock of the machine, set forward by some seconds."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.seconds


@pytest.fixture(params=["polling", "websocket"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport by itself."""
    chosen: str = request.param
    return chosen


# The numbers.


@pytest.mark.parametrize(
    "name", ["pending", "pending_per_address", "failures_per_address", "missing_per_address", "connections_per_subject"]
)
@pytest.mark.parametrize("wrong", [0, -1, 1.5, "5", True, float("nan"), float("inf")], ids=repr)
def test_a_limit_is_a_whole_number_of_at_least_one(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"Limits\({name}=\.\.\.\) is a whole number, at least 1"):
        Limits(**{name: wrong})
    assert getattr(Limits(**{name: 1}), name) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["pending", "pending_per_address", "failures_per_address"])
def test_only_the_connections_of_a_subject_may_be_without_limit(name: str) -> None:
    assert Limits(connections_per_subject=None).connections_per_subject is None
    with pytest.raises(ConfigurationError, match="at least 1"):
        Limits(**{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["", "refuse", None, True])
def test_there_are_two_ways_to_be_full(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match='"reject" or "end_oldest"'):
        Limits(when_full=wrong)


# Bad credentials of an address.


@pytest.fixture
def clock() -> Standing:
    return Standing()


def fail(failures: FailureLimiter, times: int, address: str | None = "192.0.2.1") -> None:
    for _ in range(times):
        failures.add(address)


def blocked(failures: FailureLimiter, address: str | None = "192.0.2.1") -> bool:
    return failures.exceeded(address)


def test_an_address_may_fail_as_often_as_it_is_allowed(clock: Standing) -> None:
    failures = FailureLimiter(3, clock)
    fail(failures, 3)
    assert not blocked(failures)
    fail(failures, 1)
    assert blocked(failures)
    assert not blocked(failures, "192.0.2.2")
    assert not blocked(failures, None)


def test_each_further_failure_doubles_the_time_that_it_is_turned_away(clock: Standing) -> None:
    """Somebody who tries again as soon as he may gets nowhere fast."""
    failures = FailureLimiter(3, clock)
    fail(failures, 3)
    times = []
    for _ in range(8):
        fail(failures, 1)
        began = clock.now
        while blocked(failures):
            clock.now += 0.5
        times.append(clock.now - began)
    assert times == [2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_BLOCK, LONGEST_BLOCK, LONGEST_BLOCK]


def test_what_was_under_way_when_an_address_was_turned_away_counts_too(clock: Standing) -> None:
    failures = FailureLimiter(1, clock)
    fail(failures, 4)
    clock.now += 7.9
    assert blocked(failures)
    clock.now += 0.1
    assert not blocked(failures)


def test_a_failure_is_forgiven_with_every_second_that_an_address_is_quiet(clock: Standing) -> None:
    failures = FailureLimiter(3, clock)
    fail(failures, 3)
    clock.now += 2.0
    fail(failures, 2)
    assert not blocked(failures)
    fail(failures, 1)
    assert blocked(failures)


def test_the_time_that_an_address_is_turned_away_is_not_forgiven(clock: Standing) -> None:
    """Only what comes after it: five quiet seconds are five failures."""
    failures = FailureLimiter(3, clock)
    fail(failures, 4)
    clock.now += 2.0 + 4.0
    fail(failures, 3)
    assert not blocked(failures)
    fail(failures, 1)
    assert blocked(failures)


def test_an_address_that_fails_once_a_second_is_never_turned_away(clock: Standing) -> None:
    """One stale client among the users behind an address does not lock the others out."""
    failures = FailureLimiter(3, clock)
    for _ in range(1000):
        fail(failures, 1)
        assert not blocked(failures)
        clock.now += 1.0


def test_no_more_addresses_are_remembered_than_there_is_room_for(clock: Standing) -> None:
    failures = FailureLimiter(1, clock)
    fail(failures, 2, "192.0.2.1")
    for number in range(MAX_ADDRESSES - 1):
        failures.add(f"10.0.{number // 256}.{number % 256}")
    assert blocked(failures)
    assert len(failures) == MAX_ADDRESSES
    failures.add("192.0.2.2")
    assert len(failures) == MAX_ADDRESSES
    assert not blocked(failures)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:DB8:1:2:0::1", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        (None, None, True),
        (None, "192.0.2.1", False),
        ("testclient", "testclient", True),
        ("testclient", "another", False),
    ],
)
async def test_a_network_of_64_bits_is_one_address(
    clock: Standing, one: str | None, other: str | None, same: bool
) -> None:
    """The rest of an IPv6 address is for whoever has one to choose, a new one for every attempt."""
    limits = Limits(failures_per_address=1, pending_per_address=1)
    failures = FailureLimiter(limits.failures_per_address, clock)
    fail(failures, 2, one)
    assert blocked(failures, other) is same
    io = Server(auth=make_auth(), limits=limits)
    connection = io._core.open(Handshake(address=one))
    io._core.sessions.pending.asked(connection)
    try:
        io._core.sessions.pending.check(other)
    except TooManyConnections:
        assert same
    else:
        assert not same
    io._core.sessions.pending.discard(connection)
    io._core.sessions.pending.check(other)
    io._core.sessions.deadlines.stop()


# Whose address it is.

TRUSTED = ["10.0.0.0/8", "192.0.2.7", "2001:db8:ffff::/48"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        # Nobody in front, or somebody whom nobody knows: what he says counts for nothing.
        ("198.51.100.1", None, "198.51.100.1"),
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),
        ("192.0.2.8", "203.0.113.9", "192.0.2.8"),
        ("11.0.0.1", "203.0.113.9", "11.0.0.1"),
        # One trusted proxy.
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("192.0.2.7", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", " 203.0.113.9 ", "203.0.113.9"),
        ("10.0.0.1", "2001:db8::5", "2001:db8::5"),
        ("2001:db8:ffff::1", "2001:db8::5", "2001:db8::5"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        # A client that writes the header itself: the proxy appends whom it sees.
        ("10.0.0.1", "1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.2, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "127.0.0.1, 10.0.0.3, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "garbage, 203.0.113.9", "203.0.113.9"),
        # A chain of trusted proxies.
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "1.2.3.4, 203.0.113.9, 192.0.2.7, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # What no proxy writes ends the search where it is.
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", ",", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, , 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.9:4711", "10.0.0.1"),
        ("10.0.0.1", "[2001:db8::5]:4711", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.009", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9/32", "10.0.0.1"),
        ("10.0.0.1", "3405803785", "10.0.0.1"),
        ("10.0.0.1", "0xcb007109", "10.0.0.1"),
        ("10.0.0.1", "\u0661.2.3.4", "10.0.0.1"),
        # No address at all, as on a Unix socket or in a test client.
        (None, "203.0.113.9", None),
        ("testclient", "203.0.113.9", "testclient"),
    ],
)
def test_a_forwarded_address_is_believed_as_far_as_the_proxies_are_trusted(
    peer: str | None, forwarded: str | None, address: str | None
) -> None:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    assert Proxies(TRUSTED).client(peer, headers) == address
    assert Proxies(()).client(peer, headers) == peer


def test_ten_thousand_hops_are_read_no_further_than_needed() -> None:
    header = "1.2.3.4, " * 10_000 + "203.0.113.9"
    assert Proxies(TRUSTED).client("10.0.0.1", {"x-forwarded-for": header}) == "203.0.113.9"


@pytest.mark.parametrize(
    "wrong", [["localhost"], ["10.0.0.1/8"], ["10.0.0.0/33"], ["*"], [""], "10.0.0.0/8", ["::/129"]]
)
def test_trusted_proxies_are_networks(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'trusted_proxies is a list of networks, like \["10.0.0.0/8"\]'):
        Server(auth=None, trusted_proxies=wrong)


# Transports without a verdict, over a real server.

BARE: Kind = "hypercorn"
"""The server for what has to do with forwarded addresses: uvicorn believes a proxy on loopback by itself."""


async def answered(url: str, transport: str, **headers: str) -> tuple[int, Any, str | None]:
    """Ask for a new session; return the status, the body and how long to wait."""
    if transport == "websocket":
        response = await refused(url, WEBSOCKET, **headers)
        body = json.loads(response.body or b"null")
        return response.status_code, body, response.headers.get("retry-after")
    async with client(url) as http:
        answer = await http.get("/socket.io/", params=POLLING, headers=headers)
        return answer.status_code, answer.json(), answer.headers.get("retry-after")


def echoing(**settings: Any) -> Server:
    io = make_server(**settings)
    io.on("echo", lambda socket, text: socket.emit("echo", text))
    io.use(stuck)
    return io


async def stuck(socket: Socket) -> None:
    """Reach no verdict on clients with the subject `STUCK`."""
    if socket.authenticated and socket.claims.get("sub") == STUCK:
        await asyncio.Event().wait()


STUCK = "stuck"
"""The subject of tokens on which there is no verdict."""


@asynccontextmanager
async def waiting(url: str, number: int, **headers: str) -> AsyncIterator[list[ClientConnection]]:
    """Open some WebSockets that wait for a verdict."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(raw_websocket(url, WEBSOCKET, **headers)) for _ in range(number)]
        for one in opened:
            await one.send(connect(sub=STUCK))
        yield opened


async def test_when_too_many_wait_new_ones_are_told_to_come_later(transport: str) -> None:
    """429, with the object that every refusal has and a time to wait; whoever is in notices nothing."""
    io = echoing(limits=Limits(pending=3))
    async with serve(io) as url, session(url, transport) as ann:
        await enter(ann)
        async with waiting(url, 3):
            await until(lambda: len(io._core.gate.decision_timeout) == 3)
            for _ in range(3):
                assert await answered(url, transport) == (429, FULL, "5")
            await echoes(ann)
            await ann.send(authenticate())
            assert (await hear(ann))[0] == "authenticated"
        await until(lambda: len(io._core.sessions.pending) == 0)
        async with session(url, transport) as bob:
            await enter(bob, sub="bob")


async def test_who_is_in_or_gone_waits_no_more(transport: str) -> None:
    io = echoing(limits=Limits(pending=1))
    async with serve(io) as url:
        async with AsyncExitStack() as stack:
            for _ in range(5):
                await enter(await stack.enter_async_context(session(url, transport)))
                assert len(io._core.sessions.pending) == 0
        async with session(url, transport) as mallory:
            await mallory.send(connect(secret="x" * 40))
            await said(mallory)
        async with session(url, transport) as ann:
            await enter(ann)


async def test_who_waits_outside_to_authenticate_is_counted(transport: str) -> None:
    io = echoing(auth=make_auth(authenticate_within=5), limits=Limits(pending=1))
    async with serve(io) as url, session(url, transport) as ann:
        await ann.send("40")
        assert str(await within(ann.receive())).startswith("40{")
        assert (await answered(url, transport))[0] == 429
        await ann.send(authenticate())
        assert (await hear(ann))[0] == "authenticated"
        async with session(url, transport) as bob:
            await enter(bob)


async def test_guests_are_let_in_and_do_not_wait(transport: str) -> None:
    io = echoing(auth=make_auth(guests=True), limits=Limits(pending=1))
    async with serve(io) as url, AsyncExitStack() as stack:
        for _ in range(3):
            guest = await stack.enter_async_context(session(url, transport))
            await guest.send("40")
            assert str(await within(guest.receive())).startswith("40{")


@pytest.mark.usefixtures("ws")
async def test_a_session_that_there_is_may_go_on_when_all_is_full() -> None:
    """A session moves to WebSocket and polls although nobody new is let in."""
    io = echoing(limits=Limits(pending=1))
    async with serve(io) as url, polling(url) as ann, AsyncExitStack() as stack:
        await ann.send(connect())
        assert str(await within(ann.receive())).startswith("40{")
        await stack.enter_async_context(waiting(url, 1))
        await until(lambda: len(io._core.gate.decision_timeout) == 1)
        assert (await answered(url, "websocket"))[0] == 429
        async with raw_websocket(url, {**WEBSOCKET, "sid": ann.handshake["sid"]}) as moved:
            await probe(moved)
            await moved.send("5")
            await moved.send('42["echo","moved"]')
            assert await within(moved.recv()) == '42["echo","moved"]'


async def test_transports_that_have_not_asked_make_room(transport: str) -> None:
    """The oldest of them is ended for a new one: silence locks nobody out, and whoever has asked stays."""
    io = echoing(limits=Limits(pending_per_address=3))
    async with serve(io) as url, waiting(url, 1) as (asking,), AsyncExitStack() as stack:
        await until(lambda: len(io._core.gate.decision_timeout) == 1)
        quiet = [await stack.enter_async_context(session(url, transport)) for _ in range(2)]
        for _ in range(3):
            async with session(url, transport) as ann:
                await enter(ann)
                await echoes(ann)
                assert len(io._core.sessions.pending) == 2
                await ann.send("1")
            quiet.append(await stack.enter_async_context(session(url, transport)))
        await ends(quiet[0])
        assert asking.state is State.OPEN


async def test_one_address_does_not_take_the_room_of_all(transport: str) -> None:
    """Behind a trusted proxy each client has an address of its own, and a spoofed one helps nobody."""
    io = echoing(limits=Limits(pending_per_address=2), trusted_proxies=["127.0.0.1"])
    mallory = {"x-forwarded-for": "192.0.2.1, 203.0.113.9"}
    async with serve(io, BARE) as url, waiting(url, 2, **mallory):
        await until(lambda: len(io._core.gate.decision_timeout) == 2)
        assert await answered(url, transport, **mallory) == (429, FULL, "5")
        assert (await answered(url, transport, **{"x-forwarded-for": "192.0.2.99, 203.0.113.9"}))[0] == 429
        async with polling(url, **{"x-forwarded-for": "192.0.2.1"}) as ann:
            await enter(ann)
        async with websocket(url, **{"x-forwarded-for": "192.0.2.1"}) as ann:
            await enter(ann)


async def test_without_trusted_proxies_a_header_changes_no_address(transport: str) -> None:
    io = echoing(limits=Limits(pending_per_address=1))
    async with serve(io, BARE) as url, waiting(url, 1, **{"x-forwarded-for": "192.0.2.1"}):
        await until(lambda: len(io._core.gate.decision_timeout) == 1)
        assert (await answered(url, transport, **{"x-forwarded-for": "192.0.2.2"}))[0] == 429


async def test_the_answer_can_be_read_by_a_page_of_an_allowed_origin() -> None:
    io = echoing(limits=Limits(pending=1), cors_allowed_origins=["https://app.example"])
    async with serve(io) as url, waiting(url, 1), client(url) as http:
        await until(lambda: len(io._core.gate.decision_timeout) == 1)
        answer = await http.get("/socket.io/", params=POLLING, headers={"origin": "https://app.example"})
        assert answer.status_code == 429
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        foreign = await http.get("/socket.io/", params=POLLING, headers={"origin": "https://evil.example"})
        assert foreign.status_code == 403


async def test_the_handshake_has_the_address_of_the_client() -> None:
    """What handlers read is what the limits go by."""
    io = echoing(trusted_proxies=["127.0.0.0/8"])
    io.on("address", lambda socket: socket.handshake.address)
    async with serve(io, BARE) as url, polling(url, **{"x-forwarded-for": "6.6.6.6, 203.0.113.9"}) as ann:
        await enter(ann)
        await ann.send('421["address"]')
        assert await within(ann.receive()) == '431["203.0.113.9"]'


# Bad credentials, over a real server.


async def refusal(url: str, transport: str, token: str, **headers: str) -> Any:
    """Show a token on a connection of its own; return the refusal, or None if there is none."""
    opened = polling(url, **headers) if transport == "polling" else websocket(url, **headers)
    async with opened as shown:
        await shown.send(connect(token))
        packet = str(await within(shown.receive()))
        return None if packet.startswith("40") else json.loads(packet.removeprefix("44"))


BAD = make_token(secret="x" * 40)


async def test_bad_tokens_of_an_address_with_too_many_are_answered_so_for_a_time(transport: str) -> None:
    """A good one from the same address gets in all the while; who is in stays in, and may refresh."""
    clock = Ahead()
    io = echoing(limits=Limits(failures_per_address=3), clock=clock)
    async with serve(io) as url, session(url, transport) as ann:
        await enter(ann)
        for _ in range(4):
            assert await refusal(url, transport, BAD) == refusals.INVALID
        assert await refusal(url, transport, BAD) == refusals.ATTEMPTS
        assert await refusal(url, transport, make_token()) is None
        await echoes(ann)
        await ann.send(authenticate(jti="new"))
        assert (await hear(ann))[0] == "authenticated"
        clock.seconds += 4.5
        assert await refusal(url, transport, make_token()) is None
        assert await refusal(url, transport, BAD) == refusals.INVALID
        assert await refusal(url, transport, BAD) == refusals.ATTEMPTS


async def test_another_address_may_go_on(transport: str) -> None:
    io = echoing(limits=Limits(failures_per_address=1), trusted_proxies=["127.0.0.1"])
    mallory, ann = {"x-forwarded-for": "203.0.113.9"}, {"x-forwarded-for": "192.0.2.1"}
    async with serve(io, BARE) as url:
        for _ in range(2):
            assert await refusal(url, transport, BAD, **mallory) == refusals.INVALID
        assert await refusal(url, transport, BAD, **mallory) == refusals.ATTEMPTS
        assert await refusal(url, transport, BAD, **ann) == refusals.INVALID
        spoofed = {"x-forwarded-for": "192.0.2.1, 203.0.113.9"}
        assert await refusal(url, transport, BAD, **spoofed) == refusals.ATTEMPTS


async def test_tokens_that_have_merely_expired_do_not_count(transport: str) -> None:
    """An office full of laptops that wake up is no attack."""
    io = echoing(limits=Limits(failures_per_address=1))
    async with serve(io) as url:
        for _ in range(5):
            assert await refusal(url, transport, make_token(exp=1_000_000_000)) == refusals.EXPIRED
        assert await refusal(url, transport, make_token()) is None


async def test_no_token_does_not_count_as_a_bad_one(transport: str) -> None:
    io = echoing(limits=Limits(failures_per_address=1))
    async with serve(io) as url:
        for _ in range(5):
            async with session(url, transport) as nobody:
                await nobody.send("40")
                assert json.loads(str(await within(nobody.receive()))[2:]) == refusals.REQUIRED
        assert await refusal(url, transport, make_token()) is None


async def test_no_token_has_a_limit_of_its_own(transport: str) -> None:
    """It changes nothing for a client with a token, be it good or bad."""
    io = echoing(limits=Limits(missing_per_address=1))
    async with serve(io) as url:
        for expected in (refusals.REQUIRED, refusals.REQUIRED, refusals.ATTEMPTS):
            async with session(url, transport) as nobody:
                await nobody.send("40")
                assert json.loads(str(await within(nobody.receive()))[2:]) == expected
        assert await refusal(url, transport, BAD) == refusals.INVALID
        assert await refusal(url, transport, make_token()) is None


@pytest.mark.parametrize("token", ["Basic abc", "Bearer a b", 5, "x" * 9000, "a.b.c"])
async def test_whatever_is_no_token_counts(transport: str, token: Any) -> None:
    io = echoing(limits=Limits(failures_per_address=1))
    async with serve(io) as url:
        for _ in range(2):
            async with session(url, transport) as shown:
                await shown.send("40" + json.dumps({"token": token}))
                assert str(await within(shown.receive())).startswith("44")
        assert await refusal(url, transport, BAD) == refusals.ATTEMPTS


async def test_in_band_it_is_the_same(transport: str) -> None:
    io = echoing(auth=make_auth(authenticate_within=5), limits=Limits(failures_per_address=1))
    async with serve(io) as url:
        answers = []
        for token in (BAD, BAD, BAD, make_token()):
            async with session(url, transport) as shown:
                await shown.send("40")
                await within(shown.receive())
                await shown.send(authenticate(token))
                packet = str(await within(shown.receive()))
                answers.append(json.loads(packet[packet.index("[") :])[1].get("message", "let in"))
        assert answers == ["invalid token", "invalid token", "Too many attempts", "let in"]


# The connections of one subject.


async def test_a_subject_with_as_many_connections_as_it_may_have_gets_no_other(transport: str) -> None:
    """Those it has are left alone; when one goes there is room again; others have room of their own."""
    io = echoing(limits=Limits(connections_per_subject=2))
    async with serve(io) as url, AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(session(url, transport)) for _ in range(4)]
        first, second, third, other = sessions
        await enter(first)
        await enter(second)
        await third.send(connect())
        assert await said(third) == ["44" + compact({"message": "Too many connections", "data": FULL})]
        await enter(other, sub="bob")
        for there in (first, second, other):
            await echoes(there)
        await second.send("1")
        await until(lambda: len(io._core.sessions.table) == 2)
        async with session(url, transport) as fourth:
            await enter(fourth)


async def test_or_its_oldest_connection_is_ended_for_the_new_one(transport: str) -> None:
    """The oldest is told why, and its handlers too."""
    io = echoing(limits=Limits(connections_per_subject=2, when_full="end_oldest"))
    reasons: list[str] = []
    io.on("disconnect", lambda socket, reason: reasons.append(reason))
    async with serve(io) as url, AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(session(url, transport)) for _ in range(4)]
        first, second, third, other = sessions
        await enter(other, sub="bob")
        for there in (first, second, third):
            await enter(there)
        told = unauthorized({"message": "Too many connections", "data": FULL})
        assert await said(first) == ["42" + compact(["unauthorized", told]), "41"]
        assert reasons == ["too many connections"]
        for there in (second, third, other):
            await echoes(there)


async def test_a_connection_counts_once_for_all_its_namespaces_and_tokens(transport: str) -> None:
    """A refresh and a second namespace need no room."""
    io = echoing(limits=Limits(connections_per_subject=1))
    io.of("/other")
    async with serve(io) as url, session(url, transport) as ann:
        await enter(ann)
        await enter(ann, "/other", jti="other")
        await ann.send(authenticate(jti="new"))
        assert (await hear(ann))[0] == "authenticated"
        await ann.send("41/other,")
        await echoes(ann)
        async with session(url, transport) as again:
            await again.send(connect())
            assert str(await within(again.receive())).startswith("44")


async def test_the_same_subject_of_two_issuers_is_two(transport: str) -> None:
    io = echoing(limits=Limits(connections_per_subject=1))
    async with serve(io) as url, session(url, transport) as one, session(url, transport) as two:
        await enter(one, iss="https://a.example")
        await enter(two, iss="https://b.example")


async def test_tokens_without_a_subject_are_nobodys(transport: str) -> None:
    """They are not taken for one person's."""
    io = echoing(auth=make_auth(require=["exp"]), limits=Limits(connections_per_subject=1))
    async with serve(io) as url, session(url, transport) as one, session(url, transport) as two:
        await enter(one, sub=None)
        await enter(two, sub=None)
        await echoes(one)
        assert len(io._core.gate.subjects) == 0


async def test_a_guest_that_authenticates_needs_room(transport: str) -> None:
    """It is refused, and stays the guest that it was."""
    io = echoing(auth=make_auth(guests=True), limits=Limits(connections_per_subject=1))
    async with serve(io) as url, session(url, transport) as ann, session(url, transport) as guest:
        await enter(ann)
        await guest.send("40")
        await within(guest.receive())
        await guest.send(authenticate())
        name, told = await hear(guest)
        assert (name, told["data"]) == ("unauthorized", FULL)
        await echoes(guest)
        (socket,) = [socket for socket in await io.fetch_sockets() if not socket.authenticated]
        assert socket.rooms == {socket.id}


async def test_nothing_is_counted_when_everybody_has_gone(transport: str) -> None:
    io = echoing(limits=Limits(connections_per_subject=3))
    async with serve(io) as url:
        async with AsyncExitStack() as stack:
            opened: list[Session] = []
            for _ in range(3):
                opened.append(await stack.enter_async_context(session(url, transport)))
                await enter(opened[-1])
            assert len(io._core.gate.subjects) == 1
            for there in opened:
                await there.send("1")
                await ends(there)
        assert len(io._core.gate.subjects) == len(io._core.sessions.pending) == 0
