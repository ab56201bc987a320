"""Rows of the trail of changes as they are shown: money in dollars, times as RFC 3339.

The trail keeps rows as the books do, for its hashes are of them; what is made of one here is for looking at alone.
Lines stay for ever, those of older versions too, so nothing is relied upon: what a row has that is not known here, or
is not as it would be now, is shown as it is.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from faregate.console.texts import amount_text, time_text
from faregate.core.money import dollars, dollars_of_picos
from faregate.ports import Row

#: Shows a value in another way; it is given whole numbers only.
_Show = Callable[[int], Any]
#: Member → how it is shown, or what is within it.
_Members = Mapping[str, Any]

#: Times of rows of any kind, by their names in ``storage/schema``.
TIMES: Final = frozenset(
    {
        *("created_at", "updated_at", "deleted_at", "expires_at", "next_at", "revoked_at", "rotated_at", "seen_at"),
        *("effective_from", "effective_to"),
    }
)

#: No time is later than the end of the year 9999.
_TIME_MAX: Final = 253_402_300_799_999_999_999


def shown(kind: str, row: Row | None) -> Row | None:
    """A row of a kind as it was before or after a change, as people are shown it."""
    if not isinstance(row, Mapping):
        return row
    members: dict[str, Any] = {**dict.fromkeys(TIMES, _time), **_members(kind, row)}
    # The free facts about a resource of any kind may hold times, and call them as columns are called.
    facts = [name for name in _names(row.get("details")) if name.endswith("_at")]
    members["details"] = {**dict.fromkeys(facts, _time), **members.get("details", {})}
    told: Row = _within(row, members)
    if kind != "price":
        return told
    return {"price" if name == "pico" and told[name] != row[name] else name: value for name, value in told.items()}


def _members(kind: str, row: Row) -> _Members:
    """What members of a row are beside its times."""
    if kind == "limit":
        amount = _amount_in(row.get("unit"))
        return {"amount": amount, "terms": _terms(amount), "details": {"used_before": amount, "braked": [[_time]]}}
    if kind == "limit_entry":
        amount = _amount_in(_member(row.get("details"), "unit"))
        facts = {"before": amount, "balance": amount, "since": _time, "until": _time}
        return {"amount": amount, "after": amount, "details": facts}
    if kind == "alert":
        amount = _amount_in(_member(row.get("details"), "unit"))
        # Of each channel: how often it was tried in vain, and when it is tried again.
        tries = dict.fromkeys(_names(_member(row.get("details"), "tries")), (_as_it_is, _time))
        details: _Members = {"of_amount": amount, "period_end": _time, "since": _time, "tries": tries}
        return {"delivered": dict.fromkeys(_names(row.get("delivered")), _time), "details": details}
    return _OTHERS.get(kind, {})


def _terms(amount: _Show) -> _Members:
    """The terms of a limit whose amounts are shown so."""
    return {
        **dict.fromkeys(("burst", "carry_max"), amount),
        **dict.fromkeys(("carry_from", "since", "until"), _time),
        "history": [{"until": _time, "amount": amount}],
        "raises": [{"amount": amount, "since": _time, "until": _time}],
        "forced": [{"until": _time}],
    }


def _within(value: Any, way: Any) -> Any:
    """A value with everything in it that ``way`` names shown so; what does not fit ``way`` stays as it is."""
    if callable(way):
        return way(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(way, Mapping):
        if not isinstance(value, Mapping):
            return value
        return {name: _within(each, way[name]) if name in way else each for name, each in value.items()}
    if not isinstance(value, list):
        return value
    if isinstance(way, tuple):
        return [_within(each, way[at]) if at < len(way) else each for at, each in enumerate(value)]
    return [_within(each, way[0]) for each in value]


def _amount_in(unit: Any) -> _Show:
    """How amounts in a unit are shown."""
    return lambda amount: amount_text("usd" if unit == "usd" else "", amount)


def _time(nanos: int) -> str | int | None:
    return time_text(nanos) if 0 <= nanos <= _TIME_MAX else nanos


def _as_it_is(value: int) -> int:
    return value


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _names(value: Any) -> list[str]:
    return list(value) if isinstance(value, Mapping) else []


#: What members of other kinds are.
_OTHERS: Final[Mapping[str, _Members]] = {
    # Of a rotation: the pepper that the secret before was known by, and until when that one works.
    "key": {"details": {"pepper_before": (_as_it_is, _time)}},
    "price": {"pico": dollars_of_picos},
    "capacity": {"commitment": dollars},
    "adjustment": {"since": _time, "until": _time, "at": _time, "cost": dollars, "charge": dollars},
}
