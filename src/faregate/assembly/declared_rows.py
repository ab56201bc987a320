"""What the configuration declares, as rows of the books, so that the console shows both kinds alike.

Secrets are left out but for where they begin and end, and so are files and proxies of the machine.
"""

from faregate.assembly.made import milliseconds
from faregate.config import pools, services
from faregate.config.schema import Config, Deployment, Model, Provider
from faregate.config.secret_box import masked
from faregate.config.services import Service
from faregate.ports import DECLARED, MadePlaces, Row


def declared_rows(config: Config) -> MadePlaces:
    """All places to send calls to that the configuration declares; their ids begin with ``file:``."""
    return MadePlaces(
        tuple(map(_provider, config.providers)),
        tuple(map(_deployment, config.deployments)),
        tuple(map(_model, config.models)),
        tuple(_row(each.name) | {"rule": pools.rule_as_sent(each)} for each in config.pools),
        tuple(map(_service, config.services)),
    )


def _provider(provider: Provider) -> Row:
    return _row(provider.name) | {
        "kind": provider.kind,
        "base_url": provider.base_url,
        "secret": "",
        "masked": _mask(provider),
        "api_version": provider.api_version,
        "state": "active",
        "settings": {
            "client_gone": provider.client_gone or "",
            "stream_usage": provider.stream_usage,
            "lookup": provider.lookup.path if provider.lookup is not None else "",
            "timeouts": milliseconds(provider.timeouts),
            "connections_max": provider.connections_max,
            "allow_http": provider.allow_http,
            "allow_private": provider.allow_private,
            "credential": provider.credential.kind if provider.credential is not None else "",
        },
    }


def _deployment(deployment: Deployment) -> Row:
    return _row(deployment.name) | {
        "provider": deployment.provider,
        "deployment": deployment.deployment or "",
        "model": deployment.model,
        "max_output_tokens": deployment.max_output_tokens or 0,
        "region": deployment.region,
        "state": "active",
    }


def _model(model: Model) -> Row:
    return _row(model.name) | {
        "to": list(model.to),
        "max_output_tokens": model.max_output_tokens or 0,
        "max_context_tokens": model.max_context_tokens or 0,
        "instead": pools.instead_as_sent(model.instead),
    }


def _service(service: Service) -> Row:
    return _row(service.name) | {
        "base_url": service.base_url,
        "secret": "",
        "masked": _mask(service),
        "state": "active",
        "reach": "",
        "rule": services.rule_as_sent(service),
    }


def _mask(place: Provider | Service) -> str:
    return masked(place.api_key.get_secret_value()) if place.api_key is not None else ""


def _row(name: str) -> Row:
    return {"id": f"{DECLARED}{name}", "name": name, "details": {}, "created_at": 0, "updated_at": 0}
