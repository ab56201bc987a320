"""Pools by the admin API, and names that lead to them: what is refused, what is shown, and what the catalogue gets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console_parts import Api, Parts, parts
from faregate.config.load import load_text
from faregate.console import declared
from faregate.console.reading import made_places
from faregate.control import Ask, Catalogue, Load, Selection, decode_ask, encode
from faregate.core.routing.choose import Member, Range
from faregate.core.routing.health import SECOND

FILE = b"""\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: sk-of-the-file-0123456789}
  - {name: azure, kind: azure_openai, base_url: "https://example.openai.azure.com", api_version: "2024-10-21"}
deployments:
  - {name: weu, provider: azure, deployment: my-gpt4o, model: gpt-4o}
  - {name: north, provider: azure, deployment: north-gpt4o, model: gpt-4o}
pools:
  - {name: spare, use: [weu], priority: [{use: [north]}], breaker: {trip: 2s}}
models:
  - {name: best, to: [spare], instead: [{select: {team: search}, to: [north]}]}
"""
RULE: dict[str, Any] = {
    "strategy": "weighted",
    "use": [{"deployment": "weu", "weight": 3}, "north", {"deployment": "openai/gpt-4o", "group": 2, "timeout": "5s"}],
    "priority": [{"from": 0, "to": 100, "use": ["weu"], "only": [{"product": "premium"}]}],
    "sticky": "user",
    "breaker": {"failures": 3, "trip": "2s", "statuses": [429, "500-599"]},
    "retry": {"count": 2, "interval": "500ms"},
}
MAIN = {"name": "main", **RULE}


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Parts]:
    """A console over a configuration with two deployments, a pool and a name."""
    config = load_text(FILE, "faregate.yaml", {}, tmp_path).config
    with parts(tmp_path, config=config) as made:
        yield made


@pytest.fixture
def admin(console: Parts) -> Api:
    return Api(console.app, console.admin_key())


def compiled(console: Parts) -> Catalogue:
    """The catalogue that the gate is sent."""
    return console.console.compile_catalogue((), (), made_places(console.books))


def pool_in(catalogue: Catalogue, name: str) -> Any:
    return next((each for each in catalogue.pools if each.rule.name == name), None)


# -- made, shown, changed ----------------------------------------------------------------------------------------------


def test_a_pool_is_shown_in_full_and_kept_as_it_was_sent(console: Parts, admin: Api) -> None:
    """What was not said is as usual, times have their units, and what is shown can be sent again."""
    row = admin.post("/api/v1/pools", MAIN)

    assert row["id"].startswith("pol_")
    assert (row["source"], row["strategy"], row["beyond"], row["sticky"]) == ("api", "weighted", "clamp", "user")
    assert [(each["deployment"], each["weight"], each["group"], each["timeout"]) for each in row["use"]] == [
        ("weu", 3, 1, None),
        ("north", 1, 1, None),
        ("openai/gpt-4o", 1, 2, "5000ms"),
    ]
    assert row["priority"] == [{"from": 0, "to": 100, "use": ["weu"], "only": [{"product": "premium"}]}]
    assert (row["breaker"]["trip"], row["breaker"]["percent"], row["retry"]["interval"]) == ("2000ms", 50, "500ms")
    kept = console.books.get("pool", row["id"]) or {}
    assert kept["rule"].keys() == RULE.keys()
    assert kept["rule"]["breaker"] == {"failures": 3, "trip": "2000ms", "statuses": ["429", "500-599"]}
    again = {name: row[name] for name in ("strategy", "use", "priority", "beyond", "sticky", "breaker", "retry")}
    assert admin.post("/api/v1/pools", {"name": "copy", **again})["use"] == row["use"]


def test_a_pool_is_found_by_id_and_by_name_and_listed_page_by_page(admin: Api) -> None:
    """The file's come first, on the first page; a filter is for both kinds."""
    row = admin.post("/api/v1/pools", MAIN)
    admin.post("/api/v1/pools", {"name": "other", "use": ["weu"]})

    first = admin.get("/api/v1/pools?limit=1")
    second = admin.get(f"/api/v1/pools?limit=1&cursor={first['next_cursor']}")
    assert [(each["name"], each["source"]) for each in first["data"]] == [("spare", "file"), ("main", "api")]
    assert ([each["name"] for each in second["data"]], second["next_cursor"]) == (["other"], None)
    assert admin.get("/api/v1/pools?name=spare")["data"][0]["priority"][0]["use"] == ["north"]
    assert admin.get(f"/api/v1/pools/{row['id']}") == admin.get("/api/v1/pools/main") == row
    assert admin.get("/api/v1/pools/nothing", status=404)["code"] == "not_found"


