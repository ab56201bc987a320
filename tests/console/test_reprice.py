"""``/api/v1/reprice`` and ``/adjustments``: what a period would have cost, and the correction that books it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console_parts import (
    DAY,
    HOUR,
    NOON,
    SECOND,
    WHO,
    Api,
    Parts,
    opened,
    parts,
    recalled_call,
    refused_call,
    run,
    settled_call,
)
from faregate.config.load import load_text
from faregate.console.compile import card_rows
from faregate.console.corrections import LOOK_AGAIN_NANOS, TrueUp
from faregate.console.prices import compiled
from faregate.core.ledger.events import Event, Settled
from faregate.core.usage import Usage

CONFIG = b"""\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${KEY}"}
pricing:
  unknown: ceiling
  ceiling:
    - {unit: input_tokens, per: 1000000, price: "100"}
    - {unit: output_tokens, per: 1000000, price: "200"}
  overrides:
    - {provider: openai, model: house, unit: input_tokens, per: 1000000, price: "1"}
    - {provider: openai, model: house, unit: output_tokens, per: 1000000, price: "2"}
    - {provider: openai, model: small, unit: input_tokens, per: 1000000, price: "0.1"}
    - {provider: openai, model: small, unit: cached_input_tokens, per: 1000000, price: "0.01"}
    - {provider: openai, model: small, unit: output_tokens, per: 1000000, price: "0.2"}
    - {provider: openai, model: embed-only, unit: input_tokens, per: 1000000, price: "0.1"}
models:
  - {name: strange, to: [openai/strange]}
