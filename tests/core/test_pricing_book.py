"""Which tariff is in force at a moment."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.pricing.book import PriceTimeline
from faregate.core.pricing.card import Rate, RateCard, Tier


def card(version: str, start: int = 0, end: int = 0) -> RateCard:
    return RateCard("p", "m", version, (Tier(0, (Rate("input_tokens", 1, 1),)),), start, end)


@pytest.mark.parametrize(
    ("now", "expected"),
    [(0, "a"), (99, "a"), (100, "b"), (199, "b"), (200, None), (299, None), (300, "c"), (2**62, "c")],
)
def test_a_card_holds_from_its_start_up_to_its_end(now: int, expected: str | None) -> None:
    """Start belongs to the card, end to the next one; a gap has no price."""
    timeline = PriceTimeline([card("c", 300), card("a", 0, 100), card("b", 100, 200)])
    tariff = timeline.at(now)
    assert (tariff.version if tariff else None) == expected


def test_no_cards_mean_no_price_at_any_time() -> None:
    """The empty timeline answers ``None``."""
    assert PriceTimeline([]).at(1) is None


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ([card("a"), card("b", 5)], "overlaps"),
        ([card("a", 0, 10), card("b", 9)], "overlaps"),
        ([card("a", 5, 5)], "ends before"),
    ],
)
def test_cards_that_contradict_each_other_are_refused(cards: list[RateCard], message: str) -> None:
    """Two prices for one moment, or a stretch of no length, are nobody's intention."""
    with pytest.raises(ValueError, match=message):
        PriceTimeline(cards)


@given(st.sets(st.integers(0, 2**62), min_size=2, max_size=6), st.integers(0, 2**62))
def test_a_timeline_agrees_with_a_search_through_all_cards(moments: set[int], now: int) -> None:
    """The card found is the one whose stretch holds the moment."""
    ordered = sorted(moments)
    cards = [card(str(start), start, end) for start, end in pairwise(ordered)]
    expected = next((c.version for c in cards if c.effective_from <= now < c.effective_to), None)
    tariff = PriceTimeline(cards).at(now)
    assert (tariff.version if tariff else None) == expected
