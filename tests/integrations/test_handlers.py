"""What applications of python-socketio do in their handlers, and what the gate makes of it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import flask
import flask_socketio
import pytest
import socketio

from iogate import ConfigurationError, NotAuthenticated
from iogate.integrations import protect
from tests import refusals
from tests.conformance.wire import ends, enter, polling, said, session, websocket, within
from tests.gate.houses import CLOSED, NEWCOMER, serve_on_threads
from tests.gate.support import compact, connect, hear, make_auth
from tests.integrations.both import Both
from tests.server.left import until
from tests.servers import make_token


async def test_a_namespace_without_a_connect_handler_is_gated_too(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    both.on("message", lambda sid, text: text, "/chat")
    async with both.serve() as url:
        async with session(url, transport) as client:
            await client.send("40/chat,")
            assert await said(client) == ["44/chat," + compact(refusals.REQUIRED)]
        async with session(url, transport) as client:
            await enter(client, "/chat")
            await client.send('42/chat,1["message","hello"]')
            assert await within(client.receive()) == '43/chat,1["hello"]'


async def test_a_namespace_with_scopes_is_the_applications_as_all_others(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    seen: list[tuple[str, str]] = []

    def comes(sid: str, environ: Any, auth: Any) -> None:
        seen.append(("connect", both.gate.principal(sid).subject))
        if seen[-1][1] == "eve":
            raise socketio.exceptions.ConnectionRefusedError("closed", {"code": "closed"})

    both.on("connect", comes, "/staff")
    both.on("message", lambda sid, text: text, "/staff")
    both.on("disconnect", lambda sid, reason: seen.append(("disconnect", both.gate.principal(sid).subject)), "/staff")
    async with both.serve() as url:
        async with session(url, transport) as client:
            await enter(client, "/staff", scope="staff")
            await client.send('42/staff,1["message","hello"]')
            assert await within(client.receive()) == '43/staff,1["hello"]'
            await both.do("emit", "told", namespace="/staff", room="user:ann")
            assert await within(client.receive()) == '42/staff,["told"]'
            await client.send("41/staff,")
        await until(lambda: ("disconnect", "ann") in seen)
        async with session(url, transport) as client:
            await client.send(connect(namespace="/staff", sub="eve", scope="staff"))
            assert await said(client) == ["44/staff," + compact(CLOSED)]
        async with session(url, transport) as client:
            await client.send(connect(namespace="/staff"))
            assert await said(client) == ["44/staff," + compact(refusals.SCOPE)]
    assert seen == [("connect", "ann"), ("disconnect", "ann"), ("connect", "eve")]


@pytest.mark.parametrize("always_connect", [False, True])
async def test_a_connect_handler_that_returns_false_refuses(
    threaded: bool, transport: str, always_connect: bool
) -> None:
    both = Both(threaded=threaded, always_connect=always_connect)
    both.on("connect", lambda sid, environ, auth: False)
    async with both.serve() as url, session(url, transport) as client:
        await client.send(connect())
        assert await said(client) == ["44" + compact(NEWCOMER)]
        await until(lambda: not both.members())


async def test_who_was_refused_leaves_no_identity_behind(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    came: list[tuple[str, str]] = []

    def refuses(sid: str, environ: Any, auth: Any) -> bool:
        came.append((sid, both.gate.principal(sid).subject))
        return False

    both.on("connect", refuses)
    async with both.serve() as url, session(url, transport) as client:
        await client.send(connect())
        assert await said(client) == ["44" + compact(NEWCOMER)]
        ((sid, subject),) = came
        assert subject == "ann"
        await until(lambda: sid not in both.gate._glue.sockets)
        with pytest.raises(NotAuthenticated):
            both.gate.principal(sid)


@pytest.mark.parametrize("always_connect", [False, True])
async def test_a_connect_handler_that_raises_refuses_with_what_it_says(
    threaded: bool, transport: str, always_connect: bool
) -> None:
    both = Both(threaded=threaded, always_connect=always_connect)

    def closed(sid: str, environ: Any, auth: Any) -> None:
        raise socketio.exceptions.ConnectionRefusedError("closed", {"code": "closed"})

    both.on("connect", closed)
    async with both.serve() as url, session(url, transport) as client:
        await client.send(connect())
        assert await said(client) == ["44" + compact(CLOSED)]
        await until(lambda: not both.members())


async def test_a_connect_handler_that_disconnects_its_client_refuses(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    both.on("connect", lambda sid, environ, auth: both.sio.disconnect(sid))
    async with both.serve() as url, session(url, transport) as client:
        await client.send(connect())
        assert await said(client) == ["44" + compact(NEWCOMER)]
        await until(lambda: not both.members())


async def test_a_connect_handler_of_two_arguments_works_where_the_token_is_in_a_header(
    threaded: bool, transport: str
) -> None:
    both = Both(threaded=threaded)
    came: list[str] = []
    both.on("connect", lambda sid, environ: came.append(sid))
    opened = polling if transport == "polling" else websocket
    async with both.serve() as url, opened(url, Authorization=f"Bearer {make_token()}") as client:
        await client.send("40")
        assert await within(client.receive()) == f'40{{"sid":"{came[0]}"}}'


async def test_a_connect_handler_gets_what_the_client_has_sent(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    came: list[Any] = []
    both.on("connect", lambda sid, environ, auth: came.append(auth))
    sent = {"token": make_token(), "room": "news"}
    async with both.serve() as url, session(url, transport) as client:
        await client.send("40" + compact(sent))
        assert str(await within(client.receive())).startswith('40{"sid":')
    assert came == [sent]


async def test_what_a_connect_handler_emits_comes_after_the_answer(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    both.on("connect", lambda sid, environ, auth: both.sio.emit("welcome", {"a": b"\x01"}, to=sid))
    async with both.serve() as url, session(url, transport) as client:
        await enter(client)
        assert await within(client.receive()) == '451-["welcome",{"a":{"_placeholder":true,"num":0}}]'
        assert await within(client.receive()) in (b"\x01", "bAQ==")


async def test_more_than_is_kept_while_it_is_decided_is_a_refusal(threaded: bool) -> None:
    both = Both(threaded=threaded)

    def talks(sid: str, environ: Any, auth: Any) -> Any:
        if threaded:
            for number in range(1001):
                both.sio.emit("news", number, to=sid)
            return None
        return _many(both.sio, sid)

    both.on("connect", talks)
    async with both.serve() as url, session(url, "websocket") as client:
        await client.send(connect())
        assert await said(client) == ["44" + compact(NEWCOMER)]


async def _many(sio: Any, sid: str) -> None:
    for number in range(1001):
        await sio.emit("news", number, to=sid)


async def test_handlers_know_who_it_is_from_connect_to_disconnect(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    seen: list[tuple[str, str]] = []
    for event in ("connect", "message", "disconnect"):
        both.on(event, lambda sid, *args, event=event: seen.append((event, both.gate.principal(sid).subject)))
    async with both.serve() as url, session(url, transport) as client:
        sid = await enter(client)
        await client.send('421["message"]')
        assert await within(client.receive()) == "431[]"
        await client.send("41")
        await until(lambda: len(seen) == 3)
        with pytest.raises(NotAuthenticated):
            await until(lambda: both.gate.principal(sid) is None)
        with pytest.raises(ConfigurationError, match="Give the sid"):
            both.gate.principal()
    assert seen == [("connect", "ann"), ("message", "ann"), ("disconnect", "ann")]


async def test_methods_of_a_namespace_class_can_require_scopes(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    gate = both.gate

    class Asynchronous(socketio.AsyncNamespace):
        @gate.requires("admin")
        async def on_secret(self, sid: str, text: str) -> str:
            return text

    class OnThreads(socketio.Namespace):
        @gate.requires("admin")
        def on_secret(self, sid: str, text: str) -> str:
            return text

    both.sio.register_namespace((OnThreads if threaded else Asynchronous)("/chat"))
    notice = {"event": "secret", "code": "insufficient_scope", "required": ["admin"]}
    async with both.serve() as url, session(url, transport) as client, session(url, transport) as admin:
        await enter(client, "/chat")
        await client.send('42/chat,1["secret","x"]')
        answers = {str(await within(client.receive())) for _ in range(2)}
        assert answers == {
            '42/chat,["forbidden",' + compact(notice) + "]",
            '43/chat,1[{"error":' + compact(notice) + "}]",
        }
        await enter(admin, "/chat", scope="admin")
        await admin.send('42/chat,1["secret","x"]')
        assert await within(admin.receive()) == '43/chat,1["x"]'


async def test_in_flask_nobody_acts_for_another_by_naming_his_id(transport: str) -> None:
    app = flask.Flask("app")
    extension = flask_socketio.SocketIO(app, async_mode="threading")
    gate = protect(extension, make_auth())

    @extension.on("secret")
    @gate.requires("admin")
    def secret(sid: str) -> str:
        return str(gate.principal().subject)

    async with serve_on_threads(app) as url, session(url, transport) as client, session(url, transport) as admin:
        sid = await enter(admin, sub="root", scope="admin")
        await enter(client)
        await client.send(f'421["secret","{sid}"]')
        answers = [str(await within(client.receive())) for _ in range(2)]
        assert any(answer.startswith('431[{"error":') for answer in answers)
        await admin.send(f'421["secret","{sid}"]')
        assert await within(admin.receive()) == '431["root"]'


async def test_the_application_sends_somebody_away(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    gone: list[str] = []
    both.on("disconnect", lambda sid, reason: gone.append(reason))
    async with both.serve() as url, session(url, transport) as client:
        sid = await enter(client)
        await both.do("disconnect", sid)
        assert await within(client.receive()) == "41"
        await until(lambda: not both.members())
    assert gone == ["server disconnect"]


async def test_a_disconnect_handler_that_fails_leaves_nobody_behind(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)

    def fails(sid: str, reason: str) -> None:
        raise RuntimeError("the handler's own")

    both.on("disconnect", fails)
    async with both.serve() as url, session(url, transport) as client:
        sid = await enter(client)
        await both.do("enter_room", sid, "news")
        await client.send("41")
        await until(lambda: not [*both.members(), *both.sio.manager.get_participants("/", "news")])
        await until(lambda: sid not in both.gate._glue.sockets)


async def test_a_disconnect_handler_that_fails_when_the_client_has_gone_leaves_nobody_behind(threaded: bool) -> None:
    both = Both(threaded=threaded)

    def fails(sid: str, reason: str) -> None:
        raise RuntimeError("the handler's own")

    both.on("disconnect", fails)
    async with both.serve() as url:
        async with session(url, "websocket") as client:
            sid = await enter(client)
        glue = both.gate._glue
        await until(lambda: not (glue._sessions or glue.io._core.sessions.table or both.members() or both.sio.environ))
        await until(lambda: sid not in glue.sockets)


@pytest.mark.usefixtures("impatient")
async def test_who_is_thrown_out_and_does_not_fetch_that_is_cut_off(threaded: bool) -> None:
    both = Both(threaded=threaded)
    async with both.serve() as url, session(url, "polling") as client:
        await enter(client)
        assert both.sio.eio.sockets
        await both.revoke(subject="ann")
        await until(lambda: not both.sio.eio.sockets)


async def test_who_has_left_a_namespace_hears_nothing_of_it(threaded: bool, transport: str) -> None:
    """Not even what is sent by the disconnect handler, for which the server still has the client in its rooms."""
    both = Both(threaded=threaded, namespaces=["/", "/other"])
    both.on("disconnect", lambda sid, reason: both.sio.emit("gone", sid))
    async with both.serve() as url, session(url, transport) as client:
        await enter(client)
        await enter(client, "/other")
        await client.send("41")
        await until(lambda: not both.members())
        await both.do("emit", "last", namespace="/other")
        assert await within(client.receive()) == '42/other,["last"]'


async def test_who_asks_again_has_left_before(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    heard: list[tuple[str, str]] = []
    both.on("connect", lambda sid, environ, auth: heard.append(("connect", sid)))
    both.on("disconnect", lambda sid, reason: heard.append(("disconnect", sid)))
    async with both.serve() as url, session(url, transport) as client:
        first = await enter(client)
        second = await enter(client)
        assert both.members() == [second]
    assert heard[:3] == [("connect", first), ("disconnect", first), ("connect", second)]


async def test_who_asks_again_is_let_in_when_the_disconnect_handler_has_ended(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    leaving, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    async def leaves(sid: str, reason: str) -> None:
        leaving.set()
        await asyncio.to_thread(released.wait, 10)

    def leaves_on_a_thread(sid: str, reason: str) -> None:
        loop.call_soon_threadsafe(leaving.set)
        released.wait(10)

    both.sio.on("disconnect", leaves_on_a_thread if threaded else leaves)
    async with both.serve() as url, session(url, transport) as client:
        first = await enter(client)
        await client.send(connect())
        await within(leaving.wait())
        released.set()
        assert str(await within(client.receive())).startswith('40{"sid":')
        assert first not in both.members()


async def test_what_the_application_takes_out_of_the_server_is_not_let_in(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    both.on("connect", lambda sid, environ, auth: both.sio.manager.basic_disconnect(sid, "/"))
    async with both.serve() as url, session(url, transport) as client:
        await client.send(connect())
        assert await said(client) == ["44" + compact(NEWCOMER)]


async def test_what_was_queued_in_a_namespace_that_is_left_is_dropped(threaded: bool) -> None:
    both = Both(threaded=threaded, namespaces=["/", "/other"])
    async with both.serve() as url, session(url, "polling") as client:
        await enter(client)
        sid = await enter(client, "/other")
        await both.do("emit", "queued", {"a": b"1"}, namespace="/other")
        await both.do("emit", "kept", namespace="/")
        await both.do("disconnect", sid, namespace="/other")
        assert [await within(client.receive()) for _ in range(2)] == ['42["kept"]', "41/other,"]


async def test_sessions_rooms_and_calls_work_as_before(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    if threaded:
        both.sio.on("connect", lambda sid, environ, auth: both.sio.save_session(sid, {"name": "Ann"}))
    else:

        @both.sio.event
        async def connect(sid: str, environ: Any, auth: Any) -> None:
            await both.sio.save_session(sid, {"name": "Ann"})

    async with both.serve() as url, session(url, transport) as client:
        sid = await enter(client)
        assert await both.do("get_session", sid) == {"name": "Ann"}
        await both.do("enter_room", sid, "news")
        await both.do("emit", "told", 1, room="news")
        assert await hear(client) == ("told", 1)
        asked = asyncio.create_task(both.do("call", "ask", to=sid, timeout=5))
        question = str(await within(client.receive()))
        assert question.endswith('["ask"]')
        await client.send("43" + question.removeprefix("42").removesuffix('["ask"]') + "[42]")
        assert await within(asked) == 42
        assert set(both.sio.rooms(sid)) == {sid, "user:ann", "news"}


async def test_what_is_no_packet_ends_the_connection(threaded: bool, transport: str) -> None:
    both = Both(threaded=threaded)
    async with both.serve() as url, session(url, transport) as client:
        await enter(client)
        await client.send('4{"event":"echo"}')  # python-engineio parses it.
        await ends(client)
        await until(lambda: not both.members())


async def test_an_address_has_so_many_connections_without_a_verdict(threaded: bool) -> None:
    both = Both(threaded=threaded)
    async with (
        both.serve() as url,
        session(url, "polling") as one,
        session(url, "polling"),
        session(url, "polling"),
        session(url, "polling") as other,
    ):  # The oldest that has asked for nothing makes room.
        await ends(one)
        await enter(other)
