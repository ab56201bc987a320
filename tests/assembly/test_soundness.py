"""Books that are too large to be looked through at the start are looked through afterwards."""

import time
from pathlib import Path

from builders import HeldClock, intended, settled
from faregate.assembly.soundness import Soundness
from faregate.ports import JournalRecord
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books


def large_books(path: Path) -> SqliteBooks:
    """Books that a thousandth of a second is not enough for, opened anew."""
    books = open_books(path, HeldClock())
    events = [event for n in range(5_000) for event in (intended(n), settled(n))]
    records = [JournalRecord(n + 1, event, n + 1) for n, event in enumerate(events)]
    for start in range(0, len(records), 5_000):
        books.project(records[start : start + 5_000])
    books.checkpoint()
    books.close()
    return open_books(path, HeldClock(), look_ms=1)


def until(looked: SqliteBooks) -> None:
    """Wait until they were looked through."""
    end = time.monotonic() + 20
    while not looked.looked_through and time.monotonic() < end:
        time.sleep(0.01)


def test_what_is_found_after_the_start_is_told(tmp_path: Path) -> None:
    """The books stay open, and say which part of the file is damaged."""
    path = tmp_path / "books.sqlite3"
    books = large_books(path)
    with path.open("r+b") as file:
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


def test_sound_books_are_looked_through_once(tmp_path: Path) -> None:
    """Nothing is told of them; books that were looked through when they were opened are not looked through again."""
    books = large_books(tmp_path / "books.sqlite3")
    soundness = Soundness(books)
    soundness.look()
    until(books)
    assert books.looked_through
    assert soundness.damage == ""
    books.close()
    # Closed books cannot be looked through: nobody tries.
    Soundness(books).look()
