"""Answers that the gate makes itself: refusals, failures, health and lists, as bytes ready to be written."""

import datetime
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from faregate.core.limits.admit import LimitRefusal
from faregate.core.money import dollars
from faregate.dialects.errors_shape import render
from faregate.errors import CODES, Problem, status_of

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


def problem_answer(problem: Problem, request_id: str, shape: str, *, keep_alive: bool, extra: bytes = b"") -> bytes:
    """A whole error answer in the shape of the path that was called."""
    rule = CODES[problem.code]
    headers = extra
    if problem.retry_after_s is not None and rule.should_retry is not False:
        headers += b"retry-after: %d\r\n" % problem.retry_after_s
    should_retry = rule.should_retry if problem.status is None else None
    if problem.code == "budget_exhausted" and problem.retry_after_s is not None:
        # The window ends some day, but a client library must not sleep until then.
        headers += b"retry-after: %d\r\n" % problem.retry_after_s
    if should_retry is not None:
        headers += b"x-should-retry: true\r\n" if should_retry else b"x-should-retry: false\r\n"
    if problem.code == "method_not_allowed":
        headers += b"allow: %b\r\n" % str((problem.details or {}).get("allow", "POST")).encode()
    body = render(problem, request_id, shape)
    return plain_answer(status_of(problem), body, request_id, keep_alive=keep_alive, extra=headers)


def limit_problem(refusal: LimitRefusal, would_fit: Mapping[str, Any] | None) -> Problem:
    """A refused hold, told with the numbers of the limit that refused it and what would fit instead."""
    limit = refusal.limit
    if refusal.code == "limit_pending":
        message = f"Limit {limit.id} was made a moment ago and its balance is still being read. Try again in 1 s."
        return Problem("limit_pending", message, retry_after_s=1, details={"limit": limit.id})
    show = dollars if limit.unit_name == "usd" else str
    amount = refusal.amount or 0
    left = max(0, amount - refusal.posted - refusal.held)
    subject = dict(zip(limit.each, refusal.subject, strict=False))
    named = [f"{name} {value}" for name, value in limit.selector]
    # Of a limit for each value, the caller is told whose counter is meant.
    named += [f"{name} {value}" if value else f"calls without a {name}" for name, value in subject.items()]
    where = ", ".join(named) or "everyone"
    details = {
        "limit": limit.id,
        "subject": subject or None,
        "also": list(refusal.others),
        "unit": limit.unit_name,
        "amount": show(amount),
        "posted": show(refusal.posted),
        "held": show(refusal.held),
        "bound": show(refusal.wanted),
        "window": limit.window,
        "resets_at": rfc3339(refusal.resets_at) if refusal.resets_at else None,
        "would_fit": dict(would_fit) if would_fit else None,
        "contact": limit.contact or None,
    }
    if refusal.code == "budget_exhausted":
        message = (
            f"The {limit.window} limit of {show(amount)} {limit.unit_name} for {where} has {show(left)} left; "
            f"this request may use up to {show(refusal.wanted)}. "
            + ("Lower max_tokens, or ask for a higher limit." if would_fit else "Ask for a higher limit.")
        )
    elif refusal.code == "concurrency_limited":
        message = f"Limit of {amount} calls at a time for {where} reached; retry when one has ended."
    elif refusal.code == "too_many_values":
        message = f"Limit {limit.id} counts more values than the gateway keeps; retry later."
    else:
        message = (
            f"Limit {amount} {limit.unit_name}/{limit.window} of {where} reached; retry in {refusal.retry_after_s} s."
        )
        if refusal.impossible:
            message = (
                f"This request may use up to {show(refusal.wanted)} {limit.unit_name}, more than the limit of "
                f"{show(amount)} per {limit.window} for {where}. Lower max_tokens or shorten the prompt."
            )
    return Problem(refusal.code, message, retry_after_s=refusal.retry_after_s, details=details)


def rfc3339(nanos: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC, to the second."""
    return datetime.datetime.fromtimestamp(nanos // 1_000_000_000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
