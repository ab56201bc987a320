"""OpenAI's moderations: a verdict for each input, harmless unless the text says ``harm``. Pure.

Nothing is billed and no usage told. (OpenAI, "API reference: Moderations".)
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from faregate.simulator import wording
from faregate.simulator.asks import LIST_MAX, Ask, AskInvalid, decoded
from faregate.simulator.http1 import Request
from faregate.simulator.plan import Plan

_encode = msgspec.json.Encoder().encode

DEFAULT_MODEL: Final = "omni-moderation-latest"
CATEGORIES: Final = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


class _Part(Struct):
    type: str
    text: str | None = None


class _Moderate(Struct, forbid_unknown_fields=True):
    input: str | list[str | _Part]
    model: str = ""


_decode = msgspec.json.Decoder(_Moderate).decode


def read(request: Request, name: str) -> Ask:
    """What a request asks."""
    asked = decoded(_decode, request.body)
    items = [asked.input] if isinstance(asked.input, str) else asked.input
    if not 1 <= len(items) <= LIST_MAX:
        raise AskInvalid(f"Invalid 'input': expected 1 to {LIST_MAX} entries.", "input")
    texts = [item if isinstance(item, str) else item.text or "" for item in items]
    parts = any(isinstance(item, _Part) for item in items)
    # Parts are one input together, texts are one each.
    judged = ["\n".join(texts)] if parts else texts
    tokens = sum(wording.count(text) for text in texts)
    return Ask("moderation", asked.model or name or DEFAULT_MODEL, texts[-1], tokens, facts=tuple(judged))


def usage(plan: Plan, delivered: int | None) -> dict[str, Any]:
    """The true usage: how many inputs were judged."""
    del delivered
    return {"inputs": len(plan.ask.facts or ())}


def answer(plan: Plan) -> bytes:
    """A verdict for each input."""
    results = [_verdict(text) for text in plan.ask.facts or ()]
    return _encode({"id": "modr-" + plan.id, "model": plan.ask.model, "results": results})


def _verdict(text: str) -> dict[str, Any]:
    harmful = "harm" in text
    return {
        "flagged": harmful,
        "categories": {category: harmful and category == "violence" for category in CATEGORIES},
        "category_scores": {category: 0.9 if harmful and category == "violence" else 0.01 for category in CATEGORIES},
        "category_applied_input_types": {category: ["text"] for category in CATEGORIES},
    }
