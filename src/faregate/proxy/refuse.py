"""Answers that the gate makes itself: refusals, failures, health and lists, as bytes ready to be written."""

from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, Final

from faregate.core.attribution import Attribution
from faregate.core.limits.denials import Denial
from faregate.core.limits.refusal import Binding, LimitRefusal
from faregate.core.moments import rfc3339
from faregate.core.money import dollars
from faregate.dialects.errors_shape import render
from faregate.errors import CODES, Problem, status_of
from faregate.proxy.denials import denied_body, denied_headers, words_of

#: Of more limits that a call does not fit only the ids are told.
BINDINGS_TOLD_MAX: Final = 16

#: Whose error it is: some statuses are a provider's as well as ours, and clients treat them alike.
_FROM_GATEWAY: Final = b"x-faregate-error-source: gateway\r\n"
FROM_PROVIDER: Final = b"x-faregate-error-source: provider\r\n"

#: Refusals by limits: how long to wait, if that helps, their figures tell.
_OF_LIMITS: Final = frozenset(("budget_exhausted", "rate_limited", "concurrency_limited", "too_many_values"))

#: Client libraries wait so long for a budget; what ends some day is told, and not to be slept through.
_BUDGET_WAIT_S: Final = 60

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus} | {499: b"Client Closed Request"}


def status_line(status: int) -> bytes:
    """``HTTP/1.1 200 OK`` with its line end; phrases are our own, never the provider's."""
    if status == 200:
        return b"HTTP/1.1 200 OK\r\n"
    return b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, b"Status"))


def identity_headers(request_id: str) -> bytes:
    """The request id, under our name and under the one that OpenAI clients read."""
    text = request_id.encode()
    return b"x-faregate-request-id: %b\r\nx-request-id: %b\r\n" % (text, text)


def plain_answer(status: int, body: bytes, request_id: str, *, keep_alive: bool, extra: bytes = b"") -> bytes:
    """A whole JSON answer of ours."""
    return b"".join(
        (
            status_line(status),
            b"content-type: application/json\r\n",
            identity_headers(request_id) if request_id else b"",
            extra,
            b"" if keep_alive else b"connection: close\r\n",
            b"content-length: %d\r\n\r\n" % len(body),
            body,
        )
    )


def problem_answer(
    problem: Problem,
    request_id: str,
    shape: str,
    *,
    keep_alive: bool,
    extra: bytes = b"",
    denial: Denial | None = None,
) -> bytes:
    """A whole error answer in the shape of the path that was called, or in the words of a denial.

    How long to wait is told as it is, whatever the words are.
    """
    headers = extra + _FROM_GATEWAY
    should_retry = _should_retry(problem)
    if problem.retry_after_s is not None and (should_retry is not False or problem.code in _OF_LIMITS):
        headers += b"retry-after: %d\r\n" % problem.retry_after_s
    if should_retry is not None:
        headers += b"x-should-retry: true\r\n" if should_retry else b"x-should-retry: false\r\n"
    if problem.code == "method_not_allowed":
        headers += b"allow: %b\r\n" % str((problem.details or {}).get("allow", "POST")).encode()
    if denial is not None:
        words = words_of(problem, request_id)
        headers += denied_headers(denial, words)
    if denial is not None and denial.body is not None:
        body = denied_body(denial, words)
    else:
        body = render(problem, request_id, shape)
    return plain_answer(status_of(problem), body, request_id, keep_alive=keep_alive, extra=headers)


def _should_retry(problem: Problem) -> bool | None:
    """Whether a client library should send the call again by itself; ``None`` leaves that to its own rules."""
    rule, wait_s = CODES[problem.code].should_retry, problem.retry_after_s
    if problem.code not in _OF_LIMITS:
        return rule
    return wait_s is not None and (rule is True or wait_s <= _BUDGET_WAIT_S)


def limit_required(who: Attribution, stages: Collection[str]) -> Problem:
    """A refusal for want of a limit in dollars, where one is required; ``stages`` are those that do so themselves."""
    by = f"stage {who.stage}" if who.stage in stages else "the administrator"
    text = f"No money limit applies to this key, and {by} requires one. Ask for a hard limit in dollars that covers it."
    return Problem("limit_required", text)


