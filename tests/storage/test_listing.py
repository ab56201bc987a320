"""Rows that a start reads: all columns as they were put, counts by their values, and the newest change."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import HeldClock
from faregate.errors import UsageError
from faregate.storage.memory.books import MemoryBooks
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books

BooksUnderTest = MemoryBooks | SqliteBooks


@pytest.fixture(params=["memory", "sqlite"])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BooksUnderTest]:
    opened: BooksUnderTest = (
        MemoryBooks(HeldClock()) if request.param == "memory" else open_books(tmp_path / "books.sqlite3", HeldClock())
    )
    yield opened
    opened.close()


def key(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"key_{number}", "name": f"key {number}", "digests": {f"{number:064x}": 0}, **fields}


def test_listed_rows_hold_every_column_as_it_was_put(books: BooksUnderTest) -> None:
    """A listing gives what reading one by one gives: JSON as values, missing JSON as nothing."""
    books.put_all(
        "key",
        [
            key(1, models=["gpt-4o", "o4"], may_set=[], details={"pepper": "aé\u2028"}, expires_at=2**62),
            key(2, models=None, team="research"),
        ],
    )
    rows = books.listing("key")
    assert rows == [books.get("key", "key_1"), books.get("key", "key_2")] == books.newest("key")[::-1]
    assert (rows[0]["models"], rows[0]["may_set"], rows[0]["details"]) == (
        ["gpt-4o", "o4"], [], {"pepper": "aé\u2028"},
    )  # fmt: skip
    assert (rows[1]["models"], rows[1]["details"], rows[1]["expires_at"]) == (None, None, 0)


def test_columns_are_those_of_the_listing(books: BooksUnderTest) -> None:
    """Some columns of all rows in the order of their ids, page by page, with JSON as values."""
    books.put_all("key", [key(3), key(1, models=["gpt-4o"]), key(2, team="research")])
    names = ("id", "models", "team", "digests")
    rows = books.listing("key")
    assert [list(values) for values in books.columns("key", names)] == [[row[name] for row in rows] for name in names]
    assert [list(values) for values in books.columns("key", ("id",), after="key_1", limit=1)] == [["key_2"]]
    assert [list(values) for values in books.columns("key", names, after="key_3")] == [[], [], [], []]
    with pytest.raises(UsageError, match="colour"):
        books.columns("key", ("colour",))


def test_a_listing_filters_by_a_member_of_an_object(books: BooksUnderTest) -> None:
    """Limits are found by what they select; a name is never taken for a path, and what is missing fits nothing."""
    selectors: list[dict[str, str]] = [{"team": "a", "tag.b": "c"}, {"team": "b"}, {}, {"organization": "a"}]
    books.put_all("limit", [{"id": f"lim_{at}", "name": "", "selector": each} for at, each in enumerate(selectors)])

    def found(**equal: Any) -> list[str]:
        return [row["id"] for row in books.listing("limit", **equal)]

    assert found(**{"selector.team": "a"}) == ["lim_0"]
    assert found(**{"selector.team": ["a", "b"]}) == ["lim_0", "lim_1"]
    assert found(**{"selector.tag.b": "c", "selector.team": "a"}) == ["lim_0"]
    of_b: dict[str, Any] = {"selector.team": "b"}
    assert [row["id"] for row in books.newest("limit", **of_b)] == ["lim_1"]
    assert found(**{"selector.user": "a"}) == found(**{"selector.team": ""}) == []
    with pytest.raises(UsageError, match="colour"):
        found(**{"colour.team": "a"})


def test_rows_are_counted_by_the_values_of_their_columns(books: BooksUnderTest) -> None:
    """Each combination once, JSON included, with how many rows have it."""
    books.put_all("key", [key(n, state="revoked" if n > 3 else "active", details={"pepper": "p1"}) for n in range(6)])
    books.put("key", key(9, details=None))
    counted = sorted(books.tally("key", ("state", "details")), key=lambda each: each[1])
    assert counted == [
        ({"state": "active", "details": None}, 1),
        ({"state": "revoked", "details": {"pepper": "p1"}}, 2),
        ({"state": "active", "details": {"pepper": "p1"}}, 4),
    ]
    assert books.tally("key", ()) == [({}, 7)]
    assert books.tally("limit", ("mode",)) == books.tally("limit", ()) == []
    with pytest.raises(UsageError, match="colour"):
        books.tally("key", ("colour",))


def test_the_newest_change_is_the_last_of_the_feed(books: BooksUnderTest) -> None:
    """Whoever begins to follow the feed begins there."""
    assert books.newest_change() == 0
    books.put("key", key(1))
    books.remove("key", "key_1")
    assert books.newest_change() == books.changes(0)[-1][0] == 2
