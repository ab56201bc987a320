"""A console with one of everything in it, and a request to each operation of the admin API that it answers.

For the tests of the API's document: what is asked here is asked once for each operation, so that there is an answer of
each to hold to the document, and real ids for what is made up at random.
"""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from console_parts import NOON, WHO, Api, Parts, opened, parts, settled_call
from faregate.assembly.declared_rows import declared_rows
from faregate.config.folder import DataFolder
from faregate.config.load import load_text
from faregate.config.schema import AzureBudget
from faregate.config.secrets import keep_secrets
from faregate.console.compile import card_rows
from faregate.console.prices import compiled
from faregate.console.state import CacheFacts, Reread
from faregate.control import Allowances, Figures, Flush, FlushCache, Report, Reported, Resolve
from faregate.ports import ContentRecord, KeptText, Tried
from faregate.storage.contents import ContentStore

HOOK_SECRET = "whsec-of-twenty-four-or-more"
REQUEST = f"req_{1:026d}"

CONFIG = b"""\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${KEY}"}
capacities:
  - {name: declared, provider: openai, commitment: "1000", tokens_per_second: 10}
content:
  retention: 30d
"""

ANSWER = '{"id": "c1", "object": "chat.completion", "model": "gpt-4o-2024-08-06", "choices": [], "usage": ' + (
    '{"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}}'
)


class StillGate:
    """A gate that has nothing to tell, and takes everything that it is told."""

    connected = True

    def nudge(self) -> None:
        """Nothing to do."""

    async def applied(self, within_s: float) -> bool:
        return True

    async def figures(self) -> Figures:
        return Figures(
            ready=True, draining=False, epoch=1, position=0, projected=0, sequence=0, open_exchanges=0, held_nanos=0,
            unknown_count=0, unknown_nanos=0, connections=0,
        )  # fmt: skip

    async def allowances(self, limits: tuple[str, ...] = ()) -> Allowances:
        return Allowances(())

    async def resolve(self, order: Resolve) -> bool:
        return False

    async def report(self, order: Report) -> Reported:
        return Reported(same=True)

    async def flush_cache(self, order: FlushCache) -> Flush:
        return Flush(1, done=True, removed=2)

    async def drain(self) -> None:
        """Nothing to do."""


@contextmanager
def admin_world(folder: Path) -> Iterator[tuple[Parts, Api]]:
    """The console and its API, spoken to by somebody who may do everything."""
    config = load_text(CONFIG, "faregate.yaml", {"KEY": "sk-of-a-provider"}, folder).config
    hook = AzureBudget(secret=SecretStr(HOOK_SECRET))
    with parts(folder, gate=StillGate(), config=config, azure_budget=hook) as made:
        console = made.console

        async def reread() -> Reread:
            return Reread(restart=("gateway.listen",))

        async def tried(name: str) -> Tried:
            return Tried(True, "it listed its models", 200, 3, 40)

        for name, value in {"reread": reread, "try_provider": tried, "declared": declared_rows(config)}.items():
            object.__setattr__(console, name, value)
        object.__setattr__(console.facts, "keeps_contents", True)
        object.__setattr__(console.facts, "cache", CacheFacts(enabled=True, ttl_seconds=86_400))
        _call(made)
        keep_secrets(DataFolder(Path(console.facts.data_dir)).secrets, made.random)
        yield made, Api(made.app, made.admin_key())


def _call(made: Parts) -> None:
    """One call in the books, with its prices and its content."""
    catalogue = compiled(made.console)
    cards = [card for each in catalogue.deployments for card in each.cards if card.model == "gpt-4o"]
    card = next(card for card in cards if not card.service_tier)
    made.books.keep_rate_cards(card_rows(catalogue))
    made.journal.add(opened(), *settled_call(REQUEST, who=WHO, version=card.version))
    made.project()
    kept = made.console.contents
    assert isinstance(kept, ContentStore)
    text = KeptText("Say hello.", 10, 90)
    kept.take(
        "1", [ContentRecord(REQUEST, NOON, "full", True, 200, "", text, text, (("email", "redact", "request", 1),))]
    )


def _payers(api: Api) -> None:
    kinds = ("organization", "team", "project", "user", "product", "stage")
    for kind in kinds:
        path = f"/api/v1/{kind}s"
        row = api.post(path, {"name": f"{kind}-1"})
        if kind in ("team", "project", "user", "product"):
            api.post(f"{path}/bulk", {"items": [{"name": f"{kind}-2"}]})
        api.get(f"{path}?state=active")
        api.get(f"{path}/{row['id']}")
        api.send("PATCH", f"{path}/{row['id']}", {"title": "One"})
        if kind == "product":
            sub = api.post("/api/v1/subscriptions", {"product": row["name"], "team": "team-2"})
            api.get("/api/v1/subscriptions")
            api.get(f"/api/v1/subscriptions/{sub['id']}")
            api.send("PATCH", f"/api/v1/subscriptions/{sub['id']}", {"state": "cancelled"})
            api.send("DELETE", f"/api/v1/subscriptions/{sub['id']}")
            api.post(f"{path}/{row['id']}/subscriptions", {"user": "user-2", "name": "kept"})
            kept = api.get(f"{path}/{row['id']}/subscriptions")["data"][0]
            api.send("DELETE", f"/api/v1/subscriptions/{kept['id']}")
        api.send("DELETE", f"{path}/{row['id']}")


