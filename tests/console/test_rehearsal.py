"""``/api/v1/rehearse``: what proposed limits would have refused of stored requests."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from console_parts import DAY, HOUR, NOON, SECOND, WHO, Api, Parts, opened, parts, refused_call, settled_call
from faregate.config.load import load_text
from faregate.console.compile import card_rows
from faregate.console.prices import compiled
from faregate.console.rehearsal import KIND
from faregate.console.running import KEPT_MAX, RUNNING_MAX, Run, Runs
from faregate.core.ledger.events import Intended, Lost
from faregate.errors import Conflict, Failed

MINUTE = 60 * SECOND

#: What every call here is charged.
CHARGE = 1_750_000
DOLLARS = "0.00175"


def limit(**fields: Any) -> dict[str, Any]:
    """A proposed limit: a day's budget for two and a half calls, unless ``fields`` say otherwise."""
    return {"unit": "usd", "amount": "0.004375", "window": "day", **fields}


def fill(made: Parts, count: int = 6) -> None:
    """Calls of two teams, one an hour, up to noon."""
    made.journal.add(opened())
    for n in range(count):
        who = WHO._replace(team="sales" if n % 2 else "research", key=f"key_{n % 2}")
        made.journal.add(*settled_call(f"req_{n}", who=who, at=NOON - (count - n) * HOUR, cost=CHARGE))
    made.project()


def rehearse(api: Api, *limits: dict[str, Any], since: str = "2026-11-21", status: int = 200, **more: Any) -> Any:
    """The answer to a rehearsal of the day so far."""
    return api.post("/api/v1/rehearse", {"from": since, "limits": list(limits), **more}, status=status)


def test_it_lists_what_the_policy_would_have_refused(made: Parts, api: Api) -> None:
    """Counts, money, first and last, share of whom: by limit and by payer."""
    fill(made)
    told = rehearse(api, limit())
    assert (told["state"], told["from"], told["to"]) == ("done", "2026-11-21T00:00:00Z", "2026-11-21T12:00:00Z")
    assert {name: told[name] for name in ("requests", "charge", "refused", "refused_charge", "saved")} == {
        "requests": 6, "charge": "0.0105", "refused": 4, "refused_charge": "0.007", "saved": "0.007",
    }  # fmt: skip
    (found,) = told["limits"]
    assert (found["place"], found["limit"], found["requests"], found["refused"]) == (0, None, 6, 4)
    assert (found["first_at"], found["last_at"]) == ("2026-11-21T08:00:00Z", "2026-11-21T11:00:00Z")
    assert found["most"] == {"amount": "0.0035", "window_start": "2026-11-21T00:00:00Z", "subject": None}
    assert [(row["team"], row["refused"]) for row in told["by"]["team"]] == [("research", 2), ("sales", 2)]


def test_nothing_is_changed(made: Parts, api: Api) -> None:
    """A rehearsed limit is not set, and the change feed does not move."""
    fill(made)
    before = made.books.newest_change()
    rehearse(api, limit())
    assert api.get("/api/v1/limits")["data"] == []
    assert made.books.newest_change() == before


def test_windows_begin_with_what_the_books_say(made: Parts, api: Api) -> None:
    """A period that begins in the middle of a window finds what was spent of it before."""
    fill(made)
    told = rehearse(api, limit(), since="2026-11-21T09:00:00Z")
    assert (told["requests"], told["refused"]) == (3, 3)


def test_each_value_is_told_by_itself(made: Parts, api: Api) -> None:
    """A limit that counts each team says which of them it refuses how often."""
    fill(made)
    told = rehearse(api, limit(each=["team"], amount="0.0035"))
    (found,) = told["limits"]
    assert [(each["subject"], each["refused"]) for each in found["subjects"]] == [
        ({"team": "research"}, 1), ({"team": "sales"}, 1),
    ]  # fmt: skip
    assert found["most"]["subject"] == {"team": "research"}


def test_limits_in_force_hold_beside_the_policy_unless_it_stands_alone(made: Parts, api: Api) -> None:
    """What is in force today is asked, too; a proposed limit that counts the same takes its place."""
    fill(made)
    kept = api.post("/api/v1/limits", {"select": {"team": "sales"}, "unit": "requests", "amount": 1, "window": "day"})
    api.post("/api/v1/limits", limit(amount="0"))
    told = rehearse(api, limit(amount="100"))
    assert [(each["limit"], each["place"], each["refused"]) for each in told["limits"]][1:] == [(kept["id"], None, 2)]
    assert told["limits"][0]["limit"] is not None
    assert rehearse(api, limit(amount="100"), keep=False)["refused"] == 0


def test_todays_terms_hold_for_the_past(made: Parts, api: Api) -> None:
    """A limit whose amount was lowered a minute ago is rehearsed with its amount of now."""
    fill(made)
    made_limit = api.post("/api/v1/limits", limit(amount="100"))
    made.clock.now += MINUTE
    api.send("PATCH", f"/api/v1/limits/{made_limit['id']}", {"amount": "0"})
    assert rehearse(api)["refused"] == 6


