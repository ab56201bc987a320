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

from faregate.catalogue.bundled import LeftOut, ListPrice, Stretch, list_price, listed
from faregate.catalogue.declared import Declared, DeclaredDeployment, DeclaredModel, PriceRow
from faregate.catalogue.maximums import CHAT, COMPLETIONS, EMBEDDINGS, ModelFacts, cap_field_of, facts_of
from faregate.catalogue.timeline import card, successive_cards
from faregate.control import Catalogue, Deployment, Provider, Route
from faregate.core.pricing.card import PRICED_UNITS, Rate, RateCard, Tier
from faregate.core.pricing.cost import card_is_priced

#: Kinds whose wire format the gate speaks; routes to others exist, without operations.
_SPOKEN: Final = ("openai", "azure_openai")

#: Kinds that take any model by its name, so that no deployment needs declaring.
_OFFERING: Final = ("openai", "anthropic", "gemini")

#: The model name of fallback prices.
ANY_MODEL: Final = "*"


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


def compile_catalogue(declared: Declared) -> Compiled:
    """Compile a declaration. Deterministic: the same declaration gives the same catalogue."""
    work = _Compilation(declared)
    work.take_rows()
    for deployment in declared.deployments:
        work.take_deployment(deployment)
    for model in declared.models:
        work.take_model(model)
    work.offer()
    catalogue = Catalogue(
        providers=tuple(work.providers.values()),
        deployments=tuple(work.deployments.values()),
        routes=tuple(Route(name, to) for name, to in work.routes.items()),
        stages=work.stages(),
        projects=declared.projects,
        require_limit=declared.require_limit,
    )
    return Compiled(catalogue, tuple(work.problems))


def price_rows(catalogue: Catalogue) -> list[ListedPrice]:
    """Every rate of every card, each card once, in the order of its deployments."""
    cards = {card.version: card for deployment in catalogue.deployments for card in deployment.cards}
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
        for provider in declared.providers:
            if provider.name in self.providers:
                self._problem(f"providers.{provider.name}", "is declared twice; the first one is used")
            self.providers.setdefault(provider.name, provider)
        self.deployments: dict[str, Deployment] = {}
        self.routes: dict[str, tuple[str, ...]] = {}
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
            made = self._make(wanted.name, wanted.provider, wanted.upstream_model, model, where)
            if wanted.output_tokens_max:
                made = msgspec.structs.replace(made, output_tokens_max=wanted.output_tokens_max)
            self.deployments[wanted.name] = made
            self._declared.append(wanted.name)

    def take_model(self, wanted: DeclaredModel) -> None:
        """Route a declared name, and give its deployments the maxima declared with it."""
        where = f"models.{wanted.name}"
        if wanted.name in self.routes:
            self._problem(where, "is declared twice; the first one is used")
            return
        to = tuple(dict.fromkeys(name for entry in wanted.to if (name := self._resolve(entry, where))))
        if not wanted.to:
            self._problem(where, "leads nowhere; name a deployment or {provider}/{model} in `to`")
        if not to:
            return
        self.routes[wanted.name] = to
        own = {deployment.name for deployment in self.declared.deployments if deployment.output_tokens_max}
        for name in to:
            made = self.deployments[name]
            # Two names may share a deployment; the larger maximum is the one that is safe to hold.
            raised = 0 if name in own else self._raised(name, wanted)
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

    def _offered_by(self, provider: Provider) -> Iterator[tuple[str, str]]:
        """``(name, deployment)`` of everything one provider offers; its own deployments come first."""
        for made in [self.deployments[name] for name in self._declared]:
            if made.provider == provider.name:
                yield made.upstream_model, made.name
                yield made.model, made.name
        if provider.kind not in _OFFERING:
            return
        own = (model for name, model in self._rows if name == provider.name and model != ANY_MODEL)
        for model in dict.fromkeys((*own, *listed(provider.kind))):
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
        self, name: str, provider: str, upstream: str, model: str, where: str, *, named: bool = True
    ) -> Deployment:
        """A deployment with everything we know of its model; ``named`` where the operator asked for it by name."""
        kind = self.providers[provider].kind
        facts = facts_of(model) if kind in _SPOKEN else None
        known = list_price(kind, model)
        cards = self._cards(provider, model, facts, known, where)
        listed_context = known.context_tokens_max if isinstance(known, ListPrice) else 0
        operations = _operations(kind, facts, cards, trusted=named or known is None)
        if facts is None and operations == (EMBEDDINGS,):
            self._tell_only_embeds(provider, model, where if named else f"prices.{provider}/{model}.input_tokens")
        return Deployment(
            name=name,
            provider=provider,
            upstream_model=upstream,
            model=model,
            cards=cards,
            output_tokens_max=facts.output_tokens_max if facts else 0,
            context_tokens_max=facts.context_tokens_max if facts else listed_context,
            cap_field=cap_field_of(kind, facts),
            encoding=facts.encoding if facts else "",
            operations=operations,
        )

    def _tell_only_embeds(self, provider: str, model: str, where: str) -> None:
        """A price for input only is meant where the name says what the model is for, and a slip elsewhere."""
        if "embed" in model.lower() or (provider, model) in self._only_embeds:
            return
        self._only_embeds.add((provider, model))
        text = "is priced for input tokens only: it is offered for embeddings only; set output_tokens too for a chat"
        self._problem(where, f"{model!r} at {provider!r} {text}", serious=False)

    def _cards(
        self, provider: str, model: str, facts: ModelFacts | None, known: ListPrice | LeftOut | None, where: str
    ) -> tuple[RateCard, ...]:
        """The cards of a model that price all of a call, or the fallback, or none; the latter two are told."""
        rows = self._rows.get((provider, model), [])
        cards = successive_cards(provider, model, known if isinstance(known, ListPrice) else None, rows)
        answers = facts is not None and facts.operations != (EMBEDDINGS,)
        has_output = answers or any(_rates_output(card) for card in cards)
        priced = tuple(card for card in cards if card_is_priced(card, has_output=has_output))
        if len(priced) < len(cards):
            self._problem(where, f"{model!r} at {provider!r} has no price for all of a call; set input and output")
        if priced:
            return priced
        if self.declared.unknown_price == "fallback":
            fallback = self._fallback(provider, model)
            if fallback:
                self._problem(where, f"{model!r} at {provider!r} is billed at the fallback price", serious=False)
                return fallback
        why = f": {known.reason}" if isinstance(known, LeftOut) else ""
        self._problem(where, f"no price is known for {model!r} at {provider!r}{why}; set one in pricing.overrides")
        return ()

    def _fallback(self, provider: str, model: str) -> tuple[RateCard, ...]:
        """The operator's prices for any model, else the dearest rates that the provider's list has for a chat."""
        rows = self._rows.get((provider, ANY_MODEL), [])
        cards = successive_cards(provider, model, None, [row._replace(source="fallback") for row in rows])
        if cards and all(card_is_priced(card) for card in cards):
            return cards
        kind = self.providers[provider].kind
        dearest = _dearest("openai" if kind == "azure_openai" else kind)
        return (card(provider, model, Stretch(0, 0, dearest), "fallback"),) if dearest else ()


