"""Writes a folded batch into the file: one transaction, many rows a statement, SQL compiled once.

It owns what the writer remembers between batches (its place, open reservations, numbers of accounts and of sets of
dimensions), which is dropped whenever a transaction fails and read again from the file, so that it is never wrong.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from sqlalchemy import (
    BindParameter,
    ClauseElement,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from faregate.core.attribution import Attribution
from faregate.core.ledger.events import NOT_AWAITED, Awaited, Intended, Recalled, Redirected, Refused, Settled
from faregate.core.ledger.postings import charge_postings
from faregate.core.ledger.reservations import State
from faregate.errors import JournalCorrupt
from faregate.ports import JournalRecord
from faregate.storage.fold import (
    CHARGED,
    DISPATCHED,
    ORDINARILY,
    ORDINARY,
    UNKNOWN,
    Batch,
    Before,
    Ended,
    Group,
    RepeatedId,
    Reservation,
    Stamp,
    fold,
)
from faregate.storage.rows import TOLD_WHEN_LOST
from faregate.storage.schema import (
    CACHE_SUMS,
    RARE,
    SUMS,
    accounts,
    dimension_sets,
    meta,
    outbox,
    requests,
    reservations,
    rollups,
    transfers,
)
from faregate.storage.sqlite.chain import Booked, Chain

#: Accounts, sets and attributions whose numbers are remembered. End users and runs make their own, so this is a bound.
REMEMBERED_MAX: Final = 20_000

#: Rows that one statement takes: beyond this nothing is gained.
_ROWS: Final = 32

#: A number that no record has: the start of a range that is empty so far.
_NO_NUMBER: Final = 2**63 - 1

Key = TypeVar("Key")
Value = TypeVar("Value")

_id_of = itemgetter(1)
_number_of = itemgetter(0)
_encode = msgspec.json.Encoder().encode
_decode_intent = msgspec.json.Decoder(Intended).decode
_decode_awaited = msgspec.json.Decoder(Awaited).decode

#: What the record of an exchange says that has not ended.
_NOT_ENDED: Final = (UNKNOWN, "pending")


def _sql(statement: ClauseElement) -> str:
    """The statement's text in SQLite's words, with ``?`` for its parameters in order."""
    return str(statement.compile(dialect=sqlite_dialect.dialect(paramstyle="qmark")))


class Statement(NamedTuple):
    """A statement for one row, and the same for ``_ROWS`` rows at once, which costs less for each if rows are short."""

    one: str
    many: str

    def run(self, cursor: sqlite3.Cursor, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run it for all ``rows``."""
        whole = len(rows) - len(rows) % _ROWS
        for start in range(0, whole, _ROWS):
            cursor.execute(self.many, tuple(chain.from_iterable(rows[start : start + _ROWS])))
        if whole < len(rows):
            cursor.executemany(self.one, rows[whole:])


def _bound(*names: str) -> dict[str, BindParameter[Any]]:
    return {name: bindparam(name) for name in names}


def _insert(table: Table, *names: str, **fixed: str | int) -> str:
    """Insert into the columns ``names``, of which the rows have values in this order; all others have their default."""
    literals: dict[str, ClauseElement] = {name: literal_column(repr(value)) for name, value in fixed.items()}
    # Parameters come in the order of the table's columns; ours must be the same.
    assert list(names) == [column.name for column in table.c if column.name in names]
    return _sql(insert(table).values({**_bound(*names), **literals}))


def _repeated(insertion: str) -> Statement:
    """An insertion of one row, and of many."""
    start = insertion.index("(", insertion.index(" VALUES "))
    end = insertion.index(")", start) + 1
    values = insertion[start:end]
    return Statement(insertion, f"{insertion[:start]}{', '.join([values] * _ROWS)}{insertion[end:]}")


def _names(table: Table, *without: str) -> list[str]:
    return [column.name for column in table.c if column.computed is None and column.name not in without]


