"""``/api/v1/limits``: the terms of a limit, as they are written, kept, shown and sent to the gate."""

from typing import Any

import pytest

from console_parts import DAY, NOON, WHO, Api, Parts, opened, settled_call
from faregate.console.compile import limit_of
from faregate.console.keys import NewKey, create
from faregate.core.limits.terms import Action, Past, Raise, Terms

LIMIT: dict[str, Any] = {"select": {"team": "research"}, "unit": "usd", "amount": "100", "window": "month"}
WHOLE: dict[str, Any] = {
    "carry_over": "25",
    "raises": [{"amount": "150", "from": "2026-11-22T00:00:00Z", "until": "2026-11-23"}],
    "from": "2026-11-01T00:00:00Z",
    "until": "2027-01-01T00:00:00Z",
    "actions": [
        {"do": "notify", "at": 50},
        {"do": "downgrade", "at": 80, "to": "gpt-4o-mini", "models": ["gpt-4o"]},
        {"do": "throttle", "at": 90, "requests_per_minute": 6},
        {"do": "stop", "at": 100, "on": "forecast"},
    ],
    "denial": "token_limit",
}


@pytest.fixture
def whole(api: Api) -> dict[str, Any]:
    """A limit with most of the terms that there are."""
    made: dict[str, Any] = api.post("/api/v1/limits", {**LIMIT, **WHOLE})
    return made


def terms(made: Parts, limit_id: str) -> Terms:
    row = made.books.get("limit", limit_id)
    assert row is not None
    return limit_of(row).terms


def test_terms_are_shown_as_they_were_written(whole: dict[str, Any]) -> None:
    """Amounts are texts of dollars, times are UTC, and what was not said is as usual."""
    assert {name: whole[name] for name in ("carry_over", "from", "until", "denial", "estimate", "algorithm")} == {
        "carry_over": "25",
        "from": "2026-11-01T00:00:00Z",
        "until": "2027-01-01T00:00:00Z",
        "denial": "token_limit",
        "estimate": True,
        "algorithm": None,
    }
    (raised,) = whole["raises"]
    assert raised == {"amount": "150", "from": "2026-11-22T00:00:00Z", "until": "2026-11-23T00:00:00Z"}
    assert [(each["do"], each["at"], each["on"]) for each in whole["actions"]] == [
        ("notify", 50, "actual"),
        ("downgrade", 80, "actual"),
        ("throttle", 90, "actual"),
        ("stop", 100, "forecast"),
    ]
    assert whole["actions"][1]["models"] == ["gpt-4o"]


def test_the_gate_is_sent_the_same_terms(made: Parts, whole: dict[str, Any]) -> None:
    """What is written is what admission works by."""
    told = terms(made, whole["id"])
    assert told.carry_max == 25 * 10**9
    assert told.actions[2] == Action("throttle", 90, requests_per_minute=6)
    assert told.raises[0].amount == 150 * 10**9
    assert told.carry_from < NOON


def test_setting_a_limit_again_keeps_the_terms_that_are_not_named(made: Parts, api: Api, whole: dict[str, Any]) -> None:
    """A new amount does not switch its actions off; null does."""
    again = api.post("/api/v1/limits", {**LIMIT, "amount": "120"})
    assert (again["id"], again["actions"]) == (whole["id"], whole["actions"])
    none = api.post("/api/v1/limits", {**LIMIT, "actions": None, "carry_over": None, "raises": None, "until": None})
    assert (none["actions"], none["carry_over"], none["raises"], none["until"]) == ([], None, [], None)
    assert terms(made, whole["id"])._replace(carry_from=0, history=()) == Terms(
        since=terms(made, whole["id"]).since, denial="token_limit"
    )


def test_a_limit_without_terms_keeps_nothing(made: Parts, api: Api) -> None:
    """The books hold only what is not as usual."""
    row = made.books.get("limit", api.post("/api/v1/limits", LIMIT)["id"])
    assert row is not None
    assert row["terms"] is None


def test_the_amount_before_a_change_is_remembered_where_it_is_carried_over(made: Parts, api: Api) -> None:
    """The rest of a window is that of the amount which was in force."""
    limit = api.post("/api/v1/limits", {**LIMIT, "carry_over": "10"})
    api.send("PATCH", f"/api/v1/limits/{limit['id']}", {"amount": "300"})
    assert terms(made, limit["id"]).history == (Past(NOON, 100 * 10**9),)


