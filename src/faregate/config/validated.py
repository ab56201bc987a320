"""A tree → a model of ours, or what does not fit in our words and at its place; for each kind of file that we read."""

import itertools
import re
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from faregate.config.findings import Finding, Invalid, Path, Ruled, did_you_mean, key_text, quoted
from faregate.config.schema import NOT_YET, Config
from faregate.config.tree import Referred, Tree

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], tree: Tree, findings: list[Finding]) -> Model:
    """The tree as ``model``; ``findings`` are those of reading it, which are told together with these.

    Raises:
        Invalid: something does not fit.
    """
    told = {finding.key for finding in findings}
    try:
        return model.model_validate(tree.root)
    except ValidationError as error:
        for details in error.errors(include_url=False, include_context=True):
            if details["type"] == "too_short" and tree.at(details["loc"]):
                continue  # its items are wrong, and told of by themselves
            finding = _finding(details, tree, model)
            # A value that was told of while reading stands in the tree as something harmless; once is enough.
            if finding.key not in told:
                findings.append(finding)
        raise Invalid(findings) from None


def placed(ruled: Ruled, tree: Tree) -> Finding:
    """A finding of a rule, at the place of its key."""
    return Finding(ruled.code, tree.place(ruled.path), key_text(ruled.path), ruled.problem, ruled.expected, ruled.hint)


def _finding(details: ErrorDetails, tree: Tree, root: type[BaseModel]) -> Finding:
    """A complaint of the validation library in our words, without the value where that was referred to."""
    path: Path = details["loc"]
    kind, context = details["type"], details.get("ctx", {})
    if kind == "faregate":
        return Finding(
            context["code"], tree.place(path), key_text(path), context["problem"], context["expected"], context["hint"]
        )
    if kind == "extra_forbidden":
        return _unknown(path, tree, root)
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


def _unknown(path: Path, tree: Tree, root: type[BaseModel]) -> Finding:
    key = str(path[-1])
    if root is Config and len(path) == 1 and key in NOT_YET:
        return Finding("CFG-UNKNOWN", tree.key_place(path), key, f"{key} is not available yet", hint="remove it")
    known = known_keys(path[:-1], root)
    hint = did_you_mean(key, known) or f"known here: {', '.join(itertools.islice(known, 30))}"
    return Finding("CFG-UNKNOWN", tree.key_place(path), key_text(path), "no setting has this name", hint=hint)


def known_keys(path: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    """The keys of the section at a path."""
    model = root
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            found = _model_in(model.model_fields[part].annotation)
            if found is not None:
                model = found
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _model_in(part)) is not None), None)


#: What any single value may be instead: a reference that is followed when the file is read.
_REFERENCE: dict[str, Any] = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|^file:"}

#: What tells people about a value, and not what it may be.
_TOLD = ("title", "description", "default", "examples")


def published_schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """The JSON Schema of a kind of file, for editors; any single value in it may be a reference."""
    schema = _referable(model.model_json_schema(by_alias=True))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def _referable(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_referable(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("integer", "number", "boolean") or (
        "type" in schema and {"enum", "pattern"} & schema.keys()
    ):
        told = {name: value for name, value in schema.items() if name in _TOLD}
        return {**told, "anyOf": [{name: value for name, value in schema.items() if name not in _TOLD}, _REFERENCE]}
    return {
        name: {key: _referable(each) for key, each in value.items()}
        if name in ("properties", "$defs") and isinstance(value, dict)
        else value
        if name in (*_TOLD, "enum", "const", "required")
        else _referable(value)
        for name, value in schema.items()
    }