def _add_rollups() -> Statement:
    statement = sqlite_insert(rollups).values(_bound(*rollups.c.keys()))
    added = {name: rollups.c[name] + statement.excluded[name] for name in SUMS}
    span = {
        "first_number": func.min(rollups.c.first_number, statement.excluded.first_number),
        "last_number": func.max(rollups.c.last_number, statement.excluded.last_number),
    }
    return _repeated(_sql(statement.on_conflict_do_update(index_elements=["slot", "dimensions"], set_=added | span)))


_REQUEST_NAMES: Final = _names(requests)
#: Columns that the end of an unknown exchange changes in its record.
_RESOLVED: Final = [
    name for name in _REQUEST_NAMES if name not in ("number", "id", "dimensions", "attempt_us", *TOLD_WHEN_LOST)
]
_RESOLVED_AT: Final = [_REQUEST_NAMES.index(name) for name in (*_RESOLVED, "id")]

_INSERT_REQUEST: Final = _insert(requests, *_REQUEST_NAMES)
_INSERT_ORDINARY: Final = _insert(requests, *ORDINARY, **ORDINARILY)
_INSERT_CHARGED: Final = _insert(requests, *CHARGED, **ORDINARILY)
_RESOLVE_REQUEST: Final = _sql(
    update(requests).values(_bound(*_RESOLVED)).where(requests.c.id == bindparam("resolved_id"))
)
_INSERT_TRANSFER: Final = _repeated(_insert(transfers, *_names(transfers, "sequence")))
_INSERT_OUTBOX: Final = _insert(outbox, *_names(outbox))
#: Asked just after transfers were added, whose numbers the file gives.
_LAST_TRANSFER: Final = "SELECT last_insert_rowid()"
_ADD_ROLLUP: Final = _add_rollups()
_INSERT_RESERVATION: Final = _repeated(_insert(reservations, *_names(reservations)))
_MARK_RESERVATION: Final = _sql(
    update(reservations)
    .values(state=bindparam("now"), output_tokens_seen=bindparam("seen"), awaited=bindparam("told"))
    .where(reservations.c.id == bindparam("marked_id"))
)
_GROW_RESERVATION: Final = _sql(
    update(reservations)
    .values(held=bindparam("more"), intent=bindparam("facts"))
    .where(reservations.c.id == bindparam("grown_id"))
)
_END_RESERVATION: Final = Statement(
    _sql(delete(reservations).where(reservations.c.id == bindparam("id"))),
    _sql(delete(reservations).where(reservations.c.id.in_([bindparam(f"id_{n}") for n in range(_ROWS)]))),
)
_FIND_REQUEST: Final = _sql(
    select(requests.c.status, dimension_sets.c.provider, requests.c.cost)
    .join(dimension_sets, dimension_sets.c.id == requests.c.dimensions)
    .where(requests.c.id == bindparam("id"))
)
_IS_REQUEST: Final = _sql(select(requests.c.number).where(requests.c.id == bindparam("id")))
_LATE: Final = transfers.c.kind == literal_column("'late'")
_IS_LATE: Final = _sql(select(transfers.c.sequence).where(_LATE, transfers.c.request_id == bindparam("id")))
_FIND_EVIDENCE_ONLY: Final = _sql(
    select(transfers.c.request_id)
    .where(_LATE)
    .where(~select(requests.c.id).where(requests.c.id == transfers.c.request_id).exists())
)
_FIND_ACCOUNT: Final = _sql(select(accounts.c.id).where(accounts.c.name == bindparam("name")))
_ADD_ACCOUNT: Final = _insert(accounts, "name")
_SET_NAMES: Final = _names(dimension_sets, "id")
_FIND_SET: Final = _sql(
    select(dimension_sets.c.id).where(*(dimension_sets.c[name] == bindparam(name) for name in _SET_NAMES))
)
_ADD_SET: Final = _insert(dimension_sets, *_SET_NAMES)
_READ_META: Final = _sql(select(meta.c.position, meta.c.sequence, meta.c.epoch))
_READ_NUMBER: Final = _sql(select(func.max(requests.c.number)))
_READ_ID: Final = _sql(select(func.max(requests.c.id)))
_NEWEST: Final = select(func.max(outbox.c.first)).scalar_subquery()
_READ_FACT: Final = _sql(select(outbox.c.last).where(outbox.c.first == _NEWEST))
_WRITE_META: Final = _sql(update(meta).values(position=bindparam("p"), sequence=bindparam("s"), epoch=bindparam("e")))
_READ_RESERVATIONS: Final = _sql(
    select(
        reservations.c.intent,
        reservations.c.epoch,
        reservations.c.state,
        reservations.c.output_tokens_seen,
        reservations.c.awaited,
    )
)


