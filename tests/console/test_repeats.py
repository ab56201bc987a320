"""Idempotency-Key on the admin API: carried out once, answered the same."""

import asyncio

import httpx2
import pytest

from console_parts import Api, Parts
from faregate.console.doors import ACTOR, REQUEST_ID
from faregate.console.keys import NewKey, create
from faregate.console.repeats import ANSWER_BYTES_MAX, RepeatDoor, Repeats
from faregate.console.rights import PRINCIPAL

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


def test_an_answer_that_is_too_large_to_keep_is_not_given_again_and_nothing_is_done_twice(api: Api) -> None:
    """Whoever asks again is told that it was carried out, and under which id."""
    items = {"items": [{"name": f"k{number}"} for number in range(150)]}
    first = api.call("POST", "/api/v1/keys/bulk", json=items, headers=NAMED)
    again = api.call("POST", "/api/v1/keys/bulk", json=items, headers=NAMED)

    assert len(first.content) > ANSWER_BYTES_MAX
    assert (again.status_code, again.json()["code"]) == (409, "idem_completed")
    assert first.headers["x-faregate-request-id"] in again.json()["detail"]
    assert len(api.get("/api/v1/keys?role=caller&limit=1000")["data"]) == 150


def test_an_answer_is_not_told_to_who_may_less_by_now(api: Api, made: Parts) -> None:
    """A manager's request that made a key is sent again after he became a finance viewer: no secret comes back."""
    row, secret = create(made.console, NewKey(name="manager", organization="default", team="research", role="manager"))
    manager = Api(made.app, secret)
    first = manager.call("POST", "/api/v1/keys", json={"name": "ci"}, headers=NAMED)
    api.send("PATCH", f"/api/v1/keys/{row['id']}", {"role": "finance"})
    again = manager.call("POST", "/api/v1/keys", json={"name": "ci"}, headers=NAMED)

    assert first.status_code == 201
    assert (again.status_code, again.json()["code"]) == (409, "idem_completed")
    assert first.json()["secret"] not in again.text


def test_the_same_change_to_another_version_is_another_request(api: Api) -> None:
    """`If-Match` belongs to what was asked."""
    id = api.post("/api/v1/keys", {"name": "ci"})["id"]
    etag = api.call("GET", f"/api/v1/keys/{id}").headers["etag"]
    first = api.call("PATCH", f"/api/v1/keys/{id}", json={"name": "cd"}, headers={**NAMED, "if-match": etag})
    again = api.call("PATCH", f"/api/v1/keys/{id}", json={"name": "cd"}, headers={**NAMED, "if-match": '"other"'})

    assert (first.status_code, again.status_code, again.json()["code"]) == (200, 409, "idem_conflict")


# -- what is remembered, and for whom ----------------------------------------------------------------------------------


def ended(repeats: Repeats, actor: str, *names: str, size: int = 0) -> None:
    """Requests that began and ended, with answers of so many bytes."""
    for name in names:
        one = repeats.begin(actor, name, b"", "req_1", 0)
        assert one is not None
        repeats.finish(one, [{"type": "http.response.body", "body": b"x" * size}], 0)


def known(repeats: Repeats, actor: str) -> str:
    return "".join(name for name in "abcdefgh" if repeats.find(actor, name, 1) is not None)


def told(repeats: Repeats, actor: str) -> str:
    """The names of the requests that are answered again."""
    found = {name: repeats.find(actor, name, 1) for name in "abcdefgh"}
    return "".join(name for name, one in found.items() if one is not None and one.answer is not None)


def test_who_asks_much_pushes_only_his_own_out() -> None:
    """Beyond an actor's bound his oldest is forgotten, and nothing of anybody else."""
    repeats = Repeats(actor_entries_max=3)
    ended(repeats, "other", "a")
    ended(repeats, "busy", *"abcde")

    assert (known(repeats, "busy"), known(repeats, "other"), repeats.entries) == ("cde", "a", 4)


def test_beyond_the_bound_of_all_whoever_has_most_gives_way() -> None:
    """One that asked once is remembered however many ask after him."""
    repeats = Repeats(entries_max=5)
    ended(repeats, "other", "a")
    ended(repeats, "busy", *"abcd")
    ended(repeats, "late", "a", "b")

    assert [known(repeats, actor) for actor in ("other", "busy", "late")] == ["a", "cd", "ab"]
    assert repeats.entries == 5


@pytest.mark.parametrize(("actor_entries_max", "entries_max"), [(2, 9), (9, 2)])
def test_what_runs_is_never_forgotten(actor_entries_max: int, entries_max: int) -> None:
    """Where all run there is no room for one more; when one of them has ended, there is."""
    repeats = Repeats(actor_entries_max=actor_entries_max, entries_max=entries_max)
    first = repeats.begin("one", "a", b"", "req_1", 0)
    repeats.begin("one", "b", b"", "req_2", 0)
    refused = repeats.begin("one", "c", b"", "req_3", 0)
    assert first is not None
    repeats.finish(first, [], 0)
    ended(repeats, "one", "c")

    assert refused is None
    assert known(repeats, "one") == "bc"


@pytest.mark.parametrize("actor_bytes_max", [250, 10_000])
def test_beyond_the_bound_of_bytes_answers_go_and_requests_stay_known(actor_bytes_max: int) -> None:
    """Those of whoever keeps most, oldest first, so that nothing is carried out twice."""
    repeats = Repeats(actor_bytes_max=actor_bytes_max, bytes_max=350)
    ended(repeats, "other", "a", size=100)
    ended(repeats, "busy", *"abcd", size=100)

    assert (told(repeats, "other"), told(repeats, "busy")) == ("a", "cd")
    assert (known(repeats, "busy"), repeats.bytes_kept) == ("abcd", 300)


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    """Neither its bytes nor an actor without requests."""
    repeats = Repeats()
    ended(repeats, "one", "a", size=100)

    assert repeats.find("one", "a", 25 * 3600 * SECOND) is None
    assert (repeats.entries, repeats.bytes_kept, repeats.actors) == (0, 0, {})


def test_a_name_for_which_there_is_no_room_is_refused_before_anything_is_done(made: Parts) -> None:
    """503 and when to come again: carried out without its name, a retry would do it twice."""
    repeats = Repeats(actor_entries_max=1)
    repeats.begin("one", "a", b"", "req_1", 0)

    async def inside(scope: object, receive: object, send: object) -> None:
        raise AssertionError("it was carried out")

    async def named(scope: dict[str, object], receive: object, send: object) -> None:
        await door({**scope, ACTOR: "one", PRINCIPAL: None, REQUEST_ID: "req_2"}, receive, send)  # type: ignore[arg-type]

    door = RepeatDoor(inside, made.console, repeats)
    answer = Api(named).call("POST", "/api/v1/keys", json={}, headers=NAMED)

    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "unavailable", "1")
