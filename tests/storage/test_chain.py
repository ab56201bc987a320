"""The chain over what is booked: true books pass, and whatever is changed behind its back is found and named."""

import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from builders import MINUTE, START, HeldClock, attribution, intended, progressed, recalled, refused, request_id, settled
from faregate.core.ledger.events import Attempt, Awaited, Event, Lost, Started
from faregate.core.usage import Measure, Usage
from faregate.ports import JournalRecord, Proof, TrailMark
from faregate.storage.schema import metadata, requests, transfers
from faregate.storage.sqlite import chain
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books
from soaking import examples

#: Tables that the chain proves. Lines of corrections are proved by their run's digest, running reservations by the
#: journal; the outbox is a queue of copies, and rows leave it.
PROVED = sorted(set(metadata.tables) - {"outbox", "adjustment_lines", "reservations"})


def history() -> list[Event]:
    """Some of everything: ended, refused, retried, unknown, awaited, resolved, late and still running."""
    events: list[Event] = [Started(1, START)]
    for n in range(24):
        at = START + n * 4 * MINUTE
        tags = (("cost-centre", f"c{n % 2}"),) if n % 3 == 0 else ()
        who = attribution(user=f"user-{n % 4}", run=f"run-{n % 2}" if n % 5 == 0 else "", tags=tags)
        events += [intended(n, at=at, who=who), settled(n, at=at + MINUTE, charge=n * 11)]
    images = Usage(10, other=(Measure("images", "hd", 2),))
    events += [intended(30), settled(30, charge=770, usage=images)._replace(cost=700, charge_rule="markup 10 %")]
    events += [refused(100), refused(101, at=START + 90 * MINUTE, who=attribution(team="only-refused"))]
    events += [intended(40), settled(40)._replace(attempts=(Attempt("a", 503, "x", 1), Attempt("b", 200, "", 2)))]
    events += [intended(50), Lost(request_id(50), START, 502, "upstream_truncated", 5), intended(51), intended(52)]
    events += [intended(53), Lost(request_id(53), START, 200, "", 5, awaited=Awaited("resp_1"))]
    events += [progressed(51, 9), Started(2, START + MINUTE), settled(50, charge=80, resolution="provider_said")]
    events += [settled(3, charge=950, resolution="late_evidence"), intended(60), progressed(60, 3)]
    return events


def caching() -> list[Event]:
    """Answers given again, free and charged, and calls that were looked up first; one of them was lost meanwhile."""
    events: list[Event] = [recalled(200), recalled(201, charge=30), recalled(202, who=attribution(team="only-hits"))]
    for n, word in ((210, "miss"), (211, "refresh"), (212, "miss")):
        events += [intended(n), settled(n)._replace(cache=word)]
    lost = Lost(request_id(213), START, 502, "upstream_truncated", 5)
    return [*events, intended(213), lost, settled(213, resolution="provider_said")._replace(cache="miss")]


def fill(books: SqliteBooks, batch: int = 9, more: Sequence[Event] = ()) -> None:
    """Project the history in batches, with changes, corrections and all else that is chained in between."""
    told = [JournalRecord(100 * n, event, n) for n, event in enumerate([*history(), *more], start=1)]
    for start in range(0, len(told), batch):
        books.project(told[start : start + batch])
        n = start // batch + 1
        books.put("team", {"id": f"team_{n}", "name": f"team {n}"}, told=TrailMark(n, n, f"{n:064x}"))
    books.put_all("limit", [{"id": f"lim_{n}", "unit": "usd", "amount": n, "window": "day"} for n in range(5)])
    books.put("limit", {"id": "lim_3", "unit": "usd", "amount": 7, "window": "day", "selector": {"team": "a"}})
    books.remove("limit", "lim_4")
    card = {"version": "pv_1", "provider": "openai", "model": "gpt-4o", "tiers": [[0, []]]}
    books.keep_rate_cards([card, {**card, "version": "pv_2"}])
    for n in range(2):
        digest = {"first": n * 100, "end": n * 100 + 100, "sequence": n, "records": 1, "sha256": f"{n}" * 64}
        books.keep_segment({**digest, "charge": 0, "held": 0})
    for n in (1, 2):
        run = {"id": f"rpr_{n}", "kind": "reprice", "reason": "x", "question": "q", "since": 0, "until": 1, "at": 5}
        line = {"request_id": request_id(n), "run": f"rpr_{n}", "cost": 5, "charge": 5, "price_version": "pv_2"}
        books.adjust({**run, "requests": 1, "cost": 5, "charge": 5}, [line], [("payer:x", "provider:openai", 5)])


