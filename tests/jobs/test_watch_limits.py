"""What people are told of limits: once for each threshold and period, whoever looks and however often."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from alert_parts import DAY, DOLLAR, Watched
from console_parts import HOUR, NOON, WHO, Api, Parts, parts
from fakes import AwayGate
from faregate.config.schema import Alerts
from faregate.console.alerts import AlertChange, change
from faregate.console.kept_terms import terms_of
from faregate.console.keys import NewKey, create
from faregate.console.limits import LimitChange
from faregate.console.limits import change as change_limit
from faregate.control import Allowances, AllowanceView, Figures
from faregate.jobs import watch_limits


class StillGate(AwayGate):
    """A gate that answers what a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.connected = True
        self.views: tuple[AllowanceView, ...] = ()
        self.asked: list[tuple[str, ...]] = []

    async def figures(self) -> Figures:
        return Figures(True, False, 1, 0, 0, 0, 0, 0, 0, 0, 0)

    async def allowances(self, limits: tuple[str, ...] = ()) -> Allowances:
        self.asked.append(limits)
        return Allowances(self.views)


BUDGET = [
    {"do": "notify", "at": 50},
    {"do": "notify", "at": 80},
    {"do": "notify", "at": 100},
    {"do": "notify", "at": 100, "on": "forecast"},
]


def at(text: str) -> int:
    """Nanoseconds of a time in UTC."""
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * DOLLAR


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as each:
        yield each


@pytest.fixture
def watched(made: Parts) -> Watched:
    return Watched(made)


def test_a_budget_tells_each_threshold_once_in_each_period(watched: Watched) -> None:
    """50, 80 and 100 percent spent and 100 percent expected are one alert each in November, and again in December."""
    watched.limit("100", BUDGET)
    clock = watched.made.clock
    for month in ("2026-11", "2026-12"):
        before = len(watched.alerts())
        for day in range(1, 29):
            clock.now = at(f"{month}-{day:02d}T12:00:00")
            watched.spend(4)
            for _ in range(3):
                watched.look()
            if day == 20:
                watched.begin()
        told = watched.told()[before:]
        assert sorted(told) == ["100 actual", "100 forecast", "50 actual", "80 actual"]
    assert len(watched.alerts()) == 8
    assert [row["kind"] for row in watched.alerts(kind="limit_reached")] == ["limit_reached"] * 2


def test_several_thresholds_passed_at_once_are_told_each(watched: Watched) -> None:
    """A single dear call leaves no threshold out."""
    watched.limit("10", BUDGET[:3])
    watched.spend(11)
    watched.look()
    assert watched.told() == ["50 actual", "80 actual", "100 actual"]


def test_an_alert_says_what_of_whom_and_until_when(watched: Watched) -> None:
    """Its sentence has the figures, and its details have them again for programs."""
    limit = watched.limit("100", timezone="Europe/Berlin")
    watched.spend(80.5)
    watched.look()
    (row,) = watched.alerts()
    assert row["message"] == (
        f"80 percent of limit {limit['id']} (team research, usd, month) are spent: 80.5 of 100 dollars. "
        "It starts anew on 2026-12-01."
    )
    assert (row["kind"], row["severity"], row["limit_id"]) == ("threshold", "warning", limit["id"])
    details = row["details"]
    assert (details["amount"], details["posted"], details["unit"], details["do"]) == ("100", "80.5", "usd", ["notify"])
    assert details["resets_at"] == "2026-11-30T23:00:00Z"


def test_budgets_are_told_of_without_being_asked_and_rates_are_not(watched: Watched) -> None:
    """Dollars for a day or longer have the usual thresholds; requests a minute and dollars an hour have none."""
    watched.limit("1", window="day")
    watched.limit("1", window="rolling 24h", each=[])
    watched.limit("1", window="hour")
    watched.limit(1, unit="requests", window="day")
    watched.spend(2)
    watched.look()
    assert {row["details"]["window"] for row in watched.alerts()} == {"day", "rolling 24h"}


