"""Anthropic messages: what a call asks, what an answer used, what an event of its stream says.

Reads only the fields that metering, limiting and routing need; the bytes of a body stay as they came. What a request
may offer to the model is closed: a tool, a source or a feature whose cost nobody here can bound is refused by name.
Knows the fields of this one wire format (Anthropic, "Messages API", "Streaming messages", "Prompt caching").
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from faregate.core.call import CACHE_WRITE_1H, Call
from faregate.core.usage import Measure
from faregate.dialects import fields, urls
from faregate.dialects.anthropic_shapes import Metadata, Tool
from faregate.dialects.jsonbody import DECODING_ERRORS, Members, anything, kind_of, loose_members, members
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.errors import Problem

OPERATION: Final = "messages"
COUNT_OPERATION: Final = "messages.count_tokens"

CAP_FIELD: Final = "max_tokens"

#: An image is scaled to at most 2576 pixels a side and costs a token for each 28 × 28 of them, begun ones included
#: (Anthropic, "Images and vision"); older models stay far below that.
IMAGE_TOKENS_MAX: Final = 92 * 92

#: What the provider itself tells the model when tools, thinking or a schema are asked for is billed, and is not in the
#: body: at most some 530 tokens for tools (Anthropic, "Pricing", tool use), told twice over here.
HIDDEN_TOKENS: Final = 2_048
#: The provider's own definition of a client tool: text editor 700, computer 735; a toolset has some twenty of them.
DEFINED_TOOL_TOKENS: Final = 2_048
TOOLSET_TOKENS: Final = 32_768

#: A request that runs the provider's tools reads everything again after each of them, until it pauses by itself
#: (Anthropic, "Server tools": the loop stops with ``pause_turn`` after ten iterations).
SERVER_TURNS: Final = 10
SEARCHES_MAX: Final = 1_000

_FEATURES: Final = {
    "mcp_servers": ("remote tools", "leave it out and offer tools of your own"),
    "container": ("stored containers", "leave it out"),
    "compaction": ("compaction of the context", "leave it out"),
    "fallback_credit_token": ("answers by another model", "leave it out"),
    "billing_policy": ("another billing policy", "leave it out"),
    "thread": ("stored conversations", "send the messages themselves"),
}

#: Members whose presence makes the provider tell the model more than the body holds.
_HIDDEN: Final = frozenset(("tools", "thinking", "output_config", "output_format"))

#: Members of nearly every call, which need no look beyond those that ``read`` takes.
_PLAIN: Final = frozenset(
    "model messages max_tokens system stream temperature top_p top_k stop_sequences tool_choice cache_control".split()
)

#: Tools that the caller runs: they cost the tokens of their definition.
_CLIENT_TOOLS: Final = ("bash_", "text_editor_", "computer_", "memory_", "browser_")
#: Web tools from this version on make code execution free of charge, and may run code themselves.
_FREE_CODE_FROM: Final = "20260209"

_tools = msgspec.json.Decoder(list[Tool]).decode
_metadata: Final[Callable[[bytes], Metadata | None]] = msgspec.json.Decoder(Metadata | None).decode
_encode = msgspec.json.Encoder().encode


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What the caller asks, or why it is refused.

    ``forbid_private_urls`` refuses addresses of images and documents that are not public https.
    """
    found = members(body, "messages")
    if isinstance(found, Problem):
        return found
    name = model or fields.name(found.get("model"), "model")
    if isinstance(name, Problem):
        return name
    user = ""
    offered = _NOTHING
    if not _PLAIN.issuperset(found):
        told = _look_closer(found)
        if isinstance(told, Problem):
            return told
        user, offered = told
    value = found.get("max_tokens")
    if value is None:
        return missing("max_tokens", "a whole number")
    cap = fields.count(value, "max_tokens", 0, fields.OUTPUT_CAP_MAX)
    if isinstance(cap, Problem):
        return cap
    if cap is None:
        return expected("field_type", "max_tokens", "a whole number", "null")
    stream = fields.flag(found["stream"], "stream") if "stream" in found else False
    if isinstance(stream, Problem):
        return stream
    attached = _attached(body, found, forbid_private_urls)
    if isinstance(attached, Problem):
        return attached
    return Call(
        OPERATION,
        name,
        stream,
        usage_wanted=True,
        output_cap=cap,
        cap_field=CAP_FIELD,
        input_tokens_max=len(body) + attached.tokens + offered.tokens,
        # Without an answer the call only fills the prompt cache.
        has_output=cap > 0,
        end_user=user,
        members=tuple(found),
        media=_writes_for_an_hour(body),
        at_most=offered.at_most,
        whole_context=attached.whole_context or offered.turns > 1,
        turns=offered.turns,
    )


