"""What a provider's own cache of prompts saves: its price of tokens that it had read before, against their plain price.

Writing to such a cache may cost more than reading the same tokens once, so that it can also lose money. Everything is
exact here and rounded by whoever shows it.
"""

from bisect import bisect_left
from collections.abc import Iterable
from fractions import Fraction
from typing import Final

from faregate.core.pricing.card import RateCard
from faregate.core.pricing.cost import effective_tiers, rate_of
from faregate.core.usage import Measure, Usage

#: Tokens that were read from the cache, and what they would have been without it.
READ: Final = {
    "cached_input_tokens": "input_tokens",
    "cached_input_audio_tokens": "input_audio_tokens",
    "cached_input_image_tokens": "input_image_tokens",
}

#: The same of tokens that were written to it.
WRITTEN: Final = {
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "input_tokens",
}

_PLAIN: Final = {**READ, **WRITTEN}


def cache_measures(usage: Usage) -> list[Measure]:
    """What ``usage`` has of such tokens, the leaves among them."""
    leaves = [
        Measure("cached_input_tokens", "", usage.input_cached),
        Measure("cache_write_tokens", "", usage.input_cache_write),
    ]
    return [each for each in (*leaves, *usage.other) if each.unit in _PLAIN and each.quantity]


class PromptCachePrices:
    """What is saved at the prices of one rate card.

    Raises:
        ValueError: as ``Tariff`` does.
    """

    def __init__(self, card: RateCard) -> None:
        self._tiers = effective_tiers(card)
        #: Numbers of input tokens beyond which other prices hold; mostly none.
        self.thresholds = tuple(tier.above_input_tokens for tier in card.tiers[1:])

    def saved(self, used: Iterable[Measure], input_length: int) -> Fraction:
        """Pico-dollars that the cache saved of ``used``; negative where writing cost more than reading saved.

        ``used`` may be of several calls, each of whose input is as long as ``input_length``, or in the same tier.
        """
        rates = self._tiers[bisect_left(self.thresholds, input_length)]
        total = Fraction(0)
        for unit, variant, quantity in used:
            plain = _PLAIN[unit]
            if variant:
                # These are another model's, so that what the plain ones of this model cost says nothing about them.
                own, whole = rates.get((unit, variant)), rates.get((plain, variant))
            else:
                own, whole = rate_of(rates, unit), rate_of(rates, plain)
            if own is not None and whole is not None:
                total += quantity * (Fraction(whole.pico, whole.per) - Fraction(own.pico, own.per))
        return total
