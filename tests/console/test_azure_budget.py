"""``POST /webhooks/azure-budget``: alerts of Azure's budgets stop the product of their name, as the rules say."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from console_parts import DAY, NOON, Api, Parts, parts
from faregate.config.schema import AzureBudget, AzureBudgetRule
from faregate.console.azure_budget import period_end, read
from faregate.console.keys import NewKey, create
from faregate.console.problems import ApiProblem

SECRET = "whsec-of-twenty-four-or-more"
PATH = "/webhooks/azure-budget"


def common(spent: Any = "520.00", threshold: str = "500", kind: str = "Actual", **more: Any) -> dict[str, Any]:
    """An alert in the common schema, on a budget of 500 dollars."""
    facts = {
        "Scope": "/subscriptions/0000/", "ThresholdType": kind, "BudgetType": "Cost", "BudgetThreshold": "500",
        "NotificationThresholdAmount": threshold, "BudgetName": "bots", "BudgetId": "/subscriptions/0000/budgets/bots",
        "BudgetStartDate": "2026-01-15", "BudgetCreator": "a@example.com", "Unit": "USD", "SpentAmount": spent,
    }  # fmt: skip
    essentials = {
        "monitoringService": "CostAlerts", "firedDateTime": more.pop("fired", "2026-11-21T11:00:00Z"),
        "alertId": more.pop("alert", "alert-1"), "monitorCondition": more.pop("condition", "Fired"),
    }  # fmt: skip
    context = {"AlertCategory": "budgets", "AlertData": {**facts, **more}}
    return {"schemaId": "azureMonitorCommonAlertSchema", "data": {"essentials": essentials, "alertContext": context}}


def flat(spent: str = "520.00", threshold: str = "1.0", **more: Any) -> dict[str, Any]:
    """The same in the form without the common schema."""
    facts = {
        "SubscriptionName": "Main", "SubscriptionId": "0000", "SpendingAmount": spent, "BudgetStartDate": "1/15/2026",
        "Budget": "500", "Unit": "USD", "BudgetCreator": "a@example.com", "BudgetName": "bots", "BudgetType": "Cost",
        "ResourceGroup": "", "NotificationThresholdAmount": threshold,
    }  # fmt: skip
    return {"schemaId": "AIP Budget Notification", "data": {**facts, **more}}


def hook(*rules: AzureBudgetRule, **more: Any) -> AzureBudget:
    """The setting with these rules; without any the default one."""
    if rules:
        more["rules"] = rules
    return AzureBudget(secret=SecretStr(SECRET), **more)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Parts]:
    """A console with the webhook set up, and a product of two keys."""
    with parts(tmp_path, azure_budget=hook()) as each:
        for name in ("one", "two"):
            create(each.console, NewKey(name=name, product="bots"))
        yield each


def _send(made: Parts, alert: Any, status: int = 200, **more: Any) -> Any:
    headers = {"x-faregate-secret": SECRET, **more.pop("headers", {})}
    answer = Api(made.app).call("POST", more.pop("path", PATH), json=alert, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def _stops(api: Api) -> list[dict[str, Any]]:
    return [row for row in api.get("/api/v1/limits")["data"] if row["source"] == "stop"]


@pytest.mark.parametrize("alert", [common(), flat()], ids=["common", "flat"])
def test_both_forms_stop_the_product(made: Parts, api: Api, alert: dict[str, Any]) -> None:
    """A hard limit of no requests on the product, with the reason and the end of the budget's period."""
    told = _send(made, alert)

    (stop,) = _stops(api)
    assert (stop["select"], stop["unit"], stop["amount"]) == (
        {"organization": "default", "product": "bots"},
        "requests",
        0,
    )
    assert (stop["mode"], stop["window"], stop["until"]) == ("hard", "lifetime", "2026-12-15T00:00:00Z")
    assert stop["reason"] == "Azure budget bots has reached its threshold of 100 percent"
    assert told == {"done": "stopped", "product": "bots", "limit": stop["id"], "until": "2026-12-15T00:00:00Z"}
    (alarm,) = api.get("/api/v1/alerts?kind=budget_stop")["data"]
    assert (alarm["severity"], alarm["limit_id"]) == ("critical", stop["id"])


