"""A row outside of a scope is not read, so that an id of others takes as long as one that nothing has.

How long each takes is measured by ``tests/chaos/soak_timing.py``.
"""

from pathlib import Path
from typing import Any, cast

from console_parts import WHO, opened, parts, settled_call
from faregate.console.keys import NewKey, create
from faregate.console.scoped_books import ScopedBooks
from faregate.core.access import Scope
from faregate.ports import Books


class Watched:
    """Books that keep what they answered."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.answered: list[object] = []

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._books, name)

        def answering(*words: Any, **named: Any) -> Any:
            self.answered.append(asked(*words, **named))
            return self.answered[-1]

        return answering


def test_no_row_of_others_is_read_by_its_id(tmp_path: Path) -> None:
    """One's own come back whole; of others, and of those that there are not, the books themselves say nothing."""
    with parts(tmp_path) as made:
        keys = [create(made.console, NewKey(name=name, organization=name))[0]["id"] for name in ("acme", "umbra")]
        made.journal.add(opened())
        for name in ("acme", "umbra"):
            made.journal.add(*settled_call(f"req_{name}", who=WHO._replace(organization=name)))
        made.project()
        watched = Watched(made.books)
        books = ScopedBooks(cast(Books, watched), Scope("acme"))

        assert books.get("key", keys[0]) == made.books.get("key", keys[0])
        assert books.get_all("key", keys) == made.books.get_all("key", keys[:1])
        assert books.request("req_acme") == made.books.request("req_acme") is not None
        watched.answered.clear()
        asked = [books.get("key", keys[1]), books.get("key", "key_absent"), books.request("req_umbra")]
        assert asked == [None] * 3
        assert [answer for answer in watched.answered if answer] == []
