"""``/api/Quota``: the interface of the quota service, with its repairs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console_parts import DAY, NOON, SECOND, Api, Parts, parts, settled_call
from fakes import AwayGate
from faregate.console.keys import NewKey, create
from faregate.control import Report, Reported
from faregate.core.amounts import posted_amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Intended, Settled, Started

#: 2.50 and 10 dollars a million tokens: 100 and 50 tokens cost 0.00075 dollars.
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "data: hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
    }
)


class BookingGate(AwayGate):
    """A gate that books reports in the journal of the test and has nothing else to tell."""

    connected = False

    def __init__(self) -> None:
        self.made: Parts
        self.refused = ""
        self.reports: list[Report] = []

    async def report(self, order: Report) -> Reported:
        if self.refused:
            return Reported(changed=False, refused=self.refused)
        for known in self.reports:
            if known.id in (order.id, *order.also):
                return Reported(changed=False, same=(known.usage, known.charge) == (order.usage, order.charge))
        self.reports.append(order)
        made, at = self.made, self.made.clock.now
        held = posted_amounts(order.charge, order.usage)
        made.journal.add(
            Intended(order.id, at, at, order.who, held, order.price_version, order.stream),
            Settled(
                order.id, at, "ok", 200, "", order.usage, order.usage_source, order.cost, order.charge,
                order.price_version, 0, 0, (), order.answered_model,
            ),
        )  # fmt: skip
        made.project()
        return Reported()


@pytest.fixture
def gate() -> BookingGate:
    return BookingGate()


@pytest.fixture
def made(tmp_path: Path, gate: BookingGate) -> Iterator[Parts]:
    """A console with a gate that books reports."""
    with parts(tmp_path, gate=gate) as each:
        gate.made = each
        each.journal.add(Started(1, NOON - DAY))
        yield each


@pytest.fixture
def key(made: Parts) -> tuple[str, str]:
    """Id and secret of a caller's key of no product."""
    row, secret = create(made.console, NewKey(name="app", team="research"))
    return row["id"], secret


def _create(api: Api, key: str, amount: str = "10", status: int = 200, **more: Any) -> Any:
    return api.post("/api/Quota/", {"subscriptionKey": key, "productName": "bots", "amount": amount, **more}, status)


def _amount(api: Api, key_id: str) -> str:
    return str(api.get(f"/api/Quota/{key_id}")["Amount"])


def _update(api: Api, key: str, status: int = 200, **more: Any) -> Any:
    body = {"subscriptionKey": key, "prompt": "Hello?", "responseBody": ANSWER, **more}
    return api.post("/api/Quota/Update", body, status)


def test_a_quota_is_made_and_read(made: Parts, api: Api, key: tuple[str, str]) -> None:
    """By the key's secret or its id; the answer is indented JSON, amounts are texts, and no secret is in it."""
    assert _create(api, key[1], "0.10") is True
    text = api.call("GET", f"/api/Quota/{key[0]}").text

    assert json.loads(text) == {
        "SubscriptionKey": key[0], "ProductName": "bots", "Amount": "0.1", "RateLimitOnCost": True,
    }  # fmt: skip
    assert text.startswith('{\n  "SubscriptionKey"')
    limit = api.get("/api/v1/limits")["data"][0]
    assert (limit["select"], limit["unit"], limit["window"], limit["amount"]) == (
        {"key": key[0]},
        "usd",
        "lifetime",
        "0.1",
    )
    assert limit["source"] == "quota"


def test_a_second_create_is_a_deposit(api: Api, key: tuple[str, str]) -> None:
    """It adds to the balance; with a requestId it does so once."""
    _create(api, key[1])
    _create(api, key[0], "5", requestId="invoice 7")
    _create(api, key[0], "5", requestId="invoice 7")
    assert _amount(api, key[0]) == "15"
    problem = _create(api, key[0], "6", 409, requestId="invoice 7")
    assert problem["errors"][0]["field"] == "requestId"

    history = api.get(f"/api/Quota/{key[0]}/history")
    assert [(row["operation"], row["amount"], row["balance"]) for row in history] == [
        ("Deposit", "5", "15"), ("Create", "10", "10"),
    ]  # fmt: skip


