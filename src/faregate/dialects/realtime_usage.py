"""What a realtime session's events say it used, and our own count where they say nothing.

A response reports tokens by kind, text, audio and image, each of them cached or not; the leaves do not overlap and add
up to the totals again, else it is a contradiction (OpenAI, "Realtime: managing costs"). Never raises.
"""

from typing import Any, Final

from faregate.core import usage as units
from faregate.core.metering.meter import Report
from faregate.core.usage import COUNT_MAX, Contradiction, Measure, Usage
from faregate.dialects import answers, media_usage
from faregate.dialects.openai_audio import HEARD_TOKENS_PER_SECOND

#: Output tokens of a second that is spoken: one for 50 ms.
SPOKEN_TOKENS_PER_SECOND: Final = 20

_KNOWN: Final = frozenset("input_tokens output_tokens total_tokens input_token_details output_token_details".split())
_KNOWN_IN: Final = frozenset("text_tokens audio_tokens image_tokens cached_tokens cached_tokens_details".split())
_KNOWN_CACHED: Final = frozenset("text_tokens audio_tokens image_tokens".split())
_KNOWN_OUT: Final = frozenset("text_tokens audio_tokens reasoning_tokens".split())


def usage_of(body: bytes) -> Report:
    """What an object with a ``usage`` member reports, as a lookup of a provider tells it."""
    answer = media_usage.read(body)
    return report_of(answer.usage, None, None) if answer is not None else Report()


def report_of(used: Any, model: str | None, id: str | None) -> Report:
    """What the ``usage`` of a response reports (OpenAI, "Realtime: managing costs")."""
    if used is None:
        return Report(None, "", answers.short(model), answers.short(id))
    if not isinstance(used, dict):
        return Report(None, "the usage report is not an object", answers.short(model), answers.short(id))
    into, out = _part(used, "input_token_details"), _part(used, "output_token_details")
    cached = _part(into, "cached_tokens_details")
    unknown = sum(
        value is not None and name not in names
        for part, names in ((used, _KNOWN), (into, _KNOWN_IN), (cached, _KNOWN_CACHED), (out, _KNOWN_OUT))
        for name, value in part.items()
    )
    return reported(_split(used, into, cached, out), unknown, answers.short(model), answers.short(id))


def reported(used: Usage | Contradiction | None, unknown: int, model: str, id: str) -> Report:
    """A report from what was found."""
    if isinstance(used, Contradiction):
        return Report(None, used.rule, model, id, unknown=unknown)
    return Report(used, "", model, id, unknown=unknown)


def _part(found: dict[str, Any], name: str) -> dict[str, Any]:
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def _split(
    used: dict[str, Any], into: dict[str, Any], cached: dict[str, Any], out: dict[str, Any]
) -> Usage | Contradiction:
    audio, image = into.get("audio_tokens") or 0, into.get("image_tokens") or 0
    whole = into.get("cached_tokens") or 0
    cached_audio, cached_image = cached.get("audio_tokens") or 0, cached.get("image_tokens") or 0
    for value in (audio, image, whole, cached_audio, cached_image):
        if type(value) is not int or not 0 <= value <= COUNT_MAX:
            return Contradiction("audio, image or cached tokens are not a whole number within reason")
    incoming = used.get("input_tokens")
    if not cached and type(incoming) is int:
        # Which kind they are of is not told: text first, of which the discount is the smallest.
        text = max(0, incoming - audio - image)
        cached_audio = min(audio, max(0, whole - text))
        cached_image = max(0, whole - text - cached_audio)
    if cached_audio > audio or cached_image > image or cached_audio + cached_image > whole:
        return Contradiction("cached audio or image tokens exceed the tokens they are part of")
    if incoming is None and used.get("output_tokens") is None:
        return Contradiction("input and output tokens are missing")
    # All that is not plain audio comes out as text or as cached; the one place that splits totals checks the sums.
    found = units.split(
        incoming,
        used.get("output_tokens"),
        total=used.get("total_tokens"),
        cached=whole,
        input_audio=audio - cached_audio,
        reasoning=out.get("reasoning_tokens"),
        output_audio=out.get("audio_tokens"),
    )
    if isinstance(found, Contradiction):
        return found
    plain_image = image - cached_image
    if plain_image > found.input_text:
        return Contradiction("image tokens exceed the input tokens they are part of")
    other = (
        Measure("input_image_tokens", "", plain_image),
        Measure("cached_input_audio_tokens", "", cached_audio),
        Measure("cached_input_image_tokens", "", cached_image),
    )
    return found._replace(
        input_text=found.input_text - plain_image,
        input_cached=found.input_cached - cached_audio - cached_image,
        other=units.measures(other),
    )


def tokens_of_text(characters: int) -> int:
    """Tokens of a text by its length: 3.5 characters each, rounded up."""
    return (characters * 2 + 6) // 7


def heard_tokens(audio_bytes: int, bytes_per_second: int) -> int:
    """Input tokens of sound, rounded up."""
    return -(-audio_bytes * HEARD_TOKENS_PER_SECOND // bytes_per_second)


def spoken_tokens(audio_bytes: int, bytes_per_second: int) -> int:
    """Output tokens of sound, rounded up."""
    return -(-audio_bytes * SPOKEN_TOKENS_PER_SECOND // bytes_per_second)
