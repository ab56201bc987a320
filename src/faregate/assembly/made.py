"""What was made through the API of places to send calls to, in the form that the configuration's own has."""

import logging
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

from faregate.catalogue.declared import DeclaredDeployment
from faregate.config.pools import Pool, Selected
from faregate.config.schema import Config, Model, Timeouts
from faregate.config.secret_box import Place, SecretBox, box_of, provider_place
from faregate.config.secrets import Secrets
from faregate.control import Provider, masked_of
from faregate.errors import Failed
from faregate.ports import MadePlaces, Row

logger = logging.getLogger("faregate.catalogue")

#: Kind → the header that carries its key, and what stands before it; all others take a bearer token.
KEY_HEADERS: Final[Mapping[str, tuple[str, str]]] = {
    "azure_openai": ("api-key", ""),
    "anthropic": ("x-api-key", ""),
    "gemini": ("x-goog-api-key", ""),
}

#: Settings of a provider that the gate has as they are, each with its own default.
_AS_SET: Final = ("client_gone", "stream_usage", "lookup", "connections_max")

#: What is sealed, and for which place → the secret, as it is sent.
OpenSecret = Callable[[str, Place], str]


def secret_box(secrets: Secrets) -> SecretBox | None:
    """The box of an installation with these secrets; ``None`` where they have no key for it."""
    return box_of(secrets.installation, [(each.id, each.key) for each in secrets.encryption], os.urandom)


def key_header(kind: str) -> tuple[str, str]:
    """The header that carries a key of a kind of provider, and what stands before the key."""
    return KEY_HEADERS.get(kind, ("authorization", "Bearer "))


def in_use(made: MadePlaces, config: Config) -> MadePlaces:
    """Without what is disabled, and without what has the name of something in the configuration: that goes before."""
    return MadePlaces(
        _others(made.providers, [*config.providers, *config.services]),
        _others(made.deployments, [*config.deployments, *config.pools, *config.services]),
        _others(made.models, [*config.models, *config.pools, *config.services]),
        _others(made.pools, [*config.pools, *config.deployments, *config.models]),
        _others(made.services, [*config.services, *config.providers, *config.deployments, *config.models]),
    )


def _others(rows: Collection[Row], declared: Collection[Any]) -> tuple[Row, ...]:
    names = {each.name for each in declared}
    return tuple(row for row in rows if row["name"] not in names and row.get("state", "active") == "active")


class OwnSecret(NamedTuple):
    """The secret of a row as it is sent, empty where it has none; or that it does not open."""

    text: str = ""
    closed: bool = False


def own_secret(row: Row, place: Place, open_secret: OpenSecret) -> OwnSecret:
    """The secret of a row that has its place; the log tells where it does not open."""
    try:
        return OwnSecret(open_secret(row["secret"], place) if row["secret"] else "")
    except Failed as error:
        logger.error(f"{place.kind}_secret_unreadable", extra={place.kind: row["name"], "why": error.message})
        return OwnSecret(closed=True)


def made_provider(row: Row, open_secret: OpenSecret, proxy_for: Callable[[str], str]) -> Provider:
    """A provider of the books as the gate sees it.

    One whose secret does not open waits for a credential that never comes: its calls are refused, and not sent without.
    """
    settings: dict[str, Any] = row["settings"] or {}
    timeouts = {**milliseconds(Timeouts()), **settings.get("timeouts", {})}
    secret, closed = own_secret(row, provider_place(row["id"], row["base_url"]), open_secret)
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


def milliseconds(timeouts: Timeouts) -> dict[str, int]:
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
