"""Pools, breakers and retries in the configuration: what the gate goes by, and what is refused at which key."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from config.test_schema import faults, read
from faregate.assembly.declare import declared
from faregate.catalogue.compile import compile_catalogue
from faregate.config.findings import Finding, Invalid
from faregate.config.load import load_text, schema_json
from faregate.config.pools import breaker_rule, retry_rule
from faregate.config.schema import Config
from faregate.control import RoutedPool, Selection
from faregate.core.routing.choose import Member, PoolRule, Range
from faregate.core.routing.health import DEFAULT_BREAKER, REASONS, SECOND, BreakerRule
from faregate.core.routing.retry import FAILOVER, RetryRule

HEAD = """\
providers:
  - {name: openai, kind: openai, base_url: 'http://127.0.0.1:1/v1'}
  - {name: azure, kind: azure_openai, base_url: 'http://127.0.0.1:2', api_version: '2024-10-21'}
deployments:
  - {name: ptu, provider: azure, deployment: ptu-gpt-4o, model: gpt-4o}
  - {name: west, provider: azure, deployment: west-gpt-4o, model: gpt-4o}
  - {name: north, provider: azure, deployment: north-gpt-4o, model: gpt-4o}
"""
FULL = """\
breaker: {failures: 7, trip: 1m}
retry: {count: 2, interval: 500ms}
pools:
  - name: main
    strategy: weighted
    use:
      - {deployment: west, weight: 3}
      - north
      - {deployment: openai/gpt-4o, weight: 2, group: 2}
    priority:
      - use: [ptu]
      - use: [west, north]
      - {from: 900, use: [openai/gpt-4o]}
      - {from: 600, to: 650, use: [ptu, west]}
    sticky: user
    breaker:
      failures: 3
      percent: 50
      interval: 1m
      trip: 10s
      trip_max: 2m
      statuses: [429, 500-502]
      reasons: [connect, timeout, credential]
    retry:
      count: 5
      again: false
      interval: 1s
      delta: 2s
      max: 8s
      first_fast: true
      wait_max: 20s
      statuses: [408, 500-599]
      reasons: [connect, unsent, timeout]
  - {name: spare, use: [north]}
models:
  - name: gpt
    to: [main, openai/gpt-4o-mini]
    instead:
      - {select: {product: premium, stage: prod}, to: [ptu, main]}
      - {select: {key: team-a}, to: [spare]}
