"""``/api/v1/keys``."""

from typing import Any

import pytest

from console_parts import DAY, HOUR, WHO, Api, Parts, opened, settled_call
from faregate.console.accounts import keys_without_pepper
from faregate.core import keys
from faregate.errors import ConfigError


def test_a_new_key_shows_its_secret_once_and_the_books_hold_only_its_digest(made: Parts, api: Api) -> None:
    """The secret is in the answer that made the key and nowhere else."""
    key = api.post("/api/v1/keys", {"name": "ci", "team": "research", "project": "search", "stage": "dev"})
    secret = key["secret"]
    assert keys.is_well_formed(secret)
    assert key["key"] == secret[:8] + "…"
    assert "secret" not in api.get(f"/api/v1/keys/{key['id']}")
    row = made.books.get("key", key["id"])
    assert row is not None
    assert row["digests"] == {keys.digest(bytes.fromhex("11" * 32), secret): 0}
    made.books.close()
    files = b"".join(file.read_bytes() for file in (made.folder / "data").iterdir() if file.is_file())
    assert secret[8:40].encode() not in files


def test_payers_that_do_not_exist_yet_are_made_with_the_first_key_that_names_them(api: Api) -> None:
    """Team, project, user and stage appear once, however many keys name them."""
    for name in ("one", "two"):
        api.post("/api/v1/keys", {"name": name, "team": "research", "project": "search", "user": "ada", "stage": "dev"})
    for path, name in (("teams", "research"), ("projects", "search"), ("users", "ada"), ("stages", "dev")):
        assert [row["name"] for row in api.get(f"/api/v1/{path}")["data"]] == [name]
    assert [row["name"] for row in api.get("/api/v1/organizations")["data"]] == ["default"]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "field_missing", "name"),
        ({"name": ""}, "field_range", "name"),
        ({"name": "   "}, "field_range", "name"),
        ({"name": "x" * 129}, "field_range", "name"),
        ({"name": "a\nb"}, "field_range", "name"),
        ({"name": "a\u202eb"}, "field_range", "name"),
        ({"name": "a\u200bb"}, "field_range", "name"),
        ({"name": 7}, "field_type", "name"),
        ({"name": None}, "field_type", "name"),
        ({"name": "a", "secret": "sk-fg-x"}, "field_forbidden", "secret"),
        ({"name": "a", "id": "key_1"}, "field_forbidden", "id"),
        ({"name": "a", "spent": 0}, "field_forbidden", "spent"),
        ({"name": "a", "tean": "x"}, "field_unknown", "tean"),
        ({"name": "a", "role": "owner"}, "field_enum", "role"),
        ({"name": "a", "models": "gpt-4o"}, "field_type", "models"),
        ({"name": "a", "models": ["m"] * 201}, "field_range", "models"),
        ({"name": "a", "may_set": ["everything"]}, "field_enum", "may_set.0"),
        ({"name": "a", "expires_at": "2020-01-01T00:00:00Z"}, "field_range", "expires_at"),
        ({"name": "a", "expires_at": "2026-02-30"}, "field_type", "expires_at"),
        ({"name": "a", "expires_at": "1795262400"}, "field_type", "expires_at"),
        ({"name": "a", "expires_at": "2027-01-01T00:00:00"}, "field_type", "expires_at"),
        ({"name": "a", "expires_at": "9999-01-01T00:00:00Z"}, "field_range", "expires_at"),
        ([], "field_type", ""),
    ],
)
def test_a_key_that_cannot_be_is_refused_and_the_field_named(api: Api, body: Any, code: str, field: str) -> None:
    """Each wrong field has its code; nothing is made."""
    problem = api.post("/api/v1/keys", body, status=422)
    assert problem["code"] == code
    if field:
        assert problem["errors"][0]["field"] == field
    assert len(api.get("/api/v1/keys")["data"]) == 1


def test_all_mistakes_are_told_at_once_with_the_nearest_name(api: Api) -> None:
    """Three wrong fields are three entries, and a typing error meets its correction."""
    problem = api.post("/api/v1/keys", {"name": "", "role": "x", "projet": "a"}, status=422)
    assert {each["field"] for each in problem["errors"]} == {"name", "role", "projet"}
    assert "did you mean project?" in str(problem["errors"])


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "<script>alert(1)</script>", "' OR 1=1--", "Ünï ☃", "a" * 128])
def test_harmless_names_are_kept_as_they_are(api: Api, name: str) -> None:
    """Escaping is the business of whoever shows a name."""
    assert api.post("/api/v1/keys", {"name": name})["name"] == name


