"""Pools, and names that lead to them, in a state file: what `export` writes, `diff` tells and `apply` brings about."""

from pathlib import Path

from cli.test_apply import apply, diff
from commands import command

POOLS = """\
providers:
  - {name: house, kind: openai, base_url: "http://127.0.0.1:9/v1", allow_http: true}
deployments:
  - {name: east, provider: house, model: gpt-4o}
  - {name: west, provider: house, model: gpt-4o}
pools:
  - name: main
    strategy: weighted
    use: [{deployment: east, weight: 2}, {deployment: west, weight: 1, params: '{"note": "$${HOME} is $5"}'}]
    priority: [{from: 0, to: 100, use: [west], only: [{product: premium}]}]
    sticky: user
    breaker: {failures: 5, trip: 2s, statuses: [429, 500-599]}
    retry: {count: 2, interval: 1s}
models:
  - {name: chat, to: [main], instead: [{select: {product: premium, stage: prod}, to: [west, main]}]}
"""


def test_an_export_changes_nothing_where_it_comes_from_and_makes_the_same_elsewhere(tmp_path: Path) -> None:
    """Also what has to be escaped; the file itself is in force, too."""
    one, two = tmp_path / "one", tmp_path / "two"
    for each in (one, two):
        each.mkdir()
    assert apply(one, POOLS).code == 0
    text = command("export", "--data", one / "data").out

    assert diff(one, POOLS).code == diff(one, text).code == 0
    assert apply(two, text).code == 0
    assert command("export", "--data", two / "data").out == text
    shown = command("pool", "show", "main", "--data", two / "data", "--json").json
    assert shown["use"][1]["params"] == '{"note": "${HOME} is $5"}'
    assert (shown["sticky"], shown["breaker"]["trip"], shown["retry"]["count"]) == ("user", "2000ms", 2)


def test_what_means_the_same_is_no_difference(tmp_path: Path) -> None:
    """Units of time, names for short, and what is as usual anyway."""
    apply(tmp_path, POOLS)
    same = (
        POOLS.replace("trip: 2s", "trip: 2000ms, percent: 50")
        .replace("{deployment: west, weight: 1,", "{deployment: west, group: 1,")
        .replace("sticky: user", "sticky: user\n    beyond: clamp")
    )

    assert diff(tmp_path, same).code == 0


def test_a_pool_changes_and_goes(tmp_path: Path) -> None:
    """A field that leaves the file is as usual again; what led to it goes before it, and its places after."""
    apply(tmp_path, POOLS)
    less = POOLS.replace("    breaker: {failures: 5, trip: 2s, statuses: [429, 500-599]}\n", "").replace(
        ", instead: [{select: {product: premium, stage: prod}, to: [west, main]}]", ""
    )
    changed = apply(tmp_path, less, "--json").json["done"]
    again = apply(tmp_path, less, "--json").json["done"]
    shown = command("pool", "show", "main", "--data", tmp_path / "data", "--json").json
    gone = apply(tmp_path, "pools: []\nmodels: []\ndeployments: []\n", "--prune", "--json").json["done"]

    assert [(step["kind"], [each["field"] for each in step["changes"]]) for step in changed] == [
        ("pool", ["breaker"]),
        ("model", ["instead"]),
    ]
    assert again == []
    assert (shown["breaker"], shown["retry"]["count"]) == (None, 2)
    assert [(step["action"], step["kind"]) for step in gone] == [
        ("delete", kind) for kind in ("model", "pool", "deployment", "deployment")
    ]


def test_a_breaker_with_nothing_special_stays_one(tmp_path: Path) -> None:
    """It goes before the one for all, so that it is not the same as none."""
    apply(tmp_path, POOLS)
    usual = POOLS.replace("{failures: 5, trip: 2s, statuses: [429, 500-599]}", "{failures: 5}")

    assert diff(tmp_path, usual).code == 1
    apply(tmp_path, usual)
    text = command("export", "--data", tmp_path / "data").out
    assert "breaker: {enabled: true}" in text
    assert diff(tmp_path, text).code == 0


def test_what_no_pool_can_be_is_told_at_its_line(tmp_path: Path) -> None:
    """What only an installation knows is told when it is asked."""
    told = diff(tmp_path, POOLS.replace("trip: 2s", "trip: soon"))
    assert (told.code, "pools[0].breaker.trip" in told.err) == (2, True)
    refused = apply(tmp_path, POOLS.replace("deployment: west, weight", "deployment: wset, weight"))
    assert (refused.code, "did you mean west?" in refused.err) == (2, True)
