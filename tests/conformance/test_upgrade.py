"""Engine.IO v4: the move of a session from polling to WebSocket."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlencode

import pytest
from websockets.asyncio.client import ClientConnection

from iogate import Server, Socket
from iogate.asgi_types import Message
from tests.conformance.conftest import echo_server
from tests.conformance.wire import (
    WEBSOCKET,
    Polling,
    WebSocket,
    echoes,
    ends,
    enter,
    polling,
    probe,
    raw_websocket,
    refused,
    within,
)
from tests.servers import serve

pytestmark = pytest.mark.usefixtures("ws")

BAD_REQUEST = {"code": 3, "message": "Bad request"}


def target(opened: Polling) -> dict[str, str]:
    """Return the parameters of a WebSocket that asks for this session."""
    return {**WEBSOCKET, "sid": opened.handshake["sid"]}


async def move(connection: ClientConnection) -> WebSocket:
    """Do the three steps of an upgrade, and return the session as it goes on."""
    await probe(connection)
    await connection.send("5")
    return WebSocket(connection)


async def closes(connection: ClientConnection) -> None:
    """Wait until the server has closed the WebSocket."""
    await ends(WebSocket(connection))


async def test_a_session_moves_with_a_probe(url: str) -> None:
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            after = await move(connection)
            await echoes(after)


async def test_a_poll_that_waits_is_released_with_a_noop(url: str) -> None:
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            poll = asyncio.create_task(before.get())
            await probe(connection)
            answer = await within(poll)
            assert (answer.status_code, answer.text) == (200, "6")
            await connection.send("5")
            await echoes(WebSocket(connection))


@pytest.mark.parametrize("said", [b"2probe", b"other!"])
async def test_a_client_that_breaks_off_while_it_moves_is_no_error_of_the_server(
    url: str, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is for somebody whose next frame has broken the WebSocket already."""
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            no_utf_8 = b"\x81\x81" + bytes(4) + b"\xff"
            connection.transport.write(b"\x81\x86" + bytes(4) + said + no_utf_8)
            await closes(connection)
        await skip_noops(before)
    assert "Exception in ASGI application" not in caplog.text


async def test_polling_works_until_the_last_step(url: str) -> None:
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            await probe(connection)
            await before.send('42["echo","during"]')
            while (packet := await within(before.receive())) == "6":
                pass
            assert packet == '42["echo","during"]'
            await connection.send("5")
            await echoes(WebSocket(connection))


async def test_what_was_not_fetched_before_the_upgrade_comes_after_it_in_order(url: str) -> None:
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            await before.send(*(f'42["echo",{number}]' for number in range(50)))
            after = await move(connection)
            await after.send(*(f'42["echo",{number}]' for number in range(50, 100)))
            heard = [await within(after.receive()) for _ in range(100)]
    assert heard == [f'42["echo",{number}]' for number in range(100)]


async def test_a_session_may_enter_its_namespace_after_the_upgrade(url: str) -> None:
    async with polling(url) as before, raw_websocket(url, target(before)) as connection:
        after = await move(connection)
        await enter(after)
        await echoes(after)


async def test_requests_for_a_session_that_has_moved_are_refused_and_harm_nothing(url: str) -> None:
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            after = await move(connection)
            await echoes(after)
            for answer in (await before.get(), await before.post('42["echo"]')):
                assert (answer.status_code, answer.json()) == (400, BAD_REQUEST)
            await echoes(after)


async def test_another_socket_for_a_session_that_has_moved_is_refused_and_harms_nothing(url: str) -> None:
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            after = await move(connection)
            await echoes(after)
            answer = await refused(url, target(before))
            assert (answer.status_code, json.loads(answer.body)) == (400, BAD_REQUEST)
            await echoes(after)


async def test_a_second_socket_during_an_upgrade_is_refused_and_the_first_goes_on(url: str) -> None:
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            await probe(connection)
            answer = await refused(url, target(before))
            assert (answer.status_code, json.loads(answer.body)) == (400, BAD_REQUEST)
            await connection.send("5")
            await echoes(WebSocket(connection))


class SlowSocket:
    """A WebSocket on an ASGI server that takes its time to accept one."""

    def __init__(self, *frames: str) -> None:
        self.heard: list[str] = []
        self._said: list[Message] = [{"type": "websocket.connect"}]
        self._said += [{"type": "websocket.receive", "text": frame} for frame in frames]
        self._said.append({"type": "websocket.disconnect", "code": 1001})

    async def receive(self) -> Message:
        return self._said.pop(0)

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)
        self.heard.append(message.get("text") or message["type"])


