"""Ranges of ``Priority``: how they are written, and what a priority counts as for whoever may use some of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.priorities import PRIORITY_MAX, admitted, inside, span

NUMBERS = st.integers(0, PRIORITY_MAX)
RANGES = st.lists(st.tuples(NUMBERS, NUMBERS).map(lambda ends: f"{min(ends)}-{max(ends)}"), max_size=4).map(tuple)


@pytest.mark.parametrize(("text", "ends"), [("0-1000", (0, 1000)), ("7-7", (7, 7)), ("0101-0200", (101, 200))])
def test_a_range_is_two_numbers_and_a_hyphen(text: str, ends: tuple[int, int]) -> None:
    """Both ends are in it."""
    assert span(text) == ends


@pytest.mark.parametrize(
    "text", ["", "7", "-", "1-", "-1", "1-2-3", "2-1", "0-1001", "0-00001", "a-b", "١-٢", "1 - 2", "+1-2"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    """With the rule that it breaks."""
    with pytest.raises(ValueError, match="must"):
        span(text)


def covers(ranges: tuple[str, ...], number: int) -> bool:
    """Whether a number lies in one of some ranges."""
    return any(low <= number <= high for low, high in map(span, ranges))


@given(RANGES, NUMBERS)
def test_nobody_becomes_more_urgent_than_asked_for(ranges: tuple[str, ...], number: int) -> None:
    """What is allowed stays; all else is the most urgent one below that is allowed, or no priority at all."""
    counted = admitted(ranges, number)
    least = [each for each in range(number, PRIORITY_MAX + 1) if covers(ranges, each)]
    assert counted == (least[0] if least else None)
    assert admitted(None, number) == number


@given(RANGES, RANGES, NUMBERS)
def test_what_lies_in_both_is_what_each_covers(one: tuple[str, ...], other: tuple[str, ...], number: int) -> None:
    """Parts of a range count, too."""
    assert covers(inside(one, other), number) == (covers(one, number) and covers(other, number))
