"""What is wrong with a configuration, as values: everything is collected and told at once, in the order of the file.

A finding never quotes a value that came from the environment or from a secret file.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from faregate.errors import ConfigError

#: Where in the tree of keys, such as ``("providers", 0, "base_url")``.
Path = tuple[str | int, ...]

#: No more of a value is quoted than a person needs to find it.
QUOTED_CHARACTERS = 64

#: A file that is wrong from top to bottom is told in this many lines, and how many more there are.
FINDINGS_SHOWN_MAX = 500


class Place(NamedTuple):
    """Where a value stands: a file with line and column from 1, or ``environment`` with the name of a variable."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class Finding(NamedTuple):
    """One problem: its code (``CFG-…``), place, key, and what to do about it."""

    code: str
    place: Place
    key: str
    problem: str
    expected: str = ""
    hint: str = ""

    def line(self) -> str:
        """``file:line:col key: problem; expected …; hint … [CODE]``."""
        parts = [f"{self.place} {self.key}: {self.problem}" if self.key else f"{self.place}: {self.problem}"]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "; ".join(parts) + f" [{self.code}]"


class Ruled(NamedTuple):
    """A finding before it has a place; ``warning`` is told but does not stop anything."""

    code: str
    path: Path
    problem: str
    expected: str = ""
    hint: str = ""
    warning: bool = False


class Invalid(ConfigError):
    """The configuration cannot be used. ``findings`` holds every reason, the message has one on each line."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        ordered = sorted(findings, key=lambda finding: (finding.place.source, finding.place.line, finding.place.column))
        lines = [finding.line() for finding in ordered[:FINDINGS_SHOWN_MAX]]
        if len(ordered) > FINDINGS_SHOWN_MAX:
            lines.append(f"… and {len(ordered) - FINDINGS_SHOWN_MAX} more")
        super().__init__("\n".join(lines), code=ordered[0].code if ordered else None)
        self.findings = tuple(ordered)


def key_text(path: Path) -> str:
    """A path as people write it: ``providers[0].base_url``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def quoted(value: object) -> str:
    """A value for a message: printable, at most ``QUOTED_CHARACTERS`` long."""
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value))
    if len(text) > QUOTED_CHARACTERS:
        text = text[:QUOTED_CHARACTERS] + "…"
    return f'"{text}"'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word nearest to a mistyped one; empty where none is near."""
    near = difflib.get_close_matches(word[:QUOTED_CHARACTERS], list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""
