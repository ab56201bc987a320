"""OpenAI's audio: transcriptions, translations and speech, plain and as streams. Pure.

Models with ``whisper`` in their name are billed by the second; other transcribers by tokens, ten of audio a second.
Speech is billed by the character at models with ``tts-1`` in their name and by tokens at all others, which only a
stream of events tells. Its sound is silence, as long as its tokens. (OpenAI, "API reference: Audio" and its events.)
"""

from base64 import b64encode
from collections.abc import Iterator
from math import ceil
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

from faregate.simulator import wording
from faregate.simulator.asks import Ask, AskInvalid, decoded
from faregate.simulator.events import PING, Event, Kind, told
from faregate.simulator.forms import form_of
from faregate.simulator.http1 import Request
from faregate.simulator.plan import Plan
from faregate.simulator.shapes import with_usage
from faregate.simulator.sounds import RATE, seconds_of, speech

_encode = msgspec.json.Encoder().encode
_ABSENT = Raw()

AUDIO_TOKENS_PER_SECOND: Final = 10
#: Tokens of speech in a minute.
SPOKEN_TOKENS_PER_MINUTE: Final = 1_250

_TEXTS: Final = ("text", "srt", "vtt")
_FORMATS: Final = ("json", "verbose_json", "diarized_json", *_TEXTS)
_SOUNDS: Final = {"mp3": "audio/mpeg", "aac": "audio/aac", "wav": "audio/wav", "pcm": "audio/pcm"}


class _File(NamedTuple):
    """What only this speaker looks at, of a recording."""

    seconds: float
    format: str
    task: str


# -- transcriptions and translations -----------------------------------------------------------------------------------


def read(request: Request, name: str) -> Ask:
    """What a transcription asks."""
    return _read(request, name, "transcribe")


def read_translation(request: Request, name: str) -> Ask:
    """What a translation asks."""
    return _read(request, name, "translate")


def _read(request: Request, name: str, task: str) -> Ask:
    form = form_of(request)
    model = form.field("model", name) or name
    if not model:
        raise AskInvalid("you must provide a model parameter", "model")
    if "file" not in form.files:
        raise AskInvalid("Missing required parameter: 'file'.", "file")
    answer_format = form.field("response_format", "json")
    if answer_format not in _FORMATS:
        raise AskInvalid(f"Invalid 'response_format': expected one of {', '.join(_FORMATS)}.", "response_format")
    prompt = form.field("prompt")
    facts = _File(seconds_of(form.files["file"][0].content), answer_format, task)
    tokens = ceil(facts.seconds) * AUDIO_TOKENS_PER_SECOND + wording.count(prompt)
    # The older model ignores that a stream is asked for.
    streamed = form.field("stream").lower() == "true" and "whisper" not in model
    return Ask(task, model, prompt, tokens, stream=streamed, facts=facts)


def _file(plan: Plan) -> _File:
    facts = plan.ask.facts
    return facts if isinstance(facts, _File) else _File(1.0, "json", "transcribe")


def usage(plan: Plan, delivered: int | None) -> dict[str, Any]:
    """The true usage: seconds, started ones whole, or tokens."""
    if "whisper" in plan.ask.model:
        return {"type": "duration", "seconds": ceil(_file(plan).seconds)}
    outgoing = plan.output_tokens if delivered is None else delivered
    audio = min(ceil(_file(plan).seconds) * AUDIO_TOKENS_PER_SECOND, plan.prompt_tokens)
    return {
        "type": "tokens",
        "input_tokens": plan.prompt_tokens,
        "input_token_details": {"text_tokens": plan.prompt_tokens - audio, "audio_tokens": audio},
        "output_tokens": outgoing,
        "total_tokens": plan.prompt_tokens + outgoing,
    }


def content_type(plan: Plan) -> str:
    """Plain text for subtitles and text, else JSON."""
    return "text/plain; charset=utf-8" if _file(plan).format in _TEXTS else "application/json"


