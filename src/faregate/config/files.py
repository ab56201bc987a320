"""Reading small files that somebody else wrote: bounded, never waiting, and only if they are files."""

import os
import stat
from pathlib import Path
from typing import NamedTuple


class NotRegular(OSError):
    """What is there is a directory, a pipe, a device; the text says which."""


class Content(NamedTuple):
    """What a file holds, at most one byte more than was asked for, and its permission bits."""

    content: bytes
    mode: int


def read_file(path: Path, bytes_max: int) -> Content:
    """At most ``bytes_max + 1`` bytes of a regular file: one more shows that it is too large.

    Raises:
        NotRegular: it is something else.
        OSError: it is not there or cannot be read.
    """
    # Without blocking, because a named pipe would otherwise hold the start for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise NotRegular("this is a directory" if stat.S_ISDIR(mode) else "this is not a regular file")
        parts = []
        wanted = bytes_max + 1
        while wanted and (part := os.read(descriptor, wanted)):
            parts.append(part)
            wanted -= len(part)
        return Content(b"".join(parts), stat.S_IMODE(mode))
    finally:
        os.close(descriptor)
