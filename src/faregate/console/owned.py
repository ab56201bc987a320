"""``/api/v1/owned``: which things a state file brought about (``faregate apply``), and may take away again.

The mark decides nothing else: whoever may change a thing may change one that a file made, and the next ``apply`` of
that file tells the difference.
"""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.describing import answers, lists
from faregate.console.paging import read_page, sealed_page
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import care as shapes
from faregate.console.texts import Body
from faregate.console.writing import console_of, locked, put_all
from faregate.core.desired_state import APPLY
from faregate.errors import NotFound

router = APIRouter(prefix="/owned", tags=["owned"])

#: Where the mark is among a row's free facts.
OWNER: Final = "owner"

KINDS: Final = (
    *("organization", "team", "project", "user", "product", "stage", "subscription"),
    *("key", "limit", "price", "webhook", "provider", "deployment", "pool", "model", "service"),
)
#: What the books call otherwise than the API.
_IN_BOOKS: Final = {"webhook": "channel"}

IDS_MAX: Final = 1_000

Kind = Literal[KINDS]  # type: ignore[valid-type]
Id = Annotated[str, Field(max_length=64)]


class Mark(Body):
    """Things of one kind, and whose they are from now on."""

    kind: Kind
    ids: list[Id] = Field(max_length=IDS_MAX)
    #: ``null`` takes the mark away.
    owner: Literal["apply"] | None = APPLY


@router.get("/{kind}")
@needs("installation.read")
@lists()
@answers(shapes.Owned)
async def list_owned(request: Request, kind: str) -> dict[str, Any]:
    """Ids of the things of a kind that a state file brought about; a page may hold fewer than it asks for."""
    console = console_of(request)
    if kind not in KINDS:
        raise NotFound(f"there is no such kind; one of {', '.join(KINDS)}")
    page = read_page(request)
    rows = await in_thread(
        lambda: console.books.listing(_IN_BOOKS.get(kind, kind), after=page.after, limit=page.limit + 1)
    )
    kept = rows[: page.limit]
    owned = [{"id": row["id"]} for row in kept if (row["details"] or {}).get(OWNER) == APPLY]
    return sealed_page(request, page, owned, kept[-1]["id"] if len(rows) > page.limit else "")


@router.put("")
@needs("installation.write")
@answers(shapes.Marked, refusals=(404,))
async def mark_owned(request: Request, wanted: Mark) -> dict[str, Any]:
    """Say that things are a state file's, or are not any more; those that are marked so already stay as they are."""
    console = console_of(request)
    kind = _IN_BOOKS.get(wanted.kind, wanted.kind)

    def alone() -> int:
        rows = console.books.get_all(kind, wanted.ids)
        missing = [each for each in wanted.ids if each not in rows]
        if missing:
            raise ApiProblem("not_found", f"there is no such {wanted.kind}", field="ids")
        changed = []
        for row in rows.values():
            details = dict(row["details"] or {})
            if details.get(OWNER) == wanted.owner:
                continue
            details.pop(OWNER, None)
            changed.append({**row, "details": details | ({OWNER: wanted.owner} if wanted.owner else {})})
        put_all(console, kind, changed)
        return len(changed)

    return {"kind": wanted.kind, "marked": await locked(console, alone)}
