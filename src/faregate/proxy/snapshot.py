"""What the gate works from: keys, limits, routes and prices, compiled once and swapped whole.

A ``Snapshot`` never changes after it is built; applying a ``Load`` makes a new one that shares what stayed the same.
So a request holds one reference and needs no lock, however often the console changes its mind.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from faregate.control import Catalogue, Deployment, Key, Limit, Load, PayerRule, Provider, Route, compiled
from faregate.core.attribution import Attribution
from faregate.core.limits.admit import Standing
from faregate.core.limits.figures import is_told
from faregate.core.limits.in_force import amount_at
from faregate.core.limits.index import CompiledLimit, LimitIndex
from faregate.core.pricing.book import PriceTimeline
from faregate.core.pricing.charging import rule_for, text_of
from faregate.core.pricing.cost import Tariff
from faregate.core.routing.choose import USUAL_TOKENS, PoolRule
from faregate.core.routing.health import Health
from faregate.core.routing.retry import RetryRule
from faregate.core.routing.ways import rules_along
from faregate.core.tokens import USUAL_HEADERS
from faregate.dialects.answers import says_by_name
from faregate.dialects.operations import BY_NAME, upstream_path
from faregate.dialects.services import Place
from faregate.proxy.forward import ID_HEADER, ID_HEADERS
from faregate.proxy.routing import Lane
from faregate.proxy.tenants import Tenants
from faregate.proxy.upstream import Pool


class Target:
    """One deployment, ready to be called."""

    __slots__ = (
        "cap_field",
        "context_tokens_max",
        "encoding",
        "heads",
        "health",
        "id_header",
        "model",
        "name",
        "operations",
        "output_tokens_max",
        "place",
        "pool",
        "prices",
        "provider",
        "reads_as",
        "reasons",
        "rewrites_model",
        "tag",
        "tier_prices",
        "upstream_model",
    )

    def __init__(self, deployment: Deployment, provider: Provider, pool: Pool, health: Health) -> None:
        self.name = deployment.name
        self.health = health
        self.model = deployment.model
        self.upstream_model = deployment.upstream_model
        #: A name that tells what chats with it may use, which another name that leads here hides; empty for most.
        self.reads_as = self.model if says_by_name(self.model) else ""
        self.provider = provider
        self.pool = pool
        self.prices = PriceTimeline(card for card in deployment.cards if not card.service_tier)
        #: Those of the service tiers that have prices of their own.
        self.tier_prices = {
            tier: PriceTimeline(card for card in deployment.cards if card.service_tier == tier)
            for tier in {card.service_tier for card in deployment.cards if card.service_tier}
        }
        self.context_tokens_max = deployment.context_tokens_max
        self.output_tokens_max = deployment.output_tokens_max
        self.cap_field = deployment.cap_field
        self.encoding = deployment.encoding
        self.reasons = deployment.reasons
        self.operations = frozenset(deployment.operations)
        #: An Azure path names the deployment; everywhere else the body does.
        self.rewrites_model = provider.kind != "azure_openai"
        #: What every answer from here says about itself.
        self.tag = f"x-faregate-model: {self.model}\r\nx-faregate-deployment: {self.name}\r\n".encode()
        #: Of a service behind the gate; ``None`` for all others.
        self.place = (
            Place(deployment.name, deployment.service, provider.base_url, provider.credential, provider.masked)
            if deployment.service is not None
            else None
        )
        self.id_header = ID_HEADERS.get(provider.kind, ID_HEADER)
        #: The constant part of a request's head, by operation; emptied when the provider's credential is renewed.
        self.heads: dict[str, bytes] = {}
        if not provider.renewed:
            for operation in deployment.operations:
                if operation in BY_NAME:
                    self.head_of(operation)

    def head_of(self, operation: str) -> bytes:
        """The constant part of a request's head, made where it is not known yet."""
        head = self.heads[operation] = _request_head(self.pool, self.upstream_model, operation)
        return head

    def head_about(self, operation: str, object_id: str, query: str) -> bytes:
        """The constant part of the head of a request that concerns an object, or a provider rather than a model."""
        return _request_head(self.pool, self.upstream_model, operation, object_id, query)

    def tiers_at(self, now_nanos: int) -> tuple[tuple[str, str], ...]:
        """Service tier → version of its rate card, for those that have prices of their own."""
        found = ((tier, prices.at(now_nanos)) for tier, prices in sorted(self.tier_prices.items()))
        return tuple((tier, tariff.version) for tier, tariff in found if tariff is not None)

    def tariff_of(self, service_tier: str, now_nanos: int) -> Tariff | None:
        """The tariff of a service tier that has prices of its own."""
        prices = self.tier_prices.get(service_tier)
        return prices.at(now_nanos) if prices is not None else None


