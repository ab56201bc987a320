"""What was kept of prompts and answers, as the admin API shows it, and the search for it (CAPABILITIES F5, F8)."""

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from console_parts import NOON, SECOND, WHO, Api, Parts, refused_call, settled_call
from faregate.console.app import create_app
from faregate.console.compile import all_keys
from faregate.console.content_modes import check_mode
from faregate.console.payer_rules import PayerRules
from faregate.console.problems import ApiProblem
from faregate.core.attribution import Attribution
from faregate.ports import ContentRecord, KeptText
from faregate.storage.contents import ContentStore


def id_of(number: int) -> str:
    return f"req_{number:026d}"


def content(number: int, prompt: str = "Say hello.", answer: str = "Hello.") -> ContentRecord:
    at = NOON + number * SECOND
    return ContentRecord(
        id_of(number), at, "full", True, 200, "", KeptText(prompt, len(prompt), 90), KeptText(answer, 70_000, 99, True),
        (("email", "redact", "request", 2),),
    )  # fmt: skip


def call(made: Parts, number: int, *, prompt: str = "Say hello.", who: Attribution = WHO, cost: int = 1_000) -> None:
    """A call in the books with its content."""
    made.journal.add(*settled_call(id_of(number), at=NOON + number * SECOND, who=who, cost=cost))
    made.project()
    store(made).take(str(number), [content(number, prompt)])


def store(made: Parts) -> ContentStore:
    kept = made.console.contents
    assert isinstance(kept, ContentStore)
    return kept


def looks(api: Api) -> list[dict[str, Any]]:
    return [each for each in api.get("/api/v1/audit")["data"] if each["kind"] == "content"]


def test_prompt_and_answer_of_a_request_are_shown(made: Parts, api: Api) -> None:
    """Texts, true lengths, what was cut, and what rules found."""
    call(made, 1)

    shown = api.get(f"/api/v1/requests/{id_of(1)}/content")
    assert shown["prompt"] == {"text": "Say hello.", "characters": 10, "bytes": 90, "truncated": False}
    assert shown["answer"] == {"text": "Hello.", "characters": 70_000, "bytes": 99, "truncated": True}
    assert shown["rules"] == [{"rule": "email", "action": "redact", "where": "request", "times": 2}]
    assert (shown["id"], shown["kept"], shown["stream"]) == (id_of(1), "full", True)


def test_each_look_is_in_the_trail_of_changes(made: Parts, api: Api) -> None:
    """Who, when, at which request; and nothing of what was seen."""
    call(made, 1, prompt="CANARY")
    api.get(f"/api/v1/requests/{id_of(1)}/content")
    api.get("/api/v1/contents")
    api.get("/api/v1/requests?text=CANARY")
    api.send("DELETE", f"/api/v1/requests/{id_of(1)}/content")

    told = looks(api)
    assert [(each["id"], each["after"]["did"]) for each in told[::-1]] == [
        (id_of(1), "read"),
        (id_of(1), "read"),
        ("", "searched"),
        (id_of(1), "deleted"),
    ]
    assert {each["actor"] for each in told} != {""}
    assert "CANARY" not in str(told)


def test_what_was_deleted_is_gone_and_its_record_stays(made: Parts, api: Api) -> None:
    """A second deletion finds nothing; accounting is as it was."""
    call(made, 1)
    before = api.get(f"/api/v1/requests/{id_of(1)}")

    assert api.send("DELETE", f"/api/v1/requests/{id_of(1)}/content")["removed"] is True
    api.send("DELETE", f"/api/v1/requests/{id_of(1)}/content", status=404)
    api.get(f"/api/v1/requests/{id_of(1)}/content", 404)
    assert api.get(f"/api/v1/requests/{id_of(1)}") == before


def test_a_request_that_does_not_exist_has_no_content(made: Parts, api: Api) -> None:
    """Nor one whose record is not there, whatever was kept under its id."""
    store(made).take("x", [content(9)])
    for id in ("req_nothing", id_of(9), "x" * 300):
        api.get(f"/api/v1/requests/{id}/content", 404)


def test_pairs_of_prompt_and_answer_are_listed_with_their_records(made: Parts, api: Api) -> None:
    """Newest first, page by page, by every filter of requests."""
    for number in range(5):
        call(made, number, who=WHO._replace(user="jane" if number % 2 else "john"))

    pages = api.pages("/api/v1/contents?limit=2")
    jane = api.get("/api/v1/contents?user=jane")["data"]
    assert [each["id"] for each in pages] == [id_of(n) for n in (4, 3, 2, 1, 0)]
    assert [each["request"]["user"] for each in jane] == ["jane", "jane"]
    assert pages[0]["request"]["cost"] == "0.000001"


