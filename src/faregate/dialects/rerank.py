"""Rerank, as Cohere, Jina, Voyage, vLLM and others speak it: what a call asks and what an answer used.

Cohere bills search units: one query with up to 100 documents, where a document that is longer than 500 tokens together
with its query counts once for each piece (Cohere, "Pricing", and API reference, rerank). The others bill the tokens of
query and documents, and the query anew for each document. Only the price of the model tells which, so a call says both.
"""

from typing import Any, Final

import msgspec

from faregate.core.call import Call
from faregate.core.metering.meter import Report
from faregate.core.usage import COUNT_MAX, Contradiction, Measure, Usage, measures
from faregate.dialects import answers, fields, media_usage
from faregate.dialects.jsonbody import DECODING_ERRORS, members
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.errors import Problem

OPERATION: Final = "rerank"

DOCUMENTS_MAX: Final = 10_000
DOCUMENTS_PER_UNIT: Final = 100
#: Longer documents, their query included, count as several; of a long query at most half is left in each piece.
PIECE_TOKENS: Final = 500

_FRAMING_TOKENS: Final = 8

_documents = msgspec.json.Decoder(list[Any]).decode

#: Members that hold or name something else than text, however deep they stand (Jina AI, "Reranker API"; vLLM, "Score
#: API", documents with a list of parts as their content).
_OTHER_MEDIA: Final = frozenset(
    "image images image_url input_image video videos video_url audio audio_url input_audio".split()
)


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What the caller asks, or why it is refused; ``model`` is the name that the path gave, if it gave one."""
    del forbid_private_urls  # Documents are text here; the argument is every dialect's.
    found = members(body, "documents")
    if isinstance(found, Problem):
        return found
    problem = fields.steering(found)
    if problem is not None:
        return problem
    name = model or fields.name(found.get("model"), "model")
    if isinstance(name, Problem):
        return name
    for path, wanted in (("query", "the text to compare with"), ("documents", "a list of texts")):
        if path not in found:
            return missing(path, wanted)
    query = fields.text(found["query"], "query")
    if isinstance(query, Problem):
        return query
    try:
        documents = _documents(found["documents"])
    except DECODING_ERRORS:
        return expected("field_type", "documents", "a list of texts", "something else")
    if not 0 < len(documents) <= DOCUMENTS_MAX:
        return expected("field_range", "documents", f"1 to {DOCUMENTS_MAX} documents", str(len(documents)))
    if "top_n" in found:
        top = fields.count(found["top_n"], "top_n", 1, COUNT_MAX)
        if isinstance(top, Problem):
            return top
    user = fields.end_user(found)
    if isinstance(user, Problem):
        return user
    tier = fields.service_tier(found)
    if isinstance(tier, Problem):
        return tier
    query_bytes = len((query or "").encode("utf-8", "replace"))
    pieces = _pieces(documents, query_bytes)
    if isinstance(pieces, Problem):
        return pieces
    units = _units(len(documents))
    return Call(
        OPERATION,
        name,
        input_tokens_max=len(body) + (query_bytes + _FRAMING_TOKENS) * len(documents),
        has_output=False,
        end_user=user,
        members=tuple(found),
        at_most=measures((Measure("search_units", "", _units(pieces) - units),)),
        declared=(Measure("search_units", "", units),),
        service_tier=tier,
        sealed=True,
    )


def _units(documents: int) -> int:
    return -(-documents // DOCUMENTS_PER_UNIT)


def _pieces(documents: list[Any], query_bytes: int) -> int | Problem:
    """The most pieces that documents are cut into; a token is at least a byte."""
    room = PIECE_TOKENS - min(query_bytes, PIECE_TOKENS // 2)
    pieces = 0
    for index, document in enumerate(documents):
        text = document
        if isinstance(document, dict):
            path = f"documents[{index}]"
            other = _other_media(document)
            if other:
                return unbounded(path, f"documents of {echo(other)}", "send texts")
            text = msgspec.json.encode(document).decode()
        elif not isinstance(document, str):
            return expected("field_type", f"documents[{index}]", "text or an object with a text", "something else")
        pieces += max(1, -(-len(text.encode("utf-8", "replace")) // room))
    return pieces


def _other_media(document: Any) -> str:
    """The first member of a document that is something else than text; empty where there is none."""
    waiting = [document]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            for name, value in one.items():
                if value is not None and name in _OTHER_MEDIA:
                    return str(name)
                waiting.append(value)
        elif isinstance(one, list):
            waiting += one
    return ""


def usage_of(body: bytes) -> Report:
    """What an answer reports: search units (Cohere) or tokens (the others)."""
    answer = media_usage.read(body)
    if answer is None:
        return media_usage.report(None, None)
    usage, unknown = _told(answer.usage)
    meta = answer.meta.get("billed_units") if isinstance(answer.meta, dict) else None
    if isinstance(meta, dict) and not isinstance(usage, Contradiction):
        units = media_usage.whole_seconds(meta.get("search_units", 0))
        if units is None:
            usage = Contradiction("search units are not a number within reason")
        elif units:
            usage = (usage or Usage())._replace(other=measures((Measure("search_units", "", units),)))
        unknown += sum(bool(value) and name not in _BILLED for name, value in meta.items())
        if usage is None and meta.get("total_tokens") is not None:
            usage, _ = _told(meta)
    return media_usage.report(answer, usage, unknown)


def counted_rerank(body: bytes, call: Call) -> Usage:
    """Our own count where tokens are billed and not told: one for four bytes of what is read."""
    del body
    return Usage(-(-call.input_tokens_max // 4))


_BILLED: Final = frozenset(("search_units", "total_tokens", "input_tokens", "output_tokens"))


def _told(told: Any) -> tuple[Usage | Contradiction | None, int]:
    """Tokens, of which there is only input; some servers tell nothing but their total."""
    if isinstance(told, dict) and told.get("input_tokens") is None and told.get("prompt_tokens") is None:
        total = told.get("total_tokens")
        if total is None:
            return None, 0
        told = {**told, "input_tokens": total}
    return media_usage.leaves(told, "text")


def prompt_text(body: bytes) -> list[str]:
    """The query, once for each document, and the documents."""
    value = answers.loose(body)
    if not isinstance(value, dict):
        return []
    query, documents = value.get("query"), value.get("documents")
    found = documents if isinstance(documents, list) else []
    texts = [text if isinstance(text, str) else msgspec.json.encode(text).decode() for text in found]
    return [query] * len(texts) + texts if isinstance(query, str) else texts


def prompt_tokens_overhead(body: bytes) -> int:
    """Upper bound of the framing around each pair of query and document."""
    value = answers.loose(body)
    documents = value.get("documents") if isinstance(value, dict) else None
    return _FRAMING_TOKENS * (len(documents) if isinstance(documents, list) else 0)
