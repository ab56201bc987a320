"""Removes journal segments that the books hold for good; digests stay, so that ``verify`` still accounts for them.

A segment goes only after the books were brought to stable storage, and not before it is a day old (by default).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from faregate.ports import Row


class Placed(Protocol):
    """A file of the journal."""

    @property
    def first(self) -> int:
        """The position of its first record."""
        ...


Segment = TypeVar("Segment", bound=Placed)


class SegmentBooks(Protocol):
    """The books, as far as they remember removed segments."""

    def projected(self) -> int:
        """The journal position up to which everything is in the books."""
        ...

    def checkpoint(self) -> None:
        """Bring all that is projected to stable storage.

        Raises:
            Unavailable: not now; try again later.
        """
        ...

    def removed_segments(self) -> list[Row]:
        """Digests of removed segments, oldest first."""
        ...

    def keep_segment(self, row: Row) -> None:
        """Keep the digest of a segment; known ones are left as they are."""
        ...


class SegmentFiles(Protocol[Segment]):
    """The journal's files."""

    def removable(self, position: int, older_than: int) -> Sequence[Segment]:
        """Segments that end at or below ``position`` and were last written before ``older_than``, oldest first."""
        ...

    def digest(self, segment: Segment, before: str) -> Any:
        """What stays of a segment, chained to the hash ``before``: a named tuple with ``sha256``."""
        ...

    def remove(self, segment: Segment) -> None:
        """Remove a segment's file for good."""
        ...


class Kept(NamedTuple):
    """What one run did."""

    removed: int


def keep_journal(books: SegmentBooks, files: SegmentFiles[Segment], now: int, keep_nanos: int) -> Kept:
    """Remove what is projected, stable and older than ``keep_nanos``. Runs in a thread.

    Raises:
        Unavailable: the books cannot be checkpointed now.
        JournalCorrupt: a segment is damaged; it and all after it stay.
    """
    removable = files.removable(books.projected(), now - keep_nanos)
    if not removable:
        return Kept(0)
    books.checkpoint()
    known = books.removed_segments()
    kept = {row["first"] for row in known}
    before = known[-1]["sha256"] if known else ""
    for segment in removable:
        if segment.first not in kept:
            digest = files.digest(segment, before)
            books.keep_segment(digest._asdict())
            before = digest.sha256
        # A crash just before this leaves a known digest and a file, which the next run removes.
        files.remove(segment)
    return Kept(len(removable))
