"""Keys, limits, prices and payers: rows that people make, each write with a line in the change feed."""

from sqlalchemy import Connection, bindparam, delete, insert, select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from faregate.ports import Row
from faregate.storage.rows import complete, table_of
from faregate.storage.schema import changes


def put(connection: Connection, kind: str, row: Row, now: int) -> int:
    """Insert or replace one row; returns the sequence number of the change."""
    table = table_of(kind)
    existing = get(connection, kind, row.get("id", ""))
    full = complete(kind, row, existing, now)
    statement = sqlite_insert(table).values(full)
    statement = statement.on_conflict_do_update(
        index_elements=["id"], set_={name: statement.excluded[name] for name in full if name != "id"}
    )
    connection.execute(statement)
    return _changed(connection, kind, full["id"], now)


def get(connection: Connection, kind: str, id: str) -> Row | None:
    """One row of a kind."""
    table = table_of(kind)
    found = connection.execute(select(table).where(table.c.id == id)).mappings().first()
    return dict(found) if found is not None else None


def remove(connection: Connection, kind: str, id: str, now: int) -> bool:
    """Remove one row; false where there was none."""
    table = table_of(kind)
    if connection.execute(delete(table).where(table.c.id == id)).rowcount == 0:
        return False
    _changed(connection, kind, id, now)
    return True


def changes_after(connection: Connection, after: int, limit: int) -> list[tuple[int, str, str]]:
    """Lines of the change feed after a sequence number, oldest first."""
    statement = select(changes.c.sequence, changes.c.kind, changes.c.id).where(changes.c.sequence > after)
    return [(row[0], row[1], row[2]) for row in connection.execute(statement.order_by(changes.c.sequence).limit(limit))]


def _changed(connection: Connection, kind: str, id: str, now: int) -> int:
    result = connection.execute(
        insert(changes).values(kind=bindparam("k"), id=bindparam("i"), at=bindparam("a")),
        {"k": kind, "i": id, "a": now},
    )
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])
