"""One call that takes its time or misbehaves: delays, holds, streams and faults.

Plain answers do not come here, see ``server``. Whatever happens, a call leaves exactly one record in the truth log: in
full before its last byte, or what was delivered when the caller left.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from faregate.simulator import shapes
from faregate.simulator.credentials import safe
from faregate.simulator.events import Event, Kind
from faregate.simulator.faults import FAULTS, Where, delivered
from faregate.simulator.http1 import ANSWER_SECONDS, Connection, Request
from faregate.simulator.misbehave import CHUNKED, DRIBBLE_MS, END, OK, WIRE, Answer, chunk
from faregate.simulator.plan import Plan
from faregate.simulator.speakers import Speaker
from faregate.simulator.truth import Record, TruthLog

JSON = b"content-type: application/json\r\n"
EVENT_STREAM = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"

#: A stream without delays is written in blocks of about this size.
BLOCK_BYTES = 32 * 1024

#: A larger event is not cut into smaller chunks, one byte each of 8 MiB would stop everything for seconds.
SPLIT_BYTES_MAX = 64 * 1024

REASONS = {
    200: "OK",
    201: "Created",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class Call(NamedTuple):
    """What is known of a call before its body is understood."""

    request: Request
    request_id: str
    model: str
    credential: dict[str, str] | None
    speaker: Speaker
    azure: bool = False

    def error(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> bytes:
        """An error in the shape of what was asked; only OpenAI's knows codes and parameters."""
        return error_of(self.speaker, status, message, code=code, param=param)


def error_of(
    speaker: Speaker, status: int, message: str, *, code: str | None = None, param: str | None = None
) -> bytes:
    """An error in a speaker's shape; only OpenAI's knows codes and parameters."""
    if speaker.error is not None:
        return speaker.error(status, message)
    return shapes.error(status, message, code=code, param=param)


def content_type(speaker: Speaker, plan: Plan) -> bytes:
    """The header lines that say what the body of a good answer is."""
    named = speaker.content_type(plan)
    if named != "application/json":
        return f"content-type: {named}\r\n".encode("latin-1")
    return EVENT_STREAM if plan.ask.stream else JSON


class Inside(Protocol):
    """What an exchange needs of the simulator."""

    truth: TruthLog

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
        """The call is over and its record is on disk."""
        ...

    def now(self) -> str:
        """The time, RFC 3339 in UTC."""
        ...


def status_line(status: int) -> bytes:
    """The first line of an answer."""
    return f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\n".encode()


def id_headers(call: Call, provider_request_id: str) -> bytes:
    """The headers every answer to a call has."""
    lines = f"{call.speaker.id_header}: {provider_request_id}\r\n"
    if call.speaker.id_header == "x-request-id":
        lines += "openai-processing-ms: 1\r\nopenai-version: 2020-10-01\r\n"
    if call.azure:
        lines += f"apim-request-id: {provider_request_id}\r\n"
    return lines.encode("latin-1")


def record_of(inside: Inside, call: Call, plan: Plan | None, status: int, told: dict[str, Any] | None) -> Record:
    """The truth of one call, complete; ``told`` is its usage where it was served."""
    return Record(
        seq=0,
        request_id=call.request_id,
        provider_request_id=plan.provider_request_id if plan else "",
        path=call.request.path[:512],
        model=(plan.ask.model if plan else call.model)[:256],
        stream=plan.ask.stream if plan else False,
        status=status,
        served=told is not None,
        complete=True,
        usage=told,
        delivered_tokens=delivered(told) if told else 0,
        fault=plan.steering.fault if plan else "",
        credential=call.credential,
        headers=safe(call.request.headers),
        served_at=inside.now(),
    )


