"""Writes the provider's JSON: whole answers, the model list and errors. Pure."""

import sys
from array import array
from base64 import b64encode
from hashlib import shake_128
from typing import Any

import msgspec

from faregate.simulator import faults
from faregate.simulator.plan import CREATED, Plan, usage
from faregate.simulator.steering import PROFILES

FINGERPRINT = "fp_simulator"

#: Numbers in an embedding where the caller asks for no length, as OpenAI's own models have.
DIMENSIONS = 1536

_SAFE = {"filtered": False, "severity": "safe"}
#: What Azure's filter says of a harmless text.
FILTER_RESULTS = dict.fromkeys(("hate", "self_harm", "sexual", "violence"), _SAFE)

_encode = msgspec.json.Encoder().encode


def tool_call(plan: Plan, number: int, arguments: str) -> dict[str, Any]:
    """One tool call of an answer."""
    return {
        "id": f"call_{plan.id}{number}",
        "type": "function",
        "function": {"name": f"simulated_{number}", "arguments": arguments},
    }


def arguments_of(text: str) -> str:
    """A tool call's arguments that hold a text; the simulator's own words need no escape, others get it."""
    return '{"text": ' + _encode(text).decode() + "}"


def answer(plan: Plan) -> bytes:
    """The whole body of an answer that is not streamed, with the faults of its usage report in it."""
    if plan.ask.kind == "embedding":
        return _embeddings(plan)
    choices = [_choice(plan, number) for number in range(plan.ask.choices)]
    chat = plan.ask.kind == "chat"
    body: dict[str, Any] = {
        "id": ("chatcmpl-" if chat else "cmpl-") + plan.id,
        "object": "chat.completion" if chat else "text_completion",
        "created": CREATED,
        "model": plan.ask.model,
        "choices": choices,
    }
    if plan.azure:
        body["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": FILTER_RESULTS}]
    if plan.ask.service_tier or plan.steering.service_tier:
        body["service_tier"] = plan.service_tier
    body["system_fingerprint"] = FINGERPRINT
    return with_usage(plan, body, usage(plan))


def with_usage(plan: Plan, body: dict[str, Any], told: dict[str, Any], member: str = "usage") -> bytes:
    """A body (not empty) with its true usage as the last member, spoiled where a fault says so."""
    fault = plan.steering.fault
    if plan.steering.usage is False or fault == "usage_missing":
        return _encode(body)
    if not fault.startswith("usage_"):
        body[member] = told
        return _encode(body)
    text = _encode(body)[:-1]
    name = b',"' + member.encode() + b'":'
    if fault == "usage_twice":
        text += name + faults.reported("usage_first", told)
    return text + name + faults.reported(fault, told) + b"}"


def _choice(plan: Plan, number: int) -> dict[str, Any]:
    text = plan.text(0, plan.visible_tokens, number)
    choice: dict[str, Any] = {"index": number}
    if plan.ask.kind == "completion":
        choice["text"] = text
    elif plan.steering.tool_calls:
        calls = [tool_call(plan, call, arguments_of(text)) for call in range(plan.steering.tool_calls)]
        choice["message"] = {"role": "assistant", "content": None, "tool_calls": calls, "refusal": None}
    else:
        choice["message"] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    choice["logprobs"] = None
    choice["finish_reason"] = plan.finish_reason
    if plan.azure:
        choice["content_filter_results"] = FILTER_RESULTS
    return choice


def _embeddings(plan: Plan) -> bytes:
    ask = plan.ask
    size = ask.dimensions or DIMENSIONS
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(text, size, ask.base64)}
        for index, text in enumerate(ask.inputs)
    ]
    return with_usage(plan, {"object": "list", "data": data, "model": ask.model}, usage(plan))


def numbers_of(text: bytes, size: int) -> list[float]:
    """An embedding: numbers from −1 to 1 that follow from the text alone."""
    return [step / 128 for step in array("b", shake_128(text).digest(size))]


def _vector(text: bytes, size: int, base64: bool) -> str | list[float]:
    """An embedding as it is written; its numbers are exact in 32 bits."""
    numbers = numbers_of(text, size)
    if not base64:
        return numbers
    packed = array("f", numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return b64encode(packed.tobytes()).decode()


def models() -> bytes:
    """The list of the models that have a profile; any other name is answered like ``sim-1``."""
    return _encode({"object": "list", "data": [_model(name) for name in PROFILES]})


def model(name: str) -> bytes:
    """One model of the list."""
    return _encode(_model(name))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "faregate-simulator"}


_TYPES = {401: "invalid_request_error", 403: "permission_error", 404: "invalid_request_error", 429: "rate_limit_error"}


def error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> bytes:
    """An error in OpenAI's shape."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return _encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def azure_error(status: int, message: str) -> bytes:
    """An error as Azure's own front answers it, before a model is asked."""
    return _encode({"error": {"code": str(status), "message": message}})
