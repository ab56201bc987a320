"""Strict JSON: an object in which a name stands twice is refused, because two readers may read it in two ways."""

from collections import Counter
from typing import Any, Final

_SHOWN_MAX: Final = 64


class Twice(ValueError):
    """A name stands twice in one object."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these members, for ``object_pairs_hook`` of ``json``.

    Raises:
        Twice: two of them have the same name.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise Twice(f"{name[:_SHOWN_MAX]!r} stands there twice in one object")
    return found
