"""What answers in OpenAI's formats say they used: the ``usage`` object, the model, the id, the end.

The few fields are decoded in C; an answer that does not fit them is read loosely once more, so that a broken usage
report is named rather than lost. Shared by the dialects of chat, completions and embeddings.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from faregate.core import usage as units
from faregate.core.metering.meter import Event, Report
from faregate.dialects.jsonbody import DECODING_ERRORS
from faregate.dialects.shapes import (
    Answer,
    Chunk,
    InputDetails,
    LooseAnswer,
    LooseChunk,
    Named,
    OutputDetails,
    Usage,
)

#: The rule that a report without totals breaks.
MISSING: Final = "input or output tokens are missing"

#: A model's name or an id is kept up to here: a provider must not make a settlement too large for the journal.
NAME_CHARACTERS_MAX: Final = 256


_answer = msgspec.json.Decoder(Answer).decode
_loose_answer = msgspec.json.Decoder(LooseAnswer).decode
_named = msgspec.json.Decoder(Named).decode
_NO_INPUT_DETAILS: Final = InputDetails()
_NO_OUTPUT_DETAILS: Final = OutputDetails()


def named(payload: bytes) -> tuple[str, str, str]:
    """The model that answered, the provider's id and the service tier, empty where they are not told. Never raises."""
    try:
        told = _named(payload)
    except DECODING_ERRORS:
        return "", "", ""
    return short(told.model), short(told.id), short(told.service_tier)


def event_of(
    chunk: Chunk[Any] | LooseChunk[Any], payload: bytes, text: str, finished: int, outputs: bool = True
) -> Event:
    """What the event in ``payload`` says; its billed ``text`` and the choices it ends are the format's to say."""
    told = chunk.usage
    model, id, tier = named(payload)
    usage: units.Usage | units.Contradiction | None = None
    unknown = 0
    if isinstance(told, Usage):
        usage = leaves(told, outputs)
    elif told is not None:
        usage, unknown = loose_usage(told, outputs), unknown_members(told, _KNOWN)
    if "search" in model:
        usage = _with_search(usage, model)
    return Event(text, finished, usage, not chunk.choices, chunk.error is not None, model, id, False, tier, unknown)


def leaves(told: Usage, outputs: bool) -> units.Usage | units.Contradiction:
    """The disjoint leaves of a usage object; ``outputs`` says that output tokens must be among them."""
    incoming, outgoing, total = told.prompt_tokens, told.completion_tokens, told.total_tokens
    if incoming is None or (outgoing is None and outputs):
        return units.Contradiction(MISSING)
    parts_in = told.prompt_tokens_details or _NO_INPUT_DETAILS
    parts_out = told.completion_tokens_details or _NO_OUTPUT_DETAILS
    reasoning = parts_out.reasoning_tokens
    if (
        not (reasoning or parts_out.audio_tokens or parts_in.cached_tokens)
        and not (parts_in.cache_write_tokens or parts_in.audio_tokens or parts_in.image_tokens)
        and outgoing is not None
        and 0 <= incoming <= units.COUNT_MAX
        and 0 <= outgoing <= units.COUNT_MAX
        and (total is None or total == incoming + outgoing)
    ):
        # Nearly every report: two numbers that add up, and nothing "of which".
        return tuple.__new__(units.Usage, (incoming, 0, 0, 0, outgoing, 0, 0, ()))
    # Some providers (xAI) report reasoning beside the completion tokens instead of among them; only the total tells.
    if reasoning and total and outgoing is not None and total == incoming + outgoing + reasoning:
        outgoing += reasoning
    usage = units.split(
        incoming,
        outgoing or 0,
        total=total,
        cached=parts_in.cached_tokens or 0,
        cache_write=parts_in.cache_write_tokens or 0,
        input_audio=parts_in.audio_tokens or 0,
        reasoning=reasoning or 0,
        output_audio=parts_out.audio_tokens or 0,
    )
    return _with_images(usage, parts_in.image_tokens) if parts_in.image_tokens else usage


def _with_images(usage: units.Usage | units.Contradiction, images: Any) -> units.Usage | units.Contradiction:
    """Tokens of images as a leaf of their own. Those that were cached are among the cached ones already."""
    if isinstance(usage, units.Contradiction) or not images:
        return usage
    if type(images) is not int or images < 0:
        return units.Contradiction("image tokens are not a whole number")
    fresh = min(images, usage.input_text)
    return usage._replace(
        input_text=usage.input_text - fresh,
        other=units.measures([*usage.other, units.Measure("input_image_tokens", "", fresh)]),
    )


def _with_search(
    usage: units.Usage | units.Contradiction | None, model: str
) -> units.Usage | units.Contradiction | None:
    """A model that searches the web does so in every call, and the search is billed; its report does not say so."""
    if not isinstance(usage, units.Usage) or not searches(model):
        return usage
    return usage._replace(other=units.measures([*usage.other, units.Measure("web_searches", "", 1)]))


def searches(model: str) -> bool:
    """Whether a model searches the web in every call (OpenAI, "Web search", limitations: search models of chat)."""
    return "-search-preview" in model or "-search-api" in model


def says_by_name(model: str) -> bool:
    """Whether a chat's bound depends on the model's name: it may search unasked, or hear what the history names."""
    return "search" in model or "audio" in model


def report_of(body: bytes, outputs: bool = True) -> Report:
    """What a whole answer reports. Never raises."""
    try:
        answer = _answer(body)
    except DECODING_ERRORS:
        return _loose_report(body, outputs)
    usage = None if answer.usage is None else leaves(answer.usage, outputs)
    model, id, tier = answer.model or "", answer.id or "", answer.service_tier or ""
    if len(model) + len(id) + len(tier) > NAME_CHARACTERS_MAX:
        model, id, tier = short(model), short(id), short(tier)
    return _report(usage, model, id, tier, 0)


