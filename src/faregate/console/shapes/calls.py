"""Records of calls, what was said in them, sums, quotes and counts of tokens as the API shows them."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from faregate.console.shapes.prices import CostLine
from faregate.console.shapes.values import Amount, Count, Cursor, Difference, Dollars, Exact, Id, Time
from faregate.core.usage import OTHER_INPUT_UNITS, OTHER_OUTPUT_UNITS


class Measured(TypedDict):
    """Units that are not tokens."""

    unit: str
    variant: str | None
    quantity: int


class Attempt(TypedDict):
    """One try at one deployment."""

    deployment: str
    http_status: int | None
    code: str | None
    duration_ms: float | None


#: Tokens of rarer kinds.
_RareTokens = TypedDict(  # type: ignore[misc]
    "_RareTokens", dict.fromkeys((*OTHER_INPUT_UNITS, *OTHER_OUTPUT_UNITS), int)
)


class Record(_RareTokens):
    """What is known of one call."""

    id: Id
    run: str | None
    created_at: Time
    ended_at: Time | None
    organization: str | None
    team: str | None
    project: str | None
    product: str | None
    key: str | None
    user: str | None
    end_user: str | None
    stage: str | None
    identity_source: str | None
    model: str | None
    deployment: str | None
    provider: str | None
    operation: str | None
    stream: bool
    status: str
    http_status: int | None
    code: str | None
    limit: str | None
    input_tokens: Count
    output_tokens: Count
    cached_input_tokens: Count
    cache_write_tokens: Count
    input_audio_tokens: Count
    reasoning_tokens: Count
    output_audio_tokens: Count
    units: list[Measured]
    usage_source: str | None
    cost: Difference
    charge: Difference
    charge_rule: str | None
    held: Dollars
    overrun: Dollars
    price_version: str | None
    resolution: str | None
    cache: str
    saved_cost: Dollars
    attempts: list[Attempt]
    latency_ms: float | None
    first_token_ms: float | None
    clamped_to: int | None
    notes: dict[str, Any] | None
    answered_model: str | None
    provider_request_id: str | None
    idempotency_key: str | None
    event_id: str | None
    metadata: dict[str, str]
    tags: dict[str, str]


class Records(TypedDict):
    """A page of records."""

    data: list[Record]
    next_cursor: Cursor
    #: With `booked_after`: the id to ask with for the next ones.
    booked_until: NotRequired[str]
    #: With `text` and an order: whether these are all that match.
    complete: NotRequired[bool]


class ChargeLine(TypedDict):
    """What lies between cost and charge."""

    name: str
    term: str
    amount: Exact


class Derivation(TypedDict):
    """How cost and charge follow from usage, rate card and charge rule; a hit of the cache has no rate card."""

    price_version: str | None
    provider: str | None
    model: str | None
    source: str | None
    service_tier: str | None
    region: str | None
    above_input_tokens: Count
    lines: list[CostLine]
    sum: Exact
    rounding: str
    cost: Difference
    charge_rule: str | None
    charge_lines: list[ChargeLine]
    charge: Difference


class RecordAdjustment(TypedDict):
    """What was corrected of a record after it was booked."""

    run: str
    kind: str
    reason: str
    at: Time
    cost_difference: Difference
    charge_difference: Difference
    price_version: str


class RecordDetail(Record):
    """A record with the derivation of its cost."""

    derivation: Derivation | None
    adjustments: list[RecordAdjustment]


class KeptText(TypedDict):
    """A prompt or an answer, as far as it was kept."""

    text: str | None
    characters: Count
    bytes: Count
    truncated: bool


class FoundRule(TypedDict):
    """A rule of redaction that found something."""

    rule: str
    action: str
    where: str
    times: int


class Content(TypedDict):
    """What was kept of one call."""

    id: Id
    at: Time
    kept: str
    stream: bool
    http_status: int | None
    code: str | None
    prompt: KeptText
    answer: KeptText
    rules: list[FoundRule]


class FoundContent(Content):
    """What was kept of one call, with its record."""

    request: Record


class Contents(TypedDict):
    """A page of contents."""

    data: list[FoundContent]
    next_cursor: Cursor


class RemovedContent(TypedDict):
    """What was kept of a call is deleted."""

    id: Id
    removed: bool


@with_config(ConfigDict(extra="allow"))
class UsageRow(TypedDict):
    """Sums; the interval's start and the dimensions are members of their own names."""

    requests: Count
    input_tokens: Count
    output_tokens: Count
    cached_input_tokens: Count
    reasoning_tokens: Count
    images: Count
    seconds: Count
    characters: Count
    cost: Difference
    charge: Difference
    cache_hits: Count
    cache_misses: Count
    saved_cost: Dollars


_From = TypedDict("_From", {"from": Time | None})


class Usage(_From):
    """Sums over settled calls."""

    to: Time | None
    data: list[UsageRow]


class CacheFigures(TypedDict):
    """What caches did: the gateway's own, and those that providers have for prompts."""

    cache_hits: Count
    cache_misses: Count
    hit_ratio: Annotated[str, Field(pattern=r"^[01]\.\d{4}$")] | None
    saved_cost: Dollars
    hit_charge: Dollars
    provider_cached_tokens: Count
    provider_written_tokens: Count
    provider_saved_cost: Difference


@with_config(ConfigDict(extra="allow"))
class CacheRow(CacheFigures):
    """The same for one value; the dimensions are members of their own names."""


class CacheReport(TypedDict):
    """What caches saved in a time."""

    since: Time | None
    until: Time | None
    data: list[CacheRow]
    total: CacheFigures


