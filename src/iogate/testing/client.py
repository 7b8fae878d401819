"""A client that connects to a server without a network.

It calls the ASGI application as an ASGI server would for a WebSocket. So it passes everything that a real client
passes: the mounting of the application, the origin check, headers, the transport, the gate. On its own side it uses the
protocol code of `iogate.protocol` in the client's role, which rejects everything that a server must not send.
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
from iogate.server.server import Server, core_of
from iogate.testing.time import settle

_Handler = TypeVar("_Handler", bound=Callable[..., Any])

TIMEOUT = 5.0
"""Default time limit, in real seconds, for each call of the client."""


class Received(NamedTuple):
    """An event that the server sent, or the end of a socket.

    The event `disconnect`, a name that no packet can have, stands for the end of a socket. Its argument is the reason
    that a JavaScript client would report: `io server disconnect` or `transport close`.
    """

    event: str
    args: tuple[Any, ...]
    namespace: str = packets.ROOT


class ConnectRefused(Refused):
    """The server rejected the client. `message` and `data` are what the client received.

    Args:
        status: the HTTP status, if the request was rejected before it reached Socket.IO; None otherwise.
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
        """The `retry` in `data`: what the client should do."""
        return self._of_data("retry")

    def _of_data(self, name: str) -> str | None:
        return self.data.get(name) if isinstance(self.data, Mapping) else None


class InMemoryClient:
    """A Socket.IO client for a server in the same event loop. Enter it with `async with`, then call `connect`.

    Args:
        app: the `Server`, or an ASGI application that contains it.
        token: sent in each CONNECT as `{"token": token}`; None to send no token.
        headers: headers of the request, such as `{"Origin": "https://app.example.com"}`.
        query: parameters of the URL.
        address: the IP address of the client, as the server sees it.
        path: the path of the server; by default the path of the `Server`, or `/socket.io` for an ASGI application.
        secure: True if the server should see a connection over TLS.
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
        """All events that were received, in order."""
        self.refusals: list[ConnectRefused] = []
        """All rejections that were received: of each CONNECT, and each `unauthorized`."""
        self.handshake: OpenPacket | None = None
        """The OPEN packet that the server sent when the transport opened."""
        self.close_code: int | None = None
        """The close code of the WebSocket, after the server has closed it."""
        self._app: ASGIApp = app.asgi() if isinstance(app, Server) else app
        self._scope = _scope(
            path or (core_of(app).settings.path if isinstance(app, Server) else "/socket.io"),
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
            ConnectRefused: the request was rejected before it reached Socket.IO.
            TimeoutError: the transport did not open within `TIMEOUT` seconds.
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
        """Close the transport without sending a DISCONNECT."""
        await self.close()

    @property
    def open(self) -> bool:
        """True if the transport is open."""
        return self.handshake is not None and not self._over

    async def close(self) -> None:
        """Close the transport.

        When this returns, the server has handled the disconnect, and its disconnect handlers have run as far as they
        can without waiting for threads, the network or real time.
        """
        for task in self._answering:
            task.cancel()
        if self._serving is not None:
            self._end()
            async with asyncio.timeout(TIMEOUT):
                await self._serving
            self._serving = None
            await settle()

    async def closed(self, timeout: float = TIMEOUT) -> None:
        """Wait until the transport is closed.

        Args:
            timeout: real seconds to wait.

        Raises:
            TimeoutError: the transport is still open after `timeout` seconds.
        """
        await self._until(lambda: self._over, timeout, "the transport to close")

    # Namespaces.

    async def connect(
        self, namespace: str = packets.ROOT, *, token: str | None = None, auth: Mapping[str, Any] | None = None
    ) -> str:
        """Connect to a namespace, and return the id of the socket.

        Args:
            namespace: its name.
            token: the token to send instead of the client's own.
            auth: the other fields of the payload.

        Raises:
            ConnectRefused: the server rejected the client.
            Disconnected: the transport was closed without an answer.
            TimeoutError: there was no answer within `TIMEOUT` seconds.
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
        """Return True if the client is in a namespace, or (with in-band authentication) may authenticate there."""
        return namespace in self._ids and not self._over

    async def disconnect(self, namespace: str = packets.ROOT) -> None:
        """Leave a namespace."""
        self._ids.pop(namespace, None)
        self._send(self._socketio.disconnect(namespace))
        await settle()

    async def authenticate(self, token: str, namespace: str = packets.ROOT) -> dict[str, Any]:
        """Authenticate in band, or refresh the token. Return the acknowledged `sub` and `exp`.

        Raises:
            ConnectRefused: the server rejected the token.
            AckTimeout: there was no answer within `TIMEOUT` seconds.
            Disconnected: the client is not in the namespace, or the transport was closed before the answer.
        """
        answer = await self.call("authenticate", {"token": token}, namespace=namespace)
        if not isinstance(answer, dict) or "error" in answer:
            data = answer.get("error") if isinstance(answer, dict) else None
            raise ConnectRefused(data["message"] if isinstance(data, dict) else "unauthorized", data)
        return answer

    # Events.

    async def emit(self, event: str, *args: Any, namespace: str = packets.ROOT) -> None:
        """Send an event, and return when the server has done everything that it does immediately.

        Raises:
            Disconnected: the client is not in the namespace.
        """
        self._event(event, args, namespace, None)
        await settle()

    async def call(self, event: str, *args: Any, namespace: str = packets.ROOT, timeout: float = TIMEOUT) -> Any:
        """Send an event, and return the acknowledgement of the server: None, one value, or a tuple of several.

        Args:
            event: its name.
            args: its arguments.
            namespace: the namespace to send it to.
            timeout: real seconds to wait.

        Raises:
            AckTimeout: there was no acknowledgement in time.
            Disconnected: the client is not in the namespace, or the transport was closed before the acknowledgement.
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
        """Return the arguments of the next event with this name that was not returned before. Wait for it if necessary.

        Args:
            event: its name. "disconnect" stands for the end of a socket, unless the client itself has ended it.
            namespace: the namespace of the event; None for any.
            timeout: real seconds to wait.

        Raises:
            TimeoutError: the event did not arrive in time. The message lists the events that arrived instead.
            Disconnected: the transport is closed, and the event has not arrived.
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
        """Register a handler for an event of the server, in any namespace; plain or `async def`.

        If the server requested an acknowledgement, the handler's result is sent: no arguments for None, several for a
        tuple. Without a handler, nothing is sent, except that the client always acknowledges `unauthorized`.

        Args:
            event: the name of the event.
        """

        def register(handler: _Handler) -> _Handler:
            self._handlers[event] = handler
            return handler

        return register

    # Sending.

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

    # Receiving.

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