class Mark(NamedTuple):
    """Where the books stand: in the journal, in its epochs, and in their own counts of records and of facts."""

    position: int
    sequence: int
    epoch: int
    number: int
    fact: int
    #: The greatest id of a record. Ids grow, so that hardly any that is new has to be looked for.
    id: str


class Memory:
    """What the writer need not read again; true as long as nothing fails. Implements ``Numbers``."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        position, sequence, epoch = cursor.execute(_READ_META).fetchone()
        (number,) = cursor.execute(_READ_NUMBER).fetchone()
        fact = cursor.execute(_READ_FACT).fetchone()
        (id,) = cursor.execute(_READ_ID).fetchone()
        self.mark = Mark(position, sequence, epoch, number or 0, fact[0] if fact else 0, id or "")
        self.open = {reservation.intent.id: reservation for reservation in stored_reservations(cursor)}
        self.evidence_only = frozenset(row[0] for row in cursor.execute(_FIND_EVIDENCE_ONLY))
        self.cursor = cursor
        self.stamps: dict[Attribution, Stamp] = {}
        self._accounts: dict[str, int] = {}
        self._sets: dict[tuple[str, ...], int] = {}
        #: Rows of accounts and of sets that this batch has added.
        self.new_accounts: list[tuple[Any, ...]] = []
        self.new_sets: list[tuple[Any, ...]] = []

    def stamp(self, who: Attribution) -> Stamp:
        """The stamp of ``who``."""
        names = (*who[:8], *who[9:13])
        number = self._sets.get(names)
        if number is None:
            number = _remembered(self._sets, names, _number(self.cursor, _FIND_SET, _ADD_SET, names, self.new_sets))
        return _remembered(self.stamps, who, Stamp(who, number))

    def account(self, name: str) -> int:
        """The number of an account."""
        number = self._accounts.get(name)
        if number is None:
            number = _number(self.cursor, _FIND_ACCOUNT, _ADD_ACCOUNT, (name,), self.new_accounts)
            _remembered(self._accounts, name, number)
        return number

    def open_accounts(self, stamp: Stamp, who: Attribution) -> None:
        """Tell the stamp of ``who`` its accounts."""
        debited, credited = charge_postings(who, 1)
        stamp.debit, stamp.credit = self.account(debited.account), self.account(credited.account)


class Projection:
    """The writer's half of ``project``, on a connection inside its transaction."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._memory: Memory | None = None

    @property
    def position(self) -> int | None:
        """The journal position up to which everything is in the books; ``None`` where it is not remembered."""
        memory = self._memory
        return memory.mark.position if memory is not None else None

    def forget(self) -> None:
        """Drop what is remembered: a transaction failed."""
        self._memory = None
        self._chain.forget()

    def apply(
        self, connection: sqlite3.Connection, records: Sequence[JournalRecord], at: int, *, repeated: bool
    ) -> Batch:
        """Write what ``records`` add, ``at`` the present. With ``repeated`` it looks first which ids have ended before.

        Raises:
            RepeatedId: an id has a record already; roll back and try again with ``repeated``.
            JournalCorrupt: the records do not go on where the books end.
        """
        memory = self._memory
        if memory is None:
            memory = self._memory = Memory(connection.cursor())
        position, sequence = memory.mark.position, memory.mark.sequence
        batch = Batch(position, sequence, memory.mark.epoch, memory.mark.number)
        fresh = records if records[0].position > position else [each for each in records if each.position > position]
        if not fresh:
            return batch
        if sequence and fresh[0].sequence and fresh[0].sequence != sequence + 1:
            raise JournalCorrupt(
                f"the books end with record {sequence} and the journal goes on with record {fresh[0].sequence}"
            )
        cursor = memory.cursor
        ended = _ended(cursor, fresh) if repeated else None
        fold(fresh, Before(memory.open, memory, memory.evidence_only, ended), batch)
        transfers_last = _write(cursor, batch, memory)
        self._chain.book(cursor, _booked(batch, memory, transfers_last), at)
        return batch

    def committed(self, batch: Batch) -> None:
        """Remember what the committed batch left open."""
        memory = self._memory
        if memory is None:
            return
        if any(kind == "late" for kind, _ in batch.outbox):
            # Evidence without an exchange leaves no record to be found by; read again what there is.
            self._memory = None
            return
        memory.new_accounts.clear()
        memory.new_sets.clear()
        fact = memory.mark.fact + len(batch.outbox)
        id = max(map(_id_of, batch.outbox), default="")
        memory.mark = Mark(batch.position, batch.sequence, batch.epoch, batch.number, fact, max(memory.mark.id, id))
        for id, reservation in batch.changed.items():
            if reservation is None:
                memory.open.pop(id, None)
            else:
                memory.open[id] = reservation


