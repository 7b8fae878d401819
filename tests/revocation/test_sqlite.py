"""Revocations in a file: what was kept is there again, and nobody is let in because something went wrong."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate import ConfigurationError, MemoryRevocations, Revocation, SQLiteRevocations
from tests.revocation.identities import NOW, principal, revocation
from tests.revocation.test_records import revocations


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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "revocations.db"


async def test_what_was_saved_is_there_again(path: Path) -> None:
    """All of it, as it was said."""
    said = [
        revocation(token_id="t1", until=float("inf")),
        revocation(subject="ann\0ümlaut\U0001f600", issued_before=NOW - 0.125),
        revocation(session_id="s1", issuer="https://id.example.com"),
        revocation(key_id="k1", subject="ann"),
        revocation(issued_before=NOW),
    ]
    with opened(path) as store:
        assert len(store) == 0
        await revoke(store, *said)
    with opened(path) as store:
        assert len(store) == 5
        for each in said:
            # As an equal revocation: what is covered by one that is there is not added.
            store.add(each, NOW)
        assert len(store) == 5
        assert store.revoked(principal(), NOW)
        found = store.find(principal(), NOW)
        assert found is not None
        assert found.matches(principal())
        assert not store.revoked(principal(token_id="t2", session_id="s2", key_id="k2", issued_at=NOW + 1), NOW)


async def test_it_answers_as_memory_does_before_and_after_a_restart(path: Path) -> None:
    """For every revocation by itself, and any identity."""
    people = [principal(token_id=t, session_id=s, subject=u) for t in "ab" for s in "ab" for u in "ab"]

    def ask(store: SQLiteRevocations | MemoryRevocations) -> list[bool]:
        return [store.revoked(who, NOW) for who in people]

    numbers = iter(range(1_000_000))

    @given(st.lists(revocations.map(lambda fields: Revocation(**fields)), max_size=8))
    def check(said: list[Revocation]) -> None:
        memory, file = MemoryRevocations(), path.with_name(f"{next(numbers)}.db")
        with opened(file) as store:
            for each in said:
                memory.add(each, NOW - 20)
                store.add(each, NOW - 20)
            asyncio.run(store.save(said[0])) if said else None
            assert ask(store) == ask(memory)
        with opened(file) as store:
            assert ask(store) == ask(memory)
            assert len(store) == len(memory)

    await asyncio.to_thread(check)


async def test_many_that_come_at_once_are_all_kept(path: Path) -> None:
    """Each `save` returns when its own is on the disk, whichever thread wrote it there."""
    with opened(path) as store:

        async def one(number: int) -> None:
            await revoke(store, revocation(token_id=f"t{number}"))
            with closing(sqlite3.connect(path)) as other:
                found = other.execute("SELECT 1 FROM revocation WHERE token_id = ?", (f"t{number}",)).fetchone()
            assert found is not None

        await asyncio.gather(*(one(number) for number in range(200)))
    assert rows(path) == 200


async def test_the_loop_is_not_held_up_by_the_disk(path: Path) -> None:
    """While somebody else has the file, the server goes on, and the answer is known already."""
    with opened(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.add(revocation(token_id="t1"), NOW)
        saving = asyncio.create_task(store.save(revocation(token_id="t1")))
        for _ in range(100):
            await asyncio.sleep(0)
        assert store.revoked(principal(), NOW)
        assert not saving.done()
        other.execute("COMMIT")
        await saving
    assert rows(path) == 1


async def test_the_same_one_again_and_again_is_one_row(path: Path) -> None:
    """A file does not grow because somebody signs out every day, or a provider tells it twice."""
    with opened(path) as store:
        for second in range(50):
            later = NOW + second
            await revoke(
                store,
                revocation(subject="ann", issued_before=later, until=later + 3600),
                revocation(session_id="s1", until=later + 3600),
                now=later,
            )
        assert len(store) == 2
        assert rows(path) == 2
        await revoke(store, revocation(subject="ann", until=NOW + 9999), revocation(subject="bob"))
    assert rows(path) == 3


async def test_one_that_ends_sooner_does_not_take_the_place_of_one_that_lasts(path: Path) -> None:
    """A block for a minute is no pardon for the rest of the day."""
    with opened(path) as store:
        await revoke(store, revocation(token_id="t1", until=NOW + 9000), revocation(token_id="t1", until=NOW + 60))
        assert len(store) == 1
    with opened(path) as store:
        assert store.revoked(principal(), NOW + 8999)


async def test_what_has_ended_leaves_the_file(path: Path) -> None:
    """With the next one that is written; until then it is read, and counts for nothing."""
    with opened(path) as store:
        await revoke(store, *(revocation(token_id=f"t{number}", until=NOW + 10) for number in range(20)))
    assert rows(path) == 20
    with opened(path) as store:
        assert not store.revoked(principal(token_id="t1"), NOW + 10)
        await revoke(store, revocation(token_id="other"), now=NOW + 10)
        assert len(store) == 1
    assert rows(path) == 1


async def test_a_store_that_nobody_opened_answers_all_the_same(path: Path) -> None:
    """A server that is mounted in another application is not told that it starts: its file must be read even so."""
    with opened(path) as store:
        await revoke(store, revocation(token_id="t1"))
    unopened = SQLiteRevocations(str(path))
    assert unopened.revoked(principal(), NOW)
    unopened.close()


async def test_a_revocation_before_the_start_is_kept(path: Path) -> None:
    """And so are, after it, those that the file had before."""
    with opened(path) as store:
        await revoke(store, revocation(token_id="old"))
    store = SQLiteRevocations(path)
    await revoke(store, revocation(token_id="new"))
    assert store.revoked(principal(token_id="old"), NOW)
    assert store.revoked(principal(token_id="new"), NOW)
    store.open()
    store.close()
    store.close()
    assert rows(path) == 2


async def test_nothing_to_save_needs_no_file(path: Path) -> None:
    """What is on the disk already is not written again."""
    store = SQLiteRevocations(path)
    await store.save(revocation(token_id="t1"))
    assert os.listdir(path.parent) == []


async def test_only_the_owner_can_read_the_file(path: Path) -> None:
    """It says who was thrown out; the files that SQLite lays beside it, too."""
    before = os.umask(0)
    try:
        with opened(path) as store:
            await revoke(store, revocation(token_id="t1"))
            beside = list(path.parent.iterdir())
            assert len(beside) > 1
            assert {stat.S_IMODE(file.stat().st_mode) for file in beside} == {0o600}
    finally:
        os.umask(before)


async def test_a_relative_path_means_the_same_file_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the process changes its directory, and if SQLite has a meaning of its own for the name."""
    monkeypatch.chdir(path.parent)
    store = SQLiteRevocations(":memory:")
    monkeypatch.chdir("/")
    await revoke(store, revocation(token_id="t1"))
    store.close()
    with opened(path.parent / ":memory:") as again:
        assert again.revoked(principal(), NOW)


