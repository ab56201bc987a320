"""Turns what is declared and what we know into the catalogue that the gate works from.

All problems are collected, none raises: what is wrong is left out, and the rest still works. The catalogue says where a
name goes and what it costs; whether a caller may go there is decided elsewhere.

Names: a declared deployment answers to its name, to what the provider calls it (an Azure path names that) and to its
model; a provider of kind openai, anthropic or gemini also offers each of its priced models as ``{provider}/{model}``.
``models`` come first; for any other name the provider declared first wins, in each stage among those it may use.
"""

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

import msgspec

from faregate.catalogue.aliases import price_names
from faregate.catalogue.bundled import LeftOut, ListPrice, Stretch
from faregate.catalogue.corrections import known_models, known_price
from faregate.catalogue.declared import Declared, DeclaredDeployment, DeclaredModel, PriceRow
from faregate.catalogue.maximums import cap_field_of, facts_of
from faregate.catalogue.model_facts import EMBEDDINGS, OPERATIONS, RERANK, WITHOUT_MODEL, ModelFacts, priced_operations
from faregate.catalogue.services import deployment_of
from faregate.catalogue.standins import ceiling_cards, fallback_cards
from faregate.catalogue.timeline import GLOBAL, all_cards, card
from faregate.control import Catalogue, Deployment, Mirror, Provider, Route, RoutedPool, Selection
from faregate.core.pricing.card import PRICED_UNITS, SERVICE_TIERS, Rate, RateCard, Tier
from faregate.core.pricing.cost import card_is_priced
from faregate.core.pricing.listing import LAYERS

#: Kinds that take any model by its name, so that no deployment needs declaring.
_OFFERING: Final = ("openai", "anthropic", "gemini")

_OPERATION_NAMES: Final = frozenset(name for names in (*OPERATIONS.values(), *WITHOUT_MODEL.values()) for name in names)

#: The model name of fallback prices.
ANY_MODEL: Final = "*"

#: What storing, and looking at what is stored, costs: somebody wrote it down.
_FREE: Final = Stretch(0, 0, (Tier(0, (Rate("requests", 0, 1),)),))
_FREE_SOURCE: Final = "free: storing files, listing and looking are not billed"


class CatalogueProblem(NamedTuple):
    """Something declared that cannot work as written.

    ``serious`` is false where it works otherwise than one may expect, such as at a fallback price.
    """

    where: str
    message: str
    serious: bool = True


class Compiled(NamedTuple):
    """The catalogue, and what of the declaration could not be used."""

    catalogue: Catalogue
    problems: tuple[CatalogueProblem, ...]


class ListedPrice(NamedTuple):
    """One rate of a catalogue, flat, for showing."""

    provider: str
    model: str
    unit: str
    per: int
    price_pico: int
    above_input_tokens: int
    effective_from: int
    effective_to: int
    source: str
    version: str
    variant: str = ""
    service_tier: str = ""
    region: str = ""


def compile_catalogue(declared: Declared) -> Compiled:
    """Compile a declaration. Deterministic: the same declaration gives the same catalogue."""
    work = _Compilation(declared)
    work.take_rows()
    for deployment in declared.deployments:
        work.take_deployment(deployment)
    for pool in declared.pools:
        work.take_pool(pool)
    for model in declared.models:
        work.take_model(model)
    work.offer()
    work.take_services()
    catalogue = Catalogue(
        providers=tuple(work.providers.values()),
        deployments=tuple(work.deployments.values()),
        routes=tuple(
            Route(
                name,
                to,
                work.steps.get(name, ()),
                work.selected.get(name, ()),
                work.timeouts.get(name, 0),
                work.mirrors.get(name),
            )
            for name, to in work.routes.items()
        ),
        stages=work.stages(),
        projects=declared.projects,
        require_limit=declared.require_limit,
        require_limit_stages=declared.require_limit_stages,
        charges=declared.charges,
        identity=declared.identity,
        pools=tuple(work.pools.values()),
        breaker=declared.breaker,
        retry=declared.retry,
        # A stage of the configuration is everybody's.
        caching=tuple(("stage", "", name, word) for name, word in declared.stage_caching),
    )
    return Compiled(catalogue, tuple(work.problems))


