"""What `doctor` sees, as values: each look says what and where, and where something is wrong why that matters and what
mends it.
"""

from typing import NamedTuple

MARKS = {"ok": "ok  ", "warning": "warn", "failed": "FAIL", "skipped": "-   "}


class Look(NamedTuple):
    """One thing that was looked at; ``state`` is a key of ``MARKS``."""

    name: str
    state: str
    detail: str = ""
    #: What may come of it.
    why: str = ""
    #: The command, or the change, that mends it.
    mend: str = ""


def lines(look: Look) -> list[str]:
    """A look as people read it."""
    told = [f"{MARKS[look.state]}  {look.name:<14} {look.detail}".rstrip()]
    told += [f"{'':20} {word}: {text}" for word, text in (("why", look.why), ("mend", look.mend)) if text]
    return told
