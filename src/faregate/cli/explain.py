"""``faregate explain``: what became of a request, try by try, or where a call would go now and why."""

from typing import Annotated, Any

import typer

from faregate.cli.client import AdminClient, Where, connect, segment
from faregate.cli.named import key_named
from faregate.cli.output import Json, emit, emit_json, table
from faregate.cli.words import without_nothing
from faregate.core.ledger.events import MIRROR_OF
from faregate.errors import FaregateError, UsageError

_TOLD = ("id", "status", "code", "deployment", "attempts", "notes", "cost", "charge", "derivation")


def command(
    request: Annotated[str | None, typer.Argument(metavar="[REQUEST]", help="Id of a request.")] = None,
    model: Annotated[str | None, typer.Option(help="Instead: a name that a call would ask for.")] = None,
    key: Annotated[str | None, typer.Option(help="Id or name of the key that would make it.")] = None,
    stage: Annotated[str | None, typer.Option(help="Stage, where it is not the key's.")] = None,
    project: Annotated[str | None, typer.Option(help="Project, where it is not the key's.")] = None,
    priority: Annotated[str | None, typer.Option(help="What its Priority header would say.")] = None,
    operation: Annotated[str | None, typer.Option(help="Operation (default: chat.completions).")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Explain where a request went and what it cost, or with --model where a call would go now."""
    if (request is None) == (model is None):
        raise UsageError("name a REQUEST, or a --model")
    query = without_nothing(
        {"model": model, "key": key, "stage": stage, "project": project, "priority": priority, "operation": operation}
    )
    if request is not None and query:
        raise UsageError("what is asked with --model does not go with a REQUEST")
    with connect(data) as client:
        if request is not None:
            _of_request(client.call("GET", f"/requests/{segment(request)}"), client, as_json=json)
        else:
            asked = {name: str(value) for name, value in query.items()}
            if key is not None:
                asked["key"] = key_named(client, key)["id"]
            _of_model(client.call("GET", "/route", query=asked), json)


def _of_request(row: dict[str, Any], client: AdminClient, *, as_json: bool) -> None:
    names = _leading_to(client, row["deployment"])
    if as_json:
        derivation = row["derivation"]
        told = {name: row[name] for name in ("id", "status", "code", "deployment", "cost", "charge")}
        emit_json(
            {**told, "attempts": row["attempts"], "names": names, "notes": row["notes"], "derivation": derivation}
        )
        return
    payer = "/".join(row[name] for name in ("organization", "team", "project") if row[name])
    emit(f"{row['id']}  {row['operation']} of {payer or 'nobody'}: {row['status']} {row['code'] or ''}".rstrip())
    for number, each in enumerate(row["attempts"], 1):
        emit(f"{number}. {each['deployment']}: {_came_of(each)} after {each['duration_ms']} ms")
    if not row["attempts"]:
        sent = "no provider took it" if (row["code"] or "").startswith("upstream_") else "it was sent nowhere"
        emit("it was answered from the cache" if row["cache"] == "hit" else sent)
    if (row["notes"] or {}).get(MIRROR_OF):
        emit(f"it is a copy of {row['notes'][MIRROR_OF]}, made to compare deployments: nobody waited for it")
    if names:
        emit(f"{row['deployment']} is where {', '.join(names)} may lead: `faregate explain --model {names[0]}`")
    emit(f"cost {row['cost']}, charged {row['charge']}; how it came to that: `faregate requests {row['id']}`")


def _came_of(attempt: dict[str, Any]) -> str:
    if not attempt["http_status"]:
        return f"no answer ({attempt['code'] or 'it is not known why'})"
    return f"{attempt['http_status']}" + (f" ({attempt['code']})" if attempt["code"] else "")


def _leading_to(client: AdminClient, deployment: str | None) -> list[str]:
    if not deployment:
        return []
    try:
        models = client.call("GET", "/places")["models"]
    except FaregateError as error:
        # Who may read requests need not be one who may read where calls can go.
        if error.code != "role_forbidden":
            raise
        return []
    found = [each["name"] for each in models if deployment in each["to"] and each["name"] not in ("", deployment)]
    # What leads to several is what somebody declared; a deployment's own names lead to it alone.
    return sorted(found, key=lambda name: next(-len(each["to"]) for each in models if each["name"] == name))[:3]


def _of_model(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json(told)
        return
    if told["selected"]:
        chosen = ", ".join(f"{name} {value}" for name, value in told["selected"].items())
        emit(f"{told['model']} leads elsewhere for {chosen}")
    if told["priority"] is not None:
        emit(f"the priority counts as {told['priority']}")
    rows = [(number, each["deployment"], each["provider"], each["why"]) for number, each in enumerate(told["order"], 1)]
    table(("tried", "deployment", "provider", "why"), rows)
    for each in told["resting"]:
        wait_s = -(-each["wait_ms"] // 1000)
        doing = f"rests for {wait_s} s more" if wait_s else "has rested; the next call that comes to it tries"
        emit(f"{each['deployment']} {doing}")
    for each in told["left_out"]:
        emit(f"{each['deployment']} is left out: it {each['why']}")
