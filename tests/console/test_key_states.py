"""Who may make a key usable again, what it must still belong to then, and what each answer says of what stops it."""

from collections.abc import Callable
from typing import Any

import pytest

from console_parts import Api, Parts
from faregate.console.keys import NewKey, create, revoke
from faregate.console.payers import DEFAULT_ORGANIZATION

ON, OFF = {"state": "active"}, {"state": "disabled"}


@pytest.fixture
def lead(made: Parts) -> Api:
    """The manager of the team red."""
    wanted = NewKey(name="lead", role="manager", organization=DEFAULT_ORGANIZATION, team="red")
    return Api(made.app, create(made.console, wanted)[1])


@pytest.fixture
def ada(made: Parts) -> Api:
    """A user, of no team."""
    wanted = NewKey(name="ada", role="user", organization=DEFAULT_ORGANIZATION, user="ada")
    return Api(made.app, create(made.console, wanted)[1])


@pytest.fixture
def key(api: Api) -> str:
    """Id of a key of ada's in the team red."""
    return str(api.post("/api/v1/keys", {"name": "ci", "team": "red", "user": "ada"})["id"])


def limit_of(api: Api, key: str) -> Any:
    """The id of a limit that whoever asks sets on a key."""
    wanted = {"select": {"key": key, "team": "red"}, "unit": "usd", "amount": "5", "window": "lifetime"}
    return api.post("/api/v1/limits", wanted)["id"]


# -- who ---------------------------------------------------------------------------------------------------------------


def test_what_was_disabled_above_somebody_he_does_not_enable(api: Api, lead: Api, ada: Api, key: str) -> None:
    """Neither the team's manager nor the user; that he may disable it as well does not make it his."""
    path = f"/api/v1/keys/{key}"
    api.send("PATCH", path, OFF)
    for asking in (lead, ada):
        assert asking.send("PATCH", path, OFF)["state"] == "disabled"
        assert asking.send("PATCH", path, ON, 403)["code"] == "role_forbidden"
        assert asking.send("PATCH", path, {**ON, "name": "other"}, 403)["code"] == "role_forbidden"
    assert api.get(path)["name"] == "ci"
    assert lead.send("PATCH", path, {"name": "renamed"})["state"] == "disabled"
    assert api.send("PATCH", path, ON)["state"] == "active"


def test_a_manager_enables_what_he_or_a_user_disabled(lead: Api, ada: Api, key: str) -> None:
    """A user is below everybody who sees the key; whoever disables it again above him takes that over."""
    path = f"/api/v1/keys/{key}"
    ada.send("PATCH", path, OFF)
    assert ada.send("PATCH", path, ON)["state"] == "active"
    ada.send("PATCH", path, OFF)
    assert lead.send("PATCH", path, ON)["state"] == "active"
    ada.send("PATCH", path, OFF)
    lead.send("PATCH", path, OFF)
    assert ada.send("PATCH", path, ON, 403)["code"] == "role_forbidden"
    assert lead.send("PATCH", path, ON)["state"] == "active"


def test_a_key_of_which_nobody_noted_who_disabled_it_was_disabled_above(
    made: Parts, api: Api, lead: Api, key: str
) -> None:
    """Keys of older books, which whoever looks after the whole installation enables."""
    row = made.books.get("key", key)
    assert row is not None
    made.books.put("key", {**row, "state": "disabled"})
    assert lead.send("PATCH", f"/api/v1/keys/{key}", ON, 403)["code"] == "role_forbidden"
    assert api.send("PATCH", f"/api/v1/keys/{key}", ON)["state"] == "active"


def test_what_a_limit_revoked_is_lifted_by_whoever_may_change_the_limit(
    made: Parts, api: Api, lead: Api, ada: Api, key: str
) -> None:
    """Not by whom it binds; a manager lifts what a limit of his own revoked, and a limit that is gone was set above."""
    path, above, own = f"/api/v1/keys/{key}", limit_of(api, key), limit_of(lead, key)
    assert above != own
    revoke(made.console, key, "spent", by_limit=above)
    for asking in (lead, ada):
        assert asking.send("PATCH", path, ON, 403)["code"] == "role_forbidden"
    api.send("PATCH", path, ON)
    revoke(made.console, key, "spent", by_limit=own)
    assert ada.send("PATCH", path, ON, 403)["code"] == "role_forbidden"
    assert lead.send("PATCH", path, ON)["state"] == "active"
    revoke(made.console, key, "spent", by_limit=own)
    lead.send("DELETE", f"/api/v1/limits/{own}")
    assert lead.send("PATCH", path, ON, 403)["code"] == "role_forbidden"
    assert api.send("PATCH", path, ON)["state"] == "active"


