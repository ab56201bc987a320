"""What a provider's cache of prompts saves: exactly what the calls would have cost more without it."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.money import PICOS_PER_DOLLAR
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.cost import cost_lines, own_input
from faregate.core.pricing.prompt_cache import PromptCachePrices, cache_measures
from faregate.core.usage import Measure, Usage, measures

MILLION = 1_000_000


def rate(unit: str, cents: int, variant: str = "") -> Rate:
    return Rate(unit, cents * PICOS_PER_DOLLAR // 100, MILLION, variant)


def card(*rates: Rate, above: tuple[Tier, ...] = ()) -> RateCard:
    return RateCard("anthropic", "m", "anthropic/m@test", (Tier(0, rates), *above))


CLAUDE = card(
    rate("input_tokens", 300),
    rate("cached_input_tokens", 30),
    rate("cache_write_tokens", 375),
    rate("cache_write_1h_tokens", 600),
    rate("output_tokens", 1500),
)
TIERED = card(
    *CLAUDE.tiers[0].rates,
    above=(Tier(200_000, (rate("input_tokens", 600), rate("cached_input_tokens", 60))),),
)
AUDIO = card(rate("input_tokens", 250), rate("input_audio_tokens", 4000), rate("output_tokens", 1000))


def saved(of: RateCard, usage: Usage) -> Fraction:
    """Dollars that were saved of one call."""
    length = sum(usage[:4]) + own_input(usage.other)
    return PromptCachePrices(of).saved(cache_measures(usage), length) / PICOS_PER_DOLLAR


@pytest.mark.parametrize(
    ("of", "usage", "dollars"),
    [
        (CLAUDE, Usage(input_text=100, input_cached=MILLION), Fraction(27, 10)),
        (CLAUDE, Usage(input_text=100, input_cache_write=MILLION), Fraction(-75, 100)),
        (CLAUDE, Usage(other=(Measure("cache_write_1h_tokens", "", MILLION),)), Fraction(-3)),
        (CLAUDE, Usage(input_cached=MILLION, input_cache_write=MILLION), Fraction(195, 100)),
        (TIERED, Usage(input_cached=200_000), Fraction(54, 100)),
        (TIERED, Usage(input_text=1, input_cached=200_000), Fraction(108, 100)),
        (AUDIO, Usage(other=(Measure("cached_input_audio_tokens", "", MILLION),)), Fraction(0)),
        (AUDIO, Usage(input_cached=MILLION), Fraction(0)),
        (card(rate("images", 4)), Usage(input_cached=MILLION), Fraction(0)),
        (CLAUDE, Usage(other=(Measure("cached_input_audio_tokens", "gpt-4o-audio", 9),)), Fraction(0)),
        (CLAUDE, Usage(input_text=MILLION, output_text=MILLION), Fraction(0)),
    ],
)
def test_what_is_saved(of: RateCard, usage: Usage, dollars: Fraction) -> None:
    """Reading from the cache saves, writing to it may cost more, and the prices are those of the call's own tier."""
    assert saved(of, usage) == dollars


quantities = st.integers(0, 400_000)
others = st.lists(
    st.builds(
        Measure,
        st.sampled_from(("cache_write_1h_tokens", "cached_input_audio_tokens", "cached_input_image_tokens", "images")),
        st.just(""),
        quantities,
    ),
    max_size=3,
).map(measures)
#: Kinds that have a price of their own would be plain ones of their own, which a usage has no leaf to say for all.
cards = st.sampled_from((CLAUDE, TIERED, card(rate("input_tokens", 7), rate("cached_input_tokens", 9))))


@given(of=cards, text=quantities, cached=quantities, written=quantities, other=others)
def test_it_is_what_the_same_call_would_have_cost_more_as_plain_input(
    of: RateCard, text: int, cached: int, written: int, other: tuple[Measure, ...]
) -> None:
    """Priced with all of its cached and written tokens as text, the call costs exactly so much more."""
    usage = Usage(input_text=text, input_cached=cached, input_cache_write=written, other=other)
    moved = cache_measures(usage)
    plain = Usage(
        input_text=text + sum(each.quantity for each in moved),
        other=tuple(each for each in other if each not in moved),
    )

    def exact(each: Usage) -> Fraction:
        lines = cost_lines(of, each)
        return sum((Fraction(line.numerator, line.denominator) for line in lines), Fraction(0)) / PICOS_PER_DOLLAR

    assert saved(of, usage) == exact(plain) - exact(usage)
