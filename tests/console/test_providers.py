"""Providers, deployments and names of models by the admin API: what is refused, and how secrets are kept."""

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console_parts import Api, Parts, parts
from faregate.config.load import load_text
from faregate.config.secret_box import MARK, Place, SecretBox, provider_place
from faregate.console.providers import ProviderChange, change
from faregate.console.reading import made_places
from faregate.console.sealing import channel_opened, seal_anew
from faregate.console.writing import put
from faregate.control import Ask, Load, decode_ask, encode
from faregate.errors import Conflict, Failed
from faregate.ports import Row

SECRET = "sk-provider-CANARY-0123456789abcdef"
URL = "https://8.8.4.4/v1"
PROVIDER = {"name": "mine", "kind": "openai", "base_url": URL, "api_key": SECRET}

FILE = b"""\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: sk-of-the-file-0123456789}
  - name: azure
    kind: azure_openai
    base_url: https://example.openai.azure.com
    api_version: "2024-10-21"
    credential: {kind: entra, managed_identity: true}
deployments:
  - {name: weu, provider: azure, deployment: my-gpt4o, model: gpt-4o}
models:
  - {name: best, to: [weu]}
"""


@pytest.fixture
def placed(tmp_path: Path) -> Iterator[tuple[Parts, Api]]:
    """A console over a configuration with a provider, a deployment and a name, and its API."""
    config = load_text(FILE, "faregate.yaml", {}, tmp_path).config
    with parts(tmp_path, config=config) as made:
        yield made, Api(made.app, made.admin_key())


@pytest.fixture
def admin(placed: tuple[Parts, Api]) -> Api:
    return placed[1]


@pytest.fixture
def console(placed: tuple[Parts, Api]) -> Parts:
    return placed[0]


def made(api: Api, **fields: Any) -> dict[str, Any]:
    row: dict[str, Any] = api.post("/api/v1/providers", {**PROVIDER, **fields})
    return row


def opened(box: SecretBox, row: Row) -> str:
    return box.open(row["secret"], provider_place(row["id"], row["base_url"]))


def refused(
    api: Api, fields: dict[str, Any], status: int, path: str = "/api/v1/providers", **sent: Any
) -> tuple[str, str]:
    problem = api.post(path, {**PROVIDER, **fields, **sent}, status=status)
    return problem["code"], problem["errors"][0]["field"]


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://8.8.4.4/v1",  # A51
        "http://models.example/v1",
        "https://169.254.169.254/latest",  # A52
        "https://[fe80::1]/v1",
        "https://[fd00:ec2::254]/v1",
        "https://168.63.129.16/v1",
        "https://100.100.100.200/v1",
        "https://2852039166/v1",
        "https://0xa9fea9fe/v1",
        "https://0251.0376.0251.0376/v1",
        "https://[::ffff:169.254.169.254]/v1",
        "https://169.254.169.254./v1",
        "https://models.example/v1?a=b",  # A53
        "https://models.example/v1?",
        "https://models.example/v1#a",
        "https://user@models.example/v1",
        "https://user:word@models.example/v1",
        "https://models.example/../v1",
        "https://models.example/%2e%2e/v1",
        "https://models.example//v1",
        "https://models.example:0/v1",
        "ftp://models.example/v1",
        "file:///etc/passwd",  # A56
        "${OPENAI_BASE_URL}",
        "https://${HOST}/v1",
        "https://models.ex\u00e4mple/v1",
        "https://models.example\\@10.0.0.1/v1",
        "not an address",
        "https://",
        "https://127.0.0.1/v1",
        "https://2130706433/v1",
        "https://localhost/v1",
        "https://10.0.0.1/v1",
        "https://192.168.1.1./v1",
        "https://[::ffff:10.0.0.1]/v1",
        "https://[::1]/v1",
        "https://0.0.0.0/v1",
        "https://router.internal/v1",
        "https://router/v1",
    ],
)
def test_an_address_where_no_provider_may_be_is_refused(api: Api, url: str) -> None:
    """A51 to A53, A56 and G24: in every spelling that a resolver takes."""
    assert refused(api, {"base_url": url}, 400) == ("url_forbidden", "base_url")