def test_lifting_a_revocation_does_not_enable_what_was_disabled_above(
    made: Parts, api: Api, lead: Api, key: str
) -> None:
    """A limit of the manager's own revokes a disabled key, and its revocation is no way around that."""
    path = f"/api/v1/keys/{key}"
    api.send("PATCH", path, OFF)
    revoke(made.console, key, "spent", by_limit=limit_of(lead, key))
    assert lead.send("PATCH", path, ON, 403)["code"] == "role_forbidden"
    assert api.send("PATCH", path, ON)["state"] == "active"


# -- what it must belong to --------------------------------------------------------------------------------------------


def _cancelled(api: Api) -> None:
    one = api.get("/api/v1/subscriptions?name=own")["data"][0]["id"]
    api.send("PATCH", f"/api/v1/subscriptions/{one}", {"state": "cancelled"})


def _unsubscribed(api: Api) -> None:
    one = api.get("/api/v1/subscriptions?name=own")["data"][0]["id"]
    api.send("DELETE", f"/api/v1/subscriptions/{one}")


def _removed(api: Api) -> None:
    one = api.get("/api/v1/stages?name=dev")["data"][0]["id"]
    api.send("DELETE", f"/api/v1/stages/{one}")


def _moved(api: Api) -> None:
    one = api.get("/api/v1/projects?name=search")["data"][0]["id"]
    api.send("PATCH", f"/api/v1/projects/{one}", {"team": "blue"})


@pytest.mark.parametrize(
    ("meanwhile", "status", "code"),
    [
        (_cancelled, 409, "conflict"),
        (_unsubscribed, 409, "conflict"),
        (_removed, 409, "conflict"),
        (_moved, 422, "invariant"),
    ],
)
def test_a_key_comes_back_only_to_what_it_belonged_to(
    made: Parts, api: Api, meanwhile: Callable[[Api], None], status: int, code: str
) -> None:
    """While a limit had it revoked nothing kept its subscription and payers from going; then it stays revoked."""
    api.post("/api/v1/products", {"name": "gold"})
    api.post("/api/v1/subscriptions", {"product": "gold", "team": "red", "name": "own"})
    wanted = {"name": "ci", "subscription": "own", "project": "search", "stage": "dev"}
    key = api.post("/api/v1/keys", wanted)["id"]
    path = f"/api/v1/keys/{key}"
    revoke(made.console, key, "spent", by_limit="lim_1")
    assert api.send("PATCH", path, ON)["state"] == "active"
    revoke(made.console, key, "spent", by_limit="lim_1")
    meanwhile(api)
    assert api.send("PATCH", path, ON, status)["code"] == code
    assert api.get(path)["state"] == "revoked"


# -- what stops it -----------------------------------------------------------------------------------------------------


def test_every_answer_to_a_change_tells_what_stops_the_key(api: Api) -> None:
    """When keys are made, one or many, changed, rotated, revoked and deleted, as when they are read."""
    team = api.post("/api/v1/teams", {"name": "red"})["id"]
    api.send("PATCH", f"/api/v1/teams/{team}", OFF)
    key = api.post("/api/v1/keys", {"name": "ci", "team": "red"})
    path = f"/api/v1/keys/{key['id']}"
    many = api.post("/api/v1/keys/bulk", {"items": [{"name": "a", "team": "red"}, {"name": "b"}]})["data"]
    told = [
        key,
        many[0],
        api.get(path),
        api.send("PATCH", path, {"name": "other"}),
        api.post(f"{path}/rotate", {}, 200),
        api.post(f"{path}/revoke", {}, 200),
        api.send("DELETE", path),
    ]
    assert {each["stopped_by"] for each in told} == {"team red"}
    assert many[1]["stopped_by"] is None
