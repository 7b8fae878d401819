"""After `disconnect()` the next user starts afresh: nothing of the user before is sent, used or kept."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
import socketio

from iogate import Server, Socket
from iogate.client import AsyncClient, Client
from tests.client.peers import FOREVER, WITHIN, Kind, Source, client, world
from tests.client.test_clients import lose

NAMESPACES = ["/", "/admin", "/news"]


def record(io: Server) -> list[tuple[str, str, Any]]:
    """Return a list of what the server's handlers get from now on: the subject, the event, the data."""
    got: list[tuple[str, str, Any]] = []
    for name in NAMESPACES:
        namespace = io.of(name)

        @namespace.use
        def enters(socket: Socket, name: str = name) -> None:
            got.append((socket.principal.subject if socket.authenticated else "nobody", "connect", name))

        @namespace.on("note")
        def noted(socket: Socket, data: Any, name: str = name) -> None:
            got.append((socket.principal.subject, "note", data))

        if name != "/":
            namespace.on("whoami")(lambda socket: socket.principal.subject)
    return got


@pytest.mark.parametrize("in_band", [False, True])
async def test_the_next_user_is_the_one_on_all_namespaces(kind: Kind, how: list[str], in_band: bool) -> None:
    """Also right after events, and a login in band, that nobody has acknowledged."""
    async with world(auth={"authenticate_within": 15} if in_band else None) as place:
        got = record(place.io)
        source = Source(place.tokens)
        async with client(kind, source, in_band=in_band) as peer:
            for sub in ("first", "second", "third"):
                source.claims = {"sub": sub}
                await peer.do("connect", place.url, transports=how, namespaces=NAMESPACES)
                for name in NAMESPACES:
                    assert await peer.do("call", "whoami", namespace=name) == sub
                    await peer.do("emit", "note", sub, namespace=name, callback=lambda *args: None)
                await peer.do("disconnect")
        assert source.reasons == ["connect"] * 3
        assert {(subject, data) for subject, event, data in got if event == "note"} <= {
            (sub, sub) for sub in ("first", "second", "third")
        }
        assert [subject for subject, event, _ in got if event == "connect"] == [
            sub for sub in ("first", "second", "third") for _ in NAMESPACES
        ]


@pytest.mark.parametrize("moment", ["lost", "refreshing", "authenticating", "expired"])
async def test_whatever_the_first_user_was_in_the_middle_of_is_over(kind: Kind, how: list[str], moment: str) -> None:
    """A delay before a reconnect or a refresh, or an `authenticate` that waits for its answer."""
    async with world() as place:
        source = Source(place.tokens)
        source.claims = {"sub": "first"}
        options: dict[str, Any] = {"reconnection_delay": FOREVER, "reconnection_delay_max": FOREVER}
        asked = asyncio.Event()
        loads = 0

        @place.auth.load_user
        async def load_user(claims: Any) -> str:
            nonlocal loads
            loads += 1
            if moment == "authenticating" and loads == 2:
                asked.set()
                await asyncio.Event().wait()
            return str(claims["sub"])

        async with client(kind, source, **options) as peer:
            await peer.do("connect", place.url, transports=how)
            await peer.hear("connect")
            if moment == "lost":
                lose(place.io)
                await peer.hear("disconnect")
            else:
                if moment != "authenticating":
                    source.answers = {"expiring": [LookupError("down")], "expired": [LookupError("down")]}
                await place.until_next()
                if moment == "authenticating":
                    async with asyncio.timeout(WITHIN):
                        await asked.wait()
                else:
                    await peer.hear("token_refresh_failed")
                if moment == "expired":
                    await place.until_next()
                    await peer.hear("disconnect")
            await peer.do("disconnect")
            source.answers.clear()
            source.claims = {"sub": "second"}
            await peer.do("connect", place.url, transports=how)
            assert await peer.do("call", "whoami") == "second"
            await place.until_next()
            await peer.hear("token_refreshed")
            assert await peer.do("call", "whoami") == "second"
            assert [socket.principal.subject for socket in place.io.of("/").sockets.values()] == ["second"]


