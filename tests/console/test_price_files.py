"""``/api/v1/prices/import``, ``/sync`` and ``/explain``, over the catalogue that a real configuration makes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console_parts import DAY, HOUR, Api, Parts, parts
from faregate.config.load import load_text

CONFIG = b"""\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${KEY}"}
  - name: weu
    kind: azure_openai
    base_url: "https://example.openai.azure.com"
    api_key: "${KEY}"
    api_version: "2024-10-21"
deployments:
  - {name: weu-4o, provider: weu, deployment: my-4o, model: gpt-4o}
models:
  - {name: best, to: [openai/gpt-4o]}
pricing:
  overrides:
    - {provider: openai, model: house, unit: input_tokens, per: 1000000, price: "1"}
    - {provider: openai, model: house, unit: output_tokens, per: 1000000, price: "2"}
"""

HEAD = "provider,model,unit,per,price,variant,service_tier,effective_from\n"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Parts]:
    config = load_text(CONFIG, "faregate.yaml", {"KEY": "sk-of-a-provider"}, tmp_path).config
    with parts(tmp_path, config=config) as each:
        yield each


@pytest.fixture
def api(made: Parts) -> Api:
    return Api(made.app, made.admin_key())


def take_in(api: Api, rows: str, *, status: int = 200, **more: Any) -> Any:
    body = {"file": "book.csv", "text": HEAD + rows, **more}
    return api.send("POST", "/api/v1/prices/import", body, status=status)


def price(api: Api, model: str, unit: str, provider: str = "openai") -> Any:
    rows = api.get(f"/api/v1/prices?provider={provider}&model={model}")["data"]
    return next(row for row in rows if row["unit"] == unit and not row["variant"] and not row["service_tier"])


# -- import ------------------------------------------------------------------------------------------------------------


def test_an_imported_price_lies_above_the_bundled_one_and_below_the_own_ones(api: Api) -> None:
    """Whenever each began: what is set by hand stays in force through every import."""
    assert price(api, "gpt-4o", "input_tokens")["layer"] == "bundled"
    take_in(api, "openai,gpt-4o,input_tokens,1M,2.40,,,\n")
    row = price(api, "gpt-4o", "input_tokens")
    assert (row["price"], row["layer"], row["source"]) == ("2.4", "imported", "book.csv")
    own = {"provider": "openai", "model": "gpt-4o", "unit": "input_tokens", "per": 1_000_000, "price": "3"}
    api.send("PUT", "/api/v1/prices", own)
    take_in(api, "openai,gpt-4o,input_tokens,1M,2.30,,,\n")
    assert (price(api, "gpt-4o", "input_tokens")["price"], price(api, "house", "input_tokens")["price"]) == ("3", "1")


def test_taking_the_same_file_in_again_changes_nothing(made: Parts, api: Api) -> None:
    """Not even when it writes a price for another number of units."""
    first = take_in(api, "openai,gpt-4o,input_tokens,1M,2.40,,,\nopenai,gpt-4o,images,1,0.04,1024x1024/hd,,\n")
    assert (first["written"], first["same"]) == (2, 0)
    made.clock.now += HOUR
    before = made.books.changes(0)
    again = take_in(api, "openai,gpt-4o,input_tokens,1k,0.00240,,,\nopenai,gpt-4o,images,1,0.04,1024x1024/hd,,\n")
    assert (again["written"], again["same"], again["changes"]) == (0, 2, [])
    assert made.books.changes(0) == before


def test_a_changed_price_ends_the_one_before(made: Parts, api: Api) -> None:
    """Without gap or overlap, and a price for a later day waits for it."""
    take_in(api, "openai,gpt-4o,input_tokens,1M,2.40,,,\nopenai,gpt-4o,input_tokens,1M,2.00,,,2026-12-01\n")
    made.clock.now += HOUR
    take_in(api, "openai,gpt-4o,input_tokens,1M,2.20,,,\n")
    rows = sorted(made.books.listing("price"), key=lambda row: int(row["effective_from"]))
    assert [row["pico"] for row in rows] == [2_400_000_000_000, 2_200_000_000_000, 2_000_000_000_000]
    assert [row["effective_to"] for row in rows] == [rows[1]["effective_from"], rows[2]["effective_from"], 0]
    made.clock.now += 30 * DAY
    assert price(api, "gpt-4o", "input_tokens")["price"] == "2"


def test_a_dry_run_tells_what_would_change_and_changes_nothing(made: Parts, api: Api) -> None:
    """Each price beside the one in force, with its line in the file."""
    told = take_in(api, "openai,gpt-4o,input_tokens,1M,2.40,,,\nopenai,new,requests,1,0.01,,,\n", dry_run=True)
    shown = [(each["change"], each["model"], each["before"], each["price"], each["where"]) for each in told["changes"]]
    assert shown == [
        ("changed", "gpt-4o", "2.5", "2.4", "book.csv:2"),
        ("new", "new", None, "0.01", "book.csv:3"),
    ]
    assert (told["written"], made.books.listing("price")) == (0, [])


def test_a_price_far_off_wants_a_confirmation_and_nothing_is_half_done(made: Parts, api: Api) -> None:
    """Per token where per million was meant: the other rows are not taken in either."""
    rows = "openai,new,requests,1,0.01,,,\nopenai,gpt-4o,input_tokens,1,2.50,,,\n"
    problem = take_in(api, rows, status=422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("invariant", "book.csv:3")
    assert made.books.listing("price") == []
    assert take_in(api, rows, confirm=True)["written"] == 2


@pytest.mark.parametrize(
    ("rows", "places"),
    [
        ("openai,gpt-4o,input_tokens,1M,-1,,,\nopenai,gpt-4o,words,1,1,,,\n", ["book.csv:2", "book.csv:3"]),
        ("opnai,gpt-4o,input_tokens,1M,1,,,\n", ["book.csv:2"]),
        ("openai,gpt-4o,input_tokens,1M,1,,gold,\n", ["book.csv:2"]),
    ],
)
def test_every_row_that_cannot_be_is_named(made: Parts, api: Api, rows: str, places: list[str]) -> None:
    """With its place in the file; nothing of it is taken in."""
    problem = take_in(api, rows, status=422)
    assert [each["field"] for each in problem["errors"]] == places
    assert places[0] in problem["detail"]
    assert made.books.listing("price") == []


def test_a_file_may_tell_how_a_price_was_before(made: Parts, api: Api) -> None:
    """Where no file has told it yet: several prices of one thing, all begun, and the last one in force."""
    rows = "openai,gpt-4o,input_tokens,1M,2.60,,,2026-01-01\nopenai,gpt-4o,input_tokens,1M,2.30,,,2026-06-01\n"
    assert (take_in(api, rows)["written"], take_in(api, rows)["same"]) == (2, 2)
    assert price(api, "gpt-4o", "input_tokens")["price"] == "2.3"
    first = min(made.books.listing("price"), key=lambda row: int(row["effective_from"]))
    assert first["effective_to"] == 1_780_272_000 * 10**9


def test_the_end_of_a_price_can_be_changed(made: Parts, api: Api) -> None:
    """The price alone being the same is not all that a row says."""
    head, row = HEAD.replace("effective_from", "effective_to"), "openai,gpt-4o,input_tokens,1M,2.40,,,"
    for end, written in (("2027-01-01", 1), ("2027-01-01", 0), ("2028-01-01", 1), ("", 1), ("", 0)):
        body = {"file": "book.csv", "text": f"{head}{row}{end}\n"}
        assert api.send("POST", "/api/v1/prices/import", body)["written"] == written
    assert [each["effective_to"] for each in made.books.listing("price")] == [0]


def test_a_price_that_has_ended_already_is_left_out(made: Parts, api: Api) -> None:
    """It would end before it begins; the rest of its file is taken in."""
    head, row = HEAD.replace("effective_from", "effective_to"), "openai,gpt-4o,input_tokens,1M,2.40,,,2026-01-01\n"
    body = {"file": "book.csv", "text": f"{head}{row}openai,gpt-4o,output_tokens,1M,9.60,,,\n"}
    told = api.send("POST", "/api/v1/prices/import", body)
    assert (told["written"], [each["where"] for each in told["skipped"]]) == (1, ["book.csv:2"])


def test_the_price_before_one_that_is_taken_back_holds_on(made: Parts, api: Api) -> None:
    """What it ended does not stay ended, so that no day is left without a price."""
    own = {"provider": "openai", "model": "gpt-4o", "unit": "input_tokens", "per": 1_000_000}
    first = api.send("PUT", "/api/v1/prices", {**own, "price": "3"})
    made.clock.now += HOUR
    second = api.send("PUT", "/api/v1/prices", {**own, "price": "4"})
    api.send("PUT", "/api/v1/prices", {**own, "price": "5", "effective_from": "2027-01-01"})
    api.send("DELETE", f"/api/v1/prices/{second['id']}")
    shown = price(api, "gpt-4o", "input_tokens")
    assert (shown["id"], shown["price"], shown["effective_to"]) == (first["id"], "3", "2027-01-01T00:00:00Z")


def test_a_price_cannot_be_changed_in_the_past(api: Api) -> None:
    """What was in force when calls were booked stays as it was."""
    take_in(api, "openai,gpt-4o,input_tokens,1M,2.40,,,\n")
    problem = take_in(api, "openai,gpt-4o,input_tokens,1M,2.10,,,2026-01-01\n", status=422)
    assert "effective_from" in problem["detail"]


def test_the_public_list_is_taken_in_for_the_kinds_of_providers_that_are_there(api: Api) -> None:
    """Azure's models become Azure's prices, in their place; strangers are counted and left out."""
    models = {
        "gpt-4o": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 2.4e-06},
        "azure/gpt-4o": {"litellm_provider": "azure", "mode": "chat", "input_cost_per_token": 2.6e-06},
        "azure/eu/gpt-4o": {"litellm_provider": "azure", "mode": "chat", "input_cost_per_token": 2.9e-06},
        "llama": {"litellm_provider": "bedrock", "input_cost_per_token": 1e-06},
    }
    body = {"file": "model_prices.json", "text": json.dumps(models)}
    told = api.send("POST", "/api/v1/prices/import", body)
    assert (told["format"], told["written"], told["skipped_count"]) == ("litellm", 3, 1)
    assert price(api, "gpt-4o", "input_tokens")["price"] == "2.4"
    assert price(api, "gpt-4o", "input_tokens", "weu")["price"] == "2.6"
    only = api.send("POST", "/api/v1/prices/import", {**body, "provider": "weu", "dry_run": True})
    assert (only["prices"], only["same"]) == (2, 2)


def test_an_import_is_in_the_trail_price_by_price(api: Api) -> None:
    """Who took it in, and what each price was before."""
    take_in(api, "openai,gpt-4o,input_tokens,1M,2.40,,,\nopenai,gpt-4o,output_tokens,1M,9,,,\n")
    changes = api.get("/api/v1/audit")["data"]
    assert [(each["kind"], each["after"]["unit"]) for each in changes[:2]] == [
        ("price", "output_tokens"),
        ("price", "input_tokens"),
    ]
    assert api.get("/api/v1/verify")["ok"] is True


def test_a_file_without_end_is_refused(api: Api) -> None:
    """A body has a bound, a larger one for files than for other changes."""
    assert take_in(api, "x" * 2_000_000, status=422)["code"] == "field_range"
    assert take_in(api, "x" * 9_000_000, status=413)["code"] == "body_too_large"


# -- sync --------------------------------------------------------------------------------------------------------------


def test_the_first_look_at_the_bundled_list_remembers_it(made: Parts, api: Api) -> None:
    """The next one has nothing to tell, as long as the same edition is installed."""
    (first,) = api.send("POST", "/api/v1/prices/sync", {})["lists"]
    assert (first["list"], first["last_edition"], first["added"]) == ("genai-prices", None, [])
    assert first["models"] > 50
    (second,) = api.send("POST", "/api/v1/prices/sync", {})["lists"]
    assert (second["last_edition"], second["changed"], second["removed"]) == (second["edition"], [], [])


def test_what_an_edition_changed_is_told(made: Parts, api: Api) -> None:
    """As a look at an older edition left it: models that came and went, and prices that are others."""
    api.send("POST", "/api/v1/prices/sync", {})
    (row,) = made.books.listing("price_list")
    content = dict(row["content"])
    content["openai/gone"] = {"input_tokens": "1 per 1000000"}
    del content["openai/gpt-4o-mini"]
    content["openai/gpt-4o"] = {**content["openai/gpt-4o"], "input_tokens": "9 per 1000000"}
    made.books.put("price_list", {**row, "edition": "0.0.1", "content": content})
    (told,) = api.send("POST", "/api/v1/prices/sync", {"dry_run": True})["lists"]
    assert (told["last_edition"], told["added"], told["removed"]) == ("0.0.1", ["openai/gpt-4o-mini"], ["openai/gone"])
    assert [(each["model"], each["what"], each["before"]) for each in told["changed"]] == [
        ("openai/gpt-4o", "input_tokens", "9 per 1000000")
    ]
    assert made.books.listing("price_list")[0]["edition"] == "0.0.1"


def test_a_newer_public_list_is_compared_with_the_last_and_taken_in(made: Parts, api: Api) -> None:
    """Both in one step, without any download."""
    text = '{"gpt-4o": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 2.4e-06}}'
    api.send("POST", "/api/v1/prices/sync", {"file": "prices.json", "text": text})
    made.clock.now += HOUR
    newer = text.replace("2.4e-06", "2.3e-06")
    told = api.send("POST", "/api/v1/prices/sync", {"file": "prices.json", "text": newer})
    assert [(each["before"], each["after"]) for each in told["lists"][1]["changed"]] == [
        ("2.4 per 1000000", "2.3 per 1000000")
    ]
    assert (told["import"]["written"], price(api, "gpt-4o", "input_tokens")["price"]) == (2, "2.3")


# -- explain -----------------------------------------------------------------------------------------------------------


def explain(api: Api, model: str, **more: Any) -> Any:
    return api.send("POST", "/api/v1/prices/explain", {"model": model, **more})


def test_every_rate_names_the_layer_that_it_comes_from(api: Api) -> None:
    """Bundled, imported and own, in one card."""
    take_in(api, "openai,gpt-4o,cached_input_tokens,1M,1.2,,,\n")
    own = {"provider": "openai", "model": "gpt-4o", "unit": "output_tokens", "per": 1_000_000, "price": "9"}
    api.send("PUT", "/api/v1/prices", own)
    (told,) = explain(api, "gpt-4o", provider="openai")["data"]
    standard = next(card for card in told["cards"] if card["service_tier"] is None)
    layers = {rate["unit"]: rate["layer"] for rate in standard["rates"]}
    assert {name: layers[name] for name in ("input_tokens", "cached_input_tokens", "output_tokens")} == {
        "input_tokens": "bundled",
        "cached_input_tokens": "imported",
        "output_tokens": "override",
    }


def test_a_usage_is_priced_line_by_line(api: Api) -> None:
    """As a record's derivation does it: totals are told apart into leaves, and a unit without a price is named."""
    usage = {"input_tokens": 1000, "cached_input_tokens": 400, "output_tokens": 10, "pages": 3}
    (told,) = explain(api, "house", usage=usage)["data"]
    costed = told["cards"][0]["usage"]
    assert [(line["unit"], line["quantity"], line["amount"]) for line in costed["lines"]] == [
        ("input_tokens", 600, "0.0006"),
        ("cached_input_tokens", 400, "0.0004"),
        ("output_tokens", 10, "0.00002"),
        ("pages", 3, "0"),
    ]
    assert (costed["cost"], costed["unpriced"]) == ("0.00102", "pages")


