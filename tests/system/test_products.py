"""Products, subscriptions and payers from outside: what stops, what goes on, and within which time."""

from __future__ import annotations

from typing import Any

from installation import Installation
from system.calls import ACTS_SECONDS, Answer, ask, body, new_key, new_limit, until


def _answers(running: Installation, keys: list[dict[str, Any]]) -> list[str]:
    """What a call with each key comes to."""
    answers = [ask(running, key["secret"]) for key in keys]
    return ["ok" if each.status == 200 else each.code for each in answers]


def _become(running: Installation, keys: list[dict[str, Any]], wanted: list[str]) -> None:
    found = until(lambda: _answers(running, keys), lambda found: found == wanted, ACTS_SECONDS)
    assert found == wanted


def _call(running: Installation, secret: str, model: str) -> Answer:
    return ask(running, secret, body(model=model))


def test_a_product_rules_the_keys_of_all_its_subscriptions(running: Installation) -> None:
    """Its models and limits hold for each; suspending one stops that alone, disabling the product all of them."""
    product = running.admin("POST", "/api/v1/products", {"name": "gold", "models": ["sim-1"]})
    path = f"/api/v1/products/{product['id']}"
    subscriptions = [
        running.admin("POST", f"{path}/subscriptions", holder) for holder in ({"user": "ada"}, {"team": "gold-diggers"})
    ]
    keys = [new_key(running, f"gold-{n}", subscription=each["id"]) for n, each in enumerate(subscriptions)]
    other = new_key(running, "not-gold")
    _become(running, [*keys, other], ["ok", "ok", "ok"])
    assert [_call(running, key["secret"], "sim-fast").code for key in keys] == ["model_forbidden"] * 2
    assert _call(running, other["secret"], "sim-fast").status == 200

    first = f"/api/v1/subscriptions/{subscriptions[0]['id']}"
    assert running.admin("PATCH", first, {"state": "suspended"})["applied"]
    _become(running, [*keys, other], ["key_disabled", "ok", "ok"])
    assert running.admin("PATCH", path, {"state": "disabled"})["applied"]
    _become(running, [*keys, other], ["key_disabled", "key_disabled", "ok"])
    assert "Product gold is disabled" in ask(running, keys[1]["secret"]).json["error"]["message"]
    running.admin("PATCH", path, {"state": "active"})
    running.admin("PATCH", first, {"state": "active"})
    _become(running, keys, ["ok", "ok"])

    new_limit(running, select={"product": "gold"}, unit="requests", amount=0, window="lifetime")
    _become(running, [*keys, other], ["budget_exhausted", "budget_exhausted", "ok"])


def test_a_key_that_reaches_its_lifetime_cost_is_shown_as_revoked_and_may_be_lifted(running: Installation) -> None:
    """The limit says why, `key show` tells it, and an admin makes the key usable again."""
    key = new_key(running, "spender")
    limit = running.admin(
        "POST",
        "/api/v1/limits",
        {"select": {"key": key["id"]}, "unit": "usd", "amount": "0.003", "window": "lifetime",
         "actions": [{"at": 100, "do": "revoke"}]},
    )  # fmt: skip
    content = body("Count.", max_tokens=20)
    until(lambda: ask(running, key["secret"], content), lambda answer: answer.status != 200, 20)
    shown = until(lambda: running.cli("key", "show", "spender"), lambda row: row["state"] == "revoked", 10)
    assert shown["revoked_by"] == limit["id"]
    assert shown["revoked_reason"].startswith("reached its lifetime cost of 0.003 dollars")
    _become(running, [key], ["key_revoked"])
    running.admin("PATCH", f"/api/v1/limits/{limit['id']}", {"amount": "10"})
    assert running.cli("key", "enable", "spender")["state"] == "active"
    _become(running, [key], ["ok"])
