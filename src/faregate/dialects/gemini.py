"""Gemini's ``generateContent`` and its kin: what a call asks, what an answer used, what an event of its stream says.

Reads only the fields that metering, limiting and routing need; the bytes of a body stay as they came. The provider
takes every name in two spellings (``maxOutputTokens`` and ``max_output_tokens``), so both are read and a body with both
is refused. What a request may offer to the model is closed: a tool or a source whose cost nobody here can bound is
refused by name. Knows the fields of this one wire format (Google, "Gemini API", "Generating content", "Tokens").
"""

import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from faregate.core.call import AUDIO_IN, AUDIO_OUT, IMAGE_IN, IMAGE_OUT, Call
from faregate.core.usage import Measure
from faregate.dialects import fields, pictures, splice, urls
from faregate.dialects.gemini_answers import SEARCH_ONCE, TIERS
from faregate.dialects.jsonbody import DECODING_ERRORS, Members, anything, kind_of, loose_members, members
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.errors import Problem

OPERATION: Final = "gemini.generate"
STREAM_OPERATION: Final = "gemini.stream"
EMBED_OPERATION: Final = "gemini.embed"
BATCH_EMBED_OPERATION: Final = "gemini.batch_embed"
COUNT_OPERATION: Final = "gemini.count_tokens"

CAP_FIELD: Final = "maxOutputTokens"

#: A picture of more than 384 pixels a side is cut into tiles of 258 tokens, each at most 768 pixels and at least two
#: thirds of the shorter side (Google, "Understand and count tokens"); newer models take at most 2,240 for a picture at
#: the highest resolution ("Media resolution").
TILE_TOKENS: Final = 258
TILE_PIXELS_MAX: Final = 768
PICTURE_TOKENS_MIN: Final = 2_304
#: More tiles than any real picture has: then the context window is the bound.
TILES_MAX: Final = 4_096
#: So much of a picture is decoded to find its size.
_PICTURE_CHARACTERS: Final = 256 * 1024

#: What the provider itself tells the model about tools and schemas.
HIDDEN_TOKENS: Final = 2_048
CANDIDATES_MAX: Final = 8

_FEATURES: Final = {
    "cachedContent": ("stored contexts", "send the contents themselves"),
}
_CONFIG_FEATURES: Final = {
    "routingConfig": ("another model's answer", "leave it out"),
    "modelSelectionConfig": ("another model's answer", "leave it out"),
}

#: Tools that the caller runs: they cost the tokens of their definition.
_CLIENT_TOOLS: Final = frozenset(("functionDeclarations", "computerUse"))

_values = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_texts = msgspec.json.Decoder(list[str]).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode

#: Looks for the member, as every turn of the model's has the word, too.
_MODEL_MEMBER: Final = re.compile(rb'"model"[ \t\r\n]*:')
_encode = msgspec.json.Encoder().encode


def _camel(name: str) -> str:
    """The first of the two spellings of a name."""
    if "_" not in name:
        return name
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _spelt_once(found: Members, path: str) -> Members | Problem:
    """The members by their first spelling; the same one in both spellings is refused."""
    if not any("_" in name for name in found):
        return found
    known: Members = {}
    for name, value in found.items():
        plain = _camel(name)
        if plain in known:
            where = f"{path}{echo(name)}"
            return expected("field_conflict", where, "one spelling of a name", "two", f"send {echo(plain)} alone")
        known[plain] = value
    return known


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What the caller asks of the model that the path names, or why it is refused."""
    return _read(body, model, forbid_private_urls, OPERATION)


def read_stream(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """As ``read``, for an answer that is streamed."""
    return _read(body, model, forbid_private_urls, STREAM_OPERATION)


def read_embed(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What is to be embedded: its bytes bound the tokens, unless it is more than text."""
    return _read_embed(body, model, forbid_private_urls, EMBED_OPERATION, "content")


