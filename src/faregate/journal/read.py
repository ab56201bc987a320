"""Reads the journal that another process may be writing, and removes what is no longer needed.

It owns one open descriptor and no position: whoever reads remembers where it is. A record that is only half there is
"nothing yet"; damage with whole records behind it, a gap in sequence numbers or a missing file is corruption, named
by its position.
"""

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from faregate.core.ledger.events import Intended, Recalled, Settled
from faregate.errors import JournalCorrupt, Unavailable
from faregate.journal import records, segments
from faregate.journal.segments import Segment
from faregate.ports import JournalRecord

#: Bytes asked for when a single record is larger than what was asked for at first.
_ONE_RECORD: Final = records.HEADER_BYTES + records.RECORD_BYTES_MAX

#: How much behind a bad record is searched for a whole one: room for two of the largest tells enough.
_TAIL_BYTES_MAX: Final = 2 * _ONE_RECORD

#: How much behind the end of the data is looked at, for damage that looks like an end.
_GLANCE_BYTES: Final = 64 * 1024

#: Data is read in such pieces, as long as they do not end in room that was only taken beforehand.
_PIECE_BYTES: Final = 256 * 1024

_ROOM: Final = bytes(256)

#: A length of 0 stands where the data of a segment ends.
_END: Final = bytes(4)

#: What a walk over the whole journal reads at a time.
WALK_BYTES: Final = 1024 * 1024


class Digest(NamedTuple):
    """What stays of a removed segment: its place, its sums, and a hash chained to the digest before it."""

    first: int
    end: int
    sequence: int
    records: int
    charge: int
    held: int
    sha256: str