def test_refusals_of_then_and_unknowns_are_told_apart(made: Parts, api: Api) -> None:
    """Whoever was refused then has no usage to ask with; an unknown asks with what it holds."""
    fill(made, 2)
    intent, _ = settled_call("req_lost", at=NOON - 30 * MINUTE, held=2_000_000)
    assert isinstance(intent, Intended)
    lost = Lost("req_lost", NOON - 29 * MINUTE, 200, "", 0)
    made.journal.add(refused_call("req_refused", at=NOON - 20 * MINUTE), intent, lost)
    made.project()
    told = rehearse(api, limit(amount="0.005"))
    assert (told["requests"], told["refused"], told["unknown"]) == (3, 1, 1)
    assert (told["refused_charge"], told["refused_then"]) == ("0.002", {"budget_exhausted": 1})


def test_with_holds_the_worst_case_asks(made: Parts, api: Api) -> None:
    """What was held for a call decides whether it fits, what it was charged is what it spends."""
    fill(made)
    assert rehearse(api, limit(amount="0.0105"))["refused"] == 0
    assert rehearse(api, limit(amount="0.0105"), holds=True)["refused"] == 2


def test_what_shadow_limits_noted_is_summed_up(made: Parts, api: Api) -> None:
    """Records say which limits in shadow mode would have refused them."""
    made.journal.add(opened())
    for n, noted in enumerate((["lim_1"], ["lim_1", "lim_2"], [])):
        intent, end = settled_call(f"req_{n}", at=NOON - (n + 1) * HOUR)
        assert isinstance(intent, Intended)
        notes = json.dumps({"would_refuse": noted}) if noted else ""
        made.journal.add(intent._replace(notes=notes), end)
    made.project()
    assert rehearse(api)["shadow"] == [{"limit": "lim_1", "requests": 2}, {"limit": "lim_2", "requests": 1}]


def test_a_shadow_limit_can_be_rehearsed(made: Parts, api: Api) -> None:
    """It refuses nobody and says whom it would have refused."""
    fill(made)
    told = rehearse(api, limit(mode="shadow"))
    assert (told["refused"], told["limits"][0]["would_refuse"]) == (0, 4)


def test_all_mistakes_are_told_with_their_places(made: Parts, api: Api) -> None:
    """Every limit that cannot be is named by its place, in one answer."""
    told = rehearse(api, limit(), limit(window="fortnight"), limit(amount="lots"), limit(), status=422)
    assert [(each["field"], each["code"]) for each in told["errors"]] == [
        ("limits.1.window", "field_enum"), ("limits.2.amount", "field_range"), ("limits.3", "field_conflict"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"limits": []}, "from", "field_missing"),
        ({"from": "yesterday", "limits": []}, "from", "field_range"),
        ({"from": "2026-11-22", "limits": []}, "from", "field_range"),
        ({"from": "2026-11-21", "to": "2026-11-20", "limits": []}, "from", "field_range"),
        ({"from": "2026-11-21", "limits": [], "days": 3}, "days", "field_unknown"),
        ({"from": "2026-11-21", "limits": [{"unit": "usd"}]}, "limits.0.amount", "field_missing"),
        ({"from": "2026-11-21", "limits": {}}, "limits", "field_type"),
        ({"from": "2026-11-21", "limits": [], "keep": "yes"}, "keep", "field_type"),
    ],
)
def test_a_question_that_cannot_be_names_the_field(api: Api, body: dict[str, Any], field: str, code: str) -> None:
    """Wrong times, fields and types are refused by name."""
    told = api.post("/api/v1/rehearse", body, status=422)
    assert (told["errors"][0]["field"], told["errors"][0]["code"]) == (field, code)


def test_a_period_without_requests(made: Parts, api: Api) -> None:
    """Nobody asked, so nobody is refused."""
    told = rehearse(api, limit(), since="2026-01-01", to="2026-02-01")
    assert (told["requests"], told["refused"], told["saved"], told["limits"][0]["refused"]) == (0, 0, "0", 0)


# -- cheaper models ----------------------------------------------------------------------------------------------------

CONFIG = b"""\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${KEY}"}
pricing:
  overrides:
    - {provider: openai, model: large, unit: input_tokens, per: 1000000, price: "10"}
    - {provider: openai, model: large, unit: output_tokens, per: 1000000, price: "20"}
    - {provider: openai, model: small, unit: input_tokens, per: 1000000, price: "1"}
    - {provider: openai, model: small, unit: output_tokens, per: 1000000, price: "2"}
"""


@pytest.fixture
def priced(tmp_path: Path) -> Iterator[Parts]:
    config = load_text(CONFIG, "faregate.yaml", {"KEY": "sk-of-a-provider"}, tmp_path).config
    with parts(tmp_path, config=config) as each:
        yield each


