"""What leads where: who uses a place that is to be removed, and rules of the configuration for what is sent here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from faregate.config.findings import Path, Ruled
from faregate.console.problems import ruled_problem
from faregate.console.reading import every
from faregate.console.state import Console
from faregate.console.texts import secret_fault
from faregate.errors import Conflict
from faregate.ports import Row

#: So many are named of those that lead to something.
_TOLD_MAX: Final = 5


def leading_to(console: Console, fits: Callable[[str], bool]) -> list[str]:
    """Pools and names of models made here that lead to a place whose name ``fits``, such as ``pool main``."""
    pools = [each["name"] for each in every(console.books, "pool") if any(map(fits, _named_by(each["rule"])))]
    models = [each["name"] for each in every(console.books, "model") if any(map(fits, _led_by(each)))]
    return [*(f"pool {name}" for name in pools), *(f"model {name}" for name in models)]


def _named_by(rule: dict[str, Any]) -> Iterator[str]:
    """The deployments that the rule of a pool names, and ``{provider}/{model}``."""
    yield from (each["deployment"] for each in rule["use"])
    for each in rule.get("priority", ()):
        yield from each["use"]


def _led_by(model: Row) -> Iterator[str]:
    """What a name leads to, be it for some callers."""
    yield from model["to"] or ()
    for each in model["instead"] or ():
        yield from each["to"]


def refuse_in_use(console: Console, kind: str, row: Row) -> None:
    """Refuse to remove what something leads to by its name.

    Raises:
        Conflict: it names who does.
    """
    refuse_users(kind, leading_to(console, lambda name: name == row["name"]))


def refuse_users(kind: str, users: Sequence[str]) -> None:
    """Refuse to remove something of a kind that has these users.

    Raises:
        Conflict: it names them.
    """
    if users:
        more = f" and {len(users) - _TOLD_MAX} more" if len(users) > _TOLD_MAX else ""
        lead = "leads" if len(users) == 1 else "lead"
        raise Conflict(f"{', '.join(users[:_TOLD_MAX])}{more} {lead} to this {kind}; change that first, or remove it")


def refuse_faults(found: Iterable[Ruled]) -> None:
    """Refuse what rules of the configuration find something wrong with.

    Raises:
        ApiProblem: with each field that is at fault.
    """
    told = list(found)
    if told:
        raise ruled_problem(told)


def secrets_in(value: Any, path: Path = ()) -> Iterator[Ruled]:
    """Where somebody wrote a key's secret in place of its id or name: it would be kept, and shown to others."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from secrets_in(below, (*path, name))
    elif isinstance(value, list):
        for at, below in enumerate(value):
            yield from secrets_in(below, (*path, at))
    elif isinstance(value, str) and secret_fault(value):
        yield Ruled("CFG-RANGE", path, secret_fault(value))
