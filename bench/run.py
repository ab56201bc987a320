"""`make bench`: Faregate beside nginx on one core, in alternating rounds; prints a table, keeps the raw figures.

The gateway's whole process tree runs on core 0, the mock provider and the load generator on core 1. In every round each
case goes to each gateway in turn, the others standing still (SIGSTOP); ratios are taken inside a round and their median
over the rounds is told, so that a slow minute of the machine hits both sides; of 99th percentiles the best is. The main
figure is CPU time per request from /proc, since it does not depend on who else is on the machine.
``docs/performance.md`` explains the method.

    python bench/run.py [--rounds 3] [--quick] [--only CASE,…] [--gateways nginx,faregate] [--interpreted]
                        [--machine NAME,…]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import gateways
import processes
import table

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
OUT = HERE / "out"
LOAD_CORE = 1
LOAD_SECONDS_MAX = 90.0
#: Streams are all open, and have been for a while, when the memory is read.
STREAM_MEMORY_AFTER = 2.2
#: Kernel threads that reclaim and move memory, by how their names begin: the machine's work, whoever is measured.
RECLAIM = ("kdamond", "kswapd", "kcompactd", "khugepaged", "ksmd")
#: Processes that belong to the machine, too, as whoever starts the bench says (``--machine``).
MACHINE: list[str] = []


#: Gateway → case → figures.
Round = dict[str, dict[str, Any]]


class Case(NamedTuple):
    """One load: the generator's options, and the seconds that are measured."""

    name: str
    options: tuple[str, ...]
    seconds: int
    streams: int = 0


# Streams come first, while no memory was used and given back that they could hide in.
CASES = (
    Case("streams-500", ("--stream", "--connections", "500", "--warm-ms", "1500"), 4, 500),
    Case("plain-1k", ("--connections", "32", "--body", "1024", "--warm-ms", "800"), 4),
    Case("plain-20k", ("--connections", "64", "--body", "20480", "--warm-ms", "500"), 4),
    Case("rate-50", ("--connections", "64", "--rate", "50"), 5),
    Case("rate-1000", ("--connections", "128", "--rate", "1000"), 4),
    Case("rate-2000", ("--connections", "128", "--rate", "2000"), 5),
)


def compile_tools() -> None:
    """Compile the two C programs where the sources are newer.

    Raises:
        SystemExit: there is no C compiler, or it failed.
    """
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise SystemExit(f"make bench needs a C compiler ({compiler} not found): apt-get install gcc libc6-dev")
    BUILD.mkdir(exist_ok=True)
    for name in ("mock", "load"):
        source, program = HERE / f"{name}.c", BUILD / name
        newest = max(one.stat().st_mtime for one in (source, *HERE.glob("*.h")))
        if program.exists() and program.stat().st_mtime > newest:
            continue
        if subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", program, source], check=False).returncode:
            raise SystemExit(f"{source.name} does not compile")


