"""The chain over what is booked: one row for each transaction, whose hash covers all that it added and the row before.

Owns what is hashed, and how; ``prove`` reads it back. Rules that hold for ever, because old rows are hashed by them:

- A row that is booked is encoded as it stands in the file (``Facts``, ``record_item``), one item each, but one for all
  transfers of an entry, in a fixed order: records, records whose end this transaction brought, transfers, sets of
  dimensions, accounts, lines of the change feed, and named rows. The hash is SHA-256 of the hash before, the entry's
  own columns, and all items.
- A record changes only once, when the end of an unknown exchange is learnt. So what is hashed of it at first is a
  digest, which ``unsettled`` keeps; its last form is hashed by the entry that ended it.
- Resources (keys, limits, prices, ...) change as they like: each line of the change feed carries the digest of the row
  that it left, and the feed is chained. The newest line of each must fit the row.
- Reservations that run, roll-ups and the outbox follow from the rest and are compared with it, not hashed.

Columns that later versions added to ``requests`` are hashed only where they are not as by default, by name and behind
the others. So a record that does not use them has the hash that it always had, whichever version booked it, and one
that was given such a value afterwards has another: form 1 covers them, of old records and of new ones. That needs every
new column to have a default that is the truth of all older records. Whoever adds one puts it at the end of ``LATER``;
another kind of change, and a column of ``transfers``, needs a form 2. A migration that changes what is hashed seals the
books anew (``seal``).
"""

import sqlite3
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from operator import itemgetter
from typing import Any, Final, NamedTuple
from zlib import adler32

import msgspec
from sqlalchemy import Table

from faregate.core.ledger.reservations import State
from faregate.ports import ChainHead, TrailMark
from faregate.storage.fold import ORDINARILY, ORDINARY
from faregate.storage.rows import default_of
from faregate.storage.schema import (
    RESOURCES,
    accounts,
    adjustments,
    chain,
    dimension_sets,
    rate_cards,
    requests,
    reservations,
    segments,
    transfers,
)

#: The rules by which new entries are hashed.
FORM: Final = 1

#: Columns of a record that are always hashed, in their order.
RECORD: Final = (
    *("number", "id", "ended_at", "status", "http_status", "code", "input_text", "input_cached", "input_cache_write"),
    *("input_audio", "output_text", "output_reasoning", "output_audio", "usage_source", "cost", "charge"),
    *("price_version", "latency_us", "first_token_us", "attempt_us", "attempts", "answered_model"),
    *("provider_request_id", "overrun", "resolution", "dimensions", "run", "tags", "identity_source", "created_at"),
    *("held", "stream", "idempotency_key", "clamped_to", "limit_id", "other_units", "input_other", "output_other"),
    *("images", "seconds", "characters", "charge_rule", "notes"),
)
#: Columns that later versions added, in their order; they are hashed where they are used.
LATER: Final = ("cache", "saved_cost")
#: All columns of a record, in the order of the table.
STORED: Final = (*RECORD, *LATER)
#: Columns of a transfer that form 1 covers. Its sequence follows from its place.
TRANSFER: Final = ("request_id", "kind", "debit", "credit", "amount", "at")
CHANGE: Final = ("sequence", "kind", "id", "at", "digest")

#: Tables without numbers whose rows stay as they are, and their keys.
NAMED: Final[dict[str, Table]] = {str(table.name): table for table in (adjustments, segments, rate_cards)}

#: Rows that one entry covers where there are many: when older books are sealed.
SEALED_ROWS: Final = 1_000

#: The hash before the first entry.
NOTHING_BEFORE: Final = "0" * 64

encode = msgspec.msgpack.Encoder().encode

_NUMBER_AT: Final = RECORD.index("number")
STATUS_AT: Final = RECORD.index("status")
ID_AT: Final = RECORD.index("id")
_ATTEMPTS_AT: Final = RECORD.index("attempts")
_CHARGE_RULE_AT: Final = RECORD.index("charge_rule")
_ordinary_of = itemgetter(*(RECORD.index(name) for name in ORDINARY))
_REST: Final = tuple(name for name in RECORD if name not in (*ORDINARY, "charge_rule"))
_rest_of = itemgetter(*(RECORD.index(name) for name in _REST))
_USUAL_REST: Final = tuple(ORDINARILY[name] if name in ORDINARILY else default_of(requests.c[name]) for name in _REST)
_UNKNOWN: Final = (State.UNKNOWN.value, "pending")


