"""Backup and restore: one whole file of one instant, or none; and a way back that loses and repeats nothing."""

import hashlib
import os
import random
import sqlite3
import subprocess
import tarfile
import threading
from pathlib import Path

import msgspec
import pytest

from builders import START, HeldClock, intended, settled
from faregate.core.ledger.events import Event, Started
from faregate.errors import Conflict, Failed, Unsafe
from faregate.journal.append import FileJournal
from faregate.journal.read import FileJournalReader
from faregate.journal.segments import start_at
from faregate.ports import JournalRecord
from faregate.storage.schema import SCHEMA_VERSION
from faregate.storage.sqlite import backup
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books


@pytest.fixture
def books(tmp_path: Path) -> SqliteBooks:
    opened = open_books(tmp_path / "live" / "books.sqlite3", HeldClock())
    events: list[Event] = [
        Started(1, START),
        *(event for n in range(50) for event in (intended(n), settled(n))),
        intended(99),
    ]
    opened.project([JournalRecord(10 * (n + 1), event, n + 1) for n, event in enumerate(events)])
    opened.put("key", {"id": "key_1", "name": "ci", "digests": {"ab": 0}})
    return opened


def restored(tmp_path: Path, file: Path) -> SqliteBooks:
    backup.restore_into(tmp_path / "new", file, start_at)
    return open_books(tmp_path / "new" / "books.sqlite3", HeldClock())


def test_restored_books_are_the_same(tmp_path: Path, books: SqliteBooks) -> None:
    """A restored installation has the same balances, records, keys and open holds, and makes the hold unknown."""
    file = tmp_path / "backup.tar"
    books.backup(str(file))
    again = restored(tmp_path, file)
    assert again.totals() == books.totals()
    assert again.requests(limit=1_000) == books.requests(limit=1_000)
    assert again.get("key", "key_1") == books.get("key", "key_1")
    journal = FileJournal(tmp_path / "new" / "journal", HeldClock(), lambda callback: callback(), reserve_bytes=4096)
    journal.close()
    assert journal.epoch == 2
    again.project(FileJournalReader(tmp_path / "new" / "journal").read(again.projected(), 10_000))
    assert [row["id"] for row in again.open_reservations("unknown")] == [intended(99).id]
    assert again.projected() == journal.position
    again.close()
    books.close()


def test_backup_is_the_owners_alone_and_names_its_place(tmp_path: Path, books: SqliteBooks) -> None:
    """The file is private, says what it is, and nothing else is left beside it."""
    file = tmp_path / "out" / "backup.tar"
    file.parent.mkdir()
    books.backup(str(file))
    books.close()
    manifest = backup.restore_into(tmp_path / "new", file, start_at)
    assert (manifest.position, manifest.sequence, manifest.epoch) == (1_020, 102, 1)
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert os.listdir(file.parent) == ["backup.tar"]


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_the_trail_of_changes_comes_along_without_a_torn_line(tmp_path: Path, books: SqliteBooks, size: int) -> None:
    """Whole lines are in the backup and come back, private; a half one, of a change that is not made, is not."""
    lines = b"x" * size + b"\n" + b"y" * size + b"\n"
    (tmp_path / "live" / "audit.jsonl").write_bytes(lines + b"half")
    books.backup(str(tmp_path / "backup.tar"))
    restored(tmp_path, tmp_path / "backup.tar").close()
    books.close()
    trail = tmp_path / "new" / "audit.jsonl"
    assert trail.read_bytes() == lines
    assert oct(trail.stat().st_mode & 0o777) == "0o600"


def test_a_damaged_trail_in_a_backup_is_refused(tmp_path: Path, books: SqliteBooks) -> None:
    """Its digest stands in the manifest, and nothing of such a backup is restored."""
    (tmp_path / "live" / "audit.jsonl").write_bytes(b"one line\n")
    books.backup(str(tmp_path / "backup.tar"))
    books.close()
    whole = (tmp_path / "backup.tar").read_bytes()
    (tmp_path / "backup.tar").write_bytes(whole.replace(b"one line\n", b"two line\n"))
    with pytest.raises(Failed, match="checksum"):
        backup.restore_into(tmp_path / "new", tmp_path / "backup.tar", start_at)
    assert os.listdir(tmp_path / "new") == []


def test_backup_of_an_instant_while_in_use(tmp_path: Path, books: SqliteBooks) -> None:
    """Backups taken while batches are written are each of one instant: sums agree in every one."""
    stop = threading.Event()

    def write() -> None:
        n = 1_000
        while not stop.is_set():
            sequence = books.mark()["sequence"]
            events: list[Event] = [intended(n), settled(n)]
            position = books.projected()
            books.project([JournalRecord(position + k, event, sequence + k) for k, event in enumerate(events, 1)])
            n += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            books.backup(str(tmp_path / f"{number}.tar"))
    finally:
        stop.set()
        writer.join()
    books.close()
    for number in range(5):
        backup.restore_into(tmp_path / f"new{number}", tmp_path / f"{number}.tar", start_at)
        again = open_books(tmp_path / f"new{number}" / "books.sqlite3", HeldClock())
        totals = again.totals()
        again.close()
        assert totals["sum"] == 0
        assert totals["posted"] == totals["request_charge"] == totals["rollup_charge"] == 700 * totals["requests"]


