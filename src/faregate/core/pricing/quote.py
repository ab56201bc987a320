"""What a call will cost at least and at most, in every unit and in money, before anything is sent.

A quote stands for an answer that comes: an error costs nothing, and stopping a stream costs what was read until then.
Within that promise it is a bracket: whatever a provider reports within the call's own caps lies between the two ends.
The upper end is what the gate would hold. Who counts the input, which places may answer and how much room the limits
have left are arguments; nothing is held or looked up here.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from faregate.core.amounts import Amounts, held_amounts
from faregate.core.call import Call
from faregate.core.money import PICOS_PER_NANO
from faregate.core.pricing.card import RateCard
from faregate.core.pricing.charging import AT_COST, ChargeRule, charge, charge_bound
from faregate.core.pricing.cost import LEAF_UNITS, CostLine, Tariff
from faregate.core.pricing.extremes import exact_sum, least_lines, most_lines
from faregate.core.usage import COUNT_MAX, OTHER_INPUT_UNITS, OTHER_OUTPUT_UNITS, Measure, measures

#: What a request fixes and no answer reports otherwise; of the rest (seconds, searches …) an answer may use less.
_FIXED_UNITS: Final = ("images", "characters")

_TOKEN_UNITS: Final = frozenset((*LEAF_UNITS, *OTHER_INPUT_UNITS, *OTHER_OUTPUT_UNITS))


class Span(NamedTuple):
    """At least and at most, both included."""

    least: int
    most: int


class UnitSpan(NamedTuple):
    """How much of one unit, in one of its variants."""

    unit: str
    variant: str
    least: int
    most: int


class Offer(NamedTuple):
    """One place that may answer, and what is known of the call there.

    ``output_cap`` is the most output tokens of one choice: the caller's own cap, else the model's whole maximum.
    """

    #: In force now: the standard service tier's first, then those of other tiers that may answer instead.
    cards: Sequence[RateCard]
    input_tokens: Span
    output_cap: int
    rule: ChargeRule = AT_COST


class Quote(NamedTuple):
    """The bracket of one place, or of several together. Money is in nano-dollars."""

    input_tokens: Span
    output_tokens: Span
    #: Everything that is not tokens.
    units: tuple[UnitSpan, ...]
    cost: Span
    charge: Span
    #: What the gate would hold.
    held: Amounts
    #: How the two ends of ``cost`` come about; the sums round down and up to them.
    least_lines: tuple[CostLine, ...] = ()
    most_lines: tuple[CostLine, ...] = ()


def quote(call: Call, offer: Offer) -> Quote:
    """The bracket of a call at one place.

    Raises:
        ValueError: there is no card, or one contradicts itself.
    """
    incoming, outgoing = offer.input_tokens, output_span(call, offer.output_cap)
    cheapest = dearest = None
    for card in offer.cards:
        certain = _certain(call, card)
        least = least_lines(card, incoming.least, incoming.most, outgoing.least, call.media, certain)
        most = most_lines(card, incoming.most, outgoing.most, call.media, _most(call))
        if cheapest is None or exact_sum(least) < exact_sum(cheapest):
            cheapest = least
        if dearest is None or exact_sum(most) > exact_sum(dearest):
            dearest = most
    if cheapest is None or dearest is None:
        raise ValueError("a quote needs a rate card")
    cost = Span(exact_sum(cheapest) // PICOS_PER_NANO, -(-exact_sum(dearest) // PICOS_PER_NANO))
    rule = offer.rule
    # Nothing may have been used at the lower end, and then no fee is due.
    charged = Span(charge(rule, cost.least, used=incoming.least > 0), charge_bound(rule, cost.most))
    return Quote(
        incoming,
        outgoing,
        _units(call, offer.cards),
        cost,
        charged,
        held_amounts(charged.most, incoming.most, outgoing.most, _most(call)),
        tuple(cheapest),
        tuple(dearest),
    )


def together(quotes: Sequence[Quote]) -> Quote:
    """The bracket of a call that any of several places may answer; the lines are those of the two ends.

    Raises:
        ValueError: there is none.
    """
    low, high = min(quotes, key=lambda each: each.cost.least), max(quotes, key=lambda each: each.cost.most)
    spans: dict[tuple[str, str], UnitSpan] = {}
    for each in (unit for one in quotes for unit in one.units):
        known = spans.get((each.unit, each.variant), each)
        spans[each.unit, each.variant] = each._replace(
            least=min(each.least, known.least), most=max(each.most, known.most)
        )
    return Quote(
        _around(each.input_tokens for each in quotes),
        _around(each.output_tokens for each in quotes),
        tuple(span for _, span in sorted(spans.items())),
        _around(each.cost for each in quotes),
        _around(each.charge for each in quotes),
        Amounts(*(max(amounts) for amounts in zip(*(each.held for each in quotes), strict=True))),
        low.least_lines,
        high.most_lines,
    )


def output_span(call: Call, cap: int) -> Span:
    """Output tokens of all choices together, each of at most ``cap``; none where the operation answers without."""
    return Span(0, cap * call.choices + call.extra_output_tokens) if call.has_output else Span(0, 0)


def held(call: Call, offer: Offer, tariffs: Iterable[Tariff], cap: int) -> Amounts:
    """What the gate would hold with an output cap of ``cap`` for one choice; ``tariffs`` are those of the cards."""
    output = output_span(call, cap).most
    most, incoming = _most(call), offer.input_tokens.most
    cost = max(tariff.bound(incoming, output, call.media, most) for tariff in tariffs)
    return held_amounts(charge_bound(offer.rule, cost), incoming, output, most)


def largest_cap(call: Call, offer: Offer, room: Amounts) -> int | None:
    """The largest output cap of one choice that fits ``room`` in every unit, at most ``COUNT_MAX``.

    ``None`` where not even an answer of no tokens fits, and where an operation has no output to cap.
    """
    if not call.has_output:
        return None
    tariffs = [Tariff(card) for card in offer.cards]

    def fits(cap: int) -> bool:
        return all(wanted <= left for wanted, left in zip(held(call, offer, tariffs, cap), room, strict=True))

    if not fits(0):
        return None
    low, high = 0, COUNT_MAX
    # What is held never falls where the cap rises.
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _most(call: Call) -> tuple[Measure, ...]:
    return (*call.at_most, *call.declared)


def _certain(call: Call, card: RateCard) -> tuple[Measure, ...]:
    """What is billed in any case.

    A declared quantity is billed where the answer does not say itself. One that reports tokens instead is only to be
    expected of a model that is priced by tokens.
    """
    if not call.declared or any(rate.unit in _TOKEN_UNITS for tier in card.tiers for rate in tier.rates):
        return ()
    return tuple(measure for measure in call.declared if measure.unit in _FIXED_UNITS)


def _units(call: Call, cards: Iterable[RateCard]) -> tuple[UnitSpan, ...]:
    certain = [{measure[:2]: measure.quantity for measure in measures(_certain(call, card))} for card in cards]
    return tuple(
        UnitSpan(unit, variant, min(found.get((unit, variant), 0) for found in certain), quantity)
        for unit, variant, quantity in measures(_most(call))
    )


def _around(spans: Iterable[Span]) -> Span:
    found = list(spans)
    return Span(min(each.least for each in found), max(each.most for each in found))
