"""What waits to be sent of the alerts in the books, and what became of it.

Each channel has its own tries, so that one that is away holds up no other; they are kept with the alert, so that a
restart goes on where it was. All methods are for threads.
"""

import logging
from typing import Final

from faregate.console.alerts import told
from faregate.console.reading import each_row, every
from faregate.console.sealing import channel_shown
from faregate.console.state import Console
from faregate.core.alerts import GIVEN_UP_AFTER_NANOS, Channel, Parcel, pause_nanos
from faregate.ports import Row

log = logging.getLogger(__name__)

#: Parcels that are handed out at once for each channel; the rest is handed out when these are gone.
PARCELS_MAX: Final = 50

#: Alerts that are removed in one go.
_REMOVED_MAX: Final = 1_000


class AlertOutbox:
    """The alerts of one console, as whoever delivers them sees them."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def due(self) -> list[Parcel]:
        """What is to be sent now, oldest first; alerts that nobody waits for any more are closed on the way.

        Raises:
            Unavailable: the books do not answer.
        """
        books, now = self._console.books, self._console.clock.wall_nanos()
        channels: list[Row] | None = None
        parcels: list[Parcel] = []
        counts: dict[str, int] = {}
        for row in each_row(books, "alert", state="waiting"):
            if row["next_at"] > now:
                continue
            if channels is None:
                channels = [*self._console.channels, *every(books, "channel")]
            open_ones = [each for each in channels if _waits(row, each)]
            if not open_ones:
                self._close(row["id"], channels)
                continue
            for channel in open_ones:
                if _next_at(row, channel["id"]) > now or counts.get(channel["id"], 0) >= PARCELS_MAX:
                    continue
                counts[channel["id"]] = counts.get(channel["id"], 0) + 1
                parcels.append(Parcel(row["id"], self._opened(channel), told(row)))
        return parcels

    def _opened(self, row: Row) -> Channel:
        """A channel with its address. One that does not open has none, and misses what is sent to it."""
        opened = channel_shown(self._console.box, row)
        return Channel(row["id"], row["name"], row["kind"], opened["url"], opened["secret"])

    def taken(self, parcel: Parcel) -> None:
        """A channel has taken an alert."""
        self._ended(parcel, "")

    def missed(self, parcel: Parcel, trouble: str) -> None:
        """It has not, for the reason in ``trouble``, a few words without any secret."""
        self._ended(parcel, trouble)

    def _ended(self, parcel: Parcel, trouble: str) -> None:
        console, id = self._console, parcel.channel.id
        with console.telling:
            row = console.books.get("alert", parcel.alert)
            if row is None:
                # It was removed while it was on its way.
                return
            now = console.clock.wall_nanos()
            if not trouble:
                row["delivered"] = {**(row["delivered"] or {}), id: now}
            else:
                self._count_miss(row, parcel, trouble, now)
            self._put(row, [*console.channels, *every(console.books, "channel")], now)

    def _count_miss(self, row: Row, parcel: Parcel, trouble: str, now: int) -> None:
        details = row["details"] or {}
        since = _since(row)
        count = _tries(row).get(parcel.channel.id, (0, 0))[0] + 1
        last = since + GIVEN_UP_AFTER_NANOS
        # The last try is a day after the alert; 0 stands for none to come.
        next_at = min(now + pause_nanos(count), last) if now < last else 0
        row["details"] = {**details, "tries": {**details.get("tries", {}), parcel.channel.id: [count, next_at]}}
        row["trouble"] = f"{parcel.channel.name}: {trouble}"
        facts = {"alert": row["id"], "channel": parcel.channel.name, "tries": count, "reason": trouble}
        log.warning("alert_not_delivered" if next_at else "alert_given_up", extra=facts)

    def _put(self, row: Row, channels: list[Row], now: int) -> None:
        """Write an alert with the state that its channels leave it in."""
        waiting = [each["id"] for each in channels if _waits(row, each)]
        tries = _tries(row)
        row["tries"] = max((count for count, _ in tries.values()), default=0)
        if waiting:
            row["next_at"] = min(_next_at(row, each) for each in waiting)
        elif any(not next_at and id not in (row["delivered"] or {}) for id, (_, next_at) in tries.items()):
            row["state"] = "failed"
        else:
            row["state"] = "sent" if row["delivered"] else "none"
        if row["state"] == "sent":
            row["trouble"] = ""
        row["updated_at"] = now
        self._console.books.put("alert", row)

    def _close(self, alert: str, channels: list[Row]) -> None:
        with self._console.telling:
            row = self._console.books.get("alert", alert)
            if row is not None and row["state"] == "waiting":
                self._put(row, channels, self._console.clock.wall_nanos())

    def clean(self, keep_nanos: int) -> int:
        """Remove alerts that are older than ``keep_nanos`` and whose names need not be kept; how many there were.

        Raises:
            Unavailable: the books do not answer.
        """
        books, now = self._console.books, self._console.clock.wall_nanos()
        removed = 0
        for row in each_row(books, "alert"):
            if row["created_at"] >= now - keep_nanos or removed >= _REMOVED_MAX:
                # Ids are in the order of their making, so that all others are younger.
                break
            if row["state"] != "waiting" and not self._name_needed(row, now):
                with self._console.telling:
                    removed += books.remove("alert", row["id"])
        return removed

    def _name_needed(self, row: Row, now: int) -> bool:
        """Whether an alert would be raised again at once if it were gone: its limit is there and its period runs."""
        details = row["details"] or {}
        end = details.get("period_end")
        if end is None or (end and end <= now):
            return False
        limit = self._console.books.get("limit", row["limit_id"])
        # Of a balance that never starts anew a change of its amount begins another period.
        return limit is not None and (bool(end) or limit["amount"] == details.get("of_amount"))


def _since(row: Row) -> int:
    """From when on its tries are counted: its making, or the last time that somebody had it sent once more."""
    since = (row["details"] or {}).get("since")
    return int(row["created_at"] if since is None else since)


def _tries(row: Row) -> dict[str, tuple[int, int]]:
    """Channel → how often it was tried in vain, and when it is tried again; 0 for never."""
    return {id: (count, at) for id, (count, at) in (row["details"] or {}).get("tries", {}).items()}


def _next_at(row: Row, channel: str) -> int:
    return _tries(row).get(channel, (0, row["created_at"]))[1]


def _waits(row: Row, channel: Row) -> bool:
    """Whether a channel is still to be told of an alert: one that was made later is not told of old ones."""
    only = (row["details"] or {}).get("channel")
    if channel["id"] in (row["delivered"] or {}) or (only is not None and only != channel["id"]):
        return False
    fits = channel["alerts"] is None or row["kind"] in channel["alerts"]
    given_up = channel["id"] in (tries := _tries(row)) and not tries[channel["id"]][1]
    return channel["state"] == "active" and fits and not given_up and channel.get("created_at", 0) <= _since(row)