def test_the_first_create_repeated_is_one_too(api: Api, key: tuple[str, str]) -> None:
    """The request that made the quota does not pay in a second time."""
    _create(api, key[0], requestId="first")
    _create(api, key[0], requestId="first")
    assert _amount(api, key[0]) == "10"


def test_a_request_is_carried_out_once_also_if_another_quota_took_the_place(api: Api, key: tuple[str, str]) -> None:
    """Sent again late, it neither pays in nor brings the old quota back."""
    _create(api, key[0], requestId="first")
    _create(api, key[0], "500", rateLimitOnCost=False, requestId="second")
    _create(api, key[0], requestId="first")
    _create(api, key[0], rateLimitOnCost=True, requestId="first")
    assert _create(api, key[0], "10", 409, rateLimitOnCost=False, requestId="first")["code"] == "conflict"
    assert _amount(api, key[0]) == "500"


def test_the_key_joins_the_product(made: Parts, api: Api, key: tuple[str, str]) -> None:
    """So that what stops the product stops it; a key of another product is not taken over."""
    _create(api, key[0])
    row = made.books.get("key", key[0])
    assert row is not None
    assert row["product"] == "bots"
    assert [row["name"] for row in api.get("/api/v1/products")["data"]] == ["bots"]

    body = {"subscriptionKey": key[0], "productName": "others", "amount": "1"}
    problem = api.post("/api/Quota/", body, 409)
    assert problem["errors"][0]["field"] == "productName"
    assert _amount(api, key[0]) == "10"


def test_a_call_that_went_past_the_gate_is_booked(
    made: Parts, api: Api, gate: BookingGate, key: tuple[str, str]
) -> None:
    """By the provider's report and the model's price, dated or not; the text of the answer is no stream."""
    _create(api, key[0])
    assert _update(api, key[1]) is True

    assert _amount(api, key[0]) == "9.99925"
    record = api.get("/api/v1/requests")["data"][0]
    assert (record["key"], record["product"], record["operation"]) == (key[0], "bots", "reported")
    assert (record["model"], record["answered_model"], record["cost"]) == ("gpt-4o", "gpt-4o-2024-08-06", "0.00075")
    assert (record["input_tokens"], record["output_tokens"], record["usage_source"]) == (100, 50, "provider")
    newest = api.get(f"/api/Quota/{key[0]}/history")[0]
    assert newest["operation"] == "Update"
    assert (newest["tokenAmount"], newest["promptTokens"], newest["transCost"]) == (150, 100, "0.00075")
    assert (newest["balance"], newest["model"]) == ("9.99925", "gpt-4o")


def test_what_has_happened_counts_beyond_the_quota(api: Api, key: tuple[str, str]) -> None:
    """The balance falls below zero, and shows it."""
    _create(api, key[0], "0.0005")
    _update(api, key[0])
    assert _amount(api, key[0]) == "-0.00025"


def test_a_repeated_report_is_booked_once(made: Parts, api: Api, gate: BookingGate, key: tuple[str, str]) -> None:
    """By its requestId, for a week, for each key by itself; another call under it is refused."""
    _create(api, key[0])
    _update(api, key[0], requestId="call 1")
    made.clock.now += 6 * DAY
    _update(api, key[0], requestId="call 1")
    assert len(gate.reports) == 1

    other = json.loads(ANSWER)
    other["usage"] = {"prompt_tokens": 1, "completion_tokens": 1}
    problem = _update(api, key[0], 409, requestId="call 1", responseBody=json.dumps(other))
    assert problem["errors"][0]["field"] == "requestId"
    second, _ = create(made.console, NewKey(name="other"))
    _update(api, second["id"], requestId="call 1")
    _update(api, key[0])
    assert len(gate.reports) == 3


def _stream(*payloads: Any, done: bool = True) -> str:
    events = [f"data: {json.dumps(each)}\n\n" for each in payloads]
    return "".join([*events, "data: [DONE]\n\n"] if done else events)


def _chunk(text: str, **more: Any) -> dict[str, Any]:
    delta = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return {"object": "chat.completion.chunk", "model": "gpt-4o", **delta, **more}


def test_a_stream_is_booked_by_its_own_report(gate: BookingGate, api: Api, key: tuple[str, str]) -> None:
    """Where the stream tells its usage, events and empty deltas are nobody's tokens."""
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}
    _update(api, key[0], responseBody=_stream(_chunk(""), _chunk("a b c d"), _chunk("e"), _chunk("", **usage)))
    report = gate.reports[0]
    assert (report.usage.input_tokens, report.usage.output_tokens, report.stream) == (7, 3, True)