def _keys_and_limits(api: Api) -> None:
    key = api.post("/api/v1/keys", {"name": "ci", "team": "red", "project": "search", "product": "bots"})
    one = f"/api/v1/keys/{key['id']}"
    api.post("/api/v1/keys/bulk", {"items": [{"name": "a"}, {"name": "b"}]})
    api.post("/api/v1/keys/check", {"secret": key["secret"]}, 200)
    api.get("/api/v1/keys?state=active")
    api.get(one)
    api.send("PATCH", one, {"models": ["gpt-4o"]})
    api.post(f"{one}/rotate", {"grace_seconds": 60}, 200)
    limit = api.post("/api/v1/limits", {"select": {"team": "red"}, "each": ["user"], "unit": "usd", "amount": "9",
                                        "window": "month", "actions": [{"do": "notify", "at": 80}]})  # fmt: skip
    api.post("/api/v1/limits/bulk", {"items": [{"unit": "requests", "amount": 99, "window": "minute"}]})
    api.get("/api/v1/limits?unit=usd")
    one_limit = f"/api/v1/limits/{limit['id']}"
    api.get(one_limit)
    api.send("PATCH", one_limit, {"amount": "10", "mode": "soft"})
    api.post(f"{one_limit}/entries", {"operation": "deposit", "amount": "1", "reference": "r1"})
    api.post(f"{one_limit}/entries", {"operation": "deposit", "amount": "1", "reference": "r1"}, 200)
    api.post(f"{one_limit}/raises", {"amount": "20", "until": "2026-11-30"})
    api.get(f"{one_limit}/entries")
    api.post("/api/Quota/", {"subscriptionKey": key["id"], "productName": "bots", "amount": "5",
                             "rateLimitOnCost": True}, 200)  # fmt: skip
    api.post("/api/Quota/Update", {"subscriptionKey": key["id"], "prompt": "hi", "responseBody": ANSWER}, 200)
    api.get("/api/Quota/")
    api.get(f"/api/Quota/{key['id']}")
    api.get(f"/api/Quota/{key['id']}/history")
    _budget(api)
    api.send("DELETE", one_limit)
    api.post(f"{one}/revoke", {"reason": "done"}, 200)
    api.send("DELETE", one)


