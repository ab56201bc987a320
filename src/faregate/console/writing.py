"""How a change is made: written to the books, then waited for until the gate works from it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

from fastapi import Request

from faregate.console.audit import Told
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import PRINCIPAL
from faregate.console.scoped_books import scoped
from faregate.console.state import Console
from faregate.console.texts import time_text
from faregate.console.turns import TooManyWait
from faregate.core.access import Principal
from faregate.errors import FaregateError
from faregate.ports import Row, TrailMark

#: A change acts within a second, and the caller sees that it does.
APPLIED_SECONDS_MAX: Final = 1.0

Made = TypeVar("Made")


def console_of(request: Request) -> Console:
    """The console that this request came to, as whoever asks may use it."""
    console: Console = request.app.state.console
    principal: Principal | None = request.scope.get(PRINCIPAL)
    return console if principal is None else scoped(console, principal)


async def locked(console: Console, change: Callable[[], Made], first: Callable[[], None] | None = None) -> Made:
    """Run a read-check-write of resources in a thread, one at a time; ``first`` looks whether it may be made.

    Raises:
        ApiProblem: ``concurrency_limited``: too many changes of whoever asks wait already.
    """

    def alone() -> Made:
        with console.changing:
            if first is not None:
                first()
            return change()

    try:
        return await in_thread(alone, partial(console.turns.submit, console.principal.id))
    except TooManyWait:
        rule = "too many changes of this key wait for their turn; nothing was done, send it again"
        raise ApiProblem("concurrency_limited", rule) from None


def put(console: Console, kind: str, row: Row) -> None:
    """Insert or replace a row, with a line in the trail of changes.

    Raises:
        StorageFull: the trail cannot be written, and nothing was changed.
    """
    with told_of(console, [(kind, row["id"], console.books.get(kind, row["id"]), row)]) as told:
        console.books.put(kind, row, told=told)


def put_all(console: Console, kind: str, rows: Sequence[Row]) -> None:
    """Insert or replace rows together, each with a line in the trail of changes; all of them or none.

    Raises:
        StorageFull: the trail cannot be written, and nothing was changed.
    """
    if not rows:
        return
    before = console.books.get_all(kind, [row["id"] for row in rows])
    with told_of(console, [(kind, row["id"], before.get(row["id"]), row) for row in rows]) as told:
        console.books.put_all(kind, rows, told=told)


def remove(console: Console, kind: str, row_id: str) -> None:
    """Remove a row, with a line in the trail of changes.

    Raises:
        StorageFull: the trail cannot be written, and nothing was changed.
    """
    with told_of(console, [(kind, row_id, console.books.get(kind, row_id), None)]) as told:
        console.books.remove(kind, row_id, told=told)


def put_together(console: Console, rows: Sequence[tuple[str, Row]], removed: Sequence[tuple[str, str]] = ()) -> None:
    """Put rows and remove others that belong together, each with a line in the trail of changes; all or none.

    Raises:
        StorageFull: the trail cannot be written, and nothing was changed.
    """
    changes: list[Told] = [(kind, row_id, console.books.get(kind, row_id), None) for kind, row_id in removed]
    changes += [(kind, row["id"], console.books.get(kind, row["id"]), row) for kind, row in rows]
    with told_of(console, changes) as told:
        console.books.put_together(rows, removed, told=told)


@contextmanager
def told_of(console: Console, changes: Sequence[Told]) -> Iterator[TrailMark]:
    """Tell the trail of changes, then let the caller make them and chain the mark that it is given.

    Where that fails, the trail says so: a line that tells of a change which was not made would accuse the books.

    Raises:
        StorageFull: the trail cannot be written, and nothing must be changed.
    """
    told = console.audit.append_all(time_text(console.clock.wall_nanos()) or "", changes)
    try:
        yield told
    except BaseException:  # Whatever kept the change from being made, the trail has told of it already.
        with suppress(FaregateError):
            # Where even this fails, the next start says it.
            _take_back(console, told)
        raise


def tell(console: Console, kind: str, row_id: str, before: Row | None, after: Row | None) -> TrailMark:
    """A line in the trail about something that changes no row of the books, such as a look at what was said.

    Raises:
        StorageFull: it cannot be written; what it tells of must not be done.
    """
    with told_of(console, [(kind, row_id, before, after)]) as told:
        console.all_books.keep_trail(told)
    return told


def tell_not_made(console: Console, told: TrailMark) -> None:
    """Say of what ``tell`` told that it was not done after all.

    Raises:
        StorageFull: it cannot be written.
    """
    console.all_books.keep_trail(
        console.audit.not_made(time_text(console.clock.wall_nanos()) or "", told.first, told.last)
    )


def _take_back(console: Console, told: TrailMark) -> None:
    if not told.last:
        # Nothing was told yet: the change is only being prepared.
        return
    if told in console.all_books.trail_marks(told.last - 1, 1):
        # It was chained, so the change was made, whatever went wrong afterwards.
        return
    mark = console.audit.not_made(time_text(console.clock.wall_nanos()) or "", told.first, told.last)
    console.all_books.keep_trail(told)
    console.all_books.keep_trail(mark)


async def acted(console: Console, answer: dict[str, Any]) -> dict[str, Any]:
    """``answer`` with ``applied``: whether the gate works from the change already; nothing where no gate runs."""
    if console.gate is not None:
        console.gate.nudge()
        answer["applied"] = await console.gate.applied(APPLIED_SECONDS_MAX)
    return answer
