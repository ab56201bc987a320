"""The files that a journal is made of: their names, how they are listed, and how one is scanned for its end.

A position counts the bytes ever written, so it never repeats. A segment is named by three numbers: the position and
the sequence number of its first record, and the epoch in force at its start. So each segment can be read without its
predecessors, which are removed in time. The file that is written to is longer than its data: where a record would
begin with a length of 0, the data ends. This file neither appends nor decodes events, but for the epoch.
"""

import mmap
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from faregate.errors import Conflict
from faregate.journal import records
from faregate.journal.mapped import end_of_data, rewrite_in_place

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600

#: What a walk reads at a time; any record fits.
_WALK_BYTES: Final = 2 * records.RECORD_BYTES_MAX

_NAME: Final = re.compile(r"([0-9]{20})-([0-9]{1,20})-([0-9]{1,20})\.segment")


class Segment(NamedTuple):
    """One file of the journal: where it begins, and what its name says was in force there."""

    first: int
    sequence: int
    epoch: int
    path: Path

    @property
    def size(self) -> int:
        """Bytes in the file at this moment, room that was taken beforehand included."""
        return self.path.stat().st_size


class Scan(NamedTuple):
    """What one segment holds: its last whole record and the state after it."""

    #: Bytes up to the end of the last whole record.
    whole_bytes: int
    #: Bytes beyond that are not just room taken beforehand: torn or damaged.
    torn_bytes: int
    #: A whole record lies beyond the damage, so this is more than the torn end of one write.
    records_beyond: bool
    next_sequence: int
    epoch: int
    records: int


def segment_name(first: int, sequence: int, epoch: int) -> str:
    """The file name of a segment."""
    return f"{first:020d}-{sequence}-{epoch}.segment"


def list_segments(folder: Path) -> list[Segment]:
    """All segments of a journal, oldest first; other files in the folder are not looked at."""
    found = []
    for name in os.listdir(folder):
        match = _NAME.fullmatch(name)
        if match:
            first, sequence, epoch = (int(part) for part in match.groups())
            found.append(Segment(first, sequence, epoch, folder / name))
    return sorted(found)


def create_segment(folder: Path, first: int, sequence: int, epoch: int) -> Segment:
    """Make an empty segment. The folder is not synced yet."""
    path = folder / segment_name(first, sequence, epoch)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE))
    return Segment(first, sequence, epoch, path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Bring a file's bytes to stable storage; any process that may read it can ask for that."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def cut(segment: Segment, size: int) -> None:
    """Bring a segment to stable storage with only its first ``size`` bytes."""
    fd = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def scan_segment(segment: Segment) -> Scan:
    """Walk all records of a segment up to the first that is torn, damaged or out of sequence.

    Raises:
        JournalCorrupt: a record whose checksum holds cannot be read.
    """
    with open(segment.path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return Scan(0, 0, False, segment.sequence, segment.epoch, 0)
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
            whole, sequence, epoch = _walk(segment, view)
            end = end_of_data(file.fileno(), whole, size)
            beyond = end > whole and records.whole_record_after(view[whole:end], 0, sequence - 1) is not None
        return Scan(whole, end - whole, beyond, sequence, epoch, sequence - segment.sequence)


def _walk(segment: Segment, view: memoryview) -> tuple[int, int, int]:
    """Where the whole records end, and the sequence number and epoch there."""
    offset, sequence, epoch, size = 0, segment.sequence, segment.epoch, len(view)
    while (frame := records.frame_at(view, offset, size)) is not None:
        start = frame.payload_start
        if records.sequence_at(view, start) != sequence:
            break
        if records.tag_at(view, start) == records.STARTED_TAG:
            _, event = records.decode(bytes(view[start : frame.end]))
            epoch = int(event[0])
        offset = frame.end
        sequence += 1
    return offset, sequence, epoch


def end_of_records(fd: int, start: int, end: int) -> int:
    """Where the whole records end that follow each other from ``start`` on, looking at a file no further than ``end``.

    ``start`` must be where a record begins.
    """
    # Read, not mapped: the writer may cut the file meanwhile, and a mapped page that is gone ends the process.
    while data := os.pread(fd, min(_WALK_BYTES, end - start), start):
        offset = 0
        while (frame := records.frame_at(data, offset, len(data))) is not None:
            offset = frame.end
        if offset == 0:
            break
        start += offset
    return start


def start_at(folder: Path, first: int, sequence: int, epoch: int) -> None:
    """Make an empty journal that goes on at a position of another one, as a restored backup needs it.

    Raises:
        Conflict: the folder holds a journal already.
    """
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    if any(segment.size or segment.first != first for segment in list_segments(folder)):
        raise Conflict(f"{folder} holds a journal already", hint="restore into an empty data folder")
    rewrite_in_place(folder)
    path = folder / segment_name(first, sequence, epoch)
    if not path.exists():
        create_segment(folder, first, sequence, epoch)
    sync_folder(folder)
