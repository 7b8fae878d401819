"""The file of `SQLiteRevocations`: it opens with everything that was written, or the server does not start."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iogate import ConfigurationError, Revocation, SQLiteRevocations
from iogate.revocation.file import APPLICATION_ID, RevocationFile
from tests.revocation.identities import NOW, principal, revocation
from tests.revocation.stores import everything, opened, rows
from tests.revocation.test_records import revocations


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "revocations.db"


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


def _empty(path: Path) -> None:
    path.touch()


def _application_id(path: Path) -> None:
    _change(path, "PRAGMA application_id = 7")


def _another_program(path: Path) -> None:
    _change(path, "CREATE TABLE accounts (name TEXT)")


def _later_version(path: Path) -> None:
    with opened(path):
        pass
    _change(path, "PRAGMA user_version = 2")


def _lost_row(path: Path) -> None:
    _with_row(path)
    _change(path, "DELETE FROM revocation")


def _changed_row(path: Path) -> None:
    _with_row(path)
    _change(path, "UPDATE revocation SET token_id = 'other'")


def _added_row(path: Path) -> None:
    _with_row(path)
    _change(path, "INSERT INTO revocation (token_id, until) VALUES ('t2', 1)")


def _lost_count(path: Path) -> None:
    _with_row(path)
    _change(path, "DELETE FROM content")


def _unreadable_count(path: Path) -> None:
    _with_row(path)
    _change(path, "UPDATE content SET hashes = 'x'")


def _only_a_journal(path: Path) -> None:
    path.with_name("revocations.db-journal").touch()


def _only_a_wal(path: Path) -> None:
    path.with_name("revocations.db-wal").touch()


def _old_with_a_bad_row(path: Path) -> None:
    _old(path)
    _change(path, "INSERT INTO revocation (issuer, until) VALUES ('x', 1)")


def _old_with_a_wrong_type(path: Path) -> None:
    _old(path)
    _change(path, "INSERT INTO revocation (token_id, until) VALUES (x'00', 1)")


def _with_row(path: Path) -> None:
    with opened(path) as store:
        store.add(revocation(token_id="t1"), NOW)
    assert rows(path) == 1


def _change(path: Path, statement: str, *values: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def _old(path: Path) -> None:
    """Make a file as the version before did."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = FULL;
            CREATE TABLE IF NOT EXISTS revocation (
                token_id TEXT, session_id TEXT, subject TEXT, key_id TEXT, issuer TEXT, issued_before REAL,
                until REAL NOT NULL
            );
            CREATE INDEX IF NOT EXISTS revocation_until ON revocation (until);
            CREATE INDEX IF NOT EXISTS revocation_names ON revocation (token_id, session_id, subject, key_id, issuer);
            """
        )
        connection.execute("INSERT INTO revocation VALUES ('t1', NULL, NULL, NULL, NULL, NULL, ?)", (NOW + 3600,))
        connection.execute("INSERT INTO revocation VALUES (NULL, NULL, 'bob', NULL, NULL, ?, ?)", (NOW, float("inf")))


def _no_folder(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_folder, "unable to open"),
        (_text, "not a database"),
        (_other_table, "another program; give SQLiteRevocations a path of its own"),
        (_another_program, "another program; give SQLiteRevocations a path of its own"),
        (_application_id, "another program .application_id 7."),
        (_later_version, "version 2"),
        (_torn, "damaged|malformed"),
        (_empty, "the file is empty.*restore it from a backup; without one, delete it"),
        (_lost_row, "1 revocations were written, and 0 are in it.*restore it from a backup"),
        (_changed_row, "not all as they were"),
        (_added_row, "1 revocations were written, and 2 are in it"),
        (_lost_count, "`content` cannot be read"),
        (_unreadable_count, "`content` cannot be read"),
        (_only_a_journal, "the file is gone, and revocations.db-journal is still there"),
        (_only_a_wal, "the file is gone, and revocations.db-wal is still there"),
        (_old_with_a_bad_row, "say what to revoke"),
        (_old_with_a_wrong_type, "token_id is a text"),
        (_no_folder, "create the folder"),
    ],
)
def test_a_file_that_cannot_be_read_stops_the_server_from_starting(
    path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    """With an error that names the file; and if nobody opened it, the one who asks is told, and refuses."""
    spoil(path)
    store = SQLiteRevocations(path)
    with pytest.raises(ConfigurationError, match=rf"the revocations in .*revocations\.db cannot be read: .*({reason})"):
        store.open()
    with pytest.raises(ConfigurationError):
        store.revoked(principal(), NOW)


# The file is checked.


def test_a_file_of_the_version_before_is_taken_over(path: Path) -> None:
    """With all its rows; from then on it is checked as any other."""
    _old(path)
    with opened(path) as store:
        assert len(store) == 2
        assert store.revoked(principal(), NOW)
        assert store.revoked(principal(token_id="t9", subject="bob"), NOW)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    with opened(path) as store:
        assert len(store) == 2
    _change(path, "DELETE FROM revocation WHERE token_id = 't1'")
    with pytest.raises(ConfigurationError, match="2 revocations were written, and 1 are in it"):
        SQLiteRevocations(path).open()


def test_two_processes_that_take_over_one_file_at_once_both_start(path: Path) -> None:
    """As the workers of a server after an update."""
    for _ in range(5):
        path.unlink(missing_ok=True)
        _old(path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
        stores = [SQLiteRevocations(path) for _ in range(4)]
        barrier = threading.Barrier(len(stores))

        def start(store: SQLiteRevocations, barrier: threading.Barrier = barrier) -> int:
            barrier.wait(5)
            store.open()
            return len(store)

        with ThreadPoolExecutor(len(stores)) as pool:
            assert list(pool.map(start, stores)) == [2] * len(stores)
        for store in stores:
            store.close()


def test_a_file_of_the_version_before_whose_process_was_killed_is_taken_over(path: Path) -> None:
    """What is only in its WAL file is not lost."""
    _old(path)
    writer = sqlite3.connect(path)
    writer.execute("INSERT INTO revocation VALUES ('t2', NULL, NULL, NULL, NULL, NULL, ?)", (NOW + 3600,))
    writer.commit()
    copy = path.with_name("copy.db")
    for suffix in ("", "-wal"):
        copy.with_name(f"copy.db{suffix}").write_bytes(path.with_name(f"revocations.db{suffix}").read_bytes())
    writer.close()
    with opened(copy) as store:
        assert len(store) == 3
    assert sorted(file.name for file in path.parent.iterdir()) == ["copy.db", "revocations.db"]


def test_another_program_finds_its_database_as_it_was(path: Path) -> None:
    """It is refused before anything in it is changed."""
    _another_program(path)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError):
        SQLiteRevocations(path).open()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_new_file_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that was deleted between two starts looks like a first start: the log says so."""
    with opened(path):
        pass
    assert "revocations.db was made: there was no file" in caplog.text
    caplog.clear()
    with opened(path):
        pass
    assert not caplog.records