def _budget(api: Api) -> None:
    facts = {"BudgetThreshold": "500", "NotificationThresholdAmount": "500", "BudgetName": "bots", "Unit": "USD",
             "BudgetId": "/b", "BudgetStartDate": "2026-01-15", "SpentAmount": "520.00", "ThresholdType": "Actual",
             "BudgetType": "Cost", "Scope": "/", "BudgetCreator": "a@example.com"}  # fmt: skip
    for path, headers in (("/webhooks/azure-budget", {"x-faregate-secret": HOOK_SECRET}), ("/api/Quota/Budget", {})):
        essentials = {"monitoringService": "CostAlerts", "firedDateTime": "2026-11-21T11:00:00Z", "alertId": path,
                      "monitorCondition": "Fired"}  # fmt: skip
        context = {"AlertCategory": "budgets", "AlertData": facts}
        body = {"schemaId": "azureMonitorCommonAlertSchema",
                "data": {"essentials": essentials, "alertContext": context}}  # fmt: skip
        answer = api.call("POST", path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
    product = api.get("/api/v1/products?name=bots")["data"][0]
    api.post(f"/api/v1/products/{product['id']}/lift", {"reason": "checked"}, 200)


def _calls_and_prices(api: Api) -> None:
    for path in (
        f"/api/v1/requests/{REQUEST}", "/api/v1/requests?status=ok&text=hello&tag.env=ci&sort=cost",
        "/api/v1/requests?since=2026-11-01", f"/api/v1/requests/{REQUEST}/content", "/api/v1/contents?text=hello",
        "/api/v1/usage?by=team,tag.env,key,subscription&interval=day",
        "/api/v1/reports/cache?by=team,tag.env,key,subscription&since=2026-11-01",
        "/api/v1/reports/deployments?since=2026-11-01&stream=false&operation=chat.completions",
        "/api/tokenize?input=hello", "/api/encodings",
        "/api/v1/prices", "/api/v1/adjustments", "/api/v1/capacities", "/api/v1/capacities/declared?month=2026-11",
        "/api/v1/capacities/declared/split?by=team,model",
    ):  # fmt: skip
        api.get(path)
    for text in ("hi", ["hi"], [{"role": "user", "content": "hi"}]):
        api.post("/api/tokenize", {"input": text}, 200)
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
    key = api.post("/api/v1/keys", {"name": "asks"})
    api.post("/api/v1/limits", {"select": {"key": key["id"]}, "unit": "usd", "amount": "0", "window": "day"})
    api.post("/api/v1/quote", {"request": chat, "key": key["id"]}, 200)
    api.post("/api/v1/quote", {"endpoint": "/v1/models", "request": {}}, 200)
    asked = {"from": "2026-11-21", "limits": [{"unit": "usd", "amount": "0.001", "window": "day", "each": ["team"]}]}
    run = api.post("/api/v1/rehearse", asked, 200)
    api.get(f"/api/v1/rehearse/{run['id']}")
    api.send("DELETE", f"/api/v1/rehearse/{run['id']}")
    price = {"provider": "openai", "model": "gpt-4o", "unit": "input_tokens", "per": 1_000_000, "price": "2.40"}
    own = api.send("PUT", "/api/v1/prices", price)
    api.get("/api/v1/prices/own")
    api.get(f"/api/v1/prices/{own['id']}")
    api.send("PATCH", f"/api/v1/prices/{own['id']}", {"price": own["price"], "per": own["per"]})
    api.post("/api/v1/prices/explain", {"model": "gpt-4o", "usage": {"input_tokens": 10}}, 200)
    period = {"from": "2026-11-20", "commit": True, "reason": "cheaper", "run": "run-1"}
    api.post("/api/v1/reprice", {"from": "2026-11-20", "capacity": "declared"}, 200)
    api.post("/api/v1/reprice", period, 200)
    api.post("/api/v1/reprice", period, 200)
    api.get("/api/v1/adjustments")
    api.get("/api/v1/adjustments/run-1")
    api.get(f"/api/v1/requests/{REQUEST}")
    text = "provider,model,unit,per,price\nopenai,gpt-4o,output_tokens,1000000,11\n"
    api.post("/api/v1/prices/import", {"file": "p.csv", "text": text, "format": "csv"}, 200)
    api.post("/api/v1/prices/sync", {}, 200)
    api.send("DELETE", f"/api/v1/prices/{own['id']}")
    ptu = {"name": "ptu", "provider": "openai", "commitment": "1000.01", "tokens_per_second": 1}
    api.send("PUT", "/api/v1/capacities", ptu)
    api.send("DELETE", "/api/v1/capacities/ptu")
    api.send("DELETE", f"/api/v1/requests/{REQUEST}/content")


def _places(api: Api) -> None:
    secret = b64encode(b"a provider's secret of its own").decode()
    made = {"name": "mine", "kind": "openai", "base_url": "https://8.8.4.4/v1", "api_key": secret}
    provider = api.post("/api/v1/providers", made)
    one = f"/api/v1/providers/{provider['id']}"
    api.get("/api/v1/providers")
    api.get(one)
    api.send("PATCH", one, {"connections_max": 10})
    api.post(f"{one}/test", None, 200)
    deployment = api.post("/api/v1/deployments", {"name": "weu", "provider": "mine", "model": "gpt-4o"})
    first = [{"from": 0, "to": 9, "use": ["weu"], "only": [{"team": "red"}]}]
    rule = {"use": ["weu", {"deployment": "openai/gpt-4o", "timeout": "5s"}], "priority": first,
            "breaker": {"trip": "5s"}, "retry": {"count": 1}}  # fmt: skip
    pool = api.post("/api/v1/pools", {"name": "main", **rule})
    led = [{"select": {"product": "bots"}, "to": ["weu", "main"]}]
    model = api.post("/api/v1/models", {"name": "best/of", "to": ["main"], "instead": led})
    compute = {"rate_per_hour": "2.40", "memory_gb": "8", "memory_gb_total": "64"}
    flops = {"price_per_teraflop": "0.1", "per_call": 1_000}
    price = {"per_call": "0.001", "units": {"header": "x-pages", "price": "0.01", "max": 9}, "compute": compute,
             "flops": flops}  # fmt: skip
    place = {"name": "ocr", "base_url": "https://8.8.4.4/ocr", "api_key": secret, "max_duration": "30s"}
    service = api.post("/api/v1/services", {**place, "price": price})
    for path, row, change in (
        ("services", service, {"bill_errors": True}),
        ("models", model, {"max_output_tokens": 100}),
        ("pools", pool, {"sticky": "key"}),
        ("deployments", deployment, {"region": "regional"}),
    ):
        api.get(f"/api/v1/{path}")
        api.get(f"/api/v1/{path}/{row['name']}")
        api.send("PATCH", f"/api/v1/{path}/{row['id']}", change)
        if path == "deployments":
            api.get("/api/v1/places")
            api.get("/api/v1/route?model=gpt-4o")
        api.send("DELETE", f"/api/v1/{path}/{row['id']}")
    api.send("DELETE", one)


def _care(api: Api, folder: Path) -> None:
    webhook = api.post("/api/v1/webhooks", {"name": "ops", "url": "https://8.8.4.4/alerts"})
    one = f"/api/v1/webhooks/{webhook['id']}"
    api.get("/api/v1/webhooks")
    api.get(one)
    api.send("PATCH", one, {"new_secret": True})
    alert = api.post("/api/v1/alerts", {"channel": "ops"})
    api.get("/api/v1/alerts?seen=false")
    api.get(f"/api/v1/alerts/{alert['id']}")
    api.send("PATCH", f"/api/v1/alerts/{alert['id']}", {"seen": True})
    api.send("DELETE", f"/api/v1/alerts/{alert['id']}")
    api.send("DELETE", one)
    for path in ("peppers", "audit?kind=key", "health", "verify", "verify/progress", "owned/key", "cache"):
        api.get(f"/api/v1/{path}")
    key = api.get("/api/v1/keys")["data"][0]
    api.send("PUT", "/api/v1/owned", {"kind": "key", "ids": [key["id"]]})
    api.get("/api/v1/owned/key")
    api.post("/api/v1/peppers", None)
    api.send("DELETE", "/api/v1/peppers/p1")
    api.post("/api/v1/reload", None, 200)
    api.post("/api/v1/cache/flush", {"project": "search"}, 200)
    api.post("/api/v1/backup", {"file": str(folder / "copy.sqlite3")}, 200)


def ask_everything(api: Api, folder: Path) -> None:
    """Ask each operation for what it answers when all is well."""
    _payers(api)
    _keys_and_limits(api)
    _calls_and_prices(api)
    _places(api)
    _care(api, folder)


def one_of_each(api: Api) -> dict[str, str]:
    """Make one of everything that has an id; the beginning of its path → that id, or its name where it has none."""
    made = {"requests": REQUEST, "capacities": "declared", "adjustments": "run-1", "owned": "key"}
    for kind in ("organization", "team", "project", "user", "product", "stage"):
        made[f"{kind}s"] = api.post(f"/api/v1/{kind}s", {"name": f"the-{kind}"})["id"]
    made["keys"] = api.post("/api/v1/keys", {"name": "the-key", "team": "research", "product": "bots"})["id"]
    limit = {"select": {"key": made["keys"]}, "unit": "tokens", "amount": 900, "window": "month"}
    made["limits"] = api.post("/api/v1/limits", limit)["id"]
    made["subscriptions"] = api.post("/api/v1/subscriptions", {"product": "the-product", "team": "the-team"})["id"]
    price = {"provider": "openai", "model": "gpt-4o", "unit": "input_tokens", "per": 1_000_000, "price": "2.40"}
    made["prices"] = api.send("PUT", "/api/v1/prices", price)["id"]
    provider = {"name": "mine", "kind": "openai", "base_url": "https://8.8.4.4/v1", "api_key": "sk-of-a-provider"}
    made["providers"] = api.post("/api/v1/providers", provider)["id"]
    made["deployments"] = api.post("/api/v1/deployments", {"name": "weu", "provider": "mine", "model": "gpt-4o"})["id"]
    made["pools"] = api.post("/api/v1/pools", {"name": "main", "use": ["weu"]})["id"]
    made["models"] = api.post("/api/v1/models", {"name": "best/of", "to": ["weu"]})["id"]
    service = {"name": "ocr", "base_url": "https://8.8.4.4/ocr", "max_duration": "30s", "price": {"per_call": "0.001"}}
    made["services"] = api.post("/api/v1/services", service)["id"]
    made["webhooks"] = api.post("/api/v1/webhooks", {"name": "ops", "url": "https://8.8.4.4/alerts"})["id"]
    made["alerts"] = api.post("/api/v1/alerts", {"channel": "ops"})["id"]
    asked = {"from": "2026-11-21", "limits": [{"unit": "usd", "amount": "0.001", "window": "day"}]}
    made["rehearse"] = api.post("/api/v1/rehearse", asked, 200)["id"]
    quota = {"subscriptionKey": made["keys"], "productName": "bots", "amount": "5", "rateLimitOnCost": True}
    api.post("/api/Quota/", quota, 200)
    period = {"from": "2026-11-20", "commit": True, "reason": "cheaper", "run": "run-1"}
    api.post("/api/v1/reprice", period, 200)
    return {**{f"/api/v1/{name}/": id for name, id in made.items()}, "/api/Quota/": made["keys"]}
