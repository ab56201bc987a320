"""How a change is made: written to the books, then waited for until the gate works from it."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from fastapi import Request

from faregate.console.reading import in_thread
from faregate.console.state import Console
from faregate.console.texts import time_text
from faregate.ports import Row

#: A change acts within a second, and the caller sees that it does.
APPLIED_SECONDS_MAX: Final = 1.0

Made = TypeVar("Made")


def console_of(request: Request) -> Console:
    """The console that this request came to."""
    console: Console = request.app.state.console
    return console


async def locked(console: Console, change: Callable[[], Made]) -> Made:
    """Run a read-check-write of resources in a thread, one at a time."""

    def alone() -> Made:
        with console.changing:
            return change()

    return await in_thread(alone)


def put(console: Console, kind: str, row: Row) -> None:
    """Insert or replace a row, with a line in the trail of changes.

    Raises:
        StorageFull: the trail cannot be written, and nothing was changed.
    """
    _record(console, kind, row["id"], row)
    console.books.put(kind, row)


def put_all(console: Console, kind: str, rows: Sequence[Row]) -> None:
    """Insert or replace rows together, each with a line in the trail of changes; all of them or none.

    Raises:
        StorageFull: the trail cannot be written, and nothing was changed.
    """
    if not rows:
        return
    at = time_text(console.clock.wall_nanos()) or ""
    before = console.books.get_all(kind, [row["id"] for row in rows])
    console.audit.append_all(at, [(kind, row["id"], before.get(row["id"]), row) for row in rows])
    console.books.put_all(kind, rows)


def remove(console: Console, kind: str, row_id: str) -> None:
    """Remove a row, with a line in the trail of changes.

    Raises:
        StorageFull: the trail cannot be written, and nothing was changed.
    """
    _record(console, kind, row_id, None)
    console.books.remove(kind, row_id)


def put_together(console: Console, rows: Sequence[tuple[str, Row]], removed: Sequence[tuple[str, str]] = ()) -> None:
    """Put rows and remove others that belong together, each with a line in the trail of changes; all or none.

    Raises:
        StorageFull: the trail cannot be written, and nothing was changed.
    """
    at = time_text(console.clock.wall_nanos()) or ""
    changes: list[tuple[str, str, Row | None, Row | None]] = [
        (kind, row_id, console.books.get(kind, row_id), None) for kind, row_id in removed
    ]
    changes += [(kind, row["id"], console.books.get(kind, row["id"]), row) for kind, row in rows]
    console.audit.append_all(at, changes)
    console.books.put_together(rows, removed)


def _record(console: Console, kind: str, row_id: str, after: Row | None) -> None:
    at = time_text(console.clock.wall_nanos()) or ""
    console.audit.append(at, kind, row_id, console.books.get(kind, row_id), after)


async def acted(console: Console, answer: dict[str, Any]) -> dict[str, Any]:
    """``answer`` with ``applied``: whether the gate works from the change already; nothing where no gate runs."""
    if console.gate is not None:
        console.gate.nudge()
        answer["applied"] = await console.gate.applied(APPLIED_SECONDS_MAX)
    return answer
