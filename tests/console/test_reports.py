"""``/api/v1/reports/cache``: what the response cache saved, and what providers' own caches of prompts saved."""

import csv
import io
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import DAY, NOON, WHO, Api, Parts, opened, parts, recalled_call, settled_call
from faregate.console.compile import card_rows
from faregate.console.doors import trusted
from faregate.console.keys import NewKey, create
from faregate.console.reports import cache_sums, ratio_text
from faregate.control import Catalogue, Deployment
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Event
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.usage import Measure, Usage

#: Dollars per million: plain 3, read again 0.30, written 3.75, written for an hour 6.
RATES = (
    Rate("input_tokens", 3 * 10**12, 10**6),
    Rate("cached_input_tokens", 3 * 10**11, 10**6),
    Rate("cache_write_tokens", 375 * 10**10, 10**6),
    Rate("cache_write_1h_tokens", 6 * 10**12, 10**6),
    Rate("output_tokens", 15 * 10**12, 10**6),
)
PLAIN = RateCard("openai", "gpt-4o", "v-plain", (Tier(0, RATES),))
TIERED = RateCard(
    "openai", "gpt-4o", "v-tiers", (Tier(0, RATES), Tier(200_000, (Rate("input_tokens", 6 * 10**12, 10**6),)))
)

OPS = WHO._replace(team="ops", project="pager", tags=())


def call(id: str, usage: Usage, *, version: str = "v-plain", who: Attribution = WHO, **changed: Any) -> list[Event]:
    """A call that used ``usage``."""
    intent, end = settled_call(id, version=version, who=who)
    return [intent, end._replace(usage=usage, **changed)]  # type: ignore[call-arg]


def fill(made: Parts) -> None:
    """Hits and misses of two teams, and calls whose prompts were in the caches of their provider."""
    deployments = (Deployment("d", "openai", "m", "m", (PLAIN, TIERED)),)
    made.books.keep_rate_cards(card_rows(Catalogue(deployments=deployments)))
    hour = (Measure("cache_write_1h_tokens", "", 1_000),)
    made.journal.add(
        opened(),
        *call("req_1", Usage(input_text=300, output_text=100), cache="miss"),
        recalled_call("req_2", saved=1_750_000, charge=437_500),
        recalled_call("req_3", saved=2_000_000),
        recalled_call("req_4", saved=5, who=OPS),
        *call("req_5", Usage(input_text=10, input_cached=1_000_000)),
        *call("req_6", Usage(input_text=10, input_cache_write=1_000_000), who=OPS),
        *call("req_7", Usage(input_text=10, input_cached=100, other=hour), who=OPS),
        *call("req_8", Usage(input_text=10, input_cached=100, other=hour), who=OPS),
        *call("req_9", Usage(input_cached=200_000), version="v-tiers"),
        *call("req_a", Usage(input_text=1, input_cached=200_000), version="v-tiers"),
        *call("req_b", Usage(input_cached=50), version="v-lost"),
        recalled_call("req_c", at=NOON - 40 * DAY),
    )
    made.project()


def test_each_cache_is_told_apart(made: Parts, api: Api) -> None:
    """One row for each value: hits and what they saved, and beside them what providers' caches saved, losses too."""
    fill(made)
    told = api.get("/api/v1/reports/cache?by=team")
    assert told["since"] == "2026-11-01T00:00:00Z"
    # A million at 2.70 less, 200,000 at as much less, and in a longer call, where plain input costs 6, at 5.70 less.
    research = Fraction("2.7") + Fraction("0.54") + Fraction("1.14")
    # A million at 0.75 more, and twice a hundred at 2.70 less and a thousand at 3 more.
    ops = -Fraction("0.75") + 2 * (Fraction("0.00027") - Fraction("0.003"))
    assert told["data"] == [
        {
            "team": "ops",
            "cache_hits": 1,
            "cache_misses": 0,
            "hit_ratio": "1.0000",
            "saved_cost": "0.000000005",
            "hit_charge": "0",
            "provider_cached_tokens": 200,
            "provider_written_tokens": 1_002_000,
            "provider_saved_cost": "-0.75546",
        },
        {
            "team": "research",
            "cache_hits": 2,
            "cache_misses": 1,
            "hit_ratio": "0.6667",
            "saved_cost": "0.00375",
            "hit_charge": "0.0004375",
            "provider_cached_tokens": 1_400_050,
            "provider_written_tokens": 0,
            "provider_saved_cost": "4.38",
        },
    ]
    assert (research, ops) == (Fraction("4.38"), Fraction("-0.75546"))
    total = told["total"]
    assert (total["cache_hits"], total["hit_ratio"], total["provider_saved_cost"]) == (3, "0.7500", "3.62454")


@pytest.mark.parametrize(
    ("since", "until", "hits"),
    [
        (0, 0, 4),
        (NOON - DAY, 0, 3),
        (NOON, NOON + 1, 3),
        (NOON - 1, NOON + 7, 3),
        (NOON + 1, 0, 0),
        (NOON - 41 * DAY, NOON, 1),
        (NOON - 40 * DAY + 1, NOON, 0),
    ],
)
def test_a_day_of_many_calls_is_gone_through_hour_by_hour(made: Parts, since: int, until: int, hits: int) -> None:
    """The sums are the same, also where the time begins and ends within an hour."""
    fill(made)
    by = ("team", "tag.env")
    days = cache_sums(made.console, by, since, until, {})
    hours = cache_sums(made.console, by, since, until, {}, together_max=0)
    assert {values: sums.shape() for values, sums in days.items()} == {
        values: sums.shape() for values, sums in hours.items()
    }
    assert sum(sums.hits for sums in days.values()) == hits


