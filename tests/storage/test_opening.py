"""Opening the books: made, brought up to date, checked, or refused with a sentence that says why."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from builders import MINUTE, START, HeldClock, intended, settled
from faregate.core.ledger.events import Started
from faregate.errors import Failed, Unavailable, Unsafe
from faregate.ports import JournalRecord
from faregate.storage.schema import SCHEMA_VERSION, metadata
from faregate.storage.sqlite.opening import open_books, schema_version

SOURCE = Path(__file__).parents[2] / "src"
TESTS = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "books.sqlite3"


def test_new_books_are_the_owners_alone(path: Path) -> None:
    """Folder and file are made readable for nobody else."""
    open_books(path, HeldClock()).close()
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert oct(path.parent.stat().st_mode & 0o777) == "0o700"


def test_migrations_make_the_schema(path: Path) -> None:
    """The history of migrations ends at exactly the tables that the code uses, and at the version it names."""
    open_books(path, HeldClock()).close()
    with create_engine(f"sqlite:///{path}").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        with warnings.catch_warnings():
            # One index is over an expression, which is not read back; test_searching looks at it.
            warnings.filterwarnings("ignore", ".*expression-based index")
            assert compare_metadata(context, metadata) == []
    connection.engine.dispose()
    config = Config()
    config.set_main_option("script_location", "faregate.storage:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_VERSION
    assert schema_version(path) == SCHEMA_VERSION


def rewritten(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_newer_schema_is_refused(path: Path) -> None:
    """Books that a newer version wrote are left alone, and both versions are named."""
    open_books(path, HeldClock()).close()
    rewritten(path, "UPDATE alembic_version SET version_num = '0099'")
    with pytest.raises(Unsafe, match=f"schema 0099, this version of Faregate knows up to {SCHEMA_VERSION}"):
        open_books(path, HeldClock())


def test_something_else_is_refused(path: Path) -> None:
    """A database of somebody else and a file that is none are not touched."""
    path.parent.mkdir()
    rewritten(path, "CREATE TABLE theirs (x)")
    with pytest.raises(Failed, match="not Faregate's books"):
        open_books(path, HeldClock())
    path.write_bytes(b"these are no books" * 1_000)
    with pytest.raises(Failed, match="damaged"):
        open_books(path, HeldClock())
    assert path.read_bytes() == b"these are no books" * 1_000


def test_damaged_pages_are_found(path: Path) -> None:
    """Bytes turned over inside the file are found when it is opened."""
    books = open_books(path, HeldClock())
    events = [event for n in range(300) for event in (intended(n), settled(n))]
    books.project([JournalRecord(n + 1, event, n + 1) for n, event in enumerate(events)])
    books.close()
    whole = bytearray(path.read_bytes())
    for page in range(len(whole) // 4096 - 40, len(whole) // 4096):
        whole[page * 4096 : page * 4096 + 200] = b"\xee" * 200
    path.write_bytes(whole)
    with pytest.raises(Failed, match="damaged"):
        open_books(path, HeldClock())


def test_a_start_looks_through_large_books_for_a_moment_only(path: Path) -> None:
    """Beyond that they are opened, and say that they were not looked through to the end; small ones always are."""
    books = open_books(path, HeldClock(), look_ms=1_000)
    assert books.looked_through
    events = [event for n in range(5_000) for event in (intended(n), settled(n))]
    records = [JournalRecord(n + 1, event, n + 1) for n, event in enumerate(events)]
    for start in range(0, len(records), 5_000):
        books.project(records[start : start + 5_000])
    books.close()
    books = open_books(path, HeldClock(), look_ms=1)
    assert (books.looked_through, books.totals()["requests"]) == (False, 5_000)
    assert (books.check(), books.looked_through) == ([], True)
    books.close()


def test_locked_books_are_unavailable_in_time(path: Path) -> None:
    """A lock held by somebody else ends in an error that says so, and what was not applied is applied later."""
    books = open_books(path, HeldClock())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    before = time.monotonic()
    with pytest.raises(Unavailable, match="locked"):
        books.project([JournalRecord(1, intended(1), 1)])
    assert time.monotonic() - before < 15
    assert books.projected() == 0
    other.execute("ROLLBACK")
    other.close()
    books.project([JournalRecord(1, intended(1), 1)])
    assert len(books.open_reservations()) == 1
    books.close()


def test_unreachable_folder(tmp_path: Path) -> None:
    """A place where no file can be made is named."""
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be opened"):
        open_books(tmp_path / "file" / "books.sqlite3", HeldClock())


def test_readers_cannot_write_and_do_not_wait(path: Path) -> None:
    """Looking goes on while a batch is being written."""
    books = open_books(path, HeldClock())
    books.project([JournalRecord(1, intended(1), 1), JournalRecord(2, settled(1), 2)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    looked = [threading.Thread(target=books.totals) for _ in range(4)]
    for thread in looked:
        thread.start()
    for thread in looked:
        thread.join(3)
    assert not any(thread.is_alive() for thread in looked)
    other.execute("ROLLBACK")
    other.close()
    books.close()


KILLED = """
import sys
from pathlib import Path
from builders import HeldClock, intended, settled
from faregate.ports import JournalRecord
from faregate.storage.sqlite.opening import open_books
books = open_books(Path(sys.argv[1]), HeldClock())
sequence = books.mark()["sequence"]
while True:
    number = sequence // 2
    records = []
    for n in range(number, number + 20):
        records += [JournalRecord(2 * n + 1, intended(n), 2 * n + 1), JournalRecord(2 * n + 2, settled(n), 2 * n + 2)]
    books.project(records)
    sequence = records[-1].sequence
    print(sequence, flush=True)
