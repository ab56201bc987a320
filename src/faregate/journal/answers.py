"""Calls that came with an ``Idempotency-Key``, kept for a day in owner-only files beside the journal (RULINGS 20).

Three kinds of records are appended: a call was dispatched, it ended, and (with the second) the bytes of its answer.
The index is rebuilt from the files at start; a call that was dispatched and never ended is *completed* then: it must
not be sent again. Files are cut by the hour and removed whole when the last call in them is older than a day.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from faregate.journal.frames import framed, next_payload, write_whole
from faregate.ports import IdempotentCall, StoredAnswer

KEPT_NANOS: Final = 24 * 3600 * 1_000_000_000
FILE_NANOS: Final = 3600 * 1_000_000_000

#: How often what is too old is looked for.
LOOK_NANOS: Final = 60 * 1_000_000_000

#: Calls remembered at most, of one key and of all. Beyond it the oldest are forgotten, which the docs say: of the key
#: itself, or of the one that has most, so that nobody can push out another's.
CALLS_PER_KEY_MAX: Final = 50_000
CALLS_MAX: Final = 200_000

#: Bytes on disk beyond which answers are not kept any more; their calls are, and a repeat is told so.
KEPT_BYTES_MAX: Final = 1024 * 1024 * 1024


class _Line(NamedTuple):
    """One record: what became of a call. ``status`` is 0 at dispatch and where the answer is not kept."""

    key: str
    name: str
    digest: bytes
    request_id: str
    at: int
    ended: bool
    status: int = 0
    head: bytes = b""
    body: bytes = b""


class _Entry:
    __slots__ = ("at", "digest", "file", "offset", "request_id", "state")

    def __init__(self, digest: bytes, request_id: str, state: str, at: int) -> None:
        self.digest = digest
        self.request_id = request_id
        self.state = state
        self.at = at
        self.file = 0
        self.offset = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Line).decode


class FileAnswerStore:
    """``ports.AnswerStore`` on files. Not for two processes."""

    def __init__(
        self,
        folder: Path,
        now: int,
        *,
        calls_per_key_max: int = CALLS_PER_KEY_MAX,
        calls_max: int = CALLS_MAX,
        kept_bytes_max: int = KEPT_BYTES_MAX,
    ) -> None:
        self._folder = folder
        self._calls_per_key_max = calls_per_key_max
        self._calls_max = calls_max
        self._kept_bytes_max = kept_bytes_max
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        #: By key, then by the name the caller gave. Insertion order is the order of time: the oldest is the first.
        self._calls: dict[str, dict[str, _Entry]] = {}
        self._count = 0
        #: By file.
        self._bytes: dict[int, int] = {}
        self._descriptor = -1
        self._started = 0
        self._size = 0
        self._looked_at = 0
        for file in self._files():
            self._load(file)
        self.expire(now)

    def _files(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("*.answers") if path.stem.isdigit())

    def _path(self, file: int) -> Path:
        return self._folder / f"{file:020d}.answers"

    def _load(self, file: int) -> None:
        for offset, line in _read(self._path(file)):
            state = "completed" if not line.ended or not line.status else "kept"
            entry = _Entry(line.digest, line.request_id, state, line.at)
            entry.file, entry.offset = file, offset
            self._put(line.key, line.name, entry)
        self._bytes[file] = self._path(file).stat().st_size

    def _put(self, key: str, name: str, entry: _Entry) -> None:
        self.forget(key, name)
        self._calls.setdefault(key, {})[name] = entry
        self._count += 1

    def _of(self, key: str, name: str) -> _Entry | None:
        return self._calls.get(key, {}).get(name)

    def find(self, key: str, name: str) -> IdempotentCall | None:
        """What is known of this call."""
        entry = self._of(key, name)
        return None if entry is None else IdempotentCall(entry.digest, entry.request_id, entry.state)

    def answer(self, key: str, name: str) -> StoredAnswer | None:
        """The kept answer, read back from its file."""
        entry = self._of(key, name)
        if entry is None or entry.state != "kept":
            return None
        try:
            with self._path(entry.file).open("rb") as file:
                file.seek(entry.offset)
                line = _next(file)
        except OSError:
            return None
        return None if line is None else StoredAnswer(line.status, line.head, line.body)

    def begin(self, key: str, name: str, digest: bytes, request_id: str) -> None:
        """A call is under way; nothing is written, because nothing was sent yet."""
        if len(self._calls.get(key, ())) >= self._calls_per_key_max:
            self.forget(key, next(iter(self._calls[key])))
        elif self._count >= self._calls_max:
            most = max(self._calls, key=lambda key: len(self._calls[key]))
            self.forget(most, next(iter(self._calls[most])))
        self._put(key, name, _Entry(digest, request_id, "in_flight", 0))

    def dispatched(self, key: str, name: str, at: int) -> None:
        """It is about to be sent."""
        entry = self._of(key, name)
        if entry is not None:
            entry.at = at
            self._append(_Line(key, name, entry.digest, entry.request_id, at, False), entry)

    def forget(self, key: str, name: str) -> None:
        """It ended without being sent."""
        mine = self._calls.get(key)
        if mine is not None and mine.pop(name, None) is not None:
            self._count -= 1
            if not mine:
                del self._calls[key]

    def finish(self, key: str, name: str, at: int, answer: StoredAnswer | None) -> None:
        """It ended."""
        entry = self._of(key, name)
        if entry is None:
            return
        if sum(self._bytes.values()) >= self._kept_bytes_max:
            answer = None
        kept = answer or StoredAnswer(0, b"", b"")
        line = _Line(key, name, entry.digest, entry.request_id, entry.at or at, True, kept.status, kept.head, kept.body)
        written = self._append(line, entry)
        entry.state = "kept" if written and answer is not None else "completed"

    def expire(self, now: int) -> None:
        """Drop what is older than a day. Cheap when there is nothing to drop."""
        if now - self._looked_at < LOOK_NANOS:
            return
        self._looked_at = now
        for key, mine in list(self._calls.items()):
            for name, entry in list(mine.items()):
                if entry.state == "in_flight" or now - entry.at < KEPT_NANOS:
                    break
                self.forget(key, name)
        for file in self._files():
            if now - file > KEPT_NANOS + FILE_NANOS:
                self._path(file).unlink(missing_ok=True)
                self._bytes.pop(file, None)

    def _append(self, line: _Line, entry: _Entry) -> bool:
        """Write one record; false where the disk did not take it, and then the call is only remembered in memory."""
        payload = _encode(line)
        data = framed(payload)
        try:
            if self._descriptor < 0 or line.at - self._started >= FILE_NANOS:
                self._open(line.at)
            if not write_whole(self._descriptor, data, self._size):
                return False
        except OSError:
            return False
        entry.file, entry.offset = self._started, self._size
        self._size += len(data)
        self._bytes[self._started] = self._size
        return True

    def _open(self, at: int) -> None:
        # A number that was closed soon belongs to somebody's socket: it must be forgotten before anything can fail.
        self.close()
        self._started = at
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path(at), flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _next(file: BinaryIO) -> _Line | None:
    payload = next_payload(file, KEPT_BYTES_MAX)
    return None if payload is None else _decode(payload)


def _read(path: Path) -> Iterator[tuple[int, _Line]]:
    """Whole records with their offsets; a torn one ends the file, as after a crash."""
    with path.open("rb") as file:
        while True:
            offset = file.tell()
            line = _next(file)
            if line is None:
                return
            yield offset, line
