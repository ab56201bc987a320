"""Prices random usages by random cards and compares with an independent oracle in exact fractions.

Run it as ``python tests/core/soak_pricing.py N [SEED]``; it prints what it did and exits 1 at the first difference. The
oracle shares no code with the tariff: it looks rates up by name and adds fractions. Beside the cost it checks that the
bound of any totals, kinds and other units that a usage stays within is no less, that the derivation adds up to the
cost, and that a usage with more of something costs no less where the same rates apply.
"""

import random
import sys
import time
from fractions import Fraction

from faregate.core.call import AUDIO_IN, AUDIO_OUT, CACHE_WRITE_1H, IMAGE_IN, IMAGE_OUT
from faregate.core.pricing.card import PRICED_UNITS, Rate, RateCard, Tier
from faregate.core.pricing.cost import Tariff, cost_lines
from faregate.core.usage import COUNTED_UNITS, OTHER_INPUT_UNITS, OTHER_OUTPUT_UNITS, Measure, Usage, measures

USAGES_PER_CARD = 100

#: Prices per million in pico-dollars as price lists have them, and odd ones that divide badly.
PRICES = (0, 1, 75_000_000_000, 150_000_000_000, 1_250_000_000_000, 2_500_000_000_000, 10**13, 333_333_333_333, 7)
PERS = (1_000_000, 1_000_000, 1_000_000, 1_000, 1, 3, 3_600, 999_983)
COUNTS = (0, 0, 1, 2, 3, 17, 999, 1_000, 1_001, 128_000, 200_000, 1_000_000_000)
VARIANTS = ("", "", "1024x1024/hd", "preview")

#: Kind of tokens → the bit of ``Call.media`` that allows it.
ALLOWED_BY = {
    "cache_write_1h_tokens": CACHE_WRITE_1H,
    "input_image_tokens": IMAGE_IN,
    "cached_input_image_tokens": IMAGE_IN,
    "cached_input_audio_tokens": AUDIO_IN,
    "output_image_tokens": IMAGE_OUT,
}


def random_card(rng: random.Random) -> RateCard:
    """A card of one to three tiers with any of the units priced; the first tier prices input and output."""
    tiers = []
    for above in sorted({0, *(rng.choice((1_000, 128_000, 200_000)) for _ in range(rng.randrange(3)))}):
        units = [unit for unit in PRICED_UNITS if rng.random() < 0.4]
        if above == 0:
            units = list(dict.fromkeys(("input_tokens", "output_tokens", *units)))
        rates = {
            (unit, variant): Rate(unit, rng.choice((*PRICES, rng.randrange(10**14))), rng.choice(PERS), variant)
            for unit in units
            for variant in ("", rng.choice(VARIANTS))
        }
        tiers.append(Tier(above, tuple(rates.values())))
    return RateCard("p", "m", "p/m@soak", tuple(tiers))


def random_usage(rng: random.Random) -> Usage:
    """Any leaves, often nothing and often just at a threshold; in every other usage some rarer units, too."""
    text, cached, written, heard, said, thought, spoken = (
        rng.choice((*COUNTS, rng.randrange(10_000))) for _ in "1234567"
    )
    other: list[Measure] = []
    if rng.random() < 0.5:
        units = rng.sample((*OTHER_INPUT_UNITS, *OTHER_OUTPUT_UNITS, *COUNTED_UNITS), rng.randrange(1, 5))
        other = [Measure(unit, rng.choice(VARIANTS), rng.choice((*COUNTS, rng.randrange(99)))) for unit in units]
    return Usage(text, cached, written, heard, said, thought, spoken, measures(other))


Prices = dict[tuple[str, str], Fraction]


class Oracle:
    """What usages cost by one card, in exact fractions of a nano-dollar."""

    def __init__(self, card: RateCard) -> None:
        self.card = card
        self._prices: dict[int, Prices] = {}

    def cost(self, usage: Usage) -> Fraction:
        """The sum of all that was used, each at its price in the tier that all own input reaches."""
        own = sum(each.quantity for each in usage.other if not each.variant and each.unit in OTHER_INPUT_UNITS)
        total_input = usage.input_text + usage.input_cached + usage.input_cache_write + usage.input_audio + own
        price = self._prices_at(total_input)
        owed = (
            usage.input_text * price["input_tokens", ""]
            + usage.input_cached * price["cached_input_tokens", ""]
            + usage.input_cache_write * price["cache_write_tokens", ""]
            + usage.input_audio * price["input_audio_tokens", ""]
            + usage.output_text * price["output_tokens", ""]
            + usage.output_reasoning * price["reasoning_tokens", ""]
            + usage.output_audio * price["output_audio_tokens", ""]
            + price["requests", ""]
        )
        for unit, variant, quantity in usage.other:
            owed += quantity * price.get((unit, variant), price[unit, ""])
        return owed / 1_000

    def _prices_at(self, total_input: int) -> Prices:
        reached = [
            tier for tier in self.card.tiers if tier.above_input_tokens == 0 or total_input > tier.above_input_tokens
        ]
        known = self._prices.get(len(reached))
        if known is None:
            known = self._prices[len(reached)] = with_kinds(
                {(rate.unit, rate.variant): Fraction(rate.pico, rate.per) for tier in reached for rate in tier.rates}
            )
        return known


