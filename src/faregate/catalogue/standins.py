"""Prices that stand in for one that is not known: the operator's fallback, or the dearest that it can be.

A ceiling is provisional: its card says so in its version (``core.pricing.card.is_provisional``), so that what was
charged by it is trued up when the price is known. Which of them an installation wants is for the caller to say.
"""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Final

from faregate.catalogue.aliases import usual
from faregate.catalogue.azure import KIND as AZURE
from faregate.catalogue.bundled import ListPrice, Stretch
from faregate.catalogue.corrections import known_models, known_price
from faregate.catalogue.declared import PriceRow
from faregate.catalogue.maximums import facts_of
from faregate.catalogue.model_facts import CHAT, GENERATE, MESSAGES
from faregate.catalogue.timeline import card, successive_cards
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.cost import card_is_priced, effective_tiers, rate_of

#: The parts of a name, so that gpt-5.9-mini is one of gpt-5's, and of gpt's.
_PARTS: Final = re.compile(r"[-.:]")

_SPEAKING: Final = frozenset((CHAT, MESSAGES[0], GENERATE[0]))
_BOTH: Final = ("input_tokens", "output_tokens")


def fallback_cards(provider: str, kind: str, model: str, rows: Sequence[PriceRow]) -> tuple[RateCard, ...]:
    """The operator's prices for any model, else the dearest rates that the provider's list has for a chat."""
    own = successive_cards(provider, model, None, [row._replace(source="fallback") for row in rows])
    if own and all(card_is_priced(each) for each in own):
        return own
    # A model that a list leaves out for its endpoint may be of any price.
    speaking = (name for name in known_models(_sold_by(kind)) if _speaks(kind, name))
    dearest = {
        unit: rate for (unit, variant), rate in _dearest(kind, speaking).items() if unit in _BOTH and not variant
    }
    if len(dearest) < len(_BOTH):
        return ()
    stretch = Stretch(0, 0, (Tier(0, tuple(dearest[unit] for unit in _BOTH)),))
    return (card(provider, model, stretch, "fallback"),)


def ceiling_cards(provider: str, kind: str, model: str, rows: Sequence[PriceRow]) -> tuple[RateCard, ...]:
    """What a model costs at most: as declared for the provider or for any, else as the dearest of its family."""
    fitting = [row for row in rows if row.provider == provider] or [row for row in rows if not row.provider]
    if fitting:
        rates = tuple(Rate(row.unit, row.price_pico, row.per, row.variant) for row in fitting)
        made = card(
            provider, model, Stretch(0, 0, (Tier(0, rates),)), "provisional: declared ceiling", provisional=True
        )
        return (made,) if card_is_priced(made, has_output=any(rate.unit == "output_tokens" for rate in rates)) else ()
    family, names = _family(kind, model)
    dearest = _dearest(kind, names)
    if not dearest:
        return ()
    rates = tuple(dearest[place] for place in sorted(dearest))
    source = f"provisional: the dearest of {family or 'all models'}"
    return (card(provider, model, Stretch(0, 0, (Tier(0, rates),)), source, provisional=True),)


def _family(kind: str, model: str) -> tuple[str, list[str]]:
    """The longest beginning of a name that known models share, and these; all of the kind where none does."""
    known = [name for name in known_models(_sold_by(kind)) if isinstance(known_price(kind, name), ListPrice)]
    parts = _PARTS.split(usual(model))
    for length in range(len(parts), 0, -1):
        sharing = [name for name in known if _PARTS.split(name)[:length] == parts[:length]]
        if sharing:
            return "-".join(parts[:length]), sharing
    return "", known


def _dearest(kind: str, names: Iterable[str]) -> dict[tuple[str, str], Rate]:
    """The highest price of each unit among the newest prices of some models, in any tier of theirs."""
    found: dict[tuple[str, str], Rate] = {}
    rows = []
    for name in names:
        price = known_price(kind, name)
        if isinstance(price, ListPrice):
            rows += effective_tiers(RateCard("", name, name, price.stretches[-1].tiers))
    for rates in rows:
        for place, rate in rates.items():
            if place not in found or _value(rate) > _value(found[place]):
                found[place] = rate
    # A model without a price of its own for what others price apart pays its whole price for it.
    for unit, variant in tuple(found):
        if not variant:
            for rates in rows:
                instead = rate_of(rates, unit)
                if instead is not None and _value(instead) > _value(found[unit, ""]):
                    found[unit, ""] = instead._replace(unit=unit)
    return found


def _value(rate: Rate) -> Fraction:
    return Fraction(rate.pico, rate.per)


def _sold_by(kind: str) -> str:
    return "openai" if kind == AZURE else kind


def _speaks(kind: str, name: str) -> bool:
    facts = facts_of(name, kind)
    return facts is not None and not _SPEAKING.isdisjoint(facts.operations)
