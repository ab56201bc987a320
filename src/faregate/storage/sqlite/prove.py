"""Follows the chain through the books and names what does not fit: edited, removed, moved or put in.

It reads one snapshot of the file, row by row beside whoever writes, and holds the rows of one entry at a time. Whoever
can write to the file can also compute hashes; against those helps the head of the chain, kept elsewhere (``anchor``).
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import msgspec

from faregate.core.ledger.events import Intended
from faregate.core.slots import SLOT_NANOS
from faregate.errors import Unavailable
from faregate.ports import ChainHead, Proof
from faregate.storage.queries import UNCOUNTED
from faregate.storage.schema import CACHE_WORDS, SUMS
from faregate.storage.sqlite import chain, connect
from faregate.storage.sqlite.chain import ACCOUNTS, FORM, ID_AT, NOTHING_BEFORE, RESOURCE_FACTS, SETS, STORED, Entry

#: Faults that are named; the rest are only counted.
FAULTS_NAMED_MAX: Final = 20

#: Rows fetched at a time.
_ROWS: Final = 1_000

#: After so many rows progress is told, and others get their turn.
_TELL_AFTER: Final = 2_000

_decode_intent = msgspec.json.Decoder(Intended).decode

Values = tuple[Any, ...]
OnProgress = Callable[[int, int], None]


def prove(path: Path, on_progress: OnProgress, anchor: str = "") -> Proof:
    """Follow the chain in the file at ``path``; see ``SqliteBooks.prove``."""
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=connect.BUSY_TIMEOUT_MS / 1000
        )
    except sqlite3.Error as problem:
        raise Unavailable(f"the books do not answer: {problem}") from problem
    try:
        connection.isolation_level = None
        connection.execute("PRAGMA query_only=ON")
        # Everything is read as of this moment.
        connection.execute("BEGIN")
        return _Proving(connection, on_progress, anchor).proof()
    finally:
        connection.close()


class _Rows:
    """The rows of a statement in the order of their numbers, which are their first column, taken range by range."""

    def __init__(self, connection: sqlite3.Connection, statement: str) -> None:
        self._cursor = connection.execute(statement)
        self._waiting: list[Values] = []

    def between(self, first: int, last: int) -> tuple[list[Values], list[Values]]:
        """The rows of a range, and those before it that nobody took."""
        if not self._waiting:
            # Nearly always exactly these are next.
            rows = self._cursor.fetchmany(min(last - first + 1, _ROWS))
            if rows and rows[0][0] == first and rows[-1][0] == last:
                return rows, []
            self._waiting = rows
        taken: list[Values] = []
        strays: list[Values] = []
        while True:
            for place, row in enumerate(self._waiting):
                if not isinstance(row[0], int) or row[0] > last:
                    self._waiting = self._waiting[place:]
                    return taken, strays
                (taken if row[0] >= first else strays).append(row)
            self._waiting = self._cursor.fetchmany(_ROWS)
            if not self._waiting:
                return taken, strays

    def rest(self) -> Iterator[Values]:
        """All that nobody took."""
        yield from self._waiting
        yield from self._cursor


class _Proving:
    """One walk along the chain."""

    def __init__(self, connection: sqlite3.Connection, on_progress: OnProgress, anchor: str) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._on_progress = on_progress
        self._anchor = anchor.lower()
        self._anchor_found = False
        self._faults: list[str] = []
        self._uncounted = 0
        self._rows = 0
        self._total = 0
        self._ended = 0
        self._mark: tuple[int, int, int] = (0, 0, 0)
        self._named: dict[str, set[str | int]] = {name: set() for name in chain.NAMED}
        self._records = _Rows(connection, f"{chain.SELECT_RECORDS} ORDER BY number")
        self._unsettled = _Rows(connection, "SELECT number, digest, ended_by FROM unsettled ORDER BY number")
        self._transfers = _Rows(connection, f"{chain.SELECT_TRANSFERS} ORDER BY sequence")
        self._sets = _Rows(connection, f"{SETS.select} ORDER BY id")
        self._accounts = _Rows(connection, f"{ACCOUNTS.select} ORDER BY id")
        self._changes = _Rows(connection, f"{chain.SELECT_CHANGES} ORDER BY sequence")

    def proof(self) -> Proof:
        """Everything, in the order in which it was booked."""
        (self._total,) = self._cursor.execute(
            "SELECT (SELECT coalesce(max(number), 0) FROM requests)"
            " + (SELECT coalesce(max(sequence), 0) FROM transfers)"
        ).fetchone()
        before, number, at, tell_at = NOTHING_BEFORE, 0, 0, _TELL_AFTER
        for row in self._connection.execute(f"{chain.SELECT_ENTRIES} ORDER BY number"):
            entry, marks, hash = Entry(*row[:-2]), row[-2], row[-1]
            if entry.number != number + 1:
                self._fault(f"entry {number + 1} of the chain is missing")
            self._entry(before, entry, marks, hash)
            before, number, at = hash, entry.number, entry.at
            if self._rows >= tell_at:
                tell_at = self._rows + _TELL_AFTER
                self._on_progress(min(self._rows, self._total), self._total)
        if number == 0:
            self._fault("the chain is empty")
        self._leftovers()
        self._others()
        if self._anchor and not self._anchor_found:
            self._fault(f"no entry of the chain has the hash {self._anchor}: the books are not those of that anchor")
        faults, derived = self._faults, list(self._derived())
        if self._uncounted:
            faults.append(f"and {self._uncounted} more")
        self._on_progress(self._total, self._total)
        return Proof(faults, number, self._rows, ChainHead(number, before, at), derived)

    def _fault(self, sentence: str) -> None:
        if len(self._faults) < FAULTS_NAMED_MAX:
            self._faults.append(sentence)
        else:
            self._uncounted += 1

    # -- one entry -----------------------------------------------------------------------------------------------------

    def _entry(self, before: str, entry: Entry, marks: object, hash: object) -> None:
        if entry.form != FORM:
            self._fault(f"entry {entry.number} of the chain was made by rules that this version does not know")
            return
        if self._anchor and hash == self._anchor:
            self._anchor_found = True
        if entry.position or entry.sequence or entry.epoch:
            self._mark = entry.position, entry.sequence, entry.epoch
        try:
            items, names = self._items(entry)
            sound = chain.hash_of(before, entry, items) == hash
            wanted = chain.marks_of(items)
        except (TypeError, ValueError, KeyError, msgspec.MsgspecError):
            # A cell holds another type than any that was ever written, or no JSON.
            self._fault(f"entry {entry.number} of the chain cannot be read")
            return
        if sound and wanted == marks:
            return
        kept = bytes(marks) if isinstance(marks, bytes) else b""
        wrong = [
            names(place)
            for place, (now, then) in enumerate(zip_longest(_fours(wanted), _fours(kept)))
            if now != then and place < len(items)
        ]
        if wrong and not sound and len(wanted) == len(kept):
            for name in wrong:
                self._fault(f"{name} is not what was booked")
        elif not sound and len(wanted) != len(kept):
            self._fault(
                f"{_span(entry)}: not the rows that were booked, {len(wanted) // 4} instead of {len(kept) // 4}"
            )
        else:
            self._fault(f"entry {entry.number} of the chain was altered, or the one before it")

    def _items(self, entry: Entry) -> tuple[list[bytes], Callable[[int], str]]:
        """The items of an entry as the rows make them now, and what each is called."""
        items: list[bytes] = []
        parts: list[tuple[int, Callable[[int], str]]] = []

        def part(found: Sequence[bytes], name: Callable[[int], str]) -> None:
            items.extend(found)
            parts.append((len(items), name))

        if entry.requests_last:
            records = self._range(self._records, entry.requests_first, entry.requests_last, "record", ID_AT)
            part(self._record_items(records, entry), lambda n: f"record {records[n][ID_AT]}")
        if entry.ended:
            ended = self._ended_by(entry)
            part([chain.whole_item(row) for row in ended], lambda n: f"record {ended[n][ID_AT]}")
        if entry.transfers_last:
            moved = self._range(self._transfers, entry.transfers_first, entry.transfers_last, "transfer", 1)
            part(chain.transfers_items(moved), lambda n: self._strange(moved))
        if entry.sets_last:
            sets = self._range(self._sets, entry.sets_first, entry.sets_last, "set of dimensions", 0)
            part([SETS.item(row) for row in sets], lambda n: f"set of dimensions {sets[n][0]}")
        if entry.accounts_last:
            opened = self._range(self._accounts, entry.accounts_first, entry.accounts_last, "account", 1)
            part([ACCOUNTS.item(row) for row in opened], lambda n: f"account {opened[n][1]}")
        if entry.changes_last:
            changed = self._range(self._changes, entry.changes_first, entry.changes_last, "change", 2)
            part([chain.encode(row) for row in changed], lambda n: f"change {changed[n][0]} of {changed[n][2]}")
        if entry.named:
            named = msgspec.json.decode(entry.named, type=list[tuple[str, str | int]])
            found = [self._named_item(table, key) for table, key in named]
            part(found, lambda n: f"{named[n][0]} {named[n][1]}")

        def name_of(place: int) -> str:
            start = 0
            for end, name in parts:
                if place < end:
                    return name(place - start)
                start = end
            return f"entry {entry.number} of the chain"

        self._rows += len(items) + max(entry.transfers_last - entry.transfers_first, 0)
        return items, name_of

    def _range(self, rows: _Rows, first: int, last: int, what: str, id_at: int) -> list[Values]:
        """The rows of a range; those missing, and those before it that no entry covers, are named."""
        found, strays = rows.between(first, last)
        for row in strays:
            self._fault(f"{what} {row[id_at]} (number {row[0]}) was put in: no entry of the chain covers it")
        if len(found) != last - first + 1:
            there = {row[0] for row in found}
            gaps = (number for number in range(first, min(last, first + 100_000) + 1) if number not in there)
            for number, _ in zip(gaps, range(FAULTS_NAMED_MAX), strict=False):
                self._fault(f"{what} number {number} is missing")
        return found

    def _strange(self, moved: Sequence[Values]) -> str:
        """Which of an entry's transfers is not as its record says; all of them where none can be told."""
        find = "SELECT charge, cost, ended_at FROM requests WHERE id = ?"
        for sequence, id, kind, _, _, amount, at in moved:
            record = self._cursor.execute(find, (id,)).fetchone()
            if kind == "charge" and (record is None or amount not in record[:2] or at != record[2]):
                return f"transfer {sequence} of {id}"
        return f"one of the transfers {moved[0][0]} to {moved[-1][0]}" if moved else "a transfer"

    def _record_items(self, records: Sequence[Values], entry: Entry) -> list[bytes]:
        """The items of records, of those whose end was not known the digests that were kept of them."""
        open_then, strays = self._unsettled.between(entry.requests_first, entry.requests_last)
        for row in strays:
            self._fault(f"unsettled {row[0]} was put in: no such record was booked")
        if not open_then:
            return list(map(chain.record_item, records))
        kept = {row[0]: row for row in open_then}
        items = []
        for record in records:
            unsettled = kept.pop(record[0], None)
            if unsettled is None:
                items.append(chain.record_item(record))
                continue
            number, digest, ended_by = unsettled
            items.append(chain.unsettled_item(number, digest))
            if not ended_by and chain.unsettled_digest(self._cursor, record) != digest:
                self._fault(f"record {record[ID_AT]}, or its reservation, is not what was booked")
        for number in kept:
            self._fault(f"unsettled {number} has no record")
        return items

    def _ended_by(self, entry: Entry) -> list[Values]:
        names = ", ".join(f'q."{name}"' for name in STORED)
        statement = f"SELECT {names} FROM unsettled u JOIN requests q ON q.number = u.number WHERE u.ended_by = ?"
        found = self._cursor.execute(f"{statement} ORDER BY u.number", (entry.number,)).fetchall()
        self._ended += len(found)
        return found

    def _named_item(self, table: str, key: str | int) -> bytes:
        facts = chain.NAMED_FACTS[table]
        row = self._cursor.execute(facts.select_one, (key,)).fetchone()
        if key in self._named[table]:
            self._fault(f"{table} {key} is named twice")
        self._named[table].add(key)
        if row is None:
            self._fault(f"{table} {key} is missing")
            return b""
        return facts.item(row)

    # -- what no entry covers ------------------------------------------------------------------------------------------

    def _leftovers(self) -> None:
        """Rows behind the last entry."""
        for rows, what, id_at in (
            (self._records, "record", ID_AT),
            (self._unsettled, "unsettled", 0),
            (self._transfers, "transfer", 1),
            (self._sets, "set of dimensions", 0),
            (self._accounts, "account", 1),
            (self._changes, "change", 2),
        ):
            for row in rows.rest():
                self._fault(f"{what} {row[id_at]} (number {row[0]}) was put in: no entry of the chain covers it")

    def _others(self) -> None:
        for name, facts in chain.NAMED_FACTS.items():
            for (key,) in self._cursor.execute(f'SELECT "{facts.key}" FROM "{name}"'):
                if key not in self._named[name]:
                    self._fault(f"{name} {key} was put in: no entry of the chain covers it")
        (ended,) = self._cursor.execute("SELECT count(*) FROM unsettled WHERE ended_by != 0").fetchone()
        if ended != self._ended:
            self._fault(f"{ended} records are said to have ended later, the chain knows of {self._ended}")
        lost = "SELECT run, request_id FROM adjustment_lines WHERE run NOT IN (SELECT id FROM adjustments)"
        for run, request in self._cursor.execute(lost):
            self._fault(f"the correction of {request} by {run} was put in: there is no such run")
        marks = self._cursor.execute("SELECT id, position, sequence, epoch FROM meta").fetchall()
        if marks != [(1, *self._mark)]:
            self._fault("the place in the journal is not where the chain ends")
        self._resources()

    def _resources(self) -> None:
        """Keys, limits, prices and whatever else changes: each as the newest line of the change feed left it."""
        # The columns beside max() are those of the row that has it.
        statement = "SELECT kind, id, digest, max(sequence) FROM changes GROUP BY kind, id ORDER BY kind, id"
        feed = self._connection.execute(statement)
        newest: Values | None = feed.fetchone()
        for kind in sorted(RESOURCE_FACTS, key=str.encode):
            facts = RESOURCE_FACTS[kind]
            while newest is not None and newest[0] < kind:
                self._fault(f"change {newest[3]} is of an unknown kind")
                newest = feed.fetchone()
            for row in self._cursor.execute(f'{facts.select} ORDER BY "id"'):
                id = row[facts.key_at]
                while newest is not None and newest[0] == kind and newest[1] < id:
                    self._removed(newest)
                    newest = feed.fetchone()
                if newest is None or newest[:2] != (kind, id):
                    self._fault(f"{kind} {id} was put in: no change made it")
                    continue
                if facts.digest(row) != newest[2]:
                    self._fault(f"{kind} {id} is not what its last change left")
                newest = feed.fetchone()
            while newest is not None and newest[0] == kind:
                self._removed(newest)
                newest = feed.fetchone()

    def _removed(self, newest: Values) -> None:
        if newest[2]:
            self._fault(f"{newest[0]} {newest[1]} is missing: no change removed it")

    # -- what follows from the rest ------------------------------------------------------------------------------------

    def _derived(self) -> Iterator[str]:
        """Roll-ups and reservations that are not what the records say, some of each."""
        faults = [*self._rollups(), *self._reservations()]
        yield from faults[:FAULTS_NAMED_MAX]
        if len(faults) > FAULTS_NAMED_MAX:
            yield f"and {len(faults) - FAULTS_NAMED_MAX} more"

    def _rollups(self) -> Iterator[str]:
        uncounted = ", ".join(f"'{status}'" for status in UNCOUNTED)
        counted = f"status NOT IN ({uncounted})"
        sums = ", ".join(f"coalesce(sum({_summed(name)}) FILTER (WHERE {counted}), 0)" for name in SUMS)
        slot = f"created_at - created_at % {SLOT_NANOS}"
        summed = self._connection.execute(
            f"SELECT {slot} AS slot, dimensions, {sums}, min(number), max(number)"
            " FROM requests GROUP BY slot, dimensions ORDER BY slot, dimensions"
        )
        kept = self._connection.execute(
            f"SELECT slot, dimensions, {', '.join(SUMS)}, first_number, last_number FROM rollups"
            " ORDER BY slot, dimensions"
        )
        told = 0
        for wanted, found in _joined(summed, kept):
            if wanted == found:
                continue
            told += 1
            if told <= FAULTS_NAMED_MAX:
                which = wanted or found
                assert which is not None
                yield f"the roll-up of set {which[1]} at {which[0]} is not the sum of its records"

    def _reservations(self) -> Iterator[str]:
        """Those that run follow from the journal, with which they are compared elsewhere."""
        settled = (
            "SELECT id FROM reservations r WHERE state = 'dispatched' AND EXISTS"
            " (SELECT 1 FROM requests q WHERE q.id = r.id)"
        )
        for (id,) in self._cursor.execute(settled):
            yield f"the reservation of {id} is said to run, but it has ended"
        strange = (
            "SELECT id FROM reservations r WHERE state != 'dispatched' AND NOT EXISTS (SELECT 1 FROM requests q"
            " JOIN unsettled u ON u.number = q.number WHERE q.id = r.id AND u.ended_by = 0)"
        )
        for (id,) in self._cursor.execute(strange):
            yield f"the reservation of {id} is said to be unknown, but no such record waits for its end"
        for id, held, intent in self._cursor.execute("SELECT id, held, intent FROM reservations"):
            try:
                told = _decode_intent(intent)
            except (TypeError, msgspec.MsgspecError):
                yield f"the reservation of {id} cannot be read"
                continue
            if (told.id, told.held.usd) != (id, held):
                yield f"the reservation of {id} does not hold what its intent says"


def _summed(name: str) -> str:
    """What one of ``SUMS`` adds of a record."""
    if name == "requests":
        return "1"
    return f"cache = '{CACHE_WORDS[name]}'" if name in CACHE_WORDS else name


def _joined(left: Iterator[Values], right: Iterator[Values]) -> Iterator[tuple[Values | None, Values | None]]:
    """Rows of two sorted statements side by side, by their first two columns."""
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[:2] < other[:2]):
            yield one, None
            one = next(left, None)
        elif one is None or other[:2] < one[:2]:
            yield None, other
            other = next(right, None)
        else:
            yield one, other
            one, other = next(left, None), next(right, None)


def _fours(marks: bytes) -> Iterator[bytes]:
    return (marks[at : at + 4] for at in range(0, len(marks), 4))


def _span(entry: Entry) -> str:
    told = f"entry {entry.number} of the chain"
    if entry.requests_last:
        told += f" (records {entry.requests_first} to {entry.requests_last})"
    return told
