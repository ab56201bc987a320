"""What answers in OpenAI's formats say they used: the ``usage`` object, the model, the id, the end.

The few fields are decoded in C; an answer that does not fit them is read loosely once more, so that a broken usage
report is named rather than lost. Shared by the dialects of chat, completions and embeddings.
"""

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from faregate.core import usage as units
from faregate.core.metering.meter import Event, Report
from faregate.dialects.jsonbody import DECODING_ERRORS
from faregate.dialects.shapes import Answer, Chunk, InputDetails, Named, OutputDetails, Usage

_MISSING: Final = "input or output tokens are missing"

#: A model's name or an id is kept up to here: a provider must not make a settlement too large for the journal.
NAME_CHARACTERS_MAX: Final = 256


_answer = msgspec.json.Decoder(Answer).decode
_named = msgspec.json.Decoder(Named).decode
_NO_INPUT_DETAILS: Final = InputDetails()
_NO_OUTPUT_DETAILS: Final = OutputDetails()


def name_and_id(payload: bytes) -> tuple[str, str]:
    """The model that answered and the provider's id, empty where they are not told. Never raises."""
    try:
        named = _named(payload)
    except DECODING_ERRORS:
        return "", ""
    return _name(named.model), _name(named.id)


def event_of(chunk: Chunk[Any], payload: bytes, text: str, finished: int) -> Event:
    """What the event in ``payload`` says; its billed ``text`` and the choices it ends are the format's to say."""
    usage = leaves(chunk.usage, outputs=True) if chunk.usage is not None else None
    model, id = name_and_id(payload)
    return Event(text, finished, usage, not chunk.choices, chunk.error is not None, model, id)


def leaves(told: Usage, outputs: bool) -> units.Usage | units.Contradiction:
    """The disjoint leaves of a usage object; ``outputs`` says that output tokens must be among them."""
    incoming, outgoing, total = told.prompt_tokens, told.completion_tokens, told.total_tokens
    if incoming is None or (outgoing is None and outputs):
        return units.Contradiction(_MISSING)
    parts_in = told.prompt_tokens_details or _NO_INPUT_DETAILS
    parts_out = told.completion_tokens_details or _NO_OUTPUT_DETAILS
    reasoning = parts_out.reasoning_tokens
    if (
        not (reasoning or parts_out.audio_tokens or parts_in.cached_tokens)
        and not (parts_in.cache_write_tokens or parts_in.audio_tokens)
        and outgoing is not None
        and 0 <= incoming <= units.COUNT_MAX
        and 0 <= outgoing <= units.COUNT_MAX
        and (total is None or total == incoming + outgoing)
    ):
        # Nearly every report: two numbers that add up, and nothing "of which".
        return tuple.__new__(units.Usage, (incoming, 0, 0, 0, outgoing, 0, 0))
    # Some providers (xAI) report reasoning beside the completion tokens instead of among them; only the total tells.
    if reasoning and total and outgoing is not None and total == incoming + outgoing + reasoning:
        outgoing += reasoning
    return units.split(
        incoming,
        outgoing or 0,
        total=total,
        cached=parts_in.cached_tokens or 0,
        cache_write=parts_in.cache_write_tokens or 0,
        input_audio=parts_in.audio_tokens or 0,
        reasoning=reasoning or 0,
        output_audio=parts_out.audio_tokens or 0,
    )


def report_of(body: bytes, outputs: bool = True) -> Report:
    """What a whole answer reports. Never raises."""
    try:
        answer = _answer(body)
    except DECODING_ERRORS:
        return _loose_report(body, outputs)
    usage = None if answer.usage is None else leaves(answer.usage, outputs)
    model, id = answer.model or "", answer.id or ""
    if len(model) > NAME_CHARACTERS_MAX or len(id) > NAME_CHARACTERS_MAX:
        model, id = _name(model), _name(id)
    return _report(usage, model, id)


def _report(usage: units.Usage | units.Contradiction | None, model: str, id: str) -> Report:
    if type(usage) is units.Contradiction:
        return Report(None, usage.rule, model, id)
    # A named tuple's own constructor costs three times as much as the tuple's, on every answer.
    return tuple.__new__(Report, (usage, "", model, id))


def _loose_report(body: bytes, outputs: bool) -> Report:
    value = loose(body)
    if not isinstance(value, dict):
        return Report(None, "the answer is not a JSON object")
    model, id = _name(value.get("model")), _name(value.get("id"))
    told = value.get("usage")
    return _report(None if told is None else loose_usage(told, outputs), model, id)


def usage_in_tail(tail: bytes, usage_of: Callable[[bytes], Report]) -> Report:
    """The usage at the end of a JSON answer of which only the last bytes were kept."""
    start = tail.rfind(b'"usage"')
    opened = tail.find(b"{", start, start + 32) if start >= 0 else -1
    depth = 0
    for at in range(opened, len(tail)) if opened >= 0 else ():
        depth += (tail[at] == 0x7B) - (tail[at] == 0x7D)
        if not depth:
            return usage_of(b'{"usage":' + tail[opened : at + 1] + b"}")
    return Report()


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
    """The leaves of a usage object of any shape; the first thing that is wrong with it is named."""
    if not isinstance(told, dict):
        return units.Contradiction("the usage report is not an object")
    incoming, outgoing = told.get("prompt_tokens"), told.get("completion_tokens")
    if incoming is None or (outgoing is None and outputs):
        return units.Contradiction(_MISSING)
    parts_in = told.get("prompt_tokens_details")
    parts_out = told.get("completion_tokens_details")
    parts_in = parts_in if isinstance(parts_in, dict) else {}
    parts_out = parts_out if isinstance(parts_out, dict) else {}
    return units.split(
        incoming,
        outgoing,
        total=told.get("total_tokens"),
        cached=parts_in.get("cached_tokens"),
        cache_write=parts_in.get("cache_write_tokens"),
        input_audio=parts_in.get("audio_tokens"),
        reasoning=parts_out.get("reasoning_tokens"),
        output_audio=parts_out.get("audio_tokens"),
    )


def _name(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    # Half a surrogate pair can be written in JSON and in nothing else.
    return value[:NAME_CHARACTERS_MAX].encode("utf-8", "replace").decode()


#: Members of a streamed choice that name things and hold no billed text.
_LABELS: Final = frozenset(("role", "type", "id", "index", "finish_reason", "object", "logprobs"))


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
        _name(value.get("model")),
        _name(value.get("id")),
    )
