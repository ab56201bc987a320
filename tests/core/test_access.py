"""Roles and scopes: nobody gives what he has not, nothing that nobody thought of is allowed, parts stay parts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.access import (
    CALLER,
    GRANTED,
    LOCAL,
    OF_INSTALLATION,
    OF_SCOPE,
    PERMISSIONS,
    ROLES,
    SCOPED_BY,
    WEBHOOK,
    WHOLE,
    WHOLE_ROLES,
    Principal,
    Scope,
    fault_of_grant,
    fault_of_place,
    inherited,
    permissions,
    principal_of,
    scope_of,
)
from faregate.core.restrictions import Restrictions

NAMES = st.sampled_from(["", "a", "b"])
SCOPES = st.builds(Scope, NAMES, NAMES, NAMES, NAMES, NAMES)
KINDS = ("key", "organization", "team", "project", "user", "product", "stage", "subscription", "limit")


def lists(*of: str) -> st.SearchStrategy[tuple[str, ...] | None]:
    return st.none() | st.lists(st.sampled_from(of), unique=True).map(tuple)


@st.composite
def grants(draw: st.DrawFn) -> dict[str, Any]:
    """Everything that a key's row says of what the key may do."""
    return {
        "id": "key_1",
        "role": draw(st.sampled_from(sorted(ROLES))),
        **dict(zip(SCOPED_BY, draw(SCOPES), strict=True)),
        "models": draw(lists("gpt-4o", "sim-1")),
        "operations": draw(lists("chat.completions", "embeddings")),
        "paths": draw(lists("/v1", "/v1/chat", "/v1/chats")),
        "networks": draw(lists("10.0.0.0/8", "10.1.0.0/16", "::/0")),
        "may_set": draw(st.lists(st.sampled_from(["user", "tags"]), unique=True)),
        "expires_at": draw(st.sampled_from([0, 1, 2])),
    }