def answer(plan: Plan) -> bytes:
    """A whole transcript, in the format that was asked for."""
    file, text = _file(plan), plan.text(0, plan.visible_tokens, 0)
    if file.format == "text":
        return text.encode() + b"\n"
    if file.format in _TEXTS:
        mark = "," if file.format == "srt" else "."
        span = f"00:00:00{mark}000 --> {_clock(file.seconds, mark)}"
        head = "WEBVTT\n\n" if file.format == "vtt" else "1\n"
        return f"{head}{span}\n{text}\n\n".encode()
    body: dict[str, Any] = {"text": text}
    if file.format == "verbose_json":
        segment = {
            "id": 0,
            "seek": 0,
            "start": 0.0,
            "end": file.seconds,
            "text": text,
            "tokens": [],
            "temperature": 0.0,
        }
        segment |= {"avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0}
        body = {"task": file.task, "language": "english", "duration": file.seconds, **body, "segments": [segment]}
    elif file.format == "diarized_json":
        segment = {"id": "seg_0", "type": "transcript.text.segment", "speaker": "A", "start": 0.0, "end": file.seconds}
        body = {"task": file.task, "duration": file.seconds, **body, "segments": [{**segment, "text": text}]}
    return with_usage(plan, body, usage(plan, None))


def _clock(seconds: float, mark: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{milliseconds:03}"


def events(plan: Plan) -> Iterator[Event]:
    """All events of a transcript, its usage in the last one."""
    return told(plan, _Transcript(plan))


class _Transcript:
    """See ``events.Writer``."""

    after_text = b"}\n\n"
    ping = PING
    error = b'data: {"type":"error","error":{"code":"server_error","message":"Asked to fail."}}\n\n'

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def opening(self) -> Iterator[Event]:
        """Nothing comes before the first word."""
        yield from ()

    def texts(self) -> Iterator[Event]:
        """The words."""
        plan = self._plan
        hidden = plan.output_tokens - plan.visible_tokens
        for first in range(0, plan.visible_tokens, plan.chunk_tokens):
            count = min(plan.chunk_tokens, plan.visible_tokens - first)
            yield Event(Kind.TEXT, self.text(0, plan.text(first, count, 0)), count + (hidden if first == 0 else 0))

    def text(self, choice: int, text: str) -> bytes:
        """One event with text; there is but one choice."""
        del choice
        return b'data: {"type":"transcript.text.delta","delta":' + _encode(text) + self.after_text

    def finish(self) -> Iterator[Event]:
        """Nothing comes between the words and the end."""
        yield from ()

    def usage(self, fault: str) -> Iterator[Event]:
        """There is no such event here."""
        del fault
        yield from ()

    @property
    def done(self) -> bytes:
        """The last event, with the whole transcript."""
        plan = self._plan
        body = {"type": "transcript.text.done", "text": plan.text(0, plan.visible_tokens, 0)}
        return b"data: %b\n\n" % with_usage(plan, body, usage(plan, None))


# -- speech ------------------------------------------------------------------------------------------------------------


class _Speech(Struct, forbid_unknown_fields=True):
    input: Annotated[str, Meta(min_length=1, max_length=4096)]
    voice: str | dict[str, str]
    model: str = ""
    response_format: str | None = None
    speed: Annotated[float, Meta(ge=0.25, le=4)] | None = None
    stream_format: str | None = None
    instructions: str | None = None


_decode = msgspec.json.Decoder(_Speech).decode


def read_speech(request: Request, name: str) -> Ask:
    """What a request for speech asks."""
    asked = decoded(_decode, request.body)
    model = asked.model or name
    if not model:
        raise AskInvalid("you must provide a model parameter", "model")
    if (asked.response_format or "mp3") not in _SOUNDS:
        raise AskInvalid(f"The simulator speaks only {', '.join(_SOUNDS)}.", "response_format")
    if asked.stream_format == "sse" and "tts-1" in model:
        raise AskInvalid("'stream_format' of 'sse' is not supported by this model.", "stream_format")
    tokens = wording.count(asked.input) + wording.count(asked.instructions or "")
    return Ask("speech", model, asked.input, tokens, stream=asked.stream_format == "sse", facts=asked)


def _asked(plan: Plan) -> _Speech:
    facts = plan.ask.facts
    return facts if isinstance(facts, _Speech) else _Speech("?", "alloy")


def usage_of_speech(plan: Plan, delivered: int | None) -> dict[str, Any]:
    """The true usage: characters, or tokens."""
    if "tts-1" in plan.ask.model:
        return {"characters": len(_asked(plan).input)}
    outgoing = plan.output_tokens if delivered is None else delivered
    return {
        "input_tokens": plan.prompt_tokens,
        "output_tokens": outgoing,
        "total_tokens": plan.prompt_tokens + outgoing,
    }


def content_type_of_speech(plan: Plan) -> str:
    """The sound's own; of a stream that of events."""
    return "application/json" if plan.ask.stream else _SOUNDS[_asked(plan).response_format or "mp3"]


def answer_speech(plan: Plan) -> bytes:
    """The whole sound."""
    return _sound(plan, plan.output_tokens)


def _sound(plan: Plan, tokens: int) -> bytes:
    return speech(_asked(plan).response_format or "mp3", RATE * 60 * tokens // SPOKEN_TOKENS_PER_MINUTE)


def events_of_speech(plan: Plan) -> Iterator[Event]:
    """All events of speech, its usage in the last one."""
    return told(plan, _Spoken(plan))


class _Spoken(_Transcript):
    """Pieces of sound instead of words."""

    error = b'data: {"type":"error","error":{"code":"server_error","message":"Asked to fail."}}\n\n'

    def texts(self) -> Iterator[Event]:
        """The sound, in pieces."""
        plan = self._plan
        size = max(plan.chunk_tokens, 16)
        for first in range(0, plan.output_tokens, size):
            count = min(size, plan.output_tokens - first)
            yield Event(Kind.TEXT, self.text(0, b64encode(_sound(plan, count)).decode()), count)

    def text(self, choice: int, text: str) -> bytes:
        """One event with sound."""
        del choice
        return b'data: {"type":"speech.audio.delta","audio":' + _encode(text) + self.after_text

    @property
    def done(self) -> bytes:
        """The last event."""
        plan = self._plan
        return b"data: %b\n\n" % with_usage(plan, {"type": "speech.audio.done"}, usage_of_speech(plan, None))
