"""How deployments compare by the records, told alike by every engine of the books."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import MINUTE, START, HeldClock, attribution, intended, recalled, refused, request_id, settled
from faregate.core.attribution import Attribution
from faregate.core.comparison import Comparison, Figures
from faregate.core.ledger.events import Event, Started
from faregate.core.usage import Usage
from faregate.errors import UsageError
from faregate.ports import JournalRecord
from faregate.storage.comparison import compared
from faregate.storage.memory.books import MemoryBooks
from faregate.storage.sqlite.books import _tag_of
from faregate.storage.sqlite.opening import open_books
from soaking import examples

MOST = 1_000

#: Copies are of nobody, at a place of their own.
NOBODY = Attribution(model="small", deployment="two", provider="azure", service="chat.completions")


def call(number: int, *, who: Attribution | None = None, at: int = START, **ended: Any) -> list[Event]:
    """A call that was sent, and its end; ``notes`` and ``stream`` are of its intent."""
    intent = intended(number, at=at, who=who, stream=ended.pop("stream", False))
    intent = intent._replace(notes=ended.pop("notes", ""))
    return [intent, settled(number, at=at + MINUTE)._replace(**ended)]


def copy(number: int, of: int, **more: Any) -> list[Event]:
    """A copy of the call with that number."""
    return call(number, **{"who": NOBODY, "notes": f'{{"mirror_of":"{request_id(of)}"}}', **more})


class Both:
    """Two engines with the same records."""

    def __init__(self, folder: Path) -> None:
        self.memory = MemoryBooks(HeldClock())
        self.sqlite = open_books(folder / "books.sqlite3", HeldClock())
        self._told = 0

    def project(self, events: list[Event]) -> None:
        found = [JournalRecord(100 * (n + 1), event, n + 1) for n, event in enumerate(events, self._told)]
        self._told += len(found)
        for books in (self.memory, self.sqlite):
            books.project(found)

    def compare(self, since: int = 0, until: int = 0, most: int = MOST, **asked: Any) -> dict[str, Any]:
        """What both tell, which is the same."""
        one, other = (told(books.comparison(since, until, most, **asked)) for books in (self.memory, self.sqlite))
        assert one == other
        return one


def told(found: Comparison) -> dict[str, Any]:
    def of(figures: Figures) -> dict[str, Any]:
        return {name: getattr(figures, name) for name in Figures.__slots__}

    return {
        "rows": {tuple(place): of(row) for place, row in found.rows.items()},
        "pairs": {
            tuple(places): {
                "originals": of(each.originals),
                "copies": of(each.copies),
                "failed": (each.failed, each.mirror_failed),
            }
            for places, each in found.pairs.items()
        },
        "records": found.records,
        "truncated": found.truncated,
    }


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    made = Both(tmp_path)
    yield made
    made.sqlite.close()


def test_calls_are_told_by_where_they_went(both: Both) -> None:
    """One row for each model, deployment and provider, copies apart; only what ended at a provider is counted."""
    elsewhere = attribution(deployment="west", provider="azure")
    both.project(
        [
            Started(1, START - 1),
            *call(1, stream=True, latency_us=5_900, usage=Usage(10, output_text=5)),
            *call(2, status="failed", cost=0, charge=0, usage=Usage()),
            *call(3, who=elsewhere, status="cut", limit="lim_1"),
            *copy(4, of=1, cost=900),
            *call(5, who=attribution(deployment="")),
            recalled(6),
            refused(7),
            intended(8),
        ]
    )
    found = both.compare()
    rows = found["rows"]
    assert set(rows) == {
        ("gpt-4o", "openai/gpt-4o", "openai", False),
        ("gpt-4o", "west", "azure", False),
        ("small", "two", "azure", True),
    }
    first = rows["gpt-4o", "openai/gpt-4o", "openai", False]
    assert first == {
        "requests": 2, "ok": 1, "failed": 1, "cost": 700, "costing": 1, "input_tokens": 10, "output_tokens": 5,
        "latencies_us": [5_900], "first_tokens_us": [900], "speeds": [1_000_000],
    }  # fmt: skip
    assert rows["gpt-4o", "west", "azure", False]["failed"] == 0
    assert (found["records"], found["truncated"]) == (4, False)
    pair = found["pairs"]["gpt-4o", "openai/gpt-4o", "two"]
    assert (pair["originals"]["cost"], pair["copies"]["cost"], pair["failed"]) == (700, 900, (0, 0))


@pytest.mark.parametrize(
    "original",
    [
        [],
        [intended(1)],
        [refused(1)],
        [recalled(1)],
        call(1, at=START - MINUTE),
    ],
    ids=["absent", "open", "refused", "a hit", "earlier"],
)
def test_a_copy_without_its_original_is_no_pair(both: Both, original: list[Event]) -> None:
    """It is a call of its own all the same."""
    both.project([Started(1, START - MINUTE), *original, *copy(2, of=1)])
    found = both.compare(START)
    assert list(found["rows"]) == [("small", "two", "azure", True)]
    assert found["pairs"] == {}


def test_an_unknown_call_is_in_no_row(both: Both) -> None:
    """Nor is the pair that it would be a side of."""
    both.project([Started(1, START - 1), intended(1), *copy(2, of=1), Started(2, START + MINUTE)])
    found = both.compare()
    assert (list(found["rows"]), found["pairs"]) == ([("small", "two", "azure", True)], {})


def test_whose_fault_it_was_is_told(both: Both) -> None:
    """Where one side alone failed; what it cost and how long it took is not compared then."""
    both.project(
        [
            *(Started(1, START - 1), *call(1, status="failed"), *copy(2, of=1), *call(3), *copy(4, of=3, status="cut")),
            *(*call(5), *copy(6, of=5)),
        ]
    )
    (pair,) = both.compare()["pairs"].values()
    assert pair["failed"] == (1, 1)
    assert (pair["originals"]["requests"], pair["copies"]["requests"]) == (1, 1)


@pytest.mark.parametrize("asked", [{"deployment": "two"}, {"deployment": "openai/gpt-4o"}, {"model": "small"}])
def test_either_side_of_a_pair_may_be_asked_for(both: Both, asked: dict[str, Any]) -> None:
    """Rows are of what was asked for alone."""
    both.project([Started(1, START - 1), *call(1), *call(2, who=attribution(deployment="west")), *copy(3, of=1)])
    found = both.compare(**asked)
    assert len(found["rows"]) == 1
    assert set(found["pairs"]) == {("gpt-4o", "openai/gpt-4o", "two")}
    assert both.compare(deployment="west")["pairs"] == {}


def test_filters_narrow_it(both: Both) -> None:
    """By time, operation, whether it was a stream, tag and payer; what is no dimension is refused."""
    other = attribution(service="embeddings", team="blue", tags=(("env", "ci"),))
    both.project([Started(1, START - 1), *call(1, stream=True), *call(2, who=other), *copy(3, of=1, stream=True)])
    later = START + 60 * MINUTE
    both.project(call(4, at=later))
    asked: list[tuple[dict[str, Any], int, int]] = [
        ({}, 4, 1),
        ({"stream": True}, 2, 1),
        ({"stream": False}, 2, 0),
        ({"service": "embeddings"}, 1, 0),
        ({"service": "chat.completions"}, 3, 1),
        ({"team": "research"}, 2, 0),
        ({"organization": ""}, 1, 1),
        ({"tag.env": "ci"}, 1, 0),
        ({"since": later}, 1, 0),
        ({"until": later}, 3, 1),
        ({"since": START + 1, "until": later}, 0, 0),
    ]
    found = []
    for each, _, _ in asked:
        comparison = both.compare(**each)
        found.append((each, comparison["records"], len(comparison["pairs"])))
    assert found == asked
    for books in (both.memory, both.sqlite):
        with pytest.raises(UsageError, match="unknown dimension"):
            books.comparison(0, 0, MOST, cost=700)


def test_copies_are_nobody_s(both: Both) -> None:
    """Whoever sees a part of the calls sees no copy and no pair, whichever side is asked for."""
    both.project([Started(1, START - 1), *call(1), *copy(2, of=1)])
    sides: list[dict[str, Any]] = [{}, {"deployment": "openai/gpt-4o"}, {"model": "gpt-4o"}, {"deployment": "two"}]
    for asked in sides:
        found = both.compare(organization="default", **asked)
        assert found["pairs"] == {}
        assert not any(mirrored for *_, mirrored in found["rows"])


def test_only_the_newest_are_counted(both: Both) -> None:
    """So many at most, and it is said where there are more."""
    both.project([Started(1, START - 1), *(event for n in range(5) for event in call(n, cost=n))])
    found = both.compare(most=3)
    (row,) = found["rows"].values()
    assert (found["records"], found["truncated"], row["requests"], row["cost"]) == (3, True, 3, 4 + 3 + 2)
    exactly = both.compare(most=5)
    assert (exactly["records"], exactly["truncated"]) == (5, False)


def test_records_are_gone_through_by_their_numbers(both: Both) -> None:
    """From the newest on, without sorting; originals are found by the index of ids."""
    statement = compared(START, 0, MOST, None, {"deployment": "two", "service": "chat.completions"}, _tag_of)
    with both.sqlite._reading() as connection:
        compiled = statement.compile(connection, compile_kwargs={"literal_binds": True})
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]
    outer = [step for step in plan if step.split()[1] in ("requests", "dimension_sets", "original", "original_sets")]
    assert outer[0].startswith("SEARCH requests USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)")
    assert any(step.startswith("SEARCH original USING INDEX") and "(id=?)" in step for step in plan)
    assert not any("TEMP B-TREE FOR ORDER" in step for step in plan)


@settings(max_examples=examples(12, 500), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("ok", "failed", "cut", "aborted")),
            st.booleans(),
            st.integers(0, 5),
            st.none() | st.integers(0, 8),
            st.integers(0, 40),
        ),
        max_size=8,
    ),
    st.integers(1, 6),
    st.sampled_from(({}, {"model": "small"}, {"deployment": "openai/gpt-4o"}, {"stream": True})),
)
def test_engines_agree(
    tmp_path_factory: pytest.TempPathFactory, calls: list[Any], most: int, asked: dict[str, Any]
) -> None:
    """Whatever calls and copies there are, in whatever order, and however few of them are looked at."""
    both = Both(tmp_path_factory.mktemp("both"))
    events: list[Event] = [Started(1, START - 1)]
    for number, (status, stream, cost, of, minutes) in enumerate(calls):
        more = {"status": status, "stream": stream, "cost": cost, "at": START + minutes * MINUTE}
        events += call(number, **more) if of is None else copy(number, of, **more)
    both.project(events)
    try:
        both.compare(most=most, **asked)
        both.compare(START + 10 * MINUTE, START + 30 * MINUTE, most, **asked)
    finally:
        both.sqlite.close()
