"""Balances of many limits at once: the same as one by one, in a number of statements that does not follow theirs."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Select, literal

from builders import MINUTE, START, HeldClock, attribution, intended, refused, settled
from faregate.core.ledger.events import Event
from faregate.core.usage import Measure, Usage
from faregate.errors import UsageError
from faregate.ports import BalanceQuery, Balances, JournalRecord
from faregate.storage.balances import balances
from faregate.storage.memory.books import MemoryBooks
from faregate.storage.sqlite import connect
from faregate.storage.sqlite.books import SqliteBooks, _tag_of
from faregate.storage.sqlite.opening import open_books
from soaking import examples

SLOT = 15 * MINUTE
CALLS = 120


def traffic() -> list[JournalRecord]:
    """Calls of three users, two models and four runs over two hours, with tags, rarer units, and some refused."""
    events: list[Event] = []
    for n in range(CALLS):
        who = attribution(
            user=f"user-{n % 3}",
            key=f"key_{n % 5}",
            model="o4" if n % 2 else "gpt-4o",
            run="" if n % 7 == 0 else f"run-{n % 4}",
            tags=(("env", "prod" if n % 4 else "test"),),
        )
        at = START + n * MINUTE
        if n % 13 == 0:
            events.append(refused(n, at=at, who=who))
            continue
        usage = Usage(10 + n, n, 0, 0, 5, n, 0, (Measure("images", "", n % 3),) if n % 9 == 0 else ())
        events += [intended(n, at=at, who=who), settled(n, at=at + MINUTE, charge=100 + n, usage=usage)]
    return [JournalRecord(n + 1, event, n + 1) for n, event in enumerate(events)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MemoryBooks, SqliteBooks]]:
    """The same traffic in the oracle's books and in a file."""
    memory = MemoryBooks(HeldClock())
    file = open_books(tmp_path_factory.mktemp("balances") / "books.sqlite3", HeldClock())
    for books in (memory, file):
        books.project(traffic())
    yield memory, file
    file.close()


SELECTORS: tuple[dict[str, str], ...] = (
    {}, {"user": "user-1"}, {"user": "user-2", "model": "o4"}, {"key": "key_3"}, {"user": "nobody"},
    {"run": "run-2"}, {"run": "", "user": "user-1"}, {"tag.env": "test"}, {"tag.env": "prod", "run": "run-1"},
)  # fmt: skip
EACH = ((), ("user",), ("model", "user"), ("run",), ("tag.env", "key"), ("tag.absent",))
UNITS = ("usd", "tokens", "output_tokens", "requests", "images", "concurrency")
SPANS = ((0, 0), (START, 0), (START + 2 * SLOT, 0), (START + 2 * SLOT, START + 5 * SLOT), (START + 7 * MINUTE, 0),
         (0, START + 50 * MINUTE))  # fmt: skip

every_query = st.builds(
    lambda selector, each, unit, span: BalanceQuery(selector, each, unit, *span),
    st.sampled_from(SELECTORS),
    st.sampled_from(EACH),
    st.sampled_from(UNITS),
    st.sampled_from(SPANS),
)


@settings(max_examples=examples(25, 1_000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(every_query, max_size=12))
def test_many_balances_are_those_of_each(both: tuple[MemoryBooks, SqliteBooks], asked: list[BalanceQuery]) -> None:
    """Whatever limits are asked about together, each gets what the oracle counts for it alone."""
    memory, file = both
    assert file.balances_of(asked) == [memory.balances_of([one])[0] for one in asked]


def test_every_kind_of_limit_in_one_question(both: tuple[MemoryBooks, SqliteBooks]) -> None:
    """All selectors, dimensions, units and spans at once give the oracle's sums."""
    memory, file = both
    asked = [
        BalanceQuery(selector, each, unit, *span)
        for selector, each, unit, span in product(SELECTORS, EACH, UNITS, SPANS)
    ]
    assert file.balances_of(asked) == memory.balances_of(asked)


def test_more_values_than_a_statement_is_narrowed_to(both: tuple[MemoryBooks, SqliteBooks]) -> None:
    """Limits of more users, keys and runs than one statement names are asked about in several, and lose nothing."""
    memory, file = both
    asked = [
        BalanceQuery({name: f"{value}{n % 7}"}, (), unit, START)
        for name, value in (("user", "user-"), ("key", "key_"), ("run", "run-"), ("tag.env", "tes"))
        for n in range(14)
        for unit in ("usd", "requests")
    ]
    with file._reading() as connection:
        found = balances(asked, connection.execute, _tag_of, values_max=3)
    assert found == memory.balances_of(asked)


def test_nothing_asked(both: tuple[MemoryBooks, SqliteBooks]) -> None:
    """No question has no answer."""
    memory, file = both
    assert (memory.balances_of([]), file.balances_of([])) == ([], [])


def test_a_name_that_is_no_dimension(both: tuple[MemoryBooks, SqliteBooks]) -> None:
    """An unknown dimension is named, not looked for."""
    wrong = BalanceQuery({"colour": "red"}, (), "usd", 0)
    with pytest.raises(UsageError, match="colour"):
        both[1].balances_of([wrong, wrong])


class Asked:
    """Runs statements on books and counts them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.statements = 0

    def __call__(self, statement: Select[Any]) -> Iterable[Sequence[Any]]:
        self.statements += 1
        return self._connection.execute(statement)


def policy(limits: int) -> list[BalanceQuery]:
    """Limits of six kinds on as many callers as it takes."""
    month, minute = START, START + 7 * MINUTE
    kinds = (
        lambda n: BalanceQuery({"key": f"key_{n}"}, (), "usd", month),
        lambda n: BalanceQuery({"key": f"key_{n}"}, (), "requests", minute),
        lambda n: BalanceQuery({"team": f"team-{n}", "model": "o4"}, (), "tokens", month),
        lambda n: BalanceQuery({"user": f"user-{n}"}, ("model",), "usd", month),
        lambda n: BalanceQuery({"product": f"product-{n}"}, (), "usd", 0),
        lambda n: BalanceQuery({"tag.env": f"env-{n}"}, (), "usd", month),
    )
    return [kinds[n % len(kinds)](n // len(kinds)) for n in range(limits)]


def answered(connection: Connection, asked: Sequence[BalanceQuery]) -> tuple[int, list[Balances]]:
    """How many statements it took, and the balances."""
    fetch = Asked(connection)
    found = balances(asked, fetch, literal)
    return fetch.statements, found


def test_statements_do_not_grow_with_the_limits(tmp_path: Path) -> None:
    """Twelve thousand limits are opened by as many statements as a dozen of the same kinds."""
    path = tmp_path / "books.sqlite3"
    books = open_books(path, HeldClock())
    books.project(traffic())
    books.close()
    engine = connect.reader_engine(path)
    with engine.connect() as connection:
        few, _ = answered(connection, policy(12))
        many, found = answered(connection, policy(12_000))
    engine.dispose()
    assert many == few <= 6
    assert sum(1 for one in found if one) > 0
