"""Who may do what on the console: roles, the permissions they hold, and the part of the books that a key sees.

A role says what may be done, a scope of whom. Both are on the key whose secret is sent, and nothing else decides. What
is in none of these tables is denied. It knows no HTTP, no database and no clock; the doors, the routes and the books of
the console ask it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from faregate.core.restrictions import NOT_RESTRICTED, Restrictions

#: Permission → what it allows, over the rows of the holder's scope.
OF_SCOPE: Final[Mapping[str, str]] = {
    "keys.read": "list and read keys, never their secrets",
    "keys.write": "make, change, rotate and revoke keys that may do no more than one's own",
    "payers.read": "list and read organizations, teams, projects, users, products, stages and subscriptions",
    "payers.write": "make, change, disable and delete them",
    "limits.read": "list and read limits, where they stand, and their entries",
    "limits.write": "set, change, raise and clear limits that nobody above has set",
    "deposits.write": "add deposits, refunds and amounts to such limits",
    "usage.read": "sums of usage, cost and charge",
    "requests.read": "records of calls, without what was said in them",
    "content.read": "prompts and answers that were kept; every look is in the trail of changes",
    "content.write": "delete prompts and answers that were kept",
    "cache.write": "forget answers that the response cache keeps, and say of keys whether they use it",
    "audit.read": "the trail of changes",
    "tokens.count": "the tokenizer service",
}

#: Permission → what it allows. What it is about belongs to no organization, so that only keys of the whole installation
#: hold it.
OF_INSTALLATION: Final[Mapping[str, str]] = {
    "prices.read": "prices, where they come from, and price lists",
    "prices.write": "set, import and delete prices",
    "corrections.read": "correcting runs and what they changed",
    "corrections.write": "price calls anew and book the differences",
    "capacities.read": "fixed capacities and how their cost is split",
    "capacities.write": "set and delete fixed capacities",
    "providers.read": "providers, deployments, pools, models and services, never their credentials",
    "providers.write": "make, change and delete providers, deployments, pools, models and services",
    "alerts.read": "alerts and where they go, never secrets of channels",
    "alerts.write": "make and change channels, mark alerts as seen, raise a test",
    "quotas.read": "the compatible Quota API: quotas and their history",
    "quotas.write": "the compatible Quota API: make quotas, report usage",
    "budgets.write": "act on a product as an alert of a budget does, and lift that",
    "quotes.read": "what a call would cost, and whether a limit would refuse it",
    "rehearsals.write": "play past calls against other limits and prices; changes nothing",
    "keys.check": "whether a secret that was found somewhere is a key of this installation",
    "installation.read": "health, metrics and the proof that the books add up",
    "installation.write": "back up, reload and look after the installation",
    "root.write": "make, change and revoke root keys",
}

PERMISSIONS: Final[Mapping[str, str]] = {**OF_SCOPE, **OF_INSTALLATION}

#: The role of a key that calls the gateway and opens no console.
CALLER: Final = "caller"

#: The role of a webhook that comes with its own secret; no key has it.
WEBHOOK: Final = "webhook"

_READING: Final = frozenset(name for name in PERMISSIONS if name.endswith(".read"))
_OWN: Final = frozenset({"keys.read", "keys.write", "limits.read", "usage.read", "requests.read", "tokens.count"})

#: Role → the permissions it holds. A key with a scope holds those of them that are ``OF_SCOPE``.
GRANTED: Final[Mapping[str, frozenset[str]]] = {
    CALLER: frozenset(),
    WEBHOOK: frozenset({"budgets.write"}),
    "root": frozenset(PERMISSIONS),
    "admin": frozenset(PERMISSIONS) - {"root.write"},
    "manager": _OWN | {"payers.read", "limits.write"},
    "finance": frozenset(
        {"payers.read", "limits.read", "usage.read", "requests.read"}
        | {"prices.read", "corrections.read", "capacities.read", "quotes.read"}
    ),
    "user": _OWN,
    "auditor": _READING - {"content.read"} | {"tokens.count"},
}

#: Role → who is meant to have it, in the order in which they are told.
ROLES: Final[Mapping[str, str]] = {
    CALLER: "calls the gateway; opens nothing on the console",
    "root": "everything in the installation, root keys included; always of the whole installation",
    "admin": "everything in its scope; without a scope everything but root keys",
    "manager": "a team, project or product: its keys, the limits inside it, its usage",
    "finance": "what was used and what it costs; changes nothing",
    "user": "one user's own keys, limits and usage",
    "auditor": "reads everything in its scope except prompts and answers; changes nothing",
}

#: The dimensions that may narrow a scope, outermost first.
SCOPED_BY: Final = ("organization", "team", "project", "product", "user")

#: Roles that may be of the whole installation: keys of these that name no payer at all are.
WHOLE_ROLES: Final = frozenset({"root", "admin", "finance", "auditor"})

#: Kind of row → scope dimension → the column that tells it. A kind that is not here can be in no scope.
_TOLD_BY: Final[Mapping[str, Mapping[str, str]]] = {
    "key": {name: name for name in SCOPED_BY},
    "organization": {"organization": "name"},
    "team": {"organization": "organization", "team": "name"},
    "project": {"organization": "organization", "team": "team", "project": "name"},
    "user": {"organization": "organization", "team": "team", "user": "name"},
    "product": {"organization": "organization", "product": "name"},
    "stage": {"organization": "organization"},
    "subscription": {name: name for name in SCOPED_BY if name != "project"},
    # By what it selects, which is a column of its own.
    "limit": {name: f"selector.{name}" for name in SCOPED_BY},
}


class Scope(NamedTuple):
    """Whose rows are seen: those that have every name that is set here. Without any it is the whole installation."""

    organization: str = ""
    team: str = ""
    project: str = ""
    product: str = ""
    user: str = ""

    @property
    def whole(self) -> bool:
        """Whether nothing narrows it."""
        return not any(self)

    @property
    def named(self) -> dict[str, str]:
        """The dimensions that narrow it, with their names."""
        return {name: value for name, value in zip(SCOPED_BY, self, strict=True) if value}

    def covers(self, other: "Scope") -> bool:
        """Whether ``other`` is this scope or a part of it."""
        return all(not mine or mine == theirs for mine, theirs in zip(self, other, strict=True))

    def holds(self, dimensions: Mapping[str, str]) -> bool:
        """Whether something with these dimensions, such as what a limit selects, lies in it."""
        return all(dimensions.get(name) == value for name, value in self.named.items())

    def conditions(self, kind: str) -> dict[str, str] | None:
        """Column → what it must equal in rows of ``kind`` that lie in it; ``None`` where none can be told to.

        A payer that the scope itself names lies in it whatever its row tells beside: a manager of a project sees the
        project. ``column.member`` is a member of a JSON column.
        """
        told = _TOLD_BY.get(kind, {})
        narrowed = self.named
        if kind in narrowed:
            narrowed = {name: value for name, value in narrowed.items() if name in ("organization", kind)}
        if any(name not in told for name in narrowed):
            return None
        return {told[name]: value for name, value in narrowed.items()}

    def sees(self, kind: str, row: Mapping[str, Any]) -> bool:
        """Whether a row of ``kind`` lies in it."""
        wanted = self.conditions(kind)
        return wanted is not None and all(_told(row, column) == value for column, value in wanted.items())

    def bounded_by(self, kind: str, row: Mapping[str, Any]) -> bool:
        """Whether a row is one of the payers that this scope is made of, which only somebody above may change."""
        inside = row.get("organization", self.organization) == self.organization
        return bool(inside and self.named.get(kind) == row["name"])


def in_scopes(kind: str) -> bool:
    """Whether rows of a kind can lie in a scope at all; those of others are the installation's."""
    return kind in _TOLD_BY


