"""Quotas, deposits and alerts of others' budgets, from the outside: they act before the next call; the books agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from installation import CONFIG, Installation, nanos
from loopback import NO_TLS
from system.calls import (
    ACTS_SECONDS,
    Answer,
    ask,
    body,
    cost_nanos,
    new_key,
    new_limit,
    record,
    records,
    truth_cost,
    truth_of,
    until,
)

SECRET = "azure-webhook-secret-of-our-own"
HOOK = f"alerts:\n  azure_budget: {{{{secret: {SECRET}, rules: [{{{{at_percent: 100, do: stop}}}}]}}}}\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that takes alerts of Azure's budgets."""
    with Installation(tmp_path_factory.mktemp("quota"), config=CONFIG + HOOK) as installation:
        yield installation


@pytest.fixture(scope="module")
def admin(running: Installation) -> str:
    """An admin key's secret, for the console's port."""
    return str(new_key(running, "operator", role="admin")["secret"])


def _azure(running: Installation, product: str, alert: str, threshold: str = "1.0") -> httpx2.Response:
    facts = {
        "ThresholdType": "Actual", "BudgetThreshold": "100", "NotificationThresholdAmount": threshold,
        "BudgetName": product, "BudgetStartDate": "2026-01-01", "SpentAmount": "104",
    }  # fmt: skip
    data = {"essentials": {"alertId": alert}, "alertContext": {"AlertData": facts}}
    url = f"{running.console_url}/webhooks/azure-budget"
    headers = {"x-faregate-secret": SECRET}
    return httpx2.post(url, json={"data": data}, headers=headers, timeout=10, trust_env=False, verify=NO_TLS)


def _quota(running: Installation, admin: str, method: str, path: str, content: Any = None) -> Any:
    url = f"{running.console_url}/api/Quota{path}"
    headers = {"x-functions-key": admin}
    answer = httpx2.request(method, url, json=content, headers=headers, timeout=10, trust_env=False, verify=NO_TLS)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _refused(answer: Answer) -> bool:
    return answer.status == 429 and answer.code == "budget_exhausted"


def test_an_alert_stops_all_keys_of_the_product(running: Installation) -> None:
    """The next call of each is refused with the reason, those of others pass; lifted, they go on."""
    keys = [new_key(running, f"subscription {n}", product="bots")["secret"] for n in range(2)]
    other = new_key(running, "bystander", product="others")["secret"]
    assert [ask(running, key).status for key in keys] == [200, 200]
    assert _azure(running, "bots", "half", "0.5").json()["done"] == "ignored"
    assert [ask(running, key).status for key in keys] == [200, 200]

    told = _azure(running, "bots", "whole").json()
    assert (told["done"], told["applied"]) == ("stopped", True)
    refused = [ask(running, key) for key in keys]
    assert [answer.code for answer in refused] == ["budget_exhausted"] * 2
    assert "Azure budget bots has reached its threshold" in refused[0].text
    assert ask(running, keys[0], body(stream=True)).status == 429
    assert ask(running, other).status == 200

    product = next(row for row in running.admin("GET", "/api/v1/products")["data"] if row["name"] == "bots")
    running.admin("POST", f"/api/v1/products/{product['id']}/lift", {"reason": "paid"})
    assert _azure(running, "bots", "whole").json()["done"] == "repeated"
    assert [ask(running, key).status for key in keys] == [200, 200]


def test_a_quota_is_used_up_paid_into_and_changed_to_tokens(running: Installation, admin: str) -> None:
    """Calls pass while they fit; a deposit lets them go on; the same key is then stopped by tokens."""
    key = new_key(running, "quota", product="metered")
    free = new_key(running, "free")["secret"]
    bound = nanos(record(running, ask(running, free).id)["held"])
    one = f"{bound // 10**9}.{bound % 10**9:09d}"
    wanted = {"subscriptionKey": key["secret"], "productName": "metered", "amount": one}
    assert _quota(running, admin, "POST", "/", wanted) is True
    first = ask(running, key["secret"])
    assert first.status == 200
    record(running, first.id)
    assert _refused(ask(running, key["secret"]))

    assert _quota(running, admin, "POST", "/", wanted) is True
    assert ask(running, key["secret"]).status == 200
    tokens = {**wanted, "amount": "15", "rateLimitOnCost": False}
    assert _quota(running, admin, "POST", "/", tokens) is True
    refused = until(lambda: ask(running, key["secret"]), _refused, ACTS_SECONDS)
    assert refused.json["error"]["faregate"]["unit"] == "tokens"
    assert _quota(running, admin, "GET", f"/{key['id']}")["Amount"] == "15"
    told = [row["operation"] for row in _quota(running, admin, "GET", f"/{key['id']}/history")]
    assert sorted(told) == ["Close", "Create", "Create", "Deposit", "Update", "Update"]


