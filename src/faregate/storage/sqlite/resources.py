"""Keys, limits, prices and payers: rows that people make, each write with a line in the change feed."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, CursorResult, bindparam, delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from faregate.ports import Row
from faregate.storage.queries import column_named
from faregate.storage.rows import complete, table_of
from faregate.storage.schema import Json, changes
from faregate.storage.sqlite.chain import RESOURCE_FACTS

_decode = msgspec.json.Decoder().decode


def put(connection: Connection, kind: str, row: Row, now: int) -> int:
    """Insert or replace one row; returns the sequence number of the change."""
    full = complete(kind, row, get(connection, kind, row.get("id", "")), now)
    connection.execute(_upsert(kind), full)
    return _changed(connection, kind, full["id"], now)


def put_all(connection: Connection, kind: str, rows: Sequence[Row], now: int) -> None:
    """Insert or replace rows, in few statements: a price file may have twenty thousand."""
    existing = get_all(connection, kind, [row["id"] for row in rows if row.get("id")])
    full = [complete(kind, row, existing.get(row.get("id", "")), now) for row in rows]
    if full:
        connection.execute(_upsert(kind), full)
        ids = [row["id"] for row in full]
        left = _digests(connection, kind, ids)
        connection.execute(_CHANGE, [{"k": kind, "i": id, "a": now, "d": left[id]} for id in ids])


@cache
def _upsert(kind: str) -> Any:
    """The statement that writes whole rows; to make it costs more than to run it."""
    statement = sqlite_insert(table_of(kind))
    columns = [column.name for column in table_of(kind).c if column.name != "id"]
    return statement.on_conflict_do_update(
        index_elements=["id"], set_={name: statement.excluded[name] for name in columns}
    )


def get(connection: Connection, kind: str, id: str) -> Row | None:
    """One row of a kind."""
    table = table_of(kind)
    found = connection.execute(select(table).where(table.c.id == id)).mappings().first()
    return dict(found) if found is not None else None


def rows_of(kind: str, result: CursorResult[Any]) -> list[Row]:
    """The rows of a statement on the whole table of a kind.

    They are taken from the driver: a start reads hundreds of thousands, and SQLAlchemy's own way takes twice as long.
    """
    names, documents = _layout(kind)
    found: list[Row] = [dict(zip(names, values, strict=True)) for values in values_of(result)]
    for row in found:
        for name in documents:
            if row[name] is not None:
                row[name] = _decode(row[name])
    return found


def columns(connection: Connection, kind: str, names: Sequence[str], after: str, limit: int) -> list[Sequence[Any]]:
    """The values of some columns of a kind, column by column, in the order of the rows' ids."""
    columns = [column_named(table_of(kind), name) for name in names]
    statement = select(*columns).where(table_of(kind).c.id > after).order_by(table_of(kind).c.id).limit(limit)
    found = list(zip(*values_of(connection.execute(statement)), strict=True)) or [()] * len(columns)
    return [
        [None if text is None else _decode(text) for text in values] if isinstance(column.type, Json) else values
        for column, values in zip(columns, found, strict=True)
    ]


def values_of(result: CursorResult[Any]) -> Iterable[tuple[Any, ...]]:
    """The rows of a statement as the driver has them: for very many rows, and only where no column is JSON."""
    cursor = result.cursor
    assert cursor is not None
    found: Iterable[tuple[Any, ...]] = cursor.fetchall()
    return found


@cache
def _layout(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of a kind in their order, and those that hold JSON."""
    columns = table_of(kind).c
    return tuple(columns.keys()), tuple(column.name for column in columns if isinstance(column.type, Json))


def get_all(connection: Connection, kind: str, ids: Sequence[str]) -> dict[str, Row]:
    """Those rows of a kind that there are, by their ids."""
    table = table_of(kind)
    found: dict[str, Row] = {}
    for some in _chunks(ids):
        for row in connection.execute(select(table).where(table.c.id.in_(some))).mappings():
            found[row["id"]] = dict(row)
    return found


def remove(connection: Connection, kind: str, id: str, now: int) -> bool:
    """Remove one row; false where there was none."""
    table = table_of(kind)
    if connection.execute(delete(table).where(table.c.id == id)).rowcount == 0:
        return False
    _changed(connection, kind, id, now)
    return True


def newest_change(connection: Connection) -> int:
    """The sequence number of the newest line of the change feed, 0 without one."""
    return int(connection.execute(select(func.coalesce(func.max(changes.c.sequence), 0))).scalar_one())


def changes_after(connection: Connection, after: int, limit: int) -> list[tuple[int, str, str]]:
    """Lines of the change feed after a sequence number, oldest first."""
    statement = select(changes.c.sequence, changes.c.kind, changes.c.id).where(changes.c.sequence > after)
    return [(row[0], row[1], row[2]) for row in connection.execute(statement.order_by(changes.c.sequence).limit(limit))]


#: SQLite takes 32,766 variables in a statement; far fewer make none slow.
_IDS_MAX: Final = 500

_CHANGE: Final = insert(changes).values(
    kind=bindparam("k"), id=bindparam("i"), at=bindparam("a"), digest=bindparam("d")
)


def _digests(connection: Connection, kind: str, ids: Sequence[str]) -> dict[str, str]:
    """Id → the digest of the row as it stands in the file, for those that there are."""
    facts = RESOURCE_FACTS[kind]
    found: dict[str, str] = {}
    for some in _chunks(ids):
        statement = f"{facts.select} WHERE id IN ({', '.join('?' * len(some))})"
        for row in values_of(connection.exec_driver_sql(statement, tuple(some))):
            found[row[facts.key_at]] = facts.digest(row)
    return found


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + _IDS_MAX] for at in range(0, len(ids), _IDS_MAX))


def _changed(connection: Connection, kind: str, id: str, now: int) -> int:
    left = _digests(connection, kind, [id]).get(id, "")
    result = connection.execute(_CHANGE, {"k": kind, "i": id, "a": now, "d": left})
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])