def test_a_stream_without_a_report_is_counted(gate: BookingGate, api: Api, key: tuple[str, str]) -> None:
    """By the tokenizer, whole prompt and whole answer: a long prompt with a short answer never costs less than zero."""
    prompt = {"messages": [{"role": "system", "content": "word " * 300}, {"role": "user", "content": "Hi"}]}
    _update(api, key[0], prompt=prompt, responseBody=_stream(_chunk("one two three"), _chunk(" four")))
    report = gate.reports[0]
    assert (report.usage_source, report.usage.output_tokens) == ("counted", 4)
    assert 300 < report.usage.input_tokens < 330
    assert report.cost > 0


def test_an_answer_without_a_report_is_counted(gate: BookingGate, api: Api, key: tuple[str, str]) -> None:
    """Its prompt may be the request's body as text, or plain text; without one it is asked for."""
    answer = json.loads(ANSWER)
    del answer["usage"]
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 50}]})
    _update(api, key[0], responseBody=json.dumps(answer), prompt=body)
    _update(api, key[0], responseBody=json.dumps(answer), prompt="word " * 50)
    assert gate.reports[0].usage == gate.reports[1].usage
    assert 50 < gate.reports[0].usage.input_tokens < 70

    problem = _update(api, key[0], 400, responseBody=json.dumps(answer), prompt=None)
    assert (problem["code"], problem["errors"][0]["field"]) == ("field_missing", "prompt")


def test_a_broken_report_is_never_a_gift(gate: BookingGate, api: Api, key: tuple[str, str]) -> None:
    """Negative, textual or absurd usage is counted instead."""
    broken: list[Any] = [{"prompt_tokens": -5, "completion_tokens": 2}, {"prompt_tokens": "x"}, [], "many"]
    for told in broken:
        _update(api, key[0], responseBody=json.dumps({**json.loads(ANSWER), "usage": told}))
    assert [report.usage_source for report in gate.reports] == ["provider_invalid"] * 4
    assert all(report.cost > 0 for report in gate.reports)


def test_an_error_of_the_provider_costs_nothing(gate: BookingGate, api: Api, key: tuple[str, str]) -> None:
    """It leaves no row."""
    assert _update(api, key[0], responseBody='{"error": {"message": "overloaded"}}') is True
    assert gate.reports == []


JUNK: list[tuple[dict[str, Any], str, str]] = [
    ({"responseBody": "<html>"}, "field_type", "responseBody"),
    ({"responseBody": "{"}, "field_type", "responseBody"),
    ({"responseBody": "data: x\n\n"}, "field_type", "responseBody"),
    ({"responseBody": "[1]"}, "field_type", "responseBody"),
    ({"responseBody": '{"a": 1}'}, "field_type", "responseBody"),
    ({"responseBody": "  "}, "field_range", "responseBody"),
    ({"responseBody": 5}, "field_type", "responseBody"),
    ({"responseBody": '{"object": "chat.completion", "usage": {}}'}, "field_missing", "deployment"),
    ({"responseBody": ANSWER.replace("gpt-4o-2024-08-06", "dreamt-9")}, "price_unknown", "responseBody"),
    ({"deployment": "nowhere"}, "field_range", "deployment"),
    ({"prompt": 5}, "field_type", "prompt"),
    ({"requestId": ""}, "field_range", "requestId"),
    ({"cost": 1}, "field_unknown", "cost"),
]


def test_junk_reports_are_refused_by_field(gate: BookingGate, api: Api, key: tuple[str, str]) -> None:
    """With 400 and the field at fault, never with a default price and never with 500."""
    for change, code, field in JUNK:
        problem = _update(api, key[0], 400, **change)
        assert (problem["code"], problem["errors"][0]["field"]) == (code, field), change
    assert gate.reports == []


