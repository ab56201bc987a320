"""The configuration and the books' own prices → what the catalogue is compiled from."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from faregate.assembly.made import (
    OpenSecret,
    in_use,
    key_header,
    made_deployment,
    made_model,
    made_pool,
    made_provider,
)
from faregate.assembly.services import declared_services, made_services
from faregate.catalogue.declared import Declared, DeclaredDeployment, DeclaredModel, PriceRow
from faregate.config.identity_rules import identity_of
from faregate.config.leading import led_elsewhere, places_of
from faregate.config.pools import Pool as ConfiguredPool
from faregate.config.pools import breaker_rule, pool_rule, retry_rule, who_of
from faregate.config.schema import ChargeRule as ConfiguredCharge
from faregate.config.schema import Config
from faregate.config.schema import Provider as ConfiguredProvider
from faregate.config.secret_box import Place
from faregate.config.tree import Environment
from faregate.config.variables import proxy_for
from faregate.control import Mirror, Provider, RoutedPool, Selection, masked_of
from faregate.core import money
from faregate.core.pricing.charging import ChargeRule, ppm
from faregate.core.routing.choose import USUAL_RANGES
from faregate.errors import Failed
from faregate.ports import NO_PLACES, MadePlaces, Row


def _sealed(sealed: str, place: Place) -> str:
    """Nobody can open it here."""
    raise Failed(f"the secret of {place.kind} {place.id} cannot be opened here", code="secret_sealed")


def declared(
    config: Config,
    folder: Path,
    environment: Environment,
    price_rows: Sequence[Row] = (),
    projects: Sequence[str] = (),
    made: MadePlaces = NO_PLACES,
    open_secret: OpenSecret = _sealed,
) -> Declared:
    """Everything declared, and what was ``made`` by the API behind it.

    ``price_rows`` are the books' own prices: they come later and so win over the file's.
    """
    made = in_use(made, config)

    def proxy(url: str) -> str:
        return proxy_for(url, environment)

    return Declared(
        providers=(
            *(_provider(provider, folder, environment) for provider in config.providers),
            *(made_provider(row, open_secret, proxy) for row in made.providers),
        ),
        deployments=(
            *(
                DeclaredDeployment(
                    each.name,
                    each.provider,
                    each.deployment or each.model,
                    each.model,
                    each.max_output_tokens or 0,
                    each.region,
                )
                for each in config.deployments
            ),
            *map(made_deployment, made.deployments),
        ),
        models=tuple(_models(config, made)),
        overrides=(*_overrides(config), *(_own_price(row) for row in price_rows)),
        stages=tuple((name, stage.providers or _everybody(config, made)) for name, stage in config.stages.items()),
        projects=tuple(projects),
        require_limit=config.limits.require,
        require_limit_stages=tuple(name for name, stage in config.stages.items() if stage.require_limit),
        stage_caching=tuple((name, stage.cache) for name, stage in config.stages.items() if stage.cache is not None),
        unknown_price=config.pricing.unknown,
        ceiling=tuple(
            PriceRow(each.provider or "", "*", each.unit, each.per, money.picos(each.price))
            for each in config.pricing.ceiling
        ),
        charges=tuple(_charge(rule) for rule in config.pricing.charges),
        services=(
            *declared_services(config, folder, proxy),
            *made_services(made.services, config.gateway.body_bytes_max, open_secret, proxy),
        ),
        identity=identity_of(config.identity, folder, proxy),
        pools=tuple(_pool(pool, config) for pool in (*config.pools, *map(made_pool, made.pools))),
        breaker=breaker_rule(config.breaker),
        retry=retry_rule(config.retry) if config.retry is not None else None,
    )


def _pool(pool: ConfiguredPool, config: Config) -> RoutedPool:
    retry = retry_rule(pool.retry) if pool.retry is not None else None
    return RoutedPool(pool_rule(pool, USUAL_RANGES), breaker_rule(pool.breaker or config.breaker), retry)


def _everybody(config: Config, made: MadePlaces) -> tuple[str, ...]:
    """What a stage may use that names no providers; a service is its own provider."""
    return (
        *(provider.name for provider in config.providers),
        *(service.name for service in config.services),
        *(row["name"] for row in (*made.providers, *made.services)),
    )


def _provider(provider: ConfiguredProvider, folder: Path, environment: Environment) -> Provider:
    secret = provider.api_key.get_secret_value() if provider.api_key is not None else ""
    credential: dict[str, str] = {}
    if secret:
        header, scheme = key_header(provider.kind)
        credential = {header: scheme + secret}
    proxy = provider.proxy if provider.proxy is not None else proxy_for(provider.base_url, environment)
    return Provider(
        name=provider.name,
        kind=provider.kind,
        base_url=provider.base_url,
        credential=credential,
        api_version=provider.api_version,
        client_gone=provider.client_gone or "",
        stream_usage=provider.stream_usage,
        lookup=provider.lookup.path if provider.lookup is not None else "",
        connect_timeout_ms=provider.timeouts.connect,
        first_byte_timeout_ms=provider.timeouts.first_byte,
        idle_timeout_ms=provider.timeouts.idle,
        total_timeout_ms=provider.timeouts.total,
        ca_file=str(folder / provider.ca_file) if provider.ca_file else "",
        proxy=proxy,
        connections_max=provider.connections_max,
        masked=masked_of(secret),
        renewed=provider.credential is not None,
    )


def _models(config: Config, made: MadePlaces) -> list[DeclaredModel]:
    """The models, with those that go to other models led on to where these go."""
    deployments = {deployment.name for deployment in config.deployments} | {row["name"] for row in made.deployments}
    # A pool goes before a name of the API that it has, too.
    deployments |= {pool.name for pool in config.pools} | {row["name"] for row in made.pools}
    models = [*config.models, *map(made_model, made.models)]
    to = {model.name: model.to for model in models}
    instead = {model.name: tuple((who_of(each.select), each.to) for each in model.instead) for model in models}
    led = led_elsewhere(to, instead, deployments)
    timeouts = {model.name: model.timeout or 0 for model in models}
    return [
        DeclaredModel(
            model.name,
            places_of(model.name, to, deployments)[0],
            model.max_output_tokens or 0,
            model.max_context_tokens or 0,
            tuple(Selection(*each) for each in led.get(model.name, ())),
            model.timeout or _time_of(model.to, timeouts, deployments),
            Mirror(model.mirror.to, model.mirror.percent) if model.mirror is not None else None,
        )
        for model in models
    ]


def _time_of(to: Sequence[str], timeouts: Mapping[str, int], deployments: Collection[str]) -> int:
    """The time of the only name that a name leads to, which is another word for it; 0 where there is none."""
    return timeouts.get(to[0], 0) if len(to) == 1 and to[0] not in deployments else 0


def _overrides(config: Config) -> list[PriceRow]:
    return [
        PriceRow(
            price.provider,
            price.model,
            price.unit,
            price.per,
            money.picos(price.price),
            _nanos(price.effective_from),
            variant=price.variant or "",
            service_tier=price.service_tier or "",
        )
        for price in config.pricing.overrides
    ]


def _charge(rule: ConfiguredCharge) -> ChargeRule:
    selected = {name: value for name, value in rule.select.model_dump().items() if value is not None}
    if "operation" in selected:
        # The books and the gate call an operation a service.
        selected["service"] = selected.pop("operation")
    return ChargeRule(
        tuple(sorted(selected.items())),
        ppm(rule.discount_percent),
        ppm(rule.markup_percent),
        money.nanos(rule.fee),
        rule.free,
    )


def _nanos(moment: str | None) -> int:
    if moment is None:
        return 0
    at = datetime.fromisoformat(moment)
    since = at - datetime.fromisoformat("1970-01-01T00:00:00Z")
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000


def _own_price(row: Row) -> PriceRow:
    details = row["details"] or {}
    return PriceRow(
        row["provider"],
        row["model"],
        row["unit"],
        row["per"],
        row["pico"],
        row["effective_from"],
        row["effective_to"],
        row["source"],
        variant=details.get("variant", ""),
        service_tier=details.get("service_tier", ""),
        region=details.get("region", ""),
        layer=details.get("layer", "override"),
        above_input_tokens=row["above_input_tokens"],
    )
