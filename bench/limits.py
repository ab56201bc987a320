"""Faregate with very many keys and limits: how it starts, admits and takes up a change.

Fills an installation with keys, limits on them and a history of calls, then measures

    start       from ``faregate serve`` until ``/health/ready`` and until the console listens, and the memory of both
    change      from a PATCH of one limit until a call meets it, and until the console says that it is applied
    admission   of a call that six limits concern, among few and among all of them (``limits_admission.py``)

The figures are those of this machine at this moment; a busy one makes them larger. Goals: a start within 5 s, an
admission within 15 us, and neither admission nor statements at the start grow with limits that concern others.

    python bench/limits.py [--keys 100000] [--limits 50000] [--calls 200000] [--rounds 3] [--interpreted]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gateways
import processes
import run

from faregate.cli.client import connect
from faregate.core.amounts import held_amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Attempt, Intended, Settled
from faregate.core.ulid import UlidSource
from faregate.core.usage import Usage
from faregate.journal.append import FileJournal
from faregate.journal.projector import Projector
from faregate.journal.read import FileJournalReader
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books

HERE = Path(__file__).resolve().parent
START_SECONDS_MAX = 120.0
#: Rows that one transaction writes.
BATCH = 10_000
#: The calls of the history lie in the last days, in which most windows lie, too.
HISTORY_SECONDS = 3 * 86_400
MODELS = ("gpt-4o", "gpt-4o-mini", "o4-mini")
PRICE_VERSION = "card_0123456789abcdef"

#: What is told of the key that the calls are made with; other keys have the rest.
OWN = Attribution(organization="default", team="bench-team", project="bench-project", user="bench-user")
#: The limits that concern its calls: selector (``KEY`` is filled in), unit, amount, window.
OWN_LIMITS = (
    ({"organization": "default"}, "usd", 10**15, "month"),
    ({"team": "bench-team"}, "usd", 10**14, "month"),
    ({"team": "bench-team"}, "tokens", 10**11, "minute"),
    ({"project": "bench-project"}, "usd", 10**14, "day"),
    ({"key": "KEY"}, "usd", 10**14, "lifetime"),
    ({"key": "KEY"}, "concurrency", 10**5, ""),
)
OWN_LIMIT_IDS = tuple(f"lim_own{n}" for n in range(len(OWN_LIMITS)))
#: The one that is changed: the lifetime of the key.
CHANGED = 4


class _Clock:
    def wall_nanos(self) -> int:
        return time.time_ns()

    def monotonic_nanos(self) -> int:
        return time.monotonic_ns()


class Installation(gateways.Faregate):
    """A Faregate with many keys and limits; made once, started many times."""

    def make(self, keys: int, limits: int, calls: int) -> None:
        """Start it empty once, make the one key that is used, and fill its books while it stands still."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.config = self.folder / "faregate.yaml"
        self.config.touch(mode=0o600)
        self.config.write_text(gateways.FAREGATE_CONFIG.format(mock_port=self.mock_port, model=gateways.MODEL))
        made = self.cli(
            "key", "create", "--name", "bench", "--team", OWN.team, "--project", OWN.project, "--user", OWN.user
        )
        self.key, self.key_id = made["secret"], made["id"]
        # No gate runs here, so its journal is ours.
        journal = FileJournal(self.data / "journal", _Clock(), lambda callback: None)
        for event in history(keys, calls):
            journal.append(event)
        journal.close()
        books = open_books(self.data / "books.sqlite3", _Clock())
        fill(books, keys, limits, self.key_id)
        projector = Projector(FileJournalReader(self.data / "journal"), books, lambda position: None)
        while projector.step():
            pass
        books.checkpoint()
        books.close()

    def start(self) -> None:
        """Start it; ``ready_s`` and ``listens_s`` tell when it took calls and when the console listened."""
        self.port, console = processes.free_port(), processes.free_port()
        command = [
            *self._program(), "serve", "--config", str(self.config), "--data", str(self.data),
            "--gateway", f"127.0.0.1:{self.port}", "--console", f"127.0.0.1:{console}",
        ]  # fmt: skip
        began = time.monotonic()
        with (self.folder / "faregate.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env=gateways._environment(), cwd=self.folder,
            )  # fmt: skip
        self.ready_s = self._until(self.takes_calls, began)
        self.listens_s = self._until(self._ready, began)

    def _until(self, there: Callable[[], bool], began: float) -> float:
        while not there():
            if self.process.poll() is not None or time.monotonic() - began > START_SECONDS_MAX:
                raise RuntimeError("faregate did not become ready")
            time.sleep(0.01)
        return time.monotonic() - began

    def console_process(self) -> list[int]:
        """The control plane's process alone."""
        return [pid for pid in self.tree() if processes.command_line(pid)[-2:] == ["faregate.assembly", "console"]]


