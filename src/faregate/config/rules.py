"""The rules between keys: names that point to nothing, keys that disagree, settings that work but are dangerous.

Each rule is a function of the checked configuration that yields findings by path; ``load`` gives them their places.
"""

import ipaddress
from collections.abc import Iterator
from pathlib import Path as FilePath
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from faregate.config.alert_rules import check_channels
from faregate.config.cache_rules import check_cache
from faregate.config.content_rules import check_content
from faregate.config.credential_rules import check_credential
from faregate.config.denial_rules import check_denials
from faregate.config.findings import Path, Ruled, quoted
from faregate.config.identity_rules import check_identity
from faregate.config.leading import LED_MAX, places_of
from faregate.config.places import Known, place_problem, points_nowhere
from faregate.config.pool_rules import check_pools
from faregate.config.schema import Config, Gateway, Provider
from faregate.config.service_rules import check_service, surroundings_of
from faregate.config.services import Service
from faregate.config.tls import certificate_problem
from faregate.config.values import is_address, is_loopback, is_private
from faregate.core import money
from faregate.core.pricing.charging import FEE_NANOS_MAX, MARKUP_PPM_MAX, PPM, ppm

#: A price per million tokens outside this band is nearly always one for another unit. Dearest known: 600 dollars.
PRICE_BAND_PICOS = (1_000_000, 10_000 * money.PICOS_PER_DOLLAR)

_SHARED_ADDRESSES = ipaddress.ip_network("100.64.0.0/10")


def check_rules(config: Config, folder: FilePath) -> Iterator[Ruled]:
    """Everything that is wrong between keys; relative files are looked for in ``folder``."""
    yield from _listeners(config, folder)
    yield from _unique_names(config)
    for index, provider in enumerate(config.providers):
        yield from _provider(provider, ("providers", index), folder)
    around = surroundings_of(config)
    for index, service in enumerate(config.services):
        yield from _reached(service, ("services", index), folder)
        yield from check_service(service, ("services", index), around)
    if not config.providers and not config.services:
        hint = "name at least one provider, or start with `faregate init` or `faregate serve --demo`"
        yield Ruled("CFG-MISSING", ("providers",), "is missing", hint=hint)
    yield from _references(config)
    yield from check_pools(config, _known(config))
    yield from _loops(config)
    yield from _far(config)
    yield from _prices(config)
    yield from _charges(config)
    yield from _capacities(config)
    yield from check_channels(config, folder)
    yield from _azure_budget(config)
    yield from check_denials(config)
    yield from check_identity(config.identity, folder)
    yield from check_content(config)
    yield from check_cache(config)
    if config.limits.min_answer_tokens > config.limits.default_output_tokens:
        yield Ruled("CFG-CONFLICT", ("limits", "min_answer_tokens"), "is more than limits.default_output_tokens")
    if config.journal.segment > config.journal.backlog_max:
        yield Ruled("CFG-CONFLICT", ("journal", "segment"), "is more than journal.backlog_max")
    if config.gateway.held_body_bytes_max > config.gateway.held_bodies_bytes_max:
        yield Ruled("CFG-CONFLICT", ("gateway", "held_body_bytes_max"), "is more than gateway.held_bodies_bytes_max")
    yield from _share_of_key(config.gateway)


#: Shorter ones can be guessed by whoever may try as often as he likes.
_HOOK_SECRET_CHARACTERS_MIN = 24


def _azure_budget(config: Config) -> Iterator[Ruled]:
    hook = config.alerts.azure_budget
    if hook is not None and len(hook.secret.get_secret_value()) < _HOOK_SECRET_CHARACTERS_MIN:
        path, hint = ("alerts", "azure_budget", "secret"), "make one with `openssl rand -base64 32`"
        expected = f"at least {_HOOK_SECRET_CHARACTERS_MIN} characters"
        yield Ruled("CFG-SECRET", path, "is too short for a secret", expected, hint)


