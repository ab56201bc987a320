"""Whose the objects are that providers keep: an append-only log beside the journal, and an index of it in memory.

Owns the answer to one question: is this id this owner's? Objects are looked for among those of an owner only, so that
a stranger's id is the same as one that never was. The log is owner-only files of framed records; the index holds a
hash and a place for each object and is rebuilt at start. A torn record ends a file, as after a crash.

There are two shelves. Responses are many, and no provider keeps them for long by itself; files and batches are few,
and kept until they are deleted. Each shelf has a bound of its own in time and bytes: beyond it the oldest file goes,
with all that is in it, so that responses never push out files.
"""

import contextlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from faregate.journal.frames import HEADER, framed, write_whole
from faregate.ports import KeptObject, Owner

_DAY: Final = 24 * 3600 * 1_000_000_000

#: OpenAI keeps a response for 30 days ("Data controls in the OpenAI platform", retention of application state).
RESPONSES_KEPT_NANOS: Final = 31 * _DAY
#: Files and batches stay until somebody deletes them; after this long nobody asks for them any more.
OTHERS_KEPT_NANOS: Final = 800 * _DAY

#: Bytes of a shelf on disk: some 400,000 responses, which are read in two or three seconds at start. A file of it is
#: an eighth, or what came in a day.
SHELF_BYTES_MAX: Final = 64 * 1024 * 1024

#: How often what is too old is looked for.
LOOK_NANOS: Final = 60 * 1_000_000_000

#: Objects forgotten, whose file is gone, with each new one of their owner and at each look: no pause is felt.
_PURGED_PER_NEW: Final = 4
_PURGED_PER_LOOK: Final = 10_000

#: Objects that no disk took are kept in memory, at most so many.
UNWRITTEN_MAX: Final = 10_000

#: No record is larger: a length beyond it is damage.
RECORD_BYTES_MAX: Final = 64 * 1024

#: A place is the number of a file and an offset in it.
_OFFSET_BITS: Final = 40
_OFFSET_MASK: Final = (1 << _OFFSET_BITS) - 1


class _Line(NamedTuple):
    """One record: an object, or that it is gone."""

    kept: KeptObject
    gone: bool = False


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Line).decode


