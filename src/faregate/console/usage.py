"""``/api/v1/usage``: sums over settled calls, by any dimensions and by hour, day or month (UTC)."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any, Final

from fastapi import APIRouter, Request

from faregate.console.paging import read_moment, single_values
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.requests import FILTERS
from faregate.console.state import Console
from faregate.console.texts import NANOS_PER_SECOND, or_none, second_text, time_text
from faregate.console.writing import console_of
from faregate.core import money
from faregate.core.attribution import DIMENSIONS
from faregate.core.limits.kinds import is_dimension
from faregate.core.limits.windows import window_of
from faregate.ports import Row

router = APIRouter(prefix="/usage", tags=["usage"])

BY_MAX: Final = 6
INTERVALS: Final = ("hour", "day", "month")

#: Buckets that one answer may span.
POINTS_MAX: Final = 10_000

_BUCKET_NANOS: Final = {"hour": 3_600 * NANOS_PER_SECOND, "day": 86_400 * NANOS_PER_SECOND}
_SUMMED: Final = (
    *("requests", "input_tokens", "output_tokens", "input_cached", "output_reasoning"),
    *("images", "seconds", "characters", "cost", "charge"),
)


def month_start(now: int) -> int:
    """The start of the calendar month (UTC) that holds ``now``."""
    return window_of("month", UTC, now)[0]


def sums(
    console: Console, by: Sequence[str], since: int, until: int, interval: str, filters: dict[str, Any]
) -> list[dict[str, Any]]:
    """Usage rows as the API shows them: the interval's start, the dimensions, then the sums."""
    # The API calls an operation what the books call a service.
    columns = [FILTERS.get(name, name) for name in by]
    # Months are no fixed length; they are days added up.
    bucket = ["day" if interval == "month" else interval] if interval else []
    rows = console.books.usage([*bucket, *columns], since, until, **filters)
    if interval == "month":
        rows = _by_month(rows, columns)
    names = _key_names(console, rows) if "key" in by else {}
    return [_shape(row, by, interval, names) for row in rows]


def _by_month(rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    months: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        start = month_start(row["day"])
        group = (start, *(row[name] for name in columns))
        month = months.setdefault(group, {**row, "month": start, **dict.fromkeys(_SUMMED, 0)})
        for name in _SUMMED:
            month[name] += row[name]
    return [months[group] for group in sorted(months)]


def _key_names(console: Console, rows: Sequence[Row]) -> dict[str, str]:
    found = {}
    for key_id in {row["key"] for row in rows if row["key"]}:
        key = console.books.get("key", key_id)
        found[key_id] = key["name"] if key else ""
    return found


def _shape(row: Row, by: Sequence[str], interval: str, names: dict[str, str]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if interval:
        shown[interval] = time_text(row[interval])
    for name in by:
        shown[name] = or_none(row[FILTERS.get(name, name)])
        if name == "key":
            shown["key_name"] = or_none(names.get(row["key"], ""))
    return {
        **shown,
        "requests": row["requests"],
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "cached_input_tokens": row["input_cached"],
        "reasoning_tokens": row["output_reasoning"],
        "images": row["images"],
        "seconds": row["seconds"],
        "characters": row["characters"],
        "cost": money.dollars(row["cost"]),
        "charge": money.dollars(row["charge"]),
    }


def read_by(text: str) -> list[str]:
    """The dimensions of ``by=team,model``.

    Raises:
        ApiProblem: ``filter_invalid``.
    """
    by = [name.strip() for name in text.split(",")] if text else []
    for name in by:
        if not (is_dimension(name) or name == "operation"):
            rule = f"unknown dimension; expected any of {', '.join(DIMENSIONS)}, operation, tag.NAME"
            raise ApiProblem("filter_invalid", rule, field="by")
    if len(by) > BY_MAX or len(set(by)) != len(by):
        raise ApiProblem("filter_invalid", f"at most {BY_MAX} dimensions, each once", field="by")
    return by


@router.get("")
async def read_usage(request: Request) -> dict[str, Any]:
    """Sums from ``from`` (default: start of this month) up to ``to`` (default: now), refusals left out."""
    console = console_of(request)
    allowed = ("by", "from", "to", "interval", *(name for name in FILTERS if name not in ("status", "code")))
    values = single_values(request, allowed, tags=True)
    by = read_by(values.pop("by", ""))
    interval = values.pop("interval", "")
    if interval not in ("", *INTERVALS):
        raise ApiProblem("filter_invalid", f"expected one of {', '.join(INTERVALS)}", field="interval")
    now = console.clock.wall_nanos()
    since = read_moment("from", values.pop("from")) if "from" in values else month_start(now)
    # 0 leaves the end open.
    until = read_moment("to", values.pop("to")) or 1 if "to" in values else 0
    if (until or now) < since:
        raise ApiProblem("filter_invalid", "from lies after to", field="from")
    if interval and ((until or now) - since) // _BUCKET_NANOS.get(interval, _BUCKET_NANOS["day"]) > POINTS_MAX:
        raise ApiProblem("filter_invalid", f"more than {POINTS_MAX} points; ask for a shorter time", field="interval")
    filters = {FILTERS.get(name, name): value for name, value in values.items()}
    rows = await in_thread(lambda: sums(console, by, since, until, interval, filters))
    return {"from": time_text(since), "to": second_text(until or now), "data": rows}