#: The limit that bounds what is spent while the books do not follow; nobody set it, and nobody is covered by it.
FAIL_OPEN: Final = "lim_fail_open"


class Match:
    """Who the calls of one key at one deployment are charged to, what, and the limits that hold, found once."""

    __slots__ = (
        "answered",
        "charge_rule",
        "charging",
        "covered_by",
        "downgrades",
        "hidden",
        "lacks_limit",
        "standing",
        "tells",
        "who",
    )

    def __init__(self, who: Attribution, snapshot: "Snapshot", answered: list[int]) -> None:
        self.who = who
        catalogue = snapshot.catalogue
        limits, charges = snapshot.limits.matching(who), catalogue.charges
        rule = rule_for(charges, who)
        #: The terms that make the charge another amount than the cost, as they are kept with it; empty without.
        self.charge_rule = text_of(rule) if rule is not None else ""
        self.charging = rule if self.charge_rule else None
        self.standing = Standing(who, limits)
        #: A limit on what its calls may cost, a hard one in dollars with an amount, is required and there is none.
        required = catalogue.require_limit or who.stage in catalogue.require_limit_stages
        money = [limit for limit in limits if limit.bounds_money and limit.id != FAIL_OPEN] if required else []
        self.lacks_limit = required and not money
        #: Where only limits that begin or end are there, these: a moment between them is covered by none.
        self.covered_by = () if any(not _comes_or_goes(limit) for limit in money) else tuple(money)
        #: Ids of limits that count other organizations' calls, too: their figures are nobody's to see.
        self.hidden = frozenset(limit.id for limit in limits if not snapshot.tenants.owns(limit, who))
        #: Headers say what some limit has left.
        self.tells = any(is_told(limit) and limit.id not in self.hidden for limit in limits)
        #: Some limit may send its calls to another model.
        self.downgrades = any(action.do == "downgrade" for limit in limits for action in limit.terms.actions)
        #: The counters of its calls that end well.
        self.answered = answered

    def lacks_limit_at(self, now_nanos: int) -> bool:
        """Whether a limit on what its calls may cost is required and none is in force."""
        if not self.covered_by:
            return self.lacks_limit
        return all(amount_at(limit.amount, limit.terms, now_nanos) is None for limit in self.covered_by)


class Hits(NamedTuple):
    """Who hits of a key are charged to, and what holds them."""

    match: Match
    #: With the limits of requests and concurrency alone.
    rates: Standing


def _comes_or_goes(limit: CompiledLimit) -> bool:
    return bool(limit.terms.since or limit.terms.until)