async def test_nothing_of_a_user_is_kept_after_the_sign_out(kind: Kind, how: list[str]) -> None:
    """Neither the token nor what was given to `connect()`: they are not in memory any more, wherever one looks."""
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        token = place.tokens.good()
        source.answers["connect"] = [token]
        headers, auth = {"X-Who": "the first user"}, {"who": "the first user"}
        await peer.do("connect", place.url, headers, auth, transports=how)
        await peer.do("disconnect")
        assert not keeps(peer.client, token)
        assert not keeps(peer.client, "the first user")


def keeps(client: AsyncClient | Client, text: str) -> bool:
    """Return True if a text can be reached from a client, or from its Engine.IO client."""
    seen: set[int] = set()
    todo: list[Any] = [vars(client), vars(client.eio)]
    while todo:
        found = todo.pop()
        if isinstance(found, str) and found == text:
            return True
        if id(found) in seen or type(found).__module__.partition(".")[0] in {
            "tests",
            "asyncio",
            "logging",
            "threading",
        }:
            continue
        seen.add(id(found))
        if not isinstance(found, type) and type(found).__name__ != "module":
            todo += gc.get_referents(found) if not callable(found) else list(getattr(found, "__closure__", None) or ())
    return False


async def test_a_packet_that_is_read_late_concerns_nobody() -> None:
    """On threads each packet is read on one of its own, which may be late: the next user does not get it."""
    async with world() as place, client("threads", source := Source(place.tokens)) as peer:
        place.io.on("note")(lambda socket: socket.emit("note", socket.principal.subject))
        peer.listen("note")
        engine: Any = peer.client.eio
        late: list[threading.Thread] = []
        go_on, caught = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        start = engine.start_background_task

        def start_late(target: Any, *args: Any, **options: Any) -> Any:
            if args and isinstance(args[0], str) and "note" in args[0]:

                def wait() -> None:
                    go_on.wait(WITHIN)
                    target(*args, **options)

                late.append(start(wait))
                loop.call_soon_threadsafe(caught.set)
                return late[-1]
            return start(target, *args, **options)

        source.claims = {"sub": "first"}
        await peer.do("connect", place.url)
        engine.start_background_task = start_late
        await peer.do("emit", "note")
        async with asyncio.timeout(WITHIN):
            await caught.wait()
        engine.start_background_task = start
        await peer.do("disconnect")
        source.claims = {"sub": "second"}
        await peer.do("connect", place.url)
        go_on.set()
        await asyncio.to_thread(late[0].join, WITHIN)
        await peer.do("emit", "note")
        assert await peer.hear("note") == ("second",)
        assert peer.count("note") == 1


async def test_a_client_that_was_stopped_sends_no_token(how: list[str]) -> None:
    """On threads an attempt cannot be interrupted: when its transport opens after `disconnect()`, it sends nothing."""
    async with world(auth={"guests": True}) as place, client("threads", Source(place.tokens)) as peer:
        got: list[str] = []

        @place.io.use
        def enters(socket: Socket) -> None:
            got.append("connect")

        engine: Any = peer.client.eio
        connect = engine.connect
        reached, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def connect_late(*args: Any, **options: Any) -> None:
            loop.call_soon_threadsafe(reached.set)
            go_on.wait(WITHIN)
            connect(*args, **options)

        engine.connect = connect_late
        connecting = asyncio.create_task(peer.do("connect", place.url, transports=how, wait_timeout=0.1))
        async with asyncio.timeout(WITHIN):
            await reached.wait()
        await peer.do("disconnect")
        with pytest.raises(socketio.exceptions.ConnectionError, match="the attempt before has not ended"):
            await peer.do("connect", place.url, transports=how, wait_timeout=0.1)
        go_on.set()
        with pytest.raises(socketio.exceptions.ConnectionError, match="Disconnected"):
            await connecting
        assert got == []
        engine.connect = connect
        await peer.do("connect", place.url, transports=how)
        assert got == ["connect"]


