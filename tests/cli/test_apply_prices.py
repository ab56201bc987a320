"""``faregate apply --prune`` of own prices."""

from pathlib import Path

from cli.test_apply import apply, diff
from commands import command

PRICES = """\
providers:
  - {name: house, kind: openai, base_url: "http://127.0.0.1:9/v1", allow_http: true}
prices:
  - {provider: house, model: mine, unit: input_tokens, price: "PRICE"}
"""


def test_a_price_that_is_pruned_is_gone_though_it_was_changed_before(tmp_path: Path) -> None:
    """The one before it does not come back, and a second time changes nothing."""
    for price in ("1", "2"):
        assert apply(tmp_path, PRICES.replace("PRICE", price)).code == 0

    assert apply(tmp_path, "prices: []\n", "--prune").code == 0

    assert diff(tmp_path, "prices: []\n", "--prune").code == 0
    own = command("price", "list", "--own", "--json", "--data", tmp_path / "data").json
    assert own == []
