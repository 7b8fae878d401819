"""Functions of the application that hang: the client goes on without them, and ignores what they give later."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import socketio

from iogate.client import AsyncClient, Reason
from iogate.client.calls import MAX_THREADS
from tests.client.peers import FOREVER, WITHIN, Kind, Source, client, world
from tests.client.test_clients import lose

SHORT = 0.1  # seconds for a function that never returns


class Hanging:
    """A source of tokens that hangs the first times it is asked for a reason, until `release` is called."""

    def __init__(self, source: Source, kind: Kind, **times: int) -> None:
        self.source = source
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.late = asyncio.Event()
        self._kind = kind
        self._left = Counter(times)
        self._loop = asyncio.get_running_loop()
        self._released = threading.Event()
        self._released_here = asyncio.Event()

    def __call__(self, reason: Reason) -> Any:
        token = self.source(reason)
        hangs = self._left[reason] > 0
        self._left[reason] -= 1
        self._loop.call_soon_threadsafe(self.asked.put_nowait, reason)
        if self._kind == "asyncio":
            return self._later(token, hangs)
        if hangs:
            self._released.wait()
            self._loop.call_soon_threadsafe(self.late.set)
        return token

    async def _later(self, token: str | None, hangs: bool) -> str | None:
        while hangs and not self._released_here.is_set():
            try:
                await self._released_here.wait()
            except asyncio.CancelledError:
                continue  # The worst of applications.
        if hangs:
            self.late.set()
        return token

    async def release(self) -> None:
        """Let the calls that hang return, and wait until one has."""
        self._released.set()
        self._released_here.set()
        async with asyncio.timeout(WITHIN):
            await self.late.wait()

    async def is_asked(self, reason: str) -> None:
        async with asyncio.timeout(WITHIN):
            while await self.asked.get() != reason:
                pass


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """A thread that was abandoned has ended when its function has returned."""
    yield
    for thread in threading.enumerate():
        if "Calls" in repr(getattr(thread, "_target", "")):
            thread.join(WITHIN)
            assert not thread.is_alive()


async def test_a_connect_whose_get_token_hangs_fails(kind: Kind) -> None:
    """It fails within `token_timeout`, and the error says why."""
    async with world() as place:
        hanging = Hanging(Source(place.tokens), kind, connect=1)
        async with client(kind, hanging, token_timeout=SHORT) as peer:
            with pytest.raises(socketio.exceptions.ConnectionError, match=r"get_token did not return within 0\.1 s"):
                await peer.do("connect", place.url)
            await peer.do("connect", place.url)
            assert await peer.do("call", "whoami") == "alice"
            await hanging.release()


async def test_a_patient_connect_asks_again(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """The client asks again after a delay, for the same reason, and logs why."""
    async with world() as place:
        hanging = Hanging(Source(place.tokens), kind, connect=2)
        async with client(kind, hanging, token_timeout=SHORT) as peer:
            await peer.do("connect", place.url, retry=True)
            assert await peer.do("call", "whoami") == "alice"
            assert hanging.source.reasons == ["connect"] * 3
            assert "get_token('connect') failed: get_token did not return within 0.1 s" in caplog.text
            await hanging.release()


async def test_a_refresh_that_hangs_is_tried_again_on_the_live_connection(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is not interrupted."""
    async with world() as place:
        hanging = Hanging(Source(place.tokens), kind, expiring=1)
        async with client(kind, hanging, token_timeout=SHORT) as peer:
            await peer.do("connect", place.url)
            await place.until_next()
            await peer.hear("token_refreshed")
            assert hanging.source.reasons == ["connect", "expiring", "expiring"]
            assert peer.count("disconnect") == 0
            assert "get_token('expiring') failed: get_token did not return within 0.1 s" in caplog.text
            await hanging.release()


async def test_a_refresh_that_hangs_beyond_the_end_of_the_token_does_not_keep_the_client_out(kind: Kind) -> None:
    """The refresh ends with its connection. The client comes back when the open request has had its time."""
    async with world() as place:
        hanging = Hanging(Source(place.tokens), kind, expiring=1)
        async with client(kind, hanging, token_timeout=0.5) as peer:
            await peer.do("connect", place.url)
            await peer.hear("connect")
            await place.until_next()
            await hanging.is_asked("expiring")
            await place.until_next()
            await peer.hear("connect")
            assert await peer.do("call", "whoami") == "alice"
            assert hanging.source.reasons == ["connect", "expiring", "expired"]
            await hanging.release()


