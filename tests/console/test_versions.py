"""ETag and If-Match: a change is made to what was read, or refused."""

import pytest

from console_parts import Api

LIMIT = {"select": {"team": "research"}, "unit": "usd", "amount": "5", "window": "month"}


def etag(api: Api, path: str) -> str:
    """The version that a resource has now."""
    return str(api.call("GET", path).headers["etag"])


@pytest.fixture
def paths(api: Api) -> dict[str, tuple[str, dict[str, object]]]:
    """Kind → the path of a resource, and a change of it."""
    key = api.post("/api/v1/keys", {"name": "ci", "team": "research"})["id"]
    limit = api.post("/api/v1/limits", LIMIT)["id"]
    team = api.get("/api/v1/teams?name=research")["data"][0]["id"]
    product = api.post("/api/v1/products", {"name": "gold"})["id"]
    made = {"product": "gold", "team": "research", "name": "first"}
    subscription = api.post("/api/v1/subscriptions", made)["id"]
    return {
        "key": (f"/api/v1/keys/{key}", {"name": "nightly"}),
        "limit": (f"/api/v1/limits/{limit}", {"amount": "6"}),
        "team": (f"/api/v1/teams/{team}", {"title": "Research"}),
        "product": (f"/api/v1/products/{product}", {"title": "Gold"}),
        "subscription": (f"/api/v1/subscriptions/{subscription}", {"title": "First"}),
    }


@pytest.mark.parametrize("kind", ["key", "limit", "team", "product", "subscription"])
def test_a_change_of_what_was_read_is_made_and_one_of_what_it_was_before_is_not(
    api: Api, paths: dict[str, tuple[str, dict[str, object]]], kind: str
) -> None:
    """The first of two who read the same version changes it; the second is told to read again, and nothing changes."""
    path, change = paths[kind]
    before = etag(api, path)
    assert etag(api, path) == before
    first = api.call("PATCH", path, json=change, headers={"if-match": before})
    assert first.status_code == 200, first.text
    after = etag(api, path)
    assert first.headers["etag"] == after != before
    second = api.call("PATCH", path, json=change, headers={"if-match": before})
    assert (second.status_code, second.json()["code"]) == (412, "stale_version")
    assert "etag" not in second.headers
    assert etag(api, path) == after


def test_any_of_several_versions_and_a_star_will_do(api: Api) -> None:
    """A list that names the version that is there, weakly too, and ``*`` let the change pass."""
    path = "/api/v1/keys/" + api.post("/api/v1/keys", {"name": "ci"})["id"]
    for number, wanted in enumerate((f'"0000000000000000", W/{etag(api, path)}', "*")):
        answer = api.call("PATCH", path, json={"name": f"ci-{number}"}, headers={"if-match": wanted})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("wanted", ["", "abc", '"a', '"a""b"', ", ".join(['"0"'] * 17), '"' + "a" * 65 + '"'])
def test_what_is_no_version_is_refused(api: Api, wanted: str) -> None:
    """A header that holds no versions is a mistake, and the change is not made."""
    path = "/api/v1/keys/" + api.post("/api/v1/keys", {"name": "ci"})["id"]
    answer = api.call("PATCH", path, json={"name": "other"}, headers={"if-match": wanted})
    assert (answer.status_code, answer.json()["code"]) == (400, "header_invalid")
    assert api.get(path)["name"] == "ci"


def test_what_is_not_there_is_not_stale(api: Api) -> None:
    """An absent resource is told as absent, whatever version was asked for."""
    answer = api.call("PATCH", "/api/v1/keys/key_absent", json={"name": "x"}, headers={"if-match": '"0"'})
    assert answer.status_code == 404


def test_a_payer_is_deleted_only_as_it_was_read(api: Api) -> None:
    """A deletion with an old version is refused."""
    path = "/api/v1/products/" + api.post("/api/v1/products", {"name": "gold"})["id"]
    before = etag(api, path)
    api.send("PATCH", path, {"title": "Gold"})
    assert api.call("DELETE", path, headers={"if-match": before}).json()["code"] == "stale_version"
    assert api.call("DELETE", path, headers={"if-match": etag(api, path)}).status_code == 200
