"""Usage × price, its bound and its derivation."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from faregate.core import pricing
from faregate.core.call import AUDIO_IN, AUDIO_OUT, CACHE_WRITE_1H, IMAGE_IN, IMAGE_OUT
from faregate.core.money import NANOS_PER_DOLLAR, PICOS_PER_DOLLAR
from faregate.core.pricing.card import PRICED_UNITS, PROVISIONAL, Rate, RateCard, Tier, is_provisional
from faregate.core.pricing.cost import CostLine, Tariff, card_is_priced, cost_lines
from faregate.core.usage import (
    COUNT_MAX,
    COUNTED_UNITS,
    NO_USAGE,
    OTHER_INPUT_UNITS,
    OTHER_OUTPUT_UNITS,
    OTHER_UNITS,
    Measure,
    Usage,
    measures,
)

MILLION = 1_000_000


def per_million(unit: str, dollars_in_cents: int) -> Rate:
    return Rate(unit, dollars_in_cents * PICOS_PER_DOLLAR // 100, MILLION)


def card(*rates: Rate, above: tuple[Tier, ...] = ()) -> RateCard:
    return RateCard("openai", "house-model", "openai/house-model@test", (Tier(0, rates), *above))


GPT_4O = card(
    per_million("input_tokens", 250), per_million("cached_input_tokens", 125), per_million("output_tokens", 1000)
)
TIERED = card(
    per_million("input_tokens", 500),
    per_million("cached_input_tokens", 50),
    per_million("output_tokens", 3000),
    above=(Tier(272_000, (per_million("input_tokens", 1000), per_million("output_tokens", 4500))),),
)

leaves = st.one_of(st.integers(0, 50), st.integers(0, 300_000), st.integers(0, COUNT_MAX))
variants = st.sampled_from(("", "", "1024x1024/hd", "preview"))
others = st.lists(st.builds(Measure, st.sampled_from(OTHER_UNITS), variants, leaves), max_size=4).map(measures)
usages = st.builds(Usage, leaves, leaves, leaves, leaves, leaves, leaves, leaves, st.one_of(st.just(()), others))

#: Kind of tokens → the bit of ``Call.media`` that allows it.
ALLOWED_BY = {
    "cache_write_1h_tokens": CACHE_WRITE_1H,
    "input_image_tokens": IMAGE_IN,
    "cached_input_image_tokens": IMAGE_IN,
    "cached_input_audio_tokens": AUDIO_IN,
    "output_image_tokens": IMAGE_OUT,
}


def media_of(usage: Usage) -> int:
    """The kinds of tokens that a call must have been allowed to use this."""
    media = (AUDIO_IN if usage.input_audio else 0) | (AUDIO_OUT if usage.output_audio else 0)
    for measure in usage.other:
        if not measure.variant:
            media |= ALLOWED_BY.get(measure.unit, 0)
    return media


def totals_of(usage: Usage) -> tuple[int, int]:
    """Its own input and output tokens: those of a variant are another model's."""
    own = usage._replace(other=tuple(measure for measure in usage.other if not measure.variant))
    return own.input_tokens, own.output_tokens


def beside(usage: Usage) -> tuple[Measure, ...]:
    """What it used that no total of tokens holds."""
    return tuple(measure for measure in usage.other if measure.variant or measure.unit in COUNTED_UNITS)


@st.composite
def cards(draw: st.DrawFn) -> RateCard:
    """Any card that prices input and output, with up to two more tiers."""
    picos = st.one_of(st.just(0), st.integers(0, 10**15), st.sampled_from((15 * 10**10, 25 * 10**11)))
    pers = st.sampled_from((1, 3, 1_000, MILLION, 999_983))
    thresholds = sorted(draw(st.sets(st.integers(1, 300_000), max_size=2)))
    tiers = []
    for above in (0, *thresholds):
        units = draw(st.sets(st.sampled_from(PRICED_UNITS)))
        if above == 0:
            units |= {"input_tokens", "output_tokens"}
        places = dict.fromkeys((unit, variant) for unit in sorted(units) for variant in ("", draw(variants)))
        tiers.append(Tier(above, tuple(Rate(unit, draw(picos), draw(pers), variant) for unit, variant in places)))
    return RateCard("p", "m", "p/m@any", tuple(tiers))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (NO_USAGE, 0),
        (Usage(input_text=1), 2_500),
        (Usage(input_text=40, input_cached=60, output_text=30, output_reasoning=20), 675_000),
        (Usage(input_audio=10, input_cache_write=10, output_audio=10), 150_000),
        (Usage(input_text=MILLION, output_text=MILLION), 12_500_000_000),
    ],
)
def test_a_call_costs_its_leaves(usage: Usage, expected: int) -> None:
    """Each leaf at its own rate, and at the rate of its kind where it has none."""
    assert Tariff(GPT_4O).cost(usage) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(input_text=272_000, output_text=1_000), 1_390_000_000),
        (Usage(input_text=272_001, output_text=1_000), 2_765_010_000),
        (Usage(input_text=72_001, input_cached=200_000, output_text=0), 820_010_000),
    ],
)
def test_a_tier_is_a_cliff_by_all_input(usage: Usage, expected: int) -> None:
    """Above its threshold a tier prices the whole call; what it does not name keeps its price."""
    assert Tariff(TIERED).cost(usage) == expected


