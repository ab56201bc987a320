"""What each route reads and answers, declared next to the route: the document tells it, and the route goes by it.

``@lists(...)`` and ``@asks(...)`` declare the parameters of a query, and ``paging`` reads no others.
``@answers(Shape)`` declares the shape of what comes back: a ``TypedDict``, of which nothing is worked out before
somebody asks for the document, so that a start does not pay for it.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from fastapi import Request

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

#: No value of a query is longer, unless its parameter says so.
VALUE_CHARACTERS_MAX: Final = 256

#: Methods of requests that change something.
WRITING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000

#: A cursor may hold the names that the last row of its page stands by.
_CURSOR_CHARACTERS_MAX: Final = 2_048

#: A time as ``texts.moment`` reads it: RFC 3339 with its zone, or a date.
MOMENT_PATTERN: Final = r"^\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d))?$"


class Parameter(NamedTuple):
    """One parameter of a query. ``values`` are all that it takes; empty where it takes any text."""

    name: str
    description: str
    values: tuple[str, ...] = ()
    characters_max: int = VALUE_CHARACTERS_MAX
    #: Any characters, line ends among them; otherwise printable ones.
    any_text: bool = False
    required: bool = False
    #: What JSON Schema says of it beside ``values`` and ``characters_max``.
    schema: Mapping[str, Any] = MappingProxyType({})


class Query(NamedTuple):
    """Everything that a route reads of its query; ``tags`` are parameters ``tag.NAME`` and ``metadata.NAME``."""

    parameters: tuple[Parameter, ...] = ()
    tags: bool = False
    #: A list in pages: ``limit`` and ``cursor`` are among the parameters.
    paged: bool = False
    times: bool = False

    @property
    def by_name(self) -> dict[str, Parameter]:
        """The parameters by their names."""
        return {each.name: each for each in self.parameters}


class Answer(NamedTuple):
    """What a route answers."""

    #: The body under the status of the route: a ``TypedDict``, or a type such as ``bool``.
    shape: Any
    #: Bodies under other statuses that are no refusals.
    also: Mapping[int, Any]
    #: The answer tells the version of a row (``ETag``), and a change may ask for it (``If-Match``).
    versioned: bool = False
    #: Statuses of refusals beside those that follow from what the route reads and whether it writes.
    refusals: Sequence[int] = ()


#: How many rows a page has, and where it begins.
_PAGED: Final = (
    Parameter(
        "limit",
        f"How many rows a page has at most; {PAGE_DEFAULT} where it is not given.",
        schema={"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT},
    ),
    Parameter(
        "cursor",
        "`next_cursor` of the page before, with the same filters; without one the list begins.",
        characters_max=_CURSOR_CHARACTERS_MAX,
    ),
)


def text(name: str, description: str, *, most: int = VALUE_CHARACTERS_MAX, any_text: bool = False) -> Parameter:
    """A parameter that takes a text, of printable characters unless it is ``any_text``."""
    return Parameter(name, description, characters_max=most, any_text=any_text)


def needed(name: str, description: str, *, most: int = VALUE_CHARACTERS_MAX) -> Parameter:
    """A parameter that takes any characters and has to be there."""
    return Parameter(name, description, characters_max=most, any_text=True, required=True)


def choice(name: str, values: Sequence[str], description: str) -> Parameter:
    """A parameter that takes one of some values."""
    return Parameter(name, description, values=tuple(values))


def time(name: str, description: str) -> Parameter:
    """A parameter that takes a time."""
    return Parameter(name, description, characters_max=40, schema={"pattern": MOMENT_PATTERN})


_TIMES: Final = (
    time("since", "Not before this time."),
    time("until", "Before this time."),
)

_QUERIES: Final[dict[Callable[..., Any], Query]] = {}
_ANSWERS: Final[dict[Callable[..., Any], Answer]] = {}


def lists(*filters: Parameter, tags: bool = False, times: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Declare a list in pages, with its filters; ``times`` adds ``since`` and ``until``."""
    return _asking(Query((*filters, *(_TIMES if times else ()), *_PAGED), tags, paged=True, times=times))


def asks(*parameters: Parameter, tags: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Declare the parameters of a query that asks for no page; without any the route takes none."""
    return _asking(Query(parameters, tags))


def answers(
    shape: Any,
    *,
    also: Mapping[int, Any] = MappingProxyType({}),
    versioned: bool = False,
    refusals: Sequence[int] = (),
) -> Callable[[Endpoint], Endpoint]:
    """Declare what a route answers, under its own status and under others."""

    def declared(endpoint: Endpoint) -> Endpoint:
        _ANSWERS[endpoint] = Answer(shape, also, versioned, refusals)
        return endpoint

    return declared


def _asking(query: Query) -> Callable[[Endpoint], Endpoint]:
    def declared(endpoint: Endpoint) -> Endpoint:
        _QUERIES[endpoint] = query
        return endpoint

    return declared


def query_of(endpoint: Callable[..., Any]) -> Query | None:
    """What an endpoint declares to read of its query; ``None`` where it reads nothing of it."""
    return _QUERIES.get(endpoint)


def answer_of(endpoint: Callable[..., Any]) -> Answer | None:
    """What an endpoint declares to answer."""
    return _ANSWERS.get(endpoint)


def asked_of(request: Request) -> Query:
    """What the route of a request declares to read of its query."""
    return _QUERIES[request.scope["endpoint"]]