def _folder(path: Path) -> None:
    path.mkdir()


def _text(path: Path) -> None:
    path.write_text("these are the revocations: nobody\n" * 100)


def _other_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE revocation (who TEXT)")


def _torn(path: Path) -> None:
    store = SQLiteRevocations(path)
    for number in range(2000):
        store.add(revocation(token_id=f"t{number}"), NOW)
    asyncio.run(store.save(revocation(token_id="t0")))
    store.close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty_row(path: Path) -> None:
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO revocation (issuer, until) VALUES ('x', 1)")


def _wrong_type(path: Path) -> None:
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO revocation (token_id, until) VALUES (x'00', 1)")


def _no_folder(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize("spoil", [_folder, _text, _other_table, _torn, _empty_row, _wrong_type, _no_folder])
def test_a_file_that_cannot_be_read_stops_the_server_from_starting(path: Path, spoil: Callable[[Path], None]) -> None:
    """With an error that names the file; and if nobody opened it, the one who asks is told, and refuses."""
    spoil(path)
    store = SQLiteRevocations(path)
    with pytest.raises(ConfigurationError, match=r"the revocations in .*revocations\.db cannot be read"):
        store.open()
    with pytest.raises(ConfigurationError):
        store.revoked(principal(), NOW)


async def test_a_full_disk_is_told_and_what_could_not_be_written_comes_with_the_next(path: Path) -> None:
    """The revocation holds in this process meanwhile, and nothing that was saved before is lost."""
    with opened(path) as store:
        await revoke(store, revocation(token_id="before"))
        full = os.stat(path).st_size + 100 * 1024
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, hard))  # Beyond it writing fails, as on a full disk.
        try:
            store.add(revocation(token_id="first"), NOW)
            for number in range(3000):
                store.add(revocation(session_id=f"s{number}" * 20), NOW)
            with pytest.raises(sqlite3.Error):
                await store.save(revocation(token_id="first"))
            with pytest.raises(sqlite3.Error):
                await revoke(store, revocation(token_id="second"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert store.revoked(principal(token_id="first"), NOW)
        assert store.revoked(principal(token_id="second"), NOW)
        assert rows(path) == 1
        await revoke(store, revocation(token_id="third"))
    with opened(path) as store:
        for token_id in ("before", "first", "second", "third"):
            assert store.revoked(principal(token_id=token_id), NOW)
        assert len(store) == 3004


async def test_it_is_closed_from_under_a_save_without_a_trace(path: Path) -> None:
    """A revocation that is being written when the server ends is written: the file is opened once more for it."""
    with opened(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.add(revocation(token_id="t1"), NOW)
        saving = asyncio.create_task(store.save(revocation(token_id="t1")))
        await asyncio.sleep(0)
        closer = threading.Thread(target=store.close)
        closer.start()
        other.execute("COMMIT")
        await saving
        await asyncio.to_thread(closer.join)
    assert rows(path) == 1
