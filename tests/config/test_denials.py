"""Denials, statuses, names of headers and stages in the configuration: what the gate is told, and what is refused."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from faregate.assembly.declare import declared
from faregate.catalogue.compile import compile_catalogue
from faregate.config.findings import Invalid
from faregate.config.gate import gate_settings
from faregate.config.load import load_text
from faregate.config.schema import Config
from faregate.config.secrets import Pepper, Secrets
from faregate.config.settings import GateSettings, decode_settings
from faregate.core.limits.denials import BUILT_IN, Denial, filled, unknown_words

HEAD = "providers: [{name: a, kind: openai, base_url: 'http://127.0.0.1:1/v1'}]\n"
NOWHERE = Path("/nowhere")


def config_of(lines: str) -> Config:
    return load_text((HEAD + lines).encode(), "faregate.yaml", {}, NOWHERE).config


def settings_of(lines: str) -> GateSettings:
    """What the gate process reads from its standard input."""
    told = gate_settings(config_of(lines), NOWHERE, NOWHERE, Secrets((Pepper("p1", "00" * 32),), "11" * 32))
    return decode_settings(msgspec.json.encode(told))


def test_denials_reach_the_gate_as_they_are_written() -> None:
    """JSON of any kind below a mapping, headers in lower case, and the names by code."""
    settings = settings_of(
        """\
limits:
  statuses: {budget_exhausted: 403, credit_exhausted: 429}
  denial: {rate_limited: token_limit, budget_exhausted: ours}
  denials:
    ours:
      status: 403
      body: {error: {code: Quota, left: "{remaining}", retry: true, hints: [1, null, "{message}"]}}
      headers: {X-Budget: "{remaining} of {amount}"}
    plain: {}
"""
    )
    body = {"error": {"code": "Quota", "left": "{remaining}", "retry": True, "hints": [1, None, "{message}"]}}
    assert settings.refusal_statuses == {"budget_exhausted": 403, "credit_exhausted": 429}
    assert settings.refusal_denials == {"rate_limited": "token_limit", "budget_exhausted": "ours"}
    assert settings.denials == {
        "ours": Denial(403, body, (("x-budget", "{remaining} of {amount}"),)),
        "plain": Denial(),
    }


def test_headers_and_receipts_are_as_documented_unless_they_are_set() -> None:
    """Names of headers, the quota's only where it has one, and no receipt."""
    usual = settings_of("")
    chosen = settings_of(
        "gateway: {headers: {consumed_tokens: X-Used, remaining_quota_tokens: x-quota}, stream_receipt: comment}\n"
    )
    assert (usual.consumed_tokens_header, usual.remaining_tokens_header) == ("consumed-tokens", "remaining-tokens")
    assert (usual.remaining_quota_tokens_header, usual.stream_receipt) == ("", False)
    assert (chosen.consumed_tokens_header, chosen.remaining_tokens_header) == ("x-used", "remaining-tokens")
    assert (chosen.remaining_quota_tokens_header, chosen.stream_receipt) == ("x-quota", True)


def test_a_stage_without_providers_uses_all_of_them() -> None:
    """It may be there for what it asks of its callers alone."""
    config = config_of("stages: {prod: {require_limit: true}, dev: {providers: [a]}}\n")
    catalogue = compile_catalogue(declared(config, NOWHERE, {})).catalogue

    assert catalogue.stages == {"prod": ("a",), "dev": ("a",)}
    assert (catalogue.require_limit, catalogue.require_limit_stages) == (False, ("prod",))


class Row(NamedTuple):
    """A line that is refused: the code, the column at which it stands, and what the message says."""

    line: str
    code: str
    column: int
    says: str


