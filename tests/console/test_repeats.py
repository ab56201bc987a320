"""Idempotency-Key on the admin API: carried out once, answered the same."""

import asyncio

import httpx2
import pytest

from console_parts import Api, Parts

NAMED = {"idempotency-key": "order-1"}
SECOND = 1_000_000_000


def test_a_request_that_is_sent_again_is_answered_as_the_first_time(api: Api) -> None:
    """Two requests under one name make one key, and both tell its secret."""
    first = api.call("POST", "/api/v1/keys", json={"name": "ci"}, headers=NAMED)
    again = api.call("POST", "/api/v1/keys", json={"name": "ci"}, headers=NAMED)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-faregate-request-id"] != first.headers["x-faregate-request-id"]
    assert len(api.get("/api/v1/keys?name=ci")["data"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "/api/v1/keys", {"name": "other"}), ("POST", "/api/v1/teams", {"name": "ci"})],
)
def test_another_request_under_the_same_name_is_refused(api: Api, method: str, path: str, body: dict[str, str]) -> None:
    """Another body or path under a name that was used is a conflict, and nothing is made."""
    api.call("POST", "/api/v1/keys", json={"name": "ci"}, headers=NAMED)
    answer = api.call(method, path, json=body, headers=NAMED)
    assert (answer.status_code, answer.json()["code"]) == (409, "idem_conflict")
    assert [row["name"] for row in api.get("/api/v1/keys?role=caller")["data"]] == ["ci"]


def test_what_was_refused_may_be_sent_again(api: Api) -> None:
    """A refusal did nothing, so that the same name may be used for the corrected request."""
    assert api.call("POST", "/api/v1/keys", json={"name": ""}, headers=NAMED).status_code == 422
    assert api.call("POST", "/api/v1/keys", json={"name": "ci"}, headers=NAMED).status_code == 201


def test_names_are_each_ones_own(made: Parts) -> None:
    """Another admin's request under the same name is another request."""
    for name in ("one", "two"):
        api = Api(made.app, made.admin_key(name))
        assert api.call("POST", "/api/v1/keys", json={"name": f"ci-{name}"}, headers=NAMED).status_code == 201


def test_an_answer_with_a_secret_is_kept_for_a_short_time_and_others_for_a_day(made: Parts, api: Api) -> None:
    """After a quarter of an hour a key's secret is told no more, and its name no longer remembered; a limit's is."""
    limit = {"select": {"team": "a"}, "unit": "usd", "amount": "5", "window": "month"}
    api.call("POST", "/api/v1/keys", json={"name": "ci"}, headers=NAMED)
    api.call("POST", "/api/v1/limits", json=limit, headers={"idempotency-key": "order-2"})
    made.clock.now += 901 * SECOND
    again = api.call("POST", "/api/v1/keys", json={"name": "ci"}, headers=NAMED)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    replayed = api.call("POST", "/api/v1/limits", json=limit, headers={"idempotency-key": "order-2"})
    assert replayed.headers["idempotent-replayed"] == "true"
    made.clock.now += 24 * 3600 * SECOND
    later = api.call("POST", "/api/v1/limits", json=limit, headers={"idempotency-key": "order-2"})
    assert "idempotent-replayed" not in later.headers


@pytest.mark.parametrize("name", ["", "x" * 256, "a\tb", "é"])
def test_a_name_that_is_none_is_refused(api: Api, name: str) -> None:
    """The name is 1 to 255 printable characters."""
    answer = api.call("POST", "/api/v1/keys", json={"name": "ci"}, headers={"idempotency-key": name.encode()})
    assert (answer.status_code, answer.json()["code"]) == (400, "idem_invalid")


def test_of_two_at_the_same_time_one_is_carried_out(made: Parts) -> None:
    """While the first runs, the second is told so, and when to ask again."""
    headers = {"authorization": f"Bearer {made.admin_key()}", **NAMED}

    async def both() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(made.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://console.test") as client:
            asked = [client.post("/api/v1/keys", json={"name": "ci"}, headers=headers) for _ in range(2)]
            return await asyncio.gather(*asked)

    first, second = sorted(asyncio.run(both()), key=lambda answer: answer.status_code)
    assert (first.status_code, second.status_code) == (201, 409)
    assert second.json()["code"] == "idem_in_progress"
    assert second.headers["retry-after"] == "1"
