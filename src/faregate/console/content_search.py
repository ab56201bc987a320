"""Finding calls by what was said in them: a part of the contents at a time, the newest first, for a bounded time.

A search goes by the ids of contents, and lets through what the caller may see and asked for of their records. Where
its time is over it says how far it came, and the next page goes on from there.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from faregate.console.problems import ApiProblem
from faregate.console.state import Console
from faregate.console.writing import tell
from faregate.ports import Row

#: Longer texts are not searched for (BAD-INPUT A75).
TEXT_CHARACTERS_MAX: Final = 128

#: A search stops after so long, and one part more.
SEARCH_NANOS_MAX: Final = 1_500_000_000

#: Contents that are looked at between two looks at the clock; each has two texts of some ten thousand characters.
AT_ONCE: Final = 200

#: Matches that are put in order by what they cost.
SORTED_MAX: Final = 1_000

#: How the trail of changes calls looks.
KIND: Final = "content"


class Found(NamedTuple):
    """Records that were found, and the last one that was looked at; empty where there are no more."""

    rows: list[Row]
    last: str


def search(
    console: Console, limit: int, after: str, filters: dict[str, Any], ids_of: Callable[[str], tuple[list[str], str]]
) -> Found:
    """Records of those ids that the filters let through, as many as ``limit``, as far as time allows.

    ``ids_of`` gives some ids before one, the newest first, and the last that it looked at.
    """
    until = console.clock.monotonic_nanos() + SEARCH_NANOS_MAX
    rows: list[Row] = []
    before = after
    while True:
        ids, last = ids_of(before)
        for row in _in_order(console, ids, filters):
            if len(rows) == limit:
                return Found(rows, rows[-1]["id"])
            rows.append(row)
        if not last or len(rows) == limit or console.clock.monotonic_nanos() > until:
            return Found(rows, last)
        before = last


def _in_order(console: Console, ids: list[str], filters: dict[str, Any]) -> Iterable[Row]:
    found = {row["id"]: row for row in console.books.requests(limit=len(ids), id=ids, **filters)} if ids else {}
    return [found[id] for id in ids if id in found]


def check_text(console: Console, text: str) -> None:
    """Whether a text may be searched for: by whom contents may be read, and of a length that is no burden.

    Raises:
        ApiProblem: ``role_forbidden`` or ``filter_invalid``.
    """
    if not console.principal.may("content.read"):
        raise ApiProblem("role_forbidden", "a search in contents takes the permission content.read", field="text")
    if not text:
        raise ApiProblem("filter_invalid", "expected a text to search for", field="text")


def found_by_text(console: Console, text: str, limit: int, after: str, filters: dict[str, Any]) -> Found:
    """Records whose prompt or answer holds a text, the newest first."""
    contents = console.contents
    if contents is None:
        return Found([], "")
    # A content is kept when its call ends, which is never before it began.
    since = int(filters.get("since", 0))
    tell(console, KIND, "", None, {"did": "searched"})
    return search(console, limit, after, filters, lambda before: contents.containing(text, before, AT_ONCE, since))