def price_rows(catalogue: Catalogue) -> list[ListedPrice]:
    """Every rate of every card of a model, each card once, in the order of its deployments."""
    priced = (deployment for deployment in catalogue.deployments if deployment.model)
    cards = {card.version: card for deployment in priced for card in deployment.cards}
    return [
        ListedPrice(
            card.provider,
            card.model,
            rate.unit,
            rate.per,
            rate.pico,
            tier.above_input_tokens,
            card.effective_from,
            card.effective_to,
            card.source,
            card.version,
            rate.variant,
            card.service_tier,
            card.region,
        )
        for card in cards.values()
        for tier in card.tiers
        for rate in tier.rates
    ]


class _Compilation:
    """The state of one compilation: what has been taken so far, by name."""

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self.problems: list[CatalogueProblem] = []
        self.providers: dict[str, Provider] = {}
        for provider in (*declared.providers, *(service.provider for service in declared.services)):
            if provider.name in self.providers:
                self._problem(f"providers.{provider.name}", "is declared twice; the first one is used")
            self.providers.setdefault(provider.name, provider)
        self.deployments: dict[str, Deployment] = {}
        self.routes: dict[str, tuple[str, ...]] = {}
        self.pools: dict[str, RoutedPool] = {}
        #: Model → the pools and deployments that it goes to, where it goes to a pool; and for some callers.
        self.steps: dict[str, tuple[str, ...]] = {}
        self.selected: dict[str, tuple[Selection, ...]] = {}
        self.timeouts: dict[str, int] = {}
        self.mirrors: dict[str, Mirror] = {}
        #: Names of the deployments that the operator declared, in order.
        self._declared: list[str] = []
        self._rows: dict[tuple[str, str], list[PriceRow]] = {}
        #: Provider and model of what was told of already as offered for embeddings only.
        self._only_embeds: set[tuple[str, str]] = set()

    def _problem(self, where: str, message: str, *, serious: bool = True) -> None:
        self.problems.append(CatalogueProblem(where, message, serious))

    def take_rows(self) -> None:
        """Group the operator's prices by provider and model; those that cannot be used are named."""
        for row in self.declared.overrides:
            where = f"prices.{row.provider}/{row.model}.{row.unit}"
            if row.provider not in self.providers:
                self._problem(where, f"provider {row.provider!r} is not declared; {_choices(self.providers)}")
            elif row.unit not in PRICED_UNITS:
                self._problem(where, f"{row.unit!r} is not a unit that can be priced; {_choices(PRICED_UNITS)}")
            elif row.service_tier not in SERVICE_TIERS:
                self._problem(where, f"{row.service_tier!r} is no service tier; {_choices(SERVICE_TIERS[1:])}")
            elif row.layer not in LAYERS:
                self._problem(where, f"{row.layer!r} is no layer of prices; {_choices(LAYERS)}")
            elif row.per < 1 or row.price_pico < 0:
                self._problem(where, "a price is not negative and stands for at least one unit")
            elif row.effective_to and row.effective_to <= row.effective_from:
                self._problem(where, "it ends before it starts")
            else:
                self._rows.setdefault((row.provider, row.model), []).append(row)

    def take_deployment(self, wanted: DeclaredDeployment) -> None:
        """Make a declared deployment."""
        where = f"deployments.{wanted.name}"
        if wanted.name in self.deployments:
            self._problem(where, "is declared twice; the first one is used")
        elif wanted.provider not in self.providers:
            self._problem(where, f"provider {wanted.provider!r} is not declared; {_choices(self.providers)}")
        else:
            model = wanted.model or wanted.upstream_model
            made = self._make(wanted.name, wanted.provider, wanted.upstream_model, model, where, region=wanted.region)
            if wanted.output_tokens_max:
                made = msgspec.structs.replace(made, output_tokens_max=wanted.output_tokens_max)
            self.deployments[wanted.name] = made
            self._declared.append(wanted.name)

    def take_pool(self, wanted: RoutedPool) -> None:
        """Make a pool of those of its deployments that exist."""
        rule, where = wanted.rule, f"pools.{wanted.rule.name}"
        if rule.name in self.pools or rule.name in self.deployments:
            self._problem(where, "has a name that is taken; the first one is used")
            return
        members = tuple(
            member._replace(deployment=name)
            for member in rule.members
            if (name := self._resolve(member.deployment, where))
        )
        ranges = tuple(
            each._replace(use=tuple(name for entry in each.use if (name := self._resolve(entry, where))))
            for each in rule.ranges
        )
        if not members:
            self._problem(where, "leads nowhere; name a deployment or {provider}/{model} in `use`")
            return
        made = rule._replace(members=members, ranges=ranges)
        self.pools[rule.name] = msgspec.structs.replace(wanted, rule=made)

    def _steps(self, entries: Collection[str], where: str) -> tuple[str, ...]:
        """The pools and deployments that entries name, each once."""
        found = (entry if entry in self.pools else self._resolve(entry, where) for entry in entries)
        return tuple(dict.fromkeys(name for name in found if name))

    def _places(self, steps: Collection[str]) -> tuple[str, ...]:
        """The deployments that steps lead to, each once."""
        places: dict[str, None] = {}
        for step in steps:
            pool = self.pools.get(step)
            if pool is None:
                places[step] = None
            else:
                places |= dict.fromkeys(pool.rule.deployments)
        return tuple(places)

    def take_model(self, wanted: DeclaredModel) -> None:
        """Route a declared name, and give its deployments the maxima declared with it."""
        where = f"models.{wanted.name}"
        if wanted.name in self.routes:
            self._problem(where, "is declared twice; the first one is used")
            return
        steps = self._steps(wanted.to, where)
        selected = tuple(
            Selection(each.who, own) for each in wanted.selected if (own := self._steps(each.steps, where))
        )
        to = self._places((*steps, *(step for each in selected for step in each.steps)))
        if not wanted.to:
            self._problem(where, "leads nowhere; name a deployment or {provider}/{model} in `to`")
        if not to or not steps:
            # Without places of its own nobody may be led to those of a few.
            return
        self.routes[wanted.name] = to
        if steps != to:
            self.steps[wanted.name] = steps
        if selected:
            self.selected[wanted.name] = selected
        self.timeouts[wanted.name] = wanted.timeout_ms
        if wanted.mirror is not None:
            copied_to = self._resolve(wanted.mirror.to, where)
            if copied_to is not None:
                self.mirrors[wanted.name] = wanted.mirror._replace(to=copied_to)
        fixed = {deployment.name for deployment in self.declared.deployments if deployment.output_tokens_max}
        for name in to:
            made = self.deployments[name]
            # Two names may share a deployment; the larger maximum is the one that is safe to hold.
            raised = 0 if name in fixed else self._raised(name, wanted)
            self.deployments[name] = msgspec.structs.replace(
                made,
                output_tokens_max=raised or made.output_tokens_max,
                context_tokens_max=wanted.context_tokens_max or made.context_tokens_max,
            )

    def _raised(self, name: str, wanted: DeclaredModel) -> int:
        """The largest output maximum declared for a deployment by this model and those before it."""
        sharing = (m.output_tokens_max for m in self.declared.models if name in self.routes.get(m.name, ()))
        return max(wanted.output_tokens_max, *sharing)

    def _resolve(self, entry: str, where: str) -> str | None:
        """The deployment that a `to` entry names, made on demand for ``{provider}/{model}``."""
        if entry in self.deployments:
            return entry
        name, slash, model = entry.partition("/")
        provider = self.providers.get(name)
        if not slash or not model:
            self._problem(
                where, f"there is no deployment {entry!r}; {_choices(self._declared)} or {{provider}}/{{model}}"
            )
        elif provider is None:
            self._problem(where, f"provider {name!r} of {entry!r} is not declared; {_choices(self.providers)}")
        elif provider.kind not in _OFFERING:
            self._problem(where, f"{entry!r}: declare a deployment, {provider.kind} has no models by name")
        else:
            self.deployments[entry] = self._make(entry, name, model, model, where)
            return entry
        return None

    def offer(self) -> None:
        """Route every name that is offered without a declared model."""
        offers: dict[str, dict[str, str]] = {}
        for provider in self.providers.values():
            if self._without_model(provider):
                offers.setdefault("", {})[provider.name] = provider.name
        for name in self._declared:
            offers[name] = {self.deployments[name].provider: name}
        for provider in self.providers.values():
            for name, deployment_name in self._offered_by(provider):
                offers.setdefault(name, {}).setdefault(provider.name, deployment_name)
        groups = [set(self.providers), *(set(allowed) for _, allowed in self.declared.stages)]
        for name, by_provider in offers.items():
            if name in self.routes:
                continue
            first = {next((p for p in by_provider if p in group), None) for group in groups}
            self.routes[name] = tuple(deployment for p, deployment in by_provider.items() if p in first)

    def take_services(self) -> None:
        """Make the place of each service. No name of a model leads there: a service is asked for by its path."""
        for service in self.declared.services:
            name = service.provider.name
            if name in self.deployments:
                self._problem(f"services.{name}", "has the name of a deployment; the deployment is used")
            elif self.providers[name] is service.provider:
                if name in _OPERATION_NAMES:
                    text = "has the name of an operation: keys and limits that name it mean both"
                    self._problem(f"services.{name}", text, serious=False)
                self.deployments[name] = deployment_of(service, self._rows.get((name, name), []))

    def _without_model(self, provider: Provider) -> bool:
        """Make the place of what is asked of a provider without naming a model; none for most kinds."""
        operations = WITHOUT_MODEL.get(provider.kind, ())
        if operations and provider.name in self.deployments:
            text = "has the name of a provider: files and batches of that provider cannot be reached"
            self._problem(f"deployments.{provider.name}", text, serious=False)
            return False
        if operations:
            free = card(provider.name, "", _FREE, _FREE_SOURCE)
            self.deployments[provider.name] = Deployment(
                provider.name, provider.name, "", "", (free,), operations=operations
            )
        return bool(operations)

    def _offered_by(self, provider: Provider) -> Iterator[tuple[str, str]]:
        """``(name, deployment)`` of everything one provider offers; its own deployments come first."""
        for made in [self.deployments[name] for name in self._declared]:
            if made.provider == provider.name:
                yield made.upstream_model, made.name
                yield made.model, made.name
        if provider.kind not in _OFFERING:
            return
        own = (model for name, model in self._rows if name == provider.name and model != ANY_MODEL)
        for model in dict.fromkeys((*own, *known_models(provider.kind))):
            name = f"{provider.name}/{model}"
            if name not in self.deployments:
                self.deployments[name] = self._make(name, provider.name, model, model, f"models.{model}", named=False)
            yield model, name

    def stages(self) -> dict[str, tuple[str, ...]]:
        """The stages with those of their providers that exist."""
        for stage, allowed in self.declared.stages:
            for name in allowed:
                if name not in self.providers:
                    self._problem(f"stages.{stage}", f"provider {name!r} is not declared; {_choices(self.providers)}")
        return {
            stage: tuple(name for name in allowed if name in self.providers) for stage, allowed in self.declared.stages
        }

    def _make(
        self,
        name: str,
        provider: str,
        upstream: str,
        model: str,
        where: str,
        *,
        named: bool = True,
        region: str = GLOBAL,
    ) -> Deployment:
        """A deployment with everything we know of its model; ``named`` where the operator asked for it by name."""
        kind = self.providers[provider].kind
        # Azure's deployments have names of their own, which say nothing.
        requested = "" if kind == "azure_openai" else upstream
        facts = facts_of(model, kind) or (facts_of(requested, kind) if requested else None)
        known = known_price(kind, model, region, requested)
        rows = self._rows_of(provider, name, kind, price_names(model, requested), (model, requested), known)
        cards = self._cards(provider, model, facts, known, rows, region, where)
        listed_context = known.context_tokens_max if isinstance(known, ListPrice) else 0
        operations = _operations(kind, model, facts, cards, trusted=named or known is None)
        if facts is None and EMBEDDINGS in operations and "chat.completions" not in operations:
            self._tell_only_embeds(provider, model, where if named else f"prices.{provider}/{model}.input_tokens")
        return Deployment(
            name=name,
            provider=provider,
            upstream_model=upstream,
            model=model,
            cards=cards,
            output_tokens_max=facts.output_tokens_max if facts else 0,
            context_tokens_max=(facts.context_tokens_max if facts else 0) or listed_context,
            cap_field=cap_field_of(kind, facts),
            encoding=facts.encoding if facts else "",
            operations=operations,
            reasons=facts is not None and (facts.reasoning or facts.encoding == "o200k_harmony"),
        )

    def _rows_of(
        self,
        provider: str,
        deployment: str,
        kind: str,
        names: tuple[str, ...],
        written: tuple[str, ...],
        known: ListPrice | LeftOut | None,
    ) -> list[PriceRow]:
        """The operator's prices of a model: as it is written, else under a name that the list prices alike.

        Those that are set for a deployment by its name come last, and hold there alone.
        """
        rows: list[PriceRow] = []
        for name in dict.fromkeys((*written, *names)):
            found = self._rows.get((provider, name), [])
            if found and (name in written or known_price(kind, name) in (None, known)):
                rows = found
                break
        own = self._rows.get((provider, deployment), []) if deployment not in written else []
        return _over(rows, own)

    def _tell_only_embeds(self, provider: str, model: str, where: str) -> None:
        """A price for input only is meant where the name says what the model is for, and a slip elsewhere."""
        if "embed" in model.lower() or (provider, model) in self._only_embeds:
            return
        self._only_embeds.add((provider, model))
        text = "is priced for input tokens only: it is offered for embeddings only; set output_tokens too for a chat"
        self._problem(where, f"{model!r} at {provider!r} {text}", serious=False)

    def _cards(
        self,
        provider: str,
        model: str,
        facts: ModelFacts | None,
        known: ListPrice | LeftOut | None,
        rows: list[PriceRow],
        region: str,
        where: str,
    ) -> tuple[RateCard, ...]:
        """The cards of a model that price all of a call, or what stands in for them, or none; the latter are told."""
        cards = all_cards(provider, model, known if isinstance(known, ListPrice) else None, rows, region)
        answers = facts is not None and not priced_operations(facts.operations, frozenset(("input_tokens",)))
        has_output = answers or any(_rates_output(card) for card in cards)
        priced = tuple(card for card in cards if card_is_priced(card, has_output=has_output))
        if len(priced) < len(cards):
            tier = next(card.service_tier for card in cards if card not in priced)
            which = f" in the tier {tier}" if tier else ""
            text = f"has no price for all of a call{which}; set input and output"
            self._problem(where, f"{model!r} at {provider!r} {text}")
        if any(not card.service_tier for card in priced):
            return priced
        instead = self._instead(provider, model, where)
        if instead:
            return instead
        why = f": {known.reason}" if isinstance(known, LeftOut) else ""
        self._problem(where, f"no price is known for {model!r} at {provider!r}{why}; set one in pricing.overrides")
        return ()

    def _instead(self, provider: str, model: str, where: str) -> tuple[RateCard, ...]:
        """What stands in for a price that is not known, where the installation wants that; it is told."""
        kind = self.providers[provider].kind
        cards: tuple[RateCard, ...] = ()
        text = ""
        if self.declared.unknown_price == "fallback":
            cards = fallback_cards(provider, kind, model, self._rows.get((provider, ANY_MODEL), []))
            text = "is billed at the fallback price"
        elif self.declared.unknown_price == "ceiling":
            cards = ceiling_cards(provider, kind, model, self.declared.ceiling)
            text = "is billed at a ceiling price, provisionally, until its own is known"
        if cards:
            self._problem(where, f"{model!r} at {provider!r} {text}", serious=False)
        return cards


