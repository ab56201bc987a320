"""Refusals in the words of their owner: which status, body and headers a caller gets instead of the usual ones.

Owns the words that may stand in such a text and their replacement, which is plain: a word in braces becomes its value,
inside texts only, so that a value can neither end a text nor begin another one. Knows no limit and no wire format.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

#: What may stand in braces in the texts of a denial.
WORDS: Final = ("message", "code", "limit", "amount", "remaining", "retry_after", "resets_at", "request_id")

_IN_BRACES: Final = re.compile(r"\{([A-Za-z_]{1,64})\}")


class Denial(NamedTuple):
    """One way to tell a refusal; what it leaves out is as usual."""

    #: HTTP status, 0 for the usual one.
    status: int = 0
    #: JSON values as Python has them, ``None`` for the usual body.
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()


#: Names that need no configuration: the answers of two older gateways (PRIOR-SYSTEMS 1.2 and 3.2).
BUILT_IN: Final[Mapping[str, Denial]] = {
    "rate_limiter": Denial(429, {"statusCode": 429, "message": "You have reached your monthly spend amount"}),
    "token_limit": Denial(
        429,
        {"error": {"code": "TooManyTokens", "message": "Token limit exceeded. Please retry after some time."}},
    ),
}


def unknown_words(text: str) -> list[str]:
    """What stands in braces in a text and is none of ``WORDS``."""
    return [word for word in _IN_BRACES.findall(text) if word not in WORDS]


def filled(value: Any, words: Mapping[str, str]) -> Any:
    """A JSON value in which every word in braces is replaced by its value; empty where it has none."""
    if isinstance(value, str):
        return _IN_BRACES.sub(lambda found: words.get(found[1], ""), value) if "{" in value else value
    if isinstance(value, dict):
        return {name: filled(below, words) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [filled(below, words) for below in value]
    return value
