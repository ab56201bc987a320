"""``/api/v1/contents`` and ``/requests/{id}/content``: what was kept of prompts and answers, and the search in it.

Whoever may not see a request's record sees nothing of its content. Each look, each search and each deletion is a line
in the trail of changes, written before anything is shown.
"""

from typing import Any, Final

from fastapi import APIRouter, Request

from faregate.console.content_search import AT_ONCE, KIND, check_text, search
from faregate.console.describing import answers, lists
from faregate.console.paging import read_page, sealed_page
from faregate.console.reading import in_thread
from faregate.console.requests import RECORD_FILTERS, TEXT_ASKED, filters_of, shape
from faregate.console.rights import needs
from faregate.console.shapes import calls as shapes
from faregate.console.state import Console
from faregate.console.texts import or_none, time_text
from faregate.console.writing import console_of, tell, told_of
from faregate.errors import NotFound
from faregate.ports import ContentRecord, Contents, KeptText, Row

router = APIRouter(tags=["contents"])

#: Of a page with texts.
CONTENTS_MAX: Final = 100


def shown(record: ContentRecord) -> dict[str, Any]:
    """What was kept of one call as the API shows it."""
    return {
        "id": record.id,
        "at": time_text(record.at),
        "kept": record.kept,
        "stream": record.stream,
        "http_status": record.http_status or None,
        "code": or_none(record.code),
        "prompt": _side(record.prompt),
        "answer": _side(record.answer),
        "rules": [
            {"rule": name, "action": action, "where": where, "times": times}
            for name, action, where, times in record.found
        ],
    }


def _side(text: KeptText) -> dict[str, Any]:
    return {
        "text": or_none(text.text),
        "characters": text.characters,
        "bytes": text.bytes,
        "truncated": text.truncated,
    }


def contents_of(console: Console) -> Contents:
    """Where contents are kept.

    Raises:
        NotFound: nowhere.
    """
    if console.contents is None:
        raise NotFound("no contents are kept here")
    return console.contents


def _visible(console: Console, request_id: str) -> Row:
    row = console.books.request(request_id) if len(request_id) <= 64 else None
    if row is None:
        raise NotFound("there is no such request")
    return row


def _told(row: Row, what: str) -> Row:
    """What the trail says of a look: at whose call, not at what."""
    payers = {name: row[name] for name in ("organization", "team", "project", "user")}
    return {"did": what, **payers}


@router.get("/requests/{request_id}/content")
@needs("content.read")
@answers(shapes.Content)
async def read_content(request: Request, request_id: str) -> dict[str, Any]:
    """The prompt and the answer of a call, as far as they were kept."""
    console = console_of(request)

    def look() -> dict[str, Any]:
        row, contents = _visible(console, request_id), contents_of(console)
        tell(console, KIND, request_id, None, _told(row, "read"))
        record = contents.get(request_id)
        if record is None:
            raise NotFound("nothing of this request's content is kept")
        return shown(record)

    return await in_thread(look)


@router.delete("/requests/{request_id}/content")
@needs("content.write")
@answers(shapes.RemovedContent)
async def remove_content(request: Request, request_id: str) -> dict[str, Any]:
    """Delete what was kept of a call for good; its record and what it cost stay."""
    console = console_of(request)

    def remove() -> dict[str, Any]:
        row, contents = _visible(console, request_id), contents_of(console)
        if contents.get(request_id) is None:
            raise NotFound("nothing of this request's content is kept")
        tell(console, KIND, request_id, None, _told(row, "deleted"))
        contents.remove(request_id)
        return {"id": request_id, "removed": True}

    return await in_thread(remove)


@router.get("/contents")
@needs("content.read")
@lists(*RECORD_FILTERS, TEXT_ASKED, tags=True, times=True)
@answers(shapes.Contents)
async def list_contents(request: Request) -> dict[str, Any]:
    """Prompts with their answers and records, newest first; ``text`` and every filter of requests."""
    console = console_of(request)
    page = read_page(request)
    limit = min(page.limit, CONTENTS_MAX)
    text, filters = page.filters.get("text"), filters_of(page.filters)
    if text is not None:
        check_text(console, text)

    def look() -> dict[str, Any]:
        contents = contents_of(console)

        def newest(before: str) -> tuple[list[str], str]:
            if text is not None:
                return contents.containing(text, before, AT_ONCE, int(filters.get("since", 0)))
            records = contents.newest(before, AT_ONCE, int(filters.get("since", 0)))
            return [each.id for each in records], records[-1].id if len(records) == AT_ONCE else ""

        found = search(console, limit, page.after, filters, newest)
        told_rows = [(KIND, row["id"], None, _told(row, "read")) for row in found.rows]
        data: list[dict[str, Any]] = []
        with told_of(console, told_rows or [(KIND, "", None, {"did": "searched"})]) as told:
            console.all_books.keep_trail(told)
            for row in found.rows:
                record = contents.get(row["id"])
                if record is not None:
                    data.append({**shown(record), "request": shape(row)})
        return sealed_page(request, page, data, found.last)

    return await in_thread(look)
