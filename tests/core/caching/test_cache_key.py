"""Two calls are the same where everything that decides their answer is, and whom it may be shared with."""

from hypothesis import given
from hypothesis import strategies as st

from faregate.core.caching.key import KEY_BYTES, same_call_key

SECRET = b"s" * 32

parts = st.lists(st.binary(max_size=6) | st.text(max_size=6), max_size=6)


@given(parts, parts)
def test_other_parts_make_another_key(one: list[str | bytes], other: list[str | bytes]) -> None:
    """Moving a byte from one part to the next, or leaving out an empty one, makes another key."""

    def plain(found: list[str | bytes]) -> list[bytes]:
        return [each.encode() if isinstance(each, str) else each for each in found]

    first, second = same_call_key(SECRET, one), same_call_key(SECRET, other)
    assert (first == second) == (plain(one) == plain(other))
    assert len(first) == KEY_BYTES


@given(parts)
def test_another_secret_makes_other_keys(found: list[str | bytes]) -> None:
    """Two installations never share an answer, whatever they ask."""
    assert same_call_key(SECRET, found) != same_call_key(b"t" * 32, found)
