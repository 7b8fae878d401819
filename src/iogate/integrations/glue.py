"""What puts the gate in front of a server of python-socketio, whichever kind it is.

The server keeps its handlers, rooms, sessions and its manager. Its Engine.IO hands every packet to a `Session` first;
its own way of letting a client in (`_handle_connect`, with the application's connect handler) runs as middleware of
the gate; and what it sends goes out only to who has been let in.
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
from iogate.server.attempts import Entry
from iogate.server.gate import hold
from iogate.server.reasons import CloseReason
from iogate.server.rooms import check_not_own
from iogate.server.scopes import Scopes
from iogate.server.server import Server
from iogate.server.socket import Socket

logger = logging.getLogger("iogate")

T = TypeVar("T")

current: contextvars.ContextVar[tuple[str, str]] = contextvars.ContextVar("iogate_current", default=("", ""))
"""The event that is being handled, and the `sid` of whose it is."""
_ids: contextvars.ContextVar[list[str]] = contextvars.ContextVar("iogate_ids")
"""The id that the next socket of python-socketio is to have: the one that it has at the gate."""


def _always() -> None:
    """Allow a call in any case."""


class Glue(ABC):
    """The gate in front of a server.

    Args:
        sio: the server.
        io: iogate's server, whose gate and deadlines are used.
        scopes: those that a token must have to be let into a namespace, by its name.
    """

    def __init__(self, sio: Any, io: Server, scopes: Mapping[str, Scopes]) -> None:
        self.sio = sio
        self.io = io
        self.sockets: dict[str, Socket] = {}
        """By their ids, from before the application's connect handler to after its disconnect handler."""
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
        # Whatever namespace somebody asks for, the server decides on it too, and its handlers serve it.
        named = [io.of(name, scopes=needed) for name, needed in {ROOT: (), **scopes}.items()]
        for place in (*named, io.of(self._exists)):
            place.use(self._enter)
            place.on("connect", self._entered)
            place.on("refresh", self._renewed)
            place.on("disconnect", self._left)

    # How a server of this kind is called, and calls. These are the only differences between the kinds.

    @abstractmethod
    async def _call(self, check: Callable[[], None], name: str, *args: Any) -> Any:
        """Call an original method of the server, from the event loop of the gate.

        Args:
            check: raises if the call must not be made any more; there is no wait between it and the call.
            name: the name of the method.
            args: its arguments.
        """

    @abstractmethod
    def at_the_gate(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the event loop of the gate, from wherever the server calls."""

    @abstractmethod
    def finish(self, work: Coroutine[Any, Any, None]) -> Any:
        """Return what the application gets of a coroutine of the gate: what it awaits, or the result."""

    @abstractmethod
    async def _end(self, socket: Any) -> None:
        """End an Engine.IO socket."""

    @abstractmethod
    def engine_connected(self, sid: str, environ: dict[str, Any]) -> Any:
        """Take a new Engine.IO session; what is neither None nor True refuses it."""

    @abstractmethod
    def engine_message(self, sid: str, data: Any) -> Any:
        """Take a frame."""

    @abstractmethod
    def engine_disconnected(self, sid: str, reason: str) -> Any:
        """Take note of the end of an Engine.IO session."""

    @abstractmethod
    def send_packet(self, sid: str, packet: Any) -> Any:
        """Stand in for `_send_packet`."""

    @abstractmethod
    def send_eio_packet(self, sid: str, packet: Any) -> Any:
        """Stand in for `_send_eio_packet`."""

    @abstractmethod
    def trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        """Stand in for `_trigger_event`."""

    @abstractmethod
    def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> Any:
        """Stand in for the method of that name."""

    @abstractmethod
    def shutdown(self) -> Any:
        """Stand in for the method of that name."""

    # What the server's Engine.IO tells. All of it on the event loop of the gate.

    def _open(self, sid: str, environ: dict[str, Any]) -> str | None:
        """Begin a session; or return why there is none."""
        try:
            handshake = handshake_of(environ)
            if "j" in handshake.query:  # JSONP: any page could read the session that it opens with a visitor's cookie.
                raise ValueError
            if wants_websocket(environ) != (handshake.query.get("transport") == "websocket"):
                raise ValueError
            handshake.address = self.io.proxies.client(handshake.address, handshake.headers)
            self.io.pending.check(handshake.address)
        except AuthError as refusal:
            return refusal.message
        except ValueError:
            return "Bad request"
        session = Session(self.io, sid, handshake)
        session.transport = self._transport(session, self.sio.eio.sockets[sid])
        session.transport.limit(session.max_body)
        self._sessions[sid] = session
        self.io.take(session)
        self.io._ping_due.start(session)
        return None

    @abstractmethod
    def _transport(self, session: Session, socket: Any) -> EngineTransport: ...

    def _read(self, sid: str, data: str | bytes) -> Packet | None:
        session = self._sessions.get(sid)
        return None if session is None else session.read(data)

    def _check(self, session: Session, socket: Any, message: str | bytes) -> None:
        """Check a message of a WebSocket before python-engineio parses it; end the session if it is not a packet.

        Raises:
            ProtocolError: it is not a packet.
        """
        try:
            check_message(message, session.max_body, upgrading=socket.upgrading)
        except ProtocolError as error:
            self.at_the_gate(self._fail, session, error)
            raise

    def _fail(self, session: Session, error: ProtocolError) -> None:
        """End a session whose client has broken the protocol; its reader stops."""
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

    # What the gate asks for, as an application of iogate's.

    def _exists(self, name: str) -> bool:
        """Say whether the server has a namespace, as its `_handle_connect` does."""
        sio = self.sio
        if "?" in name:  # python-socketio cuts off what follows: it would be another namespace there.
            return False
        return name in sio.handlers or name in sio.namespace_handlers or sio.namespaces == "*" or name in sio.namespaces

    async def _enter(self, socket: Socket) -> None:
        """Let the server and the application's connect handler decide on a socket too."""
        session, name = _session(socket), socket.namespace.name
        attempt = session.attempts.get(name)
        payload = attempt.payload if isinstance(attempt, Entry) else None  # With the token: handlers may look at it.

        def check() -> None:
            """Check after the waits that the identity still holds; give python-socketio the gate's id."""
            if socket.authenticated and self.io.auth is not None:
                hold(socket.principal, self.io.auth, self.io.revocations)
            _ids.set([socket.id])

        if (gone := self._gone.get((session.sid, name))) is not None:
            await gone.wait()  # The one before: python-socketio has one socket of a client in a namespace.
        await session.connecting.acquire()  # `_settle` releases it when the server has no half-entered socket.
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
            # The verdict follows at once: nothing is awaited after the middleware.
            asyncio.get_running_loop().call_soon(self._settle, session, name, decision)

    def _settle(self, session: Session, name: str, decision: Decision) -> None:
        """See to it that the server has only sockets that the gate has let in."""
        if session.deciding.get(name) is decision:
            del session.deciding[name]
        socket = session.sockets.get(name)
        if socket is None or socket.id != decision.socket_id:
            self.io.spawn(self._clear(session, name, decision))
        else:
            session.connecting.release()

    async def _clear(self, session: Session, name: str, decision: Decision) -> None:
        if decision.work is not None:  # Until it has ended the server may still enter the socket.
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
            self.sio.manager.basic_disconnect(socket_id, name)  # The failing handler has prevented this.
            self.sockets.pop(socket_id, None)

    def _entered(self, socket: Socket) -> None:
        """Send what was kept: its client has been told now that it is let in."""
        session, name = _session(socket), socket.namespace.name
        self._renewed(socket)
        with session.transport.lock:  # Nothing may overtake it.
            decision = session.deciding.pop(name, None)
            for packet in decision.held if decision is not None else ():
                session.put(packet)

    def _renewed(self, socket: Socket, *_: Any) -> None:
        """Have somebody in the room of his own, also a guest who has authenticated now."""
        if socket.authenticated and socket.principal.subject:
            name = socket.namespace.name
            self.sio.manager.basic_enter_room(socket.id, name, self.io._room_of(socket.principal))

    async def _left(self, socket: Socket, reason: str) -> None:
        session, name = _session(socket), socket.namespace.name
        gone = self._gone[session.sid, name] = asyncio.Event()
        try:
            await self._disconnect(session, name, socket.id, self._reason(reason))
        finally:
            self._gone.pop((session.sid, name), None)
            gone.set()

    # Rooms that the application names. A name may come from a client, so it must not lead to another user.

    def enter_room(self, sid: str, room: Any, namespace: str | None = None) -> Any:
        """Replace the method of that name. Raises `ConfigurationError` for a reserved room."""
        return self._of_rooms("enter_room", room, sid, room, namespace)

    def leave_room(self, sid: str, room: Any, namespace: str | None = None) -> Any:
        """Replace the method of that name. Raises `ConfigurationError` for a reserved room."""
        return self._of_rooms("leave_room", room, sid, room, namespace)

    def close_room(self, room: Any, namespace: str | None = None) -> Any:
        """Replace the method of that name. Raises `ConfigurationError` for a reserved room."""
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

    # What the server sends.

    def _lets_out(self, session: Session, packet: Any) -> bool:
        """Say whether a packet is the server's to send. What is about connecting is the gate's."""
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
            session.dismiss(socket, CloseReason.SERVER_DISCONNECT)

    def _send(self, sid: str, packet: Any) -> None:
        """Send a packet of the server's, past the gate as all of them."""
        session = self._sessions.get(sid)
        if session is None or not self._lets_out(session, packet):
            return
        encoded = packet.encode()
        with session.transport.lock:  # Attachments follow at once.
            for data in encoded if isinstance(encoded, list) else [encoded]:
                session.put(EnginePacket(MESSAGE, data))

    def _put(self, sid: str, packet: Any) -> None:
        session = self._sessions.get(sid)
        if session is not None:
            session.put(packet)

    def _refuse_if_undecided(self, sid: str, namespace: str | None) -> None:
        """Take note that the application disconnects somebody in the connect handler."""
        socket = self.sockets.get(sid)
        if socket is not None:
            decision = _session(socket).deciding.get(namespace or "/")
            if decision is not None and decision.socket_id == sid:
                decision.refuse()

    def _is_over(self, event: str, args: tuple[Any, ...]) -> bool:
        """Return True if the client of an event has left while the event waited for its task or thread."""
        if event in self.sio.reserved_events:
            return False
        socket = self.sockets.get(args[0])
        return socket is None or not socket.connected

    @staticmethod
    @contextlib.contextmanager
    def _serving(event: str, args: tuple[Any, ...]) -> Iterator[None]:
        """Take note of whose event is handled. What its handler gets are the client's words, in part."""
        token = current.set((event, str(args[0])))
        try:
            yield
        finally:
            current.reset(token)

    @contextlib.contextmanager
    def _reading(self, sid: str) -> Iterator[None]:
        """End a session whose reader fails: python-engineio would leave it as it is."""
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
