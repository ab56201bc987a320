"""What was made by the API beside what the configuration declares: both are in the catalogue, the file's first."""

from pathlib import Path
from typing import Any

import pytest

from faregate.assembly.declare import declared
from faregate.assembly.declared_rows import declared_rows
from faregate.assembly.made import made_pool
from faregate.catalogue.compile import compile_catalogue
from faregate.config.load import load_text
from faregate.config.schema import Config
from faregate.config.secret_box import Place, service_place
from faregate.config.services import rule_in_full, service_of
from faregate.control import Catalogue, RoutedPool, Selection
from faregate.core.pricing.card import Rate
from faregate.core.routing.choose import Member, PoolRule, Range
from faregate.core.routing.health import DEFAULT_BREAKER, SECOND
from faregate.ports import MadePlaces, Row

NOWHERE = Path("/nowhere")
HEAD = """\
providers:
  - {name: openai, kind: openai, base_url: 'http://127.0.0.1:1/v1'}
deployments:
  - {name: east, provider: openai, deployment: gpt-east, model: gpt-4o}
"""
WEST: Row = {
    "id": "dep_1", "name": "west", "provider": "openai", "deployment": "gpt-west", "model": "gpt-4o",
    "max_output_tokens": 0, "region": "global", "state": "active",
}  # fmt: skip
MAIN: Row = {
    "id": "pol_1",
    "name": "main",
    "rule": {
        "strategy": "weighted",
        "use": [{"deployment": "east", "weight": 2}, {"deployment": "west", "timeout": "5s"}],
        "priority": [{"use": ["west"]}],
        "breaker": {"trip": "2s"},
    },
}
SEARCH = """\
services:
  - name: search
    base_url: http://127.0.0.1:9000
    api_key: sk-of-the-file-0123456789
    proxy: http://proxy:3128
    headers: [x-own]
    max_duration: 5s
    price: {per_second: "0.50", units: {header: x-pages, price: 1, max: 2}}
"""
OCR: Row = {
    "id": "svc_1",
    "name": "ocr",
    "base_url": "https://ocr.example.com/v1",
    "secret": "sealed",
    "masked": "sk-…vice",
    "state": "active",
    "reach": "private",
    "rule": {
        "api_key_header": "x-key",
        "methods": ["PUT"],
        "paths": ["/read"],
        "max_duration": "30s",
        "max_answer_bytes": 1024,
        "connections_max": 7,
        "price": {"per_call": "0.001"},
    },
}


def config_of(more: str = "") -> Config:
    return load_text((HEAD + more).encode(), "faregate.yaml", {}, NOWHERE).config


def model(name: str, *to: str, instead: Any = None) -> Row:
    return {
        "id": f"mod_{name}", "name": name, "to": list(to), "max_output_tokens": 0, "max_context_tokens": 0,
        "instead": instead,
    }  # fmt: skip


def compiled(config: Config, *models: Row, pools: tuple[Row, ...] = (MAIN,)) -> Catalogue:
    made = MadePlaces((), (WEST,), models, pools)
    return compile_catalogue(declared(config, NOWHERE, {}, made=made)).catalogue


def route_of(catalogue: Catalogue, name: str) -> Any:
    return next(each for each in catalogue.routes if each.model == name)


def test_a_made_pool_is_in_the_catalogue_as_one_of_the_file_would_be() -> None:
    """Over deployments of both, with the usual ranges, behind the file's own."""
    catalogue = compiled(config_of("pools:\n  - {name: spare, use: [east]}\n"), model("chat", "main", "spare"))
    rule = PoolRule(
        "main", (Member("east", 2), Member("west", 1, 1, (), 5_000)), "weighted", (Range(0, 100, ("west",)),)
    )

    assert [each.rule.name for each in catalogue.pools] == ["spare", "main"]
    assert catalogue.pools[1] == RoutedPool(rule, DEFAULT_BREAKER._replace(trip=2 * SECOND))
    assert route_of(catalogue, "chat").steps == ("main", "spare")
    assert route_of(catalogue, "chat").to == ("east", "west")


def test_a_made_name_leads_some_callers_elsewhere() -> None:
    """Also those that use it under another name."""
    led = [{"select": {"product": "premium"}, "to": ["west", "main"]}]
    catalogue = compiled(config_of(), model("chat", "main", instead=led), model("other", "chat"))

    selection = Selection((("product", "premium"),), ("west", "main"))
    assert route_of(catalogue, "chat").selected == route_of(catalogue, "other").selected == (selection,)


