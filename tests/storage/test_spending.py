"""What keys spent by quarters of an hour: the same from every engine, as the calls themselves tell it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import MINUTE, START, HeldClock, attribution, intended, refused, settled
from faregate.core.ledger.events import Event
from faregate.ports import Books, JournalRecord
from faregate.storage.memory.books import MemoryBooks
from faregate.storage.sqlite.opening import open_books

SLOT = 15 * MINUTE
CALLS = 90


def facts(n: int) -> tuple[str, str, str]:
    """Key, operation and user of a call; what user 1 uses costs the operator twice what it is charged."""
    return f"key_{n % 3}", "batches" if n % 7 == 0 else "embeddings", f"user-{n % 2}"


@pytest.fixture(params=["memory", "sqlite"])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Books]:
    """Calls of three keys and two operations over an hour and a half, some of them refused."""
    clock = HeldClock()
    made: Books = MemoryBooks(clock) if request.param == "memory" else open_books(tmp_path / "books.sqlite3", clock)
    events: list[Event] = []
    for n in range(CALLS):
        key, service, user = facts(n)
        who = attribution(key=key, service=service, user=user)
        at = START + n * MINUTE
        if n % 5 == 0:
            events.append(refused(n, at=at, who=who))
            continue
        end = settled(n, at=at + MINUTE, charge=100 + n)
        events += [intended(n, at=at, who=who), end._replace(cost=2 * end.cost) if user == "user-1" else end]
    made.project([JournalRecord(n + 1, event, n + 1) for n, event in enumerate(events)])
    yield made
    made.close()


def test_spending_is_summed_by_key_operation_and_quarter_of_an_hour(books: Books) -> None:
    """Cost or charge, whichever is more."""
    since, until = START - START % SLOT + SLOT, START - START % SLOT + 4 * SLOT
    expected: Counter[tuple[str, str, int]] = Counter()
    for n in range(CALLS):
        key, service, user = facts(n)
        at = START + n * MINUTE
        if n % 5 and key != "key_2" and since <= at < until:
            expected[key, service, at - at % SLOT] += (100 + n) * (2 if user == "user-1" else 1)

    found = books.spending(("key_1", "key_0"), since, until)

    assert found == [(*of, spent) for of, spent in sorted(expected.items())]


def test_keys_that_never_spent_anything_are_left_out(books: Books) -> None:
    """And so are all where none is asked for."""
    assert books.spending(("key_9",), 0, START + 100 * SLOT) == []
    assert books.spending((), 0, START + 100 * SLOT) == []
