"""Products, subscriptions to them, and the keys that these give."""

from typing import Any

import pytest

from console_parts import NOON, WHO, Api, Parts, opened, settled_call


@pytest.fixture
def gold(api: Api) -> Any:
    """A product."""
    return api.post("/api/v1/products", {"name": "gold", "models": ["gpt-4o"]})


def test_a_key_of_a_subscription_is_of_its_product_and_holder(api: Api, gold: Any) -> None:
    """By name or by id; what the subscription says need not be repeated."""
    made = api.post(f"/api/v1/products/{gold['id']}/subscriptions", {"team": "research"})
    assert (made["product"], made["team"], made["name"], made["state"]) == (
        "gold",
        "research",
        "gold-research",
        "active",
    )
    for n, named in enumerate((made["id"], made["name"])):
        key = api.post("/api/v1/keys", {"name": f"k{n}", "subscription": named, "project": "search"})
        assert (key["subscription"], key["product"], key["team"]) == (made["id"], "gold", "research")
    assert len(api.get(f"/api/v1/keys?subscription={made['id']}")["data"]) == 2
    assert [each["id"] for each in api.get("/api/v1/subscriptions?product=gold")["data"]] == [made["id"]]
    assert [each["id"] for each in api.get(f"/api/v1/products/{gold['id']}/subscriptions")["data"]] == [made["id"]]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"product": "gold"}, "field_missing", "team"),
        ({"product": "none", "team": "a"}, "field_range", "product"),
        ({"product": "gold", "team": "a", "state": "suspended"}, "field_forbidden", "state"),
        ({"team": "a"}, "field_missing", "product"),
    ],
)
def test_a_subscription_is_somebodys_and_to_a_product(api: Api, gold: Any, body: Any, code: str, field: str) -> None:
    """What is wrong is told by its field."""
    problem = api.post("/api/v1/subscriptions", body, 422)
    assert (problem["code"], problem["errors"][0]["field"]) == (code, field)


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"subscription": "none"}, "field_range", "subscription"),
        ({"subscription": "gold-ada", "product": "silver"}, "invariant", "product"),
        ({"subscription": "gold-ada", "user": "eve"}, "invariant", "user"),
        ({"subscription": "gold-ada", "organization": "else"}, "field_range", "subscription"),
    ],
)
def test_a_key_that_does_not_fit_its_subscription_is_refused(
    api: Api, gold: Any, body: Any, code: str, field: str
) -> None:
    """Another product, user or organization than the subscription's."""
    api.post("/api/v1/subscriptions", {"product": "gold", "user": "ada"})
    problem = api.post("/api/v1/keys", {"name": "k", **body}, 422)
    assert (problem["code"], problem["errors"][0]["field"]) == (code, field)


def test_states_of_a_subscription_follow_each_other(api: Api, gold: Any) -> None:
    """Suspended and back; cancelled is for good, and gives no keys."""
    made = api.post("/api/v1/subscriptions", {"product": "gold", "user": "ada"})
    path = f"/api/v1/subscriptions/{made['id']}"
    key = api.post("/api/v1/keys", {"name": "k", "subscription": made["id"]})
    assert api.send("PATCH", path, {"state": "suspended"})["state"] == "suspended"
    assert api.get(f"/api/v1/keys/{key['id']}")["stopped_by"] == f"subscription {made['id']}"
    assert api.send("PATCH", path, {"state": "active"})["state"] == "active"
    assert api.send("PATCH", path, {"product": "silver"}, 422)["code"] == "field_forbidden"
    assert "1 key" in api.send("DELETE", path, status=409)["detail"]
    assert api.send("PATCH", path, {"state": "cancelled"})["state"] == "cancelled"
    assert api.send("PATCH", path, {"state": "active"}, 409)["code"] == "conflict"
    assert api.post("/api/v1/keys", {"name": "l", "subscription": made["id"]}, 422)["code"] == "invariant"
    api.post(f"/api/v1/keys/{key['id']}/revoke", {}, 200)
    api.send("DELETE", path)
    assert api.get(path, 404)["code"] == "not_found"


def test_a_key_of_a_subscription_opens_nothing_without_it_nor_do_those_that_it_made(
    made: Parts, api: Api, gold: Any
) -> None:
    """What it makes is of the same subscription, whatever was asked for, and ends with it; others are left alone."""
    subscription = api.post("/api/v1/subscriptions", {"product": "gold", "user": "carol"})["id"]
    body = {"role": "user", "user": "carol", "product": "gold"}
    parent = api.post("/api/v1/keys", {"name": "parent", "subscription": subscription, **body})
    loose = api.post("/api/v1/keys", {"name": "loose", **body})
    mine = Api(made.app, parent["secret"])

    child = mine.post("/api/v1/keys", {"name": "child", "role": "user"})
    assert child["subscription"] == subscription
    without = mine.post("/api/v1/keys", {"name": "without", "subscription": None}, 403)
    assert without["detail"].startswith("subscription: ")
    assert mine.post(f"/api/v1/keys/{loose['id']}/rotate", {}, 403)["code"] == "role_forbidden"

    for state, answer in (("suspended", 403), ("active", 200), ("cancelled", 403)):
        api.send("PATCH", f"/api/v1/subscriptions/{subscription}", {"state": state})
        opened_by = [Api(made.app, each["secret"]).call("GET", "/api/v1/keys") for each in (parent, child, loose)]
        assert [each.status_code for each in opened_by] == [answer, answer, 200]


def test_usage_is_summed_up_by_subscription(made: Parts, api: Api, gold: Any) -> None:
    """Through the keys, revoked and deleted ones too; what has no subscription stands under none."""
    first = api.post("/api/v1/subscriptions", {"product": "gold", "user": "ada"})
    second = api.post("/api/v1/subscriptions", {"product": "gold", "team": "ops"})
    keys = [
        api.post("/api/v1/keys", {"name": f"k{n}", "subscription": each["id"]})["id"]
        for n, each in enumerate((first, first, second))
    ]
    keys.append(api.post("/api/v1/keys", {"name": "none"})["id"])
    made.journal.add(opened())
    for n, key in enumerate(keys):
        made.journal.add(*settled_call(f"req_{n}", who=WHO._replace(key=key), cost=10**n, at=NOON))
    made.project()
    api.send("DELETE", f"/api/v1/keys/{keys[0]}")
    told = api.get("/api/v1/usage?by=subscription")["data"]
    found = {row["subscription_name"]: (row["subscription"], row["requests"], row["cost"]) for row in told}
    assert found == {
        None: (None, 1, "0.000001"),
        "gold-ada": (first["id"], 2, "0.000000011"),
        "gold-ops": (second["id"], 1, "0.0000001"),
    }
    by_both = api.get("/api/v1/usage?by=model,subscription&interval=month")["data"]
    assert sum(row["requests"] for row in by_both) == 4
    assert {row["model"] for row in by_both} == {"gpt-4o"}
