"""Rows as the books take and give them: the columns of the tables, with what is stored compactly spelled out."""

from typing import Any

import msgspec
from sqlalchemy import Table

from faregate.core.ledger.events import Attempt
from faregate.core.usage import Measure
from faregate.errors import UsageError
from faregate.ports import Row
from faregate.storage.schema import RESOURCES

#: How an unknown exchange went for its caller was told when it was lost; its resolution says what it used and cost.
TOLD_WHEN_LOST = ("http_status", "code", "latency_us", "first_token_us", "attempts")

_measures = msgspec.json.Decoder(tuple[Measure, ...]).decode


def request_row(row: Row) -> Row:
    """A request record with its tags, attempts and other units as plain values."""
    row["tags"] = row["tags"] or {}
    only_us = row.pop("attempt_us")
    if only_us:
        attempts: list[Any] = [Attempt(row["deployment"], row["http_status"], row["code"], only_us)]
    else:
        attempts = row["attempts"] or []
    row["attempts"] = [dict(zip(Attempt._fields, attempt, strict=False)) for attempt in attempts]
    return with_measures(row)


def with_measures(row: Row) -> Row:
    """A row with its other units as plain values."""
    row["other_units"] = _measures(row["other_units"]) if row["other_units"] else ()
    return row


def postings_of(transfer: Row) -> tuple[Row, Row]:
    """The two postings of a transfer, numbered as if they had been written one by one."""
    told = {name: transfer[name] for name in ("request_id", "kind", "at")}
    last, amount = 2 * transfer["sequence"], transfer["amount"]
    return (
        {"sequence": last - 1, **told, "account": transfer["debited"], "amount": amount},
        {"sequence": last, **told, "account": transfer["credited"], "amount": -amount},
    )


def table_of(kind: str) -> Table:
    """The table of a resource kind.

    Raises:
        UsageError: there is no such kind.
    """
    table = RESOURCES.get(kind)
    if table is None:
        raise UsageError(f"unknown kind {kind!r}", hint=f"use one of {', '.join(RESOURCES)}")
    return table


def complete(kind: str, row: Row, existing: Row | None, now: int) -> Row:
    """``row`` with every column of its kind: what it does not name gets the column's default.

    Raises:
        UsageError: it has no id, or names something that is not a column.
    """
    table = table_of(kind)
    if not row.get("id"):
        raise UsageError(f"a {kind} needs an id")
    strange = sorted(set(row) - set(table.c.keys()))
    if strange:
        raise UsageError(f"a {kind} has no {', '.join(strange)}", hint=f"it has {', '.join(table.c.keys())}")
    full = {column.name: row[column.name] if column.name in row else default_of(column) for column in table.c}
    if "created_at" not in row:
        full["created_at"] = existing["created_at"] if existing else now
    if "updated_at" not in row:
        full["updated_at"] = now
    return full


def default_of(column: Any) -> Any:
    """The value of a column that a row does not name."""
    if column.nullable or column.server_default is None:
        return None
    text = column.server_default.arg
    return int(text) if column.type.python_type is int else text