def _told(row: Mapping[str, Any], column: str) -> Any:
    name, _, member = column.partition(".")
    return (row.get(name) or {}).get(member) if member else row.get(name)


WHOLE: Final = Scope()


def scope_of(names: Mapping[str, Any]) -> Scope:
    """The scope that these dimensions tell, such as those of a key's row; what is missing or ``None`` is not set."""
    return Scope(*(names.get(name) or "" for name in SCOPED_BY))


class Principal(NamedTuple):
    """Somebody who asks for something: by which key, in which role, over what, and within what that key may do."""

    id: str
    role: str
    scope: Scope = WHOLE
    #: What the key is restricted to, and whom its requests may name; ``None`` allows all.
    restrictions: Restrictions = NOT_RESTRICTED
    may_set: tuple[str, ...] | None = None
    #: Id of the subscription that the key is of; it ends with that, and so does what it makes.
    subscription: str = ""

    def may(self, permission: str) -> bool:
        """Whether it holds a permission; one that there is not is held by nobody."""
        return permission in permissions(self.role, self.scope)


#: Whoever can open the Unix socket in the data folder, and the product itself.
LOCAL: Final = Principal("local", "root")


def permissions(role: str, scope: Scope) -> frozenset[str]:
    """What a role may do over a scope; a role that there is not may do nothing."""
    granted = GRANTED.get(role, frozenset())
    return granted if scope.whole else granted & OF_SCOPE.keys()


