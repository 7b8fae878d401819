"""What the gate cannot be put in front of is refused, and the message says what to do."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from pathlib import Path
from typing import Any

import engineio.async_socket
import engineio.socket
import flask
import flask_socketio
import httpx
import pytest
import socketio
from engineio.packet import CLOSE

from iogate import ConfigurationError, Cookie, Server, SQLiteRevocations
from iogate.integrations import layout, protect
from iogate.integrations.engine import EngineTransport, kept, namespace_of
from iogate.server.session.reasons import CloseReason
from tests.conformance.wire import POLLING, enter, session, within
from tests.gate.houses import serve_on_threads
from tests.gate.support import make_auth
from tests.server.left import until


class Odd(socketio.AsyncServer):
    """A server that lets clients in in a way of its own."""

    async def _handle_connect(self, eio_sid: str, namespace: str, data: Any, extra: Any = None) -> None: ...


def _connected() -> Any:
    sio = socketio.AsyncServer(async_mode="asgi")
    sio.eio.sockets["x"] = object()
    return sio


def _protected() -> Any:
    sio = socketio.AsyncServer(async_mode="asgi")
    protect(sio, make_auth())
    return sio


def _in_another_form() -> Any:
    return socketio.AsyncServer(async_mode="asgi", serializer="msgpack")


def _on_another_engine() -> Any:
    sio = socketio.AsyncServer(async_mode="asgi")
    sio.eio._async = {**sio.eio._async, "translate_request": None}
    return sio


def _other_mode() -> Any:
    sio = socketio.Server(async_mode="threading")
    sio.async_mode = "gevent"
    return sio


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: object(), "protect takes a socketio.AsyncServer"),
        (lambda: flask_socketio.SocketIO(async_mode="threading"), "after init_app"),
        (lambda: Odd(async_mode="asgi"), "_handle_connect of this Odd are not"),
        (_connected, "before it serves"),
        (_protected, "protected already"),
        (_other_mode, 'async_mode="threading"'),
        (_in_another_form, "leave out serializer="),
        (_on_another_engine, "translate_request of this AsyncServer"),
    ],
)
def test_a_server_that_cannot_be_protected_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        protect(make(), make_auth())


@pytest.mark.parametrize("name", ["poll", "receive", "close", "handle_get_request", "_websocket_handler"])
@pytest.mark.parametrize("threaded", [False, True])
def test_sockets_of_python_engineio_that_are_not_what_they_were_are_refused(
    name: str, threaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = engineio.socket.Socket if threaded else engineio.async_socket.AsyncSocket
    monkeypatch.setattr(kind, name, lambda: None)
    sio = socketio.Server(async_mode="threading") if threaded else socketio.AsyncServer(async_mode="asgi")
    with pytest.raises(ConfigurationError, match=f"{name} of this"):
        protect(sio, make_auth())


@pytest.mark.parametrize("found", ["5.15.1", "5.19.0", "6.0", "5.160.1"])
def test_a_version_whose_inside_is_not_known_is_refused(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "version", lambda name: found)
    with pytest.raises(ConfigurationError, match=f"python-socketio {found} is not one of the versions"):
        protect(socketio.AsyncServer(async_mode="asgi"), make_auth())


@pytest.mark.parametrize("auth", [None, "a secret", Server(auth=make_auth())])
def test_there_is_no_protection_without_auth(auth: Any) -> None:
    with pytest.raises(ConfigurationError, match="auth is JWTAuth"):
        protect(socketio.AsyncServer(async_mode="asgi"), auth)


@pytest.mark.parametrize("scopes", ["staff", ["staff"]])
def test_scopes_are_those_of_namespaces(scopes: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'scopes=\{"/staff": "staff"\}'):
        protect(socketio.AsyncServer(async_mode="asgi"), make_auth(), scopes=scopes)


async def test_another_application_of_flask_socketio_lets_nobody_in_before_it_is_protected() -> None:
    extension, ran = flask_socketio.SocketIO(async_mode="threading"), []
    extension.on_event("message", lambda text: ran.append(text))
    extension.init_app(flask.Flask("one"))
    protect(extension, make_auth())
    app = flask.Flask("two")
    extension.init_app(app)
    async with serve_on_threads(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert (await http.get("/socket.io/", params=POLLING)).status_code == 401
    protect(extension, make_auth())
    async with serve_on_threads(app) as url, session(url, "polling") as client:
        await enter(client)
        await client.send('42["message","hello"]')
        await until(lambda: ran == ["hello"])


def test_a_store_that_cannot_be_read_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        protect(socketio.AsyncServer(async_mode="asgi"), make_auth(), revocations=SQLiteRevocations(tmp_path))


ANY_PAGE = ["*", [], ["*"], ["https://app.example", "*"], lambda origin: True]


@pytest.mark.parametrize("origins", [None, *ANY_PAGE])
def test_with_a_cookie_the_pages_that_may_connect_are_listed(origins: Any) -> None:
    auth = make_auth(sources=(Cookie("__Host-token"),))
    with pytest.raises(ConfigurationError, match="Cookie"):
        protect(socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=origins), auth)


@pytest.mark.parametrize("origins", ANY_PAGE)
def test_with_a_source_of_ones_own_not_any_page_may_connect(origins: Any) -> None:
    auth = make_auth(sources=(lambda request: request.cookies.get("token"),))
    with pytest.raises(ConfigurationError, match="a source of your own may find the token in a cookie"):
        protect(socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=origins), auth)


@pytest.mark.parametrize("origins", ["https://app.example", ["https://app.example"]])
@pytest.mark.parametrize("source", [Cookie("token"), lambda request: request.cookies.get("token")])
def test_with_a_list_of_the_pages_the_token_may_be_in_a_cookie(origins: Any, source: Any) -> None:
    sio = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=origins)
    protect(sio, make_auth(sources=(source,)))


@pytest.mark.parametrize("origins", [None, *ANY_PAGE, ["capacitor://localhost"]])
def test_where_no_cookie_counts_any_page_may_connect(origins: Any) -> None:
    protect(socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=origins), make_auth())


def test_a_server_stays_what_it_is() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    gate = protect(sio, make_auth())
    assert type(sio) is socketio.AsyncServer
    assert repr(gate) == "<Protection of AsyncServer>"
    app = flask.Flask("app")
    extension = flask_socketio.SocketIO(app, async_mode="threading")
    assert repr(protect(extension, make_auth())) == "<Protection of Server>"


@pytest.mark.parametrize(
    ("text", "namespace"),
    [
        ('2["a"]', "/"),
        ('212["/a,"]', "/"),
        ('2/a,["b"]', "/a"),
        ('2/a,12["b"]', "/a"),
        ('51-/a-b/c,1["b"]', "/a-b/c"),
        ('512-["/a,"]', "/"),
        ("1/a", "/a"),
        ("1", "/"),
        ("", "/"),
    ],
)
def test_the_namespace_of_a_packet(text: str, namespace: str) -> None:
    assert namespace_of(text) == namespace


class Packet:
    def __init__(self, data: Any, packet_type: int = 4) -> None:
        self.data = data
        self.packet_type = packet_type


async def test_what_a_writer_has_taken_is_dropped_while_it_writes() -> None:
    transport = EngineTransport(
        Server(auth=make_auth())._core, type("Socket", (), {"queue": asyncio.Queue()})(), _never, _never
    )
    packets = [Packet('2["a"]'), Packet('2/b,["b"]'), Packet('2["c"]'), Packet('2["d"]')]
    writing = iter(transport.taken(packets))
    assert next(writing) is packets[0]
    transport.drop("/b")
    assert next(writing) is packets[2]
    transport.drop()
    assert list(writing) == []


async def test_a_transport_has_closed_when_its_writer_has_written_the_last() -> None:
    waiting: asyncio.Queue[Any] = asyncio.Queue()
    io = Server(auth=make_auth())
    transport = EngineTransport(io._core, type("Socket", (), {"queue": waiting})(), _never, _never)
    with transport.writer():
        transport.close(CloseReason.TOKEN_REVOKED)
        closed = asyncio.ensure_future(transport.closed())
        written = iter(transport.taken([waiting.get_nowait()]))
        assert next(written).packet_type == CLOSE
        await asyncio.sleep(0)
        assert not closed.done()
        assert list(written) == []
    await within(closed)


async def test_what_a_thread_takes_meanwhile_does_not_keep_the_rest_from_being_dropped() -> None:
    waiting: queue.Queue[Any] = queue.Queue()
    io = Server(auth=make_auth())
    transport = EngineTransport(io._core, type("Socket", (), {"queue": waiting})(), _never, _never)
    over = threading.Event()

    def take() -> None:
        while not over.is_set():
            with contextlib.suppress(queue.Empty):
                waiting.get_nowait()

    taking = threading.Thread(target=take)
    taking.start()
    try:
        for number in range(5000):
            waiting.put_nowait(Packet(f'2["{number}"]'))
            transport.drop()
    finally:
        over.set()
        taking.join()
    waiting.put_nowait(Packet('2/a,["kept"]'))
    waiting.put_nowait(Packet('2["dropped"]'))
    transport.drop("/")
    assert [packet.data for packet in waiting.queue] == ['2/a,["kept"]']


async def _never(socket: Any) -> None: ...


def test_what_is_dropped_takes_its_attachments_along() -> None:
    ping = Packet(None, 2)
    ours = [Packet('51-/a,["x"]'), Packet(b"1")]
    others = [Packet('51-["y"]'), Packet(b"2")]
    packets = [others[0], others[1], ours[0], ping, ours[1], None, Packet('2/a,["z"]')]
    assert kept(packets, "/a") == ([*others, ping, None], True)
    assert kept(packets, None) == ([ping, None], True)
    assert kept(packets[1:], "/a", dropping=True) == ([ping, None], True)
    assert kept(packets[1:], "/a") == ([others[1], ping, None], True)


async def test_attachments_that_a_writer_has_not_taken_go_with_what_it_has() -> None:
    waiting: asyncio.Queue[Any] = asyncio.Queue()
    transport = EngineTransport(
        Server(auth=make_auth())._core, type("Socket", (), {"queue": waiting})(), _never, _never
    )
    first, head, attachment = Packet('2["first"]'), Packet('51-/a,["x"]'), Packet(b"1")
    writing = iter(transport.taken([first, head]))
    assert next(writing) is first
    waiting.put_nowait(attachment)
    transport.drop("/a")
    assert list(writing) == []
    assert waiting.empty()


async def test_a_websocket_that_comes_when_its_session_is_over_is_cut_off() -> None:
    cut: list[Any] = []

    async def cuts(websocket: Any) -> None:
        cut.append(websocket)

    waiting: asyncio.Queue[Any] = asyncio.Queue()
    socket = type("Socket", (), {"queue": waiting})()
    transport = EngineTransport(Server(auth=make_auth())._core, socket, _never, cuts)
    transport.abort()
    with transport.websocket("late"):
        await until(lambda: cut == ["late"])


async def test_a_poll_that_offers_another_protocol_is_a_poll() -> None:
    socket = type("Socket", (), {"queue": asyncio.Queue(), "upgrade_protocols": ["websocket"]})()
    transport = EngineTransport(Server(auth=make_auth())._core, socket, _never, _never)
    offer = {"HTTP_CONNECTION": "Upgrade, HTTP2-Settings", "HTTP_UPGRADE": "h2c"}
    websocket = {"HTTP_CONNECTION": "keep-alive, Upgrade", "HTTP_UPGRADE": "WebSocket"}
    websocket |= {"HTTP_SEC_WEBSOCKET_VERSION": "13", "HTTP_SEC_WEBSOCKET_KEY": "MDEyMzQ1Njc4OWFiY2RlZg=="}
    with transport.turn(offer) as first, transport.turn({}) as second, transport.turn(websocket) as third:
        assert (first, second, third) == (True, False, True)


async def test_what_is_dropped_while_a_thread_writes_takes_nothing_else_along() -> None:
    waiting: queue.Queue[Any] = queue.Queue()
    transport = EngineTransport(
        Server(auth=make_auth())._core, type("Socket", (), {"queue": waiting})(), _never, _never
    )
    for _ in range(20):
        packets = [Packet(f'2/{"ab"[number % 2]},["{number}"]') for number in range(2000)]
        written: list[Any] = []
        taken = transport.taken(packets)
        writing = threading.Thread(target=lambda taken=taken, written=written: written.extend(taken))
        writing.start()
        while writing.is_alive():
            transport.drop("/a")
        writing.join()
        assert [packet for packet in written if packet in packets[1::2]] == packets[1::2]
