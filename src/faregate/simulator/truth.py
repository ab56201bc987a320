"""The truth log: what was served, on disk before the last byte of the answer leaves. Knows no wire format.

One JSON object a line, appended only. Records that arrive while a group is being synced form the next group, so that
one ``fdatasync`` serves many answers. The file is the only copy; memory holds where each record stands.
"""

import asyncio
import os
import tempfile
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

#: A rig makes some 100,000 records in a run; beyond this the simulator refuses rather than grow for ever.
RECORDS_MAX = 5_000_000


class Record(Struct):
    """One call as the provider saw it. ``served`` means billed; ``complete`` that all of it was sent."""

    seq: int
    request_id: str
    provider_request_id: str
    path: str
    model: str
    stream: bool
    status: int
    served: bool
    complete: bool
    #: In the provider's own shape; ``None`` where nothing was served.
    usage: dict[str, Any] | None
    #: Output tokens that were handed to the caller, of all choices together.
    delivered_tokens: int
    fault: str
    #: ``{"header", "sha256", "last4"}`` of what came as credential, never the credential.
    credential: dict[str, str] | None
    headers: list[tuple[str, str]]
    #: RFC 3339, UTC.
    served_at: str


class _Key(Struct):
    """The part of a line that finds it again."""

    seq: int
    request_id: str


_encode = msgspec.json.Encoder().encode
_decode_key = msgspec.json.Decoder(_Key).decode
_decode_record = msgspec.json.Decoder(Record).decode

#: Called on the event loop when a record is on disk (``True``) or cannot be (``False``).
Then = Callable[[bool], None]


class TruthLog:
    """Append, sync in groups, find again. Without a path it lives in an unnamed temporary file.

    A file that exists is continued: whole lines are kept, a line torn by a crash is cut off.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        #: Where each record begins, by its number in this file; its end is the next one's begin.
        self._begins = array("Q", [0])
        self._by_request: dict[str, list[int]] = {}
        self._first_shown = 0
        self._waiting: list[tuple[str, bytes, Then]] = []
        self._syncing = False
        self._closing = False
        self._broken = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="truth")
        self._read_back()
        self._next_seq = len(self._begins)

    def _read_back(self) -> None:
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._index(_decode_key(line).request_id, len(line))
                except msgspec.MsgspecError as error:
                    raise ValueError(f"line {number} of the truth file is no record: {error}") from None
        os.ftruncate(self._file, self._begins[-1])
        os.lseek(self._file, self._begins[-1], os.SEEK_SET)

    def _index(self, request_id: str, size: int) -> None:
        number = len(self._begins) - 1
        self._begins.append(self._begins[-1] + size)
        self._by_request.setdefault(request_id, []).append(number)

    @property
    def full(self) -> bool:
        """Whether no more records are taken: there are too many, or the disk failed once."""
        return self._broken or len(self._begins) > RECORDS_MAX

    @property
    def last_seq(self) -> int:
        """The number of the newest record on disk, 0 for none."""
        return len(self._begins) - 1

    def append(self, record: Record, then: Then) -> None:
        """Give a record its number and put it into the next group; ``then`` is called once it is on disk."""
        record.seq = self._next_seq
        self._next_seq += 1
        self._waiting.append((record.request_id, _encode(record) + b"\n", then))
        if not self._syncing:
            self._syncing = True
            self._idle.clear()
            # One turn of the loop later, so that answers made in the same turn share the first group too.
            asyncio.get_running_loop().call_soon(self._sync)

    async def write(self, record: Record) -> bool:
        """Append a record and wait until it is on disk; ``False`` if it cannot be."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def resolve(written: bool) -> None:
            if not done.done():
                done.set_result(written)

        self.append(record, resolve)
        return await done

    def _sync(self) -> None:
        group, self._waiting = self._waiting, []
        block = b"".join([line for _, line, _ in group])
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._write_out, block)
        future.add_done_callback(lambda done: self._synced(group, done.exception()))

    def _write_out(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(self._file, view) :]
        os.fdatasync(self._file)

    def _synced(self, group: list[tuple[str, bytes, Then]], error: BaseException | None) -> None:
        # After one failure nobody knows what the file ends with, so nothing is called written any more.
        self._broken = self._broken or error is not None
        written = not self._broken
        if written:
            for request_id, line, _ in group:
                self._index(request_id, len(line))
        for _, _, then in group:
            then(written)
        if self._waiting:
            self._sync()
        else:
            self._syncing = False
            self._idle.set()

    def lines(self, *, since: int = 0, limit: int = 1000, request_id: str | None = None) -> list[bytes]:
        """Records on disk as JSON, oldest first: of one request id, or all with a number above ``since``."""
        first = max(since, self._first_shown)
        if request_id is None:
            numbers: list[int] | range = range(first, min(self.last_seq, first + limit))
        else:
            numbers = [number for number in self._by_request.get(request_id, ()) if number >= first][:limit]
        return [self._line(number) for number in numbers]

    def records(self, request_id: str) -> list[Record]:
        """All records of a request id, oldest first."""
        return [_decode_record(line) for line in self.lines(request_id=request_id, limit=RECORDS_MAX)]

    def _line(self, number: int) -> bytes:
        begin, end = self._begins[number], self._begins[number + 1]
        return os.pread(self._file, end - begin, begin).rstrip(b"\n")

    def forget(self) -> None:
        """Show nothing written so far; the file keeps it and the numbers go on."""
        self._first_shown = self.last_seq
        self._by_request.clear()

    async def close(self) -> None:
        """Wait for what is being written, then close the file."""
        await self._idle.wait()
        if self._closing:
            return
        self._closing = True
        self._thread.shutdown()
        os.close(self._file)
