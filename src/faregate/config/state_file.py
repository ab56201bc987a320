"""A state file: what lives in the books, as people write it to keep it in version control. ``apply`` brings it about.

It is read as strictly as ``faregate.yaml``, and holds no secret: a key is its name, and what is secret of a channel is
``${NAME}`` or ``file:PATH``. What is not said of a thing is as usual; a list that is left out is left alone.
"""

import unicodedata
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, WithJsonSchema, model_validator

from faregate.config.findings import Invalid, quoted
from faregate.config.pools import Instead, Pool
from faregate.config.read import parse, read_bytes
from faregate.config.section import Section
from faregate.config.services import PlainService
from faregate.config.tree import Environment, PlainNumber, Tree
from faregate.config.validated import published_schema, validated
from faregate.config.values import Duration, Flag, Name, Price, Secret, Text, Url, Whole, wrong
from faregate.core import money
from faregate.core.access import ROLES
from faregate.core.alerts import KINDS as ALERT_KINDS
from faregate.core.limits.kinds import KINDS as LIMIT_KINDS
from faregate.core.limits.kinds import MODES, check_window

#: A hundred thousand keys with some limits; beyond it an installation is kept by a program of its owner's.
STATE_BYTES_MAX = 32 * 1024 * 1024
STATE_NODES_MAX = 1_000_000

DEFAULT_ORGANIZATION = "default"
UNLIMITED = "unlimited"

#: As long as the admin API takes them.
NAME_CHARACTERS_MAX = 128
SENTENCE_CHARACTERS_MAX = 256


def _payer_name(value: str) -> str:
    if not value.isprintable() or value != value.strip() or not 0 < len(value) <= NAME_CHARACTERS_MAX:
        raise wrong("CFG-RANGE", f"{quoted(value)} is not a name", f"1 to {NAME_CHARACTERS_MAX} printable characters")
    # As the books have it; in another form it would be another one at each look.
    return unicodedata.normalize("NFC", value)


def _sentence(value: str) -> str:
    if not value.isprintable() or value != value.strip() or len(value) > SENTENCE_CHARACTERS_MAX:
        raise wrong("CFG-RANGE", "is not one line of text", f"at most {SENTENCE_CHARACTERS_MAX} printable characters")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    # A folder of the zone data, a name with a NUL or one that is too long each fail in a way of their own.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise wrong("CFG-RANGE", f"{quoted(value)} is not a time zone", "an IANA name such as Europe/Berlin") from None
    return value


def _moment(value: object) -> object:
    """A time as the admin API shows it."""
    if not isinstance(value, str):
        raise wrong("CFG-TYPE", "this is not a time", "RFC 3339, e.g. 2026-12-01T00:00:00Z")
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise wrong("CFG-RANGE", f"{quoted(value)} is not a time", "RFC 3339, e.g. 2026-12-01T00:00:00Z") from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.isoformat().replace("+00:00", "Z")


def _counted(value: object) -> object:
    """An amount: dollars are text, however they were written, and all else is a whole number."""
    if isinstance(value, PlainNumber):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise wrong("CFG-TYPE", "this is not an amount", 'dollars as text such as "0.10", or a whole number')
    return value


_AMOUNT_SCHEMA: dict[str, Any] = {"type": ["string", "number"], "examples": ["250", 20000]}

PayerName = Annotated[Text, AfterValidator(_payer_name)]
Sentence = Annotated[Text, AfterValidator(_sentence)]
Moment = Annotated[StrictStr, BeforeValidator(_moment)]
AmountOf = Annotated[int | str, BeforeValidator(_counted), WithJsonSchema(_AMOUNT_SCHEMA)]
Zone = Annotated[Text, AfterValidator(_zone)]
State = Literal["active", "disabled"]
Names = Annotated[tuple[PayerName, ...], Field(max_length=200)]