class Snapshot:
    """Everything a request is decided by, at one change sequence number."""

    __slots__ = (
        "by_digest",
        "caching",
        "catalogue",
        "describes",
        "halted",
        "hits",
        "keys",
        "lanes",
        "limit_rows",
        "limits",
        "matches",
        "mirrors",
        "model_names",
        "pooled",
        "pools",
        "project_teams",
        "projects",
        "ranked",
        "restricting",
        "routes",
        "sequence",
        "services",
        "stage_names",
        "stages",
        "targets",
        "tenants",
    )

    def __init__(
        self,
        sequence: int,
        keys: dict[str, Key],
        by_digest: dict[str, Key],
        limit_rows: dict[str, Limit],
        catalogue: Catalogue,
        routes: dict[str, tuple[Target, ...]],
        limits: LimitIndex,
        targets: dict[str, Target] | None = None,
        tenants: Tenants | None = None,
        halted: frozenset[tuple[str, str, str]] = frozenset(),
        restricting: dict[tuple[str, str, str], PayerRule] | None = None,
    ) -> None:
        self.sequence = sequence
        #: What products and users restrict callers to that have tokens; keys come restricted.
        self.restricting = restricting or {}
        #: ``(kind, organization, name)`` of payers whose keys are stopped: looked at only where there are some.
        self.halted = halted
        self.tenants = tenants if tenants is not None else Tenants()
        #: All deployments by name, and those that are services behind the gate, which are asked for by their path.
        self.targets = targets or {}
        self.services = {name: target for name, target in self.targets.items() if target.place is not None}
        self.keys = keys
        self.by_digest = by_digest
        self.limit_rows = limit_rows
        self.catalogue = catalogue
        identity = catalogue.identity
        #: Each request must be looked at for headers that only this configuration knows.
        self.describes = identity is not None and (identity.accounting is not None or identity.headers != USUAL_HEADERS)
        #: Model → every deployment that it may go to; in which order is a lane's to say.
        self.routes = routes
        self.pools: dict[str, PoolRule] = {pool.rule.name: pool.rule for pool in catalogue.pools}
        #: Models that lead to pools, elsewhere for some callers, or for a while only.
        self.pooled: dict[str, Route] = {
            route.model: route for route in catalogue.routes if route.steps or route.selected or route.timeout_ms
        }
        #: Model → where a share of its calls is copied to.
        self.mirrors = {route.model: route.mirror for route in catalogue.routes if route.mirror is not None}
        #: As ``routing.lane_for`` makes them; gone with the snapshot.
        self.lanes: dict[tuple[str, str, str, int, tuple[int, ...]], Lane] = {}
        self.limits = limits
        self.stages = {stage: frozenset(names) for stage, names in catalogue.stages.items()}
        #: ``(organization, name)`` of the stages that only the API knows.
        self.stage_names = frozenset(catalogue.stage_names)
        self.projects = frozenset(catalogue.projects)
        #: ``(kind, organization, name)`` of projects and stages → what they say of the response cache.
        self.caching = {(kind, owner, name): word for kind, owner, name, word in catalogue.caching}
        #: (organization, project) → the team that it was put into, empty for none.
        self.project_teams = {(owner, name): team for owner, name, team in catalogue.project_teams}
        self.model_names = tuple(
            # The route without a name is that of operations which name no model.
            sorted(name for name, targets in routes.items() if name and any(t.operations for t in targets))
        )
        #: (key, deployment, operation) → Match; filled as requests come, gone with the snapshot.
        self.matches: dict[tuple[str, str, str], Match] = {}
        #: (key, model, operation) → where hits of the response cache go; likewise.
        self.hits: dict[tuple[str, str, str], Hits] = {}
        #: Operation → names of models, the cheapest first; found when somebody asks.
        self.ranked: dict[str, tuple[str, ...]] = {}

    def rules_of(self, model: str, chosen: int) -> tuple[PoolRule, ...]:
        """The pools of a model in order, for those whom its selection ``chosen`` fits; -1 for all others."""
        route = self.pooled.get(model)
        if route is None:
            route = Route(model, tuple(target.name for target in self.routes.get(model, ())))
        steps = route.selected[chosen].steps if chosen >= 0 else route.steps
        return rules_along(steps, route.to, self.pools)

    def retry_of(self, rules: Iterable[PoolRule]) -> RetryRule | None:
        """When calls along these pools are tried again: as the first pool says that says it, else as all do."""
        retries = {pool.rule.name: pool.retry for pool in self.catalogue.pools}
        return next((found for rule in rules if (found := retries.get(rule.name))), self.catalogue.retry)

    def by_price(self, operation: str, now_nanos: int) -> tuple[str, ...]:
        """Names of the models that do an operation, by what a call of usual size costs at most at their first place.

        Found once: prices that change by themselves change the order of nearby models at most.
        """
        known = self.ranked.get(operation)
        if known is None:
            priced: list[tuple[int, str]] = []
            for name in self.model_names:
                target = next((target for target in self.routes[name] if operation in target.operations), None)
                tariff = target.prices.at(now_nanos) if target is not None else None
                if tariff is not None:
                    priced.append((tariff.bound(*USUAL_TOKENS), name))
            known = self.ranked[operation] = tuple(name for _, name in sorted(priced))
        return known


