"""The projector: everything that is journalled gets into the books, whatever stands in its way meanwhile."""

import gc
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import HeldClock, intended, settled
from faregate.errors import Unavailable
from faregate.journal.append import FileJournal
from faregate.journal.projector import Projector
from faregate.journal.read import FileJournalReader
from faregate.journal.segments import list_segments
from faregate.storage.memory.books import MemoryBooks
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books


class Rig:
    """A journal, books and the projector between them, with what it told."""

    def __init__(self, folder: Path, books: MemoryBooks | SqliteBooks, **options: float) -> None:
        self.folder = folder
        self.books = books
        self.told: list[int] = []
        self.troubles: list[str] = []
        self.journal = FileJournal(folder, HeldClock(), lambda callback: callback(), reserve_bytes=4096)
        self.projector = Projector(
            FileJournalReader(folder),
            books,
            self.told.append,
            self.troubles.append,
            **options,  # type: ignore[arg-type]
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.projector.run, args=(self.stop,))

    def call(self, number: int) -> None:
        self.journal.append(intended(number))
        self.journal.append(settled(number))

    def eventually(self, what: str, seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while not getattr(self, what)():
            assert time.monotonic() < until, what
            time.sleep(0.01)

    def caught_up(self) -> bool:
        return self.books.projected() == self.journal.position

    def in_trouble(self) -> bool:
        return bool(self.projector.trouble)

    def end(self) -> None:
        self.stop.set()
        self.projector.nudge()
        if self.thread.is_alive():
            self.thread.join(10)
        assert not self.thread.is_alive()
        self.journal.close()
        self.books.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "journal", MemoryBooks(HeldClock()))
    yield made
    made.end()


def test_steps_are_bounded_batches(tmp_path: Path) -> None:
    """One step applies about one batch and says how far it came; with nothing new it does nothing."""
    rig = Rig(tmp_path / "journal", MemoryBooks(HeldClock()), batch_bytes=2_000)
    for number in range(20):
        rig.call(number)
    taken = []
    while step := rig.projector.step():
        taken.append(step)
    assert len(taken) > 3
    assert sum(taken) == rig.journal.position
    assert rig.told[-1] == rig.journal.position
    assert rig.books.totals()["requests"] == 20
    rig.end()


def test_the_thread_tails_the_journal(rig: Rig) -> None:
    """What is appended while it runs is in the books soon, with nobody asking."""
    rig.thread.start()
    for number in range(30):
        rig.call(number)
        if number % 10 == 0:
            rig.eventually("caught_up")
    rig.eventually("caught_up")
    assert rig.books.totals()["requests"] == 30
    assert rig.troubles == []


def test_nudged_it_looks_at_once(tmp_path: Path) -> None:
    """A nudge ends the wait in which records gather."""
    rig = Rig(tmp_path / "journal", MemoryBooks(HeldClock()), gather_s=3_600)
    rig.thread.start()
    rig.eventually("caught_up")
    rig.call(1)
    rig.projector.nudge()
    rig.eventually("caught_up")
    rig.end()


def test_paused_it_projects_nothing(rig: Rig) -> None:
    """While it is paused the books stand still, and they go on afterwards; another thread may end the pause."""
    rig.thread.start()
    rig.eventually("caught_up")
    pause = rig.projector.paused()
    pause.__enter__()
    before = rig.books.projected()
    rig.call(1)
    time.sleep(0.3)
    assert rig.books.projected() == before
    ender = threading.Thread(target=pause.__exit__, args=(None, None, None))
    ender.start()
    ender.join()
    rig.eventually("caught_up")


def test_locked_books_delay_and_lose_nothing(tmp_path: Path) -> None:
    """While somebody locks the books it says so and tries on; then everything is there, once."""
    path = tmp_path / "books.sqlite3"
    rig = Rig(tmp_path / "journal", open_books(path, HeldClock()))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    rig.thread.start()
    for number in range(10):
        rig.call(number)
    rig.eventually("in_trouble")
    assert "locked" in rig.projector.trouble
    other.execute("ROLLBACK")
    other.close()
    rig.eventually("caught_up")
    assert rig.books.totals()["requests"] == 10
    rig.eventually("caught_up")
    rig.end()
    assert rig.troubles[-1] == ""


def test_a_damaged_journal_is_told_and_the_thread_lives(rig: Rig) -> None:
    """Damage is named; once it is gone, as by a recovery, projection goes on."""
    for number in range(5):
        rig.call(number)
    (segment,) = list_segments(rig.folder)
    whole = segment.path.read_bytes()
    with segment.path.open("r+b") as file:
        file.seek(100)
        file.write(b"\0\0\0\0")
    rig.thread.start()
    rig.eventually("in_trouble")
    assert "damaged at position" in rig.projector.trouble
    with segment.path.open("r+b") as file:
        file.write(whole)
    rig.eventually("caught_up")
    assert rig.books.totals()["requests"] == 5


class WatchfulBooks(MemoryBooks):
    """Books that look whether cycles are collected while they project; they fail at first."""

    collected: list[bool]
    fail = True

    def project(self, records: object) -> None:
        self.collected = [*getattr(self, "collected", []), gc.isenabled()]
        if self.fail:
            raise Unavailable("not now")
        super().project(records)  # type: ignore[arg-type]


def test_the_collector_is_off_for_a_batch_only(tmp_path: Path) -> None:
    """Nothing looks for cycles while a batch is applied, and after it all is as it was, also when it failed."""
    books = WatchfulBooks(HeldClock())
    rig = Rig(tmp_path / "journal", books)
    rig.call(1)
    with pytest.raises(Unavailable):
        rig.projector.step()
    assert gc.isenabled()
    books.fail = False
    assert rig.projector.step() > 0
    assert gc.isenabled()
    assert books.collected == [False, False]
    rig.end()


class FailingBooks(MemoryBooks):
    """Books with a bug, for a while."""

    failures = 3

    def project(self, records: object) -> None:
        if self.failures:
            self.failures -= 1
            raise ZeroDivisionError("a bug")
        super().project(records)  # type: ignore[arg-type]


def test_a_bug_never_ends_the_thread(tmp_path: Path) -> None:
    """An error that nobody foresaw is told and tried again."""
    rig = Rig(tmp_path / "journal", FailingBooks(HeldClock()), gather_s=0.01)
    rig.call(1)
    rig.thread.start()
    rig.eventually("caught_up")
    rig.end()
    assert rig.troubles == ["projection failed: ZeroDivisionError: a bug", ""]


def test_whoever_runs_it_may_leave_when_it_falls_behind_or_has_caught_up(tmp_path: Path) -> None:
    """Asked after each batch, with the time since it fell behind: more and more, then only what the last one took."""
    rig = Rig(tmp_path / "journal", MemoryBooks(HeldClock()), batch_bytes=2_000, gather_s=0.01)
    for number in range(1, 60):
        rig.call(number)
    told: list[float] = []
    asked: list[float] = []

    def leave(behind_s: float) -> bool:
        told.append(behind_s)
        asked.append(time.monotonic())
        return len(told) == 2 or rig.caught_up()

    rig.projector.run(rig.stop, leave)
    assert not rig.caught_up()
    rig.projector.run(rig.stop, leave)

    assert rig.caught_up()
    assert 0.0 < told[0] < told[1]
    assert told[2:-1] == sorted(told[2:-1])
    # The last batch began after it was asked before.
    assert told[-1] < asked[-1] - asked[-2]
    rig.end()