_ALWAYS: Final = len(RECORD)
_USUAL_LATER: Final = tuple(default_of(requests.c[name]) for name in LATER)


def record_item(row: Sequence[Any]) -> bytes:
    """What is hashed of a record with the columns ``STORED``: of an ordinary call only what tells it apart."""
    if row[_ATTEMPTS_AT] is None and _rest_of(row) == _USUAL_REST and row[_ALWAYS:] == _USUAL_LATER:
        rule = row[_CHARGE_RULE_AT]
        return encode((*_ordinary_of(row), rule)) if rule else encode(_ordinary_of(row))
    return whole_item(row)


def whole_item(row: Sequence[Any]) -> bytes:
    """What is hashed of a record with the columns ``STORED`` that is not ordinary."""
    later = row[_ALWAYS:]
    if later == _USUAL_LATER:
        return encode(row[:_ALWAYS])
    told = zip(LATER, later, _USUAL_LATER, strict=True)
    return encode((*row[:_ALWAYS], [(name, value) for name, value, usual in told if value != usual]))


def _new_item(row: Sequence[Any]) -> bytes:
    """What is hashed of a record that is booked; ordinary ones come with no more than tells them apart."""
    return whole_item(row) if len(row) == len(STORED) else encode(row)


def columns_of(table: Table) -> list[str]:
    """The columns of a table that are stored."""
    # Plain texts: SQLAlchemy's own kind of name cannot be encoded.
    return [str(column.name) for column in table.c if column.computed is None]


def select_all(table: Table, names: Iterable[str] | None = None) -> str:
    """The start of a statement that reads a table's rows as they are stored."""
    listed = ", ".join(f'"{name}"' for name in (names or columns_of(table)))
    return f'SELECT {listed} FROM "{table.name}"'


class Facts:
    """What is hashed of a table's rows: the names and values of all that is not as by default.

    So a column that a later version adds changes nothing for the rows that do not use it.
    """

    def __init__(self, table: Table) -> None:
        self._names = columns_of(table)
        self._usual = [default_of(table.c[name]) for name in self._names]
        (key,) = table.primary_key.columns
        self.select = select_all(table)
        self.select_one = f'{self.select} WHERE "{key.name}" = ?'
        self.key = str(key.name)
        self.key_at = self._names.index(self.key)

    def item(self, row: Sequence[Any]) -> bytes:
        """The encoded facts of one row of ``select``."""
        told = zip(self._names, row, self._usual, strict=True)
        return encode([(name, value) for name, value, usual in told if value != usual])

    def digest(self, row: Sequence[Any]) -> str:
        """The digest that the change feed keeps of a row."""
        return sha256(self.item(row)).hexdigest()


SETS: Final = Facts(dimension_sets)
ACCOUNTS: Final = Facts(accounts)
NAMED_FACTS: Final = {name: Facts(table) for name, table in NAMED.items()}
RESOURCE_FACTS: Final = {kind: Facts(table) for kind, table in RESOURCES.items()}


class Entry(NamedTuple):
    """A row of the chain without what follows from its items; the order is that of the columns and of the hash."""

    number: int
    form: int
    at: int
    position: int = 0
    sequence: int = 0
    epoch: int = 0
    requests_first: int = 0
    requests_last: int = 0
    transfers_first: int = 0
    transfers_last: int = 0
    sets_first: int = 0
    sets_last: int = 0
    accounts_first: int = 0
    accounts_last: int = 0
    changes_first: int = 0
    changes_last: int = 0
    trail_first: int = 0
    trail_last: int = 0
    trail_hash: str = ""
    ended: int = 0
    #: JSON text, ``None`` where nothing is named.
    named: str | None = None


def hash_of(before: str, entry: Entry, items: Sequence[bytes]) -> str:
    """The hash of an entry."""
    return sha256(b"".join((bytes.fromhex(before), encode(entry), *items))).hexdigest()


def marks_of(items: Iterable[bytes]) -> bytes:
    """Four bytes for each item: enough to name the one that was changed, and nothing to trust.

    Adler's sum costs half of what CRC-32 does, and this is done for every call.
    """
    marks = array("I", map(adler32, items))
    if sys.byteorder == "big":
        marks.byteswap()
    return marks.tobytes()


