"""``/api/v1/limits/{id}/entries``: deposits, refunds, new amounts, and the history that they leave."""

from typing import Any

import pytest

from console_parts import SECOND, Api, Parts

LIMIT: dict[str, Any] = {"select": {"team": "research"}, "unit": "usd", "amount": "10", "window": "lifetime"}
DEPOSIT: dict[str, Any] = {"operation": "deposit", "amount": "5", "reason": "second invoice", "reference": "inv-2"}


@pytest.fixture
def limit(api: Api) -> str:
    """The id of a limit of 10 dollars."""
    return str(api.post("/api/v1/limits", LIMIT)["id"])


def _amount(api: Api, limit: str) -> Any:
    return api.get(f"/api/v1/limits/{limit}")["amount"]


def _operations(api: Api, limit: str) -> list[str]:
    return [row["operation"] for row in api.get(f"/api/v1/limits/{limit}/entries")["data"]]


def test_a_deposit_adds_to_the_amount(api: Api, limit: str) -> None:
    """It never replaces it, and the entry tells what was before and after, who asked, and why."""
    entry = api.post(f"/api/v1/limits/{limit}/entries", DEPOSIT)

    assert _amount(api, limit) == "15"
    assert (entry["operation"], entry["amount"], entry["before"], entry["after"]) == ("deposit", "5", "10", "15")
    assert (entry["limit"], entry["reason"], entry["reference"]) == (limit, "second invoice", "inv-2")
    assert entry["actor"].startswith("key_")
    assert entry["actor_name"] == "root"


def test_a_deposit_needs_no_reason_but_a_refund_and_a_new_amount_do(api: Api, limit: str) -> None:
    """What takes back or replaces is explained."""
    path = f"/api/v1/limits/{limit}/entries"
    api.post(path, {"operation": "deposit", "amount": "1"})
    for operation in ("refund", "set"):
        problem = api.post(path, {"operation": operation, "amount": "1"}, 422)
        assert (problem["code"], problem["errors"][0]["field"]) == ("field_missing", "reason")

    api.post(path, {"operation": "refund", "amount": "2", "reason": "a call that failed"})
    assert _amount(api, limit) == "13"
    api.post(path, {"operation": "set", "amount": "3", "reason": "new contract"})
    assert _amount(api, limit) == "3"
    assert _operations(api, limit) == ["set", "refund", "deposit", "create"]


def test_the_same_reference_is_one_deposit(made: Parts, api: Api, limit: str) -> None:
    """A repeat answers 200 with the first entry; other content is a conflict that names the field."""
    path = f"/api/v1/limits/{limit}/entries"
    first = api.post(path, DEPOSIT)
    made.clock.now += SECOND
    again = api.post(path, DEPOSIT, 200)

    assert again == first
    assert _amount(api, limit) == "15"
    for other in ({"amount": "6"}, {"operation": "refund"}, {"reason": "third invoice"}):
        problem = api.post(path, {**DEPOSIT, **other}, 409)
        assert (problem["code"], problem["errors"][0]["field"]) == ("conflict", "reference")
    assert _amount(api, limit) == "15"


def test_the_same_reference_may_be_used_for_another_limit(api: Api, limit: str) -> None:
    """A reference belongs to its limit."""
    other = api.post("/api/v1/limits", {**LIMIT, "window": "month"})["id"]
    api.post(f"/api/v1/limits/{limit}/entries", DEPOSIT)
    api.post(f"/api/v1/limits/{other}/entries", DEPOSIT)
    assert (_amount(api, limit), _amount(api, other)) == ("15", "15")


NO_DEPOSITS: list[tuple[dict[str, Any], str, str]] = [
    ({"amount": "0"}, "field_range", "amount"),
    ({"amount": "-1"}, "field_range", "amount"),
    ({"amount": None}, "field_range", "amount"),
    ({"amount": 5}, "field_type", "amount"),
    ({"amount": 0.5}, "field_type", "amount"),
    ({"amount": "1e30"}, "field_range", "amount"),
    ({"amount": "1000000000"}, "field_range", "amount"),
    ({"amount": "0.0000000001"}, "field_range", "amount"),
    ({"operation": "withdraw"}, "field_enum", "operation"),
    ({"operation": "create"}, "field_enum", "operation"),
    ({"reason": "\u202e"}, "field_range", "reason"),
    ({"reason": "x" * 257}, "field_range", "reason"),
    ({"reference": ""}, "field_range", "reference"),
    ({"actor": "me"}, "field_forbidden", "actor"),
    ({"amoount": "1"}, "field_unknown", "amoount"),
]


