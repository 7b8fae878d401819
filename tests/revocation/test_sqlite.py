"""Revocations in a file: what was kept is there again, and nobody is let in because something went wrong."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate import MemoryRevocations, Revocation, SQLiteRevocations
from iogate.revocation import file as file_module
from iogate.revocation import sqlite as store_module
from iogate.revocation.file import RevocationFile
from tests.revocation.identities import NOW, principal, revocation
from tests.revocation.stores import everything, opened, revoke, rows
from tests.revocation.test_records import revocations


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
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                other.execute("DELETE FROM revocation")
                beside = list(path.parent.iterdir())
                assert {file.name for file in beside} == {"revocations.db", "revocations.db-journal"}
                assert {stat.S_IMODE(file.stat().st_mode) for file in beside} == {0o600}
                other.execute("ROLLBACK")
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
            with pytest.raises(OSError, match=r"holds in this process, but it is not in .* yet"):
                await store.save(revocation(token_id="first"))
            with pytest.raises(OSError, match="tried again in the background"):
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


# What cannot be written is written later.


async def test_a_long_lock_is_told_and_what_could_not_be_written_comes_by_itself(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`save` raises; the revocation holds at once, is tried again in the background, and the log says so once."""
    monkeypatch.setattr(file_module, "LOCK_TIMEOUT", 0.05)
    monkeypatch.setattr(store_module, "RETRY_DELAYS", (0.01,))
    with opened(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            with pytest.raises(OSError, match=r"locked; another process has it open.*tried again in the background"):
                await revoke(store, revocation(token_id="t1"))
            assert store.revoked(principal(), NOW)
        writer = store._writer
        assert writer is not None
        other.execute("COMMIT")
        await asyncio.to_thread(writer.join, 5)
        assert rows(path) == 1
    assert caplog.text.count("cannot be written to") == 1
    assert caplog.text.count("are written to") == 1


async def test_what_could_not_be_written_is_tried_once_more_at_close(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If that fails too, the log says how many are lost."""
    monkeypatch.setattr(file_module, "LOCK_TIMEOUT", 0.05)
    monkeypatch.setattr(store_module, "RETRY_DELAYS", (3600.0,))
    store = SQLiteRevocations(path)
    store.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match="locked"):
            await revoke(store, revocation(token_id="t1"))
        store.close()
        assert "1 revocations are not in" in caplog.text
        assert "lost when this process ends: database is locked" in caplog.text
        other.execute("COMMIT")
    assert rows(path) == 0
    store.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match="locked"):
            await revoke(store, revocation(token_id="t2"))
        other.execute("COMMIT")
    store.close()
    assert rows(path) == 2


async def test_many_that_wait_for_a_locked_file_fail_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one after the other, each after a timeout of its own; and no thread of the event loop's pool waits."""
    monkeypatch.setattr(file_module, "LOCK_TIMEOUT", 0.05)
    monkeypatch.setattr(store_module, "RETRY_DELAYS", (3600.0,))
    with opened(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        attempts = 0
        write = RevocationFile.write

        def counted(*args: Any) -> None:
            nonlocal attempts
            attempts += 1
            write(*args)

        monkeypatch.setattr(RevocationFile, "write", counted)
        results = await asyncio.gather(
            *(revoke(store, revocation(token_id=f"t{number}")) for number in range(100)), return_exceptions=True
        )
        assert {type(result) for result in results} == {OSError}
        assert attempts <= 2
        other.execute("COMMIT")
    assert rows(path) == 100


async def test_a_save_that_is_cancelled_is_written_all_the_same(path: Path) -> None:
    """The caller has gone; the revocation has not."""
    with opened(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.add(revocation(token_id="t1"), NOW)
        saving = asyncio.create_task(store.save(revocation(token_id="t1")))
        await asyncio.sleep(0)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        other.execute("COMMIT")
    assert rows(path) == 1


def _delete(path: Path) -> None:
    path.unlink()


def _replace_by_a_backup(path: Path) -> None:
    copy = path.with_name("backup.db")
    with opened(copy) as store:
        store.add(revocation(token_id="of the backup"), NOW)
    os.replace(copy, path)


@pytest.mark.parametrize("take", [_delete, _replace_by_a_backup])
@pytest.mark.parametrize("notices", ["revoke", "connect", "close"])
async def test_a_file_that_has_gone_is_written_again(
    path: Path, caplog: pytest.LogCaptureFixture, take: Callable[[Path], None], notices: str
) -> None:
    """At the next revocation, within a minute while clients connect, or at the end; with an error in the log, once."""
    with opened(path) as store:
        await revoke(store, revocation(token_id="before"))
        if (writer := store._writer) is not None:  # It has written, and may not have ended yet.
            await asyncio.to_thread(writer.join, 5)
        assert not store.revoked(principal(token_id="x"), NOW)
        take(path)
        caplog.clear()
        if notices == "revoke":
            await revoke(store, revocation(token_id="after"))
            await revoke(store, revocation(token_id="later"))
        elif notices == "connect":
            store.find(principal(token_id="x"), NOW + 59)
            assert store._writer is None, "it has not looked"
            store.find(principal(token_id="x"), NOW + 60)
            await store.save(revocation(token_id="x"))
    assert [record.levelname for record in caplog.records if "deleted or replaced" in record.message] == ["ERROR"]
    expected = {"before"} | ({"after", "later"} if notices == "revoke" else set())
    if take is _replace_by_a_backup:
        expected.add("of the backup")
    assert {each.token_id for each in everything(path)} == expected


async def test_a_file_whose_folder_has_gone_is_written_when_it_is_back(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a disk that was unmounted: `revoke` raises meanwhile, and all of it is written in the end."""
    monkeypatch.setattr(store_module, "RETRY_DELAYS", (0.01,))
    folder = path.parent / "disk"
    folder.mkdir()
    with opened(folder / path.name) as store:
        await revoke(store, revocation(token_id="before"))
        os.rename(folder, path.parent / "elsewhere")
        with pytest.raises(OSError, match="create the folder"):
            await revoke(store, revocation(token_id="after"))
        folder.mkdir()
        writer = store._writer
        if writer is not None:
            await asyncio.to_thread(writer.join, 5)
    assert {each.token_id for each in everything(folder / path.name)} == {"before", "after"}
    assert caplog.text.count("deleted or replaced") == 1
    assert caplog.text.count("cannot be written to") == 1


async def test_two_processes_on_one_file_lose_nothing(path: Path) -> None:
    """Not what it is for, but each finds the revocations of both at its next start."""
    with opened(path) as one, opened(path) as other:
        await asyncio.gather(
            *(revoke(one, revocation(token_id=f"a{number}")) for number in range(20)),
            *(revoke(other, revocation(token_id=f"b{number}")) for number in range(20)),
        )
    assert len(everything(path)) == 40


async def test_two_that_make_the_file_at_once_share_it(path: Path) -> None:
    """The slower one does not put an empty file in the place of the other's."""
    stores = [SQLiteRevocations(path) for _ in range(4)]
    barrier = threading.Barrier(len(stores))

    def start(store: SQLiteRevocations, number: int) -> None:
        barrier.wait(5)
        store.add(revocation(token_id=f"t{number}"), NOW)
        asyncio.run(store.save(revocation(token_id=f"t{number}")))

    await asyncio.gather(*(asyncio.to_thread(start, store, number) for number, store in enumerate(stores)))
    for store in stores:
        store.close()
    assert len(everything(path)) == 4
    assert os.listdir(path.parent) == [path.name]