@pytest.mark.parametrize(
    "declares",
    [
        "pools:\n  - {name: main, use: [east]}\n",
        "  - {name: main, provider: openai, deployment: gpt-x, model: gpt-4o}\n",
        "models:\n  - {name: main, to: [east]}\n",
    ],
)
def test_what_a_file_comes_to_declare_acts_instead_of_a_made_pool_of_its_name(declares: str) -> None:
    """A pool, a deployment or a name; what leads to that name goes where the file says."""
    catalogue = compiled(config_of(declares), model("chat", "main"))

    assert [each.rule.members for each in catalogue.pools] in ([], [(Member("east"),)])
    assert "west" not in route_of(catalogue, "chat").to


def test_what_the_configuration_declares_reads_back_from_its_rows() -> None:
    """With all that was said, and nothing else."""
    pools = """\
pools:
  - name: main
    strategy: cost
    use: [east, {deployment: openai/gpt-4o, weight: 2, params: '{"temperature": 0.2}'}]
    priority:
      - {from: 5, to: 9, use: [east], only: [{team: a, stage: b}]}
    beyond: refuse
    breaker: {enabled: false, statuses: [401, 500-502], reasons: [timeout]}
    retry: {count: 1, delta: 2s, max: 8s}
models:
  - {name: chat, to: [main], instead: [{select: {product: premium}, to: [east]}]}
"""
    config = config_of(pools)
    rows = declared_rows(config)

    assert [made_pool(row) for row in rows.pools] == list(config.pools)
    assert rows.models[0]["instead"] == [{"select": {"product": "premium"}, "to": ["east"]}]
    assert rows.pools[0]["id"] == "file:main"


def test_made_services_stand_behind_those_of_the_file_and_in_every_stage_that_names_none() -> None:
    """Each by its own rule; its secret is opened for its own place, and where nobody can, it waits for one."""
    config = config_of(SEARCH + "stages: {dev: {}}\n")
    opened: list[tuple[str, Place]] = []

    def open_secret(sealed: str, place: Place) -> str:
        opened.append((sealed, place))
        return "sk-of-the-service"

    told = declared(config, NOWHERE, {}, made=MadePlaces(services=(OCR,)), open_secret=open_secret)
    search, ocr = told.services
    assert (search.provider.name, search.provider.reach, search.source) == (
        "search",
        "",
        "services in the configuration",
    )
    assert opened == [("sealed", service_place("svc_1", "https://ocr.example.com/v1"))]
    assert (ocr.provider.credential, ocr.provider.reach) == ({"x-key": "sk-of-the-service"}, "private")
    assert (ocr.provider.total_timeout_ms, ocr.provider.connections_max) == (30_000, 7)
    assert (ocr.terms.methods, ocr.terms.paths, ocr.terms.answer_bytes_max) == (("PUT",), ("/read",), 1024)
    assert (ocr.rates[0], ocr.source) == (Rate("requests", 10**9, 1), "services of the API")
    assert told.stages == (("dev", ("openai", "search", "ocr")),)

    closed = declared(config, NOWHERE, {}, made=MadePlaces(services=(OCR,))).services[1].provider
    assert (closed.credential, closed.renewed) == ({}, True)


def test_services_that_are_disabled_or_named_in_the_file_do_not_act() -> None:
    """Nor do other things that were made under the name of a service that the file comes to declare."""
    config = config_of(SEARCH)
    named = {**OCR, "name": "search"}
    deployment = {**WEST, "name": "search"}
    made = MadePlaces((), (deployment,), (model("search", "east"),), (), (named, {**OCR, "state": "disabled"}))
    told = declared(config, NOWHERE, {}, made=made)

    assert [(each.provider.name, each.provider.reach) for each in told.services] == [("search", "")]
    assert [each.name for each in told.deployments] == ["east"]
    assert told.models == ()


def test_services_of_the_configuration_read_back_from_their_rows() -> None:
    """With all that was said but their files, proxies and secrets."""
    config = config_of(SEARCH)
    (row,) = declared_rows(config).services

    assert (row["id"], row["base_url"], row["masked"], row["secret"]) == (
        "file:search",
        "http://127.0.0.1:9000",
        "sk-…6789",
        "",
    )
    read = service_of(row["name"], row["base_url"], row["rule"])
    assert rule_in_full(read) == rule_in_full(config.services[0])
    assert "proxy" not in str(row)
