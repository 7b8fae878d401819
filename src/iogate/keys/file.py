"""A key set in a file that another program replaces."""

from __future__ import annotations

import asyncio
import math
import os
from pathlib import Path

from iogate.auth.arguments import seconds
from iogate.auth.keyset import MAX_BYTES, KeySet
from iogate.clock import SYSTEM, Clock
from iogate.errors import ConfigurationError
from iogate.keys.refreshed import NotRead, Refreshed


class KeySetFile(Refreshed):
    """The public keys in a file with a JWK set, which is read again at intervals.

    If the file can no longer be read, or does not contain a key set, a warning is logged and the keys that were read
    before stay in use until the file is repaired. To replace the file, rename the new one over it, so that a partly
    written file is never read.

    Args:
        path: the file.
        every: seconds between two reads of the file, from 1 to 3600.
        revoke_removed: if True, sockets whose token was signed by a key that was removed are disconnected.
        clock: the clock that schedules the reads.

    Raises:
        ConfigurationError: the file does not exist, cannot be read, or does not contain a key set; or an argument is
            not valid.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every: float = 5.0,
        revoke_removed: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        every = seconds("every", every, 1, 3600)
        super().__init__(
            every=every,
            keep_for=math.inf,
            cooldown=every,
            start_within=None,
            revoke_removed=revoke_removed,
            clock=clock,
        )
        self._path = Path(path)
        try:
            self._data = self._contents()
            keys = KeySet.read(self._data)
        except (NotRead, ConfigurationError) as error:
            raise ConfigurationError(f"the key set {self._path}: {error}") from None
        self._schedule.succeeded(clock.monotonic())
        self._replace(keys)

    async def _read(self) -> tuple[KeySet, float | None]:
        data = await asyncio.to_thread(self._contents)
        if self._keys is not None and data == self._data:
            return self._keys, None
        keys = KeySet.read(data)
        self._data = data
        return keys, None

    def _contents(self) -> bytes:
        try:
            if not self._path.is_file():  # Reading a pipe or a device might never end.
                raise NotRead("there is no such file")
            with self._path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except OSError as error:
            raise NotRead(error.strerror or type(error).__name__) from None

    def __repr__(self) -> str:
        return f"KeySetFile({str(self._path)!r})"
