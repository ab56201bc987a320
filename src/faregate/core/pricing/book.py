"""Which tariff is in force at a moment.

A timeline holds the successive rate cards of one model at one provider, in one service tier, and compiles each once,
when it is first asked for: a catalogue has hundreds, of which a gate needs few. The moment is an argument; where no
card is in force the price is unknown, which is for the caller to refuse.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from faregate.core.pricing.card import RateCard
from faregate.core.pricing.cost import Tariff, effective_tiers

#: Later than every moment in nanoseconds that an 8-byte integer holds.
_OPEN: Final = 2**63


class PriceTimeline:
    """The tariffs of one model by time. Nothing of what it answers ever changes.

    Raises:
        ValueError: two cards overlap, one ends before it starts, or a card contradicts itself.
    """

    __slots__ = ("_cards", "_ends", "_starts", "_tariffs")

    def __init__(self, cards: Iterable[RateCard]) -> None:
        ordered = sorted(cards, key=lambda card: card.effective_from)
        self._starts = [card.effective_from for card in ordered]
        self._ends = [card.effective_to or _OPEN for card in ordered]
        self._cards = ordered
        self._tariffs: list[Tariff | None] = [None] * len(ordered)
        for index, card in enumerate(ordered):
            if self._ends[index] <= card.effective_from:
                raise ValueError(f"{card.version} ends before it starts")
            if index and self._ends[index - 1] > card.effective_from:
                raise ValueError(f"{card.version} overlaps {ordered[index - 1].version}")
            effective_tiers(card)

    def at(self, now_nanos: int) -> Tariff | None:
        """The tariff in force at ``now_nanos`` since 1970 UTC: from its start on, up to but not at its end."""
        index = bisect_right(self._starts, now_nanos) - 1
        if index >= 0 and now_nanos < self._ends[index]:
            tariff = self._tariffs[index]
            if tariff is None:
                tariff = self._tariffs[index] = Tariff(self._cards[index])
            return tariff
        return None
