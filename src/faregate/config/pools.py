"""Pools of deployments: which of them a call is tried at, in which order, and when one of them rests."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from faregate.config.section import Section
from faregate.config.values import Duration, Flag, Label, Name, Text, Whole, wrong
from faregate.core.priorities import PRIORITY_MAX
from faregate.core.routing.choose import STRATEGIES, WEIGHT_MAX, Member, PoolRule, Range
from faregate.core.routing.health import REASONS, BreakerRule
from faregate.core.routing.retry import FAILOVER, RETRIED_REASONS, RETRIES_MAX, RetryRule

_MILLI: Final = 1_000_000

#: How reasons are written, and what the gate calls them.
_REASONS: Final = {reason.removeprefix("upstream_").removesuffix("_unavailable"): reason for reason in REASONS}


_RETRIED: Final = {reason.removeprefix("upstream_").removesuffix("_unavailable"): reason for reason in RETRIED_REASONS}


def _statuses(value: object) -> object:
    """``500-599`` or a single status, as a range with both ends."""
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise wrong("CFG-TYPE", "this is no status of an error", _STATUSES_EXAMPLES)
    match = _STATUSES.fullmatch(str(value))
    if match is not None:
        low, high = int(match[1]), int(match[2] or match[1])
        if low <= high:
            return low, high
    raise wrong("CFG-RANGE", "this is no range of statuses of errors", _STATUSES_EXAMPLES)


def _statuses_text(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]}-{ends[1]}"


_STATUSES: Final = re.compile(r"([45][0-9]{2})(?:-([45][0-9]{2}))?")
_STATUSES_EXAMPLES: Final = "400 to 599, such as 429 or 500-599"
_STATUSES_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "integer", "minimum": 400, "maximum": 599},
        {"type": "string", "pattern": "^[45][0-9]{2}(-[45][0-9]{2})?$"},
    ],
    "examples": ["500-599"],
}

#: Both ends of a range of statuses.
Statuses = Annotated[
    tuple[int, int], BeforeValidator(_statuses), PlainSerializer(_statuses_text), WithJsonSchema(_STATUSES_SCHEMA)
]


class Breaker(Section):
    """When a deployment rests: no call goes there, until one that tries whether it is well again."""

    enabled: Flag = Field(default=True, description="let it rest")
    failures: Annotated[Whole, Field(ge=1, le=1_000)] = Field(
        default=5, description="failures within the interval after which it rests"
    )
    percent: Annotated[Whole, Field(ge=0, le=100)] = Field(
        default=50, description="percent of the calls since then that must have failed besides; 0: the count decides"
    )
    interval: Annotated[Duration, Field(ge=1_000, le=86_400_000)] = Field(
        default=30_000, description="time in which failures are counted"
    )
    trip: Annotated[Duration, Field(ge=1_000, le=86_400_000)] = Field(
        default=20_000, description="how long it rests where the provider's Retry-After does not say"
    )
    trip_max: Annotated[Duration, Field(ge=1_000, le=86_400_000)] = Field(
        default=300_000, description="longest Retry-After that is followed"
    )
    statuses: tuple[Statuses, ...] = Field(
        default=((401, 401), (403, 403), (429, 429), (500, 599)),
        description="statuses that are failures, such as 429 or 500-599",
        max_length=16,
    )
    reasons: tuple[Literal[tuple(_REASONS)], ...] = Field(  # type: ignore[valid-type]
        default=tuple(_REASONS), description="failures without a status", max_length=8
    )


class Retry(Section):
    """When a call is tried again that failed before its first byte."""

    count: Annotated[Whole, Field(ge=0, le=RETRIES_MAX)] = Field(
        description="tries after the first, at other deployments first"
    )
    again: Flag = Field(
        default=True, description="try deployments once more that failed; false: each once, whatever is left of count"
    )
    interval: Annotated[Duration, Field(ge=1, le=60_000)] = Field(
        default=1_000, description="wait before all are tried once more; to another deployment nobody waits"
    )
    delta: Annotated[Duration, Field(ge=1, le=60_000)] | None = Field(
        default=None, description="what each wait is longer than the one before; default: nothing"
    )
    max: Annotated[Duration, Field(ge=1, le=60_000)] | None = Field(
        default=None,
        description="with it the delta doubles each time, and no wait is longer than this; default: none",
    )
    first_fast: Flag = Field(default=False, description="the first try of all once more comes at once")
    wait_max: Annotated[Duration, Field(ge=1, le=60_000)] = Field(
        default=10_000, description="longest Retry-After of a provider that is waited for; above it the caller is told"
    )
    statuses: tuple[Statuses, ...] = Field(
        default=FAILOVER.statuses, description="statuses after which it is tried again", max_length=16
    )
    reasons: tuple[Literal[tuple(_RETRIED)], ...] = Field(  # type: ignore[valid-type]
        default=tuple(name for name, reason in _RETRIED.items() if reason in FAILOVER.reasons),
        description="failures without a status after which it is tried again; timeout, truncated and protocol may have "
        "been billed, and then the operator pays for them",
        max_length=8,
    )


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_PARAMS_CHARACTERS_MAX: Final = 4_096


def _params(value: str) -> str:
    try:
        if len(value) > _PARAMS_CHARACTERS_MAX:
            raise ValueError
        if value:
            _members(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        expected = f"an object of at most {_PARAMS_CHARACTERS_MAX} characters, such as '{{\"temperature\": 0.2}}'"
        raise wrong("CFG-RANGE", "this is not JSON that can be put into a body", expected) from None
    return value


Params = Annotated[Text, AfterValidator(_params)]


class PoolMember(Section):
    """A deployment of a pool."""

    deployment: Label = Field(description="a deployment or provider/model")
    weight: Annotated[Whole, Field(ge=1, le=WEIGHT_MAX)] = Field(
        default=1, description="its share, with strategy: weighted, least_busy, and where callers stay"
    )
    group: Annotated[Whole, Field(ge=1, le=64)] = Field(
        default=1, description="those of a higher group are used where none of a lower one can be"
    )
    params: Params = Field(
        default="",
        description="JSON of what calls which go there are sent with, whatever they said themselves, such as "
        "'{\"temperature\": 0.2}'",
    )
    timeout: Duration | None = Field(
        default=None, description="longest time of its whole answer; default: as its provider has it"
    )


def _member(value: object) -> object:
    return {"deployment": value} if isinstance(value, str) else value


class SelectedCallers(Section):
    """Whose calls; all that is named must hold."""

    organization: Name | None = Field(default=None, description="an organization")
    team: Name | None = Field(default=None, description="a team")
    project: Name | None = Field(default=None, description="a project")
    product: Name | None = Field(default=None, description="a product")
    stage: Name | None = Field(default=None, description="a stage")
    user: Name | None = Field(default=None, description="a user")
    key: Label | None = Field(default=None, description="name or id of a key")


class PriorityRange(Section):
    """Deployments that calls of some priorities are tried at first."""

    # Written out as it is read: another process reads it again.
    model_config = ConfigDict(serialize_by_alias=True)

    low: Annotated[Whole, Field(ge=0, le=PRIORITY_MAX)] | None = Field(
        default=None,
        alias="from",
        description="lowest number; default by place in the list: 0, 101, 501",
    )
    high: Annotated[Whole, Field(ge=0, le=PRIORITY_MAX)] | None = Field(
        default=None, alias="to", description="highest number; default by place in the list: 100, 500, 1000"
    )
    use: tuple[Label, ...] = Field(description="deployments or provider/model, in order", min_length=1, max_length=64)
    only: tuple[SelectedCallers, ...] = Field(
        default=(), description="for calls of these callers alone; default: everybody", max_length=64
    )


Strategy = Literal[STRATEGIES]  # type: ignore[valid-type]
Members = Annotated[
    tuple[Annotated[PoolMember, BeforeValidator(_member, json_schema_input_type=PoolMember | str)], ...],
    Field(min_length=1, max_length=64),
]
Ranges = Annotated[tuple[PriorityRange, ...], Field(max_length=16)]
Beyond = Literal["clamp", "refuse"]
Sticky = Literal["key", "user", "run"]


class Pool(Section):
    """Deployments that stand in for each other."""

    name: Name = Field(description="how models call it")
    strategy: Strategy = Field(default="ordered", description="how the order is found in which they are tried")
    use: Members = Field(description="deployments or provider/model, by name or with weight and group")
    priority: Ranges = Field(default=(), description="what calls with a `Priority` header are tried at before")
    beyond: Beyond = Field(
        default="clamp",
        description="a `Priority` that is not for its caller counts as the next one below that is, or is refused",
    )
    sticky: Sticky | None = Field(
        default=None, description="keep a key, an end user or a run at one deployment; default: nobody"
    )
    breaker: Breaker | None = Field(default=None, description="when one of them rests; default: `breaker`")
    retry: Retry | None = Field(default=None, description="when a failed call is tried again; default: `retry`")


class Selected(Section):
    """Where a model leads for some callers."""

    select: SelectedCallers = Field(description="whose calls")
    to: tuple[Label, ...] = Field(
        description="pools, deployments or provider/model, in order", min_length=1, max_length=64
    )


class MirrorTo(Section):
    """A share of a name's calls is copied to another deployment, to compare the two; its callers notice nothing."""

    to: Label = Field(description="a deployment or provider/model; what copies cost is on no payer's bill")
    percent: Annotated[Whole, Field(ge=1, le=100)] = Field(description="of so many calls of a hundred")