class FileJournalReader:
    """Implements ``JournalReader`` over the segments in ``folder``, which need not exist yet.

    Any thread may use it; reading on where the last read ended is what also checks that no record is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = threading.Lock()
        self._fd = -1
        self._open: Segment | None = None
        #: Segments read from since the last sync, by their first positions.
        self._read: dict[int, Segment] = {}
        #: First positions of segments whose names are known to be durable.
        self._named: set[int] = set()
        #: Position → sequence number expected there, for the place that was read up to.
        self._expected: tuple[int, int] = (-1, 0)

    def read(self, position: int, bytes_max: int) -> Sequence[JournalRecord]:
        """Whole records from ``position`` on, about ``bytes_max`` of them; empty when there is nothing new yet.

        Raises:
            JournalCorrupt: damage before the last record, a gap in sequence, or a position the journal does not hold.
            Unavailable: the files cannot be read.
        """
        with self._turn:
            try:
                segment = self._segment_of(position)
                if segment is None:
                    return ()
                found = self._parse(segment, position, bytes_max)
                if not found and (after := self._next(segment, position)) is not None:
                    found = self._parse(after, position, bytes_max)
            except OSError as problem:
                raise Unavailable(f"the journal cannot be read: {problem.strerror}: {problem.filename}") from problem
            return found

    def segments(self) -> Iterable[tuple[int, int]]:
        """``(first position, bytes)`` of every segment still kept, oldest first."""
        kept = self._list()
        ends = [segment.first for segment in kept[1:]]
        if kept:
            # Only the last one is looked at: an older one may be removed at any moment.
            with open(kept[-1].path, "rb") as file:
                ends.append(kept[-1].first + segments.end_of_records(file.fileno(), 0, kept[-1].size))
        return [(segment.first, end - segment.first) for segment, end in zip(kept, ends, strict=True)]

    def sync(self) -> None:
        """Bring everything that was read to stable storage, so that the books never run ahead of the disk.

        Raises:
            Unavailable: the disk does not take it.
        """
        with self._turn:
            read, self._read = self._read, {}
            try:
                for segment in read.values():
                    if segment == self._open:
                        os.fdatasync(self._fd)
                    elif segment.path.exists():
                        segments.sync_file(segment.path)
                if not self._named.issuperset(read):
                    # A file is only as durable as its name.
                    segments.sync_folder(self._folder)
                    self._named.update(read)
            except OSError as problem:
                raise Unavailable(f"the journal cannot be synced: {problem.strerror}") from problem

    def removable(self, position: int, older_than: int) -> list[Segment]:
        """Segments that end at or below ``position`` and were last written before ``older_than``, oldest first.

        The last one is never among them: the writer goes on from it.
        """
        kept = self._list()
        found: list[Segment] = []
        for segment, after in pairwise(kept):
            if after.first > position or segment.path.stat().st_mtime_ns >= older_than:
                break
            found.append(segment)
        return found

    def digest(self, segment: Segment, before: str) -> Digest:
        """The digest of a whole segment, chained to the hash ``before`` (empty for the first).

        Raises:
            JournalCorrupt: the segment is damaged, so that nothing true can be said of it.
        """
        # The next one's name says how long it is: the file may be longer until the writer has put it away.
        later = [other.first for other in self._list() if other.first > segment.first]
        size = min(later) - segment.first if later else segment.size
        chain = hashlib.sha256(before.encode())
        with open(segment.path, "rb") as file:
            while chunk := file.read(min(WALK_BYTES, size - file.tell())):
                chain.update(chunk)
        position, count, charge, held = segment.first, 0, 0, 0
        while position < segment.first + size:
            with self._turn:
                found = self._parse(segment, position, WALK_BYTES)
            if not found:
                raise JournalCorrupt(f"the journal is damaged at position {position}")
            for record in found:
                if type(record.event) is Settled:
                    charge += record.event.charge
                elif type(record.event) is Intended:
                    held += record.event.held.usd
                elif type(record.event) is Recalled:
                    charge += record.event.charge
                    held += record.event.charge
            count += len(found)
            position = found[-1].position
        return Digest(segment.first, position, segment.sequence, count, charge, held, chain.hexdigest())

    def remove(self, segment: Segment) -> None:
        """Remove a segment's file for good; its digest must have been kept before."""
        segment.path.unlink(missing_ok=True)
        self._read.pop(segment.first, None)
        segments.sync_folder(self._folder)

    def close(self) -> None:
        """Give the descriptor back."""
        with self._turn:
            self._release()

    def _release(self) -> None:
        if self._fd != -1:
            os.close(self._fd)
        self._fd, self._open = -1, None

    def _list(self) -> list[Segment]:
        try:
            return segments.list_segments(self._folder)
        except FileNotFoundError:
            return []

    def _segment_of(self, position: int) -> Segment | None:
        """The segment that holds the byte at ``position``, or ends there."""
        if self._open is not None and self._expected[0] == position:
            return self._open
        kept = self._list()
        holding = [segment for segment in kept if segment.first <= position]
        if not holding:
            if kept or position > 0:
                raise JournalCorrupt(f"the journal misses the bytes from position {position} on")
            return None
        segment = holding[-1]
        end = segment.first + os.fstat(self._descriptor(segment)).st_size
        if position > end:
            raise JournalCorrupt(f"the journal ends at {end}, before position {position}")
        return segment

    def _next(self, segment: Segment, position: int) -> Segment | None:
        """The segment after a finished one, looked up only when nothing more came from it."""
        later = [other for other in self._list() if other.first > segment.first]
        # The file itself may have been removed meanwhile; the descriptor still knows it.
        end = segment.first + os.fstat(self._descriptor(segment)).st_size
        if not later:
            if position > end:
                raise JournalCorrupt(f"the journal ends at {end}, before position {position}")
            return None
        if end > position:
            # The writer had finished this segment meanwhile, or what is left of it is damage.
            if self._parse(segment, position, WALK_BYTES):
                return segment
            if later[0].first == position:
                return later[0]
            if os.pread(self._descriptor(segment), len(_END), position - segment.first) != _END:
                raise JournalCorrupt(f"the journal is damaged at position {position}")
            end = position
        if later[0].first != end:
            raise JournalCorrupt(f"the journal misses the bytes from position {end} to {later[0].first}")
        return later[0]

    def _descriptor(self, segment: Segment) -> int:
        if self._open != segment:
            self._release()
            self._fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
            self._open = segment
        return self._fd

    def _parse(self, segment: Segment, position: int, bytes_max: int) -> list[JournalRecord]:
        fd = self._descriptor(segment)
        offset = position - segment.first
        data = _pread(fd, max(bytes_max, records.HEADER_BYTES), offset)
        if not data:
            return []
        if data.startswith(_END):
            self._at_end(fd, segment, position)
            return []
        frame = records.frame_at(data, 0, len(data))
        if frame is None and len(data) < _ONE_RECORD:
            data = os.pread(fd, _ONE_RECORD, offset)
            frame = records.frame_at(data, 0, len(data))
        if frame is None:
            self._look_beyond(fd, offset, position)
            return []
        found = records.whole_records(data, position, self._sequence_expected(segment, position))
        self._expected = (found[-1].position, found[-1].sequence + 1)
        self._read[segment.first] = segment
        return found

    def _sequence_expected(self, segment: Segment, position: int) -> int:
        if position == segment.first:
            return segment.sequence
        return self._expected[1] if self._expected[0] == position else 0

    def _at_end(self, fd: int, segment: Segment, position: int) -> None:
        """No record begins at ``position`` yet; make sure that one may."""
        read_to, _ = self._expected
        if position not in (read_to, segment.first):
            start = read_to if segment.first <= read_to < position else segment.first
            end = segment.first + segments.end_of_records(fd, start - segment.first, position - segment.first)
            if end != position:
                raise JournalCorrupt(f"the journal ends at {end}, before position {position}")
            self._expected = (position, 0)
        self._look_beyond(fd, position - segment.first, position, _GLANCE_BYTES)

    def _look_beyond(self, fd: int, offset: int, position: int, bytes_max: int = _TAIL_BYTES_MAX) -> None:
        """A bad record is the torn end of the journal unless something whole follows it."""
        rest = os.pread(fd, bytes_max, offset)
        if records.whole_record_after(rest, 0, 0) is None:
            return
        # The writer may have gone on while the bytes were read, from the first to the last: then the place itself
        # holds a record by now, and it is read next time.
        again = os.pread(fd, _ONE_RECORD, offset)
        if records.frame_at(again, 0, len(again)) is None:
            raise JournalCorrupt(f"the journal is damaged at position {position}")


def _pread(fd: int, bytes_max: int, offset: int) -> bytes:
    """About ``bytes_max`` bytes, without much of the room behind the data."""
    pieces = []
    while bytes_max > 0:
        piece = os.pread(fd, min(bytes_max, _PIECE_BYTES), offset)
        pieces.append(piece)
        if len(piece) < _PIECE_BYTES or piece.endswith(_ROOM):
            break
        bytes_max -= len(piece)
        offset += len(piece)
    return b"".join(pieces)
