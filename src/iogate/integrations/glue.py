"""The base class that puts the gate in front of a python-socketio server, asynchronous or threaded.

The server keeps its handlers, rooms, sessions and manager. Its Engine.IO passes every packet to a `Session` first. Its
own method that accepts a client (`_handle_connect`, which calls the application's connect handler) runs as middleware
of the gate. Its packets are sent only to clients that the gate has admitted.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from engineio.packet import MESSAGE
from engineio.packet import Packet as EnginePacket
from socketio.packet import CONNECT, CONNECT_ERROR, DISCONNECT

from iogate.errors import AuthError, ProtocolError
from iogate.integrations.engine import EngineTransport, handshake_of
from iogate.integrations.incoming import check_message, wants_websocket
from iogate.integrations.layout import OF_ROOMS, SIGNATURES
from iogate.integrations.session import Decision, Session
from iogate.printable import printable
from iogate.protocol.socketio.packets import ROOT, Packet
from iogate.server.gate.attempts import Admission
from iogate.server.gate.gate import ensure_still_valid
from iogate.server.namespaces.rooms import check_not_own
from iogate.server.namespaces.scopes import Scopes
from iogate.server.namespaces.socket import Socket
from iogate.server.server import Server, core_of
from iogate.server.session.reasons import CloseReason

logger = logging.getLogger("iogate")

T = TypeVar("T")

current: contextvars.ContextVar[tuple[str, str]] = contextvars.ContextVar("iogate_current", default=("", ""))
"""The event that is being handled, and the `sid` of the client that sent it; two empty strings outside of handlers."""
_ids: contextvars.ContextVar[list[str]] = contextvars.ContextVar("iogate_ids")
"""The id for python-socketio's next socket: the id that the same socket has at the gate."""


def _always() -> None:
    """Allow every call."""


