"""Ids that sort in the order they were made."""

import re
from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from faregate.core.ulid import UlidSource

MILLISECOND = 1_000_000
NOON = 1_789_387_200_000 * MILLISECOND


def ids(times: Iterable[int], random: bytes = b"\x5a" * 10) -> list[str]:
    """One id at each of these times."""
    left = list(times)
    source = UlidSource("req_", lambda: left.pop(0), lambda count: random[:count])
    return [source() for _ in range(len(left))]


def test_form() -> None:
    """An id is its prefix and 26 characters of Crockford's alphabet, the first ten of which are the time."""
    (made,) = ids([NOON])
    assert re.fullmatch("req_[0-9A-HJKMNP-TV-Z]{26}", made)
    time = 0
    for character in made[4:14]:
        time = time * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(character)
    assert time == NOON // MILLISECOND


@given(st.lists(st.integers(0, 5_000), min_size=2, max_size=60), st.binary(min_size=10, max_size=10))
def test_order(steps: list[int], random: bytes) -> None:
    """Ids rise whatever the clock does: stand still, step on, step back."""
    made = ids([NOON + step * MILLISECOND // 2 for step in steps], random)
    assert all(one < other for one, other in pairwise(made))


def test_many_in_one_millisecond() -> None:
    """Thousands within a millisecond are all different and rise."""
    made = ids([NOON] * 5_000)
    assert made == sorted(set(made))


def test_the_random_bits_run_over() -> None:
    """When counting has used up the random bits they are drawn again, and the ids still rise."""
    source = UlidSource("req_", lambda: NOON, lambda count: b"\xff" * count)
    source._count = (1 << 80) - 3
    made = [source() for _ in range(6)]
    assert made == sorted(set(made))


def test_two_sources() -> None:
    """Sources with other random bits make other ids at the same moment."""
    assert ids([NOON], b"\x01" * 10) != ids([NOON], b"\x02" * 10)
