"""``/api/v1/prices``."""

from typing import Any

import pytest

from console_parts import HOUR, Api, Parts

PRICE: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-4o",
    "unit": "input_tokens",
    "per": 1_000_000,
    "price": "3",
}


def test_bundled_prices_are_listed_and_own_ones_take_their_place(api: Api) -> None:
    """An own price has an id; the others have none."""
    before = api.get("/api/v1/prices?provider=openai&model=gpt-4o")["data"]
    assert [(row["unit"], row["price"], row["id"]) for row in before] == [
        ("input_tokens", "2.5", None),
        ("output_tokens", "10", None),
    ]
    own = api.send("PUT", "/api/v1/prices", {**PRICE, "price": "3.000001"})
    after = api.get("/api/v1/prices?model=gpt-4o")["data"]
    assert (after[0]["price"], after[0]["id"], after[0]["source"]) == ("3.000001", own["id"], "api")
    assert api.get("/api/v1/prices?model=other")["data"] == []


def test_a_later_price_ends_the_one_before(made: Parts, api: Api) -> None:
    """Prices of one unit follow each other without gap or overlap."""
    first = api.send("PUT", "/api/v1/prices", PRICE)
    later = api.send("PUT", "/api/v1/prices", {**PRICE, "price": "4", "effective_from": "2026-12-01T00:00:00Z"})
    made.clock.now += HOUR
    middle = api.send("PUT", "/api/v1/prices", {**PRICE, "price": "5"})
    ends = {row["id"]: row["effective_to"] for row in made.books.listing("price")}
    rows = {row["id"]: row["effective_from"] for row in made.books.listing("price")}
    assert ends[first["id"]] == rows[middle["id"]]
    assert ends[middle["id"]] == rows[later["id"]]
    assert ends[later["id"]] == 0


@pytest.mark.parametrize(
    ("change", "code", "field", "status"),
    [
        ({"price": "-1"}, "field_range", "price", 422),
        ({"price": 3}, "field_type", "price", 422),
        ({"price": "1,5"}, "field_range", "price", 422),
        ({"price": None}, "field_type", "price", 422),
        ({"per": 0}, "field_range", "per", 422),
        ({"per": 1.5}, "field_type", "per", 422),
        ({"unit": "words"}, "field_enum", "unit", 422),
        ({"provider": "opnai"}, "field_enum", "provider", 422),
        ({"model": ""}, "field_range", "model", 422),
        ({"effective_from": "2020-01-01T00:00:00Z"}, "invariant", "effective_from", 422),
        ({"effective_from": "yesterday"}, "field_type", "effective_from", 422),
        ({"effective_from": "2099-01-01"}, "field_range", "effective_from", 422),
        ({"per": 1}, "invariant", "price", 422),
        ({"curency": "EUR"}, "field_unknown", "curency", 422),
        ({"price": "10000000", "confirm": True}, "field_range", "price", 422),
        ({"region": "mars"}, "field_enum", "region", 422),
    ],
)
def test_a_price_that_cannot_be_is_refused(
    api: Api, change: dict[str, Any], code: str, field: str, status: int
) -> None:
    """Per token where per million was meant is stopped too."""
    problem = api.send("PUT", "/api/v1/prices", {**PRICE, **change}, status=status)
    assert (problem["code"], problem["errors"][0]["field"]) == (code, field)


def test_a_price_far_from_the_last_is_taken_when_confirmed(api: Api) -> None:
    """The flag is the word of somebody who looked."""
    assert api.send("PUT", "/api/v1/prices", {**PRICE, "per": 1, "confirm": True})["per"] == 1


def test_an_own_price_can_be_taken_back(api: Api) -> None:
    """The bundled one is in force again."""
    own = api.send("PUT", "/api/v1/prices", PRICE)
    api.send("DELETE", f"/api/v1/prices/{own['id']}")
    assert api.get("/api/v1/prices")["data"][0]["price"] == "2.5"
    assert api.send("DELETE", f"/api/v1/prices/{own['id']}", status=404)["code"] == "not_found"


def test_places_are_listed_without_any_secret(api: Api) -> None:
    """Providers, deployments and models of the catalogue; no credential in any of them."""
    places = api.get("/api/v1/places")
    assert places["providers"][0]["name"] == "openai"
    assert places["deployments"][0]["priced"] is True
    assert places["models"] == [{"name": "gpt-4o", "to": ["openai/gpt-4o"]}]
    assert "upstream-secret" not in str(places)
