"""What is to be told of a limit now: alerts as values, each with the name under which it is raised once.

Pure: takes a limit, where it stands and what is expected of it, and gives back sentences and figures. It does not know
what was told before; whoever raises an alert sees to it that a name is used once.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

from faregate.core import money
from faregate.core.limits.forecast import Forecast, forecast, runs_out_at
from faregate.core.limits.kinds import escaped
from faregate.core.limits.terms import Action, Forced
from faregate.core.limits.thresholds import (
    REFUSING_PERCENT_MIN,
    Period,
    Threshold,
    reached,
    recovered,
    share,
)
from faregate.core.limits.windows import HOUR, SECOND
from faregate.core.moments import rfc3339

#: A key is revoked because calls of its limit are refused only from this percentage on. More than for telling: what is
#: revoked stays so until somebody lifts it.
REVOKING_PERCENT_MIN = 75

#: Shares of an amount from which on it is no mere information.
_WARNING_PERCENT = 75

_DAY = 24 * HOUR
#: A balance that lasts longer than this at its pace is told without a day, which would mean nothing.
_FORETOLD_MAX = 366 * _DAY
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Watched(NamedTuple):
    """A limit, as far as it is told of."""

    id: str
    selector: Mapping[str, str]
    each: tuple[str, ...]
    unit: str
    window: str
    mode: str
    thresholds: tuple[Threshold, ...]
    actions: tuple[Action, ...] = ()
    #: What a forecast has in force of them.
    forced: tuple[Forced, ...] = ()
    #: Its days are those of this zone; ``None`` is UTC.
    zone: tzinfo | None = None
    #: As the books have it, for whoever asks them; nothing here looks into it.
    row: Any = None


class Moment(NamedTuple):
    """When a limit is looked at: the window that holds now, and for how long one alert is enough."""

    at: int
    start: int
    #: 0 where it does not end, and for windows that have no end of their own.
    end: int
    period: Period


class Spent(NamedTuple):
    """Where one subject of a limit stands; the total has the subject ``()``. Amounts in the limit's unit."""

    subject: tuple[str, ...]
    posted: int
    held: int
    #: In force now, what was carried over included; ``None`` is unlimited.
    amount: int | None
    #: It refused a call in this window.
    refusing: bool = False
    #: What the window before spent after the same part of it; ``None`` where nothing is known of it.
    later_before: int | None = None


class Stand(NamedTuple):
    """Where a limit stands: posted, held and the amount in force, by subject; ``()`` is the total."""

    moment: Moment
    subjects: Mapping[tuple[str, ...], tuple[int, int, int | None]]


class Refusal(NamedTuple):
    """A call that a limit refused: by which code, when it asked, and whose it was."""

    limit: str
    code: str
    at: int
    dimensions: Mapping[str, str]


class LowBalance(NamedTuple):
    """Below which rest of an amount that never starts anew people are told; 0 for never."""

    percent: int
    #: Nano-dollars; for ``usd`` only.
    nanos: int


_REVOKED: Final = "its key is revoked"
_SPARED: Final = "its key is not revoked, because whoever set the limit may not do that"


class Telling(NamedTuple):
    """An alert to be raised, unless one of its name was raised before."""

    name: str
    kind: str
    severity: str
    message: str
    details: dict[str, Any]
    #: How it may be summed up with others of its kind: the name without the subject.
    series: str
    #: The key that it is about, and whether that is to be revoked first.
    key: str = ""
    revoke: bool = False
    #: What is said instead where whoever set the limit may not revoke that key.
    unrevoked: str = ""


def tellings(limit: Watched, moment: Moment, spent: Spent, low: LowBalance) -> Iterator[Telling]:
    """What is to be told of one subject now, lowest threshold first."""
    amount = spent.amount
    if not amount:
        # Nothing is a share of nothing, and nothing of what is unlimited.
        return
    expected: Forecast | None = None
    if any(each.basis == "forecast" for each in limit.thresholds):
        expected = forecast_of(moment, spent)
    for percent, basis in dict.fromkeys((each.percent, each.basis) for each in limit.thresholds):
        here = [each for each in limit.thresholds if (each.percent, each.basis) == (percent, basis)]
        if basis == "forecast":
            if expected is not None and reached(percent, expected.expected, amount):
                yield _forecast_telling(limit, moment, spent, amount, percent, here, expected)
        elif _is_reached(percent, here, spent, amount):
            yield _actual_telling(limit, moment, spent, amount, percent, here)
    if limit.window == "lifetime" and _is_low(limit, spent, amount, low):
        yield _balance_telling(limit, moment, spent, amount)


