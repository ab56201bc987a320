"""OpenAI Responses: what a call asks.

What the model reads is often not in the body: an earlier response, a conversation, a stored file, what a hosted tool
found. Such a call is bounded by the model's context window, once for each time it may be read; what is named by id must
be the caller's own. Answers and streams are read by ``responses_answers``, tools by ``hosted_tools``. (OpenAI, "API
reference: Responses, create a model response".)
"""

from typing import Any, Final

import msgspec

from faregate.core.call import IMAGE_IN, Call
from faregate.core.usage import Measure
from faregate.dialects import attachments, fields, hosted_tools
from faregate.dialects.attachments import Attached
from faregate.dialects.hosted_tools import Offered
from faregate.dialects.jsonbody import DECODING_ERRORS, Members, bad_item, kind_of, loose_members, members, too_deep
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.dialects.responses_shapes import InputItem, InputPart
from faregate.errors import Problem

OPERATION: Final = "responses"

#: The member that caps the output, and the one that caps calls of hosted tools.
CAP_FIELD: Final = "max_output_tokens"
TOOL_CAP_FIELD: Final = "max_tool_calls"
#: Put there where hosted tools are offered without a cap.
TOOL_CALLS_DEFAULT: Final = 16
TOOL_CALLS_MAX: Final = 1024

#: Tokens around each item (OpenAI cookbook, "How to count tokens", for messages) and before the answer.
ITEM_TOKENS: Final = 4
PRIMING_TOKENS: Final = 3

#: Members that are read below or that cost nothing beyond their bytes; any other gets a closer look.
_COMMON: Final = frozenset(
    """
    model input instructions stream stream_options max_output_tokens temperature top_p text tool_choice store
    parallel_tool_calls user include truncation top_logprobs prompt_cache_key safety_identifier
    """.split()
)

_FEATURES: Final = {
    "context_management": ("compaction on the way", "leave it out"),
    "data_sources": ("searches in your data", "leave it out"),
    "plugins": ("plugins", "leave it out"),
    "file_ids": ("stored files", "send them as input_file parts"),
}

#: Items whose text is all in the body; what they hold besides text is in their content or output.
_TEXT_ITEMS: Final = frozenset(
    """
    message function_call function_call_output custom_tool_call custom_tool_call_output local_shell_call
    local_shell_call_output shell_call shell_call_output apply_patch_call apply_patch_call_output computer_call
    computer_call_output mcp_list_tools mcp_call mcp_approval_request mcp_approval_response configuration_update
    program program_output tool_search_call
    """.split()
)
#: Items of which the provider kept more than they say.
_KEPT_ITEMS: Final = frozenset(
    ("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call")
)
#: Items that hold text which only the provider can read, or the id under which it kept that text.
_SEALED_ITEMS: Final = frozenset(("reasoning", "compaction", "compaction_summary"))
#: Items that offer tools.
_TOOL_ITEMS: Final = frozenset(("additional_tools", "tool_search_output"))

_TEXT_PARTS: Final = frozenset(("input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"))
_IMAGE_PARTS: Final = frozenset(("input_image", "computer_screenshot"))