def _report(usage: units.Usage | units.Contradiction | None, model: str, id: str, tier: str, unknown: int) -> Report:
    if "search" in model:
        usage = _with_search(usage, model)
    if type(usage) is units.Contradiction:
        return Report(None, usage.rule, model, id, tier, unknown)
    # A named tuple's own constructor costs three times as much as the tuple's, on every answer.
    return tuple.__new__(Report, (usage, "", model, id, tier, unknown, False))


def _loose_report(body: bytes, outputs: bool) -> Report:
    try:
        # Most answers that do not fit have a usage report with a member that is not documented.
        answer = _loose_answer(body)
    except DECODING_ERRORS:
        value = loose(body)
        if not isinstance(value, dict):
            return Report(None, "the answer is not a JSON object")
        told, model, id, tier = value.get("usage"), value.get("model"), value.get("id"), value.get("service_tier")
    else:
        told, model, id, tier = answer.usage, answer.model, answer.id, answer.service_tier
    usage = None if told is None else loose_usage(told, outputs)
    return _report(usage, short(model), short(id), short(tier), unknown_members(told, _KNOWN))


#: What the formats call the object with their usage.
_USAGE_NAMES: Final = (b'"usage"', b'"usageMetadata"')


def usage_in_tail(tail: bytes, usage_of: Callable[[bytes], Report]) -> Report:
    """The usage at the end of a JSON answer of which only the last bytes were kept."""
    for name in _USAGE_NAMES:
        start = tail.rfind(name)
        opened = tail.find(b"{", start, start + 32) if start >= 0 else -1
        depth = 0
        for at in range(opened, len(tail)) if opened >= 0 else ():
            depth += (tail[at] == 0x7B) - (tail[at] == 0x7D)
            if not depth:
                return usage_of(b"{" + name + b":" + tail[opened : at + 1] + b"}")
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
    incoming, outgoing, total = told.get("prompt_tokens"), told.get("completion_tokens"), told.get("total_tokens")
    if incoming is None or (outgoing is None and outputs):
        return units.Contradiction(MISSING)
    parts_in = told.get("prompt_tokens_details")
    parts_out = told.get("completion_tokens_details")
    parts_in = parts_in if isinstance(parts_in, dict) else {}
    parts_out = parts_out if isinstance(parts_out, dict) else {}
    reasoning = parts_out.get("reasoning_tokens")
    if type(incoming) is type(outgoing) is type(total) is type(reasoning) is int and reasoning:
        # Beside the output instead of among it, as in ``leaves``.
        outgoing += reasoning if total == incoming + outgoing + reasoning else 0
    usage = units.split(
        incoming,
        outgoing,
        total=total,
        cached=parts_in.get("cached_tokens"),
        cache_write=parts_in.get("cache_write_tokens"),
        input_audio=parts_in.get("audio_tokens"),
        reasoning=reasoning,
        output_audio=parts_out.get("audio_tokens"),
    )
    return _with_images(usage, parts_in.get("image_tokens"))


#: Members of a usage report that are documented, and of the objects in it. Below ``""`` are also those by which other
#: servers say again what is said elsewhere (DeepSeek), or how long it took (Groq).
_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset(
        """
        prompt_tokens completion_tokens total_tokens prompt_tokens_details completion_tokens_details
        prompt_cache_hit_tokens prompt_cache_miss_tokens queue_time prompt_time completion_time total_time
        """.split()
    ),
    "prompt_tokens_details": frozenset(InputDetails.__struct_fields__),
    "completion_tokens_details": frozenset(OutputDetails.__struct_fields__),
}


def unknown_members(told: Any, known: Mapping[str, frozenset[str]], within: str = "") -> int:
    """How many members of a usage report are in none of the documented objects and say something."""
    if not isinstance(told, dict):
        return 0
    count = 0
    names = known[within]
    for name, value in told.items():
        if name not in names:
            count += bool(value)
        elif name in known and not within:
            count += unknown_members(value, known, name)
    return count


def short(value: Any) -> str:
    """A name that is short enough to be kept; empty for what is none."""
    if not isinstance(value, str):
        return ""
    # Half a surrogate pair can be written in JSON and in nothing else.
    return value[:NAME_CHARACTERS_MAX].encode("utf-8", "replace").decode()


#: Members of a streamed choice that name things and hold no billed text.
_LABELS: Final = frozenset(("role", "type", "id", "index", "finish_reason", "object", "logprobs"))


def object_lines(payloads: list[bytes]) -> bytes:
    """``payloads``, in none of which is a line end, one a line; empty where some may not be one object.

    A decoder of lines takes two values on one line, too, and one value on two. Where each line begins and ends as an
    object does, and there are as many values as lines, each line is one.
    """
    lines = b"\n".join(payloads)
    apart = lines.count(b"}\n{") == len(payloads) - 1
    return lines if apart and lines.startswith(b"{") and lines.endswith(b"}") else b""


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
    model = short(value.get("model"))
    return Event(
        "".join(texts_of(choices)),
        sum(isinstance(choice, dict) and choice.get("finish_reason") is not None for choice in choices),
        _with_search(None if told is None else loose_usage(told, outputs=True), model),
        not choices,
        value.get("error") is not None,
        model,
        short(value.get("id")),
        service_tier=short(value.get("service_tier")),
        unknown=unknown_members(told, _KNOWN),
    )
