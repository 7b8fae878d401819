"""The Engine.IO sockets of python-engineio as transports of the gate's sessions."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from engineio.packet import CLOSE, MESSAGE
from engineio.packet import Packet as EnginePacket

from iogate.integrations.incoming import wants_websocket
from iogate.protocol.engineio.packets import Encoded
from iogate.server.core import Core
from iogate.server.session.handshake import Handshake
from iogate.server.session.reasons import CloseReason

End = Callable[[Any], Coroutine[Any, Any, None]]
"""A function that ends an Engine.IO socket or a WebSocket."""
Limit = Callable[[Any, int], None]
"""A function that sets the largest message of a WebSocket, in bytes."""


class EngineTransport:
    """The queue of an Engine.IO socket: all packets go through here, into the queue and out of it to the writer.

    In a threaded server, the writer and the code that emits run on different threads, so a lock protects the queue.

    Args:
        server: iogate's server.
        socket: the Engine.IO socket.
        end: ends the Engine.IO socket, without waiting for queued packets.
        cut: closes a WebSocket at once.
        limit: sets the largest message of a WebSocket, in bytes; None if the server cannot set it.
    """

    __slots__ = (
        *("_body", "_cut", "_end", "_leaving", "_limit", "_loop", "_most", "_posting", "_sent", "_served", "_core"),
        *("_socket", "_taken", "_websocket", "_writing", "lock"),
    )

    name = "engineio"
    upgradable = False
    lingers = False
    writable = True
    congested = False

    def __init__(self, core: Core, socket: Any, end: End, cut: End, limit: Limit | None = None) -> None:
        self._core = core
        self._socket = socket
        self._end = end
        self._cut = cut
        self._limit = limit
        self._most = 0
        self._posting = False
        self._body: Callable[[], None] | None = None
        self._served: set[bool] = set()
        self._websocket: Any = None
        self.lock = threading.RLock()
        self._taken: Taken | None = None
        self._leaving = False
        self._writing = False
        self._loop = asyncio.get_running_loop()
        self._sent = asyncio.Event()

    # Calls from the protected server.

    def put(self, packet: Any) -> None:
        """Queue a packet of the protected server."""
        self._socket.queue.put_nowait(packet)

    @contextmanager
    def turn(self, environ: dict[str, Any]) -> Iterator[bool]:
        """Yield True if a GET request may be served: at most one poll and one WebSocket at a time.

        Otherwise one client could use many threads of a threaded server.
        """
        try:
            is_websocket = wants_websocket(environ)
        except ValueError:
            yield False
            return
        with self.lock:
            free = is_websocket not in self._served and not (is_websocket and self._leaving)
            if free:
                self._served.add(is_websocket)
        try:
            yield free
        finally:
            if free:
                self._served.discard(is_websocket)

    @contextmanager
    def post(self) -> Iterator[bool]:
        """Yield True if a POST request may be read: only one at a time, because each uses memory and a thread."""
        with self.lock:
            free = not self._posting and not self._leaving
            self._posting = True
        try:
            yield free
        finally:
            if free:
                self._posting = False

    @contextmanager
    def body(self, cut: Callable[[], None]) -> Iterator[None]:
        """Stop reading a body if the session ends meanwhile.

        Args:
            cut: makes the reader stop waiting.
        """
        with self.lock:
            self._body = cut
        try:
            yield
        finally:
            with self.lock:
                self._body = None

    def limit(self, most: int) -> None:
        """Set the largest message that the client may send from now on.

        Args:
            most: the size in bytes.
        """
        with self.lock:
            self._most = most
            self._limit_websocket()

    def _limit_websocket(self) -> None:
        if self._limit is not None and self._websocket is not None:
            self._limit(self._websocket, self._most)

    @contextmanager
    def websocket(self, websocket: Any) -> Iterator[None]:
        """Register a WebSocket while it is served, so that it can be limited and cut; end its upgrade afterwards."""
        with self.lock:
            self._websocket = websocket
            self._limit_websocket()
            leaving = self._leaving
        if leaving:  # The session ended during the handshake of this WebSocket.
            self._loop.call_soon_threadsafe(lambda: self._core.sessions.spawn(self._cut(websocket)))
        try:
            yield
        finally:
            self._socket.upgrading = False  # python-engineio does not reset it if the client disconnects.
            self._websocket = None

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Record that a writer waits for packets: with a WebSocket always, with polling only during a request."""
        self._writing = True
        try:
            yield
        except BaseException:
            self._writing = False
            raise

    def taken(self, packets: list[Any]) -> list[Any]:
        """Return the packets that the writer took from the queue, as a list that can drop packets while it is written.

        Without packets the writer has ended, and the list is returned as it is.
        """
        if not packets:
            self._writing = False
            return packets
        self._taken = Taken(packets, self._written, self.lock)
        return self._taken

    def drop(self, namespace: str | None = None) -> None:
        """Drop the messages that have not been written yet: all of them, or those of one namespace.

        Other Engine.IO packets, such as pings, stay in the queue.
        """
        with self.lock:
            dropping = self._taken is not None and self._taken.drop(namespace)
            with _stopped(self._socket.queue) as waiting:
                left, _ = kept(waiting, namespace, dropping=dropping)
                waiting.clear()
                waiting.extend(left)

    def _written(self) -> None:
        self._writing = False
        # With the lock, this cannot run after `close` has set `_leaving` but before it has queued the close packet.
        with self.lock, _stopped(self._socket.queue) as waiting:
            done = self._leaving and not any(waiting)  # None, which tells the writer to stop, stays in the queue.
        if done:
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if self._websocket is None:  # With a WebSocket, the timer also limits the time for the client to close it.
            self._core.sessions.drain_timeout.stop(self)
        self._sent.set()
        self._core.sessions.spawn(self._end(self._socket))

    # The transport interface of a connection.

    def write(self, packet: Encoded) -> bool:
        """Queue a packet of the gate with its attachments, and return True."""
        with self.lock:
            for data in (packet.string[1:], *packet.attachments):
                self._socket.queue.put_nowait(EnginePacket(MESSAGE, data))
        return True

    def flush(self) -> None:
        """Do nothing: python-engineio's writer sends the queue."""

    def close(self, reason: CloseReason) -> None:
        """Send the queued packets and a close packet, and cut the connection if that takes over `LINGER` seconds."""
        self._core.sessions.drain_timeout.start(self)
        with self.lock:
            self._leave()
            self._socket.queue.put_nowait(EnginePacket(CLOSE))
            self._socket.queue.put_nowait(None)

    def abort(self) -> None:
        """Close the connection at once, and drop the queued messages."""
        self.drop()
        with self.lock:
            self._leave()
            websocket, self._websocket = self._websocket, None
        self._socket.queue.put_nowait(None)
        if websocket is not None:
            self._core.sessions.spawn(self._cut(websocket))
        self._finish()

    def _leave(self) -> None:
        self._leaving = True
        if self._body is not None:
            self._body()

    async def closed(self) -> None:
        """Wait until the close packet is written. Return immediately if there is no writer."""
        if self._writing:
            await self._sent.wait()


