"""`make soak`: the chaos run at length, 100 kills and more; prints one line per guarantee.

python tests/chaos/soak.py [--kills 100] [--seed N] [--clients 24] [--durability process|power]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chaos.evidence import Finding, check
from chaos.rig import Plan, run_faregate, run_naive


def tell(title: str, findings: list[Finding]) -> None:
    """One line per guarantee."""
    sys.stdout.write("\n".join([title, *map(str, findings), ""]))
    sys.stdout.flush()


def main() -> int:
    """Run the long form; 1 when a guarantee broke or the checker did not find out the naive gateway."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--durability", choices=("process", "power"), default="process")
    chosen = parser.parse_args()
    plan = Plan(kills=chosen.kills, seed=chosen.seed, clients=chosen.clients, durability=chosen.durability)
    # Longer lives than in `make test`, and every third kill takes the whole process tree.
    plan = plan._replace(life=(0.15, 1.1), tree_every=3)
    # Reached somewhere in the middle, so that both a spent and an open limit are killed under.
    plan = plan._replace(tight=f"{0.008 * chosen.kills:.2f}")
    with tempfile.TemporaryDirectory(prefix="faregate-soak-") as folder:
        started = time.monotonic()
        found = check(run_faregate(Path(folder) / "faregate", plan))
        tell(f"faregate: {plan.kills} kills, seed {plan.seed}, {time.monotonic() - started:.0f} s", found)
        control = check(run_naive(Path(folder) / "naive", plan._replace(kills=10, tight="0.05")))
        tell("negative control (must break G1, G2, G3 and G6):", control)
    caught = {"G1", "G2", "G3", "G6"} <= {finding.guarantee for finding in control if not finding.held}
    return 0 if caught and all(finding.held for finding in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