@pytest.mark.parametrize(
    ("usage", "code"),
    [
        ({"input_tokens": 1, "cached_input_tokens": 2}, "field_range"),
        ({"words": 1}, "field_unknown"),
        ({"images": {"1024x1024": -1}}, "field_range"),
        ({"input_tokens": -1}, "field_range"),
        ({"input_tokens": 1.5}, "field_type"),
    ],
)
def test_a_usage_that_cannot_be_is_refused(api: Api, usage: dict[str, Any], code: str) -> None:
    """Parts do not exceed their total, and every unit is known."""
    problem = api.send("POST", "/api/v1/prices/explain", {"model": "house", "usage": usage}, status=422)
    assert problem["code"] == code


def test_a_name_leads_where_calls_go(api: Api) -> None:
    """A declared model is explained as what it is sent to, at each provider that has it."""
    assert [(each["provider"], each["model"]) for each in explain(api, "best")["data"]] == [("openai", "gpt-4o")]
    assert {each["provider"] for each in explain(api, "gpt-4o")["data"]} == {"openai", "weu"}


def test_why_a_model_is_not_priced_is_told(api: Api) -> None:
    """No list knows it, or it is priced at another moment."""
    (told,) = explain(api, "no-such-model", provider="openai")["data"]
    assert (told["cards"], "no price list knows" in told["reasons"][0]) == ([], True)
    take_in(api, "openai,later,requests,1,0.01,,,2026-12-01\n")
    (told,) = explain(api, "later", provider="openai")["data"]
    assert (told["cards"], "at that moment" in " ".join(told["reasons"])) == ([], True)
    (told,) = explain(api, "later", provider="openai", at="2026-12-02T00:00:00Z")["data"]
    assert told["cards"][0]["rates"][0]["price"] == "0.01"


def test_prices_by_variant_and_service_tier_are_set_and_listed(api: Api) -> None:
    """Each is a price of its own, and the same again replaces it."""
    own = {"provider": "openai", "model": "house", "unit": "images", "per": 1, "price": "0.04"}
    api.send("PUT", "/api/v1/prices", {**own, "variant": "1024x1024/hd"})
    api.send("PUT", "/api/v1/prices", {**own, "price": "0.02"})
    api.send("PUT", "/api/v1/prices", {**own, "price": "0.09", "service_tier": "priority"})
    api.send("PUT", "/api/v1/prices", {**own, "price": "0.05", "variant": "1024x1024/hd"})
    rows = [row for row in api.get("/api/v1/prices?model=house")["data"] if row["unit"] == "images"]
    assert {(row["variant"], row["service_tier"]): row["price"] for row in rows} == {
        (None, None): "0.02",
        ("1024x1024/hd", None): "0.05",
        (None, "priority"): "0.09",
    }
    assert api.send("PUT", "/api/v1/prices", {**own, "service_tier": "gold"}, status=422)["code"] == "field_enum"
