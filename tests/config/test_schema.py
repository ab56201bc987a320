"""The JSON Schemas that editors use agree with what is read: every example of the documents fits its schema."""

import re
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from bad_input.config_rows import GOOD
from faregate.config.load import schema_json
from faregate.config.state_file import state_schema_json

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md"])
FENCE = re.compile(r"^( *)```yaml(| state)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)

KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def examples(page: Path, told: str = "") -> list[str]:
    found = [(indent, body) for indent, kind, body in FENCE.findall(page.read_text()) if kind.strip() == told]
    return ["".join(line.removeprefix(indent) for line in body.splitlines(keepends=True)) for indent, body in found]


def faults(value: Any, schema: Any, root: dict[str, Any], at: str = "$") -> list[str]:
    """What of a value does not fit; as much of JSON Schema as ours use, and what it does not know it refuses."""
    if schema is True or schema == {}:
        return []
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, at)
    if "anyOf" in schema:
        tried = [faults(value, each, root, at) for each in schema["anyOf"]]
        return [] if any(not each for each in tried) else min(tried, key=len)
    found: list[str] = []
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return [f"{at}: {value!r} is no {kinds}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is none of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} is not {schema['const']!r}")
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{at}: {value!r} has not the form {schema['pattern']}")
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        found += [f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, below in value.items():
            if name in properties:
                found += faults(below, properties[name], root, f"{at}.{name}")
            elif more is False:
                found.append(f"{at}: {name} is not known")
            else:
                found += faults(below, more, root, f"{at}.{name}")
    if isinstance(value, list):
        for index, below in enumerate(value):
            found += faults(below, schema.get("items", True), root, f"{at}[{index}]")
    return found


def _is(value: Any, kind: str) -> bool:
    if kind == "boolean" or isinstance(value, bool):
        return kind == "boolean" and isinstance(value, bool)
    return isinstance(value, KINDS[kind])


def read(text: str) -> Any:
    """YAML as an editor's language server sees it, which takes a time for text."""
    return _plain(yaml.safe_load(text))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(below) for name, below in value.items()}
    if isinstance(value, list):
        return [_plain(below) for below in value]
    return value.isoformat() if isinstance(value, date | datetime) else value


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=lambda page: page.name)
def test_the_examples_of_a_page_fit_the_schema_of_the_configuration(page: Path) -> None:
    """An editor marks nothing red in what the documents show."""
    schema = schema_json()

    assert [fault for body in examples(page) for fault in faults(read(body), schema, schema)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page, "state")], ids=lambda page: page.name)
def test_the_state_files_of_a_page_fit_the_schema_of_state_files(page: Path) -> None:
    """The same for what is applied."""
    schema = state_schema_json()

    assert [fault for body in examples(page, "state") for fault in faults(read(body), schema, schema)] == []


@pytest.mark.parametrize(
    ("old", "new", "fits"),
    [
        ("port: 4000", "port: '${PORT}'", True),
        ("port: 4000", "port: abc", False),
        ("kind: openai\n", "kind: opnai\n", False),
        ("base_url", "base_ulr", False),
    ],
)
def test_what_the_reader_refuses_an_editor_marks(old: str, new: str, fits: bool) -> None:
    """References pass where a value may stand; wrong kinds, words and keys do not."""
    schema = schema_json()

    assert (faults(read(GOOD.replace(old, new, 1)), schema, schema) == []) is fits
