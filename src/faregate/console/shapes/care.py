"""Providers, alerts, channels and everything that looks after an installation, as the API shows it."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from faregate.console.shapes.values import Applied, Count, Cursor, Difference, Dollars, Id, Mapped, Source, Time


class Timeouts(TypedDict):
    """How long a provider is waited for, in milliseconds."""

    connect: int
    first_byte: int
    idle: int
    total: int


class Provider(TypedDict):
    """A provider; of its secret only where it begins and ends."""

    id: Id
    name: str
    kind: str
    base_url: str
    api_key: str | None
    credential: str | None
    api_version: str | None
    state: Literal["active", "disabled"]
    client_gone: str
    stream_usage: bool
    lookup: str
    connections_max: int
    allow_http: bool
    allow_private: bool
    timeouts: Timeouts
    source: Source
    created_at: Time | None
    updated_at: Time | None
    applied: NotRequired[Applied]


class Providers(TypedDict):
    """A page of providers; the first one begins with those of the configuration file."""

    data: list[Provider]
    next_cursor: Cursor


class TriedProvider(TypedDict):
    """How a harmless question to a provider went."""

    id: Id
    name: str
    ok: bool
    detail: str
    status: int
    models: Count
    milliseconds: Count


class Deployment(TypedDict):
    """A place to send calls to."""

    id: Id
    name: str
    provider: str
    deployment: str
    model: str
    max_output_tokens: int | None
    region: str
    state: Literal["active", "disabled"]
    source: Source
    created_at: Time | None
    updated_at: Time | None
    applied: NotRequired[Applied]


class Deployments(TypedDict):
    """A page of deployments; the first one begins with those of the configuration file."""

    data: list[Deployment]
    next_cursor: Cursor


class MemberOfPool(TypedDict):
    """A deployment of a pool; times are as in the configuration, such as `5000ms`."""

    deployment: str
    weight: int
    group: int
    #: JSON of what calls that go there are sent with.
    params: str
    timeout: str | None


_Ends = TypedDict("_Ends", {"from": int | None})


class RangeOfPool(_Ends):
    """What calls of some priorities are tried at first."""

    to: int | None
    use: list[str]
    #: Whose calls; empty for everybody's.
    only: list[dict[str, str]]


class BreakerOfPool(TypedDict):
    """When a deployment rests."""

    enabled: bool
    failures: int
    percent: int
    interval: str
    trip: str
    trip_max: str
    statuses: list[str]
    reasons: list[str]


class RetryOfPool(TypedDict):
    """When a failed call is tried again."""

    count: int
    again: bool
    interval: str
    delta: str | None
    max: str | None
    first_fast: bool
    wait_max: str
    statuses: list[str]
    reasons: list[str]


class Pool(TypedDict):
    """Deployments that stand in for each other."""

    id: Id
    name: str
    strategy: str
    use: list[MemberOfPool]
    priority: list[RangeOfPool]
    beyond: Literal["clamp", "refuse"]
    sticky: Literal["key", "user", "run"] | None
    #: `null` where the one for all holds.
    breaker: BreakerOfPool | None
    retry: RetryOfPool | None
    source: Source
    created_at: Time | None
    updated_at: Time | None
    applied: NotRequired[Applied]


class Pools(TypedDict):
    """A page of pools; the first one begins with those of the configuration file."""

    data: list[Pool]
    next_cursor: Cursor


class LedElsewhere(TypedDict):
    """Where a name leads for some callers."""

    #: Whose calls, by what is known of them.
    select: dict[str, str]
    to: list[str]


class ModelName(TypedDict):
    """A name that callers may use, and where it leads."""

    id: Id
    name: str
    to: list[str]
    max_output_tokens: int | None
    max_context_tokens: int | None
    instead: list[LedElsewhere]
    source: Source
    created_at: Time | None
    updated_at: Time | None
    applied: NotRequired[Applied]


class ModelNames(TypedDict):
    """A page of names; the first one begins with those of the configuration file."""

    data: list[ModelName]
    next_cursor: Cursor


class ActingProvider(TypedDict):
    """A provider as it acts now."""

    name: str
    kind: str
    base_url: str
    can_be_asked: bool
    client_gone: str | None


class ActingDeployment(TypedDict):
    """A deployment as it acts now."""

    name: str
    provider: str
    upstream_model: str
    model: str
    priced: bool
    max_output_tokens: int | None
    operations: list[str]


class ActingModel(TypedDict):
    """A name of a model as it acts now."""

    name: str
    to: list[str]


class WayPoolMember(TypedDict):
    """A deployment of a pool along a way."""

    deployment: str
    weight: int
    group: int


class WayPool(TypedDict):
    """A pool along a way."""

    name: str
    strategy: str
    sticky: str | None
    members: list[WayPoolMember]


class WayPlace(TypedDict):
    """A deployment that a call would be tried at."""

    deployment: str
    provider: str
    why: str


class WayResting(TypedDict):
    """A deployment that would be tried if it did not rest."""

    deployment: str
    wait_ms: Count


class WayLeftOut(TypedDict):
    """A deployment that is no place for this call."""

    deployment: str
    why: str


class Way(TypedDict):
    """Where a call would go."""

    model: str
    selected: dict[str, str] | None
    priority: int | None
    pools: list[WayPool]
    order: list[WayPlace]
    resting: list[WayResting]
    left_out: list[WayLeftOut]


class Places(TypedDict):
    """Where calls can go."""

    providers: list[ActingProvider]
    deployments: list[ActingDeployment]
    models: list[ActingModel]


class Alert(TypedDict):
    """An alert, and how the telling goes."""

    id: Id
    kind: str
    severity: Literal["info", "warning", "critical"]
    message: str
    limit_id: str | None
    key: str | None
    details: Mapped
    created_at: Time
    state: Literal["waiting", "sent", "failed", "none"]
    tries: Count
    next_at: Time | None
    #: Channel → when it took the alert.
    delivered: dict[str, Time | None]
    trouble: str | None
    seen_at: Time | None


class Alerts(TypedDict):
    """A page of alerts."""

    data: list[Alert]
    next_cursor: Cursor


class Webhook(TypedDict):
    """A channel for alerts, without its secret and the secret part of its address."""

    id: Id
    name: str
    kind: Literal["webhook", "apprise"]
    url: str
    alerts: list[str] | None
    state: Literal["active", "disabled"]
    source: Source
    created_at: Time | None
    updated_at: Time | None


class MadeWebhook(Webhook):
    """A channel, with the secret that was made for it where one was."""

    secret: NotRequired[str]


class Webhooks(TypedDict):
    """A page of channels; the first one begins with those of the configuration file."""

    data: list[Webhook]
    next_cursor: Cursor


class BudgetAlert(TypedDict):
    """What an alert of a budget did."""

    done: str
    product: str
    limit: str | None
    until: Time | None
    applied: NotRequired[Applied]


class Change(TypedDict):
    """A line of the trail of changes."""

    n: Count
    at: Time
    actor: str
    request_id: str
    kind: str
    id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    chain: str


class Changes(TypedDict):
    """A page of the trail; it may hold fewer lines than were asked for, or none, and there are more."""

    data: list[Change]
    next_cursor: Cursor


class PartHealth(TypedDict):
    """How one part is."""

    ok: bool
    detail: NotRequired[str]
    projected: NotRequired[int]
    waiting: NotRequired[Count]
    failed: NotRequired[Count]


class RestingDeployment(TypedDict):
    """A deployment that takes no calls, or only one that tries whether it is well again."""

    deployment: str
    state: Literal["open", "probing"]
    wait_ms: Count


class GateHealth(TypedDict):
    """How the gate is; only `ok` and `detail` where none answers."""

    ok: bool
    detail: NotRequired[str]
    draining: NotRequired[bool]
    epoch: NotRequired[int]
    position: NotRequired[int]
    backlog_bytes: NotRequired[int]
    sequence: NotRequired[int]
    open_exchanges: NotRequired[int]
    connections: NotRequired[int]
    held: NotRequired[Dollars]
    unknown: NotRequired[Dollars]
    unknown_count: NotRequired[int]
    pending: NotRequired[Dollars]
    pending_count: NotRequired[int]
    braked_keys: NotRequired[int]
    resting: NotRequired[list[RestingDeployment]]


class CredentialHealth(TypedDict):
    """How the fetched credential of one provider is."""

    name: str
    usable: bool
    expires_at: Time | None
    trouble: str | None
    renewals: Count
    failures: Count


class CredentialsHealth(TypedDict):
    """How the credentials are that are fetched and renewed."""

    ok: bool
    detail: NotRequired[str]
    #: Providers and services whose stored secret does not open.
    unreadable: list[str]
    providers: list[CredentialHealth]


class Health(TypedDict):
    """What works and what does not."""

    status: Literal["ok", "degraded"]
    version: str
    time: Time
    books: PartHealth
    projector: PartHealth
    gate: GateHealth
    alerts: PartHealth
    credentials: NotRequired[CredentialsHealth]


class Anchor(TypedDict):
    """The head of the chain of everything that was booked."""

    number: int
    hash: str
    at: Time | None


class Check(TypedDict):
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


class Verification(TypedDict):
    """Whether nothing booked was changed, and everything adds up."""

    ok: bool
    requests: Count
    postings: Count
    held: Dollars
    unknown: Dollars
    sum: Difference
    anchor: Anchor
    checks: list[Check]


class VerificationProgress(TypedDict):
    """How far the verification that runs now has come."""

    running: bool
    phase: str | None
    rows: Count
    of: Count


class Backup(TypedDict):
    """A copy of the books."""

    file: str
    bytes: Count
    sha256: str


class Reloaded(TypedDict):
    """The configuration is in force, but for what waits for a restart."""

    reloaded: bool
    restart: list[str]
    warnings: list[str]


class ResponseCache(TypedDict):
    """How the response cache is set and stands; figures are null where nobody tells them."""

    enabled: bool
    store: Literal["embedded", "redis"]
    default: Literal["on", "off"]
    ttl_seconds: Count
    share: Literal["organization", "project", "key", "end_user"]
    entries: Count | None
    bytes: Count | None
    disk_bytes: Count | None
    evictions: Count | None
    failures: Count | None
    hits: Count | None
    misses: Count | None


class FlushedCache(TypedDict):
    """How many kept answers were forgotten."""

    removed: Count


class OwnedId(TypedDict):
    """Something that a state file brought about."""

    id: Id


class Owned(TypedDict):
    """A page of such things; it may hold fewer than were asked for, or none, and there are more."""

    data: list[OwnedId]
    next_cursor: Cursor


class Marked(TypedDict):
    """How many things were marked anew."""

    kind: str
    marked: Count
