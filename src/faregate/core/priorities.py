"""Ranges of the ``Priority`` header that a credential may use: how they are written, met and kept to.

A range is two whole numbers of 0 … 1000 and a hyphen, both ends included: ``101-1000``. Lower numbers are more urgent,
so who asks for more than it may counts as the most urgent that it may be, and never as more than it asked for.
"""

from functools import lru_cache
from typing import Final

PRIORITY_MAX: Final = 1_000

#: Ranges of one credential; more say nothing that few do not.
RANGES_MAX: Final = 16

_DIGITS_MAX: Final = 4

Span = tuple[int, int]


def span(text: str) -> Span:
    """Both ends of a range.

    Raises:
        ValueError: with the rule that it breaks, as the end of a sentence.
    """
    low, separator, high = text.partition("-")
    if not separator or not all(end.isascii() and end.isdigit() and len(end) <= _DIGITS_MAX for end in (low, high)):
        raise ValueError("must be two whole numbers and a hyphen, such as 101-1000")
    if not int(low) <= int(high) <= PRIORITY_MAX:
        raise ValueError(f"must lie within 0 to {PRIORITY_MAX}, the lower end first")
    return int(low), int(high)


@lru_cache(maxsize=1_024)
def spans(texts: tuple[str, ...]) -> tuple[Span, ...]:
    """What ranges that were checked before cover, the most urgent first; those that touch or overlap are one."""
    found: list[Span] = []
    for low, high in sorted(map(span, texts)):
        if found and low <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(high, found[-1][1])
        else:
            found.append((low, high))
    return tuple(found)


@lru_cache(maxsize=1_024)
def inside(texts: tuple[str, ...], wide: tuple[str, ...]) -> tuple[str, ...]:
    """What of some ranges lies in others, as ranges: those wholly inside are as they were."""
    return tuple(
        f"{max(low, least)}-{min(high, most)}"
        for low, high in map(span, texts)
        for least, most in spans(wide)
        if max(low, least) <= min(high, most)
    )


def admitted(texts: tuple[str, ...] | None, number: int) -> int | None:
    """What a priority counts as for whoever may use these ranges: itself, else the next less urgent one that it may.

    ``None`` where there is none, and the call is of no priority.
    """
    if texts is None:
        return number
    return next((max(low, number) for low, high in spans(texts) if number <= high), None)
