"""``/api/v1/prices``: what a unit costs now, bundled, imported and own, and setting own prices.

An own price holds from its moment until the next one of the same unit; nothing that is already booked changes. Whole
files of prices are taken in by ``price_files``, and ``price_explain`` tells where a price comes from.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar, Final, NamedTuple

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.describing import answers, lists, text
from faregate.console.paging import page_in_order, read_page
from faregate.console.problems import ApiProblem
from faregate.console.reading import every, in_thread, made_places
from faregate.console.rights import needs
from faregate.console.shapes import prices as shapes
from faregate.console.shapes.values import Removed
from faregate.console.state import Console
from faregate.console.texts import NANOS_PER_SECOND, Body, Moment, Name, PriceDollars, moment, or_none, time_text
from faregate.console.versions import only_if_unchanged, versioned
from faregate.console.writing import acted, console_of, locked, put_all
from faregate.console.writing import remove as remove_row
from faregate.control import Catalogue
from faregate.core import money
from faregate.core.pricing.card import PRICED_UNITS, REGIONS, SERVICE_TIERS, Rate, RateCard, is_provisional
from faregate.errors import Conflict, NotFound
from faregate.ports import Row

router = APIRouter(prefix="/prices", tags=["prices"])

PER_MAX: Final = 1_000_000_000

#: No id is longer.
_ID_CHARACTERS_MAX: Final = 64

#: A new price this many times the old one, or this small a part of it, is per token where per million was meant.
OUTLIER: Final = 10_000

#: How far back "now" may lie, for clocks that differ and requests that take their time.
PAST_NANOS_MAX: Final = 60 * NANOS_PER_SECOND


class Place(NamedTuple):
    """What a price is the price of."""

    provider: str
    model: str
    unit: str
    variant: str = ""
    service_tier: str = ""
    region: str = ""
    above_input_tokens: int = 0


#: What of a price follows from what was sent.
_READ_ONLY: Final = frozenset({"id", "created_at", "updated_at", "effective_to", "layer", "source", "version"})


class NewPrice(Body):
    """An own price of one unit of a model at a provider."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY

    provider: Name
    model: Name
    unit: str = Field(max_length=32, json_schema_extra={"enum": list(PRICED_UNITS)})
    per: int = Field(ge=1, le=PER_MAX)
    #: Dollars for ``per`` units, as a decimal text.
    price: PriceDollars
    effective_from: Moment | None = None
    #: Which of the unit's, such as ``1024x1024/hd``; without one it prices all that have no price of their own.
    variant: str = Field(default="", max_length=64, pattern=r"^[!-~]*$")
    #: ``priority``, ``flex``, ``batch`` or ``scale``; the standard tier has no name.
    service_tier: str = Field(default="", max_length=16, json_schema_extra={"enum": list(SERVICE_TIERS)})
    region: str = Field(default="", max_length=64, pattern=r"^[!-~]*$", json_schema_extra={"enum": list(REGIONS)})
    #: It holds for calls with more input tokens than that.
    above_input_tokens: int = Field(default=0, ge=0, le=PER_MAX)
    #: Says that a price far from the one before is meant.
    confirm: bool = False


class OwnPriceChange(Body):
    """What may be changed of an own price; of another unit, or from another moment on, it is another price."""

    READ_ONLY: ClassVar[frozenset[str]] = (_READ_ONLY - {"effective_to"}) | {*Place._fields, "effective_from"}

    per: int | None = Field(default=None, ge=1, le=PER_MAX)
    #: Dollars for ``per`` units, as a decimal text.
    price: PriceDollars | None = None
    #: When it ends, now or later; ``null`` for when the next one begins, or never.
    effective_to: Moment | None = None
    #: Says that a price far from the one before is meant.
    confirm: bool = False


