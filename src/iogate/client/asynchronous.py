"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple

import socketio
from socketio import packet
from socketio.exceptions import BadNamespaceError
from socketio.exceptions import ConnectionError as NotConnected

from iogate.client.calls import call, ignore_result
from iogate.client.engines import AsyncEngine
from iogate.client.keeper import Keeper, accepted, checked
from iogate.client.policy import Action, Ask, Life, Reason, Stop
from iogate.client.refused import ConnectionRefused
from iogate.client.run import Run, logger


class AsyncClient(Keeper, socketio.AsyncClient):  # type: ignore[misc]
    """A python-socketio `AsyncClient` that requests a token for each connection and replaces it before it expires.

    In addition to the server's events, handlers can be registered for three local events, which are not sent to the
    server: `token_refreshed` (`{"sub", "exp"}`), `token_refresh_failed` (a `Refusal`, or None) and `login_required` (a
    `Refusal`: the client has given up, because `get_token("login")` did not return a new token that the server
    accepts).

    Args:
        get_token: returns a token, or None if there is none; plain or `async def`. Its argument is the reason:
            "connect", "reconnect", "expiring" (the token of the live connection expires soon), "expired" (the server
            rejected the token because it has expired), "login" (the server requires the user to sign in). There is one
            call at a time, and its result is used by everything that waits for a token; only "login" always has its own
            call. A plain function blocks the event loop.
        in_band: connect without a token and send it with `authenticate`. `connect` handlers run when the server has
            accepted the token.
        reconnection: if True, reconnect when the connection has ended.
        reconnection_attempts: consecutive failures after which the client gives up; 0 for no limit.
        reconnection_delay: seconds to wait after the first failure. Each further failure doubles the delay.
        reconnection_delay_max: the maximum delay in seconds.
        token_timeout: seconds that `get_token` may take. After that it is cancelled, its result is ignored, and the
            client asks again after a delay. "login" has no limit, because users may take any time to sign in. The same
            limit applies to functions that return the URL, the headers or `auth`.
        options: arguments of python-socketio's client.
    """

    def _set_up(self) -> None:
        self._answers: set[asyncio.Future[Any]] = set()
        self._connect_task: asyncio.Task[None] | None = None
        self._reconnect_task: asyncio.Task[None] | None = None
        self._refreshes: set[asyncio.Task[None]] = set()
        self._handlers: set[asyncio.Task[None]] = set()

    async def connect(
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
        if self.connected or self._run.following:
            raise NotConnected("Already connected")
        run = self._started(
            url=url,
            headers=headers or {},
            auth=auth,
            transports=transports,
            namespaces=namespaces,
            socketio_path=socketio_path,
            wait_timeout=wait_timeout,
        )
        # A separate task, so that `disconnect` can end it wherever it waits.
        task = self._connect_task = asyncio.create_task(self._follow(run, Ask("connect"), patient=retry))
        task.add_done_callback(ignore_result)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            await self._cancel(task)
            raise
        finally:
            if self._connect_task is task:
                self._connect_task = None
        if task.cancelled():
            raise NotConnected("Disconnected")
        task.result()

    async def disconnect(self) -> None:
        """Disconnect, and stop everything in progress: attempts, a refresh, a request for a token.

        The client forgets everything about the user: the token, the arguments of `connect()`, and the result of a
        `get_token` that is still running. The next `connect()` may be for another user.
        """
        run = self._run
        run.stopped = True
        tasks = [self._connect_task, self._reconnect_task, *self._refreshes]
        if run.request is not None:
            run.request.task.cancel()  # The task may ignore this, so nothing waits for its end.
        await self._cancel(*(task for task in tasks if task is not None))
        await self._hang_up()
        self._forget(run)

    async def shutdown(self) -> None:
        """Disconnect."""
        await self.disconnect()

    @staticmethod
    async def _cancel(*tasks: asyncio.Task[Any]) -> None:
        """Cancel tasks and wait until they end, except for the task that calls this."""
        others = [task for task in tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    # Connecting and reconnecting.

    async def _follow(self, run: Run, action: Action, *, patient: bool) -> None:
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
                    life = run.life = Life()
                    try:
                        return await self._attempt(run, life)
                    except Exception as failure:
                        error = failure
                    run.go_on()
                    self._log_attempt(error)
                    action = run.attempt_failed(life)
                elif action.delay and not patient:
                    break
                else:
                    await asyncio.sleep(action.delay)
                    try:
                        token = await self._ask(run, action.reason)
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

    async def _attempt(self, run: Run, life: Life) -> None:
        try:
            await self.eio.finish()
            where = {name: await self._value(name, value) for name, value in run.where.items()}
            self._take_over(run, life)
            await super().connect(**run.arguments(where, in_band=self._in_band))
            await self._wait_for_entry(run, life)
            if self._in_band:
                await self._log_in(run, life)
            run.go_on()
            if life.over:
                raise NotConnected("the connection has ended")
            run.let_in(life, self.namespaces)
        except BaseException:
            await self._hang_up()
            await self.eio.finish()
            self.connected = False
            raise
        if self._in_band:
            for namespace in list(self.namespaces):
                await self._call_handlers("connect", namespace)

    def _take_over(self, run: Run, life: Life) -> None:
        """Handle messages of the next transport only while the run and this connection are the current ones."""

        async def received(data: Any) -> None:
            if self._is_current(run, life):
                await self._handle_eio_message(data)

        self.eio.on("message", received)
        self.eio.read_loop_task = None

    async def _value(self, name: str, value: Any) -> Any:
        """Return an argument of `connect()`. If it is a function, call it and return the result."""
        if callable(value):
            value = await call(value, what=f"the function for {name}", limit=self._token_timeout)
        return value

    async def _wait_for_entry(self, run: Run, life: Life) -> None:
        while not self._is_decided(life):
            try:
                await asyncio.wait_for(self._connect_event.wait(), run.where["wait_timeout"])
            except TimeoutError:
                break
            self._connect_event.clear()
        self._check_entry()

    async def _log_in(self, run: Run, life: Life) -> None:
        token = run.standing.token
        if token is None:
            return
        for namespace in list(self.namespaces):
            try:
                await self._authenticate(run, life, namespace, token)
            except ConnectionRefused as refused:
                life.refusals[namespace] = refused.refusal
                raise

    def _come_back(self, run: Run, life: Life, leaving: asyncio.Event | None = None) -> None:
        if life.entered and self._comes_back and not (life.followed or run.stopped):
            life.followed = run.following = True
            self._reconnect_task = asyncio.create_task(self._return(run, life, leaving))
            self._reconnect_task.add_done_callback(self._returned)

    async def _return(self, run: Run, life: Life, leaving: asyncio.Event | None) -> None:
        try:
            await self.eio.finish()
            if leaving is not None:
                await leaving.wait()
            await self._follow(run, run.ended(life), patient=True)
        except Exception as error:
            logger.info("stopped: %s", error)
        except asyncio.CancelledError:
            if not run.stopped:
                raise
        finally:
            run.following = False

    def _returned(self, task: asyncio.Task[None]) -> None:
        if self._reconnect_task is task:
            self._reconnect_task = None

    async def _hang_up(self) -> None:
        for namespace in list(self.namespaces):
            await self._send_packet(self.packet_class(packet.DISCONNECT, namespace=namespace))
        await self.eio.hang_up()

    # The token.

    async def _ask(self, run: Run, reason: Reason) -> str | None:
        """Return a token from the application. Use the pending request for a token if there is one."""
        while run.request is not None and not run.may_share_request(reason):
            await asyncio.wait({run.request.task})
        run.go_on()
        if run.request is None:
            run.request = _Request(reason, asyncio.create_task(self._request(run, reason)))
            run.request.task.add_done_callback(ignore_result)
        task = run.request.task
        await asyncio.wait({task})
        run.go_on()
        token: str | None = task.result()
        return token

    async def _request(self, run: Run, reason: Reason) -> str | None:
        limit = None if reason == "login" else self._token_timeout
        try:
            return checked(await call(self._get_token, reason, what="get_token", limit=limit))
        finally:
            run.request = None

    async def _authenticate(self, run: Run, life: Life, namespace: str, token: str) -> object:
        """Send a token with `authenticate`, and return the data of the server's acknowledgement.

        Raises:
            ConnectionRefused: the server rejected the token.
            NotConnected: the connection ended first, or the server did not answer in time.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def acknowledged(*args: Any) -> None:
            if not answer.done():
                answer.set_result(args[0] if args else None)

        self._answers.add(answer)
        try:
            if life.over:
                raise NotConnected("the connection has ended")
            await self.emit("authenticate", {"token": token}, namespace=namespace, callback=acknowledged)
            return accepted(await asyncio.wait_for(answer, run.where["wait_timeout"]))
        except (TimeoutError, BadNamespaceError) as error:
            raise NotConnected("authenticate was not answered") from error
        finally:
            self._answers.discard(answer)

    async def _refresh(self, run: Run, life: Life, namespace: str) -> None:
        """Replace the token that expires soon. This task is cancelled when the connection ends."""
        token: str | None = None
        failures = 0
        try:
            while not life.over:
                refusal = None
                try:
                    token = token or await self._ask(run, "expiring")
                    if token is not None and run.is_new(token):
                        answer = await self._authenticate(run, life, self._one_of(namespace), token)
                        run.refreshed(life, token)
                        self._announce("token_refreshed", answer)
                        return
                    token = None
                except ConnectionRefused as error:
                    refusal, token = error.refusal, None
                    life.forgive()
                except Exception as error:
                    self._refresh_failed(error)
                if life.over:
                    return
                self._announce("token_refresh_failed", refusal)
                delay = self._refresh_again(refusal, failures)
                if delay is None:
                    return
                failures += 1
                await asyncio.sleep(delay)
        finally:
            life.refreshing = False

    # Between python-socketio and the application.

    def _engineio_client_class(self) -> type[AsyncEngine]:
        return AsyncEngine

    async def _trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        run = self._run
        life = run.life
        if self._heard(life, event, namespace, args):
            self._keep(self._refreshes, self._refresh(run, life, namespace))
        if self._too_early(life, event):
            return None
        return await super()._trigger_event(event, namespace, *args)

    async def _handle_eio_connect(self) -> None:
        # python-socketio sets this only at the end of `connect()`. If the connection ended before that, it would call
        # no "disconnect" handlers, even if it has already called "connect" handlers.
        self.connected = True
        await super()._handle_eio_connect()

    async def _handle_disconnect(self, namespace: str) -> None:
        run = self._run
        life = run.life
        self._sent_out(life, namespace or "/")
        leaving = asyncio.Event()
        if life.sent_out:
            self._come_back(run, life, leaving)
        try:
            await super()._handle_disconnect(namespace)
        finally:
            self._connect_event.set()
            leaving.set()

    async def _handle_eio_disconnect(self, reason: str) -> None:
        run = self._run
        life = run.life
        life.over = True
        for refresh in self._refreshes:
            refresh.cancel()
        try:
            await super()._handle_eio_disconnect(reason)
        finally:
            self._connect_event.set()
            for answer in self._answers:
                if not answer.done():
                    answer.set_exception(NotConnected("the connection has ended"))
            if reason != self.reason.CLIENT_DISCONNECT:
                self._come_back(run, life)

    def _announce(self, event: str, detail: Any) -> None:
        """Call the handlers of a local event of this package, without waiting for them."""
        for namespace in list(self.namespaces) or list(self.connection_namespaces):
            self._keep(self._handlers, self._call_handlers(event, namespace, detail))

    async def _call_handlers(self, event: str, namespace: str, *args: Any) -> None:
        try:
            await super()._trigger_event(event, namespace, *args)
        except Exception:
            logger.exception("the handler of %r raised", event)

    @staticmethod
    def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)


class _Request(NamedTuple):
    """A pending request for a token."""

    reason: Reason
    task: asyncio.Task[str | None]