class _Shelf:
    """The log and the index of some kinds of objects."""

    def __init__(self, folder: Path, name: str, kept_nanos: int, bytes_max: int) -> None:
        self._folder = folder
        self._name = name
        self._kept_nanos = kept_nanos
        self._bytes_max = bytes_max
        #: Owner → hash of an id → place. The hash is keyed anew in each process, so nobody can make two ids alike.
        self._index: dict[Owner, dict[int, int]] = {}
        #: When each file was begun, by its number; files are never renumbered while this process lives.
        self._files: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self._number = 0
        self._descriptor = -1
        self._unwritten: dict[tuple[Owner, str], KeptObject] = {}
        for begun in sorted(int(path.stem) for path in folder.glob(f"*.{name}") if path.stem.isdigit()):
            self._load(begun)

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._files[number]:020d}.{self._name}"

    def _load(self, begun: int) -> None:
        self._number += 1
        number = self._number
        self._files[number] = begun
        data = self._path(number).read_bytes()
        self._bytes[number] = len(data)
        for offset, line in _records(data):
            if line.gone:
                self._drop(line.kept.owner, line.kept.id)
            else:
                self._put(line.kept, number, offset)

    def _put(self, kept: KeptObject, number: int, offset: int) -> None:
        mine = self._index.setdefault(kept.owner, {})
        key = hash(kept.id)
        # What is put again stands last, so that the oldest of an owner is always the first.
        mine.pop(key, None)
        mine[key] = number << _OFFSET_BITS | offset
        self._purge(mine, _PURGED_PER_NEW)

    def _purge(self, mine: dict[int, int], most: int) -> int:
        """Forget the oldest of an owner whose file is gone, ``most`` at most; how many those were."""
        purged = 0
        while mine and purged < most:
            key = next(iter(mine))
            if mine[key] >> _OFFSET_BITS in self._files:
                break
            del mine[key]
            purged += 1
        return purged

    def _place(self, owner: Owner, id: str) -> int | None:
        mine = self._index.get(owner)
        place = mine.get(hash(id)) if mine is not None else None
        return place if place is not None and place >> _OFFSET_BITS in self._files else None

    def _drop(self, owner: Owner, id: str) -> bool:
        self._unwritten.pop((owner, id), None)
        mine = self._index.get(owner)
        if mine is None or mine.pop(hash(id), None) is None:
            return False
        if not mine:
            del self._index[owner]
        return True

    def owns(self, owner: Owner, id: str) -> bool:
        return self._place(owner, id) is not None or (owner, id) in self._unwritten

    def find(self, owner: Owner, id: str) -> KeptObject | None:
        place = self._place(owner, id)
        if place is None:
            return self._unwritten.get((owner, id))
        line = self._read(place >> _OFFSET_BITS, place & _OFFSET_MASK)
        # Two ids may have the same hash; only one of them is there then.
        return line.kept if line is not None and line.kept.id == id and line.kept.owner == owner else None

    def _read(self, number: int, offset: int) -> _Line | None:
        try:
            with self._path(number).open("rb") as file:
                file.seek(offset)
                header = file.read(HEADER.size)
                return _line_of(header + file.read(_length(header)), 0)
        except OSError:
            return None

    def keep(self, kept: KeptObject) -> None:
        offset = self._append(_Line(kept), kept.made_at)
        if offset >= 0:
            self._put(kept, self._number, offset)
            return
        if len(self._unwritten) >= UNWRITTEN_MAX:
            del self._unwritten[next(iter(self._unwritten))]
        self._unwritten[kept.owner, kept.id] = kept

    def forget(self, owner: Owner, id: str, at: int) -> bool:
        if not self._drop(owner, id):
            return False
        self._append(_Line(KeptObject(id, "", owner, "", "", "", "", at), True), at)
        return True

    def _append(self, line: _Line, at: int) -> int:
        """Write one record and return its place in the file; negative where the disk did not take it."""
        payload = _encode(line)
        data = framed(payload)
        if len(payload) > RECORD_BYTES_MAX:
            return -1
        try:
            if self._descriptor < 0 or self._full(at, len(data)):
                self._open(at)
            size = self._bytes[self._number]
            if not write_whole(self._descriptor, data, size):
                return -1
        except OSError:
            return -1
        self._bytes[self._number] = size + len(data)
        return size

    def _full(self, at: int, more: int) -> bool:
        size = self._bytes[self._number]
        return at - self._files[self._number] >= _DAY or size + more > max(self._bytes_max // 8, RECORD_BYTES_MAX)

    def _open(self, at: int) -> None:
        # A number that was closed soon belongs to somebody's socket: it must be forgotten before anything can fail.
        self.close()
        # A clock that was set back must not write into a file that ended in a torn record.
        begun = max([at, *(each + 1 for each in self._files.values())])
        path = self._folder / f"{begun:020d}.{self._name}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number += 1
        self._files[self._number], self._bytes[self._number] = begun, 0
        self._descriptor = descriptor
        while sum(self._bytes.values()) > self._bytes_max and len(self._files) > 1:
            self._remove(next(iter(self._files)))

    def expire(self, now: int) -> None:
        for number, begun in list(self._files.items()):
            # The last object of a file came a day after it was begun at the latest.
            if now - begun > self._kept_nanos + _DAY and (number != self._number or self._descriptor < 0):
                self._remove(number)
        left = _PURGED_PER_LOOK
        for owner, mine in list(self._index.items()):
            left -= self._purge(mine, left)
            if not mine:
                del self._index[owner]
            if left <= 0:
                break

    def _remove(self, number: int) -> None:
        """Remove a file; what was in it counts no more, and leaves the index little by little."""
        self._path(number).unlink(missing_ok=True)
        del self._files[number], self._bytes[number]

    def sync(self) -> None:
        descriptor = self._descriptor
        if descriptor >= 0:
            # In another thread the file may have been closed meanwhile, which brings what is in it to nobody's loss.
            with contextlib.suppress(OSError):
                os.fdatasync(descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FileObjectStore:
    """``ports.ObjectStore`` on files. Not for two processes."""

    def __init__(self, folder: Path, now: int, *, bytes_max: int = SHELF_BYTES_MAX) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._responses = _Shelf(folder, "responses", RESPONSES_KEPT_NANOS, bytes_max)
        self._others = _Shelf(folder, "objects", OTHERS_KEPT_NANOS, bytes_max)
        self._now = now
        self._looked_at = 0
        self.expire(now)

    def find(self, owner: Owner, id: str) -> KeptObject | None:
        """The object of this id, if it is this owner's."""
        return self._responses.find(owner, id) or self._others.find(owner, id)

    def owns(self, owner: Owner, id: str) -> bool:
        """Whether it is this owner's."""
        return self._responses.owns(owner, id) or self._others.owns(owner, id)

    def keep(self, kept: KeptObject) -> None:
        """Remember it; when it returns, a crash of this process cannot lose it."""
        (self._responses if kept.kind == "response" else self._others).keep(kept)

    def forget(self, owner: Owner, id: str) -> None:
        """It is gone at the provider."""
        if not self._responses.forget(owner, id, self._now):
            self._others.forget(owner, id, self._now)

    def sync(self) -> None:
        """Bring what was written to stable storage."""
        self._responses.sync()
        self._others.sync()

    def expire(self, now: int) -> None:
        """Drop files whose last object is too old. Cheap when there is nothing to drop."""
        self._now = now
        if now - self._looked_at < LOOK_NANOS:
            return
        self._looked_at = now
        self._responses.expire(now)
        self._others.expire(now)

    def close(self) -> None:
        """Close the files."""
        self._responses.close()
        self._others.close()


def _length(header: bytes) -> int:
    length = HEADER.unpack(header)[0] if len(header) == HEADER.size else 0
    return min(length, RECORD_BYTES_MAX)


def _line_of(data: bytes, offset: int) -> _Line | None:
    """The whole record at ``offset``; ``None`` where there is none."""
    start = offset + HEADER.size
    if start > len(data):
        return None
    length, checksum = HEADER.unpack_from(data, offset)
    payload = data[start : start + length]
    if length > RECORD_BYTES_MAX or len(payload) < length or zlib.crc32(payload) != checksum:
        return None
    try:
        return _decode(payload)
    except msgspec.MsgspecError:
        return None


def _records(data: bytes) -> Iterator[tuple[int, _Line]]:
    """Whole records with their offsets, up to the first that is torn."""
    offset = 0
    while (line := _line_of(data, offset)) is not None:
        yield offset, line
        offset += HEADER.size + HEADER.unpack_from(data, offset)[0]
