"""Reads OpenAI's and Azure's request bodies as strictly as they do, and says what is asked. Pure.

Fields that change no count and no shape are accepted and not looked at; fields that do not exist are refused.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from faregate.simulator import wording

T = TypeVar("T")

_ABSENT = Raw()

Choices = Annotated[int, Meta(ge=1, le=128)]
Cap = Annotated[int, Meta(ge=0, le=10_000_000)]


class AskInvalid(Exception):
    """A request the provider would refuse, mostly with 400; ``param`` is the field at fault where one is."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


class Ask(NamedTuple):
    """The facts of one request that decide the answer."""

    kind: str
    model: str
    #: The text that may hold a ``sim:`` line.
    text: str
    prompt_tokens: int
    cap: int | None = None
    #: Choices in the answer, and how many were made to choose them from; both include every prompt of a list.
    choices: int = 1
    billed_choices: int = 1
    stream: bool = False
    include_usage: bool = False
    #: Embeddings only: what to embed, its length, and how it is written.
    inputs: tuple[bytes, ...] = ()
    dimensions: int | None = None
    base64: bool = False
    #: As it was asked for, empty where it was not.
    service_tier: str = ""
    #: What only the speaker that read it looks at.
    facts: Any = None


class _StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Part(Struct):
    type: str
    text: str | None = None


class _Message(Struct):
    role: str
    content: str | list[_Part] | None = None


class _Chat(Struct, forbid_unknown_fields=True):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    model: str = ""
    n: Choices | None = None
    max_tokens: Cap | None = None
    max_completion_tokens: Cap | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    audio: Raw = _ABSENT
    data_sources: Raw = _ABSENT
    frequency_penalty: Raw = _ABSENT
    function_call: Raw = _ABSENT
    functions: Raw = _ABSENT
    logit_bias: Raw = _ABSENT
    logprobs: Raw = _ABSENT
    metadata: Raw = _ABSENT
    modalities: Raw = _ABSENT
    moderation: Raw = _ABSENT
    parallel_tool_calls: Raw = _ABSENT
    prediction: Raw = _ABSENT
    presence_penalty: Raw = _ABSENT
    prompt_cache_key: Raw = _ABSENT
    prompt_cache_options: Raw = _ABSENT
    prompt_cache_retention: Raw = _ABSENT
    reasoning_effort: Raw = _ABSENT
    response_format: Raw = _ABSENT
    safety_identifier: Raw = _ABSENT
    seed: Raw = _ABSENT
    service_tier: str | None = None
    stop: Raw = _ABSENT
    store: Raw = _ABSENT
    temperature: Raw = _ABSENT
    tool_choice: Raw = _ABSENT
    tools: Raw = _ABSENT
    top_logprobs: Raw = _ABSENT
    top_p: Raw = _ABSENT
    user: Raw = _ABSENT
    user_security_context: Raw = _ABSENT
    verbosity: Raw = _ABSENT
    web_search_options: Raw = _ABSENT


class _Completion(Struct, forbid_unknown_fields=True):
    prompt: str | list[str | int | list[int]] = "<|endoftext|>"
    model: str = ""
    n: Choices | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: Cap | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    echo: Raw = _ABSENT
    frequency_penalty: Raw = _ABSENT
    logit_bias: Raw = _ABSENT
    logprobs: Raw = _ABSENT
    presence_penalty: Raw = _ABSENT
    seed: Raw = _ABSENT
    stop: Raw = _ABSENT
    suffix: Raw = _ABSENT
    temperature: Raw = _ABSENT
    top_p: Raw = _ABSENT
    user: Raw = _ABSENT


class _Embedding(Struct, forbid_unknown_fields=True):
    input: str | list[str | int | list[int]]
    model: str = ""
    dimensions: Annotated[int, Meta(ge=1, le=3072)] | None = None
    encoding_format: str | None = None
    user: Raw = _ABSENT


_decode_chat = msgspec.json.Decoder(_Chat).decode
_decode_completion = msgspec.json.Decoder(_Completion).decode
_decode_embedding = msgspec.json.Decoder(_Embedding).decode

#: A list of prompts or inputs is at most this long, as at OpenAI.
LIST_MAX = 2048
#: OpenAI's default for text completions without ``max_tokens``.
COMPLETION_CAP = 16


def read(kind: str, body: bytes, model: str) -> Ask:
    """What a body asks; ``model`` is used where the body names none (Azure's deployments).

    Raises ``AskInvalid`` with the provider's complaint.
    """
    if kind == "chat":
        ask = _chat(decoded(_decode_chat, body), model)
    elif kind == "completion":
        ask = _completion(decoded(_decode_completion, body), model)
    else:
        ask = _embedding(decoded(_decode_embedding, body), model)
    if not ask.model:
        raise AskInvalid("you must provide a model parameter", "model")
    return ask


def decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """A body as its struct; ``AskInvalid`` in OpenAI's words where it is none."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise AskInvalid(*_complaint(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AskInvalid(f"We could not parse the JSON body of your request: {error}") from None
    except RecursionError:
        raise AskInvalid("We could not parse the JSON body of your request: it is nested too deeply.") from None


def _complaint(text: str) -> tuple[str, str | None]:
    """Turn "Expected `int`, got `str` - at `$.n`" into a message and the parameter's name."""
    if text.startswith("Object contains unknown field `") and " - at" not in text:
        name = text.split("`")[1]
        return f"Unrecognized request argument supplied: {name}", name
    reason, _, place = text.partition(" - at `$")
    return f"Invalid request: {reason}.", place.strip("`.") or None


def _stream(stream: bool | None, options: _StreamOptions | None) -> tuple[bool, bool]:
    if options is not None and not stream:
        raise AskInvalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    return bool(stream), options is not None and bool(options.include_usage)


def _chat(body: _Chat, model: str) -> Ask:
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise AskInvalid(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.", "max_tokens"
        )
    cap = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    if cap == 0:
        raise AskInvalid("Invalid 'max_tokens': integer below minimum value. Expected a value >= 1.", "max_tokens")
    tokens, last = wording.REPLY_TOKENS, ""
    for message in body.messages:
        text, images = _message_text(message)
        tokens += wording.MESSAGE_TOKENS + images * wording.IMAGE_TOKENS + wording.count(text)
        if message.role == "user":
            last = text
    choices = body.n or 1
    stream, include_usage = _stream(body.stream, body.stream_options)
    return Ask(
        "chat",
        body.model or model,
        last,
        tokens,
        cap,
        choices,
        choices,
        stream,
        include_usage,
        service_tier=body.service_tier or "",
    )


def _message_text(message: _Message) -> tuple[str, int]:
    content = message.content
    if isinstance(content, str):
        return content, 0
    if content is None:
        return "", 0
    images = sum(part.type == "image_url" for part in content)
    return "\n".join(part.text for part in content if part.text is not None), images


def _completion(body: _Completion, model: str) -> Ask:
    texts, tokens = _inputs(body.prompt, "prompt")
    choices = body.n or 1
    best_of = body.best_of or choices
    stream, include_usage = _stream(body.stream, body.stream_options)
    if best_of < choices:
        raise AskInvalid("You requested that the server return more choices than it will generate.", "best_of")
    if stream and best_of > choices:
        raise AskInvalid("You cannot stream and use 'best_of' greater than 'n'.", "best_of")
    if len(texts) * best_of > LIST_MAX:
        raise AskInvalid("Too many choices were requested.", "n")
    cap = COMPLETION_CAP if body.max_tokens is None else body.max_tokens
    text = texts[-1].decode()
    billed = len(texts) * best_of
    return Ask(
        "completion", body.model or model, text, tokens, cap, len(texts) * choices, billed, stream, include_usage
    )


def _embedding(body: _Embedding, model: str) -> Ask:
    texts, tokens = _inputs(body.input, "input")
    if body.encoding_format not in (None, "float", "base64"):
        raise AskInvalid("Invalid 'encoding_format': expected 'float' or 'base64'.", "encoding_format")
    return Ask(
        "embedding",
        body.model or model,
        texts[-1].decode(),
        tokens,
        inputs=tuple(texts),
        dimensions=body.dimensions,
        base64=body.encoding_format == "base64",
    )


def _inputs(value: str | list[str | int | list[int]], name: str) -> tuple[list[bytes], int]:
    """Each text of a prompt as bytes, and the tokens of all; lists of token numbers count as they are."""
    items: list[Any] = [value] if isinstance(value, str) else value
    if items and all(type(item) is int for item in items):
        items = [items]
    if not 1 <= len(items) <= LIST_MAX:
        raise AskInvalid(f"Invalid '{name}': expected 1 to {LIST_MAX} entries.", name)
    texts: list[bytes] = []
    tokens = 0
    for item in items:
        if isinstance(item, str):
            if not item and name == "input":
                raise AskInvalid(f"Invalid '{name}': input cannot be an empty string.", name)
            texts.append(item.encode())
            tokens += max(1, wording.count(item))
        elif isinstance(item, list) and item:
            texts.append(repr(item).encode())
            tokens += len(item)
        else:
            raise AskInvalid(f"Invalid '{name}': entries are strings or lists of token numbers.", name)
    return texts, tokens