def fill(books: SqliteBooks, keys: int, limits: int, own_key: str) -> None:
    """Keys that nobody knows the secret of, limits on them, and those of the one key that is used."""
    like = books.get("key", own_key)
    assert like is not None
    chance = random.Random(11)
    for start in range(0, keys, BATCH):
        numbers = range(start, min(start + BATCH, keys))
        books.put_all("key", [{**like, **key_row(n, chance)} for n in numbers])
    rows = [limit_row(n, keys) for n in range(limits - len(OWN_LIMITS))]
    for n, (selector, unit, amount, window) in enumerate(OWN_LIMITS):
        chosen = {name: value.replace("KEY", own_key) for name, value in selector.items()}
        rows.append(whole_limit(OWN_LIMIT_IDS[n], chosen, unit, amount, window))
    for start in range(0, len(rows), BATCH):
        books.put_all("limit", rows[start : start + BATCH])


def key_row(n: int, chance: random.Random) -> dict[str, Any]:
    """What tells one key from the others."""
    who = caller(n)
    named = {name: getattr(who, name) for name in ("team", "project", "user")}
    return {"id": who.key, "name": f"key {n}", "digests": {chance.randbytes(32).hex(): 0}, **named}


def caller(n: int, model: str = "") -> Attribution:
    """Whom the calls of one key are charged to."""
    return Attribution(
        organization="default", team=f"team-{n % 2_000}", project=f"project-{n % 5_000}", user=f"user-{n % 20_000}",
        key=f"key_01K{n:023d}", model=model, deployment=f"openai/{model}", provider="openai",
        service="chat.completions",
    )  # fmt: skip


def limit_row(n: int, keys: int) -> dict[str, Any]:
    """One of many limits: mostly months and minutes of keys, some of teams, users and tags, some counting each."""
    key, id = {"key": caller(n % keys).key}, f"lim_01K{n:023d}"
    match n % 20:
        case 0 | 1:
            return whole_limit(id, {"team": f"team-{n % 2_000}"}, "usd", 10**12, "day")
        case 2:
            return whole_limit(id, {"user": f"user-{n % 20_000}"}, "tokens", 10**9, "day")
        case 3:
            return whole_limit(id, key, "usd", 10**11, "month", ["model"])
        case 4:
            return whole_limit(id, {"tag.customer": f"customer-{n}"}, "usd", 10**11, "month")
        case 5:
            return whole_limit(id, key, "concurrency", 10, "")
        case 6 | 7 | 8 | 9:
            return whole_limit(id, key, "requests", 600, "minute")
        case 10 | 11:
            return whole_limit(id, key, "usd", 10**12, "lifetime")
    return whole_limit(id, key, "usd", 10**11, "month")


def whole_limit(
    id: str, selector: dict[str, str], unit: str, amount: int, window: str, each: list[str] | None = None
) -> dict[str, Any]:
    """The row of a limit."""
    return {
        "id": id, "name": id, "selector": selector, "each": each or [], "unit": unit, "amount": amount,
        "window": window, "source": "api",
    }  # fmt: skip


def history(keys: int, calls: int) -> Iterator[Intended | Settled]:
    """Ordinary calls of all keys, spread over the last days."""
    chance = random.Random(7)
    apart = HISTORY_SECONDS * 1_000_000_000 // max(1, calls)
    moment = [time.time_ns() - apart * (calls + 1)]
    next_id = UlidSource("req_", lambda: moment[0], chance.randbytes)
    for _ in range(calls):
        moment[0] += apart
        now, name, who = moment[0], next_id(), caller(chance.randrange(keys), chance.choice(MODELS))
        yield Intended(name, now, now, who, held_amounts(300_000, 1_024, 256), PRICE_VERSION, False, 1_024)
        spent = chance.randrange(20_000, 300_000)
        usage = Usage(chance.randrange(50, 900), 0, 0, 0, chance.randrange(20, 250))
        yield Settled(
            name, now + 850_000, "ok", 200, "", usage, "provider", spent, spent, PRICE_VERSION, 850, 800,
            (Attempt(who.deployment, 200, "", 700),), who.model, f"req_{chance.randbytes(16).hex()}",
        )  # fmt: skip