@pytest.mark.parametrize(
    ("alert", "done"),
    [
        (common("255", "250"), "ignored"),
        (common("255", "0.5"), "ignored"),
        (common("499.99", "400.00"), "ignored"),
        (common("520", "400.00"), "ignored"),
        (common("520", ""), "stopped"),
        (common("499", ""), "ignored"),
        (common("500.00", "$500.00", BudgetThreshold="$500.00"), "stopped"),
        (common("$1,020.00", "1000", BudgetThreshold="$1,000.00"), "stopped"),
        (common("$520.00", "1.0", "Forecasted"), "ignored"),
        (common("520", "500", "Guessed"), "ignored"),
        (common(condition="Resolved"), "ignored"),
        (common("", "1"), "stopped"),
        (flat("410", "0.8"), "ignored"),
        (flat("4.2", "4", Budget="5"), "ignored"),
        (flat("5", "5", Budget="5"), "stopped"),
        (flat("600", "1.2"), "stopped"),
    ],
)
def test_it_acts_only_if_the_rule_says_so(made: Parts, api: Api, alert: dict[str, Any], done: str) -> None:
    """Its threshold decides, a share or an amount; a forecast, and an alert that is over, stop nobody."""
    assert _send(made, alert)["done"] == done
    assert len(_stops(api)) == (done == "stopped")


def test_a_repeat_changes_nothing_even_after_it_was_lifted(made: Parts, api: Api) -> None:
    """The same alert acts once; another one of the same budget acts again."""
    for alert, other in ((common(), common(alert="alert-2")), (flat(), flat("530"))):
        _send(made, alert)
        assert _send(made, alert)["done"] == "repeated"
        assert len(_stops(api)) == 1
        product = api.get("/api/v1/products")["data"][0]["id"]
        lifted = api.post(f"/api/v1/products/{product}/lift", {"reason": "it was a test"}, 200)
        assert lifted["lifted"] is True
        assert _send(made, alert)["done"] == "repeated"
        assert _stops(api) == []
        assert _send(made, other)["done"] == "stopped"
        api.send("DELETE", f"/api/v1/limits/{_stops(api)[0]['id']}")
        assert _send(made, other)["done"] == "repeated"
        assert _stops(api) == []

    entries = api.get(f"/api/v1/limits/{lifted['limit']}/entries")["data"]
    assert [row["operation"] for row in entries] == ["lift", "stop"] * 4
    assert entries[6]["reason"] == "it was a test"
    assert (entries[-1]["actor"], entries[-1]["reference"]) == ("azure-budget", "alert-1")
    assert len(api.get("/api/v1/alerts?kind=budget_stop")["data"]) == 4


def test_rules_may_warn_throttle_and_look_ahead(tmp_path: Path) -> None:
    """The gravest rule that is reached counts; a milder alert does not let go what is stopped."""
    rules = (
        AzureBudgetRule(at_percent=50, do="notify"),
        AzureBudgetRule(at_percent=80, do="throttle", requests_per_minute=3),
        AzureBudgetRule(at_percent=100, do="stop"),
        AzureBudgetRule(at_percent=120, do="throttle", basis="forecast"),
    )
    with parts(tmp_path, azure_budget=hook(*rules, lift="manual")) as made:
        api = Api(made.app, made.admin_key())
        create(made.console, NewKey(name="one", product="bots"))
        assert _send(made, common("260", "0.5", alert="a"))["done"] == "notified"
        assert _send(made, common("260", "0.5", alert="a"))["done"] == "repeated"
        assert _stops(api) == []

        assert _send(made, common("410", "0.8", alert="b"))["done"] == "throttled"
        (limit,) = _stops(api)
        assert (limit["amount"], limit["window"], limit["until"]) == (3, "minute", None)
        assert _send(made, common("300", "1.1", "Forecasted", alert="c"))["done"] == "ignored"
        assert _send(made, common("510", "1.0", alert="d"))["done"] == "stopped"
        (limit,) = _stops(api)
        assert (limit["amount"], limit["window"]) == (0, "lifetime")
        assert _send(made, common("300", "1.3", "Forecasted", alert="e"))["done"] == "ignored"
        assert _stops(api) == [limit]
        assert [row["severity"] for row in api.get("/api/v1/alerts")["data"]].count("critical") == 1