def test_what_cannot_be_deposited_is_refused_by_field(api: Api, limit: str) -> None:
    """Nothing changes, and the field at fault is named."""
    for change, code, field in NO_DEPOSITS:
        problem = api.post(f"/api/v1/limits/{limit}/entries", {**DEPOSIT, **change}, 422)
        assert (problem["code"], problem["errors"][0]["field"]) == (code, field), change
    assert _amount(api, limit) == "10"


def test_an_unlimited_limit_takes_no_deposit(api: Api) -> None:
    """There is nothing to add to; an amount can be set, and it can be made unlimited again."""
    limit = api.post("/api/v1/limits", {**LIMIT, "unit": "tokens", "amount": None})["id"]
    path = f"/api/v1/limits/{limit}/entries"
    problem = api.post(path, {"operation": "deposit", "amount": 5}, 409)
    assert "unlimited" in problem["detail"]

    api.post(path, {"operation": "set", "amount": 100, "reason": "trial"})
    api.post(path, {"operation": "deposit", "amount": 5})
    assert _amount(api, limit) == 105
    api.post(path, {"operation": "set", "amount": None, "reason": "trial is over"})
    assert _amount(api, limit) is None


def test_changes_by_other_ways_leave_entries_too(api: Api, limit: str) -> None:
    """Setting the limit again, changing its amount or mode, and removing it: each with reason and actor."""
    api.post("/api/v1/limits", {**LIMIT, "amount": "12", "reason": "raised by the board"})
    api.send("PATCH", f"/api/v1/limits/{limit}", {"mode": "soft", "amount": "8"})
    api.send("PATCH", f"/api/v1/limits/{limit}", {"contact": "the desk"})
    api.send("DELETE", f"/api/v1/limits/{limit}")

    rows = api.get(f"/api/v1/limits/{limit}/entries")["data"]
    told = [(row["operation"], row["before"], row["after"]) for row in rows]
    assert told == [
        ("clear", "8", None),
        ("mode", "12", "8"),
        ("set", "12", "8"),
        ("set", "10", "12"),
        ("create", None, "10"),
    ]
    assert (rows[1]["from"], rows[1]["to"]) == ("hard", "soft")
    assert rows[3]["reason"] == "raised by the board"


def test_entries_are_paged_newest_first(api: Api, limit: str) -> None:
    """A cursor goes on to older ones; a filter leaves only one operation."""
    path = f"/api/v1/limits/{limit}/entries"
    for n in range(4):
        api.post(path, {"operation": "deposit", "amount": "1", "reference": f"d{n}"})

    rows = api.pages(f"{path}?limit=2")
    assert [row["reference"] for row in rows] == ["d3", "d2", "d1", "d0", None]
    assert [row["operation"] for row in api.get(f"{path}?operation=create")["data"]] == ["create"]
    assert api.get(f"{path}?colour=red", 400)["code"] == "filter_invalid"


def test_an_unknown_limit_has_no_entries(api: Api) -> None:
    """It is a 404 for reading and for writing."""
    for limit_id in ("lim_none", "x" * 200, "%00", "key_1"):
        assert api.get(f"/api/v1/limits/{limit_id}/entries", 404)["code"] == "not_found"
        assert api.post(f"/api/v1/limits/{limit_id}/entries", DEPOSIT, 404)["code"] == "not_found"


def test_a_stop_has_no_balance(made: Parts, api: Api, limit: str) -> None:
    """It is lifted, not paid into; and lifting it is told as such."""
    row = made.books.get("limit", limit)
    assert row is not None
    made.books.put("limit", {**row, "source": "stop", "amount": 0})
    problem = api.post(f"/api/v1/limits/{limit}/entries", DEPOSIT, 409)
    assert "lift" in problem["detail"]

    api.send("DELETE", f"/api/v1/limits/{limit}")
    assert _operations(api, limit)[0] == "lift"


def test_a_deposit_is_in_the_trail_with_its_entry(made: Parts, api: Api, limit: str) -> None:
    """Both are told under the request that made them, and the trail stays whole."""
    entry = api.post(f"/api/v1/limits/{limit}/entries", DEPOSIT)
    told = api.get("/api/v1/audit?limit=2")["data"]

    assert {row["kind"] for row in told} == {"limit", "limit_entry"}
    assert {row["request_id"] for row in told} == {entry["request_id"]}
    assert made.console.audit.fault() == ""
