"""Changes take turns: one at a time, in a thread of their own, each key's after those of every other.

Who waits holds no thread, so that reading and signing in never wait for changes; and whoever asks for a thousand
changes at once waits for them himself, while others get their turn after the one that runs. It knows no HTTP.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from faregate.core.access import LOCAL

#: Changes of one key that wait at once. Each holds its whole body in memory meanwhile.
WAITING_MAX: Final = 32

Made = TypeVar("Made")


class TooManyWait(Exception):
    """So many changes of one key wait already; nothing was done."""


class Turns:
    """The changes that wait. Safe to use from several threads and event loops."""

    def __init__(self, waiting_max: int = WAITING_MAX) -> None:
        self._waiting_max = waiting_max
        self._lock = threading.Lock()
        #: Id of a key → its changes, oldest first; the key whose turn is next stands first.
        self._waiting: dict[str, deque[Callable[[], None]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="changes")

    def submit(self, key_id: str, change: Callable[[], Made]) -> Future[Made]:
        """Make a change when it is its turn.

        Raises:
            TooManyWait: too many of this key wait.
        """
        made: Future[Made] = Future()
        with self._lock:
            mine = self._waiting.setdefault(key_id, deque())
            # What the product does by itself, and whoever has its socket, is refused nothing.
            if len(mine) >= self._waiting_max and key_id != LOCAL.id:
                raise TooManyWait
            mine.append(partial(_make, made, change))
        self._thread.submit(self._next)
        return made

    def _next(self) -> None:
        with self._lock:
            key_id = next(iter(self._waiting))
            mine = self._waiting.pop(key_id)
            make = mine.popleft()
            if mine:
                self._waiting[key_id] = mine
        make()


def _make(made: Future[Any], change: Callable[[], Any]) -> None:
    if not made.set_running_or_notify_cancel():
        return
    try:
        result = change()
    except BaseException as fault:  # Whoever waits for the change is told, whatever it was.
        made.set_exception(fault)
    else:
        made.set_result(result)
