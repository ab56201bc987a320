"""The shapes of Gemini's answers, as far as anybody here looks at them; decoded in C.

Data alone: what a field means is for ``gemini`` to say. Apart from it, because code that may be compiled does not take
these classes (docs/decisions/010).
"""

from typing import Any

import msgspec


class Part(msgspec.Struct, gc=False):
    """A part of an answer's content."""

    text: str | None = None
    functionCall: Any = None  # noqa: N815 (the provider's name)
    executableCode: Any = None  # noqa: N815 (the provider's name)


class Content(msgspec.Struct, gc=False):
    """What a candidate says."""

    parts: list[Part] | None = None


class Grounding(msgspec.Struct, gc=False):
    """Where an answer comes from."""

    webSearchQueries: list[str] | None = None  # noqa: N815 (the provider's name)
    imageSearchQueries: list[str] | None = None  # noqa: N815 (the provider's name)


class Candidate(msgspec.Struct, gc=False):
    """One of the answers."""

    content: Content | None = None
    finishReason: str | None = None  # noqa: N815 (the provider's name)
    groundingMetadata: Grounding | None = None  # noqa: N815 (the provider's name)


class Answer(msgspec.Struct, gc=False):
    """A whole answer, or an event of a stream: both have one shape."""

    candidates: list[Candidate] | None = None
    usageMetadata: dict[str, Any] | None = None  # noqa: N815 (the provider's name)
    modelVersion: str | None = None  # noqa: N815 (the provider's name)
    responseId: str | None = None  # noqa: N815 (the provider's name)
    error: Any = None
