"""What people are told of calls: usage without a price, and too much whose outcome is not known."""

from collections.abc import Mapping
from typing import Any

from console_parts import DAY, NOON, run
from faregate.core.alerts import Unpriced, Waiting
from faregate.jobs.watch_calls import ROUNDS_PER_FIGURES, CallWatch, UnknownsRule

DOLLAR = 10**9


class Calls:
    """Figures that a test sets, and the alerts that were raised by name."""

    def __init__(self) -> None:
        self.at = NOON
        self.figures: Waiting | None = Waiting(0, 0, {})
        self.raised: dict[str, tuple[str, str]] = {}

    def now(self) -> int:
        return self.at

    async def waiting(self) -> Waiting | None:
        return self.figures

    def raise_alert(self, kind: str, name: str, severity: str, message: str, details: Mapping[str, Any]) -> bool:
        del severity, details
        new = name not in self.raised
        self.raised.setdefault(name, (kind, message))
        return new


def watch(calls: Calls) -> CallWatch:
    return CallWatch(calls, UnknownsRule(10, 10 * DOLLAR))


def rounds(job: CallWatch, count: int = ROUNDS_PER_FIGURES) -> None:
    """So many rounds, in one of which the figures are looked at."""
    for _ in range(count):
        run(job.run([]))


def test_more_unknowns_than_the_rule_are_told_once_a_day() -> None:
    """By their number or by their money; exactly as many are no trouble."""
    calls = Calls()
    job = watch(calls)
    calls.figures = Waiting(10, 10 * DOLLAR, {})
    rounds(job)
    assert calls.raised == {}
    for many in (Waiting(11, 0, {}), Waiting(1, 10 * DOLLAR + 1, {})):
        calls.at += DAY
        calls.figures = many
        rounds(job, 3 * ROUNDS_PER_FIGURES)
    assert [kind for kind, _ in calls.raised.values()] == ["unknowns", "unknowns"]
    assert "The outcome of 11 calls is not known; they hold 0 dollars." in next(iter(calls.raised.values()))[1]


def test_usage_without_a_price_is_told_when_it_grows() -> None:
    """What was there before the first look is old news; a gate that starts anew counts from nothing."""
    calls = Calls()
    job = watch(calls)
    calls.figures = Waiting(0, 0, {"images": 3})
    rounds(job)
    assert calls.raised == {}
    calls.figures = Waiting(0, 0, {"images": 3, "seconds": 1})
    rounds(job)
    assert [message.partition(":")[2][:9] for _, message in calls.raised.values()] == [" seconds."]
    calls.figures = Waiting(0, 0, {})
    rounds(job)
    calls.figures = Waiting(0, 0, {"images": 1})
    rounds(job)
    assert len(calls.raised) == 2


def test_a_gate_that_is_away_is_no_reason_to_say_anything() -> None:
    """Health tells that."""
    calls = Calls()
    calls.figures = None
    rounds(watch(calls))
    assert calls.raised == {}


def test_refused_and_provisional_are_told_apart() -> None:
    """Each with its way out."""
    calls = Calls()
    run(watch(calls).run([Unpriced("new-1", "refused", "key_1"), Unpriced("new-1", "provisional", "key_1")]))
    refused, provisional = (message for _, message in calls.raised.values())
    assert "are refused" in refused
    assert "pricing.unknown" in refused
    assert "trued up" in provisional
