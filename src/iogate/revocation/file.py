"""The file of `SQLiteRevocations`: reading, checking and writing it.

The file is an SQLite database with its own `application_id` and two tables: `revocation` has one row per revocation,
and `content` has one row with the number of revocations and the sum of their hashes. Both change in one transaction, so
opening the file detects a row that was lost, or was changed by another program.

The database uses the rollback journal, not WAL, so everything that was committed is in the file itself. If a WAL file
were deleted, committed revocations would be lost with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from iogate.errors import ConfigurationError
from iogate.revocation.records import Revocation

APPLICATION_ID = 0x696F6774  # "iogt"
VERSION = 1

LOCK_TIMEOUT = 5.0
"""Seconds to wait for another process that has locked the file."""

# With EXTRA, a committed revocation survives a power failure, not only the end of the process.
_PREPARE = """
PRAGMA journal_mode = DELETE;
PRAGMA synchronous = EXTRA;
"""
_CREATE = """
CREATE TABLE revocation (
    token_id TEXT, session_id TEXT, subject TEXT, key_id TEXT, issuer TEXT, issued_before REAL, until REAL NOT NULL
);
CREATE INDEX revocation_until ON revocation (until);
CREATE INDEX revocation_names ON revocation (token_id, session_id, subject, key_id, issuer);
"""
_COUNT = """
CREATE TABLE content (rows INTEGER NOT NULL, hashes TEXT NOT NULL);
INSERT INTO content VALUES (0, '0');
"""
_MARK = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
_COLUMNS = ("token_id", "session_id", "subject", "key_id", "issuer", "issued_before", "until")
_READ = "SELECT token_id, session_id, subject, key_id, issuer, issued_before, until FROM revocation"
_ENDED = "until <= :now"
# The condition for rows that the new row covers, like `Revocation.covers`. Repeated revocations of a user are one row.
_COVERED = """
token_id IS :token_id AND session_id IS :session_id AND subject IS :subject AND key_id IS :key_id
AND issuer IS :issuer AND (:issued_before IS NULL OR issued_before <= :issued_before) AND until <= :until
"""
_INSERT = "INSERT INTO revocation VALUES (:token_id, :session_id, :subject, :key_id, :issuer, :issued_before, :until)"
_HASHES = 2**64

Row = tuple[object, ...]


class Damaged(ConfigurationError):
    """The file is damaged or is not a file of iogate. The message says what is wrong and what to do."""


class RevocationFile:
    """An open file of revocations. Its methods may run in any thread, but only one at a time.

    Args:
        path: the file. If it does not exist, it is created, readable by its owner only; its folder is not created.

    Raises:
        Damaged: the file is damaged or empty, or is a database of another program or version.
        OSError: the file cannot be created or written.
        sqlite3.Error: the file is not a database, or is locked for more than `LOCK_TIMEOUT` seconds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_new = not os.path.lexists(path)
        if self.is_new:
            _make(path)
        # Do not open the file to check this: closing it would release the locks of other connections of this process.
        status = os.stat(path)
        if not os.access(path, os.W_OK):  # SQLite would open the file anyway, and fail later.
            raise PermissionError(f"the file is read-only for this process: {path}")
        if not status.st_size:
            raise Damaged(f"the file is empty, which it never is when iogate has written it; {_REMEDY}")
        self._identity = _identity(status)
        self._connection = sqlite3.connect(path, LOCK_TIMEOUT, check_same_thread=False, isolation_level=None)
        try:
            self.rows = self._checked()
        except UnicodeDecodeError:  # sqlite3 raises it if SQLite's message contains a damaged part of the schema.
            self.close()
            raise Damaged(f"the file is damaged (its schema is not text); {_REMEDY}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def is_in_place(self) -> bool:
        """True if the path still leads to this file; False if the file was deleted or replaced."""
        try:
            return _identity(os.stat(self.path)) == self._identity
        except OSError:
            return False

    def write(self, revocations: Iterable[Revocation], now: float) -> None:
        """Write revocations, and delete those that they cover and those that have ended.

        Args:
            revocations: the revocations to add.
            now: Unix time in seconds.

        Raises:
            sqlite3.Error: the file cannot be written. Its contents have not changed.
            Damaged: the table `content` cannot be read. The contents of the file have not changed.
        """
        with self._transaction() as connection:
            rows, hashes = _content(connection)
            gone = _remove(connection, _ENDED, {"now": now})
            added: list[Row] = []
            for revocation in revocations:
                values = msgspec.structs.asdict(revocation)
                gone += _remove(connection, _COVERED, values)
                connection.execute(_INSERT, values)
                added += connection.execute(f"{_READ} WHERE rowid = last_insert_rowid()").fetchall()
            _update(connection, rows + len(added) - len(gone), hashes + _sum(added) - _sum(gone))

    def _checked(self) -> list[Revocation]:
        connection = self._connection
        with self._transaction("BEGIN"):  # A consistent view, because another process may upgrade the file.
            application_id = self._check_kind()
        connection.executescript(_PREPARE)
        with self._transaction("BEGIN" if application_id else "BEGIN IMMEDIATE"):
            for [problem] in connection.execute("PRAGMA integrity_check(1)"):
                if problem != "ok":
                    raise Damaged(f"the file is damaged ({problem}); {_REMEDY}")
            found = connection.execute(_READ).fetchall()
            if not _application_id(connection):  # Written by the previous version, which had no table `content`.
                _run(connection, _COUNT + _MARK)
                _update(connection, len(found), _sum(found))
            rows, hashes = _content(connection)
            if (len(found), _sum(found)) != (rows, hashes):
                detail = f"{rows} revocations were written, and {len(found)} are in it, not all as they were"
                raise Damaged(f"the file is damaged: {detail}; {_REMEDY}")
            return [Revocation(**dict(zip(_COLUMNS, row, strict=True))) for row in found]

    def _check_kind(self) -> int:
        connection = self._connection
        application_id = _application_id(connection)
        if application_id not in {0, APPLICATION_ID}:
            raise Damaged(f"it is a database of another program (application_id {application_id}); {_ANOTHER_PATH}")
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if application_id and version != VERSION:
            raise Damaged(f"its format has the version {version}, and this iogate reads version {VERSION}")
        if not application_id and _schema(connection) != _OLD_SCHEMA:
            raise Damaged(f"it is a database of another program; {_ANOTHER_PATH}")
        return application_id

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        self._connection.execute(begin)
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # After some errors SQLite has already rolled back.
                self._connection.execute("ROLLBACK")
            raise


_REMEDY = (
    "restore it from a backup; without one, delete it, and what was revoked before is accepted again until it expires"
)
_ANOTHER_PATH = "give SQLiteRevocations a path of its own"


def _make(path: Path) -> None:
    """Create a file without revocations atomically, so that another process never opens an incomplete file.

    Raises:
        Damaged: the file does not exist, but its journal does.
        OSError: the folder is missing, or cannot be written to.
    """
    for suffix in ("-wal", "-journal"):
        if os.path.lexists(f"{path}{suffix}"):
            raise Damaged(
                f"the file is gone, and {path.name}{suffix} is still there; {_REMEDY}, with {path.name}{suffix}"
            )
    # Create the file here: SQLite would make it readable by all users, and it shows whose tokens were revoked.
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        os.close(descriptor)
        with contextlib.closing(sqlite3.connect(name, isolation_level=None)) as connection:
            connection.executescript(f"{_PREPARE} BEGIN; {_CREATE} {_COUNT} {_MARK} COMMIT;")
        try:
            os.link(name, path)
        except FileExistsError:
            pass  # Another process created the file first.
        except OSError:
            os.replace(name, path)  # Not every file system has hard links.
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Run a script in the current transaction, which `executescript` would end."""
    for statement in filter(str.strip, script.split(";")):
        connection.execute(statement)


def _schema(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {" ".join(str(sql).split()) for [sql] in rows}


_OLD_SCHEMA = {" ".join(statement.split()) for statement in _CREATE.split(";") if statement.strip()}


def _application_id(connection: sqlite3.Connection) -> int:
    [value] = connection.execute("PRAGMA application_id").fetchone()
    return int(value)


def _content(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the expected number of rows, and the expected sum of their hashes."""
    try:
        [(rows, hashes)] = connection.execute("SELECT rows, hashes FROM content").fetchall()
        return int(rows), int(hashes, 16)
    except (ValueError, TypeError) as error:
        raise Damaged(f"the file is damaged: its table `content` cannot be read; {_REMEDY}") from error


def _update(connection: sqlite3.Connection, rows: int, hashes: int) -> None:
    connection.execute("UPDATE content SET rows = ?, hashes = ?", (rows, f"{hashes % _HASHES:x}"))


def _remove(connection: sqlite3.Connection, condition: str, values: dict[str, object]) -> list[Row]:
    gone = connection.execute(f"{_READ} WHERE {condition}", values).fetchall()
    if gone:
        connection.execute(f"DELETE FROM revocation WHERE {condition}", values)  # noqa: S608
    return gone


def _sum(rows: Iterable[Row]) -> int:
    """Return the sum of the hashes of rows. It does not depend on their order, and can be updated by a difference."""
    hashes = (hashlib.blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=8).digest() for row in rows)
    return sum(int.from_bytes(each, "big") for each in hashes) % _HASHES