"""

#: 300 input and 100 output tokens of house, as every call here uses: 0.0005 dollars.
COST = 500_000
HOUSE = WHO._replace(model="house", deployment="openai/house")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Parts]:
    config = load_text(CONFIG, "faregate.yaml", {"KEY": "sk-of-a-provider"}, tmp_path).config
    with parts(tmp_path, config=config) as each:
        yield each


@pytest.fixture
def api(made: Parts) -> Api:
    return Api(made.app, made.admin_key())


def version(made: Parts, model: str) -> str:
    """The price version in force of a model, whose card is kept as the running console keeps it."""
    catalogue = compiled(made.console)
    made.books.keep_rate_cards(card_rows(catalogue))
    (deployment,) = [each for each in catalogue.deployments if each.model == model]
    return next(each.version for each in deployment.cards if not each.service_tier)


def changed(call: tuple[Event, Event], **facts: Any) -> tuple[Event, Event]:
    """A call that ended otherwise."""
    intent, end = call
    assert isinstance(end, Settled)
    return intent, end._replace(**facts)


def booked(made: Parts, *events: Event) -> None:
    made.journal.add(opened(), *events)
    made.project()


def calls(made: Parts, count: int = 4) -> list[str]:
    """Calls of two teams on two days, a refused one and one whose charge was decided among them."""
    price = version(made, "house")
    ids = [f"req_{number}" for number in range(count)]
    events: list[Event] = []
    for number, id in enumerate(ids):
        who = HOUSE._replace(team="research" if number % 2 else "sales")
        events += settled_call(id, who=who, at=NOON - DAY * (number // 2), cost=COST, version=price)
    events += changed(settled_call("req_decided", who=HOUSE, cost=7_000_000, version=price), usage=Usage())
    booked(made, *events, refused_call("req_refused", HOUSE))
    return ids


def ask(api: Api, status: int = 200, **more: Any) -> Any:
    return api.send("POST", "/api/v1/reprice", {"from": "2026-11-01", **more}, status=status)


BOOK = {
    "file": "book.csv",
    "text": "provider,model,unit,per,price\nopenai,house,input_tokens,1M,3\nopenai,house,output_tokens,1M,4\n",
}

#: Ways to price a period again.
WAYS: dict[str, dict[str, Any]] = {
    "book": {"book": BOOK},
    "model": {"map": {"house": "small"}},
    "rate": {"map": {"house": "small"}, "cached_percent": 50},
}


# -- what if -----------------------------------------------------------------------------------------------------------


def test_present_prices_give_what_is_booked(made: Parts, api: Api) -> None:
    """Where nothing changed there is no difference; what was decided is left as it is and counted."""
    calls(made)
    told = ask(api)
    assert (told["total"]["requests"], told["total"]["cost_difference"], told["corrected"]) == (5, "0", 0)
    assert (told["as_booked"], told["committed"]) == ({"not_from_usage": 1}, False)


def test_a_new_price_does_not_alter_older_cost(made: Parts, api: Api) -> None:
    """From its day on it holds; a period before it is priced as it was."""
    calls(made)
    for unit in ("input_tokens", "output_tokens"):
        own = {"provider": "openai", "model": "house", "unit": unit, "per": 1_000_000, "price": "50"}
        api.send("PUT", "/api/v1/prices", {**own, "effective_from": "2026-11-21T13:00:00Z"})
    made.clock.now += DAY
    late = settled_call("req_late", who=HOUSE, at=NOON + 2 * HOUR, cost=20_000_000, version=version(made, "house"))
    later = compiled(made.console)
    made.books.keep_rate_cards(card_rows(later))
    cards = [each for d in later.deployments if d.model == "house" for each in d.cards if not each.service_tier]
    newest = max(cards, key=lambda card: card.effective_from).version
    booked(made, *changed(late, price_version=newest))
    assert ask(api)["total"]["cost_difference"] == "0"
    assert {row["cost"] for row in api.get("/api/v1/requests?model=house&status=ok")["data"]} == {
        "0.0005", "0.007", "0.02",
    }  # fmt: skip


def test_another_book_is_told_in_total_and_by_model_team_and_day(made: Parts, api: Api) -> None:
    """Input at 3 and output at 4 dollars: 0.0013 each; the books do not move."""
    calls(made)
    before = made.books.totals()
    told = ask(api, book=BOOK)
    assert (told["total"]["booked_cost"], told["total"]["new_cost"]) == ("0.009", "0.0122")
    assert [(row["team"], row["requests"], row["cost_difference"]) for row in told["by"]["team"]] == [
        ("research", 3, "0.0016"),
        ("sales", 2, "0.0016"),
    ]
    assert [(row["day"], row["new_cost"]) for row in told["by"]["day"]] == [
        ("2026-11-20", "0.0026"),
        ("2026-11-21", "0.0096"),
    ]
    assert (made.books.totals(), made.books.adjustments()) == (before, [])
    assert api.get("/api/v1/prices?model=house")["data"][0]["price"] == "1"


def test_hits_of_the_cache_are_left_alone(made: Parts, api: Api) -> None:
    """They used nothing that another price, model or cache rate could change, and stay charged what they were."""
    calls(made)
    before = {name: ask(api, **more)["total"] for name, more in WAYS.items()}
    hits = [recalled_call(f"req_hit_{n}", who=HOUSE, saved=COST, charge=n * 125_000) for n in range(2)]
    booked(made, *hits)
    assert {name: ask(api, **more)["total"] for name, more in WAYS.items()} == before
    assert ask(api, book=BOOK, commit=True, reason="dearer")["corrected"] == 4
    assert api.get("/api/v1/requests/req_hit_1")["adjustments"] == []


def test_another_model_is_told(made: Parts, api: Api) -> None:
    """As requested or as priced, at the same or a named provider; one without a price is counted as it is booked."""
    calls(made)
    assert ask(api, map={"house": "small"})["total"]["new_cost"] == "0.0072"
    assert ask(api, map={"house": "openai/small"})["total"]["new_cost"] == "0.0072"
    told = ask(api, map={"house": "no-such-model"})
    assert (told["as_booked"], told["total"]["cost_difference"]) == ({"no_price": 4, "not_from_usage": 1}, "0")


def test_what_another_model_has_no_price_for_is_not_counted_as_free(made: Parts, api: Api) -> None:
    """One that only embeds has no price of an answer: the calls of a chat are left as they are booked."""
    calls(made)
    told = ask(api, map={"house": "embed-only"})
    assert (told["as_booked"], told["total"]["cost_difference"]) == ({"no_price": 4, "not_from_usage": 1}, "0")


def test_a_period_may_begin_before_all_time(made: Parts, api: Api) -> None:
    """Whatever moment people write for everything there is."""
    calls(made)
    told = api.send("POST", "/api/v1/reprice", {"from": "0001-01-01"})
    assert told["total"] == ask(api)["total"]


def test_another_cache_rate_is_told(made: Parts, api: Api) -> None:
    """Half of 300 input tokens at a tenth of their price: 150 × 0.1 + 150 × 0.01 + 100 × 0.2 per million."""
    calls(made, 2)
    told = ask(api, map={"house": "small"}, cached_percent=50, select={"team": "sales"})
    assert told["total"]["new_cost"] == "0.0000365"


def test_a_fixed_capacity_is_told(made: Parts, api: Api) -> None:
    """Nothing by the token, and the part of the commitment that falls into the period."""
    calls(made)
    api.send("PUT", "/api/v1/capacities", {"name": "ptu", "provider": "openai", "commitment": "300"})
    told = ask(api, to="2026-11-16", capacity="ptu")
    assert (told["total"]["new_cost"], told["fixed"]["commitment"]) == ("0", "150")
    told = ask(api, capacity="ptu", select={"team": "research"})
    assert told["fixed"]["commitment"] == "205"
    assert told["fixed"]["cost_difference"] == "204.992"


@pytest.mark.parametrize(
    ("more", "code", "status"),
    [
        ({"from": "yesterday"}, "filter_invalid", 400),
        ({"to": "2020-01-01"}, "filter_invalid", 400),
        ({"commit": True}, "field_missing", 422),
        ({"commit": True, "reason": "x", "cached_percent": 5}, "field_conflict", 422),
        ({"commit": True, "reason": "x", "run": "a b"}, "field_range", 422),
        ({"cached_percent": 101}, "field_range", 422),
        ({"select": {"colour": "red"}}, "filter_invalid", 400),
        ({"capacity": "none"}, "not_found", 404),
        ({"book": {"file": "b.csv", "text": "x"}}, "field_range", 422),
        ({"books": 1}, "field_unknown", 422),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(api: Api, more: dict[str, Any], code: str, status: int) -> None:
    """And nothing is booked."""
    assert ask(api, status, **more)["code"] == code
    assert api.get("/api/v1/adjustments")["data"] == []


# -- corrections -------------------------------------------------------------------------------------------------------


def test_a_correction_is_booked_once_and_the_books_stay_whole(made: Parts, api: Api) -> None:
    """One transfer for each payer and provider, no entry changed, all of it in the trail and in the records."""
    ids = calls(made)
    entries = list(made.books.postings())
    told = ask(api, book=BOOK, commit=True, reason="the contract of July", run="july-1")
    assert (told["committed"], told["run"], told["corrected"]) == (True, "july-1", 4)
    after = list(made.books.postings())
    assert after[: len(entries)] == entries
    assert [(each["kind"], each["request_id"], each["amount"]) for each in after[len(entries) :]] == [
        ("adjustment", "july-1", 1_600_000), ("adjustment", "july-1", -1_600_000),
        ("adjustment", "july-1", 1_600_000), ("adjustment", "july-1", -1_600_000),
    ]  # fmt: skip
    found = api.get("/api/v1/verify")
    assert ([check for check in found["checks"] if not check["ok"]], found["sum"]) == ([], "0")
    record = api.get(f"/api/v1/requests/{ids[0]}")
    assert record["cost"] == "0.0005"
    assert [(each["run"], each["reason"], each["cost_difference"]) for each in record["adjustments"]] == [
        ("july-1", "the contract of July", "0.0008")
    ]
    assert api.get("/api/v1/audit")["data"][0]["kind"] == "adjustment"
    again = ask(api, book=BOOK, commit=True, reason="the contract of July", run="july-1")
    assert (again["repeated"], again["corrected"]) == (True, 4)
    assert list(made.books.postings()) == after


def test_the_same_run_for_another_question_is_a_conflict(made: Parts, api: Api) -> None:
    """An id stands for one correction for ever."""
    calls(made)
    ask(api, commit=True, reason="one", run="r1")
    assert ask(api, 409, commit=True, reason="another", run="r1")["code"] == "conflict"


def test_a_second_correction_goes_on_from_the_first(made: Parts, api: Api) -> None:
    """What was corrected counts as booked: the same prices again correct nothing, the old ones take it back."""
    calls(made)
    ask(api, book=BOOK, commit=True, reason="up")
    assert ask(api, book=BOOK)["total"]["cost_difference"] == "0"
    down = ask(api, commit=True, reason="down again")
    assert down["total"]["cost_difference"] == "-0.0032"
    assert set(made.books.adjusted_accounts().values()) == {0}
    assert api.get("/api/v1/verify")["ok"] is True
    runs = api.get("/api/v1/adjustments?limit=1")
    assert (len(runs["data"]), runs["next_cursor"] is not None) == (1, True)
    shown = api.get(f"/api/v1/adjustments/{runs['data'][0]['run']}")
    assert (shown["reason"], len(shown["lines"]), shown["lines"][0]["cost_difference"]) == ("down again", 4, "-0.0008")
    assert api.get("/api/v1/adjustments/none", 404)["code"] == "not_found"


def test_charges_are_corrected_by_their_rule_and_the_operator_bears_its_own(made: Parts, api: Api) -> None:
    """A mark-up of ten percent is one of the new cost too; a free call stays free, and its cost is the margin's."""
    price = version(made, "house")
    events: list[Event] = []
    for number, (rule, charge) in enumerate((("markup 10 %", 550_000), ("free", 0), ("", COST))):
        call = settled_call(f"req_{number}", who=HOUSE, cost=COST, version=price)
        events += changed(call, charge=charge, charge_rule=rule)
    booked(made, *events)
    told = ask(api, book=BOOK, commit=True, reason="contract")
    assert (told["total"]["cost_difference"], told["total"]["charge_difference"]) == ("0.0024", "0.00168")
    assert made.books.adjusted_accounts() == {
        "payer:default:research:search::key_1": 1_680_000, "margin": 720_000, "provider:openai": -2_400_000,
    }  # fmt: skip
    assert api.get("/api/v1/verify")["ok"] is True