class Glue(ABC):
    """The gate in front of a server.

    Args:
        sio: the server.
        io: iogate's server, whose gate and deadlines are used.
        scopes: the scopes that a token must have to enter a namespace, by the name of the namespace.
    """

    def __init__(self, sio: Any, io: Server, scopes: Mapping[str, Scopes]) -> None:
        self.sio = sio
        self.io = io
        self.core = core_of(io)
        self.sockets: dict[str, Socket] = {}
        """The sockets by id, from before the application's connect handler until after its disconnect handler."""
        self._sessions: dict[str, Session] = {}
        self._gone: dict[tuple[str, str], asyncio.Event] = {}
        self._original = {name: getattr(sio, name) for name in SIGNATURES}
        self._generate_id = sio.eio.generate_id
        sio.eio.generate_id = self._next_id
        log_error_once = sio.eio._log_error_once
        sio.eio._log_error_once = lambda message, key: log_error_once(printable(message), key)
        sio.__iogate__ = io
        for name in ("_send_packet", "_send_eio_packet", "_trigger_event", "disconnect", "shutdown", *OF_ROOMS):
            setattr(sio, name, getattr(self, name.lstrip("_")))
        sio.eio.on("connect", self.engine_connected)
        sio.eio.on("message", self.engine_message)
        sio.eio.on("disconnect", self.engine_disconnected)
        # In every namespace of the server, the server decides on a client too, and its handlers serve it.
        named = [io.of(name, scopes=needed) for name, needed in {ROOT: (), **scopes}.items()]
        for place in (*named, io.of(self._exists)):
            place.use(self._enter)
            place.on("connect", self._entered)
            place.on("refresh", self._renewed)
            place.on("disconnect", self._left)

    # Calls between the gate and the server. The abstract methods are the only differences between the kinds of servers.

    @abstractmethod
    async def _call(self, check: Callable[[], None], name: str, *args: Any) -> Any:
        """Call an original method of the server, from the event loop of the gate.

        Args:
            check: raises if the call must not be made any more. Nothing is awaited between it and the call.
            name: the name of the method.
            args: the arguments of the method.
        """

    @abstractmethod
    def at_the_gate(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the event loop of the gate, from any thread of the server, and return its result."""

    @abstractmethod
    def finish(self, work: Coroutine[Any, Any, None]) -> Any:
        """Return what the application gets for a coroutine of the gate: an awaitable, or the coroutine's result."""

    @abstractmethod
    async def _end(self, socket: Any) -> None:
        """End an Engine.IO socket, without waiting for queued packets."""

    @abstractmethod
    def engine_connected(self, sid: str, environ: dict[str, Any]) -> Any:
        """Handle a new Engine.IO session. A return value other than None or True rejects it."""

    @abstractmethod
    def engine_message(self, sid: str, data: Any) -> Any:
        """Handle a message of a client."""

    @abstractmethod
    def engine_disconnected(self, sid: str, reason: str) -> Any:
        """Handle the end of an Engine.IO session."""

    @abstractmethod
    def send_packet(self, sid: str, packet: Any) -> Any:
        """Replace the server's `_send_packet`."""

    @abstractmethod
    def send_eio_packet(self, sid: str, packet: Any) -> Any:
        """Replace the server's `_send_eio_packet`."""

    @abstractmethod
    def trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        """Replace the server's `_trigger_event`."""

    @abstractmethod
    def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> Any:
        """Replace the server's `disconnect`."""

    @abstractmethod
    def shutdown(self) -> Any:
        """Replace the server's `shutdown`."""

    # Events of the server's Engine.IO. All of these methods except `_check` run on the event loop of the gate.

    def _open(self, sid: str, environ: dict[str, Any]) -> str | None:
        """Open a session. Return None, or the reason why the request is rejected, for the client."""
        try:
            handshake = handshake_of(environ)
            if "j" in handshake.query:  # JSONP: any page could read the session that it opens with a visitor's cookie.
                raise ValueError
            if wants_websocket(environ) != (handshake.query.get("transport") == "websocket"):
                raise ValueError
            handshake.address = self.core.proxies.client(handshake.address, handshake.headers)
            self.core.sessions.pending.check(handshake.address)
        except AuthError as refusal:
            return refusal.message
        except ValueError:
            return "Bad request"
        session = Session(self.core.gate, sid, handshake)
        session.transport = self._transport(session, self.sio.eio.sockets[sid])
        session.transport.limit(session.max_body)
        self._sessions[sid] = session
        self.core.gate.add(session)
        self.core.sessions.ping_timer.start(session)
        return None

    @abstractmethod
    def _transport(self, session: Session, socket: Any) -> EngineTransport: ...

    def _read(self, sid: str, data: str | bytes) -> Packet | None:
        session = self._sessions.get(sid)
        return None if session is None else session.read(data)

    def _check(self, session: Session, socket: Any, message: str | bytes) -> None:
        """Check a WebSocket message before python-engineio parses it, and end the session if it is not valid.

        Raises:
            ProtocolError: the message is too large, or not a packet that the client may send.
        """
        try:
            check_message(message, session.max_body, upgrading=socket.upgrading)
        except ProtocolError as error:
            self.at_the_gate(self._fail, session, error)
            raise

    def _fail(self, session: Session, error: ProtocolError) -> None:
        """End a session whose client has violated the protocol."""
        if session.open:
            logger.info("closed: %s", error)
            session.close(CloseReason.PARSE_ERROR, abort=True)

    def _close(self, sid: str) -> None:
        session = self._sessions.pop(sid, None)
        if session is not None:
            session.close(CloseReason.TRANSPORT_CLOSE)

    def _start(self, session: Session, name: str, *args: Any, check: Callable[[], None] = _always) -> asyncio.Task[Any]:
        """Call an original method of the server that runs application code.

        It runs in a copy of the session's context, so it does not see context variables of another client's code, even
        if that code causes the call, for example by a timer.
        """
        return asyncio.create_task(self._call(check, name, *args), context=session.context.copy())

    # The middleware and handlers with which the gate calls the server, like an application of iogate.

    def _exists(self, name: str) -> bool:
        """Return True if the server has a namespace, by the rules of its `_handle_connect`."""
        sio = self.sio
        if "?" in name:  # python-socketio ignores the rest after "?", so it would use another namespace than the gate.
            return False
        return name in sio.handlers or name in sio.namespace_handlers or sio.namespaces == "*" or name in sio.namespaces

    async def _enter(self, socket: Socket) -> None:
        """Let the server and the application's connect handler decide on a socket too.

        Raises:
            Refused: the server or the connect handler has rejected the socket.
        """
        session, name = _session(socket), socket.namespace.name
        attempt = session.attempts.get(name)
        payload = attempt.payload if isinstance(attempt, Admission) else None  # The handler may read the token in it.

        def check() -> None:
            """Check, after everything was awaited, that the token is still valid. Set the id for python-socketio."""
            if socket.authenticated and self.core.auth is not None:
                ensure_still_valid(socket.principal, self.core.auth, self.core.revocations)
            _ids.set([socket.id])

        if (gone := self._gone.get((session.sid, name))) is not None:
            await gone.wait()  # The previous socket must be gone: python-socketio has one per client and namespace.
        await session.connecting.acquire()  # `_settle` or `_clear` releases it, when the server is consistent again.
        decision = session.deciding[name] = Decision(socket.id)
        self.sockets[socket.id] = socket
        try:
            decision.work = self._start(session, "_handle_connect", session.sid, name, payload, check=check)
            await decision.work
            if decision.refusal is None and not self.sio.manager.is_connected(socket.id, name):
                decision.refuse()
            if decision.refusal is not None:
                raise decision.refusal
            self._renewed(socket)  # Messages to the user's room are kept from now on, until the client is admitted.
        finally:
            # The gate awaits nothing after this middleware, so `_settle` runs when the verdict is known.
            asyncio.get_running_loop().call_soon(self._settle, session, name, decision)

    def _settle(self, session: Session, name: str, decision: Decision) -> None:
        """Remove a socket from the server if the gate did not admit it. Then the next connect handler may run."""
        if session.deciding.get(name) is decision:
            del session.deciding[name]
        socket = session.sockets.get(name)
        if socket is None or socket.id != decision.socket_id:
            self.core.sessions.spawn(self._clear(session, name, decision))
        else:
            session.connecting.release()

    async def _clear(self, session: Session, name: str, decision: Decision) -> None:
        if decision.work is not None:  # The server may still register the socket until this has ended.
            await asyncio.gather(decision.work, return_exceptions=True)
        try:  # If the connect handler has run, the disconnect handler must run too.
            await self._disconnect(session, name, decision.socket_id, self.sio.reason.SERVER_DISCONNECT)
        finally:
            session.connecting.release()

    async def _disconnect(self, session: Session, name: str, socket_id: str, reason: str) -> None:
        """Remove a socket from the server, and call the application's disconnect handler."""
        try:
            if self.sio.manager.is_connected(socket_id, name):
                await self._start(session, "_handle_disconnect", session.sid, name, reason)
        except Exception:
            logger.exception("the disconnect handler of %.100r failed", name)
        finally:
            self.sio.manager.basic_disconnect(socket_id, name)  # python-socketio skips this if the handler raises.
            self.sockets.pop(socket_id, None)

    def _entered(self, socket: Socket) -> None:
        """Send the packets that were held until the gate accepted the client's CONNECT."""
        session, name = _session(socket), socket.namespace.name
        self._renewed(socket)
        with session.transport.lock:  # No other packet may overtake the held ones.
            decision = session.deciding.pop(name, None)
            for packet in decision.held if decision is not None else ():
                session.put(packet)

    def _renewed(self, socket: Socket, *_: Any) -> None:
        """Add a socket to the room of its user. A guest that has just authenticated joins it now."""
        if socket.authenticated and socket.principal.subject:
            name = socket.namespace.name
            self.sio.manager.basic_enter_room(socket.id, name, self.core.users.room_of(socket.principal))

    async def _left(self, socket: Socket, reason: str) -> None:
        session, name = _session(socket), socket.namespace.name
        gone = self._gone[session.sid, name] = asyncio.Event()
        try:
            await self._disconnect(session, name, socket.id, self._reason(reason))
        finally:
            self._gone.pop((session.sid, name), None)
            gone.set()

    # Rooms that the application names. A name may come from a client, so it must not be another user's room.

    def enter_room(self, sid: str, room: Any, namespace: str | None = None) -> Any:
        """Replace the server's `enter_room`. Raise `ConfigurationError` for a reserved room."""
        return self._of_rooms("enter_room", room, sid, room, namespace)

    def leave_room(self, sid: str, room: Any, namespace: str | None = None) -> Any:
        """Replace the server's `leave_room`. Raise `ConfigurationError` for a reserved room."""
        return self._of_rooms("leave_room", room, sid, room, namespace)

    def close_room(self, room: Any, namespace: str | None = None) -> Any:
        """Replace the server's `close_room`. Raise `ConfigurationError` for a reserved room."""
        return self._of_rooms("close_room", room, room, namespace)

    def _of_rooms(self, name: str, room: Any, *args: Any) -> Any:
        if isinstance(room, str):
            check_not_own(room)
        return self._original[name](*args)

    def _reason(self, reason: str) -> str:
        reasons = self.sio.reason
        known = {
            CloseReason.CLIENT_DISCONNECT.text: reasons.CLIENT_DISCONNECT,
            CloseReason.TRANSPORT_CLOSE.text: reasons.TRANSPORT_CLOSE,
            CloseReason.PING_TIMEOUT.text: reasons.PING_TIMEOUT,
        }
        return str(known.get(reason, reasons.SERVER_DISCONNECT))

    # Packets that the server sends.

    def _lets_out(self, session: Session, packet: Any) -> bool:
        """Return True if the server may send a packet. The gate itself sends CONNECT, CONNECT_ERROR and DISCONNECT.

        While the connect handler runs, a CONNECT_ERROR or DISCONNECT is recorded as a rejection. Later, a DISCONNECT
        makes the gate disconnect the socket.
        """
        name = packet.namespace or "/"
        if packet.packet_type == CONNECT:
            return False
        if packet.packet_type not in {CONNECT_ERROR, DISCONNECT}:
            return True
        if (decision := session.deciding.get(name)) is not None:
            decision.refuse(packet.data)
        elif packet.packet_type == DISCONNECT:
            self.at_the_gate(self._dismiss, session, name)
        return False

    def _dismiss(self, session: Session, name: str) -> None:
        socket = session.sockets.get(name)
        if socket is not None:
            session.leave_namespace(socket, CloseReason.SERVER_DISCONNECT)

    def _send(self, sid: str, packet: Any) -> None:
        """Send a Socket.IO packet of the server, if the gate allows it."""
        session = self._sessions.get(sid)
        if session is None or not self._lets_out(session, packet):
            return
        encoded = packet.encode()
        with session.transport.lock:  # No packet may come between a packet and its attachments.
            for data in encoded if isinstance(encoded, list) else [encoded]:
                session.put(EnginePacket(MESSAGE, data))

    def _put(self, sid: str, packet: Any) -> None:
        session = self._sessions.get(sid)
        if session is not None:
            session.put(packet)

    def _refuse_if_undecided(self, sid: str, namespace: str | None) -> None:
        """Record a rejection if the application disconnects a client whose connect handler still runs."""
        socket = self.sockets.get(sid)
        if socket is not None:
            decision = _session(socket).deciding.get(namespace or "/")
            if decision is not None and decision.socket_id == sid:
                decision.refuse()

    def _is_over(self, event: str, args: tuple[Any, ...]) -> bool:
        """Return True if the client has disconnected while its event waited for a task or thread."""
        if event in self.sio.reserved_events:
            return False
        socket = self.sockets.get(args[0])
        return socket is None or not socket.connected

    @staticmethod
    @contextlib.contextmanager
    def _serving(event: str, args: tuple[Any, ...]) -> Iterator[None]:
        """Record the event and its sender in `current` while the handler runs.

        The arguments of the handler do not identify the sender, because the client chooses some of them.
        """
        token = current.set((event, str(args[0])))
        try:
            yield
        finally:
            current.reset(token)

    @contextlib.contextmanager
    def _reading(self, sid: str) -> Iterator[None]:
        """End a session whose reader fails, because python-engineio would keep it."""
        try:
            yield
        except Exception as error:
            logger.info("what a WebSocket has sent is no packet: %s", type(error).__name__)
            self.at_the_gate(self._close, sid)

    def _next_id(self) -> str:
        ids = _ids.get([])
        return ids.pop() if ids else str(self._generate_id())


def _session(socket: Socket) -> Session:
    session = socket._connection
    assert isinstance(session, Session)  # noqa: S101
    return session
