"""What admission costs among very many limits, in CPU time of one process: prints JSON for ``limits.py``.

``known``      microseconds of reserve and settle for a caller that asks again and again, six limits holding
``new``        the same with the look-up of its limits, as for the first call of a key
``change_ms``  milliseconds in which the gate takes up a change of one limit, during which no call is admitted
"""

from __future__ import annotations

import json
import sys
import time

import limits as bench

from faregate.control import Limit
from faregate.control import compiled as compile_limit
from faregate.core.amounts import held_amounts, posted_amounts
from faregate.core.limits.admit import Allowances, LimitRefusal, Standing
from faregate.core.limits.index import CompiledLimit, LimitIndex
from faregate.core.usage import Usage

KEYS = 100_000
CALLS = 20_000
ROUNDS = 5
WHO = bench.OWN._replace(
    key="key_own", model="gpt-4o", deployment="openai/gpt-4o", provider="openai", service="chat.completions"
)


def compiled(count: int) -> list[CompiledLimit]:
    rows = [bench.limit_row(n, KEYS) for n in range(count - len(bench.OWN_LIMITS))]
    for n, (selector, unit, amount, window) in enumerate(bench.OWN_LIMITS):
        chosen = {name: value.replace("KEY", WHO.key) for name, value in selector.items()}
        rows.append(bench.whole_limit(bench.OWN_LIMIT_IDS[n], chosen, unit, amount, window))
    return [
        compile_limit(Limit(row["id"], row["selector"], tuple(row["each"]), row["unit"], row["amount"], row["window"]))
        for row in rows
    ]


def best(measure: object, calls: int) -> float:
    """Microseconds per call of the fastest of some rounds."""
    found = []
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        measure(calls)  # type: ignore[operator]
        found.append((time.thread_time_ns() - began) / calls / 1_000)
    return min(found)


def main() -> None:
    rows = compiled(int(sys.argv[1]))
    index, allowances, now = LimitIndex(rows), Allowances(), time.time_ns()
    for id in allowances.replace_limits(index, now):
        allowances.open_balance(id, (), now)
    held, posted = held_amounts(300_000, 1_024, 256), posted_amounts(120_000, Usage(400, 0, 0, 0, 120))
    standing = Standing(WHO, index.matching(WHO))
    assert len(standing.limits) == len(bench.OWN_LIMITS)

    def known(calls: int) -> None:
        for _ in range(calls):
            reservation = allowances.reserve("req_1", standing, held, now)
            assert not isinstance(reservation, LimitRefusal)
            allowances.settle(reservation, posted)

    def new(calls: int) -> None:
        for n in range(calls):
            # Every call by another key's owner would look up other values; this one is forgotten each time.
            who = WHO._replace(user=f"user {n}")
            reservation = allowances.reserve("req_1", Standing(who, index.matching(who)), held, now)
            assert not isinstance(reservation, LimitRefusal)
            allowances.settle(reservation, posted)

    def change(calls: int) -> None:
        nonlocal index
        for n in range(calls):
            key = {"key": WHO.key}
            row = compile_limit(Limit(bench.OWN_LIMIT_IDS[4], key, (), "usd", 10**14 + n, "lifetime"))
            index = index.changed([row])
            allowances.replace_limits(index, now)

    figures = {"known": best(known, CALLS), "new": best(new, CALLS), "change_ms": best(change, 20) / 1_000}
    sys.stdout.write(json.dumps(figures))


if __name__ == "__main__":
    main()
