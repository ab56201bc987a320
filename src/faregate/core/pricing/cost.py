"""Usage × price: what a call cost, and the most that it can cost.

A ``Tariff`` is a rate card compiled once, so that a request pays for a handful of integer products and one division.
``cost_lines`` derives the same amount the slow and explainable way; both add up to the same exact fraction, and only
that sum is rounded (half to even, to nano-dollars). Where prices come from and which card is in force is not known
here.

A leaf that has no rate of its own is priced as what it is a kind of::

    cached_input_tokens, cache_write_tokens, input_audio_tokens → input_tokens
    reasoning_tokens, output_audio_tokens                       → output_tokens

Tiers are cliffs: a call with more input tokens than a tier's threshold pays that tier's rates for everything. A unit
that a tier does not name keeps the rate of the tier before it.
"""

from bisect import bisect_left
from math import gcd, lcm
from typing import Final, NamedTuple

from faregate.core.money import PICOS_PER_NANO
from faregate.core.pricing.card import PRICED_UNITS, Rate, RateCard
from faregate.core.usage import COUNT_MAX, Usage

#: The unit of each leaf, in the order of the fields of ``Usage``.
LEAF_UNITS: Final = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "input_audio_tokens",
    "output_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
)

#: How many of ``LEAF_UNITS`` are input.
INPUT_LEAVES: Final = 4

_KIND_OF: Final = {
    "cached_input_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "input_audio_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
    "output_audio_tokens": "output_tokens",
}


class CostLine(NamedTuple):
    """One line of a derivation: ``quantity`` units at ``price_pico`` per ``per`` of them.

    The exact amount is ``numerator / denominator`` pico-dollars. ``priced_as`` names the rate that was used where the
    leaf ``unit`` has none of its own.
    """

    unit: str
    priced_as: str
    quantity: int
    price_pico: int
    per: int
    numerator: int
    denominator: int


