"""The trail of changes: who changed what, when, from what to what. Append-only, chained, and read back for admins.

One JSON object a line in ``DATA/audit.jsonl``; each carries the SHA-256 of itself and of all before it, so that a line
that was edited, removed or moved is found by ``verify``. A line is on disk before the change it tells is made. Secrets
and their digests are never in it.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, NamedTuple

from faregate.errors import StorageFull, Unavailable
from faregate.ports import Row

FILE_NAME: Final = "audit.jsonl"
FILE_MODE: Final = 0o600

#: No change is longer: rows of the API are bounded.
LINE_BYTES_MAX: Final = 1024 * 1024

_BLOCK_BYTES: Final = 64 * 1024
#: Of keys; and of channels for alerts, whose addresses hold credentials.
_HIDDEN: Final = frozenset({"digests", "secret", "url"})


class Author(NamedTuple):
    """Who asks for a change, and by which request."""

    actor: str = "command"
    request_id: str = ""


#: Set by the doors for the request that runs; a thread that works for it sees it too.
author: ContextVar[Author] = ContextVar("author")

#: A change that no request asked for.
_NOBODY: Final = Author()


def _chained(before: str, facts: dict[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()


def _shown(row: Row | None) -> Row | None:
    return None if row is None else {name: value for name, value in row.items() if name not in _HIDDEN}


class AuditTrail:
    """The trail in one folder. Safe to use from several threads; one process at a time writes it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._last: tuple[int, str] | None = None

    def append(self, at: str, kind: str, row_id: str, before: Row | None, after: Row | None) -> None:
        """Write one change and bring it to stable storage.

        Raises:
            StorageFull: it could not be written; the change must not be made.
        """
        self.append_all(at, [(kind, row_id, before, after)])

    def append_all(self, at: str, changes: Sequence[tuple[str, str, Row | None, Row | None]]) -> None:
        """Write changes ``(kind, id, before, after)`` that are made together, all of them or none.

        Raises:
            StorageFull: they could not be written; none of them must be made.
        """
        who = author.get(_NOBODY)
        with self._lock:
            try:
                handle = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
            except OSError as error:
                raise Unavailable(f"the trail of changes cannot be written: {error.strerror}") from error
            try:
                number, chain = self._last or self._find_last(handle)
                lines = []
                for kind, row_id, before, after in changes:
                    number += 1
                    facts = {
                        "n": number, "at": at, "actor": who.actor, "request_id": who.request_id,
                        "kind": kind, "id": row_id, "before": _shown(before), "after": _shown(after),
                    }  # fmt: skip
                    chain = _chained(chain, facts)
                    lines.append(json.dumps({**facts, "chain": chain}, ensure_ascii=False).encode() + b"\n")
                text = b"".join(lines)
                size = os.fstat(handle).st_size
                try:
                    written = os.write(handle, text)
                    os.fdatasync(handle)
                except OSError as error:
                    os.ftruncate(handle, size)
                    raise StorageFull("the trail of changes cannot be written: the disk is full") from error
                if written != len(text):
                    os.ftruncate(handle, size)
                    raise StorageFull("the trail of changes cannot be written: the disk is full")
                self._last = number, chain
            finally:
                os.close(handle)

    def told_of(self, kind: str) -> dict[str, Row | None]:
        """Id → what the newest change of a kind left of it, as the trail tells."""
        found: dict[str, Row | None] = {}
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return found
        # Most lines are of other kinds, and need not be decoded.
        mark = json.dumps(kind).encode()
        with file:
            for line in file:
                if mark in line and line.endswith(b"\n"):
                    facts = json.loads(line)
                    if facts["kind"] == kind:
                        found[facts["id"]] = facts["after"]
        return found

    def _find_last(self, handle: int) -> tuple[int, str]:
        """Number and chain of the last whole line; a torn one, which nobody was told of, is cut off."""
        size = os.fstat(handle).st_size
        tail = os.pread(handle, LINE_BYTES_MAX + 1, max(0, size - LINE_BYTES_MAX - 1))
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail):
            os.ftruncate(handle, size - (len(tail) - whole))
        if not whole:
            return 0, ""
        last = json.loads(tail[:whole].rsplit(b"\n", 2)[-2])
        return last["n"], last["chain"]

    def newest(self, before: int | None, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Changes that end below byte ``before`` (``None``: all), newest first, and where the oldest of them begins."""
        found: list[dict[str, Any]] = []
        end = before
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return [], 0
        try:
            end = min(os.fstat(handle).st_size, os.fstat(handle).st_size if end is None else end)
            for start, line in _backwards(handle, end):
                found.append(json.loads(line))
                end = start
                if len(found) == limit:
                    break
        finally:
            os.close(handle)
        return found, end if found else 0

    def fault(self) -> str:
        """What is wrong with the trail, as a sentence that names the first bad line; empty where nothing is."""
        chain, number = "", 0
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return ""
        with file:
            for line in file:
                number += 1
                if not line.endswith(b"\n"):
                    # Torn by a crash: whoever asked for that change was not told that it was made.
                    return ""
                try:
                    facts = json.loads(line)
                    told = facts.pop("chain")
                except (ValueError, KeyError, AttributeError):
                    return f"line {number} of the trail of changes cannot be read"
                chain = _chained(chain, facts)
                if told != chain or facts.get("n") != number:
                    return f"line {number} of the trail of changes was altered"
        return ""


def _backwards(handle: int, end: int) -> Iterator[tuple[int, bytes]]:
    """``(start, line)`` of the whole lines that end at or below byte ``end``, last one first."""
    rest, position = b"", end
    while position > 0:
        start = max(0, position - _BLOCK_BYTES)
        rest = os.pread(handle, position - start, start) + rest
        position = start
        while (cut := rest.rfind(b"\n", 0, len(rest) - 1)) != -1 or (position == 0 and rest):
            line = rest[cut + 1 :]
            if line.endswith(b"\n"):
                yield position + cut + 1, line
            rest = rest[: cut + 1]