def test_a_price_by_the_call_is_owed_for_every_call() -> None:
    """A ``requests`` rate counts once, whatever was used."""
    by_call = card(Rate("requests", 35 * PICOS_PER_DOLLAR, 1_000))
    assert Tariff(by_call).cost(NO_USAGE) == 35_000_000


def test_a_million_tiny_calls_add_up_exactly() -> None:
    """1,000,000 calls of 0.0000015 dollars are 1.5 dollars."""
    tariff = Tariff(card(Rate("input_tokens", 1_500_000, 1)))
    usage = Usage(input_text=1)
    assert sum(tariff.cost(usage) for _ in range(MILLION)) == 3 * NANOS_PER_DOLLAR // 2


def test_rounding_happens_once_and_half_to_even() -> None:
    """Half a nano-dollar and one and a half go to 0 and 2; four quarters are one and not four zeros."""
    quarter = Tariff(card(Rate("input_tokens", 250, 1), Rate("output_tokens", 250, 1)))
    costs = [quarter.cost(Usage(input_text=n)) for n in (1, 2, 3, 4, 6)]
    assert costs == [0, 0, 1, 1, 2]
    assert quarter.cost(Usage(1, 1, 0, 0, 1, 1, 0)) == 1


@given(cards(), usages)
def test_lines_add_up_to_the_cost(card: RateCard, usage: Usage) -> None:
    """The exact amounts of a derivation sum to an exact total that rounds to the cost."""
    lines = cost_lines(card, usage)
    exact = sum((Fraction(line.numerator, line.denominator) for line in lines), Fraction(0))
    assert round(exact / 1_000) == Tariff(card).cost(usage)


def test_a_line_says_which_rate_it_used() -> None:
    """Reasoning tokens without a rate of their own are shown as what they are and priced as output."""
    assert cost_lines(GPT_4O, Usage(output_reasoning=7)) == [
        CostLine("reasoning_tokens", "output_tokens", 7, 10 * PICOS_PER_DOLLAR, MILLION, 70 * PICOS_PER_DOLLAR, MILLION)
    ]


def test_nothing_used_has_no_lines() -> None:
    """The derivation of nothing is empty."""
    assert cost_lines(GPT_4O, NO_USAGE) == []


@given(cards(), usages, st.sampled_from((*Usage._fields[:-1], *OTHER_UNITS)), variants, st.integers(1, COUNT_MAX))
def test_more_usage_never_costs_less_within_a_tier(
    card: RateCard, usage: Usage, unit: str, variant: str, more: int
) -> None:
    """Raising any one leaf or other unit raises the cost or leaves it, as long as the same rates apply."""
    if unit in OTHER_UNITS:
        raised = usage._replace(other=measures((*usage.other, Measure(unit, variant, more))))
    else:
        raised = usage._replace(**{unit: getattr(usage, unit) + more})
    thresholds = [tier.above_input_tokens for tier in card.tiers]
    assume(all((totals_of(usage)[0] > t) == (totals_of(raised)[0] > t) for t in thresholds))
    tariff = Tariff(card)
    assert 0 <= tariff.cost(usage) <= tariff.cost(raised)


@given(cards(), usages, st.integers(0, COUNT_MAX), st.integers(0, COUNT_MAX), st.integers(0, 31))
def test_no_usage_within_the_totals_exceeds_their_bound(
    card: RateCard, usage: Usage, more_in: int, more_out: int, more_media: int
) -> None:
    """Whatever leaves and tier a call ends up with, it costs at most the bound of what it stays within."""
    incoming, outgoing = totals_of(usage)
    at_most = measures((*beside(usage), Measure("images", "", more_in % 3)))
    bound = Tariff(card).bound(incoming + more_in, outgoing + more_out, media_of(usage) | more_media, at_most)
    assert Tariff(card).cost(usage) <= bound


@given(cards(), usages, others)
def test_a_bound_never_falls(card: RateCard, usage: Usage, more: tuple[Measure, ...]) -> None:
    """More tokens, more kinds of them or more of other units are never bounded by less."""
    tariff = Tariff(card)
    incoming, outgoing = totals_of(usage)
    bounds = [
        tariff.bound(incoming, outgoing),
        tariff.bound(incoming, outgoing, media_of(usage)),
        tariff.bound(incoming, outgoing, media_of(usage), beside(usage)),
        tariff.bound(incoming, outgoing, media_of(usage), measures((*beside(usage), *more))),
        tariff.bound(incoming + 1, outgoing + 1, 31, measures((*beside(usage), *more))),
    ]
    assert bounds == sorted(bounds)
    assert bounds[0] >= 0


