"""The configuration as people write it: every key, its kind, its default and what it is for. Frozen once it is read.

Rules that one value decides stand here and in ``values``; rules between keys stand in ``rules``. Money is text in
dollars, durations are milliseconds and sizes bytes once they are read.

It is one file, and a long one, because it is a list: whoever looks for a key finds it beside its neighbours.
"""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, model_validator

from faregate.config.cache import Cache
from faregate.config.content import Content
from faregate.config.credentials import ProviderCredential
from faregate.config.findings import quoted
from faregate.config.identity_rules import Identity
from faregate.config.pools import Breaker, Instead, MirrorTo, Pool, Retry
from faregate.config.section import Section
from faregate.config.services import Service
from faregate.config.values import (
    Amount,
    Duration,
    Flag,
    Header,
    Host,
    JsonBody,
    Label,
    Name,
    Percent,
    Port,
    Price,
    Proxy,
    ProxyNetwork,
    Secret,
    Size,
    Text,
    Url,
    Whole,
    wrong,
)
from faregate.core.alerts import KINDS as ALERT_KINDS
from faregate.core.caching.policy import WORDS
from faregate.core.networks import NETWORKS_MAX
from faregate.core.pricing.card import PRICED_UNITS, SERVICE_TIERS

#: Keys of the contract whose feature is not built: accepting them silently would promise what nobody keeps.
NOT_YET = ("events", "payments", "metrics")

Bound = Annotated[Whole, Field(ge=1)]
RefusalStatus = Annotated[Whole, Field(ge=400, le=599)]


class Tls(Section):
    """Certificate chain and private key of a listener, PEM files."""

    certificate_file: Text = Field(description="PEM file with the certificate and its chain")
    key_file: Text = Field(description="PEM file with the private key, readable by its owner only")


class AnswerHeaders(Section):
    """Names of headers that tell what a call used and what is left."""

    consumed_tokens: Header = Field(default="consumed-tokens", description="tokens that the call used")
    remaining_tokens: Header = Field(
        default="remaining-tokens", description="tokens left of the token limit that has the fewest"
    )
    remaining_quota_tokens: Header | None = Field(
        default=None,
        description="the same of token limits over an hour or longer only; not sent unless it has a name",
    )


class Gateway(Section):
    """The data plane: where callers connect, and its bounds."""

    host: Host = Field(default="127.0.0.1", description="address to listen on")
    port: Port = Field(default=4000, description="port to listen on")
    tls: Tls | None = Field(default=None, description="serve HTTPS")
    behind_proxy: Flag = Field(default=False, description="a reverse proxy in front of it ends TLS")
    trusted_proxies: tuple[ProxyNetwork, ...] = Field(
        default=(),
        max_length=NETWORKS_MAX,
        description="networks of reverse proxies whose X-Forwarded-For says where a call came from; nobody else's does",
    )
    drain: Duration = Field(default=30_000, description="how long running calls may go on after a stop is asked for")
    drains_max: Bound = Field(default=64, description="answers read to their end at once after their client went away")
    drain_answer: Duration = Field(default=120_000, description="how long such an answer is read at most")
    connections_max: Bound = Field(default=10_000, description="client connections at once")
    headers_max: Bound = Field(default=100, description="header fields of a request")
    header_bytes_max: Size = Field(default=32 * 1024, description="bytes of all header fields of a request")
    uri_bytes_max: Size = Field(default=8 * 1024, description="bytes of a request's path and query")
    header_timeout: Duration = Field(default=10_000, description="time for a request's headers to arrive")
    body_bytes_max: Size = Field(default=10 * 1024**2, description="bytes of a request's body")
    upload_bytes_max: Size = Field(
        default=64 * 1024**2, description="bytes of a body that brings files: uploads, recordings, pictures"
    )
    body_grace: Duration = Field(
        default=5_000, description="time before the slowest allowed rate of a body is enforced"
    )
    body_bytes_per_second_min: Bound = Field(default=1_024, description="slowest allowed rate of a body")
    keep_alive: Duration = Field(default=75_000, description="how long an idle client connection stays open")
    slow_reader: Duration = Field(default=300_000, description="how long a client may read nothing of its answer")
    realtime_session: Duration = Field(
        default=3_600_000, description="how long a realtime session may last; what is being said may end"
    )
    held_body_bytes_max: Size = Field(
        default=16 * 1024**2, description="largest answer that is held whole to price it first"
    )
    held_bodies_bytes_max: Size = Field(
        default=256 * 1024**2, description="bytes of all answers and large bodies held at once"
    )
    key_bodies_bytes_max: Size | None = Field(
        default=None,
        description="bytes of one key's large bodies that are still coming in; default: a quarter of "
        "held_bodies_bytes_max, at least body_bytes_max",
    )
    forbid_private_urls: Flag = Field(default=True, description="refuse requests that name private addresses in URLs")
    headers: AnswerHeaders = Field(default=AnswerHeaders(), description="names of headers of answers")
    stream_receipt: Literal["off", "comment"] = Field(
        default="off", description="comment: streams end with one comment line that tells their cost, `: faregate {…}`"
    )


