"""Gemini's ``generateContent``, its stream, embeddings and counts of tokens, as the simulator speaks them. Pure.

Follows "Generating content", "Tokens" and "Embeddings" of Google's documentation. Steering fields mean what they mean
for chats: ``cached_tokens`` are part of the prompt, ``reasoning_tokens`` are told as thoughts beside the candidates,
``prompt_audio_tokens`` and ``audio_tokens`` as details by modality.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from faregate.simulator import faults, shapes, wording
from faregate.simulator.asks import Ask, AskInvalid, decoded
from faregate.simulator.events import Event, Kind, told
from faregate.simulator.http1 import Request
from faregate.simulator.plan import Plan

_encode = msgspec.json.Encoder().encode


class _Config(Struct, rename="camel"):
    max_output_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    candidate_count: Annotated[int, Meta(ge=1, le=8)] | None = None


class _Content(Struct):
    parts: list[dict[str, Any]]
    role: str = "user"


class _Body(Struct, rename="camel", forbid_unknown_fields=True):
    contents: Annotated[list[_Content], Meta(min_length=1)]
    system_instruction: _Content | None = None
    generation_config: _Config | None = None
    tools: list[dict[str, Any]] = []
    tool_config: Any = None
    safety_settings: Any = None
    service_tier: str | None = None
    labels: Any = None


class _Embed(Struct, rename="camel"):
    content: _Content
    model: str = ""
    task_type: str | None = None
    title: str | None = None
    output_dimensionality: Annotated[int, Meta(ge=1, le=3072)] | None = None


class _BatchEmbed(Struct, rename="camel"):
    requests: Annotated[list[_Embed], Meta(min_length=1, max_length=100)]


class _Count(Struct, rename="camel"):
    contents: list[_Content] = []


_decode = msgspec.json.Decoder(_Body).decode
_decode_embed = msgspec.json.Decoder(_Embed).decode
_decode_batch_embed = msgspec.json.Decoder(_BatchEmbed).decode
_decode_count = msgspec.json.Decoder(_Count).decode

#: What a picture of up to 384 pixels a side costs.
IMAGE_TOKENS = 258
DIMENSIONS = 768


def read(request: Request, name: str) -> Ask:
    """What a request for content asks."""
    return _ask(request, name, "generate")


def read_stream(request: Request, name: str) -> Ask:
    """What a request for streamed content asks; only server-sent events are spoken."""
    if "alt=sse" not in request.query.split("&"):
        raise AskInvalid("The simulator streams with alt=sse only.")
    return _ask(request, name, "generate_stream")


def _ask(request: Request, name: str, kind: str) -> Ask:
    body = decoded(_decode, request.body)
    config = body.generation_config or _Config()
    contents = [*body.contents, *([body.system_instruction] if body.system_instruction is not None else [])]
    tokens = sum(_tokens(content) for content in contents)
    last = next((content for content in reversed(body.contents) if content.role == "user"), _Content([]))
    choices = config.candidate_count or 1
    searches = any("googleSearch" in tool for tool in body.tools)
    return Ask(
        kind,
        name,
        _text(last),
        tokens,
        config.max_output_tokens,
        choices,
        choices,
        stream=kind == "generate_stream",
        include_usage=True,
        facts={"searches": searches},
    )


def read_embed(request: Request, name: str) -> Ask:
    """What is to be embedded."""
    body = decoded(_decode_embed, request.body)
    if body.model not in ("", f"models/{name}"):
        raise AskInvalid("The model in the request must match the model of the path.")
    text = _text(body.content)
    tokens = max(1, wording.count(text))
    return Ask("embed_content", name, text, tokens, 0, inputs=(text.encode(),), dimensions=body.output_dimensionality)


def read_batch_embed(request: Request, name: str) -> Ask:
    """What is to be embedded, all with the model of the path."""
    body = decoded(_decode_batch_embed, request.body)
    if any(each.model != f"models/{name}" for each in body.requests):
        raise AskInvalid("The model in each of the requests must match the model of the path.")
    texts = [_text(each.content) for each in body.requests]
    tokens = sum(max(1, wording.count(text)) for text in texts)
    inputs = tuple(text.encode() for text in texts)
    dimensions = body.requests[0].output_dimensionality
    return Ask("batch_embed_contents", name, texts[-1], tokens, 0, inputs=inputs, dimensions=dimensions)


def read_count(request: Request, name: str) -> Ask:
    """What is to be counted."""
    body = decoded(_decode_count, request.body)
    last = _text(body.contents[-1]) if body.contents else ""
    return Ask("gemini_count", name, last, sum(_tokens(content) for content in body.contents), 0)


def _text(content: _Content) -> str:
    return "\n".join(part["text"] for part in content.parts if isinstance(part.get("text"), str))


def _tokens(content: _Content) -> int:
    pictures = sum("inlineData" in part or "fileData" in part for part in content.parts)
    return wording.MESSAGE_TOKENS + wording.count(_text(content)) + IMAGE_TOKENS * pictures


def usage(plan: Plan, delivered: int | None = None) -> dict[str, Any]:
    """The true usage; ``delivered`` output tokens of all candidates for an answer cut short."""
    prompt = plan.prompt_tokens
    if plan.ask.kind in ("embed_content", "batch_embed_contents", "gemini_count"):
        return {"promptTokenCount": prompt, "totalTokenCount": prompt}
    steering, made = plan.steering, plan.ask.billed_choices
    output = made * plan.output_tokens if delivered is None else delivered
    thoughts = min(made * steering.reasoning_tokens, output)
    audio_in, audio_out = steering.prompt_audio_tokens, min(made * steering.audio_tokens, output - thoughts)
    report: dict[str, Any] = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": output - thoughts,
        "totalTokenCount": prompt + output,
        "promptTokensDetails": _details(prompt - audio_in, audio_in),
        "candidatesTokensDetails": _details(output - thoughts - audio_out, audio_out),
    }
    if thoughts:
        report["thoughtsTokenCount"] = thoughts
    if steering.cached_tokens:
        report["cachedContentTokenCount"] = steering.cached_tokens
        report["cacheTokensDetails"] = _details(steering.cached_tokens, 0)
    return report


def _details(text: int, audio: int) -> list[dict[str, Any]]:
    counts = (("TEXT", text), ("AUDIO", audio))
    return [{"modality": modality, "tokenCount": count} for modality, count in counts if count]


def _finish(plan: Plan) -> str:
    reason = plan.steering.finish_reason
    return reason or ("MAX_TOKENS" if plan.finish_reason == "length" else "STOP")


def _candidate(plan: Plan, number: int, parts: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": number}
    if reason is not None:
        candidate["finishReason"] = reason
        if (plan.ask.facts or {}).get("searches"):
            candidate["groundingMetadata"] = {"webSearchQueries": ["simulated search", "another"]}
    return candidate


def _parts(plan: Plan, text: str) -> list[dict[str, Any]]:
    if not plan.steering.tool_calls:
        return [{"text": text}]
    calls = range(plan.steering.tool_calls)
    return [{"functionCall": {"name": f"simulated_{number}", "args": {"text": text}}} for number in calls]


def answer(plan: Plan) -> bytes:
    """A whole answer, with the faults of its usage report in it."""
    candidates = [
        _candidate(plan, number, _parts(plan, plan.text(0, plan.visible_tokens, number)), _finish(plan))
        for number in range(plan.ask.choices)
    ]
    body = {"candidates": candidates, "modelVersion": plan.ask.model, "responseId": plan.id}
    return shapes.with_usage(plan, body, usage(plan), "usageMetadata")


def answer_embed(plan: Plan) -> bytes:
    """The embedding of one content; its usage is told as newer models do."""
    size = plan.ask.dimensions or DIMENSIONS
    # Of a request that was answered before its body was read nothing is known.
    text = plan.ask.inputs[0] if plan.ask.inputs else b""
    body = {"embedding": {"values": shapes.numbers_of(text, size)}}
    return shapes.with_usage(plan, body, usage(plan), "usageMetadata")


def answer_batch_embed(plan: Plan) -> bytes:
    """The embedding of each content, in order."""
    size = plan.ask.dimensions or DIMENSIONS
    body = {"embeddings": [{"values": shapes.numbers_of(text, size)} for text in plan.ask.inputs]}
    return shapes.with_usage(plan, body, usage(plan), "usageMetadata")


def answer_count(plan: Plan) -> bytes:
    """A count of tokens."""
    return _encode({"totalTokens": plan.prompt_tokens})


_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error(status: int, message: str) -> bytes:
    """An error in Google's shape."""
    name = _STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
    return _encode({"error": {"code": status, "message": message, "status": name}})


