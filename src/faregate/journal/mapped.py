"""A segment's file in memory: its room is taken beforehand, its pages are mapped, and writing is copying into them.

A process that is killed loses nothing: the pages are the page cache's, not its own. The room is taken first because a
copy into a page that finds no room on the disk ends the process. This file knows neither records nor names.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import sys
from pathlib import Path
from typing import Final

#: The pages behind the writer are given back once this much has gathered, so that they do not count as its memory.
FORGET_BYTES: Final = 1024 * 1024

_CHUNK: Final = bytes(1024 * 1024)

#: Zeros that a record may end in: those of its last fields.
_ZEROS_OF_A_RECORD: Final = 64

#: What a system or a file system says that cannot allocate without writing.
_NOT_SUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})

#: ``FS_IOC_GETFLAGS``, ``FS_IOC_SETFLAGS`` and ``FS_NOCOW_FL`` of Linux (``linux/fs.h``).
_GET_FLAGS, _SET_FLAGS, _IN_PLACE = 0x80086601, 0x40086602, 0x00800000


class MappedSegment:
    """An open file of ``capacity`` bytes that are all on the disk, and its pages.

    Copy into ``pages``; ``first`` is the journal position of its first byte, once it has one. Takes over ``fd``.
    """

    __slots__ = ("_forgotten", "capacity", "fd", "first", "pages")

    def __init__(self, fd: int, capacity: int, first: int = 0) -> None:
        self.fd = fd
        self.capacity = capacity
        self.first = first
        self.pages = mmap.mmap(fd, capacity)
        self._forgotten = 0

    def forget(self, used: int) -> None:
        """Give the pages below ``used`` back to the system, which keeps them as it keeps any file's."""
        until = used - used % mmap.PAGESIZE
        if until - self._forgotten >= FORGET_BYTES:
            self.pages.madvise(mmap.MADV_DONTNEED, self._forgotten, until - self._forgotten)
            self._forgotten = until

    def release(self, used: int | None = None) -> None:
        """Unmap and close; the room behind ``used`` goes back to the disk, unless ``None``."""
        self.pages.close()
        if used is not None:
            # Where it cannot be cut now, the next start does it.
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, used)
        os.close(self.fd)


def allocate(fd: int, size: int) -> None:
    """Take room on the disk for the first ``size`` bytes of a file; what it holds stays, new bytes are zeros.

    Raises:
        OSError: there is not so much room; the file may have grown.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as problem:
            if problem.errno not in _NOT_SUPPORTED:
                raise
        else:
            return
    offset = os.fstat(fd).st_size
    while offset < size:
        offset += os.pwrite(fd, _CHUNK[: size - offset], offset)


def rewrite_in_place(folder: Path) -> None:
    """Ask the file system to write new files of ``folder`` in place, where it would copy on write (btrfs).

    There the second copy into a page takes new room, so that room that was taken beforehand does not help. File systems
    that never copy say that they do not know the question.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            flags = int.from_bytes(fcntl.ioctl(fd, _GET_FLAGS, bytes(8)), sys.byteorder)
            fcntl.ioctl(fd, _SET_FLAGS, (flags | _IN_PLACE).to_bytes(8, sys.byteorder))
    finally:
        os.close(fd)


def end_of_data(fd: int, start: int, size: int) -> int:
    """Where, from ``start`` on, only zeros follow; at most ``size``.

    A few zeros are left to the data, since they may belong to it.
    """
    end = start
    for offset in range(start, size, len(_CHUNK)):
        chunk = os.pread(fd, min(len(_CHUNK), size - offset), offset)
        if not _CHUNK.startswith(chunk):
            end = offset + len(chunk.rstrip(b"\0"))
    return min(end + _ZEROS_OF_A_RECORD, size) if end > start else start
