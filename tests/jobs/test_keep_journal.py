"""Removing journal segments that the books hold for good."""

from typing import NamedTuple

import pytest

from console_parts import DAY, NOON
from faregate.errors import Unavailable
from faregate.jobs.keep_journal import keep_journal
from faregate.ports import Row


class Digest(NamedTuple):
    """What stays of a segment."""

    first: int
    sha256: str


class Crash(Exception):
    """The process dies here."""


class Stored(NamedTuple):
    """A segment's file."""

    first: int


class Shelf:
    """Books and files in one, which note the order of what is done."""

    def __init__(self, *segments: int, projected: int = 100, busy: bool = False) -> None:
        self.files = list(segments)
        self.crashing = False
        self.rows: list[Row] = []
        self.done: list[str] = []
        self._projected = projected
        self._busy = busy

    def projected(self) -> int:
        return self._projected

    def checkpoint(self) -> None:
        if self._busy:
            raise Unavailable("somebody reads")
        self.done.append("checkpoint")

    def removed_segments(self) -> list[Row]:
        return self.rows

    def keep_segment(self, row: Row) -> None:
        self.done.append(f"keep {row['first']}")
        self.rows = [*self.rows, row]

    def removable(self, position: int, older_than: int) -> list[Stored]:
        assert older_than == NOON - DAY
        return [Stored(each) for each in self.files if each < position]

    def digest(self, segment: Stored, before: str) -> Digest:
        return Digest(segment.first, f"{before}>{segment.first}")

    def remove(self, segment: Stored) -> None:
        if self.crashing:
            raise Crash
        self.done.append(f"remove {segment.first}")
        self.files = [each for each in self.files if each != segment.first]


def test_digests_are_kept_and_chained_before_files_go() -> None:
    """The books are made stable first; each segment's digest names the one before it."""
    shelf = Shelf(0, 50, 100)
    assert keep_journal(shelf, shelf, NOON, DAY).removed == 2
    assert shelf.done == ["checkpoint", "keep 0", "remove 0", "keep 50", "remove 50"]
    assert [row["sha256"] for row in shelf.rows] == [">0", ">0>50"]
    assert shelf.files == [100]


def test_nothing_is_touched_where_nothing_may_go() -> None:
    """No checkpoint without a reason."""
    shelf = Shelf(0, projected=0)
    assert keep_journal(shelf, shelf, NOON, DAY).removed == 0
    assert shelf.done == []


def test_books_that_cannot_be_made_stable_keep_the_journal() -> None:
    """The next run tries again."""
    shelf = Shelf(0, busy=True)
    with pytest.raises(Unavailable):
        keep_journal(shelf, shelf, NOON, DAY)
    assert shelf.files == [0]


def test_a_crash_before_a_file_goes_does_not_break_the_chain() -> None:
    """The next run removes the file whose digest is kept, and goes on from that digest."""
    shelf = Shelf(0, 50, 100)
    shelf.crashing = True
    with pytest.raises(Crash):
        keep_journal(shelf, shelf, NOON, DAY)
    shelf.crashing = False
    assert keep_journal(shelf, shelf, NOON, DAY).removed == 2
    assert [row["sha256"] for row in shelf.rows] == [">0", ">0>50"]
    assert shelf.files == [100]