def _moment(console: Console, text: str | None, field: str, does: str) -> int:
    """The moment at which a price begins, or ends; now where none is given.

    Raises:
        ApiProblem: it is none, or lies in the past or far ahead.
    """
    now = console.clock.wall_nanos()
    if text is None:
        return now
    try:
        at = moment(text)
    except ValueError as problem:
        raise ApiProblem("field_type", str(problem), field=field) from problem
    if at < now - PAST_NANOS_MAX:
        raise ApiProblem("invariant", f"a price cannot {does} in the past: what is booked stays", field=field)
    if at > now + 5 * 366 * 86_400 * NANOS_PER_SECOND:
        raise ApiProblem("field_range", "lies more than five years ahead", field=field)
    return at


def _picos(price: str) -> int:
    try:
        return money.picos(price)
    except ValueError as problem:
        raise ApiProblem("field_range", str(problem), field="price") from problem


def _refuse_outlier(pico: int, per: int, present: Rate | None) -> None:
    if is_outlier(pico, per, present):
        rule = f"is more than {OUTLIER} times off the present one; is per right? Send confirm: true"
        raise ApiProblem("invariant", rule, field="price")


def put(console: Console, wanted: NewPrice) -> Row:
    """Set an own price; it ends the one before and ends itself where a later one is set already.

    Raises:
        ApiProblem: it cannot be.
    """
    if wanted.unit not in PRICED_UNITS:
        raise ApiProblem("field_enum", f"expected one of {', '.join(PRICED_UNITS)}", field="unit")
    if wanted.service_tier not in SERVICE_TIERS:
        rule = f"expected one of {', '.join(SERVICE_TIERS[1:])}, or nothing for the standard one"
        raise ApiProblem("field_enum", rule, field="service_tier")
    if wanted.region not in REGIONS:
        rule = f"expected one of {', '.join(REGIONS[1:])}, or nothing for all of them"
        raise ApiProblem("field_enum", rule, field="region")
    pico = _picos(wanted.price)
    begins = _moment(console, wanted.effective_from, "effective_from", "begin")
    catalogue = compiled(console)
    known = sorted({each.name for each in catalogue.providers})
    if wanted.provider not in known:
        none = "no configuration that can be used was found here; `faregate check` says why"
        choices = f"expected one of {', '.join(known)}" if known else none
        raise ApiProblem("field_enum", f"unknown provider; {choices}", field="provider")
    place = Place(
        wanted.provider,
        wanted.model,
        wanted.unit,
        wanted.variant,
        wanted.service_tier,
        wanted.region,
        wanted.above_input_tokens,
    )
    if not wanted.confirm:
        _refuse_outlier(pico, wanted.per, rates_at(catalogue, begins).get(place))
    rows = _own_of(console, place)
    same = [row for row in rows if row["effective_from"] == begins]
    later = [row for row in rows if row["effective_from"] > begins]
    now = console.clock.wall_nanos()
    ended = [
        {**row, "effective_to": begins, "updated_at": now}
        for row in rows
        if row["effective_from"] < begins and not 0 < row["effective_to"] <= begins
    ]
    row = row_of(place, "override", pico, wanted.per, begins, "api") | {
        "id": same[0]["id"] if same else console.new_id("prc_"),
        "effective_to": later[0]["effective_from"] if later else 0,
        "created_at": same[0]["created_at"] if same else now,
        "updated_at": now,
    }
    # Together: were the first kept alone, the price would end and none begin.
    put_all(console, "price", [*ended, row])
    return row


def _own_of(console: Console, place: Place) -> list[Row]:
    """All own prices of one thing, oldest first."""
    rows = every(console.books, "price", provider=place.provider, model=place.model, unit=place.unit)
    return sorted((row for row in rows if place_of(row) == place and layer_of(row) == "override"), key=_start)


def _end_of(console: Console, row: Row, wanted: OwnPriceChange) -> int:
    """When a price ends after a change: never after the next one has begun.

    Raises:
        ApiProblem: a moment that cannot be.
    """
    if "effective_to" not in wanted.model_fields_set:
        return int(row["effective_to"])
    later = [_start(each) for each in _own_of(console, place_of(row)) if _start(each) > _start(row)]
    if wanted.effective_to is None:
        return min(later, default=0)
    ends = max(_moment(console, wanted.effective_to, "effective_to", "end"), console.clock.wall_nanos())
    if ends <= _start(row):
        raise ApiProblem("invariant", "this price begins later; delete it instead", field="effective_to")
    return min([ends, *later])


