"""The look for an answer before the loop sleeps: how long it is, and when it is not worth it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from faregate.proxy.answer_watch import TRY_EVERY, TURNS, VAIN_MAX, AnswerWatch
from gates import running_gate, scenario, steered


class Loop:
    """A loop of turns that somebody else takes, one at a time."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def turns(self) -> int:
        """Take turns until the loop would sleep; returns how many."""
        taken = 0
        while self.soon:
            (now,) = self.soon
            self.soon.clear()
            now()
            taken += 1
        return taken


def looks(watch: AnswerWatch, loop: Loop, calls: int) -> int:
    """How many of so many calls, whose answers come late, are looked for."""
    found = 0
    for _ in range(calls):
        watch.sent()
        found += loop.turns() > 0
        watch.came()
    return found


def test_a_look_ends_when_the_answer_is_there() -> None:
    """The loop may sleep at the next turn, however early that is."""
    loop = Loop()
    watch = AnswerWatch(loop.soon.append)
    watch.sent()
    loop.soon.pop()()
    watch.came()

    assert loop.turns() == 1


def test_a_look_in_vain_is_short_and_many_are_given_up() -> None:
    """After some, only one request in many is looked for."""
    loop = Loop()
    watch = AnswerWatch(loop.soon.append)
    watch.sent()
    first = loop.turns()
    others = looks(watch, loop, VAIN_MAX - 1)

    assert first == TURNS
    assert others == VAIN_MAX - 1
    assert looks(watch, loop, 10 * TRY_EVERY) == 10


def test_a_provider_that_becomes_fast_is_looked_for_again() -> None:
    """One try that was worth it is enough for the next one, and each makes the trust greater."""
    loop = Loop()
    watch = AnswerWatch(loop.soon.append)
    looks(watch, loop, VAIN_MAX)
    waited = 0
    while not loop.soon:
        watch.sent()
        waited += 1
    for _ in range(20):
        watch.came()
        loop.turns()
        watch.sent()
        assert loop.soon

    assert waited == TRY_EVERY


@given(st.lists(st.sampled_from(["sent", "came", "turn"]), max_size=600))
def test_whatever_comes_the_loop_sleeps_in_the_end(steps: list[str]) -> None:
    """There is one look at a time, and none lasts longer than its turns after the last request."""
    loop = Loop()
    watch = AnswerWatch(loop.soon.append)
    for step in steps:
        if step == "sent":
            watch.sent()
        elif step == "came":
            watch.came()
        elif loop.soon:
            loop.soon.pop()()
        assert len(loop.soon) <= 1

    assert loop.turns() <= TURNS


@scenario
async def test_a_gate_sleeps_while_its_provider_thinks(tmp_path: Path) -> None:
    """A call that is under way for long keeps the loop awake for a moment alone."""
    async with running_gate(tmp_path) as running:
        call = asyncio.create_task(running.chat(steered(first_delay_ms=600)))
        await asyncio.sleep(0.3)
        before = time.process_time()
        await asyncio.sleep(0.2)
        used = time.process_time() - before
        assert (await call).status_code == 200

    # An awake loop would have used all of it.
    assert used < 0.1