def test_what_is_sent_takes_the_place_of_what_was_there(admin: Api) -> None:
    """What is not sent stays; null goes back to what is as usual."""
    admin.post("/api/v1/pools", MAIN)
    changed = admin.send("PATCH", "/api/v1/pools/main", {"use": ["north"], "breaker": None, "sticky": None})

    assert [each["deployment"] for each in changed["use"]] == ["north"]
    assert (changed["breaker"], changed["sticky"]) == (None, None)
    assert (changed["strategy"], changed["retry"]["count"], len(changed["priority"])) == ("weighted", 2, 1)


def test_a_pool_of_the_file_is_shown_and_not_changed(admin: Api) -> None:
    """The way out is the file."""
    row = admin.get("/api/v1/pools/spare")
    assert (row["id"], row["source"], row["breaker"]["trip"]) == ("file:spare", "file", "2000ms")
    assert "configuration file" in admin.send("PATCH", "/api/v1/pools/spare", {"use": ["weu"]}, status=409)["detail"]
    assert admin.send("DELETE", "/api/v1/pools/file:spare", status=409)["code"] == "conflict"


def test_a_change_is_made_to_the_version_that_was_read(admin: Api) -> None:
    """Another one's change in between is not overwritten, nor is what changed since deleted."""
    admin.post("/api/v1/pools", MAIN)
    tag = admin.call("GET", "/api/v1/pools/main").headers["etag"]
    changed = admin.call("PATCH", "/api/v1/pools/main", json={"sticky": "key"}, headers={"if-match": tag})

    assert changed.headers["etag"] == admin.call("GET", "/api/v1/pools/main").headers["etag"] != tag
    stale = admin.call("PATCH", "/api/v1/pools/main", json={"sticky": "run"}, headers={"if-match": tag})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    assert admin.call("DELETE", "/api/v1/pools/main", headers={"if-match": tag}).status_code == 412
    assert admin.get("/api/v1/pools/main")["sticky"] == "key"


# -- what cannot be ----------------------------------------------------------------------------------------------------

WEU = {"use": ["weu"]}