def test_without_dimensions_there_is_one_row(made: Parts, api: Api) -> None:
    """It is the total; where nothing used a cache there is none."""
    fill(made)
    told = api.get("/api/v1/reports/cache?since=2026-11-01&until=2026-11-22&team=research")
    assert told["data"] == [told["total"]]
    always = api.get("/api/v1/reports/cache?since=0001-01-01&until=9999-12-31")
    assert always["total"]["cache_hits"] == 4
    nothing = api.get("/api/v1/reports/cache?since=2026-11-22&until=2026-11-23")
    assert (nothing["data"], nothing["total"]["hit_ratio"], nothing["total"]["saved_cost"]) == ([], None, "0")
    earlier = api.get("/api/v1/reports/cache?since=2026-10-01&until=2026-11-01&by=project")
    assert [(row["project"], row["cache_hits"]) for row in earlier["data"]] == [("search", 1)]


def test_keys_and_subscriptions_have_their_names(made: Parts, api: Api) -> None:
    """By key with its name, by tag and operation; calls of keys without a subscription stand under none."""
    key, _ = create(made.console, NewKey(name="ci"))
    made.journal.add(opened(), recalled_call("req_1", who=WHO._replace(key=key["id"])), recalled_call("req_2"))
    made.project()
    rows = api.get("/api/v1/reports/cache?by=key")["data"]
    assert {(row["key"], row["key_name"]) for row in rows} == {(key["id"], "ci"), ("key_1", None)}
    (row,) = api.get("/api/v1/reports/cache?by=subscription,tag.env,operation")["data"]
    told = ("subscription", "subscription_name", "tag.env", "operation", "cache_hits")
    assert [row[name] for name in told] == [None, None, "ci", "chat.completions", 2]


def test_a_key_of_a_team_sees_the_team_s_caches_alone(made: Parts) -> None:
    """Its report holds no word and no figure of others, however it is asked for."""
    fill(made)
    _, secret = create(made.console, NewKey(name="reads", role="manager", team="ops"))
    api = Api(made.app, secret)
    (row,) = api.get("/api/v1/reports/cache?by=team")["data"]
    assert (row["team"], row["cache_hits"], row["provider_cached_tokens"]) == ("ops", 1, 200)
    assert api.get("/api/v1/reports/cache")["total"]["saved_cost"] == "0.000000005"
    assert api.get("/api/v1/reports/cache?team=research")["data"] == []


@pytest.mark.parametrize(
    "query", ["by=colour", "by=team,team", "since=yesterday", "since=2026-11-21&until=2026-11-20", "from=2026-11-20"]
)
def test_what_cannot_be_asked_is_refused(api: Api, query: str) -> None:
    """It is named, as with usage."""
    assert api.get(f"/api/v1/reports/cache?{query}", 400)["code"] == "filter_invalid"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 0, None), (0, 7, "0.0000"), (7, 7, "1.0000"), (1, 3, "0.3333"), (2, 3, "0.6667"), (1, 20_000, "0.0000")],
)
def test_a_ratio_has_four_decimals(part: int, whole: int, text: str | None) -> None:
    """Rounded half to even; of nothing there is none."""
    assert ratio_text(part, whole) == text


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def report(made: Parts, *words: str) -> Any:
    return command("report", "cache", *words, "--data", made.folder / "data")


def test_the_command_prints_a_table_csv_or_json(running: Parts) -> None:
    """The same figures; names first, and JSON as the API answers."""
    fill(running)
    asked = ("--by", "team", "--since", "2026-11-01", "--until", "2026-12-01")
    table = report(running, *asked).out.splitlines()
    assert table[0].split()[:4] == ["team", "cache_hits", "cache_misses", "hit_ratio"]
    assert table[1].split()[:4] == ["ops", "1", "0", "1.0000"]
    rows = list(csv.reader(io.StringIO(report(running, *asked, "--format", "csv").out)))
    assert rows[0] == [*table[0].split()]
    assert rows[2] == ["research", "2", "1", "0.6667", "0.00375", "0.0004375", "1400050", "0", "4.38"]
    told = json.loads(report(running, *asked, "--format", "json").out)
    assert [row["team"] for row in told["data"]] == ["ops", "research"]
    assert told == report(running, *asked, "--json").json
    assert report(running, "--select", "team=ops").out.splitlines()[1].split()[0] == "1"


def test_a_name_is_no_formula_in_a_sheet(running: Parts) -> None:
    """Callers choose some names, so one that a sheet would compute gets an apostrophe; commas and quotes are quoted."""
    names = ("=1+1", '@a,"b"', "plain")
    calls = [recalled_call(f"req_{n}", who=WHO._replace(end_user=name)) for n, name in enumerate(names)]
    running.journal.add(opened(), *calls)
    running.project()
    told = report(running, "--by", "end_user", "--format", "csv", "--since", "2026-11-01").out
    assert [row[0] for row in csv.reader(io.StringIO(told))] == ["end_user", "'=1+1", '\'@a,"b"', "plain"]


def test_a_format_that_there_is_not_is_refused(running: Parts) -> None:
    """Exit 2, with those that there are."""
    told = report(running, "--format", "xml")
    assert told.code == 2
    assert "table, csv, json" in told.err