class Exchange:
    """The answer to one call, from the wait before it to its last byte."""

    def __init__(self, inside: Inside, connection: Connection, call: Call, plan: Plan) -> None:
        self._inside = inside
        self._connection = connection
        self._call = call
        self._plan = plan
        self._speaker = call.speaker
        self._type = content_type(call.speaker, plan)
        self._steering = plan.steering
        self._recorded = False
        self._started = False
        self._delivered = 0
        #: The usage of an answer whose body was steered.
        self._told: dict[str, Any] | None = None
        extra = "".join(f"{name}: {value}\r\n" for name, value in plan.steering.headers.items())
        self._headers = id_headers(call, plan.provider_request_id) + extra.encode("latin-1")

    async def run(self) -> None:
        """Answer, and record it even if the caller leaves in between."""
        answered = False
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._answer()
                    answered = True
        finally:
            if not self._recorded:
                self._recorded = True
                self._append(self._record(complete=False, status=200), lambda _: self._inside.ended(self._call))
            if not answered:
                self._connection.abort()
        if answered:
            self._connection.finished(keep_alive=self._call.request.keep_alive)

    async def _answer(self) -> None:
        steering = self._steering
        if steering.hold or self._inside.holding:
            await self._inside.held()
        if steering.first_delay_ms:
            await asyncio.sleep(steering.first_delay_ms / 1000)
        if steering.status is not None or steering.body is not None:
            await self._other_status(steering.status or 200)
        elif steering.fault in WIRE:
            await self._wire_fault(steering.fault)
        elif self._plan.ask.stream and self._speaker.events is not None:
            await self._stream(self._speaker.events(self._plan))
        elif steering.fault and FAULTS[steering.fault].where is Where.EVENTS:
            await self._spoiled_body(steering.fault)
        else:
            await self._whole(self._speaker.answer(self._plan))

    # The record.

    def _record(self, *, complete: bool, status: int = 200) -> Record:
        """What is true of this call as far as it went."""
        plan, steering = self._plan, self._steering
        told = self._told
        if told is None:
            told = self._speaker.usage(plan, None if complete or not plan.ask.stream else self._delivered)
        served = self._started and status < 400
        if steering.fault:
            served = served and FAULTS[steering.fault].served
        if steering.served is not None:
            served = steering.served
        record = record_of(self._inside, self._call, plan, status, told if served else None)
        record.complete = complete
        if plan.ask.stream and self._told is None:
            record.delivered_tokens = self._delivered
        return record

    def _append(self, record: Record, then: Callable[[bool], None]) -> None:
        if self._speaker.recorded:
            self._inside.truth.append(record, then)
        else:
            then(True)

    async def _note(self, *, complete: bool, status: int = 200) -> None:
        """Put the record on disk; without it, no further byte may leave."""
        self._recorded = True
        record = self._record(complete=complete, status=status)
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def then(done: bool) -> None:
            self._inside.ended(self._call)
            if not written.done():
                written.set_result(done)

        self._append(record, then)
        if not await written:
            self._connection.abort()
            raise asyncio.CancelledError

    # Answers that are not streams.

    async def _other_status(self, status: int) -> None:
        body = self._steering.body
        headers = self._headers + (b"" if "content-type" in self._steering.headers else JSON)
        if body is None:
            content = self._call.error(status, "The simulator was asked for this error.")
        elif isinstance(body, str):
            content = body.encode()
        else:
            content = msgspec.json.encode(body)
        told = (body.get("usage") or body.get("usageMetadata")) if isinstance(body, dict) else None
        if isinstance(told, dict):
            # A steered answer that tells usage is an answer like any other; all others bill nothing.
            self._told = told
        self._started = self._told is not None
        await self._note(complete=True, status=status)
        length = b"content-length: %d\r\n\r\n" % len(content)
        self._connection.write(status_line(status) + headers + length + content)

    async def _whole(self, body: bytes) -> None:
        self._started = True
        await self._note(complete=True)
        self._connection.write(OK + self._type + self._headers + b"content-length: %d\r\n\r\n" % len(body) + body)
        await self._connection.drain()

    async def _wire_fault(self, name: str) -> None:
        """Write the record first: most of these never come to an orderly last byte."""
        fault = FAULTS[name]
        steering = self._steering
        self._started = True
        headers = self._type + self._headers
        if self._plan.ask.stream and self._speaker.events is not None:
            parts = list(self._speaker.events(self._plan))
            self._delivered = sum(event.tokens for event in parts) if fault.served else 0
            body = b"".join(event.data for event in parts)
        else:
            body = self._speaker.answer(self._plan)
        await self._note(complete=fault.complete)
        delay_ms = steering.delay_ms or None
        await WIRE[name](self._connection, Answer(headers, body, delay_ms, steering.count, self._inside.turn(name)))

    async def _spoiled_body(self, name: str) -> None:
        """What a fault of streams looks like in an answer that is none."""
        self._started = True
        body = self._speaker.answer(self._plan)
        middle = len(body) // 2
        if name == "not_json":
            return await self._whole(b"this is not JSON")
        if name == "error_event":
            return await self._whole(self._call.error(500, "The simulator was asked to fail."))
        if name == "huge_line":
            return await self._whole(body[:-1] + b" " * (8 * 1024 * 1024) + b"}")
        if name == "cut_utf8":
            return await self._whole(body[:middle] + "世".encode()[:2])
        if name == "no_done":
            return await self._whole(body)
        await self._note(complete=False)
        if name == "pings_only":
            self._connection.write(OK + self._type + self._headers + CHUNKED + b"\r\n")
            return await self._ping(lambda: chunk(b" "))
        head = OK + self._type + self._headers + b"content-length: %d\r\n\r\n" % len(body)
        self._connection.write(head + body[:middle])
        return await self._silence(reset=name == "reset_mid_stream")

    async def _ping(self, make: Callable[[], bytes]) -> None:
        delay_ms = self._steering.delay_ms or DRIBBLE_MS
        while not self._connection.gone:
            self._connection.write(make())
            await self._connection.drain()
            await asyncio.sleep(delay_ms / 1000)

    async def _silence(self, *, reset: bool) -> None:
        if not reset:
            return await self._connection.wait_gone()
        # What was written shall arrive before the reset overtakes it.
        await self._connection.drain()
        await asyncio.sleep(0.01)
        return self._connection.reset()

    # Streams.

    async def _stream(self, events: Iterator[Event]) -> None:
        """Send events as they are due; the record goes to disk before the last event and the last chunk."""
        connection, steering = self._connection, self._steering
        frames = _Frames(steering.split_bytes)
        connection.write(OK + self._type + self._headers + CHUNKED + b"\r\n")
        self._started = True
        last = b""
        delay = steering.delay_ms / 1000
        texts = 0
        for event in events:
            if event.kind is Kind.DONE:
                last = event.data
                self._delivered += event.tokens
                break
            if event.kind in (Kind.CUT, Kind.STALL, Kind.RESET):
                return await self._break_off(event, frames)
            if steering.fault == "pings_only":
                return await self._ping(lambda data=event.data: chunk(data))  # type: ignore[misc]
            if event.kind is Kind.TEXT:
                if delay and texts:
                    connection.write(frames.take())
                    await asyncio.sleep(delay)
                texts += 1
            frames.add(event.data)
            self._delivered += event.tokens
            if frames.size >= BLOCK_BYTES or delay:
                connection.write(frames.take())
                await connection.drain()
            if event.kind is Kind.TEXT and texts == steering.hold_after:
                connection.write(frames.take())
                await self._inside.held()
        connection.write(frames.take())
        await self._note(complete=True)
        if last:
            frames.add(last)
        connection.write(frames.take(last=True) + END)
        return await connection.drain()

    async def _break_off(self, event: Event, frames: "_Frames") -> None:
        self._connection.write(frames.take(last=True))
        await self._note(complete=False)
        if event.kind is Kind.CUT:
            self._connection.write(END)
        else:
            await self._silence(reset=event.kind is Kind.RESET)


class _Frames:
    """Events waiting to be written, each a chunk of its own, or cut anew every so many bytes."""

    def __init__(self, split_bytes: int | None) -> None:
        self._split = split_bytes
        self._ready: list[bytes] = []
        self._rest = b""
        self.size = 0

    def add(self, data: bytes) -> None:
        """Take one event."""
        self.size += len(data)
        if self._split is None or len(data) > SPLIT_BYTES_MAX:
            self._ready += [chunk(part) for part in (self._rest, data) if part]
            self._rest = b""
            return
        self._rest += data
        whole = len(self._rest) - len(self._rest) % self._split
        self._ready += [chunk(self._rest[at : at + self._split]) for at in range(0, whole, self._split)]
        self._rest = self._rest[whole:]

    def take(self, *, last: bool = False) -> bytes:
        """What can be written now; with ``last``, also what does not fill a chunk."""
        if last and self._rest:
            self._ready.append(chunk(self._rest))
            self._rest = b""
        data = b"".join(self._ready)
        self._ready.clear()
        self.size = 0
        return data
