"""The shapes of Anthropic's messages, as far as anybody here looks at them; decoded in C.

Data alone: what a field means is for ``anthropic_messages`` to say. Apart from it, because code that may be compiled
does not take these classes (docs/decisions/010).
"""

from typing import Any, Literal

import msgspec


class Metadata(msgspec.Struct, gc=False):
    """``metadata`` of a request."""

    user_id: str | None = None


class Tool(msgspec.Struct, gc=False):
    """A tool that a request offers; those without a type are the caller's own functions."""

    type: str | None = None
    max_uses: Any = None


class Answer(msgspec.Struct, gc=False):
    """A whole answer."""

    usage: dict[str, Any] | None = None
    model: str | None = None
    id: str | None = None


class Delta(msgspec.Struct, gc=False):
    """What an event adds to a block, or why the message ended."""

    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class Started(msgspec.Struct, gc=False):
    """A block as it begins: mostly empty, and the name of a tool that is called."""

    text: str | None = None
    thinking: str | None = None
    name: str | None = None


class StreamEvent(msgspec.Struct, gc=False):
    """An event of a stream, of whichever type."""

    type: str
    delta: Delta | None = None
    message: Answer | None = None
    usage: dict[str, Any] | None = None
    content_block: Started | None = None
    index: int = -1


class PlainDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Text and nothing else."""

    type: Literal["text_delta"]
    text: str


class PlainEvent(msgspec.Struct, gc=False):
    """An event that says text and nothing else."""

    type: Literal["content_block_delta"]
    delta: PlainDelta
