"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import socketio
from socketio import packet
from socketio.exceptions import BadNamespaceError
from socketio.exceptions import ConnectionError as NotConnected

from iogate.client.keeper import FLUSH_TIMEOUT, NUDGE, Keeper, accepted, checked, logger
from iogate.client.policy import Action, Ask, Life, Reason, Stop
from iogate.client.refused import ConnectionRefused


class AsyncClient(Keeper, socketio.AsyncClient):  # type: ignore[misc]
    """python-socketio's `AsyncClient`, with a token that is fresh at each connect and as long as it lives.

    Besides the events of the server, handlers may be registered for `token_refreshed` (`{"sub", "exp"}`),
    `token_refresh_failed` (a `Refusal`, or None) and `login_required` (a `Refusal`: the client has stopped, because
    `get_token("login")` gave nothing new). They stay on this side.

    Args:
        get_token: gives a token, or None: there is none; plain or `async def`. It is told why it is asked:
            "connect", "reconnect", "expiring" (the connection lives, its token ends soon), "expired" (the server
            refused the token for that), "login" (the server wants the person to sign in). One question at a time.
        in_band: connect without a token and send it by `authenticate`. `connect` handlers run when that is accepted.
        reconnection: whether to come back when the connection has ended.
        reconnection_attempts: failures in a row after which to stop; 0: never.
        reconnection_delay: seconds to wait after the first failure; every further one doubles it.
        reconnection_delay_max: seconds that are never exceeded.
        options: those of python-socketio.
    """

    def _set_up(self) -> None:
        self._answers: set[asyncio.Future[Any]] = set()
        self._asking = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._attempting = False
        self._reconnect_task: asyncio.Task[None] | None = None
        self._refreshes: set[asyncio.Task[None]] = set()

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
        if self.connected or self._attempting or self._reconnect_task:
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
        await self._follow(action, patient=retry)

    async def disconnect(self) -> None:
        """Disconnect, and stop whatever is going on: attempts, a refresh, a question for a token."""
        self._stopping.set()
        current = asyncio.current_task()
        tasks = {task for task in (self._reconnect_task, *self._refreshes) if task not in {None, current}}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._hang_up()

    async def shutdown(self) -> None:
        """Disconnect."""
        await self.disconnect()

    # Coming in, and back.

    async def _follow(self, action: Action, *, patient: bool) -> None:
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
                    return await self._attempt(life)
                except NotConnected as failure:
                    error = failure
                self._go_on()
                action = self._attempt_failed(life)
            elif action.delay and not patient:
                break
            else:
                await self._pause(action.delay)
                try:
                    token = await self._ask(action.reason)
                except Exception as failure:
                    self._go_on()
                    if not patient:
                        raise
                    action = self._token_failed(action.reason, failure)
                else:
                    action = self._token_given(action.reason, token)
        error = self._stopped(error)
        if self.refusal is not None and self.refusal.retry == "login":
            await self._announce("login_required", self.refusal)
        raise error

    async def _attempt(self, life: Life) -> None:
        self._attempting = True
        try:
            auth = await self._get_real_value(self._where["auth"])
            await super().connect(**self._arguments(auth))
            await self._wait_for_entry(life)
            if self._in_band:
                await self._log_in(life)
            self._go_on()
            if life.over:
                raise NotConnected("the connection has ended")
            self._let_in(life)
        except BaseException:
            await self._hang_up()
            await self._finish()
            self.connected = False
            raise
        finally:
            self._attempting = False
        if self._in_band:
            for namespace in list(self.namespaces):
                await super()._trigger_event("connect", namespace)

    async def _wait_for_entry(self, life: Life) -> None:
        while not self._is_decided(life):
            try:
                await asyncio.wait_for(self._connect_event.wait(), self._where["wait_timeout"])
            except TimeoutError:
                break
            self._connect_event.clear()
        self._check_entry()

    async def _log_in(self, life: Life) -> None:
        token = self._standing.token
        if token is None:
            return
        for namespace in list(self.namespaces):
            try:
                await self._authenticate(life, namespace, token)
            except ConnectionRefused as refused:
                life.refusals[namespace] = refused.refusal
                raise

    def _come_back(self, life: Life, leaving: asyncio.Event | None = None) -> None:
        if life.entered and self._comes_back and not (life.followed or self._stopping.is_set()):
            life.followed = True
            self._reconnect_task = self.start_background_task(self._return, life, leaving)

    async def _return(self, life: Life, leaving: asyncio.Event | None) -> None:
        try:
            await self._finish()
            if leaving is not None:
                await leaving.wait()
            await self._follow(self._ended(life), patient=True)
        except NotConnected as error:
            logger.info("stopped: %s", error)
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        finally:
            if self._reconnect_task is asyncio.current_task():
                self._reconnect_task = None

    async def _pause(self, delay: float) -> None:
        if delay:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
        self._go_on()

    async def _hang_up(self) -> None:
        for namespace in list(self.namespaces):
            await self._send_packet(self.packet_class(packet.DISCONNECT, namespace=namespace))
        if self.eio.state == "connected" and self.transport() == "polling":
            # python-engineio forgets its CLOSE if a POST is on its way: then both sides would wait.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.eio.queue.join(), FLUSH_TIMEOUT)
        hanging_up = asyncio.create_task(self.eio.disconnect())
        await self._nudge(hanging_up)
        await hanging_up

    async def _finish(self) -> None:
        """Wait until the old transport has done all that it does: a new one will share its fields."""
        if self.eio.read_loop_task is not None:
            await self._nudge(self.eio.read_loop_task)

    async def _nudge(self, until: asyncio.Task[Any]) -> None:
        """Help python-engineio's writer to its end: after a CLOSE of the server it misses that it is to stop."""
        while not until.done():
            await asyncio.wait({until}, timeout=NUDGE)
            if self.eio.state != "connected":
                await self.eio.queue.put(None)
        await self.eio.disconnect()  # Nothing is connected any more: this empties the queue.

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise NotConnected("Disconnected")

    # The token.

    async def _ask(self, reason: Reason) -> str | None:
        async with self._asking:
            self._go_on()
            token = self._get_token(reason)
            if inspect.isawaitable(token):
                token = await token
        self._go_on()
        return checked(token)

    async def _authenticate(self, life: Life, namespace: str, token: str) -> object:
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
            return accepted(await asyncio.wait_for(answer, self._where["wait_timeout"]))
        except (TimeoutError, BadNamespaceError) as error:
            raise NotConnected("authenticate was not answered") from error
        finally:
            self._answers.discard(answer)

    async def _refresh(self, life: Life, namespace: str) -> None:
        """Put a new token in the place of the one that ends soon; try until the connection itself ends."""
        token: str | None = None
        failures = 0
        try:
            while not life.over:
                refusal = None
                try:
                    token = token or await self._ask("expiring")
                    if token is not None and self._is_new(token):
                        answer = await self._authenticate(life, self._one_of(namespace), token)
                        self._refreshed(life, token)
                        await self._announce("token_refreshed", answer)
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
                await self._announce("token_refresh_failed", refusal)
                delay = self._refresh_again(refusal, failures)
                if delay is None:
                    return
                failures += 1
                await asyncio.sleep(delay)
        finally:
            life.refreshing = False

    # Between python-socketio and the application.

    async def _trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        life = self._life
        if self._heard(life, event, namespace, args):
            refresh = self.start_background_task(self._refresh, life, namespace)
            self._refreshes.add(refresh)
            refresh.add_done_callback(self._refreshes.discard)
        if self._too_early(life, event):
            return None
        return await super()._trigger_event(event, namespace, *args)

    async def _handle_eio_connect(self) -> None:
        # python-socketio says so when all are in. Who has heard "connect" by then would not hear "disconnect".
        self.connected = True
        await super()._handle_eio_connect()

    async def _handle_disconnect(self, namespace: str) -> None:
        life = self._life
        self._sent_out(life, namespace or "/")
        leaving = asyncio.Event()
        if life.sent_out:
            self._come_back(life, leaving)
        try:
            await super()._handle_disconnect(namespace)
        finally:
            self._connect_event.set()
            leaving.set()

    async def _handle_eio_disconnect(self, reason: str) -> None:
        life = self._life
        life.over = True
        try:
            await super()._handle_eio_disconnect(reason)
        finally:
            self._connect_event.set()
            for answer in self._answers:
                if not answer.done():
                    answer.set_exception(NotConnected("the connection has ended"))
            if reason != self.reason.CLIENT_DISCONNECT:
                self._come_back(life)

    async def _announce(self, event: str, detail: Any) -> None:
        for namespace in list(self.namespaces) or self.connection_namespaces:
            await super()._trigger_event(event, namespace, detail)