def prove(books: SqliteBooks, anchor: str = "") -> Proof:
    return books.prove(lambda done, total: None, anchor)


def faults(books: SqliteBooks) -> list[str]:
    """Everything that does not fit."""
    proof = prove(books)
    return [*proof.faults, *proof.derived]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Books of which everything is true."""
    path = tmp_path_factory.mktemp("whole") / "books.sqlite3"
    books = open_books(path, HeldClock())
    fill(books, more=caching())
    assert faults(books) == []
    books.close()
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "books.sqlite3"
    copy.write_bytes(whole.read_bytes())
    return copy


def change(path: Path, *statements: str) -> None:
    file = sqlite3.connect(path)
    for statement in statements:
        file.execute(statement)
    file.commit()
    file.close()


def found(path: Path) -> list[str]:
    """What is found wrong with the books in a file."""
    books = SqliteBooks(path, HeldClock())
    try:
        return faults(books)
    finally:
        books.close()


@pytest.mark.parametrize("batch", [1, 2, 5, 1_000])
def test_true_books_pass_however_they_were_batched(tmp_path: Path, batch: int) -> None:
    """Unknown, resolved within a batch and later, late, corrected, changed and removed: nothing of it is a fault."""
    books = open_books(tmp_path / "books.sqlite3", HeldClock())
    fill(books, batch, caching())
    proof = prove(books)
    assert (proof.faults, proof.derived) == ([], [])
    assert proof.head == books.chain_head()
    books.close()


def test_what_is_projected_twice_is_chained_once(tmp_path: Path) -> None:
    """Ids that come again, and batches that fail in the middle, leave no trace."""
    books = open_books(tmp_path / "books.sqlite3", HeldClock())
    told = [JournalRecord(100 * n, event, n) for n, event in enumerate(history(), start=1)]
    books.project(told[:20])
    books.project(told[:30])
    again = [*told[30:], JournalRecord(99_000, settled(3), 0), JournalRecord(99_100, intended(3), 0)]
    books.project(again)
    assert faults(books) == []
    books.close()


def test_older_books_are_sealed_as_they_are(path: Path) -> None:
    """Whatever was booked before there was a chain is chained when the books are opened, with the trail's lines."""
    change(path, "DELETE FROM chain", "DELETE FROM unsettled", "UPDATE changes SET digest = ''")
    file = sqlite3.connect(path)
    chain.seal(file.cursor(), START, TrailMark(1, 9, "ab" * 32))
    file.commit()
    file.close()
    books = SqliteBooks(path, HeldClock())
    assert faults(books) == []
    assert books.trail_marks() == [TrailMark(1, 9, "ab" * 32)]
    books.project([JournalRecord(99_000, settled(51, charge=1, resolution="provider_said"), 0)])
    books.put("team", {"id": "team_1", "name": "other"})
    assert faults(books) == []
    books.close()
    change(path, "UPDATE requests SET cost = cost + 1 WHERE number = 3")
    assert found(path)[0] == f"record {request_id(2)} is not what was booked"


