"""Key sets that are refreshed in the background: one read at a time, before the keys become stale."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

from iogate.auth.arguments import seconds
from iogate.auth.interface import Changed
from iogate.auth.jws import Compact
from iogate.auth.keyset import Key, KeySet
from iogate.auth.principal import Principal
from iogate.clock import Clock, chance
from iogate.errors import AuthUnavailable, ConfigurationError, InvalidToken
from iogate.keys.fixed import NO_KEY
from iogate.keys.schedule import Schedule

logger = logging.getLogger("iogate")

TIMEOUT = 5.0
"""Seconds after which a read times out, including DNS lookups and both documents of a discovery."""
PATIENCE = 6.0
"""Seconds that a token waits for its key: long enough for one read, and one second more."""


class NotRead(Exception):
    """A read failed. The message is logged, so it must not contain secrets."""


class Refreshed(ABC):
    """Base class of key sets that are refreshed. A subclass implements `_read`.

    If a read fails, the keys of the last successful read stay in use, for `keep_for` seconds after that read. A
    successful read takes effect immediately: a removed key verifies no further tokens.

    Args:
        every: seconds after which the keys are stale, more than 0. They are read again somewhat earlier.
        keep_for: seconds since the last successful read for which its keys may be used.
        cooldown: seconds between two reads that are caused by tokens with an unknown key, from 1 to 3600, so that
            tokens with invented key names cannot cause more reads. During that time, a token with an unknown key is
            rejected as `unavailable`, because its key may be new. It is invalid if a read that started after the token
            was first received does not have its key.
        start_within: seconds that the start of the server waits for the first keys. None: it does not wait, and clients
            are rejected as `unavailable` until there are keys.
        revoke_removed: if True, sockets whose token was signed by a key that was removed are disconnected.
        clock: the clock that schedules the reads.

    Raises:
        ConfigurationError: an argument is not valid.
    """

    def __init__(
        self,
        *,
        every: float,
        keep_for: float,
        cooldown: float,
        start_within: float | None,
        revoke_removed: bool,
        clock: Clock,
    ) -> None:
        if not isinstance(revoke_removed, bool):
            raise ConfigurationError("revoke_removed is True or False")
        self._schedule = Schedule(
            every,
            keep_for,
            seconds("cooldown", cooldown, 1, 3600),
            clock.monotonic(),
            chance,
        )
        self._start_within = None if start_within is None else seconds("start_within", start_within, 0.1, 600)
        self._revoke_removed = revoke_removed
        self._clock = clock
        self._keys: KeySet | None = None
        self._trouble = "it has not answered yet"
        self._listeners: dict[Changed, asyncio.AbstractEventLoop] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()

    @property
    def issuers(self) -> frozenset[str] | None:
        """The issuers of the keys; None if they are not known."""
        return None

    @property
    def keys(self) -> KeySet | None:
        """The keys of the last successful read, which may be too old to be used; None if there was no such read."""
        return self._keys

    @property
    def trouble(self) -> str:
        """The reason why the last read failed, or that there was none yet; empty if it was successful."""
        return self._trouble

    @abstractmethod
    async def _read(self) -> tuple[KeySet, float | None]:
        """Read the keys. Return them, and the number of seconds for which they are fresh, or None.

        Raises:
            NotRead: the read failed. The message is logged, like that of a `ConfigurationError`. Other exceptions also
                mean that the read failed, but their message is not logged.
        """

    def find(self, token: Compact, algorithm: str) -> Key | None:
        """Return the key of the token if it is loaded, or None."""
        if self._keys is None or not self._schedule.usable(self._clock.monotonic()):
            return None
        return self._keys.find(token.header.get("kid"), algorithm)

    async def fetch(self, token: Compact, algorithm: str) -> Key:
        """Return the key of the token, after a new read if one is due or the cooldown allows it.

        Raises:
            InvalidToken: a read that started after the token was first received does not have the key.
            AuthUnavailable: there was no such read yet: it failed, takes too long, or the cooldown forbids it.
        """
        self._keep()
        shown = self._schedule.first_shown(hashlib.sha256(token.signing_input + token.signature).digest())
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._search(token, algorithm)
        except TimeoutError:
            raise AuthUnavailable(f"the keys of {self} are still being read") from None
        if found is not None:
            return found
        if self._schedule.failing or not self._schedule.usable(self._clock.monotonic()):
            raise AuthUnavailable(f"the keys of {self} cannot be read: {self._trouble}")
        if self._schedule.read_since(shown):
            raise InvalidToken(NO_KEY)
        raise AuthUnavailable(f"{NO_KEY}, and the keys of {self} were read too recently to be read again (cooldown)")

    async def _search(self, token: Compact, algorithm: str) -> Key | None:
        # A read in progress may have started before the key was published. Then a second read may find the key.
        for _ in range(2):
            if not self._may_read():
                break
            await self.refresh()
            found = self.find(token, algorithm)
            if found is not None:
                return found
        return None

    async def refresh(self) -> None:
        """Read the keys now, or wait for the read in progress. A failure is logged, and the keys do not change."""
        await self._there(self._refresh)

    def holds(self, principal: Principal) -> bool:
        """Return True if the key that signed an identity is still in the set, or `revoke_removed` is False."""
        keys = self._keys
        return not self._revoke_removed or keys is None or principal.key_thumbprint in keys.thumbprints

    def start(self, changed: Changed) -> None:
        """Start to refresh the keys on the running event loop, and call `changed` when a key was removed."""
        self._listeners[changed] = asyncio.get_running_loop()
        self._keep()

    async def ready(self) -> None:
        """Wait until the first keys are loaded. Return immediately if `start_within` is None.

        Raises:
            AuthUnavailable: no keys are loaded after `start_within` seconds.
        """
        if self._start_within is None:
            return
        try:
            async with asyncio.timeout(self._start_within):
                await self._there(lambda: self._arrived.wait())
        except TimeoutError:
            raise AuthUnavailable(
                f"there are no keys of {self} after {self._start_within:g} seconds: {self._trouble}"
                " (start_within=None starts all the same, and refuses everybody until there are)"
            ) from None

    async def stop(self, changed: Changed) -> None:
        """Stop what `start` started for this `changed`. The refresh stops when no server uses these keys any more."""
        self._listeners.pop(changed, None)
        if self._listeners or self._loop is not asyncio.get_running_loop():
            return
        tasks = [task for task in (self._keeper, self._reading) if task is not None]
        self._keeper = self._reading = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _there(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run a coroutine on the event loop that refreshes the keys."""
        loop = self._keep()
        if loop is asyncio.get_running_loop():
            await work()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), loop))

    async def _refresh(self) -> None:
        self._keep()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_once())
        await asyncio.shield(self._reading)

    def _keep(self) -> asyncio.AbstractEventLoop:
        """Ensure that a task refreshes the keys, and return its event loop.

        It is the first event loop that called this, as long as that loop runs. A process may have two event loops: the
        one of the server, and one in a background thread for code that runs in threads.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and self._loop.is_running():
                return self._loop
            self._loop, self._keeper, self._reading = loop, None, None
            arrived = self._arrived.is_set()
            self._arrived = asyncio.Event()
            if arrived:
                self._arrived.set()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_fresh())
        return loop

    async def _keep_fresh(self) -> None:
        while True:
            wait = self._schedule.due - self._clock.monotonic()
            if wait > 0:  # During the sleep, a read for an unknown key may change `due`, so check it again.
                await asyncio.sleep(wait)
            else:
                await self.refresh()

    def _may_read(self) -> bool:
        """Return True if a token whose key is not loaded may start a read, or wait for the read in progress."""
        now = self._clock.monotonic()
        if self._reading is not None:
            return True
        return self._schedule.look(now) if self._schedule.usable(now) else self._schedule.due <= now

    async def _read_once(self) -> None:
        self._schedule.begun()
        try:
            async with asyncio.timeout(TIMEOUT):
                keys, fresh_for = await self._read()
        except Exception as error:
            self._schedule.failed(self._clock.monotonic())
            self._failed(error)
        else:
            self._schedule.succeeded(self._clock.monotonic(), fresh_for)
            self._arrived.set()
            self._replace(keys)
        finally:
            self._reading = None

    def _failed(self, error: Exception) -> None:
        told = isinstance(error, (NotRead, ConfigurationError))
        trouble = (
            str(error) if told else "it took too long" if isinstance(error, TimeoutError) else type(error).__name__
        )
        if trouble != self._trouble:
            kept = "" if self._keys is None else "; those read before go on serving for now"
            logger.warning("the keys of %s could not be read: %s%s", self, trouble, kept)
        self._trouble = trouble

    def _replace(self, keys: KeySet) -> None:
        before, self._keys, self._trouble = self._keys, keys, ""
        for problem in keys.problems if before is None or before.problems != keys.problems else ():
            logger.warning("the keys of %s: %s", self, problem)
        if before is None or before.thumbprints == keys.thumbprints:
            return
        logger.info("the keys of %s have changed: from %r to %r", self, before, keys)
        if not before.thumbprints <= keys.thumbprints:  # `holds` decides what that means for a socket.
            for changed, loop in list(self._listeners.items()):
                try:
                    if loop is self._loop:
                        changed()
                    else:  # The callback uses sockets of its own event loop, so it must run there.
                        loop.call_soon_threadsafe(changed)
                except Exception:  # One server's callback failed. Other servers need the refresh, so continue.
                    logger.exception("a server could not look at its sockets again")
