"""What every engine of the books promises, run against each of them."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from builders import MINUTE, START, HeldClock, attribution, intended, progressed, recalled, refused, request_id, settled
from faregate.core.amounts import Amounts
from faregate.core.ledger.events import Attempt, Awaited, Event, Lost, Redirected, Started, left_id
from faregate.core.usage import Measure, Usage
from faregate.errors import Conflict, JournalCorrupt, UsageError
from faregate.ports import JournalRecord
from faregate.storage.memory.books import MemoryBooks
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books
from soaking import examples

BooksUnderTest = MemoryBooks | SqliteBooks
SLOT = 15 * MINUTE


def records(events: list[Event], *, after: int = 0) -> list[JournalRecord]:
    """Events as the journal gives them: 100 bytes each, numbered from 1."""
    return [JournalRecord(100 * (n + 1), event, n + 1) for n, event in enumerate(events, after)]


def engine(name: str, folder: Path) -> BooksUnderTest:
    return MemoryBooks(HeldClock()) if name == "memory" else open_books(folder / "books.sqlite3", HeldClock())


@pytest.fixture(params=["memory", "sqlite"])
def books(request: pytest.FixtureRequest, tmp_path: Path, empty_books: Path) -> Iterator[BooksUnderTest]:
    if request.param == "sqlite":
        shutil.copy(empty_books, tmp_path / "books.sqlite3")
    opened = engine(request.param, tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def empty_books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the schema and nothing else: making one costs more than many examples."""
    path = tmp_path_factory.mktemp("empty") / "books.sqlite3"
    open_books(path, HeldClock()).close()
    return path


# -- outbox -----------------------------------------------------------------------------------------------------------


def test_every_end_waits_in_the_outbox(books: BooksUnderTest) -> None:
    """The backlog counts the facts that nobody has copied outward: calls that ended, refusals, unknowns."""
    before = books.outbox_backlog()
    books.project(records([Started(1, START), intended(1), settled(1), refused(2), intended(3), Started(2, START)]))
    assert (before, books.outbox_backlog(), books.totals()["outbox"]) == (0, 3, 3)


# -- projection -------------------------------------------------------------------------------------------------------