@pytest.mark.parametrize(
    ("url", "allowed", "reach"),
    [
        ("http://127.0.0.1:8000/v1", {"allow_http": True}, "loopback"),
        ("http://localhost:8000/v1", {"allow_http": True}, "loopback"),
        ("https://10.0.0.1/v1", {"allow_private": True}, "private"),
        ("http://10.0.0.1/v1", {"allow_private": True, "allow_http": True}, "private"),
        ("https://8.8.4.4/v1", {}, "public"),
        ("https://no-such-name.example/v1", {}, "public"),
    ],
)
def test_an_address_inside_is_taken_where_that_is_allowed(
    console: Parts, admin: Api, url: str, allowed: dict[str, bool], reach: str
) -> None:
    """What was allowed is how far connections may lead later; a name that nobody knows yet is judged then."""
    row = made(admin, base_url=url, **allowed)

    stored = console.books.get("provider", row["id"]) or {}
    assert stored["settings"]["reach"] == reach
    assert (row["base_url"], row["state"], row["source"]) == (url, "active", "api")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://10.0.0.1/v1", {"allow_http": True}),
        ("http://8.8.4.4/v1", {"allow_http": True, "allow_private": True}),
        ("https://169.254.169.254/v1", {"allow_private": True, "allow_http": True}),
        ("http://127.0.0.1/v1", {"allow_private": True}),
    ],
)
def test_what_is_allowed_goes_no_further_than_it_says(api: Api, url: str, allowed: dict[str, bool]) -> None:
    """Metadata addresses are nobody's, and plain http leaves no private network."""
    assert refused(api, {"base_url": url, **allowed}, 400) == ("url_forbidden", "base_url")


# -- secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "status", "code"),
    [
        ("", 422, "field_range"),
        ("sk-with\nnewline", 422, "field_range"),
        ("sk-with space", 422, "field_range"),
        ("sk-…abcd", 422, "field_range"),
        ("sk-...abcd", 422, "field_range"),
        ("sk-****abcd", 422, "field_range"),
        ("changeme", 422, "field_range"),
        (None, 422, "field_range"),
        ("x" * 9_000, 422, "field_range"),
        ("${OPENAI_API_KEY}", 400, "url_forbidden"),
        ("file:/etc/shadow", 400, "url_forbidden"),
        ("env:OPENAI_API_KEY", 400, "url_forbidden"),
    ],
)
def test_what_is_no_secret_is_refused(api: Api, secret: str | None, status: int, code: str) -> None:
    """A55 and A56: nothing, several lines, a mask that was sent back, and references, which only a file may have."""
    assert refused(api, {"api_key": secret}, status) == (code, "api_key")


def test_a_secret_is_sealed_in_the_books_and_shown_as_a_mask(console: Parts, admin: Api) -> None:
    """It is in no answer, no file of the books and no line of the trail."""
    row = made(admin)
    shown = [row, admin.get(f"/api/v1/providers/{row['id']}"), admin.get("/api/v1/providers")]

    assert row["api_key"] == "sk-…cdef"
    assert SECRET not in str(shown)
    assert (console.books.get("provider", row["id"]) or {})["secret"].startswith(MARK)
    assert console.console.box is not None
    assert opened(console.console.box, console.books.get("provider", row["id"]) or {}) == SECRET
    for file in (console.folder / "data").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_a_sealed_secret_opens_nowhere_else(console: Parts, admin: Api) -> None:
    """G24, A54: not for another host, provider or installation, and not altered."""
    row = console.books.get("provider", made(admin)["id"]) or {}
    box = console.console.box
    assert box is not None
    elsewhere = [
        {**row, "base_url": "https://evil.example/v1"},
        {**row, "base_url": "http://8.8.4.4/v1"},
        {**row, "base_url": "https://8.8.4.4:8443/v1"},
        {**row, "id": "prv_another"},
        {**row, "secret": row["secret"][:-6] + ("A" if row["secret"][-6] != "A" else "B") + row["secret"][-5:]},
    ]
    for each in elsewhere:
        with pytest.raises(Failed, match="does not open"):
            opened(box, each)
    with pytest.raises(Failed, match="does not open"):
        opened(SecretBox("another", [("e1", b"\x11" * 32)], os.urandom), row)
    with pytest.raises(Failed, match="which is not here"):
        opened(SecretBox("installation", [("e2", b"\x11" * 32)], os.urandom), row)