def test_kinds_that_a_call_cannot_use_do_not_raise_its_bound() -> None:
    """Audio at 40 dollars a million is held for a call that may hear or speak, and for no other."""
    audio = card(
        *GPT_4O.tiers[0].rates, per_million("input_audio_tokens", 4_000), per_million("output_audio_tokens", 8_000)
    )
    bounds = [Tariff(audio).bound(1_000, 1_000, media) for media in (0, AUDIO_IN, AUDIO_IN | AUDIO_OUT)]
    assert bounds == [12_500_000, 50_000_000, 120_000_000]


def test_an_hours_cache_is_held_only_where_it_is_asked_for() -> None:
    """Writing to a cache for five minutes may happen in any call."""
    claude = card(
        per_million("input_tokens", 500),
        per_million("cache_write_tokens", 625),
        per_million("cache_write_1h_tokens", 1_000),
        per_million("output_tokens", 2_500),
    )
    assert [Tariff(claude).bound(MILLION, 0, media) // NANOS_PER_DOLLAR for media in (0, CACHE_WRITE_1H)] == [6, 10]


IMAGES = card(
    Rate("images", 40 * 10**9, 1, "1024x1024"),
    Rate("images", 80 * 10**9, 1, "1024x1024/hd"),
)


@pytest.mark.parametrize(
    ("variant", "expected", "missing"),
    [("1024x1024", 120_000_000, ""), ("1024x1024/hd", 240_000_000, ""), ("9x9", 0, "images (9x9)")],
)
def test_a_variant_has_its_own_price_or_none(variant: str, expected: int, missing: str) -> None:
    """Three images by size and quality; a size without a row costs nothing and is named, so that nobody asks for it."""
    used = (Measure("images", variant, 3),)
    tariff = Tariff(IMAGES)
    assert tariff.cost(Usage(other=used)) == expected
    assert tariff.bound(0, 0, 0, used) == expected
    assert tariff.unpriced(used) == tariff.uncovered(used) == missing


def test_a_rate_without_a_variant_prices_all_that_have_none_of_their_own() -> None:
    """A search costs a cent, its preview two and a half."""
    searches = card(
        *GPT_4O.tiers[0].rates,
        Rate("web_searches", 10 * PICOS_PER_DOLLAR, 1_000),
        Rate("web_searches", 25 * PICOS_PER_DOLLAR, 1_000, "preview"),
    )
    costs = [Tariff(searches).cost(Usage(other=(Measure("web_searches", name, 1),))) for name in ("", "preview", "x")]
    assert costs == [10_000_000, 25_000_000, 10_000_000]


def test_what_is_sold_by_the_piece_or_by_the_token_is_covered_by_either() -> None:
    """A model that bills its images by tokens needs no price of an image; a tool always needs one of its own."""
    image, search = (Measure("images", "1024x1024", 1),), (Measure("web_searches", "", 1),)
    assert Tariff(GPT_4O).uncovered(image) == ""
    assert Tariff(GPT_4O).unpriced(image) == "images (1024x1024)"
    assert Tariff(GPT_4O).uncovered((*image, *search)) == "web_searches"
    assert Tariff(IMAGES).uncovered((Measure("seconds", "", 1),)) == "seconds"


def test_tokens_of_a_model_that_a_tool_called_make_no_long_call() -> None:
    """An image model read 300,000 tokens; the call itself stays below its threshold, in its cost and in its bound."""
    painted = Tier(0, (*TIERED.tiers[0].rates, per_million("input_image_tokens", 1_000)._replace(variant="painter")))
    tariff = Tariff(RateCard("p", "m", "v", (painted, *TIERED.tiers[1:])))
    tool = (Measure("input_image_tokens", "painter", 300_000),)
    usage = Usage(input_text=1_000, other=tool)
    assert tariff.cost(usage) == tariff.bound(1_000, 0, 0, tool) == 5_000_000 + 3_000_000_000


def test_rarer_tokens_that_come_on_top_reach_their_tier() -> None:
    """What may be used beside the totals counts towards the threshold, as it does when it was used."""
    tariff = Tariff(TIERED)
    seen = (Measure("input_image_tokens", "", 272_000),)
    assert tariff.bound(1, 0, IMAGE_IN, seen) >= tariff.cost(Usage(input_text=1, other=seen))


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (("input_tokens",), "input_tokens"),
        (("input_tokens", "cached_input_tokens"), "cached_input_tokens"),
        (("input_tokens", "cached_input_tokens", "input_image_tokens"), "input_image_tokens"),
        (("input_tokens", "cached_input_tokens", "cached_input_image_tokens"), "cached_input_image_tokens"),
    ],
)
def test_what_is_cached_costs_as_cached_unless_its_kind_has_a_price(rates: tuple[str, ...], expected: str) -> None:
    """A cached image is as cheap as cached text, or else as dear as an image: nothing between is known."""
    priced = card(
        *(per_million(unit, 100 + index) for index, unit in enumerate(rates)), per_million("output_tokens", 1)
    )
    used = Usage(other=(Measure("cached_input_image_tokens", "", 1),))
    assert cost_lines(priced, used)[0].priced_as == expected


