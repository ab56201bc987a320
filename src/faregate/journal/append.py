"""The writer of the journal: one event, one system call, and no answer byte before it.

It owns the folder: names and rolls segments, cuts what a crash tore, opens an epoch, keeps the reserve. It knows
nothing of what the events mean, except which of them must find room on a full disk.
"""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from faregate.core.ledger.events import Event, Lost, Progressed, Settled, Started
from faregate.errors import Conflict, Failed, StorageFull, Unavailable
from faregate.journal import segments
from faregate.journal.records import encode
from faregate.journal.reserve import Reserve
from faregate.journal.sync import Callback, GroupSync
from faregate.ports import Clock

SEGMENT_BYTES: Final = 64 * 1024 * 1024

#: Room for about 300,000 settlements on a full disk, far more than can be in flight.
RESERVE_BYTES: Final = 64 * 1024 * 1024

#: How often a full disk is asked whether it has room for the reserve again.
RETRY_NANOS: Final = 1_000_000_000

#: The end of what is already dispatched always finds room; a new dispatch or a refusal does not.
_USES_RESERVE: Final = frozenset({Started, Progressed, Lost, Settled})

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

_write = os.write


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
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._closed = False
        self._needs_cut = False
        self._retry_at = 0
        self._lock_fd = _lock(folder)
        try:
            self._open_last_segment()
        except OSError as problem:
            os.close(self._lock_fd)
            raise Unavailable(f"the journal cannot be opened: {problem.strerror}: {problem.filename}") from problem
        except BaseException:  # Whatever it is, the lock must not outlive a journal that did not open.
            os.close(self._lock_fd)
            raise
        self._reserve = Reserve(folder / "reserve", reserve_bytes)
        self._reserve.take()
        self._sync = GroupSync(folder, self._fd, lambda: self._position, deliver, sync_interval_ms / 1000, on_failure)
        self._epoch += 1
        try:
            self.append(Started(self._epoch, clock.wall_nanos()))
        except BaseException:  # Nobody gets this object, so nobody else could end its thread and its lock.
            self.close()
            raise

    def _open_last_segment(self) -> None:
        existing = segments.list_segments(self._folder)
        if not existing:
            segment, self._fd = segments.create_segment(self._folder, 0, 1, 0)
            scan, kept = segments.scan_segment(segment), ""
        else:
            segment = existing[-1]
            if len(existing) > 1:
                # A writer that was killed just after it rolled may have left the segment before unsynced.
                segments.sync_file(existing[-2].path)
            scan = segments.scan_segment(segment)
            kept = _cut(segment, scan) if scan.torn_bytes else ""
            self._fd = os.open(segment.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._used = scan.whole_bytes
        self._position = segment.first + scan.whole_bytes
        self._sequence = scan.next_sequence
        self._epoch = scan.epoch
        self.recovered = Recovery(self._position, scan.epoch + 1, scan.records, scan.torn_bytes, kept)

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
        """Write one event with one system call and return the position after it.

        Raises:
            StorageFull: the disk took no more; nothing of the event remains.
            Unavailable: the journal is closed, or the disk lost data of it.
        """
        if self._needs_cut or self._closed or self._sync.failure or not self._reserve.present:
            self._check(event)
        frame = encode(self._sequence, event)
        size = len(frame)
        if self._used + size > self._segment_bytes and self._used:
            self._roll()
        try:
            written = _write(self._fd, frame)
        except OSError as problem:
            self._write_again(frame, event, problem)
        else:
            if written != size:
                self._write_again(frame, event, None)
        self._sequence += 1
        self._used += size
        self._position += size
        if not self._sync.unsynced.is_set():
            self._sync.unsynced.set()
        return self._position

    def when_durable(self, position: int, callback: Callback) -> None:
        """Call ``callback`` on the event loop once everything below ``position`` has reached stable storage."""
        self._sync.when_durable(position, callback)

    def close(self) -> None:
        """Sync and close; further appends are an error. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        self._sync.close()
        os.close(self._lock_fd)

    def _check(self, event: Event) -> None:
        """Decide whether a journal that is not in order may take ``event``, after trying to put it in order."""
        if self._closed:
            raise Unavailable("the journal is closed")
        if self._sync.failure:
            raise Unavailable(self._sync.failure)
        if self._needs_cut:
            self._cut_back()
        if self._reserve.present or type(event) in _USES_RESERVE:
            return
        # Without the reserve the free room belongs to what is already dispatched.
        now = self._clock.monotonic_nanos()
        if now >= self._retry_at:
            self._retry_at = now + RETRY_NANOS
            if self._reserve.take():
                return
        raise StorageFull("the disk of the journal is full", hint="free space in the data folder; it goes on by itself")

    def _write_again(self, frame: bytes, event: Event, problem: OSError | None) -> None:
        """Undo a write that failed or came out short, and repeat it in the reserve's room where it may use that."""
        if problem is not None and problem.errno not in _FULL:
            raise Failed(f"the journal could not be written: {problem.strerror}") from problem
        self._cut_back()
        if type(event) in _USES_RESERVE:
            self._reserve.release()
            try:
                if _write(self._fd, frame) == len(frame):
                    return
            except OSError as again:
                problem = again
            self._cut_back()
        raise StorageFull(
            "the disk of the journal is full", hint="free space in the data folder; it goes on by itself"
        ) from problem

    def _cut_back(self) -> None:
        """Take back what a failed write left, so that the next record begins where the last whole one ends."""
        self._needs_cut = True
        try:
            os.ftruncate(self._fd, self._used)
        except OSError as problem:
            raise StorageFull(f"the journal cannot be cut back: {problem.strerror}") from problem
        self._needs_cut = False

    def _roll(self) -> None:
        """Go on in a new segment; where the disk has no room for one, the old one simply grows."""
        try:
            _, fd = segments.create_segment(self._folder, self._position, self._sequence, self._epoch)
        except OSError:
            return
        self._fd = fd
        self._used = 0
        self._sync.segment_changed(fd)


def _lock(folder: Path) -> int:
    fd = os.open(folder / "writer.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, segments.FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        os.close(fd)
        raise Conflict(f"another process writes to the journal in {folder}") from problem
    return fd


def _cut(segment: segments.Segment, scan: segments.Scan) -> str:
    """Cut a segment behind its last whole record; what holds whole records is kept beside it, never destroyed."""
    kept = ""
    fd = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if scan.records_beyond:
            path = segment.path.with_name(f"cut-{segment.first + scan.whole_bytes:020d}")
            _keep(path, fd, scan)
            kept = str(path)
        os.ftruncate(fd, scan.whole_bytes)
        os.fsync(fd)
    finally:
        os.close(fd)
    return kept


def _keep(path: Path, fd: int, scan: segments.Scan) -> None:
    copy = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, segments.FILE_MODE)
    try:
        offset, end = scan.whole_bytes, scan.whole_bytes + scan.torn_bytes
        while offset < end:
            offset += os.write(copy, os.pread(fd, min(1024 * 1024, end - offset), offset))
        os.fsync(copy)
    finally:
        os.close(copy)