def read_batch_embed(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """Several contents to embed, each with the model that the path names: what bounds one bounds all.

    Google's own client sends every embedding this way ("Embeddings", ``batchEmbedContents``).
    """
    return _read_embed(body, model, forbid_private_urls, BATCH_EMBED_OPERATION, "requests")


def _read_embed(body: bytes, model: str, forbid_private_urls: bool, operation: str, wanted: str) -> Call | Problem:
    found = _members(body, model, wanted)
    if isinstance(found, Problem):
        return found
    if operation == BATCH_EMBED_OPERATION:
        problem = _of_one_model(found[wanted], model)
        if problem is not None:
            return problem
    attached = _attached(body, found, (wanted,), forbid_private_urls)
    if isinstance(attached, Problem):
        return attached
    return Call(
        operation,
        model,
        input_tokens_max=len(body) + attached.tokens,
        has_output=False,
        members=tuple(found),
        media=attached.media,
        whole_context=attached.whole_context,
    )


def _of_one_model(requests: msgspec.Raw, model: str) -> Problem | None:
    """The refusal of a batch that is no list of requests, or that names another model than the path does."""
    try:
        found = _values(requests)
    except DECODING_ERRORS:
        return expected("field_type", "requests", "a list of requests", "something else")
    if not found:
        return expected("field_range", "requests", "at least one request", "an empty list")
    for index, request in enumerate(found):
        problem = _as_in_the_path(request, f"requests[{index}].model", model)
        if problem is not None:
            return problem
    return None


def _as_in_the_path(found: Members, where: str, model: str) -> Problem | None:
    """The refusal of a model that a body names beside the path, where it is another one."""
    if "model" not in found:
        return None
    named = fields.text(found["model"], where)
    if isinstance(named, Problem):
        return named
    if named is not None and named.removeprefix("models/") != model:
        return expected("field_conflict", where, f"{echo(model)}, as in the path", echo(named), "leave it out")
    return None


def read_count(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """A count of tokens, which is not billed: only that nothing private is fetched is of interest."""
    found = members(body, "contents")
    if isinstance(found, Problem):
        return found
    attached = _attached(body, found, tuple(found), forbid_private_urls)
    if isinstance(attached, Problem):
        return attached
    return Call(COUNT_OPERATION, model, has_output=False, members=tuple(found))


def _members(body: bytes, model: str, wanted: str) -> Members | Problem:
    """The members of a body by their first spelling, without what steers or stores."""
    found = members(body, wanted)
    if isinstance(found, Problem):
        return found
    problem = fields.steering(found)
    if problem is not None:
        return problem
    found = _spelt_once(found, "")
    if isinstance(found, Problem):
        return found
    if wanted not in found:
        return missing(wanted, "what the model is to read")
    problem = _as_in_the_path(found, "model", model)
    if problem is not None:
        return problem
    return fields.refuse_present(found, _FEATURES) or found


def _read(body: bytes, model: str, forbid_private_urls: bool, operation: str) -> Call | Problem:
    found = _members(body, model, "contents")
    if isinstance(found, Problem):
        return found
    if kind_of(found["contents"]) not in ("an array", "an object"):
        return expected("field_type", "contents", "a list of contents", kind_of(found["contents"]))
    config = _config(found)
    if isinstance(config, Problem):
        return config
    offered = _offered(found, model)
    if isinstance(offered, Problem):
        return offered
    tier = _service_tier(found)
    if isinstance(tier, Problem):
        return tier
    attached = _attached(body, found, ("systemInstruction", "contents"), forbid_private_urls)
    if isinstance(attached, Problem):
        return attached
    return Call(
        operation,
        model,
        operation == STREAM_OPERATION,
        usage_wanted=True,
        choices=config.candidates,
        output_cap=config.cap,
        cap_field=CAP_FIELD,
        input_tokens_max=len(body) + attached.tokens + offered.tokens,
        members=tuple(found),
        media=attached.media | config.media,
        at_most=offered.at_most,
        whole_context=attached.whole_context or offered.whole_context,
        service_tier=tier[0],
    )


# -- what a request asks for ------------------------------------------------------------------------------------------


class _Config(NamedTuple):
    """What ``generationConfig`` says of the answer. Without modalities the model decides, so it may be any."""

    cap: int | None = None
    candidates: int = 1
    media: int = AUDIO_OUT | IMAGE_OUT


def _config(found: Members) -> _Config | Problem:
    value = found.get("generationConfig")
    if value is None or bytes(value) == b"null":
        return _Config()
    if kind_of(value) != "an object":
        return expected("field_type", "generationConfig", "an object", kind_of(value))
    inner = members(bytes(value), "")
    if isinstance(inner, Problem):
        return inner._replace(param="generationConfig")
    inner = _spelt_once(inner, "generationConfig.")
    if isinstance(inner, Problem):
        return inner
    problem = fields.refuse_present(inner, _CONFIG_FEATURES)
    if problem is not None:
        return problem
    cap: int | Problem | None = None
    if "maxOutputTokens" in inner:
        cap = fields.count(inner["maxOutputTokens"], "generationConfig.maxOutputTokens", 1, fields.OUTPUT_CAP_MAX)
    candidates: int | Problem | None = None
    if "candidateCount" in inner:
        candidates = fields.count(inner["candidateCount"], "generationConfig.candidateCount", 1, CANDIDATES_MAX)
    if isinstance(cap, Problem):
        return cap
    if isinstance(candidates, Problem):
        return candidates
    media = _modalities(inner)
    return media if isinstance(media, Problem) else _Config(cap, candidates or 1, media)


def _modalities(inner: Members) -> int | Problem:
    value = inner.get("responseModalities")
    if value is None or bytes(value) in (b"null", b"[]"):
        return AUDIO_OUT | IMAGE_OUT
    try:
        wanted = _texts(value)
    except DECODING_ERRORS:
        return expected("field_type", "generationConfig.responseModalities", "a list of strings", "something else")
    media = 0
    for modality in wanted:
        bit = _OUT.get(modality.upper())
        if bit is None:
            where = "generationConfig.responseModalities"
            return unbounded(where, f"answers as {echo(modality)}", "ask for TEXT, IMAGE or AUDIO")
        media |= bit
    return media


_OUT: Final = {"TEXT": 0, "IMAGE": IMAGE_OUT, "AUDIO": AUDIO_OUT}


def _service_tier(found: Members) -> tuple[str] | Problem:
    value = found.get("serviceTier")
    if value is None:
        return ("",)
    told = fields.text(value, "serviceTier")
    if isinstance(told, Problem):
        return told
    tier = TIERS.get((told or "").lower())
    if tier is None:
        return unbounded("serviceTier", f"the tier {echo(told)}", "send standard, flex or priority, or leave it out")
    return (tier,)


class _Offered(NamedTuple):
    """What tools add."""

    tokens: int = 0
    whole_context: bool = False
    at_most: tuple[Measure, ...] = ()


def _offered(found: Members, model: str) -> _Offered | Problem:
    value = found.get("tools")
    if value is None or bytes(value) in (b"null", b"[]"):
        return _Offered()
    try:
        tools = _values(value if kind_of(value) == "an array" else b"[" + bytes(value) + b"]")
    except DECODING_ERRORS:
        return expected("field_type", "tools", "a list of tools", "something else")
    whole = False
    searches: tuple[Measure, ...] = ()
    for index, tool in enumerate(tools):
        for name, asked in tool.items():
            kind = _camel(name)
            where = f"tools[{index}].{echo(name)}"
            if kind in _CLIENT_TOOLS or bytes(asked) == b"null":
                continue
            if kind in ("googleSearch", "googleSearchRetrieval"):
                if not model.startswith(SEARCH_ONCE):
                    remedy = "use a model of Gemini 2.5, or a search function of your own"
                    return unbounded(where, "searches that are billed by the query", remedy)
                searches = (Measure("web_searches", "", 1),)
            elif kind == "urlContext":
                whole = True
            elif kind == "codeExecution":
                remedy = "offer a function of your own"
                return unbounded(where, "code whose results are billed as output beyond any cap", remedy)
            else:
                return unbounded(where, f"the tool {echo(name)}", "use functions of your own")
    return _Offered(HIDDEN_TOKENS, whole or bool(searches), searches)


# -- what a request holds beyond text ---------------------------------------------------------------------------------


class _Attached(NamedTuple):
    """What contents hold besides text; ``tokens`` is negative where bytes are pictures."""

    tokens: int = 0
    media: int = 0
    whole_context: bool = False


_TEXT_ONLY: Final = _Attached()
_MARKS: Final = (b'"inlineData"', b'"inline_data"', b'"fileData"', b'"file_data"', b"\\u")


def _attached(body: bytes, found: Members, names: Iterable[str], forbid_private_urls: bool) -> _Attached | Problem:
    if not any(mark in body for mark in _MARKS):
        return _TEXT_ONLY
    whole = _TEXT_ONLY
    for name in names:
        value = found.get(name)
        if value is None:
            continue
        held = _held(bytes(value), name, forbid_private_urls)
        if isinstance(held, Problem):
            return held
        whole = _Attached(whole.tokens + held.tokens, whole.media | held.media, whole.whole_context or held[2])
    return whole


def _held(raw: bytes, name: str, forbid_private_urls: bool) -> _Attached | Problem:
    value = anything(raw, name)
    if isinstance(value, Problem):
        return value
    tokens, media, whole = 0, 0, False
    for part, quoted in _objects(value):
        for spelling in ("inlineData", "inline_data", "fileData", "file_data"):
            data = part.get(spelling)
            if not isinstance(data, dict):
                continue
            held = (
                _inline(data)
                if spelling.startswith("inline")
                else _file(data, f"{name}: {spelling}", forbid_private_urls)
            )
            if isinstance(held, Problem):
                return held
            # Inside a function's arguments or result it is text, all bytes of which count.
            tokens += max(0, held.tokens) if quoted else held.tokens
            media |= held.media
            whole |= held.whole_context
    return _Attached(tokens, media, whole)


#: Members of any shape, which the model reads as they are written: the arguments and the result of a function.
_FREE_FORM: Final = frozenset(("args", "response"))


def _objects(value: Any) -> Iterator[tuple[dict[str, Any], bool]]:
    """Every object in a value, however deep, and whether it is in a member of any shape; a part may be in a result."""
    waiting = [(value, False)]
    while waiting:
        one, quoted = waiting.pop()
        if isinstance(one, dict):
            yield one, quoted
            waiting += [(part, quoted or name in _FREE_FORM) for name, part in one.items()]
        elif isinstance(one, list):
            waiting += [(part, quoted) for part in one]


def _inline(data: dict[str, Any]) -> _Attached:
    kind = str(data.get("mimeType") or data.get("mime_type") or "").lower()
    content = data.get("data")
    size = len(content) if isinstance(content, str) else 0
    if kind.startswith("text/"):
        # Written as base64, so a third longer than the text.
        return _TEXT_ONLY
    if kind.startswith("image/"):
        tokens = picture_tokens(content) if isinstance(content, str) else 0
        return _Attached(tokens - size, IMAGE_IN) if tokens else _Attached(-size, IMAGE_IN, True)
    if kind.startswith("audio/"):
        return _Attached(-size, AUDIO_IN, True)
    return _Attached(-size, IMAGE_IN | AUDIO_IN, True)


def picture_tokens(content: str) -> int:
    """The most tokens that a picture can have, given as base64; 0 where its size cannot be told."""
    start = content[: _PICTURE_CHARACTERS - _PICTURE_CHARACTERS % 4].replace("-", "+").replace("_", "/")
    try:
        size = pictures.size_of(binascii.a2b_base64(start.encode("ascii") + b"=="))
    except (binascii.Error, UnicodeEncodeError):
        return 0
    if size is None:
        return 0
    tile = min(TILE_PIXELS_MAX, max(1, min(size) * 2 // 3))
    tiles = -(-size.width // tile) * -(-size.height // tile)
    return max(PICTURE_TOKENS_MIN, tiles * TILE_TOKENS) if tiles <= TILES_MAX else 0


def _file(data: dict[str, Any], where: str, forbid_private_urls: bool) -> _Attached | Problem:
    uri = data.get("fileUri") or data.get("file_uri")
    if not isinstance(uri, str):
        return expected("field_type", f"{where}.fileUri", "a string", "something else")
    if not _is_public(uri):
        return unbounded(f"{where}.fileUri", "stored files", "send the content as inlineData or a public https URL")
    if forbid_private_urls and not urls.is_public_https(uri):
        return Problem("url_forbidden", f"{where}.fileUri: only public https URLs are allowed.", param=where)
    return _Attached(0, IMAGE_IN | AUDIO_IN, True)


def _is_public(uri: str) -> bool:
    """Whether a file lies on the web, rather than with the provider, where it may be anybody's."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme.lower() in ("http", "https") and not host.rstrip(".").endswith("googleapis.com")


# -- changing a body --------------------------------------------------------------------------------------------------


def edit(body: bytes, call: Call, *, model: str | None, cap: int | None, cap_field: str, ask_usage: bool) -> bytes:
    """``body`` with another output cap, which stands inside ``generationConfig``.

    The model is in the path; where a body names it, too, it has to be the same one there.
    """
    if body[:3] == b"\xef\xbb\xbf":
        body = body[3:]
    if model is not None and b'"model"' in body and _MODEL_MEMBER.search(body) is not None:
        body = _with_model(body, _encode(f"models/{model}"))
    if cap is None:
        return body
    outer, span = _span(body, ("generationConfig", "generation_config"))
    value = b"%d" % cap
    if span is None:
        return splice.put(body, outer, b'{"maxOutputTokens":' + value + b"}", False)
    config = body[span[0] : span[1]]
    if config[:1] != b"{":
        config = b"{}"
    inner, place = _span(config, ("maxOutputTokens", "max_output_tokens"))
    config = splice.put(config, inner, value, place is not None)
    return body[: span[0]] + config + body[span[1] :]


def _with_model(body: bytes, model: bytes) -> bytes:
    """``body`` with the model that it names, and that each request of a batch names, replaced."""
    if splice.span_of(body, "model") is not None:
        body = splice.put(body, "model", model, True)
    span = splice.span_of(body, "requests")
    if span is None or body[span[0] : span[0] + 1] != b"[":
        return body
    batch = []
    for request in _raws(body[span[0] : span[1]]):
        one = bytes(request)
        batch.append(one if splice.span_of(one, "model") is None else splice.put(one, "model", model, True))
    return body[: span[0]] + b"[" + b",".join(batch) + b"]" + body[span[1] :]


def _span(body: bytes, spellings: tuple[str, str]) -> tuple[str, tuple[int, int] | None]:
    """The spelling that a body uses, and where its value stands."""
    for name in spellings:
        span = splice.span_of(body, name)
        if span is not None:
            return name, span
    return spellings[0], None


# -- exact counting, off the hot path ---------------------------------------------------------------------------------


def _loose(body: bytes) -> dict[str, Any]:
    return {_camel(name): part for name, part in loose_members(body).items()}


_NO_TEXT: Final = frozenset(("role", "inlineData", "inline_data", "thoughtSignature", "thought_signature"))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    if isinstance(value, dict):
        known = [part for name, part in value.items() if name not in _NO_TEXT and name not in _FREE_FORM]
        texts = [text for part in known for text in _strings(part)]
        return texts + [_encode(value[name]).decode() for name in _FREE_FORM if value.get(name) is not None]
    return []


def prompt_text(body: bytes) -> list[str]:
    """Everything of a request that the model reads as text, in pieces that are tokenized one by one."""
    value = _loose(body)
    texts = [text for name in _TEXT_MEMBERS for text in _strings(value.get(name))]
    texts += [text for request in _batched(value) for text in _strings(request.get("content"))]
    asked = (value.get(name) for name in ("tools", "toolConfig", "generationConfig"))
    return texts + [_encode(each).decode() for each in asked if each]


#: Members of a request that the model reads.
_TEXT_MEMBERS: Final = ("systemInstruction", "contents", "content")


def _batched(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The requests of a batch of embeddings."""
    requests = value.get("requests")
    return [each for each in requests if isinstance(each, dict)] if isinstance(requests, list) else []


#: Tokens around each turn, generously.
_TURN_TOKENS: Final = 8


def prompt_tokens_overhead(body: bytes) -> int:
    """Upper bound of the input tokens beyond those of ``prompt_text``: framing, pictures, what the provider adds."""
    value = _loose(body)
    tokens = HIDDEN_TOKENS if value.get("tools") else 0
    read_of_all = [value.get(name) for name in _TEXT_MEMBERS]
    for part, _ in _objects([*read_of_all, *(request.get("content") for request in _batched(value))]):
        data = part.get("inlineData") or part.get("inline_data")
        content = data.get("data") if isinstance(data, dict) else None
        tokens += _TURN_TOKENS + (picture_tokens(content) if isinstance(content, str) else 0)
    return tokens