@pytest.mark.parametrize(
    ("sent", "code", "field", "told"),
    [
        ({"use": ["wue"]}, "field_enum", "use.0", "did you mean weu?"),
        ({"use": ["spare"]}, "field_enum", "use.0", "no deployment is called spare"),
        ({"use": ["azure/gpt-4o"]}, "field_enum", "use.0", "azure has no models by name"),
        ({"use": ["nobody/gpt-4o"]}, "field_enum", "use.0", "no provider is called nobody"),
        ({"use": ["weu", "weu"]}, "field_conflict", "use.1", "in it already"),
        ({"use": []}, "field_range", "use", "List should have at least 1 item"),
        ({"use": "weu"}, "field_type", "use", "a valid list"),
        ({}, "field_missing", "use", "required"),
        ({"use": [{"deployment": "weu", "wieght": 2}]}, "field_unknown", "use.0.wieght", "did you mean weight?"),
        ({"use": [{"deployment": "weu", "weight": 0}]}, "field_range", "use.0.weight", ""),
        ({"use": [{"deployment": "weu", "weight": "2"}]}, "field_type", "use.0.weight", "a whole number"),
        ({"use": [{"deployment": "weu", "timeout": 5}]}, "field_type", "use.0.timeout", 'e.g. "60s"'),
        ({"use": [{"deployment": "weu", "params": "{"}]}, "field_range", "use.0.params", "such as"),
        ({"use": [{"deployment": "weu", "params": '{"model": "x"}'}]}, "field_range", "use.0.params", "not for a pool"),
        ({**WEU, "priority": [{"use": ["nothing"]}]}, "field_enum", "priority.0.use.0", "no deployment"),
        ({**WEU, "priority": [{"from": 5, "to": 1, "use": ["weu"]}]}, "field_conflict", "priority.0.from", "5 is more"),
        (
            {**WEU, "priority": [{"use": ["weu"]}, {"from": 50, "use": ["north"]}]},
            "field_conflict",
            "priority.1",
            "two",
        ),
        ({**WEU, "priority": [{"use": ["weu"], "only": [{}]}]}, "field_missing", "priority.0.only.0", "names nobody"),
        ({**WEU, "priority": [{"from": 5000, "use": ["weu"]}]}, "field_range", "priority.0.from", ""),
        ({**WEU, "breaker": {"trip": "soon"}}, "field_type", "breaker.trip", "this is not a duration"),
        ({**WEU, "breaker": {"statuses": ["2xx"]}}, "field_range", "breaker.statuses.0", "429 or 500-599"),
        ({**WEU, "breaker": {"tripp": "5s"}}, "field_unknown", "breaker.tripp", "did you mean trip?"),
        ({**WEU, "retry": {}}, "field_missing", "retry.count", "required"),
        ({**WEU, "retry": {"count": 1, "max": "3s"}}, "field_conflict", "retry.max", "delta"),
        ({**WEU, "strategy": "random"}, "field_enum", "strategy", "round_robin"),
        ({**WEU, "sticky": "team"}, "field_enum", "sticky", ""),
        ({**WEU, "stratgy": "cost"}, "field_unknown", "stratgy", "did you mean strategy?"),
        ({**WEU, "source": "file"}, "field_forbidden", "source", "set by Faregate"),
        ({**WEU, "name": "a b"}, "field_range", "name", "this is not a name"),
        ({**WEU, "name": 7}, "field_type", "name", "not text"),
    ],
)
def test_a_pool_that_cannot_be_names_its_field(
    console: Parts, admin: Api, sent: dict[str, Any], code: str, field: str, told: str
) -> None:
    """By the same rules as in the file, with what is expected; nothing is made, and a change is judged alike."""
    problem = admin.post("/api/v1/pools", {"name": "main", **sent}, status=422)
    assert [(each["code"], each["field"]) for each in problem["errors"]] == [(code, field)]
    assert told in problem["detail"]
    assert console.books.listing("pool") == []

    if "name" in sent or not sent:
        return
    admin.post("/api/v1/pools", {"name": "main", **WEU})
    changed = admin.send("PATCH", "/api/v1/pools/main", sent, status=422)
    assert [(each["code"], each["field"]) for each in changed["errors"]] == [(code, field)]
    assert admin.get("/api/v1/pools/main")["use"][0]["deployment"] == "weu"


def test_all_that_is_wrong_is_told_at_once(admin: Api) -> None:
    """Each at its field."""
    problem = admin.post("/api/v1/pools", {"name": "main", "use": ["a", "b"], "retry": {"count": 1, "max": "3s"}}, 422)
    assert [each["field"] for each in problem["errors"]] == ["use.0", "use.1", "retry.max"]


def test_what_must_not_be_null_is_told(admin: Api) -> None:
    """There is no pool without its deployments."""
    admin.post("/api/v1/pools", MAIN)
    for name in ("use", "strategy", "priority", "beyond"):
        problem = admin.send("PATCH", "/api/v1/pools/main", {name: None}, status=422)
        assert (problem["code"], problem["errors"][0]["field"]) == ("field_range", name)


def test_no_two_things_that_names_lead_to_have_one_name(admin: Api) -> None:
    """Neither a pool the name of a deployment, a model or a pool, nor these its own; made or of the file."""
    admin.post("/api/v1/pools", MAIN)
    admin.post("/api/v1/deployments", {"name": "fast", "provider": "openai", "model": "gpt-4o"})
    admin.post("/api/v1/models", {"name": "house", "to": ["main"]})
    for name in ("main", "spare", "weu", "best", "fast", "house"):
        problem = admin.post("/api/v1/pools", {"name": name, **WEU}, status=409)
        assert (problem["code"], problem["errors"][0]["field"]) == ("conflict", "name")
    for name in ("main", "spare"):
        admin.post("/api/v1/models", {"name": name, "to": ["weu"]}, status=409)
        admin.post("/api/v1/deployments", {"name": name, "provider": "openai", "model": "gpt-4o"}, status=409)


def test_there_are_no_more_pools_than_may_be(console: Parts, admin: Api) -> None:
    """Each is a part of what the gate works from."""
    rule = {"use": [{"deployment": "weu"}]}
    many = range(declared.MOST["pool"])
    console.books.put_all("pool", [{"id": f"pol_{at}", "name": f"p{at}", "rule": rule} for at in many])

    assert "1000 pools already" in admin.post("/api/v1/pools", MAIN, status=409)["detail"]


