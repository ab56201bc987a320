"""What a service behind the gate uses and costs, against fractions computed apart."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.metering.service import ServiceTerms, Told, most, read_told, used
from faregate.core.pricing.card import RateCard, Tier
from faregate.core.pricing.compute import ServicePrices, busy_rate, service_rates
from faregate.core.pricing.cost import Tariff, cost_lines
from faregate.core.usage import COUNT_MAX, Measure, Usage

picos = st.integers(0, 10**15)
memory = st.builds(Fraction, st.integers(1, 10**6), st.just(1000))
amounts = st.integers(0, COUNT_MAX)
terms = st.builds(
    ServiceTerms,
    duration_ms_max=st.integers(1, 86_400_000),
    request_bytes_max=amounts,
    answer_bytes_max=amounts,
    told=st.lists(
        st.builds(Told, st.just("units"), st.just("pages"), st.just("x-units"), st.integers(1, COUNT_MAX)), max_size=1
    ).map(tuple),
    fixed=st.lists(st.builds(Measure, st.just("gigaflops"), st.just(""), amounts), max_size=1).map(tuple),
)
prices = st.builds(
    ServicePrices,
    picos,
    picos,
    picos,
    picos,
    st.tuples(st.just("pages"), picos, st.integers(1, 10**6)),
    picos,
    st.tuples(memory, memory).map(lambda pair: min(pair) / max(pair)),
    picos,
)


def by_hand(price: ServicePrices, usage: Usage) -> Fraction:
    """Pico-dollars of a call, from what it used and what was written down."""
    found = {(unit, variant): Fraction(quantity) for unit, variant, quantity in usage.other}
    seconds = found.get(("busy_milliseconds", ""), Fraction(0)) / 1000
    assert price.units is not None
    assert price.per_teraflop is not None
    return (
        price.per_call
        + seconds * price.per_second
        + seconds / 3600 * price.share * price.per_machine_hour
        + found.get(("bytes", "in"), Fraction(0)) * price.per_million_bytes_in / 10**6
        + found.get(("bytes", "out"), Fraction(0)) * price.per_million_bytes_out / 10**6
        + found.get(("units", "pages"), Fraction(0)) * price.units[1] / price.units[2]
        + found.get(("gigaflops", ""), Fraction(0)) * price.per_teraflop / 1000
    )


def card_of(price: ServicePrices) -> RateCard:
    """The card of a service."""
    return RateCard("svc", "svc", "svc@1", (Tier(0, service_rates(price)),))


@given(terms, prices, st.integers(1, 10**15), amounts, amounts, st.one_of(st.none(), amounts), st.booleans())
def test_a_call_costs_the_exact_sum_and_never_more_than_its_hold(
    offered: ServiceTerms, price: ServicePrices, busy: int, sent: int, came: int, told: int | None, at_most: bool
) -> None:
    """Cost is the fraction rounded once, half to even; the bound covers every call within the terms."""
    told = None if told is not None and offered.told and told > offered.told[0].most else told
    usage = used(offered, busy, sent, came, [told] * len(offered.told), untold_at_most=at_most)
    card = card_of(price)
    tariff = Tariff(card)
    exact = by_hand(price, usage)
    assert tariff.cost(usage) == round(exact / 1000)
    assert sum(Fraction(line.numerator, line.denominator) for line in cost_lines(card, usage)) == exact
    bounds = most(offered, sent)
    assert tariff.unpriced(usage.other) == tariff.unpriced(bounds) == ""
    assert tariff.cost(usage) <= tariff.bound(0, 0, 0, bounds)
    limits = {(unit, variant): quantity for unit, variant, quantity in bounds}
    assert all(quantity <= limits[unit, variant] for unit, variant, quantity in usage.other)


@pytest.mark.parametrize(
    ("per_second", "hourly", "share", "pico", "per"),
    [
        (5, 0, Fraction(1, 2), 5, 1000),
        (0, 7, Fraction(3, 8), 21, 28_800_000),
        (0, 0, Fraction(0), 0, 1000),
        (1, 36, Fraction(1, 2), 3600 * 2 + 36, 7_200_000),
    ],
)
def test_busy_time_has_one_rate(per_second: int, hourly: int, share: Fraction, pico: int, per: int) -> None:
    """A price by the second, by a share of a machine, and both together."""
    assert busy_rate(per_second, hourly, share)[1:3] == (pico, per)


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        *(("0", 0), ("7", 7), ("10", 10), ("0010", 10)),
        *((text, None) for text in ("11", "", "-1", "+1", "1.5", "1e1", " 1", "1,2", "٣", "²", "9" * 5000)),
    ],
)
def test_what_a_header_tells_is_a_whole_number_within_its_maximum(text: str, quantity: int | None) -> None:
    """Everything else is not believed."""
    assert read_told(Told("units", "", "x-units", 10), text) == quantity


def test_started_units_count_whole() -> None:
    """Operations are counted in thousand millions of them; time in milliseconds, for limits in seconds."""
    told = Told("gigaflops", "", "x-flops", 9, 10**9)
    assert [read_told(told, str(number)) for number in (0, 1, 10**9, 10**9 + 1, 9 * 10**9 + 1)] == [0, 1, 1, 2, None]
    usage = used(ServiceTerms(), 1_000_000_001, 0, 0, ())
    assert usage.other == (Measure("busy_milliseconds", "", 1001), Measure("seconds", "", 2))