def _share_of_key(gateway: Gateway) -> Iterator[Ruled]:
    share, path = gateway.key_bodies_bytes_max, ("gateway", "key_bodies_bytes_max")
    if share is not None and share > gateway.held_bodies_bytes_max:
        yield Ruled("CFG-CONFLICT", path, "is more than gateway.held_bodies_bytes_max")
    if share is not None and share < gateway.body_bytes_max:
        problem = "is less than gateway.body_bytes_max, so the largest body could never come in"
        yield Ruled("CFG-CONFLICT", path, problem)


def _listeners(config: Config, folder: FilePath) -> Iterator[Ruled]:
    for name, listener in (("gateway", config.gateway), ("console", config.console)):
        if listener.tls is not None:
            certificate, key = folder / listener.tls.certificate_file, folder / listener.tls.key_file
            problem = certificate_problem(certificate, key)
            if problem is not None:
                yield Ruled("CFG-SECRET", (name, "tls", problem.key), problem.text, problem.expected, problem.hint)
        elif not is_loopback(listener.host) and not listener.behind_proxy:
            hint = f"set {name}.tls, or {name}.behind_proxy: true if a reverse proxy in front of it ends TLS"
            problem_text = (
                f"{listener.host} is reached from other machines, and keys would cross the network in the clear"
            )
            yield Ruled("CFG-UNSAFE", (name, "host"), problem_text, "a loopback address", hint)
    if config.gateway.port == config.console.port and _overlap(config.gateway.host, config.console.host):
        yield Ruled("CFG-CONFLICT", ("console", "port"), f"the gateway listens on {config.gateway.port} already")


def _overlap(one: str, other: str) -> bool:
    anything = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    return one == other or one in anything or other in anything


def _unique_names(config: Config) -> Iterator[Ruled]:
    named = {
        "providers": [provider.name for provider in config.providers],
        "deployments": [deployment.name for deployment in config.deployments],
        "models": [model.name for model in config.models],
        "pools": [pool.name for pool in config.pools],
        "capacities": [capacity.name for capacity in config.capacities],
        "services": [service.name for service in config.services],
    }
    for key, names in named.items():
        seen: dict[str, int] = {}
        for index, name in enumerate(names):
            if name in seen:
                problem = f"{name} is the name of {key}[{seen[name]}] already"
                yield Ruled("CFG-CONFLICT", (key, index, "name"), problem, "names that differ")
            seen.setdefault(name, index)


def _capacities(config: Config) -> Iterator[Ruled]:
    for index, capacity in enumerate(config.capacities):
        try:
            ZoneInfo(capacity.timezone)
        # A folder of the zone data, a name with a NUL or one that is too long each fail in a way of their own.
        except (ZoneInfoNotFoundError, ValueError, OSError):
            path: Path = ("capacities", index, "timezone")
            yield Ruled("CFG-RANGE", path, f"{quoted(capacity.timezone)} is not a time zone", "such as Europe/Berlin")


def _provider(provider: Provider, path: Path, folder: FilePath) -> Iterator[Ruled]:
    yield from _reached(provider, path, folder)
    parts = urlsplit(provider.base_url)
    if "/v1/v1" in parts.path:
        yield Ruled("CFG-RANGE", (*path, "base_url"), "its path has /v1 twice", warning=True)
    if provider.kind == "azure_openai" and parts.path.rstrip("/").endswith("/openai"):
        yield Ruled(
            "CFG-RANGE", (*path, "base_url"), "Faregate adds /openai itself", "the resource's own address", warning=True
        )
    if provider.kind == "azure_openai" and not provider.api_version:
        yield Ruled("CFG-MISSING", (*path, "api_version"), "is missing", 'Azure\'s api-version, e.g. "2024-10-21"')
    if provider.timeouts.first_byte > provider.timeouts.total:
        yield Ruled("CFG-CONFLICT", (*path, "timeouts", "first_byte"), "is longer than timeouts.total")
    if provider.credential is not None:
        yield from check_credential(provider.credential, (*path, "credential"), folder)
        if provider.api_key is not None:
            yield Ruled("CFG-CONFLICT", (*path, "api_key"), "there is a credential already", "one of the two")
    elif provider.api_key is None and not is_loopback(parts.hostname or ""):
        yield Ruled("CFG-SECRET", path, "has no api_key and will be called without a credential", warning=True)


