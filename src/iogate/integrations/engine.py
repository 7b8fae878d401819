"""The Engine.IO of python-engineio as the transport of a session."""

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
from iogate.server.handshake import Handshake
from iogate.server.reasons import CloseReason
from iogate.server.server import Server

End = Callable[[Any], Coroutine[Any, Any, None]]
"""Ends an Engine.IO socket, or a WebSocket."""
Limit = Callable[[Any, int], None]
"""Sets how many bytes a message of a WebSocket may have."""


class EngineTransport:
    """The queue of an Engine.IO socket: what goes in, and what its writer takes out, comes through here.

    The writer of a threaded server is another thread, and so is who emits there: hence the lock.

    Args:
        server: iogate's server.
        socket: the Engine.IO socket.
        end: ends it, without waiting for what is queued.
        cut: cuts off a WebSocket.
        limit: sets how many bytes a message of a WebSocket may have; None if that is not possible.
    """

    __slots__ = (
        *("_body", "_cut", "_end", "_leaving", "_limit", "_loop", "_most", "_posting", "_sent", "_served", "_server"),
        *("_socket", "_taken", "_websocket", "_writing", "lock"),
    )

    name = "engineio"
    upgradable = False
    lingers = False
    writable = True
    congested = False

    def __init__(self, server: Server, socket: Any, end: End, cut: End, limit: Limit | None = None) -> None:
        self._server = server
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

    # The other server's side.

    def put(self, packet: Any) -> None:
        """Queue a packet of the other server."""
        self._socket.queue.put_nowait(packet)

    @contextmanager
    def turn(self, environ: dict[str, Any]) -> Iterator[bool]:
        """Say whether a GET is to be served: one poll and one WebSocket at a time, or each would hold a thread."""
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
        """Yield whether to read a POST: one at a time, because each holds a body, and a thread."""
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
        """Stop the reading of a body if the session ends meanwhile.

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
        """Set how many bytes a message of the client may have from now on."""
        with self.lock:
            self._most = most
            self._limit_websocket()

    def _limit_websocket(self) -> None:
        if self._limit is not None and self._websocket is not None:
            self._limit(self._websocket, self._most)

    @contextmanager
    def websocket(self, websocket: Any) -> Iterator[None]:
        """Take note of a WebSocket, that there is something to cut off, and that an upgrade ends with it."""
        with self.lock:
            self._websocket = websocket
            self._limit_websocket()
            leaving = self._leaving
        if leaving:  # The session has been ended while the handshake of this one was going on.
            self._loop.call_soon_threadsafe(lambda: self._server.spawn(self._cut(websocket)))
        try:
            yield
        finally:
            self._socket.upgrading = False  # python-engineio forgets it if the client has gone.
            self._websocket = None

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Take note that somebody waits for what there is to write: a WebSocket always does, polling not."""
        self._writing = True
        try:
            yield
        except BaseException:
            self._writing = False
            raise

    def taken(self, packets: list[Any]) -> list[Any]:
        """Return what the writer has taken from the queue, in a way that can still be dropped while it writes."""
        if not packets:
            self._writing = False
            return packets
        self._taken = Taken(packets, self._written, self.lock)
        return self._taken

    def drop(self, namespace: str | None = None) -> None:
        """Drop what has not been written yet: all of it, or what is of a namespace."""
        with self.lock:
            dropping = self._taken is not None and self._taken.drop(namespace)
            with _stopped(self._socket.queue) as waiting:
                left, _ = kept(waiting, namespace, dropping=dropping)
                waiting.clear()
                waiting.extend(left)

    def _written(self) -> None:
        self._writing = False
        with self.lock, _stopped(self._socket.queue) as waiting:  # Not between "leaving" and the close packet.
            done = self._leaving and not any(waiting)  # The writer's stop marks, None, stay in the queue.
        if done:
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if self._websocket is None:  # Else until the client has closed it too.
            self._server.linger_due.stop(self)
        self._sent.set()
        self._server.spawn(self._end(self._socket))

    # What a connection asks for.

    def write(self, packet: Encoded) -> bool:
        """Queue a packet of the gate."""
        with self.lock:
            for data in (packet.string[1:], *packet.attachments):
                self._socket.queue.put_nowait(EnginePacket(MESSAGE, data))
        return True

    def flush(self) -> None:
        """Do nothing: there is a writer."""

    def close(self, reason: CloseReason) -> None:
        """Send the rest and a close packet; a client that does not take it within `LINGER` seconds is cut off."""
        self._server.linger_due.start(self)
        with self.lock:
            self._leave()
            self._socket.queue.put_nowait(EnginePacket(CLOSE))
            self._socket.queue.put_nowait(None)

    def abort(self) -> None:
        """Cut the connection."""
        self.drop()
        with self.lock:
            self._leave()
            websocket, self._websocket = self._websocket, None
        self._socket.queue.put_nowait(None)
        if websocket is not None:
            self._server.spawn(self._cut(websocket))
        self._finish()

    def _leave(self) -> None:
        self._leaving = True
        if self._body is not None:
            self._body()

    async def closed(self) -> None:
        """Return when the close packet has been written, if somebody is there to write it."""
        if self._writing:
            await self._sent.wait()


class Taken(list[Any]):
    """Packets that a writer has taken, and writes one by one."""

    def __init__(self, packets: list[Any], written: Callable[[], None], lock: threading.RLock) -> None:
        super().__init__(packets)
        self._left: deque[Any] = deque()
        self._written = written
        self._lock = lock

    def drop(self, namespace: str | None) -> bool:
        """Drop those that have not been written yet; say whether attachments that follow belong to one of them."""
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
    """Give what is in a queue, while nobody can take from it."""
    if isinstance(queue, asyncio.Queue):
        yield queue._queue  # type: ignore[attr-defined]  # It has nothing public for it, and one thread uses it.
    else:
        with queue.mutex:
            yield queue.queue


def kept(packets: Iterable[Any], namespace: str | None, *, dropping: bool = False) -> tuple[list[Any], bool]:
    """Return what is not of a namespace; with None, what is of no namespace at all.

    Args:
        packets: all of them, in their order.
        namespace: the name.
        dropping: whether attachments at the beginning are of a packet that was dropped.

    Returns:
        What is left, and whether attachments that follow it are of a packet that was dropped.
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
    """Return the namespace of a packet of Socket.IO from its text frame, without decoding it."""
    start = 1
    while text[start : start + 1].isdigit() or text[start : start + 1] == "-":  # How many attachments it has.
        start += 1
    if text[start : start + 1] != "/":
        return "/"
    end = text.find(",", start)
    return text[start:end] if end >= 0 else text[start:]


def handshake_of(environ: dict[str, Any]) -> Handshake:
    """Return the request that opened an Engine.IO session.

    Raises:
        ValueError: it has too many parameters.
    """
    scope = environ.get("asgi.scope")
    return Handshake.of_environ(environ) if scope is None else Handshake.of_scope(scope)