def change(console: Console, price_id: str, wanted: OwnPriceChange) -> Row:
    """Change an own price from now on, or end it; what it was until now is kept as a row of its own.

    Raises:
        NotFound: no such price.
        Conflict: it has ended, was imported, or the configuration file declares it.
        ApiProblem: a value that cannot be.
    """
    before = _own_row(console, price_id)
    now = console.clock.wall_nanos()
    if layer_of(before) != "override":
        raise Conflict("an import brought this price; import another file, or set an own price over it")
    if 0 < before["effective_to"] <= now:
        raise Conflict("this price has ended, and what was booked with it stays; set a new one")
    for name in sorted(wanted.model_fields_set & {"per", "price"}):
        if getattr(wanted, name) is None:
            raise ApiProblem("field_range", "must not be null; leave it out instead", field=name)
    per = before["per"] if wanted.per is None else wanted.per
    pico = before["pico"] if wanted.price is None else _picos(wanted.price)
    row = {**before, "pico": pico, "per": per, "effective_to": _end_of(console, before, wanted), "updated_at": now}
    costs_the_same = (pico, per) == (before["pico"], before["per"])
    if costs_the_same and row["effective_to"] == before["effective_to"]:
        return before
    if not wanted.confirm:
        _refuse_outlier(pico, per, Rate(before["unit"], before["pico"], before["per"]))
    if costs_the_same or before["effective_from"] >= now:
        put_all(console, "price", [row])
        return row
    row["effective_from"] = now
    was = {**before, "id": console.new_id("prc_"), "effective_to": now, "updated_at": now}
    # Together, so that at no moment there is no price.
    put_all(console, "price", [was, row])
    return row


def _own_row(console: Console, price_id: str) -> Row:
    """An own or imported price by its id.

    Raises:
        NotFound: there is none.
        Conflict: the configuration file declares it.
    """
    row = _found(console, price_id)
    if row["source"] == "file":
        raise Conflict("this price is declared in the configuration file; change it there")
    return row


def _found(console: Console, price_id: str) -> Row:
    row = console.books.get("price", price_id) if len(price_id) <= _ID_CHARACTERS_MAX else None
    if row is None:
        raise NotFound("there is no such own price; bundled prices are overridden, not changed")
    return row


def take_back(console: Console, row: Row) -> None:
    """Remove a price; the own one that it ended holds on in its place."""
    if layer_of(row) == "override":
        before = [
            each
            for each in every(console.books, "price", provider=row["provider"], model=row["model"], unit=row["unit"])
            if each["effective_to"] == row["effective_from"]
            and each["source"] != "file"
            and layer_of(each) == "override"
            and place_of(each) == place_of(row)
        ]
        # First, so that at no moment there is no price: where both hold, the later one does.
        now = console.clock.wall_nanos()
        put_all(console, "price", [{**each, "effective_to": row["effective_to"], "updated_at": now} for each in before])
    remove_row(console, "price", row["id"])


def place_of(row: Row) -> Place:
    """What a kept price is the price of."""
    details = row["details"] or {}
    return Place(
        row["provider"],
        row["model"],
        row["unit"],
        details.get("variant", ""),
        details.get("service_tier", ""),
        details.get("region", ""),
        row["above_input_tokens"],
    )


def layer_of(row: Row) -> str:
    """``imported`` for what a file brought, ``override`` for what was set."""
    return str((row["details"] or {}).get("layer", "override"))


def row_of(place: Place, layer: str, pico: int, per: int, begins: int, source: str) -> Row:
    """A price as it is kept, but for its id and its end."""
    finer = {"variant": place.variant, "service_tier": place.service_tier, "region": place.region}
    kept = {name: value for name, value in finer.items() if value}
    return {
        "name": "",
        "provider": place.provider,
        "model": place.model,
        "unit": place.unit,
        "pico": pico,
        "per": per,
        "above_input_tokens": place.above_input_tokens,
        "effective_from": begins,
        "source": source,
        "details": kept if layer == "override" else {**kept, "layer": layer},
    }


