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
    """python-socketio's `AsyncClient`, with a token that is fresh at each connect and as long as it lives.

    Besides the events of the server, handlers may be registered for `token_refreshed` (`{"sub", "exp"}`),
    `token_refresh_failed` (a `Refusal`, or None) and `login_required` (a `Refusal`: the client has stopped, because
    `get_token("login")` gave nothing new). They stay on this side.

    Args:
        get_token: gives a token, or None: there is none; plain or `async def`. It is told why it is asked:
            "connect", "reconnect", "expiring" (the connection lives, its token ends soon), "expired" (the server
            refused the token for that), "login" (the server wants the person to sign in). There is one request at a
            time, whose answer is used by all that wait for a token. A plain function blocks the event loop.
        in_band: connect without a token and send it by `authenticate`. `connect` handlers run when that is accepted.
        reconnection: whether to come back when the connection has ended.
        reconnection_attempts: failures in a row after which to stop; 0: never.
        reconnection_delay: seconds to wait after the first failure; every further one doubles it.
        reconnection_delay_max: seconds that are never exceeded.
        token_timeout: seconds that `get_token` may take. Then it is cancelled, what it returns later is ignored, and
            the client asks again after a delay. "login" has no limit, because a person may take any time. The same
            limit applies to functions that return the URL, the headers or `auth`.
        options: those of python-socketio.
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

        Everything about the user is forgotten: the token, the arguments of `connect()`, and the answer of a
        `get_token` that is still running. The next `connect()` may be for another user.
        """
        run = self._run
        run.stopped = True
        tasks = [self._connect_task, self._reconnect_task, *self._refreshes]
        if run.request is not None:
            run.request.task.cancel()  # It may not end; nothing waits for that.
        await self._cancel(*(task for task in tasks if task is not None))
        await self._hang_up()
        self._forget(run)

    async def shutdown(self) -> None:
        """Disconnect."""
        await self.disconnect()

    @staticmethod
    async def _cancel(*tasks: asyncio.Task[Any]) -> None:
        """Cancel tasks and wait for their end, except for the task that calls this."""
        others = [task for task in tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    # Coming in, and back.

    async def _follow(self, run: Run, action: Action, *, patient: bool) -> None:
        """Do what the policy says until the client is let in; raise if that does not come to pass.

        Args:
            run: the run that this belongs to.
            action: the first thing to do.
            patient: whether to do what is to be done later.
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
            run.following = False  # Before the handlers are called: one of them may connect again.
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
        """Read messages of the next transport as part of this life only."""

        async def received(data: Any) -> None:
            if self._is_current(run, life):
                await self._handle_eio_message(data)

        self.eio.on("message", received)
        self.eio.read_loop_task = None

    async def _value(self, name: str, value: Any) -> Any:
        """Return an argument of `connect()`; if it is a function, what that returns."""
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
        """Return a token from the application, from the open request if there is one."""
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
        """Send a token in band, and return what the server acknowledged.

        Raises:
            ConnectionRefused: the server said no.
            NotConnected: the connection ended before it said anything, or it says nothing.
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
        """Replace the token that expires soon. This is cancelled when the connection ends."""
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
        # python-socketio says so when all are in. Who has heard "connect" by then would not hear "disconnect".
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
        """Call the handlers of an event of this package, without waiting for them."""
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
    """The open request for a token."""

    reason: Reason
    task: asyncio.Task[str | None]
