"""Which amount of a limit is in force at a moment: raises, a beginning and an end are functions of time, not jobs."""

from faregate.core.limits.terms import Terms

#: The moment at which what has no end ends.
NEVER = 1 << 63


def amount_at(amount: int | None, terms: Terms, at_nanos: int) -> int | None:
    """The amount in force at a moment, of a limit whose amount is ``amount`` now; ``None`` is unlimited.

    Before its beginning and from its end on a limit is unlimited. Of several raises at one moment, and the amount
    itself, the largest counts.
    """
    if at_nanos < terms.since or (terms.until and at_nanos >= terms.until):
        return None
    for past in terms.history:
        if at_nanos < past.until:
            amount = past.amount
            break
    for each in terms.raises:
        if amount is not None and each.since <= at_nanos < each.until:
            amount = max(amount, each.amount)
    return amount


def changes_at(terms: Terms, at_nanos: int) -> int:
    """The first moment after ``at_nanos`` at which time alone changes the amount or what is forced; ``NEVER`` without.

    What was in force in the past changes nothing to come.
    """
    moments = [terms.since, terms.until]
    for each in terms.raises:
        moments += (each.since, each.until)
    moments += [forced.until for forced in terms.forced]
    return min((moment for moment in moments if moment > at_nanos), default=NEVER)


def carried(amount: int | None, terms: Terms, left_at: int, posted: int) -> int:
    """What a window begins with beyond its own amount: what was left of the one before, which ended at ``left_at``.

    ``posted`` is what that window spent. Its own amount is spent before what it had been carried itself, so that
    nothing is carried twice. Nothing comes from a window that began before the limit carried anything over, which the
    caller looks at.
    """
    before = amount_at(amount, terms, left_at - 1)
    if before is None or not terms.carry_max:
        return 0
    return min(terms.carry_max, max(0, before - posted))
