"""OpenAI chat completions: what a call asks, what an answer used, what an event of its stream says.

Reads only the fields that metering, limiting and routing need; the bytes of a body stay as they came. Text of messages
is neither decoded nor copied unless a message may hold more than text. Knows the fields of this one wire format.
"""

from typing import Any, Final

import msgspec

from faregate.core.call import AUDIO_OUT, Call
from faregate.core.metering.meter import Event
from faregate.core.usage import Measure
from faregate.dialects import answers, attachments, fields
from faregate.dialects.attachments import Attached
from faregate.dialects.jsonbody import DECODING_ERRORS, Members, bad_item, kind_of, loose_members, members, too_deep
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.dialects.shapes import ChatChoice, Chunk, LooseChunk, Message, Part, PlainChatChoice, PlainChunk, Tool
from faregate.errors import Problem

OPERATION: Final = "chat.completions"

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
    "search_parameters": ("live search", "leave it out"),
    "data_sources": ("searches in your data", "leave it out"),
    "background": ("background answers", "leave it out"),
    "prompt": ("stored prompts", "send the messages themselves"),
    "previous_response_id": ("stored conversations", "send the messages themselves"),
    "conversation": ("stored conversations", "send the messages themselves"),
    "plugins": ("plugins", "leave it out"),
    "file_ids": ("stored files", "send their text"),
    # Servers of open models let a caller bring the template, which may repeat a message without end.
    "chat_template": ("templates of the prompt", "leave it out"),
}

_TOOL_TYPES: Final = ("function", "custom")
_TEXT_PARTS: Final = ("text", "refusal")


#: A model that searches the web does so once in a call, and reads what it found before it answers.
_SEARCH: Final = (Measure("web_searches", "", 1),)
_SEARCH_TURNS: Final = 2

#: Where the fields of ``Call`` begin that a call of text leaves as they are, which ones, and what they are then.
_MEDIA_AT: Final = Call._fields.index("media")
_UNUSUAL_FIELDS: Final = Call._fields[_MEDIA_AT:]
_USUAL: Final = Call("", "")[_MEDIA_AT:]

_message = msgspec.json.Decoder(Message).decode
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
    plain = _PLAIN.issuperset(found)
    if not plain:
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
    rest = _USUAL
    may_hear = "audio" in name
    raw = _beyond_text(body, messages, may_hear)
    if raw:
        attached = _attached(raw, forbid_private_urls)
        if isinstance(attached, Problem):
            return attached
        bound += attached.tokens
        rest = _unusual(attached)
    if not plain or "search" in name:
        unusual = _extras(found, name, rest)
        if isinstance(unusual, Problem):
            return unusual
        rest = unusual
    tokens, field = cap
    # A named tuple's own constructor costs three times as much as the tuple's, on every request.
    return tuple.__new__(
        Call,
        (
            OPERATION,
            name,
            stream,
            usage_wanted,
            choices,
            tokens,
            field,
            bound,
            extra,
            True,
            user,
            tuple(found),
            *rest,
        ),
    )


def _unusual(attached: Attached) -> tuple[Any, ...]:
    """The fields of ``Call`` from ``media`` on, for messages that hold more than text."""
    if not attached.whole_context:
        return (attached.media, *_USUAL[1:])
    call = Call(
        "",
        "",
        media=attached.media,
        whole_context=attached.whole_context,
        objects=tuple(attached.objects),
    )
    return call[_MEDIA_AT:]


def _extras(found: Members, name: str, rest: tuple[Any, ...]) -> tuple[Any, ...] | Problem:
    """``rest`` with what members beside the messages ask for: a service tier, answers that are heard, a search."""
    tier = fields.service_tier(found) if "service_tier" in found else ""
    if isinstance(tier, Problem):
        return tier
    heard = _heard(found) if "modalities" in found or "audio" in found else False
    if isinstance(heard, Problem):
        return heard
    told = found.get("web_search_options")
    search = answers.searches(name) or (told is not None and bytes(told) != b"null")
    if not (tier or heard or search):
        return rest
    call = Call("", "")._replace(**dict(zip(_UNUSUAL_FIELDS, rest, strict=True)))
    call = call._replace(service_tier=tier, media=call.media | (AUDIO_OUT if heard else 0))
    if search:
        call = call._replace(at_most=_SEARCH, whole_context=True, turns=_SEARCH_TURNS)
    return call[_MEDIA_AT:]


def _heard(found: Members) -> bool | Problem:
    """Whether the answer may be spoken."""
    value = found.get("modalities")
    if value is not None and bytes(value) != b"null":
        try:
            wanted = _text_list(value) if kind_of(value) == "an array" else None
        except DECODING_ERRORS:
            wanted = None
        if wanted is None:
            return expected("field_type", "modalities", "a list of strings", "something else")
        for modality in wanted:
            if modality not in ("text", "audio"):
                return unbounded("modalities", "answers other than text and audio", 'send ["text"] or leave it out')
        if "audio" in wanted:
            return True
    value = found.get("audio")
    return value is not None and bytes(value) not in (b"null", b"false")


def _look_closer(found: Members) -> Problem | None:
    problem = fields.steering(found) or fields.refuse_present(found, _FEATURES)
    if problem:
        return problem
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


def _beyond_text(body: bytes, messages: msgspec.Raw, may_hear: bool) -> bytes:
    """The bytes of messages one of which may hold more than text; empty where none can.

    Without a bracket beside the one that opens the messages no content can be a list. Prose has none, and finding none
    costs next to nothing: the whole body is looked through before anything is copied.
    """
    is_list = not may_hear and len(messages) >= 16 and memoryview(messages)[0] == 0x5B
    if is_list and body.find(b"[", body.find(b"[") + 1) < 0:
        return b""
    raw = bytes(messages)
    # Other members of the body had brackets, not these.
    return b"" if is_list and raw.find(b"[", 1) < 0 else raw


