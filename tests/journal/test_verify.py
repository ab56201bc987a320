"""Verify: true books pass, and every single change of a figure is found and named."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from builders import MINUTE, START, HeldClock, attribution, intended, progressed, recalled, refused, request_id, settled
from faregate.core.ledger.events import Event, Lost
from faregate.core.usage import Measure, Usage
from faregate.journal.append import FileJournal
from faregate.journal.projector import Projector
from faregate.journal.read import FileJournalReader
from faregate.journal.segments import list_segments
from faregate.journal.verify import Check, verify
from faregate.storage.memory.books import MemoryBooks
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books


def events() -> list[Event]:
    """A little of everything that may happen."""
    found: list[Event] = []
    for n in range(40):
        at = START + n * MINUTE
        found.append(intended(n, at=at, who=attribution(user=f"user-{n % 3}", run=f"r{n}")))
        if n % 7 == 3:
            found.append(progressed(n, n, at=at))
        if n % 5 != 4:
            found.append(settled(n, at=at + 1, charge=n * 11))
    found += [refused(100), refused(101), Lost(request_id(4), START, 502, "upstream_truncated", 5)]
    found += [settled(9, charge=5), settled(9, charge=6)]
    images = Usage(10, other=(Measure("images", "hd", 2), Measure("input_image_tokens", "", 7)))
    for n, charge in ((50, 770), (51, 0), (52, 700)):
        rule = {770: "markup 10 %", 0: "free", 700: ""}[charge]
        found += [intended(n), settled(n, charge=charge, usage=images)._replace(cost=700, charge_rule=rule)]
    # Answers given again, one of them told twice, and a call that was looked up first.
    found += [recalled(60, saved=900), recalled(61, charge=33), recalled(61, charge=33)]
    found += [intended(62), settled(62)._replace(cache="miss")]
    return found


Pair = tuple[FileJournalReader, MemoryBooks | SqliteBooks]


def filled(tmp_path: Path, books: MemoryBooks | SqliteBooks) -> Pair:
    """A journal of several segments and two epochs, with all of it in the books."""
    folder = tmp_path / "journal"
    for part in (events(), [settled(4, resolution="provider_said"), settled(14, resolution="operator_pays")]):
        journal = FileJournal(folder, HeldClock(), lambda callback: callback(), segment_bytes=2_000, reserve_bytes=4096)
        for event in part:
            journal.append(event)
        journal.append(settled(0, charge=44, resolution="late_evidence"))
        journal.close()
    reader = FileJournalReader(folder)
    projector = Projector(reader, books, lambda position: None)
    while projector.step():
        pass
    assert books.projected() == journal.position
    return reader, books


@pytest.fixture(params=["memory", "sqlite"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    books = MemoryBooks(HeldClock()) if request.param == "memory" else open_books(tmp_path / "b", HeldClock())
    return filled(tmp_path, books)


def wrong(checks: tuple[Check, ...]) -> list[str]:
    return [check.name for check in checks if not check.ok]


def test_true_books_pass(pair: Pair) -> None:
    """Books that are the fold of their journal pass every check, unknowns and late evidence included."""
    checks = verify(*pair)
    assert wrong(checks) == []
    assert [check.name for check in checks] == [
        "sums", "removed_segments", "journal", "records", "totals", "reservations", "suspense", "accounts",
    ]  # fmt: skip
    pair[1].close()


def test_nothing_is_true_too(tmp_path: Path) -> None:
    """An installation that has never been used passes."""
    assert wrong(verify(FileJournalReader(tmp_path / "journal"), MemoryBooks(HeldClock()))) == []


def test_books_that_lag_pass(tmp_path: Path, pair: Pair) -> None:
    """What is journalled and not projected yet is no difference."""
    reader, books = pair
    journal = FileJournal(tmp_path / "journal", HeldClock(), lambda callback: callback(), reserve_bytes=4096)
    journal.append(intended(1_000))
    journal.close()
    assert wrong(verify(reader, books)) == []
    books.close()


def test_removed_segments_still_add_up(pair: Pair) -> None:
    """Without its first segments the journal is compared from where it begins, and their digests must join up."""
    reader, books = pair
    before = ""
    for segment in reader.removable(books.projected(), 1 << 62)[:3]:
        digest = reader.digest(segment, before)
        books.keep_segment(digest._asdict())
        reader.remove(segment)
        before = digest.sha256
    assert wrong(verify(reader, books)) == []
    reader.remove(reader.removable(books.projected(), 1 << 62)[0])
    assert wrong(verify(reader, books)) == ["removed_segments"]
    books.close()


CHANGES = [
    ("UPDATE requests SET charge = charge + 1 WHERE id = '{first}'", {"sums", "records"}),
    ("UPDATE requests SET cost = cost + 1, charge = charge + 1 WHERE id = '{first}'", {"sums", "records", "totals"}),
    ("UPDATE requests SET input_text = 11 WHERE id = '{first}'", {"records"}),
    ("UPDATE requests SET status = 'failed' WHERE id = '{first}'", {"records"}),
    ("UPDATE requests SET other_units = '' WHERE other_units <> ''", {"records"}),
    ("UPDATE requests SET charge_rule = 'free' WHERE charge_rule = 'markup 10 %'", {"records"}),
    ("DELETE FROM transfers WHERE kind = 'margin' AND amount = 70", {"sums", "totals", "accounts"}),
    ("UPDATE transfers SET amount = 699 WHERE kind = 'margin' AND amount = 700", {"sums", "totals", "accounts"}),
    ("UPDATE requests SET saved_cost = 901 WHERE saved_cost = 900", {"records"}),
    ("UPDATE requests SET cache = 'miss' WHERE saved_cost = 900", {"records"}),
    ("UPDATE requests SET cache = '' WHERE cache = 'miss'", {"records"}),
    ("UPDATE requests SET charge = 34 WHERE cache = 'hit' AND charge = 33", {"sums", "records"}),
    ("UPDATE requests SET cost = 1 WHERE saved_cost = 900", {"sums", "records", "totals"}),
    ("DELETE FROM requests WHERE saved_cost = 900", {"sums", "records", "totals"}),
    ("DELETE FROM transfers WHERE kind = 'margin' AND amount = 33", {"sums", "totals", "accounts"}),
    ("DELETE FROM transfers WHERE kind = 'late'", {"totals", "accounts"}),
    ("DELETE FROM requests WHERE id = '{first}'", {"sums", "records", "totals"}),
    ("DELETE FROM requests WHERE status = 'refused'", {"records"}),
    ("UPDATE transfers SET amount = amount + 1 WHERE sequence = 3", {"sums", "totals", "accounts"}),
    ("DELETE FROM transfers WHERE sequence = 1", {"sums", "totals", "accounts"}),
    ("UPDATE transfers SET debit = 1 WHERE sequence = 4", {"accounts"}),
    ("UPDATE rollups SET charge = charge + 1", {"sums"}),
    ("DELETE FROM rollups", {"sums", "totals"}),
    ("DELETE FROM reservations WHERE state = 'unknown'", {"totals", "suspense"}),
    ("UPDATE reservations SET held = held + 1 WHERE state = 'unknown'", {"totals", "suspense"}),
]


@pytest.mark.parametrize(("statement", "expected"), CHANGES, ids=[text[:60] for text, _ in CHANGES])
def test_every_change_is_found(tmp_path: Path, statement: str, expected: set[str]) -> None:
    """A figure changed behind the gate's back fails the checks that it belongs to."""
    reader, books = filled(tmp_path, open_books(tmp_path / "b", HeldClock()))
    connection = sqlite3.connect(tmp_path / "b")
    connection.execute(statement.format(first=request_id(1)))
    connection.commit()
    connection.close()
    found = set(wrong(verify(reader, books)))
    books.close()
    assert expected <= found


DAMAGE: list[tuple[Callable[[list[Path]], object], str]] = [
    (lambda paths: paths[1].unlink(), "misses the bytes"),
    (lambda paths: paths[-1].unlink(), "ends at"),
    (lambda paths: paths[1].write_bytes(paths[1].read_bytes()[:-9] + b"\0" * 9), "damaged at position"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGE, ids=[says for _, says in DAMAGE])
def test_a_damaged_journal_is_named(tmp_path: Path, damage: Callable[[list[Path]], object], says: str) -> None:
    """Books cannot be proved by a journal that is not whole, and the place is named."""
    reader, books = filled(tmp_path, MemoryBooks(HeldClock()))
    reader.close()
    damage([segment.path for segment in list_segments(tmp_path / "journal")])
    (check,) = [check for check in verify(FileJournalReader(tmp_path / "journal"), books) if not check.ok]
    assert check.name == "journal"
    assert says in check.detail
