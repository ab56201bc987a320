"""Counters and histograms of the gate, in memory; the console reads them over the control socket.

One dictionary lookup and a few additions per request: no library that locks.
"""

from collections.abc import Callable
from typing import Final

from faregate.control import Histogram, Sample
from faregate.core.attribution import Attribution
from faregate.core.usage import COUNTED_UNITS, OTHER_INPUT_UNITS, OTHER_OUTPUT_UNITS, Usage

#: Durations are counted by their number of binary digits in microseconds: bucket ``n`` holds those below 2**n.
DIGITS_MAX: Final = 60

#: Distinct label sets kept; more (an operator with very many teams) are counted together as ``other``.
LABEL_SETS_MAX: Final = 10_000

#: A hot loop over so many takes less time than a call does.
COUNTED_AT_ONCE: Final = 64

LABELS: Final = ("organization", "team", "project", "stage", "model", "deployment", "operation", "status")
_OTHER: Final = ("other",) * len(LABELS)

_TOKEN_KINDS: Final = (
    "input",
    "cached_input",
    "cache_write",
    "input_audio",
    "output",
    "reasoning",
    "output_audio",
)
#: Where the units that few calls use stand in a row, behind those.
_RARE_AT: Final = {
    unit: 2 + len(_TOKEN_KINDS) + n for n, unit in enumerate((*OTHER_INPUT_UNITS, *OTHER_OUTPUT_UNITS, *COUNTED_UNITS))
}
_ROW: Final = 2 + len(_TOKEN_KINDS) + len(_RARE_AT)

#: The row of its labels, usage, cost, then microseconds: whole call, time before it was sent, time to the first token
#: (0 where nothing came).
Ended = tuple[list[int], Usage, int, int, int, int]


