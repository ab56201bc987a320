"""What keys, products and users may be restricted to, as people write it.

``null`` allows all. An empty list of models, operations or priorities allows none; of paths and networks it is refused,
because nobody who writes one means a credential that works from nowhere.
"""

from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from faregate.console.cache_words import check_word
from faregate.console.content_modes import check_mode
from faregate.console.prices import compiled
from faregate.console.problems import ApiProblem
from faregate.console.state import Console
from faregate.console.texts import EXPIRY_YEARS_MAX, NANOS_PER_SECOND, Body, Name, moment, time_text
from faregate.core.networks import NETWORKS_MAX, network
from faregate.core.priorities import RANGES_MAX, span
from faregate.core.restrictions import PATHS_MAX, RESTRICTIONS, path_fault
from faregate.dialects.operations import BY_NAME
from faregate.ports import Row

#: Longer lists of allowed models are a sign that a rule by another dimension is wanted.
ALLOWED_MAX: Final = 200

#: The list of models, which is looked at and not metered.
_LISTING: Final = "models"

_YEAR_NANOS: Final = 366 * 86_400 * NANOS_PER_SECOND


def _path(text: str) -> str:
    fault = path_fault(text)
    if fault:
        raise PydanticCustomError("field_range", "{fault}", {"fault": f"the beginning of a path {fault}"})
    return text.rstrip("/") or "/"


def _network(text: str) -> str:
    try:
        network(text)
    except ValueError as error:
        raise PydanticCustomError("field_type", "{fault}", {"fault": str(error)}) from error
    return str(ip_network(text))


def _range(text: str) -> str:
    try:
        low, high = span(text)
    except ValueError as error:
        raise PydanticCustomError("field_range", "{fault}", {"fault": str(error)}) from error
    return f"{low}-{high}"


def _some(entries: list[str]) -> list[str]:
    if not entries:
        raise PydanticCustomError("field_range", "must not be empty; use null for any", {})
    return list(dict.fromkeys(entries))


Models = Annotated[list[Name] | None, Field(max_length=ALLOWED_MAX, description="allowed models; null for all")]
Operations = Annotated[
    list[Name] | None, Field(max_length=ALLOWED_MAX, description="allowed operations and services; null for all")
]
Paths = Annotated[
    Annotated[list[Annotated[str, AfterValidator(_path)]], Field(max_length=PATHS_MAX), AfterValidator(_some)] | None,
    Field(description="beginnings of the paths that may be called, by whole segments; null for all"),
]
Networks = Annotated[
    Annotated[list[Annotated[str, AfterValidator(_network)]], Field(max_length=NETWORKS_MAX), AfterValidator(_some)]
    | None,
    Field(description="networks that calls may come from, such as 10.0.0.0/8; null for any"),
]

Priorities = Annotated[
    list[Annotated[str, AfterValidator(_range)]] | None,
    Field(
        max_length=RANGES_MAX,
        description="ranges of `Priority` that may be asked for, such as 101-1000; empty for none, null for all",
    ),
]


class Restricting(Body):
    """What whoever is named by a key may restrict it to."""

    models: Models = None
    operations: Operations = None
    paths: Paths = None
    networks: Networks = None
    priorities: Priorities = None


def check_operations(console: Console, wanted: Iterable[str] | None) -> None:
    """Refuse names of operations that nothing has: neither what the gateway declares nor a service behind it.

    Raises:
        ApiProblem: ``field_enum`` with the names that there are.
    """
    unknown = [name for name in wanted or () if name not in BY_NAME and name != _LISTING]
    if not unknown:
        return
    services = {each.name for each in compiled(console).deployments if each.service is not None}
    for name in unknown:
        if name not in services:
            known = ", ".join(sorted((*BY_NAME, _LISTING, *services)))
            raise ApiProblem("field_enum", f"no such operation or service; expected any of {known}", field="operations")


def expiry_of(text: str | None, now: int) -> int:
    """The moment until which something may be used, 0 for ever.

    Raises:
        ApiProblem: it is no time, or none of the next years.
    """
    if text is None:
        return 0
    try:
        at = moment(text)
    except ValueError as problem:
        raise ApiProblem("field_type", str(problem), field="expires_at") from problem
    if not now < at <= now + EXPIRY_YEARS_MAX * _YEAR_NANOS:
        rule = f"must lie in the future, at most {EXPIRY_YEARS_MAX} years ahead"
        raise ApiProblem("field_range", rule, field="expires_at")
    return at


def as_kept(console: Console, sent: Mapping[str, Any], now: int) -> dict[str, Any]:
    """What was sent of a key or a payer, as its row holds it.

    Raises:
        ApiProblem: an operation that there is not, a time that cannot be, contents that may not be kept, or a word that
            whoever asks may not say.
    """
    kept = dict(sent)
    if "operations" in kept:
        check_operations(console, kept["operations"])
    if "expires_at" in kept:
        kept["expires_at"] = expiry_of(kept["expires_at"], now)
    if "content" in kept:
        check_mode(console, kept["content"], changes=True)
        kept["content"] = kept["content"] or ""
    if "cache" in kept:
        check_word(console, kept["cache"], changes=True)
        kept["cache"] = kept["cache"] or ""
    return kept


def shown_restrictions(row: Row) -> dict[str, Any]:
    """The restrictions of a row as the API shows them."""
    shown = {name: row[name] for name in RESTRICTIONS}
    return {**shown, "expires_at": time_text(row["expires_at"])} if "expires_at" in row else shown
