"""What answers about images, audio and search results say they used: ``input_tokens`` by kind, seconds, search units.

These reports name their parts (text, image, audio) where those of chats name only what is special; what kind the output
is, the operation says. A member that nobody here knows may be billed, so it is counted (CAPABILITIES M9). Never raises.
"""

from decimal import Decimal, InvalidOperation
from math import ceil
from typing import Any, Final, Literal

import msgspec

from faregate.core import usage as units
from faregate.core.metering.meter import Report
from faregate.core.usage import COUNT_MAX, Contradiction, Measure, Usage
from faregate.dialects import answers
from faregate.dialects.jsonbody import DECODING_ERRORS

#: What the output of an operation is.
Output = Literal["text", "image", "audio"]


class Answer(msgspec.Struct, gc=False):
    """The members of a whole answer, or of an event, that tell its usage; images themselves are passed over in C."""

    type: Any = None
    usage: Any = None
    model: Any = None
    id: Any = None
    duration: Any = None
    meta: Any = None
    svg_usage: Any = None
    error: Any = None
    delta: Any = None
    choices: Any = None


_answer = msgspec.json.Decoder(Answer).decode

_KNOWN: Final = frozenset(
    """
    type input_tokens output_tokens total_tokens input_tokens_details input_token_details output_tokens_details
    output_token_details prompt_tokens completion_tokens seconds prompt_tokens_details search_units
    """.split()
)
_KNOWN_PARTS: Final = frozenset(("text_tokens", "image_tokens", "audio_tokens"))


def read(body: bytes) -> Answer | None:
    """The members that matter, of an answer or an event; ``None`` where it is no JSON object."""
    try:
        return _answer(body)
    except DECODING_ERRORS:
        value = answers.loose(body)
    if not isinstance(value, dict):
        return None
    return Answer(**{name: value.get(name) for name in Answer.__struct_fields__})


def named(answer: Answer) -> tuple[str, str]:
    """The model that answered and the id, as far as they can be kept."""
    return answers.short(answer.model), answers.short(answer.id)


def report(answer: Answer | None, usage: Usage | Contradiction | None, unknown: int = 0) -> Report:
    """A report from what was found in an answer."""
    if answer is None:
        return Report(None, "the answer is not a JSON object")
    model, id = named(answer)
    if isinstance(usage, Contradiction):
        return Report(None, usage.rule, model, id, unknown=unknown)
    return Report(usage, "", model, id, unknown=unknown)


def leaves(told: Any, output: Output) -> tuple[Usage | Contradiction | None, int]:
    """The leaves of a usage object whose output is of one kind, and how many of its members nobody knows."""
    if told is None:
        return None, 0
    if not isinstance(told, dict):
        return Contradiction("the usage report is not an object"), 0
    unknown = sum(value is not None and name not in _KNOWN for name, value in told.items())
    if told.get("type") == "duration":
        seconds = whole_seconds(told.get("seconds"))
        if seconds is None:
            return Contradiction("seconds are not a number within reason"), unknown
        return Usage(other=units.measures((Measure("seconds", "", seconds),))), unknown
    incoming = told.get("input_tokens", told.get("prompt_tokens"))
    outgoing = told.get("output_tokens", told.get("completion_tokens"))
    parts_in = told.get("input_tokens_details", told.get("input_token_details"))
    parts_out = told.get("output_tokens_details", told.get("output_token_details"))
    parts_in = parts_in if isinstance(parts_in, dict) else {}
    parts_out = parts_out if isinstance(parts_out, dict) else {}
    for parts in (parts_in, parts_out):
        unknown += sum(bool(value) and name not in _KNOWN_PARTS for name, value in parts.items())
    if incoming is None:
        return Contradiction("input tokens are missing"), unknown
    counts = (
        _part(parts_in, "image_tokens"),
        _part(parts_in, "audio_tokens"),
        # Where the parts are not told, all output is of the kind that the operation makes.
        _part(parts_out, "image_tokens") if parts_out or output != "image" else outgoing or 0,
        _part(parts_out, "audio_tokens") if parts_out or output != "audio" else outgoing or 0,
    )
    return _split(incoming, outgoing, told.get("total_tokens"), counts), unknown


def _part(parts: dict[str, Any], name: str) -> Any:
    value = parts.get(name)
    return 0 if value is None else value


def _split(incoming: Any, outgoing: Any, total: Any, counts: tuple[Any, ...]) -> Usage | Contradiction:
    image_in, audio_in, image_out, audio_out = counts
    for value in (image_in, image_out):
        if type(value) is not int or not 0 <= value <= COUNT_MAX:
            return Contradiction("image tokens are not a whole number within reason")
    # Text and images together are what is left, so that the one place that splits totals checks these, too.
    found = units.split(incoming, outgoing, total=total, input_audio=audio_in, output_audio=audio_out)
    if isinstance(found, Contradiction):
        return found
    if image_in > found.input_text or image_out > found.output_text:
        return Contradiction("image tokens exceed the tokens they are part of")
    images = (Measure("input_image_tokens", "", image_in), Measure("output_image_tokens", "", image_out))
    return found._replace(
        input_text=found.input_text - image_in,
        output_text=found.output_text - image_out,
        other=units.measures(images),
    )


def whole_seconds(told: Any) -> int | None:
    """Seconds as they are billed: started ones count whole; ``None`` for what is no number within reason."""
    if isinstance(told, str):
        # Some servers of the format write the duration as text.
        try:
            told = Decimal(told) if len(told) < 32 else None
        except InvalidOperation:
            return None
        if told is None or not told.is_finite():
            return None
    if type(told) not in (int, float, Decimal) or not 0 <= told <= COUNT_MAX:
        return None
    seconds: int = ceil(told)
    return seconds