def test_a_dearer_lower_tier_counts_in_the_bound() -> None:
    """A call bounded into a cheap upper tier may still end in the dear lower one."""
    falling = card(per_million("input_tokens", 900), above=(Tier(10, (per_million("input_tokens", 100),)),))
    assert Tariff(falling).bound(11, 0) >= Tariff(falling).cost(Usage(input_text=10))


@given(cards(), st.integers(0, 10**15), st.integers(0, COUNT_MAX), st.integers(0, 31), others)
def test_the_largest_output_within_a_sum_fits_and_one_more_does_not(
    card: RateCard, nanos: int, input_tokens: int, media: int, at_most: tuple[Measure, ...]
) -> None:
    """``output_tokens_within`` is the exact inverse of the bound, and -1 where the input alone is too dear."""
    tariff = Tariff(card)
    most = tariff.output_tokens_within(nanos, input_tokens, media, at_most)
    if most < 0:
        assert tariff.bound(input_tokens, 0, media, at_most) > nanos
        return
    assert tariff.bound(input_tokens, most, media, at_most) <= nanos
    assert most == COUNT_MAX or tariff.bound(input_tokens, most + 1, media, at_most) > nanos


@pytest.mark.parametrize(
    ("rates", "has_output", "expected"),
    [
        ((), True, False),
        (("input_tokens",), True, False),
        (("input_tokens",), False, True),
        (("input_tokens", "output_tokens"), True, True),
        (("output_tokens",), True, False),
        (("requests",), True, True),
        (("requests", "output_tokens"), True, False),
        (("cached_input_tokens",), False, False),
        (("seconds",), True, True),
        (("images", "web_searches"), True, True),
        (("web_searches",), True, False),
        (("code_sessions", "file_searches"), False, False),
        (("output_image_tokens",), True, False),
    ],
)
def test_a_card_is_priced_when_nothing_is_free_by_accident(
    rates: tuple[str, ...], has_output: bool, expected: bool
) -> None:
    """Input and, for models that answer with tokens, output; or prices of what is counted, but not of tools alone."""
    assert card_is_priced(card(*(Rate(unit, 0, 1) for unit in rates)), has_output=has_output) is expected


def test_every_kind_of_tokens_has_a_bit_that_allows_it() -> None:
    """A kind of tokens that no bit allows could be used without having been held."""
    assert set(ALLOWED_BY) == {*OTHER_INPUT_UNITS, *OTHER_OUTPUT_UNITS}


def test_a_provisional_card_says_so_in_its_version() -> None:
    """Every charge stores the version, so that the charges to true up are found by it."""
    assert is_provisional(f"openai/gpt-9{PROVISIONAL}0123456789ab")
    assert not is_provisional("openai/gpt-4o@0123456789ab")


def test_a_card_without_tiers_is_not_priced() -> None:
    """Nothing at all is no price."""
    assert not card_is_priced(RateCard("p", "m", "v", ()))


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ((), "first tier"),
        ((Tier(5, ()),), "first tier"),
        ((Tier(0, ()), Tier(0, ())), "must rise"),
        ((Tier(0, (Rate("hours", 1, 1),)),), "not a unit"),
        ((Tier(0, (Rate("requests", 1, 1), Rate("requests", 2, 1))),), "priced twice"),
        ((Tier(0, (Rate("requests", -1, 1),)),), "negative"),
        ((Tier(0, (Rate("requests", 1, 0),)),), "less than one"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(tiers: tuple[Tier, ...], message: str) -> None:
    """Compiling a broken card fails loudly instead of pricing something at nothing."""
    with pytest.raises(ValueError, match=message):
        Tariff(RateCard("p", "m", "p/m@broken", tiers))


def test_an_independent_oracle_agrees(tmp_path: Path) -> None:
    """The soak, run short: random cards and usages priced exactly like fractions, and its command works."""
    source = Path(pricing.__file__).parents[3]
    soak = Path(__file__).with_name("soak_pricing.py")
    ran = subprocess.run(
        [sys.executable, str(soak), "5000"],
        env={"PYTHONPATH": str(source)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout.startswith("5000 usages priced exactly"), ran.stdout + ran.stderr