#: Where a model is processed when nobody says where; cards have no name for it, prices may have.
GLOBAL: Final = "global"


def rates_at(catalogue: Catalogue, moment: int) -> dict[Place, Rate]:
    """Every rate that is in force at a moment, by all places that mean it."""
    return {
        place: rate
        for card in cards_now(catalogue, moment)
        for tier in card.tiers
        for rate in tier.rates
        for place in _places(card, rate, tier.above_input_tokens)
    }


def _places(card: RateCard, rate: Rate, above: int) -> tuple[Place, Place]:
    """What a price of a rate may be written for: for the region of its card, and for any."""
    here = Place(card.provider, card.model, rate.unit, rate.variant, card.service_tier, card.region or GLOBAL, above)
    return here, here._replace(region="")


def is_outlier(pico: int, per: int, present: Rate | None) -> bool:
    """Whether a price is four digits off the one in force, as one per token is where per million was meant."""
    if present is None or not pico or not present.pico:
        return False
    return not Fraction(1, OUTLIER) < Fraction(pico, per) / Fraction(present.pico, present.per) < OUTLIER


def _start(row: Row) -> int:
    return int(row["effective_from"])


def compiled(console: Console) -> Catalogue:
    """The catalogue by the books as they are now."""
    # What is sold where is the same for everybody; whoever may not see prices is told none that come of it.
    books = console.all_books
    projects = [str(row["name"]) for row in every(books, "project")]
    return console.compile_catalogue(every(books, "price"), projects, made_places(books))


def cards_now(catalogue: Catalogue, now: int) -> list[RateCard]:
    """The rate cards in force at ``now``, each once."""
    cards = {card.version: card for each in catalogue.deployments for card in each.cards}
    return [card for card in cards.values() if holds(card.effective_from, card.effective_to, now)]


def holds(begins: int, ends: int, now: int) -> bool:
    """Whether a span holds a moment; an end of 0 is open."""
    return begins <= now and (not ends or now < ends)


def shape(row: Row) -> dict[str, Any]:
    """An own or imported price as the API shows it."""
    place = place_of(row)
    return {
        "id": row["id"],
        "provider": place.provider,
        "model": place.model,
        "unit": place.unit,
        "variant": or_none(place.variant),
        "service_tier": or_none(place.service_tier),
        "region": or_none(place.region),
        "per": row["per"],
        "price": money.dollars_of_picos(row["pico"]),
        "above_input_tokens": place.above_input_tokens,
        "effective_from": time_text(row["effective_from"]),
        "effective_to": time_text(row["effective_to"]),
        "layer": layer_of(row),
        "source": row["source"],
    }


def _effective(console: Console, provider: str, model: str) -> list[dict[str, Any]]:
    now = console.clock.wall_nanos()
    own = {
        (place_of(row), row["pico"], row["per"]): row
        for row in sorted(every(console.books, "price"), key=_rank)
        if holds(row["effective_from"], row["effective_to"], now)
    }
    found = []
    for card in cards_now(compiled(console), now):
        if (provider and card.provider != provider) or (model and card.model != model):
            continue
        for tier in card.tiers:
            for rate in tier.rates:
                places = _places(card, rate, tier.above_input_tokens)
                row = next((own[key] for place in places if (key := (place, rate.pico, rate.per)) in own), None)
                found.append(
                    {
                        "id": row["id"] if row else None,
                        "provider": card.provider,
                        "model": card.model,
                        "unit": rate.unit,
                        "variant": or_none(rate.variant),
                        "service_tier": or_none(card.service_tier),
                        "region": or_none(card.region),
                        "per": rate.per,
                        "price": money.dollars_of_picos(rate.pico),
                        "above_input_tokens": tier.above_input_tokens,
                        "effective_from": time_text(row["effective_from"] if row else card.effective_from),
                        "effective_to": time_text(row["effective_to"] if row else card.effective_to),
                        "layer": layer_of(row) if row else "ceiling" if is_provisional(card.version) else "bundled",
                        "source": row["source"] if row else card.source,
                        "version": card.version,
                    }
                )
    found.sort(key=_shown_order)
    return found


