"""What was made through the API of places to send calls to, in the form that the configuration's own has."""

import logging
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from faregate.catalogue.declared import DeclaredDeployment
from faregate.config.pools import Pool, Selected, instead_as_sent, rule_as_sent
from faregate.config.schema import Config, Model, Timeouts
from faregate.config.secret_box import SecretBox, box_of, masked, provider_place
from faregate.config.secrets import Secrets
from faregate.control import Provider, masked_of
from faregate.errors import Failed
from faregate.ports import DECLARED, MadePlaces, Row

logger = logging.getLogger("faregate.catalogue")

#: Kind → the header that carries its key, and what stands before it; all others take a bearer token.
KEY_HEADERS: Final[Mapping[str, tuple[str, str]]] = {
    "azure_openai": ("api-key", ""),
    "anthropic": ("x-api-key", ""),
    "gemini": ("x-goog-api-key", ""),
}

#: Settings of a provider that the gate has as they are, each with its own default.
_AS_SET: Final = ("client_gone", "stream_usage", "lookup", "connections_max")

#: Row of a provider → its secret, as it is sent; empty where it has none.
OpenSecret = Callable[[Row], str]


def secret_box(secrets: Secrets) -> SecretBox | None:
    """The box of an installation with these secrets; ``None`` where they have no key for it."""
    return box_of(secrets.installation, [(each.id, each.key) for each in secrets.encryption], os.urandom)


def opener(box: SecretBox) -> OpenSecret:
    """Opens secrets of providers with the keys of an installation."""
    return lambda row: box.open(row["secret"], provider_place(row["id"], row["base_url"]))


def key_header(kind: str) -> tuple[str, str]:
    """The header that carries a key of a kind of provider, and what stands before the key."""
    return KEY_HEADERS.get(kind, ("authorization", "Bearer "))


def in_use(made: MadePlaces, config: Config) -> MadePlaces:
    """Without what is disabled, and without what has the name of something in the configuration: that goes before."""
    return MadePlaces(
        _others(made.providers, [*config.providers, *config.services]),
        _others(made.deployments, [*config.deployments, *config.pools]),
        _others(made.models, [*config.models, *config.pools]),
        _others(made.pools, [*config.pools, *config.deployments, *config.models]),
    )


def _others(rows: Collection[Row], declared: Collection[Any]) -> tuple[Row, ...]:
    names = {each.name for each in declared}
    return tuple(row for row in rows if row["name"] not in names and row.get("state", "active") == "active")


def made_provider(row: Row, open_secret: OpenSecret, proxy_for: Callable[[str], str]) -> Provider:
    """A provider of the books as the gate sees it.

    One whose secret does not open waits for a credential that never comes: its calls are refused, and not sent without.
    """
    settings: dict[str, Any] = row["settings"] or {}
    timeouts = {**_milliseconds(Timeouts()), **settings.get("timeouts", {})}
    closed = False
    secret = ""
    try:
        secret = open_secret(row) if row["secret"] else ""
    except Failed as error:
        closed = True
        logger.error("provider_secret_unreadable", extra={"provider": row["name"], "why": error.message})
    header, scheme = key_header(row["kind"])
    return Provider(
        name=row["name"],
        kind=row["kind"],
        base_url=row["base_url"],
        credential={header: scheme + secret} if secret else {},
        api_version=row["api_version"],
        connect_timeout_ms=timeouts["connect"],
        first_byte_timeout_ms=timeouts["first_byte"],
        idle_timeout_ms=timeouts["idle"],
        total_timeout_ms=timeouts["total"],
        proxy=proxy_for(row["base_url"]),
        masked=masked_of(secret),
        renewed=closed,
        reach=settings.get("reach", "public"),
        **{name: settings[name] for name in _AS_SET if name in settings},
    )


def _milliseconds(timeouts: Timeouts) -> dict[str, int]:
    """The numbers themselves, which a dump would write as text."""
    return {name: getattr(timeouts, name) for name in Timeouts.model_fields}


def made_deployment(row: Row) -> DeclaredDeployment:
    """A deployment of the books as the catalogue takes it."""
    return DeclaredDeployment(
        row["name"],
        row["provider"],
        row["deployment"] or row["model"],
        row["model"],
        row["max_output_tokens"],
        row["region"],
    )


def made_model(row: Row) -> Model:
    """A name of the books as the configuration has one; its values were checked when it was made."""
    return Model.model_construct(
        name=row["name"],
        to=tuple(row["to"] or ()),
        max_output_tokens=row["max_output_tokens"] or None,
        max_context_tokens=row["max_context_tokens"] or None,
        instead=tuple(map(Selected.model_validate, row.get("instead") or ())),
        timeout=None,
    )


def made_pool(row: Row) -> Pool:
    """A pool of the books as the configuration has one."""
    return Pool.model_validate({"name": row["name"], **row["rule"]})


def declared_rows(config: Config) -> MadePlaces:
    """What the configuration declares, as rows of the books; secrets are left out but for whether there is one."""
    providers = []
    for provider in config.providers:
        told = provider.credential.kind if provider.credential is not None else ""
        providers.append(
            _row(provider.name)
            | {
                "kind": provider.kind,
                "base_url": provider.base_url,
                "secret": "",
                "masked": masked(provider.api_key.get_secret_value()) if provider.api_key is not None else "",
                "api_version": provider.api_version,
                "state": "active",
                "settings": {
                    "client_gone": provider.client_gone or "",
                    "stream_usage": provider.stream_usage,
                    "lookup": provider.lookup.path if provider.lookup is not None else "",
                    "timeouts": _milliseconds(provider.timeouts),
                    "connections_max": provider.connections_max,
                    "allow_http": provider.allow_http,
                    "allow_private": provider.allow_private,
                    "credential": told,
                },
            }
        )
    deployments = [
        _row(each.name)
        | {
            "provider": each.provider,
            "deployment": each.deployment or "",
            "model": each.model,
            "max_output_tokens": each.max_output_tokens or 0,
            "region": each.region,
            "state": "active",
        }
        for each in config.deployments
    ]
    models = [
        _row(each.name)
        | {
            "to": list(each.to),
            "max_output_tokens": each.max_output_tokens or 0,
            "max_context_tokens": each.max_context_tokens or 0,
            "instead": instead_as_sent(each.instead),
        }
        for each in config.models
    ]
    pools = [_row(each.name) | {"rule": rule_as_sent(each)} for each in config.pools]
    return MadePlaces(providers, deployments, models, pools)


def _row(name: str) -> Row:
    return {"id": f"{DECLARED}{name}", "name": name, "details": {}, "created_at": 0, "updated_at": 0}
