"""Decides what one answer holds before any of it is written: its tokens, its ids and its usage. Pure.

All ids come from the caller's request id, so that a run repeated with the same ids has the same bytes.
"""

from hashlib import sha256
from typing import Any, NamedTuple

from faregate.simulator import wording
from faregate.simulator.asks import Ask
from faregate.simulator.steering import Steering

#: Answers carry one creation time for ever; the clock is no part of what they say.
CREATED = 1_750_000_000

_TIERS = {"": "default", "auto": "default", "fast": "priority"}

#: What ``over_cap`` delivers beyond twice the cap.
OVER_CAP_TOKENS = 10


class Plan(NamedTuple):
    """One answer, decided; ``output_tokens`` and ``visible_tokens`` are per choice."""

    ask: Ask
    steering: Steering
    id: str
    provider_request_id: str
    azure: bool
    prompt_tokens: int
    output_tokens: int
    visible_tokens: int
    finish_reason: str
    #: Steered content, one part per visible token; empty for the simulator's own text.
    parts: tuple[str, ...]

    @property
    def chunk_tokens(self) -> int:
        """Visible tokens per event of a stream."""
        return self.steering.chunk_tokens

    @property
    def service_tier(self) -> str:
        """The tier that OpenAI says an answer was served in: as asked for, or as steered."""
        asked = self.ask.service_tier
        return self.steering.service_tier or _TIERS.get(asked, asked)

    def text(self, first: int, count: int, choice: int) -> str:
        """Visible tokens ``first`` to ``first + count`` of a choice; joined in order they are the whole text."""
        if self.parts:
            return "".join(self.parts[first : first + count])
        return wording.piece(first, count, choice) if self.steering.content is None else ""


def make(ask: Ask, steering: Steering, request_id: str, azure: bool) -> Plan:
    """The answer to an ask under a steering, for the call of that request id."""
    digest = sha256(request_id.encode("utf-8", "surrogateescape")).hexdigest()
    prompt = ask.prompt_tokens if steering.prompt_tokens is None else steering.prompt_tokens
    if ask.kind == "embedding":
        return Plan(ask, steering, digest[:24], "req_" + digest[24:56], azure, prompt, 0, 0, "", ())
    wanted = steering.output_tokens or 0
    if steering.output_tokens is None and steering.content:
        wanted = steering.content.count(" ") + 1 + steering.reasoning_tokens + steering.audio_tokens
    output = wanted
    if steering.fault == "over_cap":
        output = 2 * (ask.cap if ask.cap is not None else wanted) + OVER_CAP_TOKENS
    elif ask.cap is not None:
        output = min(wanted, ask.cap)
    reason = "tool_calls" if steering.tool_calls and ask.kind == "chat" else "stop"
    if output < wanted:
        reason = "length"
    visible = max(0, output - steering.reasoning_tokens - steering.audio_tokens)
    return Plan(
        ask,
        steering,
        digest[:24],
        "req_" + digest[24:56],
        azure,
        prompt,
        output,
        visible,
        steering.finish_reason or reason,
        _parts(steering.content or "", visible),
    )


def usage(plan: Plan, delivered: int | None = None) -> dict[str, Any]:
    """The true usage in OpenAI's shape; ``delivered`` output tokens of all choices for an answer cut short."""
    prompt = plan.prompt_tokens
    if plan.ask.kind == "embedding":
        return {"prompt_tokens": prompt, "total_tokens": prompt}
    steering = plan.steering
    made = plan.ask.billed_choices
    output = made * (plan.output_tokens + steering.rejected_prediction_tokens) if delivered is None else delivered
    details = {"cached_tokens": steering.cached_tokens, "audio_tokens": steering.prompt_audio_tokens}
    if steering.cache_write_tokens:
        # Only newer models report this, so it is not there unless steered.
        details["cache_write_tokens"] = steering.cache_write_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": _part(made * steering.reasoning_tokens, delivered),
            "audio_tokens": _part(made * steering.audio_tokens, delivered),
            "accepted_prediction_tokens": _part(made * steering.accepted_prediction_tokens, delivered),
            "rejected_prediction_tokens": _part(made * steering.rejected_prediction_tokens, delivered),
        },
    }


def _part(whole: int, delivered: int | None) -> int:
    return whole if delivered is None else min(whole, delivered)


def _parts(content: str, tokens: int) -> tuple[str, ...]:
    """A text as that many parts, cut before its blanks; with more tokens than words, into equal lengths instead."""
    if not content:
        return ()
    first, *rest = content.split(" ")
    words = (first, *(" " + word for word in rest))
    if tokens <= len(words):
        return words[:tokens]
    length = -(-len(content) // tokens)
    return tuple(content[begin : begin + length] for begin in range(0, len(content), length))
