"""The database: SQLite or PostgreSQL, through SQLAlchemy."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """What the tables have in common. Those that are not there yet are made at the start."""


def connect(url: str) -> Engine:
    """Return an engine for what `DATABASE_URL` says: `sqlite:///chat.db`, `postgresql://user:password@host/name`."""
    parsed = _with_driver(make_url(url))
    path = _file(parsed)
    if path is not None:
        # SQLite would make a file that everybody can read. What it makes beside it has the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        make_private(path)
    return create_engine(parsed)


def revocations_file(url: str) -> Path | None:
    """Return where revocations are kept next to an SQLite file, for `chat.db` `chat.revocations.db`; None elsewhere."""
    path = _file(make_url(url))
    return None if path is None else path.with_name(f"{path.stem}.revocations{path.suffix}")


def make_private(path: Path) -> None:
    """Let only the user of the server read an SQLite database and the files beside it, as far as they exist."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).chmod(0o600)


def _file(url: URL) -> Path | None:
    """Return the file of an SQLite database; None for a database in memory or of another kind."""
    name = url.database or ""
    if url.get_backend_name() != "sqlite" or name in ("", ":memory:") or name.startswith("file:"):
        return None
    return Path(name)


def _with_driver(url: URL) -> URL:
    """Name psycopg as the driver where the URL leaves it open, as hosting providers' URLs do."""
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgres", "postgresql") else url
