"""The database: SQLite or PostgreSQL, through SQLAlchemy."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """What the tables have in common. Those that are not there yet are made at the start."""


def connect(url: str) -> Engine:
    """Return an engine for what `DATABASE_URL` says: `sqlite:///chat.db`, `postgresql://user:password@host/name`."""
    return create_engine(_with_driver(make_url(url)))


def revocations_file(url: str) -> Path | None:
    """Return where revocations are kept next to an SQLite file, for `chat.db` `chat.revocations.db`; None elsewhere."""
    parsed = make_url(url)
    name = parsed.database or ""
    if parsed.get_backend_name() != "sqlite" or name in ("", ":memory:") or name.startswith("file:"):
        return None
    path = Path(name)
    return path.with_name(f"{path.stem}.revocations{path.suffix}")


def _with_driver(url: URL) -> URL:
    """Name psycopg as the driver where the URL leaves it open, as hosting providers' URLs do."""
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgres", "postgresql") else url
