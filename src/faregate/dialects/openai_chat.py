"""OpenAI chat completions: what a call asks, what an answer used, what an event of its stream says.

Reads only the fields that metering, limiting and routing need; the bytes of a body stay as they came. Text of messages
is neither decoded nor copied unless a message may hold more than text. Knows the fields of this one wire format.
"""

from typing import Any, Final

import msgspec

from faregate.core.call import Call
from faregate.core.metering.meter import Event
from faregate.dialects import answers, fields, urls
from faregate.dialects.jsonbody import DECODING_ERRORS, Members, kind_of, members
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.errors import Problem

OPERATION: Final = "chat.completions"

#: The dearest documented image: gpt-4o-mini, high detail, eight tiles of 512 pixels: 2,833 + 8 × 5,667 tokens
#: (OpenAI, "Images and vision", calculating costs). Low detail costs that model its base amount alone.
IMAGE_TOKENS_MAX: Final = 48_169
LOW_DETAIL_IMAGE_TOKENS_MAX: Final = 2_833

#: Tokens around each message, before the answer, and for a name (OpenAI cookbook, "How to count tokens").
MESSAGE_TOKENS: Final = 3
PRIMING_TOKENS: Final = 3
NAME_TOKENS: Final = 1

#: Members that are read below or that cost nothing beyond their bytes; any other gets a closer look.
_COMMON: Final = frozenset(
    """
    model messages stream stream_options max_tokens max_completion_tokens n user temperature top_p stop seed
    frequency_penalty presence_penalty logit_bias logprobs top_logprobs response_format tool_choice
    parallel_tool_calls reasoning_effort verbosity functions function_call store prompt_cache_key safety_identifier
    """.split()
)

_FEATURES: Final = {
    "audio": ("audio answers", "ask for text"),
    "web_search_options": ("web search", "leave it out"),
    "search_parameters": ("live search", "leave it out"),
    "data_sources": ("searches in your data", "leave it out"),
    "background": ("background answers", "leave it out"),
    "prompt": ("stored prompts", "send the messages themselves"),
    "previous_response_id": ("stored conversations", "send the messages themselves"),
    "conversation": ("stored conversations", "send the messages themselves"),
    "plugins": ("plugins", "leave it out"),
    "file_ids": ("stored files", "send their text"),
}

_TOOL_TYPES: Final = ("function", "custom")


class _Part(msgspec.Struct, gc=False):
    type: Any = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    video_url: Any = None


class _Message(msgspec.Struct, gc=False):
    content: msgspec.Raw = msgspec.Raw()
    audio: msgspec.Raw = msgspec.Raw()


class _Tool(msgspec.Struct, gc=False):
    type: Any = None


class _Prediction(msgspec.Struct, gc=False):
    content: Any = None


