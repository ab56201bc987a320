"""Every route that changes something leaves a line in the trail, with who asked and by which request."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from console_parts import DAY, NOON, SECOND, Api, Parts, opened, parts, settled_call
from faregate.config.folder import DataFolder
from faregate.config.load import load_text
from faregate.config.schema import AzureBudget
from faregate.config.secrets import keep_secrets
from faregate.console.audit import all_marks
from faregate.console.hook_secrets import ACTOR
from faregate.console.reading import every

HOOK_SECRET = "whsec-of-twenty-four-or-more"

CONFIG = b"""\
alerts: {allow_private: true}
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${KEY}"}
pricing:
  overrides:
    - {provider: openai, model: house, unit: input_tokens, per: 1000000, price: "1"}
    - {provider: openai, model: house, unit: output_tokens, per: 1000000, price: "2"}
"""

#: Routes that change nothing that is kept, and why that is so.
SILENT = {
    "POST /api/v1/keys/check": "looks a secret up",
    "POST /api/v1/prices/explain": "explains",
    "POST /api/v1/quote": "quotes",
    "POST /api/v1/rehearse": "plays calls again in memory",
    "DELETE /api/v1/rehearse/{run_id}": "ends such a play",
    "POST /api/v1/providers/{provider}/test": "asks a provider a harmless question",
    "POST /api/tokenize": "counts tokens",
    "POST /api/Quota": "the same endpoint as with the slash",
    "POST /api/Quota/Update": "books a call: its record in the ledger tells of it",
    "POST /login": "opens a session in memory",
    "POST /logout": "ends it",
    "POST /api/v1/reload": "needs a whole installation: tests/system",
    "DELETE /api/v1/requests/{request_id}/content": "needs kept contents: test_contents",
    "POST /api/v1/cache/flush": "needs a gate: test_cache",
}


def writing_routes(app: FastAPI) -> set[str]:
    """``METHOD path`` of every route that is not only for looking."""
    found = set()
    for included in app.routes:
        router = getattr(included, "original_router", None)
        prefix = getattr(getattr(included, "include_context", None), "prefix", "") or ""
        for route in router.routes if router is not None else [included]:
            methods = getattr(route, "methods", None) or set()
            found |= {
                f"{method} {prefix}{getattr(route, 'path', '')}" for method in methods - {"GET", "HEAD", "OPTIONS"}
            }
    return found


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Parts]:
    config = load_text(CONFIG, "faregate.yaml", {"KEY": "sk-of-a-provider"}, tmp_path).config
    with parts(tmp_path, config=config, azure_budget=AzureBudget(secret=SecretStr(HOOK_SECRET))) as each:
        yield each


class Changes:
    """Calls routes, each of which must leave a line, and remembers which were called."""

    def __init__(self, made: Parts) -> None:
        self.made = made
        self.api = Api(made.app, made.admin_key())
        self.called: set[str] = set()

    def __call__(self, route: str, body: object = None, *, actor: str | None = None, **more: Any) -> Any:
        """Call ``METHOD path``; ``more`` are names in the path, and headers."""
        self.called.add(route)
        method, path = route.split(" ")
        headers = more.pop("headers", {})
        last = self.made.console.audit.last()
        sent = {} if body is None else {"json": body}
        api = Api(self.made.app) if headers else self.api
        answer = api.call(method, path.replace(":path", "").format(**more), headers=headers, **sent)
        assert answer.status_code < 300, f"{route}: {answer.text}"
        lines = list(self.made.console.audit.lines(last + 1, self.made.console.audit.last()))
        assert lines, f"{route} left no line"
        who = actor or self.made.books.listing("key", name="root")[0]["id"]
        for line in lines:
            assert (line["actor"], line["request_id"]) == (who, answer.headers["x-faregate-request-id"]), route
            assert line["before"] is not None or line["after"] is not None
        return answer.json()


def payers(change: Changes) -> None:
    """Payers, subscriptions and keys."""
    for kind in ("organizations", "teams", "projects", "users", "products", "stages"):
        row = change(f"POST /api/v1/{kind}", {"name": f"a-{kind}"})
        change(f"PATCH /api/v1/{kind}/{{payer_id}}", {"title": "A"}, payer_id=row["id"])
        change(f"DELETE /api/v1/{kind}/{{payer_id}}", payer_id=row["id"])
    product = change("POST /api/v1/products", {"name": "bots"})
    team = change("POST /api/v1/teams", {"name": "research"})
    for route, body in (
        ("POST /api/v1/subscriptions", {"name": "one", "product": "bots", "team": "research"}),
        ("POST /api/v1/products/{payer_id}/subscriptions", {"name": "two", "team": "research"}),
    ):
        row = change(route, body, payer_id=product["id"])
        change("PATCH /api/v1/subscriptions/{subscription_id}", {"title": "A"}, subscription_id=row["id"])
        change("DELETE /api/v1/subscriptions/{subscription_id}", subscription_id=row["id"])
    assert team["name"] == "research"
    key = change("POST /api/v1/keys", {"name": "ci", "product": "bots"})
    change("PATCH /api/v1/keys/{key_id}", {"name": "ci2"}, key_id=key["id"])
    change("POST /api/v1/keys/{key_id}/rotate", {}, key_id=key["id"])
    change("POST /api/v1/keys/{key_id}/revoke", {}, key_id=key["id"])
    change("DELETE /api/v1/keys/{key_id}", key_id=key["id"])


def limits(change: Changes) -> None:
    """Limits, deposits, quotas and stops."""
    limit = change("POST /api/v1/limits", {"unit": "usd", "amount": "5", "window": "day"})
    change("PATCH /api/v1/limits/{limit_id}", {"amount": "6"}, limit_id=limit["id"])
    until = "2026-11-21T13:00:00Z"
    change("POST /api/v1/limits/{limit_id}/raises", {"amount": "9", "until": until}, limit_id=limit["id"])
    change("DELETE /api/v1/limits/{limit_id}", limit_id=limit["id"])
    total = change("POST /api/v1/limits", {"unit": "usd", "amount": "5", "window": "lifetime", "select": {"team": "x"}})
    deposit = {"operation": "deposit", "amount": "1", "reason": "paid"}
    change("POST /api/v1/limits/{limit_id}/entries", deposit, limit_id=total["id"])
    key = change("POST /api/v1/keys", {"name": "quota", "product": "stopped"})
    change(
        "POST /api/Quota/",
        {"subscriptionKey": key["secret"], "productName": "stopped", "amount": "5", "rateLimitOnCost": True},
    )


def prices(change: Changes) -> None:
    """Prices, capacities, and corrections of what was booked."""
    price = {"provider": "openai", "model": "house", "unit": "input_tokens", "per": 1_000_000, "price": "3"}
    row = change("PUT /api/v1/prices", price)
    change("PATCH /api/v1/prices/{price_id}", {"price": "4"}, price_id=row["id"])
    change("DELETE /api/v1/prices/{price_id}", price_id=row["id"])
    head = "provider,model,unit,per,price\n"
    change("POST /api/v1/prices/import", {"file": "a.csv", "text": f"{head}openai,house,input_tokens,1000000,2\n"})
    change("POST /api/v1/prices/sync", {})
    capacity = {"name": "ptu", "provider": "openai", "deployments": ["openai/gpt-4o"], "commitment": "1000"}
    change("PUT /api/v1/capacities", {**capacity, "tokens_per_second": 1})
    change("DELETE /api/v1/capacities/{name}", name="ptu")


def places(change: Changes) -> None:
    """Providers, deployments, pools, names of models and services."""
    change(
        "POST /api/v1/providers", {"name": "mine", "kind": "openai", "base_url": "https://a.test", "api_key": "sk-1"}
    )
    change("PATCH /api/v1/providers/{provider}", {"connections_max": 5}, provider="mine")
    change("POST /api/v1/deployments", {"name": "mine-4o", "provider": "mine", "model": "gpt-4o"})
    change("PATCH /api/v1/deployments/{deployment}", {"max_output_tokens": 5}, deployment="mine-4o")
    change("POST /api/v1/pools", {"name": "main", "use": ["mine-4o"]})
    change("PATCH /api/v1/pools/{pool}", {"sticky": "key"}, pool="main")
    change("POST /api/v1/models", {"name": "best", "to": ["main"]})
    change("PATCH /api/v1/models/{model:path}", {"max_output_tokens": 5}, model="best")
    change("DELETE /api/v1/models/{model:path}", model="best")
    change("DELETE /api/v1/pools/{pool}", pool="main")
    change("DELETE /api/v1/deployments/{deployment}", deployment="mine-4o")
    change("DELETE /api/v1/providers/{provider}", provider="mine")
    ocr = {"name": "ocr", "base_url": "https://a.test", "max_duration": "30s", "price": {"per_call": "0.001"}}
    change("POST /api/v1/services", ocr)
    change("PATCH /api/v1/services/{service}", {"bill_errors": True}, service="ocr")
    change("DELETE /api/v1/services/{service}", service="ocr")


def telling(change: Changes) -> None:
    """Alerts and their channels; a backup; marks of a state file."""
    hook = {"name": "ops", "kind": "webhook", "url": "https://192.0.2.9/hook", "secret": "x" * 32}
    channel = change("POST /api/v1/webhooks", hook)
    change("PATCH /api/v1/webhooks/{channel_id}", {"state": "disabled"}, channel_id=channel["id"])
    change("DELETE /api/v1/webhooks/{channel_id}", channel_id=channel["id"])
    alert = change("POST /api/v1/alerts", {})
    change("PATCH /api/v1/alerts/{alert_id}", {"seen": True}, alert_id=alert["id"])
    change("DELETE /api/v1/alerts/{alert_id}", alert_id=alert["id"])
    change("POST /api/v1/backup", {"file": str(change.made.folder / "copy.backup")})
    team = next(iter(every(change.made.books, "organization")))
    change("PUT /api/v1/owned", {"kind": "organization", "ids": [team["id"]]})
    keep_secrets(DataFolder(Path(change.made.console.facts.data_dir)).secrets, os.urandom)
    before = change("POST /api/v1/peppers")["peppers"][1]
    change("DELETE /api/v1/peppers/{pepper_id}", pepper_id=before)


def stops(change: Changes) -> None:
    """An alert of Azure's budget stops a product; somebody lifts that."""
    change("POST /api/v1/keys", {"name": "other", "product": "stopped-too"})
    for route, name in (("POST /webhooks/azure-budget", "stopped"), ("POST /api/Quota/Budget", "stopped-too")):
        facts = {
            "SubscriptionName": "Main", "SubscriptionId": "0000", "SpendingAmount": "520.00", "Budget": "500",
            "BudgetStartDate": "1/15/2026", "BudgetName": name, "NotificationThresholdAmount": "1.0",
            "BudgetType": "Cost", "ResourceGroup": "", "Unit": "USD", "BudgetCreator": "a@example.com",
        }  # fmt: skip
        alert = {"schemaId": "AIP Budget Notification", "data": facts}
        actor = ACTOR if route.startswith("POST /webhooks") else None
        change(route, alert, headers={"x-faregate-secret": HOOK_SECRET} if actor else {}, actor=actor)
    product = change.made.books.listing("product", name="stopped")[0]
    change("POST /api/v1/products/{product_id}/lift", {"reason": "paid"}, product_id=product["id"])


