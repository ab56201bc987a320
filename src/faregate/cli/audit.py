"""``faregate audit``: who changed what, when, from what to what."""

import json as json_text
from typing import Annotated, Any

import typer

from faregate.cli.client import PAGE, Where, connect
from faregate.cli.output import Json, emit_json, table
from faregate.errors import UsageError

_COLUMNS = ("n", "at", "actor", "kind", "id", "change")

#: Characters of a change that a table shows; JSON shows all.
_CHANGE_CHARACTERS = 80


def command(
    actor: Annotated[
        str | None, typer.Option(help="Only what this key changed (its id; `local`, `command`, `signal`, `start`).")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only changes of this kind: key, limit, price, ...")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Only changes of the resource with this id.")] = None,
    request_id: Annotated[str | None, typer.Option(help="Only what this request changed.")] = None,
    since: Annotated[str | None, typer.Option(help="Start, such as 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option(help="End, not included.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many (1 to 1000).")] = 50,
    data: Where = None,
    json: Json = False,
) -> None:
    """Look at the trail of changes, newest first."""
    if not 1 <= limit <= PAGE:
        raise UsageError(f"--limit is a whole number from 1 to {PAGE}")
    query = {"actor": actor, "kind": kind, "id": id, "request_id": request_id, "since": since, "until": until}
    lines: list[dict[str, Any]] = []
    cursor: str | None = None
    with connect(data) as client:
        while True:
            page = client.call("GET", "/audit", query={**query, "limit": str(limit - len(lines)), "cursor": cursor})
            lines += page["data"]
            cursor = page["next_cursor"]
            if cursor is None or len(lines) >= limit:
                break
    if json:
        emit_json(lines)
    else:
        table(_COLUMNS, [[*(line[name] for name in _COLUMNS[:-1]), _change(line)] for line in lines])


def _change(line: dict[str, Any]) -> str:
    """What became different, in a few words."""
    before, after = line["before"], line["after"]
    if after is None:
        return "removed"
    if before is None:
        told = after.get("name") or ", ".join(f"{name}={_text(after[name])}" for name in list(after)[:3])
        text = f"made: {told}"
    else:
        names = [name for name in {**after, **before} if before.get(name) != after.get(name) and name != "updated_at"]
        if line["kind"] == "configuration":
            # All that it lists differs, also secrets whose masks are the same.
            names = list({**after, **before})
        changes = [f"{name}: {_text(before.get(name))} -> {_text(after.get(name))}" for name in names]
        text = ", ".join(changes) or "no change"
    return text if len(text) <= _CHANGE_CHARACTERS else f"{text[: _CHANGE_CHARACTERS - 3]}..."


def _text(value: object) -> str:
    return value if isinstance(value, str) else json_text.dumps(value, ensure_ascii=False)