_items = msgspec.json.Decoder(list[InputItem]).decode
_item = msgspec.json.Decoder(InputItem).decode
_named = msgspec.json.Decoder(dict[str, Any]).decode


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What the caller asks, or why it is refused.

    ``model`` is the name that the path gave, if it gave one. ``forbid_private_urls`` refuses addresses of images and
    files that are not public https.
    """
    found = members(body, "input")
    if isinstance(found, Problem):
        return found
    name = model or fields.name(found.get("model"), "model")
    if isinstance(name, Problem):
        return name
    cap = None if CAP_FIELD not in found else fields.count(found[CAP_FIELD], CAP_FIELD, 1, fields.OUTPUT_CAP_MAX)
    if isinstance(cap, Problem):
        return cap
    stream = False if "stream" not in found else fields.flag(found["stream"], "stream")
    if isinstance(stream, Problem):
        return stream
    user = fields.end_user(found)
    if isinstance(user, Problem):
        return user
    told = found.get("instructions")
    if told is not None and kind_of(told) not in ("a string", "null"):
        # As items they might hold pictures.
        return expected("field_type", "instructions", "text", kind_of(told))
    attached, offered = Attached(forbid_private_urls), Offered()
    background, tier = False, ""
    if not _COMMON.issuperset(found):
        closer = _look_closer(found, offered, attached)
        if isinstance(closer, Problem):
            return closer
        background, tier = closer
    problem = _take_input(found, offered, attached)
    if problem is not None:
        return problem
    bounded = _bounded(found, offered, attached)
    if isinstance(bounded, Problem):
        return bounded
    at_most, turns, tool_cap = bounded
    # A call of nothing but text says no more than this.
    call = Call(
        OPERATION,
        name,
        stream,
        output_cap=cap,
        cap_field=CAP_FIELD if CAP_FIELD in found else "",
        input_tokens_max=len(body) + attached.tokens,
        end_user=user,
        members=tuple(found),
    )
    if not (attached.media or attached.whole_context or attached.objects or background or tier or at_most or tool_cap):
        return call
    return call._replace(
        media=attached.media,
        at_most=at_most,
        whole_context=attached.whole_context,
        turns=turns,
        service_tier=tier,
        job=background,
        objects=tuple(attached.objects),
        tool_cap=tool_cap,
    )


def _look_closer(found: Members, offered: Offered, attached: Attached) -> tuple[bool, str] | Problem:
    """Whether it is a background response, and its service tier."""
    problem = fields.steering(found) or fields.refuse_present(found, _FEATURES)
    problem = problem or _take_state(found, attached) or _take_reasoning(found)
    if problem is not None:
        return problem
    if "tools" in found:
        problem = hosted_tools.take(found["tools"], "tools", offered, attached)
        if problem is not None:
            return problem
    background = False if "background" not in found else fields.flag(found["background"], "background")
    if isinstance(background, Problem):
        return background
    tier = fields.service_tier(found)
    return tier if isinstance(tier, Problem) else (background, tier)


def _take_state(found: Members, attached: Attached) -> Problem | None:
    """Take what the provider kept of earlier turns, and stored prompts."""
    earlier = _present(found, "previous_response_id")
    if earlier is not None:
        told = fields.name(earlier, "previous_response_id")
        if isinstance(told, Problem):
            return told
        attached.whole_context = True
        # What was said before may have held pictures.
        attached.media |= IMAGE_IN
        problem = attached.named(told, "previous_response_id")
        if problem is not None:
            return problem
    for field in ("conversation", "prompt"):
        value = _present(found, field)
        if value is None:
            continue
        problem = _take_named(value, field, attached)
        if problem is not None:
            return problem
    if _present(found, "prompt") is not None and _present(found, "tools") is None:
        remedy = "say which tools it may use in tools, an empty list for none"
        return unbounded("prompt", "tools that a stored prompt may bring", remedy)
    return None


def _take_named(value: msgspec.Raw, field: str, attached: Attached) -> Problem | None:
    """Take an object that is told by its id, or as an object that has one."""
    attached.whole_context = True
    attached.media |= IMAGE_IN
    if kind_of(value) == "a string" and field == "conversation":
        told = fields.name(value, field)
        return told if isinstance(told, Problem) else attached.named(told, field)
    try:
        told_fields = _named(value)
    except DECODING_ERRORS:
        return expected("field_type", field, "an object with an id", kind_of(value))
    variables = told_fields.get("variables") if field == "prompt" else None
    if isinstance(variables, dict):
        for variable in variables.values():
            if isinstance(variable, dict):
                problem = _take_part(msgspec.convert(variable, InputPart), f"{field}.variables", attached)
                if problem is not None:
                    return problem
    if "id" not in told_fields:
        return missing(f"{field}.id", "an id")
    return attached.named(told_fields["id"], f"{field}.id")


def _take_reasoning(found: Members) -> Problem | None:
    """Refuse ways of reasoning that make more than one attempt."""
    value = _present(found, "reasoning")
    if value is None:
        return None
    try:
        mode = _named(value).get("mode")
    except DECODING_ERRORS:
        return expected("field_type", "reasoning", "an object", kind_of(value))
    if mode in (None, "standard"):
        return None
    return unbounded("reasoning.mode", f"the mode {echo(mode)}", "use standard or leave it out")


def _present(found: Members, field: str) -> msgspec.Raw | None:
    value = found.get(field)
    return None if value is None or bytes(value) == b"null" else value


def _bounded(
    found: Members, offered: Offered, attached: Attached
) -> tuple[tuple[Measure, ...], int, tuple[str, int] | None] | Problem:
    """The most that hosted tools use, how often the model reads its context, and the cap to put in."""
    value = found.get(TOOL_CAP_FIELD)
    calls = None if value is None else fields.count(value, TOOL_CAP_FIELD, 1, TOOL_CALLS_MAX)
    if isinstance(calls, Problem):
        return calls
    if offered.built_in:
        attached.whole_context = True
    if not offered.hosted:
        return (), 1, None
    # What a tool found is read in the next turn, pictures included.
    attached.whole_context = True
    attached.media |= IMAGE_IN
    tool_cap = (TOOL_CAP_FIELD, TOOL_CALLS_DEFAULT) if calls is None else None
    calls = calls or TOOL_CALLS_DEFAULT
    return offered.at_most(calls), calls + 1, tool_cap


# -- input ------------------------------------------------------------------------------------------------------------


def _take_input(found: Members, offered: Offered, attached: Attached) -> Problem | None:
    value = _present(found, "input")
    if value is None:
        # Only a stored prompt or conversation speaks for itself.
        return None if attached.whole_context else missing("input", "text or a list of items")
    kind = kind_of(value)
    if kind == "a string":
        return None
    if kind != "an array":
        return expected("field_type", "input", "text or a list of items", kind)
    raw = bytes(value)
    deep = too_deep(raw)
    if deep is not None:
        return deep
    try:
        items = _items(raw)
    except DECODING_ERRORS as error:
        return bad_item(raw, "input", _item, "a list of items", error)
    for index, item in enumerate(items):
        content = item.content
        if type(content) is list:
            problem = _take_parts(content, f"input[{index}].content", attached)
            if problem is not None:
                return problem
        if item.type != "message" and (item.type is not None or item.role is None):
            problem = _take_item(item, f"input[{index}]", offered, attached)
            if problem is not None:
                return problem
    return None


def _take_item(item: InputItem, where: str, offered: Offered, attached: Attached) -> Problem | None:
    # An item that says nothing but its id refers to one that is kept.
    kind = "item_reference" if item.type is None and item.id is not None else item.type
    if kind is None:
        return missing(f"{where}.type", "message, function_call_output or another kind of item")
    if not isinstance(kind, str):
        return expected("field_type", f"{where}.type", "a string", "something else")
    if kind in _TEXT_ITEMS:
        return _take_output(item.output, f"{where}.output", attached)
    if kind in _SEALED_ITEMS:
        # Sealed text is longer than what it hides; without it, the provider puts in what it kept.
        if not isinstance(item.encrypted_content, str):
            attached.whole_context = True
        return None
    if kind in _KEPT_ITEMS:
        attached.whole_context = True
        attached.media |= IMAGE_IN
        return None
    if kind == "item_reference":
        attached.whole_context = True
        attached.media |= IMAGE_IN
        return attached.named(item.id, f"{where}.id")
    if kind in _TOOL_ITEMS:
        return hosted_tools.take(item.tools, f"{where}.tools", offered, attached)
    return unbounded(f"{where}.type", f"an item of type {echo(kind)}", "leave it out")


def _take_output(output: Any, where: str, attached: Attached) -> Problem | None:
    """Take what a tool of the caller's gave back: text, a list of parts, or a picture of a screen."""
    if isinstance(output, dict):
        output = [output]
    if not isinstance(output, list):
        return None
    parts = [msgspec.convert(part, InputPart) for part in output if isinstance(part, dict)]
    if all(part.type in ("stdout", "stderr") or part.type is None for part in parts):
        return None
    return _take_parts(parts, where, attached)