def _write(cursor: sqlite3.Cursor, batch: Batch, memory: Memory) -> int:
    """Write a batch; returns the sequence of its last transfer, if it has some."""
    try:
        cursor.executemany(_INSERT_ORDINARY, batch.ordinary)
        if batch.charged:
            cursor.executemany(_INSERT_CHARGED, batch.charged)
        cursor.executemany(_INSERT_REQUEST, batch.requests)
    except sqlite3.IntegrityError as problem:
        raise RepeatedId from problem
    if batch.replaced:
        cursor.executemany(_RESOLVE_REQUEST, [tuple(row[at] for at in _RESOLVED_AT) for row in batch.replaced])
    _INSERT_TRANSFER.run(cursor, batch.transfers)
    (transfers_last,) = cursor.execute(_LAST_TRANSFER).fetchone()
    sums = [
        (slot, dimensions, *_sums(group), group.first or _NO_NUMBER, group.last)
        for slot, groups in batch.slots.items()
        for dimensions, group in groups.items()
    ]
    _ADD_ROLLUP.run(cursor, sums)
    if batch.outbox:
        fact = memory.mark.fact
        cursor.execute(_INSERT_OUTBOX, (fact + 1, fact + len(batch.outbox), _encode(batch.outbox).decode(), 0))
    if batch.changed:
        _write_reservations(cursor, batch, memory)
    cursor.execute(_WRITE_META, (batch.position, batch.sequence, batch.epoch))
    return int(transfers_last)


def _booked(batch: Batch, memory: Memory, transfers_last: int) -> Booked:
    """What the chain covers of a batch."""
    records: Sequence[tuple[Any, ...]] = batch.ordinary
    if batch.charged or batch.requests:
        records = sorted([*batch.ordinary, *batch.charged, *batch.requests], key=_number_of)
    ended = [row[1] for row in batch.replaced]
    return Booked(
        records, not batch.requests, ended, batch.transfers, transfers_last, memory.new_sets, memory.new_accounts,
        batch.position, batch.sequence, batch.epoch,
    )  # fmt: skip


def _sums(group: Group) -> Sequence[int]:
    """What a group adds to its roll-up, in the order of ``SUMS``."""
    rows, rare, cached = group.rows, group.rare, group.cached
    if not rows:
        return _NO_SUMS
    usual = rows[0] if len(rows) == 1 else tuple(map(sum, zip(*rows, strict=True)))
    if not (rare or cached):
        return (len(rows), *usual, *_NOTHING_RARE)
    of_rare = map(sum, zip(*rare, strict=True)) if rare else _NO_RARE
    return (len(rows), *usual, *of_rare, *(map(sum, zip(*cached, strict=True)) if cached else _NOT_CACHED))


