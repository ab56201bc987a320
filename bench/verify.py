"""How long ``faregate verify`` takes: books and a journal of so many calls, proved by their chain and by each other.

Writes calls into a journal in a temporary folder, projects them, then measures both halves of the proof and the most
memory that the process held.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from projection import Load, _Clock, _write

from faregate.journal.projector import Projector
from faregate.journal.read import FileJournalReader
from faregate.journal.verify import verify
from faregate.storage.sqlite.opening import open_books


def _mebibytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Measure once."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--calls", type=int, default=1_000_000)
    asked.add_argument("--keys", type=int, default=20)
    asked.add_argument("--open", type=int, default=500)
    asked.add_argument("--no-journal", action="store_true", help="only the chain")
    asked.add_argument("--folder", help="where the temporary folder is made")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        _write(Path(folder) / "journal", Load(given.calls, 300, given.keys, given.open, 50))
        reader = FileJournalReader(Path(folder) / "journal")
        books = open_books(Path(folder) / "books.sqlite3", _Clock())
        projector = Projector(reader, books, lambda position: None)
        while projector.step():
            pass
        size = (Path(folder) / "books.sqlite3").stat().st_size
        before = _mebibytes()
        began, used = time.monotonic(), time.process_time()
        proof = books.prove(lambda done, total: None)
        chain_s, chain_cpu_s = time.monotonic() - began, time.process_time() - used
        middle = _mebibytes()
        began, used = time.monotonic(), time.process_time()
        checks = () if given.no_journal else verify(reader, books)
        journal_s, journal_cpu_s = time.monotonic() - began, time.process_time() - used
        books.close()
    assert not proof.faults, proof.faults
    assert not proof.derived, proof.derived
    assert all(check.ok for check in checks), checks
    sys.stdout.write(
        f"{given.calls} calls, {proof.rows} rows in {proof.entries} entries, books of {size >> 20} MiB\n"
        f"chain    {chain_s:5.1f} s ({chain_cpu_s:.1f} s CPU), memory {before} -> {middle} MiB\n"
        f"journal  {journal_s:5.1f} s ({journal_cpu_s:.1f} s CPU), memory -> {_mebibytes()} MiB\n"
    )


if __name__ == "__main__":
    main()
