"""The writer of the journal: one event is one copy into a mapped page, without a system call.

It owns the folder: names and rolls segments, cuts what a crash tore, opens an epoch, keeps room for the ends of what is
under way. It knows nothing of what the events mean, except which of them may use that room.
"""

import fcntl
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from faregate.core.ledger.events import Event, Lost, Progressed, Settled, Started
from faregate.errors import Conflict, Failed, StorageFull, Unavailable
from faregate.journal import segments
from faregate.journal.mapped import MappedSegment, allocate, rewrite_in_place
from faregate.journal.records import encode
from faregate.journal.spare import Spare
from faregate.journal.sync import Callback, GroupSync
from faregate.ports import Clock

SEGMENT_BYTES: Final = 32 * 1024 * 1024

#: Room for about 40,000 settlements on a full disk, far more than can be in flight; at most half a segment.
RESERVE_BYTES: Final = 8 * 1024 * 1024

#: The end of what is already dispatched uses all room; a new dispatch or a refusal leaves the reserve.
_USES_RESERVE: Final = frozenset({Started, Progressed, Lost, Settled})


class Recovery(NamedTuple):
    """What opening the journal found, for the log."""

    #: The position that the journal goes on from.
    position: int
    epoch: int
    #: Whole records in the last segment.
    records: int
    #: Bytes that were cut behind the last whole record, 0 after an orderly stop.
    cut_bytes: int
    #: Where the cut bytes are kept, when whole records lay among them; empty otherwise.
    kept_file: str = ""


def _say_nothing(message: str) -> None:
    del message


class FileJournal:
    """Appends events to the segments in ``folder``; only one writer may have it open.

    ``deliver`` brings a callback to the event loop, as ``loop.call_soon_threadsafe`` does. ``on_failure`` is delivered
    when the disk lost data of the journal: the process should end, since only a recovery tells what is left.

    Raises:
        Conflict: another process writes to this journal.
        StorageFull: not even the record that opens the epoch finds room.
        JournalCorrupt: a newer version wrote the last segment.
        Unavailable: the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        deliver: Callable[[Callback], object],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        sync_interval_ms: int = 20,
        reserve_bytes: int = RESERVE_BYTES,
        on_failure: Callable[[str], None] = _say_nothing,
    ) -> None:
        folder.mkdir(mode=segments.FOLDER_MODE, parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._reserve_bytes = min(reserve_bytes, segment_bytes // 2)
        self._closed = False
        self._lock_fd = _lock(folder)
        self._spare = Spare(folder, segment_bytes)
        try:
            rewrite_in_place(folder)
            self._open_last_segment()
        except OSError as problem:
            os.close(self._lock_fd)
            raise Unavailable(f"the journal cannot be opened: {problem.strerror}: {problem.filename}") from problem
        except BaseException:  # Whatever it is, the lock must not outlive a journal that did not open.
            os.close(self._lock_fd)
            raise
        self._pages = self._segment.pages
        self._limit = self._segment.capacity - self._reserve_bytes
        self._sync = GroupSync(
            folder, self._segment, self._spare, lambda: self._position, deliver, sync_interval_ms / 1000, on_failure
        )
        self._epoch += 1
        try:
            self.append(Started(self._epoch, clock.wall_nanos()))
        except BaseException:  # Nobody gets this object, so nobody else could end its thread and its lock.
            self.close()
            raise

    def _open_last_segment(self) -> None:
        existing = segments.list_segments(self._folder) or [segments.create_segment(self._folder, 0, 1, 0)]
        existing, set_aside, set_aside_bytes = _put_away(existing)
        segment = existing[-1]
        scan = segments.scan_segment(segment)
        kept = _cut(segment, scan) if scan.torn_bytes else ""
        self._segment = self._map(segment)
        self._used = scan.whole_bytes
        self._position = segment.first + scan.whole_bytes
        self._sequence = scan.next_sequence
        self._epoch = scan.epoch
        self.recovered = Recovery(
            self._position, scan.epoch + 1, scan.records, scan.torn_bytes + set_aside_bytes, kept or set_aside
        )

    def _map(self, segment: segments.Segment) -> MappedSegment:
        """Map the last segment with room behind what it holds; on a full disk without, so that the spare is next."""
        fd = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            capacity = max(self._segment_bytes, size)
            try:
                allocate(fd, capacity)
            except OSError as problem:
                os.ftruncate(fd, size)
                if size == 0:
                    raise _full() from problem
                capacity = size
            return MappedSegment(fd, capacity, segment.first)
        except BaseException:  # The descriptor has no other owner yet.
            os.close(fd)
            raise

    @property
    def position(self) -> int:
        """Bytes ever written: the position just after the last record."""
        return self._position

    @property
    def epoch(self) -> int:
        """The epoch this writer opened."""
        return self._epoch

    @property
    def durable(self) -> int:
        """The position below which everything has reached stable storage."""
        return self._sync.durable

    def append(self, event: Event) -> int:
        """Write one event and return the position after it.

        When it returns, a crash of this process cannot lose the event any more.

        Raises:
            StorageFull: there is no room left, or only the reserve that the event may not use; nothing is written.
            Unavailable: the journal is closed, or the disk lost data of it.
            Failed: the event is larger than a record or a segment may be.
        """
        frame = encode(self._sequence, event)
        start = self._used
        end = start + len(frame)
        sync = self._sync
        if end > self._limit or sync.failure:
            self._make_way(event, len(frame))
            start = self._used
            end = start + len(frame)
        self._pages[start:end] = frame
        self._used = end
        self._sequence += 1
        self._position = position = self._position + end - start
        if not sync.awake:
            sync.wake()
        return position

    def when_durable(self, position: int, callback: Callback) -> None:
        """Call ``callback`` on the event loop once everything below ``position`` has reached stable storage."""
        self._sync.when_durable(position, callback)

    def close(self) -> None:
        """Sync and close; further appends are an error. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        self._limit = -1
        self._sync.close()
        self._spare.close()
        os.close(self._lock_fd)

    def _make_way(self, event: Event, size: int) -> None:
        """Find room for ``size`` bytes of ``event``, in the next segment where the current one is full.

        The room is what is left of the segment and the spare; without a spare, new calls leave the reserve of it.
        """
        if self._closed:
            raise Unavailable("the journal is closed")
        if self._sync.failure:
            raise Unavailable(self._sync.failure)
        if size >= self._segment_bytes:
            raise Failed(f"a journal record of {size} bytes exceeds a segment of {self._segment_bytes}")
        end, capacity = self._used + size, self._segment.capacity
        wanted = end if type(event) in _USES_RESERVE else end + self._reserve_bytes
        # Only the disk may say that it is full: where it has not been asked it is asked now. Once it has refused, the
        # sync thread asks again.
        if (
            wanted >= capacity
            and not self._spare.ready
            and (self._spare.refused or not self._spare.prepare(durably=False))
        ):
            raise _full()
        # A segment is never filled to its last byte: one of full length is one that is not cut yet (``_put_away``).
        if end >= capacity:
            self._roll()
        self._limit = self._segment.capacity - (1 if self._spare.ready else self._reserve_bytes)

    def _roll(self) -> None:
        """Go on in the spare segment."""
        path = self._folder / segments.segment_name(self._position, self._sequence, self._epoch)
        try:
            segment = self._spare.take(path, self._position)
        except OSError as problem:
            raise _full() from problem
        if segment is None:
            raise _full()
        self._sync.segment_changed(segment, self._used)
        self._segment = segment
        self._pages = segment.pages
        self._used = 0


