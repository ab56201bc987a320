"""The one thread that brings the journal's bytes to stable storage, many records at a time.

It sleeps until data is unsynced, so an idle gate has no timer. It then syncs after the interval, or at once when
somebody waits; whoever comes while a sync runs shares the next one. It also keeps a spare segment ready and puts away
finished ones, so that the event loop need not. It knows files and positions, no records.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from faregate.journal.mapped import MappedSegment
from faregate.journal.segments import sync_folder
from faregate.journal.spare import Spare

Callback = Callable[[], None]

#: How often a full disk is asked whether it has room for a spare segment again.
SPARE_RETRY_S: Final = 1.0


class GroupSync:
    """Syncs what is written into mapped segments, in a daemon thread, and tells who waited, through ``deliver``.

    ``position`` is read before each sync: everything below it is durable afterwards. ``on_failure`` is delivered once
    when a sync fails, whatever it fails of; from then on nothing more becomes durable.
    """

    def __init__(
        self,
        folder: Path,
        segment: MappedSegment,
        spare: Spare,
        position: Callable[[], int],
        deliver: Callable[[Callback], object],
        interval_s: float,
        on_failure: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._segment = segment
        self._spare = spare
        self._position = position
        self._deliver = deliver
        self._interval_s = interval_s
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._finished: list[tuple[MappedSegment, int]] = []
        self._retry_at = 0.0
        self._folder_changed = True
        self._waiting: list[tuple[int, Callback]] = []
        self._closing = False
        self.durable = 0
        self.failure = ""
        #: False while nobody has told the thread of unsynced data; the writer calls ``wake`` then, once per interval.
        self.awake = False
        self._unsynced = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is unsynced data."""
        self.awake = True
        self._unsynced.set()

    def segment_changed(self, segment: MappedSegment, used: int) -> None:
        """Sync ``segment`` from now on; the one before, of which ``used`` bytes are written, is put away."""
        with self._lock:
            self._finished.append((self._segment, used))
            self._segment = segment
            self._folder_changed = True

    def when_durable(self, position: int, callback: Callback) -> None:
        """Deliver ``callback`` once everything below ``position`` is durable; never after a failure."""
        with self._lock:
            if position > self.durable:
                self._waiting.append((position, callback))
                self._unsynced.set()
                self._hurry.set()
                return
        self._deliver(callback)

    def close(self) -> None:
        """Sync what is left, end the thread and put the segment in use away."""
        self._closing = True
        self._hurry.set()
        self._unsynced.set()
        self._thread.join()
        # After a failed sync only a recovery tells what is left, so nothing may be cut before it looks.
        self._segment.release(None if self.failure else self.durable - self._segment.first)

    def _run(self) -> None:
        try:
            while self._round():
                self._keep_spare()
        # After a failed sync the kernel may drop the dirty pages and report success next time, so a second try proves
        # nothing: the process must end, and recovery reads what the disk really has. That holds for whatever ends this
        # thread: without it nobody who waits is ever told.
        except Exception as problem:
            why = problem.strerror if isinstance(problem, OSError) and problem.strerror else repr(problem)
            self.failure = f"the journal could not be synced: {why}"
            self._tell(lambda: self._on_failure(self.failure))

    def _round(self) -> bool:
        """Sync once something is written, or look after the spare meanwhile; false when that was the last time."""
        if not self._unsynced.wait(None if self._spare.ready else SPARE_RETRY_S):
            return True
        self._hurry.wait(self._interval_s)
        self._unsynced.clear()
        self._hurry.clear()
        # Only now: a ``close`` that comes before is seen here, one that comes after it puts the flags up again.
        closing = self._closing
        # Last, and before the position is read: whatever is written from now on wakes the thread again.
        self.awake = False
        self._sync()
        return not closing

    def _keep_spare(self) -> None:
        if not self._spare.ready and time.monotonic() >= self._retry_at and not self._spare.prepare(durably=True):
            self._retry_at = time.monotonic() + SPARE_RETRY_S

    def _sync(self) -> None:
        # The position is read first: files taken after it cover at least everything below it.
        position = self._position()
        with self._lock:
            finished, self._finished = self._finished, []
            segment, folder_changed, self._folder_changed = self._segment, self._folder_changed, False
        for old, used in finished:
            os.fdatasync(old.fd)
            # Only what is on the disk is cut to its length: a segment of full length may be torn by a power cut.
            old.release(used)
        os.fdatasync(segment.fd)
        if folder_changed:
            sync_folder(self._folder)
        segment.forget(position - segment.first)
        with self._lock:
            self.durable = position
            ready = [callback for wanted, callback in self._waiting if wanted <= position]
            self._waiting = [(wanted, callback) for wanted, callback in self._waiting if wanted > position]
            if self._waiting:
                self._unsynced.set()
                self._hurry.set()
        for callback in ready:
            self._tell(callback)

    def _tell(self, callback: Callback) -> None:
        try:
            self._deliver(callback)
        except RuntimeError:
            # The loop that waited is closed: nobody is left to be told.
            return
