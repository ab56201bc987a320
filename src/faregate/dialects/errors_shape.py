"""How the gate's own answers look in each wire format: errors and the list of models."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from faregate.errors import CODES, Problem, status_of

_encode: Final = msgspec.json.Encoder().encode


def render(problem: Problem, request_id: str, shape: str) -> bytes:
    """The JSON body of an error, in OpenAI's shape or in Azure's, which names the status as text."""
    details: dict[str, Any] = dict(problem.details) if problem.details else {}
    error: dict[str, Any] = {
        "message": problem.message,
        "type": CODES[problem.code].type,
        "param": problem.param,
        "code": problem.code,
        "request_id": request_id,
        "faregate": details,
    }
    if shape == "azure_openai":
        # Azure clients read ``code`` and ``message``; the rest is where its own details stand.
        error["status"] = status_of(problem)
        error["innererror"] = {"code": problem.code}
    return _encode({"error": error})


def models_answer(names: Sequence[str], wanted: str) -> bytes | None:
    """``GET /v1/models``, or of one model; ``None`` where that one is not there."""
    if wanted:
        return _encode(_model(wanted)) if wanted in names else None
    return _encode({"object": "list", "data": [_model(name) for name in names]})


def _model(name: str) -> dict[str, Any]:
    # The time of creation is the provider's to know; clients only need the field to be a number.
    return {"id": name, "object": "model", "created": 0, "owned_by": "faregate"}