def read_count(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """A count of tokens, which is not billed: only the model is of interest, and that nothing private is fetched."""
    found = members(body, "messages")
    if isinstance(found, Problem):
        return found
    name = model or fields.name(found.get("model"), "model")
    if isinstance(name, Problem):
        return name
    problem = fields.steering(found) or fields.refuse_present(found, _FEATURES)
    if problem is not None:
        return problem
    attached = _attached(body, found, forbid_private_urls)
    if isinstance(attached, Problem):
        return attached
    return Call(COUNT_OPERATION, name, has_output=False, members=tuple(found))


def _writes_for_an_hour(body: bytes) -> int:
    """The bit of dearer cache writes wherever a ``ttl`` of "1h" may stand, however it is spelt."""
    dear = b'1h"' in body or b"\\u0031" in body or b"\\u0068" in body
    return CACHE_WRITE_1H if dear else 0


# -- what a request offers and holds beyond text ----------------------------------------------------------------------


class _Offered(NamedTuple):
    """What tools and features add: tokens that are not in the body, how often all is read, what may be counted."""

    tokens: int = 0
    turns: int = 1
    at_most: tuple[Measure, ...] = ()


_NOTHING: Final = _Offered()


def _look_closer(found: Members) -> tuple[str, _Offered] | Problem:
    problem = fields.steering(found) or fields.refuse_present(found, _FEATURES) or _priced_apart(found)
    if problem is not None:
        return problem
    user = _end_user(found)
    if isinstance(user, Problem):
        return user
    value = found.get("tools")
    tools = _NOTHING if value is None or bytes(value) == b"null" else _offered(value)
    if isinstance(tools, Problem):
        return tools
    hidden = 0 if _HIDDEN.isdisjoint(found) else HIDDEN_TOKENS
    return user, tools._replace(tokens=tools.tokens + hidden)


def _priced_apart(found: Members) -> Problem | None:
    """Refuse what is billed at a multiple that no answer spells out in tokens."""
    for field, ordinary, what in (
        ("speed", ("standard",), "fast answers"),
        ("inference_geo", ("global",), "processing in one region"),
    ):
        value = found.get(field)
        if value is None:
            continue
        told = fields.text(value, field)
        if isinstance(told, Problem):
            return told
        if told is not None and told not in ordinary:
            return unbounded(field, what, f"send {ordinary[0]} or leave it out")
    value = found.get("context_management")
    if value is not None and (b"compact" in bytes(value) or b"\\u" in bytes(value)):
        return unbounded("context_management", "compaction of the context", "clear tool uses instead")
    return None


def _end_user(found: Members) -> str | Problem:
    value = found.get("metadata")
    if value is None:
        return ""
    try:
        metadata = _metadata(value)
    except DECODING_ERRORS:
        if kind_of(value) != "an object":
            return expected("field_type", "metadata", "an object", kind_of(value))
        return expected("field_type", "metadata.user_id", "a string", "something else")
    user = metadata.user_id if metadata is not None else None
    if not user:
        return ""
    if len(user) > fields.NAME_CHARACTERS_MAX or not user.isprintable():
        wanted = f"at most {fields.NAME_CHARACTERS_MAX} printable characters"
        return expected("field_range", "metadata.user_id", wanted, "something else")
    return user


def _offered(value: msgspec.Raw) -> _Offered | Problem:
    """What the tools add; those that run at the provider need a bound of their own."""
    try:
        tools = _tools(value)
    except DECODING_ERRORS:
        return expected("field_type", "tools", "a list of tools", "something else")
    kinds = [tool.type for tool in tools]
    tokens = searches = 0
    turns = 1
    for index, tool in enumerate(tools):
        kind = tool.type
        if kind is None or kind == "custom":
            continue
        if kind.startswith(_CLIENT_TOOLS):
            tokens += TOOLSET_TOKENS if "toolset" in kind else DEFINED_TOOL_TOKENS
            continue
        turns = SERVER_TURNS
        tokens += DEFINED_TOOL_TOKENS
        where = f"tools[{index}]"
        if kind.startswith(("web_search_", "web_fetch_")):
            uses = tool.max_uses
            if type(uses) is not int or not 1 <= uses <= SEARCHES_MAX:
                return unbounded(f"{where}.max_uses", f"the tool {echo(kind)} without it", "set max_uses")
            searches += uses if kind.startswith("web_search_") else 0
        elif kind.startswith("code_execution_"):
            if not any(_makes_code_free(other) for other in kinds):
                remedy = "offer a function of your own, or it together with web_search_20260209"
                return unbounded(where, f"the tool {echo(kind)}, billed by the time of its container,", remedy)
        elif not kind.startswith("tool_search_tool"):
            return unbounded(f"{where}.type", f"the tool {echo(kind)}", "use functions of your own")
    return _Offered(tokens, turns, (Measure("web_searches", "", searches),) if searches else ())


def _makes_code_free(kind: str | None) -> bool:
    return (
        kind is not None
        and kind.startswith(("web_search_", "web_fetch_"))
        and kind.rpartition("_")[2] >= _FREE_CODE_FROM
    )


class _Attached(NamedTuple):
    """What messages hold besides text; ``tokens`` is negative where bytes are pictures."""

    tokens: int = 0
    whole_context: bool = False


_TEXT_ONLY: Final = _Attached()


def _attached(body: bytes, found: Members, forbid_private_urls: bool) -> _Attached | Problem:
    messages = found.get("messages")
    if messages is None:
        return missing("messages", "a list of messages")
    if kind_of(messages) != "an array":
        return expected("field_type", "messages", "a list of messages", kind_of(messages))
    if len(messages) < 16 and not bytes(messages)[1:-1].strip():
        return expected("field_range", "messages", "at least one message", "an empty list")
    if b'"source"' not in body and b'"file_id"' not in body and b"\\u" not in body:
        # Whatever is not text names its source; without an escape there is no other way to write that.
        return _TEXT_ONLY
    tokens, whole = 0, False
    for name in ("system", "messages"):
        value = found.get(name)
        if value is None:
            continue
        held = _held(bytes(value), name, forbid_private_urls)
        if isinstance(held, Problem):
            return held
        tokens += held.tokens
        whole |= held.whole_context
    return _Attached(tokens, whole)


def _held(raw: bytes, name: str, forbid_private_urls: bool) -> _Attached | Problem:
    value = anything(raw, name)
    if isinstance(value, Problem):
        return value
    walk = _Walk(forbid_private_urls)
    walk.blocks(value, name)
    return walk.problem or _Attached(walk.tokens, walk.whole_context)


class _Walk:
    """Looks at every block of a message, and at those inside tool results and documents."""

    __slots__ = ("forbid_private_urls", "problem", "tokens", "whole_context")

    def __init__(self, forbid_private_urls: bool) -> None:
        self.forbid_private_urls = forbid_private_urls
        self.tokens = 0
        self.whole_context = False
        self.problem: Problem | None = None

    def blocks(self, value: Any, path: str) -> None:
        """Messages, or the blocks of one; a tool's result may be a block itself."""
        if isinstance(value, dict):
            self._block(value, path)
            return
        for index, block in enumerate(value if isinstance(value, list) else ()):
            if self.problem is None and isinstance(block, dict):
                self._block(block, f"{path}[{index}]")

    def _block(self, block: dict[str, Any], where: str) -> None:
        if block.get("file_id") is not None:
            self.problem = unbounded(f"{where}.file_id", "stored files", "send the content itself")
            return
        source = block.get("source")
        # The source of a search result is a text, as is its content.
        if isinstance(source, dict):
            self._source(source, str(block.get("type")), where)
        self.blocks(block.get("content"), f"{where}.content")

    def _source(self, source: dict[str, Any], holder: str, where: str) -> None:
        kind = source.get("type")
        if kind == "text":
            return
        if kind == "content":
            self.blocks(source.get("content"), f"{where}.source.content")
        elif kind == "file":
            self.problem = unbounded(f"{where}.source", "stored files", "send the content itself")
        elif kind not in ("base64", "url"):
            self.problem = unbounded(f"{where}.source", f"a source of type {echo(kind)}", "use base64 or url")
        elif kind == "url" and not self._may_fetch(source.get("url"), where):
            return
        else:
            data = source.get("data")
            # Neither a picture nor a document is read as the text of its bytes.
            self.tokens -= len(data) if kind == "base64" and isinstance(data, str) else 0
            if holder == "image":
                self.tokens += IMAGE_TOKENS_MAX
            else:
                self.whole_context = True

    def _may_fetch(self, url: Any, where: str) -> bool:
        if not isinstance(url, str):
            self.problem = expected("field_type", f"{where}.source.url", "a string", "something else")
        elif self.forbid_private_urls and not urls.is_public_https(url):
            self.problem = Problem(
                "url_forbidden",
                f"{where}.source.url: only public https URLs are allowed; send the content as base64.",
                param=f"{where}.source.url",
            )
        return self.problem is None


# -- exact counting, off the hot path ---------------------------------------------------------------------------------


#: Members of a block that are no text for the model.
_NO_TEXT: Final = frozenset(("type", "cache_control", "signature"))
_FREE_FORM: Final = _NO_TEXT | {"input"}


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    if isinstance(value, dict):
        if value.get("type") == "base64":
            return []
        texts = [text for name, part in value.items() if name not in _FREE_FORM for text in _strings(part)]
        # What a tool was called with has any shape, and all of it is read.
        return texts + ([_encode(value["input"]).decode()] if value.get("input") is not None else [])
    return []


def prompt_text(body: bytes) -> list[str]:
    """Everything of a request that the model reads as text, in pieces that are tokenized one by one."""
    value = loose_members(body)
    texts = _strings(value.get("system")) + _strings(value.get("messages"))
    for field in ("tools", "tool_choice", "output_config", "output_format"):
        if value.get(field) is not None:
            texts.append(_encode(value[field]).decode())
    return texts


#: Tokens around each block, generously.
_BLOCK_TOKENS: Final = 16


def prompt_tokens_overhead(body: bytes) -> int:
    """Upper bound of the input tokens beyond those of ``prompt_text``: framing, images, what the provider adds."""
    value = loose_members(body)
    tokens = 0 if _HIDDEN.isdisjoint(value) else HIDDEN_TOKENS
    tools = value.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and tool.get("type") not in (None, "custom"):
            tokens += TOOLSET_TOKENS if "toolset" in str(tool["type"]) else DEFINED_TOOL_TOKENS
    return tokens + _framing(value.get("messages"))


def _framing(value: Any) -> int:
    if isinstance(value, list):
        return sum(_framing(part) for part in value)
    if isinstance(value, dict):
        own = _BLOCK_TOKENS + (IMAGE_TOKENS_MAX if value.get("type") == "image" else 0)
        return own + sum(_framing(part) for part in value.values())
    return 0
