"""``/api/v1/requests``: one record per call, and how its cost follows from the prices it was booked with."""

import json
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from typing import Any, Final

from fastapi import APIRouter, Request

from faregate.console.compile import card_of
from faregate.console.content_search import SORTED_MAX, TEXT_CHARACTERS_MAX, check_text, found_by_text
from faregate.console.describing import answers, choice, lists, text
from faregate.console.paging import Page, page_of, read_page, sealed_page
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.records import usage_of
from faregate.console.rights import needs
from faregate.console.shapes import calls as shapes
from faregate.console.state import Console
from faregate.console.texts import or_none, time_text
from faregate.console.writing import console_of
from faregate.core import money
from faregate.core.attribution import EVENT_ID, METADATA_PREFIX, TAG_PREFIX
from faregate.core.ledger.events import CACHE_WORDS, STATUSES, USAGE_SOURCES
from faregate.core.pricing.card import RateCard
from faregate.core.pricing.charging import ChargeLine, charge, charge_lines, rule_of
from faregate.core.pricing.cost import cost_lines, tier_reached
from faregate.core.tokens import UNKNOWN
from faregate.core.usage import NO_USAGE, OTHER_INPUT_UNITS, OTHER_OUTPUT_UNITS, Measure, Usage
from faregate.errors import Failed, NotFound
from faregate.ports import Row

router = APIRouter(prefix="/requests", tags=["requests"])

IDENTITIES: Final = ("organization", "team", "project", "product", "key", "user", "end_user", "stage", "run")
PLACES: Final = ("model", "deployment", "provider")

#: Filter of the API → column of the books.
FILTERS: Final = {
    **{name: name for name in (*IDENTITIES, *PLACES, "status", "code", "usage_source", "identity_source", "cache")},
    "operation": "service",
    "limit_id": "limit_id",
    "price_version": "price_version",
}

#: What a record says of the response cache where it was not to be used.
CACHE_OFF: Final = "off"

_CHOICES: Final = {"status": STATUSES, "usage_source": USAGE_SOURCES, "cache": (*CACHE_WORDS, CACHE_OFF)}

#: What is said of the values of a choice beside that they are the call's.
_ABOUT: Final = {"cache": "What the response cache did for the call; off where it was not to be used."}

#: How records may be put in order → the column of the books; by their date is by their ids.
SORTS: Final = {"date": "", "cost": "cost", "charge": "charge"}
ORDERS: Final = ("desc", "asc")

#: Putting records in the order of what they cost takes so long at most.
SORT_MS_MAX: Final = 2_000

_ROUNDING: Final = "half_even to 9 decimals"

#: Parameters that say nothing of single records.
_NO_FILTERS: Final = ("text", "sort", "order")

#: Asks for what came into the books after a record. A long call is booked long after later, shorter ones, so whoever
#: follows what happens must not go by ids or times.
BOOKED_AFTER: Final = "booked_after"


#: What a single record can be asked for by.
RECORD_FILTERS: Final = (
    *(text(name, f"The {name.replace('_', ' ')} of the call.") for name in FILTERS if name not in _CHOICES),
    *(
        choice(name, values, _ABOUT.get(name, f"The {name.replace('_', ' ')} of the call."))
        for name, values in _CHOICES.items()
    ),
    text(EVENT_ID, "What the caller calls the event."),
)
TEXT_ASKED: Final = text(
    "text", "A part of the prompt or the answer; takes content.read.", most=TEXT_CHARACTERS_MAX, any_text=True
)


def shape(row: Row) -> dict[str, Any]:
    """A request record as the API shows it."""
    return {
        "id": row["id"],
        "run": or_none(row["run"]),
        "created_at": time_text(row["created_at"]),
        "ended_at": time_text(row["ended_at"]),
        **{name: or_none(row[name]) for name in IDENTITIES if name != "run"},
        "identity_source": row["identity_source"] or UNKNOWN,
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
        **_others(row["other_units"]),
        "usage_source": or_none(row["usage_source"]),
        "cost": money.dollars(row["cost"]),
        "charge": money.dollars(row["charge"]),
        "charge_rule": or_none(row["charge_rule"]),
        "held": money.dollars(row["held"]),
        "overrun": money.dollars(row["overrun"]),
        "price_version": or_none(row["price_version"]),
        "resolution": or_none(row["resolution"]),
        "cache": row["cache"] or CACHE_OFF,
        "saved_cost": money.dollars(row["saved_cost"]),
        "attempts": [_attempt(each) for each in row["attempts"]],
        "latency_ms": _milliseconds(row["latency_us"]),
        "first_token_ms": _milliseconds(row["first_token_us"]),
        "clamped_to": row["clamped_to"] or None,
        "notes": json.loads(row["notes"]) if row["notes"] else None,
        "answered_model": or_none(row["answered_model"]),
        "provider_request_id": or_none(row["provider_request_id"]),
        "idempotency_key": or_none(row["idempotency_key"]),
        "event_id": row["tags"].get(EVENT_ID),
        "metadata": _metadata(row["tags"]),
        "tags": {name: value for name, value in row["tags"].items() if not _has_a_place(name)},
    }


