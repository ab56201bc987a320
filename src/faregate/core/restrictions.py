"""What a credential is restricted to: how two restrictions meet, and which is the narrower.

``None`` allows all, an empty tuple nothing. A key is restricted by what it says itself, by its product and by its user:
what is allowed is what all of them allow.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from faregate.core import networks, priorities

Allowed = tuple[str, ...] | None

#: Beginnings of paths; more are a sign that operations are meant.
PATHS_MAX: Final = 64
PATH_CHARACTERS_MAX: Final = 256


class Restrictions(NamedTuple):
    """What may be asked for: models, operations and services, paths, priorities; and from where, until when."""

    models: Allowed = None
    operations: Allowed = None
    paths: Allowed = None
    networks: Allowed = None
    #: Nanoseconds since 1970; 0 for ever.
    expires_at: int = 0
    #: Ranges of ``Priority``, such as ``101-1000``.
    priorities: Allowed = None

    def met_by(self, other: "Restrictions") -> "Restrictions":
        """What both allow."""
        ends = [each for each in (self.expires_at, other.expires_at) if each]
        return Restrictions(
            _met(self.models, other.models, _names_inside),
            _met(self.operations, other.operations, _names_inside),
            _met(self.paths, other.paths, _paths_inside),
            _met(self.networks, other.networks, networks.inside),
            min(ends, default=0),
            _met(self.priorities, other.priorities, priorities.inside),
        )

    def allows(self, other: "Restrictions") -> str:
        """The name of the first restriction by which ``other`` may do more than this; empty where it may not."""
        for name, inside in (
            ("models", _names_inside),
            ("operations", _names_inside),
            ("paths", _paths_inside),
            ("networks", networks.inside),
            ("priorities", priorities.inside),
        ):
            if not _holds(getattr(self, name), getattr(other, name), inside):
                return name
        if self.expires_at and not 0 < other.expires_at <= self.expires_at:
            return "expires_at"
        return ""


NOT_RESTRICTED: Final = Restrictions()

#: Those of them that are lists of what is allowed.
RESTRICTIONS: Final = tuple(name for name in Restrictions._fields if name != "expires_at")

#: Some entries and others → what of the first lies in one of the others: a range in part, all else wholly. Products
#: have many keys, and callers with tokens meet theirs with each call: what takes its time is found once.
_Inside = Callable[[tuple[str, ...], tuple[str, ...]], tuple[str, ...]]


def _met(one: Allowed, other: Allowed, inside: _Inside) -> Allowed:
    if one is None or other is None:
        return other if one is None else one
    return tuple(dict.fromkeys((*inside(one, other), *inside(other, one))))


def _holds(wide: Allowed, narrow: Allowed, inside: _Inside) -> bool:
    """Whether every entry of ``narrow`` lies wholly in one of ``wide``."""
    if wide is None:
        return True
    return narrow is not None and inside(narrow, wide) == narrow


def _names_inside(names: tuple[str, ...], wide: tuple[str, ...]) -> tuple[str, ...]:
    allowed = frozenset(wide)
    return tuple(name for name in names if name in allowed)


def path_begins(path: str, prefix: str) -> bool:
    """Whether a path is ``prefix`` or lies below it, by whole segments."""
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")


@lru_cache(maxsize=1_024)
def _paths_inside(paths: tuple[str, ...], wide: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(path for path in paths if any(path_begins(path, each) for each in wide))


def path_fault(text: str) -> str:
    """What is wrong with the beginning of a path that a credential is restricted to; empty where nothing is."""
    if not text.startswith("/") or len(text) > PATH_CHARACTERS_MAX:
        return f"must begin with / and have at most {PATH_CHARACTERS_MAX} characters, such as /v1/chat"
    if not (text.isascii() and text.isprintable()) or not _NEVER.isdisjoint(text):
        return (
            "must be a plain path without a query, wildcards, escapes and spaces; all that lies below it is meant, too"
        )
    if any(part in ("", ".", "..") for part in text.strip("/").split("/")) and text != "/":
        return "must not hold empty or dot segments"
    return ""


_NEVER: Final = frozenset(" ?#%*\\{}")
