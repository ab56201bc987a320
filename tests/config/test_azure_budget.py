"""``alerts.azure_budget``: who may say that a budget outside is spent, and what happens then."""

from pathlib import Path

import pytest

from faregate.config.findings import Invalid
from faregate.config.load import load_text
from faregate.config.schema import AzureBudget

START = "providers:\n  - {name: openai, kind: openai, base_url: https://api.openai.com/v1, api_key: sk-x}\n"
SECRET = "a-secret-of-more-than-24-characters"


def _loaded(setting: str, environment: dict[str, str] | None = None, *, world_readable: bool = False) -> AzureBudget:
    text = f"{START}alerts:\n  azure_budget: {setting}\n"
    where = Path("/nowhere")
    config = load_text(text.encode(), "faregate.yaml", environment or {}, where, world_readable=world_readable).config
    assert config.alerts.azure_budget is not None
    return config.alerts.azure_budget


def test_a_secret_is_enough() -> None:
    """Then the whole of a budget stops its product until the budget's month is over."""
    made = _loaded('{secret: "${HOOK}"}', {"HOOK": SECRET})
    assert made.secret.get_secret_value() == SECRET
    assert [(rule.at_percent, rule.do, rule.basis) for rule in made.rules] == [(100, "stop", "actual")]
    assert (made.lift, made.period) == ("period", "month")
    assert SECRET not in repr(made)


def test_rules_say_what_happens_when() -> None:
    """In any number up to sixteen."""
    rules = "[{at_percent: 80, do: throttle, requests_per_minute: 5}, {at_percent: 120, do: notify, basis: forecast}]"
    made = _loaded(f"{{secret: {SECRET}, rules: {rules}, lift: manual, period: quarter}}")
    assert [(rule.do, rule.requests_per_minute) for rule in made.rules] == [("throttle", 5), ("notify", 10)]


@pytest.mark.parametrize(
    ("setting", "code", "key"),
    [
        ("{}", "CFG-MISSING", "alerts.azure_budget.secret"),
        ('{secret: ""}', "CFG-SECRET", "alerts.azure_budget.secret"),
        ("{secret: only-23-characters-long}", "CFG-SECRET", "alerts.azure_budget.secret"),
        ('{secret: "${NOT_SET}"}', "CFG-ENV", "alerts.azure_budget.secret"),
        (f"{{secret: {SECRET}, rules: [{{at_percent: 0}}]}}", "CFG-RANGE", "alerts.azure_budget.rules[0].at_percent"),
        (f"{{secret: {SECRET}, rules: [{{do: explode}}]}}", "CFG-RANGE", "alerts.azure_budget.rules[0].do"),
        (f"{{secret: {SECRET}, lift: never}}", "CFG-RANGE", "alerts.azure_budget.lift"),
        (f"{{secret: {SECRET}, secrets: x}}", "CFG-UNKNOWN", "alerts.azure_budget.secrets"),
    ],
)
def test_what_cannot_be_is_told_by_its_place(setting: str, code: str, key: str) -> None:
    """A door with a guessable secret does not open at all."""
    with pytest.raises(Invalid) as told:
        _loaded(setting)
    assert [(finding.code, finding.key) for finding in told.value.findings] == [(code, key)]
    assert SECRET not in str(told.value)


def test_a_secret_in_a_file_for_everybody_is_refused() -> None:
    """As those of providers are."""
    with pytest.raises(Invalid, match="everybody on this machine"):
        _loaded(f"{{secret: {SECRET}}}", world_readable=True)
