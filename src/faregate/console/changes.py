"""``/api/v1/audit``: every change that was made here, newest first."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request

from faregate.console.describing import answers, lists, text
from faregate.console.paging import read_page, sealed_page
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import care as shapes
from faregate.console.shown_changes import shown
from faregate.console.state import Console
from faregate.console.texts import moment
from faregate.console.writing import console_of
from faregate.core.access import in_scopes

router = APIRouter(tags=["audit"])

#: Equal to what a line says.
FILTERS: Final = ("actor", "kind", "id", "request_id")

Line = Mapping[str, Any]


@router.get("/audit")
@needs("audit.read")
@lists(
    text("actor", "Id of the key whose holder made it, `local`, or for configurations `signal` or `start`."),
    text("kind", "Kind of what was changed, such as `key` or `configuration`."),
    text("id", "Id of what was changed."),
    text("request_id", "Id of the request that made it."),
    times=True,
)
@answers(shapes.Changes)
async def list_changes(request: Request) -> dict[str, Any]:
    """Who changed what, when, from what to what; filters: ``actor``, ``kind``, ``id``, ``request_id``, times.

    With filters a page may hold fewer lines than were asked for, or none: ``next_cursor`` says that there are more to
    look at.
    """
    console = console_of(request)
    page = read_page(request)
    if page.after and not page.after.isdigit():
        raise ApiProblem("page_invalid", "this cursor does not belong to this list; start without one", field="cursor")
    before = int(page.after) if page.after else None
    fits = _fitting(console, page.filters)
    found, start = await in_thread(lambda: console.audit.newest(before, page.limit, fits))
    return sealed_page(request, page, [_shown(line) for line in found], str(start) if start else "")


def _shown(line: Line) -> dict[str, Any]:
    """A line with its rows as people read them; its ``chain`` is of the line as it is in the file."""
    kind = line["kind"]
    return {**line, "before": shown(kind, line["before"]), "after": shown(kind, line["after"])}


def _fitting(console: Console, filters: Mapping[str, Any]) -> Callable[[Line], bool]:
    """Whether a line fits the filters, and whoever asks may see it."""
    equal = {name: value for name, value in filters.items() if name in FILTERS}
    since, until = filters.get("since", 0), filters.get("until", 0)
    whole = console.principal.scope.whole

    def fits(line: Line) -> bool:
        if any(line[name] != value for name, value in equal.items()):
            return False
        if since or until:
            at = moment(line["at"])
            if at < since or (until and at >= until):
                return False
        return whole or _sees(console, line)

    return fits


def _sees(console: Console, line: Line) -> bool:
    """Whether what a line tells of lay in the scope of whoever asks, before and after."""
    kind, rows = line["kind"], [row for row in (line["before"], line["after"]) if row is not None]
    if kind == "limit_entry":
        return all(console.books.get("limit", row.get("limit_id", "")) is not None for row in rows)
    return in_scopes(kind) and bool(rows) and all(console.principal.scope.sees(kind, row) for row in rows)
