"""How the books are read: off the event loop, and all rows of a kind page by page."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVar

from anyio import CancelScope, to_thread

from faregate.ports import Books, MadePlaces, Row

_PAGE: Final = 1_000

#: Rows of which only some columns are taken; more at once take memory, fewer a statement each.
_PART: Final = 5_000

Made = TypeVar("Made")


#: Has something run in another thread, where that is its turn.
Submit = Callable[[Callable[[], Made]], Future[Made]]


async def in_thread(look: Callable[[], Made], submit: Submit[Made] | None = None) -> Made:
    """Run something that takes its time in a thread; it is waited for, also when cancelled.

    Whoever holds something meanwhile, or closes the books afterwards, relies on that. A cancellation is raised then.
    Without ``submit`` it is one of the threads that all who read share, where it may have to wait for others.
    """
    # The scope keeps anyio's own cancellations away, which would come again and again while the thread works.
    with CancelScope(shield=True):
        work: asyncio.Future[Made]
        if submit is None:
            work = asyncio.ensure_future(_worked(look))
        else:
            # The thread sees what the doors said of who asks, as those of anyio do.
            work = asyncio.wrap_future(submit(partial(copy_context().run, look)))
        cancelled: asyncio.CancelledError | None = None
        while not work.done():
            try:
                await asyncio.wait((work,))
            except asyncio.CancelledError as order:
                cancelled = order
    if cancelled is None:
        return work.result()
    if not work.cancelled() and work.exception() is not None:
        raise cancelled from work.exception()
    raise cancelled


async def _worked(look: Callable[[], Made]) -> Made:
    return await to_thread.run_sync(look)


def each_row(books: Books, kind: str, **equal: object) -> Iterator[Row]:
    """All rows of a kind, a page at a time."""
    after = ""
    while rows := books.listing(kind, after=after, limit=_PAGE, **equal):
        yield from rows
        after = rows[-1]["id"]


def each_part(books: Books, kind: str, names: Sequence[str]) -> Iterator[list[Sequence[Any]]]:
    """Some columns of all rows of a kind, ``id`` first among them, many rows at a time."""
    after = ""
    while (columns := books.columns(kind, names, after=after, limit=_PART))[0]:
        yield columns
        after = columns[0][-1]


def every(books: Books, kind: str, **equal: object) -> list[Row]:
    """All rows of a kind."""
    return list(each_row(books, kind, **equal))


def made_places(books: Books) -> MadePlaces:
    """What the API made of providers, deployments, names of models, pools and services."""
    return MadePlaces(*(every(books, kind) for kind in ("provider", "deployment", "model", "pool", "service")))
