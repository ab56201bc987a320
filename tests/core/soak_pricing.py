"""Prices random usages by random cards and compares with an independent oracle in exact fractions.

Run it as ``python tests/core/soak_pricing.py N [SEED]``; it prints what it did and exits 1 at the first difference. The
oracle shares no code with the tariff: it looks rates up by name and adds fractions.
"""

import random
import sys
import time
from fractions import Fraction

from faregate.core.pricing.card import PRICED_UNITS, Rate, RateCard, Tier
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import Usage

USAGES_PER_CARD = 100

#: Prices per million in pico-dollars as price lists have them, and odd ones that divide badly.
PRICES = (0, 1, 75_000_000_000, 150_000_000_000, 1_250_000_000_000, 2_500_000_000_000, 10**13, 333_333_333_333, 7)
PERS = (1_000_000, 1_000_000, 1_000_000, 1_000, 1, 3, 999_983)
COUNTS = (0, 0, 1, 2, 3, 17, 999, 1_000, 1_001, 128_000, 200_000, 1_000_000_000)


def random_card(rng: random.Random) -> RateCard:
    """A card of one to three tiers with any of the units priced; the first tier prices input and output."""
    tiers = []
    for above in sorted({0, *(rng.choice((1_000, 128_000, 200_000)) for _ in range(rng.randrange(3)))}):
        units = [unit for unit in PRICED_UNITS if rng.random() < 0.5]
        if above == 0:
            units = list(dict.fromkeys(("input_tokens", "output_tokens", *units)))
        rates = [Rate(unit, rng.choice((*PRICES, rng.randrange(10**14))), rng.choice(PERS)) for unit in units]
        tiers.append(Tier(above, tuple(rates)))
    return RateCard("p", "m", "p/m@soak", tuple(tiers))


def random_usage(rng: random.Random) -> Usage:
    """Any leaves, often nothing and often just at a threshold."""
    return Usage(*(rng.choice((*COUNTS, rng.randrange(10_000))) for _ in range(7)))


def oracle(card: RateCard, usage: Usage) -> int:
    """Nano-dollars by exact fractions, rounded half to even by Python."""
    total_input = usage.input_text + usage.input_cached + usage.input_cache_write + usage.input_audio
    price: dict[str, Fraction] = {}
    for tier in card.tiers:
        if tier.above_input_tokens == 0 or total_input > tier.above_input_tokens:
            price.update({rate.unit: Fraction(rate.pico, rate.per) for rate in tier.rates})
    nothing = Fraction(0)
    text, answer = price.get("input_tokens", nothing), price.get("output_tokens", nothing)
    owed = (
        usage.input_text * text
        + usage.input_cached * price.get("cached_input_tokens", text)
        + usage.input_cache_write * price.get("cache_write_tokens", text)
        + usage.input_audio * price.get("input_audio_tokens", text)
        + usage.output_text * answer
        + usage.output_reasoning * price.get("reasoning_tokens", answer)
        + usage.output_audio * price.get("output_audio_tokens", answer)
        + price.get("requests", nothing)
    )
    return round(owed * Fraction(1, 1_000))


def soak(cases: int, seed: int) -> str:
    """Price ``cases`` usages; the first difference as a sentence, or the empty string."""
    rng = random.Random(seed)
    done = 0
    while done < cases:
        card = random_card(rng)
        tariff = Tariff(card)
        for _ in range(min(USAGES_PER_CARD, cases - done)):
            usage = random_usage(rng)
            priced, expected = tariff.cost(usage), oracle(card, usage)
            if priced != expected:
                return f"case {done}: {usage} by {card} is {expected} nano-dollars, not {priced}"
            if tariff.bound(usage.input_tokens, usage.output_tokens) < priced:
                return f"case {done}: the bound of {usage} by {card} is below its cost {priced}"
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