def forecast_of(moment: Moment, spent: Spent) -> Forecast | None:
    """What is to be expected of a window; ``None`` where it has no end, or where nothing can be said yet."""
    if not moment.end or not spent.amount:
        return None
    return forecast(
        posted=spent.posted,
        amount=spent.amount,
        start=moment.start,
        end=moment.end,
        now=moment.at,
        later_before=spent.later_before,
    )


def forced_by(limit: Watched, moment: Moment, spent: Spent) -> tuple[Forced, ...]:
    """Which actions a forecast has in force from now on, each until the end of the window.

    It begins when the forecast reaches its percentage and ends when that has fallen some points below it, so that a
    forecast that trembles does not switch calls to and fro. Where nothing can be said, what was in force stays.
    """
    kept = tuple(each for each in limit.forced if each.until > moment.at)
    expected, amount = forecast_of(moment, spent), spent.amount
    if expected is None or not amount:
        return kept
    found = []
    for at, action in enumerate(limit.actions):
        if action.basis != "forecast" or action.do in ("notify", "revoke"):
            continue
        before = any(each.action == at for each in kept)
        stays = before and not recovered(action.percent, expected.expected, amount)
        if stays or reached(action.percent, expected.expected, amount):
            found.append(Forced(at, moment.end))
    return tuple(found)


def summary(limit: Watched, moment: Moment, telling: Telling, told_max: int) -> Telling:
    """The last word of a series of which enough was told one by one."""
    message = (
        f"More than {told_max} of {','.join(limit.each)} have reached the same of limit {limit.id} in this window; "
        "no more of them are told one by one."
    )
    details = {name: value for name, value in telling.details.items() if name not in ("subject", "posted", "amount")}
    return Telling(
        f"{telling.series};and more", telling.kind, telling.severity, message, details | {"more": True}, telling.series
    )


def with_pace(telling: Telling, limit: Watched, spent: Spent, lately: int, over: int, now: int) -> Telling:
    """A low balance with the day on which it is used up, at the pace of the last ``over`` nanoseconds."""
    left = (spent.amount or 0) - spent.posted
    at = runs_out_at(left=left, spent=lately, over=over, now=now)
    details = {**telling.details, "runs_out_at": _time(at)}
    if left <= 0 or not at or at - now > _FORETOLD_MAX:
        return telling._replace(details={**details, "runs_out_at": None})
    told = f" At the pace of the last {over // _DAY} days nothing will be left from {_day(at, limit.zone)} on."
    return telling._replace(message=telling.message + told, details=details)


def revocation_reason(limit: Watched, spent: Spent, percent: int) -> str:
    """Why a key is revoked at ``percent`` of a limit, as its owner will read it."""
    amount = spent.amount or 0
    figure = f"{_plain(limit.unit, amount)} {_words(limit.unit)}"
    if limit.window == "lifetime":
        told = f"its lifetime cost of {figure}" if limit.unit == "usd" else f"its lifetime's {figure}"
    else:
        told = f"its {figure}" + (f" per {limit.window}" if limit.window else "")
    whole = percent == 100
    if not whole:
        told = f"{percent} percent of {told}"
    if not (whole and spent.posted >= amount):
        told += f": {_plain(limit.unit, spent.posted)} are spent"
    if not reached(percent, spent.posted, amount):
        told += ", and what is left was too little for a call"
    return f"reached {told} (limit {limit.id})"


# -- what is reached ---------------------------------------------------------------------------------------------------