class Console(Section):
    """The admin API and its page."""

    host: Host = Field(default="127.0.0.1", description="address to listen on")
    port: Port = Field(default=4001, description="port to listen on")
    tls: Tls | None = Field(default=None, description="serve HTTPS")
    behind_proxy: Flag = Field(
        default=False,
        description="a reverse proxy in front of it ends TLS; X-Forwarded-Proto of one on this machine is believed",
    )


class Lookup(Section):
    """A provider that can be asked what became of a request."""

    path: Text = Field(description="path that answers for a request id, with {id} for it", pattern=r"^/.*\{id\}")


class Timeouts(Section):
    """How long to wait for a provider."""

    connect: Duration = Field(default=5_000, description="for its connection")
    first_byte: Duration = Field(default=60_000, description="for the first byte of its answer")
    idle: Duration = Field(default=60_000, description="between two pieces of its answer")
    total: Duration = Field(default=600_000, description="for its whole answer")


def _kind(value: object) -> object:
    if value == "http":
        expected = "openai, azure_openai, anthropic or gemini"
        raise wrong("CFG-RANGE", "a provider of the kind http is a service", expected, "write it under services")
    return value


#: Where the providers of a kind that has only one place are.
BASE_URLS: Final = {
    "anthropic": "https://api.anthropic.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta",
}


class Provider(Section):
    """One account at one model service."""

    name: Name = Field(description="how deployments, prices and reports call it")
    kind: Annotated[Literal["openai", "azure_openai", "anthropic", "gemini"], BeforeValidator(_kind)] = Field(
        description="its wire format"
    )
    base_url: Url = Field(
        description="where its API starts; https, or http on loopback; may be left out for anthropic and gemini"
    )
    api_key: Secret | None = Field(default=None, description="its credential, as ${NAME} or file:PATH")
    credential: ProviderCredential | None = Field(
        default=None, description="instead of api_key: a token, or what a command prints; fetched and renewed"
    )
    api_version: Text = Field(default="", description="Azure's api-version, quoted", pattern=r"^[A-Za-z0-9.-]{0,40}$")
    lookup: Lookup | None = Field(default=None, description="how to ask what became of a request")
    client_gone: Literal["drain", "estimate", "no_bill"] | None = Field(
        default=None,
        description="a call whose client went away; default: read an almost whole answer, else estimate",
    )
    timeouts: Timeouts = Field(Timeouts(), description="how long to wait for it")
    ca_file: Text = Field(default="", description="PEM file with the authorities to trust instead of the system's")
    proxy: Proxy | None = Field(
        default=None,
        repr=False,
        description='proxy to reach it through; default: HTTPS_PROXY, HTTP_PROXY and NO_PROXY; "" for none',
    )
    stream_usage: Flag = Field(
        default=True, description="ask for the usage of streams; false for servers that refuse the option"
    )
    allow_http: Flag = Field(default=False, description="allow plain http to another machine")
    allow_private: Flag = Field(default=False, description="allow a private address")
    connections_max: Bound = Field(default=2_000, description="connections to it at once")

    @model_validator(mode="before")
    @classmethod
    def _at_home(cls, value: object) -> object:
        """A kind with one place in the world need not say where that is."""
        if isinstance(value, dict) and "base_url" not in value and value.get("kind") in BASE_URLS:
            return {**value, "base_url": BASE_URLS[value["kind"]]}
        return value


