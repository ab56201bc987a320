"""Prices laid over prices: what replaces what within the tiers of a card, and prices in proportion to others.

Pure arithmetic on tiers; where the prices come from, and when they hold, is known elsewhere.
"""

from collections.abc import Callable, Mapping
from typing import Final

from faregate.core.pricing.card import PRICED_UNITS, Rate, Tier
from faregate.core.usage import COUNTED_UNITS

#: A unit, its variant, and the input tokens above which it is priced so.
Place = tuple[str, str, int]

_NOT_TOKENS: Final = frozenset((*COUNTED_UNITS, "requests"))


def laid_over(tiers: tuple[Tier, ...], rates: Mapping[Place, Rate]) -> tuple[Tier, ...]:
    """The tiers with each rate in place of its unit's.

    A rate above 0 tokens replaces its unit's in every tier; one above more than that holds from there on, and makes the
    tier where there is none.
    """
    if not rates:
        return tiers
    everywhere = {(unit, variant): rate for (unit, variant, above), rate in rates.items() if not above}
    found: dict[int, dict[tuple[str, str], Rate]] = {}
    for tier in tiers or (Tier(0, ()),):
        kept = {(rate.unit, rate.variant): rate for rate in tier.rates if (rate.unit, rate.variant) not in everywhere}
        found[tier.above_input_tokens] = kept
    found.setdefault(0, {}).update(everywhere)
    for (unit, variant, above), rate in rates.items():
        if above:
            found.setdefault(above, {})[unit, variant] = rate
    return tuple(Tier(above, _ordered(found[above])) for above in sorted(found) if found[above] or not above)


def scaled(tiers: tuple[Tier, ...], times: int, parts: int) -> tuple[Tier, ...]:
    """The tiers with every price of tokens ``times / parts`` of what it was, exactly; other prices stay."""

    def changed(rate: Rate) -> Rate:
        if is_counted(rate.unit):
            return rate
        pico, rest = divmod(rate.pico * times, parts)
        if not rest:
            return rate._replace(pico=pico)
        return rate._replace(pico=rate.pico * times, per=rate.per * parts)

    return _each(tiers, changed)


def counted_only(tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
    """The tiers without any price of tokens."""
    kept = (
        Tier(tier.above_input_tokens, tuple(rate for rate in tier.rates if is_counted(rate.unit))) for tier in tiers
    )
    return tuple(tier for tier in kept if tier.rates or not tier.above_input_tokens)


def is_counted(unit: str) -> bool:
    """Whether a unit is something else than tokens."""
    return unit in _NOT_TOKENS


def _each(tiers: tuple[Tier, ...], change: Callable[[Rate], Rate]) -> tuple[Tier, ...]:
    return tuple(Tier(tier.above_input_tokens, tuple(change(rate) for rate in tier.rates)) for tier in tiers)


def _ordered(rates: Mapping[tuple[str, str], Rate]) -> tuple[Rate, ...]:
    return tuple(sorted(rates.values(), key=lambda rate: (PRICED_UNITS.index(rate.unit), rate.variant)))