def test_no_usual_thresholds_are_no_alerts(made: Parts) -> None:
    """``thresholds: []`` leaves only what limits ask for themselves."""
    watched = Watched(made, Alerts(thresholds=()))
    watched.limit("1")
    watched.limit("1", BUDGET[:1], select={"project": "search"})
    watched.spend(0.6)
    watched.look()
    assert watched.told() == ["50 actual"]


@pytest.mark.parametrize("mode", ["soft", "shadow"])
def test_limits_that_refuse_nobody_are_told_of_too(watched: Watched, mode: str) -> None:
    """That they would is what they are there for."""
    watched.limit("1", mode=mode)
    watched.spend(2)
    watched.look()
    assert watched.told() == ["80 actual", "100 actual"]
    assert watched.alerts()[1]["severity"] == "warning"


def test_a_hard_limit_that_refuses_is_reached_though_something_is_left(watched: Watched) -> None:
    """Nine tenths spent and a call refused: the next one does not fit, which is what people want to know."""
    limit = watched.limit("0.1")
    watched.spend(0.09)
    watched.look()
    assert watched.told() == ["80 actual"]
    watched.refuse(limit)
    watched.look()
    assert watched.told() == ["80 actual", "100 actual"]
    assert "lets calls through no more: 0.09 of 0.1 dollars" in watched.alerts()[1]["message"]


def test_throttling_is_no_end(watched: Watched) -> None:
    """A limit that lets few calls through lets calls through."""
    limit = watched.limit("1", [{"do": "throttle", "at": 60, "requests_per_minute": 1}])
    watched.spend(0.7)
    watched.refuse(limit, code="rate_limited")
    watched.look()
    assert watched.told() == ["60 actual"]
    watched.refuse(limit)
    watched.look()
    assert watched.told() == ["60 actual", "100 actual"]


def test_one_call_that_is_too_dear_for_a_whole_limit_does_not_make_it_reached(watched: Watched) -> None:
    """A refusal by a limit that is hardly used says something of the call."""
    limit = watched.limit("10")
    watched.spend(1)
    watched.refuse(limit)
    watched.look()
    assert watched.alerts() == []


def test_a_raise_moves_the_thresholds(watched: Watched) -> None:
    """Percentages are of what is in force at the moment, and what was told stays told."""
    raised = {"amount": "200", "until": "2026-11-25T00:00:00Z"}
    watched.limit("100", raises=[raised])
    watched.spend(90)
    watched.look()
    assert watched.told() == []
    watched.made.clock.now = at("2026-11-26T00:00:00")
    watched.look()
    assert watched.told() == ["80 actual"]


def test_a_limit_without_amount_and_one_of_nothing_have_no_shares(watched: Watched) -> None:
    """Nothing is a percentage of them."""
    watched.limit(None)
    watched.limit("0", window="day")
    watched.spend(5)
    watched.look()
    assert watched.alerts() == []


# -- each --------------------------------------------------------------------------------------------------------------


def test_each_subject_is_told_of_and_a_summary_ends_it(watched: Watched) -> None:
    """Twenty users are named, then one alert says that there are more; a restart names no other."""
    watched.limit("1", each=["user"])
    for number in range(30):
        watched.spend(0.9, who=WHO._replace(user=f"user-{number:02d}"))
    for _ in range(2):
        watched.look()
        watched.begin()
    rows = watched.alerts()
    assert len(rows) == watch_limits.TOLD_MAX + 1
    assert sum(bool(row["details"].get("more")) for row in rows) == 1
    assert rows[0]["details"]["subject"] == {"user": "user-00"}


