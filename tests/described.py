"""Holds answers of the admin API to what its OpenAPI document says of them, more strictly than the document itself.

Whatever a test is told by the console passes through ``check``: a member that no shape names, a status that no
operation lists, or a header that is promised and missing fails the test that came across it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import jsonschema_rs
from fastapi import FastAPI

from faregate.console.openapi import document_of

Headers = Mapping[str, str]

#: Of the outermost doors: they come before anybody looks for a route.
_OF_DOORS = frozenset({405, 500})


class Operation(NamedTuple):
    """An operation of the document, and how its path is recognised."""

    path: str
    method: str
    pattern: re.Pattern[str]
    told: dict[str, Any]


class Described:
    """A document, taken apart to hold many answers to it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = closed(document)
        self.operations = sorted(self._operations(), key=_rank)
        #: Operations that answered what was asked for, and not a refusal.
        self.answered: set[str] = set()
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    def _operations(self) -> Iterator[Operation]:
        for path, methods in self.document["paths"].items():
            pattern = re.sub(r"\\\{model\\\}", r".+", re.escape(path))
            pattern = re.sub(r"\\\{\w+\\\}", r"[^/]+", pattern)
            for method, told in methods.items():
                yield Operation(path, method.upper(), re.compile(pattern), told)

    def operation(self, method: str, path: str) -> Operation | None:
        """The operation that a request came to, where it came to one."""
        found = (each for each in self.operations if each.method == method and each.pattern.fullmatch(path))
        return next(found, None)

    def check(self, method: str, path: str, status: int, headers: Headers, body: bytes) -> None:
        """Whether an answer is what the document says.

        Raises:
            AssertionError: it is not.
        """
        operation = self.operation(method, path)
        if operation is None or status in _OF_DOORS:
            return
        where = f"{method} {operation.path} → {status}"
        told = operation.told["responses"].get(str(status))
        assert told is not None, f"{where}: the document does not list this status: {body[:300]!r}"
        if status < 300:
            self.answered.add(operation.told["operationId"])
        told = self.resolved(told)
        for name, header in told.get("headers", {}).items():
            if self.resolved(header).get("required"):
                assert name.lower() in headers, f"{where}: the header {name} is missing"
        assert status >= 400 or "etag" not in headers or "ETag" in told["headers"], f"{where}: ETag is not told"
        media = headers.get("content-type", "").partition(";")[0]
        assert media in told["content"], f"{where}: {media} is none of {', '.join(told['content'])}"
        if told["content"][media]["schema"].get("type") == "string":
            return
        faults = list(self._validator(told["content"][media]["schema"]).iter_errors(json.loads(body)))
        assert not faults, f"{where}: {'; '.join(f'{each.instance_path}: {each.message}' for each in faults[:5])}"

    def resolved(self, told: dict[str, Any]) -> dict[str, Any]:
        """What a reference refers to."""
        while "$ref" in told:
            value: Any = self.document
            for part in told["$ref"].removeprefix("#/").split("/"):
                value = value[part]
            told = value
        return told

    def _validator(self, schema: dict[str, Any]) -> jsonschema_rs.Validator:
        name = json.dumps(schema, sort_keys=True)
        if name not in self._validators:
            whole = {**schema, "components": {"schemas": self.document["components"]["schemas"]}}
            self._validators[name] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return self._validators[name]


def _rank(operation: Operation) -> tuple[int, int]:
    """What is written out comes before what may be anything, and longer paths before those that begin like them."""
    return operation.path.count("{"), -operation.path.count("/")


def closed(document: dict[str, Any]) -> dict[str, Any]:
    """The document without room for members that it does not name; clients leave that room for later versions."""
    document = deepcopy(document)
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return document


_KNOWN: list[Described] = []


def described(app: FastAPI) -> Described:
    """The document of the console's app: the same for all of them, so it is taken apart once."""
    if not _KNOWN:
        _KNOWN.append(Described(document_of(app)))
    return _KNOWN[0]
