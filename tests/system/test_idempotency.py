"""A call repeated under its ``Idempotency-Key`` reaches the provider once and is charged once, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import httpx2

from installation import Installation, nanos
from system.calls import (
    CALL_SECONDS,
    Answer,
    ask,
    ask_all,
    body,
    new_key,
    new_limit,
    record_count,
    truth_cost,
    until,
    until_async,
)


def _again(name: str) -> dict[str, Any]:
    return {"headers": {"idempotency-key": name}}


def _dispatched(running: Installation) -> int:
    return int(running.simulator("GET", "state")["dispatched"])


def test_a_repeated_call_is_replayed_and_not_charged_again(running: Installation) -> None:
    """The same key and body give the stored answer, plain and streamed; another body is 409."""
    key = new_key(running, "again")
    limit = new_limit(running, {"key": key["id"]}, "usd", "1")
    before = _dispatched(running)

    plain = [ask(running, key["secret"], body("one"), **_again("plain-1")) for _ in range(3)]
    streams = [ask(running, key["secret"], body("two", stream=True), **_again("stream-1")) for _ in range(3)]
    other = ask(running, key["secret"], body("another"), **_again("plain-1"))

    charged = {row["id"]: nanos(row["charge"]) for row in record_count(running, 2, key=key["id"])}
    posted = nanos(running.admin("GET", f"/api/v1/limits/{limit['id']}")["posted"])
    assert [answer.status for answer in plain + streams] == [200] * 6
    assert (len({answer.text for answer in plain}), len({answer.text for answer in streams})) == (1, 1)
    assert (other.status, other.code) == (409, "idem_conflict")
    assert _dispatched(running) - before == 2
    assert posted == sum(charged.values())
    assert sum(charge > 0 for charge in charged.values()) == 2


def test_of_calls_at_the_same_time_one_is_dispatched(running: Installation) -> None:
    """While the first is under way the others are told so with 409, and then replayed."""
    key = new_key(running, "at once")
    before = _dispatched(running)

    async def crowd() -> list[Answer]:
        answered: list[Answer] = []
        content = body("three", hold=True)
        calls = asyncio.create_task(ask_all(running, key["secret"], [content] * 5, answered, **_again("once-1")))
        await until_async(lambda: len(answered), lambda count: count >= 4, 10)
        running.simulator("POST", "release")
        return await calls

    answers = asyncio.run(crowd())

    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409]
    assert {answer.code for answer in answers if answer.status == 409} == {"idem_in_progress"}
    assert _dispatched(running) - before == 1
    assert ask(running, key["secret"], body("three", hold=True), **_again("once-1")).status == 200
    assert _dispatched(running) - before == 1


def test_a_call_cut_by_a_kill_is_never_sent_a_second_time(tmp_path: Path) -> None:
    """After kill -9 in the middle of a call, its repeat is 409 and names it; finished calls are still replayed."""
    with Installation(tmp_path) as running:
        key = new_key(running, "killed")
        done = ask(running, key["secret"], body("four"), **_again("done-1"))
        content = body("five", hold=True)

        def cut() -> None:
            # The gateway is killed in the middle: that is the test.
            with contextlib.suppress(httpx2.HTTPError):
                ask(running, key["secret"], content, **_again("cut-1"))

        caller = threading.Thread(target=cut)
        caller.start()
        until(lambda: running.simulator("GET", "state")["held"], lambda held: held == 1, 10)
        running.kill_all()
        caller.join(CALL_SECONDS)
        running.start()
        repeated = [ask(running, key["secret"], content, **_again("cut-1")) for _ in range(2)]
        replayed = ask(running, key["secret"], body("four"), **_again("done-1"))
        verified = running.settled()
        truth = running.truth()
        rows = record_count(running, 2, key=key["id"])

    assert [answer.status for answer in repeated] == [409, 409]
    assert {answer.code for answer in repeated} <= {"idem_completed", "idem_in_progress"}
    assert (replayed.status, replayed.text) == (200, done.text)
    assert len(truth) == 2
    assert (verified["ok"], verified["held"], verified["unknown"]) == (True, "0", "0")
    assert sum(nanos(row["charge"]) for row in rows) == sum(map(truth_cost, truth))