def test_requests_are_found_by_what_was_said_in_them(made: Parts, api: Api) -> None:
    """With other filters beside it, over pages."""
    for number in range(6):
        call(made, number, prompt="a needle" if number % 2 else "hay", who=WHO._replace(user=f"u{number}"))

    found = api.pages("/api/v1/requests?text=NEEDLE&limit=1")
    one = api.get("/api/v1/requests?text=needle&user=u3")["data"]
    assert [row["id"] for row in found] == [id_of(n) for n in (5, 3, 1)]
    assert [row["id"] for row in one] == [id_of(3)]


@pytest.mark.parametrize("text", ["%" * 128, "_" * 128, "(a+)+$", "'; DROP TABLE contents; --", "\\"])
def test_signs_mean_themselves(made: Parts, api: Api, text: str) -> None:
    """BAD-INPUT A75 and A76: literal, and bounded."""
    call(made, 1)
    call(made, 2, prompt=f"x{text}y")

    found = api.send("GET", "/api/v1/requests?" + urlencode({"text": text}))
    assert [row["id"] for row in found["data"]] == [id_of(2)]


@pytest.mark.parametrize(
    "query", ["text=" + "x" * 129, "text=", "sort=password", "order=up", "booked_after=&text=x", "sort=cost&sort=cost"]
)
def test_questions_that_cannot_be_asked_are_refused(made: Parts, api: Api, query: str) -> None:
    """BAD-INPUT A74 and A75."""
    assert api.get(f"/api/v1/requests?{query}", 400)["code"] == "filter_invalid"


def test_requests_come_in_the_order_of_their_cost(made: Parts, api: Api) -> None:
    """The dearest first, or the cheapest, over pages; with a text among its matches."""
    for number, cost in enumerate((5_000, 1_000, 9_000, 9_000, 3_000)):
        call(made, number, cost=cost, prompt="needle" if number else "hay")

    dearest = api.pages("/api/v1/requests?sort=cost&limit=2")
    cheapest = api.get("/api/v1/requests?sort=cost&order=asc")["data"]
    matches = api.get("/api/v1/requests?sort=cost&text=needle&limit=2")
    assert [row["id"] for row in dearest] == [id_of(n) for n in (3, 2, 0, 4, 1)]
    assert [row["id"] for row in cheapest] == [id_of(n) for n in (1, 4, 0, 2, 3)]
    assert [row["id"] for row in matches["data"]] == [id_of(n) for n in (3, 2)]
    assert matches["complete"] is True


def test_the_oldest_come_first_where_that_is_asked(made: Parts, api: Api) -> None:
    """By date, the other way round."""
    for number in range(3):
        call(made, number)

    assert [row["id"] for row in api.pages("/api/v1/requests?order=asc&limit=1")] == [id_of(n) for n in (0, 1, 2)]


def test_a_cursor_of_another_order_is_refused(made: Parts, api: Api) -> None:
    """It belongs to the question that it was given for."""
    for number in range(3):
        call(made, number)
    cursor = api.get("/api/v1/requests?sort=cost&limit=1")["next_cursor"]

    assert api.get(f"/api/v1/requests?limit=1&cursor={cursor}", 400)["code"] == "page_invalid"


def test_calls_are_found_by_their_callers_ids_and_metadata(made: Parts, api: Api) -> None:
    """They stand apart from the tags."""
    tags = (("env", "ci"), ("event_id", "order-7"), ("metadata.step", "3"))
    call(made, 1, who=WHO._replace(tags=tags))
    call(made, 2)

    (found,) = api.get("/api/v1/requests?event_id=order-7&metadata.step=3&tag.env=ci")["data"]
    assert (found["event_id"], found["metadata"], found["tags"]) == ("order-7", {"step": "3"}, {"env": "ci"})
    assert api.get("/api/v1/requests?event_id=order-8")["data"] == []
    plain = api.get(f"/api/v1/requests/{id_of(2)}")
    assert (plain["event_id"], plain["metadata"]) == (None, {})


def test_refused_calls_are_among_what_is_found(made: Parts, api: Api) -> None:
    """By their code, and by what was asked."""
    made.journal.add(refused_call(id_of(1)))
    made.project()
    store(made).take("a", [content(1, "May I?")])

    assert [row["id"] for row in api.get("/api/v1/requests?text=may+i&status=refused")["data"]] == [id_of(1)]


