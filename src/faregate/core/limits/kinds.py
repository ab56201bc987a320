"""What a limit may count, over which window, and what a refusal by it is called.

Owns the table of units and the rules that a limit must keep before anybody stores it. Knows no allowance and no time:
whether a time zone exists is asked of the caller. A new kind of limit is a row of ``KINDS`` and a field of ``Amounts``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from faregate.core.amounts import UNITS
from faregate.core.attribution import DIMENSIONS, TAG_PREFIX
from faregate.core.limits.windows import HOUR, rolling_nanos

#: Calendar windows from the shortest to the longest; ``lifetime`` never ends.
WINDOWS = ("second", "minute", "hour", "day", "week", "month", "quarter", "year", "lifetime")

#: Windows that pass while a client waits: their refusal is a rate, not an empty budget.
RATE_WINDOWS = ("second", "minute", "hour")

#: ``hard`` refuses, ``soft`` only counts, ``shadow`` counts and remembers whom it would have refused.
MODES = ("hard", "soft", "shadow")

#: Rolling windows shorter than this pass while a client waits.
_ROLLING_RATE_MAX = 24 * HOUR

#: A billion dollars in nano-dollars: sums of many such limits still fit 64 bits in the books.
USD_MAX = 10**18
COUNT_MAX = 10**15

#: Deeper selectors have no use that we know of, and each distinct set of dimensions costs a look-up per request.
SELECTOR_MAX = 8
EACH_MAX = 4
VALUE_CHARACTERS_MAX = 256

#: What people write who mean every value; as a name it would match nobody.
_ANY = "*"

_TAG_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


class Kind(NamedTuple):
    """How one unit is held at admission and posted at the end."""

    unit: str
    #: Where the unit stands in ``Amounts``.
    position: int
    held: str
    posted: str
    amount_max: int
    #: What is held comes back at the end and nothing is posted; such a limit has no window.
    returned: bool = False


KINDS: Mapping[str, Kind] = {
    kind.unit: kind
    for kind in (
        Kind("usd", UNITS.index("usd"), "the upper bound of the charge", "the charge", USD_MAX),
        Kind("tokens", UNITS.index("tokens"), "input bound + output cap", "tokens used", COUNT_MAX),
        Kind("input_tokens", UNITS.index("input_tokens"), "input bound", "input tokens used", COUNT_MAX),
        Kind("output_tokens", UNITS.index("output_tokens"), "output cap", "output tokens used", COUNT_MAX),
        Kind("requests", UNITS.index("requests"), "1", "1", COUNT_MAX),
        Kind("concurrency", UNITS.index("concurrency"), "1", "nothing", COUNT_MAX, returned=True),
        Kind("images", UNITS.index("images"), "images asked for", "images made", COUNT_MAX),
        Kind("seconds", UNITS.index("seconds"), "longest duration", "seconds used", COUNT_MAX),
        Kind("characters", UNITS.index("characters"), "characters sent", "characters used", COUNT_MAX),
    )
}


_WINDOW_NAMES = f"one of {', '.join(WINDOWS)}, or rolling with a length such as rolling 24h, at most 366d"


_ESCAPED = str.maketrans({"%": "%25", ",": "%2C", ";": "%3B"})


def escaped(value: str) -> str:
    """A value as it stands in a name that is joined by commas and semicolons, so that it never reads as two of them."""
    return value.translate(_ESCAPED)


class Fault(NamedTuple):
    """Something wrong with a limit: which field, the public error code, and the rule with its remedy."""

    field: str
    code: str
    message: str


def refusal_code(unit: str, window: str) -> str:
    """The public code of a refusal by a limit on ``unit`` over ``window``."""
    if KINDS[unit].returned:
        return "concurrency_limited"
    if unit != "usd" and (window in RATE_WINDOWS or 0 < rolling_nanos(window) < _ROLLING_RATE_MAX):
        return "rate_limited"
    return "budget_exhausted"


def is_dimension(name: str) -> bool:
    """Whether a limit may select on ``name`` or count each value of it."""
    if name.startswith(TAG_PREFIX):
        return _TAG_NAME.fullmatch(name, len(TAG_PREFIX)) is not None
    return name in DIMENSIONS


def check_limit(
    *,
    selector: Mapping[str, str],
    each: Sequence[str],
    unit: str,
    amount: int | None,
    window: str,
    timezone: str,
    mode: str,
    zone_known: Callable[[str], bool],
) -> list[Fault]:
    """Everything that is wrong with a limit; empty when it can be stored.

    ``amount`` is in nano-dollars for ``usd`` and whole units otherwise; ``None`` is unlimited and 0 admits nothing.
    ``zone_known`` says whether an IANA time zone exists.
    """
    faults = _check_who(selector, each)
    kind = KINDS.get(unit)
    if kind is None:
        faults.append(Fault("unit", "field_enum", f"unknown unit; expected one of {', '.join(KINDS)}"))
    if kind is not None:
        faults += _check_amount(kind, amount)
        faults += check_window(kind.unit, window)
    if not zone_known(timezone):
        faults.append(Fault("timezone", "field_enum", "unknown time zone; expected an IANA name such as Europe/Berlin"))
    if mode not in MODES:
        faults.append(Fault("mode", "field_enum", "unknown mode; expected hard, soft or shadow"))
    return faults


def _check_who(selector: Mapping[str, str], each: Sequence[str]) -> list[Fault]:
    """Faults of the dimensions that a limit selects on and counts."""
    faults = []
    if len(selector) > SELECTOR_MAX:
        faults.append(Fault("selector", "field_range", f"more than {SELECTOR_MAX} dimensions"))
    for name, value in selector.items():
        if not is_dimension(name):
            faults.append(Fault("selector", "field_enum", _dimension_rule(name)))
        elif not value or len(value) > VALUE_CHARACTERS_MAX or not value.isprintable():
            rule = f"the value of {name} must have 1 to {VALUE_CHARACTERS_MAX} printable characters"
            faults.append(Fault("selector", "field_range", rule))
        elif value == _ANY:
            rule = f"{name}: leave it out to cover every value, or name it in each to count every value apart"
            faults.append(Fault("selector", "field_range", rule))
    if len(each) > EACH_MAX:
        faults.append(Fault("each", "field_range", f"more than {EACH_MAX} dimensions"))
    if len(set(each)) != len(each):
        faults.append(Fault("each", "field_conflict", "a dimension is named twice"))
    faults += [Fault("each", "field_enum", _dimension_rule(name)) for name in each if not is_dimension(name)]
    return faults


def _dimension_rule(name: str) -> str:
    """What to say about a name that is no dimension; a long name is not echoed whole."""
    return f"unknown dimension {name[:40]!r}; expected one of {', '.join(DIMENSIONS)}, tag.NAME"


def _check_amount(kind: Kind, amount: int | None) -> list[Fault]:
    """Faults of the amount; ``bool`` is an ``int`` to Python but no amount to us."""
    if amount is None:
        return []
    if type(amount) is not int:
        return [Fault("amount", "field_type", "expected a whole number, or null for unlimited")]
    if not 0 <= amount <= kind.amount_max:
        largest = "1000000000 dollars" if kind.unit == "usd" else str(kind.amount_max)
        return [Fault("amount", "field_range", f"expected 0 to {largest}, or null for unlimited")]
    return []


def check_window(unit: str, window: str) -> list[Fault]:
    """Faults of the window of a known unit: what comes back needs none, everything else one of ``WINDOWS``."""
    kind = KINDS[unit]
    if kind.returned:
        if window:
            return [Fault("window", "field_conflict", f"{kind.unit} is counted at one moment and has no window")]
        return []
    if not window:
        return [Fault("window", "field_missing", f"expected {_WINDOW_NAMES}")]
    if window not in WINDOWS and not rolling_nanos(window):
        return [Fault("window", "field_enum", f"unknown window; expected {_WINDOW_NAMES}")]
    return []
