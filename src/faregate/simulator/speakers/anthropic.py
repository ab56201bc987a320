"""Anthropic's messages and its count of tokens, as the simulator speaks them. Pure.

Follows "Messages API", "Streaming messages" and "Errors" of Anthropic's documentation. Steering fields mean what they
mean for chats: ``cached_tokens`` were read from the cache, ``cache_write_tokens`` written for five minutes (or for an
hour, where the request asks for that), ``reasoning_tokens`` thought; ``prompt_tokens`` is all of the input together.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from faregate.simulator import faults, shapes, wording
from faregate.simulator.asks import Ask, AskInvalid, decoded
from faregate.simulator.events import Event, Kind, told
from faregate.simulator.http1 import Request
from faregate.simulator.plan import Plan

_ABSENT = Raw()
_encode = msgspec.json.Encoder().encode


class _Message(Struct):
    role: str
    content: str | list[dict[str, Any]]


class _Body(Struct, forbid_unknown_fields=True):
    model: str
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0, le=10_000_000)]
    system: str | list[dict[str, Any]] = ""
    stream: bool = False
    tools: list[dict[str, Any]] = []
    cache_control: Raw = _ABSENT
    container: Raw = _ABSENT
    context_management: Raw = _ABSENT
    inference_geo: Raw = _ABSENT
    metadata: Raw = _ABSENT
    output_config: Raw = _ABSENT
    service_tier: str | None = None
    speed: Raw = _ABSENT
    stop_sequences: Raw = _ABSENT
    temperature: Raw = _ABSENT
    thinking: Raw = _ABSENT
    tool_choice: Raw = _ABSENT
    top_k: Raw = _ABSENT
    top_p: Raw = _ABSENT


class _CountBody(Struct):
    model: str
    messages: Annotated[list[_Message], Meta(min_length=1)]
    system: str | list[dict[str, Any]] = ""
    tools: list[dict[str, Any]] = []


_decode = msgspec.json.Decoder(_Body).decode
_decode_count = msgspec.json.Decoder(_CountBody).decode

#: An image of which nothing is known is counted as one of 1.15 megapixels.
IMAGE_TOKENS = 1_568


def read(request: Request, name: str) -> Ask:
    """What a request for a message asks."""
    body = decoded(_decode, request.body)
    tokens, last = _read(body)
    hour = b'"1h"' in request.body
    searches = any(str(tool.get("type", "")).startswith("web_search") for tool in body.tools)
    return Ask(
        "message",
        body.model,
        last,
        tokens,
        body.max_tokens,
        stream=body.stream,
        include_usage=True,
        facts={"hour": hour, "searches": searches},
    )


def read_count(request: Request, name: str) -> Ask:
    """What a request for a count of tokens asks."""
    body = decoded(_decode_count, request.body)
    tokens, last = _read(body)
    return Ask("message_count", body.model, last, tokens, 0)


def _read(body: _Body | _CountBody) -> tuple[int, str]:
    """Input tokens, and the last text of the user."""
    if not body.model:
        raise AskInvalid("model: Field required", "model")
    tokens = wording.REPLY_TOKENS + wording.count(_text(body.system)) + wording.count(_encode(body.tools).decode())
    last = ""
    for message in body.messages:
        text = _text(message.content)
        tokens += wording.MESSAGE_TOKENS + wording.count(text)
        if isinstance(message.content, list):
            tokens += IMAGE_TOKENS * sum(block.get("type") in ("image", "document") for block in message.content)
        if message.role == "user":
            last = text
    return tokens, last


def _text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if isinstance(block.get("text"), str))


def usage(plan: Plan, delivered: int | None = None) -> dict[str, Any]:
    """The true usage; ``delivered`` output tokens for an answer cut short. Input leaves do not overlap."""
    if plan.ask.kind == "message_count":
        return {"input_tokens": plan.prompt_tokens}
    steering, facts = plan.steering, plan.ask.facts or {}
    cached, written = steering.cached_tokens, steering.cache_write_tokens
    hour = written if facts.get("hour") else 0
    output = plan.output_tokens if delivered is None else delivered
    report: dict[str, Any] = {
        "input_tokens": max(0, plan.prompt_tokens - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "cache_creation": {"ephemeral_5m_input_tokens": written - hour, "ephemeral_1h_input_tokens": hour},
        "output_tokens": output,
        "output_tokens_details": {"thinking_tokens": min(steering.reasoning_tokens, output)},
        "service_tier": "standard",
    }
    if facts.get("searches"):
        report["server_tool_use"] = {"web_search_requests": 1, "web_fetch_requests": 0}
    return report


def _stop(plan: Plan) -> str:
    if plan.steering.finish_reason:
        return plan.steering.finish_reason
    if plan.finish_reason == "length":
        return "max_tokens"
    return "tool_use" if plan.steering.tool_calls else "end_turn"


def _message(plan: Plan, content: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
    return {
        "id": f"msg_{plan.id}",
        "type": "message",
        "role": "assistant",
        "model": plan.ask.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
    }


def _tool(plan: Plan, number: int, text: str | None) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_use", "id": f"toolu_{plan.id}{number}", "name": f"simulated_{number}"}
    return {**block, "input": {} if text is None else {"text": text}}


def answer(plan: Plan) -> bytes:
    """A whole message, with the faults of its usage report in it."""
    text = plan.text(0, plan.visible_tokens, 0)
    content: list[dict[str, Any]] = []
    if plan.steering.reasoning_tokens:
        content.append({"type": "thinking", "thinking": "", "signature": "c2ln"})
    if plan.steering.tool_calls:
        content += [_tool(plan, number, text) for number in range(plan.steering.tool_calls)]
    else:
        content.append({"type": "text", "text": text})
    return shapes.with_usage(plan, _message(plan, content, _stop(plan)), usage(plan))


def answer_count(plan: Plan) -> bytes:
    """A count of tokens."""
    return _encode(usage(plan))


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error(status: int, message: str) -> bytes:
    """An error in Anthropic's shape."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return _encode({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_simulated"})