def test_two_forms_of_one_name_are_one_name(api: Api) -> None:
    """Unicode's composed form is what counts."""
    api.post("/api/v1/keys", {"name": "Zoe\u0301"})
    problem = api.post("/api/v1/keys", {"name": "Zo\u00e9"}, status=409)
    assert problem["code"] == "conflict"


def test_a_name_is_free_again_after_its_key_was_revoked(api: Api) -> None:
    """Names are unique among keys that live."""
    first = api.post("/api/v1/keys", {"name": "ci"})
    assert api.post("/api/v1/keys", {"name": "ci"}, status=409)["code"] == "conflict"
    api.post(f"/api/v1/keys/{first['id']}/revoke", {}, status=200)
    assert api.post("/api/v1/keys", {"name": "ci"})["id"] != first["id"]


def test_rotation_keeps_the_key_and_gives_the_old_secret_a_grace(made: Parts, api: Api) -> None:
    """Until the grace ends both secrets stand in the key, then only the new one opens."""
    key = api.post("/api/v1/keys", {"name": "ci"})
    turned = api.post(f"/api/v1/keys/{key['id']}/rotate", {"grace_seconds": 3600}, status=200)
    assert turned["id"] == key["id"]
    assert turned["secret"] != key["secret"]
    row = made.books.get("key", key["id"])
    assert row is not None
    assert sorted(row["digests"].values()) == [0, made.clock.now + HOUR]


def test_a_second_rotation_waits_for_the_grace_of_the_first(made: Parts, api: Api) -> None:
    """Three secrets of one key never open at once; a rotation without grace ends all old ones."""
    key = api.post("/api/v1/keys", {"name": "ci"})
    path = f"/api/v1/keys/{key['id']}/rotate"
    api.post(path, {"grace_seconds": 60}, status=200)
    assert api.post(path, {"grace_seconds": 60}, status=409)["code"] == "conflict"
    api.post(path, {"grace_seconds": 0}, status=200)
    row = made.books.get("key", key["id"])
    assert row is not None
    assert list(row["digests"].values()) == [0]


def test_an_admin_key_stops_working_with_the_request_after_its_revocation(made: Parts, api: Api) -> None:
    """Revocation is in force at once on the console itself."""
    other = made.admin_key("other")
    listed = api.get("/api/v1/keys?name=other")["data"][0]
    assert Api(made.app, other).get("/api/v1/keys")
    revoked = api.send("DELETE", f"/api/v1/keys/{listed['id']}")
    assert revoked["state"] == "revoked"
    assert Api(made.app, other).get("/api/v1/keys", status=401)["code"] == "key_revoked"


def test_a_revoked_key_keeps_its_reason_and_cannot_come_back(api: Api) -> None:
    """A second revocation changes nothing; patch and rotate are refused."""
    key = api.post("/api/v1/keys", {"name": "ci"})
    path = f"/api/v1/keys/{key['id']}"
    first = api.post(f"{path}/revoke", {"reason": "leaked"}, status=200)
    again = api.post(f"{path}/revoke", {"reason": "other"}, status=200)
    assert (again["revoked_reason"], again["revoked_at"]) == ("leaked", first["revoked_at"])
    assert api.send("PATCH", path, {"state": "active"}, status=409)["code"] == "conflict"
    assert api.post(f"{path}/rotate", {}, status=409)["code"] == "conflict"


def test_patch_changes_what_was_sent_and_nothing_else(api: Api) -> None:
    """Null where a list may be absent lifts a restriction; null elsewhere is refused."""
    key = api.post("/api/v1/keys", {"name": "ci", "models": ["gpt-4o"]})
    path = f"/api/v1/keys/{key['id']}"
    assert api.send("PATCH", path, {"state": "disabled"})["models"] == ["gpt-4o"]
    changed = api.send("PATCH", path, {"models": None, "name": "ci2"})
    assert (changed["models"], changed["name"], changed["state"]) == (None, "ci2", "disabled")
    assert api.send("PATCH", path, {"name": None}, status=422)["code"] == "field_range"
    assert api.send("PATCH", path, {"organization": "other"}, status=422)["code"] == "field_forbidden"


def test_expiry_is_in_force_on_the_console(made: Parts, api: Api) -> None:
    """A key past its last moment opens nothing."""
    secret = api.post("/api/v1/keys", {"name": "short", "role": "admin", "expires_at": "2026-11-22T00:00:00Z"})[
        "secret"
    ]
    assert Api(made.app, secret).get("/api/v1/keys")
    made.clock.now += DAY
    assert Api(made.app, secret).get("/api/v1/keys", status=401)["code"] == "key_expired"