def test_backup_onto_the_books_is_refused(tmp_path: Path, books: SqliteBooks) -> None:
    """The live file is never overwritten, by whatever path it is named."""
    link = tmp_path / "link"
    link.symlink_to(books.path)
    for target in (books.path, link):
        with pytest.raises(Unsafe, match="books themselves"):
            books.backup(str(target))
    assert books.totals()["requests"] == 50
    books.close()


def test_backup_that_fails_leaves_nothing(tmp_path: Path, books: SqliteBooks) -> None:
    """Where no file can be written the error says so, and an older backup stays as it was."""
    with pytest.raises(Failed, match="could not be written"):
        books.backup(str(tmp_path / "absent" / "backup.tar"))
    (tmp_path / "taken").mkdir()
    with pytest.raises(Failed, match="could not be written"):
        books.backup(str(tmp_path / "taken"))
    assert os.listdir(tmp_path / "taken") == []
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".backup-")]
    books.close()


def test_every_truncation_and_flip_is_refused(tmp_path: Path, books: SqliteBooks) -> None:
    """A damaged backup is refused by its checksum, and the folder is left as it was."""
    file = tmp_path / "backup.tar"
    books.backup(str(file))
    books.close()
    whole = file.read_bytes()
    with tarfile.open(file) as archive:
        inside = [(entry.offset_data, entry.size) for entry in archive]
    seed = random.randrange(2**32)
    print("seed", seed)
    places = random.Random(seed)
    target = tmp_path / "new"
    for number in range(60):
        damaged = bytearray(whole)
        offset, size = inside[1]
        if number % 2:
            del damaged[places.randrange(offset + size) :]
        else:
            damaged[offset + places.randrange(size)] ^= places.randint(1, 255)
        file.write_bytes(damaged)
        with pytest.raises(Failed):
            backup.restore_into(target, file, start_at)
        assert os.listdir(target) == [], seed
    file.write_bytes(b"")
    with pytest.raises(Failed):
        backup.restore_into(target, file, start_at)


def repacked(file: Path, scratch: Path, **changed: object) -> Path:
    """A backup whose manifest says something else."""
    with tarfile.open(file) as archive:
        archive.extractall(scratch, filter="data")
    manifest = msgspec.json.decode((scratch / "manifest.json").read_bytes())
    (scratch / "manifest.json").write_bytes(msgspec.json.encode({**manifest, **changed}))
    target = scratch / "changed.tar"
    members = ["manifest.json", "books.sqlite3", *(["audit.jsonl"] if (scratch / "audit.jsonl").exists() else [])]
    subprocess.run(["tar", "-cf", target, "-C", scratch, *members], check=True)
    return target


def test_backup_of_a_newer_version_is_refused(tmp_path: Path, books: SqliteBooks) -> None:
    """A backup with a schema of the future names both schemas."""
    books.backup(str(tmp_path / "backup.tar"))
    books.close()
    newer = repacked(tmp_path / "backup.tar", tmp_path / "scratch", schema="0099")
    with pytest.raises(Unsafe, match=f"schema 0099, this version of Faregate knows up to {SCHEMA_VERSION}"):
        backup.restore_into(tmp_path / "new", newer, start_at)