async def test_a_refresh_ends_with_its_connection(kind: Kind) -> None:
    """Also while it waits before another attempt: neither a task nor a thread is left of it."""
    async with world() as place:
        source = Source(place.tokens)
        source.answers["expiring"] = [LookupError("down")]
        options = {"reconnection_delay": FOREVER, "reconnection_delay_max": FOREVER}
        async with client(kind, source, **options) as peer:
            await peer.do("connect", place.url)
            await peer.hear("connect")
            await place.until_next()
            await peer.hear("token_refresh_failed")
            await place.until_next()
            await peer.hear("connect")
            assert source.reasons == ["connect", "expiring", "expired"]
            assert not [task for task in asyncio.all_tasks() if "._refresh" in repr(task.get_coro())]
            for thread in threading.enumerate():
                if "._refresh" in repr(getattr(thread, "_target", "")):
                    await asyncio.to_thread(thread.join, WITHIN)
                    assert not thread.is_alive()


async def test_a_reconnect_whose_get_token_hangs_asks_again(kind: Kind) -> None:
    """A lost connection is made again although the first call never returns."""
    async with world() as place:
        hanging = Hanging(Source(place.tokens), kind, reconnect=1)
        async with client(kind, hanging, token_timeout=SHORT) as peer:
            await peer.do("connect", place.url)
            await peer.hear("connect")
            lose(place.io)
            await peer.hear("connect")
            assert hanging.source.reasons == ["connect", "reconnect", "reconnect"]
            await hanging.release()


@pytest.mark.parametrize("reason", ["connect", "expiring", "reconnect", "login"])
async def test_disconnect_does_not_wait_for_get_token_and_the_next_connect_neither(kind: Kind, reason: Reason) -> None:
    """What the call returns later is ignored: the next user is connected with the next user's token."""
    async with world() as place:
        source = Source(place.tokens)
        hanging = Hanging(source, kind, **{reason: 1})
        source.claims = {"sub": "first"}
        async with client(kind, hanging) as peer:
            if reason == "login":
                source.answers["connect"] = [place.tokens.wrong_key()]
            connecting = asyncio.create_task(peer.do("connect", place.url))
            if reason in {"expiring", "reconnect"}:
                await connecting
                await peer.hear("connect")
                lose(place.io) if reason == "reconnect" else await place.until_next()
            await hanging.is_asked(reason)
            await peer.do("disconnect")
            if reason in {"connect", "login"}:
                with pytest.raises(socketio.exceptions.ConnectionError, match="Disconnected"):
                    await connecting
            source.claims = {"sub": "second"}
            await peer.do("connect", place.url)
            assert await peer.do("call", "whoami") == "second"
            await hanging.release()
            await place.until_next()
            await peer.hear("token_refreshed")
            assert await peer.do("call", "whoami") == "second"
            assert len(place.io._core.sessions.table) == 1


async def test_disconnect_cancels_get_token() -> None:
    """Also the one for "login", which has no limit: nothing goes on for a user who has left."""
    async with world() as place:
        cancelled, asked = asyncio.Event(), asyncio.Event()

        async def get_token(reason: str) -> str:
            if reason == "connect":
                return place.tokens.wrong_key()
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        async with client("asyncio", get_token) as peer:
            connecting = asyncio.create_task(peer.do("connect", place.url))
            async with asyncio.timeout(WITHIN):
                await asked.wait()
            await peer.do("disconnect")
            with pytest.raises(socketio.exceptions.ConnectionError, match="Disconnected"):
                await connecting
            async with asyncio.timeout(WITHIN):
                await cancelled.wait()


async def test_a_person_may_take_any_time(kind: Kind) -> None:
    """`token_timeout` does not apply to "login"."""
    async with world() as place:
        source = Source(place.tokens)
        source.answers["connect"] = [place.tokens.wrong_key()]
        hanging = Hanging(source, kind, login=1)
        async with client(kind, hanging, token_timeout=SHORT) as peer:
            connecting = asyncio.create_task(peer.do("connect", place.url))
            await hanging.is_asked("login")
            await asyncio.wait({connecting}, timeout=3 * SHORT)
            await hanging.release()
            await connecting
            assert source.reasons == ["connect", "login"]