@contextlib.contextmanager
def mock() -> Iterator[int]:
    """The mock provider on its core; gives its port."""
    command = [str(BUILD / "mock"), "--life-s", "7200"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=processes.pinned(LOAD_CORE))
    try:
        assert process.stdout
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def served(mock_port: int) -> dict[str, int]:
    """What the mock has served so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{mock_port}/mock/served", timeout=5) as answer:
        figures: dict[str, int] = json.load(answer)
        return figures


def settle(pids: Sequence[int]) -> None:
    """Wait until these processes have little left to do, such as the projection of the last calls."""
    before = processes.cost(pids).cpu_seconds
    for _ in range(40):
        time.sleep(0.5)
        now = processes.cost(pids).cpu_seconds
        if now - before < 0.05:
            return
        before = now


def machine_threads() -> list[int]:
    """The threads in whose time the 99th percentiles called "undisturbed" leave out what was under way."""
    return [*processes.kernel_threads(RECLAIM), *processes.threads(MACHINE)]


def load(gateway: gateways.Gateway, case: Case, seconds: int) -> subprocess.Popen[bytes]:
    """Start the generator on its core; its figures come as JSON."""
    command = [
        str(BUILD / "load"), "--port", str(gateway.port), "--key", gateway.key, "--model", gateways.MODEL,
        "--seconds", str(seconds), *case.options,
        "--watch", ",".join(map(str, machine_threads())),
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=processes.pinned(LOAD_CORE))


def memory_per_stream(gateway: gateways.Gateway, case: Case) -> float:
    """Kilobytes by which the gate grows for each open stream.

    In a run of its own: to read a process's memory the kernel walks all of it, and keeps a core for milliseconds.
    """
    gate = gateway.gate()
    before = processes.cost(gate).pss_kb
    with load(gateway, case, 1) as process:
        time.sleep(STREAM_MEMORY_AFTER)
        grown = processes.cost(gate).pss_kb - before
        process.communicate(timeout=LOAD_SECONDS_MAX)
    return grown / case.streams


def measure(gateway: gateways.Gateway, case: Case, quick: bool) -> dict[str, Any]:
    """Load one gateway with one case and read what it cost."""
    seconds = max(1, case.seconds // 2) if quick else case.seconds
    gate, tree = gateway.gate(), gateway.tree()
    stream_kb = memory_per_stream(gateway, case) if case.streams else 0.0
    gate_before, tree_before = processes.cost(gate), processes.cost(tree)
    stolen_before = processes.stolen_seconds(gateways.GATE_CORE)
    with load(gateway, case, seconds) as process:
        figures: dict[str, Any] = json.loads(process.communicate(timeout=LOAD_SECONDS_MAX)[0])
    stolen = processes.stolen_seconds(gateways.GATE_CORE) - stolen_before
    figures["stolen_percent"] = stolen * 100 / figures["elapsed_s"]
    gate_cpu = processes.cost(gate).cpu_seconds - gate_before.cpu_seconds
    if len(tree) > len(gate):
        settle(tree)
    tree_cpu = processes.cost(tree).cpu_seconds - tree_before.cpu_seconds
    calls = max(1, figures["ok"] + figures["non200"])
    figures["cpu_gate_us"] = gate_cpu * 1e6 / calls
    figures["cpu_tree_us"] = tree_cpu * 1e6 / calls
    if case.streams:
        figures["cpu_gate_event_us"] = gate_cpu * 1e6 / max(1, figures["events"])
        figures["cpu_tree_event_us"] = tree_cpu * 1e6 / max(1, figures["events"])
        figures["stream_kb"] = stream_kb
    return figures


def books(gateway: gateways.Faregate, served: Mapping[str, int]) -> dict[str, Any]:
    """Hold the books against what the mock served; every figure of ``error`` must be 0."""
    truth = {
        "requests": served["requests"],
        "input_tokens": served["prompt_tokens"],
        "output_tokens": served["completion_tokens"],
    }
    truth["cost_nanos"] = truth["input_tokens"] * gateways.INPUT_NANOS + truth["output_tokens"] * gateways.OUTPUT_NANOS
    booked = gateway.booked(truth["requests"])
    error = {name: booked[name] - value for name, value in truth.items()}
    error["held_nanos"] = booked["held_nanos"]
    error["verify"] = 1 - booked["verify_ok"]
    return {"truth": truth, "booked": booked, "error": error}


def journal_share(plain: dict[str, Any], *, recalled: bool) -> float:
    """The journal's CPU per request as percent of the gate's, measured apart in a process of its own.

    It is given the records of as many calls a second as the gate's CPU was measured with: a sync costs the same for one
    as for two hundred. Calls that repeat and whose answers are ``recalled`` have one record each.
    """
    program = [str(gateways.Faregate.environment / "bin/python"), str(HERE / "journal_share.py")]
    program += ["--rate", str(round(plain["rps"]))]
    done = subprocess.run(
        [*program, "--recalled"] if recalled else program,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return float(done.stdout) * 100 / float(plain["cpu_gate_us"])


def run_round(kinds: Sequence[type[gateways.Gateway]], mock_port: int, cases: Sequence[Case], quick: bool) -> Round:
    """One round: every gateway is started, and each case goes to one after the other while the others stand still.

    What is compared is thus measured seconds apart, and a gateway that waits for its turn takes no CPU from another.
    """
    found: Round = {kind.name: {} for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="faregate-bench-") as folder, contextlib.ExitStack() as running:
        turns = [Turn(kind(mock_port, Path(folder) / kind.name), found[kind.name]) for kind in kinds]
        try:
            for turn in turns:
                running.callback(turn.gateway.stop)
                with turn.taken(start=True):
                    found[turn.gateway.name]["base"] = base_memory(turn.gateway)
            for case in cases:
                for turn in turns:
                    with turn.taken():
                        found[turn.gateway.name][case.name] = figures = measure(turn.gateway, case, quick)
                    tell(turn.gateway.name, case, figures)
            for turn in turns:
                if isinstance(turn.gateway, gateways.Faregate):
                    turn.gateway.resume()
                    found[turn.gateway.name]["books"] = compared = books(turn.gateway, turn.truth)
                    say(f"  faregate   books       error {compared['error']}")
        except Exception:
            for log in Path(folder).glob("*/*.log"):
                say(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")
            raise
    return found


class Turn:
    """A gateway that runs only while it is its turn, and the truth of what the mock served it meanwhile."""

    def __init__(self, gateway: gateways.Gateway, figures: dict[str, Any]) -> None:
        self.gateway = gateway
        self.figures = figures
        self.truth: Counter[str] = Counter()

    @contextlib.contextmanager
    def taken(self, *, start: bool = False) -> Iterator[None]:
        """Let it run for the block."""
        before = served(self.gateway.mock_port)
        if start:
            self.gateway.start()
        else:
            self.gateway.resume()
        yield
        self.gateway.pause()
        self.truth.update({key: value - before[key] for key, value in served(self.gateway.mock_port).items()})


def base_memory(gateway: gateways.Gateway) -> dict[str, Any]:
    """Memory just after the start, in megabytes."""
    return {
        "gate_mb": processes.cost(gateway.gate()).pss_kb / 1024,
        "tree_mb": processes.cost(gateway.tree()).pss_kb / 1024,
    }


def say(line: str) -> None:
    """One line of progress, at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def tell(name: str, case: Case, figures: dict[str, Any]) -> None:
    """One line of progress per case."""
    parts = [
        f"  {name:10s} {case.name:11s} {figures['rps']:9.1f}/s",
        f"p50 {figures['p50_us']:8.1f}  p99 {figures['p99_us']:8.1f} / {figures['undisturbed_p99_us'] or '-'}",
        f"cpu {figures['cpu_gate_us']:6.1f} (tree {figures['cpu_tree_us']:6.1f}) µs",
    ]
    if case.streams:
        parts.append(f"{figures['events_per_s']:.0f} ev/s of {figures['cpu_gate_event_us']:.2f} µs")
        first = (figures[f"{name}_us"] for name in ("ttft_p50", "ttft_p99", "undisturbed_ttft_p99"))
        parts.append(f"ttft {' / '.join(str(value or '-') for value in first)} µs")
        parts.append(f"{figures['stream_kb']:.1f} KB/stream")
    if figures["stolen_percent"] >= 0.5:
        parts.append(f"STOLEN by the hypervisor: {figures['stolen_percent']:.1f} %")
    parts += [f"{key} {figures[key]}" for key in ("non200", "errors", "incomplete") if figures[key]]
    say("  ".join(parts))


