"""What is told of a limit: thresholds, periods, and what a forecast puts in force."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.limits.telling import LowBalance, Moment, Spent, Watched, forced_by, revocation_reason, tellings
from faregate.core.limits.terms import Action, Forced
from faregate.core.limits.thresholds import Threshold, is_budget, period_of, thresholds_of
from faregate.core.limits.windows import HOUR, MINUTE

DAY = 24 * HOUR
MONTH = 30 * DAY
LOW = LowBalance(10, 0)


def watched(*actions: Action, **more: Any) -> Watched:
    """A hard limit in dollars per month on a team."""
    fields: dict[str, Any] = {"unit": "usd", "window": "month", "mode": "hard", **more}
    told = thresholds_of(fields["unit"], fields["window"], fields["mode"], actions, (80, 100))
    return Watched("lim_1", {"team": "research"}, fields.pop("each", ()), thresholds=told, actions=actions, **fields)


def at(now: int, start: int = 0, end: int = MONTH) -> Moment:
    return Moment(now, start, end, period_of("month", start, end, now))


def told(limit: Watched, posted: int, *, held: int = 0, refusing: bool = False, now: int = MONTH // 2) -> list[str]:
    """Percentage, basis and kind of what is told of a limit of 100."""
    spent = Spent((), posted, held, 100, refusing)
    found = tellings(limit, at(now), spent, LOW)
    return [f"{each.details['percent']} {each.details['basis']} {each.kind}" for each in found]


def test_thresholds_are_the_limits_own_or_the_usual_ones() -> None:
    """Own ones replace the usual; what refuses is always told of when it is full, unless nothing is told at all."""
    usual = (Threshold(80, "actual", "notify"), Threshold(100, "actual", "notify"))
    assert thresholds_of("usd", "month", "hard", (), (100, 80, 80)) == usual
    assert thresholds_of("usd", "month", "hard", (), ()) == ()
    assert thresholds_of("requests", "minute", "hard", (), (80,)) == ()
    own = thresholds_of("requests", "minute", "hard", (Action("notify", 50),), (80,))
    assert own == (Threshold(50, "actual", "notify", 0), Threshold(100, "actual", "notify"))
    assert thresholds_of("usd", "month", "soft", (Action("notify", 50),), (80,)) == own[:1]


@pytest.mark.parametrize(
    ("unit", "window", "budget"),
    [
        ("usd", "day", True),
        ("usd", "lifetime", True),
        ("usd", "rolling 24h", True),
        ("usd", "rolling 23h", False),
        ("usd", "hour", False),
        ("tokens", "month", False),
        ("concurrency", "", False),
    ],
)
def test_budgets_are_dollars_for_a_day_or_longer(unit: str, window: str, budget: bool) -> None:
    """Rates are nothing that people want to read about."""
    assert is_budget(unit, window) is budget


def test_actions_at_one_share_are_one_alert() -> None:
    """It says all that happens then."""
    limit = watched(Action("notify", 80), Action("throttle", 80, requests_per_minute=5), Action("notify", 100))
    (only,) = list(tellings(limit, at(MONTH // 2), Spent((), 85, 0, 100), LOW))
    assert only.details["do"] == ["notify", "throttle"]
    assert "calls are let through at 5 a minute from now on" in only.message


def test_what_acts_on_calls_is_told_when_it_acts() -> None:
    """The gate goes by what is held, too; mere telling goes by what is spent."""
    assert told(watched(Action("throttle", 80, requests_per_minute=5)), 50, held=40) == ["80 actual threshold"]
    assert told(watched(Action("notify", 80)), 50, held=40) == []


def test_a_downgrade_names_the_models() -> None:
    """Both ways."""
    limit = watched(Action("downgrade", 80, to="small", models=("large",)))
    (only,) = list(tellings(limit, at(1), Spent((), 80, 0, 100), LOW))
    assert "calls for large go to small from now on" in only.message


def test_a_stop_below_the_amount_is_told_when_it_refuses() -> None:
    """At 90 percent nothing goes any more, though 85 are spent."""
    limit = watched(Action("stop", 90))
    assert told(limit, 85) == []
    assert told(limit, 85, refusing=True) == ["90 actual threshold", "100 actual limit_reached"]


def test_revoking_wants_more_than_telling() -> None:
    """Half spent and refusing is told of; revoked is from three quarters on, or at the amount."""
    limit = watched(Action("revoke", 100), window="lifetime")
    spent = [Spent((), posted, 0, 100, True) for posted in (70, 75)]
    assert [
        bool(list(tellings(limit, Moment(1, 0, 0, period_of("lifetime", 0, 0, 1)), each, LOW))) for each in spent
    ] == [
        False,
        True,
    ]


def test_only_limits_that_name_a_key_revoke_one() -> None:
    """A team is not a key; a subject of a limit for each key is."""
    team = watched(Action("revoke", 100))
    (alert,) = list(tellings(team, at(1), Spent((), 100, 0, 100), LOW))
    assert (alert.revoke, alert.key) == (False, "")
    each = watched(Action("revoke", 100), each=("key",))
    (alert,) = list(tellings(each, at(1), Spent(("key_1",), 100, 0, 100), LOW))
    assert (alert.revoke, alert.key) == (True, "key_1")


@pytest.mark.parametrize(
    ("window", "unit", "reason"),
    [
        ("lifetime", "usd", "reached its lifetime cost of 5 dollars (limit lim_1)"),
        ("month", "usd", "reached its 5 dollars per month (limit lim_1)"),
        ("lifetime", "output_tokens", "reached its lifetime's 5000000000 output tokens (limit lim_1)"),
    ],
)
def test_the_reason_of_a_revocation_is_a_sentence_for_its_owner(window: str, unit: str, reason: str) -> None:
    """With the limit's id, so that it can be found."""
    spent = Spent((), 5 * 10**9, 0, 5 * 10**9)
    assert revocation_reason(watched(window=window, unit=unit), spent, 100) == reason


