"""From cost to charge: exact, never negative, never above its bound, and told line by line."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.attribution import Attribution
from faregate.core.pricing.charging import (
    AT_COST,
    COST_MAX,
    FEE_NANOS_MAX,
    MARKUP_PPM_MAX,
    PPM,
    ChargeRule,
    charge,
    charge_bound,
    charge_lines,
    cost_within,
    percent,
    ppm,
    rule_for,
    rule_of,
    text_of,
)

costs = st.integers(0, 10**18)
priced = st.builds(
    ChargeRule,
    select=st.just(()),
    discount_ppm=st.one_of(st.just(0), st.integers(0, PPM)),
    markup_ppm=st.one_of(st.just(0), st.integers(0, MARKUP_PPM_MAX)),
    fee=st.one_of(st.just(0), st.integers(0, FEE_NANOS_MAX)),
    free=st.just(False),
)
rules = st.one_of(priced, st.just(ChargeRule(free=True)), st.just(AT_COST))

MARKED_UP = ChargeRule(markup_ppm=ppm("10"), fee=1_000_000)


@pytest.mark.parametrize(
    ("rule", "cost", "due"),
    [
        (AT_COST, 12_345, 12_345),
        (MARKED_UP, 1_000_000, 2_100_000),
        (ChargeRule(discount_ppm=ppm("5")), 1_000, 950),
        (ChargeRule(discount_ppm=ppm("5"), markup_ppm=ppm("10")), 1_000, 1_045),
        (ChargeRule(discount_ppm=PPM), 1_000, 0),
        (ChargeRule(free=True), 1_000, 0),
        # Half a nano-dollar goes to the even neighbour: 2.5 is 2 and 7.5 is 8.
        (ChargeRule(discount_ppm=ppm("50")), 5, 2),
        (ChargeRule(discount_ppm=ppm("50")), 15, 8),
        (ChargeRule(markup_ppm=1), 499_999, 499_999),
        (ChargeRule(markup_ppm=1), 500_001, 500_002),
    ],
)
def test_what_is_charged(rule: ChargeRule, cost: int, due: int) -> None:
    """The discount comes off the cost, the mark-up onto that, rounded once; the fee is added."""
    assert charge(rule, cost) == due


def test_no_fee_is_due_where_nothing_was_used() -> None:
    """An error that used nothing is not charged for; a call that used something for nothing is."""
    assert charge(MARKED_UP, 0, used=False) == 0
    assert charge(MARKED_UP, 0, used=True) == 1_000_000
    assert charge(MARKED_UP, 10, used=False) == 1_000_011


@given(rules, costs, st.booleans())
def test_a_charge_is_exact_and_rounded_once(rule: ChargeRule, cost: int, used: bool) -> None:
    """It equals the exact product, rounded half to even, and the fee; it is never negative."""
    due = charge(rule, cost, used=used)
    exact = Fraction(cost) * (1 - Fraction(rule.discount_ppm, PPM)) * (1 + Fraction(rule.markup_ppm, PPM))
    fee = rule.fee if used or cost else 0
    assert due == (0 if rule.free else round(exact) + fee)
    assert due >= 0


@given(rules, costs, costs, st.booleans())
def test_no_charge_exceeds_the_bound_of_a_larger_cost(rule: ChargeRule, one: int, two: int, used: bool) -> None:
    """What is held for the most that a call may cost covers whatever it turns out to cost."""
    less, more = sorted((one, two))
    assert charge(rule, less, used=used) <= charge_bound(rule, more)
    assert charge(rule, less) <= charge(rule, more)
    assert charge_bound(rule, more) - charge(rule, more) <= 1


@given(rules, st.integers(-1, 10**18))
def test_the_largest_cost_that_fits_is_found(rule: ChargeRule, room: int) -> None:
    """Its bound fits and that of the next does not, so that a cap is as large as a limit has room for."""
    cost = cost_within(rule, room)
    assert -1 <= cost <= COST_MAX
    if cost >= 0:
        assert charge_bound(rule, cost) <= room
    if cost < COST_MAX:
        assert charge_bound(rule, cost + 1) > room


@given(rules, costs, st.booleans())
def test_lines_lead_from_the_cost_to_the_charge(rule: ChargeRule, cost: int, used: bool) -> None:
    """Their exact amounts and the cost add up to what is rounded to the charge."""
    lines = charge_lines(rule, cost, used=used)
    exact = cost + sum((Fraction(line.numerator, line.denominator) for line in lines), Fraction(0))
    assert round(exact) == charge(rule, cost, used=used) or abs(exact - charge(rule, cost, used=used)) == Fraction(1, 2)
    assert len({line.name for line in lines}) == len(lines)


@given(rules)
def test_the_text_of_a_rule_is_the_rule(rule: ChargeRule) -> None:
    """What is kept with a charge says all that is needed to derive it again."""
    assert rule_of(text_of(rule)) == rule


def test_texts_are_short_and_plain() -> None:
    """As people would say it."""
    assert text_of(MARKED_UP) == "markup 10 % + fee 0.001"
    assert text_of(ChargeRule(discount_ppm=25_000, markup_ppm=1)) == "discount 2.5 % + markup 0.0001 %"
    assert (text_of(AT_COST), text_of(ChargeRule(free=True))) == ("", "free")


@pytest.mark.parametrize(
    "text", ["x", "free + fee 1", "fee 1 %", "markup 10", "fee 1 + fee 2", "markup -1 %", "fee 0.0000000001", " + "]
)
def test_other_texts_are_no_rules(text: str) -> None:
    """Nothing is guessed at."""
    with pytest.raises(ValueError, match=r"not|decimals"):
        rule_of(text)


@given(st.integers(0, MARKUP_PPM_MAX))
def test_percentages_are_exact(parts: int) -> None:
    """Four decimals of a percent, there and back."""
    assert ppm(percent(parts)) == parts


@pytest.mark.parametrize("text", ["", "-1", "1e2", "1.23456", ".5", "5.", "1,5", "NaN", "٣", "10 %", "1" * 30])
def test_what_is_no_percentage(text: str) -> None:
    """Plain decimal digits, at most four behind the point."""
    with pytest.raises(ValueError, match="not a percentage"):
        ppm(text)


@pytest.mark.parametrize(
    ("who", "chosen"),
    [
        ({"team": "research", "model": "gpt-4o"}, 0),
        ({"team": "research", "model": "o3"}, 1),
        ({"team": "sales", "key": "key_1"}, 2),
        ({"team": "sales"}, None),
    ],
)
def test_the_first_rule_that_matches_wins(who: dict[str, Any], chosen: int | None) -> None:
    """All that a rule names must hold; where none does, there is no rule."""
    given_rules = (
        ChargeRule((("model", "gpt-4o"), ("team", "research")), fee=1),
        ChargeRule((("team", "research"),), fee=2),
        ChargeRule((("key", "key_1"),), free=True),
    )
    found = rule_for(given_rules, Attribution(**who))
    assert found == (None if chosen is None else given_rules[chosen])


def test_a_rule_that_names_nobody_is_for_everybody() -> None:
    """The last in a list, for all the others."""
    assert rule_for((MARKED_UP,), Attribution(team="any")) == MARKED_UP