def test_a_raise_is_added_to_those_that_have_not_ended(made: Parts, api: Api) -> None:
    """It begins now where it does not say when, and the entry says why."""
    limit = api.post("/api/v1/limits", LIMIT)
    asked = {"amount": "400", "until": "2026-11-30T00:00:00Z", "reason": "launch"}
    raised = api.post(f"/api/v1/limits/{limit['id']}/raises", asked)
    assert (raised["amount"], raised["amount_now"], raised["remaining"]) == ("100", "400", "400")
    api.post(f"/api/v1/limits/{limit['id']}/raises", {"amount": "500", "from": "2026-12-01", "until": "2026-12-02"})
    kept = terms(made, limit["id"]).raises
    assert [each.amount for each in kept] == [400 * 10**9, 500 * 10**9]
    assert kept[0].since == NOON
    entries = api.get(f"/api/v1/limits/{limit['id']}/entries")["data"]
    assert ("raise", "launch") in [(each["operation"], each["reason"]) for each in entries]


def test_raises_that_have_ended_make_room(made: Parts, api: Api) -> None:
    """A limit that is raised every month does not run out of raises."""
    limit = api.post("/api/v1/limits", LIMIT)
    row = made.books.get("limit", limit["id"])
    assert row is not None
    ended = [{"amount": 1, "since": 1, "until": 2}] * 32
    made.books.put("limit", {**row, "terms": {"raises": ended}})
    api.post(f"/api/v1/limits/{limit['id']}/raises", {"amount": "400", "until": "2026-11-30T00:00:00Z"})
    assert terms(made, limit["id"]).raises == (Raise(400 * 10**9, NOON, terms(made, limit["id"]).raises[0].until),)


def test_a_raise_that_was_in_force_when_the_rest_was_left_stays(made: Parts, api: Api) -> None:
    """Another raise does not take back what it let the next window begin with."""
    limit = api.post("/api/v1/limits", {**LIMIT, "window": "day", "carry_over": "60"})
    api.post(f"/api/v1/limits/{limit['id']}/raises", {"amount": "150", "until": "2026-11-22"})
    made.clock.now += DAY
    made.journal.add(opened(), *settled_call("req_0", cost=120 * 10**9))
    made.project()
    assert api.get(f"/api/v1/limits/{limit['id']}")["amount_now"] == "130"
    api.post(f"/api/v1/limits/{limit['id']}/raises", {"amount": "101", "until": "2026-11-23"})
    assert api.get(f"/api/v1/limits/{limit['id']}")["amount_now"] == "131"
    made.clock.now += DAY
    api.post(f"/api/v1/limits/{limit['id']}/raises", {"amount": "102", "until": "2026-11-25"})
    assert [each.amount for each in terms(made, limit["id"]).raises] == [101 * 10**9, 102 * 10**9]


def test_terms_and_what_they_forbid_are_changed_together(made: Parts, api: Api) -> None:
    """One change may take the raises and the amount, or the actions and the mode that they go with."""
    limit = api.post("/api/v1/limits", {**LIMIT, "actions": [{"do": "stop", "at": 90}]})
    path = f"/api/v1/limits/{limit['id']}"
    api.post(f"{path}/raises", {"amount": "400", "until": "2026-11-30"})
    assert api.send("PATCH", path, {"amount": None}, 422)["errors"][0]["field"] == "raises"
    assert api.send("PATCH", path, {"amount": None, "raises": []})["amount"] is None
    assert api.send("PATCH", path, {"mode": "shadow", "actions": []})["mode"] == "shadow"
    api.send("PATCH", path, {"amount": "100"})
    api.post(f"{path}/raises", {"amount": "400", "until": "2026-11-30"})
    made.clock.now += 10 * DAY
    assert api.post("/api/v1/limits", {**LIMIT, "amount": None})["raises"] == []


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"algorithm": "fast"}, "field_enum", "algorithm"),
        ({"burst": "5"}, "field_conflict", "burst"),
        ({"carry_over": 5}, "field_type", "carry_over"),
        ({"window": "rolling 24h", "carry_over": "5"}, "field_conflict", "carry_over"),
        ({"year_start": "13-01", "window": "year"}, "field_enum", "year_start"),
        ({"until": "tomorrow"}, "field_type", "until"),
        ({"from": "2026-12-01", "until": "2026-11-01"}, "field_range", "until"),
        ({"actions": [{"do": "stop"}]}, "field_missing", "actions.0.at"),
        ({"actions": [{"do": "stop", "at": 0}]}, "field_range", "actions"),
        ({"actions": [{"do": "downgrade", "at": 80}]}, "field_conflict", "actions"),
        ({"actions": [{"do": "revoke", "at": 100}]}, "field_conflict", "actions"),
        ({"raises": [{"amount": 5, "until": "2026-12-01"}]}, "field_type", "raises"),
        ({"terms": {}}, "field_unknown", "terms"),
    ],
)
def test_terms_that_cannot_be_are_refused_and_the_field_named(
    api: Api, change: dict[str, Any], code: str, field: str
) -> None:
    """Nothing is stored of them."""
    problem = api.post("/api/v1/limits", {**LIMIT, **change}, status=422)
    assert (problem["code"], problem["errors"][0]["field"]) == (code, field)
    assert api.get("/api/v1/limits")["data"] == []


