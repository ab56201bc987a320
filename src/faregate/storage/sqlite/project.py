"""Writes a folded batch into the file: one transaction, the driver's ``executemany``, SQL compiled once.

It owns what the writer remembers between batches (open reservations, numbers of accounts and of dimension sets),
which is dropped whenever a transaction fails and read again from the file, so that it is never wrong.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ClauseElement, Table, bindparam, delete, insert, literal_column, select, update
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from faregate.core.ledger.events import Intended, Refused, Settled
from faregate.core.ledger.reservations import State
from faregate.errors import JournalCorrupt
from faregate.ports import JournalRecord
from faregate.storage.fold import UNKNOWN, Batch, Before, Ended, RepeatedId, Reservation, fold
from faregate.storage.rows import TOLD_WHEN_LOST
from faregate.storage.schema import (
    SUMS,
    accounts,
    meta,
    outbox,
    postings,
    requests,
    reservations,
    rollup_dimensions,
    rollups,
)

#: Accounts and dimension sets whose numbers are remembered. End users make sets of their own, so this is a bound.
REMEMBERED_MAX: Final = 100_000

_encode = msgspec.json.Encoder().encode
_decode_intent = msgspec.json.Decoder(Intended).decode


def _sql(statement: ClauseElement) -> str:
    """The statement's text in SQLite's words, with ``?`` for its parameters in order."""
    return str(statement.compile(dialect=sqlite_dialect.dialect(paramstyle="qmark")))


def _insert(table: Table, *, without: str = "") -> str:
    names = [column.name for column in table.c if column.name != without and column.computed is None]
    return _sql(insert(table).values({name: bindparam(name) for name in names}))


def _add_rollups() -> str:
    statement = sqlite_insert(rollups).values({column.name: bindparam(column.name) for column in rollups.c})
    added = {name: rollups.c[name] + statement.excluded[name] for name in SUMS}
    return _sql(statement.on_conflict_do_update(index_elements=["slot", "dimensions"], set_=added))


def _resolve_request() -> str:
    names = [column.name for column in requests.c if column.computed is None]
    statement = sqlite_insert(requests).values({name: bindparam(name) for name in names})
    changed = {name: statement.excluded[name] for name in names if name not in ("id", *TOLD_WHEN_LOST)}
    return _sql(statement.on_conflict_do_update(index_elements=["id"], set_=changed))


_INSERT_REQUEST: Final = _insert(requests)
_RESOLVE_REQUEST: Final = _resolve_request()
_INSERT_POSTING: Final = _insert(postings, without="sequence")
_INSERT_OUTBOX: Final = _insert(outbox, without="sequence")
_ADD_ROLLUP: Final = _add_rollups()
_PUT_RESERVATION: Final = _insert(reservations).replace("INSERT", "INSERT OR REPLACE", 1)
_END_RESERVATION: Final = _sql(delete(reservations).where(reservations.c.id == bindparam("id")))
_FIND_REQUEST: Final = _sql(
    select(requests.c.id, requests.c.status, requests.c.provider).where(requests.c.id == bindparam("id"))
)
_FIND_EVIDENCE_ONLY: Final = _sql(
    select(postings.c.request_id)
    .where(postings.c.kind == literal_column("'late'"))
    .where(~select(requests.c.id).where(requests.c.id == postings.c.request_id).exists())
)
_FIND_POSTINGS: Final = _sql(select(postings.c.kind, postings.c.amount).where(postings.c.request_id == bindparam("id")))
_FIND_ACCOUNT: Final = _sql(select(accounts.c.id).where(accounts.c.name == bindparam("name")))
_ADD_ACCOUNT: Final = _sql(insert(accounts).values(name=bindparam("name")))
_FIND_DIMENSIONS: Final = _sql(
    select(rollup_dimensions.c.id).where(
        *(column == bindparam(column.name) for column in rollup_dimensions.c if column.name != "id")
    )
)
_ADD_DIMENSIONS: Final = _insert(rollup_dimensions, without="id")
_READ_META: Final = _sql(select(meta.c.position, meta.c.sequence, meta.c.epoch))
_WRITE_META: Final = _sql(update(meta).values(position=bindparam("p"), sequence=bindparam("s"), epoch=bindparam("e")))
_READ_RESERVATIONS: Final = _sql(
    select(
        reservations.c.intent,
        reservations.c.epoch,
        reservations.c.state,
        reservations.c.output_tokens_seen,
    )
)


class Projection:
    """The writer's half of ``project``, on a connection inside its transaction."""

    def __init__(self) -> None:
        self._open: dict[str, Reservation] | None = None
        self._evidence_only: frozenset[str] = frozenset()
        self._accounts: dict[str, int] = {}
        self._dimensions: dict[tuple[str, ...], int] = {}

    def forget(self) -> None:
        """Drop what is remembered: a transaction failed."""
        self._open = None
        self._accounts.clear()
        self._dimensions.clear()

    def apply(self, connection: sqlite3.Connection, records: Sequence[JournalRecord], *, repeated: bool) -> Batch:
        """Write what ``records`` add. With ``repeated`` the ids that have ended before are looked up first.

        Raises:
            RepeatedId: an id has a record already; roll back and try again with ``repeated``.
            JournalCorrupt: the records do not go on where the books end.
        """
        cursor = connection.cursor()
        position, sequence, epoch = cursor.execute(_READ_META).fetchone()
        batch = Batch(position, sequence, epoch)
        fresh = [record for record in records if record.position > position]
        if not fresh:
            return batch
        if sequence and fresh[0].sequence and fresh[0].sequence != sequence + 1:
            raise JournalCorrupt(
                f"the books end with record {sequence} and the journal goes on with record {fresh[0].sequence}"
            )
        ended = _ended(cursor, fresh) if repeated else None
        known = self._known(cursor)
        fold(fresh, Before(known, self._evidence_only, ended), batch)
        self._write(cursor, batch, known)
        cursor.close()
        return batch

    def committed(self, batch: Batch) -> None:
        """Remember what the committed batch left open."""
        known = self._open
        if known is None:
            return
        if any(kind == "late" for kind, _ in batch.outbox):
            # Evidence without an exchange leaves no record to be found by; read again what there is.
            self._open = None
            return
        for id, reservation in batch.changed.items():
            if reservation is None:
                known.pop(id, None)
            else:
                known[id] = reservation

    def _known(self, cursor: sqlite3.Cursor) -> dict[str, Reservation]:
        if self._open is None:
            self._open = {reservation.intent.id: reservation for reservation in stored_reservations(cursor)}
            self._evidence_only = frozenset(row[0] for row in cursor.execute(_FIND_EVIDENCE_ONLY))
        return self._open

    def _write(self, cursor: sqlite3.Cursor, batch: Batch, known: dict[str, Reservation]) -> None:
        try:
            cursor.executemany(_INSERT_REQUEST, batch.requests)
        except sqlite3.IntegrityError as problem:
            raise RepeatedId from problem
        if batch.replaced:
            cursor.executemany(_RESOLVE_REQUEST, batch.replaced)
        account = self._account
        cursor.executemany(
            _INSERT_POSTING,
            [(id, kind, account(cursor, name), amount, at) for id, kind, name, amount, at in batch.postings],
        )
        dimensions = self._dimension_set
        cursor.executemany(
            _ADD_ROLLUP,
            [(key[0], dimensions(cursor, key[1:]), *group.sums) for key, group in batch.groups.items()],
        )
        cursor.executemany(_INSERT_OUTBOX, [(kind, id, 0) for kind, id in batch.outbox])
        self._write_reservations(cursor, batch, known)
        cursor.execute(_WRITE_META, (batch.position, batch.sequence, batch.epoch))

    def _write_reservations(self, cursor: sqlite3.Cursor, batch: Batch, known: dict[str, Reservation]) -> None:
        ended: list[tuple[str]] = []
        put: list[tuple[Any, ...]] = []
        for id, reservation in batch.changed.items():
            if reservation is None:
                if id in known:
                    ended.append((id,))
                continue
            if (
                id not in known
                and reservation.state == "dispatched"
                and cursor.execute(_FIND_REQUEST, (id,)).fetchone()
            ):
                raise RepeatedId(id)
            put.append(_reservation_values(reservation))
        cursor.executemany(_END_RESERVATION, ended)
        cursor.executemany(_PUT_RESERVATION, put)

    def _account(self, cursor: sqlite3.Cursor, name: str) -> int:
        number = self._accounts.get(name)
        if number is None:
            number = _number(cursor, _FIND_ACCOUNT, _ADD_ACCOUNT, (name,))
            if len(self._accounts) >= REMEMBERED_MAX:
                self._accounts.clear()
            self._accounts[name] = number
        return number

    def _dimension_set(self, cursor: sqlite3.Cursor, names: tuple[str, ...]) -> int:
        number = self._dimensions.get(names)
        if number is None:
            number = _number(cursor, _FIND_DIMENSIONS, _ADD_DIMENSIONS, names)
            if len(self._dimensions) >= REMEMBERED_MAX:
                self._dimensions.clear()
            self._dimensions[names] = number
        return number