def _reached(place: Provider | Service, path: Path, folder: FilePath) -> Iterator[Ruled]:
    """What is wrong with where something is, and with the way there."""
    parts = urlsplit(place.base_url)
    host = parts.hostname or ""
    if parts.scheme == "http" and not is_loopback(host) and not place.allow_http:
        problem = "its credential and every prompt would cross the network in the clear"
        yield Ruled("CFG-UNSAFE", (*path, "base_url"), problem, "https", "set allow_http: true to allow it")
    if _is_inside(host) and not place.allow_private:
        yield Ruled(
            "CFG-UNSAFE",
            (*path, "base_url"),
            f"{host} is a private address",
            hint="set allow_private: true to allow it",
        )
    if place.ca_file:
        file = folder / place.ca_file
        if not file.is_file():
            yield Ruled("CFG-REF", (*path, "ca_file"), f"{file} is not a file", "a PEM file")


def _is_inside(host: str) -> bool:
    return is_private(host) or (is_address(host) and ipaddress.ip_address(host) in _SHARED_ADDRESSES)


def _references(config: Config) -> Iterator[Ruled]:
    providers = [provider.name for provider in config.providers]
    for index, deployment in enumerate(config.deployments):
        if deployment.provider not in providers:
            yield points_nowhere(("deployments", index, "provider"), "provider", deployment.provider, providers)
    for index, capacity in enumerate(config.capacities):
        if capacity.provider not in providers:
            yield points_nowhere(("capacities", index, "provider"), "provider", capacity.provider, providers)
    # A service is its own provider, where stages, prices and charges name one.
    called = [*providers, *(service.name for service in config.services)]
    for stage, rule in config.stages.items():
        for index, name in enumerate(rule.providers or ()):
            if name not in called:
                yield points_nowhere(("stages", stage, "providers", index), "provider", name, called)
    for index, override in enumerate(config.pricing.overrides):
        if override.provider not in called:
            yield points_nowhere(("pricing", "overrides", index, "provider"), "provider", override.provider, called)
    known = _known(config)
    names = [*known.deployments, *known.pools, *known.models]
    for index, model in enumerate(config.models):
        for place, target in enumerate(model.to):
            if target not in names:
                path: Path = ("models", index, "to", place)
                ruled = place_problem(known, path, target, "deployment, pool or model", names)
                if ruled is not None:
                    yield ruled


def _known(config: Config) -> Known:
    """The names of places that the configuration knows; of twins the first one counts."""
    kinds: dict[str, str] = {}
    for provider in config.providers:
        kinds.setdefault(provider.name, provider.kind)
    return Known(
        kinds,
        [deployment.name for deployment in config.deployments],
        [pool.name for pool in config.pools],
        [model.name for model in config.models],
    )


def _loops(config: Config) -> Iterator[Ruled]:
    """Models may go to models; following them must end at deployments."""
    deployments = {deployment.name for deployment in config.deployments}
    aliases = {model.name: [name for name in model.to if name not in deployments] for model in config.models}
    told: set[str] = set()
    for index, model in enumerate(config.models):
        loop = _loop_from(model.name, aliases)
        if loop and not told.intersection(loop):
            told.update(loop)
            yield Ruled(
                "CFG-REF", ("models", index, "to"), f"goes round in a loop: {' → '.join(loop)}", "a way that ends"
            )


def _far(config: Config) -> Iterator[Ruled]:
    """What a model leads to over other models is bounded as what it names itself is."""
    deployments = {deployment.name for deployment in config.deployments}
    to = {model.name: model.to for model in config.models}
    for index, model in enumerate(config.models):
        if places_of(model.name, to, deployments)[1]:
            problem = f"leads to more than {LED_MAX} places, or over as many models"
            yield Ruled("CFG-RANGE", ("models", index, "to"), problem, f"at most {LED_MAX}")