_messages = msgspec.json.Decoder(list[_Message]).decode
_parts = msgspec.json.Decoder(list[_Part]).decode
_tools = msgspec.json.Decoder(list[_Tool]).decode
_text_list = msgspec.json.Decoder(list[Any]).decode


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What the caller asks, or why it is refused.

    ``model`` is the name that the path gave (Azure); it then stands for the body's. ``forbid_private_urls`` refuses
    image addresses that are not public https.
    """
    found = members(body, "messages")
    if isinstance(found, Problem):
        return found
    if not _COMMON.issuperset(found):
        problem = _look_closer(found)
        if problem is not None:
            return problem
    name = model or fields.name(found.get("model"), "model")
    if isinstance(name, Problem):
        return name
    cap = fields.cap(found)
    if isinstance(cap, Problem):
        return cap
    choices: int | Problem | None = 1
    if "n" in found:
        choices = fields.count(found["n"], "n", 1, fields.CHOICES_MAX)
        if isinstance(choices, Problem):
            return choices
    streamed = fields.NOT_STREAMED
    if "stream" in found or "stream_options" in found:
        read_stream = fields.stream(found)
        if isinstance(read_stream, Problem):
            return read_stream
        streamed = read_stream
    user = ""
    if "user" in found or "safety_identifier" in found:
        read_user = fields.end_user(found)
        if isinstance(read_user, Problem):
            return read_user
        user = read_user
    messages = found.get("messages")
    if messages is None:
        return missing("messages", "a list of messages")
    media = _media(messages, "audio" in name, forbid_private_urls)
    if isinstance(media, Problem):
        return media
    extra = 0
    if "prediction" in found:
        # A rejected prediction is billed as output; it has at most as many tokens as bytes.
        extra = len(found["prediction"])
    return Call(
        OPERATION,
        name,
        streamed[0],
        streamed[1],
        choices or 1,
        cap.tokens,
        cap.field,
        # The JSON around a message is longer than the tokens that the provider adds for it.
        len(body) + media,
        extra * (choices or 1),
        True,
        user,
        tuple(found),
    )


def _look_closer(found: Members) -> Problem | None:
    problem = (
        fields.steering(found)
        or fields.refuse_present(found, _FEATURES)
        or ("service_tier" in found and fields.bounded_tier(found))
    )
    if problem:
        return problem
    value = found.get("modalities")
    if value is not None:
        try:
            wanted = _text_list(value) if kind_of(value) == "an array" else []
        except DECODING_ERRORS:
            return expected("field_type", "modalities", "a list of strings", "something else")
        if any(modality != "text" for modality in wanted):
            return unbounded("modalities", "answers other than text", 'send ["text"] or leave it out')
    value = found.get("tools")
    if value is not None and kind_of(value) == "an array":
        try:
            tools = _tools(value)
        except DECODING_ERRORS:
            return expected("field_type", "tools", "a list of tools", "something else")
        for index, tool in enumerate(tools):
            if tool.type is not None and tool.type not in _TOOL_TYPES:
                path = f"tools[{index}].type"
                return unbounded(path, f"the tool {echo(tool.type)}", "use function or custom tools")
    return None


def _media(messages: msgspec.Raw, may_hear: bool, forbid_private_urls: bool) -> int | Problem:
    """Tokens to add to the bytes of the messages for what they hold besides text; negative where bytes are pictures."""
    raw = bytes(messages)
    if raw[:1] != b"[":
        return expected("field_type", "messages", "a list of messages", kind_of(messages))
    if len(raw) < 16 and not raw[1:-1].strip():
        return expected("field_range", "messages", "at least one message", "an empty list")
    # Content that is a list needs a bracket. Prose has none, and finding none costs next to nothing.
    if raw.find(b"[", 1) < 0 and not may_hear:
        return 0
    try:
        told = _messages(messages)
    except DECODING_ERRORS:
        return _bad_messages(messages)
    tokens = 0
    for index, message in enumerate(told):
        content = bytes(message.content)
        if content[:1] == b"[":
            added = _parts_tokens(message.content, f"messages[{index}].content", forbid_private_urls)
            if isinstance(added, Problem):
                return added
            tokens += added
        if len(message.audio) and bytes(message.audio) != b"null":
            return unbounded(f"messages[{index}].audio", "earlier audio", "send its transcript as text")
    return tokens


def _bad_messages(messages: msgspec.Raw) -> Problem:
    try:
        told = msgspec.json.decode(messages, type=list[msgspec.Raw])
    except DECODING_ERRORS:
        return Problem("json_depth", "messages: nested too deeply; flatten it.", param="messages")
    for index, message in enumerate(told):
        if kind_of(message) != "an object":
            return expected("field_type", f"messages[{index}]", "an object", kind_of(message))
    return expected("field_type", "messages", "a list of messages", "something else")


def _parts_tokens(content: msgspec.Raw, path: str, forbid_private_urls: bool) -> int | Problem:
    try:
        parts = _parts(content)
    except UnicodeDecodeError:
        return Problem("json_utf8", f"{path}: the text is not UTF-8; send UTF-8.", param=path)
    except DECODING_ERRORS:
        return expected("field_type", path, "text or a list of parts", "something else")
    tokens = 0
    for index, part in enumerate(parts):
        if part.type in ("text", "refusal") and part.image_url is part.input_audio is part.file is None:
            continue
        where = f"{path}[{index}]"
        if part.input_audio is not None or part.type in ("input_audio", "audio", "audio_url"):
            return unbounded(where, "audio input", "send its transcript as text")
        if part.file is not None or part.type in ("file", "input_file"):
            return unbounded(where, "file input", "send its text")
        if part.video_url is not None:
            return unbounded(where, "video input", "send single images")
        if part.image_url is None:
            if part.type is None or part.type == "image_url":
                return missing(f"{where}.image_url" if part.type else f"{where}.type", "a content part as documented")
            return unbounded(where, f"a part of type {echo(part.type)}", "use text and image_url parts")
        added = _image_tokens(part.image_url, where, forbid_private_urls)
        if isinstance(added, Problem):
            return added
        tokens += added
    return tokens


def _image_tokens(image: Any, where: str, forbid_private_urls: bool) -> int | Problem:
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        return expected("field_type", f"{where}.image_url.url", "a string", "something else")
    low = isinstance(image, dict) and image.get("detail") == "low"
    tokens = LOW_DETAIL_IMAGE_TOKENS_MAX if low else IMAGE_TOKENS_MAX
    if url[:5].lower() == "data:":
        wrong = urls.data_url_problem(url)
        if wrong:
            return expected("field_range", where, "an image as base64", wrong, "encode it again")
        # The picture's bytes are no text, so they are not counted as such.
        return tokens - len(url)
    if forbid_private_urls and not urls.is_public_https(url):
        return Problem(
            "url_forbidden",
            f"{where}.image_url.url: only public https URLs are allowed; send the image as a data URL.",
            param=f"{where}.image_url.url",
        )
    return tokens


# -- exact counting, off the hot path ---------------------------------------------------------------------------------


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    if isinstance(value, dict):
        return [text for name, part in value.items() if name not in ("type", "image_url") for text in _strings(part)]
    return []


def _loose(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except DECODING_ERRORS:
        return {}
    return value if isinstance(value, dict) else {}


def prompt_text(body: bytes) -> list[str]:
    """Everything of a request that the model reads as text, in pieces that are tokenized one by one."""
    value = _loose(body)
    texts = _strings(value.get("messages"))
    for field in ("tools", "functions", "response_format", "tool_choice", "function_call", "prediction"):
        if value.get(field) is not None:
            # Schemas are read by the model in a shorter notation than JSON.
            texts.append(msgspec.json.encode(value[field]).decode())
    return texts


def prompt_tokens_overhead(body: bytes) -> int:
    """Upper bound of the input tokens beyond those of ``prompt_text``: framing of messages, names, images."""
    messages = _loose(body).get("messages")
    if not isinstance(messages, list):
        return PRIMING_TOKENS
    tokens = PRIMING_TOKENS
    for message in messages:
        if not isinstance(message, dict):
            continue
        tokens += MESSAGE_TOKENS + (NAME_TOKENS if "name" in message else 0)
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("image_url") is not None:
                image = part["image_url"]
                low = isinstance(image, dict) and image.get("detail") == "low"
                tokens += LOW_DETAIL_IMAGE_TOKENS_MAX if low else IMAGE_TOKENS_MAX
    return tokens


# -- streams ----------------------------------------------------------------------------------------------------------


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None
    custom: Any = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    role: str | None = None
    tool_calls: list[_ToolCall] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: answers.Usage | None = None
    error: msgspec.Raw | None = None
    model: str | None = None
    id: str | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode


def decode_event(payload: bytes) -> Event | str:
    """What one event of a stream says; a plain string where it says nothing but text. Never raises."""
    try:
        chunk = _chunk(payload)
    except DECODING_ERRORS:
        return answers.odd_event(payload)
    choices = chunk.choices
    if len(choices) == 1 and chunk.usage is None and chunk.error is None:
        choice = choices[0]
        delta = choice.delta
        if choice.finish_reason is None and delta is not None:
            text = delta.content
            if (
                text is not None
                and delta.role is None
                and delta.tool_calls is None
                and delta.refusal is None
                and delta.reasoning_content is None
                and delta.reasoning is None
            ):
                return text
    texts: list[str] = []
    finished = 0
    for choice in choices:
        finished += choice.finish_reason is not None
        if choice.delta is not None:
            _collect(choice.delta, texts)
    usage = answers.usage_of_report(chunk.usage, outputs=True) if chunk.usage is not None else None
    return Event(
        "".join(texts), finished, usage, not choices, chunk.error is not None, chunk.model or "", chunk.id or ""
    )


def _collect(delta: _Delta, texts: list[str]) -> None:
    for text in (delta.content, delta.refusal, delta.reasoning_content or delta.reasoning):
        if text:
            texts.append(text)
    calls = [call.function for call in delta.tool_calls or () if call.function is not None]
    if delta.function_call is not None:
        calls.append(delta.function_call)
    for call in calls:
        texts.extend(text for text in (call.name, call.arguments) if text)
    for tool_call in delta.tool_calls or ():
        texts.extend(_strings(tool_call.custom))


def answer_text(body: bytes) -> str:
    """The text of a whole answer that is billed as output, all choices one after the other."""
    value = answers.loose(body)
    choices = value.get("choices") if isinstance(value, dict) else None
    messages = [choice.get("message") for choice in choices if isinstance(choice, dict)] if choices else []
    return "".join(answers.texts_of(messages))
