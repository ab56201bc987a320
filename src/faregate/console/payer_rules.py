"""What payers do to their keys before the gate hears of these: which are stopped, and what products and users restrict.

The gate is told of stopped payers as a set, so that stopping a team with many keys is one small message. What a product
or a user restricts its keys to is put into the keys themselves, so that a call costs the same with and without; when it
changes, the keys that it concerns are sent again. Both are few among many payers, and found by an index.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from faregate.console.compile import key_of
from faregate.console.reading import each_part, each_row
from faregate.control import Key, PayerRule, restricted
from faregate.core.restrictions import NOT_RESTRICTED, RESTRICTIONS, Restrictions
from faregate.ports import Books, Row

#: Kinds whose state stops keys, with the states that do.
STOPPING: Final = {
    "organization": ("disabled",),
    "team": ("disabled",),
    "project": ("disabled",),
    "user": ("disabled",),
    "product": ("disabled",),
    "stage": ("disabled",),
    "subscription": ("suspended", "cancelled"),
}

#: Kinds that restrict the keys which name them.
RESTRICTING: Final = ("product", "user")

#: In ``details`` of a project or user: it was put into its team.
PLACED: Final = "placed"

#: States of a key that can be used, or made so again by whoever may: all but ``revoked``.
_USABLE: Final = ("active", "disabled")

#: Kind, organization and name of a payer; a subscription is known to its keys by its id instead.
Named = tuple[str, str, str]

Halted = tuple[Named, ...]
Stopped = frozenset[Named]


def each_stopped(books: Books) -> Iterator[tuple[str, Named]]:
    """Id and name of every payer that stops keys which could be used otherwise.

    Subscriptions stay cancelled for ever. Those whose keys are all revoked stop nothing any more, and are left out.
    """
    in_use: frozenset[str] | None = None
    for kind, states in STOPPING.items():
        for row in each_row(books, kind, state=list(states)):
            if row["state"] == "cancelled":
                in_use = _subscriptions_in_use(books) if in_use is None else in_use
                if row["id"] not in in_use:
                    continue
            yield row["id"], _named(kind, row)


def _named(kind: str, row: Row) -> Named:
    return kind, row.get("organization", ""), row[_known_by(kind)]


def _known_by(kind: str) -> str:
    return "id" if kind == "subscription" else "name"


def _subscriptions_in_use(books: Books) -> frozenset[str]:
    """Ids of the subscriptions of all keys that are not revoked, in one pass over the keys."""
    return frozenset(
        subscription
        for _, subscriptions, states in each_part(books, "key", ("id", "subscription", "state"))
        for subscription, state in zip(subscriptions, states, strict=True)
        if state in _USABLE
    )


def stopped_among(books: Books, keys: Sequence[Row]) -> Stopped:
    """The stopped ones among the payers of these keys, which are asked for by name, however many others are."""
    found: set[Named] = set()
    for kind, states in STOPPING.items():
        named: dict[str, set[str]] = {}
        for key in keys:
            if key[kind]:
                named.setdefault("" if kind == "organization" else key["organization"], set()).add(key[kind])
        for organization, names in named.items():
            wanted: dict[str, Any] = {_known_by(kind): sorted(names), "state": list(states)}
            if kind != "organization":
                wanted["organization"] = organization
            found.update(_named(kind, row) for row in books.listing(kind, limit=len(names), **wanted))
    return frozenset(found)


def stopped_by(row: Row, stopped: Stopped) -> str:
    """The first payer of a key's row that is stopped, as ``team research``; empty where none is."""
    organization = row["organization"]
    if ("organization", "", organization) in stopped:
        return f"organization {organization}"
    for kind in STOPPING:
        if kind != "organization" and row[kind] and (kind, organization, row[kind]) in stopped:
            return f"{kind} {row[kind]}"
    return ""


def is_placed(row: Row) -> bool:
    """Whether a project or user was put into its team, rather than named once together with it."""
    return bool(row["team"] and (row["details"] or {}).get(PLACED))


def project_teams(rows: Iterable[Row]) -> tuple[tuple[str, str, str], ...]:
    """Organization, name and team of projects; without the team where they were not put into it."""
    return tuple((row["organization"], row["name"], row["team"] if is_placed(row) else "") for row in rows)


def caching_of(projects: Iterable[Row], stages: Iterable[Row]) -> tuple[tuple[str, str, str, str], ...]:
    """Kind, organization, name and word of those that say whether their calls use the response cache."""
    both = (("project", projects), ("stage", stages))
    return tuple(
        (kind, row["organization"], row["name"], row["cache"]) for kind, rows in both for row in rows if row["cache"]
    )


