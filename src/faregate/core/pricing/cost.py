"""Usage × price: what a call cost, and the most that it can cost.

A ``Tariff`` is a rate card compiled once, so that a request pays for a handful of integer products and one division.
``cost_lines`` derives the same amount the slow and explainable way; both add up to the same exact fraction, and only
that sum is rounded (half to even, to nano-dollars). Where prices come from and which card is in force is not known
here.

A leaf that has no rate of its own is priced as what it is a kind of::

    cached_input_tokens, cache_write_tokens, input_audio_tokens, input_image_tokens → input_tokens
    cache_write_1h_tokens → cache_write_tokens
    cached_input_audio_tokens → input_audio_tokens where that has a rate, else cached_input_tokens
    cached_input_image_tokens → input_image_tokens where that has a rate, else cached_input_tokens
    reasoning_tokens, output_audio_tokens, output_image_tokens → output_tokens

What is not tokens has no such kind: without a rate it cannot be billed, and ``unpriced`` names it so that nobody calls
for it. A rate without a variant prices all variants that have none of their own.

Tiers are cliffs: a call with more input tokens than a tier's threshold pays that tier's rates for everything. A unit
that a tier does not name keeps the rate of the tier before it. Tokens of a variant are those of another model that a
tool called: they have rates, and do not make the call a longer one.
"""

from bisect import bisect_left
from collections.abc import Iterable
from math import gcd, lcm
from typing import Final, NamedTuple

from faregate.core.call import AUDIO_IN, AUDIO_OUT, CACHE_WRITE_1H, IMAGE_IN, IMAGE_OUT
from faregate.core.money import PICOS_PER_NANO
from faregate.core.pricing.card import PRICED_UNITS, Rate, RateCard
from faregate.core.usage import COUNT_MAX, OTHER_INPUT_UNITS, OTHER_OUTPUT_UNITS, Measure, Usage

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

_KIND_OF: Final = {
    "cached_input_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "input_audio_tokens": "input_tokens",
    "input_image_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
    "output_audio_tokens": "output_tokens",
    "output_image_tokens": "output_tokens",
}

#: What is cached of a kind that has a price of its own does not cost what cached text does.
_CACHED_OF: Final = {
    "cached_input_audio_tokens": "input_audio_tokens",
    "cached_input_image_tokens": "input_image_tokens",
}

_TOKENS_IN: Final = ("input_tokens", "cached_input_tokens", "cache_write_tokens")
_TOKENS_OUT: Final = ("output_tokens", "reasoning_tokens")
#: Which units a call can use beyond those, by the bits of ``Call.media``.
_MEDIA_IN: Final = {
    AUDIO_IN: ("input_audio_tokens", "cached_input_audio_tokens"),
    IMAGE_IN: ("input_image_tokens", "cached_input_image_tokens"),
    CACHE_WRITE_1H: ("cache_write_1h_tokens",),
}
_MEDIA_OUT: Final = {AUDIO_OUT: ("output_audio_tokens",), IMAGE_OUT: ("output_image_tokens",)}

_TOKEN_UNITS: Final = (*LEAF_UNITS, *OTHER_INPUT_UNITS, *OTHER_OUTPUT_UNITS)
#: What some sell by the piece and others by the tokens that it is made of.
_MADE_OF_TOKENS: Final = frozenset(("images", "seconds", "characters", "search_units"))
#: What is used beside the tokens or the image that a call is about.
_TOOL_UNITS: Final = frozenset(("web_searches", "file_searches", "code_sessions"))

#: A unit and its variant.
Variant = tuple[str, str]


class CostLine(NamedTuple):
    """One line of a derivation: ``quantity`` units at ``price_pico`` per ``per`` of them.

    The exact amount is ``numerator / denominator`` pico-dollars. ``priced_as`` names the rate that was used where the
    leaf ``unit`` has none of its own; it is empty, and the amount 0, where there is no price at all.
    """

    unit: str
    priced_as: str
    quantity: int
    price_pico: int
    per: int
    numerator: int
    denominator: int
    variant: str = ""