def test_a_secret_of_a_key_is_not_kept_and_not_repeated(console: Parts, admin: Api) -> None:
    """Where a key is named by its id or name, somebody may write what nobody should see."""
    secret = admin.post("/api/v1/keys", {"name": "ci"})["secret"]
    only = [{"from": 0, "to": 9, "use": ["weu"], "only": [{"key": secret}]}]
    for path, body, field in (
        ("pools", {"name": "main", "use": ["weu"], "priority": only}, "priority.0.only.0.key"),
        ("pools", {"name": "main", "use": ["weu", secret]}, "use.1.deployment"),
        ("models", {"name": "m", "to": ["weu"], "instead": [{"select": {"key": secret}, "to": ["weu"]}]},
         "instead.0.select.key"),
    ):  # fmt: skip
        problem = admin.post(f"/api/v1/{path}", body, status=422)
        assert problem["errors"][0]["field"] == field
        assert secret not in str(problem)
    assert console.books.listing("pool") == []


# -- what leads where --------------------------------------------------------------------------------------------------


def test_a_made_pool_is_what_the_gate_gets(console: Parts, admin: Api) -> None:
    """With its own breaker and retries; a name of the API leads to it, and some callers elsewhere."""
    admin.post("/api/v1/pools", MAIN)
    led = [{"select": {"product": "premium"}, "to": ["north", "main"]}]
    assert admin.post("/api/v1/models", {"name": "house", "to": ["main"], "instead": led})["instead"] == led
    catalogue = compiled(console)

    main = pool_in(catalogue, "main")
    members = Member("weu", 3), Member("north"), Member("openai/gpt-4o", 1, 2, (), 5_000)
    assert main.rule.members == members
    assert main.rule.ranges == (Range(0, 100, ("weu",), ((("product", "premium"),),)),)
    assert (main.breaker.trip, main.retry.tries, main.rule.sticky) == (2 * SECOND, 2, "user")
    house = next(each for each in catalogue.routes if each.model == "house")
    assert house.steps == ("main",)
    assert house.selected == (Selection((("product", "premium"),), ("north", "main")),)
    # What the gate is sent is what it understands.
    asked = decode_ask(encode(Ask(1, Load(1, catalogue=catalogue)))).body
    assert isinstance(asked, Load)
    assert asked.catalogue == catalogue


def test_a_pool_that_says_nothing_goes_by_the_rules_for_all(console: Parts, admin: Api) -> None:
    """As one of the file does."""
    admin.post("/api/v1/pools", {"name": "plain", "use": ["weu", "north"]})
    plain = pool_in(compiled(console), "plain")
    assert (plain.breaker, plain.retry) == (compiled(console).breaker, None)
    assert plain.rule.strategy == "ordered"


def test_where_a_call_would_go_along_a_made_pool_is_told(admin: Api) -> None:
    """As along one of the file, by key; and the places of its names are the deployments behind it."""
    admin.post("/api/v1/pools", MAIN)
    led = [{"select": {"product": "premium"}, "to": ["north"]}]
    admin.post("/api/v1/models", {"name": "house", "to": ["main"], "instead": led})
    key = admin.post("/api/v1/keys", {"name": "ci", "product": "premium"})["id"]

    way = admin.get("/api/v1/route?model=house")
    assert [each["name"] for each in way["pools"]] == ["main"]
    assert [each["deployment"] for each in way["order"]] == ["weu", "north", "openai/gpt-4o"]
    elsewhere = admin.get(f"/api/v1/route?model=house&key={key}")
    assert elsewhere["selected"] == {"product": "premium"}
    assert [each["deployment"] for each in elsewhere["order"]] == ["north"]
    places = admin.get("/api/v1/places")["models"]
    assert next(each for each in places if each["name"] == "house")["to"] == ["weu", "north", "openai/gpt-4o"]


def test_a_name_leads_elsewhere_and_back(admin: Api) -> None:
    """An empty list leads nobody elsewhere; the file's names show theirs."""
    admin.post("/api/v1/models", {"name": "house", "to": ["weu"]})
    led = [{"select": {"team": "red"}, "to": ["spare"]}]
    assert admin.send("PATCH", "/api/v1/models/house", {"instead": led})["instead"] == led
    assert admin.send("PATCH", "/api/v1/models/house", {"to": ["north"]})["instead"] == led
    assert admin.send("PATCH", "/api/v1/models/house", {"instead": []})["instead"] == []
    assert admin.get("/api/v1/models/best")["instead"] == [{"select": {"team": "search"}, "to": ["north"]}]


