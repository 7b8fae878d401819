"""Engine.IO clients, based on python-engineio, that can wait until a transport has ended.

After `hang_up` or `finish`, no code of the old transport runs. A new transport uses the same attributes and the same
queue, so it must not start earlier.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import aiohttp
import engineio

FLUSH_TIMEOUT = 1.0
"""Seconds to send queued packets when the client disconnects."""

CLOSE_TIMEOUT = 5.0
"""Seconds to wait for the server when the client disconnects; then the client closes the connection itself."""

NUDGE = 0.02
"""Seconds between two checks whether the old transport has ended."""


class AsyncEngine(engineio.AsyncClient):  # type: ignore[misc]
    """The Engine.IO client of `AsyncClient`."""

    read_loop_task: asyncio.Task[Any] | None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._closing = asyncio.Lock()

    async def hang_up(self) -> None:
        """Send queued packets, and close the connection.

        A handler of "disconnect" may call this. The transport is then already ending and waits for the handler, so this
        method does not wait for the transport.
        """
        if self.state == "disconnecting" or asyncio.current_task() is self.read_loop_task:
            return
        async with self._closing:
            if self.state == "connected" and self.read_loop_task is None:
                # Stopped during an upgrade. Stay with polling, so that the server receives the CLOSE.
                self.write_loop_task = self.start_background_task(self._write_loop)
                self.read_loop_task = self.start_background_task(self._read_loop_polling)
            if self.state == "connected" and self.transport() == "polling":
                # python-engineio drops its CLOSE while a POST is in progress. Both sides would then wait for each
                # other.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.queue.join(), FLUSH_TIMEOUT)
            hanging_up = asyncio.create_task(self.disconnect())
            await self._nudge(hanging_up)
            await hanging_up
            self.ws = None  # The object keeps the headers of its request.

    async def finish(self) -> None:
        """Wait until no code of the old, ended transport runs."""
        if self.read_loop_task is not None and self.read_loop_task is not asyncio.current_task():
            async with self._closing:
                await self._nudge(self.read_loop_task)

    async def _nudge(self, until: asyncio.Task[Any]) -> None:
        """Help python-engineio's writer to end: after a CLOSE from the server, it does not notice that it must stop."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + CLOSE_TIMEOUT
        while not until.done():
            await asyncio.wait({until}, timeout=NUDGE)
            if self.state != "connected":
                await self.queue.put(None)
                if loop.time() > patience and self.http is not None and not self.external_http:
                    await self.http.close()  # The server does not answer. This makes open requests fail.
        await self.disconnect()  # The client is no longer connected, so this only resets it and empties the queue.

    async def _send_request(
        self, method: str, url: str, headers: Any = None, body: Any = None, timeout: float | None = None
    ) -> Any:
        """Send a request and read the whole response. Otherwise aiohttp keeps the connection open, and warns later."""
        response = await super()._send_request(method, url, headers=headers, body=body, timeout=timeout)
        if isinstance(response, aiohttp.ClientResponse):
            try:
                async with asyncio.timeout(timeout):
                    await response.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                return str(error)  # python-engineio does the same if there is no response.
        return response


class ThreadedEngine(engineio.Client):  # type: ignore[misc]
    """The Engine.IO client of `Client`."""

    def hang_up(self) -> None:
        """Send queued packets, and close the connection; see `AsyncEngine.hang_up`."""
        if self.state == "disconnecting" or threading.current_thread() is self.read_loop_task:
            return
        if self.state == "connected" and self.transport() == "polling":
            # python-engineio drops its CLOSE while a POST is in progress. Both sides would then wait for each other.
            sending = self.queue
            with sending.all_tasks_done:
                sending.all_tasks_done.wait_for(lambda: not sending.unfinished_tasks, FLUSH_TIMEOUT)
        done = threading.Event()
        nudging = self.start_background_task(self._nudge, done.wait)
        try:
            # Without a read loop, there is nothing to wait for: a handler stopped the client during an upgrade.
            self.disconnect(abort=self.read_loop_task is None)
        finally:
            done.set()
        nudging.join()
        self._clear()

    def finish(self) -> None:
        """Wait until no code of the old, ended transport runs."""
        reader = self.read_loop_task
        if reader is not None and reader is not threading.current_thread():

            def has_ended(timeout: float) -> bool:
                reader.join(timeout)
                return not reader.is_alive()

            self._nudge(has_ended)
            self._clear()

    def _nudge(self, over: Callable[[float], bool]) -> None:
        """Help python-engineio's writer to end: after a CLOSE from the server, it does not notice that it must stop."""
        while not over(NUDGE):
            if self.state != "connected":
                self.queue.put(None)

    def _clear(self) -> None:
        self.disconnect()  # The client is no longer connected, so this only resets it and empties the queue.
        if self.ws is not None:  # If the server closed it, python-engineio leaves this to the garbage collector.
            self.ws.shutdown()
