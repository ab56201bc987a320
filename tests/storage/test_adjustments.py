"""Corrections in every engine of the books: booked once, whole, and beside what the records hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import START, HeldClock, intended, request_id, settled
from faregate.core.ledger.events import Event, Started
from faregate.errors import Conflict, UsageError
from faregate.ports import JournalRecord
from faregate.storage.memory.books import MemoryBooks
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books

BooksUnderTest = MemoryBooks | SqliteBooks


@pytest.fixture(params=["memory", "sqlite"])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BooksUnderTest]:
    opened: BooksUnderTest = (
        MemoryBooks(HeldClock()) if request.param == "memory" else open_books(tmp_path / "books.sqlite3", HeldClock())
    )
    events: list[Event] = [Started(1, START), intended(1), settled(1), intended(2), settled(2)]
    opened.project([JournalRecord(100 * n, event, n) for n, event in enumerate(events, start=1)])
    yield opened
    opened.close()


def run(id: str = "rpr_1", **more: Any) -> dict[str, Any]:
    return {
        "id": id, "kind": "reprice", "reason": "a mistake", "question": "q", "since": 1, "until": 2, "at": START,
        "requests": 2, "cost": 30, "charge": 20, "digest": "d", "details": {"map": {"a": "b"}}, **more,
    }  # fmt: skip


def line(number: int, run_id: str = "rpr_1", *, cost: int = 15, charge: int = 10) -> dict[str, Any]:
    return {"request_id": request_id(number), "run": run_id, "cost": cost, "charge": charge, "price_version": "v2"}


MOVED = [("payer:default:a", "provider:openai", 20), ("margin", "provider:openai", 10)]


def test_a_run_is_booked_once(books: BooksUnderTest) -> None:
    """A second time with the same id changes nothing, whatever it says."""
    assert books.adjust(run(), [line(1), line(2)], MOVED) is True
    before = list(books.postings())
    assert books.adjust(run(reason="another"), [line(1)], MOVED) is False
    assert list(books.postings()) == before
    assert books.adjustment("rpr_1") == run()
    assert books.adjustment("rpr_2") is None


def test_corrections_stand_beside_what_the_records_hold(books: BooksUnderTest) -> None:
    """Records, roll-ups and their sums stay; the accounts move, and all postings still add up to 0."""
    totals, balances = books.totals(), books.account_balances()
    records = books.requests()
    books.adjust(run(), [line(1), line(2)], MOVED)
    after = books.totals()
    assert {name for name in totals if after[name] != totals[name]} == {"postings", "adjusting"}
    assert (after["adjusting"], after["sum"]) == (4, 0)
    assert books.requests() == records
    moved = {account: amount - balances.get(account, 0) for account, amount in books.account_balances().items()}
    corrected = {"payer:default:a": 20, "margin": 10, "provider:openai": -30}
    assert {account: amount for account, amount in moved.items() if amount} == corrected
    assert books.adjusted_accounts() == corrected
    assert books.adjusted_runs() == {"rpr_1": (20, 30)}


def test_money_goes_back_too(books: BooksUnderTest) -> None:
    """A correction downwards is a transfer of a negative amount, so that debits stay debits."""
    books.adjust(run(), [line(1, cost=-5, charge=-5)], [("payer:default:a", "provider:openai", -5)])
    assert books.adjusted_accounts() == {"payer:default:a": -5, "provider:openai": 5}
    assert books.adjusted_runs() == {"rpr_1": (-5, -5)}


def test_a_record_knows_its_corrections(books: BooksUnderTest) -> None:
    """In the order in which they were booked, each with its reason."""
    books.adjust(run("rpr_2", at=START + 5, reason="later"), [line(1, "rpr_2")], [])
    books.adjust(run("rpr_1"), [line(1), line(2)], [])
    assert [(each["run"], each["reason"]) for each in books.corrections([request_id(1)])] == [
        ("rpr_1", "a mistake"),
        ("rpr_2", "later"),
    ]
    assert books.corrections([]) == []
    assert [each["id"] for each in books.adjustments()] == ["rpr_2", "rpr_1"]
    assert [each["id"] for each in books.adjustments(after="rpr_2")] == ["rpr_1"]
    first = books.adjustment_lines("rpr_1", limit=1)
    assert [each["request_id"] for each in first] == [request_id(1)]
    assert [each["request_id"] for each in books.adjustment_lines("rpr_1", after=request_id(1))] == [request_id(2)]


def test_calls_are_booked_after_a_correction_as_before(books: BooksUnderTest) -> None:
    """A run that makes an account the first does not confuse the projector, which remembers their numbers."""
    books.adjust(run(), [line(1)], [("payer:default:research:::new", "provider:openai", 7)])
    books.project([JournalRecord(600, intended(3), 6), JournalRecord(700, settled(3), 7)])
    assert books.totals()["requests"] == 3
    assert books.totals()["sum"] == 0


def test_rows_are_put_all_or_none(books: BooksUnderTest) -> None:
    """Where one cannot be, the others are not there either."""
    rows = [{"id": f"cap_{n}", "name": f"c{n}"} for n in range(3)]
    books.put_all("capacity", rows)
    assert len(books.listing("capacity")) == 3
    with pytest.raises((Conflict, UsageError)):
        books.put_all("capacity", [{"id": "cap_9", "name": "c9"}, {"id": "cap_8", "name": "c1"}])
    assert len(books.listing("capacity")) == 3


def test_versions_are_found_by_a_part_of_their_names(books: BooksUnderTest) -> None:
    """A sign that means something in a pattern means itself."""
    for version in ("a/m@1", "a/m@1-provisional", "a%m@2-provisional"):
        books.keep_rate_cards([{"version": version, "provider": "openai", "model": "m", "tiers": [], "source": ""}])
    assert books.rate_card_versions("provisional") == ["a%m@2-provisional", "a/m@1-provisional"]
    assert books.rate_card_versions("%m") == ["a%m@2-provisional"]


def test_many_rows_are_put_at_once_like_one_after_the_other(books: BooksUnderTest) -> None:
    """What is replaced keeps when it was made, each is a line of the change feed, and many are found by their ids."""
    books.put("capacity", {"id": "cap_0007", "name": "seven"})
    made = books.get("capacity", "cap_0007")
    assert made is not None
    books.put_all("capacity", [{"id": f"cap_{n:04}", "name": f"c{n}"} for n in range(1_200)])
    found = books.get_all("capacity", [f"cap_{n:04}" for n in range(1_201)])
    assert (len(found), found["cap_0007"]["name"]) == (1_200, "c7")
    assert found["cap_0007"]["created_at"] == made["created_at"]
    assert [id for _, _, id in books.changes(1, 5_000)] == [f"cap_{n:04}" for n in range(1_200)]