def principal_of(row: Mapping[str, Any]) -> Principal:
    """Who asks with the key of this row."""
    may_set = None if row.get("may_set") is None else tuple(row["may_set"])
    subscription = row.get("subscription") or ""
    return Principal(row["id"], row["role"], scope_of(row), _restricted(NOT_RESTRICTED, row), may_set, subscription)


def _restricted(usual: Restrictions, row: Mapping[str, Any]) -> Restrictions:
    """The restrictions that a row tells; ``usual`` holds where it tells nothing."""
    told: dict[str, Any] = {name: row[name] for name in Restrictions._fields if name in row}
    told |= {name: tuple(value) for name, value in told.items() if isinstance(value, list)}
    return usual._replace(**told)


def fault_of_place(role: str, scope: Scope) -> str:
    """Why a key of this role cannot be of this scope, as a sentence; empty where it can."""
    if role not in ROLES:
        return f"no role is called so; one of {', '.join(ROLES)}"
    if not scope.whole and not scope.organization:
        return "a team, project, product or user is of an organization; name it too"
    if role == "root" and not scope.whole:
        return "a root key is of the whole installation; leave organization, team, project, product and user out"
    if scope.whole and role not in WHOLE_ROLES:
        return f"a key of the role {role} is of an organization; name it"
    if role == "manager" and not (scope.team or scope.project or scope.product):
        return "a manager is of a team, project or product; name it, or choose the role admin"
    if role == "user" and not scope.user:
        return "a key of the role user is of one user; name them"
    return ""


def fault_of_grant(maker: Principal, wanted: Mapping[str, Any]) -> str:
    """Why ``maker`` may not give a key what is ``wanted``, as a sentence; empty where it may.

    ``wanted`` has ``role`` and the dimensions of ``SCOPED_BY``, and of ``models operations paths networks may_set
    expires_at`` those that are given now, as rows have them. Whoever hands a secret out, as a rotation does, gives all
    of them. That nobody gives what he has not is all that is looked at; whether the key can be is ``fault_of_place``.
    """
    scope = scope_of(wanted)
    held = permissions(maker.role, maker.scope)
    if not maker.scope.covers(scope):
        return "this lies outside of what your key is of"
    above = wanted["role"] == "root" and not maker.may("root.write")
    if above or wanted["role"] not in ROLES or not permissions(wanted["role"], scope) <= held:
        return f"a key of the role {maker.role} gives no role that may do more than itself"
    if maker.subscription and wanted.get("subscription", maker.subscription) != maker.subscription:
        return "subscription: your key is of one, and gives nothing outside of it"
    # Who looks after a whole installation makes keys for others to call with, for as long as they need them.
    lasting = not maker.scope.whole or wanted["role"] != CALLER
    bound = maker.restrictions if lasting else maker.restrictions._replace(expires_at=0)
    beyond = bound.allows(_restricted(bound, wanted))
    if beyond == "expires_at":
        return "expires_at: your key makes none that lasts longer than itself"
    if beyond:
        return f"{beyond}: your key is restricted, and gives nothing beyond that"
    if not maker.scope.whole and "may_set" in wanted and not _names(wanted["may_set"], maker.may_set):
        return "may_set: your key does not have these rights itself"
    return ""


def _names(wanted: Sequence[str] | None, bound: tuple[str, ...] | None) -> bool:
    """Whether everything that is wanted is named by what bounds it."""
    return bound is None or (wanted is not None and set(wanted) <= set(bound))


def inherited(maker: Principal, left_out: Sequence[str]) -> dict[str, Any]:
    """What a new key has of its maker in the fields that were left out: nobody has to repeat his own restrictions."""
    found: dict[str, Any] = {name: value for name, value in maker.scope.named.items() if name in left_out}
    if "subscription" in left_out and maker.subscription:
        found["subscription"] = maker.subscription
    told = maker.restrictions._asdict()
    ends = told.pop("expires_at")
    found |= {name: list(value) for name, value in told.items() if name in left_out and value is not None}
    if "may_set" in left_out and not maker.scope.whole and maker.may_set is not None:
        found["may_set"] = list(maker.may_set)
    if "expires_at" in left_out and not maker.scope.whole and ends:
        found["expires_at"] = ends
    return found
