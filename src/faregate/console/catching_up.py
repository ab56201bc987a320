"""Waiting for the books, which follow what the gate has journalled within a second or so."""

from typing import Final

import anyio

from faregate.console.reading import in_thread
from faregate.console.state import Console

#: How long the projector is waited for.
CATCH_UP_SECONDS_MAX: Final = 10


async def caught_up(console: Console, position: int) -> int:
    """Wait until the books hold the journal up to ``position``, or for too long; returns how far they have come."""
    with anyio.move_on_after(CATCH_UP_SECONDS_MAX):
        # The projector writes the books from a thread of its own and tells nobody.
        while await in_thread(console.books.projected) < position:  # noqa: ASYNC110
            await anyio.sleep(0.02)
    return await in_thread(console.books.projected)