def test_a_stop_ends_with_the_period(made: Parts, api: Api) -> None:
    """Afterwards the product is not stopped any more, nothing is left to lift, and the next alert stops it anew."""
    _send(made, common())
    product = api.get("/api/v1/products")["data"][0]["id"]
    made.clock.now += 25 * DAY
    api.post(f"/api/v1/products/{product}/lift", None, 404)
    alert = common(alert="next month", fired="2026-12-16T11:59:59.1234567Z")
    assert _send(made, alert)["until"] == "2027-01-15T00:00:00Z"


@pytest.mark.parametrize("fired", ["2026-11-14T23:59:59.1234567Z", "1970-01-02T00:00:00Z"])
def test_an_alert_of_a_period_that_has_ended_stops_nothing(made: Parts, api: Api, fired: str) -> None:
    """Sent late, or kept and sent again: the budget has begun anew since."""
    assert _send(made, common(fired=fired))["done"] == "ignored"
    assert _stops(api) == []


def test_a_flat_alert_that_says_the_same_in_the_next_period_stops_it_again(made: Parts, api: Api) -> None:
    """It has no id of its own, so only within a period it is known to be the same."""
    assert [_send(made, flat())["done"] for _ in range(2)] == ["stopped", "repeated"]
    made.clock.now += 25 * DAY
    assert [_send(made, flat())["done"] for _ in range(2)] == ["stopped", "repeated"]