def test_a_read_only_file_stops_the_server_from_starting(path: Path) -> None:
    """It would accept revocations that it cannot keep."""
    with opened(path):
        pass
    code = """
import os, sys
from iogate import SQLiteRevocations
if os.geteuid() == 0:
    os.setuid(65534)  # Root may write to everything.
SQLiteRevocations(sys.argv[1]).open()
"""
    with tempfile.NamedTemporaryFile(suffix=".db") as file:  # In a folder that everybody can read.
        file.write(path.read_bytes())
        file.flush()
        os.chmod(file.name, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        done = subprocess.run([sys.executable, "-c", code, file.name], capture_output=True, text=True, check=False)
    assert "ConfigurationError" in done.stderr
    assert "read-only for this process" in done.stderr


ROWS = 400
PAGE = 4096


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file with 400 revocations of all kinds."""
    path = tmp_path_factory.mktemp("full") / "revocations.db"
    with opened(path) as store:
        for number in range(ROWS):
            store.add(
                revocation(
                    **{("token_id", "session_id", "subject", "key_id")[number % 4]: f"{number:032x}"},
                    issuer="https://id.example.com" if number % 3 else None,
                    issued_before=NOW + number if number % 5 == 0 else None,
                    until=float("inf") if number % 7 == 0 else NOW + number + 0.25,
                ),
                NOW,
            )
    return path.read_bytes()


def test_whatever_happens_to_the_bytes_it_opens_with_all_rows_or_not_at_all(path: Path, full: bytes) -> None:
    """Bytes that flip, bytes and pages that become zero, pages that change places, and ends that are missing."""
    path.write_bytes(full)
    whole = everything(path)
    assert len(whole) == ROWS
    pages = len(full) // PAGE
    outcomes: Counter[bool] = Counter()
    place = st.one_of(st.integers(0, len(full) - 1), st.integers(0, 200))  # The header too.
    page = st.integers(0, pages - 1)
    damage = st.one_of(
        st.tuples(st.just("flip"), place, st.integers(1, 255)),
        st.tuples(st.just("zero"), place, st.integers(1, 600)),
        st.tuples(st.just("zero page"), page, st.just(0)),
        st.tuples(st.just("swap pages"), page, page),
        st.tuples(st.just("copy page"), page, page),
        st.tuples(st.just("cut"), place, st.just(0)),
    )

    @settings(max_examples=300, deadline=None)
    @given(st.lists(damage, min_size=1, max_size=3))
    def check(damages: list[tuple[str, int, int]]) -> None:
        data = bytearray(full)
        for kind, where, what in damages:
            if kind == "flip" and where < len(data):
                data[where] ^= what
            elif kind == "zero":
                data[where : where + what] = bytes(len(data[where : where + what]))
            elif kind == "cut":
                del data[where:]
            elif (max(where, what) + 1) * PAGE <= len(data):
                one, other = slice(where * PAGE, (where + 1) * PAGE), slice(what * PAGE, (what + 1) * PAGE)
                if kind == "zero page":
                    data[one] = bytes(PAGE)
                elif kind == "copy page":
                    data[one] = data[other]
                else:
                    data[one], data[other] = data[other], data[one]
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(data)
        try:
            assert everything(path) == whole
        except ConfigurationError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1

    check()
    assert outcomes[False] > 100


def test_a_schema_that_is_not_text_is_noticed(path: Path, full: bytes) -> None:
    """SQLite writes it into its error message, which cannot be decoded then."""
    refused = 0
    for where in range(full.index(b"CREATE"), PAGE, 3):
        data = bytearray(full)
        data[where] ^= 0x80
        path.write_bytes(data)
        try:
            everything(path)
        except ConfigurationError as error:
            refused += "its schema is not text" in str(error)
        for file in path.parent.iterdir():
            file.unlink()
    assert refused > 0


def test_every_single_row_that_is_lost_is_noticed(path: Path, full: bytes) -> None:
    """The count and the hashes say so, whichever it is."""
    for number in range(0, ROWS, 37):
        path.write_bytes(full)
        _change(path, "DELETE FROM revocation WHERE rowid = (SELECT rowid FROM revocation LIMIT 1 OFFSET ?)", number)
        with pytest.raises(ConfigurationError, match="400 revocations were written, and 399 are in it"):
            everything(path)


def test_damage_in_an_index_only_is_noticed(path: Path, full: bytes) -> None:
    """All rows could be read, but what a later revocation replaces is looked up in the index."""
    name = f"{8:032x}".encode()
    places = [place for place in range(len(full)) if full.startswith(name, place)]
    assert len(places) == 2, "in the table and in the index"
    for place in places:
        path.write_bytes(full[:place] + b"1" + full[place + 1 :])
        with pytest.raises(ConfigurationError, match="the file is damaged"):
            everything(path)


def test_the_count_and_the_hashes_follow_every_change(path: Path) -> None:
    """Whatever is written, replaced and dropped, in whatever order, the file opens again."""

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.lists(revocations.map(lambda fields: Revocation(**fields)), max_size=4), max_size=4))
    def check(batches: list[list[Revocation]]) -> None:
        path.unlink(missing_ok=True)
        for number, batch in enumerate(batches):
            file = RevocationFile(path)
            file.write(batch, NOW - 20 + number)
            file.close()
        RevocationFile(path).close()

    check()
