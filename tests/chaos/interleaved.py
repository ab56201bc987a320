"""Whether two kinds of work take the same time: Welch's t over samples that were taken in a random order.

As dudect does it (https://github.com/oreparaz/dudect): both kinds are interleaved, so that whatever slows the machine
slows both, and the slowest samples are left out by one threshold for both, because on a shared machine they tell of
others. Several thresholds are tried, and the one by which the two differ most counts. Above 4.5 they are told apart.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

#: From here on two means differ, and not by chance.
T_MAX = 4.5
#: Parts of all samples that are left out at the upper end: the fastest tell most where others use the machine, too.
CROPPED = (0.05, 0.25, 0.5, 0.75, 0.9)
#: Samples that nobody counts: the first ones pay for caches and imports.
WARM_UP = 300


class Comparison(NamedTuple):
    """What was found: Welch's t, and the two means in microseconds."""

    t: float
    first_us: float
    second_us: float
    samples: int

    @property
    def alike(self) -> bool:
        """Whether nobody can tell one from the other."""
        return abs(self.t) < T_MAX


def compared(first: Sequence[int], second: Sequence[int]) -> Comparison:
    """Two kinds of samples in nanoseconds, without the slowest of all."""
    everything = sorted([*first, *second])
    found = []
    for part in CROPPED:
        most = everything[int(len(everything) * (1 - part)) - 1]
        kept = [[each / 1000 for each in samples if each <= most] for samples in (first, second)]
        (mean, spread), (other, other_spread) = (_moments(samples) for samples in kept)
        found.append(Comparison((mean - other) / math.sqrt(spread + other_spread), mean, other, len(everything)))
    return max(found, key=lambda each: abs(each.t))


def _moments(samples: Sequence[float]) -> tuple[float, float]:
    """The mean, and the variance of that mean."""
    mean = math.fsum(samples) / len(samples)
    return mean, math.fsum((each - mean) ** 2 for each in samples) / (len(samples) - 1) / len(samples)


async def measured(
    work: Callable[[str], Awaitable[None]],
    kinds: tuple[Sequence[str], Sequence[str]],
    samples: int,
    chance: random.Random,
) -> Comparison:
    """Do ``work`` on ``samples`` names, each of a random kind and chosen at random of its kind."""
    plan = [n % 2 for n in range(samples)]
    chance.shuffle(plan)
    taken: tuple[list[int], list[int]] = ([], [])
    for kind in plan[:WARM_UP]:
        await work(chance.choice(kinds[kind]))
    gc.collect()
    gc.disable()
    try:
        for n, kind in enumerate(plan):
            name = chance.choice(kinds[kind])
            started = time.perf_counter_ns()
            await work(name)
            taken[kind].append(time.perf_counter_ns() - started)
            if n % 1000 == 999:
                # Between two samples, so that no sample pays for it.
                gc.collect()
    finally:
        gc.enable()
    return compared(*taken)