@pytest.mark.parametrize("name", ["url", "headers", "auth"])
async def test_other_functions_of_the_application_have_the_same_limit(kind: Kind, name: str) -> None:
    """A client with a hanging function for its URL, headers or `auth` can be stopped and used again."""
    async with world() as place, client(kind, Source(place.tokens), token_timeout=SHORT) as peer:
        released = threading.Event()

        async def hang() -> None:
            await asyncio.Event().wait()

        function: Any = hang if kind == "asyncio" else released.wait
        arguments: dict[str, Any] = {"url": place.url, name: function}
        with pytest.raises(socketio.exceptions.ConnectionError, match=f"the function for {name} did not return"):
            await peer.do("connect", **arguments)
        released.set()
        values: dict[str, Any] = {"url": place.url, "headers": {}, "auth": {}}
        await peer.do("connect", **{"url": place.url, name: lambda: values[name]})
        assert await peer.do("call", "whoami") == "alice"


async def test_abandoned_threads_are_limited() -> None:
    """A `get_token` that always hangs costs a limited number of threads; it is called again when one has returned."""
    async with world() as place:
        hanging = Hanging(Source(place.tokens), "threads", connect=MAX_THREADS)
        before = threading.active_count()
        async with client("threads", hanging, token_timeout=0.01) as peer:
            for _ in range(MAX_THREADS):
                with pytest.raises(socketio.exceptions.ConnectionError, match="did not return"):
                    await peer.do("connect", place.url)
            for _ in range(3):
                with pytest.raises(socketio.exceptions.ConnectionError, match="10 calls before it have not returned"):
                    await peer.do("connect", place.url)
            assert hanging.source.reasons == ["connect"] * MAX_THREADS
            calls = [thread for thread in threading.enumerate() if "Calls" in repr(getattr(thread, "_target", ""))]
            assert len(calls) == MAX_THREADS
            await hanging.release()
            for thread in calls:
                await asyncio.to_thread(thread.join, WITHIN)
            peer.client._token_timeout = WITHIN
            await peer.do("connect", place.url)
        assert threading.active_count() <= before + MAX_THREADS


async def test_a_get_token_that_is_cancelled_by_somebody_else_is_a_failure() -> None:
    """It does not cancel whoever connects."""
    async with world() as place:

        async def get_token(reason: str) -> str:
            raise asyncio.CancelledError

        async with client("asyncio", get_token) as peer:
            with pytest.raises(socketio.exceptions.ConnectionError, match="get_token was cancelled"):
                await peer.do("connect", place.url)


async def test_system_exit_in_get_token_reaches_whoever_connects() -> None:
    """Although it is raised in another thread."""
    async with world() as place:

        def get_token(reason: str) -> str:
            raise SystemExit(3)

        async with client("threads", get_token) as peer:
            caught: list[BaseException] = []

            def connect() -> None:
                try:
                    peer.client.connect(place.url)
                except BaseException as error:
                    caught.append(error)

            thread = threading.Thread(target=connect)
            thread.start()
            await asyncio.to_thread(thread.join, WITHIN)
            assert [type(error) for error in caught] == [SystemExit]


async def test_handlers_do_not_delay_a_refresh(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """The refresh goes on while a handler of `token_refresh_failed` hangs, or after it raised."""
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.answers["expiring"] = [LookupError("down"), LookupError("down")]
        released, released_here = threading.Event(), asyncio.Event()
        failures = 0

        def fail() -> None:
            nonlocal failures
            failures += 1
            if failures == 2:
                raise LookupError("a mistake of the application")

        async def hang(refusal: object) -> None:
            fail()
            await released_here.wait()

        def hang_in_thread(refusal: object) -> None:
            fail()
            released.wait()

        peer.client.on("token_refresh_failed", hang if isinstance(peer.client, AsyncClient) else hang_in_thread)
        await peer.do("connect", place.url)
        await place.until_next()
        await peer.hear("token_refreshed")
        assert failures == 2
        assert "the handler of 'token_refresh_failed' raised" in caplog.text
        released.set()
        released_here.set()


async def test_a_handler_of_login_required_may_connect_again(kind: Kind) -> None:
    """The client has stopped when it is called."""
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        source.answers["connect"] = [place.tokens.wrong_key()]
        source.answers["login"] = [None]
        done = asyncio.Event()

        async def connect() -> None:
            await peer.do("connect", place.url)
            done.set()

        async def sign_in(refusal: object) -> None:
            await connect()

        loop = asyncio.get_running_loop()

        def sign_in_on_thread(refusal: object) -> None:
            asyncio.run_coroutine_threadsafe(connect(), loop).result(WITHIN)

        peer.client.on("login_required", sign_in if isinstance(peer.client, AsyncClient) else sign_in_on_thread)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await peer.do("connect", place.url)
        async with asyncio.timeout(WITHIN):
            await done.wait()
        assert await peer.do("call", "whoami") == "alice"