def limit_problem(refusal: LimitRefusal, would_fit: Mapping[str, Any] | None, hidden: Collection[str] = ()) -> Problem:
    """A refused hold, told with the numbers of the limits that refused it and what would fit instead.

    ``hidden`` are the ids of limits that count other organizations' calls: their figures are left out.
    """
    limit = refusal.limit
    if refusal.code == "limit_pending":
        message = f"Limit {limit.id} was made a moment ago and its balance is still being read. Try again in 1 s."
        return Problem("limit_pending", message, retry_after_s=1, details={"limit": limit.id})
    first = _binding_details(refusal.bindings[0], hidden)
    details = {
        **first,
        "also": list(refusal.others),
        "would_fit": dict(would_fit) if would_fit else None,
        "binding": [_binding_details(binding, hidden) for binding in refusal.bindings[:BINDINGS_TOLD_MAX]],
    }
    message = _message(refusal, would_fit or {}, limit.id in hidden)
    reason = limit.terms.reason
    if reason:
        message += f" Reason: {reason}" if reason.endswith((".", "!", "?")) else f" Reason: {reason}."
    return Problem(
        refusal.code, message, retry_after_s=refusal.retry_after_s, details=details, denial=limit.terms.denial
    )


def _binding_details(binding: Binding, hidden: Collection[str]) -> dict[str, Any]:
    """The numbers of one limit, as text: dollars or whole units."""
    limit, amount = binding.limit, binding.amount or 0
    show = dollars if binding.unit == "usd" else str
    told: dict[str, Any] = {
        "limit": limit.id,
        "subject": _subject(binding) or None,
        "unit": binding.unit,
        "amount": show(amount),
        "posted": show(binding.posted),
        "held": show(binding.held),
        "remaining": show(binding.remaining),
        "bound": show(binding.wanted),
        "window": binding.window,
        "resets_at": rfc3339(binding.resets_at) if binding.resets_at else None,
        "contact": limit.contact or None,
        "reason": limit.terms.reason or None,
    }
    if binding.deed:
        told["action"] = binding.deed
    if limit.id in hidden:
        told |= {"amount": None, "posted": None, "held": None, "remaining": None, "shared": True}
    return told


def _subject(binding: Binding) -> dict[str, str]:
    """Of a limit for each value, whose counter is meant."""
    return dict(zip(binding.limit.each, binding.subject, strict=False))


def _message(refusal: LimitRefusal, would_fit: Mapping[str, Any], hidden: bool) -> str:
    """What happened, with the figures, and what to do now."""
    limit, binding, unit = refusal.limit, refusal.bindings[0], refusal.unit
    show = dollars if unit == "usd" else str
    amount, wanted, retry_after_s = refusal.amount, show(refusal.wanted), refusal.retry_after_s
    named = [f"{name} {value}" for name, value in limit.selector]
    named += [f"{name} {value}" if value else f"calls without a {name}" for name, value in _subject(binding).items()]
    where = ", ".join(named) or "everyone"
    most = "" if hidden else f"{show(amount)} "
    more = f"Ask for a higher limit: {limit.contact}." if limit.contact else "Ask for a higher limit."
    until = f" until {rfc3339(binding.resets_at)}" if binding.resets_at and not refusal.impossible else ""
    if refusal.code == "too_many_values":
        return f"Limit {limit.id} counts more values than the gateway keeps; retry later."
    if refusal.deed == "throttle":
        slow = f"Calls of {where} are slowed down to {amount} a minute, because much of limit {limit.id} is spent"
        return f"{slow}; retry in {retry_after_s} s."
    if refusal.deed == "stop":
        return f"Calls of {where} are stopped{until} before limit {limit.id} is used up. {more}"
    if amount == 0 and not hidden:
        return f"No calls of {where} are admitted{until}: limit {limit.id} is 0 {unit}. {more}"
    if refusal.code == "concurrency_limited":
        return f"Limit of {most}calls at a time for {where} reached; retry when one has ended."
    if refusal.code == "budget_exhausted":
        left = "too little" if hidden else show(binding.remaining)
        has = f"The {refusal.window} limit of {most}{unit} for {where} has {left} left"
        eased = f" It ends or is raised at {rfc3339(binding.resets_at)}." if binding.eased else ""
        return f"{has}; this request may use up to {wanted}. {_instead(would_fit, more)}{eased}"
    per = f" in any {refusal.window[8:]}" if refusal.window.startswith("rolling ") else f"/{refusal.window}"
    if refusal.impossible:
        allowed = f"the limit of {most}{unit}{per} for {where}"
        if binding.later and not hidden:
            allowed = f"the {show(amount - binding.later)} {unit} that {allowed} lets through at once"
        return (
            f"This request may use up to {wanted} {unit}, more than {allowed}. Lower max_tokens or shorten the prompt."
        )
    return f"Limit {most}{unit}{per} of {where} reached; retry in {retry_after_s} s."


def _instead(would_fit: Mapping[str, Any], more: str) -> str:
    """What a caller may do about a budget."""
    ways = ["Lower max_tokens"] if "max_tokens" in would_fit else []
    if "model" in would_fit:
        ways.append(f"use model {would_fit['model']}" if ways else f"Use model {would_fit['model']}")
    return f"{', '.join(ways)}, or {more[:1].lower()}{more[1:]}" if ways else more
