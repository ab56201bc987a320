"""Charge rules in the configuration: what is read, and what is refused and where."""

from pathlib import Path
from typing import NamedTuple

import pytest

from faregate.assembly.declare import declared
from faregate.catalogue.compile import compile_catalogue
from faregate.config.findings import Invalid
from faregate.config.load import load_text
from faregate.core.pricing.charging import ChargeRule, text_of

HEAD = """\
providers: [{name: a, kind: openai, base_url: 'http://127.0.0.1:1/v1'}]
pricing:
  charges:
"""


def rules_of(lines: str) -> tuple[ChargeRule, ...]:
    """The rules as they reach the gate."""
    config = load_text((HEAD + lines).encode(), "faregate.yaml", {}, Path("/nowhere")).config
    return compile_catalogue(declared(config, Path("/nowhere"), {})).catalogue.charges


def test_rules_reach_the_gate_in_their_order() -> None:
    """Percents and fees are exact, quoted or not; an operation is what the books call a service."""
    found = rules_of(
        """\
    - {select: {team: research, operation: embeddings}, free: true}
    - {select: {key: key_1, provider: a, stage: dev}, markup_percent: 12.5, fee: 0.001}
    - {select: {service: embeddings, model: m, deployment: a/m}, discount_percent: "0.0001"}
    - {select: {organization: default, project: p, product: q}}
    - {markup_percent: 10}
"""
    )
    assert found == (
        ChargeRule((("service", "embeddings"), ("team", "research")), free=True),
        ChargeRule((("key", "key_1"), ("provider", "a"), ("stage", "dev")), markup_ppm=125_000, fee=1_000_000),
        ChargeRule((("deployment", "a/m"), ("model", "m"), ("service", "embeddings")), discount_ppm=1),
        ChargeRule((("organization", "default"), ("product", "q"), ("project", "p"))),
        ChargeRule((), markup_ppm=100_000),
    )
    assert [text_of(rule) for rule in found][3:] == ["", "markup 10 %"]


class Row(NamedTuple):
    """A rule that is refused: the code, the line and column, and what the message says."""

    rule: str
    code: str
    column: int
    says: str


ROWS = [
    Row("{markup_percent: ten}", "CFG-RANGE", 8, "not a percentage"),
    Row("{markup_percent: -1}", "CFG-RANGE", 8, "not a percentage"),
    Row("{markup_percent: 1.23456}", "CFG-RANGE", 8, "not a percentage"),
    Row("{markup_percent: true}", "CFG-TYPE", 8, "not a percentage"),
    Row("{markup_percent: 10001}", "CFG-RANGE", 8, "0 to 10000"),
    Row("{discount_percent: 100.0001}", "CFG-RANGE", 8, "at most 100"),
    Row("{fee: 0.0000000001}", "CFG-RANGE", 8, "9 decimals"),
    Row("{fee: -1}", "CFG-RANGE", 8, "negative"),
    Row("{fee: 1001}", "CFG-RANGE", 8, "0 to 1000"),
    Row("{fee: [1]}", "CFG-TYPE", 8, "an amount"),
    Row("{free: yes}", "CFG-TYPE", 8, "true or false"),
    Row("{free: true, fee: 1}", "CFG-CONFLICT", 8, "free call"),
    Row("{select: {teem: a}}", "CFG-UNKNOWN", 17, "team"),
    Row("{select: {team: 7}}", "CFG-TYPE", 17, "quote it"),
    Row("{select: {team: ''}}", "CFG-RANGE", 17, "printable"),
    Row("{select: {end_user: a}}", "CFG-UNKNOWN", 17, "end_user"),
    Row("{select: {provider: b}}", "CFG-REF", 17, "no provider is called b"),
    Row("{select: {service: a, operation: b}}", "CFG-CONFLICT", 29, "is not what service says"),
    Row("{percent: 5}", "CFG-UNKNOWN", 8, "percent"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_a_rule_that_cannot_be_meant_is_refused_at_its_place(row: Row) -> None:
    """File, line and column, the key, what is wrong and what is expected."""
    with pytest.raises(Invalid) as caught:
        rules_of(f"    - {row.rule}\n")
    (found,) = caught.value.findings
    assert (found.code, found.place.source, found.place.line) == (row.code, "faregate.yaml", 4)
    assert found.place.column >= row.column
    assert found.key.startswith("pricing.charges[0]")
    assert row.says in str(found)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{fee: 1}", "{select: {team: a}, free: true}"),
        ("{select: {team: a}, fee: 1}", "{select: {team: a}, fee: 2}"),
        ("{select: {service: x}}", "{select: {team: a, operation: x}, fee: 2}"),
    ],
)
def test_a_rule_that_never_holds_is_refused(first: str, second: str) -> None:
    """An earlier one matches all that it would; the other way round they are fine."""
    with pytest.raises(Invalid) as caught:
        rules_of(f"    - {first}\n    - {second}\n")
    (found,) = caught.value.findings
    assert (found.code, found.key, found.place.line) == ("CFG-CONFLICT", "pricing.charges[1]", 5)
    assert "pricing.charges[0] comes first" in str(found)
    if first.partition(",")[0] != second.partition(",")[0]:
        assert len(rules_of(f"    - {second}\n    - {first}\n")) == 2
