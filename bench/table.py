"""From raw measurements to the table: ratios inside a round, then the median over the rounds. Pure.

The 99th percentiles are the best of the rounds, on both sides: a stall of the machine (its memory reclaim, its
hypervisor) takes a hundredth of a round at once, and says nothing about who was being measured. They are told over all
requests, and over those that met no run of the kernel's memory reclaim ("undisturbed"; reclaim.h has the rule).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

#: Raw figures of one case of one gateway in one round, as ``run.measure`` makes them.
Figures = Mapping[str, Any]
#: Round → gateway → case → figures.
Rounds = Sequence[Mapping[str, Mapping[str, Figures]]]


class Row(NamedTuple):
    """One line of the table: what nginx and Faregate need, and Faregate over nginx."""

    measure: str
    unit: str
    nginx: float | None
    faregate: float | None
    ratio: float | None
    goal: str
    ambition: str
    met: str


class Goal(NamedTuple):
    """A measure, how it is read from one gateway's figures in one round, and what it must reach.

    ``relative`` goals bound the ratio to nginx inside a round, the others bound Faregate's own figure.
    """

    measure: str
    unit: str
    case: str
    read: Callable[[Figures, Figures], float | None]
    relative: bool = True
    at_least: float | None = None
    ambition: float | None = None

    #: The smallest figures count, instead of the median.
    best: bool = False


def _figure(name: str) -> Callable[[Figures, Figures], float | None]:
    return lambda own, direct: own.get(name)


def _added(name: str) -> Callable[[Figures, Figures], float | None]:
    """What the gateway adds to the figure that the mock and the generator have without it."""

    def added(own: Figures, direct: Figures) -> float | None:
        with_it, without = own.get(name), direct.get(name)
        return None if with_it is None or without is None else float(with_it - without)

    return added


GOALS = (
    Goal("CPU per request, 1 KB, gate process", "µs", "plain-1k", _figure("cpu_gate_us"), True, 3.0, 2.0),
    Goal("CPU per request, 20 KB, gate process", "µs", "plain-20k", _figure("cpu_gate_us"), True, 3.0, 2.0),
    Goal("CPU per request, 1 KB, whole tree with projection", "µs", "plain-1k", _figure("cpu_tree_us"), True, 4.5, 3.0),
    Goal("CPU per request, 20 KB, whole tree", "µs", "plain-20k", _figure("cpu_tree_us"), True, 4.5, 3.0),
    Goal("requests/s, closed loop, 1 KB", "1/s", "plain-1k", _figure("rps")),
    Goal("requests/s, closed loop, 20 KB", "1/s", "plain-20k", _figure("rps")),
    Goal("added p50 at 50/s", "µs", "rate-50", _added("p50_us")),
    Goal("added p99 at 50/s", "µs", "rate-50", _added("p99_us"), best=True),
    Goal("added p50 at 1000/s", "µs", "rate-1000", _added("p50_us")),
    Goal("added p99 at 1000/s", "µs", "rate-1000", _added("p99_us"), best=True),
    Goal("added p50 at 2000/s", "µs", "rate-2000", _added("p50_us"), True, 2.0, 1.3),
    Goal("added p99 at 2000/s, all", "µs", "rate-2000", _added("p99_us"), True, 2.0, 1.3, True),
    Goal("added p99 at 2000/s, undisturbed", "µs", "rate-2000", _added("undisturbed_p99_us"), True, 2.0, 1.3, True),
    Goal("left out as disturbed, 2000/s", "%", "rate-2000", _figure("left_out_percent")),
    Goal("CPU per SSE event, 500 streams, gate", "µs", "streams-500", _figure("cpu_gate_event_us"), True, 1.8, 1.2),
    Goal("CPU per SSE event, 500 streams, tree", "µs", "streams-500", _figure("cpu_tree_event_us")),
    Goal("added time to first token p50, 500 streams", "µs", "streams-500", _added("ttft_p50_us")),
    Goal("added time to first token p99, all", "µs", "streams-500", _added("ttft_p99_us"), True, 2, 1.4, True),
    Goal(
        "added time to first token p99, undisturbed",
        "µs",
        "streams-500",
        _added("undisturbed_ttft_p99_us"),
        True,
        2,
        1.4,
        True,
    ),
    Goal("left out as disturbed, first tokens", "%", "streams-500", _figure("left_out_ttft_percent")),
    Goal("delay of an event p99, all", "µs", "streams-500", _figure("event_p99_us"), False, 5000, best=True),
    Goal(
        "delay of an event p99, undisturbed",
        "µs",
        "streams-500",
        _figure("undisturbed_event_p99_us"),
        False,
        5000,
        best=True,
    ),
    Goal("left out as disturbed, events", "%", "streams-500", _figure("left_out_event_percent")),
    Goal("core stolen by the hypervisor, 2000/s", "%", "rate-2000", _figure("stolen_percent")),
    Goal("core stolen by the hypervisor, 500 streams", "%", "streams-500", _figure("stolen_percent")),
    Goal("memory per open stream, gate process", "KB", "streams-500", _figure("stream_kb"), False, 12, 6),
    Goal("base memory, gate process", "MB", "base", _figure("gate_mb"), False, 60, 30),
    Goal("base memory, whole tree", "MB", "base", _figure("tree_mb")),
    Goal("journal's share of the gate's CPU per request", "%", "base", _figure("journal_share"), False, 15, 8),
)  # fmt: skip


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _least(figures: Iterable[Figures]) -> Figures:
    """The smallest of each figure, where it is known."""
    least: dict[str, Any] = {}
    for one in figures:
        for name, value in one.items():
            if value is not None:
                least[name] = min(value, least.get(name, value))
    return least


def _ratio(own: float | None, yardstick: float | None) -> float | None:
    """No ratio where the yardstick added nothing that could be measured."""
    return own / yardstick if own is not None and yardstick is not None and yardstick > 0 else None


def _verdict(goal: Goal, value: float | None) -> str:
    if goal.at_least is None or value is None:
        return ""
    if goal.ambition is not None and value <= goal.ambition:
        return "ambition"
    return "yes" if value <= goal.at_least else "NO"


def rows(rounds: Rounds) -> list[Row]:
    """The table of all goals that the rounds say something about."""
    made = []
    for goal in GOALS:
        seen: dict[str, list[float | None]] = {"nginx": [], "faregate": []}
        for one in rounds:
            direct = one.get("direct", {}).get(goal.case, {})
            for gateway, values in seen.items():
                own = one.get(gateway, {}).get(goal.case)
                values.append(goal.read(own, direct) if own else None)
        if goal.best:
            direct = _least(one.get("direct", {}).get(goal.case, {}) for one in rounds)
            least = {name: _least(one.get(name, {}).get(goal.case, {}) for one in rounds) for name in seen}
            nginx, faregate = (goal.read(own, direct) if own else None for own in least.values())
            ratio = _ratio(faregate, nginx)
        else:
            nginx, faregate = _median(seen["nginx"]), _median(seen["faregate"])
            ratio = _median(_ratio(own, yard) for own, yard in zip(seen["faregate"], seen["nginx"], strict=True))
        if nginx is None and faregate is None:
            continue
        sign = " ×" if goal.relative else f" {goal.unit}"
        made.append(
            Row(
                goal.measure,
                goal.unit,
                nginx,
                faregate,
                ratio,
                "" if goal.at_least is None else f"≤ {goal.at_least:g}{sign}",
                "" if goal.ambition is None else f"≤ {goal.ambition:g}{sign}",
                _verdict(goal, ratio if goal.relative else faregate),
            )
        )
    return made


def accounting(rounds: Rounds) -> Row | None:
    """The sum over all rounds of how far the books are from what the mock served, in every unit and either way."""
    errors = [one["faregate"]["books"]["error"] for one in rounds if "books" in one.get("faregate", {})]
    if not errors:
        return None
    total = sum(abs(value) for error in errors for value in error.values())
    return Row(
        "accounting error: books − served", "", None, float(total), None, "0", "0", "yes" if total == 0 else "NO"
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


def markdown(table: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| measure | nginx | Faregate | Faregate ÷ nginx | at least | ambition | reached |",
        "| --- | ---: | ---: | ---: | --- | --- | --- |",
    ]
    for row in table:
        unit = f" ({row.unit})" if row.unit else ""
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} ×"
        cells = (row.measure + unit, _number(row.nginx), _number(row.faregate), ratio, row.goal, row.ambition, row.met)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