def _take_parts(parts: list[InputPart], path: str, attached: Attached) -> Problem | None:
    for index, part in enumerate(parts):
        problem = _take_part(part, f"{path}[{index}]", attached)
        if problem is not None:
            return problem
    return None


def _take_part(part: InputPart, where: str, attached: Attached) -> Problem | None:
    kind = part.type
    if isinstance(kind, str) and kind in _TEXT_PARTS:
        # Members of other kinds of parts mean nothing here; what they hold is counted by its bytes.
        return None
    if isinstance(kind, str) and kind in _IMAGE_PARTS:
        low = part.detail == "low"
        if part.file_id is not None:
            return attached.stored_image(part.file_id, low, f"{where}.file_id")
        if part.image_url is None:
            return missing(f"{where}.image_url", "an address or a data URL")
        return attached.image(part.image_url, low, f"{where}.image_url")
    if kind == "input_file":
        return attached.file(part.file_id, part.file_url, where)
    if kind == "input_audio":
        audio = part.input_audio
        return attached.audio(audio.get("data") if isinstance(audio, dict) else None, f"{where}.input_audio.data")
    if kind is None:
        return missing(f"{where}.type", "input_text, input_image, input_file or output_text")
    return unbounded(where, f"a part of type {echo(kind)}", "use input_text, input_image and input_file parts")


