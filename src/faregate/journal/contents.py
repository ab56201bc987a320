"""Prompts and answers on their way from the gate to the console: files beside the journal that only grow until they
are handed over, and are gone once they are fetched.

A file that is written to ends in ``.open``; a whole one ends in ``.contents`` and is never changed again. Nothing here
is proof of anything: what a crash or a full disk takes is lost, and no call waits for it. Each record stands behind its
length and checksum, so that a torn one is seen. Files and folder are their owner's alone.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from faregate.journal.frames import framed, next_payload, write_whole
from faregate.ports import ContentRecord

#: Of a file before the next one is begun; the console takes one in at a time.
FILE_BYTES_MAX: Final = 8 * 1024 * 1024

#: Of all files together: where nobody fetches them any more, new ones are not written.
FOLDER_BYTES_MAX: Final = 512 * 1024 * 1024

#: No record is longer: two texts of a million characters, in four bytes each.
RECORD_BYTES_MAX: Final = 10 * 1024 * 1024

_OPEN, _WHOLE = ".open", ".contents"
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(ContentRecord).decode


class ContentSpool:
    """``ports.ContentWriter`` on files. For one thread of one process."""

    def __init__(self, folder: Path, wall_nanos: Callable[[], int]) -> None:
        self._folder = folder
        self._wall_nanos = wall_nanos
        self._descriptor = -1
        self._path = folder
        self._size = 0
        # What a gate that died was writing to.
        for left in folder.glob(f"*{_OPEN}"):
            left.rename(left.with_suffix(_WHOLE))

    def append(self, record: ContentRecord) -> bool:
        """Write one record; false where the disk did not take it, or nobody fetches what is there."""
        payload = _encode(record)
        if len(payload) > RECORD_BYTES_MAX:
            return False
        data = framed(payload)
        try:
            if self._descriptor < 0 and not self._begin():
                return False
            if not write_whole(self._descriptor, data, self._size):
                return False
        except OSError:
            return False
        self._size += len(data)
        if self._size >= FILE_BYTES_MAX:
            self.hand_over()
        return True

    def _begin(self) -> bool:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if sum(map(_size, self._folder.glob(f"*{_WHOLE}"))) >= FOLDER_BYTES_MAX:
            return False
        self._path = self._folder / f"{self._wall_nanos():020d}{_OPEN}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        return True

    def hand_over(self) -> None:
        """Call the file that is written to whole."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        try:
            self._path.rename(self._path.with_suffix(_WHOLE))
        except OSError:
            # It is called whole at the next start.
            return

    def close(self) -> None:
        """Hand over what was written."""
        self.hand_over()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        # It was fetched at this moment.
        return 0


class SpooledContents:
    """The console's side: whole files, oldest first. What is fetched is removed by whoever fetched it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self) -> list[Path]:
        """Files that are whole."""
        return sorted(self._folder.glob(f"*{_WHOLE}"))

    def read(self, file: Path) -> Iterator[ContentRecord]:
        """Its records, up to the first that is torn."""
        with file.open("rb") as source:
            while (payload := next_payload(source, RECORD_BYTES_MAX)) is not None:
                try:
                    yield _decode(payload)
                except msgspec.DecodeError:
                    return