NO_QUOTAS: list[tuple[dict[str, Any], str, str]] = [
    ({"subscriptionKey": None}, "field_type", "subscriptionKey"),
    ({"subscriptionKey": ...}, "field_missing", "subscriptionKey"),
    ({"productName": ...}, "field_missing", "productName"),
    ({"amount": ...}, "field_missing", "amount"),
    ({"amount": 5}, "field_type", "amount"),
    ({"amount": "-5"}, "field_range", "amount"),
    ({"amount": "ten"}, "field_range", "amount"),
    ({"amount": "1e3"}, "field_range", "amount"),
    ({"amount": "1000000001"}, "field_range", "amount"),
    ({"amount": "1.5", "rateLimitOnCost": False}, "field_range", "amount"),
    ({"amount": "9" * 16, "rateLimitOnCost": False}, "field_range", "amount"),
    ({"productName": ""}, "field_range", "productName"),
    ({"rateLimitOnCost": "yes"}, "field_type", "rateLimitOnCost"),
    ({"renewal": "fortnight"}, "field_enum", "renewal"),
    ({"balance": "5"}, "field_unknown", "balance"),
]


def test_what_is_no_quota_is_refused_with_400(api: Api, key: tuple[str, str]) -> None:
    """The service answered 400 to what is missing; the field at fault is named."""
    for change, code, field in NO_QUOTAS:
        body = {"subscriptionKey": key[0], "productName": "bots", "amount": "1", **change}
        problem = api.post("/api/Quota/", {name: value for name, value in body.items() if value is not ...}, 400)
        assert (problem["code"], problem["errors"][0]["field"]) == (code, field), change


def test_names_may_be_written_in_any_case(api: Api, key: tuple[str, str]) -> None:
    """As the service read them; two spellings of one name are no body."""
    body = {"SubscriptionKey": key[0], "PRODUCTNAME": "bots", "Amount": "1"}
    assert api.post("/api/Quota", body, 200) is True
    assert api.post("/api/Quota", {**body, "amount": "2"}, 400)["code"] == "field_missing"


def test_unknown_keys_are_404(api: Api) -> None:
    """Not a balance of zero, as it was."""
    for key_id in ("key_none", "x" * 300, "%00", "Update"):
        assert api.get(f"/api/Quota/{key_id}", 404)["code"] == "not_found"
        assert api.get(f"/api/Quota/{key_id}/history", 404)["code"] == "not_found"


def test_a_key_without_a_quota_is_404_too(made: Parts, api: Api, key: tuple[str, str]) -> None:
    """And so is an admin's key, or a secret that nobody has."""
    assert api.get(f"/api/Quota/{key[0]}", 404)["code"] == "not_found"
    _create(api, "sk-fg-" + "0" * 49, "1", 404)
    _create(api, made.admin_key("other"), "1", 404)


def test_a_secret_does_not_belong_in_a_path(api: Api, key: tuple[str, str]) -> None:
    """It is refused with the reason, and not repeated."""
    answer = api.call("GET", f"/api/Quota/{key[1]}")
    assert (answer.status_code, answer.json()["code"]) == (400, "field_forbidden")
    assert "logged" in answer.json()["detail"]
    assert key[1] not in answer.text


def test_a_quota_changes_from_dollars_to_tokens_and_back(made: Parts, api: Api, key: tuple[str, str]) -> None:
    """Another limit takes its place with the new balance whole, whatever was used before; both entries are kept."""
    _create(api, key[0], "10")
    _update(api, key[0])
    made.clock.now += SECOND
    _create(api, key[0], "1000", rateLimitOnCost=False)
    assert api.get(f"/api/Quota/{key[0]}") == {
        "SubscriptionKey": key[0], "ProductName": "bots", "Amount": "1000", "RateLimitOnCost": False,
    }  # fmt: skip
    made.clock.now += SECOND
    _update(api, key[0])
    made.clock.now += SECOND
    _create(api, key[0], "50")
    assert _amount(api, key[0]) == "900"

    told = [(row["operation"], row["amount"], row["balance"]) for row in api.get(f"/api/Quota/{key[0]}/history")]
    assert told == [
        ("Deposit", "50", "900"),
        ("Update", "0", "850"),
        ("Create", "1000", "1000"),
        ("Close", "9.99925", "9.99925"),
        ("Update", "0", "9.99925"),
        ("Create", "10", "10"),
    ]
    assert len(api.get("/api/v1/limits")["data"]) == 1
    made.clock.now += SECOND
    _create(api, key[0], "3", rateLimitOnCost=True)
    assert _amount(api, key[0]) == "3"


