"""File and environment → ``Config``, or everything that is wrong with them, told at once."""

from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from faregate.config.findings import Finding, Invalid, Path, Place, key_text
from faregate.config.read import parse, read_bytes
from faregate.config.rules import check_rules
from faregate.config.schema import Config
from faregate.config.telling import references
from faregate.config.tree import Environment, Node, Referred, Scalar, Tree
from faregate.config.validated import placed, published_schema, validated
from faregate.config.variables import override, proxy_findings


class Given(NamedTuple):
    """A value from a command line: it goes before the file and the environment."""

    option: str
    path: Path
    value: Scalar


class Loaded(NamedTuple):
    """A configuration that can be used, what is worth saying about it, and where relative file names start."""

    config: Config
    warnings: tuple[Finding, ...]
    folder: FilePath
    #: Paths of values that came from the environment or from a file.
    references: frozenset[str] = frozenset()


def load(file: FilePath, environment: Environment, given: Sequence[Given] = ()) -> Loaded:
    """Read, check and freeze a configuration file with the overrides of the environment and the command line.

    Raises:
        Invalid: every reason why it cannot be used, in the order of the file.
    """
    content, world_readable = read_bytes(file)
    folder = file.absolute().parent
    return load_text(content, str(file), environment, folder, given, world_readable=world_readable)


def load_text(
    content: bytes,
    source: str,
    environment: Environment,
    folder: FilePath,
    given: Sequence[Given] = (),
    *,
    world_readable: bool = False,
) -> Loaded:
    """As ``load``, for content that was read or made already; ``source`` is what messages call it.

    Raises:
        Invalid: every reason why it cannot be used.
    """
    tree, findings = parse(content, source, environment, folder)
    warnings = override(tree, environment)
    for option, path, value in given:
        tree.put(path, value, Place(option))
    if world_readable:
        findings.extend(_inline_secrets(tree))
    config = validated(Config, tree, findings)
    for ruled in check_rules(config, folder):
        finding = placed(ruled, tree)
        (warnings if ruled.warning else findings).append(finding)
    findings.extend(proxy_findings(config, environment))
    if findings:
        raise Invalid(findings)
    return Loaded(config, tuple(warnings), folder, references(tree))


def schema_json() -> dict[str, Any]:
    """The JSON Schema of the file, for editors."""
    return published_schema(Config, "faregate.yaml")


def _inline_secrets(tree: Tree) -> Iterator[Finding]:
    entries: list[tuple[Path, Node]] = []
    for section in (("providers",), ("services",), ("alerts", "channels")):
        listed = tree.at(section)
        entries += [
            ((*section, index), entry) for index, entry in enumerate(listed if isinstance(listed, list) else ())
        ]
    for place, entry in tuple(entries):
        entries.append(((*place, "credential"), entry.get("credential") if isinstance(entry, dict) else None))
    entries.append((("alerts", "azure_budget"), tree.at(("alerts", "azure_budget"))))
    for place, entry in entries:
        if not isinstance(entry, dict):
            continue
        for key in ("api_key", "proxy", "secret", "url", "client_secret"):
            value = entry.get(key)
            if not isinstance(value, str) or isinstance(value, Referred) or not value:
                continue
            if key == "proxy" and "@" not in urlsplit(value).netloc:
                continue
            if key == "url" and value.startswith(("http://", "https://")):
                # Other addresses of channels hold the credentials of their service.
                continue
            path: Path = (*place, key)
            problem = "a secret stands in a file that everybody on this machine may read"
            hint = f"chmod 600 {tree.source}, or write ${{NAME}} or file:PATH instead of the secret"
            yield Finding("CFG-UNSAFE", tree.place(path), key_text(path), problem, hint=hint)