def _rates_output(card: RateCard) -> bool:
    return any(rate.unit == "output_tokens" for rate in card.tiers[0].rates)


def _dearest(kind: str) -> tuple[Tier, ...]:
    """One tier with the highest input and output rate among a kind's listed models that the gate can speak to."""
    highest: dict[str, int] = {}
    for model in listed(kind):
        facts, price = facts_of(model), list_price(kind, model)
        if isinstance(price, ListPrice) and (kind not in _SPOKEN or (facts and CHAT in facts.operations)):
            for rate in (rate for tier in price.stretches[-1].tiers for rate in tier.rates):
                highest[rate.unit] = max(highest.get(rate.unit, 0), rate.pico)
    wanted = ("input_tokens", "output_tokens")
    return (Tier(0, tuple(Rate(unit, highest[unit], 1_000_000) for unit in wanted)),) if highest else ()


def _operations(kind: str, facts: ModelFacts | None, cards: tuple[RateCard, ...], *, trusted: bool) -> tuple[str, ...]:
    """What a deployment can be asked for.

    A model that we do not know is trusted to speak everything that its price covers, if the operator named it; one that
    only a price list names may be of any sort, and is asked for nothing.
    """
    if kind not in _SPOKEN:
        return ()
    if facts is not None:
        return facts.operations
    if not trusted:
        return ()
    if cards and not any(_rates_output(card) or _by_call(card) for card in cards):
        return (EMBEDDINGS,)
    return (CHAT, COMPLETIONS, EMBEDDINGS)


def _by_call(card: RateCard) -> bool:
    return all(rate.unit == "requests" for rate in card.tiers[0].rates)


def _choices(names: Collection[str]) -> str:
    """The names to choose from, in a form that stays short."""
    shown = sorted(names)[:8]
    if not shown:
        return "none is declared"
    return "expected one of " + ", ".join(shown) + (" …" if len(names) > len(shown) else "")