NAMED = [
    (f"UPDATE requests SET latency_us = 1 WHERE id = '{request_id(7)}'", f"record {request_id(7)} is not"),
    (f"UPDATE requests SET code = 'x' WHERE id = '{request_id(7)}'", f"record {request_id(7)} is not"),
    (f"UPDATE requests SET attempts = '[]' WHERE id = '{request_id(7)}'", f"record {request_id(7)} is not"),
    (f"UPDATE requests SET cache = 'hit' WHERE id = '{request_id(7)}'", f"record {request_id(7)} is not"),
    (f"UPDATE requests SET saved_cost = 1 WHERE id = '{request_id(30)}'", f"record {request_id(30)} is not"),
    (f"UPDATE requests SET cache = 'miss' WHERE id = '{request_id(50)}'", f"record {request_id(50)} is not"),
    (f"UPDATE requests SET cache = 'miss' WHERE id = '{request_id(52)}'", "or its reservation, is not what was booked"),
    (f"UPDATE requests SET saved_cost = 0 WHERE id = '{request_id(200)}'", f"record {request_id(200)} is not"),
    (f"UPDATE requests SET saved_cost = 701 WHERE id = '{request_id(201)}'", f"record {request_id(201)} is not"),
    (f"UPDATE requests SET cache = '' WHERE id = '{request_id(210)}'", f"record {request_id(210)} is not"),
    (f"UPDATE requests SET cache = '' WHERE id = '{request_id(213)}'", f"record {request_id(213)} is not"),
    ("UPDATE rollups SET cache_misses = cache_misses + 1", "is not the sum of its records"),
    ("UPDATE rollups SET saved_cost = 0 WHERE saved_cost > 0", "is not the sum of its records"),
    ("DELETE FROM requests WHERE number = 5", "record number 5 is missing"),
    ("DELETE FROM requests WHERE number = (SELECT max(number) FROM requests)", "is missing"),
    ("UPDATE requests SET cost = 3 WHERE status = 'unknown'", "or its reservation, is not what was booked"),
    ("UPDATE reservations SET awaited = NULL WHERE state = 'unknown'", "or its reservation, is not what was booked"),
    ("DELETE FROM reservations WHERE state = 'unknown'", "or its reservation, is not what was booked"),
    ("UPDATE requests SET charge = 79 WHERE resolution = 'provider_said'", f"record {request_id(50)} is not"),
    ("UPDATE transfers SET amount = amount + 1 WHERE sequence = 4", f"transfer 4 of {request_id(4)} is not"),
    ("UPDATE transfers SET debit = 1 WHERE sequence = 4", "one of the transfers 4 to "),
    ("DELETE FROM transfers WHERE sequence = 4", "transfer number 4 is missing"),
    ("INSERT INTO transfers (debit, credit, amount) VALUES (1, 2, 3)", "was put in"),
    ("UPDATE accounts SET name = 'payer:else' WHERE id = 1", "account payer:else is not what was booked"),
    ("UPDATE dimension_sets SET team = 'else' WHERE id = 2", "set of dimensions 2 is not what was booked"),
    ("INSERT INTO dimension_sets (team) VALUES ('new')", "was put in"),
    ("UPDATE adjustments SET reason = 'else' WHERE id = 'rpr_1'", "adjustments rpr_1 is not what was booked"),
    ("DELETE FROM adjustments WHERE id = 'rpr_1'", "adjustments rpr_1 is missing"),
    ("INSERT INTO adjustment_lines (request_id, run) VALUES ('a', 'b')", "there is no such run"),
    ("UPDATE rate_cards SET tiers = '[]' WHERE version = 'pv_2'", "rate_cards pv_2 is not what was booked"),
    ("UPDATE segments SET records = 8 WHERE first = 100", "segments 100 is not what was booked"),
    ("UPDATE limits SET amount = 8 WHERE id = 'lim_3'", "limit lim_3 is not what its last change left"),
    ("DELETE FROM limits WHERE id = 'lim_3'", "limit lim_3 is missing"),
    ("INSERT INTO limits (id) VALUES ('lim_9')", "limit lim_9 was put in"),
    ("UPDATE changes SET at = 1 WHERE sequence = 2", "change 2 of team_2 is not what was booked"),
    ("UPDATE rollups SET input_text = input_text + 1", "is not the sum of its records"),
    ("UPDATE meta SET position = position - 1", "the place in the journal"),
    ("DELETE FROM chain WHERE number = 4", "entry 4 of the chain is missing"),
    ("DELETE FROM chain", "the chain is empty"),
    ("DELETE FROM chain WHERE number = (SELECT max(number) FROM chain)", "was put in"),
    ("UPDATE chain SET hash = substr(hash, 2) || 'a' WHERE number = 4", "entry 4 of the chain was altered"),
    ("UPDATE chain SET trail_hash = 'f' WHERE trail_last = 2", "of the chain was altered"),
    ("UPDATE chain SET form = 9 WHERE number = 4", "rules that this version does not know"),
]


@pytest.mark.parametrize(("statement", "says"), NAMED, ids=[text[:70] for text, _ in NAMED])
def test_what_was_changed_is_named(path: Path, statement: str, says: str) -> None:
    """The row, or the place where it was."""
    change(path, statement)
    assert any(says in fault for fault in found(path)), found(path)