Instead = Annotated[tuple[Selected, ...], Field(max_length=64)]


def rule_as_sent(pool: Pool) -> dict[str, Any]:
    """All but its name that was said of a pool, as JSON in the form of the configuration; it reads back as the same."""
    return pool.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"name"})


def rule_in_full(pool: Pool) -> dict[str, Any]:
    """The same with what is as usual, where ``None`` stands for what goes by the rule for all."""
    told = pool.model_dump(mode="json", by_alias=True, exclude={"name"})
    for each in told["priority"]:
        each["only"] = [{name: value for name, value in one.items() if value is not None} for one in each["only"]]
    return told


def rule_in_short(pool: Pool) -> dict[str, Any]:
    """The same without what is as usual, as people write it: two rules that mean the same are equal."""
    told = pool.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"name"})
    told["use"] = [each["deployment"] if each.keys() == {"deployment"} else each for each in told["use"]]
    if told.get("breaker") == {}:
        # A breaker with nothing special goes before the one for all.
        told["breaker"] = {"enabled": True}
    return told


def instead_as_sent(instead: Iterable[Selected]) -> list[dict[str, Any]]:
    """Where a name leads for some callers, as JSON in the form of the configuration."""
    return [each.model_dump(mode="json", exclude_none=True) for each in instead]


