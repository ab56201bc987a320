"""How far the verification of the books has come that runs now; there is one at a time."""

import threading
import time
from typing import Any, Final

#: After each step others get their turn; without it a computing thread hands over only every five milliseconds.
_PAUSE_S: Final = 0.001


class Verifying:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._alone = threading.Lock()
        #: ``books``, then ``journal``; empty where none runs.
        self.phase = ""
        self._done = 0
        self._total = 0

    def begin(self) -> bool:
        """Begin one; false where one runs."""
        if not self._alone.acquire(blocking=False):
            return False
        self.phase, self._done, self._total = "books", 0, 0
        return True

    def step(self, done: int, total: int) -> None:
        """So many rows of so many were looked at; called by the work itself, many times a second."""
        self._done, self._total = done, total
        time.sleep(_PAUSE_S)

    def end(self) -> None:
        """It is over, however it went."""
        self.phase = ""
        self._alone.release()

    def shape(self) -> dict[str, Any]:
        """As the API shows it."""
        return {"running": bool(self.phase), "phase": self.phase or None, "rows": self._done, "of": self._total}