class Distribution:
    """Counts of durations by powers of two, not yet cumulative."""

    __slots__ = ("counts", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * (DIGITS_MAX + 1)
        self.sum_us = 0

    def observe(self, duration_us: int) -> None:
        """Count one duration."""
        self.counts[duration_us.bit_length()] += 1
        self.sum_us += duration_us

    def histogram(self, name: str, least: int, most: int) -> Histogram:
        """The cumulative form that Prometheus reads, with buckets from 2**least to 2**most microseconds."""
        total = sum(self.counts[:least])
        buckets = []
        for digits in range(least, most + 1):
            total += self.counts[digits]
            buckets.append((1 << digits, total))
        return Histogram(name, (), tuple(buckets), self.sum_us, sum(self.counts))


class Metrics:
    """Everything the gate counts."""

    __slots__ = (
        "_by_labels",
        "_ended",
        "brakes",
        "contents",
        "first_token",
        "latency",
        "overhead",
        "refusals",
        "settled",
        "unpriced",
    )

    def __init__(self) -> None:
        #: labels → [requests, cost in nano-dollars, then tokens by kind and the rarer units].
        self._by_labels: dict[tuple[str, ...], list[int]] = {}
        #: Ended exchanges that are not counted yet: a hot loop over many costs a third of as many cold calls.
        self._ended: list[Ended] = []
        #: Count one ended exchange: its row, usage, cost, and durations in microseconds as in ``Ended``.
        self.settled: Callable[[Ended], None] = self._ended.append
        self.refusals: dict[str, int] = {}
        #: Keys braked, by what gave them away.
        self.brakes: dict[str, int] = {}
        self.unpriced: dict[str, int] = {}
        #: Contents that were to be kept, by what became of them.
        self.contents: dict[str, int] = {}
        self.latency = Distribution()
        self.first_token = Distribution()
        self.overhead = Distribution()

    def row(self, who: Attribution, status: str) -> list[int]:
        """The counters for these labels; whoever settles many alike calls may keep it."""
        labels: tuple[str, ...] = (who[0], who[1], who[2], who[7], who[9], who[10], who[12], status)
        row = self._by_labels.get(labels)
        if row is None:
            if len(self._by_labels) >= LABEL_SETS_MAX:
                labels = _OTHER
            row = self._by_labels.setdefault(labels, [0] * _ROW)
        return row

    def count_many(self) -> None:
        """Add up what has ended where it is many, so that there are never more to add up while a call waits."""
        if len(self._ended) >= COUNTED_AT_ONCE:
            self.count()

    def count(self) -> None:
        """Add up what has ended; called a few times a second, and before the counters are read."""
        latency, first_token, overhead = self.latency, self.first_token, self.overhead
        # Taken out first: one that cannot be counted must not come again with all others.
        ended = self._ended[:]
        self._ended.clear()
        for row, usage, cost, latency_us, overhead_us, first_token_us in ended:
            row[0] += 1
            row[1] += cost
            plain_input, cached, cache_write, audio, plain_output, reasoning, audio_output, other = usage
            row[2] += plain_input
            row[6] += plain_output
            # Most calls have only plain input and output; the other leaves are added where one of them is not 0.
            if cached or cache_write or audio or reasoning or audio_output:
                row[3] += cached
                row[4] += cache_write
                row[5] += audio
                row[7] += reasoning
                row[8] += audio_output
            for unit, _, quantity in other:
                if unit in _RARE_AT:
                    row[_RARE_AT[unit]] += quantity
            latency.observe(latency_us)
            overhead.observe(overhead_us)
            if first_token_us:
                first_token.observe(first_token_us)

    def reported(self, row: list[int], usage: Usage, cost: int) -> None:
        """Count a call that went past the gate: it used something, and how long it took nobody knows."""
        row[0] += 1
        row[1] += cost
        plain_input, cached, cache_write, audio, plain_output, reasoning, audio_output, other = usage
        leaves = (plain_input, cached, cache_write, audio, plain_output, reasoning, audio_output)
        for at, leaf in enumerate(leaves, 2):
            row[at] += leaf
        for unit, _, quantity in other:
            if unit in _RARE_AT:
                row[_RARE_AT[unit]] += quantity

    def refused(self, code: str) -> None:
        """Count one refusal, of an identified caller or not."""
        self.refusals[code] = self.refusals.get(code, 0) + 1

    def braked(self, cause: str) -> None:
        """Count one key that was braked."""
        self.brakes[cause] = self.brakes.get(cause, 0) + 1

    def unmeasured(self, what: str, count: int) -> None:
        """Count what a provider reported and nobody here could price: a unit, or a ``member`` of its usage report."""
        self.unpriced[what] = self.unpriced.get(what, 0) + count

    def samples(self) -> tuple[Sample, ...]:
        """All counters. Cost is in nano-dollars here; the console shows dollars."""
        self.count()
        samples = [Sample("faregate_refusals_total", (("code", code),), n) for code, n in self.refusals.items()]
        samples += [Sample("faregate_unpriced_usage_total", (("unit", unit),), n) for unit, n in self.unpriced.items()]
        samples += [Sample("faregate_brakes_total", (("cause", cause),), n) for cause, n in self.brakes.items()]
        samples += [Sample("faregate_contents_total", (("outcome", each),), n) for each, n in self.contents.items()]
        for values, row in self._by_labels.items():
            labels = tuple(zip(LABELS, values, strict=True))
            samples.append(Sample("faregate_requests_total", labels, row[0]))
            samples.append(Sample("faregate_cost_nanos_total", labels, row[1]))
            for kind, count in zip(_TOKEN_KINDS, row[2:], strict=False):
                if count:
                    samples.append(Sample("faregate_tokens_total", (*labels, ("kind", kind)), count))
            for unit, at in _RARE_AT.items():
                if row[at] and unit in COUNTED_UNITS:
                    samples.append(Sample("faregate_units_total", (*labels, ("unit", unit)), row[at]))
                elif row[at]:
                    kind = unit.removesuffix("_tokens")
                    samples.append(Sample("faregate_tokens_total", (*labels, ("kind", kind)), row[at]))
        return tuple(samples)

    def histograms(self) -> tuple[Histogram, ...]:
        """All histograms."""
        self.count()
        return (
            self.latency.histogram("faregate_request_seconds", 10, 30),
            self.first_token.histogram("faregate_first_token_seconds", 10, 30),
            self.overhead.histogram("faregate_overhead_seconds", 5, 20),
        )