_COLUMNS: Final = (*Entry._fields, "marks", "hash")
assert set(_COLUMNS) == set(chain.c.keys())
SELECT_ENTRIES: Final = select_all(chain, _COLUMNS)
_INSERT: Final = f'INSERT INTO "chain" ({", ".join(_COLUMNS)}) VALUES ({", ".join("?" * len(_COLUMNS))})'
_HEAD: Final = 'SELECT number, hash, at FROM "chain" ORDER BY number DESC LIMIT 1'
assert list(STORED) == columns_of(requests)
SELECT_RECORDS: Final = select_all(requests, STORED)
_RECORD: Final = f"{SELECT_RECORDS} WHERE number = ?"
_RECORD_BY_ID: Final = f"{SELECT_RECORDS} WHERE id = ?"
_RESERVATION: Final = f"{select_all(reservations)} WHERE id = ?"
_ADD_UNSETTLED: Final = "INSERT INTO unsettled (number, digest, ended_by) VALUES (?, ?, 0)"
_END_UNSETTLED: Final = "UPDATE unsettled SET ended_by = ? WHERE number = ?"
SELECT_TRANSFERS: Final = select_all(transfers, ("sequence", *TRANSFER))
SELECT_CHANGES: Final = f"SELECT {', '.join(CHANGE)} FROM changes"


class Ends(NamedTuple):
    """The greatest numbers that the books hold."""

    transfers: int
    accounts: int
    changes: int


_ENDS: Final = (
    "SELECT (SELECT coalesce(max(sequence), 0) FROM transfers), (SELECT coalesce(max(id), 0) FROM accounts),"
    " (SELECT coalesce(max(sequence), 0) FROM changes)"
)


def ends(cursor: sqlite3.Cursor) -> Ends:
    """The greatest numbers that the books hold now."""
    return Ends(*cursor.execute(_ENDS).fetchone())


def unsettled_digest(cursor: sqlite3.Cursor, record: Sequence[Any]) -> str:
    """The digest of a record whose end is not known, with its reservation."""
    reservation = cursor.execute(_RESERVATION, (record[ID_AT],)).fetchone()
    return sha256(whole_item(record) + encode(reservation)).hexdigest()


def unsettled_item(number: int, digest: str) -> bytes:
    """What is hashed of such a record at first."""
    return encode((number, digest))


def transfers_items(rows: Sequence[Sequence[Any]]) -> list[bytes]:
    """What is hashed of transfers with their sequences: one item for all, as one for each costs four times as much."""
    return [encode([row[1:] for row in rows])] if rows else []


class Booked(NamedTuple):
    """What a batch of the journal added, as far as the chain covers it."""

    #: Rows of ``requests`` by number; those with other than all columns are ordinary.
    records: Sequence[tuple[Any, ...]]
    #: All of them are.
    ordinary: bool
    #: Ids of unknown records that have ended.
    ended: Sequence[str]
    transfers: Sequence[tuple[Any, ...]]
    transfers_last: int
    #: ``(id, *values)`` of new sets and accounts.
    sets: Sequence[tuple[Any, ...]]
    accounts: Sequence[tuple[Any, ...]]
    position: int
    sequence: int
    epoch: int