class Tariff:
    """A rate card, ready for the request path. Immutable.

    Raises:
        ValueError: the card contradicts itself: no tier, a first tier above 0, thresholds that do not rise, an unknown
            or repeated unit, a negative price or a ``per`` below 1.
    """

    __slots__ = (
        "_bounds",
        "_by_tokens",
        "_denominator",
        "_half",
        "_media_bounds",
        "_others",
        "_rows",
        "_thresholds",
        "_without",
        "service_tier",
        "version",
    )

    def __init__(self, card: RateCard) -> None:
        tiers = effective_tiers(card)
        whole = lcm(*(rate.per for rates in tiers for rate in rates.values())) * PICOS_PER_NANO
        scaled = [_coefficients(rates, whole) for rates in tiers]
        # Real prices share large factors; without them every product stays a small integer.
        common = gcd(whole, *(number for row in scaled for number in row.values()))
        #: The price of one unit in each tier, in parts of a nano-dollar: ``_denominator`` of them are one.
        self._others = [{key: number // common for key, number in row.items()} for row in scaled]
        self._denominator = whole // common
        self._half = self._denominator // 2
        #: Those of the leaves and of the call, in order.
        self._rows = tuple(tuple(row[unit, ""] for unit in (*LEAF_UNITS, "requests")) for row in self._others)
        self._thresholds = tuple(tier.above_input_tokens for tier in card.tiers[1:])
        self._by_tokens = rate_of(tiers[0], "input_tokens") is not None
        #: The leaves that have no price, not even one of what they are a kind of.
        self._without = tuple(at for at, unit in enumerate(LEAF_UNITS) if rate_of(tiers[0], unit) is None)
        self._bounds = _bounds(self._others, 0)
        self._media_bounds: dict[int, tuple[tuple[int, int, int], ...]] = {0: self._bounds}
        self.version = card.version
        self.service_tier = card.service_tier

    def cost(self, usage: Usage) -> int:
        """Nano-dollars of ``usage``: the exact sum, rounded once, half to even. What has no price costs nothing."""
        text, cached, write, audio, out, reasoning, out_audio, other = usage
        at = 0
        if self._thresholds:
            incoming = text + cached + write + audio
            at = bisect_left(self._thresholds, incoming + own_input(other) if other else incoming)
        c_text, c_cached, c_write, c_audio, c_out, c_reasoning, c_out_audio, c_call = self._rows[at]
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
        if other:
            prices = self._others[at]
            for unit, variant, quantity in other:
                amount += quantity * _price_in(prices, unit, variant)
        denominator = self._denominator
        if denominator == 1:
            return amount
        # money.half_even, written out: a call costs a third of this method.
        nanos, rest = divmod(amount, denominator)
        half = self._half
        if rest > half or (rest == half and nanos & 1 and half + half == denominator):
            return nanos + 1
        return nanos

    def bound(self, input_tokens: int, output_tokens: int, media: int = 0, at_most: tuple[Measure, ...] = ()) -> int:
        """Nano-dollars that no usage within these totals exceeds: every token the dearest, in any tier it may reach.

        ``media`` says which kinds of tokens besides text there may be, as ``Call.media`` does. ``at_most`` comes on
        top: other units, and tokens that the totals do not hold.
        """
        bounds = self._bounds if not media else self._bounds_for(media)
        at = bisect_left(self._thresholds, input_tokens + own_input(at_most)) if self._thresholds else 0
        c_in, c_out, c_call = bounds[at]
        amount = input_tokens * c_in + output_tokens * c_out + c_call
        if at_most:
            amount += self._most_of(at_most, at)
        return -(-amount // self._denominator)

    def bound_of_calls(
        self,
        calls: int,
        longest: int,
        input_tokens: int,
        output_tokens: int,
        media: int = 0,
        at_most: tuple[Measure, ...] = (),
    ) -> int:
        """Nano-dollars that ``calls`` calls together do not exceed, none with more than ``longest`` input tokens.

        The totals are those of all; no less than their bounds one by one, which are rounded up one by one.
        """
        bounds = self._bounds if not media else self._bounds_for(media)
        at = bisect_left(self._thresholds, longest + own_input(at_most)) if self._thresholds else 0
        c_in, c_out, c_call = bounds[at]
        amount = input_tokens * c_in + output_tokens * c_out + calls * c_call + self._most_of(at_most, at)
        return -(-amount // self._denominator) + max(0, calls - 1)

    def output_tokens_within(
        self, nanos: int, input_tokens: int, media: int = 0, at_most: tuple[Measure, ...] = ()
    ) -> int:
        """The largest total of output tokens whose bound is at most ``nanos``; -1 if not even the input fits.

        At most ``COUNT_MAX``, which is also the answer where output is free.
        """
        bounds = self._bounds if not media else self._bounds_for(media)
        at = bisect_left(self._thresholds, input_tokens + own_input(at_most)) if self._thresholds else 0
        c_in, c_out, c_call = bounds[at]
        left = nanos * self._denominator - input_tokens * c_in - c_call - self._most_of(at_most, at)
        if left < 0:
            return -1
        return min(left // c_out, COUNT_MAX) if c_out else COUNT_MAX

    def unpriced(self, found: Iterable[Measure]) -> str:
        """The first unit, with its variant, that has no price; empty where all have one.

        A variant of tokens is those of another model, which a tool calls: what this model's tokens cost says nothing
        about them.
        """
        prices = self._others[0]
        for unit, variant, _ in found:
            if (unit, variant) not in prices and ((unit, "") not in prices or (variant and unit in _TOKEN_UNITS)):
                return f"{unit} ({variant})" if variant else unit
        return ""

    def lacking(self, usage: Usage) -> set[Variant]:
        """Everything in ``usage`` that has no price here, so that ``cost`` counts it as nothing."""
        found: set[Variant] = {(LEAF_UNITS[at], "") for at in self._without if usage[at]}
        return found.union((each.unit, each.variant) for each in usage.other if self.unpriced((each,)))

    @property
    def by_tokens(self) -> bool:
        """Whether input tokens have a price, so that a call is not billed by what it declares."""
        return self._by_tokens

    def uncovered(self, found: Iterable[Measure]) -> str:
        """The first unit, with its variant, that a call must not use; empty where all are covered.

        Some services sell the same thing by the piece or by the token, and only the price tells which: so images,
        seconds, characters and search units need no price of their own where tokens have one.
        """
        by_tokens = self._by_tokens
        return self.unpriced(measure for measure in found if not (by_tokens and measure.unit in _MADE_OF_TOKENS))

    def _bounds_for(self, media: int) -> tuple[tuple[int, int, int], ...]:
        bounds = self._media_bounds.get(media)
        if bounds is None:
            bounds = self._media_bounds[media] = _bounds(self._others, media)
        return bounds

    def _most_of(self, at_most: tuple[Measure, ...], at: int) -> int:
        """The dearest that these can be in the tier ``at`` or one below it."""
        amount = 0
        for unit, variant, quantity in at_most:
            amount += quantity * max(_price_in(prices, unit, variant) for prices in self._others[: at + 1])
        return amount


def cost_lines(card: RateCard, usage: Usage) -> list[CostLine]:
    """The derivation of what ``usage`` costs by ``card``, one line for each leaf that was used and one per call.

    The exact amounts of the lines add up to the exact cost, which rounds to ``Tariff(card).cost(usage)``.

    Raises:
        ValueError: as ``Tariff`` does.
    """
    rates = effective_tiers(card)[tier_reached(card, usage)]
    leaves = zip(LEAF_UNITS, usage[:-1], strict=True)
    quantities = [*(Measure(unit, "", quantity) for unit, quantity in leaves), *usage.other, Measure("requests", "", 1)]
    lines = []
    for unit, variant, quantity in quantities:
        rate = rate_of(rates, unit, variant)
        if quantity and rate is not None:
            amount = quantity * rate.pico
            lines.append(CostLine(unit, rate.unit, quantity, rate.pico, rate.per, amount, rate.per, variant))
        elif quantity and unit != "requests":
            lines.append(CostLine(unit, "", quantity, 0, 1, 0, 1, variant))
    return lines


def card_is_priced(card: RateCard, *, has_output: bool = True) -> bool:
    """Whether no part of a call would be free by accident.

    A card without any price of tokens is priced by what else it counts (calls, images, seconds …), though not by tools
    alone: those come on top of something. Any other needs a rate for input, and for models that answer with tokens a
    rate for output. A rate of 0 is a rate: somebody wrote it down.
    """
    units = {rate.unit for rate in card.tiers[0].rates} if card.tiers else set()
    if units.isdisjoint(_TOKEN_UNITS):
        return not units <= _TOOL_UNITS
    return "input_tokens" in units and (not has_output or "output_tokens" in units)


def tier_reached(card: RateCard, usage: Usage) -> int:
    """Which of the card's tiers ``usage`` is billed at, counted from 0."""
    thresholds = [tier.above_input_tokens for tier in card.tiers[1:]]
    return bisect_left(thresholds, sum(usage[:4]) + own_input(usage.other))


def own_input(found: Iterable[Measure]) -> int:
    """Input tokens of rarer kinds that the model itself reads: those of a variant are another model's."""
    return sum(quantity for unit, variant, quantity in found if not variant and unit in OTHER_INPUT_UNITS)


def effective_tiers(card: RateCard) -> list[dict[Variant, Rate]]:
    """The rates by unit and variant that hold in each tier, those kept from the tier before included."""
    if not card.tiers or card.tiers[0].above_input_tokens != 0:
        raise ValueError(f"{card.version}: the first tier starts at 0 input tokens")
    effective: list[dict[Variant, Rate]] = []
    threshold = -1
    for tier in card.tiers:
        if tier.above_input_tokens <= threshold:
            raise ValueError(f"{card.version}: thresholds of tiers must rise")
        threshold = tier.above_input_tokens
        named: dict[Variant, Rate] = {}
        for rate in tier.rates:
            if rate.unit not in PRICED_UNITS:
                raise ValueError(f"{card.version}: {rate.unit!r} is not a unit that can be priced")
            if (rate.unit, rate.variant) in named:
                raise ValueError(f"{card.version}: {rate.unit} is priced twice in one tier")
            if rate.pico < 0 or rate.per < 1:
                raise ValueError(f"{card.version}: the price of {rate.unit} is negative or per less than one")
            named[rate.unit, rate.variant] = rate
        effective.append({**effective[-1], **named} if effective else named)
    return effective


def rate_of(rates: dict[Variant, Rate], unit: str, variant: str = "") -> Rate | None:
    """The rate of a unit, or of what it is a kind of."""
    rate = rates.get((unit, variant))
    kind: str | None = unit
    while rate is None and kind is not None:
        rate = rates.get((kind, ""))
        if kind in _CACHED_OF:
            whole = _CACHED_OF[kind]
            kind = whole if (whole, "") in rates else "cached_input_tokens"
        else:
            kind = _KIND_OF.get(kind)
    return rate


def _coefficients(rates: dict[Variant, Rate], whole: int) -> dict[Variant, int]:
    """The price of one of each unit, in parts of a nano-dollar that are ``whole`` to one.

    Every kind of tokens is there, and the call; of what is only counted, what has a price.
    """
    scale = whole // PICOS_PER_NANO
    found = {key: rate.pico * (scale // rate.per) for key, rate in rates.items()}
    for unit in (*_TOKEN_UNITS, "requests"):
        rate = rate_of(rates, unit)
        found[unit, ""] = rate.pico * (scale // rate.per) if rate is not None else 0
    return found


def _price_in(prices: dict[Variant, int], unit: str, variant: str) -> int:
    price = prices.get((unit, variant))
    return prices.get((unit, ""), 0) if price is None else price


def kinds_in(media: int) -> tuple[str, ...]:
    """The kinds of input tokens that a call may use, by the bits of its ``media``."""
    return (*_TOKENS_IN, *(unit for bit, units in _MEDIA_IN.items() if media & bit for unit in units))


def kinds_out(media: int) -> tuple[str, ...]:
    """The kinds of output tokens that a call may use, by the bits of its ``media``."""
    return (*_TOKENS_OUT, *(unit for bit, units in _MEDIA_OUT.items() if media & bit for unit in units))


def _bounds(rows: list[dict[Variant, int]], media: int) -> tuple[tuple[int, int, int], ...]:
    """The dearest input token, output token and call in each tier and all below it.

    A smaller usage may fall into a lower tier, so a lower tier that is dearer must count too.
    """
    incoming, outgoing = kinds_in(media), kinds_out(media)
    bounds = []
    c_in = c_out = c_call = 0
    for row in rows:
        c_in = max(c_in, *(row[unit, ""] for unit in incoming))
        c_out = max(c_out, *(row[unit, ""] for unit in outgoing))
        c_call = max(c_call, row["requests", ""])
        bounds.append((c_in, c_out, c_call))
    return tuple(bounds)