class _Payer(Section):
    name: PayerName = Field(description="what calls are charged to")
    title: Sentence | None = Field(default=None, description="what people call it")
    contact: Sentence | None = Field(default=None, description="whom to ask about it")
    state: State | None = Field(default=None, description="disabled stops its keys; not given: as it is")


class OrganizationState(_Payer):
    """An organization."""


class TeamState(_Payer):
    """A team."""

    organization: PayerName = Field(default=DEFAULT_ORGANIZATION, description="of which organization")


class _OfTeam(TeamState):
    team: PayerName | None = Field(default=None, description="of which team")


class ProjectState(_OfTeam):
    """A project."""

    cache: Literal["on", "off"] | None = Field(
        default=None, description="whether its calls use the response cache; default: it says nothing"
    )


class _Restricting(Section):
    models: Names | None = Field(default=None, description="models that its keys may use; default: all")
    operations: Names | None = Field(default=None, description="operations and services; default: all")
    paths: Names | None = Field(default=None, description="beginnings of paths; default: all")
    networks: Names | None = Field(default=None, description="networks its calls may come from; default: all")
    priorities: Names | None = Field(
        default=None, description="ranges of `Priority`, such as 101-1000; an empty list for none; default: all"
    )


class UserState(_OfTeam, _Restricting):
    """A user, and what the user's keys are restricted to."""


class StageState(TeamState):
    """A stage."""

    cache: Literal["on", "off"] | None = Field(
        default=None, description="whether its calls use the response cache; default: it says nothing"
    )


class ProductState(TeamState, _Restricting):
    """A product, and what its keys are restricted to."""

    expires_at: Moment | None = Field(default=None, description="when its keys end")
    content: Literal["off", "metadata", "full"] | None = Field(
        default=None, description="what is kept of its calls' contents; default: as the configuration says"
    )


class SubscriptionState(Section):
    """The right of a team or a user to a product's keys."""

    name: PayerName = Field(description="how keys call it")
    organization: PayerName = Field(default=DEFAULT_ORGANIZATION, description="of which organization")
    product: PayerName = Field(description="the product")
    team: PayerName | None = Field(default=None, description="the team that has it")
    user: PayerName | None = Field(default=None, description="the user who has it")
    title: Sentence | None = Field(default=None, description="what people call it")
    contact: Sentence | None = Field(default=None, description="whom to ask about it")
    state: Literal["active", "suspended", "cancelled"] | None = Field(default=None, description="not given: as it is")


class KeyState(Section):
    """A key by its name; its secret is told once, by the `apply` that makes it."""

    name: PayerName = Field(description="what it is for")
    organization: PayerName | None = Field(
        default=None,
        description=f"of which organization; default: {DEFAULT_ORGANIZATION}, of other roles than caller all",
    )
    team: PayerName | None = Field(default=None, description="team that is charged")
    project: PayerName | None = Field(default=None, description="project that is charged")
    user: PayerName | None = Field(default=None, description="user who is charged")
    product: PayerName | None = Field(default=None, description="product that is charged")
    subscription: PayerName | None = Field(default=None, description="subscription by which it has its product")
    stage: PayerName | None = Field(default=None, description="stage of its calls")
    role: Literal[tuple(ROLES)] = Field(default="caller", description="what it opens")  # type: ignore[valid-type]
    state: State | None = Field(default=None, description="not given: as it is")
    models: Names | None = Field(default=None, description="models that it may use; default: all")
    operations: Names | None = Field(default=None, description="operations and services; default: all")
    paths: Names | None = Field(default=None, description="beginnings of paths; default: all")
    networks: Names | None = Field(default=None, description="networks its calls may come from; default: all")
    priorities: Names | None = Field(
        default=None, description="ranges of `Priority`, such as 101-1000; an empty list for none; default: all"
    )
    may_set: tuple[Literal["user", "tags", "run", "project", "stage"], ...] | None = Field(
        default=None, description="what its calls may say about themselves; default: user, tags, run", max_length=5
    )
    content: Literal["off", "metadata", "full"] | None = Field(
        default=None, description="what is kept of its calls' contents; default: as its product says"
    )
    cache: Literal["on", "off"] | None = Field(
        default=None, description="whether its calls use the response cache; default: as its project and stage say"
    )
    expires_at: Moment | None = Field(default=None, description="when it ends")