def test_a_subject_that_refuses_is_reached_and_its_neighbours_are_not(watched: Watched) -> None:
    """Refusals count for whom they met."""
    limit = watched.limit("1", each=["user"])
    for user in ("ada", "bob"):
        watched.spend(0.7, who=WHO._replace(user=user))
    watched.refuse(limit, WHO._replace(user="bob"))
    watched.look()
    (row,) = watched.alerts()
    assert row["details"]["subject"] == {"user": "bob"}


# -- many limits -------------------------------------------------------------------------------------------------------


def test_more_limits_than_a_round_takes_come_by_turns(watched: Watched, made: Parts) -> None:
    """All are looked at after some rounds, each in its turn, and one that moves with the next round."""
    row = watched.limit("1")
    count = 2 * watch_limits.PAGE
    made.books.put_all(
        "limit", [{**row, "id": f"lim_{n:05d}", "name": f"n{n}", "selector": {"team": f"t{n}"}} for n in range(count)]
    )
    last = f"t{count - 1}"
    watched.spend(0.9, who=WHO._replace(team=last))
    watched.look()
    assert watched.alerts() == []
    watched.look()
    assert [row["details"]["select"] for row in watched.alerts()] == [{"team": last}]


# -- forecasts ---------------------------------------------------------------------------------------------------------


def test_a_forecast_names_what_is_expected_and_when_nothing_is_left(watched: Watched) -> None:
    """Twenty days at four dollars a day are 120 by the end of the month, and 100 of them on the 25th."""
    watched.limit("100", BUDGET[3:])
    watched.made.clock.now = at("2026-11-21T00:00:00")
    for day in range(1, 21):
        watched.spend(4, at=at(f"2026-11-{day:02d}T12:00:00"))
    watched.look()
    (row,) = watched.alerts(kind="threshold")
    assert "is expected to have spent 120.00 of 100 dollars by 2026-11-30" in row["message"]
    assert "nothing will be left from 2026-11-26 on" in row["message"]
    assert (row["details"]["expected"], row["details"]["runs_out_at"]) == ("120", "2026-11-26T00:00:00Z")


def test_history_speaks_early_in_a_window(watched: Watched) -> None:
    """On the second day a month like the last one is expected, though nothing of it can be seen yet."""
    watched.limit("100", BUDGET[3:])
    for day in range(1, 32):
        watched.spend(4, at=at(f"2026-10-{day:02d}T12:00:00"))
    watched.made.clock.now = at("2026-11-02T00:00:00")
    watched.spend(4, at=at("2026-11-01T12:00:00"))
    watched.look()
    assert watched.told() == ["100 forecast"]


def test_without_history_nothing_is_forecast_from_a_few_hours(watched: Watched) -> None:
    """One dear morning is not a month."""
    watched.limit("100", BUDGET[3:])
    watched.made.clock.now = at("2026-11-01T12:00:00")
    watched.spend(20)
    watched.look()
    assert watched.alerts() == []


def test_a_forecast_puts_its_action_in_force_and_takes_it_back_when_it_recovers(watched: Watched, made: Parts) -> None:
    """In force until the window ends; a little below is not enough to end it; the trail knows who did it."""
    throttle = {"do": "throttle", "at": 100, "on": "forecast", "requests_per_minute": 5}
    limit = watched.limit("100", [throttle], mode="soft")
    made.clock.now = at("2026-11-11T00:00:00")
    watched.spend(40)
    watched.look()
    (forced,) = terms_of(made.books.get("limit", limit["id"]) or {}).forced
    assert (forced.action, forced.until) == (0, at("2026-12-01T00:00:00"))
    assert "5 a minute from now on" in watched.alerts()[0]["message"]
    # 97 expected: not yet recovered.
    made.clock.now = at("2026-11-13T09:00:00")
    watched.look()
    assert terms_of(made.books.get("limit", limit["id"]) or {}).forced
    made.clock.now = at("2026-11-16T00:00:00")
    watched.look()
    assert terms_of(made.books.get("limit", limit["id"]) or {}).forced == ()
    newest, _ = made.console.audit.newest(None, 1)
    assert (newest[0]["actor"], newest[0]["id"]) == ("alerts", limit["id"])
    assert len(watched.alerts()) == 1


