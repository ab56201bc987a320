"""What projection costs: CPU of bringing journalled calls into fresh books, by stage, in microseconds per call.

Writes calls into a journal in a temporary folder, then projects them into a new SQLite file with the parts and in
batches of the size that the console would take. The stages are measured apart:

    read    framing, checksums and decoding of the journal
    sync    bringing to stable storage what was read
    fold    turning events into rows, in memory
    write   putting the rows into the file, checkpoints included

Run as a program it prints a table; ``--help`` lists what can be varied.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from faregate.core.amounts import held_amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Attempt, Event, Intended, Refused, Settled, Started
from faregate.core.ulid import UlidSource
from faregate.core.usage import Usage
from faregate.journal.append import FileJournal
from faregate.journal.projector import Projector
from faregate.journal.read import FileJournalReader
from faregate.ports import JournalRecord
from faregate.storage.fold import Batch, Before, Reservation, Stamp, fold
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books

Result = TypeVar("Result")

STAGES = ("read", "sync", "fold", "write")

#: Mean distance of two calls, so that the calls of a run spread over the slots of the roll-ups as they would.
APART_NS = 500_000

MODELS = ("gpt-4o", "gpt-4o-mini", "o4-mini", "claude-sonnet-4")


class Load(NamedTuple):
    """What is projected, and how."""

    calls: int
    #: Calls that one batch takes in: about 300 where many come, 20 where a hundred a second do.
    batch: int
    keys: int
    #: Calls that are at the provider at any moment: 2,000 is one second each at 2,000 requests a second.
    open: int
    #: One of so many calls is refused; 0 for none.
    refused: int


class _Clock:
    def wall_nanos(self) -> int:
        return time.time_ns()

    def monotonic_nanos(self) -> int:
        return time.monotonic_ns()


def _callers(keys: int) -> list[Attribution]:
    return [_caller(n, MODELS[n % len(MODELS)]) for n in range(keys)]


def _caller(n: int, model: str) -> Attribution:
    return Attribution(
        "default", f"team-{n % 7}", f"project-{n % 19}", "" if n % 3 else f"user-{n}", "", f"key_01K{n:023d}", "",
        "prod" if n % 2 else "dev", "", model, f"openai/{model}", "openai", "chat.completions",
    )  # fmt: skip


def events(load: Load) -> Iterator[Event]:
    """The events of ordinary plain calls, in the order in which a gate would journal them."""
    chance = random.Random(7)
    moment = [time.time_ns()]
    next_id = UlidSource("req_", lambda: moment[0], chance.randbytes)
    callers = _callers(load.keys)
    running: deque[tuple[str, int, Attribution]] = deque()
    yield Started(1, moment[0])
    for n in range(load.calls):
        moment[0] += APART_NS
        now, name, who = moment[0], next_id(), chance.choice(callers)
        if load.refused and n % load.refused == 0:
            yield Refused(name, now, who, False, 429, "budget_exhausted", 90, "lim_01K00000000000000000000000")
            continue
        held = held_amounts(300_000 + 600 * n % 1_000, 1_024, 256)
        yield Intended(name, now - 80_000, now, who, held, "card_0123456789abcdef", False, 1_024)
        running.append((name, now, who))
        if len(running) > load.open:
            yield _end(*running.popleft(), moment[0], chance)
    while running:
        yield _end(*running.popleft(), moment[0], chance)


def _end(name: str, began: int, who: Attribution, now: int, chance: random.Random) -> Settled:
    spent = chance.randrange(20_000, 300_000)
    took = (now - began) // 1_000 + 850
    usage = Usage(chance.randrange(50, 900), chance.randrange(2) * 128, 0, 0, chance.randrange(20, 250))
    return Settled(
        name, now + 850_000, "ok", 200, "", usage, "provider", spent, spent, "card_0123456789abcdef", took, took - 50,
        (Attempt(who.deployment, 200, "", took - 120),), who.model, f"req_{chance.randbytes(16).hex()}",
    )  # fmt: skip


def _write(folder: Path, load: Load) -> None:
    journal = FileJournal(folder, _Clock(), lambda callback: None)
    for event in events(load):
        journal.append(event)
    journal.close()


class _Meter:
    """Stands between the projector and both its neighbours, and counts the CPU of each stage."""

    def __init__(self, reader: FileJournalReader, books: SqliteBooks) -> None:
        self._reader = reader
        self._books = books
        self.used = dict.fromkeys(STAGES, 0.0)
        #: CPU of the longest batch.
        self.longest = 0.0
        self._known: dict[str, Reservation] = {}
        self._numbers = _Numbers()

    def _timed(self, stage: str, work: Callable[[], Result]) -> Result:
        began = time.thread_time()
        found = work()
        self.used[stage] += time.thread_time() - began
        return found

    def read(self, position: int, bytes_max: int) -> Sequence[JournalRecord]:
        return self._timed("read", lambda: self._reader.read(position, bytes_max))

    def segments(self) -> Iterable[tuple[int, int]]:
        return self._reader.segments()

    def sync(self) -> None:
        self._timed("sync", self._reader.sync)

    def projected(self) -> int:
        return self._timed("write", self._books.projected)

    def project(self, records: Sequence[JournalRecord]) -> None:
        before = self.used["write"]
        self._timed("write", lambda: self._books.project(records))
        self.longest = max(self.longest, self.used["write"] - before)
        folded = self._folding(records)
        self.used["fold"] += folded
        self.used["write"] -= folded

    def _folding(self, records: Sequence[JournalRecord]) -> float:
        """CPU seconds of folding a batch, seen apart; the books do the same within ``project``."""
        batch = Batch(0, 0, 1)
        began = time.thread_time()
        fold(records, Before(self._known, self._numbers), batch)
        took = time.thread_time() - began
        for name, reservation in batch.changed.items():
            if reservation is None:
                self._known.pop(name, None)
            else:
                self._known[name] = reservation
        return took


class _Numbers:
    """Numbers for sets and accounts, as the books would give them."""

    def __init__(self) -> None:
        self.stamps: dict[Attribution, Stamp] = {}

    def stamp(self, who: Attribution) -> Stamp:
        self.stamps[who] = stamp = Stamp(who, len(self.stamps) + 1)
        return stamp

    def account(self, name: str) -> int:
        return len(name)

    def open_accounts(self, stamp: Stamp, who: Attribution) -> None:
        stamp.debit, stamp.credit = self.account(who.key), self.account(who.provider)


def measure(load: Load) -> dict[str, float]:
    """Microseconds of CPU per call by stage; ``bytes`` of the books per call, ``longest`` batch in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "journal", load)
        reader = FileJournalReader(Path(folder) / "journal")
        path = Path(folder) / "books.sqlite3"
        books = open_books(path, _Clock())
        meter = _Meter(reader, books)
        # What the books take in per batch is given in calls; the journal is read by bytes.
        batch_bytes = sum(size for _, size in reader.segments()) * load.batch // load.calls
        projector = Projector(meter, meter, lambda position: None, batch_bytes=batch_bytes)
        while projector.step():
            pass
        totals = books.totals()
        books.close()
        assert totals["records"] == load.calls
        assert totals["sum"] == 0
        size = path.stat().st_size
    found = {stage: seconds * 1e6 / load.calls for stage, seconds in meter.used.items()}
    longest = meter.longest * 1e3
    return {**found, "all": sum(found.values()), "bytes": size / load.calls, "longest": longest}


