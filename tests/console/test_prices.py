"""``/api/v1/prices``."""

from pathlib import Path
from typing import Any

import pytest

from console_parts import HOUR, Api, Parts, parts
from faregate.config.load import load_text
from faregate.console.prices import compiled, rates_at
from faregate.core.money import dollars_of_picos

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


def test_a_price_is_read_by_its_id(api: Api) -> None:
    """An own price is read as it was set, also when it has ended; a bundled one has no id to be read by."""
    first = api.send("PUT", "/api/v1/prices", PRICE)
    assert api.get(f"/api/v1/prices/{first['id']}")["price"] == "3"
    later = api.send("PUT", "/api/v1/prices", {**PRICE, "price": "4", "effective_from": "2026-12-01T00:00:00Z"})
    ended = api.get(f"/api/v1/prices/{first['id']}")
    assert ended["effective_to"] == later["effective_from"]
    assert api.get("/api/v1/prices/prc_none", 404)["code"] == "not_found"


def test_a_change_of_a_price_keeps_what_it_was_until_then(made: Parts, api: Api) -> None:
    """The id goes on as the price from now on; what it cost until now stands in a row of its own, without a gap."""
    first = api.send("PUT", "/api/v1/prices", PRICE)
    made.clock.now += HOUR
    changed = api.send("PATCH", f"/api/v1/prices/{first['id']}", {"price": "3.5"})
    assert (changed["id"], changed["price"], changed["per"]) == (first["id"], "3.5", 1_000_000)
    rows = {row["id"]: row for row in made.books.listing("price")}
    (was,) = [row for id, row in rows.items() if id != first["id"]]
    assert (was["pico"] * 7, was["effective_to"]) == (rows[first["id"]]["pico"] * 6, made.clock.now)
    assert rows[first["id"]]["effective_from"] == made.clock.now
    made.clock.now += HOUR
    assert api.send("PATCH", f"/api/v1/prices/{first['id']}", {"price": "3.50"})["price"] == "3.5"
    assert len(made.books.listing("price")) == 2


def test_a_changed_price_is_the_one_in_force(tmp_path: Path) -> None:
    """From the change on calls are priced by it, and until then by what the price was."""
    text = b'providers: [{name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${KEY}"}]'
    config = load_text(text, "faregate.yaml", {"KEY": "sk-of-a-provider"}, tmp_path).config
    with parts(tmp_path, config=config) as made:
        api = Api(made.app, made.admin_key())
        own = api.send("PUT", "/api/v1/prices", PRICE)
        made.clock.now += HOUR
        api.send("PATCH", f"/api/v1/prices/{own['id']}", {"price": "3.5"})
        shown = api.get("/api/v1/prices?provider=openai&model=gpt-4o")["data"]
        (now,) = [row for row in shown if (row["unit"], row["service_tier"]) == ("input_tokens", None)]
        assert (now["price"], now["id"]) == ("3.5", own["id"])
        prices = {
            price
            for moment in (made.clock.now - 1, made.clock.now)
            for place, rate in rates_at(compiled(made.console), moment).items()
            if place[:4] == ("openai", "gpt-4o", "input_tokens", "")
            if not place.service_tier
            for price in [(moment == made.clock.now, dollars_of_picos(rate.pico))]
        }
        assert prices == {(False, "3"), (True, "3.5")}


def test_a_price_that_is_to_come_is_changed_in_place(made: Parts, api: Api) -> None:
    """Nothing was booked by it yet, so nothing of it is kept."""
    ahead = api.send("PUT", "/api/v1/prices", {**PRICE, "effective_from": "2026-12-01T00:00:00Z"})
    changed = api.send("PATCH", f"/api/v1/prices/{ahead['id']}", {"price": "6", "per": 2_000_000})
    assert (changed["price"], changed["per"], changed["effective_from"]) == ("6", 2_000_000, ahead["effective_from"])
    assert len(made.books.listing("price")) == 1


@pytest.mark.parametrize(
    ("change", "status", "code", "field"),
    [
        ({"price": "300000"}, 422, "invariant", "price"),
        ({"price": None}, 422, "field_range", "price"),
        ({"per": 0}, 422, "field_range", "per"),
        ({"unit": "output_tokens"}, 422, "field_forbidden", "unit"),
        ({"effective_from": "2026-12-01T00:00:00Z"}, 422, "field_forbidden", "effective_from"),
        ({"prise": "1"}, 422, "field_unknown", "prise"),
    ],
)
def test_a_change_of_a_price_that_cannot_be_is_refused(
    api: Api, change: dict[str, Any], status: int, code: str, field: str
) -> None:
    """What it is the price of is not changed, and a price four digits off wants to be confirmed."""
    own = api.send("PUT", "/api/v1/prices", PRICE)
    problem = api.send("PATCH", f"/api/v1/prices/{own['id']}", change, status)
    assert problem["code"] == code
    assert problem["errors"][0]["field"] == field
    assert api.get(f"/api/v1/prices/{own['id']}")["price"] == "3"


