"""The credentials of the configuration's providers that are fetched: from where, and as which header they are sent."""

import os
from collections.abc import Callable
from pathlib import Path

from faregate.assembly.made import key_header
from faregate.config.schema import Config
from faregate.config.tree import Environment
from faregate.config.variables import proxy_for
from faregate.jobs.provider_tokens import Wanted
from faregate.jobs.token_sources import Surroundings, source_of

#: How a token is sent, whatever the kind of the provider.
_BEARER = ("authorization", "Bearer ")


def wanted_credentials(
    config: Config, folder: Path, environment: Environment, wall_nanos: Callable[[], int]
) -> tuple[Wanted, ...]:
    """What is to be fetched; relative file names start at ``folder``."""
    around = Surroundings(wall_nanos, os.urandom, environment, folder, lambda url: proxy_for(url, environment))
    found: list[Wanted] = []
    for provider in config.providers:
        wanted = provider.credential
        if wanted is not None:
            as_key = wanted.kind == "command" and wanted.header == "api_key"
            header, scheme = key_header(provider.kind) if as_key else _BEARER
            found.append(Wanted(provider.name, provider.base_url, source_of(wanted, around), header, scheme))
    return tuple(found)
