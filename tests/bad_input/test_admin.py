"""Every bad input of the admin API's keys: refused with its code, by its field, and without repeating what was sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bad_input.admin_rows import CANARY, ROWS, Row
from console_parts import Api, Parts, parts
from faregate.console.keys import NewKey, create, delete


class Site(NamedTuple):
    """A console with a key in every state that rows name."""

    made: Parts
    senders: dict[str, Api]
    ids: dict[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One console for all rows: none of those that are refused may change it."""
    folder: Path = tmp_path_factory.mktemp("admin")
    with parts(folder) as made:
        manager = NewKey(
            name="manager", organization="default", team="research", role="manager",
            models=["gpt-4o"], paths=["/v1/chat"], operations=["chat.completions"],
        )  # fmt: skip
        auditor = NewKey(name="auditor", organization="default", role="auditor")
        senders = {"admin": Api(made.app, made.admin_key()), "stranger": Api(made.app)}
        for wanted in (manager, auditor, NewKey(name="caller")):
            senders[wanted.name] = Api(made.app, create(made.console, wanted)[1])
        taken, deleted = (create(made.console, NewKey(name=name))[0]["id"] for name in ("taken", "deleted"))
        delete(made.console, deleted)
        foreign = create(made.console, NewKey(name="foreign", organization="other"))[0]["id"]
        last = made.books.listing("key", role="admin")[0]["id"]
        yield Site(made, senders, {"taken": taken, "deleted": deleted, "foreign": foreign, "last": last})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_it_is_told_as_the_catalogue_says(site: Site, row: Row) -> None:
    """Status, code, field and words; nothing is made or changed, and no inside is turned out."""
    path = row.path
    for name, id in site.ids.items():
        path = path.replace(f"{{{name}}}", id)
    before = site.made.books.newest_change()
    answer = site.senders[row.sender].call(row.method, path, **({} if row.body is None else {"json": row.body}))
    assert answer.status_code == row.status, answer.text
    told = answer.json()
    if row.status < 300:
        assert isinstance(row.body, dict)
        assert told["name"] == row.body["name"]
        return
    assert told["code"] == row.code
    assert row.has in told["detail"]
    assert row.field in ("", told.get("errors", [{}])[0].get("field"))
    assert CANARY not in answer.text
    assert "Traceback" not in answer.text
    assert site.made.books.newest_change() == before


def test_a_manager_may_do_what_he_may(site: Site) -> None:
    """What was refused above was refused for what it asked for."""
    body = {"name": "fine", "organization": "default", "team": "research", "models": ["gpt-4o"]}
    made = site.senders["manager"].post("/api/v1/keys", body)
    assert (made["paths"], made["operations"]) == (["/v1/chat"], ["chat.completions"])
