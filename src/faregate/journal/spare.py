"""The next segment, made before it is needed, so that going on in it is one renaming and a full disk is known early.

It owns one file without a position and knows nothing of records. Whether there is a spare is the writer's only measure
of a full disk: nothing that is already taken can run out.
"""

import os
import threading
from pathlib import Path

from faregate.journal.mapped import MappedSegment, allocate, end_of_data
from faregate.journal.segments import FILE_MODE


class Spare:
    """At most one segment of ``size`` bytes in reserve. Any thread may call it."""

    def __init__(self, folder: Path, size: int) -> None:
        self._path = folder / "spare"
        self._size = size
        self._turn = threading.Lock()
        self._segment: MappedSegment | None = None
        #: The disk had no room for it when it was last asked.
        self.refused = False

    @property
    def ready(self) -> bool:
        """Whether there is one."""
        return self._segment is not None

    def prepare(self, *, durably: bool) -> bool:
        """Make one where there is none; false where the disk does not take it, for whatever reason.

        ``durably`` also waits until the disk has it, which the first sync of its records is then spared.
        """
        with self._turn:
            if self._segment is None:
                try:
                    self._segment = self._made(durably)
                except (OSError, ValueError):  # The latter is what mapping says of a file that did not get its length.
                    self.refused = True
                else:
                    self.refused = False
        return self.ready

    def take(self, path: Path, first: int) -> MappedSegment | None:
        """The spare, now named ``path`` and beginning at position ``first``; ``None`` where there is none.

        Raises:
            OSError: it could not be renamed, and stays.
        """
        with self._turn:
            segment = self._segment
            if segment is not None:
                os.rename(self._path, path)
                segment.first = first
                self._segment = None
        return segment

    def close(self) -> None:
        """Close it; the file stays, so that a start on a full disk finds room to record itself."""
        with self._turn:
            if self._segment is not None:
                self._segment.release()
                self._segment = None

    def _made(self, durably: bool) -> MappedSegment:
        fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, FILE_MODE)
        try:
            size = os.fstat(fd).st_size
            # A power cut may take the new name of a segment and leave its records under this one.
            if size > self._size or end_of_data(fd, 0, size):
                os.ftruncate(fd, 0)
            allocate(fd, self._size)
            if durably:
                os.fsync(fd)
            return MappedSegment(fd, self._size)
        except BaseException:  # Whatever it is, the descriptor has no other owner yet.
            # What a failed allocation took is given back at once: others need the last room of a disk too.
            os.close(fd)
            self._path.unlink(missing_ok=True)
            raise
