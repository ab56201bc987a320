"""Measured units of one call, split into disjoint leaves.

Providers report totals and "of which" parts (cached, reasoning, audio). Pricing needs leaves that do not overlap and
that add up to the totals again; a report whose parts exceed their total is a contradiction and is named, never guessed
at.

The order of fields is part of the journal's format: add new leaves at the end, with a default.
"""

from typing import NamedTuple

#: No single call uses more of anything; larger reports are absurd and not believed.
COUNT_MAX = 1_000_000_000


class Usage(NamedTuple):
    """Disjoint leaves, each a whole number of tokens ≥ 0."""

    input_text: int = 0
    input_cached: int = 0
    input_cache_write: int = 0
    input_audio: int = 0
    output_text: int = 0
    output_reasoning: int = 0
    output_audio: int = 0

    @property
    def input_tokens(self) -> int:
        """All input leaves together, as providers report it."""
        return self.input_text + self.input_cached + self.input_cache_write + self.input_audio

    @property
    def output_tokens(self) -> int:
        """All output leaves together, as providers report it."""
        return self.output_text + self.output_reasoning + self.output_audio


NO_USAGE = Usage()


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
            return tuple.__new__(Usage, (text_in, cached, cache_write, input_audio, text_out, reasoning, output_audio))
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
