"""The questions that the books answer, as statements built from the tables: no text of a caller becomes SQL.

Sums come from the roll-ups where their dimensions and the edges of the time span allow it, else from the request
records, which gives the same numbers more slowly. Open and unknown exchanges are in neither: whoever asks about
limits has them from the reservations.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Select, Table, and_, func, literal, select

from faregate.core.attribution import TAG_PREFIX
from faregate.errors import UsageError
from faregate.storage.schema import (
    LEAVES,
    REQUEST_DIMENSIONS,
    ROLLUP_DIMENSIONS,
    SLOT_NANOS,
    SUMS,
    requests,
    rollup_dimensions,
    rollups,
)

#: Statuses of records that posted nothing and are in no sum.
UNCOUNTED: Final = ("refused", "unknown")

#: Names that group by time, and the length of their buckets, which begin at midnight UTC.
BUCKETS: Final = {"quarter_hour": SLOT_NANOS, "hour": 4 * SLOT_NANOS, "day": 96 * SLOT_NANOS}

#: Request records that one call may list.
LISTING_MAX: Final = 10_000

_INPUT: Final = tuple(leaf for leaf in LEAVES if leaf.startswith("input"))
_OUTPUT: Final = tuple(leaf for leaf in LEAVES if leaf.startswith("output"))

#: Unit of a limit → the summed columns whose sum it counts. A unit that is not here has nothing posted.
UNIT_SUMS: Final[Mapping[str, tuple[str, ...]]] = {
    "usd": ("charge",),
    "tokens": LEAVES,
    "input_tokens": _INPUT,
    "output_tokens": _OUTPUT,
    "requests": ("requests",),
}

#: Looks up one tag of a request record; how depends on the engine.
TagOf = Callable[[str], ColumnElement[str]]


class Source:
    """Where sums come from: the columns of the dimensions, the time, and what is summed."""

    def __init__(self, table: FromClause, at: ColumnElement[int], sums: Mapping[str, ColumnElement[int]]) -> None:
        self.table = table
        self.at = at
        self.sums = sums


_ROLLUPS: Final = Source(
    rollups.join(rollup_dimensions, rollups.c.dimensions == rollup_dimensions.c.id),
    rollups.c.slot,
    {name: func.sum(rollups.c[name]) for name in SUMS},
)

_REQUESTS: Final = Source(
    requests,
    requests.c.created_at,
    {name: func.count() if name == "requests" else func.sum(requests.c[name]) for name in SUMS},
)


def aligned(*times: int) -> bool:
    """Whether all times are edges of roll-up slots."""
    return all(time % SLOT_NANOS == 0 for time in times)


def _source(names: Iterable[str], *times: int) -> Source:
    return _ROLLUPS if aligned(*times) and set(names) <= set(ROLLUP_DIMENSIONS) else _REQUESTS


def _column(source: Source, name: str, tag_of: TagOf) -> ColumnElement[Any]:
    if name.startswith(TAG_PREFIX):
        return tag_of(name[len(TAG_PREFIX) :])
    if name not in REQUEST_DIMENSIONS:
        raise UsageError(f"unknown dimension {name!r}", hint=f"use {', '.join(REQUEST_DIMENSIONS)} or tag.NAME")
    return (rollup_dimensions if source is _ROLLUPS else requests).c[name]


def _matches(column: ColumnElement[Any], value: object) -> ColumnElement[bool]:
    """Equality with a value, or with any of a list of them."""
    if isinstance(value, list | tuple | set | frozenset):
        return column.in_(list(value))
    return column == value


def _counted(source: Source) -> list[ColumnElement[bool]]:
    return [requests.c.status.not_in(UNCOUNTED)] if source is _REQUESTS else []


def balances(selector: Mapping[str, str], each: Sequence[str], unit: str, since: int, tag_of: TagOf) -> Select[Any]:
    """Rows of the values of ``each``, in order, and what was posted for them since ``since``."""
    source = _source((*selector, *each), since)
    subject = [_column(source, name, tag_of).label(f"each_{index}") for index, name in enumerate(each)]
    posted: ColumnElement[int] = literal(0)
    for name in UNIT_SUMS.get(unit, ()):
        posted = posted + source.sums[name]
    chosen = [_matches(_column(source, name, tag_of), value) for name, value in sorted(selector.items())]
    statement = select(*subject, posted.label("posted"), source.sums["requests"].label("counted"))
    statement = statement.select_from(source.table).where(and_(source.at >= since, *_counted(source), *chosen))
    return statement.group_by(*subject) if subject else statement


def usage(
    by: Sequence[str], since: int, until: int, filters: Mapping[str, object], tag_of: TagOf
) -> tuple[Select[Any], list[str]]:
    """Sums grouped by dimensions, tags and at most one bucket of time, and the names of the columns.

    ``until`` 0 leaves the end open.

    Raises:
        UsageError: a name that is neither a dimension, ``tag.NAME`` nor a bucket.
    """
    dimensions = [name for name in by if name not in BUCKETS]
    source = _source((*dimensions, *filters), since, until)
    grouped = [
        (source.at - source.at % BUCKETS[name]) if name in BUCKETS else _column(source, name, tag_of) for name in by
    ]
    columns = [column.label(f"by_{index}") for index, column in enumerate(grouped)]
    chosen = [_matches(_column(source, name, tag_of), value) for name, value in sorted(filters.items())]
    span = [source.at >= since] + ([source.at < until] if until else [])
    statement = select(*columns, *(source.sums[name].label(name) for name in SUMS)).select_from(source.table)
    statement = statement.where(and_(*span, *_counted(source), *chosen))
    statement = statement.having(source.sums["requests"] > 0)
    if columns:
        statement = statement.group_by(*columns).order_by(*columns)
    return statement, [*by, *SUMS]


def totals_of(row: dict[str, Any]) -> dict[str, Any]:
    """A usage row with the totals that providers report, beside their leaves."""
    row["input_tokens"] = sum(row[name] for name in _INPUT)
    row["output_tokens"] = sum(row[name] for name in _OUTPUT)
    return row


def listing(table: Table, after: str, limit: int, equal: Mapping[str, object]) -> Select[Any]:
    """Rows of a resource in the order of their ids.

    Raises:
        UsageError: a filter that is not a column.
    """
    statement = select(table).where(table.c.id > after) if after else select(table)
    for name, value in equal.items():
        statement = statement.where(_matches(_filter_column(table, name), value))
    return statement.order_by(table.c.id).limit(limit)


def request_list(
    after: str, limit: int, newest_first: bool, filters: Mapping[str, object], tag_of: TagOf
) -> Select[Any]:
    """Request records in the order of their ids, which is that of their making.

    Raises:
        UsageError: a filter that is neither a column, ``since``, ``until`` nor ``tag.NAME``.
    """
    statement = select(requests)
    for name, value in filters.items():
        if name == "since":
            statement = statement.where(requests.c.created_at >= value)
        elif name == "until":
            statement = statement.where(requests.c.created_at < value)
        elif name.startswith(TAG_PREFIX):
            statement = statement.where(_matches(tag_of(name[len(TAG_PREFIX) :]), value))
        else:
            statement = statement.where(_matches(_filter_column(requests, name), value))
    if after:
        statement = statement.where(requests.c.id < after if newest_first else requests.c.id > after)
    order = requests.c.id.desc() if newest_first else requests.c.id
    return statement.order_by(order).limit(min(limit, LISTING_MAX))


def _filter_column(table: Table, name: str) -> ColumnElement[Any]:
    if name not in table.c:
        raise UsageError(
            f"unknown filter {name!r}", hint=f"{table.name} can be filtered by {', '.join(table.c.keys())}"
        )
    return table.c[name]