def _over(rows: list[PriceRow], own: list[PriceRow]) -> list[PriceRow]:
    """Both, without what a deployment's ``own`` prices replace."""
    replaced = {(row.unit, row.variant, row.service_tier, row.above_input_tokens) for row in own}
    kept = [row for row in rows if (row.unit, row.variant, row.service_tier, row.above_input_tokens) not in replaced]
    return [*kept, *own]


def _rates_output(card: RateCard) -> bool:
    return any(rate.unit == "output_tokens" for rate in card.tiers[0].rates)


def _operations(
    kind: str, model: str, facts: ModelFacts | None, cards: tuple[RateCard, ...], *, trusted: bool
) -> tuple[str, ...]:
    """What a deployment can be asked for: what its model speaks, as far as its prices cover all of it.

    A model that we do not know is trusted to speak everything that its price covers, if the operator named it; one that
    only a price list names may be of any sort, and is asked for nothing.
    """
    spoken = OPERATIONS.get(kind, ())
    if facts is not None:
        wanted = tuple(name for name in facts.operations if name in spoken)
    else:
        wanted = spoken if trusted else ()
    if not cards:
        # The gate says that it has no price.
        return wanted
    units = frozenset.intersection(*(_units(card) for card in cards))
    covered = priced_operations(wanted, units)
    if facts is None and "input_tokens" in units and "output_tokens" not in units and "requests" not in units:
        embedding = RERANK if "rerank" in model.lower() else EMBEDDINGS
        return tuple(name for name in covered if name == embedding or kind not in ("openai", "azure_openai"))
    return covered


def _units(card: RateCard) -> frozenset[str]:
    return frozenset(rate.unit for rate in card.tiers[0].rates)


def _choices(names: Collection[str]) -> str:
    """The names to choose from, in a form that stays short."""
    shown = sorted(names)[:8]
    if not shown:
        return "none is declared"
    return "expected one of " + ", ".join(shown) + (" …" if len(names) > len(shown) else "")
