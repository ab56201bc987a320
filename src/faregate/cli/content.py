"""``faregate content``: look at what was kept of prompts and answers, search in it, and delete it."""

from typing import Annotated, Any, Final

import typer

from faregate.cli.client import AdminClient, Where, connect, segment
from faregate.cli.named import agreed
from faregate.cli.output import Json, emit, emit_json, say, table
from faregate.cli.words import pairs

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="What was kept of prompts and answers.")

#: Of a text in a table.
SHOWN_CHARACTERS: Final = 60

#: Pages that are asked for where a search stops before it has found enough.
PAGES_MAX: Final = 50

RequestId = Annotated[str, typer.Argument(metavar="REQUEST", help="Id of the request.")]


@app.command("show")
def show(request: RequestId, data: Where = None, json: Json = False) -> None:
    """Show the prompt and the answer of one request. Each look is in the trail of changes."""
    with connect(data) as client:
        found = client.call("GET", f"/requests/{segment(request)}/content")
    if json:
        emit_json(found)
        return
    for name in ("prompt", "answer"):
        side = found[name]
        emit(f"--- {name}: {side['characters']} characters{_cut(side)}")
        emit(side["text"] or ("(not kept)" if side["characters"] else "(empty)"))
    for each in found["rules"]:
        emit(f"--- rule {each['rule']}: {each['action']}, {each['times']} in the {each['where']}")


def _cut(side: dict[str, Any]) -> str:
    return f", of which {len(side['text'] or '')} are kept" if side["truncated"] else ""


@app.command("list")
def list_contents(
    text: Annotated[str | None, typer.Option(help="Only those that hold this text, at most 128 characters.")] = None,
    select: Annotated[str | None, typer.Option(help="Only these: team=research,event_id=order-17.")] = None,
    since: Annotated[str | None, typer.Option(help="Start, such as 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option(help="End, not included.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many (1 to 100).")] = 20,
    data: Where = None,
    json: Json = False,
) -> None:
    """List prompts with their answers, newest first."""
    query = {**pairs(select), "text": text, "since": since, "until": until}
    with connect(data) as client:
        rows = searched(client, "/contents", query, limit)
    if json:
        emit_json(rows)
        return
    columns = ("at", "id", "key", "model", "prompt", "answer")
    table(columns, [_line(row) for row in rows])


def _line(row: dict[str, Any]) -> tuple[object, ...]:
    texts = [_shortened(" ".join((row[side]["text"] or "").split())) for side in ("prompt", "answer")]
    return row["at"], row["id"], row["request"]["key"], row["request"]["model"], *texts


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def searched(client: AdminClient, path: str, query: dict[str, str | None], limit: int) -> list[dict[str, Any]]:
    """Rows of a list that may stop before a page is full, because its time is over."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    for _ in range(PAGES_MAX):
        # A cursor belongs to its question, so the size of the page stays.
        page = client.call("GET", path, query={**query, "limit": str(limit), "cursor": cursor})
        rows += page["data"]
        cursor = page["next_cursor"]
        if cursor is None or len(rows) >= limit:
            return rows[:limit]
    say("The search went on for too long; narrow it by --since or --select.")
    return rows[:limit]


@app.command("delete")
def delete(
    request: RequestId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Delete what was kept of one request for good; its record and what it cost stay."""
    with connect(data) as client:
        agreed(f"Delete the content of {request}? This cannot be undone.", "deleting cannot be undone", yes)
        gone = client.call("DELETE", f"/requests/{segment(request)}/content")
    if json:
        emit_json(gone)
    else:
        emit(f"deleted the content of {gone['id']}")
