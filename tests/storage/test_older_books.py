"""Books that an older version wrote: brought up to date they say what they said, and go on."""

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from builders import MINUTE, START, HeldClock, attribution, intended, progressed, recalled, refused, request_id, settled
from faregate.core.ledger.events import Attempt, Event, Lost, Started
from faregate.core.usage import Measure, Usage
from faregate.errors import Failed
from faregate.ports import JournalRecord
from faregate.storage.memory.books import MemoryBooks
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books, schema_version

#: What a record did not have then.
NEWER = (
    *("input_tokens", "output_tokens", "other_units", "input_other", "output_other", "images", "seconds", "characters"),
    *("charge_rule", "notes", "cache", "saved_cost"),
)
SETS = 'organization, team, project, "user", end_user, "key", product, stage, model, deployment, provider, service'
LEAVES = "input_text, input_cached, input_cache_write, input_audio, output_text, output_reasoning, output_audio"


def told(events: list[Event], *, after: int = 0) -> list[JournalRecord]:
    """Events as the journal gives them."""
    return [JournalRecord(100 * (n + 1), event, n + 1) for n, event in enumerate(events, after)]


def history() -> list[Event]:
    """Some of everything, over several slots: ended, refused, retried, unknown, resolved, late and still running."""
    events: list[Event] = [Started(1, START)]
    for n in range(30):
        at = START + n * 4 * MINUTE
        tags = (("cost-centre", f"c{n % 2}"),) if n % 3 == 0 else ()
        who = attribution(user=f"user-{n % 4}", run=f"run-{n % 2}" if n % 5 == 0 else "", tags=tags)
        events += [intended(n, at=at, who=who), settled(n, at=at + MINUTE, charge=n * 11)]
    retried = (Attempt("openai/gpt-4o", 503, "upstream_error", 100), Attempt("azure/gpt-4o", 200, "", 200))
    events += [refused(100), refused(101, at=START + 90 * MINUTE, who=attribution(team="only-refused"))]
    events += [intended(40), settled(40)._replace(attempts=retried), intended(41), settled(41)._replace(attempts=())]
    events += [intended(50), Lost(request_id(50), START, 502, "upstream_truncated", 5), intended(51), intended(52)]
    events += [progressed(51, 9), settled(50, charge=80, resolution="provider_said"), Started(2, START + MINUTE)]
    events += [settled(3, charge=950, resolution="late_evidence"), intended(60, who=attribution(tags=(("a", "b"),)))]
    return events


def migrate(path: Path, revision: str) -> None:
    """Bring a file to a schema."""
    config = Config()
    config.set_main_option("script_location", "faregate.storage:migrations")
    config.set_main_option("path_separator", "os")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def older_books(path: Path, truth: MemoryBooks, revision: str) -> None:
    """A file of an older schema that holds what ``truth`` holds."""
    migrate(path, "0001")
    file = sqlite3.connect(path)
    for row in truth.requests(limit=1_000):
        row = {name: value for name, value in row.items() if name not in NEWER}
        row["tags"] = json.dumps(row["tags"]) if row["tags"] else None
        attempts = [list(attempt.values()) for attempt in row["attempts"]]
        row["attempts"] = json.dumps(attempts) if attempts else None
        put(file, "requests", row)
    for name in truth.account_balances():
        put(file, "accounts", {"name": name})
    numbers = dict(file.execute("SELECT name, id FROM accounts").fetchall())
    for row in truth.postings():
        put(file, "postings", {**row, "account": numbers[row["account"]]})
    for row in truth.open_reservations():
        names = ("id", "epoch", "state", "admitted_at", "dispatched_at", "held", "output_tokens_seen")
        intent = msgspec.json.encode(row["intent"]).decode()
        put(file, "reservations", {**{name: row[name] for name in names}, "intent": intent})
    counted = "status NOT IN ('refused', 'unknown')"
    file.execute(f"INSERT INTO rollup_dimensions ({SETS}) SELECT DISTINCT {SETS} FROM requests WHERE {counted}")
    sums = ", ".join(f"sum({name})" for name in LEAVES.split(", "))
    file.execute(
        f"INSERT INTO rollups (slot, dimensions, requests, {LEAVES}, cost, charge)"
        f" SELECT created_at - created_at % {15 * MINUTE}, d.id, count(*), {sums}, sum(cost), sum(charge)"
        f" FROM requests JOIN rollup_dimensions AS d USING ({SETS}) WHERE {counted} GROUP BY 1, 2"
    )
    for n in range(1_200):
        put(file, "outbox", {"kind": "settled", "request_id": request_id(n), "sent_at": 7 if n < 600 else 0})
    position, sequence, epoch = truth.mark().values()
    file.execute("UPDATE meta SET position = ?, sequence = ?, epoch = ?", (position, sequence, epoch))
    file.commit()
    file.close()
    migrate(path, revision)