@pytest.mark.parametrize(
    ("percent", "posted", "reason"),
    [
        (50, 120_000, "reached 50 percent of its lifetime cost of 0.0002 dollars: 0.00012 are spent (limit lim_1)"),
        (100, 250_000, "reached its lifetime cost of 0.0002 dollars (limit lim_1)"),
        (120, 250_000, "reached 120 percent of its lifetime cost of 0.0002 dollars: 0.00025 are spent (limit lim_1)"),
        (
            100,
            160_000,
            "reached its lifetime cost of 0.0002 dollars: 0.00016 are spent, and what is left was too little for a "
            "call (limit lim_1)",
        ),
    ],
)
def test_the_reason_of_a_revocation_tells_the_share_and_what_was_spent(percent: int, posted: int, reason: str) -> None:
    """Half of an amount is not the amount."""
    spent = Spent((), posted, 0, 200_000, refusing=True)
    assert revocation_reason(watched(window="lifetime", unit="usd"), spent, percent) == reason


@pytest.mark.parametrize(
    ("window", "start", "end", "now", "period"),
    [
        ("month", 0, MONTH, DAY, (0, MONTH)),
        ("lifetime", 0, 0, DAY, (0, 0)),
        ("hour", HOUR, 2 * HOUR, HOUR + 1, (HOUR, 2 * HOUR)),
        ("minute", 61 * MINUTE, 62 * MINUTE, 61 * MINUTE, (HOUR, 2 * HOUR)),
        ("", 0, 0, 61 * MINUTE, (HOUR, 2 * HOUR)),
        ("rolling 24h", DAY, 0, 2 * DAY + HOUR, (2 * DAY, 3 * DAY)),
        ("rolling 4s", DAY, 0, DAY + 1, (DAY, DAY + HOUR)),
    ],
)
def test_a_period_is_the_window_or_at_least_an_hour(
    window: str, start: int, end: int, now: int, period: tuple[int, int]
) -> None:
    """A limit per second does not tell every second."""
    assert tuple(period_of(window, start, end, now)) == period


@given(st.lists(st.text(max_size=6), min_size=2, max_size=2), st.lists(st.text(max_size=6), min_size=2, max_size=2))
def test_names_of_different_subjects_differ(one: list[str], other: list[str]) -> None:
    """Whatever stands in the values: separators are escaped."""
    limit = watched(Action("notify", 50), each=("team", "user"))
    names = {
        telling.name
        for subject in (one, other)
        for telling in tellings(limit, at(1), Spent(tuple(subject), 60, 0, 100), LOW)
    }
    assert len(names) == (1 if one == other else 2)


def test_a_forecast_stays_in_force_until_it_has_fallen_by_some_points() -> None:
    """100 and more begins it, 96 keeps it, 94 ends it; where nothing can be said it stays as it was."""
    limit = watched(Action("notify", 50, "forecast"), Action("stop", 100, "forecast"))

    def after(posted: int, forced: tuple[Forced, ...], now: int = MONTH // 2) -> list[int]:
        found = forced_by(limit._replace(forced=forced), at(now), Spent((), posted, 0, 100))
        assert all(each.until == MONTH for each in found)
        return [each.action for each in found]

    stopped = (Forced(1, MONTH),)
    assert after(50, ()) == [1]
    assert after(48, ()) == []
    assert after(48, stopped) == [1]
    assert after(47, stopped) == []
    assert after(0, stopped, now=1) == [1]
    assert after(48, (Forced(1, MONTH // 4),)) == []
