"""``/api/v1/limits``."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from console_parts import DAY, NOON, SECOND, WHO, Api, Parts, opened, parts, settled_call
from fakes import AwayGate
from faregate.console.allowances import by_books, limit_views
from faregate.console.keys import NewKey, create
from faregate.control import Allowances, AllowanceView, Report, Reported, Resolve
from faregate.core.amounts import held_amounts
from faregate.core.ledger.events import Intended
from faregate.errors import Unavailable
from faregate.ports import BalanceQuery, Balances, Row

LIMIT: dict[str, Any] = {"select": {"team": "research"}, "unit": "usd", "amount": "0.10", "window": "lifetime"}


def test_a_money_limit_is_kept_exactly_and_told_as_text(made: Parts, api: Api) -> None:
    """Dollars go in and out as decimal texts; the books hold nano-dollars."""
    limit = api.post("/api/v1/limits", {**LIMIT, "amount": "0.123456789"})
    assert limit["amount"] == "0.123456789"
    assert (limit["posted"], limit["held"], limit["remaining"]) == ("0", "0", "0.123456789")
    row = made.books.get("limit", limit["id"])
    assert row is not None
    assert row["amount"] == 123_456_789


def test_limits_are_found_by_what_they_select(made: Parts, api: Api) -> None:
    """A filter by a dimension or a tag finds those that name it, whatever else they name; a key also by its name."""
    key = create(made.console, NewKey(name="ci"))[0]["id"]
    wanted: dict[str, dict[str, str]] = {
        "team": {"team": "research"},
        "both": {"team": "research", "model": "gpt-4o"},
        "other": {"team": "sales"},
        "key": {"key": key},
        "tag": {"tag.customer": "a b"},
        "all": {},
    }
    ids = {api.post("/api/v1/limits", {**LIMIT, "select": select})["id"]: name for name, select in wanted.items()}

    def found(query: str) -> set[str]:
        return {ids[row["id"]] for row in api.get(f"/api/v1/limits?{query}")["data"]}

    assert found("team=research") == {"team", "both"}
    assert found("team=research&model=gpt-4o") == {"both"}
    assert found(f"key={key}") == found("key=ci") == {"key"}
    assert found("key=other") == found("team=") == found("user=research") == set()
    assert found("tag.customer=a%20b") == {"tag"}
    assert found("source=api") == set(wanted)
    assert found("source=quota") == set()
    assert api.get("/api/v1/limits?metadata.x=1", 400)["code"] == "filter_invalid"
    assert api.get("/api/v1/limits?teem=research", 400)["code"] == "filter_invalid"
    assert [ids[row["id"]] for row in api.pages("/api/v1/limits?team=research&limit=1")] == ["team", "both"]


def test_the_same_selection_unit_and_window_is_the_same_limit(api: Api) -> None:
    """Setting it again changes amount and mode in place; another window is another limit."""
    first = api.post("/api/v1/limits", {**LIMIT, "select": {"team": "a", "model": "m"}})
    again = api.post("/api/v1/limits", {**LIMIT, "select": {"model": "m", "team": "a"}, "amount": "9", "mode": "soft"})
    other = api.post("/api/v1/limits", {**LIMIT, "select": {"team": "a", "model": "m"}, "window": "month"})
    assert (again["id"], again["amount"], again["mode"]) == (first["id"], "9", "soft")
    assert other["id"] != first["id"]
    assert len(api.get("/api/v1/limits")["data"]) == 2


def test_a_value_that_reads_like_a_selector_is_another_limit(api: Api) -> None:
    """A team named ``a,user=b`` does not take over the limit of the user b in the team a."""
    first = api.post("/api/v1/limits", {**LIMIT, "select": {"team": "a", "user": "b"}})
    other = api.post("/api/v1/limits", {**LIMIT, "select": {"team": "a,user=b"}})
    assert other["id"] != first["id"]
    assert api.get(f"/api/v1/limits/{first['id']}")["select"] == {"team": "a", "user": "b"}


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"amount": 0.1}, "field_type", "amount"),
        ({"amount": 10}, "field_type", "amount"),
        ({"amount": True}, "field_type", "amount"),
        ({"amount": "-1"}, "field_range", "amount"),
        ({"amount": "10,5"}, "field_range", "amount"),
        ({"amount": "1e30"}, "field_range", "amount"),
        ({"amount": "NaN"}, "field_range", "amount"),
        ({"amount": "0.0000000001"}, "field_range", "amount"),
        ({"amount": "1000000000.1"}, "field_range", "amount"),
        ({"unit": "tokens", "amount": "10"}, "field_type", "amount"),
        ({"unit": "tokens", "amount": 1.5}, "field_type", "amount"),
        ({"unit": "tokens", "amount": -5}, "field_range", "amount"),
        ({"unit": "tokens", "amount": 10**16}, "field_range", "amount"),
        ({"unit": "euro"}, "field_enum", "unit"),
        ({"window": "61m"}, "field_enum", "window"),
        ({"window": None}, "field_missing", "window"),
        ({"unit": "concurrency", "amount": 3}, "field_conflict", "window"),
        ({"timezone": "Mars/Base"}, "field_enum", "timezone"),
        ({"timezone": "../../etc/passwd"}, "field_enum", "timezone"),
        ({"timezone": "Europe"}, "field_enum", "timezone"),
        ({"timezone": ""}, "field_enum", "timezone"),
        ({"mode": "medium"}, "field_enum", "mode"),
        ({"select": {"colour": "red"}}, "field_enum", "select"),
        ({"select": {"team": ""}}, "field_range", "select"),
        ({"select": {"team": 7}}, "field_type", "select.team"),
        ({"select": [], "each": []}, "field_type", "select"),
        ({"each": ["user", "user"]}, "field_conflict", "each"),
        ({"each": ["nobody"]}, "field_enum", "each"),
        ({"budgget": 1}, "field_unknown", "budgget"),
        ({"posted": "0"}, "field_forbidden", "posted"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_and_the_field_named(
    api: Api, change: dict[str, Any], code: str, field: str
) -> None:
    """Nothing is stored of it."""
    problem = api.post("/api/v1/limits", {**LIMIT, **change}, status=422)
    assert (problem["code"], problem["errors"][0]["field"]) == (code, field)
    assert api.get("/api/v1/limits")["data"] == []


def test_zero_admits_nothing_and_null_is_unlimited(api: Api) -> None:
    """Both are valid and say what is left."""
    assert api.post("/api/v1/limits", {**LIMIT, "amount": "0"})["remaining"] == "0"
    unlimited = api.post("/api/v1/limits", {**LIMIT, "amount": None})
    assert (unlimited["amount"], unlimited["remaining"]) == (None, None)


def test_without_a_gate_a_limit_stands_as_the_books_say(made: Parts, api: Api) -> None:
    """Posted is summed from the window's start, held from open reservations."""
    limit = api.post("/api/v1/limits", {**LIMIT, "window": "day", "timezone": "Europe/Berlin"})
    made.journal.add(
        opened(),
        *settled_call("req_1", cost=30_000_000),
        *settled_call("req_0", cost=7, at=NOON - DAY),
        Intended("req_2", NOON, NOON, WHO, held_amounts(5_000_000, 400, 200), "v", False),
        Intended("req_3", NOON, NOON, WHO._replace(team="other"), held_amounts(9, 1, 1), "v", False),
    )
    made.project()
    shown = api.get(f"/api/v1/limits/{limit['id']}")
    assert (shown["posted"], shown["held"], shown["remaining"]) == ("0.03", "0.005", "0.065")
    assert (shown["window_start"], shown["resets_at"]) == ("2026-11-20T23:00:00Z", "2026-11-21T23:00:00Z")


