"""``/api/v1/capacities``: fixed commitments, split by use month by month, and their planning figures.

What the configuration file declares is owned by it; the rest lives in the books. Nothing is posted by a split: it says
how a bill that comes anyway is to be shared.
"""

import re
from datetime import UTC, datetime, tzinfo
from typing import Any, ClassVar, Final, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.describing import answers, asks, text
from faregate.console.paging import single_values
from faregate.console.prices import compiled
from faregate.console.problems import ApiProblem
from faregate.console.reading import every, in_thread
from faregate.console.requests import FILTERS
from faregate.console.rights import needs
from faregate.console.shapes import prices as shapes
from faregate.console.shapes.values import Removed
from faregate.console.state import Console
from faregate.console.texts import NANOS_PER_SECOND, Body, Dollars, Name, or_none, second_text, time_text
from faregate.console.usage import BY_ASKED, read_by
from faregate.console.writing import console_of, locked
from faregate.console.writing import put as put_row
from faregate.console.writing import remove as remove_row
from faregate.console.zones import zone_known
from faregate.core import money
from faregate.core.limits.windows import window_of
from faregate.core.pricing.capacity import BASIS_POINTS, Plan, plan, split_month
from faregate.core.slots import SLOT_NANOS
from faregate.errors import Conflict, NotFound
from faregate.ports import Row

router = APIRouter(prefix="/capacities", tags=["capacities"])

_MONTH: Final = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")
_BY_DEFAULT: Final = ["team"]