def test_without_a_gate_a_rolling_limit_stands_as_the_books_say(made: Parts, api: Api) -> None:
    """What is older than its window is not counted."""
    limit = api.post("/api/v1/limits", {**LIMIT, "window": "rolling 24h"})
    made.journal.add(opened(), *settled_call("req_0", cost=7, at=NOON - 2 * DAY), *settled_call("req_1", cost=30))
    made.project()
    assert api.get(f"/api/v1/limits/{limit['id']}")["posted"] == "0.00000003"


def test_without_a_gate_the_rest_of_the_window_before_is_part_of_what_is_left(made: Parts, api: Api) -> None:
    """By the books as by the gate."""
    limit = api.post("/api/v1/limits", {**LIMIT, "window": "day", "carry_over": "60"})
    made.clock.now += DAY
    made.journal.add(opened(), *settled_call("req_0", cost=70 * 10**9), *settled_call("req_1", cost=5, at=NOON + DAY))
    made.project()
    shown = api.get(f"/api/v1/limits/{limit['id']}")
    assert (shown["posted"], shown["amount"], shown["amount_now"]) == ("0.000000005", "100", "130")


def test_a_downgrade_to_a_model_that_nobody_offers_is_refused(api: Api) -> None:
    """Whoever mistyped it would believe that it holds; the nearest name is told."""
    limit = {"select": {"team": "a"}, "unit": "usd", "amount": "1", "window": "day"}
    action = {"do": "downgrade", "at": 80, "to": "gpt-4o-mni"}
    problem = api.post("/api/v1/limits", {**limit, "actions": [action]}, 422)
    assert problem["errors"][0] == {
        "field": "actions",
        "code": "field_enum",
        "detail": "to: no model is called 'gpt-4o-mni'; did you mean gpt-4o-mini?",
    }
    made = api.post("/api/v1/limits", {**limit, "actions": [{**action, "to": "gpt-4o-mini"}]})
    again = api.send("PATCH", f"/api/v1/limits/{made['id']}", {"actions": [action]}, 422)
    assert again["errors"][0]["field"] == "actions"
    bulk = api.post("/api/v1/limits/bulk", {"items": [{**limit, "actions": [action]}]}, 422)
    assert bulk["errors"][0]["field"] == "items.0.actions"


def test_exceptions_of_an_each_limit_are_kept_as_they_were_meant(made: Parts, api: Api) -> None:
    """Names are composed, keys known by their id; setting it again leaves them, and an empty list takes them back."""
    key = create(made.console, NewKey(name="ci"))[0]["id"]
    limit = {"each": ["project", "key"], "unit": "requests", "amount": 3, "window": "hour"}
    spared = [{"project": "Cafe\u0301"}, {"key": "ci", "project": "p"}]
    first = api.post("/api/v1/limits", {**limit, "except": spared})
    assert first["except"] == [{"project": "Caf\u00e9"}, {"key": key, "project": "p"}]
    assert api.post("/api/v1/limits", {**limit, "amount": 4})["except"] == first["except"]
    assert api.send("PATCH", f"/api/v1/limits/{first['id']}", {"except": []})["except"] == []


@pytest.mark.parametrize(
    ("each", "spared", "code"),
    [
        ([], [{"user": "bob"}], "field_conflict"),
        (["user"], [{"team": "a"}], "field_conflict"),
        (["user"], [{}], "field_conflict"),
        (["user"], [{"user": ""}], "field_range"),
        (["user"], [{"user": "x" * 257}], "field_range"),
        (["user"], [{"user": f"u{n}"} for n in range(1_001)], "field_range"),
        (["user"], [{"user": 5}], "field_type"),
    ],
)
def test_exceptions_that_cannot_be_are_refused(api: Api, each: list[str], spared: list[Any], code: str) -> None:
    """Only what a limit counts apart has exceptions, each names somebody, and they are bounded."""
    limit = {"each": each, "unit": "requests", "amount": 3, "window": "hour", "except": spared}
    problem = api.post("/api/v1/limits", limit, 422)
    assert problem["code"] == code
    assert problem["errors"][0]["field"].startswith("except")


def test_who_is_an_exception_stands_in_no_list_of_the_limit(made: Parts, api: Api) -> None:
    """What others used is counted to them; what the exception used is left out of subjects and sums."""
    made.journal.add(opened())
    for number, user in enumerate(("ann", "bob")):
        made.journal.add(*settled_call(f"req_{number}", who=WHO._replace(user=user)))
    made.project()
    limit = {"each": ["user"], "unit": "requests", "amount": 3, "window": "day", "except": [{"user": "bob"}]}
    shown = api.post("/api/v1/limits", limit)
    assert [(each["subject"], each["posted"]) for each in shown["subjects"]] == [({"user": "ann"}, 1)]
    assert shown["posted"] == 1