def test_a_downgrade_saves_what_the_cheaper_model_costs_less(priced: Parts) -> None:
    """At the prices of today; a model without a price is only counted."""
    catalogue = compiled(priced.console)
    priced.books.keep_rate_cards(card_rows(catalogue))
    (large,) = [each for each in catalogue.deployments if each.model == "large"]
    version = next(card.version for card in large.cards if not card.service_tier)
    priced.journal.add(opened())
    who = WHO._replace(model="large", deployment="openai/large")
    for n in range(4):
        # 300 input tokens at 10 and 100 output tokens at 20 dollars a million: 0.005 dollars.
        priced.journal.add(
            *settled_call(f"req_{n}", who=who, at=NOON - (4 - n) * HOUR, cost=5_000_000, version=version)
        )
    priced.project()
    api = Api(priced.app, priced.admin_key())

    def found(model: str) -> Any:
        action = {"do": "downgrade", "at": 50, "to": model}
        return rehearse(api, limit(amount="0.01", actions=[action]))

    told = found("small")["limits"][0]
    assert (told["downgraded"], told["downgraded_saved"], told["downgraded_unpriced"]) == (3, "0.0135", 0)
    assert found("small")["saved"] == "0.0135"
    told = found("unheard-of")["limits"][0]
    assert (told["downgraded"], told["downgraded_saved"], told["downgraded_unpriced"]) == (1, "0", 1)


# -- long ones ---------------------------------------------------------------------------------------------------------


def slow(release: Event) -> Any:
    """A work that goes on until it is released or stopped."""

    def work(run: Run) -> dict[str, Any]:
        while not release.wait(0.01):
            run.step(requests=7, until="2026-11-21T07:00:00Z")
        return {"refused": 3}

    return work


def test_a_long_rehearsal_is_looked_at_until_it_is_done(made: Parts, api: Api) -> None:
    """It says how far it is with 202, and then the result with 200."""
    release = Event()
    made.console.runs.begin("rhs_1", KIND, slow(release))
    told = api.get("/api/v1/rehearse/rhs_1", status=202)
    assert told == {"id": "rhs_1", "state": "running", "progress": {"requests": 7, "until": "2026-11-21T07:00:00Z"}}
    release.set()
    assert api.get("/api/v1/rehearse/rhs_1") == {"id": "rhs_1", "state": "done", "refused": 3}


def test_a_rehearsal_is_stopped(made: Parts, api: Api) -> None:
    """A stopped one says so, and makes room for another."""
    release = Event()
    for n in range(RUNNING_MAX):
        made.console.runs.begin(f"rhs_{n}", KIND, slow(release))
    assert rehearse(api, status=409)["code"] == "conflict"
    assert api.send("DELETE", "/api/v1/rehearse/rhs_0") == {"id": "rhs_0", "state": "stopped"}
    assert rehearse(api)["state"] == "done"
    release.set()


def test_a_rehearsal_that_is_not_there(api: Api) -> None:
    """An id that nobody knows is not found, whatever is asked of it."""
    assert api.get("/api/v1/rehearse/rhs_9", status=404)["code"] == "not_found"
    assert api.send("DELETE", "/api/v1/rehearse/rhs_9", status=404)["code"] == "not_found"


def test_a_failure_is_told_to_whoever_asks(made: Parts, api: Api) -> None:
    """What ends a rehearsal is the answer to its question."""

    def fails(run: Run) -> dict[str, Any]:
        raise Failed("there are more than 10 requests", hint="ask for a shorter time")

    made.console.runs.begin("rhs_1", KIND, fails)
    told = api.get("/api/v1/rehearse/rhs_1", status=422)
    assert (told["code"], "shorter" in told["detail"]) == ("failed", True)


def test_works_that_have_ended_are_forgotten_oldest_first(made: Parts) -> None:
    """Memory holds a few results, and those that run."""
    runs = Runs(made.clock)
    for n in range(KEPT_MAX + 2):
        assert runs.begin(f"run_{n}", "test", lambda run: {}).ended.wait(5)
    assert (runs.find("run_0", "test"), runs.find("run_1", "test")) == (None, None)
    assert runs.find("run_2", "test") is not None
    assert runs.find("run_2", "other") is None


def test_a_work_that_takes_too_long_ends(made: Parts) -> None:
    """Its next step after the deadline fails."""
    runs, go, stepped = Runs(made.clock), Event(), Event()

    def work(run: Run) -> dict[str, Any]:
        run.step()
        stepped.set()
        go.wait(5)
        run.step()
        return {}

    run = runs.begin("run_1", "test", work)
    assert stepped.wait(5)
    made.clock.now += DAY
    go.set()
    assert run.ended.wait(5)
    assert isinstance(run.failure, Failed)


def test_too_many_at_once_are_refused(made: Parts) -> None:
    """The one that is in the way is named."""
    runs, release = Runs(made.clock), Event()
    for n in range(RUNNING_MAX):
        runs.begin(f"run_{n}", "test", slow(release))
    with pytest.raises(Conflict) as refused:
        runs.begin("run_9", "test", slow(release))
    assert "run_0" in refused.value.hint
    release.set()
