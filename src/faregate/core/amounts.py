"""What a reservation holds and what it posts, in every unit a limit may count.

A limit counts exactly one unit; a request carries an amount in each of them, so that admission is one subscript.
"""

from typing import NamedTuple

from faregate.core.usage import OTHER_INPUT_UNITS, OTHER_OUTPUT_UNITS, Measure, Usage

#: Units in the order of the fields of ``Amounts``.
UNITS = (
    "usd",
    "tokens",
    "input_tokens",
    "output_tokens",
    "requests",
    "concurrency",
    "images",
    "seconds",
    "characters",
)


class Amounts(NamedTuple):
    """Amounts by unit: ``usd`` in nano-dollars, everything else in whole units. Order follows ``UNITS``."""

    usd: int = 0
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    concurrency: int = 0
    images: int = 0
    seconds: int = 0
    characters: int = 0


NOTHING = Amounts()


def held_amounts(usd: int, input_tokens: int, output_tokens: int, at_most: tuple[Measure, ...] = ()) -> Amounts:
    """The amounts one call holds: its bounds, one request and one concurrency slot.

    ``at_most`` comes on top of the totals: other units, and tokens that they do not hold.
    """
    images = seconds = characters = 0
    if at_most:
        images, seconds, characters = counted(at_most)
        more_in, more_out = counted_tokens(at_most)
        input_tokens += more_in
        output_tokens += more_out
    # Twice per request: a named tuple's own constructor costs three times as much as the tuple's.
    return tuple.__new__(
        Amounts,
        (usd, input_tokens + output_tokens, input_tokens, output_tokens, 1, 1, images, seconds, characters),
    )


def posted_amounts(charge: int, usage: Usage) -> Amounts:
    """The amounts one ended call posts: what it really used; its concurrency slot comes back."""
    text, cached, write, audio, out, reasoning, out_audio, other = usage
    incoming, outgoing = text + cached + write + audio, out + reasoning + out_audio
    images = seconds = characters = 0
    if other:
        incoming, outgoing = usage.input_tokens, usage.output_tokens
        images, seconds, characters = counted(other)
    return tuple.__new__(Amounts, (charge, incoming + outgoing, incoming, outgoing, 1, 0, images, seconds, characters))


def most_of(one: Amounts, other: Amounts) -> Amounts:
    """The larger amount in each unit: what is held after a hold has grown, in whichever order that is learnt."""
    return Amounts(*map(max, one, other))


def counted(found: tuple[Measure, ...]) -> tuple[int, int, int]:
    """Images, seconds and characters among what was measured."""
    images = seconds = characters = 0
    for unit, _, quantity in found:
        if unit == "images":
            images += quantity
        elif unit == "seconds":
            seconds += quantity
        elif unit == "characters":
            characters += quantity
    return images, seconds, characters


def counted_tokens(found: tuple[Measure, ...]) -> tuple[int, int]:
    """Input and output tokens of rarer kinds among what was measured, in all variants together."""
    incoming = sum(quantity for unit, _, quantity in found if unit in OTHER_INPUT_UNITS)
    return incoming, sum(quantity for unit, _, quantity in found if unit in OTHER_OUTPUT_UNITS)