class Taken(list[Any]):
    """A list of packets that a writer took from the queue, from which packets can be dropped while it is iterated.

    Args:
        packets: the packets.
        written: called when the iteration has ended.
        lock: the lock of the transport.
    """

    def __init__(self, packets: list[Any], written: Callable[[], None], lock: threading.RLock) -> None:
        super().__init__(packets)
        self._left: deque[Any] = deque()
        self._written = written
        self._lock = lock

    def drop(self, namespace: str | None) -> bool:
        """Drop the messages that have not been written yet: all of them, or those of one namespace.

        Returns:
            True if the next packet in the queue may be an attachment of a dropped message.
        """
        left, dropping = kept(self._left, namespace)
        self._left = deque(left)
        return dropping

    def __iter__(self) -> Iterator[Any]:
        with self._lock:
            self._left = deque(super().__iter__())
        while True:
            with self._lock:
                if not self._left:
                    break
                packet = self._left.popleft()
            yield packet
        self._written()


@contextmanager
def _stopped(queue: Any) -> Iterator[deque[Any]]:
    """Yield the contents of a queue. Until the end of the context, no other thread can change the queue."""
    if isinstance(queue, asyncio.Queue):
        yield queue._queue  # type: ignore[attr-defined]  # asyncio has no public way, and only one thread uses it.
    else:
        with queue.mutex:
            yield queue.queue


def kept(packets: Iterable[Any], namespace: str | None, *, dropping: bool = False) -> tuple[list[Any], bool]:
    """Return packets without the messages of a namespace. Packets that are not messages are always kept.

    Args:
        packets: the packets, in order.
        namespace: the namespace whose messages are removed; None removes all messages.
        dropping: True if attachments at the beginning belong to a message that was removed before.

    Returns:
        The packets that are left, and True if attachments that follow belong to a message that was removed.
    """
    left = []
    for packet in packets:
        if packet is None or packet.packet_type != MESSAGE:
            left.append(packet)
            continue
        if isinstance(packet.data, str):  # Attachments follow the text that they belong to.
            dropping = namespace in {None, namespace_of(packet.data)}
        if not dropping:
            left.append(packet)
    return left, dropping


def namespace_of(text: str) -> str:
    """Return the namespace of a Socket.IO packet from its text frame, without decoding the packet."""
    start = 1
    while text[start : start + 1].isdigit() or text[start : start + 1] == "-":  # The number of attachments.
        start += 1
    if text[start : start + 1] != "/":
        return "/"
    end = text.find(",", start)
    return text[start:end] if end >= 0 else text[start:]


def handshake_of(environ: dict[str, Any]) -> Handshake:
    """Return the request that opened an Engine.IO session.

    Raises:
        ValueError: the request has too many parameters.
    """
    scope = environ.get("asgi.scope")
    return Handshake.of_environ(environ) if scope is None else Handshake.of_scope(scope)