class Deployment(Section):
    """One place to send a call to."""

    name: Name = Field(description="how models call it")
    provider: Name = Field(description="name of a provider")
    deployment: Label | None = Field(default=None, description="what the provider calls it; default: the model")
    model: Label = Field(description="the model it is, and is priced as")
    max_output_tokens: Bound | None = Field(default=None, description="most output tokens of one answer")
    region: Literal["global", "data_zone", "regional"] = Field(
        default="global", description="where it is processed, as far as that makes a difference in price"
    )


class Model(Section):
    """A name that callers may use."""

    name: Label = Field(description="what callers write as model")
    to: tuple[Label, ...] = Field(
        description="pools, deployments, provider/model or other models, in order; 256 places at most in all",
        min_length=1,
        max_length=64,
    )
    instead: Instead = Field(default=(), description="where it leads for some callers; the first that fits one counts")
    timeout: Duration | None = Field(
        default=None, description="longest time of a whole answer; default: as its providers have it"
    )
    mirror: MirrorTo | None = Field(default=None, description="copy a share of its calls to another deployment")
    max_output_tokens: Bound | None = Field(default=None, description="most output tokens of one answer")
    max_context_tokens: Bound | None = Field(default=None, description="tokens of question and answer together")


def _moment(value: str) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise wrong("CFG-RANGE", f"{quoted(value)} is not a time", "RFC 3339, e.g. 2026-12-01T00:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


class PriceOverride(Section):
    """One price that replaces the bundled one."""

    provider: Name = Field(description="name of a provider")
    model: Label = Field(description="model as the provider calls it; * for the fallback prices")
    unit: Literal[PRICED_UNITS] = Field(description="what is priced")  # type: ignore[valid-type]
    per: Bound = Field(description="how many units the price is for", le=1_000_000_000)
    price: Price = Field(description="dollars")
    effective_from: Annotated[Text, AfterValidator(_moment)] | None = Field(
        default=None, description="from when on it holds"
    )
    confirm_price: Flag = Field(default=False, description="yes, it is meant to be that far from the usual")
    variant: Label | None = Field(
        default=None, description="which of the unit's, such as 1024x1024/hd of images; default: all without their own"
    )
    service_tier: Literal[SERVICE_TIERS[1:]] | None = Field(  # type: ignore[valid-type]
        default=None, description="the service tier that it is for; default: the standard one"
    )


class CeilingPrice(Section):
    """What a unit costs at most, for models whose price is not known."""

    provider: Name | None = Field(default=None, description="name of a provider; default: all without their own")
    unit: Literal[PRICED_UNITS] = Field(description="what is priced")  # type: ignore[valid-type]
    per: Bound = Field(description="how many units the price is for", le=1_000_000_000)
    price: Price = Field(description="dollars")


class ChargeSelector(Section):
    """Which calls a charge rule is for; what is left out holds for any."""

    organization: Label | None = Field(default=None, description="organization that pays")
    team: Label | None = Field(default=None, description="team that pays")
    project: Label | None = Field(default=None, description="project that pays")
    product: Label | None = Field(default=None, description="product that pays")
    key: Label | None = Field(default=None, description="id of a key (key_…)")
    stage: Label | None = Field(default=None, description="stage of the call")
    provider: Label | None = Field(default=None, description="name of a provider")
    deployment: Label | None = Field(default=None, description="name of a deployment, or provider/model")
    model: Label | None = Field(default=None, description="model that it is priced as")
    operation: Label | None = Field(default=None, description="operation, such as chat.completions")
    service: Label | None = Field(default=None, description="the same, or a named service")


class ChargeRule(Section):
    """What payers are charged, where that is not the cost. The first rule that matches a call holds."""

    select: ChargeSelector = Field(ChargeSelector(), description="which calls; every call where nothing is named")
    markup_percent: Percent = Field(default="0", description="percent added to the cost")
    discount_percent: Percent = Field(default="0", description="percent taken off the cost, before the mark-up")
    fee: Amount = Field(default="0", description="dollars added for each call that used something")
    free: Flag = Field(default=False, description="charge nothing; the cost is booked all the same")


class Pricing(Section):
    """What calls cost."""

    unknown: Literal["refuse", "fallback", "ceiling"] = Field(
        default="refuse", description="what happens to a model without a price"
    )
    ceiling: tuple[CeilingPrice, ...] = Field(
        default=(), description="with unknown: ceiling, what any model costs at most", max_length=256
    )
    overrides: tuple[PriceOverride, ...] = Field(
        default=(), description="prices that replace bundled ones", max_length=5_000
    )
    charges: tuple[ChargeRule, ...] = Field(
        default=(), description="what payers are charged beside the cost: mark-ups, discounts, fees", max_length=1_000
    )


class Capacity(Section):
    """A fixed commitment, such as provisioned throughput: its bill is split by use."""

    name: Name = Field(description="how reports call it")
    provider: Name = Field(description="name of a provider")
    deployments: tuple[Label, ...] = Field(
        default=(), description="deployments that it serves; default: all of the provider's", max_length=64
    )
    commitment: Amount = Field(description="dollars of a calendar month")
    units: Annotated[Whole, Field(ge=0)] = Field(default=0, description="units that were bought, for showing")
    tokens_per_second: Annotated[Whole, Field(ge=0, le=1_000_000_000)] = Field(
        default=0, description="tokens that all of them serve in a second; 0: not known, and nothing is idle"
    )
    timezone: Text = Field(default="UTC", description="time zone of its months, such as Europe/Berlin")
    split: Literal["tokens", "cost"] = Field(
        default="tokens", description="what shares are in proportion to: tokens, or what they would have cost"
    )
    idle: Literal["show", "spread", "operator"] = Field(
        default="show",
        description="the part that nobody used: shown, borne by those who used the rest, or by the operator",
    )


class Stage(Section):
    """Which providers a stage uses, and what it asks of its callers."""

    providers: tuple[Name, ...] | None = Field(
        default=None, description="names of providers; default: all", min_length=1, max_length=64
    )
    require_limit: Flag = Field(
        default=False, description="refuse a call of this stage that no hard limit in dollars covers"
    )
    cache: Literal[WORDS] | None = Field(  # type: ignore[valid-type]
        default=None, description="whether calls of this stage use the response cache; default: as their keys say"
    )


class Denial(Section):
    """How a refusal by a limit is told where the usual answer does not do."""

    status: RefusalStatus | None = Field(default=None, description="status of the answer; default: as usual")
    body: JsonBody | None = Field(
        default=None,
        description="JSON of the answer, with {message}, {code}, {limit}, {amount}, {remaining}, {retry_after}, "
        "{resets_at} and {request_id} in its texts; default: as usual",
    )
    headers: dict[Header, Text] = Field(
        default={}, description="headers beside the usual ones, with the same words in their values", max_length=16
    )


class RefusalStatuses(Section):
    """Statuses of refusals by limits, by their code."""

    budget_exhausted: RefusalStatus | None = Field(default=None, description="default: 429")
    credit_exhausted: RefusalStatus | None = Field(default=None, description="default: 402")
    rate_limited: RefusalStatus | None = Field(default=None, description="default: 429")
    concurrency_limited: RefusalStatus | None = Field(default=None, description="default: 429")
    limit_required: RefusalStatus | None = Field(default=None, description="default: 403")


class RefusalDenials(Section):
    """Denials of refusals by limits that name none themselves, by their code."""

    budget_exhausted: Name | None = Field(default=None, description="name of a denial")
    credit_exhausted: Name | None = Field(default=None, description="name of a denial")
    rate_limited: Name | None = Field(default=None, description="name of a denial")
    concurrency_limited: Name | None = Field(default=None, description="name of a denial")
    limit_required: Name | None = Field(default=None, description="name of a denial")


def _above_nothing(value: str) -> str:
    if not value.strip("0."):
        raise wrong("CFG-RANGE", "it is nothing: every call would be too much", 'dollars above 0, e.g. "10"')
    return value


class Brake(Section):
    """The anomaly brake: keys that suddenly spend far more than they ever did are slowed down for a while."""

    enabled: Flag = Field(default=True, description="brake them")
    floor: Annotated[Amount, AfterValidator(_above_nothing)] = Field(
        default="10", description="dollars in ten minutes that any key may spend, whatever it did before"
    )
    factor: Annotated[Whole, Field(ge=2, le=1_000)] = Field(
        default=8, description="how many times its own most of five weeks is too much for a key"
    )
    repeats: Annotated[Whole, Field(ge=10, le=1_000_000)] = Field(
        default=100, description="equal calls in ten minutes that are a loop, where they cost a tenth of the floor"
    )
    duration: Annotated[Duration, Field(ge=60_000, le=86_400_000)] = Field(
        default=900_000, description="how long a first brake holds; another one within a day holds twice as long"
    )
    requests_per_minute: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        default=1, description="calls a minute that pass meanwhile"
    )


