"""Rerank: documents ordered by a score that follows from query and document alone. Pure.

Models with ``cohere`` in their name bill search units, as Cohere tells them (API reference, rerank); all others tokens,
as Jina and vLLM do.
"""

from hashlib import shake_128
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from faregate.simulator import wording
from faregate.simulator.asks import Ask, AskInvalid, decoded
from faregate.simulator.http1 import Request
from faregate.simulator.plan import Plan
from faregate.simulator.shapes import with_usage

_ABSENT = Raw()

DOCUMENTS_PER_UNIT: Final = 100


class _Document(Struct):
    text: str


class _Rerank(Struct):
    query: str
    documents: Annotated[list[str | _Document], Meta(min_length=1, max_length=10_000)]
    model: str = ""
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: Raw = _ABSENT


_decode = msgspec.json.Decoder(_Rerank).decode


def read(request: Request, name: str) -> Ask:
    """What a request asks; the query may hold a ``sim:`` line."""
    asked = decoded(_decode, request.body)
    if not (asked.model or name):
        raise AskInvalid("you must provide a model parameter", "model")
    # The query is read together with each document.
    query = wording.count(asked.query)
    tokens = sum(query + wording.count(_text(document)) for document in asked.documents)
    return Ask("rerank", asked.model or name, asked.query, tokens, facts=asked)


def _text(document: str | _Document) -> str:
    return document if isinstance(document, str) else document.text


def _asked(plan: Plan) -> _Rerank:
    facts = plan.ask.facts
    return facts if isinstance(facts, _Rerank) else _Rerank("", ["?"])


def usage(plan: Plan, delivered: int | None) -> dict[str, Any]:
    """The true usage: search units or tokens."""
    del delivered
    if "cohere" in plan.ask.model:
        return {"search_units": -(-len(_asked(plan).documents) // DOCUMENTS_PER_UNIT)}
    return {"prompt_tokens": plan.prompt_tokens, "total_tokens": plan.prompt_tokens}


def answer(plan: Plan) -> bytes:
    """The documents in order, the best first."""
    asked = _asked(plan)
    ranked = sorted(
        ((_score(asked.query, _text(document)), -index) for index, document in enumerate(asked.documents)), reverse=True
    )
    results: list[dict[str, Any]] = []
    for score, place in ranked[: asked.top_n]:
        result: dict[str, Any] = {"index": -place, "relevance_score": score}
        if asked.return_documents:
            result["document"] = {"text": _text(asked.documents[-place])}
        results.append(result)
    body: dict[str, Any] = {"id": "rerank-" + plan.id, "model": plan.ask.model, "results": results}
    if "cohere" in plan.ask.model:
        body["meta"] = {"api_version": {"version": "2"}, "billed_units": usage(plan, None)}
        return msgspec.json.encode(body)
    return with_usage(plan, body, usage(plan, None))


def _score(query: str, document: str) -> float:
    return int.from_bytes(shake_128(f"{query}\0{document}".encode()).digest(2), "big") / 65_536
