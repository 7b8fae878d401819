"""The gate in front of every server: G1 to G9 and the rows of the contract, on iogate's own and on those of others."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from iogate import AuthPayload, BearerHeader, JWTAuth, Principal, Query
from tests import refusals
from tests.conformance.wire import ends, enter, polling, said, session, websocket, within
from tests.gate.houses import CLOSED, HOUSES, House
from tests.gate.support import (
    CountingAuth,
    SteppedClock,
    StoppedWallClock,
    authenticate,
    compact,
    connect,
    farewell,
    hear,
    make_auth,
    unauthorized,
)
from tests.server.left import until
from tests.servers import SECRET, make_token

Build = Callable[..., House]
PLACES = [
    pytest.param((name, transport), id=f"{name}-{transport}")
    for name in HOUSES
    for transport in ("polling", "websocket")
    if (name, transport) != ("iogate, picows", "polling")
]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    chosen: tuple[str, str] = request.param
    return chosen


@pytest.fixture
def transport(place: tuple[str, str]) -> str:
    return place[1]


@pytest.fixture
def build(place: tuple[str, str]) -> Build:
    return HOUSES[place[0]]


async def left_nothing(house: House) -> None:
    """Wait until nobody is anywhere any more."""
    await until(lambda: not house.io._core.sessions.table and not house.members() and not house.members("/other"))


# G1: before the verdict nothing of the application crosses, in or out.


async def test_g1_nothing_is_sent_to_somebody_whose_verdict_is_pending(build: Build, transport: str) -> None:
    house = build()
    house.shut = True
    async with house.serve() as url, session(url, transport) as client:
        await client.send(connect())
        await within(house.reached.wait())
        for number in range(20):
            await house.emit("early", number)
            await house.emit("early", number, room="user:ann")
        house.open_the_door()
        assert str(await within(client.receive())).startswith('40{"sid":')


async def test_g1_nothing_is_sent_to_somebody_who_is_being_refused(build: Build, transport: str) -> None:
    house = build()
    house.shut = True
    house.decide = _turned_away(house)
    async with house.serve() as url, session(url, transport) as client:
        await client.send(connect())
        await within(house.reached.wait())
        await house.emit("early")
        house.open_the_door()
        assert await said(client) == ["44" + compact(CLOSED)]
        await left_nothing(house)


async def test_g1_an_early_event_is_handled_by_nobody_and_ends_the_connection(build: Build, transport: str) -> None:
    house = build()
    house.shut = True
    async with house.serve() as url, session(url, transport) as client:
        await client.send(connect())
        await within(house.reached.wait())
        await client.send('42["echo","early"]')
        await ends(client)
        house.open_the_door()
        await left_nothing(house)
    assert ("echo", "early") not in house.ran


async def test_g1_who_never_asked_hears_nothing(build: Build, transport: str) -> None:
    house = build(connect_timeout=0.5)
    async with house.serve() as url, session(url, transport) as client, session(url, transport) as other:
        await enter(other)
        await house.emit("news")
        assert await said(client) == []
        assert await within(other.receive()) == '42["news"]'


async def test_g1_no_handler_runs_for_a_token_that_is_refused(build: Build, transport: str) -> None:
    house = build()
    async with house.serve() as url, session(url, transport) as client:
        await client.send(connect(make_token(secret="x" * 40)))
        await ends(client)
        await left_nothing(house)
    assert house.ran == []


# G2: one absolute deadline.


async def test_g2_who_never_asks_is_gone_at_the_deadline_whatever_it_sends(build: Build, transport: str) -> None:
    house = build(connect_timeout=0.5)
    async with house.serve() as url, session(url, transport) as client:
        await client.send("3")
        await ends(client)
        await left_nothing(house)


async def test_g2_a_verdict_that_does_not_come_is_a_refusal(build: Build, transport: str) -> None:
    house = build(connect_timeout=0.4)
    house.shut = True
    async with house.serve() as url, session(url, transport) as client:
        await client.send(connect())
        assert await said(client) == ["44" + compact(refusals.UNAVAILABLE)]
        house.open_the_door()
        await left_nothing(house)
    assert house.members() == []  # Also not when the handler has come to its end, for which a shutdown waits.


# G3: a refused transport is closed; three attempts.


async def test_g3_a_transport_has_three_attempts(build: Build, transport: str) -> None:
    house = build()
    bad = json.dumps({"token": "no.token.atall"})
    async with house.serve() as url, session(url, transport) as client:
        await enter(client)
        for _ in range(2):
            await client.send(f"40/other,{bad}")
            assert await within(client.receive()) == "44/other," + compact(refusals.INVALID)
        await client.send(f"40/other,{bad}")
        assert await said(client) == ["44/other," + compact(refusals.INVALID)]
        await left_nothing(house)


async def test_g3_no_more_tokens_are_verified_than_there_are_attempts(build: Build, transport: str) -> None:
    auth = CountingAuth(secret=SECRET, algorithms=["HS256"])
    house = build(auth)
    async with house.serve() as url, session(url, transport) as client:
        await client.send(*(f'40/other,{{"token":"bad{number}"}}' for number in range(10)))
        await ends(client)
    assert auth.verified <= 3


# G4: at the end of the token the socket stops.


async def test_g4_an_idle_socket_ends_with_its_token(build: Build, transport: str) -> None:
    clock = StoppedWallClock()
    house = build(make_auth(refresh_before=0, clock=clock))
    async with house.serve() as url, session(url, transport) as client:
        before = time.monotonic()
        await enter(client, exp=clock.now + 1)
        entered = time.monotonic()
        assert await said(client) == farewell(refusals.EXPIRED)
        assert before + 1 <= time.monotonic() < entered + 2.5
        await left_nothing(house)
    assert ("disconnect",) in house.ran


async def test_g4_the_client_is_called_to_refresh_and_lives_on(build: Build, transport: str) -> None:
    clock = StoppedWallClock()
    house = build(make_auth(refresh_before=60, clock=clock))
    async with house.serve() as url, session(url, transport) as client:
        await enter(client, exp=clock.now + 3, iat=clock.now - 10)
        name, notice = await hear(client)
        assert name == "token_expiring"
        assert notice["refresh_by"] == notice["expires_at"]
        await client.send(authenticate(iat=clock.now))
        assert (await hear(client))[0] == "authenticated"
        await client.send('42["echo","still here"]')
        assert await hear(client) == ("echo", "still here")


# G5: when `revoke()` has returned, not one more byte.


async def test_g5_a_revoked_socket_is_told_so_and_hears_nothing_more(build: Build, transport: str) -> None:
    house = build()
    async with house.serve() as url, session(url, transport) as client, session(url, transport) as other:
        await enter(client, jti="1")
        await enter(other, sub="bob")
        for number in range(50):
            await house.emit("news", number)
        await house.revoke(token_id="1")
        await house.emit("late")
        packets = await said(client)
        assert packets[-2:] == farewell(refusals.REVOKED)
        assert '42["late"]' not in packets
        assert [await hear(other) for _ in range(51)] == [*(("news", number) for number in range(50)), ("late", None)]
        await client_is_refused(url, transport, connect(jti="1"), refusals.REVOKED)
    assert house.ran.count(("disconnect",)) >= 1


async def test_g5_what_was_queued_for_a_revoked_socket_is_dropped(build: Build) -> None:
    house = build()
    async with house.serve() as url, polling(url) as client:
        await enter(client, jti="1")
        for number in range(50):
            await house.emit("news", number)
        await house.revoke(token_id="1")
        assert await said(client) == farewell(refusals.REVOKED)


# G6: a refresh keeps the person.


@pytest.mark.parametrize("claims", [{"sub": "bob"}, {"sub": "ann", "iss": "https://elsewhere.example"}])
async def test_g6_a_refresh_as_somebody_else_is_refused(build: Build, transport: str, claims: dict[str, Any]) -> None:
    house = build()
    async with house.serve() as url, session(url, transport) as client:
        await enter(client)
        await client.send(authenticate(**claims))
        assert await hear(client) == ("unauthorized", unauthorized(refusals.INVALID))
        await client.send('42["echo",1]')
        assert await hear(client) == ("echo", 1)


async def test_g6_an_older_token_does_not_replace_a_newer_one(build: Build, transport: str) -> None:
    house = build()
    now = int(time.time())
    async with house.serve() as url, session(url, transport) as client:
        await enter(client, iat=now)
        await client.send(authenticate(iat=now - 100))
        assert await hear(client) == ("unauthorized", unauthorized(refusals.INVALID))


async def test_g6_a_namespace_that_the_new_token_does_not_give_is_left(build: Build, transport: str) -> None:
    house = build()
    async with house.serve() as url, session(url, transport) as client:
        await enter(client, scope="staff")
        await client.send("40/staff,")
        assert str(await within(client.receive())).startswith("40/staff,")
        assert len(house.members("/staff")) == 1
        await client.send(authenticate())
        assert await within(client.receive()) == "41/staff,"
        assert (await hear(client))[0] == "authenticated"
        await until(lambda: not house.members("/staff"))
        assert len(house.members()) == 1


# G7: a revocation between verification and registration holds.


async def test_g7_a_revocation_while_the_application_decides_holds(build: Build, transport: str) -> None:
    house = build()
    house.shut = True
    async with house.serve() as url, session(url, transport) as client:
        await client.send(connect(jti="1"))
        await within(house.reached.wait())
        await house.revoke(token_id="1")
        house.open_the_door()
        assert await said(client) == ["44" + compact(refusals.REVOKED)]
        await left_nothing(house)


# G8: anything unexpected is a refusal.


def _turned_away(house: House) -> Callable[[], object]:
    def decide() -> object:
        raise house.closed("closed", {"code": "closed"})

    return decide


def _raiser(error: BaseException) -> Callable[[], object]:
    def decide() -> object:
        raise error

    return decide


@pytest.mark.parametrize(
    "error", [ValueError("the inside"), KeyError("the inside"), asyncio.CancelledError()], ids=repr
)
async def test_g8_an_application_that_fails_lets_nobody_in(
    build: Build,
    transport: str,
    error: BaseException,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    if build is HOUSES["AsyncServer"] and isinstance(error, asyncio.CancelledError):
        reason = "python-socketio takes a handler that is cancelled for one that has returned None"
        request.applymarker(pytest.mark.xfail(reason=reason, raises=AssertionError))
    house = build()
    house.decide = _raiser(error)
    async with house.serve() as url:
        await client_is_refused(url, transport, connect(), refusals.UNAVAILABLE)
        await left_nothing(house)
    if not isinstance(error, asyncio.CancelledError):
        assert "the inside" in caplog.text


async def test_g8_an_application_may_turn_away(build: Build, transport: str) -> None:
    house = build()
    house.decide = _turned_away(house)
    async with house.serve() as url:
        await client_is_refused(url, transport, connect(), CLOSED)
        await left_nothing(house)


async def test_g8_a_verifier_that_fails_lets_nobody_in(build: Build, transport: str) -> None:
    class Broken(JWTAuth):
        async def verify_async(self, token: str) -> Principal:
            raise RuntimeError("the inside")

    house = build(Broken(secret=SECRET, algorithms=["HS256"]))
    async with house.serve() as url:
        await client_is_refused(url, transport, connect(), refusals.UNAVAILABLE)
    assert house.ran == []


async def test_g8_no_user_lets_nobody_in(build: Build, transport: str) -> None:
    auth = make_auth()
    auth.load_user(lambda claims: None)
    house = build(auth)
    async with house.serve() as url:
        await client_is_refused(url, transport, connect(), refusals.INVALID)
    assert house.ran == []


async def test_g8_a_token_that_expires_while_the_application_decides_is_refused(build: Build, transport: str) -> None:
    now = SteppedClock()
    house = build(make_auth(clock=now))
    house.shut = True
    async with house.serve() as url, session(url, transport) as client:
        await client.send(connect())
        await within(house.reached.wait())
        now.step = 3601.0
        house.open_the_door()
        assert await said(client) == ["44" + compact(refusals.EXPIRED)]
        await left_nothing(house)


async def test_g8_a_client_that_leaves_before_the_verdict_leaves_nothing_behind(build: Build, transport: str) -> None:
    house = build()
    house.shut = True
    async with house.serve() as url, session(url, transport) as client:
        await client.send(connect())
        await within(house.reached.wait())
        await client.send("1")
        await until(lambda: not house.io._core.sessions.table)
        house.open_the_door()
        await left_nothing(house)


async def test_g8_another_persons_token_does_not_open_another_namespace(build: Build, transport: str) -> None:
    house = build()
    async with house.serve() as url, session(url, transport) as client:
        await enter(client)
        await client.send("40/other," + connect(sub="bob")[2:])
        assert await within(client.receive()) == "44/other," + compact(refusals.INVALID)


# G9: no token in what is written.


async def test_g9_no_token_is_in_a_log_line(build: Build, transport: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="iogate")
    house = build(make_auth(sources=(AuthPayload(), BearerHeader(), Query("token"))))
    tokens = [make_token(), make_token(secret="y" * 40), make_token(exp=1)]
    async with house.serve() as url:
        for token in tokens:
            async with session(url, transport) as client:
                await client.send(connect(token))
                await within(client.receive())
    for record in caplog.records:
        if record.name == "iogate":
            for token in tokens:
                assert token.split(".")[-1] not in record.getMessage()


# The rows of the contract.

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "no token": ("40", refusals.REQUIRED),
    "another field": ('40{"jwt":"x"}', refusals.REQUIRED),
    "a scheme": ('40{"token":"Basic x"}', refusals.BAD_SCHEME),
    "a number": ('40{"token":1}', refusals.BAD_FORMAT),
    "expired": (connect(make_token(exp=1)), refusals.EXPIRED),
    "another secret": (connect(make_token(secret="z" * 40)), refusals.INVALID),
    "an unknown namespace": ("40/nowhere," + connect()[2:], {"message": "Invalid namespace"}),
    "a scope": ("40/staff," + connect()[2:], refusals.SCOPE),
}


@pytest.mark.parametrize("row", ROWS)
async def test_a_row_of_the_contract(build: Build, transport: str, row: str) -> None:
    packet, refusal = ROWS[row]
    house = build()
    async with house.serve() as url:
        await client_is_refused(url, transport, packet, refusal)
        await left_nothing(house)
    assert house.ran == []


async def test_two_tokens_are_refused(build: Build, transport: str) -> None:
    house = build()
    opened = polling if transport == "polling" else websocket
    async with house.serve() as url, opened(url, Authorization=f"Bearer {make_token()}") as client:
        await client.send(connect())
        assert await said(client) == ["44" + compact(refusals.BAD_FORMAT)]


async def test_a_token_in_a_header_is_taken(build: Build, transport: str) -> None:
    house = build()
    opened = polling if transport == "polling" else websocket
    async with house.serve() as url, opened(url, Authorization=f"Bearer {make_token()}") as client:
        await client.send("40")
        assert str(await within(client.receive())).startswith('40{"sid":')


async def test_in_band_authentication(build: Build, transport: str) -> None:
    house = build(make_auth(authenticate_within=5))
    exp = int(time.time()) + 3600
    async with house.serve() as url, session(url, transport) as client:
        await client.send("40")
        assert str(await within(client.receive())).startswith('40{"sid":')
        await house.emit("early")
        assert house.members() == []
        await client.send(authenticate(ack=7, exp=exp))
        assert await hear(client) == ("authenticated", {"sub": "ann", "exp": exp})
        assert await within(client.receive()) == "437" + json.dumps([{"sub": "ann", "exp": exp}], separators=(",", ":"))
        await client.send('42["echo",1]')
        assert await hear(client) == ("echo", 1)


async def test_g1_in_band_an_event_that_comes_before_the_verdict_is_handled_by_nobody(
    build: Build, transport: str
) -> None:
    house = build(make_auth(authenticate_within=5))
    house.shut = True
    async with house.serve() as url, session(url, transport) as client:
        await client.send("40")
        await within(client.receive())
        await client.send('42["echo","before"]')
        await client.send(authenticate())
        await within(house.reached.wait())
        await client.send('42["echo","meanwhile"]')
        await client.send("40/nowhere," + connect()[2:])  # By its answer it is known that the other has been read.
        assert str(await within(client.receive())).startswith("44/nowhere,")
        house.open_the_door()
        assert (await hear(client))[0] == "authenticated"
        await client.send('42["echo","after"]')
        assert await hear(client) == ("echo", "after")
    assert [args for name, *args in house.ran if name == "echo"] == [["after"]]


async def test_in_band_a_bad_token_is_told_and_ends_it(build: Build, transport: str) -> None:
    house = build(make_auth(authenticate_within=5))
    async with house.serve() as url, session(url, transport) as client:
        await client.send("40")
        await within(client.receive())
        await client.send(authenticate("no.token.atall"))
        packets = [str(packet) for packet in await said(client)]
        assert packets[0].endswith('["unauthorized",' + compact(unauthorized(refusals.INVALID)) + "]")
        await left_nothing(house)
    assert house.ran == []


async def test_an_event_that_the_token_does_not_allow_is_forbidden(build: Build, transport: str) -> None:
    house = build()
    notice = {"event": "secret", "code": "insufficient_scope", "required": ["admin"]}
    async with house.serve() as url, session(url, transport) as client:
        await enter(client)
        await client.send('427["secret"]')
        answers = {str(await within(client.receive())) for _ in range(2)}
        assert answers == {'42["forbidden",' + compact(notice) + "]", '437[{"error":' + compact(notice) + "}]"}
        await client.send(authenticate(scope="admin", iat=int(time.time())))
        assert (await hear(client))[0] == "authenticated"
        await client.send('428["secret"]')
        assert await within(client.receive()) == "438[]"
    assert house.ran.count(("secret",)) == 1


async def test_everybody_is_in_the_room_of_his_subject(build: Build, transport: str) -> None:
    house = build()
    async with house.serve() as url, session(url, transport) as ann, session(url, transport) as bob:
        await enter(ann)
        await enter(bob, sub="bob")
        await house.emit("for bob", room="user:bob")
        await house.emit("for all")
        assert await hear(bob) == ("for bob", None)
        assert await hear(ann) == ("for all", None)


async def test_binary_data_goes_both_ways(build: Build) -> None:
    house = build()
    async with house.serve() as url, websocket(url) as client:
        await enter(client)
        await client.send('451-["echo",{"_placeholder":true,"num":0}]', b"\x00\xff")
        assert await within(client.receive()) == '451-["echo",{"_placeholder":true,"num":0}]'
        assert await within(client.receive()) == b"\x00\xff"


async def client_is_refused(url: str, transport: str, packet: str, refusal: dict[str, Any]) -> None:
    """Ask, and be told no, and nothing else."""
    namespace = f"{packet[2 : packet.index(',') + 1]}" if packet.startswith("40/") else ""
    async with session(url, transport) as client:
        await client.send(packet)
        assert await within(client.receive()) == f"44{namespace}" + compact(refusal)
        assert await said(client) == []
