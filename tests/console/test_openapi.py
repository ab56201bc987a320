"""The OpenAPI document: complete, true of real answers, and enough for a client to be made from it."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from admin_world import admin_world, ask_everything, one_of_each
from console_parts import Api, Parts, parts
from described import Described, closed, described
from faregate.console.describing import answer_of, query_of
from faregate.console.openapi import PATH_PARAMETERS, TAGS, document_of
from faregate.console.rights import OPEN, declared_by
from faregate.core.access import PERMISSIONS

#: Pages for people, probes, metrics, and second spellings of paths: not a part of the API that clients are made for.
NOT_TOLD = {
    *("/", "/login", "/logout", "/static/spend.css", "/metrics", "/health/live", "/health/ready"),
    *("/api/openapi.json", "/api/Quota"),
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """It is the same for every console, and takes longer to work out than to look through."""
    with parts(tmp_path_factory.mktemp("document")) as made:
        return document_of(made.app)


@pytest.fixture
def told(document: dict[str, Any]) -> Described:
    return Described(document)


def routes(app: FastAPI) -> list[tuple[str, str, object]]:
    """Method, path and endpoint of every route."""
    return [
        (method, str(context.path_format), context.endpoint)
        for context in iter_route_contexts(app.routes)
        for method in sorted(context.methods or ())
    ]


def test_every_route_of_the_api_is_described(made: Parts, told: Described) -> None:
    """Its answer and its permission where it stands, and in the document under a name that can be read."""
    known = {(each.method, each.path): each.told for each in told.operations}
    for method, path, endpoint in routes(made.app):
        if path in NOT_TOLD:
            continue
        operation = known[method, path]
        assert answer_of(endpoint) is not None, f"{method} {path}: @answers(…) is missing"  # type: ignore[arg-type]
        assert operation["summary"], path
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", operation["operationId"]), operation["operationId"]
        assert set(operation["tags"]) <= TAGS.keys(), path
        permission = declared_by(endpoint)  # type: ignore[arg-type]
        assert operation.get("x-permission", OPEN) == permission
        assert permission in {*PERMISSIONS, OPEN}
    names = [each.told["operationId"] for each in told.operations]
    assert len(names) == len(set(names))


def test_what_a_route_reads_is_in_the_document(made: Parts, told: Described) -> None:
    """Parameters of the path with a description, those of the query as they are declared, headers where they act."""
    known = {(each.method, each.path): each.told for each in told.operations}
    for method, path, endpoint in routes(made.app):
        if path in NOT_TOLD:
            continue
        parameters = [told.resolved(each) for each in known[method, path].get("parameters", ())]
        by_place: dict[str, set[str]] = {}
        for each in parameters:
            by_place.setdefault(each["in"], set()).add(each["name"])
            assert each["description"], f"{path}: {each['name']}"
        assert by_place.get("path", set()) == set(re.findall(r"\{(\w+)\}", path)) <= PATH_PARAMETERS.keys()
        query = query_of(endpoint)  # type: ignore[arg-type]
        read = set() if query is None else {*query.by_name, *(("tags",) if query.tags else ())}
        assert by_place.get("query", set()) == read
        writes = method not in ("GET", "HEAD") and declared_by(endpoint) != OPEN  # type: ignore[arg-type]
        assert ("Idempotency-Key" in by_place.get("header", ())) == writes


def test_the_document_is_valid(told: Described) -> None:
    """Every schema is one, every reference leads somewhere, and links lead to operations that there are."""
    operations = {each.told["operationId"] for each in told.operations}
    for name, schema in told.document["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        assert "__" not in name
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(told.document)):
        assert told.resolved({"$ref": reference})
    for operation in told.operations:
        for response in operation.told["responses"].values():
            assert all(link["operationId"] in operations for link in response.get("links", {}).values())


def test_what_is_made_leads_to_what_can_be_done_with_it(told: Described) -> None:
    """The id in the answer is the parameter of the operations that read, change and end it."""
    create = next(each for each in told.operations if each.told["operationId"] == "create_key")

    links = create.told["responses"]["201"]["links"]

    assert {"read_key", "change_key", "rotate_key", "revoke_key", "delete_key"} <= links.keys()
    assert links["read_key"]["parameters"] == {"key_id": "$response.body#/id"}


def test_real_answers_of_every_operation_are_what_the_document_says(tmp_path: Path) -> None:
    """One of each, held to its shape without room for anything that it does not name."""
    with admin_world(tmp_path) as (made, api):
        told = described(made.app)
        told.answered.clear()

        ask_everything(api, tmp_path)

        assert {each.told["operationId"] for each in told.operations} - told.answered == set()


#: Bodies without which a request does not come as far as looking for what it changes.
NEEDED = {"/api/v1/limits/{limit_id}/raises": {"amount": "9", "until": "2026-11-30"}}

#: It has a door of its own, which refuses whoever does not have its secret.
HOOK = "/webhooks/azure-budget"


def test_whoever_sends_a_version_is_never_ignored(tmp_path: Path) -> None:
    """With one that is past nothing is changed by any route: those that take ``If-Match`` say so, others refuse it."""
    with admin_world(tmp_path) as (made, api):
        ids, taken, refused = one_of_each(api), 0, 0
        for operation in described(made.app).operations:
            if operation.method == "GET" or operation.path == HOOK:
                continue
            begin, _, rest = operation.path.partition("{")
            path = begin + ids.get(begin, "x") + rest.partition("}")[2] if rest else begin
            body = {"json": NEEDED.get(operation.path, {})} if "requestBody" in operation.told else {}
            answer = api.call(operation.method, path, headers={"if-match": f'"{0:016x}"'}, **body)
            if {"$ref": "#/components/parameters/IfMatch"} in operation.told.get("parameters", ()):
                assert (answer.status_code, answer.json()["code"]) == (412, "stale_version"), operation.path
                taken += 1
            else:
                told = (answer.status_code, answer.json()["code"])
                assert told == (400, "header_invalid"), f"{operation.method} {operation.path}"
                refused += 1

    assert (taken > 28, refused > 20) == (True, True)


def test_clients_leave_room_for_members_of_later_versions(made: Parts) -> None:
    """Shapes of answers are closed for the tests alone; bodies that are sent are closed for everybody."""
    schemas = document_of(made.app)["components"]["schemas"]

    assert "additionalProperties" not in schemas["Key"]
    assert schemas["NewKey"]["additionalProperties"] is False
    assert closed(document_of(made.app))["components"]["schemas"]["Key"]["additionalProperties"] is False


def test_a_value_that_a_filter_does_not_have_is_refused(api: Api) -> None:
    """Rather than answered with an empty list, as a spelling mistake would be."""
    told = api.get("/api/v1/keys?state=actve", 400)

    assert (told["code"], told["errors"][0]["field"]) == ("filter_invalid", "state")
    assert "active, disabled, revoked" in told["detail"]


def test_the_document_is_open_to_everybody_and_served_once_worked_out(made: Parts) -> None:
    """It says what there is, and nothing of what is in it."""
    served = Api(made.app).get("/api/openapi.json")

    assert served == document_of(made.app)
    assert served["openapi"].startswith("3.1")
