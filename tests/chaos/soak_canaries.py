"""`make soak`: a hundred thousand mixed requests full of canaries, none of which is found in any output afterwards.

python tests/chaos/soak_canaries.py [--requests 100000] [--clients 24] [--seed N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chaos.canaries import run


def main() -> int:
    """Run it; 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    chosen = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faregate-canaries-") as folder:
        found = run(Path(folder), chosen.requests, chosen.clients, chosen.seed)
    places = Counter(f"{hit.what} in {hit.where}" for hit in found.hits)
    for text in (*map(str, found.hits[:20]), *found.faults[:20]):
        print(f"  {text[:900]}")
    print(f"  {', '.join(f'{place} x{count}' for place, count in places.most_common(30))}" if places else "  no hit")
    print("  " + ", ".join(f"{kind} {count}" for kind, count in found.kinds.most_common()))
    print("  answers: " + ", ".join(f"{status or 'none'} {count}" for status, count in sorted(found.statuses.items())))
    print("  searched: " + ", ".join(f"{where} {size / 1e6:.1f} MB" for where, size in found.searched.items()))
    held = not found.hits and not found.faults
    print(
        f"G18 {'held' if held else 'BROKEN'}: {found.requests} requests, {len(found.hits)} hits, "
        f"{len(found.faults)} faults, seed {chosen.seed}, {time.monotonic() - started:.0f} s"
    )
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
