"""``/api/v1/alerts``: what people were told of, and how the telling goes. Anybody here raises alerts with one call.

An alert is a row of the books with a name of its own, which says what, of whom, at which threshold and in which period:
raising it again changes nothing, whoever does so and however often, and a restart forgets none. Delivery takes it from
there (``alert_outbox``).
"""

from typing import Any, ClassVar, Final, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.describing import answers, choice, lists, text
from faregate.console.paging import page_of, read_page
from faregate.console.problems import ApiProblem
from faregate.console.reading import every, in_thread
from faregate.console.rights import needs
from faregate.console.shapes import care as shapes
from faregate.console.shapes.values import Removed
from faregate.console.state import Console
from faregate.console.texts import Body, Name, Sentence, or_none, time_text
from faregate.console.writing import console_of, put, remove, told_of
from faregate.core.alerts import KINDS, SEVERITIES
from faregate.errors import Conflict, NotFound
from faregate.ports import Row

router = APIRouter(prefix="/alerts", tags=["alerts"])

#: Messages are sentences; longer ones are cut, for some channels take no more.
MESSAGE_CHARACTERS_MAX: Final = 1_000

#: No more are counted for health.
COUNTED_MAX: Final = 1_000

#: After so many tries in vain an alert is late: half a minute.
LATE_TRIES: Final = 3

_READ_ONLY: Final = frozenset({"id", "kind", "name", "message", "severity", "created_at", "limit_id", "key", "tries"})


class AlertChange(Body):
    """What may be changed of an alert."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY

    seen: bool | None = None
    #: Sends once more what was given up.
    state: Literal["waiting"] | None = None


class NewAlert(Body):
    """An alert that says nothing but that somebody tries the channels."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY - {"message"}

    message: Sentence | None = None
    #: Only this channel; all that take alerts of the kind ``test`` without it.
    channel: Name | None = Field(default=None)


def channels_for(console: Console, kind: str) -> list[Row]:
    """The channels, declared or made, that alerts of a kind go to."""
    known = [*console.channels, *every(console.books, "channel")]
    return [each for each in known if each["state"] == "active" and (each["alerts"] is None or kind in each["alerts"])]


def raise_alert(
    console: Console,
    *,
    kind: str,
    name: str,
    severity: str,
    message: str,
    limit_id: str = "",
    key: str = "",
    details: dict[str, Any] | None = None,
) -> bool:
    """Tell people of something, once for each ``name``; false where that was told already. For threads.

    ``details`` are plain JSON values; ``period_end`` among them, nanoseconds or 0 for never, keeps the alert, and so
    its name, in the books for at least so long.

    Raises:
        ValueError: there is no such kind or severity.
        Unavailable: the books do not answer.
    """
    if kind not in KINDS or severity not in SEVERITIES:
        raise ValueError(f"no such alert: {kind} {severity}")
    now = console.clock.wall_nanos()
    row: Row = {
        "id": console.new_id("alr_"),
        "name": name,
        "kind": kind,
        "severity": severity,
        "limit_id": limit_id,
        "key": key,
        "message": message[:MESSAGE_CHARACTERS_MAX],
        "state": "waiting" if channels_for(console, kind) else "none",
        "next_at": now,
        "delivered": {},
        "details": dict(details or {}),
        "created_at": now,
        "updated_at": now,
    }
    if console.books.listing("alert", name=name, limit=1):
        return False
    try:
        console.books.put("alert", row)
    except Conflict:
        # Somebody else raised it between the two lines.
        return False
    console.alerts_raised[kind] += 1
    return True


def delivery_state(console: Console) -> dict[str, Any]:
    """How the telling goes, for whoever looks at health: what waits, and what was given up and nobody has seen."""
    waiting = console.books.listing("alert", state="waiting", limit=COUNTED_MAX)
    failed = console.books.listing("alert", state="failed", seen_at=0, limit=COUNTED_MAX)
    late = [row["trouble"] for row in waiting if row["tries"] >= LATE_TRIES and row["trouble"]]
    state: dict[str, Any] = {"ok": not late and not failed, "waiting": len(waiting), "failed": len(failed)}
    if failed:
        state["detail"] = f"{len(failed)} alerts were not delivered; mark them as seen, or send them once more"
    elif late:
        state["detail"] = f"alerts are late: {late[-1]}"
    return state


def shape(row: Row) -> dict[str, Any]:
    """An alert as the API shows it, and as webhooks are told it beside the state of its delivery."""
    return {
        **told(row),
        "state": row["state"],
        "tries": row["tries"],
        "next_at": time_text(row["next_at"]) if row["state"] == "waiting" else None,
        "delivered": {channel: time_text(at) for channel, at in (row["delivered"] or {}).items()},
        "trouble": or_none(row["trouble"]),
        "seen_at": time_text(row["seen_at"]),
    }


def told(row: Row) -> dict[str, Any]:
    """What an alert says, whoever it is told to."""
    details = {name: value for name, value in (row["details"] or {}).items() if name not in INTERNAL}
    return {
        "id": row["id"],
        "kind": row["kind"],
        "severity": row["severity"],
        "message": row["message"],
        "limit_id": or_none(row["limit_id"]),
        "key": or_none(row["key"]),
        "details": details,
        "created_at": time_text(row["created_at"]),
    }


#: Details that are ours: how long the name is kept and for which amount, the one channel of a test, how each channel's
#: tries went, and from when on these are counted.
INTERNAL: Final = frozenset({"period_end", "of_amount", "channel", "tries", "since"})