def test_a_correction_that_somebody_altered_is_found(made: Parts, api: Api) -> None:
    """Its lines no longer have the digest that the trail of changes holds."""
    calls(made)
    ask(api, book=BOOK, commit=True, reason="up", run="r1")
    with sqlite3.connect(made.books.path) as file:
        file.execute("UPDATE adjustment_lines SET cost = cost + 1 WHERE request_id = 'req_1'")
    found = api.get("/api/v1/verify")
    assert [(check["name"], "altered" in check["detail"]) for check in found["checks"] if not check["ok"]] == [
        ("adjustments", True)
    ]


# -- provisional prices ------------------------------------------------------------------------------------------------


def test_what_was_booked_provisionally_is_trued_up_when_a_price_arrives(made: Parts, api: Api) -> None:
    """Once, by the first price that comes; what somebody corrected since is not touched again."""
    ceiling = version(made, "strange")
    assert "provisional" in ceiling
    who = WHO._replace(model="strange", deployment="openai/strange")
    booked(made, *settled_call("req_1", who=who, cost=50_000_000, version=ceiling))
    chore = TrueUp(made.console)
    run(chore.run())
    assert made.books.adjustments() == []
    made.clock.now += HOUR
    for unit, dollars in (("input_tokens", "10"), ("output_tokens", "20")):
        own = {"provider": "openai", "model": "strange", "unit": unit, "per": 1_000_000, "price": dollars}
        api.send("PUT", "/api/v1/prices", own)
    run(chore.run())
    (correction,) = api.get("/api/v1/requests/req_1")["adjustments"]
    assert (correction["kind"], correction["cost_difference"]) == ("true_up", "-0.045")
    assert "openai/strange" in correction["reason"]
    made.clock.now += LOOK_AGAIN_NANOS + SECOND
    run(chore.run())
    assert len(made.books.adjustments()) == 1
    assert api.get("/api/v1/verify")["ok"] is True


def test_provisional_records_can_be_asked_for(made: Parts, api: Api) -> None:
    """The same question without the chore, before anything is booked."""
    ceiling = version(made, "strange")
    who = WHO._replace(model="strange", deployment="openai/strange")
    booked(made, *settled_call("req_1", who=who, cost=50_000_000, version=ceiling),
           *settled_call("req_2", who=HOUSE, cost=COST, version=version(made, "house")))  # fmt: skip
    told = ask(api, provisional=True)
    assert (told["total"]["requests"], told["as_booked"]) == (1, {"no_price": 1})
