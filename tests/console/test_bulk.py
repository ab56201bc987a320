"""Many made together: all of them or none, each mistake told in its place, one line in the trail for each."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import HeldClock
from console_parts import Api, Parts, parts
from faregate.console.bulk import NotStaged, StagedBooks
from faregate.console.keys import NewKey, create
from faregate.ports import Row
from faregate.storage.memory.books import MemoryBooks


@pytest.fixture
def made(tmp_path: Path):  # type: ignore[no-untyped-def]
    with parts(tmp_path) as found:
        yield found


@pytest.fixture
def api(made: Parts) -> Api:
    return Api(made.app, made.admin_key())


def test_keys_made_together_have_a_secret_each_and_share_the_payers_that_came_with_them(made: Parts, api: Api) -> None:
    """Two keys of a new team make the team once, and each secret opens its own key."""
    items = [{"name": f"k{number}", "team": "red", "project": "search"} for number in range(3)]

    told = api.post("/api/v1/keys/bulk", {"items": items})

    assert [each["name"] for each in told["data"]] == ["k0", "k1", "k2"]
    assert [made.console.ring.holder(each["secret"])["id"] for each in told["data"]] == [  # type: ignore[index]
        each["id"] for each in told["data"]
    ]
    assert [each["name"] for each in api.get("/api/v1/teams")["data"]] == ["red"]
    assert len(api.get("/api/v1/projects")["data"]) == 1


def test_one_bad_item_keeps_all_of_them_from_being_made(api: Api) -> None:
    """Each mistake is told under the place of its item, whoever finds it: the model, the books, or an item before."""
    items = [{"name": "a"}, {"name": "a"}, {"name": "b", "expires_at": "1999-01-01"}, {"name": "c"}]

    told = api.post("/api/v1/keys/bulk", {"items": items}, 409)

    assert [(each["field"], each["code"]) for each in told["errors"]] == [
        ("items.1.name", "conflict"),
        ("items.2.expires_at", "field_range"),
    ]
    assert [each["name"] for each in api.get("/api/v1/keys")["data"]] == ["root"]
    assert api.get("/api/v1/organizations")["data"] == []


def test_what_the_model_finds_is_told_in_the_same_places(api: Api) -> None:
    """A misspelled field, one that is ours to set, and a name that cannot be."""
    items = [{"name": "a", "teem": "x"}, {"name": "b", "id": "key_1"}, {"name": " "}]

    told = api.post("/api/v1/keys/bulk", {"items": items}, 422)

    assert [(each["field"], each["code"]) for each in told["errors"]] == [
        ("items.0.teem", "field_unknown"),
        ("items.1.id", "field_forbidden"),
        ("items.2.name", "field_range"),
    ]
    assert "did you mean team?" in told["errors"][0]["detail"]


@pytest.mark.parametrize("count", [0, 1_001])
def test_a_request_makes_one_to_a_thousand(api: Api, count: int) -> None:
    """Neither none nor 1,001 (BAD-INPUT A82)."""
    told = api.post("/api/v1/keys/bulk", {"items": [{"name": f"k{number}"} for number in range(count)]}, 422)

    assert (told["code"], told["errors"][0]["field"]) == ("field_range", "items")


def test_a_thousand_keys_are_made_with_a_line_in_the_trail_for_each(made: Parts, api: Api) -> None:
    """And with one for the organization that came with them."""
    told = api.post("/api/v1/keys/bulk", {"items": [{"name": f"k{number}"} for number in range(1_000)]})

    assert len({each["secret"] for each in told["data"]}) == 1_000
    lines = api.pages("/api/v1/audit?limit=1000")
    assert len([line for line in lines if line["kind"] == "key" and line["after"]["name"].startswith("k")]) == 1_000
    assert made.console.audit.fault() == ""


def test_limits_set_together_change_in_place_those_that_are_in_force(api: Api) -> None:
    """The same select, unit and window is the same limit, also within one request."""
    before = api.post("/api/v1/limits", {"select": {"team": "red"}, "unit": "usd", "amount": "5", "window": "day"})
    again = {"select": {"team": "red"}, "unit": "usd", "window": "day"}
    other = {"unit": "requests", "amount": 9, "window": "minute", "reason": "many"}

    told = api.post("/api/v1/limits/bulk", {"items": [{**again, "amount": "7"}, other, {**again, "amount": "8"}]})

    assert [each["id"] for each in told["data"]][::2] == [before["id"]] * 2
    assert api.get(f"/api/v1/limits/{before['id']}")["amount"] == "8"
    entries = api.get(f"/api/v1/limits/{before['id']}/entries")["data"]
    assert [each["amount"] for each in entries] == ["8", "7", "5"]


def test_payers_are_made_together_and_name_each_other(api: Api) -> None:
    """A thousand projects of one team make that team once."""
    api.post("/api/v1/teams/bulk", {"items": [{"name": "red"}, {"name": "blue", "contact": "blue@example.com"}]})
    api.post("/api/v1/projects/bulk", {"items": [{"name": "a", "team": "red"}, {"name": "b", "team": "green"}]})
    api.post("/api/v1/users/bulk", {"items": [{"name": "u", "models": ["gpt-4o"]}]})
    told = api.post("/api/v1/products/bulk", {"items": [{"name": "p"}, {"name": "p"}]}, 409)

    assert [each["field"] for each in told["errors"]] == ["items.1.name"]
    assert [each["name"] for each in api.get("/api/v1/teams")["data"]] == ["red", "blue", "green"]
    assert api.get("/api/v1/products")["data"] == []


def test_whoever_may_make_keys_of_a_team_makes_none_of_another_one_among_many(made: Parts) -> None:
    """Rights hold for each item, and one that goes too far keeps all back."""
    secret = create(made.console, NewKey(name="lead", role="manager", organization="default", team="red"))[1]
    lead = Api(made.app, secret)

    told = lead.post("/api/v1/keys/bulk", {"items": [{"name": "mine"}, {"name": "theirs", "team": "blue"}]}, 403)

    assert [(each["code"], each["field"].split(".")[1]) for each in told["errors"]] == [("role_forbidden", "1")]
    assert [each["name"] for each in lead.get("/api/v1/keys")["data"]] == ["lead"]
    assert len(lead.post("/api/v1/keys/bulk", {"items": [{"name": "x"}, {"name": "y"}]})["data"]) == 2


# -- books on which nothing is written yet -----------------------------------------------------------------------------

_IDS, _NAMES = ["a", "b", "c", "d"], ["x", "y"]
WRITES = st.lists(st.tuples(st.sampled_from(_IDS), st.sampled_from([*_NAMES, None]), st.sampled_from(_NAMES)))


def written(books: MemoryBooks | StagedBooks, writes: list[tuple[str, str | None, str]]) -> None:
    """Rows put, or removed where they have no name; the last word is their organization."""
    for id, name, organization in writes:
        if name is None:
            books.remove("key", id)
        else:
            books.put("key", {"id": id, "name": name, "organization": organization})


def _told(row: Row | None) -> tuple[str, str, str]:
    return (row["id"], row["name"], row["organization"]) if row is not None else ("", "", "")


def listed(books: MemoryBooks | StagedBooks) -> list[list[tuple[str, str, str]]]:
    """What is there by each way to ask."""
    filters = [{}, {"id": ["a", "c"]}, {"id": "b"}, {"name": "x"}, {"name": ["x", "y"]}, {"name": "z"},
               {"name": "y", "organization": "x"}, {"organization": "y"}]  # fmt: skip
    return [
        [_told(row) for row in books.listing("key", after=after, limit=limit, **each)]  # type: ignore[arg-type]
        for each in filters for after in ("", "a") for limit in (1, 9)
    ]  # fmt: skip


@given(before=WRITES, staged=WRITES, regretted=WRITES)
def test_what_is_staged_is_read_as_if_it_were_written(
    before: list[tuple[str, str | None, str]],
    staged: list[tuple[str, str | None, str]],
    regretted: list[tuple[str, str | None, str]],
) -> None:
    """However often a row was put, renamed, removed and taken back; the books below are as they were."""
    below, whole = MemoryBooks(HeldClock()), MemoryBooks(HeldClock())
    written(below, before)
    untouched = listed(below)
    books = StagedBooks(below)
    written(whole, [*before, *staged])
    written(books, staged)
    mark = books.mark()
    written(books, regretted)
    books.back_to(mark)

    assert listed(books) == listed(whole)
    assert [_told(books.get("key", id)) for id in _IDS] == [_told(whole.get("key", id)) for id in _IDS]
    assert listed(below) == untouched


class Compared(str):
    """A value that counts how often it is compared."""

    times = 0

    def __eq__(self, other: object) -> bool:
        self.times += 1
        return str(self) == other

    __hash__ = str.__hash__


def test_of_many_that_are_staged_only_those_of_the_name_are_looked_at() -> None:
    """A thousand items that each look for their twin are a thousand looks, not half a million."""
    books = StagedBooks(MemoryBooks(HeldClock()))
    written(books, [(f"id{number:04}", f"n{number}", "x") for number in range(1_000)])
    wanted = Compared("x")

    assert [row["id"] for row in books.listing("key", name="n7", organization=wanted, limit=1)] == ["id0007"]
    assert wanted.times == 1


@pytest.mark.parametrize("asked", ["newest", "tally", "columns", "balances", "usage", "changes"])
def test_what_does_not_know_of_what_is_staged_is_not_asked(asked: str) -> None:
    """An answer without it would let two items make the same thing."""
    with pytest.raises(NotStaged, match=asked):
        getattr(StagedBooks(MemoryBooks(HeldClock())), asked)