def test_a_quota_of_a_key_with_a_past_begins_whole(made: Parts, api: Api, key: tuple[str, str]) -> None:
    """What the key used before it had a quota is not taken off."""
    made.journal.add(*settled_call("req_1", who=Attribution(key=key[0], model="gpt-4o"), cost=5 * 10**9))
    made.project()
    _create(api, key[0], "2")
    assert _amount(api, key[0]) == "2"
    assert api.get("/api/Quota/")[0]["amount"] == "2"
    _update(api, key[0])
    assert _amount(api, key[0]) == "1.99925"


def test_a_quota_may_renew_each_month(made: Parts, api: Api, key: tuple[str, str]) -> None:
    """Its amount is that of each month; after the end of one it is whole again, without anybody's doing."""
    _create(api, key[0], "10", renewal="month")
    _update(api, key[0])
    shown = api.get(f"/api/Quota/{key[0]}")
    assert (shown["Amount"], shown["Renewal"], shown["RenewsAt"]) == ("9.99925", "month", "2026-12-01T00:00:00Z")
    made.clock.now += 15 * DAY
    assert _amount(api, key[0]) == "10"


def test_all_quotas_are_listed(made: Parts, api: Api, key: tuple[str, str]) -> None:
    """Each with its funding, what was used, and its balance."""
    _create(api, key[0])
    second, _ = create(made.console, NewKey(name="other"))
    _create(api, second["id"], "100", rateLimitOnCost=False)
    _update(api, second["id"])

    rows = {row["subscriptionKey"]: row for row in api.get("/api/Quota/")}
    assert (rows[key[0]]["amount"], rows[key[0]]["balance"], rows[key[0]]["tokenAmount"]) == ("10", "10", 0)
    told = rows[second["id"]]
    assert (told["operation"], told["balance"], told["tokenAmount"], told["promptTokens"]) == (
        "Create",
        "-50",
        150,
        100,
    )
    assert (told["RateLimitOnCost"], told["transCost"]) == (False, "150")
    first = api.get("/api/Quota?limit=1")
    assert [row["subscriptionKey"] for row in first] == [key[0]]
    assert [row["subscriptionKey"] for row in api.get(f"/api/Quota?after={key[0]}")] == [second["id"]]


def test_a_history_is_bounded(made: Parts, api: Api, key: tuple[str, str]) -> None:
    """By a number of rows and a time; beyond the bounds it is refused."""
    _create(api, key[0])
    made.clock.now += SECOND
    _update(api, key[0])
    path = f"/api/Quota/{key[0]}/history"
    assert len(api.get(f"{path}?limit=1")) == 1
    assert [row["operation"] for row in api.get(f"{path}?until=2026-11-21T12:00:01Z")] == ["Create"]
    assert len(api.get(f"{path}?until=9999-12-31")) == 2
    assert api.get(f"{path}?until=0001-01-01") == []
    for query, code in (("limit=0", "page_invalid"), ("limit=1001", "page_invalid"), ("until=soon", "filter_invalid")):
        assert api.get(f"{path}?{query}", 400)["code"] == code
    assert api.get(f"{path}?colour=red", 400)["code"] == "filter_invalid"


def test_a_deposit_beyond_the_largest_amount_is_refused(api: Api, key: tuple[str, str]) -> None:
    """Nothing of it is paid in."""
    _create(api, key[0])
    body = {"subscriptionKey": key[0], "productName": "bots", "amount": "1000000000"}
    problem = api.post("/api/Quota", body, 400)
    assert (problem["code"], problem["errors"][0]["field"]) == ("field_range", "amount")
    assert "the largest amount" in problem["detail"]
    assert _amount(api, key[0]) == "10"


def test_an_ordinary_limit_of_the_same_kind_is_left_alone(api: Api, key: tuple[str, str]) -> None:
    """A quota does not take over what somebody set by other means."""
    limit = {"select": {"key": key[0]}, "unit": "usd", "amount": "1", "window": "lifetime"}
    made_limit = api.post("/api/v1/limits", limit)
    assert made_limit["id"] in _create(api, key[0], "1", 409)["detail"]