def test_an_ordinary_call(books: BooksUnderTest) -> None:
    """An exchange that ends leaves one record, two postings, one roll-up, one outbox row and no hold."""
    books.project(records([Started(1, START), intended(1), settled(1, charge=700)]))
    row = books.request(request_id(1))
    assert row is not None
    expected = {
        "organization": "default", "team": "research", "project": "search", "user": "ada", "key": "key_1",
        "model": "gpt-4o", "provider": "openai", "service": "chat.completions", "tags": {}, "run": "",
        "created_at": START, "ended_at": START + MINUTE, "status": "ok", "http_status": 200, "code": "",
        "input_text": 10, "output_text": 5, "input_tokens": 10, "output_tokens": 5, "usage_source": "provider",
        "cost": 700, "charge": 700, "price_version": "pv_1", "answered_model": "gpt-4o-2024",
        "provider_request_id": "chatcmpl-1", "latency_us": 2_000, "first_token_us": 900, "held": 1_000,
        "attempts": [{"deployment": "openai/gpt-4o", "http_status": 200, "code": "", "duration_us": 1_500}],
        "resolution": "", "limit_id": "", "overrun": 0, "stream": 0,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    totals = books.totals()
    assert {name: totals[name] for name in ("requests", "postings", "sum", "posted", "credited", "held", "open")} == {
        "requests": 1, "postings": 2, "sum": 0, "posted": 700, "credited": 700, "held": 0, "open": 0,
    }  # fmt: skip
    assert books.projected() == 300
    assert books.mark() == {"position": 300, "sequence": 3, "epoch": 1}
    postings = [(row["account"], row["kind"], row["amount"]) for row in books.postings()]
    assert postings == [
        ("payer:default:research:search:ada:key_1", "charge", 700),
        ("provider:openai", "charge", -700),
    ]


def test_an_open_call_is_a_reservation(books: BooksUnderTest) -> None:
    """While an exchange runs, its hold is a reservation with every fact of the intent, and nothing is posted."""
    who = attribution(tags=(("team", "x"),))
    books.project(records([Started(1, START), intended(1, held=900, who=who), progressed(1, 7)]))
    (row,) = books.open_reservations()
    assert (row["id"], row["state"], row["epoch"], row["held"]) == (request_id(1), "dispatched", 1, 900)
    assert (row["output_tokens_seen"], row["tags"], row["amounts"]["tokens"]) == (7, {"team": "x"}, 100)
    assert row["intent"] == intended(1, held=900, who=who)
    assert books.request(request_id(1)) is None
    assert books.totals()["held"] == 900
    books.project(records([settled(1)], after=3))
    assert books.open_reservations() == []
    assert books.totals()["requests"] == 1


def test_a_free_call_posts_nothing(books: BooksUnderTest) -> None:
    """A charge of zero makes a record and no posting."""
    books.project(records([intended(1), settled(1, charge=0)]))
    assert (books.totals()["requests"], books.totals()["postings"]) == (1, 0)


def test_a_refusal_is_a_record_that_counts_nowhere(books: BooksUnderTest) -> None:
    """Refusals are listed and named by their limit, and are in no sum."""
    books.project(records([refused(1)]))
    row = books.request(request_id(1))
    assert row is not None
    assert (row["status"], row["code"], row["limit_id"], row["held"]) == ("refused", "budget_exhausted", "lim_1", 0)
    assert books.usage(["team"], 0, 0) == []
    assert books.balances({}, (), "requests", 0) == []
    assert books.totals()["records"] == 1
    assert books.totals()["requests"] == 0


@pytest.mark.parametrize("batches", [(6,), (1,) * 6, (3, 3)])
def test_a_new_epoch_makes_open_calls_unknown(books: BooksUnderTest, batches: tuple[int, ...]) -> None:
    """What an older epoch left open is unknown, in suspense and not yet charged, until a resolution ends it."""
    told = records([Started(1, START), intended(1, held=900), intended(2), settled(2), progressed(1, 4), Started(2, 9)])
    for size in batches:
        books.project(told[:size])
        told = told[size:]
    (row,) = books.open_reservations("unknown")
    assert (row["id"], row["output_tokens_seen"]) == (request_id(1), 4)
    record = books.request(request_id(1))
    assert record is not None
    assert (record["status"], record["charge"], record["held"], record["ended_at"]) == ("unknown", 0, 900, 9)
    assert books.account_balances()["suspense:default"] == 900
    assert (books.totals()["unknown"], books.totals()["held"], books.totals()["requests"]) == (900, 900, 1)
    assert books.balances({}, (), "usd", 0) == [((), 700)]
    books.project(records([settled(1, charge=80, resolution="provider_said")], after=6))
    record = books.request(request_id(1))
    assert record is not None
    assert (record["status"], record["charge"], record["resolution"]) == ("ok", 80, "provider_said")
    assert books.account_balances()["suspense:default"] == 0
    assert (books.totals()["unknown"], books.totals()["sum"], books.totals()["posted"]) == (0, 0, 780)
    assert books.balances({}, (), "usd", 0) == [((), 780)]


@pytest.mark.parametrize("batches", [(5,), (1,) * 5, (3, 2), (2, 3)])
def test_a_hold_that_grew_is_what_an_unknown_call_holds(books: BooksUnderTest, batches: tuple[int, ...]) -> None:
    """A stream that held more while it ran holds all of it in suspense when its process died, and gives it all back."""
    marks = [progressed(1, 4, held=1_500), progressed(1, 9)]
    told = records([Started(1, START), intended(1, held=900, stream=True), *marks, Started(2, 9)])
    for size in batches:
        books.project(told[:size])
        told = told[size:]
    (row,) = books.open_reservations("unknown")
    assert (row["held"], row["amounts"]["output_tokens"], row["output_tokens_seen"]) == (1_500, 100, 9)
    assert row["intent"].held.usd == 1_500
    assert books.account_balances()["suspense:default"] == 1_500
    assert (books.totals()["unknown"], books.totals()["held"]) == (1_500, 1_500)
    books.project(records([settled(1, charge=1_200, resolution="charge_estimate")], after=5))
    record = books.request(request_id(1))
    assert record is not None
    assert (record["held"], record["charge"], record["overrun"]) == (1_500, 1_200, 0)
    assert books.account_balances()["suspense:default"] == 0


def test_the_record_of_a_cut_stream_names_the_limit(books: BooksUnderTest) -> None:
    """Its code and its limit say why it went no further, and its hold is all that it came to hold."""
    cut = settled(1, status="cut")._replace(code="budget_exhausted", usage_source="estimate", limit="lim_1")
    books.project(records([intended(1, held=900, stream=True), progressed(1, 4, held=1_500), cut]))
    record = books.request(request_id(1))
    assert record is not None
    found = {name: record[name] for name in ("status", "code", "limit_id", "held", "charge")}
    assert found == {"status": "cut", "code": "budget_exhausted", "limit_id": "lim_1", "held": 1_500, "charge": 700}


def test_a_resolution_keeps_what_the_caller_was_told(books: BooksUnderTest) -> None:
    """Status, code, times and attempts of a lost call stay in its record when the provider says what it cost."""
    tried = (Attempt("openai/gpt-4o", 200, "upstream_truncated", 1_200),)
    lost = Lost(request_id(1), START, 502, "upstream_truncated", 1_500, 900, tried)
    books.project(records([intended(1), lost]))
    books.project(records([settled(1, charge=80, resolution="provider_said")], after=2))
    record = books.request(request_id(1))
    assert record is not None
    assert (record["charge"], record["resolution"]) == (80, "provider_said")
    assert (record["http_status"], record["code"]) == (502, "upstream_truncated")
    assert (record["latency_us"], record["first_token_us"]) == (1_500, 900)
    assert record["attempts"] == [tried[0]._asdict()]


def test_accepted_work_is_pending_until_its_end_is_told(books: BooksUnderTest) -> None:
    """Its money is in suspense, its record says pending, and where its end will be told is kept as journalled."""
    told = Awaited("resp_1", (("flex", "v2"),), b"\x00facts")
    accepted = Lost(request_id(1), START, 200, "", 1_500, 900, awaited=told)
    books.project(records([intended(1), accepted, intended(2), Lost(request_id(2), START, 0, "", 5)]))
    waiting = {row["id"]: row["awaited"] for row in books.open_reservations("unknown")}
    assert waiting == {request_id(1): told, request_id(2): Awaited()}
    rows = books.requests(newest_first=False)
    assert [(row["status"], row["provider_request_id"]) for row in rows] == [("pending", "resp_1"), ("unknown", "")]
    assert books.totals()["unknown"] == 2_000
    books.project(records([settled(1, charge=80, resolution="provider_said")], after=4))
    record = books.request(request_id(1))
    assert record is not None
    assert (record["status"], record["charge"], record["http_status"]) == ("ok", 80, 200)
    assert [row["id"] for row in books.open_reservations()] == [request_id(2)]
    assert books.totals()["unknown"] == 1_000


def test_an_unknown_that_the_operator_pays(books: BooksUnderTest) -> None:
    """What the operator bears is credited to the provider, debited to nobody's limit, and is in the record as cost."""
    books.project(records([intended(1), Lost(request_id(1), START, 0, "", 5), settled(1, resolution="operator_pays")]))
    record = books.request(request_id(1))
    assert record is not None
    assert (record["cost"], record["charge"]) == (700, 0)
    assert books.balances({}, (), "usd", 0) == [((), 0)]
    assert books.account_balances()["operator"] == 700
    assert (books.totals()["posted"], books.totals()["credited"]) == (0, 700)


def test_late_evidence_goes_to_the_operator(books: BooksUnderTest) -> None:
    """Proof that comes after the end changes no record: the difference is the operator's, once."""
    late = settled(1, charge=950, resolution="late_evidence")
    books.project(records([intended(1), settled(1, charge=700)]))
    books.project(records([late, late], after=2))
    record = books.request(request_id(1))
    assert record is not None
    assert record["charge"] == 700
    assert books.account_balances()["operator"] == 250
    assert (books.totals()["posted"], books.totals()["credited"], books.totals()["sum"]) == (700, 950, 0)


def test_a_repeated_id_changes_nothing(books: BooksUnderTest) -> None:
    """An id that comes again, in the same batch or a later one, is a no-op."""
    events: list[Event] = [intended(1), settled(1), intended(1), settled(1), refused(2), refused(2)]
    books.project(records(events))
    once = books.totals()
    books.project(records([*events, intended(1)], after=6))
    again = books.totals()
    assert {**again, "position": 0, "sequence": 0} == {**once, "position": 0, "sequence": 0}
    assert (again["requests"], again["records"], again["open"]) == (1, 2, 0)


def test_projecting_twice_changes_nothing(books: BooksUnderTest) -> None:
    """Records at or below the position of the books are skipped, whole batches and parts of them."""
    told = records([Started(1, START), intended(1), settled(1), intended(2), settled(2)])
    books.project(told[:3])
    books.project(told[:3])
    books.project(told)
    books.project(told)
    assert books.totals()["requests"] == 2
    assert books.totals()["posted"] == 1_400


def test_a_gap_is_refused(books: BooksUnderTest) -> None:
    """Records that do not go on where the books end are corruption, and nothing of them is applied."""
    books.project(records([intended(1)]))
    with pytest.raises(JournalCorrupt, match="end with record 1 and the journal goes on with record 3"):
        books.project(records([settled(1)], after=2))
    assert books.projected() == 100


RARE_USAGES = (
    Usage(10, 0, 0, 0, 5),
    Usage(1, other=(Measure("images", "hd", 2), Measure("images", "sd", 1), Measure("input_image_tokens", "", 7))),
    Usage(other=(Measure("output_image_tokens", "", 9), Measure("seconds", "", 61), Measure("web_searches", "", 3))),
    Usage(other=(Measure("characters", "", 40),)),
)


def redirected(number: int, attempt: int, *, left: bool) -> Redirected:
    """Another try of exchange ``number``, at a dearer place; the one before may have been billed."""
    who = attribution(user=f"user-{number % 2}", deployment="sim/other", provider="other")
    behind = intended(number, who=attribution(organization="", team="", user="", key="", deployment="sim/sim-1"))
    id = left_id(request_id(number), attempt - 1)
    before = behind._replace(id=id, held=Amounts(), charge_rule="free") if left else None
    lost = Lost(id, START, 0, "upstream_timeout", 9) if left else None
    held = Amounts(usd=2_000 + attempt)
    return Redirected(request_id(number), START + 1, attempt, START, who, held, "v2", left=before, lost=lost)


EVENT_KINDS: list[Callable[[int], Event]] = [
    lambda n: intended(n, at=START + n * 7 * MINUTE, who=attribution(user=f"user-{n % 2}", run=f"run-{n % 3}")),
    lambda n: settled(n, charge=100 + n),
    lambda n: settled(n, charge=(n % 3) * 90, usage=RARE_USAGES[n % 4])._replace(cost=90, charge_rule="fee 0.1"),
    lambda n: settled(n, charge=9 * n, usage=RARE_USAGES[n % 4], resolution="provider_said")._replace(cost=4 * n),
    lambda n: settled(n, charge=50 * n, resolution="provider_said"),
    lambda n: settled(n, charge=900, resolution="late_evidence"),
    lambda n: settled(n, charge=3 * n, resolution="operator_pays"),
    lambda n: progressed(n, 3 * n),
    lambda n: Lost(request_id(n), START, 502, "upstream_truncated", 9, output_tokens=2),
    lambda n: refused(100 + n),
    lambda n: Started(n + 1, START + n),
    lambda n: progressed(n, 2 * n, held=900 + 100 * n),
    lambda n: redirected(n, 2 + n % 2, left=n % 3 == 0),
    lambda n: settled(n, charge=30)._replace(id=left_id(request_id(n), 1 + n % 2), resolution="provider_said"),
    lambda n: recalled(n, at=START + n * 8 * MINUTE, saved=40 * n, charge=n % 2 * 9),
    lambda n: settled(n, charge=60 + n)._replace(cache=("miss", "refresh", "miss")[n % 3]),
    lambda n: settled(n, charge=20 * n, resolution="provider_said")._replace(cache="miss"),
]


def look(books: BooksUnderTest) -> dict[str, Any]:
    """Everything that the books say."""
    return {
        "totals": books.totals(),
        "requests": books.requests(limit=1_000),
        "open": books.open_reservations(),
        "accounts": {name: amount for name, amount in books.account_balances().items() if amount},
        "postings": sorted((row["request_id"], row["account"], row["amount"]) for row in books.postings()),
        "usage": books.usage(["team", "hour"], 0, 0),
        "hits": books.requests(cache="hit"),
        "balances": [
            books.balances({}, ("user",), unit, 0) for unit in ("usd", "images", "seconds", "tokens", "requests")
        ],
        "usage of some": books.usage(["user", "run"], START + 5 * MINUTE, START + 30 * MINUTE, team="research"),
        "of a user": books.requests(user="user-1", since=START + 8 * MINUTE, until=START + 29 * MINUTE),
        "of a run": books.requests(run="run-2", newest_first=False),
        "as booked": books.requests(booked_after="", newest_first=False, limit=1_000),
    }


@settings(max_examples=examples(25, 5_000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(told=[(0, 1), (0, 0), (3, 0), (10, 0)], cuts=[])
@example(told=[(0, 1), (0, 2), (0, 0), (7, 0), (10, 0)], cuts=[2])
@example(told=[(14, 1), (14, 1), (0, 1), (15, 1), (5, 1), (14, 2), (14, 2), (0, 3), (14, 3), (16, 3)], cuts=[6])
@given(
    told=st.lists(st.tuples(st.sampled_from(range(len(EVENT_KINDS))), st.integers(0, 5)), max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=6),
)
def test_engines_agree_in_any_batching(
    told: list[tuple[int, int]], cuts: list[int], tmp_path: Path, empty_books: Path
) -> None:
    """Any events, legal or not, in any batches leave the engine with exactly what the oracle's books hold."""
    found = records([EVENT_KINDS[kind](number) for kind, number in told])
    truth = MemoryBooks(HeldClock())
    truth.project(found)
    engine_books = open_books(Path(shutil.copy(empty_books, tmp_path / "books.sqlite3")), HeldClock())
    edges = sorted({0, len(found), *(cut for cut in cuts if cut < len(found))})
    for start, end in pairwise(edges):
        engine_books.project(found[start:end])
    seen = look(engine_books)
    engine_books.close()
    assert seen == look(truth)


# -- balances and usage -----------------------------------------------------------------------------------------------


def spread(books: BooksUnderTest) -> None:
    """Calls of two users, two models and two runs over an hour, with tags."""
    events: list[Event] = []
    for n in range(24):
        who = attribution(
            user="ada" if n % 2 else "bob",
            model="gpt-4o" if n % 3 else "o4",
            run=f"run-{n % 2}",
            tags=(("team", "blue" if n % 4 else "red"),),
        )
        at = START + n * 5 * MINUTE
        usage = Usage(10 + n, n, 0, 0, 5, n, 0)
        events += [intended(n, at=at, who=who), settled(n, at=at + MINUTE, charge=100 + n, usage=usage)]
    books.project(records(events))


def test_balances_by_each_unit(books: BooksUnderTest) -> None:
    """A limit counts what its calls posted, in its unit, since its window began."""
    spread(books)
    numbers = range(24)
    assert books.balances({}, (), "usd", 0) == [((), sum(100 + n for n in numbers))]
    assert books.balances({}, (), "requests", START + 2 * SLOT) == [((), 18)]
    assert books.balances({"user": "ada"}, (), "input_tokens", 0) == [((), sum(10 + 2 * n for n in numbers if n % 2))]
    assert books.balances({"user": "ada"}, (), "output_tokens", 0) == [((), sum(5 + n for n in numbers if n % 2))]
    assert books.balances({}, ("user",), "tokens", 0) == [
        (("ada",), sum(15 + 3 * n for n in numbers if n % 2)),
        (("bob",), sum(15 + 3 * n for n in numbers if not n % 2)),
    ]
    assert books.balances({}, (), "concurrency", 0) == [((), 0)]
    assert books.balances({"user": "nobody"}, (), "usd", 0) == []


def test_balances_where_roll_ups_cannot_tell(books: BooksUnderTest) -> None:
    """Runs, tags and windows inside a slot are counted from the records, to the same amounts."""
    spread(books)
    odd = sum(100 + n for n in range(24) if n % 2)
    assert books.balances({"run": "run-1"}, ("user",), "usd", 0) == [(("ada",), odd)]
    assert books.balances({"tag.team": "red"}, (), "requests", 0) == [((), 6)]
    assert sorted(books.balances({}, ("tag.team", "user"), "requests", 0)) == [
        (("blue", "ada"), 12), (("blue", "bob"), 6), (("red", "bob"), 6),
    ]  # fmt: skip
    assert books.balances({}, (), "requests", START + 5 * MINUTE) == [((), 23)]
    assert books.balances({}, ("tag.absent",), "requests", 0) == [(("",), 24)]


def test_usage_by_dimensions_tags_and_time(books: BooksUnderTest) -> None:
    """Usage groups by any dimension, tag and bucket of time, and filters by them."""
    spread(books)
    assert [(row["user"], row["requests"]) for row in books.usage(["user"], 0, 0)] == [("ada", 12), ("bob", 12)]
    assert [(row["model"], row["requests"]) for row in books.usage(["model"], 0, 0, user="ada")] == [
        ("gpt-4o", 8), ("o4", 4),
    ]  # fmt: skip
    assert [(row["hour"], row["requests"]) for row in books.usage(["hour"], START, START + 120 * MINUTE)] == [
        (START, 12), (START + 60 * MINUTE, 12),
    ]  # fmt: skip
    assert [(row["tag.team"], row["requests"]) for row in books.usage(["tag.team"], 0, 0)] == [("blue", 18), ("red", 6)]
    (total,) = books.usage([], START, START + 7 * MINUTE)
    assert (total["requests"], total["charge"], total["input_tokens"], total["output_tokens"]) == (2, 201, 22, 11)
    assert books.usage(["user"], 0, 0, user=["bob", "eve"], model=("o4",))[0]["requests"] == 4
    assert books.usage([], 0, 0, user="nobody") == []


@pytest.mark.parametrize("name", ["nonsense", "charge", "id", "status); drop table requests; --"])
def test_usage_by_nonsense_is_refused(books: BooksUnderTest, name: str) -> None:
    """What is no dimension groups and filters nothing."""
    with pytest.raises(UsageError, match="unknown dimension"):
        books.usage([name], 0, 0)
    with pytest.raises(UsageError, match="unknown dimension"):
        books.usage([], 0, 0, **{name: "x"})


HOSTILE = ["'", '"', "\\", "%", "a'b\"c", "x') OR 1=1 --", "$.a", "ключ", "a.b", "[0]", ""]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_only_values(books: BooksUnderTest, text: str) -> None:
    """Names and values of tags are found as they are, whatever characters they hold."""
    who = attribution(team=text, tags=((text, text),))
    books.project(records([intended(1, who=who), settled(1), intended(2), settled(2)]))
    assert [row["id"] for row in books.requests(team=text)] == [request_id(1)]
    by_tag: dict[str, Any] = {f"tag.{text}": text}
    found = [row["id"] for row in books.requests(**by_tag)]
    assert found == ([request_id(1)] if text else [request_id(2), request_id(1)])
    assert books.balances({"team": text}, (f"tag.{text}",), "requests", 0) == [((text,), 1)]


# -- looking ----------------------------------------------------------------------------------------------------------


def test_requests_are_paged_and_filtered(books: BooksUnderTest) -> None:
    """Records come newest first or oldest first, page by page, by column, time and tag."""
    spread(books)
    pages, after = [], ""
    while page := books.requests(after=after, limit=7):
        pages += [row["id"] for row in page]
        after = page[-1]["id"]
    assert pages == [request_id(n) for n in reversed(range(24))]
    first = books.requests(limit=2, newest_first=False)
    assert [row["id"] for row in first] == [request_id(0), request_id(1)]
    assert len(books.requests(user="ada", since=START + SLOT, until=START + 4 * SLOT)) == 5
    several: dict[str, Any] = {"tag.team": "red", "model": ["o4"]}
    assert len(books.requests(**several)) == 2
    with pytest.raises(UsageError, match="unknown filter"):
        books.requests(nonsense=1)


def test_requests_are_told_in_the_order_of_booking(books: BooksUnderTest) -> None:
    """A call that ended last is booked last, however early it began; a mark that is no record has nothing after it."""

    def booked(**asked: Any) -> list[str]:
        return [row["id"] for row in books.requests(newest_first=False, **asked)]

    rare = intended(3, who=attribution(team="rare"))
    books.project(records([intended(1), intended(2), settled(2), rare, settled(3), settled(1)]))

    assert booked(booked_after="") == [request_id(2), request_id(3), request_id(1)]
    assert booked(booked_after=request_id(2)) == [request_id(3), request_id(1)]
    assert booked(booked_after=request_id(2), limit=1) == [request_id(3)]
    assert booked(booked_after="", team="rare", status="ok") == [request_id(3)]
    assert books.requests(booked_after="", limit=1)[0]["id"] == request_id(1)
    assert booked(booked_after=request_id(1)) == booked(booked_after="req_of_nobody") == []


def test_filters_find_all_kinds_of_records(books: BooksUnderTest) -> None:
    """Refusals, unknown calls and those resolved much later are found by who, when and in which run."""
    late = START + 300 * MINUTE
    who = attribution(team="rare", run="r1")
    books.project(
        records(
            [
                refused(1, who=who), intended(2, at=START + 20 * MINUTE, who=who), intended(3, who=attribution()),
                Lost(request_id(2), late, 502, "upstream_truncated", 5), settled(3), intended(4, at=late, who=who),
            ]
        )
    )  # fmt: skip
    books.project(records([settled(2, resolution="provider_said"), settled(4, at=late)], after=6))
    found = {
        "team": books.requests(team="rare"),
        "teams": books.requests(team=["rare", "nobody"], newest_first=False),
        "run": books.requests(run="r1", model="gpt-4o"),
        "early": books.requests(team="rare", until=START + 30 * MINUTE),
        "late": books.requests(since=START + 200 * MINUTE),
        "between": books.requests(since=START + 1, until=START + 30 * MINUTE),
        "refused": books.requests(team="rare", status="refused"),
        "nobody": books.requests(team="nobody"),
        "before": books.requests(until=START),
    }
    assert {name: [row["id"][-1] for row in rows] for name, rows in found.items()} == {
        "team": ["4", "2", "1"], "teams": ["1", "2", "4"], "run": ["4", "2", "1"], "early": ["2", "1"],
        "late": ["4"], "between": ["2"], "refused": ["1"], "nobody": [], "before": [],
    }  # fmt: skip
    assert [row["requests"] for row in books.usage(["team"], START + 1, late + 1, team="rare")] == [2]


@pytest.mark.parametrize("attempts", [
    (), (Attempt("openai/gpt-4o", 200, "", 0),), (Attempt("openai/gpt-4o", 200, "", 7),),
    (Attempt("elsewhere", 200, "", 7),), (Attempt("openai/gpt-4o", 503, "upstream_error", 7),),
    (Attempt("a", 503, "upstream_error", 1), Attempt("openai/gpt-4o", 200, "", 7)),
])  # fmt: skip
def test_attempts_are_told_as_they_were(books: BooksUnderTest, attempts: tuple[Attempt, ...]) -> None:
    """None, one or several, like the record or unlike it: every attempt comes back with all it said."""
    books.project(records([intended(1), settled(1)._replace(attempts=attempts)]))
    record = books.request(request_id(1))
    assert record is not None
    assert record["attempts"] == [attempt._asdict() for attempt in attempts]


UNUSUAL: list[dict[str, Any]] = [
    {}, {"status": "cut"}, {"http_status": 201}, {"code": "upstream_truncated"}, {"usage_source": "estimate"},
    {"usage": Usage(1, 2, 3)}, {"usage": Usage(1, input_audio=4)}, {"usage": Usage(1, 2, 0, 0, 5, 6)},
    {"usage": Usage(1, output_audio=7)}, {"overrun": 9}, {"charge": 3}, {"cost": 4}, {"answered_model": ""},
    {"latency_us": 0, "first_token_us": 0}, {"price_version": ""}, {"provider_request_id": "x"},
    {"usage": Usage(1, other=(Measure("images", "1024x1024/hd", 2), Measure("input_image_tokens", "", 7)))},
    {"usage": Usage(other=(Measure("output_image_tokens", "", 9), Measure("seconds", "", 61)))},
    {"usage": Usage(other=(Measure("characters", "", 40), Measure("characters", "hd", 2), Measure("pages", "", 1)))},
    {"charge": 771, "charge_rule": "markup 10 % + fee 0.000000001"}, {"charge": 0, "charge_rule": "free"},
    {"charge_rule": "fee 0.001"}, {"cache": "miss"}, {"cache": "refresh"}, {"cache": "hit", "saved_cost": 9},
]  # fmt: skip


@pytest.mark.parametrize("changed", UNUSUAL, ids=str)
def test_whatever_is_unusual_is_told(books: BooksUnderTest, changed: dict[str, Any]) -> None:
    """A record differs from that of an ordinary call in what was different, and in nothing else."""
    for number, change in enumerate(({}, changed)):
        intent, end = intended(number), settled(number)._replace(**change)
        books.project(records([intent, end], after=2 * number))
    usual, found = books.request(request_id(0)), books.request(request_id(1))
    assert usual is not None
    assert found is not None
    expected = {**usual, "id": request_id(1)}
    for name, value in changed.items():
        expected |= told_usage(value) if name == "usage" else {name: value}
    assert found == expected


def told_usage(usage: Usage) -> dict[str, Any]:
    """What a record tells of a usage."""
    incoming = ("cache_write_1h_tokens", "input_image_tokens", "cached_input_audio_tokens", "cached_input_image_tokens")
    return {
        **{name: value for name, value in usage._asdict().items() if name != "other"},
        "other_units": usage.other,
        "input_other": usage.quantity(*incoming),
        "output_other": usage.quantity("output_image_tokens"),
        **{unit: usage.quantity(unit) for unit in ("images", "seconds", "characters")},
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }


# -- rarer units, and charges that are not the cost --------------------------------------------------------------------


def rare(books: BooksUnderTest) -> None:
    """Calls of two teams that used something of everything, some of them after having been unknown."""
    events: list[Event] = []
    for n in range(12):
        at = START + n * 4 * MINUTE
        events.append(intended(n, at=at, who=attribution(team="blue" if n % 2 else "red", run=f"run-{n % 3}")))
        if n % 4 == 3:
            events += [Lost(request_id(n), at, 502, "upstream_truncated", 9)]
        resolution = "provider_said" if n % 4 == 3 else ""
        events.append(settled(n, at=at + MINUTE, usage=RARE_USAGES[(n // 2) % 4], resolution=resolution))
    books.project(records(events))


@pytest.mark.parametrize(
    ("unit", "red", "blue"),
    [
        ("images", 6, 6),
        ("seconds", 61, 61),
        ("characters", 40, 40),
        ("input_tokens", 36, 36),
        ("output_tokens", 19, 19),
        ("tokens", 55, 55),
    ],
)
def test_balances_by_rarer_units(books: BooksUnderTest, unit: str, red: int, blue: int) -> None:
    """Limits in images, seconds and characters have what was posted, and token limits count tokens of every kind."""
    rare(books)
    assert books.balances({}, ("team",), unit, 0) == [(("blue",), blue), (("red",), red)]
    by_run = books.balances({"team": "red"}, ("run",), unit, 0)
    assert sum(posted for _, posted in by_run) == red
    # Not at the edge of a slot, so from the records and not from the roll-ups.
    later = books.balances({}, (), unit, START + MINUTE)
    assert later == [
        (
            (),
            red
            + blue
            - (15 if unit == "tokens" else 10 if unit == "input_tokens" else 5 if unit == "output_tokens" else 0),
        )
    ]


def test_usage_sums_rarer_units(books: BooksUnderTest) -> None:
    """By teams from the roll-ups, by runs from the records: the sums are the same."""
    rare(books)
    for by in (["team"], ["run"], ["team", "run"]):
        rows = books.usage(by, 0, 0)
        names = ("requests", "images", "seconds", "characters", "input_tokens", "output_tokens")
        assert tuple(sum(row[name] for row in rows) for name in names) == (12, 12, 122, 80, 72, 38)
    assert books.totals()["rollup_requests"] == 12


def test_a_charge_with_a_mark_up(books: BooksUnderTest) -> None:
    """The payer is debited the charge, the provider credited the cost, the margin credited the difference."""
    end = settled(1, charge=770)._replace(cost=700, charge_rule="markup 10 %")
    books.project(records([intended(1), end]))
    assert books.account_balances() == {
        "payer:default:research:search:ada:key_1": 770,
        "provider:openai": -700,
        "margin": -70,
    }
    totals = books.totals()
    assert (totals["posted"], totals["credited"], totals["sum"], totals["postings"]) == (770, 700, 0, 4)
    assert (totals["request_cost"], totals["request_charge"], totals["rollup_charge"]) == (700, 770, 770)
    assert books.balances({}, (), "usd", 0) == [((), 770)]
    assert [(row["kind"], row["amount"]) for row in books.postings()] == [
        ("charge", 700), ("charge", -700), ("margin", 70), ("margin", -70),
    ]  # fmt: skip


def test_a_free_call_that_cost_something(books: BooksUnderTest) -> None:
    """Its payer is debited nothing, and the provider is credited all the same, by the margin."""
    books.project(records([intended(1, held=0), settled(1, charge=0)._replace(cost=700, charge_rule="free")]))
    assert books.account_balances() == {"margin": 700, "provider:openai": -700}
    assert (books.totals()["posted"], books.totals()["credited"]) == (0, 700)
    assert books.balances({}, (), "usd", 0) == [((), 0)]
    record = books.request(request_id(1))
    assert record is not None
    assert (record["cost"], record["charge"], record["charge_rule"]) == (700, 0, "free")


# -- what the response cache did ---------------------------------------------------------------------------------------


def test_a_hit_is_a_record_of_its_own(books: BooksUnderTest) -> None:
    """It began and ended at once, used nothing, cost nothing, and says what it saved; no account is of no provider."""
    books.project(records([Started(1, START), recalled(1, saved=900)]))
    row = books.request(request_id(1))
    assert row is not None
    expected = {
        "status": "ok", "http_status": 200, "cost": 0, "charge": 0, "held": 0, "usage_source": "none", "attempts": [],
        "cache": "hit", "saved_cost": 900, "team": "research", "provider": "", "deployment": "", "price_version": "",
        "input_tokens": 0, "output_tokens": 0, "latency_us": 300, "answered_model": "gpt-4o-2024", "created_at": START,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert books.account_balances() == {}
    assert (books.totals()["requests"], books.totals()["postings"], books.open_reservations()) == (1, 0, [])


def test_a_hit_that_is_charged_is_all_margin(books: BooksUnderTest) -> None:
    """Its payer is debited and the margin credited, and limits count one request and its charge."""
    books.project(records([recalled(1, charge=70)]))
    assert books.account_balances() == {"payer:default:research:search:ada:key_1": 70, "margin": -70}
    found = {unit: books.balances({}, (), unit, 0) for unit in ("usd", "requests", "tokens")}
    assert found == {"usd": [((), 70)], "requests": [((), 1)], "tokens": [((), 0)]}
    totals = books.totals()
    assert (totals["posted"], totals["credited"], totals["sum"], totals["rollup_charge"]) == (70, 0, 0, 70)


@pytest.mark.parametrize("batches", [(1, 1, 1, 1), (4,), (2, 2)])
def test_a_hit_told_again_changes_nothing(books: BooksUnderTest, batches: tuple[int, ...]) -> None:
    """A replay after a crash, in the same batch or a later one, books no second request and no second charge."""
    told = records([recalled(1, charge=7), recalled(1, charge=7), recalled(2), recalled(1, charge=7)])
    for size in batches:
        books.project(told[:size])
        told = told[size:]
    totals = books.totals()
    assert (totals["requests"], totals["records"], totals["posted"], totals["rollup_requests"]) == (2, 2, 7, 2)
    (sums,) = books.usage([], 0, 0)
    assert (sums["cache_hits"], sums["saved_cost"]) == (2, 1_400)


def test_usage_sums_what_the_cache_did(books: BooksUnderTest) -> None:
    """From roll-ups and records alike: hits, misses, and what hits saved; a wish for a new answer is neither."""
    words = ("miss", "hit", "", "refresh", "miss", "hit", "hit")
    events: list[Event] = []
    for n, word in enumerate(words):
        at = START + n * 4 * MINUTE
        ended = settled(n, at=at)._replace(cache=word)
        events += [recalled(n, at=at, saved=100 + n)] if word == "hit" else [intended(n, at=at), ended]
    books.project(records(events))
    for span in ((0, 0), (START - 1, START + 60 * MINUTE + 1)):
        (sums,) = books.usage(["team"], *span)
        told = [sums[name] for name in ("requests", "cache_hits", "cache_misses", "saved_cost", "cost")]
        assert told == [7, 3, 2, 101 + 105 + 106, 4 * 700]
    assert [row["id"] for row in books.requests(cache="miss")] == [request_id(4), request_id(0)]
    assert [row["id"] for row in books.requests(cache="refresh")] == [request_id(3)]


def used_caches(books: BooksUnderTest, thresholds: dict[str, tuple[int, ...]], *by: str) -> list[dict[str, Any]]:
    """What ``cache_use`` tells, without what is nothing."""
    rows = [{name: value for name, value in row.items() if value} for row in books.cache_use(by, 0, 0, thresholds)]
    return in_order(rows)


def in_order(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in an order that only their values decide."""
    return sorted(rows, key=lambda row: sorted(map(str, row.items())))


def test_the_use_of_caches_is_told_by_what_decides_its_price(books: BooksUnderTest) -> None:
    """Calls of one price version are one row; other units keep them apart, and so do thresholds of prices."""
    hour = (Measure("cache_write_1h_tokens", "", 3),)
    usages = [
        Usage(10, 90, 0, 0, 5), Usage(20, 80, 5, 0, 5), Usage(10, 95, 0, 0, 5), Usage(1, 200, 0, 0, 5), Usage(7),
        *(Usage(10, 5, other=hour), Usage(10, 5, other=hour), Usage(10, other=hour)),
        Usage(10, 90, other=(Measure("images", "", 1),)),
    ]  # fmt: skip
    events: list[Event] = [refused(90), intended(91), recalled(60, charge=7), recalled(61)]
    for n, usage in enumerate(usages):
        events += [intended(n), settled(n, usage=usage)._replace(cache="miss" if n == 1 else "")]
    books.project(records([*events, intended(92), settled(92)._replace(cache="refresh")]))
    hit = {"cache": "hit", "requests": 2, "saved_cost": 1_400, "charge": 7}
    told = {"price_version": "pv_1", "requests": 1, "charge": 700}
    images = {**told, "other_units": (Measure("images", "", 1),), "input_cached": 90}
    together: list[dict[str, Any]] = [
        hit, {**told, "cache": "refresh"}, {**told, "cache": "miss", "input_cached": 80, "input_cache_write": 5},
        {**told, "requests": 3, "charge": 2_100, "input_cached": 385}, images,
        {**told, "requests": 3, "charge": 2_100, "input_cached": 10, "other_units": hour},
    ]  # fmt: skip
    assert used_caches(books, {}) == in_order(together)
    apart: list[dict[str, Any]] = [
        hit, {**told, "cache": "refresh"},
        {**told, "cache": "miss", "input_cached": 80, "input_cache_write": 5, "input_length": 101},
        {**told, "input_cached": 90}, {**told, "input_cached": 95, "input_length": 101},
        {**told, "input_cached": 200, "input_length": 201}, {**images, "input_length": 100},
        {**told, "requests": 2, "charge": 1_400, "input_cached": 10, "other_units": hour, "input_length": 15},
        {**told, "other_units": hour, "input_length": 10},
    ]  # fmt: skip
    assert used_caches(books, {"pv_1": (100, 200), "pv_2": (5,)}) == in_order(apart)


def test_the_use_of_caches_is_told_by_dimensions_and_of_a_time(books: BooksUnderTest) -> None:
    """By any of them and by tags, as usage is; a name that is none is refused."""
    who = attribution(team="blue", run="r1", tags=(("env", "ci"),))
    books.project(records([recalled(1, who=who), recalled(2, at=START + MINUTE), recalled(3)]))
    rows = used_caches(books, {}, "team", "tag.env", "run")
    told = {"cache": "hit", "requests": 1, "saved_cost": 700}
    assert rows == [
        {"team": "blue", "tag.env": "ci", "run": "r1", **told},
        {"team": "research", **told, "requests": 2, "saved_cost": 1_400},
    ]
    assert [row["requests"] for row in books.cache_use([], START + 1, 0, {}, team="research")] == [1]
    assert list(books.cache_use([], 0, 0, {}, team="nobody")) == []
    with pytest.raises(UsageError, match="unknown dimension"):
        list(books.cache_use(["charge"], 0, 0, {}))


def test_late_evidence_is_compared_with_the_cost(books: BooksUnderTest) -> None:
    """Also in a later batch: what stands in the record as cost is what the provider has been credited."""
    books.project(records([intended(1), settled(1, charge=770)._replace(cost=700, charge_rule="markup 10 %")]))
    confirmed = settled(1, charge=0, resolution="late_evidence")._replace(cost=700)
    books.project(records([confirmed, confirmed._replace(cost=950)], after=2))
    assert books.account_balances()["operator"] == 250
    assert (books.totals()["late"], books.totals()["credited"], books.totals()["posted"]) == (250, 950, 770)


def test_what_the_operator_pays_has_no_margin(books: BooksUnderTest) -> None:
    """It bears the cost; evidence that comes later is compared with that."""
    lost = Lost(request_id(1), START, 0, "", 5)
    paid = settled(1, charge=770, resolution="operator_pays")._replace(cost=700, charge_rule="markup 10 %")
    books.project(records([intended(1), lost, paid]))
    books.project(records([settled(1, charge=0, resolution="late_evidence")._replace(cost=705)], after=3))
    assert {name: amount for name, amount in books.account_balances().items() if amount} == {
        "operator": 705, "provider:openai": -705,
    }  # fmt: skip
    assert books.totals()["posted"] == 0


def test_whatever_an_intent_says_is_told(books: BooksUnderTest) -> None:
    """Run, tags, where a name came from, a clamp, a stream and an idempotency key are in the record."""
    who = attribution(run="r", tags=(("a", "b"),), identity_source="header", end_user="eve")
    intent = intended(1, who=who, stream=True)._replace(idempotency_key="again", clamped_to=256)
    books.project(records([intent, settled(1)]))
    row = books.request(request_id(1))
    assert row is not None
    assert (row["run"], row["tags"], row["identity_source"], row["end_user"]) == ("r", {"a": "b"}, "header", "eve")
    assert (row["stream"], row["idempotency_key"], row["clamped_to"]) == (1, "again", 256)


def test_absent_request(books: BooksUnderTest) -> None:
    """An id that nobody used has no record."""
    assert books.request("req_none") is None


# -- resources --------------------------------------------------------------------------------------------------------

KEY = {
    "id": "key_1",
    "name": "ci",
    "digests": {"ab": 0},
    "organization": "default",
    "models": ["gpt-4o"],
    "may_set": ("user",),
}


def test_resources_are_put_and_got(books: BooksUnderTest) -> None:
    """A row comes back with plain values, defaults for what it did not name, and a line in the change feed."""
    first = books.put("key", KEY)
    row = books.get("key", "key_1")
    assert row is not None
    assert (row["digests"], list(row["may_set"]), row["models"]) == ({"ab": 0}, ["user"], ["gpt-4o"])
    assert (row["state"], row["role"], row["operations"], row["created_at"]) == ("active", "caller", None, START)
    second = books.put("key", {**row, "state": "revoked"})
    assert books.changes(first) == [(second, "key", "key_1")]
    assert books.remove("key", "key_1")
    assert not books.remove("key", "key_1")
    assert books.get("key", "key_1") is None
    assert [(kind, id) for _, kind, id in books.changes(0)] == [("key", "key_1")] * 3


def test_rules_of_pools_come_back_as_they_were_put(books: BooksUnderTest) -> None:
    """With everything inside; no two pools have one name, and a name of a model that leads nobody elsewhere says so."""
    rule = {"use": [{"deployment": "a", "weight": 2}], "priority": [{"from": 0, "use": ["b"], "only": [{"team": "x"}]}]}
    books.put("pool", {"id": "pol_1", "name": "main", "rule": rule})
    assert [row["rule"] for row in books.listing("pool", name="main")] == [rule]
    with pytest.raises(Conflict):
        books.put("pool", {"id": "pol_2", "name": "main", "rule": rule})
    books.put("model", {"id": "mod_1", "name": "chat", "to": ["main"]})
    led = [{"select": {"product": "premium"}, "to": ["b", "main"]}]
    books.put("model", {"id": "mod_2", "name": "other", "to": ["main"], "instead": led})
    assert [row["instead"] for row in books.listing("model")] == [None, led]


def test_services_come_back_as_they_were_put(books: BooksUnderTest) -> None:
    """With all of their rules; no two services have one name."""
    rule = {"max_duration": "30s", "price": {"per_call": "0.0010", "units": {"header": "x-pages", "max": 9}}}
    row = {"id": "svc_1", "name": "ocr", "base_url": "https://a", "secret": "sealed", "reach": "private", "rule": rule}
    books.put("service", row)
    assert [each | row for each in books.listing("service", state="active")] == books.listing("service", name="ocr")
    with pytest.raises(Conflict):
        books.put("service", {**row, "id": "svc_2"})


def test_limits_keep_unlimited_apart_from_nothing(books: BooksUnderTest) -> None:
    """An amount of ``None`` is unlimited, 0 admits nothing, and the largest money survives."""
    for id, amount in (("lim_1", None), ("lim_2", 0), ("lim_3", 10**18)):
        books.put("limit", {"id": id, "selector": {"team": "a"}, "each": ["user"], "unit": "usd", "amount": amount})
    assert [row["amount"] for row in books.listing("limit")] == [None, 0, 10**18]
    assert books.listing("limit")[0]["selector"] == {"team": "a"}


def test_listing_pages_and_filters(books: BooksUnderTest) -> None:
    """Rows come in the order of their ids, after a cursor, by equality."""
    for n in range(5):
        books.put("team", {"id": f"team_{n}", "name": f"t{n}", "organization": "default" if n else "other"})
    assert [row["id"] for row in books.listing("team", after="team_1", limit=2)] == ["team_2", "team_3"]
    assert [row["id"] for row in books.listing("team", organization="other")] == ["team_0"]
    with pytest.raises(UsageError, match="unknown filter"):
        books.listing("team", nonsense=1)


def test_a_listing_can_begin_with_the_newest(books: BooksUnderTest) -> None:
    """In reverse, too, rows are paged by their ids and filtered by equality."""
    for n in range(4):
        books.put("limit_entry", {"id": f"ent_{n}", "limit_id": "lim_1" if n else "lim_2"})
    newest = books.newest("limit_entry", limit=2, limit_id="lim_1")
    assert [row["id"] for row in newest] == ["ent_3", "ent_2"]
    rest = books.newest("limit_entry", before="ent_2", limit_id="lim_1")
    assert [row["id"] for row in rest] == ["ent_1"]


def test_what_belongs_together_is_written_together(books: BooksUnderTest) -> None:
    """Rows of several kinds and removals are one transaction, with a line in the change feed for each."""
    first = books.put("limit", {"id": "lim_1", "unit": "usd", "amount": 1})
    books.put_together(
        [("limit", {"id": "lim_2", "unit": "tokens", "amount": 9}), ("limit_entry", {"id": "ent_1"})],
        [("limit", "lim_1")],
    )
    assert [row["id"] for row in books.listing("limit")] == ["lim_2"]
    assert [(kind, id) for _, kind, id in books.changes(first)] == [
        ("limit", "lim_1"), ("limit", "lim_2"), ("limit_entry", "ent_1"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="has no colour"):
        books.put_together([("limit", {"id": "lim_3"}), ("limit_entry", {"id": "x", "colour": "red"})])
    with pytest.raises(UsageError, match="unknown kind"):
        books.put_together([("team", {"id": "team_1", "name": "a"})], [("thing", "x")])
    assert [row["id"] for row in books.listing("limit")] == ["lim_2"]
    assert books.listing("team") == []


def test_names_of_payers_are_unique(books: BooksUnderTest) -> None:
    """Two teams of one organization cannot have the same name; two of different ones can."""
    books.put("team", {"id": "team_1", "name": "a", "organization": "x"})
    books.put("team", {"id": "team_2", "name": "a", "organization": "y"})
    with pytest.raises(Conflict, match="exists already"):
        books.put("team", {"id": "team_3", "name": "a", "organization": "x"})
    assert books.get("team", "team_3") is None


def test_bad_resources_are_refused(books: BooksUnderTest) -> None:
    """An unknown kind or column and a missing id are named."""
    with pytest.raises(UsageError, match="unknown kind 'thing'"):
        books.put("thing", {"id": "x"})
    with pytest.raises(UsageError, match="has no colour"):
        books.put("key", {"id": "x", "colour": "red"})
    with pytest.raises(UsageError, match="needs an id"):
        books.put("key", {"name": "x"})


def test_rate_cards_are_kept_as_they_were(books: BooksUnderTest) -> None:
    """A version names one content for ever."""
    card: dict[str, Any] = {
        "version": "pv_1",
        "provider": "openai",
        "model": "gpt-4o",
        "tiers": [[0, []]],
        "source": "a",
    }
    card = {**card, "effective_from": 0, "effective_to": 0}
    books.keep_rate_cards([card])
    books.keep_rate_cards([{**card, "source": "b"}, {**card, "version": "pv_2"}])
    kept = books.rate_card("pv_1")
    assert kept is not None
    assert kept["source"] == "a"
    assert books.rate_card("pv_2") is not None
    assert books.rate_card("pv_3") is None


def test_digests_of_removed_segments(books: BooksUnderTest) -> None:
    """Digests are kept once, in the order of their positions."""
    digest = {"first": 100, "end": 200, "sequence": 3, "records": 2, "charge": 1, "held": 2, "sha256": "aa"}
    books.keep_segment(digest)
    books.keep_segment({**digest, "sha256": "bb"})
    books.keep_segment({**digest, "first": 0, "end": 100})
    assert [(row["first"], row["sha256"]) for row in books.removed_segments()] == [(0, "aa"), (100, "aa")]
