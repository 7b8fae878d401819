"""The client for threads. It has the structure of `asynchronous.py`, with threads instead of tasks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import socketio
from socketio import packet
from socketio.exceptions import BadNamespaceError
from socketio.exceptions import ConnectionError as NotConnected

from iogate.client.calls import Call, Calls
from iogate.client.engines import ThreadedEngine
from iogate.client.keeper import Keeper, accepted, checked
from iogate.client.policy import Action, Ask, Life, Reason, Stop
from iogate.client.refused import ConnectionRefused
from iogate.client.run import Run, logger

_LAST_WORDS = 0.2
"""Seconds to wait at the end of a connection for a reason from the server: a separate thread handles each message."""


class Client(Keeper, socketio.Client):  # type: ignore[misc]
    """A python-socketio `Client` that requests a token for each connection and replaces it before it expires.

    It is `AsyncClient` for programs without an event loop, with the same arguments, events and behaviour. `get_token`
    is a plain function. Each call runs in its own thread.

    A thread cannot be stopped from outside. If `get_token` does not return within `token_timeout`, or before
    `disconnect()`, its thread is abandoned: it continues as a daemon thread, and the client ignores its result. At most
    10 calls run at a time for one client. With that many, the client does not call `get_token`, and backs off until one
    of them returns. So set a timeout for the requests in `get_token`.
    """

    def _set_up(self) -> None:
        self._calls = Calls(self.start_background_task)
        self._told = threading.Event()
        self._following = threading.Lock()
        self._way_in = threading.RLock()
        self._here = threading.local()
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
        """Connect, and return when the server has admitted the client to all the namespaces.

        Args:
            url: the URL of the server, or a function that returns it.
            headers: the headers of the requests, or a function that returns them.
            auth: further fields for the CONNECT payload, in addition to the token; or a function that returns them.
            transports: "polling", "websocket" or both; by default both, in this order.
            namespaces: one or several; by default those that have handlers.
            socketio_path: the path of the server.
            wait_timeout: seconds to wait for each answer of the server.
            retry: if True, back off and retry where that may help, instead of raising.

        Raises:
            ConnectionRefused: the server rejected the client.
            socketio.exceptions.ConnectionError: the server could not be reached or did not answer in time, or the
                client is already connected. Exceptions of `get_token` are raised unchanged. With `retry`, the client
                raises only when it gives up.
        """
        if not self._run.stopped and (self.connected or self._run.following):
            raise NotConnected("Already connected")
        self._wait_for_previous(wait_timeout)
        run = self._started(
            url=url,
            headers=headers or {},
            auth=auth,
            transports=transports,
            namespaces=namespaces,
            socketio_path=socketio_path,
            wait_timeout=wait_timeout,
        )
        self._follow(run, Ask("connect"), patient=retry)

    def disconnect(self) -> None:
        """Disconnect, and stop everything in progress: attempts, a refresh, a request for a token.

        This does not wait for a `get_token` that is running, and its result is ignored. The client forgets everything
        about the user: the token and the arguments of `connect()`. The next `connect()` may be for another user.
        """
        run = self._run
        run.stopped = True
        self._calls.tell()
        if self._connect_event is not None:
            self._connect_event.set()
        # A running attempt ends by itself when it sees `stopped`. If a handler calls this method, do not wait for the
        # attempt: it may be waiting for that handler.
        patience = 0 if getattr(self._here, "handling", False) else run.where.get("wait_timeout", 0)
        if self._way_in.acquire(timeout=patience):
            try:
                self._hang_up()
            finally:
                self._way_in.release()
        if self._reconnect_task is not None and self._reconnect_task is not threading.current_thread():
            self._reconnect_task.join(patience)
        self._forget(run)

    def shutdown(self) -> None:
        """Disconnect."""
        self.disconnect()

    # Connecting and reconnecting.

    def _follow(self, run: Run, action: Action, *, patient: bool) -> None:
        """Follow the policy until the client is admitted; raise if the client gives up.

        Args:
            run: the run that this belongs to.
            action: the first thing to do.
            patient: if True, wait before retries; if False, raise instead of waiting.
        """
        run.following = True
        try:
            error: Exception | None = None
            while not isinstance(action, Stop):
                if not isinstance(action, Ask):
                    life = Life()
                    try:
                        return self._attempt(run, life)
                    except Exception as failure:
                        error = failure
                    run.go_on()
                    self._log_attempt(error)
                    action = run.attempt_failed(life)
                elif action.delay and not patient:
                    break
                else:
                    self._calls.pause(lambda: run.stopped, action.delay)
                    run.go_on()
                    try:
                        token = self._ask(run, action.reason)
                    except Exception as failure:
                        run.go_on()
                        if not patient:
                            raise
                        action = run.token_failed(action.reason, failure)
                    else:
                        action = run.token_given(action.reason, token)
        finally:
            run.following = False  # Reset it before handlers are called: a handler may connect again.
        error, self.refusal = run.failure(error)
        if self.refusal is not None and self.refusal.retry == "login":
            self._announce("login_required", self.refusal)
        raise error

    def _attempt(self, run: Run, life: Life) -> None:
        where = {name: self._value(run, name, value) for name, value in run.where.items()}
        with self._way_in:
            run.go_on()
            self.eio.finish()
            self._told.clear()
            try:
                self._take_over(run, life)
                super().connect(**run.arguments(where, in_band=self._in_band))
                self._wait_for_entry(run, life)
                if self._in_band:
                    self._log_in(run, life)
                run.go_on()
                if life.over:
                    raise NotConnected("the connection has ended")
                run.let_in(life, self.namespaces)
            except BaseException:
                self._hang_up()
                self.eio.finish()
                if life.over:
                    self._hear_out(life)
                self.connected = False
                raise
        if self._in_band:
            for namespace in list(self.namespaces):
                self._call_handlers("connect", namespace)

    def _take_over(self, run: Run, life: Life) -> None:
        """Handle messages of the next transport only while the run and this connection are the current ones."""
        run.life = life

        def received(data: Any) -> None:
            if self._is_current(run, life):
                self._handle_eio_message(data)

        self.eio.on("message", received)
        self.eio.read_loop_task = None

    def _value(self, run: Run, name: str, value: Any) -> Any:
        """Return an argument of `connect()`. If it is a function, call it and return the result."""
        if not callable(value):
            return value
        call = self._calls.begin(value, what=f"the function for {name}", limit=self._token_timeout)
        self._calls.wait(call, lambda: run.stopped)
        run.go_on()
        return call.outcome()

    def _wait_for_previous(self, patience: float) -> None:
        """Wait for an attempt that `disconnect()` has stopped. It ends when its pending HTTP request ends.

        Raises:
            NotConnected: the attempt has not ended after `patience` seconds.
        """
        if not self._way_in.acquire(timeout=patience):
            raise NotConnected("the attempt before has not ended: a request or a handler of it is still running")
        self._way_in.release()

    def _wait_for_entry(self, run: Run, life: Life) -> None:
        while not self._is_decided(life) and not run.stopped and self._connect_event.wait(run.where["wait_timeout"]):
            self._connect_event.clear()
        self._check_entry()

    def _log_in(self, run: Run, life: Life) -> None:
        token = run.standing.token
        if token is None:
            return
        for namespace in list(self.namespaces):
            try:
                self._authenticate(run, life, namespace, token)
            except ConnectionRefused as refused:
                life.refusals[namespace] = refused.refusal
                raise

    def _come_back(self, run: Run, life: Life, leaving: threading.Event | None = None) -> None:
        with self._following:
            if life.entered and self._comes_back and not (life.followed or run.stopped):
                life.followed = run.following = True
                self._reconnect_task = self.start_background_task(self._return, run, life, leaving)

    def _return(self, run: Run, life: Life, leaving: threading.Event | None) -> None:
        try:
            self.eio.finish()
            if leaving is not None:
                leaving.wait()
            self._hear_out(life)
            self._follow(run, run.ended(life), patient=True)
        except Exception as error:
            logger.info("stopped: %s", error)
        finally:
            run.following = False

    def _hear_out(self, life: Life) -> None:
        """Wait briefly, at the end of a connection, for a reason from the server."""
        if not life.refusals:
            self._told.wait(_LAST_WORDS)

    def _hang_up(self) -> None:
        for namespace in list(self.namespaces):
            self._send_packet(self.packet_class(packet.DISCONNECT, namespace=namespace))
        self.eio.hang_up()

    # The token.

    def _ask(self, run: Run, reason: Reason, life: Life | None = None) -> str | None:
        """Return a token from the application. Use the pending request for a token if there is one.

        Args:
            run: the run that the token is for.
            reason: why the token is needed.
            life: the connection that the token is for, if any; the wait ends when the connection ends.

        Raises:
            NotAnswered: `get_token` has not returned in time.
            NotConnected: the run was stopped, or the connection ended.
        """
        call = self._request(run, reason)
        self._calls.wait(call, lambda: run.is_over(life))
        run.go_on()
        if life is not None and life.over and not call.done:
            raise NotConnected("the connection has ended")
        if run.request is call:
            run.request = None
        return checked(call.outcome())

    def _request(self, run: Run, reason: Reason) -> Call:
        limit = None if reason == "login" else self._token_timeout
        with self._calls.changed:
            call: Call | None = run.request
            if call is not None and not run.may_share_request(reason):
                self._calls.wait(call, lambda: run.stopped)
                call = None
            if call is None or call.done:
                call = run.request = self._calls.begin(
                    self._get_token, reason, what="get_token", reason=reason, limit=limit
                )
            return call

    def _authenticate(self, run: Run, life: Life, namespace: str, token: str) -> object:
        """Send a token with `authenticate`, and return the data of the server's acknowledgement.

        Raises:
            ConnectionRefused: the server rejected the token.
            NotConnected: the connection ended first, or the server did not answer in time.
        """
        answer: list[Any] = []

        def acknowledged(*args: Any) -> None:
            answer.append(args[0] if args else None)
            self._calls.tell()

        if run.is_over(life):
            raise NotConnected("the connection has ended")
        try:
            self.emit("authenticate", {"token": token}, namespace=namespace, callback=acknowledged)
        except BadNamespaceError as error:
            raise NotConnected("the connection has ended") from error
        self._calls.pause(lambda: bool(answer) or run.is_over(life), run.where["wait_timeout"])
        if answer:
            return accepted(answer[0])
        raise NotConnected("the connection has ended" if run.is_over(life) else "authenticate was not answered")

    def _refresh(self, run: Run, life: Life, namespace: str) -> None:
        """Replace the token that expires soon. Retry until the connection ends."""
        token: str | None = None
        failures = 0
        try:
            while not run.is_over(life):
                refusal = None
                try:
                    token = token or self._ask(run, "expiring", life)
                    if token is not None and run.is_new(token):
                        answer = self._authenticate(run, life, self._one_of(namespace), token)
                        run.refreshed(life, token)
                        self._announce("token_refreshed", answer)
                        return
                    token = None
                except ConnectionRefused as error:
                    refusal, token = error.refusal, None
                    life.forgive()
                except Exception as error:
                    self._refresh_failed(error)
                if run.is_over(life):
                    return
                self._announce("token_refresh_failed", refusal)
                delay = self._refresh_again(refusal, failures)
                if delay is None:
                    return
                failures += 1
                self._calls.pause(lambda: run.is_over(life), delay)
        finally:
            life.refreshing = False

    # Between python-socketio and the application.

    def _engineio_client_class(self) -> type[ThreadedEngine]:
        return ThreadedEngine

    def _trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        run = self._run
        life = run.life
        if self._heard(life, event, namespace, args):
            self.start_background_task(self._refresh, run, life, namespace)
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
        if self._run.stopped:
            return  # `disconnect()` was called meanwhile. The attempt will notice this and end, so send no CONNECT.
        # python-socketio sets this only at the end of `connect()`. If the connection ended before that, it would call
        # no "disconnect" handlers, even if it has already called "connect" handlers.
        self.connected = True
        super()._handle_eio_connect()

    def _handle_disconnect(self, namespace: str) -> None:
        run = self._run
        life = run.life
        self._sent_out(life, namespace or "/")
        leaving = threading.Event()
        if life.sent_out:
            self._come_back(run, life, leaving)
        try:
            super()._handle_disconnect(namespace)
        finally:
            self._connect_event.set()
            leaving.set()

    def _handle_eio_disconnect(self, reason: str) -> None:
        run = self._run
        life = run.life
        life.over = True
        self._calls.tell()
        try:
            super()._handle_eio_disconnect(reason)
        finally:
            self._connect_event.set()
            if reason != self.reason.CLIENT_DISCONNECT:
                self._come_back(run, life)

    def _announce(self, event: str, detail: Any) -> None:
        """Call the handlers of a local event of this package, without waiting for them."""
        for namespace in list(self.namespaces) or list(self.connection_namespaces):
            self.start_background_task(self._call_handlers, event, namespace, detail)

    def _call_handlers(self, event: str, namespace: str, *args: Any) -> None:
        try:
            super()._trigger_event(event, namespace, *args)
        except Exception:
            logger.exception("the handler of %r raised", event)