"""
NOWHERE = Path("/nowhere")


def config_of(lines: str) -> Config:
    return load_text((HEAD + lines).encode(), "faregate.yaml", {}, NOWHERE).config


def findings(lines: str) -> tuple[Finding, ...]:
    with pytest.raises(Invalid) as caught:
        config_of(lines)
    return caught.value.findings


def test_pools_reach_the_gate_as_they_are_written() -> None:
    """With their own rules, or those for all, and the usual ranges by place where an entry names none."""
    compiled = compile_catalogue(declared(config_of(FULL), NOWHERE, {}))
    main = PoolRule(
        "main",
        (Member("west", 3), Member("north"), Member("openai/gpt-4o", 2, 2)),
        "weighted",
        (
            Range(0, 100, ("ptu",)),
            Range(101, 500, ("west", "north")),
            Range(900, 1_000, ("openai/gpt-4o",)),
            Range(600, 650, ("ptu", "west")),
        ),
        "user",
    )
    breaker = BreakerRule(
        True,
        3,
        50,
        60 * SECOND,
        10 * SECOND,
        120 * SECOND,
        ((429, 429), (500, 502)),
        ("upstream_connect", "upstream_timeout", "credential_unavailable"),
    )
    retry = RetryRule(
        5,
        False,
        SECOND,
        2 * SECOND,
        8 * SECOND,
        True,
        20 * SECOND,
        ((408, 408), (500, 599)),
        ("upstream_connect", "upstream_unsent", "upstream_timeout"),
    )
    for_all = BreakerRule(failures=7, trip=60 * SECOND)
    assert compiled.problems == ()
    assert compiled.catalogue.pools == (
        RoutedPool(main, breaker, retry),
        RoutedPool(PoolRule("spare", (Member("north"),)), for_all),
    )
    assert compiled.catalogue.breaker == for_all
    assert compiled.catalogue.retry == RetryRule(2, True, SECOND // 2)


def test_models_lead_elsewhere_for_some_callers() -> None:
    """All that is selected by is kept by name, in the order of the file."""
    compiled = compile_catalogue(declared(config_of(FULL), NOWHERE, {}))
    (route,) = (each for each in compiled.catalogue.routes if each.model == "gpt")

    assert route.steps == ("main", "openai/gpt-4o-mini")
    assert route.selected == (
        Selection((("product", "premium"), ("stage", "prod")), ("ptu", "main")),
        Selection((("key", "team-a"),), ("spare",)),
    )


def test_nothing_said_is_the_usual_breaker_and_no_rule_of_retries() -> None:
    """What the gate goes by without a configuration is what the documents name as defaults."""
    config = config_of("")

    assert breaker_rule(config.breaker) == DEFAULT_BREAKER
    assert config.retry is None
    assert config.pools == ()
    assert all(model.instead == () for model in config.models)


def test_a_retry_that_says_only_how_often_has_the_usual_rest() -> None:
    """As fail-over has it, and once round again."""
    config = config_of("retry: {count: 3}\n")
    assert config.retry is not None

    assert retry_rule(config.retry) == FAILOVER._replace(tries=3, again=True)


@pytest.mark.parametrize(
    ("written", "ranges"),
    [
        ("[]", ()),
        ("[400, 599]", ((400, 400), (599, 599))),
        ("['429']", ((429, 429),)),
        ("[400-599]", ((400, 599),)),
        ("[500-500]", ((500, 500),)),
    ],
)
def test_statuses_are_single_ones_or_ranges(written: str, ranges: tuple[tuple[int, int], ...]) -> None:
    """Numbers or text, with both ends; none at all where only reasons count."""
    assert config_of(f"breaker: {{statuses: {written}}}\n").breaker.statuses == ranges


def test_every_reason_can_be_named() -> None:
    """By the word for it, and nothing of what the gate calls a failure is left out."""
    breaker = config_of("breaker: {reasons: [connect, timeout, truncated, protocol, credential]}\n").breaker

    assert breaker_rule(breaker).reasons == REASONS


def test_another_process_reads_the_same_configuration() -> None:
    """It is handed over as JSON, ranges of statuses and of priorities with it."""
    config = config_of(FULL)

    assert Config.model_validate_json(config.model_dump_json()) == config


def test_an_editor_marks_nothing_red_in_pools() -> None:
    """Deployments by name alone and statuses as ranges fit the schema; what is refused does not."""
    schema: dict[str, Any] = schema_json()

    assert faults(read(HEAD + FULL), schema, schema) == []
    for wrong in ("use: [5]", "use: [{deployment: a, wieght: 2}]", "use: [a], breaker: {statuses: [5xx]}"):
        assert faults(read(HEAD + f"pools: [{{name: p, {wrong}}}]\n"), schema, schema) != []


class Row(NamedTuple):
    """A line that is refused: the code, the key, and what the message says."""

    line: str
    code: str
    key: str
    says: str


def of_pool(rest: str, code: str, key: str, says: str) -> Row:
    return Row(f"pools: [{{name: p, {rest}}}]", code, f"pools[0].{key}", says)


def of_ranges(entries: str, code: str, key: str, says: str) -> Row:
    return of_pool(f"use: [west], priority: [{entries}]", code, f"priority{key}", says)


def of_instead(entry: str, code: str, key: str, says: str) -> Row:
    return Row(f"models: [{{name: m, to: [west], instead: [{entry}]}}]", code, f"models[0].instead[0]{key}", says)


POOLS = [
    of_pool("use: [wets]", "CFG-REF", "use[0]", "did you mean west?"),
    of_pool("use: [west, {deployment: east, weight: 2}]", "CFG-REF", "use[1]", "no deployment is called east"),
    of_pool("use: [p]", "CFG-REF", "use[0]", "no deployment is called p"),
    of_pool("use: [opnai/gpt-4o]", "CFG-REF", "use[0]", "did you mean openai?"),
    of_pool("use: [azure/gpt-4o]", "CFG-REF", "use[0]", "azure has no models by name"),
    of_pool("use: [west, north, west]", "CFG-CONFLICT", "use[2]", "west is in it already"),
    of_pool("use: [openai/m, {deployment: openai/m}]", "CFG-CONFLICT", "use[1]", "openai/m is in it already"),
    of_pool("use: []", "CFG-MISSING", "use", "at least one"),
    of_pool("use: [~]", "CFG-MISSING", "use[0]", "has no value"),
    of_pool("use: [5]", "CFG-TYPE", "use[0]", "a mapping of keys"),
    of_pool("use: [{weight: 2}]", "CFG-MISSING", "use[0].deployment", "is missing"),
    of_pool("use: [{deployment: west, weight: 0}]", "CFG-RANGE", "use[0].weight", "at least 1"),
    of_pool("use: [{deployment: west, weight: 101}]", "CFG-RANGE", "use[0].weight", "at most 100"),
    of_pool("use: [{deployment: west, group: 0}]", "CFG-RANGE", "use[0].group", "at least 1"),
    of_pool("use: [{deployment: west, group: 65}]", "CFG-RANGE", "use[0].group", "at most 64"),
    of_pool("use: [{deployment: west, wieght: 2}]", "CFG-UNKNOWN", "use[0].wieght", "did you mean weight?"),
    of_pool("use: [west], strategy: fastest", "CFG-RANGE", "strategy", "least_busy"),
    of_pool("use: [west], sticky: session", "CFG-RANGE", "sticky", "key, user or run"),
    Row("pools: [{use: [west]}]", "CFG-MISSING", "pools[0].name", "is missing"),
    Row("pools: [{name: a/b, use: [west]}]", "CFG-RANGE", "pools[0].name", "not a name"),
    Row("pools: [{name: west, use: [north]}]", "CFG-CONFLICT", "pools[0].name", "name of a deployment already"),
    Row(
        "pools: [{name: m, use: [north]}]\nmodels: [{name: m, to: [west]}]",
        "CFG-CONFLICT",
        "pools[0].name",
        "name of a model already",
    ),
    Row("pools: [{name: p, use: [west]}, {name: p, use: [north]}]", "CFG-CONFLICT", "pools[1].name", "p"),
]
RANGES = [
    of_ranges("{use: [east]}", "CFG-REF", "[0].use[0]", "no deployment is called east"),
    of_ranges("{use: []}", "CFG-MISSING", "[0].use", "at least one"),
    of_ranges("{from: 0, to: 101, use: [west]}, {use: [ptu]}", "CFG-CONFLICT", "[1]", "101 is in two ranges"),
    of_ranges("{from: 7, to: 7, use: [west]}, {from: 0, to: 7, use: [ptu]}", "CFG-CONFLICT", "[0]", "7 is in two"),
    of_ranges("{from: 0, to: 1000, use: [west]}, {from: 3, to: 4, use: [ptu]}", "CFG-CONFLICT", "[1]", "3 is in two"),
    of_ranges("{from: 9, to: 8, use: [west]}", "CFG-CONFLICT", "[0].from", "9 is more than 8"),
    of_ranges("{from: 101, use: [west]}", "CFG-CONFLICT", "[0].from", "101 is more than 100"),
    of_ranges("{to: 1001, use: [west]}", "CFG-RANGE", "[0].to", "at most 1000"),
    of_ranges("{from: -1, use: [west]}", "CFG-RANGE", "[0].from", "at least 0"),
    of_ranges("{low: 1, use: [west]}", "CFG-UNKNOWN", "[0].low", "no setting has this name"),
    of_ranges("{use: [west]}, " * 3 + "{use: [ptu]}", "CFG-MISSING", "[3]", "has no from or no to"),
    of_ranges("{use: [west]}, " * 3 + "{from: 5, use: [ptu]}", "CFG-MISSING", "[3]", "has no from or no to"),
]
INSTEAD = [
    of_instead("{select: {}, to: [north]}", "CFG-MISSING", ".select", "names nobody"),
    of_instead("{to: [north]}", "CFG-MISSING", ".select", "is missing"),
    of_instead("{select: {user: u}}", "CFG-MISSING", ".to", "is missing"),
    of_instead("{select: {user: u}, to: []}", "CFG-MISSING", ".to", "at least one"),
    of_instead("{select: {user: u}, to: [ptu, east]}", "CFG-REF", ".to[1]", "no deployment or pool is called east"),
    of_instead("{select: {user: u}, to: [m]}", "CFG-REF", ".to[0]", "no deployment or pool is called m"),
    of_instead("{select: {user: u}, to: [azure/m]}", "CFG-REF", ".to[0]", "azure has no models by name"),
    of_instead("{select: {usr: u}, to: [ptu]}", "CFG-UNKNOWN", ".select.usr", "did you mean user?"),
    Row("models: [{name: m, to: [mian]}]", "CFG-REF", "models[0].to[0]", "no deployment, pool or model is called mian"),
]
RULES = [
    Row("breaker: {statuses: [200]}", "CFG-RANGE", "breaker.statuses[0]", "400 to 599"),
    Row("breaker: {statuses: [429, 399-500]}", "CFG-RANGE", "breaker.statuses[1]", "400 to 599"),
    Row("breaker: {statuses: [500-600]}", "CFG-RANGE", "breaker.statuses[0]", "400 to 599"),
    Row("breaker: {statuses: [502-500]}", "CFG-RANGE", "breaker.statuses[0]", "400 to 599"),
    Row("breaker: {statuses: [5xx]}", "CFG-RANGE", "breaker.statuses[0]", "such as 429 or 500-599"),
    Row("breaker: {statuses: [500-]}", "CFG-RANGE", "breaker.statuses[0]", "such as 429 or 500-599"),
    Row("breaker: {statuses: [٤٢٩]}", "CFG-RANGE", "breaker.statuses[0]", "such as 429 or 500-599"),
    Row("breaker: {statuses: ['" + "4" * 5_000 + "']}", "CFG-RANGE", "breaker.statuses[0]", "such as 429"),
    Row("breaker: {statuses: [[200, 300]]}", "CFG-TYPE", "breaker.statuses[0]", "such as 429 or 500-599"),
    Row("breaker: {statuses: [true]}", "CFG-TYPE", "breaker.statuses[0]", "such as 429 or 500-599"),
    Row("breaker: {statuses: [~]}", "CFG-MISSING", "breaker.statuses[0]", "has no value"),
    Row("breaker: {statuses: 429}", "CFG-TYPE", "breaker.statuses", "a list"),
    Row("breaker: {reasons: [tls]}", "CFG-RANGE", "breaker.reasons[0]", "truncated"),
    Row("breaker: {reasons: [unsent]}", "CFG-RANGE", "breaker.reasons[0]", "truncated"),
    Row("breaker: {failures: 0}", "CFG-RANGE", "breaker.failures", "at least 1"),
    Row("breaker: {percent: 101}", "CFG-RANGE", "breaker.percent", "at most 100"),
    Row("breaker: {trip: 20}", "CFG-TYPE", "breaker.trip", "a number with ms, s, m, h or d"),
    Row("breaker: {trip: 999ms}", "CFG-RANGE", "breaker.trip", "at least 1000"),
    Row("breaker: {enabled: 1}", "CFG-TYPE", "breaker.enabled", "true or false"),
    Row("retry: {count: 1000}", "CFG-RANGE", "retry.count", "at most 5"),
    Row("retry: {count: -1}", "CFG-RANGE", "retry.count", "at least 0"),
    Row("retry: {again: true}", "CFG-MISSING", "retry.count", "is missing"),
    Row("retry: {count: 1, max: 61s}", "CFG-RANGE", "retry.max", "at most 60000"),
    Row("retry: {count: 1, reasons: [slow]}", "CFG-RANGE", "retry.reasons[0]", "unsent"),
    Row("retry: {count: 1, statuses: [302]}", "CFG-RANGE", "retry.statuses[0]", "400 to 599"),
    Row("pools: [{name: p, use: [west], retry: {}}]", "CFG-MISSING", "pools[0].retry.count", "is missing"),
    Row("pools: [{name: p, use: [west], breaker: {trip: x}}]", "CFG-TYPE", "pools[0].breaker.trip", "not a duration"),
]


@pytest.mark.parametrize("row", [*POOLS, *RANGES, *INSTEAD, *RULES], ids=lambda row: row.line[:70])
def test_what_cannot_be_meant_is_refused_at_its_key(row: Row) -> None:
    """One mistake is one finding, with what would be right."""

    (found,) = findings(row.line + "\n")

    assert (found.code, found.key) == (row.code, row.key)
    assert row.says in found.line()


def test_all_mistakes_of_a_pool_are_told_at_once() -> None:
    """Each at its own key, in the order of the file."""
    told = findings(
        """\
pools:
  - name: west
    use: [east, east, west]
    priority: [{to: 200, use: [north]}, {use: [souht]}]
"""
    )

    assert [(each.code, each.key) for each in told] == [
        ("CFG-CONFLICT", "pools[0].name"),
        ("CFG-REF", "pools[0].use[0]"),
        ("CFG-CONFLICT", "pools[0].use[1]"),
        ("CFG-REF", "pools[0].use[1]"),
        ("CFG-CONFLICT", "pools[0].priority[1]"),
        ("CFG-REF", "pools[0].priority[1].use[0]"),
    ]