class KeyName(Section):
    """A key of an organization."""

    name: PayerName = Field(description="its name")
    organization: PayerName | None = Field(default=None, description=f"default: {DEFAULT_ORGANIZATION}")


class RaiseState(Section):
    """Another amount for some time."""

    amount: AmountOf = Field(description="the amount meanwhile")
    from_: Moment = Field(alias="from", description="when it begins")
    until: Moment = Field(description="when it ends")


class ActionState(Section):
    """What happens at a share of the amount."""

    do: Literal["notify", "throttle", "downgrade", "revoke", "stop"] = Field(description="what happens")
    at: Annotated[Whole, Field(ge=1, le=1_000)] = Field(description="percent of the amount")
    on: Literal["actual", "forecast"] = Field(default="actual", description="of what is spent, or will be")
    to: PayerName | None = Field(default=None, description="with downgrade: the model")
    models: Names = Field(default=(), description="with downgrade: the models that are replaced; default: all")
    requests_per_minute: Annotated[Whole, Field(ge=1)] | None = Field(
        default=None, description="with throttle: calls a minute that still pass"
    )


class LimitState(Section):
    """A limit; the same selector, `each`, unit and window are the same limit."""

    select: dict[StrictStr, PayerName | KeyName] = Field(
        default={}, description="whose calls it covers; a key by its name", max_length=8
    )
    each: tuple[PayerName, ...] = Field(default=(), description="counts each value of these apart", max_length=4)
    unit: Literal[tuple(LIMIT_KINDS)] = Field(description="what it counts")  # type: ignore[valid-type]
    amount: AmountOf = Field(description=f"dollars as text, a whole number of other units, or {UNLIMITED}")
    window: Sentence | None = Field(default=None, description="such as month or rolling 24h; none of concurrency")
    timezone: Zone = Field(default="UTC", description="time zone of the window")
    mode: Literal[MODES] = Field(default="hard", description="hard refuses")  # type: ignore[valid-type]
    clamp: Flag = Field(default=False, description="give callers without an output cap one that fits")
    contact: Sentence | None = Field(default=None, description="whom a refusal names")
    algorithm: Literal["smooth"] | None = Field(default=None, description="smooth: no more than the pace allows")
    burst: AmountOf | None = Field(default=None, description="with smooth: what may come at once")
    year_start: Text | None = Field(default=None, description="MM-DD on which the year begins")
    carry_over: AmountOf | None = Field(default=None, description="most of what was left that goes over")
    raises: tuple[RaiseState, ...] = Field(default=(), description="other amounts for some time", max_length=32)
    from_: Moment | None = Field(default=None, alias="from", description="when it begins to hold")
    until: Moment | None = Field(default=None, description="when it ends")
    estimate: Flag = Field(default=True, description="refuse what may not fit, not only what does not")
    actions: tuple[ActionState, ...] = Field(default=(), description="what happens at shares", max_length=8)
    denial: PayerName | None = Field(default=None, description="name of the answer that a refused caller gets")
    except_: Annotated[tuple[dict[StrictStr, PayerName | KeyName], ...], Field(max_length=1_000)] = Field(
        default=(), alias="except", description="with each: whom it leaves to other limits; a key by its name"
    )

    @model_validator(mode="after")
    def _window_fits(self) -> "LimitState":
        for fault in check_window(self.unit, self.window or ""):
            raise wrong(
                "CFG-RANGE", f"its window {quoted(self.window or '')}: {fault.message}", "such as month or rolling 24h"
            )
        return self

    @model_validator(mode="after")
    def _amounts_fit(self) -> "LimitState":
        for amount in (self.amount, self.burst, self.carry_over, *(each.amount for each in self.raises)):
            _check_amount(self.unit, amount, unlimited=amount is self.amount)
        return self


