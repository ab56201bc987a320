"""OpenAI audio: transcriptions and translations of files, speech from text; what a call asks and an answer used.

Some models are billed by seconds of audio or characters of text, others by tokens; only the price of the model tells
which, so a call says both. Answers of these formats may be text, subtitles or sound, which report nothing: then the
seconds or characters that the request tells are billed, or our own count of the sound (``counted_speech``).

Facts from OpenAI's API reference (audio), its guides "Speech to text" and "Text to speech", and its price list.
"""

from fractions import Fraction
from math import ceil
from typing import Final

import msgspec

from faregate.core.call import AUDIO_IN, AUDIO_OUT, Call
from faregate.core.metering.meter import Event, Report
from faregate.core.usage import Measure, Usage, measures
from faregate.dialects import fields, forms, media, media_usage
from faregate.dialects.forms import Form
from faregate.dialects.jsonbody import DECODING_ERRORS, members
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.errors import Problem

TRANSCRIPTIONS: Final = "audio.transcriptions"
TRANSLATIONS: Final = "audio.translations"
SPEECH: Final = "audio.speech"

#: Tokens that a model hears in a second: OpenAI's 10, Gemini's 32.
HEARD_TOKENS_PER_SECOND: Final = 10
HEARD_TOKENS_PER_SECOND_MAX: Final = 32
#: A transcript has at most twice the tokens that Whisper's decoder can say of 30 seconds (224), and the documented
#: maximum of an answer where that is more.
WRITTEN_TOKENS_PER_SECOND_MAX: Final = 16
TRANSCRIPT_TOKENS: Final = 2_000

#: Audio tokens of a second of speech: OpenAI estimates 1,250 a minute of gpt-4o-mini-tts from $12 a million tokens and
#: $0.015 a minute.
SPOKEN_TOKENS_PER_MINUTE: Final = 1_250
#: A byte of text is spoken in half a second at most: digits and symbols take the longest, letters a tenth of it.
SPOKEN_TOKENS_PER_BYTE_MAX: Final = 12
SPEECH_TOKENS_MIN: Final = 1_000
#: OpenAI's ``pcm``: 24 kHz, 16 bits, one channel, no header.
PCM_BYTES_PER_SECOND: Final = 48_000

#: Samples of known speakers, of up to ten seconds each.
REFERENCE_SECONDS_MAX: Final = 10

INPUT_CHARACTERS_MAX: Final = 1_000_000

#: Fields of a form of which there can be only one reading.
_SINGLE: Final = frozenset(
    "file model prompt language response_format temperature stream user chunking_strategy service_tier".split()
)


#: Formats of an answer that tell neither seconds nor tokens.
_SILENT: Final = ("text", "srt", "vtt")

#: Fields by which some services fetch a recording, whose length nobody here can tell (Groq, "Speech to text": ``url``).
_ELSEWHERE: Final = ("url", "audio_url", "file_url", "file_id")

_number = msgspec.json.Decoder(float | None).decode


# -- transcriptions and translations -----------------------------------------------------------------------------------


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What a transcription asks (a form), or why it is refused."""
    del forbid_private_urls  # This format holds no addresses; the argument is every dialect's.
    return _read_file(TRANSCRIPTIONS, body, model)


def read_translation(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What a translation asks (a form), or why it is refused."""
    del forbid_private_urls
    return _read_file(TRANSLATIONS, body, model)


def _read_file(operation: str, body: bytes, model: str) -> Call | Problem:
    found = forms.opened(body, model, _SINGLE)
    if isinstance(found, Problem):
        return found
    form, name = found
    for elsewhere in _ELSEWHERE:
        if form.named(elsewhere):
            return unbounded(elsewhere, "a recording that the provider fetches", "send the file itself")
    files = form.named("file")
    if not files:
        return missing("file", "an audio file")
    file = files[0]
    if not file.size:
        return expected("field_range", "file", "an audio file", "an empty one")
    length = media.length(body, file.start, file.end)
    most = length.most + REFERENCE_SECONDS_MAX * len(form.named("known_speaker_references"))
    if most > media.SECONDS_MAX:
        return unbounded("file", "audio whose length cannot be told", "send a shorter file, as WAV, MP3 or FLAC")
    if not length.counted:
        problem = _told_by_the_answer(form, body)
        if problem is not None:
            return problem
    streamed = forms.flag(form, body, "stream")
    if isinstance(streamed, Problem):
        return streamed
    user = forms.end_user(form, body)
    if isinstance(user, Problem):
        return user
    return Call(
        operation,
        name,
        stream=streamed,
        output_cap=max(TRANSCRIPT_TOKENS, WRITTEN_TOKENS_PER_SECOND_MAX * most),
        input_tokens_max=len(body) - file.size + HEARD_TOKENS_PER_SECOND_MAX * most,
        end_user=user,
        members=form.names,
        media=AUDIO_IN,
        at_most=measures((Measure("seconds", "", most - length.seconds),)),
        declared=measures((Measure("seconds", "", length.seconds),)),
        sealed=True,
    )