def with_kinds(named: Prices) -> Prices:
    """The prices with those of units that have none of their own: nothing, or that of what they are a kind of."""
    price = {(unit, ""): Fraction(0) for unit in PRICED_UNITS} | named

    def kind_of(unit: str, kind: str) -> None:
        if (unit, "") not in named:
            price[unit, ""] = price[kind, ""]

    kind_of("cached_input_tokens", "input_tokens")
    kind_of("cache_write_tokens", "input_tokens")
    kind_of("cache_write_1h_tokens", "cache_write_tokens")
    for medium in ("audio", "image"):
        own = (f"input_{medium}_tokens", "") in named
        kind_of(f"input_{medium}_tokens", "input_tokens")
        kind_of(f"cached_input_{medium}_tokens", f"input_{medium}_tokens" if own else "cached_input_tokens")
        kind_of(f"output_{medium}_tokens", "output_tokens")
    kind_of("reasoning_tokens", "output_tokens")
    return price


def allowed(usage: Usage) -> tuple[int, int, int, tuple[Measure, ...]]:
    """The tightest that a call with this usage may have been bounded by: input, output, kinds, and the rest."""
    media = (AUDIO_IN if usage.input_audio else 0) | (AUDIO_OUT if usage.output_audio else 0)
    own = [measure for measure in usage.other if not measure.variant and measure.unit in ALLOWED_BY]
    for measure in own:
        media |= ALLOWED_BY[measure.unit]
    incoming = sum(usage[:4]) + sum(measure.quantity for measure in own if measure.unit in OTHER_INPUT_UNITS)
    outgoing = sum(usage[4:7]) + sum(measure.quantity for measure in own if measure.unit in OTHER_OUTPUT_UNITS)
    rest = tuple(measure for measure in usage.other if measure not in own)
    return incoming, outgoing, media, rest


def fault(rng: random.Random, oracle: Oracle, tariff: Tariff, usage: Usage) -> str:
    """What is wrong with what ``usage`` costs, as a sentence; empty where nothing is."""
    card = oracle.card
    priced, exact = tariff.cost(usage), oracle.cost(usage)
    if priced != round(exact) or priced < 0:
        return f"{usage} by {card} is {exact} nano-dollars, not {priced}"
    incoming, outgoing, media, rest = allowed(usage)
    more = rng.choice((0, 0, 1, 128_000))
    if tariff.bound(incoming + more, outgoing, media, rest) < priced:
        return f"the bound of {usage} by {card} is below its cost {priced}"
    if rng.random() < 0.05:
        lines = sum((Fraction(line.numerator, line.denominator) for line in cost_lines(card, usage)), Fraction(0))
        if lines != exact * 1_000:
            return f"the lines of {usage} by {card} add up to {lines} pico-dollars, not {exact * 1_000}"
        raised = usage._replace(output_text=usage.output_text + 1 + more)
        if tariff.cost(raised) < priced:
            return f"more output than {usage} costs less by {card}"
    return ""


def soak(cases: int, seed: int) -> str:
    """Price ``cases`` usages; the first difference as a sentence, or the empty string."""
    rng = random.Random(seed)
    done = 0
    while done < cases:
        card = random_card(rng)
        tariff, oracle = Tariff(card), Oracle(card)
        for _ in range(min(USAGES_PER_CARD, cases - done)):
            difference = fault(rng, oracle, tariff, random_usage(rng))
            if difference:
                return f"case {done}: {difference}"
            done += 1
    return ""


def main(arguments: list[str]) -> int:
    """Run the soak from the command line."""
    cases = int(arguments[0]) if arguments else 1_000_000
    seed = int(arguments[1]) if len(arguments) > 1 else random.SystemRandom().randrange(2**32)
    started = time.monotonic()
    difference = soak(cases, seed)
    print(difference or f"{cases} usages priced exactly in {time.monotonic() - started:.0f} s", f"(seed {seed})")
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
