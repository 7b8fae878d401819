"""Revocations that outlive the process, in a file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections import deque
from pathlib import Path

import msgspec

from iogate.auth import Principal
from iogate.errors import ConfigurationError
from iogate.revocation.memory import MemoryRevocations
from iogate.revocation.records import Revocation

# WAL with FULL: what has been committed survives the loss of power too, and not only the end of the process.
_PREPARE = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS revocation (
    token_id TEXT, session_id TEXT, subject TEXT, key_id TEXT, issuer TEXT, issued_before REAL, until REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS revocation_until ON revocation (until);
CREATE INDEX IF NOT EXISTS revocation_names ON revocation (token_id, session_id, subject, key_id, issuer);
"""
_READ = "SELECT token_id, session_id, subject, key_id, issuer, issued_before, until FROM revocation"
_PRUNE = "DELETE FROM revocation WHERE until <= ?"
# What the new one covers, as `Revocation.covers` has it: the same person revoked again and again is one row.
_REPLACE = """
DELETE FROM revocation
WHERE token_id IS :token_id AND session_id IS :session_id AND subject IS :subject AND key_id IS :key_id
  AND issuer IS :issuer AND (:issued_before IS NULL OR issued_before <= :issued_before) AND until <= :until
"""
_INSERT = "INSERT INTO revocation VALUES (:token_id, :session_id, :subject, :key_id, :issuer, :issued_before, :until)"


class SQLiteRevocations:
    """Remember revocations in an SQLite file, for one process that restarts or is killed.

    All of them are in memory too, where they are looked up. One process at a time: what another one writes into the
    file is seen at the next start. Keep the file on a disk of the machine, not of the network.

    Args:
        path: the file. It is made, readable for its owner only, if it is not there; its folder is not.

    Raises:
        ConfigurationError: (from `open`) the file cannot be read or written, or is something else.
    """

    __slots__ = ("_connection", "_loaded", "_lock", "_memory", "_now", "_unsaved", "path")

    def __init__(self, path: str | Path) -> None:
        # Absolute: where it is does not change when the process changes its directory, and no name is special.
        self.path = Path(path).absolute()
        self._memory = MemoryRevocations()
        self._loaded = False
        self._now = 0.0
        self._unsaved: deque[Revocation] = deque()  # Written by the loop, emptied in threads: its steps are atomic.
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()  # For the connection: `save` runs in threads.

    def __len__(self) -> int:
        return len(self._memory)

    def open(self) -> None:
        """Read the file. A server that cannot does not start: it would let in who has been thrown out."""
        if self._loaded:
            return
        try:
            with self._lock:
                rows = [Revocation(**row) for row in self._connected().execute(_READ)]
        except (OSError, sqlite3.Error, ConfigurationError) as error:
            self.close()
            raise ConfigurationError(f"the revocations in {self.path} cannot be read: {error}") from error
        for revocation in rows:
            self._memory.add(revocation, self._now)
        self._loaded = True

    def close(self) -> None:
        """Close the file. What could not be saved is still in memory, and saved with the next."""
        with self._lock:
            self._loaded = False
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def revoked(self, principal: Principal, now: float) -> bool:
        """Say whether the token of this identity is revoked at `now`, Unix time in seconds.

        Raises:
            ConfigurationError: nobody has opened it, and the file cannot be read.
        """
        return self.find(principal, now) is not None

    def find(self, principal: Principal, now: float) -> Revocation | None:
        """Return a revocation that means the token of this identity; see `revoked`."""
        self.open()
        return self._memory.find(principal, now)

    def add(self, revocation: Revocation, now: float) -> None:
        """Remember a revocation in memory; `save` writes it down."""
        self._now = now
        self._unsaved.append(revocation)
        self._memory.add(revocation, now)

    async def save(self, revocation: Revocation) -> None:
        """Return when the revocation is on the disk, and so is whatever an earlier call could not write.

        Raises:
            OSError: it cannot be written: the file cannot be made.
            sqlite3.Error: it cannot be written. It holds in this process all the same.
        """
        await asyncio.to_thread(self._write)

    def _write(self) -> None:
        """Write down what is not yet: of many threads that come at once the first does the work of all."""
        with self._lock:
            batch = [self._unsaved.popleft() for _ in range(len(self._unsaved))]
            if not batch:
                return
            try:
                connection = self._connected()
                with connection:
                    connection.execute(_PRUNE, (self._now,))
                    for revocation in batch:
                        row = msgspec.structs.asdict(revocation)
                        connection.execute(_REPLACE, row)
                        connection.execute(_INSERT, row)
            except BaseException:
                self._unsaved.extendleft(reversed(batch))
                raise

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            # Made here, for SQLite would make it readable for everybody: it says who was thrown out, and when.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self.path, check_same_thread=False)
            connection.row_factory = _as_mapping
            try:
                connection.executescript(_PREPARE)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def _as_mapping(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> dict[str, object]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}