@pytest.mark.parametrize("fired", ["soon", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", 5, None, "2026-11-15"])
def test_a_moment_that_says_nothing_excuses_nothing(made: Parts, api: Api, fired: Any) -> None:
    """What cannot be read, or cannot be, does not make an alert late."""
    assert _send(made, common(fired=fired))["done"] == "stopped"


def test_an_unknown_budget_is_404_and_logged(made: Parts, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is stopped, and nothing fails."""
    assert _send(made, common(BudgetName="bot"), 404)["code"] == "not_found"
    assert [record.message for record in caplog.records if record.message == "budget_alert_unknown"]
    assert _stops(api) == []


def test_a_name_of_two_organizations_stops_neither(made: Parts, api: Api) -> None:
    """Whose budget it is cannot be known."""
    create(made.console, NewKey(name="third", organization="other", product="bots"))
    assert _send(made, common(), 409)["code"] == "conflict"
    assert _stops(api) == []


def test_the_secret_is_needed(made: Parts) -> None:
    """As a header or in the address, and one only; a wrong one and an admin's key do not open the door."""
    nobody = Api(made.app)
    admin = made.admin_key()
    for headers, query in (
        ({}, ""),
        ({"x-faregate-secret": ""}, ""),
        ({"x-faregate-secret": SECRET + "x"}, ""),
        ({"x-faregate-secret": SECRET}, "?code=other"),
        ({"authorization": f"Bearer {admin}"}, ""),
        ({"x-faregate-secret": "\u00e9"}, ""),
        ({}, "?code=%ff%00"),
    ):
        raw = {name: value.encode("utf-8") for name, value in headers.items()}
        answer = nobody.call("POST", PATH + query, json=common(), headers=raw)
        assert (answer.status_code, answer.json()["code"]) == (400, "wh_sig"), (headers, query)
        assert SECRET not in answer.text
    assert nobody.call("POST", f"{PATH}?code={SECRET}", json=common()).json()["done"] == "stopped"


def test_without_a_setting_the_door_is_shut(tmp_path: Path) -> None:
    """Whoever knocks, with whatever."""
    with parts(tmp_path) as made:
        create(made.console, NewKey(name="one", product="bots"))
        assert _send(made, common(), 404)["code"] == "wh_off"
        assert _send(made, common(), 404, headers={"x-faregate-secret": ""})["code"] == "wh_off"
        api = Api(made.app, made.admin_key())
        assert api.post("/api/Quota/Budget", common(), 404)["code"] == "wh_off"


JUNK: list[tuple[bytes, int, str]] = [
    (b"", 400, "wh_body"),
    (b"{", 400, "wh_body"),
    (b"[]", 400, "wh_body"),
    (b"null", 400, "wh_body"),
    (b"5", 400, "wh_body"),
    (b'{"data": {}, "data": {}}', 400, "wh_body"),
    (b'{"data": ' + b"[" * 10_000, 400, "wh_body"),
    (json.dumps(common()).encode("utf-16"), 400, "wh_body"),
    (json.dumps(common(BudgetName="\ud800")).encode(), 400, "wh_body"),
    (json.dumps(flat(BudgetName="bots\0")).encode(), 400, "wh_body"),
    (b'{"data": []}', 400, "wh_body"),
    (b'{"data": {"alertContext": 5}}', 400, "wh_body"),
    (b'{"data": {"alertContext": {"AlertData": {}}}}', 400, "wh_body"),
    (b'{"data": {"alertContext": {"AlertData": {}}, "essentials": {}}}', 400, "wh_body"),
    (b'{"data": {"Budget": "NaN"}}', 400, "wh_body"),
    (b" " * (256 * 1024 + 1), 413, "body_too_large"),
]


def test_junk_is_refused(made: Parts, api: Api) -> None:
    """With a 4xx and the rule, never with a 500; nothing is stopped."""
    headers = {"x-faregate-secret": SECRET, "content-type": "application/json"}
    for body, status, code in JUNK:
        answer = Api(made.app).call("POST", PATH, content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), body[:40]
    assert _stops(api) == []


TOO_LITTLE = [
    common(BudgetName=""),
    common(BudgetName=5),
    common(BudgetName="x" * 5_000),
    common(alert=""),
    common(alert=7),
    common(spent="much"),
    common(spent="-5"),
    common(threshold="1e9"),
    common(spent="9" * 60),
    common(spent=520),
    common("", ""),
    flat(BudgetName=None),
    flat(Budget=[1]),
]


def test_alerts_that_say_too_little_are_refused(made: Parts, api: Api) -> None:
    """Values are texts, and what is needed is there."""
    for alert in TOO_LITTLE:
        assert _send(made, alert, 400)["code"] == "wh_body", alert
    assert _stops(api) == []


@pytest.mark.parametrize(("content_type", "code"), [("text/plain", "media_unsupported"), ("", "media_unsupported")])
def test_other_media_are_refused(made: Parts, content_type: str, code: str) -> None:
    """Only JSON, not compressed, and only POST."""
    headers = {"x-faregate-secret": SECRET, "content-type": content_type}
    answer = Api(made.app).call("POST", PATH, content=b"x", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, code)
    zipped = {**headers, "content-type": "application/json", "content-encoding": "gzip"}
    assert Api(made.app).call("POST", PATH, content=b"x", headers=zipped).json()["code"] == "encoding_unsupported"
    assert Api(made.app).call("GET", PATH, headers=headers).json()["code"] == "method_not_allowed"
    assert Api(made.app).call("POST", "/webhooks/paypal", json={}).json()["code"] == "not_found"


def test_the_quota_api_takes_alerts_too(made: Parts, api: Api) -> None:
    """With an admin's key or with the webhook's own secret, which opens nothing else there; the answer is true."""
    nobody = Api(made.app)
    assert api.post("/api/Quota/Budget", common("100", "0.2"), 200) is True
    assert nobody.call("POST", f"/api/Quota/Budget?code={SECRET}", json=common()).json() is True
    headers = {"x-faregate-secret": SECRET}
    assert nobody.call("POST", "/api/Quota/Budget", json=common(), headers=headers).json() is True
    assert len(_stops(api)) == 1
    assert nobody.call("POST", "/api/Quota/Budget", json=common()).status_code == 401
    assert nobody.call("GET", "/api/Quota/", headers=headers).status_code == 401
    assert nobody.call("GET", f"/api/Quota/?code={SECRET}").status_code == 401
    assert nobody.call("POST", f"/api/Quota/Update?code={SECRET}", json={}).status_code == 401
    assert api.post("/api/Quota/Budget", common(BudgetName=""), 400)["code"] == "wh_body"
    assert api.post("/api/Quota/Budget", common(BudgetName="none"), 404)["code"] == "not_found"


def test_a_quota_of_a_stopped_product_shows_nothing_left(made: Parts, api: Api) -> None:
    """As the service showed it, with why; and the stop is a row of its history."""
    key = api.get("/api/v1/keys?product=bots")["data"][0]["id"]
    api.post("/api/Quota/", {"subscriptionKey": key, "productName": "bots", "amount": "10"}, 200)
    made.clock.now += 1
    _send(made, common())
    shown = api.get(f"/api/Quota/{key}")
    assert (shown["Amount"], shown["StoppedBecause"]) == (
        "0",
        "Azure budget bots has reached its threshold of 100 percent",
    )
    assert api.get("/api/Quota/")[0]["balance"] == "0"
    told = [(row["operation"], row["amount"]) for row in api.get(f"/api/Quota/{key}/history")]
    assert told == [("BudgetStop", "0"), ("Create", "10")]
    api.send("DELETE", f"/api/v1/limits/{_stops(api)[0]['id']}")
    assert api.get(f"/api/Quota/{key}")["Amount"] == "10"


def test_lifting_what_is_not_stopped_is_404(made: Parts, api: Api) -> None:
    """An unknown product, and one that nothing stops."""
    product = api.get("/api/v1/products")["data"][0]["id"]
    for path in (product, "prd_none", "x" * 100):
        assert api.post(f"/api/v1/products/{path}/lift", None, 404)["code"] == "not_found"


@pytest.mark.parametrize(
    ("start", "period", "now", "end"),
    [
        (date(2026, 1, 15), "month", "2026-11-21", "2026-12-15"),
        (date(2026, 1, 31), "month", "2026-02-10", "2026-02-28"),
        (date(2026, 1, 31), "month", "2026-02-28", "2026-03-31"),
        (date(2024, 1, 31), "month", "2024-02-01", "2024-02-29"),
        (date(2026, 11, 21), "month", "2026-11-21", "2026-12-21"),
        (date(2026, 12, 5), "month", "2026-11-21", "2026-12-05"),
        (date(2025, 2, 1), "quarter", "2026-11-21", "2027-02-01"),
        (date(2020, 11, 21), "year", "2026-11-20", "2026-11-21"),
        (None, "month", "2026-11-21", "2026-12-01"),
        (None, "quarter", "2026-11-21", "2027-01-01"),
        (None, "year", "2026-11-21", "2027-01-01"),
        (date(1, 1, 1), "month", "2026-11-21", "2026-12-01"),
        (date(9999, 12, 31), "month", "2026-11-21", "2026-11-30"),
    ],
)
def test_periods_follow_each_other_from_the_start_date(start: date | None, period: str, now: str, end: str) -> None:
    """The next boundary after the moment, at midnight UTC; a day that a month lacks is its last."""
    at = int(datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()) * 10**9 + 12 * 3600 * 10**9
    assert datetime.fromtimestamp(period_end(start, period, at) // 10**9, UTC).date().isoformat() == end


@pytest.mark.parametrize("text", ["2026-01-15T00:00:00Z", "2026-01-15", "1/15/2026 5:40:29 PM -08:00", "1/15/2026"])
def test_dates_are_read_as_either_form_writes_them(text: str) -> None:
    """One that cannot be read only leaves the calendar's months."""
    assert read(flat(BudgetStartDate=text)).start == date(2026, 1, 15)
    assert read(flat(BudgetStartDate="soon")).start is None
    assert read(flat(BudgetStartDate="13/13/2026")).start is None


def test_the_same_alert_has_the_same_id() -> None:
    """Long ids of Azure's are shortened, flat alerts are told apart by what they say."""
    long = "/subscriptions/" + "x" * 400
    assert len(read(common(alert=long)).id) == 64
    assert read(common(alert=long)) == read(common(alert=long))
    assert read(flat()).id == read(json.loads(json.dumps(flat()))).id
    assert read(flat()).id != read(flat("521")).id
    with pytest.raises(ApiProblem):
        read(7)


def test_the_moment_of_the_tests_is_noon() -> None:
    """What the dates above are worked out from."""
    assert datetime.fromtimestamp(NOON // 10**9, UTC).isoformat() == "2026-11-21T12:00:00+00:00"