# One request for a token at a time.


@pytest.mark.parametrize("answers", ["in time", "with the old token"])
async def test_a_reconnect_shares_the_request_of_a_refresh(kind: Kind, answers: str) -> None:
    """Two at a time would use up a rotating refresh token twice. If the answer is no good, it asks again."""
    async with world() as place:
        source = Source(place.tokens)
        first = place.tokens.good()
        source.answers["connect"] = [first]
        if answers == "with the old token":
            source.answers["expiring"] = [first]
        asked: asyncio.Queue[str] = asyncio.Queue()
        answer, answer_here = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        at_a_time = most = 0

        def begin(reason: Any) -> str | None:
            nonlocal at_a_time, most
            at_a_time += 1
            most = max(most, at_a_time)
            loop.call_soon_threadsafe(asked.put_nowait, reason)
            return source(reason)

        async def get_token(reason: Any) -> str | None:
            nonlocal at_a_time
            token = begin(reason)
            if reason == "expiring":
                await answer_here.wait()
            at_a_time -= 1
            return token

        def get_token_on_thread(reason: Any) -> str | None:
            nonlocal at_a_time
            token = begin(reason)
            if reason == "expiring":
                answer.wait(WITHIN)
            at_a_time -= 1
            return token

        async with client(kind, get_token if kind == "asyncio" else get_token_on_thread) as peer:
            await peer.do("connect", place.url, namespaces=NAMESPACES[:1])
            await peer.hear("connect")
            await place.until_next()
            while await asked.get() != "expiring":
                pass
            await place.until_next()
            await peer.hear("disconnect")
            answer.set()
            answer_here.set()
            await peer.hear("connect")
            assert await peer.do("call", "whoami") == "alice"
        assert most == 1
        assert source.reasons[:2] == ["connect", "expiring"]
        if answers == "with the old token":
            assert set(source.reasons[2:]) == {"expired"}
        elif kind == "asyncio":  # On threads the answer may come before the reconnect needs one.
            assert source.reasons[2:] == []


async def test_a_login_is_asked_for_by_itself(kind: Kind) -> None:
    """The token of the session that was revoked is not taken for the answer of the person."""
    async with world() as place:
        source = Source(place.tokens)
        source.answers["connect"] = [place.tokens.good(jti="stolen")]
        source.answers["expiring"] = [place.tokens.good(jti="stolen", iat=place.clock.wall())]
        asked, answer, answer_here = asyncio.Event(), threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        async def get_token(reason: Any) -> str | None:
            token = source(reason)
            if reason == "expiring":
                asked.set()
                await answer_here.wait()
            return token

        def get_token_on_thread(reason: Any) -> str | None:
            token = source(reason)
            if reason == "expiring":
                loop.call_soon_threadsafe(asked.set)
                answer.wait(WITHIN)
            return token

        async with client(kind, get_token if kind == "asyncio" else get_token_on_thread) as peer:
            subject: Any = peer.client
            ask, asked_the_person = subject._ask, asyncio.Event()

            def ask_and_say(run: Any, reason: str, *args: Any) -> Any:
                if reason == "login":
                    loop.call_soon_threadsafe(asked_the_person.set)
                return ask(run, reason, *args)

            subject._ask = ask_and_say
            await peer.do("connect", place.url)
            await peer.hear("connect")
            await place.until_next()
            async with asyncio.timeout(WITHIN):
                await asked.wait()
            await place.io.revoke(token_id="stolen")
            async with asyncio.timeout(WITHIN):
                await asked_the_person.wait()
            assert source.reasons == ["connect", "expiring"], "one request at a time"
            answer.set()
            answer_here.set()
            await peer.hear("connect")
            assert await peer.do("call", "whoami") == "alice"
            assert source.reasons == ["connect", "expiring", "login"]
