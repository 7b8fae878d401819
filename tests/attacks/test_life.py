"""Rows 30 to 33: the identity while the socket lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from iogate import InsufficientScope
from iogate.testing import advance
from tests import refusals
from tests.attacks.places import HELD, HOUR, Deaf, Place, answer, asks, enters, in_band, news, scene
from tests.conformance.wire import Session, echoes, said, within
from tests.gate.support import authenticate, compact, connect, farewell, hear, unauthorized
from tests.server.left import until

LONG = 30 * 365 * 24 * HOUR
INVALID = ("unauthorized", unauthorized(refusals.INVALID))
REVOKED = ("unauthorized", unauthorized(refusals.REVOKED))


# Row 30: the end of a token.


async def is_idle(place: Place, mallory: Session, token: str) -> None:
    """Do nothing."""


async def shows_its_token_again(place: Place, mallory: Session, token: str) -> None:
    """Refresh with the token that the connection has, and enter another namespace with it."""
    await mallory.send(authenticate(token))
    assert (await hear(mallory))[0] == "authenticated"
    await enters(mallory, token, "/other")
    await mallory.send("41/other,")


async def shows_another(place: Place, mallory: Session, token: str) -> None:
    """Show somebody else's, which lives longer."""
    await mallory.send(authenticate(sub="alice", exp=place.ago(-HOUR)))
    assert await hear(mallory) == INVALID


@pytest.mark.parametrize("back", [0.0, HOUR, LONG], ids=["in step", "an hour back", "thirty years back"])
@pytest.mark.parametrize("trick", [is_idle, shows_its_token_again, shows_another], ids=lambda trick: trick.__name__)
async def test_an_idle_socket_whose_token_ends(
    transport: str, back: float, trick: Callable[[Place, Session, str], Awaitable[None]]
) -> None:
    """Row 30: it ends on time, and a clock that is set back gives it no longer."""
    place = Place()
    async with scene(place, transport) as (mallory, _):
        token = place.token(exp=place.ago(-60))
        await enters(mallory, token)
        place.clock.set_wall(place.clock.wall() - back)
        await trick(place, mallory, token)
        await advance(place.io, 59.875)
        assert len(place.io._core.sessions.table) == 2
        await advance(place.io, 0.125)
        assert len(place.io._core.sessions.table) == 1
        place.io.to("user:mallory").emit("too late")
        assert await said(mallory) == farewell(refusals.EXPIRED)


async def test_a_token_that_ends_while_its_client_does_not_read(transport: str) -> None:
    """Row 30: what waits for it is not sent any more."""
    place = Place()
    async with scene(place, transport) as (mallory, _):
        await enters(mallory, place.token(exp=place.ago(-60)))
        deaf = Deaf(mallory, await place.socket())
        waiting = await deaf.is_sent("user:mallory")
        await advance(place.io, 60.0)
        assert len(place.io._core.sessions.table) == 1
        deaf.reads()
        assert not waiting & news(*await said(mallory))


# Row 31: a refresh.

OTHERS: dict[str, dict[str, Any]] = {
    "the victim": {"sub": "alice", "iss": None},
    "the victim's name at one's own issuer": {"sub": "alice"},
    "another subject": {"sub": "mallory2"},
    "another case": {"sub": "Mallory"},
    "another issuer": {"iss": "https://evil.test"},
    "no issuer": {"iss": None},
    "a longer issuer": {"iss": "https://id.example/"},
    "issuer and subject swapped": {"sub": "https://id.example", "iss": "mallory"},
}


@pytest.mark.parametrize("way", ["authenticate", "CONNECT"])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
async def test_a_refresh_as_somebody_else(transport: str, way: str, other: dict[str, Any]) -> None:
    """Row 31: it is refused, also in the CONNECT to another namespace; the session is what it was, up to its end."""
    place = Place()
    async with scene(place, transport) as (mallory, alice):
        await enters(mallory, place.token(iss="https://id.example", exp=place.ago(-60)))
        socket = await place.socket()
        principal, rooms = socket.principal, socket.rooms
        more = {"iss": "https://id.example", "iat": place.ago(5), "exp": place.ago(-HOUR), "scope": "admin"}
        token = place.token(**{**more, **other})
        if way == "authenticate":
            await mallory.send(authenticate(token))
            assert await hear(mallory) == INVALID
        else:
            await mallory.send(connect(token, "/admin"))
            assert await within(mallory.receive()) == "44/admin," + compact(refusals.INVALID)
        place.io.to("user:alice").emit("for alice")
        assert await hear(alice) == ("for alice", None)
        await echoes(mallory)
        assert socket.principal is principal
        assert socket.rooms == rooms
        assert place.refreshed == []
        await advance(place.io, 60.0)
        assert len(place.io._core.sessions.table) == 1
        assert await said(mallory) == farewell(refusals.EXPIRED)


