"""`make bench-cache`: what a pool of four deployments and the response cache add to a call, and what a hit costs.

Faregate as in ``run.py``, with a pool, and with a pool and the cache, beside nginx: calls that are all different, which
are looked up and kept, and the same call again and again, of which all but the first are hits. Told is the CPU time of
the gate's process per call, and each over nginx and over Faregate without either, as medians of ratios inside a round.

    python bench/cached.py [--rounds 3] [--interpreted]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import gateways
import run

KINDS: tuple[type[gateways.Gateway], ...] = (
    gateways.Nginx,
    gateways.Faregate,
    gateways.Pooled,
    gateways.Caching,
)
DIFFERENT = (
    run.Case("different-1k", ("--connections", "32", "--body", "1024", "--warm-ms", "800", "--vary"), 4),
    run.Case("different-20k", ("--connections", "64", "--body", "20480", "--warm-ms", "500", "--vary"), 4),
)
SAME = (
    run.Case("same-1k", ("--connections", "32", "--body", "1024", "--warm-ms", "800"), 4),
    run.Case("same-20k", ("--connections", "64", "--body", "20480", "--warm-ms", "500"), 4),
)

Figures = dict[tuple[str, str], dict[str, Any]]


def one_round(mock_port: int) -> Figures:
    """Each case at each gateway in turn, while the others stand still."""
    found: Figures = {}
    with tempfile.TemporaryDirectory(prefix="faregate-bench-") as folder, contextlib.ExitStack() as running:
        started = []
        for kind in KINDS:
            gateway = kind(mock_port, Path(folder) / kind.name)
            running.callback(gateway.stop)
            gateway.start()
            gateway.pause()
            started.append(gateway)
        for case in (*DIFFERENT, *SAME):
            for gateway in started:
                gateway.resume()
                before = run.served(mock_port)["requests"]
                figures = found[gateway.name, case.name] = run.measure(gateway, case, quick=False)
                figures["asked"] = run.served(mock_port)["requests"] - before
                gateway.pause()
                run.tell(gateway.name, case, figures)
        for gateway in started:
            if isinstance(gateway, gateways.Faregate):
                gateway.resume()
                if gateway.cli("verify")["ok"] is not True:
                    raise SystemExit(f"{gateway.name}: the books do not hold")
                gateway.pause()
    return found


def _most_asked(case: str) -> float:
    """Of the same call each connection may ask once before its answer is kept."""
    return 64 if case.startswith("same") else float("inf")


def ratio(rounds: list[Figures], gateway: str, case: str, to: str, to_case: str = "") -> float:
    """The median of the CPU per call over another gateway's, inside a round."""
    name = "cpu_gate_us"
    return statistics.median(one[gateway, case][name] / one[to, to_case or case][name] for one in rounds)


def main() -> int:
    """Run it; 1 where calls failed, or where the cache did not do what is measured."""
    parser = argparse.ArgumentParser(description="What a pool and the response cache add, and what a hit costs.")
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (default 3)")
    parser.add_argument("--interpreted", action="store_true", help="Faregate as its sources stand, not as its wheel")
    chosen = parser.parse_args()
    if chosen.interpreted:
        gateways.Faregate.environment = gateways.ROOT / ".venv"
    gateways.nginx_program()
    run.compile_tools()
    rounds: list[Figures] = []
    with run.mock() as mock_port:
        for n in range(max(1, chosen.rounds)):
            run.say(f"round {n + 1}")
            rounds.append(one_round(mock_port))
    lines = ["| gate's CPU per call | over nginx | over Faregate alone |", "| --- | ---: | ---: |"]
    for size in ("1k", "20k"):
        for gateway, case in (
            ("faregate", f"different-{size}"),
            ("pooled", f"different-{size}"),
            ("caching", f"different-{size}"),
            ("caching", f"same-{size}"),
        ):
            over = ratio(rounds, gateway, case, "nginx")
            alone = ratio(rounds, gateway, case, "faregate")
            lines.append(f"| {gateway}, {case} | {over:.2f} × | {alone:.2f} × |")
    sys.stdout.write("\n".join(lines) + "\n")
    bad = [
        f"{gateway} {case}: {figures}"
        for one in rounds
        for (gateway, case), figures in one.items()
        if figures["non200"] or figures["errors"] or (gateway == "caching" and figures["asked"] > _most_asked(case))
    ]
    sys.stdout.write("".join(f"WRONG {line}\n" for line in bad))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