_NO_SUMS: Final = (0,) * len(SUMS)
_NO_RARE: Final = (0,) * len(RARE)
_NOT_CACHED: Final = (0,) * len(CACHE_SUMS)
_NOTHING_RARE: Final = (*_NO_RARE, *_NOT_CACHED)


def _write_reservations(cursor: sqlite3.Cursor, batch: Batch, memory: Memory) -> None:
    known, newest = memory.open, memory.mark.id
    ended: list[tuple[str]] = []
    marked: list[tuple[str, int, str | None, str]] = []
    grown: list[tuple[int, str, str]] = []
    begun: list[tuple[Any, ...]] = []
    ended_now: set[str] | None = None
    for id, reservation in batch.changed.items():
        if reservation is None:
            if id in known:
                ended.append((id,))
        elif id in known:
            marked.append((reservation.state, reservation.output_tokens_seen, _told(reservation.awaited), id))
            intent = reservation.intent
            if intent is not known[id].intent:
                grown.append((intent.held.usd, _encode(intent).decode(), id))
        else:
            if ended_now is None:
                ended_now = {id for _, id in batch.outbox}
            if (
                (id <= newest or id in ended_now)
                and reservation.state == DISPATCHED
                and cursor.execute(_IS_REQUEST, (id,)).fetchone()
            ):
                raise RepeatedId(id)
            begun.append(_reservation_values(reservation))
    _END_RESERVATION.run(cursor, ended)
    cursor.executemany(_MARK_RESERVATION, marked)
    cursor.executemany(_GROW_RESERVATION, grown)
    _INSERT_RESERVATION.run(cursor, begun)


def _remembered(kept: dict[Key, Value], key: Key, value: Value) -> Value:
    if len(kept) >= REMEMBERED_MAX:
        kept.clear()
    kept[key] = value
    return value


def _number(cursor: sqlite3.Cursor, find: str, add: str, values: tuple[str, ...], added: list[tuple[Any, ...]]) -> int:
    row = cursor.execute(find, values).fetchone()
    if row is None:
        number = cursor.execute(add, values).lastrowid
        assert number is not None
        added.append((number, *values))
        return number
    return int(row[0])


#: Events whose id may have ended before.
_NAMING: Final = (Intended, Settled, Refused, Recalled)


def _ended(cursor: sqlite3.Cursor, records: Iterable[JournalRecord]) -> dict[str, Ended]:
    """Those of the records' ids that have ended before, an exchange that is still unknown not among them."""
    records = list(records)
    ids = {record.event.id for record in records if isinstance(record.event, _NAMING)}
    turned = (record.event.left for record in records if isinstance(record.event, Redirected))
    ids |= {left.id for left in turned if left is not None}
    ended = {}
    for id in ids:
        record = cursor.execute(_FIND_REQUEST, (id,)).fetchone()
        if cursor.execute(_IS_LATE, (id,)).fetchone() or (record and record[0] == "refused"):
            ended[id] = Ended(State.SETTLED_LATE)
        elif record and record[0] not in _NOT_ENDED:
            _, provider, credited = record
            ended[id] = Ended(State.SETTLED, provider, credited)
    return ended


def _reservation_values(reservation: Reservation) -> tuple[Any, ...]:
    intent = reservation.intent
    return (
        intent.id,
        reservation.epoch,
        reservation.state,
        intent.held.usd,
        reservation.output_tokens_seen,
        _encode(intent).decode(),
        _told(reservation.awaited),
    )


def _told(awaited: Awaited) -> str | None:
    return _encode(awaited).decode() if awaited.object_id else None


def stored_reservations(cursor: sqlite3.Cursor) -> list[Reservation]:
    """All reservations in the file."""
    return [
        Reservation(_decode_intent(intent), epoch, state, seen, _decode_awaited(told) if told else NOT_AWAITED)
        for intent, epoch, state, seen, told in cursor.execute(_READ_RESERVATIONS)
    ]