def _full() -> StorageFull:
    return StorageFull("the disk of the journal is full", hint="free space in the data folder; it goes on by itself")


def _lock(folder: Path) -> int:
    fd = os.open(folder / "writer.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, segments.FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        os.close(fd)
        raise Conflict(f"another process writes to the journal in {folder}") from problem
    return fd


def _put_away(existing: list[segments.Segment]) -> tuple[list[segments.Segment], str, int]:
    """Do for rolled segments what the writer before left undone: sync them, then cut them to their length.

    One that a power cut tore before it was synced is the last one again: what came after it was never called durable,
    and cannot be read without it. Those files are kept under another name: the first one, and the bytes of all.
    """
    lengths = [after.first - segment.first for segment, after in pairwise(existing)]
    # Segments are cut in their order, and only when they are synced, so the unsynced ones are the last that are uncut.
    uncut = len(lengths)
    while uncut and existing[uncut - 1].size > lengths[uncut - 1]:
        uncut -= 1
    if uncut:
        # It may have been written by a version that cut nothing.
        segments.sync_file(existing[uncut - 1].path)
    for number in range(uncut, len(lengths)):
        if segments.scan_segment(existing[number]).whole_bytes != lengths[number]:
            return existing[: number + 1], *_set_aside(existing[number + 1 :])
        segments.cut(existing[number], lengths[number])
    return existing, "", 0


def _set_aside(lost: list[segments.Segment]) -> tuple[str, int]:
    paths = [segment.path.with_name(f"cut-{segment.first:020d}") for segment in lost]
    size = sum(segment.size for segment in lost)
    # The last one first: whatever interrupts this, the rest is found again.
    for segment, path in zip(reversed(lost), reversed(paths), strict=True):
        os.rename(segment.path, path)
    segments.sync_folder(paths[0].parent)
    return str(paths[0]), size


def _cut(segment: segments.Segment, scan: segments.Scan) -> str:
    """Cut a segment behind its last whole record; what holds whole records is kept beside it, never destroyed."""
    kept = ""
    if scan.records_beyond:
        path = segment.path.with_name(f"cut-{segment.first + scan.whole_bytes:020d}")
        _keep(path, segment.path, scan)
        kept = str(path)
    segments.cut(segment, scan.whole_bytes)
    return kept


def _keep(path: Path, source: Path, scan: segments.Scan) -> None:
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    copy = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, segments.FILE_MODE)
    try:
        offset, end = scan.whole_bytes, scan.whole_bytes + scan.torn_bytes
        while offset < end:
            offset += os.write(copy, os.pread(fd, min(1024 * 1024, end - offset), offset))
        os.fsync(copy)
    finally:
        os.close(copy)
        os.close(fd)