class Limits(Section):
    """Defaults of limits and bounds."""

    require: Flag = Field(default=False, description="refuse a call that no hard limit in dollars covers")
    statuses: RefusalStatuses = Field(default=RefusalStatuses(), description="statuses of refusals")
    denials: dict[Name, Denial] = Field(
        default={},
        description="answers that a limit may choose by name, beside the built-in `rate_limiter` and `token_limit`",
        max_length=64,
    )
    denial: RefusalDenials = Field(default=RefusalDenials(), description="answers of limits that choose none")
    each_max: Bound = Field(default=1_000_000, description="values that limits with `each` count at once")
    default_output_tokens: Bound = Field(default=4_096, description="output cap aimed at for callers that set none")
    min_answer_tokens: Bound = Field(default=256, description="smallest output cap that is given to them")
    stream_hold: Literal["whole", "steps"] = Field(
        default="whole",
        description="a stream holds all that it may cost, or `default_output_tokens` at a time while it runs",
    )
    brake: Brake = Field(default=Brake(), description="keys that spend unlike themselves")
    fail_open: Amount = Field(
        default="0",
        description="dollars that may still be spent while the books do not follow (`journal.backlog_max`); 0 refuses",
    )


class Unknowns(Section):
    """What happens to calls whose outcome was not learnt, or not yet."""

    ttl: Duration = Field(default=86_400_000, description="how long their money stays held")
    pending_ttl: Duration = Field(
        default=8 * 86_400_000,
        description="how long the money of work that a provider accepted, such as a batch, stays held at most",
    )
    policy: Literal["operator_pays", "charge_estimate", "charge_max"] = Field(
        default="charge_estimate", description="how they end then"
    )


