"""Moments as text."""

import pytest

from faregate.core.moments import rfc3339


@pytest.mark.parametrize(
    ("nanos", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_795_255_199_999_999_999, "2026-11-21T09:59:59Z"),
        (1_795_255_200_000_000_000, "2026-11-21T10:00:00Z"),
        (253_402_300_799_000_000_000, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_moment_is_written_to_the_second_and_never_rounded_up(nanos: int, expected: str) -> None:
    """What is beyond the second is left out."""
    assert rfc3339(nanos) == expected
