"""What python-socketio and python-engineio let a client do that a server with a gate must not."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import socketio
from websockets.exceptions import ConnectionClosed, InvalidStatus

from iogate import Cookie, Query
from iogate.integrations import protect
from tests.conformance.wire import (
    POLLING,
    WEBSOCKET,
    ends,
    enter,
    polling,
    raw_websocket,
    said,
    session,
    websocket,
    within,
)
from tests.gate.houses import NEWCOMER
from tests.gate.support import authenticate, compact, connect, hear, make_auth
from tests.integrations.both import Both
from tests.server.left import until
from tests.servers import make_token, serve

# Who somebody is.


async def test_an_event_of_the_name_of_all_handlers_ends_the_connection(threaded: bool, transport: str) -> None:
    """python-socketio would give the handler the client's words in the place of the `sid`."""
    both = Both(threaded=threaded)
    ran: list[Any] = []
    both.on("*", lambda *args: ran.append(args))
    async with both.serve() as url, session(url, transport) as client:
        await enter(client)
        await client.send('42["*","x","y"]')
        await ends(client)
    assert ran == []


async def test_a_handler_of_all_events_requires_scopes_of_who_sends(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    ran: list[str] = []

    def guarded(event: str, sid: str) -> str:
        ran.append(sid)
        return event

    async def guarded_async(event: str, sid: str) -> str:
        return guarded(event, sid)

    both.sio.on("*", both.gate.requires("admin")(guarded if threaded else guarded_async))
    async with both.serve() as url, session(url, transport) as admin, session(url, transport) as client:
        sid = await enter(admin, sub="root", scope="admin")
        await enter(client)
        await client.send(f'421["{sid}"]')
        answers = [str(await within(client.receive())) for _ in range(2)]
        assert any(answer.startswith('431[{"error":') for answer in answers)
        assert ran == []
        await admin.send('421["delete"]')
        assert await within(admin.receive()) == '431["delete"]'
        assert ran == [sid]


async def test_what_a_handler_does_to_another_does_not_make_it_act_for_him(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    both.on("disconnect", lambda sid, reason: None)
    gone: list[str] = []

    @both.gate.requires("admin")
    def admins_alone() -> str:
        return "done"

    def throws_out(sid: str, other: str) -> Any:
        gone.append(other)
        if threaded:
            both.sio.disconnect(other)
            return str(admins_alone())
        return _throw_out(both.sio, other, admins_alone)

    both.on("throw out", throws_out)
    async with both.serve() as url, session(url, transport) as admin, session(url, transport) as client:
        sid = await enter(admin, sub="root", scope="admin")
        await enter(client)
        await client.send(f'421["throw out","{sid}"]')
        answers = [str(await within(client.receive())) for _ in range(2)]
        assert any(answer.startswith('42["forbidden"') for answer in answers)
        assert '431["done"]' not in answers
    assert gone == [sid]


async def _throw_out(sio: Any, sid: str, then: Callable[[], Any]) -> str:
    await sio.disconnect(sid)
    return str(then())


async def test_a_guest_who_authenticates_is_in_the_room_of_his_own(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded, auth=make_auth(guests=True))
    async with both.serve() as url, session(url, transport) as client:
        await client.send("40")
        await within(client.receive())
        await client.send(authenticate())
        assert (await hear(client))[0] == "authenticated"
        await both.do("emit", "told", room="user:ann")
        assert await within(client.receive()) == '42["told"]'


async def test_a_namespace_with_a_question_mark_is_none(threaded: bool, transport: str) -> None:
    """python-socketio cuts it off, so that it would be another one there."""
    both = Both(threaded=threaded, namespaces="*", always_connect=True)
    async with both.serve() as url, session(url, transport) as client:
        await client.send(connect(namespace="/chat?x"))
        assert await said(client) == ['44/chat?x,{"message":"Invalid namespace"}']


# What goes out.


async def test_what_is_sent_with_a_callback_passes_the_gate_too(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    answers: list[Any] = []

    def talks(sid: str, environ: Any, auth: Any) -> Any:
        return both.sio.emit("asked", {"a": b"1"}, to=sid, callback=answers.append)

    both.on("connect", talks)
    async with both.serve() as url, session(url, transport) as client:
        await enter(client)
        assert await within(client.receive()) == '451-1["asked",{"a":{"_placeholder":true,"num":0}}]'
        assert await within(client.receive()) in (b"1", "bMQ==")
        await client.send('431["yes"]')
        await until(lambda: answers == ["yes"])


async def test_who_is_refused_never_hears_what_was_sent_with_a_callback(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)

    def talks(sid: str, environ: Any, auth: Any) -> Any:
        if threaded:
            both.sio.emit("secret", to=sid, callback=print)
            return False
        return _secret(both.sio, sid)

    both.on("connect", talks)
    async with both.serve() as url, session(url, transport) as client:
        await client.send(connect())
        assert await said(client) == ["44" + compact(NEWCOMER)]


async def _secret(sio: Any, sid: str) -> bool:
    await sio.emit("secret", to=sid, callback=print)
    return False


@pytest.mark.parametrize("placeholder", [1, "yes", [0]])
async def test_an_attachment_is_not_multiplied(threaded: bool, placeholder: object) -> None:
    """What is true is a place for an attachment to python-socketio, and `true` alone to everybody else."""
    both = Both(threaded=threaded)
    ran: list[Any] = []
    both.on("send", lambda sid, *args: ran.append(args))
    more = [[{"_placeholder": placeholder, "num": 0}]] * 3
    packet = json.dumps(["send", {"_placeholder": True, "num": 0}, {"more": more}])
    async with both.serve() as url, session(url, "websocket") as client:
        await enter(client)
        await client.send(f"451-{packet}", b"x" * 1000)
        await until(lambda: ran)
    assert ran == [(b"x" * 1000, {"more": more})]


# What it costs.


@pytest.mark.parametrize("packet", ["2", "5"])
async def test_who_posts_what_has_no_place_there_and_goes_leaves_nothing_behind(threaded: bool, packet: str) -> None:
    both = Both(threaded=threaded, ping_interval=0.1)  # A ping waits on a thread or a task of its own.

    def left() -> int:
        return threading.active_count() if threaded else len(asyncio.all_tasks())

    async with both.serve() as url, polling(url) as first:
        await first.send("2")  # What is made once for all is there from now on.
        await until(lambda: not both.sio.eio.sockets)
        before = left()
        for _ in range(20):
            async with polling(url) as client:
                await client.send(packet)
        await until(lambda: not both.sio.eio.sockets and left() < before + 10)


def served(both: Both, sid: str) -> set[bool]:
    """Say whether a poll (False) and a WebSocket (True) of a session are being served."""
    return set(both.gate._glue._sessions[sid].transport._served)


async def test_a_session_has_one_poll_at_a_time(threaded: bool) -> None:
    both = Both(threaded=threaded)
    async with both.serve() as url, polling(url) as client:
        await enter(client)
        first = asyncio.create_task(client.get())
        await until(lambda: served(both, client.handshake["sid"]) == {False})
        assert (await client.get()).status_code == 400
        await both.do("emit", "news")
        assert (await within(first)).text == '42["news"]'
        await both.do("emit", "more")
        assert (await client.get()).text == '42["more"]'


@pytest.mark.usefixtures("impatient")
async def test_a_session_has_one_upgrade_at_a_time_which_ends_with_it(threaded: bool) -> None:
    both = Both(threaded=threaded)
    async with both.serve() as url, polling(url) as client:
        await enter(client)
        query = {**WEBSOCKET, "sid": client.handshake["sid"]}
        async with raw_websocket(url, query) as upgrade:  # It says no word.
            await until(lambda: served(both, query["sid"]) == {True})
            with pytest.raises(InvalidStatus):
                async with raw_websocket(url, query):
                    pass
            await both.revoke(subject="ann")
            with pytest.raises(ConnectionClosed):
                await within(upgrade.recv())
            await until(lambda: not both.sio.eio.sockets)


async def test_a_session_that_is_over_is_not_upgraded(threaded: bool) -> None:
    both = Both(threaded=threaded)
    async with both.serve() as url, polling(url) as client:
        await enter(client)
        await both.revoke(subject="ann")
        with pytest.raises(InvalidStatus):
            async with raw_websocket(url, {**WEBSOCKET, "sid": client.handshake["sid"]}):
                pass
        await ends(client)


async def test_an_upgrade_that_was_given_up_leaves_polling_as_it_was(threaded: bool) -> None:
    both = Both(threaded=threaded)
    async with both.serve() as url, polling(url) as client:
        await enter(client)
        async with raw_websocket(url, {**WEBSOCKET, "sid": client.handshake["sid"]}):
            await until(lambda: served(both, client.handshake["sid"]) == {True})
        await until(lambda: not served(both, client.handshake["sid"]))
        await both.do("emit", "news")
        assert (await client.get()).text == '42["news"]'


async def test_a_websocket_that_sends_what_is_no_packet_is_over(threaded: bool) -> None:
    both = Both(threaded=threaded)
    async with both.serve() as url, websocket(url) as client:
        await enter(client)
        await client.send("x")
        await until(lambda: not both.members() and not both.sio.eio.sockets)


@pytest.mark.usefixtures("impatient")
async def test_who_does_not_answer_the_close_of_a_websocket_is_cut_off(threaded: bool) -> None:
    both = Both(threaded=threaded)
    async with both.serve() as url, websocket(url) as client:
        await enter(client)
        (session_,) = both.gate._glue._sessions.values()
        client.connection.transport.pause_reading()
        await both.revoke(subject="ann")
        await until(lambda: not session_.transport._served)


# Where it comes from.


@pytest.mark.parametrize("auth", [make_auth(), make_auth(sources=(Cookie("token"),))])
async def test_a_script_of_another_page_opens_no_session(threaded: bool, auth: Any) -> None:
    """The answer of JSONP could be read by any page, and the session would be its visitor's."""
    both = Both(threaded=threaded, auth=auth, cors_allowed_origins=["https://app.example"])
    async with both.serve() as url, polling(url) as client:
        for query in ({**POLLING, "j": "0"}, {"j": "0", **POLLING}):
            answer = await client.http.get("/socket.io/", params=query)
            assert answer.status_code == 401
            assert "sid" not in answer.text


async def test_a_token_in_the_url_is_not_in_the_log_of_the_asgi_server(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="uvicorn")
    sio = socketio.AsyncServer(async_mode="asgi")
    protect(sio, make_auth(sources=(Query("token"),)))
    asked: list[str] = []

    @sio.event
    async def connect(sid: str, environ: dict[str, Any]) -> None:
        asked.append(environ["QUERY_STRING"])

    token = make_token()
    async with serve(socketio.ASGIApp(sio)) as url:
        async with raw_websocket(url, {**WEBSOCKET, "token": token}) as opened:
            assert str(await within(opened.recv())).startswith("0{")
            await opened.send("40")
            assert str(await within(opened.recv())).startswith("40{")
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            assert (await http.get("/socket.io/", params={**POLLING, "token": token})).status_code == 200
    assert f"token={token}" in asked[0]  # Handlers have it as before.
    assert token.split(".")[-1] not in caplog.text
    assert caplog.text.count("token=REDACTED") == 2
