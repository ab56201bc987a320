"""``/api/v1/organizations|teams|projects|users|products|stages``: states, teams, restrictions, removal."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from console_parts import DAY, NOON, WHO, Api, opened, parts, settled_call

KINDS = ("organization", "team", "project", "user", "product", "stage")


@pytest.mark.parametrize("kind", KINDS)
def test_a_payer_is_made_read_changed_and_removed(api: Api, kind: str) -> None:
    """Its title, contact and state change; gone is gone."""
    path = f"/api/v1/{kind}s"
    made = api.post(path, {"name": "one", "title": "Number one", "contact": "ada@example.org"})
    assert (made["name"], made["state"], made["title"]) == ("one", "active", "Number one")
    one = f"{path}/{made['id']}"
    changed = api.send("PATCH", one, {"state": "disabled", "title": None, "contact": "eve@example.org"})
    assert (changed["state"], changed["title"], changed["contact"]) == ("disabled", None, "eve@example.org")
    assert [row["id"] for row in api.get(f"{path}?state=disabled")["data"]] == [made["id"]]
    assert [row["id"] for row in api.get(f"{path}?name=one")["data"]] == [made["id"]]
    assert api.send("DELETE", one) == {"id": made["id"], "deleted": True}
    assert api.get(one, 404)["code"] == "not_found"
    assert "one" not in [row["name"] for row in api.get(path)["data"]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_payer_is_not_renamed_and_the_reason_is_told(api: Api, kind: str) -> None:
    """History names it; sending the name it has is no harm."""
    path = f"/api/v1/{kind}s"
    one = f"{path}/{api.post(path, {'name': 'one'})['id']}"
    problem = api.send("PATCH", one, {"name": "two"}, 422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("field_forbidden", "name")
    assert "Give it a title" in problem["detail"]
    assert api.send("PATCH", one, {"name": "one"})["name"] == "one"


@pytest.mark.parametrize(
    ("kind", "body", "code", "field"),
    [
        ("team", {}, "field_missing", "name"),
        ("team", {"name": " "}, "field_range", "name"),
        ("team", {"name": "a", "titel": "x"}, "field_unknown", "titel"),
        ("team", {"name": "a", "state": "disabled"}, "field_forbidden", "state"),
        ("team", {"name": "a", "id": "team_1"}, "field_forbidden", "id"),
        ("team", {"name": "a", "contact": "a\r\nb"}, "field_range", "contact"),
        ("product", {"name": "a", "networks": []}, "field_range", "networks"),
        ("product", {"name": "a", "networks": ["10.0.0.1/33"]}, "field_type", "networks.0"),
        ("product", {"name": "a", "networks": ["::/129"]}, "field_type", "networks.0"),
        ("product", {"name": "a", "networks": ["example.org"]}, "field_type", "networks.0"),
        ("product", {"name": "a", "networks": ["10.0.0.1/8"]}, "field_type", "networks.0"),
        ("product", {"name": "a", "networks": ["10.0.0.0/8"] * 65}, "field_range", "networks"),
        ("product", {"name": "a", "paths": []}, "field_range", "paths"),
        ("product", {"name": "a", "paths": ["v1"]}, "field_range", "paths.0"),
        ("product", {"name": "a", "paths": ["/v1/*"]}, "field_range", "paths.0"),
        ("product", {"name": "a", "operations": ["fly"]}, "field_enum", "operations"),
        ("product", {"name": "a", "expires_at": "2020-01-01T00:00:00Z"}, "field_range", "expires_at"),
        ("user", {"name": "a", "expires_at": "2027-01-01T00:00:00Z"}, "field_unknown", "expires_at"),
    ],
)
def test_a_payer_that_cannot_be_is_refused_and_the_field_named(
    api: Api, kind: str, body: Any, code: str, field: str
) -> None:
    """Each wrong field has its code; nothing is made."""
    problem = api.post(f"/api/v1/{kind}s", body, 422)
    assert (problem["code"], problem["errors"][0]["field"]) == (code, field)
    assert api.get(f"/api/v1/{kind}s")["data"] == []


@pytest.mark.parametrize("wanted", ["0", "-1", "abc", "x" * 10_240, "%00", "{123e4567-e89b-12d3-a456-426614174000}"])
def test_an_id_that_cannot_be_is_told_like_one_that_is_not(api: Api, wanted: str) -> None:
    """The same words, whatever was written."""
    problem = api.get(f"/api/v1/teams/{wanted}", 404)
    assert (problem["code"], problem["detail"]) == ("not_found", "there is no such team")


def test_a_name_is_taken_once_in_an_organization(api: Api) -> None:
    """Another organization may use it, too."""
    api.post("/api/v1/teams", {"name": "a"})
    assert api.post("/api/v1/teams", {"name": "a"}, 409)["code"] == "conflict"
    api.post("/api/v1/teams", {"name": "a", "organization": "else"})


def test_a_key_must_fit_the_teams_of_its_project_and_user(api: Api) -> None:
    """One that names no team gets theirs; another team is refused, and so are a project and a user of two."""
    api.post("/api/v1/projects", {"name": "search", "team": "b"})
    api.post("/api/v1/users", {"name": "ada", "team": "c"})
    problem = api.post("/api/v1/keys", {"name": "k", "team": "a", "project": "search"}, 422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("invariant", "project")
    assert "is of team b" in problem["detail"]
    assert api.post("/api/v1/keys", {"name": "k", "project": "search", "user": "ada"}, 422)["code"] == "invariant"
    assert api.post("/api/v1/keys", {"name": "k", "project": "search"})["team"] == "b"
    assert api.post("/api/v1/keys", {"name": "l", "user": "ada", "team": "c"})["team"] == "c"


def test_a_project_that_came_with_a_key_may_be_shared(api: Api) -> None:
    """It shows the team of that key until a key of another team names it."""
    api.post("/api/v1/keys", {"name": "one", "team": "a", "project": "search"})
    assert api.get("/api/v1/projects?name=search")["data"][0]["team"] == "a"
    api.post("/api/v1/keys", {"name": "two", "team": "b", "project": "search"})
    assert api.get("/api/v1/projects?name=search")["data"][0]["team"] is None


def test_a_project_moves_into_a_team_only_with_its_keys(api: Api) -> None:
    """While a key of another team names it, it stays where it is."""
    key = api.post("/api/v1/keys", {"name": "one", "team": "a", "project": "search"})
    path = f"/api/v1/projects/{api.get('/api/v1/projects?name=search')['data'][0]['id']}"
    assert api.send("PATCH", path, {"team": "b"}, 422)["code"] == "invariant"
    assert api.send("PATCH", path, {"team": "a"})["team"] == "a"
    api.post(f"/api/v1/keys/{key['id']}/revoke", {}, 200)
    assert api.send("PATCH", path, {"team": "b"})["team"] == "b"
    assert api.send("PATCH", path, {"team": None})["team"] is None
    api.post("/api/v1/keys", {"name": "two", "team": "a", "project": "search"})


def test_a_user_moves_into_a_team_only_with_their_subscriptions(api: Api) -> None:
    """While one of another team gives keys, they stay where they are; one of no team follows them."""
    api.post("/api/v1/products", {"name": "gold"})
    first = api.post("/api/v1/subscriptions", {"product": "gold", "team": "a", "user": "ada"})
    api.post("/api/v1/subscriptions", {"product": "gold", "user": "ada", "name": "own"})
    path = f"/api/v1/users/{api.get('/api/v1/users?name=ada')['data'][0]['id']}"
    problem = api.send("PATCH", path, {"team": "b"}, 422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("invariant", "team")
    assert "1 subscription" in problem["detail"]
    assert api.send("PATCH", path, {"team": "a"})["team"] == "a"
    api.send("PATCH", f"/api/v1/subscriptions/{first['id']}", {"state": "cancelled"})
    assert api.send("PATCH", path, {"team": "b"})["team"] == "b"
    assert api.post("/api/v1/keys", {"name": "k", "subscription": "own"})["team"] == "b"


def test_a_payer_in_use_is_not_removed(api: Api) -> None:
    """Keys that are not revoked and children keep it; what keeps it is told."""
    key = api.post("/api/v1/keys", {"name": "one", "team": "a", "user": "ada", "product": "gold", "stage": "dev"})
    for kind in ("team", "user", "product", "stage", "organization"):
        path = f"/api/v1/{kind}s/{api.get(f'/api/v1/{kind}s')['data'][0]['id']}"
        problem = api.send("DELETE", path, status=409)
        assert problem["code"] == "conflict"
        assert "1 key" in problem["detail"]
    api.post(f"/api/v1/keys/{key['id']}/revoke", {}, 200)
    team = f"/api/v1/teams/{api.get('/api/v1/teams')['data'][0]['id']}"
    assert "a user, ada" in api.send("DELETE", team, status=409)["detail"]
    api.send("DELETE", f"/api/v1/users/{api.get('/api/v1/users')['data'][0]['id']}")
    api.send("DELETE", team)


def test_a_removed_name_may_be_made_again_and_is_another_payer(api: Api) -> None:
    """Its records are named as before, and the new one has an id of its own."""
    first = api.post("/api/v1/teams", {"name": "a"})
    api.send("DELETE", f"/api/v1/teams/{first['id']}")
    assert api.post("/api/v1/teams", {"name": "a"})["id"] != first["id"]


def test_keys_show_which_payer_stops_them(api: Api) -> None:
    """The key itself stays active, so that enabling the team is all it takes."""
    key = api.post("/api/v1/keys", {"name": "one", "team": "a"})
    path = f"/api/v1/teams/{api.get('/api/v1/teams')['data'][0]['id']}"
    api.send("PATCH", path, {"state": "disabled"})
    shown = api.get(f"/api/v1/keys/{key['id']}")
    assert (shown["state"], shown["stopped_by"]) == ("active", "team a")
    assert [row["stopped_by"] for row in api.get("/api/v1/keys?team=a")["data"]] == ["team a"]
    api.send("PATCH", path, {"state": "active"})
    assert api.get(f"/api/v1/keys/{key['id']}")["stopped_by"] is None


LEVELS = ("organization", "team", "project", "user", "key")
NAME = st.sampled_from(["", "a", "b"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(NAME, NAME, NAME, st.sampled_from(["key_1", "key_2"]), st.integers(0, 10**9), st.integers(0, 40)),
        min_size=1,
        max_size=12,
    )
)
def test_children_add_up_to_their_parent_exactly(tmp_path_factory: pytest.TempPathFactory, calls: Any) -> None:
    """At every level, for every sum; what belongs to no child stands under none and is counted."""
    with parts(tmp_path_factory.mktemp("sums")) as made:
        api = Api(made.app, made.admin_key())
        made.journal.add(opened(at=NOON - 60 * DAY))
        for at, (team, project, user, key, cost, hours) in enumerate(calls):
            who = WHO._replace(team=team, project=project, user=user, key=key)
            made.journal.add(*settled_call(f"req_{at}", who=who, cost=cost, at=NOON - hours * DAY))
        made.project()
        since = "from=2026-01-01&to=2027-01-01"
        whole = api.get(f"/api/v1/usage?{since}")["data"]
        for depth in range(1, len(LEVELS) + 1):
            by = ",".join(LEVELS[:depth])
            rows = api.get(f"/api/v1/usage?by={by}&{since}")["data"]
            parents = (
                api.get(f"/api/v1/usage?by={','.join(LEVELS[: depth - 1])}&{since}")["data"] if depth > 1 else whole
            )
            for parent in parents:
                of_it = [row for row in rows if all(row[name] == parent[name] for name in LEVELS[: depth - 1])]
                for name in ("requests", "input_tokens", "output_tokens"):
                    assert sum(row[name] for row in of_it) == parent[name]
                for name in ("cost", "charge"):
                    assert sum(nanos(row[name]) for row in of_it) == nanos(parent[name])


def nanos(text: str) -> int:
    """Dollars as nano-dollars, without a float."""
    whole, _, part = text.partition(".")
    return int(whole) * 10**9 + int(part.ljust(9, "0"))
