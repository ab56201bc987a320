"""The values that answers are made of, and what all lists and removals have in common."""

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

Time = Annotated[str, Field(description="RFC 3339, UTC", json_schema_extra={"format": "date-time"})]
Date = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]

#: An amount of money that is never negative, and one that may be.
Dollars = Annotated[str, Field(description="dollars, as a decimal text", pattern=r"^\d+(\.\d{1,12})?$")]
Difference = Annotated[str, Field(description="dollars, as a decimal text", pattern=r"^-?\d+(\.\d{1,12})?$")]
Exact = Annotated[
    str, Field(description="dollars, exact: a decimal text, or a fraction", pattern=r"^-?\d+(\.\d+|/\d+)?$")
]

#: In the unit of its limit.
Amount = Annotated[
    str | int, Field(description="dollars as a decimal text where the unit is `usd`, otherwise a whole number")
]

Id = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Applied = Annotated[bool, Field(description="whether the gate works by it already; left out where no gate runs")]
Source = Annotated[str, Field(pattern="^(file|api)$", description="`file`: declared in the configuration file")]
Mapped = dict[str, Any]

Cursor = Annotated[str | None, Field(description="the next page's `cursor`; `null` at the end of the list")]


class Removed(TypedDict):
    """Something is no more."""

    id: Id
    deleted: bool
    name: NotRequired[str]
    applied: NotRequired[Applied]


class OneError(TypedDict):
    """One mistake of several; of one in the configuration file also where it is, and the parts of `detail`."""

    field: str
    code: str
    detail: str
    place: NotRequired[str]
    problem: NotRequired[str]
    expected: NotRequired[str]
    hint: NotRequired[str]


class Problem(TypedDict):
    """Why a request was refused (RFC 9457); `code` is what programs go by."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: NotRequired[list[OneError]]