def corrections(change: Changes) -> None:
    """A period is priced again."""
    made = change.made
    who = settled_call("req_1")[0].who._replace(model="house", deployment="openai/house")  # type: ignore[union-attr]
    made.journal.add(opened(), *settled_call("req_1", who=who, cost=500_000))
    made.project()
    prices = "provider,model,unit,per,price\nopenai,house,input_tokens,1000000,10\n"
    wanted = {
        "from": "2026-11-21T00:00:00Z", "to": "2026-11-22T00:00:00Z", "book": {"file": "a.csv", "text": prices},
        "commit": True, "reason": "the list was wrong",
    }  # fmt: skip
    made.clock.now = NOON + 2 * DAY + SECOND
    change("POST /api/v1/reprice", wanted)


def many(change: Changes) -> None:
    """Several of a kind at once."""
    for kind in ("teams", "projects", "users", "products", "keys"):
        change(f"POST /api/v1/{kind}/bulk", {"items": [{"name": "many-1"}, {"name": "many-2"}]})
    limits = [{"unit": "usd", "amount": "5", "window": "day", "select": {"team": f"many-{n}"}} for n in (1, 2)]
    change("POST /api/v1/limits/bulk", {"items": limits})


PARTS: list[Callable[[Changes], None]] = [payers, limits, prices, places, telling, stops, corrections, many]


def test_every_route_that_changes_something_leaves_a_line(made: Parts) -> None:
    """With actor, request, before and after; a route that is new here has to be called here, or to say why not."""
    change = Changes(made)
    for part in PARTS:
        part(change)
    assert writing_routes(made.app) - change.called - SILENT.keys() == set()
    assert made.console.audit.fault(all_marks(made.books), made.console.audit.last()) == ""
    proof = made.books.prove(lambda done, total: None)
    assert (proof.faults, proof.derived) == ([], [])


def test_reasons_for_silence_are_of_routes_that_there_are(made: Parts) -> None:
    """So that the list does not outlive what it excuses."""
    assert SILENT.keys() <= writing_routes(made.app)
