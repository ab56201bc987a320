"""Work that takes longer than a request: begun by one, looked at by others, stopped by any of them.

Results are kept for a while in memory and are gone with the process; whoever wants one again asks again. It knows
nothing of HTTP, nor of what the work is.
"""

import threading
from collections.abc import Callable
from typing import Any, Final

from faregate.errors import Conflict, Failed
from faregate.ports import Clock

#: Works that run at once: each takes a core's time from the projector while it computes.
RUNNING_MAX: Final = 2

#: Works that are remembered, ended ones included; the oldest that has ended is forgotten first.
KEPT_MAX: Final = 16

#: A work that takes longer is ended: it was asked too much.
WORK_SECONDS_MAX: Final = 1_800

#: After each step others get their turn; without it a computing thread hands over only every five milliseconds.
_PAUSE_S: Final = 0.001

_NANOS: Final = 1_000_000_000


class Stopped(Exception):
    """Somebody stopped the work."""


class Run:
    """One work. Safe to look at from several threads; what it tells is complete once ``ended`` is set."""

    def __init__(self, id: str, kind: str, clock: Clock) -> None:
        self.id = id
        #: What sort of work it is: who asks for one sort does not find another.
        self.kind = kind
        #: How far it is, as shown to people.
        self.progress: dict[str, Any] = {}
        self.result: dict[str, Any] | None = None
        self.failure: Exception | None = None
        self.stopped = False
        self.ended = threading.Event()
        self._stop = threading.Event()
        self._clock = clock
        self._until = clock.monotonic_nanos() + WORK_SECONDS_MAX * _NANOS

    def step(self, **progress: Any) -> None:
        """Say how far it is; called by the work itself, several times a second.

        Raises:
            Stopped: somebody wants it to end.
            Failed: it takes too long.
        """
        self.progress = progress
        if self._stop.wait(_PAUSE_S):
            raise Stopped
        if self._clock.monotonic_nanos() > self._until:
            raise Failed(f"this took longer than {WORK_SECONDS_MAX // 60} minutes", hint="ask for a shorter time")

    def stop(self) -> None:
        """Let it end at its next step."""
        self._stop.set()

    def work(self, what: Callable[["Run"], dict[str, Any]]) -> None:
        """Do it, to whatever end."""
        try:
            self.result = what(self)
        except Stopped:
            self.stopped = True
        except Exception as failure:  # Told to whoever asks for the result; nobody waits in this thread.
            self.failure = failure
        finally:
            self.ended.set()


class Runs:
    """All works. Safe to use from several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}

    def begin(self, id: str, kind: str, what: Callable[[Run], dict[str, Any]]) -> Run:
        """Begin a work in a thread of its own.

        Raises:
            Conflict: too many run already.
        """
        run = Run(id, kind, self._clock)
        with self._lock:
            running = [each for each in self._runs.values() if not each.ended.is_set()]
            if len(running) >= RUNNING_MAX:
                raise Conflict(
                    f"{len(running)} of these run already", hint=f"wait for {running[0].id}, or stop it with DELETE"
                )
            ended = [each.id for each in self._runs.values() if each.ended.is_set()]
            for old in ended[: max(0, len(self._runs) + 1 - KEPT_MAX)]:
                del self._runs[old]
            self._runs[id] = run
        threading.Thread(target=run.work, args=(what,), name=kind, daemon=True).start()
        return run

    def find(self, id: str, kind: str) -> Run | None:
        """The work of this id and kind, where it is remembered."""
        with self._lock:
            run = self._runs.get(id)
        return run if run is not None and run.kind == kind else None
