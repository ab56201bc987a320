"""``/api/v1/cache``: how the response cache stands, and having it forget what it keeps.

The gate keeps answers, and finds them by labels: whose call they were kept for, at which stage, of which model. Whoever
has a scope has answers of it forgotten, and learns nothing of others: what lies outside is as absent. Names are not
looked up beyond that: calls of tokens bear some that no row has.
"""

from collections.abc import Iterator
from typing import Any, Final

from fastapi import APIRouter, Request

from faregate.console.describing import answers
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import care as shapes
from faregate.console.state import Console
from faregate.console.texts import Body, Name
from faregate.console.writing import console_of, tell
from faregate.control import Figures, FlushCache
from faregate.errors import Conflict, Failed, NotFound, Unavailable

router = APIRouter(prefix="/cache", tags=["cache"])

#: The kind of its lines in the trail of changes.
KIND: Final = "cache"

#: What the gate samples, and what it is called here.
_FIGURES: Final = {
    "entries": "faregate_cache_entries",
    "bytes": "faregate_cache_bytes",
    "disk_bytes": "faregate_cache_disk_bytes",
    "evictions": "faregate_cache_evictions_total",
    "failures": "faregate_cache_failures_total",
}
_LOOKUPS: Final = "faregate_cache_lookups_total"
_OUTCOMES: Final = {"hits": "hit", "misses": "miss"}


class NewFlush(Body):
    """Which kept answers are to be forgotten: those that have all of what is named; nothing named means all."""

    organization: Name | None = None
    stage: Name | None = None
    project: Name | None = None
    #: Id or name of the key whose call an answer was kept for.
    key: Name | None = None
    #: The name that was asked for, or the model that answered.
    model: Name | None = None


@router.get("")
@needs("installation.read")
@answers(shapes.ResponseCache)
async def read_cache(request: Request) -> dict[str, Any]:
    """How the response cache is set, what it keeps, and how often it was of use since the gate started.

    Figures are `null` where nobody tells them: while no gate runs, and of a Redis how much it keeps.
    """
    console = console_of(request)
    figures: Figures | None = None
    if console.gate is not None:
        try:
            figures = await console.gate.figures()
        except Unavailable:
            # How it is set can be told without the gate.
            figures = None
    return {**console.facts.cache._asdict(), **dict(_told(figures))}


def _told(figures: Figures | None) -> Iterator[tuple[str, int | None]]:
    samples = [each for each in figures.samples if each.name.startswith("faregate_cache_")] if figures else []
    for name, sampled in _FIGURES.items():
        # A store that other gates share is not asked how much there is.
        yield name, next((each.value for each in samples if each.name == sampled), None)
    for name, outcome in _OUTCOMES.items():
        looked = (each.value for each in samples if each.name == _LOOKUPS and ("outcome", outcome) in each.labels)
        yield name, sum(looked) if figures else None


@router.post("/flush")
@needs("cache.write")
@answers(shapes.FlushedCache, refusals=(404,))
async def flush_cache(request: Request, wanted: NewFlush) -> dict[str, Any]:
    """Forget the kept answers that have everything that is named, or with `{}` all; it is waited for.

    `key` is an id or a name. Where not all could be forgotten, it is `cache_unavailable` (503), and the detail says how
    many were.
    """
    console = console_of(request)
    if console.gate is None:
        hint = "start it, and send this again"
        raise Unavailable("no gate runs here that could forget anything", code="cache_unavailable", hint=hint)

    def begin() -> FlushCache:
        order = _order(console, wanted)
        labels = {name: value for name in order.__struct_fields__ if (value := getattr(order, name))}
        tell(console, KIND, "", None, {"did": "flush", **labels})
        return order

    order = await in_thread(begin)
    try:
        flush = await console.gate.flush_cache(order)
    except Unavailable as error:
        raise Unavailable(f"nothing is known to be forgotten: {error.message}", code="cache_unavailable") from error
    except Failed as error:
        raise ApiProblem(error.code, error.message) from error
    if flush.trouble or not flush.done:
        why = flush.trouble or "it goes on"
        told = f"{flush.removed} answers were forgotten, but not all: {why}"
        raise Unavailable(told, code="cache_unavailable")
    return {"removed": flush.removed}


def _order(console: Console, wanted: NewFlush) -> FlushCache:
    """What the gate is to forget, within the scope of whoever asks.

    Raises:
        NotFound: what is named lies outside of that scope, or there is no such key.
        Conflict: several keys are called so.
        ApiProblem: ``field_missing``: a part of an organization is told by a project or a key alone.
    """
    scope = console.principal.scope
    organization, project = wanted.organization or scope.organization, wanted.project or scope.project
    if scope.organization not in ("", organization):
        raise NotFound("there is no such organization")
    key = "" if wanted.key is None else _key_id(console, wanted.key, organization)
    if not key and any((scope.team, scope.project, scope.product, scope.user)):
        # Answers bear the names of projects and keys, and no other part of an organization.
        if not project or scope.product or scope.user:
            rule = "your key is of a part of an organization; name a key of it, or a project where it is of a team"
            raise ApiProblem("field_missing", rule, field="key")
        if not console.books.listing("project", name=project, limit=1):
            raise NotFound("there is no such project")
    return FlushCache(organization, wanted.stage or "", project, key, wanted.model or "")


def _key_id(console: Console, wanted: str, organization: str) -> str:
    """The id of the key that is meant, a deleted one by its id alone: what was kept for it is there still."""
    within = {"organization": organization} if organization else {}
    rows = console.books.listing("key", id=wanted, limit=1, **within)
    if not rows:
        named = console.books.listing("key", name=wanted, deleted_at=0, limit=100, **within)
        # Others bore the name before it.
        rows = [row for row in named if row["state"] != "revoked"] or named
    if not rows:
        raise NotFound("there is no such key")
    if len(rows) > 1:
        raise Conflict("several keys are called so; name it by its id")
    return str(rows[0]["id"])