def breaker_rule(breaker: Breaker) -> BreakerRule:
    """A breaker as the gate goes by it."""
    return BreakerRule(
        breaker.enabled,
        breaker.failures,
        breaker.percent,
        breaker.interval * _MILLI,
        breaker.trip * _MILLI,
        breaker.trip_max * _MILLI,
        breaker.statuses,
        tuple(_REASONS[reason] for reason in breaker.reasons),
    )


def retry_rule(retry: Retry) -> RetryRule:
    """A rule of retries as the gate goes by it."""
    return RetryRule(
        retry.count,
        retry.again,
        retry.interval * _MILLI,
        (retry.delta or 0) * _MILLI,
        (retry.max or 0) * _MILLI,
        retry.first_fast,
        retry.wait_max * _MILLI,
        retry.statuses,
        tuple(_RETRIED[reason] for reason in retry.reasons),
    )


def pool_rule(pool: Pool, usual: tuple[tuple[int, int], ...]) -> PoolRule:
    """A pool as the gate goes by it; ``usual`` are the ranges of entries that name none, by their place."""
    ranges = []
    for index, each in enumerate(pool.priority):
        low, high = usual[index] if index < len(usual) else (0, 0)
        only = tuple(who_of(one) for one in each.only)
        ends = low if each.low is None else each.low, high if each.high is None else each.high
        ranges.append(Range(*ends, each.use, only))
    members = tuple(
        Member(each.deployment, each.weight, each.group, params_of(each.params), each.timeout or 0) for each in pool.use
    )
    return PoolRule(pool.name, members, pool.strategy, tuple(ranges), pool.sticky or "", pool.beyond == "refuse")


def params_of(text: str) -> tuple[tuple[str, str], ...]:
    """Name and JSON of each member, digit by digit as they were written."""
    return tuple((name, bytes(value).decode()) for name, value in _members(text).items()) if text else ()


def who_of(selected: SelectedCallers) -> tuple[tuple[str, str], ...]:
    """What must hold of a caller, by name."""
    told: Mapping[str, Any] = selected.model_dump()
    return tuple((name, value) for name, value in told.items() if value is not None)
