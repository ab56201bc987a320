"""The settings of contents: what is refused, what the gate is told, and that nobody pays who does not use them."""

from pathlib import Path

import pytest

from faregate.config.content_rules import content_settings
from faregate.config.findings import Invalid
from faregate.config.load import load_text

PROVIDER = (
    'providers: [{name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "sk-of-a-test-1"}]\n'
)


def loaded(content: str) -> object:
    return content_settings(load_text((PROVIDER + content).encode(), "f.yaml", {}, Path("/")).config)


def refused(content: str) -> list[tuple[str, str]]:
    """Code and key of everything that is wrong."""
    with pytest.raises(Invalid) as told:
        loaded(content)
    return [(finding.code, finding.key) for finding in told.value.findings]


def test_full_contents_need_an_end() -> None:
    """BAD-INPUT C83."""
    assert refused("content: {default: full}\n") == [("CFG-MISSING", "content.retention")]
    assert refused("content: {default: full, retention: 0s}\n") == [("CFG-RANGE", "content.retention")]


@pytest.mark.parametrize(
    ("rule", "code", "key"),
    [
        ("{name: a, action: redact}", "CFG-MISSING", "content.redaction[0]"),
        ("{name: a, action: redact, builtin: email, pattern: x}", "CFG-CONFLICT", "content.redaction[0]"),
        ("{name: a, action: redact, builtin: mail}", "CFG-RANGE", "content.redaction[0].builtin"),
        ("{name: a, action: remove, builtin: email}", "CFG-RANGE", "content.redaction[0].action"),
        ("{name: a, action: redact, pattern: '(a'}", "CFG-RANGE", "content.redaction[0].pattern"),
        ("{name: a, action: redact, pattern: 'a(?=b)'}", "CFG-RANGE", "content.redaction[0].pattern"),
        ("{name: a, action: redact, pattern: 'x*'}", "CFG-RANGE", "content.redaction[0].pattern"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_at_its_place(rule: str, code: str, key: str) -> None:
    """With the key that is wrong."""
    assert refused(f"content: {{redaction: [{rule}]}}\n") == [(code, key)]


def test_two_rules_of_a_name_are_refused() -> None:
    """Headers and records could not tell them apart."""
    rules = "{name: a, action: warn, builtin: email}, {name: a, action: warn, builtin: card}"
    assert refused(f"content: {{redaction: [{rules}]}}\n") == [("CFG-CONFLICT", "content.redaction[1].name")]


def test_a_gate_that_keeps_nothing_is_told_nothing() -> None:
    """Where neither a default, a retention nor a rule stands; each of them alone is enough."""
    assert loaded("") is None
    assert loaded("content: {characters_max: 1000}\n") is None
    for content in ("{retention: 1d}", "{default: metadata}", "{redaction: [{name: a, action: warn, builtin: key}]}"):
        assert loaded(f"content: {content}\n") is not None