def test_another_address_wants_the_secret_again(console: Parts, admin: Api) -> None:
    """A54; with it the provider moves, and what was sealed before is gone."""
    row = made(admin)
    path = f"/api/v1/providers/{row['id']}"
    problem = admin.send("PATCH", path, {"base_url": "https://8.8.8.8/v1"}, status=422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("invariant", "base_url")
    assert "send api_key again" in problem["detail"]
    before = console.books.get("provider", row["id"]) or {}

    moved = admin.send("PATCH", path, {"base_url": "https://8.8.8.8/v1", "api_key": "sk-the-new-one-0123456789"})

    after = console.books.get("provider", row["id"]) or {}
    assert (moved["base_url"], moved["api_key"]) == ("https://8.8.8.8/v1", "sk-…6789")
    assert after["secret"] != before["secret"]


def test_a_provider_that_changed_meanwhile_is_not_changed(console: Parts, admin: Api) -> None:
    """A first secret came between the look and the change: it stays at the address that it was sent for."""
    without = {name: value for name, value in PROVIDER.items() if name != "api_key"}
    row = admin.post("/api/v1/providers", without)

    def meanwhile() -> None:
        stored = console.books.get("provider", row["id"]) or {}
        put(console.console, "provider", {**stored, "secret": "sealed", "masked": "sk-\u20267"})

    async def change_it() -> None:
        moved = ProviderChange.model_validate({"base_url": "https://8.8.8.8/v1"})
        await change(console.console, row["id"], moved, meanwhile)

    with pytest.raises(Conflict, match="at the same time"):
        asyncio.run(change_it())
    after = console.books.get("provider", row["id"]) or {}
    assert (after["base_url"], after["secret"]) == (URL, "sealed")


def test_what_is_not_sent_stays(console: Parts, admin: Api) -> None:
    """Settings are changed one by one, and the secret stays as it is stored."""
    row = made(admin, connections_max=7, client_gone="drain")
    path = f"/api/v1/providers/{row['name']}"
    sealed = (console.books.get("provider", row["id"]) or {})["secret"]

    changed = admin.send("PATCH", path, {"state": "disabled", "timeouts": {"total": 9_000}, "stream_usage": False})

    assert changed["timeouts"] == {"connect": 5_000, "first_byte": 60_000, "idle": 60_000, "total": 9_000}
    assert [changed[name] for name in ("state", "connections_max", "client_gone", "stream_usage")] == [
        *("disabled", 7, "drain", False)
    ]
    assert (console.books.get("provider", row["id"]) or {})["secret"] == sealed


def test_a_rotated_key_seals_anew_what_the_older_one_sealed(console: Parts, admin: Api) -> None:
    """Both keys open meanwhile; afterwards the older one may go. Channels that are still plain are sealed, too."""
    row = made(admin)
    console.books.put("channel", {"id": "chn_1", "name": "old", "url": "https://a.example/token", "secret": "s" * 24})
    newer = SecretBox("installation", [("e2", b"\x22" * 32), ("e1", b"\x11" * 32)], os.urandom)

    assert seal_anew(console.books, newer) == 2
    assert seal_anew(console.books, newer) == 0

    alone = SecretBox("installation", [("e2", b"\x22" * 32)], os.urandom)
    assert opened(alone, console.books.get("provider", row["id"]) or {}) == SECRET
    channel = console.books.get("channel", "chn_1") or {}
    assert "token" not in str(channel)
    assert channel_opened(alone, channel)["url"] == "https://a.example/token"


def test_no_two_places_are_bound_alike() -> None:
    """What one place holds can not be moved into the columns of another."""
    box = SecretBox("installation", [("e1", b"\x11" * 32)], os.urandom)
    sealed = box.seal("text", Place("channel", "a", "url"))

    for other in (Place("channel", "a", "secret"), Place("channel", "au", "rl"), provider_place("a", "https://url")):
        with pytest.raises(Failed):
            box.open(sealed, other)


def test_a_provider_whose_secret_does_not_open_is_never_called_without_it(console: Parts, admin: Api) -> None:
    """It waits for a credential that does not come: the gate refuses its calls."""
    row = console.books.get("provider", made(admin)["id"]) or {}
    console.books.put("provider", {**row, "secret": MARK + "gone:AAAA"})

    compiled = console.console.compile_catalogue((), (), made_places(console.books))

    provider = next(each for each in compiled.providers if each.name == "mine")
    assert (provider.credential, provider.renewed) == ({}, True)


# -- resources ---------------------------------------------------------------------------------------------------------


def test_what_the_file_declares_is_shown_and_not_changed(admin: Api) -> None:
    """It comes first, with its source; the way out is the file."""
    rows = admin.get("/api/v1/providers")["data"]
    assert [(row["name"], row["source"], row["api_key"], row["credential"]) for row in rows] == [
        ("openai", "file", "sk-…6789", None),
        ("azure", "file", None, "entra"),
    ]
    assert admin.get("/api/v1/deployments")["data"][0]["source"] == "file"
    assert admin.get("/api/v1/models")["data"][0]["to"] == ["weu"]
    for path, body in (
        ("providers/file:openai", {"state": "disabled"}),
        ("deployments/weu", {"model": "gpt-4"}),
        ("models/best", {"to": ["openai/gpt-4o"]}),
    ):
        assert "configuration file" in admin.send("PATCH", f"/api/v1/{path}", body, status=409)["detail"]
        assert admin.send("DELETE", f"/api/v1/{path}", status=409)["code"] == "conflict"
    assert refused(admin, {"name": "openai"}, 409) == ("conflict", "name")


def test_a_provider_and_its_deployment_act_at_once_and_go_in_order(console: Parts, admin: Api) -> None:
    """They are in the catalogue that the gate gets; what is used is not deleted."""
    made(admin)
    deployment = {"name": "fast", "provider": "mine", "model": "gpt-4o", "deployment": "gpt-4o-2024-08-06"}
    placed = admin.post("/api/v1/deployments", deployment)
    admin.post("/api/v1/models", {"name": "house", "to": ["fast", "openai/gpt-4o"]})
    places = admin.get("/api/v1/places")

    assert placed["deployment"] == "gpt-4o-2024-08-06"
    assert next(each for each in places["models"] if each["name"] == "house")["to"] == ["fast", "openai/gpt-4o"]
    compiled = console.console.compile_catalogue((), (), made_places(console.books))
    provider = next(each for each in compiled.providers if each.name == "mine")
    assert (provider.credential, provider.reach) == ({"authorization": f"Bearer {SECRET}"}, "public")
    # What the gate is sent is what it understands.
    asked = decode_ask(encode(Ask(1, Load(1, catalogue=compiled)))).body
    assert isinstance(asked, Load)
    assert asked.catalogue == compiled
    assert "deployment fast" in admin.send("DELETE", "/api/v1/providers/mine", status=409)["detail"]
    assert "house" in admin.send("DELETE", "/api/v1/deployments/fast", status=409)["detail"]
    for path in ("models/house", "deployments/fast", "providers/mine"):
        assert admin.send("DELETE", f"/api/v1/{path}")["deleted"] is True
    assert "fast" not in str(admin.get("/api/v1/places"))


def test_what_is_disabled_takes_no_calls(console: Parts, admin: Api) -> None:
    """A provider with everything that leads to it, or one deployment."""
    made(admin)
    admin.post("/api/v1/deployments", {"name": "fast", "provider": "mine", "model": "gpt-4o"})
    admin.send("PATCH", "/api/v1/deployments/fast", {"state": "disabled"})
    assert "fast" not in [each["name"] for each in admin.get("/api/v1/places")["deployments"]]
    admin.send("PATCH", "/api/v1/providers/mine", {"state": "disabled"})

    assert "mine" not in [each["name"] for each in admin.get("/api/v1/places")["providers"]]


def test_a_deployment_without_a_price_is_refused_until_one_is_set(admin: Api) -> None:
    """By the same rules as in the file; the way out is in the sentence."""
    made(admin)
    wanted = {"name": "house", "provider": "mine", "model": "house-model"}
    problem = admin.post("/api/v1/deployments", wanted, status=400)
    assert (problem["code"], problem["errors"][0]["field"]) == ("price_unknown", "model")
    for unit in ("input_tokens", "output_tokens"):
        admin.send(
            "PUT",
            "/api/v1/prices",
            {"provider": "mine", "model": "house-model", "unit": unit, "per": 10**6, "price": "1"},
        )

    assert admin.post("/api/v1/deployments", wanted)["name"] == "house"


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "field"),
    [
        ("providers", {"name": "-x"}, 422, "field_range", "name"),
        ("providers", {"name": "a/b"}, 422, "field_range", "name"),
        ("providers", {"kind": "http"}, 422, "field_enum", "kind"),
        ("providers", {"kind": "azure_openai"}, 422, "field_missing", "api_version"),
        ("providers", {"base_url": ""}, 422, "field_missing", "base_url"),
        ("providers", {"lookup": "/no-id"}, 422, "field_range", "lookup"),
        ("providers", {"connections_max": 0}, 422, "field_range", "connections_max"),
        ("providers", {"timeouts": {"total": 0}}, 422, "field_range", "timeouts.total"),
        ("providers", {"source": "file"}, 422, "field_forbidden", "source"),
        ("providers", {"basse_url": "x"}, 422, "field_unknown", "basse_url"),
        ("deployments", {"name": "d", "provider": "nobody", "model": "gpt-4o"}, 422, "field_enum", "provider"),
        ("models", {"name": "m", "to": ["nowhere"]}, 422, "field_enum", "to.0"),
        ("models", {"name": "m", "to": ["m"]}, 422, "field_conflict", "to.0"),
        ("models", {"name": "m", "to": ["azure/gpt-4o"]}, 422, "field_enum", "to.0"),
        ("models", {"name": "best", "to": ["weu"]}, 409, "conflict", "name"),
    ],
)
def test_a_mistake_names_its_field(
    admin: Api, path: str, body: dict[str, Any], status: int, code: str, field: str
) -> None:
    """Nothing is made."""
    whole = {**PROVIDER, **body} if path == "providers" else body
    problem = admin.post(f"/api/v1/{path}", whole, status=status)

    assert (problem["code"], problem["errors"][0]["field"]) == (code, field)