def _check_amount(unit: str, amount: int | str | None, *, unlimited: bool) -> None:
    if amount is None or (unlimited and amount == UNLIMITED):
        return
    if unit == "usd":
        try:
            money.nanos(str(amount))
        except ValueError as error:
            expected = 'dollars as decimal text with at most 9 decimals, e.g. "0.10"'
            raise wrong("CFG-RANGE", f"its amount: {error}", expected) from None
    elif not isinstance(amount, int):
        raise wrong("CFG-TYPE", f"its amount {quoted(amount)} is not a whole number of {unit}", "such as 20000")
    elif amount < 0:
        raise wrong("CFG-RANGE", "its amount is negative", "0 or more")


class PriceState(Section):
    """An own price."""

    provider: PayerName = Field(description="name of a provider")
    model: PayerName = Field(description="the model")
    unit: Text = Field(description="what it prices")
    per: Annotated[Whole, Field(ge=1, le=1_000_000_000)] = Field(default=1_000_000, description="for how many")
    price: Price = Field(description="dollars")
    variant: Text = Field(default="", description="which of the unit's")
    service_tier: Text = Field(default="", description="of which service tier; default: the standard one")
    region: Text = Field(default="", description="where it is processed; default: anywhere")
    above_input_tokens: Annotated[Whole, Field(ge=0)] = Field(
        default=0, description="for calls with more input than that"
    )
    effective_from: Moment | None = Field(default=None, description="when it begins, where that is to come")
    confirm_price: Flag = Field(default=False, description="it is meant, however far from the bundled one")


class TimeoutsState(Section):
    """How long to wait for a provider."""

    connect: Duration = Field(default=5_000, description="for its connection")
    first_byte: Duration = Field(default=60_000, description="for the first byte of its answer")
    idle: Duration = Field(default=60_000, description="between two pieces of its answer")
    total: Duration = Field(default=600_000, description="for its whole answer")


class ProviderState(Section):
    """A provider that was made through the API; those of faregate.yaml stand there."""

    name: Name = Field(description="how deployments, prices and reports call it")
    kind: Literal["openai", "azure_openai", "anthropic", "gemini"] = Field(description="its wire format")
    base_url: Url | None = Field(default=None, description="where its API starts")
    api_key: Secret | None = Field(default=None, description="its credential as ${NAME} or file:PATH")
    api_version: Text = Field(default="", description="Azure's api-version, quoted")
    client_gone: Literal["drain", "estimate", "no_bill"] | None = Field(
        default=None, description="a call whose client went away"
    )
    stream_usage: Flag = Field(default=True, description="ask for the usage of streams")
    lookup: Text = Field(default="", description="path that answers what became of a request, with {id} for it")
    timeouts: TimeoutsState = Field(default=TimeoutsState(), description="how long to wait for it")
    connections_max: Annotated[Whole, Field(ge=1, le=100_000)] = Field(default=2_000, description="connections at once")
    allow_http: Flag = Field(default=False, description="allow plain http")
    allow_private: Flag = Field(default=False, description="allow a private address")
    state: State | None = Field(default=None, description="not given: as it is")


class ServiceState(PlainService):
    """An HTTP service behind the gate that was made through the API; those of faregate.yaml stand there."""

    state: State | None = Field(default=None, description="not given: as it is")


class DeploymentState(Section):
    """A place to send calls to that was made through the API."""

    name: Name = Field(description="how models call it")
    provider: Name = Field(description="name of a provider")
    deployment: PayerName | None = Field(default=None, description="what the provider calls it; default: the model")
    model: PayerName = Field(description="the model it is, and is priced as")
    max_output_tokens: Annotated[Whole, Field(ge=1)] | None = Field(default=None, description="most output tokens")
    region: Literal["global", "data_zone", "regional"] = Field(default="global", description="where it is processed")
    state: State | None = Field(default=None, description="not given: as it is")


