"""What is billed when a provider tells nothing, or nothing that can be true."""

from typing import Any

import pytest

from faregate.core.metering.fallback import Estimate, estimate, output_tokens
from faregate.core.metering.meter import Metered, Report
from faregate.core.usage import Usage

TOLD = Usage(input_text=10, output_text=4)


class Pairs:
    """Counts a token for every two characters, rounded up."""

    def count(self, text: str, encoding: str) -> int:
        del encoding
        return -(-len(text) // 2)


def metered(report: Report = Report(), outcome: Any = "complete", text: str = "abcde", **more: Any) -> Metered:  # noqa: B008
    return Metered(report, outcome, text, more.pop("characters", len(text)), **more)


@pytest.mark.parametrize(
    ("text", "characters", "tokens"),
    [("", 0, 0), ("abcde", 5, 3), ("abcd", 40, 20), ("abc", 100, 67), ("", 7, 7)],
)
def test_output_tokens(text: str, characters: int, tokens: int) -> None:
    """Kept text is counted, the rest in proportion and rounded up; unreadable text is a token a character."""
    assert output_tokens(metered(text=text, characters=characters), Pairs(), "o200k_base") == tokens


def test_what_was_counted_while_it_came_is_not_estimated() -> None:
    """Only the text since the last count is counted, in proportion where not all of it was kept."""
    found = metered(text="abcd", characters=108, counted_characters=100, counted_tokens=30)
    assert output_tokens(found, Pairs(), "o200k_base") == 30 + 4
    whole = metered(text="", characters=100, counted_characters=100, counted_tokens=30)
    assert output_tokens(whole, Pairs(), "o200k_base") == 30


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (metered(Report(TOLD)), Estimate(TOLD, "provider")),
        (metered(Report(TOLD), "aborted"), Estimate(TOLD, "provider")),
        (metered(), Estimate(Usage(20, output_text=3), "counted")),
        (metered(outcome="cut"), Estimate(Usage(20, output_text=3), "estimate")),
        (metered(outcome="aborted", text=""), Estimate(Usage(20), "estimate")),
        (metered(malformed=True), Estimate(Usage(20, output_text=3), "estimate")),
        (metered(Report(None, "negative")), Estimate(Usage(20, output_text=3), "provider_invalid")),
        (metered(Report(None, "negative"), text=""), Estimate(Usage(20, output_text=1), "provider_invalid")),
        (metered(Report(TOLD), unreported=2), Estimate(Usage(10, output_text=4), "counted")),
        (metered(Report(TOLD), text="a" * 20, unreported=2), Estimate(Usage(10, output_text=10), "counted")),
        (metered(text="a" * 1000), Estimate(Usage(20, output_text=50), "counted")),
    ],
)
def test_estimate(told: Metered, expected: Estimate) -> None:
    """The provider's word where it can be believed, else our count within the bound, marked as what it is."""
    assert estimate(told, Pairs(), "", input_tokens=20, output_tokens_max=50) == expected
