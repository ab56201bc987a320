"""Records without an index on time or dimensions: however they are looked for, the same ones are found."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, literal

from builders import MINUTE, START, HeldClock, attribution, intended, refused, request_id, settled
from faregate.core.ledger.events import Event
from faregate.ports import JournalRecord
from faregate.storage.queries import LOOKED_AT_MAX, Whereabouts, request_list, whereabouts
from faregate.storage.sqlite import connect
from faregate.storage.sqlite.opening import open_books

CALLS = 240
#: A range that tells nothing, too wide to be looked at whole.
ANYWHERE = Whereabouts(0, 2 * LOOKED_AT_MAX, 2 * LOOKED_AT_MAX)

FILTERS: list[dict[str, Any]] = [
    dict(pair)
    for pair in product(
        [("user", "user-1"), ("user", "rare"), ("user", "nobody"), ("team", "research"), ("model", ["gpt-4o", "o4"])],
        [("since", START + 40 * MINUTE), ("until", START + 100 * MINUTE), ("status", "refused"), ("run", "run-3")],
    )
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """Books of calls that end in another order than they began, seen by a reader."""
    path: Path = tmp_path_factory.mktemp("whereabouts") / "books.sqlite3"
    events: list[Event] = []
    for n in range(CALLS):
        who = attribution(
            user="rare" if n % 60 == 7 else f"user-{n % 3}", model="o4" if n % 2 else "gpt-4o", run=f"run-{n % 9}"
        )
        at = START + n * MINUTE
        events.append(refused(n, at=at, who=who) if n % 11 == 0 else intended(n, at=at, who=who))
        # Some take hours: they end among the records of another slot.
        ended = n - (90 if n % 4 == 0 else 0)
        if ended >= 0 and ended % 11:
            events.append(settled(ended, at=at))
    books = open_books(path, HeldClock())
    books.project([JournalRecord(n + 1, event, n + 1) for n, event in enumerate(events)])
    books.close()
    engine = connect.reader_engine(path)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def found(file: Connection, filters: dict[str, Any], where: Whereabouts | None) -> list[str]:
    """Ids of the records, oldest first."""
    statement = request_list("", CALLS, False, filters, literal, where)
    return [row.id for row in file.execute(statement)]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_every_way_finds_the_same(file: Connection, filters: dict[str, Any]) -> None:
    """Looked up one by one, in a range of numbers or along the ids, the records of a filter are the same."""
    question = whereabouts(filters)
    assert question is not None
    where = Whereabouts(*file.execute(question).one())
    expected = found(file, filters, None)
    assert found(file, filters, where) == expected
    assert found(file, filters, where._replace(among=LOOKED_AT_MAX + 1)) == expected
    assert found(file, filters, ANYWHERE) == expected


def test_a_rare_caller_is_looked_up(file: Connection) -> None:
    """The records of somebody who calls rarely are found among as many as there are, not among all."""
    question = whereabouts({"user": "rare"})
    assert question is not None
    where = Whereabouts(*file.execute(question).one())
    ids = found(file, {"user": "rare"}, where)
    assert ids == [request_id(n) for n in range(7, CALLS, 60)]
    assert where.among == len(ids)


def test_time_alone_narrows(file: Connection) -> None:
    """A quarter of an hour lies in a small part of the numbers, long calls that were admitted in it included."""
    since, until = START + 195 * MINUTE, START + 210 * MINUTE
    question = whereabouts({"since": since, "until": until})
    assert question is not None
    where = Whereabouts(*file.execute(question).one())
    assert where.last - where.first < CALLS // 4
    assert found(file, {"since": since, "until": until}, where) == found(file, {"since": since, "until": until}, None)
    assert whereabouts({"status": "ok"}) is None