class Chain:
    """The writer's end of the chain. Everything happens in the caller's transaction; ``forget`` where that fails."""

    def __init__(self) -> None:
        self._head: ChainHead | None = None

    def forget(self) -> None:
        """Read again where the chain ends: a transaction failed."""
        self._head = None

    def head(self, cursor: sqlite3.Cursor) -> ChainHead:
        """The newest entry; number 0 where there is none."""
        if self._head is None:
            self._head = ChainHead(*(cursor.execute(_HEAD).fetchone() or (0, NOTHING_BEFORE, 0)))
        return self._head

    def add(self, cursor: sqlite3.Cursor, entry: Entry, items: Sequence[bytes]) -> None:
        """Append an entry, whose number is the next."""
        hash = hash_of(self.head(cursor).hash, entry, items)
        cursor.execute(_INSERT, (*entry, marks_of(items), hash))
        self._head = ChainHead(entry.number, hash, entry.at)

    def book(self, cursor: sqlite3.Cursor, booked: Booked, at: int) -> None:
        """Chain a batch of the journal."""
        number = self.head(cursor).number + 1
        records = booked.records
        items = list(map(encode if booked.ordinary else _new_item, records))
        ended = set(booked.ended)
        if not booked.ordinary:
            self._hold_open(cursor, records, items, ended)
        if ended:
            items += self._ended(cursor, ended, number)
        if booked.transfers:
            items.append(encode(booked.transfers))
        sets, accounts = booked.sets, booked.accounts
        items += map(SETS.item, sets)
        items += map(ACCOUNTS.item, accounts)
        moved = len(booked.transfers)
        last = booked.transfers_last if moved else 0
        entry = Entry(
            number, FORM, at, booked.position, booked.sequence, booked.epoch,
            records[0][0] if records else 0, records[-1][0] if records else 0,
            last - moved + 1 if moved else 0, last,
            sets[0][0] if sets else 0, sets[-1][0] if sets else 0,
            accounts[0][0] if accounts else 0, accounts[-1][0] if accounts else 0,
            ended=len(ended),
        )  # fmt: skip
        self.add(cursor, entry, items)

    def _hold_open(
        self, cursor: sqlite3.Cursor, records: Sequence[tuple[Any, ...]], items: list[bytes], ended: set[str]
    ) -> None:
        """Give records whose end is not known the item that they keep when it is learnt."""
        for place, row in enumerate(records):
            # Ordinary records have fewer columns.
            if len(row) != len(STORED) or row[STATUS_AT] not in _UNKNOWN:
                continue
            stored = cursor.execute(_RECORD, (row[_NUMBER_AT],)).fetchone()
            if row[ID_AT] in ended:
                # It was lost and ended within the batch.
                ended.remove(row[ID_AT])
                items[place] = record_item(stored)
            else:
                digest = unsettled_digest(cursor, stored)
                cursor.execute(_ADD_UNSETTLED, (row[_NUMBER_AT], digest))
                items[place] = unsettled_item(row[_NUMBER_AT], digest)

    def _ended(self, cursor: sqlite3.Cursor, ids: Iterable[str], number: int) -> list[bytes]:
        """The records that have ended, by their numbers, as they stand now."""
        rows = sorted((cursor.execute(_RECORD_BY_ID, (id,)).fetchone() for id in ids), key=itemgetter(_NUMBER_AT))
        cursor.executemany(_END_UNSETTLED, [(number, row[_NUMBER_AT]) for row in rows])
        return [whole_item(row) for row in rows]

    def change(
        self,
        cursor: sqlite3.Cursor,
        before: Ends,
        at: int,
        told: TrailMark | None,
        named: Sequence[tuple[str, str | int]],
    ) -> None:
        """Chain what a transaction beside the journal added since ``before``; nothing where it added nothing."""
        now = ends(cursor)
        if now == before and told is None and not named:
            return
        head, trail = self.head(cursor), told or TrailMark(0, 0, "")
        entry = Entry(
            head.number + 1,
            FORM,
            at,
            transfers_first=before.transfers + 1 if now.transfers > before.transfers else 0,
            transfers_last=now.transfers if now.transfers > before.transfers else 0,
            accounts_first=before.accounts + 1 if now.accounts > before.accounts else 0,
            accounts_last=now.accounts if now.accounts > before.accounts else 0,
            changes_first=before.changes + 1 if now.changes > before.changes else 0,
            changes_last=now.changes if now.changes > before.changes else 0,
            trail_first=trail.first,
            trail_last=trail.last,
            trail_hash=trail.hash,
            named=encode_named(named),
        )
        self.add(cursor, entry, stored_items(cursor, entry))


def encode_named(named: Sequence[tuple[str, str | int]]) -> str | None:
    """Names as an entry keeps them."""
    return msgspec.json.encode(named).decode() if named else None


def stored_items(cursor: sqlite3.Cursor, entry: Entry) -> list[bytes]:
    """The items of an entry beside the journal, read from the file: it has neither records nor sets."""

    def between(select: str, key: str, first: int, last: int) -> sqlite3.Cursor:
        return cursor.execute(f"{select} WHERE {key} BETWEEN ? AND ?", (first, last))

    moved = between(SELECT_TRANSFERS, "sequence", entry.transfers_first, entry.transfers_last)
    items = transfers_items(moved.fetchall())
    items += map(ACCOUNTS.item, between(ACCOUNTS.select, "id", entry.accounts_first, entry.accounts_last))
    items += map(encode, between(SELECT_CHANGES, "sequence", entry.changes_first, entry.changes_last))
    for table, key in msgspec.json.decode(entry.named) if entry.named else ():
        facts = NAMED_FACTS[table]
        items.append(facts.item(cursor.execute(facts.select_one, (key,)).fetchone()))
    return items