def _loop_from(start: str, aliases: dict[str, list[str]]) -> list[str]:
    """The names of a loop through ``start``, its first name again at the end; empty where there is none."""
    trail: dict[str, str] = {}
    waiting = [(name, start) for name in aliases[start]]
    while waiting:
        name, before = waiting.pop()
        if name == start:
            loop = [start, before]
            while loop[-1] != start:
                loop.append(trail[loop[-1]])
            return loop[::-1]
        if name in aliases and name not in trail:
            trail[name] = before
            waiting.extend((below, name) for below in aliases[name])
    return []


def _charges(config: Config) -> Iterator[Ruled]:
    """Charge rules that contradict themselves, are out of all proportion, name nobody, or never come to hold."""
    providers = [*(provider.name for provider in config.providers), *(service.name for service in config.services)]
    selectors: list[dict[str, str]] = []
    for index, rule in enumerate(config.pricing.charges):
        path: Path = ("pricing", "charges", index)
        markup, discount, fee = ppm(rule.markup_percent), ppm(rule.discount_percent), money.nanos(rule.fee)
        if rule.free and (markup or discount or fee):
            yield Ruled("CFG-CONFLICT", (*path, "free"), "nothing can be added to or taken off a free call", "it alone")
        if discount > PPM:
            yield Ruled("CFG-RANGE", (*path, "discount_percent"), "a discount is at most 100 percent", "0 to 100")
        if markup > MARKUP_PPM_MAX:
            yield Ruled("CFG-RANGE", (*path, "markup_percent"), "no mark-up is that large", "0 to 10000")
        if fee > FEE_NANOS_MAX:
            yield Ruled("CFG-RANGE", (*path, "fee"), "no fee of one call is that large", "0 to 1000 dollars")
        select = {name: value for name, value in rule.select.model_dump().items() if value is not None}
        if "operation" in select:
            if select.setdefault("service", select["operation"]) != select["operation"]:
                yield Ruled(
                    "CFG-CONFLICT", (*path, "select", "operation"), "is not what service says", "one of the two"
                )
            del select["operation"]
        if "provider" in select and select["provider"] not in providers:
            yield points_nowhere((*path, "select", "provider"), "provider", select["provider"], providers)
        first = next((n for n, before in enumerate(selectors) if before.items() <= select.items()), None)
        if first is not None:
            problem = f"it never holds: pricing.charges[{first}] comes first and matches all that it would"
            yield Ruled("CFG-CONFLICT", path, problem, hint="put rules for fewer calls before those for more")
        selectors.append(select)


def _prices(config: Config) -> Iterator[Ruled]:
    seen: dict[tuple[str | None, ...], int] = {}
    for index, override in enumerate(config.pricing.overrides):
        path: Path = ("pricing", "overrides", index)
        place = (override.unit, override.variant, override.service_tier)
        identity = (override.provider, override.model, *place, override.effective_from)
        if identity in seen:
            yield Ruled("CFG-CONFLICT", path, f"the same price stands in pricing.overrides[{seen[identity]}] already")
        seen.setdefault(identity, index)
        picos = money.picos(override.price)
        # An image or a search costs what it costs, and a price of 0 is a decision; neither is a slip of the unit.
        if not override.unit.endswith("_tokens") or picos == 0 or override.confirm_price:
            continue
        per_million = picos * 1_000_000 // override.per
        if not PRICE_BAND_PICOS[0] <= per_million <= PRICE_BAND_PICOS[1]:
            problem = (
                f"{override.price} dollars per {override.per} is {money.dollars_of_picos(per_million)} per million"
            )
            hint = "is the price per 1,000 or per 1,000,000? Set confirm_price: true if it is meant"
            yield Ruled("CFG-PRICE", (*path, "price"), problem, "0.000001 to 10000 dollars per million", hint)
