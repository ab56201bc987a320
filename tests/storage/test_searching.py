"""Records by what callers call them, in the order of their cost, and in bounded time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import literal

from builders import MINUTE, START, HeldClock, attribution, intended, settled
from faregate.core.ledger.events import Event
from faregate.errors import Failed
from faregate.ports import Books, JournalRecord
from faregate.storage.memory.books import MemoryBooks
from faregate.storage.queries import record, request_list
from faregate.storage.sqlite import connect
from faregate.storage.sqlite.opening import open_books

CALLS = 40


def cost_of(number: int) -> int:
    """Some cost the same."""
    return (number * 7 % 5) * 1_000


def filled(books: Books) -> Books:
    """Calls of different cost, each third with an id of its caller's."""
    events: list[Event] = []
    for n in range(CALLS):
        tags = (("event_id", f"order-{n}"), ("metadata.step", str(n % 2))) if n % 3 == 0 else ()
        events.append(intended(n, at=START + n * MINUTE, who=attribution(tags=tags)))
        events.append(settled(n, at=START + n * MINUTE + 1)._replace(cost=cost_of(n), charge=cost_of(n)))
    books.project([JournalRecord(n + 1, event, n + 1) for n, event in enumerate(events)])
    return books


@pytest.fixture(params=["sqlite", "memory"])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Books]:
    make: dict[str, Callable[[], Books]] = {
        "sqlite": lambda: open_books(tmp_path / "books.sqlite3", HeldClock()),
        "memory": lambda: MemoryBooks(HeldClock()),
    }
    made = filled(make[request.param]())
    yield made
    made.close()


def test_the_dearest_come_first_page_by_page(books: Books) -> None:
    """Each record is on one page; among those that cost the same the newest is first."""
    pages, after = [], ""
    while page := books.requests(after=after, limit=7, sort="cost"):
        pages.append(page)
        after = page[-1]["id"]
    found = [(row["cost"], row["id"]) for page in pages for row in page]

    assert len(found) == CALLS
    assert found == sorted(found, reverse=True)


def of_step(step: str) -> dict[str, Any]:
    """A filter by what callers told."""
    return {"tag.metadata.step": step}


def test_the_cheapest_come_first_where_that_is_asked(books: Books) -> None:
    """The other way round, with a filter."""
    found = books.requests(sort="cost", newest_first=False, limit=100, **of_step("1"))

    assert [row["cost"] for row in found] == sorted(row["cost"] for row in found)
    assert {row["tags"]["metadata.step"] for row in found} == {"1"}


def event(name: str) -> dict[str, Any]:
    """A filter by what callers call it."""
    return {"tag.event_id": name}


def test_a_call_is_found_by_what_its_caller_calls_it(books: Books) -> None:
    """Exactly that one; a name that nobody used finds none."""
    named = {name: books.requests(**event(name)) for name in ("order-3", "order-4")}

    assert [row["tags"]["event_id"] for row in named["order-3"]] == ["order-3"]
    assert named["order-4"] == []


def test_a_record_is_told_by_its_id_where_it_also_fits(books: Books) -> None:
    """What is of another organization or team is as one that there is not."""
    id = books.requests(limit=1)[0]["id"]
    own: dict[str, Any] = {"organization": "default", "team": "research"}

    assert books.request(id, **own) == books.request(id) is not None
    assert books.request(id, **{**own, "team": "other"}) is None
    assert books.request(id + "x", **own) is None


def test_a_record_is_looked_up_by_its_id_first(tmp_path: Path) -> None:
    """Whose it is comes after that: nobody's other records are gone through."""
    books = open_books(tmp_path / "books.sqlite3", HeldClock())
    statement = record("req_1", {"organization": "default", "user": "ada"})
    with books._reading() as connection:
        text = str(statement.compile(connection.engine, compile_kwargs={"literal_binds": True}))
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
    books.close()

    assert [line.partition(" USING")[0] for line in plan] == ["SEARCH requests", "SEARCH dimension_sets"]


def test_the_index_of_events_is_used(tmp_path: Path) -> None:
    """However many records there are, those of an event are looked up."""
    books = open_books(tmp_path / "books.sqlite3", HeldClock())
    statement = request_list("", 10, True, {"tag.event_id": "order-3"}, literal)
    with books._reading() as connection:
        text = str(statement.compile(connection.engine, compile_kwargs={"literal_binds": True}))
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
    books.close()

    assert any("requests_by_event" in line for line in plan)


def test_a_search_ends_at_its_deadline(tmp_path: Path) -> None:
    """It is refused with a sentence; the same books answer the next question."""
    books = open_books(tmp_path / "books.sqlite3", HeldClock())
    filled(books)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(Failed) as told, books._reading() as connection, connect.within(connection, 20):
        connection.exec_driver_sql(endless)
    rows = books.requests(sort="cost", within_ms=2_000)
    books.close()

    assert told.value.code == "search_too_long"
    assert len(rows) == CALLS