# -- exact counting, off the hot path ---------------------------------------------------------------------------------

#: Members of items and of their parts that name things and hold no text that the model reads; anywhere else, as in the
#: schema of a tool, the same names may hold anything.
_LABELS: Final = frozenset(("type", "id", "call_id", "status", "role", "image_url", "file_data", "detail"))
_NO_LABELS: Final[frozenset[str]] = frozenset()
#: Members of an item that hold its parts.
_PARTS: Final = frozenset(("content", "output", "summary"))


def _strings(value: Any, labels: frozenset[str] = _LABELS) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part, labels)]
    if isinstance(value, dict):
        texts: list[str] = []
        for name, part in value.items():
            if name not in labels:
                texts += (name, *_strings(part, labels if name in _PARTS else _NO_LABELS))
        return texts
    return [] if value is None else [str(value)]


def prompt_text(body: bytes) -> list[str]:
    """Everything of a request that the model reads as text, in pieces that are tokenized one by one."""
    value = loose_members(body)
    texts = [*_strings(value.get("instructions")), *_strings(value.get("input"))]
    # Schemas are read by the model in a shorter notation than JSON.
    described = [value[field] for field in ("tools", "text", "tool_choice") if value.get(field) is not None]
    return [*texts, *(msgspec.json.encode(part).decode() for part in described)]


def prompt_tokens_overhead(body: bytes) -> int:
    """Upper bound of the input tokens beyond those of ``prompt_text``: framing of items, and images."""
    value = loose_members(body).get("input")
    tokens = PRIMING_TOKENS + ITEM_TOKENS
    for item in value if isinstance(value, list) else ():
        tokens += ITEM_TOKENS
        if not isinstance(item, dict):
            continue
        for held in (item.get("content"), item.get("output")):
            parts = held if isinstance(held, list) else [held]
            tokens += sum(_image_tokens(part) for part in parts if isinstance(part, dict))
    return tokens


def _image_tokens(part: dict[str, Any]) -> int:
    if part.get("type") not in _IMAGE_PARTS:
        return 0
    low = part.get("detail") == "low"
    return attachments.LOW_DETAIL_IMAGE_TOKENS_MAX if low else attachments.IMAGE_TOKENS_MAX
