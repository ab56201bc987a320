"""How the gate's own answers look in each wire format: errors and the list of models."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from faregate.errors import CODES, Problem, status_of

_encode: Final = msgspec.json.Encoder().encode


def render(problem: Problem, request_id: str, shape: str) -> bytes:
    """The JSON body of an error, in the shape that clients of a path know.

    OpenAI's, or Azure's, which names the status as text; Anthropic's (its "Errors" page); Google's (``google.rpc``).
    """
    if shape == "anthropic":
        return _encode(_anthropic(problem, request_id))
    if shape == "gemini":
        return _encode(_gemini(problem, request_id))
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


def render_event(problem: Problem, request_id: str, shape: str) -> bytes:
    """A failure in the middle of a stream, as the one event that clients of the format raise an error for."""
    name = b"event: error\n" if shape == "anthropic" else b""
    return name + b"data: " + render(problem, request_id, shape) + b"\n\n"


#: Anthropic's types by status; whatever else is the caller's fault is an invalid request.
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def _anthropic(problem: Problem, request_id: str) -> dict[str, Any]:
    status = status_of(problem)
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    error: dict[str, Any] = {"type": kind, "message": problem.message, "code": problem.code, "param": problem.param}
    error["faregate"] = dict(problem.details) if problem.details else {}
    return {"type": "error", "error": error, "request_id": request_id}


#: Google's names of what went wrong, by HTTP status (``google.rpc.Code``).
_GOOGLE_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _gemini(problem: Problem, request_id: str) -> dict[str, Any]:
    status = status_of(problem)
    name = _GOOGLE_STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
    # Google's metadata are texts: what is more than a word goes in as JSON, and what is not known stays away.
    metadata = {
        key: value if isinstance(value, str) else _encode(value).decode()
        for key, value in (problem.details or {}).items()
        if value is not None
    }
    metadata["request_id"] = request_id
    if problem.param is not None:
        metadata["param"] = problem.param
    reason = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": problem.code,
        "domain": "faregate",
        "metadata": metadata,
    }
    return {"error": {"code": status, "message": problem.message, "status": name, "details": [reason]}}


def models_answer(names: Sequence[str], wanted: str) -> bytes | None:
    """``GET /v1/models``, or of one model; ``None`` where that one is not there."""
    if wanted:
        return _encode(_model(wanted)) if wanted in names else None
    return _encode({"object": "list", "data": [_model(name) for name in names]})


def _model(name: str) -> dict[str, Any]:
    # The time of creation is the provider's to know; clients only need the field to be a number.
    return {"id": name, "object": "model", "created": 0, "owned_by": "faregate"}