def test_an_each_limit_shows_its_subjects(made: Parts, api: Api) -> None:
    """Every value has a counter of its own; remaining belongs to subjects, not to their sum."""
    limit = api.post("/api/v1/limits", {"each": ["user"], "unit": "tokens", "amount": 500, "window": "day"})
    made.journal.add(opened())
    for number, user in enumerate(("ada", "ada", "bob")):
        made.journal.add(*settled_call(f"req_{number}", who=WHO._replace(user=user)))
    made.project()
    shown = api.get(f"/api/v1/limits/{limit['id']}")
    assert (shown["posted"], shown["remaining"], shown["subjects_count"]) == (1200, None, 2)
    assert shown["subjects"] == [
        {"subject": {"user": "ada"}, "posted": 800, "held": 0, "remaining": 0},
        {"subject": {"user": "bob"}, "posted": 400, "held": 0, "remaining": 100},
    ]


class TellingGate(AwayGate):
    """A gate that answers from what a test gave it."""

    def __init__(self) -> None:
        self.views: tuple[AllowanceView, ...] = ()
        self.pending: tuple[str, ...] = ()
        self.gone = False
        self.takes_up = True

    async def applied(self, within_s: float) -> bool:
        return self.takes_up

    async def allowances(self, limits: tuple[str, ...] = ()) -> Allowances:
        if self.gone:
            raise Unavailable("the gate went away")
        return Allowances(self.views, self.pending)

    async def resolve(self, order: Resolve) -> bool:
        return False

    async def report(self, order: Report) -> Reported:
        return Reported()


