"""OpenAI chat completions: what a call asks, what an answer used, what an event of its stream says.

Reads only the fields that metering, limiting and routing need; the bytes of a body stay as they came. Text of messages
is neither decoded nor copied unless a message may hold more than text. Knows the fields of this one wire format.
"""

from typing import Any, Final

import msgspec

from faregate.core.call import Call
from faregate.core.metering.meter import Event
from faregate.dialects import answers, fields, urls
from faregate.dialects.jsonbody import DECODING_ERRORS, DEPTH_MAX, Members, kind_of, members, too_deep
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.dialects.shapes import ChatChoice, Chunk, Message, Part, PlainChatChoice, PlainChunk, Tool
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

#: Members of nearly every call, which need no look beyond the first ones that ``read`` takes.
_PLAIN: Final = frozenset(
    """
    model messages stream stream_options max_tokens max_completion_tokens temperature top_p stop tool_choice
    response_format seed parallel_tool_calls reasoning_effort
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
_TEXT_PARTS: Final = ("text", "refusal")


_message = msgspec.json.Decoder(Message).decode
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode
_messages = msgspec.json.Decoder(list[Message]).decode
_tools = msgspec.json.Decoder(list[Tool]).decode
_text_list = msgspec.json.Decoder(list[Any]).decode


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What the caller asks, or why it is refused.

    ``model`` is the name that the path gave (Azure); it then stands for the body's. ``forbid_private_urls`` refuses
    image addresses that are not public https.
    """
    found = members(body, "messages")
    if isinstance(found, Problem):
        return found
    choices: int | Problem = 1
    user: str | Problem = ""
    extra = 0
    if not _PLAIN.issuperset(found):
        if not _COMMON.issuperset(found):
            problem = _look_closer(found)
            if problem is not None:
                return problem
        choices = fields.choices(found)
        if isinstance(choices, Problem):
            return choices
        user = fields.end_user(found)
        if isinstance(user, Problem):
            return user
        # A rejected prediction is billed as output; it has at most as many tokens as bytes.
        extra = len(found.get("prediction", b"")) * choices
    name = model or fields.name(found.get("model"), "model")
    if isinstance(name, Problem):
        return name
    cap = fields.cap(found)
    if isinstance(cap, Problem):
        return cap
    stream = usage_wanted = False
    if "stream" in found or "stream_options" in found:
        streamed = fields.stream(found)
        if isinstance(streamed, Problem):
            return streamed
        stream, usage_wanted = streamed
    messages = found.get("messages")
    if messages is None:
        return missing("messages", "a list of messages")
    # The JSON around a message is longer than the tokens that the provider adds for it.
    bound = len(body)
    if "audio" in name or not _holds_no_list(body, messages):
        media = _media(messages, "audio" in name, forbid_private_urls)
        if isinstance(media, Problem):
            return media
        bound += media
    tokens, field = cap
    # A named tuple's own constructor costs three times as much as the tuple's, on every request.
    return tuple.__new__(
        Call,
        (OPERATION, name, stream, usage_wanted, choices, tokens, field, bound, extra, True, user, tuple(found)),
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


def _holds_no_list(body: bytes, messages: msgspec.Raw) -> bool:
    """Whether no content of a message can be a list: the only bracket of the whole body is the one that opens them.

    Prose has none, and finding none costs next to nothing: nothing is copied.
    """
    return len(messages) >= 16 and memoryview(messages)[0] == 0x5B and body.find(b"[", body.find(b"[") + 1) < 0


def _media(messages: msgspec.Raw, may_hear: bool, forbid_private_urls: bool) -> int | Problem:
    """Tokens to add to the bytes of the messages for what they hold besides text; negative where bytes are pictures."""
    raw = bytes(messages)
    if raw[:1] != b"[":
        return expected("field_type", "messages", "a list of messages", kind_of(messages))
    if len(raw) < 16 and not raw[1:-1].strip():
        return expected("field_range", "messages", "at least one message", "an empty list")
    # Other members of the body had brackets, not these.
    if not may_hear and raw.find(b"[", 1) < 0:
        return 0
    deep = too_deep(raw)
    if deep is not None:
        return deep
    try:
        told = _messages(raw)
    except DECODING_ERRORS as error:
        return _bad_messages(raw, error)
    tokens = 0
    for index, message in enumerate(told):
        content = message.content
        if type(content) is list:
            added = _parts_tokens(content, f"messages[{index}].content", forbid_private_urls)
            if isinstance(added, Problem):
                return added
            tokens += added
        if message.audio is not None:
            return unbounded(f"messages[{index}].audio", "earlier audio", "send its transcript as text")
    return tokens


def _bad_messages(raw: bytes, error: Exception) -> Problem:
    if isinstance(error, UnicodeDecodeError):
        return Problem("json_utf8", "messages: the text is not UTF-8; send UTF-8.", param="messages")
    if isinstance(error, RecursionError):
        return Problem("json_depth", f"messages: nested deeper than {DEPTH_MAX} levels; flatten it.", param="messages")
    for index, message in enumerate(_values(raw)):
        where = f"messages[{index}]"
        if kind_of(message) != "an object":
            return expected("field_type", where, "an object", kind_of(message))
        try:
            _message(message)
        except DECODING_ERRORS:
            return expected("field_type", f"{where}.content", "text or a list of parts", "something else")
    return expected("field_type", "messages", "a list of messages", "something else")


def _parts_tokens(parts: list[Part], path: str, forbid_private_urls: bool) -> int | Problem:
    tokens = 0
    for index, part in enumerate(parts):
        if part.image_url is part.input_audio is part.file is part.video_url is None and part.type in _TEXT_PARTS:
            continue
        where = f"{path}[{index}]"
        if part.input_audio is not None or part.type in ("input_audio", "audio", "audio_url"):
            return unbounded(where, "audio input", "send its transcript as text")
        if part.file is not None or part.type in ("file", "input_file"):
            return unbounded(where, "file input", "send its text")
        if part.video_url is not None:
            return unbounded(where, "video input", "send single images")
        if part.image_url is None:
            if part.type is None:
                return missing(f"{where}.type", "text, refusal or image_url")
            if part.type == "image_url":
                return missing(f"{where}.image_url", "an object with a url")
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

#: Parts of a delta that are billed as output. Providers name reasoning in one of two ways, some in both.
_BILLED: Final = ("content", "refusal", "tool_calls", "function_call")
_REASONING: Final = ("reasoning_content", "reasoning")


_chunk = msgspec.json.Decoder(Chunk[ChatChoice]).decode
_plain_chunk = msgspec.json.Decoder(PlainChunk[PlainChatChoice]).decode


class ChatEvents:
    """Understands the events of a stream; see ``EventDecoder``."""

    __slots__ = ()

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """The text of many events at once, where each says nothing but text."""
        try:
            return "".join([chunk.choices[0].delta.content for chunk in map(_plain_chunk, payloads)])
        except DECODING_ERRORS:
            return None

    def __call__(self, payload: bytes) -> Event | str:
        """What one event says."""
        try:
            chunk = _chunk(payload)
        except DECODING_ERRORS:
            return answers.odd_event(payload)
        texts: list[str] = []
        finished = 0
        named = False
        for choice in chunk.choices:
            finished += choice.finish_reason is not None
            if choice.delta is not None:
                texts += _billed_texts(choice.delta)
                named |= "role" in choice.delta
        text = "".join(texts)
        if chunk.choices and not finished and not named and chunk.usage is None and chunk.error is None:
            return text
        return answers.event_of(chunk, payload, text, finished)


decode_event: Final[ChatEvents] = ChatEvents()


def _billed_texts(delta: dict[str, Any]) -> list[str]:
    texts: list[str] = []
    for part in _BILLED:
        value = delta.get(part)
        if value:
            texts += answers.texts_of(value)
    for part in _REASONING:
        value = delta.get(part)
        if value:
            texts += answers.texts_of(value)
            break
    return texts


def answer_text(body: bytes) -> str:
    """The text of a whole answer that is billed as output, all choices one after the other."""
    value = answers.loose(body)
    choices = value.get("choices") if isinstance(value, dict) else None
    texts: list[str] = []
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict):
            texts += _billed_texts(message)
    return "".join(texts)