def _told_by_the_answer(form: Form, body: bytes) -> Problem | None:
    """The refusal of an answer that says no length, for a file whose header alone would then decide what is paid."""
    told = forms.text(form, body, "response_format")
    if isinstance(told, Problem) or told not in _SILENT:
        return told if isinstance(told, Problem) else None
    remedy = "ask for json or verbose_json, or send the file as WAV, MP3, FLAC or AAC"
    return unbounded("response_format", f"{told} of a recording whose length only its header tells", remedy)


def usage_of(body: bytes) -> Report:
    """What a whole transcript reports, in tokens or seconds; nothing where it is plain text or subtitles."""
    if body[:1] != b"{" and body.lstrip()[:1] != b"{":
        return Report()
    answer = media_usage.read(body)
    if answer is None:
        # A transcript may begin with a brace, so that this is no broken report.
        return Report()
    usage, unknown = media_usage.leaves(answer.usage, "text")
    if answer.usage is None and answer.duration is not None:
        seconds = media_usage.whole_seconds(answer.duration)
        if seconds is not None:
            usage = Usage(other=measures((Measure("seconds", "", seconds),)))
    return media_usage.report(answer, usage, unknown)


def answer_text(body: bytes) -> str:
    """The transcript, without the JSON around it where there is any; with time marks where they are part of it."""
    try:
        told = msgspec.json.decode(body)
    except DECODING_ERRORS:
        return body.decode("utf-8", "replace")
    text = told.get("text") if isinstance(told, dict) else None
    return text if isinstance(text, str) else body.decode("utf-8", "replace")


