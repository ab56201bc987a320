"""Prices laid over prices."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.catalogue.layers import counted_only, laid_over, scaled
from faregate.core.pricing.card import PRICED_UNITS, Rate, Tier

IN, OUT = "input_tokens", "output_tokens"
TIERS = (
    Tier(0, (Rate(IN, 5, 1), Rate(OUT, 7, 1), Rate("web_searches", 11, 1))),
    Tier(10, (Rate(IN, 50, 1), Rate(OUT, 70, 1))),
)


def test_a_rate_for_everybody_replaces_its_units_in_every_tier() -> None:
    """What it does not name keeps its cliff."""
    laid = laid_over(TIERS, {(IN, "", 0): Rate(IN, 1, 1)})
    assert laid == (
        Tier(0, (Rate(IN, 1, 1), Rate(OUT, 7, 1), Rate("web_searches", 11, 1))),
        Tier(10, (Rate(OUT, 70, 1),)),
    )


@pytest.mark.parametrize(("above", "thresholds"), [(10, [0, 10]), (20, [0, 10, 20])])
def test_a_rate_from_some_input_on_makes_its_tier(above: int, thresholds: list[int]) -> None:
    """It joins the tier that is there, or begins one."""
    laid = laid_over(TIERS, {(OUT, "", above): Rate(OUT, 1, 1)})
    assert [tier.above_input_tokens for tier in laid] == thresholds
    assert Rate(OUT, 1, 1) in laid[-1].rates


def test_variants_lie_beside_each_other() -> None:
    """A price of one variant leaves those of the others."""
    laid = laid_over(TIERS, {("web_searches", "preview", 0): Rate("web_searches", 1, 1, "preview")})
    assert laid[0].rates[-2:] == (Rate("web_searches", 11, 1), Rate("web_searches", 1, 1, "preview"))


def test_nothing_laid_over_nothing_is_nothing() -> None:
    """No tier appears out of no price."""
    assert laid_over((), {}) == ()


@given(
    st.sampled_from(PRICED_UNITS), st.integers(0, 10**15), st.integers(1, 10**6), st.sampled_from(((11, 10), (1, 2)))
)
def test_a_part_of_a_price_is_exact(unit: str, pico: int, per: int, part: tuple[int, int]) -> None:
    """Tokens cost exactly that part, whatever cannot be divided; what is counted costs what it did."""
    ((rate,),) = (tier.rates for tier in scaled((Tier(0, (Rate(unit, pico, per),)),), *part))
    times = Fraction(*part) if unit.endswith("_tokens") else 1
    assert Fraction(rate.pico, rate.per) == Fraction(pico, per) * times


def test_tools_stay_when_tokens_go() -> None:
    """A service tier without a listed price of its own keeps the prices of tools."""
    assert counted_only(TIERS) == (Tier(0, (Rate("web_searches", 11, 1),)),)