def test_where_the_gate_answers_its_live_counters_are_shown(tmp_path: Path) -> None:
    """A counter of a window that is over shows nothing posted; what it still holds counts."""
    gate = TellingGate()
    with parts(tmp_path, gate=gate) as made:
        api = Api(made.app, made.admin_key())
        limit = api.post("/api/v1/limits", {**LIMIT, "window": "day"})
        assert limit["applied"] is True
        start = NOON - NOON % DAY
        gate.views = (AllowanceView(limit["id"], (), 4_000_000, 6_000_000, start, start + DAY),)
        shown = api.get(f"/api/v1/limits/{limit['id']}")
        assert (shown["posted"], shown["held"], shown["remaining"]) == ("0.004", "0.006", "0.09")
        gate.views = (AllowanceView(limit["id"], (), 4_000_000, 6_000_000, start - DAY, start),)
        shown = api.get(f"/api/v1/limits/{limit['id']}")
        assert (shown["posted"], shown["held"]) == ("0", "0.006")
        gate.gone = True
        assert api.get(f"/api/v1/limits/{limit['id']}")["held"] == "0"


def test_a_change_that_the_gate_has_not_taken_up_says_so(tmp_path: Path) -> None:
    """It is stored, and the answer tells that it does not act yet."""
    gate = TellingGate()
    gate.takes_up = False
    with parts(tmp_path, gate=gate) as made:
        api = Api(made.app, made.admin_key())
        assert api.post("/api/v1/limits", LIMIT)["applied"] is False
        assert api.post("/api/v1/keys", {"name": "ci"})["applied"] is False


def test_patch_changes_amount_and_mode_in_place(api: Api) -> None:
    """Another selector is another limit, so it cannot be patched."""
    limit = api.post("/api/v1/limits", LIMIT)
    path = f"/api/v1/limits/{limit['id']}"
    changed = api.send("PATCH", path, {"amount": "5", "mode": "soft", "clamp": True, "contact": "ops@example.com"})
    assert (changed["amount"], changed["mode"], changed["clamp"]) == ("5", "soft", True)
    assert changed["contact"] == "ops@example.com"
    assert api.send("PATCH", path, {"amount": 5}, status=422)["code"] == "field_type"
    assert api.send("PATCH", path, {"unit": "tokens"}, status=422)["code"] == "field_forbidden"
    assert api.send("PATCH", path, {"mode": None}, status=422)["code"] == "field_range"
    assert api.send("PATCH", path, {"amount": None})["amount"] is None


def test_a_deleted_limit_is_gone_and_one_of_the_file_stays(made: Parts, api: Api) -> None:
    """What the configuration declares is changed there."""
    limit = api.post("/api/v1/limits", LIMIT)
    row = made.books.get("limit", limit["id"])
    assert row is not None
    made.books.put("limit", {**row, "source": "file"})
    assert api.send("DELETE", f"/api/v1/limits/{limit['id']}", status=409)["code"] == "conflict"
    made.books.put("limit", row)
    assert api.send("DELETE", f"/api/v1/limits/{limit['id']}")["deleted"] is True
    assert api.send("DELETE", f"/api/v1/limits/{limit['id']}", status=404)["code"] == "not_found"


def test_nothing_is_asked_about_no_limits(made: Parts) -> None:
    """An empty list costs no look at the reservations."""
    assert asyncio.run(limit_views(made.console, [])) == {}


