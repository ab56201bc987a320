"""What an answer used when its provider did not say, or said what cannot be true.

Counts the text that was delivered with the model's tokenizer, which comes in as an argument, and says how far the
figure can be trusted. Owns no tokenizer and no price.
"""

from typing import NamedTuple, Protocol

from faregate.core.metering.meter import Metered
from faregate.core.usage import OTHER_OUTPUT_UNITS, Usage


class Counter(Protocol):
    """The part of the token counter's port that counting needs."""

    def count(self, text: str, encoding: str) -> int:
        """Tokens of ``text``."""
        ...


class Estimate(NamedTuple):
    """Billed units and where they came from: ``provider``, ``counted``, ``estimate`` or ``provider_invalid``."""

    usage: Usage
    source: str


def output_tokens(metered: Metered, counter: Counter, encoding: str) -> int:
    """Tokens of the text that was delivered; text beyond what was kept counts in proportion, rounded up."""
    characters = metered.characters - metered.counted_characters
    if not characters:
        return metered.counted_tokens
    kept = len(metered.text)
    if not kept:
        # Nothing readable was kept, and a token is at least one character.
        return metered.counted_tokens + characters
    counted = counter.count(metered.text, encoding)
    return metered.counted_tokens - (-counted * characters // kept)


def estimate(
    metered: Metered,
    counter: Counter,
    encoding: str,
    *,
    input_tokens: int,
    output_tokens_max: int,
) -> Estimate:
    """The units to bill for an answer, never more output than ``output_tokens_max``.

    The provider's own report stands where it can be believed (``provider``). Else the delivered text is counted:
    ``counted`` when the answer came to its end and could be read, ``estimate`` when it was cut, aborted or unreadable,
    ``provider_invalid`` when a report was broken, which is billed as at least one token. A report that more text
    followed is the least that is billed.
    """
    told = metered.told
    if told is not None:
        return Estimate(told, "provider")
    outgoing = output_tokens(metered, counter, encoding)
    reported = metered.report.usage
    if reported is not None:
        outgoing = max(outgoing, reported.output_tokens)
    if metered.report.invalid:
        source = "provider_invalid"
        outgoing = max(outgoing, 1)
    elif metered.outcome == "complete" and not metered.malformed:
        source = "counted"
    else:
        source = "estimate"
    outgoing = min(outgoing, output_tokens_max)
    if reported is None:
        return Estimate(Usage(input_text=input_tokens, output_text=outgoing), source)
    # What was read is known by its kinds: a cached prompt stays a cached one.
    other = tuple(measure for measure in reported.other if measure.unit not in OTHER_OUTPUT_UNITS)
    usage = reported._replace(output_text=outgoing, output_reasoning=0, output_audio=0, other=other)
    return Estimate(usage, source)