def test_rows_put_past_the_end_are_not_taken_in_by_what_comes_after(path: Path) -> None:
    """A forged row stays uncovered, however the books go on; so does a forged line of the change feed."""
    change(
        path,
        "INSERT INTO transfers (request_id, kind, debit, credit, amount) VALUES ('x', 'charge', 1, 2, 900)",
        "INSERT INTO changes (kind, id, at) VALUES ('team', 'team_x', 1)",
    )
    books = SqliteBooks(path, HeldClock())
    books.project([JournalRecord(99_000, event, 0) for event in (intended(70), settled(70))])
    books.put("team", {"id": "team_1", "name": "other"})
    told = faults(books)
    books.close()
    assert any("transfer x" in fault and "put in" in fault for fault in told)
    assert any("change team_x" in fault and "put in" in fault for fault in told)


def test_an_anchor_proves_that_later_books_go_on_from_it(path: Path) -> None:
    """The head of the chain of then is an entry of now; books that were put back to before it do not have it."""
    older = path.read_bytes()
    books = SqliteBooks(path, HeldClock())
    books.project([JournalRecord(99_000, event, 0) for event in (intended(70), settled(70))])
    anchor = books.chain_head().hash
    books.put("team", {"id": "team_1", "name": "other"})
    assert prove(books, anchor).faults == []
    books.close()
    path.write_bytes(older)
    books = SqliteBooks(path, HeldClock())
    assert "not those of that anchor" in prove(books, anchor).faults[0]
    books.close()


def test_the_proof_is_of_one_moment_while_the_books_go_on(path: Path) -> None:
    """What is booked while it runs is neither missed nor in the way."""
    books, steps = SqliteBooks(path, HeldClock()), iter(range(70, 1_000))

    def go_on(done: int, total: int) -> None:
        n = next(steps)
        books.project([JournalRecord(99_000 + n, event, 0) for event in (intended(n), settled(n))])

    assert books.prove(go_on).faults == []
    assert books.prove(go_on).faults == []
    books.close()


def test_records_that_use_no_cache_have_the_hash_that_they_always_had(tmp_path: Path) -> None:
    """The heads of the chain are those that this history had before records had columns for the cache."""
    heads = []
    for batch in (9, 1_000):
        books = open_books(tmp_path / f"{batch}.sqlite3", HeldClock())
        fill(books, batch)
        heads.append(books.chain_head().hash)
        books.close()
    assert heads == [
        "eeeb47fdbcab63fe084d36a3e4799d585c93d78aced443eb60009b4d3d538b1b",
        "0e016b3ac14dbb420e62d3034e7d513ad25a1ce1c637f1541f3f0cb07523ef3c",
    ]


def test_every_column_is_covered() -> None:
    """Whoever adds a column to requests puts it behind the later ones; one of transfers makes another form."""
    assert chain.columns_of(requests) == list(chain.STORED)
    assert chain.columns_of(transfers) == ["sequence", *chain.TRANSFER]


# -- random changes ----------------------------------------------------------------------------------------------------


