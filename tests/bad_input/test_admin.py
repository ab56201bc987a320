"""Every bad input of the admin API: told with its code, by its field, and without repeating what was sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from bad_input.admin_rows import CANARY, ROWS, Row
from console_parts import NOON, WHO, Api, Parts, opened, parts, settled_call
from faregate.config.load import load_text
from faregate.console.keys import NewKey, create, delete
from faregate.ports import ContentRecord, KeptText
from faregate.storage.contents import ContentStore

CONFIG = b"""\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "sk-of-the-file-0123456789"}
"""


class Site(NamedTuple):
    """A console with one of everything that rows name, in every state that they name."""

    made: Parts
    senders: dict[str, Api]
    ids: dict[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One console for all rows: none of those that are refused may change it."""
    folder: Path = tmp_path_factory.mktemp("admin")
    config = load_text(CONFIG, "faregate.yaml", {}, folder).config
    with parts(folder, config=config) as made:
        senders = {"admin": Api(made.app, made.admin_key()), "stranger": Api(made.app)}
        ids = _keys(made, senders) | _limits(made, senders["admin"]) | _places(senders["admin"])
        yield Site(made, senders, ids)


def _keys(made: Parts, senders: dict[str, Api]) -> dict[str, str]:
    """Keys in every state, whoever sends, a session and a page of keys."""
    manager = NewKey(
        name="manager", organization="default", team="research", role="manager",
        models=["gpt-4o"], paths=["/v1/chat"], operations=["chat.completions"],
    )  # fmt: skip
    auditor = NewKey(name="auditor", organization="default", role="auditor")
    near = NewKey(name="near", role="auditor", networks=["10.0.0.0/8"])
    for wanted in (manager, auditor, near, NewKey(name="caller")):
        senders[wanted.name] = Api(made.app, create(made.console, wanted)[1])
    taken, deleted = (create(made.console, NewKey(name=name))[0]["id"] for name in ("taken", "deleted"))
    delete(made.console, deleted)
    foreign = create(made.console, NewKey(name="foreign", organization="other"))[0]["id"]
    last = made.books.listing("key", role="admin")[0]["id"]
    browser = create(made.console, NewKey(name="browser", role="auditor"))[1]
    signed_in = senders["stranger"].call("POST", "/login", data={"key": browser})
    cookie = signed_in.headers["set-cookie"].partition(";")[0]
    cursor = senders["admin"].get("/api/v1/keys?limit=1")["next_cursor"]
    ids = {"taken": taken, "deleted": deleted, "foreign": foreign, "last": last}
    return ids | {"cookie": cookie, "cursor": cursor, "shorter": cursor[:-1]}


def _limits(made: Parts, admin: Api) -> dict[str, str]:
    """Limits of ten dollars and of tokens, and two that calls count towards: one that ended, one that still runs."""
    ids = {}
    for name, select, unit, amount in (
        ("dollars", {"project": "dollars"}, "usd", "10"),
        ("paid", {"project": "paid"}, "usd", "10"),
        ("tokens", {"project": "tokens"}, "tokens", 10),
        ("spent", {"project": "search"}, "usd", "1"),
        ("held", {"project": "elsewhere"}, "requests", 10),
    ):
        wanted = {"select": select, "unit": unit, "amount": amount, "window": "month"}
        ids[name] = admin.post("/api/v1/limits", wanted)["id"]
    ended, running = f"req_{1:026d}", f"req_{2:026d}"
    elsewhere = WHO._replace(project="elsewhere")
    made.journal.add(opened(), *settled_call(ended), settled_call(running, who=elsewhere)[0])
    made.project()
    said = KeptText("the password", 12, 12)
    kept = ContentRecord(ended, NOON, "full", False, 200, "", said, said, ())
    assert isinstance(made.console.contents, ContentStore)
    made.console.contents.take("1", [kept])
    assert admin.get(f"/api/v1/limits/{ids['held']}")["held"] == 1
    assert [row["id"] for row in admin.get("/api/v1/requests?text=password")["data"]] == [ended]
    return ids


def _places(admin: Api) -> dict[str, str]:
    """A provider with a secret, and a price that is to come."""
    provider = {"name": "mine", "kind": "openai", "base_url": "https://8.8.4.4/v1", "api_key": "sk-0123456789abcdef"}
    price = {"provider": "openai", "model": "gpt-4o", "unit": "output_tokens", "per": 1_000_000, "price": "8"}
    admin.send("PUT", "/api/v1/prices", {**price, "effective_from": "2027-01-01T00:00:00Z"})
    return {"provider": admin.post("/api/v1/providers", provider)["id"]}


def _sent(site: Site, row: Row, body: object) -> httpx2.Response:
    """The answer to a row with this body."""
    path, headers = row.path, dict(row.headers)
    for name, id in site.ids.items():
        path = path.replace(f"{{{name}}}", id)
        headers = {header: value.replace(f"{{{name}}}", id) for header, value in headers.items()}
    raw = {"content": body} if isinstance(body, bytes) else {} if body is None else {"json": body}
    if isinstance(body, bytes):
        headers.setdefault("content-type", "application/json")
    return site.senders[row.sender].call(row.method, path, headers=headers, **raw)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_it_is_told_as_the_catalogue_says(site: Site, row: Row) -> None:
    """Status, code, field and words; nothing is made or changed, and no inside is turned out."""
    if row.first is not None:
        assert _sent(site, row, row.first).status_code == 201
    before = site.made.books.newest_change()
    answer = _sent(site, row, row.body)
    assert answer.status_code == row.status, answer.text
    told = answer.json()
    if row.status >= 400:
        assert told["code"] == row.code
        assert row.has in told["detail"]
        assert row.field in ("", told.get("errors", [{}])[0].get("field"))
        assert CANARY not in answer.text
        assert "Traceback" not in answer.text
    else:
        assert {name: told[name] for name in row.shows} == row.shows
    if row.status >= 400 or row.first is not None:
        assert site.made.books.newest_change() == before


def test_a_manager_may_do_what_he_may(site: Site) -> None:
    """What was refused above was refused for what it asked for."""
    body = {"name": "fine", "organization": "default", "team": "research", "models": ["gpt-4o"]}
    made = site.senders["manager"].post("/api/v1/keys", body)
    assert (made["paths"], made["operations"]) == (["/v1/chat"], ["chat.completions"])


def test_a_change_with_nothing_wrong_in_it_is_made(site: Site) -> None:
    """The provider and the session that rows hold something against are there and in order."""
    one = f"/api/v1/providers/{site.ids['provider']}"
    again = {"base_url": "https://1.1.1.1/v1", "api_key": "sk-0123456789abcdef"}
    assert site.senders["admin"].send("PATCH", one, again)["base_url"] == "https://1.1.1.1/v1"
    assert site.senders["stranger"].get("/api/v1/keys", headers={"cookie": site.ids["cookie"]})["data"]