def _has_a_place(tag: str) -> bool:
    """Whether it is one of the tags that are shown by themselves."""
    return tag == EVENT_ID or tag.startswith(METADATA_PREFIX)


def _metadata(tags: Mapping[str, str]) -> dict[str, str]:
    """What the caller told of the call beside its tags."""
    length = len(METADATA_PREFIX)
    return {name[length:]: value for name, value in tags.items() if name.startswith(METADATA_PREFIX)}


def _others(found: Iterable[Measure]) -> dict[str, Any]:
    """Tokens of rarer kinds beside the other leaves, and what is not tokens as a list."""
    tokens = dict.fromkeys((*OTHER_INPUT_UNITS, *OTHER_OUTPUT_UNITS), 0)
    units = []
    for measure in found:
        if measure.unit in tokens:
            tokens[measure.unit] += measure.quantity
        else:
            units.append({**measure._asdict(), "variant": or_none(measure.variant)})
    return {**tokens, "units": units}


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
    return ("-" if value < 0 else "") + whole + (f".{digits[len(whole) :]}" if decimals else "")


def derivation(console: Console, row: Row) -> dict[str, Any] | None:
    """How cost and charge follow from usage, stored rate card and charge rule; ``None`` where nothing was priced."""
    if row["cache"] == "hit":
        return _hit_derivation(row)
    if not row["price_version"] or row["status"] in ("refused", "unknown", "pending"):
        return None
    kept = console.books.rate_card(row["price_version"])
    if kept is None:
        return None
    card = card_of(kept)
    lines, total = [], Fraction(0)
    usage = usage_of(row)
    # What served nobody has no lines, not even that of a call.
    for line in cost_lines(card, usage) if row["usage_source"] != "none" else ():
        amount = Fraction(line.numerator, line.denominator) / money.PICOS_PER_DOLLAR
        total += amount
        lines.append(
            {
                "unit": line.unit,
                "variant": or_none(line.variant),
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
        "service_tier": or_none(card.service_tier),
        "region": or_none(card.region),
        "above_input_tokens": tier_of(card, usage),
        "lines": lines,
        "sum": exact(total),
        "rounding": _ROUNDING,
        "cost": money.dollars(money.half_even(total.numerator * money.NANOS_PER_DOLLAR, total.denominator)),
        "charge_rule": or_none(row["charge_rule"]),
        "charge_lines": _charge_lines(row, usage != NO_USAGE),
        "charge": money.dollars(row["charge"]),
    }


def _hit_derivation(row: Row) -> dict[str, Any]:
    """How the charge of an answer came about that had been kept: nothing was used, and so much was saved."""
    term = f"the answer was kept before, which saved {money.dollars(row['saved_cost'])}"
    charged = Fraction(row["charge"], money.NANOS_PER_DOLLAR)
    return {
        **dict.fromkeys(("price_version", "provider", "model", "source", "service_tier", "region")),
        "above_input_tokens": 0,
        "lines": [],
        "sum": "0",
        "rounding": _ROUNDING,
        "cost": money.dollars(row["cost"]),
        "charge_rule": or_none(row["charge_rule"]),
        "charge_lines": [{"name": "hit", "term": term, "amount": exact(charged)}],
        "charge": money.dollars(row["charge"]),
    }


def tier_of(card: RateCard, usage: Usage) -> int:
    """Above how many input tokens the prices hold that ``usage`` was billed at; 0 for the first tier."""
    return card.tiers[tier_reached(card, usage)].above_input_tokens


def _charge_lines(row: Row, used: bool) -> list[dict[str, Any]]:
    """What lies between cost and charge, line by line; with the cost they add up to the charge, up to its rounding."""
    rule = rule_of(row["charge_rule"])
    lines = charge_lines(rule, row["cost"], used=used)
    more = row["charge"] - charge(rule, row["cost"], used=used)
    if more:
        # Somebody decided how an unknown ended: the operator bears it, or its hold is the most it is charged.
        lines.append(ChargeLine("resolution", row["resolution"], more))
    return [
        {
            "name": line.name,
            "term": line.term,
            "amount": exact(Fraction(line.numerator, line.denominator) / money.NANOS_PER_DOLLAR),
        }
        for line in lines
    ]


def filters_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the books filter records by, of what was asked for; what is no filter is left out.

    Raises:
        ApiProblem: ``filter_invalid``.
    """
    filters: dict[str, Any] = {}
    for name, value in asked.items():
        if name.startswith(METADATA_PREFIX) or name == EVENT_ID:
            filters[TAG_PREFIX + name] = value
        elif name not in _NO_FILTERS:
            filters[FILTERS.get(name, name)] = value
    if filters.get("identity_source") == UNKNOWN:
        # The books say nothing where nothing is known.
        filters["identity_source"] = ""
    if filters.get("cache") == CACHE_OFF:
        filters["cache"] = ""
    if filters.get("status", "ok") not in STATUSES:
        raise ApiProblem("filter_invalid", f"expected one of {', '.join(STATUSES)}", field="status")
    return filters


def _choice(page: Page, name: str, known: Collection[str], default: str) -> str:
    value = str(page.filters.get(name, default))
    if value not in known:
        raise ApiProblem("filter_invalid", f"expected one of {', '.join(known)}", field=name)
    return value


@router.get("")
@needs("requests.read")
@lists(
    *RECORD_FILTERS,
    text(BOOKED_AFTER, "Id of a record: only what came into the books after it, in the order of booking."),
    choice("sort", tuple(SORTS), "By what they are put in order; by their date where it is not said."),
    choice("order", ORDERS, "The largest or the newest first, or last."),
    TEXT_ASKED,
    tags=True,
    times=True,
)
@answers(shapes.Records)
async def list_requests(request: Request) -> dict[str, Any]:
    """Records, newest first or by ``sort``; filters: every identity, ``status``, ``tag.NAME``, ``text``, ``since`` …"""
    console = console_of(request)
    page = read_page(request)
    sort, descending = SORTS[_choice(page, "sort", SORTS, "date")], _choice(page, "order", ORDERS, "desc") == "desc"
    filters, text = filters_of(page.filters), page.filters.get("text")
    if BOOKED_AFTER in filters:
        if {"text", "sort", "order"} & page.filters.keys():
            raise ApiProblem("filter_invalid", "goes with neither text nor sort", field=BOOKED_AFTER)
        return await in_thread(lambda: _booked(console, page.limit, filters))
    if text is not None:
        check_text(console, text)
        if sort or not descending:
            return await in_thread(lambda: _matches_in_order(console, page, text, filters, sort, descending))
        found = await in_thread(lambda: found_by_text(console, text, page.limit, page.after, filters))
        return sealed_page(request, page, [shape(row) for row in found.rows], found.last)
    rows = await in_thread(
        lambda: _listed(console, filters, sort, after=page.after, limit=page.limit + 1, descending=descending)
    )
    return page_of(request, page, rows, shape)


def _listed(
    console: Console, filters: dict[str, Any], sort: str, *, after: str = "", limit: int, descending: bool
) -> list[Row]:
    """Records in an order, which is found in bounded time or not at all."""
    if sort:
        filters = {**filters, "sort": sort, "within_ms": SORT_MS_MAX}
    try:
        return console.books.requests(after=after, limit=limit, newest_first=descending, **filters)
    except Failed as problem:
        if problem.code != "search_too_long":
            raise
        rule = "there are too many records to be put in this order in time; narrow it by since and until, or by whom"
        raise ApiProblem("filter_invalid", rule, field="sort") from problem


def _matches_in_order(
    console: Console, page: Page, text: str, filters: dict[str, Any], sort: str, descending: bool
) -> dict[str, Any]:
    """The newest matches of a text in another order, on one page; ``complete`` says whether these are all."""
    found = found_by_text(console, text, SORTED_MAX, "", filters)
    ids = [row["id"] for row in found.rows]
    rows = _listed(console, {"id": ids}, sort, limit=page.limit, descending=descending) if ids else []
    return {"data": [shape(row) for row in rows], "next_cursor": None, "complete": not found.last}


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


def adjustments_of(console: Console, request_id: str) -> list[dict[str, Any]]:
    """What was corrected of a record after it was booked, oldest first; the record itself stays as it is."""
    return [
        {
            "run": line["run"],
            "kind": line["kind"],
            "reason": line["reason"],
            "at": time_text(line["at"]),
            "cost_difference": money.dollars(line["cost"]),
            "charge_difference": money.dollars(line["charge"]),
            "price_version": line["price_version"],
        }
        for line in console.books.corrections([request_id])
    ]


@router.get("/{request_id}")
@needs("requests.read")
@answers(shapes.RecordDetail)
async def read_request(request: Request, request_id: str) -> dict[str, Any]:
    """One record with the derivation of its cost."""
    console = console_of(request)

    def look() -> dict[str, Any]:
        row = console.books.request(request_id) if len(request_id) <= 64 else None
        if row is None:
            raise NotFound("there is no such request")
        return {
            **shape(row),
            "derivation": derivation(console, row),
            "adjustments": adjustments_of(console, request_id),
        }

    return await in_thread(look)
