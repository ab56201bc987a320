"""What whoever makes or changes a key may give it: no more than he has, only of his own, and never the last way in.

Called by the resource of keys with rows and fields; the decisions are the core's (``core.access``).
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from faregate.console.payers import DEFAULT_ORGANIZATION
from faregate.console.problems import ApiProblem
from faregate.console.reading import each_row
from faregate.console.scoped_books import may_change_limit
from faregate.console.state import Console
from faregate.core.access import (
    LOCAL,
    SCOPED_BY,
    WHOLE_ROLES,
    Scope,
    fault_of_grant,
    fault_of_place,
    inherited,
    permissions,
    scope_of,
)
from faregate.ports import Row

#: What of a key is a right, or narrows one.
GRANTED: Final = (
    *(*SCOPED_BY, "role", "models", "operations", "paths", "networks", "priorities", "may_set"),
    *("expires_at", "subscription"),
)

#: What a key's details say of who disabled it: the dimensions of their scope. Empty, it was disabled from above.
DISABLED_BY: Final = "disabled_by"

#: Roles that look after the whole installation where no scope narrows them.
_STEWARDS: Final = ("root", "admin")


def completed(console: Console, fields: Mapping[str, Any], sent: Collection[str]) -> dict[str, Any]:
    """The fields of a new key: what was left out is its maker's own, so that he need not repeat it.

    A key that opens the console and names no payer at all is of the whole installation; any other is of an
    organization, the default one where none is named.
    """
    made = {**fields, **inherited(console.principal, [name for name in GRANTED if name not in sent])}
    if not made.get("organization") and console.principal.scope.whole:
        whole = made["role"] in WHOLE_ROLES and scope_of(made).whole
        made["organization"] = "" if whole else DEFAULT_ORGANIZATION
    return made


def check_new(console: Console, fields: Mapping[str, Any]) -> None:
    """Refuse a new key that cannot be, or that its maker may not make.

    Raises:
        ApiProblem: ``role_forbidden``, or ``field_conflict`` where role and payers do not go together.
    """
    _refuse(fault_of_grant(console.principal, {name: fields[name] for name in GRANTED if name in fields}))
    _check_place(fields)
    if not console.principal.scope.whole:
        _check_payers(console, fields)


def _check_payers(console: Console, fields: Mapping[str, Any]) -> None:
    """Refuse to charge calls to payers that whoever makes the key does not see: their limits and sums are not his."""
    scope, organization = console.principal.scope, fields["organization"]
    for kind in (*SCOPED_BY, "stage"):
        name = fields.get(kind) or ""
        if not name:
            continue
        within = {} if kind == "organization" else {"organization": organization}
        known = console.all_books.listing(kind, name=name, limit=1, **within)
        row = known[0] if known else {"name": name, "organization": organization, "team": fields.get("team") or ""}
        # Stages are everybody's who is of the organization; to make one is its admin's.
        if not (scope.sees(kind, row) or (kind == "stage" and known)):
            raise ApiProblem("role_forbidden", f"this {kind} lies outside of what your key is of", field=kind)


def check_change(console: Console, row: Row, sent: Mapping[str, Any]) -> None:
    """Refuse a change of a key that gives it more than whoever changes it has, or that nobody could take back.

    Raises:
        ApiProblem: ``role_forbidden``, ``field_conflict``, or ``invariant`` where it is the last of its kind.
    """
    check_touch(console, row)
    changed = {name: value for name, value in sent.items() if name in GRANTED}
    after = {name: row[name] for name in GRANTED} | changed
    scope = scope_of(row)
    rises = not permissions(after["role"], scope) <= permissions(row["role"], scope)
    if rises or (sent.get("state") == "active" and row["state"] != "active"):
        # What it becomes is given now, so that nothing of what it was before may go beyond either.
        _refuse(fault_of_grant(console.principal, after))
    else:
        _refuse(fault_of_grant(console.principal, {name: after[name] for name in (*SCOPED_BY, "role", *changed)}))
    if "role" in changed:
        _check_place(after)
    _refuse_last(console, row, {**row, **sent})


def check_touch(console: Console, row: Row) -> None:
    """Refuse to change a key that may do more than whoever asks.

    Raises:
        ApiProblem: ``role_forbidden``.
    """
    _refuse(fault_of_grant(console.principal, {name: row[name] for name in (*SCOPED_BY, "role")}))


def check_handing_out(console: Console, row: Row) -> None:
    """Refuse to give the secret of a key to somebody who may do less than it.

    Raises:
        ApiProblem: ``role_forbidden``.
    """
    _refuse(fault_of_grant(console.principal, {name: row[name] for name in GRANTED if name in row}))


def restated(console: Console, row: Row, state: str) -> Row:
    """A key's row, disabled or made active; it notes whose word that is, since whoever it binds cannot undo it.

    Raises:
        ApiProblem: ``role_forbidden``: it was disabled above whoever asks.
    """
    scope, details = console.principal.scope, dict(row["details"] or {})
    if state == "disabled":
        if row["state"] != "disabled" or _may_enable(scope, row):
            # Everybody who sees a user's key is above that user, whatever else their scopes are made of.
            told = scope_of(row) if scope.user else scope
            details[DISABLED_BY] = told.named
    elif row["state"] == "disabled" or DISABLED_BY in details:
        if not _may_enable(scope, row):
            rule = "this key was disabled by somebody above your key; ask them to enable it"
            raise ApiProblem("role_forbidden", rule, field="state")
        details.pop(DISABLED_BY, None)
    return {**row, "state": state, "details": details}


def _may_enable(scope: Scope, row: Row) -> bool:
    told = (row["details"] or {}).get(DISABLED_BY) or {}
    return scope.whole or bool(told and scope.covers(scope_of(told)))


def check_lifting(console: Console, limit_id: str) -> None:
    """Refuse to lift a revocation by a limit to whoever may not change that limit; one that is gone was set above.

    Raises:
        ApiProblem: ``role_forbidden``.
    """
    if not may_change_limit(console.principal.scope, console.all_books.get("limit", limit_id) or {}):
        rule = "a limit that was set above your key revoked this one; ask whoever set it to lift that"
        raise ApiProblem("role_forbidden", rule, field="state")


def check_ending(console: Console, row: Row) -> None:
    """Refuse to end a key that may do more than whoever asks, or that is the last of its kind.

    Raises:
        ApiProblem: ``role_forbidden`` or ``invariant``.
    """
    check_touch(console, row)
    _refuse_last(console, row, None)


def _refuse(fault: str) -> None:
    if fault:
        raise ApiProblem("role_forbidden", fault)


def _check_place(fields: Mapping[str, Any]) -> None:
    fault = fault_of_place(fields["role"], scope_of(fields))
    if fault:
        raise ApiProblem("field_conflict", fault, field="role")


def _refuse_last(console: Console, row: Row, after: Row | None) -> None:
    """Refuse to leave an installation that only its socket opens; whoever has that may do so."""
    now = console.clock.wall_nanos()
    if console.principal.id == LOCAL.id or not _is_steward(row, now) or (after is not None and _is_steward(after, now)):
        return
    others = each_row(console.all_books, "key", role=list(_STEWARDS), organization="", state="active")
    if not any(_is_steward(each, now) for each in others if each["id"] != row["id"]):
        rule = "this is the last key that looks after the whole installation; make another one first"
        raise ApiProblem("invariant", rule, field="role" if after is not None else "")


def _is_steward(row: Row, now: int) -> bool:
    lives = row["state"] == "active" and not 0 < row["expires_at"] <= now
    return lives and row["role"] in _STEWARDS and scope_of(row).whole
