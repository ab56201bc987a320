"""The questions that the books answer, as statements built from the tables: no text of a caller becomes SQL.

Sums come from the roll-ups where their dimensions and the edges of the time span allow it, else from the request
records, which gives the same numbers more slowly. Open and unknown exchanges are in neither: whoever asks about
limits has them from the reservations.

Request records have no index on time or dimensions, which every call would pay for. The roll-ups name the range of
numbers that the records of a slot and a set of dimensions lie in, and that is where these are looked for.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Table,
    Text,
    and_,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
)

from faregate.core.attribution import EVENT_ID, TAG_PREFIX
from faregate.core.slots import SLOT_NANOS
from faregate.errors import UsageError
from faregate.storage.schema import (
    CACHE_WORDS,
    EVENT_OF,
    EVENTS_KNOWN,
    LEAVES,
    RARE,
    REQUEST_DIMENSIONS,
    SET_DIMENSIONS,
    SUMS,
    dimension_sets,
    requests,
    rollups,
)

#: Statuses of records that posted nothing and are in no sum.
UNCOUNTED: Final = ("refused", "unknown", "pending")

#: Names that group by time, and the length of their buckets, which begin at midnight UTC.
BUCKETS: Final = {"quarter_hour": SLOT_NANOS, "hour": 4 * SLOT_NANOS, "day": 96 * SLOT_NANOS}

#: What may be said of a list of records beside the columns that it is filtered by.
_NO_COLUMNS: Final = ("since", "until", "booked_after", "sort", "within_ms")

#: Request records that one call may list.
LISTING_MAX: Final = 10_000

_INPUT: Final = tuple(name for name in (*LEAVES, *RARE) if name.startswith("input"))
_OUTPUT: Final = tuple(name for name in (*LEAVES, *RARE) if name.startswith("output"))

#: Unit of a limit → the summed columns whose sum it counts. A unit that is not here has nothing posted.
UNIT_SUMS: Final[Mapping[str, tuple[str, ...]]] = {
    "usd": ("charge",),
    "tokens": (*_INPUT, *_OUTPUT),
    "input_tokens": _INPUT,
    "output_tokens": _OUTPUT,
    "requests": ("requests",),
    "images": ("images",),
    "seconds": ("seconds",),
    "characters": ("characters",),
}

#: Looks up one tag of a request record; how depends on the engine.
TagOf = Callable[[str], ColumnElement[str]]


#: Records that lie among so many at most are all looked at; among more, whichever comes first is taken.
LOOKED_AT_MAX: Final = 100_000

#: Where a record finds the names of its dimensions. It is an outer join so that no planner begins with the sets.
_RECORDS: Final = requests.join(dimension_sets, requests.c.dimensions == dimension_sets.c.id, isouter=True)

_PLAIN_ID: Final = literal_column("+requests.id", Text)
_PLAIN_NUMBER: Final = literal_column("+requests.number", BigInteger)

#: What a request record tells, by name.
RECORD: Final[Mapping[str, ColumnElement[Any]]] = {
    **{column.name: column for column in requests.c if column.name not in ("number", "dimensions", "attempt_us")},
    **{name: dimension_sets.c[name] for name in SET_DIMENSIONS},
}


class Source:
    """Where sums come from: the columns of the dimensions, the time, and what is summed."""

    def __init__(self, table: FromClause, at: ColumnElement[int], sums: Mapping[str, ColumnElement[int]]) -> None:
        self._table = table
        self.at = at
        self.sums = sums

    def table_for(self, names: Iterable[str]) -> FromClause:
        """The table, with the names of dimensions only where one of ``names`` is told."""
        return requests if self is REQUESTS and not set(SET_DIMENSIONS) & set(names) else self._table


ROLLUPS: Final = Source(
    rollups.join(dimension_sets, rollups.c.dimensions == dimension_sets.c.id),
    rollups.c.slot,
    {name: func.sum(rollups.c[name]) for name in SUMS},
)


def _summed(name: str) -> ColumnElement[int]:
    """One of ``SUMS`` over request records."""
    if name == "requests":
        return func.count()
    if name in CACHE_WORDS:
        return func.sum(case((requests.c.cache == CACHE_WORDS[name], 1), else_=0))
    return func.sum(requests.c[name])


REQUESTS: Final = Source(_RECORDS, requests.c.created_at, {name: _summed(name) for name in SUMS})


#: Whatever roll-ups can be told apart by.
_ROLLED_UP: Final = frozenset(SET_DIMENSIONS)


def aligned(*times: int) -> bool:
    """Whether all times are edges of roll-up slots."""
    return all(time % SLOT_NANOS == 0 for time in times)


def source_of(names: Iterable[str], *times: int) -> Source:
    """Where the sums of a span by these dimensions can be read: the roll-ups wherever they tell it."""
    return ROLLUPS if aligned(*times) and _ROLLED_UP.issuperset(names) else REQUESTS


def column_of(name: str, tag_of: TagOf) -> ColumnElement[Any]:
    """The column of a dimension or tag.

    Raises:
        UsageError: it is neither.
    """
    if name.startswith(TAG_PREFIX):
        return tag_of(name[len(TAG_PREFIX) :])
    if name not in REQUEST_DIMENSIONS:
        raise UsageError(f"unknown dimension {name!r}", hint=f"use {', '.join(REQUEST_DIMENSIONS)} or tag.NAME")
    return RECORD[name]


def _matches(column: ColumnElement[Any], value: object) -> ColumnElement[bool]:
    """Equality with a value, or with any of a list of them."""
    if isinstance(value, list | tuple | set | frozenset):
        return column.in_(list(value))
    return column == value


def sets_with(filters: Mapping[str, object]) -> Select[Any] | None:
    """The numbers of the sets that have the dimensions asked for; ``None`` where none is."""
    chosen = [_matches(dimension_sets.c[name], value) for name, value in filters.items() if name in SET_DIMENSIONS]
    return select(dimension_sets.c.id).where(*chosen) if chosen else None


def _roll_ups(since: int, until: int, filters: Mapping[str, object]) -> list[ColumnElement[bool]]:
    """The conditions of roll-ups that may count, or know of, records of a time and of dimensions."""
    found = []
    if since:
        found.append(rollups.c.slot >= since - since % SLOT_NANOS)
    if until:
        found.append(rollups.c.slot < until)
    if (sets := sets_with(filters)) is not None:
        found.append(rollups.c.dimensions.in_(sets))
    return found


def numbers(since: int, until: int, filters: Mapping[str, object]) -> list[ColumnElement[bool]]:
    """Conditions on the numbers of records of a time and of dimensions: true for all these, and for few others."""
    known = _roll_ups(since, until, filters)
    if not known:
        return []
    first, last = func.min(rollups.c.first_number), func.max(rollups.c.last_number)
    found = [
        requests.c.number >= select(first).where(*known).scalar_subquery(),
        requests.c.number <= select(last).where(*known).scalar_subquery(),
    ]
    if (sets := sets_with(filters)) is not None:
        found.append(requests.c.dimensions.in_(sets))
    return found


def span(at: ColumnElement[int], since: int, until: int) -> list[ColumnElement[bool]]:
    """The conditions of a time; 0 leaves that end open."""
    return ([at >= since] if since else []) + ([at < until] if until else [])


def chosen_by(
    source: Source, since: int, until: int, filters: Mapping[str, object], tag_of: TagOf
) -> ColumnElement[bool]:
    """What the rows of a source must meet to be counted."""
    found = [
        _matches(column_of(name, tag_of), value)
        for name, value in sorted(filters.items())
        if source is ROLLUPS or name not in SET_DIMENSIONS
    ]
    found += span(source.at, since, until)
    if source is REQUESTS:
        found += [requests.c.status.not_in(UNCOUNTED), *numbers(since, until, filters), *_in_run(filters)]
    return and_(true(), *found)


def usage(
    by: Sequence[str], since: int, until: int, filters: Mapping[str, object], tag_of: TagOf
) -> tuple[Select[Any], list[str]]:
    """Sums grouped by dimensions, tags and at most one bucket of time, and the names of the columns.

    ``until`` 0 leaves the end open.

    Raises:
        UsageError: a name that is neither a dimension, ``tag.NAME`` nor a bucket.
    """
    dimensions = [name for name in by if name not in BUCKETS]
    source = source_of((*dimensions, *filters), since, until)
    grouped = [(source.at - source.at % BUCKETS[name]) if name in BUCKETS else column_of(name, tag_of) for name in by]
    columns = [column.label(f"by_{index}") for index, column in enumerate(grouped)]
    statement = select(*columns, *(source.sums[name].label(name) for name in SUMS))
    statement = statement.select_from(source.table_for(by)).where(chosen_by(source, since, until, filters, tag_of))
    statement = statement.having(source.sums["requests"] > 0)
    if columns:
        statement = statement.group_by(*columns).order_by(*columns)
    return statement, [*by, *SUMS]


#: What ``cache_use`` tells of each group beside what it was asked to group by, and what it sums.
CACHE_USE: Final = ("cache", "price_version", "other_units", "input_length")
CACHE_USE_SUMS: Final = ("requests", "charge", "saved_cost", "input_cached", "input_cache_write")


def cache_use(
    by: Sequence[str],
    since: int,
    until: int,
    thresholds: Mapping[str, Sequence[int]],
    filters: Mapping[str, object],
    tag_of: TagOf,
) -> tuple[Select[Any], list[str]]:
    """As ``Books.cache_use``, with the names of the columns.

    Raises:
        UsageError: a name that is neither a dimension nor ``tag.NAME``.
    """
    columns = [column_of(name, tag_of).label(f"by_{index}") for index, name in enumerate(by)]
    told = [requests.c.cache, requests.c.price_version, requests.c.other_units, _length_of_tier(thresholds)]
    statement = select(*columns, *told, *(REQUESTS.sums[name].label(f"sum_of_{name}") for name in CACHE_USE_SUMS))
    used = or_(
        requests.c.cache != "",
        requests.c.input_cached > 0,
        requests.c.input_cache_write > 0,
        # Among the rarer units those are named so.
        requests.c.other_units.contains("cache"),
    )
    statement = statement.select_from(REQUESTS.table_for((*by, *filters)))
    statement = statement.where(chosen_by(REQUESTS, since, until, filters, tag_of), used)
    return statement.group_by(*columns, *told), [*by, *CACHE_USE, *CACHE_USE_SUMS]


def _length_of_tier(thresholds: Mapping[str, Sequence[int]]) -> ColumnElement[int]:
    """A number of input tokens that is in the same tier as those of a record, without the rarer kinds.

    Where a record has rarer kinds, which may make it a longer one, it is its own.
    """
    if not thresholds:
        return literal(0).label("input_length")
    length = requests.c.input_text + requests.c.input_cached + requests.c.input_cache_write + requests.c.input_audio
    plain = requests.c.other_units == ""
    cases: list[tuple[ColumnElement[bool], Any]] = [
        (and_(requests.c.price_version == version, plain, length > threshold), literal(threshold + 1))
        for version, each in sorted(thresholds.items())
        for threshold in sorted(each, reverse=True)
    ]
    own = and_(requests.c.price_version.in_(sorted(thresholds)), ~plain)
    return case(*cases, (own, length), else_=literal(0)).label("input_length")


def totals_of(row: dict[str, Any]) -> dict[str, Any]:
    """A usage row with the totals that providers report, beside their leaves."""
    row["input_tokens"] = sum(row[name] for name in _INPUT)
    row["output_tokens"] = sum(row[name] for name in _OUTPUT)
    return row


def listing(
    table: Table, after: str, limit: int, equal: Mapping[str, object], *, newest_first: bool = False
) -> Select[Any]:
    """Rows of a resource in the order of their ids, or in reverse; ``column.member`` is a member of a JSON object.

    Raises:
        UsageError: a filter that is not a column.
    """
    statement = select(table)
    if after:
        statement = statement.where(table.c.id < after if newest_first else table.c.id > after)
    for name, value in equal.items():
        statement = statement.where(_matches(_column_or_member(table, name), value))
    return statement.order_by(table.c.id.desc() if newest_first else table.c.id).limit(limit)


def _column_or_member(table: Table, name: str) -> ColumnElement[Any]:
    """The column of a table with this name, or what its objects have under ``column.member``.

    Raises:
        UsageError: there is no such column.
    """
    column, dot, member = name.partition(".")
    if not dot:
        return column_named(table, name)
    # The member is a dimension's name of ours; quoted, it is no path whatever it holds.
    return func.json_extract(column_named(table, column), f'$."{member}"', type_=Text)


#: What ``tally`` calls its numbers; no column is called so.
COUNT: Final = "rows_counted"


def tally(table: Table, by: Sequence[str]) -> Select[Any]:
    """How many rows have which values in some columns, as the column ``COUNT``.

    Raises:
        UsageError: a name that is not a column.
    """
    columns = [column_named(table, name) for name in by]
    # Without a column nothing else would say whose rows they are.
    return select(*columns, func.count().label(COUNT)).select_from(table).group_by(*columns)


def record(id: str, equal: Mapping[str, object]) -> Select[Any]:
    """One request record, if it fits these filters."""
    chosen = [_matches(record_column(name), value) for name, value in equal.items()]
    return _record_columns().select_from(_RECORDS).where(requests.c.id == id, *chosen)


class Whereabouts(NamedTuple):
    """The numbers between which the records of a time and of dimensions lie."""

    first: int
    last: int
    #: Records in the ranges of all slots and sets in question.
    among: int


def whereabouts(filters: Mapping[str, Any]) -> Select[Any] | None:
    """Where the records of ``request_list`` lie, as the columns of ``Whereabouts``; ``None`` where it is everywhere."""
    known = _roll_ups(filters.get("since", 0), filters.get("until", 0), filters)
    if not known:
        return None
    first, last = func.coalesce(func.min(rollups.c.first_number), 0), func.coalesce(func.max(rollups.c.last_number), 0)
    among = func.coalesce(func.sum(rollups.c.last_number - rollups.c.first_number + 1), 0)
    return select(first, last, among).where(*known)


def request_list(
    after: str,
    limit: int,
    newest_first: bool,
    filters: Mapping[str, Any],
    tag_of: TagOf,
    where: Whereabouts | None = None,
) -> Select[Any]:
    """Request records in the order of their ids, which is that of their making; with ``booked_after``, of booking.

    With ``sort``, the name of a column, they are in its order, the largest first where the newest would be.
    ``where`` is the answer to ``whereabouts``: it decides how they are looked for, and nothing else.

    Raises:
        UsageError: a filter that is neither a column, ``since``, ``until``, ``booked_after`` nor ``tag.NAME``.
    """
    since, until = filters.get("since", 0), filters.get("until", 0)
    chosen = span(requests.c.created_at, since, until) + _in_run(filters) + _of_event(filters)
    for name, value in filters.items():
        if name.startswith(TAG_PREFIX):
            chosen.append(_matches(tag_of(name[len(TAG_PREFIX) :]), value))
        elif name not in (*_NO_COLUMNS, *SET_DIMENSIONS):
            chosen.append(_matches(record_column(name), value))
    if "booked_after" in filters:
        return _booked_after(filters, chosen, limit, newest_first)
    sort = str(filters.get("sort", ""))
    if after:
        chosen.append(_comes_after(after, sort, newest_first))
    table: FromClause = _RECORDS
    sets = sets_with(filters)
    if sets is not None:
        chosen.append(requests.c.dimensions.in_(sets))
    # Where few records come into question they are looked up and then put in order; else the order of the ids is
    # followed until there are enough. An expression is what no index serves.
    few = bool(_in_run(filters)) or TAG_PREFIX + EVENT_ID in filters
    if where is not None and sets is not None and where.among <= LOOKED_AT_MAX:
        few = True
        table = rollups.join(_RECORDS, _lies_in_roll_up())
        chosen += _roll_ups(since, until, filters)
    elif where is not None:
        few = few or where.last - where.first < LOOKED_AT_MAX
        number = requests.c.number if few else _PLAIN_NUMBER
        chosen += [number >= where.first, number <= where.last]
    order: list[ColumnElement[Any]] = [_PLAIN_ID if few else requests.c.id]
    if sort:
        order = [record_column(sort), _PLAIN_ID]
    statement = _record_columns().select_from(table).where(*chosen)
    statement = statement.order_by(*(each.desc() if newest_first else each for each in order))
    return statement.limit(min(limit, LISTING_MAX))


def _comes_after(after: str, sort: str, newest_first: bool) -> ColumnElement[bool]:
    """The condition of what comes after a record, which itself may be corrected meanwhile and stays where it is."""
    later = requests.c.id < after if newest_first else requests.c.id > after
    if not sort:
        return later
    column = record_column(sort)
    mark = select(column).select_from(_RECORDS).where(requests.c.id == after).scalar_subquery()
    return or_(column < mark if newest_first else column > mark, and_(column == mark, later))


def _booked_after(
    filters: Mapping[str, Any], chosen: list[ColumnElement[bool]], limit: int, newest_first: bool
) -> Select[Any]:
    """Records that came into the books after the one of that id, or all where it is empty, in the order of booking."""
    if filters["booked_after"]:
        mark = select(requests.c.number).where(requests.c.id == filters["booked_after"]).scalar_subquery()
        chosen.append(requests.c.number > mark)
    if (sets := sets_with(filters)) is not None:
        chosen.append(requests.c.dimensions.in_(sets))
    statement = _record_columns().select_from(_RECORDS).where(*chosen)
    order = requests.c.number.desc() if newest_first else requests.c.number
    return statement.order_by(order).limit(min(limit, LISTING_MAX))


def _in_run(filters: Mapping[str, object]) -> list[ColumnElement[bool]]:
    """What must be said for the index of runs to be used, where a run is asked for."""
    asked = filters.get("run") or ""
    runs = asked if isinstance(asked, list) else [asked]
    return [requests.c.run != literal_column("''")] if all(isinstance(run, str) and run for run in runs) else []


def _of_event(filters: Mapping[str, object]) -> list[ColumnElement[bool]]:
    """What must be said for the index of events to be used, where one is asked for."""
    event = filters.get(TAG_PREFIX + EVENT_ID)
    return [_matches(EVENT_OF, event), EVENTS_KNOWN] if isinstance(event, str) and event else []


def record_column(name: str) -> ColumnElement[Any]:
    """What a request record tells under a name.

    Raises:
        UsageError: there is no such name.
    """
    if name not in RECORD:
        raise UsageError(f"unknown filter {name!r}", hint=f"{requests.name} can be filtered by {', '.join(RECORD)}")
    return RECORD[name]


def _record_columns() -> Select[Any]:
    return select(*RECORD.values(), requests.c.attempt_us)


def _lies_in_roll_up() -> ColumnElement[bool]:
    return and_(
        requests.c.number.between(rollups.c.first_number, rollups.c.last_number),
        requests.c.dimensions == rollups.c.dimensions,
        # The ranges of two slots may overlap, but a record is in one slot only.
        requests.c.created_at >= rollups.c.slot,
        requests.c.created_at < rollups.c.slot + SLOT_NANOS,
    )


def column_named(table: Table, name: str) -> ColumnElement[Any]:
    """The column of a table with this name.

    Raises:
        UsageError: there is none.
    """
    if name not in table.c:
        raise UsageError(
            f"unknown filter {name!r}", hint=f"{table.name} can be filtered by {', '.join(table.c.keys())}"
        )
    return table.c[name]
