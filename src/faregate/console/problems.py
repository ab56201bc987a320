"""Everything that can go wrong in the API, told as an RFC 9457 problem with the product's own ``code``.

One place maps foreign errors (validation, routing, storage) to codes and statuses. Nothing that a caller sent is
repeated in a problem, apart from names: of fields, and of places that there are not.
"""

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from faregate.config.findings import Ruled, quoted
from faregate.config.validated import known_keys
from faregate.errors import (
    CODES,
    Conflict,
    Failed,
    FaregateError,
    NotFound,
    Problem,
    StorageFull,
    Unavailable,
    Unsafe,
    UsageError,
)

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

#: Codes that only the console tells, and those whose status differs from the gateway port's.
_STATUSES: Final[Mapping[str, int]] = {
    "cache_off": 409,
    "cache_unavailable": 503,
    "config_invalid": 422,
    "conflict": 409,
    "csrf_failed": 403,
    "failed": 422,
    "field_conflict": 422,
    "field_enum": 422,
    "field_forbidden": 422,
    "field_missing": 422,
    "field_range": 422,
    "field_type": 422,
    "field_unknown": 422,
    "filter_invalid": 400,
    "invariant": 422,
    "page_invalid": 400,
    "refused": 409,
    "secret_sealed": 422,
    "session_missing": 401,
    "stale_version": 412,
    "unavailable": 503,
    "usage": 422,
    "wh_body": 400,
    "wh_off": 404,
    "wh_sig": 400,
}

_TITLES: Final[Mapping[str, str]] = {
    "auth_invalid": "Credential not accepted",
    "auth_malformed": "Credential malformed",
    "auth_missing": "Credential missing",
    "not_found": "Not found",
    "internal": "Internal error",
}

#: What is told with refusals that pass by themselves.
_LATER: Final[Mapping[str, str]] = {"retry-after": "1"}

#: The most single mistakes that one answer lists.
ERRORS_MAX: Final = 50

#: pydantic's error types → our codes; those that end in ``_type`` or ``_parsing`` are ``field_type``.
_FIELD_CODES: Final[Mapping[str, str]] = {
    "missing": "field_missing",
    "extra_forbidden": "field_unknown",
    "literal_error": "field_enum",
    "enum": "field_enum",
    "json_invalid": "json_invalid",
    "model_attributes_type": "field_type",
}


#: Codes of findings in the configuration → ours; what else can be wrong with a value there is its range here.
_FINDING_CODES: Final[Mapping[str, str]] = {
    "CFG-CONFLICT": "field_conflict",
    "CFG-MISSING": "field_missing",
    "CFG-REF": "field_enum",
    "CFG-TYPE": "field_type",
}


class ApiProblem(Exception):
    """A refusal on its way out of an endpoint; ``field`` is the path of the field or parameter at fault.

    ``errors`` lists all mistakes, each with ``field``, ``code`` and ``detail``, where there are several.
    """

    def __init__(self, code: str, detail: str, *, field: str = "", errors: Iterable[Mapping[str, str]] = ()) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.field = field
        single = [{"field": field, "code": code, "detail": detail}] if field else []
        self.errors = list(errors) or single


def as_problem(problem: Problem, within: str = "") -> ApiProblem:
    """A refusal of the gateway's, told here; ``within`` is the member of our body that held what was at fault."""
    field = problem.param or ""
    detail = problem.message.removeprefix(f"{field}: ") if field else problem.message
    place = ".".join(part for part in (within, field.removeprefix("$").lstrip(".")) if part)
    return ApiProblem(problem.code, detail.rstrip("."), field=place)


def ruled_problem(found: Sequence[Ruled]) -> ApiProblem:
    """What rules of the configuration find in what was sent, each at the path of its field; there is one at least."""
    told = [
        {
            "field": ".".join(map(str, each.path)),
            "code": _FINDING_CODES.get(each.code, "field_range"),
            "detail": _sentence(each.problem, each.expected, each.hint),
        }
        for each in found
    ]
    first = told[0]
    return ApiProblem(first["code"], first["detail"], field=first["field"], errors=told[:ERRORS_MAX])


def _sentence(problem: str, expected: str, hint: str) -> str:
    return "; ".join((problem, *((f"expected {expected}",) if expected else ()), *((hint,) if hint else ())))


def status_of(code: str) -> int:
    """The HTTP status that a code is told with on the console port."""
    if code in _STATUSES:
        return _STATUSES[code]
    return CODES[code].status if code in CODES else 500


