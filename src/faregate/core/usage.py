"""Measured units of one call, split into disjoint leaves.

Providers report totals and "of which" parts (cached, reasoning, audio). Pricing needs leaves that do not overlap and
that add up to the totals again; a report whose parts exceed their total is a contradiction and is named, never guessed
at.

The leaves that nearly every call has are fields. What else can be sold (images, seconds, searches, tokens of rarer
kinds) is a ``Measure`` in ``other``, so that an ordinary call carries none of it.

The order of fields is part of the journal's format: add new leaves at the end, with a default.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

#: No single call uses more of anything; larger reports are absurd and not believed.
COUNT_MAX = 1_000_000_000

#: Input tokens of rarer kinds; each is priced as the unit it is a kind of where it has no price of its own.
OTHER_INPUT_UNITS: Final = (
    "cache_write_1h_tokens",
    "input_image_tokens",
    "cached_input_audio_tokens",
    "cached_input_image_tokens",
)
#: Output tokens of rarer kinds.
OTHER_OUTPUT_UNITS: Final = ("output_image_tokens",)
#: What is not tokens. A variant may tell prices of one unit apart, such as the size and quality of an image.
COUNTED_UNITS: Final = (
    "images",
    # Of audio or video, started ones counted whole.
    "seconds",
    "characters",
    "web_searches",
    "file_searches",
    "code_sessions",
    "search_units",
    "pages",
    # Of a service behind the gate: bytes both ways, and the time from the first byte sent to the last received.
    "bytes",
    "busy_milliseconds",
    # What such a service says of itself: pieces of whatever it makes, and thousand millions of operations on numbers.
    "units",
    "gigaflops",
)
OTHER_UNITS: Final = (*OTHER_INPUT_UNITS, *OTHER_OUTPUT_UNITS, *COUNTED_UNITS)


class Measure(NamedTuple):
    """``quantity`` ≥ 0 of one of ``OTHER_UNITS``; ``variant`` tells prices of one unit apart and is mostly empty."""

    unit: str
    variant: str
    quantity: int


class Usage(NamedTuple):
    """Disjoint leaves: tokens by kind, each a whole number ≥ 0, and everything else that was measured."""

    input_text: int = 0
    input_cached: int = 0
    input_cache_write: int = 0
    input_audio: int = 0
    output_text: int = 0
    output_reasoning: int = 0
    output_audio: int = 0
    #: At most one for each unit and variant, ordered by them, none of quantity 0.
    other: tuple[Measure, ...] = ()

    @property
    def input_tokens(self) -> int:
        """All input leaves together, as providers report it."""
        known = self.input_text + self.input_cached + self.input_cache_write + self.input_audio
        return known + self.quantity(*OTHER_INPUT_UNITS) if self.other else known

    @property
    def output_tokens(self) -> int:
        """All output leaves together, as providers report it."""
        known = self.output_text + self.output_reasoning + self.output_audio
        return known + self.quantity(*OTHER_OUTPUT_UNITS) if self.other else known

    def quantity(self, *units: str) -> int:
        """How much of some of ``OTHER_UNITS`` was used, in all variants together."""
        return sum(measure.quantity for measure in self.other if measure.unit in units)


NO_USAGE = Usage()


def measures(found: Iterable[Measure]) -> tuple[Measure, ...]:
    """Measures as ``Usage.other`` wants them: those of one unit and variant added up, none of 0, in order."""
    totals: dict[tuple[str, str], int] = {}
    for unit, variant, quantity in found:
        totals[unit, variant] = totals.get((unit, variant), 0) + quantity
    return tuple(Measure(unit, variant, quantity) for (unit, variant), quantity in sorted(totals.items()) if quantity)


def added(one: Usage, two: Usage) -> Usage:
    """The usage of two calls together."""
    return Usage(
        one.input_text + two.input_text,
        one.input_cached + two.input_cached,
        one.input_cache_write + two.input_cache_write,
        one.input_audio + two.input_audio,
        one.output_text + two.output_text,
        one.output_reasoning + two.output_reasoning,
        one.output_audio + two.output_audio,
        measures((*one.other, *two.other)),
    )


class Contradiction(NamedTuple):
    """A usage report that cannot be true; ``rule`` says in words what does not fit."""

    rule: str


def split(
    input_tokens: object,
    output_tokens: object,
    *,
    total: object = None,
    cached: object = 0,
    cache_write: object = 0,
    input_audio: object = 0,
    reasoning: object = 0,
    output_audio: object = 0,
) -> Usage | Contradiction:
    """Split reported totals into disjoint leaves.

    Every argument is what the provider said, of any type. Whole numbers from 0 to ``COUNT_MAX`` are accepted; anything
    else, parts that exceed their total, and a ``total`` that is not the sum are a ``Contradiction``.
    """
    if (
        type(input_tokens) is type(output_tokens) is type(cached) is type(cache_write) is int
        and type(input_audio) is type(reasoning) is type(output_audio) is int
    ):
        # Nearly every report is plain numbers that fit; the long way below finds out what is wrong with the others.
        text_in = input_tokens - cached - cache_write - input_audio
        text_out = output_tokens - reasoning - output_audio
        if (
            text_in >= 0 <= text_out
            and cached >= 0 <= cache_write
            and input_audio >= 0 <= reasoning
            and output_audio >= 0
            and input_tokens <= COUNT_MAX >= output_tokens
            and (total is None or (type(total) is int and total == input_tokens + output_tokens))
        ):
            # The tuple's own constructor takes a third of the time, on every answer.
            return tuple.__new__(
                Usage, (text_in, cached, cache_write, input_audio, text_out, reasoning, output_audio, ())
            )
    reported = {
        "input": input_tokens,
        "output": output_tokens,
        "cached": cached,
        "cache write": cache_write,
        "input audio": input_audio,
        "reasoning": reasoning,
        "output audio": output_audio,
    }
    counts: dict[str, int] = {}
    for name, value in reported.items():
        if value is None:
            value = 0
        if type(value) is not int:
            return Contradiction(f"{name} tokens are not a whole number")
        if not 0 <= value <= COUNT_MAX:
            return Contradiction(f"{name} tokens are outside 0 to {COUNT_MAX}")
        counts[name] = value
    if total is not None and (type(total) is not int or total != counts["input"] + counts["output"]):
        return Contradiction("total tokens are not the sum of input and output tokens")
    text_in = counts["input"] - counts["cached"] - counts["cache write"] - counts["input audio"]
    text_out = counts["output"] - counts["reasoning"] - counts["output audio"]
    if text_in < 0:
        return Contradiction("cached, cache-write and audio input tokens exceed input tokens")
    if text_out < 0:
        return Contradiction("reasoning and audio output tokens exceed output tokens")
    return Usage(
        text_in,
        counts["cached"],
        counts["cache write"],
        counts["input audio"],
        text_out,
        counts["reasoning"],
        counts["output audio"],
    )
