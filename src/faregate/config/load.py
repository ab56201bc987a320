"""File and environment → ``Config``, or everything that is wrong with them, told at once."""

import itertools
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from faregate.config.environment import override, proxy_findings
from faregate.config.findings import Finding, Invalid, Path, Place, Ruled, did_you_mean, key_text, quoted
from faregate.config.read import parse, read_bytes
from faregate.config.rules import check_rules
from faregate.config.schema import NOT_YET, Config
from faregate.config.tree import Environment, Node, Referred, Scalar, Tree


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
    told = {finding.key for finding in findings}
    warnings = override(tree, environment)
    for option, path, value in given:
        tree.put(path, value, Place(option))
    if world_readable:
        findings.extend(_inline_secrets(tree))
    try:
        config = Config.model_validate(tree.root)
    except ValidationError as error:
        for details in error.errors(include_url=False, include_context=True):
            if details["type"] == "too_short" and tree.at(details["loc"]):
                continue  # its items are wrong, and told of by themselves
            finding = _finding(details, tree)
            # A value that was told of while reading stands in the tree as something harmless; once is enough.
            if finding.key not in told:
                findings.append(finding)
        raise Invalid(findings) from None
    for ruled in check_rules(config, folder):
        finding = _placed(ruled, tree)
        (warnings if ruled.warning else findings).append(finding)
    findings.extend(proxy_findings(config, environment))
    if findings:
        raise Invalid(findings)
    return Loaded(config, tuple(warnings), folder)


def schema_json() -> dict[str, Any]:
    """The JSON Schema of the file, for editors."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "faregate.yaml"}


def _inline_secrets(tree: Tree) -> Iterator[Finding]:
    entries: list[tuple[Path, Node]] = []
    for section in (("providers",), ("services",), ("alerts", "channels")):
        listed = tree.at(section)
        entries += [
            ((*section, index), entry) for index, entry in enumerate(listed if isinstance(listed, list) else ())
        ]
    entries.append((("alerts", "azure_budget"), tree.at(("alerts", "azure_budget"))))
    for place, entry in entries:
        if not isinstance(entry, dict):
            continue
        for key in ("api_key", "proxy", "secret", "url"):
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


def _placed(ruled: Ruled, tree: Tree) -> Finding:
    return Finding(ruled.code, tree.place(ruled.path), key_text(ruled.path), ruled.problem, ruled.expected, ruled.hint)


def _finding(details: ErrorDetails, tree: Tree) -> Finding:
    """A complaint of the validation library in our words, without the value where that was referred to."""
    path: Path = details["loc"]
    kind, context = details["type"], details.get("ctx", {})
    if kind == "faregate":
        return Finding(
            context["code"], tree.place(path), key_text(path), context["problem"], context["expected"], context["hint"]
        )
    if kind == "extra_forbidden":
        return _unknown(path, tree)
    value = tree.at(path)
    if kind == "missing" or (value is None and kind.endswith("_type")):
        around = tree.place(path) if kind != "missing" else tree.place(path[:-1])
        problem = "is missing" if kind == "missing" else "has no value"
        return Finding("CFG-MISSING", around, key_text(path), problem)
    place = tree.place(path)
    if kind == "too_short":
        return Finding("CFG-MISSING", place, key_text(path), "is empty", "at least one")
    code = "CFG-TYPE" if kind in _TYPES else "CFG-RANGE"
    expected = _expected(kind, context)
    shown = quoted(value) if isinstance(value, str | int) and not isinstance(value, Referred) else "the value"
    problem = f"{shown} does not fit"
    if isinstance(value, list):
        problem = "this is a list" if kind != "too_long" else "too many items"
    elif isinstance(value, dict):
        problem = "this is a mapping" if kind != "too_long" else "too many keys"
    hint = (
        did_you_mean(str(value), re.findall(r"'([^']*)'", str(context.get("expected", ""))))
        if kind == "literal_error"
        else ""
    )
    return Finding(code, place, key_text(path), problem, expected, hint)


_TYPES = {
    "model_type": "a mapping of keys",
    "dict_type": "a mapping of names",
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
}


def _expected(kind: str, context: dict[str, Any]) -> str:
    if kind in _TYPES:
        return _TYPES[kind]
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "")
    bounds = {"greater_than": "more than {gt}", "greater_than_equal": "at least {ge}"}
    bounds |= {"less_than_equal": "at most {le}", "too_long": "at most {max_length}"}
    bounds |= {"string_pattern_mismatch": "the form {pattern}"}
    return bounds.get(kind, "another value").format_map(context)


def _unknown(path: Path, tree: Tree) -> Finding:
    key = str(path[-1])
    if len(path) == 1 and key in NOT_YET:
        return Finding("CFG-UNKNOWN", tree.key_place(path), key, f"{key} is not available yet", hint="remove it")
    known = _known_keys(path[:-1])
    hint = did_you_mean(key, known) or f"known here: {', '.join(itertools.islice(known, 30))}"
    return Finding("CFG-UNKNOWN", tree.key_place(path), key_text(path), "no setting has this name", hint=hint)


def _known_keys(path: Path) -> list[str]:
    """The keys of the section at a path."""
    model: type[BaseModel] = Config
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            found = _model_in(model.model_fields[part].annotation)
            if found is not None:
                model = found
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _model_in(part)) is not None), None)
