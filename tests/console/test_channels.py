"""``/api/v1/webhooks``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console_parts import Api, Parts, parts
from faregate.config.schema import AlertChannel, Alerts, Config
from faregate.console.sealing import channel_opened

SECRET = "a-secret-of-thirty-two-characters"
URL = "https://192.0.2.7/hooks/T0KEN?key=PARAMETER"


def config(**alerts: Any) -> Config:
    """A configuration that says nothing but what alerts there are."""
    return Config.model_construct(providers=(), alerts=Alerts(**alerts))


@pytest.fixture
def careful(tmp_path: Path) -> Iterator[Api]:
    """A console that sends nothing to private addresses."""
    with parts(tmp_path, config=config()) as made:
        yield Api(made.app, made.admin_key())


def test_a_webhook_gets_a_secret_that_one_answer_shows(made: Parts, api: Api) -> None:
    """Neither secret nor the secret part of the address is in any other answer, or in the trail of changes."""
    channel = api.post("/api/v1/webhooks", {"name": "ops", "url": URL, "alerts": ["test", "anomaly"]})
    assert channel["id"].startswith("chn_")
    assert channel["secret"].startswith("whs-")
    assert len(channel["secret"]) > 40
    assert (channel["kind"], channel["url"], channel["state"]) == ("webhook", "https://192.0.2.7/…", "active")
    assert channel["alerts"] == ["anomaly", "test"]
    later = [api.get("/api/v1/webhooks"), api.get(f"/api/v1/webhooks/{channel['id']}"), api.get("/api/v1/audit")]
    text = str(later) + (made.folder / "data" / "audit.jsonl").read_text()
    assert [hidden for hidden in (channel["secret"], "T0KEN", "PARAMETER") if hidden in text] == []


def test_a_secret_of_ones_own_is_never_shown(api: Api) -> None:
    """Whoever sends one knows it."""
    channel = api.post("/api/v1/webhooks", {"name": "ops", "url": URL, "secret": SECRET})
    assert "secret" not in channel


def test_addresses_of_apprise_need_no_secret(api: Api) -> None:
    """What they hold is shown as their scheme alone."""
    channel = api.post("/api/v1/webhooks", {"name": "chat", "url": "slack://TokenA/TokenB/TokenC/#ops"})
    assert (channel["kind"], channel["url"]) == ("apprise", "slack://…")
    assert "secret" not in channel


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"name": "a"}, "field_missing", "url"),
        ({"name": "a", "url": "example.com"}, "field_range", "url"),
        ({"name": "a", "url": "https://exa mple.com"}, "field_range", "url"),
        ({"name": "a", "url": "https://" + "x" * 2_000}, "field_range", "url"),
        ({"name": "a", "url": "mailto://a@b", "kind": "webhook"}, "field_range", "url"),
        ({"name": "a", "url": "mailto://a@b", "secret": SECRET}, "field_conflict", "secret"),
        ({"name": "a", "url": URL, "secret": "short"}, "field_range", "secret"),
        ({"name": "a", "url": URL, "secret": "x" * 257}, "field_range", "secret"),
        ({"name": "a", "url": URL, "alerts": []}, "field_range", "alerts"),
        ({"name": "a", "url": URL, "alerts": ["weather"]}, "field_enum", "alerts.0"),
        ({"name": "a", "url": URL, "kind": "pigeon"}, "field_enum", "kind"),
        ({"name": "a", "url": URL, "id": "chn_1"}, "field_forbidden", "id"),
    ],
)
def test_a_channel_that_cannot_be_is_refused_and_the_field_named(api: Api, body: Any, code: str, field: str) -> None:
    """Nothing is made."""
    problem = api.post("/api/v1/webhooks", body, status=422)
    assert (problem["code"], problem["errors"][0]["field"]) == (code, field)
    assert api.get("/api/v1/webhooks")["data"] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1", "http://localhost:4001/", "https://10.0.0.8/x", "http://[::1]/", "http://169.254.169.254/",
        "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://0x7f.1/",
        "json://127.0.0.1/x", "mailto://user:pass@example.com?smtp=10.0.0.1",
    ],
)  # fmt: skip
def test_private_addresses_are_refused(careful: Api, url: str) -> None:
    """Whoever may make channels must not reach the network behind the console."""
    problem = careful.post("/api/v1/webhooks", {"name": "inside", "url": url}, status=400)
    assert (problem["code"], problem["errors"][0]["field"]) == ("url_forbidden", "url")
    assert "alerts.allow_private" in problem["detail"]


@pytest.mark.parametrize(
    "url", ["https://user:password@192.0.2.7/", "https://nobody.invalid/", "http://%6c/", "pigeon://loft/7"]
)
def test_addresses_that_nothing_can_be_sent_to_are_refused(careful: Api, url: str) -> None:
    """With a sentence that does not repeat them."""
    problem = careful.post("/api/v1/webhooks", {"name": "nowhere", "url": url}, status=422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("field_range", "url")
    assert "password@" not in str(problem)


def test_private_addresses_are_taken_where_the_configuration_allows_them(tmp_path: Path) -> None:
    """For receivers on one's own network."""
    with parts(tmp_path, config=config(allow_private=True)) as made:
        api = Api(made.app, made.admin_key())
        assert api.post("/api/v1/webhooks", {"name": "inside", "url": "http://10.0.0.8/"})["state"] == "active"


