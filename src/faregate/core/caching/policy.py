"""Whether a call may be answered from the cache, whether its answer may be kept, and what a hit is charged.

Who may say so: the configuration's default, the stage, the project, the key and the request. *off* of any of them holds
against all the others, so that nobody is cached against a word of his administrator; *on* of any of them suffices
otherwise; where nobody says anything the default decides.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from faregate.core.money import half_even

#: What a stage, a project or a key may say; empty where it says nothing.
WORDS: Final = ("on", "off")

#: Whom a kept answer is shared with. Each is within the organization and the stage.
SHARES: Final = ("organization", "project", "key", "end_user")

#: What a call does with the cache. ``refresh`` asks the provider and keeps its answer.
OFF: Final = "off"
USE: Final = "use"
REFRESH: Final = "refresh"

#: What a request wishes, by header value.
_OURS: Final = {b"on": "on", b"off": "off", b"refresh": REFRESH}
_OLDER: Final = {b"1": "on", b"0": "off"}


def wish_of(ours: bytes | None, older: bytes | None, cache_control: bytes | None) -> str | None:
    """What a request wishes by its headers: ``on``, ``off``, ``refresh``, ``no-cache`` or nothing, which is empty.

    ``None`` where a header says what it cannot. ``ours`` is ``x-faregate-cache`` and goes before
    ``openai-proxy-caching``, but that ``off`` of either holds. ``Cache-Control: no-store`` beats both; ``no-cache`` and
    ``max-age=0`` wish a new answer wherever the cache is used (RFC 9111 section 5.2.1).
    """
    wish: str | None = ""
    if ours is not None:
        wish = _OURS.get(ours.strip().lower())
    if older is not None and wish is not None:
        told_by_older = _OLDER.get(older.strip())
        wish = told_by_older if ours is None or told_by_older in (None, "off") else wish
    if cache_control is None or wish is None:
        return wish
    told = {each.strip().lower() for each in cache_control.split(b",")}
    if b"no-store" in told:
        return "off"
    if not told.isdisjoint((b"no-cache", b"max-age=0")) and wish != "off":
        return REFRESH if wish else "no-cache"
    return wish


def mode_of(words: Iterable[str], wish: str, default: str) -> str:
    """``off``, ``use`` or ``refresh``: what a call does by the ``words`` of its stage, project and key."""
    said = set(words)
    if "off" in said or wish == "off":
        return OFF
    if wish == REFRESH:
        return REFRESH
    if "on" in said or wish == "on" or default == "on":
        return REFRESH if wish == "no-cache" else USE
    return OFF


def is_deterministic(body: dict[str, Any], generates: bool) -> bool:
    """Whether asking again would be answered the same: nothing is generated, or at a temperature of 0."""
    if not generates:
        return True
    told = body.get("temperature")
    inner = body.get("generationConfig")
    if told is None and isinstance(inner, dict):
        told = inner.get("temperature")
    return not isinstance(told, bool) and told == 0


class CacheLabels(NamedTuple):
    """By what a kept answer is found when answers are to be forgotten."""

    organization: str = ""
    stage: str = ""
    project: str = ""
    #: Of the caller whose call it was kept for.
    key: str = ""
    #: The name that was asked for, and the model that answered.
    model: str = ""
    answered_by: str = ""

    def fits(self, wanted: "CacheLabels") -> bool:
        """Whether it is among those that are ``wanted``: empty fields stand for all, a model for both its names."""
        return (
            wanted.organization in ("", self.organization)
            and wanted.stage in ("", self.stage)
            and wanted.project in ("", self.project)
            and wanted.key in ("", self.key)
            and wanted.model in ("", self.model, self.answered_by)
        )


class Outcome(NamedTuple):
    """How a call ended whose answer might be kept."""

    status: str
    http_status: int
    #: Bytes of the answer; -1 where not all of it is at hand.
    size: int
    #: The provider said that it was at its end.
    finished: bool = True


def may_keep(outcome: Outcome, bytes_max: int) -> bool:
    """Whether an answer may be given again: well, whole, at its end, and small enough."""
    if outcome.status != "ok" or outcome.http_status != 200:
        return False
    return 0 < outcome.size <= bytes_max and outcome.finished


def is_kept_elsewhere(body: dict[str, Any], makes_objects: bool) -> bool:
    """Whether the answer names something that its provider keeps and that is somebody's own.

    Some operations keep it unless ``store`` is false, the others where it is true.
    """
    store = body.get("store")
    return store is not False if makes_objects else store is True


def hit_charge(whole: int, percent: int) -> int:
    """Nano-dollars that a hit is charged of the ``whole`` that the call would be charged, rounded half to even."""
    return half_even(whole * percent, 100)