def test_names_that_lead_round_in_a_loop_are_refused(admin: Api) -> None:
    """However long it is."""
    admin.post("/api/v1/models", {"name": "a", "to": ["weu"]})
    admin.post("/api/v1/models", {"name": "b", "to": ["a"]})

    problem = admin.send("PATCH", "/api/v1/models/a", {"to": ["b"]}, status=422)
    assert problem["code"] == "field_conflict"


def test_a_name_leads_to_no_more_places_than_can_be_followed(admin: Api) -> None:
    """Over other names too, wherever in the way a place is added."""
    for at in range(4):
        admin.post("/api/v1/models", {"name": f"m{at}", "to": [f"openai/gpt-{at}-{each}" for each in range(64)]})
    admin.post("/api/v1/models", {"name": "inner", "to": ["m0", "m1"]})
    admin.post("/api/v1/models", {"name": "outer", "to": ["inner", "m2", "m3"]})

    problem = admin.post("/api/v1/models", {"name": "more", "to": ["outer", "weu"]}, status=422)
    below = admin.send("PATCH", "/api/v1/models/inner", {"to": ["m0", "m1", "weu"]}, status=422)
    assert [problem["code"], problem["errors"][0]["field"]] == ["field_range", "to"]
    assert "outer" in below["detail"]


