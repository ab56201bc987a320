"""A file that only takes up room, so that what must be recorded still can be when the disk is full."""

import os
from pathlib import Path

from faregate.journal.segments import FILE_MODE

#: Fallback where the system cannot allocate without writing.
_CHUNK = bytes(1024 * 1024)


class Reserve:
    """Holds ``size`` bytes of disk until they are needed for settlements."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self.present = False

    def take(self) -> bool:
        """Allocate the room again; false, and nothing taken, where the disk does not have it."""
        try:
            fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)
        except OSError:
            self.present = False
            return False
        try:
            _allocate(fd, self._size)
        except OSError:
            self.release()
        else:
            self.present = True
        finally:
            os.close(fd)
        return self.present

    def release(self) -> None:
        """Give the room back, to be written to at once."""
        self._path.unlink(missing_ok=True)
        self.present = False


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    for offset in range(0, size, len(_CHUNK)):
        os.pwrite(fd, _CHUNK[: size - offset], offset)
