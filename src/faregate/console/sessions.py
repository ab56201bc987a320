"""Sessions of the spend view: opaque ids in a cookie, everything else in memory, gone with the process.

It knows nothing of HTTP. A session ends after half an hour without use and twelve hours in any case.
"""

import hmac
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

IDLE_NANOS: Final = 30 * 60 * 1_000_000_000
LIFE_NANOS: Final = 12 * 60 * 60 * 1_000_000_000

#: Sessions are made only for admins; the bound keeps a broken client from filling the memory.
SESSIONS_MAX: Final = 1_000


@dataclass
class Session:
    """One signed-in browser."""

    key: str
    #: Of the secret that it was begun with: it ends with that one.
    digest: str
    csrf: str
    began: int
    seen: int


class Sessions:
    """All sessions. Safe to use from several threads. Times are nanoseconds of a clock that never steps back."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._lock = threading.Lock()
        self._by_id: dict[str, Session] = {}

    def begin(self, key: str, digest: str, now: int) -> tuple[str, Session]:
        """A new session for the admin key with this id, begun with the secret of this digest."""
        session = Session(key, digest, self._random(32).hex(), now, now)
        session_id = self._random(32).hex()
        with self._lock:
            if len(self._by_id) >= SESSIONS_MAX:
                oldest = min(self._by_id, key=lambda each: self._by_id[each].seen)
                del self._by_id[oldest]
            self._by_id[session_id] = session
        return session_id, session

    def find(self, session_id: str, now: int) -> Session | None:
        """The live session of a cookie; looking at it counts as use."""
        with self._lock:
            session = self._by_id.get(session_id)
            if session is None:
                return None
            if now - session.seen > IDLE_NANOS or now - session.began > LIFE_NANOS:
                del self._by_id[session_id]
                return None
            session.seen = now
            return session

    def end(self, session_id: str) -> None:
        """Forget a session."""
        with self._lock:
            self._by_id.pop(session_id, None)


def csrf_holds(session: Session, token: str) -> bool:
    """Whether a form or header carried this session's token."""
    return hmac.compare_digest(session.csrf.encode(), token.encode())
