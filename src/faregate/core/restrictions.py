"""What a credential is restricted to: names, paths and networks; how two restrictions meet, and which is the narrower.

``None`` allows all, an empty tuple nothing. A key is restricted by what it says itself, by its product and by its user:
what is allowed is what all of them allow.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from faregate.core.networks import Network, network

Allowed = tuple[str, ...] | None

#: Beginnings of paths; more are a sign that operations are meant.
PATHS_MAX: Final = 64
PATH_CHARACTERS_MAX: Final = 256


class Restrictions(NamedTuple):
    """What may be asked for: models, operations and services, paths by their beginnings; and from where, until when."""

    models: Allowed = None
    operations: Allowed = None
    paths: Allowed = None
    networks: Allowed = None
    #: Nanoseconds since 1970; 0 for ever.
    expires_at: int = 0

    def met_by(self, other: "Restrictions") -> "Restrictions":
        """What both allow."""
        ends = [each for each in (self.expires_at, other.expires_at) if each]
        return Restrictions(
            _met(self.models, other.models, _same),
            _met(self.operations, other.operations, _same),
            _met(self.paths, other.paths, _lower_path),
            _met(self.networks, other.networks, _inner_network),
            min(ends, default=0),
        )

    def allows(self, other: "Restrictions") -> str:
        """The name of the first restriction by which ``other`` may do more than this; empty where it may not."""
        for name, narrower in (
            ("models", _same),
            ("operations", _same),
            ("paths", _lower_path),
            ("networks", _inner_network),
        ):
            if not _holds(getattr(self, name), getattr(other, name), narrower):
                return name
        if self.expires_at and not 0 < other.expires_at <= self.expires_at:
            return "expires_at"
        return ""


NOT_RESTRICTED: Final = Restrictions()

#: Two entries → the one that both allow, ``None`` where there is nothing that both do.
_Narrower = Callable[[str, str], str | None]


def _met(one: Allowed, other: Allowed, narrower: _Narrower) -> Allowed:
    if one is None or other is None:
        return other if one is None else one
    found = (narrower(first, second) for first in one for second in other)
    return tuple(dict.fromkeys(each for each in found if each is not None))


def _holds(wide: Allowed, narrow: Allowed, narrower: _Narrower) -> bool:
    """Whether every entry of ``narrow`` lies wholly in one of ``wide``."""
    if wide is None:
        return True
    if narrow is None:
        return False
    return all(any(narrower(each, one) == one for each in wide) for one in narrow)


def _same(one: str, other: str) -> str | None:
    return one if one == other else None


def path_begins(path: str, prefix: str) -> bool:
    """Whether a path is ``prefix`` or lies below it, by whole segments."""
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")


def _lower_path(one: str, other: str) -> str | None:
    if path_begins(one, other):
        return one
    return other if path_begins(other, one) else None


def _inner_network(one: str, other: str) -> str | None:
    first, second = network(one), network(other)
    if _covers(second, first):
        return one
    return other if _covers(first, second) else None


def _covers(wide: Network, narrow: Network) -> bool:
    further = wide.free - narrow.free
    return wide.version == narrow.version and further >= 0 and narrow.bits >> further == wide.bits


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