def _print(load: Load, rounds: int) -> None:
    found = [measure(load) for _ in range(rounds)]
    # The least of each is what is least disturbed by whatever else the machine does.
    best = {name: min(each[name] for each in found) for name in found[0]}
    best["all"] = sum(best[stage] for stage in STAGES)
    stages = "  ".join(f"{stage} {best[stage]:5.1f}" for stage in STAGES)
    sys.stdout.write(
        f"batch {load.batch:>5}  keys {load.keys:>5}  open {load.open:>5}   {stages}   all {best['all']:5.1f} us"
        f"   {best['bytes']:4.0f} B   longest {best['longest']:4.1f} ms\n"
    )


def main() -> None:
    """Measure what was asked for, or a few loads that tell what matters."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--calls", type=int, default=20_000)
    asked.add_argument("--batch", type=int, help="calls of one batch")
    asked.add_argument("--keys", type=int, default=20)
    asked.add_argument("--open", type=int, default=0, help="calls at the provider at any moment")
    asked.add_argument("--refused", type=int, default=0, help="one of so many calls is refused")
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    load = Load(given.calls, given.batch or 300, given.keys, given.open, given.refused)
    loads = [load]
    if given.batch is None and not given.open:
        loads += [load._replace(batch=20), load._replace(keys=1_000), load._replace(open=2_000)]
    for each in loads:
        _print(each, given.rounds)


if __name__ == "__main__":
    main()
