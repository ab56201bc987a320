"""Makes batches run: answers their lines when they are due, writes the truth of each, then lets the batch end.

A line is a call like any other: it is read, planned and answered by the speaker of its path, and leaves a record of its
own in the truth log, under the request id of the batch. A batch is never seen to have ended before that is on disk, and
until then a lookup of its request id is told to come again.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from faregate.simulator.asks import AskInvalid
from faregate.simulator.exchange import Call, record_of
from faregate.simulator.http1 import Request
from faregate.simulator.plan import Plan, make
from faregate.simulator.routes import route_of
from faregate.simulator.speakers import Speaker
from faregate.simulator.speakers.openai_batches import Batch, Done, Line, batch_of
from faregate.simulator.steering import Script, ScriptInvalid, steer
from faregate.simulator.truth import Record, TruthLog


class Inside(Protocol):
    """What running batches need of the simulator."""

    truth: TruthLog
    script: Script | None
    open_calls: dict[str, int]

    async def held(self) -> None:
        """Wait until the held answers are released."""
        ...

    @property
    def holding(self) -> bool:
        """Whether every answer is held."""
        ...

    def turn(self, fault: str) -> int:
        """How many calls had this fault before."""
        ...

    def ended(self, call: Call) -> None:
        """A call is over and its record is on disk."""
        ...

    def now(self) -> str:
        """The time, RFC 3339 in UTC."""
        ...


class _Waiting(NamedTuple):
    """A batch that has not ended: the call that began it, when, and what ends it."""

    call: Call
    since: float
    timer: asyncio.TimerHandle


class BatchClerk:
    """Sees to all batches of one simulator."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        #: What waits for its time, by the batch's id.
        self._waiting: dict[str, _Waiting] = {}

    def look_at(self, call: Call, plan: Plan) -> None:
        """See whether a call begins a batch or cancels one."""
        batch = batch_of(plan)
        if batch is None or not batch.running:
            return
        loop = asyncio.get_running_loop()
        if not batch.begun:
            batch.begun = True
            # It is being answered until it has ended.
            open_calls = self._inside.open_calls
            open_calls[call.request_id] = open_calls.get(call.request_id, 0) + 1
            timer = loop.call_later(batch.steered.seconds, self._due, batch)
            self._waiting[batch.id] = _Waiting(call, loop.time(), timer)
        elif batch.cancelled and batch.id in self._waiting:
            waiting = self._waiting[batch.id]
            waiting.timer.cancel()
            # One turn later, so that the answer to the cancellation tells of one that is under way.
            self._waiting[batch.id] = waiting._replace(timer=loop.call_later(0, self._cancel, batch))

    def close(self) -> None:
        """Forget what has not ended."""
        for waiting in self._waiting.values():
            waiting.timer.cancel()
            self._over(waiting.call)
        self._waiting.clear()

    def _over(self, call: Call) -> None:
        """The call that began a batch can be asked for from now on."""
        left = self._inside.open_calls.get(call.request_id, 1) - 1
        if left:
            self._inside.open_calls[call.request_id] = left
        else:
            self._inside.open_calls.pop(call.request_id, None)

    def _due(self, batch: Batch) -> None:
        """A batch has had its time."""
        half = len(batch.lines) // 2
        fault = batch.steered.fault
        if batch.wrong:
            self._end(batch, "failed", 0, "")
        elif fault == "expire":
            self._end(batch, "expired", half, "batch_expired")
        elif fault == "cancel_partial":
            batch.status = "in_progress"
        else:
            self._end(batch, "completed", len(batch.lines), "")

    def _cancel(self, batch: Batch) -> None:
        """A batch is to end before its time: what was done until now is done."""
        done = len(batch.lines) // 2
        if batch.steered.fault != "cancel_partial":
            passed = asyncio.get_running_loop().time() - self._waiting[batch.id].since
            done = min(len(batch.lines), int(len(batch.lines) * passed / (batch.steered.seconds or 1)))
        self._end(batch, "cancelled", done if not batch.wrong else 0, "batch_cancelled")

    def _end(self, batch: Batch, status: str, count: int, error: str) -> None:
        """Answer the first so many lines; once their truth is on disk, the batch has ended."""
        call, _, timer = self._waiting.pop(batch.id)
        timer.cancel()
        records: list[Record] = []
        done: list[Done] = []
        for number, line in enumerate(batch.lines):
            if number < count:
                fails = batch.steered.fault == "fail_half" and number % 2 == 1
                answered, record = self._answered(call, batch, line, number, fails)
                done.append(answered)
                records.append(record)
            elif status != "failed":
                done.append(Done(line.custom_id, error=error))

        def written(good: bool) -> None:
            self._over(call)
            if good:
                batch.end(status, done)

        self._write(records, written)

    def _write(self, records: list[Record], then: Callable[[bool], None]) -> None:
        if not records:
            then(True)
            return
        for record in records[:-1]:
            self._inside.truth.append(record, lambda _: None)
        self._inside.truth.append(records[-1], then)

    def _answered(self, call: Call, batch: Batch, line: Line, number: int, fails: bool) -> tuple[Done, Record]:
        """What one line is answered, and the truth of it."""
        path = ("/openai" if call.azure else "") + "/v1" + line.url.removeprefix("/v1")
        route = route_of(path)
        assert route is not None, "only known paths are in a batch"
        speaker: Speaker = route.speakers[0]
        head = call.request
        request = Request("POST", path, "", head.headers, bytes(line.body), True, "", batch.kept)
        own = call._replace(request=request, speaker=speaker, model="")
        plan: Plan | None = None
        status = 500 if fails else 200
        try:
            ask = speaker.read(request, "")
            rule = self._inside.script.at_body(path, ask.model) if self._inside.script is not None else None
            plan = make(ask, steer(ask.model, ask.text, rule), f"{batch.id} {number}", call.azure)
        except AskInvalid as problem:
            status, body = problem.status, own.error(problem.status, str(problem), param=problem.param)
        except ScriptInvalid as problem:
            status, body = 400, own.error(400, str(problem), code="sim_invalid")
        else:
            status = plan.steering.status or status
            if ask.stream:
                status, body = 400, own.error(400, "Streaming is not supported in batches.", param="stream")
            elif status == 200:
                body = speaker.answer(plan)
            else:
                body = own.error(status, "The simulator was asked for this error.")
        told = speaker.usage(plan, None) if plan is not None and status == 200 else None
        record = record_of(self._inside, own, plan, status, told)
        return Done(line.custom_id, status, msgspec.Raw(body), id=record.provider_request_id), record
