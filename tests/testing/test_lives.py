"""Identities that begin, are refreshed and end, in memory: what a user's own tests can see and need not wait for."""

from __future__ import annotations

from typing import Any

import pytest

from iogate import Disconnected, Principal, Server, Socket
from iogate.testing import ConnectRefused, FakeClock, InMemoryClient, Received, TokenFactory, advance

LIFE = 60


class Place:
    """A server whose tokens live for a minute, and all that its handlers were told."""

    def __init__(self, **auth: Any) -> None:
        self.clock = FakeClock()
        self.tokens = TokenFactory(clock=self.clock, lifetime=LIFE)
        self.io = Server(auth=self.tokens.auth(**{"refresh_before": 20, **auth}), clock=self.clock)
        self.events: list[tuple[Any, ...]] = []

        @self.io.on("connect")
        def connected(socket: Socket) -> None:
            self.events.append(("connect", socket.principal.subject))

        @self.io.on("disconnect")
        def disconnected(socket: Socket, reason: str) -> None:
            self.events.append(("disconnect", reason))

        @self.io.on("refresh")
        def refreshed(socket: Socket, old: Principal | None, new: Principal) -> None:
            self.events.append(("refresh", old and old.claims.get("color"), new.claims.get("color")))

        @self.io.on("edit", scopes="write")
        def edit(socket: Socket) -> str:
            return "edited"

    def client(self, **claims: Any) -> InMemoryClient:
        return InMemoryClient(self.io, token=self.tokens.good(**claims))


async def test_a_token_ends_on_time_and_the_client_is_told_why() -> None:
    place = Place()
    async with place.client() as client:
        await client.connect()
        await advance(place.io, LIFE - 0.1)
        assert client.connected()
        await advance(place.io, 0.2)
        assert not client.open
        [told] = await client.receive("unauthorized")
        assert told["message"] == "jwt expired"
        assert (client.refusals[-1].code, client.refusals[-1].retry) == ("invalid_token", "refresh")
        assert await client.receive("disconnect") == ("io server disconnect",)
    assert place.events == [("connect", "alice"), ("disconnect", "token expired")]


async def test_a_wall_clock_that_is_set_back_gives_no_longer_life() -> None:
    place = Place()
    async with place.client() as client:
        await client.connect()
        place.clock.set_wall(place.clock.wall() - 3600)
        await advance(place.io, LIFE)
        assert not client.open


async def test_the_notice_comes_before_the_end_and_a_handler_can_answer_it_in_time() -> None:
    place = Place()
    async with place.client() as client:

        @client.on("token_expiring")
        async def refresh(notice: dict[str, Any]) -> None:
            assert notice["expires_at"] > place.clock.wall()
            await client.authenticate(place.tokens.good())

        await client.connect()
        await advance(place.io, 20 * LIFE)
        assert client.connected()
    assert [item.event for item in client.received].count("token_expiring") >= 20
    assert "unauthorized" not in [item.event for item in client.received]


async def test_a_refresh_changes_the_identity_and_returns_what_it_is_now() -> None:
    place = Place()
    async with place.client(color="red") as client:
        await client.connect()
        await advance(place.io, 30)
        answer = await client.authenticate(place.tokens.good(color="blue"))
        assert answer == {"sub": "alice", "exp": int(place.clock.wall()) + LIFE}
    assert place.events == [("connect", "alice"), ("refresh", "red", "blue"), ("disconnect", "transport close")]


async def test_a_refused_refresh_raises_and_leaves_the_socket_as_it_was() -> None:
    place = Place()
    async with place.client() as client:
        await client.connect()
        with pytest.raises(ConnectRefused) as refused:
            await client.authenticate(place.tokens.good(sub="mallory"))
        assert refused.value.code == "invalid_token"
        assert client.connected()
        assert client.refusals[-1].data == refused.value.data


async def test_in_band_the_socket_waits_outside_until_it_authenticates() -> None:
    place = Place(authenticate_within=15)
    async with InMemoryClient(place.io) as client:
        await client.connect()
        await client.emit("edit")
        place.io.emit("news")
        assert (place.events, client.received) == ([], [])
        await client.authenticate(place.tokens.good(sub="ann"))
        place.io.emit("news")
        assert await client.receive("news") == ()
        assert place.events == [("connect", "ann")]


async def test_in_band_the_deadline_is_kept_without_a_second_of_waiting() -> None:
    place = Place(authenticate_within=15)
    async with InMemoryClient(place.io) as client:
        await client.connect()
        await advance(place.io, 15)
        [told] = await client.receive("unauthorized")
        assert told["data"]["code"] == "timeout"
        await client.closed()


async def test_in_band_a_bad_token_is_a_refusal_after_which_the_transport_closes() -> None:
    place = Place(authenticate_within=15)
    async with InMemoryClient(place.io) as client:
        await client.connect()
        with pytest.raises(ConnectRefused) as refused:
            await client.authenticate(place.tokens.wrong_key())
        assert refused.value.retry == "login"
        await client.closed()


async def test_a_revocation_is_seen_when_the_call_returns() -> None:
    place = Place()
    async with place.client(sub="ann", jti="one") as ann, place.client(sub="ben") as ben:
        await ann.connect()
        await ben.connect()
        await place.io.revoke(token_id="one")
        place.io.emit("news")
        assert await ben.receive("news") == ()
        assert ann.refusals[-1].code == "revoked_token"
        with pytest.raises(Disconnected):
            await ann.receive("news")
        assert ben.connected()
        with pytest.raises(ConnectRefused) as refused:
            async with InMemoryClient(place.io, token=ann.token) as again:
                await again.connect()
        assert refused.value.code == "revoked_token"


async def test_what_a_scope_forbids_is_answered() -> None:
    place = Place()
    async with place.client(scope="read") as reader, place.client(scope="read write") as writer:
        await reader.connect()
        await writer.connect()
        forbidden = {"event": "edit", "code": "insufficient_scope", "required": ["write"]}
        assert await reader.call("edit") == {"error": forbidden}
        assert reader.received == [Received("forbidden", (forbidden,))]
        assert await writer.call("edit") == "edited"