def _is_reached(percent: int, here: list[Threshold], spent: Spent, amount: int) -> bool:
    deeds = {each.do for each in here}
    # What acts on calls goes by what they hold, too, for so does the gate when it decides over them.
    acts = deeds & {"throttle", "downgrade", "stop"} and "revoke" not in deeds
    used = spent.posted + spent.held if acts else spent.posted
    if reached(percent, used, amount):
        return True
    enough = REVOKING_PERCENT_MIN if "revoke" in deeds else REFUSING_PERCENT_MIN
    # By ten thousand, because it is a percentage of a percentage.
    refuses = percent == 100 or "stop" in deeds
    return refuses and spent.refusing and used * 10_000 >= enough * percent * amount


def key_of(limit: Watched, subject: tuple[str, ...]) -> str:
    """Id of the one key that a subject of a limit is; empty where it is no key."""
    return dict(zip(limit.each, subject, strict=True)).get("key") or limit.selector.get("key", "")


def _is_low(limit: Watched, spent: Spent, amount: int, low: LowBalance) -> bool:
    left = amount - spent.posted
    return left * 100 < low.percent * amount or (limit.unit == "usd" and left < low.nanos)


# -- what is said of it ------------------------------------------------------------------------------------------------


def _actual_telling(
    limit: Watched, moment: Moment, spent: Spent, amount: int, percent: int, here: list[Threshold]
) -> Telling:
    figures = f"{_plain(limit.unit, spent.posted)} of {_plain(limit.unit, amount)} {_words(limit.unit)}"
    revoke = any(each.do == "revoke" for each in here) and bool(key_of(limit, spent.subject))
    acts = [_deed_words(limit, each) for each in here if each.do not in ("notify", "revoke")]
    until = _until(limit, moment)
    full = percent == 100
    if not reached(percent, spent.posted, amount):
        told = f"{_who(limit, spent)} lets calls through no more: {figures} are spent, and the next may cost more than"
        told += " is left" if full else f" {percent} percent of it leaves"
    elif full:
        told = f"{_who(limit, spent)} is reached: {figures} are spent"
        if limit.mode != "hard":
            told += "; it is soft, so that calls go on" if limit.mode == "soft" else "; as a shadow it refuses nobody"
    else:
        told = f"{share(spent.posted, amount)} percent of {_who(limit, spent, begins=False)} are spent: {figures}"
    told += "".join(f"; {each}" for each in acts)
    message, unrevoked = (
        (f"{told}; {deed}.{until}" for deed in (_REVOKED, _SPARED)) if revoke else (f"{told}.{until}", "")
    )
    grave = (full and limit.mode == "hard") or any(each.do in ("stop", "revoke") for each in here)
    severity = "critical" if grave else "warning" if percent >= _WARNING_PERCENT or acts or revoke else "info"
    details = {**_details(limit, moment, spent, amount), "percent": percent, "basis": "actual", **_deeds(here)}
    kind = "limit_reached" if full else "threshold"
    telling = _telling(limit, moment, spent, amount, f"{percent};actual", kind, severity, message, details)
    return telling._replace(revoke=revoke, unrevoked=unrevoked)


def _forecast_telling(
    limit: Watched, moment: Moment, spent: Spent, amount: int, percent: int, here: list[Threshold], expected: Forecast
) -> Telling:
    last = _day(moment.end - SECOND, limit.zone)
    told = (
        f"{_who(limit, spent)} is expected to have spent {_rounded(limit.unit, expected.expected)} of "
        f"{_plain(limit.unit, amount)} {_words(limit.unit)} by {last}"
    )
    if expected.runs_out_at:
        told += f"; nothing will be left from {_day(expected.runs_out_at, limit.zone)} on"
    told += "".join(f"; {_deed_words(limit, each)}" for each in here if each.do not in ("notify", "revoke")) + "."
    details = {
        **_details(limit, moment, spent, amount),
        "percent": percent,
        "basis": "forecast",
        **_deeds(here),
        "expected": _figure(limit.unit, expected.expected),
        "runs_out_at": _time(expected.runs_out_at),
    }
    severity = "warning" if percent >= _WARNING_PERCENT else "info"
    return _telling(limit, moment, spent, amount, f"{percent};forecast", "threshold", severity, told, details)