# -- books of before the chain -----------------------------------------------------------------------------------------


def seal(cursor: sqlite3.Cursor, at: int, trail: TrailMark | None = None) -> None:
    """Chain all that was booked before there was a chain, in entries of ``SEALED_ROWS`` rows at most.

    ``trail`` are the lines that the trail of changes has by then. What was wrong before stays wrong unseen; from here
    on nothing changes unseen.
    """
    _stamp_resources(cursor)
    sealed = Chain()
    number = sealed.head(cursor).number
    mark = cursor.execute("SELECT position, sequence, epoch FROM meta").fetchone()

    def add(items: Sequence[bytes], **covered: Any) -> None:
        nonlocal number
        number += 1
        sealed.add(cursor, Entry(number, FORM, at, **covered), items)

    told = trail or TrailMark(0, 0, "")
    place = dict(zip(("position", "sequence", "epoch"), mark, strict=True))
    add([], **place, trail_first=told.first, trail_last=told.last, trail_hash=told.hash)
    reader = cursor.connection.cursor()
    for rows in _runs(reader.execute(f"{SELECT_RECORDS} ORDER BY number")):
        items = [_sealed_record(cursor, row) for row in rows]
        add(items, requests_first=rows[0][0], requests_last=rows[-1][0])
    for rows in _runs(reader.execute(f"{SELECT_TRANSFERS} ORDER BY sequence")):
        add(transfers_items(rows), transfers_first=rows[0][0], transfers_last=rows[-1][0])
    for rows in _runs(reader.execute(f"{SETS.select} ORDER BY id")):
        add([SETS.item(row) for row in rows], sets_first=rows[0][0], sets_last=rows[-1][0])
    for rows in _runs(reader.execute(f"{ACCOUNTS.select} ORDER BY id")):
        add([ACCOUNTS.item(row) for row in rows], accounts_first=rows[0][0], accounts_last=rows[-1][0])
    for rows in _runs(reader.execute(f"{SELECT_CHANGES} ORDER BY sequence")):
        add([encode(row) for row in rows], changes_first=rows[0][0], changes_last=rows[-1][0])
    for name, facts in NAMED_FACTS.items():
        keys = [(name, row[0]) for row in reader.execute(f'SELECT "{facts.key}" FROM "{name}" ORDER BY 1')]
        for start in range(0, len(keys), SEALED_ROWS):
            some = encode_named(keys[start : start + SEALED_ROWS])
            add(stored_items(cursor, Entry(0, FORM, at, named=some)), named=some)


def _sealed_record(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> bytes:
    if row[STATUS_AT] not in _UNKNOWN:
        return record_item(row)
    digest = unsettled_digest(cursor, row)
    cursor.execute(_ADD_UNSETTLED, (row[_NUMBER_AT], digest))
    return unsettled_item(row[_NUMBER_AT], digest)


def _runs(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows whose numbers follow each other without a gap, ``SEALED_ROWS`` at most together."""
    run: list[tuple[Any, ...]] = []
    for row in rows:
        if run and (row[0] != run[-1][0] + 1 or len(run) == SEALED_ROWS):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _stamp_resources(cursor: sqlite3.Cursor) -> None:
    """Let the newest line of the change feed name what it left of each resource; add one where there is none."""
    reader = cursor.connection.cursor()
    for kind, facts in RESOURCE_FACTS.items():
        newest = dict(cursor.execute("SELECT id, max(sequence) FROM changes WHERE kind = ? GROUP BY id", (kind,)))
        for row in reader.execute(facts.select):
            id, digest = row[facts.key_at], facts.digest(row)
            if id in newest:
                cursor.execute("UPDATE changes SET digest = ? WHERE sequence = ?", (digest, newest[id]))
            else:
                cursor.execute("INSERT INTO changes (kind, id, at, digest) VALUES (?, ?, 0, ?)", (kind, id, digest))