def test_a_trial_takes_no_other_address_or_secret(admin: Api) -> None:
    """A56: it would be a way to send a stored secret elsewhere, or to look around in the network."""
    made(admin)
    for body in ({"base_url": "file:///etc/passwd"}, {"api_key": "${OPENAI_API_KEY}"}):
        assert admin.post("/api/v1/providers/mine/test", body, status=400)["code"] == "url_forbidden"
    assert admin.post("/api/v1/providers/mine/test", {}, status=503)["code"] == "unavailable"
    assert admin.send("POST", "/api/v1/providers/nobody/test", status=404)["code"] == "not_found"


def test_the_tables_hold_what_the_schema_says(console: Parts) -> None:
    """The migration makes what the rows need."""
    with sqlite3.connect(console.folder / "data" / "books.sqlite3") as books:
        tables = {row[0] for row in books.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    books.close()

    assert {"providers", "deployments", "models"} <= tables


def test_a_change_is_made_to_the_version_that_was_read(admin: Api) -> None:
    """A65: another one's change in between is not overwritten; the answer to a change tells the new version."""
    made(admin)
    admin.post("/api/v1/deployments", {"name": "fast", "provider": "mine", "model": "gpt-4o"})
    admin.post("/api/v1/models", {"name": "house", "to": ["fast"]})
    for path, body in (
        ("/api/v1/models/house", {"to": ["fast", "weu"]}),
        ("/api/v1/deployments/fast", {"region": "regional"}),
        ("/api/v1/providers/mine", {"connections_max": 9}),
    ):
        tag = admin.call("GET", path).headers["etag"]
        changed = admin.call("PATCH", path, json=body, headers={"if-match": tag})
        assert changed.headers["etag"] == admin.call("GET", path).headers["etag"] != tag
        stale = admin.call("PATCH", path, json=body, headers={"if-match": tag})
        assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
        assert admin.call("DELETE", path, headers={"if-match": tag}).status_code == 412