def changes(installation: Installation, times: int) -> tuple[float, float]:
    """Milliseconds from a PATCH until a call meets it, and until the console has answered that it is applied."""
    met, told = [], []
    with connect(installation.data) as client:
        for n in range(times):
            amount = "100000" if n % 2 else "0"
            found: list[float] = []
            watcher = threading.Thread(target=_watch, args=(installation, n % 2 == 1, found))
            watcher.start()
            began = time.monotonic()
            answer = client.call("PATCH", f"/limits/{OWN_LIMIT_IDS[CHANGED]}", {"amount": amount})
            told.append(time.monotonic() - began)
            watcher.join()
            if not answer["applied"] or not found:
                raise RuntimeError(f"the change did not arrive: {answer}")
            met.append(found[0] - began)
    return statistics.median(met) * 1e3, statistics.median(told) * 1e3


def _watch(installation: Installation, admitted: bool, found: list[float]) -> None:
    """Call until calls are admitted, or refused; ``found`` gets the moment of the first such answer."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if installation.answers() is admitted:
            found.append(time.monotonic())
            return
        time.sleep(0.001)


def admission(environment: Path, limits: int) -> dict[str, float]:
    """Microseconds of reserve and settle, and of finding the limits of a new caller, among so many limits."""
    done = subprocess.run(
        [str(environment / "bin/python"), str(HERE / "limits_admission.py"), str(limits)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"limits_admission.py: {done.stderr.strip()}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure(installation: Installation, rounds: int) -> None:
    """Start it some times and say what each start took; after the last one, how long a change takes."""
    for n in range(rounds):
        installation.start()
        gate, console = processes.cost(installation.gate()), processes.cost(installation.console_process())
        told = (f"{one.cpu_seconds:.1f} s of CPU and {one.pss_kb / 1024:.0f} MB" for one in (gate, console))
        say(
            f"start {n + 1}: takes calls after {installation.ready_s:.2f} s, console listens after "
            f"{installation.listens_s:.2f} s; gate {next(told)}, console {next(told)}"
        )
        if n == rounds - 1:
            processes.wait_until("a call", installation.answers, 10, installation.process)
            met, told = changes(installation, 20)
            say(f"change: met by a call after {met:.1f} ms, answered after {told:.1f} ms (medians of 20)")
        installation.stop()


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Make the installation, then measure."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--keys", type=int, default=100_000)
    asked.add_argument("--limits", type=int, default=50_000)
    asked.add_argument("--calls", type=int, default=200_000, help="calls of the history")
    asked.add_argument("--rounds", type=int, default=3, help="starts")
    asked.add_argument("--interpreted", action="store_true", help="Faregate as its sources stand, not as its wheel")
    given = asked.parse_args()
    if given.interpreted:
        Installation.environment = gateways.ROOT / ".venv"
    for limits in sorted({len(OWN_LIMITS), given.limits // 10, given.limits}):
        told = admission(Installation.environment, limits)
        say(
            f"admission among {limits:>6} limits: six hold, {told['known']:.2f} us for a known caller, "
            f"{told['new']:.2f} us for a new one; {told['change_ms']:.1f} ms for a change of one limit"
        )
    run.compile_tools()
    with run.mock() as mock_port, tempfile.TemporaryDirectory(prefix="faregate-limits-") as folder:
        installation = Installation(mock_port, Path(folder))
        began = time.monotonic()
        installation.make(given.keys, given.limits, given.calls)
        say(f"made {given.keys} keys, {given.limits} limits, {given.calls} calls in {time.monotonic() - began:.0f} s")
        try:
            measure(installation, given.rounds)
        except Exception:
            sys.stderr.write((Path(folder) / "faregate.log").read_text(errors="replace")[-4000:])
            raise
        finally:
            installation.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
