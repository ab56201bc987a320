"""The documented shapes of OpenAI's Responses, as far as anybody here looks at them; decoded in C.

Data alone, as ``shapes`` is; what a field means is for ``openai_responses``, ``responses_answers`` and
``hosted_tools`` to say (OpenAI, "API reference: Responses", the response object and streaming events).
"""

from typing import Any, Final

import msgspec

#: A member that is not there; ``Raw`` and ``None`` cannot be told apart by the decoder.
ABSENT: Final = msgspec.Raw()

# -- requests ----------------------------------------------------------------------------------------------------------


class InputPart(msgspec.Struct, gc=False):
    """A part of an item's content or output."""

    type: Any = None
    image_url: Any = None
    file_id: Any = None
    file_url: Any = None
    input_audio: Any = None
    detail: Any = None


class InputItem(msgspec.Struct, gc=False):
    """An item of a request's ``input``, as far as its cost depends on it."""

    type: Any = None
    role: Any = None
    id: Any = None
    content: str | list[InputPart] | None = None
    output: Any = None
    tools: msgspec.Raw = ABSENT
    encrypted_content: Any = None


class ToolContainer(msgspec.Struct, gc=False):
    """Where a hosted tool runs code."""

    type: Any = None
    memory_limit: Any = None
    file_ids: Any = None


class HostedTool(msgspec.Struct, gc=False):
    """A tool that a request offers."""

    type: Any = None
    #: Of ``code_interpreter``, and ``environment`` of ``shell``.
    container: ToolContainer | str | None = None
    environment: ToolContainer | None = None
    #: Of ``file_search``.
    vector_store_ids: Any = None
    #: Of ``image_generation``.
    model: Any = None
    partial_images: Any = None
    input_image_mask: Any = None
    #: Of ``tool_search``.
    execution: Any = None
    #: Of ``namespace``.
    tools: msgspec.Raw = ABSENT


# -- answers and events ------------------------------------------------------------------------------------------------


class CacheWriteDetails(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """How long what was written to the cache is kept."""

    ttl_30m_tokens: int | None = 0
    ttl_12h_tokens: int | None = 0


class InputTokensDetails(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Parts of ``input_tokens``."""

    cached_tokens: int | None = 0
    cache_write_tokens: int | None = 0
    cache_write_tokens_details: CacheWriteDetails | None = None


class OutputTokensDetails(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Parts of ``output_tokens``."""

    reasoning_tokens: int | None = 0


class ResponseUsage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The ``usage`` of a response as documented; one of another shape is read loosely."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens_details: InputTokensDetails | None = None
    output_tokens_details: OutputTokensDetails | None = None


class Action(msgspec.Struct, gc=False):
    """What a web search call did."""

    type: str | None = None


class Environment(msgspec.Struct, gc=False):
    """Where a shell call ran."""

    container_id: str | None = None


class OutputItem(msgspec.Struct, gc=False):
    """An item of a response's ``output``."""

    type: str
    status: str | None = None
    action: Action | None = None
    container_id: str | None = None
    environment: Environment | None = None


class AnsweredTool(msgspec.Struct, gc=False):
    """A tool as the response repeats it."""

    type: Any = None
    container: ToolContainer | str | None = None
    environment: ToolContainer | None = None
    model: Any = None


class SearchUsage(msgspec.Struct, gc=False):
    """Searches that are billed."""

    num_requests: int | None = None


class ToolUsage(msgspec.Struct, gc=False):
    """``tool_usage`` of a response: what its hosted tools used."""

    web_search: SearchUsage | None = None
    image_gen: dict[str, Any] | None = None


class KeptResponse(msgspec.Struct, gc=False):
    """What tells whether a response can be asked for again."""

    id: str = ""
    store: bool | None = None


class Response(msgspec.Struct, gc=False):
    """A response, stored, answered or inside an event."""

    usage: ResponseUsage | None = None
    model: str | None = None
    id: str | None = None
    service_tier: str | None = None
    status: str | None = None
    output: list[OutputItem] = msgspec.field(default_factory=list)
    tools: list[AnsweredTool] = msgspec.field(default_factory=list)
    tool_usage: ToolUsage | None = None


class ResponseEvent(msgspec.Struct, gc=False):
    """An event of a stream."""

    type: str
    delta: str | None = None
    response: msgspec.Raw = ABSENT
    item: msgspec.Raw = ABSENT


class PlainDelta(msgspec.Struct, gc=False):
    """An event that adds text."""

    type: str
    delta: str


class AddedItem(msgspec.Struct, gc=False):
    """An item that begins."""

    type: str | None = None
    name: str | None = None
