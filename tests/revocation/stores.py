"""Stores in files, for the tests of this folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from iogate import Revocation, SQLiteRevocations
from tests.revocation.identities import NOW


@contextmanager
def opened(path: Path) -> Iterator[SQLiteRevocations]:
    store = SQLiteRevocations(path)
    store.open()
    try:
        yield store
    finally:
        store.close()


async def revoke(store: SQLiteRevocations, *revocations: Revocation, now: float = NOW) -> None:
    for each in revocations:
        store.add(each, now)
        await store.save(each)


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM revocation").fetchone()[0]
    return count


def everything(path: Path) -> set[Revocation]:
    with opened(path) as store:
        return set(store._memory)