class NewCapacity(Body):
    """A fixed commitment; one of the same name is changed in place."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset({"id", "created_at", "updated_at", "source"})

    name: Name
    provider: Name
    #: Names of the deployments that it serves; without any all of the provider's.
    deployments: list[Name] = Field(default_factory=list, max_length=64)
    #: Dollars of a calendar month, as a decimal text.
    commitment: Dollars
    #: Units that were bought, for showing.
    units: int = Field(default=0, ge=0, le=1_000_000)
    #: Tokens that all of them serve in a second; 0 where that is not known, and then nothing is ever idle.
    tokens_per_second: int = Field(default=0, ge=0, le=1_000_000_000)
    timezone: str = Field(default="UTC", max_length=64)
    split: Literal["tokens", "cost"] = "tokens"
    idle: Literal["show", "spread", "operator"] = "show"


def rows_of(console: Console) -> list[Row]:
    """All capacities, those of the file first."""
    declared = {row["name"] for row in console.capacities}
    return [*console.capacities, *(row for row in every(console.books, "capacity") if row["name"] not in declared)]


def capacity_named(console: Console, name: str) -> Row:
    """One capacity.

    Raises:
        NotFound: there is none of that name.
    """
    found = next((row for row in rows_of(console) if row["name"] == name), None)
    if found is None:
        raise NotFound(f"there is no capacity {name[:64]!r}")
    return found


def put(console: Console, wanted: NewCapacity) -> Row:
    """Set a capacity.

    Raises:
        ApiProblem: a value cannot be.
        Conflict: the configuration file declares one of that name.
    """
    try:
        commitment = money.nanos(wanted.commitment)
    except ValueError as problem:
        raise ApiProblem("field_range", str(problem), field="commitment") from problem
    if not zone_known(wanted.timezone):
        raise ApiProblem("field_enum", "unknown time zone; write one such as Europe/Berlin", field="timezone")
    if "/" in wanted.name or not wanted.name.strip("."):
        raise ApiProblem("field_range", "a name stands in a path: no slash, and not dots alone", field="name")
    _check_places(console, wanted)
    if any(row["name"] == wanted.name for row in console.capacities):
        raise Conflict("a capacity of this name is declared in the configuration file; change it there")
    before = next(iter(console.books.listing("capacity", name=wanted.name)), None)
    now = console.clock.wall_nanos()
    row: Row = {
        "id": before["id"] if before else console.new_id("cap_"),
        "name": wanted.name,
        "provider": wanted.provider,
        "deployments": list(wanted.deployments),
        "commitment": commitment,
        "units": wanted.units,
        "tokens_per_second": wanted.tokens_per_second,
        "timezone": wanted.timezone,
        "split": wanted.split,
        "idle": wanted.idle,
        "source": "api",
        "details": {},
        "created_at": before["created_at"] if before else now,
        "updated_at": now,
    }
    if before is None or any(before[name] != row[name] for name in row if name != "updated_at"):
        put_row(console, "capacity", row)
    return row


def _check_places(console: Console, wanted: NewCapacity) -> None:
    """A misspelled place would never be used, and its commitment would look idle."""
    catalogue = compiled(console)
    known = sorted(each.name for each in catalogue.providers)
    if wanted.provider not in known:
        none = "no configuration that can be used was found here; `faregate check` says why"
        choices = f"expected one of {', '.join(known)}" if known else none
        raise ApiProblem("field_enum", f"unknown provider; {choices}", field="provider")
    names = {each.name for each in catalogue.deployments if each.provider == wanted.provider}
    strange = next((name for name in wanted.deployments if name not in names), "")
    if strange:
        rule = f"{strange[:64]!r} is no deployment of {wanted.provider}"
        raise ApiProblem("field_enum", rule, field="deployments")


def shape(row: Row) -> dict[str, Any]:
    """A capacity as the API shows it."""
    return {
        "id": or_none(row["id"]),
        "name": row["name"],
        "provider": row["provider"],
        "deployments": row["deployments"] or [],
        "commitment": money.dollars(row["commitment"]),
        "units": row["units"],
        "tokens_per_second": row["tokens_per_second"],
        "timezone": row["timezone"],
        "split": row["split"],
        "idle": row["idle"],
        "source": row["source"],
    }


# -- months ------------------------------------------------------------------------------------------------------------


def _zone(row: Row) -> tzinfo:
    return UTC if row["timezone"] == "UTC" else ZoneInfo(row["timezone"])


def _month(console: Console, row: Row, text: str) -> tuple[int, int, int]:
    """Start and end of a month of the capacity's calendar, and up to when it has passed.

    Raises:
        ApiProblem: it is no month, or has not begun.
    """
    now = console.clock.wall_nanos()
    zone = _zone(row)
    moment = now
    if text:
        match = _MONTH.fullmatch(text)
        if match is None or not 1970 <= int(match[1]) <= 9_000:
            raise ApiProblem("filter_invalid", "write a month such as 2026-11", field="month")
        # Its middle lies in it in every zone.
        moment = int(datetime(int(match[1]), int(match[2]), 15, tzinfo=UTC).timestamp()) * NANOS_PER_SECOND
    start, end = window_of("month", zone, moment)
    if start > now:
        raise ApiProblem("filter_invalid", "this month has not begun", field="month")
    return start, end, min(end, now)


def month_parts(row: Row, since: int, until: int) -> int:
    """What a capacity costs from ``since`` to ``until``, in nano-dollars: of each month the part that lies within."""
    zone, total, moment = _zone(row), 0, since
    while moment < until:
        start, end = window_of("month", zone, moment)
        within = min(end, until) - moment
        total += money.half_even(row["commitment"] * within, end - start)
        moment = end
    return total


def _used(console: Console, row: Row, by: list[str], start: int, end: int) -> list[Row]:
    filters: dict[str, Any] = {"provider": row["provider"]}
    if row["deployments"]:
        filters["deployment"] = list(row["deployments"])
    return console.books.usage(by, start, end, **filters)


def _tokens(used: Row) -> int:
    return int(used["input_tokens"]) + int(used["output_tokens"])


def shares(console: Console, row: Row, month: str, by: list[str]) -> dict[str, Any]:
    """A month's commitment split by use; of a month that runs, what has accrued so far."""
    start, end, passed = _month(console, row, month)
    columns = [FILTERS.get(name, name) for name in by]
    used = _used(console, row, columns, start, end)
    accrued = money.half_even(row["commitment"] * (passed - start), end - start)
    capacity_tokens = row["tokens_per_second"] * (passed - start) // NANOS_PER_SECOND
    weigh = _tokens if row["split"] == "tokens" else _cost
    weights = {tuple(each[name] for name in columns): weigh(each) for each in used}
    tokens = sum(map(_tokens, used))
    found = split_month(accrued, weights, tokens, capacity_tokens, row["idle"])
    return {
        "capacity": row["name"],
        "from": time_text(start),
        "to": time_text(end),
        "complete": passed == end,
        "commitment": money.dollars(accrued),
        "split": row["split"],
        "idle_rule": row["idle"],
        "used_tokens": tokens,
        "capacity_tokens": capacity_tokens,
        "data": [
            {
                **{name: or_none(value) for name, value in zip(by, key, strict=True)},
                "requests": each["requests"],
                "tokens": _tokens(each),
                "pay_as_you_go": money.dollars(each["cost"]),
                "share": money.dollars(found.shares[key]),
            }
            for each in used
            for key in [tuple(each[name] for name in columns)]
        ],
        "idle": money.dollars(found.idle),
        "operator": money.dollars(found.operator),
    }