def _named(console: Console, alert_id: str) -> Row:
    row = console.books.get("alert", alert_id) if len(alert_id) <= 64 else None
    if row is None:
        raise NotFound("there is no such alert")
    return row


def change(console: Console, alert_id: str, wanted: AlertChange) -> Row:
    """Mark an alert as seen or not, or have it sent once more.

    Raises:
        NotFound: no such alert.
        Conflict: it is sent, or there is no channel for it.
    """
    with console.telling:
        row = dict(_named(console, alert_id))
        now = console.clock.wall_nanos()
        if wanted.seen is not None:
            row["seen_at"] = (row["seen_at"] or now) if wanted.seen else 0
        if wanted.state is not None and row["state"] != "waiting":
            if row["state"] == "sent":
                raise Conflict("every channel has taken this alert; raise a test alert to try the channels")
            if not channels_for(console, row["kind"]):
                raise Conflict("no channel takes alerts of this kind; make one first")
            # It begins anew: its day of tries, too.
            details = {name: value for name, value in (row["details"] or {}).items() if name != "tries"}
            row |= {"state": "waiting", "next_at": now, "tries": 0, "trouble": "", "details": {**details, "since": now}}
        row["updated_at"] = now
        put(console, "alert", row)
    return row


def _may_go(console: Console, row: Row) -> None:
    """Refuse to remove what would be raised again at once.

    Raises:
        Conflict: its period has not ended.
    """
    end = (row["details"] or {}).get("period_end")
    limit = console.books.get("limit", row["limit_id"]) if row["limit_id"] else None
    if end is not None and limit is not None and (not end or end > console.clock.wall_nanos()):
        raise Conflict("the period of this alert has not ended, so it would be raised again; mark it as seen")


def try_channels(console: Console, wanted: NewAlert) -> Row:
    """Raise an alert of the kind ``test``.

    Raises:
        ApiProblem: there is no such channel.
    """
    details: dict[str, Any] = {}
    if wanted.channel is not None:
        named = [each for each in channels_for(console, "test") if each["name"] == wanted.channel]
        if not named:
            rule = "no active channel of this name takes alerts of the kind test"
            raise ApiProblem("field_enum", rule, field="channel")
        details["channel"] = named[0]["id"]
    name = console.new_id("test;")
    message = wanted.message or "This is a test: nothing happened, and the channel works."
    with told_of(console, [("alert", name, None, {"kind": "test", "message": message, **details})]) as told:
        raise_alert(console, kind="test", name=name, severity="info", message=message, details=details)
        console.all_books.keep_trail(told)
    return console.books.listing("alert", name=name, limit=1)[0]


@router.get("")
@needs("alerts.read")
@lists(
    choice("kind", tuple(KINDS), "What happened."),
    choice("severity", SEVERITIES, "How bad it is."),
    choice("state", ("waiting", "sent", "failed", "none"), "How the telling goes."),
    text("limit_id", "Id of a limit."),
    text("key", "Id of a key."),
    choice("seen", ("true", "false"), "Whether somebody marked it as seen."),
)
@answers(shapes.Alerts)
async def list_alerts(request: Request) -> dict[str, Any]:
    """Alerts, newest first; filters: ``kind``, ``severity``, ``state``, ``limit_id``, ``key``, ``seen``."""
    console = console_of(request)
    page = read_page(request)
    filters = dict(page.filters)
    seen = filters.pop("seen", None)
    if seen not in (None, "true", "false"):
        raise ApiProblem("filter_invalid", "expected true or false", field="seen")
    if seen == "false":
        filters["seen_at"] = 0

    def look() -> list[Row]:
        wanted, after = page.limit + 1, page.after
        found: list[Row] = []
        while len(found) < wanted:
            rows = console.books.newest("alert", before=after, limit=wanted, **filters)
            found += [row for row in rows if seen != "true" or row["seen_at"]]
            if len(rows) < wanted:
                break
            after = rows[-1]["id"]
        return found[:wanted]

    return page_of(request, page, await in_thread(look), shape)


@router.get("/{alert_id}")
@needs("alerts.read")
@answers(shapes.Alert)
async def read_alert(request: Request, alert_id: str) -> dict[str, Any]:
    """One alert."""
    console = console_of(request)
    return shape(await in_thread(lambda: _named(console, alert_id)))


@router.patch("/{alert_id}")
@needs("alerts.write")
@answers(shapes.Alert)
async def change_alert(request: Request, alert_id: str, wanted: AlertChange) -> dict[str, Any]:
    """Mark an alert as seen, or send once more what was given up (``state: waiting``)."""
    console = console_of(request)
    return shape(await in_thread(lambda: change(console, alert_id, wanted)))


@router.post("", status_code=201)
@needs("alerts.write")
@answers(shapes.Alert)
async def send_test_alert(request: Request, wanted: NewAlert | None = None) -> dict[str, Any]:
    """Send a test alert through the channels; its state tells how that went."""
    console = console_of(request)
    return shape(await in_thread(lambda: try_channels(console, wanted or NewAlert())))


@router.delete("/{alert_id}")
@needs("alerts.write")
@answers(Removed)
async def delete_alert(request: Request, alert_id: str) -> dict[str, Any]:
    """Remove an alert whose period has ended; others would be raised again."""
    console = console_of(request)

    def alone() -> None:
        with console.telling:
            _may_go(console, _named(console, alert_id))
            remove(console, "alert", alert_id)

    await in_thread(alone)
    return {"id": alert_id, "deleted": True}
