"""The terms of a limit as the books keep them: an object that names what is not as usual, and nothing else.

Whoever starts the gate reads them, so nothing is imported here that takes its time.
"""

from collections.abc import Mapping
from typing import Any, Final

from faregate.core.limits.terms import PLAIN, Action, Forced, Past, Raise, Spared, Terms
from faregate.ports import Row

_LISTS: Final[Mapping[str, type[Any]]] = {
    "history": Past,
    "raises": Raise,
    "actions": Action,
    "forced": Forced,
    "spared": Spared,
}


def terms_of(row: Row) -> Terms:
    """The terms of a limit's row.

    Raises:
        TypeError: they name something that is no term; only another version can have written them.
    """
    return terms_in(row.get("terms"))


def terms_in(stored: Mapping[str, Any] | None) -> Terms:
    """The terms that a row's column of this value says; errors as ``terms_of``."""
    if not stored:
        return PLAIN
    told: dict[str, Any] = {}
    for name, value in stored.items():
        made = _LISTS.get(name)
        told[name] = value if made is None else tuple(made(**_tupled(each)) for each in value)
    return Terms(**told)


def stored_terms(terms: Terms) -> dict[str, Any] | None:
    """``terms`` as a row holds them; ``None`` where they are as usual."""
    told: dict[str, Any] = {}
    for name, value in terms._asdict().items():
        if value != getattr(PLAIN, name):
            told[name] = [_listed(each._asdict()) for each in value] if name in _LISTS else value
    return told or None


def _tupled(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _listed(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
