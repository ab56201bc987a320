"""A loop stops at the brake, seen from outside: the gate, the console, the command line and a restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from installation import VISIBLE_SECONDS, Installation, nanos
from system.calls import ask, body, new_key, until

DOLLAR = 10**9

#: What the gate wants to know is asked for once a second.
LOOKED_UP_SECONDS = 3.0

#: A call of a hundred tokens costs a dollar.
DEAR = {"sim-1": ("0", "10000")}


@pytest.fixture(scope="module")
def dear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with the brake as everybody has it."""
    folder: Path = tmp_path_factory.mktemp("brake")
    with Installation(folder, prices=DEAR) as installation:
        yield installation


def _brakes(dear: Installation) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = dear.cli("limit", "list")
    return [row for row in rows if row["source"] == "brake"]


def _dollar(text: str) -> dict[str, Any]:
    return body(text, max_tokens=100, output_tokens=100)


def _passes(dear: Installation, secret: str, calls: int) -> list[int]:
    return [ask(dear, secret, _dollar(f"Call {n}.")).status for n in range(calls)]


def test_a_loop_that_would_cost_47000_dollars_stops_at_the_brake(dear: Installation) -> None:
    """After fifty dollars on a new key; as a limit with a reason, which a restart keeps and a person lifts."""
    key = new_key(dear, "loop")
    ask(dear, key["secret"], _dollar("The first."))
    # The console looks up its past, which it has not.
    time.sleep(LOOKED_UP_SECONDS)
    spent = DOLLAR
    for n in range(47_000):
        answer = ask(dear, key["secret"], _dollar(f"Answer {n}."))
        if answer.status != 200:
            break
        spent += nanos(answer.headers["x-faregate-cost"])

    assert (answer.status, answer.code) == (429, "rate_limited")
    assert answer.headers["x-should-retry"] == "true"
    assert "more than $50.00; it has no past to compare with" in answer.json["error"]["message"]
    assert 50 * DOLLAR < spent <= 60 * DOLLAR

    (row,) = until(lambda: _brakes(dear), lambda rows: len(rows) == 1, 5.0)

    assert (row["select"], row["unit"], row["amount"], row["window"]) == ({"key": key["id"]}, "requests", 1, "minute")

    dear.kill_gate()
    time.sleep(0.5)
    dear.wait_ready()
    after_restart = _passes(dear, key["secret"], 3)

    assert after_restart[-1] == 429

    dear.cli("limit", "clear", row["id"])
    let_go = until(lambda: _passes(dear, key["secret"], 5), lambda statuses: statuses == [200] * 5, VISIBLE_SECONDS)

    assert let_go == [200] * 5


def test_other_keys_never_notice(dear: Installation) -> None:
    """Thirty dollars in a row are what a new key may spend."""
    key = new_key(dear, "honest")

    assert _passes(dear, key["secret"], 30) == [200] * 30