def faults(rounds: table.Rounds) -> list[str]:
    """Calls that went wrong anywhere: a bench with failed calls measures something else."""
    return [
        f"round {n + 1}: {gateway} {case}: {key} = {figures[key]}"
        for n, one in enumerate(rounds)
        for gateway, cases in one.items()
        for case, figures in cases.items()
        for key in ("non200", "errors", "incomplete")
        if figures.get(key)
    ]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Faregate beside nginx on one core, in alternating rounds.")
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (default 3)")
    parser.add_argument("--quick", action="store_true", help="one round of half the time: a look, not a measurement")
    parser.add_argument("--only", default="", help="comma-separated cases: " + ", ".join(case.name for case in CASES))
    parser.add_argument("--gateways", default="direct,nginx,faregate", help="which ones (default all three)")
    parser.add_argument("--interpreted", action="store_true", help="Faregate as its sources stand, not as its wheel")
    parser.add_argument("--cached", action="store_true", help="Faregate with a pool of four and the response cache on")
    parser.add_argument(
        "--machine", default="", help="names of processes whose time counts as the kernel's reclaim does"
    )
    chosen = parser.parse_args()
    MACHINE.extend(name for name in chosen.machine.split(",") if name)
    if chosen.interpreted:
        gateways.Faregate.environment = gateways.ROOT / ".venv"
    if chosen.cached:
        gateways.Faregate.more = gateways.Caching.more
    wanted = [name for name in chosen.only.split(",") if name]
    unknown = set(wanted) - {case.name for case in CASES} | set(chosen.gateways.split(",")) - set(gateways.GATEWAYS)
    if unknown or chosen.rounds < 1:
        parser.error(f"not known: {', '.join(sorted(unknown))}" if unknown else "--rounds must be at least 1")
    chosen.cases = [case for case in CASES if not wanted or case.name in wanted]
    chosen.kinds = [gateways.GATEWAYS[name] for name in chosen.gateways.split(",")]
    return chosen


def main() -> int:
    """Run the bench; 1 when calls failed or the books are wrong, whatever the speed."""
    chosen = arguments()
    if not sys.platform.startswith("linux") or len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("make bench needs Linux and two cores: one for the gateway, one for the load")
    if gateways.Nginx in chosen.kinds:
        gateways.nginx_program()
    compile_tools()
    rounds: list[Round] = []
    with mock() as mock_port:
        for n in range(1 if chosen.quick else chosen.rounds):
            say(f"round {n + 1}")
            rounds.append(run_round(chosen.kinds, mock_port, chosen.cases, chosen.quick))
    for one in rounds:
        if "plain-1k" in one.get("faregate", {}):
            plain = one["faregate"]["plain-1k"]
            one["faregate"]["base"]["journal_share"] = journal_share(plain, recalled=chosen.cached)
    lines = table.rows(rounds)
    if (books_row := table.accounting(rounds)) is not None:
        lines.append(books_row)
    text = table.markdown(lines)
    OUT.mkdir(exist_ok=True)
    when = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    machine = {
        "interpreted": chosen.interpreted,
        "cached": chosen.cached,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "left_out": [*RECLAIM, *MACHINE],
    }
    report = {"when": when, "machine": machine, "rounds": rounds, "table": [row._asdict() for row in lines]}
    (OUT / f"{when}.json").write_text(json.dumps(report, indent=1))
    (OUT / "latest.md").write_text(text + "\n")
    sys.stdout.write(text + "\n")
    wrong = faults(rounds)
    sys.stdout.write("".join(f"FAILED CALLS {line}\n" for line in wrong))
    return 1 if wrong or (books_row is not None and books_row.met != "yes") else 0


if __name__ == "__main__":
    raise SystemExit(main())