def test_what_a_forecast_put_in_force_reaches_the_gate(watched: Watched, made: Parts) -> None:
    """It is a term of the limit like any other, so it travels with the row."""
    from faregate.console.compile import limit_of

    limit = watched.limit("100", [{"do": "stop", "at": 100, "on": "forecast"}])
    made.clock.now = at("2026-11-16T00:00:00")
    watched.spend(60)
    watched.look()
    sent = limit_of(made.books.get("limit", limit["id"]) or {})
    assert [each.action for each in sent.terms.forced] == [0]


# -- balances that never start anew ------------------------------------------------------------------------------------


def test_a_low_balance_is_told_once_with_the_day_on_which_it_ends(watched: Watched) -> None:
    """95 of 100 dollars in a week leave five for less than half a day."""
    watched.limit("100", window="lifetime")
    watched.spend(95, at=NOON - DAY)
    for _ in range(2):
        watched.look()
    rows = watched.alerts(kind="low_balance")
    assert [row["severity"] for row in rows] == ["warning"]
    assert rows[0]["message"].startswith("5 of 100 dollars are left of limit ")
    assert rows[0]["message"].endswith("nothing will be left from 2026-11-21 on.")
    assert rows[0]["details"]["left"] == "5"


def test_another_amount_of_a_balance_begins_another_period(watched: Watched) -> None:
    """After a deposit the same share is told of again when it is reached again."""
    limit = watched.limit("100", window="lifetime")
    watched.spend(85)
    watched.look()
    change_limit(watched.made.console, limit["id"], LimitChange(amount="200"))
    watched.look()
    watched.spend(80)
    watched.look()
    assert watched.told() == ["80 actual", "80 actual"]


# -- revoking ----------------------------------------------------------------------------------------------------------


def test_a_key_that_reached_its_lifetime_cost_is_revoked_with_the_reason(watched: Watched, made: Parts) -> None:
    """It is shown so; an admin lifts it, and it is not revoked again for the same amount."""
    key, _ = create(made.console, NewKey(name="agent"))
    limit = watched.limit("5", [{"do": "revoke", "at": 100}], select={"key": key["id"]}, window="lifetime")
    api = Api(made.app, made.admin_key())
    who = WHO._replace(key=key["id"])
    watched.spend(4, who=who)
    watched.look()
    assert api.get(f"/api/v1/keys/{key['id']}")["state"] == "active"
    watched.refuse(limit, who)
    watched.look()
    shown = api.get(f"/api/v1/keys/{key['id']}")
    assert shown["state"] == "revoked"
    assert shown["revoked_reason"] == (
        "reached its lifetime cost of 5 dollars: 4 are spent, and what is left was too little for a call "
        f"(limit {limit['id']})"
    )
    assert shown["revoked_by"] == limit["id"]
    (row,) = watched.alerts(kind="limit_reached")
    assert (row["key"], row["severity"]) == (key["id"], "critical")
    assert "its key is revoked" in row["message"]
    lifted = api.send("PATCH", f"/api/v1/keys/{key['id']}", {"state": "active"})
    assert (lifted["state"], lifted["revoked_reason"], lifted["revoked_at"]) == ("active", None, None)
    watched.begin()
    watched.look()
    assert api.get(f"/api/v1/keys/{key['id']}")["state"] == "active"


def test_a_key_revoked_at_a_share_is_told_so(watched: Watched, made: Parts) -> None:
    """With the share and what was spent."""
    key, _ = create(made.console, NewKey(name="agent"))
    limit = watched.limit("5", [{"do": "revoke", "at": 50}], select={"key": key["id"]}, window="lifetime")
    watched.spend(3, who=WHO._replace(key=key["id"]))
    watched.look()

    told = (made.books.get("key", key["id"]) or {})["details"]["revoked_reason"]
    assert told == f"reached 50 percent of its lifetime cost of 5 dollars: 3 are spent (limit {limit['id']})"