def _balance_telling(limit: Watched, moment: Moment, spent: Spent, amount: int) -> Telling:
    left = max(amount - spent.posted, 0)
    told = (
        f"{_plain(limit.unit, left)} of {_plain(limit.unit, amount)} {_words(limit.unit)} are left of "
        f"{_who(limit, spent, begins=False)}, which does not start anew."
    )
    details = {**_details(limit, moment, spent, amount), "left": _figure(limit.unit, left)}
    return _telling(limit, moment, spent, amount, "low_balance", "low_balance", "warning", told, details)


def _telling(
    limit: Watched,
    moment: Moment,
    spent: Spent,
    amount: int,
    what: str,
    kind: str,
    severity: str,
    message: str,
    details: dict[str, Any],
) -> Telling:
    # What never starts anew has no periods; another amount begins one.
    period = str(moment.period.start) if moment.period.end else f"of {amount}"
    series = f"threshold;{limit.id};{what};{period}"
    subject = ",".join(escaped(value) for value in spent.subject)
    key = key_of(limit, spent.subject)
    return Telling(f"{series};{subject}", kind, severity, message, details, series, key)


def _details(limit: Watched, moment: Moment, spent: Spent, amount: int) -> dict[str, Any]:
    return {
        "select": dict(limit.selector),
        "subject": dict(zip(limit.each, spent.subject, strict=True)) or None,
        "unit": limit.unit,
        "window": limit.window or None,
        "amount": _figure(limit.unit, amount),
        "posted": _figure(limit.unit, spent.posted),
        "window_start": _time(moment.start),
        "resets_at": _time(moment.end),
        "period_end": moment.period.end,
    }


def _deeds(here: list[Threshold]) -> dict[str, Any]:
    return {"do": [each.do for each in here]}


def _deed_words(limit: Watched, threshold: Threshold) -> str:
    action = limit.actions[threshold.action]
    if action.do == "throttle":
        return f"calls are let through at {action.requests_per_minute} a minute from now on"
    if action.do == "downgrade":
        which = f"calls for {', '.join(action.models)}" if action.models else "calls"
        return f"{which} go to {action.to} from now on"
    return "calls are refused from now on"


def _who(limit: Watched, spent: Spent, *, begins: bool = True) -> str:
    """The limit in words, at the beginning of a sentence or inside it."""
    pairs = [*limit.selector.items(), *zip(limit.each, spent.subject, strict=True)]
    selected = ", ".join(f"{name} {value or '(none)'}" for name, value in pairs) or "everything"
    span = "" if not limit.window else " for good" if limit.window == "lifetime" else f", {limit.window}"
    return f"{'Limit' if begins else 'limit'} {limit.id} ({selected}, {limit.unit}{span})"


def _until(limit: Watched, moment: Moment) -> str:
    if not moment.end:
        return " It does not start anew." if limit.window == "lifetime" else ""
    if limit.window in ("second", "minute", "hour"):
        return f" It starts anew at {_time(moment.end)}."
    return f" It starts anew on {_day(moment.end, limit.zone)}."


def _plain(unit: str, amount: int) -> str:
    return money.dollars(amount) if unit == "usd" else str(amount)


def _rounded(unit: str, amount: int) -> str:
    """An expected amount: nobody knows it to a nano-dollar."""
    return money.about(amount) if unit == "usd" else str(amount)


def _figure(unit: str, amount: int) -> str | int:
    return money.dollars(amount) if unit == "usd" else amount


def _words(unit: str) -> str:
    return "dollars" if unit == "usd" else unit.replace("_", " ")


def _time(nanos: int) -> str | None:
    """RFC 3339 UTC to the second; ``None`` for a moment that is not set."""
    return rfc3339(nanos) if nanos else None


def _day(nanos: int, zone: tzinfo | None) -> str:
    return (_EPOCH + timedelta(seconds=nanos // SECOND)).astimezone(zone or UTC).date().isoformat()


__all__ = [
    "LowBalance",
    "Moment",
    "Refusal",
    "Spent",
    "Stand",
    "Telling",
    "Watched",
    "forced_by",
    "forecast_of",
    "key_of",
    "revocation_reason",
    "summary",
    "tellings",
    "with_pace",
]