def events(plan: Plan) -> Iterator[Event]:
    """All events of a streamed message."""
    return told(plan, _Writer(plan))


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return f"event: {name}\n".encode() + b"data: " + _encode({"type": name, **fields}) + b"\n\n"


class _Writer:
    """The events of one stream: start, block by block, the totals, the stop."""

    ping = _event("ping", {})
    done = _event("message_stop", {})
    error = b"event: error\ndata: " + error(500, "The simulator was asked to fail.") + b"\n\n"
    after_text = b"}}\n\n"

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tools = plan.steering.tool_calls
        self._tells_usage = plan.steering.usage is not False

    def opening(self) -> Iterator[Event]:
        """The message without its content, and the first block; reasoning is a block of its own before it."""
        plan, steering = self._plan, self._plan.steering
        start = _message(plan, [], None)
        if self._tells_usage and steering.fault != "usage_missing":
            # The provider starts with what it has read, and an output of one token.
            start["usage"] = {**usage(plan), "output_tokens": min(1, plan.output_tokens)}
            del start["usage"]["output_tokens_details"]
            start["usage"].pop("server_tool_use", None)
        yield Event(Kind.OPENING, _event("message_start", {"message": start}))
        if steering.reasoning_tokens:
            yield Event(Kind.OPENING, self._block(0, {"type": "thinking", "thinking": "", "signature": ""}))
            delta = {"type": "signature_delta", "signature": "c2ln"}
            yield Event(Kind.OPENING, _event("content_block_delta", {"index": 0, "delta": delta}))
            yield Event(Kind.OPENING, _event("content_block_stop", {"index": 0}))
        if self._tools:
            first = [self._block(self._index + number, _tool(plan, number, None)) for number in range(self._tools)]
        else:
            first = [self._block(self._index, {"type": "text", "text": ""})]
        for data in first:
            yield Event(Kind.OPENING, data)
        yield Event(Kind.PING, self.ping)

    @property
    def _index(self) -> int:
        return int(self._plan.steering.reasoning_tokens > 0)

    def _block(self, index: int, block: dict[str, Any]) -> bytes:
        return _event("content_block_start", {"index": index, "content_block": block})

    def texts(self) -> Iterator[Event]:
        """The events with text, or with the input of tools, and what is steered in between."""
        plan, steering = self._plan, self._plan.steering
        hidden = plan.output_tokens - plan.visible_tokens
        pings, size = steering.pings, plan.chunk_tokens
        for first in range(0, plan.visible_tokens, size):
            count = min(size, plan.visible_tokens - first)
            if pings:
                pings -= 1
                yield Event(Kind.PING, self.ping)
            text = plan.text(first, count, 0)
            if self._tools:
                data = b"".join(self._input(number, text, first) for number in range(self._tools))
            else:
                data = self.text(0, text)
            yield Event(Kind.TEXT, data, count + (hidden if first == 0 else 0))

    def _input(self, number: int, text: str, first: int) -> bytes:
        last = first + self._plan.chunk_tokens >= self._plan.visible_tokens
        part = _encode(text).decode()[1:-1]
        part = ('{"text": "' if first == 0 else "") + part + ('"}' if last else "")
        delta = {"type": "input_json_delta", "partial_json": part}
        return _event("content_block_delta", {"index": self._index + number, "delta": delta})

    def text(self, choice: int, text: str) -> bytes:
        """One event with text."""
        delta = {"type": "text_delta", "text": text}
        return _event("content_block_delta", {"index": self._index, "delta": delta})

    def finish(self) -> Iterator[Event]:
        """The end of the blocks, and of a message that tells no usage."""
        unseen = self._plan.output_tokens if self._plan.visible_tokens == 0 else 0
        for number in range(max(1, self._tools)):
            yield Event(Kind.CLOSING, _event("content_block_stop", {"index": self._index + number}), unseen)
            unseen = 0
        if not self._tells_usage or self._plan.steering.fault in ("usage_missing", "usage_early"):
            yield Event(Kind.CLOSING, self._delta(b""))

    def _delta(self, report: bytes) -> bytes:
        delta = _encode({"stop_reason": _stop(self._plan), "stop_sequence": None})
        body = b'{"type":"message_delta","delta":' + delta + (b',"usage":' + report if report else b"") + b"}"
        return b"event: message_delta\ndata: " + body + b"\n\n"

    def usage(self, fault: str) -> Iterator[Event]:
        """The totals at the end, with why it ended."""
        if self._tells_usage:
            yield Event(Kind.CLOSING, self._delta(faults.reported(fault, usage(self._plan))))
