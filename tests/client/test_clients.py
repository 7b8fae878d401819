"""Both clients against a real server: what they do about their token, on polling and on WebSocket."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from typing import Any

import pytest
import socketio

from iogate import Refused, Server, Socket
from iogate.client import AsyncClient, ConnectionRefused
from iogate.server.session.reasons import CloseReason
from iogate.testing import advance
from tests.client.peers import FOREVER, LIFETIME, WITHIN, Kind, Source, client, world
from tests.servers import serve

# Coming in.


async def test_the_token_of_get_token_lets_it_in(kind: Kind, transports: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        await peer.do("connect", place.url, transports=transports)
        assert await peer.do("call", "whoami") == "alice"
        assert peer.client.transport() == transports[-1]
        assert source.reasons == ["connect"]


async def test_get_token_may_be_a_coroutine_function() -> None:
    async with world() as place:

        async def get_token(reason: str) -> str:
            await asyncio.sleep(0)
            return place.tokens.good(sub="ann")

        async with client("asyncio", get_token) as peer:
            await peer.do("connect", place.url, transports=["websocket"])
            assert await peer.do("call", "whoami") == "ann"


async def test_more_can_be_said_in_the_payload_of_connect(kind: Kind) -> None:
    async with world() as place, client(kind, Source(place.tokens)) as peer:
        await peer.do("connect", place.url, auth={"color": "red"})
        socket: Socket = await place.happens("connect")
        assert socket.handshake.auth == {"color": "red"}


async def test_without_a_token_a_guest_is_let_in(kind: Kind) -> None:
    async with world(auth={"guests": True}) as place, client(kind, lambda reason: None) as peer:
        await peer.do("connect", place.url)
        socket: Socket = await place.happens("connect")
        assert not socket.authenticated


async def test_an_expired_token_is_replaced_at_once(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens), reconnection_delay=FOREVER) as peer:
        source.answers["connect"] = [place.tokens.expired()]
        await peer.do("connect", place.url, transports=how)
        assert await peer.do("call", "whoami") == "alice"
        assert source.reasons == ["connect", "expired"]
        assert peer.count("disconnect") == 0


async def test_a_second_expired_token_is_not_replaced_at_once(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.by_default = {"connect": place.tokens.expired(), "expired": place.tokens.expired(by=30)}
        with pytest.raises(ConnectionRefused, match="jwt expired") as refused:
            await peer.do("connect", place.url, transports=how)
        assert refused.value.retry == "refresh"
        assert refused.value.data["code"] == "invalid_token"
        assert source.reasons == ["connect", "expired"]


async def test_a_refusal_counts_that_is_read_after_the_end_of_the_connection(how: list[str]) -> None:
    """On threads each message is read on one of its own, and that one may be late."""
    async with world() as place, client("threads", source := Source(place.tokens)) as peer:
        source.by_default = {"connect": place.tokens.expired(), "expired": place.tokens.expired(by=30)}
        over = threading.Event()
        threads: Any = peer.client
        told, finish = threads._handle_error, threads.eio.finish

        def tell_late(*details: Any) -> None:
            over.wait(WITHIN)
            over.clear()
            told(*details)

        def finished() -> None:
            finish()
            over.set()

        threads._handle_error, threads.eio.finish = tell_late, finished
        with pytest.raises(ConnectionRefused, match="jwt expired"):
            await peer.do("connect", place.url, transports=how)
        assert source.reasons == ["connect", "expired"]


async def test_with_retry_expired_tokens_are_replaced_until_one_is_good(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.answers["connect"] = [place.tokens.expired()]
        source.answers["expired"] = [place.tokens.expired(by=by) for by in (40, 30, 20)]
        await peer.do("connect", place.url, transports=how, retry=True)
        assert source.reasons == ["connect", *["expired"] * 4]


async def test_a_bad_token_leads_to_the_login(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.answers["connect"] = [place.tokens.wrong_key()]
        await peer.do("connect", place.url, transports=how)
        assert source.reasons == ["connect", "login"]
        assert await peer.do("call", "whoami") == "alice"


@pytest.mark.parametrize("answer", ["nothing", "the same", "another bad one"])
async def test_a_login_that_does_not_help_stops(kind: Kind, how: list[str], answer: str) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        bad = place.tokens.wrong_key()
        source.by_default["connect"] = bad
        source.by_default["login"] = {"nothing": None, "the same": bad}.get(answer, place.tokens.wrong_key())
        with pytest.raises(ConnectionRefused, match="invalid token"):
            await peer.do("connect", place.url, transports=how, retry=True)
        assert source.reasons == ["connect", "login"]
        [refusal] = await peer.hear("login_required")
        assert refusal.code == "invalid_token"
        assert peer.client.refusal == refusal


@pytest.mark.parametrize("retry", [False, True])
async def test_never_stops_at_once(kind: Kind, how: list[str], retry: bool) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:

        @place.io.use
        def closed(socket: Socket) -> None:
            raise Refused("closed", data={"code": "closed", "retry": "never"})

        with pytest.raises(ConnectionRefused, match="closed") as refused:
            await peer.do("connect", place.url, transports=how, retry=retry)
        assert refused.value.refusal.code == "closed"
        assert source.reasons == ["connect"]
        assert peer.client.eio.state == "disconnected"


async def test_later_is_tried_again_with_retry_only(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        turned_away = 0

        @place.io.use
        def busy(socket: Socket) -> None:
            nonlocal turned_away
            turned_away += 1
            if turned_away <= 3:
                raise Refused("busy", data={"code": "busy", "retry": "later"})

        with pytest.raises(ConnectionRefused, match="busy"):
            await peer.do("connect", place.url, transports=how)
        await peer.do("connect", place.url, transports=how, retry=True)
        assert turned_away == 4
        assert peer.count("connect") == 1
        assert source.reasons == ["connect"] * 4


async def test_a_server_that_is_not_there_is_an_error(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        pass
    async with client(kind, source) as peer:
        with pytest.raises(socketio.exceptions.ConnectionError):
            await peer.do("connect", place.url, transports=how)
        assert peer.client.refusal is None


async def test_what_get_token_raises_reaches_who_connects(kind: Kind) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.answers["connect"] = [LookupError("no identity provider")]
        with pytest.raises(LookupError, match="no identity provider"):
            await peer.do("connect", place.url)


async def test_what_get_token_gives_is_a_text(kind: Kind) -> None:
    async with world() as place, client(kind, lambda reason: b"bytes") as peer:
        with pytest.raises(TypeError, match="bytes"):
            await peer.do("connect", place.url)


async def test_it_is_connected_once_at_a_time(kind: Kind) -> None:
    async with world() as place, client(kind, Source(place.tokens)) as peer:
        await peer.do("connect", place.url)
        with pytest.raises(socketio.exceptions.ConnectionError, match="Already"):
            await peer.do("connect", place.url)


async def test_it_can_be_connected_again_after_a_disconnect(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        for _ in range(3):
            await peer.do("connect", place.url, transports=how)
            assert await peer.do("call", "whoami") == "alice"
            await peer.do("disconnect")
        assert source.reasons == ["connect"] * 3


# Staying.


async def test_it_stays_through_five_lifetimes_without_a_disconnect(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        await peer.do("connect", place.url, transports=how)
        for _ in range(5):
            await place.until_next()
            principal = await place.happens("refresh")
            assert principal.expires_at == int(place.clock.wall()) + LIFETIME
            [answer] = await peer.hear("token_refreshed")
            assert answer == {"sub": "alice", "exp": principal.expires_at}
        assert source.reasons == ["connect", *["expiring"] * 5]
        assert peer.count("connect") == 1
        assert peer.count("disconnect") == 0


async def test_namespaces_share_one_refresh(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        place.io.of("/admin")
        place.io.of("/news")
        await peer.do("connect", place.url, transports=how, namespaces=["/", "/admin", "/news"])
        for _ in range(3):
            await place.until_next()
            await peer.hear("token_refreshed")
        assert source.reasons == ["connect", *["expiring"] * 3]
        assert len(place.io._core.sessions.table) == 1


async def test_a_refresh_that_fails_is_tried_again_on_the_live_connection(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        first = place.tokens.good()
        source.answers["connect"] = [first]
        source.answers["expiring"] = [LookupError("down"), None, first, place.tokens.expired()]
        await peer.do("connect", place.url, transports=how)
        await place.until_next()
        await place.happens("refresh")
        await peer.hear("token_refreshed")
        assert source.reasons == ["connect", *["expiring"] * 5]
        assert peer.count("token_refresh_failed") == 4
        assert peer.count("disconnect") == 0


async def test_a_refresh_with_the_token_of_somebody_else_is_given_up_and_the_connection_lives_on(
    kind: Kind, how: list[str]
) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.answers["expiring"] = [place.tokens.good(sub="mallory")]
        await peer.do("connect", place.url, transports=how)
        await place.until_next()
        [refusal] = await peer.hear("token_refresh_failed")
        assert refusal.retry == "login"
        assert await peer.do("call", "whoami") == "alice"
        # At its end it is the end that counts, and not that refusal.
        await place.until_next()
        await peer.hear("connect")
        assert source.reasons == ["connect", "expiring", "expired"]


async def test_a_refusal_of_a_refresh_does_not_colour_a_loss_that_comes_after_it(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.answers["expiring"] = [place.tokens.good(sub="mallory")]
        await peer.do("connect", place.url, transports=how)
        await place.until_next()
        await peer.hear("token_refresh_failed")
        lose(place.io)
        await place.happens("connect")
        await place.happens("connect")
        assert source.reasons == ["connect", "expiring", "reconnect"]


# Coming back.


def lose(io: Any) -> None:
    """Cut the transports, as a network does."""
    for connection in list(io._core.sessions.table.values()):
        connection.close(CloseReason.TRANSPORT_CLOSE)


async def test_who_was_away_beyond_the_end_of_the_token_comes_back_with_a_new_one(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.by_default["expiring"] = None  # As if nobody had been there to answer.
        await peer.do("connect", place.url, transports=how)
        await place.until_next()
        await peer.hear("token_refresh_failed")
        await place.until_next()
        await peer.hear("connect")
        assert await peer.do("call", "whoami") == "alice"
        assert source.reasons.count("expired") == 1
        assert set(source.reasons) == {"connect", "expiring", "expired"}


async def test_a_lost_connection_is_made_again(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        await peer.do("connect", place.url, transports=how)
        await peer.hear("connect")
        for _ in range(2):
            lose(place.io)
            await peer.hear("disconnect")
            await peer.hear("connect")
        assert await peer.do("call", "whoami") == "alice"
        assert source.reasons == ["connect", "reconnect", "reconnect"]


async def test_who_has_heard_connect_hears_disconnect(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:

        async def lose_the_first() -> None:
            first = not peer.count("connect")
            peer.keep(("/", "connect"))
            if first:
                lose(place.io)
                while peer.client.eio.state == "connected":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        peer.on_async("connect", lose_the_first)
        await peer.do("connect", place.url, transports=how, retry=True)
        for event in ("connect", "disconnect", "connect"):
            await peer.hear(event)
        await peer.is_back("/")
        assert [event for _, event, *_ in peer.all] == ["connect", "disconnect", "connect"]
        assert await peer.do("call", "whoami") == "alice"
        # It ended in the midst of the attempt, or the attempt was just over.
        assert source.reasons in (["connect", "connect"], ["connect", "reconnect"])


async def test_it_comes_back_when_get_token_does(kind: Kind) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.answers["reconnect"] = [LookupError("down"), LookupError("down")]
        await peer.do("connect", place.url)
        await peer.hear("connect")
        lose(place.io)
        await peer.hear("connect")
        assert source.reasons == ["connect", "reconnect", "reconnect", "reconnect"]


async def test_it_does_not_come_back_if_it_is_not_to(kind: Kind) -> None:
    async with world() as place, client(kind, source := Source(place.tokens), reconnection=False) as peer:
        await peer.do("connect", place.url)
        lose(place.io)
        await peer.hear("disconnect")
        await peer.rests()
        assert source.reasons == ["connect"]


async def test_so_many_attempts_are_enough(kind: Kind) -> None:
    async with world() as place, client(kind, source := Source(place.tokens), reconnection_attempts=2) as peer:
        source.by_default["reconnect"] = place.tokens.expired()
        source.by_default["expired"] = None
        source.by_default["login"] = None
        await peer.do("connect", place.url)
        source.answers["reconnect"] = [LookupError("down")] * 9
        lose(place.io)
        await peer.rests()
        assert source.reasons == ["connect", "reconnect", "reconnect"]


@pytest.mark.parametrize("close", [False, True])
async def test_it_does_not_come_back_when_the_server_sends_it_out(kind: Kind, how: list[str], close: bool) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        await peer.do("connect", place.url, transports=how)
        await place.happens("connect")
        place.io.disconnect_sockets(close=close)
        await peer.hear("disconnect")
        await peer.rests()
        assert source.reasons == ["connect"]
        assert peer.client.refusal is None
        assert not peer.client.connected


async def test_it_comes_back_when_the_server_closes_the_transport(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        await peer.do("connect", place.url, transports=how)
        await place.happens("connect")
        for connection in list(place.io._core.sessions.table.values()):
            connection.close(CloseReason.SERVER_SHUTDOWN)
        await place.happens("connect")
        assert source.reasons == ["connect", "reconnect"]


async def test_a_revoked_one_comes_back_after_the_login(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.answers["connect"] = [place.tokens.good(jti="stolen")]
        await peer.do("connect", place.url, transports=how)
        await peer.hear("connect")
        await place.io.revoke(token_id="stolen")
        await peer.hear("connect")
        assert await peer.do("call", "whoami") == "alice"
        assert source.reasons == ["connect", "login"]


async def test_a_revoked_one_that_does_not_log_in_stops(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.by_default["login"] = None
        await peer.do("connect", place.url, transports=how)
        await place.happens("connect")
        await place.io.revoke(subject="alice")
        [refusal] = await peer.hear("login_required")
        assert refusal.code == "revoked_token"
        await peer.rests()
        assert peer.client.refusal == refusal
        assert source.reasons == ["connect", "login"]
        assert place.io._core.sessions.table == {}


async def test_a_namespace_that_the_new_token_does_not_give_is_left_and_not_come_back_to(
    kind: Kind, how: list[str]
) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        place.io.of("/admin", scopes="admin")
        source.answers["connect"] = [place.tokens.good(scope="admin")]
        peer.listen("disconnect", namespace="/admin")
        await peer.do("connect", place.url, transports=how, namespaces=["/", "/admin"])
        await place.happens("connect")
        await place.until_next()
        await peer.hear("disconnect", "/admin")
        assert await peer.do("call", "whoami") == "alice"
        lose(place.io)
        await place.happens("connect")
        assert source.reasons == ["connect", "expiring", "reconnect"]
        await peer.is_back("/")


async def test_a_namespace_that_is_refused_for_good_on_the_way_back_does_not_take_the_others_along(kind: Kind) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        place.io.of("/admin", scopes="admin")
        source.answers["connect"] = [place.tokens.good(scope="admin")]
        await peer.do("connect", place.url, transports=["websocket"], namespaces=["/", "/admin"])
        await peer.hear("connect")
        lose(place.io)
        await peer.hear("disconnect")
        await peer.is_back("/")
        assert await peer.do("call", "whoami") == "alice"


# Going.


async def test_disconnect_stops_an_attempt_to_come_back(kind: Kind) -> None:
    async with (
        world() as place,
        client(
            kind, source := Source(place.tokens), reconnection_delay=FOREVER, reconnection_delay_max=FOREVER
        ) as peer,
    ):
        await peer.do("connect", place.url)
        lose(place.io)
        await peer.hear("disconnect")
        await peer.do("disconnect")
        await peer.do("wait")
        assert source.reasons == ["connect"]


async def test_shutdown_is_a_disconnect(kind: Kind) -> None:
    async with world() as place, client(kind, Source(place.tokens)) as peer:
        await peer.do("connect", place.url)
        await peer.do("shutdown")
        await peer.rests()
        assert not peer.client.connected
        assert await place.happens("disconnect") in {"client namespace disconnect", "transport close"}


async def test_a_handler_may_disconnect(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        if isinstance(peer.client, AsyncClient):

            async def leave() -> None:
                await peer.do("disconnect")

            peer.client.on("leave", leave)
        else:
            peer.client.on("leave", peer.client.disconnect)
        await peer.do("connect", place.url, transports=how)
        await place.happens("connect")
        place.io.emit("leave")
        await place.happens("disconnect")
        await peer.rests()
        assert source.reasons == ["connect"]


async def test_disconnect_stops_a_connect_that_is_patient(kind: Kind) -> None:
    async with (
        world() as place,
        client(
            kind, source := Source(place.tokens), reconnection_delay=FOREVER, reconnection_delay_max=FOREVER
        ) as peer,
    ):

        @place.io.use
        def busy(socket: Socket) -> None:
            raise Refused("busy", data={"retry": "later"})

        connecting = asyncio.create_task(peer.do("connect", place.url, retry=True))
        await peer.hear("connect_error")
        await peer.do("disconnect")
        with pytest.raises(socketio.exceptions.ConnectionError):
            await connecting
        assert source.reasons == ["connect"]


async def test_disconnect_stops_a_question_for_a_token() -> None:
    async with world() as place:
        asked = asyncio.Event()

        async def get_token(reason: str) -> str:
            if reason != "connect":
                asked.set()
                await asyncio.Event().wait()
            return place.tokens.good()

        async with client("asyncio", get_token) as peer:
            await peer.do("connect", place.url, transports=["websocket"])
            await place.until_next()
            await asked.wait()
            await peer.do("disconnect")
            assert not peer.client.connected


async def test_a_reconnect_waits_for_the_question_that_is_open() -> None:
    """Two questions at a time would use up a rotating refresh token twice."""
    async with world() as place:
        asked, answer = asyncio.Event(), asyncio.Event()
        at_a_time = most = 0

        async def get_token(reason: str) -> str:
            nonlocal at_a_time, most
            at_a_time += 1
            most = max(most, at_a_time)
            if reason == "expiring":
                asked.set()
                await answer.wait()
            at_a_time -= 1
            return place.tokens.good()

        async with client("asyncio", get_token) as peer:
            await peer.do("connect", place.url, transports=["websocket"])
            await place.until_next()
            await asked.wait()
            await advance(place.io, LIFETIME)
            await peer.hear("disconnect")
            answer.set()
            await peer.hear("connect")
            assert most == 1


# In band.


async def test_in_band_the_token_follows_the_connect(kind: Kind, how: list[str]) -> None:
    async with (
        world(auth={"authenticate_within": 15}) as place,
        client(kind, source := Source(place.tokens), in_band=True) as peer,
    ):
        peer.listen("authenticated")
        await peer.do("connect", place.url, transports=how)
        assert await peer.do("call", "whoami") == "alice"
        socket: Socket = await place.happens("connect")
        assert not socket.handshake.auth
        assert source.reasons == ["connect"]
        await peer.hear("connect")
        assert [item[1] for item in peer.all] == ["authenticated", "connect"]


async def test_in_band_every_namespace_is_authenticated_with_one_token(kind: Kind, how: list[str]) -> None:
    async with (
        world(auth={"authenticate_within": 15}) as place,
        client(kind, source := Source(place.tokens), in_band=True) as peer,
    ):
        place.io.of("/admin").on("whoami")(lambda socket: f"admin {socket.principal.subject}")
        await peer.do("connect", place.url, transports=how, namespaces=["/", "/admin"])
        assert await peer.do("call", "whoami", namespace="/admin") == "admin alice"
        assert await peer.do("call", "whoami") == "alice"
        await place.until_next()
        await peer.hear("token_refreshed")
        assert source.reasons == ["connect", "expiring"]


async def test_in_band_a_refusal_is_followed_like_any_other(kind: Kind, how: list[str]) -> None:
    async with (
        world(auth={"authenticate_within": 15}) as place,
        client(kind, source := Source(place.tokens), in_band=True) as peer,
    ):
        source.answers["connect"] = [place.tokens.expired()]
        source.answers["expired"] = [place.tokens.wrong_key()]
        await peer.do("connect", place.url, transports=how)
        assert await peer.do("call", "whoami") == "alice"
        assert source.reasons == ["connect", "expired", "login"]
        assert peer.count("disconnect") == 0, "the application never knew of those connections"


async def test_in_band_a_refusal_for_good_is_raised(kind: Kind, how: list[str]) -> None:
    async with (
        world(auth={"authenticate_within": 15}) as place,
        client(kind, source := Source(place.tokens), in_band=True) as peer,
    ):
        source.by_default = {"connect": place.tokens.wrong_key(), "login": None}
        with pytest.raises(ConnectionRefused, match="invalid token"):
            await peer.do("connect", place.url, transports=how, retry=True)
        assert peer.count("connect") == 0


async def test_in_band_a_guest_has_nothing_to_authenticate_with(kind: Kind, how: list[str]) -> None:
    async with world(auth={"guests": True}) as place, client(kind, lambda reason: None, in_band=True) as peer:
        await peer.do("connect", place.url, transports=how)
        socket: Socket = await place.happens("connect")
        assert not socket.authenticated
        await peer.hear("connect")


async def test_in_band_a_server_that_does_not_answer_is_an_error(kind: Kind, how: list[str]) -> None:
    async with world() as place, client(kind, Source(place.tokens), in_band=True) as peer:
        open_to_all = Server(auth=None)
        async with serve(open_to_all) as url:
            with pytest.raises(socketio.exceptions.ConnectionError, match="not answered"):
                await peer.do("connect", url, transports=how, wait_timeout=0.3)
            assert peer.count("connect") == 0


async def test_in_band_it_comes_back_too(kind: Kind, how: list[str]) -> None:
    async with (
        world(auth={"authenticate_within": 15}) as place,
        client(kind, source := Source(place.tokens), in_band=True) as peer,
    ):
        await peer.do("connect", place.url, transports=how)
        await peer.hear("connect")
        lose(place.io)
        await peer.hear("connect")
        assert await peer.do("call", "whoami") == "alice"
        assert source.reasons == ["connect", "reconnect"]


# Around it.


def test_without_python_socketio_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socketio", None)
    monkeypatch.delitem(sys.modules, "iogate.client")
    with pytest.raises(ImportError, match=r"pip install 'iogate\[client\]'"):
        importlib.import_module("iogate.client")


async def test_no_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as place, client("asyncio", source := Source(place.tokens)) as peer:
        token = place.tokens.good()
        source.answers["reconnect"] = [LookupError(token)]
        await peer.do("connect", place.url)
        lose(place.io)
        await peer.hear("disconnect")
        await peer.hear("connect")
        assert "LookupError" in caplog.text
        assert token not in caplog.text
        assert isinstance(peer.client, AsyncClient)