def restrictions_of(row: Row) -> Restrictions:
    """What a row of a payer or a key restricts."""
    told = {name: None if row[name] is None else tuple(row[name]) for name in RESTRICTIONS}
    return Restrictions(**told, expires_at=row.get("expires_at", 0))


def restricts(row: Row) -> int:
    """What stands in a payer's column ``restricted``: whether it has a word to say about its keys."""
    return int(restrictions_of(row) != NOT_RESTRICTED or bool(row.get("content")))


def in_force(books: Books, row: Row) -> Key:
    """The key of a row as it may be used: restricted by its product and its user, too."""
    named = {kind: row[kind] for kind in RESTRICTING if row[kind]}
    found = [
        _rule(kind, payer)
        for kind, name in named.items()
        for payer in books.listing(kind, limit=1, organization=row["organization"], name=name)
    ]
    return restricted(key_of(row), {rule.place: rule for rule in found})


class PayerRules:
    """Follows the payers for the link. It is used from one thread at a time."""

    def __init__(self, books: Books) -> None:
        self._books = books
        #: Id of a restricting payer → its kind, organization and name; and by these what it restricts.
        self._names: dict[str, Named] = {}
        self._rules: dict[Named, PayerRule] = {}
        #: Id → name of every payer that stops keys.
        self._stopped: dict[str, Named] = {}

    def read(self) -> Halted:
        """Read everything anew, for a full load; the payers that are stopped."""
        self._names, self._rules = {}, {}
        for kind in RESTRICTING:
            for row in each_row(self._books, kind, restricted=1):
                self._take(row["id"], _rule(kind, row))
        self._stopped = dict(each_stopped(self._books))
        return tuple(self._stopped.values())

    @property
    def rules(self) -> tuple[PayerRule, ...]:
        """What all of them restrict, as it was read last."""
        return tuple(self._rules.values())

    def _take(self, id: str, rule: PayerRule) -> None:
        self._names[id] = rule.place
        self._rules[rule.place] = rule

    def halted_by(self, changes: Sequence[tuple[int, str, str]]) -> Halted | None:
        """The payers that are stopped, where that may have changed with ``changes`` and did; else ``None``."""
        changed = False
        for kind in STOPPING:
            ids = list(dict.fromkeys(id for _, each, id in changes if each == kind))
            rows = self._books.get_all(kind, ids) if ids else {}
            for id in ids:
                before = self._stopped.get(id)
                after = self._stop(kind, rows.get(id), before)
                if after is None:
                    self._stopped.pop(id, None)
                else:
                    self._stopped[id] = after
                changed = changed or after != before
        return tuple(self._stopped.values()) if changed else None

    def _stop(self, kind: str, row: Row | None, before: Named | None) -> Named | None:
        """What a payer that stops keys is known by."""
        if row is None or row["state"] not in STOPPING[kind]:
            return None
        # What is in force stays so until the next full load: that its keys were revoked the gate may not know yet.
        if row["state"] == "cancelled" and before is None:
            within = {"product": row["product"], "subscription": row["id"], "state": list(_USABLE)}
            if not self._books.listing("key", limit=1, **within):
                return None
        return _named(kind, row)

    def touched(self, changes: Sequence[tuple[int, str, str]]) -> list[PayerRule]:
        """Products and users among ``changes`` that restrict otherwise than before, as they do now."""
        found: list[PayerRule] = []
        for kind in RESTRICTING:
            ids = list(dict.fromkeys(id for _, changed, id in changes if changed == kind))
            rows = self._books.get_all(kind, ids)
            for id in ids:
                known = self._names.pop(id, None)
                before = self._rules.pop(known, None) if known is not None else None
                row = rows.get(id)
                after = _rule(kind, row) if row is not None else PayerRule(*known) if known is not None else None
                if after is not None and after.restricts:
                    self._take(id, after)
                if after is not None and (before or PayerRule(*after.place)) != after:
                    found.append(after)
        return found

    def applied(self, keys: Iterable[Key]) -> Iterator[Key]:
        """Keys as they may be used: restricted by their products and users, too."""
        return (restricted(key, self._rules) for key in keys) if self._rules else iter(keys)


def _rule(kind: str, row: Row) -> PayerRule:
    return PayerRule(kind, row["organization"], row["name"], restrictions_of(row), row.get("content") or "")