def put(file: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    """Insert one row."""
    names = ", ".join(f'"{name}"' for name in row)
    values = ", ".join("?" * len(row))
    file.execute(f"INSERT INTO {table} ({names}) VALUES ({values})", list(row.values()))


def look(books: MemoryBooks | SqliteBooks) -> dict[str, Any]:
    """What the books say, but for the outbox."""
    return {
        "totals": {name: value for name, value in books.totals().items() if name != "outbox"},
        "requests": books.requests(limit=1_000),
        "of a user": books.requests(user="user-1", since=START + 20 * MINUTE, until=START + 100 * MINUTE),
        "of a run": books.requests(run="run-1", newest_first=False),
        "refused": books.requests(team="only-refused"),
        "open": books.open_reservations(),
        "postings": list(books.postings()),
        "accounts": {name: amount for name, amount in books.account_balances().items() if amount},
        "usage": books.usage(["user", "hour"], 0, 0),
        "usage of minutes": books.usage(["user"], START + MINUTE, START + 50 * MINUTE),
        "usage by tag": books.usage(["tag.cost-centre", "run"], 0, 0),
    }


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_every_older_schema(tmp_path: Path, revision: str) -> None:
    """Books of an older schema hold after the migration what they held before, and project on from there."""
    path, truth = tmp_path / "books.sqlite3", MemoryBooks(HeldClock())
    truth.project(told(history()))
    older_books(path, truth, revision)
    assert schema_version(path) == revision
    books = open_books(path, HeldClock())
    assert (tmp_path / f"books.sqlite3.before-{schema_version(path)}.tar").exists()
    assert look(books) == look(truth)
    later: list[Event] = [
        settled(60, charge=5), settled(51, resolution="operator_pays"), settled(3, charge=9), intended(70),
        settled(52, charge=44, resolution="provider_said"), settled(70),
        settled(7, charge=1, resolution="late_evidence"),
        # Of the same slot and set as records that were there before: their roll-up grows by units that it had not.
        intended(80),
        settled(80, usage=Usage(3, other=(Measure("images", "hd", 2), Measure("input_image_tokens", "", 9)))),
        intended(81), settled(81, charge=90)._replace(cost=70, charge_rule="fee 0.00000002"),
    ]  # fmt: skip
    for engine in (books, truth):
        engine.project(told(later, after=len(history())))
    assert look(books) == look(truth)
    assert books.balances({}, (), "images", 0) == [((), 2)]
    books.close()


def as_of(path: Path, revision: str) -> None:
    """Take from a file what a schema did not have yet; nothing in it may use that."""
    older = path.with_suffix(".older")
    migrate(older, revision)
    then, file = sqlite3.connect(older), sqlite3.connect(path)
    columns = "SELECT m.name, c.name FROM sqlite_master m, pragma_table_xinfo(m.name) c WHERE m.type = 'table'"
    known = set(then.execute(columns))
    tables = {table for table, _ in known}
    for (table,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if table not in tables:
            file.execute(f'DROP TABLE "{table}"')
    for table, name in file.execute(columns).fetchall():
        if (table, name) not in known:
            file.execute(f'ALTER TABLE "{table}" DROP COLUMN "{name}"')
    file.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    file.commit()
    then.close()
    file.close()
    older.unlink()


def test_books_of_before_the_response_cache_stay_proved(tmp_path: Path) -> None:
    """0010: what was chained keeps its hashes, new records with the cache follow on, and tampering is found in both."""
    path, truth = tmp_path / "books.sqlite3", MemoryBooks(HeldClock())
    truth.project(told(history()))
    books = open_books(path, HeldClock())
    books.project(told(history()))
    books.put("key", {"id": "key_1", "name": "ci"})
    head = books.chain_head()
    books.close()
    as_of(path, "0010")
    assert schema_version(path) == "0010"

    books = open_books(path, HeldClock())
    assert books.chain_head() == head
    assert look(books) == look(truth)
    later: list[Event] = [
        recalled(70), recalled(71, charge=5), intended(72), settled(72)._replace(cache="miss"),
        settled(51, resolution="provider_said")._replace(cache="miss"),
    ]  # fmt: skip
    for engine in (books, truth):
        engine.project(told(later, after=len(history())))
    assert look(books) == look(truth)
    proof = books.prove(lambda done, total: None)
    assert (proof.faults, proof.derived) == ([], [])
    books.close()

    for number in (7, 70, 51):
        copy = tmp_path / f"{number}.sqlite3"
        copy.write_bytes(path.read_bytes())
        file = sqlite3.connect(copy)
        file.execute("UPDATE requests SET cache = 'refresh' WHERE id = ?", (request_id(number),))
        file.commit()
        file.close()
        books = SqliteBooks(copy, HeldClock())
        assert books.prove(lambda done, total: None).faults == [f"record {request_id(number)} is not what was booked"]
        books.close()


def test_keys_and_payers_of_before_priorities_may_use_all_of_them(tmp_path: Path) -> None:
    """0011: they say nothing of priorities, and can be told afterwards."""
    path = tmp_path / "books.sqlite3"
    books = open_books(path, HeldClock())
    for kind in ("key", "user", "product"):
        books.put(kind, {"id": f"{kind}_1", "name": kind})
    books.close()
    as_of(path, "0011")

    books = open_books(path, HeldClock())
    for kind in ("key", "user", "product"):
        row = books.get(kind, f"{kind}_1")
        assert row is not None
        assert row["priorities"] is None
        books.put(kind, {**row, "priorities": ["0-7"]})
        assert books.listing(kind)[0]["priorities"] == ["0-7"]
    books.close()


def test_names_of_before_pools_lead_all_alike_and_may_lead_to_pools(tmp_path: Path) -> None:
    """0012: they lead nobody elsewhere; the table of pools is there, and both hold what is put into them."""
    path = tmp_path / "books.sqlite3"
    books = open_books(path, HeldClock())
    books.put("model", {"id": "mod_1", "name": "house", "to": ["weu"]})
    books.close()
    as_of(path, "0012")

    books = open_books(path, HeldClock())
    (row,) = books.listing("model")
    assert (row["to"], row["instead"]) == (["weu"], None)
    assert books.listing("pool") == []
    books.put("pool", {"id": "pol_1", "name": "main", "rule": {"use": [{"deployment": "weu", "weight": 2}]}})
    books.put("model", {**row, "instead": [{"select": {"product": "premium"}, "to": ["main"]}]})
    (pool,) = books.listing("pool", name="main")
    assert pool["rule"] == {"use": [{"deployment": "weu", "weight": 2}]}
    assert books.listing("model")[0]["instead"] == [{"select": {"product": "premium"}, "to": ["main"]}]
    assert books.prove(lambda done, total: None).faults == []
    books.close()


def test_books_of_before_services_take_them(tmp_path: Path) -> None:
    """0013: the table is there, with what is as usual where a row does not say it."""
    path = tmp_path / "books.sqlite3"
    open_books(path, HeldClock()).close()
    as_of(path, "0013")

    books = open_books(path, HeldClock())
    assert books.listing("service") == []
    rule = {"max_duration": "30s", "price": {"per_call": "0.001"}}
    books.put("service", {"id": "svc_1", "name": "ocr", "base_url": "https://ocr.example.com", "rule": rule})
    (row,) = books.listing("service", name="ocr")
    assert (row["rule"], row["secret"], row["state"], row["reach"]) == (rule, "", "active", "public")
    assert books.prove(lambda done, total: None).faults == []
    books.close()


def test_rate_cards_of_older_books_are_standard_ones(tmp_path: Path) -> None:
    """A card that was kept before there were service tiers belongs to none."""
    path = tmp_path / "books.sqlite3"
    migrate(path, "0002")
    file = sqlite3.connect(path)
    put(file, "rate_cards", {"version": "pv_1", "provider": "openai", "model": "gpt-4o", "tiers": "[[0,[]]]"})
    file.commit()
    file.close()
    books = open_books(path, HeldClock())
    card = books.rate_card("pv_1")
    books.close()
    assert card is not None
    assert (card["tiers"], card["service_tier"], card["region"]) == ([[0, []]], "", "")


def test_facts_keep_their_numbers(tmp_path: Path) -> None:
    """Facts of an older outbox keep their numbers, their order and whether they were sent; new ones follow on."""
    path, truth = tmp_path / "books.sqlite3", MemoryBooks(HeldClock())
    older_books(path, truth, "0001")
    books = open_books(path, HeldClock())
    assert (books.totals()["outbox"], books.outbox_backlog()) == (600, 600)
    books.project(told([intended(5_000), settled(5_000)]))
    books.close()
    file = sqlite3.connect(path)
    rows = file.execute('SELECT "first", "last", facts, sent_at FROM outbox ORDER BY "first"').fetchall()
    file.close()
    facts = {first + n: (fact, sent) for first, _, text, sent in rows for n, fact in enumerate(json.loads(text))}
    assert list(facts) == list(range(1, 1_202))
    assert facts[600] == (["settled", request_id(599)], 7)
    assert facts[601] == (["settled", request_id(600)], 0)
    assert facts[1_201] == (["settled", request_id(5_000)], 0)
    assert all(last - first + 1 == len(json.loads(text)) for first, last, text, _ in rows)


@pytest.mark.parametrize(
    "damage", ["DELETE FROM postings WHERE sequence = 4", "UPDATE postings SET amount = 3 WHERE sequence = 2"]
)
def test_a_ledger_that_does_not_balance_is_left_alone(tmp_path: Path, damage: str) -> None:
    """Postings that do not come in pairs stop the migration, and the file stays as it was."""
    path, truth = tmp_path / "books.sqlite3", MemoryBooks(HeldClock())
    truth.project(told(history()))
    older_books(path, truth, "0001")
    file = sqlite3.connect(path)
    file.execute(damage)
    file.commit()
    before = list(file.iterdump())
    file.close()
    with pytest.raises(Failed, match="do not add up to zero"):
        open_books(path, HeldClock())
    file = sqlite3.connect(path)
    assert list(file.iterdump()) == before
    file.close()


#: A program that opens books and is killed when a migration is at a change of the schema.
KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from faregate.assembly.clock import SystemClock
from faregate.storage.sqlite.opening import open_books

left = [20]

@event.listens_for(Engine, "before_cursor_execute")
def count(connection, cursor, statement, *more):
    left[0] -= statement.lstrip().upper().startswith(("CREATE", "ALTER", "INSERT", "UPDATE", "DROP"))
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

open_books(Path(sys.argv[1]), SystemClock())
"""


def test_a_migration_that_is_killed_is_as_if_it_had_not_begun(tmp_path: Path) -> None:
    """L65: the schema stays what it was, the backup of before is there, and the next start completes it."""
    path, truth = tmp_path / "books.sqlite3", MemoryBooks(HeldClock())
    truth.project(told(history()))
    older_books(path, truth, "0002")
    done = subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True, timeout=60, check=False)

    assert done.returncode == -signal.SIGKILL, done.stderr
    assert schema_version(path) == "0002"
    assert list(tmp_path.glob("books.sqlite3.before-*.tar"))
    books = open_books(path, HeldClock())
    assert look(books) == look(truth)
    books.close()
