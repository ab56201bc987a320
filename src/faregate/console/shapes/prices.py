"""Prices, capacities and corrections as the API shows them."""

from typing import Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from faregate.console.shapes.values import Applied, Count, Cursor, Difference, Dollars, Exact, Id, Source, Time


class PricePlace(TypedDict):
    """What a price is the price of."""

    provider: str
    model: str
    unit: str
    variant: str | None
    service_tier: str | None
    region: str | None
    above_input_tokens: Count
    per: Count
    price: Dollars


class OwnPrice(PricePlace):
    """A price that was set or imported."""

    id: Id
    effective_from: Time | None
    effective_to: Time | None
    layer: Literal["imported", "override"]
    source: str
    applied: NotRequired[Applied]


class FarOffPrice(OwnPrice):
    """An own price, and whether it is far from the bundled one."""

    far_off: bool


class OwnPrices(TypedDict):
    """Own prices that hold or are to come."""

    data: list[FarOffPrice]
    next_cursor: Cursor


class Price(PricePlace):
    """A price in force; one without an id was bundled."""

    id: str | None
    effective_from: Time | None
    effective_to: Time | None
    layer: Literal["bundled", "imported", "override", "ceiling"]
    source: str
    version: str


class Prices(TypedDict):
    """All prices in force."""

    data: list[Price]
    next_cursor: Cursor


class PriceChange(PricePlace):
    """What a file changes."""

    change: Literal["new", "confirmed", "changed"]
    before: Dollars | None
    before_per: int | None
    effective_from: Time | None
    outlier: bool
    where: str


class SkippedPrice(TypedDict):
    """An entry of a file that was left out."""

    where: str
    problem: str


class Import(TypedDict):
    """What a price file came to."""

    file: str
    format: str
    sha256: str
    dry_run: bool
    prices: Count
    same: Count
    written: Count
    changes: list[PriceChange]
    outliers: Count
    skipped: list[SkippedPrice]
    skipped_count: Count
    applied: NotRequired[Applied]


class ListChange(TypedDict):
    """A price of a list that changed since the last look."""

    model: str
    what: str
    before: str | None
    after: str | None


class ListNews(TypedDict):
    """What a list says now beside what it said."""

    list: str
    edition: str
    last_edition: str | None
    last_looked_at: Time | None
    models: Count
    added: list[str]
    removed: list[str]
    changed: list[ListChange]
    changed_count: Count


_Sync = TypedDict("_Sync", {"import": NotRequired[Import]})


class Sync(_Sync):
    """What the lists say that they did not say at the last look."""

    lists: list[ListNews]
    applied: NotRequired[Applied]


class CostLine(TypedDict):
    """One line of a cost."""

    unit: str
    variant: str | None
    priced_as: str
    quantity: int
    price: Dollars
    per: Count
    amount: Exact


class Costed(TypedDict):
    """What a usage costs."""

    above_input_tokens: Count
    lines: list[CostLine]
    sum: Exact
    cost: Dollars
    unpriced: str | None


class ExplainedRate(TypedDict):
    """A rate and where it comes from."""

    unit: str
    variant: str | None
    above_input_tokens: Count
    per: Count
    price: Dollars
    layer: str
    source: str | None


class ExplainedCard(TypedDict):
    """A rate card and where its rates come from."""

    version: str
    service_tier: str | None
    region: str | None
    effective_from: Time | None
    effective_to: Time | None
    source: str | None
    notes: list[str]
    rates: list[ExplainedRate]
    usage: Costed | None


class ExplainedPlace(TypedDict):
    """What a model costs at one provider, or why it has no price there."""

    provider: str
    model: str
    cards: list[ExplainedCard]
    reasons: list[str]


class PriceExplanation(TypedDict):
    """What a model costs at a moment."""

    model: str
    at: Time | None
    data: list[ExplainedPlace]


class Capacity(TypedDict):
    """A fixed commitment; one of the configuration file has no id."""

    id: str | None
    name: str
    provider: str
    deployments: list[str]
    commitment: Dollars
    units: Count
    tokens_per_second: Count
    timezone: str
    split: Literal["tokens", "cost"]
    idle: Literal["show", "spread", "operator"]
    source: Source


class Capacities(TypedDict):
    """All fixed capacities."""

    data: list[Capacity]
    next_cursor: Cursor


_Month = TypedDict("_Month", {"from": Time | None})


class Month(_Month):
    """A month of a capacity."""

    capacity: str
    to: Time | None
    complete: bool
    commitment: Dollars


class Plan(Month):
    """How much of a capacity a month used, and whether paying by the token would have been cheaper."""

    used_tokens: Count
    capacity_tokens: Count
    average_tokens_per_second: float
    peak_tokens_per_second: float
    utilisation_percent: float | None
    peak_utilisation_percent: float | None
    pay_as_you_go: Dollars
    pay_as_you_go_percent: float | None
    break_even_tokens: int | None
    break_even_percent: float | None
    worth_it: bool | None


class PlannedCapacity(Capacity):
    """A capacity with its plan."""

    plan: Plan


@with_config(ConfigDict(extra="allow"))
class Share(TypedDict):
    """A part of a month's commitment; its dimensions are members of their own names."""

    requests: Count
    tokens: Count
    pay_as_you_go: Dollars
    share: Dollars


class Split(Month):
    """A month's commitment by use."""

    split: Literal["tokens", "cost"]
    idle_rule: Literal["show", "spread", "operator"]
    used_tokens: Count
    capacity_tokens: Count
    data: list[Share]
    idle: Dollars
    operator: Dollars


class Sums(TypedDict):
    """What was booked, and what it would be."""

    requests: Count
    booked_cost: Difference
    new_cost: Difference
    cost_difference: Difference
    booked_charge: Difference
    new_charge: Difference
    charge_difference: Difference


@with_config(ConfigDict(extra="allow"))
class GroupSums(Sums):
    """The same of one model, team or day; the member is called as that."""


class Move(TypedDict):
    """Money that a correction moves between two accounts."""

    debited: str
    credited: str
    amount: Difference


class Fixed(TypedDict):
    """The same calls by a fixed capacity."""

    capacity: str
    commitment: Dollars
    cost_difference: Difference


_From = TypedDict("_From", {"from": Time | None})


class Repricing(_From):
    """A period at other prices. Of a run that was booked before, what its record holds."""

    to: Time | None
    committed: bool
    run: str | None
    total: Sums
    as_booked: dict[str, int]
    corrected: Count
    by: NotRequired[dict[str, list[GroupSums]]]
    price_versions: NotRequired[dict[str, int]]
    moves: NotRequired[list[Move]]
    fixed: NotRequired[Fixed]
    digest: NotRequired[str]
    repeated: NotRequired[bool]
    kind: NotRequired[str]
    reason: NotRequired[str]
    at: NotRequired[Time]
    cost_difference: NotRequired[Difference]
    charge_difference: NotRequired[Difference]


class Adjustment(_From):
    """A run that corrected what was booked."""

    run: Id
    kind: Literal["reprice", "true_up"]
    reason: str
    to: Time | None
    at: Time
    corrected: Count
    cost_difference: Difference
    charge_difference: Difference
    digest: str


class Adjustments(TypedDict):
    """A page of runs."""

    data: list[Adjustment]
    next_cursor: Cursor


class AdjustmentLine(TypedDict):
    """What a run corrected of one record."""

    request: str
    cost_difference: Difference
    charge_difference: Difference
    price_version: str


class AdjustmentDetail(Adjustment):
    """A run with its lines."""

    lines: list[AdjustmentLine]