@pytest.mark.parametrize("key_id", ["0", "-1", "abc", "key_%00", "x" * 10_000, "{00000000}"])
def test_ids_of_nothing_are_not_found_with_one_text(api: Api, key_id: str) -> None:
    """Odd ids and ids of nothing are told alike."""
    problem = api.get(f"/api/v1/keys/{key_id}", status=404)
    assert problem["detail"] == "there is no such key"


PEPPER, OTHER = bytes.fromhex("11" * 32), bytes.fromhex("22" * 32)


@pytest.mark.parametrize("peppers", [(PEPPER,), (OTHER, PEPPER)])
def test_the_peppers_of_the_books_are_known(made: Parts, api: Api, peppers: tuple[bytes, ...]) -> None:
    """Where the old pepper is kept beside a new one no key is lost."""
    api.post("/api/v1/keys", {"name": "ci"})
    assert keys_without_pepper(made.books, peppers, made.clock.now) == 0


def test_secrets_of_another_installation_are_refused(made: Parts, api: Api) -> None:
    """C36: all keys would fail, and the way out is named."""
    api.post("/api/v1/keys", {"name": "ci"})
    with pytest.raises(ConfigError, match="all keys would fail") as caught:
        keys_without_pepper(made.books, (OTHER,), made.clock.now)
    assert (caught.value.code, "add its old pepper" in caught.value.hint) == ("CFG-SECRET", True)


def test_keys_whose_pepper_is_gone_are_counted_beside_those_that_work(made: Parts, api: Api) -> None:
    """Revoked and expired keys open nothing anyhow; a key whose pepper nobody noted is taken to work."""
    noted = {"details": {"pepper": "lost"}}
    changes: dict[str, dict[str, Any]] = {
        "gone": noted,
        "revoked": {**noted, "state": "revoked"},
        "expired": {**noted, "expires_at": made.clock.now},
        "unnoted": {"details": None},
    }
    for name, changed in changes.items():
        row = made.books.get("key", api.post("/api/v1/keys", {"name": name})["id"])
        assert row is not None
        made.books.put("key", {**row, **changed})
    assert keys_without_pepper(made.books, (PEPPER,), made.clock.now) == 1


def test_a_rotated_key_needs_the_newest_pepper(made: Parts, api: Api) -> None:
    """The books note the pepper of the secret that is good from now on."""
    key = api.post("/api/v1/keys", {"name": "ci"})
    row = made.books.get("key", key["id"])
    assert row is not None
    made.books.put("key", {**row, "details": {"pepper": "lost"}})
    api.post(f"/api/v1/keys/{key['id']}/rotate", {"grace_seconds": 0}, status=200)
    assert keys_without_pepper(made.books, (PEPPER,), made.clock.now) == 0


# -- what a key is restricted to, and what is found of it --------------------------------------------------------------


def test_a_key_keeps_its_networks_and_paths_in_one_form(api: Api) -> None:
    """A single address is a network, twins are one, a slash at the end means nothing; null lifts."""
    body = {"name": "ci", "networks": ["10.0.0.0/8", "192.0.2.1", "10.0.0.0/8"], "paths": ["/v1/chat/", "/v1/chat"]}
    key = api.post("/api/v1/keys", body)
    assert key["networks"] == ["10.0.0.0/8", "192.0.2.1/32"]
    assert key["paths"] == ["/v1/chat"]
    changed = api.send("PATCH", f"/api/v1/keys/{key['id']}", {"networks": None})
    assert (changed["networks"], changed["paths"]) == (None, ["/v1/chat"])
    changed = api.send("PATCH", f"/api/v1/keys/{key['id']}", {"priorities": ["0200-1000", "0-007"]})
    assert changed["priorities"] == ["200-1000", "0-7"]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"networks": []}, "field_range", "networks"),
        ({"networks": ["10.0.0.1/33"]}, "field_type", "networks.0"),
        ({"networks": ["::/129"]}, "field_type", "networks.0"),
        ({"networks": ["example.org"]}, "field_type", "networks.0"),
        ({"networks": "10.0.0.0/8"}, "field_type", "networks"),
        ({"paths": ["/v1/*"]}, "field_range", "paths.0"),
        ({"paths": []}, "field_range", "paths"),
        ({"priorities": ["100-1"]}, "field_range", "priorities.0"),
        ({"priorities": ["0-1001"]}, "field_range", "priorities.0"),
        ({"priorities": ["-1-5"]}, "field_range", "priorities.0"),
        ({"priorities": ["١-٢"]}, "field_range", "priorities.0"),
        ({"priorities": [7]}, "field_type", "priorities.0"),
        ({"made_by": "key_1"}, "field_forbidden", "made_by"),
    ],
)
def test_a_restriction_that_cannot_be_is_refused_and_the_field_named(
    api: Api, body: Any, code: str, field: str
) -> None:
    """When a key is made, and when it is changed."""
    problem = api.post("/api/v1/keys", {"name": "ci", **body}, 422)
    assert (problem["code"], problem["errors"][0]["field"]) == (code, field)
    key = api.post("/api/v1/keys", {"name": "ci"})
    problem = api.send("PATCH", f"/api/v1/keys/{key['id']}", body, 422)
    assert (problem["code"], problem["errors"][0]["field"]) == (code, field)