async def test_an_older_token_after_a_newer_one(transport: str) -> None:
    """Row 31: what was taken away with the newer one does not come back, not even with the very first."""
    place = Place()
    async with scene(place, transport) as (mallory, _):
        first = place.token(scope="write", iat=place.ago(30))
        await enters(mallory, first)
        await mallory.send(authenticate(place.token(iat=place.ago(10), exp=place.ago(-60))))
        assert (await hear(mallory))[0] == "authenticated"
        for token in (first, place.token(scope="write admin", iat=place.ago(11)), place.token(iat=place.ago(LONG))):
            await mallory.send(authenticate(token))
            assert await hear(mallory) == INVALID
        assert not (await place.socket()).scopes
        assert place.refreshed == ["mallory"]
        await advance(place.io, 60.0)
        assert await said(mallory) == farewell(refusals.EXPIRED)


@pytest.mark.parametrize("stage", ["verify", "load_user"])
async def test_an_older_token_whose_verdict_comes_after_that_on_a_newer_one(transport: str, stage: str) -> None:
    """Row 31: it counts when they were issued, and not who is judged last."""
    place = Place()
    async with scene(place, transport) as (mallory, _):
        await enters(mallory, place.token(scope="write", iat=place.ago(30)))
        await enters(mallory, place.token(scope="write", iat=place.ago(30)), "/other")
        door = place.hold(stage)
        await mallory.send(authenticate(place.token(jti=HELD, scope="write", iat=place.ago(20))))
        await within(door.reached.wait())
        newer = authenticate(place.token(iat=place.ago(10)))
        await mallory.send(newer.replace("42", "42/other,", 1))
        assert str(await within(mallory.receive())).startswith('42/other,["authenticated"')
        door.opened.set()
        assert await hear(mallory) == INVALID
        assert not (await place.socket()).scopes


@pytest.mark.parametrize("stage", ["verify", "load_user"])
@pytest.mark.parametrize("criteria", [{"token_id": "first"}, {"subject": "mallory"}, {"session_id": "s1"}], ids=str)
async def test_a_refresh_that_races_a_revocation(transport: str, stage: str, criteria: dict[str, Any]) -> None:
    """Row 31: whoever is revoked while his new token is judged is out, whatever the verdict will be."""
    place = Place()
    async with scene(place, transport) as (mallory, _):
        await enters(mallory, place.token(jti="first", sid="s1"))
        door = place.hold(stage)
        await mallory.send(authenticate(place.token(jti=HELD, sid="s2", iat=place.ago(5))))
        await within(door.reached.wait())
        await place.io.revoke(**criteria)
        assert len(place.io._core.sessions.table) == 1
        door.opened.set()
        assert await said(mallory) == farewell(refusals.REVOKED)
        assert place.refreshed == []


@pytest.mark.parametrize("stage", ["verify", "load_user"])
async def test_a_refresh_with_a_token_that_is_revoked_meanwhile(transport: str, stage: str) -> None:
    """Row 31: the new token is refused; the one there was is as good as before."""
    place = Place()
    async with scene(place, transport) as (mallory, _):
        await enters(mallory, place.token(jti="first"))
        door = place.hold(stage)
        await mallory.send(authenticate(place.token(jti=HELD, iat=place.ago(5))))
        await within(door.reached.wait())
        await place.io.revoke(token_id=HELD)
        door.opened.set()
        assert await hear(mallory) == REVOKED
        assert (await place.socket()).principal.token_id == "first"
        await place.io.revoke(token_id="first")
        assert await said(mallory) == farewell(refusals.REVOKED)


# Row 32: fewer rights.

LESS: dict[str, dict[str, Any]] = {
    "none": {},
    "an empty text": {"scope": ""},
    "no text": {"scope": 7},
    "in another case": {"scope": "MODERATE Admin WRITE"},
    "in one word": {"scope": "moderate,admin,write"},
    "nearly the same": {"scope": "moderates admi write:all"},
}