EMPTY = Snapshot(0, {}, {}, {}, Catalogue(), {}, LimitIndex())


def apply(
    old: Snapshot,
    load: Load,
    pool_of: Callable[[Provider], Pool],
    health: Mapping[str, Health],
) -> Snapshot:
    """A new snapshot: ``old`` with the rows of ``load`` put in, replaced or removed.

    ``health`` is that of all deployments of its catalogue, where it brings one.
    """
    keys, by_digest, tenants = old.keys, old.by_digest, old.tenants
    if load.full or load.keys or load.keys_removed:
        keys = {} if load.full else dict(keys)
        by_digest = {} if load.full else dict(by_digest)
        # It only grows, so that the snapshots before may share it.
        tenants = Tenants() if load.full else tenants
        _change_keys(keys, by_digest, load.keys, load.keys_removed)
        tenants.add(load.keys)
    rows, limits = old.limit_rows, old.limits
    if load.full or load.limits or load.limits_removed:
        rows = {} if load.full else dict(rows)
        for removed in load.limits_removed:
            rows.pop(removed, None)
        rows.update((row.id, row) for row in load.limits)
        changed = [compiled(row) for row in load.limits]
        limits = LimitIndex(changed) if load.full else limits.changed(changed, load.limits_removed)
    catalogue, routes, targets = old.catalogue, old.routes, old.targets
    if load.catalogue is not None:
        catalogue = load.catalogue
        targets = _compile_targets(catalogue, pool_of, health)
        routes = {
            route.model: tuple(targets[name] for name in route.to if name in targets) for route in catalogue.routes
        }
    if catalogue.identity is not None:
        tenants.add_callers(catalogue.identity, catalogue.project_teams)
    halted = old.halted if load.halted is None and not load.full else frozenset(load.halted or ())
    restricting = _restricting(old, load)
    return Snapshot(
        load.sequence, keys, by_digest, rows, catalogue, routes, limits, targets, tenants, halted, restricting
    )


def _restricting(old: Snapshot, load: Load) -> dict[tuple[str, str, str], PayerRule]:
    if not load.full and not load.restricting:
        return old.restricting
    restricting = {} if load.full else dict(old.restricting)
    for each in load.restricting:
        if each.restricts:
            restricting[each.place] = each
        else:
            restricting.pop(each.place, None)
    return restricting


def _change_keys(keys: dict[str, Key], by_digest: dict[str, Key], put: Iterable[Key], removed: Iterable[str]) -> None:
    for id in removed:
        gone = keys.pop(id, None)
        for digest in gone.digests if gone else ():
            by_digest.pop(digest, None)
    for key in put:
        before = keys.get(key.id)
        for digest in before.digests if before else ():
            by_digest.pop(digest, None)
        keys[key.id] = key
        for digest in key.digests:
            by_digest[digest] = key


def _compile_targets(
    catalogue: Catalogue, pool_of: Callable[[Provider], Pool], health: Mapping[str, Health]
) -> dict[str, Target]:
    providers = {provider.name: provider for provider in catalogue.providers}
    pools = {name: pool_of(provider) for name, provider in providers.items()}
    return {
        deployment.name: Target(
            deployment, providers[deployment.provider], pools[deployment.provider], health[deployment.name]
        )
        for deployment in catalogue.deployments
        if deployment.provider in providers
    }


def _request_head(pool: Pool, upstream_model: str, operation: str, object_id: str = "", query: str = "") -> bytes:
    """Request line, Host, credential: what is the same for every call of an operation at a deployment."""
    provider = pool.provider
    _, _, rest = provider.base_url.partition("://")
    authority, _, prefix = rest.partition("/")
    path = f"/{prefix}".rstrip("/")
    path += upstream_path(provider.kind, operation, upstream_model, provider.api_version, object_id) + query
    head = f"{BY_NAME[operation].method} {path} HTTP/1.1\r\nhost: {authority}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in pool.credential.items())
    # Usage must be read from the answer, so it must not come compressed.
    return (head + "accept-encoding: identity\r\n").encode("latin-1")