def events(plan: Plan) -> Iterator[Event]:
    """All events of a stream; the last one with text ends every candidate and tells the usage."""
    return told(plan, _Writer(plan))


class _Writer:
    """The events of one stream: each is an answer of its own, with what was used up to there."""

    ping = b": ping\n\n"
    done = b""
    error = b"data: " + error(500, "The simulator was asked to fail.") + b"\n\n"

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tail = _encode({"modelVersion": plan.ask.model, "responseId": plan.id})[1:]
        self._sent = 0
        self._tells_usage = plan.steering.usage is not False
        self.after_text = b'}],"role":"model"},"index":0}],' + self._tail + b"\n\n"

    def opening(self) -> Iterator[Event]:
        """Nothing comes before the text."""
        return iter(())

    def texts(self) -> Iterator[Event]:
        """The events with text, each with the usage so far."""
        plan, steering = self._plan, self._plan.steering
        hidden = plan.output_tokens - plan.visible_tokens
        pings, size = steering.pings, plan.chunk_tokens
        running = self._tells_usage and not steering.fault.startswith("usage_")
        for first in range(0, plan.visible_tokens, size):
            count = min(size, plan.visible_tokens - first)
            for choice in range(plan.ask.choices):
                if pings:
                    pings -= 1
                    yield Event(Kind.PING, self.ping)
                tokens = count + (hidden if first == 0 else 0)
                self._sent += tokens
                parts = _parts(plan, plan.text(first, count, choice))
                report = _encode(usage(plan, self._sent)) if running else b""
                yield Event(Kind.TEXT, self._event([_candidate(plan, choice, parts, None)], report), tokens)

    def _event(self, candidates: list[dict[str, Any]], report: bytes) -> bytes:
        told = b'"usageMetadata":' + report + b"," if report else b""
        return b'data: {"candidates":' + _encode(candidates) + b"," + told + self._tail + b"\n\n"

    def text(self, choice: int, text: str) -> bytes:
        """One event with text and no usage."""
        return self._event([_candidate(self._plan, choice, [{"text": text}], None)], b"")

    def finish(self) -> Iterator[Event]:
        """The end, where it tells no usage."""
        if not self._tells_usage or self._plan.steering.fault in ("usage_missing", "usage_early"):
            yield Event(Kind.CLOSING, self._event(self._last(), b""), self._unseen)

    def _last(self) -> list[dict[str, Any]]:
        return [_candidate(self._plan, number, [], _finish(self._plan)) for number in range(self._plan.ask.choices)]

    @property
    def _unseen(self) -> int:
        return self._plan.output_tokens * self._plan.ask.choices if self._plan.visible_tokens == 0 else 0

    def usage(self, fault: str) -> Iterator[Event]:
        """The last event: why each candidate ended, and all usage."""
        if self._tells_usage:
            report = faults.reported(fault, usage(self._plan))
            yield Event(Kind.CLOSING, self._event(self._last(), report), self._unseen)