@pytest.mark.parametrize(
    ("instead", "code", "field"),
    [
        ([{"select": {}, "to": ["weu"]}], "field_missing", "instead.0.select"),
        ([{"select": {"team": "a"}, "to": []}], "field_range", "instead.0.to"),
        ([{"select": {"team": "a"}, "to": ["nowhere"]}], "field_enum", "instead.0.to.0"),
        ([{"select": {"team": "a"}, "to": ["best"]}], "field_enum", "instead.0.to.0"),
        ([{"select": {"tem": "a"}, "to": ["weu"]}], "field_unknown", "instead.0.select.tem"),
        ([{"to": ["weu"]}], "field_missing", "instead.0.select"),
        (None, "field_range", "instead"),
    ],
)
def test_who_cannot_be_led_elsewhere_is_told(admin: Api, instead: Any, code: str, field: str) -> None:
    """By the same rules as in the file, when a name is made and when it is changed."""
    if instead is not None:
        problem = admin.post("/api/v1/models", {"name": "m", "to": ["weu"], "instead": instead}, status=422)
        assert (problem["code"], problem["errors"][0]["field"]) == (code, field)
    admin.post("/api/v1/models", {"name": "house", "to": ["weu"]})
    problem = admin.send("PATCH", "/api/v1/models/house", {"instead": instead}, status=422)
    assert (problem["code"], problem["errors"][0]["field"]) == (code, field)


def test_what_something_leads_to_is_not_deleted(admin: Api) -> None:
    """A deployment, a provider by its models, a pool and a name: whoever uses it is named."""
    provider = {"name": "mine", "kind": "openai", "base_url": "https://8.8.4.4/v1", "api_key": "sk-of-a-provider"}
    admin.post("/api/v1/providers", provider)
    for name in ("fast", "slow"):
        admin.post("/api/v1/deployments", {"name": name, "provider": "openai", "model": "gpt-4o"})
    rule = {"use": ["fast", "mine/gpt-4o"], "priority": [{"use": ["slow"]}]}
    admin.post("/api/v1/pools", {"name": "main", **rule})
    admin.post("/api/v1/pools", {"name": "second", "use": ["weu"]})
    admin.post("/api/v1/models", {"name": "house", "to": ["main"]})
    led = [{"select": {"team": "a"}, "to": ["second", "slow"]}]
    admin.post("/api/v1/models", {"name": "led", "to": ["house"], "instead": led})

    for path, users in (
        ("deployments/fast", "pool main leads"),
        ("deployments/slow", "pool main, model led lead"),
        ("providers/mine", "pool main leads"),
        ("pools/main", "model house leads"),
        ("pools/second", "model led leads"),
        ("models/house", "model led leads"),
    ):
        problem = admin.send("DELETE", f"/api/v1/{path}", status=409)
        assert (problem["code"], users in problem["detail"]) == ("conflict", True), problem["detail"]
    for path in ("models/led", "models/house", "pools/main", "pools/second", "deployments/fast", "providers/mine"):
        assert admin.send("DELETE", f"/api/v1/{path}")["deleted"] is True
    assert "main" not in [each["name"] for each in admin.get("/api/v1/pools")["data"]]


def test_a_disabled_deployment_leaves_its_pool_and_comes_back(console: Parts, admin: Api) -> None:
    """The pool stays as it is; one that has none left leads nowhere meanwhile."""
    admin.post("/api/v1/deployments", {"name": "fast", "provider": "openai", "model": "gpt-4o"})
    admin.post("/api/v1/pools", {"name": "main", "use": ["fast", "weu"]})
    admin.post("/api/v1/pools", {"name": "lone", "use": ["fast"]})
    admin.send("PATCH", "/api/v1/deployments/fast", {"state": "disabled"})

    catalogue = compiled(console)
    assert pool_in(catalogue, "main").rule.members == (Member("weu"),)
    assert pool_in(catalogue, "lone") is None
    admin.send("PATCH", "/api/v1/deployments/fast", {"state": "active"})
    assert pool_in(compiled(console), "lone").rule.members == (Member("fast"),)
