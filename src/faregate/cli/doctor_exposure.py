"""`doctor`: what lies open that should not. Files, listeners, the environment, and ways to a provider around the gate.

Looking at files and names costs nothing and is always done. Whether a provider serves whoever comes is only known by
asking it, which `doctor --providers` does: two bounded calls to each, of its list of models, which nobody bills.
"""

import asyncio
import email.utils
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from faregate.cli.addresses import url_of
from faregate.cli.listening import Listener
from faregate.cli.looks import Look
from faregate.config.folder import DataFolder
from faregate.config.load import Loaded
from faregate.config.schema import Provider
from faregate.config.tree import Environment
from faregate.config.values import is_loopback
from faregate.config.variables import proxy_for

_FILE_REFERENCE: Final = re.compile(r"""(?<![A-Za-z0-9$])file:([^\s"',}\]]+)""")

#: Names under which client libraries look for a credential by themselves.
_TAKEN_BY_CLIENTS: Final = frozenset(
    {"OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"}
)

#: Shorter texts stand in an environment by accident.
_SECRET_CHARACTERS_MIN: Final = 12

ASK_SECONDS_MAX: Final = 10.0
ASKED_AT_ONCE: Final = 8
#: Windows, tokens and signatures bear so much; more and they end early or late.
SKEW_SECONDS_MAX: Final = 5.0

_CREDENTIAL_HEADERS: Final = {"azure_openai": "api-key", "anthropic": "x-api-key", "gemini": "x-goog-api-key"}


