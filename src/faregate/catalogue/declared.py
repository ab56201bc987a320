"""What an installation declares about models, free of how it was written down.

The configuration and the books fill these in; ``compile`` turns them into the catalogue that the gate works from.
"""

from typing import NamedTuple

from faregate.control import Mirror, Provider, RoutedPool, Selection
from faregate.core.metering.service import ServiceTerms
from faregate.core.pricing.card import Rate
from faregate.core.pricing.charging import ChargeRule
from faregate.core.routing.health import DEFAULT_BREAKER, BreakerRule
from faregate.core.routing.retry import RetryRule
from faregate.core.tokens import Identity


class DeclaredDeployment(NamedTuple):
    """One place to send to, as declared; ``model`` is what it is priced as and defaults to ``upstream_model``."""

    name: str
    provider: str
    #: What the provider calls it: on Azure the segment of the path, elsewhere the model in the body.
    upstream_model: str
    model: str = ""
    #: 0 takes what the catalogue knows of the model.
    output_tokens_max: int = 0
    #: Where it is processed: ``global``, ``data_zone`` or ``regional``.
    region: str = "global"


class DeclaredModel(NamedTuple):
    """A name that callers may use, and where it goes: pools, deployments or ``{provider}/{model}``, in order."""

    name: str
    to: tuple[str, ...]
    #: 0 takes what the catalogue knows.
    output_tokens_max: int = 0
    context_tokens_max: int = 0
    #: Where it goes for some callers.
    selected: tuple[Selection, ...] = ()
    timeout_ms: int = 0
    #: A deployment or ``{provider}/{model}`` that a share of its calls is copied to.
    mirror: Mirror | None = None


class DeclaredService(NamedTuple):
    """An HTTP service behind the gate: ``provider`` says where it is and has its name."""

    provider: Provider
    terms: ServiceTerms
    rates: tuple[Rate, ...]
    #: Where its prices stand.
    source: str = "services in the configuration"


class PriceRow(NamedTuple):
    """One price set by the operator: ``price_pico`` pico-dollars for every ``per`` units.

    It replaces the rate of that unit in every tier while it is in force. The model ``*`` holds the provider's fallback
    prices, used for models without a price where the installation allows it.
    """

    provider: str
    model: str
    unit: str
    per: int
    price_pico: int
    #: Nanoseconds since 1970 UTC; 0 means "always" at the start and "open" at the end.
    effective_from: int = 0
    effective_to: int = 0
    source: str = "override"
    #: Which of the unit's it prices; empty for all that have no price of their own.
    variant: str = ""
    #: One of ``SERVICE_TIERS`` of the rate card, and where it is processed; empty for the standard one, and for any.
    service_tier: str = ""
    region: str = ""
    #: ``imported`` prices lie above the bundled ones and below every ``override``, whenever these began.
    layer: str = "override"
    #: It holds for calls with more input tokens than that.
    above_input_tokens: int = 0


class Declared(NamedTuple):
    """Everything declared that a catalogue is compiled from."""

    providers: tuple[Provider, ...] = ()
    deployments: tuple[DeclaredDeployment, ...] = ()
    models: tuple[DeclaredModel, ...] = ()
    overrides: tuple[PriceRow, ...] = ()
    #: ``(stage, providers it may use)``; a stage that is not named may use all.
    stages: tuple[tuple[str, tuple[str, ...]], ...] = ()
    projects: tuple[str, ...] = ()
    require_limit: bool = False
    #: ``refuse``, ``fallback`` or ``ceiling``.
    unknown_price: str = "refuse"
    #: What a model without a price costs at most, for ``ceiling``; rows without a provider hold for all.
    ceiling: tuple[PriceRow, ...] = ()
    #: In order: the first that matches a call holds.
    charges: tuple[ChargeRule, ...] = ()
    services: tuple[DeclaredService, ...] = ()
    #: Stages whose callers need a money limit though others do not.
    require_limit_stages: tuple[str, ...] = ()
    #: ``(stage, word)`` of stages that say whether their calls use the response cache.
    stage_caching: tuple[tuple[str, str], ...] = ()
    #: Callers without keys, and whom callers act for.
    identity: Identity | None = None
    pools: tuple[RoutedPool, ...] = ()
    #: Of deployments in no pool.
    breaker: BreakerRule = DEFAULT_BREAKER
    #: When calls are tried again; ``None`` tries each place once.
    retry: RetryRule | None = None