def _rank(row: Row) -> tuple[bool, int]:
    """The later in this order lies above: what was set above what was imported, then the one that began later."""
    return layer_of(row) == "override", int(row["effective_from"])


def _shown_order(each: dict[str, Any]) -> tuple[str | int, ...]:
    names = ("provider", "model", "service_tier", "region", "above_input_tokens", "unit", "variant")
    return tuple("" if each[name] is None else each[name] for name in names)


@router.get("")
@needs("prices.read")
@lists(text("provider", "Name of a provider."), text("model", "Name of a model."))
@answers(shapes.Prices)
async def list_prices(request: Request) -> dict[str, Any]:
    """Prices in force now of the models that callers can reach, of all layers; filters: ``provider``, ``model``."""
    console = console_of(request)
    page = read_page(request)
    wanted = page.filters
    rows = await in_thread(lambda: _effective(console, wanted.get("provider", ""), wanted.get("model", "")))
    return page_in_order(request, page, rows, lambda row: (*_shown_order(row), row["version"]))


@router.get("/own")
@needs("prices.read")
@lists(text("provider", "Name of a provider."), text("model", "Name of a model."))
@answers(shapes.OwnPrices)
async def list_own_prices(request: Request) -> dict[str, Any]:
    """Own prices that hold or are to come; ``far_off`` are those that setting anew would want a ``confirm`` for."""
    console = console_of(request)
    page = read_page(request)
    rows = await in_thread(lambda: _own(console, page.filters))
    return page_in_order(request, page, rows, _own_order)


def _own(console: Console, filters: Mapping[str, str]) -> list[dict[str, Any]]:
    now = console.clock.wall_nanos()
    rows = [row for row in every(console.books, "price", **filters) if layer_of(row) == "override"]
    rows = [row for row in rows if not 0 < row["effective_to"] <= now]
    if not rows:
        return []
    bundled = rates_at(
        console.compile_catalogue(
            (), [str(row["name"]) for row in every(console.books, "project")], made_places(console.all_books)
        ),
        now,
    )
    shown = [shape(row) | {"far_off": is_outlier(row["pico"], row["per"], bundled.get(place_of(row)))} for row in rows]
    return sorted(shown, key=_own_order)


def _own_order(each: dict[str, Any]) -> tuple[str | int, ...]:
    return (*_shown_order(each), each["effective_from"] or "", each["id"])


@router.put("")
@needs("prices.write")
@answers(shapes.OwnPrice)
async def set_price(request: Request, wanted: NewPrice) -> dict[str, Any]:
    """Set an own price from now or a later moment on."""
    console = console_of(request)
    row = await locked(console, lambda: put(console, wanted))
    return await acted(console, shape(row))


@router.get("/{price_id}")
@needs("prices.read")
@answers(shapes.OwnPrice, versioned=True)
async def read_price(request: Request, price_id: str) -> dict[str, Any]:
    """One own or imported price, also one that has ended."""
    console = console_of(request)
    return shape(versioned(request, await in_thread(lambda: _found(console, price_id))))


@router.patch("/{price_id}")
@needs("prices.write")
@answers(shapes.OwnPrice, versioned=True)
async def change_price(request: Request, price_id: str, wanted: OwnPriceChange) -> dict[str, Any]:
    """Change what an own price costs from now on; until now it cost what it did, which has a row of its own then."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: _found(console, price_id))
    row = await locked(console, lambda: change(console, price_id, wanted), unchanged)
    return await acted(console, shape(versioned(request, row)))


@router.delete("/{price_id}")
@needs("prices.write")
@answers(Removed, versioned=True)
async def delete_price(request: Request, price_id: str) -> dict[str, Any]:
    """Take an own or imported price back, as if it had not been set: the own price that it ended goes on.

    What was booked with it stays. To end a price instead, change its ``effective_to``.
    """
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: _found(console, price_id))
    await locked(console, lambda: take_back(console, _own_row(console, price_id)), unchanged)
    return await acted(console, {"id": price_id, "deleted": True})
