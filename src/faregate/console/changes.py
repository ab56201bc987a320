"""``/api/v1/audit``: every change that was made here, newest first."""

from typing import Any

from fastapi import APIRouter, Request

from faregate.console.paging import read_page, sealed_page
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.writing import console_of

router = APIRouter(tags=["audit"])


@router.get("/audit")
async def list_changes(request: Request) -> dict[str, Any]:
    """Who changed what, when, from what to what."""
    console = console_of(request)
    page = read_page(request)
    if page.after and not page.after.isdigit():
        raise ApiProblem("page_invalid", "this cursor does not belong to this list; start without one", field="cursor")
    before = int(page.after) if page.after else None
    found, start = await in_thread(lambda: console.audit.newest(before, page.limit))
    return sealed_page(request, page, found, str(start) if start else "")
