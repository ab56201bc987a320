"""What the terms of a limit must keep, before anybody stores them. Knows no allowance and no clock."""

from collections.abc import Sequence

from faregate.core.limits.in_force import NEVER
from faregate.core.limits.kinds import KINDS, VALUE_CHARACTERS_MAX, Fault
from faregate.core.limits.terms import ALGORITHMS, BASES, DEEDS, Action, Raise, Spared, Terms
from faregate.core.limits.windows import PERIODS, is_year_start, rolling_nanos

#: Each is looked at for every call that the limit concerns.
ACTIONS_MAX = 8
RAISES_MAX = 32

#: Those whom a limit spares; all of one dimension are one look-up.
SPARED_MAX = 1_000

#: A threshold beyond ten times the amount is a mistake.
PERCENT_MAX = 1_000
PERCENT_HARD_MAX = 100

#: Windows whose rest may be carried over, and those that follow a fiscal year.
CARRYING = ("day", "week", "month", "quarter", "year")
FISCAL = ("quarter", "year")

REQUESTS_PER_MINUTE_MAX = 1_000_000
MODELS_MAX = 64


def check_terms(
    terms: Terms, *, unit: str, amount: int | None, window: str, mode: str, each: Sequence[str] = ()
) -> list[Fault]:
    """Everything that is wrong with the terms of a limit that is otherwise as it should be."""
    kind = KINDS.get(unit)
    if kind is None:
        return []
    most = kind.amount_max
    faults = [
        *_check_pace(terms, kind.returned, amount, window),
        *_check_calendar(terms, amount, window, most),
        *_check_raises(terms.raises, amount, most),
        *_check_actions(terms.actions, mode),
        *_check_spared(terms.spared, each),
    ]
    if terms.until and terms.until <= terms.since:
        faults.append(Fault("until", "field_range", "it must end after it begins"))
    if not terms.estimate and (kind.returned or unit == "requests"):
        rule = f"a call counts as one of {unit} from its beginning; nothing is estimated"
        faults.append(Fault("estimate", "field_conflict", rule))
    return faults


def _check_pace(terms: Terms, returned: bool, amount: int | None, window: str) -> list[Fault]:
    if terms.algorithm not in ALGORITHMS:
        return [Fault("algorithm", "field_enum", "unknown algorithm; expected smooth, or none")]
    if not terms.algorithm:
        if terms.burst:
            return [Fault("burst", "field_conflict", "only a smooth limit has a burst; say algorithm smooth, too")]
        return []
    if returned:
        return [Fault("algorithm", "field_conflict", "calls at a time have no pace")]
    if window not in PERIODS and not rolling_nanos(window):
        rule = f"a pace needs a window of one length: {', '.join(PERIODS)} or rolling"
        return [Fault("algorithm", "field_conflict", rule)]
    faults = []
    if terms.actions:
        faults.append(Fault("actions", "field_conflict", "what drains all the time has no share that is spent"))
    if terms.burst < 0 or (amount is not None and terms.burst > amount):
        faults.append(Fault("burst", "field_conflict", "expected 1 to the amount; 0 for the usual one"))
    return faults


def _check_calendar(terms: Terms, amount: int | None, window: str, most: int) -> list[Fault]:
    faults = []
    if terms.year_start:
        if not is_year_start(terms.year_start):
            faults.append(Fault("year_start", "field_enum", "expected MM-DD such as 04-01, at most the 28th"))
        elif window not in FISCAL:
            faults.append(Fault("year_start", "field_conflict", "only quarters and years follow the fiscal year"))
    if terms.carry_max:
        if not 0 < terms.carry_max <= most:
            faults.append(Fault("carry_over", "field_range", "expected a positive amount of the limit's unit"))
        if window not in CARRYING or terms.algorithm:
            rule = f"only these windows carry their rest over: {', '.join(CARRYING)}"
            faults.append(Fault("carry_over", "field_conflict", rule))
        if amount is None:
            faults.append(Fault("carry_over", "field_conflict", "an unlimited amount has no rest"))
        if not terms.estimate:
            faults.append(Fault("carry_over", "field_conflict", "what holds no estimate carries nothing over"))
    return faults