class Vandal:
    """Changes one thing in a file of books, at random."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self._file = sqlite3.connect(path)
        self._file.isolation_level = None
        self._chance = chance
        self._tables = {name: self._columns(name) for name in PROVED}
        self._tables = {name: columns for name, columns in self._tables.items() if self._count(name)}

    def _columns(self, table: str) -> list[str]:
        return [row[1] for row in self._file.execute(f'PRAGMA table_xinfo("{table}")') if row[6] == 0]

    def _count(self, table: str) -> int:
        return int(self._file.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])

    def strike(self) -> str:
        """Change something; what was done, as a sentence."""
        while True:
            way = self._chance.choice([self._edit, self._edit, self._delete, self._swap, self._insert, self._truncate])
            table = self._chance.choice(sorted(self._tables))
            try:
                done = way(table, self._tables[table])
            except sqlite3.IntegrityError:
                continue
            if done:
                self._file.close()
                return done

    def _place(self, table: str) -> int:
        return self._chance.randrange(self._count(table))

    def _row(self, table: str, place: int) -> tuple[Any, ...]:
        names = ", ".join(f'"{name}"' for name in self._tables[table])
        row: tuple[Any, ...] = self._file.execute(f'SELECT {names} FROM "{table}" LIMIT 1 OFFSET {place}').fetchone()
        return row

    def _where(self, table: str, row: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        return " AND ".join(f'"{name}" IS ?' for name in self._tables[table]), row

    def _edit(self, table: str, columns: list[str]) -> str:
        row = self._row(table, self._place(table))
        at = self._chance.randrange(len(columns))
        value = row[at]
        other: Any = self._chance.choice([0, 1, -7, 10**15, "", "x", "[]", None, b"\0\1\2\3"])
        if isinstance(value, int) and self._chance.random() < 0.7:
            other = value + self._chance.choice([-1, 1, 1_000_000])
        elif isinstance(value, str) and value and self._chance.random() < 0.7:
            place = self._chance.randrange(len(value))
            other = value[:place] + self._chance.choice("aA0é") + value[place + 1 :]
        if str(other) == str(value):
            # The column's type makes it the same.
            return ""
        where, values = self._where(table, row)
        try:
            self._file.execute(f'UPDATE "{table}" SET "{columns[at]}" = ? WHERE {where}', (other, *values))
        except sqlite3.OperationalError as problem:
            if "malformed JSON" not in str(problem):
                raise
            # An index on a member of the column keeps what is no JSON out of the file.
            return ""
        return f"{table}.{columns[at]}: {value!r} became {other!r}"

    def _delete(self, table: str, columns: list[str]) -> str:
        where, values = self._where(table, self._row(table, self._place(table)))
        self._file.execute(f'DELETE FROM "{table}" WHERE {where}', values)
        return f"a row of {table} was deleted: {values}"

    def _swap(self, table: str, columns: list[str]) -> str:
        """Exchange all but the key of two rows."""
        one, other = self._row(table, self._place(table)), self._row(table, self._place(table))
        keys = [row[1] for row in self._file.execute(f'PRAGMA table_xinfo("{table}")') if row[5]]
        rest = [name for name in columns if name not in keys and name not in ("name", "id")]
        named_one, named_other = dict(zip(columns, one, strict=True)), dict(zip(columns, other, strict=True))
        if all(named_one[name] == named_other[name] for name in rest):
            return ""
        setting = ", ".join(f'"{name}" = ?' for name in rest)
        keyed = " AND ".join(f'"{name}" IS ?' for name in keys)
        for taker, giver in ((named_one, named_other), (named_other, named_one)):
            values = [giver[name] for name in rest] + [taker[name] for name in keys]
            self._file.execute(f'UPDATE "{table}" SET {setting} WHERE {keyed}', values)
        return f"two rows of {table} were swapped"

    def _insert(self, table: str, columns: list[str]) -> str:
        row = dict(zip(columns, self._row(table, self._place(table)), strict=True))
        for column in self._file.execute(f'PRAGMA table_xinfo("{table}")').fetchall():
            if column[5] or column[1] in ("id", "name"):
                value = row[column[1]]
                row[column[1]] = value + self._chance.choice([1, 7, 1_000]) if isinstance(value, int) else f"{value}x"
        names = ", ".join(f'"{name}"' for name in row)
        marks = ", ".join("?" * len(row))
        self._file.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', list(row.values()))
        return f"a row was put into {table}"

    def _truncate(self, table: str, columns: list[str]) -> str:
        keep = self._place(table)
        for row in [self._row(table, place) for place in range(keep, self._count(table))]:
            where, values = self._where(table, row)
            self._file.execute(f'DELETE FROM "{table}" WHERE {where}', values)
        return f"{table} was cut off after {keep} rows"


@pytest.mark.parametrize("tenth", range(10))
def test_random_changes_of_the_books_are_all_found(whole: Path, tmp_path: Path, tenth: int) -> None:
    """Edited cells, deleted, swapped and inserted rows, cut-off tables: each is found, and something is named."""
    missed, many = [], examples(10, 100)
    for seed in range(tenth * many, (tenth + 1) * many):
        path = tmp_path / f"{seed}.sqlite3"
        path.write_bytes(whole.read_bytes())
        done = Vandal(path, random.Random(seed)).strike()
        if not found(path):
            missed.append(f"seed {seed}: {done}")
        path.unlink()
    assert missed == []