def test_names_are_unique_also_among_declared_ones(tmp_path: Path) -> None:
    """A name says which one."""
    declared = AlertChannel.model_validate({"name": "ops", "url": URL, "secret": SECRET})
    with parts(tmp_path, config=config(channels=(declared,), allow_private=True)) as made:
        api = Api(made.app, made.admin_key())
        api.post("/api/v1/webhooks", {"name": "mine", "url": URL})
        for name in ("ops", "mine"):
            assert api.post("/api/v1/webhooks", {"name": name, "url": URL}, status=409)["code"] == "conflict"


def test_declared_channels_are_shown_and_changed_only_in_their_file(tmp_path: Path) -> None:
    """They have an address, kinds and a source, and no way to be changed here."""
    declared = AlertChannel.model_validate({"name": "ops", "url": URL, "secret": SECRET, "alerts": ["anomaly"]})
    with parts(tmp_path, config=config(channels=(declared,), allow_private=True)) as made:
        api = Api(made.app, made.admin_key())
        api.post("/api/v1/webhooks", {"name": "mine", "url": "mailto://a:b@example.com"})
        rows = api.get("/api/v1/webhooks")["data"]
        assert [(row["name"], row["source"], row["url"]) for row in rows] == [
            ("ops", "file", "https://192.0.2.7/…"),
            ("mine", "api", "mailto://…"),
        ]
        assert [row["name"] for row in api.get("/api/v1/webhooks?kind=apprise")["data"]] == ["mine"]
        path = f"/api/v1/webhooks/{rows[0]['id']}"
        assert api.get(path)["alerts"] == ["anomaly"]
        assert api.send("PATCH", path, {"state": "disabled"}, status=409)["code"] == "conflict"
        assert api.send("DELETE", path, status=409)["code"] == "conflict"


def test_a_channel_is_changed_in_what_was_sent(made: Parts, api: Api) -> None:
    """Its address, name, kinds and rest; a new secret is shown once."""
    channel = api.post("/api/v1/webhooks", {"name": "ops", "url": URL, "alerts": ["test"]})
    path = f"/api/v1/webhooks/{channel['id']}"
    changed = api.send("PATCH", path, {"name": "oncall", "alerts": None, "state": "disabled", "new_secret": True})
    assert (changed["name"], changed["alerts"], changed["state"]) == ("oncall", None, "disabled")
    assert changed["secret"] != channel["secret"]
    stored = made.books.get("channel", channel["id"]) or {}
    assert changed["secret"] not in str(stored)
    assert channel_opened(made.console.box, stored)["secret"] == changed["secret"]
    assert "secret" not in api.send("PATCH", path, {"state": "active"})
    for body in ({"secret": SECRET, "new_secret": True}, {"url": None}, {"kind": "apprise"}):
        api.send("PATCH", path, body, status=422)


def test_a_removed_channel_is_gone(api: Api) -> None:
    """A second removal finds nothing."""
    channel = api.post("/api/v1/webhooks", {"name": "ops", "url": URL})
    path = f"/api/v1/webhooks/{channel['id']}"
    assert api.send("DELETE", path) == {"id": channel["id"], "deleted": True}
    assert api.send("DELETE", path, status=404)["code"] == "not_found"
