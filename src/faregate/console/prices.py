"""``/api/v1/prices``: what a unit costs now, bundled and own, and setting own prices.

An own price holds from its moment until the next one of the same unit; nothing that is already booked changes.
"""

from fractions import Fraction
from typing import Any, ClassVar, Final

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.paging import single_values
from faregate.console.problems import ApiProblem
from faregate.console.reading import every, in_thread
from faregate.console.state import Console
from faregate.console.texts import NANOS_PER_SECOND, Body, Name, moment, time_text
from faregate.console.writing import acted, console_of, locked
from faregate.console.writing import put as put_row
from faregate.console.writing import remove as remove_row
from faregate.control import Catalogue
from faregate.core import money
from faregate.core.pricing.card import PRICED_UNITS, RateCard
from faregate.errors import Conflict, NotFound
from faregate.ports import Row

router = APIRouter(prefix="/prices", tags=["prices"])

PER_MAX: Final = 1_000_000_000

#: A new price this many times the old one, or this small a part of it, is per token where per million was meant.
OUTLIER: Final = 10_000

#: How far back "now" may lie, for clocks that differ and requests that take their time.
PAST_NANOS_MAX: Final = 60 * NANOS_PER_SECOND


class NewPrice(Body):
    """An own price of one unit of a model at a provider."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"id", "created_at", "updated_at", "effective_to", "source", "version"}
    )

    provider: Name
    model: Name
    unit: str = Field(max_length=32)
    per: int = Field(ge=1, le=PER_MAX)
    #: Dollars for ``per`` units, as a decimal text.
    price: str = Field(max_length=32)
    effective_from: str | None = Field(default=None, max_length=40)
    #: Says that a price far from the one before is meant.
    confirm: bool = False


def _moment(console: Console, text: str | None) -> int:
    now = console.clock.wall_nanos()
    if text is None:
        return now
    try:
        at = moment(text)
    except ValueError as problem:
        raise ApiProblem("field_type", str(problem), field="effective_from") from problem
    if at < now - PAST_NANOS_MAX:
        raise ApiProblem("invariant", "a price cannot begin in the past: what is booked stays", field="effective_from")
    if at > now + 5 * 366 * 86_400 * NANOS_PER_SECOND:
        raise ApiProblem("field_range", "lies more than five years ahead", field="effective_from")
    return at


def put(console: Console, wanted: NewPrice) -> Row:
    """Set an own price; it ends the one before and ends itself where a later one is set already.

    Raises:
        ApiProblem: it cannot be.
    """
    if wanted.unit not in PRICED_UNITS:
        raise ApiProblem("field_enum", f"expected one of {', '.join(PRICED_UNITS)}", field="unit")
    try:
        pico = money.picos(wanted.price)
    except ValueError as problem:
        raise ApiProblem("field_range", str(problem), field="price") from problem
    begins = _moment(console, wanted.effective_from)
    catalogue = compiled(console)
    known = sorted({each.name for each in catalogue.providers})
    if wanted.provider not in known:
        choices = f"expected one of {', '.join(known)}" if known else "they are known after the first `faregate serve`"
        raise ApiProblem("field_enum", f"unknown provider; {choices}", field="provider")
    _refuse_outlier(catalogue, wanted, pico, begins)
    place = {"provider": wanted.provider, "model": wanted.model, "unit": wanted.unit}
    rows = sorted(every(console.books, "price", **place), key=lambda row: int(row["effective_from"]))
    same = [row for row in rows if row["effective_from"] == begins]
    later = [row for row in rows if row["effective_from"] > begins]
    now = console.clock.wall_nanos()
    for row in rows:
        if row["effective_from"] < begins and not 0 < row["effective_to"] <= begins:
            put_row(console, "price", {**row, "effective_to": begins, "updated_at": now})
    row = {
        "id": same[0]["id"] if same else console.new_id("prc_"),
        "name": "",
        **place,
        "pico": pico,
        "per": wanted.per,
        "above_input_tokens": 0,
        "effective_from": begins,
        "effective_to": later[0]["effective_from"] if later else 0,
        "source": "api",
        "details": {},
        "created_at": same[0]["created_at"] if same else now,
        "updated_at": now,
    }
    put_row(console, "price", row)
    return row


def _refuse_outlier(catalogue: Catalogue, wanted: NewPrice, pico: int, now: int) -> None:
    """Stop a price that is four digits off the one in force, unless it is confirmed."""
    if wanted.confirm or not pico:
        return
    for card in cards_now(catalogue, now):
        if (card.provider, card.model) == (wanted.provider, wanted.model):
            for rate in card.tiers[0].rates:
                if rate.unit == wanted.unit and rate.pico:
                    ratio = Fraction(pico, wanted.per) / Fraction(rate.pico, rate.per)
                    if not Fraction(1, OUTLIER) < ratio < OUTLIER:
                        rule = f"is more than {OUTLIER} times off the present one; is per right? Send confirm: true"
                        raise ApiProblem("invariant", rule, field="price")


def compiled(console: Console) -> Catalogue:
    """The catalogue by the books as they are now."""
    books = console.books
    projects = [str(row["name"]) for row in every(books, "project")]
    return console.compile_catalogue(every(books, "price"), projects)


def cards_now(catalogue: Catalogue, now: int) -> list[RateCard]:
    """The rate cards in force at ``now``, each once."""
    cards = {card.version: card for each in catalogue.deployments for card in each.cards}
    return [card for card in cards.values() if _holds(card.effective_from, card.effective_to, now)]


def _holds(begins: int, ends: int, now: int) -> bool:
    return begins <= now and (not ends or now < ends)


def shape(row: Row) -> dict[str, Any]:
    """An own price as the API shows it."""
    return {
        "id": row["id"],
        "provider": row["provider"],
        "model": row["model"],
        "unit": row["unit"],
        "per": row["per"],
        "price": money.dollars_of_picos(row["pico"]),
        "above_input_tokens": row["above_input_tokens"],
        "effective_from": time_text(row["effective_from"]),
        "effective_to": time_text(row["effective_to"]),
        "source": row["source"],
    }


def _effective(console: Console, provider: str, model: str) -> list[dict[str, Any]]:
    now = console.clock.wall_nanos()
    own = {
        (row["provider"], row["model"], row["unit"], row["pico"], row["per"]): row
        for row in every(console.books, "price")
        if _holds(row["effective_from"], row["effective_to"], now)
    }
    found = []
    for card in cards_now(compiled(console), now):
        if (provider and card.provider != provider) or (model and card.model != model):
            continue
        for tier in card.tiers:
            for rate in tier.rates:
                row = own.get((card.provider, card.model, rate.unit, rate.pico, rate.per))
                found.append(
                    {
                        "id": row["id"] if row else None,
                        "provider": card.provider,
                        "model": card.model,
                        "unit": rate.unit,
                        "per": rate.per,
                        "price": money.dollars_of_picos(rate.pico),
                        "above_input_tokens": tier.above_input_tokens,
                        "effective_from": time_text(row["effective_from"] if row else card.effective_from),
                        "effective_to": time_text(row["effective_to"] if row else card.effective_to),
                        "source": row["source"] if row else card.source,
                        "version": card.version,
                    }
                )
    found.sort(key=lambda each: (each["provider"], each["model"], each["above_input_tokens"], each["unit"]))
    return found


@router.get("")
async def list_prices(request: Request) -> dict[str, Any]:
    """Prices in force now, bundled and own, of the models that callers can reach; filters: ``provider``, ``model``."""
    console = console_of(request)
    wanted = single_values(request, ("provider", "model"))
    rows = await in_thread(lambda: _effective(console, wanted.get("provider", ""), wanted.get("model", "")))
    return {"data": rows, "next_cursor": None}


@router.put("")
async def set_price(request: Request, wanted: NewPrice) -> dict[str, Any]:
    """Set an own price from now or a later moment on."""
    console = console_of(request)
    row = await locked(console, lambda: put(console, wanted))
    return await acted(console, shape(row))


@router.delete("/{price_id}")
async def delete_price(request: Request, price_id: str) -> dict[str, Any]:
    """Take an own price back; what was booked with it stays."""
    console = console_of(request)

    def alone() -> None:
        row = console.books.get("price", price_id) if len(price_id) <= 64 else None
        if row is None:
            raise NotFound("there is no such own price; bundled prices are overridden, not removed")
        if row["source"] == "file":
            raise Conflict("this price is declared in the configuration file; change it there")
        remove_row(console, "price", price_id)

    await locked(console, alone)
    return await acted(console, {"id": price_id, "deleted": True})