def _number(cursor: sqlite3.Cursor, find: str, add: str, values: tuple[str, ...]) -> int:
    row = cursor.execute(find, values).fetchone()
    if row is None:
        number = cursor.execute(add, values).lastrowid
        assert number is not None
        return number
    return int(row[0])


def _ended(cursor: sqlite3.Cursor, records: Iterable[JournalRecord]) -> dict[str, Ended]:
    """Those of the records' ids that have ended before, an exchange that is still unknown not among them."""
    ids = {record.event.id for record in records if isinstance(record.event, Intended | Settled | Refused)}
    ended = {}
    for id in ids:
        record = cursor.execute(_FIND_REQUEST, (id,)).fetchone()
        posted = cursor.execute(_FIND_POSTINGS, (id,)).fetchall()
        if any(kind == "late" for kind, _ in posted) or (record and record[1] == "refused"):
            ended[id] = Ended(State.SETTLED_LATE)
        elif record and record[1] != UNKNOWN:
            # Of the two postings of a charge the credit is the provider's.
            charged = -sum(amount for kind, amount in posted if kind == "charge" and amount < 0)
            ended[id] = Ended(State.SETTLED, record[2], charged)
    return ended


def _reservation_values(reservation: Reservation) -> tuple[Any, ...]:
    intent = reservation.intent
    return (
        intent.id,
        reservation.epoch,
        reservation.state,
        intent.admitted_at,
        intent.at,
        intent.held.usd,
        reservation.output_tokens_seen,
        _encode(intent).decode(),
    )


def stored_reservations(cursor: sqlite3.Cursor) -> list[Reservation]:
    """All reservations in the file."""
    return [
        Reservation(_decode_intent(intent), epoch, state, seen)
        for intent, epoch, state, seen in cursor.execute(_READ_RESERVATIONS)
    ]
