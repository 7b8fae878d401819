"""Keys that are read again and again: one reading at a time, in the background, ahead of when they grow old."""

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
"""Seconds that a reading may take, all of it: names looked up, both documents of a discovery."""
PATIENCE = 6.0
"""Seconds that a token waits for its key: long enough for one reading, with a second in reserve."""


class NotRead(Exception):
    """A reading failed. Its text goes to the log, so that it holds nothing that is secret."""


class Refreshed(ABC):
    """A key set that is kept fresh. What is of a source is how it is read: `_read`.

    A reading that fails takes nothing away: the keys of the last good one serve for `keep_for` seconds more. One that
    succeeds counts at once: a key that is gone verifies nothing from then on.

    Args:
        every: seconds after which it is read again, more than 0. It begins ahead of that.
        keep_for: seconds since the last good reading for which its keys serve if no later one is good.
        cooldown: seconds from 1 to an hour, between two readings that were made because a token named a key that is
            not known, so invented names cause no more. A token with an unknown key is answered `unavailable` meanwhile,
            because its key may be new. It is invalid if a reading that began later does not have its key.
        start_within: seconds that the start of the server waits for the first keys; None: it does not, and who comes
            before there are any is told `unavailable`.
        revoke_removed: whether sockets whose token was signed by a key that is gone are ended.
        clock: what time is taken from.

    Raises:
        ConfigurationError: an argument is not sound.
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
        """Whose keys these are, if that is known."""
        return None

    @property
    def keys(self) -> KeySet | None:
        """The keys of the last good reading; they may be too old to serve. None: there was none."""
        return self._keys

    @property
    def trouble(self) -> str:
        """Why there is nothing newer; empty, if the last reading was good."""
        return self._trouble

    @abstractmethod
    async def _read(self) -> tuple[KeySet, float | None]:
        """Read the keys, and for how many seconds they are said to be fresh.

        Raises:
            NotRead: it failed; any other exception means the same, with less to tell.
        """

    def find(self, token: Compact, algorithm: str) -> Key | None:
        """Return the key that the token asks for, if it is at hand."""
        if self._keys is None or not self._schedule.usable(self._clock.monotonic()):
            return None
        return self._keys.find(token.header.get("kid"), algorithm)

    async def fetch(self, token: Compact, algorithm: str) -> Key:
        """Return the key that the token names, after a new reading if one is due or the cooldown allows it.

        Raises:
            InvalidToken: a reading that began after the token was first shown does not have the key.
            AuthUnavailable: there was no such reading yet: it failed, takes too long, or the cooldown forbids it.
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
        # A reading that was under way may have begun before the key was published: then one more may find it.
        for _ in range(2):
            if not self._may_read():
                break
            await self.refresh()
            found = self.find(token, algorithm)
            if found is not None:
                return found
        return None

    async def refresh(self) -> None:
        """Read now, or wait for the reading that is under way. What fails is logged, and changes nothing."""
        await self._there(self._refresh)

    def holds(self, principal: Principal) -> bool:
        """Say whether the key that signed an identity is still published, if that is to matter."""
        keys = self._keys
        return not self._revoke_removed or keys is None or principal.key_thumbprint in keys.thumbprints

    def start(self, changed: Changed) -> None:
        """Begin to keep the keys fresh, on the event loop that runs."""
        self._listeners[changed] = asyncio.get_running_loop()
        self._keep()

    async def ready(self) -> None:
        """Return when there are keys.

        Raises:
            AuthUnavailable: there are none after `start_within` seconds.
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
        """End what `start` began, when nobody else uses these keys."""
        self._listeners.pop(changed, None)
        if self._listeners or self._loop is not asyncio.get_running_loop():
            return
        tasks = [task for task in (self._keeper, self._reading) if task is not None]
        self._keeper = self._reading = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _there(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Do something on the event loop where the keys are kept fresh."""
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
        """See to it that somebody keeps the keys fresh, and return where.

        That is the first event loop that asked for it, as long as it runs. There may be two in a process: that of the
        server, and one on a thread for what is called from threads.
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
            if wait > 0:  # Meanwhile somebody may have asked for an unknown key, and moved it.
                await asyncio.sleep(wait)
            else:
                await self.refresh()

    def _may_read(self) -> bool:
        """Say whether to read, or to wait for a reading, for somebody who asks for a key that is not at hand."""
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
        if not before.thumbprints <= keys.thumbprints:  # What that means for a socket, `holds` says.
            for changed, loop in list(self._listeners.items()):
                try:
                    if loop is self._loop:
                        changed()
                    else:  # What it looks at belongs to that one.
                        loop.call_soon_threadsafe(changed)
                except Exception:  # Of a server's own doing: the keys are kept fresh for the others all the same.
                    logger.exception("a server could not look at its sockets again")