def test_each_key_of_a_team_is_revoked_for_itself(watched: Watched, made: Parts) -> None:
    """A limit for each key names the key that reached it."""
    spender, _ = create(made.console, NewKey(name="spender"))
    saver, _ = create(made.console, NewKey(name="saver"))
    watched.limit("5", [{"do": "revoke", "at": 100}], each=["key"])
    watched.spend(6, who=WHO._replace(key=spender["id"]))
    watched.spend(1, who=WHO._replace(key=saver["id"]))
    watched.look()
    states = {id: (made.books.get("key", id) or {})["state"] for id in (spender["id"], saver["id"])}
    assert states == {spender["id"]: "revoked", saver["id"]: "active"}


@pytest.mark.parametrize(
    ("setter", "role", "state"),
    [("manager", "caller", "revoked"), ("manager", "admin", "active"), ("admin", "admin", "revoked")],
)
def test_a_limit_revokes_no_key_that_whoever_set_it_could_not(
    watched: Watched, made: Parts, setter: str, role: str, state: str
) -> None:
    """A manager's limit leaves an admin's key alone and says so; what an admin set revokes it."""
    within = {"organization": "default", "team": "research"}
    key, _ = create(made.console, NewKey.model_validate({"name": "agent", "role": role, **within}))
    setting = NewKey.model_validate({"name": "sets", "role": setter, **within})
    body = {"select": {"key": key["id"]}, "unit": "usd", "amount": "5", "window": "lifetime"}
    limit = Api(made.app, create(made.console, setting)[1]).post(
        "/api/v1/limits", {**body, "actions": [{"do": "revoke", "at": 100}]}
    )
    watched.spend(6, who=WHO._replace(key=key["id"]))
    watched.look()

    assert (made.books.get("key", key["id"]) or {})["state"] == state
    (row,) = watched.alerts(limit_id=limit["id"], kind="limit_reached")
    assert ("its key is revoked" in row["message"], "its key is not revoked" in row["message"]) == (
        state == "revoked",
        state == "active",
    )


def test_what_an_admin_revokes_stays_revoked_though_a_limit_did_so_before(watched: Watched, made: Parts) -> None:
    """Whoever revokes a key by hand means it for good."""
    key, _ = create(made.console, NewKey(name="agent"))
    watched.limit("5", [{"do": "revoke", "at": 100}], select={"key": key["id"]}, window="lifetime")
    watched.spend(6, who=WHO._replace(key=key["id"]))
    watched.look()
    api = Api(made.app, made.admin_key())
    assert api.send("PATCH", f"/api/v1/keys/{key['id']}", {"name": "other"}, status=409)["code"] == "conflict"
    api.post(f"/api/v1/keys/{key['id']}/revoke", {"reason": "leaked"}, status=200)
    problem = api.send("PATCH", f"/api/v1/keys/{key['id']}", {"state": "active"}, status=409)
    assert "stays revoked" in problem["detail"]
    assert api.get(f"/api/v1/keys/{key['id']}")["revoked_reason"] == "leaked"


# -- calls -------------------------------------------------------------------------------------------------------------


def test_a_model_without_a_price_is_told_of_once_a_day(watched: Watched) -> None:
    """Whoever asks for it, and however often."""
    for _ in range(3):
        watched.refuse(who=WHO._replace(model="brand-new"), code="price_unknown")
    watched.look()
    watched.refuse(who=WHO._replace(model="brand-new"), code="price_unknown")
    watched.look()
    (row,) = watched.alerts()
    assert (row["kind"], row["details"]["model"]) == ("unpriced", "brand-new")
    watched.made.clock.now += DAY
    watched.refuse(who=WHO._replace(model="brand-new"), code="price_unknown")
    watched.look()
    assert len(watched.alerts()) == 2


