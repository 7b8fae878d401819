"""A client that talks to a server without a network.

It calls the ASGI application as an ASGI server would for a WebSocket, so whatever a real client passes on its way in
is passed here too: the mounting of the application, origins, header fields, the transport, the gate. Its own side is
the cores of `iogate.protocol` in the client's role, which refuse whatever the server may not send.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlencode

import msgspec

from iogate.asgi_types import ASGIApp, Message, Scope
from iogate.errors import AckTimeout, Disconnected, ProtocolError, Refused
from iogate.protocol.engineio import connection as engineio
from iogate.protocol.engineio.packets import PONG, REVISION, Encoded, OpenPacket, PacketType
from iogate.protocol.socketio import connection as socketio
from iogate.protocol.socketio import packets
from iogate.protocol.socketio.json import encode
from iogate.server.server import Server
from iogate.testing.time import settle

_Handler = TypeVar("_Handler", bound=Callable[..., Any])

TIMEOUT = 5.0
"""Real seconds that a call of the client waits at most, unless it is told otherwise."""


class Received(NamedTuple):
    """Something that the server sent.

    `disconnect`, whose name no packet can have, stands for the end: with the reason that a JavaScript client would
    give, `io server disconnect` or `transport close`.
    """

    event: str
    args: tuple[Any, ...]
    namespace: str = packets.ROOT


class ConnectRefused(Refused):
    """The server refused the client: `message` and `data` are what it was told.

    Args:
        status: the HTTP status, if the request was refused before Socket.IO was reached; None otherwise.
    """

    def __init__(self, message: str, data: Any = None, status: int | None = None) -> None:
        super().__init__(message, data)
        self.status = status

    @property
    def code(self) -> str | None:
        """The `code` in `data`, such as "invalid_token"."""
        return self._of_data("code")

    @property
    def retry(self) -> str | None:
        """The `retry` in `data`: what a client should do."""
        return self._of_data("retry")

    def _of_data(self, name: str) -> str | None:
        return self.data.get(name) if isinstance(self.data, Mapping) else None


class InMemoryClient:
    """A Socket.IO client of a server in the same event loop. Enter it with `async with`; then `connect`.

    Args:
        app: the `Server`, or an ASGI application that carries it.
        token: goes into every CONNECT, as `{"token": token}`; None: none does.
        headers: header fields of the request, such as `{"Origin": "https://app.example.com"}`.
        query: parameters of its URL.
        address: where it seems to come from.
        path: where the server is; by default where it says, or `/socket.io` in an application.
        secure: whether it seems to come over TLS.
    """

    def __init__(
        self,
        app: Server | ASGIApp,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
        path: str | None = None,
        secure: bool = False,
    ) -> None:
        self.token = token
        self.received: list[Received] = []
        """Everything that came, in order."""
        self.refusals: list[ConnectRefused] = []
        """Every refusal that came: of a CONNECT, and each `unauthorized`."""
        self.handshake: OpenPacket | None = None
        """What the server said when the transport opened."""
        self.close_code: int | None = None
        """The code of the WebSocket, once the server has closed it."""
        self._app: ASGIApp = app.asgi() if isinstance(app, Server) else app
        self._scope = _scope(
            path or (app.settings.path if isinstance(app, Server) else "/socket.io"),
            headers or {},
            {"EIO": REVISION, "transport": "websocket", **(query or {})},
            address,
            secure=secure,
        )
        self._engine = engineio.Connection(engineio.Role.CLIENT)
        self._socketio = socketio.Connection(engineio.Role.CLIENT)
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self._serving: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._over = False
        self._refused: dict[str, ConnectRefused] = {}
        self._status: tuple[int, bytes] | None = None
        self._ids: dict[str, str] = {}
        self._acks: dict[int, tuple[Any, ...]] = {}
        self._last_ack = 0
        self._taken: dict[tuple[str, str | None], int] = {}
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None

    # The transport.

    async def __aenter__(self) -> Self:
        """Open the transport.

        Raises:
            ConnectRefused: the request was refused, before Socket.IO was reached.
        """
        self._put({"type": "websocket.connect"})
        self._serving = asyncio.create_task(self._serve())
        await self._until(lambda: self.handshake is not None or self._over, TIMEOUT, "the transport to open")
        if self.handshake is None:
            await self._serving
            status, body = self._status or (403, b"")
            raise _refused_request(status, body)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the transport, as a client that goes without a word."""
        await self.close()

    @property
    def open(self) -> bool:
        """Whether the transport is open."""
        return self.handshake is not None and not self._over

    async def close(self) -> None:
        """Close the transport. The server learns of it, and its disconnect handlers have run as far as they can."""
        for task in self._answering:
            task.cancel()
        if self._serving is not None:
            self._end()
            async with asyncio.timeout(TIMEOUT):
                await self._serving
            self._serving = None
            await settle()

    async def closed(self, timeout: float = TIMEOUT) -> None:
        """Return when the transport is closed.

        Raises:
            TimeoutError: it is still open after so many (real) seconds.
        """
        await self._until(lambda: self._over, timeout, "the transport to close")

    # Namespaces.

    async def connect(
        self, namespace: str = packets.ROOT, *, token: str | None = None, auth: Mapping[str, Any] | None = None
    ) -> str:
        """Ask for a namespace; return the id of the socket.

        Args:
            namespace: its name.
            token: the token to show, instead of the client's own.
            auth: the rest of the payload.

        Raises:
            ConnectRefused: the server said no.
            Disconnected: the transport was closed without an answer.
        """
        token = self.token if token is None else token
        payload = {**(auth or {}), **({} if token is None else {"token": token})}
        self._refused.pop(namespace, None)
        self._send(self._socketio.connect(namespace, payload or None))
        await self._until(
            lambda: namespace in self._ids or namespace in self._refused or self._over, TIMEOUT, "a verdict"
        )
        if (refusal := self._refused.get(namespace)) is not None:
            raise refusal
        if namespace not in self._ids:
            raise Disconnected("the transport was closed without a verdict")
        await settle()
        return self._ids[namespace]

    def connected(self, namespace: str = packets.ROOT) -> bool:
        """Say whether the client is in a namespace (or, with in-band authentication, waits in it)."""
        return namespace in self._ids and not self._over

    async def disconnect(self, namespace: str = packets.ROOT) -> None:
        """Leave a namespace."""
        self._ids.pop(namespace, None)
        self._send(self._socketio.disconnect(namespace))
        await settle()

    async def authenticate(self, token: str, namespace: str = packets.ROOT) -> dict[str, Any]:
        """Log in in band, or refresh; return the `sub` and `exp` that the server took note of.

        Raises:
            ConnectRefused: the server said no.
        """
        answer = await self.call("authenticate", {"token": token}, namespace=namespace)
        if not isinstance(answer, dict) or "error" in answer:
            data = answer.get("error") if isinstance(answer, dict) else None
            raise ConnectRefused(data["message"] if isinstance(data, dict) else "unauthorized", data)
        return answer

    # Events.

    async def emit(self, event: str, *args: Any, namespace: str = packets.ROOT) -> None:
        """Send an event, and return when the server has done all that it does about it at once.

        Raises:
            Disconnected: the client is not in the namespace.
        """
        self._event(event, args, namespace, None)
        await settle()

    async def call(self, event: str, *args: Any, namespace: str = packets.ROOT, timeout: float = TIMEOUT) -> Any:
        """Send an event and return what the server acknowledged: None, one value, or a tuple of several.

        Args:
            event: its name.
            args: its arguments.
            namespace: where.
            timeout: real seconds to wait.

        Raises:
            AckTimeout: no answer in time.
            Disconnected: the client is not in the namespace, or the transport was closed before the answer.
        """
        self._last_ack = id_ = self._last_ack + 1
        self._event(event, args, namespace, id_)
        try:
            await self._until(lambda: id_ in self._acks or self._over, timeout, "an answer")
        except TimeoutError:
            raise AckTimeout(f"{event!r} was not acknowledged in {timeout} s") from None
        if id_ not in self._acks:
            raise Disconnected(f"the transport was closed before {event!r} was acknowledged")
        answer = self._acks.pop(id_)
        return None if not answer else answer[0] if len(answer) == 1 else answer

    async def receive(self, event: str, namespace: str | None = None, timeout: float = TIMEOUT) -> tuple[Any, ...]:
        """Return the arguments of the next event of this name that has not been asked for; wait for it if need be.

        Args:
            event: its name; "disconnect" is the end of a socket, by whatever cause but the client's own.
            namespace: where; None: anywhere.
            timeout: real seconds to wait.

        Raises:
            TimeoutError: it did not come in time; the message says what came instead.
            Disconnected: the transport is closed, and it has not come.
        """

        def found() -> int | None:
            for index in range(self._taken.get((event, namespace), 0), len(self.received)):
                item = self.received[index]
                if item.event == event and namespace in {None, item.namespace}:
                    return index
            return None

        await self._until(lambda: found() is not None or self._over, timeout, repr(event))
        index = found()
        if index is None:
            raise Disconnected(f"the transport is closed, and {event!r} has not come; {self._came()}")
        self._taken[event, namespace] = index + 1
        return self.received[index].args

    def on(self, event: str) -> Callable[[_Handler], _Handler]:
        """Register what answers an event of the server, in any namespace; plain or `async def`.

        What it returns is the acknowledgement, if one was asked for: None: no arguments, a tuple: several. Without a
        handler there is none, but for `unauthorized`, which is always acknowledged.
        """

        def register(handler: _Handler) -> _Handler:
            self._handlers[event] = handler
            return handler

        return register

    # Out.

    def _event(self, event: str, args: tuple[Any, ...], namespace: str, id_: int | None) -> None:
        if not self.connected(namespace):
            raise Disconnected(f"{event!r} cannot be sent: the client is not in {namespace}")
        self._send(encode(packets.Packet(packets.PacketType.EVENT, namespace, [event, *args], id_)))

    def _send(self, packet: Encoded) -> None:
        if not self.open:
            raise Disconnected("the transport is closed")
        self._put({"type": "websocket.receive", "text": packet.string})
        for data in packet.attachments:
            self._put({"type": "websocket.receive", "bytes": data})

    def _put(self, message: Message) -> None:
        self._sent.put_nowait(message)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._engine.close()
            self._put({"type": "websocket.disconnect", "code": 1000})
            self._news.set()

    # In.

    async def _serve(self) -> None:
        try:
            await self._app(self._scope, self._sent.get, self._take)
        finally:
            self._closed_by_server()

    async def _take(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.send":
            text = message.get("text")
            try:
                self._frame(message["bytes"] if text is None else text.encode(), binary=text is None)
            except ProtocolError as error:
                self._broken = error
                self._end()
        elif kind == "websocket.close":
            self.close_code = message.get("code", 1000)
            self._closed_by_server()
        elif kind == "websocket.http.response.start":
            self._status = (message["status"], b"")
        elif kind == "websocket.http.response.body" and self._status is not None:
            status, body = self._status
            self._status = (status, body + message.get("body", b""))
            if not message.get("more_body", False):
                self._closed_by_server()
        self._news.set()

    def _closed_by_server(self) -> None:
        if not self._over:
            for namespace in list(self._ids):
                self._left(namespace, "transport close")
            self._end()

    def _frame(self, frame: bytes, *, binary: bool) -> None:
        if self._over:
            return
        event = self._engine.receive(frame, binary=binary)
        if event.type is PacketType.OPEN:
            self.handshake = engineio.parse_open(event)
        elif event.type is PacketType.PING:
            self._put({"type": "websocket.receive", "text": PONG.string})
        elif event.type is PacketType.CLOSE:
            self._closed_by_server()
        elif event.type is PacketType.MESSAGE:
            packet = self._socketio.receive(event.data, binary=event.binary)
            if packet is not None:
                self._packet(packet)

    def _packet(self, packet: packets.Packet) -> None:
        namespace, data = packet.namespace, packet.data
        match packet.type:
            case packets.PacketType.CONNECT:
                self._ids[namespace] = data["sid"]
            case packets.PacketType.CONNECT_ERROR:
                refusal = ConnectRefused(data["message"], data.get("data"))
                self._refused[namespace] = refusal
                self.refusals.append(refusal)
            case packets.PacketType.DISCONNECT:
                self._left(namespace, "io server disconnect")
            case packets.PacketType.ACK if packet.id is not None:
                self._acks[packet.id] = tuple(data)
            case packets.PacketType.EVENT:
                self._received(Received(data[0], tuple(data[1:]), namespace), packet.id)

    def _received(self, item: Received, id_: int | None) -> None:
        self.received.append(item)
        if item.event == "unauthorized" and item.args:
            told = item.args[0]
            self.refusals.append(ConnectRefused(told["message"], told.get("data")))
        handler = self._handlers.get(item.event)
        if handler is not None or (id_ is not None and item.event == "unauthorized"):
            task = asyncio.create_task(self._answer(handler, item, id_))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, handler: Callable[..., Any] | None, item: Received, id_: int | None) -> None:
        try:
            result = None if handler is None else handler(*item.args)
            if inspect.isawaitable(result):
                result = await result
        except Exception as error:
            self._broken = error  # The next call of the test raises it.
            self._news.set()
            return
        if id_ is not None and self.open:
            data = [] if result is None else list(result) if isinstance(result, tuple) else [result]
            self._send(encode(packets.Packet(packets.PacketType.ACK, item.namespace, data, id_)))

    def _left(self, namespace: str, reason: str) -> None:
        del self._ids[namespace]
        self.received.append(Received("disconnect", (reason,), namespace))

    async def _until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not condition() and self._broken is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"waited {timeout} s for {what}; {self._came()}") from None
        if self._broken is not None:
            broken, self._broken = self._broken, None
            raise broken

    def _came(self) -> str:
        return f"there came {[item.event for item in self.received] or 'nothing'}"

    def __repr__(self) -> str:
        state = "open" if self.open else "closed"
        return f"<InMemoryClient {state}, in {sorted(self._ids)}, {len(self.received)} events received>"


def _scope(path: str, headers: Mapping[str, str], query: Mapping[str, str], address: str, *, secure: bool) -> Scope:
    fields = {"host": "testserver", **{name.lower(): value for name, value in headers.items()}}
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if secure else "ws",
        "path": f"{path}/",
        "raw_path": f"{path}/".encode(),
        "root_path": "",
        "query_string": urlencode(query).encode(),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()],
        "client": (address, 50000),
        "server": ("testserver", 443 if secure else 80),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        "state": {},
    }


def _refused_request(status: int, body: bytes) -> ConnectRefused:
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = None
    message = data.get("message") if isinstance(data, dict) else None
    return ConnectRefused(message or f"HTTP {status}", data, status)
