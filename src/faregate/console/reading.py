"""How the books are read: off the event loop, and all rows of a kind page by page."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

from anyio import to_thread

from faregate.ports import Books, Row

_PAGE: Final = 1_000

Made = TypeVar("Made")


async def in_thread(look: Callable[[], Made]) -> Made:
    """Run something that takes its time in a thread; one that has begun is waited for, also when cancelled."""
    awaited: Awaitable[Made] = to_thread.run_sync(look)
    return await awaited


def each_row(books: Books, kind: str, **equal: object) -> Iterator[Row]:
    """All rows of a kind, a page at a time."""
    after = ""
    while rows := books.listing(kind, after=after, limit=_PAGE, **equal):
        yield from rows
        after = rows[-1]["id"]


def every(books: Books, kind: str, **equal: object) -> list[Row]:
    """All rows of a kind."""
    return list(each_row(books, kind, **equal))
