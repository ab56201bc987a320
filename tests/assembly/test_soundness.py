"""Books that are too large to be looked through at the start are looked through afterwards."""

import time
from pathlib import Path

import pytest

from builders import HeldClock, intended, settled
from faregate.assembly.soundness import Soundness
from faregate.ports import JournalRecord
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of books that a thousandth of a second is not enough for."""
    path = tmp_path_factory.mktemp("large") / "books.sqlite3"
    books = open_books(path, HeldClock())
    events = [event for n in range(20_000) for event in (intended(n), settled(n))]
    records = [JournalRecord(n + 1, event, n + 1) for n, event in enumerate(events)]
    for start in range(0, len(records), 5_000):
        books.project(records[start : start + 5_000])
    books.checkpoint()
    books.close()
    return path


def opened(large: Path, folder: Path) -> SqliteBooks:
    """Books of one's own, opened for so short a time."""
    path = folder / "books.sqlite3"
    path.write_bytes(large.read_bytes())
    return open_books(path, HeldClock(), look_ms=1)


def until(looked: SqliteBooks) -> None:
    """Wait until they were looked through."""
    end = time.monotonic() + 20
    while not looked.looked_through and time.monotonic() < end:
        time.sleep(0.01)


def test_what_is_found_after_the_start_is_told(large: Path, tmp_path: Path) -> None:
    """The books stay open, and say which part of the file is damaged."""
    books = opened(large, tmp_path)
    with books.path.open("r+b") as file:
        pages = file.seek(0, 2) // 4096
        for page in range(pages - 40, pages):
            file.seek(page * 4096)
            file.write(b"\xee" * 200)
    soundness = Soundness(books)
    assert soundness.damage == ""
    soundness.look()
    until(books)
    time.sleep(0.05)
    assert soundness.damage
    books.close()


def test_sound_books_are_looked_through_once(large: Path, tmp_path: Path) -> None:
    """Nothing is told of them; books that were looked through when they were opened are not looked through again."""
    books = opened(large, tmp_path)
    soundness = Soundness(books)
    soundness.look()
    until(books)
    assert books.looked_through
    assert soundness.damage == ""
    books.close()
    # Closed books cannot be looked through: nobody tries.
    Soundness(books).look()
