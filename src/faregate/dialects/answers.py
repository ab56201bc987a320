"""What answers in OpenAI's formats say they used: the ``usage`` object, the model, the id, the end.

The few fields are decoded in C; an answer that does not fit them is read loosely once more, so that a broken usage
report is named rather than lost. Shared by the dialects of chat, completions and embeddings.
"""

import json
from typing import Any, Final

import msgspec

from faregate.core import usage as units
from faregate.core.metering.meter import Event, Report
from faregate.dialects.jsonbody import DECODING_ERRORS

_MISSING: Final = "input or output tokens are missing"


class InputDetails(msgspec.Struct, gc=False):
    """Parts of ``prompt_tokens``."""

    cached_tokens: Any = 0
    cache_write_tokens: Any = 0
    audio_tokens: Any = 0


class OutputDetails(msgspec.Struct, gc=False):
    """Parts of ``completion_tokens``."""

    reasoning_tokens: Any = 0
    audio_tokens: Any = 0


class Usage(msgspec.Struct, gc=False):
    """The ``usage`` object as it came; any type is taken, so that a wrong one can be named."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


class _Choice(msgspec.Struct, gc=False):
    finish_reason: Any = None


class _Answer(msgspec.Struct, gc=False):
    usage: Usage | None = None
    model: str | None = None
    id: str | None = None
    choices: list[_Choice] | None = None


_answer = msgspec.json.Decoder(_Answer).decode


def usage_of_report(told: Usage, outputs: bool) -> units.Usage | units.Contradiction:
    """The disjoint leaves of a usage object; ``outputs`` says that output tokens must be among them."""
    incoming, outgoing, total = told.prompt_tokens, told.completion_tokens, told.total_tokens
    if incoming is None or (outputs and outgoing is None):
        return units.Contradiction(_MISSING)
    parts_in, parts_out = told.prompt_tokens_details, told.completion_tokens_details
    reasoning = 0 if parts_out is None else parts_out.reasoning_tokens
    # Some providers (xAI) report reasoning beside the completion tokens instead of among them; only the total tells.
    if reasoning and type(total) is type(incoming) is type(outgoing) is type(reasoning) is int:
        if total == incoming + outgoing + reasoning:
            outgoing += reasoning
    return units.split(
        incoming,
        outgoing,
        total=total,
        cached=0 if parts_in is None else parts_in.cached_tokens,
        cache_write=0 if parts_in is None else parts_in.cache_write_tokens,
        input_audio=0 if parts_in is None else parts_in.audio_tokens,
        reasoning=reasoning,
        output_audio=0 if parts_out is None else parts_out.audio_tokens,
    )


def report_of(body: bytes, outputs: bool = True) -> Report:
    """What a whole answer reports. Never raises."""
    try:
        answer = _answer(body)
    except DECODING_ERRORS:
        return _loose_report(body, outputs)
    choices = answer.choices
    finished = not outputs or (bool(choices) and all(choice.finish_reason is not None for choice in choices or ()))
    return _report(answer.usage, answer.model or "", answer.id or "", finished, outputs)


def _report(told: Usage | None, model: str, id: str, finished: bool, outputs: bool) -> Report:
    if told is None:
        return Report(None, "", model, id, finished)
    usage = usage_of_report(told, outputs)
    if isinstance(usage, units.Contradiction):
        return Report(None, usage.rule, model, id, finished)
    return Report(usage, "", model, id, finished)


def _loose_report(body: bytes, outputs: bool) -> Report:
    value = loose(body)
    if not isinstance(value, dict):
        return Report(None, "the answer is not a JSON object")
    choices = value.get("choices")
    finished = not outputs or (
        isinstance(choices, list)
        and bool(choices)
        and all(isinstance(choice, dict) and choice.get("finish_reason") is not None for choice in choices)
    )
    model, id = _string(value.get("model")), _string(value.get("id"))
    told = value.get("usage")
    if told is None:
        return Report(None, "", model, id, finished)
    usage = loose_usage(told, outputs)
    if isinstance(usage, units.Contradiction):
        return Report(None, usage.rule, model, id, finished)
    return Report(usage, "", model, id, finished)


def loose(body: bytes) -> Any:
    """The JSON value of bytes that did not decode as expected, ``NaN`` included; ``None`` where there is none."""
    try:
        # The C decoder of the standard library takes NaN, which some servers send; sizes of numbers stay text.
        return json.loads(body, parse_int=_whole)
    except (ValueError, RecursionError):
        return None


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) < 20 else digits


def loose_usage(told: Any, outputs: bool) -> units.Usage | units.Contradiction:
    """The leaves of a usage object of any shape."""
    try:
        usage = msgspec.convert(told, Usage)
    except msgspec.ValidationError:
        return units.Contradiction("the usage report is not an object of numbers")
    return usage_of_report(usage, outputs)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


#: Members of a streamed choice that name things and hold no billed text.
_LABELS: Final = frozenset(("role", "type", "id", "index", "finish_reason", "object", "logprobs", "name"))


def texts_of(value: Any) -> list[str]:
    """Every text inside a choice of unexpected shape, labels left out."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in texts_of(part)]
    if isinstance(value, dict):
        return [text for name, part in value.items() if name not in _LABELS for text in texts_of(part)]
    return []


def odd_event(payload: bytes) -> Event:
    """What an event says that does not fit the documented shape. Never raises."""
    value = loose(payload)
    if not isinstance(value, dict):
        return Event(malformed=True)
    choices = value.get("choices")
    choices = choices if isinstance(choices, list) else []
    told = value.get("usage")
    return Event(
        "".join(texts_of(choices)),
        sum(isinstance(choice, dict) and choice.get("finish_reason") is not None for choice in choices),
        None if told is None else loose_usage(told, outputs=True),
        not choices,
        value.get("error") is not None,
        _string(value.get("model")),
        _string(value.get("id")),
    )