class AlertChannel(Section):
    """Where alerts go: an address that apprise understands, or a webhook that is signed."""

    name: Name = Field(description="how messages and the API call it")
    url: Secret = Field(
        description="https address of a webhook, or an address of apprise such as mailto:// or slack://; as ${NAME} or "
        "file:PATH where it holds a secret"
    )
    secret: Secret | None = Field(
        default=None, description="signs what a webhook is sent, at least 24 characters; as ${NAME} or file:PATH"
    )
    alerts: tuple[Literal[tuple(ALERT_KINDS)], ...] | None = Field(  # type: ignore[valid-type]
        default=None, description="kinds of alerts that go there; default: all", min_length=1, max_length=32
    )


class UnknownsAlert(Section):
    """When calls whose outcome is not known are worth an alert."""

    count: Bound = Field(default=10, description="more calls than that")
    amount: Amount = Field(default="10", description="or more dollars held by them than that")


class AzureBudgetRule(Section):
    """What happens when an alert of Azure's tells that a share of a budget is spent."""

    at_percent: Annotated[Whole, Field(ge=1, le=1_000)] = Field(
        default=100, description="percent of the budget from which on it happens"
    )
    do: Literal["notify", "throttle", "stop"] = Field(
        default="stop", description="tell people only, let few calls a minute through, or none"
    )
    basis: Literal["actual", "forecast"] = Field(
        default="actual", description="what is spent, or what Azure expects to be spent by the end of the period"
    )
    requests_per_minute: Bound = Field(default=10, description="with do: throttle, calls a minute of the product")


class AzureBudget(Section):
    """Alerts of Azure's budgets that come in at `/webhooks/azure-budget`; a budget acts on the product of its name."""

    secret: Secret = Field(
        description="what Azure sends as `x-faregate-secret` or `?code=`, at least 24 characters; as ${NAME} or "
        "file:PATH"
    )
    rules: tuple[AzureBudgetRule, ...] = Field(
        default=(AzureBudgetRule(),), description="what happens at which share; the gravest counts", max_length=16
    )
    lift: Literal["period", "manual"] = Field(
        default="period", description="whether a stop ends with the budget's period, or when somebody lifts it"
    )
    period: Literal["month", "quarter", "year"] = Field(
        default="month", description="how long a period of the budgets is, from their start date on"
    )