def test_what_is_set_by_other_means_shows_in_the_quota(api: Api, key: tuple[str, str]) -> None:
    """A quota is a limit like any other: deposits, new amounts and no amount at all."""
    _create(api, key[0])
    limit = api.get("/api/v1/limits")["data"][0]["id"]
    api.post(f"/api/v1/limits/{limit}/entries", {"operation": "refund", "amount": "2", "reason": "a bad day"})
    assert _amount(api, key[0]) == "12"
    assert api.get(f"/api/Quota/{key[0]}/history")[0]["operation"] == "Refund"
    api.send("PATCH", f"/api/v1/limits/{limit}", {"amount": None})
    assert _amount(api, key[0]) == "1000000000"
    assert api.get("/api/Quota/")[0]["amount"] == "1000000000"
    assert _create(api, key[0], "1", 409)["code"] == "conflict"


def test_credentials_are_those_that_the_service_had(made: Parts, key: tuple[str, str]) -> None:
    """A header, a query parameter or ``Authorization``, all with an admin key; none, a caller's, or two do not open."""
    admin, other = made.admin_key(), made.admin_key("other")
    nobody = Api(made.app)
    assert nobody.get("/api/Quota/", 401)["code"] == "auth_missing"
    assert nobody.get("/api/Quota/", headers={"x-functions-key": admin}) == []
    assert nobody.get(f"/api/Quota?code={admin}") == []
    assert nobody.get("/api/Quota", headers={"authorization": f"Bearer {admin}"}) == []
    assert nobody.get(f"/api/Quota?code={admin}", headers={"x-functions-key": admin}) == []
    assert nobody.get("/api/Quota", 403, headers={"x-functions-key": key[1]})["code"] == "role_forbidden"
    assert nobody.get("/api/Quota?code=x", 401)["code"] == "auth_malformed"
    both = nobody.get(f"/api/Quota?code={admin}", 400, headers={"x-functions-key": other})
    assert both["code"] == "auth_conflict"
    # Everywhere else they are nobody's credentials.
    for path in ("/api/v1/keys", "/api/Quotas", "/api/QuotaX/"):
        assert nobody.get(f"{path}?code={admin}", 401)["code"] == "auth_missing"


def test_a_secret_is_kept_nowhere(made: Parts, api: Api, key: tuple[str, str]) -> None:
    """It finds its key by its digest: neither the books nor the trail nor any answer holds it."""
    _create(api, key[1])
    _update(api, key[1])
    told = api.call("GET", "/api/Quota/").text + api.call("GET", f"/api/Quota/{key[0]}/history").text
    kept = b"".join(file.read_bytes() for file in (made.folder / "data").rglob("*") if file.is_file())
    assert key[1] not in told
    assert key[1].encode() not in kept
    assert key[0].encode() in kept


def test_the_interface_is_described(api: Api) -> None:
    """As the rest of the API, with the names that are sent."""
    document = api.get("/api/openapi.json")
    wanted = {"/api/Quota/", "/api/Quota/Update", "/api/Quota/Budget", "/api/Quota/{key_id}"}
    assert wanted <= set(document["paths"])
    assert {"subscriptionKey", "responseBody"} <= set(document["components"]["schemas"]["Update"]["properties"])


def test_setting_it_as_a_limit_keeps_it_a_quota(api: Api, key: tuple[str, str]) -> None:
    """With its product and its past."""
    _create(api, key[0], "100", rateLimitOnCost=False)
    _create(api, key[0], "5", rateLimitOnCost=True)
    api.post("/api/v1/limits", {"select": {"key": key[0]}, "unit": "usd", "amount": "7", "window": "lifetime"})
    assert _amount(api, key[0]) == "7"
    told = [row["operation"] for row in api.get(f"/api/Quota/{key[0]}/history")]
    assert sorted(told) == ["Close", "Create", "Create", "Set"]


def test_without_a_gate_nothing_is_booked(gate: BookingGate, api: Api, key: tuple[str, str], tmp_path: Path) -> None:
    """The reporter is told to come again, and why."""
    gate.refused = "Not accepted: the gateway is stopping; nothing was charged."
    problem = _update(api, key[0], 503)
    assert (problem["code"], "stopping" in problem["detail"]) == ("unavailable", True)
    (tmp_path / "alone").mkdir()
    with parts(tmp_path / "alone") as alone:
        row, _ = create(alone.console, NewKey(name="app"))
        assert _update(Api(alone.app, alone.admin_key()), row["id"], 503)["code"] == "unavailable"