class Latency(TypedDict):
    """By nearest rank; ``null`` where nothing went ok."""

    p50: float | None
    p90: float | None
    p99: float | None


class FirstToken(TypedDict):
    """The same of streams, up to their first token."""

    p50: float | None
    p90: float | None


class DeploymentRow(TypedDict):
    """What calls of one deployment, or copies of calls, came to."""

    model: str | None
    deployment: str
    provider: str | None
    mirrored: bool
    requests: Count
    ok: Count
    failed: Annotated[Count, Field(description="neither those whose caller left, nor what a limit ended")]
    ok_ratio: Annotated[str, Field(pattern=r"^[01]\.\d{4}$", description="of those that went ok or failed")] | None
    cost: Dollars
    cost_per_request: Annotated[Dollars, Field(description="of those that went ok or cost something")] | None
    input_tokens: Count
    output_tokens: Count
    latency_ms: Latency
    first_token_ms: FirstToken
    output_tokens_per_second: float | None


class DeploymentPair(TypedDict):
    """Mirrored calls and their copies: sums and medians of those that both went ok."""

    model: str | None
    deployment: str
    mirror: str
    pairs: Count
    cost: Dollars
    mirror_cost: Dollars
    latency_ms: float | None
    mirror_latency_ms: float | None
    output_tokens: Count
    mirror_output_tokens: Count
    failed: Annotated[Count, Field(description="the call alone failed")]
    mirror_failed: Annotated[Count, Field(description="its copy alone failed")]


class DeploymentReport(TypedDict):
    """How deployments compare in a time."""

    since: Time | None
    until: Time | None
    records: Count
    truncated: Annotated[bool, Field(description="there are more records; these are the newest")]
    data: list[DeploymentRow]
    pairs: list[DeploymentPair]


class Bounds(TypedDict):
    """At least and at most."""

    min: Count
    max: Count


class CountedBounds(Bounds):
    """At least and at most, and how they were found."""

    method: str


class MoneyBounds(TypedDict):
    """At least and at most."""

    min: Dollars
    max: Dollars


class UnitBounds(Bounds):
    """The same of a unit that is not tokens."""

    unit: str
    variant: str | None


class QuoteLine(TypedDict):
    """One line of a cost."""

    unit: str
    variant: str | None
    quantity: int
    price: Dollars
    per: Count
    priced_as: str | None
    cost: Dollars


class QuoteLines(TypedDict):
    """The lines of the least and of the most."""

    min: list[QuoteLine]
    max: list[QuoteLine]


class QuotedDeployment(TypedDict):
    """What a call costs at one deployment."""

    name: str
    provider: str
    model: str
    price_version: str
    tier_price_version: str | None
    charge_rule: str | None
    input_tokens: CountedBounds
    output_tokens: Bounds
    cost: MoneyBounds
    charge: MoneyBounds


class QuotedRefusal(TypedDict):
    """Why the call would be refused now."""

    code: str
    detail: str
    limit: str | None
    also: NotRequired[list[str]]
    resets_at: NotRequired[Time | None]


class QuotedLimit(TypedDict):
    """A limit that the call would be asked of."""

    id: Id
    unit: str
    window: str | None
    remaining: Amount | None


class Quote(TypedDict):
    """What a call costs at least and at most, and whether it would be refused."""

    operation: str
    model: str | None
    key: str | None
    deployments: list[QuotedDeployment]
    input_tokens: CountedBounds
    output_tokens: Bounds
    units: list[UnitBounds]
    cost: MoneyBounds
    charge: MoneyBounds
    lines: QuoteLines
    max_tokens_that_fits: int | None
    clamped_to: int | None
    would_be_refused: QuotedRefusal | None
    limits: list[QuotedLimit]


class Tokens(TypedDict):
    """The tokens of a text, of each text of a list, or of a chat's messages and tools."""

    model: str
    encoding: str
    #: Whether the encoding is that of another model, because that of this one is not known.
    fallback: bool
    count: Count
    #: Of a list and of messages: of each.
    counts: NotRequired[list[int]]
    #: Of messages: whether the provider counts the same, and what is told beside them.
    exact: NotRequired[bool]
    tools_and_priming: NotRequired[int]
    note: NotRequired[str]
    #: `null` where there are too many.
    ids: list[int] | list[list[int]] | None
    strings: list[str] | list[list[str]] | None


class Encoding(TypedDict):
    """An encoding, and the families of models that have it."""

    name: str
    models: list[str]


class Encodings(TypedDict):
    """Every encoding."""

    encodings: list[Encoding]
    models: dict[str, str]
    fallback: str


QuotaOperation = Literal["Create", "Update"]


class Quota(TypedDict):
    """What is left of a key's quota."""

    SubscriptionKey: str
    ProductName: str
    Amount: str
    RateLimitOnCost: bool
    Renewal: NotRequired[str]
    RenewsAt: NotRequired[Time | None]
    StoppedBecause: NotRequired[str]


class QuotaOverview(TypedDict):
    """A quota in the list of all."""

    subscriptionKey: str
    RowKey: str
    productName: str
    timestamp: Time
    model: str
    tokenAmount: int
    promptTokens: int
    operation: str
    amount: str
    transCost: str
    balance: str
    RateLimitOnCost: bool


class QuotaTransaction(TypedDict):
    """What changed a quota, or a call that took something off it."""

    subscriptionKey: str
    RowKey: str
    productName: str
    timestamp: Time
    model: str
    tokenAmount: int
    promptTokens: int
    operation: str
    amount: str
    transCost: str
    balance: str | None
    reason: NotRequired[str | None]
    actor: NotRequired[str]
