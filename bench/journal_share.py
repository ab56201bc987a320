"""What the journal costs the gate: CPU of one intent and one settlement, the sync thread included.

Written at about the pace of a busy gate (bursts with pauses), since a sync costs the same for one record as for fifty.
Run as a program it prints the microseconds of CPU per request.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from faregate.core.amounts import held_amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Attempt, Intended, Settled
from faregate.core.usage import Usage
from faregate.journal.append import FileJournal

BURSTS = 600
BURST = 50
PAUSE_SECONDS = 0.005


class _Clock:
    def wall_nanos(self) -> int:
        return time.time_ns()

    def monotonic_nanos(self) -> int:
        return time.monotonic_ns()


def _events(n: int) -> tuple[Intended, Settled]:
    """The two events of an ordinary plain call."""
    name = f"req_{n:026d}"
    now = time.time_ns()
    who = Attribution(
        "default", "bench-team", "bench-project", "", "", "key_01K00000000000000000000000", model="bench-model",
        deployment="openai/bench-model", provider="openai", service="chat.completions",
    )  # fmt: skip
    intended = Intended(name, now, now, who, held_amounts(300_000, 1024, 256), "card_0123456789abcdef", False, 1024)
    attempts = (Attempt("openai/bench-model", 200, "", 800),)
    settled = Settled(
        name, now, "ok", 200, "", Usage(300, output_text=100), "provider", 105_000, 105_000, "card_0123456789abcdef",
        900, 850, attempts, "bench-model", "req_0123456789abcdef0123456789abcdef",
    )  # fmt: skip
    return intended, settled


def microseconds_per_request() -> float:
    """CPU of appending both events, median of three runs."""
    found = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            journal = FileJournal(Path(folder) / "journal", _Clock(), lambda callback: None)
            pairs = [_events(n) for n in range(BURST)]
            used = 0.0
            before = time.process_time()
            for _ in range(BURSTS):
                for intended, settled in pairs:
                    journal.append(intended)
                    journal.append(settled)
                time.sleep(PAUSE_SECONDS)
            used = time.process_time() - before
            journal.close()
            found.append(used * 1e6 / (BURSTS * BURST))
    return sorted(found)[1]


if __name__ == "__main__":
    sys.stdout.write(f"{microseconds_per_request():.3f}\n")
