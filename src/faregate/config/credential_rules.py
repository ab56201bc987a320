"""The rules of credentials that are fetched: which keys belong together, and where secrets may be sent."""

import ipaddress
import os
import shutil
from collections.abc import Iterator
from pathlib import Path as FilePath
from urllib.parse import urlsplit

from faregate.config.credentials import ProviderCredential
from faregate.config.findings import Path, Ruled
from faregate.config.values import is_address, is_loopback

#: Keys that say something to some kinds only.
_OF_KIND = {
    "entra": {"tenant", "client_id", "client_secret", "certificate_file", "federated_token_file", "managed_identity"}
    | {"authority", "scope", "resource", "cache", "ca_file"},
    "oauth2": {"client_id", "client_secret", "token_url", "scope", "resource", "audience", "auth", "cache", "ca_file"},
    "command": {"command", "every", "header"},
}

#: The ways in which an application proves itself to Entra ID.
_PROOFS = ("client_secret", "certificate_file", "federated_token_file", "managed_identity")


def check_credential(credential: ProviderCredential, path: Path, folder: FilePath) -> Iterator[Ruled]:
    """What is wrong with a provider's credential, beside where it is; relative files are looked for in ``folder``."""
    kind = credential.kind
    for name in sorted(credential.model_fields_set - {"kind"} - _OF_KIND[kind]):
        yield Ruled("CFG-CONFLICT", (*path, name), f"says nothing to a credential of the kind {kind}", "it left out")
    checks = {"entra": _entra, "oauth2": _oauth2, "command": _command}
    yield from checks[kind](credential, path, folder)
    for name in ("ca_file", "certificate_file"):
        named = getattr(credential, name)
        if named and not (folder / named).is_file():
            yield Ruled("CFG-REF", (*path, name), f"{folder / named} is not a file", "a PEM file")
    for name in ("authority", "token_url"):
        url = getattr(credential, name)
        if url is not None:
            yield from _address(url, (*path, name))


def _entra(credential: ProviderCredential, path: Path, folder: FilePath) -> Iterator[Ruled]:
    given = [name for name in _PROOFS if getattr(credential, name)]
    expected = "one of client_secret, certificate_file, federated_token_file, managed_identity: true"
    if not given:
        yield Ruled("CFG-MISSING", path, "does not say how the gate proves itself to Entra ID", expected)
    elif len(given) > 1:
        yield Ruled("CFG-CONFLICT", path, f"has both {given[0]} and {given[1]}", expected)
    if not credential.managed_identity:
        for name in ("tenant", "client_id"):
            if getattr(credential, name) is None:
                yield Ruled("CFG-MISSING", (*path, name), "is missing")
    elif credential.tenant is not None or credential.authority is not None:
        name = "tenant" if credential.tenant is not None else "authority"
        yield Ruled("CFG-CONFLICT", (*path, name), "the machine knows it itself", "it left out")
    if credential.scope is not None and credential.resource is not None:
        yield Ruled("CFG-CONFLICT", (*path, "resource"), "scope says it already", "one of the two")
    token_file = credential.federated_token_file
    if token_file and not (folder / token_file).parent.is_dir():
        # The file itself may come later: a cluster writes it when it starts what runs there.
        yield Ruled("CFG-REF", (*path, "federated_token_file"), f"{folder / token_file} has no folder", "a file")


def _oauth2(credential: ProviderCredential, path: Path, folder: FilePath) -> Iterator[Ruled]:
    del folder
    for name in ("token_url", "client_id", "client_secret"):
        if getattr(credential, name) is None:
            yield Ruled("CFG-MISSING", (*path, name), "is missing")


def _command(credential: ProviderCredential, path: Path, folder: FilePath) -> Iterator[Ruled]:
    if not credential.command:
        yield Ruled("CFG-MISSING", (*path, "command"), "is missing", "a list: program, then each argument by itself")
        return
    program = credential.command[0]
    if "/" in program:
        file = folder / program
        if not file.is_file() or not os.access(file, os.X_OK):
            yield Ruled("CFG-REF", (*path, "command", 0), f"{file} is not a program that may be run", "a program")
    elif shutil.which(program) is None:
        hint = "a shell's own commands, pipes and quotes do not work here: no shell reads it"
        yield Ruled("CFG-REF", (*path, "command", 0), f"no program is called {program}", "a program", hint)


def _address(url: str, path: Path) -> Iterator[Ruled]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and not is_loopback(host):
        yield Ruled("CFG-UNSAFE", path, "the secret would cross the network in the clear", "https")
    if is_address(host) and ipaddress.ip_address(host).is_link_local:
        hint = "set managed_identity: true, which is the only thing that asks there"
        yield Ruled("CFG-UNSAFE", path, "this is where clouds tell a machine its own secrets", hint=hint)