def test_a_search_stops_in_time_and_says_where(made: Parts, api: Api) -> None:
    """The next page goes on behind it."""
    call(made, 1, prompt="needle")
    for number in range(2, 3):
        call(made, number, prompt="hay")

    class Slow(ContentStore):
        """Gives one content at a time, and lets the clock run."""

        def containing(
            self, text: str, before: str, among: int, since: int = 0, until: int = 0
        ) -> tuple[list[str], str]:
            del among
            made.clock.now += 2 * SECOND
            return super().containing(text, before, 1, since, until)

    slow = Api(create_app(replace(made.console, contents=Slow(store(made).path))), made.admin_key("slow"))
    first = slow.get("/api/v1/requests?text=needle")
    second = slow.get(f"/api/v1/requests?text=needle&cursor={first['next_cursor']}")

    assert first["data"] == []
    assert first["next_cursor"] is not None
    assert [row["id"] for row in second["data"]] == [id_of(1)]


def test_contents_may_be_wished_for_only_where_their_end_is_known(made: Parts) -> None:
    """A key's or a product's word is refused with the way out; ``off`` is always allowed."""
    with pytest.raises(ApiProblem, match=r"content\.retention"):
        check_mode(made.console, "full")
    check_mode(made.console, "off")
    check_mode(replace(made.console, facts=replace(made.console.facts, keeps_contents=True)), "full")


def test_an_auditor_searches_no_contents(made: Parts, api: Api) -> None:
    """Neither by the list of requests, which he may see."""
    call(made, 1, prompt="needle")
    auditor = api.post("/api/v1/keys", {"name": "auditor", "role": "auditor"})["secret"]
    theirs = Api(made.app, auditor)

    assert len(theirs.get("/api/v1/requests")["data"]) == 1
    for path in ("/requests?text=needle", "/contents", f"/requests/{id_of(1)}/content"):
        assert theirs.get(f"/api/v1{path}", 403)["code"] == "role_forbidden"


def _keeping(made: Parts) -> Api:
    """A console whose configuration says how long contents are kept."""
    facts = replace(made.console.facts, keeps_contents=True)
    return Api(create_app(replace(made.console, facts=facts)), made.admin_key("keeping"))


def test_keys_and_products_say_what_is_kept_of_their_calls(made: Parts, api: Api) -> None:
    """A key's word goes before its product's; the gate is told the one that counts."""
    keeping = _keeping(made)
    keeping.post("/api/v1/products", {"name": "gold", "content": "metadata"})
    loud = keeping.post("/api/v1/keys", {"name": "loud", "product": "gold", "content": "full"})
    quiet = keeping.post("/api/v1/keys", {"name": "quiet", "product": "gold"})
    plain = keeping.post("/api/v1/keys", {"name": "plain"})

    rules = PayerRules(made.books)
    rules.read()
    told = {key.name: key.content for key in rules.applied(all_keys(made.books))}
    assert (loud["content"], quiet["content"], plain["content"]) == ("full", None, None)
    assert (told["loud"], told["quiet"], told["plain"]) == ("full", "metadata", "")
    assert keeping.send("PATCH", f"/api/v1/keys/{loud['id']}", {"content": None})["content"] is None
    refused = api.send("PATCH", f"/api/v1/keys/{quiet['id']}", {"content": "full"}, status=422)
    assert refused["code"] == "invariant"


def test_a_product_that_changes_its_word_has_its_keys_sent_again(made: Parts) -> None:
    """However little else it restricts."""
    keeping = _keeping(made)
    product = keeping.post("/api/v1/products", {"name": "gold"})
    key = keeping.post("/api/v1/keys", {"name": "of gold", "product": "gold"})
    rules = PayerRules(made.books)
    rules.read()
    keeping.send("PATCH", f"/api/v1/products/{product['id']}", {"content": "full"})

    assert [(rule.name, rule.content) for rule in rules.touched([(1, "product", product["id"])])] == [("gold", "full")]
    assert {each.content for each in rules.applied(all_keys(made.books)) if each.id == key["id"]} == {"full"}
    keeping.send("PATCH", f"/api/v1/products/{product['id']}", {"content": None})
    assert [(rule.name, rule.content) for rule in rules.touched([(2, "product", product["id"])])] == [("gold", "")]
    assert {each.content for each in rules.applied(all_keys(made.books)) if each.id == key["id"]} == {""}


def test_a_manager_decides_nothing_about_contents(made: Parts) -> None:
    """Neither that they are kept nor that they are not."""
    keeping = _keeping(made)
    keeping.post("/api/v1/teams", {"name": "research"})
    manager = keeping.post("/api/v1/keys", {"name": "boss", "role": "manager", "team": "research"})["secret"]
    facts = replace(made.console.facts, keeps_contents=True)
    theirs = Api(create_app(replace(made.console, facts=facts)), manager)

    for mode in ("off", "full"):
        refused = theirs.post("/api/v1/keys", {"name": "mine", "content": mode}, 403)
        assert refused["code"] == "role_forbidden"