def _cost(used: Row) -> int:
    return int(used["cost"])


def planned(console: Console, row: Row, month: str) -> dict[str, Any]:
    """How much of a capacity a month used, and whether paying by the token would have been cheaper."""
    start, end, passed = _month(console, row, month)
    total = next(iter(_used(console, row, [], start, end)), None)
    slots = _used(console, row, ["quarter_hour"], start, end)
    accrued = money.half_even(row["commitment"] * (passed - start), end - start)
    found = plan(
        accrued,
        row["tokens_per_second"],
        passed - start,
        _tokens(total) if total else 0,
        max(map(_tokens, slots), default=0),
        SLOT_NANOS,
        int(total["cost"]) if total else 0,
    )
    return {
        "capacity": row["name"],
        "from": time_text(start),
        "to": second_text(passed),
        "complete": passed == end,
        "commitment": money.dollars(accrued),
        **_plan_shape(found),
        "worth_it": None if found.worth is None else found.worth >= BASIS_POINTS,
    }


def _plan_shape(found: Plan) -> dict[str, Any]:
    """Ratios as percentages with two decimals, rates with three: figures for showing, never money."""
    return {
        "used_tokens": found.used_tokens,
        "capacity_tokens": found.capacity_tokens,
        "average_tokens_per_second": found.average_milli_tps / 1000,
        "peak_tokens_per_second": found.peak_milli_tps / 1000,
        "utilisation_percent": _percent(found.utilisation),
        "peak_utilisation_percent": _percent(found.peak_utilisation),
        "pay_as_you_go": money.dollars(found.pay_as_you_go),
        "pay_as_you_go_percent": _percent(found.worth),
        "break_even_tokens": found.break_even_tokens,
        "break_even_percent": _percent(found.break_even_utilisation),
    }


def _percent(parts: int | None) -> float | None:
    return None if parts is None else parts / 100


_MONTH_ASKED: Final = text("month", "A calendar month such as `2026-11`; this one where it is not given.", most=7)

# -- routes ------------------------------------------------------------------------------------------------------------


@router.get("")
@needs("capacities.read")
@asks()
@answers(shapes.Capacities)
async def list_capacities(request: Request) -> dict[str, Any]:
    """Fixed capacities, those of the configuration file first."""
    single_values(request)
    console = console_of(request)
    rows = await in_thread(lambda: rows_of(console))
    return {"data": [shape(row) for row in rows], "next_cursor": None}


@router.put("")
@needs("capacities.write")
@answers(shapes.Capacity)
async def set_capacity(request: Request, wanted: NewCapacity) -> dict[str, Any]:
    """Set a fixed capacity; the one of the same name is changed in place."""
    console = console_of(request)
    return shape(await locked(console, lambda: put(console, wanted)))


@router.get("/{name}")
@needs("capacities.read")
@asks(_MONTH_ASKED)
@answers(shapes.PlannedCapacity)
async def read_capacity(request: Request, name: str) -> dict[str, Any]:
    """One capacity with the planning figures of a month; ``month`` is this one where it is not given."""
    console = console_of(request)
    month = single_values(request).get("month", "")

    def look() -> dict[str, Any]:
        row = capacity_named(console, name)
        return {**shape(row), "plan": planned(console, row, month)}

    return await in_thread(look)


@router.get("/{name}/split")
@needs("capacities.read")
@asks(_MONTH_ASKED, BY_ASKED)
@answers(shapes.Split)
async def split_capacity(request: Request, name: str) -> dict[str, Any]:
    """A month's commitment split by use; ``month`` is this one and ``by`` is ``team`` where they are not given."""
    console = console_of(request)
    values = single_values(request)
    by = read_by(values.get("by", "")) or list(_BY_DEFAULT)
    month = values.get("month", "")
    return await in_thread(lambda: shares(console, capacity_named(console, name), month, by))


@router.delete("/{name}")
@needs("capacities.write")
@answers(Removed)
async def delete_capacity(request: Request, name: str) -> dict[str, Any]:
    """Remove a capacity."""
    console = console_of(request)

    def alone() -> Row:
        row = capacity_named(console, name)
        if row["source"] == "file":
            raise Conflict("this capacity is declared in the configuration file; change it there")
        remove_row(console, "capacity", row["id"])
        return row

    row = await locked(console, alone)
    return {"id": row["id"], "name": row["name"], "deleted": True}
