"""What runs in a thread on behalf of a coroutine ends before the coroutine does."""

import asyncio
import threading

import anyio
import pytest

from faregate.console.reading import in_thread


class Slow:
    """Work that has begun and ends when it is let."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.begun = threading.Event()
        self.let = threading.Event()
        self.fault = fault
        self.ended = False

    def __call__(self) -> str:
        self.begun.set()
        self.let.wait(10)
        self.ended = True
        if self.fault is not None:
            raise self.fault
        return "done"


def test_the_result_and_the_fault_come_back() -> None:
    """Uncancelled it is a call like any other."""
    slow = Slow()
    slow.let.set()

    assert asyncio.run(in_thread(slow)) == "done"

    broken = Slow(LookupError("no such row"))
    broken.let.set()
    with pytest.raises(LookupError, match="no such row"):
        asyncio.run(in_thread(broken))


@pytest.mark.parametrize("fault", [None, LookupError("no such row")])
@pytest.mark.parametrize("orders", [1, 3])
def test_a_cancelled_task_ends_after_its_thread(orders: int, fault: Exception | None) -> None:
    """However often it is cancelled, nothing that the task held is given back while the thread still uses it."""
    slow = Slow(fault)

    async def work() -> list[bool]:
        seen: list[bool] = []

        async def holder() -> None:
            try:
                await in_thread(slow)
            finally:
                seen.append(slow.ended)

        task = asyncio.create_task(holder())
        await asyncio.to_thread(slow.begun.wait, 10)
        for _ in range(orders):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        slow.let.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return seen

    assert asyncio.run(work()) == [True]


def test_a_task_cancelled_before_its_thread_began_still_runs_it() -> None:
    """What takes something and what gives it back can be told apart by nothing but what really ran."""
    slow = Slow()
    slow.let.set()

    async def work() -> None:
        task = asyncio.create_task(in_thread(slow))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert slow.ended


def test_the_scope_of_a_deadline_waits_too() -> None:
    """A deadline of the web framework's library does not leave a thread behind."""
    slow = Slow()

    async def work() -> bool:
        with anyio.move_on_after(0.01) as scope:
            asyncio.get_running_loop().call_later(0.05, slow.let.set)
            await in_thread(slow)
            await anyio.sleep(10)
        return scope.cancelled_caught

    assert asyncio.run(work())
    assert slow.ended


def test_a_deadline_of_the_loop_is_told_after_the_thread() -> None:
    """It is late rather than wrong."""
    slow = Slow()

    async def work() -> None:
        asyncio.get_running_loop().call_later(0.05, slow.let.set)
        async with asyncio.timeout(0.01):
            await in_thread(slow)

    with pytest.raises(TimeoutError):
        asyncio.run(work())
    assert slow.ended