def _check_raises(raises: Sequence[Raise], amount: int | None, most: int) -> list[Fault]:
    faults = []
    if len(raises) > RAISES_MAX:
        faults.append(Fault("raises", "field_range", f"more than {RAISES_MAX} raises"))
    if raises and amount is None:
        faults.append(Fault("raises", "field_conflict", "an unlimited amount cannot be raised"))
    for each in raises:
        if not 0 <= each.amount <= most:
            faults.append(Fault("raises", "field_range", "the amount of a raise must be one that the limit may have"))
        if not 0 <= each.since < each.until < NEVER:
            faults.append(Fault("raises", "field_range", "a raise must end after it begins"))
    return faults


def _check_spared(spared: Sequence[Spared], each: Sequence[str]) -> list[Fault]:
    faults = []
    if len(spared) > SPARED_MAX:
        faults.append(Fault("except", "field_range", f"more than {SPARED_MAX} exceptions"))
    if not each and spared:
        rule = "only a limit that counts each value of something has exceptions; name it with each"
        return [*faults, Fault("except", "field_conflict", rule)]
    for one in spared:
        strange = [name for name in one.names if name not in each]
        if strange or not one.names:
            which = f"{strange[0][:40]!r} is" if strange else "nothing is"
            faults.append(Fault("except", "field_conflict", f"{which} not counted apart; expected {', '.join(each)}"))
        if not all(value and len(value) <= VALUE_CHARACTERS_MAX and value.isprintable() for value in one.values):
            rule = f"a value must have 1 to {VALUE_CHARACTERS_MAX} printable characters"
            faults.append(Fault("except", "field_range", rule))
        if faults:
            break
    return faults


def _check_actions(actions: Sequence[Action], mode: str) -> list[Fault]:
    faults = []
    if len(actions) > ACTIONS_MAX:
        faults.append(Fault("actions", "field_range", f"more than {ACTIONS_MAX} actions"))
    if len({(action.do, action.percent, action.basis) for action in actions}) != len(actions):
        faults.append(Fault("actions", "field_conflict", "the same action at the same share is named twice"))
    for action in actions:
        faults += _check_action(action, mode)
    return faults


def _check_action(action: Action, mode: str) -> list[Fault]:
    if action.do not in DEEDS:
        return [Fault("actions", "field_enum", f"unknown action; expected one of {', '.join(DEEDS)}")]
    faults = []
    if action.basis not in BASES:
        faults.append(Fault("actions", "field_enum", f"unknown basis; expected one of {', '.join(BASES)}"))
    if not 1 <= action.percent <= PERCENT_MAX:
        faults.append(Fault("actions", "field_range", f"at: expected 1 to {PERCENT_MAX} percent of the amount"))
    elif mode == "hard" and action.basis == "actual" and action.percent > PERCENT_HARD_MAX:
        faults.append(Fault("actions", "field_range", "at: no more than 100 percent of a hard limit can be spent"))
    if mode == "shadow" and action.do != "notify":
        faults.append(Fault("actions", "field_conflict", "a shadow limit does nothing to calls; it can only notify"))
    if (action.do == "downgrade") != bool(action.to):
        faults.append(Fault("actions", "field_conflict", "to: a downgrade, and nothing else, names another model"))
    if action.to in action.models:
        faults.append(Fault("actions", "field_conflict", "models: a model cannot be downgraded to itself"))
    if action.models and action.do != "downgrade":
        faults.append(Fault("actions", "field_conflict", "models: only a downgrade names models"))
    if len(action.models) > MODELS_MAX:
        faults.append(Fault("actions", "field_range", f"models: at most {MODELS_MAX}"))
    if (action.do == "throttle") != bool(action.requests_per_minute):
        rule = "requests_per_minute: a throttle, and nothing else, names how many calls still pass"
        faults.append(Fault("actions", "field_conflict", rule))
    if not 0 <= action.requests_per_minute <= REQUESTS_PER_MINUTE_MAX:
        faults.append(Fault("actions", "field_range", f"requests_per_minute: at most {REQUESTS_PER_MINUTE_MAX}"))
    return faults
