"""What the journal costs the gate: CPU of one intent and one settlement, the sync thread included.

Written at the pace of a busy gate (bursts with pauses), since a sync costs the same for one record as for two hundred.
Run as a program it prints the microseconds of CPU per request; with ``--recalled``, of one whose answer is given again
from the cache, which is one record.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from faregate.core.amounts import held_amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Attempt, Event, Intended, Recalled, Settled
from faregate.core.usage import Usage
from faregate.journal.append import FileJournal

BURSTS = 600
TURN_SECONDS = 0.005


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


def _recalled(n: int) -> tuple[Recalled]:
    """The one event of a hit."""
    now = time.time_ns()
    who = Attribution(
        "default", "bench-team", "bench-project", "", "", "key_01K00000000000000000000000", model="bench-model",
        service="chat.completions",
    )  # fmt: skip
    notes = '{"answer_of":"req_01K00000000000000000000000"}'
    return (Recalled(f"req_{n:026d}", now, now, who, False, 105_000, 0, 40, "bench-model", notes=notes),)


def microseconds_per_request(events: Callable[[int], Sequence[Event]], rate: int) -> float:
    """CPU of appending what one call leaves behind, at ``rate`` calls a second; median of three runs."""
    burst = max(1, round(rate * TURN_SECONDS))
    found = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            journal = FileJournal(Path(folder) / "journal", _Clock(), lambda callback: None)
            calls = [events(n) for n in range(burst)]
            before, turn = time.process_time(), time.monotonic()
            for _ in range(BURSTS):
                for call in calls:
                    for event in call:
                        journal.append(event)
                turn += TURN_SECONDS
                time.sleep(max(0.0, turn - time.monotonic()))
            used = time.process_time() - before
            journal.close()
            found.append(used * 1e6 / (BURSTS * burst))
    return sorted(found)[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--recalled", action="store_true", help="the one record of a hit of the response cache")
    parser.add_argument("--rate", type=int, default=10_000, help="calls a second (default 10000)")
    chosen = parser.parse_args()
    sys.stdout.write(f"{microseconds_per_request(_recalled if chosen.recalled else _events, chosen.rate):.3f}\n")