class Alerts(Section):
    """What people are told of, and where."""

    channels: tuple[AlertChannel, ...] = Field(
        default=(), description="where alerts go, beside what was made through the API", max_length=64
    )
    thresholds: tuple[Annotated[Whole, Field(ge=1, le=1_000)], ...] = Field(
        default=(80, 100),
        description="percent spent at which limits in dollars without actions of their own are told of; [] for none",
        max_length=16,
    )
    low_balance: Annotated[Whole, Field(ge=0, le=99)] = Field(
        default=10, description="percent left of a lifetime limit below which it is told of; 0 for never"
    )
    low_balance_amount: Amount = Field(
        default="0", description="dollars left of a lifetime limit below which it is told of, too; 0 for never"
    )
    unknowns: UnknownsAlert = Field(default=UnknownsAlert(), description="calls whose outcome is not known")
    keep: Duration = Field(default=90 * 86_400_000, description="how long alerts stay in the books")
    allow_private: Flag = Field(default=False, description="allow channels at private and loopback addresses")
    ca_file: Text = Field(
        default="", description="PEM file with the authorities that webhooks may show instead of the system's"
    )
    azure_budget: AzureBudget | None = Field(
        default=None, description="alerts of Azure's budgets that come in; without it that door is shut"
    )


class Journal(Section):
    """The journal's files."""

    keep: Duration = Field(default=86_400_000, description="how long segments stay after they are in the books")
    backlog_max: Size = Field(default=1024**3, description="bytes not yet in the books at which admission stops")
    segment: Size = Field(default=32 * 1024**2, description="bytes of one file, taken beforehand", ge=1024**2)
    sync_interval: Duration = Field(default=20, description="how often it is synced to disk", le=10_000)


class Logging(Section):
    """What the processes say on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least important thing to say"
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, else json"
    )


def _storage(value: object) -> object:
    if isinstance(value, str) and value.startswith("postgres"):
        raise wrong("CFG-RANGE", "postgres is not available yet", "sqlite")
    return value


class Config(Section):
    """The whole of ``faregate.yaml``."""

    gateway: Gateway = Field(Gateway(), description="the data plane")
    console: Console = Field(Console(), description="the admin API")
    storage: Annotated[Literal["sqlite"], BeforeValidator(_storage)] = Field(
        default="sqlite", description="engine of the books"
    )
    durability: Literal["process", "power"] = Field(
        default="process", description="process survives any crash; power also waits for the disk"
    )
    providers: tuple[Provider, ...] = Field(
        (), description="accounts at model services; there may be none where there are services", max_length=256
    )
    deployments: tuple[Deployment, ...] = Field((), description="places to send calls to", max_length=2_000)
    pools: tuple[Pool, ...] = Field((), description="deployments that stand in for each other", max_length=256)
    breaker: Breaker = Field(Breaker(), description="when a deployment rests that is in no pool")
    retry: Retry | None = Field(
        default=None,
        description="when a failed call is tried again; default: once at each other place of its model",
    )
    models: tuple[Model, ...] = Field((), description="names that callers may use", max_length=5_000)
    services: tuple[Service, ...] = Field((), description="HTTP services behind the gate", max_length=256)
    stages: dict[StrictStr, Stage] = Field(default={}, description="providers of each stage", max_length=64)
    pricing: Pricing = Field(Pricing(), description="what calls cost")
    capacities: tuple[Capacity, ...] = Field((), description="fixed commitments", max_length=256)
    limits: Limits = Field(Limits(), description="defaults of limits")
    unknowns: Unknowns = Field(Unknowns(), description="calls whose outcome was not learnt")
    alerts: Alerts = Field(Alerts(), description="what people are told of, and where")
    content: Content = Field(Content(), description="what is kept of prompts and answers")
    cache: Cache = Field(Cache(), description="answers that are given again to the same call")
    identity: Identity = Field(Identity(), description="callers without keys, and whom callers act for")
    journal: Journal = Field(Journal(), description="the journal's files")
    logging: Logging = Field(Logging(), description="what is logged")