def test_a_quota_begins_whole_however_soon_after_calls_it_is_made(running: Installation, admin: str) -> None:
    """What calls used that ended a moment ago belongs to the quota before it, if there was one, and to its history."""
    key = new_key(running, "hasty", product="hasty")
    wanted = {"subscriptionKey": key["secret"], "productName": "hasty", "amount": "1"}
    answers = []
    for change in ({}, {"amount": "500", "rateLimitOnCost": False}, {"rateLimitOnCost": True}):
        answers += [ask(running, key["secret"]) for _ in range(3)]
        assert _quota(running, admin, "POST", "/", wanted | change) is True
        assert _quota(running, admin, "GET", f"/{key['id']}")["Amount"] == (wanted | change)["amount"]

    assert [answer.status for answer in answers] == [200] * 9
    dollars = [truth_cost(truth_of(running, answer.id)) for answer in answers[3:6]]
    told = _quota(running, admin, "GET", f"/{key['id']}/history")
    assert [row["operation"] for row in told] == [
        "Create", "Close", *["Update"] * 3, "Create", "Close", *["Update"] * 3, "Create", *["Update"] * 3,
    ]  # fmt: skip
    spent = [10**9 - nanos(row["balance"]) for row in told[6:11]]
    assert spent == [sum(dollars), sum(dollars), sum(dollars[:2]), dollars[0], 0]


def test_a_reported_call_is_in_records_balances_and_the_proof(running: Installation, admin: str) -> None:
    """What went past the gate counts like a call through it, once, and stops the next one."""
    key = new_key(running, "reporter", product="reports")
    limit = new_limit(running, {"key": key["id"]}, "tokens", 1_000, window="day")
    answer = {
        "id": "chatcmpl-9", "object": "chat.completion", "model": "sim-1", "choices": [],
        "usage": {"prompt_tokens": 900, "completion_tokens": 300, "total_tokens": 1200},
    }  # fmt: skip
    report = {"subscriptionKey": key["id"], "prompt": "x", "responseBody": json.dumps(answer), "requestId": "r1"}
    for _ in range(3):
        assert _quota(running, admin, "POST", "/Update", report) is True
    assert _refused(ask(running, key["secret"]))

    (row,) = until(lambda: records(running, key=key["id"], status="ok"), bool, ACTS_SECONDS)
    assert (row["operation"], row["input_tokens"], row["notes"]) == ("reported", 900, {"reported": True})
    assert nanos(row["cost"]) == cost_nanos(900, 300)
    assert running.admin("GET", f"/api/v1/limits/{limit['id']}")["posted"] == 1_200
    usage = running.admin("GET", f"/api/v1/usage?by=key&key={key['id']}")["data"]
    assert [each["requests"] for each in usage] == [1]
    # Still once when both planes have begun anew, and forgotten what they held in memory.
    running.restart()
    assert _quota(running, admin, "POST", "/Update", report) is True
    assert running.admin("GET", f"/api/v1/limits/{limit['id']}")["posted"] == 1_200
    assert running.settled()["ok"] is True


def test_rates_of_a_service_path_act_at_once(running: Installation) -> None:
    """Requests and tokens a minute on an operation, set and cleared by one call each; others are left alone."""
    key = new_key(running, "rates")
    select = {"key": key["id"], "service": "chat.completions"}
    limit = new_limit(running, select, "requests", 0, window="minute")
    refused = ask(running, key["secret"])
    assert (refused.status, refused.code) == (429, "rate_limited")
    embedded = ask(running, key["secret"], {"model": "sim-embed", "input": "x"}, path="/v1/embeddings")
    assert embedded.status == 200
    running.admin("DELETE", f"/api/v1/limits/{limit['id']}")
    assert ask(running, key["secret"]).status == 200
    new_limit(running, select, "tokens", 5, window="minute")
    assert ask(running, key["secret"]).code == "rate_limited"
