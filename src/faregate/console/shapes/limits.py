"""Limits, their entries and rehearsals as the API shows them."""

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from faregate.console.shapes.values import Amount, Applied, Count, Cursor, Dollars, Id, Time

_Span = TypedDict("_Span", {"from": Time | None})


class Raised(_Span):
    """Another amount for some time."""

    amount: Amount
    until: Time


class Action(TypedDict):
    """What happens at a share of the amount."""

    do: Literal["notify", "throttle", "downgrade", "revoke", "stop"]
    at: int
    on: Literal["actual", "forecast"]
    to: str | None
    models: list[str]
    requests_per_minute: int | None
    forced_until: Time | None


_Excepting = TypedDict("_Excepting", {"from": Time | None, "except": list[dict[str, str]]})


class Terms(_Excepting):
    """What a limit says beyond whom it covers, its unit, amount and window; `null` is as usual."""

    algorithm: Literal["smooth"] | None
    burst: Amount | None
    year_start: str | None
    carry_over: Amount | None
    raises: list[Raised]
    until: Time | None
    estimate: bool
    actions: list[Action]
    denial: str | None
    reason: str | None


class Standing(TypedDict):
    """Where one value of an `each` limit stands."""

    subject: dict[str, str]
    posted: Amount
    held: Amount
    remaining: Amount | None


class Limit(Terms):
    """A limit, with what is posted and held of it now."""

    id: Id
    select: dict[str, str]
    each: list[str]
    unit: str
    amount: Amount | None
    amount_now: Amount | None
    window: str | None
    timezone: str
    mode: Literal["hard", "soft", "shadow"]
    clamp: bool
    contact: str | None
    source: str
    posted: Amount
    held: Amount
    remaining: Amount | None
    window_start: Time | None
    resets_at: Time | None
    created_at: Time
    updated_at: Time
    #: Of an `each` limit, with as many of its values as are shown.
    subjects_count: NotRequired[Count]
    subjects: NotRequired[list[Standing]]
    applied: NotRequired[Applied]


class Limits(TypedDict):
    """A page of limits."""

    data: list[Limit]
    next_cursor: Cursor


class SetLimits(TypedDict):
    """Limits that were set together, in the order in which they were sent."""

    data: list[Limit]
    applied: NotRequired[Applied]


_Change = TypedDict("_Change", {"from": NotRequired[str], "to": NotRequired[str]})


class Entry(_Change):
    """Something that changed a limit's amount or mode."""

    id: Id
    limit: str
    operation: str
    unit: str
    amount: Amount | None
    before: Amount | None
    after: Amount | None
    actor: str
    actor_name: str | None
    reason: str | None
    reference: str | None
    request_id: str | None
    created_at: Time
    #: Of a raise.
    since: NotRequired[Time]
    until: NotRequired[Time]
    applied: NotRequired[Applied]


class Entries(TypedDict):
    """A page of entries."""

    data: list[Entry]
    next_cursor: Cursor


class Refusals(TypedDict):
    """How many calls would have been refused, and when."""

    refused: Count
    refused_charge: Dollars
    first_at: Time | None
    last_at: Time | None


class RefusedSubject(Refusals):
    """The same, of one value of an `each` limit."""

    subject: dict[str, str]


@with_config(ConfigDict(extra="allow"))
class RefusedPayer(Refusals):
    """The same, of one payer; the member is called as its dimension."""


class Most(TypedDict):
    """The most that was used in one window."""

    amount: Amount
    window_start: Time | None
    subject: dict[str, str] | None


class RehearsedLimit(Terms, Refusals):
    """What one limit would have done."""

    limit: str | None
    place: int | None
    select: dict[str, str]
    each: list[str]
    unit: str
    amount: Amount | None
    window: str | None
    timezone: str
    mode: Literal["hard", "soft", "shadow"]
    requests: Count
    would_refuse: Count
    downgraded: Count
    downgraded_charge: Dollars
    downgraded_saved: Dollars
    downgraded_unpriced: Count
    most: Most
    subjects: NotRequired[list[RefusedSubject]]


class Shadowed(TypedDict):
    """What a shadow limit noted at the time."""

    limit: str
    requests: Count


_Result = TypedDict("_Result", {"from": NotRequired[Time]})


class Rehearsal(_Result):
    """What the limits would have done; only `id` and `state` of one that was stopped."""

    id: Id
    state: Literal["done", "stopped"]
    to: NotRequired[Time]
    keep: NotRequired[bool]
    holds: NotRequired[bool]
    requests: NotRequired[Count]
    charge: NotRequired[Dollars]
    refused: NotRequired[Count]
    refused_charge: NotRequired[Dollars]
    first_at: NotRequired[Time | None]
    last_at: NotRequired[Time | None]
    downgraded: NotRequired[Count]
    saved: NotRequired[Dollars]
    refused_then: NotRequired[dict[str, int]]
    unknown: NotRequired[Count]
    limits: NotRequired[list[RehearsedLimit]]
    by: NotRequired[dict[str, list[RefusedPayer]]]
    shadow: NotRequired[list[Shadowed]]


class RunningRehearsal(TypedDict):
    """A rehearsal that is not done yet, and how far it is."""

    id: Id
    state: Literal["running"]
    progress: dict[str, Any]
