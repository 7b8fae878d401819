"""The client for threads: the one for asyncio, with threads where that has tasks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import socketio
from socketio import packet
from socketio.exceptions import BadNamespaceError
from socketio.exceptions import ConnectionError as NotConnected

from iogate.client.keeper import FLUSH_TIMEOUT, NUDGE, Keeper, accepted, checked, logger
from iogate.client.policy import Action, Ask, Life, Reason, Stop
from iogate.client.refused import ConnectionRefused

_LAST_WORDS = 0.2
"""Seconds to wait for what the server may have said about the end: each message is read in a thread of its own."""
_ENDED = object()


class Client(Keeper, socketio.Client):  # type: ignore[misc]
    """python-socketio's `Client`, with a token that is fresh at each connect and as long as it lives.

    It is `AsyncClient` for programs without an event loop: the same arguments, events and behaviour. `get_token` is a
    plain function, and is called in threads.
    """

    def _set_up(self) -> None:
        self._answers: set[queue.SimpleQueue[Any]] = set()
        self._asking = threading.Lock()
        self._stopping = threading.Event()
        self._told = threading.Event()
        self._following = threading.Lock()
        self._way_in = threading.RLock()
        self._here = threading.local()
        self._attempting = False
        self._reconnect_task: threading.Thread | None = None

    def connect(
        self,
        url: Any,
        headers: Any = None,
        auth: Any = None,
        transports: Sequence[str] | None = None,
        namespaces: str | Sequence[str] | None = None,
        socketio_path: str = "socket.io",
        wait_timeout: float = 5.0,
        retry: bool = False,
    ) -> None:
        """Connect, and return when the client is let in to all the namespaces.

        Args:
            url: of the server; or a function that gives it.
            headers: of the requests; or a function that gives them.
            auth: more for the payload of CONNECT, beside the token; or a function that gives it.
            transports: "polling", "websocket"; by default both, in this order.
            namespaces: one or several; by default those with handlers.
            socketio_path: where the server is.
            wait_timeout: seconds that the server may take to decide.
            retry: back off and try again where that may help, instead of raising.

        Raises:
            ConnectionRefused: the server refused.
            socketio.exceptions.ConnectionError: it could not be reached, or did not decide in time. What `get_token`
                raises is raised too. Nothing of both with `retry`, as long as there is hope.
        """
        if self.connected or self._attempting or self._is_returning():
            raise NotConnected("Already connected")
        self._stopping.clear()
        action = self._started(
            url=url,
            headers=headers or {},
            auth=auth,
            transports=transports,
            namespaces=namespaces,
            socketio_path=socketio_path,
            wait_timeout=wait_timeout,
        )
        self._follow(action, patient=retry)

    def disconnect(self) -> None:
        """Disconnect, and stop whatever is going on. A `get_token` that is running is not waited for long."""
        self._stopping.set()
        # An attempt ends by itself when it sees that; it may wait for the very handler that this is called from.
        patience = 0 if getattr(self._here, "handling", False) else self._where.get("wait_timeout", 0)
        if self._way_in.acquire(timeout=patience):
            try:
                self._hang_up()
            finally:
                self._way_in.release()
        if self._reconnect_task is not None and self._reconnect_task is not threading.current_thread():
            self._reconnect_task.join(patience)

    def shutdown(self) -> None:
        """Disconnect."""
        self.disconnect()

    # Coming in, and back.

    def _follow(self, action: Action, *, patient: bool) -> None:
        """Do what the policy says until the client is let in; raise if that does not come to pass.

        Args:
            action: the first thing to do.
            patient: whether to do what is to be done later.
        """
        error: Exception | None = None
        while not isinstance(action, Stop):
            if not isinstance(action, Ask):
                life = self._life = Life()
                try:
                    with self._way_in:
                        return self._attempt(life)
                except NotConnected as failure:
                    error = failure
                self._go_on()
                action = self._attempt_failed(life)
            elif action.delay and not patient:
                break
            else:
                self._stopping.wait(action.delay)
                self._go_on()
                try:
                    token = self._ask(action.reason)
                except Exception as failure:
                    self._go_on()
                    if not patient:
                        raise
                    action = self._token_failed(action.reason, failure)
                else:
                    action = self._token_given(action.reason, token)
        error = self._stopped(error)
        if self.refusal is not None and self.refusal.retry == "login":
            self._announce("login_required", self.refusal)
        raise error

    def _attempt(self, life: Life) -> None:
        self._attempting = True
        self._told.clear()
        try:
            auth = self._get_real_value(self._where["auth"])
            super().connect(**self._arguments(auth))
            self._wait_for_entry(life)
            if self._in_band:
                self._log_in(life)
            self._go_on()
            if life.over:
                raise NotConnected("the connection has ended")
            self._let_in(life)
        except BaseException:
            self._hang_up()
            self._finish()
            if life.over:
                self._hear_out(life)
            self.connected = False
            raise
        finally:
            self._attempting = False
        if self._in_band:
            for namespace in list(self.namespaces):
                super()._trigger_event("connect", namespace)

    def _wait_for_entry(self, life: Life) -> None:
        while not self._is_decided(life) and self._connect_event.wait(self._where["wait_timeout"]):
            self._connect_event.clear()
        self._check_entry()

    def _log_in(self, life: Life) -> None:
        token = self._standing.token
        if token is None:
            return
        for namespace in list(self.namespaces):
            try:
                self._authenticate(life, namespace, token)
            except ConnectionRefused as refused:
                life.refusals[namespace] = refused.refusal
                raise

    def _come_back(self, life: Life, leaving: threading.Event | None = None) -> None:
        with self._following:
            if life.entered and self._comes_back and not (life.followed or self._stopping.is_set()):
                life.followed = True
                self._reconnect_task = self.start_background_task(self._return, life, leaving)

    def _return(self, life: Life, leaving: threading.Event | None) -> None:
        try:
            self._finish()
            if leaving is not None:
                leaving.wait()
            self._hear_out(life)
            self._follow(self._ended(life), patient=True)
        except NotConnected as error:
            logger.info("stopped: %s", error)

    def _hear_out(self, life: Life) -> None:
        """Wait a little, at the end of a connection, for the reason that the server may have given."""
        if not life.refusals:
            self._told.wait(_LAST_WORDS)

    def _is_returning(self) -> bool:
        return self._reconnect_task is not None and self._reconnect_task.is_alive()

    def _hang_up(self) -> None:
        for namespace in list(self.namespaces):
            self._send_packet(self.packet_class(packet.DISCONNECT, namespace=namespace))
        if self.eio.state == "connected" and self.transport() == "polling":
            # python-engineio forgets its CLOSE if a POST is on its way: then both sides would wait.
            sending = self.eio.queue
            with sending.all_tasks_done:
                sending.all_tasks_done.wait_for(lambda: not sending.unfinished_tasks, FLUSH_TIMEOUT)
        done = threading.Event()
        nudging = self.start_background_task(self._nudge, done.wait)
        try:
            self.eio.disconnect()
        finally:
            done.set()
        nudging.join()
        self._clear()

    def _finish(self) -> None:
        """Wait until the old transport has done all that it does: a new one will share its fields."""
        reader = self.eio.read_loop_task
        if reader is not None:

            def has_ended(timeout: float) -> bool:
                reader.join(timeout)
                return not reader.is_alive()

            self._nudge(has_ended)
        self._clear()

    def _nudge(self, over: Callable[[float], bool]) -> None:
        """Help python-engineio's writer to its end: after a CLOSE of the server it misses that it is to stop."""
        while not over(NUDGE):
            if self.eio.state != "connected":
                self.eio.queue.put(None)

    def _clear(self) -> None:
        self.eio.disconnect()  # Nothing is connected any more: this empties the queue.
        if self.eio.ws is not None:  # If it was the server who closed it, python-engineio leaves that to the collector.
            self.eio.ws.shutdown()

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise NotConnected("Disconnected")

    # The token.

    def _ask(self, reason: Reason) -> str | None:
        with self._asking:
            self._go_on()
            token = self._get_token(reason)
        self._go_on()
        return checked(token)

    def _authenticate(self, life: Life, namespace: str, token: str) -> object:
        """Send a token in band, and return what the server acknowledged.

        Raises:
            ConnectionRefused: the server said no.
            NotConnected: the connection ended before it said anything, or it says nothing.
        """
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def acknowledged(*args: Any) -> None:
            answer.put(args[0] if args else None)

        self._answers.add(answer)
        try:
            if life.over:
                raise NotConnected("the connection has ended")
            self.emit("authenticate", {"token": token}, namespace=namespace, callback=acknowledged)
            told = answer.get(timeout=self._where["wait_timeout"])
        except (queue.Empty, BadNamespaceError) as error:
            raise NotConnected("authenticate was not answered") from error
        finally:
            self._answers.discard(answer)
        if told is _ENDED:
            raise NotConnected("the connection has ended")
        return accepted(told)

    def _refresh(self, life: Life, namespace: str) -> None:
        """Put a new token in the place of the one that ends soon; try until the connection itself ends."""
        token: str | None = None
        failures = 0
        try:
            while not life.over:
                refusal = None
                try:
                    token = token or self._ask("expiring")
                    if token is not None and self._is_new(token):
                        answer = self._authenticate(life, self._one_of(namespace), token)
                        self._refreshed(life, token)
                        self._announce("token_refreshed", answer)
                        return
                    token = None
                except ConnectionRefused as error:
                    refusal, token = error.refusal, None
                    life.forgive()
                except NotConnected:
                    pass
                except Exception as error:
                    logger.warning("get_token('expiring') failed: %s", type(error).__name__)
                if life.over:
                    return
                self._announce("token_refresh_failed", refusal)
                delay = self._refresh_again(refusal, failures)
                if delay is None:
                    return
                failures += 1
                self._stopping.wait(delay)
        finally:
            life.refreshing = False

    # Between python-socketio and the application.

    def _trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        life = self._life
        if self._heard(life, event, namespace, args):
            self.start_background_task(self._refresh, life, namespace)
        if life.refusals:
            self._told.set()
        if self._too_early(life, event):
            return None
        outer = getattr(self._here, "handling", False)
        self._here.handling = True
        try:
            return super()._trigger_event(event, namespace, *args)
        finally:
            self._here.handling = outer

    def _handle_eio_connect(self) -> None:
        # python-socketio says so when all are in. Who has heard "connect" by then would not hear "disconnect".
        self.connected = True
        super()._handle_eio_connect()

    def _handle_disconnect(self, namespace: str) -> None:
        life = self._life
        self._sent_out(life, namespace or "/")
        leaving = threading.Event()
        if life.sent_out:
            self._come_back(life, leaving)
        try:
            super()._handle_disconnect(namespace)
        finally:
            self._connect_event.set()
            leaving.set()

    def _handle_eio_disconnect(self, reason: str) -> None:
        life = self._life
        life.over = True
        try:
            super()._handle_eio_disconnect(reason)
        finally:
            self._connect_event.set()
            for answer in list(self._answers):
                answer.put(_ENDED)
            if reason != self.reason.CLIENT_DISCONNECT:
                self._come_back(life)

    def _announce(self, event: str, detail: Any) -> None:
        for namespace in list(self.namespaces) or self.connection_namespaces:
            super()._trigger_event(event, namespace, detail)