def test_a_manifest_that_lies_is_refused(tmp_path: Path, books: SqliteBooks) -> None:
    """A manifest that names another place in the journal than the books do is damage."""
    books.backup(str(tmp_path / "backup.tar"))
    books.close()
    lying = repacked(tmp_path / "backup.tar", tmp_path / "scratch", position=7)
    with pytest.raises(Failed, match="manifest"):
        backup.restore_into(tmp_path / "new", lying, start_at)


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DELETE FROM meta", "do not say where in the journal they stand"),
        ("DROP TABLE meta", "no such table: meta"),
        ("DELETE FROM alembic_version", "do not say their schema"),
    ],
)
def test_books_that_do_not_know_their_place_are_damaged(
    tmp_path: Path, books: SqliteBooks, statement: str, why: str
) -> None:
    """A backup of them is refused with what is wrong and a way out, and leaves nothing in the folder."""
    books.backup(str(tmp_path / "backup.tar"))
    books.close()
    scratch = tmp_path / "scratch"
    repacked(tmp_path / "backup.tar", scratch)
    with sqlite3.connect(scratch / "books.sqlite3") as connection:
        connection.execute(statement)
    connection.close()
    content = (scratch / "books.sqlite3").read_bytes()
    manifest = msgspec.json.decode((scratch / "manifest.json").read_bytes())
    manifest |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (scratch / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    subprocess.run(["tar", "-cf", tmp_path / "odd.tar", "-C", scratch, "manifest.json", "books.sqlite3"], check=True)
    with pytest.raises(Failed, match=f"odd.tar are damaged: .*{why}") as refused:
        backup.restore_into(tmp_path / "new", tmp_path / "odd.tar", start_at)
    assert (refused.value.code, refused.value.hint) == ("backup_invalid", "restore another backup")
    assert os.listdir(tmp_path / "new") == []


def test_no_backup_is_made_of_books_that_do_not_know_their_place(tmp_path: Path, books: SqliteBooks) -> None:
    """It could never be restored, so it is told at once, and an older backup stays."""
    books.close()
    with sqlite3.connect(books.path) as connection:
        connection.execute("DELETE FROM meta")
    connection.close()
    (tmp_path / "backup.tar").write_bytes(b"the older one")
    with pytest.raises(Failed, match="do not say where in the journal they stand") as refused:
        backup.backup(Path(books.path), tmp_path / "backup.tar", START)
    assert refused.value.hint == "restore a backup"
    assert (tmp_path / "backup.tar").read_bytes() == b"the older one"


def test_a_restore_removes_what_a_killed_one_left(tmp_path: Path, books: SqliteBooks) -> None:
    """A second try ends with the books alone, and no copy of them from the first."""
    books.backup(str(tmp_path / "backup.tar"))
    books.close()
    half = tmp_path / "new" / ".restore-x1y2z3w4"
    half.mkdir(parents=True)
    (half / "books.sqlite3").write_bytes(b"half a copy")
    backup.restore_into(tmp_path / "new", tmp_path / "backup.tar", start_at)

    assert sorted(os.listdir(tmp_path / "new")) == ["books.sqlite3", "journal"]


def test_a_backup_is_known_by_its_manifest(tmp_path: Path, books: SqliteBooks) -> None:
    """Whole or cut off; a text, a folder, a pipe that nobody writes to and a link to nothing are none."""
    books.backup(str(tmp_path / "backup.tar"))
    (tmp_path / "half.tar").write_bytes((tmp_path / "backup.tar").read_bytes()[:20_000])
    (tmp_path / "text").write_text("no tar at all")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    found = {name for name in os.listdir(tmp_path) if books.is_backup(str(tmp_path / name))}

    assert found == {"backup.tar", "half.tar"}


def test_something_else_is_no_backup(tmp_path: Path) -> None:
    """Files that are no backups, and absent ones, are named."""
    (tmp_path / "text").write_text("no tar at all")
    subprocess.run(["tar", "-cf", tmp_path / "other.tar", "-C", tmp_path, "text"], check=True)
    sqlite3.connect(tmp_path / "db").close()
    for name in ("text", "other.tar", "db", "absent"):
        with pytest.raises(Failed):
            backup.restore_into(tmp_path / "new", tmp_path / name, start_at)


def test_restoring_over_something_is_refused(tmp_path: Path, books: SqliteBooks) -> None:
    """Existing books, journals and trails are never replaced."""
    file = tmp_path / "backup.tar"
    (tmp_path / "live" / "audit.jsonl").write_bytes(b"one line\n")
    books.backup(str(file))
    books.close()
    with pytest.raises(Conflict, match="holds books already"):
        backup.restore_into(tmp_path / "live", file, start_at)
    FileJournal(tmp_path / "other" / "journal", HeldClock(), lambda callback: callback(), reserve_bytes=4096).close()
    with pytest.raises(Conflict, match="holds a journal already"):
        backup.restore_into(tmp_path / "other", file, start_at)
    assert not (tmp_path / "other" / "books.sqlite3").exists()
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "audit.jsonl").write_bytes(b"another line\n")
    with pytest.raises(Conflict, match="exists already"):
        backup.restore_into(tmp_path / "third", file, start_at)
    assert os.listdir(tmp_path / "third") == ["audit.jsonl"]


@pytest.mark.parametrize(
    "lie",
    [
        {"trail_bytes": 0},
        {"trail_bytes": 0, "trail_sha256": ""},
        {"trail_sha256": ""},
        {"position": -7},
        {"position": 2**63 - 1},
        {"epoch": -1},
    ],
)
def test_a_manifest_that_leaves_the_trail_out_or_lies_outside_is_refused(
    tmp_path: Path, books: SqliteBooks, lie: dict[str, object]
) -> None:
    """No edit of the manifest restores books without their audit trail, or at a place that no journal has."""
    (tmp_path / "live" / "audit.jsonl").write_bytes(b"one line\n")
    books.backup(str(tmp_path / "backup.tar"))
    books.close()
    lying = repacked(tmp_path / "backup.tar", tmp_path / "scratch", **lie)
    with pytest.raises(Failed, match="manifest"):
        backup.restore_into(tmp_path / "new", lying, start_at)