class ModelState(Section):
    """A name that callers may use, made through the API."""

    name: PayerName = Field(description="what callers write as model")
    to: Annotated[tuple[PayerName, ...], Field(min_length=1, max_length=64)] = Field(
        description="pools, deployments, provider/model or other models, in order"
    )
    instead: Instead = Field(default=(), description="where it leads for some callers; the first that fits one counts")
    max_output_tokens: Annotated[Whole, Field(ge=1)] | None = Field(default=None, description="most output tokens")
    max_context_tokens: Annotated[Whole, Field(ge=1)] | None = Field(default=None, description="context window")


class WebhookState(Section):
    """A channel for alerts; where it leads is a secret."""

    name: PayerName = Field(description="how messages call it")
    url: Secret | None = Field(default=None, description="its address as ${NAME} or file:PATH; wanted to make it")
    secret: Secret | None = Field(default=None, description="signs what a webhook is sent; default: one is made")
    kind: Literal["webhook", "apprise"] | None = Field(default=None, description="default: by its address")
    alerts: tuple[Literal[tuple(ALERT_KINDS)], ...] | None = Field(  # type: ignore[valid-type]
        default=None, description="kinds that go there; default: all", min_length=1, max_length=len(ALERT_KINDS)
    )
    state: State | None = Field(default=None, description="not given: as it is")


class StateFile(Section):
    """The whole of a state file."""

    organizations: tuple[OrganizationState, ...] = Field((), description="organizations")
    teams: tuple[TeamState, ...] = Field((), description="teams of organizations")
    projects: tuple[ProjectState, ...] = Field((), description="projects")
    users: tuple[UserState, ...] = Field((), description="users")
    products: tuple[ProductState, ...] = Field((), description="products")
    stages: tuple[StageState, ...] = Field((), description="stages")
    subscriptions: tuple[SubscriptionState, ...] = Field((), description="subscriptions of products")
    keys: tuple[KeyState, ...] = Field((), description="keys, without their secrets")
    limits: tuple[LimitState, ...] = Field((), description="limits")
    prices: tuple[PriceState, ...] = Field((), description="own prices")
    providers: tuple[ProviderState, ...] = Field((), description="providers that were made through the API")
    deployments: tuple[DeploymentState, ...] = Field((), description="deployments that were made through the API")
    pools: tuple[Pool, ...] = Field((), description="pools that were made through the API")
    models: tuple[ModelState, ...] = Field((), description="names of models that were made through the API")
    services: tuple[ServiceState, ...] = Field((), description="services that were made through the API")
    webhooks: tuple[WebhookState, ...] = Field((), description="channels for alerts")


class ReadState(NamedTuple):
    """A state file that can be used, and where each part of it stands."""

    state: StateFile
    tree: Tree


def load_state(file: FilePath, environment: Environment) -> ReadState:
    """Read and check a state file.

    Raises:
        Invalid: every reason why it cannot be used, in the order of the file.
    """
    content, _ = read_bytes(file, STATE_BYTES_MAX)
    return read_state(content, str(file), environment, file.absolute().parent)


def read_state(content: bytes, source: str, environment: Environment, folder: FilePath) -> ReadState:
    """As ``load_state``, for content that was read already.

    Raises:
        Invalid: every reason why it cannot be used.
    """
    tree, findings = parse(content, source, environment, folder, STATE_NODES_MAX)
    state = validated(StateFile, tree, findings)
    if findings:
        raise Invalid(findings)
    return ReadState(state, tree)


def state_schema_json() -> dict[str, Any]:
    """The JSON Schema of a state file, for editors."""
    return published_schema(StateFile, "Faregate state file")
