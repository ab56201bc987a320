"""How a stream ends whose answer may go no further: as each wire format says "the cap was reached", with usage and end.

What clients are given is what the provider itself would have sent at its output cap, so that stock clients read it
without an error. What the events so far do not tell (the answer's id, the time it was made) is copied from the last of
them. Pure: which stream ends, and when, is decided in ``proxy.stream_holds``.
"""

import re
from typing import Any, Final, NamedTuple

import msgspec

from faregate.core.metering import sse
from faregate.core.metering.meter import EventDecoder, Report
from faregate.core.usage import Usage
from faregate.dialects.anthropic_answers import MessageEvents
from faregate.dialects.jsonbody import DECODING_ERRORS
from faregate.dialects.responses_answers import ResponseEvents

#: Members of an event with choices that all events of a stream have in common.
_COMMON: Final = ("id", "object", "created", "model", "system_fingerprint", "service_tier")

#: Of the last bytes that were sent so much is looked at for the last event.
_LOOK_BACK_BYTES: Final = 64 * 1024

#: A quote inside of a text is escaped, so that this is never part of one.
_SEQUENCE: Final = re.compile(rb'[{,]\s*"sequence_number"\s*:\s*(\d{1,15})')

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Cut(NamedTuple):
    """A stream that ends here."""

    #: The bytes that were sent last; they end where an event ends.
    sent: bytes
    #: What the provider told so far, and what is charged.
    report: Report
    usage: Usage
    #: What understood its events, one by one.
    decoder: EventDecoder
    #: How many answers it has.
    choices: int
    #: The client asked for the usage of the stream, where the format leaves that open.
    usage_wanted: bool
    #: Seconds since 1970 UTC.
    at: int


def chat(cut: Cut) -> bytes:
    """``finish_reason`` "length" for every choice, the usage where it was asked for, and ``[DONE]``."""
    return _of_choices(cut, "chat.completion.chunk", {"delta": {}, "logprobs": None})


def completion(cut: Cut) -> bytes:
    """The same for text completions."""
    return _of_choices(cut, "text_completion", {"text": "", "logprobs": None})


def _of_choices(cut: Cut, kind: str, nothing_more: dict[str, Any]) -> bytes:
    head = {"id": cut.report.id, "object": kind, "created": cut.at, "model": cut.report.model}
    last = _last_object(cut.sent, "choices")
    head |= {name: last[name] for name in _COMMON if last.get(name)}
    events: list[dict[str, Any]] = []
    for index in range(cut.choices):
        event = head | {"choices": [{"index": index, **nothing_more, "finish_reason": "length"}]}
        events.append(event | {"usage": None} if cut.usage_wanted else event)
    if cut.usage_wanted:
        usage = cut.usage
        told = {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.input_cached, "audio_tokens": usage.input_audio},
            "completion_tokens_details": {
                "reasoning_tokens": usage.output_reasoning,
                "audio_tokens": usage.output_audio,
            },
        }
        events.append(head | {"choices": [], "usage": told})
    return b"".join([b"data: " + _encode(event) + b"\n\n" for event in events]) + b"data: [DONE]\n\n"


def response(cut: Cut) -> bytes:
    """``response.incomplete``, for the reason ``max_output_tokens``; its ``output`` came before, in deltas."""
    begun = cut.decoder.begun if isinstance(cut.decoder, ResponseEvents) else b""
    try:
        answer = _decode(begun)
    except DECODING_ERRORS:
        answer = {"id": cut.report.id, "object": "response", "created_at": cut.at, "model": cut.report.model}
    usage = cut.usage
    answer |= {
        "status": "incomplete",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": answer.get("output") or [],
        "usage": {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.input_cached},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.output_reasoning},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    }
    numbers = _SEQUENCE.findall(cut.sent[-_LOOK_BACK_BYTES:])
    event = {
        "type": "response.incomplete",
        "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
        "response": answer,
    }
    return b"event: response.incomplete\ndata: " + _encode(event) + b"\n\n"


def message(cut: Cut) -> bytes:
    """The end of the block that is open, ``stop_reason`` "max_tokens", and ``message_stop``."""
    events: list[dict[str, Any]] = []
    block = cut.decoder.block if isinstance(cut.decoder, MessageEvents) else -1
    if block >= 0:
        events.append({"type": "content_block_stop", "index": block})
    delta = {"stop_reason": "max_tokens", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": cut.usage.output_tokens}})
    events.append({"type": "message_stop"})
    return b"".join([b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event)) for event in events])


def generated(cut: Cut) -> bytes:
    """``finishReason`` "MAX_TOKENS" for every candidate, with the usage."""
    usage = cut.usage
    told = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.output_reasoning,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    if usage.output_reasoning:
        told["thoughtsTokenCount"] = usage.output_reasoning
    candidates = [
        {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "MAX_TOKENS", "index": index}
        for index in range(cut.choices)
    ]
    named = {"modelVersion": cut.report.model, "responseId": cut.report.id}
    event: dict[str, Any] = {"candidates": candidates, "usageMetadata": told}
    event |= {name: value for name, value in named.items() if value}
    return b"data: " + _encode(event) + b"\n\n"


def _last_object(sent: bytes, member: str) -> dict[str, Any]:
    """The last event in ``sent`` that is an object with this member; empty where there is none."""
    for event in reversed(list(sse.events(sent[-_LOOK_BACK_BYTES:]))):
        data = sse.payload(event)
        try:
            value = _decode(data) if data else {}
        except DECODING_ERRORS:
            continue
        if value.get(member):
            return value
    return {}
