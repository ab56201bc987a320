"""The documented shapes of requests, answers and events, as far as anybody here looks at them; decoded in C.

Data alone: what a field means is for the dialects to say. Apart from them, because the code that compiles the request
path does not take these classes (docs/decisions/010).
"""

from typing import Any, Generic, TypeVar

import msgspec

# -- requests ----------------------------------------------------------------------------------------------------------


class StreamOptions(msgspec.Struct, gc=False):
    """``stream_options`` of a request."""

    include_usage: bool | None = None


class Part(msgspec.Struct, gc=False):
    """A part of a message's content; what kind it is, its members tell."""

    type: Any = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    video_url: Any = None


class Message(msgspec.Struct, gc=False):
    """A message of a chat, as far as its cost depends on it."""

    content: str | list[Part] | None = None
    audio: Any = None


class Tool(msgspec.Struct, gc=False):
    """A tool that a chat offers."""

    type: Any = None


# -- answers and events ------------------------------------------------------------------------------------------------


class InputDetails(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Parts of ``prompt_tokens``."""

    cached_tokens: int | None = 0
    cache_write_tokens: int | None = 0
    audio_tokens: int | None = 0
    image_tokens: int | None = 0
    #: What is left when the others are taken away.
    text_tokens: int | None = 0


class OutputDetails(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Parts of ``completion_tokens``."""

    reasoning_tokens: int | None = 0
    audio_tokens: int | None = 0
    text_tokens: int | None = 0
    #: Among the visible ones, and billed as they are.
    accepted_prediction_tokens: int | None = 0
    rejected_prediction_tokens: int | None = 0


class Usage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The ``usage`` object as documented; one of another shape is read by ``loose_usage``.

    A member that is not documented may be billed, so it makes the quick decoding fail and is then counted.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


class Answer(msgspec.Struct, gc=False):
    """What a whole answer says about itself, in every format."""

    usage: Usage | None = None
    model: str | None = None
    id: str | None = None
    service_tier: str | None = None


class LooseAnswer(msgspec.Struct, gc=False):
    """The same with a usage report of any shape."""

    usage: Any = None
    model: str | None = None
    id: str | None = None
    service_tier: str | None = None


StreamedChoice = TypeVar("StreamedChoice")


class Chunk(msgspec.Struct, Generic[StreamedChoice], gc=False):
    """An event of a stream, in every format that has choices."""

    choices: list[StreamedChoice] = msgspec.field(default_factory=list)
    usage: Usage | None = None
    error: msgspec.Raw | None = None


class PlainChunk(msgspec.Struct, Generic[StreamedChoice], gc=False):
    """An event that says text of the only choice and nothing else; any other does not decode as one."""

    choices: tuple[StreamedChoice]
    usage: None = None
    error: None = None


class LooseChunk(msgspec.Struct, Generic[StreamedChoice], gc=False):
    """The same with a usage report of any shape."""

    choices: list[StreamedChoice] = msgspec.field(default_factory=list)
    usage: Any = None
    error: Any = None


class Named(msgspec.Struct, gc=False):
    """Who answered, and in which service tier."""

    model: str | None = None
    id: str | None = None
    service_tier: str | None = None


class ChatChoice(msgspec.Struct, gc=False):
    """A choice in an event of a chat."""

    delta: dict[str, Any] | None = None
    finish_reason: str | None = None


class PlainChatDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Text and nothing else."""

    content: str


class PlainChatChoice(msgspec.Struct, gc=False):
    """A choice that says text and nothing else."""

    delta: PlainChatDelta
    finish_reason: None = None


class CompletionChoice(msgspec.Struct, gc=False):
    """A choice in an event of a completion."""

    text: str | None = None
    finish_reason: str | None = None


class PlainCompletionChoice(msgspec.Struct, gc=False):
    """A choice that says text and nothing else."""

    text: str
    finish_reason: None = None
