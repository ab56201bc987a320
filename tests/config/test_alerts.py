"""``alerts``: channels, thresholds and what else people are told of."""

from pathlib import Path

import pytest

from faregate.config.findings import Invalid
from faregate.config.load import load_text
from faregate.config.schema import Alerts, Config

START = "providers:\n  - {name: openai, kind: openai, base_url: https://api.openai.com/v1, api_key: '${KEY}'}\n"
SECRET = "a-secret-of-more-than-24-characters"
ITS_URL, ITS_SECRET, NAMED_TWICE = (f"alerts.channels{key}" for key in ("[0].url", "[0].secret", "[1].name"))
ENVIRONMENT = {"KEY": "sk-x", "HOOK": SECRET, "MAIL": "mailto://user:PASSWORD@example.com"}


def loaded(lines: str, *, world_readable: bool = False) -> Alerts:
    """The section ``alerts`` of a configuration that has these lines in it."""
    text = f"{START}alerts:\n{lines}\n"
    where = Path("/nowhere")
    return load_text(text.encode(), "faregate.yaml", ENVIRONMENT, where, world_readable=world_readable).config.alerts


def test_everything_has_a_default() -> None:
    """Budgets are told of at 80 and 100 percent, and a tenth of a balance is low."""
    usual = Alerts()
    assert (usual.thresholds, usual.low_balance, usual.channels) == ((80, 100), 10, ())
    assert (usual.unknowns.count, usual.unknowns.amount, usual.allow_private) == (10, "10", False)
    assert usual.keep == 90 * 86_400_000


def test_channels_are_webhooks_and_addresses_of_apprise() -> None:
    """Their secrets stand outside of the file, and are in no text about them."""
    alerts = loaded(
        """\
  channels:
    - {name: ops, url: "https://example.com/alerts", secret: "${HOOK}", alerts: [threshold, anomaly]}
    - {name: mail, url: "${MAIL}"}
  thresholds: []
  keep: 30d"""
    )
    assert [each.url.get_secret_value() for each in alerts.channels][1] == ENVIRONMENT["MAIL"]
    assert [each.alerts for each in alerts.channels] == [("threshold", "anomaly"), None]
    assert alerts.thresholds == ()
    assert [each for each in (SECRET, "PASSWORD") if each in repr(alerts)] == []


def test_the_console_process_is_told_all_of_it() -> None:
    """It travels as JSON, secrets included."""
    text = (
        f'{START}alerts:\n  channels: [{{name: ops, url: "https://example.com/a", secret: "${{HOOK}}"}}]\n  keep: 3d\n'
    )
    config = load_text(text.encode(), "faregate.yaml", ENVIRONMENT, Path("/nowhere")).config
    again = Config.model_validate_json(config.model_dump_json())
    assert again.alerts == config.alerts


@pytest.mark.parametrize(
    ("lines", "code", "key"),
    [
        ("  channels: [{name: a}]", "CFG-MISSING", ITS_URL),
        ("  channels: [{name: a, url: example.com}]", "CFG-RANGE", ITS_URL),
        ("  channels: [{name: a, url: 'https://example.com'}]", "CFG-MISSING", ITS_SECRET),
        ("  channels: [{name: a, url: 'https://u:p@example.com', secret: '${HOOK}'}]", "CFG-RANGE", ITS_URL),
        ("  channels: [{name: a, url: 'https://10.0.0.8/', secret: '${HOOK}'}]", "CFG-UNSAFE", ITS_URL),
        ("  channels: [{name: a, url: 'http://localhost/', secret: '${HOOK}'}]", "CFG-UNSAFE", ITS_URL),
        ("  channels: [{name: a, url: '${MAIL}', secret: '${HOOK}'}]", "CFG-CONFLICT", ITS_SECRET),
        ("  channels: [{name: a, url: 'https://example.com', secret: short}]", "CFG-SECRET", ITS_SECRET),
        ("  channels: [{name: a, url: '${MAIL}'}, {name: a, url: '${MAIL}'}]", "CFG-CONFLICT", NAMED_TWICE),
        ("  channels: [{name: a, url: '${MAIL}', alerts: [weather]}]", "CFG-RANGE", "alerts.channels[0].alerts[0]"),
        ("  channels: [{name: a, url: '${MAIL}', alerts: []}]", "CFG-MISSING", "alerts.channels[0].alerts"),
        ("  thresholds: [0]", "CFG-RANGE", "alerts.thresholds[0]"),
        ("  thresholds: [80%]", "CFG-TYPE", "alerts.thresholds[0]"),
        ("  low_balance: 100", "CFG-RANGE", "alerts.low_balance"),
        ("  unknowns: {amount: many}", "CFG-RANGE", "alerts.unknowns.amount"),
        ("  keep: 90", "CFG-TYPE", "alerts.keep"),
        ("  chanels: []", "CFG-UNKNOWN", "alerts.chanels"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_with_its_place(lines: str, code: str, key: str) -> None:
    """No message repeats an address or a secret."""
    with pytest.raises(Invalid) as raised:
        loaded(lines)
    found = raised.value.findings
    assert (found[0].code, found[0].key) == (code, key)
    assert found[0].place.line > 2
    assert "PASSWORD" not in str(found)


def test_private_addresses_are_a_decision() -> None:
    """One word allows them."""
    url = "channels: [{name: a, url: 'http://10.0.0.8/', secret: '${HOOK}'}]"
    assert len(loaded(f"  allow_private: true\n  {url}").channels) == 1


@pytest.mark.parametrize(
    "channel", ["secret: a-secret-of-more-than-24-characters, url: 'https://example.com'", "url: 'slack://a/b/c'"]
)
def test_secrets_in_a_file_that_everybody_reads_are_refused(channel: str) -> None:
    """A webhook's address alone is none; other addresses hold their service's credentials."""
    with pytest.raises(Invalid) as raised:
        loaded(f"  channels: [{{name: a, {channel}}}]", world_readable=True)
    assert [each.code for each in raised.value.findings] == ["CFG-UNSAFE"]
    usual = "channels: [{name: a, secret: '${HOOK}', url: 'https://example.com'}]"
    assert len(loaded(f"  {usual}", world_readable=True).channels) == 1
