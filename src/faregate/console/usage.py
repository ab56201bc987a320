"""``/api/v1/usage``: sums over settled calls, by any dimensions and by hour, day or month (UTC)."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, Final

from fastapi import APIRouter, Request

from faregate.console.describing import answers, asks, choice, text, time
from faregate.console.paging import read_moment, single_values
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.requests import FILTERS, RECORD_FILTERS
from faregate.console.rights import needs
from faregate.console.shapes import calls as shapes
from faregate.console.state import Console
from faregate.console.texts import NANOS_PER_SECOND, or_none, second_text, time_text
from faregate.console.writing import console_of
from faregate.core import money
from faregate.core.attribution import DIMENSIONS, METADATA_PREFIX, TAG_PREFIX
from faregate.core.limits.kinds import is_dimension
from faregate.core.limits.windows import window_of
from faregate.ports import Row

router = APIRouter(prefix="/usage", tags=["usage"])

BY_MAX: Final = 6
INTERVALS: Final = ("hour", "day", "month")

#: No dimension of a record: it is found by the key.
SUBSCRIPTION: Final = "subscription"

#: Buckets that one answer may span.
POINTS_MAX: Final = 10_000

_BUCKET_NANOS: Final = {"hour": 3_600 * NANOS_PER_SECOND, "day": 86_400 * NANOS_PER_SECOND}
_SUMMED: Final = (
    *("requests", "input_tokens", "output_tokens", "input_cached", "output_reasoning"),
    *("images", "seconds", "characters", "cost", "charge", "cache_hits", "cache_misses", "saved_cost"),
)


def month_start(now: int) -> int:
    """The start of the calendar month (UTC) that holds ``now``."""
    return window_of("month", UTC, now)[0]


def sums(
    console: Console, by: Sequence[str], since: int, until: int, interval: str, filters: dict[str, Any]
) -> list[dict[str, Any]]:
    """Usage rows as the API shows them: the interval's start, the dimensions, then the sums."""
    # The API calls an operation what the books call a service.
    columns = [FILTERS.get(name, name) for name in by if name != SUBSCRIPTION]
    if SUBSCRIPTION in by and "key" not in columns:
        # Records know the key, and the key its subscription.
        columns.append("key")
    # Months are no fixed length; they are days added up.
    bucket = ["day" if interval == "month" else interval] if interval else []
    rows = console.books.usage([*bucket, *columns], since, until, **filters)
    if interval == "month":
        rows = _by_month(rows, columns)
    if SUBSCRIPTION in by:
        kept = [FILTERS.get(name, name) for name in by if name != SUBSCRIPTION]
        rows = _by_subscription(console, rows, [interval, *kept] if interval else kept)
    names = key_names(console, rows) if "key" in by else {}
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


def _by_subscription(console: Console, rows: Sequence[Row], kept: Sequence[str]) -> list[Row]:
    """Rows by keys, added up by the subscriptions of these; ``kept`` are the columns by which they stay apart.

    What keys without a subscription used stands under the empty one, so that nothing is lost.
    """
    keys = console.books.get_all("key", list({row["key"] for row in rows if row["key"]}))
    owners = {key_id: key["subscription"] for key_id, key in keys.items()}
    known = console.books.get_all("subscription", list({each for each in owners.values() if each}))
    groups: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        owner = owners.get(row["key"], "")
        named = known[owner]["name"] if owner in known else ""
        told = {name: row[name] for name in kept} | {SUBSCRIPTION: owner, "subscription_name": named}
        group = groups.setdefault(tuple(told.values()), told | dict.fromkeys(_SUMMED, 0))
        for name in _SUMMED:
            group[name] += row[name]
    return [groups[group] for group in sorted(groups)]


def key_names(console: Console, rows: Sequence[Row]) -> dict[str, str]:
    """Id → name of the keys that rows name."""
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
        if name == SUBSCRIPTION:
            shown["subscription_name"] = or_none(row["subscription_name"])
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
        "cache_hits": row["cache_hits"],
        "cache_misses": row["cache_misses"],
        "saved_cost": money.dollars(row["saved_cost"]),
    }


def read_by(text: str) -> list[str]:
    """The dimensions of ``by=team,model``.

    Raises:
        ApiProblem: ``filter_invalid``.
    """
    by = [name.strip() for name in text.split(",")] if text else []
    for name in by:
        if not (is_dimension(name) or name in ("operation", SUBSCRIPTION)):
            rule = f"unknown dimension; expected any of {', '.join(DIMENSIONS)}, operation, subscription, tag.NAME"
            raise ApiProblem("filter_invalid", rule, field="by")
    if len(by) > BY_MAX or len(set(by)) != len(by):
        raise ApiProblem("filter_invalid", f"at most {BY_MAX} dimensions, each once", field="by")
    return by


BY_ASKED: Final = text(
    "by",
    f"Dimensions to sum by, at most {BY_MAX} of them, joined by commas: any of {', '.join(DIMENSIONS)}, operation, "
    "subscription, tag.NAME.",
)


#: What sums can be narrowed by.
SUM_FILTERS: Final = tuple(each for each in RECORD_FILTERS if is_dimension(each.name) or each.name == "operation")


def sum_filters(values: Mapping[str, str]) -> dict[str, Any]:
    """What the books filter sums by, of what was asked for."""
    return {
        # What callers tell of their calls beside tags is kept among these.
        TAG_PREFIX + name if name.startswith(METADATA_PREFIX) else FILTERS.get(name, name): value
        for name, value in values.items()
    }


def asked_period(values: dict[str, str], now: int, first: str = "since", last: str = "until") -> tuple[int, int]:
    """The period that was asked for, taken out of ``values``: from the start of the month, and 0 for an open end.

    Raises:
        ApiProblem: ``filter_invalid``.
    """
    since = read_moment(first, values.pop(first)) if first in values else month_start(now)
    until = read_moment(last, values.pop(last)) or 1 if last in values else 0
    if (until or now) < since:
        raise ApiProblem("filter_invalid", f"{first} lies after {last}", field=first)
    return since, until


@router.get("")
@needs("usage.read")
@asks(
    BY_ASKED,
    time("from", "Not before this time; from the start of this month where it is not given."),
    time("to", "Before this time; up to now where it is not given."),
    choice("interval", INTERVALS, "One row for each of these (UTC); one for all of the time where it is not given."),
    *SUM_FILTERS,
    tags=True,
)
@answers(shapes.Usage)
async def read_usage(request: Request) -> dict[str, Any]:
    """Sums from ``from`` (default: start of this month) up to ``to`` (default: now), refusals left out."""
    console = console_of(request)
    values = single_values(request)
    by = read_by(values.pop("by", ""))
    interval = values.pop("interval", "")
    if interval not in ("", *INTERVALS):
        raise ApiProblem("filter_invalid", f"expected one of {', '.join(INTERVALS)}", field="interval")
    now = console.clock.wall_nanos()
    since, until = asked_period(values, now, "from", "to")
    if interval and ((until or now) - since) // _BUCKET_NANOS.get(interval, _BUCKET_NANOS["day"]) > POINTS_MAX:
        raise ApiProblem("filter_invalid", f"more than {POINTS_MAX} points; ask for a shorter time", field="interval")
    filters = sum_filters(values)
    rows = await in_thread(lambda: sums(console, by, since, until, interval, filters))
    return {"from": time_text(since), "to": second_text(until or now), "data": rows}
