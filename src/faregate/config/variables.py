"""What variables of the environment mean: the mapping of ``FAREGATE_…`` onto keys, and the proxies that are named.

``FAREGATE_GATEWAY_PORT`` is ``gateway.port``: the path of a single value below the mappings of the schema, in capitals.
Lists (providers, deployments, models, prices) have no such variables.
"""

import typing
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from faregate.config.findings import Finding, Path, Place, did_you_mean, key_text
from faregate.config.schema import Config
from faregate.config.tree import Environment, Referred, Tree
from faregate.config.values import is_loopback, proxy_url

PREFIX = "FAREGATE_"

#: Variables that commands read themselves.
OF_COMMANDS = ("FAREGATE_URL", "FAREGATE_ADMIN_KEY", "FAREGATE_CONFIG", "FAREGATE_DATA")


def variables() -> dict[str, Path]:
    """Every ``FAREGATE_…`` variable and the key that it sets."""
    return {PREFIX + "_".join(path).upper(): path for path in _leaves(Config, ())}


def _leaves(model: type[BaseModel], path: tuple[str, ...]) -> list[tuple[str, ...]]:
    leaves: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        below = _section(field.annotation)
        if below is not None:
            leaves.extend(_leaves(below, (*path, name)))
        elif typing.get_origin(field.annotation) not in (tuple, dict):
            leaves.append((*path, name))
    return leaves


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section an annotation stands for, optional ones included."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            if typing.get_origin(annotation) in (tuple, dict):
                return None
            return candidate
    return None


def override(tree: Tree, environment: Environment) -> list[Finding]:
    """Put the variables of ``environment`` into ``tree``; unknown ones are warnings, returned."""
    for name, path in variables().items():
        if name in environment:
            tree.put(path, Referred(environment[name]), Place(f"environment:{name}"))
    return unknown_variables(environment)


def unknown_variables(environment: Environment) -> list[Finding]:
    """A warning for each ``FAREGATE_…`` variable that nothing reads."""
    known = variables()
    return [
        Finding(
            "CFG-UNKNOWN",
            Place(f"environment:{name}"),
            "",
            "no setting has this name",
            hint=did_you_mean(name, (*known, *OF_COMMANDS)),
        )
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in OF_COMMANDS and name not in known
    ]


def proxy_for(url: str, environment: Environment) -> str:
    """The proxy that the environment names for ``url`` (``HTTPS_PROXY`` and its kin); empty for none.

    Loopback addresses never go through a proxy, and neither does what ``NO_PROXY`` lists.
    """
    return _named_proxy(url, environment)[1]


def proxy_findings(config: Config, environment: Environment) -> list[Finding]:
    """What is wrong with the proxies that the environment names for providers without one of their own.

    They obey the rules of ``providers[].proxy``. Those that no provider would go through are nobody's business.
    """
    findings: dict[str, Finding] = {}
    reached = [
        ("providers", index, provider.base_url, provider.proxy) for index, provider in enumerate(config.providers)
    ]
    reached += [("services", index, service.base_url, service.proxy) for index, service in enumerate(config.services)]
    for section, index, base_url, own in reached:
        variable, proxy = _named_proxy(base_url, environment) if own is None else ("", "")
        if variable in findings:
            continue
        try:
            proxy_url(proxy)
        except PydanticCustomError as error:
            told = error.context or {}
            way_out = f'or set {key_text((section, index, "proxy"))} ("" for none)'
            hint = f"{told['hint']}, {way_out}" if told["hint"] else f"correct it, {way_out}"
            findings[variable] = Finding(
                told["code"], Place(f"environment:{variable}"), "", told["problem"], told["expected"], hint
            )
    return list(findings.values())


def _named_proxy(url: str, environment: Environment) -> tuple[str, str]:
    """The variable that names the proxy for ``url``, and that proxy as a URL; both empty for none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    named = {
        name.lower()[: -len("_proxy")]: (name, value)
        for name, value in environment.items()
        if name.lower().endswith("_proxy") and value
    }
    variable, proxy = named.get(parts.scheme) or named.get("all") or ("", "")
    if not proxy or is_loopback(host) or _bypassed(host, parts.netloc, named.get("no", ("", ""))[1]):
        return "", ""
    return variable, (proxy if "://" in proxy else f"http://{proxy}").rstrip("/")


def _bypassed(host: str, netloc: str, listed: str) -> bool:
    """Whether ``NO_PROXY`` lists a host, by itself, by its domain, or as ``*``."""
    for entry in (entry.strip().lstrip(".").lower() for entry in listed.split(",")):
        if entry == "*" or (entry and (entry in (host, netloc.lower()) or host.endswith(f".{entry}"))):
            return True
    return False


def documented() -> list[tuple[str, str]]:
    """``(variable, key)`` of every variable, for the reference."""
    return [(name, key_text(path)) for name, path in variables().items()]
