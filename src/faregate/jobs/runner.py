"""Runs jobs again and again, each in its own rhythm. One that fails is logged and counted, and stops no other."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """Something to be done every ``interval_s`` seconds; a run over ``within_s`` seconds is cut off."""

    name: str
    interval_s: float
    run: Callable[[], Awaitable[None]]
    within_s: float = 60.0


class JobRunner:
    """All jobs of the console. ``jitter`` gives fractions of 0 to 1, so that restarts do not align their rhythms."""

    def __init__(self, jobs: Sequence[Job], jitter: Callable[[], float]) -> None:
        self._jobs = tuple(jobs)
        self._jitter = jitter
        #: Runs and failures by the job's name.
        self.runs: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    async def run(self) -> None:
        """Run every job in its rhythm until cancelled."""
        async with asyncio.TaskGroup() as group:
            for job in self._jobs:
                group.create_task(self._repeat(job), name=f"job-{job.name}")

    async def _repeat(self, job: Job) -> None:
        await asyncio.sleep(job.interval_s * self._jitter() * 0.5)
        while True:
            await self.once(job)
            await asyncio.sleep(job.interval_s * (0.9 + 0.2 * self._jitter()))

    async def once(self, job: Job) -> bool:
        """Run a job now; whether it went well."""
        self.runs[job.name] += 1
        try:
            async with asyncio.timeout(job.within_s):
                await job.run()
        # Whatever a job fails of, the others and the console go on; the next run may find the cause gone.
        except Exception as error:
            self.failures[job.name] += 1
            log.error("job_failed", extra={"job": job.name, "reason": f"{type(error).__name__}: {error}"})
            return False
        return True
