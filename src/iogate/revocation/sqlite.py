"""A store that keeps revocations in a file, so that they survive the end of the process."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from iogate.auth import Principal
from iogate.errors import ConfigurationError
from iogate.revocation.file import RevocationFile
from iogate.revocation.memory import MemoryRevocations
from iogate.revocation.records import Revocation

logger = logging.getLogger("iogate")

RETRY_DELAYS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between attempts to write revocations. The last delay is repeated."""

LOOK_INTERVAL = 60.0
"""Seconds of the server's clock between checks that the file still exists, which run when tokens are verified."""


class SQLiteRevocations:
    """Store revocations in an SQLite file, so that they survive a restart or a crash of the process.

    All revocations are also in memory, where they are looked up, so a revocation takes effect in this process
    immediately, even if the file cannot be written. `revoke()` returns when the revocation is in the file too. If
    writing fails, `revoke()` raises. Writing is retried in the background until it succeeds, and once more at `close`.

    Use the file in one process at a time: revocations of another process are read only at the next start. Keep the file
    on a local disk, not on a network file system. Make backups with `sqlite3 revoked.db ".backup copy.db"`.

    Args:
        path: the file. If it does not exist, it is created, readable by its owner only; its folder is not created. The
            creation is logged, because if the file was deleted, its revocations are lost.

    Raises:
        ConfigurationError: (from `open`) the file cannot be read or written, is damaged or empty, or is not a file of
            revocations.
    """

    __slots__ = (
        "_changed",
        "_closing",
        "_file",
        "_file_lock",
        "_loaded",
        "_looked",
        "_memory",
        "_now",
        "_troubled",
        "_unsaved",
        "_waiting",
        "_writer",
        "path",
    )

    def __init__(self, path: str | Path) -> None:
        # An absolute path stays valid if the process changes its working directory, and is never a special name such
        # as ":memory:".
        self.path = Path(path).absolute()
        self._memory = MemoryRevocations()
        self._loaded = False
        self._now = 0.0
        self._looked = 0.0
        self._unsaved: deque[Revocation] = deque()  # The loop appends, the writer removes; both are atomic.
        self._file: RevocationFile | None = None
        self._file_lock = threading.Lock()
        self._changed = threading.Condition()  # Protects the attributes below.
        self._waiting: list[Future[None]] = []
        self._writer: threading.Thread | None = None
        self._closing = False
        self._troubled = False  # True if the log says that the file cannot be written.

    def __len__(self) -> int:
        return len(self._memory)

    def open(self) -> None:
        """Read and check the file.

        Raises:
            ConfigurationError: the file cannot be read. The server does not start, because it would accept revoked
                tokens.
        """
        if self._loaded:
            return
        with self._file_lock:
            try:
                file = self._opened()
            except (OSError, sqlite3.Error, ConfigurationError) as error:
                raise ConfigurationError(f"the revocations in {self.path} cannot be read: {_explain(error)}") from error
            for revocation in file.rows:
                self._memory.add(revocation, self._now)
            file.rows.clear()
            self._loaded = True

    def close(self) -> None:
        """Write the revocations that are not in the file yet, and close it. If that fails, log how many are lost."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            writer = self._writer
        if writer is not None:
            writer.join()
        error = self._write()
        if error is not None:
            logger.error(
                "%d revocations are not in %s, and are lost when this process ends: %s",
                len(self._unsaved),
                self.path,
                _explain(error),
            )
        with self._changed:
            self._closing = False
            waiting, self._waiting = self._waiting, []
        self._answer(waiting, error)
        with self._file_lock:
            self._loaded = False
            self._drop()

    def revoked(self, principal: Principal, now: float) -> bool:
        """Return True if the token of this identity is revoked at `now`, Unix time in seconds.

        Raises:
            ConfigurationError: the store was not opened before, and the file cannot be read.
        """
        return self.find(principal, now) is not None

    def find(self, principal: Principal, now: float) -> Revocation | None:
        """Return a revocation of the token of this identity, or None; see `revoked`."""
        self.open()
        if abs(now - self._looked) >= LOOK_INTERVAL:
            self._looked = now
            self._look()
        return self._memory.find(principal, now)

    def add(self, revocation: Revocation, now: float) -> None:
        """Add a revocation in memory; `save` writes it to the file. `now` is Unix time in seconds."""
        self._now = now
        self._unsaved.append(revocation)
        self._memory.add(revocation, now)

    async def save(self, revocation: Revocation) -> None:
        """Wait until the revocation, and all that earlier calls could not write, are on disk.

        Raises:
            OSError: the file cannot be written, or another process has locked it for 5 seconds. The revocation is in
                effect in this process anyway, and writing it is retried in the background.
        """
        if self._unsaved or self._writer is not None:
            written: Future[None] = Future()
            self._start_writer(written)
            await asyncio.wrap_future(written)

    # The writer: a thread that runs only while there is something to write.

    def _start_writer(self, *waiting: Future[None]) -> None:
        with self._changed:
            self._waiting += waiting
            self._changed.notify_all()
            if self._writer is None:
                self._writer = threading.Thread(target=self._work, name="iogate revocations", daemon=True)
                self._writer.start()

    def _work(self) -> None:
        failures = 0
        while True:
            with self._changed:
                waiting, self._waiting = self._waiting, []
            error = self._write()
            self._answer(waiting, error)
            with self._changed:
                if error is None:
                    failures = 0
                    if not self._waiting:
                        self._writer = None
                        return
                    continue
                delay = RETRY_DELAYS[min(failures, len(RETRY_DELAYS) - 1)]
                failures += 1
                self._changed.wait_for(lambda: self._waiting or self._closing, delay)
                if self._closing:
                    self._writer = None
                    return

    def _answer(self, waiting: list[Future[None]], error: Exception | None) -> None:
        for future in waiting:
            if not future.set_running_or_notify_cancel():
                continue
            if error is None:
                future.set_result(None)
            else:
                failure = OSError(
                    f"the revocation holds in this process, but it is not in {self.path} yet and would be lost if the "
                    f"process ended now: {_explain(error)}. It is tried again in the background"
                )
                failure.__cause__ = error
                future.set_exception(failure)

    def _write(self) -> Exception | None:
        """Write the revocations that are not in the file yet. Return the exception if that fails."""
        with self._file_lock:
            self._notice_loss()
            batch = [self._unsaved.popleft() for _ in range(len(self._unsaved))]
            if not batch:
                return None
            try:
                self._opened().write(batch, self._now)
            except Exception as error:
                self._unsaved.extendleft(reversed(batch))
                if not self._troubled:
                    self._troubled = True
                    logger.error(
                        "%d revocations cannot be written to %s: %s. They hold in this process and are tried again; "
                        "they would be lost if it ended now",
                        len(batch),
                        self.path,
                        _explain(error),
                    )
                return error
            if self._troubled:
                self._troubled = False
                logger.warning("%d revocations are written to %s at last", len(batch), self.path)
            return None

    def _notice_loss(self) -> None:
        """If the file was deleted or replaced, queue all revocations for the new file at the same path."""
        if self._file is None or self._file.is_in_place:
            return
        self._drop()
        self._unsaved.extend(self._memory)  # Some may be queued already; duplicates become one row.
        logger.error(
            "%s was deleted or replaced while the server was running; the %d revocations that this process knows are "
            "written again",
            self.path,
            len(self._memory),
        )

    def _look(self) -> None:
        file = self._file
        if file is not None and not file.is_in_place:
            self._start_writer()

    def _opened(self) -> RevocationFile:
        if self._file is None:
            self._file = RevocationFile(self.path)
            if self._loaded:
                self._file.rows.clear()
            if self._file.is_new:
                logger.warning("%s was made: there was no file, so no token is revoked by it yet", self.path)
        return self._file

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _explain(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error}; create the folder"
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return f"{error}; another process has it open, and only one may"
    return str(error)
