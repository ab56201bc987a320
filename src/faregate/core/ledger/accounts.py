"""Names of the ledger's accounts.

Owns how payers, providers and the two places of uncertainty are spelled. Knows no amounts. Names are parts joined by
colons, each part percent-escaped where it holds a colon, so that no tenant can name a team in a way that lands on
another's account.
"""

from faregate.core.attribution import Attribution

#: What the house pays itself: unknowns that nobody else is charged for, and evidence that came too late.
OPERATOR = "operator"

#: What payers are charged beyond the cost, less what they are spared of it.
MARGIN = "margin"


def payer_account(who: Attribution) -> str:
    """The account that is debited for the calls of ``who``."""
    return account_name("payer", who.organization, who.team, who.project, who.user, who.key)


def provider_account(provider: str) -> str:
    """The account of what a provider is owed for calls."""
    return account_name("provider", provider)


def suspense_account(organization: str) -> str:
    """Money of an organization whose fate is not known yet."""
    return account_name("suspense", organization)


def unresolved_account(provider: str) -> str:
    """The other side of suspense: what a provider may have earned."""
    return account_name("unresolved", provider)


def account_name(*parts: str) -> str:
    """An account's name from its parts, of any text."""
    return ":".join([_escape(part) for part in parts])


def _escape(part: str) -> str:
    """A part without colons; most hold neither character and come back as they are."""
    if "%" in part:
        part = part.replace("%", "%25")
    return part.replace(":", "%3A") if ":" in part else part