def respond(
    request_id: str,
    code: str,
    detail: str,
    *,
    status: int | None = None,
    errors: Iterable[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer that tells one problem."""
    body: dict[str, Any] = {
        "type": f"urn:faregate:problem:{code}",
        "title": _TITLES.get(code, code.replace("_", " ").capitalize()),
        "status": status if status is not None else status_of(code),
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }
    listed = list(errors)[:ERRORS_MAX]
    if listed:
        body["errors"] = listed
    return JSONResponse(body, body["status"], media_type=MEDIA_TYPE, headers=dict(headers or {}))


def request_id_of(request: Request) -> str:
    """The id that the outermost door gave this request."""
    return str(request.scope.get("faregate.request_id", ""))


def _told(error: FaregateError) -> tuple[str, int]:
    """Code and status of an error of the shell."""
    table: tuple[tuple[type[FaregateError], int], ...] = (
        (NotFound, 404),
        (Conflict, 409),
        (UsageError, 422),
        (Unsafe, 409),
        (StorageFull, 507),
        (Unavailable, 503),
        (Failed, 422),
    )
    return error.code, next((status for kind, status in table if isinstance(error, kind)), 500)


def _field_path(location: Iterable[Any]) -> str:
    """``("body", "select", "team")`` → ``select.team``; the member of a union that was tried is left out."""
    parts = [str(part) for part in location]
    if parts and parts[0] in ("body", "query", "path"):
        parts = parts[1:]
    # A union reports each member that did not fit as one more part, such as "list[constrained-str]" or "int".
    kept = [part for part in parts if "[" not in part and part not in ("int", "str", "bool", "dict", "none")]
    return ".".join(kept)


def _field_code(kind: str) -> str:
    if kind in _FIELD_CODES:
        return _FIELD_CODES[kind]
    if kind.startswith("field_"):
        return kind
    return "field_type" if kind.endswith(("_type", "_parsing")) else "field_range"


def _body_model(request: Request) -> Any:
    """The model of the body that this route reads, where it has one."""
    body_field = getattr(request.scope.get("route"), "body_field", None)
    return getattr(getattr(body_field, "field_info", None), "annotation", None)


def _unknown(name: str, model: Any) -> tuple[str, str]:
    """Code and sentence for a field that the model does not have."""
    item = getattr(model, "ITEM", None)
    if item is not None and name.startswith("items."):
        name, model = name.split(".", 2)[-1], item
    if name in getattr(model, "READ_ONLY", ()):
        return "field_forbidden", f"{name} is set by Faregate and cannot be sent"
    *within, last = name.split(".")
    known = known_keys(within, model) if isinstance(model, type) and issubclass(model, BaseModel) else []
    near = difflib.get_close_matches(last, known, n=1)
    return "field_unknown", "unknown field" + (f"; did you mean {near[0]}?" if near else "")


def _in_json(sentence: str) -> str:
    """A sentence of the validation library in the words of what was sent, which knows no tuples."""
    return sentence.replace("Tuple should", "List should").replace("a valid tuple", "a valid list")


def _by_configuration(each: Mapping[str, Any]) -> tuple[str, str]:
    """Code and sentence of what a validator of the configuration refuses, which may quote the value."""
    told = each["ctx"]
    problem = str(told["problem"]).replace(quoted(each["input"]), "this")
    return _FINDING_CODES.get(told["code"], "field_range"), _sentence(problem, told["expected"], told["hint"])


def field_errors(error: RequestValidationError, model: Any) -> list[dict[str, str]]:
    """One entry per field at fault: ``field``, ``code``, ``detail``."""
    found: dict[str, dict[str, str]] = {}
    for each in error.errors():
        if each["type"] == "too_short" and len(each["input"]) >= each["ctx"]["min_length"]:
            continue  # its items are wrong, and told of by themselves
        field, code, detail = _field_path(each["loc"]), _field_code(each["type"]), _in_json(each["msg"])
        if each["type"] == "faregate":
            code, detail = _by_configuration(each)
        elif code == "field_unknown":
            code, detail = _unknown(field, model)
        elif code == "field_missing":
            detail = "this field is required"
        found.setdefault(field, {"field": field, "code": code, "detail": detail})
    return list(found.values())


def _status_here(request: Request, code: str) -> int:
    """The status of a code at the route of this request: interfaces of others have statuses of their own."""
    status = status_of(code)
    route = request.scope.get("route")
    return int(getattr(route, "fields_status", status)) if status == 422 else status


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = field_errors(error, _body_model(request))
    first = errors[0]
    where = f"{first['field']}: " if first["field"] else ""
    status = _status_here(request, first["code"])
    return respond(request_id_of(request), first["code"], where + first["detail"], status=status, errors=errors)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiProblem)
    detail = f"{error.field}: {error.detail}" if error.field else error.detail
    status = _status_here(request, error.code)
    headers = _LATER if status == 429 else {}
    return respond(request_id_of(request), error.code, detail, status=status, errors=error.errors, headers=headers)


async def _on_faregate_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FaregateError)
    code, status = _told(error)
    if status == 500:
        raise error
    headers = _LATER if status == 503 else {}
    hint = f" ({error.hint})" if error.hint else ""
    return respond(request_id_of(request), code, error.message + hint, status=status, headers=headers)


def _allowed(request: Request) -> str:
    """The methods of all routes at the path of a request; the one that refused it knows its own only."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.methods and route.path_regex.match(request.scope["path"]):
            methods |= route.methods
    return ", ".join(sorted(methods))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 415: "media_unsupported"}
    code = codes.get(error.status_code, "json_invalid" if error.status_code == 400 else "internal")
    details = {
        "not_found": "there is nothing at this path; /api/openapi.json tells all that there is",
        "method_not_allowed": "this path does not take this method",
    }
    detail = details.get(code, "the request could not be read")
    headers = {"allow": _allowed(request)} if code == "method_not_allowed" else error.headers
    return respond(request_id_of(request), code, detail, status=error.status_code, headers=headers)


def failed_inside(request_id: str, error: Exception) -> Response:
    """The answer for what nobody foresaw; the reason goes to the log only."""
    log.error("api_failed", exc_info=error, extra={"request_id": request_id})
    return respond(request_id, "internal", "this failed inside Faregate; the log has the reason under the request id")


def install(app: FastAPI) -> None:
    """Tell every problem of ``app`` in this one shape."""
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(ApiProblem, _on_problem)
    app.add_exception_handler(FaregateError, _on_faregate_error)
    app.add_exception_handler(HTTPException, _on_http)