def test_callers_cannot_make_alerts_without_end_by_inventing_models(watched: Watched) -> None:
    """Twenty a day are named, then one alert says that there are more."""
    for number in range(40):
        watched.refuse(who=WHO._replace(model=f"m-{number}"), code="price_unknown")
    watched.look()
    assert len(watched.alerts()) == 21


# -- keeping -----------------------------------------------------------------------------------------------------------


def test_old_alerts_are_removed_when_their_period_is_over(watched: Watched, made: Parts) -> None:
    """The name of one whose period runs is kept, for otherwise it would be raised again."""
    from faregate.console.alert_outbox import AlertOutbox

    watched.limit("1", window="year")
    watched.limit("1", window="day", select={"project": "search"})
    made.clock.now = at("2026-02-01T12:00:00")
    watched.spend(0.9)
    watched.look()
    assert len(watched.alerts()) == 2
    made.clock.now += 100 * DAY
    assert AlertOutbox(made.console).clean(90 * DAY) == 1
    assert [row["details"]["window"] for row in watched.alerts()] == ["year"]
    watched.begin()
    watched.look()
    assert len(watched.alerts()) == 1


def test_seen_is_seen_and_raises_nothing_again(watched: Watched, made: Parts) -> None:
    """Looking at an alert does not make room for another of its name."""
    watched.limit("1")
    watched.spend(0.9)
    watched.look()
    (row,) = watched.alerts()
    change(made.console, row["id"], AlertChange(seen=True))
    watched.begin()
    made.clock.now += HOUR
    watched.look()
    assert [each["seen_at"] > 0 for each in watched.alerts()] == [True]


# -- what is asked, and when nothing is -------------------------------------------------------------------------------


def test_calls_at_a_time_are_told_by_what_is_held(tmp_path: Path) -> None:
    """Nothing of them is ever posted; once an hour is enough."""
    gate = StillGate()
    with parts(tmp_path, gate=gate) as made:
        watched = Watched(made)
        limit = watched.limit(10, [{"do": "notify", "at": 80}], unit="concurrency", window=None)
        gate.views = (AllowanceView(limit["id"], (), 0, 8, 0, 0, 10),)
        for _ in range(2):
            watched.look()
        assert watched.told() == ["80 actual"]


def test_live_figures_are_asked_for_few_limits_at_a_time(tmp_path: Path) -> None:
    """The gate answers between two calls, so that no answer may be long; limits with ``each`` it is not asked for."""
    gate = StillGate()
    with parts(tmp_path, gate=gate) as made:
        watched = Watched(made)
        for number in range(watch_limits.ASKED_AT_ONCE + 1):
            watched.limit("1", select={"team": f"t{number}"})
        watched.limit("1", each=["user"])
        watched.look()
        assert [len(asked) for asked in gate.asked] == [watch_limits.ASKED_AT_ONCE, 1]


def test_nothing_is_looked_at_while_the_gate_is_away(tmp_path: Path) -> None:
    """Nothing is spent meanwhile; the next look after it came back sees what was booked last."""
    gate = StillGate()
    gate.connected = False
    with parts(tmp_path, gate=gate) as made:
        watched = Watched(made)
        watched.limit("1")
        watched.spend(0.9)
        watched.look()
        assert (gate.asked, watched.alerts()) == ([], [])


def test_subjects_do_not_put_actions_in_force_for_their_neighbours(watched: Watched, made: Parts) -> None:
    """A forecast of one user tells of it, and throttles nobody."""
    throttle = {"do": "throttle", "at": 100, "on": "forecast", "requests_per_minute": 5}
    limit = watched.limit("100", [throttle], each=["user"], mode="soft")
    made.clock.now = at("2026-11-16T00:00:00")
    watched.spend(60)
    watched.look()
    assert watched.told() == ["100 forecast"]
    assert terms_of(made.books.get("limit", limit["id"]) or {}).forced == ()
