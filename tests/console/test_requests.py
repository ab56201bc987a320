"""``/api/v1/requests`` and ``/api/v1/usage``."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console_parts import DAY, NOON, WHO, Api, Parts, catalogue_of, opened, recalled_call, refused_call, settled_call
from faregate.console.compile import card_rows
from faregate.console.keys import NewKey, create
from faregate.console.requests import exact
from faregate.control import Catalogue, Deployment
from faregate.core.ledger.events import Intended, Lost, Settled
from faregate.core.money import dollars
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.usage import Measure, Usage

#: What CONTRACT promises that a record holds.
PROMISED = (
    "id run created_at organization team project product key user end_user identity_source stage model deployment "
    "provider operation stream status code input_tokens output_tokens usage_source cost charge price_version cache "
    "saved_cost attempts latency_ms first_token_ms tags"
).split()


def fill(made: Parts) -> str:
    """Three calls of two teams and a refusal; returns the price version."""
    catalogue = catalogue_of([], [])
    made.books.keep_rate_cards(card_rows(catalogue))
    version = catalogue.deployments[0].cards[0].version
    made.journal.add(
        opened(),
        *settled_call("req_1", version=version),
        *settled_call("req_2", version=version, who=WHO._replace(team="ops", tags=())),
        *settled_call("req_3", version=version, at=NOON - 25 * DAY),
        refused_call("req_4"),
    )
    made.project()
    return version


def test_a_record_holds_everything_that_is_promised(made: Parts, api: Api) -> None:
    """Names, money as text, times as RFC 3339, attempts and tags as values."""
    fill(made)
    record = api.get("/api/v1/requests/req_1")
    assert [name for name in PROMISED if name not in record] == []
    assert (record["cost"], record["charge"], record["created_at"]) == ("0.00175", "0.00175", "2026-11-21T12:00:00Z")
    assert record["tags"] == {"env": "ci"}
    assert record["attempts"] == [
        {"deployment": "openai/gpt-4o", "http_status": 200, "code": None, "duration_ms": 900.0}
    ]


def test_the_derivation_adds_up_to_the_charge_by_the_stored_card(made: Parts, api: Api) -> None:
    """A price that changed since does not change the derivation."""
    version = fill(made)
    price = {"provider": "openai", "model": "gpt-4o", "unit": "input_tokens", "per": 1_000_000, "price": "9"}
    api.send("PUT", "/api/v1/prices", price)
    found = api.get("/api/v1/requests/req_1")["derivation"]
    assert found["price_version"] == version
    assert [(line["unit"], line["quantity"], line["price"], line["amount"]) for line in found["lines"]] == [
        ("input_tokens", 300, "2.5", "0.00075"),
        ("output_tokens", 100, "10", "0.001"),
    ]
    assert (found["sum"], found["cost"]) == ("0.00175", "0.00175")


def charged(made: Parts, *ends: tuple[str, Usage, int, int, str, str]) -> None:
    """Ended calls of ``(id, usage, cost, charge, charge rule, resolution)``."""
    version = fill(made)
    for id, usage, cost, charge, rule, resolution in ends:
        intent, end = settled_call(id, version=version)
        assert isinstance(intent, Intended)
        assert isinstance(end, Settled)
        lost = Lost(id, NOON, 502, "upstream_truncated", 5)
        made.journal.add(intent._replace(charge_rule=rule), *([lost] if resolution else []))
        made.journal.add(end._replace(usage=usage, cost=cost, charge=charge, charge_rule=rule, resolution=resolution))
    made.project()


PLAIN = Usage(input_text=300, output_text=100)


@pytest.mark.parametrize(
    ("charge", "rule", "resolution", "lines"),
    [
        (1_750_000, "", "", []),
        (2_925_000, "markup 10 % + fee 0.001", "", [("markup", "10 %", "0.000175"), ("fee", "each call", "0.001")]),
        (1_662_500, "discount 5 %", "", [("discount", "5 %", "-0.0000875")]),
        (0, "free", "", [("free", "nothing is charged", "-0.00175")]),
        (0, "", "operator_pays", [("resolution", "operator_pays", "-0.00175")]),
        (
            2_000_000,
            "fee 0.001",
            "charge_max",
            [("fee", "each call", "0.001"), ("resolution", "charge_max", "-0.00075")],
        ),
    ],
)
def test_the_derivation_goes_on_from_the_cost_to_the_charge(
    made: Parts, api: Api, charge: int, rule: str, resolution: str, lines: list[tuple[str, str, str]]
) -> None:
    """Mark-up, discount, fee and what is free are lines of their own; with the cost they add up to the charge."""
    charged(made, ("req_9", PLAIN, 1_750_000, charge, rule, resolution))
    record = api.get("/api/v1/requests/req_9")
    found = record["derivation"]
    assert [tuple(line.values()) for line in found["charge_lines"]] == lines
    assert (record["charge_rule"], found["charge_rule"]) == (rule or None, rule or None)
    assert (found["cost"], found["charge"], record["charge"]) == ("0.00175", dollars(charge), dollars(charge))
    total = Fraction(record["cost"]) + sum(Fraction(line["amount"]) for line in found["charge_lines"])
    assert total == Fraction(found["charge"])


def test_units_beside_tokens_are_told(made: Parts, api: Api) -> None:
    """Tokens of rarer kinds stand beside the other leaves and count in the totals; the rest is a list."""
    other = (Measure("images", "hd", 2), Measure("input_image_tokens", "", 7), Measure("seconds", "", 3))
    charged(made, ("req_9", Usage(input_text=3, other=other), 0, 0, "", ""))
    record = api.get("/api/v1/requests/req_9")
    assert (record["input_tokens"], record["input_image_tokens"], record["output_image_tokens"]) == (10, 7, 0)
    assert record["units"] == [
        {"unit": "images", "variant": "hd", "quantity": 2},
        {"unit": "seconds", "variant": None, "quantity": 3},
    ]
    assert [(line["unit"], line["variant"], line["quantity"]) for line in record["derivation"]["lines"]] == [
        ("input_tokens", None, 3),
        ("images", "hd", 2),
        ("input_image_tokens", None, 7),
        ("seconds", None, 3),
    ]
    rows = api.get("/api/v1/usage?by=operation")["data"]
    assert [(row["images"], row["seconds"], row["characters"]) for row in rows] == [(2, 3, 0)]


def test_the_derivation_names_the_tier(made: Parts, api: Api) -> None:
    """Above how many input tokens its prices hold, and the service tier that they are of."""
    first = (Rate("input_tokens", 10**12, 10**6), Rate("input_image_tokens", 0, 1, "gpt-image-1"))
    tiers = (Tier(0, first), Tier(200, (Rate("input_tokens", 2 * 10**12, 10**6),)))
    card = RateCard("openai", "gpt-4o", "v-tiers", tiers, service_tier="priority", region="eu")
    made.books.keep_rate_cards(card_rows(Catalogue(deployments=(Deployment("d", "openai", "m", "m", (card,)),))))
    # What another model read that a tool called does not make the call a longer one.
    drawn = (Measure("input_image_tokens", "gpt-image-1", 50_000),)
    for id, tokens in (("req_8", 200), ("req_9", 201)):
        intent, end = settled_call(id, version="v-tiers")
        assert isinstance(end, Settled)
        made.journal.add(opened(), intent, end._replace(usage=Usage(input_text=tokens, other=drawn)))
    made.project()
    found = [api.get(f"/api/v1/requests/{id}")["derivation"] for id in ("req_8", "req_9")]
    assert [(each["above_input_tokens"], each["cost"]) for each in found] == [(0, "0.0002"), (200, "0.000402")]
    assert {(each["service_tier"], each["region"]) for each in found} == {("priority", "eu")}


def cached(made: Parts) -> None:
    """A miss, a wish for a new answer, and two hits, one of them charged; two calls beside these."""
    version = fill(made)
    for id, word in (("req_5", "miss"), ("req_6", "refresh")):
        intent, end = settled_call(id, version=version)
        assert isinstance(end, Settled)
        made.journal.add(intent, end._replace(cache=word))
    made.journal.add(recalled_call("req_7"), recalled_call("req_8", charge=437_500, who=WHO._replace(team="ops")))
    made.project()


def test_a_hit_says_what_it_saved_and_how_it_was_charged(made: Parts, api: Api) -> None:
    """Nothing was used, the answer was kept before, so much was saved and so much is charged."""
    cached(made)
    record = api.get("/api/v1/requests/req_8")
    told = ("status", "cache", "saved_cost", "cost", "charge", "deployment", "provider", "price_version", "attempts")
    assert [record[name] for name in told] == ["ok", "hit", "0.00175", "0", "0.0004375", None, None, None, []]
    derivation = record["derivation"]
    line = {"name": "hit", "term": "the answer was kept before, which saved 0.00175", "amount": "0.0004375"}
    assert (derivation["lines"], derivation["charge_lines"]) == ([], [line])
    assert (derivation["price_version"], derivation["cost"], derivation["charge"]) == (None, "0", "0.0004375")
    assert api.get("/api/v1/requests/req_7")["derivation"]["charge_lines"][0]["amount"] == "0"
    assert [api.get(f"/api/v1/requests/{id}")["cache"] for id in ("req_5", "req_6", "req_1")] == [
        "miss", "refresh", "off",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "ids"),
    [
        ("hit", ["req_8", "req_7"]),
        ("miss", ["req_5"]),
        ("refresh", ["req_6"]),
        ("off", ["req_4", "req_3", "req_2", "req_1"]),
    ],
)
def test_records_are_found_by_what_the_cache_did(made: Parts, api: Api, word: str, ids: list[str]) -> None:
    """By the word that they show."""
    cached(made)
    assert [row["id"] for row in api.get(f"/api/v1/requests?cache={word}")["data"]] == ids


def test_another_word_of_the_cache_is_refused(api: Api) -> None:
    """It names the words that there are."""
    problem = api.get("/api/v1/requests?cache=maybe", 400)
    assert problem["code"] == "filter_invalid"
    assert "refresh" in problem["detail"]


def test_usage_sums_hits_misses_and_what_was_saved(made: Parts, api: Api) -> None:
    """A hit is a request that cost nothing; months and subscriptions add up the same."""
    cached(made)
    for query in ("by=team", "by=team&interval=month", "by=team,subscription"):
        rows = api.get(f"/api/v1/usage?{query}")["data"]
        names = ("team", "requests", "cost", "charge", "cache_hits", "cache_misses", "saved_cost")
        assert [[row[name] for name in names] for row in rows] == [
            ["ops", 2, "0.00175", "0.0021875", 1, 0, "0.00175"],
            ["research", 4, "0.00525", "0.00525", 1, 1, "0.00175"],
        ]


def test_a_hit_is_asked_of_a_rehearsed_limit_with_its_charge(made: Parts, api: Api) -> None:
    """It is one request, and its dollars are what it was charged."""
    cached(made)
    limits = [
        {"unit": "requests", "amount": 1, "window": "day", "select": {"team": "ops"}},
        {"unit": "usd", "amount": "9", "window": "day", "select": {"team": "ops"}},
    ]
    made.clock.now += DAY
    told = api.post("/api/v1/rehearse", {"from": "2026-11-20", "to": "2026-11-21T13:00:00Z", "limits": limits}, 200)
    assert (told["requests"], told["charge"]) == (6, "0.0074375")
    requests, dollars = told["limits"]
    assert (requests["requests"], requests["refused"], requests["refused_charge"]) == (2, 1, "0.0004375")
    assert dollars["most"]["amount"] == "0.00175"


def test_a_refusal_is_a_record_without_a_derivation(made: Parts, api: Api) -> None:
    """It cost nothing, so nothing is derived."""
    fill(made)
    record = api.get("/api/v1/requests/req_4")
    assert (record["status"], record["code"], record["derivation"]) == ("refused", "budget_exhausted", None)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ["req_4", "req_3", "req_2", "req_1"]),
        ("team=ops", ["req_2"]),
        ("status=refused", ["req_4"]),
        ("tag.env=ci&status=ok", ["req_3", "req_1"]),
        ("since=2026-11-21T00:00:00Z", ["req_4", "req_2", "req_1"]),
        ("until=2026-11-01", ["req_3"]),
        ("operation=chat.completions&model=gpt-4o&key=key_1&limit=1000", ["req_4", "req_3", "req_2", "req_1"]),
        ("team=nobody", []),
    ],
)
def test_records_are_listed_newest_first_and_filtered(made: Parts, api: Api, query: str, ids: list[str]) -> None:
    """Every identity, tag, status and time is a filter."""
    fill(made)
    assert [row["id"] for row in api.get(f"/api/v1/requests?{query}")["data"]] == ids


def test_pages_follow_each_other_without_gap_or_repeat(made: Parts, api: Api) -> None:
    """A cursor leads to the rest of the same list."""
    fill(made)
    assert [row["id"] for row in api.pages("/api/v1/requests?limit=1")] == ["req_4", "req_3", "req_2", "req_1"]


def test_what_is_new_is_told_in_the_order_of_booking_past_what_filters_leave_out(made: Parts, api: Api) -> None:
    """Each answer names the record after which to go on, also where it tells none."""
    fill(made)
    url = "/api/v1/requests?booked_after="
    everything, page = api.get(url), api.get(url + "&limit=2")
    rest = api.get(url + page["booked_until"])
    nothing = api.get(url + page["booked_until"] + "&team=ops")

    assert [row["id"] for row in everything["data"]] == ["req_1", "req_2", "req_3", "req_4"]
    assert ([row["id"] for row in page["data"]], page["booked_until"]) == (["req_1", "req_2"], "req_2")
    assert ([row["id"] for row in rest["data"]], rest["booked_until"]) == (["req_3", "req_4"], "req_4")
    assert (nothing["data"], nothing["booked_until"], nothing["next_cursor"]) == ([], "req_4", None)
    assert api.get(url + "req_4") == {"data": [], "next_cursor": None, "booked_until": "req_4"}
    assert api.get(url + "req_of_nobody", 400)["code"] == "filter_invalid"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "page_invalid"),
        ("limit=-1", "page_invalid"),
        ("limit=1001", "page_invalid"),
        ("limit=abc", "page_invalid"),
        ("limit=%D9%A3", "page_invalid"),
        ("cursor=abcd", "page_invalid"),
        ("cursor=%00", "filter_invalid"),
        ("sort=password", "filter_invalid"),
        ("team=a&team=b", "filter_invalid"),
        ("team=" + "x" * 257, "filter_invalid"),
        ("status=great", "filter_invalid"),
        ("since=yesterday", "filter_invalid"),
        ("since=2026-11-02&until=2026-11-01", "filter_invalid"),
        ("tag.=x", "filter_invalid"),
    ],
)
def test_a_page_or_filter_that_cannot_be_is_refused(api: Api, query: str, code: str) -> None:
    """Both kinds of mistakes are told apart."""
    assert api.get(f"/api/v1/requests?{query}", status=400)["code"] == code


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("requests?since=0001-01-01", True),
        ("requests?since=9999-12-31", False),
        ("requests?until=9999-12-31", True),
        ("requests?until=1970-01-01", False),
        ("usage?from=0001-01-01", True),
        ("usage?from=2026-11-01&to=9999-12-31", True),
    ],
)
def test_times_that_no_book_can_hold_are_before_or_after_everything(
    made: Parts, api: Api, path: str, found: bool
) -> None:
    """A date is a date, however far away."""
    fill(made)
    assert bool(api.get(f"/api/v1/{path}")["data"]) is found


def test_a_cursor_belongs_to_its_list_and_filter(made: Parts, api: Api) -> None:
    """Moved to another list, another filter or altered, it is refused."""
    fill(made)
    cursor = api.get("/api/v1/requests?limit=1&team=research")["next_cursor"]
    assert api.get(f"/api/v1/requests?limit=1&team=research&cursor={cursor}")["data"]
    for path in (f"requests?limit=1&cursor={cursor}", f"keys?limit=1&cursor={cursor}"):
        assert api.get(f"/api/v1/{path}", status=400)["code"] == "page_invalid"
    altered = ("B" if cursor[-1] != "B" else "C") + cursor[1:]
    assert api.get(f"/api/v1/requests?limit=1&team=research&cursor={altered}", status=400)["code"] == "page_invalid"


@pytest.mark.parametrize("text", ["%25%25%25%25", "_" * 200, "(a%2B)%2B%24", "' OR 1=1--"])
def test_patterns_are_plain_texts(made: Parts, api: Api, text: str) -> None:
    """What means something to a database or a regular expression means nothing here."""
    fill(made)
    assert api.get(f"/api/v1/requests?team={text}")["data"] == []


def test_usage_sums_this_month_by_default_and_leaves_refusals_out(made: Parts, api: Api) -> None:
    """The row is the one that CONTRACT shows, with the finer leaves beside it."""
    fill(made)
    rows = api.get("/api/v1/usage?by=team,model")["data"]
    assert rows[1] == {
        "team": "research",
        "model": "gpt-4o",
        "requests": 1,
        "input_tokens": 300,
        "output_tokens": 100,
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
        "images": 0,
        "seconds": 0,
        "characters": 0,
        "cost": "0.00175",
        "charge": "0.00175",
        "cache_hits": 0,
        "cache_misses": 0,
        "saved_cost": "0",
    }
    assert [row["team"] for row in rows] == ["ops", "research"]


@pytest.mark.parametrize(
    ("interval", "starts"),
    [
        ("month", ["2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"]),
        ("day", ["2026-10-27T00:00:00Z", "2026-11-21T00:00:00Z"]),
        ("hour", ["2026-10-27T12:00:00Z", "2026-11-21T12:00:00Z"]),
    ],
)
def test_usage_comes_in_buckets(made: Parts, api: Api, interval: str, starts: list[str]) -> None:
    """Hours, days and months of UTC; a month is the sum of its days."""
    fill(made)
    rows = api.get(f"/api/v1/usage?from=2026-10-01&interval={interval}")["data"]
    assert [row[interval] for row in rows] == starts
    assert [row["requests"] for row in rows] == [1, 2]


def test_usage_by_key_shows_name_and_id(made: Parts, api: Api) -> None:
    """A key is known by its id; people know it by its name."""
    row, _ = create(made.console, NewKey(name="ci"))
    made.journal.add(opened(), *settled_call("req_1", who=WHO._replace(key=row["id"])))
    made.project()
    (found,) = api.get("/api/v1/usage?by=key")["data"]
    assert (found["key"], found["key_name"]) == (row["id"], "ci")


@pytest.mark.parametrize(
    "query",
    [
        "by=colour",
        "by=team,team",
        "by=team,model,user,project,stage,key,product",
        "from=2026-12-01&to=2026-11-01",
        "from=1970-01-01&interval=hour",
        "interval=fortnight",
        "by=tag.",
        "grouping=team",
    ],
)
def test_usage_that_cannot_be_asked_is_refused(api: Api, query: str) -> None:
    """Unknown dimensions, times in the wrong order, too many points."""
    assert api.get(f"/api/v1/usage?{query}", status=400)["code"] == "filter_invalid"


def test_usage_by_tag_and_operation(made: Parts, api: Api) -> None:
    """Tags and the operation are dimensions like others."""
    fill(made)
    rows = api.get("/api/v1/usage?by=tag.env,operation&team=research")["data"]
    assert [(row["tag.env"], row["operation"], row["requests"]) for row in rows] == [("ci", "chat.completions", 1)]


@given(st.integers(0, 10**25), st.sampled_from([1, 2, 7, 3000, 10**6, 10**12]))
def test_exact_amounts_lose_nothing(numerator: int, denominator: int) -> None:
    """The text of a derivation reads back as the very fraction."""
    value = Fraction(numerator, denominator)
    assert Fraction(exact(value)) == value
