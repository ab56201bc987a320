"""Rows of the trail of changes as they are shown."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin_world import admin_world, ask_everything, one_of_each
from console_parts import HOUR, NOON, SECOND, Api, Parts
from faregate.console.audit import all_marks
from faregate.console.shown_changes import TIMES, shown
from faregate.storage.schema import RESOURCES


def numbers(value: Any) -> Iterator[int]:
    """All whole numbers in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, int):
        yield value


def newest(api: Api, kind: str) -> dict[str, Any]:
    """What the newest change of a kind left."""
    line: dict[str, Any] = api.get(f"/api/v1/audit?kind={kind}&limit=1")["data"][0]
    return dict(line["after"])


def test_no_change_of_any_kind_shows_nanoseconds_or_parts_of_a_dollar(tmp_path: Path) -> None:
    """Every kind of resource, changed through the API by everything that it takes."""
    with admin_world(tmp_path) as (made, api):
        ask_everything(api, tmp_path)
        one_of_each(api)
        lines = api.pages("/api/v1/audit?limit=1000")
        assert RESOURCES.keys() - {line["kind"] for line in lines} == set()
        found = [(line["kind"], line[part]) for line in lines for part in ("before", "after")]
        assert [(kind, row) for kind, row in found if max(numbers(row), default=0) > 10**15] == []
        assert made.console.audit.fault(all_marks(made.books), made.console.audit.last()) == ""


def test_times_of_every_kind_are_known() -> None:
    """A column that is called as times are is shown as one."""
    columns = {column.name for table in RESOURCES.values() for column in table.columns}
    assert {name for name in columns if name.endswith(("_at", "_from", "_to"))} == TIMES


def test_a_price_is_shown_in_dollars_and_kept_in_picos(made: Parts, api: Api) -> None:
    """The file holds what its hashes are of; whoever looks sees what the API takes."""
    price = {"provider": "openai", "model": "gpt-4o", "unit": "input_tokens", "per": 1_000_000, "price": "2.40"}
    api.send("PUT", "/api/v1/prices", price)
    row = newest(api, "price")
    assert (row["price"], row["effective_from"], row["effective_to"]) == ("2.4", "2026-11-21T12:00:00Z", None)
    assert "pico" not in row
    (kept,) = made.console.audit.lines(made.console.audit.last(), made.console.audit.last())
    assert (kept["after"]["pico"], kept["after"]["effective_from"]) == (2_400_000_000_000, NOON)
    assert api.get("/api/v1/audit?limit=1")["data"][0]["chain"] == kept["chain"]
    assert api.get("/api/v1/verify")["ok"] is True


def test_amounts_of_limits_are_in_the_unit_of_the_limit(made: Parts, api: Api) -> None:
    """Dollars of money, whole numbers of the rest; in terms and entries, too."""
    made.clock.now += SECOND
    money = api.post(
        "/api/v1/limits", {"unit": "usd", "amount": "5.5", "window": "month", "carry_over": "2", "from": "2026-11-01"}
    )
    api.post(f"/api/v1/limits/{money['id']}/raises", {"amount": "9", "until": "2026-11-30"})
    limit, entry = newest(api, "limit"), newest(api, "limit_entry")
    assert (limit["amount"], limit["terms"]["carry_max"]) == ("5.5", "2")
    assert (limit["terms"]["since"], limit["terms"]["carry_from"]) == ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z")
    span = {"since": "2026-11-21T12:00:01Z", "until": "2026-11-30T00:00:00Z"}
    assert limit["terms"]["raises"] == [{"amount": "9", **span}]
    assert (entry["amount"], entry["after"], entry["details"]["before"]) == ("9", "5.5", "5.5")
    assert entry["details"].items() >= span.items()

    api.send("PATCH", f"/api/v1/limits/{money['id']}", {"amount": "6"})
    history = [{"until": "2026-11-21T12:00:01Z", "amount": "5.5"}]
    assert newest(api, "limit")["terms"]["history"] == history

    api.post("/api/v1/limits", {"unit": "tokens", "amount": 5_000, "window": "day"})
    assert (newest(api, "limit")["amount"], newest(api, "limit_entry")["after"]) == (5_000, 5_000)
    api.post("/api/v1/limits", {"unit": "usd", "amount": None, "window": "day"})
    assert newest(api, "limit")["amount"] is None