ROWS = [
    Row("limits: {denials: {a: {status: 200}}}", "CFG-RANGE", 32, "at least 400"),
    Row("limits: {denials: {a: {status: 600}}}", "CFG-RANGE", 32, "at most 599"),
    Row("limits: {denials: {a: {body: text}}}", "CFG-TYPE", 30, "a mapping"),
    Row("limits: {denials: {a: {body: [1]}}}", "CFG-TYPE", 30, "a mapping"),
    Row("limits: {denials: {a: {body: {x: 1.5}}}}", "CFG-TYPE", 30, "quote it"),
    Row('limits: {denials: {a: {body: {x: "{remainig}"}}}}', "CFG-RANGE", 34, "did you mean remaining?"),
    Row('limits: {denials: {a: {body: {x: [1, "{key}"]}}}}', "CFG-RANGE", 38, '"{key}" stands for nothing'),
    Row("limits: {denials: {a: {body: " + "{x: " * 9 + "1" + "}" * 12, "CFG-RANGE", 30, "nested too deep"),
    Row(f"limits: {{denials: {{a: {{body: {{x: {'y' * 17_000}}}}}}}}}", "CFG-RANGE", 30, "too long"),
    Row("limits: {denials: {a: {headers: {retry-after: '5'}}}}", "CFG-CONFLICT", 47, "set by the gateway itself"),
    Row("limits: {denials: {a: {headers: {x-faregate-cost: '5'}}}}", "CFG-CONFLICT", 51, "set by the gateway itself"),
    Row("limits: {denials: {a: {headers: {x-a: 'é'}}}}", "CFG-RANGE", 39, "printable ASCII"),
    Row('limits: {denials: {a: {headers: {x-a: "a\\nb"}}}}', "CFG-RANGE", 39, "printable ASCII"),
    Row('limits: {denials: {a: {headers: {x-a: "{why}"}}}}', "CFG-RANGE", 39, "stands for nothing"),
    Row("limits: {denials: {'a b': {}}}", "CFG-RANGE", 27, "not a name"),
    Row("limits: {denials: {a: {boddy: {}}}}", "CFG-UNKNOWN", 24, "body"),
    Row("limits: {denial: {rate_limited: rate_limit}}", "CFG-REF", 33, "did you mean rate_limiter?"),
    Row("limits: {denial: {rate: rate_limiter}}", "CFG-UNKNOWN", 19, "rate_limited"),
    Row("limits: {statuses: {rate_limited: 302}}", "CFG-RANGE", 35, "at least 400"),
    Row("limits: {statuses: {model_not_found: 403}}", "CFG-UNKNOWN", 21, "no setting has this name"),
    Row("gateway: {headers: {consumed_tokens: content-length}}", "CFG-CONFLICT", 38, "set by the gateway itself"),
    Row("gateway: {headers: {consumed_tokens: remaining-tokens}}", "CFG-CONFLICT", 1, "already"),
    Row("gateway: {headers: {consumed_tokens: 'a b'}}", "CFG-RANGE", 38, "not the name of a header"),
    Row("gateway: {stream_receipt: header}", "CFG-RANGE", 27, "off or comment"),
    Row("stages: {prod: {require_limit: 1}}", "CFG-TYPE", 32, "true or false"),
    Row("stages: {prod: {providers: []}}", "CFG-MISSING", 28, "at least one"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.line[:60])
def test_what_cannot_be_meant_is_refused_at_its_place(row: Row) -> None:
    """File, line and column, what is wrong, and a way out."""
    with pytest.raises(Invalid) as caught:
        config_of(row.line + "\n")
    (found,) = caught.value.findings

    assert (found.code, found.place.source, found.place.line) == (row.code, "faregate.yaml", 2)
    assert found.place.column >= row.column
    assert row.says in found.line()


def test_words_are_replaced_in_texts_only() -> None:
    """Names of members, numbers and words that nobody knows stay; what has no value is empty."""
    words = {"code": "{limit}", "limit": "lim_1"}
    value = {"{code}": ["{code}", 5, None, True, "{limit}/{amount}/{Code}"], "x": "no braces"}

    assert filled(value, words) == {"{code}": ["{limit}", 5, None, True, "lim_1//"], "x": "no braces"}
    assert unknown_words("{code} {Code} {} {a-b} {{limit}} {amount") == ["Code"]


def test_the_built_in_denials_are_those_of_the_older_gateways() -> None:
    """Byte for byte what their clients read."""
    assert {name: (each.status, each.body) for name, each in BUILT_IN.items()} == {
        "rate_limiter": (429, {"statusCode": 429, "message": "You have reached your monthly spend amount"}),
        "token_limit": (
            429,
            {"error": {"code": "TooManyTokens", "message": "Token limit exceeded. Please retry after some time."}},
        ),
    }
