"""How a refusal speaks about a caller's field: what is wrong, where, what is allowed, what to do.

Owns the wording and the safe echo of values. Knows no field and no wire format.
"""

from faregate.errors import Problem

#: Enough to recognise a value, too little to carry a secret or to flood a log.
ECHO_CHARACTERS_MAX = 64


def echo(value: object) -> str:
    """``value`` as at most 64 printable ASCII characters, everything else replaced by ``?``."""
    text = value if isinstance(value, str) else str(value)
    safe = "".join(
        character if " " <= character <= "~" and character not in "\"\\'<>`" else "?"
        for character in text[:ECHO_CHARACTERS_MAX]
    )
    return safe if len(text) <= ECHO_CHARACTERS_MAX else safe[: ECHO_CHARACTERS_MAX - 1] + "…"


def expected(code: str, path: str, wanted: str, got: str, remedy: str = "") -> Problem:
    """A refusal of one field: ``PATH: expected WANTED, got GOT; REMEDY.``"""
    told = f"{path}: expected {wanted}, got {got}"
    return Problem(code, f"{told}; {remedy}." if remedy else f"{told}.", param=path)


def missing(path: str, wanted: str) -> Problem:
    """A refusal for a field that must be there."""
    return Problem("field_missing", f"{path}: expected {wanted}, but it is missing; add it.", param=path)


def forbidden(path: str) -> Problem:
    """A refusal of a field that would steer the call past the gate; its value is never told."""
    return Problem(
        "field_forbidden", f"{path} may not be set by callers; use a configured model name instead.", param=path
    )


def unbounded(path: str, what: str, remedy: str) -> Problem:
    """A refusal of something whose cost has no upper bound yet."""
    return Problem("feature_unbounded", f"{path}: the cost of {what} cannot be bounded yet; {remedy}.", param=path)
