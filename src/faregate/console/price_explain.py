"""``/api/v1/prices/explain``: what a model costs at a moment, where each rate comes from, what a usage would cost."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.describing import answers
from faregate.console.price_files import book_of
from faregate.console.problems import ApiProblem
from faregate.console.reading import every, in_thread, made_places
from faregate.console.requests import exact, tier_of
from faregate.console.rights import needs
from faregate.console.shapes import prices as shapes
from faregate.console.state import Console
from faregate.console.texts import Body, Moment, Name, moment, or_none, time_text
from faregate.console.writing import console_of
from faregate.core import money
from faregate.core.pricing.card import RateCard
from faregate.core.pricing.cost import Tariff, cost_lines
from faregate.core.pricing.listing import ExplainedCard, Explanation
from faregate.core.usage import (
    COUNT_MAX,
    OTHER_INPUT_UNITS,
    OTHER_OUTPUT_UNITS,
    OTHER_UNITS,
    Contradiction,
    Measure,
    Usage,
    measures,
    split,
)

router = APIRouter(prefix="/prices", tags=["prices"])

#: Totals and what they hold, as records tell them → the arguments of ``core.usage.split``.
_SPLIT = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cached_input_tokens": "cached",
    "cache_write_tokens": "cache_write",
    "input_audio_tokens": "input_audio",
    "reasoning_tokens": "reasoning",
    "output_audio_tokens": "output_audio",
}


class Question(Body):
    """A model, and what of it is asked."""

    model: Name
    provider: str = Field(default="", max_length=128)
    #: A moment; now where it is left out.
    at: Moment | None = None
    #: Units by name as records tell them: totals, what of them is cached …, and counted units, also by variant.
    usage: dict[str, int | dict[str, int]] | None = Field(default=None, max_length=32)


def usage_of(told: Mapping[str, int | Mapping[str, int]]) -> Usage:
    """A usage as people write it: totals of tokens, parts of these by kind, and counted units, also by variant.

    Raises:
        ApiProblem: an unknown unit, or parts that exceed their total.
    """
    tokens: dict[str, int] = {"input_tokens": 0, "output_tokens": 0}
    others: list[Measure] = []
    for name, value in told.items():
        if name in _SPLIT and isinstance(value, int):
            tokens[_SPLIT[name]] = value
        elif name in OTHER_UNITS:
            by_variant = {"": value} if isinstance(value, int) else value
            others += [Measure(name, variant, quantity) for variant, quantity in by_variant.items()]
        else:
            rule = f"unknown unit; expected any of {', '.join((*_SPLIT, *OTHER_UNITS))}"
            raise ApiProblem("field_unknown", rule, field=f"usage.{name[:32]}")
    if any(not 0 <= measure.quantity <= COUNT_MAX or len(measure.variant) > 64 for measure in others):
        raise ApiProblem("field_range", f"a quantity is a whole number from 0 to {COUNT_MAX}", field="usage")
    # Rarer kinds of tokens are part of the totals, too.
    tokens["input_tokens"] -= sum(each.quantity for each in others if each.unit in OTHER_INPUT_UNITS)
    tokens["output_tokens"] -= sum(each.quantity for each in others if each.unit in OTHER_OUTPUT_UNITS)
    found = split(**tokens)
    if isinstance(found, Contradiction):
        raise ApiProblem("field_range", found.rule, field="usage")
    return found._replace(other=measures(others))


def costed(card: RateCard, usage: Usage) -> dict[str, Any]:
    """What a usage costs by a card, line by line."""
    total = Fraction(0)
    lines = []
    for line in cost_lines(card, usage):
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
    tariff = Tariff(card)
    return {
        "above_input_tokens": tier_of(card, usage),
        "lines": lines,
        "sum": exact(total),
        "cost": money.dollars(tariff.cost(usage)),
        "unpriced": or_none(tariff.uncovered(usage.other)),
    }


def shape(explained: ExplainedCard, usage: Usage | None) -> dict[str, Any]:
    """A card as the API explains it."""
    card, origins = explained.card, explained.origins
    rates = [(tier, rate) for tier in card.tiers for rate in tier.rates]
    return {
        "version": card.version,
        "service_tier": or_none(card.service_tier),
        "region": or_none(card.region),
        "effective_from": time_text(card.effective_from),
        "effective_to": time_text(card.effective_to),
        "source": or_none(card.source),
        "notes": list(explained.notes),
        "rates": [
            {
                "unit": rate.unit,
                "variant": or_none(rate.variant),
                "above_input_tokens": tier.above_input_tokens,
                "per": rate.per,
                "price": money.dollars_of_picos(rate.pico),
                "layer": origin.layer,
                "source": or_none(origin.source),
            }
            for (tier, rate), origin in zip(rates, origins, strict=True)
        ],
        "usage": None if usage is None else costed(card, usage),
    }


def explained(console: Console, asked: Question, usage: Usage | None) -> dict[str, Any]:
    """The answer to a question.

    Raises:
        ApiProblem: the moment cannot be read.
    """
    at = console.clock.wall_nanos()
    if asked.at is not None:
        try:
            at = moment(asked.at)
        except ValueError as problem:
            raise ApiProblem("field_type", str(problem), field="at") from problem
    prices = every(console.books, "price")
    projects = [str(row["name"]) for row in every(console.books, "project")]
    found: Sequence[Explanation] = book_of(console).explain(
        prices, projects, asked.provider, asked.model, at, made_places(console.all_books)
    )
    return {
        "model": asked.model,
        "at": time_text(at),
        "data": [
            {
                "provider": each.provider,
                "model": each.model,
                "cards": [shape(card, usage) for card in each.cards],
                "reasons": list(each.reasons),
            }
            for each in found
        ],
    }


@router.post("/explain")
@needs("prices.read")
@answers(shapes.PriceExplanation)
async def explain_price(request: Request, asked: Question) -> dict[str, Any]:
    """What a model costs, which layer each rate comes from, what ``usage`` would cost, and why one is not priced."""
    console = console_of(request)
    usage = None if asked.usage is None else usage_of(asked.usage)
    return await in_thread(lambda: explained(console, asked, usage))
