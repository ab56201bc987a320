"""Corrections of what was booked: what moves between accounts where records turn out to cost something else.

Entries that stand are never changed. A run of corrections is posted in sums, one pair of postings for each payer and
provider and one for each provider's margin, so that all of it adds up to zero.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from faregate.core.attribution import Attribution
from faregate.core.ledger.accounts import MARGIN, OPERATOR, payer_account, provider_account


class Correction(NamedTuple):
    """By how many nano-dollars the cost and the charge of one exchange are corrected; either may be negative."""

    who: Attribution
    cost: int
    charge: int
    #: The operator bears the cost of this exchange, its payer nothing.
    operator_pays: bool = False


class Move(NamedTuple):
    """A transfer of two postings; a negative ``amount`` goes back."""

    debited: str
    credited: str
    amount: int


def moves(corrections: Iterable[Correction]) -> list[Move]:
    """The transfers of a run: what payers and the operator are debited more, and what goes to the margin.

    Payers are debited the charge, providers are credited the cost; the difference between the two is the margin's.
    """
    sums: Counter[tuple[str, str]] = Counter()
    for who, cost, charge, operator_pays in corrections:
        provider = provider_account(who.provider)
        if operator_pays:
            sums[OPERATOR, provider] += cost
        else:
            sums[payer_account(who), provider] += charge
            sums[MARGIN, provider] += cost - charge
    return [Move(debited, credited, amount) for (debited, credited), amount in sorted(sums.items()) if amount]