@st.composite
def chains(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Three keys, each much like the one before, so that many of them could have made the next one."""
    found = [draw(grants())]
    for _ in range(2):
        other = draw(grants())
        taken = draw(st.sets(st.sampled_from(sorted(other)), max_size=3))
        found.append({name: other[name] if name in taken else value for name, value in found[-1].items()})
    return found


def rows() -> st.SearchStrategy[dict[str, Any]]:
    """A row as any kind of resource has it."""
    fields = dict.fromkeys((*SCOPED_BY, "name"), NAMES)
    return st.fixed_dictionaries({**fields, "selector": st.dictionaries(st.sampled_from(SCOPED_BY), NAMES)})


# -- roles -------------------------------------------------------------------------------------------------------------


def test_every_permission_is_of_a_scope_or_of_the_installation() -> None:
    """No permission is both, and every role holds only permissions that there are."""
    assert not OF_SCOPE.keys() & OF_INSTALLATION.keys()
    assert set(GRANTED) == {*ROLES, WEBHOOK}
    assert frozenset().union(*GRANTED.values()) == PERMISSIONS.keys()


@given(st.sampled_from([*ROLES, "owner", ""]), SCOPES, st.text(max_size=20))
def test_what_is_in_no_table_is_denied(role: str, scope: Scope, permission: str) -> None:
    """An unknown permission is held by nobody, an unknown role holds none."""
    if permission not in PERMISSIONS:
        assert not Principal("key_1", role, scope).may(permission)
    assert permissions("owner", scope) == frozenset()


@given(st.sampled_from(sorted(ROLES)), SCOPES)
def test_a_scope_takes_away_what_is_of_the_installation(role: str, scope: Scope) -> None:
    """Prices, providers and health belong to no organization, so whoever is of one has nothing to do with them."""
    held = permissions(role, scope)

    assert held <= permissions(role, WHOLE)
    assert scope.whole or not held & OF_INSTALLATION.keys()


def test_only_root_makes_root() -> None:
    """An admin may do everything but touch root keys."""
    assert permissions("root", WHOLE) - permissions("admin", WHOLE) == {"root.write"}
    assert fault_of_grant(Principal("key_1", "admin"), {"role": "root"})
    assert not fault_of_grant(LOCAL, {"role": "root"})


def test_whoever_only_reads_changes_nothing() -> None:
    """Auditors and finance hold no permission to write, and auditors none to read prompts."""
    for role in ("auditor", "finance"):
        assert not [name for name in permissions(role, WHOLE) if name.endswith((".write", ".check"))]
    assert "content.read" not in permissions("auditor", WHOLE)
    assert permissions(CALLER, WHOLE) == frozenset()


# -- scopes ------------------------------------------------------------------------------------------------------------


@given(SCOPES, SCOPES, SCOPES)
def test_a_part_of_a_part_is_a_part(outer: Scope, middle: Scope, inner: Scope) -> None:
    """Covering is reflexive and transitive, and the whole covers everything."""
    assert outer.covers(outer)
    assert WHOLE.covers(outer)
    if outer.covers(middle) and middle.covers(inner):
        assert outer.covers(inner)


@given(SCOPES, SCOPES, st.sampled_from(["key", "limit", "subscription", "stage"]), rows())
def test_a_part_sees_no_more_than_the_whole_of_it(outer: Scope, inner: Scope, kind: str, row: dict[str, Any]) -> None:
    """Whatever a narrower scope sees, the wider one sees as well."""
    if outer.covers(inner) and inner.sees(kind, row):
        assert outer.sees(kind, row)


@given(SCOPES, SCOPES, st.sampled_from(KINDS), rows())
def test_an_organization_never_sees_another_ones_rows(
    mine: Scope, other: Scope, kind: str, row: dict[str, Any]
) -> None:
    """Two scopes of different organizations have no row in common."""
    if mine.organization and other.organization and mine.organization != other.organization:
        assert not (mine.sees(kind, row) and other.sees(kind, row))


@given(SCOPES, rows())
def test_a_kind_that_no_scope_knows_is_seen_only_by_the_whole(scope: Scope, row: dict[str, Any]) -> None:
    """A new kind of row is the installation's until somebody says by which columns it is an organization's."""
    assert scope.sees("price", row) == scope.whole


@given(grants())
def test_a_callers_calls_lie_in_its_own_scope(row: dict[str, Any]) -> None:
    """A key lies in the scope that its own row tells."""
    assert scope_of(row).sees("key", row)
    assert scope_of(row).holds(row)


def test_a_scope_names_itself() -> None:
    """Who manages a project sees the project, its organization, and no team or other project."""
    scope = Scope("acme", project="search")

    assert scope.conditions("project") == {"organization": "acme", "name": "search"}
    assert scope.conditions("organization") == {"name": "acme"}
    assert scope.conditions("team") is None
    assert scope.conditions("limit") == {"selector.organization": "acme", "selector.project": "search"}
    assert scope.bounded_by("project", {"name": "search", "organization": "acme"})
    assert not scope.bounded_by("project", {"name": "search", "organization": "other"})


# -- grants ------------------------------------------------------------------------------------------------------------


@given(chains())
def test_nobody_gives_a_right_that_he_has_not(chain: list[dict[str, Any]]) -> None:
    """What a key was given, its maker may do; and it sees nothing that its maker does not see."""
    maker, wanted, _ = chain
    asks = principal_of(maker)
    if not fault_of_grant(asks, wanted):
        given_to = principal_of(wanted)
        assert permissions(given_to.role, given_to.scope) <= permissions(asks.role, asks.scope)
        assert asks.scope.covers(given_to.scope)


@given(chains())
def test_a_grant_of_a_grant_is_a_grant(chain: list[dict[str, Any]]) -> None:
    """Through a key that one may make, nobody comes to more than he could have given at once."""
    first, second, third = chain
    steps = (fault_of_grant(principal_of(first), second), fault_of_grant(principal_of(second), third))
    # What others call with may outlast the key of whoever looks after the installation.
    if not any(steps) and CALLER not in (second["role"], third["role"]):
        assert fault_of_grant(principal_of(first), third) == ""


@given(grants())
def test_everybody_may_give_what_is_just_his_own(row: dict[str, Any]) -> None:
    """The subset rule refuses nothing that is no more than the maker's; of root there is none with a scope."""
    if row["role"] != "root" or scope_of(row).whole:
        assert fault_of_grant(principal_of(row), row) == ""


@given(grants())
def test_what_is_left_out_is_the_makers_own(row: dict[str, Any]) -> None:
    """A key made without a word about restrictions has its maker's, and can be made."""
    maker = principal_of(row)
    names = (*SCOPED_BY, "models", "operations", "paths", "networks", "may_set", "expires_at")
    nothing: dict[str, Any] = {**dict.fromkeys(names), "may_set": [], "expires_at": 0}
    made = {**nothing, **inherited(maker, names), "role": CALLER}

    assert fault_of_grant(maker, made) == ""


@pytest.mark.parametrize(
    ("field", "bound", "wanted", "fits"),
    [
        ("models", ["gpt-4o"], ["gpt-4o"], True),
        ("models", ["gpt-4o"], [], True),
        ("models", ["gpt-4o"], ["gpt-4o", "o3"], False),
        ("models", ["gpt-4o"], None, False),
        ("models", None, None, True),
        ("operations", ["embeddings"], ["chat.completions"], False),
        ("paths", ["/v1/chat"], ["/v1/chat/completions"], True),
        ("paths", ["/v1/chat"], ["/v1/chats"], False),
        ("paths", ["/"], ["/v1"], True),
        ("networks", ["10.0.0.0/8"], ["10.2.0.0/16"], True),
        ("networks", ["10.0.0.0/8"], ["0.0.0.0/0"], False),
        ("networks", ["10.0.0.0/8"], ["::/0"], False),
        ("networks", ["::/0"], ["2001:db8::/32"], True),
        ("may_set", ["user"], ["user", "project"], False),
        ("expires_at", 5, 4, True),
        ("expires_at", 5, 6, False),
        ("expires_at", 5, 0, False),
    ],
)
def test_a_restriction_is_handed_on(field: str, bound: Any, wanted: Any, fits: bool) -> None:
    """Of a key that is restricted nobody makes one that is less so."""
    scope = {"organization": "acme"}
    row = {"id": "key_1", "role": "admin", **scope, "expires_at": 0, field: bound}

    assert (fault_of_grant(principal_of(row), {"role": CALLER, **scope, field: wanted}) == "") == fits


def test_whoever_looks_after_the_installation_makes_keys_that_last() -> None:
    """An admin key that expires makes callers' keys that do not, but none that opens the console for longer."""
    maker = Principal("key_1", "admin", restrictions=Restrictions(expires_at=5))

    assert not fault_of_grant(maker, {"role": CALLER, "organization": "acme", "expires_at": 0})
    assert fault_of_grant(maker, {"role": "auditor", "expires_at": 0})


@pytest.mark.parametrize(
    ("role", "scope", "fits"),
    [
        *((role, WHOLE, role in WHOLE_ROLES) for role in ROLES),
        ("root", Scope("acme"), False),
        ("admin", Scope("acme"), True),
        ("admin", Scope("", "research"), False),
        ("manager", Scope("acme"), False),
        ("manager", Scope("acme", product="bots"), True),
        ("user", Scope("acme", "research"), False),
        ("user", Scope("acme", user="ada"), True),
        ("owner", Scope("acme"), False),
    ],
)
def test_each_role_has_its_place(role: str, scope: Scope, fits: bool) -> None:
    """A manager is of something smaller than an organization, a user of one user, root of everything."""
    assert (fault_of_place(role, scope) == "") == fits