def test_prices_that_have_ended_or_are_not_ours_are_not_changed(made: Parts, api: Api) -> None:
    """History stays, and what a file or an import brought is changed there."""
    first = api.send("PUT", "/api/v1/prices", PRICE)
    made.clock.now += HOUR
    api.send("PUT", "/api/v1/prices", {**PRICE, "price": "4"})
    assert api.send("PATCH", f"/api/v1/prices/{first['id']}", {"price": "5"}, 409)["code"] == "conflict"
    row = made.books.get("price", first["id"])
    assert row is not None
    for kept in ({"source": "file"}, {"effective_to": 0, "details": {"layer": "imported"}}):
        made.books.put("price", {**row, **kept})
        assert api.send("PATCH", f"/api/v1/prices/{first['id']}", {"price": "5"}, 409)["code"] == "conflict"
    assert api.send("PATCH", "/api/v1/prices/prc_none", {"price": "5"}, 404)["code"] == "not_found"


def test_a_price_is_changed_and_taken_back_only_as_it_was_read(api: Api) -> None:
    """With If-Match a price that somebody else changed meanwhile stays as that one left it."""
    own = api.send("PUT", "/api/v1/prices", PRICE)
    path = f"/api/v1/prices/{own['id']}"
    read = api.call("GET", path).headers["etag"]
    changed = api.call("PATCH", path, json={"price": "3.1"}, headers={"if-match": read})
    assert changed.status_code == 200
    assert changed.headers["etag"] != read
    for method in ("PATCH", "DELETE"):
        body = {"json": {"price": "9"}} if method == "PATCH" else {}
        stale = api.call(method, path, headers={"if-match": read}, **body)
        assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    assert api.call("DELETE", path, headers={"if-match": changed.headers["etag"]}).status_code == 200


def test_a_price_ends_where_it_is_told_to(made: Parts, api: Api) -> None:
    """From then on the bundled one holds, and not the own one before; what was booked by it can be explained still."""
    api.send("PUT", "/api/v1/prices", PRICE)
    made.clock.now += HOUR
    second = api.send("PUT", "/api/v1/prices", {**PRICE, "price": "4"})
    path = f"/api/v1/prices/{second['id']}"
    assert api.send("PATCH", path, {"effective_to": "2026-12-01T00:00:00Z"})["effective_to"] == "2026-12-01T00:00:00Z"
    assert api.send("PATCH", path, {"effective_to": None})["effective_to"] is None
    made.clock.now += HOUR
    ended = api.send("PATCH", path, {"effective_to": "2026-11-21T13:59:30Z"})
    assert ended["effective_to"] == "2026-11-21T14:00:00Z"
    assert api.get("/api/v1/prices/own")["data"] == []
    assert api.send("PATCH", path, {"effective_to": None}, 409)["code"] == "conflict"


def test_a_price_never_ends_after_the_next_one_has_begun(api: Api) -> None:
    """Two at one time would be two truths; one that has not begun yet is deleted instead."""
    first = api.send("PUT", "/api/v1/prices", PRICE)
    next_one = api.send("PUT", "/api/v1/prices", {**PRICE, "price": "4", "effective_from": "2026-12-01T00:00:00Z"})
    path = f"/api/v1/prices/{first['id']}"
    for wanted in ("2027-01-01T00:00:00Z", None):
        assert api.send("PATCH", path, {"effective_to": wanted})["effective_to"] == "2026-12-01T00:00:00Z"
    early = api.send("PATCH", f"/api/v1/prices/{next_one['id']}", {"effective_to": "2026-11-22T00:00:00Z"}, 422)
    assert early["errors"][0]["field"] == "effective_to"
    past = api.send("PATCH", path, {"effective_to": "2026-01-01T00:00:00Z"}, 422)
    assert (past["code"], past["errors"][0]["field"]) == ("invariant", "effective_to")


def test_prices_come_in_pages(api: Api) -> None:
    """Each price in force comes once and in order, whatever the length of a page; own ones likewise."""
    for unit in ("input_tokens", "output_tokens", "cached_input_tokens"):
        api.send("PUT", "/api/v1/prices", {**PRICE, "unit": unit, "confirm": True})
    for path in ("/api/v1/prices", "/api/v1/prices/own"):
        whole = api.get(f"{path}?limit=1000")
        assert whole["next_cursor"] is None
        assert len(api.get(f"{path}?limit=2")["data"]) == 2
        found = api.pages(f"{path}?limit=2")
        assert found == whole["data"]
        assert len(found) >= 3
    assert api.get("/api/v1/prices?cursor=abc", 400)["code"] == "page_invalid"
    assert [row["unit"] for row in api.get("/api/v1/prices/own?provider=openai&model=gpt-4o")["data"]] == [
        "cached_input_tokens",
        "input_tokens",
        "output_tokens",
    ]
    assert api.get("/api/v1/prices/own?model=other")["data"] == []


def test_places_are_listed_without_any_secret(api: Api) -> None:
    """Providers, deployments and models of the catalogue; no credential in any of them."""
    places = api.get("/api/v1/places")
    assert places["providers"][0]["name"] == "openai"
    assert places["deployments"][0]["priced"] is True
    assert places["models"][0] == {"name": "gpt-4o", "to": ["openai/gpt-4o"]}
    assert "upstream-secret" not in str(places)
