"""Which records deployments are compared by, as one statement, and how its rows are counted.

A mirrored call's copy names its original in its notes; the original is looked up by its id, which has an index. So what
is gone through are the records of the time, newest first, until there are enough.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Select, Text, and_, case, func, or_, select, true

from faregate.core.comparison import Comparison, EndedCall
from faregate.core.ledger.events import MIRROR_OF
from faregate.storage.queries import REQUESTS, UNCOUNTED, chosen_by, span
from faregate.storage.schema import dimension_sets, requests

#: By these a copy is also found by what its original has: whoever asks for one side of a pair wants to see both.
_EITHER: Final = ("model", "deployment")

_NAMES: Final = ("model", "deployment", "provider")
_FACTS: Final = (
    *("status", "limit_id", "stream", "cost"),
    *("input_tokens", "output_tokens", "latency_us", "first_token_us"),
)


def apart(filters: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Filters that either side of a pair may fit, and those that the record itself must."""
    either = {name: value for name, value in filters.items() if name in _EITHER}
    return either, {name: value for name, value in filters.items() if name not in _EITHER}


def compared(
    since: int,
    until: int,
    most: int,
    stream: bool | None,
    filters: Mapping[str, object],
    tag_of: Callable[[str], ColumnElement[str]],
) -> Select[Any]:
    """The newest records in question, one more than ``most``, for ``count``.

    Raises:
        UsageError: a filter that is neither a dimension nor ``tag.NAME``.
    """
    original, sets = requests.alias("original"), dimension_sets.alias("original_sets")
    # Notes are JSON where there are any, which SQLite would not read from an empty text.
    named = func.json_extract(requests.c.notes, f"$.{MIRROR_OF}", type_=Text)
    origin = case((requests.c.notes == "", None), else_=named)
    either, strict = apart(filters)
    fits, original_fits = _fits(dimension_sets, either), _fits(sets, either)
    found = and_(original.c.id.is_not(None), original_fits)
    chosen = [
        chosen_by(REQUESTS, since, until, strict, tag_of),
        requests.c.cache != "hit",
        # What was sent nowhere has no deployment; the function keeps the planner from beginning with the sets.
        func.coalesce(dimension_sets.c.deployment, "") != "",
        or_(fits, found),
    ]
    if stream is not None:
        chosen.append(requests.c.stream == int(stream))
    is_original = and_(
        original.c.id == origin,
        original.c.status.not_in(UNCOUNTED),
        original.c.cache != "hit",
        *span(original.c.created_at, since, until),
    )
    table: FromClause = requests.outerjoin(dimension_sets, requests.c.dimensions == dimension_sets.c.id)
    table = table.outerjoin(original, is_original).outerjoin(sets, original.c.dimensions == sets.c.id)
    columns = [
        case((fits, 1), else_=0),
        origin.is_not(None),
        original.c.id.is_not(None),
        *_told(requests, dimension_sets),
        *_told(original, sets),
    ]
    told = [column.label(f"told_{number}") for number, column in enumerate(columns)]
    return select(*told).select_from(table).where(*chosen).order_by(requests.c.number.desc()).limit(most + 1)


def _fits(sets: FromClause, either: Mapping[str, object]) -> ColumnElement[bool]:
    return and_(true(), *(func.coalesce(sets.c[name], "") == value for name, value in either.items()))


def _told(records: FromClause, sets: FromClause) -> list[ColumnElement[Any]]:
    return [*(sets.c[name] for name in _NAMES), *(records.c[name] for name in _FACTS)]


def count(rows: Iterable[Sequence[Any]], most: int) -> Comparison:
    """What the rows of ``compared`` say."""
    comparison = Comparison()
    for fits, mirrored, paired, *told in rows:
        if comparison.records == most:
            comparison.truncated = True
            break
        comparison.records += 1
        call = EndedCall(*told[: len(EndedCall._fields)])
        if fits:
            comparison.add(call, mirrored=bool(mirrored))
        if paired:
            comparison.add_pair(EndedCall(*told[len(EndedCall._fields) :]), call)
    return comparison
