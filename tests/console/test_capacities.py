"""``/api/v1/capacities``: fixed commitments by the API and by the file, split by use, with planning figures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console_parts import DAY, HOUR, NOON, WHO, Api, Parts, opened, parts, settled_call
from faregate.config.load import load_text
from faregate.core.ledger.events import Settled
from faregate.core.usage import Usage

CONFIG = b"""\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${KEY}"}
capacities:
  - name: declared
    provider: openai
    commitment: "1000"
    tokens_per_second: 10
    timezone: Europe/Berlin
    idle: operator
"""

PTU: dict[str, Any] = {
    "name": "ptu", "provider": "openai", "deployments": ["openai/gpt-4o"], "commitment": "1000.01",
    "tokens_per_second": 1,
}  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Parts]:
    config = load_text(CONFIG, "faregate.yaml", {"KEY": "sk-of-a-provider"}, tmp_path).config
    with parts(tmp_path, config=config) as each:
        yield each


@pytest.fixture
def api(made: Parts) -> Api:
    return Api(made.app, made.admin_key())


def use(made: Parts, *tokens: tuple[str, int], at: int = NOON - 5 * DAY) -> None:
    """One call for each team and number of tokens, at a dollar a million."""
    made.journal.add(opened())
    for number, (team, count) in enumerate(tokens):
        who = WHO._replace(team=team)
        intent, end = settled_call(f"req_{at}_{number}", who=who, at=at, cost=count * 1_000)
        assert isinstance(end, Settled)
        made.journal.add(intent, end._replace(usage=Usage(input_text=count)))
    made.project()


def nanos(dollars: str) -> int:
    whole, _, part = dollars.partition(".")
    return int(whole) * 10**9 + int(part.ljust(9, "0"))


def test_a_capacity_is_set_changed_and_removed(api: Api) -> None:
    """The same name is the same one; setting it as it is changes nothing, not even the trail."""
    first = api.send("PUT", "/api/v1/capacities", PTU)
    before = len(api.get("/api/v1/audit")["data"])
    assert api.send("PUT", "/api/v1/capacities", PTU) == first
    assert len(api.get("/api/v1/audit")["data"]) == before
    assert api.send("PUT", "/api/v1/capacities", {**PTU, "idle": "spread"})["id"] == first["id"]
    assert [row["name"] for row in api.get("/api/v1/capacities")["data"]] == ["declared", "ptu"]
    api.send("DELETE", "/api/v1/capacities/ptu")
    assert api.get("/api/v1/capacities/ptu", 404)["code"] == "not_found"


def test_what_the_file_declares_is_owned_by_it(api: Api) -> None:
    """It is used like any other, and changed where it stands."""
    row = api.get("/api/v1/capacities/declared")
    assert (row["source"], row["commitment"], row["timezone"]) == ("file", "1000", "Europe/Berlin")
    assert api.send("PUT", "/api/v1/capacities", {**PTU, "name": "declared"}, status=409)["code"] == "conflict"
    assert api.send("DELETE", "/api/v1/capacities/declared", status=409)["code"] == "conflict"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"commitment": "-1"}, "commitment"),
        ({"commitment": 5}, "commitment"),
        ({"timezone": "Mars/Phobos"}, "timezone"),
        ({"split": "heads"}, "split"),
        ({"idle": "hide"}, "idle"),
        ({"tokens_per_second": -1}, "tokens_per_second"),
        ({"name": ""}, "name"),
        ({"colour": "red"}, "colour"),
        ({"provider": "opnai"}, "provider"),
        ({"deployments": ["weu-4o"]}, "deployments"),
        ({"name": "a/b"}, "name"),
        ({"name": ".."}, "name"),
    ],
)
def test_a_capacity_that_cannot_be_is_refused(api: Api, change: dict[str, Any], field: str) -> None:
    """And nothing is stored."""
    problem = api.send("PUT", "/api/v1/capacities", {**PTU, **change}, status=422)
    assert problem["errors"][0]["field"] == field
    assert len(api.get("/api/v1/capacities")["data"]) == 1


def test_shares_of_a_month_add_up_to_the_commitment(made: Parts, api: Api) -> None:
    """A whole month in the past: 2,592,000 tokens could be served, half of that was used by three teams."""
    api.send("PUT", "/api/v1/capacities", PTU)
    use(made, ("a", 432_000), ("b", 432_000), ("c", 432_000))
    made.clock.now += 30 * DAY
    told = api.get("/api/v1/capacities/ptu/split?month=2026-11")
    shares = [nanos(row["share"]) for row in told["data"]]
    assert (told["complete"], told["commitment"], told["capacity_tokens"]) == (True, "1000.01", 2_592_000)
    assert sum(shares) + nanos(told["idle"]) + nanos(told["operator"]) == nanos("1000.01")
    assert shares == [166_668_333_334, 166_668_333_333, 166_668_333_333]
    assert (told["idle"], told["operator"]) == ("500.005", "0")


def test_a_month_that_runs_is_split_as_far_as_it_has_passed(made: Parts, api: Api) -> None:
    """At noon of the 21st 20.5 of 30 days have passed."""
    api.send("PUT", "/api/v1/capacities", {**PTU, "commitment": "30", "idle": "spread", "split": "cost"})
    use(made, ("a", 300), ("b", 100))
    told = api.get("/api/v1/capacities/ptu/split?by=team,model")
    assert (told["complete"], told["commitment"]) == (False, "20.5")
    assert [(row["team"], row["model"], row["share"]) for row in told["data"]] == [
        ("a", "gpt-4o", "15.375"),
        ("b", "gpt-4o", "5.125"),
    ]


def test_months_are_those_of_its_time_zone(made: Parts, api: Api) -> None:
    """In Berlin November begins an hour before it does in Greenwich, and the idle part is the operator's."""
    told = api.get("/api/v1/capacities/declared/split?month=2026-11")
    assert told["from"] == "2026-10-31T23:00:00Z"
    assert told["operator"] == told["commitment"]


@pytest.mark.parametrize("query", ["month=2026-13", "month=november", "month=2027-01", "by=colour", "colour=red"])
def test_a_question_that_makes_no_sense_is_refused(api: Api, query: str) -> None:
    """A month that has not begun has no use yet."""
    assert api.get(f"/api/v1/capacities/declared/split?{query}", 400)["code"] == "filter_invalid"


def test_planning_figures_say_whether_it_pays(made: Parts, api: Api) -> None:
    """Two million tokens at a dollar a million beside a commitment of a dollar."""
    api.send("PUT", "/api/v1/capacities", {**PTU, "commitment": "1"})
    use(made, ("a", 450_000), ("b", 450_000))
    use(made, ("a", 1_100_000), at=NOON - 5 * DAY + HOUR)
    made.clock.now += 30 * DAY
    plan = api.get("/api/v1/capacities/ptu?month=2026-11")["plan"]
    assert (plan["used_tokens"], plan["capacity_tokens"], plan["utilisation_percent"]) == (2_000_000, 2_592_000, 77.16)
    assert plan["peak_tokens_per_second"] == 1_222.222
    assert (plan["pay_as_you_go"], plan["worth_it"], plan["break_even_tokens"]) == ("2", True, 1_000_000)
    assert plan["break_even_percent"] == 38.58
