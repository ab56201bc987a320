"""The documented shapes of OpenAI's Realtime events, as far as anybody here looks at them; decoded in C.

Data alone, as ``shapes`` is; what a field means is for ``openai_realtime`` to say (OpenAI, "API reference: Realtime",
client events and server events; those of the beta, which Azure's dated versions still speak, beside those of today).
"""

from typing import Any

import msgspec


class Heading(msgspec.Struct, gc=False):
    """What every event of a provider may say beside its content."""

    type: str = ""
    #: Base64 or text, as the type says; only its length is of interest.
    delta: msgspec.Raw = msgspec.Raw()
    response_id: str | None = None
    item_id: str | None = None
    audio_start_ms: Any = None
    audio_end_ms: Any = None


class Response(msgspec.Struct, gc=False):
    """A response at its begin or its end."""

    id: str | None = None
    status: str | None = None
    usage: Any = None
    model: str | None = None


class ResponseEvent(msgspec.Struct, gc=False):
    """``response.created`` and ``response.done``."""

    response: Response


class Transcript(msgspec.Struct, gc=False):
    """``conversation.item.input_audio_transcription.completed``."""

    item_id: str | None = None
    transcript: str = ""
    usage: Any = None


class Complaint(msgspec.Struct, gc=False):
    """What an ``error`` event says."""

    event_id: str | None = None
    code: str | None = None


class ErrorEvent(msgspec.Struct, gc=False):
    """An ``error`` event."""

    error: Complaint


class SessionEvent(msgspec.Struct, gc=False):
    """``session.created`` and ``session.updated``."""

    session: dict[str, Any]
