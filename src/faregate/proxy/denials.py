"""How this gate tells refusals by limits: with which status, and in whose words (``limits.statuses``, ``.denials``)."""

from collections.abc import Mapping
from typing import Final

import msgspec

from faregate.config.settings import GateSettings
from faregate.core.limits.denials import BUILT_IN, Denial, filled
from faregate.errors import Problem

#: Refusals that an administrator may tell otherwise: of limits, and for want of one.
_OF_LIMITS: Final = frozenset(
    ("budget_exhausted", "credit_exhausted", "rate_limited", "concurrency_limited", "limit_required")
)

#: A header's value in the words of a refusal is cut here.
_HEADER_CHARACTERS_MAX: Final = 1_024

_encode: Final = msgspec.json.Encoder().encode


class Denials:
    """The denials of one gate, by name and by code."""

    __slots__ = ("_by_code", "_named", "_statuses")

    def __init__(self, settings: GateSettings) -> None:
        self._named = {**BUILT_IN, **settings.denials}
        self._by_code = settings.refusal_denials
        self._statuses = settings.refusal_statuses

    def chosen(self, problem: Problem) -> tuple[Problem, Denial | None]:
        """The refusal with the status it is told with, and its denial if it has one.

        A limit may name a denial that the configuration has no more: it is told as usual then.
        """
        if problem.code not in _OF_LIMITS:
            return problem, None
        denial = self._named.get(problem.denial or self._by_code.get(problem.code, ""))
        status = denial.status if denial is not None else 0
        status = status or self._statuses.get(problem.code, 0)
        return (problem._replace(status=status) if status else problem), denial


def words_of(problem: Problem, request_id: str) -> dict[str, str]:
    """What stands for the words of ``core.limits.denials``; those that a refusal has no value for are left out."""
    details: Mapping[str, object] = problem.details or {}
    words = {"message": problem.message, "code": problem.code, "request_id": request_id}
    if problem.retry_after_s is not None:
        words["retry_after"] = str(problem.retry_after_s)
    for name in ("limit", "amount", "remaining", "resets_at"):
        value = details.get(name)
        if value is not None:
            words[name] = str(value)
    return words


def denied_body(denial: Denial, words: Mapping[str, str]) -> bytes:
    """The JSON of a denial that has a body of its own."""
    return _encode(filled(denial.body, words))


def denied_headers(denial: Denial, words: Mapping[str, str]) -> bytes:
    """The headers of a denial; whatever a header cannot hold is a question mark in it."""
    lines = b""
    for name, value in denial.headers:
        text = str(filled(value, words))[:_HEADER_CHARACTERS_MAX]
        safe = "".join(character if " " <= character <= "~" else "?" for character in text)
        lines += f"{name}: {safe}\r\n".encode()
    return lines
