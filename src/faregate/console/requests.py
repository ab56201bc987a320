"""``/api/v1/requests``: one record per call, and how its cost follows from the prices it was booked with."""

from fractions import Fraction
from typing import Any, Final

from fastapi import APIRouter, Request

from faregate.console.compile import card_of
from faregate.console.paging import page_of, read_page
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.state import Console
from faregate.console.texts import or_none, time_text
from faregate.console.writing import console_of
from faregate.core import money
from faregate.core.ledger.events import STATUSES
from faregate.core.pricing.cost import cost_lines
from faregate.core.usage import Usage
from faregate.errors import NotFound
from faregate.ports import Row

router = APIRouter(prefix="/requests", tags=["requests"])

IDENTITIES: Final = ("organization", "team", "project", "product", "key", "user", "end_user", "stage", "run")
PLACES: Final = ("model", "deployment", "provider")

#: Filter of the API → column of the books.
FILTERS: Final = {
    **{name: name for name in (*IDENTITIES, *PLACES, "status", "code", "usage_source", "identity_source")},
    "operation": "service",
    "limit_id": "limit_id",
    "price_version": "price_version",
}

#: Asks for what came into the books after a record. A long call is booked long after later, shorter ones, so whoever
#: follows what happens must not go by ids or times.
BOOKED_AFTER: Final = "booked_after"


def shape(row: Row) -> dict[str, Any]:
    """A request record as the API shows it."""
    return {
        "id": row["id"],
        "run": or_none(row["run"]),
        "created_at": time_text(row["created_at"]),
        "ended_at": time_text(row["ended_at"]),
        **{name: or_none(row[name]) for name in IDENTITIES if name != "run"},
        "identity_source": or_none(row["identity_source"]),
        **{name: or_none(row[name]) for name in PLACES},
        "operation": or_none(row["service"]),
        "stream": bool(row["stream"]),
        "status": row["status"],
        "http_status": row["http_status"] or None,
        "code": or_none(row["code"]),
        "limit": or_none(row["limit_id"]),
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "cached_input_tokens": row["input_cached"],
        "cache_write_tokens": row["input_cache_write"],
        "input_audio_tokens": row["input_audio"],
        "reasoning_tokens": row["output_reasoning"],
        "output_audio_tokens": row["output_audio"],
        "usage_source": or_none(row["usage_source"]),
        "cost": money.dollars(row["cost"]),
        "charge": money.dollars(row["charge"]),
        "held": money.dollars(row["held"]),
        "overrun": money.dollars(row["overrun"]),
        "price_version": or_none(row["price_version"]),
        "resolution": or_none(row["resolution"]),
        "cache": "off",
        "saved_cost": "0",
        "attempts": [_attempt(each) for each in row["attempts"]],
        "latency_ms": _milliseconds(row["latency_us"]),
        "first_token_ms": _milliseconds(row["first_token_us"]),
        "clamped_to": row["clamped_to"] or None,
        "answered_model": or_none(row["answered_model"]),
        "provider_request_id": or_none(row["provider_request_id"]),
        "idempotency_key": or_none(row["idempotency_key"]),
        "tags": row["tags"],
    }


def _milliseconds(microseconds: int) -> float | None:
    """A duration, which is no money and may be a fraction."""
    return microseconds / 1000 if microseconds else None


def _attempt(fields: Row) -> dict[str, Any]:
    return {
        "deployment": fields["deployment"],
        "http_status": fields["http_status"] or None,
        "code": or_none(fields["code"]),
        "duration_ms": _milliseconds(fields["duration_us"]),
    }


def usage_of(row: Row) -> Usage:
    """The billed leaves of a record."""
    return Usage(*(row[name] for name in Usage._fields))


def exact(value: Fraction) -> str:
    """A fraction of dollars as an exact decimal, or as ``numerator/denominator`` where decimals never end."""
    rest = value.denominator
    twos = fives = 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    decimals = max(twos, fives)
    if rest != 1 or decimals > 40:
        return f"{value.numerator}/{value.denominator}"
    digits = f"{int(abs(value) * 10**decimals):0{decimals + 1}d}"
    whole = digits[: len(digits) - decimals]
    return whole + (f".{digits[len(whole) :]}" if decimals else "")


def derivation(console: Console, row: Row) -> dict[str, Any] | None:
    """How the cost follows from the usage and the stored rate card; ``None`` where nothing was priced."""
    if not row["price_version"] or row["status"] in ("refused", "unknown"):
        return None
    kept = console.books.rate_card(row["price_version"])
    if kept is None:
        return None
    card = card_of(kept)
    lines, total = [], Fraction(0)
    for line in cost_lines(card, usage_of(row)):
        amount = Fraction(line.numerator, line.denominator) / money.PICOS_PER_DOLLAR
        total += amount
        lines.append(
            {
                "unit": line.unit,
                "priced_as": line.priced_as,
                "quantity": line.quantity,
                "price": money.dollars_of_picos(line.price_pico),
                "per": line.per,
                "amount": exact(amount),
            }
        )
    return {
        "price_version": card.version,
        "provider": card.provider,
        "model": card.model,
        "source": or_none(card.source),
        "lines": lines,
        "sum": exact(total),
        "rounding": "half_even to 9 decimals",
        "cost": money.dollars(money.half_even(total.numerator * money.NANOS_PER_DOLLAR, total.denominator)),
    }


@router.get("")
async def list_requests(request: Request) -> dict[str, Any]:
    """Records, newest first; filters: every identity, ``model``, ``status``, ``code``, ``tag.NAME``, ``since`` …"""
    console = console_of(request)
    page = read_page(request, [*FILTERS, BOOKED_AFTER], tags=True, times=True)
    filters = {FILTERS.get(name, name): value for name, value in page.filters.items()}
    if filters.get("status", "ok") not in STATUSES:
        raise ApiProblem("filter_invalid", f"expected one of {', '.join(STATUSES)}", field="status")
    if BOOKED_AFTER in filters:
        return await in_thread(lambda: _booked(console, page.limit, filters))
    rows = await in_thread(lambda: console.books.requests(after=page.after, limit=page.limit + 1, **filters))
    return page_of(request, page, rows, shape)


def _booked(console: Console, limit: int, filters: dict[str, Any]) -> dict[str, Any]:
    """Records in the order of booking, and after which one to ask for the next: past all that the filters left out."""
    mark = filters[BOOKED_AFTER]
    if mark and console.books.request(mark) is None:
        raise ApiProblem("filter_invalid", "there is no such request", field=BOOKED_AFTER)
    last = console.books.requests(limit=1, booked_after=mark)
    rows = console.books.requests(limit=limit, newest_first=False, **filters)
    until = rows[-1]["id"] if rows else mark
    if len(rows) < limit:
        until = last[0]["id"] if last else mark
        # What was booked between the two looks comes next time, and only then.
        later = console.books.requests(limit=limit, newest_first=False, **{**filters, BOOKED_AFTER: until})
        left = {row["id"] for row in later}
        rows = [row for row in rows if row["id"] not in left]
    return {"data": [shape(row) for row in rows], "next_cursor": None, "booked_until": until}


@router.get("/{request_id}")
async def read_request(request: Request, request_id: str) -> dict[str, Any]:
    """One record with the derivation of its cost."""
    console = console_of(request)

    def look() -> dict[str, Any]:
        row = console.books.request(request_id) if len(request_id) <= 64 else None
        if row is None:
            raise NotFound("there is no such request")
        return {**shape(row), "derivation": derivation(console, row)}

    return await in_thread(look)
