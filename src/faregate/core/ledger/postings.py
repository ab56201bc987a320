"""Double entry: the postings that an event causes, by the state its exchange is in.

Owns which accounts move and by how much. Decides nothing about states (``reservations`` does) and stores nothing. Every
function returns either nothing or whole transactions; the amounts of one transaction add up to zero. A debit is
positive: what a payer owes grows, what a provider earned goes the other way. Nothing is ever posted for a hold, only
for a charge and for money in suspense.
"""

from typing import NamedTuple

from faregate.core.attribution import Attribution
from faregate.core.ledger.accounts import (
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


def charge_postings(who: Attribution, charge: int, resolution: str = "") -> tuple[Posting, ...]:
    """Debit the payer, or the operator where it pays, and credit the provider; nothing for a charge of zero."""
    payer = OPERATOR if resolution == "operator_pays" else payer_account(who)
    return _pair(payer, provider_account(who.provider), charge)


def suspense_postings(who: Attribution, held: int) -> tuple[Posting, ...]:
    """Move the hold of an exchange that became unknown into suspense."""
    return _pair(suspense_account(who.organization), unresolved_account(who.provider), held)


def resolve_postings(who: Attribution, held: int) -> tuple[Posting, ...]:
    """Take the hold of an unknown exchange out of suspense again."""
    return _pair(suspense_account(who.organization), unresolved_account(who.provider), -held)


def late_postings(provider: str, excess: int) -> tuple[Posting, ...]:
    """What a provider turned out to have billed beyond a charge that stands, borne by the operator.

    ``excess`` is negative where the payer was charged more than was billed: ended records never change, so the
    difference is the operator's either way.
    """
    return _pair(OPERATOR, provider_account(provider), excess)


def transactions(
    step: Step, id: str, who: Attribution, held: int, charged: int, settled: Settled | None
) -> list[Transaction]:
    """The transactions of one step in the life of exchange ``id``.

    ``held`` is its hold and ``charged`` what was posted for it before, in nano-dollars; ``settled`` is the event where
    the step has one.
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
            post("charge", charge_postings(who, settled.charge, settled.resolution))
        elif step.action is Action.CHARGE_OPERATOR:
            post("late", late_postings(who.provider, settled.charge - charged))
    return posted


def _pair(debited: str, credited: str, amount: int) -> tuple[Posting, ...]:
    """A transaction of two postings; nothing where there is no amount."""
    return (Posting(debited, amount), Posting(credited, -amount)) if amount else ()
