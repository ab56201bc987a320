"""Regular expressions of operators, searched for in time that is linear in the text, whatever they say.

They run on texts of callers while calls wait, so an engine that goes back and tries again is out of the question: one
pattern such as ``(a+)+$`` would stop the gate. RE2 has no such patterns. It is loaded when the first one is made.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

#: For the states of one pattern; one that needs more is refused, or searched for in less memory and more time.
_MEMORY_BYTES_MAX: Final = 8 * 1024 * 1024

#: Whatever may say where in a text a match is; a mere character that is taken for it costs a few searches, no match.
#: A ``^`` just behind a bracket makes a class of others, or can match nothing.
_ANCHOR: Final = re.compile(r"(?<!\[)\^|\$|\\[Az]")


class PatternError(ValueError):
    """No regular expression, or none that is searched for in linear time; the message says why."""


class LinearPattern:
    """One pattern, ready to search. Safe to use from several threads."""

    __slots__ = ("_compiled", "anchored")

    def __init__(self, compiled: Any, *, anchored: bool) -> None:
        self._compiled = compiled
        self.anchored = anchored

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where it matches, from left to right, without overlaps."""
        for match in self._compiled.finditer(text):
            yield match.span()


def finder(pattern: str) -> LinearPattern:
    """A pattern that can be searched for.

    Raises:
        PatternError: it is none in RE2's syntax, or too large.
    """
    import re2

    options = re2.Options()
    options.max_mem = _MEMORY_BYTES_MAX
    # It would write what is wrong to standard error, beside the one who is told.
    options.log_errors = False
    try:
        return LinearPattern(re2.compile(pattern, options=options), anchored=_ANCHOR.search(pattern) is not None)
    except re2.error as error:
        reason = error.args[0] if error.args else "it cannot be read"
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise PatternError(f"is no pattern: {text}") from None