@pytest.mark.parametrize("less", LESS.values(), ids=LESS)
async def test_a_refresh_that_narrows_scopes(transport: str, less: dict[str, Any]) -> None:
    """Row 32: rooms and namespaces are left with it, and events are forbidden; no way leads back."""
    place = Place()
    async with scene(place, transport) as (mallory, _):
        token = place.token(scope="moderate admin write")
        await enters(mallory, token)
        await enters(mallory, token, "/admin")
        socket = await place.socket()
        socket.join("mods", scopes="moderate")
        await mallory.send(authenticate(place.token(iat=place.ago(5), **less)))
        assert await within(mallory.receive()) == "41/admin,"
        assert (await hear(mallory))[0] == "authenticated"
        place.io.to("mods").emit("secret")
        place.io.of("/admin").emit("secret")
        assert socket.rooms == {socket.id, "user:mallory"}
        with pytest.raises(InsufficientScope):
            socket.join("mods", scopes="moderate")
        await mallory.send('42["write"]')
        assert (await hear(mallory))[0] == "forbidden"
        await mallory.send("40/admin,")
        assert await within(mallory.receive()) == "44/admin," + compact(refusals.SCOPE)
        await echoes(mallory)


@pytest.mark.parametrize("namespace", ["", "/admin"])
async def test_a_refresh_that_narrows_scopes_while_its_client_does_not_read(transport: str, namespace: str) -> None:
    """Row 32: what waits for a room or a namespace that is lost is dropped."""
    place = Place()
    async with scene(place, transport) as (mallory, _):
        token = place.token(scope="moderate admin")
        await enters(mallory, token)
        await enters(mallory, token, "/admin")
        socket = await place.socket(namespace or "/")
        socket.join("mods", scopes="moderate")
        deaf = Deaf(mallory, socket)
        waiting = await deaf.is_sent(socket.id if namespace else "mods")
        await mallory.send(authenticate(place.token(iat=place.ago(5))))
        await until(lambda: place.refreshed)
        deaf.reads()
        packets: list[str] = []
        while not packets or "authenticated" not in packets[-1]:
            packets.append(str(await within(mallory.receive())))
        assert "41/admin," in packets
        assert not waiting & news(*packets)


# Row 33: a revocation.

CRITERIA: list[dict[str, Any]] = [{"token_id": HELD}, {"subject": "mallory"}, {"session_id": "s1"}, {"key_id": "k1"}]


@pytest.mark.parametrize("stage", ["verify", "load_user", "middleware"])
@pytest.mark.parametrize("way", ["CONNECT", "authenticate"])
@pytest.mark.parametrize("criteria", CRITERIA, ids=str)
async def test_a_revocation_between_the_verdict_and_the_entry(
    transport: str, stage: str, way: str, criteria: dict[str, Any]
) -> None:
    """Row 33: whoever was good when it was looked is not let in when it holds no more."""
    place = Place(**in_band(way))
    async with scene(place, transport) as (mallory, _):
        door = place.hold(stage)
        token = place.token(jti=HELD, sid="s1", header={"alg": "HS256", "typ": "JWT", "kid": "k1"})
        await asks(mallory, way, token)
        await within(door.reached.wait())
        await place.io.revoke(**criteria)
        door.opened.set()
        assert await answer(mallory, way) == refusals.REVOKED
    assert place.entered == ["alice"]


@pytest.mark.parametrize("criteria", CRITERIA, ids=str)
async def test_a_revocation_of_a_client_that_does_not_read(transport: str, criteria: dict[str, Any]) -> None:
    """Row 33: of what had not left when `revoke` was called, nothing is delivered, and nothing that comes after it."""
    place = Place()
    async with scene(place, transport) as (mallory, _):
        header = {"alg": "HS256", "typ": "JWT", "kid": "k1"}
        await enters(mallory, place.token(jti=HELD, sid="s1", header=header))
        socket = await place.socket()
        deaf = Deaf(mallory, socket)
        waiting = await deaf.is_sent("user:mallory")
        await place.io.revoke(**criteria)
        socket.emit("late")
        place.io.to("user:mallory").emit("late")
        deaf.reads()
        packets = await said(mallory)
        assert not waiting & news(*packets)
        assert '42["late"]' not in packets
        if transport == "polling":
            assert packets == farewell(refusals.REVOKED)
