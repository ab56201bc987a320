"""Steps that are called back later, by an event loop, a thread or the other side's connection.

What such a step raises would end in the loop's log and nowhere else, with an exchange that never ends and a hold that
is never given back. Every one of them goes through here.
"""

from collections.abc import Callable
from typing import Any


def guarded(step: Callable[..., None], mistaken: Callable[[BaseException], None]) -> Callable[..., None]:
    """``step``, whose unforeseen errors end its exchange through ``mistaken``."""

    def run(*arguments: Any) -> None:
        try:
            step(*arguments)
        except Exception as error:  # A mistake of ours must end this one request, whatever it was about to do.
            mistaken(error)

    return run
