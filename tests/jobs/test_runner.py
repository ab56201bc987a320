"""The runner of jobs."""

import asyncio

from faregate.jobs.runner import Job, JobRunner


def test_a_job_that_fails_is_counted_and_stops_no_other() -> None:
    """The next run of each goes on."""
    ran: list[str] = []

    async def bad() -> None:
        ran.append("bad")
        raise RuntimeError("broken")

    async def good() -> None:
        ran.append("good")

    async def work() -> JobRunner:
        runner = JobRunner([Job("bad", 0.01, bad), Job("good", 0.01, good)], lambda: 0.5)
        running = asyncio.create_task(runner.run())
        async with asyncio.timeout(5):
            while ran.count("bad") < 3 or ran.count("good") < 3:  # noqa: ASYNC110 - jobs tell nobody
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return runner

    runner = asyncio.run(work())
    assert runner.failures["bad"] >= 2
    assert runner.failures["good"] == 0
    assert runner.runs["good"] >= 3


def test_a_job_that_hangs_is_cut_off() -> None:
    """A run has an end, whatever it waits for."""

    async def hang() -> None:
        await asyncio.Event().wait()

    async def work() -> bool:
        return await JobRunner([], lambda: 0.0).once(Job("hang", 1, hang, within_s=0.01))

    assert asyncio.run(work()) is False
