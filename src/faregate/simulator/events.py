"""Writes a stream as its events, in the order and shape of OpenAI and Azure, spoiled where a fault says so. Pure.

Order: prompt filter (Azure), role, text, finish, usage (asked for), ``[DONE]``. The choices take turns.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple, Protocol

import msgspec

from faregate.simulator import faults
from faregate.simulator.plan import CREATED, Plan, usage
from faregate.simulator.shapes import FILTER_RESULTS, FINGERPRINT, arguments_of, tool_call

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"

HUGE_LINE_BYTES = 8 * 1024 * 1024

_encode = msgspec.json.Encoder().encode
_ERROR = {"message": "The simulator was asked to fail.", "type": "server_error", "param": None, "code": None}
_FILTER = b',"content_filter_results":' + _encode(FILTER_RESULTS)


class Kind(Enum):
    """What an event is, or what happens in its place."""

    OPENING = "opening"
    TEXT = "text"
    PING = "ping"
    CLOSING = "closing"
    DONE = "done"
    #: Not an event: the stream ends here, goes silent, or is reset.
    CUT = "cut"
    STALL = "stall"
    RESET = "reset"


class Event(NamedTuple):
    """Bytes to send, and the output tokens a caller has been given with them."""

    kind: Kind
    data: bytes = b""
    tokens: int = 0


class Writer(Protocol):
    """The events of one stream in one format; ``told`` puts them in order and spoils them."""

    #: The bytes that follow a text's JSON string in its event.
    after_text: bytes
    ping: bytes

    @property
    def done(self) -> bytes:
        """The event after which nothing comes; asked for once, when it is its turn."""
        ...

    @property
    def error(self) -> bytes:
        """An event that tells of an error; likewise."""
        ...

    def opening(self) -> Iterator[Event]:
        """What comes before all text."""
        ...

    def texts(self) -> Iterator[Event]:
        """The events with text (``Kind.TEXT``), and what is steered in between."""
        ...

    def text(self, choice: int, text: str) -> bytes:
        """One event with text."""
        ...

    def finish(self) -> Iterator[Event]:
        """What comes after all text, before usage."""
        ...

    def usage(self, fault: str) -> Iterator[Event]:
        """The event that tells nothing but usage, with the figures of a fault; none where the stream has none."""
        ...


def events(plan: Plan) -> Iterator[Event]:
    """All events of a stream of chats or completions."""
    return told(plan, _Writer(plan))


def told(plan: Plan, writer: Writer) -> Iterator[Event]:
    """All events of a stream; bytes are made as they are asked for, so a long stream costs no memory."""
    fault = plan.steering.fault
    if fault == "pings_only":
        while True:
            yield Event(Kind.PING, writer.ping)
    yield from writer.opening()
    yield from _spoiled(fault, plan, writer)
    yield from writer.finish()
    if fault not in ("usage_missing", "usage_early"):
        if fault == "usage_twice":
            yield from writer.usage("usage_first")
        yield from writer.usage(fault)
    if fault != "no_done":
        yield Event(Kind.DONE, writer.done)


def half(plan: Plan) -> int:
    """After how many events with text a fault strikes "half-way"; at least one."""
    steps = -(-plan.visible_tokens // plan.chunk_tokens)
    return max(1, steps * plan.ask.choices // 2)


def _spoiled(fault: str, plan: Plan, writer: Writer) -> Iterator[Event]:
    """The events with text, with what a fault puts among or after them."""
    strikes = {"stall": 1}.get(fault, half(plan))
    sent = 0
    for event in writer.texts():
        yield event
        if event.kind is not Kind.TEXT:
            continue
        sent += 1
        if sent == strikes:
            yield from _strike(fault, writer)
    if sent == 0:
        yield from _strike(fault, writer)


def _strike(fault: str, writer: Writer) -> Iterator[Event]:
    if fault == "stall":
        yield Event(Kind.STALL)
    elif fault == "reset_mid_stream":
        yield Event(Kind.RESET)
    elif fault == "cut_utf8":
        yield Event(Kind.OPENING, writer.text(0, "世界")[: -len(writer.after_text) - 3])
        yield Event(Kind.CUT)
    elif fault == "error_event":
        yield Event(Kind.OPENING, writer.error)
        yield Event(Kind.CUT)
    elif fault == "not_json":
        yield Event(Kind.OPENING, b"data: {this is not JSON\n\n")
    elif fault == "huge_line":
        yield Event(Kind.OPENING, writer.text(0, "x" * HUGE_LINE_BYTES))
    elif fault == "usage_early":
        yield from writer.usage(fault)


class _Writer:
    """The bytes that all events of one stream share, cut once."""

    done = DONE
    ping = PING
    error = b"data: " + _encode({"error": _ERROR}) + b"\n\n"

    def __init__(self, plan: Plan) -> None:
        chat = plan.ask.kind == "chat"
        steering = plan.steering
        self._plan = plan
        self._chat = chat
        self._tools = steering.tool_calls if chat else 0
        self._tells_usage = plan.ask.include_usage if steering.usage is None else steering.usage
        head: dict[str, Any] = {
            "id": ("chatcmpl-" if chat else "cmpl-") + plan.id,
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": CREATED,
            "model": plan.ask.model,
            "system_fingerprint": FINGERPRINT,
        }
        if plan.ask.service_tier or steering.service_tier:
            head["service_tier"] = plan.service_tier
        self._head = b"data: " + _encode(head)[:-1] + b',"choices":['
        # A provider that will tell usage at the end says "usage": null in every event before it.
        self._tail = b',"usage":null}\n\n' if self._tells_usage else b"}\n\n"
        self._filter = _FILTER if plan.azure else b""
        self.after_text = (
            b'},"logprobs":null,"finish_reason":null' if chat else b',"logprobs":null,"finish_reason":null'
        )
        self.after_text += self._filter + b"}]" + self._tail

    def opening(self) -> Iterator[Event]:
        """Prompt filter and role."""
        plan = self._plan
        filtered = plan.azure if plan.steering.filter_event is None else plan.steering.filter_event
        if filtered:
            verdict = {
                "choices": [],
                "created": 0,
                "id": "",
                "model": "",
                "object": "",
                "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTER_RESULTS}],
            }
            yield Event(Kind.OPENING, b"data: " + _encode(verdict) + b"\n\n")
        if self._chat and plan.steering.role_event:
            content = b"null" if self._tools else b'""'
            for choice in range(plan.ask.choices):
                delta = b'{"role":"assistant","content":' + content + b',"refusal":null}'
                yield Event(Kind.OPENING, self._delta(choice, delta))

    def texts(self) -> Iterator[Event]:
        """The events with text, or with the arguments of tool calls, and what is steered in between."""
        plan, steering = self._plan, self._plan.steering
        # Reasoning, audio and rejected predictions are made before the first word, so they are billed with it.
        hidden = plan.output_tokens - plan.visible_tokens + steering.rejected_prediction_tokens
        pings, empties = steering.pings, steering.empty_deltas
        size = plan.chunk_tokens
        for first in range(0, plan.visible_tokens, size):
            count = min(size, plan.visible_tokens - first)
            for choice in range(plan.ask.choices):
                if pings:
                    pings -= 1
                    yield Event(Kind.PING, PING)
                if empties:
                    empties -= 1
                    yield Event(Kind.PING, self.text(choice, ""))
                tokens = count + (hidden if first == 0 else 0)
                text = plan.text(first, count, choice)
                data = self._arguments(choice, text, first) if self._tools else self.text(choice, text)
                yield Event(Kind.TEXT, data, tokens)

    def text(self, choice: int, text: str) -> bytes:
        """One event with text."""
        field = b',"delta":{"content":' if self._chat else b',"text":'
        return self._head + b'{"index":%d' % choice + field + _encode(text) + self.after_text

    def _arguments(self, choice: int, text: str, first: int) -> bytes:
        """One event for all tool calls: the first one names them, the others add to their arguments."""
        calls: list[dict[str, Any]] = []
        opening, closing = arguments_of("").split('""')
        last = first + self._plan.chunk_tokens >= self._plan.visible_tokens
        part = _encode(text).decode()[1:-1]
        part = (f'{opening}"' if first == 0 else "") + part + (f'"{closing}' if last else "")
        for number in range(self._tools):
            if first == 0:
                calls.append({"index": number, **tool_call(self._plan, number, part)})
            else:
                calls.append({"index": number, "function": {"arguments": part}})
        return self._delta(choice, _encode({"tool_calls": calls}))

    def _delta(self, choice: int, delta: bytes, finish: bytes = b"null") -> bytes:
        middle = b'{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b' % (choice, delta, finish)
        return self._head + middle + self._filter + b"}]" + self._tail

    def finish(self) -> Iterator[Event]:
        """Why each choice ended."""
        reason = _encode(self._plan.finish_reason)
        # With nothing to show, what was made unseen is billed here.
        unseen = 0
        if self._plan.visible_tokens == 0:
            unseen = self._plan.output_tokens + self._plan.steering.rejected_prediction_tokens
        for choice in range(self._plan.ask.choices):
            if self._chat:
                data = self._delta(choice, b"{}", reason)
            else:
                middle = b'{"index":%d,"text":"","logprobs":null,"finish_reason":%b' % (choice, reason)
                data = self._head + middle + self._filter + b"}]" + self._tail
            yield Event(Kind.CLOSING, data, unseen)

    def usage(self, fault: str) -> Iterator[Event]:
        """The event that tells usage and no choice."""
        if self._tells_usage:
            report = faults.reported(fault, usage(self._plan))
            yield Event(Kind.CLOSING, self._head + b'],"usage":' + report + b"}\n\n")