"""


def test_killed_projector_leaves_whole_batches(path: Path) -> None:
    """After kill -9 the books hold whole batches, everything told included, and go on from there."""
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{TESTS}"}
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, str(path)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(15)]
        process.kill()
        told += [int(line) for line in process.stdout.read().split()]
        process.stdout.close()
        process.wait()
        books = open_books(path, HeldClock())
        totals = books.totals()
        books.close()
        assert totals["sequence"] >= told[-1]
        assert totals["requests"] * 2 == totals["sequence"]
        assert (totals["sum"], totals["posted"]) == (0, 700 * totals["requests"])


def test_recovery_with_many_open_holds(path: Path) -> None:
    """Books with 10,000 open holds and many records open, and turn the holds unknown, well within five seconds."""
    books = open_books(path, HeldClock())
    records = [JournalRecord(1, Started(1, START), 1)]
    for n in range(40_000):
        at = START + n * MINUTE // 60
        records.append(JournalRecord(len(records) + 1, intended(n, at=at), len(records) + 1))
        if n >= 10_000:
            records.append(JournalRecord(len(records) + 1, settled(n, at=at), len(records) + 1))
    for start in range(0, len(records), 5_000):
        books.project(records[start : start + 5_000])
    books.close()
    before = time.monotonic()
    books = open_books(path, HeldClock())
    books.project([JournalRecord(len(records) + 1, Started(2, START + MINUTE), len(records) + 1)])
    unknown = books.open_reservations("unknown")
    books.balances({"team": "research"}, ("user",), "usd", START)
    took = time.monotonic() - before
    assert len(unknown) == 10_000
    assert books.totals()["unknown"] == 10_000 * 1_000
    books.close()
    assert took < 15


@pytest.mark.parametrize("name", [".backup-x1y2z3w4", ".restore-_1y2z3w4"])
def test_what_a_killed_backup_or_restore_left_is_removed(tmp_path: Path, name: str) -> None:
    """Copies of the books in the folder of one that never ended do not stay; finished backups do."""
    half = tmp_path / name
    half.mkdir()
    (half / "books.sqlite3").write_bytes(b"half a copy")
    (half / "books.sqlite3-journal").write_bytes(b"and its journal")
    (tmp_path / "whole.tar").write_bytes(b"a backup")
    open_books(tmp_path / "books.sqlite3", HeldClock()).close()

    assert not half.exists()
    assert (tmp_path / "whole.tar").exists()


@pytest.mark.parametrize("name", [".backup-", ".restore-"])
def test_what_only_looks_like_a_leftover_stays(tmp_path: Path, name: str) -> None:
    """A folder with something else in it or a name of its own, a link and a file are somebody else's."""
    theirs, copy, elsewhere = tmp_path / f"{name}of-them1", tmp_path / f"{name}2026-11", tmp_path / "elsewhere"
    for folder in (theirs, copy, elsewhere):
        folder.mkdir()
        (folder / "books.sqlite3").write_bytes(b"precious")
    (theirs / "notes").write_text("mine")
    (tmp_path / f"{name}link1234").symlink_to(elsewhere)
    (tmp_path / f"{name}file1234").write_text("mine")
    open_books(tmp_path / "books.sqlite3", HeldClock()).close()

    assert sorted(each.name for each in theirs.iterdir()) == ["books.sqlite3", "notes"]
    assert (copy / "books.sqlite3").read_bytes() == b"precious"
    assert (elsewhere / "books.sqlite3").read_bytes() == b"precious"
    assert (tmp_path / f"{name}link1234").is_symlink()
    assert (tmp_path / f"{name}file1234").read_text() == "mine"