def counted_transcript(body: bytes, call: Call) -> Usage:
    """Our own count of a whole transcript that reports nothing, for models that are billed by tokens.

    Ten tokens for a second that was heard (OpenAI, "Realtime: managing costs"), and one for four bytes of text; where
    nobody kept the text (``body`` is empty), as much as the call may have written.
    """
    seconds = sum(measure.quantity for measure in call.declared)
    most = seconds + sum(measure.quantity for measure in call.at_most)
    text = max(0, call.input_tokens_max - HEARD_TOKENS_PER_SECOND_MAX * most)
    most_written = call.output_cap or 0
    written = -(-len(answer_text(body).encode("utf-8", "replace")) // 4) if body else most_written
    return Usage(
        input_text=-(-text // 4),
        input_audio=HEARD_TOKENS_PER_SECOND * seconds,
        output_text=min(written, most_written or written),
    )


def prompt_text(body: bytes) -> list[str]:
    """The prompt of a transcription; what is heard is counted as overhead."""
    form = forms.parse(body)
    told = forms.text(form, body, "prompt") if isinstance(form, Form) else None
    return [told] if isinstance(told, str) else []


def prompt_tokens_overhead(body: bytes) -> int:
    """Upper bound of the tokens that are heard, and of the framing around the prompt."""
    call = read(body, "any")
    if not isinstance(call, Call):
        return 0
    seconds = sum(measure.quantity for measure in (*call.at_most, *call.declared))
    return HEARD_TOKENS_PER_SECOND_MAX * seconds + _FRAMING_TOKENS


_FRAMING_TOKENS: Final = 64


class TranscriptEvents:
    """Understands the events of a transcript; see ``EventDecoder``."""

    __slots__ = ()

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """The text of many events at once is told one by one."""
        del payloads
        return None

    def __call__(self, payload: bytes) -> Event | str:
        """What one event says."""
        return _event(payload, "transcript.text.delta", "transcript.text.done", "text")


class SpeechEvents:
    """Understands the events of speech; see ``EventDecoder``. Sound is no text, so it counts only as reported."""

    __slots__ = ()

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """No event says nothing but text."""
        del payloads
        return None

    def __call__(self, payload: bytes) -> Event | str:
        """What one event says."""
        return _event(payload, "", "speech.audio.done", "audio")


def _event(payload: bytes, delta: str, done: str, output: media_usage.Output) -> Event | str:
    answer = media_usage.read(payload)
    if answer is None:
        return Event(malformed=True)
    if delta and answer.type == delta and answer.usage is None and answer.error is None:
        return answer.delta if isinstance(answer.delta, str) else ""
    if delta and answer.choices is not None and answer.error is None:
        return _chunk(answer)
    # An id here is a segment's, not the answer's.
    model, _ = media_usage.named(answer)
    if answer.error is not None or answer.type == "error":
        return Event(error=True, model=model)
    told, unknown = media_usage.leaves(answer.usage, output)
    ended = answer.type == done or (not answer.type and told is not None)
    return Event(usage=told, finished=int(ended), model=model, unknown=unknown, last=ended)


def _chunk(answer: media_usage.Answer) -> Event | str:
    """What an event says that is written like one of a chat, as servers of open models do (vLLM, "Transcriptions API").

    Its stream ends with ``[DONE]``, and tells usage only where it was asked for.
    """
    choices = [each for each in answer.choices if isinstance(each, dict)] if isinstance(answer.choices, list) else []
    deltas = [each["delta"] for each in choices if isinstance(each.get("delta"), dict)]
    texts = [delta["content"] for delta in deltas if isinstance(delta.get("content"), str)]
    finished = sum(each.get("finish_reason") is not None for each in choices)
    told, unknown = media_usage.leaves(answer.usage, "text")
    if told is None and not finished:
        return "".join(texts)
    model, id = media_usage.named(answer)
    return Event("".join(texts), usage=told, finished=finished, model=model, id=id, unknown=unknown)


decode_transcript: Final = TranscriptEvents()
decode_speech: Final = SpeechEvents()
#: Only the last event of each stream holds these.
TRANSCRIPT_MARK: Final = b"transcript.text.done"
SPEECH_MARK: Final = b"speech.audio.done"


# -- speech ------------------------------------------------------------------------------------------------------------

_COMMON: Final = frozenset("model input voice instructions response_format speed stream_format".split())


def read_speech(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What a call for speech asks (JSON), or why it is refused."""
    del forbid_private_urls
    found = members(body, "input")
    if isinstance(found, Problem):
        return found
    if not _COMMON.issuperset(found):
        problem = fields.steering(found)
        if problem is not None:
            return problem
    name = model or fields.name(found.get("model"), "model")
    if isinstance(name, Problem):
        return name
    if "input" not in found:
        return missing("input", "the text to speak")
    text = fields.text(found["input"], "input")
    if isinstance(text, Problem):
        return text
    if not text or len(text) > INPUT_CHARACTERS_MAX:
        return expected("field_range", "input", "the text to speak", f"{len(text or '')} characters")
    speed = _speed(found.get("speed"))
    if isinstance(speed, Problem):
        return speed
    stream_format = fields.text(found["stream_format"], "stream_format") if "stream_format" in found else None
    if isinstance(stream_format, Problem):
        return stream_format
    if stream_format not in (None, "audio", "sse"):
        return expected("field_range", "stream_format", "audio or sse", echo(stream_format))
    user = fields.end_user(found)
    if isinstance(user, Problem):
        return user
    tier = fields.service_tier(found)
    if isinstance(tier, Problem):
        return tier
    spoken = SPEECH_TOKENS_MIN + SPOKEN_TOKENS_PER_BYTE_MAX * len(text.encode("utf-8", "replace"))
    return Call(
        SPEECH,
        name,
        stream=stream_format == "sse",
        output_cap=ceil(spoken / speed),
        input_tokens_max=len(body),
        end_user=user,
        members=tuple(found),
        media=AUDIO_OUT,
        declared=measures((Measure("characters", "", len(text)),)),
        service_tier=tier,
        sealed=True,
    )


def _speed(value: msgspec.Raw | None) -> Fraction | Problem:
    """How much faster than usual is spoken, as far as it makes speech longer."""
    if value is None:
        return Fraction(1)
    try:
        # Exact enough for a bound, whose arithmetic is a fraction's; a million digits cost no more than three.
        told: float | None = _number(value)
    except DECODING_ERRORS:
        return expected("field_type", "speed", "a number from 0.25 to 4", "something else")
    if told is None:
        return Fraction(1)
    if not 0.25 <= told <= 4:
        return expected("field_range", "speed", "a number from 0.25 to 4", echo(told))
    return min(Fraction(1), Fraction(told))


def speech_usage_of(body: bytes) -> Report:
    """Speech that is not streamed as events is sound and reports nothing; an error, too, costs nothing."""
    del body
    return Report()


def counted_speech(body: bytes, call: Call) -> Usage:
    """Our own count of a whole answer of sound: its length in audio tokens, and the text in tokens of four bytes.

    For models that are billed by tokens: none says them where the answer is no stream. Where nobody kept the sound
    (``body`` is empty) it was as long as the call may have made it.
    """
    most = call.output_cap or 0
    text = -(-call.input_tokens_max // 4)
    if not body:
        return Usage(input_text=text, output_audio=most)
    seconds = media.seconds_told(body)
    if seconds is None:
        seconds = Fraction(len(body), PCM_BYTES_PER_SECOND)
    tokens = ceil(seconds * SPOKEN_TOKENS_PER_MINUTE / 60)
    return Usage(input_text=text, output_audio=min(tokens, most or tokens))


def speech_text(body: bytes) -> str:
    """Sound is no text."""
    del body
    return ""


def speech_prompt_text(body: bytes) -> list[str]:
    """What is read before it is spoken: the text and the instructions."""
    found = members(body, "input")
    if isinstance(found, Problem):
        return []
    told = [fields.text(found[path], path) for path in ("input", "instructions") if path in found]
    return [text for text in told if isinstance(text, str)]


def speech_prompt_overhead(body: bytes) -> int:
    """Upper bound of the framing around the text."""
    del body
    return _FRAMING_TOKENS
