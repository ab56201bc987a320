"""The trail of changes: who changed what, when, from what to what. Append-only, chained, and read back for admins.

One JSON object a line in ``DATA/audit.jsonl``; each carries the SHA-256 of itself and of all before it, so that a line
that was edited, removed or moved is found by ``verify``. A line is on disk before the change it tells is made. Secrets
and their digests are never in it.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, NamedTuple

from faregate.errors import StorageFull, Unavailable
from faregate.ports import Books, Row, TrailMark

FILE_NAME: Final = "audit.jsonl"
FILE_MODE: Final = 0o600

#: No change is longer: rows of the API are bounded.
LINE_BYTES_MAX: Final = 1024 * 1024

#: The kind of a line that says of others that their changes were not made.
NOT_MADE: Final = "not_made"

#: Lines that one question looks at, so that a rare filter does not hold up everybody.
LOOKED_AT_MAX: Final = 20_000

_MARKS: Final = 10_000
_BLOCK_BYTES: Final = 64 * 1024
#: Of keys; and of channels for alerts, whose addresses hold credentials.
_HIDDEN: Final = frozenset({"digests", "secret", "url"})


class Author(NamedTuple):
    """Who asks for a change, and by which request."""

    actor: str = "command"
    request_id: str = ""


#: ``(kind, id, before, after)`` of a change.
Told = tuple[str, str, Row | None, Row | None]

#: Set by the doors for the request that runs; a thread that works for it sees it too.
author: ContextVar[Author] = ContextVar("author")

#: A change that no request asked for.
_NOBODY: Final = Author()


def _chained(before: str, facts: dict[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()


#: What a line tells beside the change itself, and of which type.
_FACTS: Final = {"n": int, "at": str, "actor": str, "request_id": str, "kind": str, "id": str, "chain": str}


def _told_by(line: bytes) -> dict[str, Any] | None:
    """What a line tells; ``None`` for one that somebody damaged, which ``verify`` names and nobody else stumbles on."""
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(facts, dict) or not {"before", "after"} <= facts.keys():
        return None
    return facts if all(isinstance(facts.get(name), kind) for name, kind in _FACTS.items()) else None


def _shown(row: Row | None) -> Row | None:
    return None if row is None else {name: value for name, value in row.items() if name not in _HIDDEN}


class AuditTrail:
    """The trail in one folder. Safe to use from several threads; one process at a time writes it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._last: tuple[int, str] | None = None

    def append(self, at: str, kind: str, row_id: str, before: Row | None, after: Row | None) -> TrailMark:
        """Write one change and bring it to stable storage; what it returns is to be chained in the books with it.

        Raises:
            StorageFull: it could not be written; the change must not be made.
        """
        return self.append_all(at, [(kind, row_id, before, after)])

    def not_made(self, at: str, first: int, last: int) -> TrailMark:
        """Say of some lines that what they tell of was not done.

        Raises:
            StorageFull: it could not be written.
        """
        return self.append(at, NOT_MADE, "", None, {"first": first, "last": last})

    def append_all(self, at: str, changes: Sequence[Told]) -> TrailMark:
        """Write changes that are made together, all of them or none.

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
                first, lines = number + 1, []
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
                return TrailMark(first, number, chain)
            finally:
                os.close(handle)

    def last(self) -> int:
        """The number of the newest line, 0 where there is none."""
        with self._lock:
            if self._last is None:
                try:
                    handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
                except FileNotFoundError:
                    return 0
                except OSError as error:
                    raise Unavailable(f"the trail of changes cannot be read: {error.strerror}") from error
                try:
                    self._last = self._find_last(handle)
                finally:
                    os.close(handle)
            return self._last[0]

    def lines(self, first: int, last: int) -> Iterator[dict[str, Any]]:
        """The lines of these numbers, oldest first."""
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number > last:
                    return
                if number >= first and line.endswith(b"\n") and (told := _told_by(line)) is not None:
                    yield told

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
                    facts = _told_by(line)
                    if facts is not None and facts["kind"] == kind:
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
        last = _told_by(tail[:whole].rsplit(b"\n", 2)[-2])
        if last is None:
            # Changes go on, in a chain that begins behind the damage: the line stays where it is for ``verify``.
            return _count_lines(handle), ""
        return last["n"], last["chain"]

    def newest(
        self, before: int | None, limit: int, fits: Callable[[dict[str, Any]], bool] = lambda line: True
    ) -> tuple[list[dict[str, Any]], int]:
        """Changes that end below byte ``before`` (``None``: all) and fit, newest first.

        Also where to go on: where the oldest line that was looked at begins, 0 at the end. At most ``LOOKED_AT_MAX``
        lines are looked at, so that there may be none and more to come.
        """
        found: list[dict[str, Any]] = []
        end = before
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return [], 0
        try:
            end = min(os.fstat(handle).st_size, os.fstat(handle).st_size if end is None else end)
            looked = 0
            for start, line in _backwards(handle, end):
                told = _told_by(line)
                end, looked = start, looked + 1
                if told is not None and fits(told):
                    found.append(told)
                if len(found) == limit or looked == LOOKED_AT_MAX:
                    break
            else:
                end = 0
        finally:
            os.close(handle)
        return found, end

    def fault(self, marks: Iterable[TrailMark] | None = None, until: int = 0) -> str:
        """What is wrong with the trail, as a sentence that names the first bad line; empty where nothing is.

        ``marks`` are what the books know of it, in the order of its lines: so a cut-off end is found, lines that tell
        of changes which the books do not hold (up to line ``until``: later ones may be under way), and a trail that was
        written anew. Without them only the trail itself is looked at.
        """
        known = iter(() if marks is None else marks)
        waiting = next(known, None)
        chain, number, covered = "", 0, 0
        for number, chain, problem in self._followed():
            if problem:
                return problem
            while waiting is not None and waiting.last <= number:
                if waiting.first > covered + 1:
                    return _unbooked(covered + 1, waiting.first - 1)
                if waiting.last < number or waiting.hash != chain:
                    return f"line {waiting.last} of the trail of changes is not the one that the books know"
                covered = waiting.last
                waiting = next(known, None)
        if waiting is not None:
            return (
                f"the trail of changes was cut off: it ends with line {number}, the books know of line {waiting.last}"
            )
        if marks is not None and covered < min(until, number):
            return _unbooked(covered + 1, min(until, number))
        return ""

    def _followed(self) -> Iterator[tuple[int, str, str]]:
        """``(number, chain, fault)`` of each line, as the lines before it make its chain."""
        chain, number = "", 0
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            while line := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                if not line.endswith(b"\n"):
                    if len(line) > LINE_BYTES_MAX:
                        yield number, "", f"line {number} of the trail of changes cannot be read"
                    # Torn by a crash: whoever asked for that change was not told that it was made.
                    return
                try:
                    facts = json.loads(line)
                    told = facts.pop("chain")
                except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
                    yield number, "", f"line {number} of the trail of changes cannot be read"
                    return
                chain = _chained(chain, facts)
                # As it was written, to the byte: two ways to write the same would be two trails.
                same = json.dumps({**facts, "chain": told}, ensure_ascii=False).encode() + b"\n" == line
                wrong = told != chain or facts.get("n") != number or not same
                yield number, chain, f"line {number} of the trail of changes was altered" if wrong else ""


def _unbooked(first: int, last: int) -> str:
    which = (
        f"line {first} of the trail of changes tells of a change"
        if first == last
        else (f"lines {first} to {last} of the trail of changes tell of changes")
    )
    return f"{which} that the books do not hold: an older file of the books was put in their place, or power failed"


def settle(trail: AuditTrail, books: Books, at: str) -> str:
    """Bring trail and books together at a start; what is wrong with them, empty where nothing is.

    A crash between a line and its change leaves the line alone: it is said of it that the change was not made. That
    happens to one change at a time. More of them are left for ``verify`` to tell: then the books are older than the
    trail.

    Raises:
        StorageFull: the trail cannot be written.
        Unavailable: the books do not answer.
    """
    number = trail.last()
    if books.trail_lines() == number:
        return ""
    gaps, found, action = list(_gaps(all_marks(books), number)), [], None
    for first, last in gaps:
        chain = ""
        for line in trail.lines(first, last):
            one = line["at"], line["actor"], line["request_id"]
            if action not in (None, one):
                return _unbooked(*gaps[0])
            action, chain = one, line["chain"]
        found.append(TrailMark(first, last, chain))
    for told in found:
        mark = trail.not_made(at, told.first, told.last)
        books.keep_trail(told)
        books.keep_trail(mark)
    return ""


def all_marks(books: Books) -> Iterator[TrailMark]:
    """All that the books know of the trail, in the order of its lines."""
    after = 0
    while marks := books.trail_marks(after, _MARKS):
        yield from marks
        after = marks[-1].last


def _gaps(marks: Iterable[TrailMark], number: int) -> Iterator[tuple[int, int]]:
    """Lines up to ``number`` that no mark covers."""
    covered = 0
    for mark in marks:
        if mark.first > covered + 1:
            yield covered + 1, min(mark.first - 1, number)
        covered = max(covered, mark.last)
    if covered < number:
        yield covered + 1, number


def _count_lines(handle: int) -> int:
    """How many whole lines there are."""
    count = position = 0
    while block := os.pread(handle, _BLOCK_BYTES, position):
        count += block.count(b"\n")
        position += len(block)
    return count


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
