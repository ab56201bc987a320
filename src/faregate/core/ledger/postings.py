"""Double entry: the postings that an event causes, by the state its exchange is in.

Owns which accounts move and by how much. Decides nothing about states (``reservations`` does) and stores nothing. Every
function returns either nothing or whole transactions; the amounts of one transaction add up to zero. A debit is
positive: what a payer owes grows, what a provider earned goes the other way. Nothing is ever posted for a hold, only
for a charge and for money in suspense.

A charge is one transaction where it equals the cost. Otherwise as much as both have in common goes from the payer to
the provider, and the rest in a second one from the payer to the margin, or from the margin to the provider.
"""

from typing import NamedTuple

from faregate.core.attribution import Attribution
from faregate.core.ledger.accounts import (
    MARGIN,
    OPERATOR,
    payer_account,
    provider_account,
    suspense_account,
    unresolved_account,
)
from faregate.core.ledger.events import Settled
from faregate.core.ledger.reservations import Action, Step


class Posting(NamedTuple):
    """One entry; ``amount`` is in nano-dollars, positive for a debit."""

    account: str
    amount: int


class Transaction(NamedTuple):
    """Postings that belong together; the id is the request's with what it is for, and is posted once."""

    id: str
    postings: tuple[Posting, ...]


def payer_charge(settled: Settled) -> int:
    """The part of the charge that the payer bears, in nano-dollars: nothing where the operator pays.

    Limits, roll-ups and a payer's spending count this amount.
    """
    return 0 if settled.resolution == "operator_pays" else settled.charge


def charge_postings(who: Attribution, amount: int, resolution: str = "") -> tuple[Posting, ...]:
    """Debit the payer, or the operator where it pays, and credit the provider; nothing for an amount of zero."""
    payer = OPERATOR if resolution == "operator_pays" else payer_account(who)
    return _pair(payer, provider_account(who.provider), amount)


def margin_postings(who: Attribution, charge: int, cost: int) -> tuple[Posting, ...]:
    """What the payer pays beyond the cost, to the margin, or what it is spared, from the margin to the provider."""
    if charge >= cost:
        return _pair(payer_account(who), MARGIN, charge - cost)
    return _pair(MARGIN, provider_account(who.provider), cost - charge)


def end_transactions(id: str, who: Attribution, settled: Settled) -> list[Transaction]:
    """Debit the charge and credit the cost of an exchange that ends; the operator bears the cost where it pays."""
    if settled.resolution == "operator_pays":
        found = [Transaction(f"{id}:charge", charge_postings(who, settled.cost, settled.resolution))]
    else:
        found = [
            Transaction(f"{id}:charge", charge_postings(who, min(settled.charge, settled.cost))),
            Transaction(f"{id}:margin", margin_postings(who, settled.charge, settled.cost)),
        ]
    return [transaction for transaction in found if transaction.postings]


def suspense_postings(who: Attribution, held: int) -> tuple[Posting, ...]:
    """Move the hold of an exchange that became unknown into suspense."""
    return _pair(suspense_account(who.organization), unresolved_account(who.provider), held)


def resolve_postings(who: Attribution, held: int) -> tuple[Posting, ...]:
    """Take the hold of an unknown exchange out of suspense again."""
    return _pair(suspense_account(who.organization), unresolved_account(who.provider), -held)


def late_postings(provider: str, excess: int) -> tuple[Posting, ...]:
    """What a provider turned out to have billed beyond a cost that is booked, borne by the operator.

    ``excess`` is negative where it billed less: ended records never change, so the difference is the operator's either
    way.
    """
    return _pair(OPERATOR, provider_account(provider), excess)


def transactions(
    step: Step, id: str, who: Attribution, held: int, credited: int, settled: Settled | None
) -> list[Transaction]:
    """The transactions of one step in the life of exchange ``id``.

    ``held`` is its hold and ``credited`` what the provider was credited for it before, in nano-dollars; ``settled`` is
    the event where the step has one.
    """
    posted: list[Transaction] = []

    def post(purpose: str, postings: tuple[Posting, ...]) -> None:
        if postings:
            posted.append(Transaction(f"{id}:{purpose}", postings))

    if step.action is Action.SUSPEND:
        post("suspense", suspense_postings(who, held))
    elif settled is not None:
        if step.action is Action.RESOLVE:
            post("resolve", resolve_postings(who, held))
        if step.action in (Action.CHARGE, Action.RESOLVE):
            posted += end_transactions(id, who, settled)
        elif step.action is Action.CHARGE_OPERATOR:
            post("late", late_postings(who.provider, settled.cost - credited))
    return posted


def _pair(debited: str, credited: str, amount: int) -> tuple[Posting, ...]:
    """A transaction of two postings; nothing where there is no amount."""
    return (Posting(debited, amount), Posting(credited, -amount)) if amount else ()
