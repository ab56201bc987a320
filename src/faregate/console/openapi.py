"""The OpenAPI document: what FastAPI knows of bodies and paths, and what the routes declare beside that.

Declared next to the routes and read from there: parameters of queries and shapes of answers (``describing``), and
permissions (``rights``). What holds for all routes alike is here: who asks, versions and repeated requests, refusals,
and which operations what was made is read, changed and removed with.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar, get_origin

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import TypeAdapter

from faregate.console import hook_secrets
from faregate.console.describing import WRITING, Answer, Parameter, Query, answer_of, query_of
from faregate.console.problems import MEDIA_TYPE
from faregate.console.repeats import NAME_CHARACTERS_MAX
from faregate.console.rights import OPEN, declared_by
from faregate.console.shapes import values
from faregate.core.access import OF_INSTALLATION, PERMISSIONS
from faregate.core.attribution import METADATA_PREFIX, TAG_PREFIX

#: Tag of routes → what they are about, in the order of the documentation.
TAGS: Final[Mapping[str, str]] = {
    "keys": "Gateway keys: make, restrict, rotate, revoke.",
    "limits": "Limits: budgets, rates and quotas, with what is posted and held of them; deposits and raises.",
    "payers": "Whom calls are charged to: organizations, teams, projects, users, products and stages.",
    "subscriptions": "The right of a team or user to the keys of a product.",
    "requests": "One record for each call, and how its cost follows from the prices it was booked with.",
    "contents": "Prompts and answers, where the configuration keeps them.",
    "usage": "Sums of usage, cost and charge.",
    "reports": "What caches saved, and how deployments compare.",
    "cache": "Answers that are given again to the same call.",
    "prices": "Prices in force, own prices and price files.",
    "capacities": "Fixed commitments, how they are split, and whether they are worth it.",
    "corrections": "Periods at other prices, told or booked as corrections.",
    "quote": "What a call would cost.",
    "rehearsal": "Past calls against other limits.",
    "providers": "Providers that calls are sent to.",
    "deployments": "Places at providers.",
    "pools": "Deployments that stand in for each other.",
    "services": "HTTP services behind the gate.",
    "models": "Names that callers may use.",
    "places": "Where calls can go as compiled now.",
    "alerts": "Alerts, and how their delivery goes.",
    "webhooks": "Where alerts are sent.",
    "hooks": "What other systems tell this one.",
    "audit": "The trail of changes.",
    "owned": "What state files brought about (`faregate apply`).",
    "peppers": "Peppers by which secrets of keys are known.",
    "health": "What works and what does not.",
    "care": "Proof that the books add up, and copies of them.",
    "reload": "The configuration, read again.",
    "tokenizer": "Tokens of texts, counted and shown.",
    "quota": "The Quota interface of an earlier service, compatible with its clients.",
}

#: Name of a parameter of a path → what it is.
PATH_PARAMETERS: Final[Mapping[str, str]] = {
    "key_id": "Id of a key.",
    "limit_id": "Id of a limit.",
    "payer_id": "Id of the payer.",
    "product_id": "Id of a product.",
    "subscription_id": "Id of a subscription.",
    "request_id": "Id of a request.",
    "price_id": "Id of an own or imported price.",
    "alert_id": "Id of an alert.",
    "channel_id": "Id of a channel.",
    "provider": "Id or name of a provider.",
    "deployment": "Id or name of a deployment.",
    "pool": "Id or name of a pool.",
    "service": "Id or name of a service.",
    "pepper_id": "Id of a pepper, such as p1.",
    "model": "Id of the name, or the name itself; it may hold slashes.",
    "name": "Name of a capacity.",
    "run": "Id of a run.",
    "run_id": "Id of a rehearsal.",
    "kind": "Kind of things.",
}

_METHODS: Final = ("get", "post", "put", "patch", "delete")

#: Status of a refusal → when it comes.
REFUSALS: Final[Mapping[int, str]] = {
    400: "A parameter, a header or the body cannot be read.",
    401: "No credential, or none that is known.",
    403: "The credential may not do this.",
    404: "There is nothing of this id that the credential sees.",
    408: "The body took too long to come.",
    409: "It contradicts what is there, or an earlier request with the same `Idempotency-Key`.",
    412: "It was changed since it was read (`If-Match`).",
    413: "The body is too large.",
    415: "The body is not `application/json`, or it is encoded.",
    422: "A field of the body cannot be; `errors` lists each.",
    429: "Too many changes of the same key wait for their turn; nothing was done.",
    503: "Something that this needs does not answer now.",
    507: "The disk is full.",
}

_REF: Final = "#/components/schemas/{model}"
_PROBLEM: Final = "Problem"

_WORKED_OUT: Final = threading.Lock()


class _Route(NamedTuple):
    """One operation: a route with one of its methods."""

    path: str
    method: str
    endpoint: Callable[..., Any]
    status: int
    answer: Answer | None
    query: Query | None

    @property
    def permission(self) -> str:
        return declared_by(self.endpoint) or OPEN


def document_of(app: FastAPI) -> dict[str, Any]:
    """The document of an app; worked out when it is first asked for, which takes a second."""
    with _WORKED_OUT:
        # By one thread at a time: what it is made of is changed on the way, and so is which warnings count.
        if not hasattr(app.state, "document"):
            app.state.document = _document(app)
    found: dict[str, Any] = app.state.document
    return found


def _document(app: FastAPI) -> dict[str, Any]:
    document = app.openapi()
    components = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    routes = list(_routes(app))
    shapes = _Shapes(routes)
    schemas |= shapes.definitions
    for route in routes:
        _describe(document["paths"][route.path][route.method.lower()], route, shapes)
    _link(document, schemas)
    components["securitySchemes"] = _SECURITY
    components |= {"headers": _HEADERS, "parameters": _PARAMETERS, "responses": dict(_refused())}
    document["security"] = [{"adminKey": []}]
    document["servers"] = [{"url": "/", "description": "Where this document came from."}]
    document["tags"] = [{"name": name, "description": words} for name, words in TAGS.items()]
    return _renamed(document)


def _routes(app: FastAPI) -> Iterator[_Route]:
    for context in iter_route_contexts(app.routes):
        endpoint = context.endpoint
        if endpoint is None or not getattr(context, "include_in_schema", False):
            continue
        for method in sorted(context.methods or ()):
            status = getattr(context, "status_code", None) or 200
            path = str(context.path_format)
            yield _Route(path, method, endpoint, status, answer_of(endpoint), query_of(endpoint))


class _Shapes:
    """The schemas of all answers: as references, with what they refer to beside them."""

    def __init__(self, routes: Iterable[_Route]) -> None:
        shapes: list[Any] = [values.Problem]
        for route in routes:
            if route.answer is not None:
                shapes += [route.answer.shape, *route.answer.also.values()]
        shapes = list({repr(shape): shape for shape in shapes}.values())
        found = [(number, "serialization", TypeAdapter(shape)) for number, shape in enumerate(shapes)]
        schemas, told = TypeAdapter.json_schemas(found, ref_template=_REF)  # type: ignore[arg-type]
        self.definitions: dict[str, Any] = {name: _plain(each) for name, each in told.get("$defs", {}).items()}
        self._by_shape: dict[str, Any] = {}
        for number, shape in enumerate(shapes):
            schema = _plain(schemas[(number, "serialization")])
            if isinstance(shape, type) and get_origin(shape) is None and "properties" in schema:
                # Each has a name of its own, so that generated clients have a class for it.
                self.definitions[shape.__name__] = schema
                schema = {"$ref": _REF.format(model=shape.__name__)}
            self._by_shape[repr(shape)] = schema

    def of(self, shape: Any) -> dict[str, Any]:
        """The schema of a shape."""
        return dict(self._by_shape[repr(shape)])


Told = TypeVar("Told")


def _plain(told: Told) -> Told:
    """A schema without the titles that pydantic makes of names: they say what the names say."""
    if isinstance(told, dict):
        # What stands below ``properties`` are names, and one may be "title".
        return {  # type: ignore[return-value]
            name: {each: _plain(schema) for each, schema in value.items()} if name == "properties" else _plain(value)
            for name, value in told.items()
            if not (name == "title" and isinstance(value, str))
        }
    if isinstance(told, list):
        return [_plain(each) for each in told]  # type: ignore[return-value]
    return told


# -- one operation -----------------------------------------------------------------------------------------------------


def _describe(operation: dict[str, Any], route: _Route, shapes: _Shapes) -> None:
    """Add to an operation everything that FastAPI does not know of it."""
    if operation["operationId"].endswith(f"_{route.method.lower()}"):
        operation["operationId"] = route.endpoint.__name__
    _say_permission(operation, route)
    operation["parameters"] = [*map(_in_path, operation.get("parameters", ())), *_in_query(route.query)]
    if route.method in WRITING and route.permission:
        operation["parameters"].append({"$ref": "#/components/parameters/IdempotencyKey"})
    if _takes_version(route):
        operation["parameters"].append({"$ref": "#/components/parameters/IfMatch"})
    if not operation["parameters"]:
        del operation["parameters"]
    operation["responses"] = _responses(operation, route, shapes)


def _say_permission(operation: dict[str, Any], route: _Route) -> None:
    words = [" ".join(operation.get("description", "").split("\n\n")[0].split()), *_rest(operation)]
    if route.permission:
        where = " of the whole installation" if route.permission in OF_INSTALLATION else ""
        words.append(f"Takes the permission `{route.permission}`{where}: {PERMISSIONS[route.permission]}.")
        operation["x-permission"] = route.permission
    elif hook_secrets.is_hook(route.path):
        operation["security"] = [{"hookSecret": []}]
    if route.path.startswith("/api/Quota"):
        operation["security"] = [{"adminKey": []}, {"functionKey": []}]
    operation["description"] = "\n\n".join(each for each in words if each)


def _rest(operation: Mapping[str, Any]) -> list[str]:
    return [" ".join(part.split()) for part in operation.get("description", "").split("\n\n")[1:]]


def _in_path(parameter: Mapping[str, Any]) -> dict[str, Any]:
    name = parameter["name"]
    schema = {name: value for name, value in parameter["schema"].items() if name != "title"}
    return {**parameter, "description": PATH_PARAMETERS.get(name, ""), "schema": {"minLength": 1, **schema}}


def _in_query(query: Query | None) -> Iterator[dict[str, Any]]:
    if query is None:
        return
    for each in query.parameters:
        yield {
            "name": each.name,
            "in": "query",
            "required": each.required,
            "description": each.description,
            "schema": _schema_of(each),
        }
    if query.tags:
        begins = f"({re.escape(TAG_PREFIX)}|{re.escape(METADATA_PREFIX)})"
        yield {
            "name": "tags",
            "in": "query",
            "required": False,
            "description": f"Tags and facts that callers told of their calls, as `{TAG_PREFIX}NAME=VALUE` and "
            f"`{METADATA_PREFIX}NAME=VALUE`.",
            "style": "form",
            "explode": True,
            "schema": {
                "type": "object",
                "propertyNames": {"pattern": rf"^{begins}[A-Za-z0-9_-]+$"},
                "additionalProperties": {"type": "string", "maxLength": 256},
            },
        }


def _schema_of(parameter: Parameter) -> dict[str, Any]:
    if parameter.schema.get("type"):
        return dict(parameter.schema)
    schema: dict[str, Any] = {"type": "string", **parameter.schema}
    if parameter.values:
        return {**schema, "enum": list(parameter.values)}
    return {**schema, "maxLength": parameter.characters_max}


def _takes_version(route: _Route) -> bool:
    return route.method in WRITING and route.answer is not None and route.answer.versioned


def _responses(operation: Mapping[str, Any], route: _Route, shapes: _Shapes) -> dict[str, Any]:
    told: dict[str, Any] = {}
    answer = route.answer
    if answer is not None:
        for status, shape in {route.status: answer.shape, **answer.also}.items():
            told[str(status)] = {
                "description": _STATUS_WORDS.get(status, "What was asked for."),
                "headers": _headers(route),
                "content": {"application/json": {"schema": shapes.of(shape)}},
            }
    for status in sorted(_refusals(operation, route)):
        told[str(status)] = {"$ref": f"#/components/responses/Refused{status}"}
    told["default"] = {"$ref": "#/components/responses/Refused"}
    return told


def _refused() -> Iterator[tuple[str, dict[str, Any]]]:
    """The answers that tell problems, by name: one for each status, and one for whatever else."""
    problem = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=_PROBLEM)}}}
    for status, words in REFUSALS.items():
        headers = dict(_EVERY_ANSWER)
        if status == 401:
            headers["WWW-Authenticate"] = {"$ref": "#/components/headers/WWW-Authenticate"}
        if status in (429, 503):
            headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
        yield f"Refused{status}", {"description": words, "headers": headers, "content": problem}
    yield "Refused", {"description": "Anything else that goes wrong.", "headers": _EVERY_ANSWER, "content": problem}


def _headers(route: _Route) -> dict[str, Any]:
    headers = dict(_EVERY_ANSWER)
    if route.answer is not None and route.answer.versioned and route.method != "DELETE":
        headers["ETag"] = {"$ref": "#/components/headers/ETag"}
    if route.method in WRITING and route.permission:
        headers["Idempotent-Replayed"] = {"$ref": "#/components/headers/Idempotent-Replayed"}
    return headers


def _refusals(operation: Mapping[str, Any], route: _Route) -> set[int]:
    found = {401, 403, 503} if route.permission else {400, 401, 404, 503}
    if "{" in route.path:
        found.add(404)
    if route.query is not None:
        found.add(400)
    if route.method in WRITING:
        # A body that nobody asked for is read, too.
        found |= {400, 408, 409, 413, 415, 507} | ({429} if route.permission else set())
        found |= {422} if "requestBody" in operation and not route.path.startswith("/api/Quota") else set()
        found |= {412} if _takes_version(route) else set()
    return found | set(route.answer.refusals if route.answer is not None else ())


_STATUS_WORDS: Final = {201: "It was made.", 202: "It is not done yet."}


# -- what holds for all ------------------------------------------------------------------------------------------------

_SECURITY: Final[dict[str, Any]] = {
    "adminKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "The secret of a key that opens the console; its role and payers say what it may do and see. "
        "Each operation names the permission that it takes (`x-permission`).",
    },
    "functionKey": {
        "type": "apiKey",
        "in": "header",
        "name": "x-functions-key",
        "description": "The same secret, as clients of the earlier Quota service send it.",
    },
    "hookSecret": {
        "type": "apiKey",
        "in": "header",
        "name": "x-faregate-secret",
        "description": "The secret of alerts.azure_budget; it opens nothing else.",
    },
}

_HEADERS: Final[dict[str, Any]] = {
    "X-Faregate-Request-Id": {
        "description": "Id of this request; the log and the trail of changes name it.",
        "required": True,
        "schema": {"type": "string", "pattern": "^req_"},
    },
    "ETag": {
        "description": "Version of what is shown; send it as `If-Match` to change only this version.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9a-f]{16}"$'},
    },
    "Idempotent-Replayed": {
        "description": "`true` where the request was carried out before, and this is its answer.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Retry-After": {"description": "Try again after so many seconds.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "How to say who asks.", "schema": {"type": "string"}},
}

_EVERY_ANSWER: Final[dict[str, Any]] = {"X-Faregate-Request-Id": {"$ref": "#/components/headers/X-Faregate-Request-Id"}}

_PARAMETERS: Final[dict[str, Any]] = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "A text of your own: a request that is sent again with it is carried out once and answered the "
        "same, for a day.",
        "schema": {"type": "string", "minLength": 1, "maxLength": NAME_CHARACTERS_MAX, "pattern": "^[!-~]+$"},
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "required": False,
        "description": "Change it only where it still has this version (`ETag`); `*` is any.",
        "schema": {"type": "string", "pattern": r'^(\*|"[0-9a-f]{16}")$'},
    },
}


# -- what goes with what -----------------------------------------------------------------------------------------------


def _link(document: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    """Say of each answer that shows something, or makes it, which operations go on with it."""
    paths: dict[str, Any] = document["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if method in _METHODS and "content" in response and status.startswith("2"):
                    links = dict(_links(path, method, response, paths, schemas))
                    if links:
                        response["links"] = links


def _links(
    path: str, method: str, response: Mapping[str, Any], paths: Mapping[str, Any], schemas: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    if "{" in path and method != "post":
        return
    # What is made below something else is found at the root: /products/{id}/subscriptions → /subscriptions/{id}.
    start = f"/api/v1/{path.rsplit('/', 1)[1]}" if "{" in path else path
    shape = _members(response["content"]["application/json"]["schema"], schemas)
    pointer = ""
    if "data" in shape:
        pointer, shape = "data/0/", _members(shape["data"].get("items", {}), schemas)
    for other, operations in paths.items():
        match = re.fullmatch(re.escape(start) + r"/\{(\w+)\}(/\w+)?", other)
        if match is None:
            continue
        member = match[1] if match[1] in ("name", "run") else "id"
        if member not in shape:
            continue
        for operation in operations.values():
            yield (
                f"{operation['operationId']}",
                {
                    "operationId": operation["operationId"],
                    "parameters": {match[1]: f"$response.body#/{pointer}{member}"},
                },
            )


def _members(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = (schemas[name] if name else schema).get("properties", {})
    return found


def _renamed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with names of schemas that do not tell where the code is."""
    schemas = document["components"]["schemas"]
    names = {name: name.rpartition("__")[2] for name in schemas if "__" in name}
    taken = set(schemas)
    for short in names.values():
        assert short not in taken, f"two schemas are called {short}; rename a class"
        taken.add(short)
    references = {_REF.format(model=name): _REF.format(model=short) for name, short in names.items()}

    def walked(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: references.get(each, each) if name == "$ref" and isinstance(each, str) else walked(each)
                for name, each in value.items()
            }
        return [walked(each) for each in value] if isinstance(value, list) else value

    document = walked(document)
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {
        name: _plain(schema) for name, schema in sorted((names.get(name, name), each) for name, each in schemas.items())
    }
    return document