async def test_of_two_sockets_that_are_accepted_at_once_one_takes_the_session(io: Server, url: str) -> None:
    """An ASGI server may take the other request in before it has sent the answer to the first."""
    async with polling(url) as before:
        await enter(before)
        scope = {
            "type": "websocket",
            "scheme": "ws",
            "path": "/socket.io/",
            "root_path": "",
            "query_string": urlencode(target(before)).encode(),
            "headers": [(b"host", b"chat.example")],
            "client": ("192.0.2.1", 1),
        }
        sockets = [SlowSocket("2probe", "5"), SlowSocket("2probe", "5")]
        await asyncio.gather(*(io.asgi()(dict(scope), socket.receive, socket.send) for socket in sockets))
        assert sorted(socket.heard[:2] for socket in sockets) == [
            ["websocket.accept", "3probe"],
            ["websocket.accept", "websocket.close"],
        ]


@pytest.mark.parametrize("frame", ["", "2", "2prob", "3probe", "5", '42["echo"]', "1", b"2probe"], ids=repr)
async def test_an_upgrade_that_begins_wrongly_fails_and_polling_goes_on(url: str, frame: str | bytes) -> None:
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            await connection.send(frame)
            await closes(connection)
        await skip_noops(before)


@pytest.mark.parametrize("frame", ["2probe", "2", '42["echo"]', b"5"], ids=repr)
async def test_an_upgrade_that_ends_wrongly_fails_and_polling_goes_on(url: str, frame: str | bytes) -> None:
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            await probe(connection)
            await connection.send(frame)
            await closes(connection)
        await skip_noops(before)


async def test_nothing_is_heard_on_a_socket_whose_upgrade_has_failed(url: str) -> None:
    """Also if a right probe was sent together with the wrong one, before the server closed the socket."""
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            frames = (b"\x81%c\0\0\0\0%b" % (0x80 | len(data), data) for data in (b"wrong", b"2probe", b"5"))
            connection.transport.write(b"".join(frames))
            await closes(connection)
        await skip_noops(before)


@pytest.mark.parametrize("frame", ["wrong", "2probe"])
async def test_what_waits_for_a_poll_stays_there_when_an_upgrade_fails(io: Server, url: str, frame: str) -> None:
    async with polling(url) as before:
        await enter(before)
        io.emit("news")
        async with raw_websocket(url, target(before)) as connection:
            await connection.send(frame)
            await connection.send("wrong")
            await closes(connection)
        assert await within(before.receive()) == '42["news"]'


async def test_an_upgrade_does_not_wait_for_handlers(io: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is read from a client with too many running handlers, but its session may move."""
    monkeypatch.setattr("iogate.server.session.session.MAX_RUNNING", 1)
    asked, end = asyncio.Event(), asyncio.Event()

    @io.on("wait")
    async def wait(_: Socket) -> None:
        asked.set()
        await end.wait()

    async with polling(url) as before:
        await enter(before)
        posted = asyncio.create_task(before.send('42["wait"]'))
        await within(asked.wait())
        async with raw_websocket(url, target(before)) as connection:
            after = await move(connection)
            end.set()
            await posted
            await echoes(after)


@pytest.mark.parametrize("probed", [False, True])
async def test_a_socket_that_goes_away_during_an_upgrade_leaves_polling_working(url: str, probed: bool) -> None:
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            if probed:
                await probe(connection)
        await skip_noops(before)
        # And it may try again.
        async with raw_websocket(url, target(before)) as connection:
            await echoes(await move(connection))


async def test_a_session_that_ends_takes_the_socket_of_an_unfinished_upgrade_with_it(url: str) -> None:
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            await before.send("1")
            await closes(connection)


async def test_a_session_that_ends_while_its_client_moves_sends_the_rest_on_the_socket(io: Server, url: str) -> None:
    """The client polls no longer once its probe was answered."""
    async with polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            await probe(connection)
            io.emit("bye")
            io.disconnect_sockets(close=True)
            await connection.send("5")
            after = WebSocket(connection)
            assert [await within(after.receive()) for _ in range(2)] == ['42["bye"]', "41"]
            await closes(connection)


async def test_an_upgrade_that_stops_half_way_is_ended_in_time() -> None:
    async with serve(echo_server(ping_interval=0.2, ping_timeout=0.2)) as url, polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            await probe(connection)
            # Nobody polls and nobody answers the pings any more.
            await closes(connection)


async def test_heartbeats_go_on_after_the_upgrade() -> None:
    async with serve(echo_server(ping_interval=0.2, ping_timeout=0.2)) as url, polling(url) as before:
        await enter(before)
        async with raw_websocket(url, target(before)) as connection:
            after = await move(connection)
            for _ in range(3):
                assert await within(after.receive_any()) == "2"
                await after.send("3")
            await echoes(after)
            await ends(after)


async def skip_noops(opened: Polling) -> None:
    """Make sure that polling is served, whatever noops the failed upgrade left behind."""
    await opened.send('42["echo","polling"]')
    while (packet := await within(opened.receive())) == "6":
        pass
    assert packet == '42["echo","polling"]'
