"""The projector in threads of its own, which leave the processor to calls.

Nothing is imported here that takes its time: a start begins with it.
"""

import logging
import threading
import time

from faregate.assembly.scheduling import use_idle_time
from faregate.errors import FaregateError
from faregate.journal.projector import Projector

logger = logging.getLogger("faregate.console")

#: At a stop, for ending the batch that runs and for the batches after it, each.
LAST_BATCHES_S = 0.75

#: When projection has been behind for so long, idle time is not enough; then an ordinary thread goes on for at least
#: ``ORDINARY_S``, for a batch that waits for idle time keeps what it holds.
BEHIND_S_MAX = 0.5
ORDINARY_S = 60.0


class Projection:
    """The projector in threads of its own.

    It works in idle time, so that no call waits for it: who computes beside the gate on a core may keep that until the
    kernel's next tick, some milliseconds, however short the gate's slices are. Where idle time is not enough, a thread
    of the ordinary kind goes on until everything is in the books.
    """

    def __init__(
        self, projector: Projector, *, behind_s_max: float = BEHIND_S_MAX, ordinary_s: float = ORDINARY_S
    ) -> None:
        self.projector = projector
        self._behind_s_max = behind_s_max
        self._ordinary_s = ordinary_s
        self._ordinary_until = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="projector", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            idle = threading.Thread(target=self._run_in_idle_time, name="projector-idle", daemon=True)
            try:
                idle.start()
            except RuntimeError:
                # The system has no thread to give; this one does its work meanwhile.
                logger.warning("projection_without_idle_time")
            else:
                idle.join()
            self._ordinary_until = time.monotonic() + self._ordinary_s
            self.projector.run(self._stop, self._may_rest)

    def _may_rest(self, behind_s: float) -> bool:
        return behind_s <= self._behind_s_max and time.monotonic() >= self._ordinary_until

    def _run_in_idle_time(self) -> None:
        use_idle_time()
        self.projector.run(self._stop, lambda behind_s: behind_s > self._behind_s_max)

    def close(self) -> None:
        """End the thread, then book what is journalled and not yet in the books, as far as time allows."""
        self._stop.set()
        self.projector.nudge()
        self._thread.join(LAST_BATCHES_S)
        give_up_at = time.monotonic() + LAST_BATCHES_S
        try:
            while not self._thread.is_alive() and self.projector.step() and time.monotonic() < give_up_at:
                pass
        except FaregateError as error:
            # Nothing is lost: the journal stays, and the next start books it.
            log_trouble(error.message)


def tell_nobody(position: int) -> None:
    """The link to the gate looks at the books by itself."""


def log_trouble(trouble: str) -> None:
    """Log why the books do not follow, and that they do again."""
    if trouble:
        logger.error("projection_waits", extra={"why": trouble})
    else:
        logger.info("projection_goes_on")