def test_a_secret_of_a_key_is_no_name_of_it(made: Parts, api: Api) -> None:
    """It would stand in the trail for good, whichever field it was put into by mistake."""
    _, secret = create(made.console, NewKey(name="agent"))
    limit = {"select": {"team": "research"}, "unit": "usd", "amount": "5", "window": "day"}
    problem = api.post("/api/v1/limits", {**limit, "select": {"key": secret}}, 422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("field_range", "select")
    for field in ("contact", "reason"):
        problem = api.post("/api/v1/limits", {**limit, field: f"for {secret}"}, 422)
        assert (problem["code"], problem["errors"][0]["field"]) == ("field_range", field)
        assert secret not in str(problem)
    assert api.get("/api/v1/limits")["data"] == []


def test_a_key_is_named_by_its_id_or_its_name_and_nothing_else(made: Parts, api: Api) -> None:
    """A limit keeps the id, by which calls are known; what names no key, or several, would limit nobody unseen."""
    ci, old = (create(made.console, NewKey(name=name))[0]["id"] for name in ("ci", "old"))
    limit = {"unit": "usd", "amount": "5", "window": "day"}
    named = api.post("/api/v1/limits", {**limit, "select": {"key": "ci"}})
    assert named["select"] == {"key": ci}
    assert api.post("/api/v1/limits", {**limit, "amount": "6", "select": {"key": ci}})["id"] == named["id"]
    assert api.send("PATCH", f"/api/v1/limits/{named['id']}", {"amount": "7"})["select"] == {"key": ci}

    for wanted in ("nosuchkey", "key_01", "c", ""):
        problem = api.post("/api/v1/limits", {**limit, "select": {"key": wanted}}, 422)
        assert (problem["code"], problem["errors"][0]["field"]) == ("field_enum", "select"), wanted
        assert "its id (key_…) or its name" in problem["detail"]
    bulk = [{**limit, "select": {"key": name}} for name in ("old", "nosuchkey")]
    assert api.post("/api/v1/limits/bulk", {"items": bulk}, 422)["errors"][0]["code"] == "field_enum"

    api.send("POST", f"/api/v1/keys/{old}/revoke", {})
    assert api.post("/api/v1/limits", {**limit, "select": {"key": old}})["select"] == {"key": old}
    token = {"key": "tok_entra:6731de76"}
    assert api.post("/api/v1/limits", {**limit, "select": token})["select"] == token


def test_a_name_of_several_keys_is_one_within_its_organization(made: Parts, api: Api) -> None:
    """Names of keys are one's own within an organization only; a revoked namesake does not count."""
    first = create(made.console, NewKey(name="ci"))[0]["id"]
    api.send("POST", f"/api/v1/keys/{first}/revoke", {})
    second, third = (
        create(made.console, NewKey(name="ci", organization=each))[0]["id"] for each in ("default", "umbra")
    )
    limit = {"unit": "usd", "amount": "5", "window": "day"}

    problem = api.post("/api/v1/limits", {**limit, "select": {"key": "ci"}}, 422)
    one = api.post("/api/v1/limits", {**limit, "select": {"key": "ci", "organization": "umbra"}})

    assert (problem["code"], f"{second}, {third}" in problem["detail"]) == ("field_enum", True)
    assert one["select"] == {"key": third, "organization": "umbra"}


def test_a_team_is_named_in_whichever_form_its_name_is_typed(api: Api) -> None:
    """Composed or not, it is the same limit, and the one that the team's calls meet."""
    limit = {"unit": "usd", "amount": "5", "window": "day"}
    composed = api.post("/api/v1/limits", {**limit, "select": {"team": "caf\u00e9"}})
    other = api.post("/api/v1/limits", {**limit, "select": {"team": "cafe\u0301"}})
    assert (other["id"], other["select"]) == (composed["id"], {"team": "caf\u00e9"})


def test_what_is_not_named_stays_as_it_was(api: Api) -> None:
    """A new amount neither forgets whom to ask nor makes a limit refuse that was only being tried."""
    limit = {"select": {"team": "research"}, "unit": "usd", "amount": "5", "window": "day"}
    more = {"mode": "shadow", "contact": "finance@example.com", "clamp": True, "timezone": "Europe/Berlin"}
    api.post("/api/v1/limits", {**limit, **more})
    again = api.post("/api/v1/limits", {**limit, "amount": "6"})
    assert {name: again[name] for name in more} == more
    assert api.post("/api/v1/limits", {**limit, "mode": "hard", "contact": None, "clamp": False})["contact"] is None


class BookingBetween:
    """Books in which a call's end is booked between two looks: those of what was posted and of what is held."""

    def __init__(self, made: Parts) -> None:
        self._made = made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made.books, name)

    def balances_of(self, asked: Sequence[BalanceQuery]) -> list[Balances]:
        found = self._made.books.balances_of(asked)
        self._made.project()
        return found

    def open_reservations(self, state: str | None = None) -> list[Row]:
        found = self._made.books.open_reservations(state)
        self._made.project()
        return found


def test_a_call_that_ends_while_its_limit_is_looked_at_counts_once(made: Parts) -> None:
    """It is posted or held, never both: the figures are those of one moment."""
    limit = Api(made.app, made.admin_key()).post("/api/v1/limits", {**LIMIT, "amount": "1"})
    begun, ended = settled_call("req_1")
    made.journal.add(opened(), begun)
    made.project()
    made.journal.add(ended)
    between: Any = BookingBetween(made)
    (view,) = by_books(between, made.books.listing("limit", id=limit["id"]), NOON + SECOND).values()

    assert (view.posted, view.held) == (1_750_000, 0)