def test_keys_show_when_they_end_and_were_rotated(api: Api) -> None:
    """A time that is not set is null."""
    key = api.post("/api/v1/keys", {"name": "ci", "expires_at": "2027-01-01T00:00:00Z"})
    api.post(f"/api/v1/keys/{key['id']}/rotate", {"grace_seconds": 60}, 200)
    row = newest(api, "key")
    assert (row["expires_at"], row["rotated_at"]) == ("2027-01-01T00:00:00Z", "2026-11-21T12:00:00Z")
    assert (row["revoked_at"], row["deleted_at"]) == (None, None)
    assert row["details"]["pepper_before"][1] == "2026-11-21T12:01:00Z"


@pytest.mark.parametrize(
    ("kind", "row", "told"),
    [
        (
            "limit",
            {"unit": "requests", "amount": 5, "details": {"braked": [[NOON, NOON + HOUR]]}},
            {"details": {"braked": [["2026-11-21T12:00:00Z", "2026-11-21T13:00:00Z"]]}},
        ),
        (
            "limit",
            {"unit": "usd", "details": {"used_before": 1}, "terms": {"forced": [{"action": 0, "until": NOON}]}},
            {
                "details": {"used_before": "0.000000001"},
                "terms": {"forced": [{"action": 0, "until": "2026-11-21T12:00:00Z"}]},
            },
        ),
        (
            "limit_entry",
            {"details": {"unit": "usd", "balance": -(10**9)}},
            {"details": {"unit": "usd", "balance": "-1"}},
        ),
        (
            "provider",
            {"details": {"asked_at": NOON, "n": 5}},
            {"details": {"asked_at": "2026-11-21T12:00:00Z", "n": 5}},
        ),
        ("limit_entry", {"amount": 7}, {}),
        (
            "alert",
            {
                "delivered": {"chn_1": NOON},
                "details": {"unit": "usd", "of_amount": 10**9, "tries": {"chn_2": [3, NOON]}},
            },
            {
                "delivered": {"chn_1": "2026-11-21T12:00:00Z"},
                "details": {"unit": "usd", "of_amount": "1", "tries": {"chn_2": [3, "2026-11-21T12:00:00Z"]}},
            },
        ),
        ("capacity", {"commitment": 5 * 10**9, "units": 3}, {"commitment": "5"}),
        (
            "adjustment",
            {"at": NOON, "since": 0, "until": NOON, "cost": -(10**9), "requests": 2},
            {"at": "2026-11-21T12:00:00Z", "since": None, "until": "2026-11-21T12:00:00Z", "cost": "-1"},
        ),
    ],
)
def test_members_are_shown_by_what_they_are_of(kind: str, row: dict[str, Any], told: dict[str, Any]) -> None:
    """Beside those above: what brakes, quotas, deliveries and corrections leave in a row."""
    assert shown(kind, row) == {**row, **told}


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("price", {"pico": "7", "created_at": "yesterday", "effective_to": True}),
        ("price", {"created_at": -1, "updated_at": 10**40}),
        ("limit", {"unit": ["usd"], "amount": 5, "terms": [1], "details": 7}),
        ("limit", {"unit": "usd", "amount": None, "terms": {"raises": {"amount": 1}, "history": [5, None, {}]}}),
        ("limit_entry", {"amount": 1.5, "details": None}),
        ("alert", {"delivered": [NOON], "details": {"tries": {"chn_1": [1]}}}),
        ("not_made", {"first": 3, "last": 10**18}),
        ("nothing", {"pico": 5, "amount": 10**18}),
        ("team", None),
        ("team", ["a"]),
    ],
)
def test_what_is_not_as_it_would_be_now_stays(kind: str, row: Any) -> None:
    """Lines of older versions, and damaged ones, are shown as they are."""
    assert shown(kind, row) == row


NAMES = "unit amount terms details raises until pico price created_at seen_at braked tries delivered".split()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner | st.just("usd")),
    max_leaves=20,
)


@given(st.sampled_from([*RESOURCES, "adjustment", "configuration", ""]), VALUES)
def test_no_row_whatever_stops_a_look_at_the_trail(kind: str, row: Any) -> None:
    """It is shown somehow, and is not changed itself."""
    before = repr(row)
    shown(kind, row)
    assert repr(row) == before