@pytest.mark.parametrize("name", ["organization", "team", "project", "user", "product", "stage", "subscription"])
def test_the_payers_of_a_key_stay(api: Api, name: str) -> None:
    """Its records name them."""
    key = api.post("/api/v1/keys", {"name": "ci"})
    problem = api.send("PATCH", f"/api/v1/keys/{key['id']}", {name: "x"}, 422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("field_forbidden", name)


def test_a_deleted_key_is_gone_and_history_names_it(made: Parts, api: Api) -> None:
    """It is as one that never was, but for sums by key; its name is free."""
    key = api.post("/api/v1/keys", {"name": "ci"})
    made.journal.add(opened(), *settled_call("req_1", who=WHO._replace(key=key["id"])))
    made.project()
    assert api.send("DELETE", f"/api/v1/keys/{key['id']}")["state"] == "revoked"
    assert api.get(f"/api/v1/keys/{key['id']}", 404)["detail"] == "there is no such key"
    assert api.send("PATCH", f"/api/v1/keys/{key['id']}", {"name": "x"}, 404)["code"] == "not_found"
    assert "ci" not in [row["name"] for row in api.get("/api/v1/keys")["data"]]
    assert [row["key_name"] for row in api.get("/api/v1/usage?by=key")["data"]] == ["ci"]
    api.post("/api/v1/keys", {"name": "ci"})


def test_a_secret_that_was_found_is_told_to_be_ours_and_whose(made: Parts, api: Api) -> None:
    """Revoked and expired ones too, and the old one of a rotation; nothing of it is repeated."""
    key = api.post("/api/v1/keys", {"name": "ci", "team": "research", "expires_at": "2026-12-01"})
    path, secret = f"/api/v1/keys/{key['id']}", key["secret"]

    def check(text: str) -> dict[str, Any]:
        answer = api.call("POST", "/api/v1/keys/check", json={"secret": text})
        assert answer.status_code == 200
        assert text.strip()[8:] not in answer.text
        found: dict[str, Any] = answer.json()
        return found

    told = check(f" {secret}\n")
    assert (told["found"], told["id"], told["name"], told["team"], told["opens"]) == (
        True, key["id"], "ci", "research", True,
    )  # fmt: skip
    api.post(f"{path}/rotate", {"grace_seconds": 60}, 200)
    assert check(secret)["opens"] is True
    made.clock.now += HOUR
    assert (check(secret)["found"], check(secret)["opens"]) == (True, False)
    api.post(f"{path}/revoke", {}, 200)
    assert (check(secret)["state"], check(secret)["opens"]) == ("revoked", False)
    stranger = keys.make(b"x" * keys.SECRET_BYTES)
    assert check(stranger) == {"found": False, "well_formed": True}
    assert check(stranger[:-1] + "!") == {"found": False, "well_formed": False}
    assert api.post("/api/v1/keys/check", {"secret": "x" * 513}, 422)["code"] == "field_range"


def test_a_name_is_unique_however_many_keys_of_it_were_revoked(api: Api) -> None:
    """A hundred and one that were revoked hide neither the one that is in use nor the next refusal."""
    for _ in range(101):
        api.post(f"/api/v1/keys/{api.post('/api/v1/keys', {'name': 'many'})['id']}/revoke", {}, 200)
    made = api.call("POST", "/api/v1/keys", json={"name": "many"})
    again = api.call("POST", "/api/v1/keys", json={"name": "many"})

    assert (made.status_code, again.status_code, again.json()["code"]) == (201, 409, "conflict")
