"""Usage × price, its bound and its derivation."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from faregate.core import pricing
from faregate.core.money import NANOS_PER_DOLLAR, PICOS_PER_DOLLAR
from faregate.core.pricing.card import PRICED_UNITS, Rate, RateCard, Tier
from faregate.core.pricing.cost import CostLine, Tariff, card_is_priced, cost_lines
from faregate.core.usage import COUNT_MAX, NO_USAGE, Usage

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
usages = st.builds(Usage, leaves, leaves, leaves, leaves, leaves, leaves, leaves)


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
        tiers.append(Tier(above, tuple(Rate(unit, draw(picos), draw(pers)) for unit in sorted(units))))
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


@given(cards(), usages, st.integers(0, 6), st.integers(1, COUNT_MAX))
def test_more_usage_never_costs_less_within_a_tier(card: RateCard, usage: Usage, leaf: int, more: int) -> None:
    """Raising any one leaf raises the cost or leaves it, as long as the same rates apply."""
    raised = usage._replace(**{Usage._fields[leaf]: usage[leaf] + more})
    thresholds = [tier.above_input_tokens for tier in card.tiers]
    assume(all((usage.input_tokens > t) == (raised.input_tokens > t) for t in thresholds))
    tariff = Tariff(card)
    assert 0 <= tariff.cost(usage) <= tariff.cost(raised)


@given(cards(), usages, st.integers(0, COUNT_MAX), st.integers(0, COUNT_MAX))
def test_no_usage_within_the_totals_exceeds_their_bound(
    card: RateCard, usage: Usage, more_in: int, more_out: int
) -> None:
    """Whatever leaves and tier a call ends up with, it costs at most the bound of any totals it stays within."""
    tariff = Tariff(card)
    assert tariff.cost(usage) <= tariff.bound(usage.input_tokens + more_in, usage.output_tokens + more_out)


def test_a_dearer_lower_tier_counts_in_the_bound() -> None:
    """A call bounded into a cheap upper tier may still end in the dear lower one."""
    falling = card(per_million("input_tokens", 900), above=(Tier(10, (per_million("input_tokens", 100),)),))
    assert Tariff(falling).bound(11, 0) >= Tariff(falling).cost(Usage(input_text=10))


@given(cards(), st.integers(0, 10**15), st.integers(0, COUNT_MAX))
def test_the_largest_output_within_a_sum_fits_and_one_more_does_not(
    card: RateCard, nanos: int, input_tokens: int
) -> None:
    """``output_tokens_within`` is the exact inverse of the bound, and -1 where the input alone is too dear."""
    tariff = Tariff(card)
    most = tariff.output_tokens_within(nanos, input_tokens)
    if most < 0:
        assert tariff.bound(input_tokens, 0) > nanos
        return
    assert tariff.bound(input_tokens, most) <= nanos
    assert most == COUNT_MAX or tariff.bound(input_tokens, most + 1) > nanos


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
    ],
)
def test_a_card_is_priced_when_nothing_is_free_by_accident(
    rates: tuple[str, ...], has_output: bool, expected: bool
) -> None:
    """Input and, for models that answer with tokens, output; or a price by the call and nothing else."""
    assert card_is_priced(card(*(Rate(unit, 0, 1) for unit in rates)), has_output=has_output) is expected


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
        [sys.executable, str(soak), "20000"],
        env={"PYTHONPATH": str(source)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout.startswith("20000 usages priced exactly"), ran.stdout + ran.stderr
