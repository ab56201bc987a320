"""A month's commitment is split exactly, whatever was used, and the planning figures follow from the same numbers."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.pricing.capacity import BASIS_POINTS, IDLE_RULES, largest_remainder, plan, split_month

MONTH = 30 * 86_400 * 10**9
HOUR = 3_600 * 10**9

amounts = st.integers(0, 10**17)
weights = st.dictionaries(st.text(max_size=4), st.integers(0, 10**15), max_size=12)
tokens = st.integers(0, 10**13)


@given(amounts, weights)
def test_parts_add_up_to_the_amount(amount: int, given_weights: dict[str, int]) -> None:
    """No unit is lost and none invented; where nobody weighs anything, nobody gets anything."""
    parts = largest_remainder(amount, given_weights)
    assert sum(parts.values()) == (amount if any(given_weights.values()) else 0)


@given(amounts, weights)
def test_every_part_is_its_exact_share_rounded(amount: int, given_weights: dict[str, int]) -> None:
    """Less than one unit away from the exact proportion, and nothing for no weight."""
    total = sum(given_weights.values())
    for key, part in largest_remainder(amount, given_weights).items():
        exact = Fraction(amount * given_weights[key], total) if total else Fraction(0)
        assert abs(part - exact) < 1
        assert part >= 0
        assert part == 0 or given_weights[key] > 0


@given(amounts, weights)
def test_who_used_more_never_pays_less(amount: int, given_weights: dict[str, int]) -> None:
    """Parts keep the order of the weights."""
    parts = largest_remainder(amount, given_weights)
    ordered = sorted(parts, key=lambda key: (given_weights[key], parts[key]))
    assert all(
        parts[less] <= parts[more] + (given_weights[less] == given_weights[more]) for less, more in pairwise(ordered)
    )


@given(amounts, weights, tokens, tokens, st.sampled_from(IDLE_RULES))
def test_shares_idle_and_operator_add_up_to_the_commitment(
    commitment: int, given_weights: dict[str, int], used: int, capacity: int, idle: str
) -> None:
    """Whatever the rule says, every nano-dollar of the month is somewhere, once."""
    found = split_month(commitment, given_weights, used, capacity, idle)
    assert sum(found.shares.values()) + found.idle + found.operator == commitment
    assert min(found.idle, found.operator, *found.shares.values(), 0) == 0
    assert found.idle == 0 or idle == "show"


@given(amounts, weights.filter(lambda found: any(found.values())), tokens, tokens)
def test_spread_leaves_nothing_idle(commitment: int, given_weights: dict[str, int], used: int, capacity: int) -> None:
    """Those who used anything bear the whole commitment."""
    found = split_month(commitment, given_weights, used, capacity, "spread")
    assert (found.idle, found.operator) == (0, 0)


def test_half_a_capacity_costs_half_of_it() -> None:
    """The other half is shown, or the operator's, and is never hidden in somebody's share."""
    use = {"a": 300, "b": 100}
    assert split_month(1_000, use, 400, 800, "show") == ({"a": 375, "b": 125}, 500, 0)
    assert split_month(1_000, use, 400, 800, "operator") == ({"a": 375, "b": 125}, 0, 500)
    assert split_month(1_000, use, 400, 800, "spread") == ({"a": 750, "b": 250}, 0, 0)


def test_a_month_that_nobody_used_is_nobodys_share() -> None:
    """There is nobody to spread it over, so the operator bears it, unless it is only shown."""
    assert split_month(1_000, {"a": 0}, 0, 800, "spread") == ({"a": 0}, 0, 1_000)
    assert split_month(1_000, {}, 0, 800, "show") == ({}, 1_000, 0)


def test_more_use_than_was_declared_is_all_of_it() -> None:
    """The commitment is a fixed sum."""
    assert split_month(1_000, {"a": 1}, 900, 800, "show") == ({"a": 1_000}, 0, 0)


@pytest.mark.parametrize(
    "call", [(1, {}, 0, 0, "hide"), (-1, {}, 0, 0, "show"), (1, {"a": -1}, 0, 0, "show"), (1, {}, -1, 0, "show")]
)
def test_what_cannot_be_is_refused(call: tuple[int, dict[str, int], int, int, str]) -> None:
    """An unknown rule and negative numbers are mistakes of the caller."""
    with pytest.raises(ValueError, match=r"rule|negative"):
        split_month(*call)


def test_planning_figures_of_a_month() -> None:
    """100 tokens a second for 30 days are 259.2 million; a tenth was used, and by the token it would be $51.84."""
    commitment = 100 * 10**9
    found = plan(commitment, 100, MONTH, 25_920_000, 180_000, HOUR, 51_840_000_000)
    assert (found.capacity_tokens, found.utilisation) == (259_200_000, BASIS_POINTS // 10)
    assert (found.average_milli_tps, found.peak_milli_tps, found.peak_utilisation) == (10_000, 50_000, 5_000)
    assert (found.worth, found.break_even_tokens, found.break_even_utilisation) == (5_184, 50_000_000, 1_929)


def test_nothing_used_has_no_break_even() -> None:
    """Without use there is no mix of tokens to price; without a declared capacity no utilisation."""
    found = plan(10**9, 0, MONTH, 0, 0, 0, 0)
    assert (found.utilisation, found.break_even_tokens, found.break_even_utilisation, found.worth) == (
        None,
        None,
        None,
        0,
    )


@given(amounts, st.integers(1, 10**6), tokens.filter(bool), st.integers(1, 10**17))
def test_break_even_is_where_paying_by_the_token_costs_the_commitment(
    commitment: int, tps: int, used: int, cost: int
) -> None:
    """One token less costs less than the commitment, so many cost at least as much."""
    even = plan(commitment, tps, MONTH, used, 0, 0, cost).break_even_tokens
    assert even is not None
    assert Fraction(cost * even, used) >= commitment
    assert even == 0 or Fraction(cost * (even - 1), used) < commitment
