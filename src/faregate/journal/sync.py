"""The one thread that brings the journal's bytes to stable storage, many records at a time.

It sleeps until data is unsynced, so an idle gate has no timer. It then syncs after the interval, or at once when
somebody waits; whoever comes while a sync runs shares the next one. It knows descriptors and positions, no records.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from faregate.journal.segments import sync_folder

Callback = Callable[[], None]


class GroupSync:
    """Syncs a growing file in a daemon thread and tells who waited, through ``deliver``.

    ``position`` is read before each sync: everything below it is durable afterwards. ``on_failure`` is delivered once
    when the system reports that data could not be written; from then on nothing is called durable any more.
    """

    def __init__(
        self,
        folder: Path,
        fd: int,
        position: Callable[[], int],
        deliver: Callable[[Callback], object],
        interval_s: float,
        on_failure: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._fd = fd
        self._position = position
        self._deliver = deliver
        self._interval_s = interval_s
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._finished_fds: list[int] = []
        self._folder_changed = True
        self._waiting: list[tuple[int, Callback]] = []
        self._closing = False
        self.durable = 0
        self.failure = ""
        #: Set by the writer while there is unsynced data. Setting it is the writer's only cost, once per interval.
        self.unsynced = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    def segment_changed(self, fd: int) -> None:
        """Sync ``fd`` from now on; the one before is synced once more and closed."""
        with self._lock:
            self._finished_fds.append(self._fd)
            self._fd = fd
            self._folder_changed = True

    def when_durable(self, position: int, callback: Callback) -> None:
        """Deliver ``callback`` once everything below ``position`` is durable; never after a failure."""
        with self._lock:
            if position > self.durable:
                self._waiting.append((position, callback))
                self.unsynced.set()
                self._hurry.set()
                return
        self._deliver(callback)

    def close(self) -> None:
        """Sync what is left and end the thread; the descriptor in use is closed."""
        self._closing = True
        self._hurry.set()
        self.unsynced.set()
        self._thread.join()
        os.close(self._fd)

    def _run(self) -> None:
        while not self.failure:
            self.unsynced.wait()
            self._hurry.wait(self._interval_s)
            closing = self._closing
            self.unsynced.clear()
            self._hurry.clear()
            try:
                self._sync()
            except OSError as problem:
                # After a failed sync the kernel may drop the dirty pages and report success next time, so a second
                # try proves nothing: the process must end, and recovery reads what the disk really has.
                self.failure = f"the journal could not be synced: {problem.strerror or problem}"
                self._tell(lambda: self._on_failure(self.failure))
            if closing:
                return

    def _sync(self) -> None:
        # The position is read first: descriptors taken after it cover at least everything below it.
        position = self._position()
        with self._lock:
            finished, self._finished_fds = self._finished_fds, []
            fd, folder_changed, self._folder_changed = self._fd, self._folder_changed, False
        for old in finished:
            os.fdatasync(old)
            os.close(old)
        os.fdatasync(fd)
        if folder_changed:
            sync_folder(self._folder)
        with self._lock:
            self.durable = position
            ready = [callback for wanted, callback in self._waiting if wanted <= position]
            self._waiting = [(wanted, callback) for wanted, callback in self._waiting if wanted > position]
            if self._waiting:
                self.unsynced.set()
                self._hurry.set()
        for callback in ready:
            self._tell(callback)

    def _tell(self, callback: Callback) -> None:
        try:
            self._deliver(callback)
        except RuntimeError:
            # The loop that waited is closed: nobody is left to be told.
            return