def folder_mode(folder: DataFolder) -> Iterator[Look]:
    """Whether others may look into the data folder."""
    mode = stat.S_IMODE(folder.root.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Look(
            "data folder",
            "warning",
            f"{folder.root} is open to other users (mode {mode:04o})",
            "they see which files there are, and read every file whose own mode lets them",
            f"chmod 700 {folder.root}",
        )


def referenced_files(file: Path, folder: Path) -> Iterator[Look]:
    """Whether others may read the files with secrets that a configuration names."""
    try:
        names = sorted(set(_FILE_REFERENCE.findall(file.read_text(errors="replace"))))
    except OSError:
        return
    for path in (folder / name for name in names):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            yield Look(
                "secret files",
                "failed",
                f"{path} can be read by everybody on this machine (mode {mode:04o})",
                "whoever reads it calls the provider at your expense, past every limit",
                f"chmod 600 {path}",
            )


def access(listener: Listener) -> Look:
    """Whether other machines reach a listener without TLS."""
    name, where = listener.role, url_of(listener.host, listener.port, tls=listener.tls)
    if is_loopback(listener.host):
        return Look(f"{name} access", "ok", f"{where}: only this machine reaches it")
    if listener.tls:
        return Look(f"{name} access", "ok", f"{where}: other machines reach it over TLS")
    return Look(
        f"{name} access",
        "warning",
        f"{where} is reached by other machines without TLS; {name}.behind_proxy says that a proxy ends it",
        "whoever reaches this port past the proxy sends keys in the clear",
        f"let only the proxy reach it: listen on its side alone ({name}.host), or close the port in a firewall",
    )


def environment(loaded: Loaded | None, environment: Environment) -> Iterator[Look]:
    """Credentials of providers that programs which are started here find by themselves."""
    config = loaded.config if loaded is not None else None
    secrets = {
        provider.api_key.get_secret_value(): provider.name
        for provider in (config.providers if config is not None else ())
        if provider.api_key is not None and len(provider.api_key.get_secret_value()) >= _SECRET_CHARACTERS_MIN
    }
    for name, value in sorted(environment.items()):
        provider = secrets.get(value)
        if provider is None or name not in _TAKEN_BY_CLIENTS:
            continue
        yield Look(
            "bypass",
            "warning",
            f"the credential of {provider} stands in this environment as {name}",
            "client libraries find it under this name: a program that is started here calls the provider past the gate",
            "keep it in a file of its own (api_key: file:PATH, mode 0600) or in the service's environment only",
        )


def ask_providers(loaded: Loaded, environment: Environment) -> list[Look]:
    """Ask every provider with a list of models, with and without its credential: its clock, and who may come."""
    # Loaded only here: a look without questions needs no HTTP client.
    import httpx2

    async def all_of_them() -> list[Look]:
        room = asyncio.Semaphore(ASKED_AT_ONCE)

        async def one(provider: Provider) -> list[Look]:
            proxy = provider.proxy if provider.proxy is not None else proxy_for(provider.base_url, environment)
            verify: bool | str = str(loaded.folder / provider.ca_file) if provider.ca_file else True
            async with (
                room,
                httpx2.AsyncClient(
                    proxy=proxy or None, verify=verify, trust_env=False, timeout=ASK_SECONDS_MAX, follow_redirects=False
                ) as client,
            ):
                return await _asked(client, provider)

        found = await asyncio.gather(*(one(provider) for provider in loaded.config.providers))
        return [look for looks in found for look in looks]

    return asyncio.run(all_of_them())


async def _asked(client: object, provider: Provider) -> list[Look]:
    import httpx2

    assert isinstance(client, httpx2.AsyncClient)
    name, url = f"provider {provider.name}", f"{provider.base_url}/models"
    if provider.kind == "azure_openai":
        url = f"{provider.base_url}/openai/models?api-version={provider.api_version}"
    try:
        before = time.time()
        open_to_all = await client.get(url)
        after = time.time()
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        return [_silent(provider, name, error)]
    looks: list[Look] = []
    if open_to_all.status_code == 200:
        looks.append(
            Look(
                name,
                "failed",
                f"{provider.base_url} answers without any credential",
                "whoever reaches it calls it past the gate, unlimited and unbooked",
                "let it ask for a credential that only the gate has, or let only the gate reach it",
            )
        )
    elif provider.api_key is not None:
        looks.append(await _with_credential(client, provider, url, name))
    skew = _skew(open_to_all.headers.get("date", ""), before, after)
    if skew:
        where = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'}"
        looks.append(
            Look(
                "clock",
                "warning",
                f"this machine's clock is {where} that of {provider.name}",
                "windows of limits begin early or late, and tokens and signatures are refused",
                "let the machine follow a time server: `timedatectl set-ntp true`",
            )
        )
    return looks


def _silent(provider: Provider, name: str, error: Exception) -> Look:
    return Look(
        name,
        "warning",
        f"{provider.base_url} does not answer from here: {type(error).__name__}",
        "calls to it fail, unless the gate's machine reaches it by another way",
        f"look at base_url and proxy of {provider.name}, and at what lies between: DNS, a firewall",
    )


async def _with_credential(client: object, provider: Provider, url: str, name: str) -> Look:
    import httpx2

    assert isinstance(client, httpx2.AsyncClient)
    assert provider.api_key is not None
    secret = provider.api_key.get_secret_value()
    header = _CREDENTIAL_HEADERS.get(provider.kind, "authorization")
    try:
        answer = await client.get(url, headers={header: secret if header != "authorization" else f"Bearer {secret}"})
    except (httpx2.HTTPError, OSError) as error:
        return _silent(provider, name, error)
    if answer.status_code in (401, 403):
        return Look(
            name,
            "warning",
            f"{provider.base_url} refuses its credential from here ({answer.status_code})",
            "calls to it fail, unless it takes the credential from the gate's machine only",
            "on the gate's machine: make a new credential; elsewhere this is as it should be",
        )
    return Look(name, "ok", f"{provider.base_url} asks for a credential, and takes ours from this machine")


def _skew(date: str, before: float, after: float) -> float:
    """Seconds by which this clock is ahead of a ``Date`` header's; 0 where it is right, or nobody can tell."""
    try:
        told = email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return 0.0
    # The header has whole seconds, and was written at some moment between question and answer.
    if before - 1 - SKEW_SECONDS_MAX <= told <= after + SKEW_SECONDS_MAX:
        return 0.0
    return (before + after) / 2 - told
