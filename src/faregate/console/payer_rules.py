"""What payers do to their keys before the gate hears of these: which are stopped, and what products and users restrict.

The gate is told of stopped payers as a set, so that stopping a team with many keys is one small message. What a product
or a user restricts its keys to is put into the keys themselves, so that a call costs the same with and without; when it
changes, the keys that it concerns are sent again. Both are few among many payers, and found by an index.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from faregate.console.reading import each_row
from faregate.control import Key
from faregate.core.restrictions import NOT_RESTRICTED, Restrictions
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

Halted = tuple[tuple[str, str, str], ...]
Stopped = frozenset[tuple[str, str, str]]


def each_stopped(books: Books) -> Iterator[tuple[str, str, str]]:
    """``(kind, organization, name)`` of every payer whose keys are stopped; of a subscription its id."""
    for kind, states in STOPPING.items():
        for state in states:
            for row in each_row(books, kind, state=state):
                # A subscription is known to its keys by its id, all others by their names.
                yield (kind, row.get("organization", ""), row["id"] if kind == "subscription" else row["name"])


def stopped_payers(books: Books) -> Stopped:
    """Every payer whose keys are stopped."""
    return frozenset(each_stopped(books))


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


def restrictions_of(row: Row) -> Restrictions:
    """What a row of a payer or a key restricts."""
    models, operations, paths, networks = (
        None if row[name] is None else tuple(row[name]) for name in ("models", "operations", "paths", "networks")
    )
    return Restrictions(models, operations, paths, networks, row.get("expires_at", 0))


def restricts(row: Row) -> int:
    """What stands in a payer's column ``restricted``: whether it has a word to say about its keys."""
    return int(restrictions_of(row) != NOT_RESTRICTED or bool(row.get("content")))


def restricted(key: Key, by: Restrictions) -> Key:
    """``key`` as far as a payer of it allows."""
    own = Restrictions(key.models, key.operations, key.paths, key.networks, key.expires_at)
    return msgspec.structs.replace(key, **own.met_by(by)._asdict())


class PayerRules:
    """Follows the payers for the link. It is used from one thread at a time."""

    def __init__(self, books: Books) -> None:
        self._books = books
        #: Id of a restricting payer → its kind, organization and name; and by these what it restricts.
        self._names: dict[str, tuple[str, str, str]] = {}
        self._rules: dict[tuple[str, str, str], Restrictions] = {}
        #: What a product says about keeping contents, where it does.
        self._contents: dict[tuple[str, str, str], str] = {}
        self._halted: Halted = ()

    def read(self) -> Halted:
        """Read everything anew, for a full load; the payers that are stopped."""
        self._names, self._rules, self._contents = {}, {}, {}
        for kind in RESTRICTING:
            for row in each_row(self._books, kind, restricted=1):
                self._take(kind, row)
        self._halted = tuple(each_stopped(self._books))
        return self._halted

    def _take(self, kind: str, row: Row) -> None:
        name = self._names[row["id"]] = (kind, row["organization"], row["name"])
        self._rules[name] = restrictions_of(row)
        if row.get("content"):
            self._contents[name] = row["content"]

    def halted_by(self, changes: Sequence[tuple[int, str, str]]) -> Halted | None:
        """The payers that are stopped, where that may have changed with ``changes`` and did; else ``None``."""
        if not any(kind in STOPPING for _, kind, _ in changes):
            return None
        before, self._halted = self._halted, tuple(each_stopped(self._books))
        return self._halted if self._halted != before else None

    def keys_touched(self, changes: Sequence[tuple[int, str, str]]) -> list[str]:
        """Ids of the keys that products and users among ``changes`` restrict otherwise than before."""
        found: list[str] = []
        for kind in RESTRICTING:
            ids = list(dict.fromkeys(id for _, changed, id in changes if changed == kind))
            rows = self._books.get_all(kind, ids)
            for id in ids:
                name = self._retaken(kind, id, rows.get(id))
                if name is not None:
                    within: dict[str, Any] = {"organization": name[1], kind: name[2]}
                    found += [key["id"] for key in each_row(self._books, "key", **within)]
        return found

    def _retaken(self, kind: str, id: str, row: Row | None) -> tuple[str, str, str] | None:
        """Take a payer as it is now; its kind, organization and name where it restricts otherwise than before."""
        known = self._names.pop(id, None)
        before, said = NOT_RESTRICTED, ""
        if known is not None:
            before, said = self._rules.pop(known, NOT_RESTRICTED), self._contents.pop(known, "")
        if row is None:
            return known
        after, says = restrictions_of(row), row.get("content") or ""
        if after != NOT_RESTRICTED or says:
            self._take(kind, row)
        if says != said:
            return kind, row["organization"], row["name"]
        return (kind, row["organization"], row["name"]) if after != before else None

    def applied(self, keys: Iterable[Key]) -> Iterator[Key]:
        """Keys as they may be used: restricted by their products and users, too."""
        if not self._rules:
            yield from keys
            return
        for key in keys:
            for kind in RESTRICTING:
                rules = self._rules.get((kind, key.organization, getattr(key, kind)))
                if rules is not None:
                    key = restricted(key, rules)
            if self._contents and not key.content:
                # Its own word goes before that of its product.
                said = self._contents.get(("product", key.organization, key.product), "")
                key = msgspec.structs.replace(key, content=said) if said else key
            yield key
