"""The dearest and the cheapest that a call can be, derived line by line.

``Tariff.bound`` says on the request path how much is held; ``most_lines`` says why, and adds up to the same amount.
``least_lines`` is its counterpart for a quote: what no answer costs less than. Both work from the card, slowly and in
exact fractions. How many tokens there can be is for the caller to say.
"""

from bisect import bisect_left
from collections.abc import Iterable
from fractions import Fraction

from faregate.core.pricing.card import Rate, RateCard
from faregate.core.pricing.cost import CostLine, Variant, effective_tiers, kinds_in, kinds_out, own_input, rate_of
from faregate.core.usage import Measure


def most_lines(
    card: RateCard, input_tokens: int, output_tokens: int, media: int = 0, at_most: Iterable[Measure] = ()
) -> list[CostLine]:
    """Every token the dearest of its kinds, in any tier that so much input may reach.

    The exact amounts add up to what rounds, upwards, to ``Tariff(card).bound`` of the same totals.

    Raises:
        ValueError: the card contradicts itself.
    """
    thresholds = [tier.above_input_tokens for tier in card.tiers[1:]]
    at_most = tuple(at_most)
    reached = bisect_left(thresholds, input_tokens + own_input(at_most))
    tiers = effective_tiers(card)[: reached + 1]
    wanted = [
        (kinds_in(media), "", input_tokens),
        (kinds_out(media), "", output_tokens),
        *(((unit,), variant, quantity) for unit, variant, quantity in at_most),
        (("requests",), "", 1),
    ]
    lines = []
    for units, variant, quantity in wanted:
        found = [_line(rates, unit, variant, quantity) for rates in tiers for unit in units]
        lines.append(max(found, key=_exact))
    return [line for line in lines if line.quantity and (line.priced_as or line.unit != "requests")]


def least_lines(
    card: RateCard,
    input_least: int,
    input_most: int,
    output_least: int,
    media: int = 0,
    certain: Iterable[Measure] = (),
) -> list[CostLine]:
    """Every token the cheapest of its kinds, in the cheapest tier that some input between the two totals reaches.

    ``certain`` is what the call uses in any case. No usage with at least this input and output and no more than
    ``input_most`` input costs less than these lines add up to, rounded down.

    Raises:
        ValueError: the card contradicts itself.
    """
    starts = [tier.above_input_tokens for tier in card.tiers]
    cheapest: list[CostLine] | None = None
    for at, rates in enumerate(effective_tiers(card)):
        # A tier begins above its threshold, but the first one with no input at all.
        incoming = max(input_least, starts[at] + 1 if at else 0)
        end = starts[at + 1] if at + 1 < len(starts) else input_most
        if incoming > min(end, input_most):
            continue
        lines = [
            min((_line(rates, unit, "", incoming) for unit in kinds_in(media)), key=_exact),
            min((_line(rates, unit, "", output_least) for unit in kinds_out(media)), key=_exact),
            *(_line(rates, unit, variant, quantity) for unit, variant, quantity in certain),
            _line(rates, "requests", "", 1),
        ]
        if cheapest is None or exact_sum(lines) < exact_sum(cheapest):
            cheapest = lines
    return [line for line in cheapest or () if line.quantity and (line.priced_as or line.unit != "requests")]


def exact_sum(lines: Iterable[CostLine]) -> Fraction:
    """What lines add up to, in pico-dollars."""
    return sum((_exact(line) for line in lines), Fraction(0))


def _exact(line: CostLine) -> Fraction:
    return Fraction(line.numerator, line.denominator)


def _line(rates: dict[Variant, Rate], unit: str, variant: str, quantity: int) -> CostLine:
    rate = rate_of(rates, unit, variant)
    if rate is None:
        return CostLine(unit, "", quantity, 0, 1, 0, 1, variant)
    return CostLine(unit, rate.unit, quantity, rate.pico, rate.per, quantity * rate.pico, rate.per, variant)
