"""The files that a journal is made of: their names, how they are listed, and how one is scanned for its end.

A position counts the bytes ever written, so it never repeats. A segment is named by three numbers: the position and
the sequence number of its first record, and the epoch in force at its start. So each segment can be read without its
predecessors, which are removed in time. This file neither appends nor decodes events, but for the epoch.
"""

import mmap
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from faregate.errors import Conflict
from faregate.journal import records

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600

_NAME: Final = re.compile(r"([0-9]{20})-([0-9]{1,20})-([0-9]{1,20})\.segment")


class Segment(NamedTuple):
    """One file of the journal: where it begins, and what its name says was in force there."""

    first: int
    sequence: int
    epoch: int
    path: Path

    @property
    def size(self) -> int:
        """Bytes in the file at this moment."""
        return self.path.stat().st_size


class Scan(NamedTuple):
    """What one segment holds: its last whole record and the state after it."""

    #: Bytes up to the end of the last whole record.
    whole_bytes: int
    #: Bytes beyond, torn or damaged.
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


def create_segment(folder: Path, first: int, sequence: int, epoch: int) -> tuple[Segment, int]:
    """Make an empty segment; returns it with a descriptor open for appending. The folder is not synced yet."""
    path = folder / segment_name(first, sequence, epoch)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
    return Segment(first, sequence, epoch, path), fd


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
            return _scan(segment, view)


def _scan(segment: Segment, view: memoryview) -> Scan:
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
    beyond = offset < size and records.whole_record_after(view[offset:], 0, sequence - 1) is not None
    return Scan(offset, size - offset, beyond, sequence, epoch, sequence - segment.sequence)


def start_at(folder: Path, first: int, sequence: int, epoch: int) -> None:
    """Make an empty journal that goes on at a position of another one, as a restored backup needs it.

    Raises:
        Conflict: the folder holds a journal already.
    """
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    if any(segment.size or segment.first != first for segment in list_segments(folder)):
        raise Conflict(f"{folder} holds a journal already", hint="restore into an empty data folder")
    path = folder / segment_name(first, sequence, epoch)
    if not path.exists():
        _, fd = create_segment(folder, first, sequence, epoch)
        os.close(fd)
    sync_folder(folder)