class Tariff:
    """A rate card, ready for the request path. Immutable.

    Raises:
        ValueError: the card contradicts itself: no tier, a first tier above 0, thresholds that do not rise, an unknown
            or repeated unit, a negative price or a ``per`` below 1.
    """

    __slots__ = ("_bounds", "_denominator", "_half", "_thresholds", "_tiers", "version")

    def __init__(self, card: RateCard) -> None:
        tiers = _effective_tiers(card)
        whole = lcm(*(rate.per for rates in tiers for rate in rates.values())) * PICOS_PER_NANO
        scaled = [_coefficients(rates, whole) for rates in tiers]
        # Real prices share large factors; without them every product stays a small integer.
        common = gcd(whole, *(number for row in scaled for number in row))
        self._denominator = whole // common
        self._half = self._denominator // 2
        self._tiers = tuple(tuple(number // common for number in row) for row in scaled)
        self._thresholds = tuple(tier.above_input_tokens for tier in card.tiers[1:])
        self._bounds = _bounds(self._tiers)
        self.version = card.version

    def cost(self, usage: Usage) -> int:
        """Nano-dollars of ``usage``: the exact sum, rounded once, half to even."""
        text, cached, write, audio, out, reasoning, out_audio = usage
        if self._thresholds:
            tier = self._tiers[bisect_left(self._thresholds, text + cached + write + audio)]
        else:
            tier = self._tiers[0]
        c_text, c_cached, c_write, c_audio, c_out, c_reasoning, c_out_audio, c_call = tier
        amount = text * c_text + out * c_out + c_call
        # Most calls have none of these, and a test of a small integer is cheaper than a product.
        if cached:
            amount += cached * c_cached
        if reasoning:
            amount += reasoning * c_reasoning
        if write:
            amount += write * c_write
        if audio:
            amount += audio * c_audio
        if out_audio:
            amount += out_audio * c_out_audio
        denominator = self._denominator
        if denominator == 1:
            return amount
        # money.half_even, written out: a call costs a third of this method.
        nanos, rest = divmod(amount, denominator)
        half = self._half
        if rest > half or (rest == half and nanos & 1 and half + half == denominator):
            return nanos + 1
        return nanos

    def bound(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars that no usage within these totals exceeds: every token the dearest, in any tier it may reach."""
        c_in, c_out, c_call = self._bounds[bisect_left(self._thresholds, input_tokens) if self._thresholds else 0]
        return -(-(input_tokens * c_in + output_tokens * c_out + c_call) // self._denominator)

    def output_tokens_within(self, nanos: int, input_tokens: int) -> int:
        """The largest total of output tokens whose bound is at most ``nanos``; -1 if not even the input fits.

        At most ``COUNT_MAX``, which is also the answer where output is free.
        """
        c_in, c_out, c_call = self._bounds[bisect_left(self._thresholds, input_tokens) if self._thresholds else 0]
        left = nanos * self._denominator - input_tokens * c_in - c_call
        if left < 0:
            return -1
        return min(left // c_out, COUNT_MAX) if c_out else COUNT_MAX


def cost_lines(card: RateCard, usage: Usage) -> list[CostLine]:
    """The derivation of what ``usage`` costs by ``card``, one line for each leaf that was used and one per call.

    The exact amounts of the lines add up to the exact cost, which rounds to ``Tariff(card).cost(usage)``.

    Raises:
        ValueError: as ``Tariff`` does.
    """
    thresholds = [tier.above_input_tokens for tier in card.tiers[1:]]
    rates = _effective_tiers(card)[bisect_left(thresholds, usage.input_tokens)]
    quantities = [*zip(LEAF_UNITS, usage, strict=True), ("requests", 1)]
    lines = []
    for unit, quantity in quantities:
        rate = _rate_of(rates, unit)
        if quantity and rate is not None:
            amount = quantity * rate.pico
            lines.append(CostLine(unit, rate.unit, quantity, rate.pico, rate.per, amount, rate.per))
    return lines


def card_is_priced(card: RateCard, *, has_output: bool = True) -> bool:
    """Whether no part of a call would be free by accident.

    A card of nothing but ``requests`` is priced by the call. Any other needs a rate for input, and for models that
    answer with tokens a rate for output. A rate of 0 is a rate: somebody wrote it down.
    """
    units = {rate.unit for rate in card.tiers[0].rates} if card.tiers else set()
    if units == {"requests"}:
        return True
    return "input_tokens" in units and (not has_output or "output_tokens" in units)


def _effective_tiers(card: RateCard) -> list[dict[str, Rate]]:
    """The rates by unit that hold in each tier, those kept from the tier before included."""
    if not card.tiers or card.tiers[0].above_input_tokens != 0:
        raise ValueError(f"{card.version}: the first tier starts at 0 input tokens")
    effective: list[dict[str, Rate]] = []
    threshold = -1
    for tier in card.tiers:
        if tier.above_input_tokens <= threshold:
            raise ValueError(f"{card.version}: thresholds of tiers must rise")
        threshold = tier.above_input_tokens
        named: dict[str, Rate] = {}
        for rate in tier.rates:
            if rate.unit not in PRICED_UNITS:
                raise ValueError(f"{card.version}: {rate.unit!r} is not a unit that can be priced")
            if rate.unit in named:
                raise ValueError(f"{card.version}: {rate.unit} is priced twice in one tier")
            if rate.pico < 0 or rate.per < 1:
                raise ValueError(f"{card.version}: the price of {rate.unit} is negative or per less than one")
            named[rate.unit] = rate
        effective.append({**effective[-1], **named} if effective else named)
    return effective


def _rate_of(rates: dict[str, Rate], unit: str) -> Rate | None:
    return rates.get(unit) or rates.get(_KIND_OF.get(unit, unit))


def _coefficients(rates: dict[str, Rate], whole: int) -> tuple[int, ...]:
    """The price of one unit of each leaf and of the call, in parts of a nano-dollar that are ``whole`` to one."""
    scale = whole // PICOS_PER_NANO
    found = (_rate_of(rates, unit) for unit in (*LEAF_UNITS, "requests"))
    return tuple(rate.pico * (scale // rate.per) if rate is not None else 0 for rate in found)


def _bounds(tiers: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, int, int], ...]:
    """The dearest input token, output token and call in each tier and all below it.

    A smaller usage may fall into a lower tier, so a lower tier that is dearer must count too.
    """
    bounds = []
    c_in = c_out = c_call = 0
    for tier in tiers:
        c_in = max(c_in, *tier[:INPUT_LEAVES])
        c_out = max(c_out, *tier[INPUT_LEAVES:-1])
        c_call = max(c_call, tier[-1])
        bounds.append((c_in, c_out, c_call))
    return tuple(bounds)