def _attached(raw: bytes, forbid_private_urls: bool) -> Attached | Problem:
    """What the messages hold besides text."""
    if raw[:1] != b"[":
        return expected("field_type", "messages", "a list of messages", kind_of(msgspec.Raw(raw)))
    if len(raw) < 16 and not raw[1:-1].strip():
        return expected("field_range", "messages", "at least one message", "an empty list")
    deep = too_deep(raw)
    if deep is not None:
        return deep
    try:
        told = _messages(raw)
    except DECODING_ERRORS as error:
        return bad_item(raw, "messages", _message, "a list of messages", error)
    attached = Attached(forbid_private_urls)
    for index, message in enumerate(told):
        content = message.content
        if type(content) is list:
            problem = _take_parts(content, f"messages[{index}].content", attached)
            if problem is not None:
                return problem
        if message.audio is not None:
            earlier = message.audio.get("id") if isinstance(message.audio, dict) else None
            problem = attached.stored_audio(earlier, f"messages[{index}].audio.id")
            if problem is not None:
                return problem
    return attached


def _take_parts(parts: list[Part], path: str, attached: Attached) -> Problem | None:
    for index, part in enumerate(parts):
        if part.image_url is part.input_audio is part.file is part.video_url is None and part.type in _TEXT_PARTS:
            continue
        problem = _take_part(part, f"{path}[{index}]", attached)
        if problem is not None:
            return problem
    return None


def _take_part(part: Part, where: str, attached: Attached) -> Problem | None:
    if part.input_audio is not None or part.type == "input_audio":
        audio = part.input_audio
        return attached.audio(audio.get("data") if isinstance(audio, dict) else None, f"{where}.input_audio.data")
    if part.file is not None or part.type == "file":
        file = part.file
        if not isinstance(file, dict):
            return missing(f"{where}.file", "an object with file_data or file_id")
        return attached.file(file.get("file_id"), None, f"{where}.file.file_id")
    if part.video_url is not None:
        return unbounded(where, "video input", "send single images")
    if part.image_url is None:
        if part.type is None:
            return missing(f"{where}.type", "text, refusal or image_url")
        if part.type == "image_url":
            return missing(f"{where}.image_url", "an object with a url")
        return unbounded(where, f"a part of type {echo(part.type)}", "use text, image_url, input_audio and file parts")
    image = part.image_url
    url = image.get("url") if isinstance(image, dict) else image
    low = isinstance(image, dict) and image.get("detail") == "low"
    return attached.image(url, low, f"{where}.image_url.url")


# -- exact counting, off the hot path ---------------------------------------------------------------------------------


#: Members that are no text for the model, and the one that is read as it is written.
_NO_TEXT: Final = frozenset(("type", "image_url", "arguments"))

_encode = msgspec.json.Encoder().encode


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    if isinstance(value, dict):
        texts = [text for name, part in value.items() if name not in _NO_TEXT for text in _strings(part)]
        called = value.get("arguments")
        # Servers of open models take the arguments of a call as an object, too, which may have any shape.
        return texts if called is None else [*texts, called if isinstance(called, str) else _encode(called).decode()]
    return []


def prompt_text(body: bytes) -> list[str]:
    """Everything of a request that the model reads as text, in pieces that are tokenized one by one."""
    value = loose_members(body)
    texts = _strings(value.get("messages"))
    for field in ("tools", "functions", "response_format", "tool_choice", "function_call", "prediction"):
        if value.get(field) is not None:
            # Schemas are read by the model in a shorter notation than JSON.
            texts.append(msgspec.json.encode(value[field]).decode())
    return texts


def prompt_tokens_overhead(body: bytes) -> int:
    """Upper bound of the input tokens beyond those of ``prompt_text``: framing of messages, names, images."""
    messages = loose_members(body).get("messages")
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
                tokens += attachments.LOW_DETAIL_IMAGE_TOKENS_MAX if low else attachments.IMAGE_TOKENS_MAX
    return tokens


# -- streams ----------------------------------------------------------------------------------------------------------

#: Parts of a delta that are billed as output. Providers name reasoning in one of two ways, some in both.
_BILLED: Final = ("content", "refusal", "tool_calls", "function_call")
_REASONING: Final = ("reasoning_content", "reasoning")


_chunk = msgspec.json.Decoder(Chunk[ChatChoice]).decode
_loose_chunk = msgspec.json.Decoder(LooseChunk[ChatChoice]).decode
_plain_chunks = msgspec.json.Decoder(PlainChunk[PlainChatChoice]).decode_lines


class ChatEvents:
    """Understands the events of a stream; see ``EventDecoder``."""

    __slots__ = ()

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """The text of many events at once, where each says nothing but text."""
        # All in one call, which takes half as long as one for each.
        lines = answers.object_lines(payloads)
        try:
            chunks = _plain_chunks(lines)
        except DECODING_ERRORS:
            return None
        return "".join([chunk.choices[0].delta.content for chunk in chunks]) if len(chunks) == len(payloads) else None

    def __call__(self, payload: bytes) -> Event | str:
        """What one event says."""
        chunk: Chunk[ChatChoice] | LooseChunk[ChatChoice]
        try:
            chunk = _chunk(payload)
        except DECODING_ERRORS:
            try:
                # Some servers tell more in a usage report than is documented.
                chunk = _loose_chunk(payload)
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
